"""The style of the page, in light and dark."""

# Colors of text have a contrast of at least 4.5 with their background.
STYLE = """
.gradio-container {
  --flip-fill: #2563eb; --flip-negative: #c2410c; --flip-track: #e2e8f0; --flip-quiet: #475569;
  --flip-error: #b91c1c;
}
.dark .gradio-container, .gradio-container.dark, .dark {
  --flip-fill: #60a5fa; --flip-negative: #fb923c; --flip-track: #334155; --flip-quiet: #cbd5e1;
  --flip-error: #fca5a5;
}
.gradio-container h1 { font-size: 1.6rem; margin: .5rem 0; overflow-wrap: anywhere; }
.gradio-container h2 { font-size: 1.2rem; margin: 1rem 0 .3rem; }
.gradio-container h3 { font-size: 1rem; margin: .8rem 0 .2rem; }
.flip-note { color: var(--flip-quiet); margin: .2rem 0 .6rem; max-width: 46rem; }
.flip-error {
  color: var(--flip-error); border-left: 4px solid currentColor; padding: .4rem .8rem;
  overflow-wrap: anywhere;
}
.flip-pair {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
  gap: .5rem 2rem; align-items: start;
}
.flip-scroll { overflow-x: auto; }
.flip-table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.flip-table caption, .flip-caption { text-align: left; font-weight: 600; margin: .3rem 0; }
.flip-table th, .flip-table td {
  text-align: left; padding: .2rem .4rem .2rem 0; border-bottom: 1px solid var(--flip-track);
  vertical-align: middle;
}
.gradio-container .flip-table, .gradio-container .flip-table * {
  border-left: 0 !important; border-right: 0 !important; border-top: 0 !important;
}
.dark button[role="tab"][aria-selected="true"] { color: #93c5fd; }
.flip-table thead th { font-weight: 400; color: var(--flip-quiet); }
.flip-table tbody th { font-weight: 500; }
.flip-table bdi { display: inline-block; max-width: 11rem; overflow-wrap: break-word; }
.flip-table tbody th em { color: var(--flip-quiet); font-style: normal; font-weight: 400; }
.flip-bar { width: 50%; min-width: 6.5rem; }
.flip-table:has(.flip-bar + .flip-bar) .flip-bar { width: 40%; }
@media (max-width: 480px) {
  .flip-table:has(.flip-bar + .flip-bar) .flip-bar { min-width: 0; width: auto; }
  .flip-bar + .flip-bar .flip-track, .flip-bar:has(+ .flip-bar) .flip-track { display: none; }
}
.flip-value { display: inline-block; width: 3.8rem; }
.flip-track {
  display: inline-block; width: calc(100% - 4.2rem); height: .7rem; background: var(--flip-track);
  border-radius: 3px; overflow: hidden; vertical-align: middle;
}
.flip-fill { display: block; height: 100%; background: var(--flip-fill); border-radius: 3px; }
.flip-negative { background: var(--flip-negative); }
.flip-words { display: flex; flex-wrap: wrap; gap: .3rem; padding: 0; margin: .3rem 0; list-style: none; }
.flip-words li {
  border: 1px solid var(--flip-track); border-radius: 1rem; padding: .05rem .6rem;
  overflow-wrap: anywhere; margin: 0 !important;
}
.flip-words span, .flip-sentences .flip-number {
  color: var(--flip-quiet); font-variant-numeric: tabular-nums;
}
.flip-sentences { padding-left: 1.4rem; }
.flip-sentences > li { margin: .5rem 0; overflow-wrap: anywhere; }
.flip-new { color: var(--flip-fill); }
#flip-edit { padding: 0 1rem 1rem; }
"""

"""Check a built site: every link within it has a target, and every picture has a text alternative.

python docs/check_site.py build/docs
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links, the ids, and the pictures without a text of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.pictures_without_text: list[str] = []
        self.feed(path.read_text("utf8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the checks need."""
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values.get("id", ""), values.get("name", "") if tag == "a" else ""}
        for name in ("href", "src"):
            if name in values:
                self.links.append(values[name])
        if tag == "img" and not values.get("alt", "").strip():
            self.pictures_without_text.append(values.get("src", "?"))


def complaints(site: Path) -> list[str]:
    """Return what is wrong, one line each."""
    pages = {
        path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts
    }
    found = [] if pages else [f"{site} has no pages"]
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        found += [f"{name}: the picture {source} has no text" for source in page.pictures_without_text]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{name}: {link} leads nowhere")
            # Sphinx's pages of source code name a function that two modules offer by the first of them.
            elif (
                name.parts[0] != "_modules"
                and parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].ids
            ):
                found.append(f"{name}: {link} names no part of its page")
    return found


if __name__ == "__main__":
    problems = complaints(Path(sys.argv[1]))
    sys.exit("\n".join(problems) if problems else 0)

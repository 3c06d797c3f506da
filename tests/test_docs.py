"""The code on the README runs as it stands, and the pages it points to exist."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf8")


def test_the_readme_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FLIP_SKLEARN_CACHE", str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    keywords, best = printed.splitlines()[-2:]
    assert len(eval(keywords)) == 3
    assert set(eval(best)) == {"rank", "l1_strength", "use_bias"}
    # What it reads off unseen rows is right far more often than the most frequent words are.
    X, Y, flip = namespace["X"], namespace["Y"], namespace["flip"]
    assert flip.set_params(use_bias=True).score(X[-100:], Y[-100:]) > 0.5


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf8")
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", text) if not t.startswith("http")]
    missing = [t for t in targets if not ((ROOT / page).parent / t.split("#")[0]).exists()]
    assert not missing
    assert "@" not in re.sub(r"`[^`]*`", "", text), "a placeholder was left"


def test_the_sources_of_the_makefile_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    scripts = re.findall(r"(?:examples|benchmarks)/\w+\.py", makefile)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()

"""The documents: examples run, and links, paths and module names exist."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.processes import run_python

README = (ROOT / "README.md").read_text(encoding="utf8")
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *DOCS]
PACKAGE = ROOT / "flip_sklearn"


def test_readme_examples_run(capsys: pytest.CaptureFixture[str], monkeypatch, cache: Path) -> None:
    monkeypatch.setenv("FLIP_SKLEARN_CACHE", str(cache))
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    keywords, best = printed.splitlines()[-2:]
    assert len(eval(keywords)) == 3
    assert set(eval(best)) == {"rank", "l1_strength", "use_bias"}
    # The accuracy on unseen rows is far above that of the most frequent words.
    X, Y, flip = namespace["X"], namespace["Y"], namespace["flip"]
    assert flip.set_params(use_bias=True).score(X[-100:], Y[-100:]) > 0.5


BLOCK = re.compile(r"(?:<!-- not run: ([^\n]+) -->\n)?```python\n(.*?)```", flags=re.DOTALL)
# Runs blocks from standard input in one namespace, in the current folder.
RUN_BLOCKS = """
import doctest, json, sys, warnings
from flip_sklearn.datasets import load_docstrings
load_docstrings.__kwdefaults__["packages"] = ["numpy"]  # reading all packages takes longer than the pages
warnings.simplefilter("ignore")
namespace = {"__name__": "__main__"}
for line, block in json.load(sys.stdin):
    source = "\\n" * line + block
    if block.startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(block, namespace, f"line {line}", None, line)
        test.globs = namespace
        assert not doctest.DocTestRunner().run(test, clear_globs=False).failed, line
    else:
        exec(compile(source, "page", "exec"), namespace)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sentences that the pages have loaded."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("page", DOCS)
def test_page_runs_from_top_to_bottom(page: str, cache: Path, tmp_path: Path) -> None:
    """A block that needs a service, a download or a device says so in a comment above it."""
    text = (ROOT / page).read_text(encoding="utf8")
    assert len(BLOCK.findall(text)) == text.count("```python\n")
    blocks = [(text[: m.start(2)].count("\n"), m[2]) for m in BLOCK.finditer(text) if m[1] is None]
    if not blocks:
        pytest.skip("no blocks")
    environment = {"HOME": str(tmp_path), "FLIP_SKLEARN_CACHE": str(cache), "MPLBACKEND": "agg"}
    done = run_python("-c", RUN_BLOCKS, stdin=json.dumps(blocks), env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]


def test_check_of_blocks_finds_errors(tmp_path: Path) -> None:
    """Negative control: a name of a later block, and a wrong result of a session."""
    for blocks in ([(3, "later\n"), (9, "later = 1\n")], [(1, ">>> 1 + 1\n3\n")]):
        done = run_python("-c", RUN_BLOCKS, stdin=json.dumps(blocks), cwd=tmp_path)
        assert done.returncode == 1
    assert BLOCK.findall("<!-- not run: why -->\n```python\nx\n```") == [("why", "x\n")]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf8")
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", text) if not t.startswith("http")]
    assert not [t for t in targets if not ((ROOT / page).parent / t.split("#")[0]).exists()]
    assert missing_paths(text) == []
    assert missing_modules(text) == []
    assert "@" not in re.sub(r"`[^`]*`", "", text), "a placeholder was left"


def missing_paths(text: str) -> list[str]:
    """Paths of Python files, relative to the repository or to the package, that do not exist."""
    paths = re.findall(r"(?<![\w/.])[\w.]+(?:/\w+)*/\w+\.py\b", text)
    return [p for p in paths if not (ROOT / p).is_file() and not (PACKAGE / p).is_file()]


def missing_modules(text: str) -> list[str]:
    """Dotted names in the package, the benchmarks or the tests, and imported names, that do not exist."""
    names = re.findall(r"\b(?:flip_sklearn|benchmarks|tests)(?:\.[A-Za-z_]\w*)+", text)
    for module, imported in re.findall(r"from (flip_sklearn[\w.]*) import ([\w, ]+)", text):
        names += [f"{module}.{name.strip()}" for name in imported.split(",")]
    files = (".py", ".toml", ".safetensors", ".json")
    return [name for name in names if not name.endswith(files) and not exists(name)]


def exists(dotted: str) -> bool:
    """Whether this is a module, or an attribute of one."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        if spec is None:
            continue
        if n == len(parts):
            return True
        value = importlib.import_module(".".join(parts[:n]))
        for part in parts[n:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def test_checks_of_paths_and_modules_find_missing_ones() -> None:
    """Negative control."""
    assert missing_paths("`backend/fit/solver.py` and `flip_sklearn/io.py`") == []
    assert missing_paths("`backend/topk.py`") == ["backend/topk.py"]
    assert missing_paths("`python tests/test_nothing.py`") == ["tests/test_nothing.py"]
    assert missing_modules("`flip_sklearn.metrics.perplexity` in `flip_sklearn.metrics`") == []
    assert missing_modules("`flip_sklearn._scoring`") == ["flip_sklearn._scoring"]
    assert missing_modules("from flip_sklearn.views import stack_views, fold") == ["flip_sklearn.views.fold"]


def listed_files() -> Iterator[Path]:
    """The files and folders in the tree of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    tree = text.split("    flip_sklearn/\n", 1)[1].split("\n\n", 1)[0]
    folders = {6: PACKAGE}  # by indentation
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        parent = folders[indent]
        if folder := re.match(r"(\w+)/", line.lstrip()):
            parent = folders[indent + 2] = parent / folder[1]
            yield parent
        yield from (parent / name for name in re.findall(r"\w+\.py\b", line))


def test_layout_in_contributing_is_that_of_the_package() -> None:
    files = {path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")}
    assert {path for path in listed_files() if path.suffix == ".py"} == files
    assert all(path.exists() for path in listed_files())


def test_scripts_in_the_makefile_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    assert re.findall(r"examples/\w+\.py", makefile)
    assert missing_paths(makefile) == []
    assert "benchmarks.bench_fit" in makefile
    assert missing_modules(makefile) == []
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()

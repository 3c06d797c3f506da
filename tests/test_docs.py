"""The documents: examples run, and links, paths and module names exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sklearn
from packaging.version import Version

from tests.helpers.blocks import code_blocks, inline_commands, loose_commands
from tests.helpers.pages import Pages
from tests.helpers.paths import ROOT

DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *DOCS]
PACKAGE = ROOT / "flip_sklearn"


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with Pages() as process:
        yield process


@pytest.mark.parametrize("page", PAGES)
def test_page_runs_from_top_to_bottom(page: str, pages: Pages, tmp_path: Path) -> None:
    """All blocks of Python and Bash run, in page order, in one folder, and print what the page shows."""
    text = (ROOT / page).read_text(encoding="utf8")
    assert loose_commands(text) == []
    if page == "docs/estimator.md" and Version(sklearn.__version__) < Version("1.8"):
        pytest.skip("StandardScaler of this scikit-learn does not take tensors of this torch")
    if code_blocks(text):
        done = pages.run(page, text, tmp_path)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_commands_in_sentences_exist(pages: Pages, tmp_path: Path) -> None:
    """Those of examples, benchmarks, extras and targets."""
    texts = [(ROOT / page).read_text(encoding="utf8") for page in PAGES]
    commands = sorted({command for text in texts for command in inline_commands(text)})
    assert len(commands) > 50
    done = pages.run("sentences", "".join(f"```bash\n{command}\n```\n" for command in commands), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


WRONG_PAGES = {
    "order": ("```python\nlater\n```\n```python\nlater = 1\n```\n", "name 'later' is not defined"),
    "session": ("```python\n>>> 1 + 1\n3\n```\n", "Got:\n    2"),
    "failing command": ("```bash\nfalse | cat\necho next\n```\n", "line 2: exit code 1"),
    "exit code of Python": ("```bash\npython -c 'raise SystemExit(3)'\n```\n", "line 2: exit code 3"),
    "file that no block wrote": ("```bash\nzcat a.gz\n```\n```python\nopen('a.gz', 'w')\n```\n", "a.gz"),
    "option": ("```bash\nflip-sklearn find --embedings x.npy dog\n```\n", "--embedings"),
    "option of an example": ("```bash\npython examples/report.py --no-such\n```\n", "--no-such"),
    "benchmark": ("```bash\npython -m benchmarks.bench_nothing\n```\n", "bench_nothing"),
    "extra": ("```bash\npip install '.[encoders,plotz]'\n```\n", "no extra plotz"),
    "requirement": ("```bash\npip install 'torch=>2'\n```\n", "torch=>2"),
    "target": ("```bash\nmake dmeo\n```\n", "no target dmeo"),
    "address": ("```bash\ngit clone https://github.com/other/flip-sklearn\n```\n", "git: "),
    "output": ("```python\nprint('dog', 0.5)\n```\n\n```text\ndog 0.6\n```\n", "is printed:\ndog 0.6"),
    "output of Bash": ("```bash\necho 1\n```\n```\n2\n```\n", "is printed:\n2"),
    "script that nothing runs": (
        "```python\n# train.py\n1 / 0\n```\n",
        "no command of the page runs train.py",
    ),
    "code as text": ("```text\nimport flip_sklearn\n```\n", "code is marked as text"),
    "program as text": ("```\n(X)\nY = X + 1\n```\n", "code is marked as text"),
    "other language": ("```console\n$ ls\n```\n", "'console' is no language"),
    "inside of a directive": ("````{tip}\n```python\n1 / 0\n```\n````\n", "division by zero"),
    "code of Sphinx": ("```{code-block} python\n:caption: x\n\n1 / 0\n```\n", "division by zero"),
}


@pytest.mark.parametrize("case", WRONG_PAGES)
def test_wrong_pages_fail(case: str, pages: Pages, tmp_path: Path) -> None:
    """Negative control."""
    text, message = WRONG_PAGES[case]
    done = pages.run("page.md", text, tmp_path)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr


def test_blocks_share_folder_and_names(pages: Pages, tmp_path: Path) -> None:
    text = """
```python
# square.py
import sys
print(int(sys.stdin.read()) ** 2)
```
```python
x = 12
open("x.txt", "w").write(str(x))
```
```bash
cat x.txt | python square.py | tee y.txt   # programs run side by side
pip install '.[encoders,plots]'
```
```text
144
```
1. A list:

   ```python
   print(x, open("y.txt").read(), 1.001)
   ```

   ```
   12 ... 1.0
   ```
"""
    done = pages.run("page.md", text, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "y.txt").read_text() == "144\n"


def test_commands_outside_of_blocks_are_found() -> None:
    text = "Run\n\n    pip install x\n    z = A B x\n\n```bash\n    make test\n```\n"
    assert loose_commands(text) == ["    pip install x"]


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

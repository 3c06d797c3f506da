"""The API reference has a page for every public name, and the docstrings pass numpydoc's validation."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import ERROR_MSGS, validate
from sklearn.base import BaseEstimator

from tests.helpers.paths import ROOT

NAME = "flip_sklearn"
CONFIGURED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["tool"]["numpydoc_validation"][
    "checks"
]
# As `python -m numpydoc lint` reads them: after "all", those that are left out.
CHECKS = {*ERROR_MSGS} - {*CONFIGURED} if "all" in CONFIGURED else {*CONFIGURED}


def names_in_all(source: str) -> list[str]:
    """The strings of ``__all__``, or none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def public_things() -> dict[str, Any]:
    """What every ``__all__`` of the package names, by its dotted name; some things have two."""
    things = {}
    for path in (ROOT / NAME).rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name in names_in_all(path.read_text("utf8")):
            things[f"{module}.{name}"] = getattr(importlib.import_module(module), name)
    return things


THINGS = public_things()


def complaints_of_listing(listed: list[str]) -> list[str]:
    """What is wrong with the names of the API reference."""
    found = [f"{name} is not public" for name in listed if name not in THINGS]
    pages = Counter(id(THINGS[name]) for name in listed if name in THINGS)
    found += [
        f"{name} has {pages[id(thing)]} pages" for name, thing in THINGS.items() if pages[id(thing)] != 1
    ]
    return found


LISTED = re.findall(r"^   (flip_sklearn\.\S+)$", (ROOT / "docs" / "api.rst").read_text("utf8"), re.MULTILINE)


def test_every_public_name_has_one_page() -> None:
    assert len(THINGS) > 90
    assert complaints_of_listing(LISTED) == []


def test_missing_and_unknown_names_of_the_listing_are_found() -> None:
    """Negative control."""
    assert complaints_of_listing(LISTED[1:])[0].startswith(f"{LISTED[0]} has 0 pages")
    assert complaints_of_listing([*LISTED, "flip_sklearn.nothing"]) == ["flip_sklearn.nothing is not public"]
    twice = complaints_of_listing([*LISTED, "flip_sklearn.keyword_accuracy"])
    assert twice[0].endswith("keyword_accuracy has 2 pages")


@pytest.mark.parametrize("name", [n for n in LISTED if isinstance(THINGS.get(n), type)])
def test_link_of_an_estimator_leads_to_its_page(name: str) -> None:
    estimator = THINGS[name]
    if not issubclass(estimator, BaseEstimator):
        return
    link = estimator._doc_link_template.format(
        **estimator._doc_link_url_param_generator(object.__new__(estimator))
    )
    assert link.endswith(f"/generated/{name}.html")


# --- Docstrings ------------------------------------------------------------------------------


def documented() -> Iterator[tuple[str, Any]]:
    """Public functions and classes, and the public methods that this package defines, each once."""
    seen = set()
    for name, thing in THINGS.items():
        if not callable(thing):
            continue
        members = [(name, thing)]
        if isinstance(thing, type):
            members += [
                (f"{name}.{key}", getattr(thing, key)) for key in dir(thing) if not key.startswith("_")
            ]
        for member_name, member in members:
            function = getattr(member, "__func__", member)
            is_ours = str(getattr(inspect.unwrap(function), "__module__", "")).startswith(NAME)
            if is_ours and callable(member) and function not in seen:
                seen.add(function)
                yield member_name, member


def complaints(thing: Any) -> list[str]:
    """The failed checks of a docstring.

    Objects that functions return are made by no user: in place of parameters, their attributes are described.
    """
    found = [f"{code} {text}" for code, text in validate(get_doc_object(thing))["errors"] if code in CHECKS]
    if not isinstance(thing, type):
        return found
    described = get_doc_object(thing, config={"show_class_members": False})["Attributes"]
    found += [f"attribute {item.name} has no text" for item in described if not (item.type and item.desc)]
    if dataclasses.is_dataclass(thing) or issubclass(thing, tuple):
        found = [text for text in found if not text.startswith("PR01")]
        names = {name for item in described for name in item.name.split(", ")}
        names |= {item.name for item in get_doc_object(thing)["Parameters"]}
        properties = {k for k, v in vars(thing).items() if isinstance(v, property) and not k.startswith("_")}
        fields = {name for name in inspect.signature(thing).parameters if not name.startswith("_")}
        found += [f"{name} is not described" for name in sorted((fields | properties) - names)]
    return found


def test_docstrings_are_valid() -> None:
    things = dict(documented())
    assert len(things) > 200
    assert {"flip_sklearn.FLiPExtractor.find_rows", "flip_sklearn.diagnostics.view_gap"} <= {*things}
    assert {name: found for name, thing in things.items() if (found := complaints(thing))} == {}


def good(a, b=1):
    """Add two numbers.

    Parameters
    ----------
    a, b : int
        Two numbers.

    Returns
    -------
    int
        Their sum.
    """
    return a + b


@dataclasses.dataclass
class Result:
    """Two numbers.

    Attributes
    ----------
    a, b : int
        The numbers.
    """

    a: int
    b: int


def test_faults_of_docstrings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(
        good, "__doc__", inspect.cleandoc(good.__doc__ or "") + "\n"
    )  # as Python 3.13 stores it
    assert complaints(good) == []
    assert complaints(Result) == []
    for old, new, code in [
        ("a, b : int", "a : int", "PR01"),
        ("a, b : int", "a, b, c : int", "PR02"),
        ("a, b : int", "b, a : int", "PR03"),
        ("a, b : int", "a, b", "PR04"),
        ("    Two numbers.\n", "", "PR07"),
        ("int\n    Their sum.", "int", "RT03"),
        ("numbers.\n\nPar", "numbers\n\nPar", "SS03"),
        ("Add two numbers.\n", "\n", "SS01"),
    ]:
        with monkeypatch.context() as patch:
            assert old in (good.__doc__ or "")
            patch.setattr(good, "__doc__", (good.__doc__ or "").replace(old, new, 1))
            assert code in {text.split()[0] for text in complaints(good)}, code
    monkeypatch.setattr(good, "__doc__", "")
    assert complaints(good)[0].startswith("GL08")
    monkeypatch.setattr(Result, "__doc__", (Result.__doc__ or "").replace("a, b : int", "a : int"))
    assert complaints(Result) == ["b is not described"]

"""Checks of scalar parameters, and warnings that point at the caller's line."""

from __future__ import annotations

import math
import threading
import types
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from flip_sklearn.parameters import (
    check_bool,
    check_choice,
    check_folder,
    check_integer,
    check_number,
    is_bool,
    is_integer,
    is_real,
    refusal,
    short_repr,
    warn_caller,
)


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_is_bool_accepts(value: Any) -> None:
    assert is_bool(value)


@pytest.mark.parametrize("value", [0, 1, 1.0, np.int64(1), None, "True", np.array(True)])
def test_is_bool_refuses(value: Any) -> None:
    assert not is_bool(value)


@pytest.mark.parametrize("value", [0, -3, 10**30, np.int64(4), np.uint8(4)])
def test_is_integer_accepts(value: Any) -> None:
    assert is_integer(value)


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float64(1), math.nan, "1", None, [1]])
def test_is_integer_refuses(value: Any) -> None:
    assert not is_integer(value)


@pytest.mark.parametrize("value", [1, -0.5, math.inf, np.float32(2), np.int64(1), Fraction(1, 2)])
def test_is_real_accepts(value: Any) -> None:
    assert is_real(value)


@pytest.mark.parametrize("value", [True, np.True_, 1j, "1", None, [1.0], np.array([1.0])])
def test_is_real_refuses(value: Any) -> None:
    assert not is_real(value)


@pytest.mark.parametrize("value", [1, 5, np.int64(1), np.uint8(5)])
def test_check_integer_returns_a_python_int(value: Any) -> None:
    result = check_integer("k", value, 1, 5)
    assert type(result) is int
    assert result == value


@pytest.mark.parametrize("value", [0, 6, True, np.True_, 2.0, np.float64(2), math.nan, "2", None])
def test_check_integer_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^k=.* is not allowed; use an integer from 1 to 5\.$"):
        check_integer("k", value, 1, 5)


def test_check_integer_names_the_bounds_and_the_alternative() -> None:
    with pytest.raises(ValueError, match=r"use an integer >= 1 or None\."):
        check_integer("k", 0, 1, or_else="None")
    assert check_integer("k", 10**30, 1) == 10**30


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.5), np.int64(1), Fraction(1, 2)])
def test_check_number_returns_a_python_float(value: Any) -> None:
    result = check_number("l1", value, 0, 1)
    assert type(result) is float
    assert result == value


@pytest.mark.parametrize(
    "value", [-0.1, 1.1, True, np.True_, math.nan, np.float64("nan"), math.inf, 1j, "0.5", None]
)
def test_check_number_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^l1=.*; use a finite number >= 0 and <= 1\.$"):
        check_number("l1", value, 0, 1)


def test_check_number_excludes_open_ends() -> None:
    with pytest.raises(ValueError, match=r"use a finite number > 0 and <= 1\."):
        check_number("x", 0, 0, 1, open_low=True)
    with pytest.raises(ValueError, match=r"use a finite number >= 0 and < 1\."):
        check_number("x", 1, 0, 1, open_high=True)
    with pytest.raises(ValueError, match=r"use a finite number >= 0\."):
        check_number("x", math.inf, 0)


@pytest.mark.parametrize(
    ("value", "allowed", "expected"),
    [
        (True, (True, False, "auto"), True),
        (np.True_, (True, False), True),
        (np.False_, (True, False), False),
        ("auto", (True, "auto"), "auto"),
        (np.str_("auto"), ("auto", None), "auto"),
        (None, ("auto", None), None),
    ],
)
def test_check_choice_returns_the_allowed_value(value: Any, allowed: Any, expected: Any) -> None:
    result = check_choice("mode", value, allowed)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "value", [1, 0, 1.0, np.int64(1), "True", "AUTO", None, math.nan, ["auto"], np.array([True])]
)
def test_check_choice_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"use one of True, False, 'auto'\."):
        check_choice("mode", value, (True, False, "auto"))


@pytest.mark.parametrize("value", [True, np.True_])
def test_check_choice_refuses_booleans_where_none_is_allowed(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^mode=.*; use one of 'a', None\.$"):
        check_choice("mode", value, ("a", None))


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_check_bool_returns_a_python_bool(value: Any) -> None:
    result = check_bool("flag", value)
    assert type(result) is bool
    assert result == value


@pytest.mark.parametrize("value", [0, 1, 1.0, "True", None, np.int64(1), math.nan])
def test_check_bool_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^flag=.* is not allowed; use True or False\.$"):
        check_bool("flag", value)


def test_check_folder_accepts_paths_that_are_no_files(tmp_path: Path) -> None:
    assert check_folder("cache", None) is None
    assert check_folder("cache", tmp_path) == tmp_path
    assert check_folder("cache", np.str_(tmp_path / "new")) == tmp_path / "new"


@pytest.mark.parametrize("value", ["", 3, True, math.nan, b"folder", ["a"]])
def test_check_folder_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^cache=.*; use the path of a folder, or None\.$"):
        check_folder("cache", value)


def test_check_folder_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"is a file; use the path of a folder, or None\.$"):
        check_folder("cache", tmp_path / "file")


def test_short_repr_is_cut_to_its_length() -> None:
    assert short_repr("a" * 10) == repr("a" * 10)
    assert short_repr("a" * 100) == "'" + "a" * 56 + "..."
    assert short_repr([1, 2, 3, 4], length=7) == "[1, ..."


def test_refusal_names_value_and_allowed_values() -> None:
    assert str(refusal("k", "x", "a number")) == "k='x' is not allowed; use a number."


# --- Warnings that point at the caller's line ----------------------------------------------------


def call_in_package(code: str) -> dict[str, Any]:
    """The names that code defines in a module of this package; ``warn`` is ``warn_caller``."""
    module = types.ModuleType("flip_sklearn.made_up")
    names = module.__dict__
    names.update(warn=warn_caller, contextmanager=contextmanager)
    names.update(TransformerMixin=TransformerMixin, BaseEstimator=BaseEstimator)
    exec(compile(code, "inside_the_package.py", "exec"), names)
    return names


CODE = """
def decorated(function):
    def wrapper(*args):
        return function(*args)
    return wrapper

class Estimator(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        warn("too many iterations")
        return X

    @decorated
    @decorated
    def predict(self, X):
        return self.transform(X)

    def blocks(self, X):
        with self.context():
            yield self.predict(X)

    @contextmanager
    def context(self):
        warn("entered")
        yield
"""


def check_warning_is_here(call: Callable[[], Any], n_warnings: int = 1) -> None:
    """Every warning of the call points at the line of this file on which the call is defined."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        call()
    assert len(record) == n_warnings
    for warning in record:
        assert warning.filename == __file__
        assert warning.lineno == call.__code__.co_firstlineno


def test_warning_points_at_the_caller() -> None:
    estimator = call_in_package(CODE)["Estimator"]()
    X = np.eye(2)
    check_warning_is_here(lambda: estimator.transform(X))
    check_warning_is_here(lambda: estimator.predict(X))  # through decorators and another method
    check_warning_is_here(lambda: estimator.fit_transform(X))  # a method of scikit-learn calls ours
    check_warning_is_here(lambda: make_pipeline(estimator, estimator).fit(X).transform(X), 3)
    check_warning_is_here(lambda: list(estimator.blocks(X)), 2)  # generator and context manager


def test_warning_in_a_thread_has_a_place() -> None:
    warn = call_in_package(CODE)["warn"]
    thread = threading.Thread(target=warn, args=["in a thread"])
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        thread.start()
        thread.join()
    assert [str(warning.message) for warning in record] == ["in a thread"]


def test_warning_from_a_package_of_a_similar_name_is_the_callers() -> None:
    names = {"__name__": "flip_sklearn_extras", "warn": warn_caller}
    exec(compile("def call():\n    warn('similar name')", "extras.py", "exec"), names)
    with pytest.warns(UserWarning, match="similar name") as record:
        names["call"]()  # type: ignore[operator]
    assert (record[0].filename, record[0].lineno) == ("extras.py", 2)


def test_warning_keeps_its_category_and_obeys_filters() -> None:
    with pytest.warns(ConvergenceWarning, match="no convergence"):
        warn_caller("no convergence", ConvergenceWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match="no convergence"):
            warn_caller("no convergence", ConvergenceWarning)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("default")  # once a line
        for _ in range(3):
            warn_caller("repeated")
    assert len(record) == 1


def test_warning_module_matches_filters() -> None:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=__name__.replace(".", r"\."))
        warn_caller("of this module")
    assert [str(warning.message) for warning in record] == ["of this module"]

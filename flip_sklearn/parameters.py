"""Checks of scalar parameters and group labels, warnings that point at the caller's line, text for users."""

from __future__ import annotations

import heapq
import importlib.metadata
import json
import math
import numbers
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.io import as_numpy

# Also in pyproject.toml.
DOCUMENTATION = "https://flip-sklearn.github.io/flip-sklearn"
SHORT_REPR_LENGTH = 60
MAX_SEED = 2**32 - 1
# Strengths and step sizes above this overflow float32 when they are multiplied.
MAX_STRENGTH = 1e30
# Libraries that call methods of this package for a user: a warning is not about their code.
CALLING_LIBRARIES = {"flip_sklearn", "sklearn", "joblib", "contextlib", "functools", "threading", "torch"}


def short_repr(value: Any, length: int = SHORT_REPR_LENGTH) -> str:
    """``repr(value)``, cut to at most ``length`` characters."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


class VocabularyRepr:
    """``repr`` of an estimator that formats only the part of a large ``vocabulary`` that is shown.

    scikit-learn formats all of a mapping before it shows the first words.
    """

    vocabulary: Any

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        shown = self
        if isinstance(self.vocabulary, Mapping) and len(self.vocabulary) > N_CHAR_MAX:
            words = heapq.nsmallest(N_CHAR_MAX, self.vocabulary.items(), key=lambda item: str(item[0]))
            shown = object.__new__(type(self))
            shown.__dict__ = {**self.__dict__, "vocabulary": dict(words)}
        return super(VocabularyRepr, shown).__repr__(N_CHAR_MAX)  # type: ignore[call-arg]


class DocumentationLink:
    """The link to an estimator's page of the documentation in its HTML representation.

    scikit-learn reads these three attributes of estimators (``sklearn.utils.estimator_html_repr``).
    """

    _doc_link_module = "flip_sklearn"
    _doc_link_template = DOCUMENTATION + "/generated/{name}.html"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """Return the name that users import, which is not that of the module of the class."""
        folder, name = type(self).__module__.split(".")[1], type(self).__name__
        public = sys.modules["flip_sklearn"].__all__
        return {"name": f"flip_sklearn.{name if name in public else f'{folder}.{name}'}"}


def install_command(extra: str) -> str:
    """Return the command that installs an extra from where this package was installed from.

    That is a package index only if the installation has no record of an address.
    """
    try:
        record = importlib.metadata.distribution("flip-sklearn").read_text("direct_url.json")
        origin = json.loads(record) if record else {}
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        origin = {}
    address = origin.get("url")
    if address and "vcs_info" in origin:
        address = f"{origin['vcs_info'].get('vcs', 'git')}+{address}"
    return f"pip install 'flip-sklearn[{extra}]{f' @ {address}' if address else ''}'"


def is_bool(value: Any) -> bool:
    """Return whether a value is True or False, of Python or NumPy."""
    return isinstance(value, (bool, np.bool_))


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer, of Python or NumPy; True and False are not."""
    return isinstance(value, numbers.Integral) and not is_bool(value)


def is_real(value: Any) -> bool:
    """Return whether a value is a real number, of Python or NumPy; True and False are not."""
    return isinstance(value, numbers.Real) and not is_bool(value)


def refusal(name: str, value: Any, allowed: str) -> ValueError:
    """Return the error for a parameter that is not allowed."""
    return ValueError(f"{name}={value!r} is not allowed; use {allowed}.")


def check_integer(name: str, value: Any, low: int, high: int | None = None, *, or_else: str = "") -> int:
    """Check an integer from ``low`` to ``high``; ``or_else`` names what else the caller accepts."""
    if not is_integer(value) or value < low or (high is not None and value > high):
        allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
        raise refusal(name, value, f"{allowed} or {or_else}" if or_else else allowed)
    return int(value)


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    or_else: str = "",
) -> float:
    """Check a finite number from ``low`` to ``high``; ``open_low`` and ``open_high`` exclude the ends.

    ``or_else`` names what else the caller accepts.
    """
    inside = (
        is_real(value)
        and math.isfinite(value)
        and (value > low if open_low else value >= low)
        and (value < high if open_high else value <= high)
    )
    if not inside:
        allowed = f"{'>' if open_low else '>='} {low}"
        if high != math.inf:
            allowed += f" and {'<' if open_high else '<='} {high}"
        raise refusal(name, value, f"a finite number {allowed}{f' or {or_else}' if or_else else ''}")
    return float(value)


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return the allowed value that equals ``value``; NumPy's booleans and strings become Python's.

    Other values are compared by identity, so that 1 is not accepted as True.
    """
    if is_bool(value):
        value = bool(value)
    for choice in allowed:
        if value is choice or (isinstance(choice, str) and isinstance(value, str) and value == choice):
            return choice
    raise refusal(name, value, f"one of {', '.join(map(repr, allowed))}")


def check_bool(name: str, value: Any) -> bool:
    """Check True or False, of Python or NumPy."""
    if not is_bool(value):
        raise refusal(name, value, "True or False")
    return bool(value)


def check_random_state(value: Any) -> np.random.RandomState:
    """Return the generator of a ``random_state``: None, a seed, or a generator itself."""
    if isinstance(value, np.random.RandomState):
        return value
    if value is None or value is np.random:
        return np.random.mtrand._rand  # the global generator, as in scikit-learn
    if not is_integer(value) or not 0 <= value <= MAX_SEED:
        raise refusal(
            "random_state", value, f"an integer from 0 to {MAX_SEED}, a numpy.random.RandomState, or None"
        )
    return np.random.RandomState(int(value))


def check_folder(name: str, value: Any) -> Path | None:
    """Check the path of a folder, which need not exist, or None."""
    if value is None:
        return None
    if not isinstance(value, (str, PathLike)) or not str(value):
        raise refusal(name, value, "the path of a folder, or None")
    path = Path(value).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{name}={value!r} is a file; use the path of a folder, or None.")
    return path


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning for the innermost line outside this package and the libraries that call it.

    A fixed ``stacklevel`` would depend on how many decorators, helpers and pipelines lie between.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _top_package(frame.f_globals) in CALLING_LIBRARIES:
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _top_package(module_globals: dict[str, Any]) -> str:
    return str(module_globals.get("__name__")).partition(".")[0]


def number_groups(groups: Any, n: int, name: str = "groups") -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels, sorted, and the number of the label of each row, int64 (n,).

    Labels that are not numbers are counted in a dict: an array of strings takes n times the longest.
    """
    labels = groups.to_pylist() if hasattr(groups, "to_pylist") else as_numpy(groups)
    if not isinstance(labels, np.ndarray):
        is_iterable = isinstance(labels, Iterable)
        labels = np.fromiter(labels, dtype=object) if is_iterable else np.array(labels, dtype=object)
    if labels.shape != (n,):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {name} has shape {labels.shape}; "
            f"pass one {name.removesuffix('s')} per row, ({n},)."
        )
    if labels.dtype.kind in "buifmM":
        missing = labels != labels
    else:
        labels = labels.tolist()
        missing = np.fromiter((_is_missing(label) for label in labels), dtype=bool, count=n)
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(
            f"{name}[{row}] = {labels[row]} is missing; every row needs a {name.removesuffix('s')}: "
            "leave the row out, or give it one of its own."
        )
    if isinstance(labels, np.ndarray):
        names, number = np.unique(labels, return_inverse=True)
        return names, number.astype(np.int64, copy=False)
    if any(isinstance(label, str) for label in labels):
        labels = [str(label) for label in labels]
    try:
        ordered = sorted(set(labels))
    except TypeError as error:
        raise ValueError(
            f"{name} has labels that cannot be compared ({error}); use strings or numbers, one per row."
        ) from error
    place = {label: i for i, label in enumerate(ordered)}
    names = np.fromiter(ordered, dtype=object, count=len(ordered))
    return names, np.fromiter((place[label] for label in labels), dtype=np.int64, count=n)


def _is_missing(label: Any) -> bool:
    return label is None or type(label).__name__ == "NAType" or label != label


def local_folder_name(name: str) -> str:
    """Return how an encoder in a folder of this name is called."""
    return f"{name} (a local folder)"


def is_same_encoder(name: str, other: str) -> bool:
    """Return whether two names may be of one encoder.

    "LaBSE", "sentence-transformers/LaBSE" and a folder called LaBSE may be, two ids of the hub must be equal.
    """
    owners, names = [], []
    for text in (name, other):
        # These functions of os.path return False for any text, such as a note of a thousand words.
        path = os.path.expanduser(text.removesuffix(local_folder_name("")))
        is_path = os.path.isdir(path) or os.path.isabs(path)
        parts = os.path.realpath(path).split(os.sep) if os.path.isdir(path) else path.rstrip("/").split("/")
        owners.append(parts[0].casefold() if len(parts) == 2 and not is_path else None)
        names.append(parts[-1].casefold())
    return names[0] == names[1] and (None in owners or owners[0] == owners[1])

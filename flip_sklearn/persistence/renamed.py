"""Pickle, joblib and skops files name classes by module; these modules have been renamed since 0.1.0."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

# The modules whose classes can be in such a file: estimators, results, and what they hold.
RENAMED = {
    "flip_sklearn._concepts": "flip_sklearn.splice.results",
    "flip_sklearn._entities": "flip_sklearn.metrics.entities",
    "flip_sklearn._means": "flip_sklearn.metrics.summary",
    "flip_sklearn._paired": "flip_sklearn.datasets.paired",
    "flip_sklearn._reading": "flip_sklearn.vocabulary.tokenizer",
    "flip_sklearn._spans": "flip_sklearn.vocabulary.phrases",
    "flip_sklearn.backend.whitening": "flip_sklearn.backend.fit.whitening",
    "flip_sklearn.diagnostics._bootstrap": "flip_sklearn.diagnostics.bootstrap",
    "flip_sklearn.diagnostics._split": "flip_sklearn.diagnostics.split",
    "flip_sklearn.report._examples": "flip_sklearn.report.examples",
    "flip_sklearn.report._findings": "flip_sklearn.report.findings",
}
# Functions and classes that have been renamed, too: (former module, former name) -> name.
RENAMED_NAMES = {
    ("flip_sklearn._reading", "Reader"): "Tokenizer",
    ("flip_sklearn._reading", "_Guard"): "CheckedSplitter",
    ("flip_sklearn._reading", "_latin"): "split_latin",
    ("flip_sklearn._spans", "Matcher"): "PhraseMatcher",
}


class RenamedModule(ModuleType):
    """Stands for a module under its former name; the module itself is imported on first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # looked up by the import system, not by a stored object
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module = importlib.import_module(RENAMED[self.__name__])
        return getattr(module, RENAMED_NAMES.get((self.__name__, name), name))


def register() -> None:
    """Make the former names importable."""
    for name in RENAMED:
        sys.modules.setdefault(name, RenamedModule(name))

"""Columns of tidy tables, and short texts, of results that are arrays with named axes."""

from __future__ import annotations

from typing import Any

import numpy as np


def grid(**axes: Any) -> dict[str, np.ndarray]:
    """Columns that name every cell of an array, the last axis running fastest."""
    values = [_objects(labels) for labels in axes.values()]
    cells = np.meshgrid(*[np.arange(len(v)) for v in values], indexing="ij")
    return {name: v[c.ravel()] for name, v, c in zip(axes, values, cells, strict=True)}


def _objects(labels: Any) -> np.ndarray:
    """Labels as they are: None and numbers do not become text."""
    labels = list(labels)
    if labels and all(isinstance(label, (int, float, np.number)) for label in labels):
        return np.array(labels)
    column = np.empty(len(labels), dtype=object)
    column[:] = labels
    return column


def columns(accuracy: Any, difference: Any) -> dict[str, np.ndarray]:
    """Accuracies and differences with their intervals, cell by cell."""
    return {
        "accuracy": accuracy.value.ravel(),
        "low": accuracy.low.ravel(),
        "high": accuracy.high.ravel(),
        "difference": difference.value.ravel(),
        "difference_low": difference.low.ravel(),
        "difference_high": difference.high.ravel(),
        "significant": difference.significant.ravel(),
    }


def cells(rows: Any, names: Any, values: np.ndarray) -> str:
    """A matrix in one line: row: column value, column value; next row ..."""
    lines = [
        f"{row}: " + ", ".join(f"{n} {v:.3f}" for n, v in zip(names, line, strict=True))
        for row, line in zip(rows, values, strict=True)
    ]
    return "; ".join(lines)


def shown(given: Any) -> str:
    """An argument of the wrong kind, for a message: short ones as they are, large ones by their type."""
    text = repr(given)
    return text if len(text) <= 40 else f"a {type(given).__name__}"

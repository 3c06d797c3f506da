"""Table columns and one-line texts for results that are arrays with named axes."""

from __future__ import annotations

from typing import Any

import numpy as np


def grid(**axes: Any) -> dict[str, np.ndarray]:
    """Columns that label every cell of an array in C order, one column for each axis."""
    labels = [_as_column(axis) for axis in axes.values()]
    positions = np.meshgrid(*[np.arange(len(axis)) for axis in labels], indexing="ij")
    return {
        name: axis[position.ravel()] for name, axis, position in zip(axes, labels, positions, strict=True)
    }


def _as_column(labels: Any) -> np.ndarray:
    """Labels as an array; of mixed types as objects, so that None and numbers do not become text."""
    labels = list(labels)
    if labels and all(isinstance(label, (int, float, np.number)) for label in labels):
        return np.array(labels)
    column = np.empty(len(labels), dtype=object)
    column[:] = labels
    return column


def interval_columns(name: str, interval: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Columns of a mean and of the ends of its interval; ``prefix`` is that of the ends."""
    return {
        name: interval.value.ravel(),
        f"{prefix}low": interval.low.ravel(),
        f"{prefix}high": interval.high.ravel(),
    }


def difference_columns(difference: Any) -> dict[str, np.ndarray]:
    """Columns of a difference, of the ends of its interval, and whether the interval excludes 0."""
    return {
        **interval_columns("difference", difference, "difference_"),
        "significant": difference.significant.ravel(),
    }


def accuracy_columns(accuracy: Any, difference: Any) -> dict[str, np.ndarray]:
    """Columns of an accuracy and of its difference to a reference."""
    return interval_columns("accuracy", accuracy) | difference_columns(difference)


def matrix_text(rows: Any, columns: Any, values: np.ndarray) -> str:
    """A matrix in one line: "row: column value, column value; next row ..."."""
    lines = []
    for row, row_values in zip(rows, values, strict=True):
        cells = [f"{name} {value:.3f}" for name, value in zip(columns, row_values, strict=True)]
        lines.append(f"{row}: {', '.join(cells)}")
    return "; ".join(lines)

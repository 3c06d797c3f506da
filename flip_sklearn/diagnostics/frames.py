"""Table columns and one-line texts for results that are arrays with named axes."""

from __future__ import annotations

from typing import Any

import numpy as np


def grid(**axes: Any) -> dict[str, np.ndarray]:
    """Columns that label every cell of an array in C order, one column for each axis."""
    columns = np.meshgrid(*map(_as_column, axes.values()), indexing="ij")
    return {name: column.ravel() for name, column in zip(axes, columns, strict=True)}


def _as_column(labels: Any) -> np.ndarray:
    """Labels as an array; of mixed types as objects, so that None and numbers do not become text."""
    labels = list(labels)
    if labels and all(isinstance(label, (int, float, np.number)) for label in labels):
        return np.array(labels)
    return np.fromiter(labels, dtype=object, count=len(labels))


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
    """A matrix as text in one line: "row: column value, column value; next row: ..."."""
    lines = []
    for row, row_values in zip(rows, values, strict=True):
        cells = [f"{name} {value:.3f}" for name, value in zip(columns, row_values, strict=True)]
        lines.append(f"{row}: {', '.join(cells)}")
    return "; ".join(lines)

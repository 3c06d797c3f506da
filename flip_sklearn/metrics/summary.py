"""Results of metrics over rows: a value, its standard error, and the metric of each row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import number_groups


@dataclass(frozen=True)
class RowStatistic:
    """A metric over rows with its standard error; ``float(result)`` is its value."""

    value: float
    standard_error: float
    n_rows: int
    n_skipped: int
    per_row: np.ndarray

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.value:.4f} +- {self.standard_error:.4f}, "
            f"n_rows={self.n_rows}, n_skipped={self.n_skipped})"
        )


@dataclass(frozen=True, repr=False)
class RowMean(RowStatistic):
    """Mean of a metric over rows, with its standard error; ``float(result)`` is the mean.

    For the m rows with a value v_n and a weight w_n > 0, and W = sum_n w_n::

        value          = sum_n w_n v_n / W
        standard_error = sqrt(m / (m - 1)  sum_n (w_n (v_n - value) / W)^2)

    which is s / sqrt(m) with the unbiased s (``ddof=1``) for equal weights. The published evaluation of
    FLiP divides by m instead of m - 1: its errors are these times sqrt((m - 1) / m). Rows are taken for
    independent; :meth:`of` takes groups of rows that are not.

    Attributes
    ----------
    value : float
        (Weighted) mean over the rows with a value; nan if there are none.
    standard_error : float
        Standard error of that mean over rows; nan for fewer than two rows.
    n_rows, n_skipped : int
        Number of rows with a value, and of rows for which the metric is not defined.
    per_row : ndarray of shape (n,)
        The metric of each row; nan for the skipped ones.

    Examples
    --------
    >>> from flip_sklearn.metrics import RowMean
    >>> RowMean.of([0.5, 1.0, float("nan")])
    RowMean(0.7500 +- 0.2500, n_rows=2, n_skipped=1)
    """

    @classmethod
    def of(cls, per_row: Any, sample_weight: Any = None, *, groups: Any = None) -> RowMean:
        """Compute the mean of values per row; nan marks a row to be skipped.

        Parameters
        ----------
        per_row : array-like of shape (n,)
            The values of the rows; nan for rows that are skipped.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0; their scale does not matter.
        groups : array-like of shape (n,), default=None
            Labels of rows that belong together, such as copies of a sentence or its translations. The
            standard error takes groups for independent: the terms w_n (v_n - value) / W of a group are added
            before they are squared, and m is the number of groups with a value.

        Returns
        -------
        RowMean
            The mean, its standard error and the number of rows.

        Raises
        ------
        ValueError
            If ``per_row`` is not one-dimensional, the weights are of another length, negative or not finite,
            or groups is of another length or has a missing label.

        Examples
        --------
        >>> from flip_sklearn.metrics import RowMean
        >>> accuracy = [0.5, 0.5, 1.0, 1.0]  # two sentences, each of them twice
        >>> RowMean.of(accuracy), RowMean.of(accuracy, groups=["a", "a", "b", "b"])
        (RowMean(0.7500 +- 0.1443, n_rows=4, n_skipped=0), RowMean(0.7500 +- 0.2500, n_rows=4, n_skipped=0))
        """
        per_row = np.asarray(per_row, dtype=float)
        if per_row.ndim != 1:
            raise ValueError(f"per_row has shape {per_row.shape}; pass one value per row, (n,).")
        weights = check_weights(sample_weight, len(per_row))
        is_defined = ~np.isnan(per_row)
        used = is_defined & (weights > 0)  # rows of zero weight are ignored, even if infinite
        group = None if groups is None else number_groups(groups, len(per_row))[1][used]
        values, weights = per_row[used], rescale_weights(weights[used])
        m, total_weight = len(weights), weights.sum()
        mean = float(weights @ values / total_weight) if m else math.nan
        residuals = weights / total_weight * (values - mean) if math.isfinite(mean) else np.zeros(m)
        if group is not None:
            index = np.unique(group, return_inverse=True)[1]
            residuals = np.bincount(index, weights=residuals)
            m = len(residuals)
        error = math.nan
        if m > 1 and math.isfinite(mean):
            error = float(np.sqrt(m / (m - 1) * np.sum(residuals**2)))
        n_rows = int(is_defined.sum())
        return cls(mean, error, n_rows, len(per_row) - n_rows, per_row)


def divide(numerator: np.ndarray, denominator: np.ndarray, default: float) -> np.ndarray:
    """Return the quotients, ``default`` where the denominator is 0."""
    quotient = np.full(denominator.shape, default)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def rescale_weights(weights: np.ndarray) -> np.ndarray:
    """Return weights whose largest is about one, so that their sums neither overflow nor underflow.

    The factor is a power of two, which rounds nothing.
    """
    exponent = np.frexp(weights.max(initial=0))[1]
    return np.asarray(np.ldexp(weights, -exponent))


def check_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Return one finite weight >= 0 for each of n rows; ones for None."""
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(as_numpy(sample_weight), dtype=float)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has shape {weights.shape}; pass one weight per row, ({n},).")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight must be finite and >= 0.")
    return weights

"""The mean of a metric over rows with its standard error: what every metric gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RowMean:
    """Mean of a metric over rows, with its standard error; ``float(result)`` is the mean.

    For the rows that count, with values v_n, weights w_n, m of them with w_n > 0, and W = sum_n w_n:

        value          = sum_n w_n v_n / W
        standard_error = sqrt(m / (m - 1)  sum_n (w_n (v_n - value) / W)^2)

    which is s / sqrt(m) with the unbiased s (``ddof=1``) for equal weights. The published evaluation of
    FLiP divides by m where we divide by m - 1: its errors are ours times sqrt((m - 1) / m).

    Attributes
    ----------
    value : float
        (Weighted) mean over the rows that count; nan when none does.
    standard_error : float
        Standard error of that mean over rows; nan for fewer than two rows.
    n_rows, n_skipped : int
        Rows that count, and rows left out because the metric is not defined for them.
    per_row : ndarray of shape (n,)
        The metric of each row; nan for the skipped ones.

    Examples
    --------
    >>> from flip_sklearn.metrics import RowMean
    >>> RowMean.of([0.5, 1.0, float("nan")])
    RowMean(0.7500 +- 0.2500, n_rows=2, n_skipped=1)
    """

    value: float
    standard_error: float
    n_rows: int
    n_skipped: int
    per_row: np.ndarray

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return (
            f"RowMean({self.value:.4f} +- {self.standard_error:.4f}, "
            f"n_rows={self.n_rows}, n_skipped={self.n_skipped})"
        )

    @classmethod
    def of(cls, per_row: Any, sample_weight: Any = None) -> RowMean:
        """The mean of any values per row; nan marks a row to be skipped.

        Parameters
        ----------
        per_row : array-like of shape (n,)
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0; their scale means nothing.

        Returns
        -------
        RowMean

        Raises
        ------
        ValueError
            If ``per_row`` has more dimensions, or the weights are of another length, negative or not
            finite.
        """
        per_row = np.asarray(per_row, dtype=float)
        if per_row.ndim != 1:
            raise ValueError(f"per_row has shape {per_row.shape}; pass one value per row, (n,).")
        weights = check_weights(sample_weight, len(per_row))
        used = ~np.isnan(per_row)
        weighted = used & (weights > 0)  # an infinite value of weight zero has no say
        values, w = per_row[weighted], weights[weighted]
        mass, m = w.sum(), len(w)
        mean = float(w @ values / mass) if m else float("nan")
        error = float("nan")
        if m > 1 and np.isfinite(mean):
            error = float(np.sqrt(m / (m - 1) * np.sum((w / mass * (values - mean)) ** 2)))
        return cls(mean, error, int(used.sum()), int((~used).sum()), per_row)


def check_weights(sample_weight: Any, n: int) -> np.ndarray:
    """One finite weight >= 0 for each of n rows; ones for None."""
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=float)
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {weights.shape}; pass one weight per row, ({n},)."
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight must be finite and >= 0.")
    return weights

"""Paired bootstrap: intervals of means over sentences, and of differences between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from flip_sklearn.parameters import check_integer, check_number

# Resampling weights held in one go: 2**23 float64 are 64 MiB.
_BLOCK_ELEMENTS = 2**23


@dataclass(frozen=True)
class Interval:
    """Means with confidence intervals; the arrays have one shape.

    Attributes
    ----------
    value, low, high : ndarray
        The mean, and the ends of its interval.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Difference(Interval):
    """Differences of two means over the same sentences, with confidence intervals.

    Attributes
    ----------
    value, low, high : ndarray
        The difference, and the ends of its interval.
    significant : ndarray of bool
        Whether 0 lies outside the interval.
    """

    significant: np.ndarray


class PairedBootstrap:
    """Resamples whole groups of sentences, the same ones for every column.

    With R_gc the sum of column c over the sentences of group g, K_gc their number and m_g how often
    group g is drawn, a resample's mean is sum_g m_g R_gc / sum_g m_g K_gc. Intervals are percentiles over
    resamples; since all columns see the same draws, what sentences have in common cancels in differences.

    Parameters
    ----------
    per_row : ndarray of shape (n, c)
        Values of each sentence, one for every column; nan where a sentence does not count.
    groups : ndarray of shape (n,)
        Group of each sentence.
    n_bootstrap : int
        Resamples, >= 10.
    confidence : float
        Share of resamples inside an interval, in (0, 1).
    random_state : int, RandomState instance or None
        Seed of the draws.
    out_of : ndarray of shape (n, c), default=None
        What each value is a part of, such as the sentence's words. K_gc is then its sum, and means are
        ratios of sums; nan where a resample has nothing to divide by.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 8 and 13.
    """

    def __init__(
        self,
        per_row: np.ndarray,
        groups: np.ndarray,
        n_bootstrap: int,
        confidence: float,
        random_state: Any,
        out_of: np.ndarray | None = None,
    ) -> None:
        left, self.confidence = check_resampling(n_bootstrap, confidence)
        rng = check_random_state(random_state)
        number = np.unique(groups, return_inverse=True)[1]
        n_groups = int(number.max()) + 1
        sums = np.zeros((n_groups, per_row.shape[1]))
        counts = np.zeros_like(sums)
        np.add.at(sums, number, np.nan_to_num(per_row, nan=0.0))
        np.add.at(counts, number, ~np.isnan(per_row) if out_of is None else out_of)
        with np.errstate(invalid="ignore"):
            self.mean = sums.sum(axis=0) / counts.sum(axis=0)
            samples = []
            step = max(1, _BLOCK_ELEMENTS // n_groups)
            while left > 0:
                size = min(step, left)
                drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=size)
                samples.append((drawn @ sums) / (drawn @ counts))
                left -= size
        self.samples = np.concatenate(samples)

    def means(self, columns: np.ndarray) -> Interval:
        """Means of columns, in the shape of the given numbers of columns."""
        low, high = self._ends(self.samples[:, columns.ravel()])
        parts = (self.mean[columns.ravel()], low, high)
        return Interval(*(a.reshape(columns.shape) for a in parts))

    def differences(self, minuend: np.ndarray, subtrahend: np.ndarray) -> Difference:
        """Column less column, in the one shape of the given numbers of columns."""
        flat, reference = minuend.ravel(), subtrahend.ravel()
        low, high = self._ends(self.samples[:, flat] - self.samples[:, reference])
        value = self.mean[flat] - self.mean[reference]
        outside = (low > 0) | (high < 0)
        return Difference(*(a.reshape(minuend.shape) for a in (value, low, high, outside)))

    def _ends(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
        return low, high


def check_resampling(n_bootstrap: Any, confidence: Any) -> tuple[int, float]:
    """A number of resamples that can carry an interval, and a level in (0, 1)."""
    n = check_integer("n_bootstrap", n_bootstrap, 10)
    return n, check_number("confidence", confidence, 0, 1, open_low=True, open_high=True)

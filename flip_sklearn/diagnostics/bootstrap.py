"""Paired bootstrap: confidence intervals of means over sentences, and of differences between means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flip_sklearn.diagnostics.inputs import EvaluationSettings
from flip_sklearn.parameters import check_random_state

# Resampling weights in memory at a time: 2**23 float64 are 64 MiB.
_BLOCK_ELEMENTS = 2**23


@dataclass(frozen=True)
class Interval:
    """Means with confidence intervals; the arrays have one shape.

    Attributes
    ----------
    value, low, high : ndarray
        The mean and the ends of its interval.
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
        The difference and the ends of its interval.
    significant : ndarray of bool
        Whether 0 lies outside the interval.
    """

    significant: np.ndarray


class PairedBootstrap:
    """Bootstrap that resamples whole groups of sentences, with the same draws for every column.

    ``per_row`` (n, c) has the values of each sentence, nan where it is left out. With R_gc the sum of column
    c over the sentences of group g, K_gc their number (with ``denominators`` (n, c), the sum of these) and
    m_g how often group g is drawn, the mean of a resample is sum_g m_g R_gc / sum_g m_g K_gc, nan where the
    denominator is zero. Intervals are percentiles over resamples. Since all columns see the same draws, the
    variation that two columns share cancels in their difference. Efron and Tibshirani (1993), An
    Introduction to the Bootstrap, chapters 8 and 13.
    """

    def __init__(
        self,
        per_row: np.ndarray,
        groups: np.ndarray,
        settings: EvaluationSettings,
        denominators: np.ndarray | None = None,
    ) -> None:
        self.confidence = settings.confidence
        rng = check_random_state(settings.random_state)
        group_index = np.unique(groups, return_inverse=True)[1]
        n_groups = int(group_index.max()) + 1
        sums = np.zeros((n_groups, per_row.shape[1]))
        counts = np.zeros_like(sums)
        np.add.at(sums, group_index, np.nan_to_num(per_row, nan=0.0))
        np.add.at(counts, group_index, ~np.isnan(per_row) if denominators is None else denominators)
        blocks = []
        step = max(1, _BLOCK_ELEMENTS // n_groups)
        with np.errstate(invalid="ignore"):
            self.mean = sums.sum(axis=0) / counts.sum(axis=0)
            for start in range(0, settings.n_bootstrap, step):
                size = min(step, settings.n_bootstrap - start)
                draws = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=size)
                blocks.append((draws @ sums) / (draws @ counts))
        self.samples = np.concatenate(blocks)

    def means(self, columns: np.ndarray) -> Interval:
        """Return the means of columns with intervals, in the shape of ``columns``."""
        flat = columns.ravel()
        low, high = self._percentiles(self.samples[:, flat])
        return Interval(*(ends.reshape(columns.shape) for ends in (self.mean[flat], low, high)))

    def differences(self, minuend: np.ndarray, subtrahend: np.ndarray) -> Difference:
        """Return differences of columns with intervals, in the shape of the two column arrays."""
        flat, reference = minuend.ravel(), subtrahend.ravel()
        low, high = self._percentiles(self.samples[:, flat] - self.samples[:, reference])
        value = self.mean[flat] - self.mean[reference]
        # A matrix product may round equal columns differently; such differences are not significant.
        rounding = 1e-12 * np.maximum(np.abs(self.mean[flat]), np.abs(self.mean[reference]))
        significant = (low > rounding) | (high < -rounding)
        return Difference(*(part.reshape(minuend.shape) for part in (value, low, high, significant)))

    def _percentiles(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
        return low, high

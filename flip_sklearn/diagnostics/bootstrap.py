"""Paired bootstrap: confidence intervals of means over sentences, and of differences between means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from flip_sklearn.diagnostics.inputs import EvaluationSettings
from flip_sklearn.diagnostics.shares import ClusterShares, correlate, difference_ends, effective_number
from flip_sklearn.parameters import check_random_state

# Resampling weights in memory at a time: 2**23 float64 are 64 MiB.
_BLOCK_ELEMENTS = 2**23
# Percentiles of resamples need this many groups with hits, and as many with misses.
_MIN_GROUPS = 30


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

    ``per_row`` (n, c) has the values of each sentence, from 0 to 1 or, with ``denominators`` (n, c), from 0
    to these; nan where it is left out. With R_gc the sum of column c over the sentences of group g, K_gc
    their number or the sum of their denominators, and m_g how often group g is drawn, the mean of a resample
    is sum_g m_g R_gc / sum_g m_g K_gc.

    Intervals are percentiles over resamples, expanded for the number of groups as in Hesterberg (2015), What
    teachers should know about the bootstrap. Since all columns see the same draws, the variation that two
    columns share cancels in their difference. Efron and Tibshirani (1993), An Introduction to the Bootstrap,
    chapters 8 and 13.

    Resamples of few hits do not show how many there could have been: without a hit, no resample has one. A
    mean with less than 30 groups with hits, or with misses, has the interval of :class:`ClusterShares`
    instead. The interval of a difference follows from those of two such means if there is little to resample:
    from the mean gain and the mean loss if two columns with the same denominators differ in few groups, and
    from both columns if their denominators differ and one of them has few hits or misses.
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
        self._sums, self._counts = sums, counts
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
        low, high = self._percentiles(self.samples[:, flat], self._counts[:, flat])
        few = self._have_few(flat)
        shares = ClusterShares.of(self._sums[:, flat[few]], self._counts[:, flat[few]], self.confidence)
        low[few], high[few] = shares.low, shares.high
        return Interval(*(ends.reshape(columns.shape) for ends in (self.mean[flat], low, high)))

    def differences(self, minuend: np.ndarray, subtrahend: np.ndarray) -> Difference:
        """Return differences of columns with intervals, in the shape of the two column arrays."""
        flat, reference = minuend.ravel(), subtrahend.ravel()
        samples = self.samples[:, flat] - self.samples[:, reference]
        low, high = self._percentiles(samples, self._counts[:, flat])
        is_paired = (self._counts[:, flat] == self._counts[:, reference]).all(axis=0)
        for few, compute in (
            (self._differ_in_few(flat, reference) & is_paired, self._paired_ends),
            ((self._have_few(flat) | self._have_few(reference)) & ~is_paired, self._unpaired_ends),
        ):
            few &= flat != reference  # a column does not differ from itself
            low[few], high[few] = compute(flat[few], reference[few])
        value = self.mean[flat] - self.mean[reference]
        # A matrix product may round equal columns differently; such differences are not significant.
        rounding = 1e-12 * np.maximum(np.abs(self.mean[flat]), np.abs(self.mean[reference]))
        significant = (low > rounding) | (high < -rounding)
        return Difference(*(part.reshape(minuend.shape) for part in (value, low, high, significant)))

    def _percentiles(self, samples: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expanded percentiles of each column; nan if a resample is."""
        n_groups = np.maximum((counts > 0).sum(axis=0), 2)
        quantile = stdtrit(n_groups - 1, 0.5 + self.confidence / 2)
        tail = ndtr(-np.sqrt(n_groups / (n_groups - 1)) * quantile)
        # As in Davison and Hinkley (1997), Bootstrap Methods and their Application, section 5.2: with fewer
        # resamples, other definitions of quantiles give intervals that are too short.
        position = np.maximum(tail * (len(samples) + 1) - 1, 0)
        ordered = np.sort(samples.T, axis=1)
        column = np.arange(len(ordered))
        below = position.astype(np.int64)
        above = below + 1

        def interpolate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            upper = position - below
            return np.asarray(ordered[column, first] * (1 - upper) + ordered[column, second] * upper)

        is_missing = np.isnan(ordered[:, -1])
        low = np.where(is_missing, np.nan, interpolate(below, above))
        high = np.where(is_missing, np.nan, interpolate(-1 - below, -1 - above))
        return low, high

    def _have_few(self, columns: np.ndarray) -> np.ndarray:
        """Whether few groups have hits, or few have misses."""
        return np.asarray(_n_informative(self._sums[:, columns], self._counts[:, columns]) < _MIN_GROUPS)

    def _differ_in_few(self, columns: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Whether two columns over the same sentences differ in few groups."""
        counts, changes = self._counts[:, columns], self._sums[:, columns] - self._sums[:, references]
        # Of few groups that nearly all differ, the percentiles are those of a continuous quantity.
        n_needed = np.clip((counts > 0).sum(axis=0) / 2, 5, _MIN_GROUPS)
        return np.asarray(_n_informative(np.abs(changes), counts) < n_needed)

    def _paired_ends(self, columns: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of differences, from gains and losses of the groups."""
        counts, changes = self._counts[:, columns], self._sums[:, columns] - self._sums[:, references]
        # An unseen change is taken to be of the size of those that are seen.
        squares = (changes**2).sum(axis=0)
        unseen = counts.sum(axis=0) * np.abs(changes).sum(axis=0) / np.where(squares > 0, squares, np.inf)
        gains, losses = np.maximum(changes, 0), np.maximum(-changes, 0)
        return difference_ends(
            ClusterShares.of(gains, counts, self.confidence, unseen),
            ClusterShares.of(losses, counts, self.confidence, unseen),
            correlate(gains, counts, losses, counts),
        )

    def _unpaired_ends(self, columns: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of differences, from the two means."""
        one, other = [(self._sums[:, part], self._counts[:, part]) for part in (columns, references)]
        return difference_ends(
            ClusterShares.of(one[0], one[1], self.confidence),
            ClusterShares.of(other[0], other[1], self.confidence),
            correlate(*one, *other),
        )


def _n_informative(hits: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Effective number of groups with hits, or of those with misses if that is smaller."""
    return np.asarray(np.minimum(effective_number(hits), effective_number(chances - hits)))

"""Wilson intervals with an effective number of chances: they hold for few hits and few clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaincinv, ndtri, stdtrit

# A variance below this share of its terms is rounding: all clusters have the same share of hits.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ClusterShares:
    """Shares of hits among chances, from H_gc hits in K_gc chances of cluster g, 0 <= H_gc <= K_gc.

    With M independent clusters, the share p = sum_g H_g / sum_g K_g has as much variance as one of::

        N = p (1 - p) / v,    v = sum_g (H_g - p K_g)^2 / (sum_g K_g)^2

    independent chances. The effective number of chances is::

        N (t_{N-1} / t_{M-1})^2 (1 - 1/M) / (1 - 1/N),

    where both factors, at most 1 and with quantiles of Student's t, allow for an estimate of v from few
    clusters (Korn and Graubard 1998, Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data). It is their number if every chance is a cluster, and at least
    (sum_g K_g)^2 / sum_g K_g^2, which holds if all chances of a cluster have the same outcome. That is taken
    where no variance is seen, as without a hit.

    Attributes
    ----------
    share, size : ndarray of shape (c,)
        p, and the effective number of chances; nan without a chance.
    low, high : ndarray of shape (c,)
        Ends of the interval of p.
    """

    share: np.ndarray
    size: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(
        cls, hits: Any, chances: Any, confidence: float, unseen_size: np.ndarray | None = None
    ) -> ClusterShares:
        """Compute them from hits and chances (M, c), both ndarrays or both csr_arrays.

        ``unseen_size`` (c,) replaces a smaller effective number of chances where no variance is seen.
        """
        n_hits, n_chances = hits.sum(axis=0), chances.sum(axis=0)
        n_clusters = (chances > 0).sum(axis=0)
        quantile = 0.5 + confidence / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            share = n_hits / n_chances
            squares = (chances * chances).sum(axis=0)
            terms = (hits * hits).sum(axis=0) + share**2 * squares
            variance = terms - 2 * share * (hits * chances).sum(axis=0)
            is_seen = (n_clusters > 1) & (variance > _ROUNDING * terms)
            size = n_chances**2 * share * (1 - share) / variance
            student = stdtrit(np.maximum(size - 1, 1), quantile) / stdtrit(n_clusters - 1, quantile)
            size *= np.minimum(student, 1) ** 2 * np.minimum((1 - 1 / n_clusters) / (1 - 1 / size), 1)
            least = n_chances**2 / squares
        unseen = least if unseen_size is None else np.fmax(least, unseen_size)
        size = np.where(is_seen, np.maximum(size, least), unseen)
        return cls(share, size, *wilson_ends(share, size, confidence))


def wilson_ends(share: np.ndarray, size: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's interval of shares of ``size`` independent chances, which need not be an integer.

    For one to three hits (two, up to 50 chances), the lower end is at most the Poisson limit, without which
    the interval misses small shares too often; the same for misses and the upper end. Wilson (1927), Probable
    inference, the law of succession, and statistical inference; Brown, Cai and DasGupta (2001), Interval
    estimation for a binomial proportion, section 4.1.3.
    """
    z2 = ndtri(0.5 + confidence / 2) ** 2
    with np.errstate(invalid="ignore"):
        center = (share * size + z2 / 2) / (size + z2)
        half = np.sqrt(z2 * (share * (1 - share) * size + z2 / 4)) / (size + z2)
    low = np.where(share <= 0, 0, np.minimum(center - half, _poisson_limit(share, size, confidence)))
    high = np.where(share >= 1, 0, np.minimum(1 - center - half, _poisson_limit(1 - share, size, confidence)))
    return np.maximum(low, 0), np.minimum(1 - high, 1)


def _poisson_limit(share: np.ndarray, size: np.ndarray, confidence: float) -> np.ndarray:
    """Lower limit of a share of few hits; 1 where there are more."""
    n_hits = share * size
    is_rare = (n_hits > 0) & (n_hits <= np.where(size > 50, 3, 2))
    limit = gammaincinv(np.where(is_rare, n_hits, 1), 1 - confidence) / np.where(is_rare, size, 1)
    return np.where(is_rare, limit, 1)


def difference_ends(
    minuend: ClusterShares, subtrahend: ClusterShares, correlation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval of a difference of two correlated shares, from the intervals of both.

    Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on
    paired data; Zou and Donner (2008), Construction of confidence limits about effect measures.
    """

    def length(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(np.maximum(one**2 + other**2 - 2 * correlation * one * other, 0)))

    value = minuend.share - subtrahend.share
    low = value - length(minuend.share - minuend.low, subtrahend.high - subtrahend.share)
    high = value + length(minuend.high - minuend.share, subtrahend.share - subtrahend.low)
    return np.maximum(low, -1), np.minimum(high, 1)


def correlate(
    hits: np.ndarray, chances: np.ndarray, other_hits: np.ndarray, other_chances: np.ndarray
) -> np.ndarray:
    """Correlation (c,) of two estimated shares over clusters; 0 if one of them does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        one = hits - chances * (hits.sum(axis=0) / chances.sum(axis=0))
        other = other_hits - other_chances * (other_hits.sum(axis=0) / other_chances.sum(axis=0))
        correlation = (one * other).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
    return np.where(np.isfinite(correlation), correlation, 0)


def effective_number(values: np.ndarray) -> np.ndarray:
    """Number (c,) of equal clusters with the sum and the sum of squares of ``values`` (M, c), 0 for none."""
    squares = (values**2).sum(axis=0)
    return np.asarray(values.sum(axis=0) ** 2 / np.where(squares > 0, squares, 1))

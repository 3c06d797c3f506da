"""Streaming mean and covariance of the embeddings, and the whitening transform computed from them.

With the weighted mean mu and covariance C = U diag(lambda) U^T of the training embeddings, the whitened
embedding of x is

    x~ = Q^T (x - mu),      Q = U diag(lambda + ridge)^(-1/2),      Cov(x~) = diag(lambda / (lambda + ridge)).

The ridge is relative to the mean of lambda, so C is computed after columns of X of much smaller or larger
scale than the others are rescaled: Q = S U diag(lambda + ridge)^(-1/2) with the diagonal S of their factors.

Training uses x~, in which a direction has unit variance if its lambda is much larger than the ridge. With
n = 8 d rows, an axis with 2 % of the mean lambda has variance .44. Afterwards Q is folded into B, so that the
fitted model reads raw embeddings: B~ x~ = (B~ Q^T) (x - mu).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.distributed import ProcessGroup

# The ridge, relative to the mean eigenvalue, is RIDGE_PER_ROW d / (sum of weights), clipped to this range.
# With few rows the small sample eigenvalues are noise (zero if n <= d), and dividing by them would amplify
# it. With many rows the ridge only guards against rounding errors.
RIDGE_RANGE = (1e-4, 0.3)
RIDGE_PER_ROW = 0.2
# Without these limits one column of large variance would raise the ridge above the variance of all others.
# Sentence encoders are far within them: the standard deviations of their columns differ by a factor of 2.
MAX_COLUMN_RATIO = 10.0  # standard deviation of a column, to the median column, that is not rescaled
MAX_EIGENVALUE_RATIO = 1000.0  # eigenvalue, to the median one, that counts in the mean eigenvalue


@dataclass(frozen=True)
class Moments:
    """Sum of weights, mean and scatter matrix of a set of rows."""

    weight: float
    mean: np.ndarray  # (d,)
    scatter: np.ndarray  # (d, d), sum of w (x - mean)(x - mean)^T

    @classmethod
    def empty(cls, d: int) -> Moments:
        """Return the moments of no rows."""
        return cls(0.0, np.zeros(d), np.zeros((d, d)))

    def merge(self, other: Moments) -> Moments:
        """Return the exact moments of the union of two sets of rows (Chan, Golub and LeVeque 1983)."""
        if other.weight == 0:
            return self
        if self.weight == 0:
            return other
        weight = self.weight + other.weight
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.weight / weight)
        cross = np.outer(difference, difference) * (self.weight * other.weight / weight)
        return Moments(weight, mean, self.scatter + other.scatter + cross)


def streaming_moments(chunks: Iterable[tuple[torch.Tensor, torch.Tensor]], d: int) -> Moments:
    """Compute moments in float64 in one pass over chunks ``(x (m, d), weights (m,))``."""
    total = Moments.empty(d)
    for x, weights in chunks:
        w = weights.to(torch.float64)
        weight = float(w.sum())
        if weight == 0:
            continue
        x = x.to(torch.float64)
        mean = (w @ x) / weight
        scaled = (x - mean).mul_(w.sqrt()[:, None])
        scatter = (scaled.T @ scaled).cpu().numpy()
        total = total.merge(Moments(weight, mean.cpu().numpy(), scatter))
    return total


def shared_moments(moments: Moments, group: ProcessGroup, device: torch.device) -> Moments:
    """Merge the moments of all processes of a group; each process gets the same result."""
    if group.is_single_process:
        return moments
    d = len(moments.mean)
    flat = np.concatenate([[moments.weight], moments.mean, moments.scatter.ravel()])
    total = Moments.empty(d)
    for part in group.gather(torch.from_numpy(flat).to(device)):
        values = part.cpu().numpy()
        total = total.merge(Moments(float(values[0]), values[1 : d + 1], values[d + 1 :].reshape(d, d)))
    return total


@dataclass(frozen=True)
class Whitening:
    """mu, Q and Q^-1, in float64."""

    mean: np.ndarray  # (d,)
    forward: np.ndarray  # Q (d, d): x~ = (x - mu) Q
    inverse: np.ndarray  # Q^-1 (d, d): x - mu = x~ Q^-1

    @classmethod
    def from_moments(cls, moments: Moments, ridge: float | None = None) -> Whitening:
        """Compute the whitening transform of the rows with these moments."""
        d = moments.mean.shape[0]
        if ridge is None:
            unclipped = RIDGE_PER_ROW * d / max(moments.weight, np.finfo(float).tiny)
            ridge = float(np.clip(unclipped, *RIDGE_RANGE))
        covariance = moments.scatter / max(moments.weight, np.finfo(float).tiny)
        if not np.isfinite(covariance).all():
            raise ValueError(
                "the covariance of X overflows float64: the values of X are finite, but their squares "
                "are not; scale X, for example to rows of unit norm."
            )
        column_scale = _column_scale(covariance, moments.mean)
        values, vectors = np.linalg.eigh(covariance * column_scale * column_scale[:, None])
        # With fewer rows than dimensions most eigenvalues are zero up to rounding.
        nonzero = values[values > values.max() * d * np.finfo(float).eps]
        if not len(nonzero):  # constant embeddings: nothing to whiten
            return cls(moments.mean, np.eye(d), np.eye(d))
        usual = values[values <= MAX_EIGENVALUE_RATIO * np.median(nonzero)]
        mean_eigenvalue = usual.clip(min=0).mean()
        # The signs of eigenvectors are arbitrary; fixing them makes refits comparable.
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(d)])
        vectors = vectors * np.where(signs == 0, 1.0, signs)
        scale = np.sqrt(values.clip(min=0) + ridge * mean_eigenvalue)
        forward = column_scale[:, None] * (vectors / scale)
        return cls(moments.mean, forward, (vectors * scale).T / column_scale)


def _column_scale(covariance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Factors (d,) that give columns of a much smaller or larger scale than the median the median's."""
    deviation = np.sqrt(covariance.diagonal())
    # Columns that vary less than by float32 rounding hold noise, which must not be enlarged.
    rounding = 4 * np.finfo(np.float32).eps
    varies = deviation > rounding * np.abs(mean)
    if not varies.any():
        return np.ones(len(deviation))
    median = np.median(deviation[varies])
    varies &= deviation > rounding * median
    factor = median / np.where(varies, deviation, median)
    is_usual = (factor <= MAX_COLUMN_RATIO) & (factor >= 1 / MAX_COLUMN_RATIO)
    return np.where(is_usual, 1.0, factor)

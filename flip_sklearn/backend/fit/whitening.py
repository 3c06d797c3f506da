"""Streaming mean and covariance of the embeddings, and the whitening transform computed from them.

With the weighted mean mu and covariance C = U diag(lambda) U^T of the training embeddings, the whitened
embedding of x is

    x~ = Q^T (x - mu),      Q = U diag(lambda + ridge)^(-1/2),      Cov(x~) = I (up to the ridge).

Training uses x~, in which every direction has unit variance. Afterwards Q is folded into B, so that the
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
        values, vectors = np.linalg.eigh(covariance)
        mean_eigenvalue = values.clip(min=0).mean()
        if mean_eigenvalue <= 0:  # constant embeddings: nothing to whiten
            return cls(moments.mean, np.eye(d), np.eye(d))
        # The signs of eigenvectors are arbitrary; fixing them makes refits comparable.
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(d)])
        vectors = vectors * np.where(signs == 0, 1.0, signs)
        scale = np.sqrt(values.clip(min=0) + ridge * mean_eigenvalue)
        return cls(moments.mean, vectors / scale, (vectors * scale).T)

"""Rankings by a full sort, and models with exact scores."""

from __future__ import annotations

import numpy as np


def sorted_top(z: np.ndarray, k: int) -> np.ndarray:
    """Return the k best columns of each row, best first; equal scores are ordered by column."""
    return np.argsort(-z, axis=1, kind="stable")[:, :k]


def integer_model(
    n: int, n_words: int, rank: int, d: int, density: float, seed: int
) -> tuple[np.ndarray, ...]:
    """Return A, B, offset, mean and X of small integers, for which float arithmetic is exact.

    Some rows and columns of A are zero.
    """
    rng = np.random.default_rng(seed)
    A = rng.integers(-3, 4, size=(n_words, rank)) * (rng.random((n_words, rank)) < density)
    A[rng.random(n_words) < 0.3] = 0
    A[:, rng.random(rank) < 0.2] = 0
    B = rng.integers(-2, 3, size=(rank, d))
    offset, mean = rng.integers(-6, 3, size=n_words), rng.integers(-2, 3, size=d)
    X = rng.integers(-3, 4, size=(n, d))
    return tuple(a.astype(np.float64) for a in (A, B, offset, mean, X))

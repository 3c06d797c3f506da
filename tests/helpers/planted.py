"""A small planted problem that several test files share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Planted:
    """Counts drawn from the model itself: theta = softmax(b + A B x)."""

    X: np.ndarray
    Y: sp.csr_array
    A: np.ndarray
    B: np.ndarray
    b: np.ndarray


def planted(
    n: int = 400, d: int = 6, n_words: int = 12, rank: int = 3, length: int = 8, seed: int = 0
) -> Planted:
    """Rows with `length` words each, embeddings that are correlated, shifted and unequally scaled."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d)) * np.geomspace(3, 0.3, d)
    X = rng.normal(size=(n, d)) @ mixing + rng.normal(size=d)
    A = rng.normal(size=(n_words, rank))
    B = rng.normal(size=(rank, d)) @ np.linalg.pinv(mixing).T
    b = rng.normal(size=n_words)
    z = b + (X - X.mean(axis=0)) @ B.T @ A.T
    theta = np.exp(z - z.max(axis=1, keepdims=True))
    theta /= theta.sum(axis=1, keepdims=True)
    Y = sp.csr_array(np.stack([rng.multinomial(length, row) for row in theta]).astype(np.float64))
    return Planted(X, Y, A, B, b)

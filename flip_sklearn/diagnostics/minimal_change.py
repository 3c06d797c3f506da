"""The smallest change of an embedding that brings linear scores to thresholds.

For directions c_k and thresholds t_k, every row x of centred embeddings becomes

    argmin_y |y - x|_H^2   subject to   c_k . y >= t_k for every k.

With H^-1 = W W^T the solution is y = x + W D^T lambda, D = C W, where lambda >= 0 minimizes
lambda^T D D^T lambda - 2 (t - C x)^T lambda: a small non-negative problem for each row, solved exactly.
"""

from __future__ import annotations

import hashlib
import threading
from weakref import WeakKeyDictionary

import numpy as np
import scipy.linalg
from scipy.optimize import nnls
from scipy.special import softmax

from flip_sklearn.backend.device import as_shared_tensor
from flip_sklearn.backend.sparse_coding.active_set import minimize_quadratic
from flip_sklearn.extractor import FLiPExtractor

# Added to the covariance, relative to its mean variance, so that directions in which the training
# embeddings do not vary have a finite distance.
RIDGE = 1e-4
# Squared distance of two opposing sets of directions below which no embedding satisfies both.
MIN_SEPARATION = 1e-10


def dense_rows(model: FLiPExtractor, columns: np.ndarray) -> np.ndarray:
    """Rows of A (m, r) as a float64 array."""
    A = model.word_embeddings_[columns]
    return np.asarray(A if isinstance(A, np.ndarray) else A.toarray(), dtype=np.float64)


def covariance_root(model: FLiPExtractor) -> np.ndarray:
    """The Cholesky factor (d, d) of the covariance of the training embeddings plus the ridge."""
    S = np.asarray(model.embedding_covariance_)
    variance = np.trace(S) / len(S)
    return np.linalg.cholesky(S + (RIDGE * variance or 1.0) * np.eye(len(S)))


# Beside the models, not in them, so that pickles and copies do not have it.
_whitened_roots: WeakKeyDictionary[FLiPExtractor, tuple[bytes, np.ndarray]] = WeakKeyDictionary()
_lock = threading.Lock()


def whitened_root(model: FLiPExtractor, owner: FLiPExtractor) -> np.ndarray:
    """W with W W^T = (S^-1 + c F)^-1, for the covariance S and the Fisher information F of the words.

    F is that of theta at the mean embedding, and c = d / tr(S F). W is kept with ``owner``, the model itself,
    of which ``model`` may be a snapshot, until something that it is computed from changes.
    """
    S = np.asarray(model.embedding_covariance_)
    theta = softmax(np.asarray(model.bias_, dtype=np.float64))
    A, B = model.word_embeddings_, np.asarray(model.projection_, dtype=np.float64)
    mean = np.asarray(A.T @ theta)
    digest = hashlib.blake2b()
    for array in (S, B, theta, mean):
        digest.update(np.ascontiguousarray(array).tobytes())
    with _lock:
        known = _whitened_roots.get(owner)
    if known is None or known[0] != digest.digest():
        weighted = A * theta[:, None] if isinstance(A, np.ndarray) else A.multiply(theta[:, None])
        information = A.T @ weighted
        if not isinstance(information, np.ndarray):
            information = information.toarray()
        root = _whitened_root(model, information - np.outer(mean, mean), B)
        known = digest.digest(), root
        with _lock:
            _whitened_roots[owner] = known
    return known[1]


def _whitened_root(model: FLiPExtractor, information: np.ndarray, B: np.ndarray) -> np.ndarray:
    """W for the Fisher information (r, r) of the latents."""
    L = covariance_root(model)
    R = B @ L
    whitened = R.T @ information @ R  # L^T F L
    trace = np.trace(whitened)
    if trace > 0:
        whitened *= len(L) / trace
    K = np.linalg.cholesky(np.eye(len(L)) + whitened)
    return np.asarray(scipy.linalg.solve_triangular(K, L.T, lower=True).T)


class MinimalChange:
    """The problem above for directions C (m, d) and W (d, d), None for the identity, and many rows."""

    def __init__(self, directions: np.ndarray, root: np.ndarray | None) -> None:
        D = directions if root is None else directions @ root
        norms = np.linalg.norm(D, axis=1)
        self._norms = np.where(norms > 0, norms, 1.0)
        self._unit = D / self._norms[:, None]
        self._gram = self._unit @ self._unit.T
        self._moves = self._unit if root is None else self._unit @ root.T

    def is_feasible(self, required: np.ndarray) -> bool:
        """Whether the thresholds of the ``required`` directions (m,) may be any numbers, those of others 0.

        By Gordan's theorem they may, unless a combination of the directions with weights >= 0, some of them
        of required ones, is zero.
        """
        system = np.vstack([self._unit.T, required.astype(float)])
        target = np.zeros(len(system))
        target[-1] = 1
        return bool(nnls(system, target)[1] ** 2 > MIN_SEPARATION)

    def solve(self, missing: np.ndarray) -> np.ndarray:
        """Changes (n, d) of rows whose scores fall short of the thresholds by ``missing`` (n, m).

        A value of -inf is no threshold; rows without a positive value do not change.
        """
        change = np.zeros((len(missing), self._moves.shape[1]))
        rows = np.flatnonzero((missing > 0).any(axis=1))
        b = missing[rows] / self._norms
        allowed = np.isfinite(b)
        b = np.where(allowed, b, 0)
        scale = np.abs(b).max(axis=1, initial=0, keepdims=True)
        gram = np.where(allowed[:, :, None] & allowed[:, None, :], self._gram, 0)
        problem = (gram, b / scale, np.zeros_like(b), allowed)
        weights = minimize_quadratic(*(as_shared_tensor(array) for array in problem))
        change[rows] = (weights.numpy() * scale) @ self._moves
        return change

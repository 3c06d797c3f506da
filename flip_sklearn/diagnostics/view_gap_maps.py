"""Maps from one view into the space of another, fitted to pairs of training sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flip_sklearn.diagnostics.inputs import Sentences
from flip_sklearn.parameters import check_random_state

# Ridges that are tried, relative to the mean variance of the view.
_RIDGES = tuple(10.0**power for power in range(-6, 3))
# Share of the groups of training sentences that the ridge is chosen on.
_HELD_OUT = 0.2
# What pulls the rotation to the identity, relative to the cross-covariance: it decides only the directions in
# which the training sentences do not vary.
_PULL = 1e-9
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class ViewMap:
    """The map x -> mean_of_source + (x - mean_of_target) @ matrix; no matrix is the identity."""

    source_mean: np.ndarray
    target_mean: np.ndarray
    matrix: np.ndarray | None = None

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Map rows; float64 for float64 and float32 otherwise, as the models read them."""
        dtype = np.float64 if X.dtype == np.float64 else np.float32
        mapped = np.empty(X.shape, dtype)
        for start in range(0, len(X), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            x = X[rows].astype(np.float64)
            # As changes of x, so that equal views are mapped onto themselves, bit for bit.
            change = self.source_mean - self.target_mean
            if self.matrix is not None:
                change = change + (x - self.target_mean) @ (self.matrix - np.eye(len(self.matrix)))
            mapped[rows] = x + change
        return mapped


class PairMaps:
    """Maps between views of the same training sentences.

    With Xs and Xt the training rows of two views, each minus its mean::

        rotation    argmin |Xt R - Xs|^2 over orthogonal R
        linear      argmin |Xt W - Xs|^2 + ridge |W - R|^2

    The ridge is the one with the smallest squared error on a fifth of the groups of training sentences, for
    maps fitted to the other groups; then W is fitted to all of them.
    """

    def __init__(self, sentences: Sentences, seed: int) -> None:
        self._sentences = sentences
        groups = np.unique(sentences.split.groups[sentences.split.train], return_inverse=True)[1]
        n_groups = int(groups.max()) + 1
        chosen = check_random_state(seed).permutation(n_groups)[: round(_HELD_OUT * n_groups)]
        self._is_held_out = np.isin(groups, chosen)
        self._means = {view: self._mean(view) for view in sentences.names}
        self._moments: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._rotations: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def shift(self, source: str, target: str) -> ViewMap:
        """The map that moves the mean of the target to that of the source."""
        return ViewMap(self._means[source], self._means[target])

    def rotation(self, source: str, target: str) -> ViewMap:
        """The shift, and the orthogonal map of the smallest squared error."""
        return ViewMap(self._means[source], self._means[target], self._rotation(target, source)[0])

    def linear(self, source: str, target: str) -> tuple[ViewMap, float]:
        """The shift and a free linear map, and its ridge relative to the mean variance of the target."""
        gram, held_out_gram = self._moment(target, target)
        cross, held_out_cross = self._moment(target, source)
        rotation, other_rotation = self._rotation(target, source)
        ridge = _RIDGES[-1]
        if self._is_held_out.any():
            fitted = _RidgeMaps(gram - held_out_gram, cross - held_out_cross, other_rotation)
            errors = [fitted.error(ridge, held_out_gram, held_out_cross) for ridge in _RIDGES]
            # Of equal errors the last one, which is nearest to the rotation.
            ridge = _RIDGES[len(errors) - 1 - int(np.argmin(errors[::-1]))]
        matrix = _RidgeMaps(gram, cross, rotation).matrix(ridge)
        return ViewMap(self._means[source], self._means[target], matrix), ridge

    def _mean(self, view: str) -> np.ndarray:
        return np.asarray(self._sentences.train(view).mean(axis=0, dtype=np.float64))

    def _centered(self, view: str, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._sentences.views[view][rows].astype(np.float64) - self._means[view])

    def _moment(self, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
        """X1^T X2 of the centered training rows, and of the held-out ones among them."""
        if (second, first) in self._moments:
            total, held_out = self._moments[second, first]
            return total.T, held_out.T
        d, train = self._sentences.n_dimensions, self._sentences.split.train
        sums = np.zeros((2, d, d))
        for part in (0, 1):
            rows = train[self._is_held_out == part]
            for start in range(0, len(rows), _BLOCK_ROWS):
                block = rows[start : start + _BLOCK_ROWS]
                sums[part] += self._centered(first, block).T @ self._centered(second, block)
        self._moments[first, second] = sums[0] + sums[1], sums[1]
        return self._moments[first, second]

    def _rotation(self, target: str, source: str) -> tuple[np.ndarray, np.ndarray]:
        """The rotation fitted to all training rows, and the one without the held-out rows."""
        if (source, target) in self._rotations:
            whole, part = self._rotations[source, target]
            return whole.T, part.T
        if (target, source) not in self._rotations:
            cross, held_out = self._moment(target, source)
            self._rotations[target, source] = _procrustes(cross), _procrustes(cross - held_out)
        return self._rotations[target, source]


def _procrustes(cross: np.ndarray) -> np.ndarray:
    """The orthogonal R that maximizes tr(R^T cross): Schönemann (1966), Psychometrika 31."""
    pull = _PULL * float(np.linalg.norm(cross)) or 1.0
    left, _, right = np.linalg.svd(cross + pull * np.eye(len(cross)))
    return np.asarray(left @ right)


class _RidgeMaps:
    """W = R + (gram + ridge)^-1 (cross - gram R) for several ridges, from one eigendecomposition."""

    def __init__(self, gram: np.ndarray, cross: np.ndarray, rotation: np.ndarray) -> None:
        values, self._vectors = np.linalg.eigh(gram)
        self._values = values.clip(min=0)
        self._scale = float(self._values.mean()) or 1.0
        self._rotation = rotation
        self._residual = self._vectors.T @ (cross - gram @ rotation)

    def matrix(self, ridge: float) -> np.ndarray:
        """W for a ridge relative to the mean eigenvalue."""
        weights = 1 / (self._values + ridge * self._scale)
        return np.asarray(self._rotation + self._vectors @ (weights[:, None] * self._residual))

    def error(self, ridge: float, gram: np.ndarray, cross: np.ndarray) -> float:
        """Squared error on rows with these moments, less the squares of the source, which are constant."""
        W = self.matrix(ridge)
        return float(np.sum(W * (gram @ W - 2 * cross)))

"""The prior of the word embeddings from features of the words: its mean is E G in place of zero.

E (V, p) are the features of the words, centred, with rows of unit mean square; G (p, r) is learned. In place
of |A|^2, J has

    P(A) = min_G |A - E G|^2 + kappa |G|^2 = <A, A - E G(A)>,     G(A) = (E'E + kappa I)^-1 E'A,

whose gradient is 2 (A - E G(A)), because G(A) is the minimum. P is convex, between 0 and |A|^2, and equal to
|A|^2 if the features are constant. A stochastic pass keeps G as it was when the pass began: with G fixed,
|A - E G|^2 + kappa |G|^2 is an upper bound of P that touches it there, so passes lower J (alternating
minimization). L-BFGS takes P itself.

kappa is the ratio of the variance of A that the features do not explain to the prior variance of G. It is
chosen once, by leave-one-out prediction of the rows of A at the start. Features whose prediction is hardly
better than that by zero are not used.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import torch

from flip_sklearn.backend.device import slices
from flip_sklearn.backend.distributed import ProcessGroup

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
# Words that ridges are compared on: those that are known best.
RIDGE_WORDS = 8192
# Share of the error of predicting zero by which features have to lower it.
MIN_GAIN = 0.01
# Elements of a tile of rows of A, for sums and products that need a copy.
TILE_ELEMENTS = 2**20


class WordPrior:
    """Mean E G of the rows of A, for one fit.

    ``features`` (V, p) are E, on the device and in the format of the fit.
    """

    def __init__(self, features: torch.Tensor, group: ProcessGroup) -> None:
        self.E = features
        self._group = group
        gram = features.new_zeros(features.shape[1], features.shape[1], dtype=torch.float64, device="cpu")
        for rows in self._tiles(features.shape[1]):
            gram += (features[rows].T @ features[rows]).double().cpu()
        self._gram = gram
        self.ridge = RIDGES[-1]
        self.G = features.new_zeros(features.shape[1], 0)
        self.mean = features.new_zeros(len(features), 0)
        self._updated_at: weakref.ref[torch.Tensor] | None = None  # the A of G, for the penalty after a pass

    def choose_ridge(self, rows: torch.Tensor, weights: torch.Tensor) -> bool:
        """Set kappa to the value with the least leave-one-out error of a regression of ``rows`` (V, r) on E.

        ``weights`` (V,), from 0 to 1, is how much of a row is known rather than noise. Returns whether the
        error is lower than that of predicting zero.
        """
        E = self.E
        if len(E) > RIDGE_WORDS:
            words = weights.topk(RIDGE_WORDS).indices
            E, rows, weights = E[words], rows[words], weights[words]
        root = weights.sqrt()[:, None]
        weighted = E * root
        # In the eigenvectors of the weighted E'E every kappa costs one product.
        values, vectors = torch.linalg.eigh((weighted.T @ weighted).double().cpu())
        values.clamp_(min=0)
        basis = weighted @ vectors.to(weighted)  # (V, p)
        target = root * rows
        by_direction = basis.T @ target
        squares = basis.square()
        errors = []
        for ridge in RIDGES:
            shrinkage = (1 / (values + ridge)).to(weighted)
            leverage = squares @ shrinkage
            coefficients = by_direction * shrinkage[:, None]
            error = torch.zeros((), dtype=torch.float64, device=rows.device)
            for tile in slices(len(E), TILE_ELEMENTS // max(rows.shape[1], 1) + 1):
                left_out = (target[tile] - basis[tile] @ coefficients) / (1 - leverage[tile])[:, None]
                error += left_out.square().sum(dtype=torch.float64)
            errors.append(error)
        errors.append(target.square().sum(dtype=torch.float64))
        *by_ridge, of_zero = self._group.broadcast_floats(torch.stack(errors).tolist(), rows.device)
        self.ridge = RIDGES[int(np.argmin(by_ridge))]
        return min(by_ridge) < (1 - MIN_GAIN) * of_zero

    def map_of(self, A: torch.Tensor) -> torch.Tensor:
        """G(A), (p, r)."""
        identity = torch.eye(len(self._gram), dtype=torch.float64)
        right = (self.E.T @ A).double().cpu()
        G: torch.Tensor = torch.linalg.solve(self._gram + self.ridge * identity, right)
        return G.to(A)

    def weighted_map(self, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The ridge regression of ``rows`` (V, r) on E, with weights (V,)."""
        weighted = self.E * weights[:, None]
        left = (weighted.T @ self.E).double().cpu()
        left.diagonal().add_(self.ridge)
        G: torch.Tensor = torch.linalg.solve(left, (weighted.T @ rows).double().cpu())
        return G.to(rows)

    def update(self, A: torch.Tensor) -> None:
        """Set G to G(A)."""
        self.set_map(self.map_of(A))
        self._updated_at = weakref.ref(A)

    def set_map(self, G: torch.Tensor) -> None:
        """Set G, the same on all processes, and the mean E G."""
        G = (
            G.contiguous()
        )  # the bits of the product depend on the order in memory, and a checkpoint's is this
        self._group.broadcast_(G)
        self._updated_at = None
        self.G = G
        self.mean = self.E @ G

    def penalty(self, A: torch.Tensor) -> torch.Tensor:
        """P(A), as a float64 scalar tensor."""
        G = self.G if self._updated_at is not None and self._updated_at() is A else self.map_of(A)
        total = torch.zeros((), dtype=torch.float64, device=A.device)
        for rows in self._tiles(max(A.shape[1], 1)):
            residual = torch.addmm(A[rows], self.E[rows], G, alpha=-1)
            total += residual.mul_(A[rows]).sum(dtype=torch.float64)
        return total

    def add_gradient_(self, gradient: torch.Tensor, A: torch.Tensor, scale: float) -> None:
        """Add ``scale / 2`` times the gradient of P at A to ``gradient`` (V, r)."""
        G = self.map_of(A)
        gradient.add_(A, alpha=scale)
        gradient.addmm_(self.E, G, alpha=-scale)

    def _tiles(self, columns: int) -> Iterator[slice]:
        return slices(len(self.E), max(1, TILE_ELEMENTS // columns))


def regress_on_features(
    rows: np.ndarray, share: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, float] | None:
    """G (p, r) and kappa of the ridge regression of rows (V, r) of a fitted A on features (V, p).

    Row j of A is taken for a share s_j of what it would be with more data, so that s_j E G is fitted to it.
    None if the features do not predict the rows. Every process computes for itself.
    """
    A = torch.from_numpy(rows / share[:, None].astype(rows.dtype))
    weights = torch.from_numpy(share**2).to(A)
    prior = WordPrior(torch.from_numpy(features).to(A), ProcessGroup())
    if not prior.choose_ridge(A, weights):
        return None
    return prior.weighted_map(A, weights).numpy(), prior.ridge

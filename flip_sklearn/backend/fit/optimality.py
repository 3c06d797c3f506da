"""The KKT residual: how far parameters are from the optimum, from exact gradients over all rows.

At a given B~, J is convex in (A, b). With S its smooth part (likelihood and squared L2), the minimum is where

    dS/db_j = 0,    dS/dA_jk = -sign(A_jk) l1 / V  if A_jk != 0,    |dS/dA_jk| <= l1 / V  if A_jk = 0.

The residual is V times the largest violation of these conditions, in the units of ``l1_strength``: at A = 0,
with b the log frequencies and l1 = 0, it is the largest entry of the gradient that defines ``l1_max``.
"""

from __future__ import annotations

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, slices, to_device
from flip_sklearn.backend.fit.data import CountDataset, WhitenedDataset
from flip_sklearn.backend.fit.initialization import InitialPoint
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.objective import evaluate_smooth
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.word_prior import WordPrior

# Elements of A whose conditions are checked at once, so that the check needs no memory of the size of A.
CHECK_ELEMENTS = 2**18


def largest_violation(A: torch.Tensor, grad_A: torch.Tensor, grad_b: torch.Tensor, l1: float) -> float:
    """Compute the residual of the module docstring from the gradients of the smooth part."""
    n_words = len(A)
    bound = l1 / n_words
    largest = grad_b.abs().amax()
    for tile in slices(n_words, max(1, CHECK_ELEMENTS // max(1, A.shape[1]))):
        a, g = A[tile], grad_A[tile]
        violation = (g + bound * a.sign()).abs_()
        violation = torch.where(a == 0, violation.sub(bound).clamp_min_(0), violation)
        largest = torch.maximum(largest, violation.amax())
    return n_words * float(largest)


@torch.no_grad()
def kkt_residual(
    data: WhitenedDataset,
    parameters: Parameters,
    *,
    l1: float,
    l2: float,
    work: Workspace,
    prior: WordPrior | None = None,
) -> float:
    """Compute V times the largest violation of J's optimality conditions in (A, b) at the given B~."""
    exact = evaluate_smooth(data, parameters, l2, work, prior=prior)
    return largest_violation(parameters.A, exact.grad_A, exact.grad_b, l1)


@torch.no_grad()
def raw_kkt_residual(
    rows: CountDataset,
    point: InitialPoint,
    compute: Compute,
    *,
    l1: float,
    l2: float,
    word_features: np.ndarray | None = None,
    ridge: float = 0.0,
) -> float:
    """Compute ``kkt_residual`` of parameters that read raw embeddings, z = b + A B (x - mean).

    The conditions in (A, b) need no whitening, because the latents B (x - mean) equal B~ x~. ``ridge`` is the
    kappa of the prior with these features of the words.
    """

    def tensor(array: np.ndarray) -> torch.Tensor:
        return to_device(np.ascontiguousarray(array), compute)

    latents = WhitenedDataset(rows, tensor(point.mean), tensor(point.B.T), compute)
    parameters = Parameters(tensor(point.A), None, tensor(point.b))
    prior = None
    if word_features is not None:
        prior = WordPrior(to_device(word_features, compute), rows.group)
        prior.ridge = ridge
    return kkt_residual(latents, parameters, l1=l1, l2=l2, work=Workspace(compute), prior=prior)

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
from flip_sklearn.backend.fit.likelihood import Gradients, SoftmaxLayer, Workspace, loss_and_gradients
from flip_sklearn.backend.fit.optimizer import Parameters

CHUNK_ROWS = 512
# Elements of A whose conditions are checked at once, so that the check needs no memory of the size of A.
CHECK_ELEMENTS = 2**18


@torch.no_grad()
def smooth_gradients(
    data: WhitenedDataset, parameters: Parameters, l2: float, work: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the gradients of J without its L1 term with respect to A (V, r) and b (V,), over all rows.

    This costs 4 n V r operations, in the number format of the products, and memory for one matrix of the size
    of A and a block of scores. Each process of a group computes its own rows and gets the sum.
    """
    A, B, b = parameters
    gradients = Gradients(torch.zeros_like(A), torch.zeros_like(b))
    total_count = float(data.dataset.row_weight.sum())
    layer = SoftmaxLayer(A, b)
    for _, latent, targets in data.blocks(CHUNK_ROWS * data.group.size):
        h = latent if B is None else latent @ B.T
        on_device = targets.flat(len(b)).to(h.device)
        loss_and_gradients(h, layer, on_device, work, gradients, scale=1.0 / total_count, add=True)
    data.group.sum_(gradients.A, gradients.b)
    return gradients.A.add_(A, alpha=l2 / total_count), gradients.b


@torch.no_grad()
def kkt_residual(
    data: WhitenedDataset, parameters: Parameters, *, l1: float, l2: float, work: Workspace
) -> float:
    """Compute V times the largest violation of J's optimality conditions in (A, b) at the given B~."""
    A = parameters.A
    n_words = len(A)
    grad_A, grad_b = smooth_gradients(data, parameters, l2, work)
    bound = l1 / n_words
    largest = grad_b.abs().amax()
    for tile in slices(n_words, max(1, CHECK_ELEMENTS // max(1, A.shape[1]))):
        a, g = A[tile], grad_A[tile]
        violation = (g + bound * a.sign()).abs_()
        violation = torch.where(a == 0, violation.sub(bound).clamp_min_(0), violation)
        largest = torch.maximum(largest, violation.amax())
    return n_words * float(largest)


@torch.no_grad()
def raw_kkt_residual(
    rows: CountDataset, point: InitialPoint, compute: Compute, *, l1: float, l2: float
) -> float:
    """Compute ``kkt_residual`` of parameters that read raw embeddings, z = b + A B (x - mean).

    The conditions in (A, b) need no whitening, because the latents B (x - mean) equal B~ x~.
    """

    def tensor(array: np.ndarray) -> torch.Tensor:
        return to_device(np.ascontiguousarray(array), compute)

    latents = WhitenedDataset(rows, tensor(point.mean), tensor(point.B.T), compute)
    parameters = Parameters(tensor(point.A), None, tensor(point.b))
    return kkt_residual(latents, parameters, l1=l1, l2=l2, work=Workspace(compute))

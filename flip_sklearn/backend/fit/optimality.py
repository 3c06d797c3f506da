"""How far parameters are from the optimum: exact gradients over all rows, in blocks, and the KKT residual.

At a given B~, J is convex in (A, b), and with S its smooth part (likelihood and squared L2) it is least
where

    dS/db_j = 0,    dS/dA_jk = -sign(A_jk) l1 / V  if A_jk != 0,    |dS/dA_jk| <= l1 / V  if A_jk = 0.

The residual is V times the largest violation of these, in the units of ``l1_strength``: at A = 0, with b
the log frequencies and l1 = 0, it is the gradient that ``l1_max`` is made of.
"""

from __future__ import annotations

import numpy as np
import torch

from flip_sklearn.backend.device import Compute
from flip_sklearn.backend.fit.data import CountDataset, WhitenedRows
from flip_sklearn.backend.fit.likelihood import Workspace, loss_and_gradients
from flip_sklearn.backend.fit.optimizer import Parameters

CHUNK_ROWS = 512
# Elements of A whose conditions are checked at once: the check takes no memory of A's size.
CHECK_ELEMENTS = 2**18


@torch.no_grad()
def smooth_gradients(
    data: WhitenedRows, parameters: Parameters, l2: float, work: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of J without its L1 term with respect to A (V, r) and b (V,), over all rows.

    Costs 4 n V r operations, in the products' format, and memory for one matrix like A beside a block of
    scores. In a process group every process computes its rows and gets the sum.
    """
    A, B, b = parameters
    grad_A, grad_b = torch.zeros_like(A), torch.zeros_like(b)
    words = float(data.rows.row_weight.sum())
    for _, latent, targets in data.blocks(CHUNK_ROWS * data.group.size):
        h = latent if B is None else latent @ B.T
        loss_and_gradients(
            h, A, b, targets, data.compute, work,
            grad_A=grad_A, grad_b=grad_b, grad_h=None, scale=1.0 / words, add=True,
        )  # fmt: skip
    data.group.sum_(grad_A, grad_b)
    return grad_A.add_(A, alpha=l2 / words), grad_b


@torch.no_grad()
def kkt_residual(
    data: WhitenedRows, parameters: Parameters, *, l1: float, l2: float, work: Workspace
) -> float:
    """V times the largest violation of J's optimality conditions in (A, b) at the given B~."""
    A = parameters.A
    n_words = len(A)
    grad_A, grad_b = smooth_gradients(data, parameters, l2, work)
    bound = l1 / n_words
    worst = grad_b.abs().amax()
    step = max(1, CHECK_ELEMENTS // max(1, A.shape[1]))
    for first in range(0, n_words, step):
        a, g = A[first : first + step], grad_A[first : first + step]
        off = (g + bound * a.sign()).abs_()
        off = torch.where(a == 0, off.sub(bound).clamp_min_(0), off)
        worst = torch.maximum(worst, off.amax())
    return n_words * float(worst)


@torch.no_grad()
def raw_kkt_residual(
    rows: CountDataset,
    A: np.ndarray,
    B: np.ndarray,
    b: np.ndarray,
    mean: np.ndarray,
    compute: Compute,
    *,
    l1: float,
    l2: float,
) -> float:
    """``kkt_residual`` of factors that read raw embeddings, z = b + A B (x - mean).

    The latents B (x - mean) are those of B~ x~, so the conditions in (A, b) need no whitening.
    """

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(compute.device, compute.dtype)

    latents = WhitenedRows(rows, tensor(mean), tensor(B.T), compute)
    parameters = Parameters(tensor(A), None, tensor(b))
    return kkt_residual(latents, parameters, l1=l1, l2=l2, work=Workspace(compute))

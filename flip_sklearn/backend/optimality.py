"""How far parameters are from the optimum: exact gradients over all rows, in blocks, and the KKT residual.

At a given B~, J is convex in (A, b), and with S its smooth part (likelihood and squared L2) it is least where

    dS/db_j = 0,     dS/dA_jk = -sign(A_jk) l1 / V   where A_jk != 0,     |dS/dA_jk| <= l1 / V   where A_jk = 0.

The residual is V times the largest violation of these, in the units of ``l1_strength``: at A = 0, with b
the log frequencies and l1 = 0, it is the gradient that ``l1_max`` is made of.
"""

from __future__ import annotations

import torch

from flip_sklearn.backend.likelihood import Workspace, loss_and_gradients
from flip_sklearn.backend.optimizer import Parameters
from flip_sklearn.backend.problem import WhitenedRows

# Rows whose gradients are made at once: adding V r numbers to the sum is then a small part of the work.
CHUNK_ROWS = 4096
# Elements of A whose conditions are checked at once.
CHECK_ELEMENTS = 2**22


@torch.no_grad()
def smooth_gradients(
    data: WhitenedRows, parameters: Parameters, l2: float, work: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of J without its L1 term with respect to A (V, r) and b (V,), over all rows.

    Costs 4 n V r operations and memory for two matrices like A next to a block of scores. In a process
    group every process computes its rows and gets the sum.
    """
    A, B, b = parameters
    total_A, total_b = torch.zeros_like(A), torch.zeros_like(b)
    part_A, part_b = torch.empty_like(A), torch.empty_like(b)
    scale = 1.0 / float(data.rows.word_mass.sum())
    for _, latent, targets in data.blocks(CHUNK_ROWS * data.group.size):
        h = latent if B is None else latent @ B.T
        loss_and_gradients(
            h, A, b, targets, data.compute, work,
            grad_A=part_A, grad_b=part_b, grad_h=None, scale=scale,
        )  # fmt: skip
        total_A += part_A
        total_b += part_b
    data.group.sum_(total_A, total_b)
    return total_A.add_(A, alpha=l2 / len(A)), total_b


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
        off = torch.where(a == 0, off.sub_(bound).clamp_min_(0), off)
        worst = torch.maximum(worst, off.amax())
    return n_words * float(worst)

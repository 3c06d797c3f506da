"""The penalty: its proximal step in an optimizer's metric, and the strength that zeroes all of A.

For an optimizer step  a <- a - D g  with a diagonal metric D, the proximal step of
J = f + l1 |a|_1 + (l2/2) |a|_2^2  solves

    min_u  (1/2) (u - a)^T D^-1 (u - a) + l1 |u|_1 + (l2/2) |u|_2^2,

entry by entry soft-thresholding at l1 D, then division by 1 + l2 D. A threshold that ignores the metric
would solve another problem, one that depends on the optimizer's state (ProxGen, Yun et al. 2021).
"""

from __future__ import annotations

import torch


def soft_threshold_(
    a: torch.Tensor, threshold: torch.Tensor | float, work: torch.Tensor | None = None
) -> torch.Tensor:
    """``sign(a) max(|a| - threshold, 0)``, in place, with exact zeros; ``work`` is scratch like a."""
    # What is removed is a between -t and t; a - removed is then exactly zero inside the threshold.
    if not isinstance(threshold, torch.Tensor):
        return a.sub_(a.clamp(-threshold, threshold))
    # Two operations, for torch's clamp between tensors is six times slower than them.
    removed = torch.minimum(a, threshold, out=torch.empty_like(a) if work is None else work)
    torch.maximum(removed, threshold.neg(), out=removed)
    return a.sub_(removed)


def penalty_step_(
    a: torch.Tensor, metric: torch.Tensor, *, l1: float, l2: float, work: torch.Tensor
) -> torch.Tensor:
    """The proximal step of ``l1 |a|_1 + (l2/2) |a|_2^2`` in the metric D (broadcast to a), in place."""
    if l1:
        soft_threshold_(a, l1 * metric, work)
    if l2:
        a.div_(1.0 + l2 * metric)
    return a


def l1_max(gradient_at_zero: torch.Tensor, factorized: bool) -> float:
    """Smallest l1 at which A = 0 is stationary, from the gradient (V, d) of the loss at A = 0.

    LiP: the largest entry. Factorized: the gradient with respect to A_jk is g_j . B_k with |B_k| = 1,
    at most |g_j|; so the largest row norm holds whatever B is.
    """
    if gradient_at_zero.numel() == 0:
        return 0.0
    if factorized:
        return float(torch.linalg.vector_norm(gradient_at_zero, dim=1).max())
    return float(gradient_at_zero.abs().max())

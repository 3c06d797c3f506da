"""The penalty: its proximal step in the metric of the optimizer, and the L1 strength at which A is zero.

For an optimizer step  a <- a - D g  with a diagonal metric D, the proximal step of
J = f + l1 |a|_1 + (l2/2) |a|_2^2  solves

    min_u  (1/2) (u - a)^T D^-1 (u - a) + l1 |u|_1 + (l2/2) |u|_2^2.

Entry by entry, this is soft-thresholding at l1 D, then division by 1 + l2 D. A threshold without the metric
would solve another problem, which depends on the optimizer's state (ProxGen, Yun et al. 2021).
"""

from __future__ import annotations

import torch


def soft_threshold_(
    a: torch.Tensor, threshold: torch.Tensor | float, scratch: torch.Tensor | None = None
) -> torch.Tensor:
    """Replace a by ``sign(a) max(|a| - threshold, 0)``, with exact zeros.

    ``scratch``, of the shape of a, is overwritten if given.
    """
    # a minus its part between -threshold and threshold; inside the threshold that is exactly zero.
    if not isinstance(threshold, torch.Tensor):
        return a.sub_(a.clamp(-threshold, threshold))
    if a.device.type != "cpu":
        return a.sub_(torch.clamp(a, threshold.neg(), threshold))
    # minimum and maximum, because torch's clamp between tensors is six times slower on a CPU.
    removed = torch.minimum(a, threshold, out=torch.empty_like(a) if scratch is None else scratch)
    torch.maximum(removed, threshold.neg(), out=removed)
    return a.sub_(removed)


def penalty_step_(
    a: torch.Tensor, metric: torch.Tensor, *, l1: float, l2: float, scratch: torch.Tensor | None = None
) -> torch.Tensor:
    """Take the proximal step of ``l1 |a|_1 + (l2/2) |a|_2^2`` in the metric D (broadcast to a), in place."""
    if l1:
        soft_threshold_(a, l1 * metric, scratch)
    if l2:
        a.div_(1.0 + l2 * metric)
    return a


def l1_max(gradient_at_zero: torch.Tensor, factorized: bool) -> float:
    """Compute the smallest l1 at which A = 0 is stationary, from the gradient (V, d) of the loss at A = 0.

    For LiP it is the largest entry. With factors, the gradient with respect to A_jk is g_j . B_k with
    |B_k| = 1, which is at most |g_j|, so the largest row norm is sufficient for every B.
    """
    if gradient_at_zero.numel() == 0:
        return 0.0
    if factorized:
        return float(torch.linalg.vector_norm(gradient_at_zero, dim=1).max())
    return float(gradient_at_zero.abs().max())

"""The L1 penalty: soft-thresholding in an optimizer's metric, and the strength that zeroes all of A.

For an optimizer step  a <- a - D g  with a diagonal metric D (Adam: D = lr / (sqrt(v^) + eps)), the
proximal step of  J = f + l1 |a|_1  is soft-thresholding with the threshold l1 * D, entry by entry
(ProxGen, Yun et al. 2021). A threshold lr * l1 would solve another problem, one that depends on v.
"""

from __future__ import annotations

import torch


def soft_threshold_(a: torch.Tensor, threshold: torch.Tensor | float) -> torch.Tensor:
    """``sign(a) max(|a| - threshold, 0)``, in place, with exact zeros."""
    if isinstance(threshold, torch.Tensor):
        # clamp(a, -t, t) is what the step removes; a - clamp(a) is exactly zero inside the threshold.
        return a.sub_(torch.minimum(torch.maximum(a, -threshold), threshold))
    return a.sub_(a.clamp(-threshold, threshold))


def adam_threshold(
    second_moment: torch.Tensor,
    *,
    l1: float,
    learning_rate: float,
    beta2: float,
    eps: float,
    step: int,
    out: torch.Tensor,
) -> torch.Tensor:
    """The threshold l1 * lr / (sqrt(v^) + eps) of Adam's metric, written into ``out``."""
    correction = (1.0 - beta2**step) ** 0.5
    torch.sqrt(second_moment, out=out)
    out.div_(correction).add_(eps).reciprocal_().mul_(l1 * learning_rate)
    return out


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

"""The L1 penalty: soft-thresholding in an optimizer's metric, and the strength that zeroes all of A.

For an optimizer step  a <- a - D g  with a diagonal metric D (Adam: D = lr / (sqrt(v^) + eps)), the
proximal step of  J = f + l1 |a|_1  is soft-thresholding with the threshold l1 * D, entry by entry
(ProxGen, Yun et al. 2021). A threshold lr * l1 would solve another problem, one that depends on v.
"""

from __future__ import annotations

import torch

# Elements of one stretch of A in the proximal step: on a CPU its eight elementwise operations then work
# in cache instead of passing over all of A each.
STEP_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}


def soft_threshold_(
    a: torch.Tensor, threshold: torch.Tensor | float, work: torch.Tensor | None = None
) -> torch.Tensor:
    """``sign(a) max(|a| - threshold, 0)``, in place, with exact zeros; ``work`` is scratch like a."""
    # clamp(a, -t, t) is what the step removes; a - clamp(a) is exactly zero inside the threshold.
    if not isinstance(threshold, torch.Tensor):
        return a.sub_(a.clamp(-threshold, threshold))
    removed = torch.neg(threshold, out=torch.empty_like(a) if work is None else work)
    torch.maximum(a, removed, out=removed)
    torch.minimum(removed, threshold, out=removed)
    return a.sub_(removed)


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
    return out.add_(eps * correction).reciprocal_().mul_(l1 * learning_rate * correction)


class AdamProximalStep:
    """The proximal step of l1 |A|_1 after an Adam step on A, stretch by stretch."""

    def __init__(self, A: torch.Tensor, *, l1: float, beta2: float, eps: float) -> None:
        self._flat, self._l1, self._beta2, self._eps = A.view(-1), l1, beta2, eps
        size = min(STEP_ELEMENTS[A.device.type], A.numel())
        self._threshold, self._scratch = (
            torch.empty(size, dtype=A.dtype, device=A.device) for _ in range(2)
        )

    def __call__(self, second_moment: torch.Tensor, learning_rate: float, step: int) -> None:
        """Soft-threshold A in place, given Adam's raw second moment and the rate of its step."""
        for a, v in zip(
            torch.split(self._flat, len(self._scratch)),
            torch.split(second_moment.view(-1), len(self._scratch)),
            strict=True,
        ):
            threshold = adam_threshold(
                v,
                l1=self._l1,
                learning_rate=learning_rate,
                beta2=self._beta2,
                eps=self._eps,
                step=step,
                out=self._threshold[: len(v)],
            )
            soft_threshold_(a, threshold, self._scratch[: len(a)])


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

"""Reference solver: accelerated proximal gradient on the convex problem, exact and slow, in float64.

With the latent rows h_n fixed (h = x~ for LiP, h = B~ x~ for FLiP at a given B~), J is convex in (A, b).
The tests compare the fast solver with it. It uses full batches, has no settings to tune, and its KKT residual
certifies the optimum.
"""

from __future__ import annotations

import torch

from flip_sklearn.backend.fit.penalty import soft_threshold_


def reference_loss(
    h: torch.Tensor, A: torch.Tensor, b: torch.Tensor, dense_counts: torch.Tensor, w: torch.Tensor
) -> torch.Tensor:
    """L by its definition, differentiable."""
    log_theta = torch.log_softmax(b + h @ A.T, dim=1)
    return -(w[:, None] * dense_counts * log_theta).sum()


def objective(
    h: torch.Tensor,
    counts: torch.Tensor,
    w: torch.Tensor,
    A: torch.Tensor,
    b: torch.Tensor,
    l1: float,
    l2: float,
) -> torch.Tensor:
    """J for dense float64 counts (n, V)."""
    total_count = (w[:, None] * counts).sum()
    penalty = l1 * A.abs().sum() / A.shape[0] + 0.5 * l2 * A.square().sum() / total_count
    return reference_loss(h, A, b, counts, w) / total_count + penalty


def smooth_gradients(
    h: torch.Tensor, counts: torch.Tensor, w: torch.Tensor, A: torch.Tensor, b: torch.Tensor, l2: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of J without its L1 term with respect to A and b."""
    weighted = w[:, None] * counts
    residual = weighted.sum(dim=1, keepdim=True) * torch.softmax(b + h @ A.T, dim=1) - weighted
    residual = residual / weighted.sum()
    return residual.T @ h + l2 / weighted.sum() * A, residual.sum(dim=0)


def proximal_gradient(
    h: torch.Tensor,
    counts: torch.Tensor,
    w: torch.Tensor,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    tol: float = 1e-8,
    max_iter: int = 20_000,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimize J over A and b until the KKT residual is at most ``tol``.

    This is accelerated proximal gradient (Beck and Teboulle 2009) with the gradient restart of O'Donoghue and
    Candes (2015). The step is 1 / L with L = (1/2) lambda_max(sum_n w_n T_n [h;1][h;1]^T) / W + l2 / W,
    because the Hessian of the softmax, T (diag(theta) - theta theta^T), is at most T / 2.
    """
    n_words = counts.shape[1]
    mass = w * counts.sum(dim=1)
    design = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
    curvature = torch.linalg.eigvalsh((design * mass[:, None]).T @ design)[-1] / mass.sum()
    step = 1.0 / float(0.5 * curvature + l2 / mass.sum())
    A = torch.zeros(n_words, h.shape[1], dtype=h.dtype)
    b = torch.log((w @ counts).clamp_min(0.5) / mass.sum())
    A_ahead, b_ahead, momentum = A.clone(), b.clone(), 1.0
    for _ in range(max_iter):
        grad_A, grad_b = smooth_gradients(h, counts, w, A_ahead, b_ahead, l2)
        A_new = soft_threshold_(A_ahead - step * grad_A, step * l1 / n_words)
        b_new = b_ahead - step * grad_b
        uphill = ((A_ahead - A_new) * (A_new - A)).sum() + ((b_ahead - b_new) * (b_new - b)).sum()
        next_momentum, extrapolation = 1.0, 0.0  # a restart
        if uphill <= 0:
            next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            extrapolation = (momentum - 1) / next_momentum
        A_ahead = A_new + extrapolation * (A_new - A)
        b_ahead = b_new + extrapolation * (b_new - b)
        A, b, momentum = A_new, b_new, next_momentum
        if kkt_residual(h, counts, w, A, b, l1=l1, l2=l2) <= tol:
            break
    return A, b


def kkt_residual(
    h: torch.Tensor,
    counts: torch.Tensor,
    w: torch.Tensor,
    A: torch.Tensor,
    b: torch.Tensor,
    *,
    l1: float,
    l2: float = 0.0,
) -> float:
    """Largest violation of J's optimality conditions in (A, b), in J's units.

    Where A_jk != 0: grad + sign(A_jk) l1 / V = 0; where A_jk = 0: |grad| <= l1 / V; and dJ/db = 0.
    """
    grad_A, grad_b = smooth_gradients(h, counts, w, A, b, l2)
    bound = l1 / A.shape[0]
    violation = torch.where(A == 0, (grad_A.abs() - bound).clamp_min(0), (grad_A + bound * A.sign()).abs())
    return float(torch.maximum(violation.max(), grad_b.abs().max()))

"""Exact minimization of many small problems, w^T G w - 2 b^T w over w >= 0, by batched active sets.

Weights that are not fixed at zero are free. Each step solves for the free weights without the sign
constraint. If some are negative, they are clipped to zero if that lowers the objective; otherwise w moves
towards the solution as far as the signs allow, and the weights that reach zero are fixed there. If none is
negative, w is the minimum over the free weights, and fixed weights that would lower the objective become
free.

The objective never increases, and of the weights that become free at a minimum at least one grows. So no
set of free weights occurs twice at a minimum, and the number of steps is finite. With rounding, all of
the weights that became free may return to zero; this also ends the steps.

Equal or collinear words make G singular. A ridge is added to G, and one step of iterative refinement
removes the bias of the ridge. Equal words then share their weight.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from flip_sklearn.backend.device import upload

# Relative to a diagonal of ones. The error of the objective is at most RIDGE |w|^2.
RIDGE = 1e-12
# Used if G is not positive definite with the first ridge, because its products are rounded.
LARGE_RIDGE = 1e-6

# Differences below these are treated as rounding.
SLOPE_ROUNDING = 1e-13
VALUE_ROUNDING = 1e-14


def minimize_quadratic(
    G: torch.Tensor, b: torch.Tensor, w: torch.Tensor, allowed: torch.Tensor
) -> torch.Tensor:
    """Minimize w^T G w - 2 b^T w over w >= 0 for a batch of small problems, by active sets.

    ``G`` (m, s, s) is positive semi-definite with a diagonal of ones, or zeros where not ``allowed`` (m, s);
    ``b`` (m, s) is at most about 1; ``w`` (m, s) is the initial point. Other weights are zero in the result.
    The host waits for the device once a step.
    """
    result = w.clone()
    rows = torch.arange(len(G), device=G.device)  # of the problems that are not finished
    free = allowed & ((w > 0) | (slope(G, b, w) > 0))
    last_free = torch.zeros_like(free)  # free weights at the last minimum over free weights
    had_minimum = torch.zeros(len(G), dtype=torch.bool, device=G.device)
    for _ in range(30 + 3 * G.shape[1]):
        x = _solve_free(G, b, free)
        negative = free & (x <= 0)
        is_minimum = ~negative.any(dim=1)
        clipped = x.clamp(min=0)
        is_lower = _objective(G, b, clipped) < _objective(G, b, w) - VALUE_ROUNDING
        accept = (is_minimum | is_lower)[:, None]
        partway, reached_zero = _move_towards(w, x, negative)
        w = torch.where(accept, clipped, partway)
        free = torch.where(accept, w > 0, free & ~reached_zero)
        enters = allowed & ~free & (slope(G, b, w) > SLOPE_ROUNDING) & is_minimum[:, None]
        # If the weights that became free all returned to zero, they became free by rounding only.
        is_repeated = had_minimum & (free == last_free).all(dim=1)
        is_done = is_minimum & (~enters.any(dim=1) | is_repeated)
        had_minimum |= is_minimum
        last_free = torch.where(is_minimum[:, None], free, last_free)
        free |= enters
        done = is_done.cpu().numpy()
        if done.all():
            break
        if done.any():
            finished, kept = (upload(torch.from_numpy(np.flatnonzero(d)), G.device) for d in (done, ~done))
            result[rows[finished]] = w[finished]
            rows, G, b, w, allowed = rows[kept], G[kept], b[kept], w[kept], allowed[kept]
            free, last_free, had_minimum = free[kept], last_free[kept], had_minimum[kept]
    result[rows] = w  # after too many steps not optimal to the last digits, as the gap will show
    return result


def _move_towards(
    w: torch.Tensor, x: torch.Tensor, negative: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move from w >= 0 towards x until the first weight reaches zero.

    ``negative`` marks the weights with x <= 0. Returns the weights, and which of them reached zero.
    """
    tiny = torch.finfo(w.dtype).tiny
    max_step = torch.where(negative, w / (w - x).clamp(min=tiny), math.inf)
    step = max_step.min(dim=1, keepdim=True).values
    reached_zero = negative & (max_step <= step)
    moved = w + step.clamp(max=1) * (x - w)
    return moved.masked_fill_(reached_zero, 0).clamp_(min=0), reached_zero


def slope(G: torch.Tensor, b: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Compute b - G w, half of the negative gradient of the objective."""
    return torch.baddbmm(b[:, :, None], G, w[:, :, None], alpha=-1)[:, :, 0]


def _objective(G: torch.Tensor, b: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return -(w * (b + slope(G, b, w))).sum(dim=1)


def _solve_free(G: torch.Tensor, b: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Minimize over the free weights without the sign constraint."""
    both_free = free[:, :, None] & free[:, None, :]
    H = G.masked_fill(~both_free, 0)
    A = H.clone()
    A.diagonal(dim1=1, dim2=2).add_((~free).to(G.dtype) + RIDGE)
    L, failed = torch.linalg.cholesky_ex(A)
    b = b.masked_fill(~free, 0)[:, :, None]
    # The products in G are rounded: use a ridge above the rounding. On a device, a second factorization
    # of all problems takes less time than to wait and see whether one is needed.
    if G.device.type != "cpu" or bool((failed > 0).any()):
        A.diagonal(dim1=1, dim2=2).add_((failed > 0)[:, None] * LARGE_RIDGE)
        L = torch.linalg.cholesky_ex(A).L
    x = torch.cholesky_solve(b, L)
    x = x + torch.cholesky_solve(b - H @ x, L)  # iterative refinement
    return x[:, :, 0].masked_fill_(~free, 0)

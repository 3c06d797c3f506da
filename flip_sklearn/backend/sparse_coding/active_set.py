"""Many small problems, w^T G w - 2 b^T w over w >= 0, solved exactly and side by side by active sets.

The weights that are not held at zero are free. Each step solves for them without the sign. Where some
come out negative, they are clipped if that lowers the objective; else w goes towards the solution as far
as the signs allow, and the weights that reach zero are held there. Where none is negative, w is the
minimum over its free weights, and those at zero that would lower the objective are set free.

The objective never rises, and of the weights set free at a minimum at least one grows: so no set of free
weights comes twice at a minimum, and the steps end. In rounded arithmetic all of them may go back to
zero; that ends them, too.

Equal or collinear words make G singular. It gets a ridge, and one step of refinement takes the ridge's bias
away. Equal words then share their weight.
"""

from __future__ import annotations

import math

import torch

# On a diagonal of ones. The objective is off by this times |w|^2 at most.
RIDGE = 1e-12
# Where G is made of rounded products and the first one was not enough.
RIDGE_OF_ROUNDED = 1e-6

SLOPE_ROUNDING = 1e-13
VALUE_ROUNDING = 1e-14


def minimize_quadratic(
    G: torch.Tensor, b: torch.Tensor, w: torch.Tensor, allowed: torch.Tensor
) -> torch.Tensor:
    """Minimize w^T G w - 2 b^T w over w >= 0 for a batch of small problems, by active sets.

    Parameters
    ----------
    G : (m, s, s)
        Positive semi-definite with a diagonal of ones, or zeros where not allowed.
    b, w : (m, s)
        ``w`` >= 0 is the start; b is at most about 1.
    allowed : (m, s) bool
        Elsewhere the result is zero.
    """
    result = w.clone()
    rows = torch.arange(len(G), device=G.device)
    free = allowed & ((w > 0) | (slope(G, b, w) > 0))
    settled = torch.zeros_like(free)  # the free words of the last minimum over free words
    once = torch.zeros(len(G), dtype=torch.bool, device=G.device)  # whether there was one
    for _ in range(30 + 3 * G.shape[1]):
        x = _solve_free(G, b, free)
        negative = free & (x <= 0)
        inside = ~negative.any(dim=1)
        clipped = x.clamp(min=0)
        lower = _value(G, b, clipped) < _value(G, b, w) - VALUE_ROUNDING
        # As far towards x as no weight gets negative.
        room = torch.where(negative, w / (w - x).clamp(min=torch.finfo(w.dtype).tiny), math.inf)
        shortest = room.min(dim=1, keepdim=True).values
        hit = negative & (room <= shortest)
        partway = (w + shortest.clamp(max=1) * (x - w)).masked_fill_(hit, 0).clamp_(min=0)
        accept = (inside | lower)[:, None]
        w = torch.where(accept, clipped, partway)
        free = torch.where(accept, w > 0, free & ~hit)
        enters = allowed & ~free & (slope(G, b, w) > SLOPE_ROUNDING) & inside[:, None]
        # Where the words that entered all left again, only rounding called for them.
        over = inside & (~enters.any(dim=1) | (once & (free == settled).all(dim=1)))
        once |= inside
        settled = torch.where(inside[:, None], free, settled)
        free |= enters
        if over.any():
            result[rows[over]] = w[over]
            on = ~over
            rows, G, b, w, allowed = rows[on], G[on], b[on], w[on], allowed[on]
            free, settled, once = free[on], settled[on], once[on]
            if not len(rows):
                return result
    result[rows] = w  # rounding: not optimal to the last digits, as the gap will say
    return result


def slope(G: torch.Tensor, b: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """b - G w: half of how fast the objective falls as each weight grows."""
    return torch.baddbmm(b[:, :, None], G, w[:, :, None], alpha=-1)[:, :, 0]


def _value(G: torch.Tensor, b: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return -(w * (b + slope(G, b, w))).sum(dim=1)


def _solve_free(G: torch.Tensor, b: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """The minimum over the free weights alone, whatever their signs."""
    both = free[:, :, None] & free[:, None, :]
    H = G.masked_fill(~both, 0)
    A = H.clone()
    A.diagonal(dim1=1, dim2=2).add_((~free).to(G.dtype) + RIDGE)
    L, failed = torch.linalg.cholesky_ex(A)
    b = b.masked_fill(~free, 0)[:, :, None]
    if bool((failed > 0).any()):  # a Gram matrix of rounded products: a ridge above the rounding
        A.diagonal(dim1=1, dim2=2).add_((failed > 0)[:, None] * RIDGE_OF_ROUNDED)
        L = torch.linalg.cholesky_ex(A).L
    x = torch.cholesky_solve(b, L)
    x = x + torch.cholesky_solve(b - H @ x, L)
    return x[:, :, 0].masked_fill_(~free, 0)

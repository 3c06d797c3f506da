"""The count softmax: loss and gradients, in blocks of rows, never n x V.

For rows n with latent h_n (h = B~ x~, or x~ itself without factorization), words j, scores z = b + A h
and theta = softmax(z), the weighted negative log-likelihood is

    L = sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj] = -sum_n w_n sum_j Y_nj log theta_nj

and with the residual G_nj = w_n (T_n theta_nj - Y_nj) its gradients are

    dL/dA = G^T h,      dL/db = G^T 1,      dL/dh = G A,      dL/dB~ = (dL/dh)^T x~.

Each costs one matrix product of 2 m V r operations: 6 m V r for a batch of m rows in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flip_sklearn.backend.device import Compute, rows_per_block
from flip_sklearn.backend.problem import Targets


@contextmanager
def product_precision(compute: Compute) -> Iterator[None]:
    """Let float32 products on a CPU run in bfloat16 inside this block.

    It is a permission, not an emulation: oneDNN takes it up where the chip has AMX tiles, sums in
    float32 and returns float32; elsewhere the products stay float32. On CUDA nothing happens here:
    ``matmul`` casts by itself.
    """
    knob = getattr(torch.backends.mkldnn, "matmul", None)
    if compute.device.type != "cpu" or compute.product_dtype != torch.bfloat16 or knob is None:
        yield
        return
    before = knob.fp32_precision
    knob.fp32_precision = "bf16"
    try:
        yield
    finally:
        knob.fp32_precision = before


def matmul(
    a: torch.Tensor, b: torch.Tensor, compute: Compute, out: torch.Tensor, *, add: bool = False
) -> torch.Tensor:
    """``out = a b`` (``out += a b`` with ``add``): factors in the product format, sums in ``out``'s."""
    if compute.device.type == "cuda" and compute.product_dtype == torch.bfloat16:
        a, b = a.to(torch.bfloat16), b.to(torch.bfloat16)
        if add:
            return torch.addmm(out, a, b, out_dtype=out.dtype, out=out)
        return torch.mm(a, b, out_dtype=out.dtype, out=out)
    return out.addmm_(a, b) if add else torch.mm(a, b, out=out)


class Workspace:
    """Buffers of one problem size, allocated once: fresh pages cost more than the arithmetic on them."""

    def __init__(self, n_words: int, batch_size: int, compute: Compute) -> None:
        self.block_rows = rows_per_block(n_words, batch_size, compute.device)
        shape = (self.block_rows, n_words)
        self.scores = torch.empty(shape, dtype=compute.dtype, device=compute.device)
        self.residual = torch.empty(shape, dtype=compute.dtype, device=compute.device)


def _block_softmax(
    h: torch.Tensor,
    A: torch.Tensor,
    b: torch.Tensor,
    targets: Targets,
    compute: Compute,
    work: Workspace,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of one block and its theta (a view of the workspace)."""
    m = h.shape[0]
    scores, theta = work.scores[:m], work.residual[:m]
    matmul(h, A.T, compute, out=scores)
    scores += b
    torch.softmax(scores, dim=1, out=theta)
    # logsumexp from the largest score and its probability (>= 1/V, so its logarithm is safe): the rest
    # of theta may underflow, the loss of a very wrong prediction is still exact.
    lse = scores.amax(dim=1) - theta.amax(dim=1).log()
    hit = scores.view(-1).index_select(0, targets.row * A.shape[0] + targets.col)
    loss = (targets.total * lse).sum(dtype=torch.float64) - (targets.count * hit).sum(
        dtype=torch.float64
    )
    return loss, theta


def loss_and_gradients(
    h: torch.Tensor,
    A: torch.Tensor,
    b: torch.Tensor,
    targets: Targets,
    compute: Compute,
    work: Workspace,
    *,
    grad_A: torch.Tensor,
    grad_b: torch.Tensor,
    grad_h: torch.Tensor | None,
) -> torch.Tensor:
    """L of a batch (float64 scalar tensor); its gradients are written into ``grad_*``.

    Parameters
    ----------
    h : (m, r) latent rows; A : (V, r); b : (V,)
    targets : weighted counts of the batch
    grad_A, grad_b, grad_h : overwritten; ``grad_h=None`` skips dL/dh (LiP has no B to train).
    """
    loss = torch.zeros((), dtype=torch.float64, device=h.device)
    grad_b.zero_()
    # Blocks of nearly equal size: a small last block would waste the products.
    step = math.ceil(h.shape[0] / math.ceil(h.shape[0] / work.block_rows))
    with product_precision(compute):
        for first in range(0, h.shape[0], step):
            last = min(first + step, h.shape[0])
            part, h_part = targets.block(first, last), h[first:last]
            block_loss, G = _block_softmax(h_part, A, b, part, compute, work)
            loss += block_loss
            G *= part.total[:, None]
            flat = G.view(-1)
            index = part.row * A.shape[0] + part.col
            flat[index] = flat.index_select(0, index) - part.count
            grad_b += G.sum(dim=0)
            matmul(G.T, h_part, compute, out=grad_A, add=first > 0)
            if grad_h is not None:
                matmul(G, A, compute, out=grad_h[first:last])
    return loss


def loss_only(
    h: torch.Tensor,
    A: torch.Tensor,
    b: torch.Tensor,
    targets: Targets,
    compute: Compute,
    work: Workspace,
) -> tuple[float, torch.Tensor]:
    """L of at most one block of rows, and its scores (a view of the workspace) for ranking."""
    with product_precision(compute):
        loss, _ = _block_softmax(h, A, b, targets, compute, work)
    return float(loss), work.scores[: h.shape[0]]


def reference_loss(
    h: torch.Tensor, A: torch.Tensor, b: torch.Tensor, dense_counts: torch.Tensor, w: torch.Tensor
) -> torch.Tensor:
    """L by its definition, differentiable: the float64 reference that the fast path is tested against."""
    log_theta = torch.log_softmax(b + h @ A.T, dim=1)
    return -(w[:, None] * dense_counts * log_theta).sum()

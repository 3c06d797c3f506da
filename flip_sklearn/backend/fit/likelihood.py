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

import torch

from flip_sklearn.backend.device import Compute, matmul, product_precision, rows_per_block
from flip_sklearn.backend.fit.data import Targets


class Workspace:
    """Buffers for blocks of scores, kept: fresh pages cost more than the arithmetic on them."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._buffers = [torch.empty(0, dtype=compute.dtype, device=compute.device)] * 2

    def block_rows(self, n_words: int, at_most: int) -> int:
        """Rows of one block when there are ``n_words`` columns."""
        return rows_per_block(n_words, at_most, self._compute.device)

    def pair(self, m: int, n_words: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two matrices (m, n_words) whose contents are undefined."""
        size = m * n_words
        if len(self._buffers[0]) < size:
            old = self._buffers[0]
            self._buffers = [old.new_empty(size) for _ in range(2)]
        first, second = (buffer[:size].view(m, n_words) for buffer in self._buffers)
        return first, second


def _scores(
    h: torch.Tensor, A: torch.Tensor, b: torch.Tensor, compute: Compute, out: torch.Tensor
) -> torch.Tensor:
    return matmul(h, A.T, compute, out=out).add_(b)


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
    scale: float = 1.0,
    own_offset: torch.Tensor | None = None,
    add: bool = False,
) -> torch.Tensor:
    """L of a batch (float64 scalar tensor); ``scale`` times its gradients is written into ``grad_*``.

    Parameters
    ----------
    h : (m, r) latent rows; A : (V, r); b : (V,)
        With candidates instead of the vocabulary: their rows of A and b, V the number of candidates.
    targets : weighted counts of the batch
    grad_A, grad_b, grad_h : overwritten; ``grad_h=None`` skips dL/dh (LiP has no B to train).
    scale : factor of the gradients, not of the loss
    own_offset : (nnz,), added to the scores of a row's own words before the softmax (``sampling.py``)
    add : add to ``grad_A`` and ``grad_b`` instead of overwriting them
    """
    loss = torch.zeros((), dtype=torch.float64, device=h.device)
    n_words = A.shape[0]
    if h.shape[0] == 0:
        if not add:
            grad_A.zero_()
            grad_b.zero_()
        return loss
    # Dividing a row of the residual by its w_n T_n and multiplying the row of h, or of the product
    # with A, by it instead saves a pass over the m x V residual.
    share = targets.count / targets.total.index_select(0, targets.row).clamp_min(
        torch.finfo(targets.count.dtype).tiny
    )
    weight = targets.total * scale
    weighted_h = h * weight[:, None]
    # Blocks of nearly equal size: a small last block would waste the products.
    at_most = work.block_rows(n_words, h.shape[0])
    step = math.ceil(h.shape[0] / math.ceil(h.shape[0] / at_most))
    with product_precision(compute):
        for first in range(0, h.shape[0], step):
            last = min(first + step, h.shape[0])
            part = targets.block(first, last)
            entries = slice(int(targets.start[first]), int(targets.start[last]))
            scores, G = work.pair(last - first, n_words)
            _scores(h[first:last], A, b, compute, out=scores)
            index = part.row * n_words + part.col
            if own_offset is not None:
                flat = scores.view(-1)
                flat[index] = flat.index_select(0, index) + own_offset[entries]
            torch.softmax(scores, dim=1, out=G)
            own = G.view(-1).index_select(0, index)
            loss += _loss(scores, G, own, part, index)
            G.view(-1)[index] = own - share[entries]
            summed = add or first > 0
            grad_b.addmv_(G.T, weight[first:last], beta=1.0 if summed else 0.0)
            matmul(G.T, weighted_h[first:last], compute, out=grad_A, add=summed)
            if grad_h is not None:
                matmul(G, A, compute, out=grad_h[first:last])
    if grad_h is not None:
        grad_h.mul_(weight[:, None])
    return loss


def _loss(
    scores: torch.Tensor,
    theta: torch.Tensor,
    own: torch.Tensor,
    targets: Targets,
    index: torch.Tensor,
) -> torch.Tensor:
    """L of one block from theta at the rows' own words, or from the scores where theta underflows."""
    if scores.device.type == "cpu" and (
        len(own) == 0 or float(own.min()) > torch.finfo(own.dtype).tiny
    ):
        return -(targets.count.double() @ own.log().double())
    # logsumexp from the largest score and its probability (>= 1/V, so its logarithm is safe): the
    # rest of theta may underflow, the loss of a very wrong prediction is still exact.
    lse = scores.amax(dim=1) - theta.amax(dim=1).log()
    hit = scores.view(-1).index_select(0, index)
    return (targets.total * lse).sum(dtype=torch.float64) - (targets.count * hit).sum(
        dtype=torch.float64
    )


def loss_only(
    h: torch.Tensor,
    A: torch.Tensor,
    b: torch.Tensor,
    targets: Targets,
    compute: Compute,
    work: Workspace,
) -> tuple[float, torch.Tensor]:
    """L of at most one block of rows, and its scores (a view of the workspace) for ranking."""
    scores, theta = work.pair(h.shape[0], A.shape[0])
    with product_precision(compute):
        _scores(h, A, b, compute, out=scores)
    torch.softmax(scores, dim=1, out=theta)
    index = targets.row * A.shape[0] + targets.col
    own = theta.view(-1).index_select(0, index)
    return float(_loss(scores, theta, own, targets, index)), scores

"""The count softmax: loss and gradients in blocks of rows, without an n x V matrix.

For rows n with latent h_n (h = B~ x~, or x~ itself without factorization), words j, scores z = b + A h
and theta = softmax(z), the weighted negative log-likelihood is

    L = sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj] = -sum_n w_n sum_j Y_nj log theta_nj

and with the residual G_nj = w_n (T_n theta_nj - Y_nj) its gradients are

    dL/dA = G^T h,      dL/db = G^T 1,      dL/dh = G A,      dL/dB~ = (dL/dh)^T x~.

The scores, dL/dA and dL/dh cost one matrix product of 2 m V r operations each: 6 m V r for a batch of m rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flip_sklearn.backend.device import Compute, even_slices, matmul, product_precision, rows_per_block
from flip_sklearn.backend.fit.data import Targets


@dataclass(frozen=True)
class SoftmaxLayer:
    """A and b of the classes of the softmax: all words, or the sampled classes of a batch.

    With sampled classes (``candidates.py``), V is their number and ``b`` holds b_j - log pi_j. The words of a
    row must not have this correction, so ``target_offset``, log pi_j, is added to their scores.
    """

    A: torch.Tensor  # (V, r)
    b: torch.Tensor  # (V,)
    target_offset: torch.Tensor | None = None  # (nnz,)


@dataclass(frozen=True)
class Gradients:
    """Tensors that ``loss_and_gradients`` writes to; without ``h`` (LiP has no B~), it skips dL/dh."""

    A: torch.Tensor  # (V, r)
    b: torch.Tensor  # (V,)
    h: torch.Tensor | None = None  # (m, r)


class Workspace:
    """Reused buffers for blocks of scores: allocating new memory costs more than the arithmetic on it."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self._buffers = [torch.empty(0, dtype=compute.dtype, device=compute.device)] * 2

    def block_rows(self, n_columns: int, n_rows: int) -> int:
        """Return the number of rows in one block of an (n_rows, n_columns) matrix of scores."""
        return rows_per_block(n_columns, n_rows, self.compute.device)

    def pair(self, n_rows: int, n_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two matrices (n_rows, n_columns) with undefined contents."""
        size = n_rows * n_columns
        if len(self._buffers[0]) < size:
            old = self._buffers[0]
            self._buffers = [old.new_empty(size) for _ in range(2)]
        first, second = (buffer[:size].view(n_rows, n_columns) for buffer in self._buffers)
        return first, second


def loss_and_gradients(
    h: torch.Tensor,
    layer: SoftmaxLayer,
    targets: Targets,
    work: Workspace,
    gradients: Gradients,
    *,
    scale: float = 1.0,
    add: bool = False,
) -> torch.Tensor:
    """Compute L of a batch (float64 scalar tensor) and write ``scale`` times its gradients.

    ``h`` (m, r) are the latent rows; the columns of ``targets`` are classes of ``layer``. With ``add``, the
    gradients are added to ``gradients.A`` and ``gradients.b`` instead of overwriting them.
    """
    m = len(h)
    loss = torch.zeros((), dtype=torch.float64, device=h.device)
    if m == 0:
        if not add:
            gradients.A.zero_()
            gradients.b.zero_()
        return loss
    # The factor w_n T_n of row n of G is applied to h and to dL/dh instead, which are smaller than G.
    weight = targets.total * scale
    weighted_h = h * weight[:, None]
    with product_precision(work.compute):
        for rows in even_slices(m, work.block_rows(len(layer.A), m)):
            block_loss, G = _loss_and_residual(h, layer, targets, rows, work)
            loss += block_loss
            accumulate = add or rows.start > 0
            gradients.b.addmv_(G.T, weight[rows], beta=1.0 if accumulate else 0.0)
            matmul(G.T, weighted_h[rows], work.compute, out=gradients.A, add=accumulate)
            if gradients.h is not None:
                matmul(G, layer.A, work.compute, out=gradients.h[rows])
    if gradients.h is not None:
        gradients.h.mul_(weight[:, None])
    return loss


def _loss_and_residual(
    h: torch.Tensor, layer: SoftmaxLayer, targets: Targets, rows: slice, work: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """L of some rows, and G_nj / (w_n T_n) = theta_nj - Y_nj / T_n."""
    block = targets.block(rows.start, rows.stop)
    n_classes = len(layer.A)
    scores, theta = work.pair(len(block.total), n_classes)
    matmul(h[rows], layer.A.T, work.compute, out=scores).add_(layer.b)
    index = block.row * n_classes + block.col  # of the targets in the flattened scores
    if layer.target_offset is not None:
        entries = slice(int(targets.start[rows.start]), int(targets.start[rows.stop]))
        flat = scores.view(-1)
        flat[index] = flat.index_select(0, index) + layer.target_offset[entries]
    torch.softmax(scores, dim=1, out=theta)
    target_theta = theta.view(-1).index_select(0, index)
    loss = _loss(scores, theta, target_theta, block, index)
    smallest = torch.finfo(block.count.dtype).tiny
    share = block.count / block.total.index_select(0, block.row).clamp_min(smallest)
    theta.view(-1)[index] = target_theta - share  # theta is now the residual
    return loss, theta


def _loss(
    scores: torch.Tensor,
    theta: torch.Tensor,
    target_theta: torch.Tensor,
    targets: Targets,
    index: torch.Tensor,
) -> torch.Tensor:
    """L of one block, from theta at the targets, or from the scores if theta underflows there."""
    tiny = torch.finfo(theta.dtype).tiny
    if theta.device.type == "cpu" and bool((target_theta > tiny).all()):
        return -(targets.count.double() @ target_theta.log().double())
    # The largest theta of a row is at least 1/V, so logsumexp from it and its score is exact, also where
    # other entries of theta underflow.
    logsumexp = scores.amax(dim=1) - theta.amax(dim=1).log()
    target_scores = scores.view(-1).index_select(0, index)
    of_totals = (targets.total * logsumexp).sum(dtype=torch.float64)
    return of_totals - (targets.count * target_scores).sum(dtype=torch.float64)


def loss_and_scores(
    h: torch.Tensor, layer: SoftmaxLayer, targets: Targets, work: Workspace
) -> tuple[float, torch.Tensor]:
    """Compute L of at most one block of rows, and their scores (a view of the workspace)."""
    scores, theta = work.pair(len(h), len(layer.A))
    with product_precision(work.compute):
        matmul(h, layer.A.T, work.compute, out=scores).add_(layer.b)
    torch.softmax(scores, dim=1, out=theta)
    index = targets.row * len(layer.A) + targets.col
    target_theta = theta.view(-1).index_select(0, index)
    return float(_loss(scores, theta, target_theta, targets, index)), scores

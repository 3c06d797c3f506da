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

from flip_sklearn.backend.device import (
    Compute,
    as_factor,
    even_slices,
    matmul,
    product_precision,
    rows_of,
    rows_per_block,
)
from flip_sklearn.backend.fit.data import FlatTargets


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
    """Reused buffers for blocks of scores: allocating new memory costs more than the arithmetic on it.

    The residual has the format of the factors of products on an accelerator, since it is only multiplied.
    """

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self._on_cpu = compute.device.type == "cpu"
        factor_dtype = compute.dtype if self._on_cpu else compute.product_dtype
        # One buffer is enough for both if the residual replaces the scores.
        self._shares_memory = not self._on_cpu and factor_dtype == compute.dtype
        self._scores = torch.empty(0, dtype=compute.dtype, device=compute.device)
        self._residual = torch.empty(0, dtype=factor_dtype, device=compute.device)

    def block_rows(self, n_columns: int, n_rows: int) -> int:
        """Return the number of rows in one block of an (n_rows, n_columns) matrix of scores."""
        return rows_per_block(n_columns, n_rows, self.compute.device)

    def scores(self, n_rows: int, n_columns: int) -> torch.Tensor:
        """Return a matrix (n_rows, n_columns) with undefined contents."""
        self._scores = _enlarged(self._scores, n_rows * n_columns)
        return self._scores.as_strided((n_rows, n_columns), (n_columns, 1))

    def residual(self, scores: torch.Tensor) -> torch.Tensor:
        """Return a matrix of the shape of the scores with undefined contents; it may be the scores."""
        if self._shares_memory:
            return scores
        self._residual = _enlarged(self._residual, scores.numel())
        return self._residual.as_strided(scores.shape, scores.stride())


def _enlarged(buffer: torch.Tensor, size: int) -> torch.Tensor:
    return buffer if len(buffer) >= size else buffer.new_empty(size)


def loss_and_gradients(
    h: torch.Tensor,
    layer: SoftmaxLayer,
    targets: FlatTargets,
    work: Workspace,
    gradients: Gradients,
    *,
    scale: float = 1.0,
    add: bool = False,
) -> torch.Tensor:
    """Compute L of a batch (float64 scalar tensor) and write ``scale`` times its gradients.

    ``h`` (m, r) are the latent rows; the positions of ``targets`` are those of ``layer``'s classes. With
    ``add``, the gradients are added to ``gradients.A`` and ``gradients.b`` instead of overwriting them.
    """
    m = len(h)
    if m == 0:
        if not add:
            gradients.A.zero_()
            gradients.b.zero_()
        return torch.zeros((), dtype=torch.float64, device=h.device)
    # The factor w_n T_n of row n of G is applied to h and to dL/dh instead, which are smaller than G.
    weight = (targets.total * scale)[:, None]
    # Converted once, because several products use them.
    weighted_h, h = (as_factor(matrix, work.compute) for matrix in (h * weight, h))
    A = as_factor(layer.A, work.compute)
    losses = []
    with product_precision(work.compute):
        for rows in even_slices(m, work.block_rows(len(A), m)):
            block = targets.block(rows, len(A))
            offset = layer.target_offset
            if offset is not None:
                offset = rows_of(offset, slice(int(targets.start[rows.start]), int(targets.start[rows.stop])))
            scores = work.scores(rows.stop - rows.start, len(A))
            matmul(rows_of(h, rows), A.T, work.compute, out=scores).add_(layer.b)
            flat = scores.view(-1)
            if offset is not None:
                flat.index_add_(0, block.position, offset)
            block_loss, G = _loss_and_residual(scores, flat, block, work)
            losses.append(block_loss)
            accumulate = add or rows.start > 0
            transposed = G.T
            _add_weighted_rows(transposed, rows_of(weight, rows), work.compute, gradients.b, add=accumulate)
            matmul(transposed, rows_of(weighted_h, rows), work.compute, out=gradients.A, add=accumulate)
            if gradients.h is not None:
                matmul(G, A, work.compute, out=rows_of(gradients.h, rows))
    if gradients.h is not None:
        gradients.h.mul_(weight)
    return sum(losses[1:], start=losses[0])


def _add_weighted_rows(
    transposed: torch.Tensor, weight: torch.Tensor, compute: Compute, out: torch.Tensor, *, add: bool
) -> None:
    """Compute ``out = G^T weight``, or add it to ``out``."""
    if compute.device.type == "cpu":
        out.addmv_(transposed, weight[:, 0], beta=1.0 if add else 0.0)
    else:
        matmul(transposed, weight, compute, out=out[:, None], add=add)


def _loss_and_residual(
    scores: torch.Tensor, flat_scores: torch.Tensor, targets: FlatTargets, work: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """L of a block of rows, and G_nj / (w_n T_n) = theta_nj - Y_nj / T_n; overwrites the scores."""
    residual = work.residual(scores)
    if scores.device.type == "cpu":
        theta = torch.softmax(scores, dim=1, out=residual)
        target_theta = theta.view(-1).index_select(0, targets.position)
        loss = _loss(scores, theta, target_theta, targets)
    else:
        # As many operations on (m, V) arrays as with theta, and exact where theta underflows: the
        # exponential is taken while the residual is written in the format of the factors.
        torch.log_softmax(scores, dim=1, out=scores)
        target_log_theta = flat_scores.index_select(0, targets.position)
        loss = _loss_from_logarithms(target_log_theta, targets)
        torch.exp(scores, out=residual)
        target_theta = target_log_theta.exp_()
    residual.view(-1).index_copy_(0, targets.position, (target_theta - targets.share).to(residual.dtype))
    return loss, residual


def _loss_from_logarithms(target_log_theta: torch.Tensor, targets: FlatTargets) -> torch.Tensor:
    return (targets.count * target_log_theta).sum(dtype=torch.float64).neg_()


def _loss(
    scores: torch.Tensor, theta: torch.Tensor, target_theta: torch.Tensor, targets: FlatTargets
) -> torch.Tensor:
    """L of one block on a CPU, from theta at the targets, or from the scores if theta underflows there."""
    tiny = torch.finfo(theta.dtype).tiny
    if bool((target_theta > tiny).all()):
        return -(targets.count.double() @ target_theta.log().double())
    # The largest theta of a row is at least 1/V, so logsumexp from it and its score is exact, also where
    # other entries of theta underflow.
    logsumexp = scores.amax(dim=1) - theta.amax(dim=1).log()
    target_scores = scores.view(-1).index_select(0, targets.position)
    of_totals = (targets.total * logsumexp).sum(dtype=torch.float64)
    return of_totals - (targets.count * target_scores).sum(dtype=torch.float64)


def loss_and_scores(
    h: torch.Tensor, layer: SoftmaxLayer, targets: FlatTargets, work: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute L (float64 scalar tensor) of at most one block of rows, and their scores.

    The scores are a view of the workspace.
    """
    scores = work.scores(len(h), len(layer.A))
    with product_precision(work.compute):
        matmul(h, layer.A.T, work.compute, out=scores).add_(layer.b)
    if scores.device.type != "cpu":
        # The ranking needs the scores, so only their row sums are computed.
        logsumexp = torch.logsumexp(scores, dim=1)
        target_scores = scores.view(-1).index_select(0, targets.position)
        of_totals = (targets.total * logsumexp).sum(dtype=torch.float64)
        return of_totals - (targets.count * target_scores).sum(dtype=torch.float64), scores
    theta = torch.softmax(scores, dim=1, out=work.residual(scores))
    target_theta = theta.view(-1).index_select(0, targets.position)
    return _loss(scores, theta, target_theta, targets), scores

"""An approximate inverse Hessian of J in A, b and B~, word by word.

The Hessian of W J in (a_j, b_j), with h_n extended by a 1 for b_j and l2 acting on a_j only, is

    H_j = sum_n w_n T_n theta_nj (1 - theta_nj) h_n h_n^T + l2 I.

Where word j occurs, theta_nj is largest and depends most on the row. These rows enter as they are, the others
through their sum o_j of w_n T_n theta_nj (1 - theta_nj) and the covariance C = B~ B~^T of h:

    H_j ~ U_j^T U_j + o_j C + l2 I,    rows of U_j: sqrt(w_n T_n theta_nj (1 - theta_nj)) h_n, word j in n.

A word in more than r / 2 rows has this matrix inverted. The other words are most of the vocabulary; theirs
is diagonal, D_j = (o_j + l2) I, plus a matrix of the rank of U_j, so that with U~ = U D^-1/2

    H_j^-1 ~ D^-1/2 (I - U~^T (I + U~ U~^T)^-1 U~) D^-1/2    (Woodbury).

Both cost nnz(Y) r^2 operations at most. Words beyond MAX_BYTES, the most frequent ones first, have the
diagonal c_j + l2 with their count c_j. The Hessian in row k of B~ is about v_k I, where v_k is the variance
of A_jk over j.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import matmul, product_precision, slices
from flip_sklearn.backend.fit.data import CountDataset, Targets, WhitenedDataset
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters

MAX_BYTES = 2**30
# Rows whose latents are gathered at once.
GATHER_ROWS = 8192
# Smallest curvature in b from rows without the word, as a share of the word's count.
DAMPING = 1e-3


@dataclass(frozen=True)
class _LowRank:
    """Words with at most ``size`` rows."""

    words: torch.Tensor  # (m,)
    U: torch.Tensor  # (m, size, r + 1), first U_j, then U~_j; rows beyond those of the word are zero

    @property
    def inner(self) -> torch.Tensor:
        """I + U~ U~^T, (m, size, size)."""
        products = torch.bmm(self.U, self.U.mT)
        products.diagonal(dim1=1, dim2=2).add_(1.0)
        return products


class Preconditioner:
    """The approximate inverse Hessian of J at ``parameters``."""

    def __init__(self, data: WhitenedDataset, parameters: Parameters, l2: float, work: Workspace) -> None:
        A, B, _ = parameters
        rank = A.shape[1]
        self._low_rank, self._dense_words, self._dense = _allocate(data.dataset, A)
        counts = torch.from_numpy(data.dataset.word_counts()).to(A.device, A.dtype)
        others = _add_rows(data, parameters, work, self._low_rank, self._dense_words, self._dense)
        total_count = float(data.dataset.row_weight.sum())
        # D_j, for words with a diagonal only c_j + l2
        covered = torch.zeros(len(A), dtype=torch.bool, device=A.device)
        for group in self._low_rank:
            covered[group.words] = True
        curvature = torch.where(covered, others, counts)
        floor = (DAMPING * counts).clamp_min(DAMPING)
        self._root_A = (curvature + l2).clamp_min(floor).rsqrt_()
        self._root_b = curvature.clamp_min(floor).rsqrt_()
        self._inner = []
        for group in self._low_rank:
            group.U[:, :, :rank] *= self._root_A[group.words][:, None, None]
            group.U[:, :, rank] *= self._root_b[group.words][:, None]
            self._inner.append(torch.cholesky_inverse(torch.linalg.cholesky(group.inner)))
        self._invert_dense(others, floor, B, l2)
        self._total_count = total_count
        self._scale_B = None
        if B is not None:
            share = counts / total_count
            variance = share @ A.square() - (share @ A).square()
            self._scale_B = 1.0 / (variance + DAMPING * variance.mean()).clamp_min(DAMPING**2)[:, None]

    def _invert_dense(
        self, others: torch.Tensor, floor: torch.Tensor, B: torch.Tensor | None, l2: float
    ) -> None:
        rank = self._dense.shape[1] - 1
        covariance = torch.eye(rank + 1, dtype=others.dtype, device=others.device)
        if B is not None:
            covariance[:rank, :rank] = B @ B.T
        for block, word in zip(self._dense, self._dense_words, strict=True):
            block.add_(covariance * others[word])
            block.diagonal()[:rank].add_(l2)
            block.diagonal().add_(floor[word])
            torch.cholesky_inverse(torch.linalg.cholesky(block), out=block)

    def apply(self, A: torch.Tensor, b: torch.Tensor, B: torch.Tensor | None) -> None:
        """Multiply a gradient by the approximate inverse Hessian, in place."""
        dense = self._rows(A, b, self._dense_words)
        A.mul_(self._root_A[:, None])
        b.mul_(self._root_b)
        for group, inner in zip(self._low_rank, self._inner, strict=True):
            rows = self._rows(A, b, group.words)
            within = torch.bmm(inner, torch.bmm(group.U, rows))
            self._write(A, b, group.words, rows.baddbmm_(group.U.mT, within, alpha=-1))
        A.mul_(self._root_A[:, None])
        b.mul_(self._root_b)
        self._write(A, b, self._dense_words, torch.bmm(self._dense, dense))
        A.mul_(self._total_count)
        b.mul_(self._total_count)
        if B is not None and self._scale_B is not None:
            B.mul_(self._scale_B)

    @staticmethod
    def _rows(A: torch.Tensor, b: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The entries of words in A and b as columns, (m, r + 1, 1)."""
        return torch.cat([A.index_select(0, words), b.index_select(0, words)[:, None]], dim=1)[:, :, None]

    @staticmethod
    def _write(A: torch.Tensor, b: torch.Tensor, words: torch.Tensor, rows: torch.Tensor) -> None:
        A.index_copy_(0, words, rows[:, :-1, 0])
        b.index_copy_(0, words, rows[:, -1, 0])


def _allocate(dataset: CountDataset, A: torch.Tensor) -> tuple[list[_LowRank], torch.Tensor, torch.Tensor]:
    """Zero matrices for the words: those of low rank by their size, then the others."""
    rank = A.shape[1]
    n_rows = dataset.document_frequency()
    size = 2 ** np.ceil(np.log2(np.maximum(n_rows, 1))).astype(np.int64)
    is_dense = size > rank / 2
    elements = np.where(is_dense, (rank + 1) ** 2, size * (rank + 1 + 2 * size))
    rarest_first = np.argsort(n_rows, kind="stable")
    fits = np.cumsum(elements[rarest_first]) <= MAX_BYTES // A.element_size()
    is_covered = np.zeros(len(A), dtype=bool)
    is_covered[rarest_first[fits]] = True

    def tensor(words: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(words).to(A.device)

    groups = []
    for k in np.unique(size[is_covered & ~is_dense]).tolist():
        words = np.flatnonzero(is_covered & ~is_dense & (size == k))
        groups.append(_LowRank(tensor(words), A.new_zeros(len(words), k, rank + 1)))
    dense_words = np.flatnonzero(is_covered & is_dense)
    return groups, tensor(dense_words), A.new_zeros(len(dense_words), rank + 1, rank + 1)


def _add_rows(
    data: WhitenedDataset,
    parameters: Parameters,
    work: Workspace,
    low_rank: list[_LowRank],
    dense_words: torch.Tensor,
    dense: torch.Tensor,
) -> torch.Tensor:
    """Write U_j of ``low_rank``, add U_j^T U_j to ``dense``, and return o_j (V,)."""
    A, B, b = parameters
    dataset, device = data.dataset, A.device
    slot = _slots(dataset)
    member = np.full((2, len(b)), -1)  # group of each word, and place in it; the last group is ``dense``
    for i, words in enumerate([*(group.words for group in low_rank), dense_words]):
        member[:, words.cpu().numpy()] = np.stack([np.full(len(words), i), np.arange(len(words))])
    others = torch.zeros(len(b), dtype=torch.float64, device=device)
    for rows, latent, targets in data.blocks(GATHER_ROWS):
        h = latent if B is None else latent @ B.T
        weight, of_words = _curvature(h, A, b, targets, work)
        others += of_words
        others.index_add_(0, targets.col.to(device), weight.double(), alpha=-1)
        root, extended = weight.sqrt_(), torch.cat([h, h.new_ones(len(h), 1)], dim=1)
        group, place = member[:, targets.col.numpy()]
        slots = slot[dataset.entry_numbers(rows)]
        for i, matrices in enumerate(low_rank):
            entries = np.flatnonzero(group == i)
            entry = torch.from_numpy(entries)
            factor = extended.index_select(0, targets.row[entry].to(device))
            factor.mul_(root[entry.to(device)][:, None])
            index = torch.from_numpy(place[entries]).to(device), torch.from_numpy(slots[entries]).to(device)
            matrices.U.index_put_(index, factor)
        entries = np.flatnonzero(group == len(low_rank))
        entries = entries[np.argsort(place[entries], kind="stable")]
        edges = np.searchsorted(place[entries], np.arange(len(dense) + 1))
        for i in np.flatnonzero(np.diff(edges)).tolist():
            entry = torch.from_numpy(entries[edges[i] : edges[i + 1]])
            factor = extended.index_select(0, targets.row[entry].to(device))
            factor.mul_(root[entry.to(device)][:, None])
            dense[i].addmm_(factor.T, factor)
    dataset.group.sum_(*(words.U for words in low_rank), dense, others)
    return others.clamp_min_(0).to(A.dtype)


def _slots(dataset: CountDataset) -> np.ndarray:
    """For each stored count, its place among the counts of its word, in the order of the rows."""
    order = np.argsort(dataset.indices, kind="stable")
    first = np.cumsum(dataset.document_frequency()) - dataset.document_frequency()
    slot = np.empty(len(order), dtype=np.int64)
    slot[order] = np.arange(len(order)) - first[dataset.indices[order]]
    return slot


def _curvature(
    h: torch.Tensor, A: torch.Tensor, b: torch.Tensor, targets: Targets, work: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """w_n T_n theta_nj (1 - theta_nj): at the words of the rows (nnz,), and summed over all rows (V,)."""
    device = A.device
    at_targets = torch.zeros(len(targets.col), dtype=A.dtype, device=device)
    of_words = torch.zeros(len(b), dtype=torch.float64, device=device)
    row, column, total = (t.to(device) for t in (targets.row, targets.col, targets.total))
    for part in slices(len(h), work.block_rows(len(b), len(h))):
        scores = work.scores(part.stop - part.start, len(b))
        with product_precision(work.compute):
            matmul(h[part], A.T, work.compute, out=scores).add_(b)
        theta = torch.softmax(scores, dim=1, out=scores)
        entries = slice(int(targets.start[part.start]), int(targets.start[part.stop]))
        at_words = theta[row[entries] - part.start, column[entries]]
        at_targets[entries] = total[row[entries]] * at_words * (1 - at_words)
        of_words += (total[part] @ theta.sub_(theta.square())).double()
    return at_targets, of_words

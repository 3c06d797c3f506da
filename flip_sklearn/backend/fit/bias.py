"""The refit of the bias: b alone, so that every word is predicted as often as it occurs.

b has no penalty, so at an optimum of J in b

    p_j = sum_n w_n T_n theta_nj = sum_n w_n Y_nj = c_j    for every word j.

The averaged steps of training end far from this: b follows slowly, and its best value changes with A. For
given A and B~ the problem is convex. A change of b by d changes p to

    p_j(d) = u_j sum_n w_n T_n theta_nj / Z_n,    Z_n = sum_k theta_nk u_k,    u_j = exp(d_j),

and iterative proportional scaling, d_j <- d_j + log(c_j / p_j(d)), converges to the optimum (Darroch and
Ratcliff 1972, "Generalized iterative scaling for log-linear models"). Each step would be a pass over the
rows. Instead, one pass computes p and keeps the entries theta_nj > MIN_THETA, which are most of theta. What
is left of the rows and of the words enters the steps through its averages: Z_n with the mean of u over what
is left of the words, p_j with the mean of 1 / Z_n over what is left of the rows. After such a pass, p
differs from c by about a percent where it differed by half; small data get passes until it agrees.

With the sampled solver, rare words are sampled (``row_softmax.py``). They share one change of b.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from flip_sklearn.backend.device import slices
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit.data import WhitenedDataset, count_words
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.row_softmax import MIN_OCCURRENCES, RowSoftmax, SoftmaxBlock

MIN_THETA = 0.003
# At most about this many entries are kept, 12 bytes each, of blocks spaced evenly over the rows. A row of
# text has about thirty. With a part of the rows, the change of a rare word is known less well, and more
# passes are made.
MAX_ENTRIES = 2**22
CHUNK_ENTRIES = 2**18
# Largest |log(c_j / p_j)| that is left as it is.
TOLERANCE = 5e-3
MAX_STEPS, STEP_TOLERANCE, MAX_STEP = 30, 1e-5, 5.0
MAX_PASSES, MAX_PASSES_OF_A_PART = 10, 3


@dataclass(frozen=True)
class RefittedBias:
    """Parameters with the new b, and the loss per word on the training rows."""

    parameters: Parameters
    loss_before: float
    loss: float


def refit_bias(
    train: WhitenedDataset,
    held_out: WhitenedDataset | None,
    parameters: Parameters,
    work: Workspace,
    *,
    samples_rare_words: bool,
    is_small: bool,
) -> RefittedBias:
    """Refit b to the counts of the training and the held-out rows.

    One pass over the rows is made, or, if ``is_small``, passes until p agrees with c.
    """
    datasets = [train] if held_out is None else [train, held_out]
    counts = np.sum([data.dataset.word_counts() for data in datasets], axis=0)
    occurrences = None
    if samples_rare_words:
        occurrences = np.sum([count_words(d.dataset.counts, np.ones(len(d))) for d in datasets], axis=0)
    is_single = counts > 0 if occurrences is None else occurrences >= MIN_OCCURRENCES
    train_weight = float(train.dataset.row_weight.sum())
    A, B, b = parameters
    loss_before = loss = math.nan
    for number in range(MAX_PASSES):
        totals = _predict(RowSoftmax(train, Parameters(A, B, b), work, occurrences), datasets)
        loss = totals.train_loss / train_weight
        loss_before = loss if number == 0 else loss_before
        deviation = np.abs(_log_ratio(counts, totals.predicted)[is_single]).max(initial=0.0)
        if deviation <= TOLERANCE:
            break
        change, loss_change = totals.solve(counts, is_single)
        b = b + torch.from_numpy(change).to(b.device, b.dtype)
        loss += (loss_change - float(train.dataset.word_counts() @ change)) / train_weight
        if not is_small and number + 1 >= (MAX_PASSES_OF_A_PART if totals.is_part else 1):
            break
    return RefittedBias(Parameters(A, B, b), loss_before, loss)


def _log_ratio(counts: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """log(c_j / p_j), 0 for words without counts."""
    tiny = np.finfo(np.float64).tiny
    ratio: np.ndarray = np.where(counts > 0, np.log(counts.clip(tiny) / predicted.clip(tiny)), 0.0)
    return ratio


@dataclass(frozen=True)
class _Chunk:
    """The entries theta_nj > MIN_THETA of some rows."""

    row: np.ndarray  # (nnz,) int32, row of each entry in the chunk
    word: np.ndarray  # (nnz,) int32
    theta: np.ndarray  # (nnz,) float32
    weight: np.ndarray  # (m,), w_n T_n of the rows
    train_share: np.ndarray  # (m,), how often each row counts in the sum over the training rows

    @classmethod
    def join(cls, parts: list[_Chunk]) -> _Chunk:
        """The rows of several chunks in one."""
        first = np.cumsum([0, *(len(part.weight) for part in parts[:-1])]).astype(np.int32)
        row = np.concatenate([part.row + n for part, n in zip(parts, first, strict=True)])
        names = ("word", "theta", "weight", "train_share")
        return cls(row, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def sum_of_rows(self, u: np.ndarray) -> np.ndarray:
        """sum_j theta_nj u_j over the entries of each row."""
        return np.bincount(self.row, self.theta * u[self.word], len(self.weight))

    def sum_of_words(self, row_factor: np.ndarray, n_words: int) -> np.ndarray:
        """sum_n theta_nj f_n over the entries of each word."""
        return np.bincount(self.word, self.theta * row_factor[self.row], n_words)


@dataclass(frozen=True)
class _Totals:
    """p, and the entries of theta of rows of this process, from which p(d) is computed."""

    predicted: np.ndarray  # (V,), p
    train_loss: float  # sum over the training rows
    predicted_kept: np.ndarray  # (V,), the part of p of the rows whose entries are kept
    chunks: list[_Chunk]
    is_part: bool  # whether the entries are those of a part of the rows
    group: ProcessGroup
    device: torch.device

    def solve(self, counts: np.ndarray, is_single: np.ndarray) -> tuple[np.ndarray, float]:
        """The change d of b, and the change of sum_n w_n T_n log Z_n over the training rows.

        Words that are not ``is_single`` share one change.
        """
        n_words, tiny = len(counts), np.finfo(np.float64).tiny
        rest_of_row = [(1 - chunk.sum_of_rows(np.ones(n_words))).clip(0) for chunk in self.chunks]
        kept, total_rest = np.zeros(n_words), 0.0
        for chunk, rest in zip(self.chunks, rest_of_row, strict=True):
            kept += chunk.sum_of_words(chunk.weight, n_words)
            total_rest += float(chunk.weight @ rest)
        kept, total_rest = self._sum(kept, total_rest)
        rest_of_word = (self.predicted_kept - kept).clip(0)
        n_rest = max(rest_of_word.sum(), tiny)

        def normalizers(u: np.ndarray) -> list[np.ndarray]:
            mean_of_rest = rest_of_word @ u / n_rest
            pairs = zip(self.chunks, rest_of_row, strict=True)
            return [chunk.sum_of_rows(u) + rest * mean_of_rest for chunk, rest in pairs]

        d = np.zeros(n_words)
        for _ in range(MAX_STEPS):
            u = np.exp(d)
            now, squares, rest_now = np.zeros(n_words), np.zeros(n_words), 0.0
            for chunk, rest, Z in zip(self.chunks, rest_of_row, normalizers(u), strict=True):
                now += chunk.sum_of_words(chunk.weight / Z, n_words)
                scaled = (chunk.weight / Z**2)[chunk.row] * np.square(chunk.theta, dtype=np.float64)
                squares += np.bincount(chunk.word, scaled, n_words)
                rest_now += float((chunk.weight * rest) @ (1 / Z))
            now, squares, rest_now = self._sum(now, squares, rest_now)
            now = now + rest_of_word * (rest_now / max(total_rest, tiny))
            factor = np.where(self.predicted_kept > 0, now / self.predicted_kept.clip(tiny), 1.0)
            step = _log_ratio(counts, self.predicted * u * factor)
            # Raising b_j raises the Z_n of its own rows, too; half of this diagonal keeps the steps stable.
            step /= 1 - 0.5 * (u * squares / now.clip(tiny)).clip(0, 1)
            if not is_single.all():
                rare = ~is_single
                shared = (self.predicted * u * factor)[rare].sum()
                step[rare] = _log_ratio(counts[rare].sum(), shared)
            step = step.clip(-MAX_STEP, MAX_STEP)
            d += step
            if np.abs(step).max() <= STEP_TOLERANCE:
                break
        shares = (chunk.train_share * chunk.weight for chunk in self.chunks)
        logarithms = (np.log(Z) for Z in normalizers(np.exp(d)))
        (log_change,) = self._sum(sum(float(s @ z) for s, z in zip(shares, logarithms, strict=True)))
        return d, float(log_change)

    def _sum(self, *arrays: np.ndarray | float) -> list[Any]:
        """Sums over the processes."""
        if self.group.is_single_process:
            return list(arrays)
        tensors = [torch.from_numpy(np.array(array, dtype=np.float64)).to(self.device) for array in arrays]
        self.group.sum_(*tensors)
        return [tensor.cpu().numpy() for tensor in tensors]


def _predict(softmax: RowSoftmax, datasets: list[WhitenedDataset]) -> _Totals:
    """Make one pass over the rows of the datasets, the first of which is the training rows."""
    device, group = datasets[0].compute.device, datasets[0].group
    n_words = datasets[0].dataset.n_words
    predicted = torch.zeros(2, n_words, dtype=torch.float64, device=device)  # of all rows, of kept rows
    losses = torch.zeros(2, dtype=torch.float64, device=device)  # of the training and the held-out rows
    every = 0  # every how many blocks the entries are kept; not known before the first block
    chunks: list[_Chunk] = []
    parts: list[_Chunk] = []
    for i_data, data in enumerate(datasets):
        for number, block in enumerate(softmax.blocks(data)):
            if every == 0:
                n_entries = sum(len(part.row) for part in _entries(block, 0))
                n_blocks = sum(map(len, datasets)) / len(block.weight) / group.size
                every = max(1, math.ceil(n_entries * n_blocks / MAX_ENTRIES))
            is_kept = number % every == 0
            scaled = (block.weight / block.total)[:, None]
            totals = torch.mm(block.exponentials.T, scaled)[:, 0].double()
            for i in range(2 if is_kept else 1):
                if block.words is None:
                    predicted[i] += totals
                else:
                    predicted[i].index_add_(0, block.words, totals)
            losses[i_data] += block.loss
            if is_kept:
                parts += _entries(block, every if i_data == 0 else 0)
                if sum(len(part.row) for part in parts) >= CHUNK_ENTRIES:
                    chunks.append(_Chunk.join(parts))
                    parts = []
    if parts:
        chunks.append(_Chunk.join(parts))
    is_part = torch.tensor(float(every > 1), device=device)
    group.sum_(predicted, losses, is_part)
    everything, kept = predicted.cpu().numpy()
    return _Totals(everything, float(losses[0]), kept, chunks, bool(is_part > 0), group, device)


def _entries(block: SoftmaxBlock, train_share: int) -> list[_Chunk]:
    """The entries of a block that are kept, in chunks of few rows."""
    exponentials, total, words = block.exponentials, block.total[:, None], block.words
    chunks = []
    for rows in slices(len(exponentials), max(1, CHUNK_ENTRIES // exponentials.shape[1])):
        theta = exponentials[rows] / total[rows]
        row, column = (theta > MIN_THETA).nonzero().unbind(1)
        kept = theta[row, column]
        word = column if words is None else words[column]
        weight = block.weight[rows].double().cpu().numpy()
        entries = row.int().cpu().numpy(), word.int().cpu().numpy(), kept.float().cpu().numpy()
        chunks.append(_Chunk(*entries, weight, np.full(len(weight), float(train_share))))
    return chunks

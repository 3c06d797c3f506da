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

import numpy as np
import torch

from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit.data import WhitenedDataset, count_words
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.row_softmax import MIN_OCCURRENCES, RowSoftmax

MIN_THETA = 0.003
# The entries of at most about this many rows are kept, evenly spaced over all rows.
MAX_KEPT_ROWS = 2**16
# Largest |log(c_j / p_j)| that is left as it is.
TOLERANCE = 5e-3
MAX_STEPS, STEP_TOLERANCE, MAX_STEP = 30, 1e-5, 5.0
MAX_PASSES = 10


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
    for number in range(MAX_PASSES if is_small else 1):
        totals = _predict(RowSoftmax(train, Parameters(A, B, b), work, occurrences), datasets)
        loss = totals.train_loss / train_weight
        loss_before = loss if number == 0 else loss_before
        deviation = np.abs(_log_ratio(counts, totals.predicted)[is_single]).max(initial=0.0)
        if deviation <= TOLERANCE:
            break
        change, loss_change = totals.solve(counts, is_single)
        b = b + torch.from_numpy(change).to(b.device, b.dtype)
        loss += (loss_change - float(train.dataset.word_counts() @ change)) / train_weight
    return RefittedBias(Parameters(A, B, b), loss_before, loss)


def _log_ratio(counts: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """log(c_j / p_j), 0 for words without counts."""
    tiny = np.finfo(np.float64).tiny
    ratio: np.ndarray = np.where(counts > 0, np.log(counts.clip(tiny) / predicted.clip(tiny)), 0.0)
    return ratio


@dataclass(frozen=True)
class _Totals:
    """p, and of some rows of this process the entries of theta from which p(d) is computed."""

    predicted: np.ndarray  # (V,), p
    train_loss: float  # sum over the training rows
    predicted_kept: np.ndarray  # (V,), the part of p of the rows whose entries are kept
    row: np.ndarray  # (nnz,), row of each entry, from 0
    word: np.ndarray  # (nnz,)
    theta: np.ndarray  # (nnz,)
    weight: np.ndarray  # (m,), w_n T_n of the rows
    train_share: (
        np.ndarray
    )  # (m,), how often each row counts in the sum over all training rows, 0 if held out
    group: ProcessGroup
    device: torch.device

    def solve(self, counts: np.ndarray, is_single: np.ndarray) -> tuple[np.ndarray, float]:
        """The change d of b, and the change of sum_n w_n T_n log Z_n over the training rows.

        Words that are not ``is_single`` share one change.
        """
        n_rows, n_words, row, word = len(self.weight), len(counts), self.row, self.word
        weighted = self.weight[row] * self.theta
        rest_of_row = (1 - np.bincount(row, self.theta, n_rows)).clip(0)
        rest_of_rows = self.weight * rest_of_row
        kept, total_rest = self._sum(np.bincount(word, weighted, n_words), rest_of_rows.sum())
        rest_of_word = (self.predicted_kept - kept).clip(0)
        n_rest, tiny = max(rest_of_word.sum(), 1e-300), np.finfo(np.float64).tiny
        d, Z = np.zeros(n_words), np.ones(n_rows)
        for _ in range(MAX_STEPS):
            u = np.exp(d)
            Z = np.bincount(row, self.theta * u[word], n_rows) + rest_of_row * (rest_of_word @ u / n_rest)
            scaled = weighted / Z[row]
            kept_now, squares, rest_now = self._sum(
                np.bincount(word, scaled, n_words),
                np.bincount(word, scaled * self.theta / Z[row], n_words),
                (rest_of_rows / Z).sum(),
            )
            now = kept_now + rest_of_word * (rest_now / max(total_rest, tiny))
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
        u = np.exp(d)
        Z = np.bincount(row, self.theta * u[word], n_rows) + rest_of_row * (rest_of_word @ u / n_rest)
        (log_change,) = self._sum((self.train_share * self.weight * np.log(Z)).sum())
        return d, float(log_change)

    def _sum(self, *arrays: np.ndarray | float) -> list[np.ndarray]:
        """Sums over the processes."""
        if self.group.is_single_process:
            return [np.asarray(array) for array in arrays]
        tensors = [torch.from_numpy(np.array(array)).to(self.device) for array in arrays]
        self.group.sum_(*tensors)
        return [tensor.cpu().numpy() for tensor in tensors]


def _predict(softmax: RowSoftmax, datasets: list[WhitenedDataset]) -> _Totals:
    """Make one pass over the rows of the datasets, the first of which is the training rows."""
    device, group = datasets[0].compute.device, datasets[0].group
    n_words = datasets[0].dataset.n_words
    predicted = torch.zeros(2, n_words, dtype=torch.float64, device=device)  # of all rows, of kept rows
    losses = torch.zeros(2, dtype=torch.float64, device=device)
    # Every how many blocks the entries are kept.
    every = -(-sum(map(len, datasets)) // MAX_KEPT_ROWS)
    entries: list[torch.Tensor] = []
    weights, shares, n_kept = [], [], 0
    for part, data in enumerate(datasets):
        for number, block in enumerate(softmax.blocks(data)):
            is_kept = number % every == 0
            scaled = (block.weight / block.total)[:, None]
            totals = torch.mm(block.exponentials.T, scaled)[:, 0].double()
            for i in range(2 if is_kept else 1):
                if block.words is None:
                    predicted[i] += totals
                else:
                    predicted[i].index_add_(0, block.words, totals)
            losses[part] += block.loss
            if is_kept:
                row, column = (block.exponentials > MIN_THETA * block.total[:, None]).nonzero().unbind(1)
                theta = block.exponentials[row, column] / block.total[row]
                word = column if block.words is None else block.words[column]
                entries.append(torch.stack([(row + n_kept).double(), word.double(), theta.double()]).cpu())
                weights.append(block.weight.double().cpu())
                shares.append(np.full(len(block.weight), float(every if part == 0 else 0)))
                n_kept += len(block.weight)
    group.sum_(predicted, losses)
    row, word, theta = np.concatenate([np.zeros((3, 0)), *(part.numpy() for part in entries)], axis=1)
    everything, kept = predicted.cpu().numpy()
    return _Totals(
        predicted=everything,
        train_loss=float(losses[0]),
        predicted_kept=kept,
        row=row.astype(np.int64),
        word=word.astype(np.int64),
        theta=theta,
        weight=np.concatenate([np.zeros(0), *(part.numpy() for part in weights)]),
        train_share=np.concatenate([np.zeros(0), *shares]),
        group=group,
        device=device,
    )

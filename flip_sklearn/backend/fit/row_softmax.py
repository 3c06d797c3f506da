"""The softmax of given parameters over rows in order: loss and theta, without a step.

With the sampled solver, a softmax over all words would cost more than a step on the same rows. Words with few
occurrences are most of the words and little of the text, so only a random part of them is computed: the words
of the rows of the block, and every other rare word with a probability P_j. With respect to the draws,

    Z_n = sum_(j frequent or in the block) exp(z_nj) + sum_(j drawn) exp(z_nj) / P_j

is unbiased. Its relative error is small, because the rare words of a row itself are always computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from flip_sklearn.backend.device import matmul, product_precision, slices, upload
from flip_sklearn.backend.fit.data import WhitenedDataset
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters

# Words with this many occurrences are always computed.
MIN_OCCURRENCES = 10
# Probability that a rare word is drawn, for each of its occurrences.
RARE_PROBABILITY = 0.08
# Largest term of a drawn word relative to the computed sum.
MAX_DRAWN = 0.1
# Rows that share the drawn words: fewer rows average over more draws.
SAMPLED_BLOCK_ROWS = 512
# With few words, a block of scores could have so many rows that their embeddings take more memory.
MAX_BLOCK_ROWS = 2048
SEED = 0  # of the draws, which are the same in every pass and after a resumed fit


@dataclass(frozen=True)
class SoftmaxBlock:
    """exp(z) of some rows and words, up to a factor for each row.

    theta_nj is ``exponentials[n, j] / total[n]``. The next block overwrites the exponentials.
    """

    exponentials: torch.Tensor  # (m, C)
    total: torch.Tensor  # (m,), sum of each row
    weight: torch.Tensor  # (m,), w_n T_n
    words: torch.Tensor | None  # (C,) the words of the columns, on the device; None: all words
    loss: torch.Tensor  # sum of -w_n Y_nj log theta_nj, float64 scalar


class RowSoftmax:
    """Softmax of ``parameters`` over rows of datasets that share one whitening.

    ``occurrences`` (V,) say which words are frequent; None computes all words.
    """

    def __init__(
        self,
        data: WhitenedDataset,
        parameters: Parameters,
        work: Workspace,
        occurrences: np.ndarray | None = None,
    ) -> None:
        A, B, self._b = parameters
        self._A, self._work = A, work
        self._probability: np.ndarray | None = None
        self._mean = data.mean
        # Sums of theta need two digits, and the rounding errors of factors average out.
        self._product = work.compute
        if occurrences is not None and work.compute.dtype == torch.float32:
            self._product = replace(work.compute, product_dtype=torch.bfloat16)
        self._projection = data.Q if B is None else data.Q @ B.T
        self._generator = torch.Generator(device="cpu").manual_seed(SEED)
        if occurrences is not None:
            frequent = occurrences >= MIN_OCCURRENCES
            self._probability = np.where(frequent, 1.0, RARE_PROBABILITY * occurrences.clip(1))
            self._first = np.flatnonzero(frequent)
            self._column = np.zeros(len(A), dtype=np.int64)
            self._column[self._first] = np.arange(len(self._first))
            self._gathered = A.index_select(0, upload(torch.from_numpy(self._first), A.device))

    def blocks(self, data: WhitenedDataset, rows: np.ndarray | None = None) -> Iterator[SoftmaxBlock]:
        """Yield blocks of ``rows`` of the dataset, all rows if None, as far as this process computes them.

        Rows without words or weight are left out.
        """
        dataset = data.dataset
        rows = np.arange(len(dataset)) if rows is None else rows
        size = min(MAX_BLOCK_ROWS, self._work.block_rows(len(self._A), len(rows)))
        if self._probability is not None:
            size = min(SAMPLED_BLOCK_ROWS, max(1, len(rows)))
        for part in slices(len(rows), size):
            block = rows[part]
            block = block[dataset.row_weight[block] > 0]
            # Every process draws for every block, so that all draw the same.
            words = None
            if self._probability is not None:
                words = self._draw(self._probability, dataset.words(block).numpy())
            local_rows = dataset.group.local_rows(block)
            if len(local_rows):
                yield self._compute(data, local_rows, words)

    def _draw(self, probability: np.ndarray, words_of_rows: np.ndarray) -> np.ndarray:
        """The rare words of a block: those of its rows, then those that are drawn besides."""
        n, generator = len(probability), self._generator
        uniform = torch.rand(n, generator=generator, dtype=torch.float64, device="cpu").numpy()
        is_drawn = uniform < probability
        in_rows = np.zeros(len(probability), dtype=bool)
        in_rows[words_of_rows] = True
        in_rows[self._first] = is_drawn[self._first] = False
        rare = [np.flatnonzero(in_rows), np.flatnonzero(is_drawn & ~in_rows)]
        self._n_drawn = len(rare[1])
        self._log_probability = np.concatenate([np.zeros(len(rare[0])), np.log(probability[rare[1]])])
        return np.concatenate(rare)

    def _classes(self, rare: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Words, rows of A and offsets of the columns: the frequent words, then the rare ones."""
        n_first, device = len(self._first), self._A.device
        n = n_first + len(rare)
        self._column[rare] = np.arange(n_first, n)
        if len(self._gathered) < n:
            larger = self._A.new_empty(min(len(self._A), n * 5 // 4), self._A.shape[1])
            larger[:n_first] = self._gathered[:n_first]
            self._gathered = larger
        words = upload(torch.from_numpy(np.concatenate([self._first, rare])), device)
        torch.index_select(self._A, 0, words[n_first:], out=self._gathered[n_first:n])
        b = self._b.index_select(0, words)
        b[n_first:] -= upload(torch.from_numpy(self._log_probability).to(b.dtype), device)
        return words, self._gathered[:n], b

    def _compute(self, data: WhitenedDataset, rows: np.ndarray, rare: np.ndarray | None) -> SoftmaxBlock:
        compute = self._work.compute
        x, targets = data.dataset.batch(rows, compute)
        h = (x - self._mean) @ self._projection
        words, A, b = (None, self._A, self._b) if rare is None else self._classes(rare)
        if words is not None:
            columns = self._column[targets.col.numpy()]
            targets = replace(targets, col=torch.from_numpy(columns))
        flat = targets.flat(len(A)).to(compute.device)
        scores = self._work.scores(len(h), len(A))
        with product_precision(self._product):
            matmul(h, A.T, self._product, out=scores).add_(b)
        scores.sub_(scores.amax(dim=1, keepdim=True))
        target_scores = scores.view(-1).index_select(0, flat.position)
        scores.exp_()
        if rare is not None:
            computed, drawn = scores[:, : len(A) - self._n_drawn], scores[:, len(A) - self._n_drawn :]
            torch.minimum(drawn, MAX_DRAWN * computed.sum(dim=1, keepdim=True), out=drawn)
        total = scores.sum(dim=1)
        loss = (flat.total * total.log()).sum(dtype=torch.float64)
        loss -= (flat.count * target_scores).sum(dtype=torch.float64)
        return SoftmaxBlock(scores, total, flat.total, words, loss)


def mean_loss(softmax: RowSoftmax, data: WhitenedDataset, rows: np.ndarray) -> torch.Tensor:
    """Negative log-likelihood per word of some rows, a float64 scalar tensor; no process waits for it."""
    loss = torch.zeros((), dtype=torch.float64, device=data.compute.device)
    for block in softmax.blocks(data, rows):
        loss = loss + block.loss
    data.group.sum_(loss)
    return loss / float(data.dataset.row_weight[rows].sum())

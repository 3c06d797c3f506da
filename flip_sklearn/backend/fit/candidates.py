"""Sampled classes: a softmax over some of the words that estimates the softmax over all of them.

The sampled classes S of a batch of m rows are the words of the batch, and every other word j with probability
P_j = min(1, kappa p_j^ALPHA), drawn independently; p_j is its share of the counts, and kappa gives the wanted
number of drawn words. From the point of view of row n, a word j that is not in the row is in S if it is drawn
or if one of the other m - 1 rows has it, with probability

    pi_j = 1 - (1 - P_j) C(n - 1 - n_j, m - 1) / C(n - 1, m - 1),        n_j = rows with word j of all n

(a batch is m of the n rows, drawn without replacement). The words of the row itself are always in S. The
partition function of row n,

    Z_n = sum_(j in row n) exp(z_nj) + sum_(j not in row n) 1[j in S] exp(z_nj) / pi_j,

is therefore unbiased: it is a Horvitz-Thompson sum. In terms of scores, it uses z_nj - log pi_j for the words
of other rows and z_nj for the words of the row. The usual in-batch correction also divides the words of the
row by pi_j, which counts a rare word many times over in its own sentence; docs/solver.md has the effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from flip_sklearn.backend.fit.data import Targets

# Expected number of words drawn per batch in addition to its own: a minimum, and a share of V. At V = 12,000,
# 500, 1000, 2000 and 4000 gave the same loss and accuracy: the frequent words, which make up most of the
# partition function, are always drawn.
DRAWN_WORDS, DRAWN_SHARE = 500, 0.02
ALPHA = 0.75
# Sampling must at least halve the number of columns to be worth choosing, gathering and scattering them.
MAX_SAMPLED_SHARE = 0.5


@dataclass(frozen=True)
class SampledClasses:
    """The sampled classes of one batch, its targets, and the corrections of the scores."""

    words: torch.Tensor  # (S,) int64, ascending
    log_inclusion: torch.Tensor  # (S,), log pi_j
    targets: Targets  # ``col`` is an index into ``words``
    target_log_inclusion: torch.Tensor  # (nnz,), log pi_j of the targets


class ClassSampler:
    """Sampler of the classes of batches of ``batch_size`` rows.

    ``counts`` (V,) are weighted counts of the words, ``document_frequency`` (V,) the numbers of rows with
    each word, and ``n_drawn`` is the expected number of words drawn in addition to those of a batch.
    """

    def __init__(
        self,
        counts: np.ndarray,
        document_frequency: np.ndarray,
        n_rows: int,
        batch_size: int,
        n_drawn: float | None = None,
    ) -> None:
        if n_drawn is None:
            n_drawn = max(DRAWN_WORDS, DRAWN_SHARE * len(counts))
        probabilities = _draw_probabilities(counts, n_drawn)
        self._draw_probability = torch.from_numpy(probabilities)
        # The float32 numbers below P_j are those below P_j rounded up, and compare faster.
        rounded = probabilities.astype(np.float32)
        self._threshold = np.where(rounded < probabilities, np.nextafter(rounded, np.float32(2)), rounded)
        self._document_frequency = torch.from_numpy(document_frequency.astype(np.float64))
        self._n_rows = n_rows
        # By the number of rows in a batch: the last batch of a pass may have fewer.
        self._log_inclusion: dict[int, torch.Tensor] = {}
        absent = _absence_probability(n_rows, self._document_frequency, min(batch_size, n_rows))
        self.expected = float((1.0 - (1.0 - self._draw_probability) * absent).sum())

    def is_cheaper(self) -> bool:
        """Return whether a step on sampled classes is clearly cheaper than one on the whole vocabulary."""
        return self.expected <= MAX_SAMPLED_SHARE * len(self._draw_probability)

    def log_inclusion(self, m: int) -> torch.Tensor:
        """Return log pi_j (V,), float64, for a batch of m rows."""
        if m not in self._log_inclusion:
            absent = _absence_probability(self._n_rows - 1, self._document_frequency, m - 1)
            self._log_inclusion[m] = torch.log1p(-(1.0 - self._draw_probability) * absent)
        return self._log_inclusion[m]

    def draw(
        self, m: int, batch_words: torch.Tensor, targets: Targets, generator: torch.Generator
    ) -> SampledClasses:
        """Draw the classes of a batch of m rows.

        m and ``batch_words`` (with repetitions) describe the batch over all processes of a group, ``targets``
        the rows of this process. Classes are drawn on the CPU, so that every device and every process draws
        the same.
        """
        n_words = len(self._threshold)
        uniform = torch.rand(n_words, generator=generator, dtype=torch.float32, device="cpu").numpy()
        is_class = uniform < self._threshold
        is_class[batch_words.numpy()] = True
        words, target_words = np.flatnonzero(is_class), targets.col.numpy()
        column = np.empty(n_words, dtype=np.int64)
        column[words] = np.arange(len(words))
        log_inclusion, dtype = self.log_inclusion(m).numpy(), targets.count.numpy().dtype
        return SampledClasses(
            words=torch.from_numpy(words),
            log_inclusion=torch.from_numpy(log_inclusion[words].astype(dtype)),
            targets=replace(targets, col=torch.from_numpy(column[target_words])),
            target_log_inclusion=torch.from_numpy(log_inclusion[target_words].astype(dtype)),
        )


def _absence_probability(n: int, document_frequency: torch.Tensor, m: int) -> torch.Tensor:
    """Probability that m of n rows, drawn without replacement, lack a word: C(n - n_j, m) / C(n, m)."""
    without = n - document_frequency
    not_drawn = without - m

    def log_factorial(x: torch.Tensor | int) -> torch.Tensor:
        return torch.lgamma(torch.as_tensor(x, dtype=torch.float64, device="cpu").clamp_min(0) + 1)

    logarithm = log_factorial(without) - log_factorial(not_drawn)
    logarithm += log_factorial(n - m) - log_factorial(n)
    return torch.where(not_drawn < 0, 0.0, logarithm.clamp_max(0.0).exp())


def _draw_probabilities(counts: np.ndarray, n_drawn: float) -> np.ndarray:
    """P_j = min(1, kappa p_j^ALPHA) with sum P_j = n_drawn; all ones if n_drawn >= V.

    If the i most frequent words have P_j = 1, then kappa = (n_drawn - i) / (sum of p_j^ALPHA of the others).
    The right i is the first for which the next word's probability is at most 1.
    """
    mass = np.maximum(counts, 0.5 * counts[counts > 0].min()) ** ALPHA
    if n_drawn >= len(mass):
        return np.ones(len(mass))
    falling = np.sort(mass)[::-1]
    rest = falling[::-1].cumsum()[::-1]  # rest[i] = sum of all but the i largest
    i = np.arange(len(mass))
    valid = (n_drawn - i > 0) & (falling * (n_drawn - i) <= rest)
    first = int(np.argmax(valid))
    probabilities: np.ndarray = np.minimum(1.0, mass * ((n_drawn - first) / rest[first]))
    return probabilities

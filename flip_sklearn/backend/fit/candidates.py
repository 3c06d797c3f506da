"""Candidates: the softmax over some words that estimates the softmax over all of them.

For a batch of rows the candidates are S = the words of the batch, and every other word j with probability
P_j = min(1, kappa p_j^ALPHA), drawn independently; p_j is its share of the counts and kappa gives the
wanted number. Seen from row n, a word j that is not its own is a candidate when it is drawn or when
one of the other m - 1 rows has it:

    pi_j = 1 - (1 - P_j) C(n - 1 - n_j, m - 1) / C(n - 1, m - 1),        n_j = rows with word j of all n,

(a batch is m of the n rows, drawn without replacement), while its own words are candidates always. The
partition function of row n,

    Z_n = sum_(j own) exp(z_nj) + sum_(j not own) 1[j in S] exp(z_nj) / pi_j,

is therefore without bias: a Horvitz-Thompson sum. In scores: z_nj - log pi_j for words of others, z_nj for
own ones. The usual in-batch correction divides own words by pi_j too, which counts a rare word in its own
sentence many times over; that was the last point of difference to the exact softmax.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from flip_sklearn.backend.fit.data import Targets

# Words drawn per batch beside the batch's own. 500, 1000, 2000 and 4000 gave the same loss and accuracy
# at V = 12,000: the frequent words carry most of the partition function and are always drawn.
DRAWN_WORDS, DRAWN_SHARE = 500, 0.02
ALPHA = 0.75
# Sampling must at least halve the number of columns to pay for choosing, gathering and scattering them.
CHEAPER_SHARE = 0.5


@dataclass(frozen=True)
class Candidates:
    """The candidates of one batch, the batch's targets as columns among them, and the corrections."""

    words: torch.Tensor  # (S,) int64, ascending
    log_inclusion: torch.Tensor  # (S,), log pi_j
    targets: Targets  # ``col`` counts candidates
    own_log_inclusion: torch.Tensor  # (nnz,), log pi_j of the rows' own words


class CandidateSampler:
    """Draws candidates for batches of ``batch_size`` rows.

    Parameters
    ----------
    counts : (V,) weighted counts of the words, >= 0
    document_frequency : (V,) number of rows that have the word, of all ``n_rows``
    drawn : expected number of words drawn beside those of the batch
    """

    def __init__(
        self,
        counts: np.ndarray,
        document_frequency: np.ndarray,
        n_rows: int,
        batch_size: int,
        drawn: float | None = None,
    ) -> None:
        if drawn is None:
            drawn = max(DRAWN_WORDS, DRAWN_SHARE * len(counts))
        self._drawn = torch.from_numpy(_inclusion(counts, drawn))
        self._document_frequency, self._n_rows = (
            torch.from_numpy(document_frequency.astype(np.float64)),
            n_rows,
        )
        # By the rows of a batch: the last batch of a pass may have fewer.
        self._log_inclusion: dict[int, torch.Tensor] = {}
        in_no_row = _absent(n_rows, self._document_frequency, min(batch_size, n_rows))
        self.expected = float((1.0 - (1.0 - self._drawn) * in_no_row).sum())

    def is_cheaper(self) -> bool:
        """Whether a step on candidates is clearly cheaper than one on the whole vocabulary."""
        return self.expected <= CHEAPER_SHARE * len(self._drawn)

    def log_inclusion(self, m: int) -> torch.Tensor:
        """log pi_j (V,), float64, in a batch of m rows."""
        if m not in self._log_inclusion:
            in_no_other = _absent(self._n_rows - 1, self._document_frequency, m - 1)
            self._log_inclusion[m] = torch.log1p(-(1.0 - self._drawn) * in_no_other)
        return self._log_inclusion[m]

    def draw(
        self, m: int, of_batch: torch.Tensor, targets: Targets, generator: torch.Generator
    ) -> Candidates:
        """Candidates of a batch of m rows with the words ``of_batch`` (on the host), for ``targets``.

        Drawn on the CPU, so that every device and every process of a group draws the same.
        """
        device = targets.col.device
        own = of_batch if of_batch is targets.col else targets.col.cpu()
        draws = torch.rand(len(self._drawn), generator=generator, device="cpu")
        chosen = draws < self._drawn
        chosen[of_batch] = True
        words = chosen.nonzero().squeeze(1)
        position = torch.cumsum(chosen, 0).sub_(1)
        log_inclusion = self.log_inclusion(m).to(targets.count.dtype)
        return Candidates(
            words.to(device),
            log_inclusion.index_select(0, words).to(device),
            replace(targets, col=position.index_select(0, own).to(device)),
            log_inclusion.index_select(0, own).to(device),
        )


def _absent(n: int, document_frequency: torch.Tensor, m: int) -> torch.Tensor:
    """Chance that m of n rows, drawn without replacement, lack a word: C(n - n_j, m) / C(n, m)."""
    without = n - document_frequency
    left = without - m

    def log_factorial(x: torch.Tensor | int) -> torch.Tensor:
        return torch.lgamma(torch.as_tensor(x, dtype=torch.float64, device="cpu").clamp_min(0) + 1)

    logarithm = log_factorial(without) - log_factorial(left)
    logarithm += log_factorial(n - m) - log_factorial(n)
    return torch.where(left < 0, 0.0, logarithm.clamp_max(0.0).exp())


def _inclusion(counts: np.ndarray, drawn: float) -> np.ndarray:
    """P_j = min(1, kappa p_j^ALPHA) with sum P_j = drawn (all ones if drawn >= V), by its sorted order.

    With the i largest at 1, kappa = (drawn - i) / (sum of the others); the right i is the first
    for which the next word's probability is at most 1.
    """
    mass = np.maximum(counts, 0.5 * counts[counts > 0].min()) ** ALPHA
    if drawn >= len(mass):
        return np.ones(len(mass))
    falling = np.sort(mass)[::-1]
    rest = falling[::-1].cumsum()[::-1]  # rest[i] = sum of all but the i largest
    i = np.arange(len(mass))
    fits = (drawn - i > 0) & (falling * (drawn - i) <= rest)
    first = int(np.argmax(fits))
    inclusion: np.ndarray = np.minimum(1.0, mass * ((drawn - first) / rest[first]))
    return inclusion

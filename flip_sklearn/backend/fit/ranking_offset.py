"""The ranking offset: a small score by the frequency of a word, learned on held-out rows.

The bias of the best likelihood is not the one of the best ranking: the rows of A of rare words are shrunk
most, so that on rows that training has not seen their scores are too low. For ranking, the score of word j is
raised by

    o_j = share (-b_j) + rarity RARE_COUNT / (count_j + RARE_COUNT),

with b_j = log theta_j at the mean embedding; the first term ranks by a smaller multiple of the bias.
``share`` and ``rarity`` are chosen on a small grid by the keyword accuracy on the held-out rows. They are
zero unless the gain over zero exceeds MIN_GAIN standard errors, so that few held-out rows, or a gain by
chance, change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import matmul, slices, to_device, upload
from flip_sklearn.backend.fit.data import WhitenedDataset
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.ranking import largest

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2)
RARITIES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
RARE_COUNT = 10.0
# Standard errors of the gain.
MIN_GAIN = 2.0
MIN_ROWS, MAX_ROWS = 30, 2000
# The words of a row that are ranked again: those that are best with an offset in the middle of the grid, at
# least this many, and this many times the largest number of words of a row.
MIN_CANDIDATES, CANDIDATES_PER_WORD = 100, 3
MIDDLE = (0.1, 1.5)

Pair = tuple[float, float]  # share, rarity


def fit_ranking_offset(
    held_out: WhitenedDataset, parameters: Parameters, occurrences: np.ndarray, work: Workspace
) -> torch.Tensor:
    """The offset (V,) of the best pair of the grid; ``occurrences`` (V,) are those in the training rows."""
    dataset, compute = held_out.dataset, held_out.compute
    A, B, b = parameters
    log_prior = torch.log_softmax(b, dim=0)
    rarity = to_device(RARE_COUNT / (occurrences + RARE_COUNT), compute)
    rows = np.flatnonzero(dataset.row_weight > 0)
    if len(rows) < MIN_ROWS:
        return torch.zeros_like(b)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(np.int64))]
    longest = int((dataset.indptr[rows + 1] - dataset.indptr[rows]).max())
    n_candidates = min(len(A), max(MIN_CANDIDATES, CANDIDATES_PER_WORD * longest))
    middle = MIDDLE[1] * rarity - MIDDLE[0] * log_prior
    candidates = []
    for part in slices(len(rows), work.block_rows(len(A), len(rows))):
        block = dataset.group.local_rows(rows[part])
        if not len(block):
            continue
        latent, targets = held_out.batch(block)
        scores = work.scores(len(latent), len(A))
        matmul(latent if B is None else latent @ B.T, A.T, compute, out=scores).add_(b + middle)
        _, words = largest(scores, n_candidates)
        is_target = torch.zeros_like(scores, dtype=torch.bool)
        is_target.view(-1)[targets.flat(len(A)).to(compute.device).position] = True
        n_targets = upload(torch.from_numpy(np.diff(targets.start)), compute.device)[:, None]
        candidates.append(
            _Candidates(
                scores.gather(1, words) - middle[words],
                -log_prior[words],
                rarity[words],
                is_target.gather(1, words),
                torch.arange(longest, device=compute.device) < n_targets,
                upload(torch.from_numpy(dataset.weights[block]), compute.device),
            )
        )

    def gains(pairs: list[Pair]) -> np.ndarray:
        return _gain_bounds(candidates, pairs, held_out)

    # One coordinate at a time, then the neighbours of the best pair in the first one.
    pairs = [(0.0, rarity_) for rarity_ in RARITIES]
    best_rarity = pairs[int(gains(pairs).argmax())][1]
    pairs = [(share, best_rarity) for share in SHARES]
    best_share = pairs[int(gains(pairs).argmax())][0]
    pairs = [(best_share, rarity_) for rarity_ in RARITIES]
    bounds = gains(pairs)
    share, rarity_ = pairs[int(bounds.argmax())]
    if bounds.max() <= 0:
        return torch.zeros_like(b)
    return rarity_ * rarity - share * log_prior


@dataclass(frozen=True)
class _Candidates:
    """The candidates of some rows of this process, (m, K)."""

    scores: torch.Tensor  # z
    prior: torch.Tensor  # -b_j
    rarity: torch.Tensor
    is_target: torch.Tensor  # whether the row has the word
    in_top: torch.Tensor  # (m, longest), whether a rank is within the number of words of the row
    weight: torch.Tensor  # (m,)

    def accuracy(self, pair: Pair) -> torch.Tensor:
        """Share of the words of each row that are among its best words, as many as it has, float64 (m,)."""
        scores = self.scores + pair[0] * self.prior + pair[1] * self.rarity
        order = scores.topk(self.in_top.shape[1], dim=1).indices
        hits = (self.is_target.gather(1, order) & self.in_top).sum(dim=1)
        return hits.double() / self.in_top.sum(dim=1)


def _gain_bounds(candidates: list[_Candidates], pairs: list[Pair], held_out: WhitenedDataset) -> np.ndarray:
    """Lower bounds of the gain in accuracy of each pair over no offset, the same on all processes."""
    # Sums over the rows: of w and w^2, then of w g, w^2 g and w^2 g^2 of the gains g of each pair.
    sums = torch.zeros(3, 1 + len(pairs), dtype=torch.float64, device=held_out.compute.device)
    for rows in candidates:
        w, base = rows.weight, rows.accuracy((0.0, 0.0))
        sums[:2, 0] += torch.stack([w.sum(), w.square().sum()])
        g = torch.stack([rows.accuracy(pair) for pair in pairs]) - base
        sums[:, 1:] += torch.stack([g @ w, g @ w.square(), g.square() @ w.square()])
    held_out.group.sum_(sums)
    total = sums.cpu().numpy()
    (weight, squared_weight), (first, second, third) = total[:2, 0], total[:, 1:]
    gain = first / weight
    variance = (third - 2 * gain * second + gain**2 * squared_weight) / weight**2
    bounds: np.ndarray = gain - MIN_GAIN * np.sqrt(variance.clip(0))
    return bounds

"""The rows in which given words are likeliest to occur: scores of rows, and the best k of a stream.

With p_j the probability that word j occurs in the text of a row, independent of the other words given the
row, the score of a row is

    log P = sum_{j in include} log p_j + sum_{j in exclude} log(1 - p_j)

if all words are to occur; if any is to, the first sum is log(1 - prod_{j in include} (1 - p_j)). Only the
log-odds of these words are computed, from the log-normalizer of all words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import Embeddings, without_autocast
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.scoring.presence import LogOdds, PresenceParameters, scored_rows
from flip_sklearn.backend.scoring.scorer import Scorer

# Rows that may be better than the best ones are collected until they are at least this many.
MIN_COLLECTED = 4096


@dataclass(frozen=True)
class Query:
    """Columns of the words that are to occur, all or any of them, and of those that are not."""

    include: np.ndarray
    exclude: np.ndarray
    match_all: bool


class PresenceSearch:
    """log P of rows, float64."""

    def __init__(self, scorer: Scorer, parameters: PresenceParameters, query: Query) -> None:
        self._scorer, self._query, self._length = scorer, query, parameters.length
        words = np.concatenate([query.include, query.exclude])
        self._log_odds = LogOdds(parameters, scorer.compute, words)

    @torch.inference_mode()
    @without_autocast()
    def __call__(self, X: Embeddings) -> np.ndarray:
        """Compute log P (n,) block by block."""
        blocks = []
        for rows in scored_rows(self._scorer, X, self._length):
            log_odds = self._log_odds(rows).double()
            blocks.append(log_probability(log_odds, len(self._query.include), self._query.match_all))
        return torch.cat(blocks).cpu().numpy()


def log_probability(log_odds: torch.Tensor, n_include: int, match_all: bool) -> torch.Tensor:
    """Compute log P (m,) from the log-odds of the included and the excluded words, in this order."""
    present = torch.nn.functional.logsigmoid(log_odds[:, :n_include])
    absent = torch.nn.functional.logsigmoid(-log_odds)
    if match_all:
        included = present.sum(dim=1)
    else:
        # Word j is the first of the included words that occurs: disjoint events, so that nothing underflows.
        none_before = absent[:, :n_include].cumsum(dim=1) - absent[:, :n_include]
        included = torch.logsumexp(present + none_before, dim=1)
    return included + absent[:, n_include:].sum(dim=1)


class BestRows:
    """The k rows with the largest scores, best first; equal scores rank the earlier row first.

    Scores come in blocks, in the order of the rows. Memory is a few times k numbers.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._rows = [np.empty(0, dtype=np.int64)]
        self._scores = [np.empty(0)]
        self._n_collected = 0
        self._kth = -np.inf  # the k-th best score, once there is one

    def add(self, first_row: int, scores: np.ndarray) -> None:
        """Add the scores of the rows from ``first_row`` on."""
        better = np.flatnonzero(scores > self._kth) if self._is_full else np.arange(len(scores))
        self._rows.append(first_row + better)
        self._scores.append(scores[better])
        self._n_collected += len(better)
        if self._n_collected > max(self._k, MIN_COLLECTED):
            self._reduce()

    @property
    def _is_full(self) -> bool:
        return len(self._scores[0]) == self._k

    def _reduce(self) -> None:
        """Keep the best k of the collected rows."""
        rows, scores = np.concatenate(self._rows), np.concatenate(self._scores)
        order = np.lexsort([rows, -scores])[: self._k]
        self._rows, self._scores, self._n_collected = [rows[order]], [scores[order]], 0
        if self._is_full:
            self._kth = float(self._scores[0][-1])

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Return row numbers and scores."""
        self._reduce()
        return self._rows[0], self._scores[0]

    def merge(self, group: ProcessGroup, device: torch.device) -> None:
        """Replace the rows by the best k of those of all processes."""
        if group.is_single_process:
            return
        rows, scores = (torch.from_numpy(values).to(device) for values in self.best())
        sizes = [int(size) for size in group.gather(torch.tensor([len(rows)], device=device))]
        rows, scores = (torch.nn.functional.pad(v, (0, max(sizes) - len(v))) for v in (rows, scores))
        for name, values in (("_rows", rows), ("_scores", scores)):
            parts = zip(group.gather(values), sizes, strict=True)
            setattr(self, name, [part[:size].cpu().numpy() for part, size in parts])
        self._reduce()

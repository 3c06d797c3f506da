"""Scoring and top-k, fused block by block: no (n, V) array exists at any time.

Scores z = offset + A B (x - mean), where the offset is b with bias and 0 without. X is read in chunks
of rows; each chunk is projected once, h = B (x - mean), and ranked in blocks of rows.

Memory next to the result, on a CPU: A in the format of the arithmetic, 2 d + r numbers for each of the
4,096 rows of a chunk, and a little over max(2^24, 128 V) scores. None of it grows with n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, as_shared_tensor, bfloat16_is_fast
from flip_sklearn.backend.ranking import by_blocks, by_size, hits_of, row_entries, top_k
from flip_sklearn.backend.scoring.bfloat16 import Shortlist
from flip_sklearn.backend.scoring.products import DenseWords, WordsToRank, all_words, words_to_rank

# Rows of X in work at one time: their float32 copies are what reading X costs in memory.
CHUNK_ROWS = {"cpu": 4096, "cuda": 2**16}

# Preparation that reads all of A (zeros to leave out, a bfloat16 copy) is repaid by so many rows.
MANY_ROWS = 2048

AfterRows = Callable[[int], object]


@dataclass(frozen=True)
class Scorer:
    """Fitted factors, ready to score raw embeddings.

    Equal scores rank the lower word first. Scores are the same to rounding, whatever the number of
    rows of a call: the product's order of summation may depend on it.
    """

    A: Any  # (V, r), ndarray or csr_array
    B: np.ndarray  # (r, d)
    offset: np.ndarray  # (V,)
    mean: np.ndarray  # (d,)
    compute: Compute
    unseen: np.ndarray  # (V,) bool: never extracted, and below all others among dense scores
    _last: dict[tuple[int, bool], _Ranking] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_arrays(
        cls,
        A: Any,
        B: np.ndarray,
        offset: np.ndarray,
        mean: np.ndarray,
        compute: Compute,
        unseen: np.ndarray | None = None,
    ) -> Scorer:
        """``unseen`` are the columns of the words that training did not see."""
        mask = np.zeros(A.shape[0], dtype=bool)
        if unseen is not None:
            mask[unseen] = True
        return cls(A, B, offset, mean, compute, mask)

    def top(
        self,
        X: np.ndarray,
        k: int,
        *,
        probabilities: bool = False,
        after_block: AfterRows | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best words per row, best first: indices (n, k) and their scores, or theta."""
        indices = np.empty((X.shape[0], k), dtype=np.int64)
        values = np.empty((X.shape[0], k), dtype=self._dtype)
        first = 0
        for words, scores in self.top_blocks(X, k, probabilities=probabilities):
            last = first + len(words)
            indices[first:last], values[first:last] = words, scores
            if after_block is not None:
                after_block(len(words))
            first = last
        return indices, values

    @torch.inference_mode()  # for each step alone: a caller that stops half-way is left as it was
    def top_blocks(
        self, X: np.ndarray, k: int, *, probabilities: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What ``top`` gives, for consecutive blocks of rows."""
        ranking = self._ranking(k, X.shape[0])
        for h in self._latents(X, ranking.latents):
            for first, last in _even(len(h), ranking.rows):
                values, words = ranking.top(h[first:last], k, probabilities)
                yield words.cpu().numpy(), values.cpu().numpy()

    @torch.inference_mode()
    def hits(
        self,
        X: np.ndarray,
        indptr: np.ndarray,
        indices: np.ndarray,
        *,
        after_block: AfterRows | None = None,
    ) -> np.ndarray:
        """Per row: how many of its k best words are in the row, k = its number of words.

        The words of row i are ``indices[indptr[i]:indptr[i + 1]]``. No row waits for a longer one: rows
        are ranked with those of about the same k.
        """
        k = np.diff(indptr)
        most = min(int(k.max(initial=0)), int((~self.unseen).sum()))
        hits = np.zeros(len(k), dtype=np.int64)
        if most == 0:
            return hits
        ranking = self._ranking(most, X.shape[0])
        at = 0
        for h in self._latents(X, ranking.latents):
            rows = np.arange(at, at + len(h))
            at += len(h)
            for group in by_size(k[rows]):
                for first, last in _even(len(group), ranking.rows):
                    mine = rows[group[first:last]]
                    widest = min(int(k[mine].max()), most)
                    local = torch.from_numpy(group[first:last]).to(h.device)
                    _, words = ranking.top(h.index_select(0, local), widest, False)
                    start, entries = row_entries(indptr, mine)
                    hits[mine] = hits_of(words.cpu().numpy(), k[mine], start, indices[entries])
            if after_block is not None:
                after_block(len(h))
        return hits

    @torch.inference_mode()
    def dense(self, X: np.ndarray, transform: str) -> np.ndarray:
        """All scores (n, V), or their "softmax" or "log_softmax". The caller has checked the size."""
        n, n_words = X.shape[0], self.A.shape[0]
        out = np.empty((n, n_words), dtype=self._dtype)
        words = all_words(self.A, self.offset, self.compute)
        lowest_offset = float(self.offset.min(initial=math.inf))
        at = 0
        unseen = torch.from_numpy(np.flatnonzero(self.unseen)).to(self.compute.device)
        for h in self._latents(X, None):
            for first, last in _even(len(h), words.rows):
                scores = words.scores(h[first:last], maxima=False)[0][:, :n_words]
                if len(unseen):
                    # Far from the data seen words fall below any fixed score: stay under them.
                    lowest = scores.amin(dim=1, keepdim=True)
                    under = torch.where(lowest < lowest_offset, 1.01 * lowest, lowest_offset)
                    scores[:, unseen] = under
                if transform == "softmax":
                    scores = torch.softmax(scores, dim=1)
                elif transform == "log_softmax":
                    scores = torch.log_softmax(scores, dim=1)
                out[at + first : at + last] = scores.cpu().numpy()
            at += len(h)
        return out

    def _ranking(self, k: int, n_rows: int) -> _Ranking:
        """For k words of n_rows rows; the last one is kept for calls batch by batch."""
        key = k, n_rows >= MANY_ROWS
        ranking = self._last.get(key)
        if ranking is None:
            ranking = _Ranking(self, *key)
            self._last.clear()
            self._last[key] = ranking
        return ranking

    def _latents(self, X: np.ndarray, used: np.ndarray | None) -> Iterator[torch.Tensor]:
        """h = B (x - mean) for consecutive chunks of rows; B reduced to the latents in use."""
        mean = self._place(self.mean)
        B = self._place(self.B if used is None else self.B[used])
        size = CHUNK_ROWS[self.compute.device.type]
        for first in range(0, X.shape[0], size):
            x = as_shared_tensor(X[first : first + size])
            x = x.to(self.compute.device, self.compute.dtype)
            yield (x - mean) @ B.T

    def _place(self, array: np.ndarray) -> torch.Tensor:
        return as_shared_tensor(array).to(self.compute.device, self.compute.dtype)

    @property
    def _dtype(self) -> type[np.floating]:
        return np.float64 if self.compute.dtype == torch.float64 else np.float32


class _Ranking:
    """The k best words of blocks of latent rows: in bfloat16 first where that is fast."""

    def __init__(self, scorer: Scorer, k: int, many_rows: bool) -> None:
        compute = scorer.compute
        self._to_rank: WordsToRank = words_to_rank(
            scorer.A, scorer.offset, scorer.unseen, k, compute, look_for_zeros=many_rows
        )
        self._words = self._to_rank.words
        self._shortlist = None
        fast = compute.product_dtype == torch.bfloat16 and bfloat16_is_fast(compute.device)
        if fast and many_rows and isinstance(self._words, DenseWords):
            self._shortlist = Shortlist(self._words, compute)
        self._n_words = self._words.A.shape[0]
        self.latents, self.rows = self._to_rank.latents, self._words.rows

    def top(
        self, h: torch.Tensor, k: int, probabilities: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores, or theta, and words (m, k), best first."""
        if self._shortlist is not None and self._shortlist.is_cheaper(k) and not probabilities:
            values, columns = self._shortlist.top(h, k)
        else:
            scores, maxima = self._words.scores(h, maxima=by_blocks(k + 1, self._n_words))
            values, columns = top_k(scores, k, maxima)
            if probabilities:
                values = self._theta(scores, values)
        if self._to_rank.columns is not None:
            columns = self._to_rank.columns[columns]
        return values, columns

    def _theta(self, scores: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
        """exp(best - logsumexp(scores)); overwrites the scores, whose memory is warm."""
        highest = best[:, :1]
        total = scores.sub_(highest).exp_().sum(dim=1, keepdim=True)
        if self._to_rank.rest > -math.inf:
            total += (self._to_rank.rest - highest).exp()
        return (best - highest).exp() / total


def _even(n: int, at_most: int) -> Iterator[tuple[int, int]]:
    """Cut n rows into parts of nearly equal size: a small last one would waste the product."""
    step = math.ceil(n / max(1, math.ceil(n / at_most)))
    return ((first, min(first + step, n)) for first in range(0, n, max(1, step)))

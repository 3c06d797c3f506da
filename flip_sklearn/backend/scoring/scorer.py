"""Scores and top-k words of raw embeddings, computed block by block without an (n, V) array.

Scores are z = offset + A B (x - mean), where the offset is b with bias and 0 without. X is read in chunks
of rows; each chunk is projected once, h = B (x - mean), and ranked in blocks of rows.

Memory besides the result, on a CPU: A in the format of the arithmetic, 2 d + r numbers for each of the
4,096 rows of a chunk, and a little over max(2^24, 128 V) scores. None of it grows with n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from flip_sklearn.backend.device import Compute, bfloat16_is_fast, to_device
from flip_sklearn.backend.ranking import groups_by_size, top_k, uses_blocks
from flip_sklearn.backend.scoring.bfloat16 import Shortlist
from flip_sklearn.backend.scoring.products import DenseProduct, SparseProduct, make_product, ranking_problem
from flip_sklearn.metrics.ranking import count_hits

# Rows of X that are converted and projected at one time.
CHUNK_ROWS = {"cpu": 4096, "cuda": 2**16}

# Preparation that reads all of A (finding zeros, a bfloat16 copy) is worth its time from this many rows on.
MANY_ROWS = 2048

# Score of a word that training did not see, unless a seen word of the row scores as low.
UNSEEN_SCORE = -1e4

AfterRows = Callable[[int], object]


@dataclass(eq=False)
class Scorer:
    """Fitted factors on a device, ready to score raw embeddings.

    Equal scores rank the lower word first. Scores depend on the number of rows of a call only by
    rounding, because the order of summation in the product may depend on it.
    """

    A: Any  # (V, r) word embeddings, ndarray or csr_array
    B: np.ndarray  # (r, d)
    offset: np.ndarray  # (V,)
    mean: np.ndarray  # (d,)
    compute: Compute
    unseen: np.ndarray  # (V,) bool, words that training did not see; they are never among the best words
    # The last prepared A of each kind, reused when a caller scores batch by batch.
    _all_words: DenseProduct | SparseProduct | None = field(default=None, init=False, repr=False)
    _last_ranker: tuple[tuple[int, bool], _Ranker] | None = field(default=None, init=False, repr=False)

    def top(
        self, X: np.ndarray, k: int, *, probabilities: bool = False, after_block: AfterRows | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best words per row, best first: indices (n, k) and their scores, or theta."""
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

    @torch.inference_mode()  # of a generator: active during each step only, not in the caller
    def top_blocks(
        self, X: np.ndarray, k: int, *, probabilities: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the result of ``top`` for consecutive blocks of rows."""
        ranker = self._ranker(k, X.shape[0])
        for h in self._project(X, ranker.latents):
            for first, last in even_slices(len(h), ranker.block_rows):
                values, words = ranker.top(h[first:last], k, probabilities)
                yield words.cpu().numpy(), values.cpu().numpy()

    @torch.inference_mode()
    def hits(self, X: np.ndarray, words: sp.csr_array, *, after_block: AfterRows | None = None) -> np.ndarray:
        """Count, for each row, its words that are among its k best, k being the number of its words.

        Rows are ranked together with rows of about the same k, so that one long row does not make the
        others slow.

        Parameters
        ----------
        X : (n, d)
        words : csr_array (n, V); the stored entries of a row are its words, sorted and unique
        after_block : called with the number of rows whenever some are finished
        """
        k = np.diff(words.indptr)
        max_k = min(int(k.max(initial=0)), int((~self.unseen).sum()))
        n_hits = np.zeros(len(k), dtype=np.int64)
        if max_k == 0:
            return n_hits
        ranker = self._ranker(max_k, X.shape[0])
        chunk_start = 0
        for h in self._project(X, ranker.latents):
            for group in groups_by_size(k[chunk_start : chunk_start + len(h)]):
                for first, last in even_slices(len(group), ranker.block_rows):
                    in_chunk = group[first:last]
                    rows = chunk_start + in_chunk
                    widest = min(int(k[rows].max()), max_k)
                    block = h.index_select(0, torch.from_numpy(in_chunk).to(h.device))
                    _, top = ranker.top(block, widest, False)
                    n_hits[rows] = count_hits(words[rows], top.cpu().numpy())
            chunk_start += len(h)
            if after_block is not None:
                after_block(len(h))
        return n_hits

    @torch.inference_mode()
    def dense(self, X: np.ndarray, transform: str) -> np.ndarray:
        """Return all scores (n, V), or their "softmax" or "log_softmax".

        The caller has checked that the array fits in memory. Words that training did not see score
        UNSEEN_SCORE, or less where a seen word of the row scores that low, so they are finite and below
        every seen word. Their theta is 0.
        """
        n, n_words = X.shape[0], self.A.shape[0]
        result = np.empty((n, n_words), dtype=self._dtype)
        if self._all_words is None:
            self._all_words = make_product(self.A, self.offset, self.compute)
        product = self._all_words
        unseen = torch.from_numpy(np.flatnonzero(self.unseen)).to(self.compute.device)
        chunk_start = 0
        for h in self._project(X, None):
            for first, last in even_slices(len(h), product.block_rows):
                scores, _ = product.scores(h[first:last], maxima=False)
                values = _transform(scores[:, :n_words], unseen, transform)
                result[chunk_start + first : chunk_start + last] = values.cpu().numpy()
            chunk_start += len(h)
        return result

    def _ranker(self, k: int, n_rows: int) -> _Ranker:
        """Return the prepared ranking of n_rows rows by their k best words."""
        key = k, n_rows >= MANY_ROWS
        if self._last_ranker is None or self._last_ranker[0] != key:
            self._last_ranker = key, _Ranker(self, *key)
        return self._last_ranker[1]

    def _project(self, X: np.ndarray, latents: np.ndarray | None) -> Iterator[torch.Tensor]:
        """Yield h = B (x - mean) for consecutive chunks of rows, for some or all (None) latents."""
        mean = to_device(self.mean, self.compute)
        B = to_device(self.B if latents is None else self.B[latents], self.compute)
        n_rows = CHUNK_ROWS[self.compute.device.type]
        for first in range(0, X.shape[0], n_rows):
            x = to_device(X[first : first + n_rows], self.compute)
            yield (x - mean) @ B.T

    @property
    def _dtype(self) -> type[np.floating]:
        return np.float64 if self.compute.dtype == torch.float64 else np.float32


class _Ranker:
    """The k best words of blocks of latent rows, by bfloat16 products where these are faster."""

    def __init__(self, scorer: Scorer, k: int, many_rows: bool) -> None:
        compute = scorer.compute
        self._problem = ranking_problem(
            scorer.A, scorer.offset, scorer.unseen, k, compute, find_zeros=many_rows
        )
        self._product = self._problem.product
        self._shortlist = None
        is_fast = compute.product_dtype == torch.bfloat16 and bfloat16_is_fast(compute.device)
        if is_fast and many_rows and isinstance(self._product, DenseProduct):
            self._shortlist = Shortlist(self._product, compute)
        self._n_words = self._product.A.shape[0]
        self.latents, self.block_rows = self._problem.latents, self._product.block_rows

    def top(self, h: torch.Tensor, k: int, probabilities: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores, or theta, and words, both (m, k), best first."""
        if self._shortlist is not None and self._shortlist.is_cheaper(k) and not probabilities:
            values, columns = self._shortlist.top(h, k)
        else:
            scores, maxima = self._product.scores(h, maxima=uses_blocks(k + 1, self._n_words))
            values, columns = top_k(scores, k, maxima)
            if probabilities:
                values = self._probabilities(scores, values)
        if self._problem.columns is not None:
            columns = self._problem.columns[columns]
        return values, columns

    def _probabilities(self, scores: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
        """Compute exp(best - logsumexp(scores)); overwrites the scores."""
        highest = best[:, :1]
        total = scores.sub_(highest).exp_().sum(dim=1, keepdim=True)
        if self._problem.omitted > -math.inf:
            total += (self._problem.omitted - highest).exp()
        return (best - highest).exp() / total


def even_slices(n: int, max_size: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of parts of n rows of nearly equal size: a small last part wastes a product."""
    step = math.ceil(n / max(1, math.ceil(n / max_size)))
    return ((first, min(first + step, n)) for first in range(0, n, max(1, step)))


def _transform(scores: torch.Tensor, unseen: torch.Tensor, transform: str) -> torch.Tensor:
    """Apply "scores" (none), "softmax" or "log_softmax" over the seen words; overwrites the scores.

    ``unseen`` holds the columns of the words that training did not see.
    """
    if len(unseen):
        scores[:, unseen] = math.inf
        lowest = scores.amin(dim=1, keepdim=True)
        scores[:, unseen] = -math.inf
        # Compared in float32, so that they also differ after a conversion of the result to float32.
        unseen_scores = torch.where(lowest.float() > UNSEEN_SCORE, UNSEEN_SCORE, 1.01 * lowest)
    if transform == "softmax":
        return torch.softmax(scores, dim=1)
    if transform == "log_softmax":
        values = torch.log_softmax(scores, dim=1)
        if len(unseen):
            values[:, unseen] = unseen_scores - torch.logsumexp(scores, dim=1, keepdim=True)
        return values
    if len(unseen):
        scores[:, unseen] = unseen_scores
    return scores

"""Scores and top-k words of raw embeddings, computed block by block without an (n, V) array.

Scores are z = offset + A B (x - mean), where the offset is b with bias and 0 without. Words are ranked by
z + ranking_offset, and theta = softmax(z). X is read in chunks of rows; each chunk is projected once,
h = B (x - mean), and ranked in blocks of rows.

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

from flip_sklearn.backend.device import (
    Compute,
    Embeddings,
    bfloat16_is_fast,
    even_slices,
    slices,
    to_device,
    upload,
)
from flip_sklearn.backend.ranking import groups_by_size, read_top, top_k, top_k_without_waiting, uses_blocks
from flip_sklearn.backend.scoring.bfloat16 import Shortlist
from flip_sklearn.backend.scoring.products import DenseProduct, SparseProduct, make_product, ranking_problem
from flip_sklearn.metrics.ranking import count_hits

# Rows of X that are converted and projected at one time.
CHUNK_ROWS = {"cpu": 4096, "cuda": 2**16}

# Preparation that reads all of A (finding zeros, a bfloat16 copy) is worth its time from this many rows on.
MANY_ROWS = 2048

# Score of a word that training did not see, unless a seen word of the row scores as low.
UNSEEN_SCORE = -1e4

# Share of the largest number up to which latents are allowed: scores, sums of their products with word
# embeddings, do not overflow then.
MAX_LATENT_SHARE = 1e-8

AfterRows = Callable[[int], object]
Top = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # values, words, and which rows are right


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
    ranking_offset: np.ndarray | None = None  # (V,), added to the scores of words, but not in theta
    # The last prepared A of each kind, reused when a caller scores batch by batch.
    _all_words: dict[str, DenseProduct | SparseProduct] = field(default_factory=dict, init=False, repr=False)
    _last_ranker: tuple[tuple[int, bool], _Ranker] | None = field(default=None, init=False, repr=False)

    def top(
        self, X: Embeddings, k: int, *, probabilities: bool = False, after_block: AfterRows | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best words per row, best first: indices (n, k) and their scores, or theta.

        The scores include the ranking offset, theta does not.
        """
        indices = np.empty((X.shape[0], k), dtype=np.int64)
        values = np.empty((X.shape[0], k), dtype=self.compute.numpy_dtype)
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
        self, X: Embeddings, k: int, *, probabilities: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the result of ``top`` for consecutive blocks of rows."""
        ranker = self._ranker(k, X.shape[0])
        for _, values, words in ranker.rank(self._blocks(X, ranker, k), probabilities):
            yield words, values

    def _blocks(self, X: Embeddings, ranker: _Ranker, k: int) -> Iterator[_Block]:
        """Yield all rows in order."""
        for _, h in self._project(X, ranker.problem.latents):
            for rows in even_slices(len(h), ranker.product.block_rows):
                yield _Block(rows, h[rows], k)

    @torch.inference_mode()
    def hits(self, X: Embeddings, words: sp.csr_array, *, after_block: AfterRows | None = None) -> np.ndarray:
        """Count, for each row, its words that are among its k best, k being the number of its words.

        The stored entries of a row of ``words`` (n, V) are its words, sorted and unique. Rows are ranked
        together with rows of about the same k, so that one long row does not make the others slow.
        """
        k = np.diff(words.indptr)
        max_k = min(int(k.max(initial=0)), int((~self.unseen).sum()))
        n_hits = np.zeros(len(k), dtype=np.int64)
        if max_k == 0:
            return n_hits
        ranker = self._ranker(max_k, X.shape[0])
        blocks = self._blocks_by_size(X, ranker, k, after_block)
        for block, _, top in ranker.rank(blocks, False):
            n_hits[block.rows] = count_hits(words[block.rows], top)
        return n_hits

    def _blocks_by_size(
        self, X: Embeddings, ranker: _Ranker, k: np.ndarray, after_block: AfterRows | None
    ) -> Iterator[_Block]:
        """Yield the rows with k > 0, those with about the same k together."""
        for chunk_start, h in self._project(X, ranker.problem.latents):
            groups = list(groups_by_size(k[chunk_start : chunk_start + len(h)]))
            grouped = _select(h, np.concatenate([np.empty(0, np.int64), *groups]))
            first = 0
            for group in groups:
                for part in even_slices(len(group), ranker.product.block_rows):
                    rows = chunk_start + group[part]
                    last = first + len(rows)
                    yield _Block(rows, grouped[first:last], min(int(k[rows].max()), ranker.max_k))
                    first = last
            if after_block is not None:
                after_block(len(h))

    @torch.inference_mode()
    def dense(self, X: Embeddings, transform: str) -> Embeddings:
        """Return all "scores" (n, V), theta ("softmax") or its logarithm; of a tensor X on its device.

        The scores include the ranking offset, theta does not. The caller has checked that the array fits in
        memory. Words that training did not see score UNSEEN_SCORE, or less where a seen word of the row
        scores that low, so they are finite and below every seen word. Their theta is 0.
        """
        n_words = self.A.shape[0]
        shape = X.shape[0], n_words
        if isinstance(X, np.ndarray):
            array = np.empty(shape, dtype=self.compute.numpy_dtype)
            result = torch.from_numpy(array)
        else:
            array = None
            with torch.inference_mode(False):  # a tensor that its user may differentiate with
                result = torch.empty(shape, dtype=self.compute.dtype, device=X.device)
        product = self._product("ranking" if transform == "scores" else "theta")
        unseen = upload(torch.from_numpy(np.flatnonzero(self.unseen)), self.compute.device)
        largest = []
        for chunk_start, h in self._project(X, None):
            if h.device.type == "cpu":  # elsewhere the host would have to wait
                largest.append(torch.linalg.vector_norm(h, ord=math.inf))
            chunk = result[chunk_start : chunk_start + len(h)]
            for rows in even_slices(len(h), product.block_rows):
                scores, _ = product.scores(h[rows], maxima=False)
                chunk[rows] = _transform(scores[:, :n_words], unseen, transform)
        # Compared as "not below", which is true of NaN.
        limit = MAX_LATENT_SHARE * torch.finfo(self.compute.dtype).max
        is_too_large = bool(largest) and not float(torch.stack(largest).max()) < limit
        if is_too_large or (array is not None and not np.isfinite(array[:, 0]).all()):
            raise _overflow(result)
        return result if array is None else array

    def latents(self, X: Embeddings) -> Iterator[torch.Tensor]:
        """Yield h = B (x - mean) of consecutive chunks of rows."""
        for _, h in self._project(X, None):
            yield h

    def score_blocks(self, X: Embeddings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield h (m, r) and the scores (m, V), without the ranking offset, of consecutive blocks of rows.

        The next block overwrites the scores, and so may the caller.
        """
        product, n_words = self._product("theta"), self.A.shape[0]
        limit = MAX_LATENT_SHARE * torch.finfo(self.compute.dtype).max
        for h in self.latents(X):
            if not float(torch.linalg.vector_norm(h, ord=math.inf)) < limit:
                raise _overflow(h)
            for rows in even_slices(len(h), product.block_rows):
                yield h[rows], product.scores(h[rows], maxima=False)[0][:, :n_words]

    def _product(self, purpose: str) -> DenseProduct | SparseProduct:
        """Return the product of all words for "ranking", with the ranking offset, or for "theta"."""
        purpose = "theta" if self.ranking_offset is None else purpose
        if purpose not in self._all_words:
            offset = self.ranked_offset if purpose == "ranking" else self.offset
            self._all_words[purpose] = make_product(self.A, offset, self.compute)
        return self._all_words[purpose]

    @property
    def ranked_offset(self) -> np.ndarray:
        """What is added to A h to rank the words, (V,)."""
        return self.offset if self.ranking_offset is None else self.offset + self.ranking_offset

    def _ranker(self, k: int, n_rows: int) -> _Ranker:
        """Return the prepared ranking of n_rows rows by their k best words."""
        key = k, n_rows >= MANY_ROWS
        if self._last_ranker is None or self._last_ranker[0] != key:
            self._last_ranker = key, _Ranker(self, *key)
        return self._last_ranker[1]

    def _project(self, X: Embeddings, latents: np.ndarray | None) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the first row and h = B (x - mean) of chunks of rows, for some or all (None) latents."""
        mean = to_device(self.mean, self.compute)
        B = to_device(self.B if latents is None else self.B[latents], self.compute)
        for rows in slices(X.shape[0], CHUNK_ROWS[self.compute.device.type]):
            yield rows.start, (to_device(X[rows], self.compute) - mean) @ B.T


@dataclass(frozen=True)
class _Block:
    """Rows that are ranked together."""

    rows: Any  # their numbers, for the caller
    h: torch.Tensor  # (m, r)
    k: int


class _Ranker:
    """The k best words of blocks of latent rows, by bfloat16 products where these are faster."""

    def __init__(self, scorer: Scorer, k: int, many_rows: bool) -> None:
        compute = scorer.compute
        self.max_k = k
        self.problem = ranking_problem(
            scorer.A,
            scorer.ranked_offset,
            scorer.unseen,
            k,
            compute,
            find_zeros=many_rows,
            ranking_offset=scorer.ranking_offset,
        )
        self.product = self.problem.product
        self._shortlist = None
        is_fast = compute.product_dtype == torch.bfloat16 and bfloat16_is_fast(compute.device)
        if is_fast and many_rows and isinstance(self.product, DenseProduct):
            self._shortlist = Shortlist(self.product, compute)

    def rank(
        self, blocks: Iterator[_Block], probabilities: bool
    ) -> Iterator[tuple[_Block, np.ndarray, np.ndarray]]:
        """Yield each block with scores, or theta, and words, both (m, k), best first.

        The host waits for the device once a block, and more often if some rows must be ranked again. While
        the caller works on one result, the device computes the next.
        """
        result = None
        for block in blocks:
            top = self._top(block, probabilities)
            if result is not None:
                yield result
            result = block, *self._read(block, top, probabilities)
        if result is not None:
            yield result

    def _top(self, block: _Block, probabilities: bool) -> Top:
        """Rank a block without waiting for the device."""
        if self._shortlist is not None and self._shortlist.is_cheaper(block.k) and not probabilities:
            values, columns, is_right = self._shortlist.top(block.h, block.k)
            return values, self._words(columns), is_right
        return self._top_of_all(block, probabilities)

    def _read(self, block: _Block, top: Top, probabilities: bool) -> tuple[np.ndarray, np.ndarray]:
        """Wait for the result of a block, and rank the rows again that are not right."""
        values, words, is_right = read_top(*top)
        if not np.isfinite(values).all():
            raise _overflow(self.product.A)
        wrong = np.flatnonzero(~is_right)
        if len(wrong):
            again = _Block(block.rows, _select(block.h, wrong), block.k)
            top = self._top_of_all(again, probabilities, resolve_ties=True)
            values[wrong], words[wrong] = read_top(*top)[:2]
        return values, words

    def _top_of_all(self, block: _Block, probabilities: bool, *, resolve_ties: bool = False) -> Top:
        """Rank by all scores; with ``resolve_ties`` all rows are right, and the host may wait."""
        h, k = block.h, block.k
        with_maxima = uses_blocks(k + 1, self.product.A.shape[0])
        scores, maxima = self.product.scores(h, maxima=with_maxima)
        if resolve_ties:
            values, columns = top_k(scores, k, maxima)
            is_right = torch.ones(len(h), dtype=torch.bool, device=h.device)
        else:
            values, columns, is_right = top_k_without_waiting(scores, k, maxima)
        if probabilities:  # exp(values - logsumexp(scores)), in place
            highest, offset = values[:, :1], self.problem.ranking_offset
            if offset is not None:
                scores[:, : len(offset)].sub_(offset)
                values, highest = values - offset[columns], scores.amax(dim=1, keepdim=True)
            total = scores.sub_(highest).exp_().sum(dim=1, keepdim=True)
            if self.problem.omitted > -math.inf:
                total += (self.problem.omitted - highest).exp()
            values = (values - highest).exp() / total
        return values, self._words(columns), is_right

    def _words(self, columns: torch.Tensor) -> torch.Tensor:
        """Return the words of scored columns."""
        return columns if self.problem.columns is None else self.problem.columns[columns]


def _overflow(factor: Any) -> FloatingPointError:
    return FloatingPointError(
        f"scores of X overflow {str(factor.dtype).removeprefix('torch.')}: X has values that are far larger "
        "than those of the training embeddings. Use the encoder, and the scale, of the training embeddings."
    )


def _select(h: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Return some rows of h."""
    return h.index_select(0, upload(torch.from_numpy(rows), h.device))


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
    values = torch.log_softmax(scores, dim=1) if transform == "log_softmax" else scores
    if len(unseen):
        values[:, unseen] = unseen_scores
        if transform == "log_softmax":
            values[:, unseen] -= torch.logsumexp(scores, dim=1, keepdim=True)
    return values

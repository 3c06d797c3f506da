"""The words to score: a block of latent rows h -> a block of scores z = offset + A h.

Two products, one answer. ``DenseWords`` multiplies by A as it is; ``SparseWords`` reads the non-zero
entries only, and makes the block transposed, because that is how a sparse product runs along memory.
``words_to_rank`` leaves out what cannot matter and picks the faster of the two.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from flip_sklearn.backend.device import Compute, as_shared_tensor
from flip_sklearn.backend.ranking import BLOCK, block_maxima

# Scores of one block, in elements. The product reads all of A for every block, so blocks must be tall
# (512 rows run 1.2 to 1.5 times faster than 64); 2**24 float32 are 64 MiB.
BLOCK_ELEMENTS = {"cpu": 2**24, "cuda": 2**28}
BLOCK_ROWS = {"cpu": (128, 1024), "cuda": (128, 2**16)}
# The block is made in tiles of columns, whose offset and maxima are done before they leave the cache.
# Not too small: every tile is three more places where threads wait for each other.
TILE_ELEMENTS = {"cpu": 2**22, "cuda": 2**28}
# A sparse product reads h once per non-zero entry: few rows, so that h stays in the second-level cache.
SPARSE_BLOCK_ROWS = 64

# Share of non-zero entries below which the sparse product is taken. Time of Scorer.top by the dense
# product over that by the sparse one, rank 384, zeros at random, one thread (python -m
# benchmarks.bench_extract --densities --cpu-time):
#
#     density     .01  .03  .10  .15  .20  .30
#     V = 12,128  3.4  2.9  1.9  1.7  1.4  1.0
#     V = 50,000  6.4  5.4  2.4  1.8  1.4  1.0
CSR_DENSITY = 0.2

_ROWS_TO_JUDGE_BY = 256

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], object]


def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """``out = a b`` in the format of the factors."""
    torch.mm(a, b, out=out)


class _Buffers(threading.local):
    """Memory of one thread that is used again and again: fresh pages cost more than the work on them."""

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def get(self, name: str, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
        """A contiguous (rows, columns) tensor with arbitrary content, of the format of ``like``."""
        held, need = self._held.get(name), rows * columns
        if held is None or held.numel() < need:
            held = torch.empty(need, dtype=like.dtype, device=like.device)
            self._held[name] = held
        return held[:need].view(rows, columns)


class DenseWords:
    """Scores by a dense product. A thread's next call overwrites the block that it got.

    Parameters
    ----------
    A : (V, r), in the format of the factors
    offset : (V,), or None where the product has all
    product : ``product(a, b, out)``
    """

    def __init__(
        self, A: torch.Tensor, offset: torch.Tensor | None, product: Product = product
    ) -> None:
        low, high = BLOCK_ROWS[A.device.type]
        self.A, self.offset, self.product = A, offset, product
        self.rows = max(low, min(high, BLOCK_ELEMENTS[A.device.type] // len(A)))
        self._buffers = _Buffers()

    def scores(
        self, h: torch.Tensor, *, maxima: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores of about ``rows`` latent rows, and their ``block_maxima`` if asked for.

        Columns of -inf follow those of the V words, up to a whole number of blocks.
        """
        m, n_words = len(h), len(self.A)
        blocks = math.ceil(n_words / BLOCK)
        scores = self._buffers.get("scores", m, blocks * BLOCK, h)
        highest = self._buffers.get("maxima", m, blocks, h) if maxima else None
        scores[:, n_words:] = -math.inf
        width = max(1, TILE_ELEMENTS[h.device.type] // max(1, m) // BLOCK) * BLOCK
        for first in range(0, n_words, width):
            last = min(first + width, n_words)
            tile = scores[:, first:last]
            self.product(h, self.A[first:last].T, tile)
            if self.offset is not None:
                tile += self.offset[first:last]
            if highest is not None:
                whole = scores[:, first : first + width]
                block_maxima(whole, out=highest[:, first // BLOCK :][:, : whole.shape[1] // BLOCK])
        return scores, highest


class SparseWords:
    """Scores by a sparse product, on a CPU. A thread's next call overwrites the block that it got.

    The offset is one more column of A, against a row of ones.
    """

    def __init__(self, A: sp.csr_array, offset: np.ndarray) -> None:
        self.rows = SPARSE_BLOCK_ROWS
        whole = sp.hstack([A, sp.csr_array(offset.astype(A.dtype)[:, None])], format="csr")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            self.A = torch.sparse_csr_tensor(
                # 32-bit indices are what the product itself works on: wider ones are copied each time.
                torch.from_numpy(whole.indptr.astype(np.int32)),
                torch.from_numpy(whole.indices.astype(np.int32)),
                torch.from_numpy(whole.data),
                whole.shape,
                device="cpu",
                check_invariants=False,
            )
        self._buffers = _Buffers()

    def scores(
        self, h: torch.Tensor, *, maxima: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores of about ``rows`` latent rows, and their ``block_maxima`` if asked for."""
        (n_words, columns), m = self.A.shape, len(h)
        right = self._buffers.get("right", columns, m, h)
        right[:-1].copy_(h.T)
        right[-1] = 1
        # Not mm, which makes a block of zeros to start from and copies the result of it.
        scores = self._buffers.get("scores", n_words, m, h).addmm_(self.A, right, beta=0)
        full = n_words // BLOCK
        if not maxima or not full:
            return scores.T, None
        highest = self._buffers.get("maxima", full, m, h)
        torch.amax(scores[: full * BLOCK].view(full, BLOCK, m), dim=1, out=highest)
        return scores.T, highest.T.contiguous()


@dataclass(frozen=True)
class WordsToRank:
    """What a ranking has to score: ``words`` without those that can never be among the k best."""

    words: DenseWords | SparseWords
    columns: torch.Tensor | None  # the word of each scored column, ascending; None: all words
    latents: np.ndarray | None  # the latents that any of them uses; None: all
    rest: float  # logsumexp of the seen words left out (their scores are the same for every row)


def words_to_rank(
    A: Any, offset: np.ndarray, unseen: np.ndarray, k: int, compute: Compute, look_for_zeros: bool
) -> WordsToRank:
    """The words among which the k best of every row are, on a device, by the faster product.

    Unseen words are never extracted. A word whose row of A is zero scores its offset, whatever the
    sentence: of all such words only the k with the largest offsets can ever be among the k best.
    Latents that no word uses add nothing. What remains goes to the sparse product below CSR_DENSITY.

    Parameters
    ----------
    A : (V, r) word embeddings, ndarray or csr_array; offset : (V,)
    unseen : (V,) bool
    k : words that a row may ask for, at most the number of seen ones
    look_for_zeros : also in a dense A
    """
    if not sp.issparse(A) and not (look_for_zeros and _many_zeros(A)):
        offset = np.where(unseen, -np.inf, offset)
        return WordsToRank(all_words(A, offset, compute), None, None, -math.inf)
    A = sp.csr_array(A)
    if (A.data == 0).any():
        A = A.copy()
        A.eliminate_zeros()
    empty = ~unseen & (np.diff(A.indptr) == 0)
    constant = np.flatnonzero(empty)
    constant = constant[np.argsort(-offset[constant], kind="stable")]
    left_out = offset[constant[k:]].astype(np.float64)
    rest = float(np.logaddexp.reduce(left_out)) if len(left_out) else -math.inf
    columns = np.sort(np.r_[np.flatnonzero(~unseen & ~empty), constant[:k]])
    A = A[columns]
    latents = np.flatnonzero(np.bincount(A.indices, minlength=A.shape[1]))
    if len(latents) < A.shape[1]:
        A = A[:, latents]
    words = all_words(A, offset[columns], compute)
    return WordsToRank(words, torch.from_numpy(columns).to(compute.device), latents, rest)


def all_words(A: Any, offset: np.ndarray, compute: Compute) -> DenseWords | SparseWords:
    """Every word of A, ndarray or csr_array, by the faster product; a dense A stays dense."""
    if sp.issparse(A):
        sparse_enough = A.nnz < CSR_DENSITY * A.shape[0] * A.shape[1]
        if sparse_enough and compute.device.type == "cpu":
            dtype = np.float64 if compute.dtype == torch.float64 else np.float32
            return SparseWords(sp.csr_array(A, dtype=dtype), offset)
        A = A.toarray()

    def place(array: np.ndarray) -> torch.Tensor:
        return as_shared_tensor(array).to(compute.device, compute.dtype)

    return DenseWords(place(A), place(offset) if offset.any() else None)


def _many_zeros(A: np.ndarray) -> bool:
    """Whether it pays to take A apart: few entries, or few rows that have any; judged by some rows."""
    filled = A[:: max(1, len(A) // _ROWS_TO_JUDGE_BY)] != 0
    return bool(filled.mean() < CSR_DENSITY or filled.any(axis=1).mean() < 0.5)

"""Scores of a block of latent rows: h -> z = offset + A h for the words to be scored.

There are two implementations with the same results. ``DenseProduct`` multiplies by a dense A.
``SparseProduct`` reads only the non-zero entries of A and computes the transposed block, because a sparse
product is contiguous in memory that way. ``ranking_problem`` leaves out words that cannot be among the
k best and chooses the faster product.
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

from flip_sklearn.backend.device import Compute, slices, to_device, upload
from flip_sklearn.backend.ranking import BLOCK, block_maxima

# Scores of one block, in elements. The product reads all of A for every block, so blocks must be tall
# (512 rows run 1.2 to 1.5 times faster than 64); 2**24 float32 are 64 MiB.
BLOCK_ELEMENTS = {"cpu": 2**24, "cuda": 2**28}
BLOCK_ROWS = {"cpu": (128, 1024), "cuda": (128, 2**16)}
# A block is computed in tiles of columns, so that adding the offset and taking the maxima happen while a
# tile is in the cache. Tiles must not be too small: threads synchronize three more times for each.
TILE_ELEMENTS = {"cpu": 2**22, "cuda": 2**28}
# A sparse product reads h once per non-zero entry: few rows, so that h stays in the second-level cache.
SPARSE_BLOCK_ROWS = 64

# The sparse product is used below this share of non-zero entries. Time of Scorer.top with the dense
# product divided by that with the sparse one, rank 384, zeros at random, one thread (python -m
# benchmarks.bench_extract --densities --cpu-time):
#
#     density     .01  .03  .10  .15  .20  .30
#     V = 12,128  3.4  2.9  1.9  1.7  1.4  1.0
#     V = 50,000  6.4  5.4  2.4  1.8  1.4  1.0
CSR_DENSITY = 0.2

# Rows of a dense A that are sampled to estimate its share of zeros.
_SAMPLED_ROWS = 256

Multiply = Callable[..., object]  # multiply(a, b, out=out) computes out = a b


class _Buffers(threading.local):
    """Memory that a thread reuses between blocks: allocating new pages costs more than filling them."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def get(self, name: str, rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
        """Return a contiguous, uninitialized (rows, columns) tensor of the format of ``like``."""
        size = rows * columns
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=like.dtype, device=like.device)
            self._buffers[name] = buffer
        return buffer[:size].view(rows, columns)


class DenseProduct:
    """Scores by a dense product. A thread's next call overwrites the block that this call returned.

    ``A`` (V, r) is in the format of the factors; ``offset`` (V,) is None for zero.
    """

    def __init__(self, A: torch.Tensor, offset: torch.Tensor | None, multiply: Multiply = torch.mm) -> None:
        min_rows, max_rows = BLOCK_ROWS[A.device.type]
        self.A, self.offset, self.multiply = A, offset, multiply
        self.block_rows = max(min_rows, min(max_rows, BLOCK_ELEMENTS[A.device.type] // len(A)))
        self._buffers = _Buffers()

    def scores(self, h: torch.Tensor, *, maxima: bool = True) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the scores of about ``block_rows`` latent rows, and their ``block_maxima`` if asked for.

        The V columns are padded with -inf to a multiple of the block size.
        """
        m, n_words = len(h), len(self.A)
        n_blocks = math.ceil(n_words / BLOCK)
        scores = self._buffers.get("scores", m, n_blocks * BLOCK, h)
        highest = self._buffers.get("maxima", m, n_blocks, h) if maxima else None
        scores[:, n_words:] = -math.inf
        width = max(1, TILE_ELEMENTS[h.device.type] // max(1, m) // BLOCK) * BLOCK
        for words in slices(n_words, width):
            tile = scores[:, words]
            self.multiply(h, self.A[words].T, out=tile)
            if self.offset is not None:
                tile += self.offset[words]
            if highest is not None:
                blocks = slice(words.start // BLOCK, math.ceil(words.stop / BLOCK))
                padded = scores[:, words.start : blocks.stop * BLOCK]
                block_maxima(padded, out=highest[:, blocks])
        return scores, highest


class SparseProduct:
    """Scores by a sparse product, on a CPU. A thread's next call overwrites the returned block.

    The offset is stored as one more column of A, which is multiplied by ones.
    """

    def __init__(self, A: sp.csr_array, offset: np.ndarray) -> None:
        self.block_rows = SPARSE_BLOCK_ROWS
        augmented = sp.hstack([A, sp.csr_array(offset.astype(A.dtype)[:, None])], format="csr")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            self.A = torch.sparse_csr_tensor(
                # The product computes with 32-bit indices and would copy wider ones in every call.
                torch.from_numpy(augmented.indptr.astype(np.int32)),
                torch.from_numpy(augmented.indices.astype(np.int32)),
                torch.from_numpy(augmented.data),
                augmented.shape,
                device="cpu",
                check_invariants=False,
            )
        self._buffers = _Buffers()

    def scores(self, h: torch.Tensor, *, maxima: bool = True) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the scores of about ``block_rows`` latent rows, and their ``block_maxima`` if asked for."""
        (n_words, n_columns), m = self.A.shape, len(h)
        augmented = self._buffers.get("augmented", n_columns, m, h)
        augmented[:-1].copy_(h.T)
        augmented[-1] = 1
        # torch.mm would allocate a block of zeros and copy the result.
        scores = self._buffers.get("scores", n_words, m, h).addmm_(self.A, augmented, beta=0)
        n_blocks = n_words // BLOCK
        if not maxima or not n_blocks:
            return scores.T, None
        highest = self._buffers.get("maxima", n_blocks, m, h)
        torch.amax(scores[: n_blocks * BLOCK].view(n_blocks, BLOCK, m), dim=1, out=highest)
        return scores.T, highest.T.contiguous()


@dataclass(frozen=True)
class RankingProblem:
    """The words to score so that the k best of every row are among them."""

    product: DenseProduct | SparseProduct
    columns: torch.Tensor | None  # the word of each scored column, ascending; None: all words
    latents: np.ndarray | None  # the latents that these words use, ascending; None: all
    omitted: float  # logsumexp of the scores of the omitted words, the same for every row
    ranking_offset: torch.Tensor | None = None  # the part of the scored offsets that theta does not have


def ranking_problem(
    A: Any,
    offset: np.ndarray,
    unseen: np.ndarray,
    k: int,
    compute: Compute,
    *,
    find_zeros: bool,
    ranking_offset: np.ndarray | None = None,
) -> RankingProblem:
    """Select the words among which the k best of every row are, and the faster product.

    Words that training did not see are never extracted. A word whose row of A is zero has its offset as
    score in every row: of all such words only the k with the largest offsets can be among the k best.
    Latents that no word uses are left out. The sparse product is used below CSR_DENSITY.

    ``A`` (V, r) is an ndarray or csr_array, ``unseen`` (V,) bool, and ``k`` at most the number of seen words.
    ``find_zeros`` also looks for zeros in a dense A, which reads all of it. ``ranking_offset`` (V,) is the
    part of ``offset`` that theta does not have.
    """
    only_ranking = np.zeros_like(offset) if ranking_offset is None else ranking_offset

    def on_device(columns: Any) -> torch.Tensor | None:
        return None if ranking_offset is None else to_device(ranking_offset[columns], compute)

    if not sp.issparse(A) and not (find_zeros and _has_many_zeros(A)):
        offset = np.where(unseen, -np.inf, offset)
        return RankingProblem(make_product(A, offset, compute), None, None, -math.inf, on_device(slice(None)))
    A = sp.csr_array(A)
    if (A.data == 0).any():
        A = A.copy()
        A.eliminate_zeros()
    is_constant = ~unseen & (np.diff(A.indptr) == 0)
    constant = np.flatnonzero(is_constant)
    constant = constant[np.argsort(-offset[constant], kind="stable")]
    omitted_scores = (offset - only_ranking)[constant[k:]].astype(np.float64)
    omitted = float(np.logaddexp.reduce(omitted_scores)) if len(omitted_scores) else -math.inf
    columns = np.sort(np.r_[np.flatnonzero(~unseen & ~is_constant), constant[:k]])
    A = A[columns]
    latents = np.flatnonzero(np.bincount(A.indices, minlength=A.shape[1]))
    if len(latents) < A.shape[1]:
        A = A[:, latents]
    product = make_product(A, offset[columns], compute)
    words = upload(torch.from_numpy(columns), compute.device)
    return RankingProblem(product, words, latents, omitted, on_device(columns))


def make_product(A: Any, offset: np.ndarray, compute: Compute) -> DenseProduct | SparseProduct:
    """Move all words to the device: a CSR A as the faster product, a dense A as the dense one."""
    if sp.issparse(A):
        is_sparse_enough = A.nnz < CSR_DENSITY * A.shape[0] * A.shape[1]
        if is_sparse_enough and compute.device.type == "cpu":
            return SparseProduct(sp.csr_array(A, dtype=compute.numpy_dtype), offset)
        A = A.toarray()
    return DenseProduct(to_device(A, compute), to_device(offset, compute) if offset.any() else None)


def _has_many_zeros(A: np.ndarray) -> bool:
    """Whether few entries or few rows of a dense A are non-zero, estimated from some of its rows."""
    is_filled = A[:: max(1, len(A) // _SAMPLED_ROWS)] != 0
    return bool(is_filled.mean() < CSR_DENSITY or is_filled.any(axis=1).mean() < 0.5)

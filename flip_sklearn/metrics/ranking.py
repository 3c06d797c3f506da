"""Words of a row against its best-scored words: what the metrics of word extraction share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

# Scores looked at in one go: 2**24 float64 are 128 MiB.
BLOCK_ELEMENTS = 2**24


def row_blocks(n: int, n_words: int) -> Iterator[np.ndarray]:
    """Row numbers 0 to n - 1, as many at a time as scores of n_words words are looked at in one go."""
    step = max(1, BLOCK_ELEMENTS // max(1, n_words))
    for first in range(0, n, step):
        yield np.arange(first, min(first + step, n))


def counts_csr(Y: Any) -> sp.csr_array:
    """Word counts as CSR with sorted, unique, positive entries; dense, sparse or 1-D input."""
    if sp.issparse(Y):
        counts = sp.csr_array(Y)
    else:
        array = np.asarray(Y)
        if array.ndim not in (1, 2) or array.dtype.kind not in "buif":
            raise ValueError(
                f"Y has {array.ndim} dimensions of type {array.dtype}; pass word counts (n, V)."
            )
        counts = sp.csr_array(array[:, None] if array.ndim == 1 else array)
    if (counts.data < 0).any():
        raise ValueError(f"Y holds the negative count {counts.data.min()}; counts are >= 0.")
    if not counts.has_canonical_format or (counts.data <= 0).any():
        counts = counts.copy()  # the caller's matrix is not ours to tidy
        counts.sum_duplicates()
        counts.eliminate_zeros()
    if not np.isfinite(counts.data).all():
        raise ValueError("Y holds NaN or infinity; counts are finite numbers >= 0.")
    return counts


def binary_csr(Y: Any) -> sp.csr_array:
    """The distinct words of each row: true where a count is above zero, columns sorted."""
    counts = counts_csr(Y)
    words = np.ones(counts.nnz, dtype=bool)
    return sp.csr_array((words, counts.indices, counts.indptr), shape=counts.shape)


def top_indices(scores_or_topk: Any, shape: tuple[int, int], widest: int) -> np.ndarray:
    """Indices (n, widest) of the best-scored words of each row, best first; -1 where there are no more.

    Takes scores (n, V), integer word indices (n, K) with K >= widest, best first, or sparse scores
    (n, V), of which the stored ones are ranked. Equal scores go to the lower index. ``shape`` is Y's.
    """
    n, n_words = shape
    if sp.issparse(scores_or_topk):
        return _top_of_sparse(scores_or_topk, shape, widest)
    given = np.asarray(scores_or_topk)
    if given.ndim != 2 or given.shape[0] != n:
        raise ValueError(
            f"scores_or_topk has shape {given.shape}; Y has {n} rows, so pass scores ({n}, "
            f"{n_words}) or word indices ({n}, K)."
        )
    if given.dtype.kind not in "buif":
        raise ValueError(
            f"scores_or_topk holds values of type {given.dtype}; pass float scores or integer "
            "word indices."
        )
    if given.dtype.kind in "iu":
        return _checked_indices(given, n_words, widest)
    return _top_of_scores(given, n_words, widest)


def is_row_word(words: sp.csr_array, top: np.ndarray) -> np.ndarray:
    """Return whether each index of ``top`` (n, K) is a word of its row, bool (n, K)."""
    return _find_words(words, top)[1]


def hits(words: sp.csr_array, top: np.ndarray) -> sp.csr_array:
    """Return the words of each row that are among its k_n best, k_n being the number of its words.

    Parameters
    ----------
    words : csr_array of shape (n, V)
        The stored entries of a row are its words, sorted and unique, as ``binary_csr`` gives them.
    top : ndarray of shape (n, K)
        Best-scored words, best first; -1 pads. Columns from max k_n on are ignored.

    Returns
    -------
    csr_array of bool, shape (n, V)
    """
    is_hit = _is_hit(words, top)
    indptr = np.concatenate([[0], np.cumsum(is_hit)])[words.indptr].astype(words.indptr.dtype)
    indices = words.indices[is_hit]
    return sp.csr_array((np.ones(len(indices), dtype=bool), indices, indptr), shape=words.shape)


def count_hits(words: sp.csr_array, top: np.ndarray) -> np.ndarray:
    """Return the number of :func:`hits` of each row, (n,)."""
    n_hits_before = np.concatenate([[0], np.cumsum(_is_hit(words, top))])
    return np.diff(n_hits_before[words.indptr])


def accuracy_per_row(words: sp.csr_array, top: np.ndarray) -> np.ndarray:
    """Return the share of each row's words that are hits; nan for rows without words."""
    k = np.diff(words.indptr)
    return np.where(k > 0, count_hits(words, top) / np.maximum(k, 1), np.nan)


def _is_hit(words: sp.csr_array, top: np.ndarray) -> np.ndarray:
    """Whether each stored entry of ``words`` is among the k_n best of its row."""
    k = np.diff(words.indptr)
    top = top[:, : int(k.max(initial=0))]
    positions, is_word = _find_words(words, top)
    is_hit = np.zeros(words.nnz, dtype=bool)
    is_hit[positions[is_word & (np.arange(top.shape[1]) < k[:, None])]] = True
    return is_hit


def _find_words(words: sp.csr_array, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``words.indices`` of the indices of ``top``, and whether they are stored there."""
    n, n_words = words.shape
    if not words.nnz:
        return np.zeros(top.shape, dtype=np.int64), np.zeros(top.shape, dtype=bool)
    stored = np.repeat(np.arange(n), np.diff(words.indptr)) * n_words + words.indices
    key = np.arange(n)[:, None] * n_words + top
    positions = np.minimum(np.searchsorted(stored, key), len(stored) - 1)
    # The key of padding (-1) is that of the last word of the row before.
    return positions, (stored[positions] == key) & (top >= 0)


def _checked_indices(given: np.ndarray, n_words: int, widest: int) -> np.ndarray:
    if given.size and (given.max() >= n_words or given.min() < -1):
        raise ValueError(
            f"word indices lie in [{given.min()}, {given.max()}]; they must be below {n_words}, the "
            "number of columns of Y (-1 pads). Pass scores as floats."
        )
    if given.shape[1] < widest:
        raise ValueError(
            f"{given.shape[1]} words per row were given, but {widest} are looked at (n, or the "
            f"distinct words of the fullest row of Y); rank at least {widest} words (pad with -1 "
            "where there are fewer)."
        )
    given = given.astype(np.int64, copy=False)
    ordered = np.sort(given, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, place = np.argwhere(twice)[0]
        raise ValueError(
            f"word {ordered[row, place]} stands more than once in row {row} of the word indices; "
            "rank every word once. Pass scores, indicators too, as floats."
        )
    return given[:, :widest]


def _top_of_scores(scores: np.ndarray, n_words: int, widest: int) -> np.ndarray:
    if scores.shape[1] != n_words:
        raise ValueError(
            f"scores have {scores.shape[1]} columns, Y has {n_words}; pass one score per word."
        )
    top = np.full((scores.shape[0], widest), -1, dtype=np.int64)
    for rows in row_blocks(scores.shape[0], n_words):
        block = scores[rows[0] : rows[-1] + 1]
        if block.dtype.kind == "b":
            block = block.astype(np.float32)
        if np.isnan(block).any():
            raise ValueError("scores contain NaN; a ranking needs every score to be a number.")
        top[rows, : min(widest, n_words)] = _stable_top(block, widest)
    return top


def _stable_top(block: np.ndarray, widest: int) -> np.ndarray:
    """argsort(-block, stable)[:, :widest] without sorting whole rows."""
    if widest == 0:
        return np.empty((len(block), 0), dtype=np.int64)
    n_words = block.shape[1]
    if widest >= n_words:
        return np.argsort(-block, axis=1, kind="stable")
    lowest_first = -block
    some = np.argpartition(lowest_first, widest - 1, axis=1)[:, :widest]
    columns = np.sort(some, axis=1)
    boundary = np.take_along_axis(lowest_first, some, axis=1).max(axis=1, keepdims=True)
    # argpartition splits ties at the boundary arbitrarily: such rows are sorted whole.
    tied = np.count_nonzero(lowest_first <= boundary, axis=1) > widest
    if tied.any():
        columns[tied] = np.sort(
            np.argsort(lowest_first[tied], axis=1, kind="stable")[:, :widest], axis=1
        )
    order = np.argsort(np.take_along_axis(lowest_first, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _top_of_sparse(scores: Any, shape: tuple[int, int], widest: int) -> np.ndarray:
    ranked = sp.csr_array(scores)
    if ranked.shape != shape:
        raise ValueError(
            f"sparse scores have shape {ranked.shape}, Y has {shape}; they must agree."
        )
    if not ranked.has_canonical_format:
        ranked = ranked.copy()
        ranked.sum_duplicates()
    if np.isnan(ranked.data).any():
        raise ValueError("scores contain NaN; a ranking needs every score to be a number.")
    row = np.repeat(np.arange(shape[0]), np.diff(ranked.indptr))
    values = ranked.data.astype(np.float64) if ranked.data.dtype.kind in "bu" else ranked.data
    order = np.lexsort((ranked.indices, -values, row))
    place = np.arange(len(order)) - ranked.indptr[row]
    keep = place < widest
    top = np.full((shape[0], widest), -1, dtype=np.int64)
    top[row[keep], place[keep]] = ranked.indices[order][keep]
    return top

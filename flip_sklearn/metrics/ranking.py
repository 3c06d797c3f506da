"""Rankings of words by score, and their hits: the common part of the metrics of keywords."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from flip_sklearn.io import as_numpy
from flip_sklearn.metrics.counts import (
    check_columns,
    checked_sparse,
    column_names,
    count_matrix,
    warn_of_capitals,
)
from flip_sklearn.metrics.summary import divide
from flip_sklearn.parameters import short_repr

# Number of scores computed at a time: 2**24 float64 are 128 MiB.
BLOCK_ELEMENTS = 2**24


def row_blocks(n: int, n_words: int) -> Iterator[np.ndarray]:
    """Yield the row numbers 0 to n - 1 in blocks whose scores (rows, n_words) have a bounded size."""
    step = max(1, BLOCK_ELEMENTS // max(1, n_words))
    for start in range(0, n, step):
        yield np.arange(start, min(start + step, n))


def check_n_rows(X: Any, n: int) -> None:
    """Check that X has n rows, as Y has."""
    if _num_samples(X) != n:
        raise ValueError(
            f"X has {_num_samples(X)} rows, Y has {n}; pass one row of counts for each row of X."
        )


def check_same_columns(Y: Any, scores: Any, words: sp.csr_array) -> None:
    """Check that frames of counts and of scores, of which both have words as names, name the same columns.

    ``words`` are the counts of Y, or :func:`binary_csr` of it.
    """
    names = column_names(Y)
    check_columns(names, column_names(scores), renamed=True)
    if names is not None:
        warn_of_capitals(names, words)


def snapshot_with(estimator: Any, *methods: str) -> Any:
    """A shallow copy of an estimator that has one of the methods: a refit meanwhile does not change it."""
    if isinstance(estimator, type) or not any(hasattr(estimator, method) for method in methods):
        is_estimator = hasattr(estimator, "get_params") and not isinstance(estimator, type)
        raise (AttributeError if is_estimator else TypeError)(
            f"estimator={short_repr(estimator)} cannot be scored; pass a fitted estimator with "
            f"{' or '.join(methods)}."
        )
    return copy.copy(estimator) if hasattr(estimator, "get_params") else estimator


def score_blocks(estimator: Any, X: Any, n_words: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield row numbers and an estimator's scores (rows, n_words), for a bounded number of rows at a time.

    A multi-output classifier returns a list of probabilities, of which the last class of each word is used.
    """
    estimator = snapshot_with(estimator, "decision_function", "predict_proba")
    score = getattr(estimator, "decision_function", None) or estimator.predict_proba
    for rows in row_blocks(_num_samples(X), n_words):
        scores = score(_safe_indexing(X, rows))
        if isinstance(scores, list):
            scores = np.column_stack([classes[:, -1] for classes in scores])
        scores = np.asarray(as_numpy(scores)).reshape(len(rows), -1)
        # Integers would be taken for word indices.
        yield rows, scores.astype(float) if scores.dtype.kind in "iu" else scores


def binary_csr(Y: Any) -> sp.csr_array:
    """Return the distinct words of each row: true where a count is above zero, columns sorted."""
    counts = count_matrix(Y)
    words = np.ones(counts.nnz, dtype=bool)
    return sp.csr_array((words, counts.indices, counts.indptr), shape=counts.shape)


def top_indices(scores_or_topk: Any, shape: tuple[int, int], n_top: int) -> np.ndarray:
    """Return the indices (n, n_top) of the best-scored words of each row, best first, padded with -1.

    ``scores_or_topk`` is explained in ``keyword_accuracy``; ``shape`` is that of Y.
    """
    n, n_words = shape
    if sp.issparse(scores_or_topk):
        return _rank_sparse_scores(scores_or_topk, shape, n_top)
    array = np.asarray(as_numpy(scores_or_topk))
    if array.ndim != 2 or array.shape[0] != n:
        raise ValueError(
            f"scores_or_topk has shape {array.shape}; Y has {n} rows, so pass scores ({n}, {n_words}) or "
            f"word indices ({n}, K)."
        )
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"scores_or_topk holds values of type {array.dtype}; pass float scores or integer word indices."
        )
    if array.dtype.kind in "iu":
        return _check_indices(array, n_words, n_top)
    return _rank_scores(array, n_words, n_top)


def max_row_words(words: sp.csr_array) -> int:
    """Return the number of words of the row with the most words."""
    return int(np.diff(words.indptr).max(initial=0))


def hits(words: sp.csr_array, top: np.ndarray) -> sp.csr_array:
    """Return the words of each row that are among its best, as many as it has words.

    ``words`` comes from ``binary_csr``, ``top`` from ``top_indices``.
    """
    top = top[:, : max_row_words(words)]
    positions, is_word = find_words(words, top)
    is_hit = np.zeros(words.nnz, dtype=bool)
    is_hit[positions[is_word & (np.arange(top.shape[1]) < np.diff(words.indptr)[:, None])]] = True
    result = sp.csr_array((is_hit, words.indices, words.indptr), shape=words.shape, copy=True)
    result.eliminate_zeros()
    return result


def stream_hits(words: sp.csr_array, top_of: Callable[[slice, int], np.ndarray]) -> sp.csr_array:
    """Return :func:`hits` of rankings that exist for one block of rows at a time.

    A ranking of all rows would be as wide as the row with the most words. ``top_of(rows, n_top)`` returns at
    least the n_top best words of each row.
    """
    k = np.diff(words.indptr)
    parts = []
    for rows in _blocks_by_width(k):
        widest = int(k[rows].max(initial=1))
        parts.append(hits(words[rows], top_of(rows, widest)))
    return parts[0] if len(parts) == 1 else sp.csr_array(sp.vstack(parts, format="csr"))


def _blocks_by_width(k: np.ndarray) -> Iterator[slice]:
    """Yield slices that cover all rows, such that rows times the largest k is bounded, or one row."""
    pending = [(0, len(k))]
    while pending:
        first, last = pending.pop()
        n_rows = last - first
        if n_rows <= 1 or n_rows * int(k[first:last].max()) <= BLOCK_ELEMENTS:
            yield slice(first, last)
        else:
            middle = first + n_rows // 2
            pending += [(middle, last), (first, middle)]


def count_hits(words: sp.csr_array, top: np.ndarray) -> np.ndarray:
    """Return the number of :func:`hits` of each row, (n,)."""
    return np.diff(hits(words, top).indptr)


def accuracy_per_row(words: sp.csr_array, found: sp.csr_array) -> np.ndarray:
    """Return the share of each row's words that are among its :func:`hits`; nan for rows without words."""
    return divide(np.diff(found.indptr), np.diff(words.indptr), np.nan)


def jaccard_per_row(first: sp.csr_array, second: sp.csr_array) -> np.ndarray:
    """Return the Jaccard index of two :func:`hits` of each row; nan where both are empty."""
    both = np.asarray(first.multiply(second).sum(axis=1)).ravel()
    either = np.diff(first.indptr) + np.diff(second.indptr) - both
    return divide(both, either, np.nan)


def find_words(words: sp.csr_array, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position in ``words.indices`` of each index of ``top``, and whether it is a row's word."""
    n, n_words = words.shape
    if not words.nnz:
        return np.zeros(top.shape, dtype=np.int64), np.zeros(top.shape, dtype=bool)
    stored = np.repeat(np.arange(n), np.diff(words.indptr)) * n_words + words.indices
    key = np.arange(n)[:, None] * n_words + top
    positions = np.minimum(np.searchsorted(stored, key), len(stored) - 1)
    # The key of padding (-1) is that of the last word of the row before.
    return positions, (stored[positions] == key) & (top >= 0)


def _check_indices(indices: np.ndarray, n_words: int, n_top: int) -> np.ndarray:
    if indices.size and (indices.max() >= n_words or indices.min() < -1):
        raise ValueError(
            f"word indices lie in [{indices.min()}, {indices.max()}]; they must be below {n_words}, the "
            "number of columns of Y (-1 pads). Pass scores as floats."
        )
    if indices.shape[1] < n_top:
        raise ValueError(
            f"the word indices have {indices.shape[1]} columns, but {n_top} are needed (n, or the most "
            f"distinct words of a row of Y); rank at least {n_top} words per row, and pad with -1."
        )
    indices = indices.astype(np.int64, copy=False)
    ordered = np.sort(indices, axis=1)
    is_repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if is_repeated.any():
        row, column = np.argwhere(is_repeated)[0]
        raise ValueError(
            f"word {ordered[row, column]} occurs more than once in row {row} of the word indices; "
            "rank every word once. Pass scores, indicators too, as floats."
        )
    return indices[:, :n_top]


def _rank_scores(scores: np.ndarray, n_words: int, n_top: int) -> np.ndarray:
    if scores.shape[1] != n_words:
        raise ValueError(f"scores have {scores.shape[1]} columns, Y has {n_words}; pass one score per word.")
    top = np.full((scores.shape[0], n_top), -1, dtype=np.int64)
    for rows in row_blocks(scores.shape[0], n_words):
        block = scores[rows[0] : rows[-1] + 1]
        if block.dtype.kind == "b":
            block = block.astype(np.float32)
        _check_not_nan(block)
        top[rows, : min(n_top, n_words)] = _stable_top(block, n_top)
    return top


def _check_not_nan(scores: np.ndarray) -> None:
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN; a ranking needs every score to be a number.")


def _stable_top(scores: np.ndarray, n_top: int) -> np.ndarray:
    """Return argsort(-scores, stable)[:, :n_top], without sorting whole rows."""
    if n_top == 0:
        return np.empty((len(scores), 0), dtype=np.int64)
    negated = -scores
    if n_top >= scores.shape[1]:
        return np.argsort(negated, axis=1, kind="stable")
    unordered = np.argpartition(negated, n_top - 1, axis=1)[:, :n_top]
    columns = np.sort(unordered, axis=1)
    boundary = np.take_along_axis(negated, unordered, axis=1).max(axis=1, keepdims=True)
    # argpartition splits ties at the boundary arbitrarily: rows with such ties are sorted whole.
    tied = np.count_nonzero(negated <= boundary, axis=1) > n_top
    if tied.any():
        best = np.argsort(negated[tied], axis=1, kind="stable")[:, :n_top]
        columns[tied] = np.sort(best, axis=1)
    order = np.argsort(np.take_along_axis(negated, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _rank_sparse_scores(scores: Any, shape: tuple[int, int], n_top: int) -> np.ndarray:
    scores = sp.csr_array(checked_sparse(scores, "scores_or_topk").tocsr())
    if scores.shape != shape:
        raise ValueError(f"sparse scores have shape {scores.shape}, Y has {shape}; they must agree.")
    if not scores.has_canonical_format:
        scores = scores.copy()
        scores.sum_duplicates()
    _check_not_nan(scores.data)
    row = np.repeat(np.arange(shape[0]), np.diff(scores.indptr))
    values = scores.data.astype(np.float64) if scores.data.dtype.kind in "bu" else scores.data
    order = np.lexsort((scores.indices, -values, row))
    rank = np.arange(len(order)) - scores.indptr[row]
    in_top = rank < n_top
    top = np.full((shape[0], n_top), -1, dtype=np.int64)
    top[row[in_top], rank[in_top]] = scores.indices[order][in_top]
    return top

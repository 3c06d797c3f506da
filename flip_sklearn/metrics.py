"""Metrics of word extraction, in NumPy and SciPy: they judge any scores, not only this package's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

# Scores looked at in one go: 2**24 float64 are 128 MiB.
_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class KeywordAccuracy:
    """Result of :func:`keyword_accuracy`; ``float(result)`` is the accuracy.

    Attributes
    ----------
    accuracy : float
        (Weighted) mean over the rows with words, in [0, 1]; nan when no row has any.
    standard_error : float
        Standard error of that mean over rows; nan for fewer than two rows.
    n_rows, n_skipped : int
        Rows that count, and rows left out because they have no in-vocabulary word.
    per_row : ndarray of shape (n,)
        Accuracy of each row; nan for the skipped ones.
    """

    accuracy: float
    standard_error: float
    n_rows: int
    n_skipped: int
    per_row: np.ndarray

    def __float__(self) -> float:
        return self.accuracy

    def __repr__(self) -> str:
        return (
            f"KeywordAccuracy({self.accuracy:.4f} +- {self.standard_error:.4f}, "
            f"n_rows={self.n_rows}, n_skipped={self.n_skipped})"
        )


def keyword_accuracy(Y: Any, scores_or_topk: Any, *, sample_weight: Any = None) -> KeywordAccuracy:
    """Share of a sentence's words among as many best-scored words.

    For row n let S_n = {j : Y_nj > 0} be its distinct in-vocabulary words, k_n = |S_n|, and top_n the
    k_n best-scored words. Then

        accuracy = sum_n w_n |top_n & S_n| / k_n  /  sum_n w_n        over rows with k_n > 0.

    The keyword accuracy of Kesiraju et al. (2026, arXiv 2604.18109): repeated words count once, rows
    without in-vocabulary words are skipped (and counted in ``n_skipped``).

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts; anything above zero is a word of the row.
    scores_or_topk : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)
        One of: float scores of every word; integer word indices, best first, with K >= max k_n (pad
        with -1 where a row has fewer); sparse scores, such as ``FLiPExtractor.transform`` gives, whose
        stored entries are ranked and whose absent ones never count.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    KeywordAccuracy
        The accuracy with its standard error, counts of used and skipped rows, and each row's value.

    Raises
    ------
    ValueError
        If shapes do not match, indices leave the vocabulary, scores hold NaN, or K is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.metrics import keyword_accuracy
    >>> Y = np.array([[1, 1, 0], [0, 0, 2], [0, 0, 0]])
    >>> scores = np.array([[0.5, 0.1, 0.4], [0.2, 0.1, 0.7], [0.2, 0.1, 0.7]])
    >>> keyword_accuracy(Y, scores)
    KeywordAccuracy(0.7500 +- 0.2500, n_rows=2, n_skipped=1)
    """
    truth = _binary_csr(Y)
    n, n_words = truth.shape
    k = np.diff(truth.indptr)
    widest = int(k.max(initial=0))
    if sp.issparse(scores_or_topk):
        top = _top_of_sparse(scores_or_topk, truth.shape, widest)
    else:
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
        if given.dtype.kind == "b":
            given = given.astype(np.float32)
        if np.issubdtype(given.dtype, np.integer):
            top = _checked_indices(given, n_words, widest)
        else:
            top = _top_of_scores(given, n_words, widest)
    key = np.arange(n)[:, None] * n_words + top[:, :widest]
    words = np.repeat(np.arange(n), k) * n_words + truth.indices
    at = np.searchsorted(words, key)
    found = (
        words[np.minimum(at, max(len(words) - 1, 0))] == key if len(words) else np.zeros_like(key)
    )
    counted = (np.arange(top[:, :widest].shape[1]) < k[:, None]) & (top[:, :widest] >= 0)
    hits = (found & counted).sum(axis=1)
    per_row = np.where(k > 0, hits / np.maximum(k, 1), np.nan)
    return _weighted_mean(per_row, sample_weight)


def keyword_accuracy_scorer(estimator: Any, X: Any, Y: Any, sample_weight: Any = None) -> float:
    """Keyword accuracy as a scorer: ``GridSearchCV(..., scoring=keyword_accuracy_scorer)``.

    Works with every estimator that has ``decision_function`` or ``predict_proba`` over the columns of
    Y, sparse Y included, and asks for the scores of a bounded number of rows at a time. For
    ``FLiPExtractor`` alone ``scoring=None`` gives the same, faster (its own ``score``).

    Parameters
    ----------
    estimator : fitted estimator
    X : array-like of shape (n, d)
    Y : {array-like, sparse matrix} of shape (n, V)
    sample_weight : array-like of shape (n,), default=None

    Returns
    -------
    float
        The accuracy of :func:`keyword_accuracy`.
    """
    truth = _binary_csr(Y)
    n, n_words = truth.shape
    if _num_samples(X) != n:
        raise ValueError(
            f"X has {_num_samples(X)} rows, Y has {n}; pass one row of counts per row."
        )
    score = getattr(estimator, "decision_function", None) or estimator.predict_proba
    widest = int(np.diff(truth.indptr).max(initial=0))
    top = np.empty((n, widest), dtype=np.int64)
    step = max(1, _BLOCK_ELEMENTS // max(1, n_words))
    for first in range(0, n, step):
        rows = np.arange(first, min(first + step, n))
        block = score(_safe_indexing(X, rows))
        if isinstance(block, list):  # multi-output classifiers: one (n, classes) array per word
            block = np.column_stack([p[:, -1] for p in block])
        block = np.asarray(block)
        top[rows] = _top_of_scores(block.reshape(len(rows), -1), n_words, widest)
    return float(keyword_accuracy(truth, top, sample_weight=sample_weight))


def _binary_csr(Y: Any) -> sp.csr_array:
    """The words of each row, sorted and unique, as a CSR pattern; its data are not to be read."""
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
    if counts is Y or not counts.has_canonical_format or (counts.data <= 0).any():
        counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    if np.isnan(counts.data).any():
        raise ValueError("Y holds NaN; counts are numbers >= 0.")
    return counts


def _checked_indices(given: np.ndarray, n_words: int, widest: int) -> np.ndarray:
    if given.size and (given.max() >= n_words or given.min() < -1):
        raise ValueError(
            f"word indices lie in [{given.min()}, {given.max()}]; they must be below {n_words}, the "
            "number of columns of Y (-1 pads). Pass scores as floats."
        )
    if given.shape[1] < widest:
        raise ValueError(
            f"{given.shape[1]} words per row were given, but a row of Y has {widest} distinct words; "
            f"rank at least {widest} words (pad with -1 where there are fewer)."
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
    return given


def _top_of_scores(scores: np.ndarray, n_words: int, widest: int) -> np.ndarray:
    """Indices of the best words of each row, best first; equal scores go to the lower index."""
    if scores.shape[1] != n_words:
        raise ValueError(
            f"scores have {scores.shape[1]} columns, Y has {n_words}; pass one score per word."
        )
    top = np.empty((scores.shape[0], widest), dtype=np.int64)
    step = max(1, _BLOCK_ELEMENTS // max(1, n_words))
    for first in range(0, scores.shape[0], step):
        block = scores[first : first + step]
        if np.isnan(block).any():
            raise ValueError("scores contain NaN; a ranking needs every score to be a number.")
        top[first : first + step] = _stable_top(block, widest)
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
    """Indices of the largest stored entries of each row, best first, padded with -1."""
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


def _weighted_mean(per_row: np.ndarray, sample_weight: Any) -> KeywordAccuracy:
    used = ~np.isnan(per_row)
    weights = np.ones(len(per_row))
    if sample_weight is not None:
        weights = np.asarray(sample_weight, dtype=float)
        if weights.shape != per_row.shape:
            raise ValueError(
                f"sample_weight has shape {weights.shape}; pass one weight per row, {per_row.shape}."
            )
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError("sample_weight must be finite and >= 0.")
    values, w = per_row[used], weights[used]
    mass = w.sum()
    mean = float(w @ values / mass) if mass > 0 else float("nan")
    m = int((w > 0).sum())
    error = float("nan")
    if m > 1:
        # The mean's standard error with fixed weights; for equal ones s / sqrt(m).
        error = float(np.sqrt(m / (m - 1) * np.sum((w / mass * (values - mean)) ** 2)))
    return KeywordAccuracy(mean, error, int(used.sum()), int((~used).sum()), per_row)

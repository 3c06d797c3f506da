"""Keyword accuracy and what follows from the same ranking: hit sets, precision, recall, F1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from flip_sklearn.metrics import ranking as _ranked
from flip_sklearn.metrics.summary import RowMean

__all__ = [
    "PrecisionRecall",
    "hit_jaccard",
    "hit_sets",
    "keyword_accuracy",
    "keyword_accuracy_scorer",
    "precision_recall",
    "span_accuracy",
]


def keyword_accuracy(Y: Any, scores_or_topk: Any, *, sample_weight: Any = None) -> RowMean:
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
        stored entries are ranked and whose absent ones never count. Equal scores go to the lower index.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    RowMean
        The accuracy in [0, 1] with its standard error, counts of used and skipped rows, and each row's
        value.

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
    RowMean(0.7500 +- 0.2500, n_rows=2, n_skipped=1)
    """
    words, top = _words_and_top(Y, scores_or_topk)
    return RowMean.of(_ranked.accuracy_per_row(words, top), sample_weight)


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
    words = _ranked.binary_csr(Y)
    n, n_words = words.shape
    if _num_samples(X) != n:
        raise ValueError(
            f"X has {_num_samples(X)} rows, Y has {n}; pass one row of counts per row."
        )
    score = getattr(estimator, "decision_function", None) or estimator.predict_proba
    widest = int(np.diff(words.indptr).max(initial=0))
    top = np.empty((n, widest), dtype=np.int64)
    for rows in _ranked.row_blocks(n, n_words):
        block = score(_safe_indexing(X, rows))
        if isinstance(block, list):  # multi-output classifiers: one (n, classes) array per word
            block = np.column_stack([p[:, -1] for p in block])
        block = np.asarray(block).reshape(len(rows), -1)
        if block.dtype.kind in "iu":  # whole-number scores, which are no word indices
            block = block.astype(float)
        top[rows] = _ranked.top_indices(block, (len(rows), n_words), widest)
    return float(RowMean.of(_ranked.accuracy_per_row(words, top), sample_weight))


def span_accuracy(
    texts: Any, scores_or_topk: Any, vectorizer: Any, *, sample_weight: Any = None
) -> RowMean:
    """Keyword accuracy with words and spans counted as the vectorizer segments the texts.

    With Y = vectorizer.transform(texts), S_n = {j : Y_nj > 0}, k_n = |S_n| and top_n the k_n best-scored
    columns:

        accuracy = sum_n w_n |top_n & S_n| / k_n  /  sum_n w_n        over rows with k_n > 0.

    A ``ConceptVectorizer`` matches greedily, longest first, so that a span ("new york") is one unit: it
    counts once in k_n, and a word that only occurs inside a span ("york") is neither a target nor a hit.
    The span-aware counterpart of the accuracy of Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    texts : sequence of n str
    scores_or_topk : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)
        As in :func:`keyword_accuracy`, over the vectorizer's columns.
    vectorizer : fitted vectorizer
        Anything with ``transform(texts)`` that gives counts (n, V).
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    RowMean
        The accuracy in [0, 1]; texts without a unit of the vocabulary are skipped.

    Raises
    ------
    ValueError
        If texts is one string, or as :func:`keyword_accuracy` does.

    Examples
    --------
    >>> from flip_sklearn.metrics import span_accuracy
    >>> from flip_sklearn.vocabulary import ConceptVectorizer
    >>> spans = ConceptVectorizer(vocabulary=["fly", "new york", "york"])
    >>> span_accuracy(["fly to New York"], [[0.3, 0.2, 0.5]], spans)  # "york" is no hit
    RowMean(0.5000 +- nan, n_rows=1, n_skipped=0)
    """
    if isinstance(texts, str):
        raise ValueError(
            f"texts is the string {texts[:40]!r}; pass a list of strings, one per row."
        )
    return keyword_accuracy(
        vectorizer.transform(texts), scores_or_topk, sample_weight=sample_weight
    )


def hit_sets(Y: Any, scores_or_topk: Any) -> sp.csr_array:
    """The words that keyword accuracy counts as found: H_n = top_n & S_n for every row.

    S_n and top_n as in :func:`keyword_accuracy`, whose value for row n is |H_n| / |S_n|.

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
    scores_or_topk : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)

    Returns
    -------
    csr_array of shape (n, V), bool
        True for a hit; nothing else is stored. Passed as scores with the same Y, it gives itself.

    Raises
    ------
    ValueError
        As :func:`keyword_accuracy` does.

    Examples
    --------
    >>> from flip_sklearn.metrics import hit_sets
    >>> hit_sets([[1, 1, 0], [0, 0, 2]], [[0.5, 0.1, 0.4], [0.2, 0.1, 0.7]]).toarray().astype(int)
    array([[1, 0, 0],
           [0, 0, 1]])
    """
    return _ranked.hits(*_words_and_top(Y, scores_or_topk))


def hit_jaccard(Y: Any, first: Any, second: Any, *, sample_weight: Any = None) -> RowMean:
    """Do two models find the same words? The Jaccard index of their hit sets on the same sentences.

    With the hit sets H1_n and H2_n (:func:`hit_sets`) of the two:

        jaccard = sum_n w_n |H1_n & H2_n| / |H1_n | H2_n|  /  sum_n w_n

    over rows where at least one model found a word; the others are skipped and counted. 1 means that the
    two find the same words, whatever their accuracy; equal accuracies with a low index mean that they
    find different ones. The index of Jaccard (1901), on the hits of the accuracy of Kesiraju et al.
    (2026, arXiv 2604.18109).

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts.
    first, second : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)
        Scores or ranked word indices of the two models, as in :func:`keyword_accuracy`. What
        :func:`hit_sets` gives for the same Y does as well.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    RowMean
        The index in [0, 1]; ``per_row`` is nan where neither found a word.

    Raises
    ------
    ValueError
        As :func:`keyword_accuracy` does.

    Examples
    --------
    >>> from flip_sklearn.metrics import hit_jaccard
    >>> Y = [[1, 1, 0], [0, 0, 1]]
    >>> hit_jaccard(Y, [[3.0, 2.0, 1.0], [1.0, 0.0, 0.0]], [[3.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
    RowMean(0.5000 +- nan, n_rows=1, n_skipped=1)
    """
    words = _ranked.binary_csr(Y)
    # Hit sets lie inside S_n, so ranking them changes nothing: they need no case of their own.
    one, two = (_ranked.hits(*_words_and_top(words, given)) for given in (first, second))
    both = np.asarray(one.multiply(two).sum(axis=1)).ravel()
    either = np.diff(one.indptr) + np.diff(two.indptr) - both
    per_row = np.where(either > 0, both / np.maximum(either, 1), np.nan)
    return RowMean.of(per_row, sample_weight)


@dataclass(frozen=True)
class PrecisionRecall:
    """Result of :func:`precision_recall`.

    Attributes
    ----------
    precision, recall, f1 : RowMean
        Each in [0, 1]. The F1 is the mean of the rows' F1, not the F1 of the means.
    """

    precision: RowMean
    recall: RowMean
    f1: RowMean


def precision_recall(
    Y: Any,
    scores_or_topk: Any,
    n: int = 10,
    *,
    n_reference: Any = None,
    sample_weight: Any = None,
) -> PrecisionRecall:
    """Precision, recall and F1 of the n best-scored words.

    With top_i the n best-scored words of row i, S_i its distinct in-vocabulary words, and r_i = |S_i|, or
    ``n_reference[i]`` where that is given:

        precision_i = |top_i & S_i| / |top_i|       recall_i = |top_i & S_i| / r_i
        f1_i = 2 precision_i recall_i / (precision_i + recall_i)

    each 0 where its denominator is, and then means over rows: without ``n_reference`` over rows with
    words, with it over all rows. The published evaluation of FLiP (Kesiraju et al. 2026, arXiv
    2604.18109) counts words outside the vocabulary as missed: pass their number within ``n_reference`` for
    its figures.

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n_rows, V)
        True word counts; anything above zero is a word of the row.
    scores_or_topk : array-like of shape (n_rows, V) or (n_rows, K), or sparse matrix of shape (n_rows, V)
        As in :func:`keyword_accuracy`, with K >= n.
    n : int, default=10
        Words per row, >= 1. Rows with fewer scored words have a smaller top_i.
    n_reference : array-like of shape (n_rows,), default=None
        Distinct words of each row, those outside the vocabulary included, for instance
        ``[len(set(text.lower().split())) for text in texts]``. Whole numbers, at least |S_i|.
    sample_weight : array-like of shape (n_rows,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    PrecisionRecall

    Raises
    ------
    ValueError
        If n or n_reference is out of range, or as :func:`keyword_accuracy` does.

    Examples
    --------
    >>> from flip_sklearn.metrics import precision_recall
    >>> Y = [[1, 1, 0, 0], [0, 0, 0, 3]]
    >>> top = [[0, 2], [3, 1]]  # word indices, best first
    >>> precision_recall(Y, top, n=2).recall
    RowMean(0.7500 +- 0.2500, n_rows=2, n_skipped=0)
    >>> precision_recall(Y, top, n=2, n_reference=[4, 2]).recall  # with words outside the vocabulary
    RowMean(0.3750 +- 0.1250, n_rows=2, n_skipped=0)
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n is {n!r}; pass the number of words per row, a whole number >= 1.")
    words = _ranked.binary_csr(Y)
    top = _ranked.top_indices(scores_or_topk, words.shape, int(n))
    given = (top >= 0).sum(axis=1)
    both = _ranked.is_row_word(words, top).sum(axis=1)
    n_words = np.diff(words.indptr)
    if n_reference is None:
        reference, skipped = n_words, n_words == 0
    else:
        reference, skipped = _checked_reference(n_reference, n_words), np.zeros(len(both), bool)

    def mean(denominator: np.ndarray, factor: int = 1) -> RowMean:
        values = np.where(denominator > 0, factor * both / np.maximum(denominator, 1), 0.0)
        return RowMean.of(np.where(skipped, np.nan, values), sample_weight)

    # 2 p r / (p + r) with p = both / given and r = both / reference
    return PrecisionRecall(mean(given), mean(reference), mean(given + reference, factor=2))


def _checked_reference(n_reference: Any, n_words: np.ndarray) -> np.ndarray:
    reference = np.asarray(n_reference)
    if reference.shape != n_words.shape or reference.dtype.kind not in "iuf":
        raise ValueError(
            f"n_reference has shape {reference.shape} and type {reference.dtype}; pass one whole number "
            f"per row, {n_words.shape}."
        )
    # A comparison with NaN is false, so that NaN is refused, too.
    wrong = ~((reference >= n_words) & (reference == np.round(reference)))
    if wrong.any() or np.isinf(reference).any():
        row = int(np.argmax(wrong | np.isinf(reference)))
        raise ValueError(
            f"n_reference is {reference[row]} in row {row}, which has {n_words[row]} distinct words of "
            "the vocabulary; it counts these and those outside, so pass a whole number at least as large."
        )
    return reference.astype(np.int64)


def _words_and_top(Y: Any, scores_or_topk: Any) -> tuple[sp.csr_array, np.ndarray]:
    """The words of each row, and as many best-scored ones as the fullest row has words."""
    words = _ranked.binary_csr(Y)
    widest = int(np.diff(words.indptr).max(initial=0))
    return words, _ranked.top_indices(scores_or_topk, words.shape, widest)

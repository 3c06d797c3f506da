"""Metrics of a ranking of words: keyword accuracy, hit sets, precision, recall and F1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.io import as_numpy
from flip_sklearn.metrics import ranking
from flip_sklearn.metrics.counts import check_columns_of, checked_sparse
from flip_sklearn.metrics.summary import RowMean, divide
from flip_sklearn.parameters import check_integer, warn_caller


def keyword_accuracy(Y: Any, scores_or_topk: Any, *, sample_weight: Any = None) -> RowMean:
    """Keyword accuracy: the share of the k words of a sentence that are among its k best-scored words.

    For row n let S_n = {j : Y_nj > 0} be its distinct in-vocabulary words, ``k_n = |S_n|``, and top_n
    the k_n best-scored words. Then::

        accuracy = sum_n w_n |top_n & S_n| / k_n  /  sum_n w_n        over rows with k_n > 0.

    This is the keyword accuracy of Kesiraju et al. (2026, arXiv 2604.18109): repeated words count once,
    rows without in-vocabulary words are skipped (and counted in ``n_skipped``).

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts; anything above zero is a word of the row.
    scores_or_topk : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)
        One of: float scores of every word; integer word indices, best first, with K >= max k_n (pad
        with -1 if a row has fewer); sparse scores, as ``FLiPExtractor.transform`` returns them, of which
        only the stored entries are ranked. Of equal scores, the lower index comes first.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    RowMean
        The accuracy in [0, 1].

    Raises
    ------
    ValueError
        If shapes do not match, indices are out of range, scores hold NaN, or K is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.metrics import keyword_accuracy
    >>> Y = np.array([[1, 1, 0], [0, 0, 2], [0, 0, 0]])
    >>> scores = np.array([[0.5, 0.1, 0.4], [0.2, 0.1, 0.7], [0.2, 0.1, 0.7]])
    >>> keyword_accuracy(Y, scores)
    RowMean(0.7500 +- 0.2500, n_rows=2, n_skipped=1)
    """
    return RowMean.of(ranking.accuracy_per_row(*_find_words(Y, scores_or_topk)), sample_weight)


def keyword_accuracy_scorer(estimator: Any, X: Any, Y: Any, sample_weight: Any = None) -> float:
    """Keyword accuracy as a scorer: ``GridSearchCV(..., scoring=keyword_accuracy_scorer)``.

    Works with every estimator that has ``decision_function`` or ``predict_proba`` over the columns of
    Y, sparse Y included, and computes the scores of a bounded number of rows at a time. For
    ``FLiPExtractor``, its own ``score`` (``scoring=None``) is the same, and faster.

    Parameters
    ----------
    estimator : fitted estimator
        With ``decision_function`` or ``predict_proba`` over the columns of Y.
    X : array-like of shape (n, d)
        Embeddings, as the estimator takes them.
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts; anything above zero is a word of the row.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    float
        The accuracy of :func:`keyword_accuracy`.
    """
    words = ranking.binary_csr(Y)
    n, n_words = words.shape
    ranking.check_n_rows(X, n)
    check_columns_of(estimator, Y, words)
    per_row = np.empty(n)
    for rows, scores in ranking.score_blocks(estimator, X, n_words):
        block = words[rows]
        top = ranking.top_indices(scores, block.shape, ranking.max_row_words(block))
        per_row[rows] = ranking.accuracy_per_row(block, ranking.hits(block, top))
    return float(RowMean.of(per_row, sample_weight))


def span_accuracy(texts: Any, scores_or_topk: Any, vectorizer: Any, *, sample_weight: Any = None) -> RowMean:
    """Keyword accuracy with the words and spans that a vectorizer counts in the texts.

    This is :func:`keyword_accuracy` with Y = vectorizer.transform(texts). A ``ConceptVectorizer`` matches
    greedily, longest first, so that a span ("new york") is one concept: it counts once in k_n, and a word
    that only occurs inside a span ("york") is neither a target nor a hit. This is the span-aware form of the
    accuracy of Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    texts : sequence of n str
        The true texts of the rows.
    scores_or_topk : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)
        As in :func:`keyword_accuracy`, over the vectorizer's columns.
    vectorizer : fitted vectorizer
        Its ``transform(texts)`` returns counts (n, V). A ``CountVectorizer`` never counts words of its
        ``vocabulary`` that have capitals, unless ``lowercase=False``; a warning has their number.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    RowMean
        The accuracy in [0, 1]; texts without a concept of the vocabulary are skipped.

    Raises
    ------
    ValueError
        If texts is one string, or as :func:`keyword_accuracy` does.

    Examples
    --------
    >>> from flip_sklearn.metrics import span_accuracy
    >>> from flip_sklearn.vocabulary import ConceptVectorizer
    >>> spans = ConceptVectorizer(vocabulary=["fly", "new york", "york"])
    >>> span_accuracy(["fly to New York"], [[0.3, 0.2, 0.5]], spans)  # "york" is not a hit
    RowMean(0.5000 +- nan, n_rows=1, n_skipped=0)
    """
    if isinstance(texts, str):
        raise ValueError(f"texts is the string {texts[:40]!r}; pass a list of strings, one per row.")
    _warn_of_unmatched_words(vectorizer)
    return keyword_accuracy(vectorizer.transform(texts), scores_or_topk, sample_weight=sample_weight)


def _warn_of_unmatched_words(vectorizer: Any) -> None:
    """Warn of words that a CountVectorizer never counts, since it cleans texts but not its vocabulary."""
    if not (hasattr(vectorizer, "build_preprocessor") and hasattr(vectorizer, "get_feature_names_out")):
        return
    clean, names = vectorizer.build_preprocessor(), vectorizer.get_feature_names_out().tolist()
    unmatched = [name for name in names if clean(name) != name]
    if unmatched:
        warn_caller(
            f"{len(unmatched)} of {len(names)} words of the vectorizer, such as {unmatched[0]!r:.60}, have "
            "capitals or accents, which it removes from texts but not from its vocabulary; they count as "
            "wrong wherever they are found. Use ConceptVectorizer(vocabulary=...), which treats both alike."
        )


def hit_sets(Y: Any, scores_or_topk: Any) -> sp.csr_array:
    """Return the words that keyword accuracy counts as found: H_n = top_n & S_n for every row.

    S_n and top_n as in :func:`keyword_accuracy`, whose value for row n is ``|H_n| / |S_n|``.

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts; anything above zero is a word of the row.
    scores_or_topk : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)
        As in :func:`keyword_accuracy`.

    Returns
    -------
    csr_array of shape (n, V), bool
        True for a hit; nothing else is stored. Hit sets may be passed as scores with the same Y.

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
    return _find_words(Y, scores_or_topk)[1]


def hit_jaccard(Y: Any, first: Any, second: Any, *, sample_weight: Any = None) -> RowMean:
    """Jaccard index of the hit sets of two models: whether they find the same words of a sentence.

    With the hit sets H1_n and H2_n (:func:`hit_sets`) of the two models::

        jaccard = sum_n w_n |H1_n & H2_n| / |H1_n | H2_n|  /  sum_n w_n

    over rows where at least one model found a word; the others are skipped and counted. 1 means that the
    models find the same words, whatever their accuracy; equal accuracies with a low index mean that they
    find different words. This is the index of Jaccard (1901) of the hits of the accuracy of Kesiraju et
    al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts.
    first, second : array-like of shape (n, V) or (n, K), or sparse matrix of shape (n, V)
        Scores or ranked word indices of the two models, as in :func:`keyword_accuracy`, or their
        :func:`hit_sets` with the same Y.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    RowMean
        The index in [0, 1]; ``per_row`` is nan where neither model found a word.

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
    words = ranking.binary_csr(Y)
    # The hits of a hit set are itself, so that hit sets need no special case.
    for scores in (first, second):
        ranking.check_same_columns(Y, scores, words)
    jaccard = ranking.jaccard_per_row(hit_sets(words, first), hit_sets(words, second))
    return RowMean.of(jaccard, sample_weight)


@dataclass(frozen=True)
class PrecisionRecall:
    """Result of :func:`precision_recall`.

    Attributes
    ----------
    precision, recall, f1 : RowMean
        Each in [0, 1]. ``f1`` is the mean of the rows' F1, not the F1 of the means.
    """

    precision: RowMean
    recall: RowMean
    f1: RowMean


def precision_recall(
    Y: Any, scores_or_topk: Any, n: int = 10, *, n_reference: Any = None, sample_weight: Any = None
) -> PrecisionRecall:
    """Precision, recall and F1 of the n best-scored words.

    With top_i the n best-scored words of row i, S_i its distinct in-vocabulary words, and ``r_i = |S_i|``,
    or ``n_reference[i]`` if that is passed::

        precision_i = |top_i & S_i| / |top_i|       recall_i = |top_i & S_i| / r_i
        f1_i = 2 precision_i recall_i / (precision_i + recall_i)

    each 0 if its denominator is 0. The results are means over rows with words, or over all rows with
    ``n_reference``. The published evaluation of FLiP (Kesiraju et al. 2026, arXiv 2604.18109) counts words
    outside the vocabulary as missed: pass ``n_reference``, which includes them, for its figures.

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n_rows, V)
        True word counts; anything above zero is a word of the row.
    scores_or_topk : array-like of shape (n_rows, V) or (n_rows, K), or sparse matrix of shape (n_rows, V)
        As in :func:`keyword_accuracy`, with K >= n.
    n : int, default=10
        Number of words per row, >= 1. Rows with fewer scored words have a smaller top_i.
    n_reference : array-like of shape (n_rows,), default=None
        Number of distinct words of each row, including those outside the vocabulary, for example
        ``[len(set(text.lower().split())) for text in texts]``. Integers, at least ``|S_i|``. If Y has columns
        of several words ("new york"), set these to zero first: the published evaluation never finds them.
    sample_weight : array-like of shape (n_rows,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    PrecisionRecall
        The three means, each a :class:`RowMean`.

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
    n = check_integer("n", n, 1)
    words = ranking.binary_csr(Y)
    ranking.check_same_columns(Y, scores_or_topk, words)
    top = ranking.top_indices(scores_or_topk, words.shape, min(n, words.shape[1]))
    n_top = (top >= 0).sum(axis=1)
    n_hits = ranking.find_words(words, top)[1].sum(axis=1)
    n_words = np.diff(words.indptr)
    reference = n_words if n_reference is None else _check_reference(n_reference, n_words)
    is_skipped = (n_words == 0) & (n_reference is None)

    def mean(numerator: np.ndarray, denominator: np.ndarray) -> RowMean:
        return RowMean.of(np.where(is_skipped, np.nan, divide(numerator, denominator, 0.0)), sample_weight)

    return PrecisionRecall(
        precision=mean(n_hits, n_top),
        recall=mean(n_hits, reference),
        f1=mean(2 * n_hits, n_top + reference),  # 2 p r / (p + r), simplified
    )


def _check_reference(n_reference: Any, n_words: np.ndarray) -> np.ndarray:
    reference = np.asarray(n_reference)
    if reference.shape != n_words.shape or reference.dtype.kind not in "iuf":
        raise ValueError(
            f"n_reference has shape {reference.shape} and type {reference.dtype}; pass one integer per "
            f"row, {n_words.shape}."
        )
    # Comparisons with NaN are false.
    is_allowed = (reference >= n_words) & (reference == np.round(reference)) & np.isfinite(reference)
    if not is_allowed.all():
        row = int(np.argmin(is_allowed))
        raise ValueError(
            f"n_reference is {reference[row]} in row {row}, which has {n_words[row]} distinct words of "
            "the vocabulary; pass an integer at least as large, since it includes these words. Columns of "
            "several words are not among the words of a text that is split at white space: set them to zero "
            "in Y for the published figures."
        )
    return reference.astype(np.int64)


def _find_words(Y: Any, scores_or_topk: Any) -> tuple[sp.csr_array, sp.csr_array]:
    """Return the words of each row, and those of them that are hits."""
    words = ranking.binary_csr(Y)
    ranking.check_same_columns(Y, scores_or_topk, words)
    is_sparse = sp.issparse(scores_or_topk)
    if is_sparse:
        scores = sp.csr_array(checked_sparse(scores_or_topk, "scores_or_topk").tocsr())
    else:
        scores = np.asarray(as_numpy(scores_or_topk))
    if scores.shape != words.shape or (not is_sparse and scores.dtype.kind in "iu"):
        top = ranking.top_indices(scores, words.shape, ranking.max_row_words(words))
        return words, ranking.hits(words, top)

    def top_of(rows: slice, n_top: int) -> np.ndarray:
        block = scores[rows]
        return ranking.top_indices(block, block.shape, n_top)

    return words, ranking.stream_hits(words, top_of)

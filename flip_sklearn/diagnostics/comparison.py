"""Which rank, which method: models side by side on the same sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from tqdm.auto import tqdm

from flip_sklearn.diagnostics.bootstrap import (
    Difference,
    Interval,
    PairedBootstrap,
    check_resampling,
)
from flip_sklearn.diagnostics.evaluation import (
    Sentences,
    as_seed,
    check_estimator,
    check_sentences,
    check_targets,
    find_words,
    fit_on,
    most_frequent,
    row_accuracy,
)
from flip_sklearn.diagnostics.frames import cells, columns, grid, shown
from flip_sklearn.diagnostics.split import SentenceSplit
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import resolve_rank
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.splice import SpLiCEExtractor

FREQUENCY = "most frequent words"


@dataclass(frozen=True, eq=False)
class RankAnalysis:
    """Result of :func:`rank_analysis`; arrays are (rank, view).

    Attributes
    ----------
    ranks : tuple of int or None
        Ranks from low to high; None, at the end, is LiP, the model without factorization.
    views : tuple of str
    accuracy : Interval of shape (R, v)
        Keyword accuracy on the test sentences.
    difference : Difference of shape (R, v)
        ``accuracy`` less that of LiP, or of the highest rank where LiP is not among the ranks.
    n_parameters : ndarray of shape (R,)
        Numbers in A, B and b: V r + r d + V, or V d + V for LiP.
    baseline : Interval of shape ()
        Keyword accuracy of always guessing the most frequent words.
    n_train, n_test, n_skipped : int
        Sentences trained on, tested on, and test sentences left out since they have no word.
    confidence : float
        Level of all intervals.
    """

    ranks: tuple[int | None, ...]
    views: tuple[str, ...]
    accuracy: Interval
    difference: Difference
    n_parameters: np.ndarray
    baseline: Interval
    n_train: int
    n_test: int
    n_skipped: int
    confidence: float

    @property
    def labels(self) -> tuple[str, ...]:
        """The ranks in words.

        Returns
        -------
        tuple of str
            Such as ("rank 64", "LiP").
        """
        return tuple("LiP" if rank is None else f"rank {rank}" for rank in self.ranks)

    def to_frame(self) -> Any:
        """One row for each rank and view.

        Returns
        -------
        pandas.DataFrame
            Columns ``rank`` (None for LiP), ``view``, ``n_parameters``, the accuracy and the difference
            with their intervals, and ``significant``.
        """
        where: dict[str, Any] = grid(rank=self.ranks, view=self.views)
        where["n_parameters"] = np.repeat(self.n_parameters, len(self.views))
        return data_frame(where | columns(self.accuracy, self.difference))

    def __repr__(self) -> str:
        return f"RankAnalysis({cells(self.labels, self.views, self.accuracy.value)})"


def rank_analysis(
    views: Any,
    Y: Any,
    ranks: Sequence[int | None] | None = None,
    *,
    estimator: FLiPExtractor | None = None,
    split: SentenceSplit | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> RankAnalysis:
    """How many dimensions the words need: accuracy against rank, beside LiP.

    For every rank r one FLiP model is trained on all views at once and tested on each; LiP is the same
    model with the whole (V, d) matrix in place of A B. Table 1 of Kesiraju et al. (2026, arXiv
    2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned views of the same sentences; one array is a view named "embeddings".
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the sentences.
    ranks : sequence of int or None, default=None
        Ranks from 1 to d; None among them stands for LiP. When None, the powers of two from 16 up to d,
        d itself if d is at most 512, and LiP.
    estimator : FLiPExtractor, default=None
        All settings but ``rank``; ``FLiPExtractor()`` when None.
    split : SentenceSplit, default=None
        As in :func:`view_alignment`.
    n_bootstrap : int, default=1000
        As in :func:`view_alignment`.
    confidence : float, default=0.95
        As in :func:`view_alignment`.
    random_state : int, RandomState instance or None, default=None
        As in :func:`view_alignment`.
    verbose : int, default=1
        As in :func:`view_alignment`.

    Returns
    -------
    RankAnalysis
        Accuracies and their differences to LiP, with intervals.

    Raises
    ------
    ValueError
        Before any training, if a rank is not from 1 to d, or views or Y are not aligned.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import rank_analysis
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.2, size=(600, 20))
    >>> X = Y @ rng.normal(size=(20, 16))
    >>> result = rank_analysis(X, Y, [2, 16, None], random_state=0)
    >>> result.labels, bool(result.accuracy.value[0, 0] < result.accuracy.value[1, 0])
    (('rank 2', 'rank 16', 'LiP'), True)
    """
    check_resampling(n_bootstrap, confidence)
    seed = as_seed(random_state)
    sentences = check_sentences(views, split, seed)
    counts = check_targets(Y, sentences)
    d, n_words = next(iter(sentences.views.values())).shape[1], counts.shape[1]
    tried = _check_ranks(ranks, d)
    model = check_estimator(estimator, seed)
    if "rank" not in model.get_params(deep=False):
        raise ValueError(f"estimator is {estimator!r}, which has no rank; pass a FLiPExtractor.")
    models = {str(rank): clone(model).set_params(rank=rank) for rank in tried}
    per_row = _read_all(models, sentences, counts, "ranks", verbose)
    bootstrap = _resample(per_row, sentences, n_bootstrap, confidence, seed)
    cell = np.arange(per_row.shape[1]).reshape(-1, len(sentences.names))
    return RankAnalysis(
        ranks=tried,
        views=sentences.names,
        accuracy=bootstrap.means(cell[:-1]),
        difference=bootstrap.differences(cell[:-1], np.broadcast_to(cell[-2], cell[:-1].shape)),
        n_parameters=np.array(
            [n_words * (d + 1) if r is None else r * (n_words + d) + n_words for r in tried]
        ),
        baseline=bootstrap.means(cell[-1, 0]),
        n_train=len(sentences.split.train),
        n_test=len(sentences.split.test),
        n_skipped=int(np.isnan(per_row[:, 0]).sum()),
        confidence=confidence,
    )


@dataclass(frozen=True, eq=False)
class ExtractorComparison:
    """Result of :func:`compare_extractors`; arrays are (extractor, view).

    Attributes
    ----------
    extractors : tuple of str
        Names; the last one is the guess of the most frequent words.
    views : tuple of str
    accuracy : Interval of shape (e, v)
        Keyword accuracy on the test sentences: span-aware where Y counts spans as units.
    difference : Difference of shape (e, v)
        ``accuracy`` less that of the first extractor.
    n_train, n_test, n_skipped : int
        Sentences trained on, tested on, and test sentences left out since they have no word.
    confidence : float
        Level of all intervals.
    """

    extractors: tuple[str, ...]
    views: tuple[str, ...]
    accuracy: Interval
    difference: Difference
    n_train: int
    n_test: int
    n_skipped: int
    confidence: float

    def to_frame(self) -> Any:
        """One row for each extractor and view.

        Returns
        -------
        pandas.DataFrame
            Columns ``extractor``, ``view``, the accuracy and the difference with their intervals, and
            ``significant``.
        """
        where = grid(extractor=self.extractors, view=self.views)
        return data_frame(where | columns(self.accuracy, self.difference))

    def __repr__(self) -> str:
        return f"ExtractorComparison({cells(self.extractors, self.views, self.accuracy.value)})"


def compare_extractors(
    views: Any,
    Y: Any,
    extractors: Mapping[str, Any] | None = None,
    *,
    dictionary: Any = None,
    split: SentenceSplit | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> ExtractorComparison:
    """FLiP beside LiP, SpLiCE and guessing, over one vocabulary and the same test sentences.

    Every extractor is trained on all views at once and tested on each; always guessing the words that
    are most frequent in training is the floor. Over counts of a
    :class:`~flip_sklearn.vocabulary.ConceptVectorizer` the accuracy is the span-aware one, and the result
    table 6 of Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned views of the same sentences.
    Y : {array-like, sparse matrix} of shape (n, V)
        Counts of words or concepts.
    extractors : mapping of str to estimator, default=None
        What to compare, each fitted anew; differences are to the first. When None, FLiP, LiP and, where a
        ``dictionary`` is given, SpLiCE.
    dictionary : array-like of shape (V, d), default=None
        Embeddings of the words of Y as texts of their own, by the same encoder, for SpLiCE.
    split : SentenceSplit, default=None
        As in :func:`view_alignment`.
    n_bootstrap : int, default=1000
        As in :func:`view_alignment`.
    confidence : float, default=0.95
        As in :func:`view_alignment`.
    random_state : int, RandomState instance or None, default=None
        As in :func:`view_alignment`.
    verbose : int, default=1
        As in :func:`view_alignment`.

    Returns
    -------
    ExtractorComparison
        Accuracies and their differences to the first extractor, with intervals.

    Raises
    ------
    ValueError
        Before any training, if views, Y or the dictionary do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import compare_extractors
    >>> rng = np.random.default_rng(0)
    >>> Y, words = rng.poisson(0.2, size=(600, 20)), rng.normal(size=(20, 16))
    >>> result = compare_extractors(Y @ words, Y, dictionary=words, random_state=0)
    >>> result.extractors
    ('FLiP', 'LiP', 'SpLiCE', 'most frequent words')
    """
    check_resampling(n_bootstrap, confidence)
    seed = as_seed(random_state)
    sentences = check_sentences(views, split, seed)
    counts = check_targets(Y, sentences)
    models = _check_extractors(extractors, dictionary, sentences, counts, seed)
    per_row = _read_all(models, sentences, counts, "extractors", verbose)
    bootstrap = _resample(per_row, sentences, n_bootstrap, confidence, seed)
    cell = np.arange(per_row.shape[1]).reshape(-1, len(sentences.names))
    return ExtractorComparison(
        extractors=(*models, FREQUENCY),
        views=sentences.names,
        accuracy=bootstrap.means(cell),
        difference=bootstrap.differences(cell, np.broadcast_to(cell[0], cell.shape)),
        n_train=len(sentences.split.train),
        n_test=len(sentences.split.test),
        n_skipped=int(np.isnan(per_row[:, 0]).sum()),
        confidence=confidence,
    )


def _read_all(
    models: Mapping[str, Any], sentences: Sentences, counts: sp.csr_array, what: str, verbose: int
) -> np.ndarray:
    """Accuracy of each test sentence (n, (m + 1) v): model by model, then the most frequent words."""
    train, test = sentences.split.train, sentences.split.test
    truth, per_row = counts[test], []
    for name in (bar := tqdm(models, desc=what, unit="fit", delay=2, disable=not verbose)):
        bar.set_postfix_str(name)
        fitted = fit_on(models[name], sentences, sentences.names, counts)
        for view in sentences.names:
            per_row.append(row_accuracy(find_words(fitted, sentences.test(view), truth), truth))
    guess = row_accuracy(most_frequent(counts[train], truth), truth)
    return np.column_stack(per_row + [guess] * len(sentences.names))


def _resample(
    per_row: np.ndarray, sentences: Sentences, n_bootstrap: int, confidence: float, seed: int
) -> PairedBootstrap:
    groups = sentences.split.groups[sentences.split.test]
    return PairedBootstrap(per_row, groups, n_bootstrap, confidence, seed)


def _check_ranks(ranks: Any, d: int) -> tuple[int | None, ...]:
    """Ranks from low to high, LiP last."""
    if ranks is None:
        powers = [2**p for p in range(4, d.bit_length()) if 2**p < d]
        return (*powers, *([d] if d <= 512 else []), None)
    if isinstance(ranks, (str, bytes)) or not hasattr(ranks, "__iter__") or not list(ranks):
        raise ValueError(f"ranks={ranks!r} is not allowed; use a sequence of ranks from 1 to {d}.")
    given = list(ranks)
    whole = {resolve_rank(rank, d) for rank in given if rank is not None}
    return (*sorted(r for r in whole if r is not None), *([None] if None in given else []))


def _check_extractors(
    extractors: Any, dictionary: Any, sentences: Sentences, counts: sp.csr_array, seed: int
) -> dict[str, Any]:
    if dictionary is not None:
        d = next(iter(sentences.views.values())).shape[1]
        if np.shape(dictionary) != (counts.shape[1], d):
            raise ValueError(
                f"dictionary has shape {np.shape(dictionary)}; pass one embedding of {d} dimensions for "
                f"each of the {counts.shape[1]} columns of Y."
            )
    if extractors is None:
        extractors = {"FLiP": FLiPExtractor(), "LiP": FLiPExtractor(rank=None)}
        if dictionary is not None:
            extractors["SpLiCE"] = SpLiCEExtractor(dictionary)
    elif dictionary is not None:
        raise ValueError(
            "pass extractors or a dictionary; SpLiCEExtractor(dictionary) may be among them."
        )
    if not isinstance(extractors, Mapping) or not extractors:
        raise ValueError(
            f"extractors is {shown(extractors)}; pass a mapping of at least one name to an estimator."
        )
    if FREQUENCY in extractors:
        raise ValueError(
            f"the name {FREQUENCY!r} is taken by the floor of the comparison; choose another."
        )
    return {str(name): check_estimator(model, seed) for name, model in extractors.items()}

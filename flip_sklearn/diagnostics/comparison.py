"""Comparison of models on the same sentences: ranks of FLiP, and other extractors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from flip_sklearn.diagnostics import evaluation, inputs
from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.evaluation import FittedModels
from flip_sklearn.diagnostics.frames import accuracy_columns, grid, matrix_text
from flip_sklearn.diagnostics.inputs import EvaluationSettings
from flip_sklearn.diagnostics.split import SentenceSplit
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.splice import SpLiCEExtractor

# Name of the baseline among the extractors.
BASELINE = "most frequent words"


@dataclass(frozen=True, eq=False)
class RankAnalysis:
    """Result of :func:`rank_analysis`; arrays are (rank, view).

    Attributes
    ----------
    ranks : tuple of int or None
        Ranks in ascending order; None, at the end, is LiP, the model without factorization.
    views : tuple of str
        Names of the v views.
    accuracy : Interval of shape (R, v)
        Keyword accuracy on the test sentences.
    difference : Difference of shape (R, v)
        ``accuracy`` minus that of LiP, or of the highest rank if LiP is not among the ranks.
    n_parameters : ndarray of shape (R,)
        Number of parameters in A, B and b: V r + r d + V, or V d + V for LiP.
    baseline : Interval of shape ()
        Keyword accuracy of the baseline, which always extracts the most frequent training words.
    n_train, n_test, n_skipped : int
        Number of training sentences, of test sentences, and of test sentences without words, which are
        left out.
    confidence : float
        Level of all intervals.
    labels : tuple of str
        Names of the models, such as ("rank 64", "LiP").
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
        """Names of the models.

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
        labels = grid(rank=self.ranks, view=self.views)
        labels["n_parameters"] = np.repeat(self.n_parameters, len(self.views))
        return data_frame(labels | accuracy_columns(self.accuracy, self.difference))

    def __repr__(self) -> str:
        return f"RankAnalysis({matrix_text(self.labels, self.views, self.accuracy.value)})"


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
    """Measure keyword accuracy as a function of the rank, next to LiP.

    For every rank r one FLiP model is trained on all views at once and tested on each view. LiP is the
    same model with an unfactorized (V, d) matrix in place of A B. Table 1 of Kesiraju et al. (2026, arXiv
    2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned views of the same sentences; one array is a view named "embeddings".
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the sentences.
    ranks : sequence of int or None, default=None
        Ranks from 1 to d; an element None stands for LiP. When None, the powers of two from 16 up to d,
        d itself if d is at most 512, and LiP.
    estimator : FLiPExtractor, default=None
        All settings except ``rank``; ``FLiPExtractor()`` when None.
    split : SentenceSplit, default=None
        As in :func:`view_alignment`.
    n_bootstrap : int, default=1000
        Number of resamples of the test sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the fits and the resamples.
    verbose : int, default=1
        If above zero, show a progress bar for computations of more than two seconds.

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
    settings = inputs.check_settings(n_bootstrap, confidence, random_state, verbose)
    sentences = inputs.check_sentences(views, split, settings.random_state)
    counts = inputs.check_targets(Y, sentences)
    resolved_ranks = inputs.check_ranks(ranks, sentences.n_dimensions)
    model = inputs.check_estimator(estimator, settings.random_state)
    if "rank" not in model.get_params(deep=False):
        raise ValueError(f"estimator is {estimator!r}, which has no rank; pass a FLiPExtractor.")
    return compute_ranks(FittedModels(sentences), model, resolved_ranks, counts, settings)


def compute_ranks(
    models: FittedModels,
    estimator: Any,
    ranks: tuple[int | None, ...],
    counts: sp.csr_array,
    settings: EvaluationSettings,
) -> RankAnalysis:
    """Compute :func:`rank_analysis` from checked inputs."""
    sentences = models.sentences
    d, n_words = sentences.n_dimensions, counts.shape[1]
    estimators = {str(rank): clone(estimator).set_params(rank=rank) for rank in ranks}
    bootstrap, column, n_skipped = _bootstrap_accuracy(models, estimators, counts, "ranks", settings)
    of_rank, of_baseline = column[:-1], column[-1]
    n_factors = [n_words * d if rank is None else rank * (n_words + d) for rank in ranks]
    return RankAnalysis(
        ranks=ranks,
        views=sentences.names,
        accuracy=bootstrap.means(of_rank),
        difference=bootstrap.differences(of_rank, np.broadcast_to(of_rank[-1], of_rank.shape)),
        n_parameters=np.array(n_factors) + n_words,
        baseline=bootstrap.means(of_baseline[0]),
        n_train=len(sentences.split.train),
        n_test=len(sentences.split.test),
        n_skipped=n_skipped,
        confidence=settings.confidence,
    )


@dataclass(frozen=True, eq=False)
class ExtractorComparison:
    """Result of :func:`compare_extractors`; arrays are (extractor, view).

    Attributes
    ----------
    extractors : tuple of str
        Names; the last one is the baseline, which always extracts the most frequent training words.
    views : tuple of str
        Names of the v views.
    accuracy : Interval of shape (e, v)
        Keyword accuracy on the test sentences: span-aware where Y counts spans as units.
    difference : Difference of shape (e, v)
        ``accuracy`` minus that of the first extractor.
    n_train, n_test, n_skipped : int
        Number of training sentences, of test sentences, and of test sentences without words, which are
        left out.
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
        labels = grid(extractor=self.extractors, view=self.views)
        return data_frame(labels | accuracy_columns(self.accuracy, self.difference))

    def __repr__(self) -> str:
        return f"ExtractorComparison({matrix_text(self.extractors, self.views, self.accuracy.value)})"


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
    """Compare FLiP with LiP, SpLiCE and a baseline on one vocabulary and the same test sentences.

    Every extractor is trained on all views at once and tested on each view. The baseline always extracts
    the words that are most frequent in training. With the counts of a
    :class:`~flip_sklearn.vocabulary.ConceptVectorizer`, the accuracy is the span-aware one. Table 6 of
    Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned views of the same sentences.
    Y : {array-like, sparse matrix} of shape (n, V)
        Counts of words or concepts.
    extractors : mapping of str to estimator, default=None
        Extractors to compare; clones of them are fitted. Differences are to the first one. When None,
        FLiP, LiP and, with a ``dictionary``, SpLiCE.
    dictionary : array-like of shape (V, d), default=None
        Embeddings of the single words of Y by the same encoder, for SpLiCE.
    split : SentenceSplit, default=None
        As in :func:`view_alignment`.
    n_bootstrap : int, default=1000
        Number of resamples of the test sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the fits and the resamples.
    verbose : int, default=1
        If above zero, show a progress bar for computations of more than two seconds.

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
    settings = inputs.check_settings(n_bootstrap, confidence, random_state, verbose)
    sentences = inputs.check_sentences(views, split, settings.random_state)
    counts = inputs.check_targets(Y, sentences)
    shape = (counts.shape[1], sentences.n_dimensions)
    estimators = _check_extractors(extractors, dictionary, shape, settings.random_state)
    return compute_extractors(FittedModels(sentences), estimators, counts, settings)


def compute_extractors(
    models: FittedModels, estimators: Mapping[str, Any], counts: sp.csr_array, settings: EvaluationSettings
) -> ExtractorComparison:
    """Compute :func:`compare_extractors` from checked inputs."""
    sentences = models.sentences
    bootstrap, column, n_skipped = _bootstrap_accuracy(models, estimators, counts, "extractors", settings)
    return ExtractorComparison(
        extractors=(*estimators, BASELINE),
        views=sentences.names,
        accuracy=bootstrap.means(column),
        difference=bootstrap.differences(column, np.broadcast_to(column[0], column.shape)),
        n_train=len(sentences.split.train),
        n_test=len(sentences.split.test),
        n_skipped=n_skipped,
        confidence=settings.confidence,
    )


def _bootstrap_accuracy(
    models: FittedModels,
    estimators: Mapping[str, Any],
    counts: sp.csr_array,
    description: str,
    settings: EvaluationSettings,
) -> tuple[PairedBootstrap, np.ndarray, int]:
    """Bootstrap of accuracies, its columns as (estimators and the baseline, views), and n_skipped."""
    sentences = models.sentences
    fits = [(name, models, estimator, counts) for name, estimator in estimators.items()]
    accuracies = evaluation.joint_accuracy(fits, description, settings.verbose)
    baseline = evaluation.baseline_accuracy(sentences, counts)
    per_row = np.column_stack(accuracies + [baseline] * len(sentences.names))
    bootstrap = PairedBootstrap(per_row, sentences.test_groups, settings)
    column = np.arange(per_row.shape[1]).reshape(-1, len(sentences.names))
    return bootstrap, column, int(np.isnan(baseline).sum())


def _check_extractors(extractors: Any, dictionary: Any, shape: tuple[int, int], seed: int) -> dict[str, Any]:
    """The extractors by name, seeded; FLiP, LiP and, with a dictionary of this shape, SpLiCE when None."""
    if dictionary is not None and np.shape(dictionary) != shape:
        raise ValueError(
            f"dictionary has shape {np.shape(dictionary)}; pass one embedding of {shape[1]} dimensions "
            f"for each of the {shape[0]} columns of Y."
        )
    if dictionary is not None and extractors is not None:
        raise ValueError("pass extractors or a dictionary; SpLiCEExtractor(dictionary) may be among them.")
    if extractors is None:
        extractors = {"FLiP": FLiPExtractor(), "LiP": FLiPExtractor(rank=None)}
        if dictionary is not None:
            extractors["SpLiCE"] = SpLiCEExtractor(dictionary)
    inputs.check_mapping("extractors", extractors, "at least one name to an estimator")
    if BASELINE in extractors:
        raise ValueError(
            f"the name {BASELINE!r} is reserved for the baseline of the comparison; choose another."
        )
    return {str(name): inputs.check_estimator(model, seed) for name, model in extractors.items()}

"""Vocabulary preference: words of each language, extracted from every view, by one or more encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.diagnostics import evaluation, inputs
from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.evaluation import FittedModels
from flip_sklearn.diagnostics.frames import accuracy_columns, grid, matrix_text
from flip_sklearn.diagnostics.inputs import EvaluationSettings, Sentences
from flip_sklearn.diagnostics.split import SentenceSplit, split_sentences
from flip_sklearn.estimation.frames import data_frame


@dataclass(frozen=True, eq=False)
class VocabularyPreference:
    """Result of :func:`vocabulary_preference`; arrays are (language of the words, view).

    Attributes
    ----------
    languages, views : tuple of str
        The L vocabularies and the v views.
    reference : tuple of str
        For each language, the view that differences are to: the view of that name if there is one,
        else the first view.
    accuracy : Interval of shape (L, v)
        Keyword accuracy for the words of one language in one view.
    difference : Difference of shape (L, v)
        ``accuracy`` minus that in the reference view.
    baseline : Interval of shape (L,)
        Keyword accuracy of the baseline, which always extracts the language's most frequent words.
    n_train, n_test : int
        Number of training and of test sentences.
    n_skipped : tuple of int
        For each language, number of test sentences without words, which are left out.
    confidence : float
        Level of all intervals.
    preferred : tuple of str
        For each language, the view with the highest accuracy.
    """

    languages: tuple[str, ...]
    views: tuple[str, ...]
    reference: tuple[str, ...]
    accuracy: Interval
    difference: Difference
    baseline: Interval
    n_train: int
    n_test: int
    n_skipped: tuple[int, ...]
    confidence: float

    @property
    def preferred(self) -> tuple[str, ...]:
        """The view in which each language has the highest accuracy.

        Returns
        -------
        tuple of str
            Names of views, one for each language.
        """
        return tuple(self.views[j] for j in self.accuracy.value.argmax(axis=1))

    def to_frame(self) -> Any:
        """One row for each language and view.

        Returns
        -------
        pandas.DataFrame
            Columns ``words_of``, ``view``, ``reference``, the accuracy and the difference with their
            intervals, and ``significant``.
        """
        labels = grid(words_of=self.languages, view=self.views)
        labels["reference"] = np.repeat(np.array(self.reference, dtype=object), len(self.views))
        return data_frame(labels | accuracy_columns(self.accuracy, self.difference))

    def __repr__(self) -> str:
        return f"VocabularyPreference({matrix_text(self.languages, self.views, self.accuracy.value)})"


def vocabulary_preference(
    views: Mapping[str, Any],
    vocabularies: Mapping[str, Any],
    *,
    estimator: Any = None,
    split: SentenceSplit | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> VocabularyPreference:
    """Compare the views by how well one model, trained on all of them, extracts a language's words.

    For each language l one model f_l of the words of l is trained on all views at once (the rows stacked,
    equation 4 of the paper with equal weights). H_lj(n) are the words that it finds in view j of test
    sentence n, among its k_ln best, and k_ln is the number of distinct words of the sentence::

        accuracy[l, j]   = mean over test sentences of |H_lj(n)| / k_ln
        difference[l, j] = accuracy[l, j] - accuracy[l, reference of l]

    If an encoder prefers one language, even the words of other languages are found better in the view of
    that language. Table 4 of Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d)
        Row-aligned views of the same sentences, in one embedding space.
    vocabularies : mapping of str to {array-like, sparse matrix} of shape (n, V)
        For each language, the word counts of the sentences' text in that language. The reference view of
        a language is the view of the same name if there is one, else the first view.
    estimator : estimator, default=None
        As in :func:`view_alignment`.
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
    VocabularyPreference
        The matrices, with intervals.

    Raises
    ------
    ValueError
        Before any training, if views are not aligned, or a language has no words.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import vocabulary_preference
    >>> rng = np.random.default_rng(0)
    >>> english = rng.poisson(0.2, size=(600, 20))
    >>> german = english[:, rng.permutation(20)]  # every word has one translation
    >>> en = english @ rng.normal(size=(20, 16))
    >>> de = en + 2 * rng.normal(size=en.shape)  # the German embeddings are noisy
    >>> result = vocabulary_preference({"en": en, "de": de}, {"en": english, "de": german},
    ...                                random_state=0)
    >>> result.preferred
    ('en', 'en')
    """
    settings = inputs.check_settings(n_bootstrap, confidence, random_state, verbose)
    sentences = inputs.check_sentences(views, split, settings.random_state)
    counts = _check_vocabularies(vocabularies, sentences)
    model = inputs.check_estimator(estimator, settings.random_state)
    return compute_preference(FittedModels(sentences), dict.fromkeys(counts, model), counts, settings)


@dataclass(frozen=True, eq=False)
class EncoderComparison:
    """Result of :func:`compare_encoders`; arrays are (encoder, language of the words, view).

    Attributes
    ----------
    encoders, languages, views : tuple of str
        Names along the three axes; differences are to the first encoder.
    accuracy : Interval of shape (e, L, v)
        Keyword accuracy.
    difference : Difference of shape (e, L, v)
        ``accuracy`` minus that of the first encoder for the same view and language.
    preferences : dict of str to VocabularyPreference
        The result of each encoder.
    confidence : float
        Level of all intervals.
    """

    encoders: tuple[str, ...]
    languages: tuple[str, ...]
    views: tuple[str, ...]
    accuracy: Interval
    difference: Difference
    preferences: dict[str, VocabularyPreference]
    confidence: float

    def to_frame(self) -> Any:
        """One row for each encoder, language and view.

        Returns
        -------
        pandas.DataFrame
            Columns ``encoder``, ``words_of``, ``view``, the accuracy and the difference with their
            intervals, and ``significant``.
        """
        labels = grid(encoder=self.encoders, words_of=self.languages, view=self.views)
        return data_frame(labels | accuracy_columns(self.accuracy, self.difference))

    def __repr__(self) -> str:
        means = self.accuracy.value.mean(axis=(1, 2))
        listed = ", ".join(f"{e} {m:.3f}" for e, m in zip(self.encoders, means, strict=True))
        return f"EncoderComparison(mean accuracy: {listed})"


def compare_encoders(
    encoders: Mapping[str, Mapping[str, Any]],
    vocabularies: Mapping[str, Any],
    *,
    estimator: Any = None,
    split: SentenceSplit | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> EncoderComparison:
    """Compare the vocabulary preference of several encoders on the same sentences and split.

    Computes :func:`vocabulary_preference` for each encoder with the same training sentences, test
    sentences and resamples, so that differences between encoders are paired. Table 5 of Kesiraju et al.
    (2026, arXiv 2604.18109).

    Parameters
    ----------
    encoders : mapping of str to mapping of str to array-like of shape (n, d)
        For each encoder its views, with the same names and of the same sentences; d may differ.
    vocabularies : mapping of str to {array-like, sparse matrix} of shape (n, V)
        As in :func:`vocabulary_preference`.
    estimator : estimator, default=None
        As in :func:`view_alignment`.
    split : SentenceSplit, default=None
        As in :func:`view_alignment`; when None, sentences with equal embeddings by any encoder stay
        together.
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
    EncoderComparison
        Accuracies and their differences to the first encoder, with intervals.

    Raises
    ------
    ValueError
        Before any training, if encoders differ in their views or sentences, or a language has no words.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import compare_encoders
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.2, size=(600, 20))
    >>> good, small = Y @ rng.normal(size=(20, 16)), Y @ rng.normal(size=(20, 4))
    >>> result = compare_encoders({"good": {"en": good}, "small": {"en": small}}, {"en": Y},
    ...                           random_state=0)
    >>> bool(result.difference.value[1, 0, 0] < 0), bool(result.difference.significant[1, 0, 0])
    (True, True)
    """
    settings = inputs.check_settings(n_bootstrap, confidence, random_state, verbose)
    sentences_of = _check_encoders(encoders, split, settings.random_state)
    first = next(iter(sentences_of.values()))
    counts = _check_vocabularies(vocabularies, first)
    estimators = dict.fromkeys(counts, inputs.check_estimator(estimator, settings.random_state))
    models = {encoder: FittedModels(sentences) for encoder, sentences in sentences_of.items()}
    return _compute_encoders(models, estimators, counts, settings)


def compute_preference(
    models: FittedModels,
    estimators: Mapping[str, Any],
    counts: Mapping[str, sp.csr_array],
    settings: EvaluationSettings,
) -> VocabularyPreference:
    """Compute :func:`vocabulary_preference` from checked inputs, with an estimator for each language."""
    return _compute_encoders({"": models}, estimators, counts, settings).preferences[""]


def _compute_encoders(
    models: Mapping[str, FittedModels],
    estimators: Mapping[str, Any],
    counts: Mapping[str, sp.csr_array],
    settings: EvaluationSettings,
) -> EncoderComparison:
    sentences = next(iter(models.values())).sentences
    views, languages = sentences.names, tuple(counts)
    fits = [
        (language, encoder_models, estimators[language], Y)
        for encoder_models in models.values()
        for language, Y in counts.items()
    ]
    accuracies = evaluation.joint_accuracy(fits, "vocabularies", settings.verbose)
    baselines = [evaluation.baseline_accuracy(sentences, Y) for Y in counts.values()]
    bootstrap = PairedBootstrap(np.column_stack(accuracies + baselines), sentences.test_groups, settings)
    column = np.arange(len(accuracies)).reshape(len(models), len(languages), len(views))
    reference = tuple(language if language in views else views[0] for language in languages)
    reference_view = [views.index(view) for view in reference]
    preferences = {}
    for encoder, columns in zip(models, column, strict=True):
        reference_columns = columns[np.arange(len(languages)), reference_view][:, None]
        preferences[encoder] = VocabularyPreference(
            languages=languages,
            views=views,
            reference=reference,
            accuracy=bootstrap.means(columns),
            difference=bootstrap.differences(columns, np.broadcast_to(reference_columns, columns.shape)),
            baseline=bootstrap.means(len(accuracies) + np.arange(len(languages))),
            n_train=len(sentences.split.train),
            n_test=len(sentences.split.test),
            n_skipped=tuple(int(np.isnan(baseline).sum()) for baseline in baselines),
            confidence=settings.confidence,
        )
    return EncoderComparison(
        encoders=tuple(models),
        languages=languages,
        views=views,
        accuracy=bootstrap.means(column),
        difference=bootstrap.differences(column, np.broadcast_to(column[0], column.shape)),
        preferences=preferences,
        confidence=settings.confidence,
    )


def _check_encoders(encoders: Any, split: SentenceSplit | None, seed: int) -> dict[str, Sentences]:
    """The views of every encoder, all with the same split."""
    inputs.check_mapping("encoders", encoders, "at least one name to its views")
    checked = {name: inputs.check_sentences(views, split, seed) for name, views in encoders.items()}
    first, sentences = next(iter(checked.items()))
    n = len(sentences.split.groups)
    for name, other in checked.items():
        if other.names != sentences.names or len(other.split.groups) != n:
            raise ValueError(
                f"encoder {name!r} has the views {other.names} of {len(other.split.groups)} sentences, "
                f"encoder {first!r} {sentences.names} of {n}; pass the same views and sentences, in the "
                "same order, for all encoders."
            )
    if split is None and len(checked) > 1:
        joint = sentences.split
        for other in checked.values():  # merge the groups of equal embeddings of all encoders
            joint = split_sentences(other.views, groups=joint.groups, random_state=seed)
        checked = {name: Sentences(other.views, joint) for name, other in checked.items()}
    return checked


def _check_vocabularies(vocabularies: Any, sentences: Sentences) -> dict[str, sp.csr_array]:
    """The word counts of every language."""
    inputs.check_mapping("vocabularies", vocabularies, "languages to (n, V) word counts")
    return {
        language: inputs.check_targets(Y, sentences, f"the vocabulary of {language!r}")
        for language, Y in vocabularies.items()
    }

"""Whose words does a view give away? Words of each language, read from every view and encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
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
        For each language, the view that differences are to: its own where there is one, else the first.
    accuracy : Interval of shape (L, v)
        Keyword accuracy of reading words of one language from one view.
    difference : Difference of shape (L, v)
        ``accuracy`` less that of the reference view.
    baseline : Interval of shape (L,)
        Keyword accuracy of always guessing the language's most frequent words.
    n_train, n_test : int
        Sentences trained on and tested on.
    n_skipped : tuple of int
        For each language, test sentences left out since they have no word of it.
    confidence : float
        Level of all intervals.
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
        """The view that each language's words are read from best.

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
        where = grid(words_of=self.languages, view=self.views)
        where["reference"] = np.repeat(np.array(self.reference, dtype=object), len(self.views))
        return data_frame(where | columns(self.accuracy, self.difference))

    def __repr__(self) -> str:
        return f"VocabularyPreference({cells(self.languages, self.views, self.accuracy.value)})"


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
    """Which view gives away the words of a language best, when a model has learned from all views?

    For each language l one model f_l is trained on all views at once (the rows stacked, equation 4 of the
    paper with equal weights) to read the words of l, and tested on every view j:

        accuracy[l, j]   = mean over test sentences of |H_lj(n)| / k_ln
        difference[l, j] = accuracy[l, j] - accuracy[l, reference of l]

    An encoder that prefers one language gives away even the others' words better from that language's
    view. Table 4 of Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d)
        Row-aligned views of the same sentences, in one embedding space.
    vocabularies : mapping of str to {array-like, sparse matrix} of shape (n, V)
        For each language, the counts of its words in the sentences' text of that language. A language
        with the name of a view is compared with that view, another with the first view.
    estimator : estimator, default=None
        As in :func:`view_alignment`.
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
    >>> de = en + 2 * rng.normal(size=en.shape)  # German is embedded less well
    >>> result = vocabulary_preference({"en": en, "de": de}, {"en": english, "de": german},
    ...                                random_state=0)
    >>> result.preferred
    ('en', 'en')
    """
    result = _compare(
        {"": views}, vocabularies, estimator, split, n_bootstrap, confidence, random_state, verbose
    )
    return result.preferences[""]


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
        ``accuracy`` less that of the first encoder on the same view and language.
    preferences : dict of str to VocabularyPreference
        Each encoder's own result.
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
        where = grid(encoder=self.encoders, words_of=self.languages, view=self.views)
        return data_frame(where | columns(self.accuracy, self.difference))

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
    """The vocabulary preference of several encoders, on the same sentences and the same split.

    One :func:`vocabulary_preference` for each encoder, with the same training and test sentences and the
    same resamples, so that encoders can be compared sentence by sentence. Table 5 of Kesiraju et al.
    (2026, arXiv 2604.18109).

    Parameters
    ----------
    encoders : mapping of str to mapping of str to array-like of shape (n, d)
        For each encoder its views, under the same names and over the same sentences; d may differ.
    vocabularies : mapping of str to {array-like, sparse matrix} of shape (n, V)
        As in :func:`vocabulary_preference`.
    estimator : estimator, default=None
        As in :func:`view_alignment`.
    split : SentenceSplit, default=None
        As in :func:`view_alignment`; when None, sentences that any encoder embeds alike stay together.
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
    return _compare(
        encoders, vocabularies, estimator, split, n_bootstrap, confidence, random_state, verbose
    )


def _compare(
    encoders: Any,
    vocabularies: Any,
    estimator: Any,
    split: SentenceSplit | None,
    n_bootstrap: int,
    confidence: float,
    random_state: Any,
    verbose: int,
) -> EncoderComparison:
    check_resampling(n_bootstrap, confidence)
    seed = as_seed(random_state)
    checked = _check_encoders(encoders, split, seed)
    first = next(iter(checked.values()))
    counts = _check_vocabularies(vocabularies, first)
    model = check_estimator(estimator, seed)
    names, languages, train, test = first.names, tuple(counts), first.split.train, first.split.test
    per_row = []
    total = len(checked) * len(counts)
    with tqdm(total=total, desc="vocabularies", unit="fit", delay=2, disable=not verbose) as bar:
        for sentences in checked.values():
            for Y in counts.values():
                fitted, truth = fit_on(model, sentences, names, Y), Y[test]
                hits = [find_words(fitted, sentences.test(view), truth) for view in names]
                per_row += [row_accuracy(found, truth) for found in hits]
                bar.update()
    guesses = [row_accuracy(most_frequent(Y[train], Y[test]), Y[test]) for Y in counts.values()]
    bootstrap = PairedBootstrap(
        np.column_stack(per_row + guesses), first.split.groups[test], n_bootstrap, confidence, seed
    )
    shape = (len(checked), len(languages), len(names))
    cell = np.arange(len(per_row)).reshape(shape)
    reference = tuple(language if language in names else names[0] for language in languages)
    own = np.array([names.index(view) for view in reference])
    accuracy = bootstrap.means(cell)
    preferences = {
        encoder: VocabularyPreference(
            languages=languages,
            views=names,
            reference=reference,
            accuracy=bootstrap.means(cell[e]),
            difference=bootstrap.differences(
                cell[e], np.broadcast_to(cell[e, np.arange(len(own)), own][:, None], cell[e].shape)
            ),
            baseline=bootstrap.means(len(per_row) + np.arange(len(languages))),
            n_train=len(train),
            n_test=len(test),
            n_skipped=tuple(int(np.isnan(guess).sum()) for guess in guesses),
            confidence=confidence,
        )
        for e, encoder in enumerate(checked)
    }
    return EncoderComparison(
        encoders=tuple(checked),
        languages=languages,
        views=names,
        accuracy=accuracy,
        difference=bootstrap.differences(cell, np.broadcast_to(cell[0], shape)),
        preferences=preferences,
        confidence=confidence,
    )


def _check_encoders(encoders: Any, split: SentenceSplit | None, seed: int) -> dict[str, Sentences]:
    """Every encoder's views, with one split for all."""
    if not isinstance(encoders, Mapping) or not encoders:
        raise ValueError(
            f"encoders is {shown(encoders)}; pass a mapping of at least one name to its views."
        )
    checked = {name: check_sentences(views, split, seed) for name, views in encoders.items()}
    first, sentences = next(iter(checked.items()))
    n = len(sentences.split.groups)
    for name, other in checked.items():
        if other.names != sentences.names or len(other.split.groups) != n:
            raise ValueError(
                f"encoder {name!r} has the views {other.names} of {len(other.split.groups)} sentences, "
                f"encoder {first!r} {sentences.names} of {n}; give all the same, in the same order."
            )
    if split is None and len(checked) > 1:
        joint = sentences.split
        for other in checked.values():  # sentences that any encoder embeds alike stay together
            joint = split_sentences(other.views, groups=joint.groups, random_state=seed)
        checked = {name: Sentences(other.views, joint) for name, other in checked.items()}
    return checked


def _check_vocabularies(vocabularies: Any, sentences: Sentences) -> dict[str, sp.csr_array]:
    """The counts of every language."""
    if not isinstance(vocabularies, Mapping) or not vocabularies:
        raise ValueError(
            f"vocabularies is {shown(vocabularies)}; pass a mapping of languages to (n, V) word counts."
        )
    return {
        language: check_targets(Y, sentences, f"the vocabulary of {language!r}")
        for language, Y in vocabularies.items()
    }

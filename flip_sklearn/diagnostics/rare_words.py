"""Recall of rare and never seen words with features of the words and without: rare_word_recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from flip_sklearn.diagnostics.bins import bin_numbers
from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.controls import find_words_of_rows
from flip_sklearn.diagnostics.frames import difference_columns, grid, interval_columns, matrix_text
from flip_sklearn.diagnostics.inputs import (
    EvaluationSettings,
    Sentences,
    check_estimator,
    check_sentences,
    check_settings,
    check_targets,
)
from flip_sklearn.diagnostics.split import SentenceSplit
from flip_sklearn.diagnostics.words import count_by_bin
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import check_vocabulary
from flip_sklearn.estimation.word_features import resolve_word_features
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import show_progress
from flip_sklearn.metrics.counts import check_columns, column_names
from flip_sklearn.metrics.ranking import binary_csr
from flip_sklearn.parameters import check_integer, check_random_state, short_repr

# Label of all words together, after the bands.
ALL = "all"
BIAS = (True, False)
FEATURES = (False, True)
BAND_STARTS = (1, 3, 10, 100, 1000)
# Words are held out if they occur so often in the training sentences: rare, but no misspellings.
MIN_COUNT, MAX_COUNT = 5, 200
# The default number of words held out: a share of those that may be, and at most so many.
HELD_OUT_SHARE, MAX_HELD_OUT = 0.2, 500


@dataclass(frozen=True, eq=False)
class RareWordRecall:
    """Result of :func:`rare_word_recall`; arrays are (with bias, without), (no features, features), band.

    Attributes
    ----------
    bands : tuple of str
        The b bands that occur in the test sentences: "0" for words that are not in the training sentences,
        "never seen" for those held out, and ranges of counts.
    recall : Interval of shape (2, 2, b + 1)
        Share of the occurrences of a band's words that are found; the last entry is that of all words.
    difference : Difference of shape (2, b + 1)
        Recall with features minus recall without.
    band_words, occurrences : ndarray of int of shape (b + 1,)
        Number of distinct words of each band in the test sentences, and of their occurrences, at most one a
        sentence.
    held_out : ndarray of str
        The words held out of training, in the order of the vocabulary.
    words : ndarray of str of shape (V,)
        The vocabulary, in column order.
    train_count : ndarray of shape (V,)
        Count of each word in the training sentences, also of the words held out.
    band : ndarray of object of shape (V,)
        Label of each word.
    n_sentences, n_skipped : int
        Number of test sentences, and of those without words, which are left out.
    random_state : int
        The seed of the words held out, of the fits and of the resamples.
    confidence : float
        Level of all intervals.
    """

    bands: tuple[str, ...]
    recall: Interval
    difference: Difference
    band_words: np.ndarray
    occurrences: np.ndarray
    held_out: np.ndarray
    words: np.ndarray
    train_count: np.ndarray
    band: np.ndarray
    n_sentences: int
    n_skipped: int
    random_state: int
    confidence: float

    def to_frame(self) -> Any:
        """One row for each way of scoring, model and band.

        Returns
        -------
        pandas.DataFrame
            Columns ``bias`` and ``features`` (bool), ``band``, ``words``, ``occurrences``; ``recall`` with
            its interval ``low`` and ``high``; ``difference`` to the model without features, its interval,
            and ``significant``.
        """
        bands = (*self.bands, ALL)
        table = grid(bias=BIAS, features=FEATURES, band=bands)
        table["words"] = np.tile(self.band_words, 4)
        table["occurrences"] = np.tile(self.occurrences, 4)
        table |= interval_columns("recall", self.recall)
        for name, values in difference_columns(self.difference).items():
            with_features = values.reshape(2, 1, -1)
            table[name] = np.concatenate([np.zeros_like(with_features), with_features], axis=1).ravel()
        return data_frame(table)

    def __repr__(self) -> str:
        rows = [
            f"{bias}, {features}"
            for bias in ("with bias", "without bias")
            for features in ("no features", "features")
        ]
        return (
            f"RareWordRecall({matrix_text(rows, (*self.bands, ALL), self.recall.value.reshape(4, -1))}; "
            f"{len(self.held_out)} words held out)"
        )


def rare_word_recall(
    estimator: FLiPExtractor,
    X: Any,
    Y: Any,
    *,
    n_held_out: int | None = None,
    split: SentenceSplit | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> RareWordRecall:
    """Measure what ``word_features`` change for words that training sees rarely or never.

    Words drawn at random are held out: all their counts are removed from the training sentences. Two models
    are trained on what is left, the estimator as it is and the same with ``word_features=None``. The first
    one gets the words back by ``extend_vocabulary``, from their features alone; the second one can never find
    them. With S_n all words of test sentence n, held out or not, H_n those of them among the ``|S_n|`` best
    words of a model, and g the words of a band of training counts::

        recall[g]     = sum_n |H_n & g| / sum_n |S_n & g|
        difference[g] = recall[g] with features - recall[g] without

    as in :func:`word_recoverability`. Both models are tested on the same resamples of the sentences, so what
    makes a sentence hard for both cancels in the difference.

    Parameters
    ----------
    estimator : FLiPExtractor
        With ``word_features``; clones of it are fitted. Features as an array have one row for each word of Y.
    X : array-like of shape (n, d)
        Embeddings of sentences.
    Y : {array-like, sparse matrix} of shape (n, V)
        Their word counts.
    n_held_out : int, default=None
        Number of words to hold out, >= 1, of those that occur 5 to 200 times in the training sentences and at
        least once in the test sentences. None is a fifth of them, at most 500.
    split : SentenceSplit, default=None
        Training and test sentences (:func:`split_sentences`); a random fifth is tested by default. Intervals
        take its groups for independent.
    n_bootstrap : int, default=1000
        Number of resamples of the groups, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1), without correction for multiple comparisons.
    random_state : int, RandomState instance or None, default=None
        Seed of the default split, the words held out and the resamples, and of the fits if the estimator has
        none.
    verbose : int, default=1
        If above zero, show a progress bar for fits of more than two seconds.

    Returns
    -------
    RareWordRecall
        Recall by training count, with intervals, and the words held out.

    Raises
    ------
    ValueError
        Before any fit, if the estimator is not a FLiPExtractor with ``word_features``, the features do not
        fit the words of Y, X and Y are not aligned, fewer words than ``n_held_out`` may be held out, or
        another argument is not allowed.

    Warns
    -----
    UserWarning
        If the features do not predict the word embeddings. They are then not used, and words held out are
        not found.

    See Also
    --------
    word_recoverability : Recall of each word by one fitted model.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import rare_word_recall
    >>> rng = np.random.default_rng(0)
    >>> meaning = rng.normal(size=(60, 10))  # features of 60 words
    >>> Y = rng.poisson(2 / np.arange(4, 64), size=(800, 60))
    >>> X = Y @ meaning  # embeddings that are sums of what the words mean
    >>> flip = FLiPExtractor(vocabulary=[f"word{j}" for j in range(60)], word_features=meaning, max_iter=5)
    >>> result = rare_word_recall(flip, X, Y, n_held_out=10, random_state=0)
    >>> result.bands[0], len(result.held_out)
    ('never seen', 10)
    >>> bool(result.difference.low[1, 0] > 0.3)  # without bias
    True
    """
    settings = check_settings(n_bootstrap, confidence, random_state, verbose)
    _check_estimator(estimator)
    sentences = check_sentences(X, split, settings.random_state)
    if len(sentences.names) > 1:
        raise ValueError(f"X has {len(sentences.names)} views; pass the embeddings of one of them.")
    counts = check_targets(Y, sentences)
    names = column_names(Y)
    words = check_vocabulary(estimator.vocabulary, names, counts.shape[1])
    check_columns(names, words, renamed=estimator.vocabulary is not None)
    may_be_held_out = words_to_hold_out(counts, sentences.split)
    n_words = _check_number(n_held_out, len(may_be_held_out))
    features = resolve_word_features(estimator.word_features, words).values
    random = check_random_state(settings.random_state)
    held_out = np.sort(random.permutation(may_be_held_out)[:n_words])
    base = check_estimator(estimator, settings.random_state).set_params(vocabulary=words.tolist())
    rows = _Rows.of(sentences, counts, held_out)
    hits = []
    # With features first: parameters that do not go with them are refused before any training.
    for given in show_progress([features, None], desc="rare words", unit="fit", disable=not verbose):
        model = rows.fit(base, given)
        hits.append([find_words_of_rows(model, rows.X_test, rows.truth, bias) for bias in BIAS])
    return _summarize(rows, words, held_out, hits[::-1], settings)


def words_to_hold_out(counts: sp.csr_array, split: SentenceSplit) -> np.ndarray:
    """Columns of the words that may be held out: rare ones in training that the test sentences have."""
    train_count = np.asarray(counts[split.train].sum(axis=0)).ravel()
    in_test = np.bincount(counts[split.test].indices, minlength=counts.shape[1]) > 0
    return np.flatnonzero(in_test & (train_count >= MIN_COUNT) & (train_count <= MAX_COUNT))


def _check_estimator(estimator: Any) -> None:
    if not isinstance(estimator, FLiPExtractor):
        raise ValueError(f"estimator is {short_repr(estimator)}; pass FLiPExtractor(word_features=...).")
    if estimator.word_features is None:
        raise ValueError(
            "estimator has word_features=None; pass FLiPExtractor(word_features=...), with features of the "
            "words such as SentenceEncoder(...), the encoder of the sentences."
        )


def _check_number(n_held_out: Any, n_words: int) -> int:
    """The number of words to hold out, of ``n_words`` that may be."""
    if n_words == 0:
        raise ValueError(
            f"Y has no word that occurs {MIN_COUNT} to {MAX_COUNT} times in the training sentences and is in "
            "a test sentence; pass more sentences, or counts of more words."
        )
    if n_held_out is None:
        return min(max(1, round(HELD_OUT_SHARE * n_words)), MAX_HELD_OUT)
    n = check_integer("n_held_out", n_held_out, 1)
    if n > n_words:
        raise ValueError(
            f"n_held_out={n} is more than the {n_words} words that occur {MIN_COUNT} to {MAX_COUNT} times in "
            f"the training sentences and are in a test sentence; use 1 to {n_words}, or None."
        )
    return n


@dataclass(frozen=True)
class _Rows:
    """Training rows without the words held out, and test rows with all words."""

    X: np.ndarray
    Y: sp.csr_array
    groups: np.ndarray
    X_test: np.ndarray
    truth: sp.csr_array
    test_groups: np.ndarray
    train_count: np.ndarray  # (V,), of all words
    held_out: np.ndarray

    @classmethod
    def of(cls, sentences: Sentences, counts: sp.csr_array, held_out: np.ndarray) -> _Rows:
        """Split the sentences."""
        (view,) = sentences.names
        train = sentences.split.train
        Y = sp.csr_array(counts[train])
        train_count = np.asarray(Y.sum(axis=0)).ravel()
        Y.data[np.isin(Y.indices, held_out)] = 0
        Y.eliminate_zeros()
        if Y.nnz == 0:
            raise ValueError(
                "the training sentences have no other words than those held out; pass more words."
            )
        return cls(
            X=sentences.train(view),
            Y=Y,
            groups=sentences.split.groups[train],
            X_test=sentences.test(view),
            truth=binary_csr(sp.csr_array(counts[sentences.split.test])),
            test_groups=sentences.test_groups,
            train_count=train_count,
            held_out=held_out,
        )

    def fit(self, estimator: FLiPExtractor, features: np.ndarray | None) -> FLiPExtractor:
        """Fit a clone with these features, and give it the words held out if it can use them."""
        model: FLiPExtractor = clone(estimator).set_params(word_features=features)
        model.fit(self.X, self.Y, groups=self.groups)
        if features is None or not hasattr(model, "word_map_"):
            return model
        words = model.vocabulary_[self.held_out].tolist()
        extended: FLiPExtractor = model.extend_vocabulary(words, word_features=features[self.held_out])
        return extended


def _summarize(
    rows: _Rows,
    words: np.ndarray,
    held_out: np.ndarray,
    hits: list[list[sp.csr_array]],
    settings: EvaluationSettings,
) -> RareWordRecall:
    """Recall of each band by each model, with intervals."""
    is_held_out = np.zeros(len(words), dtype=bool)
    is_held_out[held_out] = True
    labels, order = bin_numbers(rows.train_count, list(BAND_STARTS), is_held_out)
    in_test = np.bincount(rows.truth.indices, minlength=len(words)) > 0
    occurring = {label for label, occurs in zip(labels, in_test, strict=True) if occurs}
    bands = tuple(label for label in order if label in occurring)
    index = {label: i for i, label in enumerate(bands)}
    bin_of = np.array([index.get(label, -1) for label in labels])
    n_words = count_by_bin(rows.truth, bin_of)
    # Columns are (bias, features, band).
    n_hits = np.stack([[count_by_bin(hits[f][b], bin_of) for f in range(2)] for b in range(2)], axis=0)
    n_hits = np.moveaxis(n_hits, 2, 0).reshape(len(n_words), -1)
    has_words = n_words[:, -1] > 0
    bootstrap = PairedBootstrap(
        n_hits[has_words], rows.test_groups[has_words], settings, np.tile(n_words, 4)[has_words]
    )
    column = np.arange(n_hits.shape[1]).reshape(2, 2, -1)
    band_words = np.bincount(bin_of[in_test], minlength=len(bands))
    return RareWordRecall(
        bands=bands,
        recall=bootstrap.means(column),
        difference=bootstrap.differences(column[:, 1], column[:, 0]),
        band_words=np.append(band_words, band_words.sum()),
        occurrences=n_words.sum(axis=0).astype(np.int64),
        held_out=words[held_out],
        words=words,
        train_count=rows.train_count,
        band=np.fromiter(labels, dtype=object, count=len(words)),
        n_sentences=len(n_words),
        n_skipped=int((~has_words).sum()),
        random_state=settings.random_state,
        confidence=settings.confidence,
    )

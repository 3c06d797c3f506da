"""Which words does the encoder keep? Recall of each word, and of bands of words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtri
from sklearn.utils.validation import _num_samples

from flip_sklearn.diagnostics.bins import label_words
from flip_sklearn.diagnostics.bootstrap import (
    Difference,
    Interval,
    PairedBootstrap,
    check_resampling,
)
from flip_sklearn.diagnostics.evaluation import as_seed, find_words, most_frequent
from flip_sklearn.diagnostics.frames import columns
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import check_counts
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import check_integer

# A column of sentences for each label: more labels would be words again, and sentences x words an array.
_MOST_BANDS = 1000


@dataclass(frozen=True, eq=False)
class WordRecoverability:
    """Result of :func:`word_recoverability`; arrays of words have shape (V,), of bands (b,).

    Attributes
    ----------
    words : ndarray of str
        The vocabulary, in column order.
    train_count : ndarray of float
        (Weighted) count of each word in the training text; nan where the model does not tell.
    test_count, test_hits : ndarray of int
        Sentences with the word, and those of them in which it is found.
    recall : ndarray of float
        ``test_hits / test_count``; nan for words that no sentence has.
    band : ndarray of object
        Label of each word; None for a word that is left out.
    bands : tuple
        The labels that occur, in order.
    band_recall : Interval of shape (b,)
        Share of the occurrences of a band's words that are found.
    band_difference : Difference of shape (b,)
        ``band_recall`` less ``overall``.
    band_words, band_occurrences : ndarray of int
        Distinct words of the band that occur, and how often (once a sentence) they do.
    overall : Interval of shape ()
        Recall of all words that have a label, together.
    n_sentences, n_skipped : int
        Sentences given, and those of them left out since they have no word with a label.
    confidence : float
        Level of all intervals.
    band_baseline : Interval of shape (b,) or None
        Recall of always guessing the words that are most frequent in training; None where the model
        does not tell how frequent they are.
    """

    words: np.ndarray
    train_count: np.ndarray
    test_count: np.ndarray
    test_hits: np.ndarray
    recall: np.ndarray
    band: np.ndarray
    bands: tuple[Any, ...]
    band_recall: Interval
    band_difference: Difference
    band_words: np.ndarray
    band_occurrences: np.ndarray
    overall: Interval
    n_sentences: int
    n_skipped: int
    confidence: float
    band_baseline: Interval | None = None

    def lost(self, n: int = 10, *, min_count: int = 5) -> list[str]:
        """The words that are read worst, the worst first.

        Ranked by the upper end of :meth:`word_interval`, so that a word leads when it is missed often,
        not when it is missed once.

        Parameters
        ----------
        n : int, default=10
            Words to give, >= 1; fewer where fewer occur often enough.
        min_count : int, default=5
            Sentences that a word must occur in, >= 1.

        Returns
        -------
        list of str
        """
        return self._extreme(n, min_count, self.word_interval().high)

    def kept(self, n: int = 10, *, min_count: int = 5) -> list[str]:
        """The words that are read best, the best first.

        Ranked by the lower end of :meth:`word_interval`, so that a word leads when it is found often, not
        when it is found once.

        Parameters
        ----------
        n, min_count : int
            As in :meth:`lost`.

        Returns
        -------
        list of str
        """
        return self._extreme(n, min_count, -self.word_interval().low)

    def word_interval(self) -> Interval:
        """Recall of each word with its Wilson interval, which holds for one occurrence as for many.

        Returns
        -------
        Interval of shape (V,)
            nan for words that no sentence has.

        References
        ----------
        Wilson (1927), Probable inference, the law of succession, and statistical inference.
        """
        z2 = ndtri(0.5 + self.confidence / 2) ** 2
        n = np.where(self.test_count > 0, self.test_count, np.nan)
        middle = (self.test_hits + z2 / 2) / (n + z2)
        half = np.sqrt(z2 * (self.recall * (1 - self.recall) * n + z2 / 4)) / (n + z2)
        return Interval(self.recall, np.maximum(middle - half, 0), np.minimum(middle + half, 1))

    def _extreme(self, n: int, min_count: int, bound: np.ndarray) -> list[str]:
        n = check_integer("n", n, 1)
        often = self.test_count >= check_integer("min_count", min_count, 1)
        among = np.flatnonzero(often & np.array([label is not None for label in self.band]))
        # Equal bounds: the word with more occurrences, then the one with the lower column.
        order = np.lexsort((-self.test_count[among], bound[among]))
        return [str(word) for word in self.words[among[order[:n]]]]

    def to_frame(self) -> Any:
        """One row for each word.

        Returns
        -------
        pandas.DataFrame
            Columns ``word``, ``band``, ``train_count``, ``test_count``, ``test_hits`` and ``recall`` with
            its interval ``low`` and ``high``.
        """
        interval = self.word_interval()
        return data_frame(
            {
                "word": self.words,
                "band": self.band,
                "train_count": self.train_count,
                "test_count": self.test_count,
                "test_hits": self.test_hits,
                "recall": self.recall,
                "low": interval.low,
                "high": interval.high,
            }
        )

    def bands_to_frame(self) -> Any:
        """One row for each band.

        Returns
        -------
        pandas.DataFrame
            Columns ``band``, ``words``, ``occurrences``, the recall and the difference with their
            intervals, ``significant`` and ``baseline``.
        """
        table = columns(self.band_recall, self.band_difference)
        unknown = np.full(len(self.bands), np.nan)
        guess = unknown if self.band_baseline is None else self.band_baseline.value
        return data_frame(
            {
                "band": np.fromiter(self.bands, dtype=object, count=len(self.bands)),
                "words": self.band_words,
                "occurrences": self.band_occurrences,
                "recall": table.pop("accuracy"),
            }
            | table
            | {"baseline": guess}
        )

    def __repr__(self) -> str:
        pairs = zip(self.bands[:8], self.band_recall.value, strict=False)
        listed = ", ".join(f"{band}: {recall:.3f}" for band, recall in pairs)
        more = ", ..." if len(self.bands) > 8 else ""
        return f"WordRecoverability({listed}{more}; overall {self.overall.value:.3f})"


def word_recoverability(
    model: Any,
    X: Any,
    Y: Any,
    *,
    by: str | Sequence[Any] | Mapping[str, Any] | Callable[[str], Any] = "frequency",
    n_bands: int = 5,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> WordRecoverability:
    """How often each word is found in the sentences that have it: what the encoder keeps and loses.

    With S_n the words of sentence n, H_n those of them among its |S_n| best words (the hits of keyword
    accuracy), and g a band, a set of words,

        recall_j           = |{n : j in H_n}| / |{n : j in S_n}|
        band_recall[g]     = sum_n |H_n & g| / sum_n |S_n & g|
        overall            = sum_n |H_n & G| / sum_n |S_n & G|         G all words that have a band
        band_difference[g] = band_recall[g] - overall

    with intervals from resampled sentences. Each occurrence counts the same, so overall is the keyword
    accuracy of Kesiraju et al. (2026, arXiv 2604.18109) with every sentence weighted by |S_n|.

    Parameters
    ----------
    model : fitted estimator
        ``FLiPExtractor``, or another with ``vocabulary_`` and ``decision_function`` or ``predict_proba``.
        With its bias a frequent word may be found by guessing (``band_baseline``) and a rare one pushed
        out; without, the other way round: look at both (``model.set_params(use_bias=False)``).
    X : array-like of shape (n, d)
        Embeddings of sentences that the model was not trained on.
    Y : {array-like, sparse matrix} of shape (n, V)
        Their word counts, over the vocabulary of the fit.
    by : {"frequency", "length"}, sequence of V labels, mapping or callable, default="frequency"
        What makes a band. ``"frequency"``: the count in training, by powers of ten (1-9, 10-99, ...), and
        "0" for words that training never saw. ``"length"``: characters (1-3, 4-5, 6-7, ...). Else the
        label of each column, of each word, or a function that gives it (part of speech, language,
        topic). None or nan leaves a word out of the bands and of ``overall``.
    n_bands : int, default=5
        For ``"frequency"`` and ``"length"``: most bands (next to "0"), >= 1; the last one is open.
    n_bootstrap : int, default=1000
        Resamples of the sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1). Each interval stands for itself. An interval is nan where a band
        is so rare that some resample has none of its words.
    random_state : int, RandomState instance or None, default=None
        Seed of the resamples.
    verbose : int, default=1
        Above zero, a progress bar where scoring takes over two seconds (``FLiPExtractor``).

    Returns
    -------
    WordRecoverability
        Recall of words and of bands. Bands of which no word occurs in Y are not listed.

    Raises
    ------
    ValueError
        Before any scoring, if the model is not fitted, X and Y are not aligned, Y has other columns or no
        word with a label, labels do not fit the vocabulary, or another argument is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import word_recoverability
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.2, size=(900, 20))
    >>> code = rng.normal(size=(20, 16))
    >>> code[15:] = 0  # an encoder that does not hear the last five words
    >>> X = Y @ code
    >>> flip = FLiPExtractor(random_state=0).fit(X[:600], Y[:600])
    >>> result = word_recoverability(flip, X[600:], Y[600:], by=["heard"] * 15 + ["unheard"] * 5,
    ...                              random_state=0)
    >>> result.bands, result.band_difference.significant.tolist()
    (('heard', 'unheard'), [True, True])
    >>> sorted(result.lost(5))
    ['word15', 'word16', 'word17', 'word18', 'word19']
    """
    check_resampling(n_bootstrap, confidence)
    check_integer("n_bands", n_bands, 1)
    words, train_count = _vocabulary(model)
    truth = check_counts(Y, _num_samples(X), len(words))[0]
    labels, order = label_words(by, n_bands, words, train_count)
    test_count = np.bincount(truth.indices, minlength=len(words))
    occurring = {label for label, n in zip(labels, test_count, strict=True) if n > 0}
    bands = tuple(label for label in order if label in occurring)
    if not bands:
        raise ValueError(
            f"by={by!r:.60} gives a label to none of the {np.count_nonzero(test_count)} words that occur "
            f"in the {truth.shape[0]} rows of Y; pass rows with words, and labels of words in the "
            "vocabulary."
        )
    if len(bands) > _MOST_BANDS:
        raise ValueError(
            f"by={by!r:.60} makes {len(bands)} bands; group words into at most {_MOST_BANDS:,} (single "
            "words stand in recall and to_frame())."
        )
    if isinstance(model, FLiPExtractor):
        model = copy.copy(model).set_params(verbose=verbose)
    hits = find_words(model, X, truth)
    number = {label: i for i, label in enumerate(bands)}
    band_of = np.array([number.get(label, -1) for label in labels])
    parts, wholes = _per_band(hits, band_of), _per_band(truth, band_of)
    used, band_occurrences = wholes[:, -1] > 0, wholes[:, :-1].sum(axis=0).astype(np.int64)
    guessable = not np.isnan(train_count).any()
    if guessable:
        guesses = most_frequent(sp.csr_array(train_count[None]), truth)
        parts = np.column_stack([parts, _per_band(guesses, band_of)])
        wholes = np.column_stack([wholes, wholes])
    bootstrap = PairedBootstrap(
        parts[used], np.arange(np.count_nonzero(used)), n_bootstrap, confidence,
        as_seed(random_state), out_of=wholes[used],
    )  # fmt: skip
    cell, whole = np.arange(len(bands)), np.array(len(bands))
    test_hits = np.bincount(hits.indices, minlength=len(words))
    in_band = (band_of >= 0) & (test_count > 0)
    return WordRecoverability(
        words=words,
        train_count=train_count,
        test_count=test_count,
        test_hits=test_hits,
        recall=np.where(test_count > 0, test_hits / np.maximum(test_count, 1), np.nan),
        band=np.fromiter(labels, dtype=object, count=len(words)),
        bands=bands,
        band_recall=bootstrap.means(cell),
        band_difference=bootstrap.differences(cell, np.full_like(cell, whole)),
        band_words=np.bincount(band_of[in_band], minlength=len(bands)),
        band_occurrences=band_occurrences,
        overall=bootstrap.means(whole),
        n_sentences=truth.shape[0],
        n_skipped=int(np.count_nonzero(~used)),
        confidence=confidence,
        band_baseline=bootstrap.means(cell + len(bands) + 1) if guessable else None,
    )


def _vocabulary(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """The words of the model and their counts in training, nan where it does not know them."""
    if not hasattr(model, "vocabulary_"):
        raise ValueError(
            f"model is {model!r:.60} and has no vocabulary_; pass a fitted FLiPExtractor, or another "
            "fitted estimator with a vocabulary_ and decision_function or predict_proba."
        )
    words = np.array(model.vocabulary_, dtype=object)
    counts = getattr(model, "word_counts_", np.full(len(words), np.nan))
    return words, np.array(counts, dtype=float)


def _per_band(marked: sp.csr_array, band_of: np.ndarray) -> np.ndarray:
    """How many marked words of each row are in each band, and in all bands together: (n, b + 1)."""
    inside = np.flatnonzero(band_of >= 0)
    shape = (len(band_of), int(band_of.max()) + 1)
    member = sp.csr_array((np.ones(len(inside)), (inside, band_of[inside])), shape=shape)
    # Every entry counts once, whatever it holds.
    ones = sp.csr_array((np.ones(marked.nnz), marked.indices, marked.indptr), marked.shape)
    per_band = (ones @ member).toarray()
    return np.column_stack([per_band, per_band.sum(axis=1)])

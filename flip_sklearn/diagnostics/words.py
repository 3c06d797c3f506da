"""Word recoverability: recall of each word, and of bands of words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import _num_samples

from flip_sklearn.diagnostics.bins import bin_words
from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.evaluation import find_most_frequent, find_words
from flip_sklearn.diagnostics.frames import difference_columns, interval_columns
from flip_sklearn.diagnostics.inputs import check_settings, check_vocabulary
from flip_sklearn.diagnostics.shares import ClusterShares, wilson_ends
from flip_sklearn.diagnostics.split import group_sentences, merge_groups
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import check_counts_of
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics.ranking import binary_csr
from flip_sklearn.parameters import check_integer, short_repr

# The bootstrap holds an array of sentences x bins: with a label for each word it would be sentences x words.
MAX_BINS = 1000


@dataclass(frozen=True, eq=False)
class WordRecoverability:
    """Result of :func:`word_recoverability`; arrays of words have shape (V,), of bands (b,).

    Attributes
    ----------
    words : ndarray of str
        The vocabulary, in column order.
    train_count : ndarray of float
        (Weighted) count of each word in the training text, 0 for words added by ``extend_vocabulary``; nan if
        the model has no ``word_counts_``.
    test_count, test_hits : ndarray of int
        Number of sentences with the word, and of those in which it is found.
    recall : ndarray of float
        ``test_hits / test_count``; nan for words that are in no sentence.
    band : ndarray of object
        Label of each word; None for a word that is left out.
    bands : tuple
        The labels of words that occur in the sentences, in order.
    band_recall : Interval of shape (b,)
        Share of the occurrences of a band's words that are found.
    band_difference : Difference of shape (b,)
        ``band_recall`` minus ``overall``.
    band_words, band_occurrences : ndarray of int
        Number of distinct words of the band that occur, and of their occurrences, at most one a sentence.
    overall : Interval of shape ()
        Recall of all words that have a label.
    n_sentences, n_skipped : int
        Number of sentences, and of sentences without a labelled word, which are left out.
    confidence : float
        Level of all intervals.
    band_baseline : Interval of shape (b,) or None
        Recall of the baseline, which always extracts the words that are most frequent in training; None
        if the model has no ``word_counts_``.
    effective_count : ndarray of float or None
        Number of independent sentences that tell as much about the recall of a word as the ``test_count``
        sentences with it: their number, unless several are in one group. None in results that were stored
        by versions without it.
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
    effective_count: np.ndarray | None = None

    def lost(self, n: int = 10, *, min_count: int = 5) -> list[str]:
        """Return the words with the lowest recall, the lowest first.

        They are ranked by the upper end of :meth:`word_interval`, so that words that are missed often
        come before words that occur once and are missed.

        Parameters
        ----------
        n : int, default=10
            Maximum number of words, >= 1.
        min_count : int, default=5
            Minimum number of sentences with the word, >= 1.

        Returns
        -------
        list of str
            The words, worst first.
        """
        return self._extreme(n, min_count, self.word_interval().high)

    def kept(self, n: int = 10, *, min_count: int = 5) -> list[str]:
        """Return the words with the highest recall, the highest first.

        They are ranked by the lower end of :meth:`word_interval`, so that words that are found often
        come before words that occur once and are found.

        Parameters
        ----------
        n, min_count : int
            As in :meth:`lost`.

        Returns
        -------
        list of str
            The words, best first.
        """
        return self._extreme(n, min_count, -self.word_interval().low)

    def word_interval(self) -> Interval:
        """Recall of each word with its Wilson interval, which is valid for few occurrences, too.

        Sentences of one group count as ``effective_count`` says. For one to three hits, the lower end is at
        most the Poisson limit, and for one to three misses the upper end at least that.

        Returns
        -------
        Interval of shape (V,)
            The interval of each word; nan for words that are in no sentence.

        References
        ----------
        Wilson (1927), Probable inference, the law of succession, and statistical inference.
        Brown, Cai and DasGupta (2001), Interval estimation for a binomial proportion, section 4.1.3.
        """
        count = self.test_count if self.effective_count is None else self.effective_count
        size = np.where(self.test_count > 0, count, np.nan)
        return Interval(self.recall, *wilson_ends(self.recall, size, self.confidence))

    def _extreme(self, n: int, min_count: int, bound: np.ndarray) -> list[str]:
        n = check_integer("n", n, 1)
        is_frequent = self.test_count >= check_integer("min_count", min_count, 1)
        has_label = np.array([label is not None for label in self.band])
        columns = np.flatnonzero(is_frequent & has_label)
        # Ties: the word with more occurrences first, then the one with the lower column.
        order = np.lexsort((-self.test_count[columns], bound[columns]))
        return [str(word) for word in self.words[columns[order[:n]]]]

    def to_frame(self) -> Any:
        """One row for each word.

        Returns
        -------
        pandas.DataFrame
            Columns ``word``, ``band``, ``train_count``, ``test_count``, ``test_hits`` and ``recall`` with
            its interval ``low`` and ``high``.
        """
        names = ("band", "train_count", "test_count", "test_hits")
        table = {"word": self.words} | {name: getattr(self, name) for name in names}
        return data_frame(table | interval_columns("recall", self.word_interval()))

    def bands_to_frame(self) -> Any:
        """One row for each band.

        Returns
        -------
        pandas.DataFrame
            Columns ``band``, ``words``, ``occurrences``, the recall and the difference with their
            intervals, ``significant`` and ``baseline``.
        """
        table = {
            "band": np.fromiter(self.bands, dtype=object, count=len(self.bands)),
            "words": self.band_words,
            "occurrences": self.band_occurrences,
            **interval_columns("recall", self.band_recall),
            **difference_columns(self.band_difference),
            "baseline": np.nan if self.band_baseline is None else self.band_baseline.value,
        }
        return data_frame(table)

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
    groups: Any = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> WordRecoverability:
    """Measure how often each word is found in the sentences that have it.

    With S_n the words of sentence n, H_n those of them among its ``|S_n|`` best words (the hits of
    keyword accuracy), and a band g, which is a set of words::

        recall_j           = |{n : j in H_n}| / |{n : j in S_n}|
        band_recall[g]     = sum_n |H_n & g| / sum_n |S_n & g|
        overall            = sum_n |H_n & G| / sum_n |S_n & G|         G all words that have a band
        band_difference[g] = band_recall[g] - overall

    Each occurrence has the same weight, so overall is the keyword accuracy of Kesiraju et al. (2026, arXiv
    2604.18109) with every sentence weighted by ``|S_n|``. Intervals come from resampled groups of sentences;
    where less than 30 groups have a hit, or a miss, from Wilson's interval with an effective number of
    occurrences.

    Parameters
    ----------
    model : fitted estimator
        ``FLiPExtractor``, or another with ``vocabulary_`` and ``decision_function`` or ``predict_proba``.
        With its bias the model favours frequent words, which the baseline finds, too
        (``band_baseline``); without its bias it favours rare ones. Look at both
        (``model.set_params(use_bias=False)``).
    X : array-like of shape (n, d)
        Embeddings of sentences that the model was not trained on.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of these sentences, over the vocabulary of the model.
    by : {"frequency", "length"}, sequence of V labels, mapping or callable, default="frequency"
        How words are grouped into bands. ``"frequency"``: by count in training, in powers of ten (1-9,
        10-99, ...), "0" for words that are not in the training text, and "never seen" for words that
        ``extend_vocabulary`` added (see :func:`rare_word_recall`). ``"length"``: by number of
        characters (1-3, 4-5, 6-7, ...). Otherwise labels, such as part of speech, language or topic: one
        per column of Y, a mapping of words to labels, or a function of the word. Words with the label
        None or nan are left out of the bands and of ``overall``.
    n_bands : int, default=5
        Maximum number of bands besides "0" and "never seen" for ``"frequency"`` and ``"length"``, >= 1; the
        last band has no upper limit.
    groups : array-like of shape (n,), default=None
        Labels of sentences that belong together, such as speaker, document or source sentence. Intervals
        take groups for independent, not sentences. Sentences with equal embeddings, bit for bit, are always
        in one group.
    n_bootstrap : int, default=1000
        Number of resamples of the groups, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1), without correction for multiple comparisons.
    random_state : int, RandomState instance or None, default=None
        Seed of the resamples.
    verbose : int, default=1
        If above zero, show a progress bar for scoring of more than two seconds (``FLiPExtractor``).

    Returns
    -------
    WordRecoverability
        Recall of words and of bands. Bands without an occurrence in Y are not listed.

    Raises
    ------
    ValueError
        Before any scoring, if the model is not fitted, X and Y are not aligned, Y has other columns or no
        word with a label, labels do not fit the vocabulary, groups has another length or a missing label, or
        another argument is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import word_recoverability
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.2, size=(900, 20))
    >>> code = rng.normal(size=(20, 16))
    >>> code[15:] = 0  # an encoder that loses the last five words
    >>> X = Y @ code
    >>> flip = FLiPExtractor(random_state=0).fit(X[:600], Y[:600])
    >>> result = word_recoverability(flip, X[600:], Y[600:], by=["kept"] * 15 + ["lost"] * 5,
    ...                              random_state=0)
    >>> result.bands, result.band_difference.significant.tolist()
    (('kept', 'lost'), [True, True])
    >>> sorted(result.lost(5))
    ['word15', 'word16', 'word17', 'word18', 'word19']
    """
    settings = check_settings(n_bootstrap, confidence, random_state, verbose)
    check_integer("n_bands", n_bands, 1)
    words, train_count = check_vocabulary(model)
    is_added = np.zeros(len(words), dtype=bool)
    is_added[getattr(model, "extended_words_", [])] = True
    train_count[is_added] = 0.0  # the model has a count that they might have had
    truth = binary_csr(check_counts_of(model, Y, _num_samples(X)))
    labels, label_order = bin_words(by, n_bands, words, train_count, is_added)
    test_count = np.bincount(truth.indices, minlength=len(words))
    bins = _occurring_bins(by, labels, label_order, test_count)
    group = merge_groups([groups], truth.shape[0])
    if isinstance(model, FLiPExtractor):
        model = copy.copy(model).set_params(verbose=verbose)
    hits = find_words(model, X, truth)
    test_hits = np.bincount(hits.indices, minlength=len(words))
    group = group_sentences(group, [X], truth.shape[0])
    index = {label: i for i, label in enumerate(bins)}
    bin_of = np.array([index.get(label, -1) for label in labels])
    n_hits, n_words = count_by_bin(hits, bin_of), count_by_bin(truth, bin_of)
    rows = np.flatnonzero(n_words[:, -1])
    occurrences = n_words[:, :-1].sum(axis=0).astype(np.int64)
    has_baseline = not np.isnan(train_count).any()
    if has_baseline:
        baseline_hits = find_most_frequent(sp.csr_array(train_count[None]), truth)
        n_hits = np.column_stack([n_hits, count_by_bin(baseline_hits, bin_of)])
        n_words = np.column_stack([n_words, n_words])
    bootstrap = PairedBootstrap(n_hits[rows], group[rows], settings, n_words[rows])
    column, all_words = np.arange(len(bins)), np.array(len(bins))
    reference = np.full_like(column, all_words if len(bins) > 1 else 0)  # a single band is all words
    in_bin = (bin_of >= 0) & (test_count > 0)
    return WordRecoverability(
        words=words,
        train_count=train_count,
        test_count=test_count,
        test_hits=test_hits,
        recall=np.where(test_count > 0, test_hits / np.maximum(test_count, 1), np.nan),
        band=np.fromiter(labels, dtype=object, count=len(words)),
        bands=bins,
        band_recall=bootstrap.means(column),
        band_difference=bootstrap.differences(column, reference),
        band_words=np.bincount(bin_of[in_bin], minlength=len(bins)),
        band_occurrences=occurrences,
        overall=bootstrap.means(all_words),
        n_sentences=truth.shape[0],
        n_skipped=truth.shape[0] - len(rows),
        confidence=settings.confidence,
        band_baseline=bootstrap.means(column + len(bins) + 1) if has_baseline else None,
        effective_count=_effective_counts(hits, truth, group, settings.confidence),
    )


def _occurring_bins(
    by: Any, labels: list[Any], label_order: list[Any], test_count: np.ndarray
) -> tuple[Any, ...]:
    """The labels of words that occur in the sentences, in order."""
    occurring = {label for label, n in zip(labels, test_count, strict=True) if n > 0}
    bins = tuple(label for label in label_order if label in occurring)
    if not bins:
        raise ValueError(
            f"by={short_repr(by)} gives a label to none of the {np.count_nonzero(test_count)} words that "
            "occur in Y; pass rows with words, and labels of words in the vocabulary."
        )
    if len(bins) > MAX_BINS:
        raise ValueError(
            f"by={short_repr(by)} makes {len(bins)} bands; group words into at most {MAX_BINS:,} (the recall "
            "of single words is in recall and to_frame())."
        )
    return bins


def _effective_counts(
    hits: sp.csr_array, truth: sp.csr_array, group: np.ndarray, confidence: float
) -> np.ndarray:
    """Effective number of the sentences with each word (V,), 0 for words that are in no sentence."""
    n = len(group)
    n_groups = int(group.max()) + 1
    if n_groups == n:
        return np.bincount(truth.indices, minlength=truth.shape[1]).astype(float)
    membership = sp.csr_array((np.ones(n), (group, np.arange(n))), shape=(n_groups, n))
    shares = ClusterShares.of(sp.csr_array(membership @ hits), sp.csr_array(membership @ truth), confidence)
    return np.asarray(np.nan_to_num(shares.size))


def count_by_bin(words: sp.csr_array, bin_of: np.ndarray) -> np.ndarray:
    """Number of words of each row of a bool csr_array in each bin, and in all bins together: (n, b + 1)."""
    columns = np.flatnonzero(bin_of >= 0)
    shape = (len(bin_of), int(bin_of.max()) + 1)
    membership = sp.csr_array((np.ones(len(columns)), (columns, bin_of[columns])), shape=shape)
    counts = (words @ membership).toarray()
    return np.column_stack([counts, counts.sum(axis=1)])

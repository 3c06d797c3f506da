"""Text -> counts of words and of pairs that belong together ("new york"), a span counted as one unit.

Words become numbers once, block by block; choosing pairs and finding spans is array work on these.
"""

from __future__ import annotations

import functools
import math
import numbers
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from tqdm.auto import tqdm

from flip_sklearn.vocabulary import tokenizer as reading
from flip_sklearn.vocabulary.given import read_vocabulary
from flip_sklearn.vocabulary.phrases import PhraseMatcher, choose_concepts

__all__ = ["ConceptVectorizer"]


# No set_output: counts are sparse, as those of CountVectorizer.
class ConceptVectorizer(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Count words and pairs of words that belong together, a span being one unit.

    A concept is a word, or several words in a row, joined by a blank: ``"new york"``. Texts are read from
    left to right, always taking the longest concept that starts at a word and going on behind it, so in
    "new york" neither "new" nor "york" is counted. These are the span-aware targets of Kesiraju et al.
    (2026, arXiv 2604.18109). Words in no concept are not counted.

    Words are concepts by corpus frequency. A pair of neighbours a b is one by corpus frequency and
    pointwise mutual information, in nats,

        PMI(a b) = ln [ p(a b) / (p(a) p(b)) ],   p(a b) = c(a b) / pairs,   p(a) = c(a) / words

    where c are counts in the texts of ``fit``, before any span is taken, ``words`` is the number of
    words and ``pairs`` that of neighbours in one text. 1.5 nats means 4.5 times as often as by chance.

    Parameters
    ----------
    bigrams : bool, default=True
        Whether pairs become concepts; if False, words only, as in ``CountVectorizer``.
    min_count : int, default=20
        Least number of occurrences of a word or a pair, >= 1.
    min_pmi : float, default=1.5
        Least PMI of a pair, in nats; a finite number.
    max_unigrams, max_bigrams : int or None, default=6500 and 3500
        At most so many words and pairs, >= 1, the most frequent (of equal ones the first by name);
        None for no limit. A pair stays when one of its words does not.
    token_pattern : {"latin", "indic", "whitespace"}, regular expression or callable, default="latin"
        What a word is, in a cleaned text. ``"latin"``: two or more letters or digits, as in
        ``CountVectorizer``. ``"indic"``: a letter or digit and all letters, digits, vowel signs and
        other marks that follow: whole words in Devanagari, Telugu, Tamil, Bengali, Arabic, ...
        ``"whitespace"``: all between blanks. A callable takes a text and gives its words, for scripts
        without blanks.
    lowercase : bool, default=True
        Whether to bring texts to lower case.
    strip_punctuation : bool, default=True
        Whether to delete ASCII punctuation, curly quotes, the em dash and characters without width.
        They leave no blank: "don't" becomes "dont".
    strip_accents : {"auto", "ascii", "unicode"} or None, default="auto"
        ``"ascii"`` and ``"unicode"`` as in ``CountVectorizer``; ``"auto"`` is "ascii" for
        ``token_pattern="latin"``, as in the paper, and None for any other. "ascii" deletes every letter
        that has no ASCII form: all of other scripts, and the German ß. "unicode" only takes accents off.
    vocabulary : mapping of str to int, or iterable of str, default=None
        The concepts and their columns; nothing is learned then, ``fit`` reads no text, and the five
        parameters above ``token_pattern`` have no effect. Concepts may have any number of words and are
        read as texts are, so "New York" finds "new york".
    n_jobs : int, default=None
        Processes that read texts: None for 1, -1 for all cores. The result is the same.
    verbose : bool, default=False
        Whether to show a progress bar on standard error after two seconds.

    Attributes
    ----------
    vocabulary_ : dict of str to int
        Each concept's column; columns are in the order of names when learned.
    counts_ : ndarray of shape (V,)
        Occurrences of each concept in the texts of ``fit``, before spans are taken. Only when learned.
    pmi_ : ndarray of shape (V,)
        PMI of each pair in nats, NaN for words. Only when learned.

    Notes
    -----
    A word that only occurs inside of concepts, such as "york", keeps its column, without any count in the
    texts of ``fit``. Neighbours are what stands side by side after cleaning: punctuation and words that the
    pattern leaves out do not part them.

    Composed and decomposed spellings of a letter are the same (NFC). ``fit`` and ``fit_transform`` read
    any iterable once and keep 4 bytes per word of it; ``transform`` keeps only the counts.

    Examples
    --------
    >>> from flip_sklearn.vocabulary import ConceptVectorizer
    >>> texts = ["New York is big.", "A big man in New York", "New ideas, and a big car"] * 10
    >>> vectorizer = ConceptVectorizer(min_pmi=1.0)
    >>> counts = vectorizer.fit_transform(texts)
    >>> vectorizer.get_feature_names_out().tolist()
    ['big', 'new', 'new york', 'york']
    >>> counts[:3].toarray().tolist()
    [[1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]]
    >>> cities = ConceptVectorizer(vocabulary=["New York", "New York City", "new"])
    >>> cities.build_analyzer()("From New York City to new New York")
    ['New York City', 'new', 'New York']
    """

    counts_: np.ndarray
    pmi_: np.ndarray
    vocabulary_: dict[str, int]

    def __init__(
        self,
        *,
        bigrams: bool = True,
        min_count: int = 20,
        min_pmi: float = 1.5,
        max_unigrams: int | None = 6500,
        max_bigrams: int | None = 3500,
        token_pattern: str | Callable[[str], Iterable[str]] = "latin",
        lowercase: bool = True,
        strip_punctuation: bool = True,
        strip_accents: str | None = "auto",
        vocabulary: Mapping[str, int] | Iterable[str] | None = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.bigrams = bigrams
        self.min_count = min_count
        self.min_pmi = min_pmi
        self.max_unigrams = max_unigrams
        self.max_bigrams = max_bigrams
        self.token_pattern = token_pattern
        self.lowercase = lowercase
        self.strip_punctuation = strip_punctuation
        self.strip_accents = strip_accents
        self.vocabulary = vocabulary
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, raw_documents: Iterable[str], y: Any = None) -> ConceptVectorizer:
        """Choose the concepts.

        Parameters
        ----------
        raw_documents : iterable of str
            One text per row; read once, so a generator or an open file will do.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is not allowed, a row is not a str (the message has its number), or no
            concept is left.
        """
        if self.vocabulary is None:
            self._learn(raw_documents)
        else:
            reading.check_documents(raw_documents)
            self._take_vocabulary()
        return self

    def fit_transform(self, raw_documents: Iterable[str], y: Any = None) -> sp.csr_array:
        """Choose the concepts and count them, reading the texts once.

        Parameters
        ----------
        raw_documents : iterable of str
            One text per row.
        y : None
            Ignored.

        Returns
        -------
        csr_array of shape (n, V)
            Counts, int32; the same as ``fit(raw_documents).transform(raw_documents)``.

        Raises
        ------
        ValueError
            As ``fit``.
        """
        if self.vocabulary is not None:
            return self.fit(raw_documents).transform(raw_documents)
        words, blocks = self._learn(raw_documents)
        number = self._matcher.numbers(words)
        return self._stack(self._matcher.count(number[ids], ends) for ids, ends in blocks)

    def transform(self, raw_documents: Iterable[str]) -> sp.csr_array:
        """Count the concepts of texts.

        Parameters
        ----------
        raw_documents : iterable of str
            One text per row.

        Returns
        -------
        csr_array of shape (n, V)
            Counts, int32.

        Raises
        ------
        NotFittedError
            If there was no ``fit`` and no ``vocabulary`` is given.
        ValueError
            If a row is not a str (the message has its number).
        """
        matcher = self._fitted()
        return self._stack(
            matcher.count(matcher.numbers(block.words)[block.ids], block.ends)
            for block in self._blocks(raw_documents)
        )

    def inverse_transform(self, X: Any) -> list[np.ndarray]:
        """Name the concepts of each row of counts.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, V)
            Counts; only what is not zero matters.

        Returns
        -------
        list of ndarray of str
            The concepts of each row, in the order of columns.

        Raises
        ------
        ValueError
            If X does not have V columns.
        """
        names = self.get_feature_names_out()
        counts = sp.csr_array(X, copy=True)
        if counts.ndim != 2 or counts.shape[1] != names.size:
            raise ValueError(
                f"X has shape {counts.shape}; pass counts of the {names.size} concepts of this vectorizer."
            )
        counts.sum_duplicates()
        counts.eliminate_zeros()
        return np.split(names[counts.indices], counts.indptr[1:-1])

    def build_analyzer(self) -> Callable[[str], list[str]]:
        """Make a function that gives the concepts of one text, in order, as they are counted.

        Returns
        -------
        callable
            Takes a str, gives a list of str. It can be pickled.

        Raises
        ------
        NotFittedError
            If there was no ``fit`` and no ``vocabulary`` is given.
        """
        return functools.partial(
            _concepts,
            matcher=self._fitted(),
            read=self._reader(),
            names=self.get_feature_names_out(),
        )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Give the concepts in the order of columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str objects, shape (V,)

        Raises
        ------
        NotFittedError
            If there was no ``fit`` and no ``vocabulary`` is given.
        """
        self._fitted()
        return np.array(sorted(self.vocabulary_, key=self.vocabulary_.__getitem__), dtype=object)

    def _reader(self) -> reading.Reader:
        split = reading.splitter(self.token_pattern)
        plain = isinstance(self.token_pattern, str)
        accents = self.strip_accents
        if isinstance(accents, str) and accents == "auto":
            accents = "ascii" if plain and self.token_pattern == "latin" else None
        if not (accents is None or (isinstance(accents, str) and accents in reading.FOLDS)):
            raise ValueError(
                f"strip_accents={accents!r} is not allowed; use 'auto', 'ascii', 'unicode' or None."
            )
        if accents is not None and plain and self.token_pattern == "indic":
            raise ValueError(
                f"strip_accents={accents!r} takes marks off, which token_pattern='indic' is there to keep; "
                "use strip_accents='auto' or None."
            )
        for name in ("lowercase", "strip_punctuation"):
            _check_bool(name, getattr(self, name))
        return reading.Reader(self.lowercase, self.strip_punctuation, reading.FOLDS[accents], split)

    def _check_choice(self) -> None:
        """The parameters that choose concepts."""
        _check_bool("bigrams", self.bigrams)
        pmi = self.min_pmi
        if isinstance(pmi, bool) or not isinstance(pmi, numbers.Real) or not math.isfinite(pmi):
            raise ValueError(f"min_pmi={pmi!r} is not allowed; use a finite number, in nats.")
        for name in ("min_count", "max_unigrams", "max_bigrams"):
            value = getattr(self, name)
            if not (_is_whole(value) and value >= 1) and (value is not None or name == "min_count"):
                allowed = "an integer >= 1" + (
                    "" if name == "min_count" else ", or None for no limit"
                )
                raise ValueError(f"{name}={value!r} is not allowed; use {allowed}.")

    def _blocks(self, raw_documents: Any) -> Iterator[reading.Block]:
        """The texts as numbers, some thousand at a time, in order."""
        documents, read = reading.check_documents(raw_documents), self._reader()
        if self.n_jobs is not None and (not _is_whole(self.n_jobs) or self.n_jobs == 0):
            raise ValueError(
                f"n_jobs={self.n_jobs!r} is not allowed; use an integer >= 1, -1 for all cores, or None."
            )
        rows = 0
        wiped: list[int] = []
        with tqdm(
            total=len(documents) if isinstance(documents, Sized) else None,
            unit="text",
            desc="ConceptVectorizer",
            delay=2,
            disable=not self.verbose,
        ) as bar:
            for block in reading.read_all(
                reading.chunks(documents), read, effective_n_jobs(self.n_jobs)
            ):
                wiped += [rows + i for i in block.wiped]
                rows += block.ends.size
                bar.update(block.ends.size)
                yield block
        if wiped:
            warnings.warn(
                f"{len(wiped)} of {rows} texts lose all their letters when accents are stripped (the first "
                f"is row {wiped[0]}). Pass strip_accents=None; for scripts with vowel signs also "
                "token_pattern='indic'.",
                stacklevel=2,
            )

    def _learn(self, raw_documents: Any) -> tuple[list[str], list[tuple[np.ndarray, np.ndarray]]]:
        """Choose concepts; give all words, and the texts as numbers of these with the ends of rows."""
        self._check_choice()
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__
        counts = np.zeros(0, dtype=np.int64)
        blocks = []
        for block in self._blocks(raw_documents):
            place = np.fromiter(map(number.__getitem__, block.words), np.int32, len(block.words))
            if counts.size < len(number):
                counts = np.pad(counts, (0, len(number)))
            counts[place] += np.bincount(block.ids, minlength=place.size)
            blocks.append((place[block.ids], block.ends))
        words, counts = list(number), counts[: len(number)]
        n_rows = sum(ends.size for _, ends in blocks)
        if not words:
            raise ValueError(
                f"There is no word in {n_rows} texts. Pass texts, and for other scripts than Latin "
                "token_pattern='indic' or a callable, with strip_accents=None."
            )
        if counts.max() < self.min_count:
            raise ValueError(
                f"No word occurs min_count={self.min_count} times in {n_rows} texts; the most frequent, "
                f"{words[counts.argmax()]!r}, occurs {counts.max()} times. Lower min_count."
            )
        concepts, self.counts_, self.pmi_ = choose_concepts(
            words,
            counts,
            blocks,
            min_count=self.min_count,
            max_unigrams=self.max_unigrams,
            bigrams=self.bigrams,
            min_pmi=self.min_pmi,
            max_bigrams=self.max_bigrams,
        )
        self._matcher = PhraseMatcher.of(concepts)
        self.vocabulary_ = {" ".join(concept): j for j, concept in enumerate(concepts)}
        return words, blocks

    def _take_vocabulary(self) -> None:
        """Concepts as the user gave them, with the words that a text with them would have."""
        columns, concepts = read_vocabulary(self.vocabulary, self._reader())
        for name in ("counts_", "pmi_"):  # of an earlier fit without vocabulary
            self.__dict__.pop(name, None)
        self._matcher = PhraseMatcher.of(concepts)
        self.vocabulary_ = columns

    def _fitted(self) -> PhraseMatcher:
        if not hasattr(self, "_matcher"):
            if self.vocabulary is None:
                raise NotFittedError(
                    f"This {type(self).__name__} instance is not fitted yet. Call 'fit', or give it a "
                    "vocabulary."
                )
            self._take_vocabulary()
        return self._matcher

    def _stack(self, blocks: Iterable[sp.csr_array]) -> sp.csr_array:
        none = sp.csr_array((0, self._matcher.n_columns), dtype=np.int32)
        return sp.csr_array(sp.vstack([none, *blocks], format="csr"))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_matcher") or self.vocabulary is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _concepts(
    text: str, *, matcher: PhraseMatcher, read: reading.Reader, names: np.ndarray
) -> list[str]:
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r} of type {type(text).__name__}; pass one text, a str.")
    words = read(text)
    _, column = matcher.units(matcher.numbers(words), np.array([len(words)]))
    found: list[str] = names[column].tolist()
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r} is not allowed; use True or False.")

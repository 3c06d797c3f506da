"""Texts to counts of concepts: words, and pairs of associated words, such as "new york"."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.io import show_progress
from flip_sklearn.parameters import (
    DocumentationLink,
    VocabularyRepr,
    check_bool,
    check_choice,
    check_integer,
    is_integer,
    is_real,
    refusal,
    short_repr,
)
from flip_sklearn.vocabulary.given import parse_vocabulary
from flip_sklearn.vocabulary.normalization import fold_accents
from flip_sklearn.vocabulary.phrases import Block, PhraseMatcher, choose_pairs, choose_words
from flip_sklearn.vocabulary.tokenizer import (
    ACCENT_STRIPPERS,
    PRESETS,
    TokenBlock,
    TokenIds,
    Tokenizer,
    check_documents,
    make_splitter,
    split_into_chunks,
    tokenize,
    unsuitable,
    warn_of_scripts,
)


# No set_output: counts are sparse, as those of CountVectorizer.
class ConceptVectorizer(  # type: ignore[call-arg]
    VocabularyRepr, DocumentationLink, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Count words, and pairs of associated words as single units.

    A concept is a word, or several consecutive words joined by a blank: ``"new york"``. Matching is greedy:
    from left to right, the longest concept that starts at a word is counted, and matching continues after
    it. So in "new york" neither "new" nor "york" is counted. These are the span-aware targets of Kesiraju
    et al. (2026, arXiv 2604.18109). Words in no concept are not counted.

    Words become concepts by corpus frequency. A pair of neighbors a b becomes a concept by corpus frequency
    and pointwise mutual information, in nats::

        PMI(a b) = ln [ p(a b) / (p(a) p(b)) ],   p(a b) = c(a b) / n_pairs,   p(a) = c(a) / n_words

    where c are counts in the texts of ``fit`` before phrases are matched, ``n_words`` is the number of
    words and ``n_pairs`` the number of pairs of neighbors in a text. 1.5 nats means that a pair occurs 4.5
    times as often as by chance.

    Parameters
    ----------
    bigrams : bool, default=True
        Whether pairs become concepts; if False, words only, as in ``CountVectorizer``.
    min_count : int, default=20
        Minimum number of occurrences of a word or a pair, >= 1.
    min_pmi : float, default=1.5
        Minimum PMI of a pair, in nats; a finite number.
    max_unigrams, max_bigrams : int or None, default=6500 and 3500
        Maximum number of words and of pairs, >= 1: the most frequent, equal counts in the order of names.
        None for no limit. A pair can be a concept when its words are not.
    token_pattern : {"latin", "indic", "whitespace"}, regular expression or callable, default="latin"
        Definition of a word in a cleaned text. ``"latin"``: two or more letters or digits, as in
        ``CountVectorizer``. ``"indic"``: a letter or digit and all letters, digits, vowel signs and
        other marks that follow: whole words in Devanagari, Telugu, Tamil, Bengali, Arabic, ...
        ``"whitespace"``: anything between white space. A callable takes a text and returns its words, for
        scripts without blanks.
    lowercase : bool, default=True
        Whether to fold case, as ``str.casefold`` does: "Straße" and "STRASSE" become "strasse".
    strip_punctuation : bool, default=True
        Whether to remove punctuation. Apostrophes, hyphens and single characters of ASCII are not replaced
        by a blank: "don't" becomes "dont", "U.S." "us". Others separate words: dashes, ellipses, quotes
        outside ASCII, ``, ; : ! ? / \\ < > " | =`` before a letter, and two or more characters of ASCII.
    strip_accents : {"auto", "ascii", "unicode"} or None, default="auto"
        ``"auto"`` removes the accents of Latin and Greek letters for ``token_pattern="latin"``, and nothing
        for any other pattern; letters such as ß, ł and œ stay. ``"ascii"`` and ``"unicode"`` as in
        ``CountVectorizer``: "ascii" deletes every letter that has no ASCII form, all of other scripts
        among them, and "unicode" removes the marks of all scripts.
    vocabulary : mapping of str to int, or iterable of str, default=None
        The concepts and their columns. Nothing is learned then: ``fit`` reads no text, and the five
        parameters above ``token_pattern`` have no effect. Concepts may have any number of words and are
        tokenized as texts are, so "New York" matches "new york".
    n_jobs : int, default=None
        Number of processes that tokenize: None for 1, -1 for all cores. The result is the same.
    verbose : bool, default=False
        Whether to show a progress bar on standard error after two seconds.

    Attributes
    ----------
    vocabulary_ : dict of str to int
        Each concept's column; columns are in the order of names when learned.
    counts_ : ndarray of shape (V,)
        Occurrences of each concept in the texts of ``fit``, before phrases are matched. Only when learned.
    pmi_ : ndarray of shape (V,)
        PMI of each pair in nats, NaN for words. Only when learned.

    Notes
    -----
    A word that only occurs inside longer concepts, such as "york", keeps its column, which is empty in the
    counts of the texts of ``fit``. Two words are neighbors if they are adjacent after cleaning: punctuation
    and words that the pattern drops do not separate them.

    Equivalent spellings of a letter are treated as equal (NFKC), and characters without width, such as soft
    hyphens and direction marks, are deleted. A warning counts the texts in scripts that do not suit
    ``token_pattern``. ``fit`` and ``fit_transform``
    read any iterable once and keep 4 bytes per word of it; ``transform`` keeps only the counts.

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
            One text per row, read once: may be a generator or an open file.
        y : None
            Ignored.

        Returns
        -------
        self : ConceptVectorizer
            The fitted vectorizer.

        Raises
        ------
        ValueError
            If a parameter is not allowed, a row is not a str (the message has its number), or no word
            is frequent enough.
        """
        if self.vocabulary is None:
            self._learn(raw_documents)
        else:
            check_documents(raw_documents)
            self._use_given_vocabulary()
        return self

    def fit_transform(self, raw_documents: Iterable[str], y: Any = None) -> sp.csr_array:
        """Choose the concepts and count them, in one pass over the texts.

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
        matcher_ids = self._matcher.word_ids(words)
        return self._stack(self._matcher.count(matcher_ids[ids], row_ends) for ids, row_ends in blocks)

    def transform(self, raw_documents: Iterable[str]) -> sp.csr_array:
        """Count the concepts in texts.

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
            If neither ``fit`` was called nor ``vocabulary`` passed.
        ValueError
            If a row is not a str (the message has its number).
        """
        matcher = self._get_matcher()
        return self._stack(
            matcher.count(matcher.word_ids(block.tokens)[block.ids], block.row_ends)
            for block in self._tokenize(raw_documents)
        )

    def inverse_transform(self, X: Any) -> list[np.ndarray]:
        """Return the concepts of each row of counts.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, V)
            Counts, of which only the nonzero ones matter.

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
        """Return a function that lists the concepts of one text, in order, as they are counted.

        Returns
        -------
        callable
            Takes a str and returns a list of str. It can be pickled.

        Raises
        ------
        NotFittedError
            If neither ``fit`` was called nor ``vocabulary`` passed.
        """
        names = self.get_feature_names_out()
        return functools.partial(_concepts, matcher=self._matcher, read=self._make_tokenizer(), names=names)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the concepts in the order of columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of shape (V,) of str objects
            The words, in the order of the columns.

        Raises
        ------
        NotFittedError
            If neither ``fit`` was called nor ``vocabulary`` passed.
        """
        self._get_matcher()
        return np.array(sorted(self.vocabulary_, key=self.vocabulary_.__getitem__), dtype=object)

    def _make_tokenizer(self) -> Tokenizer:
        split = make_splitter(self.token_pattern)
        preset = self.token_pattern if isinstance(self.token_pattern, str) else None
        accents = check_choice("strip_accents", self.strip_accents, ("auto", *ACCENT_STRIPPERS))
        if accents == "auto":
            fold = fold_accents if preset == "latin" else None
        else:
            fold = ACCENT_STRIPPERS[accents]
        if fold is not None and preset == "indic":
            raise ValueError(
                f"strip_accents={accents!r} removes marks, which token_pattern='indic' is meant to keep; "
                "use strip_accents='auto' or None."
            )
        check_bool("lowercase", self.lowercase)
        check_bool("strip_punctuation", self.strip_punctuation)
        return Tokenizer(self.lowercase, self.strip_punctuation, fold, split)

    def _check_criteria(self) -> None:
        if not (is_real(self.min_pmi) and math.isfinite(self.min_pmi)):
            raise refusal("min_pmi", self.min_pmi, "a finite number, in nats")
        check_integer("min_count", self.min_count, 1)
        check_bool("bigrams", self.bigrams)
        for name in ("max_unigrams", "max_bigrams"):
            limit = getattr(self, name)
            if limit is not None:
                check_integer(name, limit, 1, or_else="None for no limit")

    def _tokenize(self, raw_documents: Any) -> Iterator[TokenBlock]:
        """Yield the token ids of the texts, some thousand texts at a time, in order."""
        documents, tokenizer = check_documents(raw_documents), self._make_tokenizer()
        if self.n_jobs is not None and (not is_integer(self.n_jobs) or self.n_jobs == 0):
            raise refusal("n_jobs", self.n_jobs, "an integer >= 1, -1 for all cores, or None")
        n_jobs = effective_n_jobs(self.n_jobs)
        n_rows = 0
        rows_losing_letters: list[int] = []
        unsuited_rows: list[int] = []
        total = len(documents) if isinstance(documents, Sized) else None
        hidden = not self.verbose
        with show_progress(total=total, unit="text", desc="ConceptVectorizer", disable=hidden) as bar:
            for block in tokenize(
                split_into_chunks(documents), tokenizer, unsuitable(self.token_pattern), n_jobs
            ):
                rows_losing_letters += [n_rows + i for i in block.rows_losing_letters]
                unsuited_rows += [n_rows + i for i in block.unsuited_rows]
                n_rows += block.row_ends.size
                bar.update(block.row_ends.size)
                yield block
        warn_of_scripts(self.token_pattern, n_rows, rows_losing_letters, unsuited_rows)

    def _learn(self, raw_documents: Any) -> tuple[list[str], list[Block]]:
        """Choose the concepts. Return the distinct words, and the texts as blocks of ids of these words."""
        self._check_criteria()
        token_ids = TokenIds()
        counts = np.zeros(0, dtype=np.int64)
        blocks = []
        n_rows = 0
        without_words = None
        for block in self._tokenize(raw_documents):
            without_words = without_words or block.without_words
            word_ids = token_ids.look_up(block.tokens)
            if counts.size < len(token_ids):  # doubles, so that the total cost of copying is linear
                counts = np.pad(counts, (0, len(token_ids)))
            counts[word_ids] += np.bincount(block.ids, minlength=word_ids.size)
            blocks.append((word_ids[block.ids], block.row_ends))
            n_rows += block.row_ends.size
        words, counts = list(token_ids), counts[: len(token_ids)]
        if not words:
            remedy = self._remedy(without_words)
            raise ValueError(f"There is no word in {n_rows} texts. {remedy}")
        if counts.max() < self.min_count:
            raise ValueError(
                f"No word occurs min_count={self.min_count} times in {n_rows} texts; the most frequent, "
                f"{words[counts.argmax()]!r}, occurs {counts.max()} times. Lower min_count."
            )
        chosen = choose_words(words, counts, self.min_count, self.max_unigrams)
        if self.bigrams:
            chosen |= choose_pairs(words, counts, blocks, self.min_count, self.min_pmi, self.max_bigrams)
        concepts = sorted(chosen, key=" ".join)
        self.counts_ = np.array([chosen[concept][0] for concept in concepts])
        self.pmi_ = np.array([chosen[concept][1] for concept in concepts])
        self._matcher = PhraseMatcher.from_concepts(concepts)
        self.vocabulary_ = {" ".join(concept): j for j, concept in enumerate(concepts)}
        return words, blocks

    def _remedy(self, text: str | None) -> str:
        """Return what to change for a text in which the pattern finds no word."""
        if text is None or self.token_pattern in PRESETS:
            return "Pass texts, and for other scripts than Latin token_pattern='indic' or a callable."
        pattern, example = short_repr(self.token_pattern), short_repr(text)
        settings = [("strip_punctuation", False), ("lowercase", False), ("strip_accents", None)]
        for size in range(1, len(settings) + 1):
            for changes in itertools.combinations(settings, size):
                if clone(self).set_params(**dict(changes))._make_tokenizer()(text):
                    arguments = " and ".join(f"{name}={value}" for name, value in changes)
                    return f"Pass {arguments}: token_pattern={pattern} matches {example} only uncleaned."
        return f"token_pattern={pattern} matches nothing, for instance in {example}; change it."

    def _use_given_vocabulary(self) -> None:
        columns, concepts = parse_vocabulary(self.vocabulary, self._make_tokenizer())
        for name in ("counts_", "pmi_"):  # of an earlier fit without vocabulary
            self.__dict__.pop(name, None)
        self._matcher = PhraseMatcher.from_concepts(concepts)
        self.vocabulary_ = columns

    def _get_matcher(self) -> PhraseMatcher:
        message = "This %(name)s instance is not fitted yet. Call 'fit', or pass a vocabulary."
        check_is_fitted(self, msg=message)
        if not hasattr(self, "_matcher"):
            self._use_given_vocabulary()
        return self._matcher

    def _stack(self, blocks: Iterable[sp.csr_array]) -> sp.csr_array:
        no_rows = sp.csr_array((0, self._matcher.n_columns), dtype=np.int32)
        return sp.csr_array(sp.vstack([no_rows, *blocks], format="csr"))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_matcher"):  # words that were learned when texts were cleaned in another way
            self._matcher = self._matcher.rename(self._make_tokenizer().clean)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_matcher") or self.vocabulary is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


# Pickled analyzers hold this function and its keyword arguments by name.
def _concepts(text: str, *, matcher: PhraseMatcher, read: Tokenizer, names: np.ndarray) -> list[str]:
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r} of type {type(text).__name__}; pass one text, a str.")
    tokens = read(text)
    _, columns = matcher.find(matcher.word_ids(tokens), np.array([len(tokens)]))
    concepts: list[str] = names[columns].tolist()
    return concepts

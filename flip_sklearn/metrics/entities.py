"""Named entities among the keywords: recall, precision and F1 at k.

The rank of each word of a name among the keywords of its row is computed once. For each k, ranks are only
compared with k, so that many k cost little more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from flip_sklearn.metrics.summary import RowMean, check_weights, divide
from flip_sklearn.parameters import check_integer, short_repr
from flip_sklearn.vocabulary.normalization import word_reader

_NO_RANK = np.iinfo(np.int64).max  # the rank of a word that is not a keyword of its row


@dataclass(frozen=True)
class EntityRecall:
    """Result of :func:`entity_recall`: means over the rows with names.

    Attributes
    ----------
    recall_strict, recall_partial : RowMean
        Share of a row's names whose words are all among the keywords; mean share of a name's words.
    precision : RowMean
        Share of a row's keywords that are or cover a word of one of its names.
    f1_strict, f1_partial : RowMean
        Means of the rows' F1 of the precision with either recall.
    k : int or None
        Number of keywords used per row; None for all.
    """

    recall_strict: RowMean
    recall_partial: RowMean
    precision: RowMean
    f1_strict: RowMean
    f1_partial: RowMean
    k: int | None


def entity_recall(
    entities: Any, keywords: Any, k: int | None = None, *, sample_weight: Any = None, vectorizer: Any = None
) -> EntityRecall:
    """Named entities found among the k best keywords: recall, precision and F1.

    For a row with the listed names e_1, ..., e_m, let t(e) be the words of e (repeated words kept) and K the
    set of the row's k best keywords. Names and keywords are split into words as texts are: case, accents,
    apostrophes and hyphens do not count, so "O'Neill" is "oneill". A word of a name is in K if it is a
    keyword, or if a keyword of several words covers it: one inside the name, as "new york" in "New York
    City", or one that contains the name, begins in it or ends in it, as "in paris" for "Paris".
    Then, with ``|{}|`` for the number of distinct elements::

        recall_strict  = |{e_i : all words of e_i are in K}| / m
        recall_partial = 1/m sum_i  #(words of t(e_i) in K) / #t(e_i)
        precision      = |{keywords that cover a word of any e_i}| / |K|
        f1             = 2 precision recall / (precision + recall)     with either recall,

    each 0 if its denominator is 0; the results are (weighted) means over the rows with names.

    For keywords of one word and names of plain words, this is the definition of the published evaluation of
    FLiP (Kesiraju et al. 2026, arXiv 2604.18109), special cases included: a name that is listed twice is
    found once but counts twice in m, so it lowers strict recall (names are the same if their case-folded
    strings are equal). There, a keyword of several words matches no word of a name, and names are split at
    white space.

    Parameters
    ----------
    entities : sequence of n lists of str
        The names in each row's sentence; an empty list if there are none.
    keywords : sequence of n lists of str
        Each row's keywords, best first, as ``FLiPExtractor.extract_keywords`` returns them.
    k : int, default=None
        Number of keywords used per row, >= 1; None for all. Rows may have fewer.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.
    vectorizer : ConceptVectorizer or CountVectorizer, default=None
        The vectorizer of the keywords' vocabulary, if its parameters are not the defaults: names and
        keywords are split into words as it splits texts.

    Returns
    -------
    EntityRecall
        Five :class:`RowMean`, each in [0, 1]; rows without names are skipped and counted.

    Raises
    ------
    ValueError
        If the two differ in length, a row is not a list of strings, a name is blank, or k < 1.

    Examples
    --------
    >>> from flip_sklearn.metrics import entity_recall
    >>> entities = [["New York", "Alice"], []]
    >>> keywords = [["alice", "york", "fly", "to"], ["hello"]]
    >>> result = entity_recall(entities, keywords)
    >>> result.recall_strict.value, result.recall_partial.value, result.precision.value
    (0.5, 0.75, 0.5)
    >>> result.recall_strict.n_skipped
    1
    >>> entity_recall(entities, keywords, k=1).precision.value
    1.0
    """
    return entity_curve(entities, keywords, [k], sample_weight=sample_weight, vectorizer=vectorizer)[0]


def entity_curve(
    entities: Any,
    keywords: Any,
    ks: Iterable[int | None],
    *,
    sample_weight: Any = None,
    vectorizer: Any = None,
) -> list[EntityRecall]:
    """Compute :func:`entity_recall` at many k, for little more than the cost of one.

    With r(t) the rank of the best keyword of a row that has word t (infinite if there is none), a word is
    found at k if r(t) <= k, and a name if all of its words are.

    Parameters
    ----------
    entities, keywords : sequence of n lists of str
        As in :func:`entity_recall`.
    ks : iterable of int or None
        Numbers of keywords, >= 1, in any order; None for all.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.
    vectorizer : ConceptVectorizer or CountVectorizer, default=None
        The vectorizer of the keywords' vocabulary, if its parameters are not the defaults: names and
        keywords are split into words as it splits texts.

    Returns
    -------
    list of EntityRecall
        One for each k.

    Raises
    ------
    ValueError
        As :func:`entity_recall` does.

    Examples
    --------
    >>> from flip_sklearn.metrics import entity_curve
    >>> curve = entity_curve([["New York"]], [["york", "fly", "new"]], ks=[1, 2, 3])
    >>> [(point.k, point.recall_strict.value, point.recall_partial.value) for point in curve]
    [(1, 0.0, 0.5), (2, 0.0, 0.5), (3, 1.0, 1.0)]
    """
    if not isinstance(ks, Iterable) or isinstance(ks, str):
        raise ValueError(f"ks is {ks!r}; pass a list of numbers of keywords, or use entity_recall.")
    ks = [None if k is None else check_integer("k", k, 1, or_else="None for all") for k in ks]
    names = _check_rows(entities, "entities")
    words = _check_rows(keywords, "keywords")
    if len(names) != len(words):
        raise ValueError(
            f"entities has {len(names)} rows, keywords has {len(words)}; pass one list of names and one "
            "list of keywords per row."
        )
    weights = check_weights(sample_weight, len(names))
    ranks = _Ranks.from_rows(names, words, word_reader(vectorizer))
    return [ranks.evaluate(k, weights) for k in ks]


class KeywordSpans:
    """Finds the keywords that a word of a name can be found by: the word itself, and phrases.

    A phrase may lie inside the name, contain it, or begin or end in it, since matching from the left may read
    "in New York" as "in new" and "york".
    """

    def __init__(self, read: Callable[[str], list[str]]) -> None:
        self._read = read
        self._phrases: dict[str, dict[tuple[str, ...], None]] = {}  # by each of their words

    def key(self, keyword: str) -> str:
        """Return a string that equal keywords share."""
        words = self._read(keyword)
        if len(words) > 1:
            for word in words:
                self._phrases.setdefault(word, {})[tuple(words)] = None
        return " ".join(words) if words else f"\0{keyword}"  # without words, it is in no name

    def keywords_at(self, name: str) -> list[list[str]]:
        """Return, for each word of a name, the keys of the keywords seen so far by which it can be found."""
        words = self._read(name)
        if not words:
            return [["\0 no word"]]  # cannot be found
        keys = [[word] for word in words]
        for phrase in dict.fromkeys(chain.from_iterable(self._phrases.get(word, ()) for word in words)):
            for shift in range(1 - len(phrase), len(words)):
                first, last = max(shift, 0), min(shift + len(phrase), len(words))
                if words[first:last] == list(phrase[first - shift : last - shift]):
                    for position in range(first, last):
                        keys[position].append(" ".join(phrase))
        return keys


@dataclass(frozen=True)
class _Ranks:
    """Ranks among the keywords of a row, 0 for the best, of these keywords and of the words of names.

    The rank of a word of a name is that of the best keyword which is this word or covers it.
    """

    n_names: np.ndarray  # (n,) number of listed names
    # One entry for each distinct name of a row
    name_row: np.ndarray
    name_count: np.ndarray  # how often the row lists it
    name_length: np.ndarray  # in words
    # One entry for each word of these names, in their order
    word_rank: np.ndarray
    # One entry for each distinct keyword of a row
    keyword_row: np.ndarray
    keyword_rank: np.ndarray  # of its first occurrence
    is_match: np.ndarray  # whether it is or covers a word of a name of the row

    @classmethod
    def from_rows(cls, names: list[Any], keywords: list[Any], read: Callable[[str], list[str]]) -> _Ranks:
        n = len(names)
        # Strings become ids: each distinct string is read once.
        key_ids: dict[str, int] = {}
        name_ids: dict[str, int] = {}
        spans = KeywordSpans(read)
        keyword, n_keywords = _assign_ids(keywords, spans.key, key_ids)
        spelling: dict[str, str] = {}

        def name_key(name: str) -> str:
            key = f"{name.casefold()}\0{' '.join(read(name))}"
            spelling.setdefault(key, name)
            return key

        listed_name, n_names = _assign_ids(names, name_key, name_ids)
        positions = [spans.keywords_at(spelling[key]) for key in name_ids]
        n_words = np.array([len(name) for name in positions], dtype=np.int64)
        n_keys = np.array([len(keys) for name in positions for keys in name], dtype=np.int64)
        all_keys = chain.from_iterable(chain.from_iterable(positions))
        keys = np.array([key_ids.setdefault(key, len(key_ids)) for key in all_keys], dtype=np.int64)

        # An entry "id in row" is encoded as row * n_ids + id.
        n_ids = len(key_ids)
        row = np.repeat(np.arange(n), n_keywords)
        keyword_keys, first = np.unique(row * n_ids + keyword, return_index=True)
        keyword_row = row[first]
        keyword_rank = first - _starts(n_keywords)[keyword_row]

        n_name_ids = max(1, len(name_ids))
        row = np.repeat(np.arange(n), n_names)
        name_keys, name_count = np.unique(row * n_name_ids + listed_name, return_counts=True)
        name_row, name = np.divmod(name_keys, n_name_ids)
        name_length = n_words[name]

        # The words of a name are consecutive, and so are the keys of a word.
        word = _segments(_starts(n_words)[name], name_length)
        word_row, word_n_keys = np.repeat(name_row, name_length), n_keys[word]
        key = keys[_segments(_starts(n_keys)[word], word_n_keys)]
        searched = np.repeat(word_row, word_n_keys) * n_ids + key
        index = np.searchsorted(keyword_keys, searched)
        is_keyword = np.append(keyword_keys, -1)[index] == searched
        key_rank = np.where(is_keyword, np.append(keyword_rank, _NO_RANK)[index], _NO_RANK)
        word_rank = np.minimum.reduceat(key_rank, _starts(word_n_keys)) if len(key) else key_rank
        is_match = np.zeros(len(keyword_keys), dtype=bool)
        is_match[index[is_keyword]] = True
        return cls(
            n_names=n_names,
            name_row=name_row,
            name_count=name_count,
            name_length=name_length,
            word_rank=word_rank,
            keyword_row=keyword_row,
            keyword_rank=keyword_rank,
            is_match=is_match,
        )

    def evaluate(self, k: int | None, weights: np.ndarray) -> EntityRecall:
        """Compute the metrics with the k best keywords of each row."""
        limit = _NO_RANK if k is None else k
        is_found = (self.word_rank < limit).astype(np.int64)
        n_words_found = np.add.reduceat(is_found, _starts(self.name_length))
        share = n_words_found / self.name_length
        n_names_found = self._sum_rows(self.name_row, n_words_found == self.name_length)
        share_sum = self._sum_rows(self.name_row, share * self.name_count)
        is_used = self.keyword_rank < limit
        n_matched = self._sum_rows(self.keyword_row, is_used & self.is_match)
        n_keywords = self._sum_rows(self.keyword_row, is_used)
        strict = divide(n_names_found, self.n_names, 0.0)
        partial = divide(share_sum, self.n_names, 0.0)
        precision = divide(n_matched, n_keywords, 0.0)

        def mean(values: np.ndarray) -> RowMean:
            return RowMean.of(np.where(self.n_names > 0, values, np.nan), weights)

        return EntityRecall(
            recall_strict=mean(strict),
            recall_partial=mean(partial),
            precision=mean(precision),
            f1_strict=mean(divide(2 * precision * strict, precision + strict, 0.0)),
            f1_partial=mean(divide(2 * precision * partial, precision + partial, 0.0)),
            k=k,
        )

    def _sum_rows(self, row: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.bincount(row, weights=values, minlength=len(self.n_names))


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Return the start of each of several consecutive segments."""
    return np.asarray(np.cumsum(lengths) - lengths)


def _segments(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the indices of several segments, one after the other."""
    return np.asarray(np.arange(lengths.sum()) + np.repeat(starts - _starts(lengths), lengths))


def _assign_ids(
    rows: list[Any], key: Callable[[str], str], ids: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the id of the key of each string of all rows, and the lengths of the rows.

    Keys that are not in ``ids`` are added.
    """
    id_of: dict[str, int] = {}
    for string in dict.fromkeys(chain.from_iterable(rows)):
        id_of[string] = ids.setdefault(key(string), len(ids))
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return np.array([id_of[string] for row in rows for string in row], dtype=np.int64), lengths


def _check_rows(lists: Any, argument: str) -> list[Any]:
    """Return the rows, if each is a list of strings."""
    if isinstance(lists, (str, bytes, Mapping)) or not isinstance(lists, Iterable):
        raise ValueError(
            f"{argument} is {_describe(lists)}; pass one list of strings per row, [['a', ...], ...]."
        )
    rows = list(lists)
    excluded = (str, bytes, Mapping, Set) if argument == "keywords" else (str, bytes, Mapping)
    types = set(map(type, rows))
    list_types = {kind for kind in types if issubclass(kind, Collection) and not issubclass(kind, excluded)}
    for i, row in enumerate(rows):
        if type(row) not in list_types:
            raise ValueError(
                f"row {i} of {argument} is {_describe(row)}; pass a list of strings, best first for "
                "keywords, [] for none."
            )
        for value in row:
            if not isinstance(value, str):
                raise ValueError(
                    f"row {i} of {argument} holds {_describe(value)}; pass strings (for pairs of word and "
                    "score, use return_scores=False)."
                )
            if argument == "entities" and not value.strip():
                raise ValueError(
                    f"row {i} of entities holds the name {value!r}, which has no words; leave it out."
                )
    return rows


def _describe(value: Any) -> str:
    return f"the {type(value).__name__} {short_repr(value)}"

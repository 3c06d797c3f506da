"""Named entities among the keywords: recall, precision and F1 at k.

Words become numbers once, and each word of a name gets its rank among its row's keywords. All that a k
asks is which ranks lie below it, so many k cost little more than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from flip_sklearn.metrics.summary import RowMean, check_weights

_NEVER = np.iinfo(np.int64).max  # the rank of a word that is no keyword of its row


@dataclass(frozen=True)
class EntityRecall:
    """Result of :func:`entity_recall`; all means are over the rows with names.

    Attributes
    ----------
    recall_strict, recall_partial : RowMean
        Share of a row's names whose words are all among the keywords; mean share of a name's words.
    precision : RowMean
        Share of a row's keywords that are a word of one of its names.
    f1_strict, f1_partial : RowMean
        Means of the rows' F1 of the precision with either recall.
    k : int or None
        Keywords looked at per row; None for all.
    """

    recall_strict: RowMean
    recall_partial: RowMean
    precision: RowMean
    f1_strict: RowMean
    f1_partial: RowMean
    k: int | None


def entity_recall(
    entities: Any, keywords: Any, k: int | None = None, *, sample_weight: Any = None
) -> EntityRecall:
    """Named entities found among the k best keywords: recall, precision and F1.

    For a row with the listed names e_1, ..., e_m, let t(e) be the words of e (split at white space, a
    repeated word kept) and K the set of its k best keywords; everything is case-folded. Then, with |{}|
    for the number of distinct ones,

        recall_strict  = |{e_i : all words of e_i are in K}| / m
        recall_partial = 1/m sum_i  #(words of t(e_i) in K) / #t(e_i)
        precision      = |{words of any t(e_i) in K}| / |K|
        f1             = 2 precision recall / (precision + recall)     with either recall,

    each 0 where its denominator is; then (weighted) means over the rows with names.

    The definition of the published evaluation of FLiP (Kesiraju et al. 2026, arXiv 2604.18109), corners
    included: a name that is listed twice is found once but counts twice in m, so it lowers strict recall
    (names are the same if their case-folded strings are); a keyword of several words matches no word of
    a name. That code lowers letters where we fold them, which is the same but for a few such as the
    German sharp s.

    Parameters
    ----------
    entities : sequence of n lists of str
        The names in each row's sentence; an empty list where there is none.
    keywords : sequence of n lists of str
        Each row's keywords, best first, such as ``FLiPExtractor.extract_keywords`` gives.
    k : int, default=None
        Keywords looked at per row, >= 1; all for None. Rows may have fewer.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    EntityRecall
        Five :class:`RowMean`, each in [0, 1]; rows without names are skipped and counted.

    Raises
    ------
    ValueError
        If the two differ in length, a row is no list of strings, a name is empty or blank, or k < 1.

    Examples
    --------
    >>> from flip_sklearn.metrics import entity_recall
    >>> entities = [["New York", "Alice"], []]
    >>> keywords = [["alice", "york", "fly", "to"], ["hello"]]
    >>> found = entity_recall(entities, keywords)
    >>> found.recall_strict.value, found.recall_partial.value, found.precision.value
    (0.5, 0.75, 0.5)
    >>> found.recall_strict.n_skipped
    1
    >>> entity_recall(entities, keywords, k=1).precision.value
    1.0
    """
    return entity_curve(entities, keywords, [k], sample_weight=sample_weight)[0]


def entity_curve(
    entities: Any, keywords: Any, ks: Iterable[int | None], *, sample_weight: Any = None
) -> list[EntityRecall]:
    """:func:`entity_recall` at many k, for little more than the cost of one.

    With r(t) the rank of word t among its row's keywords (1 for the best, infinite if it is none), a
    word is found at k when r(t) <= k, and a name when the largest r of its words is.

    Parameters
    ----------
    entities, keywords : sequence of n lists of str
        As in :func:`entity_recall`.
    ks : iterable of int or None
        Numbers of keywords, >= 1, in any order; None for all.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

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
    >>> [(at.k, at.recall_strict.value, at.recall_partial.value) for at in curve]
    [(1, 0.0, 0.5), (2, 0.0, 0.5), (3, 1.0, 1.0)]
    """
    if not isinstance(ks, Iterable) or isinstance(ks, str):
        raise ValueError(f"ks is {ks!r}; pass a list of numbers of keywords, or use entity_recall.")
    asked = [_checked_k(k) for k in ks]
    names = _rows(entities, "entities", "name")
    words = _rows(keywords, "keywords", "word")
    if len(names) != len(words):
        raise ValueError(
            f"entities has {len(names)} rows, keywords has {len(words)}; pass one list of names and one "
            "list of keywords per row."
        )
    weights = check_weights(sample_weight, len(names))
    ranks = _Ranks.of(names, words)
    return [ranks.at(k, weights) for k in asked]


@dataclass(frozen=True)
class _Ranks:
    """Ranks, 0 for the best, that keywords and the words of names have in their row."""

    n_names: np.ndarray  # (n,) listed names
    # Distinct names of each row
    name_row: np.ndarray
    name_times: np.ndarray  # how often it is listed
    name_length: np.ndarray  # in words
    # The words of these names, one name after the other
    word_rank: np.ndarray
    # Distinct words in a row's names
    match_row: np.ndarray
    match_rank: np.ndarray
    # Distinct keywords of each row
    keyword_row: np.ndarray
    keyword_rank: np.ndarray  # the first place at which it stands

    @classmethod
    def of(cls, names: list[Any], keywords: list[Any]) -> _Ranks:
        # All strings once; distinct ones are folded and split, the rest is numbers.
        n = len(names)
        n_names = np.fromiter(map(len, names), dtype=np.int64, count=n)
        n_keywords = np.fromiter(map(len, keywords), dtype=np.int64, count=n)
        word_ids: dict[str, int] = {}
        keyword = _numbers(keywords, n_keywords.sum(), word_ids)
        name_ids: dict[str, int] = {}
        name = _numbers(names, n_names.sum(), name_ids)
        tokens = [folded.split() for folded in name_ids]
        n_tokens = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
        _refuse_blank(name, n_tokens, names, n_names)
        token = np.fromiter(
            (word_ids.setdefault(t, len(word_ids)) for t in chain.from_iterable(tokens)),
            dtype=np.int64, count=n_tokens.sum(),
        )  # fmt: skip
        n_ids = max(1, len(word_ids))

        row = np.repeat(np.arange(n), n_keywords)
        keys, first = np.unique(row * n_ids + keyword, return_index=True)
        place = first - (np.cumsum(n_keywords) - n_keywords)[row[first]]

        name_row = np.repeat(np.arange(n), n_names)
        # Distinct names of a row, with their words laid out one after the other
        once, of_listed = np.unique(name_row * max(1, len(name_ids)) + name, return_inverse=True)
        once_row, once_name = np.divmod(once, max(1, len(name_ids)))
        length = n_tokens[once_name]
        start = np.cumsum(length) - length
        offset = np.cumsum(n_tokens) - n_tokens
        inside = np.arange(length.sum()) - np.repeat(start, length)
        word = token[np.repeat(offset[once_name], length) + inside]
        word_row = np.repeat(once_row, length)
        rank = _look_up(word_row * n_ids + word, keys, place)
        matched, at = np.unique(word_row * n_ids + word, return_index=True)
        return cls(
            n_names=n_names,
            name_row=once_row,
            name_times=np.bincount(of_listed, minlength=len(once)),
            name_length=length,
            word_rank=rank,
            match_row=matched // n_ids,
            match_rank=rank[at],
            keyword_row=row[first],
            keyword_rank=place,
        )

    def at(self, k: int | None, weights: np.ndarray) -> EntityRecall:
        """The metrics with the k best keywords of each row."""
        limit = _NEVER if k is None else k
        start = np.cumsum(self.name_length) - self.name_length
        n_words = np.add.reduceat((self.word_rank < limit).astype(np.int64), start)
        n_found = self._per_row(self.name_row, n_words == self.name_length)
        shares = self._per_row(self.name_row, n_words / self.name_length * self.name_times)
        n_matched = self._per_row(self.match_row, self.match_rank < limit)
        n_keywords = self._per_row(self.keyword_row, self.keyword_rank < limit)
        strict = _ratio(n_found, self.n_names)
        partial = _ratio(shares, self.n_names)
        precision = _ratio(n_matched, n_keywords)
        has_names = self.n_names > 0

        def mean(values: np.ndarray) -> RowMean:
            return RowMean.of(np.where(has_names, values, np.nan), weights)

        return EntityRecall(
            recall_strict=mean(strict),
            recall_partial=mean(partial),
            precision=mean(precision),
            f1_strict=mean(_ratio(2 * precision * strict, precision + strict)),
            f1_partial=mean(_ratio(2 * precision * partial, precision + partial)),
            k=k,
        )

    def _per_row(self, row: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.bincount(row, weights=values, minlength=len(self.n_names))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, 0 where the denominator is."""
    ratio = np.zeros(len(numerator))
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


def _look_up(wanted: np.ndarray, keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The place of each wanted key; keys are sorted."""
    if not len(keys):
        return np.full(len(wanted), _NEVER)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, places[at], _NEVER)


def _numbers(rows: list[Any], total: int, ids: dict[str, int]) -> np.ndarray:
    """One number per string of all rows, equal for strings that fold alike; fills ``ids``."""
    of_string: dict[str, int] = dict.fromkeys(chain.from_iterable(rows), 0)
    for string in of_string:
        of_string[string] = ids.setdefault(string.casefold(), len(ids))
    strings = chain.from_iterable(rows)
    return np.fromiter(map(of_string.__getitem__, strings), dtype=np.int64, count=total)


def _rows(given: Any, argument: str, content: str) -> list[Any]:
    """The rows as lists of strings, or an error that names the first one that is none."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ValueError(
            f"{argument} is {_shown(given)}; pass one list of strings per row, [['a', ...], ...]."
        )
    rows = list(given)
    # Types are few, so that rows and strings are only looked at one by one to name the wrong one.
    unordered = () if argument == "entities" else (AbstractSet,)
    bad = {
        kind for kind in set(map(type, rows))
        if issubclass(kind, (str, bytes, Mapping, *unordered))
        or not (issubclass(kind, Iterable) and issubclass(kind, Sized))
    }  # fmt: skip
    if bad:
        row = next(i for i, row in enumerate(rows) if type(row) in bad)
        raise ValueError(
            f"row {row} of {argument} is {_shown(rows[row])}; pass a list of strings, best first for "
            "keywords, [] for none."
        )
    if not all(issubclass(kind, str) for kind in set(map(type, chain.from_iterable(rows)))):
        row, wrong = next(
            (i, string)
            for i, row in enumerate(rows)
            for string in row
            if not isinstance(string, str)
        )
        raise ValueError(
            f"row {row} of {argument} holds {_shown(wrong)}; each {content} is a string (for pairs of "
            "word and score, leave out return_scores)."
        )
    return rows


def _shown(value: Any) -> str:
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _refuse_blank(
    name: np.ndarray, n_tokens: np.ndarray, names: list[Any], n_names: np.ndarray
) -> None:
    blank = n_tokens[name] == 0
    if blank.any():
        row = int(np.searchsorted(np.cumsum(n_names), np.argmax(blank), side="right"))
        value = next(string for string in names[row] if not string.strip())
        raise ValueError(
            f"row {row} of entities holds the name {value!r}, which has no words; leave it out."
        )


def _checked_k(k: Any) -> int | None:
    if k is None:
        return None
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k is {k!r}; pass a whole number of keywords >= 1, or None for all.")
    return int(k)

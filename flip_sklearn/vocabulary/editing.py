"""Concepts in a text by their position: deletion, and replacement by another concept."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flip_sklearn.parameters import refusal, short_repr
from flip_sklearn.vocabulary.normalization import word_reader

Span = tuple[int, int]

_NOT_BLANK = re.compile(r"\S+")
_JOINERS = "\u200c\u200d"  # inside words of Indic scripts
_AFTER_WORDS = ("", *",.;:!?")
# A word such as "U.S.A." has several runs of letters; more than these are not tried.
_MAX_PIECES = 12
# Texts and stretches of text whose tokens are kept: most stretches of a corpus are repeated.
_CACHE_SIZE = 2**16


class ConceptEditor:
    """Find the concepts of a vectorizer in texts as they were written, delete them, and replace them.

    A vectorizer counts words in a cleaned text. The editor finds the characters of each word in the text
    before cleaning, so that case, punctuation and all other words stay as they are.

    Parameters
    ----------
    vectorizer : ConceptVectorizer, CountVectorizer or TfidfVectorizer
        Fitted, or with a given vocabulary. Its tokens are words, not characters.

    Raises
    ------
    ValueError
        If the vectorizer has no vocabulary of words.
    """

    def __init__(self, vectorizer: Any) -> None:
        if not hasattr(vectorizer, "get_feature_names_out"):
            raise ValueError(
                f"vectorizer is {short_repr(vectorizer)}; pass a fitted ConceptVectorizer or "
                "CountVectorizer, with the vocabulary of the model."
            )
        analyzer = getattr(vectorizer, "analyzer", "word")
        if isinstance(analyzer, str) and analyzer != "word":
            raise refusal("vectorizer.analyzer", analyzer, "'word': concepts of characters are not deleted")
        read = vectorizer.build_analyzer() if callable(analyzer) else word_reader(vectorizer)
        self.names = [str(name) for name in vectorizer.get_feature_names_out()]
        self._read: Callable[[str], Sequence[str]] = functools.lru_cache(_CACHE_SIZE)(
            lambda text: tuple(read(text))
        )
        self._matcher = vectorizer._get_matcher() if hasattr(vectorizer, "_get_matcher") else None
        concepts = [tuple(name.split()) if self._matcher is None else self._read(name) for name in self.names]
        self._n_tokens = np.array([len(concept) for concept in concepts], dtype=np.int64)
        self._column_of = {concept: j for j, concept in enumerate(concepts)}

    def find(self, text: str) -> dict[int, list[Span]] | None:
        """Return the spans of each concept in a text, by column.

        Parameters
        ----------
        text : str

        Returns
        -------
        dict of int to list of (int, int), or None
            Start and end of each occurrence, in characters; None if the tokens of the text cannot be
            located in it, which happens for tokenizers that change words.
        """
        tokens, spans = self._read(text), self._locate(text)
        if spans is None:
            return None
        found: dict[int, list[Span]] = {}
        for column, start, n in self._matches(tokens):
            found.setdefault(column, []).append((spans[start][0], spans[start + n - 1][1]))
        return found

    def edit(self, text: str, spans: list[Span], column: int, replacement: int | None = None) -> str | None:
        """Delete all occurrences of a concept, or replace them by another concept.

        Parameters
        ----------
        text : str
        spans : list of (int, int)
            Where the concept is, from :meth:`find`.
        column, replacement : int
            Columns of the concept and of the one that replaces it; None to delete.

        Returns
        -------
        str or None
            The new text; None if the concept is still in it, its replacement is not, or no word is left.
        """
        new = "" if replacement is None else self.names[replacement]
        edited = text
        for start, end in sorted(spans, reverse=True):
            edited = _cut(edited, start, end, new)
        tokens = self._read(edited)
        columns = {match[0] for match in self._matches(tokens)}
        is_lost = replacement is not None and replacement not in columns
        return None if column in columns or is_lost or not tokens else edited

    def _matches(self, tokens: Sequence[str]) -> list[tuple[int, int, int]]:
        """Return column, first token and number of tokens of each concept, as the vectorizer counts them."""
        if self._matcher is not None:
            ids = self._matcher.word_ids(tokens)
            position, column = self._matcher.find(ids, np.array([len(tokens)]))
            return list(zip(column.tolist(), position.tolist(), self._n_tokens[column].tolist(), strict=True))
        sizes = range(1, int(self._n_tokens.max(initial=0)) + 1)
        n_grams = [(tuple(tokens[i : i + n]), i, n) for n in sizes for i in range(len(tokens) - n + 1)]
        return [(self._column_of[words], i, n) for words, i, n in n_grams if words in self._column_of]

    def _locate(self, text: str) -> list[Span] | None:
        """Return the span of each token of a text; None if they cannot be located."""
        spans: list[Span] = []
        tokens: list[str] = []
        for stretch in _NOT_BLANK.finditer(text):
            part = self._read(stretch.group())
            inside = self._locate_in_stretch(stretch.group(), part)
            if inside is None:
                return _search(text, self._read(text))
            spans += [(stretch.start() + start, stretch.start() + end) for start, end in inside]
            tokens += part
        # A tokenizer that looks beyond blanks reads a text in another way than its stretches.
        return spans if tokens == list(self._read(text)) else _search(text, self._read(text))

    def _locate_in_stretch(self, text: str, tokens: Sequence[str]) -> list[Span] | None:
        """Return the spans of the tokens of a text without blanks, without the punctuation around them."""
        if not tokens:
            return []
        pieces = _pieces(text)
        spans: list[Span] = []
        first = 0
        for token in tokens:
            while first < len(pieces):
                # The longest match: "dont" is all of "don't".
                ends = (
                    last
                    for last in reversed(range(first, min(first + _MAX_PIECES, len(pieces))))
                    if self._read(text[pieces[first][0] : pieces[last][1]]) == (token,)
                )
                last = next(ends, None)
                if last is not None:
                    spans.append((pieces[first][0], pieces[last][1]))
                    first = last + 1
                    break
                first += 1  # a piece that is no word by itself, such as a single letter
            else:
                return [(0, len(text))] if len(tokens) == 1 else _search(text, tokens)
        return spans


@functools.lru_cache(_CACHE_SIZE)
def _pieces(text: str) -> list[Span]:
    """Return the spans of the runs of letters, digits and their marks."""
    is_inside = "".join("01"[unicodedata.category(c)[0] in "LMN" or c in _JOINERS] for c in text)
    return [match.span() for match in re.finditer("1+", is_inside)]


def _search(text: str, tokens: Sequence[str]) -> list[Span] | None:
    """Return the spans of tokens that are written in the text, in order, in any case."""
    folded = text.lower()
    if len(folded) != len(text):
        folded = text
    spans, position = [], 0
    for token in tokens:
        start = folded.find(token, position)
        start = text.find(token, position) if start < 0 else start
        if start < 0:
            return None
        spans.append((start, start + len(token)))
        position = start + len(token)
    return spans


def _cut(text: str, start: int, end: int, new: str) -> str:
    """Replace a span by a new word, in capitals if the old one is; without a word, drop a blank, too."""
    if new:
        return text[:start] + (new[0].upper() + new[1:] if text[start].isupper() else new) + text[end:]
    left, right = text[:start], text[end:]
    if not left or left[-1].isspace():
        right = right.lstrip()
    # No blank at the end, or before punctuation.
    return (left.rstrip() if right[:1] in _AFTER_WORDS else left) + right

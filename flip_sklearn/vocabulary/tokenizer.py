"""Tokenization: texts to tokens to token ids, block by block, optionally in several processes."""

from __future__ import annotations

import functools
import itertools
import re
import string
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.feature_extraction.text import strip_accents_ascii, strip_accents_unicode

from flip_sklearn.parameters import refusal, short_repr

PRESETS = ("latin", "indic", "whitespace")
ACCENT_STRIPPERS = {"ascii": strip_accents_ascii, "unicode": strip_accents_unicode, None: None}
# Characters deleted by the published code, so that "don't" becomes "dont": ASCII punctuation, curly
# quotes, the em dash and three zero-width characters. The joiner U+200D stays: Indic spelling needs it.
_DELETED = re.compile(f"[{re.escape(string.punctuation)}’‘“”—\u200b\u200c\u2060]+")  # noqa: RUF001
_LATIN = re.compile(r"\b\w\w+\b")
MAX_CHUNK_ROWS, MAX_CHUNK_CHARACTERS = 4096, 2**21


def split_latin(text: str) -> list[str]:
    r"""Return the matches of ``\b\w\w+\b``: runs of two or more letters, digits or "_"."""
    tokens = text.split()
    if "".join(tokens).isalnum():  # the usual case after stripping punctuation, faster than the pattern
        return [token for token in tokens if len(token) > 1]
    return _LATIN.findall(text)


@functools.cache
def _indic_pattern() -> str:
    r"""Return a pattern for a letter or digit and the letters, digits, marks and joiners after it.

    ``\w`` does not match marks.
    """
    is_mark = [unicodedata.category(chr(code))[0] == "M" for code in range(sys.maxunicode + 1)]
    ends = np.flatnonzero(np.diff(is_mark, prepend=False, append=False))
    ranges = [f"{chr(first)}-{chr(end - 1)}" for first, end in ends.reshape(-1, 2)]
    return rf"\w[\w\u200c\u200d{''.join(ranges)}]*"


@dataclass(frozen=True)
class CheckedSplitter:
    """A user's pattern or callable, whose tokens are checked: str, not empty, without white space."""

    split: Callable[[str], Iterable[str]]

    def __call__(self, text: str) -> list[str]:
        """Return the tokens of a text; white space around a token is removed."""
        result = self.split(text)
        if isinstance(result, str) or not isinstance(result, Iterable):
            raise ValueError(
                f"token_pattern returned {short_repr(result)} for the text {short_repr(text)}; it must "
                "return a list of words."
            )
        tokens: list[str] = []
        for token in result:
            parts = token.split() if isinstance(token, str) else None
            if parts is None or len(parts) > 1:
                raise ValueError(
                    f"token_pattern returned the word {token!r}; words are str without white space, which "
                    "separates the words of a concept. Split there, or replace it by '_'."
                )
            tokens += parts
        return tokens


def make_splitter(token_pattern: Any) -> Callable[[str], list[str]]:
    """Return the function that splits a cleaned text into tokens."""
    if callable(token_pattern):
        return CheckedSplitter(token_pattern)
    allowed = f"one of {', '.join(map(repr, PRESETS))}, a regular expression or a callable"
    if not isinstance(token_pattern, str) or not token_pattern:
        raise refusal("token_pattern", token_pattern, allowed)
    if token_pattern == "latin":
        return split_latin
    if token_pattern == "indic":
        return re.compile(_indic_pattern()).findall
    if token_pattern == "whitespace":
        return str.split
    if token_pattern.isidentifier():  # a misspelled preset would be a pattern that rarely matches
        raise ValueError(f"token_pattern={token_pattern!r} is not a preset; use {allowed}.")
    try:
        pattern = re.compile(token_pattern)
    except re.error as error:
        raise ValueError(
            f"token_pattern={token_pattern!r} is not a regular expression ({error}); use {allowed}."
        ) from error
    if pattern.groups > 1:
        raise ValueError(
            f"token_pattern={token_pattern!r} has {pattern.groups} capturing groups; use at most one, which "
            "matches the word, and write the other groups as (?:...)."
        )
    return CheckedSplitter(pattern.findall)


@dataclass(frozen=True)
class Tokenizer:
    """Clean a text and split it into tokens. Can be pickled, for use in other processes."""

    lowercase: bool
    strip_punctuation: bool
    fold: Callable[[str], str] | None  # strips accents
    split: Callable[[str], list[str]]

    def clean(self, text: str) -> str:
        """Return the text with punctuation, case and accents removed, as configured."""
        if self.strip_punctuation:
            text = _DELETED.sub("", text)
        if self.lowercase:
            text = text.lower()
        if not text.isascii():
            # White space outside ASCII becomes a blank: ASCII folding would delete it and join two words.
            text = " ".join(unicodedata.normalize("NFC", text).split())
        if self.fold is not None and not text.isascii():
            text = self.fold(text)
        return text

    def __call__(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return self.split(self.clean(text))


def letters(text: str) -> str:
    """Return the letters and digits of a text."""
    return "".join(filter(str.isalnum, text))


class TokenIds(dict[str, int]):
    """Ids of distinct tokens: a token that is looked up for the first time gets the next id."""

    def __missing__(self, token: str) -> int:
        self[token] = new_id = len(self)
        return new_id

    def look_up(self, tokens: Sequence[str]) -> np.ndarray:
        """Return the id of each token."""
        return np.fromiter(map(self.__getitem__, tokens), np.int32, len(tokens))


@dataclass(frozen=True)
class TokenBlock:
    """Token ids of some texts: row i is ``ids[row_ends[i - 1]:row_ends[i]]``, indices of ``tokens``."""

    tokens: list[str]  # distinct
    ids: np.ndarray
    row_ends: np.ndarray
    rows_without_letters: list[int]  # rows whose letters are all deleted when accents are stripped


def _tokenize_chunk(texts: Sequence[str], tokenizer: Tokenizer) -> TokenBlock:
    all_tokens: list[str] = []
    row_ends = np.empty(len(texts), dtype=np.int64)
    rows_without_letters = []
    for i, text in enumerate(texts):
        tokens = tokenizer(text)
        if not tokens and letters(text) and not letters(tokenizer.clean(text)):
            rows_without_letters.append(i)
        all_tokens += tokens
        row_ends[i] = len(all_tokens)
    token_ids = TokenIds()
    ids = token_ids.look_up(all_tokens)
    return TokenBlock(list(token_ids), ids, row_ends, rows_without_letters)


def tokenize(chunks: Iterator[list[str]], tokenizer: Tokenizer, n_jobs: int) -> Iterator[TokenBlock]:
    """Tokenize chunks of texts in ``n_jobs`` processes; yield one block per chunk, in order."""
    # A few chunks at a time, so that memory stays bounded.
    while window := list(itertools.islice(chunks, 4 * n_jobs)):
        pool = Parallel(n_jobs=min(n_jobs, len(window)))  # starts no process for one chunk
        yield from pool(delayed(_tokenize_chunk)(chunk, tokenizer) for chunk in window)


def check_documents(raw_documents: Any) -> Iterable[Any]:
    """Return the texts, if they are a one-dimensional iterable and not a single text or a mapping."""
    if isinstance(raw_documents, str | bytes | Mapping | Set) or not isinstance(raw_documents, Iterable):
        raise ValueError(
            f"raw_documents is a {type(raw_documents).__name__}; pass a list of texts, one str per row."
        )
    n_dimensions = getattr(raw_documents, "ndim", 1)
    if n_dimensions != 1:
        raise ValueError(
            f"raw_documents has {n_dimensions} dimensions; pass one text per row, for example one column "
            "of a table."
        )
    return raw_documents


def split_into_chunks(raw_documents: Iterable[Any]) -> Iterator[list[str]]:
    """Yield lists of texts of bounded length, in rows and in characters."""
    chunk: list[str] = []
    n_characters = 0
    for row, text in enumerate(raw_documents):
        if not isinstance(text, str):
            remedy = "decode it" if isinstance(text, bytes) else "pass '' for a missing text"
            raise ValueError(
                f"row {row} is {short_repr(text)} of type {type(text).__name__}, not str; {remedy}."
            )
        chunk.append(text)
        n_characters += len(text)
        if len(chunk) == MAX_CHUNK_ROWS or n_characters >= MAX_CHUNK_CHARACTERS:
            yield chunk
            chunk, n_characters = [], 0
    if chunk:
        yield chunk

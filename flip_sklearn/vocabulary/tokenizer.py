"""Text -> words -> numbers: cleaning, token patterns and reading in blocks, by several processes."""

from __future__ import annotations

import functools
import itertools
import re
import string
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.feature_extraction.text import strip_accents_ascii, strip_accents_unicode

PRESETS = ("latin", "indic", "whitespace")
FOLDS = {"ascii": strip_accents_ascii, "unicode": strip_accents_unicode, None: None}
# The published code deletes these, so "don't" becomes "dont": ASCII punctuation, curly quotes, the
# em dash and three characters without width. The joiner U+200D stays: it shapes Indic letters.
_DELETED = re.compile(f"[{re.escape(string.punctuation)}’‘“”—\u200b\u200c\u2060]+")  # noqa: RUF001
_LATIN = re.compile(r"\b\w\w+\b")
_BLOCK_ROWS, _BLOCK_CHARACTERS = 4096, 2**21


def _latin(text: str) -> list[str]:
    r"""Runs of two or more letters, digits or "_": what ``\b\w\w+\b`` finds, mostly without it."""
    words = text.split()
    if "".join(words).isalnum():  # nothing but such runs and blanks, as after stripping punctuation
        return [word for word in words if len(word) > 1]
    return _LATIN.findall(text)


@functools.cache
def _indic_pattern() -> str:
    r"""A letter or digit and all letters, digits, marks and joiners that follow; ``\w`` has no marks."""
    marks = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M"]
    ranges: list[list[str]] = []
    for mark in marks:
        if ranges and ord(ranges[-1][1]) + 1 == ord(mark):
            ranges[-1][1] = mark
        else:
            ranges.append([mark, mark])
    return rf"\w[\w\u200c\u200d{''.join(f'{first}-{last}' for first, last in ranges)}]*"


@dataclass(frozen=True)
class _Guard:
    """Words from a user's pattern or function: no blanks in them, none without a character."""

    split: Callable[[str], Iterable[str]]

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text."""
        """The tokens of a text."""
        found = self.split(text)
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise ValueError(
                f"token_pattern gave {found!r} for the text {text!r}; it must give a list of words."
            )
        words: list[str] = []
        for word in found:
            parts = word.split() if isinstance(word, str) else [word, word]
            if len(parts) > 1:
                raise ValueError(
                    f"token_pattern gave the word {word!r}; words are str without white space, which "
                    "joins the words of a concept. Split there, or put '_' in its place."
                )
            words += parts
        return words


def splitter(token_pattern: Any) -> Callable[[str], list[str]]:
    """What cuts a cleaned text into words."""
    if callable(token_pattern):
        return _Guard(token_pattern)
    remedy = f"use one of {', '.join(map(repr, PRESETS))}, a regular expression or a callable."
    if not isinstance(token_pattern, str) or not token_pattern:
        raise ValueError(f"token_pattern={token_pattern!r} is not allowed; {remedy}")
    if token_pattern == "latin":
        return _latin
    if token_pattern == "indic":
        return re.compile(_indic_pattern()).findall
    if token_pattern == "whitespace":
        return str.split
    if token_pattern.isidentifier():  # a misspelt name would be a pattern that never matches
        raise ValueError(f"token_pattern={token_pattern!r} is no preset; {remedy}")
    try:
        pattern = re.compile(token_pattern)
    except re.error as error:
        raise ValueError(
            f"token_pattern={token_pattern!r} is no regular expression ({error}); {remedy}"
        ) from error
    if pattern.groups > 1:
        raise ValueError(
            f"token_pattern={token_pattern!r} has {pattern.groups} capturing groups; use at most one, "
            "the word: (?:...) groups without capturing."
        )
    return _Guard(pattern.findall)


@dataclass(frozen=True)
class Reader:
    """Text -> words. It can be pickled, so that other processes read too."""

    lowercase: bool
    strip_punctuation: bool
    fold: Callable[[str], str] | None
    split: Callable[[str], list[str]]

    def clean(self, text: str) -> str:
        """The text in lower case, without punctuation and accents, as the settings ask."""
        if self.strip_punctuation:
            text = _DELETED.sub("", text)
        if self.lowercase:
            text = text.lower()
        if not text.isascii():
            # Blanks that are not ASCII would be deleted with the accents, and two words be one.
            text = " ".join(unicodedata.normalize("NFC", text).split())
        if self.fold is not None and not text.isascii():
            text = self.fold(text)
        return text

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text."""
        return self.split(self.clean(text))

    def wipes(self, text: str) -> bool:
        """Whether stripping accents leaves nothing of a text with letters."""
        if self.fold is None or text.isascii() or not any(map(str.isalnum, text)):
            return False
        return not any(map(str.isalnum, self.clean(text)))


@dataclass(frozen=True)
class Block:
    """Some texts as word numbers: row i holds ``ids[ends[i - 1]:ends[i]]``, ``words[id]`` spells one."""

    words: list[str]
    ids: np.ndarray
    ends: np.ndarray
    wiped: list[int]


def _read(texts: Sequence[str], read: Reader) -> Block:
    tokens: list[str] = []
    ends = np.empty(len(texts), dtype=np.int64)
    wiped = []
    for i, text in enumerate(texts):
        words = read(text)
        if not words and read.wipes(text):
            wiped.append(i)
        tokens += words
        ends[i] = len(tokens)
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__  # a new word gets the next number
    ids = np.fromiter(map(number.__getitem__, tokens), np.int32, len(tokens))
    return Block(list(number), ids, ends, wiped)


def read_all(chunks: Iterator[list[str]], read: Reader, n_jobs: int) -> Iterator[Block]:
    """Tokenize chunks of texts, in ``n_jobs`` processes; blocks come in the order of the chunks."""
    first = list(itertools.islice(chunks, 2))
    if n_jobs == 1 or len(first) < 2:
        for chunk in itertools.chain(first, chunks):
            yield _read(chunk, read)
        return
    with Parallel(n_jobs=n_jobs) as pool:  # a few chunks at a time: memory stays bounded
        chunks = itertools.chain(first, chunks)
        while window := list(itertools.islice(chunks, 4 * n_jobs)):
            yield from pool(delayed(_read)(chunk, read) for chunk in window)


def check_documents(raw_documents: Any) -> Iterable[Any]:
    """The texts, if they are an iterable of texts and not a single text or a mapping."""
    if isinstance(raw_documents, str | bytes | Mapping | Set) or not isinstance(
        raw_documents, Iterable
    ):
        what = type(raw_documents).__name__
        raise ValueError(f"raw_documents is a {what}; pass a list of texts, one str per row.")
    if getattr(raw_documents, "ndim", 1) != 1:
        raise ValueError(
            f"raw_documents has {raw_documents.ndim} dimensions; pass one text per row, for example one "  # type: ignore[attr-defined]
            "column of a table."
        )
    return raw_documents


def chunks(raw_documents: Iterable[Any]) -> Iterator[list[str]]:
    """Lists of texts, none of which is large in rows or in characters."""
    chunk: list[str] = []
    size = 0
    for row, text in enumerate(raw_documents):
        if not isinstance(text, str):
            remedy = "decode it" if isinstance(text, bytes) else "pass '' for a missing text"
            raise ValueError(
                f"row {row} is {text!r} of type {type(text).__name__}, not str; {remedy}."
            )
        chunk.append(text)
        size += len(text)
        if len(chunk) == _BLOCK_ROWS or size >= _BLOCK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk

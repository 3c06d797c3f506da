"""Tokenization: texts to tokens to token ids, block by block, optionally in several processes."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.feature_extraction.text import strip_accents_ascii, strip_accents_unicode

from flip_sklearn.parameters import refusal, short_repr, warn_caller
from flip_sklearn.vocabulary.normalization import normalize

PRESETS = ("latin", "indic", "whitespace")
ACCENT_STRIPPERS = {"ascii": strip_accents_ascii, "unicode": strip_accents_unicode, None: None}
# Two or more letters or digits, which may have diacritics that cannot be composed with them.
_LATIN = re.compile(r"\w[\u0300-\u036f]*\w[\w\u0300-\u036f]*")
# Thai, Lao, Burmese, Khmer, Japanese and Chinese are written without blanks.
_WITHOUT_BLANKS = (
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30fa\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
MAX_CHUNK_ROWS, MAX_CHUNK_CHARACTERS = 4096, 2**21


def split_latin(text: str) -> list[str]:
    r"""Return the matches of ``\b\w\w+\b``: runs of two or more letters, digits or "_"."""
    tokens = text.split()
    if "".join(tokens).isalnum():  # the usual case after stripping punctuation, faster than the pattern
        return [token for token in tokens if len(token) > 1]
    return _LATIN.findall(text)


@functools.cache
def _marks(first_code: int) -> str:
    """Return the marks of Unicode from a code on, as ranges for a character class."""
    # Beyond this range there are only variation selectors, which are not read.
    is_mark = [unicodedata.category(chr(code))[0] == "M" for code in range(first_code, 0x20000)]
    ends = first_code + np.flatnonzero(np.diff(is_mark, prepend=False, append=False))
    return "".join(f"{chr(first)}-{chr(end - 1)}" for first, end in ends.reshape(-1, 2))


def _indic_pattern() -> str:
    r"""Return a pattern for a letter or digit and the letters, digits, marks and joiners after it.

    ``\w`` does not match marks.
    """
    return rf"\w[\w\u200c\u200d{_marks(0)}]*"


def unsuitable(token_pattern: Any) -> re.Pattern[str] | None:
    """Return a pattern that finds letters which a preset does not split into words; None for the others."""
    if token_pattern == "latin":  # it cuts words at marks, except the diacritics before U+0370
        return re.compile(rf"[{_WITHOUT_BLANKS}]|[^\W\d_][{_marks(0x370)}]")
    return re.compile(f"[{_WITHOUT_BLANKS}]") if token_pattern == "indic" else None


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
        text = normalize(text, lowercase=self.lowercase, strip_punctuation=self.strip_punctuation)
        return text if self.fold is None else self.fold(text)

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
    rows_losing_letters: list[int]  # rows of which letters are deleted when accents are stripped
    unsuited_rows: list[int]  # rows with letters that the pattern does not split into words
    without_words: str | None  # a text that has letters and no token


def _tokenize_chunk(
    texts: Sequence[str], tokenizer: Tokenizer, unsuitable: re.Pattern[str] | None
) -> TokenBlock:
    all_tokens: list[str] = []
    row_ends = np.empty(len(texts), dtype=np.int64)
    rows_losing_letters, unsuited_rows = [], []
    without_words = None
    for i, text in enumerate(texts):
        tokens = tokenizer(text)
        if not text.isascii():
            if (
                tokenizer.fold is strip_accents_ascii
                and not letters(unicodedata.normalize("NFKD", text)).isascii()
            ):
                rows_losing_letters.append(i)
            elif unsuitable is not None and unsuitable.search(text):
                unsuited_rows.append(i)
        if not tokens and without_words is None and letters(text):
            without_words = text
        all_tokens += tokens
        row_ends[i] = len(all_tokens)
    token_ids = TokenIds()
    ids = token_ids.look_up(all_tokens)
    return TokenBlock(list(token_ids), ids, row_ends, rows_losing_letters, unsuited_rows, without_words)


def tokenize(
    chunks: Iterator[list[str]], tokenizer: Tokenizer, unsuitable: re.Pattern[str] | None, n_jobs: int
) -> Iterator[TokenBlock]:
    """Tokenize chunks of texts in ``n_jobs`` processes; yield one block per chunk, in order."""
    # A few chunks at a time, so that memory stays bounded.
    while window := list(itertools.islice(chunks, 4 * n_jobs)):
        pool = Parallel(n_jobs=min(n_jobs, len(window)))  # starts no process for one chunk
        yield from pool(delayed(_tokenize_chunk)(chunk, tokenizer, unsuitable) for chunk in window)


def warn_of_scripts(
    token_pattern: Any, n_rows: int, rows_losing_letters: list[int], unsuited_rows: list[int]
) -> None:
    """Warn of rows whose letters are deleted, or not split into words."""
    if rows_losing_letters:
        warn_caller(
            f"{len(rows_losing_letters)} of {n_rows} texts lose letters that ASCII does not have (the first "
            f"is row {rows_losing_letters[0]}). Pass strip_accents='auto'; for scripts with vowel signs also "
            "token_pattern='indic'."
        )
    if unsuited_rows:
        indic = "token_pattern='indic' for scripts with vowel signs, and " if token_pattern == "latin" else ""
        warn_caller(
            f"{len(unsuited_rows)} of {n_rows} texts have letters of scripts that token_pattern="
            f"{token_pattern!r} does not split into words (the first is row {unsuited_rows[0]}). Pass {indic}"
            "a callable, or texts split by blanks, for scripts without blanks such as Thai and Chinese."
        )


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

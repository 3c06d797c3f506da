"""Texts that are longer than an encoder reads: found, reported, and split into windows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flip_sklearn.parameters import warn_caller

if TYPE_CHECKING:
    from flip_sklearn.encoders.base import EncoderBackend


def long_texts(texts: Sequence[str], backend: EncoderBackend) -> list[int]:
    """Return the indices of the texts that have more tokens than the backend reads."""
    limit = backend.token_limit()
    if limit is None or not texts:
        return []
    # Most texts need not be tokenized.
    n_special = backend.count_tokens([""])[0]
    candidates = [i for i, text in enumerate(texts) if _max_tokens(text) + n_special > limit]
    counts = backend.count_tokens([texts[i] for i in candidates]) if candidates else []
    return [i for i, count in zip(candidates, counts, strict=True) if count > limit]


def warn_of_long_texts(n_long: int, n_texts: int, backend: EncoderBackend) -> None:
    """Warn that the ends of long texts are not read."""
    warn_caller(
        f"{n_long} of {n_texts} texts are longer than the {backend.token_limit()} tokens that the encoder "
        f"({backend.name}) reads; the rest is not read. Pass chunk='mean' to read all of it, or split them."
    )


def split_into_windows(text: str, backend: EncoderBackend) -> list[str]:
    """Split a text at white space into parts that the backend reads whole; a long word is split inside."""
    limit = backend.token_limit()
    assert limit is not None
    n_special = backend.count_tokens([""])[0]
    room = max(1, limit - n_special)
    words = [part for word in re.findall(r"\s*\S+", text) for part in _split_word(word, room)]
    lengths = [count - n_special for count in backend.count_tokens(words)]
    windows: list[str] = []
    used = room + 1
    for word, length in zip(words, lengths, strict=True):
        if used + length > room:
            windows.append("")
            used = 0
        windows[-1] += word
        used += length
    return [part for window in windows for part in _fitting(window, backend, limit)]


def weighted_windows(text: str, backend: EncoderBackend) -> tuple[list[str], np.ndarray]:
    """Return the windows of a text and their numbers of tokens without the special ones."""
    windows = split_into_windows(text, backend)
    n_special = backend.count_tokens([""])[0]
    return windows, np.maximum(np.array(backend.count_tokens(windows)) - n_special, 1)


def _max_tokens(text: str) -> int:
    """Return an upper bound of the number of tokens, which have at least one byte after normalization.

    Tokenizers may normalize first, and a character such as a fraction then becomes several. Some put a mark
    of a word's beginning before the text, which may be a token by itself.
    """
    n_bytes = len(text.encode())
    if not text.isascii():
        n_bytes = max(n_bytes, len(unicodedata.normalize("NFKD", text).encode()))
    return n_bytes + 1


def _split_word(word: str, room: int) -> list[str]:
    """Split a word that may have more tokens than fit, because it has more bytes."""
    if len(word.encode()) <= room:
        return [word]
    size = max(1, room // 4)  # a character has at most four bytes
    return [word[i : i + size] for i in range(0, len(word), size)]


def _fitting(window: str, backend: EncoderBackend, limit: int) -> list[str]:
    """Split a window that has too many tokens, since words may have more of them together than alone."""
    if len(window) < 2 or backend.count_tokens([window])[0] <= limit:
        return [window]
    middle = len(window) // 2
    return _fitting(window[:middle], backend, limit) + _fitting(window[middle:], backend, limit)

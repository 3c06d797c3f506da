"""Texts that have more tokens than a model reads, for tokenizers that normalize."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest

from flip_sklearn.encoders.base import EncoderBackend
from flip_sklearn.encoders.windows import long_texts, split_into_windows

FORMS = ("NFC", "NFD", "NFKC", "NFKD")


class Bytes(EncoderBackend):
    """One token per byte of the normalized text, and three others: two special ones and the beginning."""

    def __init__(self, form: str, limit: int) -> None:
        self.form = form
        self.limit = limit

    def token_limit(self) -> int:
        return self.limit

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        normalized = [unicodedata.normalize(self.form, text).encode() for text in texts]  # type: ignore[arg-type]
        return [len(text) + 2 + bool(text) for text in normalized]


TEXTS = [
    "abc " * 5,
    "¼" * 8,
    "ﷺ" * 2,
    "한국어",
    "e\u0301" * 6,
    "é" * 9,
    "㍿㋿℻",
    "日本語",
    "👩‍👩‍👧",
    "",
    " ",
    "x" * 18,
    "x" * 17,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [5, 12, 20, 30])
def test_all_long_texts_are_found(form: str, limit: int) -> None:
    backend = Bytes(form, limit)
    expected = [i for i, count in enumerate(backend.count_tokens(TEXTS)) if count > limit]
    assert long_texts(TEXTS, backend) == expected


@pytest.mark.parametrize("form", FORMS)
def test_windows_have_all_of_the_text_and_fit(form: str) -> None:
    backend = Bytes(form, 60)
    text = " ".join(TEXTS * 3).strip()
    windows = split_into_windows(text, backend)
    assert "".join(windows) == text
    assert max(backend.count_tokens(windows)) <= 60

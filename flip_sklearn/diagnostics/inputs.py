"""The fitted model that a diagnosis of single embeddings looks through, and the words it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.extractor import FLiPExtractor


def check_model(model: Any) -> FLiPExtractor:
    """A fitted FLiPExtractor."""
    if not isinstance(model, FLiPExtractor):
        raise ValueError(
            f"model is a {type(model).__name__}; pass a fitted FLiPExtractor (of a Pipeline its last "
            "step, with embeddings as that step sees them)."
        )
    check_is_fitted(model)
    return model


def check_words(model: FLiPExtractor, words: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Words that the model can read, each once, and their columns."""
    given = [words] if isinstance(words, str) else words
    if not isinstance(given, Iterable):
        raise ValueError(f"words={words!r} is not allowed; pass a word or a list of words.")
    given = list(given)
    strange = [word for word in given if not isinstance(word, str)]
    if strange:
        raise ValueError(
            f"words has {strange[0]!r}, which is no str; pass words of model.vocabulary_."
        )
    names = tuple(map(str, dict.fromkeys(given)))
    if not names:
        raise ValueError(f"words={words!r} is empty; pass at least one word of the vocabulary.")
    known = {word: column for column, word in enumerate(model.vocabulary_)}
    for word in names:
        if word not in known:
            raise ValueError(
                f"words has {word!r}, which the model does not know; {_near(word, known)}"
            )
        if model.word_counts_[known[word]] <= 0:
            raise ValueError(
                f"words has {word!r}, which no training sentence has, so the model never reads it; "
                "leave it out."
            )
    return names, np.array([known[word] for word in names])


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word.lower(), known, n=5)
    found = f"near are {', '.join(map(repr, near))}" if near else "no word is near"
    return f"{found}. Pass words of model.vocabulary_."

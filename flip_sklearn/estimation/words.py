"""Words that a user names: checked, and as columns of a fitted model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np


def check_words(model: Any, words: Any, name: str = "words") -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct words that a fitted model can extract, and their columns; ``name`` is that of the argument."""
    word_list = [words] if isinstance(words, str) else words
    if not isinstance(word_list, Iterable):
        raise ValueError(f"{name}={words!r} is not allowed; pass a word or a list of words.")
    word_list = list(word_list)
    if not word_list:
        raise ValueError(f"{name}={words!r} is empty; pass at least one word of the vocabulary.")
    columns = {word: column for column, word in enumerate(model.vocabulary_)}
    for word in word_list:
        if not isinstance(word, str):
            raise ValueError(f"{name} has {word!r}, which is not a str; pass words of model.vocabulary_.")
        if word not in columns:
            similar = ", ".join(map(repr, difflib.get_close_matches(word.lower(), columns, n=5)))
            remedy = f"{f'similar words: {similar}' if similar else 'no word is similar'}. Pass words of "
            if word_list == [words] and len(parts := word.split()) > 1:
                remedy = f"pass several words as a list, {name}={parts!r}, of "
            raise ValueError(
                f"{name} has {word!r}, which the model does not know; {remedy}model.vocabulary_."
            )
        # Estimators whose words have directions of their own have no counts.
        if hasattr(model, "word_counts_") and model.word_counts_[columns[word]] <= 0:
            raise ValueError(
                f"{name} has {word!r}, which is in no training sentence, so the model never extracts it; "
                "leave it out."
            )
    names = tuple(map(str, dict.fromkeys(word_list)))
    return names, np.array([columns[word] for word in names])

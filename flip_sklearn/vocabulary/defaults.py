"""Default vectorizer settings for a corpus, and normalized texts for finding duplicates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.normalization import same_text


def default_vectorizer(
    texts: Sequence[str],
    n_train: int,
    *,
    bigrams: bool = False,
    min_count: int | None = None,
    max_words: int | None = 6500,
    token_pattern: str | None = None,
    verbose: bool = False,
) -> ConceptVectorizer:
    """Return an unfitted vectorizer; None chooses by the number of training texts and by their script."""
    if token_pattern is None:
        letters = [letter for text in texts[:1000] for letter in text if letter.isalpha()]
        n_latin = sum(letter < "\u0250" for letter in letters)  # to Latin Extended-B
        token_pattern = "latin" if 2 * n_latin >= len(letters) else "indic"
    return ConceptVectorizer(
        bigrams=bigrams,
        min_count=default_min_count(n_train) if min_count is None else min_count,
        max_unigrams=max_words,
        token_pattern=token_pattern,
        verbose=verbose,
    )


def default_min_count(n_texts: int) -> int:
    """Return the default minimum count of a word: 20 for the 160,000 texts of the paper, less for fewer."""
    return min(20, max(2, round(20 * math.sqrt(n_texts / 160_000))))


def normalized_texts(texts: Sequence[str]) -> list[str]:
    """Return texts that are equal if they differ only in case, white space and invisible characters."""
    return list(map(same_text, texts))

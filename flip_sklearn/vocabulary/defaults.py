"""What suits a corpus when nobody says: which words to look for, and which texts are the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flip_sklearn.vocabulary import ConceptVectorizer

_LARGE = 160_000  # sentences from which on a word must occur as often as in the paper
_PAPER_MIN_COUNT = 20


def suited_vectorizer(
    texts: Sequence[str],
    n_train: int,
    *,
    bigrams: bool = False,
    min_count: int | None = None,
    max_words: int | None = 6500,
    token_pattern: str | None = None,
    verbose: bool = False,
) -> ConceptVectorizer:
    """An unfitted vectorizer; what is None goes by the number of training texts and by their script."""
    if token_pattern is None:
        token_pattern = "latin" if _mostly_latin(texts) else "indic"
    return ConceptVectorizer(
        bigrams=bigrams,
        min_count=least_count(n_train) if min_count is None else min_count,
        max_unigrams=max_words,
        token_pattern=token_pattern,
        verbose=verbose,
    )


def least_count(n: int) -> int:
    """How often a word must occur to be looked for: falls with the root of the corpus' size."""
    return int(np.clip(round(_PAPER_MIN_COUNT * (n / _LARGE) ** 0.5), 2, _PAPER_MIN_COUNT))


def same_text(texts: Sequence[str]) -> list[str]:
    """Labels that are equal where two texts differ in nothing but case and blanks."""
    return [" ".join(text.casefold().split()) for text in texts]


def _mostly_latin(texts: Sequence[str]) -> bool:
    """Whether most letters are of the Latin script (to the end of Latin Extended-B)."""
    letters = [letter for text in texts[:1000] for letter in text if letter.isalpha()]
    return 2 * sum(letter < "\u0250" for letter in letters) >= len(letters)

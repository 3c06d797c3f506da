"""Default vectorizer settings for a corpus, and normalized texts for finding duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flip_sklearn.vocabulary import ConceptVectorizer

# The paper's min_count, and the number of sentences from which it is the default.
_PAPER_MIN_COUNT = 20
_LARGE_CORPUS = 160_000


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
    """Return an unfitted vectorizer.

    ``min_count=None`` depends on the number of training texts, ``token_pattern=None`` on their script.
    """
    if token_pattern is None:
        token_pattern = "latin" if _is_mostly_latin(texts) else "indic"
    return ConceptVectorizer(
        bigrams=bigrams,
        min_count=default_min_count(n_train) if min_count is None else min_count,
        max_unigrams=max_words,
        token_pattern=token_pattern,
        verbose=verbose,
    )


def default_min_count(n_texts: int) -> int:
    """Return the default minimum count of a word: proportional to the square root of ``n_texts``."""
    min_count = round(_PAPER_MIN_COUNT * (n_texts / _LARGE_CORPUS) ** 0.5)
    return int(np.clip(min_count, 2, _PAPER_MIN_COUNT))


def normalized_texts(texts: Sequence[str]) -> list[str]:
    """Case-fold texts and collapse white space, so that texts that differ in these only are equal."""
    return [" ".join(text.casefold().split()) for text in texts]


def _is_mostly_latin(texts: Sequence[str]) -> bool:
    """Whether at least half of the letters of the first texts are Latin (to Latin Extended-B)."""
    letters = [letter for text in texts[:1000] for letter in text if letter.isalpha()]
    return 2 * sum(letter < "\u0250" for letter in letters) >= len(letters)

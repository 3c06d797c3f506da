"""What makes a band of words: their count in training, their length, or the caller's labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from flip_sklearn.parameters import check_choice


def label_words(
    by: Any, n_bands: int, words: np.ndarray, train_count: np.ndarray
) -> tuple[list[Any], list[Any]]:
    """The label of each word, None where it is left out, and all labels in order."""
    if isinstance(by, str):
        return _ranges(by, n_bands, words, train_count)
    if isinstance(by, Mapping):
        labels = [by.get(word) for word in words]
    elif callable(by):
        labels = [by(word) for word in words]
    elif isinstance(by, Iterable) and not isinstance(by, (bytes, set, frozenset)):
        labels = list(by.tolist() if hasattr(by, "tolist") else by)
    else:
        raise ValueError(
            f"by={by!r} is not allowed; use 'frequency', 'length', a sequence of {len(words)} labels, a "
            "mapping of words to labels, or a function that labels a word."
        )
    if len(labels) != len(words):
        raise ValueError(
            f"by has {len(labels)} labels, the vocabulary {len(words)} words; pass one label per column "
            "of Y, or a mapping of words to labels."
        )
    labels = [None if isinstance(label, float) and np.isnan(label) else label for label in labels]
    try:
        distinct = [label for label in dict.fromkeys(labels) if label is not None]
    except TypeError as error:
        raise ValueError(
            f"by gives a label that cannot be told apart from others ({error}); use strings or numbers."
        ) from error
    try:
        return labels, sorted(distinct)
    except TypeError:  # labels of several types stay in the order of their words
        return labels, distinct


def _ranges(
    by: str, n_bands: int, words: np.ndarray, train_count: np.ndarray
) -> tuple[list[Any], list[Any]]:
    """Bands of training counts or of lengths, and their labels in order."""
    if check_choice("by", by, ("frequency", "length")) == "length":
        values = np.array([len(word) for word in words])
        starts = [1, *range(4, values.max() + 3, 2)][:n_bands]
    else:
        if np.isnan(train_count).any():
            raise ValueError(
                "by='frequency' needs a model that knows how often it saw each word (word_counts_); use "
                "by='length', or pass a label for each word."
            )
        values = train_count
        starts = [10**i for i in range(len(str(int(values.max()))) + 1)][:n_bands]
    names = [f"{low:,}-{high - 1:,}" for low, high in pairwise(starts)] + [f"{starts[-1]:,}+"]
    # Weights can make a count less than 1: it belongs to the lowest band.
    number = np.maximum(np.searchsorted(starts, values, side="right") - 1, 0)
    labels = ["0" if v <= 0 else names[i] for v, i in zip(values, number, strict=True)]
    return labels, ["0", *names]

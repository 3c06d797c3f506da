"""Bins of words: by count in training, by length, or by the caller's labels. Users call them bands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from flip_sklearn.parameters import check_choice

# The bin of words that were added to a model after its training.
NEVER_SEEN = "never seen"


def bin_words(
    by: Any, n_bins: int, words: np.ndarray, train_count: np.ndarray, is_added: np.ndarray | None = None
) -> tuple[list[Any], list[Any]]:
    """The label of each word, None for a word that is left out, and all labels in order.

    By frequency, words of ``is_added`` (V,) have the label "never seen".
    """
    if isinstance(by, str):
        if check_choice("by", by, ("frequency", "length")) == "length":
            lengths = np.array([len(word) for word in words])
            return bin_numbers(lengths, [1, *range(4, lengths.max() + 3, 2)][:n_bins])
        if np.isnan(train_count).any():
            raise ValueError(
                "by='frequency' needs a model that knows how often it saw each word (word_counts_); use "
                "by='length', or pass a label for each word."
            )
        n_digits = len(str(int(train_count.max())))
        return bin_numbers(train_count, [10**i for i in range(n_digits + 1)][:n_bins], is_added)
    labels = _given_labels(by, words)
    try:
        distinct = [label for label in dict.fromkeys(labels) if label is not None]
    except TypeError as error:
        raise ValueError(
            f"by gives a label that is not hashable ({error}); use strings or numbers."
        ) from error
    try:
        return labels, sorted(distinct)
    except TypeError:  # labels of different types cannot be sorted: keep the order of the words
        return labels, distinct


def _given_labels(by: Any, words: np.ndarray) -> list[Any]:
    """The caller's label of each word; nan becomes None."""
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
    return [None if isinstance(label, float) and np.isnan(label) else label for label in labels]


def bin_numbers(
    values: np.ndarray, starts: list[int], is_added: np.ndarray | None = None
) -> tuple[list[Any], list[Any]]:
    """Bins that begin at ``starts``, the last one open; "0" is the label of values up to 0.

    Values of ``is_added`` are in a bin of their own, "never seen".
    """
    names = [f"{low:,}-{high - 1:,}" for low, high in pairwise(starts)] + [f"{starts[-1]:,}+"]
    # Sample weights can make a count less than 1: it belongs to the lowest bin.
    index = np.maximum(np.searchsorted(starts, values, side="right") - 1, 0)
    labels = ["0" if value <= 0 else names[i] for value, i in zip(values, index, strict=True)]
    if is_added is None or not is_added.any():
        return labels, ["0", *names]
    labels = [NEVER_SEEN if added else label for label, added in zip(labels, is_added, strict=True)]
    return labels, ["0", NEVER_SEEN, *names]

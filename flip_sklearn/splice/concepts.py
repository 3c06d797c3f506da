"""What SpLiCEExtractor takes and gives: dictionaries, directions, words as sparse rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_array

from flip_sklearn.estimation.validation import check_vocabulary
from flip_sklearn.io import as_numpy

# What is left of a unit vector after centring, when it is the mean itself up to rounding.
AT_MEAN = 1e-6


def check_dictionary(dictionary: Any, d: int) -> np.ndarray:
    """The concepts' embeddings (V, d), finite, as they are."""
    if dictionary is None:
        raise ValueError(
            "dictionary=None is not allowed; pass the embeddings (V, d) of the concepts' names, by the "
            "encoder that made X: SpLiCEExtractor(encoder.encode(words), vocabulary=words)."
        )
    given: np.ndarray = check_array(
        as_numpy(dictionary), dtype=[np.float64, np.float32, np.float16], input_name="dictionary"
    )
    if given.shape[1] != d:
        raise ValueError(
            f"dictionary has {given.shape[1]} columns, X has {d}; concepts and X must be embedded by the "
            "same encoder."
        )
    return given


def check_names(vocabulary: Any, Y: Any, n_concepts: int) -> np.ndarray:
    """The concepts' names, in the order of the dictionary."""
    names = [str(c) for c in Y.columns] if hasattr(Y, "columns") else None
    given: Any = names if vocabulary is None else vocabulary
    if (
        hasattr(given, "__len__")
        and not isinstance(given, str | bytes)
        and len(given) != n_concepts
    ):
        raise ValueError(
            f"{'Y' if vocabulary is None else 'vocabulary'} names {len(given)} concepts, dictionary has "
            f"{n_concepts} rows; pass one name for each row."
        )
    return check_vocabulary(vocabulary, names, n_concepts)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one, in float64; zero stays zero. No length is too large or too small."""
    rows = np.asarray(rows, dtype=np.float64)
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows = rows / np.where(peak > 0, peak, 1)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def centred(directions: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """unit(directions - mean); zero for rows that are zero or at the mean."""
    rest = directions - mean
    at_mean = np.linalg.norm(rest, axis=1) <= AT_MEAN
    rest[at_mean | ~directions.any(axis=1)] = 0
    return unit(rest)


def padded_to_csr(indices: np.ndarray, values: np.ndarray, n_words: int) -> sp.csr_array:
    """Words (n, m), padded with -1, and their values as a canonical csr_array (n, V)."""
    used = indices >= 0
    order = np.argsort(np.where(used, indices, n_words), axis=1, kind="stable")
    used = np.take_along_axis(used, order, axis=1)
    columns = np.take_along_axis(indices, order, axis=1)[used]
    data = np.take_along_axis(values, order, axis=1)[used]
    start = np.r_[0, np.cumsum(used.sum(axis=1))]
    return sp.csr_array((data, columns, start), shape=(len(indices), n_words))


def keep_largest(weights: sp.csr_array, k: int) -> sp.csr_array:
    """The k largest entries of each row; equal ones by the lower column."""
    order, row, place = ranked_entries(weights)
    kept = np.sort(order[place < k])
    start = np.r_[0, np.cumsum(np.bincount(row[place < k], minlength=weights.shape[0]))]
    return sp.csr_array((weights.data[kept], weights.indices[kept], start), shape=weights.shape)


def ranked_entries(weights: sp.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An order of the entries, row by row and largest first, with each one's row and place in it."""
    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    order = np.lexsort((weights.indices, -weights.data, row))
    return order, row[order], np.arange(len(order)) - weights.indptr[row[order]]


@dataclass(frozen=True)
class Block:
    """Some decomposed rows: their words (m, k), padded with -1, largest weight first."""

    rows: slice
    targets: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    gap: np.ndarray

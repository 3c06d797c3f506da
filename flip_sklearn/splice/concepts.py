"""Parts of SpLiCEExtractor: checks of the dictionary, directions of embeddings, sparse rows of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_array
from sklearn.utils._array_api import get_namespace

from flip_sklearn.backend.device import Embeddings, dense_tensor
from flip_sklearn.backend.scoring.search import Query
from flip_sklearn.estimation.validation import check_vocabulary
from flip_sklearn.io import as_numpy
from flip_sklearn.metrics.counts import column_names

# Share of the mean weight in the score of a row that is to have all of several words.
MEAN_SHARE = 0.01
# Length of a centred unit vector below which it equals the mean up to rounding.
MIN_CENTRED_LENGTH = 1e-6


def check_dictionary(dictionary: Any, d: int) -> np.ndarray:
    """Return the embeddings (V, d) of the concepts after checking shape and values."""
    if dictionary is None:
        raise ValueError(
            "dictionary=None is not allowed; pass the embeddings (V, d) of the concepts, made by the "
            "encoder of X: SpLiCEExtractor(encoder.encode(words), vocabulary=words)."
        )
    concepts: np.ndarray = check_array(
        as_numpy(dictionary), dtype=[np.float64, np.float32, np.float16], input_name="dictionary"
    )
    if concepts.shape[1] != d:
        raise ValueError(
            f"dictionary has {concepts.shape[1]} columns, X has {d}; concepts and X must be embedded by "
            "the same encoder."
        )
    return concepts


def check_names(vocabulary: Any, Y: Any, n_concepts: int) -> np.ndarray:
    """Return the names of the concepts in the order of the dictionary."""
    names_of_Y = None if vocabulary is not None else column_names(Y)
    source = "Y" if vocabulary is None else "vocabulary"
    names: Any = names_of_Y if vocabulary is None else vocabulary
    is_sized = hasattr(names, "__len__") and not isinstance(names, str | bytes)
    if is_sized and len(names) != n_concepts:
        raise ValueError(
            f"{source} names {len(names)} concepts, dictionary has {n_concepts} rows; pass one name for "
            "each row."
        )
    return check_vocabulary(vocabulary, names_of_Y, n_concepts)


def unit(rows: Any) -> Any:
    """Scale rows, an ndarray or a tensor, to length one, in float64; zero rows stay zero."""
    xp, _ = get_namespace(rows)
    rows = xp.astype(rows, xp.float64, copy=False)
    # Divided by their largest entry first, so that no square overflows or underflows.
    largest = xp.max(xp.abs(rows), axis=1, keepdims=True)
    rows = rows / xp.where(largest > 0, largest, xp.ones_like(largest))
    length = _lengths(rows)[:, None]
    return rows / xp.where(length > 0, length, xp.ones_like(length))


def _lengths(rows: Any) -> Any:
    if isinstance(rows, np.ndarray):  # before version 2, NumPy has no vector_norm
        return np.linalg.norm(rows, axis=1)
    xp, _ = get_namespace(rows)
    return xp.linalg.vector_norm(rows, axis=1)


def centred(directions: Any, mean: Any) -> Any:
    """Return unit(directions - mean); zero for rows that are zero or equal the mean."""
    xp, _ = get_namespace(directions)
    difference = directions - mean
    is_off_mean = _lengths(difference) > MIN_CENTRED_LENGTH
    has_direction = is_off_mean & xp.any(directions != 0, axis=1)
    return unit(xp.where(has_direction[:, None], difference, xp.zeros_like(difference)))


def recompose(W: Any, concepts: Embeddings) -> Any:
    """Return unit(C^T w) of rows of weights, as an array of the kind of the concepts."""
    if isinstance(concepts, np.ndarray):
        return unit(W.astype(np.float64) @ concepts)
    weights = dense_tensor(W, concepts.device) if sp.issparse(W) else W
    return unit(weights.double() @ concepts.double())


def keep_largest(weights: sp.csr_array, k: int) -> sp.csr_array:
    """Return the k largest entries of each row; of equal entries those in the lower columns."""
    order, row, rank = ranked_entries(weights)
    entries, row = order[rank < k], row[rank < k]
    return sp.csr_array((weights.data[entries], (row, weights.indices[entries])), shape=weights.shape)


def ranked_entries(weights: sp.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the order of the entries by row and descending value, and the row and rank of each."""
    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    order = np.lexsort((weights.indices, -weights.data, row))
    return order, row[order], np.arange(len(order)) - weights.indptr[row[order]]


@dataclass(frozen=True)
class Block:
    """The decomposition of m rows."""

    rows: slice
    targets: Embeddings  # v (m, d)
    indices: np.ndarray  # words (m, k), largest weight first, padded with -1
    weights: np.ndarray  # their weights (m, k)
    gap: np.ndarray  # duality gaps (m,)


def query_weights(block: Block, query: Query) -> np.ndarray:
    """Return how well the weights of each row answer a query, float64 (m,).

    A row that lacks one of several included words has the minimum zero; a small part of the mean ranks it.
    """

    def weights_of(columns: np.ndarray) -> np.ndarray:
        weights = [np.where(block.indices == column, block.weights, 0).sum(axis=1) for column in columns]
        return np.array(weights, dtype=np.float64).reshape(len(columns), len(block.weights))

    included = weights_of(query.include)
    if query.match_all:
        smallest = included.min(axis=0)
        score = smallest + MEAN_SHARE * (included.mean(axis=0) - smallest)
    else:
        score = included.sum(axis=0)
    return np.asarray(score - weights_of(query.exclude).sum(axis=0))

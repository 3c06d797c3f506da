"""Checks of embeddings, counts, weights, groups and vocabularies. A message names value, range and remedy."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import _check_sample_weight, _num_samples, validate_data

from flip_sklearn.backend.device import Embeddings, as_shared_tensor, is_finite
from flip_sklearn.estimation.array_api import float_formats, namespace_of
from flip_sklearn.io import as_numpy
from flip_sklearn.metrics.counts import column_names, count_matrix
from flip_sklearn.parameters import is_integer

MAX_AUTO_RANK = 512
# Elements of X that are checked for NaN and infinity at a time, so that no mask of X's size is needed.
_CHECK_ELEMENTS = 2**22


def resolve_rank(rank: Any, d: int) -> int | None:
    """The rank as a number: ``"auto"`` is min(512, d), None (LiP) stays None."""
    if rank is None:
        return None
    if isinstance(rank, str) and rank == "auto":
        return min(MAX_AUTO_RANK, d)
    if not is_integer(rank) or not 1 <= rank <= d:
        raise ValueError(
            f"rank={rank!r} is not allowed; use an integer from 1 to the embedding dimension {d}, "
            "'auto', or None for no factorization (LiP)."
        )
    return int(rank)


def check_embeddings(estimator: Any, X: Any, *, reset: bool) -> tuple[Embeddings, Any]:
    """X as a 2-D float array, and an object with scikit-learn's feature attributes.

    X is a tensor under scikit-learn's array API, and an ndarray otherwise (``array_api.py``).

    A float16 or memory-mapped array is returned as it is, without a copy. The feature attributes
    (``n_features_in_``, ``feature_names_in_``) are set with ``reset`` and checked otherwise. They are set
    on a copy of the estimator, so that a later failure leaves the estimator unchanged.
    """
    if sp.issparse(X):
        raise ValueError(
            f"X is a sparse {type(X).__name__}; embeddings are dense. Pass X.toarray(), and if these "
            "are word counts, pass them as Y. (Sparse input is not supported.)"
        )
    if hasattr(X, "layout") and "strided" not in str(X.layout):
        raise ValueError(f"X is a sparse tensor ({X.layout}); embeddings are dense. Pass X.to_dense().")
    xp = namespace_of(X)
    formats: list[Any] = [np.float64, np.float32, np.float16] if xp is None else float_formats(xp)
    X = as_numpy(X) if xp is None else X
    feature_info = copy.copy(estimator) if reset else estimator
    try:
        X = validate_data(
            feature_info,
            X,
            reset=reset,
            dtype=formats,
            ensure_all_finite=False,  # checked below, in chunks
        )
    except ValueError as error:
        shape = np.shape(X)
        if reset or len(shape) != 2 or shape[1] == estimator.n_features_in_:
            raise
        raise ValueError(f"{error} Use the encoder that made the training embeddings.") from error
    X = X if xp is None else as_shared_tensor(X)
    _check_finite(X)
    return X, feature_info


def _check_finite(X: Embeddings) -> None:
    """Raise for the first value of X that is NaN or infinite."""
    rows = max(1, _CHECK_ELEMENTS // max(1, X.shape[1]))
    if not isinstance(X, np.ndarray) and is_finite(X, rows):
        return
    for first in range(0, X.shape[0], rows):
        chunk = as_numpy(X[first : first + rows])
        if not np.isfinite(chunk).all():
            row, column = np.argwhere(~np.isfinite(chunk))[0]
            value = chunk[row, column]
            kind = "NaN" if np.isnan(value) else "infinity"
            raise ValueError(
                f"Input X contains {kind}: X[{first + row}, {column}] = {value}. Embeddings must be "
                "finite; drop such rows, or find out why the encoder returned them."
            )


def one_target(Y: Any, y: Any) -> Any:
    """The targets, which may be passed as ``Y`` or under scikit-learn's keyword ``y``."""
    if Y is not None and y is not None:
        raise TypeError("both Y and y were passed; they are the same argument, pass one.")
    return y if Y is None else Y


def check_counts(Y: Any, n_rows: int, n_words: int | None = None) -> tuple[sp.csr_array, list[str] | None]:
    """Y as canonical CSR float32 counts, and its column names if it has any.

    ``n_words`` is the number of columns that Y must have: the vocabulary of a fitted model.
    """
    if Y is None:
        raise ValueError(
            "FLiPExtractor requires y to be passed, but the target y is None. Pass Y, the (n, V) word "
            "counts, for example from CountVectorizer."
        )
    counts = count_matrix(Y, integers=True)
    if counts.shape[0] != n_rows:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_rows} rows and Y "
            f"has {counts.shape[0]}. Pass one row of counts per embedding."
        )
    if n_words is not None and counts.shape[1] != n_words:
        raise ValueError(
            f"Y has {counts.shape[1]} columns, the model has {n_words} words; count with the vocabulary "
            "of fit."
        )
    if counts.shape[1] == 0:
        raise ValueError("Y has no columns; pass counts of at least one word, shape (n, V >= 1).")
    return counts.astype(np.float32, copy=True), column_names(Y)


def check_weights(sample_weight: Any, X: Any) -> np.ndarray:
    """Row weights as float64, >= 0, not all zero; ones when None."""
    if sample_weight is None:
        return np.ones(_num_samples(X))
    rows = np.empty(_num_samples(X))  # X itself may be on a device, where the weights need not be
    weights: np.ndarray = _check_sample_weight(as_numpy(sample_weight), rows, dtype=np.float64)
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise ValueError(f"sample_weight[{row}] = {weights[row]} is negative; weights must be >= 0.")
    if not weights.any():
        raise ValueError("sample_weight is zero for every row; give at least one row weight > 0.")
    return weights


def check_groups(groups: Any, n: int) -> np.ndarray | None:
    """Group labels as integers from 0; None stays None."""
    if groups is None:
        return None
    labels = np.asarray(as_numpy(groups))
    if labels.shape != (n,):
        raise ValueError(f"groups has shape {labels.shape}; pass one group per row, ({n},).")
    return np.asarray(np.unique(labels, return_inverse=True)[1]).astype(np.int64, copy=False)


def check_vocabulary(vocabulary: Any, names: list[str] | None, n_words: int) -> np.ndarray:
    """The V words in column order, as an object array of str."""
    if vocabulary is None:
        words: list[str] = names if names is not None else [f"word{j}" for j in range(n_words)]
        source = "the column names of Y"
    elif isinstance(vocabulary, Mapping):
        source = "vocabulary"
        columns = list(vocabulary.values())
        if not all(map(is_integer, columns)) or sorted(columns) != list(range(n_words)):
            raise ValueError(
                f"vocabulary maps {len(columns)} words to columns that are not exactly 0 to "
                f"{n_words - 1}, once each; Y has {n_words} columns. Pass CountVectorizer's "
                "vocabulary_, or the words in column order."
            )
        words = [str(word) for word, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    else:
        source = "vocabulary"
        ordered = isinstance(vocabulary, Iterable) and getattr(vocabulary, "ndim", 1) == 1
        if not ordered or isinstance(vocabulary, (str, bytes, set, frozenset)):
            raise ValueError(
                f"vocabulary={vocabulary!r} is not a vocabulary; pass a sequence of {n_words} words "
                "in column order, or a dict of word to column."
            )
        words = [str(word) for word in vocabulary]
    if len(words) != n_words:
        raise ValueError(
            f"{source} has {len(words)} words, Y has {n_words} columns; pass one word per column."
        )
    if len(set(words)) != n_words:
        repeated = next(word for word, count in Counter(words).items() if count > 1)
        raise ValueError(f"{source} has {repeated!r} more than once; every column needs its own word.")
    return np.array(words, dtype=object)


def check_same_columns(names: list[str], vocabulary: np.ndarray) -> None:
    """Check that the columns of a chunk are those of the first chunk, in the same order."""
    different = [j for j, (a, b) in enumerate(zip(names, vocabulary, strict=True)) if a != b]
    if different:
        j = different[0]
        raise ValueError(
            f"column {j} of Y is {names[j]!r}, in the chunks before it was {vocabulary[j]!r}; give "
            "every chunk the same columns in the same order."
        )

"""Checks of embeddings, counts, weights, groups and vocabularies. A message names value, range and remedy."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import _check_sample_weight, _num_samples, validate_data

from flip_sklearn.backend.device import Embeddings, as_shared_tensor, largest_magnitude
from flip_sklearn.estimation.array_api import float_formats, namespace_of
from flip_sklearn.io import as_numpy
from flip_sklearn.metrics.counts import (
    check_columns_of,
    column_names,
    count_matrix,
    dense_array,
    embedding_rows,
)
from flip_sklearn.parameters import is_integer, number_groups, short_repr, warn_caller

MAX_AUTO_RANK = 512
# Elements of X that are checked for NaN and infinity at a time, so that no mask of X's size is needed.
_CHECK_ELEMENTS = 2**22
# Smallest and largest allowed magnitude of the largest value of X, far enough within the number format that
# sums of squares, their inverses and products with the word embeddings stay in it.
MAX_WEIGHT = 1e30
MAGNITUDES = {"float32": (1e-35, 1e35), "float64": (1e-140, 1e140)}


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


def check_embeddings(
    estimator: Any, X: Any, *, reset: bool, limits: tuple[float, float] | None = None
) -> tuple[Embeddings, Any]:
    """X as a 2-D float array, and an object with scikit-learn's feature attributes.

    X is a tensor under scikit-learn's array API, and an ndarray otherwise (``array_api.py``).

    A float16 or memory-mapped array is returned as it is, without a copy. The feature attributes
    (``n_features_in_``, ``feature_names_in_``) are set with ``reset`` and checked otherwise. They are set
    on a copy of the estimator, so that a later failure leaves the estimator unchanged. ``limits`` are the
    smallest (with ``reset``) and the largest magnitude that the largest value of X may have.
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
    X = embedding_rows(X) if xp is None else X
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
    largest = _check_finite(X, with_magnitude=limits is not None)
    if limits is not None and (largest > limits[1] or (reset and 0 < largest < limits[0])):
        raise ValueError(
            f"the largest magnitude in X is {largest:.3g}; with precision={estimator.precision!r} it must "
            f"be from {limits[0]:.0e} to {limits[1]:.0e} (or 0). Multiply X by a constant, for example "
            "X / np.abs(X).max(), or find out why the encoder returned such values."
        )
    return X, feature_info


def magnitude_limits(precision: Any) -> tuple[float, float]:
    """The range of the largest magnitude in X in which no square and no product overflows in training."""
    return MAGNITUDES["float64" if precision == "float64" else "float32"]


def _check_finite(X: Embeddings, *, with_magnitude: bool) -> float:
    """The largest magnitude in X, if asked for; raise for the first value that is NaN or infinite."""
    rows, largest = max(1, _CHECK_ELEMENTS // max(1, X.shape[1])), 0.0
    if not isinstance(X, np.ndarray):
        largest = largest_magnitude(X, rows)
        if np.isfinite(largest):
            return largest
    for first in range(0, X.shape[0], rows):
        chunk = as_numpy(X[first : first + rows])
        # Of float16 NumPy finds the extremes slowly, and they are within the limits.
        if not with_magnitude or chunk.dtype == np.float16:
            is_finite = bool(np.isfinite(chunk).all())
        else:  # a NaN is the largest and the smallest value
            extremes = max(float(chunk.max()), -float(chunk.min()))
            is_finite = bool(np.isfinite(extremes))
            largest = max(largest, extremes)
        if not is_finite:
            row, column = np.argwhere(~np.isfinite(chunk))[0]
            value = chunk[row, column]
            kind = "NaN" if np.isnan(value) else "infinity"
            raise ValueError(
                f"Input X contains {kind}: X[{first + row}, {column}] = {value}. Embeddings must be "
                "finite; drop such rows, or find out why the encoder returned them."
            )
    return largest


def one_target(Y: Any, y: Any) -> Any:
    """The targets, which may be passed as ``Y`` or under scikit-learn's keyword ``y``."""
    if Y is not None and y is not None:
        raise TypeError("both Y and y were passed; they are the same argument, pass one.")
    return y if Y is None else Y


def check_counts(Y: Any, n_rows: int) -> tuple[sp.csr_array, list[str] | None]:
    """Y as canonical CSR float32 counts, and its column names if it has any."""
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
    if counts.shape[1] == 0:
        raise ValueError("Y has no columns; pass counts of at least one word, shape (n, V >= 1).")
    return counts.astype(np.float32, copy=True), column_names(Y)


def check_counts_of(model: Any, Y: Any, n_rows: int) -> sp.csr_array:
    """Y as counts of the words of a fitted model, whose names the columns of a frame must have."""
    counts, _ = check_counts(Y, n_rows)
    n_words = len(model.vocabulary_)
    if counts.shape[1] != n_words:
        raise ValueError(
            f"Y has {counts.shape[1]} columns, the model has {n_words} words; count with the vocabulary "
            "of fit."
        )
    check_columns_of(model, Y, counts)
    return counts


def refuse_labels(Y: Any, vocabulary: Any) -> None:
    """Refuse a 1-D Y, such as class labels, unless the vocabulary is one word.

    Of labels 0 and 1 there is only a warning, because scikit-learn's checks of estimators fit transformers on
    them.
    """
    if hasattr(Y, "shape"):
        is_flat = len(Y.shape) == 1
    elif isinstance(Y, list | tuple):
        is_flat = bool(Y) and np.ndim(Y[0]) == 0
    else:
        is_flat = hasattr(Y, "to_pylist") or (hasattr(Y, "__array__") and np.asarray(Y).ndim == 1)
    if not is_flat or (isinstance(vocabulary, Sized) and len(vocabulary) == 1):
        return
    remedy = (
        "Pass word counts of shape (n, V): count the words of the texts, for example with "
        "CountVectorizer().fit_transform(texts). In a pipeline that classifies, use a fitted extractor, "
        "FrozenEstimator(extractor), which ignores the labels. Counts of one word are Y.reshape(-1, 1), or "
        "1-D with vocabulary=[word]."
    )
    values = None if sp.issparse(Y) else dense_array(Y, "Y", "word counts of shape (n, V)")
    if values is None or values.dtype.kind not in "iu" or not np.isin(values, (0, 1)).all():
        kind = Y.dtype if values is None else values.dtype
        raise ValueError(f"Y is 1-D, like class labels ({kind}). {remedy}")
    warn_caller(f"Y is 1-D with values 0 and 1, which are fitted as the counts of one word. {remedy}")


def check_weights(sample_weight: Any, X: Any) -> np.ndarray:
    """Row weights as float64, >= 0, not all zero; ones when None."""
    if sample_weight is None:
        return np.ones(_num_samples(X))
    rows = np.empty(_num_samples(X))  # X itself may be on a device, where the weights need not be
    weights: np.ndarray = _check_sample_weight(as_numpy(sample_weight), rows, dtype=np.float64)
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise ValueError(f"sample_weight[{row}] = {weights[row]} is negative; weights must be >= 0.")
    largest = float(weights.max())
    if largest > MAX_WEIGHT or 0 < largest < 1 / MAX_WEIGHT:
        raise ValueError(
            f"the largest sample_weight is {largest:.3g}; it must be from {1 / MAX_WEIGHT:.0e} to "
            f"{MAX_WEIGHT:.0e}, and should be around 1: divide the weights by their mean."
        )
    if not weights.any():
        raise ValueError("sample_weight is zero for every row; give at least one row weight > 0.")
    return weights


def check_groups(groups: Any, n: int) -> np.ndarray | None:
    """Group labels as integers from 0; None stays None."""
    return None if groups is None else number_groups(groups, n)[1]


def check_vocabulary(vocabulary: Any, names: list[str] | None, n_words: int) -> np.ndarray:
    """The V words in column order, as an object array of str."""
    source = "vocabulary"
    if hasattr(vocabulary, "get_feature_names_out"):
        vocabulary = _words_of_vectorizer(vocabulary)
    if vocabulary is None:
        words: list[Any] = names if names is not None else [f"word{j}" for j in range(n_words)]
        source = "the column names of Y"
    elif isinstance(vocabulary, Mapping):
        columns = list(vocabulary.values())
        if not all(map(is_integer, columns)) or sorted(columns) != list(range(n_words)):
            raise ValueError(
                f"vocabulary maps {len(columns)} words to columns that are not exactly 0 to "
                f"{n_words - 1}, once each; Y has {n_words} columns. Pass CountVectorizer's "
                "vocabulary_, or the words in column order."
            )
        words = sorted(vocabulary, key=vocabulary.__getitem__)
    else:
        ordered = isinstance(vocabulary, Iterable) and getattr(vocabulary, "ndim", 1) == 1
        if not ordered or isinstance(vocabulary, (str, bytes, set, frozenset)):
            raise ValueError(
                f"vocabulary={short_repr(vocabulary)} is not a vocabulary; pass a sequence of {n_words} "
                "words in column order, a dict of word to column, or a fitted vectorizer."
            )
        words = vocabulary.to_pylist() if hasattr(vocabulary, "to_pylist") else list(vocabulary)
    for column, word in enumerate(words):
        if not isinstance(word, str):
            raise ValueError(
                f"vocabulary names column {column} {short_repr(word)}, which is not a str; pass only str "
                "(bytes need .decode(), numbers str())."
            )
    words = [str(word) for word in words]
    if len(words) != n_words:
        raise ValueError(
            f"{source} has {len(words)} words, Y has {n_words} columns; pass one word per column."
        )
    if len(set(words)) != n_words:
        repeated = next(word for word, count in Counter(words).items() if count > 1)
        raise ValueError(f"{source} has {repeated!r} more than once; every column needs its own word.")
    if vocabulary is None and names is None and n_words > 1:
        warn_caller(
            "no vocabulary was given and Y has no column names, so the words are called word0, word1, ...; "
            "pass vocabulary=vectorizer.get_feature_names_out(), or a DataFrame with the words as columns."
        )
    return np.array(words, dtype=object)


def _words_of_vectorizer(vectorizer: Any) -> Any:
    """The words of a fitted vectorizer."""
    try:
        return vectorizer.get_feature_names_out()
    except NotFittedError as error:
        raise NotFittedError(
            f"vocabulary={short_repr(vectorizer)} is not fitted; fit it first. clone() and searches such as "
            "GridSearchCV undo its fit: for these pass vectorizer.get_feature_names_out()."
        ) from error

"""Features of the words of a vocabulary, from the ``word_features`` parameter to the arrays of the solver."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import short_repr

# Vocabularies whose features are kept, so that the fits of a grid search compute them once.
MAX_CACHED = 2
# Standard errors by which a lift is lowered, and the occurrences that features are worth in it.
CAUTION, FEATURES_COUNT = 0.5, 3.0
# Features whose spread is below this share of their size are constant up to rounding.
CONSTANT = 1e-6

_cache: OrderedDict[str | None, tuple[Any, np.ndarray]] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class WordFeatures:
    """Features of the V words of a vocabulary, centred and with rows of unit mean square."""

    values: np.ndarray  # (V, p) float32 or float64
    mean: np.ndarray  # (p,) float64, of the features as they were given
    scale: float
    transformer: Any = None  # the fitted transformer, if they came from one

    def of_words(self, words: np.ndarray) -> np.ndarray:
        """The features of some words."""
        return self.values if len(words) == len(self.values) else self.values[words]


def resolve_word_features(word_features: Any, vocabulary: np.ndarray) -> WordFeatures:
    """Check the ``word_features`` parameter and standardize the features of a vocabulary."""
    if is_transformer(word_features):
        transformer, raw = _fit_transform(word_features, vocabulary)
        return standardize(raw, transformer)
    return standardize(given_features(word_features, vocabulary))


def features_of_model(model: Any) -> WordFeatures:
    """The features that a model was fitted with, from its ``word_features`` as it is now."""
    if model.word_features is None:
        raise ValueError(
            "the model was fitted with word_features and has them no more, since from_pretrained does not "
            "restore arrays and transformers; set them again: model.set_params(word_features=...)."
        )
    features = resolve_word_features(model.word_features, model.vocabulary_)
    if features.values.shape[1] != len(model.word_map_):
        raise ValueError(
            f"word_features has {features.values.shape[1]} columns, and the model was fitted with "
            f"{len(model.word_map_)}; pass the features of the fit."
        )
    return features


def word_map_attributes(features: WordFeatures, word_map: np.ndarray, ridge: float) -> dict[str, Any]:
    """The fitted attributes that predict the row of a word from its features as they were given."""
    attributes = {
        "word_map_": np.divide(word_map, features.scale, dtype=word_map.dtype),
        "word_feature_mean_": features.mean.astype(word_map.dtype),
        "word_map_ridge_": ridge,
    }
    if features.transformer is not None:
        attributes["word_transformer_"] = features.transformer
    return attributes


ATTRIBUTES = (
    "word_map_",
    "word_feature_mean_",
    "word_map_ridge_",
    "word_transformer_",
    "lift_offset_",
    "extended_words_",
)


def lift_offset(word_counts: np.ndarray, A: np.ndarray) -> np.ndarray:
    """What is added to the lift of a word: -CAUTION times its standard error, (V,).

    From c occurrences, an entry of a_j is known with a variance of about 1 / c, so a score without bias
    with one of r / c: the r latents have unit variance. What features say counts as FEATURES_COUNT
    occurrences.
    """
    variance = A.shape[1] / (word_counts + FEATURES_COUNT)
    offset: np.ndarray = (-CAUTION * np.sqrt(variance)).astype(A.dtype)
    offset[word_counts <= 0] = 0.0
    return offset


def is_transformer(value: Any) -> bool:
    """Whether a value has the methods of a scikit-learn transformer; DataFrames have one of them."""
    return hasattr(value, "transform") and hasattr(value, "fit")


def standardize(raw: np.ndarray, transformer: Any = None) -> WordFeatures:
    """Centre features (V, p), and scale them so that the mean square of a row's norm is one.

    Constant features become zeros, which change nothing.
    """
    mean = raw.mean(axis=0, dtype=np.float64)
    values = raw - mean.astype(raw.dtype)
    scale = float(np.sqrt(np.square(values, dtype=np.float64).sum(axis=1).mean()))
    if scale <= CONSTANT * float(np.linalg.norm(mean)) or scale == 0:
        return WordFeatures(np.zeros_like(values), mean, 1.0, transformer)
    values /= np.asarray(scale, dtype=values.dtype)
    return WordFeatures(values, mean, scale, transformer)


def is_frame(value: Any) -> bool:
    """Whether a value is a DataFrame with an index."""
    return hasattr(value, "loc") and hasattr(value, "columns")


def given_features(features: Any, words: Sequence[str] | np.ndarray) -> np.ndarray:
    """Features of words from an array (V, p) or a DataFrame that is indexed by word."""
    if is_frame(features):
        features = _frame_rows(features, words)
    return _checked(features, len(words), f"one row for each of the {len(words)} words, in their order")


def transformed_features(transformer: Any, words: Sequence[str] | np.ndarray) -> np.ndarray:
    """Features of words from a fitted transformer."""
    return _checked(
        transformer.transform([str(word) for word in words]),
        len(words),
        f"a transformer that returns one row for each of the {len(words)} words",
    )


def _fit_transform(transformer: Any, vocabulary: np.ndarray) -> tuple[Any, np.ndarray]:
    """A clone that is fitted to the vocabulary, and the features, perhaps those of an equal call before."""
    transformer, words = clone(transformer), [str(word) for word in vocabulary]
    try:
        key = joblib.hash((type(transformer).__qualname__, transformer, words))
    except (TypeError, AttributeError, pickle.PicklingError):  # a lambda, for example
        key = None
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    transformer.fit(words)
    result = transformer, transformed_features(transformer, words)
    if key is not None:
        with _lock:
            _cache[key] = result
            while len(_cache) > MAX_CACHED:
                _cache.popitem(last=False)
    return result


def _frame_rows(frame: Any, words: Sequence[str] | np.ndarray) -> Any:
    """The rows of a DataFrame by word."""
    if not frame.index.is_unique:
        repeated = frame.index[frame.index.duplicated()][0]
        raise ValueError(
            f"word_features has more than one row for {short_repr(repeated)}; its index must be words, each "
            "once."
        )
    is_missing = ~np.isin(np.asarray(words, dtype=object).astype(str), frame.index.astype(str))
    if is_missing.any():
        some = ", ".join(map(repr, np.asarray(words, dtype=object)[is_missing][:5].tolist()))
        raise ValueError(
            f"word_features has no row for {int(is_missing.sum())} of the {len(words)} words ({some}"
            f"{', ...' if is_missing.sum() > 5 else ''}); its index must hold all words of the vocabulary."
        )
    return frame.loc[list(words)].to_numpy()


def _checked(features: Any, n_words: int, expected: str) -> np.ndarray:
    """Features as a finite float32 or float64 array (n_words, p)."""
    if sp.issparse(features):
        raise ValueError(
            "word_features is a sparse matrix; reduce it to some hundred dense features, for example with "
            "make_pipeline(TfidfVectorizer(analyzer='char_wb'), TruncatedSVD(100))."
        )
    array = np.asarray(as_numpy(features))
    if array.ndim != 2 or array.shape[0] != n_words or array.shape[1] == 0:
        raise ValueError(
            f"word_features has shape {array.shape}; pass {expected}: ({n_words}, p) with p >= 1."
        )
    if array.dtype.kind not in "fiub":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"word_features has entries that are not numbers ({error}).") from None
    dtype = np.float64 if array.dtype.itemsize > 4 else np.float32
    result: np.ndarray = array.astype(dtype, copy=False)
    finite = np.isfinite(result).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"word_features has a NaN or an infinite value in row {row}; every word needs finite features."
        )
    return result

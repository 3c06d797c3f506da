"""extend_vocabulary: words that training never saw, with rows of A predicted from features of the words.

The row of a new word is (e - mean) G, with e its features. All else about a word depends on how often it
occurs, and is taken from the words of the fit that occur about as often:

- its bias: log(c / W) less a gain from the spread of the scores over the rows, so that the mean theta is
  about c / W. Rows of words of the fit were fitted to their own texts, and gain differently: on captions the
  mean theta of new words is c / W within a factor of three (``docs/rare-words.md``);
- its ranking offset and the parameters of its presence probability;
- its lift offset, which is a function of the count (``word_features.py``). It is CAUTION times as large as
  that of words of the fit: words that somebody adds are expected in the texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp

from flip_sklearn.backend.device import without_autocast
from flip_sklearn.backend.fit.word_prior import MIN_GAIN, regress_on_features
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.word_features import (
    WordFeatures,
    given_features,
    is_frame,
    is_transformer,
    lift_offset,
    resolve_word_features,
    transformed_features,
    word_map_attributes,
)
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import is_same_encoder, short_repr

DEFAULT_COUNT = 1.0
CAUTION = 0.06
# Occurrences of a word whose row a fit without features shrinks by half: its default penalty.
HALF_COUNT = 20.0
# Without counts, a word at this quantile of the biases is taken to occur this often.
RAREST_QUANTILE, RAREST_COUNT, MAX_LOG_COUNT = 0.05, 2.0, 50.0
# Words of the fit that say what is typical of a count: within this factor of it, and at least so many.
COUNT_FACTOR, MIN_TYPICAL = 1.5, 50
# The most frequent words, whose features tell whether an encoder is that of the fit.
MAX_PROBES = 200


class OpenVocabularyMixin:
    """Method of FLiPExtractor that adds words to the vocabulary."""

    @without_autocast()
    def extend_vocabulary(self, words: Any, word_features: Any = None, counts: Any = None) -> Self:
        """Return a model that also reads words that training never saw.

        The row of A of a new word is predicted from its features e as (e - ``word_feature_mean_``)
        ``word_map_``. Its bias and its offsets are those of the words of the fit that occur about as often as
        ``counts`` says. A model that was fitted without features, or by other code, first gets the two
        attributes, by a ridge regression of its rows on features of its words.

        Parameters
        ----------
        words : str or sequence of str
            Words that training never saw, each once. Those in the vocabulary keep their columns, the others
            become new columns at the end, in this order.
        word_features : array-like of shape (m, p), DataFrame or transformer, default=None
            Features of the m words, made like those of the fit. None is ``word_transformer_``, or the
            ``word_features`` of the fit if they are a DataFrame that has the words. A transformer, such as
            ``SentenceEncoder``, is applied to the words as it is. For a model without ``word_map_``: a
            transformer, which is cloned and fitted to the words of the model, or a DataFrame that has these
            words, too.
        counts : float or array-like of shape (m,), default=None
            How often each word would have occurred in the training texts, > 0. None is once. With bias, a
            word of a larger count is extracted more often. Models of other code have no counts: there new
            words are like the words with the lowest biases, and ``counts`` is refused.

        Returns
        -------
        model : FLiPExtractor
            A new fitted model; this one is not changed. ``extended_words_`` has the columns of the words,
            and those of earlier calls, until the next ``fit`` or ``partial_fit``. ``vocabulary`` has all
            words, so that ``fit``, ``partial_fit`` and ``warm_start`` take counts with the new columns;
            ``partial_fit`` counts every new word ``counts`` times.

        Raises
        ------
        ValueError
            If the model knows a word already; if no features are at hand; if they have NaN, another shape
            or number of columns than those of the fit, or do not predict the rows of known words; if a
            ``SentenceEncoder`` is another one than the model records; or if a count is not allowed.

        See Also
        --------
        FLiPExtractor : ``word_features`` also improves the rows of words that training saw rarely.

        Notes
        -----
        The scores of known words do not change, but for a constant: with bias they are lowered by the
        logarithm of the share that the new words take.

        Examples
        --------
        >>> import numpy as np
        >>> from flip_sklearn import FLiPExtractor
        >>> rng = np.random.default_rng(0)
        >>> words = [f"word{j}" for j in range(40)]
        >>> meaning = rng.normal(size=(40, 6))  # features of the words
        >>> Y = rng.poisson(0.1, size=(1000, 40))
        >>> X = Y @ meaning  # embeddings that are sums of what the words mean
        >>> flip = FLiPExtractor(vocabulary=words[:39], word_features=meaning[:39], random_state=0)
        >>> flip = flip.fit(X, Y[:, :39])
        >>> more = flip.extend_vocabulary(["word39"], word_features=meaning[39:])
        >>> has_word = Y[:, 39] > 0
        >>> scores = more.decision_function(X)[:, 39]
        >>> bool(scores[has_word].mean() > scores[~has_word].mean() + 1)
        True
        """
        model = scoring.snapshot(self)
        names = _check_new_words(model, words)
        occurrences = _check_occurrences(model, counts, len(names))
        is_trained = _trained_words(model)
        rows, map_attributes = _predicted_rows(model, names, word_features, is_trained)
        model.__dict__.update(map_attributes)

        columns = {word: column for column, word in enumerate(model.vocabulary_)}
        is_listed = np.array([word in columns for word in names])
        # Row i of the result is row place[i] of the arrays of the model with those of the new words below.
        n_words = len(model.vocabulary_)
        place = np.arange(n_words + np.count_nonzero(~is_listed))
        place[[columns[word] for word in names if word in columns]] = n_words + np.flatnonzero(is_listed)
        place[n_words:] = n_words + np.flatnonzero(~is_listed)

        new = _attributes_of_words(model, rows, occurrences, is_trained, has_shrunk_rows=bool(map_attributes))
        new["vocabulary_"] = np.array(names, dtype=object)
        mass = logsumexp(model.bias_[model.word_counts_ > 0])
        for name, values in new.items():
            setattr(model, name, _append(getattr(model, name), values)[place])
        is_known = model.word_counts_ > 0  # the bias of other words is a mark, not a number
        model.bias_[is_known] += mass - logsumexp(model.bias_[is_known])
        model.extended_words_ = np.union1d(
            getattr(model, "extended_words_", np.empty(0, dtype=np.int64)), np.flatnonzero(place >= n_words)
        )
        model.vocabulary = model.vocabulary_.tolist()
        model.kkt_residual_ = np.nan
        extended: Self = model
        return extended


def _check_new_words(model: Any, words: Any) -> list[str]:
    """Distinct words that the model does not know."""
    if not isinstance(words, Iterable) or isinstance(words, (bytes, dict, set, frozenset)):
        raise ValueError(f"words={short_repr(words)} is not allowed; pass a word or a list of words.")
    names = [words] if isinstance(words, str) else list(words)
    if not names:
        raise ValueError("words is empty; pass at least one word.")
    for word in names:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"words has {short_repr(word)}, which is not a word; pass only str with text.")
    names = [str(word) for word in names]
    known = set(model.vocabulary_[model.word_counts_ > 0])
    seen: set[str] = set()
    for word in names:
        if word in known:
            raise ValueError(f"words has {word!r}, which the model knows already; leave it out.")
        if word in seen:
            raise ValueError(f"words has {word!r} more than once; pass every word once.")
        seen.add(word)
    return names


def _check_occurrences(model: Any, counts: Any, n: int) -> np.ndarray:
    """The counts of n new words, float64."""
    if counts is None:
        return np.full(n, DEFAULT_COUNT)
    if not _has_counts(model):
        raise ValueError(
            "counts cannot be used: the model was trained by other code and does not say how often its words "
            "occur; leave counts out."
        )
    try:
        values = np.asarray(as_numpy(counts), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"counts={short_repr(counts)} is not allowed; pass numbers > 0.") from None
    if values.shape not in ((), (n,)):
        raise ValueError(
            f"counts has shape {values.shape}; pass one count for each of the {n} words, ({n},)."
        )
    values = np.broadcast_to(values, (n,)).copy()
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        raise ValueError(
            f"counts has {values[bad][0]}, which is not allowed; use finite numbers > 0, or leave counts out."
        )
    return values


def _has_counts(model: Any) -> bool:
    """Whether ``word_counts_`` are counts; models of other code have 1 for every word."""
    return bool(model.solver_ != "unknown")


def _trained_words(model: Any) -> np.ndarray:
    """Which words a fit has seen, (V,) bool."""
    is_trained: np.ndarray = model.word_counts_ > 0
    is_trained[getattr(model, "extended_words_", [])] = False
    return is_trained


def _predicted_rows(
    model: Any, names: list[str], word_features: Any, is_trained: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """The rows of A of new words (m, r), and the attributes of the map if it had to be fitted."""
    attributes: dict[str, Any] = {}
    if hasattr(model, "word_map_"):
        raw = _features_like_those_of_the_fit(model, names, word_features, is_trained)
        word_map, mean = model.word_map_, model.word_feature_mean_
    else:
        features, raw = _features_of_all(model, names, word_features, is_trained)
        attributes = _fit_map(model, features, is_trained)
        word_map, mean = attributes["word_map_"], attributes["word_feature_mean_"]
    return _predict(raw, word_map, mean), attributes


def _predict(raw: np.ndarray, word_map: np.ndarray, mean: np.ndarray) -> np.ndarray:
    rows: np.ndarray = (raw.astype(np.float64) - mean) @ word_map.astype(np.float64)
    return rows


def _features_like_those_of_the_fit(
    model: Any, names: list[str], word_features: Any, is_trained: np.ndarray
) -> np.ndarray:
    """Features (m, p) of new words, for the fitted ``word_map_``."""
    is_given = word_features is not None
    if not is_given:
        word_features = getattr(model, "word_transformer_", None)
        if word_features is None and is_frame(model.word_features):
            word_features = model.word_features
    if word_features is None:
        raise ValueError(
            "the model has no transformer that computes features of the new words, since it was fitted with "
            f"an array or was loaded; pass word_features={_encoder_hint(model)}, or the features of the new "
            "words, made like those of the fit."
        )
    p = len(model.word_map_)
    if not is_transformer(word_features):
        raw = given_features(word_features, names)
        _check_width(raw, p)
        return raw
    if is_given:
        _check_encoder(model, word_features)
        probes = np.flatnonzero(is_trained)
        probes = probes[np.argsort(-model.word_counts_[probes], kind="stable")[:MAX_PROBES]]
        known = transformed_features(word_features, model.vocabulary_[probes])
        _check_width(known, p)
        A = _dense(model.word_embeddings_[probes])
        error = np.square(A - _predict(known, model.word_map_, model.word_feature_mean_)).sum()
        if error > (1 - MIN_GAIN) * np.square(A).sum():
            raise ValueError(
                f"word_features do not predict the rows of the {len(probes)} most frequent words: the "
                f"transformer is not the one of the fit; pass word_features={_encoder_hint(model)}."
            )
    raw = transformed_features(word_features, names)
    _check_width(raw, p)
    return raw


def _check_width(raw: np.ndarray, p: int) -> None:
    if raw.shape[1] != p:
        raise ValueError(
            f"word_features has {raw.shape[1]} columns, and the model was fitted with {p}; pass features of "
            "the same encoder."
        )


def _features_of_all(
    model: Any, names: list[str], word_features: Any, is_trained: np.ndarray
) -> tuple[WordFeatures, np.ndarray]:
    """Features of the words of the fit and of new words, for a model without ``word_map_``."""
    is_table = is_frame(word_features)
    if not is_table and not is_transformer(word_features):
        problem = "word_features=None" if word_features is None else "an array of features of the new words"
        raise ValueError(
            f"the model was fitted without word_features, so {problem} does not tell what a new word means; "
            f"pass a transformer, such as word_features={_encoder_hint(model)}, or a DataFrame indexed by "
            "word that has the words of the model and the new ones."
        )
    known = model.vocabulary_[is_trained]
    if is_table:
        raw = given_features(word_features, names)
        return resolve_word_features(word_features, known), raw
    _check_encoder(model, word_features)
    features = resolve_word_features(word_features, known)
    return features, transformed_features(features.transformer, names)


def _fit_map(model: Any, features: WordFeatures, is_trained: np.ndarray) -> dict[str, Any]:
    """The attributes of a ridge regression of the rows of A, which the penalty has shrunk, on features."""
    counts = _occurrences(model, is_trained)
    share = counts / (counts + HALF_COUNT)
    fitted = regress_on_features(_dense(model.word_embeddings_[is_trained]), share, features.values)
    if fitted is None:
        raise ValueError(
            "word_features do not predict the rows of the words of the model, so they cannot predict those "
            f"of new words; pass features by the encoder of the texts, {_encoder_hint(model)}."
        )
    # The ranking of the words of the fit is not changed.
    offset = np.zeros(len(model.word_counts_), dtype=model.bias_.dtype)
    return {**word_map_attributes(features, *fitted), "lift_offset_": offset}


def _occurrences(model: Any, is_trained: np.ndarray) -> np.ndarray:
    """Counts of the words of the fit; for models of other code, which have none, estimates from the bias."""
    if _has_counts(model):
        counts: np.ndarray = model.word_counts_[is_trained].astype(np.float64)
        return counts
    b = model.bias_[is_trained].astype(np.float64)
    counts = RAREST_COUNT * np.exp(np.minimum(b - np.quantile(b, RAREST_QUANTILE), MAX_LOG_COUNT))
    return counts


def _attributes_of_words(
    model: Any, rows: np.ndarray, counts: np.ndarray, is_trained: np.ndarray, *, has_shrunk_rows: bool
) -> dict[str, np.ndarray]:
    """The fitted attributes of new words with these rows and counts."""
    known_counts = _occurrences(model, is_trained)
    b = model.bias_[is_trained]
    bias = np.log(counts) + _typical(b - np.log(known_counts), known_counts, counts)
    new = {"word_embeddings_": rows, "word_counts_": counts, "bias_": bias}
    # Without features, what is learned about rare words makes up for their shrunk rows; new rows are whole.
    alike = np.maximum(counts, HALF_COUNT) if has_shrunk_rows else counts
    for name in ("ranking_offset_", "presence_intercept_", "presence_slope_"):
        if hasattr(model, name):
            new[name] = _typical(getattr(model, name)[is_trained], known_counts, alike)
    new["lift_offset_"] = CAUTION * lift_offset(counts, rows)
    return new


def _typical(values: np.ndarray, known_counts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of the values of the known words that occur about as often as each of some words."""
    order = np.argsort(known_counts, kind="stable")
    ascending = known_counts[order]
    totals = np.concatenate([[0.0], np.cumsum(values[order], dtype=np.float64)])
    n = len(order)
    middle = np.searchsorted(ascending, counts)
    start = np.minimum(np.searchsorted(ascending, counts / COUNT_FACTOR), middle - MIN_TYPICAL // 2)
    stop = np.maximum(np.searchsorted(ascending, counts * COUNT_FACTOR), middle + MIN_TYPICAL // 2)
    start, stop = np.clip(start, 0, max(n - MIN_TYPICAL, 0)), np.clip(stop, min(MIN_TYPICAL, n), n)
    means: np.ndarray = (totals[stop] - totals[start]) / (stop - start)
    return means


def _append(values: Any, new: np.ndarray) -> Any:
    """An array of all words, or a csr_array of rows, with the values of new words at the end."""
    if sp.issparse(values):
        return sp.csr_array(sp.vstack([values, sp.csr_array(new.astype(values.dtype))]))
    return np.concatenate([values, new.astype(values.dtype)])


def _dense(rows: Any) -> np.ndarray:
    return rows.toarray() if sp.issparse(rows) else np.asarray(rows)


def _recorded_encoder(model: Any) -> str | None:
    """The name of the encoder that was stored with the model."""
    encoder: str | None = getattr(model, "pretrained_info_", {}).get("encoder")
    return encoder


def _encoder_hint(model: Any) -> str:
    encoder = _recorded_encoder(model)
    return "SentenceEncoder(...)" if encoder is None else f"SentenceEncoder({encoder!r})"


def _check_encoder(model: Any, transformer: Any) -> None:
    """Raise if a SentenceEncoder is another one than the model records."""
    recorded = _recorded_encoder(model)
    if recorded is None or not hasattr(transformer, "_model_name"):
        return
    name = transformer._model_name()
    if name is not None and not is_same_encoder(name, recorded):
        raise ValueError(
            f"word_features is the encoder {short_repr(name)}, and the model was trained with "
            f"{short_repr(recorded)}; pass the encoder of the model. If they are the same under two names, "
            "pass make_pipeline(encoder)."
        )

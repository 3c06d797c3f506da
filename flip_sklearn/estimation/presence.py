"""The probability that a word occurs in a text: its parameters from held-out rows, and its use.

The model is that of ``backend/scoring/presence.py``. Its T is a Poisson regression of the number of words of
a row on h. All other parameters are a logistic regression of "word j occurs in row n" on u_nj, which starts
from presence = expected count. Intercept and slope of word j are functions of log count_j, plus deviations of
its own with Gaussian priors: frequent words get parameters of their own, rare words those of their count.
Rows that training did not see are needed: on its own rows a model is too certain.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor

from flip_sklearn.backend.device import Compute, Embeddings, product_precision, without_autocast
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.scoring.presence import (
    PresenceParameters,
    all_latents,
    likely_words,
    presence_blocks,
)
from flip_sklearn.backend.scoring.presence_sums import GroupSums, presence_sums
from flip_sklearn.backend.scoring.scorer import Scorer
from flip_sklearn.estimation import scoring
from flip_sklearn.parameters import check_number

ATTRIBUTES = ("presence_length_", "presence_intercept_", "presence_slope_", "presence_row_coef_")

# Prior of the length: each of the r latents, of unit variance, explains 1 / (10 r) of the variance of log T.
LENGTH_RIDGE = 10.0
# More rows, and more pairs of long texts, cost more than they add.
MAX_ROWS, MAX_PAIRS = 3000, 2**21
# Words that are expected fewer times in a row do not enter the fit; their probability is extrapolated.
MIN_EXPECTED_COUNT = 0.01
# Gaussian priors, as inverse variances, of the common coefficients, and of intercept and slope of a word.
COMMON_RIDGE, INTERCEPT_RIDGE, SLOPE_RIDGE = 1.0, 2.0, 4.0
RAREST_QUANTILE = 0.01
MAX_WEIGHT = 1000.0
ROUNDS, FIRST_STEPS, MAX_STEP = 4, 10, 4.0


@dataclass(frozen=True)
class HeldOutRows:
    """Rows that training did not see."""

    X: Embeddings  # (n, d)
    counts: sp.csr_array  # (n, V)
    weights: np.ndarray  # (n,)


@dataclass(frozen=True)
class _Pairs:
    """Words that are likely enough in a row, the row's features, and whether they occur."""

    word: np.ndarray
    log_count: np.ndarray  # u
    row_features: np.ndarray  # (n_pairs, 2), log T and H
    weight: np.ndarray
    occurs: np.ndarray


def held_out_rows(
    X: Embeddings, counts: sp.csr_array, weights: np.ndarray, rows: np.ndarray | None
) -> HeldOutRows | None:
    """At most ``MAX_ROWS`` of the held-out rows of a fit, drawn at random; None if there are none."""
    if rows is None or len(rows) == 0:
        return None
    order = np.random.RandomState(0).permutation(rows)[:MAX_ROWS]
    return HeldOutRows(X[order], counts[order], weights[order])


def _limit_weights(rows: HeldOutRows) -> HeldOutRows:
    """Rows whose weights are at most ``MAX_WEIGHT``: with far larger ones, the priors would round to zero."""
    scale = min(1.0, MAX_WEIGHT / max(float(rows.weights.max()), MAX_WEIGHT))
    return HeldOutRows(rows.X, rows.counts, rows.weights * scale)


@without_autocast()
def fit_presence(
    attributes: dict[str, Any], rows: HeldOutRows | None, compute: Compute, group: ProcessGroup
) -> dict[str, Any]:
    """The ``presence_`` attributes of a model with these fitted attributes; none without held-out rows."""
    if rows is None:
        return {}
    rows = _limit_weights(rows)
    word_counts = attributes["word_counts_"]
    scorer = Scorer(
        attributes["word_embeddings_"],
        attributes["projection_"],
        attributes["bias_"],
        attributes["embedding_mean_"],
        compute,
        unseen=word_counts <= 0,
    )
    with product_precision(compute):
        length = _fit_length(scorer, rows)
        pairs = _collect_pairs(scorer, rows, length)
    intercept, slope, row_coef = _fit_log_odds(pairs, word_counts)
    parameters = [length, intercept, slope, row_coef]
    if not group.is_single_process:  # the same bits on all processes, whatever their processors are
        parameters = [
            np.reshape(group.broadcast_floats(array.ravel().tolist(), compute.device), array.shape)
            for array in parameters
        ]
    return dict(zip(ATTRIBUTES, parameters, strict=True))


def _fit_length(scorer: Scorer, rows: HeldOutRows) -> np.ndarray:
    """c and w of T = exp(c + w h)."""
    h = all_latents(scorer, rows.X)
    n_tokens = np.asarray(rows.counts.sum(axis=1, dtype=np.float64)).ravel()
    regression = PoissonRegressor(alpha=LENGTH_RIDGE * h.shape[1] / rows.weights.sum(), max_iter=300)
    with warnings.catch_warnings():
        # A solution that is not quite at the optimum is as good.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(h, n_tokens, rows.weights / rows.weights.mean())
    return np.concatenate([[regression.intercept_], regression.coef_])


def _collect_pairs(scorer: Scorer, rows: HeldOutRows, length: np.ndarray) -> _Pairs:
    """Pairs of a row and a word that is expected at least ``MIN_EXPECTED_COUNT`` times."""
    n_words = rows.counts.shape[1]
    row_of_entry = np.repeat(np.arange(rows.counts.shape[0]), np.diff(rows.counts.indptr))
    entries = row_of_entry * n_words + rows.counts.indices  # ascending
    parts: list[_Pairs] = []
    first = n_pairs = 0
    for row, word, log_count, features in likely_words(scorer, rows.X, length, MIN_EXPECTED_COUNT):
        pair = (first + row) * n_words + word
        place = np.searchsorted(entries, pair)
        occurs = np.r_[entries, -1][place] == pair
        parts.append(_Pairs(word, log_count, features[row], rows.weights[first + row], occurs.astype(float)))
        first, n_pairs = first + len(features), n_pairs + len(row)
        if n_pairs > MAX_PAIRS:
            break
    return _Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def _fit_log_odds(pairs: _Pairs, word_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intercept and slope of each word, and the coefficients of the row's features."""
    n_words = len(word_counts)
    c = np.zeros(n_words)
    c[word_counts > 0] = np.log(word_counts[word_counts > 0])
    # Words so rare that hardly a row expects them are treated like the rarest that are expected.
    c = np.maximum(c, np.quantile(c[pairs.word], RAREST_QUANTILE)) if len(pairs.word) else c
    _, c_mean, c_scale = _standardize(c[pairs.word][:, None])
    c = (c - c_mean) / c_scale
    f, f_mean, f_scale = _standardize(pairs.row_features)
    u_mean = float(pairs.log_count.mean()) if len(pairs.word) else 0.0
    v, c_pair = pairs.log_count - u_mean, c[pairs.word]
    features = np.column_stack([np.ones_like(v), v, c_pair, c_pair * v, c_pair**2, f, f * v[:, None]])
    common = np.zeros(features.shape[1])
    own_intercept, own_slope = np.zeros(n_words), np.zeros(n_words)
    base, own = pairs.log_count, np.zeros_like(v)
    for n_steps in (FIRST_STEPS, *[2] * (ROUNDS - 1)):
        common = _newton(common, features, pairs, base + own, n_steps)
        z = base + features @ common
        for _ in range(2):
            step = _own_step(pairs, v, z + own, own_intercept, own_slope)
            own_intercept, own_slope = own_intercept + step[0], own_slope + step[1]
            own = own_intercept[pairs.word] + own_slope[pairs.word] * v
    slope = 1 + common[1] + common[3] * c + own_slope
    intercept = common[0] + common[2] * c + common[4] * c**2 + own_intercept - u_mean * (slope - 1)
    # The features of a row are standardized, and u is centred; written in their own units:
    by_slope = common[7:9] / f_scale
    by_row = common[5:7] / f_scale - u_mean * by_slope
    return intercept - by_row @ f_mean, slope - by_slope @ f_mean, np.stack([by_row, by_slope])


def _standardize(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns with mean 0 and, unless they are constant, standard deviation 1; means and deviations."""
    if len(values) == 0:
        return values, np.zeros(values.shape[1]), np.ones(values.shape[1])
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    return (values - mean) / scale, mean, scale


def _newton(
    coef: np.ndarray, features: np.ndarray, pairs: _Pairs, offset: np.ndarray, n_steps: int
) -> np.ndarray:
    """Some steps on the coefficients of a ridge logistic regression with an offset."""
    for _ in range(n_steps):
        p = expit(offset + features @ coef)
        gradient = features.T @ (pairs.weight * (pairs.occurs - p)) - COMMON_RIDGE * coef
        curvature = (features * (pairs.weight * p * (1 - p))[:, None]).T @ features
        step = np.linalg.solve(curvature + COMMON_RIDGE * np.eye(len(coef)), gradient)
        coef = coef + step * min(1.0, MAX_STEP / max(np.abs(features @ step).max(initial=0.0), MAX_STEP))
    return coef


def _own_step(
    pairs: _Pairs, v: np.ndarray, z: np.ndarray, intercept: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One Newton step on intercept and slope of every word."""

    def total(values: np.ndarray) -> np.ndarray:
        sums: np.ndarray = np.bincount(pairs.word, values, minlength=len(intercept))
        return sums

    p = expit(z)
    residual, curvature = pairs.weight * (pairs.occurs - p), pairs.weight * p * (1 - p)
    by_intercept = total(residual) - INTERCEPT_RIDGE * intercept
    by_slope = total(residual * v) - SLOPE_RIDGE * slope
    aa, ss = total(curvature) + INTERCEPT_RIDGE, total(curvature * v * v) + SLOPE_RIDGE
    cross = total(curvature * v)
    determinant = aa * ss - cross**2
    step = (
        np.stack([ss * by_intercept - cross * by_slope, aa * by_slope - cross * by_intercept]) / determinant
    )
    step *= MAX_STEP / np.maximum(np.abs(step).max(axis=0), MAX_STEP)
    return step[0], step[1]


def check_has_presence(model: Any) -> None:
    """Raise if a fitted model has no ``presence_`` attributes."""
    if not all(hasattr(model, name) for name in ATTRIBUTES):
        raise ValueError(
            "the model has no presence_ attributes, from which the probability of a word is computed. "
            "fit learns them from the rows that it holds out for early stopping: use early_stopping=True, or "
            "the default 'auto' and 1,000 or more rows with words. Models of partial_fit, "
            "regularization_path, earlier versions and other code have none."
        )


def check_min_probability(model: Any, min_probability: Any) -> float:
    """A checked ``min_probability`` for a model that has presence attributes."""
    value = check_number("min_probability", min_probability, 0, 1, open_low=True)
    check_has_presence(model)
    return value


def likeliest_words(
    model: Any, X: Embeddings, k: int, min_probability: float = 0.0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the words and probabilities of consecutive blocks of rows, as ``presence_blocks`` does."""
    parameters = PresenceParameters(*(getattr(model, name) for name in ATTRIBUTES))
    with scoring.progress(model, len(X)) as bar:
        scorer = scoring.make_scorer(model, use_bias=True)
        for words, probabilities in presence_blocks(scorer, X, parameters, k, min_probability):
            yield words, probabilities
            bar.update(len(words))


@without_autocast()
def likeliest_to_csr(model: Any, X: Embeddings, k: int) -> sp.csr_array:
    """The probabilities of the likeliest words of each row, (n, V)."""
    n_words, dtype = len(model.vocabulary_), scoring.output_dtype(X)
    indices, probabilities = np.empty((len(X), k), dtype=np.int64), np.empty((len(X), k), dtype=dtype)
    first = 0
    for words, values in likeliest_words(model, X, k):
        last = first + len(words)
        indices[first:last], probabilities[first:last] = words, values
        first = last
    return scoring.top_to_csr(indices, probabilities, n_words)


@without_autocast()
def keywords_by_presence(
    model: Any, X: Embeddings, k: int, min_probability: float, return_scores: bool
) -> list[list[Any]]:
    """The words of each row with at least this probability, likeliest first, or (word, probability) pairs."""
    result: list[list[Any]] = []
    for indices, probabilities in likeliest_words(model, X, k, min_probability):
        n_kept = (probabilities >= min_probability).sum(axis=1).tolist()
        words = [row[:n] for row, n in zip(model.vocabulary_[indices].tolist(), n_kept, strict=True)]
        values = [row[:n] for row, n in zip(probabilities.tolist(), n_kept, strict=True)]
        result += scoring.with_scores(words, values) if return_scores else words
    return result


@without_autocast()
def sum_presence(model: Any, X: Embeddings, groups: np.ndarray | None) -> tuple[GroupSums, GroupSums]:
    """The sums of ``presence_sums`` of a model that has presence attributes."""
    parameters = PresenceParameters(*(getattr(model, name) for name in ATTRIBUTES))
    with scoring.progress(model, len(X)) as bar:
        scorer = scoring.make_scorer(model, use_bias=True)
        return presence_sums(scorer, X, parameters, groups, bar.update)

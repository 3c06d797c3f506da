"""Similarity explanation: the contribution of words to the cosine of two embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.backend.device import as_shared_tensor
from flip_sklearn.backend.sparse_coding.lasso import nonnegative_lasso
from flip_sklearn.diagnostics.inputs import check_model
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import check_integer, check_number

# Maximum number of words in the repr.
_N_REPR = 5
# Largest rounding error of the terms' sum; embeddings whose terms are much larger than 1 are refused.
_MAX_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class SimilarityExplanation:
    """Result of :func:`explain_similarity`, for the m words that are in one of the embeddings.

    ``common + contribution.sum() + residual`` is ``cosine``, and ``parts.sum()`` is
    ``contribution.sum()``.

    Attributes
    ----------
    cosine : float
        Cosine of the two embeddings.
    common : float
        Contribution of the mean embedding, which is common to all sentences.
    residual : float
        Part of the cosine that is not explained by words or the mean.
    words : ndarray of shape (m,) of str
        Words of the embeddings, by absolute contribution, the largest first.
    contribution : ndarray of shape (m,)
        Contribution of each word to the cosine; negative if the word makes the embeddings less similar.
    strength1, strength2 : ndarray of shape (m,)
        Coefficient of each word in each embedding, >= 0; 0 if the word is not in it.
    parts : ndarray of shape (m, m)
        Contribution of each pair of a word of the first embedding (rows) and one of the second (columns).
    """

    cosine: float
    common: float
    residual: float
    words: np.ndarray
    contribution: np.ndarray
    strength1: np.ndarray
    strength2: np.ndarray
    parts: np.ndarray

    def pairs(self, top_k: int = 10) -> list[tuple[str, str, float]]:
        """Return the pairs of words that contribute most, such as "dog" and "puppy".

        Parameters
        ----------
        top_k : int, default=10
            Maximum number of pairs, >= 1.

        Returns
        -------
        list of (str, str, float)
            Word of the first embedding, word of the second, and their contribution, by absolute value,
            the largest first.
        """
        top_k = check_integer("top_k", top_k, 1)
        flat = self.parts.ravel()
        order = np.argsort(-np.abs(flat), kind="stable")[:top_k]
        order = order[flat[order] != 0]
        first, second = np.unravel_index(order, self.parts.shape)
        return list(zip(self.words[first], self.words[second], flat[order].tolist(), strict=True))

    def to_frame(self) -> Any:
        """One row for each word, then one for the common part and one for the residual.

        Returns
        -------
        pandas.DataFrame
            Columns ``kind`` ("word", "common" or "residual"), ``word`` (None in the last two rows),
            ``contribution``, whose sum is the cosine, ``strength1`` and ``strength2``.
        """
        return data_frame(
            {
                "kind": ["word"] * len(self.words) + ["common", "residual"],
                "word": np.append(self.words, [None, None]),
                "contribution": np.append(self.contribution, [self.common, self.residual]),
                "strength1": np.append(self.strength1, [np.nan, np.nan]),
                "strength2": np.append(self.strength2, [np.nan, np.nan]),
            }
        )

    def __repr__(self) -> str:
        terms = list(zip(self.contribution[:_N_REPR], self.words[:_N_REPR], strict=True))
        others = self.contribution[_N_REPR:]
        if len(others):
            terms.append((others.sum(), f"in {len(others)} more words"))
        text = f"{self.common:.2f} common"
        for value, name in [*terms, (self.residual, "residual")]:
            text += f" {'-' if value < 0 else '+'} {abs(value):.2f} {name}"
        return f"SimilarityExplanation(cosine {self.cosine:.2f} = {text})"


def explain_similarity(
    model: FLiPExtractor, x1: Any, x2: Any, *, threshold: float = 0.05
) -> SimilarityExplanation:
    """Explain the cosine of two embeddings by the contributions of their words.

    The pattern p_j = B^+ a_j of word j is what the word adds to an embedding (B^+ is the
    pseudo-inverse). Each embedding is the sum of the mean, words, and a remainder: with s_ij >= 0,

        x_i = mu + v_i + e_i,   v_i = sum_j s_ij p_j,
        x1 . x2 = [mu . x1 + mu . x2 - mu . mu]                 common to all sentences
                + sum_j sum_k s_1j s_2k p_j . p_k               words, pair by pair
                + [v1 . e2 + e1 . v2 + e1 . e2]                 residual

    and the sum divided by |x1| |x2| is the cosine. Each word of a pair gets half of the pair's
    contribution. The words of an embedding are selected by a non-negative lasso over the whole vocabulary,

        min_{s >= 0} |x_i - mu - sum_j s_j p_j|^2 + 2 t_i sum_j s_j,
        t_i = threshold * max_j p_j . (x_i - mu),

    and their coefficients s >= 0 are computed by least squares over the selected words, without the
    penalty.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted model.
    x1, x2 : array-like of shape (d,) or (1, d)
        Two embeddings, with the same normalization as in training: the mean is subtracted, so the
        contributions (not the cosine) depend on the length.
    threshold : float, default=0.05
        Strength of the lasso penalty relative to the smallest one that selects no word, in [0, 1). A higher
        threshold selects fewer words and leaves a larger residual.

    Returns
    -------
    SimilarityExplanation
        Exchanging x1 and x2 gives the same contributions.

    Raises
    ------
    ValueError
        If an embedding is zero, not one row, or does not match the model; if it is so much shorter than the
        mean embedding that rounding errors exceed the cosine; if ``threshold`` is out of range, or the
        model is not a FLiPExtractor.

    Notes
    -----
    The direction B^T a_j scores the word in an embedding; the pattern is what the word adds to it. See
    Haufe et al. (2014), "On the interpretation of weight vectors of linear models in multivariate
    neuroimaging", and docs/diagnostics.md for a comparison.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import explain_similarity
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 5))
    >>> X = Y @ rng.normal(size=(5, 12))
    >>> flip = FLiPExtractor(rank=5, vocabulary=["red", "green", "blue", "dog", "cat"],
    ...                      max_iter=200, random_state=0).fit(X, Y)
    >>> green_dog, red_dog = np.array([[0, 1, 0, 1, 0], [1, 0, 0, 1, 0]]) @ np.linalg.lstsq(Y, X)[0]
    >>> result = explain_similarity(flip, green_dog, red_dog)
    >>> str(result.words[0])
    'dog'
    >>> bool(np.isclose(result.common + result.contribution.sum() + result.residual, result.cosine))
    True
    """
    model = check_model(model)
    threshold = check_number("threshold", threshold, 0, 1, open_high=True)
    patterns, axes, unit = _patterns(model)
    x = [_one_row(model, x1, "x1") / unit, _one_row(model, x2, "x2") / unit]
    mean = model.embedding_mean_.astype(np.float64) / unit
    c = [row - mean for row in x]
    # One row at a time, so that exchanging x1 and x2 gives the same bits.
    s1, s2 = (_strengths(patterns, axes @ centred, threshold) for centred in c)
    columns = np.flatnonzero((s1 > 0) | (s2 > 0))
    p = patterns[columns].astype(np.float64)
    s1, s2 = s1[columns], s2[columns]
    scale = float(np.linalg.norm(x[0]) * np.linalg.norm(x[1]))
    parts = s1[:, None] * (p @ p.T) * s2 / scale
    v1, v2 = (s @ p @ axes for s in (s1, s2))
    contribution = (parts.sum(axis=1) + parts.sum(axis=0)) / 2
    order = np.argsort(-np.abs(contribution), kind="stable")
    cosine = float(x[0] @ x[1]) / scale
    common = float(mean @ x[0] + mean @ x[1] - mean @ mean) / scale
    residual = float(v1 @ (c[1] - v2) + (c[0] - v1) @ c[1]) / scale
    if not abs(common + contribution.sum() + residual - cosine) <= _MAX_ROUNDING:
        lengths = [f"{np.linalg.norm(row) * unit:.3g}" for row in (*x, mean)]
        raise ValueError(
            f"x1 and x2 have length {lengths[0]} and {lengths[1]}, the mean embedding has {lengths[2]}: the "
            "contributions are so large that rounding errors exceed the cosine; pass embeddings with the "
            "same normalization as in training."
        )
    return SimilarityExplanation(
        cosine=cosine,
        common=common,
        residual=residual,
        words=model.vocabulary_[columns[order]],
        contribution=contribution[order],
        strength1=s1[order],
        strength2=s2[order],
        parts=parts[np.ix_(order, order)],
    )


def _one_row(model: FLiPExtractor, x: Any, name: str) -> np.ndarray:
    """Check one embedding that is not zero; (d,) in float64."""
    if not hasattr(x, "ndim") or hasattr(x, "to_frame"):  # a list, or a row of a DataFrame
        x = np.asarray(x)
    if x.ndim == 1:
        x = x.reshape(1, -1)
    rows = as_numpy(scoring.fitted_input(model, x))
    if len(rows) != 1:
        raise ValueError(f"{name} has {len(rows)} rows; pass one embedding, of shape (d,) or (1, d).")
    row: np.ndarray = rows[0].astype(np.float64)
    if not row.any():
        raise ValueError(f"{name} is zero, so it has no cosine; pass an embedding other than zero.")
    return row


def _patterns(model: FLiPExtractor) -> tuple[np.ndarray, np.ndarray, float]:
    """The patterns p_j = B^+ a_j as coordinates (V, k) along k <= r orthonormal axes (k, d), and their unit.

    The coordinates need less memory than patterns of shape (V, d). The unit keeps their squares in the range
    of float32 for embeddings of any scale; it is a power of two, so that it rounds nothing.
    """
    projection = model.projection_
    u, s, axes = np.linalg.svd(projection.astype(np.float64), full_matrices=False)
    is_nonzero = s > s.max(initial=0) * max(projection.shape) * np.finfo(projection.dtype).eps
    to_axes = u[:, is_nonzero] / s[is_nonzero]
    unit = float(np.exp2(np.frexp(np.abs(to_axes).max(initial=0))[1]))
    to_axes = (to_axes / unit).astype(projection.dtype)
    return np.ascontiguousarray(model.word_embeddings_ @ to_axes), axes[is_nonzero], unit


def _strengths(patterns: np.ndarray, target: np.ndarray, threshold: float) -> np.ndarray:
    """Coefficients (V,) of the words in a target (k,): selected by the lasso, then least squares."""
    strengths = np.zeros(len(patterns))
    best = float((patterns @ target.astype(patterns.dtype)).max(initial=0))
    if best <= 0:
        return strengths
    scaled = (target / best).astype(patterns.dtype)
    columns = np.sort(_lasso(patterns, scaled, 2 * threshold)[0])
    if len(columns):
        used, weights = _lasso(patterns[columns].astype(np.float64), target, 0.0)
        strengths[columns[used]] = weights
    return strengths


def _lasso(patterns: np.ndarray, target: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the patterns with a positive coefficient in one target, and the coefficients."""
    result = nonnegative_lasso(as_shared_tensor(patterns), as_shared_tensor(target[None]), penalty)
    indices, weights = result.indices[0].numpy(), result.weights[0].numpy()
    return indices[indices >= 0], weights[indices >= 0]

"""Why two vectors match: the words that two embeddings share, and what each carries of their cosine."""

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
from flip_sklearn.parameters import check_integer, check_number

_WORDS_SHOWN = 5


@dataclass(frozen=True, eq=False)
class SimilarityExplanation:
    """Result of :func:`explain_similarity`, over the m words that make up the two embeddings.

    ``common + contribution.sum() + residual`` is ``cosine``, and ``parts`` adds up to the contributions.

    Attributes
    ----------
    cosine : float
        Of the two embeddings.
    common : float
        What all sentences share: the part of the mean embedding.
    residual : float
        What no word carries.
    words : ndarray of shape (m,) of str
        Words of either embedding, largest contribution (in size) first.
    contribution : ndarray of shape (m,)
        What each word carries of the cosine; negative where it holds the two apart.
    strength1, strength2 : ndarray of shape (m,)
        How much of each word is in each embedding, >= 0; 0 where it is not in it.
    parts : ndarray of shape (m, m)
        What each word of the first embedding (rows) carries with each word of the second (columns).
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
        """The pairs of words that carry most, such as "dog" in one and "puppy" in the other.

        Parameters
        ----------
        top_k : int, default=10
            Pairs, >= 1; fewer where there are fewer.

        Returns
        -------
        list of (str, str, float)
            Word of the first embedding, word of the second, and their part of the cosine, largest first
            in size.
        """
        top_k = check_integer("top_k", top_k, 1)
        flat = self.parts.ravel()
        order = np.argsort(-np.abs(flat), kind="stable")[:top_k]
        order = order[flat[order] != 0]
        first, second = np.unravel_index(order, self.parts.shape)
        return list(zip(self.words[first], self.words[second], flat[order].tolist(), strict=True))

    def to_frame(self) -> Any:
        """One row for each word, then the common part and the residual: the cosine, part by part.

        Returns
        -------
        pandas.DataFrame
            Columns ``kind`` ("word", "common" or "residual"), ``word`` (None in the last two rows),
            ``contribution``, which adds up to the cosine, ``strength1`` and ``strength2``.
        """
        m = len(self.words)
        word = np.append(self.words, [None, None])
        return data_frame(
            {
                "kind": ["word"] * m + ["common", "residual"],
                "word": word,
                "contribution": np.append(self.contribution, [self.common, self.residual]),
                "strength1": np.append(self.strength1, [np.nan, np.nan]),
                "strength2": np.append(self.strength2, [np.nan, np.nan]),
            }
        )

    def __repr__(self) -> str:
        shown = [
            (value, word)
            for word, value in zip(
                self.words[:_WORDS_SHOWN], self.contribution[:_WORDS_SHOWN], strict=True
            )
        ]
        left = self.contribution[_WORDS_SHOWN:]
        if len(left):
            shown.append((left.sum(), f"in {len(left)} more words"))
        terms = [(self.common, "common"), *shown, (self.residual, "residual")]
        text = f"{terms[0][0]:.2f} {terms[0][1]}"
        for value, name in terms[1:]:
            text += f" {'-' if value < 0 else '+'} {abs(value):.2f} {name}"
        return f"SimilarityExplanation(cosine {self.cosine:.2f} = {text})"


def explain_similarity(
    model: FLiPExtractor, x1: Any, x2: Any, *, threshold: float = 0.05
) -> SimilarityExplanation:
    """Split the cosine of two embeddings among the words that the model finds in them.

    The pattern p_j = B^+ a_j of word j is what the word adds to an embedding (B^+ is the
    pseudo-inverse). Each embedding is the mean, some words, and a rest: with s_ij >= 0,

        x_i = mu + v_i + e_i,   v_i = sum_j s_ij p_j,
        x1 . x2 = [mu . x1 + mu . x2 - mu . mu]                 common to all sentences
                + sum_j sum_k s_1j s_2k p_j . p_k               words, pair by pair
                + [v1 . e2 + e1 . v2 + e1 . e2]                 residual

    and all of it over |x1| |x2| is the cosine. A pair's part goes half to each of its words. Which words
    an embedding has is found by a non-negative lasso over the whole vocabulary,

        min_{s >= 0} |x_i - mu - sum_j s_j p_j|^2 + 2 t_i sum_j s_j,
        t_i = threshold * max_j p_j . (x_i - mu),

    and how much of each by least squares over these, s >= 0, without the penalty.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted.
    x1, x2 : array-like of shape (d,) or (1, d)
        Two embeddings, of the length they had in training: the mean is subtracted, so the parts (not the
        cosine) change with the length.
    threshold : float, default=0.05
        In [0, 1). A word is used while its agreement with what is not yet explained is above this share
        of the best word's agreement with all. Higher: fewer words and a larger residual.

    Returns
    -------
    SimilarityExplanation
        Exchanging x1 and x2 gives the same contributions.

    Raises
    ------
    ValueError
        If an embedding is zero, not one row, or does not fit the model; if ``threshold`` is out of range,
        or the model is no FLiPExtractor.

    Notes
    -----
    The pattern, and not the direction B^T a_j that reads the word, is what a word looks like in an
    embedding: Haufe et al. (2014), "On the interpretation of weight vectors of linear models in
    multivariate neuroimaging". docs/diagnostics.md has the figures.

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
    x = [_one_row(model, value, name) for value, name in ((x1, "x1"), (x2, "x2"))]
    mean = model.embedding_mean_.astype(np.float64)
    patterns, axes = _patterns(model)
    c = [row - mean for row in x]
    # One row at a time: the same bits whichever comes first.
    strengths = [_strengths(patterns, axes @ centred, threshold) for centred in c]
    columns = np.flatnonzero((strengths[0] > 0) | (strengths[1] > 0))
    p = patterns[columns].astype(np.float64)
    s1, s2 = (s[columns] for s in strengths)
    scale = float(np.linalg.norm(x[0]) * np.linalg.norm(x[1]))
    parts = s1[:, None] * (p @ p.T) * s2 / scale
    v1, v2 = (s @ p @ axes for s in (s1, s2))
    contribution = (parts.sum(axis=1) + parts.sum(axis=0)) / 2
    order = np.argsort(-np.abs(contribution), kind="stable")
    return SimilarityExplanation(
        cosine=float(x[0] @ x[1]) / scale,
        common=float(mean @ x[0] + mean @ x[1] - mean @ mean) / scale,
        residual=float(v1 @ (c[1] - v2) + (c[0] - v1) @ c[1]) / scale,
        words=model.vocabulary_[columns[order]],
        contribution=contribution[order],
        strength1=s1[order],
        strength2=s2[order],
        parts=parts[np.ix_(order, order)],
    )


def _one_row(model: FLiPExtractor, x: Any, name: str) -> np.ndarray:
    """An embedding (d,) in float64, not zero."""
    if not hasattr(x, "ndim") or hasattr(x, "to_frame"):  # a list, or a row of a DataFrame
        x = np.asarray(x)
    if x.ndim == 1:
        x = x.reshape(1, -1)
    rows = scoring.fitted_input(model, x)
    if len(rows) != 1:
        raise ValueError(
            f"{name} has {len(rows)} rows; pass one embedding, of shape (d,) or (1, d)."
        )
    row: np.ndarray = rows[0].astype(np.float64)
    if not row.any():
        raise ValueError(f"{name} is zero, so it has no cosine; pass an embedding that is not.")
    return row


def _patterns(model: FLiPExtractor) -> tuple[np.ndarray, np.ndarray]:
    """p_j = B^+ a_j as coordinates (V, k) along k <= r orthonormal axes (k, d): smaller than (V, d)."""
    projection = model.projection_
    u, s, axes = np.linalg.svd(projection.astype(np.float64), full_matrices=False)
    used = s > s.max(initial=0) * max(projection.shape) * np.finfo(projection.dtype).eps
    to_axes = (u[:, used] / s[used]).astype(projection.dtype)
    return np.ascontiguousarray(model.word_embeddings_ @ to_axes), axes[used]


def _strengths(patterns: np.ndarray, target: np.ndarray, threshold: float) -> np.ndarray:
    """How much of every word (V,) is in a target (k,): few words, by the lasso; then least squares."""
    strengths = np.zeros(len(patterns))
    best = float((patterns @ target.astype(patterns.dtype)).max(initial=0))
    if best <= 0:
        return strengths
    scaled = (target / best).astype(patterns.dtype)[None]
    chosen = nonnegative_lasso(
        as_shared_tensor(patterns), as_shared_tensor(scaled), 2 * threshold
    ).indices[0]
    columns = np.sort(chosen[chosen >= 0].numpy())
    if not len(columns):
        return strengths
    refit = nonnegative_lasso(
        as_shared_tensor(patterns[columns].astype(np.float64)), as_shared_tensor(target[None]), 0.0
    )
    kept = refit.indices[0] >= 0
    strengths[columns[refit.indices[0][kept].numpy()]] = refit.weights[0][kept].numpy()
    return strengths

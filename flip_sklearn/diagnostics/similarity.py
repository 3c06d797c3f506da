"""Similarity explanation: the contribution of words to the cosine of two embeddings."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from flip_sklearn.backend.device import as_shared_tensor
from flip_sklearn.backend.sparse_coding.lasso import nonnegative_lasso
from flip_sklearn.diagnostics.inputs import check_model
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import check_integer, check_number, short_repr

# Maximum number of words in the repr.
_N_REPR = 5
# Largest rounding error of the terms' sum; embeddings whose terms are much larger than 1 are refused.
_MAX_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class SimilarityWithout:
    """Result of :meth:`SimilarityExplanation.without`: two embeddings without some words.

    All falls are of the part of the cosine that pairs of words contribute, ``v1 . v2 / (|x1| |x2|)`` with
    the lengths of the original embeddings.

    Attributes
    ----------
    words : tuple of str
        The words whose patterns were taken out, each once.
    contribution : float
        Their contributions: ``(fall_first + fall_second) / 2``, up to rounding.
    fall_first, fall_second : float
        Fall if the patterns are taken out of the first embedding alone, or of the second alone.
    fall_both : float
        Fall if they are taken out of both: ``fall_first + fall_second``, minus the pairs of two of these
        words, which both falls count.
    x1, x2 : ndarray of shape (d,)
        The embeddings without the patterns, x_i - sum_j s_ij p_j over these words.
    cosine : float
        Cosine of ``x1`` and ``x2``, with their new lengths; nan if one of them is zero.
    """

    words: tuple[str, ...]
    contribution: float
    fall_first: float
    fall_second: float
    fall_both: float
    x1: np.ndarray
    x2: np.ndarray
    cosine: float


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
    x1, x2 : ndarray of shape (d,)
        The embeddings.
    patterns : ndarray of shape (m, d)
        Pattern of each word.
    """

    cosine: float
    common: float
    residual: float
    words: np.ndarray
    contribution: np.ndarray
    strength1: np.ndarray
    strength2: np.ndarray
    parts: np.ndarray
    # None in pickles of 0.1.0.
    x1: np.ndarray | None = None
    x2: np.ndarray | None = None
    patterns: np.ndarray | None = None

    def without(self, words: str | Iterable[str]) -> SimilarityWithout:
        """Take the patterns of some words out of the embeddings: what their contributions mean.

        With v_i = sum_j s_ij p_j, the words of embedding i, and S the words taken out::

            fall_first  = sum_{j in S} s_1j p_j . v_2 / (|x1| |x2|)         out of x1 alone
            fall_second = v_1 . sum_{j in S} s_2j p_j / (|x1| |x2|)         out of x2 alone
            fall_both   = fall_first + fall_second - sum_{j, k in S} parts_jk

        and the sum of the contributions of S is (fall_first + fall_second) / 2.

        Parameters
        ----------
        words : str or iterable of str
            Some of ``self.words``.

        Returns
        -------
        SimilarityWithout
            How far the cosine falls, and the embeddings without the patterns.

        Raises
        ------
        ValueError
            If a word is not one of ``self.words``, or the result was pickled by version 0.1.0.

        Notes
        -----
        The cosine of the new embeddings differs from ``cosine - fall_both``, since the patterns also have a
        share in ``common`` and ``residual``, and the lengths change. :func:`erase_words` answers another
        question: it moves the embeddings along the direction B^T a_j that scores the word, just far enough
        that the word has no lift.

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
        >>> without = result.without("dog")
        >>> bool(np.isclose(without.contribution, (without.fall_first + without.fall_second) / 2))
        True
        >>> without.cosine < result.cosine
        True
        """
        names = list(dict.fromkeys([words] if isinstance(words, str) else words))
        row = {word: j for j, word in enumerate(self.words)}
        for name in names:
            if name not in row:
                raise ValueError(
                    f"{short_repr(name)} is not a word of these embeddings; use some of the {len(row)} "
                    "in words."
                )
        if self.x1 is None or self.x2 is None or self.patterns is None:
            raise ValueError("this explanation is of version 0.1.0; call explain_similarity again.")
        chosen = [row[name] for name in names]
        x1, x2 = (
            x - strength[chosen] @ self.patterns[chosen]
            for x, strength in ((self.x1, self.strength1), (self.x2, self.strength2))
        )
        first, second = self.parts[chosen].sum(), self.parts[:, chosen].sum()
        length = np.linalg.norm(x1) * np.linalg.norm(x2)
        return SimilarityWithout(
            words=tuple(names),
            contribution=float(self.contribution[chosen].sum()),
            fall_first=float(first),
            fall_second=float(second),
            fall_both=float(first + second - self.parts[np.ix_(chosen, chosen)].sum()),
            x1=x1,
            x2=x2,
            cosine=float(x1 @ x2 / length) if length > 0 else float("nan"),
        )

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
    pseudo-inverse). Each embedding is the sum of the mean, words, and a remainder: with s_ij >= 0::

        x_i = mu + v_i + e_i,   v_i = sum_j s_ij p_j,
        x1 . x2 = [mu . x1 + mu . x2 - mu . mu]                 common to all sentences
                + sum_j sum_k s_1j s_2k p_j . p_k               words, pair by pair
                + [v1 . e2 + e1 . v2 + e1 . e2]                 residual

    and the sum divided by ``|x1| |x2|`` is the cosine. Each word of a pair gets half of the pair's
    contribution: the contribution of a word is the fall of ``v1 . v2 / (|x1| |x2|)`` when the word's pattern
    is taken out of one of the embeddings, x_i - s_ij p_j, averaged over the two
    (:meth:`SimilarityExplanation.without`). It is not the fall when the pattern is taken out of both, which
    also breaks the pairs with other words, nor when the word is erased (:func:`erase_words`), which moves
    them along the direction B^T a_j, just far enough that the word has no lift.

    The words of an embedding are selected by a non-negative lasso over the whole vocabulary::

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
        Exchanging x1 and x2 gives the same contributions. Its method ``without`` takes words out of the
        embeddings.

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
    neuroimaging", and docs/diagnostics.md for a comparison. A contribution is also the Shapley value of the
    word (Shapley 1953, "A value for n-person games"): its mean fall when the words are taken out of both
    embeddings one after the other, over all orders.

    The singular value decomposition of B is kept until the model is fitted again or deleted.

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
    owner = check_model(model)
    model = scoring.snapshot(owner)
    threshold = check_number("threshold", threshold, 0, 1, open_high=True)
    patterns, axes, unit = _patterns(model, owner)
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
        x1=x[0] * unit,
        x2=x[1] * unit,
        patterns=p[order] @ axes * unit,
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


@dataclass(frozen=True)
class _PseudoInverse:
    """B^+ = axes^T to_axes^T unit, with k <= r orthonormal axes (k, d) and ``to_axes`` (r, k)."""

    projection: np.ndarray  # a copy of the B that it is of
    to_axes: np.ndarray
    axes: np.ndarray
    unit: float

    @classmethod
    def of(cls, projection: np.ndarray) -> _PseudoInverse:
        u, s, axes = np.linalg.svd(projection.astype(np.float64), full_matrices=False)
        is_nonzero = s > s.max(initial=0) * max(projection.shape) * np.finfo(projection.dtype).eps
        to_axes = u[:, is_nonzero] / s[is_nonzero]
        unit = float(np.exp2(np.frexp(np.abs(to_axes).max(initial=0))[1]))
        return cls(projection.copy(), (to_axes / unit).astype(projection.dtype), axes[is_nonzero], unit)

    def is_of(self, projection: np.ndarray) -> bool:
        """Whether B has these values; a refit, or a change in place, gives others."""
        return self.projection.dtype == projection.dtype and np.array_equal(self.projection, projection)


# Beside the models, not in them, so that pickles and copies do not have it.
_pseudo_inverses: WeakKeyDictionary[FLiPExtractor, _PseudoInverse] = WeakKeyDictionary()
_pseudo_inverses_lock = threading.Lock()


def _pseudo_inverse(owner: FLiPExtractor, projection: np.ndarray) -> _PseudoInverse:
    with _pseudo_inverses_lock:
        known = _pseudo_inverses.get(owner)
    if known is None or not known.is_of(projection):
        known = _PseudoInverse.of(projection)
        with _pseudo_inverses_lock:
            _pseudo_inverses[owner] = known
    return known


def _patterns(model: FLiPExtractor, owner: FLiPExtractor) -> tuple[np.ndarray, np.ndarray, float]:
    """The patterns p_j = B^+ a_j as coordinates (V, k) along k <= r orthonormal axes (k, d), and their unit.

    B^+ is kept with ``owner``, the model itself, of which ``model`` may be a snapshot.


    The coordinates need less memory than patterns of shape (V, d). The unit keeps their squares in the range
    of float32 for embeddings of any scale; it is a power of two, so that it rounds nothing.
    """
    inverse = _pseudo_inverse(owner, model.projection_)
    return np.ascontiguousarray(model.word_embeddings_ @ inverse.to_axes), inverse.axes, inverse.unit


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

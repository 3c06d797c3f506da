"""Directions of the embedding space as displacements, which extractors read in words.

A difference delta of two embeddings changes the scores z = b + A B (x - mu) by A B delta; the bias and the
mean drop out. The coefficients w of a linear model are no difference of embeddings: they are a linear form
on the space, and w alone says nothing about which embeddings have a large w . x. With S the covariance of
the embeddings, the least-squares regression of x on the projection w . x has the slope S w / (w^T S w). A
step of one standard deviation of the projection is therefore the displacement

    delta = S w / sqrt(w^T S w),

the pattern of Haufe et al. (2014), "On the interpretation of weight vectors of linear models in multivariate
neuroimaging", NeuroImage 87, in units that do not depend on the scale of w.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from flip_sklearn.backend.device import without_autocast
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.validation import check_embeddings
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import check_bool, check_choice

KINDS = ("difference", "coefficients")
# Largest deviation of a given covariance from symmetry, and its smallest eigenvalue below zero, both relative
# to the largest variance and to the sum of the variances: covariances are also computed in float32.
ROUNDING = 1e-5
# Share of its largest possible length below which B delta is a rounding error.
UNREAD = 1e-8


class DirectionWords(NamedTuple):
    """Words of one direction, best first; (word, score) pairs if scores were asked for.

    Attributes
    ----------
    raised : list of str or of (str, float)
        Words that a step along the direction makes more likely; their scores are above 0.
    lowered : list of str or of (str, float)
        Words that it makes less likely; their scores are below 0.
    """

    raised: list[Any]
    lowered: list[Any]


class DirectionsMixin:
    """Methods of FLiPExtractor that read directions of the embedding space."""

    def read_directions(
        self,
        directions: Any,
        *,
        kind: str = "difference",
        covariance: Any = None,
        top_k: int = 10,
        return_scores: bool = False,
    ) -> list[DirectionWords]:
        """Read the words that directions of the embedding space raise and lower.

        A difference delta of embeddings changes the scores of the words by A B delta, for every embedding
        that it is added to. The coefficients w of a linear model are read as A B S w / sqrt(w^T S w), with S
        the covariance of the embeddings: the change of the scores that goes with one standard deviation of
        the projection w . x, the pattern of Haufe et al. (2014). Read as a difference, they would name words
        that tell apart what the coefficients cancel (docs/directions.md).

        Parameters
        ----------
        directions : array-like of shape (m, d) or (d,)
            Directions that are not zero, in the coordinates of the embeddings of ``fit``.
        kind : {"difference", "coefficients"}, default="difference"
            ``"difference"`` for vectors that are added to embeddings: differences of means, cluster
            centroids minus ``embedding_mean_``, principal axes, steering vectors, decoder rows of a sparse
            autoencoder. ``"coefficients"`` for vectors that embeddings are multiplied with: ``coef_`` of
            linear models (:func:`~flip_sklearn.diagnostics.explain_estimator` finds them in a pipeline),
            encoder rows of a sparse autoencoder.
        covariance : array-like of shape (d, d), default=None
            S, used for coefficients only; ``embedding_covariance_`` if None.
        top_k : int, default=10
            Maximum number of words on each side, >= 1. Words whose score is zero are on no side.
        return_scores : bool, default=False
            Whether to return (word, score) pairs.

        Returns
        -------
        list of m DirectionWords
            For each direction a named tuple ``(raised, lowered)`` of lists of words, best first. Scores are
            in nats for one addition of the difference, or for one standard deviation of the projection; they
            are > 0 for words that are raised and < 0 for words that are lowered. Words that training never
            saw are in no list.

        Raises
        ------
        ValueError
            If a direction is zero, not finite, of another dimension, or constant over the embeddings; if
            the covariance is missing, of another shape, not finite, not symmetric, or has negative
            eigenvalues.

        References
        ----------
        Haufe et al. (2014), "On the interpretation of weight vectors of linear models in multivariate
        neuroimaging", NeuroImage 87, 96-110.

        Examples
        --------
        >>> import numpy as np
        >>> from flip_sklearn import FLiPExtractor
        >>> rng = np.random.default_rng(0)
        >>> Y = rng.poisson(0.3, size=(400, 5))
        >>> X = Y @ rng.normal(size=(5, 12))
        >>> flip = FLiPExtractor(rank=5, vocabulary=["red", "green", "blue", "dog", "cat"],
        ...                      max_iter=200, random_state=0).fit(X, Y)
        >>> has_dog = Y[:, 3] > 0
        >>> words = flip.read_directions(X[has_dog].mean(axis=0) - X[~has_dog].mean(axis=0))[0]
        >>> words.raised[0]
        'dog'
        >>> coefficients = np.linalg.lstsq(X - X.mean(axis=0), has_dog - has_dog.mean(), rcond=None)[0]
        >>> flip.read_directions(coefficients, kind="coefficients", top_k=1)[0].raised
        ['dog']
        """
        model = scoring.snapshot(self)
        rows = displacements(model, directions, kind, covariance)
        return read_displacements(model, rows, top_k, return_scores)

    @property
    def embedding_covariance_(self) -> np.ndarray:
        """Weighted covariance (d, d) of the training rows."""
        return fitted_covariance(self)


def fitted_covariance(model: Any) -> np.ndarray:
    """The covariance (d, d) of the rows of the fit, exactly symmetric, in float64.

    In float32 its rounding errors would exceed the variance of directions that hardly vary, where the
    coefficients of models without regularization are large.

    Raises
    ------
    AttributeError
        If the model is not fitted, or was stored without it.
    """
    moments = getattr(model, "_moments", None)
    if moments is not None:
        covariance = moments.scatter / max(moments.weight, np.finfo(float).tiny)
        return np.asarray((covariance + covariance.T) / 2)
    triangle = getattr(model, "_covariance", None)  # of a stored model
    if triangle is None:
        raise AttributeError("the model has no embedding_covariance_")
    d = model.n_features_in_
    covariance = np.zeros((d, d))
    covariance[np.tril_indices(d)] = triangle
    return np.asarray(covariance + np.tril(covariance, -1).T)


def lower_triangle(covariance: np.ndarray) -> np.ndarray:
    """The half of a covariance that a stored model holds, row by row: d (d + 1) / 2 numbers."""
    return np.asarray(covariance[np.tril_indices(len(covariance))])


def displacements(model: Any, directions: Any, kind: Any, covariance: Any) -> np.ndarray:
    """Directions of a fitted model, checked, as displacements (m, d) in float64."""
    kind = check_choice("kind", kind, KINDS)
    rows = check_directions(model, directions)
    if kind == "difference":
        return rows
    return to_patterns(rows, choose_covariance(model, covariance))


def check_directions(model: Any, directions: Any) -> np.ndarray:
    """Directions (m, d), or one of shape (d,), as float64 rows that are not zero."""
    if not hasattr(directions, "columns"):
        # Centroids and coefficients are arrays also where the embeddings were frames.
        model = scoring.snapshot(model)
        model.__dict__.pop("feature_names_in_", None)
    try:
        X = check_embeddings(model, _as_matrix(directions), reset=False)[0]
    except ValueError as error:
        raise ValueError(f"directions, called X here, cannot be used: {error}") from error
    rows: np.ndarray = as_numpy(X).astype(np.float64)
    is_zero = ~rows.any(axis=1)
    if is_zero.any():
        raise ValueError(
            f"direction {int(np.argmax(is_zero))} of {len(rows)} is zero, so it raises and lowers no word; "
            "leave it out."
        )
    return rows


def _as_matrix(directions: Any) -> Any:
    """One direction as a matrix of one row; anything else unchanged."""
    if isinstance(directions, list | tuple):
        is_one = bool(len(directions)) and not isinstance(directions[0], str) and np.ndim(directions[0]) == 0
        return [directions] if is_one else directions
    if len(getattr(directions, "shape", ())) == 1:
        array = np.asarray(as_numpy(directions))
        if array.dtype.kind in "buif":
            return array[None]
    return directions


def choose_covariance(model: Any, covariance: Any) -> np.ndarray:
    """The given covariance, checked, or that of the model if None; float64."""
    if covariance is None:
        try:
            return np.asarray(model.embedding_covariance_)
        except AttributeError:
            raise ValueError(
                "covariance=None, and the model has no embedding_covariance_: it was trained by other "
                "code or stored by an earlier version, or is no FLiPExtractor. Pass the (d, d) covariance of "
                "embeddings of the same encoder, covariance=np.cov(X, rowvar=False)."
            ) from None
    return check_covariance(covariance, model.n_features_in_)


def check_covariance(covariance: Any, d: int) -> np.ndarray:
    """A covariance as a symmetric positive semidefinite float64 array (d, d)."""
    try:
        S = np.asarray(as_numpy(covariance), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"covariance is not an array of numbers ({error}); pass a ({d}, {d}) array."
        ) from error
    if S.shape != (d, d):
        raise ValueError(
            f"covariance has shape {S.shape}; pass the ({d}, {d}) covariance of the embeddings, "
            "np.cov(X, rowvar=False)."
        )
    if not np.isfinite(S).all():
        i, j = np.argwhere(~np.isfinite(S))[0]
        raise ValueError(f"covariance[{i}, {j}] = {S[i, j]}; all of its entries must be finite.")
    largest = float(np.abs(S).max())
    asymmetry = float(np.abs(S - S.T).max())
    if asymmetry > ROUNDING * largest:
        raise ValueError(
            f"covariance is not symmetric: two entries differ by {asymmetry:.3g}, with entries up to "
            f"{largest:.3g}. Pass np.cov(X, rowvar=False)."
        )
    S = (S + S.T) / 2
    shifted = S / (largest or 1.0)
    shifted[np.diag_indices(d)] += ROUNDING * max(float(np.trace(shifted)), 1.0)
    try:
        scipy.linalg.cholesky(shifted, overwrite_a=True)
    except np.linalg.LinAlgError:
        smallest = float(scipy.linalg.eigvalsh(S, subset_by_index=[0, 0])[0])
        raise ValueError(
            f"covariance has the negative eigenvalue {smallest:.3g}; that of a covariance is >= 0. Pass "
            "np.cov(X, rowvar=False), not its inverse or a product with other data."
        ) from None
    return S


def to_patterns(coefficients: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Displacements S w / sqrt(w^T S w) of rows of coefficients w."""
    deviations = np.sqrt(covariance.diagonal().clip(min=0))
    # The scale of w cancels; the largest one keeps its squares in the range of float64.
    w = coefficients / np.abs(coefficients).max(axis=1, keepdims=True)
    largest = deviations.max() or 1.0
    unit = covariance / largest**2
    patterns = w @ unit
    variance = np.einsum("ij,ij->i", patterns, w)
    bound = (np.abs(w) @ (deviations / largest)) ** 2  # of the variance, if all coordinates were one
    has_none = ~(variance > covariance.shape[0] * np.finfo(float).eps * bound)
    if has_none.any():
        raise ValueError(
            f"direction {int(np.argmax(has_none))} of {len(w)} is constant over the embeddings: the variance "
            "of their products with these coefficients is zero up to rounding, so it cannot be read as "
            "coefficients. Leave it out, or pass the covariance of embeddings that vary along it."
        )
    return np.asarray(largest * patterns / np.sqrt(variance)[:, None])


@without_autocast()
def read_displacements(model: Any, rows: np.ndarray, top_k: Any, return_scores: Any) -> list[DirectionWords]:
    """Words that displacements raise and lower under a fitted FLiP model, by A B delta."""
    return_scores = check_bool("return_scores", return_scores)
    k = scoring.resolve_top_k(model, top_k)
    B = model.projection_.astype(np.float64)
    # Directions and latents of about one, so that directions of every scale have the same words.
    scale = _power_of_two(rows)
    rows = rows / scale
    h = rows @ B.T
    lengths = np.linalg.norm(B, axis=1) * np.linalg.norm(rows, axis=1)[:, None]
    h[(np.abs(h) <= UNREAD * lengths).all(axis=1)] = 0
    unit = _power_of_two(h)
    r = len(B)
    scorer = scoring.make_scorer(model, use_bias=False)
    scorer = replace(scorer, B=np.eye(r, dtype=B.dtype), mean=np.zeros(r))
    sides = []
    for sign in (1, -1):
        indices, scores = scorer.top(sign * h / unit, k)
        n_words = (scores > 0).sum(axis=1).tolist()
        words = model.vocabulary_[indices].tolist()
        if return_scores:
            words = scoring.with_scores(words, (sign * scores * (unit * scale)).tolist())
        sides.append([row[:n] for row, n in zip(words, n_words, strict=True)])
    return [DirectionWords(*words) for words in zip(*sides, strict=True)]


def _power_of_two(rows: np.ndarray) -> np.ndarray:
    """A power of two near the largest magnitude of each row, (m, 1): dividing by it rounds nothing."""
    exponents = np.frexp(np.abs(rows).max(axis=1, initial=0, keepdims=True))[1]
    return np.asarray(np.exp2(exponents - 1.0))

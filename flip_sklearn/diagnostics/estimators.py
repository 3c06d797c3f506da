"""Explanation of a linear model on embeddings: the words that go with each class or output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import is_classifier
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC, NuSVC
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.estimation.directions import DirectionWords, choose_covariance
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import check_integer, short_repr
from flip_sklearn.splice import SpLiCEExtractor

# Classes and words of each in the repr.
_N_CLASSES, _N_WORDS = 5, 4
# Random embeddings on which a transformer is compared with the linear map read off it, and the largest
# deviation, relative to what the transformer does to embeddings one standard deviation apart: transformers
# also compute in float32.
_N_CONTROLS, _NONLINEAR = 3, 1e-4


@dataclass(frozen=True, eq=False)
class EstimatorExplanation:
    """Result of :func:`explain_estimator`, for c classes or outputs.

    Attributes
    ----------
    classes : ndarray of shape (c,)
        The classes of a classifier; 0 to c - 1 for the outputs of a regressor.
    coefficients : ndarray of shape (c, d)
        Coefficients of each class in the coordinates of the embeddings: the decision value is their product
        with an embedding, plus a constant.
    words : tuple of c DirectionWords
        For each class a named tuple ``(raised, lowered)`` of lists of (word, score) pairs, best first. The
        lists of a class with coefficients that are all zero are empty.
    """

    classes: np.ndarray
    coefficients: np.ndarray
    words: tuple[DirectionWords, ...]

    def __repr__(self) -> str:
        texts = []
        for label, (raised, _) in list(zip(self.classes, self.words, strict=True))[:_N_CLASSES]:
            texts.append(f"{label}: {' '.join(word for word, _ in raised[:_N_WORDS]) or 'no words'}")
        if len(self.classes) > _N_CLASSES:
            texts.append("...")
        return f"EstimatorExplanation({'; '.join(texts)})"

    def to_frame(self) -> Any:
        """One row for each class and word: the words that are raised, then those that are lowered.

        Returns
        -------
        pandas.DataFrame
            Columns ``class``, ``word`` and ``score``, which is negative for words that are lowered.
        """
        rows = [
            (label, word, score)
            for label, sides in zip(self.classes, self.words, strict=True)
            for side in sides
            for word, score in side
        ]
        columns: Any = list(zip(*rows, strict=True)) or [[], [], []]
        return data_frame(dict(zip(("class", "word", "score"), columns, strict=True)))


def explain_estimator(
    estimator: Any, extractor: Any, *, covariance: Any = None, top_k: int = 10
) -> EstimatorExplanation:
    """Read a linear model that was trained on embeddings, in words.

    The decision value of a class is w . t(x) plus a constant, where t are the transformers of a pipeline. If
    these are linear, t(x) = M^T x + c, the model has the coefficients M w in the coordinates of the
    embeddings, and ``extractor.read_directions(M w, kind="coefficients")`` reads them: which words become
    more or less likely as the decision value increases by one standard deviation.

    Parameters
    ----------
    estimator : estimator
        Fitted on embeddings: a model with ``coef_`` (LogisticRegression, RidgeClassifier, LinearSVC,
        LinearDiscriminantAnalysis, Ridge, ...), a Pipeline that ends in one, or a OneVsRestClassifier,
        GridSearchCV or FrozenEstimator of one of these. The transformers of a pipeline must be linear up to
        a constant, such as scalers, PCA, TruncatedSVD and selection of columns. Steps up to a
        SentenceEncoder are left out, since its results are the embeddings.
    extractor : FLiPExtractor or SpLiCEExtractor
        Fitted on embeddings of the same encoder, as they enter the estimator.
    covariance : array-like of shape (d, d), default=None
        Covariance of the embeddings; ``extractor.embedding_covariance_`` if None. SpLiCE has none.
    top_k : int, default=10
        Maximum number of words on each side of a class, >= 1.

    Returns
    -------
    EstimatorExplanation
        Classes, coefficients and words. Of two classes, the first has the negative coefficients of the
        second. Where the classes share a softmax (LogisticRegression and LinearDiscriminantAnalysis of three
        or more classes), the mean over the classes is subtracted from the coefficients, because it does not
        affect the decision.

    Raises
    ------
    ValueError
        If the estimator is not fitted, not linear, or reads vectors of another dimension than the
        extractor; the message names the step. If the covariance is missing or not allowed.

    Notes
    -----
    Transformers are not recognized by their class: the linear map is computed from the results for the mean
    embedding and for one step along each coordinate, and compared with the results for random embeddings.

    Coefficients tell which combination of coordinates separates the classes best, and depend on what else
    varies in the embeddings; the words are those that go with the decision (Haufe et al. 2014, "On the
    interpretation of weight vectors of linear models in multivariate neuroimaging", NeuroImage 87). They are
    associated with the class in embeddings like those of ``extractor``, and need not be its cause.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import explain_estimator
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 5))
    >>> X = Y @ rng.normal(size=(5, 12))
    >>> flip = FLiPExtractor(rank=5, vocabulary=["red", "green", "blue", "dog", "cat"],
    ...                      max_iter=200, random_state=0).fit(X, Y)
    >>> has_dog = np.where(Y[:, 3] > 0, "with a dog", "without")
    >>> classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, has_dog)
    >>> result = explain_estimator(classifier, flip)
    >>> str(result.classes[0]), result.words[0].raised[0][0]
    ('with a dog', 'dog')
    """
    if not isinstance(extractor, FLiPExtractor | SpLiCEExtractor):
        raise ValueError(
            f"extractor is a {type(extractor).__name__}; pass a fitted FLiPExtractor or SpLiCEExtractor."
        )
    check_is_fitted(extractor)
    top_k = check_integer("top_k", top_k, 1)
    covariance = choose_covariance(extractor, covariance)
    probes = _Probes.of(extractor.embedding_mean_, covariance)
    classes, coefficients = _linear_model(estimator, probes)
    is_used = coefficients.any(axis=1)
    words = [DirectionWords([], []) for _ in classes]
    if is_used.any():
        read = extractor.read_directions(
            coefficients[is_used], kind="coefficients", covariance=covariance, top_k=top_k, return_scores=True
        )
        for i, direction in zip(np.flatnonzero(is_used), read, strict=True):
            words[i] = direction
    return EstimatorExplanation(classes, coefficients, tuple(words))


@dataclass(frozen=True)
class _Probes:
    """Embeddings before the first transformer, or what the transformers so far make of them.

    Rows of ``points``: the mean embedding, one step along each of the d coordinates, and random controls,
    which are the combinations ``controls`` of the steps. ``steps`` (d,) are the lengths of the steps.
    """

    points: np.ndarray  # (1 + d + n_controls, features)
    steps: np.ndarray
    controls: np.ndarray  # (n_controls, d)

    @classmethod
    def of(cls, mean: np.ndarray, covariance: np.ndarray) -> _Probes:
        """Probes around a mean, a standard deviation apart."""
        steps = np.sqrt(covariance.diagonal().clip(min=0))
        steps = np.where(steps > 0, steps, steps.max() or 1.0)
        controls = np.random.RandomState(0).normal(size=(_N_CONTROLS, len(steps)))
        center = mean.astype(np.float64)
        points = center + np.concatenate([np.zeros((1, len(steps))), np.diag(steps), controls * steps])
        return cls(points, steps, controls)

    @property
    def differences(self) -> np.ndarray:
        """What the steps along the coordinates have changed (d, features)."""
        return np.asarray(self.points[1 : 1 + len(self.steps)] - self.points[0])

    @property
    def is_linear(self) -> bool:
        """Whether the controls are where the differences say."""
        expected = self.points[0] + self.controls @ self.differences
        scale = np.abs(self.points - self.points[0]).max(axis=0) + 1e-2 * np.abs(self.points[0])
        deviation = np.abs(self.points[1 + len(self.steps) :] - expected)
        return bool((deviation <= _NONLINEAR * scale).all())

    def pull_back(self, w: np.ndarray) -> np.ndarray:
        """Coefficients (c, d) of the embeddings, from coefficients (c, features) of the transformed ones."""
        return np.asarray((self.differences @ w.T).T / self.steps)


def _linear_model(estimator: Any, probes: _Probes) -> tuple[np.ndarray, np.ndarray]:
    """Classes and coefficients (c, d) of a linear model, with the transformers before it."""
    if not hasattr(estimator, "fit"):
        raise ValueError(
            f"estimator is {short_repr(estimator)}; pass a fitted linear model, or a Pipeline of one. Read "
            "coefficients by extractor.read_directions(coefficients, kind='coefficients')."
        )
    check_is_fitted(estimator)
    if isinstance(estimator, Pipeline):
        return _linear_model(estimator.steps[-1][1], _transformed(estimator.steps[:-1], probes))
    if isinstance(estimator, FrozenEstimator):
        return _linear_model(estimator.estimator, probes)
    if hasattr(estimator, "best_estimator_"):
        return _linear_model(estimator.best_estimator_, probes)
    if isinstance(estimator, OneVsRestClassifier):
        # Of a binary classifier, the last coefficients are those of its positive class.
        rows = [_linear_model(binary, probes)[1][-1] for binary in estimator.estimators_]
        classes, coefficients = np.asarray(estimator.classes_), np.stack(rows)
    else:
        classes, coefficients = _classes_and_coefficients(estimator, probes)
    if is_classifier(estimator) and len(classes) == 2 and len(coefficients) == 1:
        coefficients = np.concatenate([-coefficients, coefficients])
    if len(classes) != len(coefficients):
        raise ValueError(
            f"{type(estimator).__name__} has {len(coefficients)} rows of coefficients for {len(classes)} "
            "classes; pass a classifier with one row for each class, such as LinearSVC."
        )
    return classes, coefficients


def _classes_and_coefficients(model: Any, probes: _Probes) -> tuple[np.ndarray, np.ndarray]:
    """Classes of a model with ``coef_``, and its rows as coefficients of the embeddings."""
    name = type(model).__name__
    coef = getattr(model, "coef_", None)  # of SVC only with a linear kernel
    if coef is None:
        remedy = "pass a linear model or a Pipeline that ends in one"
        if hasattr(model, "cluster_centers_"):
            remedy = "read its centroids by read_directions(cluster_centers_ - embedding_mean_)"
        raise ValueError(f"{name} has no coef_, so it is no linear model of the embeddings; {remedy}.")
    w = np.atleast_2d(np.asarray(coef.toarray() if sp.issparse(coef) else coef, dtype=np.float64))
    n_features = probes.points.shape[1]
    if w.ndim != 2 or w.shape[1] != n_features:
        raise ValueError(
            f"{name} has coef_ of shape {np.shape(coef)} for vectors of {n_features} numbers; pass an "
            "estimator that was trained on embeddings of the extractor's encoder."
        )
    if not np.isfinite(w).all():
        raise ValueError(f"{name} has NaN or infinite values in coef_; fit it again.")
    classes = np.asarray(model.classes_) if is_classifier(model) else np.arange(len(w))
    if isinstance(model, SVC | NuSVC) and len(classes) > 2:
        raise ValueError(
            f"{name} compares {len(classes)} classes in pairs, so no coefficients belong to one class; use "
            "LinearSVC or OneVsRestClassifier."
        )
    if _is_softmax(model) and len(w) > 1:
        w = w - w.mean(axis=0)
    return classes, probes.pull_back(w)


def _is_softmax(model: Any) -> bool:
    """Whether the classes of a model with several rows of coefficients are compared by a softmax."""
    if isinstance(model, LogisticRegression):
        return model.solver != "liblinear" and getattr(model, "multi_class", None) != "ovr"
    return isinstance(model, LinearDiscriminantAnalysis)


def _transformed(steps: Iterable[tuple[str, Any]], probes: _Probes) -> _Probes:
    """Probes after the transformers of a pipeline, all of which must be linear."""
    steps = list(steps)
    # Before the last encoder are texts or recordings, after it the embeddings.
    encoders = [i for i, (_, step) in enumerate(steps) if isinstance(step, SentenceEncoder)]
    for name, step in steps[encoders[-1] + 1 if encoders else 0 :]:
        if step is None or isinstance(step, str):  # "passthrough"
            continue
        label = f"step {name!r} ({type(step).__name__})"
        n_features = probes.points.shape[1]
        if getattr(step, "n_features_in_", n_features) != n_features:
            raise ValueError(
                f"{label} was fitted on vectors of {step.n_features_in_} numbers and gets {n_features}; pass "
                "an estimator that was trained on embeddings of the extractor's encoder."
            )
        transformed = replace(probes, points=_transform(step, label, probes.points))
        is_any_function = isinstance(step, FunctionTransformer) and step.func is not None
        if is_any_function or not transformed.is_linear:
            raise ValueError(
                f"{label} is not linear{_reason(step)}, so the model has no coefficients in the coordinates "
                "of the embeddings. Apply it to the embeddings before both models are fitted, or drop it."
            )
        probes = transformed
    return probes


def _reason(step: Any) -> str:
    if isinstance(step, FunctionTransformer):
        return " as far as can be known, because it calls any function"
    if getattr(step, "clip", False) is True:
        return " with clip=True"
    return ""


def _transform(step: Any, label: str, points: np.ndarray) -> np.ndarray:
    """The points after a transformer, as a float64 array."""
    inputs: Any = points
    if hasattr(step, "feature_names_in_"):
        inputs = data_frame(dict(zip(step.feature_names_in_, points.T, strict=True)))
    try:
        result = step.transform(inputs)
        result = np.asarray(result.toarray() if sp.issparse(result) else result, dtype=np.float64)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{label} cannot transform embeddings ({short_repr(str(error), 200)}); pass the part of the "
            "pipeline that reads embeddings, such as pipeline[1:]."
        ) from error
    if result.ndim != 2 or not np.isfinite(result).all():
        raise ValueError(f"{label} returns NaN, infinite values or no vectors for embeddings; fit it again.")
    return result

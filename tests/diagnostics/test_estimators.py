"""explain_estimator: the linear model behind transformers, in the coordinates of the embeddings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from flip_sklearn import FLiPExtractor, SpLiCEExtractor
from flip_sklearn.diagnostics import EstimatorExplanation, explain_estimator
from flip_sklearn.encoders import SentenceEncoder

N, D, V = 400, 12, 6
WORDS = ["red", "green", "blue", "dog", "cat", "tree"]
RNG = np.random.default_rng(0)
Y = RNG.poisson(0.5, size=(N, V))
E = (RNG.normal(size=(V, D)) + RNG.normal(size=D)) * np.geomspace(1, 0.3, V)[:, None]
X = Y @ E + 0.3 * RNG.normal(size=(N, 4)) @ RNG.normal(size=(4, D)) + 0.02 * RNG.normal(size=(N, D))
COUNTS = Y.astype(float)
# Three classes by the colour that a row has most of, and two by whether it has a dog.
COLOURS = np.array(WORDS[:3])[np.argmax(Y[:, :3] + 0.1 * RNG.random((N, 3)), axis=1)]
HAS_DOG = np.where(Y[:, 3] > 0, "yes", "no")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def flip() -> FLiPExtractor:
    return FLiPExtractor(vocabulary=WORDS, max_iter=60, tol=0.01, random_state=0).fit(X, Y)


def raised(result: EstimatorExplanation) -> list[str]:
    """The word that each class raises most."""
    return [words.raised[0][0] for words in result.words]


# --- Linear models and their classes ---------------------------------------------------------

CLASSIFIERS = {
    "logistic": LogisticRegression(C=100, max_iter=500),
    "ridge": RidgeClassifier(),
    "svm": LinearSVC(random_state=0),
    "discriminant": LinearDiscriminantAnalysis(),
    "sgd": SGDClassifier(random_state=0),
    "one against the rest": OneVsRestClassifier(LogisticRegression(C=100)),
    "pipelines against the rest": OneVsRestClassifier(make_pipeline(StandardScaler(), LinearSVC())),
    "search": GridSearchCV(
        make_pipeline(TruncatedSVD(10), LogisticRegression()), {"truncatedsvd__n_iter": [5]}, cv=2
    ),
    "nested": make_pipeline(
        make_pipeline(StandardScaler(), PCA()), "passthrough", make_pipeline(LinearSVC())
    ),
    "frozen": FrozenEstimator(make_pipeline(RobustScaler(), RidgeClassifier()).fit(X, COLOURS)),
    "selection": make_pipeline(
        SelectKBest(k=D - 1).set_output(transform="pandas"), LogisticRegression(C=100)
    ),
}


def fit(model: Any, target: np.ndarray, rows: Any = X) -> Any:
    return model if isinstance(model, FrozenEstimator) else clone(model).fit(rows, target)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_are_read(flip: FLiPExtractor, name: str) -> None:
    """The coefficients give the decision values, up to constants, and the words are the planted ones."""
    model = fit(CLASSIFIERS[name], COLOURS)
    result = explain_estimator(model, flip)
    assert result.classes.tolist() == sorted(WORDS[:3])
    assert raised(result) == sorted(WORDS[:3])
    values = model.decision_function(X) - X @ result.coefficients.T
    values -= values.mean(axis=1, keepdims=True)  # the same for all classes
    np.testing.assert_allclose(values - values.mean(axis=0), 0, atol=1e-4 * np.abs(result.coefficients).max())


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "frozen"])
def test_two_classes_are_opposite(flip: FLiPExtractor, name: str) -> None:
    model = fit(CLASSIFIERS[name], HAS_DOG)
    result = explain_estimator(model, flip)
    assert result.classes.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(result.coefficients[0], -result.coefficients[1])
    assert result.words[1].raised[0][0] == result.words[0].lowered[0][0] == "dog"
    values = model.decision_function(X) - X @ result.coefficients[1]
    np.testing.assert_allclose(values - values.mean(), 0, atol=1e-4 * np.abs(result.coefficients).max())


def test_a_softmax_has_the_mean_of_the_classes_subtracted(flip: FLiPExtractor) -> None:
    """It decides nothing; classifiers of one class against the rest are read as they are."""
    softmax = LogisticRegression().fit(X, COLOURS)
    expected = explain_estimator(softmax, flip).coefficients
    np.testing.assert_allclose(expected.sum(axis=0), 0, atol=1e-12)
    softmax.coef_ = softmax.coef_ + RNG.normal(size=D)
    np.testing.assert_allclose(explain_estimator(softmax, flip).coefficients, expected, atol=1e-12)
    ridge = RidgeClassifier().fit(X, COLOURS)
    np.testing.assert_allclose(explain_estimator(ridge, flip).coefficients, ridge.coef_, atol=1e-12)


def test_outputs_of_regressors_and_labels_are_read(flip: FLiPExtractor) -> None:
    result = explain_estimator(Ridge(1e-3).fit(X, COUNTS), flip)
    assert result.classes.tolist() == list(range(V))
    assert raised(result) == WORDS
    assert raised(explain_estimator(LinearRegression().fit(X, COUNTS[:, 4]), flip)) == ["cat"]
    labels = (Y > 0).astype(int)
    for model in (RidgeClassifier(), OneVsRestClassifier(LinearSVC())):
        assert raised(explain_estimator(model.fit(X, labels), flip)) == WORDS


def test_words_are_those_of_read_directions(flip: FLiPExtractor) -> None:
    model = LogisticRegression().fit(X, COLOURS)
    result = explain_estimator(model, flip, top_k=2)
    w = model.coef_ - model.coef_.mean(axis=0)
    assert list(result.words) == flip.read_directions(w, kind="coefficients", top_k=2, return_scores=True)
    S = np.eye(D)
    result = explain_estimator(model, flip, covariance=S)
    expected = flip.read_directions(w, kind="coefficients", covariance=S, return_scores=True)
    assert list(result.words) == expected
    frame = result.to_frame()
    assert list(frame.columns) == ["class", "word", "score"]
    assert len(frame) == sum(len(side) for words in result.words for side in words)
    assert repr(explain_estimator(model, flip)).startswith("EstimatorExplanation(blue: blue")


def test_an_unused_class_has_no_words(flip: FLiPExtractor) -> None:
    model = LinearRegression().fit(X, COUNTS[:, :2])
    model.coef_[0] = 0
    result = explain_estimator(model, flip)
    assert result.words[0] == ([], [])
    assert result.words[1].raised[0][0] == "green"
    assert "0: no words; 1: green" in repr(result)
    model.coef_[:] = 0
    assert len(explain_estimator(model, flip).to_frame()) == 0


# --- Transformers ----------------------------------------------------------------------------

LINEAR = [
    StandardScaler(),
    StandardScaler(with_std=False),
    PCA(),
    PCA(whiten=True),
    MinMaxScaler(),
    MaxAbsScaler(),
    RobustScaler(),
    FunctionTransformer(),
    make_pipeline(StandardScaler(), PCA(whiten=True), RobustScaler()),
    ColumnTransformer([("a", StandardScaler(), slice(0, 5)), ("b", PCA(), slice(5, D))]),
]


@pytest.mark.parametrize("transformer", LINEAR, ids=lambda t: type(t).__name__)
def test_linear_transformers_change_nothing(flip: FLiPExtractor, transformer: Any) -> None:
    """Least squares has the same decision values in all coordinates, so the words are the same."""
    expected = explain_estimator(LinearRegression().fit(X, COUNTS), flip)
    found = explain_estimator(make_pipeline(clone(transformer), LinearRegression()).fit(X, COUNTS), flip)
    scale = np.abs(expected.coefficients).max()
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-9 * scale)
    for one, other in zip(found.words, expected.words, strict=True):
        assert [word for word, _ in one.raised] == [word for word, _ in other.raised]
        np.testing.assert_allclose(
            [score for _, score in one.raised], [score for _, score in other.raised], rtol=1e-4, atol=1e-5
        )


def test_models_of_frames_and_of_float32(flip: FLiPExtractor) -> None:
    """Columns by name; transformers that compute in float32."""
    columns = [f"c{i}" for i in range(D)]
    scaler = ColumnTransformer([("all", StandardScaler(), columns)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make_pipeline(scaler, Ridge()).fit(pd.DataFrame(X, columns=columns), COUNTS)
        assert raised(explain_estimator(model, flip)) == WORDS

        class Float32(StandardScaler):
            def transform(self, X: Any, copy: bool | None = None) -> Any:
                return super().transform(X.astype(np.float32), copy)

        model = make_pipeline(Float32(), Ridge()).fit(X.astype(np.float32) + 3, COUNTS)
        assert raised(explain_estimator(model, flip)) == WORDS


def test_steps_up_to_an_encoder_are_left_out(flip: FLiPExtractor) -> None:
    texts = [str(i) for i in range(N)]
    encoder = SentenceEncoder(lambda batch: X[[int(text) for text in batch]])
    clean = FunctionTransformer(lambda batch: [text.strip() for text in batch])
    model = make_pipeline(clean, encoder, StandardScaler(), LogisticRegression(C=100)).fit(texts, COLOURS)
    assert raised(explain_estimator(model, flip)) == sorted(WORDS[:3])


NOT_LINEAR: dict[str, tuple[Any, str]] = {
    "Normalizer": (Normalizer(), "is not linear"),
    "function": (FunctionTransformer(np.tanh), "FunctionTransformer.* is not linear as far as can be known"),
    "linear function": (FunctionTransformer(np.asarray), "it calls any function"),
    "clip": (MinMaxScaler(clip=True), "is not linear with clip=True"),
    "quantiles": (QuantileTransformer(n_quantiles=50), "is not linear"),
    "powers": (PolynomialFeatures(), "is not linear"),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_other_transformers_are_refused_by_name(flip: FLiPExtractor, name: str) -> None:
    transformer, message = NOT_LINEAR[name]
    model = make_pipeline(StandardScaler(), clone(transformer), RidgeClassifier()).fit(X, HAS_DOG)
    with pytest.raises(ValueError, match=rf"step '{type(transformer).__name__.lower()}'.*{message}"):
        explain_estimator(model, flip)
    with pytest.raises(ValueError, match=message):  # also in a pipeline of a pipeline
        explain_estimator(make_pipeline(MaxAbsScaler(), model).fit(X, HAS_DOG), flip)


# --- Bad input -------------------------------------------------------------------------------

BAD: dict[str, tuple[Any, str]] = {
    "no estimator": (np.ones(D), "estimator is array.*read_directions"),
    "tree": (DecisionTreeClassifier(max_depth=2).fit(X, HAS_DOG), "DecisionTreeClassifier has no coef_"),
    "kernel": (SVC().fit(X, HAS_DOG), "SVC has no coef_"),
    "pairs": (SVC(kernel="linear").fit(X, COLOURS), "compares 3 classes in pairs"),
    "clusters": (KMeans(2, n_init=1).fit(X), "no coef_.*cluster_centers_ - embedding_mean_"),
    "transformer": (StandardScaler().fit(X), "StandardScaler has no coef_"),
    "dimension": (
        RidgeClassifier().fit(X[:, 1:], HAS_DOG),
        rf"coef_ of shape \({D - 1},\) .* of {D} numbers",
    ),
    "dimension of a step": (
        make_pipeline(StandardScaler(), RidgeClassifier()).fit(X[:, 1:], HAS_DOG),
        rf"step 'standardscaler' \(StandardScaler\) was fitted on vectors of {D - 1} numbers and gets {D}",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_estimators_are_refused(flip: FLiPExtractor, name: str) -> None:
    estimator, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        explain_estimator(estimator, flip)


def test_other_bad_arguments_are_refused(flip: FLiPExtractor) -> None:
    model = RidgeClassifier().fit(X, HAS_DOG)
    for unfitted in ((RidgeClassifier(), flip), (model, FLiPExtractor())):
        with pytest.raises(NotFittedError):
            explain_estimator(*unfitted)
    with pytest.raises(
        ValueError, match="extractor is a RidgeClassifier; pass a fitted FLiPExtractor or SpLiCE"
    ):
        explain_estimator(model, model)
    with pytest.raises(ValueError, match="top_k=0"):
        explain_estimator(model, flip, top_k=0)
    with pytest.raises(ValueError, match=r"covariance has shape \(2, 2\)"):
        explain_estimator(model, flip, covariance=np.eye(2))
    broken = RidgeClassifier().fit(X, HAS_DOG)
    broken.coef_[0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in coef_"):
        explain_estimator(broken, flip)


def test_splice_needs_a_covariance() -> None:
    splice = SpLiCEExtractor(E, vocabulary=WORDS, l1_strength=0.05).fit(X)
    model = Ridge(1e-3).fit(X, COUNTS)
    with pytest.raises(ValueError, match=r"covariance=np\.cov"):
        explain_estimator(model, splice)
    assert len(explain_estimator(model, splice, covariance=np.cov(X, rowvar=False)).words) == V

"""stack_views: its result, and that a fit on it minimizes equation 4 of the paper.

J4(A, b) = alpha NLL(X1) + (1 - alpha) NLL(X2),    NLL in nats per word, z = b + A (x - mu)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold

from flip_sklearn import FLiPExtractor, keyword_accuracy_scorer, stack_views

N, D, V = 100, 4, 6


# These small problems are stopped before they converge.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def views() -> dict[str, np.ndarray]:
    """A clean view, and a noisier, rotated one that needs another model."""
    return make_views()[0]


def make_views() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.5, size=(N, V))
    vectors = rng.normal(size=(V, D))
    turned = vectors @ np.linalg.qr(rng.normal(size=(D, D)))[0]
    text = Y @ vectors + 0.5 * rng.normal(size=(N, D)) + 1
    speech = Y @ turned + 1.5 * rng.normal(size=(N, D)) - 1
    return {"text": text, "speech": speech}, Y


# --- Stacked arrays --------------------------------------------------------------------------


def test_stacked_arrays(views: dict[str, np.ndarray]) -> None:
    _, Y = make_views()
    groups = np.arange(N) // 2
    stacked = stack_views(views, Y, weights={"speech": 1, "text": 3}, groups=groups)
    np.testing.assert_array_equal(stacked.X, np.r_[views["text"], views["speech"]])
    np.testing.assert_array_equal(stacked.Y.toarray(), np.r_[Y, Y])
    np.testing.assert_array_equal(stacked.sample_weight, np.r_[np.full(N, 0.75), np.full(N, 0.25)])
    np.testing.assert_array_equal(stacked.groups, np.r_[groups, groups])
    np.testing.assert_array_equal(stacked.view, ["text"] * N + ["speech"] * N)
    assert isinstance(stacked.Y, sp.csr_array)
    with pytest.raises(FrozenInstanceError):
        stacked.X = None  # type: ignore[misc]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 6),
    d=st.integers(1, 3),
    n_words=st.integers(1, 4),
    weights=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    kind=st.sampled_from([sp.csr_matrix, sp.csc_array, sp.coo_array, np.asarray, pd.DataFrame]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_any_number_of_views(
    n: int, d: int, n_words: int, weights: list[int], kind: Callable[[Any], Any], dtype: type
) -> None:
    rng = np.random.default_rng(0)
    named = {f"view{i}": rng.normal(size=(n, d)).astype(dtype) for i in range(len(weights))}
    Y = rng.poisson(0.5, size=(n, n_words))
    stacked = stack_views(named, kind(Y), weights=dict(zip(named, weights, strict=True)))
    assert stacked.X.dtype == dtype
    assert stacked.X.shape == (n * len(weights), d)
    for i, (name, x) in enumerate(named.items()):
        rows = stacked.view == name
        np.testing.assert_array_equal(stacked.X[rows], x)
        np.testing.assert_array_equal(stacked.Y.toarray()[rows], Y)
        np.testing.assert_array_equal(stacked.groups[rows], np.arange(n))
        np.testing.assert_allclose(stacked.sample_weight[rows], weights[i] / sum(weights))
    # The weights of a sentence sum to one over its views.
    np.testing.assert_allclose(np.bincount(stacked.groups, stacked.sample_weight), 1)
    equal = stack_views(named, Y).sample_weight
    np.testing.assert_allclose(equal, 1 / len(weights))


def test_inputs_are_copied(views: dict[str, np.ndarray]) -> None:
    _, Y = make_views()
    counts = sp.csr_array(Y)
    before = [a.tobytes() for a in (*views.values(), counts.data, counts.indices, counts.indptr)]
    stacked = stack_views({"text": views["text"]}, counts)
    stacked.X[:], stacked.Y.data[:] = 0, 0
    assert before == [a.tobytes() for a in (*views.values(), counts.data, counts.indices, counts.indptr)]


def test_one_dimensional_Y_is_one_column(views: dict[str, np.ndarray]) -> None:
    _, Y = make_views()
    stacked = stack_views(views, Y[:, 0])
    np.testing.assert_array_equal(stacked.Y.toarray(), np.r_[Y[:, :1], Y[:, :1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_views_may_be_tensors(views: dict[str, np.ndarray], dtype: torch.dtype) -> None:
    _, Y = make_views()
    tensors = {name: torch.tensor(x, dtype=dtype, requires_grad=True) for name, x in views.items()}
    stacked = stack_views(tensors, Y)
    expected = torch.cat(list(tensors.values())).detach().float().numpy()
    np.testing.assert_array_equal(stacked.X.astype(np.float32), expected)


A2 = np.zeros((3, 2))
Y3 = np.ones((3, 4))


@pytest.mark.parametrize("scale", [2.0**-1070, 1e308])
def test_weights_of_any_scale_that_float64_holds(scale: float) -> None:
    views = {"a": np.eye(2), "b": np.eye(2)}
    stacked = stack_views(views, np.eye(2), weights={"a": 1.5 * scale, "b": 0.5 * scale})
    assert stacked.sample_weight.tolist() == [0.75, 0.75, 0.25, 0.25]


@pytest.mark.parametrize(
    ("views", "Y", "options", "parts"),
    [
        ({}, Y3, {}, ["views is empty", "at least one name"]),
        ({"a": A2, "b": A2[:2]}, Y3, {}, ["'b'", "(2, 2)", "'a'", "(3, 2)", "row by row"]),
        ({"a": A2, "b": A2[:, :1]}, Y3, {}, ["'b'", "(3, 1)", "(3, 2)", "one embedding space"]),
        ({"a": A2[0]}, Y3, {}, ["'a'", "1 dimension", "(n, d)"]),
        ({"a": A2}, Y3[:2], {}, ["Y has 2 rows", "views have 3", "one row of counts per sentence"]),
        ({"a": A2}, Y3, {"weights": {"b": 1}}, ["['b']", "['a']", "one weight per view"]),
        ({"a": A2}, Y3, {"weights": {"a": 1, "b": 1}}, ["['a', 'b']", "['a']", "per view"]),
        ({"a": A2}, Y3, {"weights": {}}, ["[]", "['a']", "one weight per view"]),
        ({"a": A2}, Y3, {"weights": {"a": -1}}, ["{'a': -1}", ">= 0", "not all zero"]),
        ({"a": A2}, Y3, {"weights": {"a": 0}}, ["{'a': 0}", "not all zero"]),
        ({"a": A2}, Y3, {"weights": {"a": float("nan")}}, ["nan", "finite"]),
        ({"a": A2}, Y3, {"weights": {"a": float("inf")}}, ["inf", "finite"]),
        ({"a": A2}, Y3, {"weights": {"a": "much"}}, ["weights", "much", "finite"]),
        ({"a": A2}, Y3, {"weights": {"a": None}}, ["weights", "None", "finite"]),
        ({"a": A2}, Y3, {"weights": [1.0]}, ["weights", "[1.0]", "one weight per view"]),
        ({"a": A2}, Y3, {"groups": [0, 1]}, ["groups has shape (2,)", "(3,)"]),
        ([A2, A2], Y3, {}, ["views", "mapping"]),
        ({"a": sp.csr_array(A2)}, Y3, {}, ["'a'", "sparse"]),
    ],
)
def test_errors(views: Any, Y: Any, options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        stack_views(views, Y, **options)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


# --- Equation 4 ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Equation4:
    """The objective of the paper in float64, computed from the two views without stacking."""

    first: np.ndarray
    second: np.ndarray
    Y: np.ndarray
    alpha: float

    def _nll(self, x: np.ndarray, A: np.ndarray, b: np.ndarray) -> tuple[float, Any, Any]:
        log_theta = log_softmax(b + x @ A.T, axis=1)
        words = self.Y.sum()
        residual = (self.Y.sum(axis=1, keepdims=True) * np.exp(log_theta) - self.Y) / words
        return -(self.Y * log_theta).sum() / words, residual.T @ x, residual.sum(axis=0)

    def __call__(self, A: np.ndarray, b: np.ndarray) -> float:
        """J4 of z = b + A x."""
        one, two = self._nll(self.first, A, b)[0], self._nll(self.second, A, b)[0]
        return float(self.alpha * one + (1 - self.alpha) * two)

    def minimum(self) -> float:
        """Minimize with L-BFGS; the problem is convex."""

        def value_and_gradient(p: np.ndarray) -> tuple[float, np.ndarray]:
            A, b = p[: V * D].reshape(V, D), p[V * D :]
            one, two = self._nll(self.first, A, b), self._nll(self.second, A, b)
            pairs = zip(one, two, strict=True)
            value, dA, db = (self.alpha * u + (1 - self.alpha) * v for u, v in pairs)
            return float(value), np.r_[dA.ravel(), db]

        start = np.zeros(V * D + V)
        found = minimize(
            value_and_gradient, start, jac=True, method="L-BFGS-B",
            options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9},
        )  # fmt: skip
        return float(found.fun)


ALPHA = 0.8
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def fitted(views: dict[str, np.ndarray]) -> FLiPExtractor:
    _, Y = make_views()
    stacked = stack_views(views, Y, weights={"text": ALPHA, "speech": 1 - ALPHA})
    model = FLiPExtractor(
        None, l1_strength=0.0, l2_strength=0.0, max_iter=600, tol=0.0, n_iter_no_change=600,
        batch_size=2 * N, learning_rate=0.02, early_stopping=False, precision="float64",
        random_state=0,
    )  # fmt: skip
    return model.fit(stacked.X, stacked.Y, stacked.sample_weight)


def raw_parameters(model: FLiPExtractor) -> tuple[np.ndarray, np.ndarray]:
    """A and b of z = b + A x."""
    A = model.word_embeddings_ @ model.projection_
    return A, model.bias_ - A @ model.embedding_mean_


def test_reported_loss_is_equation_4(views: dict[str, np.ndarray], fitted: FLiPExtractor) -> None:
    _, Y = make_views()
    A, b = raw_parameters(fitted)
    J = Equation4(views["text"], views["speech"], Y, ALPHA)
    assert fitted.history_["loss"][-1] == pytest.approx(J(A, b), abs=1e-6)
    # The same from predict_log_proba, view by view
    by_view = [-(Y * fitted.predict_log_proba(views[name])).sum() / Y.sum() for name in ("text", "speech")]
    assert ALPHA * by_view[0] + (1 - ALPHA) * by_view[1] == pytest.approx(J(A, b), abs=1e-6)
    swapped = Equation4(views["text"], views["speech"], Y, 1 - ALPHA)
    assert abs(fitted.history_["loss"][-1] - swapped(A, b)) > 0.05


def test_stacked_fit_minimizes_equation_4(views: dict[str, np.ndarray], fitted: FLiPExtractor) -> None:
    _, Y = make_views()
    A, b = raw_parameters(fitted)
    J = Equation4(views["text"], views["speech"], Y, ALPHA)
    least = J.minimum()
    assert least - 1e-9 <= J(A, b) <= least + TOLERANCE
    # Negative controls: the parameters are far from optimal for swapped weights, equal weights and either
    # view alone.
    for alpha in (1 - ALPHA, 0.5, 1.0, 0.0):
        other = Equation4(views["text"], views["speech"], Y, alpha)
        assert other(A, b) > other.minimum() + 100 * TOLERANCE


def test_no_small_step_lowers_equation_4(views: dict[str, np.ndarray], fitted: FLiPExtractor) -> None:
    _, Y = make_views()
    A, b = raw_parameters(fitted)
    rng = np.random.default_rng(0)

    def largest_decrease(alpha: float) -> float:
        """The largest decrease of J4 over random steps in A, in b and in both."""
        J = Equation4(views["text"], views["speech"], Y, alpha)
        value, decreases = J(A, b), []
        for size in (0.3, 0.1, 0.03):
            for _ in range(60):
                dA, db = size * rng.normal(size=A.shape), size * rng.normal(size=b.shape)
                stepped = [J(A + dA, b), J(A, b + db), J(A + dA, b + db)]
                decreases += [value - new for new in stepped]
        return max(decreases)

    assert largest_decrease(ALPHA) <= 0
    # Negative control: with swapped weights, steps lower the objective.
    assert largest_decrease(1 - ALPHA) > 100 * TOLERANCE


def test_likelihood_of_a_view_rises_with_its_weight(views: dict[str, np.ndarray]) -> None:
    _, Y = make_views()
    nll = []
    for alpha in (0.0, 0.3, 0.7, 1.0):
        stacked = stack_views(views, Y, weights={"text": alpha, "speech": 1 - alpha})
        model = FLiPExtractor(
            None, l1_strength=0.0, l2_strength=0.0, max_iter=60, tol=0.0, batch_size=2 * N,
            learning_rate=0.5, early_stopping=False, precision="float64", random_state=0,
        ).fit(stacked.X, stacked.Y, stacked.sample_weight)  # fmt: skip
        nll.append(-(Y * model.predict_log_proba(views["text"])).sum())
    assert nll == sorted(nll, reverse=True)
    # A view of weight zero is ignored.
    alone = model.fit(views["text"], Y)
    assert -(Y * alone.predict_log_proba(views["text"])).sum() == pytest.approx(nll[-1], rel=1e-6)


# --- Groups ----------------------------------------------------------------------------------


def test_group_k_fold_keeps_the_views_of_a_sentence_together(views: dict[str, np.ndarray]) -> None:
    _, Y = make_views()
    stacked = stack_views(views, Y)
    for train, test in GroupKFold(4).split(stacked.X, groups=stacked.groups):
        assert not set(stacked.groups[train]) & set(stacked.groups[test])
        assert len(test) == 2 * len(set(stacked.groups[test]))
        assert set(stacked.view[test]) == {"text", "speech"}
    # Negative control: shuffled folds without groups separate the views of sentences.
    train, test = next(KFold(4, shuffle=True, random_state=0).split(stacked.X))
    assert set(stacked.groups[train]) & set(stacked.groups[test])


def test_search_over_stacked_views() -> None:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.1, size=(400, 30))
    text = Y @ rng.normal(size=(30, 20)) + 0.3 * rng.normal(size=(400, 20))
    speech = text + 0.3 * rng.normal(size=text.shape)
    stacked = stack_views({"text": text, "speech": speech}, Y, weights={"text": 0.6, "speech": 0.4})
    model = FLiPExtractor(max_iter=10, batch_size=50, random_state=0)
    search = GridSearchCV(model, {"rank": [1, 15]}, cv=GroupKFold(2), scoring=keyword_accuracy_scorer).fit(
        stacked.X, stacked.Y, groups=stacked.groups, sample_weight=stacked.sample_weight
    )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_ == {"rank": 15}
    one, fifteen = search.cv_results_["mean_test_score"]
    assert fifteen > one + 0.2

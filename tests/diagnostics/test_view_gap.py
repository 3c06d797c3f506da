"""view_gap: planted shifts, rotations, linear maps and noise are found as such; the parts sum to the loss."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.linalg import orthogonal_procrustes
from sklearn.base import BaseEstimator

from flip_sklearn import FLiPExtractor, ViewCenterer
from flip_sklearn.diagnostics import ViewGap, split_sentences, view_alignment, view_gap
from flip_sklearn.diagnostics.inputs import check_sentences
from flip_sklearn.diagnostics.view_gap_maps import PairMaps

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:no vocabulary was given"),
]

N, D, V = 500, 8, 16


class Reader(BaseEstimator):
    """Least squares of the counts on the embeddings: its scores do not depend on affine maps of all rows."""

    def fit(self, X: np.ndarray, Y: Any) -> Reader:
        X, Y = np.asarray(X, dtype=np.float64), Y.toarray()
        self.mean_, self.counts_ = X.mean(axis=0), Y.mean(axis=0)
        self.coef_ = np.linalg.lstsq(X - self.mean_, Y - self.counts_, rcond=None)[0]
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return np.asarray((X - self.mean_) @ self.coef_ + self.counts_)


def make_view(n: int = N, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Y = rng.poisson(0.2, size=(n, V))
    Y[np.arange(n), rng.integers(V, size=n)] += 1
    words = np.random.default_rng(99).normal(size=(V, D))
    return Y @ words + noise * rng.normal(size=(n, D)), Y


def orthogonal(seed: int = 1) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0]


def gap(first: np.ndarray, second: np.ndarray, Y: Any, **settings: Any) -> ViewGap:
    defaults = {"estimator": Reader(), "n_bootstrap": 100, "random_state": 0, "verbose": 0}
    return view_gap({"first": first, "second": second}, Y, **{**defaults, **settings})


def parts(result: ViewGap, pair: int = 0) -> dict[str, float]:
    return dict(zip(result.parts, result.difference.value[pair], strict=True))


# --- What is planted is found ---------------------------------------------------------------


@pytest.mark.parametrize("estimator", [Reader(), FLiPExtractor(max_iter=20), FLiPExtractor(use_bias=False)])
def test_a_shifted_copy_loses_by_shift_alone(estimator: Any) -> None:
    X, Y = make_view()
    result = gap(X, X + 4 * np.random.default_rng(2).normal(size=D), Y, estimator=estimator)
    for pair in (0, 1):
        found = parts(result, pair)
        assert found["shift"] == result.loss.value[pair] > 0.1
        assert found["rotation"] == found["shear"] == found["content"] == 0
    assert result.difference.significant.tolist() == [[True, False, False, False]] * 2


def test_a_rotated_copy_loses_by_rotation_alone() -> None:
    X, Y = make_view()
    result = gap(X - X[:400].mean(axis=0), (X - X[:400].mean(axis=0)) @ orthogonal(), Y,
                 split=split_sentences(X, test=np.arange(400, N)))  # fmt: skip
    found = parts(result)
    assert found["rotation"] == result.loss.value[0] > 0.2
    assert found["shift"] == found["shear"] == found["content"] == result.retraining.value[0] == 0
    assert result.ridge.shape == (2,)


def test_a_stretched_copy_loses_by_shear_alone() -> None:
    """Of white rows and a symmetric positive definite map, the nearest orthogonal map is the identity."""
    X, Y = make_view()
    train = np.arange(400)
    centered = X - X[train].mean(axis=0)
    white = centered @ np.linalg.inv(np.linalg.cholesky(np.cov(centered[train].T, bias=True))).T
    Q = orthogonal()
    stretched = white @ (Q * np.geomspace(0.05, 20, D)) @ Q.T
    result = gap(white, stretched, Y, split=split_sentences(X, test=np.arange(400, N)))
    found = parts(result)
    assert found["shear"] == pytest.approx(result.loss.value[0])
    assert found["shear"] > 0.05
    assert found["shift"] == found["rotation"] == 0
    assert abs(found["content"]) < 0.01


def test_noise_is_content() -> None:
    X, Y = make_view()
    noisy = X + 3 * np.random.default_rng(3).normal(size=X.shape)
    result = gap(X, noisy, Y)
    found = parts(result)
    assert found["content"] > 0.2
    assert result.difference.significant[0].tolist()[3]
    assert abs(found["shift"]) < 0.05 > abs(found["rotation"])
    # A model of the noisy rows finds no more than the map: what it lost is lost.
    assert abs(result.retraining.value[0]) < 0.05


def test_the_same_view_twice_has_no_gap() -> None:
    X, Y = make_view()
    for copy in (X, X.astype(np.float32), X.astype(np.float16)):
        result = gap(copy, copy.copy(), Y)
        assert not result.difference.value.any()
        assert not result.loss.value.any()
        assert not result.retraining.value.any()
        assert not result.difference.significant.any()
        assert len(np.unique(result.accuracy.value)) == 1


def test_shuffled_pairs_have_no_map() -> None:
    """Negative control: without pairs, no map brings the model above the baseline; the words are there."""
    X, Y = make_view(1500)
    result = gap(X, X[np.random.default_rng(4).permutation(len(X))], Y, source="first")
    readings = dict(zip(result.readings, result.accuracy.value[0], strict=True))
    for reading in ("raw", "centered", "rotated", "linear", "own"):
        assert readings[reading] < float(result.baseline.value) + 0.06
    assert readings["source"] > float(result.baseline.value) + 0.3


def test_what_the_source_lacks_is_retrained() -> None:
    """A model that never saw the last coordinates clearly does not read them, and that of the target does."""
    X, Y = make_view()
    source = X.copy()
    source[:, 4:] += 9 * np.random.default_rng(3).normal(size=(N, 4))
    result = gap(source, X, Y, source="first")
    assert result.retraining.value[0] > 0.1
    assert result.retraining.significant[0]
    assert parts(result)["content"] < 0


# --- Definitions ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def views() -> dict[str, np.ndarray]:
    X = make_view()[0]
    rng = np.random.default_rng(5)
    return {
        "en": X,
        "de": (X + rng.normal(size=X.shape)) @ (orthogonal() + 0.3 * rng.normal(size=(D, D))) + 2,
        "fr": X @ orthogonal(7) - rng.normal(size=D),
    }


@pytest.fixture(scope="module")
def result(views: dict[str, np.ndarray]) -> ViewGap:
    return view_gap(views, make_view()[1], estimator=Reader(), random_state=0, verbose=0)


def test_the_parts_sum_to_the_loss(result: ViewGap) -> None:
    np.testing.assert_allclose(result.difference.value.sum(axis=1), result.loss.value, atol=1e-12)
    accuracy = dict(zip(result.readings, result.accuracy.value.T, strict=True))
    np.testing.assert_allclose(accuracy["source"] - accuracy["raw"], result.loss.value, atol=1e-12)
    np.testing.assert_allclose(accuracy["own"] - accuracy["linear"], result.retraining.value, atol=1e-12)
    for ends in (result.difference, result.loss, result.retraining):
        assert (ends.low <= ends.value + 1e-12).all()
        assert (ends.value <= ends.high + 1e-12).all()


def test_readings_are_those_of_a_naive_computation(views: dict[str, np.ndarray], result: ViewGap) -> None:
    Y = make_view()[1]
    split = split_sentences(views, random_state=0)

    def accuracy(scores: np.ndarray) -> float:
        hits = []
        for row, words in zip(scores, Y[split.test] > 0, strict=True):
            best = np.argsort(-row, kind="stable")[: words.sum()]
            hits.append(words[best].sum() / words.sum())
        return float(np.mean(hits))

    models = {name: Reader().fit(X[split.train], sp.csr_array(Y[split.train])) for name, X in views.items()}
    for p, (source, target) in enumerate(result.pairs):
        model = models[source]
        ms, mt = (views[name][split.train].mean(axis=0) for name in (source, target))
        Xs, Xt = views[source][split.train] - ms, views[target][split.train] - mt
        x = views[target][split.test] - mt
        R = orthogonal_procrustes(Xt, Xs)[0]
        ridge = result.ridge[p] * np.linalg.eigvalsh(Xt.T @ Xt).mean()
        W = np.linalg.solve(Xt.T @ Xt + ridge * np.eye(D), Xt.T @ Xs + ridge * R)
        rows = [x + mt, x + ms, x @ R + ms, x @ W + ms]
        expected = [accuracy(model.decision_function(row)) for row in rows]
        expected.append(accuracy(models[target].decision_function(x + mt)))
        expected.append(accuracy(model.decision_function(views[source][split.test])))
        np.testing.assert_allclose(result.accuracy.value[p], expected, atol=0.004)


def test_the_ridge_has_the_smallest_error_on_held_out_groups() -> None:
    """Few rows with much noise need a large ridge, many rows without noise a small one."""
    X = make_view()[0]
    rng = np.random.default_rng(6)
    stretched = X @ (np.eye(D) + 0.5 * rng.normal(size=(D, D)))
    clean = check_sentences({"a": X, "b": stretched}, None, 0)
    assert PairMaps(clean, 0).linear("a", "b")[1] == 1e-6
    noisy = X @ orthogonal() + 0.5 * rng.normal(size=X.shape)
    few = check_sentences({"a": X, "b": noisy}, split_sentences(X, test=np.arange(12, N)), 0)
    assert PairMaps(few, 0).linear("a", "b")[1] >= 1e-2


def test_maps_use_the_training_rows_alone() -> None:
    X = make_view()[0]
    split = split_sentences(X, test=np.arange(400, N))
    other = X @ orthogonal() + 1
    changed = other.copy()
    changed[400:] *= -7
    expected, got = (PairMaps(check_sentences({"a": X, "b": b}, split, 0), 0) for b in (other, changed))
    for one, two in ((expected.rotation, got.rotation), (expected.shift, got.shift)):
        np.testing.assert_array_equal(one("a", "b")(X), two("a", "b")(X))
    np.testing.assert_array_equal(expected.linear("a", "b")[0](X), got.linear("a", "b")[0](X))


def test_fewer_training_sentences_than_dimensions() -> None:
    """The rotation of directions that no sentence shows is the identity, not an arbitrary one."""
    rng = np.random.default_rng(8)
    X = np.zeros((40, 30))
    X[:, :5] = rng.normal(size=(40, 5))
    sentences = check_sentences({"a": X, "b": X + 1}, split_sentences(X, test=np.arange(20, 40)), 0)
    maps = PairMaps(sentences, 0)
    x = rng.normal(size=(3, 30))
    for step in (maps.rotation("a", "b"), maps.linear("a", "b")[0]):
        np.testing.assert_allclose(step(x), x - 1, atol=1e-6)


def test_raw_and_source_are_those_of_view_alignment(views: dict[str, np.ndarray]) -> None:
    Y = make_view()[1]
    settings = {"estimator": FLiPExtractor(max_iter=5), "random_state": 3, "n_bootstrap": 50, "verbose": 0}
    gaps, alignment = view_gap(views, Y, **settings), view_alignment(views, Y, **settings)
    names = list(views)
    for (source, target), values in zip(gaps.pairs, gaps.accuracy.value, strict=True):
        s, t = names.index(source), names.index(target)
        assert values[0] == alignment.accuracy.value[s, t]
        assert values[5] == alignment.accuracy.value[s, s]
        assert values[4] == alignment.accuracy.value[t, t]
    assert gaps.baseline.value == alignment.baseline.value


def test_centered_is_what_the_view_centerer_does(views: dict[str, np.ndarray], result: ViewGap) -> None:
    Y = make_view()[1]
    split = split_sentences(views, random_state=0)
    stacked = np.concatenate([views[name][split.train] for name in views])
    names = np.repeat(list(views), len(split.train))
    centerer = ViewCenterer(reference="en").fit(stacked, view=names)
    model = Reader().fit(views["en"][split.train], sp.csr_array(Y[split.train]))
    scores = model.decision_function(centerer.transform(views["de"][split.test], view="de"))
    truth = Y[split.test] > 0
    order = np.argsort(-scores, axis=1)
    hits = [words[best[: words.sum()]].mean() for words, best in zip(truth, order, strict=True)]
    assert result.pairs[0] == ("en", "de")
    assert result.accuracy.value[0, 1] == pytest.approx(np.mean(hits))


# --- Invariances ----------------------------------------------------------------------------


def test_order_of_views_and_common_rotation_do_not_matter(views: dict[str, np.ndarray]) -> None:
    Y = make_view()[1]
    settings = {"estimator": Reader(), "random_state": 0, "n_bootstrap": 50, "verbose": 0}
    split = split_sentences(views, random_state=0)
    expected = view_gap(views, Y, split=split, **settings)
    Q = orthogonal(9)
    rotated = {name: views[name] @ Q for name in ("fr", "en", "de")}
    got = view_gap(rotated, Y, split=split, **settings)
    assert expected.pairs == (
        ("en", "de"), ("en", "fr"), ("de", "en"), ("de", "fr"), ("fr", "en"), ("fr", "de"),
    )  # fmt: skip
    order = [got.pairs.index(pair) for pair in expected.pairs]
    np.testing.assert_allclose(got.accuracy.value[order], expected.accuracy.value, atol=0.004)
    np.testing.assert_allclose(got.ridge[order], expected.ridge)


def test_source_selects_pairs(views: dict[str, np.ndarray], result: ViewGap) -> None:
    one = view_gap(views, make_view()[1], source="de", estimator=Reader(), random_state=0, verbose=0)
    assert one.pairs == (("de", "en"), ("de", "fr"))
    np.testing.assert_array_equal(one.accuracy.value, result.accuracy.value[2:4])


def test_forms_of_input_do_not_matter(views: dict[str, np.ndarray]) -> None:
    import torch

    Y = make_view()[1]
    X32 = {name: X.astype(np.float32) for name, X in views.items()}
    forms = {"en": pd.DataFrame(X32["en"]), "de": torch.from_numpy(X32["de"]), "fr": X32["fr"].tolist()}
    settings = {"estimator": Reader(), "random_state": 0, "n_bootstrap": 20, "verbose": 0}
    split = split_sentences(X32, random_state=0)
    expected = view_gap(X32, Y, split=split, **settings)
    got = view_gap(forms, sp.csr_matrix(Y), split=split, **settings)
    np.testing.assert_allclose(got.accuracy.value, expected.accuracy.value, atol=0.004)


def test_groups_widen_the_intervals() -> None:
    """Every sentence five times says no more than once."""
    X, Y = make_view(150)
    other = X + np.random.default_rng(3).normal(size=X.shape)
    rows = np.repeat(np.arange(150), 5)
    once = gap(X, other, Y, split=split_sentences(X, test=np.arange(100, 150)))
    jitter = 1e-7 * np.random.default_rng(0).normal(size=(750, D))
    split = split_sentences(X[rows] + jitter, groups=rows, test=np.arange(500, 750))
    repeated = gap(X[rows] + jitter, other[rows] + jitter, Y[rows], split=split)

    def width(interval: Any) -> float:
        return float(interval.high[0] - interval.low[0])

    assert width(repeated.loss) == pytest.approx(width(once.loss), rel=0.3)


def test_intervals_cover_the_parts_of_all_sentences() -> None:
    """With fixed models and maps, the parts of very many sentences lie in 95% of the intervals."""
    n_train, n_test, n_runs = 300, 150, 60
    X, Y = make_view(n_train + 150 * n_runs, noise=1.0)
    rng = np.random.default_rng(10)
    other = (X + 2 * rng.normal(size=X.shape)) @ (orthogonal() + 0.5 * np.eye(D)) + 2 * rng.normal(size=D)
    train = np.arange(n_train)

    def parts_on(test: np.ndarray) -> ViewGap:
        rows = np.concatenate([train, test])
        split = split_sentences(X[rows], test=np.arange(n_train, len(rows)))
        return gap(X[rows], other[rows], Y[rows], split=split, source="first", n_bootstrap=200)

    truth = parts_on(np.arange(n_train, len(X))).difference.value[0]
    covered = []
    for run in range(n_runs):
        found = parts_on(n_train + n_test * run + np.arange(n_test)).difference
        covered.append((found.low[0] <= truth) & (truth <= found.high[0]))
    assert 0.88 < np.mean(covered) <= 1


# --- The result, and bad input --------------------------------------------------------------


def test_the_result_is_a_table_a_text_and_frozen(result: ViewGap) -> None:
    table = result.to_frame()
    assert len(table) == 6 * 6
    first = table[(table["source"] == "en") & (table["target"] == "de")].set_index("part")
    assert first.index.tolist() == ["shift", "rotation", "shear", "content", "loss", "retraining"]
    np.testing.assert_array_equal(first["difference"][:4], result.difference.value[0])
    assert first.loc["loss", "difference"] == result.loss.value[0]
    assert first.loc["shift", ["minuend", "subtrahend"]].tolist() == ["centered", "raw"]
    assert first.loc["shift", "accuracy"] == result.accuracy.value[0, 1]
    assert first.loc["retraining", "significant"] == result.retraining.significant[0]
    assert "en on de: loss" in repr(result)
    assert pickle.loads(pickle.dumps(result)).pairs == result.pairs
    with pytest.raises(FrozenInstanceError):
        result.pairs = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "es"}, "source='es' is not allowed; use one of 'first', 'second'"),
        ({"views": {"one": np.eye(4)}}, "views has 1 view"),
        ({"views": {"a": np.eye(4), "b": np.eye(5)}}, "in one embedding space"),
        ({"views": {"a": np.eye(4), "b": np.full((4, 4), np.nan)}}, "NaN or infinite"),
        ({"Y": np.ones((3, 2))}, "row-aligned"),
        ({"Y": None}, "Y is None"),
        ({"n_bootstrap": 1}, "n_bootstrap=1 is not allowed"),
        ({"confidence": 1.0}, "confidence=1.0 is not allowed"),
        ({"split": 3}, "pass the result of split_sentences"),
        ({"estimator": 3}, "pass an estimator with fit"),
    ],
)
def test_bad_input_is_refused_before_training(settings: dict[str, Any], message: str) -> None:
    X, Y = make_view(40)
    arguments = {"views": {"first": X, "second": X + 1}, "Y": Y, **settings}
    with pytest.raises(ValueError, match=message):
        view_gap(**arguments)

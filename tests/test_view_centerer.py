"""ViewCenterer: the mean of each view is removed, in every form of input, alone and in pipelines."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
import torch
from packaging.version import Version
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from flip_sklearn import FLiPExtractor, ViewCenterer, stack_views

N, D = 60, 5


@parametrize_with_checks([ViewCenterer()])
def test_scikit_learn_check(estimator: ViewCenterer, check: Any) -> None:
    check(estimator)


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Three views of different sizes, each around a mean of its own, in random order."""
    rng = np.random.default_rng(0)
    view = rng.permutation(np.repeat(["de", "en", "fr"], [10, 20, 30]))
    mean = {"de": -2.0, "en": 0.5, "fr": 3.0}
    X = rng.normal(size=(N, D)) + np.array([mean[name] for name in view])[:, None]
    return X, view


@pytest.fixture
def routing() -> Iterator[None]:
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_means_move_to_zero_or_to_the_reference(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, view = rows
    centerer = ViewCenterer().fit(X, view=view)
    assert centerer.views_.tolist() == ["de", "en", "fr"]
    assert centerer.counts_.tolist() == [10, 20, 30]
    moved = centerer.transform(X, view=view)
    for i, name in enumerate(centerer.views_):
        np.testing.assert_allclose(centerer.means_[i], X[view == name].mean(axis=0))
        np.testing.assert_allclose(moved[view == name], X[view == name] - centerer.means_[i], atol=1e-14)
    # The reference can be chosen after fit; its rows keep their bits.
    moved = centerer.set_params(reference="en").transform(X, view=view)
    np.testing.assert_array_equal(moved[view == "en"], X[view == "en"])
    for name in centerer.views_:
        np.testing.assert_allclose(moved[view == name].mean(axis=0), centerer.means_[1], atol=1e-14)


def test_order_of_rows_does_not_matter_and_centering_is_idempotent(rows: Any) -> None:
    X, view = rows
    order = np.random.default_rng(1).permutation(N)
    first, second = ViewCenterer().fit(X, view=view), ViewCenterer().fit(X[order], view=view[order])
    np.testing.assert_allclose(first.means_, second.means_, atol=1e-14)
    once = first.transform(X, view=view)
    np.testing.assert_allclose(ViewCenterer().fit_transform(once, view=view), once, atol=1e-14)


def test_a_model_of_one_view_reads_a_shifted_view() -> None:
    """Scores of the shifted rows become those of the rows: a theorem for any model of the reference."""
    rng = np.random.default_rng(2)
    X, c = rng.normal(size=(50, D)), 10 * rng.normal(size=D)
    stacked = stack_views({"text": X, "speech": X + c}, np.ones((50, 1)))
    centerer = ViewCenterer(reference="text").fit(stacked.X, view=stacked.view)
    np.testing.assert_allclose(centerer.transform(X + c, view="speech"), X, atol=1e-13)
    np.testing.assert_allclose(centerer.inverse_transform(X, view="speech"), X + c, atol=1e-13)


def test_without_names_all_rows_are_one_view(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = rows
    centerer = ViewCenterer().fit(X)
    assert centerer.views_.tolist() == [None]
    np.testing.assert_allclose(centerer.transform(X), X - X.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(centerer.inverse_transform(centerer.transform(X)), X, atol=1e-14)


def test_partial_fit_is_fit_on_all_rows(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, view = rows
    expected = ViewCenterer().fit(X, view=view)
    streamed = ViewCenterer()
    for start in range(0, N, 7):
        streamed.partial_fit(X[start : start + 7], view=view[start : start + 7])
    np.testing.assert_allclose(streamed.means_, expected.means_, atol=1e-13)
    assert streamed.counts_.tolist() == expected.counts_.tolist()
    # A view that comes later.
    added = expected.partial_fit(np.full((1, D), 7.0), view="es")
    assert added.views_.tolist() == ["de", "en", "es", "fr"]
    np.testing.assert_allclose(added.transform(np.full((2, D), 8.0), view="es"), 1.0)
    # fit starts anew.
    assert added.fit(X, view=view).views_.tolist() == ["de", "en", "fr"]


def test_a_view_with_one_row_warns() -> None:
    with pytest.warns(UserWarning, match="view 'b' has one row"):
        ViewCenterer().fit(np.eye(3), view=["a", "a", "b"])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_number_formats(rows: tuple[np.ndarray, np.ndarray], dtype: str) -> None:
    X, view = rows
    X = X.astype(dtype)
    moved = ViewCenterer().fit_transform(X, view=view)
    assert moved.dtype == ("float32" if dtype in ("float16", "float32") else "float64")
    for name in ("de", "en", "fr"):
        exact = X[view == name].astype(np.float64)
        np.testing.assert_allclose(moved[view == name], exact - exact.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        pd.DataFrame,
        lambda X: pl.DataFrame(X, schema=[f"d{j}" for j in range(D)]),
        lambda X: pl.DataFrame({"embedding": X.tolist()}),
        lambda X: pd.Series(list(X)),
        torch.from_numpy,
        lambda X: [torch.from_numpy(row) for row in X],
    ],
)
@pytest.mark.parametrize("names", [np.ndarray.tolist, pd.Series, pd.Categorical, np.array])
def test_forms_of_input(rows: tuple[np.ndarray, np.ndarray], convert: Any, names: Any) -> None:
    X, view = rows
    expected = ViewCenterer().fit_transform(X, view=view)
    got = ViewCenterer().fit_transform(convert(X), view=names(view))
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, expected)


def test_names_are_texts_or_numbers(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, view = rows
    number = np.searchsorted(["de", "en", "fr"], view)
    expected = ViewCenterer(reference="en").fit_transform(X, view=view)
    centerer = ViewCenterer(reference=1).fit(X, view=number)
    np.testing.assert_array_equal(centerer.transform(X, view=number), expected)
    for one in (0, np.int64(0), np.array(0)):
        np.testing.assert_array_equal(centerer.transform(X[number == 0], view=one), expected[view == "de"])
    np.testing.assert_array_equal(
        ViewCenterer().fit(X, view=view).transform(X[:1], view=np.str_("de")),
        ViewCenterer().fit(X, view=view).transform(X[:1], view=["de"]),
    )


def test_frames_and_names_of_columns(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, view = rows
    frame = pd.DataFrame(X, columns=list("abcde"), index=np.arange(100, 100 + N))
    centerer = ViewCenterer().set_output(transform="pandas").fit(frame, view=view)
    moved = centerer.transform(frame, view=view)
    assert moved.columns.tolist() == centerer.get_feature_names_out().tolist() == list("abcde")
    assert moved.index.equals(frame.index)
    with pytest.raises(ValueError, match="feature names"):
        centerer.transform(frame[list("badce")], view=view)


def test_clone_and_pickle(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, view = rows
    centerer = ViewCenterer(reference="fr").fit(X, view=view)
    assert not hasattr(clone(centerer), "means_")
    assert clone(centerer).reference == "fr"
    loaded = pickle.loads(pickle.dumps(centerer))
    np.testing.assert_array_equal(loaded.transform(X, view=view), centerer.transform(X, view=view))


def test_blocks_of_rows_do_not_matter(
    rows: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, view = rows
    expected = ViewCenterer().fit_transform(X, view=view)
    monkeypatch.setattr("flip_sklearn.views._BLOCK_ELEMENTS", 3 * D)
    np.testing.assert_array_equal(ViewCenterer().fit_transform(X, view=view), expected)


# --- Bad input -------------------------------------------------------------------------------


def test_unknown_views_are_named(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, view = rows
    centerer = ViewCenterer().fit(X, view=view)
    known = "'de', 'en', 'fr'"
    with pytest.raises(ValueError, match=f"view names 'es', which is not one of the views in fit: {known}"):
        centerer.transform(X, view="es")
    with pytest.raises(ValueError, match=f"view names 'es', which is not .* {known}"):
        centerer.transform(X[:2], view=["de", "es"])
    with pytest.raises(ValueError, match=f"view is None, but .* {known}; pass view=.*metadata routing"):
        centerer.transform(X)
    with pytest.raises(ValueError, match=f"reference names 'es', which is not one .* {known}"):
        ViewCenterer(reference="es").fit(X, view=view)
    with pytest.raises(ValueError, match="reference names 'en', but fit got no names of views"):
        ViewCenterer(reference="en").fit(X)
    with pytest.raises(ValueError, match="view names 'en', but fit got no names"):
        ViewCenterer().fit(X).transform(X, view="en")
    with pytest.raises(ValueError, match="earlier rows had names of views"):
        centerer.partial_fit(X)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (["en"] * 3, r"view has shape \(3,\); pass one view per row, \(60,\)"),
        ([*["en"] * 59, None], r"view\[59\] = None is missing; every row needs a view"),
        (np.full((60, 2), "en"), r"view has shape \(60, 2\)"),
        ([np.nan, *[1.0] * 59], r"view\[0\] = nan is missing"),
    ],
)
def test_bad_names_are_refused(rows: tuple[np.ndarray, np.ndarray], view: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewCenterer().fit(rows[0], view=view)


def test_a_failure_leaves_the_estimator_unchanged(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, view = rows
    bad = X.copy()
    bad[3, 2] = np.nan
    centerer = ViewCenterer().fit(X, view=view)
    before = pickle.dumps(centerer)
    for method in (centerer.fit, centerer.partial_fit, centerer.transform):
        with pytest.raises(ValueError, match="NaN"):
            method(bad, view=view)
        with pytest.raises(ValueError, match=r"pass X\.toarray"):
            method(sp.csr_array(X), view=view)
        with pytest.raises(ValueError, match="minimum of 1 is required"):
            method(X[:0], view=view[:0])
    for method in (centerer.partial_fit, centerer.transform):
        with pytest.raises(ValueError, match="5 features"):
            method(X[:, :3], view=view)
    assert pickle.dumps(centerer) == before
    with pytest.raises(NotFittedError):
        ViewCenterer().transform(X, view=view)


# --- Pipelines -------------------------------------------------------------------------------


@pytest.fixture
def shifted() -> Any:
    """Two views of the same sentences, the second one far away."""
    rng = np.random.default_rng(3)
    Y = rng.poisson(0.3, size=(200, 6))
    Y[np.arange(200), rng.integers(6, size=200)] += 1
    X = Y @ np.random.default_rng(99).normal(size=(6, D)) + 0.1 * rng.normal(size=(200, D))
    return stack_views({"text": X, "speech": X + 5 * rng.normal(size=D)}, Y)


def model() -> FLiPExtractor:
    return FLiPExtractor(rank=3, max_iter=3, vocabulary=list("abcdef"), random_state=0)


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_pipeline_with_metadata_routing(shifted: Any, routing: None) -> None:
    pipeline = make_pipeline(ViewCenterer(reference="text"), model())
    pipeline.fit(shifted.X, shifted.Y, view=shifted.view)
    centerer = ViewCenterer(reference="text").fit(shifted.X, view=shifted.view)
    centered = centerer.transform(shifted.X, view=shifted.view)
    alone = model().fit(centered, shifted.Y)
    np.testing.assert_array_equal(
        pipeline.decision_function(shifted.X, view=shifted.view), alone.decision_function(centered)
    )
    # Rows of one view, by its name.
    words = pipeline.predict(shifted.X[200:], view="speech").toarray()
    np.testing.assert_array_equal(words, alone.predict(centered[200:]).toarray())
    assert pipeline.score(shifted.X[200:], shifted.Y[200:], view="speech") > 0.3
    with pytest.raises(
        ValueError, match="view names 'video', which is not one of the views in fit: 'speech'"
    ):
        pipeline.predict(shifted.X[:3], view="video")


@pytest.mark.skipif(
    Version(sklearn.__version__) < Version("1.8"), reason="Pipeline.score passes no metadata to transformers"
)
def test_cross_validation_passes_the_views_of_each_part(shifted: Any, routing: None) -> None:
    pipeline = make_pipeline(ViewCenterer(), Ridge())
    params = {"view": shifted.view, "groups": shifted.groups}
    y = shifted.Y.toarray()
    scores = cross_validate(pipeline, shifted.X, y, cv=GroupKFold(3), params=params)["test_score"]
    assert (scores > 0.5).all()
    search = GridSearchCV(pipeline, {"viewcenterer__reference": [None, "text"]}, cv=GroupKFold(3))
    search.fit(shifted.X, y, **params)
    assert np.ptp(search.cv_results_["mean_test_score"]) < 1e-9


def test_pipeline_without_metadata_routing(shifted: Any) -> None:
    pipeline = make_pipeline(ViewCenterer(), model())
    pipeline.fit(shifted.X, shifted.Y, viewcenterer__view=shifted.view)
    assert pipeline[0].views_.tolist() == ["speech", "text"]
    with pytest.raises(ValueError, match="enable_metadata_routing=True"):
        pipeline.predict(shifted.X)
    words = pipeline[1:].predict(pipeline[0].transform(shifted.X, view=shifted.view))
    assert words.shape == (400, 6)

"""Words with a probability: calibration on planted data, invariances, exact small cases, bad input."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import PoissonRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.estimation.presence import ATTRIBUTES, HeldOutRows, fit_presence

N_WORDS, DIM, NEVER_SEEN = 40, 12, 3
WORDS = [f"w{j}" for j in range(N_WORDS)]


def make_rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings that are linear in which words occur, with noise, and counts; word 3 never occurs."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.linspace(0.02, 0.4, N_WORDS), (n, N_WORDS))
    counts[:, NEVER_SEEN] = 0
    counts[counts.sum(axis=1) == 0, 0] = 1
    directions = np.random.default_rng(99).normal(size=(N_WORDS, DIM))
    X = (counts > 0) @ directions + 0.3 * rng.normal(size=(n, DIM))
    return X.astype(np.float32), counts


def make_model(**parameters: Any) -> FLiPExtractor:
    return FLiPExtractor(vocabulary=WORDS, max_iter=4, tol=0.1, random_state=0, **parameters)


@pytest.fixture(scope="module")
def flip() -> FLiPExtractor:
    return make_model().fit(*make_rows(2000, 0))


@pytest.fixture(scope="module")
def test_rows() -> tuple[np.ndarray, np.ndarray]:
    return make_rows(1500, 1)


def presence_of_all(flip: FLiPExtractor, X: Any) -> np.ndarray:
    return flip.predict_presence(X, top_k=N_WORDS).toarray()


def test_definition(flip: FLiPExtractor, test_rows: tuple[np.ndarray, np.ndarray]) -> None:
    X = test_rows[0][:50].astype(np.float64)
    theta = flip.predict_proba(X).astype(np.float64)
    seen = flip.word_counts_ > 0
    h = (X - flip.embedding_mean_) @ flip.projection_.T
    log_length = flip.presence_length_[0] + h @ flip.presence_length_[1:]
    entropy = -(theta[:, seen] * np.log(theta[:, seen])).sum(axis=1)
    row = np.column_stack([log_length, entropy]) @ flip.presence_row_coef_.T
    u = np.log(theta[:, seen]) + log_length[:, None]
    slope = np.maximum(flip.presence_slope_[seen] + row[:, 1:], 0.1)
    expected = expit(flip.presence_intercept_[seen] + slope * u + row[:, :1])
    result = flip.predict_presence(X, top_k=N_WORDS)
    assert result.dtype == np.float64
    assert result.has_canonical_format
    np.testing.assert_allclose(result.toarray()[:, seen], expected, atol=1e-4)
    assert not result.toarray()[:, ~seen].any()


def test_calibrated_on_new_rows(flip: FLiPExtractor, test_rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = test_rows
    presence, occurs = presence_of_all(flip, X), Y > 0
    assert abs(presence.sum() / occurs.sum() - 1) < 0.05
    bins = np.minimum((presence * 10).astype(int), 9)
    error = sum(abs((presence - occurs)[bins == b].sum()) for b in range(10)) / occurs.size
    assert error < 0.02
    # theta is no such probability: its rows sum to one.
    theta = flip.predict_proba(X)
    assert ((presence - occurs) ** 2).mean() < 0.8 * ((theta - occurs) ** 2).mean()


def test_rows_that_say_nothing_get_the_frequencies() -> None:
    X, Y = make_rows(2000, 0)
    noise = np.random.default_rng(5).normal(size=X.shape)
    flip = make_model().fit(noise, Y)
    presence = presence_of_all(flip, np.random.default_rng(6).normal(size=(500, DIM)))
    np.testing.assert_allclose(presence.mean(axis=0), (Y > 0).mean(axis=0), atol=0.12)


def test_monotone_in_theta_for_every_word(flip: FLiPExtractor) -> None:
    assert (flip.presence_slope_ > 0).all()


def test_top_words_are_the_most_probable(
    flip: FLiPExtractor, test_rows: tuple[np.ndarray, np.ndarray]
) -> None:
    X = test_rows[0][:200]
    presence, top = presence_of_all(flip, X), flip.predict_presence(X, top_k=4).toarray()
    assert ((top > 0).sum(axis=1) == 4).all()
    expected = np.sort(presence, axis=1)[:, -4:]
    np.testing.assert_allclose(np.sort(top, axis=1)[:, -4:], expected, rtol=1e-4)
    assert (np.diff(flip.predict_presence(X).indptr) == flip.top_k).all()


@pytest.mark.parametrize("p", [0.3, 0.5, 0.9, 1.0, 1e-3])
def test_keywords_are_exactly_the_words_that_are_certain_enough(
    flip: FLiPExtractor, test_rows: tuple[np.ndarray, np.ndarray], p: float
) -> None:
    X = test_rows[0][:300].astype(np.float64)
    presence = presence_of_all(flip, X)
    keywords = flip.extract_keywords(X, min_probability=p, return_scores=True)
    for row, pairs in zip(presence, keywords, strict=True):
        assert {word for word, _ in pairs} == {WORDS[j] for j in np.flatnonzero(row >= p)}
        values = [value for _, value in pairs]
        assert values == sorted(values, reverse=True)
        np.testing.assert_allclose(values, [row[WORDS.index(word)] for word, _ in pairs], rtol=1e-5)
    words = [[word for word, _ in pairs] for pairs in keywords]
    assert flip.extract_keywords(X, min_probability=p) == words
    assert flip.extract_keywords(X, 2, min_probability=p) == [row[:2] for row in words]


def test_bias_and_ranking_offset_do_not_matter(
    flip: FLiPExtractor, test_rows: tuple[np.ndarray, np.ndarray]
) -> None:
    other = copy.deepcopy(flip).set_params(use_bias=False)
    other.ranking_offset_ = np.linspace(-1, 1, N_WORDS)
    X = test_rows[0][:40]
    np.testing.assert_array_equal(presence_of_all(flip, X), presence_of_all(other, X))


def test_blocks_sparse_factors_and_forms_of_input(
    flip: FLiPExtractor, test_rows: tuple[np.ndarray, np.ndarray]
) -> None:
    import pandas as pd
    import torch

    X = test_rows[0][:30]
    expected = presence_of_all(flip, X)
    sparse = copy.deepcopy(flip).to_sparse()
    for model, rows in (
        (sparse, X),
        (flip, X.tolist()),
        (flip, torch.from_numpy(X)),
        (flip, pd.DataFrame(X)),
        (flip, X[:1]),
    ):
        np.testing.assert_allclose(presence_of_all(model, rows), expected[: len(rows)], atol=1e-5)
    assert flip.predict_presence(X).dtype == np.float32
    np.testing.assert_allclose(presence_of_all(flip, X.astype(np.float16)), expected, atol=0.02)


def test_pickle_clone_pipeline_and_saved_models(
    flip: FLiPExtractor, test_rows: tuple[np.ndarray, np.ndarray], tmp_path: Any
) -> None:
    X = test_rows[0][:30]
    expected = presence_of_all(flip, X)
    np.testing.assert_array_equal(presence_of_all(pickle.loads(pickle.dumps(flip)), X), expected)
    flip.save_pretrained(tmp_path / "model")
    loaded = FLiPExtractor.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(presence_of_all(loaded, X), expected)
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(flip, name))
    with pytest.raises(NotFittedError):
        clone(flip).predict_presence(X)
    pipeline = make_pipeline(StandardScaler(), make_model()).fit(*make_rows(1200, 3))
    assert pipeline[-1].predict_presence(pipeline[:-1].transform(X)).shape == (30, N_WORDS)


def test_without_held_out_rows(flip: FLiPExtractor, tmp_path: Any) -> None:
    X, Y = make_rows(1200, 2)
    plain = make_model(early_stopping=False).fit(X, Y)
    assert not any(hasattr(plain, name) for name in ATTRIBUTES)
    plain.save_pretrained(tmp_path / "plain")
    loaded = FLiPExtractor.from_pretrained(tmp_path / "plain")
    old = copy.deepcopy(flip)
    del old.presence_slope_
    streamed = make_model().partial_fit(X[:600], Y[:600])
    dropped = copy.deepcopy(flip).partial_fit(X[600:], Y[600:])
    for model in (plain, loaded, old, streamed, dropped):
        for call in (model.predict_presence, lambda X, m=model: m.extract_keywords(X, min_probability=0.5)):
            with pytest.raises(ValueError, match=r"no presence_ attributes.*early_stopping=True"):
                call(X[:2])
    assert len(plain.extract_keywords(X[:2], top_k=3)[0]) == 3
    refit = copy.deepcopy(flip).set_params(early_stopping=False).fit(X, Y)
    assert not hasattr(refit, "presence_length_")


@pytest.mark.parametrize("value", [0, 0.0, -0.1, 1.5, 80, "0.8", True, np.nan, np.inf])
def test_bad_min_probability(flip: FLiPExtractor, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"min_probability={value!r}") + r".*> 0 and <= 1"):
        flip.extract_keywords(np.zeros((1, DIM)), min_probability=value)


def test_bad_rows_and_top_k(flip: FLiPExtractor) -> None:
    with pytest.raises(ValueError, match="features"):
        flip.predict_presence(np.zeros((2, DIM + 1)))
    with pytest.raises(ValueError, match="NaN"):
        flip.predict_presence(np.full((2, DIM), np.nan))
    with pytest.raises(ValueError, match="top_k=0"):
        flip.predict_presence(np.zeros((2, DIM)), top_k=0)
    with pytest.raises(FloatingPointError, match="larger"):
        flip.predict_presence(np.full((2, DIM), 1e33))


def refit_presence(flip: FLiPExtractor, X: Any, Y: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
    rows = HeldOutRows(X, sp.csr_array(Y.astype(np.float32)), weights)
    return fit_presence(vars(flip), rows, resolve_compute("cpu", "float64"), ProcessGroup())


def test_weight_two_is_two_rows_and_weight_zero_none(flip: FLiPExtractor) -> None:
    X, Y = make_rows(300, 7)
    X = X.astype(np.float64)
    weights = np.ones(300)
    weights[:100], weights[250:] = 2.0, 0.0
    weighted = refit_presence(flip, X, Y, weights)
    repeated = np.r_[np.arange(100), np.arange(250)]
    expected = refit_presence(flip, X[repeated], Y[repeated], np.ones(350))
    np.testing.assert_allclose(weighted["presence_length_"], expected["presence_length_"], atol=1e-3)
    for rows in (weighted, expected):
        model = copy.deepcopy(flip)
        model.__dict__.update(rows)
        rows["p"] = presence_of_all(model, X)
    np.testing.assert_allclose(weighted["p"], expected["p"], atol=0.01)


def test_length_is_the_poisson_regression(flip: FLiPExtractor) -> None:
    X, Y = make_rows(300, 8)
    h = (X.astype(np.float64) - flip.embedding_mean_) @ flip.projection_.T
    expected = PoissonRegressor(alpha=10 * h.shape[1] / 300, tol=1e-8, max_iter=1000).fit(h, Y.sum(axis=1))
    length = refit_presence(flip, X.astype(np.float64), Y, np.ones(300))["presence_length_"]
    np.testing.assert_allclose(length, np.r_[expected.intercept_, expected.coef_], atol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 30, 100])
@pytest.mark.parametrize("weight", [1e-20, 1.0, 1e20])
def test_few_held_out_rows_break_nothing(flip: FLiPExtractor, n: int, weight: float) -> None:
    X, Y = make_rows(n, 9)
    model = copy.deepcopy(flip)
    model.__dict__.update(refit_presence(flip, X.astype(np.float64), Y, np.full(n, weight)))
    test_X, test_Y = make_rows(300, 10)
    presence = presence_of_all(model, test_X)
    assert np.isfinite(presence).all()
    assert (presence <= 1).all()
    if n >= 30 and weight == 1.0:
        theta = model.predict_proba(test_X)
        occurs = test_Y > 0
        assert ((presence - occurs) ** 2).mean() < ((theta - occurs) ** 2).mean()


@pytest.mark.parametrize("rank", [None, 1])
def test_ranks(rank: Any) -> None:
    X, Y = make_rows(1100, 11)
    presence = presence_of_all(make_model(rank=rank).fit(X, Y), X)
    assert abs(presence.sum() / (Y > 0).sum() - 1) < 0.1


def test_groups_and_early_stopping_with_few_rows() -> None:
    X, Y = make_rows(200, 12)
    flip = make_model(early_stopping="likelihood", validation_fraction=0.3)
    flip.fit(np.r_[X, X + 0.1], np.r_[Y, Y], groups=np.tile(np.arange(200), 2))
    assert np.isfinite(presence_of_all(flip, X)).all()


def test_one_word() -> None:
    X, Y = make_rows(300, 13)
    flip = FLiPExtractor(vocabulary=["w"], early_stopping=True, max_iter=3, random_state=0)
    flip.fit(X, Y[:, -1:])
    presence = flip.predict_presence(X)
    assert presence.shape == (300, 1)
    assert ((presence.data >= 0) & (presence.data <= 1)).all()

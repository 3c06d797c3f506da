"""Streaming moments and whitening equal their definitions in float64, in chunks of any size."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit.whitening import Moments, Whitening, streaming_moments


def chunks(X: np.ndarray, w: np.ndarray, size: int):
    for first in range(0, len(X), size):
        part = slice(first, first + size)
        yield torch.from_numpy(X[part]), torch.from_numpy(w[part])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 6),
    size=st.integers(1, 70),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 10**6),
)
def test_streaming_moments_equal_the_weighted_covariance(n, d, size, dtype, seed) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(n, d)) * 3 + 5).astype(dtype)
    w = rng.integers(0, 3, n).astype(np.float64)
    moments = streaming_moments(chunks(X, w, size), d)
    assert moments.weight == w.sum()
    if w.sum() > 0:
        np.testing.assert_allclose(moments.mean, np.average(X.astype(float), axis=0, weights=w))
        centred = X.astype(float) - moments.mean
        np.testing.assert_allclose(
            moments.scatter, (centred * w[:, None]).T @ centred, atol=1e-9 * max(1, w.sum())
        )


def test_merged_moments_equal_the_moments_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(90, 4)), rng.random(90)
    whole = streaming_moments(chunks(X, w, 90), 4)
    merged = Moments.empty(4)
    for part in (slice(0, 1), slice(1, 30), slice(30, 90)):
        merged = merged.merge(streaming_moments(chunks(X[part], w[part], 7), 4))
    np.testing.assert_allclose(merged.mean, whole.mean)
    np.testing.assert_allclose(merged.scatter, whole.scatter)


def test_large_mean_costs_no_precision() -> None:
    """Negative control: E[x^2] - E[x]^2 in float32 has no correct digit of this covariance."""
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(5000, 3)) * 0.01 + 1000).astype(np.float32)
    exact = np.cov(X.astype(np.float64).T, bias=True)
    moments = streaming_moments(chunks(X, np.ones(5000), 512), 3)
    np.testing.assert_allclose(moments.scatter / 5000, exact, rtol=1e-9, atol=1e-15)
    naive = X.T @ X / len(X) - np.outer(X.mean(axis=0), X.mean(axis=0))
    assert np.abs(naive - exact).max() > np.abs(exact).max()


def test_whitened_rows_have_unit_covariance_and_can_be_inverted() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5)) + 3
    whitening = Whitening.from_moments(streaming_moments(chunks(X, np.ones(500), 64), 5), ridge=0)
    white = (X - whitening.mean) @ whitening.forward
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-9)
    np.testing.assert_allclose(white @ whitening.inverse + whitening.mean, X)
    assert np.abs(np.cov(X.T, bias=True) - np.eye(5)).max() > 0.1  # negative control


@pytest.mark.parametrize("X", [np.ones((9, 4)), np.zeros((1, 3)), np.eye(3)[:2]])
def test_degenerate_embeddings_give_finite_whitening(X: np.ndarray) -> None:
    moments = streaming_moments(chunks(X, np.ones(len(X)), 4), X.shape[1])
    whitening = Whitening.from_moments(moments)
    for part in (whitening.forward, whitening.inverse):
        assert np.isfinite(part).all()
    np.testing.assert_allclose(whitening.forward @ whitening.inverse, np.eye(X.shape[1]), atol=1e-9)


def whitening_of(X: np.ndarray) -> Whitening:
    return Whitening.from_moments(streaming_moments(chunks(X, np.ones(len(X)), 64), X.shape[1]))


def bag_of_words(n: int, d: int = 32, n_words: int = 100) -> tuple[np.ndarray, sp.csr_array]:
    """Embeddings that are sums of one vector per word, in float32, and the counts of the words."""
    rng = np.random.default_rng(0)
    frequency = np.arange(1, n_words + 1) ** -0.7
    Y = sp.csr_array(rng.poisson(5 * frequency / frequency.sum(), size=(n, n_words)))
    X = Y @ rng.normal(size=(n_words, d)) + 0.3 * rng.normal(size=(n, d))
    return X.astype(np.float32), Y


def accuracy_of_a_fit(X: np.ndarray, Y: sp.csr_array, n_train: int) -> float:
    model = FLiPExtractor(random_state=0, max_iter=8, device="cpu").fit(X[:n_train], Y[:n_train])
    return model.score(X[n_train:], Y[n_train:])


@pytest.mark.parametrize("n", [4000, 40])
@pytest.mark.parametrize("columns", [[7], [0, 3, 9, 15]])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 20.0, 1e3, 1e6])
def test_columns_of_another_scale_leave_the_whitening_of_the_others(n, columns, scale) -> None:
    X = np.random.default_rng(3).normal(size=(n, 32))
    scaled = X.copy()
    scaled[:, columns] *= scale
    white = [(Z - w.mean) @ w.forward for Z, w in ((X, whitening_of(X)), (scaled, whitening_of(scaled)))]
    covariances = [np.linalg.eigvalsh(np.cov(Z.T, bias=True)) for Z in white]
    np.testing.assert_allclose(covariances[1], covariances[0], rtol=0.05)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_a_direction_of_large_variance_leaves_the_whitening_of_the_others(scale: float) -> None:
    """Here no single column has a large variance."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(4000, 32))
    X[:, 0] *= scale
    X = X @ np.linalg.qr(rng.normal(size=(32, 32)))[0]
    whitening = whitening_of(X)
    white = (X - whitening.mean) @ whitening.forward
    assert np.linalg.eigvalsh(np.cov(white.T, bias=True)).min() > 0.9


@pytest.mark.parametrize("n_train", [1500, 150])
def test_accuracy_does_not_depend_on_the_scale_of_a_column(n_train: int) -> None:
    X, Y = bag_of_words(n_train + 600)
    before = accuracy_of_a_fit(X, Y, n_train)
    for scale in (1e-6, 1e2, 1e3, 1e4, 1e6):
        scaled = X.copy()
        scaled[:, 5] *= np.float32(scale)
        assert accuracy_of_a_fit(scaled, Y, n_train) == pytest.approx(before, abs=0.01), scale
    assert before > 0.3
    no_words = np.random.default_rng(0).normal(size=X.shape)  # negative control
    assert accuracy_of_a_fit(no_words, Y, n_train) < before - 0.1


def test_units_of_a_column_change_no_bit_of_the_scores() -> None:
    X, Y = bag_of_words(400)
    scores = []
    for power in (10, 20):
        scaled = X.copy()
        scaled[:, 5] *= np.float32(2.0**power)
        model = FLiPExtractor(random_state=0, max_iter=2, device="cpu").fit(scaled, Y)
        scores.append(model.decision_function(scaled))
    np.testing.assert_array_equal(scores[0], scores[1])


@pytest.mark.parametrize("n", [20, 300, 5000])
def test_embeddings_of_one_scale_are_whitened_relative_to_their_mean_eigenvalue(n: int) -> None:
    """Bit for bit, so that models of ordinary embeddings stay the same; one column is almost constant."""
    d = 48
    rng = np.random.default_rng(5)
    X = rng.normal(size=(n, d)) * np.geomspace(1, 0.2, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    X[:, 11] = 1e-9 * rng.normal(size=n)  # such a column must not be enlarged
    moments = streaming_moments(chunks(X, np.ones(n), 64), d)
    values, vectors = np.linalg.eigh(moments.scatter / n)
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(d)])
    values = values.clip(min=0)
    scale = np.sqrt(values + np.clip(0.2 * d / n, 1e-4, 0.3) * values.mean())
    whitening = Whitening.from_moments(moments)
    np.testing.assert_array_equal(whitening.forward, vectors / scale)
    np.testing.assert_array_equal(whitening.inverse, (vectors * scale).T)

"""Streaming moments and whitening equal their definitions in float64, in chunks of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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

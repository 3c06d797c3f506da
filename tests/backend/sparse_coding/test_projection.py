"""Non-negative least squares over many words: equal to SciPy's solver over all of them."""

from __future__ import annotations

import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from flip_sklearn.backend.sparse_coding import lasso
from flip_sklearn.backend.sparse_coding.lasso import SparseCoder, nonnegative_lasso
from flip_sklearn.backend.sparse_coding.projection import nonnegative_projection
from flip_sklearn.splice import SpLiCEExtractor


def cone_problem(n_words: int, d: int, offset: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Words of any norm; with an offset they are in one half of the space, so that v is often outside."""
    rng = np.random.default_rng(seed)
    D = (rng.normal(size=(n_words, d)) + offset) * np.exp(rng.normal(size=(n_words, 1)))
    if n_words > 2:
        D[1] = 0
    return D, rng.normal(size=(5, d)) * 10.0 ** rng.integers(-3, 4, size=(5, 1))


def dense(indices: np.ndarray, weights: np.ndarray, n_words: int) -> np.ndarray:
    result = np.zeros((len(indices), n_words))
    for row, (columns, values) in enumerate(zip(indices, weights, strict=True)):
        result[row, columns[columns >= 0]] = values[columns >= 0]
    return result


@given(st.integers(1, 90), st.integers(1, 8), st.sampled_from([0.0, 0.5, 2.0]), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_projection_equals_scipy(n_words: int, d: int, offset: float, seed: int) -> None:
    D, X = cone_problem(n_words, d, offset, seed)
    X[4] = 0
    indices, weights, gap = nonnegative_projection(D, X)
    W = dense(indices, weights, n_words)
    size = np.linalg.norm(X, axis=1)
    for row in range(5):
        theirs, distance = nnls(D.T, X[row], maxiter=100 * n_words)
        assert np.abs(W[row] @ D - theirs @ D).max() <= 1e-7 * size[row]
        residual = X[row] - W[row] @ D
        assert np.linalg.norm(residual) <= distance + 1e-8 * size[row]
        norms = np.linalg.norm(D, axis=1)
        assert ((D @ residual) <= 1e-7 * size[row] * norms + 1e-300).all()
    assert (W >= 0).all()
    assert (gap <= 1e-6).all()
    assert not W[4].any()
    assert n_words <= 2 or not W[:, 1].any()
    # Largest weight first, padded at the end.
    assert (np.diff(weights, axis=1) <= 0).all()
    assert ((weights > 0) == (indices >= 0)).all()


def test_planted_weights_are_found() -> None:
    """With independent words, the weights are unique."""
    rng = np.random.default_rng(0)
    D, truth = rng.normal(size=(12, 30)), rng.poisson(0.5, size=(20, 12)).astype(float)
    indices, weights, gap = nonnegative_projection(D, truth @ D)
    assert np.allclose(dense(indices, weights, 12), truth, atol=1e-12)
    assert gap.max() < 1e-12


def test_more_rounds_than_one_end_at_the_minimum() -> None:
    """A cone of many narrow words: the best ones are not those of largest correlation."""
    rng = np.random.default_rng(0)
    D = np.abs(rng.normal(size=(400, 12))) ** 3
    X = rng.normal(size=(6, 12))
    indices, weights, _ = nonnegative_projection(D, X)
    for row, w in enumerate(dense(indices, weights, 400)):
        assert np.isclose(np.linalg.norm(X[row] - w @ D), nnls(D.T, X[row])[1], rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_coder_without_penalty_equals_the_batched_solver(dtype: torch.dtype) -> None:
    D, X = cone_problem(20, 40, 0.3, seed=1)
    D[1] = D[0] + 1
    indices, weights, gap = SparseCoder(D, torch.device("cpu"), dtype).decompose(X, 0.0)
    batched = nonnegative_lasso(torch.from_numpy(D), torch.from_numpy(X), 0.0)
    ours, theirs = dense(indices, weights, 20), dense(batched.indices.numpy(), batched.weights.numpy(), 20)
    assert weights.dtype == np.dtype(str(dtype).removeprefix("torch."))
    assert gap.dtype == np.float64
    scale = np.abs(theirs).max(axis=1, keepdims=True)
    assert np.abs(ours - theirs).max() <= (1e-3 if dtype == torch.float32 else 1e-9) * scale.max()
    empty = SparseCoder(D, torch.device("cpu"), dtype).decompose(X[:0], 0.0)
    assert [len(part) for part in empty] == [0, 0, 0]


def test_splice_warns_of_weights_that_are_not_unique() -> None:
    rng = np.random.default_rng(0)
    concepts, X = rng.normal(size=(60, 8)), rng.normal(size=(10, 8))
    many = SpLiCEExtractor(concepts, l1_strength=0).fit(X)
    with pytest.warns(UserWarning, match=r"60 concepts in 8 dimensions: the weights are not unique"):
        quality = many.decomposition_quality(X)
    assert quality.cosine.min() > 1 - 1e-9
    assert quality.l0.max() <= 8
    few = SpLiCEExtractor(concepts[:8], l1_strength=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few.transform(X)
        many.set_params(l1_strength=0.1).transform(X)


def test_collinear_words_that_stop_scipy_early() -> None:
    """Rows whose gap is large are solved again; here the first solver is replaced by one that fails."""
    D, X = cone_problem(20, 10, 0.3, seed=0)
    exact = SparseCoder(D, torch.device("cpu"), torch.float64).decompose(X, 0.0)
    failing = mock.Mock(return_value=(np.array([[3]] * 5), np.ones((5, 1)), np.array([1.0, 0, 1, 0, 1])))
    with mock.patch.object(lasso, "nonnegative_projection", failing):
        indices, weights, gap = SparseCoder(D, torch.device("cpu"), torch.float64).decompose(X, 0.0)
    assert gap.max() < 1e-9
    ours, expected = dense(indices, weights, 20), dense(exact[0], exact[1], 20)
    assert np.allclose(ours[[0, 2, 4]] @ D, expected[[0, 2, 4]] @ D, atol=1e-6 * np.abs(X).max())
    assert (ours[[1, 3]] == np.eye(20)[3]).all()

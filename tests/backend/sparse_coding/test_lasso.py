"""Non-negative codes: against scikit-learn and SciPy, by optimality conditions, by invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import Lasso

from flip_sklearn.backend.sparse_coding import lasso as nonnegative
from flip_sklearn.backend.sparse_coding.active_set import minimize_quadratic
from flip_sklearn.backend.sparse_coding.lasso import Decomposition, nonnegative_lasso

KINDS = ("plain", "lengths", "twins", "collinear", "low rank", "one side", "zeros")


def dictionary(kind: str, n_words: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Words of the kinds that solvers fear."""
    D = rng.normal(size=(n_words, d))
    if kind == "lengths":
        D *= np.geomspace(1e-2, 1e2, n_words)[:, None]
    elif kind == "twins":
        D[n_words // 2 :] = D[: n_words - n_words // 2]
    elif kind == "collinear":
        D[n_words // 2 :] = -3 * D[: n_words - n_words // 2]
    elif kind == "low rank":
        D = D[:, : max(1, d // 3)] @ rng.normal(size=(max(1, d // 3), d))
    elif kind == "one side":
        D = 5 * rng.normal(size=d) + 0.1 * D
    elif kind == "zeros":
        D[::3] = 0
    return D


def solve(D: np.ndarray, X: np.ndarray, l1: float, **options: float) -> Decomposition:
    return nonnegative_lasso(torch.from_numpy(D), torch.from_numpy(X), l1, **options)


def dense(found: Decomposition, n_words: int) -> np.ndarray:
    """All weights (n, V), float64."""
    indices, weights = found.indices.numpy(), found.weights.numpy().astype(np.float64)
    W = np.zeros((len(indices), n_words + 1))  # the last column takes the padding
    np.put_along_axis(W, indices, weights, axis=1)
    assert not W[:, -1].any()
    return W[:, :-1]


def objective(D: np.ndarray, X: np.ndarray, W: np.ndarray, l1: float) -> np.ndarray:
    return ((X - W @ D) ** 2).sum(axis=1) + l1 * W.sum(axis=1)


def by_lasso(D: np.ndarray, x: np.ndarray, l1: float) -> np.ndarray:
    """scikit-learn minimizes |x - D^T w|^2 / (2 d) + alpha |w|_1."""
    lasso = Lasso(l1 / (2 * len(x)), positive=True, fit_intercept=False, tol=1e-12, max_iter=100000)
    return lasso.fit(D.T, x).coef_


# --- Two ways agree --------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n_words=st.integers(2, 60),
    d=st.integers(1, 25),
    share=st.floats(0.05, 1.1),
    seed=st.integers(0, 10**6),
)
def test_the_objective_is_that_of_scikit_learn(
    kind: str, n_words: int, d: int, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    D, X = dictionary(kind, n_words, d, rng), rng.normal(size=(4, d))
    l1 = share * 2 * float(np.abs(X @ D.T).max())
    found = solve(D, X, l1)
    ours = objective(D, X, dense(found, n_words), l1)
    theirs = objective(D, X, np.stack([by_lasso(D, x, l1) for x in X]), l1)
    size = (X**2).sum(axis=1)
    # Never worse; scikit-learn may be where it stops before its own tolerance.
    assert (ours <= theirs + 1e-9 * size).all()
    # And the gap bounds what any other point could gain.
    assert (ours - theirs <= (found.gap.numpy() + 1e-12) * size).all()
    assert (theirs - ours <= 1e-5 * size).all()


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n_words=st.integers(1, 60),
    d=st.integers(1, 25),
    seed=st.integers(0, 10**6),
)
def test_without_penalty_it_is_scipy_nnls(kind: str, n_words: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    D, X = dictionary(kind, n_words, d, rng), rng.normal(size=(4, d))
    found = solve(D, X, 0.0)
    W = dense(found, n_words)
    residual = X - W @ D
    size = (X**2).sum(axis=1)
    theirs = np.array([nnls(D.T, x)[0] for x in X])
    assert (objective(D, X, W, 0) <= objective(D, X, theirs, 0) + 1e-9 * size).all()
    # The projection is unique, although the weights need not be.
    np.testing.assert_allclose(residual, X - theirs @ D, atol=1e-5 * np.sqrt(size.max()))
    # It lies in the polar cone, orthogonal to what was taken away.
    lengths = np.linalg.norm(D, axis=1)
    assert (residual @ D.T <= 1e-8 * lengths * np.sqrt(size)[:, None] + 1e-14).all()
    assert (np.abs((residual * (W @ D)).sum(axis=1)) <= 1e-8 * size).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_optimality_conditions(kind: str, share: float) -> None:
    rng = np.random.default_rng(3)
    D, X = dictionary(kind, 400, 30, rng), rng.normal(size=(40, 30))
    l1 = share * 2 * float(np.abs(X @ D.T).max())
    found = solve(D, X, l1)
    W = dense(found, len(D))
    lengths, size = np.linalg.norm(D, axis=1), np.linalg.norm(X, axis=1)[:, None]
    slope = ((X - W @ D) @ D.T - l1 / 2) / np.maximum(lengths, 1e-300) / size
    assert (slope[:, lengths > 0] < 1e-6).all()
    assert (np.abs(slope[W > 0]) < 1e-9).all()
    assert (found.gap <= 1e-9).all()
    assert (W[:, lengths == 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_single_precision_is_close(kind: str, share: float) -> None:
    rng = np.random.default_rng(5)
    D, X = dictionary(kind, 300, 30, rng), rng.normal(size=(20, 30))
    l1 = share * 2 * float(np.abs(X @ D.T).max())
    best = objective(D, X, dense(solve(D, X, l1), len(D)), l1)
    found = solve(D.astype(np.float32), X.astype(np.float32), l1)
    assert found.weights.dtype == torch.float32
    size = (X**2).sum(axis=1)
    assert (objective(D, X, dense(found, len(D)), l1) <= best + 1e-5 * size).all()


@pytest.mark.parametrize("l1", [0.0, 5.0])
def test_the_gap_bounds_the_distance_of_an_unfinished_solution(l1: float) -> None:
    """Stopped after each round, the gap is above the true distance; at the end both are zero."""
    rng = np.random.default_rng(0)
    D, X = dictionary("one side", 500, 30, rng), rng.normal(size=(20, 30))
    X += D[:20] / 5
    finished = dense(solve(D, X, l1), len(D))
    best, size, gaps = objective(D, X, finished, l1), (X**2).sum(axis=1), []
    lengths = np.linalg.norm(D, axis=1)
    for rounds in (1, 2, 3, 50):
        found = solve(D, X, l1, max_rounds=rounds)
        W = dense(found, len(D))
        above = (objective(D, X, W, l1) - best) / size
        # Without penalty the bound is one among weights of a bounded sum.
        bounded = finished @ lengths <= np.sqrt(size) + 2 * W @ lengths
        holds = found.gap.numpy() >= above - 1e-12
        assert holds[bounded | (l1 > 0)].all()
        gaps.append(float(found.gap.max()))
    assert gaps[0] > 0.1  # negative control: an unfinished solution shows
    assert gaps[-1] < 1e-10


# --- Theorems --------------------------------------------------------------------------------


def test_from_the_largest_correlation_on_nothing_is_left() -> None:
    rng = np.random.default_rng(0)
    D, X = rng.normal(size=(50, 8)), rng.normal(size=(6, 8))
    highest = 2 * (X @ D.T).max(axis=1)
    for x, l1 in zip(X, highest, strict=True):
        assert solve(D, x[None], l1 * 1.0001).indices.shape == (1, 0)
        assert solve(D, x[None], l1 * 0.999).indices.shape == (1, 1)


def test_planted_codes_are_recovered() -> None:
    """Few words of an incoherent dictionary, little penalty: exactly these words, all but their weights."""
    rng = np.random.default_rng(0)
    D = rng.normal(size=(2000, 256)) / 16
    words = np.stack([rng.choice(2000, size=5, replace=False) for _ in range(30)])
    weights = rng.uniform(1, 2, size=words.shape)
    found = solve(D, np.einsum("nk,nkd->nd", weights, D[words]), 0.02)
    np.testing.assert_array_equal(np.sort(found.indices, axis=1), np.sort(words, axis=1))
    np.testing.assert_allclose(
        dense(found, 2000)[np.arange(30)[:, None], words], weights, atol=0.05
    )


def test_order_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    D, X, l1 = rng.normal(size=(200, 20)), rng.normal(size=(15, 20)), 6.0
    W = dense(solve(D, X, l1), 200)
    shuffled = rng.permutation(200)
    np.testing.assert_allclose(dense(solve(D[shuffled], X, l1), 200), W[:, shuffled], atol=1e-8)
    rows = rng.permutation(15)
    np.testing.assert_allclose(dense(solve(D, X[rows], l1), 200), W[rows], atol=1e-8)
    np.testing.assert_allclose(dense(solve(D, 7 * X, 7 * l1), 200), 7 * W, atol=1e-7)
    np.testing.assert_allclose(dense(solve(7 * D, X, 7 * l1), 200), W / 7, atol=1e-8)
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    np.testing.assert_allclose(dense(solve(D @ turn, X @ turn, l1), 200), W, atol=1e-8)
    # Of words of different lengths the cone does not depend on them.
    lengths = rng.uniform(0.1, 10, size=(200, 1))
    np.testing.assert_allclose(
        dense(solve(D * lengths, X, 0.0), 200) @ (D * lengths),
        dense(solve(D, X, 0.0), 200) @ D,
        atol=1e-6,
    )


def test_twins_share_their_weight() -> None:
    D = np.eye(4)[[0, 0, 0, 1]]
    found = solve(D, np.array([[3.0, 0, 0, 0]]), 0.0)
    np.testing.assert_allclose(dense(found, 4), [[1, 1, 1, 0]], atol=1e-6)


def test_rows_with_nothing_to_say() -> None:
    """Zero, and all correlations negative: no words, and others are not disturbed."""
    D = np.abs(np.random.default_rng(0).normal(size=(30, 6)))
    X = np.stack([np.zeros(6), -np.ones(6), D[3]])
    for l1 in (0.0, 0.1):
        found = solve(D, X, l1)
        assert (found.indices[:2] == -1).all()
        assert (found.weights[:2] == 0).all()
        assert found.indices[2, 0] == 3
        assert torch.isfinite(found.gap).all()
    assert solve(D, np.zeros((0, 6)), 0.1).indices.shape == (0, 0)


def test_words_come_largest_weight_first() -> None:
    rng = np.random.default_rng(0)
    found = solve(rng.normal(size=(200, 20)), rng.normal(size=(30, 20)), 3.0)
    assert (found.weights[:, 1:] <= found.weights[:, :-1]).all()
    assert ((found.weights > 0) == (found.indices >= 0)).all()
    assert (found.weights > 0).any(dim=0).all()  # no column is padding alone


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    D, X = rng.normal(size=(150, 15)), rng.normal(size=(20, 15))
    whole = dense(solve(D, X, 3.0), 150)
    told: list[int] = []
    monkeypatch.setattr(nonnegative, "ROWS", {"cpu": 7})
    monkeypatch.setattr(nonnegative, "SMALL_ELEMENTS", {"cpu": 500})
    monkeypatch.setattr(nonnegative, "MIN_SMALL_ROWS", 2)
    monkeypatch.setattr(nonnegative, "GATHERED_ELEMENTS", {"cpu": 1000})
    monkeypatch.setattr(nonnegative, "rows_per_block", lambda *_: 3)
    parts = solve(D, X, 3.0, after_rows=told.append)
    np.testing.assert_allclose(dense(parts, 150), whole, atol=1e-8)
    assert sum(told) == 20
    again = solve(D, X, 3.0)
    assert torch.equal(again.indices, parts.indices)
    assert torch.equal(again.weights, parts.weights)


@settings(max_examples=60, deadline=None)
@given(s=st.integers(1, 12), rank=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_small_problems(s: int, rank: int, seed: int) -> None:
    """The batched active sets against SciPy, from any start, with slots that are not in use."""
    rng = np.random.default_rng(seed)
    D = rng.normal(size=(5, s, rank))
    D /= np.linalg.norm(D, axis=2, keepdims=True)
    x = rng.normal(size=(5, rank))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    allowed = rng.random((5, s)) < 0.8
    D *= allowed[:, :, None]
    start = rng.random((5, s)) * allowed * (rng.random((5, s)) < 0.5)
    G, b = D @ D.transpose(0, 2, 1), np.einsum("msd,md->ms", D, x)
    w = minimize_quadratic(*map(torch.from_numpy, (G, b, start, allowed))).numpy()
    assert (w >= 0).all()
    assert (w[~allowed] == 0).all()
    for i in range(5):
        best = nnls(D[i].T, x[i])[1]
        assert np.linalg.norm(x[i] - w[i] @ D[i]) <= best + 1e-8


# --- What is not allowed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("D", "X", "l1", "message"),
    [
        (torch.ones(3, 2), torch.ones(1, 2), -0.1, "l1=-0.1"),
        (torch.ones(3, 2), torch.ones(1, 2), float("nan"), "l1=nan"),
        (torch.ones(3, 2), torch.ones(1, 3), 0.1, "do not match"),
        (torch.ones(0, 2), torch.ones(1, 2), 0.1, "no rows"),
        (torch.ones(3, 2).double(), torch.ones(1, 2), 0.1, "float64"),
        (torch.ones(3, 2).half(), torch.ones(1, 2).half(), 0.1, "float16"),
        (torch.ones(3, 2), torch.ones(1, 2, device="meta"), 0.1, "meta"),
    ],
)
def test_what_is_not_allowed(D: torch.Tensor, X: torch.Tensor, l1: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nonnegative_lasso(D, X, l1)

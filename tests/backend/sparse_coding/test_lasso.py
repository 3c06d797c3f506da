"""Non-negative Lasso: compared with scikit-learn and SciPy, optimality conditions and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import Lasso

from flip_sklearn.backend.device import resolve_device
from flip_sklearn.backend.sparse_coding import lasso as lasso_module
from flip_sklearn.backend.sparse_coding.active_set import minimize_quadratic
from flip_sklearn.backend.sparse_coding.lasso import Decomposition, nonnegative_lasso

DEVICE = resolve_device("auto").type
KINDS = ("plain", "norms", "duplicates", "collinear", "low rank", "one direction", "zeros")


def dictionary(kind: str, n_words: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Return words of a kind that is difficult for solvers."""
    D = rng.normal(size=(n_words, d))
    if kind == "norms":
        D *= np.geomspace(1e-2, 1e2, n_words)[:, None]
    elif kind == "duplicates":
        D[n_words // 2 :] = D[: n_words - n_words // 2]
    elif kind == "collinear":
        D[n_words // 2 :] = -3 * D[: n_words - n_words // 2]
    elif kind == "low rank":
        D = D[:, : max(1, d // 3)] @ rng.normal(size=(max(1, d // 3), d))
    elif kind == "one direction":
        D = 5 * rng.normal(size=d) + 0.1 * D
    elif kind == "zeros":
        D[::3] = 0
    return D


def solve(D: np.ndarray, X: np.ndarray, l1: float, **options: float) -> Decomposition:
    on_device = (torch.from_numpy(array).to(DEVICE) for array in (D, X))
    result = nonnegative_lasso(*on_device, l1, **options)
    tensors = (tensor.cpu() for tensor in (result.indices, result.weights, result.gap))
    return Decomposition(*tensors, result.n_rounds)


def dense(result: Decomposition, n_words: int) -> np.ndarray:
    """Return all weights (n, V) in float64."""
    indices, weights = result.indices.numpy(), result.weights.numpy().astype(np.float64)
    W = np.zeros((len(indices), n_words + 1))  # padding, -1, goes to the last column
    np.put_along_axis(W, indices, weights, axis=1)
    assert not W[:, -1].any()
    return W[:, :-1]


def objective(D: np.ndarray, X: np.ndarray, W: np.ndarray, l1: float) -> np.ndarray:
    return ((X - W @ D) ** 2).sum(axis=1) + l1 * W.sum(axis=1)


def by_lasso(D: np.ndarray, x: np.ndarray, l1: float) -> np.ndarray:
    """Solve with scikit-learn, which minimizes |x - D^T w|^2 / (2 d) + alpha |w|_1."""
    lasso = Lasso(l1 / (2 * len(x)), positive=True, fit_intercept=False, tol=1e-12, max_iter=100000)
    return lasso.fit(D.T, x).coef_


# --- Agreement with other solvers ------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n_words=st.integers(2, 60),
    d=st.integers(1, 25),
    share=st.floats(0.05, 1.1),
    seed=st.integers(0, 10**6),
)
def test_objective_equals_that_of_scikit_learn(
    kind: str, n_words: int, d: int, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    D, X = dictionary(kind, n_words, d, rng), rng.normal(size=(4, d))
    l1 = share * 2 * float(np.abs(X @ D.T).max())
    result = solve(D, X, l1)
    ours = objective(D, X, dense(result, n_words), l1)
    theirs = objective(D, X, np.stack([by_lasso(D, x, l1) for x in X]), l1)
    size = (X**2).sum(axis=1)
    # Never worse; scikit-learn may be worse if it stops before its tolerance is reached.
    assert (ours <= theirs + 1e-9 * size).all()
    # The gap bounds the improvement by any other point.
    assert (ours - theirs <= (result.gap.numpy() + 1e-12) * size).all()
    assert (theirs - ours <= 1e-5 * size).all()


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS), n_words=st.integers(1, 60), d=st.integers(1, 25), seed=st.integers(0, 10**6)
)
def test_without_penalty_the_projection_equals_scipy_nnls(kind: str, n_words: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    D, X = dictionary(kind, n_words, d, rng), rng.normal(size=(4, d))
    result = solve(D, X, 0.0)
    W = dense(result, n_words)
    residual = X - W @ D
    size = (X**2).sum(axis=1)
    theirs = np.array([nnls(D.T, x)[0] for x in X])
    assert (objective(D, X, W, 0) <= objective(D, X, theirs, 0) + 1e-9 * size).all()
    # The projection is unique, but the weights need not be.
    np.testing.assert_allclose(residual, X - theirs @ D, atol=1e-5 * np.sqrt(size.max()))
    # The residual is in the polar cone and orthogonal to the projection.
    lengths = np.linalg.norm(D, axis=1)
    assert (residual @ D.T <= 1e-8 * lengths * np.sqrt(size)[:, None] + 1e-14).all()
    assert (np.abs((residual * (W @ D)).sum(axis=1)) <= 1e-8 * size).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_optimality_conditions(kind: str, share: float) -> None:
    rng = np.random.default_rng(3)
    D, X = dictionary(kind, 400, 30, rng), rng.normal(size=(40, 30))
    l1 = share * 2 * float(np.abs(X @ D.T).max())
    result = solve(D, X, l1)
    W = dense(result, len(D))
    lengths, size = np.linalg.norm(D, axis=1), np.linalg.norm(X, axis=1)[:, None]
    slope = ((X - W @ D) @ D.T - l1 / 2) / np.maximum(lengths, 1e-300) / size
    assert (slope[:, lengths > 0] < 1e-6).all()
    assert (np.abs(slope[W > 0]) < 1e-9).all()
    assert (result.gap <= 1e-9).all()
    assert (W[:, lengths == 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_float32_is_close(kind: str, share: float) -> None:
    rng = np.random.default_rng(5)
    D, X = dictionary(kind, 300, 30, rng), rng.normal(size=(20, 30))
    l1 = share * 2 * float(np.abs(X @ D.T).max())
    best = objective(D, X, dense(solve(D, X, l1), len(D)), l1)
    result = solve(D.astype(np.float32), X.astype(np.float32), l1)
    assert result.weights.dtype == torch.float32
    size = (X**2).sum(axis=1)
    assert (objective(D, X, dense(result, len(D)), l1) <= best + 1e-5 * size).all()


@pytest.mark.parametrize("l1", [0.0, 5.0])
def test_gap_bounds_the_error_of_an_unfinished_solution(l1: float) -> None:
    """After any number of rounds the gap is at least the true error; at the end both are zero."""
    rng = np.random.default_rng(0)
    D, X = dictionary("one direction", 500, 30, rng), rng.normal(size=(20, 30))
    X += D[:20] / 5
    finished = dense(solve(D, X, l1), len(D))
    best, size, gaps = objective(D, X, finished, l1), (X**2).sum(axis=1), []
    lengths = np.linalg.norm(D, axis=1)
    for rounds in (1, 2, 3, 50):
        result = solve(D, X, l1, max_rounds=rounds)
        W = dense(result, len(D))
        above = (objective(D, X, W, l1) - best) / size
        # Without a penalty the gap compares only with weights of a bounded sum.
        bounded = finished @ lengths <= np.sqrt(size) + 2 * W @ lengths
        holds = result.gap.numpy() >= above - 1e-12
        assert holds[bounded | (l1 > 0)].all()
        gaps.append(float(result.gap.max()))
    assert gaps[0] > 0.1  # negative control: an unfinished solution has a gap
    assert gaps[-1] < 1e-10


# --- Known solutions and invariances ---------------------------------------------------------


def test_solution_is_zero_from_twice_the_largest_correlation_on() -> None:
    rng = np.random.default_rng(0)
    D, X = rng.normal(size=(50, 8)), rng.normal(size=(6, 8))
    highest = 2 * (X @ D.T).max(axis=1)
    for x, l1 in zip(X, highest, strict=True):
        assert solve(D, x[None], l1 * 1.0001).indices.shape == (1, 0)
        assert solve(D, x[None], l1 * 0.999).indices.shape == (1, 1)


def test_planted_codes_are_recovered() -> None:
    """With an incoherent dictionary and a small penalty: exactly the words, and nearly the weights."""
    rng = np.random.default_rng(0)
    D = rng.normal(size=(2000, 256)) / 16
    words = np.stack([rng.choice(2000, size=5, replace=False) for _ in range(30)])
    weights = rng.uniform(1, 2, size=words.shape)
    result = solve(D, np.einsum("nk,nkd->nd", weights, D[words]), 0.02)
    np.testing.assert_array_equal(np.sort(result.indices, axis=1), np.sort(words, axis=1))
    np.testing.assert_allclose(dense(result, 2000)[np.arange(30)[:, None], words], weights, atol=0.05)


def test_solution_is_equivariant_under_order_scale_and_rotation() -> None:
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
    # Without a penalty the projection does not depend on the norms of the words.
    lengths = rng.uniform(0.1, 10, size=(200, 1))
    np.testing.assert_allclose(
        dense(solve(D * lengths, X, 0.0), 200) @ (D * lengths), dense(solve(D, X, 0.0), 200) @ D, atol=1e-6
    )


def test_duplicates_share_their_weight() -> None:
    D = np.eye(4)[[0, 0, 0, 1]]
    result = solve(D, np.array([[3.0, 0, 0, 0]]), 0.0)
    np.testing.assert_allclose(dense(result, 4), [[1, 1, 1, 0]], atol=1e-6)


def test_rows_without_positive_correlations_have_no_words() -> None:
    """A zero row and a row with negative correlations only; other rows are not affected."""
    D = np.abs(np.random.default_rng(0).normal(size=(30, 6)))
    X = np.stack([np.zeros(6), -np.ones(6), D[3]])
    for l1 in (0.0, 0.1):
        result = solve(D, X, l1)
        assert (result.indices[:2] == -1).all()
        assert (result.weights[:2] == 0).all()
        assert result.indices[2, 0] == 3
        assert torch.isfinite(result.gap).all()
    assert solve(D, np.zeros((0, 6)), 0.1).indices.shape == (0, 0)


def test_words_are_ordered_by_weight() -> None:
    rng = np.random.default_rng(0)
    result = solve(rng.normal(size=(200, 20)), rng.normal(size=(30, 20)), 3.0)
    assert (result.weights[:, 1:] <= result.weights[:, :-1]).all()
    assert ((result.weights > 0) == (result.indices >= 0)).all()
    assert (result.weights > 0).any(dim=0).all()  # no column has only padding


def test_solution_does_not_depend_on_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    D, X = rng.normal(size=(150, 15)), rng.normal(size=(20, 15))
    whole = dense(solve(D, X, 3.0), 150)
    monkeypatch.setitem(lasso_module.ROWS, DEVICE, 7)
    monkeypatch.setitem(lasso_module.SMALL_ELEMENTS, DEVICE, 500)
    monkeypatch.setattr(lasso_module, "MIN_SMALL_ROWS", 2)
    monkeypatch.setitem(lasso_module.GATHERED_ELEMENTS, DEVICE, 1000)
    monkeypatch.setattr(lasso_module, "rows_per_block", lambda *_: 3)
    parts = solve(D, X, 3.0)
    np.testing.assert_allclose(dense(parts, 150), whole, atol=1e-8)
    again = solve(D, X, 3.0)
    assert torch.equal(again.indices, parts.indices)
    assert torch.equal(again.weights, parts.weights)


@settings(max_examples=60, deadline=None)
@given(s=st.integers(1, 12), rank=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_active_sets_equal_scipy_nnls(s: int, rank: int, seed: int) -> None:
    """From any initial point, with slots that are not in use."""
    rng = np.random.default_rng(seed)
    D = rng.normal(size=(5, s, rank))
    D /= np.linalg.norm(D, axis=2, keepdims=True)
    x = rng.normal(size=(5, rank))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    allowed = rng.random((5, s)) < 0.8
    D *= allowed[:, :, None]
    start = rng.random((5, s)) * allowed * (rng.random((5, s)) < 0.5)
    G, b = D @ D.transpose(0, 2, 1), np.einsum("msd,md->ms", D, x)
    arrays = (torch.from_numpy(array) for array in (G, b, start, allowed))
    w = minimize_quadratic(*arrays).numpy()
    assert (w >= 0).all()
    assert (w[~allowed] == 0).all()
    for i in range(5):
        best = nnls(D[i].T, x[i])[1]
        assert np.linalg.norm(x[i] - w[i] @ D[i]) <= best + 1e-8


# --- Errors ----------------------------------------------------------------------------------


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
def test_invalid_arguments_are_refused(D: torch.Tensor, X: torch.Tensor, l1: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nonnegative_lasso(D, X, l1)

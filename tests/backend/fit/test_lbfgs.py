"""L-BFGS: it reaches the optimum that the reference solver certifies, in few iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from flip_sklearn import FLiPExtractor, kkt_residual, regularization_path
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit import preconditioner as preconditioning
from flip_sklearn.backend.fit.data import CountDataset, WhitenedDataset
from flip_sklearn.backend.fit.lbfgs import LBFGS
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters, normalize_rows_
from flip_sklearn.backend.fit.preconditioner import Preconditioner
from tests.backend import reference
from tests.helpers.planted import Planted

N_WORDS = 12
CPU64 = resolve_compute("cpu", "float64")


def model(**settings: Any) -> FLiPExtractor:
    defaults = dict(solver="lbfgs", rank=None, l1_strength=0.0, precision="float64", device="cpu", tol=1e-7)
    words = [f"word {j}" for j in range(N_WORDS)]
    return FLiPExtractor(**{**defaults, "vocabulary": words, "random_state": 0, **settings})


def optimum(small: Planted, flip: FLiPExtractor, l1: float, l2: float) -> float:
    """J at the optimum that the reference solver finds in the whitened coordinates of a fit."""
    h = torch.from_numpy((small.X - flip.embedding_mean_) @ flip.projection_.T)
    Y, w = torch.from_numpy(small.Y.toarray()), torch.ones(len(small.X), dtype=torch.float64)
    A, b = reference.proximal_gradient(h, Y, w, l1=l1, l2=l2)
    return float(reference.objective(h, Y, w, A, b, l1, l2))


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 20.0), (0.0, 1.0), (0.05, 20.0), (0.3, 0.0)])
def test_convex_fit_reaches_the_reference_optimum(small: Planted, l1: float, l2: float) -> None:
    flip = model(l1_strength=l1, l2_strength=l2).fit(small.X, small.Y)
    best = optimum(small, flip, l1, l2)
    assert flip.history_["loss"][-1] == pytest.approx(best, rel=1e-9)
    assert flip.kkt_residual_ <= 1e-7
    assert kkt_residual(flip, small.X, small.Y) == pytest.approx(flip.kkt_residual_, abs=1e-9)
    assert flip.n_iter_ < 100
    stochastic = model(l1_strength=l1, l2_strength=l2, solver="exact", max_iter=flip.n_iter_)
    stochastic.fit(small.X, small.Y)  # negative control
    assert stochastic.history_["loss"][-1] > best * (1 + 1e-5)


def test_float32_reaches_the_optimum_within_its_rounding(small: Planted) -> None:
    flip = model(precision="float32", l2_strength=1.0, tol=1e-4).fit(small.X.astype(np.float32), small.Y)
    assert flip.kkt_residual_ <= 1e-4
    assert flip.history_["loss"][-1] == pytest.approx(optimum(small, flip, 0.0, 1.0), rel=1e-6)


def test_predicted_totals_equal_the_counts(small: Planted) -> None:
    flip = model(l1_strength=0.05).fit(small.X, small.Y)
    predicted = small.Y.sum(axis=1) @ flip.predict_proba(small.X)
    np.testing.assert_allclose(predicted, small.Y.sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("l1", [0.0, 0.05])
def test_factorized_fit_falls_to_a_stationary_point(small: Planted, l1: float) -> None:
    flip = model(rank=4, l1_strength=l1, tol=1e-4).fit(small.X, small.Y)
    assert np.all(np.diff(flip.history_["loss"]) <= 1e-12)
    assert flip.kkt_residual_ <= 1e-4
    again = model(rank=4, l1_strength=l1, tol=1e-4, warm_start=True)
    again.__dict__ |= {name: value for name, value in vars(flip).items() if name.endswith("_")}
    again.fit(small.X, small.Y)  # starts at the point, without stochastic passes
    assert again.n_iter_ < flip.n_iter_ / 3
    assert flip.history_["loss"][-1] - 1e-3 < again.history_["loss"][0] <= flip.history_["loss"][-1] + 1e-9


def problem(*, rank: int | None, n_words: int = 9) -> tuple[WhitenedDataset, Parameters, CountDataset]:
    rng = np.random.default_rng(0)
    n, d = 40, 6
    Y = rng.poisson(np.geomspace(0.05, 2, n_words), size=(n, n_words))
    rows = CountDataset(rng.normal(size=(n, d)), _csr(Y), rng.uniform(0.5, 2, n))
    data = WhitenedDataset(rows, torch.zeros(d).double(), torch.eye(d).double(), CPU64)
    B = None
    if rank is not None:
        B = torch.from_numpy(rng.normal(size=(rank, d)))
        normalize_rows_(B)
    A = torch.from_numpy(rng.normal(size=(n_words, rank or d)))
    A[0, 0] = 0.0
    return data, Parameters(A, B, torch.from_numpy(rng.normal(size=n_words))), rows


def _csr(Y: np.ndarray) -> Any:
    import scipy.sparse as sp

    return sp.csr_array(Y.astype(np.float64))


@pytest.mark.parametrize("rank", [None, 4])
def test_gradient_in_all_variables(rank: int | None) -> None:
    data, start, rows = problem(rank=rank)
    lbfgs = LBFGS(data, Workspace(CPU64), start, l1=0.0, l2=0.7)
    x = lbfgs.x * 1.3  # rows of C need not have unit norm
    point = lbfgs._evaluate(x)
    variables = x.clone().requires_grad_()
    A, b, C = lbfgs._split(variables)
    h = torch.from_numpy(rows.X)
    if C is not None:
        h = h @ (C / torch.linalg.vector_norm(C, dim=1, keepdim=True)).T
    Y, w = torch.from_numpy(rows.counts.toarray()), torch.from_numpy(rows.weights)
    J = reference.objective(h, Y, w, A, b, 0.0, 0.7)
    J.backward()
    assert point.value == pytest.approx(float(J.detach()), rel=1e-12)
    torch.testing.assert_close(point.gradient, variables.grad)


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("n_covered", [0, 4, 9])
def test_preconditioner_is_the_inverse_of_its_definition(
    rank: int | None, n_covered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, at, rows = problem(rank=rank)
    n_words, r = at.A.shape
    Y, w = rows.counts.toarray(), rows.weights
    n_rows, l2 = (Y > 0).sum(axis=0), 0.7
    size = 2 ** np.ceil(np.log2(n_rows)).astype(int)
    elements = np.where(size > r / 2, (r + 1) ** 2, size * (r + 1 + 2 * size))
    order = np.argsort(n_rows, kind="stable")
    monkeypatch.setattr(
        preconditioning, "MAX_BYTES", 8 * int(np.cumsum(elements[order])[n_covered - 1]) if n_covered else 0
    )
    monkeypatch.setattr(preconditioning, "GATHER_ROWS", 16)
    assert (size <= r / 2).any()
    assert (size > r / 2).any()
    h = rows.X if at.B is None else rows.X @ at.B.numpy().T
    extended = np.column_stack([h, np.ones(len(h))])
    theta = torch.softmax(torch.from_numpy(h) @ at.A.T + at.b, dim=1).numpy()
    curvature = (w * Y.sum(axis=1))[:, None] * theta * (1 - theta)
    counts = w @ Y
    expected = []
    for j in range(n_words):
        has_word = Y[:, j] > 0
        ridge, floor = np.diag([l2] * r + [0.0]), 1e-3 * max(1.0, counts[j])
        H = counts[j] * np.eye(r + 1) + ridge
        if j in order[:n_covered]:
            others = curvature[~has_word, j].sum()
            inside = (extended[has_word] * curvature[has_word, j][:, None]).T @ extended[has_word]
            C = np.eye(r + 1)
            if size[j] > r / 2:
                C[:r, :r] = np.eye(r) if at.B is None else at.B.numpy() @ at.B.numpy().T
                H = inside + others * C + ridge + floor * np.eye(r + 1)
            else:
                H = inside + np.diag(np.maximum(np.diag(others * C + ridge), floor))
        expected.append(np.linalg.inv(H) * (w @ Y.sum(axis=1)))
    gradient = np.random.default_rng(1).normal(size=(n_words, r + 1))
    A, b = torch.from_numpy(gradient[:, :r].copy()), torch.from_numpy(gradient[:, r].copy())
    Preconditioner(data, at, l2, Workspace(CPU64)).apply(A, b, None)
    got = np.column_stack([A.numpy(), b.numpy()])
    np.testing.assert_allclose(got, np.einsum("jkl,jl->jk", np.stack(expected), gradient), rtol=1e-8)


def test_held_out_rows_end_the_fit_early(small: Planted) -> None:
    flip = model(early_stopping=True, l2_strength=0.0, n_iter_no_change=3, tol=1e-3).fit(small.X, small.Y)
    scores = flip.history_["validation_accuracy"]
    assert flip.best_iter_ == 1 + int(np.argmax(scores))
    assert flip.n_iter_ < 100
    assert np.isnan(model().fit(small.X, small.Y).history_["validation_accuracy"]).all()


def test_early_stopping_is_off_by_default_also_with_many_rows(small: Planted) -> None:
    X, Y = np.tile(small.X, (3, 1)), np.tile(small.Y.toarray(), (3, 1))
    assert np.isnan(model(max_iter=1).fit(X, Y).history_["validation_nll"]).all()


def test_unfinished_fit_warns(small: Planted) -> None:
    with pytest.warns(ConvergenceWarning, match=r"more than tol after 2 iterations.*raise max_iter"):
        flip = model(max_iter=2).fit(small.X, small.Y)
    assert flip.n_iter_ == 2
    assert flip.kkt_residual_ > flip.tol
    with pytest.warns(ConvergenceWarning, match="precision='float64'"):
        model(tol=0.0, precision="float32").fit(small.X, small.Y)


REFUSED: dict[str, tuple[Callable[[Planted], Any], str]] = {
    "coarse products": (lambda t: model(precision="bfloat16").fit(t.X, t.Y), "precision='bfloat16'"),
    "chunks": (lambda t: model().partial_fit(t.X, t.Y), "all rows at once"),
    "a path": (lambda t: regularization_path(t.X, t.Y, 3, estimator=model()), "warm_start=True"),
    "max_iter": (lambda t: model(max_iter="many").fit(t.X, t.Y), "max_iter='many'.*'auto'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_calls_that_do_not_fit_are_refused(small: Planted, case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(small)

"""Regularization path and KKT residual: known optima, held-out rows, settings, messages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from flip_sklearn import FLiPExtractor, kkt_residual, regularization_path
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit import objective, optimality
from flip_sklearn.backend.fit.data import CountDataset, WhitenedDataset
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Optimizer, Parameters, normalize_rows_
from flip_sklearn.backend.fit.path import word_directions, zero_start
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.state import SolverOptions
from flip_sklearn.path import RegularizationPath
from tests.backend import reference
from tests.helpers.planted import Planted, planted
from tests.helpers.processes import Child

CPU64 = resolve_compute("cpu", "float64")
TRUTH = planted(n=300, d=8, n_words=40, rank=4, length=5, seed=1)
# To the end on small data: full batches in float64.
TO_THE_END: dict[str, Any] = dict(
    precision="float64", device="cpu", batch_size=10**6, learning_rate=0.1, l2_strength=0.0,
    random_state=0, solver="exact",
)  # fmt: skip


def model(**settings: Any) -> FLiPExtractor:
    return FLiPExtractor(**{"rank": 4, "random_state": 0, "precision": "float32", **settings})


def path_of(truth: Planted = TRUTH, strengths: Any = 5, **settings: Any) -> RegularizationPath:
    return regularization_path(truth.X, truth.Y, strengths, estimator=model(**settings))


def parts(flip: FLiPExtractor) -> list[np.ndarray]:
    A = flip.word_embeddings_
    return [A.toarray() if sp.issparse(A) else A, flip.projection_, flip.bias_, flip.embedding_mean_]


def same_bits(a: RegularizationPath, b: RegularizationPath) -> bool:
    pairs = [(a.l1_strengths, b.l1_strengths)]
    for one, other in zip(a.models, b.models, strict=True):
        pairs += zip(parts(one), parts(other), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


# --- The gradient and the residual -------------------------------------------------------------


def random_problem(
    lip: bool, seed: int = 0
) -> tuple[WhitenedDataset, Parameters, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, parameters with zeros in A, and the dense latents, counts and weights of the reference."""
    rng = np.random.default_rng(seed)
    n, d, n_words, rank = 37, 5, 11, 3
    Y = sp.csr_array(rng.poisson(0.4, size=(n, n_words)).astype(float))
    w = rng.random(n) + 0.5
    rows = CountDataset(rng.normal(size=(n, d)), Y, w)
    mean, Q = torch.from_numpy(rng.normal(size=d)), torch.from_numpy(rng.normal(size=(d, d)))
    data = WhitenedDataset(rows, mean, Q, CPU64)
    A = torch.from_numpy(rng.normal(size=(n_words, d if lip else rank)))
    A[torch.from_numpy(rng.random(A.shape) < 0.5)] = 0.0
    B = None
    if not lip:
        B = torch.from_numpy(rng.normal(size=(rank, d)))
        normalize_rows_(B)
    b = torch.from_numpy(rng.normal(size=n_words))
    latent = (torch.from_numpy(rows.X) - mean) @ Q
    h = latent if B is None else latent @ B.T
    return data, Parameters(A, B, b), h, torch.from_numpy(Y.toarray()), torch.from_numpy(w)


@pytest.mark.parametrize("lip", [True, False])
@pytest.mark.parametrize("chunk", [1, 10, 512])
def test_gradients_and_residual_equal_the_reference(lip: bool, chunk: int) -> None:
    data, parameters, h, Y, w = random_problem(lip)
    work = Workspace(CPU64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "CHUNK_ROWS", chunk)
        patch.setattr(optimality, "CHECK_ELEMENTS", 2 * chunk)
        exact = objective.evaluate_smooth(data, parameters, 0.7, work)
        theirs = reference.smooth_gradients(h, Y, w, parameters.A, parameters.b, 0.7)
        for got, expected in zip((exact.grad_A, exact.grad_b), theirs, strict=True):
            torch.testing.assert_close(got, expected)
        for l1 in (0.0, 0.3, 100.0):
            got = optimality.kkt_residual(data, parameters, l1=l1, l2=0.7, work=work)
            expected = reference.kkt_residual(h, Y, w, parameters.A, parameters.b, l1=l1, l2=0.7)
            assert got == pytest.approx(len(Y.T) * expected, rel=1e-12)


def test_residual_is_zero_at_the_optimum_only(small: Planted) -> None:
    flip = model(rank=None, **TO_THE_END, l1_strength=0.1, early_stopping=False, max_iter=1)
    flip.fit(small.X, small.Y)
    h = torch.from_numpy((small.X - flip.embedding_mean_) @ flip.projection_.T)
    Y, w = torch.from_numpy(small.Y.toarray()), torch.ones(400, dtype=torch.float64)
    A, b = reference.proximal_gradient(h, Y, w, l1=0.1)
    assert 0 < float((A == 0).double().mean()) < 1

    def at(A: torch.Tensor, b: torch.Tensor, **settings: float) -> float:
        flip.word_embeddings_, flip.bias_ = A.numpy(), b.numpy()
        return kkt_residual(flip.set_params(**settings), small.X, small.Y)

    assert at(A, b) < 1e-6
    assert at(torch.where(A == 0, 0.01, A), b) > 1e-3
    assert at(A * 1.001, b) > 1e-4
    assert at(A, b + 0.01 * torch.arange(12)) > 1e-3
    assert at(A, b, l1_strength=0.11) == pytest.approx(0.01, abs=1e-6)
    assert at(A, b, l1_strength=0.1, l2_strength=1.0) > 1e-4


def test_residual_at_zero_is_l1_max(small: Planted) -> None:
    """At A = 0, b = log frequencies; an L1 penalty reduces the residual by its strength."""
    for rank in (None, 6):
        flip = model(rank=rank, **TO_THE_END, early_stopping=False, max_iter=1)
        flip.fit(small.X, small.Y)
        flip.word_embeddings_ = np.zeros_like(flip.word_embeddings_)
        flip.bias_ = np.log(flip.word_counts_ / flip.word_counts_.sum())
        for l1 in (0.0, 0.4, 0.99, 1.5):
            flip.set_params(l1_strength=l1 * flip.l1_max_)
            expected = max(0.0, 1 - l1) * flip.l1_max_
            got = kkt_residual(flip, small.X, small.Y)
            if rank is None:
                assert got == pytest.approx(expected, abs=1e-9)
            else:  # latents at an angle to the gradient of the word see less of it
                assert got <= expected + 1e-9


CASES: dict[str, dict[str, Any]] = {
    "FLiP, rows held out": {"early_stopping": True},
    "all rows": {"early_stopping": False},
    "LiP, by likelihood": {"rank": None, "early_stopping": "likelihood"},
    "float64, l2": {"precision": "float64", "l2_strength": 3.0},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sparse", [False, True])
def test_exact_fit_reports_the_residual_of_its_training_rows(case: str, sparse: bool) -> None:
    w = np.random.default_rng(0).integers(0, 3, 300).astype(float)
    Y = sp.csr_array(sp.hstack([TRUTH.Y, sp.csr_array((300, 3))]))  # words that no row has
    flip = model(solver="exact", max_iter=3, l1_strength=0.05, **CASES[case])
    flip.fit(TRUTH.X, Y, sample_weight=w)
    if sparse:
        flip.to_sparse()
    reported = flip.kkt_residual_
    assert 0 < reported < flip.l1_max_
    assert kkt_residual(flip, TRUTH.X, Y, sample_weight=w) == pytest.approx(reported, rel=1e-3)
    assert kkt_residual(flip, TRUTH.X, Y) != pytest.approx(reported, rel=1e-3)
    if flip._held_out is not None:  # negative control: the held-out rows are not in it
        flip._held_out = None
        assert kkt_residual(flip, TRUTH.X, Y, sample_weight=w) != pytest.approx(reported, rel=1e-3)


def test_residual_decreases_during_a_fit(small: Planted) -> None:
    found = [
        model(rank=None, **{**TO_THE_END, "max_iter": passes}, l1_strength=0.1, tol=0,
              early_stopping=False, n_iter_no_change=10**6).fit(small.X, small.Y).kkt_residual_
        for passes in (1, 30, 1000)
    ]  # fmt: skip
    assert found[0] > 3 * found[1] > 9 * found[2]
    assert found[2] < 0.02


def test_residual_is_nan_for_the_sampled_solver() -> None:
    sampled = model(solver="sampled", max_iter=2).fit(TRUTH.X, TRUTH.Y)
    assert np.isnan(sampled.kkt_residual_)
    assert 0 < kkt_residual(sampled, TRUTH.X, TRUTH.Y) < sampled.l1_max_
    stream = model(solver="exact").partial_fit(TRUTH.X, TRUTH.Y)
    assert np.isnan(stream.kkt_residual_)
    assert kkt_residual(stream, TRUTH.X, TRUTH.Y) > 0


def test_residual_is_computed_once_after_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def residual(*_: Any, **__: Any) -> float:
        calls.append(1)
        return 7.0

    monkeypatch.setattr("flip_sklearn.backend.fit.solver.kkt_residual", residual)
    flip = model(solver="exact", max_iter=3).fit(TRUTH.X, TRUTH.Y)
    assert flip.kkt_residual_ == 7.0
    assert len(calls) == 1  # after the passes, not in each


def test_bad_input_of_the_residual() -> None:
    flip = model(early_stopping=True, max_iter=1).fit(TRUTH.X, TRUTH.Y)
    with pytest.raises(NotFittedError):
        kkt_residual(model(), TRUTH.X, TRUTH.Y)
    with pytest.raises(ValueError, match=r"Y has 39 columns, the model has 40 words"):
        kkt_residual(flip, TRUTH.X, TRUTH.Y[:, :39])
    with pytest.raises(ValueError, match=r"X has 20 rows, but fit held out row \d+; pass X and Y"):
        kkt_residual(flip, TRUTH.X[:20], TRUTH.Y[:20])
    with pytest.raises(ValueError, match=r"no counts of the model's words"):
        kkt_residual(flip, TRUTH.X, sp.csr_array(TRUTH.Y.shape))
    with pytest.raises(ValueError, match=r"features"):
        kkt_residual(flip, TRUTH.X[:, :5], TRUTH.Y)


# --- Solutions of a path -----------------------------------------------------------------------


@pytest.mark.parametrize("l2", [0.0, 5.0])
def test_every_model_minimizes_the_objective(small: Planted, l2: float) -> None:
    """For LiP, which is convex, J at each strength is the minimum that proximal gradient finds."""
    flip = model(rank=None, **{**TO_THE_END, "l2_strength": l2})
    strengths = [0.5, 2.0, 0.05]
    path = regularization_path(
        small.X, small.Y, strengths, estimator=flip, validation=(small.X, small.Y), max_iter=200,
        kkt=True,
    )  # fmt: skip
    np.testing.assert_array_equal(path.l1_strengths, sorted(strengths)[::-1])
    Y, w = torch.from_numpy(small.Y.toarray()), torch.ones(400, dtype=torch.float64)
    values = []
    for l1, one in zip(path.l1_strengths, path.models, strict=True):
        A, B, b, mean = parts(one)
        h = torch.from_numpy((small.X - mean) @ B.T)
        best = reference.proximal_gradient(h, Y, w, l1=l1, l2=l2, tol=1e-5)
        exact, ours = (
            float(reference.objective(h, Y, w, *pair, l1, l2))
            for pair in (best, (torch.from_numpy(A), torch.from_numpy(b)))
        )
        assert exact <= ours + 1e-6
        assert ours == pytest.approx(exact, abs=1e-3)
        assert float((A == 0).mean()) == pytest.approx(float((best[0] == 0).double().mean()), abs=0.1)
        values.append(ours)
    assert np.ptp(values) > 0.1  # negative control: the strengths are different problems
    assert (path.kkt_residual < 0.1 * path.models[0].l1_max_).all()


@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("solver", ["exact", "sampled"])
def test_path_begins_at_zero_and_ends_dense(rank: int | None, solver: str) -> None:
    settings, passes, noise = {}, 10, 0.02  # of the zeros of the last of many small steps
    if solver == "exact":  # steps on all rows have none
        settings, passes, noise = {"batch_size": 10**6, "learning_rate": 0.2}, 100, 0.0
    path = regularization_path(
        TRUTH.X, TRUTH.Y, 6, estimator=model(rank=rank, solver=solver, **settings), kkt=True,
        max_iter=passes,
    )  # fmt: skip
    l1_max = path.models[0].l1_max_
    np.testing.assert_allclose(path.l1_strengths, l1_max * 1e-4 ** (np.arange(6) / 5))
    assert path.sparsity[0] == 1.0
    assert path.n_words_left[0] == 0
    assert path.kkt_residual[0] < 1e-3 * l1_max  # and that is the optimum there
    assert (np.diff(path.sparsity) <= noise).all()
    assert (np.diff(path.n_words_left) >= -noise * 38).all()
    assert path.n_words_left[-1] == 38  # all that have a count
    assert path.sparsity[-1] < 0.2
    assert path.accuracy[-1] > path.accuracy[0] + 0.1
    assert path.nll[-1] < path.nll[0] - 0.1
    assert {one.solver_ for one in path.models} == {solver}
    for l1, one in zip(path.l1_strengths, path.models, strict=True):
        assert one.l1_strength == l1
        assert (one.n_iter_ == 0) == (l1 >= l1_max)
        assert len(one.history_["loss"]) == one.n_iter_ == one.best_iter_


def test_informative_words_enter_first() -> None:
    """5 of 15 words depend on x in a planted model; at some strength exactly these have non-zero rows."""
    rng = np.random.default_rng(0)
    X, A = rng.normal(size=(3000, 6)), np.zeros((15, 6))
    telling = np.array([1, 4, 7, 9, 14])
    A[telling] = 1.5 * np.eye(6)[:5]
    theta = np.exp(X @ A.T)
    theta /= theta.sum(axis=1, keepdims=True)
    Y = sp.csr_array(np.stack([rng.multinomial(8, row) for row in theta]))
    path = regularization_path(X, Y, 12, eps=1e-2, estimator=model(rank=None))
    left = [set(np.flatnonzero(parts(one)[0].any(axis=1))) for one in path.models]
    assert set(telling) in left
    shuffled = X[rng.permutation(3000)]  # negative control: embeddings of other rows
    lost = regularization_path(
        shuffled, Y, path.l1_strengths[1:6], estimator=model(rank=None), validation=(X, Y)
    )
    assert (lost.accuracy <= path.accuracy[0] + 0.02).all()


def test_just_below_l1_max_one_word_enters(small: Planted) -> None:
    """The zero start's B has a latent along the largest gradient, so A = 0 is not stationary there."""
    options = SolverOptions(
        rank=3, l1=1.0, l2=0.0, max_iter=1, tol=0.0, batch_size=50, learning_rate=0.1,
        stop_on=None, n_iter_no_change=1, seed=0, solver="exact",
    )  # fmt: skip
    Y = small.Y
    rows = CountDataset(small.X, Y, np.ones(400))
    session = Session(rows, options, CPU64)
    start = zero_start(session)
    assert not start.A.any()

    def residual(B: torch.Tensor | None, share: float) -> float:
        return optimality.kkt_residual(
            session.data, start._replace(B=B), l1=share * session.l1_max, l2=0.0,
            work=session.work,
        )  # fmt: skip

    assert residual(start.B, 1.0) < 1e-9
    assert residual(start.B, 0.9) == pytest.approx(0.1 * session.l1_max)
    assert residual(session.state.optimizer.B, 0.99) < 1e-9  # negative control: principal directions


def test_word_directions() -> None:
    rng = np.random.default_rng(0)
    gradient = torch.from_numpy(rng.normal(size=(9, 5)))
    gradient[3] *= 100
    gradient[4] = -gradient[3] * 0.9  # the same direction, almost as large
    gradient[8] = 0
    found = word_directions(gradient, 5)
    assert found.shape == (5, 5)
    torch.testing.assert_close(torch.linalg.vector_norm(found, dim=1), torch.ones(5).double())
    torch.testing.assert_close(found[0], -gradient[3] / torch.linalg.vector_norm(gradient[3]))
    assert float((found[1:] @ found[0]).abs().max()) < 0.99
    assert len(word_directions(gradient[3:5], 4)) == 1
    assert len(word_directions(torch.zeros(3, 4), 2)) == 0


def test_weak_path_starts_as_a_fit() -> None:
    """Below a hundredth of l1_max many words have rows: such a path is no worse than a fit of its passes."""
    strength = 1e-3 * path_of(strengths=1).models[0].l1_max_
    weak = regularization_path(TRUTH.X, TRUTH.Y, [strength], estimator=model(), max_iter=10)
    flip = model(l1_strength=strength, early_stopping=True, max_iter=10).fit(TRUTH.X, TRUTH.Y)
    assert weak.nll[0] < min(flip.history_["validation_nll"]) + 0.1


# --- Held-out rows -----------------------------------------------------------------------------


def test_accuracy_is_the_score_on_the_held_out_rows() -> None:
    path = path_of(strengths=4, precision="float32")  # bfloat16 products serve training only
    X, Y = TRUTH.X[path.held_out], TRUTH.Y[path.held_out]
    assert len(path.held_out) == 30
    for i, one in enumerate(path.models):
        assert path.accuracy[i] == pytest.approx(one.score(X, Y))
        log_theta = one.predict_log_proba(X)
        nll = -float(Y.multiply(log_theta).sum()) / float(Y.sum())
        assert path.nll[i] == pytest.approx(nll, rel=1e-4)
        one.set_params(use_bias=False)
        assert path.accuracy_without_bias[i] == pytest.approx(one.score(X, Y))
        if one.n_iter_:
            assert one.history_["validation_accuracy"][-1] == pytest.approx(path.accuracy[i])
    per_row = (path.standard_error**2 * 30 * 29) ** 0.5  # within [0, 1] the deviation is below n / 2
    assert (per_row > 0).all()
    assert (per_row < 15).all()


def test_held_out_rows_are_not_trained_on() -> None:
    path = path_of(strengths=3)
    X, Y = TRUTH.X.copy(), TRUTH.Y.toarray()
    X[path.held_out] = np.random.default_rng(0).normal(size=X[path.held_out].shape)
    Y[path.held_out] = Y[path.held_out][::-1]  # the same words, elsewhere
    other = regularization_path(X, Y, path.l1_strengths, estimator=model())
    np.testing.assert_array_equal(other.held_out, path.held_out)
    assert same_bits(path, other)
    assert not np.allclose(path.accuracy, other.accuracy)
    X, trained = TRUTH.X.copy(), np.setdiff1d(np.arange(300), path.held_out)[0]
    X[trained] += 1  # negative control
    changed = regularization_path(X, TRUTH.Y, path.l1_strengths, estimator=model())
    assert not same_bits(path, changed)


def test_validation_rows_are_measured_and_not_trained_on() -> None:
    train, test = slice(0, 200), slice(200, None)
    X, Y = TRUTH.X, TRUTH.Y
    path = regularization_path(X[train], Y[train], 3, estimator=model(), validation=(X[test], Y[test]))
    assert path.held_out is None
    for accuracy, one in zip(path.accuracy, path.models, strict=True):
        assert accuracy == pytest.approx(one.score(X[test], Y[test]))
        assert kkt_residual(one, X[train], Y[train]) >= 0
    other = regularization_path(
        X[train], Y[train], path.l1_strengths, estimator=model(),
        validation=(X[test][::-1] + 1, Y[test].toarray()),
    )  # fmt: skip
    assert same_bits(path, other)
    assert not np.allclose(path.accuracy, other.accuracy)


def test_words_of_validation_rows_only_count_as_missed() -> None:
    Y = TRUTH.Y.toarray()
    Y[:200, 7] = 0
    path = regularization_path(
        TRUTH.X[:200], Y[:200], 2, estimator=model(), validation=(TRUTH.X[200:], Y[200:])
    )
    for accuracy, one in zip(path.accuracy, path.models, strict=True):
        assert accuracy == pytest.approx(one.score(TRUTH.X[200:], Y[200:]))
    assert Y[200:, 7].any()


def test_residuals_of_a_path_equal_those_of_its_models() -> None:
    path = regularization_path(TRUTH.X, TRUTH.Y, 4, estimator=model(solver="sampled"), kkt=True)
    for residual, one in zip(path.kkt_residual, path.models, strict=True):
        assert one.kkt_residual_ == residual
        assert kkt_residual(one, TRUTH.X, TRUTH.Y) == pytest.approx(residual, abs=1e-4)
    assert np.isnan(path_of(strengths=2).kkt_residual).all()


# --- Settings and formats ----------------------------------------------------------------------


def test_same_seed_same_bits() -> None:
    first = path_of(strengths=3)
    assert same_bits(first, path_of(strengths=3))
    assert not same_bits(first, path_of(strengths=first.l1_strengths, random_state=1))


@pytest.mark.parametrize("solver", ["exact", "sampled"])
def test_data_formats_give_the_same_path(tmp_path: Path, solver: str) -> None:
    X = TRUTH.X.astype(np.float16)
    np.save(tmp_path / "X.npy", X)
    words = [f"w{j}" for j in range(40)]
    flip = model(solver=solver)
    first = regularization_path(X, TRUTH.Y, 3, estimator=flip)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for x, y in (
        (mapped, TRUTH.Y),
        (X, TRUTH.Y.toarray().astype(int)),
        (X, sp.coo_matrix(TRUTH.Y)),
        (X, pd.DataFrame(TRUTH.Y.toarray(), columns=words)),
    ):
        other = regularization_path(x, y, 3, estimator=flip)
        assert same_bits(first, other)
    assert other.models[0].vocabulary_.tolist() == words


def test_estimator_supplies_settings_and_is_unchanged() -> None:
    words = [f"w{j}" for j in range(40)]
    flip = model(
        rank=3, top_k=2, use_bias=False, vocabulary=words, validation_fraction=0.5,
        l2_strength=2.0, l1_strength=7.0, max_iter=1, early_stopping=False, warm_start=True,
        checkpoint_dir="nowhere",
    )  # fmt: skip
    for fitted in (False, True):
        if fitted:
            flip.set_params(checkpoint_dir=None).fit(TRUTH.X, TRUTH.Y)
        before = joblib.hash(vars(flip))
        path = regularization_path(TRUTH.X, TRUTH.Y, 2, estimator=flip, max_iter=3)
        assert joblib.hash(vars(flip)) == before
        assert not Path("nowhere").exists()
        assert len(path.held_out) == 150
        for one in path.models:
            assert one.get_params() == {**flip.get_params(), "l1_strength": one.l1_strength}
            assert one.rank_ == 3
            assert one.vocabulary_.tolist() == words
            assert len(one.extract_keywords(TRUTH.X[:2])[0]) == 2
        assert path.models[1].n_iter_ == 3
    plain = regularization_path(TRUTH.X, TRUTH.Y, 1)
    assert plain.models[0].get_params()["rank"] == "auto"


def test_strong_penalties_are_stored_sparse() -> None:
    path = path_of(strengths=5)
    kinds = [sp.issparse(one.word_embeddings_) for one in path.models]
    assert kinds[0]
    assert not kinds[-1]
    for one in path.models:
        A = one.word_embeddings_
        dense, compressed = parts(one)[0], sp.csr_array(parts(one)[0])
        size = sum(getattr(compressed, name).nbytes for name in ("data", "indices", "indptr"))
        assert sp.issparse(A) == (size < dense.nbytes)


def test_weights_count_as_rows() -> None:
    w = np.random.default_rng(0).integers(0, 3, 300)
    rows = np.repeat(np.arange(300), w)
    flip, other = model(**TO_THE_END), (TRUTH.X[:50], TRUTH.Y[:50])
    weighted, repeated = (
        regularization_path(X, Y, 3, estimator=flip, validation=other, sample_weight=weights, max_iter=4)
        for X, Y, weights in ((TRUTH.X, TRUTH.Y, w), (TRUTH.X[rows], TRUTH.Y[rows], None))
    )
    np.testing.assert_allclose(weighted.l1_strengths, repeated.l1_strengths)
    np.testing.assert_allclose(weighted.nll, repeated.nll, rtol=1e-6)


# --- The result --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some_path() -> RegularizationPath:
    return path_of(strengths=4)


def test_best_is_the_strongest_within_a_standard_error(some_path: RegularizationPath) -> None:
    models = some_path.models
    path = replace(
        some_path, accuracy=np.array([0.1, 0.68, 0.70, 0.69]), standard_error=np.array([0.5, 0.5, 0.015, 0.5])
    )
    assert path.best() is models[2]
    assert path.best(within=0) is models[2]
    assert path.best(within=2) is models[1]
    assert path.best(within=1000) is models[0]
    alone = replace(path, standard_error=np.full(4, np.nan))
    assert alone.best() is models[2]
    for within in (-1, "one", np.inf):
        with pytest.raises(ValueError, match=r"within=.* is not allowed; use a finite number >= 0"):
            path.best(within=within)


def test_result_is_frozen_and_has_a_table(some_path: RegularizationPath) -> None:
    with pytest.raises(FrozenInstanceError):
        some_path.accuracy = np.zeros(4)  # type: ignore[misc]
    frame = some_path.to_frame()
    assert frame.shape == (4, 9)
    np.testing.assert_array_equal(frame["l1_strength"], some_path.l1_strengths)
    np.testing.assert_array_equal(frame["n_words_left"], some_path.n_words_left)
    assert len(some_path) == 4
    assert repr(some_path).startswith("RegularizationPath(4 strengths from ")


def test_progress_bar_only_if_verbose(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    totals: list[tuple[int, int]] = []

    class Bar:
        def __init__(self, *, total: int, disable: bool, **_: Any) -> None:
            self.total, self.n, self.disable = total, 0, disable

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            totals.append((self.total, self.n, self.disable))

        def update(self, n: int) -> None:
            self.n += n

    path_of(strengths=3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("flip_sklearn.path.show_progress", Bar)
    path_of(strengths=3, verbose=1)
    path_of(strengths=3, batch_size=10**6)
    assert totals == [(270 * 5 * 2, 270 * 5 * 2, False), (270 * 5 * 2, 270 * 5 * 2, True)]


def interrupting(after: int) -> Iterator[None]:
    """A step callback that raises KeyboardInterrupt after ``after`` calls."""
    yield from [None] * after
    raise KeyboardInterrupt


def test_interrupt_keeps_the_finished_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path_of(strengths=[1.0, 0.5, 0.1])
    step = Optimizer.step
    for after, done in ((9 * 5 - 1, 0), (9 * 5 + 1, 1), (9 * 10 + 1, 2)):
        steps = interrupting(after)

        def patched(*arguments: Any, steps: Iterator[None] = steps) -> None:
            next(steps)
            step(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Optimizer, "step", patched)
            if not done:
                with pytest.raises(KeyboardInterrupt):
                    path_of(strengths=[1.0, 0.5, 0.1])
                continue
            with pytest.warns(ConvergenceWarning, match=rf"interrupted after {done} of 3"):
                part = path_of(strengths=[1.0, 0.5, 0.1])
        np.testing.assert_array_equal(part.l1_strengths, whole.l1_strengths[:done])
        np.testing.assert_array_equal(part.accuracy, whole.accuracy[:done])


# --- Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [
    -1.0, 0.5, "0.1", None, [], [0.1, -0.2], [np.nan], [np.inf, 1.0], ["a"], [[0.1]], [None], 0,
    -3, True, np.array([0.1 + 1j]), [True, 0.1],
])  # fmt: skip
def test_bad_strengths(value: Any) -> None:
    with pytest.raises(ValueError, match=r"l1_strengths=.*(integer >= 1|numbers? >= 0)"):
        path_of(strengths=value)


def test_strengths_in_any_order_and_format() -> None:
    for value in (np.array([0.1, 2.0]), (2.0, 0.1), pd.Series([0.1, 2.0]), np.int64(2)):
        assert path_of(strengths=value).l1_strengths.shape == (2,)
    twice = path_of(strengths=[0.5, 0, 0.5])
    np.testing.assert_array_equal(twice.l1_strengths, [0.5, 0.5, 0])
    assert path_of(strengths=1).sparsity.tolist() == [1.0]


@pytest.mark.parametrize(("changed", "message"), [
    ({"eps": 0}, r"eps=0 is not allowed; use a finite number > 0 and < 1"),
    ({"eps": 1.0}, r"eps=1.0 is not allowed"),
    ({"max_iter": 0}, r"max_iter=0 is not allowed; use an integer >= 1"),
    ({"kkt": "yes"}, r"kkt='yes' is not allowed; use True or False"),
    ({"estimator": "auto"}, r"estimator='auto' is not an FLiPExtractor; pass one"),
    ({"estimator": model(rank=9)}, r"rank=9 is not allowed; use an integer from 1 to .* 8"),
    ({"estimator": model(learning_rate=-1)}, r"learning_rate=-1 is not allowed"),
    ({"validation": TRUTH.X}, r"validation=ndarray is not allowed; pass a tuple \(X, Y\)"),
    ({"validation": (TRUTH.X,)}, r"validation=tuple is not allowed"),
    ({"validation": (TRUTH.X[:, :3], TRUTH.Y)}, r"X has 3 features"),
    ({"validation": (TRUTH.X, TRUTH.Y[:7])}, r"X has 300 rows and Y has 7"),
    ({"validation": (TRUTH.X, TRUTH.Y[:, :7])}, r"Y of validation has 7 columns .* the 40 of Y"),
    ({"validation": (TRUTH.X, 0 * TRUTH.Y)}, r"Y of validation has no counts"),
    ({"sample_weight": np.full(300, -1.0)}, r"sample_weight\[0\] = -1.0 is negative"),
    ({"sample_weight": np.eye(300)[0]}, r"1 row with words.*pass more rows, or validation"),
])  # fmt: skip
def test_bad_input_of_a_path(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regularization_path(TRUTH.X, TRUTH.Y, 2, **{"estimator": model(), **changed})


def test_columns_of_validation_in_another_order_are_refused() -> None:
    frame = pd.DataFrame(TRUTH.Y.toarray(), columns=[f"w{j}" for j in range(40)])
    with pytest.raises(ValueError, match=r"Y of validation .* count both with the same vocabulary"):
        regularization_path(
            TRUTH.X, frame, 2, estimator=model(), validation=(TRUTH.X, frame[frame.columns[::-1]])
        )


def test_uninformative_data_has_no_path() -> None:
    X, Y = np.ones((20, 3)), np.ones((20, 1))
    with pytest.raises(ValueError, match=r"l1_max_ is 0: .* pass l1_strengths"):
        regularization_path(X, Y, 3, estimator=model(rank=2))
    path = regularization_path(X, Y, [1.0, 0.0], estimator=model(rank=2))
    assert path.accuracy.tolist() == [1.0, 1.0]


def test_divergence_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_take_steps", lambda *_: float("nan"))
    flip = model(learning_rate=7.0)
    before = joblib.hash(vars(flip))
    with pytest.raises(FloatingPointError, match=r"lower learning_rate \(now 7.0\)"):
        regularization_path(TRUTH.X, TRUTH.Y, 3, estimator=flip)
    assert joblib.hash(vars(flip)) == before


# --- Several processes -------------------------------------------------------------------------


def in_a_group(rank: int, folder: str) -> list[Any]:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        flip = model(precision="float64", solver="exact")
        path = regularization_path(TRUTH.X, TRUTH.Y, 3, estimator=flip, kkt=True)
        again = [kkt_residual(one, TRUTH.X, TRUTH.Y) for one in path.models]
        fitted = flip.set_params(max_iter=2).fit(TRUTH.X, TRUTH.Y)
        rest = [path.accuracy, path.nll, path.kkt_residual, np.array(again), fitted.kkt_residual_]
        return [*parts(path.models[-1]), *rest]
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(os.name != "posix" or not dist.is_available(), reason="no gloo")
@pytest.mark.cpu_only(reason="bits of several processes")
def test_two_processes_give_the_path_of_one(tmp_path: Path) -> None:
    with Child(in_a_group, 0, str(tmp_path)) as first, Child(in_a_group, 1, str(tmp_path)) as second:
        results = first.result(), second.result()
    flip = model(precision="float64", solver="exact")
    path = regularization_path(TRUTH.X, TRUTH.Y, 3, estimator=flip, kkt=True)
    fitted = flip.set_params(max_iter=2).fit(TRUTH.X, TRUTH.Y)
    residuals = [path.kkt_residual, path.kkt_residual, fitted.kkt_residual_]
    alone = [*parts(path.models[-1]), path.accuracy, path.nll, *residuals]
    for got, same, expected in zip(*results, alone, strict=True):
        np.testing.assert_array_equal(got, same)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)

"""The solver: known optima, optimality conditions, invariances, planted factors."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from threadpoolctl import threadpool_limits

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.whitening import RIDGE_PER_ROW, Whitening, streaming_moments
from tests.backend.reference import kkt_residual, objective, proximal_gradient
from tests.helpers.planted import planted
from tests.helpers.processes import N_THREADS, in_process

CPU64 = resolve_compute("cpu", "float64")


def converged_model(**settings) -> FLiPExtractor:
    """A model that reaches the minimum of J: full batches in float64, many passes."""
    defaults = {
        "l1_strength": 0.0,
        "l2_strength": 0.0,
        "precision": "float64",
        "device": "cpu",
        "batch_size": 10**6,
        "early_stopping": False,
        "max_iter": 1500,
        "tol": 0.0,
        "n_iter_no_change": 10**6,
        "learning_rate": 0.1,
        "random_state": 0,
    }
    return FLiPExtractor(**{**defaults, **settings})


def whiten(X: np.ndarray, w: np.ndarray | None = None) -> torch.Tensor:
    w = np.ones(len(X)) if w is None else w
    moments = streaming_moments([(torch.from_numpy(X), torch.from_numpy(w))], X.shape[1])
    whitening = Whitening.from_moments(moments)
    return torch.from_numpy((X - whitening.mean) @ whitening.forward)


def optimal_log_probabilities(X: np.ndarray, Y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """log theta at the maximum of the likelihood, by L-BFGS in the raw coordinates."""
    n_words, d = Y.shape[1], X.shape[1]
    tensors = [torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in (X - X.mean(0), Y, w)]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        p = torch.from_numpy(flat).requires_grad_()
        E, b = p[: n_words * d].view(n_words, d), p[n_words * d :]
        loss = objective(tensors[0], tensors[1], tensors[2], E, b, 0.0, 0.0)
        loss.backward()
        return float(loss.detach()), p.grad.numpy()

    result = scipy.optimize.minimize(
        value,
        np.zeros(n_words * (d + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30},
    )
    E, b = result.x[: n_words * d].reshape(n_words, d), result.x[n_words * d :]
    z = (X - X.mean(0)) @ E.T + b
    return z - np.logaddexp.reduce(z, axis=1, keepdims=True)


def test_whitened_training_finds_the_unwhitened_optimum(small) -> None:
    """Convex LiP: L-BFGS on raw embeddings and the solver in whitened space reach the same theta."""
    Y = small.Y.toarray()
    expected = optimal_log_probabilities(small.X, Y, np.ones(len(Y)))
    ours = converged_model(rank=None, max_iter=4000).fit(small.X, small.Y).predict_log_proba(small.X)
    np.testing.assert_allclose(np.exp(ours), np.exp(expected), atol=4e-3)
    early = converged_model(rank=None, max_iter=20).fit(small.X, small.Y).predict_proba(small.X)
    assert np.abs(early - np.exp(expected)).max() > 2e-2  # negative control


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 80.0), (0.05, 0.0), (0.1, 30.0)])
def test_two_solvers_agree_on_the_penalized_objective(small, l1: float, l2: float) -> None:
    Y, h = torch.from_numpy(small.Y.toarray()), whiten(small.X)
    w = torch.ones(len(Y), dtype=torch.float64)
    A, b = proximal_gradient(h, Y, w, l1=l1, l2=l2)
    exact = float(objective(h, Y, w, A, b, l1, l2))
    flip = converged_model(rank=None, l1_strength=l1, l2_strength=l2).fit(small.X, small.Y)
    ours = objective(h, Y, w, torch.from_numpy(flip.word_embeddings_), torch.from_numpy(flip.bias_), l1, l2)
    assert exact <= float(ours) + 1e-9
    assert float(ours) == pytest.approx(exact, abs=1e-4)
    assert flip.history_["loss"][-1] == pytest.approx(exact, abs=1e-3)
    start = objective(h, Y, w, torch.zeros_like(A), b, l1, l2)
    assert float(start) > exact + 1e-2  # negative control


@pytest.mark.parametrize("l1", [0.02, 0.2, 1.0])
def test_plain_proximal_gradient_satisfies_kkt(small, l1: float) -> None:
    Y, h = torch.from_numpy(small.Y.toarray()), whiten(small.X)
    w = torch.rand(len(Y), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    A, b = proximal_gradient(h, Y, w, l1=l1)
    assert kkt_residual(h, Y, w, A, b, l1=l1) <= 1e-7
    assert kkt_residual(h, Y, w, A + 0.01, b, l1=l1) > 1e-4
    assert kkt_residual(h, Y, w, A, b, l1=l1 * 1.1) > 1e-4
    if 0 < float((A == 0).double().mean()) < 1:
        assert kkt_residual(h, Y, w, A * 1.001, b, l1=l1) > 1e-7


def test_l1_max_is_the_smallest_strength_with_zero_A(small) -> None:
    """LiP: the exact minimizer is A = 0 at l1_max_, and not just below it."""
    flip = converged_model(rank=None, max_iter=1).fit(small.X, small.Y)
    Y, h = torch.from_numpy(small.Y.toarray()), whiten(small.X)
    w = torch.ones(len(Y), dtype=torch.float64)
    A_at_l1_max, _ = proximal_gradient(h, Y, w, l1=flip.l1_max_ * 1.0001)
    A_below, _ = proximal_gradient(h, Y, w, l1=flip.l1_max_ * 0.98)
    assert (A_at_l1_max == 0).all()
    assert (A_below != 0).any()


def test_factorized_l1_max_zeroes_a_fit(small) -> None:
    l1_max = converged_model(rank=3, max_iter=1).fit(small.X, small.Y).l1_max_
    flip = converged_model(rank=3, l1_strength=l1_max, max_iter=300).fit(small.X, small.Y)
    assert not flip.word_embeddings_.any()
    flip = converged_model(rank=3, l1_strength=l1_max / 10, max_iter=300).fit(small.X, small.Y)
    assert flip.word_embeddings_.any()


@pytest.mark.parametrize("rank", [3, None])
def test_larger_l1_gives_no_fewer_exact_zeros(small, rank) -> None:
    zeros = []
    for l1 in (0.0, 0.02, 0.1, 0.5, 2.0):
        flip = converged_model(rank=rank, l1_strength=l1, max_iter=600).fit(small.X, small.Y)
        zeros.append(int((flip.word_embeddings_ == 0).sum()))
    assert zeros == sorted(zeros)
    assert zeros[0] == 0
    assert zeros[-1] > 0


def test_latents_have_unit_variance_for_every_penalty(small) -> None:
    """So the penalty cannot be evaded by a smaller A and a larger B."""
    moments = streaming_moments([(torch.from_numpy(small.X), torch.ones(400))], 6)
    whitening = Whitening.from_moments(moments)
    for l1 in (0.0, 0.3):
        flip = converged_model(rank=3, l1_strength=l1, max_iter=300).fit(small.X, small.Y)
        in_whitened_space = flip.projection_ @ whitening.inverse.T
        np.testing.assert_allclose(np.linalg.norm(in_whitened_space, axis=1), 1.0)
        latent = (small.X - flip.embedding_mean_) @ flip.projection_.T
        # With a ridge rho the variance is 1 - rho |B_k|^2.
        rho = RIDGE_PER_ROW * 6 / 400 * np.trace(moments.scatter) / 400 / 6
        expected = 1 - rho * (flip.projection_**2).sum(axis=1)
        np.testing.assert_allclose(latent.var(axis=0), expected)


@pytest.mark.parametrize("rank", [3, None])
def test_integer_weights_equal_repeated_rows(small, rank) -> None:
    w = np.random.default_rng(0).integers(0, 3, len(small.X))
    weighted = converged_model(rank=rank, max_iter=150).fit(small.X, small.Y, sample_weight=w)
    rows = np.repeat(np.arange(len(w)), w)
    repeated = converged_model(rank=rank, max_iter=150).fit(small.X[rows], small.Y[rows])
    ignored = converged_model(rank=rank, max_iter=150).fit(small.X, small.Y)
    p, q, r = (f.predict_proba(small.X) for f in (weighted, repeated, ignored))
    np.testing.assert_allclose(p, q, atol=1e-9)
    np.testing.assert_allclose(weighted.embedding_mean_, repeated.embedding_mean_)
    np.testing.assert_allclose(weighted.word_counts_, repeated.word_counts_)
    assert np.abs(p - r).max() > 1e-3  # negative control


def test_rows_without_words_are_ignored(small) -> None:
    Y = small.Y.toarray()
    Y[::3] = 0
    keep = Y.any(axis=1)
    whole = converged_model(rank=3, max_iter=100).fit(small.X, Y)
    part = converged_model(rank=3, max_iter=100).fit(small.X[keep], Y[keep])
    np.testing.assert_allclose(whole.predict_proba(small.X), part.predict_proba(small.X), atol=1e-9)


def test_planted_factors_are_recovered() -> None:
    """At rank 2 of 6 the projection spans the planted subspace, and A B is close to the planted one."""
    truth = planted(n=4000, rank=2, length=20, seed=3)
    flip = converged_model(rank=2, learning_rate=0.3).fit(truth.X, truth.Y)
    angles = scipy.linalg.subspace_angles(flip.projection_.T, truth.B.T)
    assert np.rad2deg(angles.max()) < 5
    product = flip.word_embeddings_ @ flip.projection_
    centred = product - product.mean(axis=0)  # the softmax ignores a shift common to all words
    planted_product = (truth.A - truth.A.mean(axis=0)) @ truth.B
    correlation = np.corrcoef(centred.ravel(), planted_product.ravel())[0, 1]
    assert correlation > 0.99
    other = planted(n=4000, rank=2, length=20, seed=4)  # negative control: other factors
    assert np.rad2deg(scipy.linalg.subspace_angles(flip.projection_.T, other.B.T).max()) > 20


def test_bias_is_the_word_distribution_at_the_mean(small) -> None:
    flip = converged_model(rank=3, max_iter=50).fit(small.X, small.Y)
    at_mean = flip.predict_proba(flip.embedding_mean_[None])[0]
    np.testing.assert_allclose(at_mean, np.exp(flip.bias_), atol=1e-12)


def test_parameters_of_the_best_pass_are_restored() -> None:
    """They equal those of a fit with ``max_iter`` at the best pass, and differ from the last ones."""
    truth = planted(n=300, d=20, n_words=40, rank=5, length=4, seed=5)
    settings = dict(
        rank=20,
        random_state=0,
        early_stopping=True,
        l1_strength=0.0,
        learning_rate=0.3,
        batch_size=50,
        n_iter_no_change=100,
        max_iter=40,
    )
    flip = FLiPExtractor(**settings).fit(truth.X, truth.Y)
    accuracy = flip.history_["validation_accuracy"]
    assert len(accuracy) == flip.n_iter_ == 40
    assert flip.best_iter_ == int(np.argmax(accuracy)) + 1 < 40
    stopped = FLiPExtractor(**{**settings, "max_iter": flip.best_iter_}).fit(truth.X, truth.Y)
    np.testing.assert_array_equal(stopped.word_embeddings_, flip.word_embeddings_)
    last = FLiPExtractor(**{**settings, "early_stopping": False}).fit(truth.X, truth.Y)
    assert np.abs(last.word_embeddings_ - flip.word_embeddings_).max() > 1e-3


@pytest.mark.parametrize(
    ("by", "key", "sign"), [("accuracy", "validation_accuracy", 1), ("likelihood", "validation_nll", -1)]
)
def test_early_stopping_follows_its_criterion(by: str, key: str, sign: int) -> None:
    truth = planted(n=300, d=20, n_words=40, rank=5, length=4, seed=6)
    flip = FLiPExtractor(
        early_stopping=by, random_state=0, batch_size=50, learning_rate=0.3, max_iter=60, tol=0
    ).fit(truth.X, truth.Y)
    values = sign * np.array(flip.history_[key])
    assert flip.n_iter_ < 60
    assert flip.best_iter_ == int(values.argmax()) + 1
    # It stopped after the first two passes in a row that improved neither ranking nor likelihood.
    rank_best = np.maximum.accumulate(values)
    loss_best = np.minimum.accumulate(flip.history_["validation_nll"])
    stale = (np.diff(rank_best) <= 0) & (np.diff(loss_best) >= 0)
    assert stale[-2:].all()
    assert not (stale[1:-1] & stale[:-2]).any()


def fingerprint(X: np.ndarray, Y: Any, seed: int) -> str:
    with threadpool_limits(N_THREADS):
        flip = FLiPExtractor(rank=8, random_state=seed, max_iter=3).fit(X, Y)
        arrays = flip.word_embeddings_, flip.projection_, flip.bias_, flip.decision_function(X)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.cpu_only(reason="bits of another process")
def test_same_seed_gives_the_same_bits_in_two_processes() -> None:
    truth = planted(n=1500, d=30, n_words=60)
    X = truth.X.astype(np.float32)
    first = fingerprint(X, truth.Y, 0)
    assert first == in_process(fingerprint, X, truth.Y, 0)
    assert first != fingerprint(X, truth.Y, 1)


def test_no_tensor_is_created_on_the_default_device(small) -> None:
    """A CPU fit has the same bits under another default device, so every tensor is created on a named one.

    This part of the CUDA support can be tested without a GPU.
    """
    settings = dict(
        rank=3, random_state=0, device="cpu", max_iter=3, l2_strength=0.1, early_stopping=True, batch_size=50
    )
    plain = FLiPExtractor(**settings).fit(small.X, small.Y)
    with torch.device("meta"):
        other = FLiPExtractor(**settings).fit(small.X, small.Y)
        scores = other.decision_function(small.X)
        top = other.transform(small.X)
    np.testing.assert_array_equal(plain.word_embeddings_, other.word_embeddings_)
    np.testing.assert_array_equal(plain.decision_function(small.X), scores)
    assert (plain.transform(small.X) != top).nnz == 0


def test_batch_has_the_weighted_counts_of_its_rows(small) -> None:
    rows = CountDataset(small.X, small.Y, np.full(400, 0.5))
    picked = np.array([7, 3, 3, 399])
    x, targets = rows.batch(picked, CPU64)
    dense = np.zeros((4, small.Y.shape[1]))
    dense[targets.row.numpy(), targets.col.numpy()] = targets.count.numpy()
    np.testing.assert_allclose(dense, 0.5 * small.Y.toarray()[picked])
    np.testing.assert_allclose(x.numpy(), small.X[picked])
    np.testing.assert_allclose(targets.total.numpy(), dense.sum(axis=1))

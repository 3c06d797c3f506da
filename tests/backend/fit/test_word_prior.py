"""The prior from features of the words: its penalty, gradient, map and ridge against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit.optimizer import Optimizer, Parameters
from flip_sklearn.backend.fit.word_prior import RIDGES, WordPrior

F64 = torch.float64
V, P, R = 30, 4, 6


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def prior() -> WordPrior:
    prior = WordPrior(random(V, P), ProcessGroup())
    prior.ridge = 0.7
    return prior


def bound(prior: WordPrior, A: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
    """|A - E G|^2 + kappa |G|^2"""
    return (A - prior.E @ G).square().sum() + prior.ridge * G.square().sum()


def test_penalty_is_the_minimum_over_maps(prior: WordPrior) -> None:
    A = random(V, R, seed=1)
    G = prior.map_of(A)
    torch.testing.assert_close(prior.penalty(A), bound(prior, A, G))
    for seed in range(5):
        assert bound(prior, A, G + 0.1 * random(P, R, seed=seed)) > prior.penalty(A)
    assert 0 < prior.penalty(A) < A.square().sum()


def test_penalty_after_an_update_is_the_same(prior: WordPrior) -> None:
    A, other = random(V, R, seed=1), random(V, R, seed=2)
    expected = prior.penalty(A), prior.penalty(other)
    prior.update(A)
    torch.testing.assert_close((prior.penalty(A), prior.penalty(other)), expected)


def test_penalty_is_convex(prior: WordPrior) -> None:
    A, other = random(V, R, seed=1), random(V, R, seed=2)
    assert prior.penalty((A + other) / 2) <= (prior.penalty(A) + prior.penalty(other)) / 2


def test_gradient_is_that_of_autograd(prior: WordPrior) -> None:
    A = random(V, R, seed=1).requires_grad_()
    identity = torch.eye(P, dtype=F64)
    G = torch.linalg.solve(prior.E.T @ prior.E + prior.ridge * identity, prior.E.T @ A)
    (expected,) = torch.autograd.grad(bound(prior, A, G), A)
    gradient = torch.ones(V, R, dtype=F64)
    prior.add_gradient_(gradient, A.detach(), 3.0)
    torch.testing.assert_close(gradient, 1 + 3.0 / 2 * expected)


def test_features_of_zero_are_no_features() -> None:
    prior = WordPrior(torch.zeros(V, P, dtype=F64), ProcessGroup())
    A = random(V, R)
    torch.testing.assert_close(prior.penalty(A), A.square().sum())
    assert not prior.choose_ridge(A, torch.ones(V, dtype=F64))


@pytest.mark.parametrize("seed", range(3))
def test_ridge_has_the_least_leave_one_out_error(seed: int) -> None:
    E, G = random(V, P, seed=seed), random(P, R, seed=10 + seed)
    rows = E @ G + (1 + seed) * random(V, R, seed=20 + seed)
    weights = torch.rand(V, dtype=F64, generator=torch.Generator().manual_seed(seed))
    prior = WordPrior(E, ProcessGroup())

    def error(ridge: float) -> float:
        total = 0.0
        for j in range(V):
            w = weights.clone()
            w[j] = 0
            left = (E * w[:, None]).T @ E + ridge * torch.eye(P, dtype=F64)
            predicted = E[j] @ torch.linalg.solve(left, (E * w[:, None]).T @ rows)
            total += float(weights[j] * (rows[j] - predicted).square().sum())
        return total

    errors = [error(ridge) for ridge in RIDGES]
    of_zero = float((weights[:, None] * rows.square()).sum())
    assert prior.choose_ridge(rows, weights) == (min(errors) < 0.99 * of_zero)
    assert prior.ridge == RIDGES[int(np.argmin(errors))]


def test_words_without_weight_do_not_count() -> None:
    E, rows = random(V, P), random(V, R, seed=1)
    weights = torch.ones(V, dtype=F64)
    weights[20:] = 0
    wild = rows.clone()
    wild[20:] = 1e6
    prior = WordPrior(E, ProcessGroup())
    torch.testing.assert_close(prior.weighted_map(wild, weights), prior.weighted_map(rows, weights))


@pytest.mark.parametrize("is_lazy", [False, True])
def test_step_is_the_proximal_step_to_the_mean(prior: WordPrior, is_lazy: bool) -> None:
    """A step on J with the mean M is a step without one in coordinates A - M, where the penalty is |A|^2."""
    A, b, M = random(V, R, seed=1), random(V, seed=2), random(V, R, seed=3)
    prior.mean = M
    to_mean = Optimizer(
        Parameters(A.clone(), None, b.clone()), l1=0.0, l2=50.0, learning_rate=0.1, prior=prior
    )
    to_zero = Optimizer(Parameters(A - M, None, b.clone()), l1=0.0, l2=50.0, learning_rate=0.1)
    for step in range(30):
        words = torch.arange(step % 3, V, 3)
        gradient, grad_b = random(V, R, seed=100 + step), random(V, seed=200 + step)
        for optimizer in (to_mean, to_zero):
            if is_lazy:
                rows = optimizer.gather(words)
                optimizer.step(gradient[words], grad_b[words], None, rows)
            else:
                optimizer.step(gradient.clone(), grad_b.clone(), None)
    for optimizer in (to_mean, to_zero):
        optimizer.flush_lazy_updates()
    if is_lazy:  # penalties of skipped steps are taken at once: an approximation, the same in both
        torch.testing.assert_close(to_mean.A - M, to_zero.A, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(to_mean.A, to_zero.A + M, rtol=1e-9, atol=1e-9)


def test_words_that_are_never_touched_have_no_scale_and_stay(prior: WordPrior) -> None:
    A = random(V, R, seed=1)
    prior.update(A)
    optimizer = Optimizer(
        Parameters(A.clone(), None, torch.zeros(V, dtype=F64)), l1=0.0, l2=5.0, learning_rate=0.1, prior=prior
    )
    words = torch.arange(10)
    optimizer.step(random(10, R), random(10), None, optimizer.gather(words))
    optimizer.flush_lazy_updates()
    torch.testing.assert_close(optimizer.A[10:], A[10:])

"""The initial point: the gradient at A = 0, the proximal Newton step from there, and the warm start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit import initialization, likelihood
from flip_sklearn.backend.fit.data import CountDataset, WhitenedDataset
from flip_sklearn.backend.fit.initialization import (
    SEARCH_ROWS,
    InitialPoint,
    gradient_at_zero,
    log_frequencies,
    newton_start,
    warm_start,
)
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.penalty import l1_max
from flip_sklearn.backend.fit.whitening import Whitening, streaming_moments
from tests.backend.reference import reference_loss
from tests.helpers.planted import Planted

CPU64 = resolve_compute("cpu", "float64")


def whitened(X: np.ndarray, Y: Any, w: np.ndarray) -> tuple[WhitenedDataset, Whitening]:
    rows = CountDataset(X, Y, w)
    moments = streaming_moments(rows.chunks(50, CPU64), rows.d)
    whitening = Whitening.from_moments(moments)
    mean, Q = torch.from_numpy(whitening.mean), torch.from_numpy(whitening.forward)
    return WhitenedDataset(rows, mean, Q, CPU64), whitening


@pytest.fixture
def data(small: Planted) -> WhitenedDataset:
    """400 weighted rows, whitened, in float64."""
    return whitened(small.X, small.Y, np.random.default_rng(0).uniform(0, 2, 400))[0]


def loss_of(data: WhitenedDataset, rows: np.ndarray, p: Parameters) -> torch.Tensor:
    """The weighted negative log-likelihood L of some rows, by its definition."""
    x, targets = data.batch(rows)
    counts = torch.zeros(len(rows), data.dataset.n_words, dtype=torch.float64)
    counts[targets.row, targets.col] = targets.count
    h = x if p.B is None else x @ p.B.T
    return reference_loss(h, p.A, p.b, counts, torch.ones(len(rows), dtype=torch.float64))


def make_newton_start(data: WhitenedDataset, **options: Any) -> Parameters:
    counts = data.dataset.word_counts()
    defaults = dict(rank=3, l1=0.01, l2=0.0, work=Workspace(CPU64))
    return newton_start(data, gradient_at_zero(data, counts), counts, **{**defaults, **options})


@pytest.mark.parametrize("chunk", [1, 7, 399, 1024])
def test_gradient_at_zero_equals_autograd(data, monkeypatch, chunk: int) -> None:
    monkeypatch.setattr(initialization, "GRADIENT_CHUNK_ROWS", chunk)
    counts = data.dataset.word_counts()
    A = torch.zeros(12, 6, dtype=torch.float64, requires_grad=True)
    b = torch.from_numpy(np.log(counts / counts.sum()))
    (loss_of(data, np.arange(400), Parameters(A, None, b)) / counts.sum()).backward()
    gradient = gradient_at_zero(data, counts)
    torch.testing.assert_close(gradient, A.grad, rtol=1e-10, atol=1e-12)
    assert l1_max(gradient, factorized=False) == pytest.approx(float(A.grad.abs().max()))
    # The bias is stationary there, so A = 0 is stationary if it is with respect to A.
    b.requires_grad_()
    loss_of(data, np.arange(400), Parameters(A.detach(), None, b)).backward()
    torch.testing.assert_close(b.grad / counts.sum(), torch.zeros_like(b), rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 600),
    n_words=st.integers(2, 40),
    rank=st.sampled_from([1, 3, 5, None]),
    l1=st.sampled_from([0.0, 0.01, 0.3]),
    l2=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 10**6),
)
def test_newton_start_is_no_worse_than_zero_on_the_search_rows(n, n_words, rank, l1, l2, seed) -> None:
    """On noise, where the full step is too long; b keeps the mean score of a word at its frequency."""
    rng = np.random.default_rng(seed)
    Y = sp.csr_array(rng.poisson(0.4, size=(n, n_words)).astype(float) + (np.arange(n) == 0)[:, None])
    data, _ = whitened(rng.normal(size=(n, 5)), Y, np.ones(n))
    p = make_newton_start(data, rank=rank, l1=l1, l2=l2)
    counts = data.dataset.word_counts()
    log_p = torch.from_numpy(np.log(counts / counts.sum()))
    searched = np.unique(np.linspace(0, n - 1, min(n, SEARCH_ROWS)).astype(int))
    at_zero = Parameters(torch.zeros_like(p.A), p.B, log_p)
    assert loss_of(data, searched, p) <= loss_of(data, searched, at_zero) * (1 + 1e-12)
    torch.testing.assert_close(p.b, log_p - p.A.square().sum(dim=1) / 2)
    if p.B is not None:
        norms = torch.linalg.vector_norm(p.B, dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("rank", [3, None])
def test_newton_start_is_much_better_than_zero_on_a_planted_problem(data, rank) -> None:
    counts, all_rows = data.dataset.word_counts(), np.arange(400)
    p = make_newton_start(data, rank=rank)
    at_zero = Parameters(torch.zeros_like(p.A), p.B, torch.from_numpy(log_frequencies(counts)))
    gained = (loss_of(data, all_rows, at_zero) - loss_of(data, all_rows, p)) / counts.sum()
    assert gained > 0.03


@pytest.mark.parametrize("rank", [3, None])
def test_newton_start_at_l1_max_is_zero(data, rank) -> None:
    counts = data.dataset.word_counts()
    top = 12 * l1_max(gradient_at_zero(data, counts), rank is not None)
    p = make_newton_start(data, rank=rank, l1=top)
    assert not p.A.any()
    torch.testing.assert_close(p.b, torch.from_numpy(log_frequencies(counts)))
    assert make_newton_start(data, rank=rank, l1=0.5 * top if rank is None else 0.1 * top).A.any()


@pytest.mark.parametrize("rank", [3, None])
def test_newton_start_does_not_depend_on_the_blocks_of_the_search(data, monkeypatch, rank) -> None:
    whole = make_newton_start(data, rank=rank)
    for rows in (1, 37):
        monkeypatch.setattr(likelihood, "rows_per_block", lambda *_, rows=rows: rows)
        for a, b in zip(whole, make_newton_start(data, rank=rank), strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


def test_initial_projection_has_the_leading_directions_of_the_shrunk_gradients(data) -> None:
    """B~'s rows are orthonormal, and no other three directions retain more of the shrunk gradients."""
    counts = data.dataset.word_counts()
    share = torch.from_numpy(counts / counts.sum())
    shrunk = (
        gradient_at_zero(data, counts) * (share / (share + initialization.DAMPING / counts.sum()))[:, None]
    )
    B = make_newton_start(data).B
    torch.testing.assert_close(B @ B.T, torch.eye(3, dtype=torch.float64))
    retained = (shrunk @ B.T).square().sum()
    assert float(retained) == pytest.approx(float(torch.linalg.svdvals(shrunk)[:3].square().sum()))
    noise = np.random.default_rng(0).normal(size=(6, 3))
    other = torch.linalg.qr(torch.from_numpy(noise))[0]
    assert (shrunk @ other).square().sum() < retained
    assert (B.gather(1, B.abs().argmax(dim=1, keepdim=True)) > 0).all()  # fixed signs


def test_words_without_counts_get_half_the_count_of_the_rarest() -> None:
    logs = log_frequencies(np.array([6.0, 0.0, 2.0]))
    np.testing.assert_allclose(np.exp(logs), [6 / 8, 1 / 8, 2 / 8])


@pytest.mark.parametrize("factorized", [True, False])
def test_warm_start_keeps_the_scores(small, factorized: bool) -> None:
    """The scores z of every x are the same under the mean and whitening of other rows."""
    data, whitening = whitened(small.X * 3 + 1, small.Y, np.ones(400))
    rng = np.random.default_rng(3)
    earlier = InitialPoint(
        rng.normal(size=(12, 3)), rng.normal(size=(3, 6)), rng.normal(size=12), rng.normal(size=6)
    )
    earlier.A[4], earlier.b[4] = 0.0, np.nan  # not seen before
    counts = data.dataset.word_counts()
    p = warm_start(earlier, counts, whitening, data, factorized=factorized)
    x, _ = data.batch(np.arange(400))
    h = x if p.B is None else x @ p.B.T
    z = (p.b + h @ p.A.T).numpy()
    expected = earlier.b + (small.X * 3 + 1 - earlier.mean) @ earlier.B.T @ earlier.A.T
    known = np.arange(12) != 4
    np.testing.assert_allclose(z[:, known], expected[:, known], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(z[:, 4], log_frequencies(counts)[4])
    assert (p.B is None) == (not factorized)
    if p.B is not None:
        norms = torch.linalg.vector_norm(p.B, dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))

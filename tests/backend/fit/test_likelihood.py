"""The count softmax: gradients, exact losses where theta underflows, blocks, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend import device
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit import likelihood
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.likelihood import (
    Gradients,
    SoftmaxLayer,
    Workspace,
    loss_and_gradients,
    loss_and_scores,
)
from tests.backend.reference import reference_loss
from tests.helpers.processes import in_process

CPU64 = resolve_compute("cpu", "float64")
CPU32 = resolve_compute("cpu", "float32")


def make_dataset(
    n: int, d: int, n_words: int, seed: int, density: float = 0.3
) -> tuple[CountDataset, sp.csr_array]:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(density, size=(n, n_words)).astype(np.float64)
    Y = sp.csr_array(dense)
    return CountDataset(rng.normal(size=(n, d)), Y, rng.random(n) + 0.5), Y


def compute_gradients(rows: CountDataset, picked: np.ndarray, A, b, B, compute):
    """(loss, dA, db, dh), written over nan."""
    x, targets = rows.batch(picked, compute)
    h = x @ B.T
    nans = [torch.full_like(tensor, np.nan) for tensor in (A, b, h)]
    flat = targets.flat(len(A))
    loss = loss_and_gradients(h, SoftmaxLayer(A, b), flat, Workspace(compute), Gradients(*nans))
    return loss, *nans


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 30),
    d=st.integers(1, 6),
    n_words=st.integers(1, 20),
    rank=st.integers(1, 5),
    block=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.05, 0.5, 3.0]),
    seed=st.integers(0, 10**6),
)
def test_gradients_equal_float64_autograd(n, d, n_words, rank, block, density, seed) -> None:
    rows, Y = make_dataset(n, d, n_words, seed, density)
    picked = np.random.default_rng(seed).permutation(n)[: max(1, n // 2)]
    torch.manual_seed(seed)
    A, b, B = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((n_words, rank), (n_words,), (rank, d))
    )
    x = torch.from_numpy(rows.X[picked])
    h = x @ B.T
    h.retain_grad()
    w = torch.from_numpy(rows.weights[picked])
    expected = reference_loss(h, A, b, torch.from_numpy(Y.toarray()[picked]), w)
    expected.backward()
    patch = pytest.MonkeyPatch()
    with patch.context() as m, torch.no_grad():
        m.setattr(likelihood, "rows_per_block", lambda *_: block)
        loss, grad_A, grad_b, grad_h = compute_gradients(
            rows, picked, A.detach(), b.detach(), B.detach(), CPU64
        )
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(grad_A, A.grad)
    torch.testing.assert_close(grad_b, b.grad)
    torch.testing.assert_close(grad_h, h.grad)


def test_residual_without_counts_is_not_the_gradient() -> None:
    """Negative control of the comparison with autograd."""
    rows, Y = make_dataset(10, 3, 5, 0)
    A = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    b, B = torch.zeros(5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    h = torch.from_numpy(rows.X) @ B.T
    reference_loss(h, A, b, torch.from_numpy(Y.toarray()), torch.from_numpy(rows.weights)).backward()
    totals = torch.from_numpy(rows.row_weight)[:, None]
    with torch.no_grad():
        wrong = (totals * torch.softmax(b + h @ A.T, dim=1)).T @ h
    assert not torch.allclose(wrong, A.grad)


def test_float32_is_close_to_float64() -> None:
    rows, _ = make_dataset(64, 8, 50, 1)
    picked = np.arange(64)
    parts = [torch.randn(*s, dtype=torch.float64) for s in ((50, 4), (50,), (4, 8))]
    exact = compute_gradients(rows, picked, *parts, CPU64)
    close = compute_gradients(rows, picked, *(p.float() for p in parts), CPU32)
    for a, b in zip(exact, close, strict=True):
        assert torch.linalg.vector_norm(a - b.double()) <= 1e-5 * torch.linalg.vector_norm(a)


def test_loss_is_exact_where_probabilities_underflow() -> None:
    """The only word of the row scores 300 nats below another: theta is 0 in float32, but the loss is 300."""
    counts = sp.csr_array(np.array([[1.0, 0.0]]))
    rows = CountDataset(np.ones((1, 1), np.float32), counts, np.ones(1))
    x, targets = rows.batch(np.array([0]), CPU32)
    A, b = torch.tensor([[-150.0], [150.0]]), torch.zeros(2)
    loss, _ = loss_and_scores(x, SoftmaxLayer(A, b), targets.flat(2), Workspace(CPU32))
    assert torch.softmax(x @ A.T, dim=1)[0, 0] == 0
    assert loss == pytest.approx(300.0)


@pytest.mark.parametrize("shift", [-7.5, 3.0, 1e3])
def test_constant_added_to_the_bias_changes_nothing(shift: float) -> None:
    rows, _ = make_dataset(20, 3, 7, 2)
    A, b, B = (torch.randn(*s, dtype=torch.float64) for s in ((7, 2), (7,), (2, 3)))
    before = compute_gradients(rows, np.arange(20), A, b, B, CPU64)
    after = compute_gradients(rows, np.arange(20), A, b + shift, B, CPU64)
    moved = compute_gradients(rows, np.arange(20), A, b + shift * torch.arange(7), B, CPU64)
    for x, y in zip(before, after, strict=True):
        torch.testing.assert_close(x, y)
    assert not torch.allclose(before[0], moved[0])  # negative control


def test_size_of_blocks_does_not_depend_on_n() -> None:
    cpu = torch.device("cpu")
    for n_words in (1, 100, 12_000, 100_000):
        rows = device.rows_per_block(n_words, 10**7, cpu)
        assert rows * n_words <= max(device.BLOCK_ELEMENTS["cpu"], device.MIN_BLOCK_ROWS * n_words)
    assert device.rows_per_block(100_000, 10**7, cpu) == device.MIN_BLOCK_ROWS


def growth_of_peak(n: int, n_words: int) -> int:
    """Bytes by which a fit and an extraction raise the peak of the memory of this process."""
    import resource

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    rng = np.random.default_rng(0)
    columns = rng.zipf(1.3, size=(n, 5)).clip(max=n_words) - 1
    Y = sp.csr_array((np.ones(n * 5), columns.ravel(), np.arange(0, n * 5 + 1, 5)), (n, n_words))
    X = rng.normal(size=(n, 8)).astype(np.float32)
    FLiPExtractor(rank=2, max_iter=1).fit(X[:50], Y[:50])
    before = peak()
    flip = FLiPExtractor(rank=4, max_iter=1, random_state=0).fit(X, Y)
    flip.predict(X), flip.score(X, Y)
    return peak() - before


def test_memory_of_fit_and_extraction_is_far_below_n_times_v() -> None:
    """In a process of its own, where n V is 1.0 GB in float32, memory grows by less than a quarter of it."""
    n = n_words = 16_000
    grown, dense = in_process(growth_of_peak, n, n_words), n * n_words * 4
    assert grown < dense / 4, f"grew by {grown / 1e6:.0f} MB; n V is {dense / 1e6:.0f} MB"

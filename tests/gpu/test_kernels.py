"""Every kernel on a CUDA device against its reference in float64 on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.fit import likelihood
from flip_sklearn.backend.fit.candidates import ClassSampler
from flip_sklearn.backend.fit.data import CountDataset, WhitenedDataset
from flip_sklearn.backend.fit.initialization import gradient_at_zero, newton_start
from flip_sklearn.backend.fit.likelihood import (
    Gradients,
    SoftmaxLayer,
    Workspace,
    loss_and_gradients,
    loss_and_scores,
)
from flip_sklearn.backend.fit.optimizer import Optimizer, Parameters
from flip_sklearn.backend.fit.whitening import Whitening, streaming_moments
from flip_sklearn.backend.ranking import top_k
from flip_sklearn.backend.scoring import products
from flip_sklearn.backend.scoring.bfloat16 import Shortlist
from flip_sklearn.backend.scoring.products import DenseProduct
from flip_sklearn.backend.scoring.scorer import Scorer
from flip_sklearn.backend.sparse_coding.lasso import Decomposition, nonnegative_lasso
from tests.helpers.planted import planted
from tests.helpers.ranking import integer_model, sorted_top

pytestmark = pytest.mark.gpu

# Largest relative error in the Frobenius norm. A factor in bfloat16 has an error of up to 2^-9.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 1e-2}
N_ROWS, N_WORDS, RANK, D = 70, 400, 24, 32


@pytest.fixture(params=TOLERANCE)
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def compute(precision: str) -> Compute:
    return resolve_compute("cuda", precision)


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    difference = torch.linalg.vector_norm(value.double().cpu() - exact)
    return float(difference / torch.linalg.vector_norm(exact))


def make_rows() -> CountDataset:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.02, size=(N_ROWS, N_WORDS)).astype(np.float64)
    return CountDataset(rng.normal(size=(N_ROWS, D)), sp.csr_array(counts), rng.random(N_ROWS) + 0.5)


def make_parameters() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """h, A and b in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(N_ROWS, RANK, dtype=torch.float64, generator=generator)
    A = torch.randn(N_WORDS, RANK, dtype=torch.float64, generator=generator)
    return h, A, torch.randn(N_WORDS, dtype=torch.float64, generator=generator)


def test_the_device_has_bfloat16() -> None:
    assert resolve_compute("auto", "auto") == Compute(torch.device("cuda"), torch.float32, torch.bfloat16)


# --- The likelihood ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_sampled", [False, True], ids=["exact", "sampled"])
@pytest.mark.parametrize("block_rows", [N_ROWS, 32])
def test_loss_and_gradients_equal_float64_autograd(
    compute: Compute, precision: str, is_sampled: bool, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "rows_per_block", lambda *_: block_rows)
    rows = make_rows()
    h, A, b = make_parameters()
    _, targets = rows.batch(np.arange(N_ROWS), compute)
    offsets = torch.zeros(N_ROWS, N_WORDS, dtype=torch.float64)
    target_offset = None
    if is_sampled:
        sampler = ClassSampler(rows.word_counts(), rows.document_frequency(), 10 * N_ROWS, N_ROWS, 40)
        generator = torch.Generator().manual_seed(0)
        sampled = sampler.draw(N_ROWS, targets.col, targets, generator)
        words, targets = sampled.words, sampled.targets
        assert 10 < len(words) < N_WORDS
        A, b = A[words], b[words] - sampled.log_inclusion.double()
        offsets = offsets[:, : len(words)]
        offsets[targets.row, targets.col] = sampled.target_log_inclusion.double()
        target_offset = sampled.target_log_inclusion.to(compute.device)
    counts = torch.zeros(offsets.shape, dtype=torch.float64)
    counts[targets.row, targets.col] = targets.count.double()

    for tensor in (h, A, b):
        tensor.requires_grad_()
    expected = -(counts * torch.log_softmax(b + h @ A.T + offsets, dim=1)).sum()
    expected.backward()

    on_device = [t.detach().to(compute.device, compute.dtype) for t in (h, A, b)]
    h_device, A_device, b_device = on_device
    gradients = Gradients(*(torch.full_like(t, np.nan) for t in (A_device, b_device, h_device)))
    layer = SoftmaxLayer(A_device, b_device, target_offset)
    with torch.no_grad():
        flat = targets.flat(len(A)).to(compute.device)
        loss = loss_and_gradients(h_device, layer, flat, Workspace(compute), gradients)
    assert loss.device.type == "cuda"
    errors = [
        relative_error(loss, expected.detach()),
        relative_error(gradients.A, A.grad),
        relative_error(gradients.b, b.grad),
        relative_error(gradients.h, h.grad),
    ]
    assert max(errors) < TOLERANCE[precision]
    if precision == "bfloat16":  # negative control: the products have this precision
        assert min(errors[1:]) > 100 * TOLERANCE["float32"]


def test_loss_and_scores_equal_their_definition(compute: Compute, precision: str) -> None:
    rows = make_rows()
    h, A, b = make_parameters()
    _, targets = rows.batch(np.arange(N_ROWS), compute)
    counts = torch.from_numpy(rows.weights[:, None] * rows.counts.toarray())
    z = b + h @ A.T
    on_device = [t.to(compute.device, compute.dtype) for t in (h, A, b)]
    flat = targets.flat(N_WORDS).to(compute.device)
    loss, scores = loss_and_scores(on_device[0], SoftmaxLayer(*on_device[1:]), flat, Workspace(compute))
    assert relative_error(scores, z) < TOLERANCE[precision]
    expected = float(-(counts * torch.log_softmax(z, dim=1)).sum())
    assert float(loss) == pytest.approx(expected, rel=TOLERANCE[precision])


def test_loss_is_exact_where_probabilities_underflow() -> None:
    """The word of the row scores 300 nats below another one, and its theta is 0 in float32."""
    compute = resolve_compute("cuda", "float32")
    rows = CountDataset(np.ones((1, 1), np.float32), sp.csr_array(np.array([[1.0, 0.0]])), np.ones(1))
    x, targets = rows.batch(np.array([0]), compute)
    A, b = torch.tensor([[-150.0], [150.0]]).to(x.device), torch.zeros(2, device=x.device)
    flat = targets.flat(2).to(x.device)
    loss, _ = loss_and_scores(x, SoftmaxLayer(A, b), flat, Workspace(compute))
    assert float(loss) == pytest.approx(300.0)


# --- The initial point ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_equal_the_weighted_covariance(dtype: type) -> None:
    rng = np.random.default_rng(0)
    X = (5 + rng.normal(size=(N_ROWS, D))).astype(dtype)
    rows = CountDataset(X, sp.csr_array(np.ones((N_ROWS, 1))), rng.random(N_ROWS))
    moments = streaming_moments(rows.chunks(32, resolve_compute("cuda", "float32")), D)
    mean = np.average(X.astype(np.float64), axis=0, weights=rows.weights)
    centred = X.astype(np.float64) - mean
    assert moments.weight == pytest.approx(rows.weights.sum())
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-12)
    scatter = (centred * rows.weights[:, None]).T @ centred
    np.testing.assert_allclose(moments.scatter, scatter, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", [6, None])
def test_newton_start_equals_that_of_the_cpu(compute: Compute, precision: str, rank: int | None) -> None:
    """The CPU's is compared with autograd in float64 by a test of its own."""
    truth = planted(n=300, d=12, n_words=60, rank=6)
    starts = []
    for where in (resolve_compute("cpu", "float64"), compute):
        rows = CountDataset(truth.X, truth.Y, np.ones(300))
        whitening = Whitening.from_moments(streaming_moments(rows.chunks(100, where), rows.d))
        mean, Q = (
            torch.from_numpy(a).to(where.device, where.dtype) for a in (whitening.mean, whitening.forward)
        )
        data, counts = WhitenedDataset(rows, mean, Q, where), rows.word_counts()
        gradient = gradient_at_zero(data, counts)
        p = newton_start(data, gradient, counts, rank=rank, l1=0.01, l2=1.0, work=Workspace(where))
        scores = p.A if p.B is None else p.A @ p.B
        starts.append([gradient, scores, p.b])
    tolerance = 1e-10 if precision == "float64" else 1e-4  # the directions are those of an eigenproblem
    for exact, value in zip(*starts, strict=True):
        assert relative_error(value, exact) < tolerance


# --- The optimizer ----------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [5, None], ids=["FLiP", "LiP"])
@pytest.mark.parametrize("is_lazy", [False, True])
@pytest.mark.parametrize("l1", [0.0, 5.0])
def test_steps_equal_the_steps_of_the_cpu(rank: int | None, is_lazy: bool, l1: float) -> None:
    """In float64, where the two differ by rounding only: the same support, and the same state."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    width = rank or D
    start = Parameters(randn(N_WORDS, width), None if rank is None else randn(rank, D), randn(N_WORDS))
    steps = []
    for _ in range(8):
        words = torch.randperm(N_WORDS, generator=generator)[:50].sort().values
        steps.append((words, randn(50, width), randn(50), None if rank is None else randn(rank, D)))

    def run(device: str) -> dict[str, torch.Tensor]:
        point = Parameters(*(None if t is None else t.to(device, copy=True) for t in start))
        optimizer = Optimizer(point, l1=l1, l2=2.0, learning_rate=0.1)
        for words, grad_A, grad_b, grad_B in steps:
            on_device = [None if t is None else t.to(device, copy=True) for t in (grad_A, grad_b, grad_B)]
            if is_lazy:
                optimizer.step(*on_device, optimizer.gather(words.to(device)))
                continue
            all_A, all_b = torch.zeros_like(point.A), torch.zeros_like(point.b)
            all_A[words.to(device)], all_b[words.to(device)] = on_device[0], on_device[1]
            optimizer.step(all_A, all_b, on_device[2])
        optimizer.flush_lazy_updates()
        averaged = dict(zip(("averaged_A", "averaged_B", "averaged_b"), optimizer.averaged(), strict=True))
        state = {**optimizer.state()[0], **averaged}
        return {name: t.cpu() for name, t in state.items() if t is not None}

    expected, result = run("cpu"), run("cuda")
    assert expected.keys() == result.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            result[name], tensor, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert bool((expected["A"] == 0).any()) == (l1 > 0)
    assert torch.equal(result["A"] == 0, expected["A"] == 0)


# --- Scores and the best words ----------------------------------------------------------------


@pytest.mark.parametrize("n_words", [65, 2048])
@pytest.mark.parametrize("levels", [2, 10**6])
def test_top_k_is_a_stable_sort(n_words: int, levels: int) -> None:
    z = np.random.default_rng(0).integers(-levels, levels, size=(9, n_words)) / 4
    values, columns = top_k(torch.from_numpy(z).to("cuda"), 20)
    expected = sorted_top(z, 20)
    np.testing.assert_array_equal(columns.cpu(), expected)
    np.testing.assert_array_equal(values.cpu(), np.take_along_axis(z, expected, axis=1))


def test_nan_ranks_above_all_numbers() -> None:
    scores = torch.zeros(1, 2000)
    scores[0, [5, 30]] = float("nan")
    _, columns = top_k(scores.to("cuda"), 3)
    assert {5, 30} < set(columns[0].tolist())


def test_shortlist_finds_the_words_of_exact_scores() -> None:
    """Small integers are bfloat16 numbers with exact sums, so certified words are those of a full sort."""
    A, _, offset, _, _ = integer_model(1, 4000, 16, 16, 1.0, seed=0)
    h = np.random.default_rng(1).integers(-3, 4, size=(300, 16))
    compute = resolve_compute("cuda", "bfloat16")
    parts = [torch.from_numpy(a).to(compute.device, torch.float32) for a in (A, offset)]
    rows = torch.from_numpy(h).to(compute.device, torch.float32)
    values, words, is_certified = Shortlist(DenseProduct(*parts), compute).top(rows, 5)
    certified = is_certified.cpu().numpy()
    z = offset + h @ A.T
    expected = sorted_top(z, 5)
    assert certified.mean() > 0.3
    np.testing.assert_array_equal(words.cpu().numpy()[certified], expected[certified])
    np.testing.assert_array_equal(
        values.cpu().numpy()[certified], np.take_along_axis(z, expected, axis=1)[certified]
    )


def test_nearly_all_rows_of_random_scores_are_certified() -> None:
    """And their words are those of float64 scores, but for rounding."""
    rng = np.random.default_rng(0)
    A, offset, h = rng.normal(size=(8000, 64)), rng.normal(size=8000), rng.normal(size=(200, 64))
    A, offset, h = (a.astype(np.float32) for a in (A, offset, h))
    compute = resolve_compute("cuda", "bfloat16")
    parts = [torch.from_numpy(a).to(compute.device) for a in (A, offset)]
    shortlist = Shortlist(DenseProduct(*parts), compute)
    _, words, is_certified = shortlist.top(torch.from_numpy(h).to(compute.device), 10)
    assert is_certified.double().mean() > 0.9
    z = offset.astype(np.float64) + h.astype(np.float64) @ A.T.astype(np.float64)
    certified = is_certified.cpu().numpy()
    assert (words.cpu().numpy() == sorted_top(z, 10))[certified].mean() > 0.999


@pytest.mark.parametrize("as_stored", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize("scoring_precision", ["float32", "bfloat16", "float64"])
def test_scorer_is_exact_for_integers(
    as_stored: Any, density: float, scoring_precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "BLOCK_ROWS", {"cpu": (16, 16), "cuda": (16, 16)})
    A, B, offset, mean, X = integer_model(50, 900, 8, 6, density, seed=1)
    unseen = np.zeros(900, dtype=bool)
    z = offset + (X - mean) @ B.T @ A.T
    scorer = Scorer(as_stored(A), B, offset, mean, resolve_compute("cuda", scoring_precision), unseen)
    words, values = scorer.top(X, 7)
    np.testing.assert_array_equal(words, sorted_top(z, 7))
    np.testing.assert_array_equal(values, np.take_along_axis(z, words, axis=1))
    np.testing.assert_array_equal(scorer.dense(X, "scores"), z)
    theta = np.exp(z - z.max(axis=1, keepdims=True))
    theta /= theta.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scorer.dense(X, "softmax"), theta, rtol=1e-4, atol=1e-7)
    _, probabilities = scorer.top(X, 7, probabilities=True)
    np.testing.assert_allclose(probabilities, np.take_along_axis(theta, words, axis=1), rtol=1e-4, atol=1e-7)
    Y = sp.csr_array(np.random.default_rng(2).random((50, 900)) < 0.01)
    expected = [len({*sorted_top(row[None], Y[[i]].nnz)[0]} & {*Y[[i]].indices}) for i, row in enumerate(z)]
    np.testing.assert_array_equal(scorer.hits(X, Y), expected)


# --- Sparse coding ----------------------------------------------------------------------------


@pytest.mark.parametrize("l1", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lasso_equals_the_lasso_of_the_cpu(l1: float, dtype: torch.dtype) -> None:
    """The CPU's is compared with scikit-learn and SciPy by tests of its own."""
    rng = np.random.default_rng(0)
    D, X = rng.normal(size=(300, 24)), rng.normal(size=(40, 24))
    D, X = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (D, X))

    def objective(result: Decomposition) -> np.ndarray:
        indices, weights = result.indices.cpu().numpy(), result.weights.double().cpu().numpy()
        W = np.zeros((40, 301))
        np.put_along_axis(W, indices, weights, axis=1)
        W = W[:, :-1]
        assert (W >= 0).all()
        return ((X - W @ D) ** 2).sum(axis=1) + l1 * W.sum(axis=1)

    exact = objective(nonnegative_lasso(torch.from_numpy(D), torch.from_numpy(X), l1))
    on_device = [torch.from_numpy(a).to("cuda", dtype) for a in (D, X)]
    result = objective(nonnegative_lasso(*on_device, l1))
    np.testing.assert_allclose(result, exact, atol=1e-4 if dtype == torch.float32 else 1e-8)

"""On a device, scoring and extraction wait for it at most once a block of rows; results are the CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.ranking import keyword_accuracy_per_row, top_k
from flip_sklearn.backend.scoring import products, scorer
from flip_sklearn.backend.scoring.scorer import Scorer
from tests.helpers.standin_gpu import standin_gpu
from tests.helpers.standin_streams import Counts

N_WORDS, D, RANK = 3000, 12, 8
BLOCK_ROWS = 100


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """A device that ranks at most 100 rows at a time, 250 rows of X at a time."""
    monkeypatch.setitem(products.BLOCK_ROWS, "cuda", (1, BLOCK_ROWS))
    monkeypatch.setitem(scorer.CHUNK_ROWS, "cuda", 250)
    monkeypatch.setattr(scorer, "MANY_ROWS", 100)
    with standin_gpu() as counts:
        yield counts


def make_factors(*, bias: bool, sparse: bool, seed: int = 0) -> dict[str, Any]:
    """Word embeddings of which a few words have none, and every fiftieth was not seen in training."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(N_WORDS, RANK)).astype(np.float32)
    A[rng.random(N_WORDS) < (0.7 if sparse else 0.02)] = 0
    offset = rng.normal(size=N_WORDS) if bias else np.zeros(N_WORDS)
    return {
        "A": sp.csr_array(A) if sparse else A,
        "B": rng.normal(size=(RANK, D)).astype(np.float32),
        "offset": offset.astype(np.float32),
        "mean": rng.normal(size=D).astype(np.float32),
        "unseen": np.arange(N_WORDS) % 50 == 0,
    }


def make_rows(n: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, D)).astype(np.float32)


def n_blocks(n: int) -> int:
    """Blocks of at most 100 rows, of chunks of 250."""
    return sum(-(-rows // BLOCK_ROWS) for rows in [250] * (n // 250) + [n % 250])


@pytest.mark.parametrize(("n", "k"), [(1, 10), (100, 1), (777, 10), (777, 40)])
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(("bias", "sparse"), [(True, False), (False, False), (True, True), (False, True)])
def test_extraction_waits_once_a_block(
    gpu: Counts, n: int, k: int, probabilities: bool, precision: str, bias: bool, sparse: bool
) -> None:
    factors, X = make_factors(bias=bias, sparse=sparse), make_rows(n)
    on_device = Scorer(**factors, compute=resolve_compute("cuda", precision))
    gpu.waits.clear()
    words, values = on_device.top(X, k, probabilities=probabilities)
    assert gpu.waits.total() == n_blocks(n)
    cpu_precision = "float64" if precision == "float64" else "float32"
    on_cpu = Scorer(**factors, compute=resolve_compute("cpu", cpu_precision))
    expected_words, expected = on_cpu.top(X, k, probabilities=probabilities)
    np.testing.assert_array_equal(words, expected_words)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("longest", [3, 30])
def test_hits_wait_once_a_block(gpu: Counts, precision: str, longest: int) -> None:
    """Rows are ranked together with rows of about as many words: here 1 to 16, or 17 to 32."""
    factors, X = make_factors(bias=True, sparse=False), make_rows(230)
    counts = np.zeros((230, N_WORDS))
    for row in range(230):
        counts[row, np.random.default_rng(row).choice(N_WORDS, 1 + row % longest, replace=False)] = 1
    words = sp.csr_array(counts)
    on_device = Scorer(**factors, compute=resolve_compute("cuda", precision))
    gpu.waits.clear()
    hits = on_device.hits(X, words)
    n_short = np.count_nonzero(np.diff(words.indptr) <= 16)
    assert gpu.waits.total() == sum(-(-rows // BLOCK_ROWS) for rows in (n_short, 230 - n_short))
    on_cpu = Scorer(**factors, compute=resolve_compute("cpu", "float32"))
    np.testing.assert_array_equal(hits, on_cpu.hits(X, words))


@pytest.mark.parametrize("transform", ["scores", "softmax", "log_softmax"])
def test_dense_scores_wait_once_a_block_and_not_at_all_if_they_stay(gpu: Counts, transform: str) -> None:
    factors, X = make_factors(bias=True, sparse=False), make_rows(230)
    on_device = Scorer(**factors, compute=resolve_compute("cuda", "float32"))
    gpu.waits.clear()
    result = on_device.dense(X, transform)
    assert gpu.waits.total() == n_blocks(230)
    expected = Scorer(**factors, compute=resolve_compute("cpu", "float32")).dense(X, transform)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    X_on_device = torch.from_numpy(X).to("cuda")
    gpu.waits.clear()
    stays = on_device.dense(X_on_device, transform)
    assert gpu.waits.total() == 0
    assert stays.device.type == "cuda"
    np.testing.assert_array_equal(stays.cpu().numpy(), result)


def test_only_blocks_with_ties_at_k_wait_again(gpu: Counts) -> None:
    """Words 5, 6 and 7 are equal. With k = 2 rows whose best word they are need the lowest two of them."""
    factors = make_factors(bias=True, sparse=False)
    factors["A"][5:8], factors["offset"][5:8] = 10, 0
    towards = np.linalg.lstsq(factors["B"], factors["A"][5], rcond=None)[0]
    X = 0.1 * make_rows(200) + (factors["mean"] - towards).astype(np.float32)
    X[150:160] += 2 * towards.astype(np.float32)  # in the second block
    on_device = Scorer(**factors, compute=resolve_compute("cuda", "float32"))
    on_device.top(X[:100], 2)
    gpu.waits.clear()
    words, _ = on_device.top(X[:100], 2)
    assert gpu.waits.total() == 1
    gpu.waits.clear()
    words, _ = on_device.top(X, 2)
    assert gpu.waits.total() > 2
    np.testing.assert_array_equal(words[150:160], np.tile([5, 6], (10, 1)))
    on_cpu = Scorer(**factors, compute=resolve_compute("cpu", "float32"))
    np.testing.assert_array_equal(words, on_cpu.top(X, 2)[0])


@pytest.mark.parametrize("longest", [3, 30, 100])
def test_keyword_accuracy_waits_once(gpu: Counts, longest: int) -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(60, 700)).astype(np.float32))
    words = sp.csr_array(rng.random((60, 700)) < longest / 700)
    words.sort_indices()
    on_device = scores.to("cuda")
    gpu.waits.clear()
    accuracy = keyword_accuracy_per_row(on_device, words.indptr, words.indices)
    assert gpu.waits.total() == 1
    np.testing.assert_array_equal(accuracy, keyword_accuracy_per_row(scores, words.indptr, words.indices))


def test_keyword_accuracy_with_ties_is_that_of_the_cpu(gpu: Counts) -> None:
    """Four distinct scores: every row has ties at its last place."""
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(4, size=(60, 700)).astype(np.float32))
    words = sp.csr_array(rng.random((60, 700)) < 30 / 700)
    words.sort_indices()
    arguments = words.indptr, words.indices
    accuracy = keyword_accuracy_per_row(scores.to("cuda"), *arguments)
    np.testing.assert_array_equal(accuracy, keyword_accuracy_per_row(scores, *arguments))


def test_the_device_ranks_the_next_block_while_the_caller_reads_one(gpu: Counts) -> None:
    on_device = Scorer(**make_factors(bias=True, sparse=False), compute=resolve_compute("cuda", "float32"))
    blocks = on_device.top_blocks(make_rows(200), 5)
    gpu.operators.clear()
    next(blocks)
    assert gpu.operators["aten::mm"] >= 2 + 1  # the projection, and a product for each of two blocks
    assert gpu.waits.total() == 1
    n_operators = gpu.operators["aten::mm"]
    next(blocks)
    assert gpu.operators["aten::mm"] == n_operators
    assert gpu.waits.total() == 2


def test_the_count_of_waits_can_fail(gpu: Counts) -> None:
    """Negative control: top_k resolves ties itself, which waits, and so does reading each result alone."""
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 700))).to("cuda")
    gpu.waits.clear()
    values, columns = top_k(scores, 5)
    assert gpu.waits.total() > 0
    gpu.waits.clear()
    values.cpu(), columns.cpu()
    assert gpu.waits.total() == 2

"""On a device, the Lasso waits for it once a round and once a step of the small problems."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from flip_sklearn.backend.sparse_coding import active_set
from flip_sklearn.backend.sparse_coding.lasso import Decomposition, SparseCoder, nonnegative_lasso
from tests.helpers.standin_gpu import standin_gpu


def make_problem(n_words: int = 400, d: int = 32, n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit words, and rows that are sums of about three of them with noise."""
    rng = np.random.default_rng(0)
    words = torch.from_numpy(rng.normal(size=(n_words, d)).astype(np.float32))
    counts = torch.from_numpy(rng.poisson(3 / n_words, size=(n, n_words)).astype(np.float32))
    rows = counts @ words + 0.1 * torch.from_numpy(rng.normal(size=(n, d)).astype(np.float32))
    return (torch.nn.functional.normalize(x, dim=1) for x in (words, rows))


def same(one: Decomposition, other: Decomposition) -> None:
    np.testing.assert_array_equal(one.indices.cpu(), other.indices)
    np.testing.assert_allclose(one.weights.cpu(), other.weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("l1", [0.0, 0.1, 0.5])
def test_waits_are_rounds_and_steps(monkeypatch: pytest.MonkeyPatch, l1: float) -> None:
    words, rows = make_problem()
    expected = nonnegative_lasso(words, rows, l1)
    n_steps = 0
    solve_free = active_set._solve_free

    def counting(*arguments: Any) -> torch.Tensor:
        nonlocal n_steps
        n_steps += 1
        return solve_free(*arguments)

    monkeypatch.setattr(active_set, "_solve_free", counting)
    with standin_gpu() as counts:
        on_device = words.to("cuda"), rows.to("cuda")
        counts.waits.clear()
        result = nonnegative_lasso(*on_device, l1)
        # A factorization may wait inside its library, which cannot be known here.
        n_waits = counts.waits.total() - counts.waits["aten::linalg_cholesky_ex"]
        # Two for the block: which rows are zero, and the width of the result.
        assert n_waits == result.n_rounds + n_steps + 2
        same(result, expected)


def test_equal_words_are_chosen_as_on_the_cpu() -> None:
    """Each word occurs twenty times, so that ties cut through the words of a round."""
    words, rows = make_problem(n_words=20)
    words = words.repeat(20, 1)
    expected = nonnegative_lasso(words, rows, 0.1)
    with standin_gpu():
        same(nonnegative_lasso(words.to("cuda"), rows.to("cuda"), 0.1), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_is_read_at_once(dtype: torch.dtype) -> None:
    words, rows = (x.numpy() for x in make_problem())
    expected = SparseCoder(words, torch.device("cpu"), dtype).decompose(rows, 0.2)
    with standin_gpu() as counts:
        coder = SparseCoder(words, torch.device("cuda"), dtype)
        counts.downloads.clear()
        indices, weights, gap = coder.decompose(rows, 0.2)
        n, width = indices.shape
        assert counts.downloads[-1] == n * (2 * width + 1)
    for one, other in zip((indices, weights, gap), expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

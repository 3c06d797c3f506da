"""Soft-thresholding, top-k and the choice of device and precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.backend import device
from flip_sklearn.backend.device import Compute, product_precision, resolve_compute, resolve_device
from flip_sklearn.backend.fit.penalty import penalty_step_, soft_threshold_
from flip_sklearn.backend.scoring import products as words
from flip_sklearn.backend.scoring.scorer import Scorer

finite = st.floats(-1e3, 1e3, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(a=finite, t=st.floats(0, 100))
def test_soft_threshold_minimizes_its_objective(a: float, t: float) -> None:
    """argmin_x (x - a)^2 / 2 + t |x|: no other point is better, and zero is exactly zero."""
    x = float(soft_threshold_(torch.tensor([a], dtype=torch.float64), t))
    y = float(
        soft_threshold_(
            torch.tensor([a], dtype=torch.float64), torch.tensor([t], dtype=torch.float64)
        )
    )
    assert x == y

    def value(v):
        return 0.5 * (v - a) ** 2 + t * np.abs(v)

    others = np.concatenate([np.linspace(a - t - 1, a + t + 1, 201), [0.0, a, a - t, a + t]])
    assert value(x) <= value(others).min() + 1e-9
    if abs(a) <= t:
        assert x == 0.0


@settings(max_examples=200, deadline=None)
@given(a=finite, d=st.floats(0.01, 10), l1=st.floats(0, 10), l2=st.floats(0, 10))
def test_the_penalty_step_minimizes_its_objective_in_the_metric(a, d, l1, l2) -> None:
    """argmin_u (u - a)^2 / (2 d) + l1 |u| + (l2/2) u^2; soft-thresholding by l1 alone is worse."""
    start = torch.tensor([[a]], dtype=torch.float64)
    metric = torch.tensor([[d]], dtype=torch.float64)
    u = float(penalty_step_(start.clone(), metric, l1=l1, l2=l2, work=torch.empty_like(start)))

    def value(v):
        return (v - a) ** 2 / (2 * d) + l1 * np.abs(v) + 0.5 * l2 * v**2

    others = np.concatenate(
        [np.linspace(-abs(a) - 1, abs(a) + 1, 401), [0.0, a, u + 1e-6, u - 1e-6]]
    )
    assert value(u) <= value(others).min() + 1e-9
    if abs(a) <= l1 * d:
        assert u == 0.0


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    n_words=st.integers(1, 30),
    block=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_top_k_equals_sorting_the_scores_in_any_blocks(n, n_words, block, seed) -> None:
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n_words, 3)), rng.normal(size=(3, 4))
    offset, mean, X = rng.normal(size=n_words), rng.normal(size=4), rng.normal(size=(n, 4))
    scorer = Scorer.from_arrays(A, B, offset, mean, resolve_compute("cpu", "float64"))
    z = offset + (X - mean) @ B.T @ A.T
    theta = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    k = int(rng.integers(1, n_words + 1))
    order = np.argsort(-z, axis=1)[:, :k]
    with pytest.MonkeyPatch().context() as m:
        m.setattr(words, "BLOCK_ROWS", {"cpu": (block, block)})
        indices, scores = scorer.top(X, k)
        _, probabilities = scorer.top(X, k, probabilities=True)
        np.testing.assert_allclose(scorer.dense(X, "scores"), z)
        np.testing.assert_allclose(scorer.dense(X, "softmax"), theta)
        np.testing.assert_allclose(scorer.dense(X, "log_softmax"), np.log(theta), atol=1e-12)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, np.take_along_axis(z, order, axis=1))
    np.testing.assert_allclose(probabilities, np.take_along_axis(theta, order, axis=1))


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "", "cpu:x", 3, None])
def test_unknown_devices_are_named_with_the_allowed_ones(name) -> None:
    with pytest.raises(ValueError, match="cuda") as error:
        resolve_device(name)
    assert repr(name) in str(error.value)
    assert "'cpu'" in str(error.value)


def test_precisions() -> None:
    assert resolve_compute("cpu", "float64").dtype == torch.float64
    assert resolve_compute("cpu", "float32").product_dtype == torch.float32
    low = resolve_compute("cpu", "bfloat16")
    assert (low.dtype, low.product_dtype) == (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="'half' is unknown; use one of 'auto', 'float32'"):
        resolve_compute("cpu", "half")


@pytest.mark.parametrize("amx", [True, False])
def test_auto_precision_follows_the_chip_and_nothing_else(monkeypatch, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    expected = torch.bfloat16 if amx else torch.float32
    assert resolve_compute("cpu", "auto").product_dtype == expected


def test_bfloat16_products_are_permitted_inside_and_restored_outside() -> None:
    knob = torch.backends.mkldnn.matmul
    before = knob.fp32_precision
    compute = Compute(torch.device("cpu"), torch.float32, torch.bfloat16)
    with product_precision(compute):
        assert knob.fp32_precision == "bf16"
        with pytest.raises(RuntimeError), product_precision(compute):
            torch.mm(torch.ones(2, 3), torch.ones(2, 3))  # fails inside
        assert knob.fp32_precision == "bf16"
    assert knob.fp32_precision == before
    with product_precision(resolve_compute("cpu", "float32")):
        assert knob.fp32_precision == before


def test_data_stay_on_the_host_when_the_gpu_is_small(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    gpu = torch.device("cuda")
    assert device.fits_on_device(500, gpu)
    assert not device.fits_on_device(501, gpu)
    assert device.fits_on_device(10**15, torch.device("cpu"))

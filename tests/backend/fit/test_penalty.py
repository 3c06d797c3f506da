"""Soft-thresholding and the proximal step of the penalty."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.backend.fit.penalty import penalty_step_, soft_threshold_

finite = st.floats(-1e3, 1e3, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(a=finite, t=st.floats(0, 100))
def test_soft_threshold_minimizes_its_objective(a: float, t: float) -> None:
    """argmin_x (x - a)^2 / 2 + t |x|: no other point is better, and zero is exact."""
    x = float(soft_threshold_(torch.tensor([a], dtype=torch.float64), t))
    y = float(soft_threshold_(torch.tensor([a], dtype=torch.float64), torch.tensor([t], dtype=torch.float64)))
    assert x == y

    def value(v):
        return 0.5 * (v - a) ** 2 + t * np.abs(v)

    others = np.concatenate([np.linspace(a - t - 1, a + t + 1, 201), [0.0, a, a - t, a + t]])
    assert value(x) <= value(others).min() + 1e-9
    if abs(a) <= t:
        assert x == 0.0


@settings(max_examples=200, deadline=None)
@given(a=finite, d=st.floats(0.01, 10), l1=st.floats(0, 10), l2=st.floats(0, 10))
def test_penalty_step_minimizes_its_objective_in_the_metric(a, d, l1, l2) -> None:
    """argmin_u (u - a)^2 / (2 d) + l1 |u| + (l2/2) u^2, which is not soft-thresholding by l1 alone."""
    start = torch.tensor([[a]], dtype=torch.float64)
    metric = torch.tensor([[d]], dtype=torch.float64)
    u = float(penalty_step_(start.clone(), metric, l1=l1, l2=l2, scratch=torch.empty_like(start)))

    def value(v):
        return (v - a) ** 2 / (2 * d) + l1 * np.abs(v) + 0.5 * l2 * v**2

    others = np.concatenate([np.linspace(-abs(a) - 1, abs(a) + 1, 401), [0.0, a, u + 1e-6, u - 1e-6]])
    assert value(u) <= value(others).min() + 1e-9
    if abs(a) <= l1 * d:
        assert u == 0.0

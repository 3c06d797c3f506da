"""The update of the words in three kernels, for a CUDA device: the formulas of ``optimizer.py``, read once.

An update of all words reads and writes arrays of the size of A and is limited by memory: as separate torch
operators it moves two to three times the bytes, and on sampled classes, where arrays are small, it takes
thirty launches. The kernels are a few lines of C++ for one element. ``torch.cuda.jiterator`` compiles them at
the first step with the compiler library of CUDA, which comes with torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch

Kernel = Callable[..., tuple[torch.Tensor, ...]]

# v_j, the step size s_j and the one of the penalty, which also makes up for skipped steps.
STEP_SIZES = """
template <typename T> void step_sizes(
    T square, T norm, T skipped, T scale, T keep, T add, T rate, T correction, T eps,
    T& new_square, T& size, T& penalty_size
) {
    T v = square * pow(keep, skipped + T(1)) + add * (norm * norm * scale);
    T s = v == T(0) ? T(0) : rate / (sqrt(v / correction) + eps);
    new_square = v;
    size = s;
    penalty_size = s * (skipped + T(1));
}
"""

# The gradient step, the proximal step and the average of one entry of A.
ROWS = """
template <typename T> void update_rows(
    T a, T gradient, T average, T size, T penalty_size, T catch_up, T l1, T l2, T weight,
    T& new_a, T& new_average
) {
    T before = average + catch_up * (a - average);
    T x = a - size * gradient;
    T threshold = l1 * penalty_size;
    T inside = x < threshold ? x : threshold;
    inside = inside > -threshold ? inside : -threshold;
    T next = (x - inside) / (T(1) + l2 * penalty_size);
    new_a = next;
    new_average = before + weight * (next - before);
}
"""

# The step and the average of one entry of b.
BIAS = """
template <typename T> void update_bias(
    T b, T gradient, T average, T square, T skipped, T catch_up,
    T keep, T add, T rate, T correction, T eps, T weight,
    T& new_b, T& new_average, T& new_square
) {
    T v = square * pow(keep, skipped + T(1)) + add * gradient * gradient;
    T before = average + catch_up * (b - average);
    T next = b - rate * gradient / (sqrt(v / correction) + eps);
    new_b = next;
    new_average = before + weight * (next - before);
    new_square = v;
}
"""


class FusedUpdates:
    """The compiled kernels. Tensors are broadcast; keyword arguments are the numbers of a step."""

    def __init__(self) -> None:
        numbers = {"keep": 0.0, "add": 0.0, "rate": 0.0, "correction": 0.0, "eps": 0.0}
        compile_ = torch.cuda.jiterator._create_multi_output_jit_fn
        self.step_sizes: Kernel = compile_(STEP_SIZES, 3, scale=0.0, **numbers)
        self.update_rows: Kernel = compile_(ROWS, 2, l1=0.0, l2=0.0, weight=0.0)
        self.update_bias: Kernel = compile_(BIAS, 3, **numbers, weight=0.0)


@cache
def fused_updates(device: torch.device) -> FusedUpdates | None:
    """Return the kernels, or None where torch cannot compile them."""
    if device.type != "cuda" or not hasattr(torch._C, "_cuda_jiterator_compile_and_launch_kernel"):
        return None
    one = torch.ones(1, dtype=torch.float32, device=device)
    try:
        kernels = FusedUpdates()
        kernels.step_sizes(one, one, one)
    except RuntimeError as error:
        warnings.warn(f"steps are slower because torch cannot compile kernels: {error}", stacklevel=2)
        return None
    return kernels

"""Figures, clocks and data of ``bench_gpu``, for a GPU or a CPU."""

from __future__ import annotations

import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.bench_scaling import TOKENS_PER_ROW
from benchmarks.measuring import synchronize
from flip_sklearn.backend.device import Compute, matmul, slices
from flip_sklearn.backend.fit.session import Session

# Buffers are allocated, and kernels are loaded, in the first steps of a pass.
WARM_UP_STEPS, PROBE_STEPS = 10, 40
ROWS_AT_ONCE = 65_536


class Figures:
    """Prints figures, one a line, and appends them to figures.jsonl in the folder $OUT if it is set."""

    def __init__(self, part: str, device: torch.device) -> None:
        self._part, self._device = part, device
        folder = os.environ.get("OUT")
        self._file = Path(folder) / "figures.jsonl" if folder else None

    def add(self, name: str, value: float, unit: str) -> None:
        """Print and record one figure."""
        name = f"{self._part}.{name}"
        print(f"{name} {value:.4g} {unit}", flush=True)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name, "value": value, "unit": unit}) + "\n")

    @contextmanager
    def peak_memory(self, name: str) -> Iterator[None]:
        """Record the peak of the device memory inside the block; on a CPU, that of the process so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        yield
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.add(f"{name}.peak_memory", peak / 1e9, "GB")


@contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Let float32 products run in TF32 on a GPU."""
    settings = torch.backends.cuda.matmul
    name, values = "fp32_precision", ("ieee", "tf32")
    if not hasattr(settings, name):  # torch < 2.9
        name, values = "allow_tf32", (False, True)
    previous = getattr(settings, name)
    setattr(settings, name, values[enabled])
    try:
        yield
    finally:
        setattr(settings, name, previous)


def seconds_of(call: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Return the seconds of one call: the best of three means over ``repeats`` calls in a row."""
    for _ in range(3):
        call()
    best = math.inf
    for _ in range(3):
        synchronize(device)
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(repeats):
                call()
            end.record()
            synchronize(device)
            seconds = start.elapsed_time(end) / 1e3
        else:
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            seconds = time.perf_counter() - began
        best = min(best, seconds / repeats)
    return best


def step_products(
    m: int, rank: int, n_words: int, compute: Compute
) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return factors and result of the three products of a step, by the name of the result."""
    device = compute.device
    h = torch.randn(m, rank, device=device)
    A = torch.randn(n_words, rank, device=device)
    G = torch.randn(m, n_words, device=device)
    is_converted = device.type == "cuda" and compute.product_dtype == torch.bfloat16
    h_, A_, G_ = (t.to(torch.bfloat16) if is_converted else t for t in (h, A, G))
    # Results have memory of their own: repeated products into their factors would overflow.
    scores, grad_A, grad_h = (torch.empty_like(t) for t in (G, A, h))
    return {"scores": (h_, A_.T, scores), "grad_A": (G_.T, h_, grad_A), "grad_h": (G_, A_, grad_h)}


def product_floor(m: int, rank: int, n_words: int, compute: Compute) -> float:
    """Return the seconds of the three products of a step, with factors in the product format."""
    products = step_products(m, rank, n_words, compute)

    def multiply() -> None:
        for a, b, out in products.values():
            matmul(a, b, compute, out=out)

    return seconds_of(multiply, compute.device)


class _StopPass(Exception):
    """Ends a pass after some of its steps."""


@dataclass(frozen=True)
class PassTime:
    """Seconds of a pass, and of a step in the middle of it; ``steps`` were made and ``total`` is a pass."""

    seconds: float  # measured if steps == total, otherwise extrapolated from the steps
    step: float
    steps: int
    total: int


def time_pass(session: Session, budget: float) -> PassTime:
    """Make one pass, or as many of its steps as the budget in seconds allows."""
    device, n, m = session.compute.device, len(session.data.dataset), session.options.batch_size
    total = math.ceil(n / m)
    times: dict[int, float] = {}  # when a step had ended
    last = total

    def after_step(rows_done: int) -> None:
        nonlocal last
        steps = math.ceil(rows_done / m)
        if steps not in (WARM_UP_STEPS, WARM_UP_STEPS + PROBE_STEPS, last):
            return
        synchronize(device)
        times[steps] = time.perf_counter()
        if steps == WARM_UP_STEPS + PROBE_STEPS:
            per_step = (times[steps] - times[WARM_UP_STEPS]) / PROBE_STEPS
            if per_step * total > budget:
                last = min(total, steps + max(1, int(budget / per_step)))
        if steps == last < total:
            raise _StopPass

    start = time.perf_counter()
    try:
        session.run_pass(after_step)
    except _StopPass:
        per_step = (times[last] - times[WARM_UP_STEPS]) / (last - WARM_UP_STEPS)
        return PassTime(per_step * total, per_step, last, total)
    synchronize(device)
    seconds = time.perf_counter() - start
    first = WARM_UP_STEPS if WARM_UP_STEPS in times and total > WARM_UP_STEPS else None
    step = seconds / total if first is None else (times[total] - times[first]) / (total - first)
    return PassTime(seconds, step, total, total)


def zipf_rows(n: int, n_words: int, device: torch.device) -> sp.csr_array:
    """Return counts (n, V) of ten distinct words a row; word j has a probability ~ 1 / (j + 10).

    Sampling is systematic: ten equally spaced points, shifted at random, select a row's words on the scale of
    cumulative probabilities. The words are distinct and ascending, as no probability exceeds a tenth.
    """
    edges = (1.0 / (torch.arange(n_words, device=device, dtype=torch.float64) + 10.0)).cumsum(0)
    shift = torch.rand(n, 1, device=device, dtype=torch.float64)
    points = (torch.arange(TOKENS_PER_ROW, device=device) + shift) * (edges[-1] / TOKENS_PER_ROW)
    words = torch.searchsorted(edges, points).clamp_max_(n_words - 1).to(torch.int32)
    indptr = np.arange(0, n * TOKENS_PER_ROW + 1, TOKENS_PER_ROW, dtype=np.int32)
    counts = np.ones(n * TOKENS_PER_ROW, np.float32)
    return sp.csr_array((counts, words.flatten().cpu().numpy(), indptr), shape=(n, n_words))


def normal_rows(n: int, d: int, device: torch.device) -> torch.Tensor:
    """Return float16 embeddings (n, d) on the device."""
    X = torch.empty(n, d, dtype=torch.float16, device=device)
    for rows in slices(n, ROWS_AT_ONCE):
        X[rows] = torch.randn(rows.stop - rows.start, d, device=device)
    return X

"""Figures of a GPU: its ceilings, and seconds and memory of fits and of extraction beside them.

``bash benchmarks/gpu_check.sh`` runs all parts, each in a process of its own. From the root of the
repository, one part is

    python -m benchmarks.bench_gpu environment    # bandwidth, product rates, cost of a launch
    python -m benchmarks.bench_gpu quality        # seconds to given accuracies, planted data
    python -m benchmarks.bench_gpu pass_floor     # a step over its three matrix products
    python -m benchmarks.bench_gpu paper          # a pass over 3.4 million rows, V = 100,000
    python -m benchmarks.bench_gpu extract        # top 10 words over the one product
    python -m benchmarks.bench_gpu profile        # kernels of a step
    python -m benchmarks.bench_gpu model          # the cost model; needs no GPU

``--device cpu --small`` runs a part on a CPU in seconds, which tests the benchmark and measures nothing. A
line of the output is name, value and unit; figures are also appended to $OUT/figures.jsonl if OUT is set.

A pass that would exceed ``--seconds`` is extrapolated from some of its steps; then ``steps_timed`` is less
than ``steps``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.base import clone
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_extract import make_model
from benchmarks.bench_scaling import BATCH_ROWS, make_session
from benchmarks.data import Data, make_synthetic
from benchmarks.gpu_cost import print_model, step_bytes
from benchmarks.gpu_measuring import (
    Figures,
    PassTime,
    normal_rows,
    product_floor,
    seconds_of,
    step_products,
    tf32_products,
    time_pass,
    zipf_rows,
)
from benchmarks.measuring import dev_accuracy, processor_name, synchronize
from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import Compute, matmul, resolve_compute
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.state import PassRecord
from flip_sklearn.backend.scoring.scorer import Scorer

TARGETS = (0.75, 0.80)
TOP_K = 10
LARGE_BATCH_ROWS = 2000
PROFILED_STEPS = 20


@dataclass(frozen=True)
class Shape:
    """Rows, embedding dimensions, words and rank of a problem."""

    n: int
    d: int
    n_words: int
    rank: int


@dataclass(frozen=True)
class Run:
    """Where the figures are measured, and how large the problems are."""

    figures: Figures
    device: torch.device
    seconds: float  # budget of a pass
    small: bool

    def compute(self, precision: str = "auto") -> Compute:
        """Return the arithmetic of a precision on the device."""
        return resolve_compute(str(self.device), precision)

    @property
    def captions(self) -> Shape:
        """The size of a fit on the captions in docs/performance.md."""
        return Shape(3_000, 96, 150, 96) if self.small else Shape(36_000, 384, 12_000, 384)

    @property
    def paper(self) -> Shape:
        """The size of the full problem in the paper."""
        return Shape(40_000, 48, 2_000, 24) if self.small else Shape(3_400_000, 1024, 100_000, 512)

    @property
    def precisions(self) -> dict[str, tuple[str, bool]]:
        """Precision of the estimator and use of TF32, by name; a CPU has neither bfloat16 nor TF32."""
        if self.device.type == "cpu":
            return {"float32": ("float32", False)}
        return {"bfloat16": ("bfloat16", False), "tf32": ("float32", True), "float32": ("float32", False)}


def environment(run: Run) -> None:
    """Measure what the device can do: copies, products, launches, waits."""
    if run.device.type == "cuda":
        card = torch.cuda.get_device_properties(run.device)
        print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, "
        f"{os.cpu_count()} processors ({processor_name()})"
    )
    measure_copies(run)
    n = 256 if run.small else 8192
    for name, (precision, tf32) in run.precisions.items():
        compute = run.compute(precision)
        with tf32_products(tf32):
            square = step_products(n, n, n, compute)["scores"]
            run.figures.add(f"{name}.square_product", 2e-12 * n**3 / _seconds_of(square, compute), "TFLOP/s")
            shape = run.paper
            products = step_products(BATCH_ROWS, shape.rank, shape.n_words, compute)
            operations = 2e-12 * BATCH_ROWS * shape.rank * shape.n_words
            for product, factors in products.items():
                rate = operations / _seconds_of(factors, compute)
                run.figures.add(f"{name}.step_product.{product}", rate, "TFLOP/s")


def measure_copies(run: Run) -> None:
    """Measure copies on the device and to it, and the cost of an operator on the host."""
    figures, device = run.figures, run.device
    figures.add("copy", 1e-9 * _copy_rate(run), "GB/s")  # bytes read and bytes written
    size = 2**20 if run.small else 2**28
    target = torch.empty(size, dtype=torch.uint8, device=device)
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    seconds = seconds_of(lambda: target.copy_(pinned, non_blocking=True), device)
    figures.add("host_to_device_pinned", 1e-9 * size / seconds, "GB/s")
    pageable = torch.ones(size, dtype=torch.uint8)
    seconds = seconds_of(lambda: target.copy_(pageable), device)
    figures.add("host_to_device_pageable", 1e-9 * size / seconds, "GB/s")
    one = torch.zeros(1, device=device)
    synchronize(device)
    start = time.perf_counter()
    for _ in range(500):  # fewer than the device queues, so that the host does not wait
        one.add_(1.0)
    figures.add("launch", 1e6 * (time.perf_counter() - start) / 500, "us")
    figures.add("launch_and_wait", 1e6 * seconds_of(lambda: one.add_(1.0).item(), device, 100), "us")


def _seconds_of(factors: tuple[torch.Tensor, ...], compute: Compute) -> float:
    a, b, out = factors
    return seconds_of(lambda: matmul(a, b, compute, out=out), compute.device)


def quality(run: Run) -> None:
    """Measure the seconds of a whole fit, and until the accuracies on held-out rows are reached."""
    shape = run.captions
    data = make_synthetic(
        shape.n, shape.n_words, shape.d, seed=0, exponent=1.1, dev_rows=500 if run.small else 5000
    )
    for solver in ("sampled", "exact"):
        flip = FLiPExtractor(rank=shape.rank, solver=solver, random_state=0, device=str(run.device))
        start = time.perf_counter()
        clone(flip).fit(data.X[:2000], data.Y[:2000])
        run.figures.add(f"{solver}.warm_up", time.perf_counter() - start, "s")
        with run.figures.peak_memory(solver):
            fit_and_read(run.figures, flip, data)


def fit_and_read(figures: Figures, flip: FLiPExtractor, data: Data) -> None:
    """Fit; read the accuracy on the dev rows after every pass, with the clock stopped."""
    original = Session.run_pass
    reading_seconds = 0.0
    curve: list[tuple[float, float]] = []  # seconds, accuracy

    def run_pass(session: Session, *args: Any, **kwargs: Any) -> tuple[PassRecord, Parameters]:
        nonlocal reading_seconds
        record, parameters = original(session, *args, **kwargs)
        synchronize(session.compute.device)
        stopped = time.perf_counter()
        A, B, b = parameters
        projection = session.Q @ B.T

        def scores(rows: slice) -> torch.Tensor:
            x = torch.from_numpy(data.X_dev[rows]).to(b.device, b.dtype)
            return (x - session.mean) @ projection @ A.T + b

        curve.append((stopped - start - reading_seconds, dev_accuracy(scores, data.Y_dev).value))
        reading_seconds += time.perf_counter() - stopped
        return record, parameters

    start = time.perf_counter()
    with mock.patch.object(Session, "run_pass", run_pass):
        flip.fit(data.X, data.Y)
    seconds = time.perf_counter() - start - reading_seconds
    name = flip.solver_
    figures.add(f"{name}.first_pass_ends", curve[0][0], "s")
    figures.add(f"{name}.whole_fit", seconds, "s")
    figures.add(f"{name}.passes", len(curve), "passes")
    figures.add(f"{name}.accuracy", flip.score(data.X_dev, data.Y_dev), "share")
    for target in TARGETS:
        passes = 1 + next((i for i, (_, accuracy) in enumerate(curve) if accuracy >= target), len(curve))
        if passes > len(curve):
            raise SystemExit(f"the {name} fit did not reach an accuracy of {target}")
        figures.add(f"{name}.passes_to_{target:.2f}", passes, "passes")
        figures.add(f"{name}.seconds_to_{target:.2f}", curve[passes - 1][0], "s")


def pass_floor(run: Run) -> None:
    """Measure steps over their three products, and over the bytes that the cost model counts."""
    copy_rate = _copy_rate(run)
    for name, shape, n in (
        ("captions", run.captions, run.captions.n),
        ("paper", run.paper, 5_000 if run.small else 50_000),
    ):
        X, Y = normal_rows(n, shape.d, run.device), zipf_rows(n, shape.n_words, run.device)
        for solver in ("exact", "sampled"):
            for precision, (setting, tf32) in run.precisions.items():
                prefix = f"{name}.{solver}.{precision}"
                with tf32_products(tf32), run.figures.peak_memory(prefix):
                    session = make_session(X, Y, shape.rank, solver, str(run.device), setting)
                    time_pass(session, run.seconds)
                    pass_time = time_pass(session, run.seconds)
                    _add_floors(run.figures, prefix, session, pass_time, copy_rate)
                    del session


def _copy_rate(run: Run) -> float:
    """Return the bytes a second that a copy on the device reads and writes."""
    source = torch.empty(2**20 if run.small else 2**28, device=run.device)
    target = torch.empty_like(source)
    return 8 * len(source) / seconds_of(lambda: target.copy_(source), run.device)


def _add_floors(
    figures: Figures, prefix: str, session: Session, measured: PassTime, copy_rate: float
) -> None:
    """Add the seconds of a pass and a step, and their ratios to the products and the bytes."""
    A, compute = session.parameters.A, session.compute
    n_words, rank = A.shape
    n_classes = n_words if session.sampler is None else round(session.sampler.expected)
    m = session.options.batch_size
    floor = product_floor(m, rank, n_classes, compute)
    bfloat16 = compute.product_dtype == torch.bfloat16
    n_bytes = step_bytes(session.solver, m, n_classes, rank, bfloat16=bfloat16)
    figures.add(f"{prefix}.step", 1e3 * measured.step, "ms")
    figures.add(f"{prefix}.products", 1e3 * floor, "ms")
    figures.add(f"{prefix}.step_over_products", measured.step / floor, "ratio")
    figures.add(f"{prefix}.step_over_bytes", measured.step * copy_rate / n_bytes, "ratio")
    figures.add(f"{prefix}.pass_over_products", measured.seconds / (floor * measured.total), "ratio")


def paper(run: Run) -> None:
    """Measure a pass of the paper's problem."""
    shape, copy_rate = run.paper, _copy_rate(run)
    start = time.perf_counter()
    X, Y = normal_rows(shape.n, shape.d, run.device), zipf_rows(shape.n, shape.n_words, run.device)
    run.figures.add("data", time.perf_counter() - start, "s")
    for solver, batch_size in (("exact", BATCH_ROWS), ("exact", LARGE_BATCH_ROWS), ("sampled", BATCH_ROWS)):
        prefix = f"{solver}.m{batch_size}"
        with run.figures.peak_memory(prefix):
            start = time.perf_counter()
            session = make_session(X, Y, shape.rank, solver, str(run.device), batch_size=batch_size)
            synchronize(run.device)
            run.figures.add(f"{prefix}.setup", time.perf_counter() - start, "s")
            pass_time = time_pass(session, run.seconds)
            run.figures.add(f"{prefix}.pass", pass_time.seconds, "s")
            run.figures.add(f"{prefix}.steps_timed", pass_time.steps, "steps")
            run.figures.add(f"{prefix}.steps", pass_time.total, "steps")
            _add_floors(run.figures, prefix, session, pass_time, copy_rate)
            _add_host(run.figures, prefix, session)
            del session


def _add_host(figures: Figures, prefix: str, session: Session) -> None:
    """Add the host's time for a batch: in the second thread, and between two steps."""
    reader, m = session._reader, session.options.batch_size
    rows = np.random.default_rng(0).integers(0, len(session.data.dataset), (20, m))
    generator = torch.Generator()
    start = time.perf_counter()
    packed = [reader._pack(batch, generator) for batch in rows]
    ready = time.perf_counter()
    for batch in packed:
        batch.to(session.compute.device)
    handed_over = time.perf_counter()
    figures.add(f"{prefix}.batch_prepared", 1e3 * (ready - start) / len(rows), "ms")
    figures.add(f"{prefix}.batch_handed_over", 1e3 * (handed_over - ready) / len(rows), "ms")


def extract(run: Run) -> None:
    """Measure the extraction of the ten best words, over its one product."""
    for name, shape in (("captions", run.captions), ("paper", run.paper)):
        n = 4_096 if run.small else 2**20 * 12_000 // shape.n_words
        block = min(n, 2**28 // shape.n_words)  # rows of one product; its result takes 1 GiB
        A, B, offset, mean = make_model(shape.n_words, shape.d, shape.rank)
        X = normal_rows(n, shape.d, run.device) / shape.d**0.5
        on_host = X.cpu().numpy()
        for precision, (setting, tf32) in run.precisions.items():
            compute = run.compute(setting)
            prefix = f"{name}.{precision}"
            with tf32_products(tf32), run.figures.peak_memory(prefix):
                scorer = Scorer(A, B, offset, mean, compute, np.zeros(shape.n_words, dtype=bool))
                seconds = seconds_of(partial(scorer.top, X, TOP_K), run.device, 1)
                from_host = seconds_of(partial(scorer.top, on_host, TOP_K), run.device, 1)
                floor = _seconds_of(
                    step_products(block, shape.rank, shape.n_words, compute)["scores"], compute
                )
                run.figures.add(f"{prefix}.rows", n / seconds, "rows/s")
                run.figures.add(f"{prefix}.rows_from_host", n / from_host, "rows/s")
                run.figures.add(f"{prefix}.over_product", seconds / (floor * n / block), "ratio")


def profile_steps(run: Run) -> None:
    """List the kernels of some steps at the paper's shape."""
    shape = run.paper
    n = BATCH_ROWS * (2 * PROFILED_STEPS + 60)
    X, Y = normal_rows(n, shape.d, run.device), zipf_rows(n, shape.n_words, run.device)
    for solver in ("exact", "sampled"):
        session = make_session(X, Y, shape.rank, solver, str(run.device))
        step_seconds = time_pass(session, run.seconds).step
        total: Counter[str] = Counter()  # microseconds by kernel
        n_kernels: Counter[str] = Counter()
        for event in _profiled_events(session):
            total[event["name"]] += event["dur"]
            n_kernels[event["name"]] += 1
        busy = sum(total.values()) / PROFILED_STEPS
        run.figures.add(f"{solver}.kernels", sum(n_kernels.values()) / PROFILED_STEPS, "a step")
        run.figures.add(f"{solver}.kernel_time", busy / 1e3, "ms a step")
        run.figures.add(f"{solver}.busy", busy / (1e6 * step_seconds), "share of a step")
        for name, microseconds in total.most_common(12):
            calls = n_kernels[name] / PROFILED_STEPS
            print(f"{microseconds / PROFILED_STEPS:8.1f} us {calls:5.1f} calls a step  {name[:90]}")
        del session


def _profiled_events(session: Session) -> list[dict[str, Any]]:
    """Return the kernels and copies of some steps in the middle of a pass; operators on a CPU."""
    on_gpu = session.compute.device.type == "cuda"
    categories = ("kernel", "gpu_memcpy", "gpu_memset") if on_gpu else ("cpu_op",)
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    profiler = profile(activities=activities)

    def after_step(rows_done: int) -> None:
        if rows_done == 10 * BATCH_ROWS:
            synchronize(session.compute.device)
            profiler.start()
        elif rows_done == (10 + PROFILED_STEPS) * BATCH_ROWS:
            synchronize(session.compute.device)
            profiler.stop()

    session.run_pass(after_step)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    return [event for event in trace["traceEvents"] if event.get("cat") in categories]


PARTS: dict[str, Callable[[Run], None]] = {
    "environment": environment,
    "quality": quality,
    "pass_floor": pass_floor,
    "paper": paper,
    "extract": extract,
    "profile": profile_steps,
}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "model"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small problems, for a CPU")
    parser.add_argument("--seconds", type=float, default=20.0, help="longest pass that is timed as a whole")
    args = parser.parse_args()
    if args.part == "model":
        print_model()
        return
    torch.manual_seed(0)
    device = resolve_compute(args.device, "float32").device
    PARTS[args.part](Run(Figures(args.part, device), device, args.seconds, args.small))


if __name__ == "__main__":
    main()

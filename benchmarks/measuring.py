"""Clocks, readings of the accuracy during training, and the speed of the machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from tqdm.auto import tqdm

from flip_sklearn.metrics import RowMean, keyword_accuracy

EVALUATION_ROWS = 512

# Scores (rows, V) of a slice of the dev rows.
ScoreRows = Callable[[slice], torch.Tensor]


@dataclass(frozen=True)
class Reading:
    """Dev accuracy after a number of passes and seconds of training."""

    passes: float
    seconds: float
    accuracy: float
    standard_error: float


@dataclass(frozen=True)
class ProductRate:
    """GFLOP/s of repeated matrix products. Other processes make the median lower than the best."""

    median: float
    best: float


def make_reading(passes: float, seconds: float, result: RowMean) -> Reading:
    """Make one point of a curve."""
    return Reading(passes, seconds, result.value, result.standard_error)


def dev_accuracy(score_rows: ScoreRows, Y: sp.csr_array) -> RowMean:
    """Return the keyword accuracy of scores that are computed for a few rows at a time."""
    n, n_words = Y.shape
    k = min(n_words, max(1, int(np.diff(Y.indptr).max(initial=0))))
    top = np.empty((n, k), dtype=np.int64)
    for first in range(0, n, EVALUATION_ROWS):
        rows = slice(first, min(first + EVALUATION_ROWS, n))
        best = score_rows(rows).topk(k, dim=1)
        if not bool(torch.isfinite(best.values).all()):  # topk ranks nan above all numbers
            raise FloatingPointError("scores are not finite: the training has diverged.")
        top[rows] = best.indices.cpu().numpy()
    return keyword_accuracy(Y, top)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Seconds of training, without those while it is paused."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._elapsed = 0.0
        self._started: float | None = None
        self.start()

    def start(self) -> None:
        """Start or continue."""
        synchronize(self._device)
        self._started = time.perf_counter()

    def pause(self) -> float:
        """Pause and return the seconds so far."""
        self._elapsed, self._started = self.seconds(), None
        return self._elapsed

    def seconds(self) -> float:
        """Return the seconds so far."""
        synchronize(self._device)
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._elapsed + running


def product_rate(m: int, r: int, n_words: int, device: torch.device) -> ProductRate:
    """Measure (m, r) @ (r, V) products in float32 for about a second."""
    a = torch.randn(m, r, device=device)
    b = torch.randn(n_words, r, device=device).T
    out = torch.empty(m, n_words, device=device)
    seconds: list[float] = []
    for _ in range(3):  # memory pages and threads are set up in the first products
        torch.mm(a, b, out=out)
    while len(seconds) < 5 or sum(seconds) < 1.0:
        watch = Stopwatch(device)
        torch.mm(a, b, out=out)
        seconds.append(watch.pause())
    gflop = 2e-9 * m * r * n_words
    return ProductRate(gflop / float(np.median(seconds)), gflop / min(seconds))


def best_times(
    tasks: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the seconds of the fastest run of each task; the tasks are run in turn."""
    best = dict.fromkeys(tasks, float("inf"))
    for _ in tqdm(range(repeats), leave=False):
        for name, task in tasks.items():
            start = clock()
            task()
            best[name] = min(best[name], clock() - start)
    return best


def processor_name() -> str:
    """Return the name of the CPU model."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()

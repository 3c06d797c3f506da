"""The cache of SentenceEncoder: inserts and lookups a second, memory and room on disk.

Run from the root of the repository:

    python -m benchmarks.bench_encoders [--texts 200000] [--dims 384]

The callable that is encoded with costs nothing, so what is timed is the cache and the checks around it. Each
figure is that of a process of its own; the cache lies in a temporary folder, in --folder if that is given.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.encoders import SentenceEncoder

CASES = ("no cache", "all new", "all there", "a tenth new")


def texts(n: int, start: int = 0) -> list[str]:
    """Short ones, all different."""
    return [f"sentence number {i} of a short text" for i in range(start, start + n)]


def run(case: str, n: int, dims: int, folder: str) -> tuple[float, float, float]:
    """Seconds, MiB at the peak beyond those at the start, and MiB on disk."""
    start = n // 10 if case == "a tenth new" else 0
    X = texts(n, start)
    block = np.random.default_rng(0).normal(size=(1000, dims)).astype(np.float32)

    def encode(batch: list[str]) -> np.ndarray:
        return block[: len(batch)]

    options: dict[str, Any] = {"batch_size": 100, "revision": "1"}
    if case != "no cache":
        options["cache_dir"] = folder
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    SentenceEncoder(encode, **options).transform(X)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return seconds, peak / 1024, size / 2**20


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    array = options.texts * options.dims * 4 / 2**20
    print(f"{options.texts:,} texts, {options.dims} dims; the vectors alone are {array:.0f} MiB")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in CASES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak, size = pool.apply(run, (case, options.texts, options.dims, folder))
            print(
                f"{case:12}  {seconds:6.1f} s  {options.texts / seconds:9,.0f} texts/s  "
                f"{peak:5.0f} MiB memory  {size:5.0f} MiB on disk",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""The cache of SentenceEncoder: inserts and lookups per second, memory and disk space.

Run from the root of the repository:

    python -m benchmarks.bench_encoders [--texts 200000] [--dims 384]

The encoder is a function that costs nothing, so the time is that of the cache and of the checks of
SentenceEncoder. Each case runs in a new process. The cache is a temporary folder, inside --folder if given.
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

CASES = ("no cache", "all new", "all cached", "a tenth new")


def make_texts(n: int, start: int = 0) -> list[str]:
    """Return distinct short texts."""
    return [f"sentence number {i} of a short text" for i in range(start, start + n)]


def run(case: str, n: int, dims: int, folder: str) -> tuple[float, float, float]:
    """Return seconds, the increase of peak memory in MiB, and disk space in MiB."""
    start = n // 10 if case == "a tenth new" else 0
    texts = make_texts(n, start)
    block = np.random.default_rng(0).normal(size=(1000, dims)).astype(np.float32)

    def encode(batch: list[str]) -> np.ndarray:
        return block[: len(batch)]

    options: dict[str, Any] = {"batch_size": 100, "revision": "1"}
    if case != "no cache":
        options["cache_dir"] = folder
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_time = time.perf_counter()
    SentenceEncoder(encode, **options).transform(texts)
    seconds = time.perf_counter() - start_time
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return seconds, peak / 1024, size / 2**20


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200_000, help="number of texts")
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--folder", help="parent folder of the cache")
    options = parser.parse_args()
    array = options.texts * options.dims * 4 / 2**20
    print(f"{options.texts:,} texts, {options.dims} dims; the embeddings are {array:.0f} MiB")
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

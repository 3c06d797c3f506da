"""Vector stores: seconds and memory of reading all vectors, and of writing the words of all.

    python -m benchmarks.bench_stores                          # the table of docs/vector-stores.md
    python -m benchmarks.bench_stores --stores lancedb chroma --rows 100000 400000

The functions are those of examples/stores.py, the vectors random, and the model has random counts. Every
step runs in a process of its own. Its memory is the peak (VmHWM of Linux) minus the memory in use after the
store was opened and the words of one batch were extracted. So what the libraries and the model need is not
counted, nor the index of FAISS, which is in memory as a whole.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import positive_int

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from stores import BATCH_ROWS, STORES

N_WORDS, N_TRAIN = 1000, 1000


def batches(n: int, d: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids and random vectors of unit length."""
    rng = np.random.default_rng(0)
    for start in range(0, n, BATCH_ROWS):
        X = rng.normal(size=(min(BATCH_ROWS, n - start), d)).astype(np.float32)
        yield np.arange(start, start + len(X)), X / np.linalg.norm(X, axis=1, keepdims=True)


def make_mapper(d: int) -> Any:
    """Return the mapper of a model of random counts."""
    from flip_sklearn import FLiPExtractor, KeywordMapper

    rng = np.random.default_rng(1)
    Y = rng.poisson(10 / N_WORDS, size=(N_TRAIN, N_WORDS))
    X = rng.normal(size=(N_TRAIN, d)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flip = FLiPExtractor(max_iter=1, early_stopping=False, random_state=0).fit(X, Y)
    return KeywordMapper(flip, top_k=10, use_bias=False)


def reset_peak() -> None:
    """Set the peak of the memory of this process to what is in use."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Return the peak of the memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(name: str, folder: Path, step: str, d: int) -> tuple[float, float]:
    """Return the seconds of a step, and the MB by which the peak grows."""
    store = STORES[name]
    opened = store.open(folder)
    mapper = make_mapper(d) if step == "words" else None
    _, X = next(store.read(opened))
    if mapper is not None:
        mapper(X)
    reset_peak()
    before, start = peak(), time.perf_counter()
    if mapper is None:
        for _ in store.read(opened):
            pass
    else:
        store.add_words(opened, mapper)
    return time.perf_counter() - start, peak() - before


def in_process(*arguments: Any) -> Any:
    """Run ``measure`` in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--rows", nargs="+", type=positive_int, default=[25_000, 100_000])
    parser.add_argument("--dimensions", type=positive_int, default=128)
    args = parser.parse_args()
    print("| store | vectors | created, s | read, s | MB more | words written, s | MB more |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.stores:
        for n in args.rows:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                STORES[name].create(Path(folder), batches(n, args.dimensions))
                cells = [f"{time.perf_counter() - start:.1f}"]
                for step in ("read", "words"):
                    seconds, more = in_process(name, Path(folder), step, args.dimensions)
                    cells += [f"{seconds:.1f}", f"{more:.0f}"]
                print(f"| {name} | {n:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Extraction over its floor: what Scorer.top costs beside the matrix product that it cannot avoid.

    python -m benchmarks.bench_extract                  # about three minutes
    python -m benchmarks.bench_extract --quick          # the first size, fewer repeats
    python -m benchmarks.bench_extract --densities      # also dense against CSR word embeddings
    python -m benchmarks.bench_extract --cpu-time       # where other work holds the cores

For n float16 embeddings, V words, rank r and the 10 best words of each row the table holds, in
microseconds a row:

floor     2 V r operations at the rate of the bare product h A^T, in blocks of as many rows as Scorer
          takes, into memory that is reused
top       ``Scorer.top``: reading X, projecting, scoring, offset, top-k; ratio = top / floor
B (x-mu)  the part of it that reads and projects X
theta     the same with the probabilities of the words, which need all scores' logsumexp
plain     product, ``+= offset`` and ``torch.topk`` over whole rows, from the same h

Everything is timed in turn, several times over, and the best time of each counts: on a machine where
other work comes and goes the slow ones are its doing. Where it does not go, ``--cpu-time`` counts the
time that one thread has a core, so that waiting does not count (a slower memory still does).

``--densities`` times the dense and the CSR product on the same word embeddings at several shares of
non-zero entries, placed at random, and names the faster: CSR_DENSITY in
flip_sklearn/backend/scoring/products.py is where they cross.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import scipy.sparse as sp
import torch
from tqdm import tqdm

from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.scoring import products
from flip_sklearn.backend.scoring.scorer import Scorer

SIZES = [(12_128, 384, 384), (50_000, 384, 384), (100_000, 384, 384), (100_000, 1024, 512)]
DENSITIES = (0.01, 0.03, 0.1, 0.15, 0.2, 0.3)
TOP_K = 10


def best_times(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of the best run of each task, the tasks taken in turn."""
    # A thread alone waits for no other one, so its CPU time is what it takes on an idle machine.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(tasks, float("inf"))
    for _ in tqdm(range(repeats), leave=False):
        for name, task in tasks.items():
            began = clock()
            task()
            best[name] = min(best[name], clock() - began)
    return best


def model(n_words: int, d: int, rank: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """A, B, offset and mean at the scale of a fit on unit-norm embeddings."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_words, rank), scale=0.3).astype(np.float32)
    B = rng.normal(size=(rank, d)).astype(np.float32)
    counts = 1 / np.arange(1, n_words + 1)
    return A, B, np.log(counts / counts.sum()).astype(np.float32), np.zeros(d, dtype=np.float32)


def rows_of(n: int, d: int) -> np.ndarray:
    """Unit-norm float16 embeddings."""
    X = np.random.default_rng(1).normal(size=(n, d))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float16)


def extraction(n_words: int, d: int, rank: int, operations: float, repeats: int) -> str:
    """One line of the table."""
    A, B, offset, mean = model(n_words, d, rank)
    compute = resolve_compute("cpu", "float32")
    scorer = Scorer(A, B, offset, mean, compute)
    step = scorer._ranker(TOP_K, 1).block_rows
    n = max(2, round(operations / (2 * n_words * rank) / step)) * step
    X = rows_of(n, d)
    A_tensor, offset_tensor = torch.from_numpy(A), torch.from_numpy(offset)
    h = torch.from_numpy(X.astype(np.float32)) @ torch.from_numpy(B).T
    scores = torch.empty(step, n_words)

    def product() -> None:
        for first in range(0, n, step):
            torch.mm(h[first : first + step], A_tensor.T, out=scores)

    def plain() -> None:
        for first in range(0, n, step):
            torch.mm(h[first : first + step], A_tensor.T, out=scores)
            scores.add_(offset_tensor)
            scores.topk(TOP_K, dim=1)

    def project() -> None:
        for _ in scorer._project(X, None):
            pass

    with torch.inference_mode():
        seconds = best_times(
            {
                "floor": product,
                "top": lambda: scorer.top(X, TOP_K),
                "project": project,
                "theta": lambda: scorer.top(X, TOP_K, probabilities=True),
                "plain": plain,
            },
            repeats,
        )
    rate = 2 * n * n_words * rank / seconds["floor"] / 1e9
    per_row = {name: f"{1e6 * s / n:8.1f}" for name, s in seconds.items()}
    return (
        f"{n_words:8,} {d:6} {rank:6} {step:5} {rate:8.0f} {per_row['floor']} {per_row['top']} "
        f"{seconds['top'] / seconds['floor']:7.2f} {per_row['project']} {per_row['theta']} "
        f"{per_row['plain']}"
    )


def densities(n_words: int, rank: int, repeats: int) -> list[str]:
    """Lines of the table of densities."""
    A, B, offset, mean = model(n_words, rank, rank)
    X = rows_of(1024, rank)
    compute = resolve_compute("cpu", "float32")
    rng = np.random.default_rng(2)
    lines = []
    for density in DENSITIES:
        sparse = sp.csr_array(A * (rng.random(A.shape, dtype=np.float32) < density))
        scorers = {}
        for name, limit in (("dense", 0.0), ("csr", 2.0)):
            with mock.patch.object(products, "CSR_DENSITY", limit):
                scorers[name] = Scorer(sparse, B, offset, mean, compute)
                scorers[name]._ranker(TOP_K, len(X))
        seconds = best_times(
            {name: lambda scorer=s: scorer.top(X, TOP_K) for name, s in scorers.items()}, repeats
        )
        dense, csr = (1e6 * seconds[name] / len(X) for name in ("dense", "csr"))
        lines.append(
            f"{n_words:8,} {rank:6} {density:8.2f} {dense:8.1f} {csr:8.1f} {dense / csr:11.2f}"
        )
    return lines


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one size, three repeats")
    parser.add_argument("--densities", action="store_true", help="also dense against CSR")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, its CPU time")
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.cpu_time:
        torch.set_num_threads(1)
    repeats = 3 if arguments.quick else arguments.repeats
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, float32; microseconds a row"
        f"{' of CPU time' if arguments.cpu_time else ''}, best of {repeats}\n"
    )
    print(
        "       V      d   rank  rows  GFLOP/s    floor      top   ratio B (x-mu)    theta    plain"
    )
    for n_words, d, rank in SIZES[: 1 if arguments.quick else None]:
        print(extraction(n_words, d, rank, 2e10 if arguments.quick else 5e10, repeats), flush=True)
    if arguments.densities:
        print("\n       V   rank  density    dense      csr  dense / csr")
        for n_words, _, rank in SIZES[: 1 if arguments.quick else 2]:
            print(*densities(n_words, rank, repeats), sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""Cost of extraction compared with the matrix product it contains.

    python -m benchmarks.bench_extract                  # about three minutes
    python -m benchmarks.bench_extract --quick          # the first size, fewer repeats
    python -m benchmarks.bench_extract --densities      # also dense and CSR word embeddings
    python -m benchmarks.bench_extract --cpu-time       # on a machine that runs other processes

For n float16 embeddings, V words, rank r and the 10 best words of each row, the table shows microseconds per
row:

floor     the product h A^T alone, 2 V r operations, in blocks of as many rows as Scorer uses, into memory
          that is reused
top       ``Scorer.top``: reading X, projection, scores, offset, top-k; ratio = top / floor
B (x-mu)  the part of it that reads and projects X
theta     ``Scorer.top`` with the probabilities of the words, which need the logsumexp of all scores
plain     product, ``+= offset`` and ``torch.topk`` over whole rows, from the same h

All tasks are timed in turn several times, and the best time of each is reported, because other processes make
some runs slower. With ``--cpu-time``, the CPU time of one thread is reported instead.

``--densities`` times the dense and the CSR product of the same word embeddings at several shares of nonzero
entries at random positions. CSR_DENSITY in flip_sklearn/backend/scoring/products.py is the density at which
both are equally fast.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from unittest import mock

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.measuring import best_times, processor_name
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.scoring import products
from flip_sklearn.backend.scoring.scorer import Scorer

SIZES = [(12_128, 384, 384), (50_000, 384, 384), (100_000, 384, 384), (100_000, 1024, 512)]
DENSITIES = (0.01, 0.03, 0.1, 0.15, 0.2, 0.3)
TOP_K = 10


def make_model(n_words: int, d: int, rank: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return A, B, offset and mean at the scale of a fit on unit-norm embeddings."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_words, rank), scale=0.3).astype(np.float32)
    B = rng.normal(size=(rank, d)).astype(np.float32)
    counts = 1 / np.arange(1, n_words + 1)
    return A, B, np.log(counts / counts.sum()).astype(np.float32), np.zeros(d, dtype=np.float32)


def make_rows(n: int, d: int) -> np.ndarray:
    """Return unit-norm float16 embeddings."""
    X = np.random.default_rng(1).normal(size=(n, d))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float16)


def clock() -> float:
    """Return the CPU time of the thread if torch uses one thread, else the wall time."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def extraction_line(n_words: int, d: int, rank: int, operations: float, repeats: int) -> str:
    """Return one line of the table."""
    A, B, offset, mean = make_model(n_words, d, rank)
    compute = resolve_compute("cpu", "float32")
    unseen = np.zeros(n_words, dtype=bool)
    scorer = Scorer(A, B, offset, mean, compute, unseen)
    step = scorer._ranker(TOP_K, 1).product.block_rows
    n = max(2, round(operations / (2 * n_words * rank) / step)) * step
    X = make_rows(n, d)
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
            clock,
        )
    rate = 2 * n * n_words * rank / seconds["floor"] / 1e9
    per_row = {name: f"{1e6 * s / n:8.1f}" for name, s in seconds.items()}
    return (
        f"{n_words:8,} {d:6} {rank:6} {step:5} {rate:8.0f} {per_row['floor']} {per_row['top']} "
        f"{seconds['top'] / seconds['floor']:7.2f} {per_row['project']} {per_row['theta']} "
        f"{per_row['plain']}"
    )


def density_lines(n_words: int, rank: int, repeats: int) -> list[str]:
    """Return the lines of the table of densities."""
    A, B, offset, mean = make_model(n_words, rank, rank)
    X = make_rows(1024, rank)
    compute, unseen = resolve_compute("cpu", "float32"), np.zeros(n_words, dtype=bool)
    rng = np.random.default_rng(2)
    lines = []
    for density in DENSITIES:
        sparse = sp.csr_array(A * (rng.random(A.shape, dtype=np.float32) < density))
        scorers = {}
        for name, limit in (("dense", 0.0), ("csr", 2.0)):
            with mock.patch.object(products, "CSR_DENSITY", limit):
                scorers[name] = Scorer(sparse, B, offset, mean, compute, unseen)
                scorers[name]._ranker(TOP_K, len(X))
        tasks = {name: partial(scorer.top, X, TOP_K) for name, scorer in scorers.items()}
        seconds = best_times(tasks, repeats, clock)
        dense, csr = 1e6 * seconds["dense"] / len(X), 1e6 * seconds["csr"] / len(X)
        lines.append(f"{n_words:8,} {rank:6} {density:8.2f} {dense:8.1f} {csr:8.1f} {dense / csr:11.2f}")
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one size, three repeats")
    parser.add_argument("--densities", action="store_true", help="also compare dense and CSR")
    parser.add_argument("--cpu-time", action="store_true", help="use one thread and its CPU time")
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    if args.cpu_time:
        torch.set_num_threads(1)
    repeats = 3 if args.quick else args.repeats
    print(
        f"{processor_name()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, float32; microseconds per row"
        f"{' of CPU time' if args.cpu_time else ''}, best of {repeats}\n"
    )
    print("       V      d   rank  rows  GFLOP/s    floor      top   ratio B (x-mu)    theta    plain")
    for n_words, d, rank in SIZES[: 1 if args.quick else None]:
        print(extraction_line(n_words, d, rank, 2e10 if args.quick else 5e10, repeats), flush=True)
    if args.densities:
        print("\n       V   rank  density    dense      csr  dense / csr")
        for n_words, _, rank in SIZES[: 1 if args.quick else 2]:
            print(*density_lines(n_words, rank, repeats), sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""Cost of a training pass: compared with the published recipe and with its matrix products, and by size.

Run from the root of the repository, on an otherwise idle machine:

    python -m benchmarks.bench_scaling ratio     # seconds per pass of the recipe over ours, V = 12k to 100k
    python -m benchmarks.bench_scaling worth     # sampled over exact pass, by the share of sampled words
    python -m benchmarks.bench_scaling floor     # exact step over its three matrix products
    python -m benchmarks.bench_scaling table     # n, V, r each doubled twice: seconds, peak memory
    python -m benchmarks.bench_scaling paper     # 3.4 million rows, 1024 dims, 100,000 words, rank 512

Counts are synthetic (Zipf, ten tokens per row) and embeddings are random, because the time does not depend on
the values. The recipe is ``published_recipe.py``. ``floor`` times products and steps in turn and reports the
best of each, so that other processes affect both. ``table`` and ``paper`` read float16 memory maps from a
temporary folder; each line of the table is measured in a new process, whose anonymous memory is sampled.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.measuring import processor_name, synchronize
from benchmarks.published_recipe import PublishedRecipe, make_optimizer, recipe_step
from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.likelihood import (
    Gradients,
    SoftmaxLayer,
    Workspace,
    loss_and_gradients,
    matmul,
    product_precision,
)
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.state import SolverOptions

TOKENS_PER_ROW = 10
BATCH_ROWS, RECIPE_BATCH_ROWS = 500, 1000
PAPER = {"n": 3_400_000, "d": 1024, "V": 100_000, "r": 512}


def zipf_counts(n: int, n_words: int, seed: int = 0) -> sp.csr_array:
    """Return counts (n, V) of ten tokens per row; word j has a probability ~ 1 / (j + 10)."""
    rng = np.random.default_rng(seed)
    probability = 1.0 / (np.arange(n_words) + 10.0)
    edges = np.cumsum(probability / probability.sum())
    columns = np.searchsorted(edges, rng.random(n * TOKENS_PER_ROW)).clip(max=n_words - 1)
    rows = np.repeat(np.arange(n), TOKENS_PER_ROW)
    return sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, n_words))


def random_memmap(folder: Path, n: int, d: int) -> np.memmap:
    """Write normal float16 embeddings in chunks and return them as a memory map."""
    path = folder / f"x-{n}-{d}.npy"
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, d))
    rng = np.random.default_rng(0)
    for first in range(0, n, 8192):
        X[first : first + 8192] = rng.standard_normal((min(8192, n - first), d), np.float32)
    X.flush()
    return np.load(path, mmap_mode="r")


def make_session(
    X: np.ndarray | torch.Tensor,
    Y: sp.csr_array,
    rank: int,
    solver: str,
    device: str,
    precision: str = "auto",
    batch_size: int = BATCH_ROWS,
) -> Session:
    """Return the session of a fit with default settings before the first pass."""
    rows = CountDataset(X, Y, np.ones(len(X)))
    options = SolverOptions(
        rank=rank,
        l1=1e-2,
        l2=20.0,
        max_iter=1,
        tol=1e-3,
        batch_size=batch_size,
        learning_rate=0.05,
        stop_on=None,
        n_iter_no_change=2,
        seed=0,
        solver=solver,
    )
    return Session(rows, options, resolve_compute(device, precision))


def seconds_per_pass(session: Session) -> float:
    """Return the seconds of the faster of two passes; buffers are allocated in the first one."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        session.run_pass()
        synchronize(session.compute.device)
        times.append(time.perf_counter() - start)
    return min(times)


def recipe_seconds(X: np.ndarray, Y: sp.csr_array, rank: int, device: str, steps: int) -> float:
    """Return the seconds of the fastest step of the recipe, times the steps of a pass."""
    torch_device = resolve_compute(device, "float32").device
    generator = torch.Generator().manual_seed(0)
    model = PublishedRecipe(X.shape[1], rank, Y.shape[1], 0.2, generator).to(torch_device)
    optimizer = make_optimizer(model)
    times = []
    for i in range(steps + 1):
        rows = np.arange(i * RECIPE_BATCH_ROWS, (i + 1) * RECIPE_BATCH_ROWS) % len(X)
        start = time.perf_counter()
        x = torch.from_numpy(X[rows].astype(np.float32)).to(torch_device)
        recipe_step(model, optimizer, x, torch.from_numpy(Y[rows].toarray()).to(torch_device))
        synchronize(torch_device)
        times.append(time.perf_counter() - start)
    return min(times[1:]) * len(X) / RECIPE_BATCH_ROWS


def ratio(args: argparse.Namespace) -> None:
    """Print the seconds per pass of the recipe over ours."""
    print(f"{args.rows} rows, d = r = {args.rank}; seconds per pass")
    print(f"{'V':>8} {'recipe':>8} {'exact':>8} {'sampled':>8} {'auto is':>8} {'recipe / auto':>14}")
    for n_words in args.words:
        Y = zipf_counts(args.rows, n_words)
        X = np.random.default_rng(0).standard_normal((args.rows, args.rank), np.float32)
        recipe = recipe_seconds(X, Y, args.rank, args.device, args.steps)
        ours = {
            solver: seconds_per_pass(make_session(X, Y, args.rank, solver, args.device))
            for solver in ("exact", "sampled")
        }
        auto = make_session(X, Y, args.rank, "auto", args.device).solver
        print(
            f"{n_words:8d} {recipe:8.2f} {ours['exact']:8.2f} {ours['sampled']:8.2f} {auto:>8} "
            f"{recipe / ours[auto]:14.1f}",
            flush=True,
        )


def worth(args: argparse.Namespace) -> None:
    """Print the seconds of a sampled pass over those of an exact one, near the threshold of "auto"."""
    print(f"{'V':>8} {'sampled / V':>15} {'exact, s':>9} {'sampled, s':>11} {'sampled / exact':>16}")
    for n_words in (2000, 3000, 4000, 6000, 8000, 12_000):
        Y = zipf_counts(6000, n_words)
        X = np.random.default_rng(0).standard_normal((6000, args.rank), np.float32)
        exact = make_session(X, Y, args.rank, "exact", args.device)
        sampled = make_session(X, Y, args.rank, "sampled", args.device)
        exact_seconds, sampled_seconds = math.inf, math.inf
        for _ in range(args.repeats):  # in turn, so that other processes affect both
            exact_seconds = min(exact_seconds, seconds_per_pass(exact))
            sampled_seconds = min(sampled_seconds, seconds_per_pass(sampled))
        share = sampled.sampler.expected / n_words
        print(
            f"{n_words:8d} {share:15.2f} {exact_seconds:9.2f} {sampled_seconds:11.2f} "
            f"{sampled_seconds / exact_seconds:16.2f}",
            flush=True,
        )


def floor(args: argparse.Namespace) -> None:
    """Print the seconds of an exact step over those of its matrix products, 6 m V r operations."""
    compute = resolve_compute(args.device, args.precision)
    print(
        f"exact step of {BATCH_ROWS} rows, d = r = {args.rank}, products in {compute.product_dtype}; best "
        "times"
    )
    print(f"{'V':>8} {'GFLOP/s':>8} {'products':>9} {'gradients':>9} {'step':>9} {'step / products':>16}")
    for n_words in args.words:
        best = floor_line(n_words, args.rank, compute, args.repeats)
        rate = 6e-9 * BATCH_ROWS * n_words * args.rank / best["products"]
        cells = " ".join(f"{1e3 * seconds:6.1f} ms" for seconds in best.values())
        print(f"{n_words:8d} {rate:8.0f} {cells} {best['step'] / best['products']:16.2f}", flush=True)


def floor_line(n_words: int, rank: int, compute: Compute, repeats: int) -> dict[str, float]:
    """Return the best seconds of the products, of the gradients and of a whole step."""
    m = BATCH_ROWS
    Y = zipf_counts(12 * m, n_words)
    X = np.random.default_rng(0).standard_normal((12 * m, rank), np.float32)
    session = make_session(X, Y, rank, "exact", str(compute.device))
    A, B, b = session.parameters
    latent, targets = session.data.batch(np.arange(m))
    targets = targets.flat(n_words).to(compute.device)
    h, work = latent @ B.T, Workspace(compute)
    n_blocks = math.ceil(m / work.block_rows(n_words, m))
    rows = math.ceil(m / n_blocks)
    z, G = torch.empty(rows, n_words, device=h.device), torch.randn(rows, n_words, device=h.device)
    gA, gh, gb = torch.empty_like(A), torch.empty_like(h), torch.empty_like(b)

    def products() -> None:
        with product_precision(compute):
            for first in range(0, m, rows):
                k = min(rows, m - first)
                matmul(h[first : first + k], A.T, compute, out=z[:k])
                matmul(G[:k].T, h[first : first + k], compute, out=gA, add=first > 0)
                matmul(G[:k], A, compute, out=gh[first : first + k])

    def gradients() -> None:
        loss_and_gradients(h, SoftmaxLayer(A, b), targets, work, Gradients(gA, gb, gh))

    best = {"products": math.inf, "gradients": math.inf, "step": math.inf}
    for _ in range(repeats):
        for name, call in (("products", products), ("gradients", gradients)) * 6:
            start = time.perf_counter()
            call()
            synchronize(compute.device)
            best[name] = min(best[name], time.perf_counter() - start)
        times: list[float] = []

        def record_time(rows_done: int, times: list[float] = times) -> None:
            synchronize(compute.device)
            times.append(time.perf_counter())

        session.run_pass(record_time)
        best["step"] = min(best["step"], float(np.diff(times).min()))
    return best


class PeakMemory:
    """Context manager that measures the largest increase of the anonymous memory of this process."""

    def __enter__(self) -> PeakMemory:
        self._done, self._before, self.bytes = threading.Event(), self._now(), 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, self._now() - self._before)

    @staticmethod
    def _now() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise OSError("/proc/self/status has no RssAnon; this benchmark needs Linux.")


def one_line(args: argparse.Namespace) -> None:
    """Measure one line of the table in this process and print it as JSON."""
    Y = zipf_counts(args.n, args.V)
    with tempfile.TemporaryDirectory() as folder:
        X = random_memmap(Path(folder), args.n, args.d)
        with PeakMemory() as peak:
            session = make_session(X, Y, args.r, args.solver, args.device)
            seconds = seconds_per_pass(session)
    print(json.dumps({"seconds": seconds, "bytes": peak.bytes}))


def table(args: argparse.Namespace) -> None:
    """Print seconds and memory for n, V and r, each doubled twice."""
    base = {"n": 10_000, "V": 20_000, "r": 128}
    lines = [base] + [{**base, key: base[key] * k} for key in base for k in (2, 4)]
    print(f"d = {args.d}, X a float16 memory map; memory: increase during the fit")
    print(f"{'n':>8} {'V':>8} {'r':>5} {'solver':>8} {'s / pass':>9} {'peak MB':>8} {'X MB':>6}")
    for solver in ("exact", "sampled"):
        for line in lines:
            command = [sys.executable, "-m", "benchmarks.bench_scaling", "line", "--solver", solver]
            for key, value in {**line, "d": args.d}.items():
                command += [f"--{key}", str(value)]
            done = subprocess.run(
                [*command, "--device", args.device], capture_output=True, text=True, check=True
            )
            result = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{line['n']:8d} {line['V']:8d} {line['r']:5d} {solver:>8} {result['seconds']:9.2f} "
                f"{result['bytes'] / 1e6:8.0f} {line['n'] * args.d * 2 / 1e6:6.0f}",
                flush=True,
            )


def paper(args: argparse.Namespace) -> None:
    """Print the cost of a pass at the size of the paper, extrapolated from two sizes unless --whole."""
    d, n_words, rank, n_paper = PAPER["d"], PAPER["V"], PAPER["r"], PAPER["n"]
    for solver, rows in (("sampled", args.rows), ("exact", args.exact_rows)):
        lines = []
        sizes = [n_paper] if args.whole else [rows, 3 * rows]
        for n in sizes:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                X, Y = random_memmap(Path(folder), n, d), zipf_counts(n, n_words)
                with PeakMemory() as peak:
                    start = time.perf_counter()
                    session = make_session(X, Y, rank, solver, args.device)
                    setup = time.perf_counter() - start
                    seconds = seconds_per_pass(session)
                del session
            lines.append((setup, seconds))
            print(
                f"{solver}: {n} rows, setup {setup:.1f} s, pass {seconds:.1f} s, "
                f"peak {peak.bytes / 1e9:.2f} GB",
                flush=True,
            )
        if not args.whole:
            small, large = np.array(lines)
            per_row = (large - small) / (sizes[1] - sizes[0])
            setup, seconds = small + per_row * (n_paper - sizes[0])
            print(
                f"{solver}: {n_paper} rows, extrapolated: setup {setup / 60:.1f} min, "
                f"pass {seconds / 60:.1f} min",
                flush=True,
            )


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["ratio", "worth", "floor", "table", "paper", "line"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="for floor")
    parser.add_argument("--words", type=int, nargs="+", default=[12_000, 50_000, 100_000])
    parser.add_argument("--rank", type=int, default=384)
    parser.add_argument("--rows", type=int, default=10_000, help="for ratio, and for paper (sampled)")
    parser.add_argument("--exact-rows", type=int, default=1_000, help="for paper (exact)")
    parser.add_argument("--steps", type=int, default=3, help="number of timed steps of the recipe")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats, for worth and floor")
    parser.add_argument("--whole", action="store_true", help="for paper: use all rows, on a GPU")
    parser.add_argument("--folder", default=None, help="for paper: parent folder of the memory map")
    parser.add_argument("--solver", default="auto", help="for line")
    for name, value in (("n", 10_000), ("V", 20_000), ("r", 128), ("d", 384)):
        parser.add_argument(f"--{name}", type=int, default=value, help="for line")
    args = parser.parse_args()
    if args.what != "line":
        print(f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    tables = {"ratio": ratio, "worth": worth, "floor": floor, "table": table, "paper": paper}
    run = one_line if args.what == "line" else tables[args.what]
    run(args)


if __name__ == "__main__":
    main()

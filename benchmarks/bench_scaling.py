"""What a pass costs: against the published recipe, against its floor, as n, V and r grow, at paper scale.

Run from the root of the repository, on an otherwise idle machine:

    python -m benchmarks.bench_scaling ratio     # seconds a pass, recipe over ours, V = 12k to 100k
    python -m benchmarks.bench_scaling worth     # sampled pass over exact pass, by the share of candidates
    python -m benchmarks.bench_scaling floor     # exact pass over 6 n V r / (measured product rate)
    python -m benchmarks.bench_scaling table     # n, V, r each doubled twice: seconds, peak memory
    python -m benchmarks.bench_scaling paper     # 3.4 million rows, 1024 dims, 100,000 words, rank 512

Counts are synthetic (Zipf, ten words a row); embeddings are random, which is enough for time. The recipe is
that of ``bench_fit``. ``floor`` times products and steps in turns and takes the best of each, so that load
from elsewhere hits both alike. ``table`` and ``paper`` read float16 memory maps from a temporary folder;
each line of the table is a process of its own, whose anonymous memory is sampled.
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

from benchmarks.bench_fit import RECIPE_LEARNING_RATE, PublishedRecipe, processor_name, recipe_step
from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.likelihood import (
    Workspace,
    loss_and_gradients,
    matmul,
    product_precision,
)
from flip_sklearn.backend.fit.solver import Options, Session

WORDS_A_ROW = 10
RECIPE_BATCH = 1000
PAPER = {"n": 3_400_000, "d": 1024, "V": 100_000, "r": 512}


def zipf_counts(n: int, n_words: int, seed: int = 0) -> sp.csr_array:
    """Counts (n, V): ten words a row, word j with probability ~ 1 / (j + 10)."""
    rng = np.random.default_rng(seed)
    share = 1.0 / (np.arange(n_words) + 10.0)
    edges = np.cumsum(share / share.sum())
    columns = np.searchsorted(edges, rng.random(n * WORDS_A_ROW)).clip(max=n_words - 1)
    rows = np.repeat(np.arange(n), WORDS_A_ROW)
    return sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, n_words))


def random_memmap(folder: Path, n: int, d: int) -> np.memmap:
    """Normal float16 embeddings, written by chunk."""
    path = folder / f"x-{n}-{d}.npy"
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, d))
    rng = np.random.default_rng(0)
    for first in range(0, n, 8192):
        X[first : first + 8192] = rng.standard_normal((min(8192, n - first), d), np.float32)
    X.flush()
    return np.load(path, mmap_mode="r")


def session(X: np.ndarray, Y: sp.csr_array, rank: int, solver: str, device: str) -> Session:
    """A fit with default settings, set up and not yet begun."""
    rows = CountDataset(X, Y.indptr, Y.indices, Y.data, np.ones(len(X)), Y.shape[1])
    options = Options(
        rank=rank, l1=1e-2, l2=20.0, max_iter=1, tol=1e-3, batch_size=500, learning_rate=0.05,
        stop_on=None, n_iter_no_change=2, seed=0, solver=solver,
    )  # fmt: skip
    return Session(rows, options, resolve_compute(device, "auto"))


def seconds_of_pass(ready: Session) -> float:
    """One pass, the second one of the session: the first pays for buffers."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        ready.one_pass()
        synchronize(ready.compute.device)
        times.append(time.perf_counter() - began)
    return min(times)


def recipe_seconds(X: np.ndarray, Y: sp.csr_array, rank: int, device: str, steps: int) -> float:
    """Best seconds of a recipe step, times the steps of a pass over n rows."""
    where = resolve_compute(device, "float32").device
    model = PublishedRecipe(X.shape[1], rank, Y.shape[1], 0.2, torch.Generator().manual_seed(0)).to(
        where
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE_LEARNING_RATE)
    times = []
    for i in range(steps + 1):
        rows = np.arange(i * RECIPE_BATCH, (i + 1) * RECIPE_BATCH) % len(X)
        began = time.perf_counter()
        x = torch.from_numpy(X[rows].astype(np.float32)).to(where)
        recipe_step(model, optimizer, x, torch.from_numpy(Y[rows].toarray()).to(where))
        synchronize(where)
        times.append(time.perf_counter() - began)
    return min(times[1:]) * len(X) / RECIPE_BATCH


def ratio(args: argparse.Namespace) -> None:
    """Seconds a pass of the recipe over ours."""
    print(f"{args.rows} rows, d = r = {args.rank}; seconds a pass")
    print(
        f"{'V':>8} {'recipe':>8} {'exact':>8} {'sampled':>8} {'auto is':>8} {'recipe / auto':>14}"
    )
    for n_words in args.words:
        Y = zipf_counts(args.rows, n_words)
        X = np.random.default_rng(0).standard_normal((args.rows, args.rank), np.float32)
        theirs = recipe_seconds(X, Y, args.rank, args.device, args.steps)
        ours = {
            solver: seconds_of_pass(session(X, Y, args.rank, solver, args.device))
            for solver in ("exact", "sampled")
        }
        auto = session(X, Y, args.rank, "auto", args.device)
        chosen = "exact" if auto.sampler is None else "sampled"
        print(
            f"{n_words:8d} {theirs:8.2f} {ours['exact']:8.2f} {ours['sampled']:8.2f} {chosen:>8} "
            f"{theirs / ours[chosen]:14.1f}",
            flush=True,
        )


def worth(args: argparse.Namespace) -> None:
    """Seconds of a sampled pass over those of an exact one, where ``solver="auto"`` must choose."""
    print(
        f"{'V':>8} {'candidates / V':>15} {'exact, s':>9} {'sampled, s':>11} {'sampled / exact':>16}"
    )
    for n_words in (2000, 3000, 4000, 6000, 8000, 12_000):
        Y = zipf_counts(6000, n_words)
        X = np.random.default_rng(0).standard_normal((6000, args.rank), np.float32)
        both = [session(X, Y, args.rank, solver, args.device) for solver in ("exact", "sampled")]
        seconds = [math.inf, math.inf]
        for _ in range(args.repeats):  # in turns, so that load from elsewhere hits both
            seconds = [
                min(best, seconds_of_pass(ready)) for best, ready in zip(seconds, both, strict=True)
            ]
        share = both[1].sampler.expected / n_words
        print(
            f"{n_words:8d} {share:15.2f} {seconds[0]:9.2f} {seconds[1]:11.2f} "
            f"{seconds[1] / seconds[0]:16.2f}",
            flush=True,
        )


def floor(args: argparse.Namespace) -> None:
    """Steps of the exact solver over the products 6 m V r that they cannot do without."""
    compute = resolve_compute(args.device, args.precision)
    print(
        f"exact step of 500 rows, d = r = {args.rank}, products in {compute.product_dtype}; best times"
    )
    print(
        f"{'V':>8} {'GFLOP/s':>8} {'products':>9} {'gradients':>9} {'step':>9} {'step / products':>16}"
    )
    for n_words in args.words:
        best = floor_line(n_words, args.rank, compute, args.repeats)
        rate = 6e-9 * 500 * n_words * args.rank / best["products"]
        cells = " ".join(f"{1e3 * seconds:6.1f} ms" for seconds in best.values())
        print(
            f"{n_words:8d} {rate:8.0f} {cells} {best['step'] / best['products']:16.2f}", flush=True
        )


def floor_line(n_words: int, rank: int, compute: Compute, repeats: int) -> dict[str, float]:
    """Best seconds of the products, of the gradients and of a whole step of 500 rows."""
    m = 500
    Y = zipf_counts(12 * m, n_words)
    X = np.random.default_rng(0).standard_normal((12 * m, rank), np.float32)
    ready = session(X, Y, rank, "exact", str(compute.device))
    A, b, B = ready.run.optimizer.A, ready.run.optimizer.b, ready.run.optimizer.B
    latent, targets = ready.data.batch(np.arange(m))
    h, work = latent @ B.T, Workspace(compute)
    at_most = work.block_rows(n_words, m)
    rows = math.ceil(m / math.ceil(m / at_most))
    z, G = work.pair(rows, n_words)
    G.normal_()
    gA, gh, gb = torch.empty_like(A), torch.empty_like(h), torch.empty_like(b)

    def products() -> None:
        with product_precision(compute):
            for first in range(0, m, rows):
                k = min(rows, m - first)
                matmul(h[first : first + k], A.T, compute, out=z[:k])
                matmul(G[:k].T, h[first : first + k], compute, out=gA, add=first > 0)
                matmul(G[:k], A, compute, out=gh[first : first + k])

    def gradients() -> None:
        loss_and_gradients(
            h, A, b, targets, compute, work, grad_A=gA, grad_b=gb, grad_h=gh
        )  # fmt: skip

    best = {"products": math.inf, "gradients": math.inf, "step": math.inf}
    for _ in range(repeats):
        for name, call in (("products", products), ("gradients", gradients)) * 6:
            began = time.perf_counter()
            call()
            synchronize(compute.device)
            best[name] = min(best[name], time.perf_counter() - began)
        stamps: list[float] = []

        def stamp(done: int, stamps: list[float] = stamps) -> None:
            synchronize(compute.device)
            stamps.append(time.perf_counter())

        ready.one_pass(stamp)
        best["step"] = min(best["step"], float(np.diff(stamps).min()))
    return best


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Largest anonymous memory of this process while the block runs, above what it was before."""

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
        raise OSError("RssAnon is not in /proc/self/status: this needs Linux.")


def one_line(args: argparse.Namespace) -> None:
    """One line of the table, in a process of its own; prints JSON."""
    Y = zipf_counts(args.n, args.V)
    with tempfile.TemporaryDirectory() as folder:
        X = random_memmap(Path(folder), args.n, args.d)
        with PeakMemory() as peak:
            ready = session(X, Y, args.r, args.solver, args.device)
            seconds = seconds_of_pass(ready)
    print(json.dumps({"seconds": seconds, "bytes": peak.bytes}))


def table(args: argparse.Namespace) -> None:
    """n, V, r each doubled twice."""
    base = {"n": 10_000, "V": 20_000, "r": 128}
    lines = [base] + [{**base, key: base[key] * k} for key in base for k in (2, 4)]
    print(f"d = {args.d}, X a float16 memory map; memory above the start of the fit")
    print(f"{'n':>8} {'V':>8} {'r':>5} {'solver':>8} {'s / pass':>9} {'peak MB':>8} {'X MB':>6}")
    for solver in ("exact", "sampled"):
        for line in lines:
            command = [sys.executable, "-m", "benchmarks.bench_scaling", "line", "--solver", solver]
            for key, value in {**line, "d": args.d}.items():
                command += [f"--{key}", str(value)]
            done = subprocess.run(
                [*command, "--device", args.device], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{line['n']:8d} {line['V']:8d} {line['r']:5d} {solver:>8} {found['seconds']:9.2f} "
                f"{found['bytes'] / 1e6:8.0f} {line['n'] * args.d * 2 / 1e6:6.0f}",
                flush=True,
            )


def paper(args: argparse.Namespace) -> None:
    """A pass over the paper's full problem: whole on a GPU, by the slope of two fractions elsewhere."""
    d, n_words, rank, whole = PAPER["d"], PAPER["V"], PAPER["r"], PAPER["n"]
    for solver, rows in (("sampled", args.rows), ("exact", args.exact_rows)):
        lines = []
        for n in (whole,) if args.whole else (rows, 3 * rows):
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                X, Y = random_memmap(Path(folder), n, d), zipf_counts(n, n_words)
                with PeakMemory() as peak:
                    began = time.perf_counter()
                    ready = session(X, Y, rank, solver, args.device)
                    setup = time.perf_counter() - began
                    seconds = seconds_of_pass(ready)
                del ready
            lines.append((n, setup, seconds))
            print(
                f"{solver}: {n} rows, setup {setup:.1f} s, pass {seconds:.1f} s, "
                f"peak {peak.bytes / 1e9:.2f} GB",
                flush=True,
            )
        if not args.whole:
            (n0, *first), (n1, *second) = lines
            at_whole = [
                t0 + (t1 - t0) / (n1 - n0) * (whole - n0)
                for t0, t1 in zip(first, second, strict=True)
            ]
            print(
                f"{solver}: {whole} rows, extrapolated: setup {at_whole[0] / 60:.1f} min, "
                f"pass {at_whole[1] / 60:.1f} min",
                flush=True,
            )


def main() -> None:
    """Parse the command line and run one of the four."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["ratio", "worth", "floor", "table", "paper", "line"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="of floor")
    parser.add_argument("--words", type=int, nargs="+", default=[12_000, 50_000, 100_000])
    parser.add_argument("--rank", type=int, default=384)
    parser.add_argument("--rows", type=int, default=10_000, help="of ratio, and of paper (sampled)")
    parser.add_argument("--exact-rows", type=int, default=1_000, help="of paper")
    parser.add_argument(
        "--steps", type=int, default=3, help="recipe steps of which the best counts"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds of floor")
    parser.add_argument("--whole", action="store_true", help="paper with all rows: for a GPU")
    parser.add_argument("--folder", default=None, help="where paper puts its memory map")
    parser.add_argument("--solver", default="auto", help="of line")
    for name, value in (("n", 10_000), ("V", 20_000), ("r", 128), ("d", 384)):
        parser.add_argument(f"--{name}", type=int, default=value, help="of line")
    args = parser.parse_args()
    if args.what != "line":
        print(
            f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            flush=True,
        )
    calls = {
        "ratio": ratio, "worth": worth, "floor": floor, "table": table, "paper": paper,
        "line": one_line,
    }  # fmt: skip
    calls[args.what](args)


if __name__ == "__main__":
    main()

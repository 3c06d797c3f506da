"""How far a fit of two processes is from the fit of one, on captions: the rounding of sums in another order.

    python -m benchmarks.bench_processes                 # 4,000 captions
    python -m benchmarks.bench_processes --rows 400      # a quick test

Both fits are in float64 with gloo on one CPU. The table has the largest difference of the scores of 500 dev
captions, with bias and in nats, the number of words whose scores differ by more than 1e-5, and
|B1 - B2| / |B1|, of fits with the same batches and sampled classes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing

from benchmarks.data import DEFAULT_DATA, load_captions, positive_int
from flip_sklearn import FLiPExtractor


def fit_member(rank: int, size: int, solver: str, args: argparse.Namespace, folder: str) -> None:
    """Fit in process ``rank`` of a group; the first process writes the scores and B."""
    torch.set_num_threads(1)
    if size > 1:
        store = f"file://{folder}/store-{solver}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    data = load_captions(args.data, args.rows)
    model = FLiPExtractor(
        rank=64, solver=solver, max_iter=args.passes, precision="float64", random_state=0, device="cpu"
    )
    model.fit(data.X.astype(np.float64), data.Y)
    if rank == 0:
        scores = model.decision_function(data.X_dev[:500].astype(np.float64))
        np.savez(f"{folder}/{solver}-{size}.npz", scores=scores, B=model.projection_)
    if size > 1:
        torch.distributed.destroy_process_group()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=4_000)
    parser.add_argument("--passes", type=positive_int, default=5)
    args = parser.parse_args()
    print("| solver | scores, largest difference | words above 1e-5 | B, relative difference |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for solver in ("exact", "sampled"):
            for size in (1, 2):
                torch.multiprocessing.spawn(fit_member, (size, solver, args, folder), nprocs=size)
            one, two = (np.load(f"{folder}/{solver}-{size}.npz") for size in (1, 2))
            seen = one["scores"] > -1e3  # words without any count have the score -1e4
            by_word = (np.abs(one["scores"] - two["scores"]) * seen).max(axis=0)
            words = f"{(by_word > 1e-5).sum()} of {seen.any(axis=0).sum():,}"
            B = np.linalg.norm(one["B"] - two["B"]) / np.linalg.norm(one["B"])
            print(f"| {solver} | {by_word.max():.0e} | {words} | {B:.0e} |", flush=True)


if __name__ == "__main__":
    main()

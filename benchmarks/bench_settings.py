"""Accuracy, zeros and seconds of several parameter settings, as a Markdown table.

    python -m benchmarks.bench_settings                          # the table of docs/performance.md
    python -m benchmarks.bench_settings --solver --rows 12000    # constants of the solver: docs/solver.md
    python -m benchmarks.bench_settings --batches                # size of the batches: docs/performance.md
    python -m benchmarks.bench_settings --rows 3000              # a quick test

The captions are captions.{train,dev}.en.{txt.gz,npy} in the folder --data. The vocabulary is that of the
training rows; the accuracy is measured on all dev rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from benchmarks.data import DEFAULT_DATA, load_captions, positive_int
from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit import optimizer, whitening
from flip_sklearn.backend.fit.whitening import Moments, Whitening

SETTINGS: list[dict[str, Any]] = [
    {},
    {"solver": "exact"},
    {"l1_strength": 0.0, "l2_strength": 0.0},
    {"l2_strength": 0.0},
    {"l2_strength": 5.0},
    {"l2_strength": 40.0},
    {"l2_strength": 100.0},
    {"l1_strength": 0.0},
    {"l1_strength": 0.03},
    {"l1_strength": 0.1},
    {"l1_strength": 1.0},
    {"rank": 128},
    {"rank": 128, "l2_strength": 0.0},
    {"rank": 128, "l2_strength": 5.0},
    {"rank": 32},
    {"rank": None},
]
# The larger the batches, the better a GPU is used.
BATCHES: list[dict[str, Any]] = [
    {**model, "batch_size": m, "learning_rate": 0.05 * factor}
    for model in ({"solver": "sampled"}, {"rank": 64, "solver": "exact"})
    for m, factor in ((500, 1), (1000, 1), (1000, 2), (2000, 1), (2000, 2), (2000, 4))
]


def centered_only(moments: Moments, ridge: float | None = None) -> Whitening:
    """Center and scale the embeddings by one factor, in place of whitening."""
    d = len(moments.mean)
    scale = np.sqrt(np.trace(moments.scatter) / moments.weight / d)
    return Whitening(moments.mean, np.eye(d) / scale, np.eye(d) * scale)


# Constants of the solver that are not parameters: (description, module, name, value).
CONSTANTS: list[tuple[str, Any, str, Any]] = [
    ("default", optimizer, "B_RATE", optimizer.B_RATE),
    ("centered and scaled, not whitened", Whitening, "from_moments", centered_only),
    ("no averaging of the iterates", optimizer, "AVERAGE_DECAY", 0.0),
    ("averaging over ten times as long", optimizer, "AVERAGE_DECAY", 0.999),
    ("B as fast as A (B_RATE 1)", optimizer, "B_RATE", 1.0),
    ("B fixed at its start (B_RATE 0)", optimizer, "B_RATE", 0.0),
    ("b ten times faster (BIAS_RATE 0.2)", optimizer, "BIAS_RATE", 0.2),
    ("b fifty times faster (BIAS_RATE 1)", optimizer, "BIAS_RATE", 1.0),
    ("ridge 1e-4", whitening, "RIDGE_RANGE", (1e-4, 1e-4)),
    ("ridge 0.1", whitening, "RIDGE_RANGE", (0.1, 0.1)),
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, help="number of training rows (default: all)")
    parser.add_argument("--solver", action="store_true", help="vary constants of the solver")
    parser.add_argument("--batches", action="store_true", help="vary the size of the batches and the rate")
    args = parser.parse_args()
    data = load_captions(args.data, args.rows)
    n, d = data.X.shape
    print(f"n = {n:,}, V = {data.Y.shape[1]:,}, d = {d}, {len(data.X_dev):,} dev rows\n")
    print("| setting | accuracy | without bias | zeros in A | best pass of | seconds |")
    print("|---|---|---|---|---|---|", flush=True)

    def print_row(name: str, setting: dict[str, Any]) -> None:
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            flip = FLiPExtractor(**setting, random_state=0).fit(data.X, data.Y)
        seconds = time.perf_counter() - start
        accuracy = flip.score(data.X_dev, data.Y_dev)
        without_bias = flip.set_params(use_bias=False).score(data.X_dev, data.Y_dev)
        zeros = float((flip.word_embeddings_ == 0).mean())
        print(
            f"| {name} | {accuracy:.3f} | {without_bias:.3f} | {zeros:.0%} "
            f"| {flip.best_iter_} of {flip.n_iter_} | {seconds:.0f} |",
            flush=True,
        )

    if not args.solver:
        for setting in tqdm(BATCHES if args.batches else SETTINGS, unit="fit"):
            text = ", ".join(f"{name}={value!r}" for name, value in setting.items())
            print_row(f"`{text}`" if text else "defaults", setting)
        return
    for name, module, constant, value in tqdm(CONSTANTS, unit="fit"):
        with mock.patch.object(module, constant, value):
            print_row(name, {"rank": 384})


if __name__ == "__main__":
    main()

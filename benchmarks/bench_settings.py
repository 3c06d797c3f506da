"""What rank, l1_strength and use_bias do: accuracy, zeros and seconds, as a Markdown table.

    python benchmarks/bench_settings.py                      # the captions, as in docs/performance.md
    python benchmarks/bench_settings.py --solver --rows 12000   # the solver's constants, as in docs/solver.md
    python benchmarks/bench_settings.py --rows 3000          # a quick look

Reads captions.{train,dev}.en.{txt.gz,npy} from --data, counts words with
CountVectorizer(strip_accents="ascii") fitted on the training part, and scores on all dev rows.
"""

from __future__ import annotations

import argparse
import gzip
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from tqdm import tqdm

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit import optimizer, whitening
from flip_sklearn.backend.fit.whitening import Moments, Whitening

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
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


# The solver's own constants, which are no parameters: (what it shows, module, name, value).
CONSTANTS: list[tuple[str, Any, str, Any]] = [
    ("as it is", optimizer, "B_RATE", optimizer.B_RATE),
    ("centred and scaled, not whitened", Whitening, "from_moments", None),
    ("no averaging of the iterates", optimizer, "AVERAGE_DECAY", 0.0),
    ("averaging over ten times as long", optimizer, "AVERAGE_DECAY", 0.999),
    ("B as fast as A (B_RATE 1)", optimizer, "B_RATE", 1.0),
    ("B fixed at its start (B_RATE 0)", optimizer, "B_RATE", 0.0),
    ("b ten times faster (BIAS_RATE 0.2)", optimizer, "BIAS_RATE", 0.2),
    ("b fifty times faster (BIAS_RATE 1)", optimizer, "BIAS_RATE", 1.0),
    ("ridge 1e-4", whitening, "RIDGE_RANGE", (1e-4, 1e-4)),
    ("ridge 0.1", whitening, "RIDGE_RANGE", (0.1, 0.1)),
]


def centred_only(moments: Moments, ridge: float | None = None) -> Whitening:
    """What is left of whitening without the rotation and scaling of single directions."""
    d = len(moments.mean)
    scale = np.sqrt(np.trace(moments.scatter) / moments.weight / d)
    return Whitening(moments.mean, np.eye(d) / scale, np.eye(d) * scale)


def read(folder: Path, part: str) -> tuple[np.ndarray, list[str]]:
    """Embeddings and sentences of one part."""
    with gzip.open(folder / f"captions.{part}.en.txt.gz", "rt", encoding="utf8") as file:
        return np.load(folder / f"captions.{part}.en.npy"), file.read().splitlines()


def main() -> None:
    """Fit each setting once and print its row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", type=int, default=None, help="first training rows only")
    parser.add_argument("--solver", action="store_true", help="vary the solver's constants instead")
    args = parser.parse_args()
    X, texts = read(args.data, "train")
    X_dev, dev_texts = read(args.data, "dev")
    X, texts = X[: args.rows], texts[: args.rows]
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    Y, Y_dev = vectorizer.fit_transform(texts), vectorizer.transform(dev_texts)
    print(f"n = {len(X):,}, V = {Y.shape[1]:,}, d = {X.shape[1]}, {len(X_dev):,} dev rows\n")
    print("| setting | accuracy | without bias | zeros in A | best pass of | seconds |")
    print("|---|---|---|---|---|---|", flush=True)

    def row(name: str, setting: dict[str, Any]) -> None:
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            flip = FLiPExtractor(**setting, random_state=0).fit(X, Y)
        seconds = time.perf_counter() - began
        accuracy = flip.score(X_dev, Y_dev)
        without = flip.set_params(use_bias=False).score(X_dev, Y_dev)
        zeros = float((flip.word_embeddings_ == 0).mean())
        print(
            f"| {name} | {accuracy:.3f} | {without:.3f} | {zeros:.0%} "
            f"| {flip.best_iter_} of {flip.n_iter_} | {seconds:.0f} |",
            flush=True,
        )

    if not args.solver:
        for setting in tqdm(SETTINGS, unit="fit"):
            shown = ", ".join(f"{k}={v!r}" for k, v in setting.items())
            row(f"`{shown}`" if shown else "defaults", setting)
        return
    for name, place, constant, value in tqdm(CONSTANTS, unit="fit"):
        with mock.patch.object(place, constant, centred_only if value is None else value):
            row(name, {"rank": 384})


if __name__ == "__main__":
    main()

"""A path of L1 strengths against separate fits: seconds, and accuracy and sparsity at each strength.

Run from the root of the repository:

    python -m benchmarks.bench_path --rows 12000 --rank 128      # the table of docs/regularization.md
    python -m benchmarks.bench_path --synthetic                  # planted data, no files needed
    python -m benchmarks.bench_path --json path.json             # goes on where it was cut off

Three ways to the same strengths, on the same training rows and judged on the same dev rows, one after
the other in one process:

path    ``regularization_path`` with its default settings.
long    One fit for each strength, ``--passes`` passes with no early stopping: the yardstick, close to the
        minimum of J from its own start.
fit     One fit for each strength with the default settings, early stopping included.

Printed are the accuracy on the dev rows, the share of zeros in A, J as the last pass met it, and the
passes, for each strength and way; then the seconds of each, set-up and scoring included, over those of
the path.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from benchmarks.bench_fit import (
    DEFAULT_DATA,
    SYNTHETIC_ROWS,
    Data,
    load_captions,
    make_synthetic,
    positive_int,
)
from flip_sklearn import FLiPExtractor, regularization_path


@dataclass(frozen=True)
class Figures:
    """What is reported of one model."""

    l1_strength: float
    accuracy: float
    without_bias: float
    zeros: float
    words_left: int
    J: float  # nan where no pass was made
    passes: int
    seconds: float


class Store:
    """Figures that are done, in a file if there is one, so that a run that was cut off goes on."""

    def __init__(self, path: Path | None, setting: dict[str, Any]) -> None:
        self._path, self._setting = path, setting
        self._done: dict[str, list[Figures]] = {}
        if path is not None and path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["setting"] != setting:
                raise ValueError(f"{path} is of another setting: {saved['setting']}; remove it.")
            self._done = {
                way: [Figures(**figures) for figures in rows] for way, rows in saved["done"].items()
            }

    def rows(self, way: str) -> list[Figures]:
        """Figures of one way so far, in the order of the path."""
        return self._done.setdefault(way, [])

    def add(self, way: str, *figures: Figures) -> None:
        """Keep more of them."""
        self.rows(way).extend(figures)
        if self._path is not None:
            done = {name: [asdict(row) for row in rows] for name, rows in self._done.items()}
            text = json.dumps({"setting": self._setting, "done": done}, indent=1)
            self._path.write_text(text + "\n", encoding="utf-8")


def follow_path(flip: FLiPExtractor, data: Data, n: int) -> list[Figures]:
    """The path; what its strengths share is added to the seconds of the first."""
    began = time.perf_counter()
    path = regularization_path(
        data.X, data.Y, n, estimator=flip, validation=(data.X_dev, data.Y_dev)
    )
    shared = time.perf_counter() - began - path.seconds.sum()
    rows = [
        Figures(
            float(path.l1_strengths[i]), float(path.accuracy[i]),
            float(path.accuracy_without_bias[i]), float(path.sparsity[i]),
            int(path.n_words_left[i]),
            model.history_["loss"][-1] if model.n_iter_ else float("nan"), model.n_iter_,
            float(path.seconds[i]) + (shared if i == 0 else 0.0),
        )
        for i, model in enumerate(path.models)
    ]  # fmt: skip
    print(
        f"best within a standard error ({path.standard_error.max():.4f}): l1_strength = "
        f"{path.best().l1_strength:.4g}"
    )
    return rows


def fit_alone(flip: FLiPExtractor, data: Data) -> Figures:
    """One fit from scratch."""
    began = time.perf_counter()
    flip.fit(data.X, data.Y)
    seconds = time.perf_counter() - began
    accuracy = flip.score(data.X_dev, data.Y_dev)
    flip.set_params(use_bias=False)
    A = flip.word_embeddings_[flip.word_counts_ > 0]
    return Figures(
        flip.l1_strength, accuracy, flip.score(data.X_dev, data.Y_dev), float((A == 0).mean()),
        int(A.any(axis=1).sum()), flip.history_["loss"][flip.best_iter_ - 1], flip.n_iter_, seconds,
    )  # fmt: skip


def print_table(ways: dict[str, list[Figures]]) -> None:
    """A row for each strength, the ways side by side, as Markdown; then the seconds."""
    names = list(ways)
    heads = ["accuracy", "no bias", "zeros", "J", "passes"]
    print(
        "\n| l1_strength | words left | "
        + " | ".join(f"{h}: {' / '.join(names)}" for h in heads)
        + " |"
    )
    print("|" + "---|" * (2 + len(heads)))
    for rows in zip(*ways.values(), strict=True):
        cells = [
            " / ".join(f"{row.accuracy:.4f}" for row in rows),
            " / ".join(f"{row.without_bias:.3f}" for row in rows),
            " / ".join(f"{100 * row.zeros:.1f}%" for row in rows),
            " / ".join("-" if np.isnan(row.J) else f"{row.J:.3f}" for row in rows),
            " / ".join(str(row.passes) for row in rows),
        ]
        left = " / ".join(str(row.words_left) for row in rows)
        print(f"| {rows[0].l1_strength:.3g} | {left} | " + " | ".join(cells) + " |")
    seconds = {name: sum(row.seconds for row in rows) for name, rows in ways.items()}
    base = seconds["path"]
    print()
    for name, total in seconds.items():
        passes = sum(row.passes for row in ways[name])
        print(f"{name:<5} {total:8.1f} s, {passes} passes: {total / base:.1f} x the path's seconds")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_path", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR")
    parser.add_argument("--synthetic", action="store_true", help="planted data, no files needed")
    parser.add_argument("--rows", type=positive_int, metavar="N", help="first N training rows")
    parser.add_argument("--rank", type=positive_int, metavar="R", help="default: min(512, d)")
    parser.add_argument("--strengths", type=positive_int, default=10, metavar="N")
    parser.add_argument(
        "--passes", type=positive_int, default=40, help="of each long fit (default: %(default)s)"
    )
    parser.add_argument("--solver", default="auto", choices=("auto", "exact", "sampled"))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep figures, and go on from them"
    )
    args = parser.parse_args(arguments)
    if args.synthetic:
        data = make_synthetic(args.rows or SYNTHETIC_ROWS, 5000, 256, seed=0)
    else:
        try:
            data = load_captions(args.data, args.rows)
        except FileNotFoundError as error:
            parser.error(f"{error}; pass --data DIR with the captions, or --synthetic.")
    setting = {
        "data": data.name, "n": len(data.X), "V": data.Y.shape[1], "rank": args.rank,
        "strengths": args.strengths, "passes": args.passes, "solver": args.solver,
    }  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in setting.items()), flush=True)
    flip = FLiPExtractor(
        rank=args.rank or "auto", solver=args.solver, device=args.device, random_state=0
    )
    store = Store(args.json, setting)
    warnings.simplefilter("ignore", ConvergenceWarning)
    # What a process pays once is paid before.
    clone(flip).set_params(rank=1, max_iter=1).fit(data.X[:100], data.Y[:100])
    if not store.rows("path"):
        store.add("path", *follow_path(flip, data, args.strengths))
    strengths = [row.l1_strength for row in store.rows("path")]
    long = {"early_stopping": False, "max_iter": args.passes, "tol": 0.0, "n_iter_no_change": 10**6}
    for way, settings in (("long", long), ("fit", {})):
        begun = len(store.rows(way))
        for strength in tqdm(strengths[begun:], desc=way, initial=begun, total=len(strengths)):
            one = clone(flip).set_params(l1_strength=strength, **settings)
            store.add(way, fit_alone(one, data))
    print_table({way: store.rows(way) for way in ("path", "long", "fit")})


if __name__ == "__main__":
    main()

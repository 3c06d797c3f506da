"""A path of L1 strengths compared with separate fits: seconds, accuracy and sparsity.

Run from the root of the repository:

    python -m benchmarks.bench_path --rows 12000 --rank 128      # the table of docs/regularization.md
    python -m benchmarks.bench_path --synthetic                  # synthetic data, no files needed
    python -m benchmarks.bench_path --json path.json             # an interrupted run can be resumed

Three methods are compared for the same strengths, training rows and dev rows, one after the other in one
process:

path    ``regularization_path`` with its default settings.
long    One fit per strength with ``--passes`` passes and no early stopping. It is the reference, close to the
        minimum of J.
fit     One fit per strength with the default settings, including early stopping.

The benchmark prints, for each strength and method, the accuracy on the dev rows, the share of zeros in A, J
during the last pass, and the number of passes. It then prints the seconds of each method, including set-up
and scoring, relative to those of the path.
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

from benchmarks.data import DEFAULT_DATA, SYNTHETIC_ROWS, Data, load_captions, make_synthetic, positive_int
from flip_sklearn import FLiPExtractor, regularization_path


@dataclass(frozen=True)
class Figures:
    """The reported figures of one model."""

    l1_strength: float
    accuracy: float
    without_bias: float
    zeros: float
    words_left: int
    J: float  # nan without any pass
    passes: int
    seconds: float


class Store:
    """Finished figures, optionally stored in a file, so that an interrupted run can be resumed."""

    def __init__(self, path: Path | None, setting: dict[str, Any]) -> None:
        self._path, self._setting = path, setting
        self._finished: dict[str, list[Figures]] = {}
        if path is not None and path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["setting"] != setting:
                raise ValueError(f"{path} has other settings: {saved['setting']}; remove the file.")
            for method, rows in saved["finished"].items():
                self._finished[method] = [Figures(**figures) for figures in rows]

    def rows(self, method: str) -> list[Figures]:
        """Return the finished figures of a method, in the order of the path."""
        return self._finished.setdefault(method, [])

    def add(self, method: str, *figures: Figures) -> None:
        """Add figures and rewrite the file."""
        self.rows(method).extend(figures)
        if self._path is not None:
            finished = {name: [asdict(row) for row in rows] for name, rows in self._finished.items()}
            text = json.dumps({"setting": self._setting, "finished": finished}, indent=1)
            self._path.write_text(text + "\n", encoding="utf-8")


def run_path(flip: FLiPExtractor, data: Data, n: int) -> list[Figures]:
    """Fit the path. The time not spent on a single strength is added to the first one."""
    start = time.perf_counter()
    path = regularization_path(data.X, data.Y, n, estimator=flip, validation=(data.X_dev, data.Y_dev))
    shared_seconds = time.perf_counter() - start - path.seconds.sum()
    rows = [
        Figures(
            l1_strength=float(path.l1_strengths[i]),
            accuracy=float(path.accuracy[i]),
            without_bias=float(path.accuracy_without_bias[i]),
            zeros=float(path.sparsity[i]),
            words_left=int(path.n_words_left[i]),
            J=model.history_["loss"][-1] if model.n_iter_ else float("nan"),
            passes=model.n_iter_,
            seconds=float(path.seconds[i]) + (shared_seconds if i == 0 else 0.0),
        )
        for i, model in enumerate(path.models)
    ]
    print(
        f"best within a standard error ({path.standard_error.max():.4f}): l1_strength = "
        f"{path.best().l1_strength:.4g}"
    )
    return rows


def fit_alone(flip: FLiPExtractor, data: Data) -> Figures:
    """Fit one model from scratch."""
    start = time.perf_counter()
    flip.fit(data.X, data.Y)
    seconds = time.perf_counter() - start
    accuracy = flip.score(data.X_dev, data.Y_dev)
    flip.set_params(use_bias=False)
    A = flip.word_embeddings_[flip.word_counts_ > 0]
    return Figures(
        l1_strength=flip.l1_strength,
        accuracy=accuracy,
        without_bias=flip.score(data.X_dev, data.Y_dev),
        zeros=float((A == 0).mean()),
        words_left=int(A.any(axis=1).sum()),
        J=flip.history_["loss"][flip.best_iter_ - 1],
        passes=flip.n_iter_,
        seconds=seconds,
    )


def print_table(figures: dict[str, list[Figures]]) -> None:
    """Print a row per strength with the figures of all methods, as Markdown; then the seconds."""
    names = " / ".join(figures)
    columns = ["accuracy", "no bias", "zeros", "J", "passes"]
    header = ["l1_strength", "words left", *(f"{column}: {names}" for column in columns)]
    print(f"\n| {' | '.join(header)} |")
    print("|" + "---|" * len(header))
    for rows in zip(*figures.values(), strict=True):
        cells = [
            " / ".join(f"{row.accuracy:.4f}" for row in rows),
            " / ".join(f"{row.without_bias:.3f}" for row in rows),
            " / ".join(f"{100 * row.zeros:.1f}%" for row in rows),
            " / ".join("-" if np.isnan(row.J) else f"{row.J:.3f}" for row in rows),
            " / ".join(str(row.passes) for row in rows),
        ]
        words_left = " / ".join(str(row.words_left) for row in rows)
        print(f"| {rows[0].l1_strength:.3g} | {words_left} | " + " | ".join(cells) + " |")
    seconds = {name: sum(row.seconds for row in rows) for name, rows in figures.items()}
    base = seconds["path"]
    print()
    for name, total in seconds.items():
        passes = sum(row.passes for row in figures[name])
        print(f"{name:<5} {total:8.1f} s, {passes} passes: {total / base:.1f} x the path's seconds")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_path", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR")
    parser.add_argument("--synthetic", action="store_true", help="synthetic data, no files needed")
    parser.add_argument("--rows", type=positive_int, metavar="N", help="number of training rows")
    parser.add_argument("--rank", type=positive_int, metavar="R", help="default: min(512, d)")
    parser.add_argument("--strengths", type=positive_int, default=10, metavar="N")
    parser.add_argument(
        "--passes", type=positive_int, default=40, help="passes of each long fit (default: %(default)s)"
    )
    parser.add_argument("--solver", default="auto", choices=("auto", "exact", "sampled"))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="store finished figures, and resume from them"
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
        "data": data.name,
        "n": len(data.X),
        "V": data.Y.shape[1],
        "rank": args.rank,
        "strengths": args.strengths,
        "passes": args.passes,
        "solver": args.solver,
    }
    print(", ".join(f"{name} {value}" for name, value in setting.items()), flush=True)
    flip = FLiPExtractor(rank=args.rank or "auto", solver=args.solver, device=args.device, random_state=0)
    store = Store(args.json, setting)
    warnings.simplefilter("ignore", ConvergenceWarning)
    # One-time costs of a process are paid before the clock starts.
    clone(flip).set_params(rank=1, max_iter=1).fit(data.X[:100], data.Y[:100])
    if not store.rows("path"):
        store.add("path", *run_path(flip, data, args.strengths))
    strengths = [row.l1_strength for row in store.rows("path")]
    long = {"early_stopping": False, "max_iter": args.passes, "tol": 0.0, "n_iter_no_change": 10**6}
    for method, settings in (("long", long), ("fit", {})):
        done = len(store.rows(method))
        for strength in tqdm(strengths[done:], desc=method, initial=done, total=len(strengths)):
            model = clone(flip).set_params(l1_strength=strength, **settings)
            store.add(method, fit_alone(model, data))
    print_table({method: store.rows(method) for method in ("path", "long", "fit")})


if __name__ == "__main__":
    main()

"""Seconds to a given keyword accuracy: FLiPExtractor compared with the published training recipe.

Run from the root of the repository, on an otherwise idle machine:

    python -m benchmarks.bench_fit                    # captions; minutes (--budget, plus one fit)
    python -m benchmarks.bench_fit --synthetic        # synthetic data, no files needed
    python -m benchmarks.bench_fit --rows 3000 --rank 64 --budget 20       # a quick test
    python -m benchmarks.bench_fit --json figures.json

Both solvers use the same training rows and are evaluated on the same dev rows by the same function, in one
process, one after the other:

ours    ``FLiPExtractor(rank=..., random_state=0)`` with default settings. The clock starts at the call of
        ``fit``, so it includes whitening, preparation and the scoring of the part that is held out of the
        training rows. Dev accuracy is read after every tenth of the first pass and after every pass, with
        the clock stopped.
recipe  The published training loop (``published_recipe.py``). The clock starts before the embeddings are
        converted and the model is created. Dev accuracy is read at the end of a pass, at most every
        ``--eval-every`` seconds, and at the end of the budget, with the clock stopped.

One-time costs of a process (threads, modules that torch imports on first use) are paid before either clock
starts.

The benchmark prints the setting; float32 matrix-product rates before, between and after the two fits, which
show whether the speed of the machine was constant; the cost of one of our passes relative to its three
products of 2 n V r operations; both curves; and for each target the time of the first reading at or above it,
and the ratio. "at least" is a lower bound on the ratio that does not depend on the spacing of the readings:
the last reading of the recipe below the target over our first one at or above it.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.data import (
    DEFAULT_DATA,
    SYNTHETIC_ROWS,
    Data,
    load_captions,
    make_synthetic,
    positive_float,
    positive_int,
)
from benchmarks.fit_tables import (
    PROBE_ROWS,
    OurRun,
    Results,
    compare,
    describe_setting,
    print_results,
    print_setting,
    write_json,
)
from benchmarks.measuring import Reading, ScoreRows, dev_accuracy, make_reading, product_rate
from benchmarks.published_recipe import RecipeOptions, train_recipe
from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import PRECISIONS, resolve_compute
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.state import PassRecord

DEFAULT_TARGETS = (0.65, 0.70, 0.75, 0.78)
READINGS_IN_FIRST_PASS = 10


class PassReader:
    """A scikit-learn callback that reads the dev accuracy after every pass.

    It is also a replacement for ``Session.run_pass`` that reads the accuracy after every tenth of the first
    pass. The seconds are those of the passes, as the estimator records them, after the preparation. They
    include neither the readings nor the fitted copies that they need.
    """

    def __init__(self, data: Data) -> None:
        self.curve: list[Reading] = []
        self.preparation_seconds = math.nan
        self.last_hook_ended = math.nan
        self.reading_seconds = 0.0  # spent on readings within the first pass
        self.trained_rows = 0  # per pass
        self._data = data
        self._fit_called = time.perf_counter()
        self._run_pass = Session.run_pass

    def run_pass(
        self, session: Session, after_step: Any = None, checkpoint: Any = None
    ) -> tuple[PassRecord, Parameters]:
        """Make a pass; read the accuracy within the first one."""
        if session.state.history:
            return self._run_pass(session, after_step, checkpoint)
        n = self.trained_rows = len(session.data.dataset)
        start, next_reading = time.perf_counter(), n / READINGS_IN_FIRST_PASS

        def read(rows_done: int) -> None:
            nonlocal next_reading
            if rows_done < next_reading or rows_done == n:
                return
            stopped = time.perf_counter()
            next_reading = rows_done + n / READINGS_IN_FIRST_PASS
            result = dev_accuracy(self._scores_now(session), self._data.Y_dev)
            seconds = self.preparation_seconds + stopped - start - self.reading_seconds
            self.curve.append(make_reading(rows_done / n, seconds, result))
            self.reading_seconds += time.perf_counter() - stopped

        return self._run_pass(session, read, checkpoint)

    def _scores_now(self, session: Session) -> ScoreRows:
        """Return a function that scores dev rows with the average of the iterates so far."""
        optimizer = copy.deepcopy(session.state.optimizer)  # leaves the training unchanged
        optimizer.flush_lazy_updates()
        A, B, b = optimizer.averaged()
        projection = session.Q if B is None else session.Q @ B.T

        def score(rows: slice) -> torch.Tensor:
            x = torch.from_numpy(self._data.X_dev[rows]).to(b.device, b.dtype)
            return (x - session.mean) @ projection @ A.T + b

        return score

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing; part of the callback protocol."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing; part of the callback protocol."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Record the seconds of preparation, which ends where the first pass begins."""
        if context.parent is not None and math.isnan(self.preparation_seconds):
            self.preparation_seconds = time.perf_counter() - self._fit_called

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> bool:
        """Read the accuracy after a pass; never ask to stop."""
        if context.parent is not None:
            history = fitted_estimator.history_["seconds"]
            result = dev_accuracy(our_scores(fitted_estimator, self._data), self._data.Y_dev)
            seconds = self.preparation_seconds + sum(history) - self.reading_seconds
            self.curve.append(make_reading(len(history), seconds, result))
        self.last_hook_ended = time.perf_counter()
        return False


def our_scores(fitted: FLiPExtractor, data: Data) -> ScoreRows:
    """Return a function that scores dev rows with a fitted extractor."""
    return lambda rows: torch.from_numpy(fitted.decision_function(data.X_dev[rows]))


def fit_ours(flip: FLiPExtractor, data: Data) -> OurRun:
    """Fit and read the dev accuracy after every pass."""
    reader = PassReader(data)
    flip.set_callbacks(reader)
    # A plain function, so that it is bound to the session as a method.
    with mock.patch.object(Session, "run_pass", lambda *args: reader.run_pass(*args)):
        flip.fit(data.X, data.Y)
    seconds_after_last_pass = time.perf_counter() - reader.last_hook_ended
    pass_seconds = flip.history_["seconds"]
    without_bias = copy.copy(flip).set_params(use_bias=False)
    return OurRun(
        curve=reader.curve,
        final=dev_accuracy(our_scores(flip, data), data.Y_dev),
        without_bias=dev_accuracy(our_scores(without_bias, data), data.Y_dev),
        seconds=reader.preparation_seconds
        + sum(pass_seconds)
        + seconds_after_last_pass
        - reader.reading_seconds,
        preparation_seconds=reader.preparation_seconds,
        pass_seconds=float(np.median(pass_seconds)),
        trained_rows=reader.trained_rows,
        best_pass=flip.best_iter_,
        passes=flip.n_iter_,
    )


def share(text: str) -> float:
    """Parse an accuracy in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not an accuracy in (0, 1]")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_fit",
        description="Seconds to reach given dev keyword accuracies: FLiPExtractor compared "
        "with the published training recipe, in one run on one machine.",
    )
    source = parser.add_argument_group("data")
    source.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="DIR",
        help="folder with captions.{train,dev}.en.{txt.gz,npy} (default: shared/data beside the repository)",
    )
    source.add_argument(
        "--synthetic",
        action="store_true",
        help="use synthetic Zipf counts with linear embeddings; needs no files",
    )
    source.add_argument(
        "--rows",
        type=positive_int,
        metavar="N",
        help=f"number of training rows (default: all; {SYNTHETIC_ROWS:,} with --synthetic)",
    )
    source.add_argument(
        "--words",
        type=positive_int,
        default=5000,
        metavar="V",
        help="number of words of --synthetic (default: %(default)s)",
    )
    source.add_argument(
        "--dims",
        type=positive_int,
        default=256,
        metavar="D",
        help="embedding dimensions of --synthetic (default: %(default)s)",
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--rank", type=positive_int, metavar="R", help="rank of both (default: min(512, d))"
    )
    training.add_argument(
        "--baseline-batch",
        type=positive_int,
        default=1000,
        metavar="N",
        help="rows per step of the recipe (default: %(default)s)",
    )
    training.add_argument(
        "--baseline-init",
        type=positive_float,
        metavar="STD",
        help="standard deviation of a normal initialization of A and B of the recipe (default: the "
        "uniform initialization of torch.nn.Linear)",
    )
    training.add_argument(
        "--budget",
        type=positive_float,
        default=300.0,
        metavar="SECONDS",
        help="training time of the recipe, unless it reaches all targets earlier (default: %(default)g)",
    )
    training.add_argument(
        "--eval-every",
        type=positive_float,
        default=10.0,
        metavar="SECONDS",
        help="training time between readings of the recipe, at ends of passes (default: %(default)g)",
    )
    training.add_argument(
        "--device", default="auto", help="device of both: auto, cpu, cuda, ... (default: %(default)s)"
    )
    training.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="precision of ours; the recipe is float32 (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--targets",
        type=share,
        nargs="+",
        default=list(DEFAULT_TARGETS),
        metavar="ACCURACY",
        help="target dev keyword accuracies (default: "
        f"{' '.join(map(str, DEFAULT_TARGETS))}); the best accuracy of the recipe is added",
    )
    output.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all figures and both curves to FILE"
    )
    output.add_argument("--quiet", action="store_true", help="no progress bars on stderr")
    return parser


def load(args: argparse.Namespace) -> Data:
    """Load the data given by the command line."""
    if args.synthetic:
        return make_synthetic(args.rows or SYNTHETIC_ROWS, args.words, args.dims, seed=0)
    return load_captions(args.data, args.rows)


def recipe_options(args: argparse.Namespace, rank: int) -> RecipeOptions:
    """Return the settings of the recipe."""
    return RecipeOptions(
        rank=rank,
        batch_size=args.baseline_batch,
        init=args.baseline_init,
        budget=args.budget,
        eval_every=args.eval_every,
        stop_at=max(args.targets),
        device=resolve_compute(args.device, args.precision).device,
        quiet=args.quiet,
    )


def warm_up(data: Data, args: argparse.Namespace) -> None:
    """Pay the one-time costs of a process: threads, modules imported on first use, device start."""
    n = min(100, len(data.X))
    flip = FLiPExtractor(rank=1, max_iter=1, device=args.device, precision=args.precision)
    flip.fit(data.X[:n], data.Y[:n])
    options = replace(recipe_options(args, rank=1), batch_size=n, budget=1e-9, stop_at=1.0, quiet=True)
    train_recipe(Data("warm-up", data.X[:n], data.Y[:n], data.X_dev[:n], data.Y_dev[:n]), options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if not hasattr(FLiPExtractor, "set_callbacks"):
        parser.error("reading the accuracy during a fit needs scikit-learn 1.9 or later.")
    try:
        data = load(args)
    except FileNotFoundError as error:
        parser.error(f"{error}; pass --data DIR with the captions, or --synthetic.")
    n_words, d = data.Y.shape[1], data.X.shape[1]
    rank = args.rank or min(512, d)
    if rank > d:
        parser.error(f"--rank {rank} is greater than the dimension {d} of the embeddings.")
    flip = FLiPExtractor(
        rank=rank,
        random_state=0,
        device=args.device,
        precision=args.precision,
        verbose=0 if args.quiet else 1,
    )
    setting = describe_setting(data, rank, flip.batch_size, args)
    print_setting(setting)

    options = recipe_options(args, rank)
    warm_up(data, args)
    rates = [product_rate(PROBE_ROWS, rank, n_words, options.device)]
    ours = fit_ours(flip, data)
    rates.append(product_rate(PROBE_ROWS, rank, n_words, options.device))
    recipe = train_recipe(data, options)
    rates.append(product_rate(PROBE_ROWS, rank, n_words, options.device))

    # Our fit ran between the first two measurements.
    gflops = (rates[0].median + rates[1].median) / 2
    best = max(reading.accuracy for reading in recipe.curve)
    results = Results(
        setting=setting,
        ours=ours,
        recipe=recipe,
        rates=rates,
        floor=6e-9 * ours.trained_rows * n_words * rank / gflops,
        comparisons=[
            compare(ours.curve, recipe.curve, target) for target in [*sorted(set(args.targets)), best]
        ],
    )
    print_results(results)
    if args.json:
        write_json(args.json, results)


if __name__ == "__main__":
    main()

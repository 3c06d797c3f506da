"""Seconds to a given keyword accuracy: FLiPExtractor against the published training recipe.

Run from the root of the repository, on an otherwise idle machine:

    python -m benchmarks.bench_fit                    # captions; minutes (--budget, plus one fit)
    python -m benchmarks.bench_fit --synthetic        # planted data, no files needed
    python -m benchmarks.bench_fit --rows 3000 --rank 64 --budget 20       # a quick look
    python -m benchmarks.bench_fit --json figures.json

Both solvers see the same training rows and are judged on the same dev rows by the same function, in
one process, one after the other:

ours    ``FLiPExtractor(rank=..., random_state=0)`` with default settings. The clock starts at the
        call of ``fit``: whitening and preparation count, and so does the scoring of its own
        held-out part, which it takes from the training rows. Dev accuracy is read after every tenth
        of the first pass and after every pass, off the clock.
recipe  The published training loop, written anew with nothing of this package: z = b + A (B x) on
        raw embeddings, dense log-softmax over the vocabulary, loss -sum(Y log theta) / sum(Y) per
        shuffled batch, AdamW with learning rate 5e-3 and default weight decay, float32. b starts at
        zero, as in the published code, where the log-unigram start never takes effect; the L1 term,
        whose sign is wrong there, is left out. A and B start as torch.nn.Linear does, or normal
        with the standard deviation ``--baseline-init``: a larger start trains faster at first. The
        clock starts before the embeddings are converted and the model is made. Dev accuracy is read
        at ends of passes, at most every ``--eval-every`` seconds, and at the end of the budget, off
        the clock.

What a process pays once (threads, modules that torch's optimizers import at first use) is paid
before either clock starts.

Printed: the setting; float32 matrix-product rates before, between and after the two, which tell
whether the machine was steady; the cost of one of our passes beside its floor, three products of
2 n V r operations at that rate; both curves; per target the time of the first reading at or above
it, and their ratio. "at least" is the ratio that holds however coarse the readings are: the
recipe's last reading below the target over our first one at or above it.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.sparse as sp
import sklearn
import torch
from sklearn.feature_extraction.text import CountVectorizer
from tqdm.auto import tqdm

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import PRECISIONS, resolve_compute
from flip_sklearn.backend.fit import solver
from flip_sklearn.backend.fit.data import WhitenedRows
from flip_sklearn.backend.fit.session import Run, one_pass
from flip_sklearn.metrics import RowMean, keyword_accuracy

DEFAULT_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
DEFAULT_TARGETS = (0.65, 0.70, 0.75, 0.78)
RECIPE_LEARNING_RATE = 5e-3
EVALUATION_ROWS = 512
READINGS_IN_FIRST_PASS = 10
MAX_HELD_OUT_ROWS = 10_000  # of FLiPExtractor, see its validation_fraction
SYNTHETIC_ROWS, SYNTHETIC_DEV_ROWS, SYNTHETIC_WORDS_PER_ROW = 20_000, 2_000, 10

# Scores (rows, V) of the dev rows of a slice.
ScoreRows = Callable[[slice], torch.Tensor]


PROBE_ROWS = 500  # rows of the products that measure the machine


@dataclass(frozen=True)
class Data:
    """Embeddings and word counts of the training and dev rows."""

    name: str
    X: np.ndarray  # (n, d)
    Y: sp.csr_array  # (n, V)
    X_dev: np.ndarray
    Y_dev: sp.csr_array


@dataclass(frozen=True)
class Reading:
    """Dev accuracy after so many passes and seconds of training."""

    passes: float
    seconds: float
    accuracy: float
    standard_error: float


@dataclass(frozen=True)
class ProductRate:
    """GFLOP/s of a matrix product, repeated: far apart where other work holds the cores."""

    median: float
    best: float


@dataclass(frozen=True)
class OurRun:
    """Curve and results of FLiPExtractor."""

    curve: list[Reading]
    final: RowMean
    without_bias: RowMean
    seconds: float  # of the whole fit
    preparation_seconds: float  # before the first pass
    pass_seconds: float  # median
    trained_rows: int  # per pass: those not held out
    best_pass: int
    passes: int


@dataclass(frozen=True)
class RecipeRun:
    """Curve and result of the published recipe."""

    curve: list[Reading]
    final: RowMean
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Seconds of both to one target accuracy; None where it was not reached."""

    target: float
    ours: float | None
    recipe: float | None
    ratio: float | None  # recipe / ours
    bound: str  # "=", or "<" / ">" where one of them stopped short of the target, or ""
    at_least: float | None  # the ratio whatever happened between the recipe's readings


# --------------------------------------------------------------------------------------- data


def load_captions(folder: Path, rows: int | None) -> Data:
    """Read captions and embeddings; the vocabulary is that of the training rows used."""
    X, texts = _read_part(folder, "train")
    X_dev, dev_texts = _read_part(folder, "dev")
    X, texts = X[:rows], texts[:rows]
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    Y = sp.csr_array(vectorizer.fit_transform(texts))
    return Data("captions", X, Y, X_dev, sp.csr_array(vectorizer.transform(dev_texts)))


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, list[str]]:
    X = np.load(folder / f"captions.{part}.en.npy")
    with gzip.open(folder / f"captions.{part}.en.txt.gz", "rt", encoding="utf-8") as lines:
        texts = [line.rstrip("\n") for line in lines]
    if len(texts) != len(X):
        raise ValueError(f"captions.{part}.en has {len(texts)} texts and {len(X)} embeddings.")
    return X, texts


def make_synthetic(n: int, n_words: int, d: int, seed: int) -> Data:
    """Zipf counts, and embeddings linear in them: anisotropic and off-centre, as real ones are."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / (np.arange(n_words) + 10.0)
    frequency /= frequency.sum()
    total = n + SYNTHETIC_DEV_ROWS
    lengths = 1 + rng.poisson(SYNTHETIC_WORDS_PER_ROW - 1, size=total)
    columns = rng.choice(n_words, size=lengths.sum(), p=frequency)
    rows = np.repeat(np.arange(total), lengths)
    Y = sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(total, n_words))
    scale = np.arange(1, d + 1) ** -0.25
    words = rng.normal(size=(n_words, d)) * scale
    rare_first = np.sqrt(frequency.max() / frequency).clip(max=4.0)
    X = np.asarray(Y @ (words * rare_first[:, None]))
    X += rng.normal(size=X.shape) * scale + 2.0 * scale * rng.normal(size=d)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X = X.astype(np.float32)
    seen = np.flatnonzero(Y[:n].sum(axis=0) > 0)
    Y = sp.csr_array(Y[:, seen])
    return Data("synthetic", X[:n], Y[:n], X[n:], Y[n:])


# --------------------------------------------------------------------------------- measuring


def dev_accuracy(score_rows: ScoreRows, Y: sp.csr_array) -> RowMean:
    """Keyword accuracy from the scores of a few rows at a time: both solvers are judged here."""
    n, n_words = Y.shape
    widest = min(n_words, max(1, int(np.diff(Y.indptr).max(initial=0))))
    top = np.empty((n, widest), dtype=np.int64)
    for first in range(0, n, EVALUATION_ROWS):
        part = slice(first, min(first + EVALUATION_ROWS, n))
        best = score_rows(part).topk(widest, dim=1)
        if not bool(torch.isfinite(best.values).all()):  # topk ranks NaN above all numbers
            raise FloatingPointError("scores are not finite: the training has diverged.")
        top[part] = best.indices.cpu().numpy()
    return keyword_accuracy(Y, top)


def reading(passes: float, seconds: float, result: RowMean) -> Reading:
    """One point of a curve."""
    return Reading(passes, seconds, result.value, result.standard_error)


class Stopwatch:
    """Seconds of training; stands still while paused."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sum = 0.0
        self._since: float | None = None
        self.start()

    def start(self) -> None:
        """Run from now on."""
        self._synchronize()
        self._since = time.perf_counter()

    def pause(self) -> float:
        """Stand still; the seconds so far."""
        self._sum, self._since = self.seconds(), None
        return self._sum

    def seconds(self) -> float:
        """Give the seconds so far."""
        self._synchronize()
        return self._sum + (0.0 if self._since is None else time.perf_counter() - self._since)

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def product_rate(m: int, r: int, n_words: int, device: torch.device) -> ProductRate:
    """Rate of (m, r) @ (r, V) products in float32, measured over about a second."""
    a = torch.randn(m, r, device=device)
    b = torch.randn(n_words, r, device=device).T
    out = torch.empty(m, n_words, device=device)
    seconds: list[float] = []
    for _ in range(3):  # fresh pages, thread pool
        torch.mm(a, b, out=out)
    while len(seconds) < 5 or sum(seconds) < 1.0:
        watch = Stopwatch(device)
        torch.mm(a, b, out=out)
        seconds.append(watch.pause())
    giga = 2e-9 * m * r * n_words
    return ProductRate(giga / float(np.median(seconds)), giga / min(seconds))


# -------------------------------------------------------------------------------------- ours


class PassReader:
    """A scikit-learn callback that reads the dev accuracy after every pass.

    Seconds are those the estimator reports for its passes after the preparation measured here, so
    neither this reading nor the making of the fitted copy that it reads counts.
    """

    def __init__(self, data: Data) -> None:
        self.curve: list[Reading] = []
        self.preparation_seconds = math.nan
        self.last_hook_ended = math.nan
        self.off_the_clock = 0.0  # seconds of readings within the first pass
        self._data = data
        self._fit_called = time.perf_counter()

    def reading_one_pass(self, run: Run, rows: WhitenedRows, *rest: Any) -> float:
        """Stand in for the solver's pass: the first one is read after every tenth of its rows, too."""
        *between, after_step, checkpoint = rest
        began, due = time.perf_counter(), len(rows.rows) / READINGS_IN_FIRST_PASS

        def read(done: int) -> None:
            nonlocal due
            if done < due or done == len(rows.rows):
                return
            stopped = time.perf_counter()
            due = done + len(rows.rows) / READINGS_IN_FIRST_PASS
            so_far = copy.deepcopy(run.optimizer)  # reading must not change what is trained
            so_far.settle()
            A, B, b = so_far.averaged()
            mapped = rows.Q if B is None else rows.Q @ B.T

            def scores(part: slice) -> torch.Tensor:
                x = torch.from_numpy(self._data.X_dev[part]).to(b.device, b.dtype)
                return (x - rows.mean) @ mapped @ A.T + b

            result = dev_accuracy(scores, self._data.Y_dev)
            seconds = self.preparation_seconds + stopped - began - self.off_the_clock
            self.curve.append(reading(done / len(rows.rows), seconds, result))
            self.off_the_clock += time.perf_counter() - stopped

        first = not run.history
        return one_pass(run, rows, *between, read if first else after_step, checkpoint)

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing to set up."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing to tear down."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Take the time: the first pass begins where the preparation ends."""
        if context.parent is not None and math.isnan(self.preparation_seconds):
            self.preparation_seconds = time.perf_counter() - self._fit_called

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> bool:
        """Read the accuracy of the parameters as of now; never asks to stop."""
        if context.parent is not None:
            history = fitted_estimator.history_["seconds"]
            result = dev_accuracy(our_scores(fitted_estimator, self._data), self._data.Y_dev)
            seconds = self.preparation_seconds + sum(history) - self.off_the_clock
            self.curve.append(reading(len(history), seconds, result))
        self.last_hook_ended = time.perf_counter()
        return False


def our_scores(fitted: FLiPExtractor, data: Data) -> ScoreRows:
    """Scores of dev rows by a fitted extractor."""
    return lambda rows: torch.from_numpy(fitted.decision_function(data.X_dev[rows]))


def fit_ours(flip: FLiPExtractor, data: Data) -> OurRun:
    """Fit with default settings, reading the dev accuracy after every pass."""
    reader = PassReader(data)
    flip.set_callbacks(reader)
    with mock.patch.object(solver, "one_pass", reader.reading_one_pass):
        flip.fit(data.X, data.Y)
    closing = time.perf_counter() - reader.last_hook_ended
    history = flip.history_
    held_out = 0
    if not math.isnan(history["validation_accuracy"][0]):
        with_words = np.count_nonzero(np.diff(data.Y.indptr))
        held_out = min(math.ceil(flip.validation_fraction * with_words), MAX_HELD_OUT_ROWS)
    lift = copy.copy(flip).set_params(use_bias=False)
    return OurRun(
        curve=reader.curve,
        final=dev_accuracy(our_scores(flip, data), data.Y_dev),
        without_bias=dev_accuracy(our_scores(lift, data), data.Y_dev),
        seconds=reader.preparation_seconds
        + sum(history["seconds"])
        + closing
        - reader.off_the_clock,
        preparation_seconds=reader.preparation_seconds,
        pass_seconds=float(np.median(history["seconds"])),
        trained_rows=len(data.X) - held_out,
        best_pass=flip.best_iter_,
        passes=flip.n_iter_,
    )


# ------------------------------------------------------------------------- published recipe


class PublishedRecipe(torch.nn.Module):
    """z = b + A (B x) on raw embeddings."""

    def __init__(
        self, d: int, rank: int, n_words: int, init: float | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.B = torch.nn.Parameter(torch.empty(rank, d))
        self.A = torch.nn.Parameter(torch.empty(n_words, rank))
        self.b = torch.nn.Parameter(torch.zeros(n_words))
        for weight in (self.B, self.A):
            if init is None:  # as torch.nn.Linear
                torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            else:
                torch.nn.init.normal_(weight, std=init, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (m, V) of embeddings (m, d)."""
        return torch.nn.functional.linear(x @ self.B.T, self.A, self.b)


def recipe_step(
    model: PublishedRecipe, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    """One AdamW step on the mean negative log-likelihood per word of a batch."""
    optimizer.zero_grad()
    loss = -(y * torch.log_softmax(model(x), dim=1)).sum() / y.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def recipe_scores(model: PublishedRecipe, data: Data, device: torch.device) -> ScoreRows:
    """Scores of dev rows by the model as of now."""

    def score(rows: slice) -> torch.Tensor:
        with torch.inference_mode():
            x = torch.from_numpy(data.X_dev[rows]).to(device, torch.float32)
            return model.forward(x)

    return score


def train_recipe(
    data: Data,
    rank: int,
    *,
    batch_size: int,
    init: float | None,
    budget: float,
    eval_every: float,
    stop_at: float,
    device: torch.device,
    quiet: bool,
) -> RecipeRun:
    """Train until the budget is used or the dev accuracy reaches ``stop_at``."""
    watch = Stopwatch(device)
    generator = torch.Generator().manual_seed(0)
    n, n_words = data.Y.shape
    X = torch.from_numpy(data.X).to(device, torch.float32)
    model = PublishedRecipe(X.shape[1], rank, n_words, init, generator).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE_LEARNING_RATE)
    curve: list[Reading] = []
    steps, steps_a_pass = 0, math.ceil(n / batch_size)
    order = torch.empty(0, dtype=torch.int64)
    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
    with tqdm(total=budget, desc="recipe", bar_format=layout, disable=quiet) as bar:
        while True:
            at = steps % steps_a_pass
            if at == 0:
                order = torch.randperm(n, generator=generator)
            rows = order[at * batch_size : (at + 1) * batch_size]
            y = torch.from_numpy(data.Y[rows.numpy()].toarray()).to(device)
            recipe_step(model, optimizer, X[rows.to(device)], y)
            steps += 1
            seconds = watch.seconds()
            bar.update(min(seconds, budget) - bar.n)
            out_of_time = seconds >= budget
            due = seconds - (curve[-1].seconds if curve else 0.0) >= eval_every
            if not (out_of_time or (due and steps % steps_a_pass == 0)):
                continue
            seconds = watch.pause()
            result = dev_accuracy(recipe_scores(model, data, device), data.Y_dev)
            curve.append(reading(steps / steps_a_pass, seconds, result))
            bar.set_postfix_str(f"dev accuracy {result.value:.3f}")
            if out_of_time or result.value >= stop_at:
                return RecipeRun(curve, result, seconds)
            watch.start()


# --------------------------------------------------------------------------------- comparing


def seconds_to(curve: Sequence[Reading], target: float) -> tuple[float | None, float]:
    """Seconds of the first reading at or above the target, and of the last one before it."""
    before = 0.0
    for point in curve:
        if point.accuracy >= target:
            return point.seconds, before
        before = point.seconds
    return None, before


def compare(ours: Sequence[Reading], recipe: Sequence[Reading], target: float) -> Comparison:
    """Seconds of both to a target and their ratio, or the bound on it that is known."""
    our_seconds, our_last = seconds_to(ours, target)
    recipe_seconds, recipe_last = seconds_to(recipe, target)
    if our_seconds is None:
        if recipe_seconds is None:
            return Comparison(target, None, None, None, "", None)
        return Comparison(target, None, recipe_seconds, recipe_seconds / our_last, "<", None)
    at_least = recipe_last / our_seconds
    if recipe_seconds is None:
        return Comparison(target, our_seconds, None, at_least, ">", at_least)
    return Comparison(
        target, our_seconds, recipe_seconds, recipe_seconds / our_seconds, "=", at_least
    )


def paired_difference(a: RowMean, b: RowMean) -> tuple[float, float]:
    """Mean of a - b over the dev rows, and its standard error."""
    difference = (a.per_row - b.per_row)[~np.isnan(a.per_row)]
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


# ---------------------------------------------------------------------------------- printing


def processor_name() -> str:
    """Name the CPU model as the system does."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def describe_setting(
    data: Data, rank: int, batch: int | str, args: argparse.Namespace
) -> dict[str, Any]:
    """Gather what the figures depend on."""
    compute = resolve_compute(args.device, args.precision)
    on_cuda = compute.device.type == "cuda"
    return {
        "cpu": processor_name(),
        "device": torch.cuda.get_device_name(compute.device) if on_cuda else "cpu",
        "torch_threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "sklearn": sklearn.__version__,
        },
        "data": data.name,
        "n": len(data.X),
        "n_dev": len(data.X_dev),
        "V": data.Y.shape[1],
        "d": data.X.shape[1],
        "rank": rank,
        "our_batch": batch,
        "recipe_batch": args.baseline_batch,
        "our_products": str(compute.product_dtype).removeprefix("torch."),
        "recipe_products": "float32",
        "recipe_init": "nn.Linear" if args.baseline_init is None else args.baseline_init,
        "budget": args.budget,
    }


def print_setting(setting: dict[str, Any]) -> None:
    """Print the header."""
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    print(f"{setting['cpu']}, device {setting['device']}, {setting['torch_threads']} torch threads")
    print(versions)
    print(
        f"{setting['data']}: n = {setting['n']:,}, V = {setting['V']:,}, d = {setting['d']}, "
        f"{setting['n_dev']:,} dev rows; rank {setting['rank']}"
    )
    print(
        f"ours: batch {setting['our_batch']}, products in {setting['our_products']}; recipe: batch "
        f"{setting['recipe_batch']}, products in {setting['recipe_products']}, start "
        f"{setting['recipe_init']}",
        flush=True,
    )


def print_cost(ours: OurRun, rates: Sequence[ProductRate], floor: float) -> None:
    """Print matrix-product rates and what a pass costs beside its three products."""
    measured = " / ".join(f"{rate.median:.0f} (best {rate.best:.0f})" for rate in rates)
    print(f"\nfloat32 products of {PROBE_ROWS} rows, GFLOP/s before / between / after: {measured}")
    print(
        f"ours: {ours.preparation_seconds:.2f} s of preparation; {ours.pass_seconds:.2f} s a pass "
        f"over {ours.trained_rows:,} rows, held-out scoring included\n"
        f"      = {ours.pass_seconds / floor:.2f} x the floor 6 n V r / rate of {floor:.2f} s"
    )


def print_curves(ours: Sequence[Reading], recipe: Sequence[Reading]) -> None:
    """Print every reading of both."""
    for name, curve in (("ours", ours), ("recipe", recipe)):
        print(f"\n{name}: passes, seconds, dev accuracy")
        for point in curve:
            print(f"{point.passes:8.2f} {point.seconds:8.1f}   {point.accuracy:.4f}")


def print_targets(
    comparisons: Sequence[Comparison], best: float, our_end: float, recipe_end: float
) -> None:
    """Print the table of targets; the last one is the best accuracy of the recipe."""

    def cell(seconds: float | None, end: float) -> str:
        return f"not in {end:.0f} s" if seconds is None else f"{seconds:.1f}"

    def factor(ratio: float | None, bound: str) -> str:
        return "-" if not ratio else f"{'' if bound == '=' else bound + ' '}{ratio:.1f}"

    print(f"\n{'target':<22}{'ours s':>14}{'recipe s':>14}{'ratio':>9}{'at least':>10}")
    for row in comparisons:
        label = f"{row.target:.4g}" + (" (recipe's best)" if row.target == best else "")
        print(
            f"{label:<22}{cell(row.ours, our_end):>14}{cell(row.recipe, recipe_end):>14}"
            f"{factor(row.ratio, row.bound):>9}{factor(row.at_least, '='):>10}"
        )


def print_finals(ours: OurRun, recipe: RecipeRun) -> None:
    """Print what each ends with."""

    def line(name: str, result: RowMean, note: str) -> None:
        print(f"{name:<22}{result.value:.4f} +- {result.standard_error:.4f}   {note}")

    passes = f"pass {ours.best_pass} of {ours.passes} kept, {ours.seconds:.1f} s"
    print("\nfinal dev accuracy")
    line("ours", ours.final, passes)
    line("ours, use_bias=False", ours.without_bias, "the same fit")
    line("recipe", recipe.final, f"{recipe.curve[-1].passes:.1f} passes, {recipe.seconds:.1f} s")
    mean, error = paired_difference(ours.final, recipe.final)
    print(f"{'ours - recipe':<22}{mean:+.4f} +- {error:.4f}   paired over rows")


# ------------------------------------------------------------------------------ command line


def positive_int(text: str) -> int:
    """Parse a whole number >= 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 1")
    return value


def positive_float(text: str) -> float:
    """Parse a number > 0."""
    value = float(text)
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text} is not a number > 0")
    return value


def share(text: str) -> float:
    """Parse an accuracy in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not an accuracy in (0, 1]")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_fit",
        description="Seconds to reach given dev keyword accuracies: FLiPExtractor against the "
        "published training recipe, in one run on one machine.",
    )
    source = parser.add_argument_group("data")
    source.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="DIR",
        help="folder with captions.{train,dev}.en.{txt.gz,npy} (default: shared/data beside the "
        "repository)",
    )
    source.add_argument(
        "--synthetic",
        action="store_true",
        help="use planted Zipf counts with linear embeddings; needs no files",
    )
    source.add_argument(
        "--rows",
        type=positive_int,
        metavar="N",
        help=f"first N training rows (default: all; {SYNTHETIC_ROWS:,} with --synthetic)",
    )
    source.add_argument(
        "--words",
        type=positive_int,
        default=5000,
        metavar="V",
        help="vocabulary of --synthetic (default: %(default)s)",
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
        help="standard deviation of the recipe's normal start of A and B (default: the uniform "
        "start of torch.nn.Linear)",
    )
    training.add_argument(
        "--budget",
        type=positive_float,
        default=300.0,
        metavar="SECONDS",
        help="training time of the recipe, unless it reaches all targets before (default: "
        "%(default)g)",
    )
    training.add_argument(
        "--eval-every",
        type=positive_float,
        default=10.0,
        metavar="SECONDS",
        help="training time between dev readings of the recipe, at ends of passes (default: "
        "%(default)g)",
    )
    training.add_argument(
        "--device", default="auto", help="of both: auto, cpu, cuda, ... (default: %(default)s)"
    )
    training.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="of ours; the recipe is float32 (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--targets",
        type=share,
        nargs="+",
        default=list(DEFAULT_TARGETS),
        metavar="ACCURACY",
        help="dev keyword accuracies to time (default: "
        f"{' '.join(map(str, DEFAULT_TARGETS))}); the best one that the recipe reached is added",
    )
    output.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all figures and both curves to FILE"
    )
    output.add_argument("--quiet", action="store_true", help="no progress bars on stderr")
    return parser


def load(args: argparse.Namespace) -> Data:
    """Load the data that the command line asks for."""
    if args.synthetic:
        return make_synthetic(args.rows or SYNTHETIC_ROWS, args.words, args.dims, seed=0)
    return load_captions(args.data, args.rows)


def warm_up(data: Data, args: argparse.Namespace) -> None:
    """Pay what a process pays once: threads, modules imported at first use, device start."""
    few = min(100, len(data.X))
    flip = FLiPExtractor(rank=1, max_iter=1, device=args.device, precision=args.precision)
    flip.fit(data.X[:few], data.Y[:few])
    train_recipe(
        Data("warm-up", data.X[:few], data.Y[:few], data.X_dev[:few], data.Y_dev[:few]),
        rank=1,
        batch_size=few,
        init=None,
        budget=1e-9,
        eval_every=1.0,
        stop_at=1.0,
        device=resolve_compute(args.device, args.precision).device,
        quiet=True,
    )


def write_json(
    path: Path,
    setting: dict[str, Any],
    rates: Sequence[ProductRate],
    floor: float,
    ours: OurRun,
    recipe: RecipeRun,
    comparisons: Sequence[Comparison],
) -> None:
    """Write all figures; accuracies of single rows are left out."""

    def figures(run: OurRun | RecipeRun) -> dict[str, Any]:
        result = asdict(run)
        for value in result.values():
            if isinstance(value, dict):
                value.pop("per_row", None)
        return result

    content = {
        "setting": setting,
        "product_gflops": [asdict(rate) for rate in rates],
        "pass_floor_seconds": floor,
        "ours": figures(ours),
        "recipe": figures(recipe),
        "targets": [asdict(row) for row in comparisons],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print the figures."""
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
        parser.error(f"--rank {rank} is more than the {d} dimensions of the embeddings.")
    flip = FLiPExtractor(
        rank=rank,
        random_state=0,
        device=args.device,
        precision=args.precision,
        verbose=0 if args.quiet else 1,
    )
    device = resolve_compute(args.device, args.precision).device
    setting = describe_setting(data, rank, flip.batch_size, args)
    print_setting(setting)

    def rate() -> ProductRate:
        return product_rate(PROBE_ROWS, rank, n_words, device)

    warm_up(data, args)
    rates = [rate()]
    ours = fit_ours(flip, data)
    rates.append(rate())
    recipe = train_recipe(
        data,
        rank,
        batch_size=args.baseline_batch,
        init=args.baseline_init,
        budget=args.budget,
        eval_every=args.eval_every,
        stop_at=max(args.targets),
        device=device,
        quiet=args.quiet,
    )
    rates.append(rate())

    # Our fit ran between the first two measurements.
    gflops = (rates[0].median + rates[1].median) / 2
    floor = 6e-9 * ours.trained_rows * n_words * rank / gflops
    best = max(point.accuracy for point in recipe.curve)
    targets = [*sorted(set(args.targets)), best]
    comparisons = [compare(ours.curve, recipe.curve, target) for target in targets]
    print_cost(ours, rates, floor)
    print_curves(ours.curve, recipe.curve)
    print_targets(comparisons, best, ours.curve[-1].seconds, recipe.seconds)
    print_finals(ours, recipe)
    if args.json:
        write_json(args.json, setting, rates, floor, ours, recipe, comparisons)


if __name__ == "__main__":
    main()

"""Results of the two fits of ``bench_fit``: comparison, printed tables, JSON."""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from benchmarks.data import Data
from benchmarks.measuring import ProductRate, Reading, processor_name
from benchmarks.published_recipe import RecipeRun
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.metrics import RowMean

PROBE_ROWS = 500  # rows of the products that measure the speed of the machine


@dataclass(frozen=True)
class OurRun:
    """Curve and results of FLiPExtractor."""

    curve: list[Reading]
    final: RowMean
    without_bias: RowMean
    seconds: float  # of the whole fit
    preparation_seconds: float  # before the first pass
    pass_seconds: float  # median
    trained_rows: int  # per pass, without held-out rows
    best_pass: int
    passes: int


@dataclass(frozen=True)
class Comparison:
    """Seconds to one target accuracy; None if it was not reached."""

    target: float
    ours: float | None
    recipe: float | None
    ratio: float | None  # recipe / ours
    bound: str  # "="; "<" or ">" if one of the two did not reach the target; "" if neither did
    at_least: float | None  # lower bound on the ratio, given the times of the readings


@dataclass(frozen=True)
class Results:
    """Everything that is printed and written."""

    setting: dict[str, Any]
    ours: OurRun
    recipe: RecipeRun
    rates: Sequence[ProductRate]  # before, between and after the two fits
    floor: float  # seconds of the matrix products of one of our passes
    comparisons: Sequence[Comparison]


def seconds_to(curve: Sequence[Reading], target: float) -> tuple[float | None, float]:
    """Return the seconds of the first reading at or above the target, and of the one before."""
    before = 0.0
    for point in curve:
        if point.accuracy >= target:
            return point.seconds, before
        before = point.seconds
    return None, before


def compare(ours: Sequence[Reading], recipe: Sequence[Reading], target: float) -> Comparison:
    """Return the seconds to a target and their ratio, or a bound on the ratio."""
    our_seconds, our_previous = seconds_to(ours, target)
    recipe_seconds, recipe_previous = seconds_to(recipe, target)
    if our_seconds is None:
        if recipe_seconds is None:
            return Comparison(target, None, None, None, "", None)
        return Comparison(target, None, recipe_seconds, recipe_seconds / our_previous, "<", None)
    at_least = recipe_previous / our_seconds
    if recipe_seconds is None:
        return Comparison(target, our_seconds, None, at_least, ">", at_least)
    return Comparison(target, our_seconds, recipe_seconds, recipe_seconds / our_seconds, "=", at_least)


def paired_difference(a: RowMean, b: RowMean) -> tuple[float, float]:
    """Return the mean of a - b over the dev rows, and its standard error."""
    difference = (a.per_row - b.per_row)[~np.isnan(a.per_row)]
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def describe_setting(data: Data, rank: int, batch: int | str, args: argparse.Namespace) -> dict[str, Any]:
    """Return everything that the figures depend on."""
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
    """Print matrix-product rates, and the cost of a pass relative to its three products."""
    measured = " / ".join(f"{rate.median:.0f} (best {rate.best:.0f})" for rate in rates)
    print(f"\nfloat32 products of {PROBE_ROWS} rows, GFLOP/s before / between / after: {measured}")
    print(
        f"ours: {ours.preparation_seconds:.2f} s of preparation; {ours.pass_seconds:.2f} s per pass "
        f"over {ours.trained_rows:,} rows, including held-out scoring\n"
        f"      = {ours.pass_seconds / floor:.2f} x the floor 6 n V r / rate of {floor:.2f} s"
    )


def print_curves(ours: Sequence[Reading], recipe: Sequence[Reading]) -> None:
    """Print every reading."""
    for name, curve in (("ours", ours), ("recipe", recipe)):
        print(f"\n{name}: passes, seconds, dev accuracy")
        for point in curve:
            print(f"{point.passes:8.2f} {point.seconds:8.1f}   {point.accuracy:.4f}")


def print_targets(comparisons: Sequence[Comparison], best: float, our_end: float, recipe_end: float) -> None:
    """Print the table of targets; the last target is the best accuracy of the recipe."""

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
    """Print the final accuracies."""

    def line(name: str, result: RowMean, note: str) -> None:
        print(f"{name:<22}{result.value:.4f} +- {result.standard_error:.4f}   {note}")

    passes = f"pass {ours.best_pass} of {ours.passes} kept, {ours.seconds:.1f} s"
    print("\nfinal dev accuracy")
    line("ours", ours.final, passes)
    line("ours, use_bias=False", ours.without_bias, "the same fit")
    line("recipe", recipe.final, f"{recipe.curve[-1].passes:.1f} passes, {recipe.seconds:.1f} s")
    mean, error = paired_difference(ours.final, recipe.final)
    print(f"{'ours - recipe':<22}{mean:+.4f} +- {error:.4f}   paired over rows")


def print_results(results: Results) -> None:
    """Print all tables."""
    ours, recipe = results.ours, results.recipe
    print_cost(ours, results.rates, results.floor)
    print_curves(ours.curve, recipe.curve)
    best = results.comparisons[-1].target
    print_targets(results.comparisons, best, ours.curve[-1].seconds, recipe.seconds)
    print_finals(ours, recipe)


def write_json(path: Path, results: Results) -> None:
    """Write all figures except the accuracies of single rows."""

    def figures(run: OurRun | RecipeRun) -> dict[str, Any]:
        values = asdict(run)
        for value in values.values():
            if isinstance(value, dict):
                value.pop("per_row", None)
        return values

    content = {
        "setting": results.setting,
        "product_gflops": [asdict(rate) for rate in results.rates],
        "pass_floor_seconds": results.floor,
        "ours": figures(results.ours),
        "recipe": figures(results.recipe),
        "targets": [asdict(row) for row in results.comparisons],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

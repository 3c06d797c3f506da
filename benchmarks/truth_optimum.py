"""How far fits are from the optimum of J, by solver and pass, and what the optimum reads.

Run from the root of the repository:

    python -m benchmarks.truth_optimum                  # captions in ../shared/data, ten minutes on two cores
    python -m benchmarks.truth_optimum --large-only --rows 50000    # all captions: half an hour

The gap is J / J* - 1 with J* from ``solver="lbfgs"`` at a KKT residual of 1e-6 in float64. J is convex for
LiP, and a residual of zero is sufficient for its minimum. J and the residual are computed here from public
functions: ``predict_log_proba``, ``kkt_residual`` and the fitted attributes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, load_captions, positive_int, read_captions
from flip_sklearn import FLiPExtractor, kkt_residual

PASSES = (5, 10, 20, 50, 100, 200)
SMALL_ROWS, SMALL_WORDS, SMALL_L2 = 3000, 500, (20.0, 1.0)
BLOCK_ROWS = 2000


def objective(flip: FLiPExtractor, X: np.ndarray, Y: sp.csr_array) -> float:
    """J of a fitted LiP model, by its definition."""
    log_likelihood = 0.0
    for first in range(0, len(X), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        log_likelihood += float(Y[rows].multiply(flip.predict_log_proba(X[rows])).sum())
    A = flip.word_embeddings_.astype(np.float64)
    penalty = (
        flip.l1_strength / len(A) * np.abs(A).sum() + flip.l2_strength / 2 / Y.sum() * np.square(A).sum()
    )
    return float(-log_likelihood / Y.sum() + penalty)


def fit(X: np.ndarray, Y: sp.csr_array, **settings: Any) -> tuple[FLiPExtractor, float]:
    """A LiP model on all rows, and the CPU seconds of its fit."""
    words = [f"word {j}" for j in range(Y.shape[1])]
    defaults = {"rank": None, "early_stopping": False, "random_state": 0, "vocabulary": words}
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        flip = FLiPExtractor(**{**defaults, **settings}).fit(X, Y)
    return flip, time.process_time() - began


def stochastic(passes: int) -> dict[str, Any]:
    """Settings for exactly this many passes."""
    return {"solver": "exact", "max_iter": passes, "tol": 0.0, "n_iter_no_change": 10**6}


def small_problem(folder: Path) -> tuple[np.ndarray, sp.csr_array]:
    """The first captions with their most frequent words."""
    X, texts = read_captions(folder, "train")
    Y = CountVectorizer(max_features=SMALL_WORDS).fit_transform(texts[:SMALL_ROWS])
    return X[:SMALL_ROWS].astype(np.float64), sp.csr_array(Y)


def print_small(folder: Path) -> None:
    """Gap and residual by pass on a problem that float64 solves in a minute."""
    X, Y = small_problem(folder)
    for l2 in SMALL_L2:
        shared = {"l1_strength": 0.0, "l2_strength": l2, "precision": "float64"}
        best, seconds = fit(X, Y, solver="lbfgs", tol=1e-6, **shared)
        J = objective(best, X, Y)
        print(
            f"\n{len(X)} captions, V = {Y.shape[1]}, d = {X.shape[1]}, l1 = 0, l2 = {l2:g}, float64: ", end=""
        )
        print(f"J* = {J:.7f}, KKT residual {best.kkt_residual_:.0e} after {best.n_iter_} iterations")
        print("| solver | passes or iterations | CPU s | gap | KKT residual |\n|---|---|---|---|---|")
        for name, settings in (
            ("exact", stochastic),
            ("lbfgs", lambda n: {"solver": "lbfgs", "max_iter": n, "tol": 0.0}),
            (
                "lbfgs, float32",
                lambda n: {"solver": "lbfgs", "max_iter": n, "tol": 0.0, "precision": "float32"},
            ),
        ):
            for passes in PASSES:
                flip, seconds = fit(X, Y, **{**shared, **settings(passes)})
                gap, residual = objective(flip, X, Y) / J - 1, kkt_residual(flip, X, Y)
                print(f"| {name} | {flip.n_iter_} | {seconds:.1f} | {gap:.1e} | {residual:.1e} |", flush=True)


def print_large(folder: Path, rows: int, iterations: int) -> None:
    """J by iteration with the default penalties; accuracy of a fit that stops early, and of the last."""
    data = load_captions(folder, rows)
    X = data.X.astype(np.float32)
    print(f"\n{len(X)} captions, V = {data.Y.shape[1]}, LiP, default penalties, float32")
    early, early_seconds = fit(X, data.Y, early_stopping=True)
    flip, seconds = fit(X, data.Y, solver="lbfgs", max_iter=iterations, tol=1e-3)
    losses = np.array(flip.history_["loss"])
    print("| iterations | J | gap to the last |\n|---|---|---|")
    shown = [i for i in (5, 10, 20, 30, 40, 50, 75, 100, 150, 200) if i < len(losses)]
    for i in [*shown, len(losses)]:
        print(f"| {i} | {losses[i - 1]:.5f} | {losses[i - 1] / losses[-1] - 1:.1e} |")
    print(f"KKT residual {flip.kkt_residual_:.1e}")
    print(f"\n{len(data.X_dev)} dev captions")
    print("| solver | CPU s | J | with bias | without |\n|---|---|---|---|---|")
    for name, model, cpu in (("default, stops early", early, early_seconds), ("lbfgs", flip, seconds)):
        scores = [model.score(data.X_dev, data.Y_dev, use_bias=use_bias) for use_bias in (True, False)]
        J = objective(model, X, data.Y)
        print(f"| {name} | {cpu:.0f} | {J:.5f} | {scores[0]:.3f} | {scores[1]:.3f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=10_000, help="captions of the second table")
    parser.add_argument("--iterations", type=positive_int, default=60, help="of L-BFGS in the second table")
    parser.add_argument("--large-only", action="store_true", help="only the second table")
    args = parser.parse_args()
    if not args.large_only:
        print_small(args.data)
    print_large(args.data, args.rows, args.iterations)


if __name__ == "__main__":
    main()

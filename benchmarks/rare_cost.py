"""CPU seconds of a pass with features of the words, and without, in alternating fits on synthetic data.

python -m benchmarks.rare_cost [--words 12000 100000 --rows 50000]

The median of the ratios of pairs is printed, since machines are shared. Features have the dimensions of the
embeddings.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import scipy.sparse as sp

from benchmarks.data import make_synthetic, positive_int
from flip_sklearn import FLiPExtractor

PAIRS, FEW, MANY, DIMENSIONS = 2, 1, 3, 384


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", nargs="*", type=positive_int, default=[12_000, 100_000])
    parser.add_argument("--rows", type=positive_int, default=50_000)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    print(
        "| words with counts | CPU s a pass | with features | ratio | one-pass fit |\n|---|---|---|---|---|"
    )
    for n_words in options.words:
        data = make_synthetic(options.rows, n_words, DIMENSIONS, 0, dev_rows=1)
        X, Y = data.X, data.Y
        # What words mean, blurred: features that the fit uses.
        E = np.asarray((Y.T @ X) / np.asarray(Y.sum(axis=0)).ravel()[:, None], dtype=np.float32)
        E += np.random.default_rng(0).normal(size=E.shape).astype(np.float32) * E.std()

        def pass_and_fit(
            features: np.ndarray | None, X: np.ndarray = X, Y: sp.csr_array = Y
        ) -> tuple[float, float]:
            """CPU seconds of one more pass, and of a fit of FEW passes."""
            few, many = (cpu_seconds(X, Y, features, n_passes) for n_passes in (FEW, MANY))
            return (many - few) / (MANY - FEW), few

        pairs = [(pass_and_fit(None), pass_and_fit(E)) for _ in range(PAIRS)]
        without, with_features = (min(pair[i][0] for pair in pairs) for i in (0, 1))
        ratio, whole = (statistics.median(b[i] / a[i] for a, b in pairs) for i in (0, 1))
        print(
            f"| {Y.shape[1]:,} | {without:.2f} | {with_features:.2f} | {ratio:.2f} | {whole:.2f} |",
            flush=True,
        )


def cpu_seconds(X: np.ndarray, Y: sp.csr_array, features: np.ndarray | None, n_passes: int) -> float:
    """CPU seconds of a fit of so many passes."""
    began = time.process_time()
    model = FLiPExtractor(
        vocabulary=[f"w{j}" for j in range(Y.shape[1])],
        word_features=features,
        max_iter=n_passes,
        tol=0.0,
        early_stopping=False,
        random_state=0,
        device="cpu",
    ).fit(X, Y)
    if features is not None and not hasattr(model, "word_map_"):
        raise RuntimeError("the features were not used")
    return time.process_time() - began


if __name__ == "__main__":
    main()

"""Predicted over observed totals of words, loss, and dev accuracy of default fits on captions.

python -m benchmarks.truth_totals [--rows 20000 --words 3000]

``before`` is the same fit without the refit of the bias and without the ranking offset. Seconds are CPU
seconds; set OMP_NUM_THREADS=1 to compare them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, positive_int, read_captions
from flip_sklearn import FLiPExtractor
from flip_sklearn.estimation import inputs
from flip_sklearn.metrics import perplexity

ROWS_AT_ONCE = 1000

Rows = tuple[np.ndarray, sp.csr_array]


def totals_and_loss(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array) -> tuple[np.ndarray, float]:
    """Sum of T_n theta_nj over the rows, (V,), and their negative log-likelihood per word."""
    lengths = np.asarray(Y.sum(axis=1))
    total, loss = np.zeros(Y.shape[1]), 0.0
    for first in range(0, len(X), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        log_theta = model.predict_log_proba(X[rows]).astype(float)
        loss -= float(Y[rows].multiply(log_theta).sum())
        total += lengths[rows] @ np.exp(log_theta)
    return total, loss / float(lengths.sum())


def describe(name: str, model: FLiPExtractor, data: Rows, dev: Rows) -> None:
    """Print one line for a model; ``data`` are the rows of its fit."""
    X, Y = data
    counts = np.asarray(Y.sum(axis=0))
    totals, loss = totals_and_loss(model, X, Y)
    ratio = totals / counts.clip(1)
    top = ratio[np.argsort(-counts)[:10]]
    low, high = np.quantile(ratio, [0.05, 0.95])
    worst = ratio[counts >= 10][np.abs(np.log(ratio[counts >= 10])).argmax()]
    dev_nll = np.log(float(perplexity(dev[1], model.predict_log_proba(dev[0]))))
    print(
        f"| {name} | {top.min():.2f} to {top.max():.2f} | {low:.2f} to {high:.2f} | {worst:.3f} | "
        f"{loss:.4f} | {dev_nll:.4f} | {model.score(*dev):.4f} | "
        f"{model.score(*dev, use_bias=False):.4f} |",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=positive_int, default=20_000)
    parser.add_argument("--words", type=positive_int, default=3_000)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    X, texts = read_captions(options.data, "train")
    X_dev, dev_texts = read_captions(options.data, "dev")
    X, texts = X[: options.rows], texts[: options.rows]
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32, max_features=options.words)
    Y = sp.csr_array(vectorizer.fit_transform(texts))
    dev = X_dev, sp.csr_array(vectorizer.transform(dev_texts))
    print(f"{len(X)} captions, {Y.shape[1]} words")
    print("| fit | ten most frequent | middle 90 % | worst (10 on) | loss | dev loss | accuracy | no bias |")
    print("|---|---|---|---|---|---|---|---|")
    seconds = {}
    for name in ("before", "default"):
        began = time.process_time()
        model = FLiPExtractor(random_state=0, vocabulary=vectorizer)
        if name == "before":
            model = without_refit(model, X, Y)
        else:
            model.fit(X, Y)
        seconds[name] = time.process_time() - began
        describe(name, model, (X, Y), dev)
    print(", ".join(f"{name}: {value:.1f} CPU seconds" for name, value in seconds.items()))


def without_refit(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array) -> FLiPExtractor:
    """Fit with the bias of the solver and no ranking offset."""
    resolve = inputs.resolve_options
    inputs.resolve_options = lambda *args, **kwargs: replace(resolve(*args, **kwargs), refit_bias=False)
    try:
        return model.fit(X, Y)
    finally:
        inputs.resolve_options = resolve


if __name__ == "__main__":
    main()

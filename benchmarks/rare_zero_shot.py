"""Captions: words held out of training and added by extend_vocabulary, beside SpLiCE with the same words.

python -m benchmarks.rare_zero_shot [--rows 50000 --words 500 --seed 0]

Words of 5 to 200 occurrences are left out of the vocabulary of the fit and added afterwards. Recall@10 is the
share of the pairs of a dev caption and an added word in it where the word is among the ten best of all words.
"random rows" exchanges the rows of the added words among them, "SpLiCE" has all words as concepts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.data import DEFAULT_DATA, positive_int
from benchmarks.rare_captions import Captions, load
from flip_sklearn import FLiPExtractor
from flip_sklearn.splice import SpLiCEExtractor

LOW, HIGH, TOP_K = 5, 200, 10


def recall(top: np.ndarray, wanted: sp.coo_array, first_new: int) -> str:
    """Recall of the added words with its standard error over captions, and how many each caption gets."""
    hits = (top[wanted.row] == (first_new + wanted.col)[:, None]).any(axis=1).astype(float)
    rows, row = np.unique(wanted.row, return_inverse=True)
    n_words = np.bincount(row)
    residual = np.bincount(row, hits) - hits.mean() * n_words
    error = np.sqrt(np.square(residual).sum()) / n_words.sum()
    n_new = (top[rows] >= first_new).sum(axis=1).mean()
    return f"{hits.mean():.3f} +- {error:.3f} | {n_new:.2f}"


def describe(name: str, model: FLiPExtractor, data: Captions, order: np.ndarray, n_known: int) -> None:
    """Print one line of a model with the added words as its last columns."""
    Y = data.Y_dev[:, order]
    wanted = Y[:, n_known:].tocoo()
    cells = []
    for use_bias in (False, True):
        cells.append(recall(model._top_words(data.X_dev, TOP_K, use_bias=use_bias), wanted, n_known))
        cells.append(f"{model.score(data.X_dev, Y, use_bias=use_bias):.4f}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def exchange_rows(model: FLiPExtractor, features: np.ndarray, words: list[str], seed: int) -> FLiPExtractor:
    """The model with the features of the added words exchanged among them."""
    order = np.random.default_rng(seed).permutation(len(words))
    extended: FLiPExtractor = model.extend_vocabulary(words, features[order])
    return extended


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=positive_int, default=50_000)
    parser.add_argument("--words", type=positive_int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    data = load(options.data, options.rows)
    candidates = np.flatnonzero((data.counts >= LOW) & (data.counts <= HIGH))
    rng = np.random.default_rng(options.seed)
    held = np.sort(rng.choice(candidates, options.words, replace=False))
    known = np.setdiff1d(np.arange(len(data.words)), held)
    order = np.concatenate([known, held])
    words = np.array(data.words, dtype=object)
    new, E = words[held].tolist(), data.features[held]
    n_pairs = data.Y_dev[:, held].nnz
    print(f"{len(data.X)} captions, {len(known)} words, {len(held)} added ones in {n_pairs} pairs")
    print("| model | recall@10, no bias | added | accuracy | recall@10, bias | added | accuracy |")
    print("|---|---|---|---|---|---|---|")
    settings: dict[str, Any] = {"vocabulary": words[known].tolist(), "random_state": options.seed}
    began = time.process_time()
    flip = FLiPExtractor(word_features=data.features[known], **settings).fit(data.X, data.Y[:, known])
    fit_seconds = time.process_time() - began
    describe("word_features", flip.extend_vocabulary(new, E), data, order, len(known))
    counts = data.counts[held]
    describe("word_features, true counts", flip.extend_vocabulary(new, E, counts), data, order, len(known))
    describe("random rows", exchange_rows(flip, E, new, options.seed), data, order, len(known))
    plain = FLiPExtractor(**settings).fit(data.X, data.Y[:, known])
    frame = _frame(data)
    describe("fitted without features", plain.extend_vocabulary(new, frame), data, order, len(known))
    splice = SpLiCEExtractor(data.features[order], vocabulary=words[order].tolist()).fit(data.X)
    weights = splice.transform(data.X_dev)
    top = np.full((len(data.X_dev), TOP_K), -1)
    for i in range(len(top)):
        row = slice(weights.indptr[i], weights.indptr[i + 1])
        best = np.argsort(-weights.data[row], kind="stable")[:TOP_K]
        top[i, : len(best)] = weights.indices[row][best]
    wanted = data.Y_dev[:, order][:, len(known) :].tocoo()
    print(f"| SpLiCE | {recall(top, wanted, len(known))} | | | | |")
    began = time.process_time()
    flip.extend_vocabulary(new, E)
    print(f"\nfit {fit_seconds:.0f} CPU s, extend_vocabulary {time.process_time() - began:.1f} CPU s")


def _frame(data: Captions) -> Any:
    import pandas as pd

    return pd.DataFrame(data.features, index=data.words)


if __name__ == "__main__":
    main()

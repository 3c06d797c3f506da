"""Captions: recall by training count, and of words held out of training, with intervals.

python -m benchmarks.rare_recall [--rows 50000 --seed 0 --picture docs/images/rare-words.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from matplotlib.figure import Figure

from benchmarks.data import DEFAULT_DATA, positive_int
from benchmarks.rare_captions import load
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import rare_word_recall, split_sentences
from flip_sklearn.plots import RareWordDisplay


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=positive_int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="file of the picture")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    data = load(options.data, options.rows)
    X, Y = np.concatenate([data.X, data.X_dev]), sp.vstack([data.Y, data.Y_dev], format="csr")
    result = rare_word_recall(
        FLiPExtractor(vocabulary=data.words, word_features=data.features),
        X,
        Y,
        split=split_sentences(X, test=np.arange(len(data.X), len(X))),
        random_state=options.seed,
    )
    print(
        f"{len(data.X)} captions, {len(data.words)} words, of which {len(result.held_out)} were held out; "
        f"{result.n_sentences} dev captions; the seed is {result.random_state}"
    )
    print("| bias | count in training | words | occurrences | no features | features | difference |")
    print("|---|---|---|---|---|---|---|")
    recall, difference = result.recall, result.difference
    for b, bias in enumerate(("with", "without")):
        for i, band in enumerate((*result.bands, "all")):
            shares = [
                f"{recall.value[b, f, i]:.3f} ({recall.low[b, f, i]:.3f} to {recall.high[b, f, i]:.3f})"
                for f in range(2)
            ]
            change = (
                f"{difference.value[b, i]:+.3f} ({difference.low[b, i]:+.3f} to {difference.high[b, i]:+.3f})"
            )
            counts = f"{result.band_words[i]} | {result.occurrences[i]}"
            print(f"| {bias} | {band} | {counts} | {' | '.join(shares)} | {change} |")
    if options.picture is not None:
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        for ax, use_bias in zip(figure.subplots(1, 2), (True, False), strict=True):
            title = f"{'with' if use_bias else 'without'} the bias"
            RareWordDisplay.from_result(result, ax=ax, use_bias=use_bias, name=title)
        figure.savefig(options.picture, dpi=72)


if __name__ == "__main__":
    main()

"""Diagnoses of captions in three languages, and accuracy against rank.

Run from the root of the repository, with the data folder that --data names:

    python -m benchmarks.bench_diagnostics views        # tables of docs/diagnostics.md
    python -m benchmarks.bench_diagnostics ranks        # accuracy against rank

``views`` prints the alignment of the English, German and French views, the preferences of the words of each
language, and two negative controls: one view under two names, and embeddings of other sentences.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, load_captions, positive_int, read_lines
from flip_sklearn.diagnostics import (
    SentenceSplit,
    rank_analysis,
    split_sentences,
    view_alignment,
    vocabulary_preference,
)

LANGUAGES = ("en", "de", "fr")
SETTINGS: dict[str, Any] = {"random_state": 0}


def load_parallel(
    folder: Path, rows: int | None
) -> tuple[dict[str, np.ndarray], dict[str, sp.csr_array], SentenceSplit]:
    """Return the embeddings and word counts of each language, and the split of the data set."""
    views, counts = {}, {}
    for language in LANGUAGES:
        X, texts = [], []
        for part, max_rows in (("train", rows), ("test", None)):
            X.append(np.load(folder / f"parallel.{part}.{language}.npy")[:max_rows])
            texts.append(read_lines(folder / f"parallel.{part}.{language}.txt.gz")[:max_rows])
        if [len(x) for x in X] != [len(t) for t in texts]:
            raise ValueError(f"{folder} has unequal numbers of texts and embeddings for {language!r}.")
        views[language] = np.concatenate(X)
        vectorizer = CountVectorizer(min_df=3).fit(texts[0])
        counts[language] = sp.csr_array(vectorizer.transform(texts[0] + texts[1]))
        n_train = len(texts[0])
    n = len(views["en"])
    return views, counts, split_sentences(views, test=np.arange(n_train, n))


def print_table(title: str, frame: Any) -> None:
    """Print a table as Markdown."""
    print(f"\n{title}\n")
    numbers = frame.select_dtypes("number").columns
    text = frame.assign(**{name: frame[name].map("{:.3f}".format) for name in numbers})
    print("| " + " | ".join(text.columns) + " |")
    print("|" + "---|" * len(text.columns))
    for row in text.itertuples(index=False):
        print("| " + " | ".join(map(str, row)) + " |")


def print_split(split: SentenceSplit) -> None:
    """Print the sizes of a split."""
    print(f"{len(split.train):,} training and {len(split.test):,} test sentences, {split.n_dropped} dropped")


def print_views(folder: Path, rows: int | None) -> None:
    """Print alignment, preferences and negative controls."""
    views, counts, split = load_parallel(folder, rows)
    print_split(split)
    for language, Y in counts.items():
        print(f"{language}: {Y.shape[1]:,} words")
    settings = SETTINGS | {"split": split}
    aligned = view_alignment(views, counts["en"], **settings)
    print_table("English words: models of each view on every view", aligned.to_frame())
    base = aligned.baseline
    print(f"\nmost frequent words: {base.value:.3f} ({base.low:.3f} to {base.high:.3f})")
    preference = vocabulary_preference(views, counts, **settings)
    print_table("Words of each language, from every view", preference.to_frame())
    twins = {"en": views["en"], "en again": views["en"].copy()}
    control = view_alignment(twins, counts["en"], **settings)
    print_table("Control: one view under two names", control.to_frame())
    order = np.random.default_rng(0).permutation(len(views["en"]))
    shuffled = view_alignment({k: X[order] for k, X in views.items()}, counts["en"], **settings)
    print_table("Control: embeddings of other sentences", shuffled.to_frame())


def print_ranks(folder: Path, rows: int | None) -> None:
    """Print accuracy against rank on captions."""
    data = load_captions(folder, rows)
    X = np.concatenate([data.X, data.X_dev])
    Y = sp.csr_array(sp.vstack([data.Y, data.Y_dev], format="csr"))
    split = split_sentences(X, test=np.arange(len(data.X), len(X)))
    print_split(split)
    result = rank_analysis(X, Y, split=split, **SETTINGS)
    print_table("Captions", result.to_frame())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("views", "ranks"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    parser.add_argument("--rows", type=positive_int, help="training rows (default: all)")
    args = parser.parse_args(arguments)
    if args.what == "views":
        print_views(args.data, args.rows)
    else:
        print_ranks(args.data, args.rows)


if __name__ == "__main__":
    main()

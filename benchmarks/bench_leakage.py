"""What readers find of erased words in captions, as Markdown tables.

    python -m benchmarks.bench_leakage                                        # the tables of docs/leakage.md
    python -m benchmarks.bench_leakage --rows 6000 --audit-rows 3000          # a quick test

The captions are captions.{train,dev}.en.{txt.gz,npy} in the folder --data. The last training captions are
audited: the area under the ROC curve of the model, of new linear readers and of neural networks, by
cross-validation. The model, and erasers of other captions, are fitted to the rest.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, Data, positive_int, read_captions
from flip_sklearn import FLiPExtractor, WordEraser
from flip_sklearn.diagnostics import Leakage, erase_words, leakage
from flip_sklearn.plots import LeakageDisplay

WORDS = ["man", "woman", "beach", "guitar", "dog"]


def cells(*values: str) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(values)} |", flush=True)


def header(*values: str) -> None:
    """Print the head of a table."""
    cells(*values)
    print("|---" * len(values) + "|")


def print_audit(name: str, result: Leakage) -> None:
    """Print the AUC of each reader for each word, before and after the erasure."""
    print(f"\n{name}: {result.n_sentences:,} captions")
    print(f"cosine {result.cosine:.3f}, distance {result.distance:.3f}\n")
    header("reader", *(f"{w} ({n:,})" for w, n in zip(result.words, result.n_with, strict=True)))
    for label, interval in (("before", result.before), ("after", result.after)):
        for reader, *ends in zip(result.readers, interval.value, interval.low, interval.high, strict=True):
            values = (f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in zip(*ends, strict=True))
            cells(f"{reader}, {label}", *values)
    print(f"\n{result.summary()}")


def audits(data: Data, n_train: int, model: FLiPExtractor, picture: Path | None) -> None:
    """Print what is found with each erasure."""
    X, Y = data.X[n_train:], data.Y[n_train:]
    start = time.process_time()
    linear = leakage(X, Y, WORDS, model=model, random_state=0, verbose=0)
    print_audit("linear guard, readers of the captions of the eraser", linear)
    print(f"\n{time.process_time() - start:.0f} seconds of CPU time")
    if picture is not None:
        display = LeakageDisplay.from_result(linear, name="Five words erased from captions")
        display.figure_.savefig(picture, dpi=80)
    erased = erase_words(model, X, WORDS).X
    result = leakage(X, Y, WORDS, model=model, X_after=erased, random_state=0, verbose=0)
    print_audit("guard of the model", result)
    for n in (n_train // 4, n_train):
        eraser = WordEraser(WORDS, vocabulary=model).fit(data.X[:n], data.Y[:n])
        result = leakage(X, Y, WORDS, model=model, X_after=eraser.transform(X), random_state=0, verbose=0)
        print_audit(f"linear guard, eraser of {n:,} other captions", result)
        columns = [list(model.vocabulary_).index(word) for word in WORDS]
        n_with = (data.Y[:n, columns] > 0).sum(axis=0)
        listed = (f"{word} {k:,}" for word, k in zip(WORDS, n_with, strict=True))
        print(f"\ncaptions of the eraser with the word: {', '.join(listed)}")


def accuracy(data: Data, n_train: int, model: FLiPExtractor) -> None:
    """Print the keyword accuracy of all words on dev captions, before and after."""
    X, Y = data.X[:n_train], data.Y[:n_train]
    guarded = erase_words(model, data.X_dev, WORDS, guard="linear", X_train=X, Y_train=Y)
    new = FLiPExtractor(**model.get_params()).fit(guarded.eraser.transform(X), Y)
    print("\nkeyword accuracy of all words, dev captions\n")
    header("model", "embeddings", "accuracy")
    for name, evaluated, embeddings, E in (
        ("the model", model, "before", data.X_dev),
        ("the model", model, "after, guard of the model", erase_words(model, data.X_dev, WORDS).X),
        ("the model", model, "after, linear guard", guarded.X),
        ("a new model", new, "after, linear guard", guarded.X),
    ):
        cells(name, embeddings, f"{evaluated.score(E, data.Y_dev):.3f}")
    print(
        f"\ncosine to the original {np.nanmean(guarded.cosine):.3f}, distance {guarded.distance.mean():.3f}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=None, help="training captions, all if left out")
    parser.add_argument("--audit-rows", type=positive_int, default=10_000, help="captions that are audited")
    parser.add_argument("--picture", type=Path, default=None, help="file to draw the first result to")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, texts = read_captions(args.data, "train")
    X, texts = X[: args.rows], texts[: args.rows]
    n_train = len(X) - args.audit_rows
    if n_train < 1:
        parser.error(f"--audit-rows {args.audit_rows} leaves none of {len(X)} captions for the model.")
    counter = CountVectorizer(strip_accents="ascii").fit(texts[:n_train])
    X_dev, dev_texts = read_captions(args.data, "dev")
    Y, Y_dev = (sp.csr_array(counter.transform(part)) for part in (texts, dev_texts))
    data = Data("captions", X, Y, X_dev, Y_dev)
    model = FLiPExtractor(vocabulary=counter.get_feature_names_out(), random_state=0)
    model.fit(X[:n_train], Y[:n_train])
    audits(data, n_train, model, args.picture)
    accuracy(data, n_train, model)


if __name__ == "__main__":
    main()

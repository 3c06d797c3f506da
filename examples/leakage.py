"""Erase words from embeddings, and measure what readers still find.

    python examples/leakage.py                               # docstrings, no files needed
    python examples/leakage.py --texts reviews.txt --words refund delivery   # your own: one sentence per line
    python examples/leakage.py --data ../shared/data --words man dog         # captions with stored embeddings

Half of the sentences train a FLiP model and an eraser; the other half is audited. The script

1. fits a WordEraser, stores it, and prints how far the embeddings move,
2. prints the words that the model reads off a few embeddings, before and after,
3. measures what the model, a new linear reader and a neural network find of each word, before and after,
4. draws this in outputs/leakage.png.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from directions import load
from quickstart import ENCODER
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor, WordEraser
from flip_sklearn.diagnostics import erase_words, leakage
from flip_sklearn.plots import LeakageDisplay

N_SHOWN = 3


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=Path, help="use a file of sentences, one per line (or .gz)")
    parser.add_argument("--data", type=Path, help="use captions.train.en.{txt.gz,npy} in this folder")
    parser.add_argument("--sentences", type=int, default=8000, help="sentences to use")
    parser.add_argument(
        "--words", nargs="+", default=None, help="words to erase; default: three frequent ones"
    )
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    texts, X = load(args)
    order = np.random.default_rng(args.seed).permutation(len(texts))
    texts, X = [texts[i] for i in order], X[order]
    counter = CountVectorizer(strip_accents="ascii")
    n_train = len(texts) // 2
    counter.fit(texts[:n_train])
    Y = counter.transform(texts)
    flip = FLiPExtractor(vocabulary=counter.vocabulary_, use_bias=False, random_state=args.seed, verbose=1)
    flip.fit(X[:n_train], Y[:n_train])
    # Words of these ranks are frequent enough to learn, and mostly no stop words any more.
    frequent = flip.vocabulary_[np.argsort(-flip.word_counts_)]
    words = args.words or [str(word) for word in frequent[[30, 40, 50]]]
    unknown = [word for word in words if word not in counter.vocabulary_]
    if unknown:
        parser.error(f"--words: {', '.join(unknown)} not in the training sentences; use words in lower case.")
    print(f"{len(texts):,} sentences; erased: {', '.join(words)}\n")

    erased = erase_words(flip, X[n_train:], words, guard="linear", X_train=X[:n_train], Y_train=Y[:n_train])
    folder = erased.eraser.save_pretrained(args.out / "eraser")
    again = WordEraser.from_pretrained(folder).transform(X[n_train:])
    print("1. An eraser for every linear reader")
    print(f"   mean cosine between an embedding before and after: {erased.cosine.mean():.3f}")
    print(f"   stored in {folder}; equal embeddings after loading: {bool((again == erased.X).all())}")

    print("\n2. Keywords, before and after")
    columns = [counter.vocabulary_[word] for word in words]
    has_word = np.flatnonzero((Y[n_train:, columns] > 0).sum(axis=1))[:N_SHOWN]
    for i in has_word:
        before, after = (flip.extract_keywords(rows[[i]], top_k=6)[0] for rows in (X[n_train:], erased.X))
        print(f"   {textwrap.shorten(texts[n_train + i], 90)}")
        print(f"     before: {' '.join(before)}\n     after:  {' '.join(after)}")

    print("\n3. What is found: the area under the ROC curve, and its interval (0.5 is chance)")
    result = leakage(X[n_train:], Y[n_train:], words, model=flip, random_state=args.seed)
    for i, reader in enumerate(result.readers):
        for j, word in enumerate(result.words):
            low, high = result.after.low[i, j], result.after.high[i, j]
            print(
                f"   {reader:8} {word:14} {result.before.value[i, j]:.3f} -> {result.after.value[i, j]:.3f} "
                f"({low:.3f} to {high:.3f})"
            )
    print(textwrap.fill(result.summary(), 100, initial_indent="   ", subsequent_indent="   "))

    import matplotlib

    matplotlib.use("Agg")
    path = args.out / "leakage.png"
    LeakageDisplay.from_result(result).figure_.savefig(path, dpi=110)
    print(f"\n4. Plot saved: {path}")


if __name__ == "__main__":
    main()

"""Edit stored embeddings in words: replace a word, and look whether the nearest sentence is the edited text.

    python examples/edit_words.py                            # docstrings, no files needed
    python examples/edit_words.py --texts reviews.txt --replace good bad     # your own: one sentence per line
    python examples/edit_words.py --data ../shared/data --replace dog cat    # captions with stored embeddings

An index of vectors knows no words: "the same, but with a cat" needs a text and an encoder. A fitted FLiP
model edits the vector itself. The script

1. fits FLiP to sentences,
2. takes sentences with the first word, but not the second, and replaces the one by the other in their
   embeddings: the smallest change after which the model reads the second word and no longer the first,
3. prints the sentence nearest to each embedding before and after, and the other words that moved,
4. counts how often the nearest sentence has the new word, and does not have the old one.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from directions import load
from quickstart import ENCODER
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import edit_words

N_SHOWN, N_EDITED = 5, 200


def nearest(X: np.ndarray, query: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the number of the nearest row by cosine for each query, its own row left out."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, X)]
    cosine = unit[0] @ unit[1].T
    cosine[np.arange(len(own)), own] = -1
    return cosine.argmax(axis=1)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=Path, help="use a file of sentences, one per line (or .gz)")
    parser.add_argument("--data", type=Path, help="use captions.train.en.{txt.gz,npy} in this folder")
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--replace", nargs=2, default=None, help="two words; default: two frequent ones")
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder of the embedding cache")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    texts, X = load(args)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    counter = CountVectorizer(strip_accents="ascii")
    Y = counter.fit_transform(texts)
    # Probabilities are learned from held-out rows, which by default are held out of 1,000 rows and more.
    flip = FLiPExtractor(
        vocabulary=counter.vocabulary_, early_stopping=True, random_state=args.seed, verbose=1
    ).fit(X, Y)
    print(f"{len(texts):,} sentences, {Y.shape[1]:,} words\n")

    # The 30th word and the next are frequent enough to learn, and mostly no stop words any more.
    frequent = flip.vocabulary_[np.argsort(-flip.word_counts_)]
    old, new = args.replace or frequent[min(30, len(frequent) - 2) :][:2]
    for word in (old, new):
        if word not in counter.vocabulary_:
            parser.error(f"--replace {word} is in no sentence; use words of the sentences, in lower case.")
    has_old, has_new = (Y[:, [counter.vocabulary_[word]]].toarray().ravel() > 0 for word in (old, new))
    rows = np.flatnonzero(has_old & ~has_new)[:N_EDITED]
    edited = edit_words(flip, X[rows], add=new, remove=old)

    before, after = nearest(X, X[rows], rows), nearest(X, edited.X, rows)
    print(f'1. "{old}" replaced by "{new}" in {len(rows)} embeddings')
    for i in range(min(N_SHOWN, len(rows))):
        print(f"   {textwrap.shorten(texts[rows[i]], 90)}")
        print(f"      nearest before: {textwrap.shorten(texts[before[i]], 80)}")
        print(f"      nearest after:  {textwrap.shorten(texts[after[i]], 80)}")
        moved = zip(edited.moved_words[i], edited.moved_before[i], edited.moved_after[i], strict=True)
        print("      others: " + ", ".join(f"{w} {p:.2f} -> {q:.2f}" for w, p, q in list(moved)[:4]))
    print("\n2. The nearest other sentence has the word")
    for name, found in (("before the edit", before), ("after", after)):
        print(f"   {name:16} {old}: {has_old[found].mean():.2f}, {new}: {has_new[found].mean():.2f}")
    print(f"   cosine to the embedding before: {edited.cosine.mean():.3f}")
    print(f"\n3. {edited}")


if __name__ == "__main__":
    main()

"""Which words does one set of vectors have more often than another? Two sets compared without their texts.

    python examples/compare_sets.py                          # docstrings of two packages, no files needed
    python examples/compare_sets.py --packages numpy torch
    python examples/compare_sets.py --texts april.txt may.txt        # your own: one sentence per line
    python examples/compare_sets.py --data ../shared/data    # captions with stored embeddings

FLiP is trained on other sentences of the same kind. The two sets are compared as vectors only, as they lie in
a vector store: last month's queries and this month's, failed and successful retrievals. The script

1. prints the words that each set has more often, with the expected difference and its interval,
2. counts the words in the texts, which a user would not have, to check the answer,
3. compares two random halves of the sets mixed together, which should differ in no word,
4. draws the words in outputs/compare_sets.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from flip_vs_splice import read_lines
from quickstart import ENCODER, embed
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import SetComparison, compare_sets
from flip_sklearn.plots import SetComparisonDisplay

N_WORDS = 8


def load_texts(args: argparse.Namespace) -> tuple[list[str], dict[str, list[str]]]:
    """Return the training sentences and the two sets: every other sentence of each is for training."""
    if args.texts is not None:
        sets = {path.stem: [line for line in read_lines(path) if line.strip()] for path in args.texts}
        others = []
    else:
        sets = {name: load_docstrings(packages=[name], random_state=args.seed) for name in args.packages}
        of_sets = {text for texts in sets.values() for text in texts}
        others = load_docstrings(max_sentences=args.sentences, random_state=args.seed, verbose=True)
        others = [text for text in others if text not in of_sets]
    if len(sets) != 2:
        raise SystemExit("the two sets have the same name; rename a file, or pass two packages.")
    sets = {name: texts[: args.sentences // 4] for name, texts in sets.items()}
    train = others + [text for texts in sets.values() for text in texts[::2]]
    return train, {name: texts[1::2] for name, texts in sets.items()}


def load(
    args: argparse.Namespace,
) -> tuple[list[str], np.ndarray, dict[str, list[str]], dict[str, np.ndarray]]:
    """Return training sentences, their embeddings, the sentences of two sets, and theirs."""
    if args.data is not None:
        texts = read_lines(args.data / "captions.train.en.txt.gz")[: args.sentences]
        X = np.load(args.data / "captions.train.en.npy")[: args.sentences].astype(np.float32)
        names, n = ("captions with people", "other captions"), len(texts) * 3 // 4
        people = np.array(
            [
                {"man", "woman", "people", "men", "women"} & set(text.lower().split()) != set()
                for text in texts
            ]
        )
        rows = [n + np.flatnonzero(people[n:] == flag) for flag in (True, False)]
        sets = {name: [texts[i] for i in part] for name, part in zip(names, rows, strict=True)}
        return texts[:n], X[:n], sets, {name: X[part] for name, part in zip(names, rows, strict=True)}
    train, sets = load_texts(args)
    vectors = {name: embed(texts, args.encoder, args.out / "cache") for name, texts in sets.items()}
    return train, embed(train, args.encoder, args.out / "cache"), sets, vectors


def print_words(result: SetComparison, names: list[str], shares: list[np.ndarray]) -> None:
    """Print the discovered words, beside the difference of the shares of the texts that have them."""
    for name, columns in zip(names, result.order(N_WORDS), strict=True):
        print(f"   more in {name}:")
        for j in columns:
            low, high = result.difference.low[j], result.difference.high[j]
            print(
                f"     {result.words[j]:16} {result.difference.value[j]:+.1%} ({low:+.1%} to {high:+.1%}); "
                f"in the texts {shares[0][j] - shares[1][j]:+.1%}"
            )


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packages", nargs=2, default=["scipy", "sklearn"], help="packages to compare")
    parser.add_argument("--texts", type=Path, nargs=2, help="two files of sentences, one per line (or .gz)")
    parser.add_argument("--data", type=Path, help="use captions.train.en.{txt.gz,npy} in this folder")
    parser.add_argument("--sentences", type=int, default=8000, help="sentences to use")
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    train, X, texts, vectors = load(args)
    counter = CountVectorizer(strip_accents="ascii")
    Y = counter.fit_transform(train)
    flip = FLiPExtractor(
        vocabulary=counter.vocabulary_, early_stopping=True, random_state=args.seed, verbose=1
    ).fit(X, Y)
    names = list(vectors)
    sizes = " and ".join(f"{len(vectors[name]):,} of {name}" for name in names)
    print(f"{len(train):,} sentences to train, {Y.shape[1]:,} words; compared: {sizes}\n")

    print("1. Words that differ, read off the vectors; 2. the same in the texts")
    X_a, X_b = vectors.values()
    result = compare_sets(flip, X_a, X_b)
    shares = [np.asarray((counter.transform(rows) > 0).mean(axis=0)).ravel() for rows in texts.values()]
    print_words(result, names, shares)
    found = result.discovered
    right = np.sign(result.difference.value) == np.sign(shares[0] - shares[1])
    print(f"   {found.sum()} of {result.tested.sum()} tested words differ", end="")
    print(f"; in the texts {right[found].mean():.0%} of them go the same way" if found.any() else "")

    mixed = np.random.default_rng(args.seed).permutation(np.concatenate([X_a, X_b]))
    halves = compare_sets(flip, mixed[::2], mixed[1::2])
    print(f"\n3. Two random halves: {halves.discovered.sum()} of {halves.tested.sum()} tested words differ")

    import matplotlib

    matplotlib.use("Agg")
    path = args.out / "compare_sets.png"
    SetComparisonDisplay.from_result(result, names=tuple(names)).figure_.savefig(path, dpi=110)
    print(f"\n4. Plot saved: {path}")


if __name__ == "__main__":
    main()

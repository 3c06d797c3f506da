"""Compare FLiP with SpLiCE: which one finds more of the concepts of a sentence?

Both use the same vocabulary of words and two-word concepts, the same training sentences and the same test
sentences. The metric is span-aware accuracy: the share of the concepts of a sentence that are among its k
best-scored concepts, where k is the number of concepts of the sentence. SpLiCE writes an embedding as a
sparse sum of the embeddings of concepts; its L1 strength is the best of several on training sentences. FLiP
has its default settings.

    python examples/flip_vs_splice.py                                   # docstrings, no files needed
    python examples/flip_vs_splice.py --train captions.txt.gz --test dev.txt.gz \\
           --train-embeddings captions.npy --test-embeddings dev.npy    # your own texts and embeddings

The script prints a table with intervals and saves a plot in outputs/flip_vs_splice.png.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
from quickstart import ENCODER, embed

from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import compare_extractors, split_sentences
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics import span_accuracy
from flip_sklearn.plots import ExtractorDisplay
from flip_sklearn.splice import SpLiCEExtractor
from flip_sklearn.vocabulary import ConceptVectorizer

L1_STRENGTHS = (0.1, 0.15, 0.2, 0.25, 0.3)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def load(args: argparse.Namespace) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return sentences, their embeddings, and a mask of the test sentences."""
    if args.train is None:
        texts = load_docstrings(max_sentences=args.sentences, random_state=0, verbose=True)
        test = np.arange(len(texts)) < len(texts) // 10
    else:
        train, held_out = read_lines(args.train), read_lines(args.test)
        texts = train + held_out
        test = np.arange(len(texts)) >= len(train)
    if args.train_embeddings is None:
        return texts, embed(texts, args.encoder, args.out / "cache"), test
    files = (args.train_embeddings, args.test_embeddings)
    return texts, np.concatenate([np.load(path) for path in files]), test


def best_strength(
    X: np.ndarray, texts: list[str], concepts: ConceptVectorizer, dictionary: np.ndarray
) -> float:
    """Return the L1 strength of SpLiCE with the highest span-aware accuracy on these sentences."""
    accuracies = {}
    for l1_strength in L1_STRENGTHS:
        splice = SpLiCEExtractor(dictionary, l1_strength=l1_strength, verbose=1).fit(X)
        result = span_accuracy(texts, splice.transform(X), concepts)
        accuracies[l1_strength] = result.value
        print(f"   SpLiCE, l1_strength={l1_strength:<5} {result}")
    return max(accuracies, key=accuracies.__getitem__)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=Path, help="text file (or .gz), one sentence per line")
    parser.add_argument("--test", type=Path, help="text file of the test sentences")
    parser.add_argument("--train-embeddings", type=Path, help=".npy of shape (sentences, d)")
    parser.add_argument("--test-embeddings", type=Path, help=".npy of the test embeddings")
    parser.add_argument("--sentences", type=int, default=9000, help="number of docstrings, without --train")
    parser.add_argument("--min-count", type=int, default=3, help="minimum occurrences of a concept")
    parser.add_argument("--min-pmi", type=float, default=1.5, help="minimum PMI of a pair, in nats")
    parser.add_argument("--encoder", default=None, help=f"encoder of texts and concepts; default {ENCODER}")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    if (args.train is None) != (args.test is None):
        parser.error("--train and --test must be given together")

    print("1. Sentences and their embeddings", flush=True)
    texts, X, test = load(args)
    split = split_sentences(X, groups=[text.lower() for text in texts], test=test)
    train_texts = [texts[i] for i in split.train]

    concepts = ConceptVectorizer(min_count=args.min_count, min_pmi=args.min_pmi).fit(train_texts)
    names = list(concepts.get_feature_names_out())
    n_pairs = sum(" " in name for name in names)
    print(f"2. {len(names):,} concepts, {n_pairs:,} of two words, and their embeddings", flush=True)
    dictionary = embed(names, args.encoder, args.out / "cache")

    print("3. L1 strength of SpLiCE, chosen on 2,000 training sentences", flush=True)
    rows = np.random.default_rng(0).permutation(split.train)[:2000]
    strength = best_strength(X[rows], [texts[i] for i in rows], concepts, dictionary)

    print(f"4. {len(split.train):,} training and {len(split.test):,} test sentences", flush=True)
    result = compare_extractors(
        X,
        concepts.transform(texts),
        {
            "FLiP": FLiPExtractor(),
            "LiP": FLiPExtractor(rank=None),
            "SpLiCE": SpLiCEExtractor(dictionary, l1_strength=strength),
        },
        split=split,
        random_state=0,
    )
    print("\n   span-aware accuracy          95 % interval    minus FLiP")
    accuracy, difference = result.accuracy, result.difference
    for i, name in enumerate(result.extractors):
        print(
            f"   {name:22} {accuracy.value[i, 0]:8.1%}   {accuracy.low[i, 0]:.1%} to "
            f"{accuracy.high[i, 0]:.1%}   {100 * difference.value[i, 0]:+6.1f} points"
        )
    display = ExtractorDisplay.from_result(result)
    path = args.out / "flip_vs_splice.png"
    display.figure_.savefig(path, dpi=110, bbox_inches="tight")
    print(f"\n5. Plot saved: {path}")


if __name__ == "__main__":
    main()

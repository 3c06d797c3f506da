"""FLiP beside SpLiCE: who reads more of a sentence's concepts off its embedding?

Both get one vocabulary of words and two-word concepts, the same training sentences and the same test
sentences, and are judged by span-aware accuracy: the share of a sentence's concepts among as many
best-scored ones. SpLiCE writes an embedding as a sparse sum of the concepts' own embeddings; its L1
strength is the best of several on sentences held out from training. FLiP has its default settings.

    python examples/flip_vs_splice.py                                   # docstrings, no files needed
    python examples/flip_vs_splice.py --train captions.txt.gz --test dev.txt.gz \\
           --train-embeddings captions.npy --test-embeddings dev.npy    # text and embeddings of your own

It prints the table with intervals and saves a picture in outputs/flip_vs_splice.png.
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
    """The lines of a text file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def load(args: argparse.Namespace) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Sentences, their embeddings, and which of them are to be tested on."""
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
    """SpLiCE's L1 strength with the highest span-aware accuracy on these sentences."""
    found = {}
    for l1_strength in L1_STRENGTHS:
        splice = SpLiCEExtractor(dictionary, l1_strength=l1_strength, verbose=1).fit(X)
        found[l1_strength] = span_accuracy(texts, splice.transform(X), concepts)
        print(f"   SpLiCE, l1_strength={l1_strength:<5} {found[l1_strength]}")
    return max(found, key=lambda strength: found[strength].value)


def main() -> None:
    """Compare the two."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=Path, help="text file, one sentence a line (.gz is fine)")
    parser.add_argument("--test", type=Path, help="the same for the sentences to test on")
    parser.add_argument("--train-embeddings", type=Path, help=".npy of shape (sentences, d)")
    parser.add_argument("--test-embeddings", type=Path, help="the same for the test sentences")
    parser.add_argument("--sentences", type=int, default=9000, help="docstrings, without --train")
    parser.add_argument("--min-count", type=int, default=3, help="occurrences of a concept")
    parser.add_argument("--min-pmi", type=float, default=1.5, help="PMI of a pair, in nats")
    parser.add_argument("--encoder", default=None, help=f"of texts and concepts; default {ENCODER}")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    if (args.train is None) != (args.test is None):
        parser.error("--train and --test belong together")

    print("1. Sentences and their embeddings", flush=True)
    texts, X, test = load(args)
    split = split_sentences(X, groups=[text.lower() for text in texts], test=test)
    train_texts = [texts[i] for i in split.train]

    concepts = ConceptVectorizer(min_count=args.min_count, min_pmi=args.min_pmi).fit(train_texts)
    names = list(concepts.get_feature_names_out())
    n_pairs = sum(" " in name for name in names)
    print(f"2. {len(names):,} concepts, {n_pairs:,} of two words, and their embeddings", flush=True)
    dictionary = embed(names, args.encoder, args.out / "cache")

    print("3. SpLiCE's L1 strength, on 2,000 of the training sentences", flush=True)
    some = np.random.default_rng(0).permutation(split.train)[:2000]
    strength = best_strength(X[some], [texts[i] for i in some], concepts, dictionary)

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
    print("\n   span-aware accuracy          95 % interval    less FLiP")
    for e, name in enumerate(result.extractors):
        accuracy, gap = result.accuracy, result.difference
        print(
            f"   {name:22} {accuracy.value[e, 0]:8.1%}   {accuracy.low[e, 0]:.1%} to "
            f"{accuracy.high[e, 0]:.1%}   {100 * gap.value[e, 0]:+6.1f} points"
        )
    display = ExtractorDisplay.from_result(result)
    picture = args.out / "flip_vs_splice.png"
    display.figure_.savefig(picture, dpi=110, bbox_inches="tight")
    print(f"\n5. Picture saved: {picture}")


if __name__ == "__main__":
    main()

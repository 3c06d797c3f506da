"""Read words off the vectors of a store: FAISS, LanceDB, Chroma, a Parquet file or a column of datasets.

    python examples/vector_store.py                            # a Parquet file of docstrings
    python examples/vector_store.py --store faiss              # or lancedb, chroma, datasets
    python examples/vector_store.py --texts reviews.txt        # your own: one sentence per line
    python examples/vector_store.py --data ../shared/data      # captions with stored embeddings

FLiP is trained on half of the sentences. The vectors of the others are written to a store in outputs/stores,
as an application would have done it. Then the script reads the store in batches, so that memory does not
grow with its size, and

1. writes the words of each vector beside it: a new column, in Chroma a list in the metadata, and for FAISS,
   which holds vectors only, a table of words by id,
2. names clusters: the cells of the FAISS index, or a k-means of the vectors of another store. The texts are
   not used,
3. explains a wrong hit. Of some sentences that are neither in training nor in the store, it takes the one
   whose nearest vector is closest although the two texts have no word in common: which words do the
   vectors share, which has only the query, and which only the hit?

The functions of each store are in stores.py, to be copied.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flip_vs_splice import read_lines
from quickstart import ENCODER, embed
from sklearn.cluster import MiniBatchKMeans
from sklearn.feature_extraction.text import CountVectorizer
from stores import BATCH_ROWS, N_CELLS, STORES, Batches, cells_of

from flip_sklearn import FLiPExtractor, KeywordMapper
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import SimilarityExplanation, explain_similarity

N_QUERIES, N_PRINTED = 200, 5


def load(args: argparse.Namespace) -> tuple[list[str], np.ndarray]:
    """Return sentences and their embeddings."""
    if args.data is not None:
        texts = read_lines(args.data / "captions.train.en.txt.gz")[: args.sentences]
        return texts, np.load(args.data / "captions.train.en.npy")[: args.sentences].astype(np.float32)
    if args.texts is not None:
        texts = [line for line in read_lines(args.texts) if line.strip()][: args.sentences]
    else:
        texts = load_docstrings(max_sentences=args.sentences, random_state=args.seed, verbose=True)
    return texts, np.asarray(embed(texts, args.encoder, args.out / "cache"), dtype=np.float32)


def clusters_of(read: Callable[[], Batches], n_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centroids of a k-means of batches, and the numbers of vectors that are nearest to them."""
    kmeans = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3)
    for _, X in read():
        kmeans.partial_fit(X)
    sizes = sum(np.bincount(kmeans.predict(X), minlength=n_clusters) for _, X in read())
    return kmeans.cluster_centers_, np.asarray(sizes)


def wrong_hit(store: Any, nearest: Callable, queries: np.ndarray, X: np.ndarray, counts: Any) -> tuple | None:
    """Return a query, and ids and vectors of its two best hits: the closest hit that is wrong.

    A hit is wrong if its text and that of the query have words, by the counts (n, V), but none in common.
    """
    found = []
    for query in queries:
        ids, hits = nearest(store, X[query], 2)
        pair = counts[[query, ids[0]]]
        if np.diff(pair.indptr).all() and not pair[[0]].multiply(pair[[1]]).sum():
            found.append((float(X[query] @ hits[0]), query, ids, hits))
    return max(found, key=lambda item: item[0])[1:] if found else None


def describe(explanation: SimilarityExplanation, k: int = 6) -> None:
    """Print the words that two vectors share, and those of one of them, the strongest first."""
    first, second = explanation.strength1 > 0, explanation.strength2 > 0
    sides = {
        "words of both": (first & second, np.abs(explanation.contribution)),
        "only of the query": (first & ~second, explanation.strength1),
        "only of the hit": (second & ~first, explanation.strength2),
    }
    for name, (chosen, weight) in sides.items():
        order = np.argsort(-np.where(chosen, weight, -np.inf), kind="stable")[: min(k, chosen.sum())]
        print(f"   {name + ':':19}{', '.join(explanation.words[order]) or 'none'}")
    pairs = (f"{a} - {b} {value:+.2f}" for a, b, value in explanation.pairs(k))
    print(
        textwrap.fill(
            ", ".join(pairs), 100, initial_indent="   pairs:             ", subsequent_indent=" " * 22
        )
    )


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", choices=STORES, default="parquet", help="the store; default: parquet")
    parser.add_argument("--texts", type=Path, help="use a file of sentences, one per line (or .gz)")
    parser.add_argument("--data", type=Path, help="use captions.train.en.{txt.gz,npy} in this folder")
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    chosen = STORES[args.store]
    if importlib.util.find_spec(chosen.module) is None:
        parser.error(f"--store {args.store} needs {chosen.package}: pip install {chosen.package}")
    folder = args.out / "stores" / args.store
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    texts, X = load(args)
    n_queries = min(N_QUERIES, len(texts) // 10)
    train, stored, queries = np.split(np.arange(len(texts)), [len(texts) // 2, len(texts) - n_queries])
    counter = CountVectorizer(strip_accents="ascii").fit([texts[i] for i in train])
    Y = counter.transform(texts)
    flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=args.seed).fit(X[train], Y[train])
    batches = np.split(stored, range(BATCH_ROWS, len(stored), BATCH_ROWS))
    chosen.create(folder, ((ids, X[ids]) for ids in batches))
    store = chosen.open(folder)
    print(f"{len(train):,} sentences train FLiP; the store, {args.store}, has {len(stored):,} other vectors")

    print("\n1. Words written to the store, and read from it again")
    mapper = KeywordMapper(flip, top_k=6, use_bias=False)
    store = chosen.add_words(store, mapper)
    for row, words in chosen.words(store, N_PRINTED).items():
        print(f"   {row:6}  {' '.join(words)}")
        print(f"           its text: {textwrap.shorten(texts[row], 80)}")

    print("\n2. Clusters of the store, named without their texts")
    if args.store == "faiss":
        centroids, sizes = cells_of(store)
    else:
        centroids, sizes = clusters_of(partial(chosen.read, store), min(N_CELLS, len(stored)), args.seed)
    read = flip.read_directions(centroids - flip.embedding_mean_, top_k=8)
    for c in np.argsort(-sizes, kind="stable"):
        print(f"   {sizes[c]:5,} vectors: {' '.join(read[c].raised)}")

    print("\n3. A wrong hit: the nearest vector of another text, without a common word")
    counts = CountVectorizer(strip_accents="ascii", stop_words="english").fit_transform(texts)
    found = wrong_hit(store, chosen.nearest, queries, X, counts)
    if found is None:
        print("   none: every query has a word in common with its nearest vector")
        return
    query, ids, hits = found
    print(f"   query: {textwrap.shorten(texts[query], 90)}\n   hit:   {textwrap.shorten(texts[ids[0]], 90)}")
    explanation = explain_similarity(flip, X[query], hits[0])
    describe(explanation)
    blamed = list(explanation.words[explanation.contribution > 0][:3])
    next_cosine = float(X[query] @ hits[1] / (np.linalg.norm(X[query]) * np.linalg.norm(hits[1])))
    print(f"   the cosine is {explanation.cosine:.2f}, and of the next hit {next_cosine:.2f}")
    print(f"   without {', '.join(blamed)} in both vectors it is {explanation.without(blamed).cosine:.2f}")


if __name__ == "__main__":
    main()

"""Read directions of an embedding space in words: clusters, principal axes and a classifier.

    python examples/directions.py                            # docstrings, no files needed
    python examples/directions.py --texts reviews.txt --word refund      # your own: one sentence per line
    python examples/directions.py --data ../shared/data      # captions with stored embeddings

FLiP is trained to read words from the embeddings of sentences. It can then read any direction of the space.
The script

1. names k-means clusters: the words of each centroid minus the mean of all embeddings. No text is used; the
   sentence that is nearest to the centroid is printed beside them,
2. names the principal axes of the embeddings: the words at both ends,
3. trains a classifier, scaler -> PCA -> logistic regression, to tell which sentences have a given word, and
   reads what it looks for. Its coefficients are read by their pattern; read as if they were a difference of
   embeddings, they would name other words,
4. draws the words of the classifier in outputs/directions.png.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from flip_vs_splice import read_lines
from quickstart import ENCODER, embed
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import explain_estimator
from flip_sklearn.plots import DirectionDisplay

N_AXES = 3


def load(args: argparse.Namespace) -> tuple[list[str], np.ndarray]:
    """Return sentences and their embeddings."""
    if args.data is not None:
        texts = read_lines(args.data / "captions.train.en.txt.gz")[: args.sentences]
        return texts, np.load(args.data / "captions.train.en.npy")[: args.sentences].astype(np.float32)
    if args.texts is not None:
        texts = [line for line in read_lines(args.texts) if line.strip()][: args.sentences]
    else:
        texts = load_docstrings(max_sentences=args.sentences, random_state=args.seed, verbose=True)
    return texts, embed(texts, args.encoder, args.out / "cache")


def draw(path: Path, classifier: object, flip: FLiPExtractor, word: str) -> None:
    """Draw the words that the classifier raises and lowers."""
    import matplotlib

    matplotlib.use("Agg")
    words = explain_estimator(classifier, flip).words[1]  # of the class True
    label = "change of the score (nats) for one standard deviation"
    display = DirectionDisplay.from_result(words, label=label, name=f'"The sentence has {word}", in words')
    display.figure_.savefig(path, dpi=110)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=Path, help="use a file of sentences, one per line (or .gz)")
    parser.add_argument("--data", type=Path, help="use captions.train.en.{txt.gz,npy} in this folder")
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--clusters", type=int, default=10, help="number of clusters")
    parser.add_argument("--word", default=None, help="word of the classifier; default: a frequent one")
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    texts, X = load(args)
    counter = CountVectorizer(strip_accents="ascii")
    Y = counter.fit_transform(texts)
    flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=args.seed, verbose=1).fit(X, Y)
    print(f"{len(texts):,} sentences, {Y.shape[1]:,} words\n")

    print(f"1. {args.clusters} clusters, named without their texts")
    kmeans = KMeans(args.clusters, n_init=3, random_state=args.seed).fit(X)
    read = flip.read_directions(kmeans.cluster_centers_ - flip.embedding_mean_, top_k=8)
    nearest = kmeans.transform(X).argmin(axis=0)
    for c in np.argsort(-np.bincount(kmeans.labels_)):
        print(f"   {(kmeans.labels_ == c).sum():5,} sentences: {' '.join(read[c].raised)}")
        print(f"         nearest: {textwrap.shorten(texts[nearest[c]], 80)}")

    print(f"\n2. The first {N_AXES} principal axes, with the words at both ends")
    pca = PCA(N_AXES, random_state=args.seed).fit(X)
    for share, ends in zip(
        pca.explained_variance_ratio_, flip.read_directions(pca.components_, top_k=8), strict=True
    ):
        print(f"   {share:.1%} of the variance: {' '.join(ends.raised)}")
        print(f"         the other end: {' '.join(ends.lowered)}")

    # The 30th word is frequent enough to learn, and mostly no stop word any more.
    word = args.word or flip.vocabulary_[np.argsort(-flip.word_counts_)[min(30, Y.shape[1] - 1)]]
    if word not in counter.vocabulary_:
        parser.error(f"--word {word} is in no sentence; use a word of the sentences, in lower case.")
    has_word = Y[:, [counter.vocabulary_[word]]].toarray().ravel() > 0
    classifier = make_pipeline(StandardScaler(), PCA(), LogisticRegression(max_iter=1000)).fit(X, has_word)
    result = explain_estimator(classifier, flip, top_k=8)
    naive = flip.read_directions(result.coefficients[1], top_k=8)[0]
    print(f'\n3. A classifier of {has_word.sum():,} sentences with "{word}" and the others')
    print(f"   raised by the decision: {' '.join(w for w, _ in result.words[1].raised)}")
    print(f"   lowered:                {' '.join(w for w, _ in result.words[1].lowered)}")
    print(f"   its coefficients, read as if they were a difference: {' '.join(naive.raised)}")

    path = args.out / "directions.png"
    draw(path, classifier, flip, word)
    print(f"\n4. Plot saved: {path}")


if __name__ == "__main__":
    main()

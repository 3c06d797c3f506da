"""Directions read in words on captions, as Markdown tables: clusters, classifiers, axes, pipelines.

    python -m benchmarks.bench_directions clusters axes          # the figures of docs/directions.md
    python -m benchmarks.bench_directions classifiers pipelines --rows 10000

The captions are captions.train.en.{txt.gz,npy} in the folder --data. Clusters: the words of the centroids of
k-means, which are read without any text, compared with the words of the texts by c-TF-IDF (Grootendorst
2022). Classifiers: logistic regressions for "the caption has this word", read in three ways. Pipelines: one
linear model in the coordinates of scalers, PCA and whitening, whose words should not change.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from benchmarks.data import DEFAULT_DATA, positive_int, read_captions
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import explain_estimator

TOP_K = 10
# Words of the classifiers occur at least this often.
MIN_COUNT = 100
# Strength of the classifiers' fit to the data: with less regularization, coefficients cancel more.
C = 10.0


def cluster_words(Y: sp.csr_array, labels: np.ndarray, words: np.ndarray, n_best: int) -> list[set[str]]:
    """Return the words of each cluster that have the largest c-TF-IDF.

    With f_cj the share of word j in the tokens of cluster c, n_j its count and m the mean number of tokens of
    a cluster, it is f_cj log(1 + m / n_j).
    """
    n_clusters = int(labels.max()) + 1
    groups = sp.csr_array(
        (np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(n_clusters, len(labels))
    )
    counts = (groups @ Y).toarray()
    weights = counts / counts.sum(axis=1, keepdims=True)
    weights *= np.log(1 + counts.sum() / n_clusters / counts.sum(axis=0))
    return [set(words[np.argsort(-row, kind="stable")[:n_best]]) for row in weights]


def overlap(read: list[Any], expected: list[set[str]]) -> float:
    """Return the mean share of the ten raised words that are among the expected ones."""
    pairs = zip(read, expected, strict=True)
    return float(np.mean([len(words & set(direction.raised)) / TOP_K for direction, words in pairs]))


def clusters(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, args: argparse.Namespace) -> None:
    """Print the overlap with c-TF-IDF, and the words of some clusters."""
    n_clusters, n_seeds = args.clusters, args.seeds
    print(f"### Centroids of {n_clusters} clusters: share of ten words that c-TF-IDF has, too\n")
    names = ("its best 10", "its best 30", "of another cluster", "mean not subtracted")
    print(f"| seed | {' | '.join(names)} |\n|---|---|---|---|---|")
    for seed in range(n_seeds):
        kmeans = KMeans(n_clusters, n_init=1, random_state=seed).fit(X)
        expected, more = (cluster_words(Y, kmeans.labels_, model.vocabulary_, n) for n in (TOP_K, 3 * TOP_K))
        read = model.read_directions(kmeans.cluster_centers_ - model.embedding_mean_, top_k=TOP_K)
        raw = model.read_directions(kmeans.cluster_centers_, top_k=TOP_K)
        shares = (
            overlap(read, expected),
            overlap(read, more),
            overlap(read[1:] + read[:1], expected),
            overlap(raw, expected),
        )
        print(f"| {seed} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)
    print(f"\nClusters of seed {n_seeds - 1}, * not among the c-TF-IDF words:\n")
    for direction, words in list(zip(read, expected, strict=True))[:6]:
        print(f"- {' '.join(word if word in words else f'{word}*' for word in direction.raised)}")
    print(flush=True)


def classifiers(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, args: argparse.Namespace) -> None:
    """Print how well the words read off classifiers agree with the captions of the classes.

    The classifiers look for words of every frequency. The words of the captions have the log odds of their
    shares in the tokens of both classes, with half a count more; the word itself is left out.
    """
    n_words = args.words
    frequent = np.flatnonzero(model.word_counts_ >= MIN_COUNT)
    by_count = frequent[np.argsort(-model.word_counts_[frequent], kind="stable")]
    columns = by_count[np.linspace(0, len(by_count) - 1, n_words).astype(int)]
    column_of = {word: j for j, word in enumerate(model.vocabulary_)}
    readings: dict[str, list[tuple[bool, float]]] = {}
    examples: dict[str, list[str]] = {}
    for j in columns:
        word = model.vocabulary_[j]
        has_word = Y[:, [j]].toarray().ravel() > 0
        coefficients = LogisticRegression(C=C, max_iter=2000).fit(X, has_word).coef_
        means = X[has_word].mean(axis=0) - X[~has_word].mean(axis=0)
        inside, outside = Y[has_word].sum(axis=0) + 0.5, Y[~has_word].sum(axis=0) + 0.5
        log_odds = np.log(inside / inside.sum()) - np.log(outside / outside.sum())
        others = by_count[by_count != j]
        for name, rows, kind in (
            ("coefficients", coefficients, "coefficients"),
            ("coefficients, as a difference", coefficients, "difference"),
            ("difference of the class means", means, "difference"),
        ):
            read = model.read_directions(rows, kind=kind, top_k=len(column_of), return_scores=True)[0]
            scores = np.zeros(len(column_of))
            for side in read:
                for other, score in side:
                    scores[column_of[other]] = score
            agreement = float(np.corrcoef(scores[others], log_odds[others])[0, 1])
            readings.setdefault(name, []).append((read.raised[0][0] == word, agreement))
            examples.setdefault(word, []).append(" ".join(other for other, _ in read.raised[:8]))
    print(f"### Logistic regressions for {n_words} words, C = {C}\n")
    print(
        f"| read as | the word is first | correlation with log odds, {len(by_count)} words |\n|---|---|---|"
    )
    for name, found in readings.items():
        first, agreement = np.mean(found, axis=0)
        print(f"| {name} | {first:.2f} | {agreement:.2f} |")
    print()
    for word in list(examples)[:: max(1, n_words // 5)]:
        pattern, naive, _ = examples[word]
        print(f"- {word}: {pattern}\n  - as a difference: {naive}")
    print(flush=True)


def axes(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, args: argparse.Namespace) -> None:
    """Print the words of the first principal axes."""
    print("### Principal axes\n")
    for direction in model.read_directions(PCA(3, random_state=0).fit(X).components_, top_k=8):
        print(f"- {' '.join(direction.raised)} | {' '.join(direction.lowered)}")
    print(flush=True)


def pipelines(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, args: argparse.Namespace) -> None:
    """Print the largest change of a score by transformers before the same linear model.

    Least squares on the decision values of classifiers is the same function of the embeddings in all
    coordinates, up to rounding.
    """
    n_words, X = args.words, X.astype(float)
    labels = (Y[:, np.argsort(-model.word_counts_)[:n_words]] > 0).toarray().astype(int)
    classifier = RidgeClassifier().fit(X, labels)
    decisions = classifier.decision_function(X)
    expected = explain_estimator(classifier, model)
    print(f"### {n_words} ridge classifiers in the coordinates of other transformers\n")
    print("| transformers | largest change of a score / best score | equal lists of words |\n|---|---|---|")
    for name, steps in {
        "StandardScaler": [StandardScaler()],
        "RobustScaler, MinMaxScaler": [RobustScaler(), MinMaxScaler()],
        "PCA": [PCA()],
        "PCA(whiten=True)": [PCA(whiten=True)],
        "StandardScaler, PCA(whiten=True)": [StandardScaler(), PCA(whiten=True)],
    }.items():
        found = explain_estimator(make_pipeline(*steps, LinearRegression()).fit(X, decisions), model)
        changes, equal = [], []
        for one, other in zip(found.words, expected.words, strict=True):
            scores, reference = dict(one.raised), dict(other.raised)
            shared = scores.keys() & reference.keys()
            changes.append(max(abs(scores[word] - reference[word]) for word in shared) / other.raised[0][1])
            equal.append([word for word, _ in one.raised] == [word for word, _ in other.raised])
        print(f"| {name} | {max(changes):.1e} | {np.mean(equal):.2f} |", flush=True)
    print()


PARTS = {"clusters": clusters, "classifiers": classifiers, "axes": axes, "pipelines": pipelines}


def main() -> None:
    """Fit one model and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=None, help="training captions; default all")
    parser.add_argument("--clusters", type=positive_int, default=30)
    parser.add_argument("--seeds", type=positive_int, default=5, help="runs of k-means")
    parser.add_argument("--words", type=positive_int, default=20, help="classifiers")
    args = parser.parse_args()
    if not set(args.parts) <= set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, texts = read_captions(args.data, "train")
    X, texts = X[: args.rows].astype(np.float32), texts[: args.rows]
    vectorizer = CountVectorizer(strip_accents="ascii")
    Y = sp.csr_array(vectorizer.fit_transform(texts))
    model = FLiPExtractor(vocabulary=vectorizer.vocabulary_, random_state=0).fit(X, Y)
    print(f"{len(X):,} captions, {Y.shape[1]:,} words, rank {model.rank_}\n", flush=True)
    for part in args.parts or PARTS:
        PARTS[part](model, X, Y, args)


if __name__ == "__main__":
    main()

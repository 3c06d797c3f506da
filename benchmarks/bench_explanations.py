"""Word erasure and explanations of cosine similarities on captions, as Markdown tables.

    python -m benchmarks.bench_explanations               # the tables of docs/diagnostics.md
    python -m benchmarks.bench_explanations --rows 3000   # a quick test

The captions are captions.{train,dev}.en.{txt.gz,npy} in the folder --data. Erasure: the share of captions
with a word that have it among their k best words (k: number of distinct words of the caption), for the model
used for the erasure and for a new one trained on erased embeddings, and the same for LEACE (Belrose et al.
2023).
Similarity: explanations of nearest neighbours among the dev captions, for several vectors that represent a
word and several thresholds; and how much the cosine falls without the first word.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from benchmarks.data import DEFAULT_DATA, positive_int, read_captions
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import erase_words, explain_similarity, similarity

WORDS = ["dog", "red", "guitar", "snow"]


def leace(X: np.ndarray, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the map M of the least-squares concept eraser x -> x - M (x - mean)."""
    mean, c = X.mean(axis=0), X - X.mean(axis=0)
    values, vectors = np.linalg.eigh(c.T @ c / len(c))
    root = np.sqrt(values + 1e-4 * values.mean())
    whiten, colour = (vectors / root) @ vectors.T, (vectors * root) @ vectors.T
    q = np.linalg.qr(whiten @ c.T @ (Z - Z.mean(axis=0)))[0]
    return mean, colour @ q @ q.T @ whiten


def erasure(model: FLiPExtractor, X: Any, Y: Any, X_dev: Any, Y_dev: Any) -> None:
    """Print the recall of the erased words before, after, and by new models."""
    columns = [list(model.vocabulary_).index(word) for word in WORDS]
    contains = Y_dev[:, columns].toarray() > 0
    k = np.diff(Y_dev.indptr)

    def print_line(name: str, evaluated: FLiPExtractor, E: np.ndarray) -> None:
        top = evaluated._top_words(E, int(k.max()))
        in_top_k = np.arange(top.shape[1]) < k[:, None]
        recall = []
        for j, column in enumerate(columns):
            is_found = ((top == column) & in_top_k).any(axis=1)
            recall.append(is_found[contains[:, j]].mean())
        distance = np.linalg.norm(E - X_dev, axis=1)[contains.any(axis=1)].mean()
        cells = [f"{value:.3f}" for value in (*recall, evaluated.score(E, Y_dev), distance)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    def new_model(E: np.ndarray) -> FLiPExtractor:
        return FLiPExtractor(**model.get_params()).fit(E, Y)

    print(f"| model | {' | '.join(WORDS)} | keyword accuracy | distance |")
    print("|---|" + "---|" * (len(WORDS) + 2))
    print_line("the model, before", model, X_dev)
    erased = erase_words(model, X_dev, WORDS)
    print_line("the model, words erased", model, erased.X)
    print_line("a new model, words erased", new_model(erase_words(model, X, WORDS).X), erased.X)
    mean, M = leace(X.astype(float), (Y[:, columns].toarray() > 0).astype(float))
    print_line("a new model, LEACE", new_model(X - (X - mean) @ M.T), X_dev - (X_dev - mean) @ M.T)
    unit = erased.X / np.linalg.norm(erased.X, axis=1, keepdims=True)
    lift = erase_words(model, unit, WORDS).score_before[erased.score_before > 0]
    print(f"\nlift after normalization: mean {lift.mean():.3f}, maximum {lift.max():.3f}\n")


def agreement(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, n_words: int = 300) -> None:
    """Print the cosine between the vector of a word and the mean embedding of captions with the word."""
    words = np.argsort(-model.word_counts_)[:n_words]
    present = (Y[:, words] > 0).astype(np.float32)
    c = X - model.embedding_mean_
    means = (present.T @ c) / present.sum(axis=0)[:, None]
    directions = model.word_embeddings_[words] @ model.projection_
    patterns, axes, _ = similarity._patterns(model, model)
    for name, vectors in (
        ("direction", directions),
        ("covariance times direction", directions @ np.cov(X.T)),
        ("pattern", patterns[words] @ axes),
    ):
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(means, axis=1)
        cosines = (vectors * means).sum(axis=1) / np.maximum(lengths, 1e-12)
        print(f"{name}: median cosine {np.median(cosines):.2f} to the mean embeddings of the words")
    print()


def explanations(model: FLiPExtractor, X: Any, X_dev: Any, Y_dev: Any, n_pairs: int) -> None:
    """Print the contributions of words, and whether the words occur in the captions."""
    directions = model.word_embeddings_ @ model.projection_
    eye = np.eye(X.shape[1])
    vectors = {
        "direction B^T a": (directions, eye, 1.0),
        "covariance times direction": (directions @ np.cov(X.T).astype(np.float32), eye, 1.0),
        "pattern B^+ a": similarity._patterns(model, model),
    }
    lasso = similarity._strengths

    def best_lifts(patterns: np.ndarray, target: np.ndarray, threshold: float) -> np.ndarray:
        c = target @ word_vectors[1]
        best_words = np.argsort(-(directions @ c))[:20]
        result = np.zeros(len(patterns))
        result[best_words] = lasso(np.ascontiguousarray(patterns[best_words]), target, 0.0)
        return result

    is_stop_word = np.array([word in ENGLISH_STOP_WORDS for word in model.vocabulary_])
    pairs = nearest_pairs(X_dev, n_pairs)
    header = "vector | words from | threshold | words | cosine | common | contribution of words | "
    print(f"| {header}\\|residual\\| | shared words found | best three in the texts |")
    print("|---|" + "---|" * 9)
    settings = [(kind, "vocabulary", 0.05) for kind in vectors]
    settings += [("pattern B^+ a", "20 best lifts", 0.0)]
    settings += [("pattern B^+ a", "vocabulary", t) for t in (0.02, 0.1, 0.2)]
    for kind, source, threshold in settings:
        word_vectors = vectors[kind]
        shared_found, best_in_texts, values = [], [], []
        solve = lasso if source == "vocabulary" else best_lifts
        with (
            mock.patch.object(similarity, "_patterns", mock.Mock(return_value=word_vectors)),
            mock.patch.object(similarity, "_strengths", solve),
        ):
            for i, j in pairs:
                result = explain_similarity(model, X_dev[i], X_dev[j], threshold=threshold)
                first, second = (set(model.vocabulary_[Y_dev[[a]].indices]) for a in (i, j))
                shared = (first & second) - set(model.vocabulary_[is_stop_word])
                ranked = result.words[np.argsort(-result.contribution)]
                if shared:
                    shared_found.append(len(shared & {*ranked[: len(shared)]}) / len(shared))
                best_in_texts.append(np.mean([word in first | second for word in ranked[:3]]))
                parts = (result.common, result.contribution.sum(), abs(result.residual))
                values.append((len(result.words), result.cosine, *parts))
        size, *rest = np.mean(values, axis=0)
        cells = [f"{value:.3f}" for value in (*rest, np.mean(shared_found), np.mean(best_in_texts))]
        print(f"| {kind} | {source} | {threshold} | {size:.0f} | {' | '.join(cells)} |", flush=True)


def counterfactuals(model: FLiPExtractor, X_dev: Any, n_pairs: int) -> None:
    """Print the contribution of the first word, and how much the cosine falls without it."""
    pairs, values = nearest_pairs(X_dev, n_pairs), []
    for i, j in pairs:
        result = explain_similarity(model, X_dev[i], X_dev[j])
        word = str(result.words[0])
        without = result.without(word)
        y1, y2 = erase_words(model, X_dev[[i, j]], word).X.astype(float)
        erased = y1 @ y2 / (np.linalg.norm(y1) * np.linalg.norm(y2))
        one = (without.fall_first + without.fall_second) / 2
        values.append(
            (
                without.contribution,
                one,
                without.fall_both,
                result.cosine - without.cosine,
                result.cosine - erased,
            )
        )
    print("\n| first word of a pair | mean |\n|---|---|")
    names = (
        "contribution",
        "fall of the words' part, pattern taken out of one embedding",
        "fall of the words' part, pattern taken out of both",
        "fall of the cosine, pattern taken out of both",
        "fall of the cosine, word erased from both",
    )
    for name, value in zip(names, np.mean(values, axis=0), strict=True):
        print(f"| {name} | {value:.3f} |")


def nearest_pairs(X_dev: np.ndarray, n_pairs: int) -> list[tuple[int, int]]:
    """Return drawn captions, each with its nearest neighbour."""
    cosines = X_dev @ X_dev.T
    np.fill_diagonal(cosines, -1)
    rows = np.random.default_rng(0).choice(len(X_dev), n_pairs, replace=False)
    return [(i, int(cosines[i].argmax())) for i in rows]


def main() -> None:
    """Fit one model and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=10_000, help="training rows")
    parser.add_argument("--pairs", type=positive_int, default=60, help="pairs of dev captions")
    parser.add_argument("--passes", type=positive_int, default=6, help="training passes")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, texts = read_captions(args.data, "train")
    X_dev, dev_texts = read_captions(args.data, "dev")
    X, texts = X[: args.rows].astype(np.float32), texts[: args.rows]
    X_dev = X_dev.astype(np.float32)
    words = CountVectorizer(strip_accents="ascii", min_df=2).fit(texts)
    Y, Y_dev = sp.csr_array(words.transform(texts)), sp.csr_array(words.transform(dev_texts))
    model = FLiPExtractor(vocabulary=words.vocabulary_, max_iter=args.passes, random_state=0).fit(X, Y)
    erasure(model, X, Y, X_dev, Y_dev)
    agreement(model, X, Y)
    explanations(model, X, X_dev, Y_dev, args.pairs)
    counterfactuals(model, X_dev, args.pairs)


if __name__ == "__main__":
    main()

"""What word erasure and the explanation of a cosine achieve on captions, as Markdown tables.

    python -m benchmarks.bench_explanations               # the tables of docs/diagnostics.md
    python -m benchmarks.bench_explanations --rows 3000   # a quick look

Reads captions.{train,dev}.en.{txt.gz,npy} from --data. Erasure: how many captions with a word have it
among their k best (k: distinct words of the caption), by the model that erased it and by a new one,
trained on erased embeddings; LEACE (Belrose et al. 2023) from the training captions' words next to it.
Similarity: nearest neighbours among the dev captions, by what stands for a word and by threshold.
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

from benchmarks.bench_settings import DATA, read
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import erase_words, explain_similarity, similarity

WORDS = ["dog", "red", "guitar", "snow"]


def leace(X: np.ndarray, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the map M of the least-squares concept eraser x -> x - M (x - mean)."""
    mean, c = X.mean(axis=0), X - X.mean(axis=0)
    values, vectors = np.linalg.eigh(c.T @ c / len(c))
    root = np.sqrt(values + 1e-4 * values.mean())
    whiten, colour = (vectors / root) @ vectors.T, (vectors * root) @ vectors.T
    q = np.linalg.qr(whiten @ c.T @ (Z - Z.mean(axis=0)))[0]
    return mean, colour @ q @ q.T @ whiten


def erasure(model: FLiPExtractor, X: Any, Y: Any, X_dev: Any, Y_dev: Any) -> None:
    """Recall of the erased words before, after, and by new models."""
    columns = [list(model.vocabulary_).index(word) for word in WORDS]
    has = Y_dev[:, columns].toarray() > 0
    k = np.diff(Y_dev.indptr)

    def line(name: str, reader: FLiPExtractor, E: np.ndarray) -> None:
        top = reader._top_words(E, int(k.max()))
        inside = np.arange(top.shape[1]) < k[:, None]
        recall = [
            ((top == c) & inside)[has[:, j]].any(axis=1).mean() for j, c in enumerate(columns)
        ]
        moved = np.linalg.norm(E - X_dev, axis=1)[has.any(axis=1)].mean()
        cells = [f"{value:.3f}" for value in (*recall, reader.score(E, Y_dev), moved)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    def new(E: np.ndarray) -> FLiPExtractor:
        return FLiPExtractor(**model.get_params()).fit(E, Y)

    print(f"| read by | {' | '.join(WORDS)} | keyword accuracy | moved |")
    print("|---|" + "---|" * (len(WORDS) + 2))
    line("the model, before", model, X_dev)
    erased = erase_words(model, X_dev, WORDS)
    line("the model, words erased", model, erased.X)
    line("a new model, words erased", new(erase_words(model, X, WORDS).X), erased.X)
    mean, M = leace(X.astype(float), (Y[:, columns].toarray() > 0).astype(float))
    line("a new model, LEACE", new(X - (X - mean) @ M.T), X_dev - (X_dev - mean) @ M.T)
    length = np.linalg.norm(erased.X, axis=1, keepdims=True)
    again = erase_words(model, erased.X / length, WORDS).score_before[erased.score_before > 0]
    print(
        f"\nlift after normalizing again: {again.mean():.3f} in the mean, {again.max():.3f} at most\n"
    )


def agreement(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, n_words: int = 300) -> None:
    """Cosine between what stands for a word and the mean embedding of the captions that have it."""
    words = np.argsort(-model.word_counts_)[:n_words]
    present = (Y[:, words] > 0).astype(np.float32)
    c = X - model.embedding_mean_
    means = (present.T @ c) / present.sum(axis=0)[:, None]
    directions = model.word_embeddings_[words] @ model.projection_
    patterns, axes = similarity._patterns(model)
    for name, vectors in (
        ("direction", directions),
        ("covariance times direction", directions @ np.cov(X.T)),
        ("pattern", patterns[words] @ axes),
    ):
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(means, axis=1)
        cosines = (vectors * means).sum(axis=1) / np.maximum(lengths, 1e-12)
        print(f"{name}: median cosine {np.median(cosines):.2f} to the words' mean embeddings")
    print()


def explanations(model: FLiPExtractor, X: Any, X_dev: Any, Y_dev: Any, n_pairs: int) -> None:
    """What the words carry, and whether they are the captions' own."""
    directions = model.word_embeddings_ @ model.projection_
    eye = np.eye(X.shape[1])
    kinds = {
        "direction B^T a": (directions, eye),
        "covariance times direction": (directions @ np.cov(X.T).astype(np.float32), eye),
        "pattern B^+ a": similarity._patterns(model),
    }
    lasso = similarity._strengths

    def best_lifts(patterns: np.ndarray, target: np.ndarray, threshold: float) -> np.ndarray:
        c = target @ now[1]
        chosen = np.argsort(-(directions @ c))[:20]
        result = np.zeros(len(patterns))
        result[chosen] = lasso(np.ascontiguousarray(patterns[chosen]), target, 0.0)
        return result

    stop = np.array([word in ENGLISH_STOP_WORDS for word in model.vocabulary_])
    cosines = X_dev.astype(np.float32) @ X_dev.T.astype(np.float32)
    np.fill_diagonal(cosines, -1)
    rows = np.random.default_rng(0).choice(len(X_dev), n_pairs, replace=False)
    pairs = [(i, int(cosines[i].argmax())) for i in rows]
    print("| a word is | words from | threshold | words | cosine | common | words carry | ", end="")
    print("\\|residual\\| | shared words found | best three in the texts |\n|---|" + "---|" * 9)
    settings = [(kind, "vocabulary", 0.05) for kind in kinds]
    settings += [("pattern B^+ a", "20 best lifts", 0.0)]
    settings += [("pattern B^+ a", "vocabulary", t) for t in (0.02, 0.1, 0.2)]
    for kind, source, threshold in settings:
        now = kinds[kind]
        found, best, values = [], [], []
        chooser = lasso if source == "vocabulary" else best_lifts
        with (
            mock.patch.object(similarity, "_patterns", lambda model, now=now: now),
            mock.patch.object(similarity, "_strengths", chooser),
        ):
            for i, j in pairs:
                result = explain_similarity(model, X_dev[i], X_dev[j], threshold=threshold)
                first, second = (set(model.vocabulary_[Y_dev[[a]].indices]) for a in (i, j))
                shared = (first & second) - set(model.vocabulary_[stop])
                ranked = result.words[np.argsort(-result.contribution)]
                if shared:
                    found.append(len(shared & {*ranked[: len(shared)]}) / len(shared))
                best.append(np.mean([word in first | second for word in ranked[:3]]))
                carried = result.contribution.sum(), abs(result.residual)
                values.append((len(result.words), result.cosine, result.common, *carried))
        size, *rest = np.mean(values, axis=0)
        cells = [f"{value:.3f}" for value in (*rest, np.mean(found), np.mean(best))]
        print(f"| {kind} | {source} | {threshold} | {size:.0f} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Fit one model and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--passes", type=int, default=6)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, texts = read(arguments.data, "train")
    X_dev, texts_dev = read(arguments.data, "dev")
    X, texts = X[: arguments.rows].astype(np.float32), texts[: arguments.rows]
    words = CountVectorizer(strip_accents="ascii", min_df=2).fit(texts)
    Y, Y_dev = sp.csr_array(words.transform(texts)), sp.csr_array(words.transform(texts_dev))
    model = FLiPExtractor(
        vocabulary=words.vocabulary_, max_iter=arguments.passes, random_state=0
    ).fit(X, Y)
    erasure(model, X, Y, X_dev.astype(np.float32), Y_dev)
    agreement(model, X, Y)
    explanations(model, X, X_dev.astype(np.float32), Y_dev, arguments.pairs)


if __name__ == "__main__":
    main()

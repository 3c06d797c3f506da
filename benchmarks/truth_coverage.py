"""Coverage of the confidence intervals of the package: how often they contain a planted truth.

Run from the root of the repository; no files are needed:

    python -m benchmarks.truth_coverage                  # 300 samples, five minutes on one core
    python -m benchmarks.truth_coverage --samples 100

Sentences are drawn with word scores in place of embeddings, and every diagnosis is run on each sample. The
truth is the value of the same diagnosis on a sample that is many times as large. A sample has 240 different
sentences: independent ones, each of them three times (equal rows are one group by themselves), or three of
each of 80 speakers, who are passed as groups. Standard errors of metrics are taken for intervals of 1.96 of
them; metrics have no groups, so ``RowMean.of(..., groups=)`` gives theirs.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from benchmarks.data import positive_int
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import (
    compare_encoders,
    compare_extractors,
    entity_recall_curve,
    rank_analysis,
    split_sentences,
    view_alignment,
    vocabulary_preference,
    word_recoverability,
)
from flip_sklearn.metrics import RowMean, entity_recall, keyword_accuracy, perplexity, precision_recall

N_SENTENCES, N_COMMON, N_RARE = 240, 20, 5
N_WORDS = N_COMMON + N_RARE
WORDS = [f"common{i}" for i in range(N_COMMON)] + [f"name{i}" for i in range(N_RARE)]
BANDS = ["common"] * N_COMMON + ["rare"] * N_RARE
KINDS = ("independent", "three copies", "speakers")
# Rows of the training part of the diagnoses that split sentences; the stand-ins learn nothing from them.
N_TRAIN = 20


@dataclass
class Sample:
    """Scores of the words in two views and of a third method, counts, and groups where they are passed."""

    text: np.ndarray
    speech: np.ndarray
    other: np.ndarray
    Y: np.ndarray
    groups: np.ndarray | None
    clusters: np.ndarray


class Scores(BaseEstimator):
    """An estimator whose embeddings hold the scores of two methods; ``rank=1`` reads the second ones."""

    def __init__(self, rank: int | None = None) -> None:
        self.rank = rank

    def fit(self, X: Any, Y: Any) -> Scores:
        """Learn nothing."""
        self.vocabulary_ = np.array(WORDS, dtype=object)
        self.word_counts_ = np.arange(N_WORDS, 0, -1)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of one of the methods."""
        return np.asarray(X)[:, N_WORDS:] if self.rank == 1 else np.asarray(X)[:, :N_WORDS]


def draw(rng: np.random.Generator, n: int, kind: str) -> Sample:
    """Sentences of four common words and, one in ten, a rare word that is hardly found."""
    Y = np.zeros((n, N_WORDS), dtype=int)
    common = rng.random((n, N_COMMON)).argsort(axis=1)[:, :4]
    np.put_along_axis(Y, common, 1, axis=1)
    rare_rows = np.flatnonzero(rng.random(n) < 0.1)
    Y[rare_rows, N_COMMON + rng.integers(N_RARE, size=len(rare_rows))] = 1
    clusters = np.arange(n) // 3 if kind == "speakers" else np.arange(n)
    clarity = rng.normal(size=(clusters[-1] + 1, 1))[clusters] * (kind == "speakers")
    signal = Y * np.where(np.arange(N_WORDS) < N_COMMON, 2.5 + 0.7 * clarity, 0.6 + 0.7 * clarity)
    noise = rng.normal(size=(n, N_WORDS))
    text = signal + noise
    speech = 0.8 * signal + 0.8 * noise + 0.6 * rng.normal(size=(n, N_WORDS))
    # The other method differs from the first in one of 50 sentences.
    other = np.where(rng.random((n, 1)) < 0.02, rng.normal(size=(n, N_WORDS)), text + 1e-9)
    arrays = [text, speech, other, Y]
    if kind == "three copies":
        arrays = [np.repeat(array, 3, axis=0) for array in arrays]
        clusters = np.repeat(clusters, 3)
    return Sample(*arrays, clusters if kind == "speakers" else None, clusters)


def reader_of_names() -> FLiPExtractor:
    """A FLiP model whose embeddings are the scores; its bias ranks names behind common words."""
    rng = np.random.default_rng(0)
    fitted = FLiPExtractor(vocabulary=WORDS, rank=None, max_iter=1, random_state=0)
    fitted.fit(rng.normal(size=(60, N_WORDS)), np.ones((60, N_WORDS)))
    model = copy.copy(fitted)
    model.word_embeddings_, model.projection_ = np.eye(N_WORDS), np.eye(N_WORDS)
    model.embedding_mean_, model.bias_ = np.zeros(N_WORDS), np.repeat([0.0, -1.5], [N_COMMON, N_RARE])
    return model


def intervals(
    sample: Sample, flip: FLiPExtractor, n_bootstrap: int = 1000
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, values, and ends of every interval of a sample."""
    settings: dict[str, Any] = {"n_bootstrap": n_bootstrap, "random_state": 0, "verbose": 0}
    scores = Scores().fit(sample.text, sample.Y)
    words = word_recoverability(scores, sample.text, sample.Y, by=BANDS, groups=sample.groups, **settings)
    names = [[WORDS[j] for j in np.flatnonzero(row[N_COMMON:]) + N_COMMON] for row in sample.Y]
    curve = entity_recall_curve(flip, sample.text, names, ks=[5], groups=sample.groups, **settings)
    yield "word_recoverability: common band", *ends(words.band_recall, 0)
    yield "word_recoverability: rare band", *ends(words.band_recall, 1)
    yield "word_recoverability: rare band minus all words", *ends(words.band_difference, 1)
    yield "word_recoverability: all words", *ends(words.overall)
    yield "word_recoverability: common words, one by one", *ends(words.word_interval(), slice(N_COMMON))
    yield "word_recoverability: rare words, one by one", *ends(words.word_interval(), slice(N_COMMON, None))
    for b, bias in enumerate(("with bias", "without")):
        yield f"entity_recall_curve: strict, {bias}", *ends(curve.recall_strict, b)
        yield f"entity_recall_curve: precision, {bias}", *ends(curve.precision, b)
    yield "entity_recall_curve: without minus with bias", *ends(curve.difference)
    train = np.random.default_rng(0).normal(size=(N_TRAIN, N_WORDS))
    text, speech, other = (np.vstack([train, X]) for X in (sample.text, sample.speech, sample.other))
    Y = np.vstack([np.ones((N_TRAIN, N_WORDS), dtype=int), sample.Y])
    is_test = np.arange(len(Y)) >= N_TRAIN
    groups = None if sample.groups is None else np.append(-1 - np.arange(N_TRAIN), sample.groups)
    views = {"text": text, "speech": speech}
    split = split_sentences(views, groups=groups, test=is_test)
    options = settings | {"split": split}
    alignment = view_alignment(views, Y, estimator=Scores(), **options)
    yield "view_alignment: accuracy", *ends(alignment.accuracy, (0, [0, 1]))
    yield "view_alignment: difference", *ends(alignment.difference, (0, 1))
    yield "view_alignment: Jaccard index", *ends(alignment.jaccard, (0, 1))
    preference = vocabulary_preference(views, {"words": Y}, estimator=Scores(), **options)
    yield "vocabulary_preference: difference", *ends(preference.difference, (0, 1))
    encoders = {"one": {"text": text}, "two": {"text": speech}}
    encoder = compare_encoders(encoders, {"words": Y}, estimator=Scores(), **options)
    yield "compare_encoders: difference", *ends(encoder.difference, (1, 0, 0))
    both = np.hstack([text, other])
    ranks = rank_analysis(both, Y, [1, None], estimator=Scores(), **options)
    yield "rank_analysis: difference, 1 of 50 sentences", *ends(ranks.difference, (0, 0))
    extractors = compare_extractors(both, Y, {"one": Scores(), "two": Scores(rank=1)}, **options)
    yield "compare_extractors: accuracy", *ends(extractors.accuracy, (0, 0))
    yield "compare_extractors: difference, 1 of 50 sentences", *ends(extractors.difference, (1, 0))
    log_proba = sample.text - np.log(np.exp(sample.text).sum(axis=1, keepdims=True))
    rates = precision_recall(sample.Y, sample.text, n=5)
    # With the bias hardly any name is found, and standard errors of few hits are no intervals.
    without_bias = copy.copy(flip).set_params(use_bias=False)
    found = entity_recall(names, without_bias.extract_keywords(sample.text, top_k=5))
    metrics = {
        "keyword_accuracy": keyword_accuracy(sample.Y, sample.text),
        "precision_recall: f1": rates.f1,
        "entity_recall: strict, without": found.recall_strict,
    }
    for name, result in metrics.items():
        mean = RowMean.of(result.per_row, groups=sample.clusters)
        yield f"{name}, 1.96 standard errors", *around(mean)
    if sample.groups is None and len(np.unique(sample.clusters)) == len(sample.Y):
        yield "perplexity, 1.96 standard errors", *around(perplexity(sample.Y, log_proba))


def ends(interval: Any, index: Any = ...) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value and ends at an index."""
    value, low, high = (np.ravel(part[index]) for part in (interval.value, interval.low, interval.high))
    return value, low, high


def around(result: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, and 1.96 standard errors on both sides."""
    half = 1.96 * result.standard_error
    return tuple(np.array([result.value + side]) for side in (0, -half, half))


def measure(kind: str, samples: Sequence[int]) -> dict[str, list[float]]:
    """Whether the interval has the truth, by name, in samples of these numbers."""
    flip, index = reader_of_names(), KINDS.index(kind)
    large = draw(np.random.default_rng([index]), 30_000, kind)
    truth = {name: value for name, value, *_ in intervals(large, flip, n_bootstrap=10)}
    covered: dict[str, list[float]] = {}
    for number in samples:
        sample = draw(np.random.default_rng([index, number]), N_SENTENCES, kind)
        for name, _, low, high in intervals(sample, flip):
            is_known = np.isfinite(low)  # a word that is in no sentence has no interval
            inside = (low <= truth[name]) & (truth[name] <= high)
            covered.setdefault(name, []).append(float(inside[is_known].mean()) if is_known.any() else np.nan)
    return covered


def print_table(tables: dict[str, dict[str, list[float]]], n_samples: int) -> None:
    """Print the share of samples whose interval has the truth."""
    print(f"Coverage of 95 % intervals, {n_samples} samples of {N_SENTENCES} different sentences\n")
    print(f"| interval | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}")
    for name in tables[KINDS[0]]:
        cells = [f"{np.nanmean(tables[kind][name]):.3f}" if name in tables[kind] else "" for kind in KINDS]
        print(f"| {name} | {' | '.join(cells)} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=positive_int, default=300, help="samples of each kind")
    args = parser.parse_args(arguments)
    print_table({kind: measure(kind, range(args.samples)) for kind in KINDS}, args.samples)


if __name__ == "__main__":
    main()

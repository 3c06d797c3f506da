"""One row with many words does not make rankings of all rows as wide: they are streamed by blocks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator

from flip_sklearn import FLiPExtractor, SpLiCEExtractor, keyword_accuracy_scorer
from flip_sklearn.cli.evaluation import held_out_accuracies
from flip_sklearn.diagnostics.evaluation import find_most_frequent, find_words
from flip_sklearn.metrics import hit_sets, keyword_accuracy, ranking

N, V, D = 20_000, 2_000, 4


def one_long_row(n: int = N, n_words: int = V) -> sp.csr_array:
    """Three words a row, all words in the last but one; some rows have none."""
    rng = np.random.default_rng(0)
    row = np.repeat(np.arange(n), 3)
    Y = sp.coo_array((np.ones(3 * n), (row, rng.integers(0, n_words, 3 * n))), shape=(n, n_words)).tolil()
    Y[n - 2], Y[3] = np.ones((1, n_words)), np.zeros((1, n_words))
    return sp.csr_array(Y.tocsr() > 0).astype(float)


class Scores(BaseEstimator):
    """Scores that are a linear function of X."""

    def __init__(self, weights: Any = None) -> None:
        self.weights = weights

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return X @ self.weights


def models(n_words: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(60, D)), rng.poisson(0.5, size=(60, n_words))
    words = [f"word{j}" for j in range(n_words)]
    options = {"vocabulary": words, "device": "cpu"}
    return {
        "flip": FLiPExtractor(max_iter=1, random_state=0, **options).fit(X, Y),
        "splice": SpLiCEExtractor(rng.normal(size=(n_words, D)), l1_strength=0.1, **options).fit(X),
        "other": Scores(rng.normal(size=(D, n_words))),
    }


@pytest.mark.parametrize("block", [1, 7, 100, 2**24])
@pytest.mark.parametrize("kind", ["flip", "splice", "other"])
def test_blocks_of_rows_find_the_words_that_all_rows_together_find(
    kind: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Y, X = one_long_row(40, 12), np.random.default_rng(2).normal(size=(40, D))
    model, words = models(12)[kind], ranking.binary_csr(Y)
    scores = model.transform(X) if kind == "splice" else model.decision_function(X)
    expected = ranking.hits(words, ranking.top_indices(scores, words.shape, 12)).toarray()
    assert 15 < expected.sum() < words.nnz
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", block)
    np.testing.assert_array_equal(find_words(model, X, words).toarray(), expected)
    np.testing.assert_array_equal(hit_sets(Y, scores).toarray(), expected)
    per_row = expected.sum(axis=1)[Y.sum(axis=1) > 0] / np.diff(words.indptr)[Y.sum(axis=1) > 0]
    assert keyword_accuracy(Y, scores).value == pytest.approx(per_row.mean())
    if kind != "splice":
        assert keyword_accuracy_scorer(model, X, Y) == pytest.approx(per_row.mean())
    if kind == "flip":
        figures = held_out_accuracies(model, X, Y)
        assert figures["with_bias"].value == pytest.approx(per_row.mean())
    counts = find_most_frequent(Y, words).toarray()
    top = np.tile(np.argsort(-Y.sum(axis=0), kind="stable"), (40, 1))
    np.testing.assert_array_equal(counts, ranking.hits(words, top).toarray())


@pytest.mark.parametrize("n", [0, 1])
def test_no_rows_and_one_row(n: int) -> None:
    words = ranking.binary_csr(np.ones((n, 3)))
    found = ranking.stream_hits(words, lambda rows, k: np.zeros((n, 1), dtype=np.int64))
    assert found.shape == (n, 3)
    assert found.nnz == n


def verbs(X: np.ndarray, Y: sp.csr_array) -> dict[str, Callable[[], object]]:
    model, words = models(V), ranking.binary_csr(Y)
    sparse_scores = sp.csr_array(Y * 0.5)
    return {
        "scorer": lambda: keyword_accuracy_scorer(model["other"], X, Y),
        "sparse scores": lambda: keyword_accuracy(Y, sparse_scores),
        "diagnoses": lambda: find_words(model["flip"], X, words),
        "baseline": lambda: find_most_frequent(Y, words),
        "command line": lambda: held_out_accuracies(model["flip"], X, Y),
    }


@pytest.mark.parametrize("verb", ["scorer", "sparse scores", "diagnoses", "baseline", "command line"])
def test_memory_does_not_grow_with_rows_times_the_widest_row(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", 2**18)
    Y, X = one_long_row(), np.random.default_rng(2).normal(size=(N, D))
    run = verbs(X, Y)[verb]
    tracemalloc.start()
    try:
        run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < N * V * 8 / 10  # a tenth of one ranking of all rows

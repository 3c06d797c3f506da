"""The readers that benchmarks.bench_alternatives compares: exact small cases, and planted words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge

from benchmarks import bench_alternatives
from benchmarks.alternative_readers import (
    FLiP,
    MostFrequent,
    NearestTexts,
    NearestWords,
    Reader,
    RidgeReader,
    SparseAutoencoder,
    SpLiCE,
    Training,
)

N, D, V = 300, 24, 12


@pytest.fixture(scope="module")
def training() -> Training:
    """Rows that are sums of the embeddings of three words, nearly orthogonal, and a constant."""
    rng = np.random.default_rng(0)
    D_words = np.linalg.qr(rng.normal(size=(D, D)))[0][:V]
    columns = np.array([rng.choice(V, 3, replace=False) for _ in range(N)])
    Y = sp.csr_array((np.ones(3 * N), (np.repeat(np.arange(N), 3), columns.ravel())), shape=(N, V))
    X = (Y @ D_words + 0.2).astype(np.float32)
    words = np.array([f"word{j:02}" for j in range(V)])
    return Training(X, Y, words, D_words.astype(np.float32))


def test_ridge_is_that_of_sklearn(training: Training) -> None:
    X = training.X.astype(float)
    scatter = (X - X.mean(axis=0)).T @ (X - X.mean(axis=0))
    model = Ridge(alpha=0.3 * np.trace(scatter) / D).fit(X, training.Y.toarray() > 0)
    expected = model.predict(X)
    for use_intercept in (True, False):
        reader = RidgeReader(0.3, use_intercept).fit(training)
        shift = 0 if use_intercept else training.Y.toarray().mean(axis=0)
        np.testing.assert_allclose(reader.scores(training.X) + shift, expected, atol=1e-4)


def test_nearest_texts_of_a_loop(training: Training) -> None:
    scores = NearestTexts(n_neighbors=5, temperature=0.1).fit(training).scores(training.X[:3])
    U = training.X / np.linalg.norm(training.X, axis=1, keepdims=True)
    for row in range(3):
        cosines = U @ U[row]
        best = np.argsort(-cosines)[:5]
        weights = np.exp(cosines[best] / 0.1)
        expected = weights @ training.Y.toarray()[best] / weights.sum()
        np.testing.assert_allclose(scores[row], expected, atol=1e-3)


@pytest.mark.parametrize(
    "reader",
    [
        FLiP(),
        FLiP(rank=None, use_bias=False),
        FLiP(use_word_vectors=True),
        RidgeReader(0.01, use_intercept=False),
        NearestWords(centred=True),
        SpLiCE(0.05),
    ],
    ids=lambda reader: type(reader).__name__,
)
def test_planted_words_are_read(training: Training, reader: Reader) -> None:
    assert share_found(reader, training) > 0.85
    assert reader.n_bytes() > 0


def share_found(reader: Reader, training: Training) -> float:
    """The share of the words of held-out rows that are among the three best."""
    top = reader.fit(training.rows(slice(250))).top(training.X[250:], 3)
    expected = training.Y[250:].toarray()
    return float(np.mean([expected[i, row[row >= 0]].sum() / 3 for i, row in enumerate(top)]))


def test_features_of_the_autoencoder_have_words(training: Training) -> None:
    """Its features are found without the texts, so that they are words in part; chance is a quarter."""
    for n_names in (None, 3):
        reader = SparseAutoencoder(n_features=60, k=5, n_names=n_names, n_steps=40)
        assert share_found(reader, training) > 0.45
        codes = reader.codes(training.X)
        assert codes.data.min() >= 0
        assert np.diff(codes.indptr).max() == 5


def test_most_frequent_words_are_a_floor(training: Training) -> None:
    """Negative control: three of twelve equally frequent words are right by chance for a quarter."""
    top = MostFrequent().fit(training).top(training.X, 3)
    assert len(np.unique(top, axis=0)) == 1
    assert training.Y[:, top[0]].mean() < 0.35


def test_n_bytes_of_dense_and_sparse_arrays(training: Training) -> None:
    assert NearestWords().fit(training).n_bytes() == 4 * (V * D + D)
    Y = training.has_word
    indices = Y.indices.nbytes + Y.indptr.nbytes
    assert NearestTexts().fit(training).n_bytes() == 4 * N * D + 4 * Y.nnz + indices


def test_comparison(training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [" ".join(training.words[row.indices]) for row in training.Y[250:]]
    vectorizer = CountVectorizer(vocabulary=list(training.words))
    data = bench_alternatives.Sentences(
        "planted", training.rows(slice(250)), training.X[250:], training.Y[250:], texts, vectorizer
    )
    for columns, text, x in zip(bench_alternatives.keybert_keywords(data), texts, data.X, strict=True):
        words = text.split()
        cosine = {word: training.word_vectors[list(training.words).index(word)] @ x for word in words}
        assert list(training.words[columns]) == sorted(words, key=lambda word: -cosine[word])
    methods = ["ridge regression", "nearest words", "most frequent words"]
    readings = bench_alternatives.compare(data, methods)
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in methods)
    assert readings["ridge regression"].accuracy.value > 0.9
    assert readings["ridge regression"].n_right.value == pytest.approx(3, abs=0.2)
    bench_alternatives.draw(readings, "planted", tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 5000

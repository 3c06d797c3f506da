"""Scores and best words of raw embeddings: the result does not depend on blocks, storage or threads."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn import FLiPExtractor, KeywordMapper
from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.scoring import products
from flip_sklearn.backend.scoring import scorer as scorer_module
from flip_sklearn.backend.scoring.scorer import UNSEEN_SCORE, Scorer
from flip_sklearn.estimation import scoring
from flip_sklearn.metrics import keyword_accuracy
from tests.helpers.ranking import integer_model, sorted_top

DOUBLE, SINGLE = resolve_compute("auto", "float64"), resolve_compute("auto", "float32")
DEVICE = SINGLE.device.type


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), n_words=st.integers(1, 30), block=st.integers(1, 50), seed=st.integers(0, 99))
def test_scores_equal_their_definition(n: int, n_words: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n_words, 3)), rng.normal(size=(3, 4))
    offset, mean, X = rng.normal(size=n_words), rng.normal(size=4), rng.normal(size=(n, 4))
    scorer = Scorer(A, B, offset, mean, DOUBLE, np.zeros(n_words, dtype=bool))
    z = offset + (X - mean) @ B.T @ A.T
    theta = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    k = int(rng.integers(1, n_words + 1))
    order = np.argsort(-z, axis=1)[:, :k]
    with pytest.MonkeyPatch().context() as m:
        m.setitem(products.BLOCK_ROWS, DEVICE, (block, block))
        indices, scores = scorer.top(X, k)
        _, probabilities = scorer.top(X, k, probabilities=True)
        np.testing.assert_allclose(scorer.dense(X, "scores"), z)
        np.testing.assert_allclose(scorer.dense(X, "softmax"), theta)
        np.testing.assert_allclose(scorer.dense(X, "log_softmax"), np.log(theta), atol=1e-12)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, np.take_along_axis(z, order, axis=1))
    np.testing.assert_allclose(probabilities, np.take_along_axis(theta, order, axis=1))


# The models below hold small integers: arithmetic is exact, so results must be equal and not only close.


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 30),
    n_words=st.sampled_from([1, 2, 50, 300, 900]),
    rank=st.integers(1, 6),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    block=st.integers(1, 40),
    precision=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 10**6),
)
def test_results_do_not_depend_on_blocks_or_storage(
    n: int, n_words: int, rank: int, density: float, block: int, precision: str, seed: int
) -> None:
    """Dense or CSR, few or many rows, with or without a search for zeros: same words, same order."""
    A, B, offset, mean, X = integer_model(n, n_words, rank, 4, density, seed)
    rng = np.random.default_rng(seed)
    unseen = rng.random(n_words) < 0.1
    unseen[-1] = False
    A[unseen] = 0
    seen = ~unseen
    compute = resolve_compute("auto", precision)
    dtype = np.float32 if precision == "float32" else np.float64
    z = offset + (X - mean) @ B.T @ A.T
    theta = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf)) * seen
    theta /= theta.sum(axis=1, keepdims=True)
    k = int(rng.integers(1, seen.sum() + 1))
    expected = sorted_top(np.where(seen, z, -np.inf), k)
    Y = sp.csr_array(rng.random((n, n_words)) < rng.choice([0, 0.05, 0.5], size=(n, 1)))
    n_row_words = np.diff(Y.indptr)
    is_row_word = np.asarray(Y.toarray(), dtype=bool)
    ranked = sorted_top(np.where(seen, z, -np.inf), int(seen.sum()))
    n_hits = [int(is_row_word[i, ranked[i, : n_row_words[i]]].sum()) for i in range(n)]
    with pytest.MonkeyPatch().context() as m:
        m.setitem(products.BLOCK_ROWS, DEVICE, (block, block))
        m.setattr(products, "SPARSE_BLOCK_ROWS", block)
        m.setitem(products.TILE_ELEMENTS, DEVICE, 64 * block)
        m.setitem(scorer_module.CHUNK_ROWS, DEVICE, 2 * block + 1)
        for many_rows, csr_density in ((10**9, 0.0), (0, 0.0), (0, 2.0)):
            m.setattr(scorer_module, "MANY_ROWS", many_rows)
            m.setattr(products, "CSR_DENSITY", csr_density)
            for stored in (A.astype(dtype), sp.csr_array(A.astype(dtype))):
                scorer = Scorer(
                    stored, B.astype(dtype), offset.astype(dtype), mean.astype(np.float32), compute, unseen
                )
                indices, values = scorer.top(X, k)
                np.testing.assert_array_equal(indices, expected)
                np.testing.assert_array_equal(values, np.take_along_axis(z, expected, axis=1))
                _, probabilities = scorer.top(X, k, probabilities=True)
                np.testing.assert_allclose(
                    probabilities, np.take_along_axis(theta, expected, axis=1), rtol=1e-4, atol=1e-7
                )
                np.testing.assert_array_equal(scorer.hits(X, Y), n_hits)
                dense = scorer.dense(X, "scores")
                np.testing.assert_array_equal(dense[:, seen], z[:, seen])
                assert (dense[:, unseen] == UNSEEN_SCORE).all()
                np.testing.assert_allclose(scorer.dense(X, "softmax"), theta, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("as_stored", [np.asarray, sp.csr_array])
def test_X_may_have_any_float_format_and_strides(dtype: type, as_stored: type) -> None:
    A, B, offset, mean, X = integer_model(20, 70, 5, 4, 0.5, seed=1)
    expected = sorted_top(offset + (X - mean) @ B.T @ A.T, 3)
    unseen = np.zeros(70, dtype=bool)
    scorer = Scorer(as_stored(A.astype(np.float32)), B, offset, mean.astype(np.float32), SINGLE, unseen)
    X = X.astype(dtype)
    for same in (X, np.asfortranarray(X), X[::-1].copy()[::-1], np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(scorer.top(same, 3)[0], expected)


@pytest.mark.parametrize("as_stored", [np.asarray, sp.csr_array])
def test_every_tensor_is_created_on_the_device_of_the_scorer(
    monkeypatch: pytest.MonkeyPatch, as_stored: type
) -> None:
    """A tensor without a device would be created on the default device, here one without memory."""
    monkeypatch.setattr(scorer_module, "bfloat16_is_fast", lambda device: True)
    monkeypatch.setattr(scorer_module, "MANY_ROWS", 1)
    rng = np.random.default_rng(0)
    A = (rng.normal(size=(3001, 8)) * (rng.random((3001, 8)) < 0.15)).astype(np.float32)
    B, offset, mean, X = (rng.normal(size=s).astype(np.float32) for s in ((8, 4), 3001, 4, (9, 4)))
    compute = Compute(torch.device("cpu"), torch.float32, torch.bfloat16)
    Y = sp.csr_array(rng.random((9, 3001)) < 0.01)

    def results() -> list[np.ndarray]:
        scorer = Scorer(as_stored(A), B, offset, mean, compute, np.arange(3001) < 3)
        return [
            scorer.top(X, 5)[0],
            scorer.top(X, 5, probabilities=True)[1],
            scorer.hits(X, Y),
            scorer.dense(X, "scores"),
            scorer.dense(X, "softmax"),
            scorer.dense(X, "log_softmax"),
        ]

    for density in (0.0, 2.0):
        monkeypatch.setattr(products, "CSR_DENSITY", density)
        expected = results()
        with torch.device("meta"):
            on_meta = results()
        for one, other in zip(expected, on_meta, strict=True):
            np.testing.assert_array_equal(one, other)


def test_word_embeddings_are_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller may score batch by batch: converting or moving A for each batch would be slow."""
    A, B, offset, mean, X = integer_model(20, 70, 5, 4, 0.5, seed=1)
    n_prepared = 0
    make_product = products.make_product

    def counting(*args: Any) -> object:
        nonlocal n_prepared
        n_prepared += 1
        return make_product(*args)

    for module in (products, scorer_module):
        monkeypatch.setattr(module, "make_product", counting)
    for call in (
        lambda scorer: scorer.dense(X, "scores"),
        lambda scorer: scorer.dense(X, "softmax"),
        lambda scorer: scorer.top(X, 3),
    ):
        n_prepared = 0
        scorer = Scorer(sp.csr_array(A), B, offset, mean, DOUBLE, np.zeros(70, dtype=bool))
        results = [call(scorer) for _ in range(3)]
        assert n_prepared == 1
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])
    scorer.top(X, 4)  # another k needs another selection of words
    assert n_prepared == 2


# --- Words that training did not see ---------------------------------------------------------


LEVELS = (0.0, -9_999.0, -9_999.9996, -1e4, -1e4 - 1e-3, -2e4, -1e6, -1e30)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("bias_of_unseen", [0.0, -9984.0, UNSEEN_SCORE])
@pytest.mark.parametrize("as_stored", [np.asarray, sp.csr_array])
def test_unseen_words_score_below_all_seen_words(
    level: float, precision: str, bias_of_unseen: float, as_stored: type
) -> None:
    """Whatever the seen words score, and whatever offset is stored for the unseen ones."""
    unseen = np.array([False, True, False, False, True])
    seen = ~unseen
    A = np.where(seen, [1.0, 0, 1, 1, 0], 0)[:, None]
    offset = np.where(seen, [0.0, 0, 0.5, 1, 0], bias_of_unseen)
    compute = resolve_compute("auto", precision)
    scorer = Scorer(as_stored(A), np.ones((1, 1)), offset, np.zeros(1), compute, unseen)
    X = np.array([[level], [3.0]])
    z = scorer.dense(X, "scores").astype(np.float32)
    assert np.isfinite(z).all()
    assert (z[:, unseen].max(axis=1) < z[:, seen].min(axis=1)).all()
    for scores in z:
        is_far = scores[seen].min() <= UNSEEN_SCORE
        assert (scores[unseen] < UNSEEN_SCORE if is_far else scores[unseen] == UNSEEN_SCORE).all()
    theta = scorer.dense(X, "softmax")
    assert (theta[:, unseen] == 0).all()
    np.testing.assert_allclose(theta.sum(axis=1), 1, rtol=1e-6)
    log_theta = scorer.dense(X, "log_softmax")
    assert np.isfinite(log_theta).all()
    assert (log_theta[:, unseen].max(axis=1) < log_theta[:, seen].min(axis=1)).all()
    np.testing.assert_allclose(np.exp(log_theta[:, seen]), theta[:, seen], rtol=1e-3)
    indices, probabilities = scorer.top(X, 3, probabilities=True)
    assert not unseen[indices].any()
    np.testing.assert_allclose(probabilities, np.take_along_axis(theta, indices, axis=1), rtol=1e-5)


# --- The estimator ---------------------------------------------------------------------------


Fitted = tuple[FLiPExtractor, np.ndarray, sp.csr_array]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """A model of 2,500 rows and 90 words, of which training sees 80; A has zeros in seen rows, too."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.08, size=(2500, 90))
    Y[:, 80:] = 0
    Y[::50] = 0
    X = (Y @ rng.normal(size=(90, 12)) + rng.normal(size=(2500, 12))).astype(np.float32)
    model = FLiPExtractor(6, l1_strength=0.3, max_iter=3, random_state=0, precision="float32")
    model.fit(X, Y)
    return model, X, sp.csr_array(Y)


def sparse_copy(model: FLiPExtractor) -> FLiPExtractor:
    """Return the same model with A stored as CSR."""
    copy = pickle.loads(pickle.dumps(model))
    copy.word_embeddings_ = sp.csr_array(model.word_embeddings_)
    return copy


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("csr_density", [0.0, 2.0])
def test_sparse_word_embeddings_give_the_same_results(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch, use_bias: bool, csr_density: float
) -> None:
    monkeypatch.setattr(products, "CSR_DENSITY", csr_density)
    model, X, Y = fitted
    model = pickle.loads(pickle.dumps(model)).set_params(use_bias=use_bias)
    sparse = sparse_copy(model)
    assert 0 < sparse.word_embeddings_.nnz < model.word_embeddings_.size
    assert sparse.extract_keywords(X[:200]) == model.extract_keywords(X[:200])
    assert sparse.score(X, Y) == model.score(X, Y)
    assert (sparse.predict(X) != model.predict(X)).nnz == 0
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        np.testing.assert_allclose(
            getattr(sparse, method)(X), getattr(model, method)(X), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(
        sparse.transform(X).toarray(), model.transform(X).toarray(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["fitted", "sparse", "saved", "saved in bfloat16"])
def test_unseen_words_are_never_read(
    fitted: Fitted, tmp_path: Path, use_bias: bool, precision: str, kind: str
) -> None:
    """Near the data and far from it, for float32 and float64 input."""
    model = pickle.loads(pickle.dumps(fitted[0])).set_params(use_bias=use_bias, precision=precision)
    if kind == "sparse":
        model = sparse_copy(model)
    if kind == "saved":
        model.save_pretrained(tmp_path / "model")
        model = FLiPExtractor.from_pretrained(tmp_path / "model")
    if kind == "saved in bfloat16":  # where -1e4 is rounded
        model.bias_ = torch.from_numpy(model.bias_).bfloat16().float().numpy()
        assert (model.bias_[80:] == -9984).all()
    unseen = np.arange(90) >= 80
    for scale, dtype in ((1, np.float32), (1, np.float64), (1e6, np.float32), (1e6, np.float64)):
        X = (scale * fitted[1][:50]).astype(dtype)
        z, theta = model.decision_function(X), model.predict_proba(X)
        assert z.dtype == theta.dtype == dtype
        assert np.isfinite(z).all()
        assert (z[:, unseen].max(axis=1) < z[:, ~unseen].min(axis=1)).all()
        is_far = z[:, ~unseen].min(axis=1) <= UNSEEN_SCORE
        assert is_far.any() == (scale > 1)
        assert (z[~is_far][:, unseen] == UNSEEN_SCORE).all()
        assert (theta[:, unseen] == 0).all()
        assert np.isfinite(model.predict_log_proba(X)).all()
        assert model.transform(X)[:, unseen].nnz == model.predict(X)[:, unseen].nnz == 0
        keywords = model.extract_keywords(X, top_k=90)
        assert {len(row) for row in keywords} == {80}
        assert not {word for row in keywords for word in row} & {*model.vocabulary_[unseen]}
        mapped = KeywordMapper(model, top_k=90)(X)
        assert [len(row) for row in mapped] == [80] * len(X)
        assert not {word for row in mapped for word in row} & {*model.vocabulary_[unseen]}


def test_score_is_keyword_accuracy(fitted: Fitted) -> None:
    """Exactly, with weights, rows without words, unseen words and one very long row."""
    model, X, Y = fitted
    Y = Y.tolil()
    Y[7, :] = 1  # more words than training saw
    Y[8, 85] = 1  # a word that it did not see
    Y = sp.csr_array(Y)
    weights = np.random.default_rng(1).integers(0, 4, size=len(X))
    ranked = sorted_top(model.decision_function(X)[:, :80], 80)
    ranked = np.pad(ranked, ((0, 0), (0, 10)), constant_values=-1)  # unseen words are no hits
    for sample_weight in (None, weights):
        expected = keyword_accuracy(Y, ranked, sample_weight=sample_weight)
        assert model.score(X, Y, sample_weight=sample_weight) == float(expected)
    assert np.isnan(model.score(X, 0 * Y))


def test_a_long_row_is_ranked_separately(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    model, X, Y = fitted
    Y = Y.tolil()
    Y[7, :] = 1
    calls = []
    top = scorer_module._Ranker._top

    def recording_top(self: Any, block: Any, probabilities: bool) -> object:
        calls.append((len(block.h), block.k))
        return top(self, block, probabilities)

    monkeypatch.setattr(scorer_module._Ranker, "_top", recording_top)
    model.score(X, Y)
    assert [(n_rows, k) for n_rows, k in calls if k > 32] == [(1, 80)]
    n_rows_with_words = int((np.diff(sp.csr_array(Y).indptr) > 0).sum())
    assert sum(n_rows for n_rows, _ in calls) == n_rows_with_words


def test_keywords_equal_the_top_words(fitted: Fitted) -> None:
    model, X, _ = fitted
    scored = model.extract_keywords(X, top_k=3, return_scores=True)
    assert [[word for word, _ in row] for row in scored] == model.extract_keywords(X, top_k=3)
    indices, scores = scoring.top_words(model, X, 3)
    assert model.vocabulary_[indices].tolist() == model.extract_keywords(X, top_k=3)
    assert [[score for _, score in row] for row in scored] == scores.tolist()


class Bar:
    """A progress bar that does nothing."""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, rows: int) -> None: ...


def test_interrupted_scoring_restores_the_mode_of_torch(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the traceback of the exception is alive, as in a notebook."""
    model, X, _ = fitted
    blocks = scoring.make_scorer(model).top_blocks(X, 3)
    next(blocks)
    assert not torch.is_inference_mode_enabled()
    del blocks

    class InterruptedBar(Bar):
        def update(self, rows: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "progress", lambda *_: InterruptedBar())
    for method in (model.extract_keywords, model.predict):
        with pytest.raises(KeyboardInterrupt) as error:
            method(X)
        assert not torch.is_inference_mode_enabled()
        assert error.traceback


def test_threads_share_a_scorer(fitted: Fitted) -> None:
    """Each thread has its own memory for blocks."""
    model, X, _ = fitted
    scorer = scoring.make_scorer(model)
    parts = [X[first : first + 300] for first in range(0, 2400, 300)]
    expected = [scorer.top(part, 3)[0] for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            results = list(pool.map(lambda part: scorer.top(part, 3)[0], parts))
            for result, words in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result, words)


def private_memory() -> int:
    """Return the bytes of memory of this process without the pages of mapped files."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])  # type: ignore[index]


@pytest.mark.cpu_only(reason="memory of the host")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_extraction_from_a_memory_map_is_bounded(tmp_path: Path) -> None:
    """Besides the result, memory holds one chunk of rows and one block of scores, whatever n is."""
    n, d, n_words, rank = 400_000, 96, 200, 4
    mapped = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float16, shape=(n, d))
    mapped[::1000] = 1
    rng = np.random.default_rng(0)
    model = FLiPExtractor(rank, max_iter=1).fit(rng.normal(size=(50, d)), np.eye(50, n_words) + 1)
    peak, before = 0, private_memory()

    class MeasuringBar(Bar):
        def update(self, rows: int) -> None:
            nonlocal peak
            peak = max(peak, private_memory() - before)

    with pytest.MonkeyPatch().context() as m:
        m.setattr(scoring, "progress", lambda *_: MeasuringBar())
        keywords = model.extract_keywords(mapped, top_k=1)
    assert len(keywords) == n
    lists = n * (64 + 8 + 8)  # a list of one word, and the reference to the list
    chunk = scorer_module.CHUNK_ROWS["cpu"] * (2 * d + rank) * 4
    block = products.BLOCK_ROWS["cpu"][1] * n_words * 4
    assert peak < 1.3 * lists + 4 * (chunk + block) + 2**24
    assert peak < 0.9 * mapped.nbytes  # and mapped.nbytes is half of the size of a float32 copy

"""Extraction: the k best words of each row, by dense, sparse and bfloat16 products, in any blocks."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.ranking import block_maxima, hits_of, keyword_accuracy_per_row, top_k
from flip_sklearn.backend.scoring import bfloat16 as shortlist
from flip_sklearn.backend.scoring import products as words
from flip_sklearn.backend.scoring import scorer as topk
from flip_sklearn.backend.scoring.bfloat16 import Shortlist
from flip_sklearn.backend.scoring.products import DenseWords, SparseWords, words_to_rank
from flip_sklearn.backend.scoring.scorer import Scorer
from flip_sklearn.estimation import scoring as _scoring
from flip_sklearn.metrics import keyword_accuracy

DOUBLE, SINGLE = resolve_compute("cpu", "float64"), resolve_compute("cpu", "float32")


def sorted_top(z: np.ndarray, k: int) -> np.ndarray:
    """The definition: best first, equal scores by column."""
    return np.argsort(-z, axis=1, kind="stable")[:, :k]


# --- The k best of a block -------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(1, 7),
    n_words=st.sampled_from([1, 2, 63, 64, 65, 700, 1500, 2048]),
    k=st.integers(1, 40),
    levels=st.sampled_from([1, 2, 5, 50, 10**6]),
    transposed=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_top_k_is_a_stable_sort(
    m: int, n_words: int, k: int, levels: int, transposed: bool, seed: int
) -> None:
    """Few levels make ties within the k, across their border and between blocks."""
    z = np.random.default_rng(seed).integers(-levels, levels, size=(m, n_words)) / 4
    scores = torch.from_numpy(np.ascontiguousarray(z.T)).T if transposed else torch.from_numpy(z)
    k = min(k, n_words)
    expected = sorted_top(z, k)
    for maxima in (None, block_maxima(scores)):
        values, columns = top_k(scores, k, maxima)
        np.testing.assert_array_equal(columns, expected)
        np.testing.assert_array_equal(values, np.take_along_axis(z, expected, axis=1))


@pytest.mark.parametrize("k", [1, 3, 64, 1999, 2000])
@pytest.mark.parametrize("value", [0.0, -np.inf, np.inf])
def test_rows_of_equal_scores_give_the_first_columns(k: int, value: float) -> None:
    scores = torch.full((3, 2000), value)
    scores[:, 1::2] *= 1.0 if value else -1.0  # -0 is 0
    _, columns = top_k(scores, k)
    np.testing.assert_array_equal(columns, np.arange(k)[None].repeat(3, 0))


@pytest.mark.parametrize("n_words", [40, 2000])
def test_nan_is_large_and_breaks_nothing(n_words: int) -> None:
    scores = torch.zeros(2, n_words)
    scores[0, [5, 30]] = float("nan")
    scores[1, 7] = 1
    values, columns = top_k(scores, 4)
    assert set(columns[0].tolist()) == {5, 30, 0, 1}
    assert values[0].isnan().sum() == 2
    assert columns[1].tolist() == [7, 0, 1, 2]


def test_most_columns_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the selection reads beside the maxima is k + 1 blocks, not the row."""
    read = []
    topk_of = torch.Tensor.topk

    def spy(self: torch.Tensor, *args: object, **kwargs: object) -> object:
        read.append(self.shape[1])
        return topk_of(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "topk", spy)
    top_k(torch.randn(2, 64 * 100), 10)
    assert read == [100, 11 * 64]


# --- Hits ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 12), n_words=st.sampled_from([3, 30, 700]), seed=st.integers(0, 10**6))
def test_hits_at_k_is_keyword_accuracy(m: int, n_words: int, seed: int) -> None:
    """Rows of very unequal length, ties and rows without words included."""
    rng = np.random.default_rng(seed)
    Y = sp.csr_array(rng.random((m, n_words)) < rng.choice([0, 0.02, 0.1, 0.9], size=(m, 1)))
    z = rng.integers(0, 6, size=(m, n_words)).astype(np.float32)
    coo = Y.tocoo()
    targets = SimpleNamespace(
        start=Y.indptr.astype(np.int64),
        row=torch.from_numpy(coo.row.astype(np.int64)),
        col=torch.from_numpy(coo.col.astype(np.int64)),
    )
    found = keyword_accuracy_per_row(torch.from_numpy(z), targets.start, targets.col.numpy())
    np.testing.assert_array_equal(found, np.nan_to_num(keyword_accuracy(Y, z).per_row))


def test_hits_of_no_words_are_none() -> None:
    start, empty = np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64)
    top = np.array([[0, 1], [2, 0]])
    assert hits_of(top, np.zeros(2, int), start, empty).tolist() == [0, 0]
    assert hits_of(top[:, :0], np.ones(2, int), np.arange(3), np.arange(2)).tolist() == [0, 0]


# --- Scorer: whole numbers make exact arithmetic, so answers must be equal, not close ---------


def whole_model(
    n: int, n_words: int, rank: int, d: int, density: float, seed: int
) -> tuple[np.ndarray, ...]:
    """A, B, offset, mean and X of small whole numbers; A with empty rows and columns."""
    rng = np.random.default_rng(seed)
    A = rng.integers(-3, 4, size=(n_words, rank)) * (rng.random((n_words, rank)) < density)
    A[rng.random(n_words) < 0.3] = 0
    A[:, rng.random(rank) < 0.2] = 0
    B = rng.integers(-2, 3, size=(rank, d))
    offset, mean = rng.integers(-6, 3, size=n_words), rng.integers(-2, 3, size=d)
    X = rng.integers(-3, 4, size=(n, d))
    return tuple(a.astype(np.float64) for a in (A, B, offset, mean, X))


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
def test_answers_do_not_depend_on_blocks_or_storage(
    n: int, n_words: int, rank: int, density: float, block: int, precision: str, seed: int
) -> None:
    """Dense or CSR, few rows or many, zeros looked for or not: the same words in the same order."""
    A, B, offset, mean, X = whole_model(n, n_words, rank, 4, density, seed)
    rng = np.random.default_rng(seed)
    unseen = np.flatnonzero(rng.random(n_words) < 0.1)[: n_words - 1]
    A[unseen], offset[unseen] = 0, -1e4
    compute = resolve_compute("cpu", precision)
    arrays = [a.astype(np.float32 if precision == "float32" else np.float64) for a in (B, offset)]
    z = offset + (X - mean) @ B.T @ A.T
    theta = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
    theta /= theta.sum(axis=1, keepdims=True)
    seen = np.ones(n_words, dtype=bool)
    seen[unseen] = False
    k = int(rng.integers(1, seen.sum() + 1))
    expected = sorted_top(np.where(seen, z, -np.inf), k)
    Y = sp.csr_array(rng.random((n, n_words)) < rng.choice([0, 0.05, 0.5], size=(n, 1)))
    indptr = Y.indptr.astype(np.int64)
    widths = np.diff(indptr)
    in_row = np.asarray(Y.toarray(), dtype=bool)
    ranked = sorted_top(np.where(seen, z, -np.inf), int(seen.sum()))
    hits = [int(in_row[i, ranked[i, : widths[i]]].sum()) for i in range(n)]
    with pytest.MonkeyPatch().context() as m:
        m.setattr(words, "BLOCK_ROWS", {"cpu": (block, block)})
        m.setattr(words, "SPARSE_BLOCK_ROWS", block)
        m.setattr(words, "TILE_ELEMENTS", {"cpu": 64 * block})
        m.setattr(topk, "CHUNK_ROWS", {"cpu": 2 * block + 1})
        for many, csr_density in ((10**9, 0.0), (0, 0.0), (0, 2.0)):
            m.setattr(topk, "MANY_ROWS", many)
            m.setattr(words, "CSR_DENSITY", csr_density)
            for stored in (A.astype(arrays[0].dtype), sp.csr_array(A.astype(arrays[0].dtype))):
                scorer = Scorer.from_arrays(
                    stored, *arrays, mean.astype(np.float32), compute, unseen
                )
                indices, values = scorer.top(X, k)
                np.testing.assert_array_equal(indices, expected)
                np.testing.assert_array_equal(values, np.take_along_axis(z, expected, axis=1))
                _, probabilities = scorer.top(X, k, probabilities=True)
                np.testing.assert_allclose(
                    probabilities, np.take_along_axis(theta, expected, axis=1), rtol=1e-4, atol=1e-7
                )
                np.testing.assert_array_equal(scorer.hits(X, indptr, Y.indices), hits)
                dense = scorer.dense(X, "scores")
                np.testing.assert_array_equal(dense[:, seen], z[:, seen])
                for other in unseen:
                    assert (dense[:, other] <= dense[:, seen].min(axis=1, initial=0)).all()


def test_what_cannot_matter_is_not_scored() -> None:
    """Of words with no row in A only the k likeliest are scored, of latents only those in use."""
    A, _, offset, _, _ = whole_model(1, 400, 9, 4, 0.3, seed=0)
    A[:, 2] = 0
    unseen = np.arange(400) >= 380
    A[unseen] = 0
    filled = np.flatnonzero(A.any(axis=1))
    found = words_to_rank(sp.csr_array(A), offset, unseen, 5, DOUBLE, False)
    assert found.latents is not None
    assert found.columns is not None
    assert found.latents.tolist() == np.flatnonzero(A.any(axis=0)).tolist()
    assert 2 not in found.latents
    empty = np.setdiff1d(np.arange(380), filled)
    best = empty[np.argsort(-offset[empty], kind="stable")]
    assert found.columns.tolist() == sorted([*filled, *best[:5]])
    assert found.rest == pytest.approx(np.logaddexp.reduce(offset[best[5:]]))
    # Negative control: with every word filled, all seen ones stay.
    full = words_to_rank(np.ones_like(A), offset, unseen, 5, DOUBLE, True)
    assert full.columns is None
    assert full.words.offset is not None
    assert (full.words.offset.numpy() == -np.inf).tolist() == unseen.tolist()


def test_the_product_follows_the_density() -> None:
    rng = np.random.default_rng(0)
    offset, unseen = np.zeros(200), np.zeros(200, dtype=bool)
    for density, kind in ((0.02, SparseWords), (0.4, DenseWords)):
        A = rng.normal(size=(200, 50)) * (rng.random((200, 50)) < density)
        for stored in (A, sp.csr_array(A)):
            found = words_to_rank(stored, offset, unseen, 3, SINGLE, True)
            assert isinstance(found.words, kind)
    few = words_to_rank(A * (A > 2), offset, unseen, 3, SINGLE, False)
    assert isinstance(few.words, DenseWords)  # a few rows do not repay the search
    assert few.columns is None


@pytest.mark.parametrize("kind", [DenseWords, SparseWords])
def test_what_a_block_held_before_does_not_matter(kind: type) -> None:
    """Memory is used again: not a number left in it may come through."""
    A, _, offset, _, h = whole_model(5, 200, 4, 4, 0.3, seed=0)
    if kind is SparseWords:
        block = SparseWords(sp.csr_array(A), offset)
    else:
        block = DenseWords(torch.from_numpy(A), torch.from_numpy(offset))
    rows = torch.from_numpy(h)
    for _ in range(2):
        scores, maxima = block.scores(rows)
        np.testing.assert_array_equal(scores[:, :200], offset + h @ A.T)
        assert (scores[:, 200:] == -np.inf).all()
        torch.testing.assert_close(maxima, block_maxima(scores))
        scores.fill_(float("nan"))
        maxima.fill_(float("nan"))


def test_explicit_zeros_are_zeros() -> None:
    A = sp.csr_array(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    A.data[1] = 0
    before = A.copy()
    found = words_to_rank(A, np.zeros(3), np.zeros(3, dtype=bool), 1, DOUBLE, False)
    assert found.latents is not None
    assert found.latents.tolist() == [0]
    assert A.nnz == before.nnz  # the model itself is not touched


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("stored", [np.asarray, sp.csr_array])
def test_formats_of_X_and_odd_strides(dtype: type, stored: type) -> None:
    A, B, offset, mean, X = whole_model(20, 70, 5, 4, 0.5, seed=1)
    expected = sorted_top(offset + (X - mean) @ B.T @ A.T, 3)
    scorer = Scorer.from_arrays(
        stored(A.astype(np.float32)), B, offset, mean.astype(np.float32), SINGLE
    )
    X = X.astype(dtype)
    for same in (X, np.asfortranarray(X), X[::-1].copy()[::-1], np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(scorer.top(same, 3)[0], expected)


# --- bfloat16 shortlists ---------------------------------------------------------------------


def bfloat16_product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """What the hardware does: bfloat16 factors, float32 sums."""
    torch.mm(a.to(torch.bfloat16).float(), b.to(torch.bfloat16).float(), out=out)


def shortlist_of(A: np.ndarray, offset: np.ndarray) -> Shortlist:
    exact = DenseWords(*(torch.from_numpy(a.astype(np.float32)) for a in (A, offset)))
    return Shortlist(exact, SINGLE, bfloat16_product)


def near_ties(n: int, n_words: int, rank: int, seed: int, spread: float) -> tuple[np.ndarray, ...]:
    """Words that are copies of a few, apart by far less than bfloat16 can tell."""
    rng = np.random.default_rng(seed)
    few = rng.normal(size=(max(1, n_words // 40), rank))
    A = few[rng.integers(len(few), size=n_words)]
    A = A + spread * rng.normal(size=A.shape)
    return A, rng.normal(size=n_words) * spread - 3, rng.normal(size=(n, rank))


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 40),
    spread=st.sampled_from([0.0, 1e-6, 1e-4, 1e-2, 1.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    masked=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_no_score_exceeds_its_bound(
    rank: int, spread: float, scale: float, masked: bool, seed: int
) -> None:
    """The theorem of the module, against float64 and float32 scores, for every word."""
    A, offset, h = near_ties(20, 150, rank, seed, spread)
    h = h * scale
    if masked:
        offset[::7] = -np.inf
    short = shortlist_of(A, offset)
    rows = torch.from_numpy(h.astype(np.float32))
    bounds = short._bounds.scores(short._longer(rows))[0][:, :150].numpy()
    single = short.words.scores(rows)[0][:, :150].numpy()
    A32, h32 = short.words.A.double().numpy(), rows.double().numpy()
    exact = offset.astype(np.float32).astype(np.float64) + h32 @ A32.T
    assert (bounds >= np.maximum(exact, single)).all()
    # And it is of use: within the worst case of rounding and a little more.
    size = np.linalg.norm(h32, axis=1)[:, None] * np.linalg.norm(A32, axis=1)
    finite = np.isfinite(offset)
    loose = (bounds - exact)[:, finite]
    assert (loose <= (2.2 * 2.0**-7 * size + 2.0**-12 * (1 - offset))[:, finite]).all()


@settings(max_examples=40, deadline=None)
@given(
    n_words=st.sampled_from([700, 2500]),
    k=st.integers(1, 20),
    spread=st.sampled_from([0.0, 1e-5, 1e-3, 1e-1, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_shortlists_give_the_words_of_float32(
    n_words: int, k: int, spread: float, seed: int
) -> None:
    """Adversarial near-ties: apart by less than bfloat16, ties only where float32 has them too."""
    A, offset, h = near_ties(30, n_words, 16, seed, spread)
    short = shortlist_of(A, offset)
    rows = torch.from_numpy(h.astype(np.float32))
    exact = short.words.scores(rows)[0].numpy().astype(np.float64)
    values, columns = short.top(rows, k)
    np.testing.assert_allclose(
        values, np.take_along_axis(exact, columns.numpy(), axis=1), rtol=1e-5, atol=1e-5
    )
    for row in range(len(h)):
        chosen = set(columns[row].tolist())
        best = set(sorted_top(exact[row : row + 1], k)[0].tolist())
        assert len(chosen) == k
        lowest = exact[row, sorted(best)].min()
        # What differs lies within the rounding of a float32 sum of the border.
        size = 1 + np.linalg.norm(h[row]) * np.linalg.norm(A, axis=1).max()
        for word in chosen ^ best:
            assert abs(exact[row, word] - lowest) <= 18 * 2.0**-23 * size


def test_uncertain_rows_are_scored_in_full_and_certain_ones_are_not() -> None:
    A, offset, h = near_ties(30, 3000, 16, 0, 1e-5)
    rows = torch.from_numpy(h.astype(np.float32))
    crowded = shortlist_of(A, offset)
    crowded.top(rows, 10)  # 75 words within a hair of each other, 20 places
    assert crowded.rescored_in_full == 30
    spread_out = shortlist_of(np.random.default_rng(0).normal(size=A.shape), offset)
    spread_out.top(rows, 10)
    assert spread_out.rescored_in_full == 0


def test_without_the_bound_near_ties_go_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a shortlist by plain bfloat16 scores misses words."""
    A, offset, h = near_ties(50, 3000, 16, 0, 1e-3)
    rows = torch.from_numpy(h.astype(np.float32))
    expected, _ = top_k(shortlist_of(A, offset).words.scores(rows)[0], 10)
    right, _ = shortlist_of(A, offset).top(rows, 10)
    torch.testing.assert_close(right, expected)
    monkeypatch.setattr(shortlist, "_up", torch.zeros_like)
    wrong, _ = shortlist_of(A, offset).top(rows, 10)
    assert (wrong < expected - 1e-5).any()


@pytest.mark.parametrize("stored", [np.asarray, sp.csr_array])
def test_scorer_takes_shortlists_where_bfloat16_is_fast(
    monkeypatch: pytest.MonkeyPatch, stored: type
) -> None:
    """On such a chip; the figures that come out are those of float32."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3000, 16)).astype(np.float32), rng.normal(size=(16, 8))
    offset, X = rng.normal(size=3000), rng.normal(size=(100, 8))
    unseen = np.arange(0, 3000, 9)
    A[unseen] = 0
    arrays = (stored(A), B.astype(np.float32), offset.astype(np.float32), np.zeros(8, np.float32))
    expected = Scorer.from_arrays(*arrays, SINGLE, unseen).top(X, 10)
    low = Compute(torch.device("cpu"), torch.float32, torch.bfloat16)
    made: list[Shortlist] = []

    class Spy(Shortlist):
        def __init__(self, words: DenseWords, compute: Compute) -> None:
            super().__init__(words, compute, bfloat16_product)
            made.append(self)

    monkeypatch.setattr(topk, "Shortlist", Spy)
    monkeypatch.setattr(topk, "bfloat16_is_fast", lambda device: True)
    monkeypatch.setattr(topk, "MANY_ROWS", 100)
    scorer = Scorer.from_arrays(*arrays, low, unseen)
    indices, values = scorer.top(X, 10)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_allclose(values, expected[1], rtol=1e-5, atol=1e-5)
    assert len(made) == 1
    # Probabilities need every score, so they never come from shortlists.
    _, theta = scorer.top(X, 10, probabilities=True)
    np.testing.assert_allclose(
        theta, Scorer.from_arrays(*arrays, SINGLE, unseen).top(X, 10, probabilities=True)[1],
        rtol=1e-5,
    )  # fmt: skip
    monkeypatch.setattr(topk, "bfloat16_is_fast", lambda device: False)
    made.clear()
    Scorer.from_arrays(*arrays, low, unseen).top(X, 10)
    assert made == []


@pytest.mark.parametrize("stored", [np.asarray, sp.csr_array])
def test_every_tensor_is_told_its_device(monkeypatch: pytest.MonkeyPatch, stored: type) -> None:
    """One that is not would be made on the default device: here one without memory."""
    monkeypatch.setattr(topk, "bfloat16_is_fast", lambda device: True)
    monkeypatch.setattr(topk, "MANY_ROWS", 1)
    rng = np.random.default_rng(0)
    A = (rng.normal(size=(3001, 8)) * (rng.random((3001, 8)) < 0.15)).astype(np.float32)
    B, offset, mean, X = (rng.normal(size=s).astype(np.float32) for s in ((8, 4), 3001, 4, (9, 4)))
    low = Compute(torch.device("cpu"), torch.float32, torch.bfloat16)
    Y = sp.csr_array(rng.random((9, 3001)) < 0.01)

    def answers() -> list[np.ndarray]:
        scorer = Scorer.from_arrays(stored(A), B, offset, mean, low, np.arange(3))
        return [
            scorer.top(X, 5)[0],
            scorer.top(X, 5, probabilities=True)[1],
            scorer.hits(X, Y.indptr.astype(np.int64), Y.indices),
            scorer.dense(X, "softmax"),
        ]

    for density in (0.0, 2.0):
        monkeypatch.setattr(words, "CSR_DENSITY", density)
        expected = answers()
        with torch.device("meta"):
            found = answers()
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)


# --- The estimator ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> tuple[FLiPExtractor, np.ndarray, sp.csr_array]:
    """2,500 rows of 90 words, of which training saw 80; A has zeros of its own."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.08, size=(2500, 90))
    Y[:, 80:] = 0
    Y[::50] = 0
    X = (Y @ rng.normal(size=(90, 12)) + rng.normal(size=(2500, 12))).astype(np.float32)
    model = FLiPExtractor(6, l1_strength=0.3, max_iter=3, random_state=0, device="cpu")
    model.fit(X, Y)
    return model, X, sp.csr_array(Y)


def sparse_copy(model: FLiPExtractor) -> FLiPExtractor:
    """The same model with A stored as CSR."""
    copy = pickle.loads(pickle.dumps(model))
    copy.word_embeddings_ = sp.csr_array(model.word_embeddings_)
    return copy


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("csr_density", [0.0, 2.0])
def test_sparse_word_embeddings_give_the_same_answers(
    fitted: tuple[FLiPExtractor, np.ndarray, sp.csr_array],
    monkeypatch: pytest.MonkeyPatch,
    use_bias: bool,
    csr_density: float,
) -> None:
    monkeypatch.setattr(words, "CSR_DENSITY", csr_density)
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


def test_score_is_keyword_accuracy(
    fitted: tuple[FLiPExtractor, np.ndarray, sp.csr_array],
) -> None:
    """Bit for bit, with weights, rows without words, unseen words and one very wide row."""
    model, X, Y = fitted
    Y = Y.tolil()
    Y[7, :] = 1  # more words than training saw
    Y[8, 85] = 1  # one that it never saw
    Y = sp.csr_array(Y)
    weights = np.random.default_rng(1).integers(0, 4, size=len(X))
    ranked = sorted_top(model.decision_function(X)[:, :80], 80)
    ranked = np.pad(ranked, ((0, 0), (0, 10)), constant_values=-1)  # never extracted: no hits
    for sample_weight in (None, weights):
        expected = keyword_accuracy(Y, ranked, sample_weight=sample_weight)
        assert model.score(X, Y, sample_weight=sample_weight) == float(expected)
    assert np.isnan(model.score(X, 0 * Y))


def test_a_wide_row_does_not_make_all_rows_wide(
    fitted: tuple[FLiPExtractor, np.ndarray, sp.csr_array], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, X, Y = fitted
    Y = Y.tolil()
    Y[7, :] = 1
    asked = []
    top = topk._Ranking.top

    def spy(self: object, h: torch.Tensor, k: int, probabilities: bool) -> object:
        asked.append((len(h), k))
        return top(self, h, k, probabilities)  # type: ignore[arg-type]

    monkeypatch.setattr(topk._Ranking, "top", spy)
    model.score(X, Y)
    wide = [(rows, k) for rows, k in asked if k > 32]
    assert wide == [(1, 80)]
    assert sum(rows for rows, _ in asked) == int((np.diff(sp.csr_array(Y).indptr) > 0).sum())


def test_keywords_are_the_words_of_predict(
    fitted: tuple[FLiPExtractor, np.ndarray, sp.csr_array],
) -> None:
    model, X, _ = fitted
    scored = model.extract_keywords(X, top_k=3, return_scores=True)
    assert [[word for word, _ in row] for row in scored] == model.extract_keywords(X, top_k=3)
    indices, scores = _scoring.top_words(model, X, 3)
    assert model.vocabulary_[indices].tolist() == model.extract_keywords(X, top_k=3)
    assert [[score for _, score in row] for row in scored] == scores.tolist()


def test_stopping_half_way_leaves_torch_as_it_was(
    fitted: tuple[FLiPExtractor, np.ndarray, sp.csr_array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the middle, its traceback kept as a notebook does."""
    model, X, _ = fitted
    blocks = _scoring.make_scorer(model).top_blocks(X, 3)
    next(blocks)
    assert not torch.is_inference_mode_enabled()
    del blocks

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, rows: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(_scoring, "progress", lambda *_: Bar())
    for verb in (model.extract_keywords, model.predict):
        with pytest.raises(KeyboardInterrupt) as kept:
            verb(X)
        assert not torch.is_inference_mode_enabled()
        assert kept.traceback


def test_threads_share_a_scorer(fitted: tuple[FLiPExtractor, np.ndarray, sp.csr_array]) -> None:
    """Each has its own memory for blocks."""
    model, X, _ = fitted
    scorer = _scoring.make_scorer(model)
    parts = [X[first : first + 300] for first in range(0, 2400, 300)]
    expected = [scorer.top(part, 3)[0] for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, right in zip(
                pool.map(lambda p: scorer.top(p, 3)[0], parts), expected, strict=True
            ):
                np.testing.assert_array_equal(found, right)


def own_memory() -> int:
    """Bytes of this process that are its own, not pages of a mapped file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_extraction_from_a_memory_map_is_bounded(tmp_path: Path) -> None:
    """Next to the result there is one chunk of rows and one block of scores, however long the file is."""
    n, d, n_words, rank = 400_000, 96, 200, 4
    mapped = np.lib.format.open_memmap(
        tmp_path / "X.npy", mode="w+", dtype=np.float16, shape=(n, d)
    )
    mapped[::1000] = 1
    rng = np.random.default_rng(0)
    model = FLiPExtractor(rank, max_iter=1).fit(rng.normal(size=(50, d)), np.eye(50, n_words) + 1)
    peak, before = 0, own_memory()

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, rows: int) -> None:
            nonlocal peak
            peak = max(peak, own_memory() - before)

    with pytest.MonkeyPatch().context() as m:
        m.setattr(_scoring, "progress", lambda *_: Bar())
        found = model.extract_keywords(mapped, top_k=1)
    assert len(found) == n
    lists = n * (64 + 8 + 8)  # a list of one word, and the place of the list
    chunk = topk.CHUNK_ROWS["cpu"] * (2 * d + rank) * 4
    block = words.BLOCK_ROWS["cpu"][1] * n_words * 4
    assert peak < 1.3 * lists + 4 * (chunk + block) + 2**24
    assert peak < 0.9 * mapped.nbytes  # which is a fraction of the file, and of its float32 copy

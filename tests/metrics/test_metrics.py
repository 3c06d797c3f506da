"""keyword_accuracy: against a slow reference implementation of its formula, by hand, in bounded memory."""

from __future__ import annotations

import math
import re
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.neighbors import KNeighborsClassifier

from flip_sklearn import keyword_accuracy, keyword_accuracy_scorer
from flip_sklearn.metrics import RowMean, ranking

NAN = float("nan")


def slow_accuracy(
    Y: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, list[float]]:
    """sum_n w_n |top_n & S_n| / k_n / sum_n w_n over rows with k_n > 0; ties to the left."""
    per_row = []
    for counts, row in zip(Y.tolist(), scores.tolist(), strict=True):
        words = {j for j, count in enumerate(counts) if count > 0}
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))
        top = set(order[: len(words)])
        per_row.append(len(top & words) / len(words) if words else NAN)
    w = [1.0] * len(per_row) if weights is None else list(map(float, weights))
    used = [(v, weight) for v, weight in zip(per_row, w, strict=True) if not math.isnan(v)]
    mass = sum(weight for _, weight in used)
    return (sum(v * weight for v, weight in used) / mass if mass else NAN), per_row


def rank_all(scores: np.ndarray) -> np.ndarray:
    """All words of each row, best first."""
    return np.argsort(-scores.astype(float), axis=1, kind="stable")


def messy_csr(Y: np.ndarray, seed: int) -> sp.csr_array:
    """The counts as unsorted CSR with duplicates and explicit zeros."""
    rng = np.random.default_rng(seed)
    row, col = np.nonzero(Y)
    parts = [(row, col, Y[row, col] - 1), (row, col, np.ones_like(row))]
    empty = rng.integers(0, Y.shape, size=(5, 2))
    parts.append((empty[:, 0], empty[:, 1], np.zeros(5, dtype=int)))
    row, col, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((rng.random(len(row)), row))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(Y)))])
    return sp.csr_array((count[order], col[order], indptr), shape=Y.shape)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts and scores of any size; few levels make ties, and some rows are empty."""
    n, V = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    Y = rng.integers(1, 4, size=(n, V)) * (rng.random((n, V)) < density)
    levels = draw(st.sampled_from([1, 2, 4, 10**6]))
    scores = rng.integers(-levels, levels + 1, size=(n, V)) / draw(st.sampled_from([1, 3]))
    if draw(st.booleans()):
        scores[rng.random((n, V)) < 0.2] = draw(st.sampled_from([-np.inf, np.inf, -0.0]))
    return Y, scores, seed


@settings(max_examples=300, deadline=None)
@given(problem=problems(), dtype=st.sampled_from([np.float64, np.float32, np.float16]))
def test_accuracy_equals_its_definition(problem: tuple[np.ndarray, np.ndarray, int], dtype: type) -> None:
    Y, scores, seed = problem
    with np.errstate(over="ignore"):
        scores = scores.astype(dtype)
    expected, per_row = slow_accuracy(Y, scores)
    k = np.array([len(np.flatnonzero(row)) for row in Y])
    for truth in (Y, sp.csr_array(Y), sp.csc_matrix(Y), messy_csr(Y, seed)):
        result = keyword_accuracy(truth, scores)
        assert result.value == pytest.approx(expected, nan_ok=True, abs=1e-12)
        assert float(result) == result.value or math.isnan(expected)
        np.testing.assert_allclose(result.per_row, per_row)
        assert (result.n_rows, result.n_skipped) == ((k > 0).sum(), (k == 0).sum())
    # Word indices: as many as needed, and all
    for width in {int(k.max(initial=0)), Y.shape[1]}:
        by_index = keyword_accuracy(Y, rank_all(scores)[:, :width])
        np.testing.assert_array_equal(by_index.per_row, result.per_row)
    # Sparse scores that store every word, zeros included
    everything = sp.csr_array(
        (scores.ravel(), np.tile(np.arange(Y.shape[1]), len(Y)), np.arange(len(Y) + 1) * Y.shape[1]),
        shape=Y.shape,
    )
    if dtype != np.float16:  # not supported by SciPy
        np.testing.assert_array_equal(keyword_accuracy(Y, everything).per_row, result.per_row)


def test_accuracy_is_independent_of_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    Y, scores = rng.poisson(0.3, size=(50, 20)), rng.integers(0, 5, size=(50, 20)).astype(float)
    expected = keyword_accuracy(Y, scores).per_row
    for size in (1, 20, 60, 333):
        monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", size)
        np.testing.assert_array_equal(keyword_accuracy(Y, scores).per_row, expected)


def test_shuffled_rows_are_worse() -> None:
    """Negative control: the accuracy depends on which scores belong to which row."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.2, size=(300, 30))
    scores = Y + 0.4 * rng.normal(size=Y.shape)
    right = keyword_accuracy(Y, scores)
    wrong = keyword_accuracy(Y, rng.permutation(scores))
    assert right.value > 0.8
    assert wrong.value < 0.35
    assert right.value - wrong.value > 20 * wrong.standard_error


# --- By hand ---------------------------------------------------------------------------------


def test_worked_example() -> None:
    Y = np.array([[1, 1, 0, 0], [0, 3, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]])
    scores = np.array(
        [
            [9.0, 1.0, 5.0, 0.0],  # top 2 = {0, 2}, words {0, 1}: 1/2
            [0.1, 0.9, 0.2, 0.8],  # top 2 = {1, 3}, both: 1; the count of 3 does not matter
            [1.0, 2.0, 3.0, 4.0],  # no words: skipped
            [4.0, 3.0, 2.0, 1.0],  # top 1 = {0}, word {2}: 0
        ]
    )
    result = keyword_accuracy(Y, scores)
    np.testing.assert_array_equal(result.per_row, [0.5, 1.0, NAN, 0.0])
    assert result.value == 0.5
    assert (result.n_rows, result.n_skipped) == (3, 1)
    # s = sqrt(((0)^2 + (.5)^2 + (.5)^2) / 2) = 0.5, over sqrt(3)
    assert result.standard_error == pytest.approx(0.5 / math.sqrt(3))
    assert repr(result) == "RowMean(0.5000 +- 0.2887, n_rows=3, n_skipped=1)"


@pytest.mark.parametrize(
    ("Y", "scores", "expected"),
    [
        ([[1, 0, 0]], [[0.0, 0.0, 0.0]], 1.0),  # all equal: the first one
        ([[0, 0, 1]], [[0.0, 0.0, 0.0]], 0.0),
        ([[0, 1, 1]], [[1.0, 2.0, 1.0]], 0.5),  # the tie for rank two goes to the lower index
        ([[1, 1, 1]], [[3.0, 2.0, 1.0]], 1.0),  # all words are in the row
        ([[0, 7, 0]], [[0.0, 1.0, 0.0]], 1.0),  # repeats count once
        ([[1, 0, 0]], [[-np.inf, -np.inf, -np.inf]], 1.0),
        ([[0, 1, 0]], [[-5.0, -4.0, -np.inf]], 1.0),
        ([[1]], [[0.0]], 1.0),
    ],
)
def test_corner_cases(Y: list[list[int]], scores: list[list[float]], expected: float) -> None:
    assert float(keyword_accuracy(Y, scores)) == expected
    assert float(keyword_accuracy(sp.csr_array(np.array(Y)), np.array(scores))) == expected


def test_no_rows_with_words() -> None:
    for Y in (np.zeros((3, 4)), sp.csr_array((3, 4)), np.zeros((0, 4))):
        result = keyword_accuracy(Y, np.zeros(Y.shape))
        assert math.isnan(result.value)
        assert math.isnan(result.standard_error)
        assert (result.n_rows, result.n_skipped) == (0, Y.shape[0])
    one = keyword_accuracy([[1, 0]], [[1.0, 0.0]])
    assert one.value == 1.0
    assert math.isnan(one.standard_error)  # not defined for one row


def test_padded_indices() -> None:
    Y = [[1, 1, 1, 0], [0, 0, 1, 0]]
    top = [[1, 0, -1], [2, -1, -1]]
    np.testing.assert_allclose(keyword_accuracy(Y, top).per_row, [2 / 3, 1.0])
    # -1 is not a word, and not the last word
    np.testing.assert_allclose(keyword_accuracy([[0, 0, 1]], [[-1]]).per_row, [0.0])


def test_absent_sparse_scores_are_not_ranked() -> None:
    Y = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
    scores = sp.csr_array(np.array([[0.0, 0.9, 0.1, 0.0], [0.0, 0.2, 0.0, 0.0]]))
    np.testing.assert_allclose(keyword_accuracy(Y, scores).per_row, [0.5, 0.0])
    # stored negative scores and zeros are ranked
    stored = sp.csr_array((np.array([-3.0, 0.0]), np.array([0, 2]), np.array([0, 2, 2])), shape=(2, 4))
    np.testing.assert_allclose(keyword_accuracy(Y, stored).per_row, [0.5, 0.0])
    doubled = sp.csr_array((np.array([1.0, 0.3, 0.3]), np.array([3, 0, 0]), np.array([0, 3])), shape=(1, 4))
    assert float(keyword_accuracy([[0, 0, 0, 1]], doubled)) == 1.0  # 1 is more than .3 + .3


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64, np.float32])
def test_indicators_as_sparse_scores(dtype: type) -> None:
    """FLiPExtractor.predict returns 0 and 1; every dtype can be ranked."""
    Y = np.array([[1, 1, 0, 0], [0, 0, 0, 1]])
    chosen = sp.csr_array(np.array([[1, 0, 1, 0], [0, 0, 0, 1]]).astype(dtype))
    np.testing.assert_allclose(keyword_accuracy(Y, chosen).per_row, [0.5, 1.0])
    zero_stored = sp.csr_array(
        (np.array([0, 1], dtype=dtype), np.array([0, 3]), np.array([0, 2])), shape=(1, 4)
    )
    assert float(keyword_accuracy([[0, 0, 0, 1]], zero_stored)) == 1.0


def test_dense_bool_scores() -> None:
    assert float(keyword_accuracy([[1, 1, 0]], np.array([[True, False, True]]))) == 0.5


@pytest.mark.parametrize("container", [list, np.asarray, pd.DataFrame, torch.tensor])
def test_containers(container: Any) -> None:
    Y, scores = [[1, 0, 2], [0, 1, 0]], [[0.5, 0.1, 0.4], [0.2, 0.1, 0.7]]
    assert float(keyword_accuracy(container(Y), container(scores))) == 0.5
    assert float(keyword_accuracy(container(Y), container([[0, 2], [2, 0]]))) == 0.5


def test_one_dimensional_y_is_one_column() -> None:
    result = keyword_accuracy([1, 0, 2], [[0.1], [0.2], [0.3]])
    np.testing.assert_array_equal(result.per_row, [1.0, NAN, 1.0])


# --- Weights and standard error --------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(problem=problems())
def test_integer_weights_repeat_rows(problem: tuple[np.ndarray, np.ndarray, int]) -> None:
    Y, scores, seed = problem
    w = np.random.default_rng(seed + 1).integers(0, 4, size=len(Y))
    weighted = keyword_accuracy(Y, scores, sample_weight=w)
    expected, per_row = slow_accuracy(Y, scores, w)
    assert weighted.value == pytest.approx(expected, nan_ok=True, abs=1e-12)
    repeated = keyword_accuracy(np.repeat(Y, w, axis=0), np.repeat(scores, w, axis=0))
    assert weighted.value == pytest.approx(repeated.value, nan_ok=True, abs=1e-12)
    np.testing.assert_allclose(weighted.per_row, per_row)  # not affected by weights
    # The scale of the weights does not matter.
    again = keyword_accuracy(Y, scores, sample_weight=1e-3 * w)
    assert again.value == pytest.approx(weighted.value, nan_ok=True)
    assert again.standard_error == pytest.approx(weighted.standard_error, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("scale", [2.0**-1070, 1e-300, 1e300, 2.0**1018, 1e308])
def test_weights_of_any_scale_that_float64_holds(scale: float) -> None:
    rng = np.random.default_rng(0)
    values, w = rng.random(50), rng.integers(0, 2, 50).astype(float)
    values[3] = NAN
    expected, result = RowMean.of(values, w), RowMean.of(values, scale * w)
    assert result.value == pytest.approx(expected.value, rel=1e-12)
    assert result.standard_error == pytest.approx(expected.standard_error, rel=1e-12)
    assert 0.3 < result.value < 0.7


def test_standard_error() -> None:
    rng = np.random.default_rng(0)
    Y, scores = rng.poisson(0.4, size=(200, 9)), rng.normal(size=(200, 9))
    result = keyword_accuracy(Y, scores)
    values = result.per_row[~np.isnan(result.per_row)]
    expected = values.std(ddof=1) / math.sqrt(len(values))
    assert result.standard_error == pytest.approx(expected)
    for w in (np.ones(200), np.full(200, 7.5)):
        weighted = keyword_accuracy(Y, scores, sample_weight=w)
        assert weighted.standard_error == pytest.approx(expected)
        assert weighted.value == pytest.approx(result.value)
    # Rows of zero weight are ignored.
    w = np.r_[np.ones(100), np.zeros(100)]
    half, first = (keyword_accuracy(Y, scores, sample_weight=w), keyword_accuracy(Y[:100], scores[:100]))
    assert half.value == pytest.approx(first.value)
    assert half.standard_error == pytest.approx(first.standard_error)
    # It agrees with the standard deviation over bootstrap samples.
    means = [
        float(np.nanmean(keyword_accuracy(Y, scores).per_row[rng.integers(200, size=200)]))
        for _ in range(400)
    ]
    assert np.std(means) == pytest.approx(expected, rel=0.15)


def test_all_weight_on_skipped_rows() -> None:
    result = keyword_accuracy([[0, 0], [1, 0]], [[1.0, 0.0], [1.0, 0.0]], sample_weight=[1, 0])
    assert math.isnan(result.value)


# --- Errors ----------------------------------------------------------------------------------

TWO = np.array([[1, 0, 1], [0, 1, 0]])
FLAT = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("Y", "scores", "weights", "parts"),
    [
        (TWO, np.zeros((3, 3)), None, ["(3, 3)", "2 rows", "(2, 3)"]),
        (TWO, np.zeros(3), None, ["(3,)", "2 rows", "(2, K)"]),
        (TWO, np.zeros((2, 4)), None, ["4 columns", "Y has 3", "one score per word"]),
        (TWO, sp.csr_array((2, 4)), None, ["(2, 4)", "(2, 3)", "agree"]),
        (TWO, sp.csr_array((3, 3)), None, ["(3, 3)", "(2, 3)", "agree"]),
        (TWO, FLAT * NAN, None, ["scores contain NaN", "number"]),
        (TWO, sp.csr_array(FLAT + NAN), None, ["scores contain NaN", "number"]),
        (TWO, np.array([[0, 3], [0, 1]]), None, ["[0, 3]", "below 3", "Pass scores as floats"]),
        (TWO, np.array([[0, -2], [0, 1]]), None, ["[-2, 1]", "-1 pads"]),
        (TWO, np.array([[0], [1]]), None, ["have 1 columns", "2 are needed", "at least 2"]),
        # repeated words would count twice; 0/1 indicators are not indices
        (TWO, np.array([[0, 0], [1, 2]]), None, ["word 0", "more than once", "row 0"]),
        (TWO, TWO, None, ["more than once"]),
        (-TWO, FLAT, None, ["negative", "-1", ">= 0"]),
        (sp.csr_array(-TWO), FLAT, None, ["negative", "-1", ">= 0"]),
        (
            sp.csr_array((np.array([2, -1]), np.array([0, 0]), np.array([0, 2])), shape=(1, 3)),
            FLAT[:1], None, ["negative", "-1", ">= 0"],
        ),
        (TWO + NAN, FLAT, None, ["Y", "NaN", ">= 0"]),
        (np.array([["a"]]), [[0.0]], None, ["Y", "counts"]),
        (np.zeros((2, 2, 2)), FLAT, None, ["Y", "3"]),
        (TWO, np.array([["a"] * 3] * 2), None, ["scores", "float"]),
        (TWO, FLAT, [1.0], ["(1,)", "(2,)", "one weight per row"]),
        (TWO, FLAT, [1.0, -1.0], ["sample_weight", ">= 0"]),
        (TWO, FLAT, [1.0, NAN], ["sample_weight", "finite"]),
        (TWO, FLAT, [1.0, np.inf], ["sample_weight", "finite"]),
    ],
)  # fmt: skip
def test_errors(Y: Any, scores: Any, weights: Any, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        keyword_accuracy(Y, scores, sample_weight=weights)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


# --- The scorer ------------------------------------------------------------------------------


class Fixed(BaseEstimator):
    """Scores of fixed rows: row i of X holds the number of the row of ``scores``."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.asked: list[int] = []

    def decision_function(self, X: Any) -> np.ndarray:
        rows = np.asarray(X).ravel().astype(int)
        self.asked.append(len(rows))
        return self.scores[rows]


@settings(max_examples=50, deadline=None)
@given(problem=problems(), block=st.integers(1, 40))
@example(problem=(np.zeros((3, 2), dtype=int), np.zeros((3, 2)), 0), block=1)
def test_scorer_equals_the_metric(problem: tuple[np.ndarray, np.ndarray, int], block: int) -> None:
    Y, scores, seed = problem
    w = np.random.default_rng(seed).integers(1, 4, size=len(Y))
    X = np.arange(len(Y))[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK_ELEMENTS", block)
        model = Fixed(scores)
        for weights in (None, w):
            expected, _ = slow_accuracy(Y, scores, weights)
            for truth in (Y, sp.csr_array(Y), messy_csr(Y, seed)):
                result = keyword_accuracy_scorer(model, X, truth, weights)
                assert result == pytest.approx(expected, nan_ok=True, abs=1e-12)
                assert isinstance(result, float)
        assert max(model.asked) <= max(1, block // Y.shape[1])


@pytest.mark.parametrize("container", [list, pd.DataFrame, torch.tensor, np.asarray])
def test_scorer_accepts_every_container(container: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", 7)
    rng = np.random.default_rng(0)
    Y, scores = rng.poisson(0.5, size=(20, 3)), rng.normal(size=(20, 3))
    X = container([[float(i)] for i in range(20)])
    expected, _ = slow_accuracy(Y, scores)
    assert keyword_accuracy_scorer(Fixed(scores), X, Y) == pytest.approx(expected)


def test_scorer_with_one_column() -> None:
    """scikit-learn's binary decision functions have shape (n,)."""
    model = Fixed(np.array([0.3, -0.2]))
    assert keyword_accuracy_scorer(model, np.arange(2)[:, None], np.array([1, 0])) == 1.0


def test_scorer_errors() -> None:
    model = Fixed(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"X has 3 rows, Y has 2; pass one row of counts"):
        keyword_accuracy_scorer(model, np.zeros((3, 1)), TWO)
    with pytest.raises(ValueError, match="3 columns, Y has 2"):
        keyword_accuracy_scorer(model, np.zeros((2, 1)), TWO[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        keyword_accuracy_scorer(Fixed(FLAT * NAN), np.zeros((2, 1)), TWO)
    with pytest.raises((TypeError, AttributeError), match="predict_proba"):
        keyword_accuracy_scorer(BaseEstimator(), np.zeros((2, 1)), TWO)


def test_scorer_with_a_list_of_probabilities() -> None:
    """Multi-output classifiers return an (n, 2) array for each word, whose last column is the score."""
    rng = np.random.default_rng(0)
    Y = (rng.random((60, 4)) < 0.4).astype(int)
    X = Y + 0.3 * rng.normal(size=Y.shape)
    model = KNeighborsClassifier(5).fit(X, Y)
    scores = np.column_stack([p[:, 1] for p in model.predict_proba(X)])
    expected, _ = slow_accuracy(Y, scores)
    assert keyword_accuracy_scorer(model, X, Y) == pytest.approx(expected)


class Endless:
    """Scores of any number of rows: row i is a window of a ring of numbers that starts at position i."""

    def __init__(self, n_words: int) -> None:
        self.n_words = n_words
        self.ring = np.random.default_rng(0).permutation(2 * n_words).astype(np.float32)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        start = X[:, 0].astype(int)
        assert (np.diff(start) == 1).all()
        shape, strides = (len(X), self.n_words), (4, 4)
        return np.lib.stride_tricks.as_strided(self.ring[start[0] :], shape, strides)

    def best(self, n: int, k: int) -> np.ndarray:
        """The k best words of rows 0 to n - 1, computed differently: the ring is sorted once."""
        order = np.argsort(-self.ring).tolist()
        best = np.empty((n, k), dtype=np.int64)
        for i in range(n):
            inside = (place for place in order if i <= place < i + self.n_words)
            best[i] = [next(inside) - i for _ in range(k)]
        return best


def test_memory_stays_bounded() -> None:
    """20,000 x 20,000: the scores alone would take 1.5 GiB as float32, their order 3 GiB."""
    n = n_words = 20_000
    model = Endless(n_words)
    best = model.best(n, 6)
    words = np.random.default_rng(1).integers(n_words, size=(n, 6))
    words[:, :3] = best[:, :3]
    Y = sp.csr_array((np.ones(6 * n), words.ravel(), np.arange(0, 6 * n + 1, 6)), shape=(n, n_words))
    X = np.arange(n, dtype=float)[:, None]
    tracemalloc.start()
    try:
        result = keyword_accuracy_scorer(model, X, Y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 600 * 2**20
    assert n * n_words * 4 > 2 * peak
    truth = [set(row) for row in words.tolist()]
    hits = [len(row & set(top[: len(row)])) / len(row) for row, top in zip(truth, best.tolist(), strict=True)]
    assert result == pytest.approx(np.mean(hits))
    assert 0.5 <= result < 0.51

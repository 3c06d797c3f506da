"""Words that one set of embeddings has more often: planted differences, exact cases, no difference."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import t as student

from flip_sklearn import FLiPExtractor, SpLiCEExtractor
from flip_sklearn.backend.scoring import presence_sums as backend
from flip_sklearn.diagnostics import SetComparison, compare_sets
from flip_sklearn.estimation.presence import ATTRIBUTES, sum_presence
from flip_sklearn.plots import SetComparisonDisplay

N_WORDS, DIM, NEVER_SEEN = 12, 16, 4
WORDS = [f"w{j}" for j in range(N_WORDS)]
SHARES = np.r_[np.full(6, 0.3), np.full(6, 0.08)]
DIRECTIONS = np.random.default_rng(99).normal(size=(N_WORDS, DIM))
FIELDS = ("share_a", "share_b", "log_ratio", "statistic", "p_value", "q_value")


def draw(n: int, shares: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of n texts with these shares of words, and which words they have; word 4 never occurs."""
    occurs = rng.random((n, N_WORDS)) < shares
    occurs[:, NEVER_SEEN] = False
    X = occurs @ DIRECTIONS + 0.6 * rng.normal(size=(n, DIM))
    return X.astype(np.float32), occurs


@pytest.fixture(scope="module")
def flip() -> FLiPExtractor:
    X, occurs = draw(3000, SHARES, np.random.default_rng(0))
    return FLiPExtractor(vocabulary=WORDS, max_iter=6, random_state=0).fit(X, occurs.astype(int))


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Word 0 is more frequent in the first set, and words 1 and 7 in the second."""
    rng = np.random.default_rng(1)
    more = SHARES.copy()
    more[[0, 1, 7]] = 0.5, 0.15, 0.02
    return draw(300, more, rng)[0], draw(500, SHARES, rng)[0]


def dense(flip: FLiPExtractor, X: np.ndarray) -> np.ndarray:
    return flip.predict_presence(X.astype(np.float64), top_k=N_WORDS).toarray().astype(np.float64)


def assert_same(one: SetComparison, other: SetComparison, tolerance: float = 1e-4) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-3, atol=tolerance)
    for name in ("value", "low", "high"):
        ends = (getattr(result.difference, name) for result in (one, other))
        np.testing.assert_allclose(*ends, atol=tolerance)
    np.testing.assert_array_equal(one.discovered, other.discovered)


def test_planted_words_are_found_with_their_signs(flip: FLiPExtractor, sets: Any) -> None:
    result = compare_sets(flip, *sets)
    assert set(result.more_in_a()) == {"w0"}
    assert set(result.more_in_b()) == {"w1", "w7"}
    assert len(result.more_in_b(1)) == 1
    assert result.more_in_b(1) == result.more_in_b()[:1]
    assert result.difference.low[0] > 0 > result.difference.high[1]


def test_shares_are_means_of_presence(flip: FLiPExtractor, sets: Any) -> None:
    result = compare_sets(flip, *sets)
    for X, share in zip(sets, (result.share_a, result.share_b), strict=True):
        np.testing.assert_allclose(share, dense(flip, X).mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(result.difference.value, result.share_a - result.share_b)


@pytest.mark.parametrize("gathered", [7, 1000])
def test_sums_over_groups(
    flip: FLiPExtractor, sets: Any, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups in any order, which blocks of rows cut into parts."""
    monkeypatch.setattr(backend, "_GATHERED_ROWS", gathered)
    X = sets[0][:120]
    groups = np.unique(np.random.default_rng(0).integers(0, 25, len(X)), return_inverse=True)[1]
    members = np.eye(groups.max() + 1)[groups]
    for sums, values in zip(
        sum_presence(flip, X, groups), (dense(flip, X), dense(flip, X) ** 0.25), strict=True
    ):
        totals, sizes = members.T @ values, members.sum(axis=0)
        np.testing.assert_allclose(sums.total, values.sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(sums.squares, (values**2).sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(sums.cubes, (values**3).sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(sums.group_squares, (totals**2).sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(sums.group_products, sizes @ totals, rtol=1e-4)


def test_statistics_of_independent_rows(flip: FLiPExtractor, sets: Any) -> None:
    """The formulas of the docstring, from an (n, V) array in float64."""
    result = compare_sets(flip, *sets)
    a, b = (dense(flip, X) for X in sets)
    seen = np.arange(N_WORDS) != NEVER_SEEN

    def pooled(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        variance = np.concatenate([one, other]).var(axis=0, ddof=1)
        return np.sqrt(variance * (1 / len(one) + 1 / len(other)))

    roots = a**0.25, b**0.25
    with np.errstate(invalid="ignore"):
        t = (roots[0].mean(axis=0) - roots[1].mean(axis=0)) / pooled(*roots)
        centred = np.concatenate(roots) - np.concatenate(roots).mean(axis=0)
        skewness = (centred**3).mean(axis=0) / np.concatenate(roots).std(axis=0, ddof=1) ** 3
    share = len(a) / (len(a) + len(b))
    skewness *= (1 - 2 * share) / np.sqrt(len(a) * (1 - share))
    t = 6 / skewness * (np.cbrt(1 + skewness * t / 2) - 1) + skewness / 6
    error = np.maximum(pooled(a, b), np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b)))
    difference = a.mean(axis=0) - b.mean(axis=0)
    is_clear = (np.sign(t) == np.sign(difference)) & (np.abs(difference) >= error)
    p = np.where(is_clear, 2 * student.sf(np.abs(t), len(a) - 1), 1)[seen]
    order = np.argsort(-p)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    np.testing.assert_array_equal(result.tested, seen)
    np.testing.assert_allclose(result.statistic[seen], t[seen], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(result.p_value[seen], p, rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(result.q_value[seen], np.minimum(q, 1), rtol=0.02, atol=1e-6)
    half = student.isf(0.025, len(a) - 1) * error
    np.testing.assert_allclose(result.difference.high, difference + half, atol=1e-4)
    np.testing.assert_allclose(result.difference.low, difference - half, atol=1e-4)


def test_copies_in_groups_change_nothing(flip: FLiPExtractor, sets: Any) -> None:
    rows = [np.repeat(np.arange(len(X)), 3) for X in sets]
    shuffled = [np.random.default_rng(2).permutation(row) for row in rows]
    copies = [X[row] for X, row in zip(sets, shuffled, strict=True)]
    labels = [[f"text {i}" for i in row] for row in shuffled]
    result = compare_sets(flip, *copies, groups_a=labels[0], groups_b=labels[1])
    assert_same(result, compare_sets(flip, *sets))
    assert (result.n_rows, result.n_groups) == ((900, 1500), (300, 500))
    without_groups = compare_sets(flip, *copies)
    assert (np.abs(without_groups.statistic) > 1.5 * np.abs(result.statistic))[:NEVER_SEEN].all()


def test_groups_of_one_row_change_nothing(flip: FLiPExtractor, sets: Any) -> None:
    groups = {"groups_a": np.arange(len(sets[0])), "groups_b": -np.arange(len(sets[1]))}
    assert_same(compare_sets(flip, *sets, **groups), compare_sets(flip, *sets))


def test_exchanged_sets(flip: FLiPExtractor, sets: Any) -> None:
    one, other = compare_sets(flip, *sets), compare_sets(flip, *sets[::-1])
    assert one.more_in_a() == other.more_in_b()
    np.testing.assert_allclose(one.statistic, -other.statistic, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.log_ratio, -other.log_ratio, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.difference.low, -other.difference.high, atol=1e-6)


def test_a_set_and_itself(flip: FLiPExtractor, sets: Any) -> None:
    result = compare_sets(flip, sets[0], sets[0])
    np.testing.assert_array_equal(result.p_value[result.tested], 1)
    np.testing.assert_array_equal(result.log_ratio, 0)
    assert not result.discovered.any()


def test_equal_rows(flip: FLiPExtractor, sets: Any) -> None:
    """Rows that do not vary, where only rounding is left."""
    same = sets[0][:1]
    assert not compare_sets(flip, np.repeat(same, 70, axis=0), np.repeat(same, 31, axis=0)).discovered.any()


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_random_splits_discover_nothing(flip: FLiPExtractor, copies: int, share: float) -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(60):
        X = draw(300, SHARES, rng)[0]
        is_first = rng.random(len(X)) < share
        rows = [np.repeat(np.flatnonzero(part), copies) for part in (is_first, ~is_first)]
        groups = dict(zip(("groups_a", "groups_b"), rows, strict=True))
        found += compare_sets(flip, X[rows[0]], X[rows[1]], **groups).discovered.any()
    assert found <= 7  # 3 expected at the most; 8 or more have a probability of 1 %


def test_copies_without_groups_discover(flip: FLiPExtractor) -> None:
    """The negative control of the test above: copies that count as texts of their own."""
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(30):
        X = np.repeat(draw(200, SHARES, rng)[0], 3, axis=0)
        found += compare_sets(flip, X[:300], X[300:]).discovered.any()
    assert found >= 8


@pytest.mark.parametrize("mean_size", [1, 4])
def test_intervals_cover(flip: FLiPExtractor, mean_size: int) -> None:
    """Rows of a group share their words; the first set has larger shares of some words."""
    rng = np.random.default_rng(5)
    more = SHARES.copy()
    more[[0, 7]] = 0.5, 0.15

    def one_set(n_groups: int, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        groups = np.repeat(np.arange(n_groups), rng.integers(1, 2 * mean_size, n_groups))
        occurs = draw(n_groups, shares, rng)[1][groups]
        X = occurs @ DIRECTIONS + 0.6 * rng.normal(size=(len(groups), DIM))
        return X.astype(np.float32), groups

    expected = compare_sets(flip, one_set(20_000, more)[0], one_set(20_000, SHARES)[0]).difference.value
    covered = []
    for _ in range(60):
        (X_a, groups_a), (X_b, groups_b) = one_set(60, more), one_set(90, SHARES)
        ends = compare_sets(flip, X_a, X_b, groups_a=groups_a, groups_b=groups_b).difference
        covered.append((ends.low <= expected) & (expected <= ends.high))
    share = np.delete(np.mean(covered, axis=0), NEVER_SEEN)
    assert share.mean() > 0.93
    assert share.min() > 0.85


def test_rare_words_are_not_tested(flip: FLiPExtractor) -> None:
    rng = np.random.default_rng(6)
    result = compare_sets(flip, draw(5, SHARES, rng)[0], draw(100, SHARES, rng)[0])
    expected = 5 * result.share_a + 100 * result.share_b
    np.testing.assert_array_equal(result.tested, (expected >= 10) & (5 * expected / 105 >= 1))
    assert result.tested.any()
    assert np.isnan(result.p_value[~result.tested]).all()
    assert not result.discovered[~result.tested].any()
    few = compare_sets(flip, draw(3, SHARES, rng)[0], draw(3, SHARES, rng)[0])
    assert not few.tested.any()
    assert "0 of 0 tested words" in repr(few)


def test_words_that_training_never_saw(flip: FLiPExtractor, sets: Any) -> None:
    result = compare_sets(flip, *sets)
    assert not result.tested[NEVER_SEEN]
    assert (
        result.share_a[NEVER_SEEN] == result.log_ratio[NEVER_SEEN] == result.difference.high[NEVER_SEEN] == 0
    )


@pytest.mark.parametrize("convert", [list, pd.DataFrame, torch.from_numpy, lambda X: X.astype(np.float64)])
def test_forms_of_input(flip: FLiPExtractor, sets: Any, convert: Any) -> None:
    assert_same(compare_sets(flip, *map(convert, sets)), compare_sets(flip, *sets))


def test_memory_map_of_float16(flip: FLiPExtractor, sets: Any, tmp_path: Path) -> None:
    halves = [X.astype(np.float16) for X in sets]
    np.save(tmp_path / "a.npy", halves[0])
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    groups = np.arange(len(mapped))[::-1]
    assert_same(compare_sets(flip, mapped, halves[1], groups_a=groups), compare_sets(flip, *halves))


def test_stored_model_and_result(flip: FLiPExtractor, sets: Any, tmp_path: Path) -> None:
    flip.save_pretrained(tmp_path / "model")
    result = compare_sets(flip, *sets)
    assert_same(compare_sets(FLiPExtractor.from_pretrained(tmp_path / "model"), *sets), result, 1e-3)
    assert_same(pickle.loads(pickle.dumps(result)), result, 0)


def test_table(flip: FLiPExtractor, sets: Any) -> None:
    result = compare_sets(flip, *sets)
    table = result.to_frame()
    assert list(table.word) == WORDS
    assert set(table[table.discovered].word) == {"w0", "w1", "w7"}
    assert (table.difference_low <= table.difference_high).all()
    assert repr(result) == (
        "SetComparison(300 and 500 rows; 3 of 11 tested words differ; more in a: w0; more in b: "
        f"{', '.join(result.more_in_b())})"
    )


def test_display(flip: FLiPExtractor, sets: Any) -> None:
    result = compare_sets(flip, *sets)
    display = SetComparisonDisplay.from_result(result, ax=Figure().subplots(), names=("May", "April"))
    assert display.words[0] == "w0"
    assert set(display.words[1:]) == {"w1", "w7"}
    assert [bar.get_hatch() for bar in display.bars_] == ["", "////", "////"]
    columns = [WORDS.index(word) for word in display.words]
    np.testing.assert_array_equal(
        [bar.get_width() for bar in display.bars_], result.difference.value[columns]
    )
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["more in May", "more in April"]
    few = SetComparisonDisplay.from_estimator(flip, *sets, top_k=1, ax=Figure().subplots(), name="title")
    assert len(few.words) == 2
    assert few.ax_.get_title(loc="left") == "title"
    nothing = SetComparisonDisplay.from_result(compare_sets(flip, sets[0], sets[0]), ax=Figure().subplots())
    assert nothing.words == ()
    with pytest.raises(ValueError, match="pass the result of compare_sets"):
        SetComparisonDisplay.from_result(3)
    with pytest.raises(ValueError, match="top_k=0 is not allowed"):
        SetComparisonDisplay.from_result(result, top_k=0)
    with pytest.raises(ValueError, match="names='May' is not allowed"):
        SetComparisonDisplay.from_result(result, names="May")


def test_no_presence(flip: FLiPExtractor, sets: Any) -> None:
    without = pickle.loads(pickle.dumps(flip))
    for name in ATTRIBUTES:
        delattr(without, name)
    with pytest.raises(ValueError, match="no presence_ attributes"):
        compare_sets(without, *sets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fdr": 0}, "fdr=0 is not allowed"),
        ({"fdr": 1.0}, "fdr=1.0 is not allowed"),
        ({"fdr": True}, "fdr=True is not allowed"),
        ({"model": SpLiCEExtractor()}, "pass a fitted FLiPExtractor"),
        ({"X_a": np.zeros((0, DIM))}, "X_a is empty"),
        ({"X_b": []}, "X_b is empty"),
        ({"X_a": np.zeros((4, DIM - 1))}, "X_a: X has 15 features.*Use the encoder"),
        ({"X_b": np.zeros(DIM)}, "X_b: .*1D array"),
        ({"X_b": np.full((4, DIM), np.nan)}, "X_b: .*NaN"),
        ({"X_a": np.zeros((1, DIM))}, "X_a has 1 row; at least 2"),
        ({"groups_a": [1, 2]}, r"groups_a: .*pass one group per row, \(300,\)"),
        ({"groups_b": np.zeros(500)}, "groups_b has 1 group; at least 2"),
        ({"groups_b": [None, *range(499)]}, "groups_b: .*is missing"),
    ],
)
def test_bad_input(flip: FLiPExtractor, sets: Any, changes: dict[str, Any], message: str) -> None:
    arguments = {"model": flip, "X_a": sets[0], "X_b": sets[1]} | changes
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        compare_sets(**arguments)

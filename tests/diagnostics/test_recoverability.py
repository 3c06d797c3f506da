"""word_recoverability: comparison with loops and keyword accuracy, known losses, and invalid input."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, gamma

from flip_sklearn import FLiPExtractor, keyword_accuracy
from flip_sklearn.diagnostics import WordRecoverability, word_recoverability
from flip_sklearn.diagnostics import words as module
from flip_sklearn.diagnostics.bootstrap import Interval, PairedBootstrap
from flip_sklearn.diagnostics.inputs import EvaluationSettings


class Scored:
    """A model whose embeddings are the scores themselves."""

    def __init__(self, words: list[str], counts: Any = None) -> None:
        self.vocabulary_ = np.array(words, dtype=object)
        if counts is not None:
            self.word_counts_ = np.asarray(counts)

    def decision_function(self, X: Any) -> np.ndarray:
        return np.asarray(X)


def names(n_words: int) -> list[str]:
    return [f"w{j}" for j in range(n_words)]


def diagnose(Y: np.ndarray, scores: np.ndarray, by: Any, **options: Any) -> WordRecoverability:
    options = {"n_bootstrap": 50, "random_state": 0} | options
    return word_recoverability(Scored(names(Y.shape[1])), scores, Y, by=by, **options)


def some_data(n: int = 60, n_words: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and noisy scores of them."""
    rng = np.random.default_rng(seed)
    Y = rng.poisson(0.3, size=(n, n_words))
    return Y, (Y > 0) + rng.normal(size=Y.shape)


def values(result: WordRecoverability) -> list[np.ndarray]:
    """All fields, without the ends of intervals."""
    parts = [getattr(result, f.name) for f in fields(result) if f.name != "band_baseline"]
    return [np.asarray(p.value if isinstance(p, Interval) else p, dtype=object) for p in parts]


def arrays(result: WordRecoverability) -> list[np.ndarray]:
    """The intervals of bands and of all words."""
    parts = (result.band_recall, result.band_difference, result.overall)
    return [getattr(part, field.name) for part in parts for field in fields(part)]


@pytest.fixture(scope="module")
def trained() -> tuple[FLiPExtractor, np.ndarray, np.ndarray]:
    """A model of embeddings without the last five of 20 words, and X and Y of other sentences."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.2, size=(1200, 20))
    code = rng.normal(size=(20, 24))
    code[15:] = 0
    X = Y @ code
    flip = FLiPExtractor(random_state=0).fit(X[:700], Y[:700])
    return flip, X[700:], Y[700:]


# ------------------------------------------------------------------ results


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    n, n_words = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    whole = st.integers(0, 3)
    row = st.lists(whole, min_size=n_words, max_size=n_words)
    Y = np.array(draw(st.lists(row, min_size=n, max_size=n)))
    Y[draw(st.integers(0, n - 1)), draw(st.integers(0, n_words - 1))] = 1
    scores = np.array(draw(st.lists(row, min_size=n, max_size=n)), dtype=float)  # many are equal
    label = st.sampled_from(["noun", "verb", None])
    labels = draw(st.lists(label, min_size=n_words, max_size=n_words))
    labels[int(np.argmax(Y.sum(axis=0) > 0))] = "noun"
    return Y, scores, labels


@settings(max_examples=100, deadline=None)
@given(problems())
def test_result_equals_loops(problem: tuple[np.ndarray, np.ndarray, list[Any]]) -> None:
    Y, scores, labels = problem
    n, n_words = Y.shape
    hit, has = np.zeros(n_words, dtype=int), np.zeros(n_words, dtype=int)
    skipped = 0
    for i in range(n):
        words = {j for j in range(n_words) if Y[i, j] > 0}
        top = sorted(range(n_words), key=lambda j: (-scores[i, j], j))[: len(words)]
        for j in words:
            has[j] += 1
            hit[j] += j in top
        skipped += all(labels[j] is None for j in words)
    result = diagnose(Y, scores, labels, n_bootstrap=10)
    assert result.test_count.tolist() == has.tolist()
    assert result.test_hits.tolist() == hit.tolist()
    expected = [h / k if k else np.nan for h, k in zip(hit, has, strict=True)]
    np.testing.assert_array_equal(result.recall, expected)
    assert result.band.tolist() == labels
    assert (result.n_sentences, result.n_skipped) == (n, skipped)
    total, totals = 0, 0
    for b, band in enumerate(result.bands):
        among = [j for j in range(n_words) if labels[j] == band and has[j]]
        assert result.band_words[b] == len(among)
        assert result.band_occurrences[b] == has[among].sum()
        assert result.band_recall.value[b] == hit[among].sum() / has[among].sum()
        total, totals = total + hit[among].sum(), totals + has[among].sum()
    assert set(result.bands) == {labels[j] for j in range(n_words) if has[j]} - {None}
    assert result.overall.value == total / totals
    np.testing.assert_array_equal(
        result.band_difference.value, result.band_recall.value - result.overall.value
    )


def test_overall_is_keyword_accuracy_weighted_by_words() -> None:
    Y, scores = some_data()
    result = diagnose(Y, scores, "length")
    k = (Y > 0).sum(axis=1)
    weighted = keyword_accuracy(Y, scores, sample_weight=k).value
    seen = result.test_count > 0
    assert result.overall.value == pytest.approx(weighted)
    mean = np.average(result.recall[seen], weights=result.test_count[seen])
    assert mean == pytest.approx(weighted)
    mean = np.average(result.band_recall.value, weights=result.band_occurrences)
    assert mean == pytest.approx(weighted)


def test_lost_words_are_found(trained: tuple[FLiPExtractor, np.ndarray, np.ndarray]) -> None:
    flip, X, Y = trained
    by = ["kept"] * 15 + ["lost"] * 5
    result = word_recoverability(flip, X, Y, by=by, random_state=0)
    assert result.bands == ("kept", "lost")
    assert result.band_difference.significant.all()
    assert result.band_recall.low[0] > 0.8
    assert result.band_recall.high[1] < 0.5
    assert set(result.lost(5)) == {f"word{j}" for j in range(15, 20)}
    assert not set(result.kept(15)) & set(result.lost(5))
    assert len(result.lost(100)) == 20


def test_no_difference_without_a_loss(trained: tuple[FLiPExtractor, np.ndarray, np.ndarray]) -> None:
    flip, X, Y = trained
    by = ["even", "odd"] * 7 + [None] * 6  # only words that the embeddings keep
    result = word_recoverability(flip, X, Y, by=by, random_state=0)
    assert not result.band_difference.significant.any()
    assert abs(result.band_difference.value).max() < 0.05


def test_order_does_not_matter() -> None:
    Y, scores = some_data()
    labels = np.array(["a", "b", "c"] * 4)
    result = diagnose(Y, scores, labels)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(Y)), rng.permutation(Y.shape[1])
    other = diagnose(Y[rows], scores[rows], labels)
    for a, b in zip(values(result), values(other), strict=True):
        assert a.tolist() == b.tolist() or np.array_equal(a.astype(float), b.astype(float), True)
    moved = diagnose(Y[:, columns], scores[:, columns], labels[columns])
    np.testing.assert_array_equal(moved.recall, result.recall[columns])
    for a, b in zip(arrays(result), arrays(moved), strict=True):
        np.testing.assert_array_equal(a, b)


def test_counts_above_one_and_input_types() -> None:
    Y, scores = some_data()
    result = diagnose(Y, scores, "length")
    for other in (3 * Y, sp.csr_array(Y), sp.coo_matrix(Y), pd.DataFrame(Y)):
        same = diagnose(other, scores, "length")
        for a, b in zip(arrays(result), arrays(same), strict=True):
            np.testing.assert_array_equal(a, b)


def test_sentences_without_labelled_words_are_left_out() -> None:
    Y, scores = some_data()
    labels = ["a", "b"] * 5 + [None, None]
    result = diagnose(Y, scores, labels)
    empty, unlabelled = np.zeros_like(Y[:3]), np.zeros_like(Y[:2])
    unlabelled[:, -1] = 1
    more = np.concatenate([empty, Y, unlabelled])
    other = diagnose(more, np.concatenate([scores[:3], scores, scores[:2]]), labels)
    for a, b in zip(arrays(result), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.n_skipped == result.n_skipped + 5
    assert other.n_sentences == result.n_sentences + 5


# ------------------------------------------------------------------ intervals


def test_intervals_contain_the_value_and_shrink_with_the_level() -> None:
    Y, scores = some_data(n=200)
    wide = diagnose(Y, scores, ["a", "b", "c"] * 4, confidence=0.99, n_bootstrap=500)
    narrow = diagnose(Y, scores, ["a", "b", "c"] * 4, confidence=0.5, n_bootstrap=500)
    for of in ("band_recall", "band_difference", "overall"):
        outer, inner = getattr(wide, of), getattr(narrow, of)
        assert (outer.low < inner.low).all()
        assert (inner.high < outer.high).all()
        assert (outer.low <= outer.value).all()
        assert (outer.value <= outer.high).all()
    both = (wide.band_difference.low > 0) | (wide.band_difference.high < 0)
    np.testing.assert_array_equal(wide.band_difference.significant, both)


def test_same_seed_gives_the_same_bits() -> None:
    Y, scores = some_data()
    first, second, third = (diagnose(Y, scores, "length", random_state=s) for s in (3, 3, 4))
    for a, b in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.overall.low != third.overall.low
    assert first.overall.value == third.overall.value


def test_bootstrap_of_a_ratio_of_sums() -> None:
    rng = np.random.default_rng(0)
    parts, wholes = rng.integers(0, 3, size=(9, 2)), rng.integers(3, 6, size=(9, 2))
    groups = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5])
    bootstrap = PairedBootstrap(parts, groups, EvaluationSettings(40, 0.9, 7), denominators=wholes)
    drawn = np.random.RandomState(7).multinomial(6, np.full(6, 1 / 6), size=40)
    slow = []
    for times in drawn:
        rows = [i for g, m in enumerate(times) for _ in range(m) for i in np.flatnonzero(groups == g)]
        slow.append(parts[rows].sum(axis=0) / wholes[rows].sum(axis=0))
    np.testing.assert_allclose(bootstrap.samples, slow)
    np.testing.assert_allclose(bootstrap.mean, parts.sum(axis=0) / wholes.sum(axis=0))
    # With denominators of one, it is a mean.
    plain = PairedBootstrap(parts, groups, EvaluationSettings(40, 0.9, 7))
    ones = PairedBootstrap(parts, groups, EvaluationSettings(40, 0.9, 7), denominators=np.ones_like(parts))
    np.testing.assert_array_equal(plain.samples, ones.samples)


@pytest.mark.parametrize("is_found", [True, False])
def test_rare_band_has_a_wide_interval(is_found: bool) -> None:
    Y, scores = some_data()
    Y[:, 0] = 0
    Y[0, 0], scores[0, 0] = 1, 9 if is_found else -9
    result = diagnose(Y, scores, ["rare"] + ["often"] * 11)
    assert result.bands == ("often", "rare")
    assert result.band_recall.value[1] == is_found
    ends = (result.band_recall.low[1], result.band_recall.high[1])
    assert ends == pytest.approx((0.051, 1) if is_found else (0, 0.949), abs=0.001)
    assert not result.band_difference.significant[1]
    assert result.band_difference.high[1] - result.band_difference.low[1] > 0.9


def test_a_band_without_a_hit_or_a_miss_has_an_interval() -> None:
    """None of 20 occurrences found is not a recall of exactly 0, nor all found one of exactly 1."""
    Y = np.zeros((60, 4), dtype=int)
    Y[:20, 0] = Y[20:40, 1] = Y[:, 2] = 1
    scores = np.where(Y > 0, 1.0, 0.0) + np.arange(60)[:, None]  # no equal rows
    scores[:20, 3] += 2
    scores[:20, 2] += 1
    result = diagnose(Y, scores, ["lost", "kept", "other", "other"])
    assert result.band_recall.value.tolist() == [1, 0, 1]
    z2 = 1.959964**2
    recall, gap = result.band_recall, result.band_difference
    assert (recall.low[1], recall.high[1]) == pytest.approx((0, z2 / (20 + z2)))
    assert (recall.low[0], recall.high[0]) == pytest.approx((20 / (20 + z2), 1))
    assert gap.low[1] < gap.value[1] < gap.high[1] < 0
    # With every row three times there are as many independent occurrences, and a group label says the same.
    for thrice in (
        diagnose(np.repeat(Y, 3, axis=0), np.repeat(scores, 3, axis=0), result.band),
        diagnose(
            np.repeat(Y, 3, axis=0),
            np.repeat(scores, 3, axis=0) + np.arange(180)[:, None],
            result.band,
            groups=np.repeat([f"s{i}" for i in range(60)], 3),
        ),
    ):
        for a, b in zip(arrays(result), arrays(thrice), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_rows_three_times_tell_no_more() -> None:
    """Equal rows are one group: bands, differences and words keep their intervals, and so does the rank."""
    Y, scores = some_data(n=150)
    once = diagnose(Y, scores, ["a", "b", "c"] * 4)
    thrice = diagnose(*(np.repeat(part, 3, axis=0) for part in (Y, scores)), ["a", "b", "c"] * 4)
    labelled = diagnose(
        np.repeat(Y, 3, axis=0),
        np.repeat(scores, 3, axis=0) + np.arange(450)[:, None],
        ["a", "b", "c"] * 4,
        groups=pd.Series(np.repeat(np.arange(150), 3)),
    )
    for other in (thrice, labelled):
        for a, b in zip(arrays(once), arrays(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        for end in ("low", "high"):
            a, b = (getattr(result.word_interval(), end) for result in (once, other))
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        assert other.test_count.tolist() == (3 * once.test_count).tolist()
        np.testing.assert_allclose(other.effective_count, once.test_count)
        assert other.lost(5) == once.lost(5)
    # Negative control: three times as many independent sentences tell more.
    single = diagnose(
        np.repeat(Y, 3, axis=0), np.repeat(scores, 3, axis=0) + np.arange(450)[:, None], ["a", "b", "c"] * 4
    )
    width = [result.band_recall.high - result.band_recall.low for result in (single, once)]
    assert (width[0] < 0.75 * width[1]).all()


def test_results_stored_without_effective_counts_have_word_intervals() -> None:
    Y, scores = some_data()
    result = diagnose(Y, scores, "length")
    old = replace(result, effective_count=None)
    for field in fields(Interval):
        new, stored = (getattr(r.word_interval(), field.name) for r in (result, old))
        np.testing.assert_array_equal(new, stored)


def test_equal_embeddings_of_any_kind_are_one_group() -> None:
    Y, scores = some_data(n=40)
    Y, scores = np.repeat(Y, 2, axis=0), np.repeat(scores, 2, axis=0)
    expected = diagnose(Y, scores, "length")
    for X in (pd.DataFrame(scores), scores.tolist(), torch.from_numpy(scores), np.asfortranarray(scores)):
        for a, b in zip(arrays(expected), arrays(diagnose(Y, X, "length")), strict=True):
            np.testing.assert_array_equal(a, b)


def test_word_intervals_are_wilson_intervals() -> None:
    Y, scores = some_data()
    Y[:, 3] = 0
    result = diagnose(Y, scores, "length", confidence=0.9)
    interval = result.word_interval()
    for j in range(Y.shape[1]):
        if j == 3:
            assert np.isnan([interval.value[j], interval.low[j], interval.high[j]]).all()
            continue
        hits, count = int(result.test_hits[j]), int(result.test_count[j])
        wilson = binomtest(hits, count).proportion_ci(0.9, method="wilson")
        low, high = wilson.low, wilson.high
        few = 3 if count > 50 else 2
        if 0 < hits <= few:
            low = min(low, gamma.ppf(0.1, hits) / count)
        if 0 < count - hits <= few:
            high = max(high, 1 - gamma.ppf(0.1, count - hits) / count)
        assert (interval.low[j], interval.high[j]) == pytest.approx((low, high))


def test_words_with_one_sentence_are_ranked_behind() -> None:
    n = 40
    Y = np.zeros((n, 4), dtype=int)
    scores = np.zeros((n, 4))
    Y[:, 0] = scores[:, 0] = 1  # always found
    Y[:30, 1] = 1  # in 30 sentences, never found
    scores[:30, 2] = 0.5
    Y[39, 3] = 1  # in one sentence, not found
    scores[39, 2] = 0.5
    result = diagnose(Y, scores, ["x"] * 4)
    assert result.recall[[1, 3]].tolist() == [0, 0]
    assert result.lost(2, min_count=1) == ["w1", "w3"]
    assert result.kept(1) == ["w0"]
    assert result.lost(9, min_count=31) == ["w0"]
    left_out = diagnose(Y, scores, ["x", None, "x", "x"])
    assert left_out.lost(2, min_count=1) == ["w3", "w0"]


def test_baseline_equals_a_model_of_frequencies() -> None:
    Y, scores = some_data()
    counts = np.random.default_rng(5).integers(1, 1000, size=12)
    result = word_recoverability(Scored(names(12), counts), scores, Y, n_bootstrap=50, random_state=0)
    frequencies = counts + np.arange(len(Y), dtype=float)[:, None]  # rows of equal ranks that are not equal
    expected = word_recoverability(Scored(names(12), counts), frequencies, Y, n_bootstrap=50, random_state=0)
    for baseline in (result.band_baseline, expected.band_baseline):
        assert baseline is not None
        for field in fields(Interval):
            np.testing.assert_array_equal(
                getattr(baseline, field.name), getattr(expected.band_recall, field.name)
            )
    assert (result.bands_to_frame()["baseline"] == expected.band_recall.value).all()
    unknown = diagnose(Y, scores, "length")
    assert unknown.band_baseline is None
    assert unknown.bands_to_frame()["baseline"].isna().all()


# ------------------------------------------------------------------ bands


def banded(counts: list[float], by: Any = "frequency", **options: Any) -> WordRecoverability:
    n = len(counts)
    model = Scored(names(n), counts)
    return word_recoverability(model, np.eye(n), np.eye(n), by=by, n_bootstrap=10, **options)


def test_bands_of_frequency() -> None:
    counts = [0, 0.5, 1, 9, 9.5, 10, 99, 100, 999, 1000, 12345, 10**6]
    result = banded(counts)
    assert result.band.tolist() == [
        "0",
        "1-9",
        "1-9",
        "1-9",
        "1-9",
        "10-99",
        "10-99",
        "100-999",
        "100-999",
        "1,000-9,999",
        "10,000+",
        "10,000+",
    ]
    assert result.bands == ("0", "1-9", "10-99", "100-999", "1,000-9,999", "10,000+")
    assert result.band_words.tolist() == [1, 4, 2, 2, 1, 2]
    np.testing.assert_array_equal(result.train_count, counts)
    assert banded(counts, n_bands=2).bands == ("0", "1-9", "10+")
    assert banded(counts, n_bands=1).bands == ("0", "1+")
    assert banded([5, 50], n_bands=30).bands == ("1-9", "10-99")


def test_words_added_after_training_are_a_band() -> None:
    model = Scored(names(4), [0, 1, 50, 1])
    model.extended_words_ = np.array([3])  # with a count that extend_vocabulary was given
    result = word_recoverability(model, np.eye(4), np.eye(4), n_bootstrap=10)
    assert result.bands == ("0", "never seen", "1-9", "10-99")
    assert result.band.tolist() == ["0", "1-9", "10-99", "never seen"]
    assert result.train_count.tolist() == [0, 1, 50, 0]
    assert model.word_counts_.tolist() == [0, 1, 50, 1]
    by_length = word_recoverability(model, np.eye(4), np.eye(4), by="length", n_bootstrap=10)
    assert by_length.bands == ("1-3",)


def test_bands_of_length() -> None:
    words = ["a", "abc", "abcd", "abcde", "abcdef", "a" * 9, "a" * 10, "a" * 30]
    model = Scored(words)
    bands = word_recoverability(model, np.eye(8), np.eye(8), by="length", n_bootstrap=10)
    assert bands.band.tolist() == ["1-3", "1-3", "4-5", "4-5", "6-7", "8-9", "10+", "10+"]
    two = word_recoverability(model, np.eye(8), np.eye(8), by="length", n_bands=2, n_bootstrap=10)
    assert two.bands == ("1-3", "4+")


def test_bands_without_an_occurrence_are_not_listed() -> None:
    Y, scores = some_data()
    Y[:, 0] = 0
    result = diagnose(Y, scores, ["never"] + ["often"] * 11)
    assert result.bands == ("often",)
    assert result.band[0] == "never"
    assert result.band_difference.value.tolist() == [0]
    assert not result.band_difference.significant[0]


def test_forms_of_labels() -> None:
    Y, scores = some_data()
    labels = ["noun", None, "verb", "noun"] * 3
    table = {word: label for word, label in zip(names(12), labels, strict=True) if label}
    result = diagnose(Y, scores, labels)
    with_nan = pd.Series([np.nan if label is None else label for label in labels], dtype=object)
    for by in (np.array(labels, dtype=object), with_nan, tuple(labels), table, table.get):
        same = diagnose(Y, scores, by)
        assert same.bands == ("noun", "verb")
        assert same.band.tolist() == labels
        for a, b in zip(arrays(result), arrays(same), strict=True):
            np.testing.assert_array_equal(a, b)


def test_label_types() -> None:
    Y, scores = some_data()
    assert diagnose(Y, scores, len).bands == (2, 3)
    assert diagnose(Y, scores, [10, 9] * 6).bands == (9, 10)
    pairs = diagnose(Y, scores, [("x", 2), ("x", 1)] * 6)
    assert pairs.bands == (("x", 1), ("x", 2))
    assert pairs.bands_to_frame()["band"].tolist() == [("x", 1), ("x", 2)]
    assert diagnose(Y, scores, ["b", 1, "a"] * 4).bands == ("b", 1, "a")


# ------------------------------------------------------------------ invalid input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "topic"}, "by='topic' is not allowed; use one of 'frequency', 'length'"),
        ({"by": 3}, "by=3 is not allowed"),
        ({"by": {"a", "b"}}, "is not allowed; use 'frequency'"),
        ({"by": ["x"] * 5}, "by has 5 labels, the vocabulary 12 words"),
        ({"by": [["x"]] * 12}, "not hashable"),
        ({"by": [None] * 12}, "gives a label to none of the 12 words that occur"),
        ({"by": {"other": "x"}}, "gives a label to none of the 12 words that occur"),
        ({"by": "frequency"}, "word_counts_"),
        ({"n_bands": 0}, "n_bands=0 is not allowed"),
        ({"n_bootstrap": 2}, "n_bootstrap=2"),
        ({"groups": np.zeros(59)}, r"groups has shape \(59,\); pass one group per row, \(60,\)"),
        ({"groups": [None] * 60}, r"groups\[0\] = None is missing"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"Y": np.ones((5, 12))}, "X has 60 rows and Y has 5"),
        ({"Y": np.ones((60, 3))}, "Y has 3 columns, the model has 12 words"),
        ({"Y": -np.ones((60, 12))}, "negative"),
        ({"Y": np.zeros((60, 12))}, "none of the 0 words that occur in Y"),
        ({"Y": None}, "Y is None|y is None"),
        ({"model": None}, "model is None and has no vocabulary_; pass a fitted FLiPExtractor"),
        ({"model": FLiPExtractor()}, "has no vocabulary_; pass a fitted FLiPExtractor"),
    ],
)
def test_invalid_input_is_rejected_before_scoring(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_words", lambda *_: pytest.fail("words were scored"))
    Y, scores = some_data()
    arguments = {"model": Scored(names(12)), "X": scores, "Y": Y, "by": "length"} | change
    with pytest.raises(ValueError, match=message):
        word_recoverability(**arguments)


def test_too_many_bands_are_rejected() -> None:
    n = 1001
    with pytest.raises(ValueError, match=re.escape("makes 1001 bands; group words into at most")):
        word_recoverability(Scored(names(n)), np.eye(n), np.eye(n), by=str)


def test_invalid_embeddings_are_rejected(trained: tuple[FLiPExtractor, np.ndarray, np.ndarray]) -> None:
    flip, X, Y = trained
    broken = X.copy()
    broken[3, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        word_recoverability(flip, broken, Y)
    with pytest.raises(ValueError, match="features"):
        word_recoverability(flip, X[:, :3], Y)
    result = word_recoverability(flip, X, Y, n_bootstrap=10)
    for method in (result.lost, result.kept):
        with pytest.raises(ValueError, match="n=0 is not allowed"):
            method(0)
        with pytest.raises(ValueError, match="min_count=0 is not allowed"):
            method(min_count=0)


def test_model_is_not_changed(trained: tuple[FLiPExtractor, np.ndarray, np.ndarray]) -> None:
    flip, X, Y = trained
    before = dict(vars(flip))
    word_recoverability(flip, X, Y, n_bootstrap=10, verbose=1)
    assert vars(flip).keys() == before.keys()
    assert all(vars(flip)[name] is value for name, value in before.items())


# ------------------------------------------------------------------ tables


def test_to_frame() -> None:
    Y, scores = some_data()
    result = diagnose(Y, scores, ["a", "b", None] * 4)
    table = result.to_frame()
    assert table.columns.tolist() == [
        "word",
        "band",
        "train_count",
        "test_count",
        "test_hits",
        "recall",
        "low",
        "high",
    ]
    assert table["word"].tolist() == names(12)
    pooled = table.dropna(subset="band").groupby("band")[["test_hits", "test_count"]].sum()
    bands = result.bands_to_frame()
    assert bands.columns.tolist() == [
        "band",
        "words",
        "occurrences",
        "recall",
        "low",
        "high",
        "difference",
        "difference_low",
        "difference_high",
        "significant",
        "baseline",
    ]
    assert bands["occurrences"].tolist() == pooled["test_count"].tolist()
    assert bands["recall"].tolist() == (pooled["test_hits"] / pooled["test_count"]).tolist()
    assert re.fullmatch(r"WordRecoverability\(a: 0\.\d{3}, b: 0\.\d{3}; overall 0\.\d{3}\)", repr(result))

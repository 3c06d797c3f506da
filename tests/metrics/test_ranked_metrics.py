"""Span accuracy, hit sets, Jaccard index, precision and recall against slow reference implementations."""

from __future__ import annotations

import doctest
import math
import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn.metrics import (
    RowMean,
    hit_jaccard,
    hit_sets,
    keyword_accuracy,
    precision_recall,
    ranking,
    span_accuracy,
)
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.paths import ROOT

NAN = float("nan")
TWO = np.array([[1, 0, 1], [0, 1, 0]])


def best(row: list[float], k: int) -> set[int]:
    """The k best-scored words, ties to the left."""
    return set(sorted(range(len(row)), key=lambda j: (-row[j], j))[:k])


def words_of(row: list[float]) -> set[int]:
    return {j for j, count in enumerate(row) if count > 0}


def mean_over_rows(values: list[float], weights: list[float]) -> tuple[float, float]:
    """Weighted mean and its standard error, nan rows left out."""
    used = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v) and w > 0]
    total, m = sum(w for _, w in used), len(used)
    if not m:
        return NAN, NAN
    mean = sum(v * w for v, w in used) / total
    if m == 1:
        return mean, NAN
    return mean, math.sqrt(m / (m - 1) * sum((w / total * (v - mean)) ** 2 for v, w in used))


def check_result(result: RowMean, values: list[float], weights: list[float]) -> None:
    np.testing.assert_allclose(result.per_row, values, atol=1e-12)
    mean, error = mean_over_rows(values, weights)
    assert result.value == pytest.approx(mean, nan_ok=True, abs=1e-12)
    assert result.standard_error == pytest.approx(error, nan_ok=True, abs=1e-12)
    assert result.n_skipped == sum(map(math.isnan, values))
    assert result.n_rows + result.n_skipped == len(values)


def make_problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Counts and two sets of scores; few levels make ties, and some rows are empty."""
    rng = np.random.default_rng(seed)
    n, n_words = rng.integers(1, 9, size=2)
    Y = rng.integers(1, 4, size=(n, n_words)) * (rng.random((n, n_words)) < rng.choice([0.1, 0.5, 1]))
    levels = rng.choice([1, 3, 10**6])
    first, second = rng.integers(-levels, levels + 1, size=(2, n, n_words)).astype(float)
    return Y, first, second, rng


def equivalent_inputs(scores: np.ndarray, rng: np.random.Generator) -> list[Any]:
    """The same ranking as scores, as indices, and as sparse scores that store every word."""
    ranking = np.argsort(-scores, axis=1, kind="stable")
    n, n_words = scores.shape
    columns = np.tile(np.arange(n_words), n)
    stored = sp.csr_array((scores.ravel(), columns, np.arange(n + 1) * n_words), shape=scores.shape)
    return [scores, ranking, stored, scores.astype(np.float32), ranking.astype(np.int32)]


SEEDS = st.integers(0, 2**32)


# --- Hit sets and their Jaccard index --------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(seed=SEEDS)
def test_hit_sets_and_jaccard_equal_their_definitions(seed: int) -> None:
    Y, first, second, rng = make_problem(seed)
    weights = rng.integers(0, 3, size=len(Y)).tolist()
    one, two, jaccard = [], [], []
    for truth, a, b in zip(Y.tolist(), first.tolist(), second.tolist(), strict=True):
        words = words_of(truth)
        one.append(best(a, len(words)) & words)
        two.append(best(b, len(words)) & words)
        union = one[-1] | two[-1]
        jaccard.append(len(one[-1] & two[-1]) / len(union) if union else NAN)
    form = rng.integers(5)
    hits = hit_sets(sp.csr_array(Y), equivalent_inputs(first, rng)[form])
    assert hits.dtype == bool
    assert hits.has_sorted_indices
    assert hits.data.all()
    assert [set(np.flatnonzero(row)) for row in hits.toarray()] == one
    np.testing.assert_array_equal(
        hits.sum(axis=1) / np.maximum((Y > 0).sum(axis=1), 1),
        np.nan_to_num(keyword_accuracy(Y, first).per_row),
    )
    check_result(
        hit_jaccard(Y, equivalent_inputs(first, rng)[form], second, sample_weight=weights), jaccard, weights
    )
    # The index is symmetric, and hit sets may be passed instead of scores.
    again = hit_jaccard(Y, hit_sets(Y, second), hits)
    np.testing.assert_allclose(again.per_row, jaccard)
    np.testing.assert_array_equal(hit_sets(Y, hits).toarray(), hits.toarray())
    with_itself = hit_jaccard(Y, first, first).per_row
    assert set(with_itself[~np.isnan(with_itself)]) <= {1.0}


def test_jaccard_by_hand() -> None:
    Y = np.array([[1, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 0]])
    first = np.array([[0, 1, 3], [0, 1, 2], [3, 0, 1], [0, 1, 2]])
    second = np.array([[1, 2, 0], [3, 2, 1], [0, 1, 2], [0, 1, 2]])
    # {0, 1} and {0, 1, 2}: 2/3; {0} and {3}: 0; {3} and nothing: 0; a row without words: skipped
    result = hit_jaccard(Y, first, second)
    np.testing.assert_allclose(result.per_row, [2 / 3, 0, 0, NAN])
    assert (result.n_rows, result.n_skipped) == (3, 1)
    # Equal accuracy does not imply equal words.
    same, other = [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]
    both = [[1, 0, 1]]
    assert keyword_accuracy(both, [[0, 1]]).value == keyword_accuracy(both, [[2, 1]]).value == 0.5
    assert hit_jaccard(both, [[0, 1]], [[2, 1]]).value == 0
    assert math.isnan(hit_jaccard([[0, 1, 0]], same, other).value)  # neither has a hit


def test_unrelated_models_share_few_hits() -> None:
    """Negative control: hits of independent scores overlap by chance only."""
    rng = np.random.default_rng(0)
    Y = (rng.random((500, 40)) < 0.2).astype(int)
    noisy = [Y + rng.normal(size=Y.shape) for _ in range(2)]
    related = hit_jaccard(Y, noisy[0], noisy[0] + 0.1 * rng.normal(size=Y.shape))
    unrelated = hit_jaccard(Y, *noisy)
    assert related.value > 0.8
    assert unrelated.value < 0.5
    # p hits each, independent: p^2 / (2 p - p^2)
    p = keyword_accuracy(Y, noisy[0]).value
    assert unrelated.value == pytest.approx(p / (2 - p), abs=0.05)


def test_top_indices_are_padded() -> None:
    scores = np.array([[0.1, 0.3, 0.2]])
    expected = [[1, 2, 0, -1, -1]]
    np.testing.assert_array_equal(ranking.top_indices(scores, (1, 3), 5), expected)
    np.testing.assert_array_equal(ranking.top_indices(sp.csr_array(scores), (1, 3), 5), expected)
    given = np.array([[1, 2, -1, -1, -1, -1]], dtype=np.int16)
    top = ranking.top_indices(given, (1, 3), 5)
    np.testing.assert_array_equal(top, [[1, 2, -1, -1, -1]])
    assert top.dtype == np.int64
    assert ranking.top_indices(scores, (1, 3), 0).shape == (1, 0)


# --- Precision, recall and F1 at n -----------------------------------------------------------


@settings(max_examples=1000, deadline=None)
@given(seed=SEEDS)
def test_precision_and_recall_equal_their_definitions(seed: int) -> None:
    Y, scores, _, rng = make_problem(seed)
    n = int(rng.integers(1, 12))
    weights = rng.integers(0, 3, size=len(Y)).tolist()
    outside = rng.integers(0, 3, size=len(Y)).tolist()
    for reference in (None, [len(words_of(r)) + o for r, o in zip(Y.tolist(), outside, strict=True)]):
        values: list[tuple[float, float, float]] = []
        for i, (truth, row) in enumerate(zip(Y.tolist(), scores.tolist(), strict=True)):
            words, top = words_of(truth), best(row, n)
            size = len(words) if reference is None else reference[i]
            if reference is None and not words:
                values.append((NAN, NAN, NAN))
                continue
            both = len(words & top)
            p, r = both / len(top), both / size if size else 0.0
            values.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
        given = equivalent_inputs(scores, rng)[rng.integers(5)]
        if given.dtype.kind == "i" and given.shape[1] < n:
            given = np.pad(given, ((0, 0), (0, n)), constant_values=-1)
        result = precision_recall(Y, given, n, n_reference=reference, sample_weight=weights)
        for name, slow in zip(("precision", "recall", "f1"), zip(*values, strict=True), strict=True):
            check_result(getattr(result, name), list(slow), weights)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(["The", "the", "a", "B", "c", "D", "zz", "Zz"])), min_size=1, max_size=8
    ),
    n=st.integers(1, 5),
    seed=SEEDS,
)  # fmt: skip
def test_published_figures(texts: list[list[str]], n: int, seed: int) -> None:
    """The published evaluation, on sets of words of texts and of keywords: every row counts."""
    vocabulary = ["the", "b", "c", "d", "e"]
    rng = np.random.default_rng(seed)
    top = np.array([rng.permutation(5) for _ in texts])
    rows = []
    for words, indices in zip(texts, top, strict=True):
        reference = {word.lower() for word in words}
        found = {vocabulary[j] for j in indices[:n]}
        p = len(reference & found) / len(found)
        r = len(reference & found) / len(reference) if reference else 0.0
        rows.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
    lines = [" ".join(words) for words in texts]
    counter = CountVectorizer(vocabulary=vocabulary, token_pattern=r"\S+")
    size = [len(set(line.lower().split())) for line in lines]
    result = precision_recall(counter.transform(lines), top, n, n_reference=size)
    expected = np.mean(rows, axis=0)
    values = (result.precision.value, result.recall.value, result.f1.value)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    # The published standard error divides by m instead of m - 1.
    m = len(texts)
    if m > 1:
        theirs = np.std(rows, axis=0) / math.sqrt(m)
        ours = [metric.standard_error for metric in (result.precision, result.recall, result.f1)]
        np.testing.assert_allclose(np.multiply(ours, math.sqrt((m - 1) / m)), theirs, atol=1e-12)


def test_precision_and_recall_by_hand() -> None:
    Y = np.array([[2, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
    top = np.array([[0, 2, 4, 1], [1, 2, -1, -1], [0, 1, 2, 3]])
    result = precision_recall(Y, top, n=3)
    # {0, 2, 4} against {0, 1, 4}: 2/3 and 2/3; {1, 2} against {3}: nothing; no words: skipped
    np.testing.assert_allclose(result.precision.per_row, [2 / 3, 0, NAN])
    np.testing.assert_allclose(result.recall.per_row, [2 / 3, 0, NAN])
    np.testing.assert_allclose(result.f1.per_row, [2 / 3, 0, NAN])
    assert result.recall.n_skipped == 1
    # Two words outside the vocabulary in the first row, one in the last
    result = precision_recall(Y, top, n=3, n_reference=[5, 1, 1])
    np.testing.assert_allclose(result.precision.per_row, [2 / 3, 0, 0])
    np.testing.assert_allclose(result.recall.per_row, [2 / 5, 0, 0])
    np.testing.assert_allclose(result.f1.per_row, [0.5, 0, 0])
    assert result.f1.value == pytest.approx(0.5 / 3)  # not the F1 of the means
    # No word is extracted: precision 0. The row has no words: recall 0.
    nothing = precision_recall([[1, 0], [0, 0]], [[-1], [0]], n=1, n_reference=[1, 0])
    assert (nothing.precision.value, nothing.recall.value, nothing.f1.value) == (0, 0, 0)
    # n is larger than the vocabulary
    assert precision_recall([[1, 0]], [[0.5, 0.1]], n=10).precision.value == 0.5


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_precision_and_recall_at_k_n_are_keyword_accuracy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_words, k = 8, int(rng.integers(1, 9))
    Y = np.zeros((5, n_words), dtype=int)
    np.put_along_axis(Y, np.argsort(rng.random(Y.shape), axis=1)[:, :k], 1, axis=1)
    scores = rng.normal(size=Y.shape)
    expected = keyword_accuracy(Y, scores).per_row
    result = precision_recall(Y, scores, k)
    for metric in (result.precision, result.recall, result.f1):
        np.testing.assert_allclose(metric.per_row, expected)
    assert precision_recall(Y, scores, n_words).recall.value == 1.0


@pytest.mark.parametrize(
    ("kwargs", "parts"),
    [
        ({"n": 0}, ["n=0", ">= 1"]),
        ({"n": 2.0}, ["n=2.0", "an integer"]),
        ({"n": True}, ["n=True"]),
        ({"n": 3, "scores": [[0, 1], [0, 1]]}, ["have 2 columns", "3 are needed", "at least 3"]),
        ({"n_reference": [2]}, ["n_reference", "(1,)", "(2,)", "per row"]),
        ({"n_reference": 2}, ["n_reference", "()", "(2,)"]),
        ({"n_reference": [2, 0]}, ["n_reference is 0 in row 1", "1 distinct words", "at least as large"]),
        ({"n_reference": [2.5, 1]}, ["n_reference is 2.5 in row 0", "an integer"]),
        ({"n_reference": [2, NAN]}, ["n_reference is nan in row 1"]),
        ({"n_reference": [2, np.inf]}, ["n_reference is inf in row 1"]),
        ({"n_reference": ["a", "b"]}, ["n_reference", "type"]),
        ({"sample_weight": [1.0]}, ["sample_weight", "one weight per row"]),
    ],
)  # fmt: skip
def test_errors_of_precision_and_recall(kwargs: dict[str, Any], parts: list[str]) -> None:
    scores = kwargs.pop("scores", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        precision_recall(TWO, scores, **kwargs)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


# --- Spans -----------------------------------------------------------------------------------


class Greedy:
    """Counts the longest matches of a vocabulary from left to right, word by word."""

    def __init__(self, vocabulary: list[str]) -> None:
        self.vocabulary = vocabulary

    def segment(self, text: str) -> list[str]:
        words, units, place = text.lower().split(), [], 0
        while place < len(words):
            for length in range(len(words) - place, 0, -1):
                span = " ".join(words[place : place + length])
                if span in self.vocabulary:
                    units.append(span)
                    place += length - 1
                    break
            place += 1
        return units

    def transform(self, texts: Any) -> np.ndarray:
        counts = np.zeros((len(texts), len(self.vocabulary)), dtype=int)
        for i, text in enumerate(texts):
            for unit in self.segment(text):
                counts[i, self.vocabulary.index(unit)] += 1
        return counts


def test_word_inside_a_span_is_not_a_hit() -> None:
    spans = Greedy(["fly", "new", "new york", "new york city", "york"])
    texts = ["fly to New York", "new york city", "York is new", "to", "New York new york"]
    top = [
        [4, 1, 0],  # "york" and "new" are inside the span: 2 concepts, none among the 2 best
        [3, 2, 1],  # one concept, the longest, ranked first
        [4, 2, 1],  # here they are separate words: 1 of 2
        [0, 1, 2],  # no concept of the vocabulary: skipped
        [2, 0, 1],  # the span twice counts once
    ]
    result = span_accuracy(texts, top, spans)
    np.testing.assert_array_equal(result.per_row, [0.0, 1.0, 0.5, NAN, 1.0])
    assert result.n_skipped == 1
    # The result differs if words inside spans are counted, too.
    words = CountVectorizer(vocabulary=spans.vocabulary, ngram_range=(1, 3), token_pattern=r"\S+")
    assert words.transform(texts[:1]).toarray().tolist() == [[1, 1, 1, 0, 1]]
    assert span_accuracy(texts[:1], [[4, 1, 0, 3]], words).value == 0.75


@pytest.mark.parametrize(
    "counter",
    [Greedy, lambda units: ConceptVectorizer(vocabulary=units, token_pattern="whitespace")],
    ids=["greedy", "concepts"],
)
def test_span_accuracy_is_keyword_accuracy_of_concepts(counter: Any) -> None:
    rng = np.random.default_rng(0)
    spans = Greedy(["a", "b", "c", "a b", "b c d"])
    texts = [" ".join(rng.choice(list("abcdx"), size=rng.integers(0, 8))) for _ in range(300)]
    scores, weights = rng.normal(size=(300, 5)), rng.random(300)
    values = []
    for text, row in zip(texts, scores.tolist(), strict=True):
        units = set(spans.segment(text))
        found = {spans.vocabulary[j] for j in best(row, len(units))}
        values.append(len(units & found) / len(units) if units else NAN)
    result = span_accuracy(texts, scores, counter(spans.vocabulary), sample_weight=weights)
    check_result(result, values, weights.tolist())


def test_errors_of_span_accuracy() -> None:
    spans = Greedy(["a", "b"])
    with pytest.raises(ValueError, match="texts is the string 'a b'; pass a list"):
        span_accuracy("a b", [[0, 1]], spans)
    with pytest.raises(ValueError, match="Y has 1 rows"):
        span_accuracy(["a b"], [[0, 1], [0, 1]], spans)
    with pytest.raises(ValueError, match="3 columns, Y has 2"):
        span_accuracy(["a b"], [[0.0, 1.0, 2.0]], spans)


# --- Examples of the documentation -----------------------------------------------------------


def test_examples_of_the_documentation() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "metrics.md", None, None)
    assert len(test.examples) > 10
    output: list[str] = []
    assert doctest.DocTestRunner().run(test, out=output.append).failed == 0, output


# --- RowMean ---------------------------------------------------------------------------------


def test_row_mean_of_values() -> None:
    result = RowMean.of([1.0, NAN, 2.0, 6.0])
    assert float(result) == result.value == 3.0
    assert result.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    assert (result.n_rows, result.n_skipped) == (3, 1)
    with pytest.raises(AttributeError):
        result.value = 1.0  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"per_row has shape \(1, 2\)"):
        RowMean.of([[1.0, 2.0]])


def test_groups_of_rows_in_the_standard_error() -> None:
    """Copies of rows tell no more, single rows are groups, and weights and skipped rows are respected."""
    rng = np.random.default_rng(0)
    values, weights = rng.random(20), rng.random(20)
    values[3], weights[5] = NAN, 0
    once, copies = RowMean.of(values, weights), np.tile(np.arange(20), 3)
    thrice = RowMean.of(np.tile(values, 3), np.tile(weights, 3), groups=copies.astype(str))
    assert thrice.value == pytest.approx(once.value)
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert RowMean.of(values, weights, groups=range(20)).standard_error == pytest.approx(once.standard_error)
    # By hand: two groups whose means are .25 and 1.
    assert RowMean.of([0, 0.5, 1, 1], groups=[1, 1, 2, 2]).standard_error == pytest.approx(0.375)
    assert math.isnan(RowMean.of([0, 1], groups=["a", "a"]).standard_error)
    for groups, message in (
        ([1], r"groups has shape \(1,\)"),
        (3, r"groups has shape \(\)"),
        ([[1], [2]], "groups has labels that cannot be compared"),
    ):
        with pytest.raises(ValueError, match=message):
            RowMean.of([0, 1], groups=groups)
    with pytest.raises(ValueError, match=r"groups\[1\] = None is missing"):
        RowMean.of([0, 1], groups=["a", None])


def test_rows_of_zero_weight_are_ignored_even_if_infinite() -> None:
    with np.errstate(all="raise"):
        result = RowMean.of([1.0, np.inf, 2.0])
        assert result.value == np.inf
        assert math.isnan(result.standard_error)
        assert RowMean.of([1.0, np.inf, 2.0], [1, 0, 1]).value == 1.5

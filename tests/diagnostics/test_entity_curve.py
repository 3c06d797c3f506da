"""entity_recall_curve: agreement with entity_recall, effect of the bias, and invalid input."""

from __future__ import annotations

import copy
import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import EntityRecallCurve, entity_recall_curve
from flip_sklearn.diagnostics.bootstrap import Interval
from flip_sklearn.metrics import entity_recall
from flip_sklearn.vocabulary import ConceptVectorizer

COMMON = ["the", "of", "is", "and", "in", "to"]
NAMES = ["new", "york", "alice", "berlin", "nile", "congo"]
WORDS = COMMON + NAMES
METRICS = ("recall_strict", "recall_partial", "precision")


class Problem:
    """Sentences of frequent words and rare names, and a model of two thirds of them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        Y = rng.poisson([2] * 6 + [0.1] * 6, size=(1200, 12))
        Y[:, 7] = Y[:, 6]  # "new york" is one name
        code = rng.normal(size=(12, 16))
        X = Y @ code + 0.3 * rng.normal(size=(1200, 16))
        self.flip = FLiPExtractor(vocabulary=WORDS, random_state=0).fit(X[:800], Y[:800])
        self.X = X[800:]
        places = {6: "New York", 8: "Alice", 9: "berlin", 10: "Nile", 11: "Congo"}
        self.names = [[name for j, name in places.items() if row[j]] for row in Y[800:]]

    def curve(self, **options: Any) -> EntityRecallCurve:
        options = {"ks": [1, 2, 4, 12], "n_bootstrap": 60, "random_state": 0} | options
        model, X = options.pop("model", self.flip), options.pop("X", self.X)
        return entity_recall_curve(model, X, options.pop("entities", self.names), **options)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem()


def arrays(curve: EntityRecallCurve) -> list[np.ndarray]:
    parts = [getattr(curve, name) for name in (*METRICS, "difference")]
    return [getattr(part, field.name) for part in parts for field in fields(part)]


def same(first: EntityRecallCurve, second: EntityRecallCurve) -> bool:
    return all(map(np.array_equal, arrays(first), arrays(second)))


def with_bias_of(model: FLiPExtractor, bias: np.ndarray) -> FLiPExtractor:
    changed = copy.copy(model)
    changed.bias_ = bias.astype(model.bias_.dtype)
    return changed


# ------------------------------------------------------------------ results


def test_every_point_equals_entity_recall(problem: Problem) -> None:
    noise = np.random.default_rng(1).normal(size=problem.X.shape)
    views = {"text": problem.X, "speech": problem.X + noise}
    curve = problem.curve(X=views, ks=[3, 1, 7, 3])
    assert curve.ks.tolist() == [1, 3, 7]
    assert curve.views == ("text", "speech")
    for b, use_bias in enumerate((True, False)):
        model = copy.copy(problem.flip).set_params(use_bias=use_bias)
        for v, view in enumerate(views.values()):
            keywords = model.extract_keywords(view, top_k=7)
            for i, k in enumerate((1, 3, 7)):
                result = entity_recall(problem.names, keywords, k)
                for name in METRICS:
                    expected = getattr(result, name).value
                    assert getattr(curve, name).value[b, v, i] == pytest.approx(expected)
    gain = curve.recall_strict.value[1] - curve.recall_strict.value[0]
    np.testing.assert_allclose(curve.difference.value, gain)


def test_recall_is_higher_without_the_bias(problem: Problem) -> None:
    curve = problem.curve()
    assert (curve.difference.value[0, :3] > 0.2).all()
    assert curve.difference.significant[0, :3].all()


def test_constant_bias_changes_nothing(problem: Problem) -> None:
    flat = problem.curve(model=with_bias_of(problem.flip, np.full(12, -2.5)))
    np.testing.assert_array_equal(flat.recall_strict.value[0], flat.recall_strict.value[1])
    assert not flat.difference.value.any()
    assert not flat.difference.significant.any()
    # A bias that favours the names reverses the difference.
    loud = problem.curve(model=with_bias_of(problem.flip, np.array([-50.0] * 6 + [0] * 6)))
    assert (loud.difference.value <= 0).all()
    assert loud.difference.value[0, 0] < 0


def test_recall_grows_with_k_up_to_the_ceiling(problem: Problem) -> None:
    curve = problem.curve(ks=range(1, 13))
    for recall in (curve.recall_strict.value, curve.recall_partial.value):
        assert (np.diff(recall) >= 0).all()
    assert (curve.recall_strict.value <= curve.recall_partial.value + 1e-12).all()
    # With all words of the vocabulary nothing depends on the model.
    assert curve.ceiling == 1
    np.testing.assert_allclose(curve.recall_strict.value[..., -1], 1)
    assert curve.difference.value[0, -1] == 0


def test_out_of_vocabulary_names_lower_the_ceiling(problem: Problem) -> None:
    n = len(problem.names)
    entities: list[list[str]] = [[] for _ in range(n)]
    entities[0] = ["NEW York", "New Jersey"]
    entities[1] = ["Jersey"]
    entities[2] = ["ALICE"]
    curve = problem.curve(entities=entities, ks=[12])
    assert (curve.n_sentences, curve.n_skipped) == (n, n - 3)
    assert (curve.n_names, curve.n_out_of_vocabulary) == (4, 2)
    assert curve.ceiling == pytest.approx((0.5 + 0 + 1) / 3)
    np.testing.assert_allclose(curve.recall_strict.value.ravel(), curve.ceiling)
    # A word that is not in the training text is never extracted.
    unseen = copy.copy(problem.flip)
    unseen.word_counts_ = problem.flip.word_counts_.copy()
    unseen.word_counts_[WORDS.index("alice")] = 0
    fewer = problem.curve(model=unseen, entities=entities, ks=[1])
    assert fewer.n_out_of_vocabulary == 3


@pytest.mark.parametrize("name", ["ALICE", "Al\u00adice", "Alic\u00e9", "Ali'ce", "Ali-ce", "\ufb01"])
def test_names_are_read_as_texts_are(problem: Problem, name: str) -> None:
    n = len(problem.names)
    curve = problem.curve(entities=[[name]] + [[] for _ in range(n - 1)], ks=[12])
    assert curve.n_out_of_vocabulary == (name == "\ufb01")
    assert curve.ceiling == curve.recall_strict.value.ravel()[0] == (name != "\ufb01")
    exact = ConceptVectorizer(lowercase=False, strip_accents=None, strip_punctuation=False)
    strict = problem.curve(entities=[[name]] + [[] for _ in range(n - 1)], ks=[12], vectorizer=exact)
    assert strict.n_out_of_vocabulary == 1


def test_pairs_of_the_vocabulary_count_for_the_words_of_a_name(problem: Problem) -> None:
    pairs = copy.copy(problem.flip)
    pairs.vocabulary_ = problem.flip.vocabulary_.copy()
    pairs.vocabulary_[WORDS.index("alice")] = "alice cooper"
    n = len(problem.names)
    entities = [["Alice Cooper"], ["Alice"], ["Alice Cooper-Smith"], *([[]] * (n - 3))]
    curve = problem.curve(model=pairs, entities=entities, ks=[12])
    assert (curve.n_out_of_vocabulary, curve.ceiling) == (1, pytest.approx(2 / 3))
    np.testing.assert_allclose(curve.recall_strict.value.ravel(), 2 / 3)


def test_k_above_the_vocabulary_size(problem: Problem) -> None:
    few, many = problem.curve(ks=[12]), problem.curve(ks=[5000])
    assert same(few, many)


def test_model_is_not_changed_and_its_use_bias_is_not_used(problem: Problem) -> None:
    before = dict(vars(problem.flip))
    curve = problem.curve()
    assert vars(problem.flip).keys() == before.keys()
    assert all(vars(problem.flip)[name] is value for name, value in before.items())
    other = copy.copy(problem.flip).set_params(use_bias=False)
    assert same(curve, problem.curve(model=other))
    assert other.use_bias is False


def test_equal_views_have_equal_curves(problem: Problem) -> None:
    curve = problem.curve(X={"a": problem.X, "b": problem.X})
    alone = problem.curve()
    # The resampled means come from one product over all columns, here of twice as many.
    for both, one in zip(arrays(curve), arrays(alone), strict=True):
        for view in (both[..., :1, :], both[..., 1:, :]):
            np.testing.assert_allclose(view, one, rtol=1e-12, atol=1e-12)


def test_order_of_sentences_does_not_matter(problem: Problem) -> None:
    order = np.random.default_rng(2).permutation(len(problem.names))
    moved = problem.curve(X=problem.X[order], entities=[problem.names[i] for i in order])
    for name in METRICS:
        a, b = getattr(problem.curve(), name).value, getattr(moved, name).value
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_sentences_without_names_are_left_out(problem: Problem) -> None:
    curve = problem.curve()
    assert curve.n_skipped == sum(not row for row in problem.names)
    named = [i for i, row in enumerate(problem.names) if row]
    alone = problem.curve(X=problem.X[named], entities=[problem.names[i] for i in named])
    assert same(curve, alone)
    assert alone.n_skipped == 0


def test_input_types(problem: Problem) -> None:
    curve = problem.curve()
    for entities in (pd.Series(problem.names), iter(problem.names), tuple(map(tuple, problem.names))):
        assert same(curve, problem.curve(entities=entities))
    columns = [f"x{i}" for i in range(16)]
    named = copy.copy(problem.flip)
    named.feature_names_in_ = np.array(columns, dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pd.DataFrame(problem.X, columns=columns)
        assert same(curve, problem.curve(model=named, X=table))
        with pytest.raises(ValueError, match="feature names"):
            problem.curve(model=named, X=table.rename(columns={"x0": "y0"}))


# ------------------------------------------------------------------ intervals


def test_intervals_contain_the_value_and_shrink_with_the_level(problem: Problem) -> None:
    wide, narrow = problem.curve(confidence=0.99), problem.curve(confidence=0.5)
    for name in (*METRICS, "difference"):
        outer, inner = getattr(wide, name), getattr(narrow, name)
        assert isinstance(outer, Interval)
        slack = 1e-12
        assert (outer.low <= inner.low + slack).all()
        assert (inner.high <= outer.high + slack).all()
        assert (outer.low <= outer.value + slack).all()
        assert (outer.value <= outer.high + slack).all()
    assert (wide.recall_strict.low[..., :2] < narrow.recall_strict.low[..., :2]).all()
    # Both curves use the same resamples, so the interval of their difference is shorter than the sum.
    both = wide.recall_strict.high - wide.recall_strict.low
    assert (wide.difference.high - wide.difference.low < both.sum(axis=0) + 1e-12).all()


def test_rows_three_times_tell_no_more(problem: Problem) -> None:
    """Equal rows and rows with one label are one group."""
    once = problem.curve()
    X, names = np.repeat(problem.X, 3, axis=0), [row for row in problem.names for _ in range(3)]
    noisy = X + 1e-9 * np.arange(len(X))[:, None]
    groups = np.repeat([f"s{i}" for i in range(400)], 3)
    for other in (problem.curve(X=X, entities=names), problem.curve(X=noisy, entities=names, groups=groups)):
        for a, b in zip(arrays(once), arrays(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    single = problem.curve(X=noisy, entities=names)  # negative control: independent sentences
    assert (np.ptp([single.precision.low, single.precision.high], axis=0) > 0).all()
    width, wider = (c.recall_strict.high - c.recall_strict.low for c in (single, once))
    assert (width[..., :2] < 0.75 * wider[..., :2]).all()


def test_names_that_are_never_or_always_found_have_an_interval(problem: Problem) -> None:
    """Names found in none of 20 sentences, and in all: the interval is not a point."""
    few = [i for i, row in enumerate(problem.names) if row][:20]
    X, entities = problem.X[few], [problem.names[i] for i in few]
    curve = problem.curve(X=X, entities=entities, ks=[12])
    z2 = 1.959964**2
    assert curve.recall_strict.low.ravel() == pytest.approx([20 / (20 + z2)] * 2)
    assert curve.difference.value.ravel()[0] == 0
    assert curve.difference.low.ravel()[0] < 0 < curve.difference.high.ravel()[0]
    none = problem.curve(X=X, entities=[["Unknown"]] * 20, ks=[12])
    for interval in (none.recall_strict, none.recall_partial, none.precision):
        assert interval.value.tolist() == interval.low.tolist() == [[[0]], [[0]]]
        assert interval.high.ravel() == pytest.approx([z2 / (20 + z2)] * 2)
    assert not none.difference.significant.any()


def test_same_seed_gives_the_same_bits(problem: Problem) -> None:
    first, again, other = (problem.curve(random_state=seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)
    np.testing.assert_array_equal(first.recall_strict.value, other.recall_strict.value)


# ------------------------------------------------------------------ invalid input


def _without(X: np.ndarray) -> np.ndarray:
    broken = X.copy()
    broken[5, 2] = np.nan
    return broken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"entities": p.names[:-1]}, "entities has 399 rows, X has 400"),
        (lambda p: {"entities": [*p.names[:-1], [" "]]}, "row 399 .* name ' ', which has no words"),
        (lambda p: {"entities": [*p.names[:-1], [""]]}, "row 399 .* name '', which has no words"),
        (lambda p: {"entities": [*p.names[:-1], "Alice"]}, "row 399 of entities is the str 'Alice'"),
        (lambda p: {"entities": [*p.names[:-1], [3]]}, "row 399 of entities holds the int 3"),
        (lambda p: {"entities": [[]] * 400}, "none of the 400 sentences has a name"),
        (lambda p: {"entities": None}, "entities is the NoneType None"),
        (lambda p: {"entities": "Alice"}, "entities is the str 'Alice'"),
        (lambda p: {"ks": []}, r"ks is \[\]; pass a list of at least one number"),
        (lambda p: {"ks": 10}, "ks is 10; pass a list"),
        (lambda p: {"ks": [0, 1]}, "ks=0 is not allowed; use an integer >= 1"),
        (lambda p: {"ks": [1.5]}, "ks=1.5 is not allowed"),
        (lambda p: {"ks": [None]}, "ks=None is not allowed"),
        (lambda p: {"n_bootstrap": 1}, "n_bootstrap=1"),
        (lambda p: {"groups": np.zeros(3)}, r"groups has shape \(3,\); pass one group per row, \(400,\)"),
        (lambda p: {"groups": [np.nan] * 400}, r"groups\[0\] = nan is missing"),
        (lambda p: {"confidence": 0}, "confidence=0"),
        (lambda p: {"model": FLiPExtractor()}, "not fitted"),
        (lambda p: {"model": None}, "model is a NoneType; pass a fitted FLiPExtractor"),
        (lambda p: {"X": p.X[:, :3]}, "view 'embeddings': .*features"),
        (lambda p: {"X": {"a": p.X, "b": p.X[:9]}}, "view 'b' has shape"),
        (lambda p: {"X": {"a": p.X, "b": _without(p.X)}}, r"view 'b': .*NaN: X\[5, 2\]"),
        (lambda p: {"X": {}}, "views is empty"),
    ],
)
def test_invalid_input_is_rejected_before_scoring(
    change: Any, message: str, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = lambda *_, **__: pytest.fail("words were scored")  # noqa: E731
    monkeypatch.setattr("flip_sklearn.estimation.scoring.make_scorer", scored)
    with pytest.raises(ValueError, match=message):
        problem.curve(**change(problem))


# ------------------------------------------------------------------ tables


def test_to_frame(problem: Problem) -> None:
    curve = problem.curve(X={"a": problem.X, "b": problem.X[::-1]})
    table = curve.to_frame()
    assert table.columns.tolist() == [
        "bias",
        "view",
        "k",
        "recall_strict",
        "low",
        "high",
        "recall_partial",
        "recall_partial_low",
        "recall_partial_high",
        "precision",
        "precision_low",
        "precision_high",
        "difference",
        "difference_low",
        "difference_high",
        "significant",
    ]
    assert table["bias"].dtype == bool
    assert len(table) == 2 * 2 * 4
    cell = table[~table["bias"] & (table["view"] == "b") & (table["k"] == 2)].iloc[0]
    assert cell["recall_strict"] == curve.recall_strict.value[1, 1, 1]
    assert cell["precision_high"] == curve.precision.high[1, 1, 1]
    assert cell["difference"] == curve.difference.value[1, 1]
    with_bias = table[table["bias"]]
    assert not with_bias["difference"].any()
    assert not with_bias["significant"].any()
    assert "with bias, a: at 1 0." in repr(curve)
    assert repr(problem.curve()).startswith("EntityRecallCurve(with bias: at 1 0.")

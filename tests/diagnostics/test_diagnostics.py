"""Splits without leakage, coverage of intervals, and the diagnoses of views with a known answer."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GroupShuffleSplit

from flip_sklearn import FLiPExtractor, keyword_accuracy, stack_views
from flip_sklearn.diagnostics import (
    SentenceSplit,
    ViewAlignment,
    compare_encoders,
    compare_extractors,
    rank_analysis,
    split_sentences,
    view_alignment,
    vocabulary_preference,
)
from flip_sklearn.diagnostics.bootstrap import PairedBootstrap
from flip_sklearn.diagnostics.evaluation import FittedModels
from flip_sklearn.diagnostics.inputs import EvaluationSettings, check_ranks, check_sentences
from flip_sklearn.diagnostics.preference import _check_encoders
from flip_sklearn.metrics import keyword_accuracy_scorer
from flip_sklearn.splice import SpLiCEExtractor

N, D, V = 900, 12, 15
FAST = {"n_bootstrap": 100, "random_state": 0, "verbose": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make_views(noise: float = 1.5, seed: int = 0) -> tuple[dict[str, np.ndarray], sp.csr_array]:
    """Two views of the same sentences: a clean one, and the same with noise."""
    rng = np.random.default_rng(seed)
    Y = rng.poisson(0.2, size=(N, V))
    text = Y @ rng.normal(size=(V, D)) + 0.1 * rng.normal(size=(N, D))
    speech = text + noise * rng.normal(size=text.shape)
    return {"text": text, "speech": speech}, sp.csr_array(Y)


@pytest.fixture(scope="module")
def planted() -> tuple[dict[str, np.ndarray], sp.csr_array]:
    return make_views()


@pytest.fixture(scope="module")
def aligned(planted: Any) -> ViewAlignment:
    return view_alignment(*planted, **FAST)


# --- The split -------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(data=st.data(), n=st.integers(4, 30), seed=st.integers(0, 5))
def test_split_has_no_leakage(data: st.DataObject, n: int, seed: int) -> None:
    """For any groups and any repeated embeddings in any view."""
    rng = np.random.default_rng(seed)
    pick = st.lists(st.integers(0, n), min_size=n, max_size=n)
    groups = data.draw(st.none() | pick)
    views = {name: rng.normal(size=(n + 1, 2))[data.draw(pick)] for name in ("a", "b")}
    test = data.draw(st.none() | st.lists(st.integers(0, n - 1), min_size=1, max_size=n))
    try:
        split = split_sentences(views, groups=groups, test=test, random_state=seed)
    except ValueError as error:
        assert "the split has" in str(error)  # noqa: PT017 (one group: no split is possible)
        return
    train, held = set(split.train), set(split.test)
    assert not train & held
    assert len(train) + len(held) + split.n_dropped == n
    for i in train:
        for j in held:
            assert groups is None or groups[i] != groups[j]
            assert all((X[i] != X[j]).any() for X in views.values())
    if test is not None:
        assert held == set(test)


def test_groups_are_merged_over_views() -> None:
    """0-1 have one label, 1-2 are equal in view a, 2-3 in view b: all four are in one group."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8, 3))
    a[2], b[3] = a[1], b[2]
    split = split_sentences({"a": a, "b": b}, groups=[0, 0, 2, 3, 4, 5, 6, 7], test=[0])
    assert split.train.tolist() == [4, 5, 6, 7]
    assert split.n_dropped == 3
    # Negative control: without the links only the test sentence itself is left out.
    assert split_sentences({"a": rng.normal(size=(8, 3))}, test=[0]).n_dropped == 0


def test_split_with_leakage_is_rejected() -> None:
    with pytest.raises(ValueError, match="group 7 has sentences both in training and in test"):
        SentenceSplit(np.array([0, 1]), np.array([2]), np.array([5, 7, 7]))
    split = split_sentences(np.arange(20.0).reshape(10, 2), random_state=0)
    with pytest.raises(ValueError, match=r"group \d+ has sentences both"):
        replace(split, train=np.arange(10))


def test_split_size_and_seed() -> None:
    X = np.random.default_rng(0).normal(size=(200, 2))
    split = split_sentences(X, test_size=0.3, random_state=3)
    assert len(split.test) == 60
    again = split_sentences({"one": X}, test_size=0.3, random_state=3)
    np.testing.assert_array_equal(split.test, again.test)
    other = split_sentences(X, test_size=0.3, random_state=4)
    assert set(other.test) != set(split.test)


# --- Early stopping within a fit -------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7])
def test_fit_holds_out_whole_groups(planted: Any, size: int) -> None:
    views, Y = planted
    groups = np.arange(N) // size
    stacked = stack_views(views, Y, groups=groups)
    model = FLiPExtractor(max_iter=1, early_stopping=True, random_state=0)
    model.fit(stacked.X, stacked.Y, stacked.sample_weight, groups=stacked.groups)
    held = model._held_out
    trained = np.setdiff1d(np.arange(2 * N), held)
    assert not set(stacked.groups[held]) & set(stacked.groups[trained])
    assert 0.05 * 2 * N < len(held) <= 0.1 * 2 * N + 14
    # Negative control: without groups, views of one sentence are in both parts.
    model.fit(stacked.X, stacked.Y, stacked.sample_weight)
    trained = np.setdiff1d(np.arange(2 * N), model._held_out)
    assert set(stacked.groups[model._held_out]) & set(stacked.groups[trained])


def test_groups_of_one_row_change_nothing(planted: Any) -> None:
    """As many rows are held out, and the accuracy is about the same."""
    views, Y = planted
    one = FLiPExtractor(early_stopping=True, random_state=0).fit(views["text"], Y)
    two = clone_fit(one, views["text"], Y, np.random.default_rng(0).permutation(N))
    assert len(one._held_out) == len(two._held_out)
    assert one.score(views["text"], Y) == pytest.approx(two.score(views["text"], Y), abs=0.02)


def clone_fit(model: FLiPExtractor, X: Any, Y: Any, groups: Any) -> FLiPExtractor:
    return FLiPExtractor(**model.get_params()).fit(X, Y, groups=groups)


def test_invalid_groups_are_rejected(planted: Any) -> None:
    views, Y = planted
    model = FLiPExtractor(early_stopping=True)
    with pytest.raises(ValueError, match=r"groups has shape \(3,\); pass one group per row, \(900,\)"):
        model.fit(views["text"], Y, groups=[1, 2, 3])
    with pytest.raises(
        ValueError, match=r"all \d+ rows with words are of one group; use early_stopping=False"
    ):
        model.fit(views["text"], Y, groups=np.zeros(N))
    assert not hasattr(model, "bias_")


# --- The bootstrap ---------------------------------------------------------------------------


def test_means_leave_out_nan() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((50, 3))
    values[rng.random(values.shape) < 0.3] = np.nan
    bootstrap = PairedBootstrap(values, np.arange(50), EvaluationSettings(200, 0.9, 0))
    interval = bootstrap.means(np.arange(3))
    np.testing.assert_allclose(interval.value, np.nanmean(values, axis=0))
    assert (interval.low < interval.value).all()
    assert (interval.value < interval.high).all()


def test_interval_coverage() -> None:
    """200 samples of groups of three equal sentences: 90 % of the intervals contain the true mean."""
    rng = np.random.default_rng(1)
    covered = {"grouped": 0, "single": 0}
    for trial in range(200):
        values = np.repeat(rng.random(60), 3)[:, None]
        for name, groups in (("grouped", np.arange(180) // 3), ("single", np.arange(180))):
            interval = PairedBootstrap(values, groups, EvaluationSettings(200, 0.9, trial)).means(
                np.arange(1)
            )
            covered[name] += bool(interval.low[0] <= 0.5 <= interval.high[0])
    assert 0.83 <= covered["grouped"] / 200 <= 0.96
    # Negative control: if all sentences are taken for independent, intervals are too short.
    assert covered["single"] / 200 < 0.8


def test_intervals_agree_with_the_normal_approximation() -> None:
    values = np.random.default_rng(0).random((2000, 2))
    interval = PairedBootstrap(values, np.arange(2000), EvaluationSettings(2000, 0.95, 0)).means(np.arange(2))
    error = values.std(axis=0, ddof=1) / np.sqrt(2000)
    np.testing.assert_allclose(interval.high - interval.low, 2 * 1.96 * error, rtol=0.1)


def test_differences_are_paired() -> None:
    """Shared variation cancels: a constant difference has an interval of width zero."""
    rng = np.random.default_rng(0)
    first = rng.random(300)
    values = np.column_stack([first, first - 0.01, rng.random(300), first])
    bootstrap = PairedBootstrap(values, np.arange(300), EvaluationSettings(300, 0.95, 0))
    found = bootstrap.differences(np.array([0, 0, 0]), np.array([1, 2, 3]))
    assert found.significant.tolist() == [True, False, False]
    assert found.high[0] - found.low[0] < 1e-12
    assert found.high[1] - found.low[1] > 0.05
    # Of 300 sentences without a difference, another one may have one.
    assert found.value[2] == 0
    assert -0.02 < found.low[2] < 0 < found.high[2] < 0.02
    # A column does not differ from itself.
    itself = bootstrap.differences(np.array([0]), np.array([0]))
    assert itself.low[0] == itself.high[0] == 0
    assert not itself.significant[0]


def test_bootstrap_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((40, 2))
    whole = PairedBootstrap(values, np.arange(40), EvaluationSettings(50, 0.9, 0))
    monkeypatch.setattr("flip_sklearn.diagnostics.bootstrap._BLOCK_ELEMENTS", 100)
    blocks = PairedBootstrap(values, np.arange(40), EvaluationSettings(50, 0.9, 0))
    np.testing.assert_allclose(blocks.samples, whole.samples, rtol=1e-14)


# --- View alignment --------------------------------------------------------------------------


def test_alignment_equals_separate_fits(planted: Any, aligned: ViewAlignment) -> None:
    """Compare with accuracies from the public methods."""
    views, Y = planted
    split = split_sentences(views, random_state=0)
    assert (aligned.n_train, aligned.n_test) == (len(split.train), len(split.test))
    for i, trained_on in enumerate(views):
        model = FLiPExtractor(random_state=0).fit(views[trained_on][split.train], Y[split.train])
        for j, read_from in enumerate(views):
            scores = model.decision_function(views[read_from][split.test])
            expected = keyword_accuracy(Y[split.test], scores)
            assert aligned.accuracy.value[i, j] == pytest.approx(expected.value)
            assert aligned.n_skipped == expected.n_skipped
    gap = aligned.accuracy.value - np.diag(aligned.accuracy.value)[:, None]
    np.testing.assert_allclose(aligned.difference.value, gap)
    scores = np.tile(np.asarray(Y[split.train].sum(axis=0), dtype=float), (aligned.n_test, 1))
    baseline = keyword_accuracy(Y[split.test], scores)
    assert aligned.baseline.value == pytest.approx(baseline.value)


def test_noise_lowers_the_accuracy_of_a_view(aligned: ViewAlignment) -> None:
    accuracy = aligned.accuracy.value
    assert accuracy[0, 0] > 0.9
    assert aligned.difference.value[0, 1] < -0.1
    assert aligned.difference.significant[0, 1]
    assert 0.3 < aligned.jaccard.value[0, 1] < 0.95
    np.testing.assert_allclose(np.diag(aligned.jaccard.value), 1)
    np.testing.assert_allclose(np.diag(aligned.jaccard_of_models.value), 1)
    low, high = aligned.accuracy.low, aligned.accuracy.high
    assert ((low <= accuracy) & (accuracy <= high)).all()


def test_jaccard_of_hit_sets(planted: Any, aligned: ViewAlignment) -> None:
    views, Y = planted
    split = split_sentences(views, random_state=0)
    truth = Y[split.test].toarray() > 0
    found = {}
    for trained_on in views:
        model = FLiPExtractor(random_state=0).fit(views[trained_on][split.train], Y[split.train])
        for read_from in views:
            scores = model.decision_function(views[read_from][split.test])
            rows = []
            for row, words in zip(scores, truth, strict=True):
                best = np.argsort(-row, kind="stable")[: words.sum()]
                rows.append({int(j) for j in best if words[j]})
            found[trained_on, read_from] = rows

    def jaccard(one: list[set[int]], two: list[set[int]]) -> float:
        return float(np.mean([len(a & b) / len(a | b) for a, b in zip(one, two, strict=True) if a | b]))

    assert aligned.jaccard.value[0, 1] == pytest.approx(
        jaccard(found["text", "text"], found["text", "speech"])
    )
    assert aligned.jaccard_of_models.value[0, 1] == pytest.approx(
        jaccard(found["speech", "speech"], found["text", "speech"])
    )


def test_identical_views_have_no_difference(planted: Any) -> None:
    """Negative control: the roles of two equal views can be exchanged."""
    views, Y = planted
    twins = {"one": views["text"], "two": views["text"].copy()}
    result = view_alignment(twins, Y, **FAST)
    np.testing.assert_array_equal(result.difference.value, 0)
    assert not result.difference.significant.any()
    np.testing.assert_array_equal(result.jaccard.value, 1)
    # Neither have two noisy copies of one view.
    rng = np.random.default_rng(5)
    noisy = {name: views["text"] + 0.5 * rng.normal(size=(N, D)) for name in ("one", "two")}
    result = view_alignment(noisy, Y, confidence=0.99, **FAST)
    assert not result.difference.significant.any()


def test_shuffled_sentences_are_at_the_baseline(planted: Any) -> None:
    """Negative control: embeddings of other sentences have no information about the words."""
    views, Y = planted
    order = np.random.default_rng(0).permutation(N)
    result = view_alignment({name: X[order] for name, X in views.items()}, Y, **FAST)
    low, high = result.baseline.low - 0.03, result.baseline.high + 0.03
    assert ((low < result.accuracy.value) & (result.accuracy.value < high)).all()


def test_alignment_to_frame(aligned: ViewAlignment) -> None:
    table = aligned.to_frame()
    assert len(table) == 4
    row = table[(table.trained_on == "text") & (table.read_from == "speech")].iloc[0]
    assert row.accuracy == aligned.accuracy.value[0, 1]
    assert row.difference_low == aligned.difference.low[0, 1]
    assert row.significant == aligned.difference.significant[0, 1]
    assert row.jaccard == aligned.jaccard.value[0, 1]
    assert repr(aligned).startswith("ViewAlignment(text: text 0.9")


@pytest.mark.parametrize("diagnosis", [view_alignment, rank_analysis, compare_extractors])
def test_same_seed_same_result(planted: Any, diagnosis: Callable[..., Any]) -> None:
    first, again = diagnosis(*planted, **FAST), diagnosis(*planted, **FAST)
    np.testing.assert_array_equal(first.accuracy.low, again.accuracy.low)
    np.testing.assert_array_equal(first.difference.value, again.difference.value)


def test_other_estimators(planted: Any) -> None:
    """An estimator that predicts word frequencies has the accuracy of the baseline."""
    views, Y = planted

    class Frequencies(DummyClassifier):
        def fit(self, X: Any, Y: Any) -> Frequencies:
            self.counts_ = np.asarray(Y.sum(axis=0), dtype=float)
            return self

        def predict_proba(self, X: Any) -> np.ndarray:
            return np.tile(self.counts_ / self.counts_.sum(), (len(X), 1))

    result = view_alignment(views, Y, estimator=Frequencies(), **FAST)
    np.testing.assert_allclose(result.accuracy.value, result.baseline.value)


class Scored(DummyClassifier):
    """An estimator whose embeddings are the scores; subclasses return them in different forms."""

    def fit(self, X: Any, Y: Any) -> Scored:
        return self


class IntegerScores(Scored):
    def decision_function(self, X: Any) -> np.ndarray:
        return np.asarray(X).astype(int)


class ListOfProbabilities(Scored):
    """As multi-output classifiers do: one array of the probabilities of 0 and 1 for each word."""

    def predict_proba(self, X: Any) -> list[np.ndarray]:
        p = np.asarray(X) / 9
        return [np.column_stack([1 - column, column]) for column in p.T]


@pytest.mark.parametrize("estimator", [IntegerScores(), ListOfProbabilities()])
def test_scores_of_other_estimators(estimator: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integer scores are not taken for word indices; scores in blocks are the same as in one block."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.2, size=(N, V))
    X = rng.integers(0, 10, size=(N, V)).astype(float)  # with ties and values below V
    views = {"a": X, "b": X[:, ::-1]}
    result = view_alignment(views, Y, estimator=estimator, **FAST)
    split = split_sentences(views, random_state=0)
    for j, view in enumerate(views.values()):
        expected = keyword_accuracy(Y[split.test], view[split.test])
        assert result.accuracy.value[0, j] == pytest.approx(expected.value)
        scorer = keyword_accuracy_scorer(estimator, view[split.test], Y[split.test])
        assert scorer == pytest.approx(expected.value)
    monkeypatch.setattr("flip_sklearn.metrics.ranking.BLOCK_ELEMENTS", 40 * V)
    in_blocks = view_alignment(views, Y, estimator=estimator, **FAST)
    np.testing.assert_array_equal(in_blocks.accuracy.value, result.accuracy.value)


class Named(FLiPExtractor):
    """Fits nothing."""

    def fit(self, X: Any, Y: Any, *args: Any, **kwargs: Any) -> Named:
        return self


def test_shared_fits_are_kept_and_others_are_not(planted: Any) -> None:
    views, Y = planted
    sentences = check_sentences(views, None, 0)
    estimator, names = Named(random_state=0), tuple(views)
    models = FittedModels(sentences, shared=[estimator])
    joint = models.fit(estimator, names, Y)
    assert models.fit(Named(random_state=0), names, Y) is joint
    assert models.fit(Named(rank=D, random_state=0), names, Y) is joint  # the value of rank="auto"
    assert models.fit(estimator, names[:1], Y) is models.fit(estimator, names[:1], Y)
    assert models.fit(estimator, names[:1], Y) is not models.fit(estimator, names[1:2], Y)
    for other in (
        models.fit(Named(rank=D - 1, random_state=0), names, Y),
        models.fit(Named(random_state=1), names, Y),
        models.fit(FLiPExtractor(max_iter=1, random_state=0), names, Y),
        models.fit(estimator, names[:1], Y),
        models.fit(estimator, names, Y.copy()),
    ):
        assert other is not joint
    other = Named(rank=3)
    assert models.fit(other, names, Y) is not models.fit(other, names, Y)
    # Two random states of equal value may advance differently, so they are not taken for equal.
    models = FittedModels(sentences, shared=[Named(random_state=np.random.RandomState(0))])
    again = Named(random_state=np.random.RandomState(0))
    assert models.fit(again, names, Y) is not models.fit(again, names, Y)


@pytest.mark.filterwarnings("error", "ignore:scipy.optimize:DeprecationWarning")  # of scikit-learn 1.7
def test_missing_names_of_words_are_no_reason_to_warn(planted: Any) -> None:
    views, Y = planted
    dictionary = np.random.default_rng(0).normal(size=(Y.shape[1], D))
    compare_extractors(views, Y, dictionary=dictionary, **FAST)


def test_arrays_and_estimator_are_not_changed(planted: Any) -> None:
    views, Y = planted
    before = [X.tobytes() for X in views.values()], Y.data.tobytes()
    estimator = FLiPExtractor(rank=4)
    view_alignment(views, Y, estimator=estimator, **FAST)
    assert ([X.tobytes() for X in views.values()], Y.data.tobytes()) == before
    assert estimator.random_state is None
    assert not hasattr(estimator, "bias_")


# --- Vocabularies and encoders ---------------------------------------------------------------


def languages() -> tuple[dict[str, np.ndarray], dict[str, sp.csr_array]]:
    """Each word has one translation; the German embeddings are noisy."""
    views, Y = make_views(noise=1.0)
    german = Y[:, np.random.default_rng(1).permutation(V)]
    return {"en": views["text"], "de": views["speech"]}, {"en": Y, "de": sp.csr_array(german)}


def test_clean_view_is_preferred() -> None:
    views, vocabularies = languages()
    result = vocabulary_preference(views, vocabularies, **FAST)
    assert result.preferred == ("en", "en")
    assert result.reference == ("en", "de")
    assert result.difference.value[1, 0] > 0.05
    assert result.difference.significant[1, 0]
    assert result.difference.value[0, 1] < -0.05
    np.testing.assert_array_equal(np.diag(result.difference.value), 0)
    table = result.to_frame()
    assert table.columns[:3].tolist() == ["words_of", "view", "reference"]
    assert table.accuracy.tolist() == result.accuracy.value.ravel().tolist()


def test_preference_equals_a_fit_on_stacked_views() -> None:
    views, vocabularies = languages()
    split = split_sentences(views, random_state=0)
    train = {name: X[split.train] for name, X in views.items()}
    stacked = stack_views(train, vocabularies["de"][split.train], groups=split.groups[split.train])
    model = FLiPExtractor(random_state=0).fit(
        stacked.X, stacked.Y, stacked.sample_weight, groups=stacked.groups
    )
    result = vocabulary_preference(views, {"de": vocabularies["de"]}, **FAST)
    expected = model.score(views["en"][split.test], vocabularies["de"][split.test])
    assert result.accuracy.value[0, 0] == pytest.approx(expected)
    assert result.preferred == ("en",)


def test_reference_of_a_language_without_a_view() -> None:
    views, vocabularies = languages()
    result = vocabulary_preference(views, {"fr": vocabularies["de"]}, **FAST)
    assert result.reference == ("en",)


def test_compare_encoders() -> None:
    views, vocabularies = languages()
    squeeze = np.random.default_rng(2).normal(size=(D, 3))
    small = {name: X @ squeeze for name, X in views.items()}
    result = compare_encoders({"large": views, "small": small}, vocabularies, **FAST)
    assert (result.difference.value[1] < 0).all()
    assert result.difference.significant[1].all()
    np.testing.assert_array_equal(result.difference.value[0], 0)
    alone = vocabulary_preference(views, vocabularies, **FAST)
    np.testing.assert_array_equal(result.preferences["large"].accuracy.value, alone.accuracy.value)
    assert len(result.to_frame()) == 8
    assert "large 0." in repr(result)


def test_encoders_share_one_split_without_leakage() -> None:
    views = languages()[0]
    twice = {name: X.copy() for name, X in views.items()}
    for X in twice.values():
        X[1::2] = X[::2]  # neighbours have equal embeddings
    checked = _check_encoders({"one": views, "two": twice}, None, 0)
    split = next(iter(checked.values())).split
    assert all(other.split is split for other in checked.values())
    assert not set(split.train // 2) & set(split.test // 2)


# --- Ranks and extractors --------------------------------------------------------------------


def test_rank_analysis_of_known_rank() -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(1500, 3))
    X = latent @ rng.normal(size=(3, 10)) + 0.01 * rng.normal(size=(1500, 10))
    scores = 2 * latent @ rng.normal(size=(3, 12))
    theta = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    Y = np.stack([rng.multinomial(6, row) for row in theta])
    result = rank_analysis(X, Y, [None, 6, 1, 3], **FAST)
    assert result.labels == ("rank 1", "rank 3", "rank 6", "LiP")
    one, three, six, lip = result.accuracy.value[:, 0]
    assert three > one + 0.05
    assert six == pytest.approx(three, abs=0.02)
    assert result.difference.value[0, 0] == pytest.approx(one - lip)
    assert result.difference.significant[0, 0]
    assert result.n_parameters.tolist() == [22 + 12, 66 + 12, 132 + 12, 120 + 12]
    assert result.to_frame()["rank"].tolist()[:3] == [1, 3, 6]
    assert result.baseline.value < one


def test_default_ranks() -> None:
    assert check_ranks(None, 384) == (16, 32, 64, 128, 256, 384, None)
    assert check_ranks(None, 1024) == (16, 32, 64, 128, 256, 512, None)
    assert check_ranks(None, 8) == (8, None)


def test_compare_extractors() -> None:
    rng = np.random.default_rng(0)
    words = rng.normal(size=(40, 16))
    words *= rng.gamma(2, size=(40, 1))
    Y = rng.poisson(0.1, size=(1500, 40))
    X = Y @ words + 0.5 * rng.normal(size=(1500, 16))
    result = compare_extractors(X, Y, dictionary=words, **FAST)
    assert result.extractors == ("FLiP", "LiP", "SpLiCE", "most frequent words")
    flip, _, splice, baseline = result.accuracy.value[:, 0]
    assert min(flip, splice) > baseline + 0.2
    assert result.difference.significant[-1].all()
    split = split_sentences(X, random_state=0)
    expected = SpLiCEExtractor(words).fit(X[split.train]).score(X[split.test], Y[split.test])
    assert splice == pytest.approx(expected)


# --- Invalid input --------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(FLiPExtractor, "fit", fail)


GOOD, COUNTS = make_views()
SHORT = {"text": GOOD["text"], "speech": GOOD["speech"][:-1]}
NARROW = {"text": GOOD["text"], "speech": GOOD["speech"][:, :-1]}
BROKEN = {"text": GOOD["text"], "speech": np.where(GOOD["speech"] > 3, np.nan, GOOD["speech"])}
EMPTY = sp.csr_array((N, V))
BAD = [
    (view_alignment, (SHORT, COUNTS), {}, r"view 'speech' has shape \(899, 12\), view 'text' \(900"),
    (view_alignment, (NARROW, COUNTS), {}, r"view 'speech' has shape \(900, 11\)"),
    (view_alignment, (BROKEN, COUNTS), {}, r"view 'speech' has NaN or infinite values in \d+ rows"),
    (view_alignment, ({"text": GOOD["text"]}, COUNTS), {}, "views has 1 view .*at least 2"),
    (view_alignment, (GOOD["text"], COUNTS), {}, "views has 1 view"),
    (view_alignment, ({}, COUNTS), {}, "views is empty"),
    (view_alignment, (GOOD, COUNTS[:-1]), {}, "Y has 899 rows, the views have 900"),
    (view_alignment, (GOOD, None), {}, "Y is None"),
    (view_alignment, (GOOD, EMPTY), {}, "Y has no word in any of the 720 training sentences"),
    (view_alignment, (GOOD, -COUNTS), {}, "negative"),
    (view_alignment, (GOOD, COUNTS), {"n_bootstrap": 3}, "n_bootstrap=3 is not allowed"),
    (view_alignment, (GOOD, COUNTS), {"confidence": 95}, "confidence=95 is not allowed"),
    (view_alignment, (GOOD, COUNTS), {"estimator": "FLiP"}, "estimator is 'FLiP'; pass an"),
    (view_alignment, (GOOD, COUNTS), {"split": GroupShuffleSplit()}, "split is a GroupShuffleSplit"),
    (view_alignment, (GOOD, COUNTS), {"split": split_sentences(GOOD["text"][:9])}, "of 9 sentences"),
    (vocabulary_preference, (GOOD, {}), {}, "vocabularies is empty; pass a mapping"),
    (vocabulary_preference, (GOOD, COUNTS), {}, "vocabularies is a csr_array; pass a mapping"),
    (vocabulary_preference, (GOOD, {"de": None}), {}, "the vocabulary of 'de' is None"),
    (vocabulary_preference, (GOOD, {"en": COUNTS, "de": EMPTY}), {}, "vocabulary of 'de' has no word"),
    (vocabulary_preference, (GOOD, {"de": COUNTS[:, :0]}), {}, "(?i)0 columns|no columns|columns"),
    (vocabulary_preference, (SHORT, {"de": COUNTS}), {}, "view 'speech' has shape"),
    (compare_encoders, ({}, {"en": COUNTS}), {}, "encoders is empty; pass a mapping"),
    (compare_encoders, ({"a": GOOD, "b": {"text": GOOD["text"]}}, {"en": COUNTS}), {}, "encoder 'b'"),
    (rank_analysis, (GOOD, COUNTS, [0]), {}, "rank=0 is not allowed"),
    (rank_analysis, (GOOD, COUNTS, [13]), {}, "rank=13 is not allowed"),
    (rank_analysis, (GOOD, COUNTS, []), {}, r"ranks=\[\] is not allowed"),
    (rank_analysis, (GOOD, COUNTS), {"estimator": DummyClassifier()}, "has no rank"),
    (compare_extractors, (GOOD, COUNTS, {}), {}, "extractors is empty"),
    (compare_extractors, (GOOD, COUNTS), {"dictionary": np.ones((3, D))}, "dictionary has shape"),
    (compare_extractors, (GOOD, COUNTS, {"most frequent words": FLiPExtractor()}), {}, "is reserved"),
]  # fmt: skip


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("diagnosis", "arguments", "options", "message"), BAD)
def test_invalid_input_is_rejected_before_training(
    diagnosis: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        diagnosis(*arguments, **{**FAST, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [1, 2]}, "groups has shape (2,)"),
        ({"test": [0.5]}, "pass a mask (900,) or row numbers"),
        ({"test": [900]}, "test has rows from 900 to 900; there are 900"),
        ({"test": np.ones(N, dtype=bool)}, "the split has 0 training and 900 test sentences"),
        ({"test_size": 1.0}, "test_size=1.0 is not allowed"),
        ({"test_size": 1e-9}, "900 training and 0 test"),
        ({"groups": np.zeros(N)}, "the split has"),
    ],
)
def test_invalid_split_arguments_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        split_sentences(GOOD, **options)


def test_groups_that_are_long_texts_take_little_memory() -> None:
    """An array of strings would take 4 bytes for each row and each character of the longest text."""
    texts = ["long " * 200_000, *(f"text {i // 2}" for i in range(2000))]
    X = np.random.default_rng(0).normal(size=(len(texts), 4))
    tracemalloc.start()
    split = split_sentences(X, groups=texts, test_size=0.5, random_state=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    expected = split_sentences(X, groups=np.r_[0, np.arange(2000) // 2 + 1], test_size=0.5, random_state=0)
    np.testing.assert_array_equal(split.test, expected.test)

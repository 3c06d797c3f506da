"""leakage: planted words, negative controls, coverage of the intervals, and its inputs."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import norm
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import FLiPExtractor, WordEraser
from flip_sklearn.diagnostics import Leakage, erase_words, leakage
from flip_sklearn.diagnostics.auc import stratified_auc
from flip_sklearn.diagnostics.audit import _assign_folds
from flip_sklearn.diagnostics.audit_readers import LinearReader, NetworkReader

WORDS = ["mean", "product", "absent"]


def make_data(n: int = 400, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One word shifts a coordinate, one is the sign of a product of two others, one is nowhere."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    Y = np.column_stack([rng.random(n) < 0.3, X[:, 1] * X[:, 2] > 0.3, rng.random(n) < 0.3]).astype(int)
    X[:, 0] += 3 * Y[:, 0]
    return X @ np.random.default_rng(7).normal(size=(d, d)) + 1, Y


X, Y = make_data()


def audit(*args: Any, **options: Any) -> Leakage:
    return leakage(*args, **{"random_state": 0, "verbose": 0, "cv": 3, **options})


@pytest.fixture(scope="module")
def result() -> Leakage:
    x, y = make_data(900)
    return audit(x, y, WORDS, confidence=0.99)


# --- The area under the curve ----------------------------------------------------------------


def test_auc_is_the_share_of_pairs_within_folds() -> None:
    rng = np.random.default_rng(0)
    scores, labels, folds = rng.integers(5, size=60), rng.random(60) < 0.4, rng.integers(3, size=60)
    shares, weights = [], []
    for fold in range(3):
        with_word, without = scores[(folds == fold) & labels], scores[(folds == fold) & ~labels]
        pairs = np.sign(with_word[:, None] - without) / 2 + 0.5
        shares.append(pairs.mean())
        weights.append(pairs.size / sum(pairs.shape))
    auc = stratified_auc(scores, labels, folds, np.arange(60), 0.95)
    assert auc.value == pytest.approx(np.average(shares, weights=weights))
    shifted = stratified_auc(np.exp(scores + 10.0 * folds), labels, folds, np.arange(60), 0.95)
    assert [float(shifted.value), float(shifted.low)] == pytest.approx([float(auc.value), float(auc.low)])
    one = stratified_auc(scores, labels, np.zeros(60), np.arange(60), 0.95)
    assert one.value == pytest.approx(roc_auc_score(labels, scores))


def test_auc_of_few_rows() -> None:
    """All in order, all tied, and none to compare."""
    labels, one_fold = np.arange(40) < 10, np.zeros(40)
    perfect = stratified_auc(labels * 1.0, labels, one_fold, np.arange(40), 0.95)
    assert (perfect.value, perfect.high) == (1, pytest.approx(1))
    assert 0.7 < perfect.low < 0.97
    tied = stratified_auc(np.zeros(40), labels, one_fold, np.arange(40), 0.95)
    assert tied.value == 0.5
    assert 0.2 < tied.low < 0.4 < 0.6 < tied.high < 0.8
    assert np.isnan(stratified_auc(np.zeros(40), labels, np.arange(40), np.arange(40), 0.95).value)


def test_rows_that_are_repeated_add_nothing() -> None:
    rng = np.random.default_rng(0)
    scores, labels, folds = rng.normal(size=90), rng.random(90) < 0.3, np.arange(90) % 3
    once = stratified_auc(scores, labels, folds, np.arange(90), 0.95)
    three = [np.repeat(values, 3) for values in (scores, labels, folds, np.arange(90))]
    thrice, naive = stratified_auc(*three, 0.95), stratified_auc(*three[:3], np.arange(270), 0.95)
    assert thrice.value == pytest.approx(once.value)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.1)
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


@pytest.mark.parametrize("auc", [0.5, 0.95])
@pytest.mark.parametrize(("n_with", "cluster"), [(12, 1), (60, 1), (50, 5)])
def test_intervals_of_auc_cover_the_truth(auc: float, n_with: int, cluster: int) -> None:
    rng, labels = np.random.default_rng(0), np.arange(n_with + 200) < n_with
    groups, n_covered = np.arange(len(labels)) // cluster, 0
    for _ in range(100):
        shared = rng.normal(size=groups.max() + 1)[groups]
        noise = shared if cluster == 1 else 0.9 * shared + np.sqrt(0.19) * rng.normal(size=len(labels))
        folds = rng.permutation(groups.max() + 1)[groups] % 5
        found = stratified_auc(noise + labels * norm.ppf(auc) * np.sqrt(2), labels, folds, groups, 0.9)
        n_covered += found.low <= auc <= found.high
    assert n_covered >= 81  # of 100 at 90 %, less three standard deviations


def test_intervals_of_trained_readers_cover_chance() -> None:
    """Folds share training rows: with intervals as for independent folds, some 15 % would not contain 0.5."""
    rng, n_covered = np.random.RandomState(0), np.zeros(2)
    for _ in range(100):
        x, labels = rng.normal(size=(200, 6)), rng.random_sample((200, 1)) < 0.3
        folds, scores = _assign_folds(labels, np.arange(200), 4, rng), np.empty(200)
        for fold in range(4):
            train, has_word = x[folds != fold], labels[folds != fold, 0]
            difference = train[has_word].mean(axis=0) - train[~has_word].mean(axis=0)
            scores[folds == fold] = x[folds == fold] @ difference
        for i, is_trained in enumerate((True, False)):
            auc = stratified_auc(scores, labels[:, 0], folds, np.arange(200), 0.95, is_trained=is_trained)
            n_covered[i] += auc.low <= 0.5 <= auc.high
    assert n_covered[0] >= 89
    assert n_covered[1] < n_covered[0]


# --- Readers ---------------------------------------------------------------------------------


def test_planted_words(result: Leakage) -> None:
    """A linear reader finds only "mean", and nothing after the erasure; the network finds "product", too."""
    assert result.readers == ("linear", "network")
    before, after = result.before, result.after
    assert (before.low[:, 0] > 0.9).all()
    np.testing.assert_allclose(after.value[0], 0.5, atol=1e-12)
    assert min(before.low[1, 1], after.low[1, 1]) > 0.53
    assert result.is_found.tolist() == [[False] * 3, [False, True, False]]
    for interval in (before, after):
        assert (interval.low[:, 2] < 0.5).all()
        assert (interval.high[:, 2] > 0.5).all()
    assert result.n_with.tolist() == make_data(900)[1].sum(axis=0).tolist()
    assert (result.n_sentences, result.n_groups, result.confidence) == (900, 900, 0.99)
    assert 0 < result.cosine < 1


def test_summary_says_what_is_found(result: Leakage) -> None:
    text = result.summary()
    assert text.startswith("A new linear reader finds none of the 3 words (AUC at most 0.500).")
    assert f"A new neural network still finds product ({result.after.value[1, 1]:.3f})." in text
    assert text.endswith("the words are hidden, not removed.")
    assert text in repr(result)
    assert repr(result).startswith("Leakage(3 words in 900 sentences; linear: AUC 0.")
    one = audit(X, Y[:, [2]], "absent")
    assert one.summary().count("does not find the word") == 2
    assert "hidden" not in one.summary()


def test_shuffled_words_are_found_at_chance() -> None:
    """Intervals of both readers cover 0.5, before and after."""
    covered = []
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(Y[:240])
        found = audit(X[:240], shuffled, WORDS, random_state=seed, cv=2)
        for interval in (found.before, found.after):
            covered.append((interval.low <= 0.5) & (interval.high >= 0.5))
    assert np.mean(covered) > 0.85


def test_linear_reader_stays_at_the_constant_without_covariance() -> None:
    labels = Y[:, :1] > 0
    erased = WordEraser("mean").fit(X, Y[:, 0]).transform(X)
    assert np.ptp(LinearReader().fit(X, labels).scores(X)) > 0.1
    assert np.ptp(LinearReader().fit(erased, labels).scores(X)) == 0


@pytest.mark.parametrize("m", [1, 2, 3])
def test_network_scores_every_word(m: int) -> None:
    """Each of m independent words, which one coordinate tells each."""
    x = np.random.default_rng(0).normal(size=(400, 4))
    labels = x[:, :m] > 0.5
    scores = NetworkReader(0).fit(x[:300], labels[:300]).scores(x[300:])
    assert scores.shape == (100, m)
    assert min(roc_auc_score(labels[300:, j], scores[:, j]) for j in range(m)) > 0.9


class Spy(TransformerMixin, BaseEstimator):
    """Adds nothing, and keeps what it is fitted to and applied to."""

    seen: ClassVar[list[tuple[str, np.ndarray]]] = []

    def fit(self, X, Y=None):
        self.seen.append(("fit", X))
        assert len(X) == Y.shape[0]
        return self

    def transform(self, X):
        self.seen.append(("transform", X))
        return X


def test_erasers_see_no_test_sentences() -> None:
    groups = np.arange(len(X)) // 4
    row_of = {row.tobytes(): i for i, row in enumerate(X)}
    Spy.seen.clear()
    found = audit(X, Y, WORDS, groups, eraser=Spy())
    np.testing.assert_array_equal(found.before.value, found.after.value)
    assert found.cosine == pytest.approx(1)
    assert found.distance == 0
    tested = []
    for fitted, test in zip(Spy.seen[::3], Spy.seen[2::3], strict=True):
        assert (fitted[0], test[0]) == ("fit", "transform")
        fitted_groups, test_groups = ({groups[row_of[r.tobytes()]] for r in x} for _, x in (fitted, test))
        assert not fitted_groups & test_groups
        tested += [row_of[r.tobytes()] for r in test[1]]
    assert sorted(tested) == list(range(len(X)))


def test_an_erasure_that_used_the_words_of_the_test_sentences_is_noticed() -> None:
    """What it removes from all rows is in the test rows the opposite of what it leaves in the others."""
    x, y = make_data(150, d=60, seed=1)
    x[:, :6] = np.random.default_rng(0).normal(size=(150, 6))
    leaked = audit(x, y, WORDS, X_after=WordEraser(vocabulary=WORDS).fit(x, y).transform(x))
    assert leaked.after.high[0].max() < 0.5
    assert (
        "Its AUC is below 0.5 for mean, product, absent: the erasure probably used the words"
        in leaked.summary()
    )
    assert "below 0.5" not in audit(x, y, WORDS).summary()


def test_repeated_sentences_are_one_group() -> None:
    x, y = np.tile(X, (2, 1)), np.tile(Y, (2, 1))
    twice = audit(x, y, WORDS)
    assert twice.n_groups == len(X)
    once = audit(X, Y, WORDS)
    width = [(found.after.high - found.after.low)[0] for found in (once, twice)]
    np.testing.assert_allclose(width[0], width[1], rtol=0.35)


def test_folds_share_out_rare_words_and_keep_groups() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((500, 3)) < [0.5, 0.05, 0.02]
    for group in (np.arange(500), np.arange(500) // 2):
        folds = _assign_folds(labels, group, 5, np.random.RandomState(0))
        assert all(len(set(folds[group == g])) == 1 for g in range(0, group.max(), 7))
        per_fold = np.array([labels[folds == f].sum(axis=0) for f in range(5)])
        assert np.ptp(per_fold, axis=0)[2] <= 2
        assert np.ptp(np.bincount(folds)) <= 2


def test_model_is_measured_too() -> None:
    flip = FLiPExtractor(vocabulary=WORDS, max_iter=60, tol=1.0, random_state=0).fit(X, Y)
    x, y = make_data(seed=1)
    erased = erase_words(flip, x, "mean")
    found = audit(x, y, WORDS, model=flip, X_after=erased.X)
    assert found.readers == ("model", "linear", "network")
    assert found.before.value[0] == pytest.approx(
        [roc_auc_score(y[:, j], flip.decision_function(x)[:, j]) for j in range(3)], abs=0.05
    )
    # The lift is 0 at most, and another reader finds the word.
    assert found.before.low[0, 0] > 0.8
    assert found.after.value[0, 0] < found.before.value[0, 0]
    assert found.after.low[1, 0] > 0.8
    sparse = audit(x, sp.csr_array(y), ["mean"], model=flip.to_sparse())
    assert sparse.before.value[0, 0] == pytest.approx(found.before.value[0, 0], abs=0.05)


# --- Inputs ----------------------------------------------------------------------------------


def test_forms_of_input() -> None:
    expected = audit(X, Y, ["mean", "absent"], vocabulary=WORDS, cv=2)
    groups = [f"g{i}" for i in range(len(X))]
    eraser = WordEraser(["mean", "absent"])
    for found in (
        audit(pd.DataFrame(X), pd.DataFrame(Y, columns=WORDS), pd.Series(["mean", "absent"]), groups, cv=2),
        audit(
            torch.tensor(X), sp.coo_array(3 * Y), ("mean", "absent"), vocabulary=WORDS, eraser=eraser, cv=2
        ),
        audit(X.tolist(), Y[:, [0, 2]].tolist(), ["mean", "absent"], cv=2),
    ):
        assert found.words == ("mean", "absent")
        np.testing.assert_allclose(found.after.value, expected.after.value, atol=0.02)
    assert not hasattr(eraser, "mean_")  # a clone was fitted
    assert audit(X.astype(np.float16), Y, "mean", vocabulary=WORDS).before.low.min() > 0.9
    fitted = WordEraser("mean", vocabulary=WORDS).fit(*make_data(seed=5))
    frozen = audit(X, Y, "mean", vocabulary=WORDS, eraser=FrozenEstimator(fitted))
    given = audit(X, Y, "mean", vocabulary=WORDS, X_after=fitted.transform(X))
    np.testing.assert_array_equal(frozen.after.value, given.after.value)
    pipeline = make_pipeline(StandardScaler(), WordEraser("mean", vocabulary=WORDS))
    assert audit(X, Y, "mean", vocabulary=WORDS, eraser=pipeline).after.value[0, 0] == pytest.approx(0.5)


def test_to_frame_and_pickle(result: Leakage) -> None:
    table = pickle.loads(pickle.dumps(result)).to_frame()
    assert list(table.columns) == [
        "reader", "word", "n_with", "auc_before", "before_low", "before_high",
        "auc_after", "after_low", "after_high", "is_found",
    ]  # fmt: skip
    line = table[(table.reader == "network") & (table.word == "product")].iloc[0]
    assert (line.auc_after, line.after_low, line.n_with) == (
        result.after.value[1, 1], result.after.low[1, 1], result.n_with[1]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"words": "Mean"}, "'Mean', .*similar words: 'mean'"),
        ({"words": []}, "is empty"),
        ({"Y": None}, "Y is None"),
        ({"Y": Y[:-1]}, "X has 400 rows and Y has 399"),
        ({"X": np.where(X > 3, np.nan, X)}, "contains NaN"),
        ({"X": X[:20], "Y": Y[:20]}, "is in . groups of sentences .* at least 10 groups"),
        ({"groups": np.arange(400) // 100}, "'mean' is in 4 groups of sentences and absent from 4"),
        ({"groups": np.arange(399)}, r"groups has shape \(399,\)"),
        ({"cv": 1}, "cv=1 is not allowed"),
        ({"confidence": 95}, "confidence=95 is not allowed"),
        ({"random_state": -1}, "random_state=-1"),
        ({"eraser": "leace"}, "eraser is 'leace'; pass a transformer"),
        ({"eraser": Spy(), "X_after": X}, "eraser and X_after were both passed"),
        ({"X_after": X[:, :3]}, r"X_after has the shape \(400, 3\) and X has \(400, 6\)"),
        ({"X_after": X * np.nan}, "contains NaN"),
        ({"model": "flip"}, "model is a str"),
        ({"vocabulary": WORDS[:2]}, "vocabulary has 2 words, Y has 3 columns"),
        ({"X": X[:, :3]}, "takes 3 dimensions"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], match: str) -> None:
    arguments = {"X": X, "Y": Y, "words": WORDS, "vocabulary": WORDS, "cv": 5, **options}
    with pytest.raises(ValueError, match=match):
        audit(**arguments)

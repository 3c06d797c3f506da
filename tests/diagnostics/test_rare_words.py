"""rare_word_recall: words held out of training are read by their features, and by nothing else."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator, TransformerMixin

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import RareWordRecall, rare_word_recall, split_sentences
from flip_sklearn.plots import RareWordDisplay

pytestmark = [
    pytest.mark.filterwarnings("ignore:the fit still made progress"),
    pytest.mark.filterwarnings("ignore:word_features do not predict"),
]

V, D, N = 60, 10, 700
RNG = np.random.default_rng(0)
MEANING = RNG.normal(size=(V, D))
WORDS = [f"w{j}" for j in range(V)]
Y = RNG.poisson(2 / np.arange(4, 4 + V), size=(N, V))
X = Y @ MEANING  # the features of a word are what it adds to an embedding
SPLIT = split_sentences(X, random_state=0)
WITH_BIAS, WITHOUT = 0, 1


def flip(features: Any = MEANING, **params: Any) -> FLiPExtractor:
    return FLiPExtractor(vocabulary=WORDS, word_features=features, max_iter=3, **params)


def measure(estimator: Any = None, counts: Any = Y, **options: Any) -> RareWordRecall:
    defaults: dict[str, Any] = {
        "n_held_out": 12, "n_bootstrap": 100, "random_state": 0, "verbose": 0, "split": SPLIT
    }  # fmt: skip
    return rare_word_recall(flip() if estimator is None else estimator, X, counts, **(defaults | options))


@pytest.fixture(scope="module")
def result() -> RareWordRecall:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return measure()


def recall_by_loops(model: FLiPExtractor, labels: np.ndarray, band: str) -> float:
    """Recall of a band among as many best words as a test sentence has."""
    hits = n = 0
    order = np.argsort(-model.decision_function(X[SPLIT.test]), axis=1)
    for row, best in zip(Y[SPLIT.test], order, strict=True):
        words = np.flatnonzero(row)
        found = set(best[: len(words)]) & set(words)
        hits += sum(labels[word] == band for word in found)
        n += sum(labels[word] == band for word in words)
    return hits / n


def test_words_held_out_are_read_by_their_features(result: RareWordRecall) -> None:
    never = result.bands.index("never seen")
    assert (result.recall.value[:, 0, never] == 0).all()
    assert result.difference.low[WITHOUT, never] > 0.3
    assert result.difference.significant[WITHOUT, never]


@pytest.mark.parametrize(
    "features",
    [np.ones((V, 3)), np.random.default_rng(1).normal(size=(V, D)), MEANING[::-1]],
    ids=["constant", "random", "of other words"],
)
def test_features_that_say_nothing_change_nothing(features: np.ndarray) -> None:
    found = measure(flip(features))
    never = found.bands.index("never seen")
    assert (found.recall.value[:, :, never] < 0.1).all()
    assert not found.difference.significant[:, -1].any()


def test_held_out_words_are_recorded(result: RareWordRecall) -> None:
    counts = Y[SPLIT.train].sum(axis=0)
    assert len(result.held_out) == 12
    columns = [WORDS.index(word) for word in result.held_out]
    assert columns == sorted(columns)
    assert ((counts[columns] >= 5) & (counts[columns] <= 200)).all()
    assert (Y[SPLIT.test][:, columns] > 0).any(axis=0).all()
    np.testing.assert_array_equal(np.flatnonzero(result.band == "never seen"), columns)
    np.testing.assert_array_equal(result.train_count, counts)
    assert result.random_state == 0
    assert measure(random_state=1).held_out.tolist() != result.held_out.tolist()


def test_result_equals_fits_by_hand(result: RareWordRecall) -> None:
    columns = np.flatnonzero(result.band == "never seen")
    counts = Y[SPLIT.train].copy()
    counts[:, columns] = 0
    groups = SPLIT.groups[SPLIT.train]
    for f, features in enumerate((None, MEANING)):
        model = flip(features, random_state=0).fit(X[SPLIT.train], counts, groups=groups)
        if features is not None:
            model = model.extend_vocabulary(result.held_out.tolist(), features[columns])
        for b, use_bias in enumerate((True, False)):
            model.set_params(use_bias=use_bias)
            for i, band in enumerate(result.bands):
                expected = recall_by_loops(model, result.band, band)
                assert result.recall.value[b, f, i] == pytest.approx(expected, abs=0.03)


def test_counts_of_bands(result: RareWordRecall) -> None:
    truth = Y[SPLIT.test] > 0
    for i, band in enumerate(result.bands):
        has_label = result.band == band
        assert result.occurrences[i] == truth[:, has_label].sum()
        assert result.band_words[i] == truth[:, has_label].any(axis=0).sum()
    assert result.occurrences[-1] == truth.sum() == result.occurrences[:-1].sum()
    assert result.band_words[-1] == result.band_words[:-1].sum()
    difference = result.recall.value[:, 1] - result.recall.value[:, 0]
    np.testing.assert_allclose(result.difference.value, difference, atol=1e-12)
    assert (result.n_sentences, result.n_skipped) == (len(SPLIT.test), (~truth.any(axis=1)).sum())


class Lookup(TransformerMixin, BaseEstimator):
    """A transformer from words to features."""

    def fit(self, words: Any, y: Any = None) -> Lookup:
        return self

    def transform(self, words: Any) -> np.ndarray:
        return MEANING[[WORDS.index(word) for word in words]]


@pytest.mark.parametrize("features", [pd.DataFrame(MEANING[::-1], index=WORDS[::-1]), Lookup()])
def test_forms_of_features_and_counts_agree(result: RareWordRecall, features: Any) -> None:
    frame = pd.DataFrame(Y, columns=WORDS)
    counts = sp.csr_matrix(Y.astype(float)) if isinstance(features, Lookup) else frame
    again = measure(flip(features), counts)
    assert again.held_out.tolist() == result.held_out.tolist()
    np.testing.assert_array_equal(again.recall.value, result.recall.value)
    np.testing.assert_array_equal(again.difference.low, result.difference.low)


def test_estimator_and_arguments_are_not_changed() -> None:
    estimator, counts = flip(), sp.csr_array(Y)
    before = counts.copy()
    measure(estimator, counts)
    assert estimator.word_features is MEANING
    assert not hasattr(estimator, "bias_")
    assert (counts != before).nnz == 0


def test_default_number_is_a_fifth() -> None:
    counts = Y[SPLIT.train].sum(axis=0)
    in_test = Y[SPLIT.test].any(axis=0)
    n = ((counts >= 5) & (counts <= 200) & in_test).sum()
    assert len(measure(n_held_out=None).held_out) == round(n / 5)


def test_to_frame_and_repr(result: RareWordRecall) -> None:
    frame = result.to_frame()
    assert len(frame) == 4 * (len(result.bands) + 1)
    row = frame[~frame.bias & frame.features & (frame.band == "never seen")].iloc[0]
    never = result.bands.index("never seen")
    assert row.recall == result.recall.value[1, 1, never]
    assert row.difference_low == result.difference.low[1, never]
    assert row.words == 12
    assert (frame[~frame.features].difference == 0).all()
    assert "never seen" in repr(result)
    assert repr(result).endswith("12 words held out)")


def test_display_draws_the_recalls(result: RareWordRecall) -> None:
    display = RareWordDisplay.from_result(result, ax=Figure().subplots(), use_bias=False)
    assert display.bands == (*result.bands, "all")
    for f, line in enumerate(display.line_):
        np.testing.assert_array_equal(line.get_xdata(), result.recall.value[1, f])
    with pytest.raises(ValueError, match="pass the result of rare_word_recall"):
        RareWordDisplay.from_result("recall")


@pytest.mark.parametrize(
    ("estimator", "options", "message"),
    [
        ("flip", {}, "estimator is 'flip'; pass FLiPExtractor"),
        (flip(None), {}, "word_features=None"),
        (flip(l2_strength=0), {}, "l2_strength=0 leaves word_features without effect"),
        (flip(MEANING[:-1]), {}, r"shape \(59, 10\)"),
        (flip(), {"n_held_out": 0}, "n_held_out=0"),
        (flip(), {"n_held_out": 1000}, "n_held_out=1000 is more than the"),
        (flip(), {"n_held_out": 1.5}, "n_held_out=1.5"),
        (flip(), {"counts": Y[:, :-1]}, "59 columns"),
        (flip(), {"counts": Y[:-1]}, "699 rows"),
        (flip(), {"counts": np.minimum(Y, np.arange(V) == 0)}, "no word that occurs 5 to 200 times"),
        (flip(), {"split": "half"}, "split is a str"),
        (flip(), {"n_bootstrap": 1}, "n_bootstrap"),
    ],
)
def test_bad_input(
    estimator: Any, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flip_sklearn.estimation.training.solve", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        measure(estimator, **options)


def test_several_views_are_refused() -> None:
    with pytest.raises(ValueError, match="X has 2 views"):
        rare_word_recall(flip(), {"a": X, "b": X}, Y)


def test_all_fields_are_documented() -> None:
    assert RareWordRecall.__doc__ is not None
    assert all(field.name in RareWordRecall.__doc__ for field in fields(RareWordRecall))

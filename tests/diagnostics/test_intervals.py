"""Intervals: coverage of a planted truth in 300 samples, exact small cases, and limits."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import binomtest

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import entity_recall_curve, word_recoverability
from flip_sklearn.diagnostics.bootstrap import PairedBootstrap
from flip_sklearn.diagnostics.inputs import EvaluationSettings
from flip_sklearn.diagnostics.shares import ClusterShares, difference_ends, effective_number, wilson_ends
from flip_sklearn.metrics import RowMean, perplexity

N_SAMPLES = 300
SETTINGS = EvaluationSettings(n_bootstrap=300, confidence=0.95, random_state=0)


def coverage(low: Any, high: Any, truth: Any) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


def holds_its_level(share: float) -> bool:
    return 0.92 <= share <= 0.98


def bootstrap(hits: np.ndarray, chances: np.ndarray, copies: int = 1) -> PairedBootstrap:
    """The bootstrap of samples (sentences, samples), each sentence several times."""
    hits, chances = (np.repeat(part.astype(float), copies, axis=0) for part in (hits, chances))
    return PairedBootstrap(hits, np.arange(len(hits)) // copies, SETTINGS, chances)


def occurrences(
    rng: np.random.Generator, n: int, recall: float, *, mean: float = 0.3, spread: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Hits and occurrences of a band in n groups, in 300 samples; ``spread``: correlation in a group."""
    chances = rng.poisson(mean, (n, N_SAMPLES))
    if spread:
        scale = (1 - spread) / spread
        p = rng.beta(recall * scale, (1 - recall) * scale, chances.shape)
        return rng.binomial(chances, p), chances
    return rng.binomial(chances, recall), chances


BANDS = [
    # groups, copies of a sentence, occurrences a group, correlation in a group, recall
    pytest.param(200, 1, 0.3, 0.0, 0.03, id="rare: two hits"),
    pytest.param(200, 1, 0.3, 0.0, 0.06, id="rare: four hits"),
    pytest.param(200, 1, 0.3, 0.0, 0.97, id="rare: two misses"),
    pytest.param(60, 1, 0.3, 0.0, 0.5, id="rare: 18 occurrences"),
    pytest.param(200, 1, 3.0, 0.0, 0.7, id="frequent"),
    pytest.param(200, 3, 0.3, 0.0, 0.03, id="rare, three copies"),
    pytest.param(200, 3, 0.3, 0.0, 0.3, id="three copies"),
    pytest.param(200, 3, 3.0, 0.0, 0.7, id="frequent, three copies"),
    pytest.param(60, 1, 3.0, 0.2, 0.03, id="rare, speakers"),
    pytest.param(60, 1, 3.0, 0.2, 0.7, id="speakers"),
    pytest.param(25, 1, 10.0, 0.2, 0.6, id="few speakers"),
]


@pytest.mark.parametrize(("n", "copies", "mean", "spread", "recall"), BANDS)
def test_coverage_of_recall_and_of_its_difference(
    n: int, copies: int, mean: float, spread: float, recall: float
) -> None:
    """The recall of a band, and its difference to that of all words."""
    rng = np.random.default_rng(3)
    hits, chances = occurrences(rng, n, recall, mean=mean, spread=spread)
    chances[0] += chances.sum(axis=0) == 0
    other_hits, other_chances = occurrences(rng, n, 0.6, mean=2.0, spread=spread)
    columns = np.arange(N_SAMPLES)
    found = bootstrap(
        np.hstack([hits, hits + other_hits]), np.hstack([chances, chances + other_chances]), copies
    )
    interval = found.means(columns)
    assert holds_its_level(coverage(interval.low, interval.high, recall))
    assert (interval.low < interval.high).all()
    gap = found.differences(columns, N_SAMPLES + columns)
    truth = recall - (recall * mean + 0.6 * 2.0) / (mean + 2.0)
    assert holds_its_level(coverage(gap.low, gap.high, truth))


def test_copies_that_are_taken_for_sentences_do_not_cover() -> None:
    """Negative control: the same samples without groups."""
    hits, chances = occurrences(np.random.default_rng(3), 200, 0.7, mean=3.0)
    grouped = bootstrap(hits, chances, copies=3).means(np.arange(N_SAMPLES))
    hits, chances = np.repeat(hits, 3, axis=0), np.repeat(chances, 3, axis=0)
    single = bootstrap(hits, chances).means(np.arange(N_SAMPLES))
    assert holds_its_level(coverage(grouped.low, grouped.high, 0.7))
    assert coverage(single.low, single.high, 0.7) < 0.85


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize(
    ("n", "gain", "loss", "both"),
    [
        pytest.param(400, 0.02, 0.004, 0.0, id="rare: names with the bias"),
        pytest.param(200, 0.05, 0.03, 0.4, id="rare changes"),
        pytest.param(300, 0.2, 0.15, 0.4, id="frequent changes"),
        pytest.param(40, 0.4, 0.1, 0.3, id="40 sentences"),
    ],
)
def test_coverage_of_paired_differences(n: int, gain: float, loss: float, both: float, copies: int) -> None:
    """Of two models, one finds what the other does not in some sentences."""
    rng = np.random.default_rng(5)
    outcome = rng.choice(4, p=[gain, loss, both, 1 - gain - loss - both], size=(n, N_SAMPLES))
    first, second = (outcome == 0) | (outcome == 2), (outcome == 1) | (outcome == 2)
    found = bootstrap(np.hstack([first, second]), np.ones((n, 2 * N_SAMPLES)), copies)
    columns = np.arange(N_SAMPLES)
    gap = found.differences(columns, N_SAMPLES + columns)
    assert holds_its_level(coverage(gap.low, gap.high, gain - loss))
    recall = found.means(columns)
    assert holds_its_level(coverage(recall.low, recall.high, gain + both))


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("n", [12, 40, 200])
def test_coverage_of_accuracies(n: int, copies: int) -> None:
    """Shares of ten words a sentence in two views: the means and the difference of the diagnoses of views."""
    rng = np.random.default_rng(7)
    easy = rng.beta(8, 4, (n, N_SAMPLES))
    first, second = rng.binomial(10, easy) / 10, rng.binomial(10, 0.9 * easy) / 10
    found = bootstrap(np.hstack([first, second]), np.ones((n, 2 * N_SAMPLES)), copies)
    columns = np.arange(N_SAMPLES)
    accuracy, gap = found.means(columns), found.differences(N_SAMPLES + columns, columns)
    assert holds_its_level(coverage(accuracy.low, accuracy.high, 8 / 12))
    assert holds_its_level(coverage(gap.low, gap.high, -0.1 * 8 / 12))


class Scored:
    """A model whose embeddings are the scores themselves."""

    vocabulary_ = np.array(["rare", "often", "other", "wrong"], dtype=object)

    def decision_function(self, X: Any) -> np.ndarray:
        return np.asarray(X)


def test_coverage_of_word_recoverability() -> None:
    """All of it, with every sentence twice: a rare word found in .1 of its sentences, others in .7."""
    rng = np.random.default_rng(11)
    n, recall = 100, np.array([0.1, 0.7])
    covered = []
    for _ in range(N_SAMPLES):
        Y = np.zeros((n, 4), dtype=int)
        Y[:, 0] = rng.random(n) < 0.3
        Y[:, 1] = 1 - Y[:, 0]  # one word a sentence
        is_found = rng.random(n) < recall[Y[:, 1]]
        scores = rng.random((n, 4))
        scores[np.arange(n), np.where(is_found, Y[:, 1], 3)] += 1
        result = word_recoverability(
            Scored(),
            np.repeat(scores, 2, axis=0),
            sp.csr_array(np.repeat(Y, 2, axis=0)),
            by=["rare", "often", "often", "often"],
            n_bootstrap=60,
            random_state=0,
        )
        of_words, overall = result.word_interval(), 0.3 * 0.1 + 0.7 * 0.7
        covered.append(
            [
                result.band_recall.low[1] <= 0.1 <= result.band_recall.high[1],
                result.band_difference.low[1] <= 0.1 - overall <= result.band_difference.high[1],
                of_words.low[0] <= 0.1 <= of_words.high[0],
                of_words.low[1] <= 0.7 <= of_words.high[1],
                result.overall.low <= overall <= result.overall.high,
            ]
        )
    shares = np.mean(covered, axis=0)
    assert all(map(holds_its_level, shares[:4])), shares
    assert 0.9 <= shares[4] <= 0.98  # percentiles of 60 resamples


def test_coverage_of_entity_recall() -> None:
    """All of it: names that are hardly found with the bias, with two sentences of each speaker."""
    rng = np.random.default_rng(13)
    words = ["ann", "the", "of", "is"]
    flip = FLiPExtractor(vocabulary=words, rank=None, max_iter=1, random_state=0)
    flip.fit(rng.normal(size=(20, 4)), np.ones((20, 4)))
    model = copy.copy(flip)
    model.word_embeddings_, model.projection_ = np.eye(4, dtype=np.float64), np.eye(4)
    model.embedding_mean_, model.bias_ = np.zeros(4), np.array([-3.0, 0, 0, 0])

    def draw(n_speakers: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores of which those of names differ by speaker, and the speakers."""
        X = rng.normal(size=(2 * n_speakers, 4))
        X[:, 0] += np.repeat(rng.normal(0.5, 1.0, n_speakers), 2)
        return X, np.repeat(np.arange(n_speakers), 2)

    def curve(X: np.ndarray, groups: np.ndarray) -> Any:
        return entity_recall_curve(
            model, X, [["Ann"]] * len(X), ks=[1], groups=groups, n_bootstrap=100, random_state=0, verbose=0
        )

    truth = curve(*draw(20_000))
    assert 0.01 < truth.recall_strict.value[0, 0, 0] < 0.03
    names = ("recall_strict", "recall_partial", "precision", "difference")
    covered = {name: np.zeros(truth.recall_strict.value.shape) for name in names}
    for _ in range(N_SAMPLES):
        result = curve(*draw(75))
        for name in names:
            found = getattr(result, name)
            covered[name] = covered[name] + (
                (found.low <= (t := getattr(truth, name).value)) & (t <= found.high)
            )
    shares = np.concatenate([np.ravel(count) for count in covered.values()]) / N_SAMPLES
    assert all(map(holds_its_level, shares[[0, 2, 4]])), shares  # rare: with the bias
    assert (shares >= 0.9).all(), shares
    assert (shares <= 0.985).all(), shares


def test_coverage_of_standard_errors() -> None:
    """Two standard errors around a mean over rows, with weights, and around a perplexity."""
    rng = np.random.default_rng(17)
    theta = np.array([0.4, 0.3, 0.2, 0.1])
    quantities: list[list[bool]] = []
    truth = np.exp(-theta @ np.log(theta[::-1]))
    for _ in range(N_SAMPLES):
        values, weights = rng.binomial(10, rng.beta(8, 4, 80)) / 10, rng.integers(1, 4, 80)
        mean, weighted = RowMean.of(values), RowMean.of(values, weights)
        Y = rng.multinomial(8, theta, size=80)
        worth = perplexity(Y, np.tile(np.log(theta[::-1]), (80, 1)))
        pairs = ((mean, 8 / 12), (weighted, 8 / 12), (worth, truth))
        quantities.append([abs(r.value - t) <= 1.96 * r.standard_error for r, t in pairs])
    assert all(map(holds_its_level, np.mean(quantities, axis=0)))


# ------------------------------------------------------------------ exact cases


def test_independent_chances_have_the_wilson_interval() -> None:
    hits = np.array([[1] * 8 + [0] * 12, [1] * 15 + [0] * 5, [0] * 20, [1] * 20]).T
    shares = ClusterShares.of(hits, np.ones_like(hits), 0.9)
    np.testing.assert_allclose(shares.size, 20)
    for column, low, high in zip(hits.T, shares.low, shares.high, strict=True):
        expected = binomtest(int(column.sum()), 20).proportion_ci(0.9, method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_effective_number_of_chances() -> None:
    rng = np.random.default_rng(0)
    chances = rng.integers(1, 5, (40, 5))
    hits = rng.binomial(chances, 0.4)
    shares = ClusterShares.of(hits, chances, 0.95)
    # Sparse arrays, copies of clusters, and empty clusters give the same; multiples are complete dependence.
    for other in (
        ClusterShares.of(sp.csr_array(hits), sp.csr_array(chances), 0.95),
        ClusterShares.of(7 * hits, 7 * chances, 0.95),
        ClusterShares.of(np.vstack([hits, 0 * hits]), np.vstack([chances, 0 * chances]), 0.95),
    ):
        for name in ("share", "size", "low", "high"):
            np.testing.assert_allclose(getattr(other, name), getattr(shares, name), rtol=1e-9)
    least = chances.sum(axis=0) ** 2 / (chances**2).sum(axis=0)
    whole = ClusterShares.of(np.where(np.arange(40)[:, None] < 16, chances, 0), chances, 0.95)
    assert (least <= whole.size * (1 + 1e-9)).all()
    assert (whole.size < 1.2 * least).all()
    assert (shares.size > 1.2 * least).all()  # hits are independent
    none = ClusterShares.of(0 * hits, chances, 0.95)
    np.testing.assert_allclose(none.size, least)
    np.testing.assert_allclose(effective_number(chances.astype(float)), least)
    assert not effective_number(np.zeros((3, 2))).any()


def test_one_cluster_tells_as_much_as_one_chance() -> None:
    shares = ClusterShares.of(np.array([[3.0, 0, 5]]), np.array([[5.0, 5, 5]]), 0.95)
    np.testing.assert_allclose(shares.size, 1)
    assert (shares.high - shares.low > 0.8).all()
    nothing = ClusterShares.of(np.zeros((2, 1)), np.zeros((2, 1)), 0.95)
    assert np.isnan([nothing.share, nothing.low, nothing.high]).all()


def test_ends_mirror_shares_and_grow_with_the_level() -> None:
    share, size = np.meshgrid([0, 0.004, 0.02, 0.3, 0.5, 0.9, 1], [1, 2.5, 30, 200])
    low, high = wilson_ends(share, size, 0.95)
    mirrored = wilson_ends(1 - share, size, 0.95)
    np.testing.assert_allclose(low, 1 - mirrored[1], atol=1e-12)
    assert ((low >= 0) & (low <= share) & (share <= high) & (high <= 1)).all()
    wide = wilson_ends(share, size, 0.99)
    assert ((wide[0] <= low) & (wide[1] >= high)).all()


def test_ends_of_differences() -> None:
    one = ClusterShares(*(np.array([value]) for value in (0.6, 50.0, 0.46, 0.72)))
    other = ClusterShares(*(np.array([value]) for value in (0.5, 50.0, 0.37, 0.63)))
    low, high = difference_ends(one, other, np.zeros(1))
    assert low[0] == pytest.approx(0.1 - np.hypot(0.14, 0.13))
    assert high[0] == pytest.approx(0.1 + np.hypot(0.12, 0.13))
    swapped = difference_ends(other, one, np.zeros(1))
    np.testing.assert_allclose([low, high], [-swapped[1], -swapped[0]])
    paired = difference_ends(one, other, np.full(1, 0.9))
    assert low[0] < paired[0][0] < 0.1 < paired[1][0] < high[0]


def test_models_that_always_differ_are_not_a_point() -> None:
    """One of two models finds all of 8 names, the other none."""
    values = np.column_stack([np.ones(8), np.zeros(8)])
    found = PairedBootstrap(values, np.arange(8), SETTINGS).differences(np.array([0]), np.array([1]))
    assert found.value[0] == found.high[0] == 1
    assert 0.3 < found.low[0] < 0.9
    assert found.significant[0]


def test_columns_without_a_value_have_no_interval() -> None:
    values = np.column_stack([np.full(9, np.nan), np.linspace(0, 1, 9)])
    interval = PairedBootstrap(values, np.arange(9), SETTINGS).means(np.arange(2))
    for part in (interval.value, interval.low, interval.high):
        assert np.isnan(part).tolist() == [True, False]

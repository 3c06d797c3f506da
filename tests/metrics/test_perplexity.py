"""Perplexity and log-likelihood per word against slow reference implementations of their formulas."""

from __future__ import annotations

import math
import pickle
import re
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier

from flip_sklearn import FLiPExtractor
from flip_sklearn.metrics import Perplexity, RowMean, log_likelihood_scorer, perplexity, ranking

NAN = float("nan")


def slow_nll(Y: np.ndarray, theta: np.ndarray, weights: Any) -> tuple[float, float, list[float]]:
    """Weighted nats per word, its standard error by the rows, and each row's nats per word."""
    rows = []
    for counts, row in zip(Y.tolist(), theta.tolist(), strict=True):
        nats = sum(-c * math.log(p) for c, p in zip(counts, row, strict=True) if c)
        rows.append((nats, sum(counts)))
    per_row = [nats / size if size else NAN for nats, size in rows]
    mass = sum(w * size for (_, size), w in zip(rows, weights, strict=True))
    if not mass:
        return NAN, NAN, per_row
    nll = sum(w * nats for (nats, _), w in zip(rows, weights, strict=True)) / mass
    shares = [w * size / mass for (_, size), w in zip(rows, weights, strict=True)]
    m = sum(share > 0 for share in shares)
    spread = sum((s * (v - nll)) ** 2 for s, v in zip(shares, per_row, strict=True) if s > 0)
    return nll, math.sqrt(m / (m - 1) * spread) if m > 1 else NAN, per_row


class Fixed(BaseEstimator):
    """Fixed distributions: row i of X holds the number of the row of ``theta``."""

    def __init__(self, theta: np.ndarray, logs: bool = True) -> None:
        self.theta = theta
        self.logs = logs
        self.asked: list[int] = []
        if logs:
            self.predict_log_proba = self._logs

    def predict_proba(self, X: Any) -> np.ndarray:
        rows = np.asarray(X).ravel().astype(int)
        self.asked.append(len(rows))
        return self.theta[rows]

    def _logs(self, X: Any) -> np.ndarray:
        return np.log(self.predict_proba(X))


@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_perplexity_equals_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, n_words = rng.integers(1, 9, size=2)
    Y = rng.integers(1, 4, size=(n, n_words)) * (rng.random((n, n_words)) < rng.choice([0.1, 0.6]))
    theta = rng.dirichlet(np.ones(n_words), size=n)
    weights = rng.integers(0, 3, size=n)
    for w, given_weights in ((weights, weights), (np.ones(n), None)):
        nll, error, per_row = slow_nll(Y, theta, w.tolist())
        for truth in (Y, sp.csr_array(Y), sp.csc_matrix(Y)):
            result = perplexity(truth, np.log(theta), sample_weight=given_weights)
            assert result.value == pytest.approx(math.exp(nll), nan_ok=True)
            expected = math.exp(nll) * error
            assert result.standard_error == pytest.approx(expected, nan_ok=True, abs=1e-9)
            np.testing.assert_allclose(result.per_row, per_row)
            assert result.n_skipped == (Y.sum(axis=1) == 0).sum()
        with pytest.MonkeyPatch.context() as patch:
            block = int(rng.integers(1, 40))
            patch.setattr(ranking, "BLOCK_ELEMENTS", block)
            X = np.arange(n)[:, None]
            for logs in (True, False):
                model = Fixed(theta, logs)
                score = log_likelihood_scorer(model, X, sp.csr_array(Y), given_weights)
                assert score == pytest.approx(-nll, nan_ok=True)
                assert isinstance(score, float)
                assert max(model.asked) <= max(1, block // n_words)


def test_by_hand() -> None:
    theta = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.2, 0.2, 0.6]])
    # 2 words of 1 bit, 1 of 2 bits, 2 of 3 bits, none: 2^(10/5)
    result = perplexity([[2, 1, 0], [1, 1, 0], [0, 0, 0]], np.log(theta))
    assert result.value == pytest.approx(4)
    np.testing.assert_allclose(result.per_row, np.log(2) * np.array([4 / 3, 3, NAN]))
    assert result.n_skipped == 1
    # residuals in nats: 3/5 (4/3 - 2) ln 2 and 2/5 (3 - 2) ln 2, both 0.4 ln 2 in size
    assert result.standard_error == pytest.approx(4 * math.sqrt(2 * 2 * 0.16) * math.log(2))


def test_known_values_and_bounds() -> None:
    rng = np.random.default_rng(0)
    Y = rng.poisson(1.0, size=(50, 7))
    # The uniform distribution has perplexity V, the sharpest one 1.
    assert perplexity(Y, np.full(Y.shape, -math.log(7))).value == pytest.approx(7)
    sharp = np.where(np.eye(7) > 0, 0.0, -np.inf)
    assert perplexity(np.eye(7, dtype=int), sharp).value == 1
    # Of distributions that are the same for all rows, the empirical one is best (Gibbs' inequality).
    word = Y.sum(axis=0) / Y.sum()
    best = perplexity(Y, np.tile(np.log(word), (50, 1))).value
    for _ in range(20):
        other = rng.dirichlet(100 * word)
        assert perplexity(Y, np.tile(np.log(other), (50, 1))).value >= best
    # Weight 2 equals two copies of a row; the scale of the weights does not matter.
    logs = np.log(rng.dirichlet(np.ones(7), size=50))
    w = rng.integers(0, 3, size=50)
    weighted = perplexity(Y, logs, sample_weight=w)
    repeated = perplexity(np.repeat(Y, w, axis=0), np.repeat(logs, w, axis=0))
    scaled = perplexity(Y, logs, sample_weight=0.1 * w)
    assert weighted.value == pytest.approx(repeated.value) == pytest.approx(scaled.value)
    assert weighted.standard_error == pytest.approx(scaled.standard_error)


def test_standard_error_agrees_with_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.5, size=(400, 6))
    logs = np.log(rng.dirichlet(np.ones(6), size=400))
    result = perplexity(Y, logs)
    rows = rng.integers(400, size=(400, 400))
    values = [perplexity(Y[r], logs[r]).value for r in rows]
    assert result.standard_error == pytest.approx(np.std(values), rel=0.15)


@pytest.mark.parametrize("weight", [1e-320, 1e-300, 1e300, 1e308])
def test_weights_of_any_scale_that_float64_holds(weight: float) -> None:
    rng = np.random.default_rng(0)
    Y = rng.poisson(2.0, size=(30, 5))
    logs = np.log(rng.dirichlet(np.ones(5), size=30))
    result = perplexity(Y, logs, sample_weight=np.full(30, weight))
    assert result.value == pytest.approx(perplexity(Y, logs).value, rel=1e-12)
    assert result.standard_error == pytest.approx(perplexity(Y, logs).standard_error, rel=1e-9)


def test_result_type() -> None:
    """A perplexity is not a mean over rows: ``per_row`` holds nats per word."""
    result = perplexity([[2, 0], [1, 1]], np.log([[0.5, 0.5], [0.25, 0.75]]))
    assert isinstance(result, Perplexity)
    assert not isinstance(result, RowMean)
    assert float(result) == result.value
    assert (
        repr(result)
        == f"Perplexity({result.value:.4f} +- {result.standard_error:.4f}, n_rows=2, n_skipped=0)"
    )
    assert math.exp(np.average(result.per_row, weights=[2, 2])) == pytest.approx(result.value)
    loaded = pickle.loads(pickle.dumps(result))
    assert (type(loaded), repr(loaded)) == (Perplexity, repr(result))
    np.testing.assert_array_equal(loaded.per_row, result.per_row)


def test_probability_zero() -> None:
    logs = np.log(np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    logs[1, 1] = -np.inf
    X = np.arange(3)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # of a word that does not occur
        unseen = [[1, 1], [1, 0], [0, 1]]
        assert perplexity(unseen, logs).value == pytest.approx(2)
        seen = [[1, 1], [1, 1], [0, 1]]
        result = perplexity(seen, logs)
        assert result.value == np.inf
        assert math.isnan(result.standard_error)
        np.testing.assert_allclose(result.per_row, [math.log(2), np.inf, math.log(2)])
        assert perplexity(seen, logs, sample_weight=[1, 0, 1]).value == pytest.approx(2)
        theta = np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]])
        assert log_likelihood_scorer(Fixed(theta, logs=False), X, np.array(seen)) == -np.inf
        # exp overflows without a warning
        assert perplexity([[1]], [[-1e4]]).value == np.inf


def test_no_rows_with_words() -> None:
    for n in (0, 3):
        result = perplexity(np.zeros((n, 2)), np.zeros((n, 2)))
        assert math.isnan(result.value)
        assert (result.n_rows, result.n_skipped) == (0, n)
    model = Fixed(np.full((2, 2), 0.5))
    assert math.isnan(log_likelihood_scorer(model, np.arange(2)[:, None], np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("Y", "logs", "parts"),
    [
        ([[1, 0]], [[0.6, 0.4]], ["log_proba holds 0.6", "<= 0", "np.log(theta)"]),
        ([[1, 0]], [[NAN, -1.0]], ["NaN", "<= 0"]),
        ([[1, 0]], [[-1.0]], ["(1, 1)", "(1, 2)", "every word"]),
        ([[1, 0], [0, 1]], [[-1.0, -1.0]], ["(1, 2)", "(2, 2)"]),
        ([[-1, 0]], [[-1.0, -1.0]], ["negative", ">= 0"]),
        ([[np.inf, 0]], [[-1.0, -1.0]], ["infinity", "finite"]),
    ],
)
def test_errors(Y: Any, logs: Any, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        perplexity(Y, logs)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def test_scorer_errors() -> None:
    Y = np.array([[1, 0, 1], [0, 1, 0]])
    X = np.arange(2)[:, None]
    with pytest.raises(ValueError, match="X has 3 rows, Y has 2"):
        log_likelihood_scorer(Fixed(np.full((3, 3), 1 / 3)), np.arange(3)[:, None], Y)
    with pytest.raises(ValueError, match=r"shape \(2, 2\).*3 columns of Y"):
        log_likelihood_scorer(Fixed(np.full((2, 2), 0.5)), X, Y)
    with pytest.raises(ValueError, match="a list; a likelihood needs one distribution"):
        log_likelihood_scorer(KNeighborsClassifier(1).fit(X, Y), X, Y)
    with pytest.raises(AttributeError, match="predict_proba"):
        log_likelihood_scorer(BaseEstimator(), X, Y)


def test_grid_search_by_likelihood() -> None:
    """Greater is better: the search selects the parameter with the lowest held-out perplexity."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    Y = sp.csr_array(rng.poisson(0.3 * np.exp(X @ rng.normal(size=(5, 6)))))
    search = GridSearchCV(
        FLiPExtractor(rank=3, max_iter=8, random_state=0),
        {"l1_strength": [1e-2, 1e3]},
        cv=2,
        scoring=log_likelihood_scorer,
    ).fit(X, Y)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"l1_strength": 1e-2}
    assert (scores < 0).all()
    model = search.best_estimator_
    assert math.exp(-log_likelihood_scorer(model, X, Y)) == pytest.approx(
        perplexity(Y, model.predict_log_proba(X)).value, rel=1e-5
    )


def test_one_word_per_row_is_log_loss_of_a_classifier() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3))
    label = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
    model = LogisticRegression().fit(X, label)
    expected = -log_loss(label, model.predict_proba(X))
    assert log_likelihood_scorer(model, X, np.eye(3, dtype=int)[label]) == pytest.approx(expected)


class Uniform:
    """The same probability for all words."""

    def __init__(self, n_words: int) -> None:
        self.row = np.full(n_words, -math.log(n_words), dtype=np.float32)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        return np.tile(self.row, (len(X), 1))


def test_memory_stays_bounded() -> None:
    """20,000 x 20,000: all logarithms at once would take 1.5 GiB as float32."""
    n = n_words = 20_000
    words = np.random.default_rng(0).integers(n_words, size=6 * n)
    Y = sp.csr_array((np.ones(6 * n), words, np.arange(0, 6 * n + 1, 6)), shape=(n, n_words))
    tracemalloc.start()
    try:
        score = log_likelihood_scorer(Uniform(n_words), np.zeros((n, 1)), Y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert score == pytest.approx(-math.log(n_words))
    assert peak < 200 * 2**20

"""SimilarityExplanation.without: the counterfactual of contributions; the decomposition of B that is kept."""

from __future__ import annotations

import gc
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import SimilarityExplanation, erase_words, explain_similarity, similarity
from tests.diagnostics.test_erasure import random_model

problems = st.tuples(st.integers(2, 9), st.integers(1, 30), st.integers(1, 9), st.integers(0, 10**6))


def explain(problem: tuple[int, int, int, int]) -> tuple[FLiPExtractor, SimilarityExplanation]:
    d, n_words, rank, seed = problem
    model = random_model(d, n_words, rank, seed)
    x1, x2 = np.random.default_rng(seed + 1).normal(size=(2, d)) * [[1.0], [3.0]]
    return model, explain_similarity(model, x1, x2)


def naive_parts(model: FLiPExtractor, result: SimilarityExplanation) -> tuple[np.ndarray, ...]:
    """The parts s_ij p_j of the words (m, d) in both embeddings, and |x1| |x2|, from their definitions."""
    columns = [model.vocabulary_.tolist().index(word) for word in result.words]
    p = model.word_embeddings_[columns] @ np.linalg.pinv(model.projection_, rcond=1e-12).T
    length = np.linalg.norm(result.x1) * np.linalg.norm(result.x2)
    return result.strength1[:, None] * p, result.strength2[:, None] * p, length


@given(problems)
@settings(max_examples=30, deadline=None)
def test_contributions_are_mean_falls_when_patterns_are_taken_out(problem: tuple[int, int, int, int]) -> None:
    model, result = explain(problem)
    first, second, length = naive_parts(model, result)
    v1, v2 = first.sum(axis=0), second.sum(axis=0)
    size = 1 + np.abs(result.parts).sum()
    sets = [[j] for j in range(len(result.words))] + [list(range(0, len(result.words), 2))]
    for chosen in filter(None, sets):
        without = result.without(result.words[chosen])
        w1, w2 = v1 - first[chosen].sum(axis=0), v2 - second[chosen].sum(axis=0)
        falls = [(v1 @ v2 - product) / length for product in (w1 @ v2, v1 @ w2, w1 @ w2)]
        given_falls = (without.fall_first, without.fall_second, without.fall_both)
        assert np.abs(np.subtract(falls, given_falls)).max() < 1e-9 * size
        assert abs(without.contribution - (falls[0] + falls[1]) / 2) < 1e-9 * size
        assert abs(without.contribution - result.contribution[chosen].sum()) < 1e-12 * size
        # The embeddings without the patterns.
        scale = 1 + np.abs(first).max() + np.abs(second).max()
        assert np.abs(result.x1 - without.x1 - first[chosen].sum(axis=0)).max() < 1e-9 * scale
        assert np.abs(result.x2 - without.x2 - second[chosen].sum(axis=0)).max() < 1e-9 * scale
        lengths = np.linalg.norm(without.x1) * np.linalg.norm(without.x2)
        assert without.cosine == pytest.approx(without.x1 @ without.x2 / lengths)


def test_contributions_are_shapley_values() -> None:
    """The mean fall over all orders in which the words are taken out of both embeddings."""
    _, result = explain((9, 6, 9, 5))
    m = len(result.words)
    assert 3 <= m <= 6
    orders = list(itertools.permutations(range(m)))
    mean = np.zeros(m)
    for order in orders:
        for place, j in enumerate(order):
            rest = [k for k in range(m) if k not in order[:place]]
            left = [k for k in rest if k != j]
            mean[j] += result.parts[np.ix_(rest, rest)].sum() - result.parts[np.ix_(left, left)].sum()
    assert np.allclose(mean / len(orders), result.contribution, atol=1e-12)


def fitted(seed: int = 0, **changed: Any) -> tuple[FLiPExtractor, np.ndarray]:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.3, size=(400, 8))
    X = Y @ rng.normal(size=(8, 12)) + 0.1 * rng.normal(size=(400, 12)) + 1
    vocabulary = [f"word{j}" for j in range(8)]
    settings: dict[str, Any] = {"rank": 6, "max_iter": 4, "random_state": seed, "vocabulary": vocabulary}
    return FLiPExtractor(**{**settings, **changed}).fit(X, Y), X


def test_other_counterfactuals_differ() -> None:
    """Negative control: taking the pattern out of both embeddings, and erasing the word."""
    model, X = fitted()
    result = explain_similarity(model, X[0], X[3])
    word = str(result.words[0])
    without = result.without(word)
    assert abs(without.fall_both - without.contribution) > 0.01
    assert abs((result.cosine - without.cosine) - without.contribution) > 0.01
    erased = erase_words(model, X[[0, 3]], word)
    moved = np.linalg.norm(X[0] - without.x1) + np.linalg.norm(X[3] - without.x2)
    assert 0 < erased.distance.sum() < moved


def test_float32_and_arguments() -> None:
    model, X = fitted(precision="float32")
    result = explain_similarity(model, X[0].astype(np.float32), X[3].astype(np.float32))
    first, second = str(result.words[0]), str(result.words[1])
    both = result.without([first, second, first])
    assert both.words == (first, second)
    assert both.contribution == pytest.approx((both.fall_first + both.fall_second) / 2, abs=1e-12)
    assert result.without(first).words == (first,)
    nothing = result.without([])
    assert (nothing.contribution, nothing.fall_both) == (0, 0)
    assert nothing.cosine == pytest.approx(result.cosine)
    with pytest.raises(ValueError, match=r"'unicorn' is not a word .* some of the \d+ in words"):
        result.without("unicorn")
    with pytest.raises(ValueError, match="3 is not a word"):
        result.without([3])
    again = pickle.loads(pickle.dumps(result)).without(first)
    assert again.fall_first == result.without(first).fall_first
    for name in ("x1", "x2", "patterns"):
        del vars(result)[name]  # as in pickles of 0.1.0
    with pytest.raises(ValueError, match="call explain_similarity again"):
        result.without(first)


def test_decomposition_of_B_is_kept_with_the_model() -> None:
    model, X = fitted()
    pickled = pickle.dumps(model)
    before = repr(explain_similarity(model, X[0], X[3]))
    with mock.patch.object(np.linalg, "svd", side_effect=AssertionError):
        assert repr(explain_similarity(model, X[0], X[3])) == before
        assert pickle.dumps(model) == pickled
        with pytest.raises(AssertionError):
            explain_similarity(pickle.loads(pickled), X[0], X[3])
    # A refit and a change in place are noticed.
    fresh, _ = fitted(seed=1)
    model.set_params(random_state=1).fit(*training_rows())
    assert repr(explain_similarity(model, X[0], X[3])) == repr(explain_similarity(fresh, X[0], X[3]))
    model.projection_ *= 2
    fresh.projection_ = fresh.projection_ * 2
    assert repr(explain_similarity(model, X[0], X[3])) == repr(explain_similarity(fresh, X[0], X[3]))
    n_kept = len(similarity._pseudo_inverses)
    del model
    gc.collect()
    assert len(similarity._pseudo_inverses) < n_kept


def training_rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.3, size=(400, 8))
    return Y @ rng.normal(size=(8, 12)) + 0.1 * rng.normal(size=(400, 12)) + 1, Y


def test_threads_that_explain_while_the_model_is_fitted_again() -> None:
    """Each explanation is of one of the two fits."""
    model, X = fitted()
    _, Y = training_rows()
    expected = {repr(explain_similarity(fitted(seed)[0], X[0], X[3])) for seed in (0, 1)}
    assert len(expected) == 2

    def refit(_: int) -> None:
        for seed in (1, 0, 1):
            model.set_params(random_state=seed).fit(X, Y)

    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(refit, 0)
        found = set()
        while not running.done():
            found |= set(pool.map(lambda _: repr(explain_similarity(model, X[0], X[3])), range(3)))
    assert found <= expected

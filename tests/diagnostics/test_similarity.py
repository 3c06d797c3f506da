"""explain_similarity: sums of parts, symmetry, and known words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.pipeline import make_pipeline

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import SimilarityExplanation, explain_similarity
from tests.diagnostics.test_erasure import random_model

NAMES = ["dog", "cat", "red", "green", "snow"]


def total(result: SimilarityExplanation) -> float:
    return result.common + result.contribution.sum() + result.residual


def orthogonal(n_words: int = 5, d: int = 5) -> FLiPExtractor:
    """Word j is axis j: with |a_j| = 1, its direction is 2 e_j and its pattern e_j / 2."""
    model = random_model(d, n_words, n_words, seed=0)
    model.vocabulary_ = np.array([*NAMES, *(f"word{j}" for j in range(5, n_words))], dtype=object)
    model.projection_ = 2 * np.eye(n_words, d)
    model.word_embeddings_ = np.eye(n_words)
    model.embedding_mean_ = np.zeros(d)
    return model


def planted_embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings that are sums of word vectors, away from zero, and the counts of their words."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.3, size=(400, 8))
    return Y @ rng.normal(size=(8, 12)) + 0.1 * rng.normal(size=(400, 12)) + 1, Y


problems = st.tuples(st.integers(2, 9), st.integers(1, 30), st.integers(1, 9), st.integers(0, 10**6))


@given(problems, st.sampled_from([0.0, 0.05, 0.5]))
@settings(max_examples=40, deadline=None)
def test_parts_add_up_and_are_symmetric(problem, threshold) -> None:
    d, n_words, rank, seed = problem
    model = random_model(d, n_words, rank, seed)
    x1, x2 = np.random.default_rng(seed + 1).normal(size=(2, d)) * [[1.0], [3.0]]
    result = explain_similarity(model, x1, x2, threshold=threshold)
    cosine = x1 @ x2 / np.linalg.norm(x1) / np.linalg.norm(x2)
    size = 1 + np.abs(result.parts).sum() + abs(result.common) + abs(result.residual)
    assert abs(result.cosine - cosine) < 1e-12
    assert abs(total(result) - cosine) < 1e-12 * size
    assert abs(result.parts.sum() - result.contribution.sum()) < 1e-12 * size
    assert (result.strength1 >= 0).all()
    assert (result.strength2 >= 0).all()
    assert (result.strength1 + result.strength2 > 0).all()
    assert (np.diff(np.abs(result.contribution)) <= 0).all()
    other = explain_similarity(model, x2, x1, threshold=threshold)
    order, back = np.argsort(result.words), np.argsort(other.words)
    np.testing.assert_array_equal(result.words[order], other.words[back])
    np.testing.assert_array_equal(result.strength1[order], other.strength2[back])
    np.testing.assert_allclose(result.contribution[order], other.contribution[back], atol=1e-12 * size)
    assert abs(result.residual - other.residual) < 1e-12 * size
    np.testing.assert_allclose(
        result.parts[np.ix_(order, order)], other.parts[np.ix_(back, back)].T, atol=1e-12 * size
    )


@given(problems)
@settings(max_examples=25, deadline=None)
def test_threshold_zero_is_a_projection_on_the_cone_of_patterns(problem) -> None:
    """Compare with non-negative least squares over all words by another solver."""
    d, n_words, rank, seed = problem
    model = random_model(d, n_words, rank, seed)
    x = np.random.default_rng(seed + 1).normal(size=(2, d))
    result = explain_similarity(model, *x, threshold=0.0)
    patterns = model.word_embeddings_ @ np.linalg.pinv(model.projection_).T
    c = x - model.embedding_mean_
    weights = np.stack([nnls(patterns.T, row)[0] for row in c])
    assume(weights.max() < 1e8)  # nearly dependent patterns: the other solver has no solution in float64
    v = weights @ patterns
    scale = np.linalg.norm(x[0]) * np.linalg.norm(x[1])
    tolerance = 1e-4 * (1 + np.abs(c).max() ** 2 / scale)
    assert abs(result.contribution.sum() - v[0] @ v[1] / scale) < tolerance
    assert abs(result.residual - (c[0] @ c[1] - v[0] @ v[1]) / scale) < tolerance


def test_orthogonal_words_by_hand() -> None:
    model = orthogonal()
    x1, x2 = np.array([3.0, 0, 4, 0, 0]), np.array([4.0, 3, 0, 0, 0])
    result = explain_similarity(model, x1, x2)
    assert result.words[0] == "dog"
    assert sorted(result.words) == ["cat", "dog", "red"]
    np.testing.assert_allclose(result.contribution, [12 / 25, 0, 0], atol=1e-12)
    strengths = np.c_[result.strength1, result.strength2][np.argsort(result.words)]
    # Of cat, dog and red; patterns are halves of axes.
    np.testing.assert_allclose(strengths, [[0, 6], [6, 8], [8, 0]], atol=1e-12)
    assert (result.common, abs(result.residual) < 1e-12) == (0, True)
    [(first, second, value)] = result.pairs()
    assert (first, second) == ("dog", "dog")
    np.testing.assert_allclose([value, result.cosine], 12 / 25)
    # Two words with similar patterns: each gets half of the contribution of the pair.
    model.word_embeddings_[1] = [0.6, 0.8, 0, 0, 0]
    model.word_embeddings_[:, 2:] = 0
    result = explain_similarity(model, [1.0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0])
    assert result.pairs()[0][:2] == ("dog", "cat")
    np.testing.assert_allclose(result.contribution, [0.3, 0.3])


def test_mean_and_residual_by_hand() -> None:
    """Parts outside of all words are residual, the mean is common, opposite parts are negative."""
    model = orthogonal()
    model.embedding_mean_ = np.array([0.0, 0, 0, 0, 2])
    model.word_embeddings_[3:] = 0
    x1, x2 = np.array([1.0, 0, 0, 1, 2]), np.array([1.0, 0, 0, -1, 2])
    result = explain_similarity(model, x1, x2)
    np.testing.assert_allclose([result.common, result.residual, *result.contribution], [4 / 6, -1 / 6, 1 / 6])
    # The mean has no words, and neither has an embedding opposite to every word.
    for x in (model.embedding_mean_, model.embedding_mean_ - [1, 1, 1, 0, 0]):
        nothing = explain_similarity(model, x, x)
        assert len(nothing.words) == 0
        assert nothing.pairs() == []
        np.testing.assert_allclose([nothing.cosine, total(nothing)], 1)
    model.word_embeddings_[1] = [-1, 1, 0, 0, 0]
    apart = explain_similarity(model, x1, np.array([-1.0, 1, 0, 0, 2]))
    np.testing.assert_allclose(apart.contribution, [-1 / 12, -1 / 12])
    assert "0.67 common - 0.08 dog - 0.08 cat" in repr(apart)


def test_embedding_with_itself() -> None:
    model = random_model(6, 20, 6, seed=0)
    x = np.random.default_rng(5).normal(size=6)
    result = explain_similarity(model, x, x)
    assert abs(result.cosine - 1) < 1e-12
    np.testing.assert_array_equal(result.strength1, result.strength2)
    np.testing.assert_allclose(result.parts, result.parts.T, atol=1e-12)


def test_invariance_to_rotation() -> None:
    """A rotation of the embeddings, and a change of basis of the latents."""
    model, rng = random_model(6, 15, 4, seed=1), np.random.default_rng(2)
    x = rng.normal(size=(2, 6))
    before = explain_similarity(model, *x)
    turn, basis = np.linalg.qr(rng.normal(size=(6, 6)))[0], np.linalg.qr(rng.normal(size=(4, 4)))[0]
    model.projection_ = basis @ model.projection_ @ turn.T
    model.word_embeddings_ = model.word_embeddings_ @ basis.T
    model.embedding_mean_ = turn @ model.embedding_mean_
    after = explain_similarity(model, *(x @ turn.T))
    np.testing.assert_array_equal(before.words, after.words)
    np.testing.assert_allclose(before.contribution, after.contribution, atol=1e-9)
    np.testing.assert_allclose(before.residual, after.residual, atol=1e-9)


def test_length_does_not_matter_if_the_mean_is_zero() -> None:
    model = random_model(6, 15, 4, seed=1)
    model.embedding_mean_ = np.zeros(6)
    x1, x2 = np.random.default_rng(2).normal(size=(2, 6))
    one, other = explain_similarity(model, x1, x2), explain_similarity(model, 5 * x1, x2 / 3)
    np.testing.assert_array_equal(one.words, other.words)
    np.testing.assert_allclose(one.contribution, other.contribution, atol=1e-9)


@pytest.fixture(scope="module")
def trained():
    """A model of thirty words with unequally scaled patterns that are not orthogonal, and an offset."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(30, 16)) * np.geomspace(3, 0.5, 16)
    Y = rng.poisson(0.1, size=(1500, 30))
    X = Y @ basis + 2 + 0.1 * rng.normal(size=(1500, 16))
    flip = FLiPExtractor(rank=16, max_iter=60, random_state=0).fit(X, Y)
    return flip, basis


def test_shared_words_contribute_most(trained) -> None:
    flip, basis = trained
    rng = np.random.default_rng(1)
    found, pairs_found, chance = [], [], []
    for _ in range(40):
        shared, first, second, absent = rng.choice(30, 4, replace=False)
        x1, x2 = basis[shared] + basis[first] + 2, basis[shared] + basis[second] + 2
        result = explain_similarity(flip, x1, x2)
        found.append(result.words[0] == f"word{shared}")
        chance.append(result.words[0] == f"word{absent}")
        pairs_found.append(result.pairs(1)[0][:2] == (f"word{shared}",) * 2)
    assert np.mean(found) > 0.75
    assert np.mean(pairs_found) > 0.7
    assert np.mean(chance) < 0.1  # negative control


def test_higher_threshold_selects_fewer_words(trained) -> None:
    flip, basis = trained
    x1, x2 = basis[[0, 1, 2, 3]].sum(axis=0) + 2, basis[[0, 4, 5, 6]].sum(axis=0) + 2
    sizes = [len(explain_similarity(flip, x1, x2, threshold=t).words) for t in (0, 0.1, 0.3, 0.9)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] == 2


def test_input_types(trained) -> None:
    flip, basis = trained
    x1, x2 = basis[0] + basis[1], basis[1] + basis[2]
    expected = explain_similarity(flip, x1, x2)
    for convert in (lambda x: x[None], torch.from_numpy, list, lambda x: pd.DataFrame(x[None]), pd.Series):
        result = explain_similarity(flip, convert(x1), convert(x2))
        np.testing.assert_array_equal(result.words, expected.words)
        np.testing.assert_array_equal(result.contribution, expected.contribution)
    half = explain_similarity(flip, x1.astype(np.float16), x2.astype(np.float32))
    assert abs(total(half) - half.cosine) < 1e-12
    assert abs(half.cosine - expected.cosine) < 1e-3
    sparse = FLiPExtractor(rank=16, max_iter=2, random_state=0).fit(basis, np.eye(30, dtype=int))
    dense = explain_similarity(sparse, x1, x2)
    sparse.to_sparse()
    np.testing.assert_allclose(explain_similarity(sparse, x1, x2).cosine, dense.cosine)
    lip = FLiPExtractor(rank=None, max_iter=2, random_state=0).fit(basis, np.eye(30, dtype=int))
    assert abs(total(explain_similarity(lip, x1, x2)) - expected.cosine) < 1e-12


def test_redundant_latents() -> None:
    model = random_model(4, 8, 6, seed=0)  # more latents than dimensions, two of them alike
    model.projection_[5] = model.projection_[4]
    x1, x2 = np.random.default_rng(3).normal(size=(2, 4))
    result = explain_similarity(model, x1, x2)
    assert abs(total(result) - result.cosine) < 1e-12
    assert np.abs(result.contribution).max() < 10


def test_to_frame_pairs_and_repr(trained) -> None:
    flip, basis = trained
    result = explain_similarity(flip, basis[:3].sum(axis=0) + 2, basis[1:4].sum(axis=0) + 2)
    table = result.to_frame()
    assert list(table.columns) == ["kind", "word", "contribution", "strength1", "strength2"]
    np.testing.assert_allclose(table.contribution.sum(), result.cosine)
    assert table.kind.tolist()[-2:] == ["common", "residual"]
    assert table.word.tolist()[0] == result.words[0]
    values = [value for *_, value in result.pairs(10**6)]
    np.testing.assert_allclose(sum(values), result.contribution.sum())
    assert (np.diff(np.abs(values)) <= 0).all()
    text = repr(result)
    assert text.startswith(f"SimilarityExplanation(cosine {result.cosine:.2f} = ")
    assert text.endswith(" residual)")
    assert str(result.words[0]) in text
    with pytest.raises(ValueError, match="top_k=0 is not allowed"):
        result.pairs(0)


def test_invalid_input_is_rejected(trained) -> None:
    flip, basis = trained
    x = basis[0]
    with pytest.raises(ValueError, match="x2 has 3 rows; pass one embedding"):
        explain_similarity(flip, x, basis[:3])
    with pytest.raises(ValueError, match="x1 is zero, so it has no cosine"):
        explain_similarity(flip, 0 * x, x)
    with pytest.raises(ValueError, match="features"):
        explain_similarity(flip, x[:5], x)
    with pytest.raises(ValueError, match=r"NaN|finite"):
        explain_similarity(flip, x, x * np.nan)
    for threshold in (1, -0.1, np.nan, "much"):
        with pytest.raises(ValueError, match=r"threshold=.* is not allowed"):
            explain_similarity(flip, x, x, threshold=threshold)
    with pytest.raises(ValueError, match="model is a Pipeline; pass a fitted FLiPExtractor"):
        explain_similarity(make_pipeline(flip), x, x)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e-20, 1e-10, 1e10, 1e18])
def test_the_scale_of_all_embeddings_does_not_matter(scale: float) -> None:
    X, Y = planted_embeddings()
    results = []
    for Z in (X, X * scale):
        model = FLiPExtractor(rank=6, max_iter=20, random_state=0, device="cpu").fit(Z.astype(np.float32), Y)
        results.append(explain_similarity(model, Z[0], Z[3]))
    expected, result = results
    assert result.words.tolist() == expected.words.tolist()
    assert len(result.words) > 1
    assert total(result) == pytest.approx(result.cosine, abs=1e-9)
    np.testing.assert_allclose(result.contribution, expected.contribution, rtol=1e-4)


@pytest.mark.parametrize("scales", [(1e-20, 1e-20), (1.0, 1e-20), (1e-30, 1.0), (1e-8, 1e-8)])
def test_embeddings_too_short_for_terms_that_add_up_are_refused(scales: tuple[float, float]) -> None:
    X, Y = planted_embeddings()
    model = FLiPExtractor(rank=6, max_iter=5, random_state=0, device="cpu").fit(X, Y)
    with pytest.raises(ValueError, match=r"length .*e-.*same normalization as in training"):
        explain_similarity(model, X[0] * scales[0], X[3] * scales[1])
    for scale in (1e-3, 1.0, 1e20):  # negative control
        result = explain_similarity(model, X[0] * scale, X[3] * scale)
        assert total(result) == pytest.approx(result.cosine, abs=1e-6)

"""Edits in words: exact small cases, optimality, agreement with erasure, planted edits, invalid input."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import EditedWords, edit_words, erase_words
from flip_sklearn.diagnostics.minimal_change import MinimalChange, whitened_root

WORDS = ["dog", "dogs", "cat", "red", "green", "blue", "man", "woman", "snow", "beach", "run", "sit"]
DIM = 16
CODES = np.random.default_rng(7).normal(size=(len(WORDS), DIM))


def make_rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings that are linear in which words occur, with noise, and counts."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.3, (n, len(WORDS)))
    counts[counts.sum(axis=1) == 0, 0] = 1
    return (counts > 0) @ CODES + 0.3 * rng.normal(size=(n, DIM)) + 1.0, counts


@pytest.fixture(scope="module")
def flip() -> FLiPExtractor:
    return FLiPExtractor(vocabulary=WORDS, max_iter=12, random_state=0).fit(*make_rows(1500, 0))


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return make_rows(60, 1)[0]


@pytest.fixture(scope="module")
def edited(flip: FLiPExtractor, X: np.ndarray) -> EditedWords:
    return edit_words(flip, X, add=["woman", "blue"], remove=["man", "snow"], probability=0.9)


def directions(flip: FLiPExtractor, words: Any) -> np.ndarray:
    A = np.asarray(flip.word_embeddings_, dtype=float)[[WORDS.index(word) for word in words]]
    return A @ flip.projection_.astype(float)


def presence(flip: FLiPExtractor, X: Any) -> np.ndarray:
    return flip.predict_presence(X, top_k=len(WORDS)).toarray()


def naive_inverse_metric(flip: FLiPExtractor) -> np.ndarray:
    S = flip.embedding_covariance_ + 1e-4 * np.trace(flip.embedding_covariance_) / DIM * np.eye(DIM)
    theta, G = softmax(flip.bias_.astype(float)), directions(flip, WORDS)
    F = (G.T * theta) @ G - np.outer(theta @ G, theta @ G)
    return np.linalg.inv(np.linalg.inv(S) + DIM / np.trace(S @ F) * F)


def test_words_reach_the_probability_and_the_lift(flip, X, edited) -> None:
    p = presence(flip, edited.X)
    np.testing.assert_allclose(p[:, [7, 5, 6, 8]], edited.presence_after, atol=1e-5)
    np.testing.assert_allclose(presence(flip, X)[:, [7, 5, 6, 8]], edited.presence_before, atol=1e-5)
    assert edited.presence_after[:, :2].min() > 0.9 - 1e-6
    assert edited.score_after[:, 2:].max() < 1e-9
    # Negative control: most rows did not have the words.
    assert (edited.presence_before[:, :2] < 0.9).mean() > 0.5
    assert (edited.score_before[:, 2:] > 0.1).any()
    # Words that had to be raised have the probability, not more.
    alone = edit_words(flip, X, add="cat", probability=0.8)
    raised = alone.distance > 0
    np.testing.assert_allclose(alone.presence_after[raised, 0], 0.8, atol=1e-3)


def test_rows_that_need_no_change_are_the_same_bits(flip, X) -> None:
    for rows in (X, X.astype(np.float32)):
        result = edit_words(flip, rows, add="dog", probability=0.5)
        has_word = result.presence_before[:, 0] >= 0.5
        assert 5 < has_word.sum() < len(X) - 5
        np.testing.assert_array_equal(result.X[has_word], rows[has_word])
        assert (result.distance[has_word] == 0).all()
        assert (result.whitened_distance[has_word] == 0).all()
        assert (result.distance[~has_word] > 0).all()
        again = edit_words(flip, result.X.astype(float), add="dog", probability=0.5)
        assert again.distance.max() < 1e-3 * result.distance.max()


def test_removal_alone_is_erase_words(flip, X) -> None:
    for words in ("dog", ["dog"], ["dog", "dogs", "sit"]):
        result, erased = edit_words(flip, X, remove=words), erase_words(flip, X, words)
        np.testing.assert_array_equal(result.X, erased.X)
        np.testing.assert_array_equal(result.distance, erased.distance)
        np.testing.assert_allclose(result.score_after, erased.score_after, atol=1e-10)
    whitened = edit_words(flip, X, remove="dog", metric="whitened")
    assert np.abs(whitened.score_after[whitened.distance > 0]).max() < 1e-9
    moved = whitened.distance > 0
    np.testing.assert_array_equal(moved, edit_words(flip, X, remove="dog").distance > 0)
    assert (whitened.distance >= erase_words(flip, X, "dog").distance - 1e-9).all()


def test_the_change_is_optimal(flip, X, edited) -> None:
    """y - x = M C^T w with w >= 0, and w_k = 0 where a word is beyond its threshold."""
    M, mean = naive_inverse_metric(flip), flip.embedding_mean_.astype(float)
    root = whitened_root(flip, flip)
    np.testing.assert_allclose(root @ root.T, M, rtol=1e-6, atol=1e-8 * np.abs(M).max())
    C = directions(flip, ["woman", "blue", "man", "snow"]) * np.array([[1], [1], [-1], [-1]])
    weights = np.linalg.lstsq((C @ M).T, (edited.X - X).T, rcond=None)[0]
    np.testing.assert_allclose((C @ M).T @ weights, (edited.X - X).T, atol=1e-8)
    assert weights.min() > -1e-9
    slack_added = edited.presence_after[:, :2] - 0.9 > 1e-3
    assert np.abs(weights[:2].T[slack_added]).max(initial=0) < 1e-9
    slack_removed = edited.score_after[:, 2:] < -1e-7
    assert np.abs(weights[2:].T[slack_removed]).max(initial=0) < 1e-9
    assert slack_removed.any()
    # The scores are lifts.
    np.testing.assert_allclose((edited.X - mean) @ C[2:].T, -edited.score_after[:, 2:], atol=1e-9)


def test_the_metric_is_kept_until_the_model_changes(flip, X) -> None:
    model = pickle.loads(pickle.dumps(flip))
    root = whitened_root(model, model)
    assert whitened_root(model, model) is root
    model.word_embeddings_[4] *= 2
    changed = whitened_root(model, model)
    assert np.abs(changed - root).max() > 1e-6
    np.testing.assert_allclose(changed @ changed.T, naive_inverse_metric(model), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("is_euclidean", [True, False])
def test_solver_against_a_general_one(is_euclidean: bool) -> None:
    rng = np.random.default_rng(3)
    C, W = rng.normal(size=(4, 6)), rng.normal(size=(6, 6)) + 3 * np.eye(6)
    W = np.eye(6) if is_euclidean else W
    H = np.linalg.inv(W @ W.T)
    missing = rng.normal(size=(12, 4))
    missing[1, 2] = missing[3, 0] = -np.inf
    missing[5] = [-1, 0, -2, -np.inf]
    solver = MinimalChange(C, None if is_euclidean else W)
    for row, change in zip(missing, solver.solve(missing), strict=True):
        bounds = {"type": "ineq", "fun": lambda y, row=row: C @ y - np.where(np.isfinite(row), row, -1e3)}
        best = minimize(lambda y: y @ H @ y, np.zeros(6), jac=lambda y: 2 * H @ y, constraints=[bounds],
                        method="SLSQP", options={"ftol": 1e-12, "maxiter": 500})  # fmt: skip
        np.testing.assert_allclose(change, best.x, atol=1e-5)
    assert not solver.solve(missing[5:6]).any()
    # Twins have one solution, and opposite directions have none.
    twins = MinimalChange(np.vstack([C, C[:1]]), W)
    np.testing.assert_allclose(
        twins.solve(np.hstack([missing, missing[:, :1]])), MinimalChange(C, W).solve(missing), atol=1e-6
    )
    required = np.array([True, False, False, False, False])
    assert twins.is_feasible(required)
    assert not MinimalChange(np.vstack([C, -C[:1]]), W).is_feasible(required)
    assert MinimalChange(np.vstack([C, -C[1:2]]), W).is_feasible(required)


def test_planted_edits_find_the_edited_sentence() -> None:
    """A sentence with "cat" for "dog" is nearer to the edit than the sentence itself and all others."""
    X, Y = make_rows(1500, 0)
    flip = FLiPExtractor(vocabulary=WORDS, max_iter=12, random_state=0).fit(X, Y)
    rng = np.random.default_rng(5)
    others = (rng.random((120, len(WORDS))) < 0.25).astype(float)
    others[:, [0, 2]] = [1, 0]
    source, target = others @ CODES + 1, (others - np.eye(12)[0] + np.eye(12)[2]) @ CODES + 1
    stored = np.vstack([target, source])
    hits = {}
    for metric in ("whitened", "euclidean"):
        found = edit_words(flip, source, add="cat", remove="dog", probability=0.9, metric=metric).X
        nearest = np.argmin(((found[:, None] - stored) ** 2).sum(axis=2), axis=1)
        hits[metric] = (stored[nearest] == target).all(axis=1).mean()
    assert hits["whitened"] > 0.95
    assert hits["euclidean"] < hits["whitened"]


def test_other_words_that_moved(flip, X, edited) -> None:
    change = np.abs(presence(flip, edited.X) - presence(flip, X))
    change[:, [5, 6, 7, 8]] = 0
    assert edited.moved_words.shape == (len(X), len(WORDS) - 4)
    columns = np.array([[WORDS.index(word) for word in row] for row in edited.moved_words])
    np.testing.assert_allclose(
        np.abs(edited.moved_after - edited.moved_before), np.sort(change, axis=1)[:, :3:-1], atol=2e-5
    )
    np.testing.assert_allclose(
        np.take_along_axis(presence(flip, X), columns, axis=1), edited.moved_before, atol=1e-5
    )
    words = dict(edited.mean_change(3))
    assert len(words) == 3
    expected = (presence(flip, edited.X) - presence(flip, X)).mean(axis=0)
    for word, value in words.items():
        assert value == pytest.approx(expected[WORDS.index(word)], abs=1e-5)


def test_rows_and_the_order_of_words_do_not_matter(flip, X, edited) -> None:
    parts = [edit_words(flip, x[None], ["woman", "blue"], ["man", "snow"], probability=0.9).X for x in X[:8]]
    np.testing.assert_allclose(np.vstack(parts), edited.X[:8], atol=1e-3)
    other = edit_words(flip, X, ("blue", "woman", "blue"), np.array(["snow", "man"]), probability=0.9)
    assert (other.added, other.removed) == (("blue", "woman"), ("snow", "man"))
    np.testing.assert_allclose(other.X, edited.X, atol=1e-3)


def test_blocks_do_not_change_the_result(flip, X, edited, monkeypatch) -> None:
    monkeypatch.setattr("flip_sklearn.diagnostics.editing._BLOCK_ELEMENTS", 7 * DIM)
    parts = edit_words(flip, X, ["woman", "blue"], ["man", "snow"], probability=0.9)
    for name in ("X", "score_after", "presence_after", "distance", "whitened_distance", "cosine"):
        np.testing.assert_allclose(getattr(parts, name), getattr(edited, name), rtol=1e-3, atol=1e-3)


def test_a_rotation_of_the_space_rotates_the_edit(X, edited, flip) -> None:
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(DIM, DIM)))[0]
    turned = pickle.loads(pickle.dumps(flip))
    turned.projection_ = flip.projection_ @ rotation
    turned.embedding_mean_ = flip.embedding_mean_ @ rotation
    turned._covariance, turned._moments = None, None
    turned._covariance = (rotation.T @ flip.embedding_covariance_ @ rotation)[np.tril_indices(DIM)]
    result = edit_words(turned, X @ rotation, ["woman", "blue"], ["man", "snow"], probability=0.9)
    np.testing.assert_allclose(result.X, edited.X @ rotation, atol=2e-3)
    np.testing.assert_allclose(result.whitened_distance, edited.whitened_distance, rtol=1e-3, atol=1e-3)


def test_input_types_and_stored_models(flip, X, edited, tmp_path) -> None:
    arguments: dict[str, Any] = {"add": ["woman", "blue"], "remove": ["man", "snow"], "probability": 0.9}
    for rows in (pd.DataFrame(X), torch.from_numpy(X), X.tolist(), np.asfortranarray(X)):
        np.testing.assert_allclose(edit_words(flip, rows, **arguments).X, edited.X, atol=1e-3)
    for dtype, error in ((np.float32, 2e-3), (np.float16, 3e-2)):
        result = edit_words(flip, X.astype(dtype), **arguments)
        assert result.X.dtype == np.float32
        np.testing.assert_allclose(result.X, edited.X, atol=error)
        assert result.presence_after[:, :2].min() > 0.9 - 1e-4
    sparse = pickle.loads(pickle.dumps(flip)).to_sparse()
    flip.save_pretrained(tmp_path / "model")
    for model in (sparse, FLiPExtractor.from_pretrained(tmp_path / "model")):
        np.testing.assert_allclose(edit_words(model, X, **arguments).X, edited.X, atol=1e-2)
    zeros = edit_words(flip, np.zeros((2, DIM)), add="cat")
    assert np.isnan(zeros.cosine).all()
    assert np.isfinite(zeros.X).all()
    lip = FLiPExtractor(rank=None, vocabulary=WORDS, max_iter=5, random_state=0).fit(*make_rows(1100, 2))
    assert edit_words(lip, X, add="cat", probability=0.8).presence_after.min() > 0.8 - 1e-6


def test_to_frame_and_repr(edited) -> None:
    table = edited.to_frame()
    assert list(table.columns) == [
        "row", "word", "edit", "presence_before", "presence_after", "score_before", "score_after",
        "distance", "whitened_distance", "cosine",
    ]  # fmt: skip
    of_row = table[table.row == 3]
    assert list(of_row.edit) == ["add", "add", "remove", "remove"] + ["none"] * 8
    assert list(of_row.word[:4]) == ["woman", "blue", "man", "snow"]
    np.testing.assert_array_equal(of_row.presence_after[:4], edited.presence_after[3])
    np.testing.assert_array_equal(of_row.presence_after[4:], edited.moved_after[3])
    assert (of_row.distance == edited.distance[3]).all()
    assert len(table) == 60 * 12
    moved = int((edited.distance > 0).sum())
    assert repr(edited).startswith(f"EditedWords({moved} of 60 embeddings moved; +woman 0.")
    assert "; -man 0." in repr(edited)
    assert "; others: " in repr(edited)


def test_words_of_which_a_text_has_no_room(flip, X) -> None:
    with pytest.warns(UserWarning, match=r"rows do not reach probability=0.999999: '\w+' has 0\."):
        result = edit_words(flip, X[:5], add=WORDS[:6], probability=0.999999)
    assert np.isfinite(result.X).all()
    # The smallest shortfall that was found, not what further rounds made of it.
    assert result.presence_after.min() > 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit_words(flip, X[:5], add=WORDS[:2], probability=0.6)


def test_models_without_presence_or_covariance(flip, X) -> None:
    bare = pickle.loads(pickle.dumps(flip))
    for name in ("presence_length_", "presence_intercept_"):
        delattr(bare, name)
    with pytest.raises(ValueError, match="no presence_ attributes"):
        edit_words(bare, X, add="cat")
    removed = edit_words(bare, X, remove="dog", metric="whitened")
    assert np.isnan(removed.presence_after).all()
    assert removed.moved_words.shape == (len(X), 0)
    assert len(removed.to_frame()) == len(X)
    assert "others" not in repr(removed)
    del bare._moments
    np.testing.assert_array_equal(edit_words(bare, X, remove="dog").X, erase_words(flip, X, "dog").X)
    assert np.isnan(edit_words(bare, X, remove="dog").whitened_distance).all()
    with pytest.raises(ValueError, match=r"no embedding_covariance_.*or use metric='euclidean'"):
        edit_words(bare, X, remove="dog", metric="whitened")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "add and remove are empty; pass at least one word"),
        ({"add": [], "remove": ()}, "add and remove are empty"),
        ({"add": "Dog"}, "add has 'Dog', which the model does not know; similar words: 'dog', 'dogs'"),
        ({"remove": ["zzzz"]}, "remove has 'zzzz', which the model does not know; no word is similar"),
        ({"add": 3}, "add=3 is not allowed"),
        ({"add": None, "remove": "dog"}, "add=None is not allowed"),
        ({"add": ["dog", 7]}, "add has 7, which is not a str"),
        ({"add": ["dog", "cat"], "remove": "cat"}, "'cat' is both in add and in remove"),
        ({"add": "dog", "probability": 1}, "probability=1 is not allowed"),
        ({"add": "dog", "probability": 0.0}, "probability=0.0 is not allowed"),
        ({"add": "dog", "metric": "cosine"}, "metric='cosine' is not allowed"),
    ],
)
def test_invalid_arguments(flip, X, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        edit_words(flip, X, **arguments)


def test_invalid_models_and_embeddings(flip, X) -> None:
    with pytest.raises(ValueError, match="model is a Pipeline; pass a fitted FLiPExtractor"):
        edit_words(make_pipeline(flip), X, add="dog")
    with pytest.raises(NotFittedError):
        edit_words(FLiPExtractor(), X, add="dog")
    with pytest.raises(ValueError, match="features"):
        edit_words(flip, X[:, :3], add="dog")
    with pytest.raises(ValueError, match="NaN"):
        edit_words(flip, np.where(np.arange(DIM) == 2, np.nan, X), add="dog")
    same = pickle.loads(pickle.dumps(flip))
    same.word_embeddings_[1] = 2 * same.word_embeddings_[0]
    same.word_embeddings_[2] = 0
    with pytest.raises(ValueError, match="no embedding has 'dog' without 'dogs'"):
        edit_words(same, X, add="dog", remove="dogs")
    with pytest.raises(ValueError, match="add has 'cat', of which the model has learned nothing"):
        edit_words(same, X, add="cat")
    assert not edit_words(same, X, remove="cat").distance.any()
    assert edit_words(same, X, add="man", remove="cat", probability=0.5).score_after[:, 1].max() == 0


def test_presence_of_the_result_is_that_of_the_formula(flip, X, edited) -> None:
    """Exact small case in float64."""
    h = (edited.X - flip.embedding_mean_) @ flip.projection_.T.astype(float)
    z = flip.bias_.astype(float) + h @ flip.word_embeddings_.T.astype(float)
    log_theta = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    log_length = flip.presence_length_[0] + h @ flip.presence_length_[1:]
    entropy = -(np.exp(log_theta) * log_theta).sum(axis=1)
    row = np.column_stack([log_length, entropy]) @ flip.presence_row_coef_.T
    slope = np.maximum(flip.presence_slope_[7] + row[:, 1], 0.1)
    log_odds = flip.presence_intercept_[7] + slope * (log_theta[:, 7] + log_length) + row[:, 0]
    np.testing.assert_allclose(edited.presence_after[:, 0], expit(log_odds), atol=1e-5)

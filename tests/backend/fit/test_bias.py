"""The refitted bias, J in the history, and the ranking offset."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import log_softmax, softmax

from flip_sklearn import FLiPExtractor, KeywordMapper
from flip_sklearn.backend.fit import bias, row_softmax, session
from flip_sklearn.estimation.inputs import resolve_l2
from tests.helpers.ranking import sorted_top

D = 8


def rows(n: int, n_words: int, seed: int = 0) -> tuple[np.ndarray, sp.csr_array]:
    """Embeddings that are noisy linear functions of Zipf counts."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, n_words + 1)
    words = rng.normal(size=(n_words, D))
    Y = rng.multinomial(6, frequency / frequency.sum(), size=n)
    return Y @ words + rng.normal(size=(n, D)), sp.csr_array(Y)


def fit(X: Any, Y: Any, sample_weight: Any = None, **settings: Any) -> FLiPExtractor:
    words = [f"w{i}" for i in range(Y.shape[1])]
    settings = {"random_state": 0, "max_iter": 4, "vocabulary": words, **settings}
    return FLiPExtractor(**settings).fit(X, Y, sample_weight)


def predicted_over_observed(model: FLiPExtractor, X: Any, Y: Any, w: Any = None) -> np.ndarray:
    w = np.ones(len(X)) if w is None else w
    theta = model.predict_proba(np.asarray(X, np.float64))
    return (w * np.asarray(Y.sum(axis=1)) @ theta) / np.maximum(w @ Y, 1e-9)


def objective(model: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, w: np.ndarray) -> float:
    """J in float64, from the fitted attributes alone."""
    A, B = model.word_embeddings_.astype(float), model.projection_.astype(float)
    log_theta = log_softmax((X - model.embedding_mean_) @ B.T @ A.T + model.bias_, axis=1)
    counts = Y.toarray() * w[:, None]
    penalty = model.l1_strength / len(A) * np.abs(A).sum()
    penalty += resolve_l2(model) / 2 / counts.sum() * (A**2).sum()
    return float(-(counts * log_theta).sum() / counts.sum() + penalty)


@pytest.fixture(scope="module")
def sampled() -> tuple[FLiPExtractor, np.ndarray, sp.csr_array]:
    """A fit with sampled classes, held-out rows and a ranking offset."""
    X, Y = rows(1500, 900)
    model = fit(X, Y, solver="sampled", batch_size=32, l2_strength=5.0)
    assert model.solver_ == "sampled"
    assert model._held_out is not None
    return model, X, Y


@pytest.mark.filterwarnings("ignore:the fit still made progress")
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_words_are_predicted_as_often_as_they_occur(rank: int | None, weighted: bool) -> None:
    X, Y = rows(300, 25)
    w = np.random.default_rng(1).uniform(0.01, 3, size=len(X)) if weighted else None
    model = fit(X, Y, w, rank=rank, solver="exact", max_iter=2)
    seen = np.asarray(Y.sum(axis=0)) > 0
    np.testing.assert_allclose(predicted_over_observed(model, X, Y, w)[seen], 1, atol=6e-3)
    shifted = pickle.loads(pickle.dumps(model))  # negative control
    shifted.bias_[:5] += 0.1
    assert np.abs(predicted_over_observed(shifted, X, Y, w)[seen] - 1).max() > 0.05


def test_words_of_sampled_fits_are_predicted_as_often_as_they_occur(sampled: Any) -> None:
    model, X, Y = sampled
    ratio, counts = predicted_over_observed(model, X, Y), np.asarray(Y.sum(axis=0))
    assert np.abs(ratio[counts >= 10] - 1).max() < 0.02
    rare = (counts > 0) & (counts < 10)
    assert (ratio * counts)[rare].sum() / counts[rare].sum() == pytest.approx(1, abs=0.03)


@pytest.mark.filterwarnings("ignore:the fit still made progress")
def test_entries_of_a_part_of_the_rows_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = rows(1500, 100)
    monkeypatch.setattr(session, "SMALL_SCORES", 0)
    monkeypatch.setattr(bias, "MAX_ENTRIES", 2**12)
    monkeypatch.setattr(row_softmax, "MAX_BLOCK_ROWS", 64)
    model = fit(X, Y, solver="exact", max_iter=2)
    frequent = np.asarray(Y.sum(axis=0)) >= 10
    np.testing.assert_allclose(predicted_over_observed(model, X, Y)[frequent], 1, atol=0.02)


@pytest.mark.filterwarnings("ignore:the fit still made progress")
def test_loss_of_every_pass_is_J_of_the_model_that_it_returns() -> None:
    X, Y = rows(250, 20)
    w = np.random.default_rng(1).uniform(0.5, 2, size=len(X))
    losses = [objective(fit(X, Y, w, max_iter=n, early_stopping=False), X, Y, w) for n in (1, 2, 3)]
    model = fit(X, Y, w, max_iter=3, early_stopping=False)
    np.testing.assert_allclose(model.history_["loss"], losses, atol=1e-5)
    assert model.best_iter_ == np.argmin(model.history_["loss"]) + 1
    assert np.abs(np.array(model.history_["training_loss"]) - losses).min() > 1e-3


def test_loss_of_a_sampled_fit_is_close_to_J(sampled: Any) -> None:
    model, X, Y = sampled
    trained = np.setdiff1d(np.arange(len(X)), model._held_out)
    expected = objective(model, X[trained], Y[trained], np.ones(len(trained)))
    assert model.history_["loss"][model.best_iter_ - 1] == pytest.approx(expected, abs=1e-2)


def test_offset_ranks_and_leaves_probabilities_alone(sampled: Any, tmp_path: Path) -> None:
    model, X, Y = sampled
    model = pickle.loads(pickle.dumps(model))
    n_words = Y.shape[1]
    model.ranking_offset_ = np.random.default_rng(0).normal(size=n_words).astype(np.float32)
    seen = model.word_counts_ > 0
    X = X[:50]
    plain = pickle.loads(pickle.dumps(model))
    del plain.ranking_offset_  # as in a pickle of an earlier version
    z = plain.decision_function(X)
    theta = softmax(np.where(seen, z, -np.inf), axis=1)
    ranked = model.decision_function(X)
    np.testing.assert_allclose(ranked[:, seen], (z + model.ranking_offset_)[:, seen], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X), theta, atol=1e-6)
    top = sorted_top(np.where(seen, ranked, -np.inf), 7)
    model.set_params(top_k=7)
    for variant in (model, pickle.loads(pickle.dumps(model)).to_sparse()):
        words = [row[:7] for row in variant.extract_keywords(X)]
        assert words == model.vocabulary_[top].tolist()
        transformed = variant.transform(X).toarray()
        assert (np.count_nonzero(transformed, axis=1) == 7).all()
        chosen = np.take_along_axis(transformed, top, axis=1)
        np.testing.assert_allclose(chosen, np.take_along_axis(theta, top, axis=1), rtol=1e-4, atol=1e-6)
    assert KeywordMapper(model)(X).tolist() == words
    model.save_pretrained(tmp_path)
    stored = FLiPExtractor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(stored.ranking_offset_, model.ranking_offset_)
    np.testing.assert_array_equal(stored.decision_function(X), ranked)
    for estimator in (model, plain):
        estimator.set_params(use_bias=False)
    np.testing.assert_array_equal(model.decision_function(X), plain.decision_function(X))


def test_offset_gains_accuracy_on_rows_that_it_was_not_chosen_on(sampled: Any) -> None:
    model, _, _ = sampled
    X, Y = rows(1500 + 600, 900)
    X, Y = X[1500:], Y[1500:]
    without = pickle.loads(pickle.dumps(model))
    without.ranking_offset_ = np.zeros_like(model.ranking_offset_)
    assert model.score(X, Y) >= without.score(X, Y) - 0.005


@pytest.mark.filterwarnings("ignore:the fit still made progress")
def test_no_offset_without_enough_held_out_rows() -> None:
    X, Y = rows(250, 20)
    assert not fit(X, Y).ranking_offset_.any()  # no rows are held out
    assert not fit(X, Y, early_stopping=True, validation_fraction=0.1).ranking_offset_.any()


@pytest.mark.filterwarnings("ignore:the fit still made progress")
def test_a_stream_keeps_the_offset_and_the_bias_of_the_solver(sampled: Any) -> None:
    model, X, Y = sampled
    model = pickle.loads(pickle.dumps(model))
    offset = model.ranking_offset_
    model.history_.pop("training_loss")  # as in a pickle of an earlier version
    model.partial_fit(X[:200], Y[:200])
    np.testing.assert_array_equal(model.ranking_offset_, offset)
    assert {len(column) for column in model.history_.values()} == {model.n_iter_}
    assert not FLiPExtractor(2, vocabulary=model.vocabulary_).partial_fit(X, Y).ranking_offset_.any()

"""read_directions: planted directions, exact scores, invariances, the covariance of the fit, bad input."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone

from flip_sklearn import FLiPExtractor, SpLiCEExtractor
from flip_sklearn.estimation.directions import DirectionWords
from tests.helpers.paths import ROOT

N, D, V = 500, 12, 8
WORDS = [f"word {j}" for j in range(V)]
UNSEEN = "never seen"


@dataclass(frozen=True)
class Planted:
    """Embeddings that are linear in words, of very different lengths, and correlated noise."""

    X: np.ndarray
    Y: np.ndarray
    E: np.ndarray  # (V, d), what one occurrence of each word adds to an embedding
    W: np.ndarray  # (V, d), coefficients of the linear regression of each count on the embeddings
    flip: FLiPExtractor

    @classmethod
    def draw(cls, seed: int) -> Planted:
        rng = np.random.default_rng(seed)
        Y = rng.poisson(0.5, size=(N, V))
        E = (rng.normal(size=(V, D)) + rng.normal(size=D)) * np.geomspace(1, 0.3, V)[:, None]
        noise = 0.3 * rng.normal(size=(N, 4)) @ rng.normal(size=(4, D)) + 0.02 * rng.normal(size=(N, D))
        X = Y @ E + noise
        W = np.linalg.lstsq(X - X.mean(axis=0), Y - Y.mean(axis=0))[0].T
        counts = np.c_[Y, np.zeros(N, dtype=int)]  # the last word never occurs
        flip = FLiPExtractor(
            vocabulary=[*WORDS, UNSEEN], max_iter=60, tol=0.01, early_stopping=False, random_state=0
        )
        return cls(X, Y, E, W, flip.fit(X, counts))


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted.draw(0)


def n_first(read: list[DirectionWords]) -> int:
    """Number of words j that direction j raises most."""
    return sum(direction.raised[:1] == [word] for direction, word in zip(read, WORDS, strict=True))


def as_scores(model: FLiPExtractor, read: list[DirectionWords]) -> np.ndarray:
    """Scores (m, V) of both sides; nan for words on neither side."""
    scores = np.full((len(read), len(model.vocabulary_)), np.nan)
    column = {word: j for j, word in enumerate(model.vocabulary_)}
    for row, (raised, lowered) in zip(scores, read, strict=True):
        for word, score in (*raised, *lowered):
            row[column[word]] = score
        assert [score for _, score in raised] == sorted((score for _, score in raised), reverse=True)
        assert [score for _, score in lowered] == sorted(score for _, score in lowered)
        assert all(score > 0 for _, score in raised)
        assert all(score < 0 for _, score in lowered)
    return scores


# --- Planted truth ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_directions_of_words_name_the_words(seed: int) -> None:
    """Of both kinds. Coefficients that are read as a difference do not: the negative control."""
    planted = Planted.draw(seed)
    assert n_first(planted.flip.read_directions(planted.E)) == V
    assert n_first(planted.flip.read_directions(planted.W, kind="coefficients")) == V
    assert n_first(planted.flip.read_directions(planted.W)) <= V - 2


def test_differences_of_means_name_the_words(planted: Planted) -> None:
    """Means of the rows with and without a word, of which nothing else is known."""
    has_word = planted.Y > 0
    differences = [planted.X[rows].mean(axis=0) - planted.X[~rows].mean(axis=0) for rows in has_word.T]
    assert n_first(planted.flip.read_directions(differences)) == V
    lowered = planted.flip.read_directions(-np.array(differences))
    assert [direction.lowered[0] for direction in lowered] == WORDS


# --- Scores ----------------------------------------------------------------------------------


def test_scores_are_the_definitions(planted: Planted) -> None:
    flip = planted.flip
    A, B = flip.word_embeddings_.astype(float), flip.projection_.astype(float)
    expected = planted.E @ B.T @ A.T
    found = as_scores(flip, flip.read_directions(planted.E, return_scores=True))
    np.testing.assert_allclose(found[:, :-1], expected[:, :-1], rtol=1e-4, atol=1e-4)
    S = flip.embedding_covariance_.astype(float)
    patterns = planted.W @ S / np.sqrt(np.einsum("ij,jk,ik->i", planted.W, S, planted.W))[:, None]
    read = flip.read_directions(planted.W, kind="coefficients", return_scores=True)
    np.testing.assert_allclose(
        as_scores(flip, read)[:, :-1], (patterns @ B.T @ A.T)[:, :-1], rtol=1e-4, atol=1e-4
    )


def test_a_difference_changes_the_scores_by_what_is_read(planted: Planted) -> None:
    flip, x = planted.flip, planted.X[:1]
    change = flip.decision_function(x + planted.E[2]) - flip.decision_function(x)
    read = as_scores(flip, flip.read_directions(planted.E[2], return_scores=True))
    np.testing.assert_allclose(read[:, :-1], change[:, :-1], atol=1e-4)


def test_coefficients_are_the_mean_change_for_one_standard_deviation(planted: Planted) -> None:
    """The slope of the scores' regression on the standardized projection."""
    flip = planted.flip
    rows = planted.Y.any(axis=1)  # rows without words are no rows of the fit
    X = planted.X[rows]
    scores = flip.decision_function(X)[:, :V]
    projection = (X - X.mean(axis=0)) @ planted.W[1]
    slopes = projection / projection.std() @ (scores - scores.mean(axis=0)) / len(X)
    read = as_scores(flip, flip.read_directions(planted.W[1], kind="coefficients", return_scores=True))
    np.testing.assert_allclose(read[0, :V], slopes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [1e-150, 1e-30, 3.0, 1e30, 1e150])
def test_scale_of_directions(planted: Planted, factor: float) -> None:
    """Of differences it multiplies the scores; of coefficients it changes nothing."""
    flip = planted.flip
    once = as_scores(flip, flip.read_directions(planted.E, return_scores=True))
    scaled = as_scores(flip, flip.read_directions(factor * planted.E, return_scores=True))
    np.testing.assert_allclose(scaled, factor * once, rtol=1e-4, atol=1e-5 * factor)
    options: dict[str, Any] = {"kind": "coefficients", "return_scores": True}
    once = as_scores(flip, flip.read_directions(planted.W, **options))
    scaled = as_scores(flip, flip.read_directions(factor * planted.W, **options))
    np.testing.assert_allclose(scaled, once, rtol=1e-4, atol=1e-5)


def test_the_opposite_direction_exchanges_the_sides(planted: Planted) -> None:
    for kind, rows in (("difference", planted.E), ("coefficients", planted.W)):
        forth = planted.flip.read_directions(rows, kind=kind, return_scores=True)
        back = planted.flip.read_directions(-rows, kind=kind, return_scores=True)
        for one, other in zip(forth, back, strict=True):
            assert one.raised == [(word, -score) for word, score in other.lowered]
            assert one.lowered == [(word, -score) for word, score in other.raised]


def test_equal_models_of_other_forms_give_equal_scores(planted: Planted) -> None:
    """LiP and its factorization, dense and csr, with and without bias, in float64."""
    lip = clone(planted.flip).set_params(rank=None).fit(planted.X, np.c_[planted.Y, np.zeros(N, dtype=int)])
    u, s, v = np.linalg.svd(lip.word_embeddings_.astype(float) @ lip.projection_, full_matrices=False)
    flip = pickle.loads(pickle.dumps(lip)).set_params(rank=D)
    flip.word_embeddings_, flip.projection_ = (u * s).astype(np.float32), v.astype(np.float32)
    others = [
        flip,
        pickle.loads(pickle.dumps(lip)).to_sparse(),
        pickle.loads(pickle.dumps(lip)).set_params(use_bias=False),
        pickle.loads(pickle.dumps(lip)).set_params(precision="float64"),
    ]
    for kind, rows in (("difference", planted.E), ("coefficients", planted.W)):
        expected = as_scores(lip, lip.read_directions(rows, kind=kind, return_scores=True))
        for other in others:
            found = as_scores(other, other.read_directions(rows, kind=kind, return_scores=True))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_linear_map_of_the_space_changes_nothing(planted: Planted) -> None:
    """Embeddings M x: differences M delta and coefficients M^-T w are the same directions."""
    M = np.random.default_rng(1).normal(size=(D, D))
    other = pickle.loads(pickle.dumps(planted.flip))
    other.projection_ = (other.projection_ @ np.linalg.inv(M)).astype(np.float32)
    S = M @ planted.flip.embedding_covariance_.astype(float) @ M.T
    options: dict[str, Any] = {"return_scores": True, "kind": "difference"}
    for kind, rows, mapped in (
        ("difference", planted.E, planted.E @ M.T),
        ("coefficients", planted.W, planted.W @ np.linalg.inv(M)),
    ):
        options["kind"] = kind
        expected = as_scores(other, planted.flip.read_directions(rows, **options))
        found = as_scores(other, other.read_directions(mapped, covariance=S, **options))
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_words_of_no_use_are_on_no_side(planted: Planted) -> None:
    """Words that training never saw, and words whose score is zero."""
    for kind, rows in (("difference", planted.E), ("coefficients", planted.W)):
        for sign in (1, -1):
            for sides in planted.flip.read_directions(sign * rows, kind=kind, top_k=100):
                assert sorted([*sides.raised, *sides.lowered]) == WORDS  # each once
    flip = pickle.loads(pickle.dumps(planted.flip))
    flip.word_embeddings_[3] = 0
    for model in (flip, flip.to_sparse()):
        raised, lowered = model.read_directions(planted.E[3], top_k=100)[0]
        assert WORDS[3] not in {*raised, *lowered}
        assert len(raised) + len(lowered) == V - 1
    flip = FLiPExtractor(rank=2, vocabulary=WORDS, random_state=0, tol=0.1).fit(planted.X, planted.Y)
    outside = np.linalg.svd(flip.projection_.astype(float))[2][-1]  # the projection reads nothing of it
    assert flip.read_directions(outside) == [([], [])]


def test_top_k(planted: Planted) -> None:
    everything = planted.flip.read_directions(planted.E, top_k=100, return_scores=True)
    best = planted.flip.read_directions(planted.E, top_k=2)
    for one, other in zip(everything, best, strict=True):
        for side in ("raised", "lowered"):
            assert [word for word, _ in getattr(one, side)][:2] == getattr(other, side)


# --- Input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        list,
        np.ndarray.tolist,
        pd.DataFrame,
        torch.tensor,
        lambda rows: [torch.tensor(row) for row in rows],
        lambda rows: pd.Series(list(rows)),
        lambda rows: rows.astype(np.float32),
        np.asfortranarray,
    ],
)
def test_forms_of_input(planted: Planted, convert: Any) -> None:
    assert planted.flip.read_directions(convert(planted.E)) == planted.flip.read_directions(planted.E)


@pytest.mark.parametrize("convert", [np.asarray, list, pd.Series, torch.tensor])
def test_one_direction_is_one_row(planted: Planted, convert: Any) -> None:
    expected = planted.flip.read_directions(planted.E[:1])
    assert planted.flip.read_directions(convert(planted.E[0])) == expected


@pytest.mark.filterwarnings("error")
def test_arrays_are_directions_of_a_model_of_frames(planted: Planted) -> None:
    """Centroids and coefficients have no column names. Wrong names are refused."""
    columns = [f"c{i}" for i in range(D)]
    flip = clone(planted.flip).set_params(vocabulary=WORDS)
    flip.fit(pd.DataFrame(planted.X, columns=columns), planted.Y)
    frame = pd.DataFrame(planted.E, columns=columns)
    assert flip.read_directions(planted.E) == flip.read_directions(frame)
    with pytest.raises(ValueError, match="feature names"):
        flip.read_directions(frame[columns[::-1]])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "zero direction": ({"directions": np.r_[np.ones((1, D)), np.zeros((1, D))]}, "direction 1 of 2 is zero"),
    "dimension": ({"directions": np.ones((2, D + 1))}, f"{D + 1} features, .* expecting {D} .* encoder"),
    "nan": ({"directions": np.full((2, D), np.nan)}, "contains NaN"),
    "no rows": ({"directions": np.ones((0, D))}, "0 sample"),
    "texts": ({"directions": ["woman"]}, "holds texts"),
    "sparse": ({"directions": sp.csr_array(np.eye(D))}, "Pass X.toarray"),
    "kind": ({"kind": "weights"}, "kind='weights' is not allowed; use one of 'difference', 'coefficients'"),
    "top_k": ({"top_k": 0}, "top_k=0 is not allowed; use an integer >= 1"),
    "return_scores": ({"return_scores": 1}, "return_scores=1 is not allowed"),
    "shape of covariance": (
        {"covariance": np.eye(D + 1)},
        rf"shape \({D + 1}, {D + 1}\); pass the \({D}, {D}\)",
    ),
    "variances": ({"covariance": np.ones(D)}, rf"covariance has shape \({D},\)"),
    "text": ({"covariance": "S"}, "covariance is not an array of numbers"),
    "nan in covariance": ({"covariance": np.full((D, D), np.nan)}, r"covariance\[0, 0\] = nan"),
    "asymmetric": ({"covariance": np.triu(np.ones((D, D)))}, "covariance is not symmetric"),
    "negative": ({"covariance": np.eye(D) - 2 * np.eye(D)[[0]].T * np.eye(D)[0]}, "negative eigenvalue -1"),
    "constant": ({"covariance": np.diag(np.arange(D) != 0)}, "direction 0 of 2 is constant over the embed"),
    "no variance": ({"covariance": np.zeros((D, D))}, "direction 0 of 2 is constant"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(planted: Planted, name: str) -> None:
    arguments, message = BAD[name]
    arguments = {"directions": np.eye(D)[:2], "kind": "coefficients", **arguments}
    with pytest.raises(ValueError, match=message):
        planted.flip.read_directions(**arguments)


def test_rounded_covariances_are_accepted(planted: Planted) -> None:
    """In float32, of fewer rows than dimensions, as a frame or tensor."""
    S = np.cov(planted.X[: D // 2].astype(np.float32), rowvar=False).astype(np.float32)
    assert np.linalg.eigvalsh(S.astype(float)).min() < 0  # by rounding
    W = planted.W @ np.cov(planted.X[: D // 2], rowvar=False)
    expected = planted.flip.read_directions(W, kind="coefficients", covariance=S)
    for form in (pd.DataFrame(S), torch.tensor(S), S.tolist()):
        assert planted.flip.read_directions(W, kind="coefficients", covariance=form) == expected


# --- The covariance of the fit ---------------------------------------------------------------


def test_covariance_is_that_of_the_training_rows(planted: Planted) -> None:
    """Weighted; without rows that have no words or are held out."""
    weights = np.random.default_rng(0).integers(0, 3, size=N)
    flip = FLiPExtractor(vocabulary=WORDS, random_state=0, max_iter=1, early_stopping=True, tol=1.0)
    flip.fit(planted.X, planted.Y, sample_weight=weights)
    is_used = (planted.Y.any(axis=1)) & (weights > 0)
    is_used[flip._held_out] = False
    expected = np.cov(planted.X[is_used], rowvar=False, fweights=weights[is_used], ddof=0)
    np.testing.assert_allclose(flip.embedding_covariance_, expected, rtol=1e-5, atol=1e-6)
    assert flip.embedding_covariance_.dtype == np.float64
    np.testing.assert_array_equal(flip.embedding_covariance_, flip.embedding_covariance_.T)
    double = clone(flip).set_params(precision="float64").fit(planted.X, planted.Y, sample_weight=weights)
    np.testing.assert_allclose(double.embedding_covariance_, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        flip.embedding_mean_, planted.X[is_used].T @ weights[is_used] / weights[is_used].sum(), rtol=1e-4
    )


def test_covariance_of_chunks_is_that_of_all_rows(planted: Planted) -> None:
    stream = FLiPExtractor(vocabulary=WORDS, random_state=0)
    for rows in (slice(0, 100), slice(100, 400)):
        stream.partial_fit(planted.X[rows], planted.Y[rows])
    stream.partial_fit(planted.X[400:], np.zeros_like(planted.Y[400:]))  # ignored
    X = planted.X[:400][planted.Y[:400].any(axis=1)]
    np.testing.assert_allclose(
        stream.embedding_covariance_, np.cov(X, rowvar=False, ddof=0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_covariance_of_embeddings_of_any_scale(planted: Planted, scale: float, tmp_path: Path) -> None:
    """The squares of these embeddings are not in the range of float32."""
    flip = FLiPExtractor(vocabulary=WORDS, random_state=0, max_iter=30, tol=0.01)
    once = clone(flip).fit(planted.X.astype(np.float32), planted.Y)
    scaled = flip.fit((scale * planted.X).astype(np.float32), planted.Y)
    np.testing.assert_allclose(
        scaled.embedding_covariance_ / scale**2, once.embedding_covariance_, rtol=1e-3, atol=1e-4
    )
    again = FLiPExtractor.from_pretrained(scaled.save_pretrained(tmp_path / "model"))
    assert n_first(again.read_directions(planted.W / scale, kind="coefficients")) == V


def test_covariance_is_stored(planted: Planted, tmp_path: Path) -> None:
    """In pickles, in folders, and in folders of loaded models; a refit replaces it."""
    options: dict[str, Any] = {"kind": "coefficients", "return_scores": True}
    expected = planted.flip.read_directions(planted.W, **options)
    pickled = pickle.loads(pickle.dumps(planted.flip))
    loaded = FLiPExtractor.from_pretrained(planted.flip.save_pretrained(tmp_path / "once"))
    twice = FLiPExtractor.from_pretrained(loaded.save_pretrained(tmp_path / "twice"))
    for model in (pickled, loaded, twice, pickle.loads(pickle.dumps(loaded)).to_sparse()):
        np.testing.assert_array_equal(model.embedding_covariance_, planted.flip.embedding_covariance_)
        assert model.read_directions(planted.W, **options) == expected
    loaded.set_params(vocabulary=WORDS, max_iter=1, tol=1.0).fit(2 * planted.X, planted.Y)
    np.testing.assert_allclose(
        loaded.embedding_covariance_, 4 * planted.flip.embedding_covariance_, rtol=1e-5
    )


def test_models_without_a_covariance_name_the_remedy(tmp_path: Path) -> None:
    """Folders of earlier versions and of other code; with a covariance they read coefficients, too."""
    earlier = ROOT / "tests" / "data" / "pretrained-v1" / "flip"
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.safetensors", "vocab.json"):
        shutil.copy(earlier / name, other)
    for folder in (earlier, other):
        flip = FLiPExtractor.from_pretrained(folder)
        assert not hasattr(flip, "embedding_covariance_")
        rows = np.eye(flip.n_features_in_)[:3]
        assert len(flip.read_directions(rows)) == 3
        with pytest.raises(ValueError, match=r"covariance=np\.cov"):
            flip.read_directions(rows, kind="coefficients")
        identity = np.eye(flip.n_features_in_)
        read = flip.read_directions(rows, kind="coefficients", covariance=identity)
        assert read == flip.read_directions(rows)  # S w / sqrt(w^T S w) is w
        assert FLiPExtractor.from_pretrained(flip.save_pretrained(tmp_path / folder.name)).rank_ == flip.rank_
    with pytest.raises(AttributeError):
        _ = FLiPExtractor().embedding_covariance_


# --- SpLiCE ----------------------------------------------------------------------------------


def test_splice_reads_directions(planted: Planted) -> None:
    """The concepts are what the words add; the mean of the rows plays no role."""
    rng = np.random.default_rng(0)
    concepts = rng.normal(size=(V, 40))
    X = 1 + planted.Y @ concepts
    splice = SpLiCEExtractor(concepts, vocabulary=WORDS, l1_strength=0.1).fit(X)
    centred = splice.concepts_.astype(float)
    read = splice.read_directions(3 * centred - centred[[*range(1, V), 0]])
    assert n_first(read) == V
    assert [direction.lowered[0] for direction in read] == [*WORDS[1:], WORDS[0]]
    once, thrice = (
        splice.read_directions(factor * centred[:1], return_scores=True)[0].raised for factor in (1, 3)
    )
    assert [word for word, _ in once] == [word for word, _ in thrice]
    np.testing.assert_allclose([score for _, score in thrice], [3 * score for _, score in once], rtol=1e-5)
    S = np.cov(X, rowvar=False)
    W = np.linalg.lstsq(X - X.mean(axis=0), planted.Y - planted.Y.mean(axis=0))[0].T
    assert n_first(splice.read_directions(W, kind="coefficients", covariance=S)) == V
    with pytest.raises(ValueError, match=r"covariance=np\.cov"):
        splice.read_directions(W, kind="coefficients")
    with pytest.raises(ValueError, match="direction 0 of 1 is zero"):
        splice.read_directions(np.zeros(40))
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(40)])
    assert splice.fit(frame).read_directions(centred)[0].raised[0] == WORDS[0]

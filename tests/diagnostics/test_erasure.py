"""Word erasure: optimality of the projection, unchanged rows, input types and invalid input."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from flip_sklearn import FLiPExtractor, WordEraser
from flip_sklearn.backend.scoring.products import DenseProduct
from flip_sklearn.diagnostics import ErasedWords, erase_words
from flip_sklearn.estimation import scoring
from tests.helpers.planted import planted

WORDS = ["dog", "dogs", "cat", "red", "green", "blue", "man", "woman", "snow", "beach", "run", "sit"]


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def model(data):
    flip = FLiPExtractor(rank=3, vocabulary=WORDS, max_iter=30, random_state=0, l1_strength=0.0)
    return flip.fit(data.X, data.Y)


def random_model(d: int, n_words: int, rank: int, seed: int) -> FLiPExtractor:
    """A model with random factors."""
    rng = np.random.default_rng(seed)
    flip = FLiPExtractor(vocabulary=[f"word{j}" for j in range(n_words)])
    flip.word_embeddings_ = rng.normal(size=(n_words, rank))
    flip.projection_ = rng.normal(size=(rank, d))
    flip.bias_ = rng.normal(size=n_words)
    flip.embedding_mean_ = rng.normal(size=d)
    flip.vocabulary_ = np.array(flip.vocabulary, dtype=object)
    flip.word_counts_ = np.ones(n_words)
    flip.n_features_in_, flip.rank_, flip.device_ = d, rank, "cpu"
    return flip


def directions(model: FLiPExtractor, words) -> np.ndarray:
    A = np.asarray(model.word_embeddings_, dtype=float)
    columns = [list(model.vocabulary_).index(word) for word in words]
    return A[columns] @ model.projection_


problems = st.tuples(st.integers(2, 8), st.integers(1, 12), st.integers(1, 6), st.integers(0, 10**6))


@given(problems)
@settings(max_examples=40, deadline=None)
def test_result_is_the_projection_on_the_polar_cone(problem) -> None:
    """Feasible, and the step is in the cone of the directions and orthogonal to the result (Moreau)."""
    d, m, rank, seed = problem
    model = random_model(d, m + 3, rank, seed)
    words = [f"word{j}" for j in range(m)]
    X = np.random.default_rng(seed).normal(size=(7, d))
    G, erased = directions(model, words), erase_words(model, X, words)
    unit = G / np.linalg.norm(G, axis=1, keepdims=True)
    assume((unit @ unit.T).min() > -1 + 1e-6)  # nearly opposite directions need huge weights
    left, step = erased.X - model.embedding_mean_, X - erased.X
    scale = np.linalg.norm(G, axis=1).max() * np.linalg.norm(X - model.embedding_mean_, axis=1).max()
    assert (left @ G.T).max() <= 1e-9 * scale
    np.testing.assert_allclose((step * left).sum(axis=1), 0, atol=1e-9 * (1 + scale))
    for row in step:
        weights, rest = nnls(G.T, row)
        assert rest <= 1e-8 * (1 + np.linalg.norm(row))
        assert (weights >= 0).all()


def test_no_feasible_point_is_closer(model, data) -> None:
    words, x = ["dog", "cat", "red"], data.X[:1]
    G, erased = directions(model, words), erase_words(model, data.X[:40], words)
    row = int(np.argmax(erased.distance))
    x, mean = data.X[row], model.embedding_mean_.astype(float)
    found = minimize(
        lambda y: np.sum((y - x) ** 2),
        mean,  # which is feasible
        jac=lambda y: 2 * (y - x),
        constraints={"type": "ineq", "fun": lambda y: -G @ (y - mean), "jac": lambda y: -G},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    assert erased.distance[row] > 0.1
    np.testing.assert_allclose(np.sqrt(found.fun), erased.distance[row], rtol=1e-6)
    rng = np.random.default_rng(0)
    trials = erased.X[row] + rng.normal(size=(4000, len(x))) * np.geomspace(1e-4, 3, 4000)[:, None]
    feasible = trials[((trials - mean) @ G.T <= 0).all(axis=1)]
    assert len(feasible) > 50
    assert (np.linalg.norm(feasible - x, axis=1) > erased.distance[row]).all()


def test_one_word_by_hand() -> None:
    model = random_model(3, 4, 2, seed=1)
    g = directions(model, ["word2"])[0]
    x = model.embedding_mean_ + 0.7 * g
    erased = erase_words(model, x[None], "word2")
    np.testing.assert_allclose(erased.X[0], model.embedding_mean_, atol=1e-12)
    np.testing.assert_allclose(erased.score_before, 0.7 * g @ g)
    np.testing.assert_allclose(erased.distance, 0.7 * np.linalg.norm(g))


def test_scores_and_ranks_are_those_of_the_model(model, data) -> None:
    words = ["snow", "man", "sit"]
    columns = [WORDS.index(w) for w in words]
    for use_bias in (True, False):
        model.set_params(use_bias=use_bias)
        erased = erase_words(model, data.X[:50], words)
        for X, ranks in ((data.X[:50], erased.rank_before), (erased.X, erased.rank_after)):
            order = np.asarray(model._top_words(X, len(WORDS)))
            place = np.argsort(order, axis=1) + 1
            same = place[:, columns] == ranks
            assert same.mean() > 0.99  # products of other shapes round apart
        lifts = model.decision_function(data.X[:50])[:, columns]
        if not use_bias:
            np.testing.assert_allclose(erased.score_before, lifts, atol=1e-4)
    model.set_params(use_bias=True)


def test_ties_are_ranked_by_column() -> None:
    model = random_model(3, 6, 2, seed=1).set_params(use_bias=False)
    # Whole numbers: products may round equal columns differently.
    for name in ("word_embeddings_", "projection_", "embedding_mean_"):
        setattr(model, name, np.round(3 * getattr(model, name)))
    model.word_embeddings_[[1, 3, 4]] = model.word_embeddings_[0]
    X = np.round(3 * np.random.default_rng(0).normal(size=(9, 3)))
    erased = erase_words(model, X, ["word0", "word1", "word3", "word4"])
    np.testing.assert_array_equal(np.diff(erased.rank_before, axis=1), 1)


def test_other_words_are_kept() -> None:
    """With orthogonal words, erasing one changes only its coordinate."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.4, size=(600, 5))
    basis = np.linalg.qr(rng.normal(size=(8, 8)))[0][:5]
    X = Y @ basis
    names = ["dog", "cat", "red", "green", "snow"]
    flip = FLiPExtractor(rank=5, vocabulary=names, max_iter=100, random_state=0, use_bias=False)
    flip.fit(X, Y)
    both = np.array([[1, 1, 0, 0, 0.0]]) @ basis
    erased = erase_words(flip, both, ["dog"])
    assert sorted(flip.extract_keywords(both, top_k=2)[0]) == ["cat", "dog"]
    assert flip.extract_keywords(erased.X, top_k=1) == [["cat"]]
    assert erased.score_before[0, 0] > 1
    assert erased.rank_after[0, 0] > 1
    # Negative control: a step of the same length in a random direction does not erase the word.
    step = rng.normal(size=(200, 8))
    step *= erased.distance[0] / np.linalg.norm(step, axis=1, keepdims=True)
    g, mean = directions(flip, ["dog"])[0], flip.embedding_mean_
    assert ((both + step - mean) @ g > 0).all()


def test_rows_without_the_words_are_the_same_bits(model, data) -> None:
    for X in (data.X, data.X.astype(np.float32)):
        erased = erase_words(model, X, ["beach"])
        free = erased.score_before[:, 0] <= 0
        assert 20 < free.sum() < len(X) - 20
        np.testing.assert_array_equal(erased.X[free], X[free])
        assert (erased.distance[free] == 0).all()
        assert (erased.distance[~free] > 0).all()
        np.testing.assert_allclose(erased.cosine[free], 1)
        assert (erased.cosine[~free] < 1).all()


def test_erasing_again_changes_nothing(model, data) -> None:
    words = ["dog", "dogs", "cat", "run"]
    once = erase_words(model, data.X, words)
    twice = erase_words(model, once.X, words)
    np.testing.assert_allclose(twice.X, once.X, atol=1e-10)
    assert twice.distance.max() < 1e-10


def test_distance_grows_with_words_and_rows_are_independent(model, data) -> None:
    distances = [erase_words(model, data.X, WORDS[:k]).distance for k in (1, 2, 5, 9)]
    for fewer, more in itertools.pairwise(distances):
        assert (more >= fewer - 1e-9).all()
        assert (more > fewer + 1e-6).any()
    words = WORDS[:5]
    alone = np.concatenate([erase_words(model, x[None], words).X for x in data.X[:20]])
    np.testing.assert_allclose(alone, erase_words(model, data.X, words).X[:20], atol=1e-10)
    reordered = erase_words(model, data.X[:20], words[::-1])
    np.testing.assert_allclose(alone, reordered.X, atol=1e-10)


def test_input_types(model, data) -> None:
    words, X = ["red", "red", "blue"], data.X[:30]
    exact = erase_words(model, X, words)
    assert exact.words == ("red", "blue")
    assert exact.X.dtype == np.float64
    frame = pd.DataFrame(X)
    tensor = torch.from_numpy(X)
    for other in (frame, tensor, X.tolist()):
        np.testing.assert_array_equal(erase_words(model, other, words).X, exact.X)
    fortran = erase_words(model, np.asfortranarray(X), words)  # products of another layout
    np.testing.assert_allclose(fortran.X, exact.X, rtol=1e-12, atol=1e-12)
    for dtype, error in ((np.float32, 1e-5), (np.float16, 1e-2)):
        given = X.astype(dtype)
        result = erase_words(model, given, words)
        assert result.X.dtype == np.float32
        np.testing.assert_allclose(result.X, exact.X, rtol=error, atol=error * 10)
        assert result.score_after.max() < 1e-5
        np.testing.assert_array_equal(given, X.astype(dtype))
    sparse = FLiPExtractor(rank=3, vocabulary=WORDS, max_iter=30, random_state=0, l1_strength=0.0)
    sparse.fit(data.X, data.Y).to_sparse()
    np.testing.assert_allclose(erase_words(sparse, X, words).X, exact.X, atol=1e-9)


def test_lip(data) -> None:
    flip = FLiPExtractor(rank=None, vocabulary=WORDS, max_iter=10, random_state=0).fit(data.X, data.Y)
    erased = erase_words(flip, data.X, ["dog", "cat"])
    assert erased.score_before.max() > 0.1
    assert erased.score_after.max() < 1e-9


def test_degenerate_directions(data) -> None:
    model = random_model(4, 5, 3, seed=0)
    model.word_embeddings_[2] = 0  # as L1 leaves rare words
    X = np.vstack([model.embedding_mean_, np.zeros(4), np.ones(4)])
    erased = erase_words(model, X, ["word2"])
    np.testing.assert_array_equal(erased.X, X)
    assert not erased.score_before.any()
    assert np.isnan(erased.cosine[1])
    opposite = random_model(4, 2, 3, seed=0)
    opposite.word_embeddings_[1] = -opposite.word_embeddings_[0]
    both = erase_words(opposite, X, ["word0", "word1"])  # the cone is a line
    np.testing.assert_allclose(both.score_after, 0, atol=1e-12)
    twins = random_model(4, 3, 3, seed=0)
    twins.word_embeddings_[1] = twins.word_embeddings_[0]
    np.testing.assert_allclose(
        erase_words(twins, X, ["word0", "word1"]).X, erase_words(twins, X, "word0").X, atol=1e-9
    )


def test_all_blocks_share_one_scorer(model, data, monkeypatch) -> None:
    """A is prepared once, not again for every block of rows."""
    made, prepared = [], []
    make_scorer, prepare = scoring.make_scorer, DenseProduct.__init__
    monkeypatch.setattr(scoring, "make_scorer", lambda *args: made.append(1) or make_scorer(*args))
    monkeypatch.setattr(
        DenseProduct, "__init__", lambda *args, **kw: prepared.append(1) or prepare(*args, **kw)
    )
    monkeypatch.setattr("flip_sklearn.diagnostics.erasure._BLOCK_ELEMENTS", 50)
    erase_words(model, data.X, ["man", "woman"])
    assert len(data.X) > 50
    assert (len(made), len(prepared)) == (1, 1)


def test_blocks_do_not_change_the_result(model, data, monkeypatch) -> None:
    whole = erase_words(model, data.X, ["man", "woman"])
    monkeypatch.setattr("flip_sklearn.diagnostics.erasure._BLOCK_ELEMENTS", 50)
    parts = erase_words(model, data.X, ["man", "woman"])
    for name in ("X", "score_after", "distance", "cosine"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-10)
    assert (parts.rank_before == whole.rank_before).mean() > 0.99


def test_to_frame_and_repr(model, data) -> None:
    erased = erase_words(model, data.X[:3], ["dog", "sit"])
    table = erased.to_frame()
    assert list(table.columns) == [
        "row",
        "word",
        "score_before",
        "score_after",
        "rank_before",
        "rank_after",
        "distance",
        "cosine",
    ]
    assert len(table) == 6
    line = table[(table.row == 2) & (table.word == "sit")].iloc[0]
    assert line.score_before == erased.score_before[2, 1]
    assert line.distance == erased.distance[2]
    assert isinstance(erased, ErasedWords)
    moved = int((erased.distance > 0).sum())
    assert repr(erased).startswith(f"ErasedWords({moved} of 3 embeddings moved: dog in ")
    far = data.X[:1] * 0 + model.embedding_mean_ - 10 * directions(model, ["dog"])
    assert repr(erase_words(model, far, "dog")) == "ErasedWords(0 of 1 embeddings moved: dog in none)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Dog", "'Dog', which the model does not know; similar words: 'dog', 'dogs'"),
        (["dog", "zzzzz"], "no word is similar. Pass words of model.vocabulary_"),
        ([], "is empty; pass at least one word"),
        (3, "words=3 is not allowed; pass a word or a list"),
        (["dog", 7], "has 7, which is not a str"),
        ([["dog"]], "which is not a str"),
    ],
)
def test_invalid_words_are_rejected(model, data, words, message) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        erase_words(model, data.X, words)


def test_unseen_words_and_other_models_are_rejected(model, data) -> None:
    Y = data.Y.toarray()
    Y[:, 4] = 0
    flip = FLiPExtractor(rank=2, vocabulary=WORDS, max_iter=2, random_state=0).fit(data.X, Y)
    with pytest.raises(ValueError, match="'green', which is in no training sentence"):
        erase_words(flip, data.X, ["green"])
    with pytest.raises(ValueError, match="model is a Pipeline; pass a fitted FLiPExtractor"):
        erase_words(make_pipeline(model), data.X, ["dog"])
    with pytest.raises(NotFittedError):
        erase_words(FLiPExtractor(), data.X, ["dog"])
    with pytest.raises(ValueError, match="features"):
        erase_words(model, data.X[:, :3], ["dog"])


# --- guard="linear" --------------------------------------------------------------------------


def test_guard_linear_is_the_eraser_of_the_training_rows(model, data) -> None:
    """A new linear model learns nothing from erased rows, and the result is that of WordEraser."""
    words, columns = ["dog", "man"], [0, 6]
    guarded = {"guard": "linear", "X_train": data.X[:300], "Y_train": data.Y[:300]}
    erased = erase_words(model, data.X, words, **guarded)
    eraser = WordEraser(words, vocabulary=WORDS).fit(data.X[:300], data.Y[:300])
    np.testing.assert_allclose(erased.X, eraser.transform(data.X), atol=1e-12)
    np.testing.assert_array_equal(erased.eraser.transform(data.X[300:]), erased.X[300:])
    assert erased.words == tuple(words)
    for labels in data.Y[:300, columns].toarray().T > 0:
        for rows, is_found in ((data.X[:300], True), (erased.X[:300], False)):
            reader = LogisticRegression().fit(rows - rows.mean(axis=0), labels)
            assert (np.abs(reader.coef_).max() > 1e-3) == is_found
    # Scores and distances are those of the returned embeddings.
    lifts = (erased.X - model.embedding_mean_) @ directions(model, words).T
    np.testing.assert_allclose(erased.score_after, lifts, atol=1e-9)
    np.testing.assert_allclose(erased.distance, np.linalg.norm(erased.X - data.X, axis=1))
    assert "400 of 400 embeddings moved" in repr(erased)


def test_guard_model_is_the_default(model, data) -> None:
    default, named = erase_words(model, data.X, "dog"), erase_words(model, data.X, "dog", guard="model")
    np.testing.assert_array_equal(default.X, named.X)
    assert default.eraser is named.eraser is None


def test_guard_linear_with_frames(model, data) -> None:
    frame = pd.DataFrame(data.X, columns=[f"x{j}" for j in range(6)])
    flip = FLiPExtractor(rank=3, vocabulary=WORDS, max_iter=2, tol=1.0, random_state=0).fit(frame, data.Y)
    counts = pd.DataFrame(data.Y.toarray(), columns=WORDS)
    with config_context(transform_output="pandas"):
        erased = erase_words(flip, frame, "dog", guard="linear", X_train=frame, Y_train=counts)
    assert type(erased.X) is np.ndarray
    assert erased.eraser.feature_names_in_.tolist() == list(frame.columns)
    single = erase_words(model, data.X.astype(np.float32), "dog", guard="linear", X_train=frame.to_numpy(),
                         Y_train=data.Y)  # fmt: skip
    assert single.X.dtype == np.float32
    np.testing.assert_allclose(single.X, erased.X, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guard": "linar"}, "guard='linar' is not allowed; use one of 'model', 'linear'"),
        ({"X_train": 1, "Y_train": 2}, "X_train and Y_train passed with guard='model'"),
        ({"guard": "linear"}, "guard='linear' needs X_train and Y_train; neither was passed"),
        ({"guard": "linear", "X_train": np.ones((9, 6))}, "needs X_train and Y_train; X_train was passed"),
        ({"guard": "linear", "X_train": np.ones((9, 5)), "Y_train": np.ones((9, 12))}, "5 features"),
        ({"guard": "linear", "X_train": np.ones((9, 6)), "Y_train": np.ones((9, 2))}, "Y has 2 columns"),
        ({"guard": "linear", "X_train": np.ones((2, 6)), "Y_train": np.ones((2, 12))}, "n_samples=2 rows"),
    ],
)
def test_bad_guards_are_rejected(model, data, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        erase_words(model, data.X, "dog", **options)

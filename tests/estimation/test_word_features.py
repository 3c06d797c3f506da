"""Features of the words as the prior of A: forms of input, errors, what they change and what not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer

from flip_sklearn import FLiPExtractor, KeywordMapper, kkt_residual
from flip_sklearn.estimation import word_features

V, D, P, N = 120, 12, 5, 1500
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(V, P))
MAP = RNG.normal(size=(P, D))
MEANING = FEATURES @ MAP + 0.3 * RNG.normal(size=(V, D))
FREQUENCY = 1.0 / np.arange(1, V + 1)
WORDS = [f"w{j}" for j in range(V)]


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and the words of texts that they describe: words have a meaning that features predict."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D))
    z = np.log(FREQUENCY) + X @ MEANING.T / 2
    theta = np.exp(z - z.max(axis=1, keepdims=True))
    theta /= theta.sum(axis=1, keepdims=True)
    return X, np.stack([rng.multinomial(6, p) for p in theta])


X, Y = rows(N, 1)
X_TEST, Y_TEST = rows(2000, 2)


def fit(features: Any = FEATURES, data: Any = (X, Y), **params: Any) -> FLiPExtractor:
    settings = {"rank": 8, "vocabulary": WORDS, "random_state": 0, "device": "cpu", "precision": "float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FLiPExtractor(word_features=features, **{**settings, **params}).fit(*data)


@pytest.fixture(scope="module")
def plain() -> FLiPExtractor:
    return fit(None)


@pytest.fixture(scope="module")
def model() -> FLiPExtractor:
    return fit()


class Lookup(TransformerMixin, BaseEstimator):
    """A transformer from words to features, which counts its calls."""

    calls = 0

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def fit(self, words: Any, y: Any = None) -> Lookup:
        self.n_words_ = len(words)
        return self

    def transform(self, words: Any) -> np.ndarray:
        type(self).calls += 1
        return self.factor * FEATURES[[WORDS.index(word) for word in words]]


def bits(model: FLiPExtractor) -> list[bytes]:
    return [getattr(model, name).tobytes() for name in ("word_embeddings_", "projection_", "bias_")]


def test_features_help_with_rare_words(model: FLiPExtractor, plain: FLiPExtractor) -> None:
    rare = np.flatnonzero((model.word_counts_ > 0) & (model.word_counts_ < 40))
    assert len(rare) > 30
    truth = MEANING - MEANING.mean(axis=0)

    def error(flip: FLiPExtractor) -> float:
        A = (flip.word_embeddings_ @ flip.projection_) * 2
        A = A - A.mean(axis=0)
        return float(np.square(A[rare] - truth[rare]).mean())

    assert error(model) < 0.8 * error(plain)
    assert model.score(X_TEST, Y_TEST) >= plain.score(X_TEST, Y_TEST) - 0.005


def test_predicted_rows_are_the_map_of_the_features(model: FLiPExtractor) -> None:
    predicted = (FEATURES - model.word_feature_mean_) @ model.word_map_
    frequent = model.word_counts_ > 200
    A = model.word_embeddings_[frequent]
    residual = np.square(A - predicted[frequent]).sum()
    assert residual < 0.5 * np.square(A).sum()


def test_map_is_the_ridge_regression_of_the_rows() -> None:
    flip = fit(precision="float64")
    E = word_features.standardize(FEATURES).values[flip.word_counts_ > 0]
    A = flip.word_embeddings_[flip.word_counts_ > 0]
    expected = np.linalg.solve(E.T @ E + flip.word_map_ridge_ * np.eye(P), E.T @ A)
    scale = word_features.standardize(FEATURES).scale
    np.testing.assert_allclose(flip.word_map_ * scale, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "features",
    [FEATURES.tolist(), pd.DataFrame(FEATURES, index=WORDS).sample(frac=1, random_state=0), Lookup()],
    ids=["list", "DataFrame in another order", "transformer"],
)
def test_forms_of_features_agree(model: FLiPExtractor, features: Any) -> None:
    assert bits(fit(features)) == bits(model)


def test_torch_tensor(model: FLiPExtractor) -> None:
    torch = pytest.importorskip("torch")
    assert bits(fit(torch.from_numpy(FEATURES))) == bits(model)


@pytest.mark.parametrize(
    "features",
    [np.ones((V, 3)), np.full((V, 2), 0.1, dtype=np.float32), RNG.normal(size=(V, 4))],
    ids=["constant", "constant float32", "of other words"],
)
def test_features_that_say_nothing_change_nothing(plain: FLiPExtractor, features: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="do not predict the word embeddings"):
        flip = FLiPExtractor(
            rank=8,
            vocabulary=WORDS,
            random_state=0,
            device="cpu",
            precision="float32",
            word_features=features,
        ).fit(X, Y)
    assert bits(flip) == bits(plain)
    np.testing.assert_array_equal(flip.decision_function(X_TEST), plain.decision_function(X_TEST))
    assert not hasattr(flip, "word_map_")
    assert not hasattr(flip, "lift_offset_")


def test_scale_and_shift_of_the_features_do_not_matter(model: FLiPExtractor) -> None:
    other = fit(1e3 * FEATURES + 50.0)
    np.testing.assert_allclose(
        other.decision_function(X_TEST[:50]), model.decision_function(X_TEST[:50]), atol=0.05
    )


def test_transformer_is_applied_once_for_each_vocabulary() -> None:
    Lookup.calls = 0
    transformer = Lookup(factor=3.0)
    models = [fit(transformer, rank=rank) for rank in (2, 4, None)]
    assert Lookup.calls == 1
    assert not hasattr(transformer, "n_words_")  # it was cloned
    assert all(flip.word_transformer_.n_words_ == V for flip in models)
    assert models[0].get_params()["word_features__factor"] == 3.0


@pytest.mark.parametrize(
    "params", [{"solver": "exact"}, {"solver": "sampled"}, {"rank": None}, {"l1_strength": 0.0}]
)
def test_settings_work_with_features(params: dict[str, Any]) -> None:
    flip = fit(max_iter=3, **params)
    assert hasattr(flip, "word_map_")
    assert np.isfinite(flip.decision_function(X_TEST)).all()


@pytest.mark.parametrize("rank", [None, 4])
def test_passes_approach_the_optimum_of_lbfgs(rank: int | None) -> None:
    """The alternating passes and L-BFGS minimize the same J."""
    settings = {
        "rank": rank, "precision": "float64", "early_stopping": False, "l1_strength": 0.05,
        "l2_strength": 30.0,
    }  # fmt: skip
    data = X[:300], Y[:300]
    exact = fit(data=data, solver="lbfgs", tol=1e-6, **settings)
    assert exact.kkt_residual_ <= 1e-6
    assert kkt_residual(exact, *data) <= 2e-6
    passes = fit(
        data=data, solver="exact", max_iter=80, tol=0.0, n_iter_no_change=99, batch_size=30, **settings
    )
    start, middle, end = (passes.history_["loss"][i] - exact.history_["loss"][-1] for i in (0, 20, -1))
    assert 0 < end < middle / 2 < start / 4


def test_loss_is_J_with_the_profiled_penalty() -> None:
    flip = fit(
        solver="lbfgs", rank=None, precision="float64", early_stopping=False, l2_strength=7.0, max_iter=3
    )
    seen = flip.word_counts_ > 0
    E = word_features.standardize(FEATURES).values[seen]
    A = flip.word_embeddings_[seen]
    G = np.linalg.solve(E.T @ E + flip.word_map_ridge_ * np.eye(P), E.T @ A)
    penalty = np.square(A - E @ G).sum() + flip.word_map_ridge_ * np.square(G).sum()
    z = flip.bias_[seen] + (X - flip.embedding_mean_) @ (A @ flip.projection_).T
    nll = (Y.sum(axis=1) * np.logaddexp.reduce(z, axis=1) - (Y[:, seen] * z).sum(axis=1)).sum()
    J = (nll + 7.0 / 2 * penalty) / Y.sum() + flip.l1_strength / seen.sum() * np.abs(A).sum()
    assert flip.history_["loss"][-1] == pytest.approx(J, rel=1e-9)


def test_lift_offset_lowers_uncertain_lifts(model: FLiPExtractor) -> None:
    counts, offset = model.word_counts_, model.lift_offset_
    expected = -0.5 * np.sqrt(8 / (counts + 3))
    np.testing.assert_allclose(offset[counts > 0], expected[counts > 0], rtol=1e-5)
    without_bias = model.set_params(use_bias=False).decision_function(X_TEST[:5])
    model.set_params(use_bias=True)
    lift = (X_TEST[:5] - model.embedding_mean_) @ (model.word_embeddings_ @ model.projection_).T + offset
    np.testing.assert_allclose(without_bias[:, counts > 0], lift[:, counts > 0], atol=1e-4)


def test_saved_model_is_the_same(model: FLiPExtractor, tmp_path: Any) -> None:
    again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path))
    for use_bias in (True, False):
        np.testing.assert_array_equal(
            again.set_params(use_bias=use_bias).decision_function(X_TEST),
            model.set_params(use_bias=use_bias).decision_function(X_TEST),
        )
    model.set_params(use_bias=True)
    for name in ("word_map_", "word_feature_mean_", "lift_offset_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    assert again.word_map_ridge_ == model.word_map_ridge_
    with pytest.raises(ValueError, match="set them again"):
        kkt_residual(again, X, Y)
    again.set_params(word_features=FEATURES)
    assert kkt_residual(again, X, Y) == pytest.approx(kkt_residual(model, X, Y), rel=1e-3)


def test_keyword_mapper_ranks_as_the_model(model: FLiPExtractor) -> None:
    for use_bias in (True, False):
        expected = model.set_params(use_bias=use_bias).extract_keywords(
            X_TEST[:20].astype(np.float32), top_k=3
        )
        mapper = KeywordMapper(model, top_k=3, use_bias=use_bias)
        result = mapper(pd.DataFrame({"embedding": list(X_TEST[:20].astype(np.float32))}))
        assert list(map(list, result["keywords"])) == expected
    model.set_params(use_bias=True)


def test_partial_fit_and_warm_start(model: FLiPExtractor) -> None:
    stream = FLiPExtractor(
        rank=8, vocabulary=WORDS, random_state=0, device="cpu", precision="float32", word_features=FEATURES
    )
    for first in range(0, N, 500):
        stream.partial_fit(X[first : first + 500], Y[first : first + 500])
    assert stream.word_map_.shape == (P, 8)
    again = fit(warm_start=True, max_iter=1)
    first_pass = again.fit(X, Y).history_["loss"][0]
    assert first_pass < fit(max_iter=1).history_["loss"][0] + 0.01
    again.set_params(word_features=None).fit(X, Y)
    assert not hasattr(again, "word_map_")
    assert not hasattr(again, "lift_offset_")


def test_checkpoint_continues_to_the_same_bits(tmp_path: Any) -> None:
    whole = fit(max_iter=6, tol=0.0, n_iter_no_change=9)
    fit(max_iter=3, tol=0.0, n_iter_no_change=9, checkpoint_dir=tmp_path)
    continued = fit(max_iter=6, tol=0.0, n_iter_no_change=9, checkpoint_dir=tmp_path)
    assert bits(continued) == bits(whole)
    assert len(list(tmp_path.iterdir())) == 1
    fit(FEATURES[::-1], max_iter=3, checkpoint_dir=tmp_path)  # other features are another fit
    assert len(list(tmp_path.iterdir())) == 2


def test_sample_weight_of_two_is_two_rows() -> None:
    settings = {"rank": None, "solver": "lbfgs", "precision": "float64", "early_stopping": False, "tol": 1e-7}
    small, counts = X[:200], Y[:200]
    doubled = fit(data=(np.tile(small, (2, 1)), np.tile(counts, (2, 1))), **settings)
    weighted = fit(data=(small, counts, np.full(200, 2.0)), **settings)
    np.testing.assert_allclose(
        weighted.decision_function(X_TEST[:20]), doubled.decision_function(X_TEST[:20]), atol=1e-3
    )


class OneRow(Lookup):
    def transform(self, words: Any) -> np.ndarray:
        return np.ones((1, 3))


NAN = FEATURES.copy()
NAN[7, 1] = np.nan


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (FEATURES[:-1], r"shape \(119, 5\); pass one row for each of the 120 words"),
        (FEATURES[:, 0], r"shape \(120,\)"),
        (np.empty((V, 0)), r"p >= 1"),
        (NAN, "NaN or an infinite value in row 7"),
        (pd.DataFrame(FEATURES[1:], index=WORDS[1:]), r"no row for 1 of the 120 words \('w0'\)"),
        (pd.DataFrame(FEATURES[[0, *range(V)]], index=["w0", *WORDS]), "more than one row for 'w0'"),
        (OneRow(), r"shape \(1, 3\); pass a transformer that returns one row"),
        (TfidfVectorizer(analyzer="char"), "sparse matrix; reduce it"),
        ([["a", "b"]] * V, "not numbers"),
        ("a name", "word_features"),
    ],
)
def test_bad_features(features: Any, message: str) -> None:
    flip = FLiPExtractor(vocabulary=WORDS, word_features=features)
    with pytest.raises(ValueError, match=message):
        flip.fit(X, Y)
    assert not hasattr(flip, "bias_")


def test_features_need_the_penalty() -> None:
    with pytest.raises(ValueError, match="l2_strength=0 leaves word_features without effect"):
        FLiPExtractor(vocabulary=WORDS, word_features=FEATURES, l2_strength=0).fit(X, Y)


def test_other_errors_come_before_the_transformer() -> None:
    Lookup.calls = 0
    with pytest.raises(ValueError, match="learning_rate"):
        FLiPExtractor(vocabulary=WORDS, word_features=Lookup(5.0), learning_rate=-1).fit(X, Y)
    assert Lookup.calls == 0

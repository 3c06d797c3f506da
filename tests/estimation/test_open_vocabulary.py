"""extend_vocabulary: planted words, what does not change, forms of input, other models, errors."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, TransformerMixin, clone

from flip_sklearn import FLiPExtractor, KeywordMapper, kkt_residual
from flip_sklearn.encoders import SentenceEncoder

V, D, P, N = 160, 12, 6, 1500
N_NEW = 30
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(V, P))
MEANING = FEATURES @ RNG.normal(size=(P, D)) + 0.3 * RNG.normal(size=(V, D))
ORDER = RNG.permutation(V)  # frequencies do not depend on the column
FREQUENCY = 1.0 / (20 + ORDER)
WORDS = [f"w{j}" for j in range(V)]
KNOWN, NEW = WORDS[:-N_NEW], WORDS[-N_NEW:]
FRAME = pd.DataFrame(FEATURES, index=WORDS)


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and the words of texts that they describe: words have a meaning that features predict."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)).astype(np.float32)
    z = np.log(FREQUENCY) + X @ MEANING.T / 4
    theta = np.exp(z - z.max(axis=1, keepdims=True))
    theta /= theta.sum(axis=1, keepdims=True)
    return X, np.stack([rng.multinomial(6, p) for p in theta])


X, Y = rows(N, 1)
X_TEST, Y_TEST = rows(1500, 2)
assert (Y > 0).any(axis=0).all()


class Lookup(TransformerMixin, BaseEstimator):
    """A transformer from words to features."""

    def __init__(self, table: Any = None) -> None:
        self.table = table

    def fit(self, words: Any, y: Any = None) -> Lookup:
        self.n_words_ = len(words)
        return self

    def transform(self, words: Any) -> np.ndarray:
        table = FEATURES if self.table is None else self.table
        return table[[WORDS.index(word) for word in words]]


def fit(features: Any, **params: Any) -> FLiPExtractor:
    settings = {"rank": 8, "vocabulary": KNOWN, "random_state": 0, "device": "cpu", "precision": "float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flip = FLiPExtractor(word_features=features, **{**settings, **params})
        fitted: FLiPExtractor = flip.fit(X, Y[:, : len(KNOWN)])
    return fitted


@pytest.fixture(scope="module")
def model() -> FLiPExtractor:
    return fit(Lookup())


@pytest.fixture(scope="module")
def plain() -> FLiPExtractor:
    return fit(None)


@pytest.fixture(scope="module")
def extended(model: FLiPExtractor) -> FLiPExtractor:
    return model.extend_vocabulary(NEW)


def auc(scores: np.ndarray, occurs: np.ndarray) -> float:
    """Share of pairs of a row with and a row without the word that are in order."""
    return float((scores[occurs][:, None] > scores[~occurs][None, :]).mean())


def mean_auc(flip: FLiPExtractor) -> float:
    z = flip.decision_function(X_TEST)
    columns = [list(flip.vocabulary_).index(word) for word in NEW]
    return float(np.mean([auc(z[:, j], Y_TEST[:, WORDS.index(flip.vocabulary_[j])] > 0) for j in columns]))


def test_planted_words_are_read(extended: FLiPExtractor, plain: FLiPExtractor) -> None:
    assert mean_auc(extended) > 0.7
    assert mean_auc(plain.extend_vocabulary(NEW, FRAME)) > 0.7


def test_features_of_other_words_read_nothing(model: FLiPExtractor) -> None:
    shuffled = FEATURES[V - N_NEW :][np.random.default_rng(3).permutation(N_NEW)]
    assert abs(mean_auc(model.extend_vocabulary(NEW, shuffled)) - 0.5) < 0.08


def test_rows_are_the_map_of_the_features(model: FLiPExtractor, extended: FLiPExtractor) -> None:
    expected = (FEATURES[V - N_NEW :] - model.word_feature_mean_) @ model.word_map_
    np.testing.assert_allclose(extended.word_embeddings_[len(KNOWN) :], expected, rtol=1e-4, atol=1e-5)


def test_map_of_a_model_without_features_is_the_ridge_regression(plain: FLiPExtractor) -> None:
    more = plain.extend_vocabulary(NEW, FRAME)
    E = FEATURES[: len(KNOWN)] - FEATURES[: len(KNOWN)].mean(axis=0)
    scale = np.sqrt(np.square(E).sum(axis=1).mean())
    share = plain.word_counts_ / (plain.word_counts_ + 20)
    left = (E / scale * share[:, None]).T @ (E / scale * share[:, None]) + more.word_map_ridge_ * np.eye(P)
    G = np.linalg.solve(left, (E / scale * share[:, None]).T @ plain.word_embeddings_)
    np.testing.assert_allclose(more.word_map_ * scale, G, rtol=1e-3, atol=1e-4)
    assert not hasattr(plain, "word_map_")


def test_known_words_keep_their_scores_up_to_a_constant(
    model: FLiPExtractor, extended: FLiPExtractor, plain: FLiPExtractor
) -> None:
    for before, after in ((model, extended), (plain, plain.extend_vocabulary(NEW, FRAME))):
        difference = (
            before.decision_function(X_TEST) - after.decision_function(X_TEST)[:, : len(KNOWN)]
        ).astype(np.float64)
        assert np.ptp(difference) < 1e-4
        assert difference.mean() >= 0  # the share of the new words
        assert logsumexp(after.bias_) == pytest.approx(logsumexp(before.bias_), abs=1e-4)
        before, after = (clone_of(flip).set_params(use_bias=False) for flip in (before, after))
        np.testing.assert_allclose(
            before.decision_function(X_TEST), after.decision_function(X_TEST)[:, : len(KNOWN)], atol=1e-5
        )


def clone_of(flip: FLiPExtractor) -> FLiPExtractor:
    copy: FLiPExtractor = pickle.loads(pickle.dumps(flip))
    return copy


def test_model_itself_is_unchanged(model: FLiPExtractor) -> None:
    before = pickle.dumps(model)
    more = model.extend_vocabulary(NEW)
    assert pickle.dumps(model) == before
    assert more.vocabulary_.tolist() == WORDS
    assert more.vocabulary == WORDS
    assert more.get_feature_names_out().tolist() == WORDS
    assert more.extended_words_.tolist() == list(range(len(KNOWN), V))
    assert not hasattr(model, "extended_words_")


def test_every_method_knows_the_new_words(extended: FLiPExtractor) -> None:
    assert extended.predict_proba(X_TEST[:9]).shape == (9, V)
    np.testing.assert_allclose(extended.predict_proba(X_TEST[:9]).sum(axis=1), 1, rtol=1e-5)
    assert extended.predict_presence(X_TEST[:9]).shape == (9, V)
    assert 0 <= extended.score(X_TEST, Y_TEST) <= 1
    found = {word for words in extended.extract_keywords(X_TEST, top_k=40) for word in words}
    assert found & set(NEW)
    for use_bias in (True, False):
        flip = clone_of(extended).set_params(use_bias=use_bias)
        mapper = KeywordMapper(flip, top_k=5)
        assert mapper(X_TEST[:9]).tolist() == flip.extract_keywords(X_TEST[:9], top_k=5)


def test_a_larger_count_is_expected_more_often(model: FLiPExtractor) -> None:
    means = [
        model.extend_vocabulary(NEW, counts=count).predict_proba(X_TEST)[:, len(KNOWN) :].sum()
        for count in (1, 10, 100)
    ]
    assert means[0] < means[1] < means[2]
    default = model.extend_vocabulary(NEW).predict_proba(X_TEST)[:, len(KNOWN) :].sum()
    assert default == means[0]


def test_expected_share_is_about_the_count(model: FLiPExtractor) -> None:
    counts = Y[:, len(KNOWN) :].sum(axis=0)
    theta = model.extend_vocabulary(NEW, counts=counts).predict_proba(X)
    expected = (theta[:, len(KNOWN) :] * Y.sum(axis=1)[:, None]).sum()
    assert counts.sum() / 3 < expected < 3 * counts.sum()


def test_forms_of_input_agree(model: FLiPExtractor, extended: FLiPExtractor) -> None:
    features = FEATURES[V - N_NEW :]
    forms = [
        (NEW, FRAME),
        (np.array(NEW), features),
        (pd.Series(NEW), features.tolist()),
        (tuple(NEW), Lookup()),
    ]
    for words, word_features in forms:
        other = model.extend_vocabulary(words, word_features, counts=np.ones(N_NEW))
        np.testing.assert_allclose(other.word_embeddings_, extended.word_embeddings_, atol=1e-6)
        np.testing.assert_allclose(other.bias_, extended.bias_, atol=1e-5)
    one = model.extend_vocabulary(NEW[0])
    assert one.vocabulary_.tolist() == [*KNOWN, NEW[0]]


def test_words_one_by_one_are_the_words_together(model: FLiPExtractor, extended: FLiPExtractor) -> None:
    steps = model
    for word in NEW:
        steps = steps.extend_vocabulary(word)
    for name in ("word_embeddings_", "lift_offset_", "ranking_offset_", "presence_slope_", "word_counts_"):
        np.testing.assert_array_equal(getattr(steps, name), getattr(extended, name))
    np.testing.assert_allclose(steps.bias_, extended.bias_, atol=1e-4)
    np.testing.assert_array_equal(steps.extended_words_, extended.extended_words_)


def test_words_without_counts_are_filled_in_place() -> None:
    counts = Y.copy()
    counts[:, 3] = counts[:, 50] = 0
    flip = FLiPExtractor(
        rank=8, vocabulary=WORDS, random_state=0, device="cpu", word_features=FEATURES, max_iter=5
    ).fit(X, counts)
    more = flip.extend_vocabulary(["w50", "more", "w3"], FEATURES[[50, 0, 3]])
    assert more.vocabulary_.tolist() == [*WORDS, "more"]
    assert more.extended_words_.tolist() == [3, 50, V]
    assert (more.word_counts_ > 0).all()
    expected = (FEATURES[[3, 50, 0]] - flip.word_feature_mean_) @ flip.word_map_
    np.testing.assert_allclose(more.word_embeddings_[[3, 50, V]], expected, rtol=1e-4, atol=1e-5)
    assert auc(more.decision_function(X_TEST)[:, 3], Y_TEST[:, 3] > 0) > 0.6


def test_sparse_rows(model: FLiPExtractor, extended: FLiPExtractor) -> None:
    more = clone_of(model).to_sparse().extend_vocabulary(NEW)
    assert sp.issparse(more.word_embeddings_)
    np.testing.assert_allclose(more.word_embeddings_.toarray(), extended.word_embeddings_, atol=1e-6)
    np.testing.assert_allclose(more.decision_function(X_TEST), extended.decision_function(X_TEST), atol=1e-4)


def test_lip_and_float64() -> None:
    more = fit(FEATURES[: len(KNOWN)], rank=None, max_iter=5, precision="float64").extend_vocabulary(
        NEW, FRAME
    )
    assert more.word_embeddings_.shape == (V, D)
    assert more.word_embeddings_.dtype == more.bias_.dtype == np.float64
    assert mean_auc(more) > 0.7


def test_saved_model(model: FLiPExtractor, extended: FLiPExtractor, tmp_path: Path) -> None:
    again = FLiPExtractor.from_pretrained(extended.save_pretrained(tmp_path / "extended"))
    np.testing.assert_array_equal(again.decision_function(X_TEST), extended.decision_function(X_TEST))
    np.testing.assert_array_equal(again.extended_words_, extended.extended_words_)
    card = (tmp_path / "extended" / "README.md").read_text()
    assert f"words added after training | {N_NEW}" in card
    loaded = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path / "model", encoder="their/encoder"))
    with pytest.raises(ValueError, match=r"SentenceEncoder\('their/encoder'\)"):
        loaded.extend_vocabulary(NEW)
    more = loaded.extend_vocabulary(NEW, Lookup())
    np.testing.assert_array_equal(more.decision_function(X_TEST), extended.decision_function(X_TEST))


def published(flip: FLiPExtractor, folder: Path) -> FLiPExtractor:
    """The model as other code publishes it: rows, projection and bias alone."""
    bare = clone_of(flip)
    bare.ranking_offset_ = np.zeros_like(bare.bias_)
    bare.save_pretrained(folder)
    for name in ("config.json", "flip_sklearn.safetensors"):
        (folder / name).unlink()
    return FLiPExtractor.from_pretrained(folder)


@pytest.mark.parametrize("features", [FRAME, Lookup()], ids=["DataFrame", "transformer"])
def test_imported_model(plain: FLiPExtractor, features: Any, tmp_path: Path) -> None:
    imported = published(plain, tmp_path)
    more = imported.extend_vocabulary(NEW, features)
    assert mean_auc(more) > 0.7
    assert hasattr(more, "word_transformer_") == isinstance(features, Lookup)
    with pytest.raises(ValueError, match="counts cannot be used"):
        imported.extend_vocabulary(NEW, features, counts=3)
    again = FLiPExtractor.from_pretrained(more.save_pretrained(tmp_path / "again"))
    np.testing.assert_array_equal(again.decision_function(X_TEST), more.decision_function(X_TEST))


def test_model_can_be_trained_again(extended: FLiPExtractor) -> None:
    fresh = clone(extended).set_params(max_iter=2).fit(X, Y)
    assert fresh.vocabulary_.tolist() == WORDS
    assert not hasattr(fresh, "extended_words_")
    again = clone_of(extended).set_params(warm_start=True, max_iter=1).fit(X, Y)
    assert again.word_counts_[-1] == Y[:, -1].sum()
    stream = clone_of(extended).partial_fit(X, Y)
    assert stream.word_counts_[-1] == 1 + Y[:, -1].sum()
    assert not hasattr(stream, "extended_words_")
    with pytest.raises(ValueError, match="before the extension"):
        kkt_residual(extended, X, Y)


def test_find_rows_extends_the_vocabulary(model: FLiPExtractor, plain: FLiPExtractor) -> None:
    word = NEW[int(Y_TEST[:, len(KNOWN) :].sum(axis=0).argmax())]
    n = 100
    found = model.find_rows(X_TEST, word, top_k=n)
    share = (Y_TEST[:, WORDS.index(word)] > 0).mean()
    assert (Y_TEST[found, WORDS.index(word)] > 0).mean() > 1.5 * share
    model.find_rows(X_TEST, ["w0", word], exclude=[NEW[0] if word != NEW[0] else NEW[1]])
    assert len(model.vocabulary_) == len(KNOWN)
    with pytest.raises(ValueError, match="does not know"):
        plain.find_rows(X_TEST, word)


class Encode:
    """An encoder of words, as a callable."""

    def __call__(self, words: list[str]) -> np.ndarray:
        return Lookup().transform(words)


@pytest.mark.parametrize(
    ("words", "features", "counts", "message"),
    [
        (["new", "w0"], FEATURES[:2], None, "'w0', which the model knows already"),
        (["w130", "w130"], None, None, "'w130' more than once"),
        ([], None, None, "words is empty"),
        (["w130", 7], None, None, "has 7, which is not a word"),
        (["w130", " "], None, None, "has ' ', which is not a word"),
        ({"w130"}, None, None, "pass a word or a list"),
        (3, None, None, "pass a word or a list"),
        (["w130"], FEATURES[:2], None, r"shape \(2, 6\)"),
        (["w130"], FEATURES[:1, :4], None, "has 4 columns, and the model was fitted with 6"),
        (["w130"], np.full((1, P), np.nan), None, "NaN or an infinite value"),
        (["nowhere"], FRAME, None, "no row for 1 of the 1 words"),
        (["w130"], Lookup(FEATURES[:, :4]), None, "has 4 columns"),
        (["w130"], Lookup(FEATURES[::-1]), None, "the transformer is not the one of the fit"),
        (["w130"], None, [0.0], "counts has 0.0"),
        (["w130"], None, [np.nan], "counts has nan"),
        (["w130"], None, [1.0, 2.0], r"counts has shape \(2,\)"),
        (["w130"], None, ["many"], "pass numbers > 0"),
    ],
)
def test_bad_input(model: FLiPExtractor, words: Any, features: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.extend_vocabulary(words, features, counts)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, "fitted without word_features"),
        (FEATURES[V - N_NEW :], "an array of features of the new words does not tell"),
        (FRAME.loc[NEW], r"no row for 130 of the 130 words"),
        (pd.DataFrame(RNG.normal(size=(V, 3)), index=WORDS), "do not predict the rows"),
    ],
)
def test_bad_features_of_a_model_without_features(plain: FLiPExtractor, features: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain.extend_vocabulary(NEW, features)


def test_encoder_of_another_name(model: FLiPExtractor, tmp_path: Path) -> None:
    loaded = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path, encoder="owner/one"))
    with pytest.raises(ValueError, match="word_features is the encoder 'owner/two'"):
        loaded.extend_vocabulary(NEW, SentenceEncoder("owner/two"))
    more = loaded.extend_vocabulary(NEW, SentenceEncoder(Encode()))
    np.testing.assert_allclose(
        more.word_embeddings_, model.extend_vocabulary(NEW).word_embeddings_, atol=1e-5
    )

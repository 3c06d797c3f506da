"""SpLiCEExtractor: the published formulas, what scikit-learn expects, rows with nothing to say."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from flip_sklearn.backend.sparse_coding import lasso as nonnegative
from flip_sklearn.estimation import scoring as _scoring
from flip_sklearn.metrics import keyword_accuracy
from flip_sklearn.splice import SpLiCEExtractor
from flip_sklearn.splice import extractor as splice
from flip_sklearn.splice.concepts import padded_to_csr

WORDS = [f"concept{j}" for j in range(40)]
DIM = 24


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_data(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concepts (40, 24), embeddings that mix three of them around a mean of their own, and counts."""
    rng = np.random.default_rng(seed)
    concepts = unit(rng.normal(size=(len(WORDS), DIM))) + 0.5
    Y = np.zeros((n, len(WORDS)), dtype=int)
    for row in Y:
        row[rng.choice(len(WORDS), size=3, replace=False)] = 1
    X = Y @ unit(concepts - concepts.mean(axis=0)) + 0.05 * rng.normal(size=(n, DIM))
    return concepts, X + 2 * rng.normal(size=DIM), Y


CONCEPTS, X, Y = make_data()


def make_model(**params: Any) -> SpLiCEExtractor:
    return SpLiCEExtractor(CONCEPTS, **{"vocabulary": WORDS, "l1_strength": 0.2, **params})


@pytest.fixture(scope="module")
def fitted() -> SpLiCEExtractor:
    return make_model().fit(X)


# --- The published formulas ------------------------------------------------------------------


def test_geometry(fitted: SpLiCEExtractor) -> None:
    """Normalize, centre, normalize: concepts by their own mean, embeddings by that of fit."""
    C = unit(CONCEPTS)
    np.testing.assert_allclose(fitted.concepts_, unit(C - C.mean(axis=0)), atol=1e-12)
    np.testing.assert_allclose(fitted.concept_mean_, C.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(fitted.embedding_mean_, unit(X).mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("l1", [0.05, 0.3, 0.8])
def test_weights_are_those_of_scikit_learn(l1: float) -> None:
    """The documented alpha, on the documented targets, row by row."""
    model = make_model(l1_strength=l1).fit(X)
    v = unit(unit(X[:20]) - unit(X).mean(axis=0))
    lasso = Lasso(l1 / (2 * DIM), positive=True, fit_intercept=False, tol=1e-10, max_iter=10**5)
    expected = np.stack([lasso.fit(model.concepts_.T, row).coef_ for row in v])
    np.testing.assert_allclose(model.transform(X[:20]).toarray(), expected, atol=1e-4)


def test_no_words_from_the_largest_correlation_on(fitted: SpLiCEExtractor) -> None:
    v = unit(unit(X) - fitted.embedding_mean_)
    highest = 2 * float((v @ fitted.concepts_.T).max())
    assert make_model(l1_strength=highest * 1.001).fit(X).transform(X).nnz == 0
    assert make_model(l1_strength=highest * 0.999).fit(X).transform(X).nnz == 1
    assert make_model(l1_strength=2.0).fit(X).transform(X).nnz == 0


def test_planted_words_are_read() -> None:
    """And a dictionary in a wrong order reads wrong ones."""
    rng = np.random.default_rng(0)
    concepts, words = rng.normal(size=(300, 128)), np.arange(300)
    Y = np.zeros((80, 300))
    for row in Y:
        row[rng.choice(300, size=4, replace=False)] = 1
    X = Y @ concepts
    assert SpLiCEExtractor(concepts).fit(X).score(X, Y) > 0.99
    assert SpLiCEExtractor(concepts[rng.permutation(words)]).fit(X).score(X, Y) < 0.2


def test_recomposition_is_the_published_one(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X)
    expected = unit(unit(W @ fitted.concepts_) + fitted.embedding_mean_)
    found = fitted.inverse_transform(W)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(fitted.inverse_transform(W.toarray()), expected, atol=1e-12)
    # Less penalty, closer to what was decomposed: v with the mean put back.
    v = unit(unit(X) - fitted.embedding_mean_)
    back = unit(v + fitted.embedding_mean_)
    dense = make_model(l1_strength=1e-4).fit(X)
    closer = dense.inverse_transform(dense.transform(X))
    before, after = (found * back).sum(axis=1), (closer * back).sum(axis=1)
    assert after.mean() > before.mean() > 0.9
    assert after.mean() > 0.99


def test_intervention(fitted: SpLiCEExtractor) -> None:
    """Removed concepts have weight zero in what is recomposed; nothing removed is the round trip."""
    W = fitted.transform(X)
    np.testing.assert_array_equal(fitted.intervene(X, []), fitted.inverse_transform(W))
    most = int(W.sum(axis=0).argmax())
    changed = fitted.intervene(X, [WORDS[most], WORDS[0]])
    np.testing.assert_array_equal(
        fitted.intervene(X, WORDS[most]), fitted.intervene(X, WORDS[most:][:1])
    )
    without = W.toarray()
    without[:, [most, 0]] = 0
    np.testing.assert_allclose(changed, fitted.inverse_transform(without), atol=1e-12)
    # Rows that never had them stay as they were.
    had = (W.toarray()[:, [most, 0]] > 0).any(axis=1)
    same = (changed == fitted.inverse_transform(W)).all(axis=1)
    np.testing.assert_array_equal(same, ~had)
    with pytest.raises(ValueError, match="'nothing' is not a concept"):
        fitted.intervene(X, ["nothing"])
    with pytest.raises(ValueError, match="remove=3"):
        fitted.intervene(X, 3)


def test_quality(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X)
    v = unit(unit(X) - fitted.embedding_mean_)
    found = fitted.decomposition_quality(X)
    np.testing.assert_array_equal(found.l0, np.diff(W.indptr))
    np.testing.assert_allclose(
        found.cosine, (unit(W @ fitted.concepts_) * v).sum(axis=1), atol=1e-6
    )
    assert (found.gap < 1e-9).all()
    frame = found.to_frame()
    assert list(frame) == ["l0", "cosine", "gap"]
    assert len(frame) == len(X)
    assert "n=120" in repr(found)
    # More penalty: fewer words, less close.
    sparser = make_model(l1_strength=0.6).fit(X).decomposition_quality(X)
    assert sparser.l0.mean() < found.l0.mean()
    assert sparser.cosine.mean() < found.cosine.mean()


def test_mean_concepts(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X).toarray()
    whole = fitted.mean_concepts(X)
    np.testing.assert_allclose(whole.weights.toarray(), W.mean(axis=0)[None], atol=1e-12)
    labels = np.array(["b", "a", "c"])[np.arange(len(X)) % 3]
    found = fitted.mean_concepts(X, labels)
    assert found.groups.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(found.n_rows, [40, 40, 40])
    for g, group in enumerate(found.groups):
        np.testing.assert_allclose(found.weights[[g]].toarray()[0], W[labels == group].mean(axis=0))
    # The groups' means, weighted by their rows, are the mean of all.
    np.testing.assert_allclose(found.weights.sum(axis=0) / 3, W.mean(axis=0), atol=1e-12)
    frame = fitted.mean_concepts(X, labels, top_k=4).to_frame()
    assert frame.groupby("group").size().tolist() == [4, 4, 4]
    first = frame[frame.group == "a"]
    assert (np.diff(first.weight) <= 0).all()
    order = np.argsort(-W[labels == "a"].mean(axis=0), kind="stable")[:4]
    assert first.concept.tolist() == [WORDS[j] for j in order]
    assert "a: " in repr(found)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.mean_concepts(X, labels[:-1])


# --- The verbs agree -------------------------------------------------------------------------


def test_verbs_agree(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X)
    assert W.dtype == np.float64
    assert W.has_canonical_format
    dense = W.toarray()
    expected = [
        [WORDS[j] for j in np.argsort(-row, kind="stable")[:10] if row[j] > 0] for row in dense
    ]
    assert fitted.extract_keywords(X) == expected
    scored = fitted.extract_keywords(X, top_k=3, return_scores=True)
    assert [[word for word, _ in row] for row in scored] == [row[:3] for row in expected]
    for row, words in zip(dense, scored, strict=True):
        for word, weight in words:
            assert weight == row[WORDS.index(word)] > 0
    predicted = fitted.predict(X)
    assert predicted.dtype == np.int64
    assert [{WORDS[j] for j in row.nonzero()[0]} for row in predicted.toarray()] == list(
        map(set, expected)
    )
    top = fitted._top_words(X, 60)
    assert top.shape == (len(X), 60)
    assert [[WORDS[j] for j in row[:10] if j >= 0] for row in top] == expected
    np.testing.assert_array_equal((top >= 0).sum(axis=1), np.diff(W.indptr))


def test_score_is_the_metric(fitted: SpLiCEExtractor) -> None:
    counts = sp.csr_array(Y)
    assert fitted.score(X, counts) == float(keyword_accuracy(Y, fitted.transform(X)))
    assert fitted.score(X, y=Y) == fitted.score(X, Y) > 0.7
    half = np.arange(len(X)) < 60
    assert fitted.score(X, Y, sample_weight=half) == pytest.approx(fitted.score(X[:60], Y[:60]))
    # Words without weight do not fill up the places: without any words nothing is right.
    assert make_model(l1_strength=2).fit(X).score(X, Y) == 0
    with pytest.raises(ValueError, match="Y has 39 columns"):
        fitted.score(X, Y[:, :-1])


def test_rows_with_nothing_to_say() -> None:
    """Zero, the mean itself, and embeddings of no length that matters."""
    mean_only = SpLiCEExtractor(CONCEPTS).fit(np.repeat(X[:1], 3, axis=0))
    assert mean_only.transform(np.stack([X[0], 5 * X[0], 0 * X[0]])).nnz == 0
    model = make_model().fit(np.r_[X, np.zeros((7, DIM))])
    np.testing.assert_allclose(model.embedding_mean_, unit(X).mean(axis=0), atol=1e-12)
    rows = np.stack([0 * X[0], X[0], 1e150 * X[0], 1e-150 * X[0]])
    W = model.transform(rows).toarray()
    assert not W[0].any()
    np.testing.assert_allclose(W[2:], W[[1, 1]], atol=1e-9)
    assert model.extract_keywords(rows)[0] == []
    quality = model.decomposition_quality(rows)
    assert quality.l0[0] == quality.cosine[0] == quality.gap[0] == 0
    np.testing.assert_allclose(model.inverse_transform(W[:1]), unit(model.embedding_mean_[None]))
    bad = X[:3].copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.transform(bad)
    # A concept at zero is never used, and harms no other.
    concepts = np.r_[CONCEPTS, np.zeros((1, DIM))]
    W = SpLiCEExtractor(concepts).fit(X).transform(X)
    assert np.isfinite(W.data).all()
    assert W[:, [40]].nnz == 0


@pytest.mark.parametrize("kind", ["float16", "float32", "frame", "tensor", "memmap"])
def test_kinds_of_input(kind: str, tmp_path: Any, fitted: SpLiCEExtractor) -> None:
    expected = fitted.transform(X).toarray()
    given: Any = X
    model = make_model()
    if kind in ("float16", "float32"):
        given = X.astype(kind)
    elif kind == "frame":
        given = pd.DataFrame(X, columns=[f"d{i}" for i in range(DIM)])
    elif kind == "tensor":
        given = torch.from_numpy(X)
        model.set_params(dictionary=torch.from_numpy(CONCEPTS))
    elif kind == "memmap":
        np.save(tmp_path / "X.npy", X)
        given = np.load(tmp_path / "X.npy", mmap_mode="r")
    W = model.fit(given).transform(given)
    assert W.dtype == (np.float32 if kind.startswith("float") else np.float64)
    np.testing.assert_allclose(W.toarray(), expected, atol=0.02 if kind == "float16" else 1e-4)


def test_precision_and_blocks(monkeypatch: pytest.MonkeyPatch, fitted: SpLiCEExtractor) -> None:
    expected = fitted.transform(X).toarray()
    single = make_model(precision="float32").fit(X).transform(X)
    assert single.dtype == np.float64  # of the data, whatever the products are in
    np.testing.assert_allclose(single.toarray(), expected, atol=1e-4)
    monkeypatch.setattr(splice, "CHUNK_ROWS", 17)
    monkeypatch.setattr(nonnegative, "ROWS", {"cpu": 50})
    np.testing.assert_allclose(make_model().fit(X).transform(X).toarray(), expected, atol=1e-8)
    twice = [make_model().fit(X).transform(X) for _ in range(2)]
    np.testing.assert_array_equal(twice[0].data, twice[1].data)


def test_unfinished_solutions_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "GAP_LIMIT", -1.0)
    with pytest.warns(ConvergenceWarning, match="duality gap"):
        make_model().fit(X).transform(X)


def test_progress_is_shown_when_asked(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    make_model(verbose=0).fit(X).transform(X)
    assert capsys.readouterr().err == ""
    shown = splice.tqdm
    monkeypatch.setattr(splice, "tqdm", lambda **kw: shown(**{**kw, "delay": 0}))
    make_model(verbose=1).fit(X).transform(X)
    assert "SpLiCE" in capsys.readouterr().err


def test_a_model_of_a_gpu_decomposes_anywhere() -> None:
    if torch.cuda.is_available():
        pytest.skip("the GPU is there")
    model = make_model().fit(X)
    model.set_params(device="cuda").device_ = "cuda"
    with pytest.warns(UserWarning, match="CPU"):
        assert model.transform(X).nnz


# --- scikit-learn ----------------------------------------------------------------------------


class FittingSpLiCE(SpLiCEExtractor):
    """A dictionary of as many dimensions as X happens to have: the checks bring their own X and y."""

    def fit(self, X: Any, Y: Any = None, *, y: Any = None) -> SpLiCEExtractor:
        given = np.asarray(X.todense() if sp.issparse(X) else X)
        d = given.shape[1] if given.ndim == 2 else 1
        self.dictionary = np.random.default_rng(0).normal(size=(7, d))
        try:
            return super().fit(X, Y, y=y)
        finally:
            self.dictionary = None

    def score(self, X: Any, Y: Any = None, sample_weight: Any = None, *, y: Any = None) -> float:
        labels = np.asarray(Y if y is None else y).astype(int)
        return super().score(X, np.eye(7)[labels % 7], sample_weight)


@parametrize_with_checks([FittingSpLiCE()])
def test_scikit_learn_check(estimator: SpLiCEExtractor, check: Any) -> None:
    check(estimator)


def test_clone_pickle_and_refit(fitted: SpLiCEExtractor) -> None:
    assert clone(fitted).get_params()["l1_strength"] == 0.2
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(X).data, fitted.transform(X).data)
    model = make_model().fit(pd.DataFrame(X, columns=[f"d{i}" for i in range(DIM)]))
    assert model.feature_names_in_[0] == "d0"
    assert not hasattr(model.fit(X), "feature_names_in_")
    # What cannot be fitted leaves the model as it was.
    before = model.embedding_mean_
    with pytest.raises(ValueError, match="l1_strength"):
        model.set_params(l1_strength=-1).fit(2 + X)
    assert model.embedding_mean_ is before


def test_pipeline_and_search() -> None:
    search = GridSearchCV(make_model(), {"l1_strength": [0.1, 1.5]}, cv=2).fit(X, sp.csr_array(Y))
    assert search.best_params_ == {"l1_strength": 0.1}
    pipeline = make_pipeline(make_model(), LogisticRegression(C=100)).fit(X, Y[:, 0])
    assert pipeline.score(X, Y[:, 0]) > 1 - Y[:, 0].mean()  # better than never
    frame = make_model(sparse_output=False).set_output(transform="pandas").fit(X).transform(X)
    assert list(frame) == WORDS
    np.testing.assert_array_equal(make_model().fit(X).get_feature_names_out(), WORDS)


def test_dense_output_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scoring, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match="GiB"):
        make_model(sparse_output=False).fit(X).transform(X)


def test_names(fitted: SpLiCEExtractor) -> None:
    by_column = {word: 39 - j for j, word in enumerate(WORDS)}
    assert make_model(vocabulary=by_column).fit(X).vocabulary_.tolist() == WORDS[::-1]
    named = pd.DataFrame(Y, columns=[f"w{j}" for j in range(40)])
    assert make_model(vocabulary=None).fit(X, named).vocabulary_[39] == "w39"
    assert make_model(vocabulary=None).fit(X, Y).vocabulary_[39] == "word39"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dictionary": None}, r"dictionary=None.*encoder.encode\(words\)"),
        ({"dictionary": CONCEPTS[:, 1:]}, "dictionary has 23 columns, X has 24"),
        ({"dictionary": CONCEPTS * np.nan}, "dictionary contains NaN"),
        ({"dictionary": CONCEPTS[0]}, "Expected 2D array"),
        ({"vocabulary": WORDS[1:]}, "vocabulary names 39 concepts, dictionary has 40 rows"),
        ({"vocabulary": ["a"] * 40}, "'a' more than once"),
        ({"vocabulary": "words"}, "not a vocabulary"),
        ({"l1_strength": -0.1}, "l1_strength=-0.1"),
        ({"l1_strength": float("nan")}, "l1_strength=nan"),
        ({"top_k": 0}, "top_k=0"),
        ({"precision": "bfloat16"}, "precision='bfloat16'"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"sparse_output": 1}, "sparse_output=1"),
    ],
)
def test_what_is_not_allowed(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model().set_params(**params).fit(X)


def test_messages_of_a_fitted_model(fitted: SpLiCEExtractor) -> None:
    with pytest.raises(NotFittedError):
        make_model().transform(X)
    with pytest.raises(ValueError, match="expecting 24 features"):
        fitted.transform(X[:, 1:])
    with pytest.raises(ValueError, match="W has 39 columns"):
        fitted.inverse_transform(np.zeros((2, 39)))
    with pytest.raises(TypeError, match="both Y and y"):
        fitted.score(X, Y, y=Y)
    with pytest.raises(ValueError, match="Y names 39 concepts"):
        make_model(vocabulary=None).fit(X, pd.DataFrame(Y[:, 1:]))
    with pytest.raises(ValueError, match="top_k=0"):
        fitted.extract_keywords(X, top_k=0)


def test_padded_words_as_sparse_rows() -> None:
    indices = np.array([[2, 0, -1], [-1, -1, -1], [3, 2, 1]])
    values = np.array([[5.0, 4, 0], [0, 0, 0], [3, 2, 1]])
    found = padded_to_csr(indices, values, 4)
    np.testing.assert_array_equal(found.toarray(), [[4, 0, 5, 0], [0, 0, 0, 0], [0, 1, 2, 3]])
    assert found.has_canonical_format
    assert found.nnz == 5

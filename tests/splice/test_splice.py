"""SpLiCEExtractor: the published formulas, scikit-learn's contracts, rows without words."""

from __future__ import annotations

import copy
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

from flip_sklearn.backend.sparse_coding import lasso
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.scoring import top_to_csr
from flip_sklearn.metrics import keyword_accuracy
from flip_sklearn.splice import SpLiCEExtractor
from flip_sklearn.splice import extractor as splice

WORDS = [f"concept{j}" for j in range(40)]
DIM = 24


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_data(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concepts (40, 24), shifted embeddings that are sums of three of them, and counts."""
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
    """Concepts are normalized, centred by their own mean and normalized again."""
    C = unit(CONCEPTS)
    np.testing.assert_allclose(fitted.concepts_, unit(C - C.mean(axis=0)), atol=1e-12)
    np.testing.assert_allclose(fitted.concept_mean_, C.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(fitted.embedding_mean_, unit(X).mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("l1", [0.05, 0.3, 0.8])
def test_weights_are_those_of_scikit_learn(l1: float) -> None:
    """scikit-learn's Lasso with the documented alpha and targets gives the same weights."""
    model = make_model(l1_strength=l1).fit(X)
    v = unit(unit(X[:20]) - unit(X).mean(axis=0))
    reference = Lasso(l1 / (2 * DIM), positive=True, fit_intercept=False, tol=1e-10, max_iter=10**5)
    expected = np.stack([reference.fit(model.concepts_.T, row).coef_ for row in v])
    np.testing.assert_allclose(model.transform(X[:20]).toarray(), expected, atol=1e-4)


def test_no_words_above_the_largest_correlation(fitted: SpLiCEExtractor) -> None:
    v = unit(unit(X) - fitted.embedding_mean_)
    largest = 2 * float((v @ fitted.concepts_.T).max())
    assert make_model(l1_strength=largest * 1.001).fit(X).transform(X).nnz == 0
    assert make_model(l1_strength=largest * 0.999).fit(X).transform(X).nnz == 1
    assert make_model(l1_strength=2.0).fit(X).transform(X).nnz == 0


def test_planted_words_are_extracted() -> None:
    """Negative control: with the dictionary in a wrong order the words are wrong."""
    rng = np.random.default_rng(0)
    concepts, words = rng.normal(size=(300, 128)), np.arange(300)
    Y = np.zeros((80, 300))
    for row in Y:
        row[rng.choice(300, size=4, replace=False)] = 1
    X = Y @ concepts
    assert SpLiCEExtractor(concepts).fit(X).score(X, Y) > 0.99
    assert SpLiCEExtractor(concepts[rng.permutation(words)]).fit(X).score(X, Y) < 0.2


def test_recomposition_is_the_published_formula(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X)
    expected = unit(unit(W @ fitted.concepts_) + fitted.embedding_mean_)
    recomposed = fitted.inverse_transform(W)
    np.testing.assert_allclose(recomposed, expected, atol=1e-12)
    np.testing.assert_allclose(fitted.inverse_transform(W.toarray()), expected, atol=1e-12)
    # A smaller penalty gives embeddings that are closer to v plus the mean.
    v = unit(unit(X) - fitted.embedding_mean_)
    original = unit(v + fitted.embedding_mean_)
    dense = make_model(l1_strength=1e-4).fit(X)
    closer = dense.inverse_transform(dense.transform(X))
    cosine, closer_cosine = (recomposed * original).sum(axis=1), (closer * original).sum(axis=1)
    assert closer_cosine.mean() > cosine.mean() > 0.9
    assert closer_cosine.mean() > 0.99


def test_intervention(fitted: SpLiCEExtractor) -> None:
    """Removed concepts get weight zero; without any, the result is that of the round trip."""
    W = fitted.transform(X)
    np.testing.assert_array_equal(fitted.intervene(X, []), fitted.inverse_transform(W))
    j = int(W.sum(axis=0).argmax())
    changed = fitted.intervene(X, [WORDS[j], WORDS[0]])
    np.testing.assert_array_equal(fitted.intervene(X, WORDS[j]), fitted.intervene(X, [WORDS[j]]))
    remaining = W.toarray()
    remaining[:, [j, 0]] = 0
    np.testing.assert_allclose(changed, fitted.inverse_transform(remaining), atol=1e-12)
    # Rows that do not have these concepts are not changed.
    has_removed = (W.toarray()[:, [j, 0]] > 0).any(axis=1)
    same = (changed == fitted.inverse_transform(W)).all(axis=1)
    np.testing.assert_array_equal(same, ~has_removed)
    with pytest.raises(ValueError, match="'nothing' is not a concept"):
        fitted.intervene(X, ["nothing"])
    with pytest.raises(ValueError, match="remove=3"):
        fitted.intervene(X, 3)


def test_decomposition_quality(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X)
    v = unit(unit(X) - fitted.embedding_mean_)
    quality = fitted.decomposition_quality(X)
    np.testing.assert_array_equal(quality.l0, np.diff(W.indptr))
    cosine = (unit(W @ fitted.concepts_) * v).sum(axis=1)
    np.testing.assert_allclose(quality.cosine, cosine, atol=1e-6)
    assert (quality.gap < 1e-9).all()
    frame = quality.to_frame()
    assert list(frame) == ["l0", "cosine", "gap"]
    assert len(frame) == len(X)
    assert "n=120" in repr(quality)
    # A larger penalty gives fewer words and a smaller cosine.
    sparser = make_model(l1_strength=0.6).fit(X).decomposition_quality(X)
    assert sparser.l0.mean() < quality.l0.mean()
    assert sparser.cosine.mean() < quality.cosine.mean()


def test_mean_concepts(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X).toarray()
    overall = fitted.mean_concepts(X)
    np.testing.assert_allclose(overall.weights.toarray(), W.mean(axis=0)[None], atol=1e-12)
    labels = np.array(["b", "a", "c"])[np.arange(len(X)) % 3]
    means = fitted.mean_concepts(X, labels)
    assert means.groups.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(means.n_rows, [40, 40, 40])
    for g, group in enumerate(means.groups):
        np.testing.assert_allclose(means.weights[[g]].toarray()[0], W[labels == group].mean(axis=0))
    # The groups have equally many rows: the mean of their means is the overall mean.
    np.testing.assert_allclose(means.weights.sum(axis=0) / 3, W.mean(axis=0), atol=1e-12)
    frame = fitted.mean_concepts(X, labels, top_k=4).to_frame()
    assert frame.groupby("group").size().tolist() == [4, 4, 4]
    first = frame[frame.group == "a"]
    assert (np.diff(first.weight) <= 0).all()
    order = np.argsort(-W[labels == "a"].mean(axis=0), kind="stable")[:4]
    assert first.concept.tolist() == [WORDS[j] for j in order]
    assert "a: " in repr(means)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.mean_concepts(X, labels[:-1])


# --- The methods agree -----------------------------------------------------------------------


def test_methods_agree(fitted: SpLiCEExtractor) -> None:
    W = fitted.transform(X)
    assert W.dtype == np.float64
    assert W.has_canonical_format
    dense = W.toarray()
    expected = [[WORDS[j] for j in np.argsort(-row, kind="stable")[:10] if row[j] > 0] for row in dense]
    assert fitted.extract_keywords(X) == expected
    scored = fitted.extract_keywords(X, top_k=3, return_scores=True)
    assert [[word for word, _ in row] for row in scored] == [row[:3] for row in expected]
    for row, words in zip(dense, scored, strict=True):
        for word, weight in words:
            assert weight == row[WORDS.index(word)] > 0
    predicted = fitted.predict(X)
    assert predicted.dtype == np.int64
    predicted_words = [{WORDS[j] for j in row.nonzero()[0]} for row in predicted.toarray()]
    assert predicted_words == [set(row) for row in expected]
    all_words = fitted.extract_keywords(X, top_k=60)  # more than there are concepts
    assert [row[:10] for row in all_words] == expected
    assert [len(row) for row in all_words] == np.diff(W.indptr).tolist()
    all_predicted = copy.copy(fitted).set_params(top_k=60).predict(X)
    assert all_predicted.has_canonical_format
    np.testing.assert_array_equal(all_predicted.toarray(), dense > 0)


def test_score_is_keyword_accuracy(fitted: SpLiCEExtractor) -> None:
    counts = sp.csr_array(Y)
    assert fitted.score(X, counts) == float(keyword_accuracy(Y, fitted.transform(X)))
    assert fitted.score(X, y=Y) == fitted.score(X, Y) > 0.7
    half = np.arange(len(X)) < 60
    assert fitted.score(X, Y, sample_weight=half) == pytest.approx(fitted.score(X[:60], Y[:60]))
    # Words of weight zero are not extracted: without any words the accuracy is zero.
    assert make_model(l1_strength=2).fit(X).score(X, Y) == 0
    with pytest.raises(ValueError, match="Y has 39 columns"):
        fitted.score(X, Y[:, :-1])


def test_zero_rows_rows_at_the_mean_and_extreme_lengths() -> None:
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
    # A zero concept is never used and does not change the others.
    concepts = np.r_[CONCEPTS, np.zeros((1, DIM))]
    W = SpLiCEExtractor(concepts).fit(X).transform(X)
    assert np.isfinite(W.data).all()
    assert W[:, [40]].nnz == 0


@pytest.mark.parametrize("kind", ["float16", "float32", "frame", "tensor", "memmap"])
def test_kinds_of_input(kind: str, tmp_path: Any, fitted: SpLiCEExtractor) -> None:
    expected = fitted.transform(X).toarray()
    converted: Any = X
    model = make_model()
    if kind in ("float16", "float32"):
        converted = X.astype(kind)
    elif kind == "frame":
        converted = pd.DataFrame(X, columns=[f"d{i}" for i in range(DIM)])
    elif kind == "tensor":
        converted = torch.from_numpy(X)
        model.set_params(dictionary=torch.from_numpy(CONCEPTS))
    elif kind == "memmap":
        np.save(tmp_path / "X.npy", X)
        converted = np.load(tmp_path / "X.npy", mmap_mode="r")
    W = model.fit(converted).transform(converted)
    assert W.dtype == (np.float32 if kind.startswith("float") else np.float64)
    np.testing.assert_allclose(W.toarray(), expected, atol=0.02 if kind == "float16" else 1e-4)


def test_precision_and_blocks(monkeypatch: pytest.MonkeyPatch, fitted: SpLiCEExtractor) -> None:
    expected = fitted.transform(X).toarray()
    single = make_model(precision="float32").fit(X).transform(X)
    assert single.dtype == np.float64  # that of X, whatever the format of the products
    np.testing.assert_allclose(single.toarray(), expected, atol=1e-4)
    monkeypatch.setattr(splice, "CHUNK_ROWS", 17)
    monkeypatch.setitem(lasso.ROWS, make_model().fit(X).device_, 50)
    np.testing.assert_allclose(make_model().fit(X).transform(X).toarray(), expected, atol=1e-8)
    twice = [make_model().fit(X).transform(X) for _ in range(2)]
    np.testing.assert_array_equal(twice[0].data, twice[1].data)


def test_large_gap_is_a_warning_at_the_line_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "MAX_GAP", -1.0)
    model = make_model().fit(X)
    calls: list[Any] = [
        model.transform,
        model.extract_keywords,
        model.mean_concepts,
        lambda X: model.intervene(X, []),
        make_pipeline(model).transform,
    ]
    for call in calls:
        with pytest.warns(ConvergenceWarning, match="duality gap") as record:
            call(X)
        assert [warning.filename for warning in record] == [__file__]


def test_verbose_shows_progress(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    make_model(verbose=0).fit(X).transform(X)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("flip_sklearn.io.PROGRESS_DELAY", 0.0)
    make_model(verbose=1).fit(X).transform(X)
    assert "SpLiCE" in capsys.readouterr().err


def test_model_fitted_on_a_gpu_decomposes_on_the_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    model = make_model().fit(X)
    model.set_params(device="cuda").device_ = "cuda"
    with pytest.warns(UserWarning, match="CPU"):
        assert model.transform(X).nnz


# --- scikit-learn ----------------------------------------------------------------------------


class FittingSpLiCE(SpLiCEExtractor):
    """Draws a dictionary with as many columns as X: the checks pass their own X and y."""

    def fit(self, X: Any, Y: Any = None, *, y: Any = None) -> SpLiCEExtractor:
        array = np.asarray(X.todense() if sp.issparse(X) else X)
        d = array.shape[1] if array.ndim == 2 else 1
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
    # A fit that fails does not change the model.
    before = model.embedding_mean_
    with pytest.raises(ValueError, match="l1_strength"):
        model.set_params(l1_strength=-1).fit(2 + X)
    assert model.embedding_mean_ is before


def test_pipeline_and_search() -> None:
    search = GridSearchCV(make_model(), {"l1_strength": [0.1, 1.5]}, cv=2).fit(X, sp.csr_array(Y))
    assert search.best_params_ == {"l1_strength": 0.1}
    pipeline = make_pipeline(make_model(), LogisticRegression(C=100)).fit(X, Y[:, 0])
    assert pipeline.score(X, Y[:, 0]) > 1 - Y[:, 0].mean()  # better than the constant 0
    frame = make_model(sparse_output=False).set_output(transform="pandas").fit(X).transform(X)
    assert list(frame) == WORDS
    np.testing.assert_array_equal(make_model().fit(X).get_feature_names_out(), WORDS)


def test_dense_output_larger_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match="GiB"):
        make_model(sparse_output=False).fit(X).transform(X)


def test_names_of_concepts(fitted: SpLiCEExtractor) -> None:
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
def test_bad_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model().set_params(**params).fit(X)


def test_bad_arguments_of_a_fitted_model(fitted: SpLiCEExtractor) -> None:
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


def test_top_to_csr() -> None:
    indices = np.array([[2, 0, -1], [-1, -1, -1], [3, 2, 1]])
    values = np.array([[5.0, 4, 0], [0, 0, 0], [3, 2, 1]])
    matrix = top_to_csr(indices, values, 4)
    np.testing.assert_array_equal(matrix.toarray(), [[4, 0, 5, 0], [0, 0, 0, 0], [0, 1, 2, 3]])
    assert matrix.has_canonical_format
    assert matrix.nnz == 5

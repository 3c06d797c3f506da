"""WordEraser: the theorems of least-squares concept erasure, its inputs, and stored erasers."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from flip_sklearn import FLiPExtractor, WordEraser
from flip_sklearn.persistence.erasers import ERASER_FILE

WORDS = ["red", "dog", "dogs", "cat", "snow"]


def make_data(n: int = 300, d: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, d), linear in the counts (n, 5) plus noise, of unequal scales and not centred."""
    rng = np.random.default_rng(seed)
    Y = rng.poisson(0.4, size=(n, len(WORDS)))
    vectors = np.random.default_rng(99).normal(size=(len(WORDS), d))
    return (Y @ vectors + rng.normal(size=(n, d))) * np.geomspace(3, 0.3, d) + 2, Y


X, Y = make_data()


def covariance(X: Any, labels: Any, weights: Any = None) -> np.ndarray:
    """Cov(x, z) in float64."""
    w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=float)
    x, z = np.asarray(X, dtype=float), np.asarray(labels, dtype=float)
    return (w[:, None] * (x - np.average(x, 0, w))).T @ (z - np.average(z, 0, w)) / w.sum()


def eraser_of(words: Any = ("dog", "cat"), **fit: Any) -> WordEraser:
    return WordEraser(words, vocabulary=WORDS).fit(X, Y, **fit)


# --- Theorems --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["dog", ["dog", "cat", "snow"], None])
@pytest.mark.parametrize("weighted", [False, True])
def test_covariance_with_the_words_is_zero(words: Any, weighted: bool) -> None:
    weights = np.random.default_rng(1).uniform(0, 2, len(X)) if weighted else None
    erased = eraser_of(words, sample_weight=weights).transform(X)
    chosen = [WORDS.index(w) for w in ([words] if isinstance(words, str) else words or WORDS)]
    assert np.abs(covariance(X, Y[:, chosen] > 0, weights)).max() > 0.1
    assert np.abs(covariance(erased, Y[:, chosen] > 0, weights)).max() < 1e-13
    np.testing.assert_allclose(np.average(erased, 0, weights), np.average(X, 0, weights))


def test_transform_is_the_closed_form_in_float64() -> None:
    z = Y[:, [1, 3]] > 0
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    root = vectors * np.sqrt(values) @ vectors.T
    q = np.linalg.qr(np.linalg.solve(root, covariance(X, z)))[0]
    expected = X - (X - X.mean(0)) @ (root @ q @ q.T @ np.linalg.inv(root)).T
    np.testing.assert_allclose(eraser_of().transform(X), expected, atol=1e-12)


def test_change_is_the_smallest_in_every_metric() -> None:
    """Against P = M (1 - C C^+) for random M, which are all linear maps with P C = 0."""
    rng = np.random.default_rng(0)
    eraser, c, d = eraser_of(), covariance(X, Y[:, [1, 3]] > 0), X.shape[1]
    best = np.eye(d) - eraser.proj_left_ @ eraser.proj_right_
    kernel = np.eye(d) - c @ np.linalg.pinv(c)
    np.testing.assert_allclose(best @ c, 0, atol=1e-13)
    x = X - X.mean(0)
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(20):
            factor = rng.normal(size=(d, d))  # of the metric
            other = (best + scale * rng.normal(size=(d, d))) @ kernel
            cost, other_cost = (((x @ (P - np.eye(d)).T @ factor) ** 2).sum() for P in (best, other))
            assert cost < other_cost


def test_erasure_is_idempotent() -> None:
    eraser = eraser_of()
    erased = eraser.transform(X)
    np.testing.assert_allclose(eraser.transform(erased), erased, atol=1e-13)
    again = eraser_of().fit(erased, Y)
    np.testing.assert_allclose(again.transform(erased), erased, atol=1e-12)
    assert again.proj_right_.shape == (0, X.shape[1])


def test_invariance_under_invertible_affine_maps() -> None:
    rng = np.random.default_rng(0)
    M, shift = rng.normal(size=(X.shape[1],) * 2), rng.normal(size=X.shape[1])
    mapped = eraser_of().fit(X @ M + shift, Y).transform(X @ M + shift)
    np.testing.assert_allclose(mapped, eraser_of().transform(X) @ M + shift, atol=1e-10)


def test_row_of_weight_two_is_two_rows_and_of_weight_zero_none() -> None:
    weights = np.random.default_rng(0).integers(0, 3, len(X))
    repeated = np.repeat(np.arange(len(X)), weights)
    one = eraser_of(sample_weight=weights)
    two = WordEraser(["dog", "cat"], vocabulary=WORDS).fit(X[repeated], Y[repeated])
    np.testing.assert_allclose(one.transform(X), two.transform(X), atol=1e-11)
    np.testing.assert_array_equal(one.word_counts_, (Y[repeated] > 0)[:, [1, 3]].sum(0))


@pytest.mark.parametrize("prepare", [StandardScaler, lambda: PCA(whiten=True)], ids=["scaler", "whitening"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_readers_learn_nothing_even_from_rounding(prepare: Any, dtype: type) -> None:
    """Constant coordinates stay constant, and rounding in erased dimensions, enlarged, has no word in it."""
    x = np.column_stack([X, np.zeros(len(X)), np.full(len(X), 0.3), 1e-7 * X[:, 0] ** 2]).astype(dtype)
    erased = WordEraser("dog", vocabulary=WORDS).fit(x, Y).transform(x)
    assert erased.dtype == dtype
    assert (np.ptp(erased[:, -3:-1], axis=0) == 0).all()
    has_dog = Y[:, 1] > 0
    train, test = np.arange(len(X)) < 200, np.arange(len(X)) >= 200
    readers = [
        make_pipeline(prepare(), LogisticRegression()).fit(r[train], has_dog[train]) for r in (x, erased)
    ]
    found, rest = (reader.decision_function(r[test]) for reader, r in zip(readers, (x, erased), strict=True))
    separation = [s[has_dog[test]].mean() - s[~has_dog[test]].mean() for s in (found, rest)]
    assert separation[0] > 1.0
    assert separation[1] < 0.3  # the rows that the reader is trained on are a part of those of the eraser


@pytest.mark.parametrize("shuffled", [False, True])
def test_every_word_takes_one_dimension(shuffled: bool) -> None:
    """Whatever the embeddings hold of it: the mean square change, in units of the covariance, is k."""
    y = np.random.default_rng(0).permutation(Y) if shuffled else Y
    change = X - WordEraser(vocabulary=WORDS).fit(X, y).transform(X)
    precision = np.linalg.inv(np.cov(X.T, bias=True))
    assert np.einsum("ij,jk,ik->i", change, precision, change).mean() == pytest.approx(len(WORDS))


def test_words_that_say_the_same_take_one_dimension() -> None:
    y = np.column_stack([Y[:, 1], 2 * Y[:, 1], Y[:, 3]])
    one = WordEraser(["dog", "hound", "cat"]).fit(X, y)
    assert one.proj_right_.shape == (2, X.shape[1])
    np.testing.assert_allclose(one.transform(X), eraser_of().transform(X), atol=1e-11)


def test_embeddings_of_a_subspace() -> None:
    x = np.random.default_rng(0).normal(size=(8, 20)).T[:, :8] @ X.T  # 8 dimensions of 20
    erased = WordEraser("dog", vocabulary=WORDS).fit(x.T, Y).transform(x.T)
    assert np.linalg.matrix_rank(erased - erased.mean(0)) == 7
    assert np.abs(covariance(erased, Y[:, [1]] > 0)).max() < 1e-12


@pytest.mark.parametrize("n", [12, 20, 24, 40, 60])
def test_few_rows_are_guarded_and_new_rows_stay_near(n: int) -> None:
    x, y = make_data(400, d=24, seed=1)
    eraser = WordEraser("dog", vocabulary=WORDS)
    if n <= 24:
        with pytest.warns(UserWarning, match=f"the {n} rows sum up to {n}, for 24 dimensions"):
            eraser.fit(x[:n], y[:n])
    else:
        eraser.fit(x[:n], y[:n])
    assert np.abs(covariance(eraser.transform(x[:n]), y[:n, [1]] > 0)).max() < 1e-12
    new = x[100:]
    change = ((new - eraser.transform(new)) ** 2).sum() / ((new - x.mean(0)) ** 2).sum()
    assert change < 1.0


# --- Inputs ----------------------------------------------------------------------------------


def test_forms_of_input_give_one_result() -> None:
    expected = eraser_of().transform(X)
    frame = pd.DataFrame(Y, columns=WORDS)
    has_word = (Y[:, [1, 3]] > 0).astype(int)
    counter = FLiPExtractor(max_iter=1, vocabulary=WORDS, tol=1.0, random_state=0)
    erasers = [
        WordEraser(("dog", "cat"), vocabulary=WORDS).fit(X.tolist(), sp.csr_array(Y)),
        WordEraser(np.array(["dog", "cat"]), vocabulary={w: j for j, w in enumerate(WORDS)}).fit(X, Y > 0),
        WordEraser(pd.Series(["dog", "cat"])).fit(pd.DataFrame(X).to_numpy(), frame),
        WordEraser(["dog", "cat"]).fit(torch.tensor(X), sp.coo_array(has_word)),
        WordEraser().fit(X, frame[["dog", "cat"]]),
        WordEraser(vocabulary=["dog", "cat"]).fit(X, has_word.tolist()),
        WordEraser(["dog", "cat"], vocabulary=counter.fit(X, Y)).fit(X, y=torch.tensor(Y)),
    ]
    for eraser in erasers:
        assert eraser.words_.tolist() == ["dog", "cat"]
        np.testing.assert_allclose(eraser.transform(X), expected, atol=1e-12)
    single = WordEraser("dog").fit(X, (Y[:, 1] > 0).astype(int))
    np.testing.assert_allclose(single.transform(X), eraser_of("dog").transform(X), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_number_formats(dtype: type) -> None:
    x = X.astype(dtype)
    erased = WordEraser("dog", vocabulary=WORDS).fit(x, Y).transform(x)
    assert erased.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert np.abs(covariance(erased, Y[:, [1]] > 0)).max() < 1e-6
    assert WordEraser("dog", vocabulary=WORDS).fit(x, Y).transform(x[:1]).shape == (1, X.shape[1])


def test_frames_names_and_pipelines() -> None:
    names = [f"x{j}" for j in range(X.shape[1])]
    frame = pd.DataFrame(X, columns=names)
    eraser = clone(eraser_of("dog")).set_output(transform="pandas").fit(frame, Y)
    assert eraser.transform(frame).columns.tolist() == names == eraser.get_feature_names_out().tolist()
    with pytest.raises(ValueError, match="feature names"):
        eraser.transform(frame[names[::-1]])
    assert not hasattr(eraser.fit(X, Y), "feature_names_in_")
    has_dog = Y[:, 1] > 0
    pipeline = make_pipeline(FrozenEstimator(eraser_of("dog")), StandardScaler(), LogisticRegression())
    assert np.abs(pipeline.fit(X, has_dog)[-1].coef_).max() < 1e-6
    flip = FLiPExtractor(rank=3, max_iter=2, vocabulary=WORDS)
    both = make_pipeline(WordEraser(["dog", "cat"], vocabulary=WORDS), flip)
    assert both.fit(X, Y)[0].words_.tolist() == ["dog", "cat"]


@pytest.mark.filterwarnings("ignore:Y is 1-D", "ignore:.*sum up to", "ignore:.*is in all")
def test_scikit_learn_checks() -> None:
    check_estimator(WordEraser())


def test_repr_and_word_in_all_rows() -> None:
    assert repr(WordEraser("dog", vocabulary=WORDS)).startswith("WordEraser(vocabulary=['red'")
    y = Y.copy()
    y[:, 1] = 1
    with pytest.warns(UserWarning, match="'dog' is in all 300 rows"):
        eraser = WordEraser(["dog", "cat"], vocabulary=WORDS).fit(X, y)
    np.testing.assert_allclose(eraser.transform(X), eraser_of("cat").transform(X), atol=1e-12)


def rare(y: np.ndarray, n: int) -> np.ndarray:
    y = y.copy()
    y[n:, 1], y[:n, 1] = 0, 1
    return y


@pytest.mark.parametrize(
    ("words", "x", "y", "match"),
    [
        ("Dog", X, Y, "'Dog', .*similar words: 'dog', 'dogs'"),
        ([], X, Y, r"words=\[\] is empty"),
        (["dog", 3], X, Y, "words has 3, which is not a str"),
        (5, X, Y, "words=5 is not allowed"),
        ("dog", X, Y[:, :3], "vocabulary has 5 words, Y has 3 columns"),
        ("dog", X, Y[:-1], "X has 300 rows and Y has 299"),
        ("dog", X, -Y, "is negative"),
        ("dog", X, None, "WordEraser requires y to be passed"),
        ("dog", X, Y[:, 1], "Y is 1-D, like class labels"),
        ("dog", np.where(X > 5, np.nan, X), Y, "contains NaN"),
        ("dog", X[0], Y, "Expected 2D array"),
        ("dog", sp.csr_array(X), Y, "embeddings are dense"),
        ("dog", X, rare(Y, 1), "'dog' is in 1 of the 300 rows .* at least 2 rows with each word"),
        ("dog", X, rare(Y, 0), "'dog' is in 0 of the 300 rows"),
        (WORDS, X[:6], Y[:6], "n_samples=6 rows .* 5 words needs at least 7"),
        (WORDS, X[:, :5], Y, "erasure of 5 words takes 5 dimensions, .* vary in 5: nothing but the mean"),
        ("dog", X[:, :1], Y, "n_features=1"),
        ("dog", np.full_like(X, 1e200) * (1 + Y[:, [1]]), Y, "overflows float64"),
    ],
)
def test_bad_input_is_refused(words: Any, x: Any, y: Any, match: str) -> None:
    eraser = eraser_of()
    before = eraser.transform(X)
    with pytest.raises(ValueError, match=match):
        eraser.set_params(words=words).fit(x, y)
    np.testing.assert_array_equal(eraser.transform(X), before)  # unchanged


def test_more_bad_input() -> None:
    with pytest.raises(ValueError, match="Y has 5 columns without names, and vocabulary is None"):
        WordEraser("dog").fit(X, Y)
    with pytest.raises(ValueError, match="column 0 of Y is 'snow'"):
        WordEraser("dog", vocabulary=WORDS).fit(X, pd.DataFrame(Y, columns=WORDS[::-1]))
    with pytest.raises(ValueError, match=r"sample_weight\[3\]"):
        eraser_of(sample_weight=np.where(np.arange(len(X)) == 3, -1, 1))
    with pytest.raises(ValueError, match="Use the encoder that made the training embeddings"):
        eraser_of().transform(X[:, :4])
    with pytest.raises(NotFittedError):
        WordEraser("dog").transform(X)


# --- Stored erasers --------------------------------------------------------------------------


def test_stored_erasers_give_the_same_bits(tmp_path: Path) -> None:
    eraser = WordEraser(["dog", "cat"], vocabulary=WORDS).fit(
        pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])]), Y
    )
    folder = eraser.save_pretrained(tmp_path / "new" / "folder")
    assert folder == eraser.save_pretrained(folder)  # replaced
    assert [path.name for path in folder.iterdir()] == [ERASER_FILE]
    frame = pd.DataFrame(X, columns=eraser.feature_names_in_)
    for again in (pickle.loads(pickle.dumps(eraser)), WordEraser.from_pretrained(str(folder))):
        np.testing.assert_array_equal(again.transform(frame), eraser.transform(frame))
        for name in ("words_", "word_counts_", "feature_names_in_"):
            assert getattr(again, name).tolist() == getattr(eraser, name).tolist()
        assert again.words == ["dog", "cat"]
        assert again.n_features_in_ == X.shape[1]


def test_eraser_lies_beside_a_model(tmp_path: Path) -> None:
    flip = FLiPExtractor(rank=3, vocabulary=WORDS, max_iter=2, tol=1.0, random_state=0).fit(X, Y)
    eraser_of().save_pretrained(flip.save_pretrained(tmp_path))
    flip.save_pretrained(tmp_path)
    WordEraser.from_pretrained(tmp_path)
    FLiPExtractor.from_pretrained(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has no {ERASER_FILE}"):
        WordEraser.from_pretrained(tmp_path)
    with pytest.raises(NotFittedError):
        WordEraser("dog").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="folder=None"):
        eraser_of().save_pretrained(None)
    path = eraser_of().save_pretrained(tmp_path) / ERASER_FILE
    good, arrays = path.read_bytes(), load_file(path)
    for content, match in (
        (good[:-8], "truncated"),
        (b"", "header"),
        (good.replace(b'\\"format\\": 1', b'\\"format\\": 2'), "format"),
        (good.replace(b'[\\"dog\\", \\"cat\\"]', b'[\\"dog\\", 1234567]'), "not a list of texts"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            WordEraser.from_pretrained(tmp_path)
    for changed, match in (
        ({"mean": arrays["mean"][1:]}, "shapes"),
        ({"mean": np.full_like(arrays["mean"], np.nan)}, "not finite"),
    ):
        path.write_bytes(good)
        header = eraser_header(path)
        save_file({**arrays, **changed}, path, metadata=header)
        with pytest.raises(ValueError, match=match):
            WordEraser.from_pretrained(tmp_path)
    shutil.rmtree(tmp_path)


def eraser_header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(file.metadata())

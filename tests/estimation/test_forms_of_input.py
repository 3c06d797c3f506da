"""Embeddings, labels, seeds and settings in other forms than usual: taken, or refused with the remedy."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from flip_sklearn import FLiPExtractor, SpLiCEExtractor, kkt_residual, regularization_path, stack_views
from flip_sklearn.metrics import keyword_accuracy_scorer, log_likelihood_scorer, precision_recall
from tests.helpers.paths import ROOT
from tests.helpers.processes import run_python

N, D, V = 48, 5, 6
rng = np.random.default_rng(0)
Y = rng.poisson(0.5, size=(N, V))
Y[np.arange(N), np.arange(N) % V] += 1
X = (Y @ rng.normal(size=(V, D)) + 0.1 * rng.normal(size=(N, D))).astype(np.float32)
WORDS = ["dog", "cat", "sky", "red", "sea", "run"]


def model(**params: Any) -> FLiPExtractor:
    defaults = {"rank": 3, "max_iter": 2, "random_state": 0, "device": "cpu", "vocabulary": WORDS}
    return FLiPExtractor(**{**defaults, **params})


FITTED = model().fit(X, Y)

VECTORS: dict[str, Callable[[], Any]] = {
    "list of arrays": lambda: list(X),
    "list of tensors": lambda: [torch.from_numpy(row) for row in X],
    "list of tensors with gradients": lambda: [torch.from_numpy(row).requires_grad_() for row in X],
    "object array": lambda: pd.Series(list(X)).to_numpy(),
    "pandas column": lambda: pd.DataFrame({"embedding": list(X)})["embedding"],
    "pandas frame of one column": lambda: pd.DataFrame({"embedding": list(X)}),
    "polars column": lambda: pl.Series(X.tolist()),
    "polars column of fixed size": lambda: pl.Series(X.tolist(), dtype=pl.Array(pl.Float32, D)),
    "polars frame of one column": lambda: pl.DataFrame({"embedding": X.tolist()}),
    "pyarrow": lambda: pa.array(X.tolist()),
    "pyarrow chunks": lambda: pa.chunked_array([X[:20].tolist(), X[20:].tolist()]),
    "mask without a masked value": lambda: np.ma.masked_array(X, np.zeros_like(X, dtype=bool)),
}


@pytest.mark.parametrize("form", VECTORS)
def test_columns_and_lists_of_vectors_are_embeddings(form: str) -> None:
    rows = VECTORS[form]()
    fitted = model().fit(rows, Y)
    np.testing.assert_allclose(fitted.word_embeddings_, FITTED.word_embeddings_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(FITTED.decision_function(rows), FITTED.decision_function(X), atol=1e-5)
    assert FITTED.extract_keywords(rows) == FITTED.extract_keywords(X)
    assert FITTED.score(rows, Y) == FITTED.score(X, Y)


def test_lists_of_bfloat16_tensors_are_embeddings() -> None:
    rows = [torch.from_numpy(row).bfloat16() for row in X]
    same = FITTED.decision_function(torch.stack(rows))
    np.testing.assert_array_equal(FITTED.decision_function(rows), same)


CALLS: dict[str, Callable[[Any], Any]] = {
    "fit": lambda rows: model().fit(rows, Y),
    "partial_fit": lambda rows: model().partial_fit(rows, Y),
    "next partial_fit": lambda rows: model().partial_fit(X, Y).partial_fit(rows, Y),
    "decision_function": FITTED.decision_function,
    "predict_log_proba": FITTED.predict_log_proba,
    "predict": FITTED.predict,
    "transform": FITTED.transform,
    "extract_keywords": FITTED.extract_keywords,
    "score": lambda rows: FITTED.score(rows, Y),
    "path": lambda rows: regularization_path(rows, Y, [0.1], estimator=model()),
    "kkt_residual": lambda rows: kkt_residual(FITTED, rows, Y),
    "SpLiCE": lambda rows: SpLiCEExtractor(np.eye(D)).fit(rows),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a dog", "a cat"] * (N // 2), r"holds texts, such as 'a dog'; encode them first: SentenceEncoder"),
        (pd.Series(["a dog"] * N), "encode them first"),
        (pl.DataFrame({"text": ["a dog"] * N}), "encode them first"),
        (X[0], r"one vector, a 1D array of 5 numbers.*X.reshape\(1, -1\)"),
        (X[0].tolist(), "one vector"),
        (pd.Series(X[0]), "one vector"),
        (X.astype("datetime64[s]"), "dates or durations"),
        (X.astype("timedelta64[s]"), "dates or durations"),
        (pd.DataFrame(X).assign(day=pd.Timestamp("2020-01-01")), "dates or durations in column 'day'"),
        (np.ma.masked_array(X, X > 1), "masked values; drop these rows"),
        (pd.Series([*X[:-1], None]), r"X\[47\] is None, not a vector"),
        (pd.Series([*X[:-1], X[0, :3]]), r"X\[47\] is .* not a vector like X\[0\], of shape \(5,\)"),
    ],
)
def test_other_rows_are_refused_shortly(call: str, rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        CALLS[call](rows)
    assert len(str(caught.value)) < 350


def test_views_that_are_masked_or_dates_are_refused() -> None:
    for view in (np.ma.masked_array(X, X > 1), X.astype("datetime64[s]")):
        with pytest.raises(ValueError, match=r"masked values|dates or durations"):
            stack_views({"a": view}, Y)


# --- Class labels


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["news", "sport"] * (N // 2)),
        np.arange(N) % 3,
        np.arange(N) % 2 == 0,
        (np.arange(N) % 3).astype(float),
        (np.arange(N) % 3).tolist(),
        ["news", "sport"] * (N // 2),
        pd.Series(["news", "sport"] * (N // 2), dtype="category"),
        pl.Series(["news", "sport"] * (N // 2)),
        pa.array(np.arange(N) % 3),
        torch.arange(N) % 3,
        sp.coo_array(np.arange(N) % 3),
        np.ones(N) * 7,
    ],
)
def test_class_labels_are_refused(labels: Any) -> None:
    extractor = model(vocabulary=None)
    for fit in (extractor.fit, extractor.partial_fit, extractor.fit_transform):
        with pytest.raises(ValueError, match=r"1-D, like class labels.*texts.*FrozenEstimator.*reshape"):
            fit(X, labels)
    if isinstance(labels, np.ndarray):
        with pytest.raises(ValueError, match="like class labels"):
            make_pipeline(extractor, LogisticRegression()).fit(X, labels)
    with pytest.raises(NotFittedError):
        extractor.transform(X)


def test_labels_0_and_1_are_warned_of() -> None:
    labels = np.arange(N) % 2
    with pytest.warns(UserWarning, match=r"1-D with values 0 and 1, .* counts of one word.*FrozenEstimator"):
        make_pipeline(model(vocabulary=None), LogisticRegression()).fit(X, labels)


def test_counts_of_one_word_are_accepted() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        one = model(vocabulary=["dog"]).fit(X, Y[:, 0])
        column = model(vocabulary=None).fit(X, Y[:, :1])
    np.testing.assert_array_equal(one.word_embeddings_, column.word_embeddings_)
    assert one.score(X, Y[:, 0]) == 1.0


def test_a_fit_without_vocabulary_warns_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = model(vocabulary=None).fit(X, Y)
        fitted.extract_keywords(X)
        fitted.score(X, Y)
    assert len([w for w in caught if "words are called word0, word1" in str(w.message)]) == 1
    assert caught[0].filename == __file__


def test_a_vectorizer_is_a_vocabulary() -> None:
    vectorizer = CountVectorizer().fit([" ".join(WORDS)])
    fitted = model(vocabulary=vectorizer).fit(X, Y)
    assert fitted.vocabulary_.tolist() == sorted(WORDS)
    with pytest.raises(NotFittedError, match=r"pass vectorizer.get_feature_names_out\(\)"):
        clone(fitted).fit(X, Y)


# --- Magnitudes


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-100, 1e-40, 1e37, 1e39, 1e100, 1e200, 1e300])
def test_embeddings_beyond_the_number_format_are_refused_in_fit(scale: float) -> None:
    rows = X.astype(np.float64) * scale
    for call in (
        lambda: model().fit(rows, Y),
        lambda: model().partial_fit(rows, Y),
        lambda: regularization_path(rows, Y, [0.1], estimator=model()),
    ):
        with pytest.raises(ValueError, match=r"largest magnitude in X .* Multiply X by a constant"):
            call()


@pytest.mark.parametrize("scale", [1e-100, 1e-40, 1e37, 1e39, 1e100])
def test_float64_trains_where_float32_does_not_reach(scale: float) -> None:
    rows = X.astype(np.float64)
    plain, scaled = (model(precision="float64").fit(r, Y) for r in (rows, rows * scale))
    np.testing.assert_allclose(
        scaled.decision_function(rows * scale), plain.decision_function(rows), rtol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_scale_does_not_matter_within_float32(scale: float) -> None:
    rows = X.astype(np.float64)
    scaled = model().fit(rows * scale, Y)
    assert scaled.score(rows * scale, Y) == pytest.approx(FITTED.score(X, Y), abs=0.02)


@pytest.mark.parametrize("scale", [1e39, 1e200, 1e300])
@pytest.mark.parametrize(
    "call", ["decision_function", "predict_proba", "predict_log_proba", "predict", "transform",
             "extract_keywords", "score"],
)  # fmt: skip
def test_scores_that_overflow_are_refused(scale: float, call: str) -> None:
    rows = X.astype(np.float64)
    rows[7] *= scale
    for fitted in (FITTED, clone(FITTED).fit(X, Y).to_sparse()):
        with pytest.raises(FloatingPointError, match="scores of X overflow float32"):
            getattr(fitted, call)(rows, Y) if call == "score" else getattr(fitted, call)(rows)


# --- Settings


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, "seed"])
def test_seeds_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"random_state=.* is not allowed; use an integer from 0 to 4294967295"
    ):
        model(random_state=value).fit(X, Y)


@pytest.mark.parametrize("name", ["l1_strength", "l2_strength"])
def test_strengths_beyond_float32_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=1e\+300 is not allowed; .*<= 1e\+30"):
        model(**{name: 1e300}).fit(X, Y)
    assert np.count_nonzero(model(l1_strength=1e30).fit(X, Y).word_embeddings_) == 0


@pytest.mark.parametrize("weight", [1e300, 1e31, 1e-31, 1e-300])
def test_weights_far_from_one_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"largest sample_weight is .* divide the weights by their mean"):
        model().fit(X, Y, sample_weight=np.full(N, weight))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, np.datetime64("NaT")])
def test_missing_groups_are_refused(missing: Any) -> None:
    groups: list[Any] = ["a", "b"] * (N // 2)
    groups[3] = missing
    splice = SpLiCEExtractor(np.eye(D)).fit(X)
    for call in (lambda: model().fit(X, Y, groups=groups), lambda: splice.mean_concepts(X, groups)):
        with pytest.raises(ValueError, match=r"groups\[3\] = .* is missing; every row needs a group"):
            call()
    numbers = np.arange(N, dtype=float)
    numbers[3] = np.nan
    with pytest.raises(ValueError, match=r"groups\[3\] = nan is missing"):
        model().fit(X, Y, groups=numbers)


def test_groups_of_any_kind_are_the_same() -> None:
    numbers = np.arange(N) // 2
    names = [f"sentence {i:03}" for i in numbers]
    expected = model(early_stopping=True).fit(X, Y, groups=numbers).word_embeddings_
    for groups in (
        names,
        np.array(names),
        pd.Series(names),
        pl.Series(names),
        pa.array(names),
        numbers.tolist(),
    ):
        np.testing.assert_array_equal(
            model(early_stopping=True).fit(X, Y, groups=groups).word_embeddings_, expected
        )


@pytest.mark.parametrize("value", [np.True_, np.False_])
def test_early_stopping_takes_numpy_booleans(value: np.bool_) -> None:
    expected = model(early_stopping=bool(value)).fit(X, Y)
    np.testing.assert_array_equal(
        model(early_stopping=value).fit(X, Y).word_embeddings_, expected.word_embeddings_
    )


@pytest.mark.parametrize("scorer", [keyword_accuracy_scorer, log_likelihood_scorer])
@pytest.mark.parametrize("estimator", ["model", None, FLiPExtractor, 3, LogisticRegression])
def test_scorers_refuse_what_is_no_estimator(scorer: Any, estimator: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be scored; pass a fitted estimator with .* predict_proba"):
        scorer(estimator, X, Y)


def test_numbers_of_words_are_clamped() -> None:
    scores = rng.normal(size=(N, V))
    assert precision_recall(Y, scores, 10**15).recall.value == precision_recall(Y, scores, V).recall.value
    splice = SpLiCEExtractor(np.eye(D)).fit(X)
    for fitted in (FITTED, splice):
        many = clone(fitted).set_params(top_k=10**15).fit(X, Y)
        assert many.predict(X).shape == (N, len(many.vocabulary_))
        assert many.extract_keywords(X, top_k=10**18) == many.extract_keywords(X)


# --- The state of torch, of threads and of streams


def test_autocast_changes_nothing() -> None:
    splice = SpLiCEExtractor(rng.normal(size=(V, D)), device="cpu").fit(X)
    calls: list[Callable[[], Any]] = [
        lambda: model().fit(X, Y).word_embeddings_,
        lambda: FITTED.decision_function(X),
        lambda: FITTED.transform(X).toarray(),
        lambda: FITTED.score(X, Y),
        lambda: kkt_residual(FITTED, X, Y),
        lambda: regularization_path(X, Y, [0.1], estimator=model()).models[0].word_embeddings_,
        lambda: splice.transform(X).toarray(),
        lambda: splice.inverse_transform(splice.transform(X)),
    ]
    for call in calls:
        expected = call()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(call(), expected)


DEFAULT_DTYPE = """
import sys, hashlib, numpy as np, torch
for name in [name for name in sys.modules if name.startswith("flip_sklearn")]:
    del sys.modules[name]  # imported again with this default
torch.set_default_dtype(getattr(torch, sys.argv[1]))
torch.set_num_threads(1)
from flip_sklearn import FLiPExtractor, SpLiCEExtractor
rng = np.random.default_rng(0)
Y = rng.poisson(0.05, size=(400, 900)); Y[:, 0] += 1
X = (Y @ rng.normal(size=(900, 8))).astype(np.float32)
flip = FLiPExtractor(4, solver="sampled", max_iter=2, batch_size=4, random_state=0, device="cpu").fit(X, Y)
splice = SpLiCEExtractor(rng.normal(size=(900, 8)), device="cpu").fit(X)
arrays = flip.word_embeddings_, flip.decision_function(X), splice.transform(X).data
print([hashlib.sha256(np.ascontiguousarray(array)).hexdigest() for array in arrays])
"""


def test_the_default_dtype_of_torch_changes_nothing() -> None:
    printed = {
        run_python("-c", DEFAULT_DTYPE, dtype, cwd=ROOT).stdout
        for dtype in ("float32", "float64", "bfloat16")
    }
    assert len(printed) == 1
    assert printed != {""}


def test_a_later_chunk_without_words_changes_nothing() -> None:
    chunks = [(X[:20], Y[:20]), (X[20:30], np.zeros_like(Y[20:30])), (X[30:], Y[30:])]
    stream, without = model(), model()
    for rows, counts in chunks:
        stream.partial_fit(rows, counts)
    for rows, counts in (chunks[0], chunks[2]):
        without.partial_fit(rows, counts)
    np.testing.assert_array_equal(stream.word_embeddings_, without.word_embeddings_)
    np.testing.assert_array_equal(stream.embedding_mean_, without.embedding_mean_)


def test_scoring_while_another_thread_refits_uses_one_model() -> None:
    """The models have vocabularies of different sizes, so that a mixture fails or gives unknown words."""
    small = model(vocabulary=WORDS[:2]).fit(X, Y[:, :2])
    models = [vars(small), vars(FITTED)]
    shared = clone(FITTED)
    shared.__dict__.update(models[0])
    expected = [m.extract_keywords(X[:3], return_scores=True) for m in (small, FITTED)]
    done = threading.Event()

    def refit() -> None:
        i = 0
        while not done.is_set():
            i += 1
            shared._set_fitted({k: v for k, v in models[i % 2].items() if k.endswith("_")})

    thread = threading.Thread(target=refit)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            assert shared.extract_keywords(X[:3], return_scores=True) in expected
            shared.decision_function(X[:3])
            shared.transform(X[:3])
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_cross_val_predict_takes_sparse_counts() -> None:
    sparse = cross_val_predict(model(), X, sp.csr_array(Y), cv=3)
    assert (sparse != cross_val_predict(model(), X, Y, cv=3)).sum() == 0


def test_diagnostics_are_an_attribute_of_the_package() -> None:
    code = "import flip_sklearn; print(flip_sklearn.diagnostics.rank_analysis, flip_sklearn.encoders, "
    code += "flip_sklearn.plots, flip_sklearn.datasets, flip_sklearn.report)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Bad input is a clear error that changes nothing; unusual but legal input is handled correctly.

A clear error names the value, what is allowed and the remedy: each case below lists all three.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit.session import Session

N, D, V = 30, 5, 6


# Problems this small are stopped long before they converge.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make_data(n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, 5) float64 and counts (n, 6), at least one word a row."""
    rng = np.random.default_rng(seed)
    Y = rng.poisson(0.3, size=(n, V))
    Y[np.arange(n), np.arange(n) % V] += 1
    X = Y @ np.random.default_rng(99).normal(size=(V, D)) + 0.3 * rng.normal(size=(n, D))
    return X, Y


def make_model(**params: Any) -> FLiPExtractor:
    defaults = {"rank": 3, "max_iter": 2, "batch_size": 10, "learning_rate": 0.5, "random_state": 0}
    return FLiPExtractor(**{**defaults, **params})


def state(model: FLiPExtractor) -> dict[str, str]:
    """A hash of every attribute, including parameters and private ones."""
    return {name: joblib.hash(value) for name, value in vars(model).items()}


X, Y = make_data()
WORDS = [f"word{j}" for j in range(V)]


def put(array: np.ndarray, value: float, at: tuple[int, int] = (3, 2)) -> np.ndarray:
    """A copy as floats, with one value changed."""
    changed = array.astype(float)
    changed[at] = value
    return changed


def no_words() -> np.ndarray:
    return np.zeros_like(Y)


@dataclass(frozen=True)
class Bad:
    """Arguments or parameters that must be refused, and parts of the message."""

    message: list[str]
    X: Any = field(default_factory=lambda: X)
    Y: Any = field(default_factory=lambda: Y)
    w: Any = None
    params: dict[str, Any] = field(default_factory=dict)
    # What only the first chunk of a stream decides, so later ones do not look at it.
    only_at_the_start: bool = False


CASES: dict[str, Bad] = {
    # X and Y do not belong together
    "Y too short": Bad(["X has 30 rows", "Y has 29", "one row of counts per embedding"], Y=Y[:-1]),
    "Y too long": Bad(["X has 29 rows", "Y has 30", "one row of counts per embedding"], X=X[:-1]),
    "no Y": Bad(["None", "(n, V) word counts", "CountVectorizer"], Y=None),
    # Y is not counts
    "NaN count": Bad(["Y[3, 2] = nan", "finite numbers >= 0"], Y=put(Y, np.nan)),
    "infinite count": Bad(["Y[3, 2] = inf", "finite numbers >= 0"], Y=put(Y, np.inf)),
    "minus infinite count": Bad(["Y[3, 2] = -inf", "finite numbers >= 0"], Y=put(Y, -np.inf)),
    "negative count": Bad(["Y[3, 2] = -1", "must be >= 0"], Y=put(Y, -1)),
    "negative integer": Bad(["Y[3, 2] = -1", ">= 0"], Y=put(Y, -1).astype(int)),
    "fractional count": Bad(["Y[3, 2] = 0.5", "integers", "sample_weight"], Y=put(Y, 0.5)),
    "sparse NaN": Bad(["Y[3, 2] = nan", "finite numbers >= 0"], Y=sp.csc_array(put(Y, np.nan))),
    "sparse inf": Bad(["Y[3, 2] = inf", "finite"], Y=sp.csr_matrix(put(Y, np.inf))),
    "sparse negative": Bad(["Y[3, 2] = -2", "must be >= 0"], Y=sp.coo_array(put(Y, -2))),
    "sparse fraction": Bad(
        ["Y[3, 2] = 1.5", "integers", "sample_weight"], Y=sp.lil_array(put(Y, 1.5))
    ),
    "negative under a duplicate": Bad(
        ["Y[0, 1] = -1", "must be >= 0"],
        X=X[:1],
        Y=sp.csr_array((np.array([3, -1, 1]), np.array([1, 1, 5]), np.array([0, 3])), shape=(1, V)),
    ),
    "frame with NaN": Bad(["Y[3, 2] = nan", "finite"], Y=pd.DataFrame(put(Y, np.nan))),
    "texts": Bad(["<U", "word counts", "CountVectorizer"], Y=np.array(["a dog", "a cat"] * 15)),
    "words": Bad(["object", "word counts", "CountVectorizer"], Y=np.full((N, V), "x", object)),
    "complex counts": Bad(["complex", "word counts"], Y=Y + 1j),
    "sparse complex counts": Bad(["complex", "word counts"], Y=sp.csr_array(Y + 1j)),
    "ragged lists": Bad(["Y", "word counts"], Y=[[1, 2]] * 29 + [[1]]),
    "three dimensions": Bad(["3 dimensions", "(n, V)", "pass word counts"], Y=Y[:, :, None]),
    "a single number": Bad(["0 dimensions", "(n, V)", "pass word counts"], Y=3),
    "counts beyond float32": Bad(["Y[3, 2] = 1e+300"], Y=put(Y, 1e300)),
    # Nothing to learn from
    "no columns": Bad(["no columns", "V >= 1", "at least one word"], Y=Y[:, :0]),
    "no words": Bad(["no counts", "30 rows", "needs a word", "vectorizer"], Y=no_words(),
        only_at_the_start=True),
    "sparse without entries": Bad(
        ["no counts", "30 rows", "needs a word", "vectorizer"], Y=sp.csr_array((N, V)), only_at_the_start=True
    ),
    "explicit zeros only": Bad(
        ["no counts", "30 rows", "needs a word"],
        Y=sp.csr_array((np.zeros(N), np.zeros(N, dtype=int), np.arange(N + 1)), shape=(N, V)),
        only_at_the_start=True,
    ),
    "no rows": Bad(["0 sample", "minimum of 1"], X=X[:0], Y=Y[:0]),
    # X is not embeddings
    "NaN in X": Bad(["NaN", "X[3, 2] = nan", "finite", "drop such rows"], X=put(X, np.nan)),
    "inf in X": Bad(["infinity", "X[3, 2] = inf", "finite", "drop such rows"], X=put(X, np.inf)),
    "-inf in float16 X": Bad(
        ["infinity", "X[3, 2] = -inf", "finite"], X=put(X, -np.inf).astype(np.float16)
    ),
    "NaN in a tensor": Bad(["NaN", "X[3, 2] = nan"], X=torch.tensor(put(X, np.nan)).bfloat16()),
    "sparse X": Bad(["csr_array", "dense", "toarray()", "pass them as Y"], X=sp.csr_array(X)),
    "sparse matrix X": Bad(["csc_matrix", "dense", "toarray()"], X=sp.csc_matrix(X)),
    "sparse torch X": Bad(["sparse", "dense"], X=torch.tensor(X).to_sparse()),
    "one-dimensional X": Bad(["1D array", "Expected 2D", "reshape(-1, 1)"], X=X[:, 0]),
    "three-dimensional X": Bad(["dim 3", "<= 2"], X=X[:, :, None]),
    "no features": Bad(["0 feature", "minimum of 1"], X=X[:, :0], params={"rank": "auto"}),
    "text in X": Bad(["could not convert", "'dog'"], X=np.full((N, D), "dog")),
    "complex X": Bad(["Complex data not supported"], X=X + 1j),
    # Weights
    "negative weight": Bad(
        ["sample_weight[1] = -1.0", "must be >= 0"], w=np.r_[1.0, -1.0, np.ones(N - 2)]
    ),
    "NaN weight": Bad(["sample_weight", "NaN"], w=np.r_[1.0, np.nan, np.ones(N - 2)]),
    "infinite weight": Bad(["sample_weight", "infinity"], w=np.r_[1.0, np.inf, np.ones(N - 2)]),
    # scikit-learn 1.9 says so itself, before us
    "weights all zero": Bad(["at least one"], w=np.zeros(N)),
    "too few weights": Bad(["sample_weight", "(29,)", "(30,)"], w=np.ones(N - 1)),
    "weights as a column": Bad(["Sample weights must be 1D"], w=np.ones((N, 1))),
    "weight only on empty rows": Bad(
        ["no counts", "weight > 0", "needs a word"],
        Y=np.r_[no_words()[:15], Y[15:]],
        w=np.r_[np.ones(15), np.zeros(15)],
    ),
    # rank
    **{
        f"rank={rank!r}": Bad(
            [f"rank={rank!r}", "integer from 1 to the embedding dimension 5", "'auto'", "None"],
            params={"rank": rank},
        )
        for rank in (6, 0, -1, 2.0, 2.5, "full", True, float("nan"), [3])
    },
    # vocabulary
    "vocabulary too short": Bad(
        ["5 words", "6 columns", "one word per column"],
        params={"vocabulary": WORDS[:5]}, only_at_the_start=True,
    ),
    "vocabulary too long": Bad(
        ["7 words", "6 columns", "one word per column"],
        params={"vocabulary": [*WORDS, "more"]}, only_at_the_start=True,
    ),
    "vocabulary with repeats": Bad(
        ["'word1' more than once", "its own word"],
        params={"vocabulary": ["word0", "word1", "word1", *WORDS[3:]]}, only_at_the_start=True,
    ),
    "one string as vocabulary": Bad(
        ["'abcdef'", "sequence of 6 words", "dict of word to column"],
        params={"vocabulary": "abcdef"}, only_at_the_start=True,
    ),
    "bytes as vocabulary": Bad(
        ["b'abcdef'", "sequence of 6 words"],
        params={"vocabulary": b"abcdef"}, only_at_the_start=True,
    ),
    "number as vocabulary": Bad(
        ["vocabulary=6", "sequence of 6 words"],
        params={"vocabulary": 6}, only_at_the_start=True,
    ),
    "scalar array as vocabulary": Bad(
        ["vocabulary", "sequence of 6 words"],
        params={"vocabulary": np.array("a")}, only_at_the_start=True,
    ),
    "set as vocabulary": Bad(  # it has no order, so words would land on any column
        ["vocabulary", "sequence of 6 words", "column order"],
        params={"vocabulary": set(WORDS)}, only_at_the_start=True,
    ),
    "dict with too few words": Bad(
        ["5 words", "0 to 5", "6 columns", "vocabulary_"],
        params={"vocabulary": {w: j for j, w in enumerate(WORDS[:5])}}, only_at_the_start=True,
    ),
    "dict with a column twice": Bad(
        ["6 words", "0 to 5, once each", "vocabulary_"],
        params={"vocabulary": {w: min(j, 4) for j, w in enumerate(WORDS)}}, only_at_the_start=True,
    ),
    "dict with a column outside": Bad(
        ["0 to 5, once each", "vocabulary_"],
        params={"vocabulary": {w: j + 1 for j, w in enumerate(WORDS)}}, only_at_the_start=True,
    ),
    "dict without columns": Bad(
        ["0 to 5, once each", "vocabulary_"],
        params={"vocabulary": dict.fromkeys(WORDS)}, only_at_the_start=True,
    ),
    "frame with a column twice": Bad(
        ["column names of Y", "'a' more than once", "its own word"],
        Y=pd.DataFrame(Y, columns=list("aabcde")), only_at_the_start=True,
    ),
    # device and precision
    **{
        f"device={device!r}": Bad(
            [f"device={device!r}", "'auto', 'cpu', 'cuda' or 'cuda:<index>'"],
            params={"device": device},
        )
        for device in ("gpu", "mps", "cuda:-1", "", None, 1.5)
    },
    "device that is not here": Bad(
        ["device='cuda:99'", "visible", "device='auto' or 'cpu'"], params={"device": "cuda:99"}
    ),
    **{
        f"precision={precision!r}": Bad(
            [f"precision={precision!r}", "'auto', 'float32', 'bfloat16', 'float64'"],
            params={"precision": precision},
        )
        for precision in ("fp32", "half", None, 16)
    },
    # numbers
    **{
        f"{name}={value!r}": Bad([f"{name}={value!r}", "integer >= 1"], params={name: value})
        for name in ("top_k", "max_iter", "n_iter_no_change")
        for value in (0, -1, 1.5, "2", None, True)
    },
    **{
        f"batch_size={value!r}": Bad(
            [f"batch_size={value!r}", "integer >= 1", "'auto'"], params={"batch_size": value}
        )
        for value in (0, -1, 1.5, "all", None, True)
    },
    **{
        f"{name}={value!r}": Bad([f"{name}={value!r}", "finite number >= 0"], params={name: value})
        for name in ("l1_strength", "l2_strength", "tol")
        for value in (-1e-9, float("nan"), float("inf"), "0", None, True)
    },
    **{
        f"learning_rate={value!r}": Bad(
            [f"learning_rate={value!r}", "finite number > 0"], params={"learning_rate": value}
        )
        for value in (0, 0.0, -0.1, float("nan"), float("inf"), "0.1", None)
    },
    **{
        f"validation_fraction={value!r}": Bad(
            [f"validation_fraction={value!r}", "> 0 and < 1"], params={"validation_fraction": value}
        )
        for value in (0, 1, 1.0, -0.1, 2, float("nan"), None)
    },
    **{
        f"{name}={value!r}": Bad([f"{name}={value!r}", "True or False"], params={name: value})
        for name in ("use_bias", "warm_start", "sparse_output")
        for value in (1, 0, None, "yes")
    },
    **{
        f"early_stopping={value!r}": Bad(
            [f"early_stopping={value!r}", "'auto', True, False, 'accuracy', 'likelihood'"],
            params={"early_stopping": value},
        )
        for value in ("loss", 1, 0, None)
    },
    **{
        f"solver={value!r}": Bad([f"solver={value!r}", "'auto', 'exact'"], params={"solver": value})
        for value in ("adam", None)
    },
    "random_state": Bad(["'seed'", "seed"], params={"random_state": "seed"}),
}  # fmt: skip


def refused(call: Callable[[], Any], parts: list[str]) -> str:
    """Check that a call raises a ValueError whose message has all the parts; return the message."""
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        call()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    return message


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_input_is_refused_and_changes_nothing(name: str, method: str) -> None:
    case = CASES[name]
    fresh = make_model(**case.params)
    before = state(fresh)
    refused(lambda: getattr(fresh, method)(case.X, case.Y, case.w), case.message)
    assert state(fresh) == before
    with pytest.raises(NotFittedError):
        check_is_fitted(fresh)

    if method == "partial_fit" and case.only_at_the_start:
        return
    fitted = make_model().fit(X, Y)
    scores = fitted.decision_function(X)
    fitted.set_params(**case.params)
    before = state(fitted)
    refused(lambda: getattr(fitted, method)(case.X, case.Y, case.w), case.message)
    assert state(fitted) == before
    fitted.set_params(**make_model().get_params())
    np.testing.assert_array_equal(fitted.decision_function(X), scores)


def test_compared_state_depends_on_changes() -> None:
    """Negative control of the test above."""
    fitted = make_model().fit(X, Y)
    before = state(fitted)
    assert state(fitted) == before
    assert {"n_features_in_", "bias_", "_moments", "history_", "rank"} <= set(before)
    fitted.bias_[0] += 1
    assert state(fitted) != before
    assert state(make_model().fit(X, Y).fit(X[:20], Y[:20])) != before


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_feature_names_are_unchanged_after_a_failure(method: str) -> None:
    """scikit-learn sets the feature attributes early in fit; a later failure must not keep them."""
    frame = pd.DataFrame(X, columns=[f"dim{j}" for j in range(D)])
    fitted = make_model().fit(frame, Y)
    before = state(fitted)
    refused(lambda: getattr(fitted, method)(frame, -Y), ["must be >= 0"])
    if method == "fit":
        other = pd.DataFrame(X[:, :4], columns=list("abcd"))
        refused(lambda: fitted.fit(other, -Y), ["must be >= 0"])
    assert state(fitted) == before
    assert list(fitted.feature_names_in_) == list(frame.columns)


@pytest.mark.parametrize("rank", [3, None])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_failure_during_training_changes_nothing(monkeypatch, method: str, rank: int | None) -> None:
    """A loss that is not finite after the first pass leaves the estimator unchanged."""
    take_steps = Session._take_steps

    def diverging(*args: Any) -> float:
        take_steps(*args)
        return float("nan")

    fitted = make_model(rank=rank).fit(X, Y).set_params(learning_rate=7.0)
    monkeypatch.setattr(Session, "_take_steps", diverging)
    fresh = make_model(learning_rate=7.0, rank=rank)
    before = state(fresh)
    with pytest.raises(FloatingPointError) as caught:
        getattr(fresh, method)(X, Y)
    for part in ("nan", "pass 1", "learning_rate", "7.0", "precision"):
        assert part in str(caught.value)
    assert state(fresh) == before
    with pytest.raises(NotFittedError):
        check_is_fitted(fresh)
    before = state(fitted)
    with pytest.raises(FloatingPointError):
        getattr(fitted, method)(X, Y)
    assert state(fitted) == before


@pytest.mark.parametrize("batch_size", [10, 1000])
@pytest.mark.parametrize("rank", [3, None])
@pytest.mark.parametrize("learning_rate", [1e15, 1e30, 1e37, 1e38, 1e300])
def test_overflowing_parameters_are_refused(learning_rate: float, rank: int | None, batch_size: int) -> None:
    """Also if the overflow is in the last step, after which no loss is computed."""
    params = {"learning_rate": learning_rate, "rank": rank, "batch_size": batch_size}
    model = make_model(max_iter=1, **params)
    with np.errstate(all="ignore"):
        try:
            model.fit(X, Y)
        except FloatingPointError:
            return
    for name in ("word_embeddings_", "projection_", "bias_"):
        assert np.isfinite(getattr(model, name)).all(), name
    assert np.isfinite(model.decision_function(X)).all()


def test_embeddings_too_large_to_square() -> None:
    """X is finite but its covariance is not; the message names X."""
    fresh = make_model()
    before = state(fresh)
    with np.errstate(all="ignore"):
        refused(lambda: fresh.fit(X * 1e300, Y), ["X"])
    assert state(fresh) == before


@pytest.mark.parametrize("early_stopping", [True, "accuracy", "likelihood"])
def test_early_stopping_needs_two_rows_with_words(early_stopping: Any) -> None:
    one = np.zeros_like(Y)
    one[3, 2] = 1
    fresh = make_model(early_stopping=early_stopping)
    message = refused(lambda: fresh.fit(X, one), [f"early_stopping={early_stopping!r}"])
    for part in ("at least 2 rows", "1", "early_stopping=False"):
        assert part in message
    make_model(early_stopping="auto").fit(X, one)
    one[4, 1] = 1
    fresh.fit(X, one)


# --- Streams ---------------------------------------------------------------------------------


def test_chunks_must_match_the_first_chunk() -> None:
    model = make_model().partial_fit(X, Y)
    before = state(model)
    refused(
        lambda: model.partial_fit(X, Y[:, :5]),
        ["Y has 5 columns", "the earlier chunks had 6", "same vocabulary"],
    )
    refused(lambda: model.partial_fit(X[:, :4], Y), ["X has 4 features", "expecting 5"])
    assert state(model) == before
    model.set_params(rank=2)
    refused(
        lambda: model.partial_fit(X, Y),
        ["rank=2", "rank 3 of the chunks before", "keep it", "start over with fit"],
    )
    assert state(model.set_params(rank=3)) == before


# --- Scoring ---------------------------------------------------------------------------------

VERBS: dict[str, Callable[[FLiPExtractor, Any], Any]] = {
    "decision_function": lambda m, X: m.decision_function(X),
    "predict_proba": lambda m, X: m.predict_proba(X),
    "predict_log_proba": lambda m, X: m.predict_log_proba(X),
    "predict": lambda m, X: m.predict(X),
    "transform": lambda m, X: m.transform(X),
    "extract_keywords": lambda m, X: m.extract_keywords(X),
    "score": lambda m, X: m.score(X, Y),
}


@pytest.mark.parametrize("verb", VERBS)
def test_scoring_before_fit_is_an_error(verb: str) -> None:
    model = make_model()
    with pytest.raises(NotFittedError, match=r"not fitted yet. Call 'fit'"):
        VERBS[verb](model, X)
    with pytest.raises(NotFittedError, match=r"not fitted yet. Call 'fit'"):
        model.get_feature_names_out()


BAD_QUESTIONS: dict[str, tuple[Any, list[str]]] = {
    "NaN": (put(X, np.nan), ["NaN", "X[3, 2] = nan", "finite", "drop such rows"]),
    "inf": (put(X, np.inf).astype(np.float32), ["infinity", "X[3, 2] = inf", "finite"]),
    "sparse": (sp.csr_array(X), ["csr_array", "dense", "toarray()"]),
    "one row": (X[0], ["1D array", "Expected 2D", "reshape(1, -1)"]),
    "too few features": (X[:, :4], ["X has 4 features", "expecting 5"]),
    "too many features": (np.c_[X, X], ["X has 10 features", "expecting 5"]),
    "no rows": (X[:0], ["0 sample", "minimum of 1"]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("question", BAD_QUESTIONS)
def test_bad_input_when_scoring(verb: str, question: str) -> None:
    model = make_model().fit(X, Y)
    before = state(model)
    bad, message = BAD_QUESTIONS[question]
    refused(lambda: VERBS[verb](model, bad), message)
    assert state(model) == before


def test_another_feature_count_names_the_remedy() -> None:
    """scikit-learn's message has no remedy; ours names the encoder."""
    model = make_model().fit(X, Y)
    message = refused(lambda: model.predict(X[:, :4]), ["X has 4 features"])
    assert not message.rstrip(".").endswith("features as input"), message


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "3", True])
def test_bad_top_k_when_scoring(top_k: Any) -> None:
    model = make_model().fit(X, Y)
    parts = [f"top_k={top_k!r}", "integer >= 1"]
    refused(lambda: model.extract_keywords(X, top_k=top_k), parts)
    model.set_params(top_k=top_k)
    for verb in ("predict", "transform", "extract_keywords"):
        refused(lambda verb=verb: VERBS[verb](model, X), parts)


def test_bad_parameters_when_scoring() -> None:
    model = make_model().fit(X, Y)
    for name, value in (("use_bias", "no"), ("sparse_output", 1), ("device", "gpu")):
        model.set_params(**{name: value})
        refused(lambda: model.transform(X), [f"{name}={value!r}"])
        model.set_params(**{name: make_model().get_params()[name]})
    refused(lambda: model.set_params(precision="fp8").score(X, Y), ["precision='fp8'", "'float32'"])


def test_bad_targets_when_scoring() -> None:
    model = make_model().fit(X, Y)
    columns = ["Y has 5 columns", "6 words", "vocabulary of fit"]
    refused(lambda: model.score(X, Y[:, :5]), columns)
    refused(lambda: model.score(X, Y[:-1]), ["X has 30 rows", "Y has 29"])
    refused(lambda: model.score(X, -Y), ["= -", "must be >= 0"])
    refused(lambda: model.score(X, put(Y, 0.5)), ["Y[3, 2] = 0.5", "integers"])
    refused(lambda: model.score(X, Y, np.ones(29)), ["sample_weight", "(29,)", "(30,)"])
    refused(lambda: model.score(X, Y, -np.ones(30)), ["sample_weight", ">= 0"])
    assert np.isnan(model.score(X, no_words()))  # no row to judge by


# --- Words never seen in training ------------------------------------------------------------


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("rank", [3, None])
@pytest.mark.parametrize("use_bias", [True, False])
def test_unseen_words_are_finite_and_never_extracted(method: str, rank: int | None, use_bias: bool) -> None:
    counts = Y.copy()
    counts[:, [1, 4]] = 0
    model = getattr(make_model(rank=rank, use_bias=use_bias, top_k=V), method)(X, counts)
    z, theta = model.decision_function(X), model.predict_proba(X)
    seen = np.array([0, 2, 3, 5])
    assert np.isfinite(z).all()
    assert np.isfinite(model.bias_).all()
    assert np.isfinite(model.predict_log_proba(X)).all()
    assert (z[:, [1, 4]].max(axis=1) < z[:, seen].min(axis=1)).all()
    assert (theta[:, [1, 4]] == 0).all()
    np.testing.assert_allclose(theta.sum(axis=1), 1, atol=1e-6)
    for line in model.extract_keywords(X):
        assert sorted(line) == ["word0", "word2", "word3", "word5"]
    assert model.predict(X)[:, [1, 4]].sum() == 0
    assert model.transform(X)[:, [1, 4]].nnz == 0
    assert (model.word_embeddings_[[1, 4]] == 0).all()
    # Columns that are never filled change nothing for the others.
    without = getattr(make_model(rank=rank, use_bias=use_bias), method)(X, counts[:, seen])
    # The products have other widths then, whose sums BLAS may order differently: equal to rounding.
    np.testing.assert_allclose(without.decision_function(X), z[:, seen], rtol=1e-5, atol=1e-5)
    # Negative control: with the words in Y they are extracted.
    complete = getattr(make_model(rank=rank, use_bias=use_bias, top_k=V), method)(X, Y)
    assert complete.predict(X)[:, [1, 4]].sum() == 2 * N


@settings(max_examples=30, deadline=None)
@example(scale=1e7, use_bias=True, rank=3, seed=0)
@given(
    scale=st.sampled_from([1e-3, 1.0, 1e3, 1e5, 1e6, 1e8]),
    use_bias=st.booleans(),
    rank=st.sampled_from([1, 3, None]),
    seed=st.integers(0, 1000),
)
def test_unseen_words_are_below_seen_words_far_from_the_data(
    scale: float, use_bias: bool, rank: int | None, seed: int
) -> None:
    """Scores are unbounded far from the data, so no constant is below all of them."""
    counts = Y.copy()
    counts[:, 4] = 0
    model = make_model(rank=rank, use_bias=use_bias, top_k=5).fit(X, counts)
    far = scale * np.random.default_rng(seed).normal(size=(20, D))
    for line in model.extract_keywords(far):
        assert "word4" not in line
    z = model.decision_function(far)
    assert np.isfinite(z).all()
    assert (z[:, 4] <= np.delete(z, 4, axis=1).min(axis=1)).all()


# --- Rows without information ----------------------------------------------------------------


def full_batch(**params: Any) -> FLiPExtractor:
    """One batch per pass, so that the order of the rows changes only the order of sums."""
    exact = {"batch_size": 1000, "early_stopping": False, "precision": "float64", "max_iter": 15}
    return make_model(**{**exact, "tol": 0.0, "learning_rate": 0.1, **params})


def same_fit(a: FLiPExtractor, b: FLiPExtractor, atol: float = 1e-9) -> bool:
    return (
        np.allclose(a.decision_function(X), b.decision_function(X), atol=atol, rtol=0)
        and np.allclose(a.history_["loss"], b.history_["loss"], atol=atol, rtol=0)
        and np.allclose(a.embedding_mean_, b.embedding_mean_, atol=atol, rtol=0)
        and np.isclose(a.l1_max_, b.l1_max_, atol=atol, rtol=0)
    )


@pytest.mark.parametrize("rank", [3, None])
def test_rows_without_words_have_no_weight(rank: int | None) -> None:
    rng = np.random.default_rng(0)
    junk = 1e3 * rng.normal(size=(10, D))
    at = rng.integers(0, N, size=10)
    more_X, more_Y = np.insert(X, at, junk, axis=0), np.insert(Y, at, 0, axis=0)
    expected = full_batch(rank=rank).fit(X, Y)
    assert same_fit(full_batch(rank=rank).fit(more_X, more_Y), expected)
    assert same_fit(full_batch(rank=rank).fit(more_X, sp.csr_array(more_Y)), expected)
    # Negative control: one word in such a row, and it counts.
    more_Y[np.flatnonzero(more_Y.sum(axis=1) == 0)[0], 0] = 1
    assert not same_fit(full_batch(rank=rank).fit(more_X, more_Y), expected, atol=1e-3)


@pytest.mark.parametrize("rank", [3, None])
def test_rows_of_zero_weight_are_ignored(rank: int | None) -> None:
    more_X, more_Y = np.r_[X, 1e3 + X[:5]], np.r_[Y, Y[5:10]]
    w = np.r_[np.ones(N), np.zeros(5)]
    expected = full_batch(rank=rank).fit(X, Y)
    assert same_fit(full_batch(rank=rank).fit(more_X, more_Y, w), expected)
    w[-1] = 0.1
    assert not same_fit(full_batch(rank=rank).fit(more_X, more_Y, w), expected, atol=1e-3)


@pytest.mark.parametrize("early_stopping", [False, True, "likelihood"])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 7}, {"solver": "sampled"}])
def test_zero_weights_give_the_same_bits_as_dropping_rows(early_stopping: Any, settings: Any) -> None:
    """A part of a memory-mapped X can therefore be trained on without a copy."""
    w = (np.arange(N) % 4 > 0).astype(float)
    kept = np.flatnonzero(w)
    params = {"early_stopping": early_stopping, "max_iter": 4, "random_state": 0, **settings}
    model = FLiPExtractor(3, **params)
    one = clone(model).fit(X, Y, w)
    two = clone(model).fit(X[kept], Y[kept])
    for name in ("word_embeddings_", "projection_", "bias_", "embedding_mean_", "word_counts_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("place", [0, 7, N - 1])
def test_word_only_in_a_row_of_zero_weight_is_unseen(method: str, early_stopping: bool, place: int) -> None:
    """The word is finite and never extracted, as if the row were dropped."""
    counts = np.insert(Y, 2, 0, axis=1)  # a new word, in the middle of the vocabulary
    counts[place, 2] = 3
    w = np.ones(N)
    w[place] = 0
    params = {"max_iter": 3, "early_stopping": early_stopping, "top_k": 7}
    model = getattr(full_batch(**params), method)(X, counts, w)
    assert model.word_counts_[2] == 0
    assert model.predict(X)[:, 2].sum() == 0
    if not early_stopping:
        dropped = np.delete(np.arange(N), place)
        expected = getattr(full_batch(**params), method)(X[dropped], counts[dropped])
        assert same_fit(model, expected)


FACTORS = [1e-6, 1e-3, 1 / N, 1e3, 1e6]


@pytest.fixture(scope="module")
def at_the_optimum() -> Callable[[Any], FLiPExtractor]:
    """Fit with given weights until nothing changes, once for all tests."""

    @cache
    def fit(factor: float | None) -> FLiPExtractor:
        w = np.random.default_rng(0).integers(1, 10, size=N).astype(float)
        params = {"rank": None, "l1_strength": 0.0, "l2_strength": 0.0, "learning_rate": 0.05}
        params |= {"n_iter_no_change": 1000, "max_iter": 1000}
        return full_batch(**params).fit(X, Y, None if factor is None else factor * w)

    return fit


@pytest.mark.parametrize("factor", FACTORS)
def test_scale_of_the_weights_does_not_change_the_optimum(at_the_optimum: Any, factor: float) -> None:
    """J divides by the sum of the weights. (Only the whitening's ridge knows their sum.)"""
    expected, scaled = at_the_optimum(1.0), at_the_optimum(factor)
    np.testing.assert_allclose(scaled.word_counts_, factor * expected.word_counts_)
    np.testing.assert_allclose(scaled.history_["loss"][-1], expected.history_["loss"][-1], atol=2e-3)
    theta, theta_scaled = expected.predict_proba(X), scaled.predict_proba(X)
    np.testing.assert_allclose(theta_scaled, theta, atol=0.03)
    # Negative control: without the weights it is another optimum.
    assert np.abs(at_the_optimum(None).predict_proba(X) - theta).max() > 0.1


@pytest.mark.parametrize("factor", [1.0, *FACTORS])
@pytest.mark.parametrize("rank", [3, None])
def test_at_l1_max_training_starts_at_the_log_word_frequencies(rank, factor: float) -> None:
    """At l1_max the closed-form start is A = 0, and steps of length zero keep it."""
    w = factor * np.random.default_rng(0).integers(1, 4, size=N)
    settings = {"rank": rank, "max_iter": 1, "learning_rate": 1e-12}
    top = full_batch(**settings).fit(X, Y, w).l1_max_
    model = full_batch(l1_strength=1.000001 * top, **settings).fit(X, Y, w)
    assert not model.word_embeddings_.any()
    frequency = (w @ Y) / (w @ Y).sum()
    np.testing.assert_allclose(np.exp(model.bias_), frequency, rtol=1e-6)
    assert frequency.max() > 1.5 * frequency.min()  # far from uniform
    below = full_batch(l1_strength=top / 10, **settings).fit(X, Y, w)
    assert below.word_embeddings_.any()  # negative control: a start that knows the data


# --- Unusual input ---------------------------------------------------------------------------


@pytest.mark.parametrize("rank", ["auto", None])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_degenerate_problems(rank: Any, method: str) -> None:
    """One row, one word, and constant, tiny or large embeddings give finite results without a warning."""
    problems = [
        (X[:1], Y[:1]),
        (X[:, :1], Y),
        (X, Y[:, :1]),
        (np.ones_like(X), Y),
        (X * 1e-30, Y),
        (X * 1e15, Y),
        (np.c_[X, X], Y),  # singular covariance
        (X[:3], Y[:3]),  # fewer rows than dimensions
        (X, 1000 * Y),
    ]
    for x, y in problems:
        model = getattr(make_model(rank=rank), method)(x, y)
        assert np.isfinite(model.history_["loss"]).all()
        assert np.isfinite(model.decision_function(x)).all()
        assert np.isfinite(model.predict_proba(x)).all()


def test_rank_of_a_numpy_integer_and_the_whole_dimension() -> None:
    assert make_model(rank=np.int64(2)).fit(X, Y).rank_ == 2
    assert make_model(rank=D).fit(X, Y).rank_ == D
    assert make_model(rank="auto").fit(X, Y).rank_ == D
    assert make_model(rank=None).fit(X, Y).rank_ == D


def test_messages_name_the_position_in_any_block() -> None:
    """X is checked in blocks; the position in the message is that in X."""
    rng = np.random.default_rng(0)
    tall = rng.normal(size=(1_200_000, 4)).astype(np.float16)  # more than one block
    tall[1_100_000, 3] = np.inf
    refused(lambda: make_model().fit(tall, sp.csr_array((1_200_000, 2))), ["X[1100000, 3] = inf"])

"""The contracts of scikit-learn: checks, search, pickle, routing, callbacks, containers."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.fixes import parse_version
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from flip_sklearn import FLiPExtractor, keyword_accuracy, keyword_accuracy_scorer
from flip_sklearn.estimation import scoring as _scoring
from tests.helpers import processes
from tests.helpers.paths import ROOT
from tests.helpers.processes import N_THREADS

KEYWORDS = ["red", "green", "blue", "dog", "cat", "tree", "house", "river", "sky", "book"]


# Problems this small are stopped long before they converge.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    """Limit the threads of NumPy and OpenMP too, since more threads are slower on small problems."""
    with threadpool_limits(N_THREADS):
        yield


def make_data(n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, 8) float32, linear in the counts (n, 10) of their words plus noise."""
    rng = np.random.default_rng(seed)
    vectors = np.random.default_rng(99).normal(size=(10, 8))
    Y = rng.poisson(0.25, size=(n, 10))
    Y[np.arange(n), rng.integers(10, size=n)] += 1
    X = Y @ vectors + 0.3 * rng.normal(size=(n, 8))
    return X.astype(np.float32), Y


def make_model(**params: Any) -> FLiPExtractor:
    defaults = {"rank": 6, "max_iter": 4, "batch_size": 60, "learning_rate": 0.5, "random_state": 0}
    return FLiPExtractor(**{**defaults, "vocabulary": KEYWORDS, **params})


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return make_data()


@pytest.fixture(scope="module")
def fitted(data: tuple[np.ndarray, np.ndarray]) -> FLiPExtractor:
    return make_model().fit(*data)


def same_model(a: FLiPExtractor, b: FLiPExtractor) -> bool:
    """Every fitted array equal to the last bit."""
    names = ["word_embeddings_", "projection_", "bias_", "embedding_mean_", "word_counts_"]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def run_python(code: str, *arguments: object, **environment: str) -> str:
    """Run code in a fresh interpreter that finds this package, and return what it prints."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# --- The checks of scikit-learn --------------------------------------------------------------


@parametrize_with_checks([FLiPExtractor(), FLiPExtractor(rank=None)])
def test_scikit_learn_check(estimator: FLiPExtractor, check: Any) -> None:
    """One test for each check; the array API one is skipped here and run in the next test."""
    check(estimator)


def test_no_check_is_skipped_or_expected_to_fail() -> None:
    """With the array API enabled, which needs a fresh process, no check is skipped."""
    code = """
import json
from sklearn.utils.estimator_checks import check_estimator
from flip_sklearn import FLiPExtractor
results = [r for e in (FLiPExtractor(), FLiPExtractor(rank=None))
           for r in check_estimator(e, on_fail=None, on_skip=None)]
print(json.dumps([[r["check_name"], r["status"], str(r["exception"])] for r in results]))
"""
    results = json.loads(run_python(code, SCIPY_ARRAY_API="1"))
    assert len(results) > 90
    assert [r for r in results if r[1] != "passed"] == []
    names = {name for name, _, _ in results}
    wanted = {
        "check_sample_weight_equivalence_on_dense_data",
        "check_methods_sample_order_invariance",
        "check_transformer_preserve_dtypes",
        "check_dict_unchanged",
    }
    assert wanted <= names
    if parse_version(sklearn.__version__) >= parse_version("1.8"):
        assert "check_array_api_input" in names


def test_checks_can_fail() -> None:
    """Negative control: a fit that forgets its feature count does not pass."""

    class Forgetful(FLiPExtractor):
        def fit(self, X: Any, Y: Any = None, sample_weight: Any = None) -> Forgetful:
            super().fit(X, Y, sample_weight)
            del self.n_features_in_
            return self

    results = check_estimator(Forgetful(), on_fail=None, on_skip=None)
    assert "check_n_features_in" in {r["check_name"] for r in results if r["status"] == "failed"}


def test_no_tag_hides_a_defect() -> None:
    """Tags that disable checks have their default values."""
    tags = get_tags(FLiPExtractor())
    assert tags.estimator_type is None
    assert [tags.non_deterministic, tags.no_validation, tags._skip_test] == [False] * 3
    assert tags.requires_fit
    assert tags.target_tags.required
    assert tags.target_tags.multi_output
    inputs = tags.input_tags
    assert [inputs.sparse, inputs.allow_nan, inputs.pairwise] == [False] * 3
    assert sorted(tags.transformer_tags.preserves_dtype) == ["float32", "float64"]


# --- GridSearchCV ----------------------------------------------------------------------------

GRID = {
    "flipextractor__rank": [1, 6],
    "flipextractor__l1_strength": [0.0, 1e-2],
    "flipextractor__use_bias": [True, False],
}


def slow_accuracy(Y: np.ndarray, scores: np.ndarray) -> float:
    """The paper's keyword accuracy by its definition, row by row."""
    values = []
    for counts, row in zip(Y, scores, strict=True):
        words = set(np.flatnonzero(counts))
        if words:
            best = np.argsort(-row, kind="stable")[: len(words)]
            values.append(len(words & set(best.tolist())) / len(words))
    return float(np.mean(values))


@pytest.fixture(scope="module")
def serial_search(data: tuple[np.ndarray, np.ndarray]) -> GridSearchCV:
    X, Y = data
    pipeline = make_pipeline(StandardScaler(), make_model())
    return GridSearchCV(pipeline, GRID, cv=KFold(2)).fit(X, sp.csr_array(Y))


def test_grid_search_picks_by_keyword_accuracy(
    data: tuple[np.ndarray, np.ndarray], serial_search: GridSearchCV
) -> None:
    X, Y = data
    search = serial_search
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    by_hand = []
    for train, test in KFold(2).split(X):
        model = make_pipeline(StandardScaler(), make_model()).set_params(**search.best_params_)
        model.fit(X[train], sp.csr_array(Y[train]))
        by_hand.append(slow_accuracy(Y[test], model.decision_function(X[test])))
    assert search.cv_results_["split0_test_score"][search.best_index_] == pytest.approx(by_hand[0])
    assert search.best_score_ == pytest.approx(np.mean(by_hand))
    # Negative control: ten words of ten would be easy; guessing the most frequent ones is worse.
    frequent = slow_accuracy(Y, np.tile(Y.sum(axis=0), (len(Y), 1)))
    assert search.best_score_ > frequent + 0.2
    assert search.best_params_["flipextractor__rank"] == 6


@pytest.mark.parametrize(
    ("container", "scoring"), [(sp.csr_matrix, None), (sp.csr_array, keyword_accuracy_scorer)]
)
def test_grid_search_in_parallel(
    data: tuple[np.ndarray, np.ndarray], serial_search: GridSearchCV, container: Any, scoring: Any
) -> None:
    X, Y = data
    search = GridSearchCV(
        make_pipeline(StandardScaler(), make_model()), GRID, cv=KFold(2), n_jobs=2, scoring=scoring
    ).fit(X, container(Y))
    # Other processes may sum in another order, so a rank may swap here and there.
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], serial_search.cv_results_["mean_test_score"], atol=0.01
    )
    assert search.score(X, container(Y)) == pytest.approx(serial_search.score(X, sp.csr_array(Y)), abs=0.01)


def test_scorer_equals_score_to_the_digit(
    data: tuple[np.ndarray, np.ndarray], serial_search: GridSearchCV
) -> None:
    X, Y = data
    search = GridSearchCV(
        make_pipeline(StandardScaler(), make_model()), GRID, cv=KFold(2), scoring=keyword_accuracy_scorer
    ).fit(X, sp.csr_array(Y))
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], serial_search.cv_results_["mean_test_score"]
    )


class LeastSquaresWords(BaseEstimator):
    """Another estimator of many outputs: ridge regression of the counts."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: np.ndarray, Y: Any) -> LeastSquaresWords:
        gram = X.T @ X + self.alpha * np.eye(X.shape[1])
        self.coef_ = np.linalg.solve(gram, X.T @ sp.csr_array(Y).toarray())
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return X @ self.coef_


def test_scorer_of_other_estimators(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    ridge = GridSearchCV(
        LeastSquaresWords(), {"alpha": [1e-2, 1e4]}, cv=KFold(2), scoring=keyword_accuracy_scorer
    ).fit(X, sp.csr_array(Y))
    train, test = next(KFold(2).split(X))
    scores = LeastSquaresWords(1e-2).fit(X[train], Y[train]).predict_proba(X[test])
    expected = slow_accuracy(Y[test], scores)
    assert ridge.cv_results_["split0_test_score"][0] == pytest.approx(expected)
    logistic = OneVsRestClassifier(LogisticRegression())
    present = (Y > 0).astype(int)
    search = GridSearchCV(
        logistic, {"estimator__C": [1e-4, 1.0]}, cv=KFold(2), scoring=keyword_accuracy_scorer
    ).fit(X, present)
    decision = clone(logistic).fit(X[train], present[train]).decision_function(X[test])
    assert search.cv_results_["split0_test_score"][1] == pytest.approx(slow_accuracy(present[test], decision))
    assert search.best_params_ == {"estimator__C": 1.0}


# --- clone, pickle, joblib -------------------------------------------------------------------


def test_clone_keeps_every_parameter_and_no_fit(fitted: FLiPExtractor) -> None:
    changed = {
        "rank": None, "l1_strength": 0.5, "l2_strength": 0.25, "use_bias": False, "top_k": 3,
        "vocabulary": dict(zip(KEYWORDS, range(10), strict=True)), "solver": "exact", "max_iter": 7,
        "tol": 0.01, "batch_size": 9, "learning_rate": 0.1, "early_stopping": "likelihood",
        "validation_fraction": 0.3, "n_iter_no_change": 4, "warm_start": True, "random_state": 5,
        "checkpoint_dir": "here", "word_features": [[1.0, 0.0]],
        "verbose": 1, "device": "cpu", "precision": "float64", "sparse_output": False,
    }  # fmt: skip
    assert set(changed) == set(fitted.get_params())
    assert all(changed[name] != value for name, value in FLiPExtractor().get_params().items())
    copy = clone(FLiPExtractor(**changed))
    assert copy.get_params() == changed
    with pytest.raises(NotFittedError):
        check_is_fitted(clone(fitted))


@pytest.mark.parametrize("way", ["pickle", "joblib", "joblib-compressed"])
@pytest.mark.parametrize("rank", [6, None])
def test_saved_model_gives_the_same_bits(
    data: tuple[np.ndarray, np.ndarray], tmp_path: Path, way: str, rank: int | None
) -> None:
    X, Y = data
    model = make_model(rank=rank).fit(X, Y)
    if way == "pickle":
        copy = pickle.loads(pickle.dumps(model))
    else:
        joblib.dump(model, tmp_path / "model", compress=3 if "compressed" in way else 0)
        copy = joblib.load(tmp_path / "model")
    assert same_model(model, copy)
    assert model.get_params() == copy.get_params()
    assert model.history_ == copy.history_ or np.isnan(model.history_["validation_nll"]).all()
    for use_bias in (True, False):
        model.set_params(use_bias=use_bias)
        copy.set_params(use_bias=use_bias)
        np.testing.assert_array_equal(model.decision_function(X), copy.decision_function(X))
    # A loaded model also goes on learning as the original would.
    assert same_model(model.partial_fit(X, Y), copy.partial_fit(X, Y))


def torch_names(blob: bytes) -> list[str]:
    """Names from torch in a pickle."""
    strings = [argument for _, argument, _ in pickletools.genops(blob) if isinstance(argument, str)]
    return [s for s in strings if s == "torch" or s.startswith(("torch.", "torch "))]


def test_pickle_holds_no_torch_object(fitted: FLiPExtractor) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert torch_names(pickle.dumps(fitted, protocol)) == []
    # Negative control
    assert torch_names(pickle.dumps({"a": torch.ones(2)}))


def test_pickle_opens_in_another_process(
    data: tuple[np.ndarray, np.ndarray], fitted: FLiPExtractor, tmp_path: Path
) -> None:
    X, _ = data
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    np.save(tmp_path / "X.npy", X)
    code = """
import pickle, sys, torch, numpy as np
folder, n_threads = sys.argv[1:]
torch.set_num_threads(int(n_threads))
model = pickle.load(open(folder + "/model.pkl", "rb"))
np.save(folder + "/z.npy", model.decision_function(np.load(folder + "/X.npy")))
print(*model.extract_keywords(np.load(folder + "/X.npy"))[0])
"""
    done = processes.run_python("-c", code, tmp_path, N_THREADS, cwd=ROOT, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), fitted.decision_function(X))
    assert done.stdout.split() == fitted.extract_keywords(X)[0]


@pytest.mark.parametrize("asked", ["auto", "cuda", "cuda:1"])
def test_model_fitted_on_cuda_scores_without_one(
    data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """A model fitted on a GPU has NumPy arrays and the text "cuda:0", so it can be simulated here."""
    X, Y = data
    model = make_model().fit(X, Y)
    expected = model.decision_function(X)
    model.device_ = "cuda:0"
    model.set_params(device=asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    opened = pickle.loads(pickle.dumps(model))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(opened.decision_function(X), expected)
        assert opened.extract_keywords(X) == model.set_params(device="cpu").extract_keywords(X)
    messages = [str(w.message) for w in caught]
    if asked == "auto":
        assert messages == []
    else:
        assert len(messages) == 2
        for part in (asked, "CPU", "device='auto'"):
            assert part in messages[0]
        assert {w.filename for w in caught} == {__file__}  # they point at the caller
        # Training is another matter: nobody wants to wait for a CPU unknowingly.
        with pytest.raises(ValueError, match=r"CUDA device.*use device='auto' or 'cpu'"):
            opened.fit(X, Y)


def test_wrong_device_is_an_error_for_a_model_fitted_on_the_cpu(
    data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = data
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = make_model().fit(X, Y).set_params(device="cuda")
    with pytest.raises(ValueError, match=r"device='cuda'.*use device='auto' or 'cpu'"):
        model.decision_function(X)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_model_fitted_on_a_real_gpu(data: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, Y = data
    model = make_model(precision="float64").fit(X, Y)
    assert model.device_.startswith("cuda")
    assert torch_names(pickle.dumps(model)) == []
    joblib.dump(model, tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    code = """
import sys, joblib, numpy as np
model = joblib.load(sys.argv[1] + "/model")
np.save(sys.argv[1] + "/z.npy", model.decision_function(np.load(sys.argv[1] + "/X.npy")))
"""
    run_python(code, tmp_path, CUDA_VISIBLE_DEVICES="")
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), model.decision_function(X), rtol=1e-5, atol=1e-5)


# --- Metadata routing ------------------------------------------------------------------------


def test_score_with_or_without_bias_leaves_the_estimator_as_it_is(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    X, Y = data
    model = make_model().fit(X, Y)
    with_bias = model.score(X, Y)
    before = model.get_params()
    assert model.score(X, Y, use_bias=True) == model.score(X, Y, use_bias=None) == with_bias
    without_bias = model.score(X, Y, use_bias=False)
    assert model.get_params() == before
    assert with_bias != without_bias == model.set_params(use_bias=False).score(X, Y)
    with pytest.raises(ValueError, match="use_bias"):
        model.score(X, Y, use_bias="no")


def test_weights_are_routed_to_fit_and_score(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    Y = Y.copy()
    rng = np.random.default_rng(1)
    spoiled = rng.random(len(Y)) < 0.6
    Y[spoiled] = rng.permutation(Y[spoiled])
    w = np.where(spoiled, 0.0, 1.0)
    train, test = next(KFold(2).split(X))
    asked = {"sample_weight": True}
    refused = {"sample_weight": False}

    def search(in_fit: dict[str, bool], in_score: dict[str, bool], scale: bool = False) -> float:
        model = make_model().set_fit_request(**in_fit).set_score_request(**in_score)
        if scale:
            model = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
            if hasattr(model, "set_score_request"):  # before 1.8, score of a pipeline asks for weights itself
                model.set_score_request(**in_score)
        grid = GridSearchCV(model, {"flipextractor__top_k" if scale else "top_k": [3]}, cv=KFold(2))
        grid.fit(X, sp.csr_array(Y), sample_weight=w)
        return grid.cv_results_["split0_test_score"][0]

    with sklearn.config_context(enable_metadata_routing=True):
        weighted = search(asked, asked)
        in_pipeline = search(asked, asked, scale=True)
        fit_only = search(asked, refused)

    def by_hand(fit_weight: np.ndarray | None, score_weight: np.ndarray | None, scale: bool = False) -> float:
        Z = StandardScaler().fit(X[train]).transform(X) if scale else X
        model = make_model().fit(Z[train], Y[train], fit_weight)
        return model.score(Z[test], Y[test], score_weight)

    assert weighted == pytest.approx(by_hand(w[train], w[test]))
    assert in_pipeline == pytest.approx(by_hand(w[train], w[test], scale=True))
    assert fit_only == pytest.approx(by_hand(w[train], None))
    # Negative control: without weights the spoiled rows do harm, in training and in the score.
    assert weighted > fit_only > by_hand(None, None)


# --- Names and containers --------------------------------------------------------------------


def test_pandas_output(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    frame = pd.DataFrame(X, columns=[f"dim{j}" for j in range(8)], index=np.arange(len(X)) + 1000)
    model = make_model(sparse_output=False, top_k=3).fit(frame, Y).set_output(transform="pandas")
    result = model.transform(frame)
    assert isinstance(result, pd.DataFrame)
    assert list(result.columns) == KEYWORDS == list(model.get_feature_names_out())
    assert list(result.index) == list(frame.index)
    assert list(model.feature_names_in_) == list(frame.columns)
    sparse = make_model(top_k=3).fit(frame, Y).transform(frame)
    np.testing.assert_array_equal(result.to_numpy(), sparse.toarray())
    assert ((result.to_numpy() > 0).sum(axis=1) == 3).all()
    with pytest.raises(ValueError, match="sparse matrix"):
        model.set_params(sparse_output=True).transform(frame)
    model.set_params(sparse_output=False)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame[frame.columns[::-1]])
    model.fit(X, Y)
    assert not hasattr(model, "feature_names_in_")  # of an earlier fit


def test_feature_names_out_cannot_be_used_to_change_the_model(fitted: FLiPExtractor) -> None:
    fitted.get_feature_names_out()[0] = "changed"
    assert list(fitted.vocabulary_) == KEYWORDS


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_vocabulary_from_the_columns_of_a_frame(data: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    X, Y = data
    frame = pd.DataFrame(Y, columns=KEYWORDS)
    if kind == "sparse":
        frame = frame.astype(pd.SparseDtype("int64", 0))
    model = make_model(vocabulary=None).fit(X, frame)
    assert list(model.vocabulary_) == KEYWORDS
    assert same_model(model, make_model().fit(X, Y))
    assert model.score(X, frame) == model.score(X, Y)


def test_vocabulary_in_its_three_forms(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    backwards = {word: j for j, word in reversed(list(enumerate(KEYWORDS)))}
    for vocabulary in (KEYWORDS, tuple(KEYWORDS), np.array(KEYWORDS), pd.Index(KEYWORDS), backwards):
        assert list(make_model(vocabulary=vocabulary).fit(X, Y).vocabulary_) == KEYWORDS
    assert list(make_model(vocabulary=None).fit(X, Y).vocabulary_) == [f"word{j}" for j in range(10)]


@pytest.mark.parametrize("change", ["reordered", "renamed"])
def test_chunk_with_other_column_names_is_refused(data: tuple[np.ndarray, np.ndarray], change: str) -> None:
    """Columns in another order would otherwise be taken for other words."""
    X, Y = data
    frame = pd.DataFrame(Y, columns=KEYWORDS)
    model = make_model(vocabulary=None).partial_fit(X, frame)
    before = joblib.hash(vars(model))
    other = frame[KEYWORDS[::-1]] if change == "reordered" else frame.rename(columns={"sky": "sea"})
    with pytest.raises(ValueError, match="column"):
        model.partial_fit(X, other)
    assert joblib.hash(vars(model)) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_torch_tensor_equals_its_array(data: tuple[np.ndarray, np.ndarray], dtype: torch.dtype) -> None:
    X, Y = data
    tensor = torch.from_numpy(X).to(dtype).requires_grad_()
    array = tensor.detach().double().numpy().astype(np.float32)
    model = make_model().fit(tensor, torch.from_numpy(Y))
    expected = make_model().fit(array, Y)
    assert same_model(model, expected)
    scores = model.decision_function(tensor)
    np.testing.assert_array_equal(scores, expected.decision_function(array).astype(scores.dtype))
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert model.extract_keywords(tensor) == expected.extract_keywords(array)


def awkward_layouts(X: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers in other memory layouts."""
    wide = np.zeros((len(X) * 2, X.shape[1] * 3), dtype=X.dtype)
    wide[::2, ::3] = X
    frozen = X.copy()
    frozen.setflags(write=False)
    return {
        "fortran": np.asfortranarray(X),
        "strided": wide[::2, ::3],
        "rows backwards": X[::-1].copy()[::-1],
        "columns backwards": X[:, ::-1].copy()[:, ::-1],
        "read-only": frozen,
        "other byte order": X.astype(X.dtype.newbyteorder()),
    }


@pytest.mark.parametrize("layout", awkward_layouts(np.zeros((1, 1), dtype=np.float32)))
@pytest.mark.parametrize("early_stopping", [False, True])
def test_layout_of_X_changes_nothing(
    data: tuple[np.ndarray, np.ndarray], layout: str, early_stopping: bool
) -> None:
    X, Y = data
    odd = awkward_layouts(X)[layout]
    np.testing.assert_array_equal(odd, X)
    expected = make_model(early_stopping=early_stopping).fit(X, Y)
    model = make_model(early_stopping=early_stopping).fit(odd, Y)
    # BLAS may sum another layout in another order.
    np.testing.assert_allclose(
        model.decision_function(odd), expected.decision_function(X), rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(expected.predict_proba(odd), expected.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_memory_map_equals_its_array(
    data: tuple[np.ndarray, np.ndarray], tmp_path: Path, dtype: type, early_stopping: bool
) -> None:
    X, Y = data
    X = X.astype(dtype)
    np.save(tmp_path / "X.npy", X)
    before = (tmp_path / "X.npy").read_bytes()
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    model = make_model(early_stopping=early_stopping).fit(mapped, Y)
    assert same_model(model, make_model(early_stopping=early_stopping).fit(X, Y))
    np.testing.assert_array_equal(model.decision_function(mapped), model.decision_function(X))
    np.testing.assert_array_equal(model.transform(mapped).toarray(), model.transform(X).toarray())
    assert (tmp_path / "X.npy").read_bytes() == before


@pytest.mark.cpu_only(reason="memory of the host")
@pytest.mark.parametrize("early_stopping", [False, True])
def test_memory_map_is_not_read_into_memory(tmp_path: Path, early_stopping: bool) -> None:
    """X is not copied, also when "auto" holds rows out."""
    n, d = 20_000, 256
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.normal(size=(n, d)).astype(np.float16))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    Y = sp.csr_array((np.ones(n), rng.integers(3, size=n), np.arange(n + 1)), shape=(n, 3))
    model = FLiPExtractor(2, max_iter=1, batch_size=5000, early_stopping=early_stopping)
    tracemalloc.start()
    try:
        model.fit(mapped, Y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * mapped.nbytes


@pytest.mark.parametrize(
    ("given", "expected"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64), (int, np.float64)],
)
def test_float32_in_float32_through(data: tuple[np.ndarray, np.ndarray], given: type, expected: type) -> None:
    X, Y = data
    X = X.astype(given)
    model = make_model().fit(X, Y)
    for method in (model.decision_function, model.predict_proba, model.predict_log_proba):
        assert method(X).dtype == expected
    assert model.transform(X).dtype == expected
    assert model.set_params(sparse_output=False).transform(X).dtype == expected
    assert model.predict(X).dtype == np.int64
    assert model.word_embeddings_.dtype == model.projection_.dtype == np.float32


@pytest.mark.parametrize(
    "container",
    [
        sp.csr_array, sp.csr_matrix, sp.csc_array, sp.csc_matrix, sp.coo_array, sp.lil_array,
        sp.dok_array, np.asarray, np.ndarray.tolist, pd.DataFrame, torch.from_numpy,
        lambda Y: Y.astype(np.float32), lambda Y: Y.astype(np.uint8), lambda Y: Y.astype(object),
        lambda Y: sp.csr_array(Y.astype(np.uint16)), lambda Y: sp.csr_array(Y.astype(np.float64)),
    ],
)  # fmt: skip
def test_container_of_Y_changes_nothing(data: tuple[np.ndarray, np.ndarray], container: Any) -> None:
    X, Y = data
    expected = make_model().fit(X, Y)
    model = make_model().fit(X, container(Y))
    assert same_model(model, expected)
    assert model.score(X, container(Y)) == expected.score(X, Y)


def test_bool_Y_means_one_each(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    expected = make_model().fit(X, (Y > 0).astype(int))
    assert same_model(make_model().fit(X, Y > 0), expected)
    assert same_model(make_model().fit(X, sp.csr_array(Y > 0)), expected)
    assert not same_model(make_model().fit(X, Y), expected)


def test_one_dimensional_y_is_one_column(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    model = make_model(vocabulary=["red"]).fit(X, Y[:, 0])
    assert same_model(model, make_model(vocabulary=["red"]).fit(X, Y[:, :1]))
    assert model.extract_keywords(X[:2], top_k=3) == [["red"], ["red"]]
    assert model.score(X, Y[:, 0]) == 1.0
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((len(X), 1)))


def test_y_keyword_is_Y(data: tuple[np.ndarray, np.ndarray], fitted: FLiPExtractor) -> None:
    X, Y = data
    assert same_model(make_model().fit(X, y=Y), fitted)
    assert same_model(make_model().fit(X, Y=Y), fitted)
    assert same_model(make_model().partial_fit(X, y=Y), make_model().partial_fit(X, Y))
    assert fitted.score(X, y=Y) == fitted.score(X, Y)
    np.testing.assert_array_equal(make_model().fit_transform(X, y=Y).toarray(), fitted.transform(X).toarray())
    for method in (make_model().fit, make_model().partial_fit, fitted.score):
        with pytest.raises(TypeError, match=r"Y and y.*pass one"):
            method(X, Y, y=Y)


def messy_csr(Y: np.ndarray) -> sp.csr_array:
    """The counts as legal but unsorted CSR with duplicates and explicit zeros."""
    row, col = np.nonzero(Y)
    count = Y[row, col].astype(np.float64)
    parts = [(row, col, count - 1), (row, col, np.ones_like(count)), (row, 9 - col, 0 * count)]
    row, col, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(Y)))])
    result = sp.csr_array((count[order], col[order], indptr), shape=Y.shape)
    assert not result.has_canonical_format
    assert (result.toarray() == Y).all()
    return result


@pytest.mark.parametrize("frozen", [False, True], ids=["writeable", "read-only"])
def test_inputs_are_never_modified(data: tuple[np.ndarray, np.ndarray], frozen: bool) -> None:
    X, Y = data
    X, w = X.copy(), np.linspace(0.5, 1.5, len(X))
    expected = make_model().fit(X, Y, w)
    for counts in (Y.copy(), sp.csr_array(Y), sp.csr_matrix(Y), messy_csr(Y)):
        arrays = [X, w]
        arrays += [counts.data, counts.indices, counts.indptr] if sp.issparse(counts) else [counts]
        before = [a.tobytes() for a in arrays]
        for a in arrays:
            a.setflags(write=not frozen)
        model = make_model().fit(X, counts, w)
        assert same_model(model, expected)
        assert model.score(X, counts, w) == expected.score(X, Y, w)
        keyword_accuracy(counts, model.decision_function(X), sample_weight=w)
        keyword_accuracy_scorer(model, X, counts, w)
        model.partial_fit(X, counts, w)
        model.transform(X)
        assert [a.tobytes() for a in arrays] == before
        for a in arrays:
            a.setflags(write=True)


def test_model_does_not_share_memory_with_its_inputs() -> None:
    X, Y = make_data()
    counts, w = sp.csr_array(Y.astype(np.float32)), np.ones(len(X))
    words = np.array(KEYWORDS, dtype=object)
    model = make_model(vocabulary=words).fit(X, counts, w)
    before = joblib.hash([v for name, v in vars(model).items() if name.endswith("_")])
    X[:], counts.data[:], w[:], words[:] = 0, 0, 0, "x"
    assert joblib.hash([v for name, v in vars(model).items() if name.endswith("_")]) == before


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 30),
    d=st.integers(1, 6),
    V=st.integers(1, 8),
    density=st.sampled_from([0.05, 0.3, 1.0]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    lip=st.booleans(),
    use_bias=st.booleans(),
    top_k=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_any_shape_dtype_and_sparsity(
    n: int, d: int, V: int, density: float, dtype: type, lip: bool, use_bias: bool, top_k: int,
    seed: int,
) -> None:  # fmt: skip
    """All scoring methods agree on problems of any shape."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(dtype)
    Y = rng.poisson(1.0, size=(n, V)) * (rng.random((n, V)) < density)
    Y[rng.integers(n), rng.integers(V)] += 1
    model = FLiPExtractor(
        None if lip else "auto", max_iter=2, batch_size=8, learning_rate=0.5, top_k=top_k,
        use_bias=use_bias, random_state=0,
    )  # fmt: skip
    model.fit(X, sp.csr_array(Y))
    assert same_model(model, clone(model).fit(X, Y))
    agree(model, X, Y)


def agree(model: FLiPExtractor, X: np.ndarray, Y: np.ndarray) -> None:
    """Check that scores, probabilities, indicators, activations, keywords and accuracy agree."""
    z, theta = model.decision_function(X), model.predict_proba(X)
    seen = Y.sum(axis=0) > 0
    k = min(model.top_k, int(seen.sum()))
    assert np.isfinite(z).all()
    np.testing.assert_allclose(theta.sum(axis=1), 1, atol=1e-5)
    shifted = z - z.max(axis=1, keepdims=True)
    softmax = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(theta, softmax, atol=1e-5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), theta, atol=1e-5)
    predicted, activations = model.predict(X), model.transform(X)
    assert isinstance(predicted, sp.csr_array)
    assert isinstance(activations, sp.csr_array)
    assert predicted.has_canonical_format
    assert activations.has_canonical_format
    assert predicted.shape == activations.shape == z.shape
    np.testing.assert_array_equal(predicted.indices, activations.indices)
    assert (predicted.data == 1).all()
    assert (np.diff(predicted.indptr) == k).all()
    row = np.repeat(np.arange(len(X)), k)
    np.testing.assert_allclose(activations.data, theta[row, activations.indices], rtol=1e-4, atol=1e-6)
    dense = clone_fit(model).set_params(sparse_output=False).transform(X)
    np.testing.assert_array_equal(dense, activations.toarray())
    words = list(model.vocabulary_)
    keywords = model.extract_keywords(X)
    scored = model.extract_keywords(X, return_scores=True)
    assert [[word for word, _ in line] for line in scored] == keywords
    for i, line in enumerate(scored):
        columns = [words.index(word) for word, _ in line]
        assert sorted(columns) == predicted.indices[i * k : (i + 1) * k].tolist()
        values = [value for _, value in line]
        assert values == sorted(values, reverse=True)
        np.testing.assert_allclose(values, z[i, columns], rtol=1e-5, atol=1e-5)
        others = np.setdiff1d(np.arange(len(words)), columns)
        assert z[i, others].max(initial=-np.inf) <= min(values) + 1e-5
        assert seen[columns].all()
    accuracy = model.score(X, Y)
    assert accuracy == pytest.approx(float(keyword_accuracy(Y, z)), abs=1e-9) or has_ties(z)


def has_ties(z: np.ndarray) -> bool:
    """Whether a row has equal scores, whose order is undefined."""
    return bool((np.diff(np.sort(z, axis=1), axis=1) < 1e-5).any())


def clone_fit(model: FLiPExtractor) -> FLiPExtractor:
    return pickle.loads(pickle.dumps(model))


def test_scoring_methods_agree_on_real_size(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    for use_bias in (True, False):
        for top_k in (1, 4, 100):
            agree(make_model(use_bias=use_bias, top_k=top_k).fit(X, Y), X, Y)


# --- Bias, top_k, memory ---------------------------------------------------------------------


def test_use_bias_needs_no_refit(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    Y = np.column_stack([Y, np.zeros(len(Y), dtype=int)])
    model = make_model(vocabulary=[*KEYWORDS, "never"]).fit(X, Y)
    with_bias = model.decision_function(X)
    without = model.set_params(use_bias=False).decision_function(X)
    difference = np.broadcast_to(model.bias_[:10], (len(X), 10))
    np.testing.assert_allclose(with_bias[:, :10] - without[:, :10], difference, atol=1e-5)
    # z = A B (x - mu), from the fitted arrays alone
    by_hand = (X - model.embedding_mean_) @ model.projection_.T @ model.word_embeddings_.T
    np.testing.assert_allclose(without[:, :10], by_hand[:, :10], atol=1e-4)
    refitted = make_model(vocabulary=[*KEYWORDS, "never"], use_bias=False).fit(X, Y)
    assert same_model(model, refitted)
    np.testing.assert_array_equal(refitted.decision_function(X), without)
    assert np.abs(model.bias_[:10]).max() > 0.5  # so that the difference is one


def test_mean_embedding_scores_the_bias(fitted: FLiPExtractor) -> None:
    at_mean = fitted.embedding_mean_[None, :]
    np.testing.assert_allclose(fitted.decision_function(at_mean)[0], fitted.bias_, atol=1e-6)
    assert np.exp(fitted.bias_.astype(float)).sum() == pytest.approx(1, abs=1e-5)


def test_top_k_above_the_number_of_words(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    Y = Y.copy()
    Y[:, 7:] = 0
    model = make_model().fit(X, Y)
    for top_k, expected in ((3, 3), (7, 7), (8, 7), (1000, 7)):
        assert {len(line) for line in model.extract_keywords(X, top_k=top_k)} == {expected}
        model.set_params(top_k=top_k)
        assert (np.diff(model.predict(X).indptr) == expected).all()
        assert (np.diff(model.transform(X).indptr) == expected).all()
    allowed = set(KEYWORDS[:7])
    assert all(set(line) == allowed for line in model.extract_keywords(X, top_k=1000))
    # A row of the test part may have more words than training ever saw.
    everything = np.ones_like(Y)
    assert model.score(X, everything) == pytest.approx(0.7)


@pytest.mark.parametrize("method", ["decision_function", "predict_proba", "predict_log_proba", "transform"])
def test_refuses_what_does_not_fit_in_memory(
    data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    X, Y = data
    model = make_model(sparse_output=False).fit(X, Y)
    need = len(X) * 10 * 4
    monkeypatch.setattr(_scoring, "free_memory", lambda: need)
    getattr(model, method)(X)  # just fits
    monkeypatch.setattr(_scoring, "free_memory", lambda: need - 1)
    with pytest.raises(ValueError, match="GiB") as caught:
        getattr(model, method)(X)
    for part in (f"({len(X)}, 10)", "fewer rows", "extract_keywords"):
        assert part in str(caught.value)
    # float64 takes twice as much, a sparse answer no such array
    monkeypatch.setattr(_scoring, "free_memory", lambda: 2 * need - 1)
    with pytest.raises(ValueError, match="GiB"):
        getattr(model, method)(X.astype(np.float64))
    monkeypatch.setattr(_scoring, "free_memory", lambda: 0)
    model.set_params(sparse_output=True)
    model.transform(X)
    model.predict(X)
    model.extract_keywords(X)
    model.score(X, Y)


def test_message_of_a_refusal_has_the_size(fitted: FLiPExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scoring, "free_memory", lambda: 2**27)
    many = np.broadcast_to(np.float32(0), (10_000_000, 8))
    with pytest.raises(ValueError, match=r"\(10000000, 10\) array takes 0\.4 GiB, 0\.1 GiB are"):
        fitted.decision_function(many)


# --- warm_start and partial_fit --------------------------------------------------------------


def chunks(X: np.ndarray, Y: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(np.array_split(X, k), np.array_split(Y, k), strict=True))


def test_partial_fit_counts_and_means_are_exact() -> None:
    X, Y = make_data(400)
    X = X + 5
    Y[:100, 8:] = 0  # the first chunk lacks two words
    Y[150:170] = 0  # and some rows have none at all
    w = np.random.default_rng(3).integers(1, 4, size=len(X)).astype(float)
    model = make_model(precision="float64")
    for rows in np.array_split(np.arange(400), 4):
        model.partial_fit(X[rows], Y[rows], w[rows])
    whole = make_model(precision="float64").fit(X, Y, w)
    np.testing.assert_array_equal(model.word_counts_, w @ Y)
    np.testing.assert_array_equal(model.word_counts_, whole.word_counts_)
    informative = w * (Y.sum(axis=1) > 0)
    expected = informative @ X.astype(np.float64) / informative.sum()
    np.testing.assert_allclose(model.embedding_mean_, expected, atol=1e-6)
    np.testing.assert_allclose(model.embedding_mean_, whole.embedding_mean_, atol=1e-6)
    # The negative control: the last chunk's mean alone is another.
    assert np.abs(X[300:].mean(axis=0) - expected).max() > 1e-3
    assert model.n_iter_ == 4
    assert {len(values) for values in model.history_.values()} == {4}


def test_word_of_a_later_chunk_is_extracted() -> None:
    X, Y = make_data(400)
    Y[:200, 9] = 0
    model = make_model().partial_fit(X[:200], Y[:200])
    assert "book" not in {w for line in model.extract_keywords(X, top_k=10) for w in line}
    for _ in range(15):
        model.partial_fit(X[200:], Y[200:])
    first = [line[0] for line in model.set_params(use_bias=False).extract_keywords(X)]
    have = Y[:, 9] > 0
    named = np.array(first) == "book"
    assert named[have].mean() > named[~have].mean() + 0.2


def test_later_chunks_help() -> None:
    X, Y = make_data(400)
    held_out = make_data(200, seed=1)
    model = make_model(batch_size=20)
    accuracy = [model.partial_fit(x, y).score(*held_out) for _ in range(3) for x, y in chunks(X, Y, 4)]
    assert accuracy[-1] > accuracy[0] + 0.05
    # Negative control: chunks whose words are another sentence's do not help.
    spoiled = make_model(batch_size=20)
    rng = np.random.default_rng(0)
    for _ in range(3):
        for x, y in chunks(X, Y, 4):
            spoiled.partial_fit(x, rng.permutation(y))
    assert accuracy[-1] > spoiled.score(*held_out) + 0.2


def test_partial_fit_continues_a_fit(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    model = make_model().fit(X, Y)
    passes, counts, loss = model.n_iter_, model.word_counts_.copy(), model.history_["loss"][-1]
    model.partial_fit(X, Y)
    assert model.n_iter_ == passes + 1
    np.testing.assert_array_equal(model.word_counts_, 2 * counts)
    assert model.history_["loss"][-1] < loss + 0.05
    fresh = make_model(max_iter=1).fit(X, Y)
    assert model.history_["loss"][-1] < fresh.history_["loss"][0] - 0.05


def test_warm_start_continues_and_cold_start_does_not(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    for rank in (6, None):
        cold = make_model(rank=rank).fit(X, Y)
        first_loss, last_loss = cold.history_["loss"][0], cold.history_["loss"][-1]
        assert last_loss < first_loss - 0.1
        again = clone_fit(cold).fit(X, Y)
        assert same_model(again, cold)
        warm = clone_fit(cold).set_params(warm_start=True).fit(X, Y)
        assert warm.history_["loss"][0] < (first_loss + last_loss) / 2
        assert warm.n_iter_ == len(warm.history_["loss"]) <= 4  # its own passes, not the sum
        np.testing.assert_array_equal(warm.word_counts_, cold.word_counts_)
    # Another vocabulary is another model, so it starts cold.
    other = clone_fit(cold).set_params(warm_start=True, vocabulary=KEYWORDS[::-1]).fit(X, Y)
    assert other.history_["loss"][0] == pytest.approx(first_loss)


# --- Callbacks of scikit-learn 1.9 -----------------------------------------------------------


class Recorder:
    """A callback that records its calls and may stop the fit or fail."""

    def __init__(self, stop_at: int | None = None, fail_at: int | None = None) -> None:
        self.stop_at, self.fail_at = stop_at, fail_at
        self.events: list[str] = []
        self.scores: list[float] = []
        self.metadata: list[Any] = []
        self.at_end: FLiPExtractor | None = None
        self.fitted_meanwhile = False

    def setup(self, estimator: Any, context: Any) -> None:
        self.events.append("setup")

    def teardown(self, estimator: Any, context: Any) -> None:
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.events.append(f"{context.task_name} begins")

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, X: Any, y: Any, metadata: Any, fitted_estimator: Any
    ) -> bool:
        self.events.append(f"{context.task_name} ends")
        self.metadata.append(metadata)
        self.fitted_meanwhile |= hasattr(estimator, "bias_")
        if context.task_name != "pass":
            self.at_end = fitted_estimator
            return False
        self.scores.append(fitted_estimator.score(X, y))
        if len(self.scores) == self.fail_at:
            raise RuntimeError("the callback failed")
        return len(self.scores) == self.stop_at


ONE_PASS = ["pass begins", "pass ends"]


def test_pinned_scikit_learn_has_callbacks() -> None:
    """With the versions of constraints.txt, none of the tests below is skipped."""
    (pin,) = re.findall(r"^scikit-learn==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert parse_version(pin) >= parse_version("1.9")


needs_callbacks = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"), reason="scikit-learn < 1.9 has no callbacks"
)


@needs_callbacks
def test_callback_sees_every_pass(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    recorder = Recorder()
    model = make_model(n_iter_no_change=10).set_callbacks(recorder).fit(X, Y)
    assert recorder.events == ["setup", "fit begins", *ONE_PASS * 4, "fit ends", "teardown"]
    assert not recorder.fitted_meanwhile
    assert recorder.scores[-1] == model.score(X, Y)
    assert recorder.scores[0] < recorder.scores[-1]
    # Watching changes nothing.
    assert same_model(model, make_model(n_iter_no_change=10).fit(X, Y))
    recorder.events.clear()
    model.partial_fit(X, Y)
    assert recorder.events == ["setup", "fit begins", *ONE_PASS, "fit ends", "teardown"]


@needs_callbacks
def test_callback_stops_training(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    recorder = Recorder(stop_at=2)
    model = make_model(max_iter=50).set_callbacks(recorder).fit(X, Y)
    assert recorder.events == ["setup", "fit begins", *ONE_PASS * 2, "fit ends", "teardown"]
    assert model.n_iter_ == 2
    assert same_model(model, make_model(max_iter=2).fit(X, Y))
    assert model.score(X, Y) == recorder.scores[-1]
    agree(model, X, Y)


@needs_callbacks
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_teardown_is_called_when_fit_fails(data: tuple[np.ndarray, np.ndarray], method: str) -> None:
    X, Y = data
    recorder = Recorder(fail_at=1)
    fresh = make_model().set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="the callback failed"):
        getattr(fresh, method)(X, Y)
    assert recorder.events[-1] == "teardown"
    with pytest.raises(NotFittedError):
        check_is_fitted(fresh)
    model = make_model().fit(X, Y).set_callbacks(Recorder(fail_at=1))
    before = {name: joblib.hash(value) for name, value in vars(model).items() if name[0] != "_"}
    with pytest.raises(RuntimeError, match="the callback failed"):
        getattr(model, method)(X[:50], Y[:50])
    after = {name: joblib.hash(value) for name, value in vars(model).items() if name[0] != "_"}
    assert after == before
    # What the input checks refuse never begins.
    recorder = Recorder()
    with pytest.raises(ValueError, match="rank=0"):
        getattr(make_model(rank=0).set_callbacks(recorder), method)(X, Y)
    assert recorder.events in ([], ["setup", "teardown"])


@needs_callbacks
def test_callback_gets_the_final_model_when_the_fit_ends(data: tuple[np.ndarray, np.ndarray]) -> None:
    """fitted_estimator: "ready to predict ... as if fit had stopped at the end of this task"."""
    X, Y = data
    recorder = Recorder()
    model = make_model().set_callbacks(recorder).fit(X, Y)
    assert recorder.at_end is not None
    np.testing.assert_array_equal(recorder.at_end.decision_function(X), model.decision_function(X))


def as_dict(estimator: Any, X: Any, Y: Any, sample_weight: Any = None) -> dict[str, float]:
    """A scorer in the form that ScoringMonitor accepts (its scoring=None fails for every estimator)."""
    return {"accuracy": keyword_accuracy_scorer(estimator, X, Y, sample_weight)}


def monitored(data: tuple[np.ndarray, np.ndarray], *, weights: np.ndarray | None) -> list[float]:
    """The log of ScoringMonitor at the end of each pass."""
    from sklearn.callback import ScoringMonitor

    X, Y = data
    monitor = ScoringMonitor(scoring=as_dict)
    make_model(n_iter_no_change=10).set_callbacks(monitor).fit(X, sp.csr_array(Y), weights)
    return [line["accuracy"] for line in monitor.get_logs().data if line["task_name"] == "pass"]


@needs_callbacks
def test_scoring_monitor(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    scores = monitored(data, weights=None)
    assert len(scores) == 4
    assert scores[-1] == make_model(n_iter_no_change=10).fit(X, Y).score(X, Y)


@needs_callbacks
def test_callbacks_get_the_sample_weights(data: tuple[np.ndarray, np.ndarray]) -> None:
    """As LogisticRegression does: ScoringMonitor then logs the weighted training score."""
    X, Y = data
    w = np.random.default_rng(0).exponential(size=len(X)) ** 3
    recorder = Recorder()
    model = make_model(n_iter_no_change=10).set_callbacks(recorder).fit(X, Y, w)
    assert model.score(X, Y, w) != model.score(X, Y)
    assert monitored(data, weights=w)[-1] == pytest.approx(model.score(X, Y, w))
    np.testing.assert_allclose(recorder.metadata[0]["sample_weight"], w)


class PropagatedRecorder(Recorder):
    """A recorder that is set on the search and propagated to its estimators."""

    max_propagation_depth = None


@needs_callbacks
def test_callbacks_reach_a_search(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    recorder = PropagatedRecorder()
    search = GridSearchCV(make_model(max_iter=2), {"rank": [2, 3]}, cv=KFold(2))
    search.set_callbacks(recorder).fit(X, sp.csr_array(Y))
    assert len(recorder.scores) == 5 * 2  # two candidates, two folds, and the refit
    assert recorder.events.count("setup") == recorder.events.count("teardown") == 1


# --- Progress and warnings -------------------------------------------------------------------


def test_verbose_shows_a_bar_on_stderr(
    data: tuple[np.ndarray, np.ndarray], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = data
    make_model(verbose=1, early_stopping=True).fit(X, Y)
    assert capfd.readouterr().err == ""  # it took less than two seconds
    monkeypatch.setattr("flip_sklearn.io.PROGRESS_DELAY", 0.0)
    make_model(verbose=1, early_stopping=True).fit(X, Y)
    shown = capfd.readouterr()
    assert shown.out == ""
    for part in ("FLiP pass", "4/4", "row/s", "loss=", "held-out accuracy="):
        assert part in shown.err


def test_silent_by_default(data: tuple[np.ndarray, np.ndarray], capfd: pytest.CaptureFixture[str]) -> None:
    X, Y = data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)  # the next test's
        model = make_model().fit(X, sp.csr_array(Y)).partial_fit(X, Y)
        model.set_params(warm_start=True).fit(X, Y, np.ones(len(X)))
        model.transform(X)
        model.score(X, Y)
        repr(model)
    assert capfd.readouterr() == ("", "")


def convergence_warnings(model: FLiPExtractor, X: np.ndarray, Y: np.ndarray) -> list[Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y)
    return [w for w in caught if issubclass(w.category, ConvergenceWarning)]


def test_one_warning_if_max_iter_is_too_small(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    (warning,) = convergence_warnings(make_model(max_iter=2), X, Y)
    for part in ("max_iter=2", "raise max_iter", "tol"):
        assert part in str(warning.message)
    assert warning.filename == __file__  # it points at the call of fit
    # Not when the fit stopped by itself.
    assert convergence_warnings(make_model(max_iter=500, tol=0.1), X, Y) == []


@needs_callbacks
def test_no_warning_if_a_callback_stops_the_fit(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    stopped = make_model(max_iter=50).set_callbacks(Recorder(stop_at=2))
    assert convergence_warnings(stopped, X, Y) == []
    assert stopped.n_iter_ == 2

"""Under scikit-learn's array API, X stays on its device, and dense results are arrays of its library there.

SciPy must be told of it before it is imported, so the tests run in a process of their own, which
``test_with_the_array_api_of_scipy`` starts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from packaging.version import Version
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from flip_sklearn import FLiPExtractor, WordEraser, kkt_residual, regularization_path
from flip_sklearn.io import as_numpy
from flip_sklearn.metrics import keyword_accuracy, keyword_accuracy_scorer
from flip_sklearn.splice import SpLiCEExtractor
from tests.helpers.paths import ROOT
from tests.helpers.standin_gpu import standin_gpu
from tests.helpers.standin_streams import Counts

IS_ENABLED = os.environ.get("SCIPY_ARRAY_API") == "1"
with_array_api = pytest.mark.skipif(not IS_ENABLED, reason="runs in the process of the first test")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, D, N_WORDS = 1200, 64, 50
RNG = np.random.default_rng(0)
Y = RNG.poisson(0.1, size=(N, N_WORDS))
Y[:, 7] = 0  # a word that training does not see
CONCEPTS = RNG.normal(size=(N_WORDS, D))
X32 = (Y @ CONCEPTS + 0.1 * RNG.normal(size=(N, D)) + 0.5).astype(np.float32)
DENSE_METHODS = ("decision_function", "predict_proba", "predict_log_proba", "transform")


@pytest.mark.skipif(IS_ENABLED, reason="this is that process")
@pytest.mark.skipif(
    Version(np.__version__) < Version("2.1"),
    reason="array_api_strict copies between devices from NumPy 2.1 on",
)
def test_with_the_array_api_of_scipy() -> None:
    """Also the array API check of scikit-learn, which is skipped in other processes."""
    arguments = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-k", "array_api"]
    files = ["tests/test_array_api.py", "tests/test_sklearn_contracts.py::test_scikit_learn_check"]
    result = subprocess.run(
        [sys.executable, *arguments, *files],
        cwd=ROOT,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    skipped = re.findall(r"^SKIPPED.*", result.stdout, flags=re.MULTILINE)
    assert ["this is that process" in line for line in skipped] == [True], result.stdout


@dataclass(frozen=True)
class Library:
    """An array library, and a device of it."""

    name: str
    array: Callable[[np.ndarray], Any]
    kind: type

    @contextmanager
    def active(self) -> Iterator[Counts | None]:
        """With the device of the library, and dispatch on."""
        with (
            standin_gpu() if self.name == "torch cuda" else nullcontext() as counts,
            config_context(array_api_dispatch=True),
        ):
            yield counts

    @property
    def flip_device(self) -> str:
        return "cuda" if self.name == "torch cuda" else "cpu"


def strict_on(device: str) -> Callable[[np.ndarray], Any]:
    return lambda array: array_api_strict.asarray(array, device=array_api_strict.Device(device))


LIBRARIES = [
    Library("torch cpu", torch.from_numpy, torch.Tensor),
    Library("torch cuda", lambda array: torch.from_numpy(array).to("cuda"), torch.Tensor),
    Library("strict", strict_on("CPU_DEVICE"), array_api_strict._array_object.Array),
    Library("strict on another device", strict_on("device1"), array_api_strict._array_object.Array),
]
all_libraries = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)


def flip(**params: Any) -> FLiPExtractor:
    return FLiPExtractor(**{"rank": 8, "max_iter": 2, "random_state": 0, "device": "cpu", **params})


@with_array_api
@all_libraries
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense_results_lie_where_X_lies(library: Library, dtype: type) -> None:
    X = X32.astype(dtype)
    model = flip(sparse_output=False).fit(X, Y)
    with library.active():
        model.set_params(device=library.flip_device)
        there = library.array(X)
        for name in DENSE_METHODS:
            result = getattr(model, name)(there)
            assert isinstance(result, library.kind), name
            assert result.device == there.device
            assert result.dtype == there.dtype
            expected = getattr(model, name)(X)  # NumPy stays NumPy
            assert type(expected) is np.ndarray
            np.testing.assert_array_equal(as_numpy(result), expected)


@with_array_api
@all_libraries
def test_fit_words_and_sparse_results_are_those_of_numpy(library: Library) -> None:
    weights, groups = RNG.uniform(0.5, 1.5, size=N), np.arange(N) // 2
    with library.active():
        there = library.array(X32)
        model, expected = (flip(device=library.flip_device) for _ in range(2))
        model.fit(there, library.array(Y), library.array(weights), groups=library.array(groups))
        expected.fit(X32, Y, weights, groups=groups)
        for name in ("word_embeddings_", "projection_", "bias_", "embedding_mean_", "word_counts_"):
            assert type(getattr(model, name)) is np.ndarray
            np.testing.assert_array_equal(getattr(model, name), getattr(expected, name))
        for method in ("predict", "transform"):
            result = getattr(model, method)(there)
            assert isinstance(result, sp.csr_array)
            np.testing.assert_array_equal(result.toarray(), getattr(expected, method)(X32).toarray())
        assert model.extract_keywords(there, top_k=3) == expected.extract_keywords(X32, top_k=3)
        score = expected.score(X32, Y, weights)
        assert model.score(there, library.array(Y), library.array(weights)) == score
        assert keyword_accuracy_scorer(model, there, library.array(Y), library.array(weights)) == score
        assert keyword_accuracy(Y, model.decision_function(there)).value == model.score(there, Y)
        assert model.kkt_residual_ == pytest.approx(kkt_residual(model, there, Y, weights), rel=1e-5)
        streamed = flip(device=library.flip_device).partial_fit(there, Y)
        np.testing.assert_array_equal(
            streamed.bias_, flip(device=library.flip_device).partial_fit(X32, Y).bias_
        )


@with_array_api
@all_libraries
def test_path_of_strengths(library: Library) -> None:
    with library.active():
        path, expected = (
            regularization_path(X, Y, [0.1, 0.01], estimator=flip(device=library.flip_device), max_iter=2)
            for X in (library.array(X32), X32)
        )
        np.testing.assert_array_equal(path.accuracy, expected.accuracy)


@with_array_api
@all_libraries
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eraser(library: Library, dtype: type) -> None:
    X, labels = X32.astype(dtype), Y[:, :2]
    expected = WordEraser(["red", "dog"]).fit(X, labels)
    with library.active():
        there = library.array(X)
        eraser = WordEraser(["red", "dog"]).fit(there, library.array(labels))
        erased = eraser.transform(there)
        assert isinstance(erased, library.kind)
        assert (erased.device, erased.dtype) == (there.device, there.dtype)
        np.testing.assert_allclose(as_numpy(erased), expected.transform(X), rtol=1e-6, atol=1e-6)
        assert type(eraser.mean_) is type(eraser.proj_left_) is type(eraser.proj_right_) is np.ndarray


@with_array_api
@all_libraries
def test_splice(library: Library) -> None:
    with library.active():
        there = library.array(X32)
        model, expected = (
            SpLiCEExtractor(CONCEPTS, sparse_output=False, device=library.flip_device).fit(X)
            for X in (there, X32)
        )
        np.testing.assert_allclose(model.embedding_mean_, expected.embedding_mean_, rtol=1e-12)
        weights = model.transform(there)
        results = {
            "transform": (weights, expected.transform(X32)),
            "recompose": (model.inverse_transform(weights), expected.inverse_transform(as_numpy(weights))),
            "intervene": (model.intervene(there, ["word1"]), expected.intervene(X32, ["word1"])),
        }
        for name, (result, wanted) in results.items():
            assert isinstance(result, library.kind), name
            assert (result.device, result.dtype) == (there.device, there.dtype)
            assert type(wanted) is np.ndarray
            np.testing.assert_allclose(as_numpy(result), wanted, atol=1e-6)
        quality = model.decomposition_quality(there)
        np.testing.assert_allclose(quality.cosine, expected.decomposition_quality(X32).cosine, atol=1e-6)
        assert model.extract_keywords(there[:20, :]) == expected.extract_keywords(X32[:20])
        # Sparse weights do not say where the embeddings should lie.
        assert type(model.inverse_transform(sp.csr_array(as_numpy(weights)))) is np.ndarray


@with_array_api
@all_libraries
@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_values_that_are_not_finite_are_found_where_X_lies(library: Library, value: float, kind: str) -> None:
    X = X32.copy()
    X[1003, 5] = value
    model = flip().fit(X32, Y)
    with library.active():
        there = library.array(X)
        for refuse in (lambda: flip().fit(there, Y), lambda: model.predict(there)):
            with pytest.raises(ValueError, match=rf"Input X contains {kind}: X\[1003, 5\]"):
                refuse()


@with_array_api
@all_libraries
def test_wrong_inputs_are_refused(library: Library) -> None:
    model = flip().fit(X32, Y)
    with library.active():
        with pytest.raises(ValueError, match="64 features"):
            model.predict(library.array(X32[:, :9].copy()))
        with pytest.raises(ValueError, match="2D array"):
            model.predict(library.array(X32[0].copy()))
        integers = library.array(np.ones((3, D), dtype=np.int64))
        np.testing.assert_array_equal(
            as_numpy(model.decision_function(integers)), model.decision_function(np.ones((3, D)))
        )


@with_array_api
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_as_it_is(dtype: torch.dtype) -> None:
    there = torch.from_numpy(X32).to(dtype)
    with config_context(array_api_dispatch=True):
        model, expected = flip().fit(there, Y), flip().fit(there.float(), Y)
        np.testing.assert_array_equal(model.word_embeddings_, expected.word_embeddings_)
        result = model.decision_function(there)
        assert result.dtype == torch.float32
        np.testing.assert_array_equal(result, expected.decision_function(there.float()))


@with_array_api
@pytest.mark.parametrize(("model_device", "data_device"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_the_model_computes_on_its_device_and_results_lie_on_that_of_X(
    model_device: str, data_device: str
) -> None:
    with standin_gpu(), config_context(array_api_dispatch=True):
        there = torch.from_numpy(X32).to(data_device)
        model = flip(device=model_device, sparse_output=False).fit(there, Y)
        assert model.device_ == model_device
        np.testing.assert_array_equal(
            model.word_embeddings_, flip(device=model_device).fit(X32, Y).word_embeddings_
        )
        for name in DENSE_METHODS:
            result = getattr(model, name)(there)
            assert result.device.type == data_device
            np.testing.assert_array_equal(result.cpu(), getattr(model, name)(X32))


@with_array_api
@pytest.mark.parametrize("solver", ["exact", "sampled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pipeline_on_a_device_never_copies_X_to_the_host(solver: str, precision: str) -> None:
    """Nor the dense results; words, their scores and single numbers are copied."""
    with standin_gpu() as counts, config_context(array_api_dispatch=True):
        X = torch.from_numpy(X32).to("cuda")
        last = flip(device="cuda", solver=solver, precision=precision, top_k=5, early_stopping=True)
        model = make_pipeline(StandardScaler(), PCA(60), last)
        counts.downloads.clear()
        model.fit(X, Y)
        for method in ("decision_function", "predict_proba", "predict_log_proba", "transform", "predict"):
            getattr(model, method)(X)
        last.set_params(sparse_output=False)
        model.transform(X)
        model[:-1].transform(X)
        last.extract_keywords(model[:-1].transform(X))
        model.score(X, Y)
        assert counts.downloads
        assert max(counts.downloads) < N * N_WORDS  # fewer than X has, and fewer than there are scores


@with_array_api
def test_splice_on_a_device_never_copies_X_to_the_host() -> None:
    with standin_gpu() as counts, config_context(array_api_dispatch=True):
        X = torch.from_numpy(X32).to("cuda")
        counts.downloads.clear()
        model = SpLiCEExtractor(CONCEPTS, sparse_output=False, device="cuda").fit(X)
        model.inverse_transform(model.transform(X))
        model.intervene(X, ["word1"])
        model.decomposition_quality(X)
        model.extract_keywords(X)
        assert counts.downloads
        assert max(counts.downloads) < N * D


@with_array_api
def test_the_count_of_copies_can_fail() -> None:
    """Negative control: without dispatch X is converted to NumPy, and so are the results."""
    with standin_gpu() as counts:
        X = torch.from_numpy(X32).to("cuda")
        model = flip(device="cuda").fit(X, Y)
        assert max(counts.downloads) == N * D
        counts.downloads.clear()
        assert type(model.decision_function(X)) is np.ndarray
        assert max(counts.downloads) >= N * D


@with_array_api
def test_results_may_be_differentiated_with() -> None:
    """They are no tensors of inference mode, which autograd refuses."""
    model = flip().fit(X32, Y)
    with config_context(array_api_dispatch=True):
        scores = model.decision_function(torch.from_numpy(X32))
    weight = torch.ones(N_WORDS, requires_grad=True)
    (scores @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, scores.sum(dim=0), rtol=1e-4, atol=0)


@with_array_api
def test_the_tag_says_that_fitted_attributes_are_numpy() -> None:
    """``array_api_support`` also promises fitted attributes in the library of X."""
    assert not get_tags(flip()).array_api_support
    with config_context(array_api_dispatch=True):
        assert type(flip().fit(torch.from_numpy(X32), Y).projection_) is np.ndarray

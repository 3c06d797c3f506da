"""Fitted models on a CUDA device: scoring, SpLiCE, and models that leave the machine."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import edit_words
from flip_sklearn.splice import SpLiCEExtractor
from tests.helpers.paths import ROOT
from tests.helpers.planted import planted

pytestmark = pytest.mark.gpu

# More words than 64 times a shortlist of some words, so that bfloat16 shortlists are used.
TRUTH = planted(n=3000, d=24, n_words=2000, rank=6, length=6)
X, Y = TRUTH.X.astype(np.float32), TRUTH.Y


@pytest.fixture(scope="module")
def fitted() -> FLiPExtractor:
    """A model made on the device."""
    return FLiPExtractor(6, l1_strength=0.1, max_iter=2, random_state=0, device="cuda").fit(X, Y)


def on(device: str, model: FLiPExtractor, **changed: Any) -> FLiPExtractor:
    return pickle.loads(pickle.dumps(model)).set_params(device=device, **changed)


def test_rows_found_equal_those_of_the_cpu(fitted: FLiPExtractor) -> None:
    seen = np.flatnonzero(fitted.word_counts_ > 0)[:3]
    first, second, third = fitted.vocabulary_[seen]
    for mode in ("all", "any"):
        (_, expected), (rows, scores) = (
            on(device, fitted).find_rows(X, [first, second], third, mode=mode, top_k=50, return_scores=True)
            for device in ("cpu", "cuda")
        )
        assert len(set(rows)) == 50
        np.testing.assert_allclose(scores, expected, rtol=1e-2)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_results_equal_those_of_the_cpu(
    fitted: FLiPExtractor, use_bias: bool, is_sparse: bool, precision: str
) -> None:
    """Scoring is in float32 also for bfloat16, so its words are the CPU's."""
    models = [on(d, fitted, use_bias=use_bias, precision=precision) for d in ("cpu", "cuda")]
    if is_sparse:
        models = [model.to_sparse() for model in models]
    on_cpu, on_gpu = models
    same = np.mean([a == b for a, b in zip(*(m.extract_keywords(X) for m in models), strict=True)])
    assert same >= 0.999
    few = X[:300]
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        expected, result = (np.asarray(getattr(m, method)(few)) for m in models)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)
    difference = on_gpu.transform(X) - on_cpu.transform(X)
    assert abs(difference).sum() < 1e-3 * len(X)
    assert (on_gpu.predict(X) != on_cpu.predict(X)).nnz <= 0.001 * 10 * len(X)
    assert on_gpu.score(X, Y) == pytest.approx(on_cpu.score(X, Y), abs=1e-3)


def test_scores_equal_their_definition(fitted: FLiPExtractor) -> None:
    A, B = (a.astype(np.float64) for a in (fitted.word_embeddings_, fitted.projection_))
    z = (
        fitted.bias_
        + fitted.ranking_offset_
        + (X[:100] - fitted.embedding_mean_.astype(np.float64)) @ B.T @ A.T
    )
    seen = fitted.word_counts_ > 0
    np.testing.assert_allclose(
        on("cuda", fitted).decision_function(X[:100])[:, seen], z[:, seen], rtol=1e-4, atol=1e-4
    )


def test_edits_equal_those_of_the_cpu(fitted: FLiPExtractor) -> None:
    frequent = fitted.vocabulary_[np.argsort(-fitted.word_counts_)[:3]].tolist()
    on_cpu, on_gpu = (
        edit_words(on(d, fitted), X[:50], frequent[:1], frequent[1:], probability=0.3)
        for d in ("cpu", "cuda")
    )
    assert (on_cpu.distance > 0).sum() > 10
    np.testing.assert_allclose(on_gpu.X, on_cpu.X, atol=1e-2)
    np.testing.assert_allclose(on_gpu.presence_after, on_cpu.presence_after, atol=2e-3)


def test_one_row_at_a_time_gives_the_same_words(fitted: FLiPExtractor) -> None:
    together = fitted.extract_keywords(X[:40])
    alone = [fitted.extract_keywords(X[[i]])[0] for i in range(40)]
    assert np.mean([a == b for a, b in zip(together, alone, strict=True)]) >= 0.95


@pytest.mark.parametrize("l1_strength", [0.25, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_splice_equals_that_of_the_cpu(l1_strength: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    concepts = rng.normal(size=(500, 32))
    rows = (rng.poisson(0.01, size=(300, 500)) @ concepts + 0.3 * rng.normal(size=(300, 32))).astype(dtype)
    models = [
        SpLiCEExtractor(concepts.astype(dtype), l1_strength=l1_strength, device=d).fit(rows)
        for d in ("cpu", "cuda")
    ]
    on_cpu, on_gpu = (model.transform(rows) for model in models)
    assert on_cpu.nnz > 0
    if l1_strength:
        # The weights are determined less well than the objective.
        tolerance = 1e-2 if dtype is np.float32 else 1e-5
        np.testing.assert_allclose(on_gpu.toarray(), on_cpu.toarray(), atol=tolerance)
    else:  # many weights of more concepts than dimensions give the same best reconstruction
        rebuilt = [
            model.inverse_transform(weights) for model, weights in zip(models, (on_cpu, on_gpu), strict=True)
        ]
        np.testing.assert_allclose(rebuilt[1], rebuilt[0], atol=1e-2 * np.abs(rows).max())
    np.testing.assert_allclose(models[1].embedding_mean_, models[0].embedding_mean_, rtol=1e-4, atol=1e-6)


LOAD = """
import pickle, sys
import numpy as np
import torch
from flip_sklearn import FLiPExtractor
assert not torch.cuda.is_available()
folder = sys.argv[1]
X = np.load(folder + "/X.npy")
model = FLiPExtractor.from_pretrained(folder + "/model")
print(model.extract_keywords(X))
with open(folder + "/model.pkl", "rb") as file:
    model = pickle.load(file)
model.set_params(device="auto")
print(model.extract_keywords(X))
print(model.partial_fit(X, np.eye(len(X), len(model.vocabulary_))).device_)
"""


def test_models_of_the_device_load_without_one(fitted: FLiPExtractor, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", X[:20])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    fitted.save_pretrained(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pretrained, pickled, device = done.stdout.splitlines()
    assert pretrained == pickled == repr(on("cpu", fitted).extract_keywords(X[:20]))
    assert device == "cpu"


def test_no_fitted_attribute_is_on_the_device(fitted: FLiPExtractor) -> None:
    assert not [name for name, value in vars(fitted).items() if isinstance(value, torch.Tensor)]

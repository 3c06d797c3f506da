"""Fits on a CUDA device: the CPU's model, the same bits again, and all ways to continue a fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from flip_sklearn import FLiPExtractor, kkt_residual, regularization_path
from flip_sklearn.backend.fit import candidates, checkpoint
from flip_sklearn.backend.fit.checkpoint import Checkpoint
from tests.helpers.planted import planted

pytestmark = pytest.mark.gpu

TRUTH = planted(n=1200, d=24, n_words=200, rank=6, length=6)
X, Y = TRUTH.X.astype(np.float32), TRUTH.Y
# The mean embedding of the texts with a word, which predicts its row.
FEATURES = (Y.T @ X) / Y.sum(axis=0).clip(1)[:, None]
WEIGHTS = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
SETTINGS: dict[str, Any] = dict(
    rank=6, l1_strength=0.02, batch_size=60, max_iter=4, solver="exact", early_stopping=False,
    precision="float32", random_state=0,
)  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "exact": {},
    "sampled": {"solver": "sampled"},
    "without L1": {"l1_strength": 0.0},
    "LiP": {"rank": None},
    "sampled LiP": {"rank": None, "solver": "sampled"},
    "early stopping": {"early_stopping": True, "max_iter": 10},
    "likelihood": {"early_stopping": "likelihood", "solver": "sampled"},
    "float64": {"precision": "float64"},
    "features": {"word_features": FEATURES, "early_stopping": True},
    "sampled, features": {"word_features": FEATURES, "solver": "sampled"},
    "sampled float64": {"precision": "float64", "solver": "sampled"},
}
# Largest difference of scores, relative to their standard deviation. Every step carries on the rounding
# errors of the steps before.
TOLERANCE = {"float64": 1e-8, "float32": 1e-3}


@pytest.fixture(autouse=True)
def _sample_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default number is larger than this vocabulary."""
    monkeypatch.setattr(candidates, "DRAWN_WORDS", 40)


def fit(device: str, sample_weight: Any = None, **changed: Any) -> FLiPExtractor:
    return FLiPExtractor(**{**SETTINGS, "device": device, **changed}).fit(X, Y, sample_weight)


def scores(model: FLiPExtractor) -> np.ndarray:
    """Scores of some rows, computed by NumPy in float64."""
    A, B = (a.astype(np.float64) for a in (model.word_embeddings_, model.projection_))
    return model.bias_ + (X[:200] - model.embedding_mean_) @ B.T @ A.T


def assert_same_model(one: FLiPExtractor, other: FLiPExtractor, tolerance: float) -> None:
    z, z_other = scores(one), scores(other)
    assert np.abs(z_other - z).max() / z.std() < tolerance
    words, words_other = ([{*row} for row in m.extract_keywords(X, top_k=5)] for m in (one, other))
    shared = [len(a & b) / 5 for a, b in zip(words, words_other, strict=True)]
    assert np.mean(shared) >= 0.99
    np.testing.assert_allclose(other.history_["loss"], one.history_["loss"], rtol=tolerance)
    assert other.best_iter_ == one.best_iter_


def bits(model: FLiPExtractor) -> list[bytes]:
    arrays = (model.word_embeddings_, model.projection_, model.bias_, np.array(model.history_["loss"]))
    return [np.ascontiguousarray(a).tobytes() for a in arrays]


# --- The model --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
def test_fit_equals_that_of_the_cpu(case: str, weights: np.ndarray | None) -> None:
    changed = CASES[case]
    on_cpu, on_gpu = (fit(device, weights, **changed) for device in ("cpu", "cuda"))
    assert on_gpu.device_ == "cuda"
    assert_same_model(on_cpu, on_gpu, TOLERANCE[changed.get("precision", "float32")])


def test_another_seed_gives_another_model() -> None:
    """Negative control of the comparison above."""
    with pytest.raises(AssertionError):
        assert_same_model(fit("cpu"), fit("cuda", random_state=1), TOLERANCE["float32"])


@pytest.mark.parametrize("solver", ["exact", "sampled"])
@pytest.mark.parametrize("rank", [6, None])
def test_bfloat16_fit_is_as_good(solver: str, rank: int | None) -> None:
    single, half = (fit("cuda", precision=p, solver=solver, rank=rank) for p in ("float32", "bfloat16"))
    assert bits(single) != bits(half)
    assert half.score(X, Y) == pytest.approx(single.score(X, Y), abs=0.01)
    assert half.history_["loss"][-1] == pytest.approx(single.history_["loss"][-1], rel=5e-3)
    z, z_half = scores(single), scores(half)
    assert np.sqrt(np.mean((z_half - z) ** 2)) < 0.1 * z.std()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("solver", ["exact", "sampled"])
def test_the_same_seed_gives_the_same_bits(solver: str, precision: str) -> None:
    """No kernel adds to one place in an order that changes."""
    first, second = (fit("cuda", solver=solver, precision=precision) for _ in range(2))
    assert bits(first) == bits(second)


def test_default_settings_use_the_device() -> None:
    model = FLiPExtractor(random_state=0, max_iter=2).fit(X, Y)
    assert model.device_ == "cuda"
    assert model.score(X, Y) > 0.3


# --- Embeddings on the device, and more of them than fit there ---------------------------------


def test_embeddings_on_the_device() -> None:
    expected = fit("cuda")
    on_device = torch.from_numpy(X).to("cuda")
    model = FLiPExtractor(**{**SETTINGS, "device": "cuda"}).fit(on_device, Y)
    assert bits(model) == bits(expected)
    assert model.extract_keywords(on_device) == expected.extract_keywords(X)


@pytest.mark.parametrize("solver", ["exact", "sampled"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_embeddings_that_do_not_fit_are_read_from_the_host(
    solver: str, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = X.astype(dtype)
    model = FLiPExtractor(**{**SETTINGS, "solver": solver, "device": "cuda"})
    expected = bits(model.fit(rows, Y))
    asked = []

    def no_memory(device: Any = None) -> tuple[int, int]:
        asked.append(device)
        return 0, 80 << 30

    monkeypatch.setattr(torch.cuda, "mem_get_info", no_memory)
    assert bits(model.fit(rows, Y)) == expected
    assert asked


# --- Continued fits ---------------------------------------------------------------------------


def test_partial_fit_equals_that_of_the_cpu() -> None:
    models = []
    for device in ("cpu", "cuda"):
        model = FLiPExtractor(**{**SETTINGS, "device": device})
        for rows in (slice(0, 500), slice(500, 1200), slice(0, 500)):
            model.partial_fit(X[rows], Y[rows])
        models.append(model)
    assert_same_model(*models, TOLERANCE["float32"])


def test_warm_start_equals_that_of_the_cpu() -> None:
    models = []
    for device in ("cpu", "cuda"):
        model = FLiPExtractor(**{**SETTINGS, "device": device, "warm_start": True, "max_iter": 2})
        models.append(model.fit(X, Y).fit(X, Y))
    assert_same_model(*models, TOLERANCE["float32"])


class Killed(BaseException):
    """Ends a fit as a kill does."""


def kill_after(n_checkpoints: int, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Write a checkpoint after every step, and end the fit after some; return how many there were."""
    patch.setattr(checkpoint, "MIN_SECONDS", 0.0)
    patch.setattr(checkpoint, "WRITING_TIME_FACTOR", 0.0)
    patch.setattr(os, "fsync", lambda _: None)
    save, n_saved = Checkpoint.save_if_due, 0

    def save_and_die(self: Checkpoint, *args: Any, **kwargs: Any) -> None:
        nonlocal n_saved
        save(self, *args, **kwargs)
        n_saved += 1
        if n_saved == n_checkpoints:
            raise Killed

    patch.setattr(Checkpoint, "save_if_due", save_and_die)
    return lambda: n_saved


@pytest.mark.parametrize("solver", ["exact", "sampled"])
@pytest.mark.parametrize("rank", [6, None])
@pytest.mark.parametrize("begin", ["cuda", "cpu"])
def test_resumed_fit_equals_an_undisturbed_one(
    begin: str, rank: int | None, solver: str, tmp_path: Path
) -> None:
    """Within a pass; on the device it began on to the same bits."""
    options = dict(rank=rank, solver=solver, early_stopping=True)
    undisturbed = fit("cuda", **options)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(30, patch)
        with pytest.raises(Killed):
            fit(begin, checkpoint_dir=tmp_path, **options)
    (path,) = tmp_path.glob("*.safetensors")
    written = path.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        n_saved = kill_after(10**6, patch)
        resumed = fit("cuda", checkpoint_dir=tmp_path, **options)
    assert [path] == [*tmp_path.glob("*.safetensors")]
    assert path.stat().st_mtime_ns > written
    n_steps = len(undisturbed.history_["loss"]) * 18
    assert n_saved() < n_steps - 20, "the fit began anew"
    if begin == "cuda":
        assert bits(resumed) == bits(undisturbed)
    assert_same_model(undisturbed, resumed, TOLERANCE["float32"])


# --- Paths, optimality, grid search -----------------------------------------------------------


@pytest.mark.parametrize("rank", [6, None])
def test_path_equals_that_of_the_cpu(rank: int | None) -> None:
    estimators = [FLiPExtractor(**{**SETTINGS, "rank": rank, "device": d}) for d in ("cpu", "cuda")]
    on_cpu, on_gpu = (regularization_path(X, Y, 4, estimator=e, max_iter=2, kkt=True) for e in estimators)
    np.testing.assert_allclose(on_gpu.l1_strengths, on_cpu.l1_strengths, rtol=1e-4)
    np.testing.assert_allclose(on_gpu.nll, on_cpu.nll, rtol=1e-3)
    np.testing.assert_allclose(on_gpu.accuracy, on_cpu.accuracy, atol=0.005)
    np.testing.assert_allclose(on_gpu.sparsity, on_cpu.sparsity, atol=0.005)
    # At the strongest penalty, the residual of the closed form is rounding only.
    np.testing.assert_allclose(on_gpu.kkt_residual, on_cpu.kkt_residual, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("rank", [6, None])
def test_kkt_residual_equals_that_of_the_cpu(rank: int | None) -> None:
    model = fit("cpu", rank=rank, precision="float64")
    expected = kkt_residual(model, X, Y)
    assert kkt_residual(model.set_params(device="cuda"), X, Y) == pytest.approx(expected, rel=1e-8)
    assert fit("cuda", rank=rank, precision="float64").kkt_residual_ == pytest.approx(expected, rel=1e-4)


def test_grid_search_equals_that_of_the_cpu() -> None:
    grid = {"l1_strength": [0.0, 0.02, 10.0]}
    searches = [
        GridSearchCV(FLiPExtractor(**{**SETTINGS, "device": d}), grid, cv=3).fit(X, Y)
        for d in ("cpu", "cuda")
    ]
    means = [search.cv_results_["mean_test_score"] for search in searches]
    np.testing.assert_allclose(means[1], means[0], atol=0.005)
    assert searches[1].best_params_ == searches[0].best_params_
    assert means[0].argmin() == 2  # the penalty that removes all words

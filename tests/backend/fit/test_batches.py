"""Batches that are prepared ahead in a second thread are those prepared in turn, and no thread is left."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend import device as device_module
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit import candidates, checkpoint
from flip_sklearn.backend.fit.batches import Batch, BatchReader
from flip_sklearn.backend.fit.candidates import ClassSampler
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.state import TrainingState
from tests.helpers.planted import planted
from tests.helpers.standin_gpu import standin_gpu

TRUTH = planted(n=230, d=8, n_words=60, rank=4, length=6)
X = TRUTH.X.astype(np.float16)
SETTINGS: dict[str, Any] = dict(
    rank=4, batch_size=25, max_iter=3, early_stopping=False, precision="float32", random_state=0
)


def reader(device: str, solver: str) -> BatchReader:
    take = np.random.default_rng(0).permutation(len(X))[:170]
    rows = CountDataset(X, TRUTH.Y[take], np.linspace(0, 2, 170), rows=take)
    sampler = None
    if solver == "sampled":
        sampler = ClassSampler(rows.word_counts(), rows.document_frequency(), len(rows), 25, n_drawn=10)
    return BatchReader(rows, resolve_compute(device, "float32"), sampler)


def read(device: str, solver: str) -> tuple[list[Batch], torch.Tensor]:
    """All batches of a pass, and the state of the generator afterwards."""
    generator = torch.Generator().manual_seed(3)
    order = np.random.default_rng(1).permutation(170)
    batches = list(reader(device, solver).read([order[i : i + 25] for i in range(0, 170, 25)], generator))
    return batches, generator.get_state()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "flip_sklearn" in thread.name]


@pytest.fixture(autouse=True)
def _leave_no_thread() -> Iterator[None]:
    yield
    assert not threads()


@pytest.mark.parametrize("solver", ["exact", "sampled"])
@pytest.mark.parametrize("free_bytes", [1 << 30, 0], ids=["X on the device", "X on the host"])
def test_batches_read_ahead_are_those_read_in_turn(solver: str, free_bytes: int) -> None:
    expected, untouched = read("cpu", solver)
    with standin_gpu(free_bytes):
        batches, state = read("cuda", solver)
        assert torch.equal(state, untouched)  # the caller's generator is not advanced
        assert len(batches) == len(expected) == 7
        for batch, other in zip(batches, expected, strict=True):
            assert batch.n_rows == other.n_rows
            assert torch.equal(batch.generator_state, other.generator_state)
            assert batch.x.device.type == "cuda"
            assert batch.x.dtype == torch.float16
            pairs = [(batch.x, other.x)]
            pairs += [(getattr(batch.targets, n), getattr(other.targets, n)) for n in ("position", "count")]
            pairs += [(getattr(batch.targets, n), getattr(other.targets, n)) for n in ("share", "total")]
            assert (batch.classes is None) == (other.classes is None) == (solver == "exact")
            if batch.classes is not None:
                pairs += zip(vars(batch.classes).values(), vars(other.classes).values(), strict=True)
            for ours, theirs in pairs:
                assert ours.dtype == theirs.dtype
                assert torch.equal(ours.cpu(), theirs)
    moved = [not torch.equal(a.generator_state, b.generator_state) for a, b in itertools.pairwise(expected)]
    assert all(moved) if solver == "sampled" else not any(moved)


def fail_after_the_first(batches: Iterator[Batch]) -> None:
    for _ in batches:
        raise ZeroDivisionError


def test_thread_ends_if_the_caller_stops_early_or_fails() -> None:
    generator, rows = torch.Generator(), [np.arange(25)] * 5
    with standin_gpu():
        batches = reader("cuda", "exact").read(rows, generator)
        next(batches)
        assert threads()
        batches.close()
        assert not threads()
        with pytest.raises(ZeroDivisionError):
            fail_after_the_first(reader("cuda", "sampled").read(rows, generator))


def test_error_of_the_thread_is_raised_by_the_reader() -> None:
    with standin_gpu():
        batches = reader("cuda", "exact").read([np.arange(25), np.array([10**6])], torch.Generator())
        next(batches)
        with pytest.raises(IndexError):
            next(batches)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_fit_that_is_interrupted_leaves_no_thread(monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    take_step, taken = Session._take_step, []

    def failing(self: Session, batch: Batch) -> torch.Tensor:
        taken.append(len(threads()))
        if len(taken) == 4:
            raise error
        return take_step(self, batch)

    monkeypatch.setattr(Session, "_take_step", failing)
    with standin_gpu(), pytest.raises(error):
        FLiPExtractor(device="cuda", **SETTINGS).fit(X, TRUTH.Y)
    assert taken == [1, 1, 1, 1]  # the thread was there during each step
    assert not threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_the_middle_of_a_pass_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    take_step, children = Session._take_step, []

    def forking(self: Session, batch: Batch) -> torch.Tensor:
        if not children:
            child = os.fork()
            if child == 0:
                os._exit(7)
            children.append(child)
        return take_step(self, batch)

    with standin_gpu():
        expected = FLiPExtractor(device="cuda", **SETTINGS).fit(X, TRUTH.Y)
        monkeypatch.setattr(Session, "_take_step", forking)
        forked = FLiPExtractor(device="cuda", **SETTINGS).fit(X, TRUTH.Y)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
    np.testing.assert_array_equal(forked.word_embeddings_, expected.word_embeddings_)


@pytest.mark.parametrize("solver", ["exact", "sampled"])
def test_pass_resumed_in_its_middle_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, solver: str
) -> None:
    """The classes of the batches that were prepared and not used are drawn again."""
    monkeypatch.setattr(candidates, "DRAWN_WORDS", 10)
    monkeypatch.setattr(checkpoint, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "WRITING_TIME_FACTOR", 0.0)
    settings = SETTINGS | {"solver": solver, "device": "cuda"}
    take_step, taken = Session._take_step, []

    def failing(self: Session, batch: Batch) -> torch.Tensor:
        taken.append(self.state.rows_done)
        if len(taken) == 13:
            raise ZeroDivisionError
        return take_step(self, batch)

    with standin_gpu():
        expected = FLiPExtractor(**settings).fit(X, TRUTH.Y)
        model = FLiPExtractor(checkpoint_dir=tmp_path, **settings)
        monkeypatch.setattr(Session, "_take_step", failing)
        with pytest.raises(ZeroDivisionError):
            model.fit(X, TRUTH.Y)
        monkeypatch.setattr(Session, "_take_step", take_step)
        begin_pass, resumed_at = TrainingState.begin_pass, []

        def begun(state: TrainingState, n: int) -> np.ndarray:
            resumed_at.append(state.rows_done)
            return begin_pass(state, n)

        monkeypatch.setattr(TrainingState, "begin_pass", begun)
        model.fit(X, TRUTH.Y)
    assert resumed_at[0] == taken[-1] > 0  # in the middle of a pass
    for name in ("word_embeddings_", "projection_", "bias_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(expected, name))
    assert expected.solver_ == solver


def test_batches_travel_without_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def refusing(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("out of page-locked memory")
        return empty(*args, **kwargs)

    tensors = [torch.arange(3), torch.arange(5)]
    monkeypatch.setattr(torch, "empty", refusing)
    assert device_module.page_locked(tensors).tolist() == [0, 1, 2, 0, 1, 2, 3, 4]

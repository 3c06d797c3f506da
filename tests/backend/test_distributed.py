"""Several processes train one model: real ones, started by torchrun, on the CPU.

This file is also the script that torchrun starts, once for all tests: importing torch takes seconds. The two
processes report what they saw; the tests compare it, also with fits in this process alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import resolve_compute, resolve_device
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit import candidates as sampling
from flip_sklearn.backend.fit import checkpoint as checkpoints
from flip_sklearn.backend.fit import solver
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.initialization import SEARCH_ROWS
from flip_sklearn.backend.fit.optimizer import Optimizer
from flip_sklearn.backend.fit.whitening import Moments, Whitening
from flip_sklearn.estimation import training as _training
from tests.helpers.paths import ROOT
from tests.helpers.planted import planted
from tests.helpers.processes import PATIENCE, Child

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed"),
    pytest.mark.skipif(os.name != "posix", reason="gloo's tests here are POSIX's"),
]

TRUTH = planted(n=601, d=10, n_words=80, rank=4, length=5, seed=4)
WEIGHTS = np.random.default_rng(0).integers(0, 3, len(TRUTH.X)).astype(float)
SETTINGS: dict[str, Any] = dict(
    rank=4, solver="exact", batch_size=60, max_iter=4, n_iter_no_change=10, early_stopping=True,
    l1_strength=0.05, l2_strength=0.1, random_state=0, device="cpu", precision="float64",
)  # fmt: skip
# Settings, and where the rows come from.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "exact FLiP": ({}, "array"),
    "sampled FLiP": ({"solver": "sampled"}, "array"),
    "exact LiP": ({"rank": None, "early_stopping": False}, "array"),
    "sampled LiP, weights": ({"rank": None, "solver": "sampled"}, "weights"),
    "weights, by likelihood": ({"early_stopping": "likelihood"}, "weights"),
    "memmap in float16": ({"solver": "sampled"}, "memmap"),
    "float32": ({"precision": "float32", "max_iter": 8}, "array"),
    "stops early": ({"n_iter_no_change": 1, "tol": 10.0, "max_iter": 50}, "array"),
    "two chunks": ({}, "chunks"),
}
FITTED = ("word_embeddings_", "projection_", "bias_", "embedding_mean_", "word_counts_")
SPAWNS = (
    "subprocess.Popen",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.exec",
    "os.system",
)


def model(**changed: Any) -> FLiPExtractor:
    return FLiPExtractor(**{**SETTINGS, **changed})


def fit(case: str, folder: Path) -> FLiPExtractor:
    changed, source = CASES[case]
    X, Y, flip = TRUTH.X, TRUTH.Y, model(**changed)
    if source == "chunks":
        return flip.partial_fit(X[:300], Y[:300]).partial_fit(X[300:], Y[300:])
    if source == "memmap":
        X = np.load(folder / "X.npy", mmap_mode="r")
    return flip.fit(X, Y, sample_weight=WEIGHTS if source == "weights" else None)


def bits(flip: FLiPExtractor) -> str:
    """A fingerprint of all that a fit comes to; the history with its seconds, too."""
    digest = hashlib.sha256(json.dumps([flip.history_, flip.best_iter_, flip.l1_max_]).encode())
    for name in FITTED:
        digest.update(getattr(flip, name).tobytes())
    return digest.hexdigest()


def bits_but_seconds(flip: FLiPExtractor) -> str:
    flip.history_.pop("seconds")
    return bits(flip)


# --- What the processes do ------------------------------------------------------------------------


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""


def before_they_join() -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(max_iter=1).fit(TRUTH.X, TRUTH.Y)
    return [str(w.message) for w in caught if w.category is RuntimeWarning]


def rows_read(rank: int) -> dict[str, list[int]]:
    """Rows whose embeddings a fit reads, this process's and others'."""
    own: set[int] = set()
    others: list[int] = []
    embeddings = CountDataset._embeddings

    def noted(self: CountDataset, rows: np.ndarray, *where: Any) -> torch.Tensor:
        (own.update if (rows % 2 == rank).all() else others.extend)(rows.tolist())
        return embeddings(self, rows, *where)

    with replaced(CountDataset, "_embeddings", noted):
        model(early_stopping=False).fit(TRUTH.X, TRUTH.Y)
    return {"own": sorted(own), "others": others}


def progress_bar() -> str:
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        model(verbose=1, max_iter=2).fit(TRUTH.X, TRUTH.Y)
    return shown.getvalue()


def stop_of(rank: int, at: int) -> int:
    """Passes done when the callbacks of one process alone ask to stop."""
    asked = iter(range(1, 100))
    mine = dist.get_rank() == rank

    def after_pass(*_: Any) -> bool:
        return mine and next(asked) == at

    with replaced(_training.PassCallbacks, "after_pass", after_pass):
        return model(max_iter=4).fit(TRUTH.X, TRUTH.Y).n_iter_


def other_chip(rank: int) -> str:
    """Process 1 finds other eigenvectors and other last bits of the scores: both still agree."""
    from_moments, evaluate = Whitening.from_moments, solver.evaluate

    def turned(moments: Moments, ridge: float | None = None) -> Whitening:
        found = from_moments(moments, ridge)
        turn = np.linalg.qr(np.random.default_rng(rank).normal(size=found.forward.shape))[0]
        return Whitening(found.mean, found.forward @ turn, turn.T @ found.inverse)

    def other_bits(*arguments: Any) -> tuple[float, float]:
        nll, accuracy = evaluate(*arguments)
        return nll * (1 + 0.1 * rank), accuracy + 0.01 * rank * np.random.default_rng().random()

    with (
        replaced(Whitening, "from_moments", staticmethod(turned)),
        replaced(solver, "evaluate", other_bits),
    ):
        return bits(model().fit(TRUTH.X, TRUTH.Y))


def interrupted() -> dict[str, Any]:
    """Ctrl-C in the second pass of both."""
    passes = iter(range(1, 100))
    one_pass = solver.one_pass

    def interrupting(*arguments: Any) -> float:
        if next(passes) == 2:
            raise KeyboardInterrupt
        return one_pass(*arguments)

    flip = model()
    with replaced(solver, "one_pass", interrupting):
        error = error_of(lambda: flip.fit(TRUTH.X, TRUTH.Y))
    return {"error": error, "fitted": hasattr(flip, "bias_")}


def different_calls(rank: int, folder: Path) -> dict[str, str]:
    shard, weights = slice(rank, None, 2), np.arange(len(TRUTH.X)) + float(rank)
    return {
        "rows": error_of(lambda: model().fit(TRUTH.X[shard], TRUTH.Y[shard])),
        "counts": error_of(lambda: model().fit(TRUTH.X, TRUTH.Y * (1 + rank))),
        "weights": error_of(lambda: model().fit(TRUTH.X, TRUTH.Y, sample_weight=weights)),
        "passes": error_of(lambda: model(max_iter=3 + rank).fit(TRUTH.X, TRUTH.Y)),
        "passes, with a folder": error_of(
            lambda: model(max_iter=3 + rank, checkpoint_dir=folder).fit(TRUTH.X, TRUTH.Y)
        ),
    }


def report(rank: int, folder: Path) -> dict[str, Any]:
    spawned: list[str] = []
    sys.addaudithook(lambda event, _: spawned.append(event) if event in SPAWNS else None)
    prints = {}
    for case in CASES:
        flip = fit(case, folder)
        prints[case] = bits(flip)
        if rank == 0:
            arrays = {name: getattr(flip, name) for name in FITTED}
            np.savez(folder / f"{case}.npz", history=json.dumps(flip.history_), **arrays)
    return {
        "fits": prints,
        "no seed": [bits(model(random_state=None).fit(TRUTH.X, TRUTH.Y)) for _ in range(2)],
        "rows": rows_read(rank),
        "bar": progress_bar(),
        "stops": [stop_of(0, 2), stop_of(1, 2)],
        "other chip": other_chip(rank),
        "interrupted": interrupted(),
        "different calls": different_calls(rank, folder),
        "undisturbed": bits_but_seconds(model().fit(TRUTH.X, TRUTH.Y)),
        "spawned": spawned,
    }


def crash_and_go_on(rank: int, folder: Path, restarts: int) -> dict[str, Any]:
    """Process 1 raises in the third pass; torchrun starts both again, and they end the fit."""
    step, steps = Optimizer.step, iter(range(1000))

    def breaking(self: Optimizer, *arguments: Any) -> None:
        if rank == 1 and restarts == 0 and next(steps) == 25:  # nine steps a pass
            raise RuntimeError("broken by the test")
        step(self, *arguments)

    begun: list[int] = []
    one_pass = solver.one_pass

    def counted(run: Any, *arguments: Any) -> float:
        begun.append(len(run.history))
        return one_pass(run, *arguments)

    with replaced(Optimizer, "step", breaking), replaced(solver, "one_pass", counted):
        flip = model(checkpoint_dir=folder / "checkpoints").fit(TRUTH.X, TRUTH.Y)
    return {"bits": bits_but_seconds(flip), "begun": begun}


def main(folder: Path) -> None:
    rank, restarts = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    always_due()
    warned = before_they_join() if restarts == 0 else []
    dist.init_process_group("gloo")
    if restarts == 0:
        seen = {"warned": warned, **report(rank, folder)}
        (folder / f"{rank}.json").write_text(json.dumps(seen))
    after = crash_and_go_on(rank, folder, restarts)
    (folder / f"after{rank}.json").write_text(json.dumps(after))
    dist.destroy_process_group()


def always_due() -> None:
    torch.set_num_threads(1)
    sampling.DRAWN_WORDS = 20  # not the whole of a small vocabulary
    checkpoints.MIN_SECONDS = checkpoints.TIMES_THE_WRITING = 0.0


# --- The tests --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes of torchrun left their reports: it ended well, and in time."""
    path = tmp_path_factory.mktemp("torchrun")
    np.save(path / "X.npy", TRUTH.X.astype(np.float16))
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
        # Else processes that are started again may find the addresses of those before (pytorch#135712).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
            "--max-restarts=1", __file__, str(path),
        ],
        env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, printed = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # torchrun and what it started
        pytest.fail(f"hung: {process.communicate()[1][-3000:]}")
    assert process.returncode == 0, printed[-3000:]
    return path


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    """The reports of both processes."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def alone(case: str, folder: Path) -> FLiPExtractor:
    """The same fit in this process."""
    with replaced(sampling, "DRAWN_WORDS", 20):
        return fit(case, folder)


@pytest.mark.parametrize("case", CASES)
def test_both_processes_have_the_same_model_to_the_bit(seen, case: str) -> None:
    """And the same history, seconds included."""
    assert seen[0]["fits"][case] == seen[1]["fits"][case]
    assert len(set(seen[0]["fits"].values())) == len(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case != "float32"])
def test_the_model_is_that_of_one_process(seen, folder: Path, case: str) -> None:
    """Up to the order of float additions."""
    one = alone(case, folder)
    two = np.load(folder / f"{case}.npz")
    for name in FITTED:
        np.testing.assert_allclose(two[name], getattr(one, name), rtol=1e-8, atol=1e-8)
    history = json.loads(str(two["history"]))
    for key, values in one.history_.items():
        if key != "seconds":
            np.testing.assert_allclose(history[key], values, rtol=1e-8)


def test_in_float32_it_is_as_good(seen, folder: Path) -> None:
    one = alone("float32", folder)
    two = np.load(folder / "float32.npz")
    found = model().set_params(precision="float32").fit(TRUTH.X, TRUTH.Y)
    for name in FITTED:
        setattr(found, name, two[name])
    assert found.score(TRUTH.X, TRUTH.Y) == pytest.approx(one.score(TRUTH.X, TRUTH.Y), abs=0.01)
    np.testing.assert_allclose(two["word_embeddings_"], one.word_embeddings_, atol=0.02)


def test_without_a_seed_they_share_the_one_of_the_first(seen) -> None:
    assert seen[0]["no seed"] == seen[1]["no seed"]
    assert seen[0]["no seed"][0] != seen[0]["no seed"][1]


def test_each_reads_its_rows_alone_but_for_the_search_of_the_start(seen) -> None:
    n = len(TRUTH.X)
    searched = np.unique(np.linspace(0, n - 1, SEARCH_ROWS).astype(int)).tolist()
    for rank in range(2):
        assert seen[rank]["rows"]["own"] == list(range(rank, n, 2))
        assert seen[rank]["rows"]["others"] == searched


def test_only_the_first_shows_a_bar(seen) -> None:
    assert "FLiP pass 2/2: 100%" in seen[0]["bar"]
    assert "pass 2/2" not in seen[1]["bar"]


def test_the_first_decides_when_to_stop(seen) -> None:
    for report in seen:
        assert report["stops"] == [2, 4]  # asked by the first, by the second


def test_other_chips_agree(seen) -> None:
    """Negative control in it: process 1 found another whitening and other scores."""
    assert seen[0]["other chip"] == seen[1]["other chip"]
    assert seen[0]["other chip"] not in seen[0]["fits"].values()


def test_an_interrupt_goes_through_in_a_group(seen) -> None:
    """One process keeps the passes done; of several, each may have done others."""
    for report in seen:
        assert report["interrupted"] == {"error": "KeyboardInterrupt: ", "fitted": False}


def test_different_calls_are_refused_by_both(seen) -> None:
    for report in seen:
        assert len(report["different calls"]) == 5
        for what, error in report["different calls"].items():
            assert "called fit with different data or parameters; give each of them" in error, what


def test_fit_starts_no_process(seen) -> None:
    assert seen[0]["spawned"] == seen[1]["spawned"] == []


def test_a_group_that_broke_is_started_again_and_goes_on(seen, folder: Path) -> None:
    """One process raised: the other did not hang, torchrun began both anew, the checkpoint did the rest."""
    for rank in range(2):
        after = json.loads((folder / f"after{rank}.json").read_text())
        assert after["begun"] == [2, 3]  # of four passes, the last two
        assert after["bits"] == seen[0]["undisturbed"]


def test_processes_that_have_not_joined_are_told(seen, monkeypatch) -> None:
    for report in seen:
        (message,) = report["warned"]
        assert "torchrun started 2 processes" in message
        assert "torch.distributed.init_process_group()" in message
    monkeypatch.setenv("WORLD_SIZE", "2")  # of another launcher, with processes of another kind
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model(max_iter=1).fit(TRUTH.X, TRUTH.Y)


def of_three(rank: int, store: Path, settings: dict[str, Any]) -> tuple[str, np.ndarray]:
    """Batches of two rows: one process at least has none of them."""
    always_due()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    try:
        flip = model(**settings).fit(TRUTH.X[:40], TRUTH.Y[:40])
        return bits(flip), flip.word_embeddings_
    finally:
        dist.destroy_process_group()


def test_three_processes_with_fewer_rows_in_a_batch(tmp_path: Path) -> None:
    settings = dict(batch_size=2, max_iter=2, solver="sampled", validation_fraction=0.05)
    with contextlib.ExitStack() as stack:
        three = [
            stack.enter_context(Child(of_three, rank, tmp_path / "store", settings))
            for rank in range(3)
        ]
        results = [child.result() for child in three]
    assert len({fingerprint for fingerprint, _ in results}) == 1
    with replaced(sampling, "DRAWN_WORDS", 20):
        one = model(**settings).fit(TRUTH.X[:40], TRUTH.Y[:40])
    np.testing.assert_allclose(results[2][1], one.word_embeddings_, rtol=1e-8, atol=1e-8)


# --- GPUs, as far as a machine without one can tell ----------------------------------------------


def pretend_gpus(patch: pytest.MonkeyPatch, count: int, processes: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "device_count", lambda: count)
    patch.setattr(dist, "is_initialized", lambda: processes > 1)
    patch.setattr(dist, "get_world_size", lambda: processes)
    patch.setattr(dist, "get_rank", lambda: 0)


@pytest.mark.parametrize(
    ("local_rank", "gpus", "processes", "expected"),
    [
        ("0", 4, 4, "cuda:0"),
        ("3", 4, 8, "cuda:3"),
        ("3", 1, 4, "cuda:0"),  # a launcher that shows each process its own GPU alone
        ("3", 4, 1, "cuda"),  # not in a group
        (None, 4, 4, "cuda"),  # another launcher: the device that its user has set
    ],
)
def test_auto_is_the_gpu_of_the_process(monkeypatch, local_rank, gpus, processes, expected) -> None:
    pretend_gpus(monkeypatch, gpus, processes)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert str(resolve_device("auto")) == expected
    assert str(resolve_device("cuda:0")) == "cuda:0"  # what is named is what is taken


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_rows_kept_on_a_device_are_those_of_the_process(rank: int) -> None:
    """Stored by their own numbers; rows of others, which the start's search asks for, are looked up."""
    take = np.random.default_rng(0).permutation(len(TRUTH.X))[:100]
    Y, compute = TRUTH.Y[take], resolve_compute("cpu", "float64")
    parts = (TRUTH.X, Y.indptr, Y.indices, Y.data, np.ones(100), Y.shape[1])
    plain, kept = (CountDataset(*parts, take=take, group=ProcessGroup(rank, 3)) for _ in range(2))
    cpu = torch.device("cpu")
    mine = np.arange(rank, 100, 3)
    x = kept._upload(mine, torch.float64, cpu)  # what happens on a GPU where it fits
    kept._tensors, kept._where, kept._resident_x = (x, *kept._on(cpu)[1:]), cpu, True
    assert len(x) == len(mine)
    for rows in (mine, mine[::5][::-1].copy(), np.array([0, 1, 2, 50]), mine[:0]):
        torch.testing.assert_close(kept.batch(rows, compute)[0], plain.batch(rows, compute)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

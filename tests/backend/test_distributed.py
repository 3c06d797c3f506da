"""Training by several real processes, which torchrun starts on the CPU.

This file is also the script that torchrun runs, once for all tests, because importing torch takes seconds.
The two processes write reports, which the tests compare with each other and with fits in this process.
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
from flip_sklearn import io as package_io
from flip_sklearn.backend.device import resolve_compute, resolve_device
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit import candidates as sampling
from flip_sklearn.backend.fit import checkpoint as checkpoints
from flip_sklearn.backend.fit import solver
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.initialization import SEARCH_ROWS
from flip_sklearn.backend.fit.optimizer import Optimizer
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.whitening import Moments, Whitening
from flip_sklearn.estimation import training as _training
from tests.helpers.paths import ROOT
from tests.helpers.planted import planted
from tests.helpers.processes import PATIENCE, Child

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed"),
    pytest.mark.skipif(os.name != "posix", reason="gloo's tests here are POSIX's"),
    pytest.mark.cpu_only(reason="bits of several processes"),
]

TRUTH = planted(n=601, d=10, n_words=80, rank=4, length=5, seed=4)
FEATURES = (TRUTH.Y.T @ TRUTH.X) / TRUTH.Y.sum(axis=0).clip(1)[:, None]
WEIGHTS = np.random.default_rng(0).integers(0, 3, len(TRUTH.X)).astype(float)
SETTINGS: dict[str, Any] = dict(
    rank=4, solver="exact", batch_size=60, max_iter=4, n_iter_no_change=10, early_stopping=True,
    l1_strength=0.05, l2_strength=0.1, random_state=0, device="cpu", precision="float64",
)  # fmt: skip
# Changed settings, and the source of the rows.
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
    "features": ({"word_features": FEATURES, "l2_strength": 20.0}, "array"),
    "sampled, features": ({"word_features": FEATURES, "l2_strength": 20.0, "solver": "sampled"}, "chunks"),
    "L-BFGS": ({"solver": "lbfgs", "early_stopping": False, "max_iter": 5}, "weights"),
}
FITTED = ("word_embeddings_", "projection_", "bias_", "embedding_mean_", "word_counts_")
SPAWNS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system")


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
    """Return a fingerprint of all results of a fit, including the seconds in its history."""
    digest = hashlib.sha256(json.dumps([flip.history_, flip.best_iter_, flip.l1_max_]).encode())
    for name in FITTED:
        digest.update(getattr(flip, name).tobytes())
    return digest.hexdigest()


def bits_without_seconds(flip: FLiPExtractor) -> str:
    flip.history_.pop("seconds")
    return bits(flip)


# --- What the processes run -------------------------------------------------------------------


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


def warnings_without_group() -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(max_iter=1).fit(TRUTH.X, TRUTH.Y)
    return [str(w.message) for w in caught if w.category is RuntimeWarning]


def rows_read(rank: int) -> dict[str, list[int]]:
    """Return the rows whose embeddings a fit reads: those of this process and those of others."""
    own: set[int] = set()
    others: list[int] = []
    embeddings = CountDataset.stored

    def recording(self: CountDataset, rows: np.ndarray, *where: Any) -> torch.Tensor:
        (own.update if (rows % 2 == rank).all() else others.extend)(rows.tolist())
        return embeddings(self, rows, *where)

    with replaced(CountDataset, "stored", recording):
        model(early_stopping=False).fit(TRUTH.X, TRUTH.Y)
    return {"own": sorted(own), "others": others}


def progress_bar() -> str:
    with replaced(package_io, "PROGRESS_DELAY", 0.0), contextlib.redirect_stderr(io.StringIO()) as output:
        model(verbose=1, max_iter=2).fit(TRUTH.X, TRUTH.Y)
    return output.getvalue()


def passes_until_stop(rank: int, last_pass: int) -> int:
    """Return the number of passes if the callbacks of one process ask to stop after ``last_pass``."""
    passes = iter(range(1, 100))
    is_asking = dist.get_rank() == rank

    def after_pass(*_: Any) -> bool:
        return is_asking and next(passes) == last_pass

    with replaced(_training.PassCallbacks, "after_pass", after_pass):
        return model(max_iter=4).fit(TRUTH.X, TRUTH.Y).n_iter_


def different_hardware(rank: int) -> str:
    """Fit while the processes compute different eigenvectors and different validation scores."""
    from_moments, evaluate = Whitening.from_moments, solver.evaluate

    def rotated(moments: Moments, ridge: float | None = None) -> Whitening:
        whitening = from_moments(moments, ridge)
        normal = np.random.default_rng(rank).normal(size=whitening.forward.shape)
        rotation = np.linalg.qr(normal)[0]
        return Whitening(whitening.mean, whitening.forward @ rotation, rotation.T @ whitening.inverse)

    def perturbed(*arguments: Any) -> tuple[float, float]:
        nll, accuracy = evaluate(*arguments)
        return nll * (1 + 0.1 * rank), accuracy + 0.01 * rank * np.random.default_rng().random()

    with replaced(Whitening, "from_moments", staticmethod(rotated)), replaced(solver, "evaluate", perturbed):
        return bits(model().fit(TRUTH.X, TRUTH.Y))


def interrupted() -> dict[str, Any]:
    """Interrupt the second pass of both processes."""
    passes = iter(range(1, 100))
    take_steps = Session._take_steps

    def interrupting(*arguments: Any) -> float:
        if next(passes) == 2:
            raise KeyboardInterrupt
        return take_steps(*arguments)

    flip = model()
    with replaced(Session, "_take_steps", interrupting):
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
        "stops": [passes_until_stop(0, 2), passes_until_stop(1, 2)],
        "different hardware": different_hardware(rank),
        "interrupted": interrupted(),
        "different calls": different_calls(rank, folder),
        "uninterrupted": bits_without_seconds(model().fit(TRUTH.X, TRUTH.Y)),
        "spawned": spawned,
    }


def crash_and_resume(rank: int, folder: Path, restarts: int) -> dict[str, Any]:
    """Raise in the third pass of process 1; torchrun then restarts both, and they finish the fit."""
    step, steps = Optimizer.step, iter(range(1000))

    def failing_step(self: Optimizer, *arguments: Any) -> None:
        if rank == 1 and restarts == 0 and next(steps) == 25:  # nine steps a pass
            raise RuntimeError("raised by the test")
        step(self, *arguments)

    passes_before: list[int] = []
    take_steps = Session._take_steps

    def counted(session: Session, *arguments: Any) -> float:
        passes_before.append(len(session.state.history))
        return take_steps(session, *arguments)

    with replaced(Optimizer, "step", failing_step), replaced(Session, "_take_steps", counted):
        flip = model(checkpoint_dir=folder / "checkpoints").fit(TRUTH.X, TRUTH.Y)
    return {"bits": bits_without_seconds(flip), "passes before": passes_before}


def main(folder: Path) -> None:
    rank, restarts = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    configure_process()
    warned = warnings_without_group() if restarts == 0 else []
    dist.init_process_group("gloo")
    if restarts == 0:
        result = {"warned": warned, **report(rank, folder)}
        (folder / f"{rank}.json").write_text(json.dumps(result))
    after = crash_and_resume(rank, folder, restarts)
    (folder / f"after{rank}.json").write_text(json.dumps(after))
    dist.destroy_process_group()


def configure_process() -> None:
    torch.set_num_threads(1)
    sampling.DRAWN_WORDS = 20  # fewer than the small vocabulary has
    checkpoints.MIN_SECONDS = checkpoints.WRITING_TIME_FACTOR = 0.0


# --- The tests --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two processes and return the folder with their reports."""
    path = tmp_path_factory.mktemp("torchrun")
    np.save(path / "X.npy", TRUTH.X.astype(np.float16))
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
        # Otherwise restarted processes may read addresses of the previous ones (pytorch#135712).
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
        os.killpg(process.pid, signal.SIGKILL)  # torchrun and its processes
        pytest.fail(f"hung: {process.communicate()[1][-3000:]}")
    assert process.returncode == 0, printed[-3000:]
    return path


@pytest.fixture(scope="module")
def reports(folder: Path) -> list[dict[str, Any]]:
    """Return the reports of both processes."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def fit_in_one_process(case: str, folder: Path) -> FLiPExtractor:
    """Return the same fit in this process."""
    with replaced(sampling, "DRAWN_WORDS", 20):
        return fit(case, folder)


@pytest.mark.parametrize("case", CASES)
def test_both_processes_have_identical_models(reports, case: str) -> None:
    """They also have identical histories, including seconds."""
    assert reports[0]["fits"][case] == reports[1]["fits"][case]
    assert len(set(reports[0]["fits"].values())) == len(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case != "float32"])
def test_model_equals_that_of_one_process(reports, folder: Path, case: str) -> None:
    """Equal up to the order of float additions."""
    one = fit_in_one_process(case, folder)
    two = np.load(folder / f"{case}.npz")
    for name in FITTED:
        np.testing.assert_allclose(two[name], getattr(one, name), rtol=1e-8, atol=1e-8)
    history = json.loads(str(two["history"]))
    for key, values in one.history_.items():
        if key != "seconds":
            np.testing.assert_allclose(history[key], values, rtol=1e-8)


def test_float32_model_is_close_to_that_of_one_process(reports, folder: Path) -> None:
    one = fit_in_one_process("float32", folder)
    two = np.load(folder / "float32.npz")
    flip = model().set_params(precision="float32").fit(TRUTH.X, TRUTH.Y)
    for name in FITTED:
        setattr(flip, name, two[name])
    assert flip.score(TRUTH.X, TRUTH.Y) == pytest.approx(one.score(TRUTH.X, TRUTH.Y), abs=0.01)
    np.testing.assert_allclose(two["word_embeddings_"], one.word_embeddings_, atol=0.02)


def test_without_a_seed_processes_use_the_seed_of_process_0(reports) -> None:
    assert reports[0]["no seed"] == reports[1]["no seed"]
    assert reports[0]["no seed"][0] != reports[0]["no seed"][1]


def test_each_process_reads_its_rows_and_those_of_the_initial_search(reports) -> None:
    n = len(TRUTH.X)
    searched = np.unique(np.linspace(0, n - 1, SEARCH_ROWS).astype(int)).tolist()
    for rank in range(2):
        assert reports[rank]["rows"]["own"] == list(range(rank, n, 2))
        assert reports[rank]["rows"]["others"] == searched


def test_only_process_0_shows_a_progress_bar(reports) -> None:
    assert "FLiP pass 2/2: 100%" in reports[0]["bar"]
    assert "pass 2/2" not in reports[1]["bar"]


def test_process_0_decides_when_to_stop(reports) -> None:
    for report in reports:
        assert report["stops"] == [2, 4]  # asked by the first, by the second


def test_processes_on_different_hardware_agree(reports) -> None:
    """The model differs from the other fits, so the changed whitening and scores had an effect."""
    assert reports[0]["different hardware"] == reports[1]["different hardware"]
    assert reports[0]["different hardware"] not in reports[0]["fits"].values()


def test_interrupt_is_raised_in_a_group(reports) -> None:
    """A single process keeps its passes, but several may have finished different numbers of them."""
    for report in reports:
        assert report["interrupted"] == {"error": "KeyboardInterrupt: ", "fitted": False}


def test_different_calls_are_refused(reports) -> None:
    for report in reports:
        assert len(report["different calls"]) == 5
        for what, error in report["different calls"].items():
            assert "called fit with different data or parameters; give each of them" in error, what


def test_fit_starts_no_process(reports) -> None:
    assert reports[0]["spawned"] == reports[1]["spawned"] == []


def test_restarted_group_resumes_from_the_checkpoint(reports, folder: Path) -> None:
    """After one process raised, the other did not hang, and torchrun restarted both."""
    for rank in range(2):
        after = json.loads((folder / f"after{rank}.json").read_text())
        assert after["passes before"] == [2, 3]  # passes 3 and 4 of four
        assert after["bits"] == reports[0]["uninterrupted"]


def test_processes_without_a_group_get_a_warning(reports, monkeypatch) -> None:
    for report in reports:
        (message,) = report["warned"]
        assert "torchrun started 2 processes" in message
        assert "torch.distributed.init_process_group()" in message
    monkeypatch.setenv("WORLD_SIZE", "2")  # set by another launcher, for other processes
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model(max_iter=1).fit(TRUTH.X, TRUTH.Y)


def fit_in_group_of_three(rank: int, store: Path, settings: dict[str, Any]) -> tuple[str, np.ndarray]:
    """Fit with batches of two rows, of which at least one process has none."""
    configure_process()
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
            stack.enter_context(Child(fit_in_group_of_three, rank, tmp_path / "store", settings))
            for rank in range(3)
        ]
        results = [child.result() for child in three]
    assert len({fingerprint for fingerprint, _ in results}) == 1
    with replaced(sampling, "DRAWN_WORDS", 20):
        one = model(**settings).fit(TRUTH.X[:40], TRUTH.Y[:40])
    np.testing.assert_allclose(results[2][1], one.word_embeddings_, rtol=1e-8, atol=1e-8)


# --- GPUs, simulated -----------------------------------------------------------------------------


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
        ("3", 1, 4, "cuda:0"),  # each process sees only its own GPU
        ("3", 4, 1, "cuda"),  # without a group
        (None, 4, 4, "cuda"),  # another launcher: the current device
    ],
)
def test_auto_is_the_gpu_of_the_process(monkeypatch, local_rank, gpus, processes, expected) -> None:
    pretend_gpus(monkeypatch, gpus, processes)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert str(resolve_device("auto")) == expected
    assert str(resolve_device("cuda:0")) == "cuda:0"  # an explicit device is resident


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_device_holds_the_rows_of_its_process(rank: int) -> None:
    """Rows of other processes, which the initial search needs, are read from the host."""
    take = np.random.default_rng(0).permutation(len(TRUTH.X))[:100]
    Y, compute = TRUTH.Y[take], resolve_compute("cpu", "float64")
    parts = (TRUTH.X, Y, np.ones(100))
    plain, resident = (CountDataset(*parts, rows=take, group=ProcessGroup(rank, 3)) for _ in range(2))
    cpu = torch.device("cpu")
    local_rows = np.arange(rank, 100, 3)
    x = resident._upload(local_rows, torch.float64, cpu)  # as on a GPU with enough memory
    resident._x, resident._x_device = x, cpu
    resident._x_is_local = True
    assert len(x) == len(local_rows)
    for rows in (local_rows, local_rows[::5][::-1].copy(), np.array([0, 1, 2, 50]), local_rows[:0]):
        torch.testing.assert_close(resident.batch(rows, compute)[0], plain.batch(rows, compute)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

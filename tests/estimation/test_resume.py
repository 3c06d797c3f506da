"""Resumed fits give the same bits as uninterrupted ones; real processes are killed at random moments."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load as loads
from safetensors.torch import save, save_file
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit import candidates as sampling
from flip_sklearn.backend.fit import checkpoint as checkpoints
from flip_sklearn.backend.fit.checkpoint import Checkpoint
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.state import TrainingState
from flip_sklearn.estimation import training as _training
from tests.helpers.planted import planted
from tests.helpers.processes import PATIENCE, Child, in_process, note

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's"),
    pytest.mark.cpu_only(reason="bits of other processes; tests/gpu resumes fits on a device"),
]

TRUTH = planted(n=500, d=10, n_words=150, rank=4, length=5, seed=2)
X, Y = TRUTH.X.astype(np.float32), TRUTH.Y
WEIGHTS = np.random.default_rng(0).integers(1, 3, len(X)).astype(float)
SETTINGS: dict[str, Any] = dict(
    rank=4, solver="exact", batch_size=60, max_iter=5, n_iter_no_change=10, early_stopping=True,
    l1_strength=0.05, random_state=0, device="cpu", precision="float32",
)  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "exact FLiP": {},
    "exact LiP": {"rank": None, "early_stopping": False},
    "sampled FLiP": {"solver": "sampled", "early_stopping": "likelihood", "l2_strength": 0.1},
    "sampled LiP": {"solver": "sampled", "rank": None},
    "L-BFGS": {"solver": "lbfgs", "early_stopping": False, "max_iter": 60, "tol": 0.0},
    "seed not given": {"solver": "sampled", "random_state": None},
    "stops early": {"n_iter_no_change": 1, "tol": 10.0, "max_iter": 50, "learning_rate": 0.01},
}


class OneSeed(np.random.RandomState):
    """A random state that always draws the same seed."""

    def __init__(self, number: int) -> None:
        super().__init__(0)
        self.number = number

    def randint(self, *_: Any, **__: Any) -> int:
        return self.number


def bits(model: FLiPExtractor) -> dict[str, Any]:
    """The fitted attributes without the seconds, arrays as bytes."""
    arrays = ("word_embeddings_", "projection_", "bias_", "embedding_mean_", "word_counts_")
    return {
        **{name: getattr(model, name).tobytes() for name in arrays},
        "history_": {k: np.array(v).tobytes() for k, v in model.history_.items() if k != "seconds"},
        "passes": (model.n_iter_, model.best_iter_),
        "l1_max_": model.l1_max_,
    }


def always_due(patch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after every step, and sample fewer classes than the small vocabulary has."""
    patch.setattr(checkpoints, "MIN_SECONDS", 0.0)
    patch.setattr(checkpoints, "WRITING_TIME_FACTOR", 0.0)
    patch.setattr(sampling, "DRAWN_WORDS", 20)
    patch.setattr(os, "fsync", lambda _: None)  # against power cuts, which are not played here


@pytest.fixture
def eager() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        always_due(patch)
        yield patch


def model(folder: Any, **changed: Any) -> FLiPExtractor:
    return FLiPExtractor(**{**SETTINGS, "checkpoint_dir": folder, **changed})


def fit(
    folder: Any, changed: dict[str, Any], seed: int | None = None
) -> tuple[dict[str, Any], list[Any], int]:
    """Fit in a child process: the bits, the (passes, rows) it resumed from, and the seed."""
    if seed is not None:
        changed = {**changed, "random_state": OneSeed(seed)}
    resumed: list[Any] = []
    seeds: list[int] = []
    load, solve = TrainingState.load, _training.solve

    def noted(state: TrainingState, *saved: Any) -> None:
        load(state, *saved)
        resumed.append((len(state.history), state.rows_done))

    def solving(train: Any, validation: Any, options: Any, *rest: Any, **named: Any) -> Any:
        seeds.append(options.seed)
        return solve(train, validation, options, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        always_due(patch)
        patch.setattr(TrainingState, "load", noted)
        patch.setattr(_training, "solve", solving)
        return bits(model(folder, **changed).fit(X, Y)), resumed, seeds[0]


def files(folder: Path) -> list[Path]:
    """The checkpoints of a folder that has no other files."""
    found = sorted(folder.iterdir())
    assert all(path.suffix == ".safetensors" for path in found), found
    return found


def kill_after(child: Child, folder: Path, writings: int, seconds: float) -> bool:
    """Kill the process some time after a number of checkpoints; False if it ended before."""
    seen: set[tuple[int, int]] = set()
    deadline = time.monotonic() + PATIENCE
    while len(seen) < writings and child.running() and time.monotonic() < deadline:
        for path in folder.glob("*.safetensors"):
            try:
                seen.add((path.stat().st_ino, path.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
        time.sleep(0.0005)  # leaves the processor to the child
    time.sleep(seconds)
    return child.kill()


# --- Kills -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_repeatedly_killed_fit_gives_the_same_bits(case: str, tmp_path: Path) -> None:
    number = random.SystemRandom().randrange(10**6)
    chance = random.Random(number)
    changed, kills = CASES[case], 0
    for _ in range(4):
        with Child(fit, tmp_path, changed) as child:
            kills += kill_after(child, tmp_path, chance.randrange(12), chance.uniform(0, 0.02))
    after, resumed, seed = in_process(fit, tmp_path, changed)
    assert len(files(tmp_path)) == 1
    undisturbed, none, _ = in_process(fit, None, changed, seed)
    assert after == undisturbed, f"chance {number}, {kills} kills, went on at {resumed}"
    assert kills
    assert none == []
    # Once more: nothing is left to do.
    again, resumed, _ = in_process(fit, tmp_path, CASES[case])
    assert again == undisturbed
    assert resumed == [(undisturbed["passes"][0], 0)]


def test_another_seed_gives_other_bits() -> None:
    """Negative control: the compared values depend on the course of the fit."""
    assert in_process(fit, None, {})[0] != in_process(fit, None, {"random_state": 1})[0]


def die_writing(folder: Path, when: int, half: bool) -> None:
    """Die while a checkpoint is written, or between writing and renaming it."""
    writings = 0

    def dying(tensors: Any, name: Path, metadata: Any) -> None:
        nonlocal writings
        writings += 1
        content = save(tensors, metadata)
        name.write_bytes(content[: len(content) // 2] if half and writings == when else content)
        if writings == when:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.save_file = dying
    fit(folder, {})


@pytest.mark.parametrize("when", [1, 2, 20])
@pytest.mark.parametrize("half", [True, False])
def test_previous_checkpoint_survives_a_kill_while_writing(tmp_path: Path, when: int, half: bool) -> None:
    with Child(die_writing, tmp_path, when, half) as child, pytest.raises(EOFError):
        child.result()
    assert len(list(tmp_path.glob("*.part"))) == 1
    old = list(tmp_path.glob("*.safetensors"))
    assert len(old) == (when > 1)
    after, resumed, _ = in_process(fit, tmp_path, {})
    # The steps whose checkpoints were whole: eight a pass, and one at the end of each.
    assert [passes * 8 + rows // 60 for passes, rows in resumed] == [when - 1][: len(old)]
    assert len(files(tmp_path)) == 1
    assert after == in_process(fit, None, {})[0]


def test_staging_directories_of_dead_processes_are_removed(eager: Any, tmp_path: Path) -> None:
    held = Checkpoint(tmp_path / "flip-0.safetensors", seed=0)
    held.save_if_due(lambda: ({"a": torch.ones(3)}, {}))
    here = f"flip-0-{socket.gethostname()}"
    with Child(time.sleep, PATIENCE) as alive:
        dead = Child(time.sleep, 0)
        dead.result()
        names = {
            f"{here}-{dead.process.pid}-0a": True,
            f"{here}-{os.getpid()}-0b": True,  # of one before us with our number
            f"{here}-{alive.process.pid}-0c": False,
            "flip-0-elsewhere-1-0d": False,
            "flip-0-elsewhere-2-0e": True,  # for days
            "flip-0-strange": False,
            f"flip-1-{here}-{dead.process.pid}-0f": False,  # another fit's
        }
        for name in names:
            (tmp_path / f"{name}.part").mkdir()
            (tmp_path / f"{name}.part" / "any").write_bytes(b"half")
        os.utime(tmp_path / "flip-0-elsewhere-2-0e.part", (0, 0))
        os.utime(tmp_path / "flip-0-elsewhere-1-0d.part", (2**33, 2**33))  # a clock ahead of ours
        held.save_if_due(lambda: ({"a": torch.ones(3)}, {}))
        left = {path.stem for path in tmp_path.glob("*.part")}
    assert left == {name for name, swept in names.items() if not swept}


def test_two_processes_with_the_same_fit_and_folder(tmp_path: Path) -> None:
    undisturbed = in_process(fit, None, {})[0]
    with Child(fit, tmp_path, {}) as one, Child(fit, tmp_path, {}) as two:
        assert one.result()[0] == two.result()[0] == undisturbed
    assert len(files(tmp_path)) == 1
    # Of seeds that each draws for itself, either's file may be the last: both stand by their own.
    unseeded = {"random_state": None}
    folder = tmp_path / "unseeded"
    with Child(fit, folder, unseeded) as one, Child(fit, folder, unseeded) as two:
        for after, _, seed in (one.result(), two.result()):
            assert after == in_process(fit, None, {}, seed)[0]
    assert len(files(folder)) == 1


def in_group(rank: int, store: Path, folder: Path, changed: dict[str, Any]) -> Any:
    """One of two processes that train together."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        return fit(folder, changed)[:2]
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_process_group_resumes_from_one_folder(tmp_path: Path) -> None:
    changed = {"random_state": None, "max_iter": 3}
    folder = tmp_path / "c"
    with (
        Child(in_group, 0, tmp_path / "1", folder, changed) as first,
        Child(in_group, 1, tmp_path / "1", folder, changed) as second,
    ):
        assert kill_after(first, folder, 12, 0)
        second.kill()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with (
        Child(in_group, 0, tmp_path / "2", folder, changed) as first,
        Child(in_group, 1, tmp_path / "2", folder, changed) as second,
    ):
        after, resumed = first.result()
        assert second.result() == (after, resumed)
    assert resumed >= [(1, 0)]
    assert len(files(folder)) == 1
    # A folder that only the first one sees is found out by both.
    with (
        Child(in_group, 0, tmp_path / "3", copy, changed) as first,
        Child(in_group, 1, tmp_path / "3", tmp_path / "not shared", changed) as second,
    ):
        for child in (first, second):
            with pytest.raises(AssertionError, match="the group read different checkpoints"):
                child.result()


# --- Resuming --------------------------------------------------------------------------------


@pytest.fixture
def passes(eager: pytest.MonkeyPatch) -> list[int]:
    """The rows that were done when each pass began."""
    begun: list[int] = []
    take_steps = Session._take_steps

    def counted(session: Session, *arguments: Any) -> float:
        begun.append(session.state.rows_done)
        return take_steps(session, *arguments)

    eager.setattr(Session, "_take_steps", counted)
    return begun


def test_finished_fit_is_loaded_and_more_passes_continue_it(passes: list[int], tmp_path) -> None:
    three = model(tmp_path, max_iter=3).fit(X, Y)
    assert len(passes) == 3
    assert bits(model(tmp_path, max_iter=3).fit(X, Y)) == bits(three)
    assert len(passes) == 3
    five = model(tmp_path).fit(X, Y)
    assert len(passes) == 5
    assert bits(five) == bits(model(None).fit(X, Y)) != bits(three)
    # Fewer passes are another fit. It cannot be cut out of the longer one, which is left alone.
    assert bits(model(tmp_path, max_iter=3).fit(X, Y)) == bits(three)
    passes.clear()
    assert bits(model(tmp_path).fit(X, Y)) == bits(five)
    assert passes == []
    assert len(files(tmp_path)) == 1


def test_early_stopped_fit_stays_stopped(passes: list[int], tmp_path: Path) -> None:
    stops = CASES["stops early"]
    first = model(tmp_path, **stops).fit(X, Y)
    assert len(passes) == first.n_iter_ < 50
    assert bits(model(tmp_path, **{**stops, "max_iter": 1000}).fit(X, Y)) == bits(first)
    assert len(passes) == first.n_iter_


OTHER_SETTINGS: dict[str, Any] = {
    "rank": 3, "solver": "sampled", "batch_size": 61, "n_iter_no_change": 9, "tol": 0.1,
    "early_stopping": False, "l1_strength": 0.06, "l2_strength": 0.1, "learning_rate": 0.04,
    "validation_fraction": 0.2, "random_state": 1, "precision": "float64",
}  # fmt: skip


def test_each_setting_that_changes_the_numbers_changes_the_file_name(tmp_path: Path) -> None:
    short = {"max_iter": 1}
    model(tmp_path, **short).fit(X, Y)
    assert len(files(tmp_path)) == 1
    for name, value in OTHER_SETTINGS.items():
        before = files(tmp_path)
        model(tmp_path, **short, **{name: value}).fit(X, Y)
        assert len(files(tmp_path)) == len(before) + 1, name
    before = len(files(tmp_path))
    last = np.zeros_like(X)
    last[-1, -1] = 1e-3  # one number of one row
    one_more = Y.copy()
    one_more.data[-1] += 1
    moved = Y[:, ::-1]
    data = [
        (X + last, Y, None), (X.astype(np.float64), Y, None), (X[:-1], Y[:-1], None),
        (X, one_more, None), (X, moved, None), (X, Y, WEIGHTS), (X, Y, WEIGHTS[::-1]),
    ]  # fmt: skip
    for number, arguments in enumerate(data, start=1):
        model(tmp_path, **short).fit(*arguments)
        assert len(files(tmp_path)) == before + number
    warm = model(tmp_path, **short, warm_start=True).fit(X, Y)  # cold, so it is the first of all
    assert len(files(tmp_path)) == before + len(data)
    warm.fit(X, Y)
    assert len(files(tmp_path)) == before + len(data) + 1
    # What changes no number is no other fit.
    same = model(tmp_path, **short, top_k=3, use_bias=False, vocabulary=[f"w{j}" for j in range(150)])
    same.fit(np.asfortranarray(X), Y.toarray())
    assert len(files(tmp_path)) == before + len(data) + 1


def test_grid_search_shares_a_folder(passes: list[int], tmp_path: Path) -> None:
    grid = {"l1_strength": [0.01, 0.2], "max_iter": [1, 3], "use_bias": [True, False]}

    def search(folder: Path | None) -> GridSearchCV:
        return GridSearchCV(model(folder), grid, cv=2, error_score="raise").fit(X, Y)

    plain = search(None)
    passes.clear()
    first = search(tmp_path)
    assert len(passes) == 2 * 2 * 3 + plain.best_params_["max_iter"]  # each pass once, then the refit
    assert len(files(tmp_path)) == 2 * 2 + 1
    passes.clear()
    # Candidates with fewer passes than their file has are trained again, the others are read back.
    second = search(tmp_path)
    assert len(passes) == 2 * 2 * 2
    for found in (first, second):
        assert found.best_params_ == plain.best_params_
        for key in ("mean_test_score", "std_test_score"):
            np.testing.assert_array_equal(found.cv_results_[key], plain.cv_results_[key])
        assert bits(found.best_estimator_) == bits(plain.best_estimator_)


def test_checkpoint_dir_is_checked_and_cloned(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    copy = clone(model(folder))
    assert copy.checkpoint_dir == folder
    assert not folder.exists()  # nothing is made before fit
    with pytest.raises(ValueError, match="negative"):
        copy.fit(X, Y, -WEIGHTS)
    assert not folder.exists()
    copy.partial_fit(X, Y)  # a stream keeps no checkpoints
    assert not folder.exists()
    assert bits(copy) == bits(model(None).partial_fit(X, Y))
    for value in ("", 3, True, b"folder", __file__):
        with pytest.raises(ValueError, match=r"checkpoint_dir=.*folder, or None"):
            model(value).fit(X, Y)


class Elsewhere:
    """A path-like object that is not a Path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_kinds_of_paths(passes: list[int], tmp_path: Path) -> None:
    for folder in (tmp_path / "a" / "b", str(tmp_path / "a" / "b"), Elsewhere(tmp_path / "a" / "b")):
        model(folder).fit(X, Y)
        assert len(passes) == 5
        assert len(files(tmp_path / "a" / "b")) == 1


def test_relative_path_is_resolved_when_fit_begins(
    passes: list[int], eager: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "begin").mkdir()
    (tmp_path / "later").mkdir()
    eager.chdir(tmp_path / "begin")
    take_steps = Session._take_steps

    def moving(*arguments: Any) -> float:
        os.chdir(tmp_path / "later")
        return take_steps(*arguments)

    eager.setattr(Session, "_take_steps", moving)
    model("here").fit(X, Y)
    assert len(files(tmp_path / "begin" / "here")) == 1
    assert not list((tmp_path / "later").iterdir())


# --- Failing folders and disks ---------------------------------------------------------------


def test_unwritable_folder_is_an_error_before_training(passes: list[int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    folders = [tmp_path / "file" / "c"]
    folders += [Path("/proc/self")] if sys.platform == "linux" else []
    folders += [tmp_path / "closed" / "c"] if os.geteuid() else []  # nothing is closed to root
    for folder in folders:
        fresh = model(folder)
        with pytest.raises(ValueError, match=f"checkpoint_dir='{folder}' .*name another one, or None"):
            fresh.fit(X, Y)
        assert not hasattr(fresh, "bias_")
    assert passes == []


def full_disk(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Fit with a limit on the file size, as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        after = fit(folder, {"max_iter": 2})[0]
    unwritten = [w for w in said if w.category is RuntimeWarning]
    assert {w.filename for w in unwritten} == {__file__}  # the line that called fit
    return after, [str(w.message) for w in unwritten]


def test_fit_continues_on_a_full_disk(tmp_path: Path) -> None:
    after, said = in_process(full_disk, tmp_path)
    assert after == in_process(fit, None, {"max_iter": 2})[0]
    assert len(said) == 2 * 8
    assert all("was not written" in line and "File too large" in line for line in said)
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("full")])
def test_previous_checkpoint_survives_a_full_disk(
    passes: list[int], eager: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    writings = 0

    def fails(tensors: Any, name: Path, metadata: Any) -> None:
        nonlocal writings
        writings += 1
        save_file(tensors, name, metadata)
        if writings > 10:  # the first pass and two steps of the second
            raise error

    eager.setattr(checkpoints, "save_file", fails)
    with pytest.warns(RuntimeWarning, match="was not written"):
        done = model(tmp_path).fit(X, Y)
    assert len(files(tmp_path)) == 1
    eager.setattr(checkpoints, "save_file", save_file)
    passes.clear()
    assert bits(model(tmp_path).fit(X, Y)) == bits(done)
    assert passes == [120, 0, 0, 0]


def test_folder_removed_during_the_fit_is_created_again(
    passes: list[int], eager: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    take_steps = Session._take_steps

    def removed(*arguments: Any) -> float:
        shutil.rmtree(folder)
        return take_steps(*arguments)

    eager.setattr(Session, "_take_steps", removed)
    done = model(folder).fit(X, Y)
    assert len(files(folder)) == 1
    passes.clear()
    assert bits(model(folder).fit(X, Y)) == bits(done)
    assert passes == []


def test_time_between_checkpoints(tmp_path: Path) -> None:
    """Without the patch a fit of one second writes its last state only."""
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save_file", lambda *a, **k: (written.append(1), save_file(*a, **k)))
        model(tmp_path).fit(X, Y)
    assert len(written) == 1
    held = Checkpoint(tmp_path / "x.safetensors", seed=0, writes=False)  # all but one of a group
    held.save_if_due(lambda: pytest.fail("not its task"), now=True)


# --- Files that are not checkpoints ----------------------------------------------------------


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


def without(name: str, content: bytes) -> bytes:
    tensors, about = read(content)
    del tensors[name]
    del about["checksums"][name]
    return packed(tensors, about)


def read(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    return loads(content), json.loads(metadata["state"])


def packed(tensors: dict[str, torch.Tensor], about: Any) -> bytes:
    text = json.dumps(about)
    return save(tensors, {"state": text, "checksum": checkpoints._checksum(text)})


def reshaped(content: bytes) -> bytes:
    tensors, about = read(content)
    tensors["A"] = torch.ones(7, 7)
    about["checksums"] = checkpoints._checksums(tensors)
    return packed(tensors, about)


def of_format(number: int, content: bytes) -> bytes:
    tensors, about = read(content)
    return packed(tensors, {**about, "format": f"flip-sklearn checkpoint {number}"})


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "a few bytes": lambda content: content[:7],
    "header only": lambda content: content[:500],
    "all but a byte": lambda content: content[:-1],
    "a byte too many": lambda content: content + b"x",
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not a checkpoint",
    "another flipped number": lambda content: content[:-9] + b"?" + content[-8:],
    "foreign tensors": lambda content: save({"A": torch.ones(3)}),
    "foreign metadata": lambda content: save({"A": torch.ones(3)}, {"state": "[1]"}),
    "no JSON": lambda content: save({"A": torch.ones(3)}, {"state": "{"}),
    "a tensor less": lambda content: without("A", content),
    "another shape": reshaped,
    "another version": lambda content: of_format(99, content),
    "no numbers": lambda content: packed({}, {key: read(content)[1][key] for key in ("format", "seed")}),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    model(folder, max_iter=1).fit(X, Y)
    return files(folder)[0]


@pytest.mark.parametrize("kind", [*SPOILED, "pickle", "folder"])
def test_unreadable_file_is_an_error_with_its_name(kind: str, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / finished.name
    if kind == "folder":
        path.mkdir()
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    else:
        path.write_bytes(SPOILED[kind](finished.read_bytes()))
    for seed in (0, None) if kind == "empty" else (0,):
        fresh = model(tmp_path, max_iter=1, random_state=seed)
        if seed is None:
            fresh.fit(X, Y)  # its file is another
            for other in tmp_path.glob("*.safetensors"):
                other.write_bytes(b"")
        before = dict(vars(fresh))
        with pytest.raises(ValueError, match=f"{tmp_path}/flip-.* cannot be read .*; delete it"):
            fresh.fit(X, Y)
        assert vars(fresh) == before
    assert not (tmp_path / "trace").exists()
    shutil.rmtree(path) if kind == "folder" else path.unlink()
    model(tmp_path, max_iter=1).fit(X, Y)  # the remedy is one


def test_flipped_bytes_are_detected(finished: Path, tmp_path: Path) -> None:
    """Every flipped byte is refused, or the state is unchanged."""
    content = finished.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    number = random.SystemRandom().randrange(10**6)
    chance = random.Random(number)
    places = [chance.randrange(header) for _ in range(300)]
    places += [chance.randrange(header, len(content)) for _ in range(100)]
    held = Checkpoint(tmp_path / "x.safetensors", seed=0)
    held.path.write_bytes(content)
    held.seed = held.saved_seed()
    tensors, about = held.load()
    refused = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        held.path.unlink()
        held.path.write_bytes(flipped)
        try:
            again = held.load()
        except ValueError:
            refused += 1
            continue
        assert again is not None, (number, place)
        assert again[1] == about, (number, place)
        assert all(torch.equal(tensors[name], again[0][name]) for name in tensors), (number, place)
    assert refused > 350


def test_loaded_state_does_not_depend_on_its_file(passes: list[int], tmp_path: Path) -> None:
    """No tensor of a running fit is a view of the file, which may change."""
    done = bits(model(tmp_path, max_iter=2).fit(X, Y))
    load = TrainingState.load

    def load_and_spoil(state: TrainingState, *saved: Any) -> None:
        load(state, *saved)
        with open(files(tmp_path)[0], "rb+") as file:
            file.write(b"x" * files(tmp_path)[0].stat().st_size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "load", load_and_spoil)
        assert bits(model(tmp_path, max_iter=2).fit(X, Y)) == done
    assert len(passes) == 2


# --- Ctrl-C ----------------------------------------------------------------------------------


def interrupted(folder: Path | None, pass_: int, changed: dict[str, Any], refit: bool) -> Any:
    """Announce the start of pass ``pass_``, and return the result of the interrupt."""
    take_steps = Session._take_steps
    rows = np.tile(np.arange(len(X)), 1 if folder else 20)
    flip = model(folder, early_stopping=False, n_iter_no_change=10**6)
    if refit:
        flip.set_params(max_iter=1).fit(X, Y)
    flip.set_params(**changed)
    before = dict(vars(flip))

    def announced(session: Session, *arguments: Any) -> float:
        if len(session.state.history) + 1 == pass_:
            note(pass_)
            if folder:
                time.sleep(PATIENCE)  # the fit with checkpoints would soon be over
        return take_steps(session, *arguments)

    Session._take_steps = announced  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as said, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        always_due(patch)
        try:
            flip.fit(X[rows], Y[rows])
        except KeyboardInterrupt:
            now = dict(vars(flip))
            return now.keys() == before.keys() and all(now[name] is before[name] for name in now)
    assert [len(words) for words in flip.extract_keywords(X[:3])] == [10, 10, 10]
    assert 0 < flip.score(X, Y) < 1
    Session._take_steps = take_steps  # type: ignore[method-assign]
    assert flip.interrupted_
    same = model(None, early_stopping=False, max_iter=flip.n_iter_).fit(X[rows], Y[rows])
    assert bits(flip) == bits(same)
    assert not same.interrupted_
    return flip.n_iter_, next(str(w.message) for w in said if w.category is ConvergenceWarning)


@pytest.mark.parametrize("refit", [False, True])
def test_interrupt_in_the_first_pass_changes_nothing(refit: bool) -> None:
    slow = {"batch_size": 1, "max_iter": 3}
    with Child(interrupted, None, 1, slow, refit) as child:
        assert child.receive() == ("note", 1)
        time.sleep(random.uniform(0, 0.2))
        child.interrupt()
        assert child.result() is True


@pytest.mark.parametrize("pass_", [2, 4])
def test_later_interrupt_keeps_the_finished_passes(pass_: int) -> None:
    """The model has the bits of a fit with as many passes, and a warning says that it was interrupted."""
    with Child(interrupted, None, pass_, {"max_iter": 10**6}, False) as child:
        assert child.receive() == ("note", pass_)
        time.sleep(random.uniform(0, 0.2))
        child.interrupt()
        done, message = child.result()
    assert done >= pass_ - 1
    assert f"interrupted in pass {done + 1}" in message
    assert "Set checkpoint_dir" in message


def test_same_call_continues_after_an_interrupt(tmp_path: Path) -> None:
    settings = {"early_stopping": False, "n_iter_no_change": 10**6}
    with Child(interrupted, tmp_path, 3, {}, False) as child:
        assert child.receive() == ("note", 3)
        child.interrupt()
        done, message = child.result()
    assert done == 2
    assert "The same call continues from the last checkpoint" in message
    after, resumed, _ = in_process(fit, tmp_path, settings)
    assert resumed == [(2, 0)]
    assert after == in_process(fit, None, settings)[0]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "deep"])
def test_a_checkpoint_that_is_no_file_of_ours_is_refused_at_once(
    eager: Any, tmp_path: Path, kind: str
) -> None:
    model(tmp_path).fit(X, Y)
    (path,) = files(tmp_path)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        save_file({"x": torch.ones(1)}, path, metadata={"state": '{"a":' * 10**5})
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"cannot be read .* delete it to start this fit again"):
        model(tmp_path).fit(X, Y)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_checkpoint_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        rng = np.random.default_rng(0)
        X, Y = rng.normal(size=(60, 4)), rng.poisson(1, size=(60, 5))
        FLiPExtractor(max_iter=1, random_state=0, checkpoint_dir=tmp_path / "c").fit(X, Y)
    finally:
        os.umask(before)
    (path,) = (tmp_path / "c").iterdir()
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask

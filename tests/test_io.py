"""Conversion of tensors, atomic writing, and staging directories of living and dead processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flip_sklearn import io
from flip_sklearn.io import (
    ABANDONED_SECONDS,
    as_numpy,
    fsync_directory,
    fsync_file,
    staging_directory,
    sweep_staging,
    write_atomic,
    write_bytes,
)
from tests.helpers.paths import ROOT

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs process numbers and SIGKILL")
HOST = socket.gethostname()

# --- Tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_as_numpy_shares_the_memory_of_a_tensor(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    array = as_numpy(tensor)
    assert array.dtype == np.dtype(str(dtype).removeprefix("torch."))
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    array[0, 0] = 7
    assert tensor[0, 0] == 7


def test_as_numpy_widens_bfloat16() -> None:
    tensor = torch.tensor([1.0, 0.1, -3e38, float("inf")]).to(torch.bfloat16)
    array = as_numpy(tensor)
    assert array.dtype == np.float32
    assert array.tolist() == tensor.tolist()


def test_as_numpy_detaches_tensors_with_gradient() -> None:
    assert as_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


@pytest.mark.parametrize("value", [np.ones(2), [1, 2], None, "text", 3.0])
def test_as_numpy_returns_other_objects_unchanged(value: Any) -> None:
    assert as_numpy(value) is value


# --- Atomic writing --------------------------------------------------------------------------


def test_write_atomic_creates_folders_and_replaces_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("function", ["write_bytes", "os.replace"])
def test_failed_write_atomic_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, b"old")

    def fail(staged: Path, *_: Any) -> None:
        staged.write_bytes(b"ne")  # a part of the content
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"flip_sklearn.io.{function}", fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@posix_only
@pytest.mark.parametrize("function", ["os.fsync", "os.replace"])
def test_killed_write_atomic_keeps_the_old_file(tmp_path: Path, function: str) -> None:
    """The next call removes the staging directory of the killed process."""
    path = tmp_path / "file.json"
    write_atomic(path, b"old")
    code = f"""
import os, signal, sys
from pathlib import Path
from flip_sklearn.io import write_atomic
{function} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path(sys.argv[1]), b"new")
"""
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.glob(".file-*.part"))) == 1
    write_atomic(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_simultaneous_write_atomic_never_leaves_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomic(path, contents[0])
    errors: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(20):
                write_atomic(path, content)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    assert errors == []
    assert list(tmp_path.iterdir()) == [path]


def test_write_bytes_and_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(handle) or fsync(handle))
    write_bytes(tmp_path / "file", b"content")
    assert len(synced) == 1
    fsync_file(tmp_path / "file")
    assert len(synced) == 2
    fsync_directory(tmp_path)
    assert len(synced) == (3 if os.name == "posix" else 2)
    assert (tmp_path / "file").read_bytes() == b"content"


# --- Staging directories ---------------------------------------------------------------------


def make_staging(folder: Path, name: str, host: str, pid: int, age: float = 0) -> Path:
    """A staging directory with a file, as a process of the given host and number makes it."""
    path = folder / f"{name}-{host}-{pid}-abcdefgh.part"
    path.mkdir()
    (path / "file").write_bytes(b"part")
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=120)
    return process.pid


def test_staging_directory_is_removed_at_the_end(tmp_path: Path) -> None:
    with staging_directory(tmp_path, ".x") as staging:
        (staging / "file").write_bytes(b"part")
        assert staging.parent == tmp_path
        assert staging.name.startswith(f".x-{HOST}-{os.getpid()}-")
        assert staging.suffix == ".part"
    with pytest.raises(KeyboardInterrupt), staging_directory(tmp_path, ".x") as staging:
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert staging not in io._staging_in_use


def enter_staging(folder: Path, name: str) -> None:
    with staging_directory(folder, name):
        pass


SWEEPS = pytest.mark.parametrize("sweep", [sweep_staging, enter_staging])


@posix_only
@SWEEPS
def test_staging_of_dead_processes_is_removed(tmp_path: Path, sweep: Callable[[Path, str], None]) -> None:
    """A directory with this process's own number that is not in use was left by an earlier process."""
    dead = make_staging(tmp_path, ".x", HOST, dead_pid())
    own_number = make_staging(tmp_path, ".x", HOST, os.getpid())
    sweep(tmp_path, ".x")
    assert not dead.exists()
    assert not own_number.exists()


@posix_only
@SWEEPS
def test_staging_of_living_processes_is_kept(tmp_path: Path, sweep: Callable[[Path, str], None]) -> None:
    """For a day: after that a process that has got the same number would keep it for ever."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        recent = make_staging(tmp_path, ".x", HOST, process.pid, age=ABANDONED_SECONDS - 600)
        (tmp_path / "old").mkdir()
        old = make_staging(tmp_path / "old", ".x", HOST, process.pid, age=ABANDONED_SECONDS + 600)
        sweep(tmp_path, ".x")
        sweep(tmp_path / "old", ".x")
        assert recent.exists()
        assert not old.exists()
        process.communicate(b"\n", timeout=120)
    sweep(tmp_path, ".x")
    assert not recent.exists()


@posix_only
def test_staging_of_a_process_of_another_user_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    other_user = make_staging(tmp_path, ".x", HOST, 1)
    monkeypatch.setattr(os, "kill", refuse)
    sweep_staging(tmp_path, ".x")
    assert other_user.exists()


@SWEEPS
def test_staging_of_other_hosts_is_kept_for_a_day(tmp_path: Path, sweep: Callable[[Path, str], None]) -> None:
    recent = make_staging(tmp_path, ".x", "other-host", 123, age=ABANDONED_SECONDS - 600)
    old = make_staging(tmp_path, ".x", "other-host", 124, age=ABANDONED_SECONDS + 600)
    sweep(tmp_path, ".x")
    assert recent.exists()
    assert not old.exists()


@SWEEPS
def test_other_files_and_names_are_kept(tmp_path: Path, sweep: Callable[[Path, str], None]) -> None:
    others = [
        make_staging(tmp_path, ".y", HOST, os.getpid()),
        make_staging(tmp_path, ".[x]", "any", 1, age=0),
        tmp_path / ".x-file",
        tmp_path / ".x-name.part",
    ]
    others[2].write_text("")
    others[3].mkdir()
    sweep(tmp_path, ".x")
    assert all(path.exists() for path in others)


@posix_only
def test_name_with_glob_characters(tmp_path: Path) -> None:
    abandoned = make_staging(tmp_path, ".[x]*", HOST, os.getpid())
    other = make_staging(tmp_path, ".x", HOST, os.getpid())
    sweep_staging(tmp_path, ".[x]*")
    assert not abandoned.exists()
    assert other.exists()


def test_staging_in_use_by_another_thread_is_kept(tmp_path: Path) -> None:
    entered, swept = threading.Event(), threading.Event()
    content: list[bytes] = []

    def use_staging() -> None:
        with staging_directory(tmp_path, ".x") as staging:
            (staging / "file").write_bytes(b"part")
            entered.set()
            assert swept.wait(60)
            content.append((staging / "file").read_bytes())

    thread = threading.Thread(target=use_staging)
    thread.start()
    assert entered.wait(60)
    sweep_staging(tmp_path, ".x")
    enter_staging(tmp_path, ".x")
    swept.set()
    thread.join()
    assert content == [b"part"]
    assert list(tmp_path.iterdir()) == []


def test_notebook_without_widgets_gets_no_warning(tmp_path: Path) -> None:
    """The package is imported as in a kernel of Jupyter."""
    code = """
import sys, types, warnings
sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")
kernel = types.SimpleNamespace(config=["IPKernelApp"])
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: kernel)
sys.modules["ipywidgets"] = None
from tqdm import TqdmWarning
with warnings.catch_warnings(record=True) as ours:
    warnings.simplefilter("always")
    import flip_sklearn.diagnostics, flip_sklearn.extractor, flip_sklearn.path, flip_sklearn.splice
    import flip_sklearn.vocabulary
    from flip_sklearn.io import show_progress
    list(show_progress(range(3)))
del sys.modules["tqdm.autonotebook"]
with warnings.catch_warnings(record=True) as of_tqdm:
    warnings.simplefilter("always")
    import tqdm.autonotebook
for caught in (ours, of_tqdm):
    print(sum(issubclass(warning.category, TqdmWarning) for warning in caught))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert printed.stdout == "0\n1\n"

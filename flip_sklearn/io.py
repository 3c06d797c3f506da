"""Tensors to NumPy, and files that are written as a whole or not at all; loads no torch itself."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A staging directory of another host is taken for abandoned after so many seconds.
ABANDONED_SECONDS = 86_400.0

_staging_in_use: set[Path] = set()  # of this process, in any of its threads
_staging_lock = threading.Lock()


def as_numpy(array: Any) -> Any:
    """A torch tensor on any device as an ndarray, bfloat16 as float32; anything else unchanged.

    A CPU tensor shares its memory with the result, unless it is bfloat16, which NumPy does not have.
    """
    if not (hasattr(array, "detach") and hasattr(array, "cpu")):
        return array
    tensor = array.detach().cpu()
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file in one step: readers and crashes see the old file or the new one, whole.

    Its folder is made if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with staging_directory(path.parent, f".{path.stem}") as staging:
        write_bytes(staging / path.name, content)
        os.replace(staging / path.name, path)
    fsync_directory(path.parent)


def fsync_file(path: Path) -> None:
    """Wait until a file that another library has written is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def fsync_directory(folder: Path) -> None:
    """fsync a directory, so that a rename in it survives a crash. Only POSIX can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def staging_directory(folder: Path, name: str) -> Iterator[Path]:
    """A directory ``<name>-<host>-<process>-<random>.part`` inside ``folder``, removed at the end.

    Being in the same folder, its files can be moved into place by ``os.replace``. The random letters keep
    apart two containers with the same host name and process number.
    """
    with _staging_lock:
        _sweep(folder, name)
        staging = Path(tempfile.mkdtemp(".part", f"{_owner(name)}-{os.getpid()}-", folder))
        _staging_in_use.add(staging)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _staging_in_use.discard(staging)


def sweep_staging(folder: Path, name: str) -> None:
    """Remove the staging directories of this name that killed processes have left in a folder."""
    with _staging_lock:
        _sweep(folder, name)


def _sweep(folder: Path, name: str) -> None:
    for path in folder.glob(f"{glob.escape(name)}-*.part"):
        if path not in _staging_in_use and is_abandoned(path, _owner(name)):
            shutil.rmtree(path, ignore_errors=True)


def _owner(name: str) -> str:
    return f"{name}-{socket.gethostname()}"


def is_abandoned(staging: Path, owner: str) -> bool:
    """Whether the process that made a staging directory has ended.

    On this host (``owner`` is ``<name>-<host>``) the process number tells; a directory of another host is
    abandoned after a day. This process's own number is that of an earlier process, as in a container: the
    directories that are in use are known and never asked about.
    """
    try:
        made_by, process, _ = staging.stem.rsplit("-", 2)
        if made_by == owner and os.name == "posix":
            if int(process) == os.getpid():
                return True
            os.kill(int(process), 0)  # sends no signal; raises if there is no such process
        return time.time() - staging.stat().st_mtime > ABANDONED_SECONDS
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False

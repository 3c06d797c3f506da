"""Conversion of tensors to NumPy, files that are read with checks and written atomically, progress bars.

Does not import torch.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import TqdmWarning

# Age from which a staging directory counts as abandoned even if its process may still run.
ABANDONED_SECONDS = 86_400.0

PROGRESS_DELAY = 2.0  # seconds before a progress bar appears

_staging_in_use: set[Path] = set()  # of this process, in any of its threads
_staging_lock = threading.Lock()


def as_numpy(array: Any) -> Any:
    """Return a torch tensor or an array of another library, on any device, as an ndarray.

    Any other object is returned unchanged. The ndarray shares the memory of an array on the host, unless that
    is bfloat16, which NumPy does not have: it becomes float32.
    """
    if not (hasattr(array, "detach") and hasattr(array, "cpu")):
        if not hasattr(array, "__dlpack__") or isinstance(array, np.ndarray):
            return array
        try:
            return np.from_dlpack(array, device="cpu")
        except TypeError:  # NumPy < 2.1, which reads arrays on the host only
            return np.from_dlpack(array)
    tensor = array.detach().cpu()
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()


def show_progress(*args: Any, **settings: Any) -> Any:
    """Return a progress bar of tqdm, which is shown after two seconds."""
    return _progress_class()(*args, **{"delay": PROGRESS_DELAY, **settings})


@cache
def _progress_class() -> Any:
    """The bar that suits the program: a widget in a notebook that has them."""
    with warnings.catch_warnings():
        # A notebook without widgets gets the bar of a terminal, and nobody asked for a warning of that.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm
    return tqdm


@cache
def use_one_thread_after_fork() -> None:
    """Let torch compute in one thread in processes that are forked from this one.

    A forked process lacks the threads of its parent, but torch's OpenMP runtime would wait for them forever
    if the parent has computed with them.
    """
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def check_regular_file(path: Path) -> int:
    """Return the size of a file, or of the file that a link points to.

    Anything else is refused before it is opened, because a pipe would block and a device may have no end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{str(path)!r} is not a file, but a folder, pipe or device.")
    return status.st_size


def read_json(
    path: Path, max_bytes: int, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Read a JSON file that anyone may have written; every fault of its content is a ValueError."""
    size = check_regular_file(path)
    with open(path, "rb") as file:
        content = b"" if size > max_bytes else file.read(max_bytes + 1)
    if max(size, len(content)) > max_bytes:
        raise ValueError(f"it is longer than the {max_bytes} bytes that are allowed")
    try:
        return json.loads(content, object_pairs_hook=object_pairs_hook)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is not None:  # otherwise the message is the text alone, and a path would hide it
            error.filename = error.filename or str(path)  # a full disk is reported without a path
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically: readers, also after a crash, see the whole old or the whole new file.

    Its folder is created if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with staging_directory(path.parent, f".{path.stem}") as staging:
        write_bytes(staging / path.name, content)
        os.replace(staging / path.name, path)
    fsync_directory(path.parent)


def fsync_file(path: Path) -> None:
    """fsync a file that another library has written."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def fsync_directory(folder: Path) -> None:
    """fsync a directory, so that a rename in it survives a crash; does nothing outside of POSIX."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def staging_directory(folder: Path, name: str) -> Iterator[Path]:
    """Make a directory ``<name>-<host>-<process>-<random>.part`` in ``folder`` and remove it at the end.

    Its files can be moved into ``folder`` by ``os.replace``, which does not work across file systems. The
    random letters distinguish containers with the same host name and process number.
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
    """Return whether the process that made a staging directory has ended.

    On this host (``owner`` is ``<name>-<host>``) that is known from the process number. Directories of other
    hosts are abandoned after a day, and so are those whose number belongs to a living process, since numbers
    are reused. A directory with this process's own number is of an earlier process, as in a container:
    callers leave out the directories that this process uses.
    """
    try:
        directory_owner, process, _ = staging.stem.rsplit("-", 2)
        if directory_owner == owner and os.name == "posix":
            if int(process) == os.getpid():
                return True
            os.kill(int(process), 0)  # sends no signal; raises if there is no such process
        return time.time() - staging.stat().st_mtime > ABANDONED_SECONDS
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False

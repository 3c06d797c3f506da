"""Which checkpoint file belongs to a fit, and which processes train together."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.backend.device import Compute
from flip_sklearn.backend.distributed import ProcessGroup, count_ungrouped_processes
from flip_sklearn.backend.fit.checkpoint import FORMAT, Checkpoint
from flip_sklearn.backend.fit.solver import Options

CHECKSUM_BYTES = 2**22
COMPARED_ROWS = 1024

# X, Y, weights and groups of the rows
Data = tuple[np.ndarray, sp.csr_array, np.ndarray, np.ndarray | None]


def join_processes() -> ProcessGroup:
    """The process group that this process is in; warns when torchrun's processes have none."""
    group = ProcessGroup.current()
    others = count_ungrouped_processes()
    if group.is_single_process and others:
        warnings.warn(
            f"torchrun started {others} processes, but they form no process group: each fits the "
            "whole model by itself. Call torch.distributed.init_process_group() before fit.",
            RuntimeWarning,
            stacklevel=6,
        )
    return group


def check_same_call(
    group: ProcessGroup,
    options: Options,
    compute: Compute,
    estimator: Any,
    data: Data,
) -> None:
    """Refuse a group whose processes were given different rows or parameters: they would part or hang."""
    if group.is_single_process:
        return
    X, Y, *others = data
    rows = np.unique(np.linspace(0, len(X) - 1, COMPARED_ROWS).astype(np.int64))
    text = f"{X.dtype}{X.shape}{Y.shape}{options}{compute.dtype}{hasattr(estimator, 'bias_')}"
    value = zlib.crc32(text.encode())
    for array in (X[rows], Y.indptr, Y.indices, Y.data, *_given(others)):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    if not group.agrees(value, compute.device):
        raise ValueError(
            f"the {group.size} processes of the group called fit with different data or parameters; "
            "give each of them the same X, Y, sample_weight, groups and parameters: fit itself divides "
            "the rows."
        )


def open_checkpoint(
    folder: Path,
    group: ProcessGroup,
    options: Options,
    compute: Compute,
    estimator: Any,
    data: Data,
    validation_fraction: float,
) -> tuple[Checkpoint, Options]:
    """The checkpoint of this fit in a folder, and the options with the seed it began with.

    The file's name is a digest of the data and of every setting that changes the numbers, so that any
    number of fits (a grid search) can share a folder. With ``random_state=None`` the seed is drawn
    anew each time and read back from the file; otherwise it is part of the digest.
    """
    folder = folder.absolute()  # whatever the working directory is later
    _check_writable(folder, group, compute)
    settings = {
        key: value for key, value in asdict(options).items() if key not in ("max_iter", "seed")
    }
    settings |= {
        "format": FORMAT,
        "seed": None if estimator.random_state is None else options.seed,
        "dtype": str(compute.dtype),
        "product_dtype": str(compute.product_dtype),
        "validation_fraction": validation_fraction,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    X, Y, *others = data
    digest.update(f"{X.dtype}{X.shape}{_checksum(X)}".encode())
    arrays = [Y.indptr, Y.indices, Y.data, *_given(others)]
    if estimator.warm_start and hasattr(estimator, "bias_"):
        arrays += [estimator.bias_, estimator.embedding_mean_, estimator.projection_]
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    path = folder / f"flip-{digest.hexdigest()[:16]}.safetensors"
    checkpoint = Checkpoint(path, seed=options.seed, writes=group.rank == 0)
    saved_seed = checkpoint.saved_seed()  # also: a file that cannot be read is found at once
    if estimator.random_state is None and saved_seed is not None:
        options = replace(options, seed=saved_seed)
    options = replace(options, seed=group.broadcast_int(options.seed, compute.device))
    return replace(checkpoint, seed=options.seed), options


def _given(arrays: list[np.ndarray | None]) -> list[np.ndarray]:
    return [array for array in arrays if array is not None]


def _check_writable(folder: Path, group: ProcessGroup, compute: Compute) -> None:
    """Make the folder and a file in it now: hours later would be a bad time to fail."""
    problem = None
    if group.rank == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            problem = error
    if group.broadcast_int(int(problem is not None), compute.device):
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} is not a folder that can be made and written to"
            f"{f' ({problem})' if problem else ''}; name another one, or None."
        ) from problem


def _checksum(X: np.ndarray) -> int:
    """CRC-32 of all of X, read in parts: one changed row is another fit, too."""
    rows = max(1, CHECKSUM_BYTES // max(1, X.itemsize * X.shape[1]))
    value = 0
    for first in range(0, len(X), rows):
        value = zlib.crc32(np.ascontiguousarray(X[first : first + rows]).data, value)
    return value

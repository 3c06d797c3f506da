"""Checkpoints of a fit, and the process group that trains it."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.backend.device import Compute
from flip_sklearn.backend.distributed import ProcessGroup, count_ungrouped_processes
from flip_sklearn.backend.fit.checkpoint import FORMAT, Checkpoint
from flip_sklearn.backend.fit.session import SolverOptions
from flip_sklearn.estimation.inputs import FitData, FitParameters
from flip_sklearn.parameters import warn_caller

CHECKSUM_BYTES = 2**22
# Rows of X that processes compare to find out whether they were given the same data.
COMPARED_ROWS = 1024
# Settings that do not change the numbers of a pass, or have their own place in the digest.
NOT_IN_DIGEST = ("max_iter", "seed", "report_kkt")


def join_processes() -> ProcessGroup:
    """The process group of this process; warn if torchrun started processes that form no group."""
    group = ProcessGroup.current()
    n_processes = count_ungrouped_processes()
    if group.is_single_process and n_processes:
        warn_caller(
            f"torchrun started {n_processes} processes, but they form no process group: each fits the "
            "whole model by itself. Call torch.distributed.init_process_group() before fit.",
            RuntimeWarning,
        )
    return group


def check_same_call(
    group: ProcessGroup,
    options: SolverOptions,
    compute: Compute,
    data: FitData,
    *,
    is_fitted: bool,
) -> None:
    """Refuse a group whose processes were given different rows or parameters.

    They would compute different models, or wait for each other forever.
    """
    if group.is_single_process:
        return
    X, counts = data.X, data.counts
    rows = np.unique(np.linspace(0, len(X) - 1, COMPARED_ROWS).astype(np.int64))
    text = f"{X.dtype}{X.shape}{counts.shape}{options}{compute.dtype}{is_fitted}"
    checksum = zlib.crc32(text.encode())
    for array in (X[rows], *_arrays(data)):
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    if not group.agrees(checksum, compute.device):
        raise ValueError(
            f"the {group.size} processes of the group called fit with different data or parameters; "
            "give each of them the same X, Y, sample_weight, groups and parameters: fit itself divides "
            "the rows."
        )


def open_checkpoint(
    folder: Path,
    group: ProcessGroup,
    options: SolverOptions,
    parameters: FitParameters,
    data: FitData,
    estimator: Any,
) -> tuple[Checkpoint, SolverOptions]:
    """The checkpoint of a fit in a folder, and the options with the seed that the fit began with.

    The file's name is a digest of the data and of every setting that changes the numbers, so that any
    number of fits (a grid search) can share a folder. With ``random_state=None`` the seed is drawn anew by
    each call and read back from the file; otherwise it is part of the digest.
    """
    folder = folder.absolute()  # the working directory may change during the fit
    compute = parameters.compute
    _check_writable(folder, group, compute)
    has_seed = estimator.random_state is not None
    digest = _digest_settings(options, parameters, seed=options.seed if has_seed else None)
    digest.update(f"{data.X.dtype}{data.X.shape}{_checksum(data.X)}".encode())
    arrays = _arrays(data)
    if estimator.warm_start and hasattr(estimator, "bias_"):
        arrays += [estimator.bias_, estimator.embedding_mean_, estimator.projection_]
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    path = folder / f"flip-{digest.hexdigest()[:16]}.safetensors"
    checkpoint = Checkpoint(path, seed=options.seed, writes=group.rank == 0)
    saved_seed = checkpoint.saved_seed()  # also finds a file that cannot be read, before training
    if not has_seed and saved_seed is not None:
        options = replace(options, seed=saved_seed)
    options = replace(options, seed=group.broadcast_int(options.seed, compute.device))
    return replace(checkpoint, seed=options.seed), options


def _digest_settings(options: SolverOptions, parameters: FitParameters, seed: int | None) -> Any:
    """A SHA-256 object of the settings that change the numbers."""
    settings = {
        **{name: value for name, value in asdict(options).items() if name not in NOT_IN_DIGEST},
        "format": FORMAT,
        "seed": seed,
        "dtype": str(parameters.compute.dtype),
        "product_dtype": str(parameters.compute.product_dtype),
        "validation_fraction": parameters.validation_fraction,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode())


def _arrays(data: FitData) -> list[np.ndarray]:
    """The arrays of the rows besides X."""
    counts = data.counts
    arrays = [counts.indptr, counts.indices, counts.data, data.weights]
    return arrays if data.groups is None else [*arrays, data.groups]


def _check_writable(folder: Path, group: ProcessGroup, compute: Compute) -> None:
    """Make the folder and a file in it now, so that a fit does not fail after hours of training."""
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
    """CRC-32 of all of X, read in chunks: a fit with one changed row is another fit."""
    rows = max(1, CHECKSUM_BYTES // max(1, X.itemsize * X.shape[1]))
    value = 0
    for first in range(0, len(X), rows):
        value = zlib.crc32(np.ascontiguousarray(X[first : first + rows]).data, value)
    return value

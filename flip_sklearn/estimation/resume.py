"""The checkpoint of a fit: its file, and the seed that the fit began with."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.backend.device import Compute, Embeddings
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit.checkpoint import FORMAT, Checkpoint
from flip_sklearn.backend.fit.state import SolverOptions
from flip_sklearn.estimation.inputs import FitInputs
from flip_sklearn.io import as_numpy

CHECKSUM_BYTES = 2**22
# Settings that do not change the numbers of a pass, or that enter the digest separately.
NOT_IN_DIGEST = ("max_iter", "seed", "report_kkt")


def open_checkpoint(folder: Path, estimator: Any, inputs: FitInputs) -> tuple[Checkpoint, SolverOptions]:
    """The checkpoint of a fit in a folder, and the options with the seed that the fit began with.

    The file's name is a digest of the data and of every setting that changes the numbers, so that any
    number of fits (a grid search) can share a folder. With ``random_state=None`` the seed is drawn anew by
    each call and read back from the file; otherwise it is part of the digest.
    """
    folder = folder.absolute()  # the working directory may change during the fit
    group, compute, options = inputs.group, inputs.compute, inputs.options
    _check_writable(folder, group, compute)
    has_seed = estimator.random_state is not None
    settings = {
        **{name: value for name, value in asdict(options).items() if name not in NOT_IN_DIGEST},
        "format": FORMAT,
        "seed": options.seed if has_seed else None,
        "dtype": str(compute.dtype),
        "product_dtype": str(compute.product_dtype),
        "validation_fraction": float(inputs.validation_fraction),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    X, arrays = inputs.data.X, inputs.data.other_arrays
    digest.update(f"{str(X.dtype).removeprefix('torch.')}{tuple(X.shape)}{_checksum(X)}".encode())
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


def _checksum(X: Embeddings) -> int:
    """CRC-32 of all of X, read in chunks, also from a device: a fit with one changed row is another fit."""
    rows = max(1, CHECKSUM_BYTES // max(1, X.itemsize * X.shape[1]))
    value = 0
    for first in range(0, len(X), rows):
        value = zlib.crc32(np.ascontiguousarray(as_numpy(X[first : first + rows])).data, value)
    return value

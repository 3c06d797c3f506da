"""The process group of a fit or a search: processes, started outside this package, that work together."""

from __future__ import annotations

import zlib

import numpy as np

from flip_sklearn.backend.device import Compute, Embeddings
from flip_sklearn.backend.distributed import ProcessGroup, count_ungrouped_processes
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import warn_caller

# Rows of X that processes compare to find out whether they were given the same data.
COMPARED_ROWS = 1024


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
    compute: Compute,
    settings: str,
    X: Embeddings | None,
    arrays: list[np.ndarray],
    *,
    method: str = "fit",
) -> None:
    """Refuse a group whose processes were given different rows or parameters.

    They would compute different results, or wait for each other forever. None stands for rows that are not
    known yet.
    """
    if group.is_single_process:
        return
    checksum = zlib.crc32(settings.encode())
    if X is not None:
        rows = np.unique(np.linspace(0, len(X) - 1, COMPARED_ROWS).astype(np.int64))
        checksum = zlib.crc32(f"{X.dtype}{X.shape}".encode(), checksum)
        arrays = [as_numpy(X[rows]), *arrays]
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    if not group.agrees(checksum, compute.device):
        raise ValueError(
            f"the {group.size} processes of the group called {method} with different data or parameters; "
            f"give each of them the same data and parameters: {method} itself divides the rows."
        )

"""Arrays in safetensors files, also files that a stranger wrote: described from the header, then read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flip_sklearn.io import fsync_file

# Of a few tensors it takes some hundred bytes; a longer one would only take long to read.
MAX_HEADER_BYTES = 2**20
# NumPy has no bfloat16, and computes float16 slowly.
WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def describe(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Format ("F32", ...) and shape of every tensor, of the header alone.

    Raises
    ------
    ValueError
        If the file is not in safetensors format, or does not hold what its header says.
    """
    size = path.stat().st_size
    with open(path, "rb") as beginning:
        header = int.from_bytes(beginning.read(8), "little")
    if size < 8 or header > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(
            f"its {size} bytes begin with a header of {header} bytes; at most {MAX_HEADER_BYTES}, and no "
            "more than the file has, are allowed"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: (str(p.get_dtype()), tuple(p.get_shape())) for n, p in parts.items()}
    except SafetensorError as error:
        raise ValueError(f"it is not in safetensors format, or cut off ({error})") from error


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Some of the tensors on memory of their own; float16 and bfloat16 as float32.

    Raises
    ------
    ValueError
        If the file cannot be read, or has a number that is not finite.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in names:
                tensor = file.get_tensor(name)
                # A copy: the tensor is a view of the file, which may change under it.
                arrays[name] = tensor.to(WIDENED.get(tensor.dtype, tensor.dtype), copy=True).numpy()
    except SafetensorError as error:
        raise ValueError(f"it cannot be read ({error})") from error
    for name, array in arrays.items():
        check_finite(name, array)
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One safetensors file, on the disk when this returns."""
    tensors = {
        name: torch.from_numpy(np.require(array, requirements=["C", "W"]))
        for name, array in arrays.items()
    }
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{str(path)!r} cannot be written ({error})") from error
    fsync_file(path)


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise a ValueError for NaN and infinity, looked for in parts of a few million numbers."""
    rows = max(1, 2**22 // max(1, array[:1].size))
    for first in range(0, len(array), rows):
        if not np.isfinite(array[first : first + rows]).all():
            raise ValueError(f"{name} holds numbers that are not finite")

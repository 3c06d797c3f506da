"""Arrays in safetensors files, which may be damaged or malicious: the header is checked before reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flip_sklearn.io import check_regular_file, fsync_file

# A header of a few tensors has some hundred bytes; a longer one would only take long to read.
MAX_HEADER_BYTES = 2**20
# NumPy has no bfloat16 and is slow in float16.
WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def describe(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the format ("F32", ...) and shape of every tensor, from the header alone."""
    size = check_regular_file(path)
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if size < 8 or header_bytes > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(
            f"its {size} bytes begin with a header of {header_bytes} bytes; at most {MAX_HEADER_BYTES}, and "
            "no more than the file has, are allowed"
        )
    tensors = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as tensor_file:
            for name in tensor_file.keys():  # noqa: SIM118
                tensor = tensor_file.get_slice(name)
                tensors[name] = (str(tensor.get_dtype()), tuple(tensor.get_shape()))
    except SafetensorError as error:
        raise ValueError(f"it is not in safetensors format, or truncated ({error})") from error
    return tensors


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read tensors, whose numbers must be finite, into memory; float16 and bfloat16 become float32."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in names:
                tensor = file.get_tensor(name)
                # A copy: the tensor is a view of the file, which may be changed by another process.
                arrays[name] = tensor.to(WIDENED.get(tensor.dtype, tensor.dtype), copy=True).numpy()
                check_finite(name, arrays[name])
    except SafetensorError as error:
        raise ValueError(f"it cannot be read ({error})") from error
    return arrays


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts of the header; ``describe`` checks its length."""
    with safe_open(path, framework="pt", device="cpu") as file:
        return dict(file.metadata() or {})


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, with texts in its header, and wait until it is on the disk."""
    tensors = {
        name: torch.from_numpy(np.require(array, requirements=["C", "W"])) for name, array in arrays.items()
    }
    try:
        save_file(tensors, path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        raise OSError(f"{str(path)!r} cannot be written ({error})") from error
    fsync_file(path)


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise a ValueError if an array holds NaN or infinity; it is checked block by block."""
    block_rows = max(1, 2**22 // max(1, array[:1].size))
    for start in range(0, len(array), block_rows):
        if not np.isfinite(array[start : start + block_rows]).all():
            raise ValueError(f"{name} holds numbers that are not finite")

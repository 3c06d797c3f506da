"""Device and precision choice, and the only door between NumPy and torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.distributed import ProcessGroup

PRECISIONS = ("auto", "float32", "bfloat16", "float64")

# Elements of one (rows, V) block of scores. On a CPU 2**22 float32 (16 MiB) stay within the last-level
# cache, where the softmax runs several times faster than on larger blocks; on a GPU blocks must
# be large enough to fill it. Never fewer than 128 rows, or the products stop reusing A.
BLOCK_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
MIN_BLOCK_ROWS = 128


@dataclass(frozen=True)
class Compute:
    """Where the arithmetic happens and in which number formats.

    ``dtype`` is the format of parameters, sums and everything stored; ``product_dtype`` is the format
    of the factors of the large matrix products (bfloat16 products are still summed in float32).
    """

    device: torch.device
    dtype: torch.dtype
    product_dtype: torch.dtype


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` into a torch device that exists here."""
    cuda = torch.cuda.is_available()
    if device == "auto":
        return _own_gpu() if cuda else torch.device("cpu")
    allowed = "'auto', 'cpu', 'cuda' or 'cuda:<index>'"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is not a device; use {allowed}.") from error
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r} is not supported; use {allowed}.")
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if cuda else 0
        if (resolved.index or 0) >= count:
            raise ValueError(
                f"device={device!r} asks for a CUDA device that torch does not see ({count} visible); "
                "use device='auto' or 'cpu', or install a CUDA build of torch."
            )
    return resolved


def _own_gpu() -> torch.device:
    """The current CUDA device; in a process group that torchrun started, this process's own."""
    number = os.environ.get("LOCAL_RANK")
    if number is None or ProcessGroup.current().is_single_process:
        return torch.device("cuda")
    # Where each process sees only its own GPU, that is number 0.
    return torch.device("cuda", int(number) % torch.cuda.device_count())


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 products beat float32 ones here: a fixed property of the chip, never a timing.

    A timed choice would make results depend on what else the machine is doing. On CPUs only the AMX
    tile unit qualifies: on AVX512-BF16 alone the products measured no faster than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(has_amx and has_amx())


def resolve_compute(device: str, precision: str) -> Compute:
    """Resolve the user's ``device`` and ``precision`` strings."""
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision={precision!r} is unknown; use one of {', '.join(map(repr, PRECISIONS))}."
        )
    resolved = resolve_device(device)
    if precision == "auto":
        precision = "bfloat16" if bfloat16_is_fast(resolved) else "float32"
    if precision == "float64":
        return Compute(resolved, torch.float64, torch.float64)
    product = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return Compute(resolved, torch.float32, product)


@contextmanager
def product_precision(compute: Compute) -> Iterator[None]:
    """Let float32 products on a CPU run in bfloat16 inside this block.

    It is a permission, not an emulation: oneDNN takes it up where the chip has AMX tiles, sums in
    float32 and returns float32; elsewhere the products stay float32. On CUDA nothing happens here:
    ``matmul`` casts by itself.
    """
    knob = getattr(torch.backends.mkldnn, "matmul", None)
    if compute.device.type != "cpu" or compute.product_dtype != torch.bfloat16 or knob is None:
        yield
        return
    before = knob.fp32_precision
    knob.fp32_precision = "bf16"
    try:
        yield
    finally:
        knob.fp32_precision = before


def matmul(
    a: torch.Tensor, b: torch.Tensor, compute: Compute, out: torch.Tensor, *, add: bool = False
) -> torch.Tensor:
    """``out = a b`` (``out += a b`` with ``add``): factors in the product format, sums in ``out``'s."""
    if compute.device.type == "cuda" and compute.product_dtype == torch.bfloat16:
        a, b = a.to(torch.bfloat16), b.to(torch.bfloat16)
        if add:
            return torch.addmm(out, a, b, out_dtype=out.dtype, out=out)
        return torch.mm(a, b, out_dtype=out.dtype, out=out)
    return out.addmm_(a, b) if add else torch.mm(a, b, out=out)


def as_shared_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the array's own memory, also of a read-only memmap, which is then only ever read."""
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch knows no negative strides
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Torch -> NumPy, owning its memory."""
    return tensor.detach().to("cpu", copy=True).numpy()


def rows_per_block(n_words: int, at_most: int, device: torch.device) -> int:
    """Rows of one block of scores: bounds the memory of every call, whatever n is."""
    rows = BLOCK_ELEMENTS[device.type] // max(1, n_words)
    return max(1, min(at_most, max(MIN_BLOCK_ROWS, rows)))


def fits_on_device(n_bytes: int, device: torch.device) -> bool:
    """Whether data of this size may stay resident next to the model (half of the free memory)."""
    if device.type == "cpu":
        return True  # it is already there; a memmap stays a memmap
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes <= free // 2

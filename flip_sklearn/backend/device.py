"""Choice of device and precision, and conversion between NumPy and torch."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.io import use_one_thread_after_fork

# Embeddings after their check: an array on the host, or a tensor on any device.
Embeddings = np.ndarray | torch.Tensor

PRECISIONS = ("auto", "float32", "bfloat16", "float64")

# Elements of one (rows, V) block of scores. On a CPU 2**22 float32 (16 MiB) stay within the last-level
# cache, where the softmax runs several times faster than on larger blocks; on a GPU blocks must
# be large enough to occupy it. Blocks have at least 128 rows, so that the products reuse A.
BLOCK_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
MIN_BLOCK_ROWS = 128

use_one_thread_after_fork()


@dataclass(frozen=True)
class Compute:
    """Device and number formats of the arithmetic.

    ``dtype`` is the format of parameters, sums and everything stored; ``product_dtype`` is the format
    of the factors of the large matrix products (bfloat16 products are summed in float32).
    """

    device: torch.device
    dtype: torch.dtype
    product_dtype: torch.dtype

    @property
    def numpy_dtype(self) -> type[np.floating]:
        """``dtype`` as a NumPy type."""
        return np.float64 if self.dtype == torch.float64 else np.float32


def resolve_device(device: str) -> torch.device:
    """Return the available torch device for ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``."""
    cuda = torch.cuda.is_available()
    if device == "auto":
        return _default_gpu() if cuda else torch.device("cpu")
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


def _default_gpu() -> torch.device:
    """Return the current CUDA device, or the one of this process in a group started by torchrun."""
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None or ProcessGroup.current().is_single_process:
        return torch.device("cuda")
    # If each process sees only its own GPU, its index is 0.
    return torch.device("cuda", int(local_rank) % torch.cuda.device_count())


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones, as a property of the hardware.

    Nothing is timed, so that results do not depend on the load of the machine. On CPUs this needs AMX
    tiles: with AVX512-BF16 alone the products were measured to be no faster than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(has_amx and has_amx())


def resolve_compute(device: str, precision: str) -> Compute:
    """Resolve the ``device`` and ``precision`` parameters."""
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
def without_autocast() -> Iterator[None]:
    """Compute in the formats of ``Compute`` also inside the caller's ``torch.autocast``."""
    with ExitStack() as stack:
        for device_type in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


@contextmanager
def product_precision(compute: Compute) -> Iterator[None]:
    """Allow float32 products on a CPU to run in bfloat16 inside this block.

    oneDNN uses bfloat16 if the CPU has AMX tiles, with sums and results in float32; otherwise the
    products stay float32. On CUDA this does nothing, because ``matmul`` converts the factors.
    """
    onednn = getattr(torch.backends.mkldnn, "matmul", None)
    if compute.device.type != "cpu" or compute.product_dtype != torch.bfloat16 or onednn is None:
        yield
        return
    previous = onednn.fp32_precision
    onednn.fp32_precision = "bf16"
    try:
        yield
    finally:
        onednn.fp32_precision = previous


def as_factor(matrix: torch.Tensor, compute: Compute) -> torch.Tensor:
    """Return the matrix in the format in which ``matmul`` reads its factors."""
    # On a CPU, oneDNN converts the factors itself.
    return matrix if compute.device.type == "cpu" else matrix.to(compute.product_dtype)


def matmul(
    a: torch.Tensor, b: torch.Tensor, compute: Compute, out: torch.Tensor, *, add: bool = False
) -> torch.Tensor:
    """Compute ``out = a b``, or ``out += a b`` with ``add``.

    Factors are in the product format, sums in the format of ``out``.
    """
    if compute.device.type == "cuda" and compute.product_dtype == torch.bfloat16:
        a, b = as_factor(a, compute), as_factor(b, compute)
        if add:
            return torch.addmm(out, a, b, out_dtype=out.dtype, out=out)
        return torch.mm(a, b, out_dtype=out.dtype, out=out)
    return out.addmm_(a, b) if add else torch.mm(a, b, out=out)


def as_shared_tensor(array: Any) -> torch.Tensor:
    """Return a tensor that shares the memory, on any device, of an array of any library.

    The array may be a read-only memmap: then the tensor must not be written to.
    """
    if isinstance(array, torch.Tensor):
        return array.detach()
    if not isinstance(array, np.ndarray):
        shared: torch.Tensor = torch.utils.dlpack.from_dlpack(array)
        return shared
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch does not support negative strides
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def page_locked(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate CPU tensors in memory from which a device copies while the program goes on."""
    shape, dtype = (sum(map(len, tensors)), *tensors[0].shape[1:]), tensors[0].dtype
    try:
        memory = torch.empty(shape, dtype=dtype, device="cpu", pin_memory=True)
    except RuntimeError:  # none is left: the copy works from any memory, only slower
        memory = torch.empty(shape, dtype=dtype, device="cpu")
    return torch.cat(tensors, out=memory)


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on the device; the host does not wait for a copy from it to an accelerator."""
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return page_locked([tensor]).to(device, non_blocking=True)


def to_device(array: Embeddings, compute: Compute) -> torch.Tensor:
    """Return the array as a tensor on the device and in the format of the arithmetic."""
    return upload(as_shared_tensor(array), compute.device).to(compute.dtype)


def dense_tensor(rows: sp.csr_array, device: torch.device) -> torch.Tensor:
    """Return sparse rows as a dense tensor on a device, to which only their entries are copied."""
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    entries = (row, rows.indices.astype(np.int64), rows.data)
    row_index, column, value = (torch.from_numpy(a).to(device, non_blocking=True) for a in entries)
    result = torch.zeros(rows.shape, dtype=value.dtype, device=device)
    return result.index_put_((row_index, column), value)


def largest_magnitude(x: torch.Tensor, chunk_rows: int) -> float:
    """Return the largest |value|, NaN if there is one; the host waits once for the device of x."""
    chunks = [torch.linalg.vector_norm(chunk, ord=math.inf) for chunk in torch.split(x, chunk_rows)]
    return float(torch.stack(chunks).max())


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a copy of the tensor as a NumPy array."""
    return tensor.detach().to("cpu", copy=True).numpy()


def rows_per_block(n_words: int, max_rows: int, device: torch.device) -> int:
    """Return the number of rows of one block of scores, which bounds memory independently of n."""
    rows = BLOCK_ELEMENTS[device.type] // max(1, n_words)
    return max(1, min(max_rows, max(MIN_BLOCK_ROWS, rows)))


def rows_of(tensor: torch.Tensor, rows: slice) -> torch.Tensor:
    """Return a view of some rows, or the tensor itself: a view costs as much host time as arithmetic."""
    return tensor if rows == slice(0, len(tensor)) else tensor[rows]


def slices(n: int, size: int) -> Iterator[slice]:
    """Yield consecutive slices of at most ``size`` of n items."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def even_slices(n: int, max_size: int) -> Iterator[slice]:
    """Yield slices of nearly equal size: a small last slice would waste a product."""
    return slices(n, max(1, math.ceil(n / max(1, math.ceil(n / max_size)))))


def fits_on_device(n_bytes: int, device: torch.device) -> bool:
    """Whether data of this size may stay on the device: it may take half of the free memory."""
    if device.type == "cpu":
        return True  # nothing is copied, and a memmap stays a memmap
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes <= free // 2

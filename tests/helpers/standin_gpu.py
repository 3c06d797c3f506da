"""A stand-in for a CUDA device, so that the GPU path is tested on machines that have none.

    with standin_gpu() as counts:
        FLiPExtractor(device="cuda").fit(X, Y)
    counts.operators, counts.waits  # Counters by name

Its tensors report cuda:0 and keep their data in host memory. What CUDA refuses is refused: an operator over
tensors of both devices, ``numpy()``, a CPU tensor indexed by a CUDA one, a product whose ``out_dtype`` CUDA
does not have. A copy with ``non_blocking=True`` between the device and pinned memory is in progress until the
host waits for it: before that, a copy on the host holds nan, and after a change of the source of a copy to
the device the next wait raises an error.

It replaces the kernels of the dispatch key CUDA, which a CPU build of torch leaves empty, so it works in
every thread. It says nothing about the rounding, the memory and the speed of a GPU; it does not see whether
one stream reads what another one has not written yet; it has neither ``backward`` nor CUDA graphs; and other
processes do not have it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._mode_utils import no_dispatch

from tests.helpers.standin_streams import (
    GPU,
    Counts,
    Event,
    Stream,
    count_operator,
    current_stream,
    default_stream,
    download,
    is_pinned,
    opened,
    pin,
    pin_memory,
    upload,
    use_stream,
    wait,
)

CPU = torch.device("cpu")
TOTAL_BYTES = 80 << 30

# Operators after which the host needs a size or a value from the device, and therefore waits for it.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::_linalg_eigh",
    "aten::_linalg_svd",
    "aten::linalg_cholesky_ex",
    "aten::linalg_inv_ex",
    "aten::_linalg_solve_ex",
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class StandInTensor(torch.Tensor):
    """A tensor that says it is on cuda:0; ``data_on_host`` holds its values."""

    data_on_host: torch.Tensor

    @staticmethod
    def __new__(cls, data: torch.Tensor) -> StandInTensor:
        with torch.inference_mode(False):  # views of an inference tensor cannot be wrapped
            made = torch.Tensor._make_wrapper_subclass(
                cls, data.shape, strides=data.stride(), storage_offset=data.storage_offset(),
                dtype=data.dtype, device=GPU,
            )  # fmt: skip
        made.data_on_host = data
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _facts(func).is_composite:  # in inference mode torch has not taken it apart
            return func.decompose(*args, **(kwargs or {}))
        return _run(func, *args, **(kwargs or {}))

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
                "host memory first."
            )
        return self.cpu().numpy()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __dlpack__(self, *, dl_device: Any = None, **kwargs: Any) -> Any:
        if dl_device is None or dl_device[0] != 1:
            raise BufferError("the memory of the stand-in device cannot be shared")
        return self.cpu().__dlpack__()

    def record_stream(self, stream: Any) -> None:
        if not isinstance(stream, Stream):
            raise TypeError(f"record_stream needs a stream, got {type(stream).__name__}")

    def is_pinned(self, device: Any = None) -> bool:
        return False

    def pin_memory(self, device: Any = None) -> Any:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def __deepcopy__(self, memo: Any) -> StandInTensor:
        return self.clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return StandInTensor, (self.data_on_host,)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"StandInTensor({self.data_on_host!r})"


@dataclass(frozen=True)
class Facts:
    """What the schema of an operator says."""

    name: str
    arguments: tuple[str, ...]
    written: tuple[str, ...]  # arguments that it writes to and returns
    is_composite: bool
    is_copy: bool
    is_mixed_product: bool  # mm or addmm with out_dtype
    changes_shape: bool  # of an argument, in place
    takes_scalars: bool  # tensors of no dimension may be on the CPU


@cache
def _facts(func: Any) -> Facts:
    schema, key = func._schema, "CompositeImplicitAutograd"
    is_written = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    names = tuple(a.name for a in schema.arguments)
    return Facts(
        name=schema.name,
        arguments=names,
        written=tuple(itertools.compress(names, is_written)),
        is_composite=torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key),
        is_copy=schema.name in ("aten::copy_", "aten::_to_copy"),
        is_mixed_product=schema.name in ("aten::mm", "aten::addmm") and "out_dtype" in names,
        changes_shape=torch.Tag.inplace_view in func.tags,
        takes_scalars=torch.Tag.pointwise in func.tags or schema.name in {*INDEXING, "aten::fill_"},
    )


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """One operator: refuse what CUDA refuses, compute on the host, return tensors of the device."""
    if not opened:
        raise RuntimeError("a tensor of the stand-in device was used outside of standin_gpu()")
    facts = _facts(func)
    name, arguments = facts.name, dict(zip(facts.arguments, args, strict=False)) | kwargs
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if asked is not None and asked.type == "cuda" and asked.index not in (None, 0):
        raise RuntimeError(f"CUDA error: invalid device ordinal ({asked})")
    written = [arguments[n] for n in facts.written if arguments.get(n) is not None]
    if not facts.is_copy:
        _check_devices(func, facts, arguments, written)
    count_operator(name)
    if name in WAITING or (name == "aten::repeat_interleave" and arguments.get("output_size") is None):
        wait(name)
    elif name in INDEXING:
        _count_waits_of_index(name, arguments)

    on_host, on_host_kwargs = _to_host(args), {key: _to_host(value) for key, value in kwargs.items()}
    if asked is not None:
        on_host_kwargs["device"] = CPU
    if "pin_memory" in on_host_kwargs:
        on_host_kwargs["pin_memory"] = False
    if facts.is_mixed_product:
        result = _product_with_out_dtype(name, {key: _to_host(value) for key, value in arguments.items()})
    elif facts.is_copy:
        result = _copy(func, arguments, asked, on_host, on_host_kwargs)
    else:
        result = func(*on_host, **on_host_kwargs)

    if facts.changes_shape:  # the tensor on top has a shape of its own
        with no_dispatch():
            func(*args, **kwargs)
    for tensor in _tensors(written):
        if isinstance(tensor, StandInTensor) and tensor.shape != tensor.data_on_host.shape:
            raise NotImplementedError(f"{func} resizes its output, which the stand-in device cannot do")
    if written and isinstance(result, torch.Tensor):
        return written[0]
    if written and isinstance(result, tuple) and len(result) == len(written):
        return tuple(written)
    if asked is not None and asked.type == "cpu":
        return result
    return _to_device(result)


def _to_host(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_to_host, value))
    return value.data_on_host if isinstance(value, StandInTensor) else value


def _to_device(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_to_device, value))
    return StandInTensor(value) if isinstance(value, torch.Tensor) else value


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among arguments and in lists of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _check_devices(func: Any, facts: Facts, arguments: dict[str, Any], written: list[Any]) -> None:
    tensors = list(_tensors(arguments.values()))
    on_cpu = [x for x in tensors if not isinstance(x, StandInTensor)]
    if not on_cpu or len(on_cpu) == len(tensors):
        return
    if facts.name in INDEXING:
        if not isinstance(arguments["self"], StandInTensor):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        on_cpu = [x for x in on_cpu if x is arguments.get("values")]
    is_written = any(x is y for x in on_cpu for y in _tensors(written))
    if is_written or any(x.dim() > 0 or not facts.takes_scalars for x in on_cpu):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}, shapes on the CPU: {[tuple(x.shape) for x in on_cpu]})"
        )


def _count_waits_of_index(name: str, arguments: dict[str, Any]) -> None:
    """A mask has to be counted, except to fill its places with a number; an index on the host is copied."""
    indices = [i for i in arguments["indices"] if i is not None]
    values = arguments.get("values")
    is_fill = isinstance(values, torch.Tensor) and values.numel() == 1 and not values.is_cuda
    if any(i.dtype in (torch.bool, torch.uint8) for i in indices) and not (is_fill and len(indices) == 1):
        wait(f"{name} with a mask")
    if not all(i.is_cuda for i in indices):
        wait(f"{name} with an index on the host")


def _product_with_out_dtype(name: str, given: dict[str, Any]) -> torch.Tensor:
    """``mm`` and ``addmm`` with ``out_dtype``, which only CUDA has: bfloat16 factors, float32 sums."""
    a, b = (given["self"], given["mat2"]) if name == "aten::mm" else (given["mat1"], given["mat2"])
    dtype, out = given["out_dtype"], given.get("out")
    if a.dtype != b.dtype:
        raise RuntimeError(f"expected both factors to have the same dtype, got {a.dtype} and {b.dtype}")
    if dtype != a.dtype and not (dtype == torch.float32 and a.dtype in (torch.bfloat16, torch.float16)):
        raise RuntimeError("out_dtype must be the same as input dtype or fp32 for fp16/bf16 inputs")
    if out is not None and out.dtype != dtype:
        raise RuntimeError(f"out has dtype {out.dtype}, out_dtype is {dtype}")
    product = a.to(dtype) @ b.to(dtype)
    if name == "aten::addmm":
        added = given["self"]
        if added.dtype != dtype:
            raise RuntimeError(f"self has dtype {added.dtype}, out_dtype is {dtype}")
        product = given.get("beta", 1) * added + given.get("alpha", 1) * product
    if out is None:
        return product
    if out.shape != product.shape:
        raise NotImplementedError("the stand-in device cannot resize an output")
    return out.copy_(product)


def _copy(func: Any, arguments: dict[str, Any], asked: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """Copy within the device, or between it and the host: then it waits, or is in progress from now on."""
    is_in_place = func._schema.name == "aten::copy_"
    source = arguments["src"] if is_in_place else arguments["self"]
    if is_in_place:
        target_on_gpu = isinstance(arguments["self"], StandInTensor)
    else:
        target_on_gpu = isinstance(source, StandInTensor) if asked is None else asked.type == "cuda"
    result: torch.Tensor = func(*args, **kwargs)
    if target_on_gpu == isinstance(source, StandInTensor):
        return result
    if not target_on_gpu:
        opened[-1].downloads.append(source.numel())
    stream = current_stream()
    if not arguments.get("non_blocking"):
        wait("copy to the device" if target_on_gpu else "copy to the host")
    elif target_on_gpu and is_pinned(source):
        stream.unfinished.append(upload(source))
    elif not target_on_gpu and (not is_in_place or is_pinned(result)):
        stream.unfinished.append(download(result))
    else:
        wait("copy with memory that is not pinned")
    return result


def _with_pinning(function: Any) -> Any:
    """A function of torch that makes tensors, with ``pin_memory`` for a device that is not there."""

    def make(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        made = function(*args, **kwargs)
        return pin(made) if pin_memory else made

    return make


def _from_host(function: Any) -> Any:
    """``torch.tensor`` or ``as_tensor``, which fill a new tensor of a device in a way of their own."""

    def make(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
        if device is None or torch.device(device).type == "cpu":
            return function(data, device=device, **kwargs)
        return function(data, **kwargs).to(device)

    return make


# --- Switching it on --------------------------------------------------------------------------


def _answers(free_bytes: int) -> list[tuple[Any, str, Any]]:
    """What modules and classes of torch say while there is a stand-in: (owner, name, value)."""
    properties = SimpleNamespace(
        name="stand-in", major=9, minor=0, total_memory=TOTAL_BYTES, multi_processor_count=132
    )
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "_lazy_init": lambda: None,
        "set_device": lambda device: None,
        "device": lambda device: contextlib.nullcontext(),
        "get_device_name": lambda device=None: properties.name,
        "get_device_capability": lambda device=None: (properties.major, properties.minor),
        "get_device_properties": lambda device=None: properties,
        "mem_get_info": lambda device=None: (free_bytes, TOTAL_BYTES),
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "synchronize": lambda device=None: wait("torch.cuda.synchronize"),
        "Stream": Stream,
        "Event": Event,
        "stream": use_stream,
        "current_stream": current_stream,
        "default_stream": lambda device=None: default_stream,
    }
    makers = ("empty", "zeros", "ones", "full", "empty_like", "zeros_like", "empty_strided")
    return [
        *((torch.cuda, name, value) for name, value in cuda.items()),
        *((torch, name, _with_pinning(getattr(torch, name))) for name in makers),
        *((torch, name, _from_host(getattr(torch, name))) for name in ("tensor", "as_tensor")),
        (torch.Tensor, "pin_memory", pin_memory),
        (torch.Tensor, "is_pinned", is_pinned),
    ]


@contextlib.contextmanager
def standin_gpu(free_bytes: int = 78 << 30) -> Iterator[Counts]:
    """``torch.cuda`` with one device of compute capability 9.0; inside another one, new counts."""
    if not opened and torch.cuda.is_available():
        raise RuntimeError("this machine has a CUDA device; the stand-in is for machines without one")
    if not hasattr(torch._C, "_ensureCUDADeviceGuardSet"):
        pytest.skip(f"torch {torch.__version__} cannot be given the guard of a fake CUDA device")
    _install_device()
    opened.append(Counts())
    with contextlib.ExitStack() as stack:
        for owner, name, value in _answers(free_bytes):
            stack.callback(_restore, owner, name, vars(owner).get(name))
            setattr(owner, name, value)
        try:
            yield opened[-1]
        finally:
            opened.pop()


def _restore(owner: Any, name: str, value: Any) -> None:
    if value is None:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


# Operators whose common kernel for all devices resizes an empty tensor, which a stand-in cannot do.
MAKERS_THAT_RESIZE = ("arange", "arange.start", "arange.start_step", "linspace", "eye", "eye.m", "randperm")

_libraries: list[torch.library.Library] = []  # the kernels live as long as these


def _install_device() -> None:
    """Give the dispatch key CUDA a kernel for every operator, and torch a device guard, once per process."""
    if _libraries:
        return
    _install_device_guard()
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_run, "CUDA")
    makers = torch.library.Library("aten", "IMPL", "CUDA")
    for name in MAKERS_THAT_RESIZE:
        operator, _, overload = name.partition(".")
        func = getattr(getattr(torch.ops.aten, operator), overload or "default")
        makers.impl(name, partial(_run, func))
    _libraries.extend([everything, makers])


def _install_device_guard() -> None:
    """Register torch's own guard of a fake CUDA device.

    torch does so only if a guard is registered that sees no device, which a CPU build does not have. So an
    object whose methods all return 0 takes its place first.
    """
    try:
        c10 = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
        registry = (ctypes.c_void_p * 2).in_dll(c10, "_ZN3c104impl26device_guard_impl_registryE")
    except (OSError, ValueError) as error:
        raise RuntimeError(f"torch {torch.__version__} has no registry of device guards: {error}") from error
    return_zero = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
    methods = (ctypes.c_void_p * 32)(*itertools.repeat(ctypes.cast(return_zero, ctypes.c_void_p).value, 32))
    no_device = (ctypes.c_void_p * 1)(ctypes.addressof(methods))
    registry[1] = ctypes.addressof(no_device)  # 1 is the number of CUDA
    torch._C._ensureCUDADeviceGuardSet()
    if registry[1] == ctypes.addressof(no_device):
        registry[1] = None
        raise RuntimeError(f"torch {torch.__version__} did not register the guard of a fake CUDA device")

"""Streams, events, copies in progress, pinned memory and counts of the stand-in device."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

GPU = torch.device("cuda", 0)


@dataclass
class Counts:
    """What was done on the device."""

    operators: Counter[str] = field(default_factory=Counter)  # views and copies included
    waits: Counter[str] = field(default_factory=Counter)  # of the host for the device
    downloads: list[int] = field(default_factory=list)  # number of elements of each copy to the host
    _lock: Any = field(default_factory=threading.Lock)

    def add(self, counter: Counter[str], name: str) -> None:
        """Add one; threads share the counts."""
        with self._lock:
            counter[name] += 1


# Those of every standin_gpu() that is open; the last one is being counted.
opened: list[Counts] = []


def count_operator(name: str) -> None:
    opened[-1].add(opened[-1].operators, name)


def count_wait(name: str) -> None:
    opened[-1].add(opened[-1].waits, name)


# --- Copies in progress ------------------------------------------------------------------------


def upload(source: torch.Tensor) -> Callable[[], None]:
    before = source.clone()

    def finish() -> None:
        if not torch.equal(before.nan_to_num(), source.nan_to_num()):
            raise RuntimeError("pinned memory was changed while it was being copied to the device")

    return finish


def download(target: torch.Tensor) -> Callable[[], None]:
    values = target.clone()
    is_done = False
    target.fill_(float("nan") if target.is_floating_point() else 0)

    def finish() -> None:
        nonlocal is_done
        if not is_done:
            target.copy_(values)
        is_done = True

    return finish


def wait(name: str) -> None:
    """The host waits for the current stream."""
    count_wait(name)
    _finish(current_stream().unfinished)


def _finish(copies: list[Callable[[], None]]) -> None:
    while copies:
        copies.pop(0)()


class Stream:
    """``torch.cuda.Stream``: the copies that it has not finished."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device = GPU
        self.unfinished: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        with use_stream(self):
            wait("Stream.synchronize")

    def record_event(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        self.unfinished += event.unfinished

    def wait_stream(self, stream: Stream) -> None:
        self.unfinished += stream.unfinished

    def query(self) -> bool:
        return not self.unfinished


class Event:
    """``torch.cuda.Event``: the copies that were in progress when it was recorded."""

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.unfinished: list[Callable[[], None]] = []

    def record(self, stream: Stream | None = None) -> None:
        self.unfinished = list((current_stream() if stream is None else stream).unfinished)

    def wait(self, stream: Stream | None = None) -> None:
        (current_stream() if stream is None else stream).wait_event(self)

    def synchronize(self) -> None:
        count_wait("Event.synchronize")
        _finish(self.unfinished)

    def query(self) -> bool:
        _finish(self.unfinished)
        return True

    def elapsed_time(self, end: Event) -> float:
        return 0.0


default_stream = Stream()
_of_thread = threading.local()


def current_stream(device: Any = None) -> Stream:
    return getattr(_of_thread, "stream", default_stream)


@contextlib.contextmanager
def use_stream(stream: Stream | None) -> Iterator[None]:
    before = current_stream()
    _of_thread.stream = before if stream is None else stream
    try:
        yield
    finally:
        _of_thread.stream = before


# --- Pinned memory, which is plain memory that is remembered -----------------------------------

_pinned: dict[int, tuple[int, StorageWeakRef]] = {}  # first address -> (end, storage)


def pin(tensor: torch.Tensor) -> torch.Tensor:
    for start in [start for start, (_, storage) in _pinned.items() if storage.expired()]:
        del _pinned[start]
    storage = tensor.untyped_storage()
    _pinned[storage.data_ptr()] = (storage.data_ptr() + storage.nbytes(), StorageWeakRef(storage))
    return tensor


def is_pinned(tensor: torch.Tensor, device: Any = None) -> bool:
    address = tensor.data_ptr()
    return any(
        start <= address < end and not storage.expired() for start, (end, storage) in list(_pinned.items())
    )


def pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    return tensor if is_pinned(tensor) else pin(tensor.clone(memory_format=torch.contiguous_format))

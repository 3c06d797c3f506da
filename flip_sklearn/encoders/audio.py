"""Sounds: files and arrays, checked before anything is encoded, and read as mono at the rate of a model."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.encoders.base import EncodingError, require
from flip_sklearn.io import as_numpy, check_regular_file, show_progress
from flip_sklearn.parameters import check_integer, short_repr

# Samples per second: telephones have 8,000, studios up to 192,000.
MIN_RATE, MAX_RATE = 1_000, 384_000
MAX_SECONDS = 7_200
MAX_FILE_BYTES = 2**31
# A file (frames, channels) has few channels; an array (channels, frames) seems to have many.
MAX_CHANNELS = 64
# 40 decibels above full scale, which no recording reaches; integers that were only cast to float do.
MAX_AMPLITUDE = 100.0
# Programs that write to a pipe do not know the length and announce the largest possible one instead.
_STREAMED_BYTES = 2**31 - 2**16
_BLOCK = 2**20  # samples of all channels that are read at a time


@dataclass(frozen=True)
class Sound:
    """The frames ``start`` to ``stop`` of a file or array; equal sounds have equal samples and rates."""

    digest: bytes  # of the whole file or array, mono
    rate: int
    start: int
    stop: int
    source: Any = field(compare=False, repr=False)  # path, or array of shape (frames,) or (frames, channels)
    name: str = field(compare=False)
    stamp: tuple[int, int] | None = field(default=None, compare=False)  # of the file when it was checked

    def __repr__(self) -> str:
        return self.name

    @property
    def seconds(self) -> float:
        """Return the duration."""
        return (self.stop - self.start) / self.rate

    def n_samples(self, rate: int) -> int:
        """Return the number of samples at another rate, at least one."""
        return max(1, round((self.stop - self.start) * rate / self.rate))

    def split(self, seconds: float) -> list[Sound]:
        """Split into parts of this duration; the last one is shorter."""
        step = max(1, int(seconds * self.rate))
        starts = range(self.start, self.stop, step)
        return [replace(self, start=start, stop=min(start + step, self.stop)) for start in starts]

    def read(self, rate: int) -> np.ndarray:
        """Return the samples at a rate, float32, the mean of the channels."""
        blocks = list(self._blocks())
        samples = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
        if len(samples) != self.stop - self.start:
            raise EncodingError(f"{self.name} has changed since it was checked; call again.")
        if rate != self.rate:
            samples = _library("soxr").resample(samples, self.rate, rate)
        n = self.n_samples(rate)  # the resampler returns fewer for a sound of a few samples
        return np.pad(samples, (0, max(0, n - len(samples))))[:n].astype(np.float32, copy=False)

    def _blocks(self) -> Iterator[np.ndarray]:
        if self.stamp is None:
            yield from _array_blocks(self.source, self.start, self.stop)
            return
        try:
            if _stamp(self.source) != self.stamp:
                return
            with _library("soundfile").SoundFile(self.source) as file:
                file.seek(self.start)
                yield from _file_blocks(file, self.stop - self.start)
        except (OSError, RuntimeError) as error:
            raise EncodingError(f"{self.name} can no longer be read ({error}).") from error


def check_sounds(X: Any, sampling_rate: Any, verbose: bool) -> list[Sound]:
    """Read all files and arrays once; a ValueError names the first row that is not a sound."""
    items = _as_list(X)
    for row, item in enumerate(items):
        if not isinstance(item, (str, os.PathLike, list, tuple)) and not hasattr(item, "__array__"):
            remedy = "pass os.fsdecode(path)" if isinstance(item, bytes) else "pass a path or an array"
            raise ValueError(
                f"Row {row} is {short_repr(item)} ({type(item).__name__}), not a sound; {remedy}."
            )
    is_path = [isinstance(item, (str, os.PathLike)) for item in items]
    if any(is_path) and not all(is_path):
        row = is_path.index(not is_path[0])
        kind = "a path" if is_path[0] else "no path"
        other = f"{short_repr(items[row])} ({type(items[row]).__name__})"
        raise ValueError(
            f"Row 0 is {kind} and row {row} is {other}; pass either paths of audio files or arrays of "
            "samples."
        )
    if all(is_path):
        if sampling_rate is not None:
            raise ValueError(
                f"sampling_rate={sampling_rate!r} is for arrays; audio files contain their rate, so use None."
            )
        _library("soundfile")
    elif sampling_rate is None:
        raise ValueError(
            "X has arrays and sampling_rate is None; set it to their number of samples per second, such as "
            "SpeechEncoder(sampling_rate=16000)."
        )
    else:
        sampling_rate = check_integer("sampling_rate", sampling_rate, MIN_RATE, MAX_RATE)
    sounds = []
    checked: dict[str, Sound] = {}
    bar = show_progress(items, desc="reading", unit="sound", disable=not verbose)
    for row, item in enumerate(bar):
        with _named_row(row, item):
            if not all(is_path):
                sounds.append(_check_array(item, sampling_rate, row))
                continue
            path = str(os.fspath(item))
            if path not in checked:
                checked[path] = _check_file(path)
            sounds.append(checked[path])
    return sounds


def _as_list(X: Any) -> list[Any]:
    if isinstance(X, (str, bytes, os.PathLike)):
        raise ValueError(f"X is a single {type(X).__name__}; pass a list of audio files, such as [path].")
    if isinstance(X, (dict, set, frozenset)) or not isinstance(X, Iterable):
        raise ValueError(f"X is a {type(X).__name__}; pass a list of paths or of arrays.")
    shape = getattr(X, "shape", None)
    if shape is not None and not hasattr(X, "columns"):
        X = as_numpy(X)
        is_sound = len(shape) == 1 and getattr(X, "dtype", np.dtype(object)).kind in "biufc"
        if is_sound or (len(shape) == 2 and 0 < shape[1] <= MAX_CHANNELS):
            raise ValueError(
                f"X has shape {tuple(shape)}, as a single sound has; pass a list of sounds, such as [x]."
            )
    elif shape is not None:
        raise ValueError(f"X has shape {shape}; pass one column of paths, such as table['path'].")
    items = list(X)
    if not items:
        raise ValueError("X has no sounds; at least one is needed for the number of dimensions.")
    return items


@contextmanager
def _named_row(row: int, item: Any) -> Iterator[None]:
    """Put the row and the name in front of the message, which is the predicate of a sentence."""
    try:
        yield
    except ValueError as error:
        is_path = isinstance(item, (str, os.PathLike))
        name = f"Row {row} is {short_repr(str(os.fspath(item)), 200)}, which" if is_path else f"Row {row}"
        raise ValueError(f"{name} {error}") from error


def _check_file(path: str) -> Sound:
    library = _library("soundfile")
    path = os.path.expanduser(path)
    try:
        if not os.path.exists(path):
            raise ValueError("does not exist; pass paths that exist, relative to the working directory.")
        try:
            size = check_regular_file(Path(path))
        except ValueError:
            raise ValueError("is a folder, pipe or device; pass an audio file.") from None
        if not 0 < size <= MAX_FILE_BYTES:
            raise ValueError(f"has {size} bytes; use audio files of 1 to {MAX_FILE_BYTES} bytes.")
        with open(path, "rb"):  # names the reason if it cannot be opened, which libsndfile does not
            pass
        stamp = _stamp(path)
        with library.SoundFile(path) as file:
            rate, n_frames = file.samplerate, file.frames
            if not MIN_RATE <= rate <= MAX_RATE:
                raise ValueError(
                    f"has {rate} samples per second; use a file with {MIN_RATE} to {MAX_RATE}, and check "
                    "whether it is damaged."
                )
            _check_duration(n_frames, rate)
            _check_announced_size(file.extra_info)
            digest, n_read = _digest(_file_blocks(file, n_frames))
    except (OSError, RuntimeError, TypeError) as error:  # TypeError: a file without header, by its name
        raise ValueError(
            f"cannot be read ({_reason(error)}); use a file that libsndfile reads, such as WAV or FLAC, and "
            "check whether it is complete."
        ) from error
    if n_read < n_frames:
        raise ValueError(f"ends after {n_read} of {n_frames} frames; copy or record it again.")
    return Sound(digest, rate, 0, n_frames, path, repr(path), stamp)


def _check_array(item: Any, rate: int, row: int) -> Sound:
    try:
        array = np.asarray(as_numpy(item))
    except (TypeError, ValueError) as error:
        raise ValueError(f"is not an array of samples ({error}).") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"has dtype {array.dtype}; pass samples as integers or floats.")
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 0 < array.shape[1] <= MAX_CHANNELS):
        remedy = ""
        if array.ndim == 2 and 0 < array.shape[0] <= MAX_CHANNELS:
            remedy = ", here x.T"
        raise ValueError(
            f"has shape {array.shape}; pass a sound as (frames,) or (frames, channels) with at most "
            f"{MAX_CHANNELS} channels{remedy}."
        )
    _check_duration(len(array), rate)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.any():
        peak = max(int(array.max()), -int(array.min()))
        if peak <= 2**32:
            raise ValueError(
                f"has dtype {array.dtype}, whose full scale is 2**63, and samples of at most {peak}; convert "
                "it to the width of the recording, such as x.astype('int16')."
            )
    digest, n_frames = _digest(_array_blocks(array, 0, len(array)))
    return Sound(digest, rate, 0, n_frames, array, f"the sound of row {row}")


def _check_duration(n_frames: int, rate: int) -> None:
    if n_frames == 0:
        raise ValueError("has no samples; leave such rows out.")
    if n_frames > MAX_SECONDS * rate:
        raise ValueError(
            f"has {n_frames / rate:.0f} seconds; use sounds of at most {MAX_SECONDS} seconds (two hours)."
        )


def _check_announced_size(report: str) -> None:
    """Refuse a WAV file that is shorter than its header says; libsndfile reads what there is."""
    match = re.search(r"^data\s*: (\d+) \(should be (\d+)\)", report, re.MULTILINE)
    if match and int(match[2]) < int(match[1]) < _STREAMED_BYTES:
        raise ValueError(
            f"has {match[2]} of the {match[1]} bytes that its header announces; copy or record it again."
        )


def _digest(blocks: Iterable[np.ndarray]) -> tuple[bytes, int]:
    """Return a hash of checked mono samples, and their number."""
    digest = hashlib.sha256()
    n = 0
    for block in blocks:
        with np.errstate(invalid="ignore"):
            is_bad = ~np.isfinite(block)
        if is_bad.any():
            raise ValueError(f"has NaN or infinity in frame {n + int(np.argmax(is_bad))}; clean it.")
        peak = float(np.abs(block).max(initial=0))
        if peak > MAX_AMPLITUDE:
            raise ValueError(
                f"has samples up to {peak:.6g}, and full scale is 1 for floats; divide by the full scale, "
                "such as 32768."
            )
        digest.update(block.astype("<f4", copy=False).tobytes())
        n += len(block)
    return digest.digest(), n


def _file_blocks(file: Any, n_frames: int) -> Iterator[np.ndarray]:
    """Yield the next frames of an open file in blocks, mono."""
    size = max(1, _BLOCK // file.channels)
    while n_frames > 0:
        block = file.read(min(size, n_frames), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        yield _mono(block)
        n_frames -= len(block)


def _array_blocks(array: np.ndarray, start: int, stop: int) -> Iterator[np.ndarray]:
    """Yield the frames of an array in blocks, mono; the full scale of integers becomes 1."""
    size = max(1, _BLOCK // (array.shape[1] if array.ndim == 2 else 1))
    for begin in range(start, stop, size):
        block = array[begin : min(begin + size, stop)]
        if block.dtype.kind in "iu":
            scale = 2.0 ** (8 * block.dtype.itemsize - 1)
            block = block / scale - (1.0 if block.dtype.kind == "u" else 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            yield _mono(block.astype(np.float32, copy=False))


def _mono(block: np.ndarray) -> np.ndarray:
    if block.ndim == 1:
        return block
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _reason(error: Exception) -> str:
    """Return the reason without the path, which the message names already."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(getattr(error, "error_string", None) or error).rstrip(".")


def _library(name: str) -> Any:
    """Import a library that reads audio."""
    require(name, "speech", "speech")
    return importlib.import_module(name)

"""Texts, embeddings and names out of files and pipes, in order and in bounded memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

STANDARD_INPUT = "-"
# Embeddings that are read and looked at in one go: their words take more memory than they do.
_BLOCK_BYTES = 2**24
_BLOCK_ROWS = 4096
_MAGIC = b"\x93NUMPY"


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file, or standard input for "-"; ValueError where there is none."""
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise ValueError(
                "standard input is closed; pipe something in, or name a file in place of -."
            )
        yield sys.stdin.buffer
        return
    if not Path(path).exists() or Path(path).is_dir():
        what = "a folder" if Path(path).is_dir() else "no file"
        raise ValueError(f"{path!r} is {what}; pass a file, or - for standard input.")
    with open(path, "rb") as file:
        yield file


def lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 file, without their ends; only a line feed ends a line."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"line {number} of {_named(path)} is not UTF-8 (byte {error.start + 1} of the line is "
                    f"0x{line[error.start]:02x}); convert it, for instance with iconv -t UTF-8."
                ) from None
            yield text.rstrip("\r\n")


def text_blocks(path: str, size: int) -> Iterator[list[str]]:
    """Lines, ``size`` at a time; one at a time from a terminal, where somebody waits for the answer."""
    if path == STANDARD_INPUT and sys.stdin is not None and sys.stdin.isatty():
        size = 1
    rows = lines(path)
    while block := list(islice(rows, size)):
        yield block


def all_lines(path: str) -> list[str]:
    """Every line; ValueError where there is none."""
    found = list(lines(path))
    if not found:
        raise ValueError(f"{_named(path)} is empty; it needs one sentence per line.")
    return found


def embeddings(path: str) -> np.ndarray:
    """The array (n, d) of a .npy file, as a read-only memory map; pipes are read into memory."""
    if path == STANDARD_INPUT or (Path(path).exists() and not Path(path).is_file()):
        blocks = [*embedding_blocks(path)]
        if not blocks:
            raise ValueError(
                f"{_named(path)} has no rows; pass embeddings of at least one sentence."
            )
        return np.concatenate(blocks)
    with opened(path) as file:
        n_rows = _header(file, path)[0][0]
    if n_rows == 0:
        raise ValueError(f"{path!r} has no rows; pass embeddings of at least one sentence.")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path!r} cannot be read ({error}); write it again with numpy.save."
        ) from None


def embedding_blocks(path: str) -> Iterator[np.ndarray]:
    """Rows of a .npy file or pipe in order, some megabytes at a time."""
    with opened(path) as file:
        (n, d), dtype = _header(file, path)
        most = min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // (d * dtype.itemsize)))
        for first in range(0, n, most):
            rows = min(most, n - first)
            data = file.read(rows * d * dtype.itemsize)
            if len(data) < rows * d * dtype.itemsize:
                got = first + len(data) // (d * dtype.itemsize)
                raise ValueError(
                    f"{_named(path)} ends after row {got} of {n}: it is cut off; write it again."
                )
            yield np.frombuffer(data, dtype=dtype).reshape(rows, d)


def count_embeddings(path: str) -> int | None:
    """Rows of a .npy file, None for a pipe."""
    if path == STANDARD_INPUT or not Path(path).is_file():
        return None
    with opened(path) as file:
        return _header(file, path)[0][0]


def _header(file: BinaryIO, path: str) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Shape and type; nothing but numbers in two dimensions passes."""
    where = _named(path)
    start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise ValueError(f"{where} is no .npy file; write the embeddings (n, d) with numpy.save.")
    version = tuple(file.read(2))
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{where} is .npy of version {version}; write it with numpy.save.")
    try:
        shape, fortran, dtype = readers[version](file)
    except ValueError as error:
        raise ValueError(f"{where} has a damaged header ({error}); write it again.") from None
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"{where} holds {dtype}, not numbers; save a float array (n, d).")
    if len(shape) != 2 or shape[1] < 1 or (fortran and min(shape) > 1):
        order = " in Fortran order" if fortran else ""
        raise ValueError(
            f"{where} holds an array of shape {shape}{order}; save one of shape (n, d), row by row "
            "(numpy.ascontiguousarray)."
        )
    return (int(shape[0]), int(shape[1])), dtype


def names(path: str, n: int) -> list[list[str]]:
    """The names in each of n sentences, from JSON lines such as ["New York", "Alice"]."""
    found = []
    for number, line in enumerate(lines(path), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, list) or not all(isinstance(name, str) for name in row):
            raise ValueError(
                f"line {number} of {_named(path)} is {line[:60]!r}; write a JSON list of names per sentence, "
                'such as ["New York", "Alice"], and [] for none.'
            )
        found.append(row)
    if len(found) != n:
        raise ValueError(f"{_named(path)} has {len(found)} lines, and there are {n} sentences.")
    return found


def _named(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else repr(path)

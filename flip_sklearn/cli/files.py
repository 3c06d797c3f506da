"""Read texts, embeddings and names from files and pipes, in order and in bounded memory."""

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

from flip_sklearn.cli.options import STANDARD_INPUT

LINES_PER_BLOCK = 1024
# Size of a block of embeddings. The row limit is for their keywords, which take more memory.
_BLOCK_BYTES = 2**24
_BLOCK_ROWS = 4096
_MAGIC = b"\x93NUMPY"


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a file, or standard input for "-"; raise ValueError if it does not exist."""
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise ValueError("standard input is closed; pipe something in, or name a file in place of -.")
        yield sys.stdin.buffer
        return
    if not Path(path).exists() or Path(path).is_dir():
        problem = "is a folder" if Path(path).is_dir() else "does not exist"
        raise ValueError(f"{path!r} {problem}; pass a file, or - for standard input.")
    with open(path, "rb") as file:
        yield file


def read_lines(path: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their ends; only a line feed ends a line."""
    with open_file(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"line {number} of {_describe(path)} is not UTF-8 (byte {error.start + 1} of the line is "
                    f"0x{line[error.start]:02x}); convert it, for instance with iconv -t UTF-8."
                ) from None
            yield text.rstrip("\r\n")


def read_line_blocks(path: str) -> Iterator[list[str]]:
    """Yield blocks of lines; from a terminal single lines, so that each is answered at once."""
    is_terminal = path == STANDARD_INPUT and sys.stdin is not None and sys.stdin.isatty()
    size = 1 if is_terminal else LINES_PER_BLOCK
    lines = read_lines(path)
    while block := list(islice(lines, size)):
        yield block


def read_all_lines(path: str) -> list[str]:
    """Return all lines; raise ValueError for an empty file."""
    lines = list(read_lines(path))
    if not lines:
        raise ValueError(f"{_describe(path)} is empty; it needs one sentence per line.")
    return lines


def open_embeddings(path: str) -> np.ndarray:
    """Return the array (n, d) of a .npy file as a read-only memory map; pipes are read into memory."""
    n_rows = count_embeddings(path)
    blocks = list(read_embedding_blocks(path)) if n_rows is None else []
    if not n_rows and not blocks:
        raise ValueError(f"{_describe(path)} has no rows; pass embeddings of at least one sentence.")
    if blocks:
        return np.concatenate(blocks)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, OSError) as error:
        raise ValueError(f"{path!r} cannot be read ({error}); write it again with numpy.save.") from None


def read_embedding_blocks(path: str) -> Iterator[np.ndarray]:
    """Yield the rows of a .npy file or pipe in order, some megabytes at a time."""
    with open_file(path) as file:
        (n, d), dtype = _read_header(file, path)
        row_bytes = d * dtype.itemsize
        block_rows = min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // row_bytes))
        for start in range(0, n, block_rows):
            n_rows = min(block_rows, n - start)
            data = file.read(n_rows * row_bytes)
            if len(data) < n_rows * row_bytes:
                n_complete = start + len(data) // row_bytes
                raise ValueError(
                    f"{_describe(path)} is truncated after row {n_complete} of {n}; write it again."
                )
            yield np.frombuffer(data, dtype=dtype).reshape(n_rows, d)


def count_embeddings(path: str) -> int | None:
    """Return the number of rows of a .npy file, None for a pipe."""
    if path == STANDARD_INPUT or not Path(path).is_file():
        return None
    with open_file(path) as file:
        (n_rows, _), _ = _read_header(file, path)
    return n_rows


def _read_header(file: BinaryIO, path: str) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Return shape and dtype; raise ValueError unless the file has numbers in two dimensions."""
    name = _describe(path)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError(f"{name} is not a .npy file; write the embeddings (n, d) with numpy.save.")
    version = tuple(file.read(2))
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} is a .npy file of version {version}; write it with numpy.save.")
    try:
        shape, fortran, dtype = readers[version](file)
    except ValueError as error:
        raise ValueError(f"{name} has a damaged header ({error}); write it again.") from None
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"{name} contains {dtype}, not numbers; save a float array (n, d).")
    if len(shape) != 2 or shape[1] < 1 or (fortran and min(shape) > 1):
        order = " in Fortran order" if fortran else ""
        raise ValueError(
            f"{name} contains an array of shape {shape}{order}; save one of shape (n, d), row by row "
            "(numpy.ascontiguousarray)."
        )
    return (int(shape[0]), int(shape[1])), dtype


def read_names(path: str, n: int) -> list[list[str]]:
    """Return the names in each of n sentences, from JSON lines such as ["New York", "Alice"]."""
    names = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, list) or not all(isinstance(name, str) for name in row):
            raise ValueError(
                f"line {number} of {_describe(path)} is {line[:60]!r}; write a JSON list of names per "
                'sentence, such as ["New York", "Alice"], and [] for none.'
            )
        names.append(row)
    if len(names) != n:
        raise ValueError(f"{_describe(path)} has {len(names)} lines, and there are {n} sentences.")
    return names


def _describe(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else repr(path)

"""Read texts and names from files and pipes, in order and in bounded memory."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from flip_sklearn.cli import tables
from flip_sklearn.cli.options import STANDARD_INPUT

LINES_PER_BLOCK = 1024
_PIPE_BYTES = 2**16
# Seconds in which the lines of a pipe are collected into one block.
_PATIENCE = 0.05


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a file, or standard input for "-"; raise ValueError if it does not exist."""
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise ValueError("standard input is closed; pipe something in, or name a file in place of -.")
        yield sys.stdin.buffer
        return
    file_path = Path(path).expanduser()
    if not file_path.exists() or file_path.is_dir():
        problem = "is a folder" if file_path.is_dir() else "does not exist"
        raise ValueError(f"{path!r} {problem}; pass a file, or - for standard input.")
    with open(file_path, "rb") as file:
        yield file


class _Source:
    """Lines of a file, and whether the next one can be read without waiting for the writer of a pipe."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pipe = _pipe_number(file)
        self._lines: deque[bytes] = deque()
        self._pieces: list[bytes] = []  # of the line that is not complete
        self._at_end = False

    def __iter__(self) -> Iterator[bytes]:
        if self._pipe is None:
            yield from self._file
            return
        while True:
            while not self._lines and not self._at_end:
                self._fill()
            if not self._lines:
                return
            yield self._lines.popleft()

    def is_ready(self, deadline: float) -> bool:
        """Whether there is a line, or the end, before the deadline."""
        if self._pipe is None:
            return os.name == "posix" or not self._file.isatty()
        while not self._lines and not self._at_end:
            if not select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            self._fill()
        return True

    def _fill(self) -> None:
        assert self._pipe is not None
        data = os.read(self._pipe, _PIPE_BYTES)
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = b"".join([*self._pieces, complete[0]])
            self._pieces = []
            self._lines.extend(complete)
        if rest:
            self._pieces.append(rest)
        if not data:
            self._at_end = True
            if self._pieces:
                self._lines.append(b"".join(self._pieces))


def _pipe_number(file: BinaryIO) -> int | None:
    """Return the descriptor of a pipe or a terminal, None for a file and where select does not work."""
    try:
        number = file.fileno()
    except OSError:  # a stream in memory
        return None
    return None if os.name != "posix" or stat.S_ISREG(os.fstat(number).st_mode) else number


def read_lines(path: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their ends; only a line feed ends a line."""
    with open_file(path) as file:
        yield from _decode(_Source(file), path)


def _decode(source: _Source, path: str) -> Iterator[str]:
    for number, line in enumerate(source, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"line {number} of {describe(path)} is not UTF-8 (byte {error.start + 1} of the line is "
                f"0x{line[error.start]:02x}); convert it, for instance with iconv -t UTF-8."
            ) from None
        yield text.rstrip("\r\n")


def read_text_blocks(path: str, column: str | None = None) -> Iterator[list[str]]:
    """Yield blocks of lines, or of texts of a column of a table.

    From a pipe or a terminal a block has what has come in a short time, so that each line is answered
    when it comes.
    """
    if tables.is_parquet(path) and path != STANDARD_INPUT:
        if column is None:
            raise ValueError(f"{path!r} is a Parquet file; name the column of the texts with --column.")
        with open_file(path):  # names a missing file
            texts = tables.read_parquet_column(Path(path).expanduser(), column)
            while block := list(islice(texts, LINES_PER_BLOCK)):
                yield block
        return
    with open_file(path) as file:
        source = _Source(file)
        lines = _decode(source, path)
        rows = lines if column is None else tables.read_column(lines, column, path, describe(path))
        failure = None
        is_first = column is None
        while failure is None and (row := next(rows, None)) is not None:
            block, deadline = [row], time.monotonic() + _PATIENCE
            try:
                while len(block) < LINES_PER_BLOCK and source.is_ready(deadline):
                    block.append(next(rows))
            except StopIteration:
                pass
            except ValueError as error:  # the lines before it are answered first
                failure = error
            if is_first:
                _warn_of_table(path, block)
                is_first = False
            yield block
        if failure is not None:
            raise failure


def _warn_of_table(path: str, head: list[str]) -> None:
    columns = tables.table_columns(path, head)
    if columns is not None:
        warnings.warn(
            f"{describe(path)} looks like a table, and each of its lines is taken as one sentence, with the "
            f"header, separators and quotation marks; pass --column NAME to take the texts of a column, here "
            f"one of {', '.join(repr(name) for name in columns[:10])}.",
            stacklevel=2,
        )


def read_texts(path: str, column: str | None = None) -> list[str]:
    """Return all lines or all texts of a column; raise ValueError for an empty file."""
    texts = [text for block in read_text_blocks(path, column) for text in block]
    if not texts:
        raise ValueError(f"{describe(path)} is empty; it needs one sentence per line.")
    return texts


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
                f"line {number} of {describe(path)} is {line[:60]!r}; write a JSON list of names per "
                'sentence, such as ["New York", "Alice"], and [] for none.'
            )
        names.append(row)
    if len(names) != n:
        raise ValueError(f"{describe(path)} has {len(names)} lines, and there are {n} sentences.")
    return names


def describe(path: str) -> str:
    """Return the name of a file in a message."""
    return "standard input" if path == STANDARD_INPUT else repr(path)

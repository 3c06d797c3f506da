"""Embeddings from .npy, .npz, Parquet and safetensors files, in order and in bounded memory.

A file is named as FILE, or as FILE::NAME for one of the arrays or columns in it. A pipe has the format .npy.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

from flip_sklearn.cli import tables
from flip_sklearn.cli.files import describe, open_file
from flip_sklearn.cli.options import STANDARD_INPUT, split_location
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import short_repr
from flip_sklearn.persistence import tensors

# Size of a block of embeddings. The row limit is for their keywords, which take more memory.
_BLOCK_BYTES = 2**24
_BLOCK_ROWS = 4096
_MAX_ROW_BYTES = 2**30
_MAX_HEADER_BYTES = 10_000  # of a .npy array, as numpy.load
_MAGIC = {b"\x93NUM": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"PAR1": "parquet"}
_SUFFIXES = {".npz": "npz", ".parquet": "parquet", ".pq": "parquet", ".safetensors": "safetensors"}
_NPY_MAGIC = b"\x93NUMPY"
_TENSOR_TYPES = {
    **{"F16": "f2", "BF16": "f4", "F32": "f4", "F64": "f8"},
    **{f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}


@dataclass(frozen=True)
class _Vectors:
    """The vectors of an open file.

    ``blocks`` reads them once, in blocks of the given number of rows; ``map_rows`` maps them into memory,
    if the format allows that.
    """

    name: str  # in messages
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    blocks: Callable[[int], Iterator[np.ndarray]]
    map_rows: Callable[[], np.ndarray] | None = None


def open_embeddings(location: str) -> np.ndarray:
    """Return an array (n, d): a memory map of .npy and safetensors files, read into memory from others."""
    with _open(location) as vectors:
        (n, d), name = vectors.shape, vectors.name
        if not n:
            raise ValueError(f"{name} has no rows; pass embeddings of at least one sentence.")
        if vectors.map_rows is not None:
            return vectors.map_rows()
        blocks = _read_blocks(vectors)
        if not _is_seekable_file(split_location(location)[0]):  # its header may name any size
            return np.concatenate(list(blocks))
        try:
            X = np.empty((n, d), vectors.dtype)
        except (MemoryError, ValueError):
            raise ValueError(
                f"{name} has {n} rows of {d} numbers, which do not fit in memory; write them to a .npy file, "
                "which is memory-mapped."
            ) from None
        start = 0
        for block in blocks:
            X[start : start + len(block)] = block
            start += len(block)
        return X


def read_embedding_blocks(location: str) -> Iterator[np.ndarray]:
    """Yield the rows of a file or pipe in order, some megabytes at a time."""
    with _open(location) as vectors:
        yield from _read_blocks(vectors)


def count_embeddings(location: str) -> int | None:
    """Return the number of rows of a file, None for a pipe."""
    if not _is_seekable_file(split_location(location)[0]):
        return None
    with _open(location) as vectors:
        return vectors.shape[0]


def embeddings_shape(location: str) -> tuple[int, int]:
    """Return the number of rows of a file and their length, which it says without being read."""
    with _open(location) as vectors:
        return vectors.shape


def _read_blocks(vectors: _Vectors) -> Iterator[np.ndarray]:
    n, d = vectors.shape
    if n:
        yield from vectors.blocks(min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // (d * vectors.dtype.itemsize))))


def _is_seekable_file(path: str) -> bool:
    return path != STANDARD_INPUT and Path(path).expanduser().is_file()


@contextmanager
def _open(location: str) -> Iterator[_Vectors]:
    """Open the vectors of a file by its content, or by its suffix."""
    path, column = split_location(location)
    with open_file(path) as file:
        kind = "npy"
        if _is_seekable_file(path):
            kind = _MAGIC.get(file.read(4)) or _SUFFIXES.get(Path(path).suffix.lower(), "npy")
            file.seek(0)
        name = describe(path)
        if kind == "npy":
            if column is not None:
                raise ValueError(f"{name} holds one array without a name; leave ::{column} out.")
            yield _npy(file, path)
            return
        opened = {"npz": _open_npz, "parquet": _open_parquet, "safetensors": _open_safetensors}[kind]
        with opened(file, path, column) as vectors:
            yield vectors


def _choose(name: str, column: str | None, found: Mapping[str, tuple[bool, bool]], kinds: str) -> str:
    """Return the name of the array or column to read.

    ``found`` tells of each name whether it can hold vectors, and whether its numbers are floating-point
    numbers; ``kinds`` says what can hold vectors.
    """
    listed = tables.listed(list(found)) if found else "none"
    if column is not None:
        if column not in found:
            raise ValueError(f"{name} has no {short_repr(column)}; it has {listed}.")
        return column
    if len(found) == 1:  # if it holds no vectors, the error says what it holds
        return next(iter(found))
    vectors = [key for key, (is_vectors, _) in found.items() if is_vectors]
    floats = [key for key in vectors if found[key][1]]
    chosen = floats or vectors
    if len(chosen) != 1:
        several = f" ({tables.listed(chosen)})" if chosen else ""
        raise ValueError(
            f"{name} has {len(chosen) or 'no'} {kinds}{several}; name the embeddings as FILE::NAME. It has "
            f"{listed}."
        )
    return chosen[0]


def _npy(file: IO[bytes], path: str) -> _Vectors:
    name = describe(path)
    shape, dtype = _checked_shape(name, *_read_header(file, name))

    def map_rows() -> np.ndarray:
        try:
            return np.load(  # type: ignore[no-any-return]
                Path(path).expanduser(), mmap_mode="r", allow_pickle=False
            )
        except (ValueError, OSError, OverflowError) as error:
            raise ValueError(f"{path!r} cannot be read ({error}); write it again with numpy.save.") from None

    blocks = _npy_blocks(file, name, shape, dtype)
    return _Vectors(name, shape, dtype, blocks, map_rows if _is_seekable_file(path) else None)


def _npy_blocks(
    file: IO[bytes], name: str, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Callable[[int], Iterator[np.ndarray]]:
    n, d = shape
    row_bytes = d * dtype.itemsize

    def blocks(block_rows: int) -> Iterator[np.ndarray]:
        for start in range(0, n, block_rows):
            n_rows = min(block_rows, n - start)
            data = file.read(n_rows * row_bytes)
            if len(data) < n_rows * row_bytes:
                n_complete = start + len(data) // row_bytes
                raise ValueError(f"{name} is truncated after row {n_complete} of {n}; write it again.")
            yield np.frombuffer(data, dtype=dtype).reshape(n_rows, d)

    return blocks


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether the array is in Fortran order, and dtype of a .npy array."""
    if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
        raise ValueError(f"{name} is not a .npy file; write the embeddings (n, d) with numpy.save.")
    version = tuple(file.read(2))
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} is a .npy file of version {version}; write it with numpy.save.")
    size = file.read(2 * version[0])
    n_bytes = int.from_bytes(size, "little")
    if n_bytes > _MAX_HEADER_BYTES:
        raise ValueError(
            f"{name} has a damaged header ({n_bytes} bytes; at most {_MAX_HEADER_BYTES} are allowed); write "
            "it again."
        )
    try:
        return readers[version](BytesIO(size + file.read(n_bytes)))
    except ValueError as error:
        raise ValueError(f"{name} has a damaged header ({error}); write it again.") from None


def _checked_shape(
    name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Return shape and dtype; raise ValueError unless the array has numbers in two dimensions."""
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"{name} contains {dtype}, not numbers; save a float array (n, d).")
    is_matrix = len(shape) == 2 and all(type(size) is int for size in shape) and shape[0] >= 0
    if not is_matrix or not 0 < shape[1] * dtype.itemsize <= _MAX_ROW_BYTES or (fortran and min(shape) > 1):
        order = " in Fortran order" if fortran else ""
        raise ValueError(
            f"{name} contains an array of shape {shape}{order}; save one of shape (n, d), row by row "
            "(numpy.ascontiguousarray)."
        )
    return (int(shape[0]), int(shape[1])), dtype


@contextmanager
def _open_npz(file: IO[bytes], path: str, column: str | None) -> Iterator[_Vectors]:
    name = describe(path)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {key.removesuffix(".npy"): key for key in archive.namelist() if key.endswith(".npy")}
            found = {key: _array_kind(archive, member) for key, member in members.items()}
            key = _choose(name, column, found, "arrays with two dimensions")
            name = f"{key!r} of {name}"
            with archive.open(members[key]) as stream:
                shape, dtype = _checked_shape(name, *_read_header(stream, name))
                n_bytes = archive.getinfo(members[key]).file_size - stream.tell()
                n_expected = shape[0] * shape[1] * dtype.itemsize
                if n_bytes != n_expected:
                    raise ValueError(
                        f"{name} has {n_bytes} bytes, and its header {n_expected}; write it again."
                    )
                yield _Vectors(name, shape, dtype, _npy_blocks(stream, name, shape, dtype))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read ({error}); write it again with numpy.savez.") from None


def _array_kind(archive: zipfile.ZipFile, member: str) -> tuple[bool, bool]:
    """Whether an array has two dimensions, and floating-point numbers; neither if it cannot be read."""
    with archive.open(member) as stream:
        try:
            shape, _, dtype = _read_header(stream, member)
        except ValueError:
            return False, False
    return len(shape) == 2, dtype.kind == "f"


@contextmanager
def _open_safetensors(file: IO[bytes], path: str, column: str | None) -> Iterator[_Vectors]:
    name = describe(path)
    file_path = Path(path).expanduser()
    try:
        stored = tensors.describe(file_path)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}; write it again.") from None
    found = {key: (len(shape) == 2, "F" in kind) for key, (kind, shape) in stored.items()}
    key = _choose(name, column, found, "tensors with two dimensions")
    name = f"{key!r} of {name}"
    kind, shape = stored[key]
    if kind not in _TENSOR_TYPES:
        raise ValueError(f"{name} contains {kind}; use one of {', '.join(_TENSOR_TYPES)}.")
    checked, dtype = _checked_shape(name, shape, False, np.dtype(_TENSOR_TYPES[kind]))
    try:
        with safe_open(file_path, framework="pt", device="cpu") as tensor_file:
            rows = tensor_file.get_slice(key)

            def blocks(block_rows: int) -> Iterator[np.ndarray]:
                for start in range(0, checked[0], block_rows):
                    yield as_numpy(rows[start : start + block_rows])

            def map_rows() -> np.ndarray:
                X: np.ndarray = as_numpy(tensor_file.get_tensor(key))
                return X

            # NumPy has no bfloat16, so that it is converted.
            yield _Vectors(name, checked, dtype, blocks, None if kind == "BF16" else map_rows)
    except SafetensorError as error:
        raise ValueError(f"{name} cannot be read ({error}); write it again.") from None


@contextmanager
def _open_parquet(file: IO[bytes], path: str, column: str | None) -> Iterator[_Vectors]:
    pa, pq = tables.import_pyarrow("save the embeddings with numpy.save")
    name = describe(path)
    try:
        with pq.ParquetFile(file, **tables.PARQUET_IN_PIECES) as table:
            schema = table.schema_arrow
            items = {field.name: _item_type(pa, field.type) for field in schema}
            found = {
                key: (item is not None, item is not None and pa.types.is_floating(item))
                for key, item in items.items()
            }
            key = _choose(name, column, found, "columns of lists of numbers")
            tables.find_column(schema.names, key, name)
            item = items[key]
            name = f"column {key!r} of {name}"
            if item is None:
                raise ValueError(
                    f"{name} is of type {schema.field(key).type}; it must hold one list of numbers per row."
                )
            n = table.metadata.num_rows
            first = next(_arrow_rows(pa, table, key, name, None, 1), np.empty((0, 1)))
            checked, dtype = _checked_shape(
                name, (n, first.shape[1]), False, np.dtype(item.to_pandas_dtype())
            )
            yield _Vectors(
                *(name, checked, dtype), lambda size: _arrow_rows(pa, table, key, name, checked[1], size)
            )
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} cannot be read ({error}); write it again.") from None


def _item_type(pa: Any, kind: Any) -> Any:
    """Return the type of the numbers in a list column, None for any other column."""
    if isinstance(kind, pa.BaseExtensionType):  # tensors of a fixed shape
        kind = kind.storage_type
    types = pa.types
    if not any(check(kind) for check in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return None
    item = kind.value_type
    return item if types.is_floating(item) or types.is_integer(item) else None


def _arrow_rows(
    pa: Any, table: Any, key: str, name: str, width: int | None, block_rows: int
) -> Iterator[np.ndarray]:
    """Yield the vectors of a list column, which must have ``width`` numbers each."""
    start = 0
    for batch in table.iter_batches(block_rows, columns=[key]):
        column = batch.column(key)  # another column may have the same prefix before a dot
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if column.null_count:
            row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise ValueError(
                f"{name} has no vector in row {row} (counted from 0); leave such rows out, or encode them."
            )
        lengths = pa.compute.list_value_length(column).to_numpy(zero_copy_only=False)
        width = int(lengths[0]) if width is None else width
        numbers = column.flatten()
        wrong = np.flatnonzero(lengths != width)
        if len(wrong):
            raise ValueError(
                f"{name} holds vectors of different lengths: {width} numbers in row 0, {lengths[wrong[0]]} "
                f"in row {start + wrong[0]}; every row needs one vector of the same encoder."
            )
        if numbers.null_count:
            row = start + int(np.argmax(numbers.is_null().to_numpy(zero_copy_only=False))) // width
            raise ValueError(
                f"{name} has a missing number in row {row} (counted from 0); leave such rows out, or encode "
                "them again."
            )
        yield numbers.to_numpy(zero_copy_only=False).reshape(len(column), width)
        start += len(column)

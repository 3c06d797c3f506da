"""One column of a table as texts: CSV, TSV, JSON lines and Parquet, in bounded memory."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flip_sklearn.parameters import install_command, short_repr

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_MAX_FIELD = 2**31 - 1  # of the csv module, whose default is 128 kB
_ROWS_PER_BATCH = 1024
# Otherwise pyarrow reads row groups as a whole, and keeps all that it has read.
PARQUET_IN_PIECES = {"pre_buffer": False, "buffer_size": 2**20}
# Number of lines from which a file without a telling name is recognized as a table.
_N_SAMPLE = 5


def is_parquet(path: str) -> bool:
    """Whether this is the name of a Parquet file, which has no lines."""
    return Path(path).suffix.lower() in _PARQUET


def table_columns(path: str, head: Sequence[str]) -> list[str] | None:
    """Return the columns of a file that looks like a table, None for a file of plain lines.

    ``head`` has the first lines. Commas and tabs count only if every one of them has as many as the first.
    """
    lines = [line for line in head[:_N_SAMPLE] if line.strip()]
    if not lines:
        return None
    record = _json_object(lines[0])
    if record is not None:
        return list(record)
    suffix = Path(path).suffix.lower()
    if suffix in _DELIMITERS:
        return next(csv.reader(lines[:1], delimiter=_DELIMITERS[suffix]))
    for delimiter in "\t,":
        header, *rows = csv.reader(lines, delimiter=delimiter)
        # After a comma in prose there is a blank.
        is_prose = delimiter == "," and any(name.startswith(" ") for name in header)
        if len(header) > 1 and len(rows) > 1 and not is_prose and {len(row) for row in rows} == {len(header)}:
            return header
    return None


def read_column(lines: Iterator[str], column: str, path: str, name: str) -> Iterator[str]:
    """Yield a column of the lines of a CSV, TSV or JSON lines file; missing values are empty texts.

    The format is that of the file's name, or of the first line. ``name`` is the file in error messages.
    """
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{name} is empty; pass a table with a column {column!r}.")
    lines = itertools.chain([first], lines)
    suffix = Path(path).suffix.lower()
    if suffix in _JSON_LINES or (suffix not in _DELIMITERS and _json_object(first) is not None):
        return _read_json_lines(lines, column, name)
    return _read_delimited(lines, column, _DELIMITERS.get(suffix, "\t" if "\t" in first else ","), name)


def _read_delimited(lines: Iterator[str], column: str, delimiter: str, name: str) -> Iterator[str]:
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        header = next(reader)
        position = find_column(header, column, name)
        for row in reader:
            if len(row) != len(header) and row:
                raise ValueError(
                    f"line {reader.line_num} of {name} has {len(row)} fields, and the header {len(header)}; "
                    "put fields that contain the separator in quotation marks."
                )
            yield row[position] if row else ""
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num} of {name} cannot be read as a row of a table ({error}); write it with "
            "the csv module or pandas, or pass JSON lines."
        ) from None


def find_column(header: list[str], column: str, name: str) -> int:
    """Return the position of a column, which must be there once."""
    if header.count(column) != 1:
        problem = "no column" if column not in header else "more than one column"
        raise ValueError(f"{name} has {problem} {column!r}; its columns are {listed(header)}.")
    return header.index(column)


def _read_json_lines(lines: Iterator[str], column: str, name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            yield ""
            continue
        record = _json_object(line)
        if record is None:
            raise ValueError(
                f"line {number} of {name} is {short_repr(line)}; write one JSON object per line, such as "
                f'{{"{column}": "a text"}}.'
            )
        if column not in record:
            raise ValueError(
                f"line {number} of {name} has no {column!r}; its keys are {listed(list(record))}."
            )
        yield _text(record[column], column, f"line {number} of {name}")


def _json_object(line: str) -> dict[str, object] | None:
    try:
        record = json.loads(line) if line.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_parquet_column(path: Path, column: str) -> Iterator[str]:
    """Yield a column of a Parquet file; missing values are empty texts."""
    pa, pq = import_pyarrow("pass a CSV file")
    try:
        with pq.ParquetFile(path, **PARQUET_IN_PIECES) as file:
            find_column(file.schema_arrow.names, column, repr(str(path)))
            row = 0
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=[column]):
                for value in batch.column(column).to_pylist():
                    row += 1
                    yield _text(value, column, f"row {row} of {str(path)!r}")
    except pa.ArrowException as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error}); write it again.") from None


def import_pyarrow(alternative: str) -> tuple[Any, Any]:
    """Return pyarrow and its module of Parquet files; ``alternative`` says what to do without it."""
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            f"Parquet files need pyarrow: {install_command('parquet')}; or {alternative}."
        ) from error
    return pa, pq


def _text(value: object, column: str, place: str) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(
            f"{place} has {short_repr(value)} in {column!r}; pass a column of texts, or null for none."
        )
    return value or ""


def listed(names: Sequence[str]) -> str:
    """Return at most 20 names for a message."""
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")

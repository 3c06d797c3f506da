"""Cache of vectors on disk: one SQLite file, safe with several processes and killed processes.

A row is a key, the vector's float32 bytes and a checksum of both; a batch is one transaction. Nothing is
unpickled. A row whose checksum is wrong is ignored, and its text is encoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.encoders.base import EncodingError
from flip_sklearn.io import check_regular_file

logger = logging.getLogger(__name__)

_FORMAT = 1  # increase it whenever the meaning of keys or rows changes
BUSY_TIMEOUT = 60.0  # seconds to wait for another process's transaction
_KEYS_PER_QUERY = 500
_FLOAT = np.dtype("<f4")
_TABLE = "CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)"
# What the file holds: type, name and definition. A view, trigger or index of a stranger would run as we read.
_SCHEMA = {("table", "vectors", _TABLE), ("index", "sqlite_autoindex_vectors_1", None)}


class VectorCache:
    """Vectors by key, in the file ``embeddings.sqlite3`` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "embeddings.sqlite3"
        with self._explain_errors():
            self.is_read_only = self._is_read_only()
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                check_regular_file(self.path)
            elif not self.is_read_only:
                # SQLite would create the file without write permission for the group, whatever the umask.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666))
            # Read-only, SQLite cannot make the files that it needs to share a file with writers.
            options = "?mode=ro&immutable=1" if self.is_read_only else ""
            self._connection = sqlite3.connect(
                self.path.absolute().as_uri() + options,
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _is_read_only(self) -> bool:
        """Whether there is a complete cache that this process cannot write."""
        if not self.path.is_file() or all(os.access(path, os.W_OK) for path in (self.path, self.path.parent)):
            return False
        log = self.path.with_name(f"{self.path.name}-wal")
        return not (log.exists() and log.stat().st_size)

    def _prepare(self) -> None:
        """Create the table. In write-ahead mode readers do not wait, and partial writes are discarded."""
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                self._connection.execute("PRAGMA trusted_schema = OFF")
                schema = self._connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
                if schema and set(schema) != _SCHEMA:
                    # The database of another program is left unchanged.
                    raise sqlite3.DatabaseError("it is a database, but not a cache of embeddings")
                if self.is_read_only:
                    return
                if self._connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    self._connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # SQLite does not wait by itself for another process that is changing the mode. Extended error
                # codes have the basic code in the low byte; errors of the sqlite3 module have no code.
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                is_locked = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not is_locked or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._connection.execute("PRAGMA synchronous = FULL")  # batches survive a power failure
        self._connection.execute(_TABLE.replace("TABLE", "TABLE IF NOT EXISTS"))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def get(self, keys: Sequence[bytes]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the index in ``keys`` and the vector of each key that is stored."""
        damaged = 0
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[start : start + _KEYS_PER_QUERY]
            index_of = {key: i for i, key in enumerate(part, start)}
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector, checksum FROM vectors WHERE key IN ({marks})"
            with self._explain_errors():
                rows = self._connection.execute(query, part).fetchall()
            for key, vector, checksum in rows:
                if _is_valid(key, vector, checksum):
                    yield index_of[key], np.frombuffer(vector, _FLOAT)
                else:
                    damaged += 1
        if damaged:
            logger.warning("%d vectors in %s are damaged and are encoded again.", damaged, self.path)

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Store the vectors of a batch, all of them or none."""
        data = [row.tobytes() for row in vectors.astype(_FLOAT, copy=False)]
        rows = [(k, v, _checksum(k, v)) for k, v in zip(keys, data, strict=True)]
        with self._explain_errors(), self._connection:  # commits, or rolls back after an error
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise EncodingError(
                f"The cache {self.path} cannot be used: {error}. Set cache_dir to a writable folder on a "
                "local disk with free space; if the file is damaged, delete it."
            ) from error


def compute_keys(settings: dict[str, Any], contents: Iterable[bytes]) -> list[bytes]:
    """Return the SHA-256 of the canonical JSON of the settings and each content."""
    prefix = json.dumps([_FORMAT, settings], sort_keys=True, ensure_ascii=True)
    # JSON has no zero byte, so settings and content cannot be confused.
    common = hashlib.sha256(prefix.encode() + b"\0")
    keys = []
    for content in contents:
        digest = common.copy()
        digest.update(content)
        keys.append(digest.digest())
    return keys


def _is_valid(key: bytes, vector: Any, checksum: Any) -> bool:
    """Whether a row is as it was written, and finite. SQLite accepts a value of any type in any column."""
    is_vector = isinstance(vector, bytes) and len(vector) > 0 and len(vector) % _FLOAT.itemsize == 0
    is_intact = is_vector and _checksum(key, vector) == checksum
    return is_intact and bool(np.isfinite(np.frombuffer(vector, _FLOAT)).all())


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(key + vector, digest_size=16).digest()

"""Vectors on disk: one SQLite file, safe under several processes and under kill -9.

A row is a key, the vector's float32 bytes and a checksum over both; a batch is one transaction. Nothing is
ever unpickled. A row whose checksum is wrong is no vector: it is encoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

_FORMAT = 1  # raise it whenever keys or rows mean something else
BUSY_TIMEOUT = 60.0  # seconds to wait for another process's transaction
_AT_ONCE = 500  # keys a query
_FLOAT = np.dtype("<f4")


class VectorCache:
    """Vectors by key, in ``embeddings.sqlite3`` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "embeddings.sqlite3"
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        """Write-ahead log: readers do not wait for writers, and what is half written is no part of it."""
        until = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                self._refuse_others()
                if self._connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    self._connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # This one statement does not wait for another process that is changing the mode.
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self._connection.execute("PRAGMA synchronous = FULL")  # paid for: kept through a power cut
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS vectors "
            "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)"
        )

    def _refuse_others(self) -> None:
        """Leave another program's database as it is."""
        tables = self._connection.execute("SELECT name FROM sqlite_master").fetchall()
        columns = self._connection.execute("PRAGMA table_info(vectors)").fetchall()
        if tables and [column[1] for column in columns] != ["key", "vector", "checksum"]:
            raise sqlite3.DatabaseError("it is a database, but no cache of embeddings")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def get(self, keys: Sequence[bytes]) -> Iterator[tuple[int, np.ndarray]]:
        """Places in ``keys`` whose vector is there, and the vector."""
        damaged = 0
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            places = {key: start + place for place, key in enumerate(part)}
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector, checksum FROM vectors WHERE key IN ({marks})"
            with self._explained():
                rows = self._connection.execute(query, part).fetchall()
            for key, vector, checksum in rows:
                if _is_whole(key, vector, checksum):
                    yield places[key], np.frombuffer(vector, _FLOAT)
                else:
                    damaged += 1
        if damaged:
            logger.warning(
                "%d vectors in %s are damaged and are encoded again.", damaged, self.path
            )

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Store the vectors of a batch, all or none."""
        data = [row.tobytes() for row in vectors.astype(_FLOAT, copy=False)]
        rows = [(k, v, _checksum(k, v)) for k, v in zip(keys, data, strict=True)]
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows
                )
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RuntimeError(
                f"The cache {self.path} cannot be used: {error}. Set cache_dir to a folder on a local disk "
                "with room that can be written; if the file is damaged, delete it."
            ) from error


def keys_of(identity: dict[str, Any], contents: Iterable[bytes]) -> list[bytes]:
    """SHA-256 over the canonical JSON of an identity, and each content."""
    words = json.dumps([_FORMAT, identity], sort_keys=True, ensure_ascii=True)
    start = hashlib.sha256(
        words.encode() + b"\0"
    )  # JSON holds no zero byte, so the two cannot run together
    keys = []
    for content in contents:
        digest = start.copy()
        digest.update(content)
        keys.append(digest.digest())
    return keys


def _is_whole(key: bytes, vector: Any, checksum: Any) -> bool:
    """Whether a row is as it was written; SQLite holds a value of any type in any column."""
    return (
        isinstance(vector, bytes)
        and len(vector) > 0
        and len(vector) % _FLOAT.itemsize == 0
        and _checksum(key, vector) == checksum
    )


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(key + vector, digest_size=16).digest()

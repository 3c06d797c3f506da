"""The cache on disk with killed processes, several processes and damaged files."""

from __future__ import annotations

import functools
import logging
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.encoders import EncodingError, SentenceEncoder, batching
from flip_sklearn.encoders.cache import VectorCache, _checksum, compute_keys
from tests.helpers.processes import Child, in_process, note

BATCH = 5
TEXTS = [f"text {i}" for i in range(6000)]


def vectors(texts: list[str]) -> np.ndarray:
    """64 numbers per text that depend on all of it and are exact in float32."""
    codes = np.array([sum(ord(c) * 31**i for i, c in enumerate(t)) % 65521 for t in texts])
    return (codes[:, None] * np.arange(1, 65)) % 65521


def logged_vectors(texts: list[str], log: Path) -> np.ndarray:
    """As ``vectors``; each text is first written to a log, like a request that is paid for."""
    with log.open("a") as file:
        file.write("".join(f"{text}\n" for text in texts))
    return vectors(texts)


def encoder(folder: Path, **parameters: object) -> SentenceEncoder:
    options = {"cache_dir": folder / "cache", "revision": "1", "batch_size": BATCH, **parameters}
    return SentenceEncoder(**{"model": functools.partial(logged_vectors, log=folder / "log"), **options})


def calls(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def stored(folder: Path) -> dict[bytes, bytes]:
    """Return all rows, read with sqlite3 alone."""
    if not (folder / "cache" / "embeddings.sqlite3").exists():
        return {}
    with sqlite3.connect(folder / "cache" / "embeddings.sqlite3") as connection:
        if not connection.execute("SELECT name FROM sqlite_master").fetchall():
            return {}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0]: row[1] for row in connection.execute("SELECT * FROM vectors")}


def count_checked_rows(folder: Path, texts: list[str] = TEXTS) -> int:
    """Check that every row is the vector of its text; return the number of rows."""
    keys = compute_keys({"backend": "callable", "revision": "1"}, (text.encode() for text in texts))
    expected = dict(zip(keys, vectors(texts).astype("<f4"), strict=True))
    rows = stored(folder)
    for key, vector in rows.items():
        assert expected[key].tobytes() == vector
    return len(rows)


def encode_with_note(folder: Path, texts: list[str]) -> np.ndarray:
    """Encode, and send a note to the parent process with the first batch."""
    notes = iter(["begins"])

    def noting(texts: list[str]) -> np.ndarray:
        for word in notes:
            note(word)
        return logged_vectors(texts, folder / "log")

    return encoder(folder, model=noting).transform(texts)


# --- Killed processes ------------------------------------------------------------------------


def test_killed_processes_lose_at_most_one_batch(tmp_path: Path) -> None:
    rng = random.Random(0)
    kills, cut, before = 0, 0, 0
    for end in range(240, 6001, 240):
        with Child(encode_with_note, tmp_path, TEXTS[:end]) as child:
            assert child.receive() == ("note", "begins")
            time.sleep(rng.uniform(0, 0.2) ** 2)
            kills += child.kill()
        rows = count_checked_rows(tmp_path)
        assert rows >= before  # stored vectors stay
        cut, before = cut + (rows < end), rows
    assert cut >= 3
    np.testing.assert_array_equal(encoder(tmp_path).transform(TEXTS), vectors(TEXTS))
    assert count_checked_rows(tmp_path) == len(TEXTS)
    assert len(set(calls(tmp_path))) == len(TEXTS)
    assert len(calls(tmp_path)) <= len(TEXTS) + kills * BATCH  # only the batch in flight
    before = len(calls(tmp_path))
    np.testing.assert_array_equal(encoder(tmp_path).transform(TEXTS[::-1]), vectors(TEXTS[::-1]))
    assert len(calls(tmp_path)) == before


def naive(folder: Path) -> None:
    """An unsafe cache: all vectors are written over the old file each time."""
    note("begins")
    for end in range(200, len(TEXTS), BATCH):
        np.save(folder / "naive.npy", vectors(TEXTS[:end]))


def test_overwritten_file_is_damaged_by_kills(tmp_path: Path) -> None:
    """Negative control: processes are killed while they write."""
    rng, broken = random.Random(1), 0
    for _ in range(60):
        with Child(naive, tmp_path) as child:
            child.receive()
            time.sleep(rng.uniform(0.002, 0.05))
            child.kill()
        try:
            np.load(tmp_path / "naive.npy")
        except (EOFError, ValueError, FileNotFoundError):
            broken += 1
            break
    assert broken


def test_error_keeps_earlier_batches(tmp_path: Path) -> None:
    def failing(texts: list[str]) -> np.ndarray:
        if "text 12" in texts:
            raise TimeoutError
        return logged_vectors(texts, tmp_path / "log")

    with pytest.raises(TimeoutError):
        encoder(tmp_path, model=failing).transform(TEXTS[:20])
    assert calls(tmp_path) == TEXTS[:10]
    np.testing.assert_array_equal(encoder(tmp_path).transform(TEXTS[:20]), vectors(TEXTS[:20]))
    assert calls(tmp_path) == TEXTS[:20]


# --- Several processes -----------------------------------------------------------------------


def test_four_processes_at_once(tmp_path: Path) -> None:
    """All of them create the file, and write equal and different texts at the same time."""
    parts = [TEXTS[:300], TEXTS[:300][::-1], TEXTS[200:400], TEXTS[300:600]]
    children = [Child(encode_with_note, tmp_path, part) for part in parts]
    try:
        for child, part in zip(children, parts, strict=True):
            np.testing.assert_array_equal(child.result(), vectors(part))
    finally:
        for child in children:
            child.kill()
    assert count_checked_rows(tmp_path) == 600


def hold(folder: Path) -> None:
    connection = sqlite3.connect(folder / "cache" / "embeddings.sqlite3", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    note("holds")
    time.sleep(0.3)
    connection.execute("COMMIT")


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    encoder(tmp_path).transform(TEXTS[:5])
    with Child(hold, tmp_path) as child:
        child.receive()
        encoder(tmp_path).transform(TEXTS[:10])
        child.result()
    assert count_checked_rows(tmp_path) == 10


def test_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    encoder(tmp_path).transform(TEXTS[:5])
    with Child(hold, tmp_path) as child:
        child.receive()
        assert child.kill()
    encoder(tmp_path).transform(TEXTS[:10])
    assert count_checked_rows(tmp_path) == 10


# --- Damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["vector", "checksum", "key"])
def test_changed_byte_is_detected(tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder(tmp_path).transform(TEXTS[:20])
    with sqlite3.connect(tmp_path / "cache" / "embeddings.sqlite3") as connection:
        row, value = connection.execute(f"SELECT rowid, {column} FROM vectors").fetchone()
        damaged = bytes([value[0] ^ 1]) + value[1:]
        connection.execute(f"UPDATE vectors SET {column} = ? WHERE rowid = ?", (damaged, row))
    np.testing.assert_array_equal(encoder(tmp_path).transform(TEXTS[:20]), vectors(TEXTS[:20]))
    assert len(calls(tmp_path)) == 21
    assert ("1 vectors" in caplog.text) == (column != "key")
    encoder(tmp_path).transform(TEXTS[:20])
    assert len(calls(tmp_path)) == 21  # the row has been replaced


def test_vector_of_another_key_is_detected(tmp_path: Path) -> None:
    """The checksum includes the key."""
    encoder(tmp_path).transform(TEXTS[:2])
    with sqlite3.connect(tmp_path / "cache" / "embeddings.sqlite3") as connection:
        (first, *one), (second, *two) = connection.execute("SELECT * FROM vectors").fetchall()
        update = "UPDATE vectors SET vector = ?, checksum = ? WHERE key = ?"
        connection.execute(update, (*one, second))
        connection.execute(update, (*two, first))
    np.testing.assert_array_equal(encoder(tmp_path).transform(TEXTS[:2]), vectors(TEXTS[:2]))


@pytest.mark.parametrize("content", [b"no database" * 500, os.urandom(8192)], ids=["text", "bytes"])
def test_other_files_are_refused_and_not_changed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "embeddings.sqlite3"
    path.write_bytes(content)
    with pytest.raises(EncodingError, match=r"embeddings\.sqlite3 cannot be used: .*delete it"):
        encoder(tmp_path).transform(TEXTS)
    assert path.read_bytes() == content
    assert not calls(tmp_path)


@pytest.mark.parametrize(
    "table", ["vectors (id, embedding)", "notes (key, vector, checksum)", "vectors (key)"]
)
def test_other_databases_are_refused_and_not_changed(tmp_path: Path, table: str) -> None:
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "embeddings.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE {table}")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    with pytest.raises(EncodingError, match=r"not a cache of embeddings\. Set cache_dir"):
        encoder(tmp_path).transform(TEXTS)
    assert path.read_bytes() == content
    assert not calls(tmp_path)


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TRIGGER t BEFORE INSERT ON vectors BEGIN DELETE FROM vectors; END",
        "CREATE VIEW v AS SELECT * FROM vectors",
        "CREATE TABLE other (a)",
        "CREATE INDEX i ON vectors (hex(vector))",
        "ALTER TABLE vectors ADD COLUMN more",
        "ALTER TABLE vectors ADD COLUMN more AS (zeroblob(100))",
        "DROP TABLE vectors; CREATE VIEW vectors AS SELECT zeroblob(32) key, x'00' vector, x'00' checksum",
        "DROP TABLE vectors; CREATE TABLE vectors (key, vector, checksum CHECK (randomblob(9) IS NOT NULL))",
    ],
)
def test_a_strangers_schema_is_refused_and_not_changed(tmp_path: Path, statements: str) -> None:
    encoder(tmp_path).transform(TEXTS[:5])
    path = tmp_path / "cache" / "embeddings.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
    before = path.read_bytes()
    with pytest.raises(EncodingError, match="not a cache of embeddings"):
        encoder(tmp_path).transform(TEXTS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_cache_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cache" / "embeddings.sqlite3"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(EncodingError, match="is not a file"):
        encoder(tmp_path).transform(TEXTS)


NOT_FINITE = [np.array([1, value] * 32, "<f4").tobytes() for value in (np.nan, np.inf, -np.inf)]


@pytest.mark.parametrize("value", [b"", b"123456", "text", 7, 1.5, *NOT_FINITE])
def test_invalid_value_is_encoded_again(tmp_path: Path, value: object) -> None:
    """Even if its checksum is right."""
    encoder(tmp_path).transform(TEXTS[:2])
    with sqlite3.connect(tmp_path / "cache" / "embeddings.sqlite3") as connection:
        for (key,) in connection.execute("SELECT key FROM vectors").fetchall():
            checksum = _checksum(key, value) if isinstance(value, bytes) else value
            update = "UPDATE vectors SET vector = ?, checksum = ? WHERE key = ?"
            connection.execute(update, (value, checksum, key))
    np.testing.assert_array_equal(encoder(tmp_path).transform(TEXTS[:2]), vectors(TEXTS[:2]))
    assert len(calls(tmp_path)) == 4


def fill(folder: Path) -> str:
    """Encode with a limit on the size of files, as on a full disk; return the error message."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    with pytest.raises(EncodingError) as caught:
        encoder(folder).transform(TEXTS)
    return str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_full_disk_is_an_error_and_loses_one_batch(tmp_path: Path) -> None:
    message = in_process(fill, tmp_path)
    assert "Set cache_dir to a writable folder on a local disk with free space" in message
    rows, before = count_checked_rows(tmp_path), len(calls(tmp_path))
    assert 0 < rows < len(TEXTS)
    assert before <= rows + BATCH
    np.testing.assert_array_equal(encoder(tmp_path).transform(TEXTS), vectors(TEXTS))
    assert len(calls(tmp_path)) == before + len(TEXTS) - rows


def test_truncated_file_gives_no_wrong_vector(tmp_path: Path) -> None:
    encoder(tmp_path).transform(TEXTS[:200])
    path = tmp_path / "cache" / "embeddings.sqlite3"
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").mkdir()
        path.write_bytes(whole[: int(share * len(whole))])
        try:
            X = encoder(tmp_path).transform(TEXTS[:200])
        except EncodingError as error:
            assert "if the file is damaged, delete it" in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(X, vectors(TEXTS[:200]))


def test_transactions_are_synchronous(tmp_path: Path) -> None:
    """SQLite waits for the disk with each transaction, so that batches survive a power failure."""
    with closing(VectorCache(tmp_path)) as cache:
        assert cache._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert cache._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_unusable_folder_is_an_error_before_encoding(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match=r"cache_dir=.* is a file"):
        encoder(tmp_path).transform(TEXTS)
    below = tmp_path / "cache" / "below"
    with pytest.raises(EncodingError, match="Set cache_dir to a writable folder on a local disk"):
        encoder(tmp_path, cache_dir=below).transform(TEXTS)
    assert not calls(tmp_path)


# --- Keys ------------------------------------------------------------------------------------


def test_key_contains_the_settings_of_a_vector(tmp_path: Path) -> None:
    """The revision is part of the key; truncation and normalization are not."""
    first = encoder(tmp_path, truncate_dim=3, normalize=True).transform(TEXTS[:4])
    assert len(calls(tmp_path)) == 4
    whole = encoder(tmp_path, batch_size=1).transform(TEXTS[:4])
    assert len(calls(tmp_path)) == 4
    np.testing.assert_allclose(
        first, whole[:, :3] / np.linalg.norm(whole[:, :3], axis=1, keepdims=True), rtol=1e-6
    )
    encoder(tmp_path, revision="2").transform(TEXTS[:4])
    assert len(calls(tmp_path)) == 8
    for near in ("text 0 ", "Text 0", "text\u00a00"):
        encoder(tmp_path).transform([near])
    assert len(calls(tmp_path)) == 11


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), min_size=2, unique=True))
def test_different_settings_or_texts_have_different_keys(pairs: list[tuple[str, str]]) -> None:
    keys = {compute_keys({"revision": a}, [b.encode()])[0] for a, b in pairs}
    assert len(keys) == len(pairs)


def test_keys_do_not_change_between_versions() -> None:
    """A change would make existing caches useless."""
    assert compute_keys({"revision": "1", "backend": "callable"}, [b"text"])[0].hex() == (
        "14fce840953f1c99c42096cc52820c2c58ad915ec67cb525c39b9d4b5e96a5e9"
    )


def test_callable_needs_a_revision_to_be_cached(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set revision to a name of your choice"):
        encoder(tmp_path, revision=None).transform(TEXTS)
    assert not calls(tmp_path)


def test_vectors_of_different_lengths_are_an_error(tmp_path: Path) -> None:
    encoder(tmp_path).transform(TEXTS[:5])
    with pytest.raises(EncodingError, match=r"3 dimensions, and 64 before .* in batch 0 "):
        encoder(tmp_path, model=lambda t: np.ones((len(t), 3))).transform(TEXTS[:7])
    assert count_checked_rows(tmp_path) == 5
    encoder(tmp_path, model=lambda t: np.ones((len(t), 3))).transform(["other"])
    with pytest.raises(EncodingError, match="vectors of different lengths"):
        encoder(tmp_path).transform(["other", *TEXTS[:5]])


def test_nothing_is_unpickled() -> None:
    source = Path(VectorCache.__init__.__code__.co_filename).read_text()
    assert "pickle" not in source.replace("unpickled", "")


def test_progress_starts_at_the_number_of_cached_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_DELAY", 0)
    encoder(tmp_path).transform(TEXTS[:15])
    encoder(tmp_path, verbose=1).transform(TEXTS[:20])
    err = capsys.readouterr().err
    assert "15/20" in err
    assert "20/20" in err


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    encoder(tmp_path, cache_dir="~/cache").transform(TEXTS[:5])
    assert count_checked_rows(tmp_path) == 5


def many(folder: Path) -> int:
    encoder(folder, batch_size=500).transform([f"text {i}" for i in range(3000)])
    return len(calls(folder))


def test_more_texts_than_fit_in_a_query(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert in_process(many, tmp_path) == 3000
        assert many(tmp_path) == 3000
    assert not caplog.records


# --- Permissions -----------------------------------------------------------------------------


def read_as_nobody(folder: Path, texts: list[str]) -> tuple[np.ndarray, str]:
    """Encode without write permission; return the vectors of the cache and the error for another text."""
    if os.getuid() == 0:
        os.setuid(65534)
    X = encoder(folder).transform(texts)
    try:
        encoder(folder).transform([*texts, "new", "newer"])
    except EncodingError as error:
        return X, str(error)
    return X, ""


def test_read_only_cache_with_all_texts_is_read() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        encoder(folder).transform(TEXTS[:9])
        for path in (folder / "cache" / "embeddings.sqlite3", folder / "log"):
            path.chmod(0o444)
        (folder / "cache").chmod(0o555)
        folder.chmod(0o555)
        X, error = in_process(read_as_nobody, folder, TEXTS[:9])
        np.testing.assert_array_equal(X, vectors(TEXTS[:9]))
        assert "cannot be written, and lacks 2 of 11 texts" in error
        assert len(calls(folder)) == 9
    finally:
        folder.chmod(0o755)
        (folder / "cache").chmod(0o755)
        shutil.rmtree(folder)


def fill_with_umask(folder: Path, umask: int) -> None:
    os.umask(umask)
    encoder(folder).transform(TEXTS[:5])


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_cache_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    in_process(fill_with_umask, tmp_path, umask)
    for path in (tmp_path / "cache").iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask

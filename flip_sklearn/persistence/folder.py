"""Reading a stored model from a folder, and replacing the model of a folder by another one.

The digests in config.json say which files belong to the model. A file is looked for under its own name, and
under a name with the beginning of its digest, such as model-0123456789abcdef.safetensors. A model is replaced
in this order:

1. The new files are written under their names with a digest; the old model is not touched.
2. config.json is replaced. This is the switch: before it a reader finds the old model, after it the new.
3. The new files get their own names, for other code. If the words differ, vocab.json is deleted first; it
   comes last, so that other code, which checks no digests, finds no pair of files of two models.
4. What is left of older models is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.estimation.memory import free_memory
from flip_sklearn.io import (
    check_regular_file,
    fsync_directory,
    read_json,
    staging_directory,
    sweep_staging,
    write_bytes,
)
from flip_sklearn.persistence.checkpoints import advice, find_checkpoint
from flip_sklearn.persistence.checks import (
    check_metadata,
    check_tensors,
    check_vocabulary,
    read_extra_arrays,
    unique_keys,
)
from flip_sklearn.persistence.format import (
    CARD_FILE,
    CONFIG_FILE,
    ENCODING_FILE,
    EXTRA_FILE,
    FORMAT,
    HASHED_FILES,
    MAX_BYTES_PER_WORD,
    MAX_CONFIG_BYTES,
    MODEL_FILE,
    MODEL_FILES,
    SECTION,
    VOCABULARY_FILE,
    ModelFiles,
    digest_name,
    max_vocabulary_bytes,
)
from flip_sklearn.persistence.ownership import check_replaceable, is_encoding_file, is_unedited_card
from flip_sklearn.persistence.tensors import describe, read_arrays, write_arrays

STAGING = ".flip-sklearn"  # name of the staging directory
RETRY_SECONDS = 30.0  # while another process replaces the model
REPLACED_FILE = re.compile(r"(model|flip_sklearn|vocab|text)-[0-9a-f]{16}\.(safetensors|json)")


def read_folder(folder: Path) -> ModelFiles:
    """Read and check a stored model. Nothing is executed and nothing written."""
    if not folder.is_dir():
        problem = "is a file; pass its folder" if folder.exists() else "does not exist"
        raise ValueError(f"the model folder {str(folder)!r} {problem}.")
    deadline = time.monotonic() + RETRY_SECONDS
    while time.monotonic() < deadline:
        with ExitStack() as open_files:
            # Every file is opened by name several times. While these handles are open, the system cannot
            # give an inode number to another file: equal identities mean that no file was replaced. A file
            # whose name has a digest is only ever renamed or removed, which changes one of these, too.
            before = _identify_files(folder, open_files)
            try:
                files = _read_files(folder)
            except (ValueError, OSError):
                if _identify_files(folder, open_files) == before:
                    raise
                continue
            if _identify_files(folder, open_files) == before:
                return files
    raise ValueError(f"another process keeps replacing the model in {str(folder)!r}; try again.")


def _read_files(folder: Path) -> ModelFiles:
    metadata = _read_metadata(folder)
    paths = _find_files(folder, None if metadata is None else metadata["files"])
    with _errors_name(paths[MODEL_FILE]):
        names, (n_words, d) = check_tensors(describe(paths[MODEL_FILE]))
    # The words come first: a file of tensors cannot claim more rows than there are words.
    with _errors_name(paths[VOCABULARY_FILE]):
        content = read_json(paths[VOCABULARY_FILE], max_vocabulary_bytes(n_words), unique_keys)
        words = check_vocabulary(content, n_words)
    with _errors_name(paths[MODEL_FILE]):
        if metadata is not None:
            names.pop("E", None)  # the product of two of the extra arrays
        arrays = read_arrays(paths[MODEL_FILE], names.values())
    extra_arrays: dict[str, np.ndarray] = {}
    if metadata is not None:
        with _errors_name(paths[EXTRA_FILE]):
            extra_arrays = read_extra_arrays(paths[EXTRA_FILE], n_words, d, factorized="E1" in names)
    tensors = {name: arrays[stored_name] for name, stored_name in names.items()}
    path = paths[MODEL_FILE]
    is_checkpoint = metadata is None and path != folder / MODEL_FILE
    checkpoint = path.relative_to(folder).as_posix() if is_checkpoint else None
    return ModelFiles(tensors, words, metadata, extra_arrays, checkpoint)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Turn an error in reading a file into a ValueError that names the file."""
    try:
        yield
    # torch raises a RuntimeError if there is not enough memory.
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read: {error}. Download or save the folder again."
        ) from error


def _read_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the package's section of config.json; None in a folder of other code."""
    path = folder / CONFIG_FILE
    if not path.exists() and not (folder / EXTRA_FILE).exists():
        return None  # the published code reads a folder without config.json, too
    _check_file(path)
    with _errors_name(path):
        config = read_json(path, MAX_CONFIG_BYTES)
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}, not an object")
        metadata: dict[str, Any] | None = config.get(SECTION)
        if metadata is not None:
            check_metadata(metadata)
    return metadata


def _identify_files(folder: Path, open_files: ExitStack) -> list[tuple[int, ...]]:
    """Open the files of a model, which ``open_files`` closes, and return what identifies them."""
    identities: list[tuple[int, ...]] = []
    checkpoint = find_checkpoint(folder)
    for path in [folder / name for name in MODEL_FILES] + ([checkpoint] if checkpoint else []):
        with suppress(FileNotFoundError):
            if path.is_file():  # opening a pipe would block
                handle = os.open(path, os.O_RDONLY)
                open_files.callback(os.close, handle)
                status = os.fstat(handle)
                identities.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return identities


def _check_file(path: Path) -> int:
    """Check that a path is a file, or a link to one, that fits in memory; return its size.

    It is checked before the file is hashed, because a file without content may claim any size.
    """
    try:
        size = check_regular_file(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise ValueError(
            f"{path.name} is missing in {str(path.parent)!r}; a stored model has {MODEL_FILE} and "
            f"{VOCABULARY_FILE}, one of flip-sklearn also {EXTRA_FILE} and {CONFIG_FILE}. Download or save "
            f"it again.{advice(path.parent)}"
        ) from error
    free = free_memory()
    if size > free:
        raise ValueError(
            f"{str(path)!r} has {size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free."
        )
    return size


def _find_files(folder: Path, digests: dict[str, Any] | None) -> dict[str, Path]:
    """Return the path of each file: those with the digests in config.json, if there are any."""
    if digests is None:
        tensors = find_checkpoint(folder) or folder / MODEL_FILE
        paths = {MODEL_FILE: tensors, VOCABULARY_FILE: folder / VOCABULARY_FILE}
        for path in paths.values():
            _check_file(path)
        return paths
    return {name: _find_file(folder, name, digests[name]) for name in HASHED_FILES}


def _find_file(folder: Path, name: str, expected: dict[str, Any]) -> Path:
    renamed_later = folder / digest_name(name, expected["sha256"])
    for path in (folder / name, renamed_later):
        # A link could lead out of the folder, and this package makes none.
        if not path.exists() or (path == renamed_later and path.is_symlink()):
            continue
        if _check_file(path) == expected["bytes"] and compute_digest(path) == expected:
            return path
    _check_file(folder / name)
    raise ValueError(
        f"{name} in {str(folder)!r} does not match its digest in {CONFIG_FILE}: it was truncated or edited, "
        f"or belongs to another model. Download or save the model again; or delete {SECTION!r} from "
        f"{CONFIG_FILE} to read E1, E2 and b alone, as other code does."
    )


def compute_digest(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, as config.json holds them."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_folder(folder: Path, files: ModelFiles, card: str, text: dict[str, Any] | None = None) -> None:
    """Write a model into a folder, which is created if it does not exist.

    ``text`` is the content of text.json. A process killed at any time leaves the old model or the new one. A
    model card that a person has edited is not replaced.
    """
    check_replaceable(folder, writes_text=text is not None)
    vocabulary = _encode_vocabulary(files.words)
    folder.mkdir(parents=True, exist_ok=True)
    sweep_staging(folder, ".text")  # killed processes of earlier versions wrote text.json by itself
    with staging_directory(folder, STAGING) as staging:
        write_bytes(staging / VOCABULARY_FILE, vocabulary)
        for name, arrays in ((MODEL_FILE, files.tensors), (EXTRA_FILE, files.extra_arrays)):
            write_arrays(staging / name, arrays)
            # safetensors writes files that only their owner may read.
            shutil.copymode(staging / VOCABULARY_FILE, staging / name)
        digests = {name: compute_digest(staging / name) for name in HASHED_FILES}
        new_names = {name: digest_name(name, digests[name]["sha256"]) for name in HASHED_FILES}
        config = _encode_config(files, digests)
        write_bytes(staging / CONFIG_FILE, config)
        if text is not None:
            of = hashlib.sha256(config).hexdigest()
            new_names = {ENCODING_FILE: digest_name(ENCODING_FILE, of), **new_names}
            content = json.dumps({**text, "of": of}, indent=2, ensure_ascii=False)
            write_bytes(staging / ENCODING_FILE, f"{content}\n".encode())
        write_bytes(staging / CARD_FILE, card.encode())
        with _lock(folder) as locked:
            old_words = folder / VOCABULARY_FILE
            same_words = old_words.is_file() and compute_digest(old_words) == digests[VOCABULARY_FILE]
            for name, new_name in new_names.items():
                os.replace(staging / name, folder / new_name)
            fsync_directory(folder)
            os.replace(staging / CONFIG_FILE, folder / CONFIG_FILE)
            fsync_directory(folder)
            if not same_words:
                old_words.unlink(missing_ok=True)
            for name, new_name in new_names.items():
                os.replace(folder / new_name, folder / name)
            if not (folder / CARD_FILE).exists() or is_unedited_card(folder / CARD_FILE):
                os.replace(staging / CARD_FILE, folder / CARD_FILE)
            if text is None and is_encoding_file(folder / ENCODING_FILE):
                (folder / ENCODING_FILE).unlink()  # of the old model
            if locked:
                _remove_replaced_files(folder)
            fsync_directory(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Wait until no other process writes into the folder; yield False where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:  # some network file systems
            locked = False
        yield locked
        if locked:  # a forked process may have inherited the handle, which holds the lock
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _remove_replaced_files(folder: Path) -> None:
    """Remove files that killed processes have left under names with a digest."""
    for path in folder.iterdir():
        if REPLACED_FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _encode_vocabulary(words: list[str]) -> bytes:
    rows = {word: row for row, word in enumerate(words)}
    try:
        content = json.dumps(rows, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"vocabulary has a word that is not valid text ({error}); a file cannot hold it, replace it."
        ) from error
    if len(content) > max_vocabulary_bytes(len(words)):
        raise ValueError(
            f"vocabulary has words of {len(content) / len(words):.0f} bytes on average; a stored model may "
            f"have {MAX_BYTES_PER_WORD}. Use shorter words, or pickle the model."
        )
    return content


def _encode_config(files: ModelFiles, digests: dict[str, Any]) -> bytes:
    rank = files.tensors["E1"].shape[1] if "E1" in files.tensors else None
    config = {
        "model_type": "LoLM" if rank is None else "FactLoLM",  # class names of the published code
        "vocab_size": len(files.words),
        "embedding_dim": len(files.extra_arrays["embedding_mean"]),
        "rank": rank,
        SECTION: {"format": FORMAT, **(files.metadata or {}), "files": digests},
    }
    content = f"{json.dumps(config, indent=2, allow_nan=False)}\n".encode()
    if len(content) > MAX_CONFIG_BYTES:
        raise ValueError(
            f"{CONFIG_FILE} would have {len(content)} bytes; a stored model may have {MAX_CONFIG_BYTES}. Use "
            "a shorter trained_on, shorter names of the columns of X, or pickle the model."
        )
    return content

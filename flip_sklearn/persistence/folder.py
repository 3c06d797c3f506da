"""Reading a stored model from a folder, and replacing the files of a folder by those of a model.

Files are replaced in this order: config.json is deleted, flip_sklearn.safetensors is moved into place, then
the others, config.json last. A folder with flip_sklearn.safetensors but no config.json is therefore
incomplete; with both, the digests in config.json tell whether the files belong together.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.io import fsync_directory, staging_directory, write_bytes
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
    max_vocabulary_bytes,
)
from flip_sklearn.persistence.tensors import describe, read_arrays, write_arrays

STAGING = ".flip-sklearn"  # name of the staging directory
READ_ATTEMPTS = 5  # while another process replaces the files


def read_folder(folder: Path) -> ModelFiles:
    """Read and check a stored model. Nothing is executed and nothing written."""
    if not folder.is_dir():
        problem = "is a file; pass its folder" if folder.exists() else "does not exist"
        raise ValueError(f"the model folder {str(folder)!r} {problem}.")
    for _ in range(READ_ATTEMPTS):
        for name in (MODEL_FILE, VOCABULARY_FILE):
            _check_regular_file(folder / name)
        with ExitStack() as open_files:
            # Every file is opened by name several times. While these handles are open, the system cannot
            # give an inode number to another file: equal identities mean that no file was replaced.
            before = _identify_files(folder, open_files)
            try:
                files = _read_files(folder)
            except (ValueError, OSError):
                if _identify_files(folder, open_files) == before:
                    raise
                continue
            if _identify_files(folder, open_files) == before:
                return files
    raise ValueError(f"another process is replacing the model in {str(folder)!r}; try again.")


def _read_files(folder: Path) -> ModelFiles:
    metadata = _read_metadata(folder)
    if metadata is not None:
        _check_digests(folder, metadata["files"])
    with _errors_name(folder / MODEL_FILE):
        names, (n_words, d) = check_tensors(describe(folder / MODEL_FILE))
        if metadata is not None:
            names.pop("E", None)  # the product of two of the extra arrays
        arrays = read_arrays(folder / MODEL_FILE, names.values())
    with _errors_name(folder / VOCABULARY_FILE):
        text = _read_bytes(folder / VOCABULARY_FILE, max_vocabulary_bytes(n_words))
        words = check_vocabulary(json.loads(text, object_pairs_hook=unique_keys), n_words)
    extra_arrays: dict[str, np.ndarray] = {}
    if metadata is not None:
        with _errors_name(folder / EXTRA_FILE):
            extra_arrays = read_extra_arrays(folder / EXTRA_FILE, n_words, d, factorized="E1" in names)
    tensors = {name: arrays[stored_name] for name, stored_name in names.items()}
    return ModelFiles(tensors, words, metadata, extra_arrays)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Turn an error in reading a file into a ValueError that names the file."""
    try:
        yield
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(
            f"{str(path)!r} cannot be read: {reason}. Download or save the folder again."
        ) from error


def _read_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the package's section of config.json; None in a folder of other code."""
    path = folder / CONFIG_FILE
    if not path.exists() and not (folder / EXTRA_FILE).exists():
        return None  # the published code reads a folder without config.json, too
    _check_regular_file(path)
    with _errors_name(path):
        config = json.loads(_read_bytes(path, MAX_CONFIG_BYTES))
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}, not an object")
        metadata: dict[str, Any] | None = config.get(SECTION)
        if metadata is not None:
            check_metadata(metadata)
    return metadata


def _identify_files(folder: Path, open_files: ExitStack) -> list[tuple[int, ...]]:
    """Open the files of a model, which ``open_files`` closes, and return what identifies them."""
    identities: list[tuple[int, ...]] = []
    for path in (folder / name for name in MODEL_FILES):
        with suppress(FileNotFoundError):
            if path.is_file():  # opening a pipe would block
                handle = os.open(path, os.O_RDONLY)
                open_files.callback(os.close, handle)
                status = os.fstat(handle)
                identities.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return identities


def _check_regular_file(path: Path) -> None:
    """Check that a path is a file or a link to one; reading a pipe would block."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path.name} is missing in {str(path.parent)!r}; a stored model has {MODEL_FILE} and "
            f"{VOCABULARY_FILE}, one of flip-sklearn also {EXTRA_FILE} and {CONFIG_FILE}. Download or save "
            "it again."
        ) from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{str(path)!r} is not a file.")


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is longer than the {max_bytes} bytes that are allowed")
    return content


def _check_digests(folder: Path, expected: dict[str, Any]) -> None:
    """Check that the files are those with which config.json was written."""
    _check_regular_file(folder / EXTRA_FILE)
    for name in HASHED_FILES:
        if compute_digest(folder / name) != expected[name]:
            raise ValueError(
                f"{name} in {str(folder)!r} does not match its digest in {CONFIG_FILE}: it was truncated or "
                f"edited, or belongs to another model. Download or save the model again; or delete "
                f"{SECTION!r} from {CONFIG_FILE} to read E1, E2 and b alone, as other code does."
            )


def compute_digest(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, as config.json holds them."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_folder(folder: Path, files: ModelFiles, card: str) -> None:
    """Write a model into a folder, which is created if it does not exist.

    An existing model stays whole until all new files are on the disk. A process killed at any time leaves no
    mixture of two models that could be loaded. An existing model card is not replaced.
    """
    vocabulary = _encode_vocabulary(files.words)
    folder.mkdir(parents=True, exist_ok=True)
    with staging_directory(folder, STAGING) as staging:
        write_bytes(staging / VOCABULARY_FILE, vocabulary)
        for name, arrays in ((MODEL_FILE, files.tensors), (EXTRA_FILE, files.extra_arrays)):
            write_arrays(staging / name, arrays)
            # safetensors writes files that only their owner may read.
            shutil.copymode(staging / VOCABULARY_FILE, staging / name)
        digests = {name: compute_digest(staging / name) for name in HASHED_FILES}
        write_bytes(staging / CONFIG_FILE, _encode_config(files, digests))
        write_bytes(staging / CARD_FILE, card.encode())
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        fsync_directory(folder)
        for name in HASHED_FILES:
            os.replace(staging / name, folder / name)
        if not (folder / CARD_FILE).exists():
            os.replace(staging / CARD_FILE, folder / CARD_FILE)
        fsync_directory(folder)
        os.replace(staging / CONFIG_FILE, folder / CONFIG_FILE)
        fsync_directory(folder)


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

"""The files of a stored model: the published layout, what we add to it, and how they are replaced.

    model.safetensors         E1 (V, r), E2 (r, d), b (V, 1), or for LiP E (V, d), b (V, 1): E1 E2 x + b
    vocab.json                {word: row}
    config.json               facts; under "flip_sklearn" ours, with the digests of the other files
    flip_sklearn.safetensors  what the layout has no place for, such as the mean embedding

When a folder is written, config.json goes first, flip_sklearn.safetensors comes, then the others, config.json
last. With flip_sklearn.safetensors and no config.json there is no model to load, and with both the digests
tell whether the files belong together. Other code's folders have no flip_sklearn.safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.io import fsync_directory, staging_directory, write_bytes
from flip_sklearn.persistence.tensors import describe, read_arrays, write_arrays

MODEL, VOCABULARY, CONFIG = "model.safetensors", "vocab.json", "config.json"
EXTRA_FILE, CARD = "flip_sklearn.safetensors", "README.md"
FILES = (MODEL, VOCABULARY, CONFIG, EXTRA_FILE)
ENCODING_FILE = "text.json"  # how the command line makes embeddings of text; no part of the model
HASHED_FILES = (EXTRA_FILE, MODEL, VOCABULARY)  # in the order in which they are replaced

SECTION = "flip_sklearn"  # of config.json
FORMAT = 1
PREFIX = "_orig_mod."  # torch.compile's, in checkpoints of a compiled model

FACTORS = {"F16", "BF16", "F32", "F64"}
MAX_CONFIG_BYTES = 2**22
STAGING = ".flip-sklearn"  # name of the directory in which files are made
TRIES = 5  # of reading while somebody else writes
BYTES_PER_WORD = 1000  # of vocab.json, at most, on average


@dataclass(frozen=True)
class Stored:
    """What a folder holds, checked: shapes agree, numbers are finite, every row has its own word."""

    factors: dict[str, np.ndarray]  # of model.safetensors: E1, E2, b or E, b
    words: list[str]  # by row
    about: dict[str, Any] | None  # our section of config.json; None for a model of other code
    own: dict[str, np.ndarray]  # of flip_sklearn.safetensors


def read_folder(folder: Path) -> Stored:
    """Read and check a stored model. Nothing is executed and nothing written.

    Raises
    ------
    ValueError
        If a file is missing, damaged, not what its name says, or of another model than the others.
    """
    if not folder.is_dir():
        kind = "a file; name its folder" if folder.exists() else "not there"
        raise ValueError(f"the folder of the model, {str(folder)!r}, is {kind}.")
    for _ in range(TRIES):
        for name in (MODEL, VOCABULARY):
            _check_regular(folder / name)
        # Files are read several times, by name. Held open, no number of theirs goes to another file:
        # the same numbers at the end mean that all was read of the same files.
        with ExitStack() as held:
            before = _identities(folder, held)
            try:
                stored = _read(folder)
            except (ValueError, OSError):
                if _identities(folder) == before:
                    raise
                continue
            if _identities(folder) == before:
                return stored
    raise ValueError(f"the model in {str(folder)!r} is just being replaced; try again.")


def _read(folder: Path) -> Stored:
    """The same, while nobody writes."""
    about = _read_section(folder)
    if about is not None:
        _check_digests(folder, about["files"])
    with _reading(folder / MODEL):
        names, shape = _find_factors(describe(folder / MODEL))
    with _reading(folder / VOCABULARY):
        text = _read_bytes(folder / VOCABULARY, _longest_vocabulary(shape[0]))
        words = _words_by_row(json.loads(text, object_pairs_hook=_without_repeats), shape[0])
    own: dict[str, np.ndarray] = {}
    if about is not None:
        with _reading(folder / EXTRA_FILE):
            own = _read_own(folder / EXTRA_FILE, shape, factorized="E1" in names)
        names.pop("E", None)  # the product of two matrices that are ours
    with _reading(folder / MODEL):
        arrays = read_arrays(folder / MODEL, names.values())
    return Stored({name: arrays[stored] for name, stored in names.items()}, words, about, own)


def write_folder(
    folder: Path,
    factors: dict[str, np.ndarray],
    words: list[str],
    config: dict[str, Any],
    own: dict[str, np.ndarray],
    card: str,
) -> None:
    """Write a model into a new or old folder; cut off at any moment, no mixture can be loaded.

    A model that was there stays whole until all files of the new one are on the disk. A card that was
    there stays.
    """
    try:
        vocabulary = json.dumps(
            {word: row for row, word in enumerate(words)}, ensure_ascii=False
        ).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"vocabulary has a word that is no text ({error}); a file cannot hold it, replace it."
        ) from error
    if len(vocabulary) > _longest_vocabulary(len(words)):
        raise ValueError(
            f"vocabulary has words of {len(vocabulary) / len(words):.0f} bytes on average; a stored model "
            f"takes {BYTES_PER_WORD}. Use shorter words, or pickle the model."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with staging_directory(folder, STAGING) as part:
        write_bytes(part / VOCABULARY, vocabulary)
        for name, arrays in ((MODEL, factors), (EXTRA_FILE, own)):
            write_arrays(part / name, arrays)
            shutil.copymode(
                part / VOCABULARY, part / name
            )  # safetensors writes for the owner alone
        files = {name: _fingerprint(part / name) for name in HASHED_FILES}
        config = {**config, SECTION: {"format": FORMAT, **config[SECTION], "files": files}}
        facts = f"{json.dumps(config, indent=2, allow_nan=False)}\n".encode()
        if len(facts) > MAX_CONFIG_BYTES:
            raise ValueError(
                f"{CONFIG} would take {len(facts)} bytes; a stored model takes {MAX_CONFIG_BYTES}. Use a "
                "shorter trained_on, shorter names of the columns of X, or pickle the model."
            )
        write_bytes(part / CONFIG, facts)
        write_bytes(part / CARD, card.encode())
        (folder / CONFIG).unlink(missing_ok=True)
        fsync_directory(folder)
        for name in HASHED_FILES:
            os.replace(part / name, folder / name)
        if not (folder / CARD).exists():
            os.replace(part / CARD, folder / CARD)
        fsync_directory(folder)
        os.replace(part / CONFIG, folder / CONFIG)
        fsync_directory(folder)


# ---------------------------------------------------------------------- reading


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What is wrong with a file, as a sentence that names it."""
    try:
        yield
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{str(path)!r} cannot be read: {what}. Get the folder again.") from error


def _read_section(folder: Path) -> dict[str, Any] | None:
    """What config.json says to us, in a format that this version reads; None in other code's folders."""
    path = folder / CONFIG
    if not path.exists() and not (folder / EXTRA_FILE).exists():
        return None  # the published code does without
    _check_regular(path)
    with _reading(path):
        config = json.loads(_read_bytes(path, MAX_CONFIG_BYTES))
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}, not an object")
        about: dict[str, Any] | None = config.get(SECTION)
        if about is not None:
            _check_format(about)
    return about


def _identities(folder: Path, held: ExitStack | None = None) -> list[tuple[int, ...]]:
    """Which files lie in a folder; with ``held`` they stay open until it ends."""
    found: list[tuple[int, ...]] = []
    for path in (folder / name for name in FILES):
        with suppress(FileNotFoundError):
            if held is not None and path.is_file():
                handle = os.open(path, os.O_RDONLY)
                held.callback(os.close, handle)
                is_ = os.fstat(handle)
            else:
                is_ = path.stat()
            found.append((is_.st_dev, is_.st_ino, is_.st_size, is_.st_mtime_ns))
    return found


def _check_regular(path: Path) -> None:
    """A file, or a link to one (the hub's cache is made of links): a pipe would be waited for."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path.name} is missing in {str(path.parent)!r}; a stored model has {MODEL} and {VOCABULARY}, "
            f"one of flip-sklearn also {EXTRA_FILE} and {CONFIG}. Get or save it again."
        ) from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{str(path)!r} is not a file.")


def _read_bytes(path: Path, at_most: int) -> bytes:
    with open(path, "rb") as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise ValueError(f"it is longer than the {at_most} bytes that are allowed")
    return content


def _check_format(about: Any) -> None:
    """Our section of config.json is one that this version reads."""
    if not isinstance(about, dict) or type(about.get("format")) is not int or about["format"] < 1:
        raise ValueError(f"its section {SECTION!r} says no format")
    if about["format"] > FORMAT:
        version = about.get("version")
        known = isinstance(version, str) and version.replace(".", "").isalnum()
        raise ValueError(
            f"it is of format {about['format']}, this version reads formats up to {FORMAT}; "
            f"pip install --upgrade 'flip-sklearn{f'>={version}' if known else ''}'"
        )
    files = about.get("files")
    if not isinstance(files, dict) or set(files) != set(HASHED_FILES):
        raise ValueError(
            f"its section {SECTION!r} does not say what {', '.join(HASHED_FILES)} must be"
        )


def _check_digests(folder: Path, files: dict[str, Any]) -> None:
    """The files are those that config.json was written with; lengths first, they take no time."""
    _check_regular(folder / EXTRA_FILE)
    for name in HASHED_FILES:
        wanted = files[name] if isinstance(files[name], dict) else {}
        if (folder / name).stat().st_size != wanted.get("bytes"):
            _refuse_mixture(folder, name)
    for name in HASHED_FILES:
        if _fingerprint(folder / name) != files[name]:
            _refuse_mixture(folder, name)


def _refuse_mixture(folder: Path, name: str) -> None:
    raise ValueError(
        f"{name} in {str(folder)!r} is not the file that {CONFIG} was written with: it was cut off, "
        f"edited, or is of another model. Get or save the model again; or take {SECTION!r} out of {CONFIG} "
        "to read E1, E2 and b alone, as other code does."
    )


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _find_factors(
    found: dict[str, tuple[str, tuple[int, ...]]],
) -> tuple[dict[str, str], tuple[int, int]]:
    """Names E1, E2, b or E, b to those in the file, and (V, d); shapes and formats are right."""
    names: dict[str, str] = {}
    for stored in found:
        name = stored.removeprefix(PREFIX)
        if name in ("E1", "E2", "E", "b"):
            if name in names:
                raise ValueError(f"it holds {name} twice, as {names[name]} and as {stored}")
            names[name] = stored
    if set(names) not in ({"E1", "E2", "b"}, {"E", "b"}):
        there = ", ".join(sorted(found)[:10])[:200] or "nothing"
        raise ValueError(f"it must hold E1, E2 and b, or for LiP E and b; it holds {there}")
    formats = {name: found[stored][0] for name, stored in names.items()}
    shapes = {name: found[stored][1] for name, stored in names.items()}
    for name, kind in formats.items():
        if kind not in FACTORS:
            raise ValueError(f"{name} is {kind}; use one of {', '.join(sorted(FACTORS))}")
    outer, inner = ("E1", "E2") if "E1" in names else ("E", "E")
    fits = (
        all(len(shapes[name]) == 2 and 0 not in shapes[name] for name in (outer, inner))
        and (outer == inner or shapes[outer][1] == shapes[inner][0])
        and shapes["b"] in ((shapes[outer][0], 1), (shapes[outer][0],))
    )
    if not fits:
        must = "E1 (V, r), E2 (r, d)" if outer == "E1" else "E (V, d)"
        there = ", ".join(f"{name} {shapes[name]}" for name in sorted(shapes))
        raise ValueError(f"the shapes must be {must} and b (V, 1), they are {there}")
    return names, (shapes[outer][0], shapes[inner][1])


def _words_by_row(vocabulary: Any, n_words: int) -> list[str]:
    if not isinstance(vocabulary, dict):
        raise ValueError(f"it holds a {type(vocabulary).__name__}, not an object {{word: row}}")
    if len(vocabulary) != n_words:
        raise ValueError(f"it has {len(vocabulary)} words, the model has {n_words} rows")
    words: list[str | None] = [None] * n_words
    for word, row in vocabulary.items():
        if type(row) is not int or not 0 <= row < n_words:
            raise ValueError(
                f"{_short(word)} is of row {_short(row)}; use whole numbers from 0 to {n_words - 1}"
            )
        if words[row] is not None:
            raise ValueError(f"{_short(words[row])} and {_short(word)} are both of row {row}")
        words[row] = word
    for word in vocabulary:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{ascii(word)[:60]} is half a character, no text") from error
    return [word for word in words if word is not None]


def _longest_vocabulary(n_words: int) -> int:
    return 2**12 + BYTES_PER_WORD * n_words


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice and Python takes the last: two words of one name, and one row lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it has {_short(twice)} more than once")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_own(path: Path, shape: tuple[int, int], *, factorized: bool) -> dict[str, np.ndarray]:
    """Our additions; shapes and formats are checked before anything is loaded."""
    n_words, d = shape
    wanted: dict[str, tuple[int | None, ...]] = {
        "bias": (n_words,),
        "embedding_mean": (d,),
        "word_counts": (n_words,),
    }
    if not factorized:
        wanted |= {"word_embeddings": (n_words, d), "projection": (d, d)}
    found = describe(path)
    if "held_out" in found:
        wanted["held_out"] = (None,)
    if set(found) != set(wanted):
        raise ValueError(f"it must hold {', '.join(sorted(wanted))}, not {_short(sorted(found))}")
    for name, right in wanted.items():
        kind, is_ = found[name]
        kinds = {"I64"} if name == "held_out" else {"F32", "F64"}
        fits = len(is_) == len(right) and all(
            b in (None, a) for a, b in zip(is_, right, strict=True)
        )
        if kind not in kinds or not fits:
            raise ValueError(
                f"{name} is {kind} {is_}; it must be {' or '.join(sorted(kinds))} {right}"
            )
    return read_arrays(path, found)

"""Checks of the content of a stored model, which anyone may have written.

Each raises a ValueError that says what is wrong with a file, without its name.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.parameters import short_repr
from flip_sklearn.persistence.format import FORMAT, HASHED_FILES, SECTION
from flip_sklearn.persistence.tensors import describe, read_arrays

COMPILED_PREFIX = "_orig_mod."  # of tensor names in checkpoints of torch.compile
TENSOR_FORMATS = ("BF16", "F16", "F32", "F64")
INDEX_ARRAYS = ("held_out", "extended_words")  # of rows, and of columns


def check_metadata(metadata: Any) -> None:
    """Check that the section of config.json has a format that this version reads."""
    number = metadata.get("format") if isinstance(metadata, dict) else None
    if type(number) is not int or number < 1:
        raise ValueError(f"its section {SECTION!r} has no format number")
    if number > FORMAT:
        version = metadata.get("version")
        is_version = isinstance(version, str) and version.replace(".", "").isalnum()
        raise ValueError(
            f"it has format {number}, this version reads formats up to {FORMAT}; "
            f"update flip-sklearn{f' to version {version} or later' if is_version else ''}"
        )
    files = metadata.get("files")
    if not isinstance(files, dict) or set(files) != set(HASHED_FILES):
        raise ValueError(f"its section {SECTION!r} lacks the digests of {', '.join(HASHED_FILES)}")
    for name, digest in files.items():
        is_digest = isinstance(digest, dict) and re.fullmatch("[0-9a-f]{64}", str(digest.get("sha256")))
        if not is_digest or set(digest) != {"bytes", "sha256"}:
            raise ValueError(f"its digest of {name} is {short_repr(digest)}, not a size and a SHA-256")


def check_tensors(stored: dict[str, tuple[str, tuple[int, ...]]]) -> tuple[dict[str, str], tuple[int, int]]:
    """Check model.safetensors; return the name in the file of each of E1, E2, b or E, b, and (V, d)."""
    names = _find_tensors(stored)
    shapes = {}
    for name, stored_name in names.items():
        tensor_format, shapes[name] = stored[stored_name]
        if tensor_format not in TENSOR_FORMATS:
            raise ValueError(f"{name} is {tensor_format}; use one of {', '.join(TENSOR_FORMATS)}")
    matrices = [shapes[name] for name in ("E1", "E2", "E") if name in shapes]
    shapes_agree = (
        all(len(shape) == 2 and 0 not in shape for shape in matrices)
        and (len(matrices) == 1 or matrices[0][1] == matrices[1][0])
        and shapes["b"] in ((matrices[0][0], 1), (matrices[0][0],))
    )
    if not shapes_agree:
        expected = "E1 (V, r), E2 (r, d)" if "E1" in shapes else "E (V, d)"
        actual = ", ".join(f"{name} {shapes[name]}" for name in sorted(shapes))
        raise ValueError(f"the shapes must be {expected} and b (V, 1), they are {actual}")
    return names, (matrices[0][0], matrices[-1][1])


def _find_tensors(stored: dict[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for stored_name in stored:
        name = stored_name.removeprefix(COMPILED_PREFIX)
        if name not in ("E1", "E2", "E", "b"):
            continue
        if name in names:
            raise ValueError(f"it holds {name} twice, as {names[name]} and as {stored_name}")
        names[name] = stored_name
    if set(names) not in ({"E1", "E2", "b"}, {"E", "b"}):
        actual = ", ".join(sorted(stored)[:10])[:200] or "nothing"
        raise ValueError(f"it must hold E1, E2 and b, or for LiP E and b; it holds {actual}")
    return names


def check_vocabulary(vocabulary: Any, n_words: int) -> list[str]:
    """Return the words in row order; every row must have exactly one."""
    if not isinstance(vocabulary, dict):
        raise ValueError(f"it holds a {type(vocabulary).__name__}, not an object {{word: row}}")
    if len(vocabulary) != n_words:
        raise ValueError(f"it has {len(vocabulary)} words, the model has {n_words} rows")
    words: dict[int, str] = {}
    for word, row in vocabulary.items():
        if type(row) is not int or not 0 <= row < n_words:
            raise ValueError(
                f"{short_repr(word)} has row {short_repr(row)}; use integers from 0 to {n_words - 1}"
            )
        if row in words:
            raise ValueError(f"{short_repr(words[row])} and {short_repr(word)} both have row {row}")
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{ascii(word)[:60]} is half of a surrogate pair, not text") from error
        words[row] = word
    return [words[row] for row in range(n_words)]


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict. A repeated key is refused: Python would keep its last value."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"it has {short_repr(key)} more than once")
        result[key] = value
    return result


def read_extra_arrays(path: Path, n_words: int, d: int, *, factorized: bool) -> dict[str, np.ndarray]:
    """Read flip_sklearn.safetensors; shapes and formats are checked before anything is loaded."""
    stored = describe(path)
    expected: dict[str, tuple[int, ...]] = {
        "bias": (n_words,),
        "embedding_mean": (d,),
        "word_counts": (n_words,),
    }
    if not factorized:
        expected |= {"word_embeddings": (n_words, d), "projection": (d, d)}
    if "embedding_covariance" in stored:  # models of earlier versions have none
        expected["embedding_covariance"] = (d * (d + 1) // 2,)  # its lower triangle
    if "ranking_offset" in stored:
        expected["ranking_offset"] = (n_words,)
    if "presence_length" in stored:  # models without held-out rows have none
        expected |= {
            "presence_length": (math.prod(stored["presence_length"][1]),),  # 1 + r numbers, see model.py
            "presence_intercept": (n_words,),
            "presence_slope": (n_words,),
            "presence_row_coef": (2, 2),
        }
    if "word_map" in stored:  # models without word_features have none
        shape = stored["word_map"][1]
        p, rank = shape if len(shape) == 2 else (0, 0)
        expected |= {"word_map": (p, rank), "word_feature_mean": (p,), "lift_offset": (n_words,)}
    for name in INDEX_ARRAYS:
        if name in stored:
            expected[name] = (math.prod(stored[name][1]),)  # a vector of any length
    if set(stored) != set(expected):
        raise ValueError(f"it must hold {', '.join(sorted(expected))}, not {short_repr(sorted(stored))}")
    for name, expected_shape in expected.items():
        tensor_format, shape = stored[name]
        formats = ("I64",) if name in INDEX_ARRAYS else ("F32", "F64")
        if tensor_format not in formats or shape != expected_shape:
            raise ValueError(
                f"{name} is {tensor_format} {shape}; it must be {' or '.join(formats)} {expected_shape}"
            )
    return read_arrays(path, stored)

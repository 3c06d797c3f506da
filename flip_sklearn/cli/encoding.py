"""How text becomes what a model reads: the encoder and the words, in ``text.json`` beside the model.

The file names the model's ``config.json`` by its hash, which names all other files by theirs: a recipe that
was left behind by another model, or a model that was written without one, is never taken for the right one.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.persistence.folder import ENCODING_FILE
from flip_sklearn.vocabulary import ConceptVectorizer

FILE = ENCODING_FILE
_VERSION = 1
_LARGEST = 2**16
# What decides about the vectors, and nothing of this machine: no device, no folder, no name of a key.
ENCODER = ("model", "backend", "normalize", "truncate_dim", "prompt_name", "language", "revision")
PATTERNS = ("latin", "indic", "whitespace")  # a pattern of a stranger could run for ever
WORDS = ("token_pattern", "lowercase", "strip_punctuation", "strip_accents")


@dataclass(frozen=True)
class EncodingConfig:
    """Parameters of the encoder (None where embeddings came from elsewhere) and of the vectorizer."""

    encoder: dict[str, Any] | None
    words: dict[str, Any]

    @classmethod
    def of(cls, encoder: SentenceEncoder | None, vectorizer: ConceptVectorizer) -> EncodingConfig:
        """What a fit used."""
        made_by = None
        if encoder is not None:
            made_by = {name: getattr(encoder, name) for name in ENCODER}
            # A folder is to be found from anywhere.
            made_by["model"] = model_name(encoder)
        return cls(made_by, {name: getattr(vectorizer, name) for name in WORDS})

    @classmethod
    def read(cls, folder: Path) -> EncodingConfig:
        """That of a model; the paper's words and no encoder where the folder has none of this model."""
        path = folder / FILE
        if not path.exists():
            return cls(None, {})
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST:
                raise ValueError("no small file")
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["version"] != _VERSION:
                raise ValueError(
                    f"version {found['version']!r:.20}, and this package reads {_VERSION}"
                )
            if found["of"] != _digest(folder):
                return cls(None, {})
            encoder, words = found["encoder"], found["words"]
            if encoder is not None:
                if not set(encoder) <= set(ENCODER) or not isinstance(encoder.get("model"), str):
                    raise ValueError("unknown parameters of the encoder")
                SentenceEncoder(**encoder).fit()
            if not set(words) <= set(WORDS) or words.get("token_pattern", "latin") not in PATTERNS:
                raise ValueError("unknown parameters of the words")
            ConceptVectorizer(vocabulary=["word"], **words).fit([])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(path)!r} cannot be used ({type(error).__name__}: {error}); delete it and pass "
                "--encoder, or get the model again."
            ) from None
        return cls(encoder, words)

    def write(self, folder: Path) -> None:
        """Beside a model that is there, in one step."""
        content = {
            "version": _VERSION,
            "of": _digest(folder),
            "encoder": self.encoder,
            "words": self.words,
        }
        new = folder / f".{FILE}.{os.getpid()}"
        try:
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            new.write_text(text, encoding="utf-8")
            os.replace(new, folder / FILE)
        finally:
            new.unlink(missing_ok=True)


def model_name(encoder: SentenceEncoder) -> str:
    """The model of an encoder."""
    model = os.fspath(encoder.model)
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _digest(folder: Path) -> str | None:
    config = folder / "config.json"
    return hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else None

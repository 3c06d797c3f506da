"""The encoder and the vectorizer of a model's texts, stored in ``text.json`` beside the model.

The file contains the hash of the model's ``config.json``, which contains the hashes of the model's other
files. A file that belongs to another model is therefore ignored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.io import write_atomic
from flip_sklearn.persistence.format import ENCODING_FILE
from flip_sklearn.vocabulary import ConceptVectorizer

_VERSION = 1
_MAX_BYTES = 2**16
# Parameters that determine the vectors, and nothing specific to a machine: no device, folder or key.
ENCODER_PARAMETERS = ("model", "backend", "normalize", "truncate_dim", "prompt_name", "language", "revision")
TOKEN_PATTERNS = ("latin", "indic", "whitespace")  # no regular expression from a file: it may be too slow
VECTORIZER_PARAMETERS = ("token_pattern", "lowercase", "strip_punctuation", "strip_accents")


@dataclass(frozen=True)
class EncodingConfig:
    """Parameters of the encoder (None if embeddings were given) and, in ``words``, of the vectorizer.

    ``encoder_is_local`` says that the model of the encoder is a folder of which only the name is known.
    """

    encoder: dict[str, Any] | None
    words: dict[str, Any]
    encoder_is_local: bool = False

    @classmethod
    def from_fit(cls, encoder: SentenceEncoder | None, vectorizer: ConceptVectorizer) -> EncodingConfig:
        """Return the parameters that were used in training."""
        words = {name: getattr(vectorizer, name) for name in VECTORIZER_PARAMETERS}
        if encoder is None:
            return cls(None, words)
        settings = {name: getattr(encoder, name) for name in ENCODER_PARAMETERS}
        folder = Path(encoder.model).expanduser()
        is_local = folder.is_dir()
        if is_local:
            settings["model"] = folder.resolve().name
        return cls(settings, words, is_local)

    @classmethod
    def read(cls, folder: Path) -> EncodingConfig:
        """Read the file of a model; without one, no encoder and the default vectorizer."""
        path = folder / ENCODING_FILE
        if not path.exists():
            return cls(None, {})
        try:
            if not path.is_file() or path.stat().st_size > _MAX_BYTES:
                raise ValueError("not a small file")
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']!r:.20}; this package reads version {_VERSION}")
            if content["of"] != _config_digest(folder):
                return cls(None, {})
            return cls._from_content(content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(path)!r} cannot be used ({type(error).__name__}: {error}); delete it and pass "
                "--encoder, or get the model again."
            ) from None

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> EncodingConfig:
        encoder, words = content["encoder"], content["words"]
        is_local = content.get("encoder_is_local", False)
        if encoder is not None:
            model = encoder.get("model")
            if not set(encoder) <= set(ENCODER_PARAMETERS) or not isinstance(model, str):
                raise ValueError("unknown parameters of the encoder")
            # Before encoder_is_local was added, the absolute path of a folder was stored.
            if Path(model).is_absolute() and not Path(model).is_dir():
                encoder, is_local = {**encoder, "model": Path(model).name}, True
            if not is_local:  # otherwise the parameters are checked when the folder is known
                SentenceEncoder(**encoder).fit()
        is_known = set(words) <= set(VECTORIZER_PARAMETERS)
        if not is_known or words.get("token_pattern", "latin") not in TOKEN_PATTERNS:
            raise ValueError("unknown parameters of the vectorizer")
        ConceptVectorizer(vocabulary=["word"], **words).fit([])
        return cls(encoder, words, bool(is_local))

    def write(self, folder: Path) -> None:
        """Write the file beside a stored model."""
        content = {
            "version": _VERSION,
            "of": _config_digest(folder),
            "encoder": self.encoder,
            "encoder_is_local": self.encoder_is_local,
            "words": self.words,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_atomic(folder / ENCODING_FILE, text.encode())

    @property
    def encoder_name(self) -> str | None:
        """The encoder as the model card names it, without paths of this machine."""
        if self.encoder is None:
            return None
        return f"{self.encoder['model']} (a local folder)" if self.encoder_is_local else self.encoder["model"]

    def encoder_settings(self, model: str | None, note: str | None) -> dict[str, Any]:
        """Return the parameters of the encoder for texts of this model.

        ``model`` is the encoder that the user names. It replaces the stored encoder, but if that is a
        local folder, it says where the folder is, and the other parameters stay. ``note`` is what the
        author of the model wrote about the encoder.
        """
        if model is not None:
            stored = self.encoder if self.encoder_is_local and self.encoder else {}
            return {**stored, "model": model}
        if self.encoder is None:
            hint = f" (its author notes: {note})" if note else ""
            raise ValueError(
                f"the encoder of this model is not stored with it{hint}; name the encoder with --encoder, or "
                "pass --embeddings."
            )
        if self.encoder_is_local:
            raise ValueError(
                f"the encoder of this model is the local folder {self.encoder['model']!r}, whose path is not "
                "stored; pass the path with --encoder (other parameters are stored), or pass --embeddings."
            )
        return self.encoder


def _config_digest(folder: Path) -> str | None:
    config = folder / "config.json"
    return hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else None

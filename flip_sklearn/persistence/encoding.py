"""The encoder and the vectorizer of a model's texts, stored in ``text.json`` beside the model.

The file contains the hash of the model's ``config.json``, which contains the hashes of the model's other
files. A file that belongs to another model is therefore ignored. The author of a model may be anyone: an
encoder that the file names is used without asking only if it is on this machine and runs no code of its own.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.encoders.sentence_transformers import full_name
from flip_sklearn.io import read_json
from flip_sklearn.parameters import is_same_encoder, local_folder_name, short_repr
from flip_sklearn.persistence.format import (
    CONFIG_FILE,
    ENCODING_FILE,
    MAX_CONFIG_BYTES,
    MAX_ENCODING_BYTES,
    digest_name,
)
from flip_sklearn.persistence.model import read_model
from flip_sklearn.vocabulary import ConceptVectorizer

_VERSION = 1
# Parameters that determine the vectors, and nothing specific to a machine: no device, folder or key.
ENCODER_PARAMETERS = (
    "model",
    "backend",
    "normalize",
    "truncate_dim",
    "prompt_name",
    "language",
    "revision",
    "chunk",
)
TOKEN_PATTERNS = ("latin", "indic", "whitespace")  # no regular expression from a file: it may be too slow
# Backends of models that run here. A file cannot redirect a folder that the user names to another backend.
LOCAL_BACKENDS = ("auto", "sentence-transformers", "onnx", "sonar")
VECTORIZER_PARAMETERS = ("token_pattern", "lowercase", "strip_punctuation", "strip_accents")


class Remedies(NamedTuple):
    """What errors about the encoder of a model advise, in the words of a function or of a command."""

    encoder: str
    embeddings: str
    trust: str
    other_encoder: str


IN_PYTHON = Remedies(
    "pass it as encoder=",
    "encoder=False to read embeddings only",
    "pass trust_encoder=True",
    "pass encoder=SentenceEncoder(...), whose name is not compared",
)


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
        name = encoder._model_name()
        assert name is not None  # callers refuse callables
        folder = os.path.expanduser(name)
        is_local = os.path.isdir(folder) and not encoder._is_packaged()
        settings["model"] = Path(folder).resolve().name if is_local else full_name(name)
        return cls(settings, words, is_local)

    @classmethod
    def read(cls, folder: Path) -> EncodingConfig:
        """Read the file of a model; without one, no encoder and the default vectorizer."""
        of = _config_digest(folder)
        # In this order, because the first file is given the name of the second one when a model is replaced.
        for name in (digest_name(ENCODING_FILE, of), ENCODING_FILE):
            path = folder / name
            try:
                content = read_json(path, MAX_ENCODING_BYTES)
                if content["version"] != _VERSION:
                    version = f"{content['version']!r:.20}"
                    raise ValueError(f"version {version}; this package reads version {_VERSION}")
                if content["of"] == of:
                    return cls._from_content(content)
            except FileNotFoundError:
                continue
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{str(path)!r} cannot be used ({type(error).__name__}: {error}); delete it and name the "
                    "encoder yourself, or get the model again."
                ) from None
        return cls(None, {})

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> EncodingConfig:
        encoder, words = content["encoder"], content["words"]
        is_local = content.get("encoder_is_local", False)
        if encoder is not None:
            model = encoder.get("model")
            if not set(encoder) <= set(ENCODER_PARAMETERS) or not isinstance(model, str):
                raise ValueError("unknown parameters of the encoder")
            # Before encoder_is_local was added, the absolute path of a folder was stored.
            if os.path.isabs(model) and not os.path.isdir(model):
                encoder, is_local = {**encoder, "model": Path(model).name}, True
            if not is_local:  # otherwise the parameters are checked when the folder is known
                SentenceEncoder(**encoder).fit()
        is_known = set(words) <= set(VECTORIZER_PARAMETERS)
        if not is_known or words.get("token_pattern", "latin") not in TOKEN_PATTERNS:
            raise ValueError("unknown parameters of the vectorizer")
        ConceptVectorizer(vocabulary=["word"], **words).fit([])
        return cls(encoder, words, bool(is_local))

    def content(self) -> dict[str, Any]:
        """Return the content of the file, without the hash of config.json."""
        return {
            "version": _VERSION,
            "encoder": self.encoder,
            "encoder_is_local": self.encoder_is_local,
            "words": self.words,
        }

    def vectorizer(self, vocabulary: Any) -> ConceptVectorizer:
        """Return a vectorizer that counts these words as in training."""
        return ConceptVectorizer(vocabulary=list(vocabulary), **self.words)

    @property
    def encoder_name(self) -> str | None:
        """The encoder as the model card names it, without paths of this machine."""
        if self.encoder is None:
            return None
        name = Path(self.encoder["model"]).name if self.encoder_is_local else self.encoder["model"]
        return local_folder_name(name) if self.encoder_is_local else str(name)

    def encoder_settings(
        self,
        options: dict[str, Any],
        note: str | None,
        *,
        trusted: bool = False,
        forced: bool = False,
        remedies: Remedies = IN_PYTHON,
    ) -> dict[str, Any]:
        """Return the parameters of the encoder for texts of this model.

        ``options`` are the parameters that the user gives, with "model" if the encoder is named. Parameters
        in the file apply to the encoder of the model, also if that is a folder whose path the user names.
        ``note`` is what the author of the model wrote about the encoder. ``trusted`` accepts any encoder in
        the file, ``forced`` another encoder than that of the model.
        """
        stored = self.encoder or {}
        if "model" in options:
            known = self.encoder_name or note
            is_other = known is not None and not is_same_encoder(options["model"], known)
            if is_other and not forced:
                raise ValueError(
                    f"the model was trained with the encoder {short_repr(known)}, and cannot read words off "
                    f"the embeddings of {options['model']!r}; name the encoder of the model. "
                    f"If they are the same under two names, {remedies.other_encoder}."
                )
            if is_other and not self.encoder_is_local:
                stored = {}
            if stored.get("backend") not in LOCAL_BACKENDS:
                stored = {name: value for name, value in stored.items() if name != "backend"}
            return {**stored, **options}
        if self.encoder is None:
            hint = f" (its author notes: {note})" if note else ""
            raise ValueError(
                f"the encoder of this model is not stored with it{hint}; {remedies.encoder}, or "
                f"{remedies.embeddings}."
            )
        if self.encoder_is_local:
            raise ValueError(
                f"the encoder of this model is the local folder {self.encoder['model']!r}, whose path is not "
                f"stored; {remedies.encoder} (other parameters are stored), or {remedies.embeddings}."
            )
        settings = {**stored, **options}
        if not trusted and not SentenceEncoder(**settings)._is_local():
            raise ValueError(
                f"{ENCODING_FILE} of the model names the encoder {stored['model']!r}, which is a service "
                "that would receive your text, or would be downloaded, or has code. If you agree, "
                f"{remedies.trust}; or {remedies.embeddings}."
            )
        return settings


def read_with_encoding(cls: Any, folder: Path) -> tuple[Any, EncodingConfig]:
    """Return a stored model of the class and the configuration of its texts.

    Both belong together, also while another process replaces them.
    """
    while True:
        with ExitStack() as opened:
            # While the file is open, no other file can get its identity, not even one of the same content.
            before = _identify_config(folder, opened)
            config = EncodingConfig.read(folder)
            model = read_model(cls, folder)
            if _identify_config(folder, opened) == before:
                return model, config


def _identify_config(folder: Path, opened: ExitStack) -> tuple[int, int] | None:
    """Open config.json, which ``opened`` closes, and return what identifies it; None if there is none."""
    path = folder / CONFIG_FILE
    if not path.is_file():  # opening a pipe would block
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    opened.callback(os.close, handle)
    status = os.fstat(handle)
    return status.st_dev, status.st_ino


def _config_digest(folder: Path) -> str:
    """Return the SHA-256 of config.json; that of nothing if there is none, as in a folder of other code."""
    config = folder / CONFIG_FILE
    is_readable = config.is_file() and config.stat().st_size <= MAX_CONFIG_BYTES
    return hashlib.sha256(config.read_bytes() if is_readable else b"").hexdigest()

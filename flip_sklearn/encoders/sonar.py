"""Backends for SONAR: text with the M2M100 encoder of transformers, speech with sonar-space."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flip_sklearn.encoders.base import LocalModel, require, resolve_device

_MAX_TOKENS = 512  # SONAR was trained on at most that; its own package truncates there, too


class SonarText(LocalModel):
    """Mean of the NLLB encoder's last layer over the tokens, not normalized."""

    name = "sonar"

    def __init__(self, model: str, revision: str | None, device: str, language: str) -> None:
        super().__init__(model, revision, device)
        self.language = language

    def identity(self) -> dict[str, Any]:
        """Return the version of the weights and the language, whose code precedes each text."""
        return {"model": self.version(), "language": self.language}

    def load(self) -> Any:
        """Read tokenizer and encoder; raise ValueError for missing weights or an unknown language."""
        # The port's tokenizer is a sentencepiece file, which transformers reads with the first two
        # packages. They are imported first, because transformers looks for them only once.
        for module in ("sentencepiece", "google.protobuf", "transformers"):
            require(module, self.name, "sonar")
        tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(
            self.model,
            revision=self.revision,
            trust_remote_code=False,
            legacy_behaviour=False,  # language first, end last, even if the files say otherwise
        )
        self._prepare(tokenizer)
        modeling = importlib.import_module("transformers.models.m2m_100.modeling_m2m_100")
        encoder, report = modeling.M2M100Encoder.from_pretrained(
            self.model, revision=self.revision, output_loading_info=True
        )
        missing = sorted(report["missing_keys"])
        if missing:  # transformers only logs this, and uses random weights
            raise ValueError(
                f"model={self.model!r} lacks {len(missing)} weights of an M2M100 encoder, such as "
                f"{missing[0]!r}; use a model that is only an encoder, such as "
                "'cointegrated/SONAR_200_text_encoder'."
            )
        return tokenizer, encoder.eval().to(resolve_device(self.device))

    def _prepare(self, tokenizer: Any) -> None:
        """Set the language, and strip texts as sentencepiece does: a trailing newline is no token."""
        code = tokenizer.convert_tokens_to_ids(self.language)
        if code is None or code == tokenizer.unk_token_id:
            raise ValueError(
                f"{self.model!r} does not know language={self.language!r}; use a FLORES-200 code such as "
                "'eng_Latn', 'deu_Latn' or 'zho_Hans'."
            )
        tokenizer.src_lang = self.language
        ids = tokenizer("a")["input_ids"]
        if ids[0] != code or ids[-1] != tokenizer.eos_token_id:
            raise ValueError(
                f"The tokenizer of {self.model!r} does not put the language first and the end of the "
                "sentence last, which SONAR requires; use a model with the tokenizer of NLLB."
            )
        normalizers = importlib.import_module("tokenizers.normalizers")
        backend = tokenizer.backend_tokenizer
        existing = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([*existing, normalizers.Strip()])

    def token_limit(self) -> int | None:
        """Return the length that texts are truncated to."""
        return _MAX_TOKENS

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text with the language and the end."""
        tokenizer, _ = self.weights()
        with self._lock:
            output = tokenizer(
                list(texts), truncation=False, padding=False, split_special_tokens=True, verbose=False
            )
        return [len(ids) for ids in output["input_ids"]]

    def vectors(self, weights: Any, items: list[str]) -> Any:
        """Return the vectors of one batch."""
        torch = importlib.import_module("torch")
        tokenizer, encoder = weights
        batch = tokenizer(
            items,
            padding=True,
            truncation=True,
            max_length=_MAX_TOKENS,
            split_special_tokens=True,  # "<s>" in a text is three characters, not a token
            return_tensors="pt",
        )
        with torch.inference_mode():
            batch = batch.to(encoder.device)
            hidden = encoder(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            return (hidden * mask).sum(1) / mask.sum(1)


class SonarSpeech(LocalModel):
    """Audio files, encoded by ``SpeechToEmbeddingModelPipeline`` of sonar-space."""

    name = "sonar-speech"
    batch_size = 4
    sort_by_length = False  # a text is a path here, its length does not matter

    def identity(self) -> dict[str, Any]:
        """Return the name of the model card and the user's revision; cards have no version."""
        return {"model": self.model, "revision": self.revision}

    def is_local(self) -> bool:
        """Return False: sonar-space decides whether the weights are downloaded."""
        return False

    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError for a path that is not a file."""
        for row, path in enumerate(texts):
            if not os.path.isfile(path):
                raise ValueError(
                    f"Row {row} is {path!r}, which is not a file; the sonar-speech backend needs paths of "
                    "audio files (16 kHz, one channel)."
                )

    def content(self, item: str) -> bytes:
        """Return a hash of the file, since another recording may be stored under the same path."""
        with Path(item).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def load(self) -> Any:
        """Create the pipeline, which loads the weights."""
        speech = require(
            "sonar.inference_pipelines.speech",
            self.name,
            "sonar",
            "Install it with: pip install sonar-space (in a separate environment, because it requires "
            "another version of torch). Or compute the embeddings there, store them with numpy.save, and "
            "use numpy.load('speech.npy') in place of this encoder.",
        )
        torch = importlib.import_module("torch")
        return speech.SpeechToEmbeddingModelPipeline(
            encoder=self.model, device=torch.device(resolve_device(self.device))
        )

    def vectors(self, weights: Any, items: list[str]) -> Any:
        """Return the vectors of one batch."""
        return weights.predict(items, batch_size=len(items))

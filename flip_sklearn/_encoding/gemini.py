"""Gemini's embeddings through google-genai: batches, retries, and a key that leaves no trace."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from flip_sklearn._encoding.base import Backend, Encode, require

logger = logging.getLogger(__name__)

MOST_TEXTS = 100  # the API refuses larger batches
_WHOLE = 3072  # dims that the API normalizes itself
_TIMEOUT = 120_000  # milliseconds a request
_ATTEMPTS, _FIRST_WAIT, _LONGEST_WAIT = 8, 1.0, 60.0  # about two minutes: rates are per minute
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_INSTALL = "Install it with: pip install 'flip-sklearn[gemini]'"


class Gemini(Backend):
    """One request a batch; vectors below 3072 dims are cut by the API and normalized here."""

    name = "gemini"
    batch_size = MOST_TEXTS

    def __init__(
        self,
        model: str,
        revision: str | None,
        dimensions: int,
        task_type: str | None,
        api_key_env: str,
    ) -> None:
        self.model = model
        self.revision = revision
        self.dimensions = dimensions
        self.task_type = task_type
        self.api_key_env = api_key_env

    def identity(self) -> dict[str, Any]:
        """Everything that is sent but the text; the key is no part of it."""
        return {
            "model": self.model,
            "revision": self.revision,
            "dimensions": self.dimensions,
            "task_type": self.task_type,
        }

    def check(self, texts: Sequence[str]) -> None:
        """The API refuses a whole batch for one empty text."""
        for row, text in enumerate(texts):
            if not text.strip():
                raise ValueError(
                    f"Row {row} is {text!r}; Gemini encodes no empty texts, leave them out."
                )

    @contextmanager
    def session(self) -> Iterator[Encode]:
        """A client for one run of batches: the key lives no longer than that."""
        genai = require("google.genai", "The gemini backend", _INSTALL)
        key = self._key()
        client = genai.Client(api_key=key, vertexai=False, http_options={"timeout": _TIMEOUT})
        try:
            yield functools.partial(self._request, client, key)
        finally:
            client.close()

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ValueError(
                f"The environment variable {self.api_key_env} is not set; put your Gemini API key there, or "
                "name another variable with api_key_env."
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(
                f"The environment variable {self.api_key_env} holds characters that no API key has; set it "
                "again."
            )
        return key

    def _request(self, client: Any, key: str, texts: list[str]) -> np.ndarray:
        types = require("google.genai.types", "The gemini backend", _INSTALL)
        tenacity = require("tenacity", "The gemini backend", _INSTALL)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_passing),
            wait=tenacity.wait_exponential_jitter(initial=_FIRST_WAIT, max=_LONGEST_WAIT),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            before_sleep=lambda state: logger.warning(
                "Gemini: %s; trying again in %.0f s.",
                _words(state.outcome.exception(), key),
                state.next_action.sleep,
            ),
            reraise=True,
        )
        answer, failure = None, ""
        try:
            answer = retrying(
                client.models.embed_content,
                model=self.model,
                # A content each: for some models the client makes one content of a list of texts.
                contents=[types.Content(parts=[types.Part(text=text)]) for text in texts],
                config=types.EmbedContentConfig(
                    output_dimensionality=self.dimensions, task_type=self.task_type
                ),
            )
        except Exception as error:
            failure = _words(error, key)
        if answer is None:
            # Raised out here, so that the error it came from, which may hold the key, is not chained to it.
            raise RuntimeError(
                f"Gemini ({self.model}) gave no vectors for a batch of {len(texts)} texts: {failure}. With "
                "cache_dir set, the batches before this one are kept and the same call goes on after them."
            )
        vectors = [embedding.values or [] for embedding in answer.embeddings or []]
        wrong = {len(v) for v in vectors} - {self.dimensions}
        if wrong:
            raise RuntimeError(
                f"Gemini ({self.model}) gave a vector of {min(wrong)} dims where {self.dimensions} were "
                f"asked for, in a batch of {len(texts)} texts; set truncate_dim to a size it offers."
            )
        array = np.asarray(vectors, dtype=np.float64).reshape(len(vectors), self.dimensions)
        if self.dimensions < _WHOLE:
            norms = np.linalg.norm(array, axis=1, keepdims=True)
            array /= np.where(norms > 0, norms, 1.0)
        return array.astype(np.float32)


def _is_passing(error: BaseException) -> bool:
    """A rate limit, a fault of the server, or of the way there."""
    # The client uses whichever of the two is installed.
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    transport = tuple(library.TransportError for library in libraries)
    return getattr(error, "code", None) in _PASSING or isinstance(error, transport)


def _words(error: BaseException, key: str) -> str:
    """An error in words, without the key, which a server may repeat."""
    if isinstance(error, ValueError):
        # It quotes what it cannot read, in pieces that no search for the key would find.
        return f"the answer cannot be read ({type(error).__name__})"
    code, status = getattr(error, "code", None), getattr(error, "status", None)
    message = getattr(error, "message", None) or str(error)
    text = f"{code} {status}: {message}" if code else f"{type(error).__name__}: {message}"
    return " ".join(text.replace(key, "***").split())[:500]

"""Gemini's embeddings through google-genai: batches, retries, and a key that leaves no trace."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from flip_sklearn.encoders.base import Backend, Encode, require

logger = logging.getLogger(__name__)

MOST_TEXTS = 100  # the API refuses larger batches
_WHOLE = 3072  # dims that the API normalizes itself
_TIMEOUT = 120_000  # milliseconds a request
_ATTEMPTS, _FIRST_WAIT, _LONGEST_WAIT = 8, 1.0, 60.0  # about two minutes: rates are per minute
_LONGEST_ASKED = 300.0  # seconds; a longer wait is a used-up day
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_INSTALL = "Install it with: pip install 'flip-sklearn[gemini]'"


class _Key:
    """An API key that shows in no repr, so in no report that lists the variables of a traceback."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "<API key>"


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
        require("tenacity", "The gemini backend", _INSTALL)  # first: the client imports it, too
        genai = require("google.genai", "The gemini backend", _INSTALL)
        key = self._key()
        with _without_the_other_key():
            client = genai.Client(
                api_key=key.text, vertexai=False, http_options={"timeout": _TIMEOUT}
            )
        try:
            yield functools.partial(self._request, client, key)
        finally:
            client.close()

    def _key(self) -> _Key:
        key = _Key(os.environ.get(self.api_key_env, "").strip())
        if not key.text:
            raise ValueError(
                f"The environment variable {self.api_key_env} is not set; put your Gemini API key there, or "
                "name another variable with api_key_env."
            )
        if re.fullmatch("[!-~]+", key.text) is None:
            raise ValueError(
                f"The environment variable {self.api_key_env} holds characters that no API key has; set it "
                "again."
            )
        return key

    def _request(self, client: Any, key: _Key, texts: list[str]) -> np.ndarray:
        types = require("google.genai.types", "The gemini backend", _INSTALL)
        tenacity = require("tenacity", "The gemini backend", _INSTALL)
        backoff = tenacity.wait_exponential_jitter(initial=_FIRST_WAIT, max=_LONGEST_WAIT)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_retryable),
            wait=lambda state: max(backoff(state), _asked_wait(state.outcome.exception())),
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
            if getattr(error, "code", None) in (401, 403) or "api key" in failure.lower():
                failure += f" (the key is read from the environment variable {self.api_key_env})"
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


def is_retryable(error: BaseException) -> bool:
    """A rate limit, a fault of the server, or of the way there."""
    # The client uses whichever of the two is installed.
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    transport = tuple(library.TransportError for library in libraries)
    if isinstance(error, transport):
        return True
    return getattr(error, "code", None) in _PASSING and _asked_wait(error) <= _LONGEST_ASKED


def _asked_wait(error: BaseException) -> float:
    """Seconds that a refusal asks to wait, in its Retry-After or its RetryInfo; 0 where it does not."""
    asked = [getattr(getattr(error, "response", None), "headers", {}).get("retry-after")]
    body = getattr(error, "details", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        details = inner.get("details") if isinstance(inner, dict) else None
        if isinstance(details, list):
            asked += [detail.get("retryDelay") for detail in details if isinstance(detail, dict)]
    found = (re.fullmatch(r"(\d+(?:\.\d+)?)s?", str(value).strip()) for value in asked)
    return max((float(match[1]) for match in found if match), default=0.0)


@contextmanager
def _without_the_other_key() -> Iterator[None]:
    """Keep quiet a warning of the client that it uses $GOOGLE_API_KEY: it does not, it was given a key."""

    def is_true(record: logging.LogRecord) -> bool:
        return "Using GOOGLE_API_KEY" not in record.getMessage()

    client_logger = logging.getLogger("google_genai._api_client")
    client_logger.addFilter(is_true)
    try:
        yield
    finally:
        client_logger.removeFilter(is_true)


def _words(error: BaseException, key: _Key) -> str:
    """An error in words, without the key, which a server may repeat."""
    if isinstance(error, ValueError):
        # It quotes what it cannot read, in pieces that no search for the key would find.
        return f"the answer cannot be read ({type(error).__name__})"
    code, status = getattr(error, "code", None), getattr(error, "status", None)
    message = getattr(error, "message", None) or str(error)
    text = f"{code} {status}: {message}" if code else f"{type(error).__name__}: {message}"
    return " ".join(text.replace(key.text, "***").split())[:500]

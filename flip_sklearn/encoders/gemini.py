"""Backend for Gemini with google-genai: batches, retries, and an API key that is shown nowhere."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from flip_sklearn.encoders.base import Encode, EncoderBackend, EncodingError, require

logger = logging.getLogger(__name__)

MAX_BATCH_SIZE = 100  # the API refuses larger batches
_ALL_DIMENSIONS = 3072  # vectors of this size are normalized by the API
_MAX_TOKENS, _BYTES_PER_TOKEN = 2048, 3  # the API truncates silently; the second is an estimate
_TIMEOUT = 120_000  # milliseconds per request
# Attempts and waits in seconds: about two minutes in total, because rate limits are per minute.
_ATTEMPTS, _FIRST_WAIT, _MAX_WAIT = 8, 1.0, 60.0
_MAX_REQUESTED_WAIT = 300.0  # seconds; the server asks for more when a daily quota is used up
_RETRYABLE_CODES = frozenset({408, 429, 500, 502, 503, 504})


class _Key:
    """An API key whose repr hides it, so that error reports with local variables do not contain it."""

    def __init__(self, text: str) -> None:
        self.text = text
        # A server may repeat it with line breaks, or escaped as in URLs, JSON and the repr of bytes.
        gap = r"(?:\s|\\[nrtfv]|\\x0[0-9a-d]|\\u000[0-9a-d]|%0[0-9a-d]|%20)*"
        letters = [
            rf"(?:{re.escape(c)}|%{ord(c):02x}|\\x{ord(c):02x}|\\u{ord(c):04x}|&#{ord(c)};)" for c in text
        ]
        self._pattern = re.compile(gap.join(letters), re.IGNORECASE) if text else None

    def __repr__(self) -> str:
        return "<API key>"

    def redact(self, text: str) -> str:
        """Return a text without the key."""
        return text if self._pattern is None else self._pattern.sub("***", text)

    @contextmanager
    def kept_out_of_logs(self) -> Iterator[None]:
        """Redact the records of all loggers, since those of HTTP clients hold the headers of an answer."""
        make_record = logging.getLogRecordFactory()
        is_active = True

        def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make_record(*args, **kwargs)
            if is_active:  # the factory may stay in use if another session was opened inside this one
                try:
                    record.msg, record.args = self.redact(record.getMessage()), None
                except Exception:
                    record.msg, record.args = "A message that cannot be formatted", None
                if record.exc_info:
                    text = "".join(traceback.format_exception(*record.exc_info))
                    record.exc_info, record.exc_text = None, self.redact(text).rstrip()
            return record

        logging.setLogRecordFactory(make_redacted)
        try:
            yield
        finally:
            is_active = False
            if logging.getLogRecordFactory() is make_redacted:
                logging.setLogRecordFactory(make_record)


class Gemini(EncoderBackend):
    """One request per batch. Vectors below 3072 dimensions are truncated by the API, normalized here."""

    name = "gemini"
    batch_size = MAX_BATCH_SIZE

    def __init__(
        self, model: str, revision: str | None, dimensions: int, task_type: str | None, api_key_env: str
    ) -> None:
        self.model = model
        self.revision = revision
        self.dimensions = dimensions
        self.task_type = task_type
        self.api_key_env = api_key_env

    def identity(self) -> dict[str, Any]:
        """Return everything that a request contains besides the text and the key."""
        names = ("model", "revision", "dimensions", "task_type")
        return {name: getattr(self, name) for name in names}

    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError for an empty text, for which the API would refuse a whole batch."""
        for row, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"Row {row} is {text!r}; Gemini cannot encode empty texts, leave them out.")

    def token_limit(self) -> int | None:
        """Return the number of tokens that the API reads."""
        return _MAX_TOKENS

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return an estimate of the number of tokens of each text, without a request."""
        return [-(-len(text.encode()) // _BYTES_PER_TOKEN) for text in texts]

    @contextmanager
    def session(self) -> Iterator[Encode]:
        """Open a client for a series of batches; the key is not kept for longer."""
        require("tenacity", "gemini", "gemini")  # first, because the client imports it too
        genai = require("google.genai", "gemini", "gemini")
        key = self._key()
        with key.kept_out_of_logs():
            yield from self._open(genai, key)

    def _open(self, genai: Any, key: _Key) -> Iterator[Encode]:
        def is_wanted(record: logging.LogRecord) -> bool:
            return "Using GOOGLE_API_KEY" not in record.getMessage()  # false, since a key is passed

        client_logger = logging.getLogger("google_genai._api_client")
        client_logger.addFilter(is_wanted)
        try:
            client = genai.Client(api_key=key.text, vertexai=False, http_options={"timeout": _TIMEOUT})
        finally:
            client_logger.removeFilter(is_wanted)
        with closing(client):
            yield functools.partial(self._request, client, key)

    def _key(self) -> _Key:
        """Read the API key from the environment."""
        key = _Key(os.environ.get(self.api_key_env, "").strip())
        if not key.text:
            raise ValueError(
                f"The environment variable {self.api_key_env} is not set; put your Gemini API key there, or "
                "name another variable with api_key_env."
            )
        if re.fullmatch("[!-~]+", key.text) is None:
            raise ValueError(
                f"The environment variable {self.api_key_env} contains characters that are not allowed in an "
                "API key; set it again."
            )
        return key

    def _request(self, client: Any, key: _Key, texts: list[str]) -> np.ndarray:
        """Return the vectors of one batch, at unit length."""
        types = require("google.genai.types", "gemini", "gemini")
        # One content per text: for some models the client merges a list of str into one content.
        contents = [types.Content(parts=[types.Part(text=text)]) for text in texts]
        config = types.EmbedContentConfig(output_dimensionality=self.dimensions, task_type=self.task_type)
        answer, failure = None, ""
        try:
            answer = _retrying(key)(
                client.models.embed_content, model=self.model, contents=contents, config=config
            )
        except Exception as error:
            failure = _describe(error, key)
            if getattr(error, "code", None) in (401, 403) or "api key" in failure.lower():
                failure += f" (the key is read from the environment variable {self.api_key_env})"
        if answer is None:
            # Raised outside of the handler, so that the client's error, which may contain the key, is not
            # chained to this one.
            raise EncodingError(
                f"Gemini ({self.model}) failed to encode a batch of {len(texts)} texts: {failure}. With "
                "cache_dir, the batches before this one are stored, and the same call continues after them."
            )
        vectors = [embedding.values or [] for embedding in answer.embeddings or []]
        wrong = {len(vector) for vector in vectors} - {self.dimensions}
        if wrong:
            raise EncodingError(
                f"Gemini ({self.model}) returned a vector of {min(wrong)} dimensions instead of "
                f"{self.dimensions} for a batch of {len(texts)} texts; set truncate_dim to a size it offers."
            )
        array = np.asarray(vectors, dtype=np.float64).reshape(len(vectors), self.dimensions)
        if self.dimensions < _ALL_DIMENSIONS:
            norms = np.linalg.norm(array, axis=1, keepdims=True)
            array /= np.where(norms > 0, norms, 1.0)
        return array.astype(np.float32)


def _retrying(key: _Key) -> Any:
    """Return the policy for retries: growing waits, at least as long as the server requests."""
    tenacity = require("tenacity", "gemini", "gemini")
    backoff = tenacity.wait_exponential_jitter(initial=_FIRST_WAIT, max=_MAX_WAIT)
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_retryable),
        wait=lambda state: max(backoff(state), _requested_wait(state.outcome.exception())),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        before_sleep=lambda state: logger.warning(
            "Gemini: %s; retrying in %.0f s.",
            _describe(state.outcome.exception(), key),
            state.next_action.sleep,
        ),
        reraise=True,
    )


def is_retryable(error: BaseException) -> bool:
    """Whether an error is a rate limit, a fault of the server, or a broken connection."""
    # The client uses whichever of the two is installed.
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    if isinstance(error, tuple(library.TransportError for library in libraries)):
        return True
    return getattr(error, "code", None) in _RETRYABLE_CODES and _requested_wait(error) <= _MAX_REQUESTED_WAIT


def _requested_wait(error: BaseException) -> float:
    """Return the wait in seconds that a server requests by Retry-After or RetryInfo, otherwise 0."""
    values = [getattr(getattr(error, "response", None), "headers", {}).get("retry-after")]
    body = getattr(error, "details", None)
    if isinstance(body, dict):
        content = body.get("error", body)
        details = content.get("details") if isinstance(content, dict) else None
        if isinstance(details, list):
            values += [detail.get("retryDelay") for detail in details if isinstance(detail, dict)]
    matches = [re.fullmatch(r"(\d+(?:\.\d+)?)s?", str(value).strip()) for value in values]
    return max((float(match[1]) for match in matches if match), default=0.0)


def _describe(error: BaseException, key: _Key) -> str:
    """Return the message of an error without the key, which a server may repeat."""
    if isinstance(error, ValueError):
        # The message quotes the answer in pieces, in which a key could not be found by a search.
        return f"the answer cannot be read ({type(error).__name__})"
    code, status = getattr(error, "code", None), getattr(error, "status", None)
    message = getattr(error, "message", None) or str(error)
    text = f"{code} {status}: {message}" if code else f"{type(error).__name__}: {message}"
    return " ".join(key.redact(text).split())[:500]

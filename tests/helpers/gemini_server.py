"""A local server that has the wire format of Gemini's API."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

KEY = "AIza-very-secret-0123456789"


def vector(text: str, dims: int) -> list[float]:
    """A vector that depends on the text; not of unit length, like those of the API below 3072 dimensions."""
    return np.random.default_rng(list(text.encode())).normal(size=dims).tolist()


class Server(ThreadingHTTPServer):
    """``plan`` has one entry per request that says how to respond; later requests succeed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: set[str | None] = set()

    @property
    def batches(self) -> list[list[str]]:
        """The texts of each request that came in."""
        return [
            [part["text"] for one in request["requests"] for part in one["content"]["parts"]]
            for request in self.requests
        ]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.paths.append(self.path)
        self.server.keys.add(self.headers["x-goog-api-key"])
        action = self.server.plan.pop(0) if self.server.plan else "answer"
        if action == "slow":
            time.sleep(0.5)
        if isinstance(action, tuple):
            return self.answer_with_key(*action)
        if action == "drop":
            self.close_connection = True
            self.connection.close()
            return
        requests = body["requests"]
        if isinstance(action, dict):  # a rate limit that says how long
            delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": action["info"]}
            error = {"code": 429, "message": "slower", "status": "RESOURCE_EXHAUSTED"}
            return self.answer(429, {"error": {**error, "details": [delay]}}, header=action["header"])
        if isinstance(action, int) or len(requests) > 100:
            code = action if isinstance(action, int) else 400
            message = f"at most 100 requests can be in one batch; you, {KEY}, sent {len(requests)}"
            status = {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}.get(code, "INVALID_ARGUMENT")
            return self.answer(code, {"error": {"code": code, "message": message, "status": status}})
        if action == "no json":
            return self.answer(200, None, KEY.encode())
        if action == "nonsense":
            return self.answer(200, {"embeddings": f"{KEY}"})
        embeddings = [
            {"values": vector(one["content"]["parts"][0]["text"], one["outputDimensionality"])}
            for one in requests
        ]
        if action == "short":
            embeddings.pop()
        if action == "empty":
            embeddings = []
        if action == "dims":
            embeddings[1]["values"].pop()
        if action == "hole":
            embeddings[1] = {}
        return self.answer(200, {"embeddings": embeddings})

    def answer_with_key(self, repeated: str) -> None:
        """Refuse a request with the key in a header, in this form in the message, and as the reason."""
        content = {"error": {"code": 400, "message": f"Your key {repeated} is bad", "status": "BAD"}}
        data = json.dumps(content).encode()
        self.send_response(400, f"Bad {KEY}")
        self.send_header("X-Your-Key", KEY)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, code: int, content: Any, data: bytes = b"", header: str = "") -> None:
        data = data or json.dumps(content).encode()
        self.send_response(code)
        if header:
            self.send_header("Retry-After", header)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass

"""A model hub in one thread, with the part of the Hugging Face API that downloads and uploads use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"


class Hub(ThreadingHTTPServer):
    """A server whose repositories are lists of commits, each {path: content}; a context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, authorization
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/_down":  # the test stops the server
            self.server.shutdown()
            self.server.server_close()
            return self._answer({})
        authorization = self.headers.get("Authorization")
        self.server.requests.append((self.command, path, authorization))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if path == "/api/repos/create":
            return self._create_repository(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w[\w-]*)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if api:
            name, action, revision = api.groups()
        elif file:
            name, action, revision = file[1], "resolve", file[2]
        else:
            return self._answer({"error": path}, 404)
        commits = self.server.repositories.get(name)
        if commits is None or (name in self.server.private and authorization != f"Bearer {TOKEN}"):
            return self._answer({"error": "no"}, 401, X_Error_Code="RepoNotFound")
        number = _number(revision, commits)
        if number is None:
            return self._answer({"error": "no"}, 404, X_Error_Code="RevisionNotFound")
        if file:
            return self._send_file(commits[number], _sha(number), file[3])
        if action in (None, "revision"):
            siblings = [{"rfilename": path} for path in commits[number]]
            content = {"id": name, "sha": _sha(number), "siblings": siblings, "tags": []}
            return self._answer(content)
        if action == "tree":
            return self._send_tree(commits[number])
        if action == "preupload":
            paths = [request["path"] for request in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            return self._answer({"files": modes})
        if action == "commit":
            return self._commit(name, commits[number], body)
        return self._answer({"error": path}, 404)

    do_GET = do_HEAD = do_POST = _serve

    def _create_repository(self, request: dict[str, Any]) -> None:
        name = "/".join(filter(None, (request.get("organization"), request["name"])))
        is_new = name not in self.server.repositories
        self.server.repositories.setdefault(name, [{}])
        self._answer({"url": f"{self.server.url}/{name}"}, 200 if is_new else 409)

    def _commit(self, name: str, files: dict[str, bytes], body: bytes) -> None:
        files = dict(files)
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        commits = self.server.repositories[name]
        commits.append(files)
        oid = _sha(len(commits) - 1)
        url = f"{self.server.url}/{name}/commit/{oid}"
        self._answer({"success": True, "commitOid": oid, "commitUrl": url})

    def _send_tree(self, files: dict[str, bytes]) -> None:
        tree = []
        for path, content in files.items():
            oid = hashlib.sha1(content).hexdigest()
            tree.append({"type": "file", "path": path, "size": len(content), "oid": oid})
        self._answer(tree)

    def _send_file(self, files: dict[str, bytes], sha: str, path: str) -> None:
        if path not in files:
            return self._answer({"error": "no"}, 404, X_Error_Code="EntryNotFound")
        digest = hashlib.sha1(files[path]).hexdigest()
        return self._answer(files[path], ETag=f'"{digest}"', X_Repo_Commit=sha)


def _sha(number: int) -> str:
    return f"{number:040x}"


def _number(revision: str | None, commits: list[Any]) -> int | None:
    if revision in (None, "main"):
        return len(commits) - 1
    numbers = {_sha(number): number for number in range(len(commits))} | {"first": 1}
    return numbers.get(revision)

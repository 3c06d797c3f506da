"""A model hub in one thread: as much of the Hugging Face wire format as downloads and uploads use."""

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
    """Repositories as lists of commits, each a dict from path to content; use it as a context."""

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

    def asked_for(self, what: str) -> list[str]:
        return [path for _, path, _ in self.requests if what in path]


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
        if path == "/_down":  # from now on the hub cannot be reached
            self.server.shutdown()
            self.server.server_close()
            return self._answer({})
        authorization = self.headers.get("Authorization")
        self.server.requests.append((self.command, path, authorization))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            new = name not in self.server.repositories
            self.server.repositories.setdefault(name, [{}])
            return self._answer({"url": f"{self.server.url}/{name}"}, 200 if new else 409)
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w[\w-]*)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = found or file
        name = match[1] if match else ""
        commits = self.server.repositories.get(name)
        if commits is None or (name in self.server.private and authorization != f"Bearer {TOKEN}"):
            return self._answer({"error": "no"}, 401, X_Error_Code="RepoNotFound")
        number = _number(match[3] if found else match[2], commits)  # type: ignore[index]
        if number is None:
            return self._answer({"error": "no"}, 404, X_Error_Code="RevisionNotFound")
        files, sha = commits[number], _sha(number)
        if file:
            return self._send_file(files, sha, file[3])
        action = match[2]  # type: ignore[index]
        if action in (None, "revision"):
            names = [{"rfilename": path} for path in files]
            return self._answer({"id": name, "sha": sha, "siblings": names, "tags": []})
        if action == "tree":
            return self._answer(
                [
                    {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for p, c in files.items()
                ]
            )
        if action == "preupload":
            return self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in json.loads(body)["files"]
                    ]
                }
            )
        if action == "commit":
            new_files = dict(files)
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    new_files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            commits.append(new_files)
            oid = _sha(len(commits) - 1)
            url = f"{self.server.url}/{name}/commit/{oid}"
            return self._answer({"success": True, "commitOid": oid, "commitUrl": url})
        return self._answer({"error": path}, 404)

    do_GET = do_HEAD = do_POST = _serve

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

"""A server for the page that only this machine reaches, and that reaches nothing."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

from flip_sklearn.cli.explorer.page import import_gradio, make_page
from flip_sklearn.cli.explorer.readings import MAX_FILE_BYTES, Explorer
from flip_sklearn.cli.explorer.style import STYLE

HOST = "127.0.0.1"
_LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}
# The page makes these requests. Gradio has others: files of this machine, a proxy, recordings, an API.
_PATHS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static)/.+|"
    r"/gradio_api/(queue/(join|data)|upload|upload_progress|heartbeat/\w+|startup-events|app_id|theme\.css|"
    r"cancel|reset)/?"
)
# Bodies of requests other than uploads: two texts or vectors, with the state of the page.
_MAX_BODY_BYTES = 20_000_000
_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "manifest-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


class Server:
    """The page of a model on a port of this machine; port 0 is a free one.

    Raises
    ------
    ValueError
        If the port is in use or may not be used.
    ImportError
        If Gradio is not installed.
    """

    def __init__(self, explorer: Explorer, model_name: str, port: int) -> None:
        self._socket = _bind(port)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{HOST}:{self.port}/"
        try:
            self._server = _make_server(explorer, model_name, self.port)
        except BaseException:
            self._socket.close()
            raise

    def run(self) -> None:
        """Serve the page until the process gets SIGINT or SIGTERM, or ``stop`` is called."""
        with self._socket:
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let ``run``, in another thread, return."""
        self._server.should_exit = True


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
        bound.listen(128)  # a browser that is opened at once waits for its answer
    except OSError as error:
        bound.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ValueError(
            f"port {port} {why}; pass another one with --port, or --port 0 for a free one."
        ) from None
    return bound


@contextmanager
def _only_settings(settings: dict[str, str]) -> Iterator[None]:
    """Set these variables of Gradio and no others, so that none of the user's opens the page to others."""
    before = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
    for name in before:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)
        os.environ.update(before)


def _make_server(explorer: Explorer, model_name: str, port: int) -> Any:
    uploads = tempfile.TemporaryDirectory(prefix="flip-sklearn-")
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads.name}

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        # Gradio also reads some of its variables while it serves.
        with uploads, _only_settings(settings):
            yield

    with _only_settings(settings):
        gr = import_gradio()
        import uvicorn
        from fastapi import FastAPI

        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
        app = gr.mount_gradio_app(
            *(app, make_page(explorer, model_name), ""),
            server_name=HOST,
            server_port=port,
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            show_error=False,
            max_file_size=MAX_FILE_BYTES,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=_theme(gr),
            css=STYLE,
        )
    config = uvicorn.Config(
        Guard(app), log_level="critical", access_log=False, ws="none", timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config)


def _theme(gr: Any) -> Any:
    """Return a theme with fonts of the reader's machine, and text with enough contrast for everyone."""
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    )
    quiet, quiet_dark, blue = "*neutral_600", "*neutral_300", "*primary_700"
    return theme.set(
        block_info_text_color=quiet,
        block_info_text_color_dark=quiet_dark,
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        body_text_color_subdued=quiet,
        body_text_color_subdued_dark=quiet_dark,
        button_primary_background_fill=blue,
        button_primary_background_fill_dark=blue,
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        color_accent=blue,
    )


class Guard:
    """ASGI middleware: requests of the page and of no other site, and no request to another server."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = _refuse(scope["path"], headers)
        if refused is not None:
            status, text = refused
            fields = [(b"content-type", b"text/plain"), *_protection("")]
            await send({"type": "http.response.start", "status": status, "headers": fields})
            await send({"type": "http.response.body", "body": f"{text}\n".encode()})
            return
        nonce = secrets.token_urlsafe(16)
        is_page = scope["path"] == "/"
        body = b""
        start: dict[str, Any] = {}

        async def send_guarded(message: dict[str, Any]) -> None:
            nonlocal body, start
            if message["type"] == "http.response.start":
                replaced = {b"content-length"} if is_page else set()
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in replaced]
                start = {**message, "headers": [*kept, *_protection(nonce)]}
                if not is_page:
                    await send(start)
                return
            if not is_page:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                # A script of a text that was not escaped would have no nonce.
                await send(start)
                await send({**message, "body": body.replace(b"<script", f'<script nonce="{nonce}"'.encode())})

        if is_page:  # its answer is changed, so that it must not be compressed
            scope = {**scope, "headers": [h for h in scope["headers"] if h[0] != b"accept-encoding"]}
        await self._app(scope, receive, send_guarded)


def _refuse(path: str, headers: dict[str, str]) -> tuple[int, str] | None:
    """Return the status and the reason if a request is not one of the page."""
    for name in ("host", "origin"):
        value = headers.get(name)
        if value is None and name == "origin":
            continue
        address = urlsplit(value if name == "origin" else f"//{value}")
        if address.hostname not in _LOCAL_NAMES:
            return 403, "This page is for its own machine; from another one, use ssh -L."
    if not _PATHS.fullmatch(path):
        return 404, "Not a part of the page."
    length = headers.get("content-length", "0")
    if "/upload" not in path and (not length.isdigit() or int(length) > _MAX_BODY_BYTES):
        return 413, f"A request may have {_MAX_BODY_BYTES} bytes."
    return None


def _protection(nonce: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-security-policy", _POLICY.format(nonce=nonce).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]

"""Runs the blocks of a page from top to bottom, and the commands in them, in forked processes.

Importing what the pages use takes seconds. One process does it once and then forks itself: for each page, and
for each program that the Bash blocks of a page start. In the place of these programs is a small client, which
passes its arguments, environment and streams to that process and ends with the exit code that comes back.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.helpers import page_commands, page_files
from tests.helpers.blocks import Block, code_blocks, prints
from tests.helpers.processes import PATIENCE, Child, note, set_standard_streams

IMPORTED = (
    *("flip_sklearn.cli.commands", "flip_sklearn.datasets", "flip_sklearn.diagnostics"),
    *("flip_sklearn.encoders", "flip_sklearn.plots", "flip_sklearn.report", "flip_sklearn.vocabulary"),
    *("matplotlib.pyplot", "pandas", "pyarrow.parquet", "sentence_transformers"),
)
SCRIPT = re.compile(r"# ([\w-]+\.py)\n")  # a block that begins so is the file, which later commands run
CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    code = server.recv(1)
os._exit(code[0] if code else 1)
"""


class Pages:
    """The process that runs pages, and the folder of the commands; use it as a context."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pages"))  # its name is short, as those of sockets must be
        self.commands, hub = self.folder / "bin", self.folder / "hub"
        environment = {
            **os.environ,
            "BROWSER": "true",  # the program that does nothing
            "FLIP_SKLEARN_CACHE": str(self.folder / "sentences"),
            "HF_HUB_CACHE": str(hub),
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "agg",
            "PATH": f"{self.commands}{os.pathsep}{os.environ['PATH']}",
        }
        client = self.folder / "client.py"
        client.write_text(CLIENT.format(path=str(self.folder / "socket")))
        self.commands.mkdir()
        for name in ("page", *page_commands.COMMANDS):
            script = self.commands / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{client}" {name} "$@"\n')
            script.chmod(0o755)
        self.environment = environment
        self.child = Child(_serve, str(self.folder / "socket"), environment)
        assert self.child.receive() == ("note", "ready"), "the process of the pages did not start"

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        shutil.rmtree(self.folder)

    def run(self, page: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run the blocks of a page in a folder; ``page`` says which files and stand-ins it has."""
        job = folder / ".page.json"
        job.write_text(json.dumps([page, text]))
        return subprocess.run(
            [self.commands / "page", job],
            cwd=folder,
            env={**self.environment, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
        )


def _serve(path: str, environment: Mapping[str, str]) -> None:
    """Import what the pages use, and fork a process for each request."""
    signal.alarm(10 * int(3 * PATIENCE))
    os.environ.clear()
    os.environ.update(environment)
    assert "huggingface_hub" not in sys.modules  # it reads its variables when it is imported
    for name in IMPORTED:
        importlib.import_module(name)
    store = Path(environment["HF_HUB_CACHE"])
    if (pid := os.fork()) == 0:  # libraries may start threads, which would be lost in forked processes
        _end_with(page_files.write_hub, store)
    assert os.waitpid(pid, 0)[1] == 0
    page_files.shorten_data(store)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        note("ready")
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _end_with(_answer, connection)
            connection.close()


def _end_with(function: Any, *arguments: Any) -> None:
    """Call a function, and end this process with its exit code."""
    code: Any = 1
    try:
        code = function(*arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _answer(connection: socket.socket) -> None:
    """Run one command, and send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.alarm(int(3 * PATIENCE))
    size, streams, *_ = socket.recv_fds(connection, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += connection.recv(2**16)
    (name, *arguments), folder, environment = json.loads(request)
    if (pid := os.fork()) == 0:
        connection.close()
        signal.alarm(int(3 * PATIENCE))
        set_standard_streams(*streams)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        _end_with(run_page if name == "page" else page_commands.COMMANDS[name], arguments)
    for stream in streams:
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(bytes([code if code >= 0 else 128 - code]))


def run_page(arguments: list[str]) -> None:
    """Run all blocks in this process, in one namespace and one folder."""
    page, text = json.loads(Path(arguments[0]).read_text())
    warnings.simplefilter("ignore")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    page_files.prepare(page)
    blocks = code_blocks(text)
    for i, block in enumerate(blocks):
        place = f"{page}, line {block.line + 1}"
        sys.stdout.write(f"-- {place}\n")
        sys.stdout.flush()
        if script := SCRIPT.match(block.source):
            if not any(script[1] in later.source for later in blocks[i + 1 :] if later.language == "bash"):
                raise SystemExit(f"{place}: no command of the page runs {script[1]}")
            Path(script[1]).write_text(block.source)
            continue
        run = run_python_block if block.language == "python" else run_bash
        printed = run(block, place, namespace)
        sys.stdout.write(printed)
        if block.output is not None and not prints(block.output, printed):
            raise SystemExit(f"{place}: the page says that this is printed:\n{block.output}")


def run_python_block(block: Block, place: str, namespace: dict[str, Any]) -> str:
    """Return what a program or a session prints; a session must print its results."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if not block.source.startswith(">>>"):
            exec(compile("\n" * block.line + block.source, place.partition(",")[0], "exec"), namespace)
            return printed.getvalue()
        test = doctest.DocTestParser().get_doctest(block.source, namespace, place, None, block.line)
        test.globs = namespace
        failed = doctest.DocTestRunner().run(test, clear_globs=False).failed
    if failed:
        raise SystemExit(f"{place}: {printed.getvalue()}")
    return printed.getvalue()


def run_bash(block: Block, place: str, namespace: dict[str, Any]) -> str:
    """Return what the commands print; the first one that fails is an error."""
    done = subprocess.run(
        [page_commands.BASH, "-euo", "pipefail", "-c", block.source], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"{place}: exit code {done.returncode} after {done.stdout}")
    return done.stdout

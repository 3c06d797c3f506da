"""Processes for tests, forked from one that has imported the package, since importing takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import types
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
# The package loads its modules when they are first used, so that naming it alone would load nothing.
PRELOADED = [
    *(
        "torch",
        "flip_sklearn.extractor",
        "flip_sklearn.path",
        "flip_sklearn.splice",
        "flip_sklearn.vocabulary",
    ),
    *("sklearn.model_selection", "scipy.optimize", "pytest", "hypothesis"),
]
CONTEXT.set_forkserver_preload(PRELOADED)
# glibc then gives large blocks back as soon as they are freed, so that peaks add up to what is in use.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
PATIENCE = 120.0  # seconds, for a machine that is busy with other things
# Threads of torch in the tests and in the processes that they start: equal bits need equal numbers.
N_THREADS = int(os.environ.get("FLIP_TEST_THREADS", "1"))


class Child:
    """A process that runs ``target(*arguments)``; use it as a context, which ends the process."""

    def __init__(self, target: Callable[..., Any], *arguments: Any) -> None:
        with mock.patch.dict(os.environ, ENVIRONMENT):
            forkserver.ensure_running()
        self.pipe, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_run, args=(other, target, arguments), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def receive(self) -> Any:
        """The next value that the process sends."""
        if not self.pipe.poll(PATIENCE):
            raise TimeoutError("the process sent nothing")
        return self.pipe.recv()

    def result(self) -> Any:
        """What ``target`` returned; EOFError if the process was killed."""
        kind, value = self.receive()
        while kind == "note":
            kind, value = self.receive()
        self.process.join(PATIENCE)
        assert kind == "result", value
        return value

    def running(self) -> bool:
        """Whether the process neither ended nor sent anything."""
        return self.process.is_alive() and not self.pipe.poll()

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.kill(self.process.pid, signal.SIGINT)

    def kill(self) -> bool:
        """SIGKILL; whether it hit a running process."""
        self.process.kill()
        self.process.join(PATIENCE)
        return bool(self.process.exitcode == -signal.SIGKILL)


_pipe: Any = None


def note(value: Any) -> None:
    """Send a value to the parent from inside ``target``."""
    _pipe.send(("note", value))


def in_process(target: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a child process and return its result."""
    with Child(target, *arguments) as child:
        return child.result()


def not_preloaded() -> list[str]:
    """Modules of PRELOADED that this process lacks; the server leaves out silently what it cannot import."""
    return [name for name in PRELOADED if name not in sys.modules]


def run_python(
    *command: object, cwd: Path, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``("-c", code, *arguments)`` or ``(script, *arguments)`` as Python does, in a forked process.

    What is preloaded has been imported already. So tests of imports, of environment variables that are read
    when a library is imported, and of what Python does when it ends need ``subprocess.run``.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin)
        arguments = [str(part) for part in command]
        with Child(_become_python, arguments, streams, {**os.environ, **(env or {})}, cwd) as child:
            child.process.join(3 * PATIENCE)
            code = child.process.exitcode
        out, err = (path.read_text() for path in streams[1:])
    if code is None:
        raise TimeoutError(f"the process did not end; it printed {out[-3000:]}{err[-3000:]}")
    return subprocess.CompletedProcess(arguments, code, out, err)


def _become_python(command: list[str], streams: list[Path], env: dict[str, str], cwd: Path) -> None:
    """Run a command in this process with the given standard streams, and end it."""
    with streams[0].open("rb") as stdin, streams[1].open("wb") as stdout, streams[2].open("wb") as stderr:
        set_standard_streams(stdin.fileno(), stdout.fileno(), stderr.fileno())
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    code: Any = 0
    try:
        if command[0] == "-c":
            sys.argv = ["-c", *command[2:]]
            sys.path.insert(0, "")
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(command[1], "<string>", "exec"), vars(main))
        else:
            sys.argv = command
            sys.path.insert(0, str(Path(command[0]).parent))
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else int(code is not None))


def set_standard_streams(stdin: int, stdout: int, stderr: int) -> None:
    """Let this process read and write other files, as if it had been started with them."""
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)


def _run(pipe: Any, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    global _pipe
    _pipe = pipe
    torch.set_num_threads(N_THREADS)
    # A shell ignores Ctrl-C for what it starts in the background, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(int(3 * PATIENCE))  # a parent that is killed itself does not end us
    try:
        pipe.send(("result", target(*arguments)))
    except SystemExit:
        raise
    except BaseException:
        pipe.send(("error", traceback.format_exc()))

"""Child processes for tests, forked from one that has imported the package, since importing takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["flip_sklearn", "sklearn.model_selection", "scipy.optimize", "pytest", "hypothesis"]
)
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
    except BaseException:
        pipe.send(("error", traceback.format_exc()))

"""Runs the command line in tests, and a corpus with a model for it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import termios
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import flip_sklearn.io
from flip_sklearn.cli import main
from tests.helpers.paths import ROOT
from tests.helpers.processes import ENVIRONMENT, PATIENCE, Child, set_standard_streams
from tests.helpers.tiny_models import bag_of_words_model

WORDS = [
    *("red", "green", "blue", "dog", "cat", "bird", "runs", "sings"),
    *("sleeps", "hill", "river", "tree", "house", "road", "night", "day"),
]
TRANSLATIONS = [f"{word}en" for word in WORDS]
N, D = 400, 24


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus, and a model that the command line trained on it."""

    folder: Path
    text: Path
    embeddings: Path
    encoder: Path
    model: Path
    lines: list[str]
    X: np.ndarray


def make_corpus(folder: Path) -> Corpus:
    """Write N sentences of four words, their embeddings, an encoder and a model."""
    encoder, vectors = bag_of_words_model(folder / "encoder", WORDS + TRANSLATIONS, D)
    rng = np.random.default_rng(0)
    drawn = [rng.choice(len(WORDS), size=4, replace=False) for _ in range(N)]
    lines = [" ".join(WORDS[j] for j in row).capitalize() for row in drawn]
    X = np.stack([vectors[row].mean(axis=0) for row in drawn])
    text, embeddings, model = folder / "corpus.txt", folder / "corpus.npy", folder / "model"
    text.write_text("".join(f"{line}\n" for line in lines))
    np.save(embeddings, X)
    code, _, err = run("fit", "-t", text, "--embeddings", embeddings, "-o", model, "--json", "-q")
    assert code == 0, err
    return Corpus(folder, text, embeddings, encoder, model, lines, X)


def run(*arguments: Any, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command in this process; return exit code, standard output and standard error."""
    streams = [io.TextIOWrapper(io.BytesIO(data), "utf-8") for data in (stdin, b"", b"")]
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = streams
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
    for stream in streams[1:]:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])
    return code, out, err


def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command in a new process with pipes."""
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    command = [sys.executable, "-m", "flip_sklearn", *map(str, arguments)]
    environment = {**os.environ, **ENVIRONMENT, **options.pop("env", {})}
    return subprocess.Popen(command, env=environment, cwd=ROOT, **pipes, **options)


class Forked(Child):
    """A command in a forked process, for tests that are not about imports.

    Its standard error is a pipe, or a terminal with progress bars at once.
    """

    def __init__(self, *arguments: Any, terminal: bool = False) -> None:
        (stdin, own_stdin), (own_stdout, stdout) = os.pipe(), os.pipe()
        own_stderr, stderr = os.openpty() if terminal else os.pipe()
        if terminal:
            termios.tcsetwinsize(own_stderr, (40, 100))
        self.stdin = os.fdopen(own_stdin, "wb")
        self.stdout, self.stderr = os.fdopen(own_stdout, "rb"), os.fdopen(own_stderr, "rb")
        with ExitStack() as stack:
            streams = [stack.enter_context(Connection(number)) for number in (stdin, stdout, stderr)]
            super().__init__(_run_forked, [str(argument) for argument in arguments], streams, terminal)

    def wait(self) -> int | None:
        """The exit code, as soon as there is one."""
        self.process.join(PATIENCE)
        return self.process.exitcode

    def communicate(self) -> tuple[bytes, bytes]:
        """Close standard input, and return the rest of the output; the second must fit into a pipe."""
        self.stdin.close()
        output = self.stdout.read(), self.stderr.read()
        self.wait()
        return output

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for stream in (self.stdin, self.stdout, self.stderr):
            with suppress(OSError):
                stream.close()


def _run_forked(arguments: list[str], streams: list[Connection], bars_at_once: bool) -> None:
    set_standard_streams(*(stream.fileno() for stream in streams))
    for stream in streams:
        stream.close()
    if bars_at_once:
        flip_sklearn.io.PROGRESS_DELAY = 0.0
    main(arguments)


def error_line(code: int, out: str, err: str) -> str:
    """Return the error message of a command that must have failed with one line."""
    assert code == 1
    assert out == ""
    assert err.startswith("flip-sklearn: error: ")
    assert err.count("\n") == 1
    return err

"""Runs the command line in tests, and a corpus with a model for it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.cli import main
from tests.helpers.paths import ROOT
from tests.helpers.processes import ENVIRONMENT
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


BARS_AT_ONCE = """
from flip_sklearn import io
io.PROGRESS_DELAY = 0.0
from flip_sklearn.cli import main
main()
"""


def start(*arguments: Any, terminal: bool = False, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command in another process; its standard error is a pipe, or a terminal with bars at once."""
    controller, stderr = os.openpty() if terminal else (None, subprocess.PIPE)
    process = subprocess.Popen(
        [
            sys.executable,
            *(["-c", BARS_AT_ONCE] if terminal else ["-m", "flip_sklearn"]),
            *map(str, arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **ENVIRONMENT, **options.pop("env", {})},
        cwd=ROOT,
        **options,
    )
    if controller is not None:
        termios.tcsetwinsize(controller, (40, 100))
        os.close(stderr)
        process.stderr = os.fdopen(controller, "rb")
    return process


def error_line(code: int, out: str, err: str) -> str:
    """Return the error message of a command that must have failed with one line."""
    assert code == 1
    assert out == ""
    assert err.startswith("flip-sklearn: error: ")
    assert err.count("\n") == 1
    return err

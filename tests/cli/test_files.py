"""Texts and embeddings from files, pipes and standard input, and errors that name the line."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli import files
from tests.helpers.command_line import Corpus, N, error_line, run


def test_errors_name_the_file_and_line(corpus: Corpus, tmp_path: Path) -> None:
    def answer(*arguments: Any, stdin: bytes = b"") -> str:
        return error_line(*run("keywords", "-q", "-m", corpus.model, *arguments, stdin=stdin))

    encoder = ("-e", corpus.encoder)
    assert "does not exist" in answer("-t", tmp_path / "none.txt", *encoder)
    assert "a folder" in answer("-t", tmp_path, *encoder)
    assert "--encoder" in answer("-t", corpus.text)
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(tmp_path / "m", encoder="LaBSE")
    assert "its author notes: LaBSE" in error_line(*run("keywords", "-m", tmp_path / "m", "-t", "-"))
    wrong = answer("-t", "-", *encoder, stdin="gr\u00fcn\n".encode("latin-1"))
    assert "line 1 of standard input is not UTF-8" in wrong
    assert "0xfc" in wrong
    npy = io.BytesIO()
    np.save(npy, corpus.X)
    whole = npy.getvalue()
    for data, message in (
        (b"", "not a .npy file"),
        (b"\x93NUMPY\x09\x00", "version (9, 0)"),
        (whole[: len(whole) // 2], "truncated"),
        (whole[:40], "damaged header"),
    ):
        assert message in answer("--embeddings", "-", stdin=data)
        (tmp_path / "x.npy").write_bytes(data)
        assert message in answer("--embeddings", tmp_path / "x.npy")
    for array, message in (
        (np.array([{}]), "contains object"),
        (corpus.X[0], "shape (24,)"),
        (np.asfortranarray(corpus.X), "Fortran"),
        (corpus.X[:, :5], "24"),
        (np.where(np.arange(N)[:, None] == 7, np.nan, corpus.X), "row 7"),
    ):
        np.save(tmp_path / "x.npy", array, allow_pickle=True)
        code, _, err = run("keywords", "-q", "-m", corpus.model, "--embeddings", tmp_path / "x.npy")
        assert (code, message in err) == (1, True), err


def test_embeddings_from_a_named_pipe(corpus: Corpus, tmp_path: Path) -> None:
    """A named pipe cannot be memory-mapped."""
    pipe = tmp_path / "x.npy"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(corpus.embeddings.read_bytes()))
    writer.start()
    piped = run("evaluate", "-m", corpus.model, "-t", corpus.text, "--embeddings", pipe)
    writer.join()
    assert piped[0] == 0, piped[2]
    arguments = ("evaluate", "-m", corpus.model, "-t", corpus.text, "--embeddings")
    assert piped[1] == run(*arguments, corpus.embeddings)[1]
    np.save(tmp_path / "none.npy", corpus.X[:0])
    assert "no rows" in error_line(*run(*arguments, tmp_path / "none.npy"))


def test_lines_before_an_invalid_one_are_printed(corpus: Corpus) -> None:
    """The output before a failure is correct, and the exit code is 1."""
    code, out, err = run(
        *("keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder),
        stdin=b"dog runs\n" * 1024 + b"\xff\n",
    )
    assert code == 1
    assert out.count("\n") == 1024
    assert "line 1025" in err


def test_blocks_concatenate_to_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float16)
    np.save(tmp_path / "x.npy", X)
    for size in (1, 70, 10**6):
        monkeypatch.setattr(files, "_BLOCK_BYTES", size)
        blocks = list(files.read_embedding_blocks(str(tmp_path / "x.npy")))
        np.testing.assert_array_equal(np.concatenate(blocks), X)
    assert files.count_embeddings(str(tmp_path / "x.npy")) == 23

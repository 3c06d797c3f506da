"""Texts and embeddings from files, pipes and standard input, and errors that name the line."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli import vectors
from flip_sklearn.vocabulary import ConceptVectorizer
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


@pytest.mark.parametrize(
    "shape", ["(-1, 24)", "(-1, 5)", "(True, 24)", "(400, -24)", "(2, 2**70)", f"(1, {2**40})"]
)
@pytest.mark.parametrize("command", ["keywords", "evaluate", "fit"])
def test_impossible_shapes_are_refused(command: str, shape: str, corpus: Corpus, tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + corpus.X.tobytes()
    (tmp_path / "x.npy").write_bytes(data)
    rest = {"keywords": ["-m", corpus.model], "evaluate": ["-m", corpus.model, "-t", corpus.text]}
    arguments = rest.get(command, ["-t", corpus.text, "-o", tmp_path / "m"])
    err = error_line(*run(command, *arguments, "--embeddings", tmp_path / "x.npy"))
    assert "shape" in err or "damaged header" in err
    piped = error_line(*run(command, *arguments, "--embeddings", "-", stdin=data))
    assert "standard input" in piped


def damaged_encoders(corpus: Corpus, folder: Path) -> list[Path]:
    """Copies of the encoder, each with one file that is truncated, empty or of other content."""
    copies = []
    for name in ("model.safetensors", "tokenizer.json", "modules.json", "config_sentence_transformers.json"):
        content = (corpus.encoder / name).read_bytes()
        for kind, data in (
            ("cut", content[:60]),
            ("empty", b""),
            ("other", b'{"a": [1]}'),
            ("text", b"\xff" * 99),
        ):
            if (name, kind) == ("config_sentence_transformers.json", "other"):
                continue  # unknown keys are ignored
            copies.append(shutil.copytree(corpus.encoder, folder / f"{name}-{kind}"))
            (copies[-1] / name).write_bytes(data)
    copies.append(shutil.copytree(corpus.encoder, folder / "tokens-beyond-the-weights"))
    tokenizer = json.loads((copies[-1] / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: number + 1000 for word, number in vocabulary.items()}
    (copies[-1] / "tokenizer.json").write_text(json.dumps(tokenizer))
    return copies


def test_damaged_encoders_are_named(corpus: Corpus, tmp_path: Path) -> None:
    for encoder in damaged_encoders(corpus, tmp_path):
        err = error_line(*run("evaluate", "-q", "-m", corpus.model, "-t", corpus.text, "-e", encoder))
        assert str(encoder) in err, err
        assert "download or save it again" in err


def test_home_directory_in_paths(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell does not expand it after "=" and NAME=, nor does Python."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(shutil.copytree(corpus.folder, tmp_path / "data").parent)
    (tmp_path / "names.jsonl").write_text("[]\n" * (N - 1) + '["dog"]\n')
    text, embeddings = "--text=~/data/corpus.txt", "--embeddings=~/data/corpus.npy"
    for command in (
        ("fit", text, embeddings, "--out=~/m", "-q"),
        ("keywords", "--model=~/m", text, "--encoder=~/data/encoder", "--cache=~/cache"),
        ("keywords", "--model=~/m", embeddings),
        ("evaluate", "--model=~/m", text, embeddings, "--entities=~/names.jsonl"),
        (
            "report",
            "--text=en=~/data/corpus.txt",
            "--embeddings=en=~/data/corpus.npy",
            "--out=~/page.html",
            "--no-ranks",
        ),
    ):
        code, _, err = run(*command)
        assert code == 0, err
    flip = FLiPExtractor.from_pretrained("~/m").set_params(checkpoint_dir="~/checkpoints")
    flip.save_pretrained("~/again")
    Y = ConceptVectorizer(vocabulary=flip.vocabulary_.tolist()).transform(corpus.lines)
    flip.set_params(vocabulary=flip.vocabulary_, max_iter=1).fit(corpus.X, Y)
    made = {"m", "cache", "page.html", "again", "checkpoints"}
    assert {path.name for path in tmp_path.glob("[!.]*")} == made | {"data", "names.jsonl"}


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
        stdin=b"dog runs\n" * 1034 + b"\xff\n",
    )
    assert code == 1
    assert out.count("\n") == 1034
    assert "line 1035" in err


def test_blocks_concatenate_to_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float16)
    np.save(tmp_path / "x.npy", X)
    for size in (1, 70, 10**6):
        monkeypatch.setattr(vectors, "_BLOCK_BYTES", size)
        blocks = list(vectors.read_embedding_blocks(str(tmp_path / "x.npy")))
        np.testing.assert_array_equal(np.concatenate(blocks), X)
    assert vectors.count_embeddings(str(tmp_path / "x.npy")) == 23

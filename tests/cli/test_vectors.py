"""Embeddings in .npz, Parquet and safetensors files: the numbers of the array, and errors that name it."""

from __future__ import annotations

import json
import re
import resource
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli import vectors
from flip_sklearn.cli.options import parse_named_files, split_location
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.command_line import Corpus, error_line, run
from tests.helpers.processes import in_process

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

X = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
FORMATS = ["npy", "npz", "compressed.npz", "parquet", "fixed.parquet", "tensor.parquet", "safetensors"]


@pytest.fixture(scope="module")
def model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has probabilities, as find and compare need them."""
    words = FLiPExtractor.from_pretrained(corpus.model).vocabulary_
    Y = ConceptVectorizer(vocabulary=words.tolist()).transform(corpus.lines)
    flip = FLiPExtractor(vocabulary=words, max_iter=2, early_stopping=True, random_state=0).fit(corpus.X, Y)
    folder = tmp_path_factory.mktemp("vectors") / "model"
    flip.save_pretrained(folder)
    return folder


def list_column(array: np.ndarray, name: str = "parquet") -> Any:
    """A column of one list per row: of any length, of a fixed length, or tensors of a fixed shape."""
    numbers = pa.array(array.ravel())
    d = array.shape[1]
    if name == "parquet":
        return pa.ListArray.from_arrays(pa.array(np.arange(len(array) + 1) * d, pa.int32()), numbers)
    fixed = pa.FixedSizeListArray.from_arrays(numbers, d)
    if name == "fixed.parquet":
        return fixed
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(numbers.type, [d]), fixed)


def write(folder: Path, name: str, array: np.ndarray, key: str = "embedding") -> Path:
    """Write an array beside others that hold no vectors."""
    path = folder / f"x.{name}"
    ids = np.arange(len(array))
    if name == "npy":
        np.save(path, array)
    elif name.endswith("npz"):
        (np.savez if name == "npz" else np.savez_compressed)(path, id=ids, **{key: array})
    elif name == "safetensors":
        save_file({"id": ids, key: array}, path)
    else:
        table = {"id": ids, "text": [f"text {i}" for i in ids], key: list_column(array, name)}
        pq.write_table(pa.table(table), path, row_group_size=7)
    return path


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_array(
    name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = (10 * X).astype(dtype)
    path = str(write(tmp_path, name, array))
    for location in (path, path if name == "npy" else f"{path}::embedding"):
        opened = vectors.open_embeddings(location)
        assert (opened.dtype, opened.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(opened, array)
        assert vectors.count_embeddings(location) == len(X)
        for size in (1, 70, 10**6):
            monkeypatch.setattr(vectors, "_BLOCK_BYTES", size)
            blocks = list(vectors.read_embedding_blocks(location))
            assert all(block.nbytes <= max(size, array[0].nbytes) for block in blocks)
            np.testing.assert_array_equal(np.concatenate(blocks), array)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    tensor = torch.from_numpy(X).to(torch.bfloat16)
    save_tensors({"x": tensor}, tmp_path / "x.safetensors")
    expected = tensor.float().numpy()
    for read in (
        vectors.open_embeddings,
        lambda path: np.concatenate(list(vectors.read_embedding_blocks(path))),
    ):
        found = read(str(tmp_path / "x.safetensors"))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", FORMATS[1:])
def test_one_of_several_arrays(name: str, tmp_path: Path) -> None:
    """By its name; without one, the only one of floating-point numbers; names may have dots and colons."""
    other, codes = X[:, :2].copy(), X[:, :3].astype(np.int8)
    for keys in ({"a.b": X, "tokens": codes}, {"a.b": X, "a": other}, {"a.b": X, "c d:e": other}):
        path = tmp_path / f"several.{name}"
        if name.endswith("parquet"):
            pq.write_table(pa.table({key: list_column(value, name) for key, value in keys.items()}), path)
        elif name.endswith("npz"):
            np.savez(path, **keys)
        else:
            save_file(keys, path)
        for key, value in keys.items():
            np.testing.assert_array_equal(vectors.open_embeddings(f"{path}::{key}"), value)
        if "tokens" in keys:
            np.testing.assert_array_equal(vectors.open_embeddings(str(path)), X)
    with pytest.raises(ValueError, match=r"has 2 .*\('a.b', 'c d:e'\); name the embeddings as FILE::NAME"):
        vectors.open_embeddings(str(path))
    with pytest.raises(ValueError, match=r"has no 'x'; it has 'a.b', 'c d:e'"):
        vectors.open_embeddings(f"{path}::x")


def test_arrays_that_are_not_read_do_no_harm(tmp_path: Path) -> None:
    """A header of version 3, for names of fields that are not Latin."""
    other = np.zeros((2, 2), dtype=[("\u03b1", "f4")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez(tmp_path / "x.npz", other=other, x=X)
    np.testing.assert_array_equal(vectors.open_embeddings(f"{tmp_path}/x.npz"), X)


def test_format_is_known_by_the_content(tmp_path: Path) -> None:
    for name in ("npy", "npz", "parquet"):
        path = write(tmp_path, name, X).rename(tmp_path / "renamed.bin")
        np.testing.assert_array_equal(vectors.open_embeddings(str(path)), X)


def test_file_names_with_separators(tmp_path: Path) -> None:
    """An existing file is taken as it is."""
    np.save(tmp_path / "a::b.npy", X)
    assert len(vectors.open_embeddings(f"{tmp_path}/a::b.npy")) == len(X)
    path = write(tmp_path, "npz", X)
    assert split_location(f"{path}::a::b") == (str(path), "a::b")
    (tmp_path / "a=b").mkdir()
    inside = write(tmp_path / "a=b", "npz", X)
    assert parse_named_files([f"{inside}::x", f"de={path}::y"], "--embeddings") == {
        "embeddings": f"{inside}::x",
        "de": f"{path}::y",
    }


def test_commands_read_every_format(corpus: Corpus, model: Path, tmp_path: Path) -> None:
    """The output of each command is that of the .npy file."""
    commands: dict[str, list[Any]] = {
        "keywords": ["-m", model, "--scores"],
        "find": ["-m", model, "dog", "--scores"],
        "evaluate": ["-m", model, "-t", corpus.text, "--json"],
        "compare": ["-m", model, "--json"],
    }
    locations = [write(tmp_path, name, corpus.X) for name in ("npz", "parquet", "safetensors")]
    for command, arguments in commands.items():
        twice = 2 if command == "compare" else 1
        expected = run(command, *arguments, "--embeddings", *[corpus.embeddings] * twice)
        assert expected[0] == 0, expected[2]
        for path in locations:
            for location in (path, f"{path}::embedding"):
                assert run(command, *arguments, "--embeddings", *[location] * twice) == expected


def test_fit_and_report_on_columns_of_a_table(corpus: Corpus, tmp_path: Path) -> None:
    """Texts and embeddings are columns of one file; views are two of its columns."""
    path = tmp_path / "t.parquet"
    columns = {"text": corpus.lines, "a": list_column(corpus.X), "b": list_column(corpus.X + 1)}
    pq.write_table(pa.table(columns), path)
    fit = ("fit", "-q", "-t", path, "--column", "text", "--max-iter", 2, "--json")
    code, out, err = run(*fit, "--embeddings", f"{path}::a", "-o", tmp_path / "m")
    assert code == 0, err
    expected = run(*fit, "--embeddings", corpus.embeddings, "-o", tmp_path / "n")[1]
    assert {**json.loads(out), "out": ""} == {**json.loads(expected), "out": ""}
    err = error_line(*run(*fit, "--embeddings", path, "-o", tmp_path / "o"))
    assert "has 2 columns of lists of numbers ('a', 'b')" in err


Faulty = dict[str, tuple[Callable[[Path], object], str]]
ROWS = [[0.0] * 24] * 3


def npz(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def npz_of(path: Path, data: bytes) -> None:
    """An archive with one array, of any bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", data)


def header(shape: str, n_bytes: int = 118) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(n_bytes - 1) + "\n"
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text.encode()


def parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


FAULTS: Faulty = {
    "object.npz": (lambda p: npz(p, x=np.array([[{}]])), "'x' of .* contains object, not numbers"),
    "only-1d.npz": (
        lambda p: npz(p, x=X[0], y=X[1]),
        "no arrays with two dimensions; name .* It has 'x', 'y'",
    ),
    "empty.npz": (lambda p: npz(p), "no arrays .* It has none"),
    "one-1d.npz": (lambda p: npz(p, x=X[0]), r"'x' of .* contains an array of shape \(5,\)"),
    "fortran.npz": (lambda p: npz(p, x=np.asfortranarray(X)), "Fortran"),
    "short.npz": (lambda p: npz_of(p, header("(2, 24)") + bytes(24)), "has 24 bytes, and its header 192"),
    "huge.npz": (lambda p: npz_of(p, header("(9999999999999, 24)")), "has 0 bytes"),
    "header.npz": (lambda p: npz_of(p, header("(2, 24)", 2**20)), "damaged header .1048576 bytes"),
    "header.npy": (lambda p: p.write_bytes(header("(2, 24)", 2**20)), "damaged header .1048576 bytes"),
    "text.npz": (lambda p: p.write_text("a text"), "cannot be read"),
    "text.parquet": (lambda p: p.write_text("a text"), "cannot be read"),
    "text.safetensors": (lambda p: p.write_text("a text, longer than a number"), "cannot be read: .* header"),
    "huge.safetensors": (lambda p: p.write_bytes(b"\xff" * 64), "cannot be read: .* header"),
    "none.safetensors": (lambda p: save_file({"x": X[0], "y": X[1]}, p), "no tensors with two dimensions"),
    "bool.safetensors": (lambda p: save_file({"x": X > 0}, p), "contains BOOL; use one of F16"),
    "no-lists.parquet": (
        lambda p: parquet(p, id=["1"], text=["a"]),
        "no columns of lists of numbers; .* It has 'id', 'text'",
    ),
    "nested.parquet": (lambda p: parquet(p, x=[[[0.0]]]), "is of type list<.*list<.*; it must hold one list"),
    "ragged.parquet": (
        lambda p: parquet(p, x=[*ROWS, [1.0]]),
        "column 'x' of .*: 24 numbers in row 0, 1 in row 3; every row needs one vector",
    ),
    "null.parquet": (lambda p: parquet(p, x=[*ROWS, None]), "has no vector in row 3"),
    "null-first.parquet": (lambda p: parquet(p, x=[None, *ROWS]), "has no vector in row 0"),
    "null-number.parquet": (lambda p: parquet(p, x=[*ROWS, [None, *ROWS[0][1:]]]), "missing number in row 3"),
    "nan.parquet": (lambda p: parquet(p, x=[*ROWS, [np.nan] * 24]), "row 3 .* has NaN"),
    "zero-width.parquet": (lambda p: parquet(p, x=pa.array([[]], pa.list_(pa.float32()))), r"shape \(1, 0\)"),
    "width.parquet": (
        lambda p: parquet(p, x=[[0.0] * 5]),
        "vectors of 5 numbers, .* reads vectors of 24; pass",
    ),
    "width.npz": (lambda p: npz(p, x=X), "vectors of 5 numbers, and the model reads vectors of 24; pass"),
    "folder.parquet": (lambda p: p.mkdir(), "is a folder"),
    "none.parquet": (lambda p: None, "does not exist"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_files(name: str, model: Path, tmp_path: Path) -> None:
    make, message = FAULTS[name]
    make(tmp_path / name)
    arguments = ("-q", "-m", model, "--embeddings", tmp_path / name)
    code, _, err = run("keywords", *arguments)  # rows before a fault are answered
    assert (code, err.count("\n")) == (1, 1), err
    assert re.search(message, err), err
    assert name in err or "row" in err
    assert re.search(message, error_line(*run("find", *arguments, "dog")))


def test_faulty_names(corpus: Corpus, tmp_path: Path) -> None:
    arguments = ("keywords", "-q", "-m", corpus.model, "--embeddings")
    assert "leave ::x out" in error_line(*run(*arguments, f"{corpus.embeddings}::x"))
    assert "leave ::x out" in error_line(*run(*arguments, "-::x", stdin=b"a"))
    assert "does not exist" in error_line(*run(*arguments, tmp_path / "none.npz::x"))
    parquet(tmp_path / "t.parquet", text=["a"], x=ROWS[:1])
    assert "is of type string; it must hold" in error_line(*run(*arguments, f"{tmp_path}/t.parquet::text"))
    for location in ("x.npz::", "::x"):
        code, _, err = run(*arguments, location)
        assert (code, "FILE::NAME" in err) == (2, True), err


def test_truncated_files(corpus: Corpus, tmp_path: Path) -> None:
    for name in ("npz", "compressed.npz", "parquet", "safetensors"):
        path = write(tmp_path, name, corpus.X)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        for command in (["keywords"], ["evaluate", "-t", corpus.text]):
            err = error_line(*run(*command, "-q", "-m", corpus.model, "--embeddings", path))
            assert "cannot be read" in err
            assert path.name in err


def test_no_rows(corpus: Corpus, tmp_path: Path) -> None:
    for name in FORMATS:
        path = write(tmp_path, name, X[:0])
        assert vectors.count_embeddings(str(path)) == 0
        assert list(vectors.read_embedding_blocks(str(path))) == []
        with pytest.raises(ValueError, match="no rows"):
            vectors.open_embeddings(str(path))


def peak() -> int:
    """The peak of the memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_of_reading(location: str) -> int:
    """Bytes by which the peak grows while a file is read in blocks."""
    first = next(blocks := vectors.read_embedding_blocks(location))
    before = peak()
    assert sum(len(block) for block in blocks) > 10 * len(first)
    return peak() - before


def peak_of_opening(location: str) -> int:
    """Bytes by which the peak grows while a file is read as one array."""
    before = peak()
    vectors.open_embeddings(location)
    return peak() - before


@pytest.mark.parametrize("name", ["compressed.npz", "parquet", "fixed.parquet"])
def test_memory_of_reading_is_bounded(name: str, tmp_path: Path) -> None:
    """An array of 52 MB, of Parquet in one row group, is read in half of that."""
    rng = np.random.default_rng(0)
    array = np.tile(rng.normal(size=(20, 200)).astype(np.float32), (3250, 1))  # compressed in no time
    path = tmp_path / f"x.{name}"
    if name.endswith("npz"):
        np.savez_compressed(path, x=array)
    else:
        column = {"x": list_column(array, name)}
        pq.write_table(pa.table(column), path, compression="none", use_dictionary=False)
        assert path.stat().st_size > 50e6
    assert in_process(peak_of_reading, str(path)) < 26e6
    if name == "parquet":  # negative control
        assert in_process(peak_of_opening, str(path)) > 52e6

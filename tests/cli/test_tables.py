"""Texts from a column of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from flip_sklearn.cli import files
from flip_sklearn.cli.tables import table_columns
from tests.helpers.command_line import Corpus, error_line, run

TEXTS = ['He said, "hello"', "tab\there", "", "two\nlines", "gr\u00fcn \u0939\u093f", "plain"]


def written(name: str, texts: Sequence[str]) -> bytes:
    """A table with the columns id, text and "other column"."""
    rows = [(str(i), text, "x") for i, text in enumerate(texts)]
    if name.endswith("jsonl"):
        lines = [json.dumps({"id": i, "text": text or None}) for i, text, _ in rows]
        return "".join(f"{line}\n" for line in lines).encode()
    if name.endswith("parquet"):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": [0] * len(rows), "text": [text or None for _, text, _ in rows]}), sink)
        return sink.getvalue().to_pybytes()
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t" if name.endswith("tsv") else ",")
    writer.writerows([("id", "text", "other column"), *rows])
    return table.getvalue().encode()


@pytest.mark.parametrize("name", ["t.csv", "t.TSV", "t.jsonl", "t.parquet", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize("block", [1, 4, 1024])
def test_column_of_each_format(
    name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a suffix the format is that of the first line."""
    monkeypatch.setattr(files, "LINES_PER_BLOCK", block)
    (tmp_path / name).write_bytes(written(name.lower(), TEXTS))
    assert files.read_texts(str(tmp_path / name), "text") == TEXTS


@pytest.mark.parametrize("name", ["csv", "tsv", "jsonl"])
def test_column_of_standard_input(name: str, corpus: Corpus) -> None:
    code, out, err = run(
        *("keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder, "-k", 2, "--column", "text"),
        stdin=b"\xef\xbb\xbf" + written(name, ["dog, runs", "", "cat\nsleeps"]),
    )
    assert code == 0, err
    assert [set(line.split("\t")) for line in out.splitlines()] == [{"dog", "runs"}, {""}, {"cat", "sleeps"}]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_every_command_takes_a_column(name: str, corpus: Corpus, tmp_path: Path) -> None:
    table = tmp_path / name
    table.write_bytes(written(name, corpus.lines))
    for command, options in (
        ("fit", ("--embeddings", corpus.embeddings, "--seed", 0)),
        ("evaluate", ("-m", corpus.model, "-e", corpus.encoder)),
        ("keywords", ("-m", corpus.model, "-e", corpus.encoder)),
        ("report", ("--embeddings", corpus.embeddings, "--no-ranks")),
    ):
        results = []
        for text in (("-t", corpus.text), ("-t", table, "--column", "text")):
            out = tmp_path / f"{command}{len(text)}{'.html' if command == 'report' else ''}"
            rest = ("-o", out) if command in ("fit", "report") else ()
            code, printed, err = run(command, *text, *options, *rest)
            assert code == 0, err
            assert "table" not in err
            results.append(printed.replace(str(out), ""))
        assert results[0] == results[1]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"a,b\n1,2\n", "no column 'text'; its columns are 'a', 'b'"),
        ("t.csv", b"text,text\n1,2\n", "more than one column 'text'"),
        ("t.csv", b"a,text\n1,2\n1,2,3\n", "line 3 of .* has 3 fields, and the header 2"),
        ("t.csv", b'a,text\n1,"open\n2,x\n', "line 3 of .* cannot be read"),
        ("t.csv", b"a,text\n1,\xff\n", "line 2 of .* is not UTF-8"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,text\n", "is empty"),
        ("t.jsonl", b'{"a": 1}\n', "line 1 of .* no 'text'; its keys are 'a'"),
        ("t.jsonl", b'{"text": 1}\n', "has 1 in 'text'"),
        ("t.jsonl", b'{"text": "a"}\n[1]\n', r"line 2 of .* is '\[1\]'"),
        ("t.jsonl", b'{"text": ' + b"[" * 100_000, "line 1 of"),
        ("t.parquet", b"PAR1 and no more", "cannot be read"),
    ],
)
def test_errors_name_the_line_and_the_columns(
    name: str, data: bytes, message: str, corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        files.read_texts(str(tmp_path / name), "text")
    arguments = ("-t", tmp_path / name, "--column", "text", "-e", corpus.encoder)
    assert run("evaluate", "-m", corpus.model, *arguments)[0] == 1


def test_parquet_needs_a_column_of_texts(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(written("parquet", TEXTS))
    with pytest.raises(ValueError, match="--column"):
        files.read_texts(str(path))
    with pytest.raises(ValueError, match=r"row 1 of .* has 0 in 'id'"):
        files.read_texts(str(path), "id")
    assert "does not exist" in error_line(
        *run(
            "evaluate",
            "-m",
            corpus.model,
            "-t",
            tmp_path / "none.parquet",
            "--column",
            "text",
            "-e",
            corpus.encoder,
        )
    )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "csv", "tsv", "jsonl"])
def test_tables_without_a_column_are_noted(name: str, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(written(name, corpus.lines[:50]))
    code, _, err = run("keywords", "-m", corpus.model, "-t", path, "-e", corpus.encoder)
    assert code == 0
    assert "looks like a table" in err
    assert "'id', 'text'" in err
    assert "--column" in err


def test_sentences_are_no_table(corpus: Corpus) -> None:
    prose = ["Well, yes.", "No, never.", "Now, then.", "Oh, dear."]
    assert table_columns("t.txt", prose) is None
    assert table_columns("t.txt", corpus.lines[:5]) is None
    assert table_columns("t.txt", ["one,two", "three"]) is None
    assert table_columns("t.txt", []) is None
    assert table_columns("t.txt", ["a,b", "1,x", "2,y"]) == ["a", "b"]


def test_column_without_text_is_a_usage_error(corpus: Corpus) -> None:
    code, _, err = run("keywords", "-m", "m", "--embeddings", "x.npy", "--column", "text")
    assert (code, "--column is for --text" in " ".join(err.split())) == (2, True)


def test_rows_match_embeddings(corpus: Corpus, tmp_path: Path) -> None:
    """A text of two lines is one row."""
    table = tmp_path / "t.csv"
    table.write_bytes(written("csv", [line.replace(" ", "\n", 1) for line in corpus.lines]))
    arguments = ("evaluate", "-m", corpus.model, "-t", table, "--column", "text", "--json")
    rows = json.loads(run(*arguments, "--embeddings", corpus.embeddings)[1])
    assert rows[0]["n_rows"] == len(corpus.lines)
    np.save(tmp_path / "x.npy", corpus.X[1:])
    assert "399 embeddings" in error_line(*run(*arguments, "--embeddings", tmp_path / "x.npy"))

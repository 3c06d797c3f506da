"""`flip-sklearn find`: the rows that find_rows finds, forms of the query, files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli.options import parse_query
from tests.helpers.command_line import error_line, run

WORDS = ["red", "green", "blue", "dog", "cat", "new york"]


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Y = rng.poisson(0.4, size=(n, len(WORDS)))
    X = (Y > 0) @ np.eye(len(WORDS), 8) + 0.2 * rng.normal(size=(n, 8))
    return X.astype(np.float32), Y


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, embeddings and their texts."""
    folder = tmp_path_factory.mktemp("find")
    flip = FLiPExtractor(vocabulary=WORDS, max_iter=3, early_stopping=True, random_state=0).fit(*rows(400, 0))
    flip.save_pretrained(folder / "model")
    X, Y = rows(60, 1)
    np.save(folder / "X.npy", X)
    texts = ["text: " + " ".join(np.array(WORDS)[row > 0]) for row in Y]
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    return folder


def find(
    folder: Path, *arguments: str, embeddings: str = "X.npy", stdin: bytes = b""
) -> tuple[int, str, str]:
    path = embeddings if embeddings == "-" else folder / embeddings
    return run("find", "-m", folder / "model", "--embeddings", path, *arguments, stdin=stdin)


def test_rows_are_those_of_find_rows(folder: Path) -> None:
    flip, X = FLiPExtractor.from_pretrained(folder / "model"), np.load(folder / "X.npy")
    texts = (folder / "texts.txt").read_text().splitlines()
    expected, scores = flip.find_rows(X, ["red", "dog"], "cat", top_k=5, return_scores=True)
    code, out, err = find(folder, "-k", "5", "red dog -cat")
    assert (code, [int(line) for line in out.splitlines()]) == (0, expected.tolist()), err
    assert find(folder, "-k", "5", "--", "-cat", "red", "dog")[1] == out
    assert find(folder, "-k", "5", "RED dog -Cat")[1] == out  # written as the model's texts are
    out = find(folder, "-k", "5", "--scores", "-t", str(folder / "texts.txt"), "red dog -cat")[1]
    assert out.splitlines() == [
        f"{row}\t{score:.4f}\t{texts[row]}" for row, score in zip(expected, scores, strict=True)
    ]
    lines = find(folder, "-k", "5", "--json", "-t", str(folder / "texts.txt"), "red dog -cat")[1]
    first = json.loads(lines.splitlines()[0])
    assert first == {"row": expected[0], "score": round(scores[0], 4), "text": texts[expected[0]]}
    piped = find(folder, "--any", "red dog", embeddings="-", stdin=(folder / "X.npy").read_bytes())[1]
    expected = flip.find_rows(X, ["red", "dog"], mode="any")
    assert [int(line) for line in piped.splitlines()] == expected.tolist()
    found = [int(line) for line in find(folder, '"new york"')[1].splitlines()]
    assert found == flip.find_rows(X, "new york").tolist()


def test_errors_name_the_reason(folder: Path) -> None:
    assert "include has 'dogg', which the model does not know; similar words: 'dog'" in error_line(
        *find(folder, "dogg")
    )
    (folder / "short.txt").write_text("one\ntwo\n")
    for stdin, source in ((b"", "X.npy"), ((folder / "X.npy").read_bytes(), "-")):
        message = error_line(
            *find(folder, "-t", str(folder / "short.txt"), "dog", embeddings=source, stdin=stdin)
        )
        assert "has 60 embeddings, and there are 2 lines of text" in message
    np.save(folder / "wide.npy", np.zeros((3, 9)))
    message = error_line(*find(folder, "dog", embeddings="wide.npy"))
    assert "wide.npy' holds vectors of 9 numbers, and the model reads vectors of 8" in message
    X = np.load(folder / "X.npy")
    X[7] = np.nan
    np.save(folder / "nan.npy", X)
    assert "row 7 of the embeddings (counted from 0) has NaN" in error_line(
        *find(folder, "dog", embeddings="nan.npy")
    )
    np.save(folder / "none.npy", X[:0])
    assert "X has no rows" in error_line(*find(folder, "dog", embeddings="none.npy"))


def test_query() -> None:
    assert parse_query(["dog beach -snow"]) == (["dog", "beach"], ["snow"])
    assert parse_query(["-snow", "dog", "-ice cream"]) == (["dog", "cream"], ["snow", "ice"])
    assert parse_query(['"new york" -"hot dog" it\'s t-shirt']) == (
        ["new york", "it's", "t-shirt"],
        ["hot dog"],
    )
    for query in ([], [""], ["-snow"]):
        with pytest.raises(typer.BadParameter, match="names no word that is to occur"):
            parse_query(query)

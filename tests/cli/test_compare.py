"""`flip-sklearn compare`: the words of compare_sets as a table and as JSON, files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import compare_sets
from tests.helpers.command_line import error_line, run

WORDS = ["red", "green", "blue", "dog", "cat", "new york"]


def rows(n: int, shares: list[float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    occurs = rng.random((n, len(WORDS))) < shares
    X = occurs @ np.eye(len(WORDS), 8) + 0.2 * rng.normal(size=(n, 8))
    return X.astype(np.float32), occurs.astype(int)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and two sets: "new york" is more frequent in the first, "cat" in the second."""
    folder = tmp_path_factory.mktemp("compare")
    X, Y = rows(600, [0.3] * 6, 0)
    flip = FLiPExtractor(vocabulary=WORDS, max_iter=3, early_stopping=True, random_state=0).fit(X, Y)
    flip.save_pretrained(folder / "model")
    for name, shares, seed in (("a", [0.3] * 5 + [0.6], 1), ("b", [0.3] * 4 + [0.6, 0.3], 2)):
        np.save(folder / f"{name}.npy", rows(150, shares, seed)[0])
        (folder / f"{name}.txt").write_text("".join(f"user {i // 2}\n" for i in range(150)))
    return folder


def compare(
    folder: Path, *arguments: object, embeddings: tuple[str, str] = ("a.npy", "b.npy"), stdin: bytes = b""
) -> tuple[int, str, str]:
    paths = [path if path == "-" else folder / path for path in embeddings]
    return run("compare", "-m", folder / "model", "--embeddings", *paths, *arguments, stdin=stdin)


def test_words_are_those_of_compare_sets(folder: Path) -> None:
    flip = FLiPExtractor.from_pretrained(folder / "model")
    result = compare_sets(flip, np.load(folder / "a.npy"), np.load(folder / "b.npy"))
    code, out, err = compare(folder)
    assert code == 0, err
    header, *lines = out.splitlines()
    assert header.split() == [
        "more",
        "in",
        "texts",
        "of",
        "A",
        "texts",
        "of",
        "B",
        "difference",
        "interval",
        "q",
    ]
    assert [line.split()[0] for line in lines] == ["new", "cat"]
    assert f"{100 * result.share_a[5]:.2f} %" in lines[0]
    assert f"{100 * result.difference.value[5]:+.2f}" in lines[0]
    assert err == "flip-sklearn: 2 of 6 tested words differ\n"
    first, second = json.loads(compare(folder, "--json")[1])
    assert (first["word"], first["more_in"], second["word"], second["more_in"]) == (
        "new york",
        "A",
        "cat",
        "B",
    )
    assert first["difference_low"] == pytest.approx(result.difference.low[5], abs=1e-6)
    assert first["q_value"] == pytest.approx(result.q_value[5], rel=1e-3)


def test_groups_and_a_pipe(folder: Path) -> None:
    plain = json.loads(compare(folder, "--json")[1])
    grouped = compare(folder, "--json", "--groups", folder / "a.txt", folder / "b.txt")
    assert json.loads(grouped[1])[0]["q_value"] != plain[0]["q_value"]
    content = (folder / "b.npy").read_bytes()
    assert json.loads(compare(folder, "--json", embeddings=("a.npy", "-"), stdin=content)[1]) == plain


def test_no_difference(folder: Path) -> None:
    assert compare(folder, embeddings=("a.npy", "a.npy")) == (
        *(0, ""),
        "flip-sklearn: 0 of 6 tested words differ\n",
    )
    assert compare(folder, "--json", embeddings=("a.npy", "a.npy"))[1] == "[]\n"


def test_files_that_do_not_fit(folder: Path) -> None:
    np.save(folder / "wide.npy", np.zeros((5, 9)))
    wide = error_line(*compare(folder, embeddings=("a.npy", "wide.npy")))
    assert "wide.npy' holds vectors of 9 numbers, and the model reads vectors of 8" in wide
    assert "not exist" in error_line(*compare(folder, embeddings=("a.npy", "nothing.npy")))
    (folder / "short.txt").write_text("one label\n")
    message = error_line(*compare(folder, "--groups", folder / "a.txt", folder / "short.txt"))
    assert "groups_b" in message
    assert "fdr=2" in error_line(*compare(folder, "--fdr", "2"))

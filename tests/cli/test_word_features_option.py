"""`fit --word-features` and `keywords --add-words`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from tests.helpers.command_line import run
from tests.helpers.tiny_models import bag_of_words_model

WORDS = [f"{first}{last}" for first in ("ba", "ce", "di", "fo", "gu", "ha") for last in "klmnprstvz"]
NEW = ["guz", "hat"]
KNOWN = [word for word in WORDS if word not in NEW]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder of more words than dimensions, texts without the new words, and a model."""
    folder = tmp_path_factory.mktemp("words")
    bag_of_words_model(folder / "encoder", WORDS, 8)
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(KNOWN, 2, replace=False)) for _ in range(600)]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    (folder / "new.txt").write_text("Guz\n\nhat\nbak\nhat\n")
    code, _, err = fit(folder, "--word-features", "--out", str(folder / "model"))
    assert code == 0, err
    return folder


def fit(folder: Path, *arguments: str) -> tuple[int, str, str]:
    texts = ["--text", str(folder / "texts.txt"), "--encoder", str(folder / "encoder")]
    result: tuple[int, str, str] = run(
        "fit", *texts, "--min-count", "1", "--test-share", "0", "-q", *arguments
    )
    return result


def keywords(folder: Path, model: Path, *arguments: str) -> tuple[list[list[str]], str]:
    (folder / "read.txt").write_text("guz\nhat\nbak\n")
    code, out, err = run(
        "keywords",
        "-m",
        str(model),
        "-k",
        "3",
        "--json",
        "-q",
        "--encoder",
        str(folder / "encoder"),
        *arguments,
    )
    assert code == 0, err
    return [json.loads(line)["keywords"] for line in out.splitlines()], err


def test_fit_and_add(files: Path) -> None:
    model = FLiPExtractor.from_pretrained(files / "model")
    assert model.word_map_.shape[0] == 8
    texts = ("--text", str(files / "read.txt"))
    found, err = keywords(files, files / "model", *texts, "--add-words", str(files / "new.txt"))
    assert "guz" in found[0]
    assert "hat" in found[1]
    assert "bak" in found[2]
    assert "the model knows 1 of the 3 words already" in err
    before, _ = keywords(files, files / "model", *texts)
    assert not {word for row in before for word in row} & set(NEW)


def test_model_without_features_and_stored_embeddings(files: Path) -> None:
    code, _, err = fit(files, "--out", str(files / "plain"))
    assert code == 0, err
    vectors = bag_of_words_model(files / "again", WORDS, 8)[1]
    np.save(files / "X.npy", vectors[[WORDS.index("guz"), WORDS.index("hat"), 0]])
    found, _ = keywords(
        files, files / "plain", "--embeddings", str(files / "X.npy"), "--add-words", str(files / "new.txt")
    )
    assert "guz" in found[0]
    assert "hat" in found[1]


def test_embeddings_with_word_features(files: Path) -> None:
    lines = (files / "texts.txt").read_text().split("\n")[:-1]
    vectors = bag_of_words_model(files / "third", WORDS, 8)[1]
    np.save(
        files / "texts.npy",
        np.stack([vectors[[WORDS.index(w) for w in line.split()]].mean(0) for line in lines]),
    )
    stored = ("--embeddings", str(files / "texts.npy"))
    code, _, err = fit(files, *stored, "--word-features", "--out", str(files / "stored"))
    assert code == 0, err
    assert hasattr(FLiPExtractor.from_pretrained(files / "stored"), "word_map_")
    texts = ("--text", str(files / "texts.txt"))
    code, _, err = run("fit", *texts, *stored, "--word-features", "--out", str(files / "none"))
    assert code == 2
    assert "name the encoder of the embeddings with --encoder" in " ".join(err.split())


def test_empty_file_of_words(files: Path) -> None:
    (files / "empty.txt").write_text("\n")
    code, _, err = run(
        *("keywords", "-m", str(files / "model"), "--encoder", str(files / "encoder")),
        *("--text", str(files / "texts.txt"), "--add-words", str(files / "empty.txt")),
    )
    assert code == 1
    assert "it needs one word per line" in err

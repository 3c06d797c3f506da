"""A folder with files of others is refused with their names, and nothing in it changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flip_sklearn import FLiPExtractor
from tests.helpers.paths import DATA
from tests.helpers.stores import FILES, FactLoLM, fitted_state, load_state, write_foreign
from tests.helpers.tiny_models import bag_of_words_model


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """All paths below a folder, with the content of files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def transformers_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": 2}))
    save_file({"embeddings.weight": torch.ones(2, 3)}, folder / "model.safetensors")
    (folder / "vocab.json").write_text('{"<s>": 0, "a": 1}')
    (folder / "merges.txt").write_text("")


def tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text('{"<s>": 0, "a": 1}')
    (folder / "tokenizer_config.json").write_text("{}")


def write(name: str, content: str = "{}") -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def damaged_weights(folder: Path) -> None:
    transformers_model(folder)
    os.truncate(folder / "model.safetensors", 20)


def weights_of_others_in_a_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"flip_sklearn": {"format": 1}}')
    save_file({"embeddings.weight": torch.ones(2, 3)}, folder / "model.safetensors")


FOREIGN: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "a model of transformers": (transformers_model, ["config.json", "model.safetensors", "vocab.json"]),
    "a damaged model of transformers": (damaged_weights, ["config.json", "model.safetensors"]),
    "a model of sentence-transformers": (
        lambda f: bag_of_words_model(f, ["a", "b"], 4),
        ["modules.json", "config_sentence_transformers.json"],
    ),
    "a tokenizer": (tokenizer, ["vocab.json", "tokenizer_config.json"]),
    "a word list": (write("vocab.json", '{"a": 0}'), ["vocab.json"]),
    "settings": (write("config.json"), ["config.json"]),
    "settings that are no JSON": (write("config.json", "debug = on"), ["config.json"]),
    "settings of a list": (write("config.json", "[]"), ["config.json"]),
    "settings with such a section": (write("config.json", '{"flip_sklearn": true}'), ["config.json"]),
    "a folder": (lambda f: (f / "config.json").mkdir(), ["config.json"]),
    "a pipe": (lambda f: os.mkfifo(f / "model.safetensors"), ["model.safetensors"]),
    "a broken link": (lambda f: (f / "config.json").symlink_to("gone"), ["config.json"]),
    "a device": (lambda f: (f / "config.json").symlink_to("/dev/zero"), ["config.json"]),
    "weights in pickles": (write("pytorch_model.bin"), ["pytorch_model.bin"]),
    "weights of others in a model": (weights_of_others_in_a_model, ["model.safetensors"]),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_folder_of_others_is_refused(tmp_path: Path, case: str, fitted: FLiPExtractor) -> None:
    prepare, names = FOREIGN[case]
    folder = tmp_path / "m"
    folder.mkdir()
    prepare(folder)
    before = snapshot(folder)
    with pytest.raises(ValueError, match="not of a model of FLiP") as error:
        fitted.save_pretrained(folder)
    assert all(name in str(error.value) for name in names)
    assert snapshot(folder) == before


def test_an_encoder_survives_and_encodes(tmp_path: Path, fitted: FLiPExtractor) -> None:
    from flip_sklearn.encoders import SentenceEncoder

    folder, _ = bag_of_words_model(tmp_path / "encoder", ["a", "b"], 4)
    before = SentenceEncoder(folder).transform(["a b"])
    with pytest.raises(ValueError, match=r"modules\.json"):
        fitted.save_pretrained(folder)
    assert np.array_equal(SentenceEncoder(folder).transform(["a b"]), before)
    # A folder inside it is free.
    fitted.save_pretrained(folder / "flip")
    assert load_state(folder / "flip") == fitted_state(fitted)


def test_models_of_flip_are_replaced(tmp_path: Path, fitted: FLiPExtractor) -> None:
    """Also those of other code and of 0.1.0, incomplete and damaged ones, and beside files of other names."""
    write_foreign(tmp_path / "other code", FactLoLM(4, 3, 2))
    write_foreign(tmp_path / "no config", FactLoLM(4, 3, 2))
    shutil.copytree(DATA / "pretrained-v1" / "flip", tmp_path / "0.1.0")
    (tmp_path / "0.1.0" / "expected.json").unlink()
    (tmp_path / "no config" / "config.json").unlink()
    for name, removed in (("incomplete", "config.json"), ("without words", "vocab.json")):
        (fitted.save_pretrained(tmp_path / name) / removed).unlink()
    os.truncate(fitted.save_pretrained(tmp_path / "damaged") / "model.safetensors", 100)
    (fitted.save_pretrained(tmp_path / "emptied") / "config.json").write_text("{}")
    for folder in tmp_path.iterdir():
        (folder / "notes.json").write_text("{}")
        fitted.save_pretrained(folder)
        assert load_state(folder) == fitted_state(fitted)
        assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "notes.json"])

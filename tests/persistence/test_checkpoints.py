"""Folders that the published training leaves: vocab.json beside a folder of checkpoints."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flip_sklearn import FLiPExtractor
from tests.helpers.command_line import run
from tests.helpers.stores import FactLoLM, fitted_state

WORDS = [f"word{row}" for row in range(12)]
BEST = "best_val_recall_avg"
# From the most to the least preferred.
ORDER = [BEST, "best_val_precision_avg", "best_val_recall_1", "100", "99", "3", "interrupt", "final"]
E = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


def write(folder: Path, suffixes: Any, *, rank: int | None = 3, place: str = "checkpoints") -> Path:
    """Write the files of the published training; the seed of a checkpoint is its place in ORDER."""
    (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "train_config.yaml").write_text("model: {type: FactLoLM}\n")
    (folder / "cvect.pkl").write_bytes(b"a pickle that is never read")
    rows = {word: row for row, word in reversed(list(enumerate(WORDS)))}
    (folder / "vocab.json").write_text(json.dumps(rows, indent=2))
    for suffix in suffixes:
        tensors = FactLoLM(12, 5, rank, seed=ORDER.index(suffix)).state_dict()
        save_file(tensors, folder / place / f"model_state_dict_{suffix}.safetensors")
        (folder / place / f"optim_state_dict_{suffix}.pt").write_bytes(b"a pickle that is never read")
    return folder


@pytest.mark.parametrize("rank", [3, None])
def test_best_checkpoint_gives_the_published_scores(tmp_path: Path, rank: int | None) -> None:
    write(tmp_path / "rank_512", [BEST, "99", "100"], rank=rank)
    published = FactLoLM(12, 5, rank, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FLiPExtractor.from_pretrained(tmp_path, subfolder="rank_512")
    assert model.pretrained_info_["checkpoint"] == f"checkpoints/model_state_dict_{BEST}.safetensors"
    assert model.vocabulary_.tolist() == WORDS
    for use_bias in (True, False):
        scores = model.set_params(use_bias=use_bias).decision_function(E)
        assert np.allclose(scores, published.scores(E, use_bias), atol=1e-5)
    # Stored again, it is a model of this package.
    again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path / "again"))
    assert fitted_state(again) == fitted_state(model)
    assert "checkpoint" not in again.pretrained_info_


@pytest.mark.parametrize("place", ["checkpoints", "."])
def test_order_of_checkpoints(tmp_path: Path, place: str) -> None:
    """Also if all files lie beside vocab.json. A checkpoint that is not the best one causes a warning."""
    for first, suffix in enumerate(ORDER):
        folder = write(tmp_path / str(first), reversed(ORDER[first:]), place=place)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = FLiPExtractor.from_pretrained(folder)
        name = f"model_state_dict_{suffix}.safetensors"
        assert model.pretrained_info_["checkpoint"] == (name if place == "." else f"{place}/{name}")
        assert np.array_equal(model.bias_, FactLoLM(12, 5, 3, seed=first).b.flatten())
        messages = [str(w.message) for w in caught]
        assert len(messages) == (not suffix.startswith("best"))
        assert all(name in message and "held-out" in message for message in messages)


def test_model_file_comes_before_checkpoints(tmp_path: Path) -> None:
    folder = write(tmp_path, [BEST])
    save_file(FactLoLM(12, 5, 3, seed=9).state_dict(), folder / "model.safetensors")
    model = FLiPExtractor.from_pretrained(folder)
    assert "checkpoint" not in model.pretrained_info_
    assert np.array_equal(model.bias_, FactLoLM(12, 5, 3, seed=9).b.flatten())


def test_errors_name_the_remedy(tmp_path: Path) -> None:
    only_pickles = write(tmp_path / "old", [])
    (only_pickles / "checkpoints" / f"model_state_dict_{BEST}.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{BEST}\.pt is a pickle.*save_file"):
        FLiPExtractor.from_pretrained(only_pickles)
    folder = write(tmp_path / "new", [BEST])
    with pytest.raises(ValueError, match="Pass the folder above 'checkpoints'"):
        FLiPExtractor.from_pretrained(folder / "checkpoints")
    (folder / "vocab.json").rename(folder / "vocab_12.json")
    with pytest.raises(
        ValueError, match=r"vocab\.json is missing in .* the vocabulary_ of the CountVectorizer"
    ):
        FLiPExtractor.from_pretrained(folder)
    broken = write(tmp_path / "broken", [BEST])
    (broken / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(ValueError, match="it has 1 words, the model has 12 rows"):
        FLiPExtractor.from_pretrained(broken)
    (broken / "checkpoints" / f"model_state_dict_{BEST}.safetensors").write_bytes(b"1")
    with pytest.raises(ValueError, match=rf"model_state_dict_{BEST}\.safetensors' cannot be read"):
        FLiPExtractor.from_pretrained(broken)


def test_checkpoints_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", [BEST])
    folder = write(tmp_path / "model", [])
    (folder / "checkpoints").rmdir()
    (folder / "checkpoints").symlink_to(elsewhere / "checkpoints")
    with pytest.raises(ValueError, match=r"checkpoints/.*is a link to a place outside"):
        FLiPExtractor.from_pretrained(folder)


def test_saving_does_not_replace_the_training_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, [BEST])
    model = FLiPExtractor.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"vocab\.json"):
        model.save_pretrained(folder)


def test_command_line_names_the_checkpoint(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", [BEST])
    np.save(tmp_path / "e.npy", E.numpy())
    code, out, err = run("keywords", "--model", folder, "--embeddings", tmp_path / "e.npy")
    assert code == 0
    assert f"the model is checkpoints/model_state_dict_{BEST}.safetensors of its folder" in err
    assert len(out.splitlines()) == len(E)


def test_unseen_words_without_bias_in_other_code() -> None:
    """As docs/models.md says: other code scores them 0 without bias, this package -1e4 with and without."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)).astype(np.float32)
    Y = rng.poisson(0.5, size=(60, 6))
    Y[:, 2] = 0
    model = FLiPExtractor(rank=3, max_iter=2, random_state=0, use_bias=False).fit(X, Y)
    published = model.word_embeddings_ @ model.projection_ @ X.T
    assert not published[2].any()
    assert (model.decision_function(X)[:, 2] == -1e4).all()

"""The onnx backend: sentence-transformers with its own backend="onnx"."""

from __future__ import annotations

import sqlite3
import sys
import types
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flip_sklearn.encoders import EncodingError, SentenceEncoder
from flip_sklearn.encoders import sentence_transformers as module
from tests.helpers.tiny_models import encoder_modules

TEXTS = ["a red dog runs", "the cat", "", "over the green hill the dog runs", "dog", "the cat"]
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a the red green dog cat runs over hill query :"


def has_onnx() -> bool:
    """Whether the extra is installed, and fits the installed transformers."""
    try:
        import optimum.onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of sentence-transformers with random weights and a prompt."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    modules = encoder_modules()
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text(WORDS.replace(" ", "\n"))
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder / "raw")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS.split()), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "raw")
    parts = [modules.Transformer(str(folder / "raw")), modules.Pooling(16)]
    model = SentenceTransformer(modules=parts, prompts={"query": "query : "}, device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


def count(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "embeddings.sqlite3")) as connection:
        return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])


needs_onnx = pytest.mark.skipif(
    not has_onnx(), reason="needs pip install 'sentence-transformers[onnx]', which needs transformers < 5"
)


@needs_onnx
def test_vectors_are_those_of_torch_up_to_rounding(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(bert), backend="onnx", device="cpu").save_pretrained(str(tmp_path / "saved"))
    for folder in (bert, tmp_path / "saved"):  # exported while it is loaded, and read from model.onnx
        for prompt_name in (None, "query"):
            options: dict[str, Any] = {"prompt_name": prompt_name, "device": "cpu"}
            expected = SentenceEncoder(bert, **options).transform(TEXTS)
            X = SentenceEncoder(folder, backend="onnx", **options).transform(TEXTS)
            np.testing.assert_allclose(X, expected, rtol=0, atol=1e-5)
            assert X.dtype == np.float32
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than the 24 tokens"):
        SentenceEncoder(tmp_path / "saved", backend="onnx").transform(["the dog " * 40])


@needs_onnx
def test_cache_distinguishes_the_backends(bert: Path, tmp_path: Path) -> None:
    for backend in ("sentence-transformers", "onnx", "onnx"):
        SentenceEncoder(bert, backend=backend, cache_dir=tmp_path, device="cpu").transform(["a dog"])
    assert count(tmp_path) == 2


@needs_onnx
def test_only_a_folder_with_an_onnx_file_is_local(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(bert), backend="onnx", device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert SentenceEncoder(tmp_path / "saved", backend="onnx")._is_local()
    assert not SentenceEncoder(bert, backend="onnx")._is_local()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of sentence-transformers is reached, whether or not its packages for ONNX are installed."""
    monkeypatch.setattr(module, "require", lambda name, *_: name.startswith("sent") and import_module(name))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_option_is_passed_through(
    bert: Path, device: str, unchecked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentence_transformers

    library = sentence_transformers.SentenceTransformer
    seen: dict[str, Any] = {}

    def record(*args: Any, **kwargs: Any) -> Any:
        seen.update(kwargs)
        return library(*args, device="cpu")

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", record)
    SentenceEncoder(bert, backend="onnx", device=device).transform(["a dog"])
    assert seen["backend"] == "onnx"
    assert seen["trust_remote_code"] is False
    # With another device the library takes the fastest provider that is installed.
    provider = {"provider": "CPUExecutionProvider"} if device == "cpu" else None
    assert seen.get("model_kwargs") == provider


@pytest.mark.skipif(has_onnx(), reason="the extra onnx is installed")
def test_the_code_of_the_library_is_reached(bert: Path, unchecked: None) -> None:
    with pytest.raises((EncodingError, ImportError), match=r"ONNX|onnxruntime"):
        SentenceEncoder(bert, backend="onnx", device="cpu").transform(["a dog"])


def test_missing_packages(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(ImportError, match=r"The onnx backend needs optimum.*pip install .*\[onnx"):
        SentenceEncoder(bert, backend="onnx").transform(["a dog"])

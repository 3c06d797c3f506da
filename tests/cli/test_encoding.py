"""text.json beside a model: the encoder and the vectorizer of its texts, without paths of a machine."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.persistence.encoding import EncodingConfig, is_same_encoder
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.command_line import Corpus, error_line, run


def save(model: Path, folder: Path, config: EncodingConfig) -> None:
    """Save a model again, with another text.json."""
    info = dict.fromkeys(("encoder", "trained_on", "license"))
    FLiPExtractor.from_pretrained(model)._write(folder, info, config.content())


def name_encoder(folder: Path, **encoder: Any) -> None:
    """Edit the encoder in text.json, as a stranger may."""
    content = json.loads((folder / "text.json").read_text())
    content |= {"encoder": encoder, "encoder_is_local": False}
    (folder / "text.json").write_text(json.dumps(content))


def test_config_belongs_to_its_model(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    config = EncodingConfig({"model": "someone/encoder"}, {"token_pattern": "indic"})
    save(corpus.model, folder, config)
    assert EncodingConfig.read(folder) == config
    assert sorted(path.name for path in folder.glob("*text*")) == ["text.json"]
    # The file is removed when another model is saved in the folder, and ignored beside another model.
    text = (folder / "text.json").read_bytes()
    FLiPExtractor.from_pretrained(folder).set_params(top_k=3).save_pretrained(folder)
    assert not (folder / "text.json").exists()
    (folder / "text.json").write_bytes(text)
    assert EncodingConfig.read(folder) == EncodingConfig(None, {})
    assert EncodingConfig.read(tmp_path) == EncodingConfig(None, {})


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"encoder": {"model": "m", "cache_dir": "/etc"}},
        {"encoder": {"model": "m", "api_key_env": "HOME"}},
        {"encoder": {"model": "m", "truncate_dim": "many"}},
        {"encoder": {"model": 3}},
        {"encoder": []},
        {"words": {"n_jobs": 64}},
        {"words": {"token_pattern": "(a+)+b"}},
        {"words": None},
    ],
)
def test_invalid_parameters_are_refused(corpus: Corpus, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tmp_path / "m"
    save(corpus.model, folder, EncodingConfig({"model": "m"}, {}))
    content = json.loads((folder / "text.json").read_text()) | change
    (folder / "text.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"text\.json"):
        EncodingConfig.read(folder)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{" * 5000, b" " * 2**17, b"[" * 60_000])
def test_invalid_files_are_refused(corpus: Corpus, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "text.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"text\.json"):
        EncodingConfig.read(tmp_path)


@pytest.fixture(scope="module")
def local_model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose encoder is a local folder, with other parameters than the default."""
    folder = tmp_path_factory.mktemp("local") / "m"
    code, _, err = run(
        *("fit", "-t", corpus.text, "-e", corpus.encoder, "-E", "truncate_dim=20", "-o", folder),
        *("-q", "--max-iter", 2),
    )
    assert code == 0, err
    return folder


def test_no_path_of_a_local_encoder_is_stored(corpus: Corpus, local_model: Path) -> None:
    config = EncodingConfig.read(local_model)
    assert config.encoder is not None
    assert config.encoder_is_local
    assert config.encoder["model"] == corpus.encoder.name
    assert "encoder (a local folder)" in (local_model / "README.md").read_text()
    for path in local_model.iterdir():
        assert str(corpus.folder).encode() not in path.read_bytes()


def test_local_encoder_must_be_named(corpus: Corpus, local_model: Path, tmp_path: Path) -> None:
    for command in ("keywords", "evaluate"):
        err = error_line(*run(command, "-m", local_model, "-t", corpus.text))
        assert "local folder 'encoder'" in err
        assert "--encoder" in err
    # Its other parameters are stored: the model has 20 dimensions, the encoder 24.
    code, out, err = run("evaluate", "-m", local_model, "-t", corpus.text, "-e", corpus.encoder)
    assert code == 0, err
    assert "keyword accuracy" in out


def test_every_parameter_that_determines_the_vectors_is_stored() -> None:
    encoder = SentenceEncoder("team/name")
    config = EncodingConfig.from_fit(encoder, ConceptVectorizer())
    of_this_machine = {"batch_size", "device", "api_key_env", "cache_dir", "verbose"}
    assert set(config.encoder or {}) == set(encoder.get_params()) - of_this_machine


def test_encoder_of_the_hub_needs_trust_until_it_is_on_this_machine(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EncodingConfig.from_fit(SentenceEncoder("team/name", normalize=True), ConceptVectorizer())
    assert config.encoder is not None
    assert not config.encoder_is_local
    assert config.encoder_name == "team/name"
    with pytest.raises(ValueError, match="trust_encoder=True"):
        config.encoder_settings({}, None)
    assert config.encoder_settings({}, None, trusted=True)["model"] == "team/name"
    # The other stored parameters stay if the user names the same encoder.
    assert config.encoder_settings({"model": "team/name"}, None)["normalize"] is True
    assert config.encoder_settings({"model": "team/name", "normalize": False}, None)["normalize"] is False
    # In the hub's cache it runs by itself, unless it has code.
    monkeypatch.setattr("flip_sklearn.encoders.base.cached_snapshot", lambda *_: corpus.encoder)
    assert config.encoder_settings({}, None)["model"] == "team/name"
    with_code = tmp_path / "code"
    shutil.copytree(corpus.encoder, with_code)
    (with_code / "modeling.py").write_text("")
    monkeypatch.setattr("flip_sklearn.encoders.base.cached_snapshot", lambda *_: with_code)
    with pytest.raises(ValueError, match="trust_encoder=True"):
        config.encoder_settings({}, None)


SERVICES: list[dict[str, Any]] = [
    {"model": "gemini-embedding-001"},
    {"model": "models/Gemini-embedding-001"},
    {"model": "team/name", "backend": "gemini"},
    {"model": "encoder", "backend": "gemini"},
    {"model": "sonar_speech_encoder_eng"},
    {"model": "team/never-loaded"},
    {"model": "never-loaded"},
    {"model": "../encoder"},
    {"model": "~nobody/encoder"},
    {"model": "long/" + "x" * 5000},
    {"model": "cointegrated/SONAR_200_text_encoder", "language": "deu_Latn"},
]


@pytest.mark.parametrize("encoder", SERVICES)
@pytest.mark.parametrize("command", ["keywords", "evaluate"])
def test_no_text_is_sent_where_only_the_model_says(
    corpus: Corpus, tmp_path: Path, command: str, encoder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    save(corpus.model, folder, EncodingConfig({"model": "m"}, {}))
    name_encoder(folder, **encoder)
    used: list[Any] = []
    monkeypatch.setenv("GEMINI_API_KEY", "key of the user")
    monkeypatch.setattr(SentenceEncoder, "transform", lambda self, X: used.append(self) or corpus.X[: len(X)])
    monkeypatch.chdir(tmp_path)
    err = error_line(*run(command, "-m", folder, "-t", corpus.text))
    assert encoder["model"] in err
    assert "--trust-encoder" in err
    assert used == []
    # With the user's consent standard error names it.
    code, _, err = run(command, "-m", folder, "-t", corpus.text, "-q", "--trust-encoder")
    assert code == 0, err
    assert f"the text is encoded by {encoder['model']!r}" in err
    assert used[0].model == encoder["model"]
    code, _, err = run(command, "-m", folder, "-t", corpus.text, "-q", "-e", encoder["model"])
    assert code == 0, err


def test_a_model_cannot_send_the_text_of_a_named_folder_to_a_service(
    corpus: Corpus, local_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(local_model, folder)
    content = json.loads((folder / "text.json").read_text())
    content["encoder"]["backend"] = "gemini"
    (folder / "text.json").write_text(json.dumps(content))
    code, out, err = run("keywords", "-m", folder, "-t", corpus.text, "-e", corpus.encoder)
    assert code == 0, err
    assert out == run("keywords", "-m", local_model, "-t", corpus.text, "-e", corpus.encoder)[1]


@pytest.mark.parametrize("modules", ["os.path", "joblib.numpy_pickle", None])
def test_a_folder_with_classes_of_other_packages_is_not_inert(
    corpus: Corpus, tmp_path: Path, modules: str | None
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(corpus.encoder, encoder)
    content = [{"idx": 0, "name": "0", "path": "", "type": modules}] if modules else {"type": 3}
    (encoder / "modules.json").write_text(json.dumps(content))
    config = EncodingConfig({"model": str(encoder)}, {})
    with pytest.raises(ValueError, match="has code"):
        config.encoder_settings({}, None)


def test_another_encoder_than_that_of_the_model_is_refused(
    corpus: Corpus, tmp_path: Path, local_model: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(corpus.encoder, other)
    for command in ("keywords", "evaluate"):
        err = error_line(*run(command, "-m", local_model, "-t", corpus.text, "-e", other))
        assert "trained with the encoder 'encoder (a local folder)'" in err
        assert "--force" in err
        assert run(command, "-m", local_model, "-t", corpus.text, "-e", other, "--force")[0] == 0
    # Also if only save_pretrained was told what the encoder is.
    folder = tmp_path / "m"
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(folder, encoder="team/LaBSE")
    assert "'team/LaBSE'" in error_line(*run("keywords", "-m", folder, "-t", corpus.text, "-e", other))
    assert run("keywords", "-m", folder, "-t", corpus.text, "-e", other, "--force")[0] == 0


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("sentence-transformers/LaBSE", "sentence-transformers/labse", True),
        ("LaBSE", "sentence-transformers/LaBSE", True),
        ("/models/LaBSE/", "sentence-transformers/LaBSE", True),
        ("/models/LaBSE", "LaBSE (a local folder)", True),
        ("team/LaBSE", "sentence-transformers/LaBSE", False),
        ("sentence-transformers/LaBSE", "sentence-transformers/all-MiniLM-L6-v2", False),
        ("gemini-embedding-001", "gemini-embedding-002", False),
        ("/models/LaBSE", "e5 (a local folder)", False),
        ("~nobody/LaBSE", "LaBSE", True),
        ("team/LaBSE", "a note of a thousand words " * 200, False),
        ("team/LaBSE", "nul\0", False),
    ],
)
def test_names_of_one_encoder(name: str, other: str, same: bool) -> None:
    assert is_same_encoder(name, other) is same
    assert is_same_encoder(other, name) is same


def test_fit_refuses_a_folder_of_others_before_training(corpus: Corpus, tmp_path: Path) -> None:
    arguments = ("--embeddings", corpus.embeddings, "--force", "-o")
    encoder = tmp_path / "encoder"
    shutil.copytree(corpus.encoder, encoder)
    before = {path: path.read_bytes() for path in encoder.rglob("*") if path.is_file()}
    err = error_line(*run("fit", "-t", corpus.text, *arguments, encoder))
    assert "modules.json" in err
    assert {path: path.read_bytes() for path in encoder.rglob("*") if path.is_file()} == before
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "text.json").write_text('["a corpus"]')
    assert "text.json" in error_line(*run("fit", "-t", corpus.text, *arguments, texts))
    assert (texts / "text.json").read_text() == '["a corpus"]'


@pytest.mark.parametrize("kind", ["pipe", "device", "long", "deep"])
@pytest.mark.parametrize("name", ["text.json", "config.json"])
def test_files_that_are_no_small_files_are_refused_at_once(
    corpus: Corpus, tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "m"
    save(corpus.model, folder, EncodingConfig({"model": "m"}, {}))
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "long":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.write_text('{"a":' * 10**5)
    begin = time.monotonic()
    err = error_line(*run("keywords", "-m", folder, "-t", corpus.text))
    assert name in err
    assert time.monotonic() - begin < 10


def test_absolute_paths_of_earlier_versions(corpus: Corpus, tmp_path: Path) -> None:
    """An existing folder is used; a missing one must be named like any other local folder."""
    folder = tmp_path / "m"
    for model, language in ((corpus.encoder, None), (tmp_path / "gone" / "encoder", "deu_Latn")):
        save(corpus.model, folder, EncodingConfig({"model": str(model), "language": language}, {}))
        content = json.loads((folder / "text.json").read_text())
        del content["encoder_is_local"]
        (folder / "text.json").write_text(json.dumps(content))
        result = run("keywords", "-m", folder, "-t", "-", stdin=b"dog runs\n")
        if model.exists():
            assert result[0] == 0, result[2]
            assert {"dog", "runs"} <= set(result[1].split())
        else:
            assert "local folder 'encoder'" in error_line(*result)
            assert "gone" not in result[2]

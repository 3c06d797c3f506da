"""The example that writes two reports, with invented translations and an encoder of word vectors."""

from __future__ import annotations

import html
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flip_sklearn.datasets import Translations
from tests.helpers.paths import ROOT

WORDS = [a + b + c for a in ("ba", "ce", "di") for b in ("rn", "st", "lk", "mp") for c in ("ado", "emi")]
D = 16


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "report", raising=False)
    return importlib.import_module("report")


class WordVectors:
    """Encodes a text as the sum of the vectors of its words; words of three languages differ by a suffix."""

    def __init__(self, *args: Any, **options: Any) -> None:
        rng = np.random.default_rng(0)
        self.vectors = {
            word + end: x for word in WORDS for x in [rng.normal(size=D)] for end in ("", "x", "z")
        }
        self.shift = rng.normal(size=D)

    def transform(self, texts: list[str]) -> np.ndarray:
        rows = [sum((self.vectors.get(w, 0.0) for w in text.split()), np.zeros(D)) for text in texts]
        is_other = [text.endswith(("x", "z")) for text in texts]
        return np.array(rows) + np.outer(is_other, self.shift)


def translations(n: int) -> Translations:
    rng = np.random.default_rng(1)
    p = 1 / np.arange(1, len(WORDS) + 1)
    sentences = [rng.choice(WORDS, p=p / p.sum(), size=6) for _ in range(n)]
    ends = {"en": "", "de": "x", "fr": "z"}
    texts = {name: [" ".join(w + end for w in words) for words in sentences] for name, end in ends.items()}
    return Translations(texts, ["one", "two"] * (n // 2))


def run(example: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "SentenceEncoder", WordVectors)
    monkeypatch.setattr(sys, "argv", ["report.py", "--out", str(folder)])
    example.main()


@pytest.mark.usefixtures("blank_pictures")
def test_two_reports(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example, "load_translations", lambda *args, **options: translations(500))
    run(example, tmp_path, monkeypatch)
    shown = capsys.readouterr().out
    assert "500 sentences, English, German, French" in shown
    languages, typos = ((tmp_path / name).read_text("utf8") for name in ("report.html", "typos.html"))
    for sign, page in (("Which language does each view prefer?", languages), ("with typos", typos)):
        assert sign in html.unescape(page)
        assert "the messages of 2 installed programs" in page
    # Planted: a shift separates the languages, and typos make words unknown.
    words = " ".join(shown.split())
    assert re.search(r"The model trained on “English” loses [\d.]+ points", html.unescape(languages))
    assert re.search(r"“with typos” gives [\d.]+ points \([\d.]+ to [\d.]+\) less than “as written”", words)


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("n", [0, 20])
def test_without_translations(
    n: int,
    example: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(*args: Any, **options: Any) -> Translations:
        if n == 0:
            raise ValueError("no catalogues; install them with this command")
        return translations(n)

    monkeypatch.setattr(example, "load_translations", load)
    monkeypatch.setattr(example, "load_docstrings", lambda **options: translations(150).texts["en"])
    run(example, tmp_path, monkeypatch)
    shown = capsys.readouterr().out
    assert "No report on languages" in shown
    assert ("this command" if n == 0 else "20 translated sentences") in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["typos.html"]
    assert "docstrings of the installed Python packages" in (tmp_path / "typos.html").read_text("utf8")


def test_typos(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The quick brown fox jumps over 1234 lazy dogs, and the river is wide"
    monkeypatch.setattr(example, "TYPO_RATE", 0.3)
    typed = example.with_typos(text, np.random.default_rng(3))
    assert typed == example.with_typos(text, np.random.default_rng(3))
    assert typed != text
    for before, after in zip(text.split(), typed.split(), strict=True):
        if len(before) < 4 or before == "1234":
            assert before == after
    assert example.NEIGHBOURS["q"] == "was"
    long = "abcdefghijklmnopqrstuvwxyz" * 400
    rng = np.random.default_rng(0)
    assert abs(len(example.with_typos(long, rng)) - len(long)) < 150  # as many doubled as left out
    monkeypatch.setattr(example, "TYPO_RATE", 0)
    assert example.with_typos(text, rng) == text

"""The picture of examples/quickstart.py shows words and accuracies of the same ranking."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest

from tests.helpers.paths import ROOT

WORDS = np.array([f"word{chr(97 + i)}" for i in range(20)])


def test_words_and_accuracies_are_both_without_bias(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "quickstart", raising=False)
    import quickstart

    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, 21)
    texts = [
        " ".join(rng.choice(WORDS, size=9, replace=False, p=frequency / frequency.sum())) for _ in range(1400)
    ]
    table = rng.normal(size=(20, 6))

    def embed(texts: list[str], name: Any, cache: Any) -> np.ndarray:
        return np.array([[word in text.split() for word in WORDS] @ table for text in texts])

    drawn: dict[str, Any] = {}

    def draw(path: Any, sentences: Any, keywords: Any, words_present: Any, accuracy: Any) -> None:
        drawn.update(keywords=keywords, accuracy=accuracy)
        real_draw(path, sentences, keywords, words_present, accuracy)

    real_draw = quickstart.draw
    monkeypatch.setattr(quickstart, "load_docstrings", lambda **_: texts)
    monkeypatch.setattr(quickstart, "embed", embed)
    monkeypatch.setattr(quickstart, "draw", draw)
    figures: list[Any] = []
    monkeypatch.setattr("matplotlib.pyplot.close", figures.append)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--out", str(tmp_path)])
    quickstart.main()

    printed = capsys.readouterr().out
    rows = re.findall(r"(FLiP, rank \d+|LiP, not factorized)\s+([\d.]+%) \S+ \S+\s+([\d.]+%)", printed)
    assert len(rows) == 2
    for (name, with_bias, without), (shown, value, _) in zip(rows, drawn["accuracy"], strict=False):
        assert name == shown
        assert without == f"{value:.1%}"
        assert without != with_bias  # else this test would show nothing
    # Lifts over the average sentence: a word of the sentence has a lift, in whatever frequency.
    likely, lift = re.search(r"likely words +(.*)\n +lift, no bias +(.*)\n", printed).groups()  # type: ignore[union-attr]
    first = [word for word, _ in drawn["keywords"][0]]
    assert re.findall(r"word\w", lift) == first
    assert re.findall(r"word\w", likely)[: len(first)] != first
    assert (tmp_path / "quickstart.png").stat().st_size > 20_000
    assert "without the bias" in figures[0].get_suptitle()

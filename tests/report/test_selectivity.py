"""The part of a report on words that are read and words that are guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.report import Diagnosis, diagnose
from tests.report.test_report import call_on

WORDS = [f"word{letter}" for letter in "abcdefghijklmnop"]


def make(n: int = 300) -> tuple[np.ndarray, list[str], Any]:
    rng = np.random.default_rng(0)
    code = dict(zip(WORDS, rng.normal(size=(len(WORDS), 12)), strict=True))
    texts = [" ".join(rng.choice(WORDS, size=4)) for _ in range(n)]

    def encode(texts: list[str]) -> np.ndarray:
        return np.array([sum(map(code.__getitem__, text.split())) for text in texts])

    return encode(texts), texts, encode


OPTIONS: dict[str, Any] = {
    "ranks": False, "n_examples": 0, "n_bootstrap": 50, "random_state": 0, "verbose": 0,
    "estimator": FLiPExtractor(max_iter=3),
}  # fmt: skip


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    X, texts, encode = make()
    return diagnose({"text": X, "noise": X + np.random.default_rng(1).normal(size=X.shape)}, texts,
                    encode={"text": encode}, **OPTIONS)  # fmt: skip


def test_findings_follow_from_the_figures(diagnosis: Diagnosis) -> None:
    result = diagnosis.selectivity
    assert result is not None
    assert result.views == ("text",)
    texts = [finding.text for finding in diagnosis.findings if finding.about == "selectivity"]
    assert f"{100 * result.recall.value[0, 0, -1]:.1f}%" in texts[0]
    assert "the rest is read off the embedding" in texts[0]
    assert any(text.startswith("Of ") and "pairs of sentences" in text for text in texts)
    assert '<h2 id="selectivity">Are words read or guessed?</h2>' in diagnosis.html


def test_embeddings_that_hold_nothing_get_no_claim() -> None:
    X, texts, _ = make()
    rng = np.random.default_rng(2)
    noise = rng.normal(size=X.shape)
    rows = dict(zip(texts, noise, strict=True))

    def encode(texts: list[str]) -> np.ndarray:
        return np.array([rows.setdefault(text, rng.normal(size=12)) for text in texts])

    found = diagnose(encode(texts), texts, encode=encode, **OPTIONS)
    first = next(finding.text for finding in found.findings if finding.about == "selectivity")
    assert "does not show that words are read" in first


def test_printed_call_names_the_encoder(diagnosis: Diagnosis) -> None:
    assert "encode=encode" in call_on(diagnosis.html)


def test_encoder_is_checked_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    X, texts, encode = make(60)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(FLiPExtractor, "fit", fail)
    with pytest.raises(ValueError, match="encode is 3"):
        diagnose(X, texts, encode=3, **OPTIONS)
    with pytest.raises(ValueError, match="returns 2 dimensions"):
        diagnose(X, texts, encode=lambda part: np.ones((len(part), 2)), **OPTIONS)
    with pytest.raises(ValueError, match="2 views"):
        diagnose({"a": X, "b": X}, texts, encode=encode, **OPTIONS)

"""The part of a report on words that are read and words that are guessed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.report import Diagnosis, diagnose
from flip_sklearn.report.guessing import guessing_texts
from tests.report.test_report import call_on

pytestmark = pytest.mark.usefixtures("only_blank_pictures")

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


def test_shares_by_count_are_those_of_the_figures() -> None:
    def interval(values: Any) -> Any:
        value = np.array(values, dtype=float)
        return SimpleNamespace(value=value, low=value - 0.01, high=value + 0.01, significant=value > 0.02)

    recall = [[[0.0, 0.3, 0.6, 0.8, 0.7]], [[0.0, 0.3, 0.6, 0.8, 0.5]]]
    guessed = [[[np.nan, 0.05, 0.1, 0.3, 0.2]]] * 2
    result: Any = SimpleNamespace(
        views=("text",), bands=("0", "1-9", "10-99", "1,000+"), train_count=np.array([4.0, 20, 2000]),
        recall=interval(recall), recall_deleted=interval(np.array(recall) / 5),
        held=interval(np.array(recall) * 0.8), guessed=interval(guessed),
        pair_accuracy=interval([[0.9] * 5]), pairs=np.array([1, 2, 3, 4, 10]),
    )  # fmt: skip
    texts = [text for text, _ in guessing_texts(result)]
    assert texts[1].endswith(
        "5.0% (4.0% to 6.0%) of words that occur 4 to 9 times, 10.0% (9.0% to 11.0%) of words that occur 10 "
        "to 99 times and 30.0% (29.0% to 31.0%) of words that occur 1,000 or more times in the training "
        "sentences."
    )
    assert "90.0% (89.0% to 91.0%); 50.0% is chance" in texts[3]


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

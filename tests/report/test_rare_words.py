"""The part of a report on words that training sees rarely or never."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.report import Diagnosis, diagnose
from flip_sklearn.report.rare_words import rare_word_texts

pytestmark = pytest.mark.usefixtures("only_blank_pictures")

N_WORDS, D = 40, 12
RNG = np.random.default_rng(0)
WORDS = [f"word{a}{b}" for a in "abcde" for b in "fghijklm"]
CODE = dict(zip(WORDS, RNG.normal(size=(N_WORDS, D)), strict=True))
TEXTS = [" ".join(RNG.choice(WORDS, size=4)) for _ in range(400)]


def encode(texts: list[str]) -> np.ndarray:
    return np.array([sum(map(CODE.__getitem__, text.split())) for text in texts])


def report(**options: Any) -> Diagnosis:
    defaults: dict[str, Any] = {
        "ranks": False, "n_examples": 0, "n_bootstrap": 50, "random_state": 0, "verbose": 0,
        "estimator": FLiPExtractor(max_iter=3),
    }  # fmt: skip
    return diagnose(encode(TEXTS), TEXTS, **(defaults | options))


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return report(dictionary=encode)


def test_findings_follow_from_the_figures(diagnosis: Diagnosis) -> None:
    result = diagnosis.rare_words
    assert result is not None
    never = result.bands.index("never seen")
    assert result.difference.significant[1, never]
    texts = [finding.text for finding in diagnosis.findings if finding.about == "rare_words"]
    assert texts[0].startswith(f"Of {len(result.held_out)} words that were held out of training")
    assert f"{100 * result.recall.value[1, 1, never]:.1f}%" in texts[0]
    assert '<h2 id="rare_words">Are rare words and new words read?</h2>' in diagnosis.html
    assert diagnosis.html.count("Found with features") == 2


def test_features_of_the_estimator_and_of_the_encoder_are_used(diagnosis: Diagnosis) -> None:
    words = diagnosis.vocabulary.tolist()
    estimator = FLiPExtractor(max_iter=3, word_features=encode(words))
    for options in ({"estimator": estimator}, {"encode": encode}):
        again, first = report(**options).rare_words, diagnosis.rare_words
        assert again is not None
        assert first is not None
        np.testing.assert_allclose(again.recall.value, first.recall.value, atol=0.02)


def test_no_section_without_features_or_penalty() -> None:
    for options in ({}, {"dictionary": encode, "estimator": FLiPExtractor(max_iter=1, l2_strength=0)}):
        diagnosis = report(**options)
        assert diagnosis.rare_words is None
        assert 'id="rare_words"' not in diagnosis.html


def test_shares_are_those_of_the_figures() -> None:
    def interval(values: Any) -> Any:
        value = np.array(values, dtype=float)
        significant = np.abs(value) > 0.02
        return SimpleNamespace(value=value, low=value - 0.01, high=value + 0.01, significant=significant)

    result: Any = SimpleNamespace(
        bands=("never seen", "1-2", "3-9", "1,000+"), train_count=np.array([1.0, 2, 5, 2000]),
        band_words=np.array([12, 5, 5, 5, 27]),
        recall=interval([[[0.0] * 5, [0.1] * 5], [[0.0] * 5, [0.4] * 5]]),
        difference=interval([[0.1, 0.2, 0.0, -0.05, 0.03], [0.4, 0.01, 0.0, 0.01, 0.0]]),
    )  # fmt: skip
    never, with_bias, without = [text for text, _ in rare_word_texts(result)]
    assert never.startswith("Of 12 words that were held out of training")
    assert "40.0% (39.0% to 41.0%) of the occurrences are found without the bias, and 10.0%" in never
    assert with_bias == (
        "With the bias, features of the words raise recall by 20.0 points (19.0 to 21.0) for words that "
        "occur 1 to 2 times and lower recall by 5.0 points (4.0 to 6.0) for words that occur 1,000 or more "
        "times; for all words together, held out or not, the change is +3.0 points (+2.0 to +4.0)."
    )
    assert "change the recall of no band of words in training significantly" in without

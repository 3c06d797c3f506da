"""The part of a report on two sets of sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.report import Diagnosis, diagnose

pytestmark = pytest.mark.usefixtures("only_blank_pictures")

WORDS = [f"word{letter}" for letter in "abcdefghijklmnop"]
OPTIONS: dict[str, Any] = {
    "ranks": False, "n_examples": 0, "n_bootstrap": 50, "random_state": 0, "verbose": 0,
    "estimator": FLiPExtractor(max_iter=4, early_stopping=True),
}  # fmt: skip


def make(share: float) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Embeddings, sentences and months; this share of the sentences of May have "worda"."""
    rng = np.random.default_rng(0)
    code = dict(zip(WORDS, rng.normal(size=(len(WORDS), 16)), strict=True))
    months = np.where(rng.random(900) < 0.5, "May", "April")
    texts = [
        " ".join([*rng.choice(WORDS[1:], 4), *(WORDS[:1] if rng.random() < chance else [])])
        for chance in np.where(months == "May", share, 0.2)
    ]
    return np.array([sum(map(code.__getitem__, text.split())) for text in texts]), texts, months


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    X, texts, months = make(0.8)
    return diagnose(X, texts, sets=months, **OPTIONS)


def test_the_word_that_differs_is_named(diagnosis: Diagnosis) -> None:
    compared = diagnosis.sets
    assert compared is not None
    assert compared.names == ("April", "May")
    assert compared.words.more_in_b() == ["worda"]
    assert sum(compared.words.n_rows) == len(diagnosis.split.test)
    texts = [finding.text for finding in diagnosis.findings if finding.about == "sets"]
    n_tested = compared.words.tested.sum()
    assert texts[0] == f"1 of {n_tested} tested words differs between “April” and “May”."
    assert texts[1].startswith("By their embeddings, sentences of “May” have “worda” (")
    assert '<h2 id="sets">Which words does one set of sentences have more often?</h2>' in diagnosis.html
    assert "sets=sets" in diagnosis.html


def test_no_difference() -> None:
    X, texts, months = make(0.2)
    diagnosis = diagnose(X, texts, sets=months, **OPTIONS)
    (text,) = [finding.text for finding in diagnosis.findings if finding.about == "sets"]
    assert text.startswith("None of ")
    assert "<img" in diagnosis.html.partition('<h2 id="sets">')[2].partition("<h2")[0]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["May"] * 900, {}, "sets has 1 different labels"),
        (["May", "June", "July"] * 300, {}, "sets has 3 different labels"),
        (["May"] * 20, {}, r"sets: .*pass one group per row, \(900,\)"),
        (["May"] + ["June"] * 899, {"test": np.arange(450, 900)}, "sets has 0 different test sentences"),
        (["May", "June"] * 450, {"estimator": FLiPExtractor()}, "sets needs a model that holds rows out"),
    ],
)
def test_bad_input(labels: list[str], options: dict[str, Any], message: str) -> None:
    X, texts, _ = make(0.2)
    with pytest.raises(ValueError, match=message):
        diagnose(X, texts, sets=labels, **(OPTIONS | options))

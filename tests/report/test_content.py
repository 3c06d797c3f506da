"""What the page says: differences with intervals, bands by what they hold, the answer, and the settings."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import view_alignment
from flip_sklearn.report import Diagnosis, diagnose, wording
from flip_sklearn.report import findings as rules
from flip_sklearn.report.sections import make_sections
from tests.report.test_report import Page, planted

OPTIONS: dict[str, Any] = {
    "ranks": False,
    "n_examples": 0,
    "n_bootstrap": 50,
    "random_state": 0,
    "verbose": 0,
    "estimator": FLiPExtractor(max_iter=3),
}


def shown(diagnosis: Diagnosis) -> str:
    """The text of the page, with single spaces."""
    return " ".join(" ".join(Page(diagnosis.html).text).split())


@pytest.fixture(scope="module")
def two_views() -> Diagnosis:
    views, texts = planted()
    return diagnose({"text": views["text"], "speech": views["<b>&speech"]}, texts, **OPTIONS)


# --- Differences between models on their own views -------------------------------------------------


def test_own_view_differences_have_intervals(two_views: Diagnosis) -> None:
    result = two_views.alignment
    gap, accuracy = result.own_view_difference, result.accuracy.value
    for i, j in np.ndindex(2, 2):
        assert gap.value[i, j] == pytest.approx(accuracy[j, j] - accuracy[i, i])
        assert gap.low[i, j] <= gap.value[i, j] <= gap.high[i, j]
    assert gap.significant[0, 1]  # because of the noise
    texts = [finding.text for finding in two_views.findings if finding.about == "alignment"]
    amount = wording.size(gap, 0, 1)
    assert f"Each view read by its own model, “speech” gives {amount} less than “text”." in texts
    (section,) = (part for part in make_sections(two_views) if part.id == "alignment")
    (table,) = section.blocks[0].more_tables
    assert [row[0] for row in table.rows] == ["text", "speech"]
    assert table.rows[1][2:] == (wording.change(gap, 0, 1), "yes, less")
    assert wording.change(gap, 0, 1).split(" (")[1] in shown(two_views)


def test_own_views_without_a_significant_difference() -> None:
    views, texts = planted()
    found = diagnose({"a": views["text"], "b": views["text"].copy()}, texts, **OPTIONS)
    texts = [finding.text for finding in found.findings]
    assert (
        "Each view read by its own model, “b” gives neither significantly more nor less than “a”: 0.0 points "
        "(0.0 to 0.0)."
    ) in texts


def test_many_own_views_have_the_largest_difference() -> None:
    rng = np.random.default_rng(0)
    views, texts = planted()
    noisy = {f"noise {s}": views["text"] + s * rng.normal(size=views["text"].shape) for s in (0, 1, 4, 2)}
    found = diagnose(noisy, texts, **OPTIONS)
    (text,) = (f.text for f in found.findings if f.text.startswith("Each view read by its own model"))
    assert "“noise 4” gives" in text
    assert text.endswith("less than “noise 0”.")


def test_results_stored_without_the_difference_have_findings(two_views: Diagnosis) -> None:
    old = dataclasses.replace(two_views.alignment, own_view_difference=None)
    assert not any("its own model" in finding.text for finding in rules.alignment_findings(old))
    (section,) = (
        part
        for part in make_sections(dataclasses.replace(two_views, alignment=old))
        if part.id == "alignment"
    )
    assert section.blocks[0].more_tables == ()


def test_views_at_the_baseline_have_no_own_view_difference() -> None:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.3, size=(200, 10))
    noise = {name: rng.normal(size=(200, 6)) for name in "ab"}
    result = view_alignment(noise, Y, estimator=FLiPExtractor(max_iter=1), random_state=0, verbose=0)
    texts = [finding.text for finding in rules.alignment_findings(result)]
    assert not any("its own model" in text for text in texts)


# --- Bands of counts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "bands", "spelled"),
    [
        ([4, 20, 300], ("1-9", "10-99", "100-999"), ["4 to 9", "10 to 99", "100 to 999"]),
        ([0, 1, 20], ("0", "1-9", "10-99"), ["0", "1 to 9", "10 to 99"]),
        ([9, 20], ("1-9", "10-99"), ["9", "10 to 99"]),
        ([3.9999999, 12], ("1-9", "10-99"), ["4 to 9", "10 to 99"]),  # a sum of weights
        ([20, 20_000], ("10-99", "10,000+"), ["20 to 99", "10,000 or more"]),
        ([1234, 20_000], ("1,000-9,999", "10,000+"), ["1,234 to 9,999", "10,000 or more"]),
        ([12_000], ("10,000+",), ["12,000 or more"]),
    ],
)
def test_bands_are_named_by_what_they_hold(counts: list[float], bands: Any, spelled: list[str]) -> None:
    result: Any = SimpleNamespace(train_count=np.array(counts, dtype=float), bands=bands)
    assert wording.spelled_bands(result) == spelled


def test_page_names_bands_by_what_they_hold() -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    class Frequent(CountVectorizer):
        """Words that occur at least four times."""

        def fit(self, raw_documents: Any, y: Any = None) -> Any:
            counts = super().fit_transform(raw_documents)
            names = self.get_feature_names_out()[np.asarray(counts.sum(axis=0)).ravel() >= 4]
            self.fixed_vocabulary_, self.vocabulary_ = True, {name: i for i, name in enumerate(names)}
            return self

    views, texts = planted(n=300)
    rng = np.random.default_rng(0)
    rare = [f"rare{i}" for i in range(30)]
    texts = [f"{text} {rng.choice(rare)}" for text in texts]
    found = diagnose(views["text"], texts, vectorizer=Frequent(), **OPTIONS)
    counts = found.recoverability["embeddings"].train_count
    assert 4 <= counts.min() < 10
    page = shown(found)
    assert f" {counts.min():.0f} to 9 " in page
    assert " 1 to 9 " not in page

"""The report: findings follow from the results, and the page is safe, complete and reproducible."""

from __future__ import annotations

import ast
import base64
import dataclasses
import html
import inspect
import io
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import (
    EntityRecallCurve,
    ExtractorComparison,
    RankAnalysis,
    ViewAlignment,
    VocabularyPreference,
    WordRecoverability,
    compare_extractors,
    rank_analysis,
    view_alignment,
)
from flip_sklearn.diagnostics.bootstrap import Difference, Interval
from flip_sklearn.io import write_atomic
from flip_sklearn.report import Diagnosis, Finding, diagnose, wording
from flip_sklearn.report import findings as rules
from flip_sklearn.report.inputs import ReportArguments
from flip_sklearn.report.results import Results
from flip_sklearn.vocabulary.defaults import default_vectorizer

CHROMIUM = shutil.which("chromium")
EVIL = "<script>document.title = 'owned'</script>"
WORDS = [a + b for a in ("ba", "ce", "di", "fo", "gu") for b in ("rn", "st", "lk", "mp")]


def planted(n: int = 400, d: int = 12, seed: int = 0) -> tuple[dict[str, np.ndarray], list[str]]:
    """Sentences of invented words in two views: linear embeddings, and the same with more noise."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, len(WORDS) + 1)
    texts = [" ".join(rng.choice(WORDS, p=p / p.sum(), size=6)) for _ in range(n)]
    counts = np.array([[text.split().count(word) for word in WORDS] for text in texts])
    clear = counts @ rng.normal(size=(len(WORDS), d)) + 0.3 * rng.normal(size=(n, d))
    return {"text": clear, "<b>&speech": clear + 3 * rng.normal(size=(n, d))}, texts


def small(**changed: Any) -> Diagnosis:
    """A report with every section, of texts with HTML and invalid characters."""
    views, texts = planted()
    texts = [f"{EVIL} <img src=x onerror=alert(1)> {text}" for text in texts]
    # An unpaired surrogate, a null character and a right-to-left override.
    transcripts = [f"heard \ud800 \x00 \u202e {text}" for text in texts]
    code = np.random.default_rng(1).normal(size=(100, 12))
    arguments: dict[str, Any] = {
        "title": f"A title & {EVIL}",
        "view_texts": {"text": transcripts},
        "entities": [[word for word in text.split() if word in WORDS[10:]] for text in texts],
        "dictionary": lambda words: code[: len(words)],
        "ranks": [2, None],
        "estimator": FLiPExtractor(max_iter=3, batch_size=100, tol=1),
        "n_bootstrap": 50,
        "random_state": 0,
        "verbose": 0,
    }
    other = [" ".join(f"x{word}" for word in text.split()[5:]) for text in texts]
    return diagnose(views, {"en": texts, "de": other}, **(arguments | changed))


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return small()


@pytest.fixture(scope="module")
def plain() -> Diagnosis:
    """A report of one view and one language without optional parts."""
    views, texts = planted()
    return diagnose(
        views["text"],
        texts,
        ranks=False,
        n_examples=0,
        n_bootstrap=20,
        random_state=0,
        verbose=0,
        estimator=FLiPExtractor(max_iter=3),
        vectorizer=CountVectorizer(),
    )


# --- Numbers as text --------------------------------------------------------------------------


def interval(value: Any, half: Any = 0.01) -> Interval:
    value = np.asarray(value, dtype=float)
    return Interval(value, value - half, value + half)


def difference(value: Any, half: Any = 0.01) -> Difference:
    value = np.asarray(value, dtype=float)
    low, high = value - half, value + half
    return Difference(value, low, high, (low > 0) | (high < 0))


def test_numbers_as_text() -> None:
    shares, gap = interval([0.684, np.nan], [0.013, np.nan]), difference([-0.123, 0.0, 0.0004])
    assert wording.share(shares, 0) == "68.4% (67.1% to 69.7%)"
    assert wording.share(shares, 0, in_brackets=True) == "68.4%, 67.1% to 69.7%"
    assert wording.share(shares, 1) == "not known"
    assert wording.change(gap, 0) == "−12.3 points (−13.3 to −11.3)"
    assert wording.size(gap, 0) == "12.3 points (11.3 to 13.3)"
    assert wording.change(gap, 1) == "0.0 points (−1.0 to +1.0)"
    assert wording.change(gap, 2) == "0.0 points (−1.0 to +1.0)"
    assert wording.number(1234567.0) == "1,234,567"
    assert wording.listed("abc") == "a, b and c"
    assert wording.listed(["a"]) == "a"


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_text_of_a_difference_has_its_values(value: float, below: float, above: float) -> None:
    gap = Difference(*(np.array(x) for x in (value, value - below, value + above, False)))
    text = wording.change(gap).replace("−", "-").replace("+", "")
    written = [float(x) for x in re.findall(r"-?[\d.]+", text)]
    np.testing.assert_allclose(written, np.array([value, value - below, value + above]) * 100, atol=0.0501)
    assert "-0.0" not in text
    assert " (" in text


# --- Findings: every branch of every rule, with constructed results -------------------------------


def alignment(
    accuracy: Any, gap: Any, baseline: float = 0.2, names: str = "ab", **kwargs: Any
) -> list[Finding]:
    v = len(names)
    jaccard = interval(np.full((v, v), 0.6))
    result = ViewAlignment(
        views=tuple(names),
        accuracy=interval(accuracy),
        difference=difference(gap, **kwargs),
        jaccard=jaccard,
        jaccard_of_models=jaccard,
        baseline=interval(baseline),
        n_train=80,
        n_test=20,
        n_skipped=0,
        confidence=0.95,
    )
    return rules.alignment_findings(result)


def texts_of(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings]


def test_losses_and_gains_have_intervals() -> None:
    findings = alignment([[0.7, 0.5], [0.65, 0.6]], [[0, -0.2], [0.05, 0]])
    assert texts_of(findings) == [
        "Trained and tested on “a”, the model finds 70.0% (69.0% to 71.0%) of a sentence's words; the "
        "baseline finds 20.0% (19.0% to 21.0%).",
        "Trained and tested on “b”, the model finds 60.0% (59.0% to 61.0%) of a sentence's words; the "
        "baseline finds 20.0% (19.0% to 21.0%).",
        "The model trained on “a” loses 20.0 points (19.0 to 21.0) when it is tested on “b”: 50.0% of the "
        "words instead of 70.0%.",
        "The model trained on “b” gains 5.0 points (4.0 to 6.0) when it is tested on “a”: 65.0% of the "
        "words instead of 60.0%.",
        "Of all the right words that the model trained on “a” finds in “a”, in “b” or in both, 60.0% (59.0% "
        "to 61.0%) are found in both; the others are found in only one of the two views.",
        "Of all the right words that the model trained on “b” finds in “b”, in “a” or in both, 60.0% (59.0% "
        "to 61.0%) are found in both; the others are found in only one of the two views.",
    ]
    assert [finding.main for finding in findings] == [True] * 4 + [False] * 2


def test_no_difference_is_claimed_inside_the_interval() -> None:
    findings = alignment([[0.7, 0.69], [0.61, 0.6]], [[0, -0.01], [0.01, 0]], half=0.02)
    text = " ".join(texts_of(findings))
    assert "no significant difference when it is tested on “b”: −1.0 points (−3.0 to +1.0)." in text
    assert "no significant difference when it is tested on “a”: +1.0 points (−1.0 to +3.0)." in text
    assert "loses" not in text
    assert "gains" not in text


def test_view_at_the_baseline_has_no_other_findings() -> None:
    texts = texts_of(alignment([[0.205, 0.1], [0.2, 0.6]], [[0, -0.105], [-0.4, 0]]))
    assert texts[0].endswith(
        "20.5% (19.5% to 21.5%) of a sentence's words. That is not clearly above the baseline (20.0%, "
        "19.0% to 21.0%), so it does not show that words can be found in this view."
    )
    assert not any(text.startswith("The model trained on “a”") for text in texts)
    (other_view,) = (text for text in texts if text.startswith("The model trained on “b”"))
    assert "loses 40.0 points" in other_view
    assert other_view.endswith("That is not clearly above the baseline (20.0%, 19.0% to 21.0%).")
    below = texts_of(alignment([[0.1, 0.1], [0.1, 0.6]], np.zeros((2, 2))))
    assert "That is below the baseline" in below[0]
    weak = texts_of(alignment([[0.23, 0.23], [0.6, 0.6]], np.zeros((2, 2))))
    assert "only a little above the baseline (20.0%, 19.0% to 21.0%)" in weak[0]
    assert "little can be found in this view" in weak[0]


def test_many_views_are_summed_up() -> None:
    gap = np.zeros((4, 4))
    gap[0, 1], gap[2, 3], gap[3, 0] = -0.3, -0.1, 0.2
    findings = alignment(np.full((4, 4), 0.6), gap, names="abcd")
    assert len(findings) == 5
    assert all(finding.main for finding in findings)
    assert findings[0].text == (
        "Of 12 tests of a model on a view that it was not trained on, 2 find fewer words than on its own "
        "view and 1 more; 9 have no significant difference. The largest loss is that of the model trained "
        "on “a” when it is tested on “b”: 30.0 points (29.0 to 31.0)."
    )


def preference(accuracy: Any, gap: Any, baseline: Any = (0.2,)) -> list[str]:
    result = VocabularyPreference(
        languages=("en",),
        views=("en", "de"),
        reference=("en",),
        accuracy=interval([accuracy]),
        difference=difference([gap]),
        baseline=interval(baseline),
        n_train=80,
        n_test=20,
        n_skipped=(0,),
        confidence=0.95,
    )
    return texts_of(rules.preference_findings(result))


def test_preference_needs_a_significant_difference() -> None:
    accuracy, gain = preference([0.5, 0.6], [0, 0.1])
    assert accuracy.startswith("Tested on “en”, the model of all views finds 50.0%")
    assert gain == "Of the words of “en”, it finds 10.0 points (9.0 to 11.0) more on “de”."
    assert preference([0.5, 0.4], [0, -0.1])[1].endswith("10.0 points (9.0 to 11.0) less on “de”.")
    assert preference([0.5, 0.505], [0, 0.005])[1] == (
        "For words of “en”, there is no significant difference between “en” and “de” (+0.5 points, −0.5 to "
        "+1.5)."
    )
    (only,) = preference([0.2, 0.2], [0, 0])
    assert "it does not show that words can be found" in only


def ranks(gap: Any, accuracy: float = 0.6, tried: tuple[int | None, ...] = (16, 64, None)) -> list[str]:
    gap = np.asarray(gap, dtype=float)[:, None]
    result = RankAnalysis(
        ranks=tried,
        views=("a",),
        accuracy=interval(accuracy + gap),
        difference=difference(gap),
        n_parameters=np.array([1000, 4000, 9000])[-len(gap) :],
        baseline=interval(0.2),
        n_train=80,
        n_test=20,
        n_skipped=0,
        confidence=0.95,
    )
    return texts_of(rules.rank_findings(result))


def test_lowest_sufficient_rank() -> None:
    assert ranks([-0.2, 0.001, 0]) == [
        "Tested on “a”, the model of 64 dimensions is enough: neither it nor a larger one finds "
        "significantly less than the model that keeps all dimensions (LiP). The difference is +0.1 points "
        "(−0.9 to +1.1), with 4,000 parameters instead of 9,000."
    ]
    assert ranks([-0.2, -0.1, 0]) == [
        "Tested on “a”, no smaller number of dimensions that was tried is enough: the model of 64 "
        "dimensions finds 10.0 points (9.0 to 11.0) less than the model that keeps all dimensions (LiP)."
    ]
    low, gain = ranks([-0.001, 0.05, 0])
    assert "the model of 16 dimensions is enough" in low
    assert gain == (
        "Tested on “a”, the model of 64 dimensions finds 5.0 points (4.0 to 6.0) more than the model that "
        "keeps all dimensions (LiP)."
    )
    assert "the model of 1 dimension is enough" in ranks([0, 0, 0], tried=(1, 64, None))[0]
    assert "less than the model of 64 dimensions." in ranks([-0.1, 0], tried=(16, 64))[0]
    # A rank without a loss is not sufficient if a higher one has a loss.
    assert ranks([0, -0.1, 0]) == ranks([-0.2, -0.1, 0])
    assert ranks([0], tried=(None,)) == [
        "Tested on “a”, the model that keeps all dimensions (LiP) finds 60.0% (59.0% to 61.0%) of the words."
    ]
    assert "it does not show that words can be found" in ranks([0, 0, 0], accuracy=0.2)[0]


def extractors(gap: Any) -> ExtractorComparison:
    gap = np.asarray(gap, dtype=float)[:, None]
    return ExtractorComparison(
        extractors=("FLiP", "LiP", "SpLiCE", "most frequent words"),
        views=("a",),
        accuracy=interval(0.6 + gap),
        difference=difference(gap),
        n_train=80,
        n_test=20,
        n_skipped=0,
        confidence=0.95,
    )


def test_extractors_are_compared_with_the_first() -> None:
    (finding,) = rules.extractor_findings(extractors([0, 0.002, -0.3, -0.4]))
    assert finding.text == (
        "Tested on “a”, FLiP, the model of this page, finds 60.0% (59.0% to 61.0%) of a sentence's words; "
        "LiP, which keeps all dimensions, finds neither significantly more nor less (+0.2 points, −0.8 to "
        "+1.2); SpLiCE, which is not trained, finds 30.0 points (29.0 to 31.0) less; the baseline, which "
        "always names the most frequent words, finds 40.0 points (39.0 to 41.0) less."
    )
    (finding,) = rules.extractor_findings(extractors([0, 0, 0.3, -0.4]))
    assert "SpLiCE, which is not trained, finds 30.0 points (29.0 to 31.0) more" in finding.text
    for gap, verdict in ((0.005, "is not significantly different from"), (0.05, "is below")):
        (finding,) = rules.extractor_findings(extractors([0, 0, 0, gap]))
        assert f"of a sentence's words. That {verdict} the baseline (" in finding.text
        assert "LiP, which keeps" not in finding.text
        assert rules.views_at_baseline(extractors([0, 0, 0, gap])) == ("a",)
    assert rules.views_at_baseline(extractors([0, 0, 0, -0.1])) == ()


def entities(gap: float, missing: int = 0, ks: Any = (1, 8, 100)) -> list[str]:
    values = np.full((2, 1, len(ks)), 0.3)
    values[1] += gap
    recall = interval(values)
    result = EntityRecallCurve(
        ks=np.array(ks),
        views=("a",),
        recall_strict=recall,
        recall_partial=recall,
        precision=recall,
        difference=difference(np.full((1, len(ks)), gap)),
        ceiling=0.9,
        n_sentences=20,
        n_skipped=5,
        n_names=30,
        n_out_of_vocabulary=missing,
        confidence=0.95,
    )
    findings = rules.entity_findings(result, at_baseline=())
    assert rules.entity_findings(result, at_baseline={"a"}) == findings[1:]
    return texts_of(findings)


def test_names_with_and_without_bias() -> None:
    assert entities(0.2) == [
        "Tested on “a”, 50.0% (49.0% to 51.0%) of a sentence's names are among the 8 most distinctive words; "
        "20.0 points (19.0 to 21.0) more than among the 8 most likely words."
    ]
    assert entities(-0.2)[0].endswith("20.0 points (19.0 to 21.0) less than among the 8 most likely words.")
    assert entities(0.005)[0].endswith(
        "the difference to the 8 most likely words is not significant: +0.5 points (−0.5 to +1.5)."
    )
    assert "among the most distinctive word;" in entities(0.2, ks=(1,))[0]
    assert entities(0.2, missing=1)[1].startswith("1 of 30 names have a word")


def words(
    gap: Any,
    *,
    is_at_baseline: bool = False,
    bands: tuple[str, ...] = ("1-9", "10-99", "100-999"),
    baseline: Interval | None = None,
) -> list[Finding]:
    gap = np.asarray(gap, dtype=float)
    bands = bands[: len(gap)]
    one = np.ones(len(gap), dtype=int)
    result = WordRecoverability(
        words=np.array(WORDS[: len(gap)]),
        train_count=one,
        test_count=one,
        test_hits=one,
        recall=one,
        band=np.array(bands, dtype=object),
        bands=bands,
        band_recall=interval(0.5 + gap),
        band_difference=difference(gap),
        band_words=one,
        band_occurrences=one,
        overall=interval(0.5),
        n_sentences=20,
        n_skipped=0,
        confidence=0.95,
        band_baseline=baseline,
    )
    return rules.recoverability_findings("a", result, is_at_baseline=is_at_baseline)


def test_words_by_count_in_training() -> None:
    findings = words([-0.2, 0.005, 0.1])
    assert [finding.main for finding in findings] == [False, True, False, False]
    overall, less, more, neither = texts_of(findings)
    assert overall == ("Tested on “a”, 50.0% (49.0% to 51.0%) of all occurrences of words are found.")
    assert less == (
        "Tested on “a”, words that occur 1 to 9 times (20.0 points, 19.0 to 21.0) in the training sentences "
        "are found less often than all words together."
    )
    assert "100 to 999 times (10.0 points, 9.0 to 11.0) in the training sentences are found more" in more
    assert "are found neither significantly more nor less often than all words together" in neither
    assert "10 to 99 times (+0.5 points, −0.5 to +1.5)" in neither
    assert len(words([0])) == 1  # a single band is all words
    assert len(words([-0.5, -0.1], bands=("0", "1-9"))) == 2  # words that are not in training
    assert words([-0.2, 0.1], baseline=interval([0.1, 0.7]))[-1].text == (
        "Tested on “a”, words that occur 10 to 99 times (60.0%, 59.0% to 61.0%; baseline 70.0%, 69.0% to "
        "71.0%) in the training sentences are not found significantly more often than by the baseline."
    )
    assert len(words([-0.2, 0.1], baseline=interval([0.1, 0.2]))) == 3
    (at_baseline,) = words([-0.2, 0.1], is_at_baseline=True)
    assert at_baseline.main
    assert "The baseline finds as many" in at_baseline.text


# --- Results --------------------------------------------------------------------------


def test_all_results_share_one_split(diagnosis: Diagnosis, plain: Diagnosis) -> None:
    n_test = len(diagnosis.split.test)
    parts = (diagnosis.alignment, diagnosis.preference, diagnosis.ranks, diagnosis.extractors)
    assert {part.n_test for part in parts} == {n_test}
    assert diagnosis.entities.n_sentences == n_test
    assert [*diagnosis.recoverability] == ["text", "<b>&speech"]
    assert diagnosis.ranks.ranks == (2, None)
    assert diagnosis.extractors.extractors == ("FLiP", "LiP", "SpLiCE", "most frequent words")
    assert diagnosis.alignment.difference.significant[0, 1]  # because of the noise
    assert {finding.about for finding in diagnosis.findings} == {
        "alignment",
        "view_gap",
        "preference",
        "recoverability",
        "rare_words",
        "entities",
        "ranks",
        "directions",
        "extractors",
    }
    assert (plain.alignment, plain.preference, plain.entities, plain.ranks) == (None,) * 4
    assert plain.examples == ()
    assert plain.views == ("embeddings",)
    assert plain.extractors.extractors == ("FLiP", "LiP", "most frequent words")
    assert "1 views" not in plain.html
    assert repr(plain).startswith("Diagnosis(1 view")


def count_fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, tuple[int, ...]]]:
    """Record the rank and the shape of X of every fit from now on."""
    fits = []
    fit = FLiPExtractor.fit

    def recorded(self: FLiPExtractor, X: Any, *args: Any, **kwargs: Any) -> FLiPExtractor:
        fits.append((self.rank, X.shape))
        return fit(self, X, *args, **kwargs)

    monkeypatch.setattr(FLiPExtractor, "fit", recorded)
    return fits


@pytest.mark.usefixtures("blank_pictures")
def test_each_model_is_fitted_once(diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = count_fits(monkeypatch)
    again = small(ranks=[2, 12, None])
    n, d = len(diagnosis.split.train), 12
    # Rank "auto" is rank 12: one fit for examples, words, names, ranks, extractors and the first language.
    assert sorted(fits, key=str) == sorted(
        [
            ("auto", (2 * n, d)),  # all views
            ("auto", (2 * n, d)),  # all views, words of the second language
            ("auto", (n, d)),  # each view
            ("auto", (n, d)),
            ("auto", (n, d)),  # without the words that are held out, with features of the words and without
            ("auto", (n, d)),
            (2, (2 * n, d)),
            (None, (2 * n, d)),
        ],
        key=str,
    )
    # The results are those of separate fits.
    np.testing.assert_array_equal(again.ranks.accuracy.value[1], again.extractors.accuracy.value[0])
    np.testing.assert_array_equal(again.ranks.accuracy.value[2], again.extractors.accuracy.value[1])
    np.testing.assert_array_equal(again.preference.accuracy.value[0], again.extractors.accuracy.value[0])


@pytest.mark.usefixtures("blank_pictures")
def test_progress_names_each_part(capfd: pytest.CaptureFixture[str]) -> None:
    views, texts = planted(40)
    options = {"estimator": FLiPExtractor(max_iter=1), "n_bootstrap": 10, "n_examples": 0, "random_state": 0}
    diagnose(views["text"], texts, ranks=False, verbose=0, **options)
    assert capfd.readouterr() == ("", "")
    diagnose(views["text"], texts, ranks=False, **options)
    shown = capfd.readouterr().err
    names = [field.name.replace("_", " ") for field in dataclasses.fields(Results)]
    assert [part for part in names if f"{part}]" not in shown] == []


@pytest.mark.usefixtures("blank_pictures")
def test_results_equal_those_of_the_separate_diagnoses() -> None:
    views, texts = planted()
    options = {"n_bootstrap": 20, "random_state": 0, "verbose": 0}
    estimator = FLiPExtractor(max_iter=2)
    report = diagnose(
        views, texts, vectorizer=CountVectorizer(), ranks=[3, 12, None], estimator=estimator, **options
    )
    train_texts = [texts[i] for i in report.split.train]
    Y = CountVectorizer().fit(train_texts).transform(texts)
    options |= {"split": report.split}
    lip = FLiPExtractor(max_iter=2, rank=None)
    expected = [
        (report.alignment, view_alignment(views, Y, estimator=estimator, **options)),
        (report.ranks, rank_analysis(views, Y, [3, 12, None], estimator=estimator, **options)),
        (report.extractors, compare_extractors(views, Y, {"FLiP": estimator, "LiP": lip}, **options)),
    ]
    for result, separate in expected:
        assert result.to_frame().equals(separate.to_frame())


def test_examples_mark_right_words(diagnosis: Diagnosis) -> None:
    rows = [example.row for example in diagnosis.examples]
    assert len(set(rows)) == 20
    assert set(rows) <= set(diagnosis.split.test.tolist())
    known = set(diagnosis.vocabulary)
    vectorizer = default_vectorizer([example.text for example in diagnosis.examples], 2, min_count=1)
    read = vectorizer.fit([example.text for example in diagnosis.examples]).build_analyzer()
    for example in diagnosis.examples:
        present = set(read(example.text)) & known
        assert [reading.view for reading in example.readings] == [*diagnosis.views]
        assert [reading.text is not None for reading in example.readings] == [True, False]
        for reading in example.readings:
            assert len(reading.words) == len(present)
            assert all(right == (word in present) for word, right in reading.words + reading.telling)
            right = {word for word, right in reading.words if right}
            assert right | set(reading.missed) == present
            assert len(right) == reading.n_right == len(present) - len(reading.missed)


@pytest.mark.usefixtures("blank_pictures")
def test_integer_embeddings() -> None:
    views, texts = planted(n=120)
    options = {"ranks": False, "n_bootstrap": 10, "verbose": 0, "random_state": 0}
    integers = np.round(10 * views["text"])
    estimator = FLiPExtractor(max_iter=1)
    expected = diagnose(integers, texts, estimator=estimator, **options)
    report = diagnose(integers.astype(int), texts, estimator=estimator, **options)
    assert report.examples == expected.examples


@pytest.mark.usefixtures("blank_pictures")
def test_no_leakage_of_test_sentences() -> None:
    """The vectorizer is fitted to training sentences, and equal texts are in one part of the split."""
    seen: list[str] = []

    class Spy(CountVectorizer):
        def fit(self, raw_documents: Any, y: Any = None) -> Any:
            seen.extend(raw_documents)
            return super().fit(raw_documents)

    views, texts = planted(n=200)
    texts[100:] = [f"  {text.upper()} " for text in texts[:100]]  # equal except for case and blanks
    found = diagnose(
        views,
        texts,
        vectorizer=Spy(),
        ranks=False,
        n_examples=3,
        n_bootstrap=20,
        verbose=0,
        estimator=FLiPExtractor(max_iter=1),
        random_state=0,
    )
    assert seen == [texts[i] for i in found.split.train]
    assert {i % 100 for i in found.split.train}.isdisjoint(i % 100 for i in found.split.test)
    assert not {" ".join(texts[i].lower().split()) for i in found.split.test} & {
        " ".join(text.lower().split()) for text in seen
    }


@pytest.mark.usefixtures("blank_pictures")
def test_default_vectorizer_supports_other_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    from flip_sklearn.report.inputs import _fit_vectorizer
    from flip_sklearn.vocabulary.defaults import default_min_count

    texts = ["नमस्ते दुनिया", "नमस्ते भारत"] * 4
    words = _fit_vectorizer(None, texts, np.arange(8)).get_feature_names_out()
    assert sorted(words) == sorted(["नमस्ते", "दुनिया", "भारत"])
    assert [default_min_count(n) for n in (10, 7200, 40_000, 160_000, 10**7)] == [2, 4, 10, 20, 20]


# --- Invalid input ------------------------------------------------------------------------------


BAD = {
    "texts too few": ({"texts": ["a"]}, "texts has 1 rows, the views have 400"),
    "one text": ({"texts": "a b c"}, "pass a list of 400 texts"),
    "no languages": ({"texts": {}}, "texts is empty"),
    "a language too short": ({"texts": {"de": ["a"]}}, r"texts\['de'\] has 1 rows"),
    "a text that is none": ({"texts": ["a"] * 399 + [None]}, "holds None of type NoneType in row 399"),
    "views apart": ({"views": {"a": np.zeros((400, 2)), "b": np.zeros((3, 2))}}, "shape"),
    "view without a name": ({"views": {1: np.ones((400, 2))}}, "is of type int; use a str"),
    "nan": ({"views": np.where(np.eye(400), np.nan, 1.0)}, "NaN or infinite values in 400 rows"),
    "no html": ({"out": "report.pdf"}, "does not end in .html"),
    "a folder": ({"out": "here.html"}, "is a folder"),
    "in a file": ({"out": "file/report.html"}, "cannot be written"),
    "no path": ({"out": 3}, "use the path of an .html file"),
    "blank title": ({"title": " "}, "use a text, or None"),
    "no vectorizer": ({"vectorizer": "latin"}, "has no fit"),
    "another model": ({"estimator": CountVectorizer()}, "pass a FLiPExtractor"),
    "examples": ({"n_examples": -1}, "n_examples=-1"),
    "resamples": ({"n_bootstrap": 1}, "n_bootstrap=1"),
    "level": ({"confidence": 1.0}, "confidence=1.0"),
    "rank": ({"ranks": [99]}, "rank=99"),
    "names too few": ({"entities": [["a"]]}, "entities has 1 rows"),
    "blank name": ({"entities": [[" "]] * 400}, "no words"),
    "no name at all": ({"entities": [[]] * 400}, "no name in any"),
    "names are no lists": ({"entities": ["ab"] * 400}, "pass a list of strings"),
    "dictionary": ({"dictionary": np.ones((3, 12))}, "dictionary is an array of shape"),
    "dictionary function": ({"dictionary": lambda words: [0]}, "the dictionary function returned"),
    "dictionary of nan": ({"dictionary": lambda w: np.full((len(w), 12), np.nan)}, "needs an embedding"),
    "texts of no view": ({"view_texts": {"c": ["a"] * 400}}, "view_texts has 'c'"),
    "texts of a view": ({"view_texts": {"text": ["a"]}}, r"view_texts\['text'\] has 1 rows"),
    "no mapping": ({"view_texts": ["a"]}, "pass a mapping of views"),
    "groups": ({"groups": [1, 2]}, "one group per row"),
    "test": ({"test": [400]}, "there are 400 sentences"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_invalid_input_is_rejected_before_training(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(FLiPExtractor, "fit", too_late)
    monkeypatch.chdir(tmp_path)
    Path("here.html").mkdir()
    Path("file").write_text("")
    views, texts = planted()
    changed, message = BAD[case]
    arguments = {"views": views, "texts": texts, "verbose": 0} | changed
    with pytest.raises(ValueError, match=message):
        diagnose(arguments.pop("views"), arguments.pop("texts"), **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here.html"]


def test_missing_packages_are_reported_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[report\]"):
        diagnose(np.ones((4, 2)), ["a"] * 4)


# --- The page ------------------------------------------------------------------------------------

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags and text of a page; fails if tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=["diagnosis", "plain"])
def page(request: pytest.FixtureRequest) -> Page:
    return Page(request.getfixturevalue(request.param).html)


def test_page_has_no_scripts_and_external_resources(page: Page) -> None:
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "video", "b"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "srcset", "action", "background", "poster", "data"):
            allowed = ("data:image/png;", "data:image/svg+xml;") if name == "src" else "#"
            assert name not in attributes or attributes[name].startswith(allowed), tag
        assert "style" not in attributes
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_style_has_no_external_resources(plain: Diagnosis) -> None:
    style = re.findall(r"<style>(.*?)</style>", plain.html, re.DOTALL)
    assert len(style) == 1
    assert not re.search(r"url\s*\(|@import|expression", style[0])
    assert not re.search(r"https?:", plain.html)


def test_page_structure_is_valid(page: Page) -> None:
    assert page.tags[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {a["href"].removeprefix("#") for a in page.all("a")}
    labels = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    assert targets | labels <= set(ids)
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(a.get("scope") in {"col", "row"} for a in page.all("th"))
    assert all(a.get("alt") for a in page.all("img"))
    assert len(page.all("title")) == len(page.all("main")) == 1


def test_pictures_can_be_opened(page: Page) -> None:
    from PIL import Image

    images = page.all("img")
    assert images
    for image in images:
        kind, data = re.fullmatch(r"data:image/(.+);base64,(.+)", image["src"]).groups()
        raw = base64.b64decode(data, validate=True)
        if kind == "png":
            assert Image.open(io.BytesIO(raw)).width > 500
        else:
            root = ElementTree.fromstring(raw)
            assert root.tag.endswith("svg")
            assert not any(element.tag.endswith("script") for element in root.iter())
            links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
            assert all(link.startswith(("#", "data:image/png;")) for link in links)


def test_texts_are_escaped(diagnosis: Diagnosis) -> None:
    shown = "".join(Page(diagnosis.html).text)
    assert EVIL not in diagnosis.html
    assert "<img src=x" not in diagnosis.html
    assert f"A title & {EVIL}" in shown
    assert "“<b>&speech”" in shown
    for example in diagnosis.examples:
        assert example.text in shown
    for finding in diagnosis.findings:
        assert finding.text in shown
    assert "heard ? " in shown


def test_numbers_are_in_the_tables(diagnosis: Diagnosis) -> None:
    shown = " ".join(" ".join(Page(diagnosis.html).text).split())
    for i, j in np.ndindex(2, 2):
        value, interval = wording.share(diagnosis.alignment.accuracy, i, j).split(" (")
        assert f"{value} ({interval}" in shown
    assert wording.number(len(diagnosis.split.train)) in shown
    assert f"{len(diagnosis.split.test)} test sentences" in shown
    for result in diagnosis.recoverability.values():
        for word in result.kept(3) + result.lost(3):
            j = list(result.words).index(word)
            assert f"{word} {result.test_hits[j]} of {result.test_count[j]}" in shown


def test_same_seed_gives_the_same_bytes(diagnosis: Diagnosis) -> None:
    assert small().html == diagnosis.html
    views, texts = planted()
    quick = {
        "ranks": False,
        "n_examples": 2,
        "n_bootstrap": 20,
        "verbose": 0,
        "estimator": FLiPExtractor(max_iter=1),
    }
    one, other = (diagnose(views["text"], texts, random_state=s, **quick).html for s in (1, 2))
    assert one != other
    assert "random_state=1" in html.unescape(one)


@pytest.mark.usefixtures("blank_pictures")
def test_long_lists_of_findings_are_cut(diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flip_sklearn.report.page._N_TOP", 1)
    shown = " ".join(Page(small(n_examples=0).html).text)
    main = [finding for finding in diagnosis.findings if finding.about == "alignment" and finding.main]
    assert f"{len(main) - 1} more below" in shown
    assert "more below" not in diagnosis.html
    assert all(shown.count(finding.text) == 1 for finding in main[1:])  # still in its section


def call_on(page: str) -> str:
    """The call that the page prints."""
    (code,) = re.findall("<pre>(.*?)</pre>", page, re.DOTALL)
    return html.unescape(code)


def run_call(code: str, names: dict[str, Any]) -> Diagnosis:
    """Run the printed call with names bound to the data; its value is that of the last expression."""
    *imports, call = ast.parse(code).body
    exec(compile(ast.Module(imports, []), "page", "exec"), names)
    assert isinstance(call, ast.Expr)
    return eval(compile(ast.Expression(call.value), "page", "eval"), names)


PASSED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "settings": {
        **{"title": "A 'title'\n", "n_bootstrap": 30, "confidence": 0.9, "n_examples": 3},
        "ranks": False,
    },
    "objects": {
        **{"vectorizer": CountVectorizer(), "estimator": FLiPExtractor(max_iter=1, rank=2)},
        "ranks": np.array([2, 5]),
    },
    "data": {
        "groups": np.arange(120) // 2,
        "test": np.arange(20),
        "view_texts": {"text": ["a"] * 120},
        "entities": [["barn"]] * 120,
        "dictionary": lambda words: np.ones((len(words), 12)),
    },
}


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("case", PASSED)
def test_printed_call_gives_the_same_page(case: str) -> None:
    views, texts = planted(n=120)
    passed = {"random_state": 3} | PASSED[case]
    report = diagnose(views, texts, verbose=0, **passed)
    code = call_on(report.html)
    call = ast.parse(code).body[-1].value  # type: ignore[attr-defined]
    assert [ast.unparse(argument) for argument in call.args] == ["views", "texts"]
    assert sorted(keyword.arg for keyword in call.keywords) == sorted(passed)
    again = run_call(code, {"views": views, "texts": texts, **passed})
    assert again.findings == report.findings
    assert again.html == report.html


@pytest.mark.usefixtures("blank_pictures")
def test_printed_call_of_languages_and_no_seed() -> None:
    """Texts of the views come from the languages, but were not passed; the drawn seed is printed."""
    views, texts = planted(n=120)
    options = {"estimator": FLiPExtractor(max_iter=1), "ranks": False, "n_bootstrap": 10}
    languages = {"text": texts, "other": texts[::-1]}
    report = diagnose(views, languages, verbose=0, **options)
    code = call_on(report.html)
    assert "view_texts" not in code
    again = run_call(code, {"views": views, "texts": languages, **options})
    assert again.html == report.html


def test_arguments_have_the_defaults_of_diagnose() -> None:
    """The printed call leaves out arguments that are equal to these defaults."""
    parameters = inspect.signature(diagnose).parameters
    for argument in dataclasses.fields(ReportArguments):
        default = parameters[argument.name].default
        if default is inspect.Parameter.empty:
            assert argument.default is dataclasses.MISSING
        else:
            assert argument.default == default
    assert {a.name for a in dataclasses.fields(ReportArguments)} == set(parameters) - {"out"}


def test_page_size(diagnosis: Diagnosis) -> None:
    assert len(diagnosis.html.encode()) < 2_000_000


# --- Saving --------------------------------------------------------------------------------------


def test_save(diagnosis: Diagnosis, tmp_path: Path) -> None:
    path = diagnosis.save(tmp_path / "new" / "report.html")
    assert path.read_bytes() == diagnosis.html.encode("utf8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert diagnosis.save(str(path)) == path  # over an old one
    with pytest.raises(ValueError, match=r"does not end in \.html"):
        diagnosis.save(tmp_path / "report.txt")


@pytest.mark.usefixtures("blank_pictures")
def test_out_saves_the_page(tmp_path: Path) -> None:
    views, texts = planted(n=120)
    found = diagnose(
        views["text"],
        texts,
        out=tmp_path / "r.html",
        ranks=False,
        n_bootstrap=10,
        verbose=0,
        estimator=FLiPExtractor(max_iter=1),
        random_state=0,
    )
    assert (tmp_path / "r.html").read_text(encoding="utf8") == found.html


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_failed_save_keeps_the_old_page(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError("no space left")

    path = tmp_path / "report.html"
    path.write_text("the old page")
    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, b"the new page")
    assert path.read_text() == "the old page"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_killed_save_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old page")
    monkeypatch.setattr("os.fsync", lambda file: os.kill(os.getpid(), signal.SIGKILL))
    writer = multiprocessing.get_context("fork").Process(target=write_atomic, args=(path, b"the new page"))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    assert path.read_text() == "the old page"


# --- In a browser ----------------------------------------------------------------------------------


def rendered(path: Path) -> str:
    """The DOM of the page after Chromium has loaded it without network."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--proxy-server=127.0.0.1:9",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={path.parent / 'profile'}",
        "--dump-dom",
        path.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_browser_shows_findings_and_runs_no_script(diagnosis: Diagnosis, tmp_path: Path) -> None:
    seen = Page(rendered(diagnosis.save(tmp_path / "report.html")))
    shown = "".join(seen.text)
    assert all(finding.text in shown for finding in diagnosis.findings)
    assert not seen.all("script")
    assert f"A title & {EVIL}" in shown

    # The content security policy blocks a script that is not escaped; without the policy it runs.
    with_script = diagnosis.html.replace("</main>", f"{EVIL}</main>")
    blocked, unprotected = tmp_path / "blocked.html", tmp_path / "unprotected.html"
    blocked.write_text(with_script, encoding="utf8")
    unprotected.write_text(with_script.replace("Content-Security-Policy", "x"), encoding="utf8")
    assert "<title>owned</title>" not in rendered(blocked)
    assert "<title>owned</title>" in rendered(unprotected)

"""The report: findings follow from the figures, and the page is safe, whole and the same each time."""

from __future__ import annotations

import base64
import html
import io
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
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
)
from flip_sklearn.diagnostics.bootstrap import Difference, Interval
from flip_sklearn.io import write_atomic
from flip_sklearn.report import Diagnosis, diagnose, wording
from flip_sklearn.report import findings as rules
from tests.helpers.paths import ROOT

CHROMIUM = shutil.which("chromium")
EVIL = "<script>document.title = 'owned'</script>"
WORDS = [a + b for a in ("ba", "ce", "di", "fo", "gu") for b in ("rn", "st", "lk", "mp")]


def planted(n: int = 400, d: int = 12, seed: int = 0) -> tuple[dict[str, np.ndarray], list[str]]:
    """Sentences of made-up words, embedded linearly: once clearly, once through noise."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, len(WORDS) + 1)
    texts = [" ".join(rng.choice(WORDS, p=p / p.sum(), size=6)) for _ in range(n)]
    counts = np.array([[text.split().count(word) for word in WORDS] for text in texts])
    clear = counts @ rng.normal(size=(len(WORDS), d)) + 0.3 * rng.normal(size=(n, d))
    return {"text": clear, "<b>&speech": clear + 3 * rng.normal(size=(n, d))}, texts


def small(**changed: Any) -> Diagnosis:
    """A report that has every section, of sentences some of which are hostile."""
    views, texts = planted()
    texts = [f"{EVIL} <img src=x onerror=alert(1)> {text}" for text in texts]
    heard = [
        f"heard \ud800 \x00 \u202e {text}" for text in texts
    ]  # half a character, nothing, a turn
    code = np.random.default_rng(1).normal(size=(100, 12))
    arguments: dict[str, Any] = {
        "title": f"A title & {EVIL}",
        "view_texts": {"text": heard},
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
    """One view, plain texts, and as little else as there can be."""
    views, texts = planted()
    return diagnose(
        views["text"], texts, ranks=False, n_examples=0, n_bootstrap=20, random_state=0, verbose=0,
        estimator=FLiPExtractor(max_iter=3), vectorizer=CountVectorizer(),
    )  # fmt: skip


# --- Figures as words --------------------------------------------------------------------------


def interval(value: Any, half: Any = 0.01) -> Interval:
    value = np.asarray(value, dtype=float)
    return Interval(value, value - half, value + half)


def difference(value: Any, half: Any = 0.01) -> Difference:
    value = np.asarray(value, dtype=float)
    low, high = value - half, value + half
    return Difference(value, low, high, (low > 0) | (high < 0))


def test_figures_are_written_in_one_way() -> None:
    shares, gap = interval([0.684, np.nan], [0.013, np.nan]), difference([-0.123, 0.0, 0.0004])
    assert wording.share(shares, 0) == "68.4% (67.1% to 69.7%)"
    assert wording.share(shares, 0, bare=True) == "68.4%, 67.1% to 69.7%"
    assert wording.share(shares, 1) == "not known"
    assert wording.change(gap, 0) == "−12.3 points (−13.3 to −11.3)"
    assert wording.size(gap, 0) == "12.3 points (11.3 to 13.3)"
    assert wording.change(gap, 1) == "0.0 points (−1.0 to +1.0)"
    assert wording.change(gap, 2) == "0.0 points (−1.0 to +1.0)"
    assert wording.number(1234567.0) == "1,234,567"
    assert wording.listed("abc") == "a, b and c"
    assert wording.listed(["a"]) == "a"


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_written_differences_say_what_they_are(value: float, below: float, above: float) -> None:
    gap = Difference(*(np.array(x) for x in (value, value - below, value + above, False)))
    text = wording.change(gap).replace("−", "-").replace("+", "")
    written = [float(x) for x in re.findall(r"-?[\d.]+", text)]
    np.testing.assert_allclose(
        written, np.array([value, value - below, value + above]) * 100, atol=0.0501
    )
    assert "-0.0" not in text
    assert " (" in text


# --- Findings: every branch of every rule, on results made by hand --------------------------------


def alignment(
    accuracy: Any, gap: Any, floor: float = 0.2, names: str = "ab", **kwargs: Any
) -> list[str]:
    v = len(names)
    jaccard = interval(np.full((v, v), 0.6))
    result = ViewAlignment(
        views=tuple(names), accuracy=interval(accuracy), difference=difference(gap, **kwargs),
        jaccard=jaccard, jaccard_of_models=jaccard, baseline=interval(floor), n_train=80, n_test=20,
        n_skipped=0, confidence=0.95,
    )  # fmt: skip
    return [finding.text for finding in rules.alignment_findings(result)]


def test_losses_and_gains_are_told_with_their_intervals() -> None:
    told = alignment([[0.7, 0.5], [0.65, 0.6]], [[0, -0.2], [0.05, 0]])
    assert told == [
        "Trained on “a” and reading it, the model finds 70.0% (69.0% to 71.0%) of a sentence's words; always "
        "guessing the most frequent words finds 20.0% (19.0% to 21.0%).",
        "Trained on “b” and reading it, the model finds 60.0% (59.0% to 61.0%) of a sentence's words; always "
        "guessing the most frequent words finds 20.0% (19.0% to 21.0%).",
        "The model trained on “a” loses 20.0 points (19.0 to 21.0) when it reads “b”: 50.0% of the words "
        "instead of 70.0%.",
        "The model trained on “b” even gains 5.0 points (4.0 to 6.0) when it reads “a”: 65.0% of the words "
        "instead of 60.0%.",
        "Of the words of a sentence that the model trained on “a” finds there or in “b”, it finds 60.0% "
        "(59.0% to 61.0%) in both.",
        "Of the words of a sentence that the model trained on “b” finds there or in “a”, it finds 60.0% "
        "(59.0% to 61.0%) in both.",
    ]


def test_no_difference_is_claimed_inside_the_interval() -> None:
    told = " ".join(alignment([[0.7, 0.69], [0.61, 0.6]], [[0, -0.01], [0.01, 0]], half=0.02))
    assert "reads “b” with no difference that can be told: −1.0 points (−3.0 to +1.0)." in told
    assert "reads “a” with no difference that can be told: +1.0 points (−1.0 to +3.0)." in told
    assert "loses" not in told
    assert "gains" not in told


def test_a_view_at_the_floor_tells_nothing() -> None:
    told = alignment([[0.205, 0.1], [0.2, 0.6]], [[0, -0.105], [-0.4, 0]])
    assert told[0].endswith(
        "20.5% (19.5% to 21.5%) of a sentence's words. That cannot be told from always guessing the most "
        "frequent words (20.0%, 19.0% to 21.0%): that it reads the view at all does not show."
    )
    assert not any(text.startswith("The model trained on “a”") for text in told)
    (crossed,) = (text for text in told if text.startswith("The model trained on “b”"))
    assert "loses 40.0 points" in crossed
    assert crossed.endswith("That cannot be told from always guessing the most frequent words "
                            "(20.0%, 19.0% to 21.0%).")  # fmt: skip
    below = alignment([[0.1, 0.1], [0.1, 0.6]], np.zeros((2, 2)))
    assert "That is less than always guessing" in below[0]
    weak = alignment([[0.23, 0.23], [0.6, 0.6]], np.zeros((2, 2)))
    assert "only 3.0 points above always guessing" in weak[0]
    assert "little can be read here" in weak[0]


def test_many_views_are_summed_up() -> None:
    gap = np.zeros((4, 4))
    gap[0, 1], gap[2, 3], gap[3, 0] = -0.3, -0.1, 0.2
    told = alignment(np.full((4, 4), 0.6), gap, names="abcd")
    assert len(told) == 5
    assert told[0] == (
        "Of 12 readings of a view by a model that was trained on another one, 2 find less than the model "
        "finds at home and 1 more; for 9 no difference can be told. The largest loss is that of the model "
        "trained on “a” when it reads “b”: 30.0 points (29.0 to 31.0)."
    )


def preference(accuracy: Any, gap: Any, floor: Any = (0.2,)) -> list[str]:
    result = VocabularyPreference(
        languages=("en",), views=("en", "de"), reference=("en",), accuracy=interval([accuracy]),
        difference=difference([gap]), baseline=interval(floor), n_train=80, n_test=20, n_skipped=(0,),
        confidence=0.95,
    )  # fmt: skip
    return [finding.text for finding in rules.preference_findings(result)]


def test_preference_is_told_only_where_it_shows() -> None:
    better, told = preference([0.5, 0.6], [0, 0.1])
    assert better.startswith("Reading “en”, one model of all views finds 50.0%")
    assert told == "Of the words of “en”, it finds 10.0 points (9.0 to 11.0) more from “de”."
    assert preference([0.5, 0.4], [0, -0.1])[1].endswith(
        "10.0 points (9.0 to 11.0) less from “de”."
    )
    assert preference([0.5, 0.505], [0, 0.005])[1] == (
        "For words of “en”, no difference to “en” can be told when they are read from “de” (+0.5 points, "
        "−0.5 to +1.5)."
    )
    (only,) = preference([0.2, 0.2], [0, 0])
    assert "that it reads the view at all does not show" in only


def ranks(
    gap: Any, accuracy: float = 0.6, tried: tuple[int | None, ...] = (16, 64, None)
) -> list[str]:
    gap = np.asarray(gap, dtype=float)[:, None]
    result = RankAnalysis(
        ranks=tried, views=("a",), accuracy=interval(accuracy + gap), difference=difference(gap),
        n_parameters=np.array([1000, 4000, 9000])[-len(gap) :], baseline=interval(0.2), n_train=80,
        n_test=20, n_skipped=0, confidence=0.95,
    )  # fmt: skip
    return [finding.text for finding in rules.rank_findings(result)]


def test_the_lowest_rank_without_a_loss() -> None:
    assert ranks([-0.2, 0.001, 0]) == [
        "Read from “a”, rank 64 is the lowest from which on no loss against LiP can be told (+0.1 points, "
        "−0.9 to +1.1); it has 4,000 numbers, LiP has 9,000."
    ]
    assert ranks([-0.2, -0.1, 0]) == [
        "Read from “a”, every rank tried finds less than LiP; the one with the smallest loss is rank 64, "
        "with 10.0 points (9.0 to 11.0)."
    ]
    low, gain = ranks([-0.001, 0.05, 0])
    assert "rank 16 is the lowest" in low
    assert gain == "Read from “a”, rank 64 finds 5.0 points (4.0 to 6.0) more than LiP."
    # A rank that loses nothing below one that does is chance, not enough.
    assert "every rank tried finds less" in ranks([0, -0.1, 0])[0]
    assert ranks([0], tried=(None,)) == [
        "Read from “a”, LiP finds 60.0% (59.0% to 61.0%) of the words."
    ]
    assert "that it reads the view at all does not show" in ranks([0, 0, 0], accuracy=0.2)[0]


def extractors(gap: Any) -> ExtractorComparison:
    gap = np.asarray(gap, dtype=float)[:, None]
    return ExtractorComparison(
        extractors=("FLiP", "LiP", "SpLiCE", "most frequent words"), views=("a",),
        accuracy=interval(0.6 + gap), difference=difference(gap), n_train=80, n_test=20, n_skipped=0,
        confidence=0.95,
    )  # fmt: skip


def test_methods_beside_each_other() -> None:
    (told,) = rules.extractor_findings(extractors([0, 0.002, -0.3, -0.4]))
    assert told.text == (
        "Read from “a”, FLiP finds 60.0% (59.0% to 61.0%) of a sentence's words; for LiP no difference can "
        "be told (+0.2 points, −0.8 to +1.2); SpLiCE finds 30.0 points (29.0 to 31.0) less; guessing the "
        "most frequent words finds 40.0 points (39.0 to 41.0) less."
    )
    assert "SpLiCE finds 30.0 points (29.0 to 31.0) more" in rules.extractor_findings(
        extractors([0, 0, 0.3, -0.4])
    )[0].text  # fmt: skip
    for floor, verdict in ((0.005, "cannot be told from"), (0.05, "is less than")):
        (told,) = rules.extractor_findings(extractors([0, 0, 0, floor]))
        assert f"of a sentence's words. That {verdict} always guessing" in told.text
        assert "LiP no" not in told.text
        assert rules.blind_views(extractors([0, 0, 0, floor])) == ("a",)
    assert rules.blind_views(extractors([0, 0, 0, -0.1])) == ()


def entities(gap: float, missing: int = 0, ks: Any = (1, 8, 100)) -> list[str]:
    values = np.full((2, 1, len(ks)), 0.3)
    values[1] += gap
    recall = interval(values)
    result = EntityRecallCurve(
        ks=np.array(ks), views=("a",), recall_strict=recall, recall_partial=recall, precision=recall,
        difference=difference(np.full((1, len(ks)), gap)), ceiling=0.9, n_sentences=20, n_skipped=5,
        n_names=30, n_out_of_vocabulary=missing, confidence=0.95,
    )  # fmt: skip
    assert (
        rules.entity_findings(result, blind={"a"})
        == rules.entity_findings(result, blind={"a"})[:missing]
    )
    return [finding.text for finding in rules.entity_findings(result, blind=())]


def test_names_with_and_without_bias() -> None:
    assert entities(0.2) == [
        "Read from “a”, 50.0% (49.0% to 51.0%) of a sentence's names are among the 8 best words without the "
        "bias; 20.0 points (19.0 to 21.0) more than with it."
    ]
    assert entities(-0.2)[0].endswith("20.0 points (19.0 to 21.0) less than with it.")
    assert entities(0.005)[0].endswith(
        "no difference to the words with it can be told: +0.5 points (−0.5 to +1.5)."
    )
    assert "among the best word without" in entities(0.2, ks=(1,))[0]
    assert entities(0.2, missing=1)[1].startswith("1 of 30 names have a word")


def words(
    gap: Any,
    *,
    blind: bool = False,
    bands: tuple[str, ...] = ("1-9", "10-99", "100-999"),
    guess: Interval | None = None,
) -> list[str]:
    gap = np.asarray(gap, dtype=float)
    bands = bands[: len(gap)]
    one = np.ones(len(gap), dtype=int)
    result = WordRecoverability(
        words=np.array(WORDS[: len(gap)]), train_count=one, test_count=one, test_hits=one, recall=one,
        band=np.array(bands, dtype=object), bands=bands, band_recall=interval(0.5 + gap),
        band_difference=difference(gap), band_words=one, band_occurrences=one, overall=interval(0.5),
        n_sentences=20, n_skipped=0, confidence=0.95, band_baseline=guess,
    )  # fmt: skip
    return [finding.text for finding in rules.recoverability_findings("a", result, blind=blind)]


def test_words_kept_and_lost() -> None:
    overall, less, more, neither = words([-0.2, 0.005, 0.1])
    assert overall == (
        "Read from “a”, 50.0% (49.0% to 51.0%) of the occurrences of words are found, all words together."
    )
    assert less == (
        "Read from “a”, words that are so often in the training text are found less often than all words: "
        "1 to 9 times (20.0 points, 19.0 to 21.0)."
    )
    assert "more often than all words: 100 to 999 times (10.0 points, 9.0 to 11.0)." in more
    assert "no difference to all words can be told" in neither
    assert "10 to 99 times (+0.5 points, −0.5 to +1.5)" in neither
    assert len(words([0])) == 1  # one band is all words
    assert len(words([np.nan, -0.1])) == 2  # too rare for an interval
    assert len(words([-0.5, -0.1], bands=("0", "1-9"))) == 2  # never seen: of course not found
    assert words([-0.2, 0.1], guess=interval([0.1, 0.7]))[-1] == (
        "Read from “a”, no gain over guessing the most frequent words shows for words that are so often "
        "in the training text: 10 to 99 times (60.0%, 59.0% to 61.0%; guessed 70.0%, 69.0% to 71.0%)."
    )
    assert len(words([-0.2, 0.1], guess=interval([0.1, 0.2]))) == 3
    (blind,) = words([-0.2, 0.1], blind=True)
    assert "Guessing does as well" in blind


# --- What is measured --------------------------------------------------------------------------


def test_every_result_is_there_and_shares_the_split(diagnosis: Diagnosis, plain: Diagnosis) -> None:
    n_test = len(diagnosis.split.test)
    parts = (diagnosis.alignment, diagnosis.preference, diagnosis.ranks, diagnosis.extractors)
    assert {part.n_test for part in parts} == {n_test}
    assert diagnosis.entities.n_sentences == n_test
    assert [*diagnosis.recoverability] == ["text", "<b>&speech"]
    assert diagnosis.ranks.ranks == (2, None)
    assert diagnosis.extractors.extractors == ("FLiP", "LiP", "SpLiCE", "most frequent words")
    assert diagnosis.alignment.difference.significant[0, 1]  # the noise costs something
    assert {finding.about for finding in diagnosis.findings} == {
        "alignment", "preference", "recoverability", "entities", "ranks", "extractors",
    }  # fmt: skip
    assert (plain.alignment, plain.preference, plain.entities, plain.ranks) == (None,) * 4
    assert plain.examples == ()
    assert plain.views == ("embeddings",)
    assert plain.extractors.extractors == ("FLiP", "LiP", "most frequent words")
    assert "1 views" not in plain.html
    assert repr(plain).startswith("Diagnosis(1 view")


def test_examples_are_marked_rightly(diagnosis: Diagnosis) -> None:
    rows = [example.row for example in diagnosis.examples]
    assert len(set(rows)) == 20
    assert set(rows) <= set(diagnosis.split.test.tolist())
    known = set(diagnosis.vocabulary)
    for example in diagnosis.examples:
        plain_text = re.sub(r"[^\w\s]", "", example.text)  # as ConceptVectorizer cleans it
        present = set(plain_text.lower().split()) & known
        assert [reading.view for reading in example.readings] == [*diagnosis.views]
        assert [reading.text is not None for reading in example.readings] == [True, False]
        for reading in example.readings:
            assert len(reading.words) == len(present)
            assert all(
                right == (word in present) for word, right in reading.words + reading.telling
            )
            right = {word for word, right in reading.words if right}
            assert right | set(reading.missed) == present
            assert len(right) == reading.n_right == len(present) - len(reading.missed)


def test_nothing_of_a_test_sentence_is_trained_on() -> None:
    """Neither words nor copies: the vectorizer sees training sentences, equal texts stay together."""
    seen: list[str] = []

    class Spy(CountVectorizer):
        def fit(self, raw_documents: Any, y: Any = None) -> Any:
            seen.extend(raw_documents)
            return super().fit(raw_documents)

    views, texts = planted(n=200)
    texts[100:] = [f"  {text.upper()} " for text in texts[:100]]  # the same in other words' clothes
    found = diagnose(
        views, texts, vectorizer=Spy(), ranks=False, n_examples=3, n_bootstrap=20, verbose=0,
        estimator=FLiPExtractor(max_iter=1), random_state=0,
    )  # fmt: skip
    assert seen == [texts[i] for i in found.split.train]
    assert {i % 100 for i in found.split.train}.isdisjoint(i % 100 for i in found.split.test)
    assert not {" ".join(texts[i].lower().split()) for i in found.split.test} & {
        " ".join(text.lower().split()) for text in seen
    }


def test_scripts_other_than_latin_are_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    from flip_sklearn.report.request import _fit_vectorizer
    from flip_sklearn.vocabulary.defaults import default_min_count

    texts = ["नमस्ते दुनिया", "नमस्ते भारत"] * 4
    words = _fit_vectorizer(None, texts, np.arange(8)).get_feature_names_out()
    assert sorted(words) == sorted(["नमस्ते", "दुनिया", "भारत"])
    assert [default_min_count(n) for n in (10, 7200, 40_000, 160_000, 10**7)] == [2, 4, 10, 20, 20]


# --- Bad input, before any training --------------------------------------------------------------


BAD = {
    "texts too few": ({"texts": ["a"]}, "texts has 1 rows, the views have 400"),
    "one text": ({"texts": "a b c"}, "pass a list of 400 texts"),
    "no languages": ({"texts": {}}, "texts is empty"),
    "a language too short": ({"texts": {"de": ["a"]}}, r"texts\['de'\] has 1 rows"),
    "a text that is none": ({"texts": ["a"] * 399 + [None]}, "holds None of type NoneType in row 399"),
    "views apart": ({"views": {"a": np.zeros((400, 2)), "b": np.zeros((3, 2))}}, "shape"),
    "view without a name": ({"views": {1: np.ones((400, 2))}}, "named by a int; use a str"),
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
    "dictionary function": ({"dictionary": lambda words: [0]}, "the dictionary function gave"),
    "dictionary of nan": ({"dictionary": lambda w: np.full((len(w), 12), np.nan)}, "needs an embedding"),
    "texts of no view": ({"view_texts": {"c": ["a"] * 400}}, "view_texts names 'c'"),
    "texts of a view": ({"view_texts": {"text": ["a"]}}, r"view_texts\['text'\] has 1 rows"),
    "no mapping": ({"view_texts": ["a"]}, "pass a mapping of views"),
    "groups": ({"groups": [1, 2]}, "one group per sentence"),
    "test": ({"test": [400]}, "there are 400 sentences"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_training(
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


def test_missing_packages_are_named_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[report\]'"):
        diagnose(np.ones((4, 2)), ["a"] * 4)


# --- The page ------------------------------------------------------------------------------------

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a page is made of; complains of tags that are not closed in order."""

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


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
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


def test_style_refers_to_nothing(plain: Diagnosis) -> None:
    style = re.findall(r"<style>(.*?)</style>", plain.html, re.DOTALL)
    assert len(style) == 1
    assert not re.search(r"url\s*\(|@import|expression", style[0])
    assert not re.search(r"https?:", plain.html)


def test_the_page_is_well_made(page: Page) -> None:
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


def test_pictures_are_whole(page: Page) -> None:
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


def test_texts_come_out_as_texts(diagnosis: Diagnosis) -> None:
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


def test_figures_of_findings_stand_in_the_tables(diagnosis: Diagnosis) -> None:
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


def test_the_same_seed_gives_the_same_bytes(diagnosis: Diagnosis) -> None:
    assert small().html == diagnosis.html
    views, texts = planted()
    quick = {
        "ranks": False, "n_examples": 2, "n_bootstrap": 20, "verbose": 0,
        "estimator": FLiPExtractor(max_iter=1),
    }  # fmt: skip
    one, other = (diagnose(views["text"], texts, random_state=s, **quick).html for s in (1, 2))
    assert one != other
    assert "random_state=1" in html.unescape(one)


def test_long_lists_go_on_below(diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flip_sklearn.report.page._TOP", 1)
    shown = " ".join(Page(small(n_examples=0).html).text)
    main = [
        finding for finding in diagnosis.findings if finding.about == "alignment" and finding.main
    ]
    assert f"{len(main) - 1} more below" in shown
    assert "more below" not in diagnosis.html
    assert all(shown.count(finding.text) == 1 for finding in main[1:])  # still in its section


def test_the_page_is_small(diagnosis: Diagnosis) -> None:
    assert len(diagnosis.html.encode()) < 2_000_000


# --- Onto the disk -------------------------------------------------------------------------------


def test_saving(diagnosis: Diagnosis, tmp_path: Path) -> None:
    path = diagnosis.save(tmp_path / "new" / "report.html")
    assert path.read_bytes() == diagnosis.html.encode("utf8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert diagnosis.save(str(path)) == path  # over an old one
    with pytest.raises(ValueError, match=r"does not end in \.html"):
        diagnosis.save(tmp_path / "report.txt")


def test_out_saves(tmp_path: Path) -> None:
    views, texts = planted(n=120)
    found = diagnose(
        views["text"], texts, out=tmp_path / "r.html", ranks=False, n_bootstrap=10, verbose=0,
        estimator=FLiPExtractor(max_iter=1), random_state=0,
    )  # fmt: skip
    assert (tmp_path / "r.html").read_text(encoding="utf8") == found.html


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failure_keeps_the_old_page(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError("no space left")

    path = tmp_path / "report.html"
    path.write_text("the old page")
    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, b"the new page")
    assert path.read_text() == "the old page"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_kill_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old page")
    monkeypatch.setattr("os.fsync", lambda file: os.kill(os.getpid(), signal.SIGKILL))
    writer = multiprocessing.get_context("fork").Process(
        target=write_atomic, args=(path, b"the new page")
    )
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    assert path.read_text() == "the old page"


# --- In a real browser -----------------------------------------------------------------------------


def rendered(path: Path) -> str:
    """The page as Chromium has it after loading it with no network."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--proxy-server=127.0.0.1:9",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={path.parent / 'profile'}",
        "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_the_findings_and_runs_nothing(
    diagnosis: Diagnosis, tmp_path: Path
) -> None:
    seen = Page(rendered(diagnosis.save(tmp_path / "report.html")))
    shown = "".join(seen.text)
    assert all(finding.text in shown for finding in diagnosis.findings)
    assert not seen.all("script")
    assert f"A title & {EVIL}" in shown

    # Were a script to get through, the policy of the page would still stop it; without, it would run.
    through = diagnosis.html.replace("</main>", f"{EVIL}</main>")
    blocked, open_ = tmp_path / "through.html", tmp_path / "open.html"
    blocked.write_text(through, encoding="utf8")
    open_.write_text(through.replace("Content-Security-Policy", "x"), encoding="utf8")
    assert "<title>owned</title>" not in rendered(blocked)
    assert "<title>owned</title>" in rendered(open_)


# --- The example -----------------------------------------------------------------------------------


def test_typos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "report", raising=False)
    import report as example

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

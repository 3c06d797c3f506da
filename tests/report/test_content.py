"""What the page says: differences with intervals, bands by what they hold, the answer, and the settings."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli import commands
from flip_sklearn.diagnostics import view_alignment
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.report import Diagnosis, diagnose, wording
from flip_sklearn.report import findings as rules
from flip_sklearn.report.sections import make_sections
from tests.report.test_report import EVIL, Page, call_on, planted, run_call

pytestmark = pytest.mark.usefixtures("only_blank_pictures")

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
    (text,) = (f.text for f in found.findings if f.text.startswith("Each view read by its own model"))
    amount = wording.change(found.alignment.own_view_difference, 0, 1)
    assert text.endswith(f"“b” gives neither significantly more nor less than “a”: {amount}.")
    assert amount.startswith("0.0 points (−")


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


# --- The answer -------------------------------------------------------------------------------------


def answer_on(diagnosis: Diagnosis) -> str:
    """The sentence that opens the page; its numbers are elsewhere on the page, too."""
    page = shown(diagnosis)
    answer, rest = page.split("In short: ")[1].split(" A sentence encoder turns", 1)
    assert answer.endswith(".")
    assert ". " not in answer  # one sentence
    numbers = re.findall(r"[\d.,]+%", answer)
    assert len(numbers) >= 2
    assert all(number in rest for number in numbers)
    return answer


def test_page_opens_with_what_the_encoder_keeps_and_loses(two_views: Diagnosis) -> None:
    answer, extractors = answer_on(two_views), two_views.extractors
    kept = [f"{wording.percent(extractors.accuracy.value[0, v])} in “{extractors.views[v]}”" for v in (0, 1)]
    baseline = wording.percent(extractors.accuracy.value[-1, 0])
    assert answer.startswith(f"Of a sentence's words, the encoder keeps {kept[0]} and {kept[1]} (")
    assert f"always naming the most frequent words finds {baseline})" in answer
    result = two_views.recoverability["text"]
    lowest = int(result.band_recall.value.argmin())
    assert result.band_difference.significant[lowest]
    often = wording.spelled_bands(result)[lowest]
    lost = (
        f"occur {often} times in the training sentences ({wording.percent(result.band_recall.value[lowest])}"
    )
    assert lost in answer


def test_answer_of_one_view_names_the_encoder_and_no_view() -> None:
    views, texts = planted()
    answer = answer_on(diagnose(views["text"], texts, encoder="Encoder & Co", **OPTIONS))
    assert answer.startswith("Of a sentence's words, Encoder & Co keeps ")
    assert "embeddings" not in answer


def test_answer_claims_nothing_at_the_baseline() -> None:
    views, texts = planted()
    noise = np.random.default_rng(0).normal(size=views["text"].shape)
    assert answer_on(diagnose(noise, texts, **OPTIONS)).startswith("This page does not show that the encoder")
    answer = answer_on(diagnose({"noise": noise, "text": views["text"]}, texts, **OPTIONS))
    assert "in “text” (always naming" in answer
    assert "and no more is found in “noise”)" in answer


def test_answer_says_that_little_is_kept() -> None:
    views, texts = planted(n=3000)
    noise = np.random.default_rng(0).normal(size=views["text"].shape)
    found = diagnose(views["text"] + 6 * noise, texts, **OPTIONS)
    kept, baseline = found.extractors.accuracy.value[[0, -1], 0]
    assert 0 < kept - baseline < rules.WEAK
    assert f"finds hardly less, {wording.percent(baseline)})" in answer_on(found)


def test_answer_of_many_views_names_the_best_and_the_worst() -> None:
    views, texts = planted()
    noise = np.random.default_rng(0).normal(size=views["text"].shape)
    many = {f"noise {s}": views["text"] + s / 2 * noise for s in (1, 0, 4, 2)}
    answer = answer_on(diagnose(many, texts, **OPTIONS))
    assert re.search(r"keeps [\d.]+% in “noise 0” down to [\d.]+% in “noise 4” \(", answer)


def test_answer_leaves_out_bands_that_do_not_differ() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"word{chr(97 + i)}" for i in range(12)])
    texts = [" ".join(rng.choice(words, 3, replace=False)) for _ in range(300)]
    counts = np.array([[word in text.split() for word in words] for text in texts], dtype=float)
    answer = answer_on(diagnose(counts @ rng.normal(size=(12, 12)), texts, **OPTIONS))
    assert answer.endswith("; the others are lost.")


# --- Encoder, text and models -----------------------------------------------------------------------


def test_page_says_which_language_the_words_are_of(two_views: Diagnosis) -> None:
    views, texts = planted(n=60)
    languages = diagnose(views["text"], {"<en>": texts, "de": texts}, **OPTIONS)
    assert re.search("The words are those of “<en>” ?, except where the page says", shown(languages))
    assert "The words are those of" not in shown(two_views)


def test_page_names_encoder_source_and_settings() -> None:
    views, texts = planted(n=120)
    options = OPTIONS | {"estimator": FLiPExtractor(rank=3, l1_strength=0.02, l2_strength=7, max_iter=2)}
    named = {"encoder": " sentence-transformers/LaBSE ", "source": f"a corpus of {EVIL}"}
    found = diagnose(views, {"en": texts, "de": texts}, **named, **options)
    page = shown(found)
    assert EVIL not in found.html
    for row in (
        "Encoder sentence-transformers/LaBSE; embeddings of 12 dimensions",
        f"Text 120 sentences in the languages en, de, from a corpus of {EVIL}",
        "Views text, <b>&speech",
        "FLiP models rank 3, l1_strength 0.02, l2_strength 7, at most 2 passes",
        "Seed 0",
        "Version flip-sklearn ",
    ):
        assert row in page
    code = call_on(found.html)
    assert "encoder='sentence-transformers/LaBSE'" in code
    again = run_call(code, {"views": views, "texts": {"en": texts, "de": texts}, **options})
    assert again.html == found.html


def test_page_says_what_is_not_named() -> None:
    views, texts = planted(n=120)
    options = OPTIONS | {"estimator": FLiPExtractor(rank=None, max_iter=2)}
    page = shown(diagnose(views["text"], texts, **options))
    assert "Encoder not named; embeddings of 12 dimensions" in page
    assert "Text 120 sentences, from the caller, who did not name the source" in page
    assert "FLiP models no limit on the rank, l1_strength" in page
    assert "FLiP models rank 12, l1_strength" in shown(diagnose(views["text"], texts, **OPTIONS))


@pytest.mark.parametrize("name", ["encoder", "source"])
@pytest.mark.parametrize("value", [" ", 3, FLiPExtractor()])
def test_names_that_are_no_text_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=.*use a text, or None"):
        diagnose(np.ones((9, 2)), ["a"] * 9, **{name: value})


def test_command_line_names_encoder_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views, texts = planted(n=120)
    rows = {text: x for text, x in zip(texts, views["text"], strict=True)}

    def transform(self: SentenceEncoder, X: list[str]) -> np.ndarray:
        return np.array([rows.get(text, views["text"][0]) for text in X])

    monkeypatch.setattr(SentenceEncoder, "transform", transform)
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    monkeypatch.setattr(commands, "make_encoder", lambda params: params and SentenceEncoder(**params))
    local = tmp_path / "my-encoder"
    local.mkdir()
    inputs = commands.ReportFiles({"text": str(tmp_path / "corpus.txt")}, {}, None, None)
    settings = {"ranks": False, "random_state": 0, "verbose": 0}
    for model, name in (("some/encoder", "some/encoder;"), (str(local), "my-encoder")):
        out = tmp_path / "page.html"
        commands.report(inputs, out, {"model": model}, None, {"max_iter": 1}, settings)
        page = " ".join(" ".join(Page(out.read_text()).text).split())
        assert f"Encoder {name}" in page
        assert "Text 120 sentences, from corpus.txt Views text" in page
        assert str(tmp_path) not in page

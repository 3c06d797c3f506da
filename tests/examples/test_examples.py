"""The examples as a newcomer runs them: real processes, a small encoder, few sentences."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import bag_of_words_model

EXAMPLES = ROOT / "examples"
THINGS = {
    "zoo": ["lion", "zebra", "monkey", "keeper", "cage", "giraffe", "feeds", "wild"],
    "kitchen": ["pan", "onion", "cook", "knife", "soup", "oven", "stirs", "salty"],
    "harbour": ["ship", "crane", "sailor", "anchor", "cargo", "rope", "loads", "windy"],
}
COMMON = ["the", "a", "old", "new", "sees", "near", "and", "with", "big", "small", "two", "after"]
WORDS = [*COMMON, *itertools.chain.from_iterable(THINGS.values())]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that knows the words of the sentences."""
    return bag_of_words_model(tmp_path_factory.mktemp("encoder"), WORDS, 24)[0]


@pytest.fixture(scope="module")
def sentences() -> list[tuple[str, str]]:
    """Labelled sentences: three of the place's words among five that are everywhere."""
    rng = np.random.default_rng(0)
    made = []
    for label, words in THINGS.items():
        for _ in range(120):
            drawn = [*rng.choice(words, 3, replace=False), *rng.choice(COMMON, 5, replace=False)]
            made.append((label, " ".join(rng.permutation(drawn)).capitalize() + "."))
    return made


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("classify")


def run(name: str, *arguments: object) -> str:
    """What an example prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning:__main__", str(EXAMPLES / name)]
        + [str(argument) for argument in arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{label}\t{text}\n" for label, text in pairs), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def classified(
    encoder: Path, sentences: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """What classify.py prints, and its folder."""
    out = tmp_path_factory.mktemp("classified")
    texts = write(out / "texts.tsv", sentences)
    return run("classify.py", "--texts", texts, "--encoder", encoder, "--out", out), out


def test_classify_beats_the_largest_class_and_loads_as_saved(
    classified: tuple[str, Path],
) -> None:
    told, out = classified
    shares = [float(share) for share in re.findall(r" ([\d.]+)% \+- [\d.]+%", told)]
    words, numbers, own, largest = shares
    assert min(words, numbers, own) > 80 > largest + 30
    assert "equal keywords True" in told
    assert "equal predictions True" in told
    assert FLiPExtractor.from_pretrained(out / "classify-flip").top_k == 30
    assert (out / "classify.png").stat().st_size > 10_000
    named = dict(re.findall(r"^   (zoo|kitchen|harbour) +(.*)$", told, re.MULTILINE))
    assert {name: set(words.split()[:3]) <= {*THINGS[name]} for name, words in named.items()} == {
        "zoo": True, "kitchen": True, "harbour": True,
    }  # fmt: skip


def test_the_printed_parts_add_up_to_the_decision(classified: tuple[str, Path]) -> None:
    told, _ = classified
    blocks = re.findall(r"decision value (-?[\d.]+) =\n(.*)\n(.*)\n", told)
    assert len(blocks) == 3
    for value, words, rest in blocks:
        parts = [float(part) for part in re.findall(r"[+-]\d+\.\d+", words + rest)]
        assert len(parts) == 8
        assert sum(parts) == pytest.approx(float(value), abs=0.005 * 9)  # each is rounded


@pytest.mark.parametrize("places", [["zoo", "kitchen", "harbour"], ["zoo", "kitchen"]])
def test_parts_add_up_for_every_sentence_and_class(
    classify: ModuleType, classified: tuple[str, Path], sentences: list[tuple[str, str]], places: list[str]
) -> None:  # fmt: skip
    pipeline = joblib.load(classified[1] / "classify.joblib")
    labels, texts = zip(*[pair for pair in sentences if pair[0] in places], strict=True)
    pipeline.fit(texts, labels)
    parts, intercepts = classify.parts_of(pipeline, texts[:50])
    values = pipeline.decision_function(texts[:50])
    if values.ndim == 1:  # one value for two classes: each has half of it, with its sign
        values = np.stack([-values, values], axis=1) / 2
    expected = values - values.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(parts.sum(axis=2) + intercepts, expected, atol=1e-5)


def test_no_sentence_is_there_twice(classify: ModuleType, tmp_path: Path) -> None:
    pairs = [
        ("zoo", "The lion sees 2 sailors."),
        ("zoo", "the Lion sees 3 sailors!"),  # the same but for case, number and punctuation
        ("zoo", "A zebra."),
        ("harbour", "Zebra: a"),  # of two classes, so of none
        ("harbour", "The crane loads cargo."),
    ]
    texts, labels = classify.labelled(Namespace(texts=write(tmp_path / "texts.tsv", pairs)))
    assert list(zip(labels, texts, strict=True)) == [pairs[0], pairs[4]]


def test_near_copies_are_left_out(classify: ModuleType) -> None:
    X = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    near, far = 0.95 * X[3] + 0.1 * X[7], 0.8 * X[3] + 0.6 * X[7]
    tried = np.stack([X[0], X[6], near / np.linalg.norm(near), far])
    assert classify.new_ones(tried, X[:6]).tolist() == [1, 3]


def test_search(encoder: Path, sentences: list[tuple[str, str]], tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(text + "\n" for _, text in sentences), encoding="utf-8")
    told = run(
        "search.py", "--texts", texts, "--sentences", 200, "--encoder", encoder, "--out", tmp_path,
        "--ranks", 2, 16, "--l1-strengths", 0.01, 0.1,
    )  # fmt: skip
    assert re.match(
        r"19\d sentences, 3\d words, 8 settings x 3 folds\n", told
    )  # progress is not in the result
    rows = re.findall(
        r"^\| (\d+) \| ([\d.]+) \| (\w+) \| ([\d.]+)% \+- [\d.]+% \| (\d+)% \| ([\d.]+) \|$",
        told, re.MULTILINE,
    )  # fmt: skip
    assert len(rows) == 8
    assert {row[:3] for row in rows} == {
        *itertools.product(("2", "16"), ("0.01", "0.1"), ("True", "False"))
    }
    shares = [float(row[3]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    zeros = {row[:3]: int(row[4]) for row in rows}
    assert zeros["16", "0.1", "True"] > zeros["16", "0.01", "True"]
    # The bias changes the ranking, not the fit.
    assert all(zeros[rank, l1, "False"] == zeros[rank, l1, "True"] for rank, l1, _ in zeros)
    assert min(float(row[5]) for row in rows) == 1
    assert (tmp_path / "search.md").read_text(encoding="utf-8").strip() in told
    assert "Equal to the keywords of the one that was saved: True" in told
    assert told.count("without bias  ") == 3
    best = FLiPExtractor.from_pretrained(tmp_path / "search-best")
    assert (str(best.rank), f"{best.l1_strength:g}", str(best.use_bias)) == rows[0][:3]
    assert best.pretrained_info_["trained_on"] == "texts.txt"
    assert (tmp_path / "search.png").stat().st_size > 10_000

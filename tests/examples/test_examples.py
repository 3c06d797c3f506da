"""The examples run as scripts, with a small encoder and few sentences."""

from __future__ import annotations

import importlib
import itertools
import re
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from tests.helpers.paths import ROOT
from tests.helpers.processes import run_python
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
    """A bag-of-words encoder of the words of the sentences."""
    return bag_of_words_model(tmp_path_factory.mktemp("encoder"), WORDS, 24)[0]


@pytest.fixture(scope="module")
def sentences() -> list[tuple[str, str]]:
    """Labelled sentences: three words of the class among five common words."""
    rng = np.random.default_rng(0)
    labelled = []
    for label, words in THINGS.items():
        for _ in range(120):
            chosen = [*rng.choice(words, 3, replace=False), *rng.choice(COMMON, 5, replace=False)]
            labelled.append((label, " ".join(rng.permutation(chosen)).capitalize() + "."))
    return labelled


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("classify")


# Of the warnings of the example itself, those about the future of what it calls are errors.
RUN = """
import os, runpy, sys, warnings
warnings.filterwarnings("error", "", FutureWarning, "__main__")
sys.argv.pop(0)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(name: str, *arguments: object) -> str:
    """Run an example and return what it prints."""
    result = run_python("-c", RUN, EXAMPLES / name, *arguments, cwd=ROOT, env={"MPLBACKEND": "agg"})
    assert result.returncode == 0, result.stderr
    return result.stdout


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{label}\t{text}\n" for label, text in pairs), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def classified(
    encoder: Path, sentences: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The output of classify.py, and its folder."""
    out = tmp_path_factory.mktemp("classified")
    texts = write(out / "texts.tsv", sentences)
    return run("classify.py", "--texts", texts, "--encoder", encoder, "--out", out), out


def test_classify_beats_the_largest_class_and_reloads(classified: tuple[str, Path]) -> None:
    output, out = classified
    accuracies = [float(value) for value in re.findall(r" ([\d.]+)% \+- [\d.]+%", output)]
    keywords, numbers, text, largest = accuracies
    assert min(keywords, numbers, text) > 80 > largest + 30
    assert "equal keywords True" in output
    assert "equal predictions True" in output
    assert FLiPExtractor.from_pretrained(out / "classify-flip").top_k == 30
    assert (out / "classify.png").stat().st_size > 10_000
    best_words = dict(re.findall(r"^   (zoo|kitchen|harbour) +(.*)$", output, re.MULTILINE))
    assert set(best_words) == set(THINGS)
    for name, words in best_words.items():
        assert set(words.split()[:3]) <= set(THINGS[name])


def test_printed_contributions_add_up_to_the_decision_value(classified: tuple[str, Path]) -> None:
    output, _ = classified
    blocks = re.findall(r"decision value (-?[\d.]+) =\n(.*)\n(.*)\n", output)
    assert len(blocks) == 3
    for value, words, rest in blocks:
        parts = [float(part) for part in re.findall(r"[+-]\d+\.\d+", words + rest)]
        assert len(parts) == 8
        assert sum(parts) == pytest.approx(float(value), abs=0.005 * 9)  # each number is rounded


@pytest.mark.parametrize("classes", [["zoo", "kitchen", "harbour"], ["zoo", "kitchen"]])
def test_contributions_add_up_for_every_sentence_and_class(
    classify: ModuleType, classified: tuple[str, Path], sentences: list[tuple[str, str]], classes: list[str]
) -> None:
    pipeline = joblib.load(classified[1] / "classify.joblib")
    labels, texts = zip(*[pair for pair in sentences if pair[0] in classes], strict=True)
    pipeline.fit(texts, labels)
    parts, intercepts = classify.contributions(pipeline, texts[:50])
    values = pipeline.decision_function(texts[:50])
    if values.ndim == 1:  # for two classes, one value: half of it each, with its sign
        values = np.stack([-values, values], axis=1) / 2
    expected = values - values.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(parts.sum(axis=2) + intercepts, expected, atol=1e-5)


def test_duplicate_sentences_are_removed(classify: ModuleType, tmp_path: Path) -> None:
    pairs = [
        ("zoo", "The lion sees 2 sailors."),
        ("zoo", "the Lion sees 3 sailors!"),  # the same up to case, number and punctuation
        ("zoo", "A zebra."),
        ("harbour", "Zebra: a"),  # of two classes, so removed
        ("harbour", "The crane loads cargo."),
    ]
    path = write(tmp_path / "texts.tsv", pairs)
    texts, labels = classify.labelled(Namespace(texts=path))
    assert list(zip(labels, texts, strict=True)) == [pairs[0], pairs[4]]


def test_near_duplicates_are_removed(classify: ModuleType) -> None:
    X = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    near, far = 0.95 * X[3] + 0.1 * X[7], 0.8 * X[3] + 0.6 * X[7]
    X_test = np.stack([X[0], X[6], near / np.linalg.norm(near), far])
    assert classify.without_near_duplicates(X_test, X[:6]).tolist() == [1, 3]

"""Entity recall, precision and F1 against a slow reference implementation of the published definition."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn.metrics import EntityRecall, entity_curve, entity_recall
from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.normalization import read_words, word_reader

NAN = float("nan")
METRICS = ("recall_strict", "recall_partial", "precision", "f1_strict", "f1_partial")


def slow_row(entities: list[str], keywords: list[str]) -> tuple[float, ...]:
    """The metrics of one row, by the formulas, with sets of strings."""
    if not entities:
        return (NAN,) * 5
    hyp = {tuple(read_words(word)) for word in keywords}
    found, matched, shares = set(), set(), []
    for name in entities:
        tokens = tuple(read_words(name))
        inside: set[int] = set()
        for phrase, shift in itertools.product(hyp, range(-9, len(tokens))):
            # the phrase begins at this word of the name, or before the name
            covered = [i for i in range(len(tokens)) if 0 <= i - shift < len(phrase)]
            if covered and all(tokens[i] == phrase[i - shift] for i in covered):
                inside |= set(covered)
                matched.add(phrase)
        shares.append(len(inside) / len(tokens))
        if len(inside) == len(tokens):
            found.add(name.casefold())
    strict, partial = len(found) / len(entities), sum(shares) / len(entities)
    precision = len(matched) / len(hyp) if hyp else 0.0

    def f1(recall: float) -> float:
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    return strict, partial, precision, f1(strict), f1(partial)


def check_result(result: EntityRecall, entities: list[list[str]], keywords: list[list[str]]) -> None:
    rows = [slow_row(e, words[: result.k]) for e, words in zip(entities, keywords, strict=True)]
    for name, slow in zip(METRICS, zip(*rows, strict=True), strict=True):
        metric = getattr(result, name)
        np.testing.assert_allclose(metric.per_row, slow, atol=1e-12, err_msg=name)
        values = [value for value in slow if not math.isnan(value)]
        assert metric.value == pytest.approx(np.mean(values) if values else NAN, nan_ok=True)
        if len(values) > 1:
            error = np.std(values, ddof=1) / math.sqrt(len(values))
            assert metric.standard_error == pytest.approx(error, abs=1e-12)
        assert (metric.n_rows, metric.n_skipped) == (len(values), len(slow) - len(values))


# Few words, so that many match; some equal only after case folding; several kinds of white space.
WORDS = ["a", "A", "b", "B", "c", "d", "e", "straße", "STRASSE", "İ", "ﬁn", "Fin"]
BLANKS = [" ", "  ", "\t", "\u3000", "\n"]


def random_name(rng: np.random.Generator) -> str:
    words = rng.choice(WORDS, size=rng.integers(1, 5))
    name = "".join(word + rng.choice(BLANKS) for word in words)
    return str(rng.choice([name, name.strip(), " " + name]))


def random_rows(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Names and keywords of a few rows; some rows are empty."""
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 9)
    entities = [[random_name(rng) for _ in range(rng.integers(5))] for _ in range(n)]
    keywords = [rng.choice(WORDS, size=rng.integers(9)).tolist() for _ in range(n)]
    for row in rng.integers(n, size=2):  # keywords of several words, and names that are listed twice
        keywords[row].insert(rng.integers(len(keywords[row]) + 1), random_name(rng))
        entities[row] += entities[row][:1]
    return entities, keywords


SEEDS = st.integers(0, 2**32)


@settings(max_examples=1000, deadline=None)
@given(seed=SEEDS, k=st.none() | st.integers(1, 9))
def test_metrics_equal_their_definition(seed: int, k: int | None) -> None:
    entities, keywords = random_rows(seed)
    check_result(entity_recall(entities, keywords, k), entities, keywords)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_curve_equals_recall_at_each_k(seed: int) -> None:
    entities, keywords = random_rows(seed)
    ks = [3, None, 1, 2, 3, 8, 100]
    curve = entity_curve(entities, keywords, iter(ks))
    assert [at.k for at in curve] == ks
    for at in curve:
        check_result(at, entities, keywords)
    # Recall does not fall with k, and is constant beyond the last keyword.
    by_k = entity_curve(entities, keywords, range(1, 11))
    for name in ("recall_strict", "recall_partial"):
        rising = [getattr(at, name).per_row for at in by_k]
        assert all((b >= a)[~np.isnan(a)].all() for a, b in itertools.pairwise(rising))
    for at in by_k:
        strict, partial = at.recall_strict.per_row, at.recall_partial.per_row
        assert (strict <= partial + 1e-12)[~np.isnan(strict)].all()
    everything = entity_recall(entities, keywords)
    for name in METRICS:
        last = getattr(by_k[-1], name).per_row
        np.testing.assert_array_equal(last, getattr(everything, name).per_row)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_invariance_to_order_case_and_other_rows(seed: int) -> None:
    entities, keywords = random_rows(seed)
    rng = np.random.default_rng(seed + 1)
    expected = entity_recall(entities, keywords)
    order = rng.permutation(len(entities))
    shuffled = entity_recall(
        [list(rng.permutation(entities[i])) for i in order],
        [list(rng.permutation(keywords[i])) for i in order],
    )
    loud = entity_recall(
        [[name.casefold().upper() for name in row] for row in entities],
        [[word.casefold().upper() for word in row] for row in keywords],
    )
    alone = [entity_recall([e], [w]) for e, w in zip(entities, keywords, strict=True)]
    for name in METRICS:
        per_row = getattr(expected, name).per_row
        np.testing.assert_allclose(getattr(shuffled, name).per_row, per_row[order])
        np.testing.assert_allclose(getattr(loud, name).per_row, per_row)
        np.testing.assert_allclose([getattr(one, name).per_row[0] for one in alone], per_row)


# --- By hand ---------------------------------------------------------------------------------


def values(result: EntityRecall) -> tuple[float, ...]:
    return tuple(round(getattr(result, name).value, 6) for name in METRICS)


@pytest.mark.parametrize(
    ("entities", "keywords", "expected"),
    [
        # one of two names whole, half of the other; 2 of 4 keywords are words of names
        (["New York", "Alice"], ["alice", "york", "fly", "to"], (0.5, 0.75, 0.5, 0.5, 0.6)),
        # case is folded, on both sides
        (["nEW yORK"], ["New", "YORK"], (1, 1, 1, 1, 1)),
        (["Straße"], ["STRASSE"], (1, 1, 1, 1, 1)),
        # a name that is listed twice is found once of two, but its share counts twice
        (["Alice", "ALICE"], ["alice"], (0.5, 1, 1, 0.666667, 1)),
        (["Alice", "Alice", "Bob"], ["alice"], (0.333333, 0.666667, 1, 0.5, 0.8)),
        # names that differ in white space are different names with the same words
        (["New York", "New  York"], ["new", "york"], (1, 1, 1, 1, 1)),
        # a repeated word counts each time in its name, once among the keywords
        (["New New York"], ["new"], (0, 0.666667, 1, 0, 0.8)),
        (["Duran Duran"], ["duran", "x"], (1, 1, 0.5, 0.666667, 0.666667)),
        # repeated keywords are one
        (["Alice"], ["alice", "Alice", "x"], (1, 1, 0.5, 0.666667, 0.666667)),
        # two names that share a word
        (["New York", "York"], ["york"], (0.5, 0.75, 1, 0.666667, 0.857143)),
        # nothing found, nothing extracted
        (["Alice"], ["bob"], (0, 0, 0, 0, 0)),
        (["Alice"], [], (0, 0, 0, 0, 0)),
        # a keyword of two words is found in the names that contain it
        (["New York"], ["new york"], (1, 1, 1, 1, 1)),
        (["New York City"], ["new york", "x"], (0, 0.666667, 0.5, 0, 0.571429)),
        (["New York City"], ["new york", "york city"], (1, 1, 1, 1, 1)),
        (["York"], ["new york"], (1, 1, 1, 1, 1)),
        (["New York"], ["in new", "york"], (1, 1, 1, 1, 1)),
        (["New York"], ["in new york today"], (1, 1, 1, 1, 1)),
        (["New York"], ["new jersey", "york"], (0, 0.5, 0.5, 0, 0.5)),
        (["New York"], ["not york"], (0, 0, 0, 0, 0)),
        # accents, apostrophes, hyphens and periods do not count, on both sides
        (["Zürich"], ["zurich"], (1, 1, 1, 1, 1)),
        (["Zurich"], ["zürich"], (1, 1, 1, 1, 1)),
        (["O'Neill", "O\u2019Brien"], ["oneill", "o'brien"], (1, 1, 1, 1, 1)),
        (["Saint-Denis", "Aix\u2011en-Provence"], ["saintdenis", "aixenprovence"], (1, 1, 1, 1, 1)),
        (["U.S."], ["u.s", "us"], (1, 1, 1, 1, 1)),
        (["İstanbul", "Łódź"], ["istanbul", "łódź"], (1, 1, 1, 1, 1)),
        (["AC/DC"], ["ac"], (0, 0.5, 1, 0, 0.666667)),
        # a name without letters is never found
        (["!!!", "Alice"], ["alice", "!"], (0.5, 0.5, 0.5, 0.5, 0.5)),
    ],
)
def test_by_hand(entities: list[str], keywords: list[str], expected: tuple[float, ...]) -> None:
    assert values(entity_recall([entities], [keywords])) == expected
    if "!!!" not in entities:
        assert slow_row(entities, keywords) == pytest.approx(expected, abs=1e-6)


NAMES = [
    "Zürich", "O'Neill", "O\u2019Brien", "Saint-Denis", "Łódź", "İzmir", "Straßburg", "New York", "Œuvre",
    "Ærø", "Rio de Janeiro", "Jean-Luc Godard", "D\u2019Arcy", "U.S.", "AT&T", "Санкт-Петербург", "Αθήνα",
]  # fmt: skip
VECTORIZERS = [
    ConceptVectorizer(min_count=1, min_pmi=0.1),
    ConceptVectorizer(min_count=1, bigrams=False),
    ConceptVectorizer(min_count=1, strip_accents=None),
    ConceptVectorizer(min_count=1, strip_accents="ascii"),
    ConceptVectorizer(min_count=1, token_pattern="indic"),
    ConceptVectorizer(min_count=1, token_pattern="whitespace", strip_punctuation=False),
    ConceptVectorizer(min_count=1, lowercase=False),
    CountVectorizer(ngram_range=(1, 2)),
    CountVectorizer(token_pattern=r"\S+", lowercase=False),
    CountVectorizer(strip_accents="ascii", stop_words=["de"]),
]


@pytest.mark.parametrize("vectorizer", VECTORIZERS, ids=repr)
@pytest.mark.filterwarnings("ignore:.*texts lose letters")
def test_names_are_read_as_the_vectorizer_reads_texts(vectorizer: Any) -> None:
    """All names are found among the concepts of their own texts, as Alice is; in other rows they are not."""
    names = [name for name in NAMES if word_reader(vectorizer)(name)]  # others have no word that it reads
    assert len(names) > 12
    texts = [f"we met {name} there" for name in names for _ in range(3)]
    vectorizer = clone(vectorizer).fit(texts)
    keywords = [row.tolist() for row in vectorizer.inverse_transform(vectorizer.transform(texts))]
    entities = [[name] for name in names for _ in range(3)]
    assert entity_recall(entities, keywords, vectorizer=vectorizer).recall_strict.value == 1
    other_rows = keywords[3:] + keywords[:3]
    assert entity_recall(entities, other_rows, vectorizer=vectorizer).recall_strict.value == 0


def test_vectorizers_that_distinguish_case_and_accents() -> None:
    keywords = [["Alice", "zürich"]]
    exact = ConceptVectorizer(lowercase=False, strip_accents=None)
    for name, found in [("Alice", 1), ("alice", 0), ("zürich", 1), ("zurich", 0)]:
        assert entity_recall([[name]], keywords, vectorizer=exact).recall_strict.value == found
        assert entity_recall([[name]], keywords).recall_strict.value == 1


def test_only_the_first_k_keywords_are_used() -> None:
    entities, keywords = [["a b"]], [["x", "a", "A", "b"]]
    expected = {
        1: (0, 0, 0, 0, 0),
        2: (0, 0.5, 0.5, 0, 0.5),
        3: (0, 0.5, 0.5, 0, 0.5),  # "A" is "a" again
        4: (1, 1, 0.666667, 0.8, 0.8),
        5: (1, 1, 0.666667, 0.8, 0.8),
    }
    assert {k: values(entity_recall(entities, keywords, k)) for k in expected} == expected
    assert entity_recall(entities, keywords, np.int64(2)).k == 2


def test_rows_without_names_are_skipped() -> None:
    result = entity_recall([["a"], [], ["b"], []], [["a"], ["a"], ["a"], []])
    for name in METRICS:
        metric = getattr(result, name)
        np.testing.assert_array_equal(metric.per_row, [1, NAN, 0, NAN])
        assert (metric.value, metric.n_rows, metric.n_skipped) == (0.5, 2, 2)
        assert metric.standard_error == pytest.approx(0.5)
    for n in (0, 2):
        nothing = entity_recall([[]] * n, [["a"]] * n)
        assert math.isnan(nothing.precision.value)
        assert nothing.precision.n_skipped == n


def test_weights() -> None:
    entities, keywords = [["a"], [], ["b c"], ["d"]], [["a", "x"], ["a"], ["b"], ["e"]]
    w = [3, 5, 1, 0]
    weighted = entity_recall(entities, keywords, sample_weight=w)
    repeated = entity_recall(
        [row for row, times in zip(entities, w, strict=True) for _ in range(times)],
        [row for row, times in zip(keywords, w, strict=True) for _ in range(times)],
    )
    for name in METRICS:
        assert getattr(weighted, name).value == pytest.approx(getattr(repeated, name).value)
    assert weighted.recall_partial.value == pytest.approx((3 * 1 + 0.5) / 4)
    curve = entity_curve(entities, keywords, [1], sample_weight=w)[0]
    assert curve.precision.value == 1.0


def test_published_standard_error() -> None:
    rng = np.random.default_rng(0)
    entities = [[str(name)] for name in rng.integers(5, size=30)]
    keywords = [[str(word) for word in row] for row in rng.integers(5, size=(30, 3))]
    metric = entity_recall(entities, keywords).precision
    theirs = metric.per_row.std() / math.sqrt(30)
    assert metric.standard_error * math.sqrt(29 / 30) == pytest.approx(theirs)


def test_keywords_of_other_rows_have_lower_recall() -> None:
    """Negative control."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(500)]
    entities = [list(rng.choice(words, size=2, replace=False)) for _ in range(300)]
    keywords = [[*row, *rng.choice(words, size=8)] for row in entities]
    right = entity_recall(entities, keywords)
    wrong = entity_recall(entities, keywords[1:] + keywords[:1])
    assert right.recall_strict.value == 1
    assert wrong.recall_partial.value < 0.1


@pytest.mark.parametrize("container", [tuple, np.array, pd.Series, lambda row: row])
def test_containers(container: Any) -> None:
    entities, keywords = [["New York"], ["Alice", "Bob"]], [["york", "new"], ["bob", "x"]]
    expected = values(entity_recall(entities, keywords))
    assert (
        values(entity_recall([container(r) for r in entities], [container(r) for r in keywords])) == expected
    )
    assert values(entity_recall(pd.Series(entities), tuple(keywords))) == expected
    assert values(entity_recall([set(row) for row in entities], np.array(keywords))) == expected
    assert values(entity_recall(iter(entities), (row for row in keywords))) == expected


# --- Errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entities", "keywords", "k", "parts"),
    [
        ([["a"]], [["a"], ["b"]], None, ["entities has 1 rows", "keywords has 2", "per row"]),
        ([["a"], ["b", ""]], [["a"], ["b"]], None, ["row 1 of entities", "name ''", "leave it out"]),
        ([[], ["a"], [" \t"]], [[]] * 3, None, ["row 2 of entities", r"' \t'", "no words"]),
        (["Alice"], [["a"]], None, ["row 0 of entities is the str 'Alice'", "list of strings"]),
        ([["a"], ["b"]], [["a"], "b c"], None, ["row 1 of keywords is the str 'b c'", "best first"]),
        ([["a"], None], [["a"]] * 2, None, ["row 1 of entities is the NoneType None", "[] for none"]),
        ([["a"], NAN], [["a"]] * 2, None, ["row 1 of entities is the float nan"]),
        ([["a"]], [{"a", "b"}], None, ["row 0 of keywords is the set", "best first"]),
        ([["a"]], [{"a": 1.0}], None, ["row 0 of keywords is the dict"]),
        ([["a"]], [iter("a")], None, ["row 0 of keywords", "list of strings"]),
        ("Alice", [["a"]], None, ["entities is the str 'Alice'", "per row"]),
        ([["a"]], {"a": 1}, None, ["keywords is the dict", "per row"]),
        (3, [["a"]], None, ["entities is the int 3", "per row"]),
        ([["a", None]], [["a"]], None, ["row 0 of entities holds the NoneType None", "string"]),
        ([["a"]], [["a", ("b", 0.5)]], None, ["row 0 of keywords holds the tuple", "return_scores"]),
        ([["a"]], [[3]], None, ["row 0 of keywords holds the int 3", "pass strings"]),
        ([["a"]], [["a"]], 0, ["k=0", ">= 1", "None for all"]),
        ([["a"]], [["a"]], 2.0, ["k=2.0", "an integer"]),
        ([["a"]], [["a"]], True, ["k=True"]),
    ],
)  # fmt: skip
def test_errors(entities: Any, keywords: Any, k: Any, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        entity_recall(entities, keywords, k)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def test_more_errors() -> None:
    with pytest.raises(ValueError, match=r"sample_weight has shape \(1,\); pass one weight per row"):
        entity_recall([["a"], ["b"]], [["a"], ["b"]], sample_weight=[1.0])
    with pytest.raises(ValueError, match="ks is 5; pass a list"):
        entity_curve([["a"]], [["a"]], 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k=0"):
        entity_curve([["a"]], [["a"]], [1, 0])
    long = "x" * 1000
    with pytest.raises(ValueError, match="row 0 of entities") as caught:
        entity_recall([long], [["a"]])
    assert len(str(caught.value)) < 200

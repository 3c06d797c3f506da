"""ConceptVectorizer: counts against plain loops, against CountVectorizer, and by hand."""

from __future__ import annotations

import doctest
import math
import pickle
import re
import string
import unicodedata
import warnings
from collections import Counter
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from flip_sklearn import FLiPExtractor
from flip_sklearn.vocabulary import ConceptVectorizer, phrases, tokenizer
from flip_sklearn.vocabulary.defaults import normalized_texts
from flip_sklearn.vocabulary.normalization import fold_accents, normalize, read_words, same_text
from tests.helpers.paths import ROOT

EVERYTHING: dict[str, Any] = {"min_count": 1, "min_pmi": -100.0, "max_unigrams": None, "max_bigrams": None}
HINDI = "भारत की राजधानी नई दिल्ली है। नई दिल्ली बहुत बड़ी है।"
TELUGU = "నేను తెలుగు మాట్లాడతాను, తెలుగు భాష మధురమైనది."
BENGALI = "আমি বাংলায় গান গাই।"
TAMIL = "தமிழ் மொழி மிகவும் பழமையானது."


def concepts_of(text: str, **parameters: Any) -> list[str]:
    """All words of a text."""
    fitted = ConceptVectorizer(bigrams=False, **{**EVERYTHING, **parameters}).fit([text])
    return fitted.build_analyzer()(text)


def table(vectorizer: ConceptVectorizer, counts: sp.csr_array) -> list[dict[str, int]]:
    """Each row as {concept: count}."""
    names = vectorizer.get_feature_names_out()
    return [{names[j]: int(row[j]) for j in np.flatnonzero(row)} for row in counts.toarray()]


# --- Reference implementation with plain loops -----------------------------------------------


def match_greedily(words: list[str], concepts: set[tuple[str, ...]]) -> list[str]:
    """Greedy matching from left to right, longest first."""
    units, i = [], 0
    while i < len(words):
        for length in range(len(words) - i, 0, -1):
            if tuple(words[i : i + length]) in concepts:
                units.append(" ".join(words[i : i + length]))
                i += length
                break
        else:
            i += 1
    return units


def choose_by_definition(
    rows: list[list[str]],
    *,
    min_count: int,
    min_pmi: float,
    max_unigrams: int | None,
    max_bigrams: int | None,
) -> dict[tuple[str, ...], int]:
    """Concepts and their counts, by the formula of the docstring, in integers."""
    words = Counter((word,) for row in rows for word in row)
    pairs = Counter((row[i], row[i + 1]) for row in rows for i in range(len(row) - 1))
    n_words, n_pairs = words.total(), pairs.total()
    bound = {
        pair: count
        for pair, count in pairs.items()
        if count * n_words**2 >= math.exp(min_pmi) * n_pairs * words[pair[:1]] * words[pair[1:]]
    }
    chosen = {}
    for candidates, limit in [(words, max_unigrams), (bound, max_bigrams)]:
        often = [c for c in candidates if candidates[c] >= min_count]
        often.sort(key=lambda c: (-candidates[c], " ".join(c)))
        chosen.update({c: candidates[c] for c in often[:limit]})
    return chosen


WORDS = ["aa", "bb", "cc", "dd"]
rows_of_words = st.lists(st.lists(st.sampled_from([*WORDS, "ee"]), max_size=12), max_size=5)
concept_sets = st.sets(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(tuple), min_size=1, max_size=12
)


@settings(max_examples=300, deadline=None)
@given(rows=rows_of_words, concepts=concept_sets)
def test_counting_agrees_with_loops(rows: list[list[str]], concepts: set[tuple[str, ...]]) -> None:
    texts = [" ".join(row) for row in rows]
    vectorizer = ConceptVectorizer(vocabulary=[" ".join(concept) for concept in sorted(concepts)])
    counts = vectorizer.transform(texts)
    expected = [match_greedily(row, concepts) for row in rows]
    assert counts.shape == (len(texts), len(concepts))
    assert table(vectorizer, counts) == [dict(Counter(row)) for row in expected]
    assert [vectorizer.build_analyzer()(text) for text in texts] == expected
    assert counts.sum() <= sum(map(len, rows))  # at most one concept per word


@pytest.mark.parametrize("seed", range(60))
def test_counting_agrees_with_loops_on_many_rows(seed: int) -> None:
    """Longer rows of fewer words, so that concepts overlap in chains."""
    rng = np.random.default_rng(seed)
    words = np.array(WORDS[: rng.integers(1, 5)])
    concepts = {tuple(rng.choice(words, size=rng.integers(1, 6))) for _ in range(rng.integers(1, 20))}
    rows = [list(rng.choice(words, size=rng.integers(0, 40))) for _ in range(50)]
    vectorizer = ConceptVectorizer(vocabulary=[" ".join(concept) for concept in concepts])
    counts = vectorizer.transform([" ".join(row) for row in rows])
    assert table(vectorizer, counts) == [dict(Counter(match_greedily(row, concepts))) for row in rows]


@settings(max_examples=250, deadline=None)
@given(
    rows=rows_of_words.filter(lambda rows: sum(map(len, rows)) > 0),
    min_count=st.integers(1, 3),
    min_pmi=st.sampled_from([-10.0, -0.5, 0.0, 0.5, 1.5]),
    max_unigrams=st.sampled_from([None, 1, 2, 3]),
    max_bigrams=st.sampled_from([None, 1, 2, 5]),
    block=st.integers(1, 4),
)
def test_choosing_agrees_with_loops(rows: list[list[str]], block: int, **parameters: Any) -> None:
    texts = [" ".join(row) for row in rows]
    expected = choose_by_definition(rows, **parameters)
    vectorizer = ConceptVectorizer(**parameters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "MAX_CHUNK_ROWS", block)
        patch.setattr(phrases, "MAX_PENDING_PAIRS", block)
        if not expected:
            with pytest.raises(ValueError, match="Lower min_count"):
                vectorizer.fit(texts)
            return
        counts = vectorizer.fit_transform(texts)
    names = sorted(" ".join(concept) for concept in expected)
    assert vectorizer.get_feature_names_out().tolist() == names
    assert vectorizer.vocabulary_ == {name: j for j, name in enumerate(names)}
    assert vectorizer.counts_.tolist() == [expected[tuple(name.split())] for name in names]
    assert (vectorizer.pmi_[[" " in name for name in names]] >= parameters["min_pmi"]).all()
    assert np.isnan(vectorizer.pmi_[[" " not in name for name in names]]).all()
    units = [dict(Counter(match_greedily(row, set(expected)))) for row in rows]
    assert table(vectorizer, counts) == units
    assert (vectorizer.transform(texts) != counts).nnz == 0
    assert (ConceptVectorizer(**parameters).fit(texts).transform(texts) != counts).nnz == 0


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_words.filter(lambda rows: sum(map(len, rows)) > 0), seed=st.integers(0, 9))
def test_order_of_rows_does_not_matter(rows: list[list[str]], seed: int) -> None:
    texts = np.array([" ".join(row) for row in rows])
    order = np.random.default_rng(seed).permutation(len(texts))
    one = ConceptVectorizer(min_count=1, max_unigrams=3, max_bigrams=2, min_pmi=0.1)
    two = clone(one)
    counts, permuted = one.fit_transform(texts), two.fit_transform(texts[order])
    assert one.vocabulary_ == two.vocabulary_
    np.testing.assert_array_equal(counts.toarray()[order], permuted.toarray())


def test_learned_vocabulary_passed_to_another_vectorizer_counts_the_same() -> None:
    texts = sentences(300)
    learned = ConceptVectorizer(min_count=3, min_pmi=0.1)
    counts = learned.fit_transform(texts)
    assert any(" " in name for name in learned.vocabulary_)
    for vocabulary in (learned.vocabulary_, learned.get_feature_names_out()):
        other = ConceptVectorizer(vocabulary=vocabulary)
        assert (other.transform(texts) != counts).nnz == 0
        np.testing.assert_array_equal(other.get_feature_names_out(), learned.get_feature_names_out())


def sentences(n: int, seed: int = 0) -> list[str]:
    """Random words by Zipf's law; "aa" is always followed by "bb"."""
    rng = np.random.default_rng(seed)
    words = np.array([a + b for a in "abcdefg" for b in "abcdefg"])
    chance = 1 / np.arange(1, words.size + 1)
    texts = [" ".join(rng.choice(words, size=8, p=chance / chance.sum())) for _ in range(n)]
    return [text.replace("aa", "aa bb") for text in texts]


# --- By hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("concepts", "text", "units"),
    [
        (["aa bb", "bb cc", "cc"], "aa bb cc", ["aa bb", "cc"]),
        (
            ["aa bb", "bb cc dd", "cc"],
            "aa bb cc dd",
            ["aa bb", "cc"],
        ),  # greedy, not the largest number of words
        (["aa aa", "aa"], "aa aa aa", ["aa aa", "aa"]),
        (["aa aa"], "aa aa aa aa aa", ["aa aa", "aa aa"]),
        (["new", "new york", "new york city"], "new york city", ["new york city"]),
        (["new", "new york", "new york city"], "new york new", ["new york", "new"]),
        (
            ["new york city", "new"],
            "new york",
            ["new"],
        ),  # "new york city" fails after two words: the longest complete match
        (["aa bb cc dd ee", "aa bb"], "aa bb cc dd aa bb", ["aa bb", "aa bb"]),
        (["aa bb"], "aa xx bb", []),  # a word in no concept separates the others
        (["aa bb"], "aa x bb", ["aa bb"]),  # one letter is not a word for "latin"
        (["aa bb"], "", []),
        (["aa bb", "aa"], "aa", ["aa"]),
    ],
)
def test_longest_match_from_the_left(concepts: list[str], text: str, units: list[str]) -> None:
    vectorizer = ConceptVectorizer(vocabulary=concepts)
    assert vectorizer.build_analyzer()(text) == units
    # Matches do not extend over the end of a row.
    counts = vectorizer.transform(["bb", text, "bb cc"])
    assert table(vectorizer, counts)[1] == Counter(units)


def test_pairs_do_not_extend_over_the_end_of_a_row() -> None:
    vectorizer = ConceptVectorizer(**EVERYTHING)
    vectorizer.fit(["aa", "bb", "", "cc dd"])
    assert [name for name in vectorizer.vocabulary_ if " " in name] == ["cc dd"]


def test_long_chain_of_overlapping_matches() -> None:
    vectorizer = ConceptVectorizer(vocabulary=["aa aa aa", "aa"])
    assert vectorizer.transform(["aa " * 100_001]).toarray().tolist() == [[33_333, 2]]


def test_pmi_by_hand() -> None:
    """30 words, 20 pairs: new 6, york 4, "new york" 4 -> ln(4/20 / (6/30 * 4/30)) = ln 7.5."""
    texts = ["new york aa", "new york bb", "new york cc", "new york dd", "new xx yy", "new zz ww"]
    texts += ["pp qq rr", "qq rr pp", "rr pp qq", "pp rr qq"]
    vectorizer = ConceptVectorizer(min_count=4, min_pmi=2.0).fit(texts)
    assert vectorizer.get_feature_names_out().tolist() == ["new", "new york", "pp", "qq", "rr", "york"]
    assert vectorizer.counts_.tolist() == [6, 4, 4, 4, 4, 4]
    assert vectorizer.pmi_[1] == pytest.approx(math.log(7.5))
    assert np.isnan(np.delete(vectorizer.pmi_, 1)).all()
    vectorizer.set_params(min_pmi=math.log(7.5) + 1e-9).fit(texts)
    assert "new york" not in vectorizer.vocabulary_


def test_independent_words_have_no_pmi() -> None:
    """Negative control: if every pair occurs equally often, no pair has a positive PMI."""
    texts = [f"{a} {b}" for a in WORDS for b in WORDS] * 5
    vectorizer = ConceptVectorizer(min_count=1, min_pmi=1e-6).fit(texts)
    assert sorted(vectorizer.vocabulary_) == WORDS
    assert len(vectorizer.set_params(min_pmi=0).fit(texts).vocabulary_) == 4 + 16


def test_pair_is_kept_without_its_words() -> None:
    vectorizer = ConceptVectorizer(min_count=2, max_unigrams=1, min_pmi=0.1)
    vectorizer.fit(["new york aa", "aa", "aa", "aa new york"])
    assert list(vectorizer.vocabulary_) == ["aa", "new york"]
    assert vectorizer.build_analyzer()("york aa new york new") == ["aa", "new york"]


def test_word_that_occurs_only_in_pairs_keeps_its_column() -> None:
    vectorizer = ConceptVectorizer(min_count=4, min_pmi=0.5)
    counts = vectorizer.fit_transform(["big new york", "new york", "big ideas"] * 2)
    column = vectorizer.vocabulary_["york"]
    assert vectorizer.counts_[column] == 4
    assert counts[:, [column]].sum() == 0
    assert vectorizer.build_analyzer()("york is new") == ["york", "new"]


def test_ties_are_broken_by_name() -> None:
    vectorizer = ConceptVectorizer(min_count=1, max_unigrams=2, bigrams=False)
    assert list(vectorizer.fit(["zz yy xx zz ww yy xx ww"]).vocabulary_) == ["ww", "xx"]


# --- CountVectorizer and the published code --------------------------------------------------


texts_of_any_kind = st.lists(st.text(max_size=30), min_size=1, max_size=4)
words_and_more = st.lists(
    st.text(alphabet="abXY é ÉßΣıİ,.-_'\u2019—\u200b\u0301क्य\n\t\x1c5", max_size=30), min_size=1, max_size=4
)


@settings(max_examples=200, deadline=None)
@given(
    texts=texts_of_any_kind | words_and_more,
    accents=st.sampled_from(["ascii", "unicode"]),
    lowercase=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:.*texts lose letters", "ignore:.*texts have letters of scripts")
def test_words_equal_those_of_count_vectorizer(texts: list[str], accents: str, lowercase: bool) -> None:
    """On normalized texts; where a diacritic cannot be composed with its letter, it does not cut the word."""
    ours = ConceptVectorizer(
        bigrams=False, strip_punctuation=False, strip_accents=accents, lowercase=lowercase, **EVERYTHING
    )
    theirs = CountVectorizer(strip_accents=accents, lowercase=False)
    normal = [normalize(text, lowercase=lowercase, strip_punctuation=False) for text in texts]
    same_counts(ours, theirs, texts, normal)


ascii_texts = st.lists(
    st.text(alphabet=st.characters(codec="ascii"), max_size=30)
    | st.lists(
        st.sampled_from(["Don't", "e-mail", "U.S.", "3.5", "Yes,", "(no)", "x", "\n"]), max_size=9
    ).map(" ".join),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(texts=ascii_texts)
def test_words_of_ascii_equal_those_of_the_published_code(texts: list[str]) -> None:
    """Which deletes punctuation and uses CountVectorizer with lower case and ASCII accents.

    Here some punctuation inside words separates them.
    """
    separated = [
        re.sub(rf'[,;:!?/\\<>"|=](?=[^\W\d_])|[{re.escape(string.punctuation)}]{{2,}}(?=[^\W_])', " ", text)
        for text in texts
    ]
    stripped = ["".join(c for c in text if c not in string.punctuation) for text in separated]
    ours = ConceptVectorizer(bigrams=False, **EVERYTHING)
    same_counts(ours, CountVectorizer(strip_accents="ascii"), texts, stripped)


def same_counts(
    ours: ConceptVectorizer, theirs: CountVectorizer, texts: list[str], their_texts: list[str]
) -> None:
    try:
        expected = theirs.fit_transform(their_texts)
    except ValueError:
        with pytest.raises(ValueError, match="There is no word"):
            ours.fit(texts)
        return
    counts = ours.fit_transform(texts)
    assert ours.vocabulary_ == theirs.vocabulary_
    assert (counts != sp.csr_array(expected)).nnz == 0
    assert counts.has_canonical_format


def test_punctuation_of_a_word_is_deleted_without_a_blank() -> None:
    assert concepts_of("Don't stop—now, it\u2019s “over”!") == ["dont", "stop", "now", "its", "over"]
    separated = concepts_of("Don't stop—now", strip_punctuation=False, strip_accents=None)
    assert separated == ["don", "stop", "now"]  # "t" has one letter
    joined = "U.S. AT&T 10:30 1,000 3/4 word(s) snake_case Saint-Denis Saint\u2011Denis O'Neill O\u02bcNeill"
    expected = "us att 1030 1000 34 words snakecase saintdenis saintdenis oneill oneill"
    assert concepts_of(joined) == expected.split()


@pytest.mark.parametrize("mark", [*"—–…“«、,;:/!|", ": ", "--", "...", "?!", ")."])
@pytest.mark.parametrize("token_pattern", ["latin", "indic", "whitespace"])
def test_punctuation_between_words_separates_them(mark: str, token_pattern: str) -> None:
    for first, second in [("end", "next"), ("début", "été"), ("слово", "дело")]:
        words = concepts_of(f"{first}{mark}{second}", token_pattern=token_pattern, strip_accents=None)
        assert words == [first, second]


# --- One normalizer --------------------------------------------------------------------------

PATTERNS = ("latin", "indic", "whitespace", r"\w+", str.split)


@pytest.mark.parametrize("token_pattern", PATTERNS)
@pytest.mark.parametrize("accents", ["auto", None])
@pytest.mark.parametrize("strip_punctuation", [True, False])
def test_turkish_i_is_one_word(token_pattern: Any, accents: Any, strip_punctuation: bool) -> None:
    texts = ["İstanbul", "istanbul", "\u0049\u0307stanbul", "ISTANBUL"]
    fitted = ConceptVectorizer(
        bigrams=False,
        token_pattern=token_pattern,
        strip_accents=accents,
        strip_punctuation=strip_punctuation,
        **EVERYTHING,
    )
    assert fitted.fit_transform(texts).toarray().tolist() == [[1]] * 4
    assert list(fitted.vocabulary_) == ["istanbul"]


@pytest.mark.parametrize("code", [
    0xAD, 0x34F, 0x61C, 0x180E, 0x200B, 0x200C, 0x200E, 0x200F, 0x202A, 0x202C, 0x202E, 0x2060, 0x2063,
    0x2066, 0x2067, 0x2068, 0x2069, 0xFE0F, 0xFEFF, 0xE0020,
])  # fmt: skip
@pytest.mark.parametrize("token_pattern", PATTERNS)
@pytest.mark.parametrize("strip_punctuation", [True, False])
def test_characters_without_width_are_deleted(code: int, token_pattern: Any, strip_punctuation: bool) -> None:
    for word in ("walking", "straße", "привет", "नई"):
        half, mark = len(word) // 2, chr(code)
        texts = [word, mark + word, word + mark, word[:half] + mark + word[half:]]
        fitted = ConceptVectorizer(
            token_pattern=token_pattern, strip_accents=None, strip_punctuation=strip_punctuation, **EVERYTHING
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts = fitted.fit_transform(texts).toarray()
        assert (counts == counts[0]).all()


def test_joiner_is_deleted_beside_latin_letters_only() -> None:
    assert concepts_of("walk\u200ding \u200dhere\u200d") == ["walking", "here"]
    assert concepts_of("क्\u200dष", token_pattern="indic") == ["क्\u200dष"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("sœur", "sœur"), ("łódź", "łodz"), ("Maße", "masse"), ("MASSE", "masse"), ("MAẞE", "masse"),
        ("Bjørn", "bjørn"), ("Þór", "þor"), ("Đorđe", "đorđe"), ("Żółć", "zołc"), ("Čapek", "capek"),
        ("Việt", "viet"), ("ﬁnd", "find"), ("ｆｕｌｌ", "full"), ("ΛΌΓΟΣ", "λογος"), ("λόγος", "λογος"),
        ("Йод", "йод"), ("за\u0301мок", "замок"), ("ẹ\u0300kọ", "eko"), ("Ærø", "ærø"), ("ǅep", "dzep"),
        ("col·lecció", "colleccio"), ("Adobe™", "adobe"), ("m²x", "m2x"), ("d´été", "dete"), ("שלום", "שלום"),
    ],
)  # fmt: skip
def test_default_reading_keeps_all_letters(text: str, word: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert concepts_of(text) == [word]
        assert concepts_of(unicodedata.normalize("NFD", text)) == [word]
        assert read_words(text) == [word]


@settings(max_examples=500, deadline=None)
@given(
    text=st.text(st.characters(exclude_characters="\u200d"), max_size=20)
    | st.text(alphabet="aİßΣσςﬁ—'-·́̇´™ǅ한नि\u200d\u00ad", max_size=12)
)
def test_normalizing_twice_changes_nothing(text: str) -> None:
    for options in ({}, {"lowercase": False}, {"strip_punctuation": False}):
        once = normalize(text, **options)
        assert normalize(once, **options) == once
    assert fold_accents(normalize(fold_accents(normalize(text)))) == fold_accents(normalize(text))
    assert same_text(same_text(text)) == same_text(text)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.characters(categories=["Lu", "Ll", "Lt", "Lo"]), max_size=8))
def test_no_letter_is_deleted(text: str) -> None:
    """NFKC writes some letters as two or as a letter and a mark; none has an empty form."""
    hangul_fillers = "\u115f\u1160\u3164\uffa0"
    for letter in text:
        if letter not in hangul_fillers + "\ua78b\ua78c":
            assert fold_accents(normalize(letter)).strip()


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (HINDI, "token_pattern='indic'"),
        ("ฉันรักภาษาไทย", "a callable"),
        ("我住在北京。", "a callable"),
        ("東京に行きます", "a callable"),
        ("شُكْرًا", "token_pattern='indic'"),
    ],
)
def test_scripts_that_do_not_suit_the_pattern_are_warned_of(text: str, remedy: str) -> None:
    vectorizer = ConceptVectorizer(vocabulary=["words"])
    with pytest.warns(UserWarning, match=rf"2 of 4 texts.*'latin'.*row 1\).*{remedy}"):
        vectorizer.transform(["words", text, "été, слово", f"a {text}"])
    if remedy == "a callable":
        vectorizer.set_params(token_pattern="indic")
        with pytest.warns(UserWarning, match=r"1 of 2 texts.*'indic'.*row 1"):
            vectorizer.transform(["words", text])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pattern in ("whitespace", str.split, *(["indic"] if "indic" in remedy else [])):
            vectorizer.set_params(token_pattern=pattern).transform(["words", text])


def test_texts_that_are_equal_for_a_reader_are_one() -> None:
    texts = ["İzmir  straße", "izmir STRASSE", "iz\u00admir\u00a0strasse\ufeff"]
    assert len({*normalized_texts(texts)}) == 1
    assert len({*normalized_texts(["a b", "a, b", "ab"])}) == 3  # punctuation counts


def test_words_learned_with_an_earlier_spelling_are_found() -> None:
    """A pickle of a vectorizer that did not fold ß and the final sigma."""
    vectorizer = ConceptVectorizer(min_count=1, min_pmi=-9, token_pattern="indic").fit(["maße maße in λόγος"])
    for now, before in (("masse", "maße"), ("λόγος", "λόγοσ")):
        for name in [name for name in vectorizer.vocabulary_ if now in name]:
            vectorizer.vocabulary_[name.replace(now, before)] = vectorizer.vocabulary_.pop(name)
        vectorizer._matcher.words[before] = vectorizer._matcher.words.pop(now)
    opened = pickle.loads(pickle.dumps(vectorizer))
    assert opened.build_analyzer()("MASSE, MASSE in Λόγος") == ["maße maße", "in λόγοσ"]
    with pytest.warns(UserWarning, match="'masse' and 'maße'.*texts count for the first"):
        both = ConceptVectorizer(vocabulary=["masse", "maße", "in"]).fit([])
    assert both.transform(["Maße in Masse"]).toarray().tolist() == [[2, 0, 1]]


@pytest.mark.parametrize(
    ("parameters", "text", "remedy"),
    [
        ({"token_pattern": r"#\w+"}, "a #tag here", "strip_punctuation=False"),
        ({"token_pattern": r"\w+@\w+"}, "me@home", "strip_punctuation=False"),
        ({"token_pattern": r"[A-Z]\w+"}, "Upper case", "lowercase=False"),
        ({"token_pattern": r"#[A-Z]\w+"}, "#Tag", "strip_punctuation=False and lowercase=False"),
        ({"token_pattern": re.compile(r"@\w+").findall}, "by @me", "strip_punctuation=False"),
        ({"token_pattern": r"[é]", "strip_accents": "unicode"}, "été", "strip_accents=None"),
    ],
)
def test_remedy_for_a_pattern_that_needs_uncleaned_texts(
    parameters: dict[str, Any], text: str, remedy: str
) -> None:
    with pytest.raises(ValueError, match=rf"no word in 1 texts\. Pass {remedy}: token_pattern"):
        ConceptVectorizer(min_count=1, **parameters).fit([text])


def test_remedy_for_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(ValueError, match=r"d\+' matches nothing, for instance in 'words'; change it"):
        ConceptVectorizer(min_count=1, token_pattern=r"\d+").fit(["words"])
    with pytest.warns(UserWarning, match="'#tag'.*Pass strip_punctuation=False, or leave"):
        ConceptVectorizer(token_pattern=r"#\w+", vocabulary=["#tag"]).fit([])


# --- Scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HINDI, "भारत की राजधानी नई दिल्ली है नई दिल्ली बहुत बड़ी है"),
        (TELUGU, "నేను తెలుగు మాట్లాడతాను తెలుగు భాష మధురమైనది"),
        (BENGALI, "আমি বাংলায় গান গাই"),
        (TAMIL, "தமிழ் மொழி மிகவும் பழமையானது"),
        ("اَلْعَرَبِيَّةُ لُغَةٌ، جَمِيلَةٌ؟", "اَلْعَرَبِيَّةُ لُغَةٌ جَمِيلَةٌ"),
        ("❤\ufe0f a b ॥ १२ ॥", "a b १२"),  # a mark alone is not a word, one letter or digit is
        ("क्‍ष", "क्‍ष"),  # with a joiner inside
    ],
)
def test_indic_keeps_words_whole(text: str, words: str) -> None:
    expected = unicodedata.normalize("NFC", words).split()
    assert concepts_of(text, token_pattern="indic") == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30) | st.text(alphabet="कि़्। ॥ab1-\u200d\ufe0fತీ", max_size=30))
def test_indic_equals_its_definition_by_characters(text: str) -> None:
    words, word = [], ""
    for c in [*unicodedata.normalize("NFC", text), " "]:
        letter, mark = c.isalnum() or c == "_", unicodedata.category(c)[0] == "M"
        if letter or (word and (mark or c in "\u200c\u200d")):
            word += c
        elif word:
            words.append(word)
            word = ""
    assert tokenizer.make_splitter("indic")(unicodedata.normalize("NFC", text)) == words


@pytest.mark.parametrize("text", [HINDI, TELUGU, BENGALI, TAMIL])
def test_latin_splits_words_with_marks(text: str) -> None:
    """Negative control: the reason for the preset "indic"."""
    cut = concepts_of(text, strip_accents=None)
    assert not {*cut} >= {*concepts_of(text, token_pattern="indic")}


def test_hindi_pairs() -> None:
    vectorizer = ConceptVectorizer(token_pattern="indic", min_count=2, min_pmi=1.0).fit([HINDI])
    assert "नई दिल्ली" in vectorizer.vocabulary_
    assert "नई दिल्ली" in vectorizer.build_analyzer()("वह नई दिल्ली में है")


def test_thai_with_a_callable() -> None:
    known = ["ฉัน", "รัก", "ภาษา", "ไทย", "มาก"]
    pattern = re.compile("|".join(known))
    vectorizer = ConceptVectorizer(token_pattern=pattern.findall, min_count=2, min_pmi=0.5)
    vectorizer.fit(["ฉันรักภาษาไทย", "ภาษาไทยมาก"])
    assert sorted(vectorizer.vocabulary_) == sorted(["ภาษา", "ไทย", "ภาษา ไทย"])
    assert vectorizer.build_analyzer()("ฉันรักภาษาไทย") == ["ภาษา ไทย"]


def test_callable_that_returns_a_generator_with_blanks() -> None:
    vectorizer = ConceptVectorizer(
        token_pattern=lambda text: (part for part in re.split("( |的)", text)), **EVERYTHING
    )
    counts = vectorizer.fit_transform(["北京 大学的 学生", "北京 大学"])
    assert "北京 大学" in vectorizer.vocabulary_
    again = ConceptVectorizer(vocabulary=vectorizer.vocabulary_, token_pattern=vectorizer.token_pattern)
    assert (again.transform(["北京 大学的 学生", "北京 大学"]) != counts).nnz == 0


def test_german_and_french() -> None:
    german, french = "Die Straße führt über Köln.", "L\u2019été à Noël, où es-tu ?"
    assert concepts_of(german) == ["die", "strasse", "fuhrt", "uber", "koln"]
    assert concepts_of(german, strip_accents="unicode") == concepts_of(german)
    assert concepts_of(german, strip_accents=None) == ["die", "strasse", "führt", "über", "köln"]
    assert concepts_of(german, lowercase=False) == ["Die", "Straße", "fuhrt", "uber", "Koln"]
    assert concepts_of(french) == ["lete", "noel", "ou", "estu"]
    assert concepts_of(french, strip_accents=None) == ["lété", "noël", "où", "estu"]


@given(text=st.text(alphabet="aeiouñéÀçÖ ऩकिक़ड़", max_size=20), pattern=st.sampled_from(["latin", "indic"]))
def test_composed_and_decomposed_letters_are_equal(text: str, pattern: str) -> None:
    forms = [unicodedata.normalize(form, f"word {text}") for form in ("NFC", "NFD")]
    one, two = (concepts_of(form, token_pattern=pattern, strip_accents=None) for form in forms)
    assert one == two


def test_whitespace_and_expressions() -> None:
    text = "to be, or #not to-be: x"
    assert concepts_of(text, token_pattern="whitespace") == ["to", "be", "or", "not", "tobe", "x"]
    plain = concepts_of(text, token_pattern="whitespace", strip_punctuation=False)
    assert plain == text.split()
    tags = concepts_of(text, token_pattern=r"#(\w+)", strip_punctuation=False)
    assert tags == ["not"]
    assert concepts_of("aB", token_pattern=r"\w", lowercase=False) == ["a", "B"]


def test_texts_without_ascii_letters_are_warned_of() -> None:
    ascii_only = {**EVERYTHING, "strip_accents": "ascii"}
    with (
        pytest.warns(UserWarning, match=r"1 of 1 texts.*row 0.*strip_accents='auto'.*'indic'"),
        pytest.raises(ValueError, match=r"There is no word in 1 texts.*token_pattern='indic'"),
    ):
        ConceptVectorizer(**ascii_only).fit([HINDI])
    fitted = ConceptVectorizer(**ascii_only).fit(["some words"])
    with pytest.warns(UserWarning, match=r"3 of 5 texts lose letters.*row 1"):
        counts = fitted.transform(["some words", HINDI, "☃ é ☃", TELUGU, "Straße"])
    assert counts.sum() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.transform(["", "❤", "é", "été", "1"])  # no warning
    for accents in ("ascii", "unicode"):
        with pytest.raises(ValueError, match=f"'{accents}' removes marks.*'auto' or None"):
            ConceptVectorizer(token_pattern="indic", strip_accents=accents).fit(["aa"])


# --- Input -----------------------------------------------------------------------------------


def test_containers_of_texts() -> None:
    texts = sentences(50)
    vectorizer = ConceptVectorizer(min_count=2, min_pmi=0.1)
    expected = vectorizer.fit_transform(texts)
    kinds = [
        tuple(texts), iter(texts), (text for text in texts), np.array(texts),
        np.array(texts, dtype=object), pd.Series(texts, index=range(7, 57)),
        pd.Series(texts, dtype="string"),
    ]  # fmt: skip
    for kind in kinds:
        assert (vectorizer.fit_transform(kind) != expected).nnz == 0
    assert isinstance(expected, sp.csr_array)
    assert expected.dtype == np.int32
    assert vectorizer.transform([]).shape == (0, expected.shape[1])
    assert vectorizer.transform(["", "  ", "."]).nnz == 0


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("one text", "raw_documents is a str; pass a list"),
        (b"one text", "raw_documents is a bytes"),
        (None, "raw_documents is a NoneType"),
        (5, "raw_documents is a int"),
        ({"aa": "bb"}, "raw_documents is a dict"),
        ({"aa", "bb"}, "raw_documents is a set"),
        (pd.DataFrame({"text": ["aa"]}), "2 dimensions; pass one text per row"),
        (np.array([["aa"]]), "2 dimensions"),
        (["aa", None], "row 1 is None of type NoneType.*pass ''"),
        (["aa", "aa", b"aa"], "row 2 is b'aa' of type bytes, not str; decode it"),
        (["aa", math.nan], "row 1 is nan of type float"),
        ([["aa"]], r"row 0 is \['aa'\] of type list"),
        ([], "There is no word in 0 texts"),
        (["", "x"], "There is no word in 2 texts"),
    ],
)
def test_bad_texts(documents: Any, message: str) -> None:
    vectorizer = ConceptVectorizer(min_count=1)
    with pytest.raises(ValueError, match=message):
        vectorizer.fit(documents)
    assert not hasattr(vectorizer, "vocabulary_")
    if "no word" not in message:
        vectorizer.fit(["aa bb"])
        before = vars(vectorizer).copy()
        with pytest.raises(ValueError, match=message):
            vectorizer.transform(documents)
        with pytest.raises(ValueError, match=message):
            vectorizer.fit(documents)
        assert vars(vectorizer) == before


def test_row_number_in_a_later_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MAX_CHUNK_ROWS", 3)
    with pytest.raises(ValueError, match="row 10 is None"):
        ConceptVectorizer(min_count=1).fit([*["aa bb"] * 10, None])
    with pytest.warns(UserWarning, match=r"1 of 11 texts.*row 10"):
        ConceptVectorizer(min_count=1).fit([*["aa bb"] * 10, HINDI])


def test_chunks_have_a_bounded_number_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MAX_CHUNK_CHARACTERS", 10)
    sizes = [len(chunk) for chunk in tokenizer.split_into_chunks(["a" * 30, "a", "b", "c" * 9, "d"])]
    assert sizes == [1, 3, 1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"bigrams": 1}, "bigrams=1 is not allowed; use True or False"),
        ({"lowercase": None}, "lowercase=None is not allowed"),
        ({"strip_punctuation": "no"}, "strip_punctuation='no' is not allowed"),
        ({"min_count": 0}, "min_count=0 is not allowed; use an integer >= 1"),
        ({"min_count": 0.5}, "min_count=0.5"),
        ({"min_count": None}, r"min_count=None is not allowed; use an integer >= 1\."),
        ({"max_unigrams": 0}, "max_unigrams=0 is not allowed; use an integer >= 1 or None for no limit"),
        ({"max_bigrams": True}, "max_bigrams=True"),
        ({"min_pmi": math.nan}, "min_pmi=nan is not allowed; use a finite number, in nats"),
        ({"min_pmi": "high"}, "min_pmi='high'"),
        ({"token_pattern": "Latin"}, "'Latin' is not a preset; use one of 'latin', 'indic'"),
        ({"token_pattern": None}, "token_pattern=None is not allowed"),
        ({"token_pattern": ""}, "token_pattern='' is not allowed"),
        ({"token_pattern": "(a"}, "not a regular expression"),
        ({"token_pattern": "(a)(b)"}, "2 capturing groups"),
        ({"token_pattern": r"[^,]+"}, "returned the word 'aa bb'; words are str without white space"),
        ({"token_pattern": lambda text: [1]}, "returned the word 1"),
        ({"token_pattern": lambda text: text}, "returned 'aa bb' for the text 'aa bb'; it must return"),
        ({"token_pattern": lambda text: None}, "returned None"),
        ({"strip_accents": "utf8"}, "strip_accents='utf8' is not allowed; use one of 'auto', 'ascii'"),
        ({"strip_accents": True}, "strip_accents=True"),
        ({"n_jobs": 0}, "n_jobs=0 is not allowed"),
        ({"n_jobs": 1.5}, "n_jobs=1.5 is not allowed; use an integer"),
        ({"min_count": 3}, "No word occurs min_count=3 times in 2 texts.*'aa', occurs 2 times"),
        ({"vocabulary": "aa"}, "vocabulary='aa' is not allowed"),
        ({"vocabulary": 3}, "vocabulary=3 is not allowed"),
        ({"vocabulary": []}, "vocabulary is empty"),
        ({"vocabulary": ["aa", 3]}, "vocabulary holds 3, which is not a str"),
        ({"vocabulary": ["aa", "bb", "aa"]}, "vocabulary has 'aa' twice"),
        ({"vocabulary": {"aa": 0, "bb": 2}}, "columns must be 0 to 1, each once"),
        ({"vocabulary": ["New York", "new york"]}, "'New York' and 'new york', which are the same"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    vectorizer = ConceptVectorizer(**{"min_count": 1, **parameters})  # says nothing yet
    with pytest.raises(ValueError, match=message):
        vectorizer.fit_transform(["aa bb", "aa bb"])
    assert not hasattr(vectorizer, "vocabulary_")


# --- Vocabulary passed by the user -----------------------------------------------------------


def test_given_vocabulary() -> None:
    names = ["New York City", "don't", "Ville d\u2019été", "new"]
    texts = ["NEW YORK CITY, new!", "dont", "la ville d'ete"]
    vectorizer = ConceptVectorizer(vocabulary=names)
    expected = [{"New York City": 1, "new": 1}, {"don't": 1}, {"Ville d\u2019été": 1}]
    assert table(vectorizer, vectorizer.transform(texts)) == expected  # without fit
    assert vectorizer.get_feature_names_out().tolist() == names
    assert (vectorizer.fit_transform(iter(texts)) != vectorizer.transform(texts)).nnz == 0
    columns = {name: 3 - j for j, name in enumerate(names)}
    reordered = ConceptVectorizer(vocabulary=columns)
    np.testing.assert_array_equal(
        reordered.fit_transform(texts).toarray(), vectorizer.transform(texts).toarray()[:, ::-1]
    )
    assert reordered.vocabulary_ == columns
    assert reordered.vocabulary_ is not columns
    assert ConceptVectorizer(vocabulary={"bb", "aa"}).fit([]).vocabulary_ == {"aa": 0, "bb": 1}


def test_concepts_that_lose_letters_are_warned_of() -> None:
    vectorizer = ConceptVectorizer(vocabulary=["aa", "x", "vitamin c", "ice-cream"])
    with pytest.warns(UserWarning, match=r"2 concepts.*the first is 'x', which counts ''"):
        counts = vectorizer.transform(["aa x vitamin", "icecream"])
    assert counts.toarray().tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = ConceptVectorizer(vocabulary=["x", "vitamin c"], token_pattern=r"\w+")
        assert whole.build_analyzer()("x vitamin vitamin c") == ["x", "vitamin c"]
        split = ConceptVectorizer(vocabulary=["ice-cream", "नई दिल्ली"], token_pattern=r"[^\W-]\S*")
        split.set_params(strip_punctuation=False).fit([])


def test_attributes_of_an_earlier_fit_are_removed() -> None:
    vectorizer = ConceptVectorizer(min_count=1).fit(["aa bb"])
    assert {"counts_", "pmi_"} <= vars(vectorizer).keys()
    vectorizer.set_params(vocabulary=["cc"]).fit([])
    assert not {"counts_", "pmi_"} & vars(vectorizer).keys()
    assert vectorizer.transform(["cc"]).toarray().tolist() == [[1]]


# --- Several processes, progress -------------------------------------------------------------


def test_result_is_independent_of_n_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MAX_CHUNK_ROWS", 20)
    texts = [*sentences(150), TELUGU, *sentences(50, seed=1)]
    one = ConceptVectorizer(min_count=3, min_pmi=0.1, token_pattern="indic")
    two = clone(one).set_params(n_jobs=2)
    counts = one.fit_transform(texts)
    # Forked processes if possible: those of joblib's default backend take seconds to start.
    with joblib.parallel_config(backend="multiprocessing"):
        same = two.fit_transform(texts)
        transformed = two.transform(iter(texts))
    assert one.vocabulary_ == two.vocabulary_
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(counts, name), getattr(same, name))
    np.testing.assert_array_equal(one.pmi_, two.pmi_)
    assert (transformed != counts).nnz == 0


def test_n_jobs_none_follows_the_joblib_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MAX_CHUNK_ROWS", 5)
    texts = sentences(40)
    expected = ConceptVectorizer(min_count=2).fit_transform(texts)
    seen: list[int] = []
    parallel = tokenizer.Parallel
    monkeypatch.setattr(tokenizer, "Parallel", lambda n_jobs: seen.append(n_jobs) or parallel(n_jobs=n_jobs))
    with joblib.parallel_config(backend="threading", n_jobs=2):
        counts = ConceptVectorizer(min_count=2).fit_transform(texts)
    assert seen == [2]
    assert (counts != expected).nnz == 0
    ConceptVectorizer(min_count=1, n_jobs=2).fit(["one block starts no process"])
    assert seen == [2, 1]


def test_nothing_is_printed_for_short_runs(capsys: pytest.CaptureFixture[str]) -> None:
    ConceptVectorizer(min_count=1).fit_transform(sentences(20))
    ConceptVectorizer(min_count=1, verbose=True).fit_transform(iter(sentences(20)))
    assert capsys.readouterr() == ("", "")


# --- scikit-learn ----------------------------------------------------------------------------


def test_estimator_checks() -> None:
    vectorizer = ConceptVectorizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checks that need numeric input are skipped
        check_estimator(vectorizer)
    ours, theirs = get_tags(vectorizer).input_tags, get_tags(CountVectorizer()).input_tags
    assert ours == theirs
    assert vectorizer.get_params() == clone(vectorizer).get_params()
    assert not hasattr(vectorizer, "set_output")  # as for CountVectorizer
    assert "ConceptVectorizer" in repr(vectorizer)


def test_not_fitted() -> None:
    calls = {
        "transform": [["aa"]], "get_feature_names_out": [], "build_analyzer": [],
        "inverse_transform": [np.eye(2)],
    }  # fmt: skip
    for name, arguments in calls.items():
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(ConceptVectorizer(), name)(*arguments)


def test_clone_and_pickle() -> None:
    texts = sentences(60)
    vectorizer = ConceptVectorizer(min_count=2, min_pmi=0.1)
    counts = vectorizer.fit_transform(texts)
    assert not hasattr(clone(vectorizer), "vocabulary_")
    opened = pickle.loads(pickle.dumps(vectorizer))
    assert (opened.transform(texts) != counts).nnz == 0
    analyzer = pickle.loads(pickle.dumps(vectorizer.build_analyzer()))
    assert [analyzer(text) for text in texts] == list(map(vectorizer.build_analyzer(), texts))
    with pytest.raises(ValueError, match="text is 3 of type int"):
        analyzer(3)


@pytest.mark.parametrize(
    ("module", "name", "current"),
    [
        ("_reading", "Reader", tokenizer.Tokenizer),
        ("_reading", "_Guard", tokenizer.CheckedSplitter),
        ("_reading", "_latin", tokenizer.split_latin),
        ("_spans", "Matcher", phrases.PhraseMatcher),
    ],
)
def test_former_names_in_pickles(module: str, name: str, current: Any) -> None:
    """Analyzers and vectorizers pickled by version 0.1.0 hold these classes by name."""
    assert pickle.loads(f"cflip_sklearn.{module}\n{name}\n.".encode()) is current


def test_warnings_point_at_the_caller() -> None:
    vectorizer = ConceptVectorizer(vocabulary=["aa", "x"])
    with pytest.warns(UserWarning, match="lose letters") as record:
        vectorizer.fit([])
    assert [warning.filename for warning in record] == [__file__]
    fitted = ConceptVectorizer(min_count=1).fit(["aa"])
    with pytest.warns(UserWarning, match="have letters of scripts") as record:
        make_pipeline(fitted).transform([HINDI])
    assert [warning.filename for warning in record] == [__file__]


def test_inverse_transform() -> None:
    texts = [*sentences(20), ""]
    vectorizer = ConceptVectorizer(min_count=2, min_pmi=0.1)
    counts = vectorizer.fit_transform(texts)
    analyzer = vectorizer.build_analyzer()
    for X in (counts, counts.toarray(), sp.csc_array(counts)):
        found = vectorizer.inverse_transform(X)
        assert [sorted(row) for row in found] == [sorted({*analyzer(text)}) for text in texts]
    with pytest.raises(ValueError, match=r"X has shape \(2, 2\); pass counts of the"):
        vectorizer.inverse_transform(np.eye(2))


def test_vocabulary_of_flip_extractor() -> None:
    texts = ["new york", "big ideas", "old car"] * 20
    vectorizer = ConceptVectorizer(min_pmi=0.5)
    Y = vectorizer.fit_transform(texts)
    X = Y.toarray() + 0.01 * np.random.default_rng(0).normal(size=Y.shape)
    flip = FLiPExtractor(vocabulary=vectorizer.vocabulary_, max_iter=5, random_state=0).fit(X, Y)
    keywords = flip.extract_keywords(X[:3], top_k=1)
    assert keywords == [["new york"], ["big ideas"], ["old car"]]


def test_examples_of_the_documentation() -> None:
    page = (ROOT / "docs/vocabulary.md").read_text(encoding="utf8")
    examples = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if ">>>" in code]
    assert examples
    names = {"ConceptVectorizer": ConceptVectorizer}
    for code in examples:
        test = doctest.DocTestParser().get_doctest(code, names, "vocabulary.md", None, 0)
        assert doctest.DocTestRunner().run(test).failed == 0


def test_pipeline_and_grid_search() -> None:
    """The two classes have the same words; only the pair distinguishes them."""
    rng = np.random.default_rng(0)
    pair, others = ["new york"] * 40, ["york new"] * 40
    filler = [" ".join(rng.permutation(["is", "big", "and", "old", "too"])) for _ in range(80)]
    texts = [f"{a} {b}" for a, b in zip(pair + others, filler, strict=True)]
    y = np.repeat([1, 0], 40)
    search = GridSearchCV(
        make_pipeline(ConceptVectorizer(min_count=5, min_pmi=0.5), MultinomialNB()),
        {"conceptvectorizer__bigrams": [False, True]},
        cv=4,
    ).fit(texts, y)
    words, pairs = search.cv_results_["mean_test_score"]
    assert pairs == 1.0
    assert words < 0.7
    pipeline = make_pipeline(ConceptVectorizer(min_count=5, min_pmi=0.5), LogisticRegression())
    assert pipeline.fit(pd.Series(texts), y).score(texts, y) == 1.0
    assert "new york" in pipeline[:-1].get_feature_names_out()

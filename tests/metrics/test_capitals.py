"""Words with capitals, which CountVectorizer never counts: it lower-cases texts, but not its vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.metrics import (
    hit_jaccard,
    keyword_accuracy,
    keyword_accuracy_scorer,
    log_likelihood_scorer,
    perplexity,
    precision_recall,
    span_accuracy,
)
from flip_sklearn.vocabulary import ConceptVectorizer

VOCABULARY = ["Berlin", "Ärzte", "flew", "rain", "to"]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(VOCABULARY, size=3)) for _ in range(80)]
COUNTER = CountVectorizer(vocabulary=VOCABULARY, token_pattern=r"\S+")
CONCEPTS = ConceptVectorizer(vocabulary=VOCABULARY)
LOST, TRUE = COUNTER.transform(TEXTS), CONCEPTS.transform(TEXTS)
X = TRUE @ RNG.normal(size=(5, 8)) + 0.1 * RNG.normal(size=(80, 8))
SCORES = RNG.normal(size=TRUE.shape)
FLIP = FLiPExtractor(vocabulary=VOCABULARY, max_iter=2, random_state=0).fit(X, TRUE)


def messages_of(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return sorted({str(w.message) for w in caught if "capitals" in str(w.message)})


def frame(Y: Any) -> pd.DataFrame:
    return pd.DataFrame(Y.toarray(), columns=VOCABULARY)


CALLS: dict[str, Callable[[Any], Any]] = {
    "fit": lambda Y: FLiPExtractor(vocabulary=VOCABULARY, max_iter=1, random_state=0).fit(X, Y),
    "fit of a frame": lambda Y: FLiPExtractor(max_iter=1, random_state=0).fit(X, frame(Y)),
    "score": lambda Y: FLIP.score(X, Y),
    "score of a frame": lambda Y: FLIP.score(X, frame(Y)),
    "keyword_accuracy_scorer": lambda Y: keyword_accuracy_scorer(FLIP, X, Y),
    "log_likelihood_scorer": lambda Y: log_likelihood_scorer(FLIP, X, Y),
    "keyword_accuracy": lambda Y: keyword_accuracy(frame(Y), SCORES),
    "precision_recall": lambda Y: precision_recall(frame(Y), SCORES, 2),
    "hit_jaccard": lambda Y: hit_jaccard(frame(Y), SCORES, -SCORES),
    "perplexity": lambda Y: perplexity(frame(Y), np.full(Y.shape, -np.log(5))),
}


@pytest.mark.parametrize("name", CALLS)
def test_counts_without_words_with_capitals_cause_a_warning(name: str) -> None:
    messages = messages_of(lambda: CALLS[name](LOST))
    assert len(messages) == 1
    assert messages[0].startswith("2 of 5 words have capitals, such as 'Berlin'")
    assert "ConceptVectorizer" in messages[0]
    assert messages_of(lambda: CALLS[name](TRUE)) == []


def test_counts_without_names_or_capitals_or_words_cause_none() -> None:
    lower = FLiPExtractor(vocabulary=[word.lower() for word in VOCABULARY], max_iter=1, random_state=0)
    assert messages_of(lambda: lower.fit(X, LOST)) == []
    assert messages_of(lambda: keyword_accuracy(LOST, SCORES)) == []
    assert messages_of(lambda: keyword_accuracy(frame(0 * LOST), SCORES)) == []


def test_span_accuracy_knows_what_the_vectorizer_never_counts() -> None:
    """Also if no text happens to have a word with capitals."""
    (message,) = messages_of(lambda: span_accuracy(TEXTS, SCORES, COUNTER))
    assert message.startswith("2 of 5 words of the vectorizer, such as 'Berlin', have capitals or accents")
    assert messages_of(lambda: span_accuracy(["rain"], SCORES[:1], CONCEPTS)) == []
    as_written = CountVectorizer(vocabulary=VOCABULARY, token_pattern=r"\S+", lowercase=False)
    assert messages_of(lambda: span_accuracy(TEXTS, SCORES, as_written)) == []
    assert span_accuracy(TEXTS, SCORES, as_written).value == span_accuracy(TEXTS, SCORES, CONCEPTS).value


def test_concept_vectorizer_gives_the_published_accuracy() -> None:
    """The published evaluation lowers texts, vocabulary and keywords."""
    order, expected = np.argsort(-SCORES, axis=1), []
    for text, best in zip(TEXTS, order, strict=True):
        words = set(text.lower().split())
        found = {VOCABULARY[j].lower() for j in best[: len(words)]}
        expected.append(len(words & found) / len(words))
    assert span_accuracy(TEXTS, SCORES, CONCEPTS).value == pytest.approx(np.mean(expected))
    with pytest.warns(UserWarning, match="capitals"):
        assert span_accuracy(TEXTS, SCORES, COUNTER).value != pytest.approx(np.mean(expected))


def test_bigram_columns_and_the_published_reference() -> None:
    """docs/metrics.md: with columns of several words set to zero, n_reference gives the published figures."""
    vocabulary = ["a", "b", "a b", "b a"]
    texts = ["a b a", "b b", "a b", "c"]
    counter = CountVectorizer(vocabulary=vocabulary, token_pattern=r"\S+", ngram_range=(1, 2))
    Y = counter.transform(texts)
    top = np.array([[2, 0, 3, 1], [1, 2, 0, 3], [3, 1, 0, 2], [0, 1, 2, 3]])
    n_reference = [len(set(text.split())) for text in texts]
    with pytest.raises(ValueError, match=r"Columns of several words .* set them to zero"):
        precision_recall(Y, top, 2, n_reference=n_reference)
    Y = Y.tolil()
    Y[:, [" " in word for word in vocabulary]] = 0
    result = precision_recall(Y, top, 2, n_reference=n_reference)
    hits = [
        len({vocabulary[j] for j in row[:2]} & set(text.split()))
        for row, text in zip(top, texts, strict=True)
    ]
    assert hits == [1, 1, 1, 0]
    assert np.allclose(result.precision.per_row, np.divide(hits, 2))
    assert np.allclose(result.recall.per_row, np.divide(hits, n_reference))

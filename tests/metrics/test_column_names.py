"""Words have the names of columns of pandas, polars and pyarrow, and no column is taken for another word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import FLiPExtractor, SpLiCEExtractor, kkt_residual, regularization_path
from flip_sklearn.diagnostics import word_recoverability
from flip_sklearn.metrics import (
    hit_jaccard,
    hit_sets,
    keyword_accuracy,
    keyword_accuracy_scorer,
    log_likelihood_scorer,
    perplexity,
    precision_recall,
)

WORDS = ["dog", "cat", "sky", "red"]
N, V = 40, len(WORDS)
rng = np.random.default_rng(0)
COUNTS = rng.poisson(0.7, size=(N, V))
COUNTS[np.arange(N), np.arange(N) % V] += 1
X = COUNTS @ rng.normal(size=(V, 5)) + 0.1 * rng.normal(size=(N, 5))


def model(**params: Any) -> FLiPExtractor:
    return FLiPExtractor(rank=3, max_iter=2, random_state=0, device="cpu", early_stopping=False, **params)


def columns(words: list[str]) -> dict[str, np.ndarray]:
    return {word: COUNTS[:, WORDS.index(word)] for word in words}


LIBRARIES: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
}
every_library = pytest.mark.parametrize("library", LIBRARIES)


@every_library
def test_words_are_the_column_names(library: str) -> None:
    frame = LIBRARIES[library](columns(WORDS))
    assert model().fit(X, frame).vocabulary_.tolist() == WORDS
    assert model().partial_fit(X, frame).vocabulary_.tolist() == WORDS
    splice = SpLiCEExtractor(rng.normal(size=(V, 5)), device="cpu").fit(X, frame)
    assert splice.vocabulary_.tolist() == WORDS


@every_library
def test_feature_names_of_embeddings(library: str) -> None:
    names = [f"d{j}" for j in range(5)]
    frame = LIBRARIES[library](dict(zip(names, X.T, strict=True)))
    fitted = model(vocabulary=WORDS).fit(frame, COUNTS)
    assert fitted.feature_names_in_.tolist() == names
    np.testing.assert_array_equal(
        fitted.word_embeddings_, model(vocabulary=WORDS).fit(X, COUNTS).word_embeddings_
    )


FITTED = model().fit(X, pd.DataFrame(columns(WORDS)))
GIVEN = model(vocabulary=WORDS).fit(X, COUNTS)
SPLICE = SpLiCEExtractor(rng.normal(size=(V, 5)), vocabulary=WORDS, device="cpu").fit(X)
SEARCH = GridSearchCV(model(vocabulary=WORDS), {"use_bias": [True]}, cv=2).fit(X, COUNTS)
PIPELINE = make_pipeline(StandardScaler(), model(vocabulary=WORDS)).fit(X, COUNTS)
SCORES = rng.normal(size=(N, V))


def scores(words: list[str]) -> pd.DataFrame:
    return pd.DataFrame(np.log(np.full((N, V), 0.25)), columns=words)


# What is asked of a model about counts whose columns are named.
QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "partial_fit": lambda Y: model().partial_fit(X, pd.DataFrame(columns(WORDS))).partial_fit(X, Y),
    "fit with a vocabulary": lambda Y: model(vocabulary=WORDS).fit(X, Y).word_counts_.tolist(),
    "path": lambda Y: regularization_path(X, COUNTS, [0.1], estimator=GIVEN, validation=(X, Y)).accuracy,
    "score": lambda Y: FITTED.score(X, Y),
    "score of a given vocabulary": lambda Y: GIVEN.score(X, Y),
    "score of a pipeline": lambda Y: PIPELINE.score(X, Y),
    "score of a search": lambda Y: SEARCH.score(X, Y),
    "kkt_residual": lambda Y: kkt_residual(FITTED, X, Y),
    "SpLiCE": lambda Y: SPLICE.score(X, Y),
    "keyword_accuracy_scorer": lambda Y: keyword_accuracy_scorer(FITTED, X, Y),
    "log_likelihood_scorer": lambda Y: log_likelihood_scorer(FITTED, X, Y),
    "scorer of a pipeline": lambda Y: keyword_accuracy_scorer(PIPELINE, X, Y),
    "scorer of a search": lambda Y: log_likelihood_scorer(SEARCH, X, Y),
    "word_recoverability": lambda Y: word_recoverability(
        FITTED, X, Y, n_bootstrap=10, random_state=0, verbose=0
    ).test_count.tolist(),
    "named scores": lambda Y: keyword_accuracy(Y, scores(WORDS)).value,
    "named scores of precision": lambda Y: precision_recall(Y, scores(WORDS), 2).recall.value,
    "named hit sets": lambda Y: hit_sets(Y, scores(WORDS)).toarray().tolist(),
    "named scores of two models": lambda Y: hit_jaccard(Y, scores(WORDS), scores(WORDS)).value,
    "named logarithms": lambda Y: perplexity(Y, scores(WORDS)).value,
}


@every_library
@pytest.mark.parametrize("question", QUESTIONS)
def test_columns_in_another_order_or_of_other_words_are_refused(library: str, question: str) -> None:
    QUESTIONS[question](LIBRARIES[library](columns(WORDS)))
    with pytest.raises(ValueError, match=r"column 0 of .*Y.* is 'red', and the word .* is 'dog'"):
        QUESTIONS[question](LIBRARIES[library](columns(WORDS[::-1])))
    with pytest.raises(ValueError, match=r"column 3 of .*Y.* is 'sea', and the word .* is 'red'"):
        QUESTIONS[question](LIBRARIES[library]({**columns(WORDS[:3]), "sea": COUNTS[:, 3]}))


@pytest.mark.parametrize("question", [name for name in QUESTIONS if not name.startswith("named")])
def test_columns_without_names_are_taken_by_position(question: str) -> None:
    assert str(QUESTIONS[question](pd.DataFrame(COUNTS))) == str(QUESTIONS[question](COUNTS))


def test_a_vocabulary_may_rename_columns() -> None:
    frame = pd.DataFrame(COUNTS, columns=["w_dog", "w_cat", "w_sky", "w_red"])
    fitted = model(vocabulary=WORDS).fit(X, frame)
    assert fitted.vocabulary_.tolist() == WORDS
    assert fitted.score(X, frame) == fitted.score(X, COUNTS)
    numbered = model().fit(X, COUNTS)
    assert numbered.score(X, frame) == numbered.score(X, COUNTS)


@pytest.mark.parametrize(
    "vocabulary",
    [[b"dog", "cat", "sky", "red"], [None, "cat", "sky", "red"], [1, 2, 3, 4], {b"a": 0, "b": 1}],
)
def test_words_that_are_not_str_are_refused(vocabulary: Any) -> None:
    Y = COUNTS[:, : len(vocabulary)]
    for estimator in (model(vocabulary=vocabulary), SpLiCEExtractor(np.eye(5)[: len(vocabulary)])):
        with pytest.raises(ValueError, match=r"column 0 .*(b'|None|1).*not a str; pass only str"):
            estimator.set_params(vocabulary=vocabulary).fit(X, Y)


@pytest.mark.parametrize("name", [b"dog", None, 1.5, ("a", "b")])
def test_column_names_that_are_not_str_are_refused(name: Any) -> None:
    frame = pd.DataFrame(COUNTS)
    frame.columns = pd.Index([name, "cat", "sky", "red"], dtype=object, tupleize_cols=False)
    for question in ("fit with a vocabulary", "score", "keyword_accuracy_scorer", "SpLiCE"):
        with pytest.raises(ValueError, match="has the column name"):
            QUESTIONS[question](frame)


def test_words_in_a_column_or_of_a_vectorizer() -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(vocabulary=WORDS).fit(["dog"])
    for vocabulary in (pd.Series(WORDS), pl.Series(WORDS), pa.array(WORDS), np.array(WORDS), vectorizer):
        assert model(vocabulary=vocabulary).fit(X, COUNTS).vocabulary_.tolist() == WORDS

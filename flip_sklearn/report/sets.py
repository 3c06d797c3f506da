"""Words that one of two sets of sentences has more often, as their embeddings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.diagnostics import SetComparison, compare_sets
from flip_sklearn.diagnostics.inputs import Sentences
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import number_groups
from flip_sklearn.report.wording import listed, number, points, quoted, size

# From this number of rows on, fit holds rows out by default.
_MIN_TRAINING_ROWS = 1000
_N_NAMED = 5


@dataclass(frozen=True, eq=False)
class ComparedSentences:
    """Two sets of test sentences, compared by the model of all views.

    Attributes
    ----------
    view : str
        The view whose embeddings are compared: the first one.
    names : tuple of two str
        The labels of the sets.
    words : SetComparison
        The result, with the sets in the order of ``names``.
    """

    view: str
    names: tuple[str, str]
    words: SetComparison


@dataclass(frozen=True)
class SetLabels:
    """The names of two sets, and whether each sentence is in the second one."""

    names: tuple[str, str]
    is_second: np.ndarray


def check_sets(sets: Any, sentences: Sentences, estimator: FLiPExtractor) -> SetLabels:
    """Check the labels of two sets of sentences, and that the model will have probabilities."""
    n = len(sentences.split.groups)
    try:
        names, labels = number_groups(sets, n)
    except ValueError as error:
        raise ValueError(f"sets: {error}") from error
    if len(names) != 2:
        raise ValueError(f"sets has {len(names)} different labels; compare two sets, with one label each.")
    for i, name in enumerate(names):
        n_groups = len(np.unique(sentences.test_groups[labels[sentences.split.test] == i]))
        if n_groups < 2:
            raise ValueError(
                f"sets has {n_groups} different test sentences with the label {name!r}; at least 2 are "
                "needed. Pass more sentences, or test=."
            )
    n_rows = len(sentences.split.train) * len(sentences.names)
    holds_out = estimator.early_stopping
    if holds_out == "auto":
        holds_out = n_rows >= _MIN_TRAINING_ROWS and estimator.solver != "lbfgs"
    if not holds_out:
        raise ValueError(
            f"sets needs a model that holds rows out, and with {n_rows} training rows this one does not; "
            f"pass estimator=FLiPExtractor(early_stopping=True), or {_MIN_TRAINING_ROWS} rows or more."
        )
    return SetLabels((str(names[0]), str(names[1])), labels == 1)


def compare_sentences(model: Any, sentences: Sentences, labels: SetLabels) -> ComparedSentences:
    """Compare the test sentences of both sets in the first view."""
    view = sentences.names[0]
    X, groups = sentences.test(view), sentences.test_groups
    is_second = labels.is_second[sentences.split.test]
    result = compare_sets(
        model, X[~is_second], X[is_second], groups_a=groups[~is_second], groups_b=groups[is_second]
    )
    return ComparedSentences(view, labels.names, result)


def set_texts(compared: ComparedSentences) -> list[tuple[str, bool]]:
    """The sentences of the report, and whether they belong to the summary."""
    result = compared.words
    first, second = map(quoted, compared.names)
    n_found, n_tested = int(result.discovered.sum()), number(result.tested.sum())
    if n_found == 0:
        return [(f"None of {n_tested} tested words differs between {first} and {second}.", True)]
    differ = "differs" if n_found == 1 else "differ"
    texts = [f"{number(n_found)} of {n_tested} tested words {differ} between {first} and {second}."]
    sides = zip((first, second), (second, first), result.order(_N_NAMED), strict=True)
    for name, other, columns in sides:
        if len(columns):
            words = listed(f"{quoted(result.words[j])} ({_gain(result, j)})" for j in columns)
            texts.append(f"By their embeddings, sentences of {name} have {words} more often than {other}.")
    return [(text, True) for text in texts]


def _gain(result: SetComparison, j: int) -> str:
    """The size of a difference, in brackets and with its interval only if that is on one side of 0."""
    low, high = result.difference.low[j], result.difference.high[j]
    return (
        size(result.difference, j, in_brackets=True) if low * high > 0 else points(result.difference.value[j])
    )

"""Example sentences of a report, with the words that a model extracts from their views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.estimation import scoring
from flip_sklearn.report.inputs import ReportInputs

# Sentences of this length are preferred: minimum and maximum number of words, maximum of characters.
_MIN_WORDS, _MAX_WORDS = 5, 16
_MAX_CHARACTERS = 240
# Number of words extracted without the bias.
_N_DISTINCTIVE = 8


@dataclass(frozen=True)
class Reading:
    """Words extracted from one view of a sentence.

    Attributes
    ----------
    view : str
        Name of the view.
    text : str or None
        The text that was embedded, if it differs from the sentence.
    words : tuple of (str, bool)
        The k best words, best first, and whether each is in the sentence; k is the number of the
        sentence's distinct words in the vocabulary.
    missed : tuple of str
        The words of the sentence that are not among ``words``.
    telling : tuple of (str, bool)
        The best words without the bias, and whether each is in the sentence.
    n_right : int
        Number of ``words`` that are in the sentence.
    """

    view: str
    text: str | None
    words: tuple[tuple[str, bool], ...]
    missed: tuple[str, ...]
    telling: tuple[tuple[str, bool], ...]

    @property
    def n_right(self) -> int:
        """Number of ``words`` that are in the sentence.

        Returns
        -------
        int
        """
        return sum(is_right for _, is_right in self.words)


@dataclass(frozen=True)
class Example:
    """A test sentence and the words extracted from each of its views.

    Attributes
    ----------
    row : int
        Row number of the sentence.
    text : str
        The sentence.
    readings : tuple of Reading
        One for each view.
    """

    row: int
    text: str
    readings: tuple[Reading, ...]


def draw_examples(model: Any, inputs: ReportInputs) -> tuple[Example, ...]:
    """Draw test sentences at random, with the words that the model extracts from each view."""
    rows = _draw_rows(inputs)
    if not len(rows):
        return ()
    texts = inputs.texts[inputs.first_language]
    counts = inputs.counts[inputs.first_language][rows]
    n_words = np.diff(counts.indptr)
    in_sentence = [set(words) for words in np.split(inputs.vocabulary[counts.indices], counts.indptr[1:-1])]
    readings: list[list[Reading]] = [[] for _ in rows]
    for view, X in inputs.sentences.views.items():
        embeddings = scoring.fitted_input(model, X[rows])
        likely = scoring.keywords(model, embeddings, int(n_words.max()), False, use_bias=True)
        distinctive = scoring.keywords(model, embeddings, _N_DISTINCTIVE, False, use_bias=False)
        view_texts = inputs.view_texts.get(view, texts)
        for i, row in enumerate(rows):
            words = likely[i][: n_words[i]]
            readings[i].append(
                Reading(
                    view=view,
                    text=None if view_texts[row] == texts[row] else view_texts[row],
                    words=tuple((word, word in in_sentence[i]) for word in words),
                    missed=tuple(sorted(in_sentence[i].difference(words))),
                    telling=tuple((word, word in in_sentence[i]) for word in distinctive[i]),
                )
            )
    return tuple(
        Example(int(row), texts[row], tuple(row_readings))
        for row, row_readings in zip(rows, readings, strict=True)
    )


def _draw_rows(inputs: ReportInputs) -> np.ndarray:
    """Rows of test sentences in random order, one per group, sentences of the preferred length first."""
    test, groups = inputs.sentences.split.test, inputs.sentences.split.groups
    texts = inputs.texts[inputs.first_language]
    order = np.random.default_rng(inputs.settings.random_state).permutation(test)
    order = order[np.sort(np.unique(groups[order], return_index=True)[1])]
    n_words = np.diff(inputs.counts[inputs.first_language].indptr)[order]
    n_characters = np.array([len(texts[i]) for i in order])
    is_preferred = (n_words >= _MIN_WORDS) & (n_words <= _MAX_WORDS) & (n_characters <= _MAX_CHARACTERS)
    preferred_first = np.argsort(~is_preferred, kind="stable")
    has_words = n_words[preferred_first] > 0
    return np.asarray(order[preferred_first][has_words][: inputs.n_examples])

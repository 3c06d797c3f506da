"""Example sentences: what a model reads off their views, word by word right or wrong."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.report.request import Request

# Sentences that can be taken in at a glance; all others are only shown when there are not enough.
_WORDS = (5, 16)
_CHARACTERS = 240
# Words shown without the bias.
_TELLING = 8


@dataclass(frozen=True)
class Reading:
    """What is read off one view of a sentence.

    Attributes
    ----------
    view : str
    text : str or None
        What the view was made of, where that is known to differ from the sentence.
    words : tuple of (str, bool)
        As many words as the sentence has of the vocabulary, best first, and whether each is in it.
    missed : tuple of str
        The sentence's other words.
    telling : tuple of (str, bool)
        The best words without the bias, and whether each is in the sentence.
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
        return sum(right for _, right in self.words)


@dataclass(frozen=True)
class Example:
    """A test sentence and what is read off each of its views.

    Attributes
    ----------
    row : int
        Its number among all sentences.
    text : str
    readings : tuple of Reading
        One for each view.
    """

    row: int
    text: str
    readings: tuple[Reading, ...]


def examples(model: Any, request: Request) -> tuple[Example, ...]:
    """Sentences drawn at random from the test part, as the model reads them."""
    rows = _draw(request)
    if not len(rows):
        return ()
    likely = copy.copy(model).set_params(use_bias=True, verbose=0)
    lift = copy.copy(model).set_params(use_bias=False, verbose=0)
    truth = request.words[rows]
    sizes = np.diff(truth.indptr)
    present = [
        set(words) for words in np.split(request.vocabulary[truth.indices], truth.indptr[1:-1])
    ]
    readings: list[list[Reading]] = [[] for _ in rows]
    for view, X in request.sentences.views.items():
        found = likely.extract_keywords(X[rows], top_k=int(sizes.max()))
        telling = lift.extract_keywords(X[rows], top_k=_TELLING)
        for i, row in enumerate(rows):
            words = found[i][: sizes[i]]
            made_of = request.view_texts.get(view, request.text)[row]
            readings[i].append(
                Reading(
                    view=view,
                    text=None if made_of == request.text[row] else made_of,
                    words=tuple((word, word in present[i]) for word in words),
                    missed=tuple(sorted(present[i].difference(words))),
                    telling=tuple((word, word in present[i]) for word in telling[i]),
                )
            )
    return tuple(
        Example(int(row), request.text[row], tuple(of_row))
        for row, of_row in zip(rows, readings, strict=True)
    )


def _draw(request: Request) -> np.ndarray:
    """Rows of test sentences, none twice, those of a readable length first."""
    test, groups = request.sentences.split.test, request.sentences.split.groups
    order = np.random.default_rng(request.seed).permutation(test)
    order = order[np.sort(np.unique(groups[order], return_index=True)[1])]
    n_words = np.diff(request.words.indptr)[order]
    n_characters = np.array([len(request.text[i]) for i in order])
    low, high = _WORDS
    readable = (n_words >= low) & (n_words <= high) & (n_characters <= _CHARACTERS)
    first = np.argsort(~readable, kind="stable")
    drawn: np.ndarray = order[first][n_words[first] > 0][: request.n_examples]
    return drawn

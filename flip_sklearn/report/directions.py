"""Directions of the embeddings in words: what a view adds and loses, and along what sentences differ most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.diagnostics.bootstrap import Interval, PairedBootstrap
from flip_sklearn.diagnostics.inputs import Sentences
from flip_sklearn.estimation.directions import DirectionWords
from flip_sklearn.report.inputs import ReportInputs
from flip_sklearn.report.wording import listed, percent, quoted

_N_WORDS, _N_AXES = 8, 3
# Words in a sentence of the report; they change in at least this share of the test sentences.
_N_NAMED, _NAMED_SHARE = 5, 2 / 3


@dataclass(frozen=True, eq=False)
class ViewChange:
    """The difference between the mean embeddings of a view and of the first view, in words.

    Attributes
    ----------
    view, reference : str
        The view, and the first view.
    words : DirectionWords
        (word, score) pairs that the difference raises and lowers, of the training sentences.
    agreement : Interval
        For each of these words, raised and then lowered: the share of the test sentences in which it is
        raised, or lowered, too. (k,)
    """

    view: str
    reference: str
    words: DirectionWords
    agreement: Interval

    @property
    def significant(self) -> np.ndarray:
        """Whether each word is raised, or lowered, in more than half of the test sentences.

        Returns
        -------
        ndarray of bool of shape (k,)
        """
        return np.asarray(self.agreement.low > 0.5)

    def named(self) -> tuple[list[str], list[str]]:
        """Return the words that are raised and lowered in two thirds of the test sentences, best first.

        With sixteen words in a table, one is often significant by chance, but hardly one in two thirds.

        Returns
        -------
        raised, lowered : list of str
        """
        is_clear = self.significant & (self.agreement.value >= _NAMED_SHARE)
        flags = np.split(is_clear, [len(self.words.raised)])
        raised, lowered = (
            [word for (word, _), is_named in zip(side, side_flags, strict=True) if is_named]
            for side, side_flags in zip(self.words, flags, strict=True)
        )
        return raised, lowered


@dataclass(frozen=True, eq=False)
class ViewDirections:
    """Directions of the embeddings, read by the model of all views.

    Attributes
    ----------
    changes : tuple of ViewChange
        One for each view but the first.
    axes : tuple of DirectionWords
        (word, score) pairs of the first principal axes of the first view, for one standard deviation.
    variance : ndarray of shape (number of axes,)
        Share of the variance of the first view along each axis.
    view : str
        The first view.
    """

    changes: tuple[ViewChange, ...]
    axes: tuple[DirectionWords, ...]
    variance: np.ndarray
    view: str


def read_view_directions(model: Any, inputs: ReportInputs) -> ViewDirections:
    """Read the differences of the views and the principal axes of the first one."""
    sentences = inputs.sentences
    first, *others = sentences.names
    changes = tuple(_change(model, inputs, view, first) for view in others)
    X = sentences.train(first).astype(np.float64)
    covariance = np.cov(X, rowvar=False).reshape(X.shape[1], X.shape[1])
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(-values, kind="stable")[:_N_AXES]
    order = order[values[order] > 0]
    # The signs of axes are arbitrary; fixing them gives the same page on every machine.
    axes = (vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))])).T[order]
    steps = np.sqrt(values[order])[:, None] * axes
    read = model.read_directions(steps, top_k=_N_WORDS, return_scores=True) if len(order) else []
    return ViewDirections(changes, tuple(read), values[order] / values.sum(), first)


def _change(model: Any, inputs: ReportInputs, view: str, reference: str) -> ViewChange:
    """Choose the words on the training sentences, and compare the test sentences."""
    sentences = inputs.sentences
    difference = sentences.train(view).mean(axis=0, dtype=np.float64)
    difference -= sentences.train(reference).mean(axis=0, dtype=np.float64)
    words = DirectionWords([], [])
    if difference.any():
        (words,) = model.read_directions(difference, top_k=_N_WORDS, return_scores=True)
    agreement = Interval(*np.zeros((3, 0)))
    if words != ([], []):
        moves = _moves_of(model, sentences, view, reference, words)
        bootstrap = PairedBootstrap(moves, sentences.test_groups, inputs.settings)
        agreement = bootstrap.means(np.arange(moves.shape[1]))
    return ViewChange(view, reference, words, agreement)


def _moves_of(
    model: Any, sentences: Sentences, view: str, reference: str, words: DirectionWords
) -> np.ndarray:
    """Whether each word changes in each test sentence as the difference of the means says; (n, k)."""
    column_of = {word: j for j, word in enumerate(model.vocabulary_)}
    A = model.word_embeddings_[[column_of[word] for side in words for word, _ in side]]
    delta = sentences.test(view).astype(np.float64) - sentences.test(reference)
    scores = (delta @ model.projection_.T.astype(np.float64)) @ A.T
    signs = np.repeat([1.0, -1.0], [len(side) for side in words])
    return np.asarray(scores * signs > 0, dtype=float)


def direction_texts(result: ViewDirections) -> list[tuple[str, bool]]:
    """Sentences about each view and the first axis, and whether they belong to the summary."""
    texts = []
    for change in result.changes:
        view, reference = quoted(change.view), quoted(change.reference)
        raised, lowered = (side[:_N_NAMED] for side in change.named())
        parts = [f"more of {_list(raised)}"] if raised else []
        parts += [f"less of {_list(lowered)}"] if lowered else []
        if parts:
            text = (
                f"Embedded as {view} instead of {reference}, at least two thirds of the sentences say "
                f"{' and '.join(parts)}."
            )
            texts.append((text, True))
        else:
            text = f"No word is more or less likely in {view} than in {reference} in most sentences."
            texts.append((text, False))
    if result.axes:
        raised, lowered = ([word for word, _ in side[:_N_NAMED]] for side in result.axes[0])
        if raised and lowered:
            text = (
                f"The largest difference among the embeddings of {quoted(result.view)}, with "
                f"{percent(result.variance[0])} of their variance, is between sentences of {_list(raised)} "
                f"and sentences of {_list(lowered)}."
            )
            texts.append((text, False))
    return texts


def _list(words: list[str]) -> str:
    return listed(map(quoted, words))

"""Result of `selectivity`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.diagnostics.bootstrap import Difference, Interval
from flip_sklearn.diagnostics.frames import grid, interval_columns
from flip_sklearn.estimation.frames import data_frame

# Label of all words together in tables, and the two ways of scoring.
ALL = "all"
BIAS = (True, False)


@dataclass(frozen=True, eq=False)
class Selectivity:
    """Result of :func:`selectivity`.

    Arrays are (with bias, without), view, band; the last band is all words together. Views without an
    encoder have nan after deletion. What was not computed is None.

    Attributes
    ----------
    views : tuple of str
        Names of the v views.
    bands : tuple
        Labels of the b bands of words that occur, in order.
    occurrences : ndarray of int of shape (b + 1,)
        Number of words whose recall is measured, at most one of a kind a sentence.
    recall : Interval of shape (2, v, b + 1)
        Recall with the word in the sentence.
    recall_deleted : Interval of shape (2, v, b + 1) or None
        Recall after the word was deleted from the sentence.
    held : Difference of shape (2, v, b + 1) or None
        ``recall`` minus ``recall_deleted``: what the vector holds of the words.
    guessed : Interval of shape (2, v, b + 1) or None
        Share of the words found that are found after their deletion, too.
    pair_accuracy : Interval of shape (v, b + 1) or None
        Share of minimal pairs whose difference of scores has the right sign; 0.5 is chance.
    pairs : ndarray of int of shape (b + 1,) or None
        Number of minimal pairs.
    recall_context : Interval of shape (2, v, b + 1) or None
        Recall by the model that sees the other words of the sentence only.
    context_difference : Difference of shape (2, v, b + 1) or None
        ``recall`` minus ``recall_context``.
    recall_control : Interval of shape (2, v, b + 1) or None
        Recall of random labels of the words by the model of the control task.
    control_difference : Difference of shape (2, v, b + 1) or None
        ``recall`` minus ``recall_control``, the selectivity of Hewitt and Liang (2019).
    words, train_count, band : ndarray of shape (V,)
        The vocabulary, its counts in training, and the label of each word, None for no label.
    word_occurrences : ndarray of int of shape (V,)
        ``occurrences`` of each word.
    word_hits, word_hits_deleted : ndarray of int of shape (2, v, V)
        Occurrences that are found with the word in the sentence, and after its deletion (0 for views
        without an encoder; None without any).
    rows : ndarray of int
        Row numbers of the sentences that were used.
    n_sentences, n_skipped : int
        Number of sentences that were passed, and of those without a labelled word, which are left out.
    n_not_deleted : int
        Number of words that are left out since they cannot be deleted: no word is left, or the tokens of
        the text cannot be found in it.
    confidence : float
        Level of all intervals.
    """

    views: tuple[str, ...]
    bands: tuple[Any, ...]
    occurrences: np.ndarray
    recall: Interval
    recall_deleted: Interval | None
    held: Difference | None
    guessed: Interval | None
    pair_accuracy: Interval | None
    pairs: np.ndarray | None
    recall_context: Interval | None
    context_difference: Difference | None
    recall_control: Interval | None
    control_difference: Difference | None
    words: np.ndarray
    train_count: np.ndarray
    band: np.ndarray
    word_occurrences: np.ndarray
    word_hits: np.ndarray
    word_hits_deleted: np.ndarray | None
    rows: np.ndarray
    n_sentences: int
    n_skipped: int
    n_not_deleted: int
    confidence: float

    def to_frame(self) -> Any:
        """One row for each way of scoring, view and band; the last band is ``"all"``.

        Returns
        -------
        pandas.DataFrame
            Columns ``bias`` (bool), ``view``, ``band``, ``occurrences``, and each array that was computed
            with the ends of its interval, such as ``held``, ``held_low`` and ``held_high``. Minimal pairs
            do not depend on the bias.
        """
        table = grid(bias=BIAS, view=self.views, band=(*self.bands, ALL))
        shape = self.recall.value.shape
        table["occurrences"] = np.broadcast_to(self.occurrences, shape).ravel()
        for name in ("recall", "recall_deleted", "held", "guessed", "recall_context", "context_difference"):
            table |= _columns(name, getattr(self, name))
        for name in ("recall_control", "control_difference"):
            table |= _columns(name, getattr(self, name))
        if self.pair_accuracy is not None and self.pairs is not None:
            table["pairs"] = np.broadcast_to(self.pairs, shape).ravel()
            for name, column in _columns("pair_accuracy", self.pair_accuracy).items():
                table[name] = np.tile(column, len(BIAS))
        return data_frame(table)

    def words_to_frame(self) -> Any:
        """One row for each way of scoring, view and word that occurs.

        Returns
        -------
        pandas.DataFrame
            Columns ``bias``, ``view``, ``word``, ``band``, ``train_count``, ``occurrences``, ``hits`` and
            ``hits_deleted``.
        """
        columns = np.flatnonzero(self.word_occurrences)
        table = grid(bias=BIAS, view=self.views, word=self.words[columns])
        n_repeats = len(BIAS) * len(self.views)
        for name in ("band", "train_count"):
            table[name] = np.tile(getattr(self, name)[columns], n_repeats)
        table["occurrences"] = np.tile(self.word_occurrences[columns], n_repeats)
        table["hits"] = self.word_hits[..., columns].ravel()
        if self.word_hits_deleted is not None:
            table["hits_deleted"] = self.word_hits_deleted[..., columns].ravel()
        return data_frame(table)

    def __repr__(self) -> str:
        controls = {
            "after deletion": self.recall_deleted,
            "from context": self.recall_context,
            "control task": self.recall_control,
        }
        parts = []
        for i, bias in enumerate(("with bias", "without")):
            for v, view in enumerate(self.views):
                name = f"{bias}, {view}" if len(self.views) > 1 else bias
                values = [f"recall {self.recall.value[i, v, -1]:.3f}"]
                values += [
                    f"{control} {interval.value[i, v, -1]:.3f}"
                    for control, interval in controls.items()
                    if interval is not None
                ]
                parts.append(f"{name}: {', '.join(values)}")
        return f"Selectivity({'; '.join(parts)})"


def _columns(name: str, interval: Interval | None) -> dict[str, np.ndarray]:
    return {} if interval is None else interval_columns(name, interval, f"{name}_")

"""The result of edit_words: embeddings with other words, and what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.diagnostics.frames import grid
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.parameters import check_integer

_N_REPR = 5


@dataclass(frozen=True, eq=False)
class EditedWords:
    """Result of :func:`edit_words`, for n embeddings and m added and removed words.

    Models without ``presence_`` attributes give presences of nan, and no moved words.

    Attributes
    ----------
    X : ndarray of shape (n, d)
        The edited embeddings; rows that need no change are unchanged, bit for bit.
    added, removed : tuple of str
        The words, each once.
    presence_before, presence_after : ndarray of shape (n, m)
        Probability that the word occurs, for the added words and then the removed ones.
    score_before, score_after : ndarray of shape (n, m)
        Lift of the word, its score without bias, in nats; after the edit at most 0 for removed words, up to
        rounding.
    moved_words : ndarray of shape (n, k) of str
        The other words whose probability changed most, the largest change first; k is 10, or fewer.
    moved_before, moved_after : ndarray of shape (n, k)
        Their probabilities.
    distance : ndarray of shape (n,)
        Euclidean distance between a row before and after.
    whitened_distance : ndarray of shape (n,)
        The distance in standard deviations of the training embeddings; nan if the model has no
        ``embedding_covariance_``.
    cosine : ndarray of shape (n,)
        Cosine between a row before and after; nan for zero vectors.
    """

    X: np.ndarray
    added: tuple[str, ...]
    removed: tuple[str, ...]
    presence_before: np.ndarray
    presence_after: np.ndarray
    score_before: np.ndarray
    score_after: np.ndarray
    moved_words: np.ndarray
    moved_before: np.ndarray
    moved_after: np.ndarray
    distance: np.ndarray
    whitened_distance: np.ndarray
    cosine: np.ndarray

    def to_frame(self) -> Any:
        """One row for each embedding and word: the edited words, then the other words that moved.

        Returns
        -------
        pandas.DataFrame
            Columns ``row``, ``word``, ``edit`` ("add", "remove" or "none"), ``presence_before``,
            ``presence_after``, ``score_before`` and ``score_after`` (nan for other words), and the
            ``distance``, ``whitened_distance`` and ``cosine`` of the embedding.
        """
        n, k = self.moved_words.shape
        edited = grid(row=range(n), word=(*self.added, *self.removed))
        edits = ["add"] * len(self.added) + ["remove"] * len(self.removed)
        empty = np.full(n * k, np.nan)
        columns: dict[str, Any] = {
            "row": np.append(edited["row"], np.repeat(np.arange(n), k)),
            "word": np.append(edited["word"], self.moved_words.ravel()),
            "edit": np.append(
                np.tile(np.array(edits, dtype=object), n), np.full(n * k, "none", dtype=object)
            ),
            "presence_before": np.append(self.presence_before, self.moved_before),
            "presence_after": np.append(self.presence_after, self.moved_after),
            "score_before": np.append(self.score_before, empty),
            "score_after": np.append(self.score_after, empty),
        }
        for name in ("distance", "whitened_distance", "cosine"):
            columns[name] = getattr(self, name)[columns["row"]]
        order = np.argsort(columns["row"], kind="stable")
        return data_frame({name: values[order] for name, values in columns.items()})

    def mean_change(self, top_k: int = 10) -> list[tuple[str, float]]:
        """Return the other words whose probability changed most, as a mean over all rows.

        Only the words in ``moved_words`` of a row count as changed in it.

        Parameters
        ----------
        top_k : int, default=10
            Maximum number of words, >= 1.

        Returns
        -------
        list of (str, float)
            Words and the mean change of their probability, by absolute value, the largest first.
        """
        top_k = check_integer("top_k", top_k, 1)
        words, place = np.unique(self.moved_words.astype(str), return_inverse=True)
        change = np.bincount(
            place.ravel(), (self.moved_after - self.moved_before).ravel(), minlength=len(words)
        ) / max(len(self.X), 1)
        order = np.argsort(-np.abs(change), kind="stable")[:top_k]
        order = order[change[order] != 0]
        return list(zip(words[order].tolist(), change[order].tolist(), strict=True))

    def __repr__(self) -> str:
        parts = [f"{int((self.distance > 0).sum())} of {len(self.X)} embeddings moved"]
        for j, word in enumerate((*self.added, *self.removed)):
            sign = "+" if j < len(self.added) else "-"
            before, after = (p[:, j].mean() for p in (self.presence_before, self.presence_after))
            parts.append(f"{sign}{word} {before:.2f} -> {after:.2f}")
        moved = ", ".join(f"{word} {change:+.2f}" for word, change in self.mean_change(_N_REPR))
        if moved:
            parts.append(f"others: {moved}")
        return f"EditedWords({'; '.join(parts)})"

"""What the diagnoses share: the checked inputs, one fit, and what a model finds in a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import has_fit_parameter

from flip_sklearn.diagnostics.split import SentenceSplit, split_sentences
from flip_sklearn.estimation.validation import check_counts
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics import ranking as ranked
from flip_sklearn.views import check_views, stack_views

# Scores of an extractor that can only give all of them, in one go: 2**24 float64 are 128 MiB.
_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Sentences:
    """Checked views with their split."""

    views: dict[str, np.ndarray]
    split: SentenceSplit

    @property
    def names(self) -> tuple[str, ...]:
        """The views, in their order."""
        return tuple(self.views)

    def test(self, view: str) -> np.ndarray:
        """The test sentences of a view."""
        rows: np.ndarray = self.views[view][self.split.test]
        return rows

    def train(self, view: str) -> np.ndarray:
        """The training sentences of a view."""
        rows: np.ndarray = self.views[view][self.split.train]
        return rows


def as_seed(random_state: Any) -> int:
    """An int that stands for ``random_state`` wherever randomness is needed more than once."""
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def check_sentences(views: Any, split: Any, seed: int, at_least: int = 1) -> Sentences:
    """Views, named or a single one, and the split of their sentences: the given one or a new one."""
    arrays = check_views(views if isinstance(views, Mapping) else {"embeddings": views})
    if len(arrays) < at_least:
        raise ValueError(
            f"views has {len(arrays)} view ({', '.join(map(repr, arrays))}); pass at least {at_least}, "
            "row-aligned, to compare them."
        )
    for name, X in arrays.items():
        bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
        if len(bad):
            raise ValueError(
                f"view {name!r} has NaN or infinite values in {len(bad)} rows, the first is {bad[0]}; "
                "leave these sentences out of every view."
            )
    n = len(next(iter(arrays.values())))
    if split is None:
        split = split_sentences(arrays, random_state=seed)
    if not isinstance(split, SentenceSplit):
        raise ValueError(
            f"split is a {type(split).__name__}; pass what split_sentences gives, or None."
        )
    if len(split.groups) != n:
        raise ValueError(f"split is of {len(split.groups)} sentences; the views have {n}.")
    return Sentences(arrays, split)


def check_targets(Y: Any, sentences: Sentences, what: str = "Y") -> sp.csr_array:
    """Counts of every sentence's words, with words on both sides of the split."""
    if Y is None:
        raise ValueError(f"{what} is None; pass the (n, V) counts of the sentences' words.")
    n = len(sentences.split.groups)
    n_rows = Y.shape[0] if hasattr(Y, "shape") and len(Y.shape) else len(Y)
    if n_rows != n:
        raise ValueError(f"{what} has {n_rows} rows, the views have {n}; they must be row-aligned.")
    counts, _ = check_counts(Y, n)
    for part, rows in (("training", sentences.split.train), ("test", sentences.split.test)):
        if counts.shape[1] == 0 or counts[rows].nnz == 0:
            raise ValueError(
                f"{what} has no word in any of the {len(rows)} {part} sentences ({counts.shape[1]} "
                "columns); count words with a vocabulary of this language."
            )
    return counts


def check_estimator(estimator: Any, seed: int) -> Any:
    """The estimator that every fit is a clone of, seeded so that all start alike."""
    model = FLiPExtractor() if estimator is None else estimator
    if not hasattr(model, "fit") or not hasattr(model, "get_params"):
        raise ValueError(
            f"estimator is {model!r}; pass an estimator with fit, such as FLiPExtractor()."
        )
    model = clone(model)
    if model.get_params(deep=False).get("random_state", 0) is None:
        model.set_params(random_state=seed)
    return model


def fit_on(model: Any, sentences: Sentences, views: tuple[str, ...], Y: sp.csr_array) -> Any:
    """A clone of the model fitted to the training sentences of one view, or of several at once."""
    counts = sp.csr_array(Y[sentences.split.train])
    if len(views) == 1:
        return clone(model).fit(sentences.train(views[0]), counts)
    groups = sentences.split.groups[sentences.split.train]
    stacked = stack_views({view: sentences.train(view) for view in views}, counts, groups=groups)
    # Early stopping must not judge by sentences that are trained on in another view.
    given = {"sample_weight": stacked.sample_weight, "groups": stacked.groups}
    taken = {name: given[name] for name in given if has_fit_parameter(model, name)}
    return clone(model).fit(stacked.X, stacked.Y, **taken)


def best_words(model: Any, X: np.ndarray, k: int) -> np.ndarray:
    """The k best words of each row as int64 (n, k), best first; -1 where a model gives fewer."""
    if hasattr(model, "_top_words"):
        found = model._top_words(X, k)
    else:
        score = getattr(model, "decision_function", None) or model.predict_proba
        parts, step, first = [], 1, 0  # the first row tells how many words there are
        while first < len(X):
            scores = np.asarray(score(X[first : first + step]))
            n_words = scores.shape[1]
            parts.append(ranked.top_indices(scores, scores.shape, min(k, n_words)))
            first, step = first + step, max(1, _BLOCK_ELEMENTS // n_words)
        found = np.concatenate(parts)
    if found.shape[1] < k:
        padding = np.full((len(found), k - found.shape[1]), -1, dtype=np.int64)
        found = np.concatenate([found, padding], axis=1)
    return np.asarray(found)


def find_words(model: Any, X: np.ndarray, truth: sp.csr_array) -> sp.csr_array:
    """Hit sets: the words of each row that are among its k_n best, as a bool csr_array (n, V)."""
    widest = int(np.diff(truth.indptr).max(initial=0))
    return ranked.hits(truth, best_words(model, X, widest))


def most_frequent(counts: sp.csr_array, truth: sp.csr_array) -> sp.csr_array:
    """Hit sets of guessing the words that are most frequent in ``counts``, for every row alike."""
    widest = int(np.diff(truth.indptr).max(initial=0))
    order = np.argsort(-counts.sum(axis=0), kind="stable")[:widest]
    return ranked.hits(truth, np.tile(order, (truth.shape[0], 1)))


def row_accuracy(hits: sp.csr_array, truth: sp.csr_array) -> np.ndarray:
    """Keyword accuracy of each row; nan for rows without words."""
    k = np.diff(truth.indptr)
    return np.where(k > 0, np.diff(hits.indptr) / np.maximum(k, 1), np.nan)


def row_jaccard(first: sp.csr_array, second: sp.csr_array) -> np.ndarray:
    """Jaccard index of two hit sets, row by row; nan where both are empty."""
    both = np.asarray(first.multiply(second).sum(axis=1), dtype=float).ravel()
    either = np.diff(first.indptr) + np.diff(second.indptr) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)

"""Fits on the training sentences, and which words of the test sentences they find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import has_fit_parameter

from flip_sklearn.diagnostics.inputs import Sentences
from flip_sklearn.estimation.validation import resolve_rank
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import show_progress
from flip_sklearn.metrics import ranking
from flip_sklearn.splice import SpLiCEExtractor
from flip_sklearn.views import stack_views


class FittedModels:
    """Fits of estimators to the training sentences.

    ``shared`` are estimators that several diagnoses fit. Their fits are kept and returned again for an equal
    estimator, the same views and the same counts; other fits are not kept, since each takes the memory of a
    model.
    """

    def __init__(self, sentences: Sentences, shared: Sequence[Any] = ()) -> None:
        self.sentences = sentences
        self._shared = tuple(shared)
        self._kept: list[tuple[Any, tuple[str, ...], sp.csr_array, Any]] = []

    def fit(self, estimator: Any, views: tuple[str, ...], counts: sp.csr_array) -> Any:
        """A clone of the estimator fitted to the training sentences of one or several views."""
        is_shared = any(self._are_equal(estimator, other) for other in self._shared)
        for other, other_views, other_counts, fitted in self._kept:
            is_same = other_views == views and other_counts is counts
            if is_shared and is_same and self._are_equal(estimator, other):
                return fitted
        fitted = _fit_on_views(estimator, self.sentences, views, counts)
        if is_shared:
            self._kept.append((estimator, views, counts, fitted))
        return fitted

    def _are_equal(self, first: Any, second: Any) -> bool:
        """Whether two estimators have the same class and parameters; rank="auto" equals its value."""
        if type(first) is not type(second):
            return False
        parameters, others = first.get_params(deep=False), second.get_params(deep=False)
        if isinstance(first, FLiPExtractor):
            for values in (parameters, others):
                values["rank"] = resolve_rank(values["rank"], self.sentences.n_dimensions)
        return all(_is_equal(value, others[name]) for name, value in parameters.items())


def _is_equal(first: Any, second: Any) -> bool:
    """Whether two parameters are equal; objects that may change are equal only if they are the same."""
    if first is second:
        return True
    comparable = isinstance(first, (bool, int, float, str, list, tuple, PurePath))
    return type(first) is type(second) and comparable and bool(first == second)


def _fit_on_views(estimator: Any, sentences: Sentences, views: tuple[str, ...], counts: sp.csr_array) -> Any:
    """Fit a clone of the estimator to the training sentences of one view, or of several, stacked."""
    train_counts = sp.csr_array(counts[sentences.split.train])
    model = clone(estimator)
    if isinstance(model, FLiPExtractor | SpLiCEExtractor) and model.vocabulary is None:
        # No result has names of words, and fit would warn that there are none.
        model.set_params(vocabulary=[str(column) for column in range(counts.shape[1])])
    if len(views) == 1:
        return model.fit(sentences.train(views[0]), train_counts)
    groups = sentences.split.groups[sentences.split.train]
    train_views = {view: sentences.train(view) for view in views}
    stacked = stack_views(train_views, train_counts, groups=groups)
    # With groups, early stopping holds out all views of a sentence, so that none of them is trained on.
    fit_parameters = {"sample_weight": stacked.sample_weight, "groups": stacked.groups}
    accepted = {name: value for name, value in fit_parameters.items() if has_fit_parameter(estimator, name)}
    return model.fit(stacked.X, stacked.Y, **accepted)


def find_words(model: Any, X: np.ndarray, truth: sp.csr_array) -> sp.csr_array:
    """The words of each row that are among its k_n best words, k_n being the number of its words."""

    def top_of(rows: slice, n_top: int) -> np.ndarray:
        n_rows = rows.stop - rows.start
        block = X if n_rows == truth.shape[0] else _safe_indexing(X, rows)
        if isinstance(model, FLiPExtractor):
            return np.asarray(model._top_words(block, n_top))
        shape = n_rows, truth.shape[1]
        if isinstance(model, SpLiCEExtractor):  # words of weight zero are not extracted
            return ranking.top_indices(sp.csr_array(model.transform(block)), shape, n_top)
        top = [
            ranking.top_indices(scores, scores.shape, n_top)
            for _, scores in ranking.score_blocks(model, block, truth.shape[1])
        ]
        return np.concatenate(top)

    return ranking.stream_hits(truth, top_of)


def find_most_frequent(counts: sp.csr_array, truth: sp.csr_array) -> sp.csr_array:
    """Hits of the baseline, which extracts the most frequent words of ``counts`` from every row."""
    order = np.argsort(-counts.sum(axis=0), kind="stable")

    def top_of(rows: slice, n_top: int) -> np.ndarray:
        return np.broadcast_to(order[:n_top], (rows.stop - rows.start, n_top))

    return ranking.stream_hits(truth, top_of)


def row_accuracy(hits: sp.csr_array, truth: sp.csr_array) -> np.ndarray:
    """Keyword accuracy of each row; nan for rows without words."""
    k = np.diff(truth.indptr)
    return np.where(k > 0, np.diff(hits.indptr) / np.maximum(k, 1), np.nan)


def joint_accuracy(
    fits: Sequence[tuple[str, FittedModels, Any, sp.csr_array]], description: str, verbose: int
) -> list[np.ndarray]:
    """Keyword accuracy of each test sentence, fit by fit and view by view.

    Each fit is a name for the progress bar, models, an estimator that is trained on all views, and counts.
    """
    per_row = []
    bar = show_progress(fits, desc=description, unit="fit", disable=not verbose)
    for name, models, estimator, counts in bar:
        bar.set_postfix_str(name)
        sentences = models.sentences
        fitted = models.fit(estimator, sentences.names, counts)
        truth = counts[sentences.split.test]
        for view in sentences.names:
            per_row.append(row_accuracy(find_words(fitted, sentences.test(view), truth), truth))
    return per_row


def baseline_accuracy(sentences: Sentences, counts: sp.csr_array) -> np.ndarray:
    """Keyword accuracy of the baseline on each test sentence."""
    truth = counts[sentences.split.test]
    return row_accuracy(find_most_frequent(counts[sentences.split.train], truth), truth)

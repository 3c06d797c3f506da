"""Rows to train on and rows held out for early stopping, as datasets of the solver."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.estimation.inputs import FitData

MAX_VALIDATION_ROWS = 10_000


def draw_validation_rows(data: FitData, fraction: float, seed: int) -> np.ndarray:
    """A part of the rows with words, drawn at random and sorted; whole groups if there are groups.

    ``fraction`` of the rows with words, at most 10,000, at most all but one. Of groups as many are drawn as
    have no more rows than that, at least one.
    """
    random = np.random.RandomState(seed)
    rows = np.flatnonzero(data.has_words)
    size = min(math.ceil(fraction * len(rows)), MAX_VALIDATION_ROWS, len(rows) - 1)
    if data.groups is None:
        return np.sort(random.permutation(rows)[:size])
    labels, label_counts = np.unique(data.groups[rows], return_counts=True)
    order = random.permutation(len(labels))
    rows_of_first_groups = np.cumsum(label_counts[order])
    n_groups = max(1, int(np.searchsorted(rows_of_first_groups, size, side="right")))
    return np.flatnonzero(np.isin(data.groups, labels[order[:n_groups]]))


def make_datasets(
    data: FitData, trained_words: np.ndarray, group: ProcessGroup, validation_rows: np.ndarray | None = None
) -> tuple[CountDataset, CountDataset | None]:
    """Training and held-out rows; the columns of their counts are ``trained_words``.

    Rows of zero weight belong to neither.
    """
    counts = _select_words(_drop_weightless(data), trained_words)
    in_training = data.weights > 0
    if validation_rows is None:
        rows = None if in_training.all() else np.flatnonzero(in_training)
        return _make_dataset(data, counts, rows, group), None
    in_training[validation_rows] = False
    train = _make_dataset(data, counts, np.flatnonzero(in_training), group)
    return train, _make_dataset(data, counts, validation_rows, group)


def _drop_weightless(data: FitData) -> sp.csr_array:
    """The counts without those of rows of zero weight, whose words may occur in no other row."""
    counts = data.counts
    weightless = np.repeat(data.weights == 0, np.diff(counts.indptr))
    if weightless.any():
        counts = counts.copy()
        counts.data[weightless] = 0
        counts.eliminate_zeros()
    return counts


def _select_words(counts: sp.csr_array, words: np.ndarray) -> sp.csr_array:
    """Some columns of counts; all other columns are empty."""
    if len(words) == counts.shape[1]:
        return counts
    column = np.full(counts.shape[1], -1, dtype=counts.indices.dtype)
    column[words] = np.arange(len(words))
    return sp.csr_array(
        (counts.data, column[counts.indices], counts.indptr), shape=(counts.shape[0], len(words))
    )


def _make_dataset(
    data: FitData, counts: sp.csr_array, rows: np.ndarray | None, group: ProcessGroup
) -> CountDataset:
    """A dataset of some rows, all when None; X itself is not copied."""
    weights = data.weights
    if rows is not None:
        counts, weights = counts[rows], weights[rows]
    return CountDataset(data.X, counts, weights, rows=rows, group=group)

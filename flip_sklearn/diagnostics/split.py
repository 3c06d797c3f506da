"""One split of the sentences for every view, with nothing of a test sentence in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from sklearn.utils import check_random_state

from flip_sklearn.parameters import check_number
from flip_sklearn.views import check_views


@dataclass(frozen=True)
class SentenceSplit:
    """Training and test sentences, the same for all views.

    Attributes
    ----------
    train, test : ndarray of int
        Row numbers, ascending. No group has rows in both.
    groups : ndarray of shape (n,)
        Number of the group that each sentence belongs to.
    n_dropped : int
        Sentences in neither part: those that a given test set shares a group with.

    Raises
    ------
    ValueError
        If a part is empty, or a group has rows in both: a split that leaks cannot be made.
    """

    train: np.ndarray
    test: np.ndarray
    groups: np.ndarray
    n_dropped: int = 0

    def __post_init__(self) -> None:
        if len(self.train) == 0 or len(self.test) == 0:
            raise ValueError(
                f"the split has {len(self.train)} training and {len(self.test)} test sentences; both "
                "need some. Pass more sentences, another test_size, or groups that are smaller."
            )
        shared = np.intersect1d(self.groups[self.train], self.groups[self.test])
        if len(shared):
            raise ValueError(
                f"group {shared[0]} has sentences both in training and in test; split with "
                "split_sentences, which keeps groups whole."
            )


def split_sentences(
    views: Mapping[str, Any] | Any,
    *,
    groups: Any = None,
    test: Any = None,
    test_size: float = 0.2,
    random_state: Any = None,
) -> SentenceSplit:
    """Split sentences into training and test, whole groups at a time.

    Two sentences are in one group if the caller says so or if their embeddings are equal, bit for bit,
    in any view (the same caption twice, say), and so are all that are linked in this way. A split of
    the groups is a split of the sentences in every view, so nothing of a test sentence is trained on.

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned embeddings: row i of every view is sentence i.
    groups : array-like of shape (n,), default=None
        Labels of what belongs together: speaker, document, source sentence.
    test : array-like of bool of shape (n,) or of int, default=None
        Test sentences where they are given, as a mask or as row numbers. Training sentences that share
        a group with one of them are left out of both parts (``n_dropped``).
    test_size : float, default=0.2
        Share of the groups to test on otherwise, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the draw.

    Returns
    -------
    SentenceSplit
        Row numbers of both parts, the groups, and how many sentences were left out.

    Raises
    ------
    ValueError
        If views are not aligned, or the arguments give no split.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import split_sentences
    >>> X = np.arange(20.0).reshape(10, 2)
    >>> X[7] = X[2]  # the same sentence twice
    >>> split = split_sentences({"text": X}, test=[7, 9])
    >>> split.train.tolist(), split.test.tolist(), split.n_dropped
    ([0, 1, 3, 4, 5, 6, 8], [7, 9], 1)
    """
    arrays = check_views(views if isinstance(views, Mapping) else {"embeddings": views})
    n = len(next(iter(arrays.values())))
    group = _merge([_labels(groups, n), *map(_equal_rows, arrays.values())], n)
    if test is not None:
        rows = _test_rows(test, n)
        linked = np.isin(group, group[rows])
        return SentenceSplit(np.flatnonzero(~linked), rows, group, int(linked.sum()) - len(rows))
    test_size = check_number("test_size", test_size, 0, 1, open_low=True, open_high=True)
    n_groups = int(group.max(initial=-1)) + 1
    drawn = check_random_state(random_state).permutation(n_groups)
    in_test = np.isin(group, drawn[: round(test_size * n_groups)])
    return SentenceSplit(np.flatnonzero(~in_test), np.flatnonzero(in_test), group)


def _labels(groups: Any, n: int) -> np.ndarray:
    """The caller's groups as numbers."""
    if groups is None:
        return np.arange(n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups has shape {labels.shape}; pass one group per sentence, ({n},).")
    return np.asarray(np.unique(labels, return_inverse=True)[1])


def _equal_rows(X: np.ndarray) -> np.ndarray:
    """Numbers that are the same for rows that are the same, bit for bit."""
    rows = np.ascontiguousarray(X)
    if rows.size == 0:
        return np.arange(len(rows))
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.asarray(np.unique(keys, return_inverse=True)[1]).ravel()


def _merge(labelings: list[np.ndarray], n: int) -> np.ndarray:
    """The finest grouping that each of the given ones refines: sentences linked by any label."""
    first = []
    for labels in labelings:
        # Each row is linked to the first one of its label.
        _, start, inverse = np.unique(labels, return_index=True, return_inverse=True)
        first.append(start[inverse])
    rows = np.tile(np.arange(n), len(labelings))
    links = sp.coo_array((np.ones(len(rows), dtype=bool), (rows, np.concatenate(first))), (n, n))
    return np.asarray(connected_components(links, directed=False)[1])


def _test_rows(test: Any, n: int) -> np.ndarray:
    given = np.asarray(test)
    if given.dtype == bool and given.shape == (n,):
        return np.flatnonzero(given)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise ValueError(
            f"test has shape {given.shape} and type {given.dtype}; pass a mask ({n},) or row numbers."
        )
    rows = np.unique(given)
    if len(rows) and (rows[0] < 0 or rows[-1] >= n):
        raise ValueError(f"test names rows {rows[0]} to {rows[-1]}; there are {n} sentences.")
    return rows

"""Split of sentences into training and test, the same for all views and without leakage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import check_number, check_random_state, number_groups
from flip_sklearn.views import check_views


@dataclass(frozen=True)
class SentenceSplit:
    """Training and test sentences, the same for all views.

    Attributes
    ----------
    train, test : ndarray of int
        Row numbers, ascending. No group has rows in both.
    groups : ndarray of shape (n,)
        Group number of each sentence.
    n_dropped : int
        Number of sentences in neither part: those that share a group with a sentence of a given test set.

    Raises
    ------
    ValueError
        If a part is empty, or a group has rows in both parts.
    """

    train: np.ndarray
    test: np.ndarray
    groups: np.ndarray
    n_dropped: int = 0

    def __post_init__(self) -> None:
        if len(self.train) == 0 or len(self.test) == 0:
            raise ValueError(
                f"the split has {len(self.train)} training and {len(self.test)} test sentences; both parts "
                "need at least one. Pass more sentences, another test_size, or smaller groups."
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
    """Split groups of sentences into training and test.

    Two sentences are in one group if they have the same label in ``groups``, or if their embeddings are
    equal, bit for bit, in any view (a repeated caption, for example); groups with a common sentence are
    merged. The split is the same for all views, so no view of a test sentence is in the training part.

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned embeddings: row i of every view is sentence i.
    groups : array-like of shape (n,), default=None
        Group labels, such as speaker, document or source sentence.
    test : array-like of bool of shape (n,) or of int, default=None
        Test sentences as a mask or as row numbers. Other sentences that share a group with one of them
        are left out of both parts (``n_dropped``).
    test_size : float, default=0.2
        Share of the groups in the test part if ``test`` is None, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the draw.

    Returns
    -------
    SentenceSplit
        Row numbers of both parts, the groups, and the number of sentences that are left out.

    Raises
    ------
    ValueError
        If views are not aligned, or no split is possible with these arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import split_sentences
    >>> X = np.arange(20.0).reshape(10, 2)
    >>> X[7] = X[2]  # a repeated sentence
    >>> split = split_sentences({"text": X}, test=[7, 9])
    >>> split.train.tolist(), split.test.tolist(), split.n_dropped
    ([0, 1, 3, 4, 5, 6, 8], [7, 9], 1)
    """
    arrays = check_views(named_views(views))
    n = len(next(iter(arrays.values())))
    group = group_sentences(groups, arrays.values(), n)
    if test is not None:
        rows = _check_test_rows(test, n)
        in_test_group = np.isin(group, group[rows])
        n_dropped = int(in_test_group.sum()) - len(rows)
        return SentenceSplit(np.flatnonzero(~in_test_group), rows, group, n_dropped)
    test_size = check_number("test_size", test_size, 0, 1, open_low=True, open_high=True)
    n_groups = int(group.max(initial=-1)) + 1
    order = check_random_state(random_state).permutation(n_groups)
    in_test = np.isin(group, order[: round(test_size * n_groups)])
    return SentenceSplit(np.flatnonzero(~in_test), np.flatnonzero(in_test), group)


def named_views(views: Any) -> Mapping[str, Any]:
    """Views as a mapping; a single array is the view "embeddings"."""
    return views if isinstance(views, Mapping) else {"embeddings": views}


def group_sentences(groups: Any, views: Iterable[Any], n: int) -> np.ndarray:
    """Group numbers of sentences that share a label in ``groups`` or, bit for bit, an embedding in a view."""
    return merge_groups([groups, *map(_equal_rows, views)], n)


def merge_groups(groupings: list[Any], n: int) -> np.ndarray:
    """Group numbers such that sentences with a common label in any of the groupings are in one group.

    A grouping has one label per sentence, or is None where every sentence is a group of its own.
    """
    first_rows = []
    for labels in groupings:
        if labels is None:
            continue
        numbers = number_groups(labels, n)[1]
        # Link each row to the first row with its label.
        first_rows.append(np.unique(numbers, return_index=True)[1][numbers])
    if not first_rows:
        return np.arange(n)
    rows = np.tile(np.arange(n), len(first_rows))
    links = sp.coo_array((np.ones(len(rows), dtype=bool), (rows, np.concatenate(first_rows))), (n, n))
    return np.asarray(connected_components(links, directed=False)[1])


def _equal_rows(X: Any) -> np.ndarray:
    """Labels that are equal for rows with the same bits, of an array of any kind."""
    if sp.issparse(X):
        X = sp.csr_array(X)
        contents = (X.indices[a:b].tobytes() + X.data[a:b].tobytes() for a, b in pairwise(X.indptr))
    else:
        rows = np.asarray(as_numpy(X))
        is_object = rows.dtype.hasobject
        contents = (repr(row.tolist()).encode() if is_object else row.tobytes() for row in rows)
    # Digests take less memory than rows.
    numbers: dict[bytes, int] = {}
    digests = (blake2b(content, digest_size=16).digest() for content in contents)
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], dtype=np.int64)


def _check_test_rows(test: Any, n: int) -> np.ndarray:
    """Row numbers of the test sentences, ascending."""
    values = np.asarray(test)
    if values.dtype == bool and values.shape == (n,):
        return np.flatnonzero(values)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"test has shape {values.shape} and type {values.dtype}; pass a mask ({n},) or row numbers."
        )
    rows = np.unique(values)
    if len(rows) and (rows[0] < 0 or rows[-1] >= n):
        raise ValueError(f"test has rows from {rows[0]} to {rows[-1]}; there are {n} sentences.")
    return rows

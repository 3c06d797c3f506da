"""Stack several views of the same sentences (speech and text, two languages) as one training set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.metrics.counts import count_matrix, dense_array
from flip_sklearn.metrics.summary import rescale_weights


@dataclass(frozen=True)
class StackedViews:
    """Result of :func:`stack_views`: the rows of all views, one view below the other.

    Attributes
    ----------
    X : ndarray of shape (v * n, d)
        Embeddings of view 1, then of view 2, and so on.
    Y : csr_array of shape (v * n, V)
        The sentences' counts, repeated for each view.
    sample_weight : ndarray of shape (v * n,)
        The weight of the view of each row.
    groups : ndarray of shape (v * n,)
        The sentence of each row, for ``GroupKFold``: the views of a sentence stay in one part of a split.
    view : ndarray of shape (v * n,)
        The name of the view of each row.
    """

    X: np.ndarray
    Y: sp.csr_array
    sample_weight: np.ndarray
    groups: np.ndarray
    view: np.ndarray


def stack_views(
    views: Mapping[str, Any], Y: Any, *, weights: Mapping[str, float] | None = None, groups: Any = None
) -> StackedViews:
    """Stack row-aligned views so that one fit minimizes the weighted sum of their losses.

    With views X1, X2 and weights alpha, 1 - alpha, a fit on the result minimizes

        alpha * NLL(X1, Y) + (1 - alpha) * NLL(X2, Y)  + penalties,

    equation 4 of Kesiraju et al. (2026, arXiv 2604.18109). Stacked rows with repeated counts and sample
    weights alpha and 1 - alpha have the same objective, so every scikit-learn tool works on them.

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d)
        Row i of every view must embed sentence i, in the same space of d dimensions.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the sentences, shared by all views.
    weights : mapping of str to float, default=None
        Weight of each view, >= 0 with a positive sum, rescaled to sum to 1. None for equal weights.
    groups : array-like of shape (n,), default=None
        Group of each sentence, if several sentences belong together. None for one group per sentence.

    Returns
    -------
    StackedViews
        ``X``, ``Y``, ``sample_weight``, ``groups`` and ``view``, ready for ``fit`` and ``GroupKFold``.

    Raises
    ------
    ValueError
        If there is no view, views are not aligned, or weights do not match the views.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import stack_views
    >>> text, speech = np.eye(3), np.eye(3) + 0.1
    >>> stacked = stack_views({"text": text, "speech": speech}, np.eye(3),
    ...                       weights={"text": 0.7, "speech": 0.3})
    >>> stacked.X.shape, stacked.groups.tolist()
    ((6, 3), [0, 1, 2, 0, 1, 2])
    >>> stacked.sample_weight.tolist()
    [0.7, 0.7, 0.7, 0.3, 0.3, 0.3]
    """
    arrays = check_views(views)
    names = list(arrays)
    n = len(arrays[names[0]])
    counts = count_matrix(Y)
    if counts.shape[0] != n:
        raise ValueError(
            f"Y has {counts.shape[0]} rows, the views have {n}; pass one row of counts per sentence."
        )
    if groups is None:
        groups = np.arange(n)
    elif isinstance(groups, (list, tuple)) and any(isinstance(label, str) for label in groups):
        groups = np.fromiter(groups, dtype=object)  # an array of str takes n times the longest
    else:
        groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"groups has shape {groups.shape}; pass one group per sentence, ({n},).")
    return StackedViews(
        X=np.concatenate(list(arrays.values())),
        Y=sp.csr_array(sp.vstack([counts] * len(names), format="csr")),
        sample_weight=np.repeat(_normalize_weights(weights, names), n),
        groups=np.tile(groups, len(names)),
        view=np.repeat(np.array(names), n),
    )


def _normalize_weights(weights: Any, names: list[str]) -> np.ndarray:
    """Return the weight of each view, with sum 1."""
    if weights is None:
        weights = dict.fromkeys(names, 1.0)
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights is {weights!r}; pass a mapping with one weight per view.")
    if set(weights) != set(names):
        raise ValueError(
            f"weights names {sorted(weights)}, the views are {sorted(names)}; pass one weight per view."
        )
    try:
        alpha = np.array([float(weights[name]) for name in names])
    except (TypeError, ValueError):
        alpha = np.array([np.nan])
    if not np.isfinite(alpha).all() or (alpha < 0).any() or not alpha.any():
        raise ValueError(f"weights are {dict(weights)}; they must be finite, >= 0 and not all zero.")
    alpha = rescale_weights(alpha)
    return np.asarray(alpha / alpha.sum())


def check_views(views: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return named views as arrays of one shape (n, d), in their order. NumPy arrays are not copied."""
    if not isinstance(views, Mapping):
        raise ValueError(f"views is a {type(views).__name__}; pass a mapping of names to (n, d) arrays.")
    if not views:
        raise ValueError("views is empty; pass a mapping of at least one name to an (n, d) array.")
    arrays: dict[str, np.ndarray] = {}
    first = next(iter(views))
    for name, view in views.items():
        if sp.issparse(view):
            raise ValueError(f"view {name!r} is sparse; embeddings are dense, pass view.toarray().")
        array = arrays[name] = dense_array(view, f"view {name!r}", "embeddings of shape (n, d)")
        if array.ndim != 2:
            raise ValueError(f"view {name!r} has {array.ndim} dimension(s); pass an array of shape (n, d).")
        if array.dtype.kind not in "buif":
            raise ValueError(
                f"view {name!r} holds values of type {array.dtype}; embeddings are numbers, pass "
                "view.astype(float) if these are."
            )
        if array.shape != arrays[first].shape:
            raise ValueError(
                f"view {name!r} has shape {array.shape}, view {first!r} {arrays[first].shape}; views "
                "must hold the same sentences, row by row, in one embedding space."
            )
    return arrays

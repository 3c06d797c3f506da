"""Views of sentences (speech and text, two languages): stacked as one training set, or centered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from flip_sklearn.metrics.counts import count_matrix, dense_array, embedding_rows
from flip_sklearn.metrics.summary import rescale_weights
from flip_sklearn.parameters import DocumentationLink, number_groups, short_repr, warn_caller

# Elements of a block of rows that are moved at a time: 2**22 float64 are 32 MiB.
_BLOCK_ELEMENTS = 2**22


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

    With views X1, X2 and weights alpha, 1 - alpha, a fit on the result minimizes::

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


class ViewCenterer(DocumentationLink, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Remove the mean of each view, so that one model reads all views.

    With m_v the mean of the training rows of view v, and c the mean of the reference view, or 0 without one,
    a row of view v becomes::

        x - m_v + c.

    Encoders place the sentences of each language, or speech and text, around a mean of their own. A model
    that is trained on one view reads this shift as the presence of some words in every row of another view;
    :func:`~flip_sklearn.diagnostics.view_gap` measures how much of the loss it explains. The means need
    neither words nor pairs of sentences, only some rows of each view.

    Parameters
    ----------
    reference : str, default=None
        Name of the view that keeps its place: its rows do not change, and the means of the other views move
        to its mean, so that a model of this view reads them. If None, the means of all views move to 0. Can
        be changed after ``fit``.

    Attributes
    ----------
    views_ : ndarray of shape (v,) of object
        Names of the views, sorted; one None if ``fit`` got no ``view``.
    means_ : ndarray of shape (v, d)
        The mean of the training rows of each view, in float64.
    counts_ : ndarray of shape (v,)
        Number of training rows of each view.
    n_features_in_ : int
        Number of dimensions d.
    feature_names_in_ : ndarray of shape (d,)
        Column names of X in ``fit``, if it had any.

    See Also
    --------
    stack_views : Its result has the rows of all views, and the ``view`` of each.
    flip_sklearn.diagnostics.view_gap : What separates two views: shift, rotation, shear or content.

    Notes
    -----
    Means that are computed from other sentences in each view also differ by what these are about, and that
    difference is removed, too. Use sentences of the same kind in all views.

    ``view`` takes part in scikit-learn's metadata routing, and is requested by default: with
    ``sklearn.set_config(enable_metadata_routing=True)``, ``make_pipeline(ViewCenterer(), FLiPExtractor())``
    takes ``view`` in ``fit``, ``predict`` and other methods.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import ViewCenterer, stack_views
    >>> text = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> stacked = stack_views({"text": text, "speech": text + [5.0, 2.0]}, np.eye(2))
    >>> centerer = ViewCenterer(reference="text").fit(stacked.X, view=stacked.view)
    >>> centerer.transform([[6.0, 2.0]], view="speech")
    array([[1., 0.]])
    """

    views_: np.ndarray
    means_: np.ndarray
    counts_: np.ndarray

    # Requested by default: with several views, no method works without it.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"view": True}
    __metadata_request__partial_fit: ClassVar[dict[str, bool]] = {"view": True}
    __metadata_request__transform: ClassVar[dict[str, bool]] = {"view": True}
    __metadata_request__inverse_transform: ClassVar[dict[str, bool]] = {"view": True}

    def __init__(self, *, reference: str | None = None) -> None:
        self.reference = reference

    def fit(self, X: Any, y: Any = None, *, view: Any = None) -> Self:
        """Compute the mean of each view.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :class:`~flip_sklearn.FLiPExtractor` takes them.
        y : ignored
            Exists for pipelines.
        view : array-like of shape (n,) or str, default=None
            The name of the view of each row, or of all rows. If None, all rows are of one view.

        Returns
        -------
        self : ViewCenterer
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or a name is not allowed, or ``reference`` is not one of the views. The estimator is then
            unchanged.
        """
        fitted = ViewCenterer(reference=self.reference)
        fitted._add(X, view, reset=True)
        fitted._reference_mean()
        for name, count in zip(fitted.views_, fitted.counts_, strict=True):
            if count == 1 and name is not None:
                warn_caller(
                    f"view {name!r} has one row, which is its mean, so that nothing of the row is left; pass "
                    "more rows of this view."
                )
        kept = {name: value for name, value in vars(self).items() if not name.endswith("_")}
        self.__dict__ = {**kept, **{k: value for k, value in vars(fitted).items() if k.endswith("_")}}
        return self

    def partial_fit(self, X: Any, y: Any = None, *, view: Any = None) -> Self:
        """Add rows to the means, of known views or of new ones.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        y : ignored
            Exists for pipelines.
        view : array-like of shape (n,) or str, default=None
            As in :meth:`fit`.

        Returns
        -------
        self : ViewCenterer
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or a name is not allowed. The estimator is then unchanged.
        """
        self._add(X, view, reset=not hasattr(self, "means_"))
        return self

    def fit_transform(self, X: Any, y: Any = None, *, view: Any = None) -> Any:
        """Fit, and center the same rows.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        y : ignored
            Exists for pipelines.
        view : array-like of shape (n,) or str, default=None
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n, d)
            As :meth:`transform` returns it.
        """
        return self.fit(X, y, view=view).transform(X, view=view)

    def transform(self, X: Any, *, view: Any = None) -> Any:
        """Move each row by the mean of its view.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings of the same encoder.
        view : array-like of shape (n,) or str, default=None
            The name of the view of each row, or of all rows. None only if ``fit`` got none, too.

        Returns
        -------
        ndarray of shape (n, d)
            The centred rows: float64 for float64 input and float32 otherwise.

        Raises
        ------
        ValueError
            If X has another dimension or values that are not finite, or a view is not one of ``views_``.
        """
        return self._move(X, view, 1.0)

    def inverse_transform(self, X: Any, *, view: Any = None) -> Any:
        """Move each row back to where its view was.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows as :meth:`transform` returns them.
        view : array-like of shape (n,) or str, default=None
            As in :meth:`transform`.

        Returns
        -------
        ndarray of shape (n, d)
            The rows before centring: float64 for float64 input and float32 otherwise.

        Raises
        ------
        ValueError
            As :meth:`transform`.
        """
        return self._move(X, view, -1.0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _add(self, X: Any, view: Any, *, reset: bool) -> None:
        """Add rows to the means."""
        checked = ViewCenterer() if reset else self
        rows = checked._check(X, reset=reset)
        names, number = _number_views(view, len(rows))
        known: dict[Any, tuple[np.ndarray, int]] = {}
        if not reset:
            known = {self.views_[i]: (self.means_[i], int(self.counts_[i])) for i in range(len(self.views_))}
        if known and (None in known) != (names == [None]):
            raise ValueError(
                f"view is {short_repr(view)}, and earlier rows had {'no ' if None in known else ''}names of "
                "views; pass view= with all rows or with none."
            )
        for i, name in enumerate(names):
            part = rows[number == i]
            mean, count = part.mean(axis=0, dtype=np.float64), len(part)
            if name in known:
                before, n_before = known[name]
                mean, count = before + (mean - before) * (count / (n_before + count)), n_before + count
            known[name] = mean, count
        if not all(np.isfinite(mean).all() for mean, _ in known.values()):
            raise ValueError("the mean of X overflows; scale X, for example to rows of unit norm.")
        # Numbers and texts may come in different calls.
        ordered = [None] if None in known else sorted(known, key=lambda name: (isinstance(name, str), name))
        self.views_ = np.fromiter(ordered, dtype=object, count=len(ordered))
        self.means_ = np.stack([known[name][0] for name in ordered])
        self.counts_ = np.array([known[name][1] for name in ordered])
        for attribute in ("n_features_in_", "feature_names_in_"):
            if hasattr(checked, attribute):
                setattr(self, attribute, getattr(checked, attribute))

    def _check(self, X: Any, *, reset: bool) -> np.ndarray:
        """X as a finite array of float16, float32 or float64; integers become float64."""
        if sp.issparse(X):
            raise ValueError(
                f"X is a sparse {type(X).__name__}; embeddings are dense, pass X.toarray(). (Sparse input is "
                "not supported.)"
            )
        formats = [np.float64, np.float32, np.float16]
        return np.asarray(validate_data(self, embedding_rows(X), reset=reset, dtype=formats))

    def _reference_mean(self) -> np.ndarray:
        """The place that the means move to."""
        if self.reference is None:
            return np.zeros(self.means_.shape[1])
        return np.asarray(self.means_[self._find([self.reference], "reference")[0]])

    def _find(self, names: list[Any], argument: str) -> np.ndarray:
        """Positions of names in ``views_``."""
        place = {name: i for i, name in enumerate(self.views_)}
        unknown = [name for name in names if name not in place]
        if not unknown:
            return np.array([place[name] for name in names])
        if None in place:
            raise ValueError(
                f"{argument} names {unknown[0]!r}, but fit got no names of views; pass view= to fit."
            )
        known = ", ".join(repr(name) for name in self.views_)
        if unknown == [None]:
            raise ValueError(
                f"{argument} is None, but the rows in fit were of the views {known}; pass view=, one name "
                "for each row or one for all. A Pipeline passes it on if scikit-learn's metadata routing is "
                "enabled: sklearn.set_config(enable_metadata_routing=True)."
            )
        raise ValueError(
            f"{argument} names {unknown[0]!r}, which is not one of the views in fit: {known}. Use one of "
            "these, or add rows of the new view by partial_fit."
        )

    def _move(self, X: Any, view: Any, sign: float) -> np.ndarray:
        """X with the shift of the view of each row added (sign 1) or subtracted (-1)."""
        check_is_fitted(self)
        rows = self._check(X, reset=False)
        names, number = _number_views(view, len(rows))
        shift = sign * (self._reference_mean() - self.means_[self._find(names, "view")])
        moved = np.empty(rows.shape, np.float64 if rows.dtype == np.float64 else np.float32)
        step = max(1, _BLOCK_ELEMENTS // rows.shape[1])
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            moved[block] = rows[block] + shift[number[block]]
        return moved


def _number_views(view: Any, n: int) -> tuple[list[Any], np.ndarray]:
    """The distinct names of views, and the number of that of each row; one name may stand for all rows."""
    if view is None or isinstance(view, str) or np.ndim(view) == 0:
        return [view if view is None or isinstance(view, str) else np.asarray(view).item()], np.zeros(n, int)
    names, number = number_groups(view, n, "view")
    return names.tolist(), number

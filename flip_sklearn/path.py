"""Accuracy against sparsity: models along a path of L1 strengths, and how far a model is from optimal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit.data import CountDataset, WhitenedRows, count_words
from flip_sklearn.backend.fit.optimality import raw_kkt_residual
from flip_sklearn.backend.fit.path import PathPoint, follow
from flip_sklearn.backend.fit.solver import Session
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.resume import join_processes
from flip_sklearn.estimation.training import FitInputs, _attributes, _split, prepare
from flip_sklearn.estimation.validation import check_counts, check_embeddings, check_weights
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics import RowMean
from flip_sklearn.parameters import check_bool, check_integer, check_number, is_integer


@dataclass(frozen=True, eq=False)
class RegularizationPath:
    """Result of :func:`regularization_path`: one entry per strength, strongest first.

    Attributes
    ----------
    l1_strengths : ndarray of shape (n_strengths,)
    accuracy : ndarray of shape (n_strengths,)
        Keyword accuracy on the held-out rows, with bias.
    standard_error : ndarray of shape (n_strengths,)
        Of ``accuracy``, over the held-out rows.
    accuracy_without_bias : ndarray of shape (n_strengths,)
    nll : ndarray of shape (n_strengths,)
        Held-out negative log-likelihood, in nats per word.
    sparsity : ndarray of shape (n_strengths,)
        Share of exact zeros in A, over the words that training saw.
    n_words_left : ndarray of shape (n_strengths,)
        Words whose row of A is not all zero.
    seconds : ndarray of shape (n_strengths,)
        Of the passes at each strength; preparation and held-out scoring are not in it.
    kkt_residual : ndarray of shape (n_strengths,)
        As :func:`kkt_residual`; nan unless asked for.
    models : tuple of FLiPExtractor
        The fitted estimators, A stored as a csr_array where that is smaller.
    held_out : ndarray of shape (n_held_out,) or None
        The rows of X that were measured on and not trained on; None where ``validation`` was given.
    """

    l1_strengths: np.ndarray
    accuracy: np.ndarray
    standard_error: np.ndarray
    accuracy_without_bias: np.ndarray
    nll: np.ndarray
    sparsity: np.ndarray
    n_words_left: np.ndarray
    seconds: np.ndarray
    kkt_residual: np.ndarray
    models: tuple[FLiPExtractor, ...]
    held_out: np.ndarray | None

    def best(self, within: float = 1.0) -> FLiPExtractor:
        """The sparsest model that is as good as the best one: the one-standard-error rule.

        Parameters
        ----------
        within : float, default=1.0
            How many of its standard errors the best accuracy may be missed by, >= 0.

        Returns
        -------
        FLiPExtractor
            The model of the strongest ``l1_strength`` with such an accuracy.
        """
        within = check_number("within", within, 0)
        top = int(np.argmax(self.accuracy))
        error = self.standard_error[top]
        enough = self.accuracy[top] - within * (0.0 if np.isnan(error) else error)
        return self.models[int(np.argmax(self.accuracy >= enough))]

    def to_frame(self) -> Any:
        """The path as a table.

        Returns
        -------
        pandas.DataFrame
            One row per strength, strongest first; one column per array.
        """
        columns = {
            "l1_strength": self.l1_strengths, "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "accuracy_without_bias": self.accuracy_without_bias, "nll": self.nll,
            "sparsity": self.sparsity, "n_words_left": self.n_words_left,
            "seconds": self.seconds, "kkt_residual": self.kkt_residual,
        }  # fmt: skip
        return data_frame(columns)

    def __len__(self) -> int:
        return len(self.l1_strengths)

    def __repr__(self) -> str:
        first, last = self.l1_strengths[[0, -1]]
        return (
            f"RegularizationPath({len(self)} strengths from {first:.3g} to {last:.3g}, accuracy up to "
            f"{self.accuracy.max():.4f})"
        )


def regularization_path(
    X: Any,
    Y: Any,
    l1_strengths: Any = 10,
    *,
    eps: float = 1e-4,
    estimator: FLiPExtractor | None = None,
    validation: tuple[Any, Any] | None = None,
    sample_weight: Any = None,
    max_iter: int = 5,
    kkt: bool = False,
) -> RegularizationPath:
    """Fit a model at each of several L1 strengths, for far less than separate fits cost.

    Minimizes the objective of :class:`FLiPExtractor`,

        J = (1/W) sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj] + (1/V) sum_j l1 |a_j|_1 + ...,

    from the strongest l1 to the weakest, each strength going on from the one before, in one session:
    whitening and all else that does not depend on l1 is done once.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings, as for ``FLiPExtractor.fit``.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts.
    l1_strengths : int or array-like of shape (n_strengths,), default=10
        The strengths, >= 0, in any order; they are sorted, strongest first. An int is how many to take,
        evenly spaced in their logarithm, from ``l1_max_`` (where A is zero) to ``eps * l1_max_``.
    eps : float, default=1e-4
        Length of the path when ``l1_strengths`` is an int, in (0, 1).
    estimator : FLiPExtractor, default=None
        Whose settings to use; it is not changed. None is ``FLiPExtractor()``. Of no effect here are its
        ``l1_strength``, and ``max_iter``, ``tol``, ``n_iter_no_change``, ``early_stopping``,
        ``warm_start`` and ``checkpoint_dir``: every strength gets the same number of passes.
    validation : tuple (X, Y), default=None
        Rows to measure on, which are then not trained on. When None, ``validation_fraction`` of the rows with
        words (at most 10,000) is held out, once for the whole path. Rows that belong together, such as
        views of one sentence, are kept together by passing their part here.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows of X, >= 0.
    max_iter : int, default=5
        Passes over the training rows at each strength, >= 1. Three in five are made at twice the
        ``learning_rate``.
    kkt : bool, default=False
        Whether to compute the KKT residual of each model, two thirds of an exact pass each.

    Returns
    -------
    RegularizationPath
        Accuracy, sparsity and the models, strongest l1 first.

    Raises
    ------
    ValueError
        If a strength, a setting or the data is not allowed.
    FloatingPointError
        If the loss stops being finite.

    Notes
    -----
    After KeyboardInterrupt the path ends with the last strength done, with a ConvergenceWarning; before the
    end of the first the interrupt goes through.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor, regularization_path
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 5))
    >>> X = Y @ rng.normal(size=(5, 12))
    >>> path = regularization_path(X, Y, 4, estimator=FLiPExtractor(rank=5, random_state=0))
    >>> path.n_words_left[0], path.sparsity[0]  # at l1_max_ every row of A is zero
    (np.int64(0), np.float64(1.0))
    >>> bool(path.accuracy[-1] > path.accuracy[0])
    True
    """
    if estimator is None:
        estimator = FLiPExtractor()
    elif not isinstance(estimator, FLiPExtractor):
        raise ValueError(
            f"estimator={estimator!r} is not an FLiPExtractor; pass one, and transform X before if it "
            "is the last step of a pipeline."
        )
    max_iter = check_integer("max_iter", max_iter, 1)
    eps = check_number("eps", eps, 0, 1, open_low=True, open_high=True)
    check_bool("kkt", kkt)
    given = _check_strengths(l1_strengths)
    prepared = prepare(
        clone(estimator).set_params(early_stopping=False, checkpoint_dir=None),
        X, Y, sample_weight, streaming=False,
    )  # fmt: skip
    rows, held_out, seen, counts = _split_once(prepared, Y, validation)
    if not isinstance(given, int):
        prepared = replace(prepared, options=replace(prepared.options, l1=float(given[0])))
    session = Session(rows, prepared.options, prepared.compute)
    if isinstance(given, int):
        given = _spaced(given, eps, session.l1_max)
    own = held_out if validation is None else None
    scored = WhitenedRows(held_out, session.mean, session.Q, prepared.compute)

    points: list[PathPoint] = []
    models: list[FLiPExtractor] = []
    try:
        with _progress(prepared, len(rows) * max_iter * int((given < session.l1_max).sum())) as bar:
            for solution, point in follow(
                session, given, scored, max_iter=max_iter, kkt=kkt, after_step=bar
            ):
                model = clone(estimator).set_params(l1_strength=point.l1)
                model.__dict__.update(_attributes(prepared, solution, seen, counts, own))
                models.append(_stored(model))
                points.append(point)
    except KeyboardInterrupt:
        # The processes of a group are interrupted at different points: no path is theirs in common.
        if not points or not prepared.group.is_single_process:
            raise
        warnings.warn(
            f"the path was interrupted after {len(points)} of {len(given)} strengths; it has the "
            "strongest ones.",
            ConvergenceWarning,
            stacklevel=2,
        )
    found = [_accuracy(held_out, point.hits) for point in points]
    lifts = [_accuracy(held_out, point.hits_without_bias) for point in points]
    return RegularizationPath(
        l1_strengths=given[: len(points)],
        accuracy=np.array([float(accuracy) for accuracy in found]),
        standard_error=np.array([accuracy.standard_error for accuracy in found]),
        accuracy_without_bias=np.array([float(accuracy) for accuracy in lifts]),
        nll=np.array([point.nll for point in points]),
        sparsity=np.array([point.sparsity for point in points]),
        n_words_left=np.array([point.n_words_left for point in points]),
        seconds=np.array([point.seconds for point in points]),
        kkt_residual=np.array([model.kkt_residual_ for model in models]),
        models=tuple(models),
        held_out=None if own is None else own.take,
    )


def kkt_residual(model: FLiPExtractor, X: Any, Y: Any, sample_weight: Any = None) -> float:
    """How far a fitted model is from the optimum of J in A and b, given its B.

    With S the smooth part of the objective J of :class:`FLiPExtractor` (likelihood and squared L2),

        V max( |dS/db_j|,  |dS/dA_jk + sign(A_jk) l1 / V| where A_jk != 0,
               max(0, |dS/dA_jk| - l1 / V) where A_jk = 0 ),

    over all words and latents: the largest violation of the optimality conditions, in the units of
    ``l1_strength``. It is 0 at the optimum; at A = 0 with no penalty it has the size of ``l1_max_``.

    Parameters
    ----------
    model : FLiPExtractor
        A fitted model; its ``l1_strength`` and ``l2_strength`` as they are now.
    X : array-like of shape (n, d)
        The embeddings that it was fitted to, in the same order: rows that ``fit`` held out are left out here.
    Y : {array-like, sparse matrix} of shape (n, V)
        Their word counts.
    sample_weight : array-like of shape (n,), default=None
        Their weights.

    Returns
    -------
    float
        In nats per word of text, >= 0.

    Raises
    ------
    ValueError
        If X or Y are not allowed, or not those of the fit.

    Notes
    -----
    It takes 4 n V r operations, two thirds of an exact pass, in the model's ``precision``.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor, kkt_residual
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 5))
    >>> X = Y @ rng.normal(size=(5, 12))
    >>> short, long = (FLiPExtractor(rank=None, solver="exact", max_iter=n, random_state=0).fit(X, Y)
    ...                for n in (1, 200))
    >>> bool(kkt_residual(long, X, Y) < kkt_residual(short, X, Y) < short.l1_max_)
    True
    """
    check_is_fitted(model)
    array = check_embeddings(model, X, reset=False)[0]
    counts, _ = check_counts(Y, array.shape[0], len(model.vocabulary_))
    weights = check_weights(sample_weight, array)
    take = None
    not_trained_on = getattr(model, "_held_out", None)
    if not_trained_on is not None:
        if not_trained_on.max(initial=-1) >= len(array):
            raise ValueError(
                f"X has {len(array)} rows, but fit held out row {not_trained_on.max()}; pass X and Y "
                "as they were passed to fit."
            )
        take = np.setdiff1d(np.arange(len(array)), not_trained_on)
        counts, weights = counts[take], weights[take]
    seen = np.flatnonzero(model.word_counts_ > 0)
    if len(seen) < counts.shape[1]:
        counts = counts[:, seen]
    rows = CountDataset(
        array, counts.indptr, counts.indices, counts.data, weights, len(seen),
        take=take, group=join_processes(),
    )  # fmt: skip
    if not rows.row_weight.any():
        raise ValueError("Y has no counts of the model's words in any row with weight > 0.")
    A = model.word_embeddings_[seen]
    return raw_kkt_residual(
        rows, A.toarray() if sp.issparse(A) else A, model.projection_, model.bias_[seen],
        model.embedding_mean_, resolve_compute(model.device, model.precision),
        l1=check_number("l1_strength", model.l1_strength, 0),
        l2=check_number("l2_strength", model.l2_strength, 0),
    )  # fmt: skip


def _check_strengths(value: Any) -> int | np.ndarray:
    """A number of strengths, or strengths that fall."""
    allowed = (
        "use how many to take, an integer >= 1, or a sequence of finite numbers >= 0 in any order."
    )
    if is_integer(value):
        return check_integer("l1_strengths", value, 1, or_else="a sequence of numbers >= 0")
    try:
        strengths = np.array([check_number("l1_strengths", one, 0) for one in value])
    except (TypeError, ValueError) as error:
        raise ValueError(f"l1_strengths={value!r} is not allowed; {allowed}") from error
    if len(strengths) == 0:
        raise ValueError(f"l1_strengths={value!r} is empty; {allowed}")
    return np.sort(strengths)[::-1]


def _spaced(n: int, eps: float, l1_max: float) -> np.ndarray:
    """``n`` strengths from l1_max down to eps times it."""
    if l1_max <= 0:
        raise ValueError(
            "l1_max_ is 0: X says nothing about the words of Y (X is constant, or there is one word), so "
            "there is no range of strengths to choose from; pass l1_strengths."
        )
    return np.geomspace(l1_max, eps * l1_max, n)


def _split_once(
    prepared: FitInputs, Y: Any, validation: Any
) -> tuple[CountDataset, CountDataset, np.ndarray, np.ndarray]:
    """Rows to train on, rows to measure on, the words that either has, and their counts."""
    counts = _word_counts(prepared)
    if validation is None:
        with_words = int(((np.diff(prepared.Y.indptr) > 0) & (prepared.weights > 0)).sum())
        if with_words < 2:
            raise ValueError(
                f"X and Y have {with_words} row with words, and a path needs one to train on and one to "
                "measure on; pass more rows, or validation=(X, Y)."
            )
        seen = np.flatnonzero(counts > 0)
        rows, held_out = _split(replace(prepared, early_stopping="accuracy"), seen)
        return rows, cast(CountDataset, held_out), seen, counts
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise ValueError(
            f"validation={type(validation).__name__} is not allowed; pass a tuple (X, Y) of rows to "
            "measure on, or None to hold out a part of X and Y."
        )
    X_other, _ = check_embeddings(prepared.carrier, validation[0], reset=False)
    Y_other, names = check_counts(validation[1], len(X_other))
    same = names is None or not hasattr(Y, "columns") or names == [str(c) for c in Y.columns]
    if Y_other.shape[1] != prepared.Y.shape[1] or not same:
        raise ValueError(
            f"the Y of validation has {Y_other.shape[1]} columns that are not the "
            f"{prepared.Y.shape[1]} of Y; count both with the same vocabulary."
        )
    if Y_other.nnz == 0:
        raise ValueError("the Y of validation has no counts; at least one row needs a word.")
    other = replace(prepared, X=X_other, Y=Y_other, weights=np.ones(len(X_other)))
    counts = counts + _word_counts(other)
    seen = np.flatnonzero(counts > 0)
    return _split(prepared, seen)[0], _split(other, seen)[0], seen, counts


def _word_counts(prepared: FitInputs) -> np.ndarray:
    Y = prepared.Y
    return count_words(Y.indptr, Y.indices, Y.data, prepared.weights, Y.shape[1])


def _stored(model: FLiPExtractor) -> FLiPExtractor:
    """The model with A in the smaller of the two formats."""
    A = model.word_embeddings_
    sparse = np.count_nonzero(A) * (A.itemsize + 4) + 4 * len(A)  # values, columns, row starts
    return model.to_sparse() if sparse < A.nbytes else model


def _accuracy(rows: CountDataset, hits: np.ndarray) -> RowMean:
    return RowMean.of(np.where(np.diff(rows.indptr) > 0, hits, np.nan), rows.weights)


@contextmanager
def _progress(prepared: FitInputs, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over the rows of all passes; gives what takes the rows done so far in a pass."""
    before = 0
    with tqdm(
        total=total, unit="row", unit_scale=True, desc="FLiP path", delay=2,
        disable=not prepared.verbose,
    ) as bar:  # fmt: skip

        def after_step(done: int) -> None:
            nonlocal before
            bar.update(done - before if done > before else done)
            before = done

        yield after_step

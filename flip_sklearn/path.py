"""Models along a path of L1 strengths, and the KKT residual of a fitted model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from flip_sklearn.backend.device import resolve_compute, without_autocast
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.initialization import InitialPoint
from flip_sklearn.backend.fit.optimality import raw_kkt_residual
from flip_sklearn.backend.fit.path import PathPoint, solve_path
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.inputs import FitInputs, prepare, resolve_l2
from flip_sklearn.estimation.processes import join_processes
from flip_sklearn.estimation.scoring import snapshot
from flip_sklearn.estimation.split import draw_validation_rows, make_datasets
from flip_sklearn.estimation.training import fitted_attributes
from flip_sklearn.estimation.validation import (
    check_counts,
    check_counts_of,
    check_embeddings,
    check_weights,
    magnitude_limits,
)
from flip_sklearn.estimation.word_features import features_of_model
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import show_progress
from flip_sklearn.metrics import RowMean
from flip_sklearn.metrics.counts import check_columns
from flip_sklearn.parameters import (
    MAX_STRENGTH,
    check_bool,
    check_integer,
    check_number,
    is_integer,
    warn_caller,
)


@dataclass(frozen=True, eq=False)
class RegularizationPath:
    """Result of :func:`regularization_path`: one entry per strength, strongest first.

    Attributes
    ----------
    l1_strengths : ndarray of shape (n_strengths,)
        The strengths, in the units of ``FLiPExtractor.l1_strength``.
    accuracy : ndarray of shape (n_strengths,)
        Keyword accuracy on the held-out rows, with bias.
    standard_error : ndarray of shape (n_strengths,)
        Standard error of ``accuracy`` over the held-out rows.
    accuracy_without_bias : ndarray of shape (n_strengths,)
        Keyword accuracy on the held-out rows, without bias.
    nll : ndarray of shape (n_strengths,)
        Held-out negative log-likelihood, in nats per word.
    sparsity : ndarray of shape (n_strengths,)
        Share of exact zeros in A, over the words that training saw.
    n_words_left : ndarray of shape (n_strengths,)
        Number of words whose row of A is not all zero.
    seconds : ndarray of shape (n_strengths,)
        Duration of the passes at each strength, without preparation and held-out scoring.
    kkt_residual : ndarray of shape (n_strengths,)
        :func:`kkt_residual` of each model; nan unless ``kkt=True``.
    models : tuple of FLiPExtractor
        The fitted estimators; A is a csr_array where that takes less memory.
    held_out : ndarray of shape (n_held_out,) or None
        The rows of X that were held out; None if ``validation`` was passed.
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
        """Select the sparsest model that is as good as the best one: the one-standard-error rule.

        Parameters
        ----------
        within : float, default=1.0
            Largest loss of accuracy, in standard errors of the best accuracy, >= 0.

        Returns
        -------
        FLiPExtractor
            The model of the strongest ``l1_strength`` whose loss is not larger.
        """
        within = check_number("within", within, 0)
        top = int(np.argmax(self.accuracy))
        error = self.standard_error[top]
        enough = self.accuracy[top] - within * (0.0 if np.isnan(error) else error)
        return self.models[int(np.argmax(self.accuracy >= enough))]

    def to_frame(self) -> Any:
        """Return the path as a table.

        Returns
        -------
        pandas.DataFrame
            One row per strength, strongest first, and one column per array.
        """
        names = [field.name for field in fields(self) if field.name not in ("models", "held_out")]
        return data_frame({name.replace("strengths", "strength"): getattr(self, name) for name in names})

    def __len__(self) -> int:
        return len(self.l1_strengths)

    def __repr__(self) -> str:
        first, last = self.l1_strengths[[0, -1]]
        return (
            f"RegularizationPath({len(self)} strengths from {first:.3g} to {last:.3g}, accuracy up to "
            f"{self.accuracy.max():.4f})"
        )


@without_autocast()
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
    """Fit a model at each of several L1 strengths, much faster than by separate fits.

    Minimizes the objective of :class:`FLiPExtractor`::

        J = (1/W) sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj] + (1/V) sum_j l1 |a_j|_1 + ...,

    from the strongest l1 to the weakest. Each strength continues from the solution of the one before, and
    everything that does not depend on l1, such as the whitening, is computed once.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings, as for ``FLiPExtractor.fit``.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts.
    l1_strengths : int or array-like of shape (n_strengths,), default=10
        The strengths, >= 0, in any order; they are sorted, strongest first. An int is the number of
        strengths, spaced evenly on a log scale from ``l1_max_`` (where A is zero) to ``eps * l1_max_``.
    eps : float, default=1e-4
        Ratio of the weakest to the strongest strength if ``l1_strengths`` is an int, in (0, 1).
    estimator : FLiPExtractor, default=None
        The estimator whose settings are used; it is not changed. None is ``FLiPExtractor()``. Its
        ``l1_strength``, ``max_iter``, ``tol``, ``n_iter_no_change``, ``early_stopping``, ``warm_start`` and
        ``checkpoint_dir`` have no effect: every strength gets the same number of passes.
    validation : tuple (X, Y), default=None
        Rows to measure on, which are not trained on. If None, ``validation_fraction`` of the rows with words
        (at most 10,000) is held out, once for the whole path. To keep rows together that belong together,
        such as the views of a sentence, split them yourself and pass the held-out part.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows of X, >= 0.
    max_iter : int, default=5
        Number of passes over the training rows at each strength, >= 1. Three in five are made at twice the
        ``learning_rate``.
    kkt : bool, default=False
        Whether to compute the KKT residual of each model, which takes two thirds of an exact pass.

    Returns
    -------
    RegularizationPath
        Accuracy, sparsity and the models, strongest l1 first.

    Raises
    ------
    ValueError
        If a strength, a setting or the data is not allowed.
    FloatingPointError
        If the loss is not finite.

    Notes
    -----
    After KeyboardInterrupt the path has the strengths that were finished, with a ConvergenceWarning. If no
    strength was finished, the interrupt is raised.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor, regularization_path
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 5))
    >>> X = Y @ rng.normal(size=(5, 12))
    >>> path = regularization_path(X, Y, 4, estimator=FLiPExtractor(rank=5, random_state=0))
    >>> int(path.n_words_left[0]), float(path.sparsity[0])  # at l1_max_ every row of A is zero
    (0, 1.0)
    >>> bool(path.accuracy[-1] > path.accuracy[0])
    True
    """
    estimator = _check_estimator(estimator)
    if estimator.solver == "lbfgs":
        raise ValueError(
            "regularization_path makes passes, which solver='lbfgs' does not; use solver='auto', 'exact' or "
            "'sampled', or fit each strength with solver='lbfgs' and warm_start=True."
        )
    max_iter = check_integer("max_iter", max_iter, 1)
    eps = check_number("eps", eps, 0, 1, open_low=True, open_high=True)
    check_bool("kkt", kkt)
    strengths = _check_strengths(l1_strengths)
    inputs = prepare(
        clone(estimator).set_params(early_stopping=False, checkpoint_dir=None), X, Y, sample_weight
    )
    rows = _split_rows(inputs, validation)
    options = inputs.options
    if not isinstance(strengths, int):
        options = replace(options, l1=float(strengths[0]))
    features = inputs.data.word_features
    session = Session(
        rows.train,
        options,
        inputs.compute,
        word_features=None if features is None else features.of_words(np.flatnonzero(rows.word_counts > 0)),
    )
    if isinstance(strengths, int):
        strengths = _spaced(strengths, eps, session.l1_max)
    held_out = session.whiten(rows.held_out)
    n_trained = int((strengths < session.l1_max).sum())

    points: list[PathPoint] = []
    models: list[FLiPExtractor] = []
    try:
        with _progress(inputs, len(rows.train) * max_iter * n_trained) as after_step:
            for solution, point in solve_path(
                session, strengths, held_out, max_iter=max_iter, kkt=kkt, after_step=after_step
            ):
                model = clone(estimator).set_params(l1_strength=point.l1)
                attributes = fitted_attributes(inputs, solution, rows.word_counts, rows.validation_rows)
                model.__dict__.update(attributes)
                models.append(_in_smaller_format(model))
                points.append(point)
    except KeyboardInterrupt:
        # Processes of a group are interrupted at different points, so they have no path in common.
        if not points or not inputs.group.is_single_process:
            raise
        warn_caller(
            f"the path was interrupted after {len(points)} of {len(strengths)} strengths; it has the "
            "strongest ones.",
            ConvergenceWarning,
        )
    return _make_result(strengths, points, models, rows)


def _check_estimator(estimator: Any) -> FLiPExtractor:
    if estimator is None:
        return FLiPExtractor()
    if not isinstance(estimator, FLiPExtractor):
        raise ValueError(
            f"estimator={estimator!r} is not an FLiPExtractor; pass one, and transform X before if it "
            "is the last step of a pipeline."
        )
    return estimator


def _make_result(
    strengths: np.ndarray, points: list[PathPoint], models: list[FLiPExtractor], rows: _PathRows
) -> RegularizationPath:
    """The arrays of a path from its points."""
    has_words = np.diff(rows.held_out.indptr) > 0

    def mean_accuracy(per_row: np.ndarray) -> RowMean:
        return RowMean.of(np.where(has_words, per_row, np.nan), rows.held_out.weights)

    accuracy = [mean_accuracy(point.held_out.accuracy) for point in points]
    without_bias = [mean_accuracy(point.held_out.accuracy_without_bias) for point in points]
    return RegularizationPath(
        l1_strengths=strengths[: len(points)],
        accuracy=np.array([mean.value for mean in accuracy]),
        standard_error=np.array([mean.standard_error for mean in accuracy]),
        accuracy_without_bias=np.array([mean.value for mean in without_bias]),
        nll=np.array([point.held_out.nll for point in points]),
        sparsity=np.array([point.sparsity for point in points]),
        n_words_left=np.array([point.n_words_left for point in points]),
        seconds=np.array([point.seconds for point in points]),
        kkt_residual=np.array([model.kkt_residual_ for model in models]),
        models=tuple(models),
        held_out=rows.validation_rows,
    )


@without_autocast()
def kkt_residual(model: FLiPExtractor, X: Any, Y: Any, sample_weight: Any = None) -> float:
    """Compute the distance of a fitted model from the optimum of J in A and b, given its B.

    With S the smooth part of the objective J of :class:`FLiPExtractor` (likelihood and squared L2)::

        V max( |dS/db_j|,  |dS/dA_jk + sign(A_jk) l1 / V| where A_jk != 0,
               max(0, |dS/dA_jk| - l1 / V) where A_jk = 0 ),

    over all words and latents: the largest violation of the optimality conditions, in the units of
    ``l1_strength``. It is 0 at the optimum; at A = 0 with no penalty it has the size of ``l1_max_``.

    Parameters
    ----------
    model : FLiPExtractor
        A fitted model; its ``l1_strength`` and ``l2_strength`` as they are now.
    X : array-like of shape (n, d)
        The embeddings of the fit, in the same order; rows that ``fit`` held out are left out.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the fit.
    sample_weight : array-like of shape (n,), default=None
        Weights of the fit.

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
    The computation takes 4 n V r operations, two thirds of an exact pass, in the model's ``precision``.

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
    model = snapshot(model)
    limits = magnitude_limits(model.precision)
    array = check_embeddings(model, X, reset=False, limits=limits)[0]
    counts = check_counts_of(model, Y, array.shape[0])
    if hasattr(model, "extended_words_"):
        raise ValueError(
            "the model has words that extend_vocabulary added, which no training sentence had; pass the "
            "model before the extension."
        )
    weights = check_weights(sample_weight, array)
    trained_rows = _rows_of_the_fit(model, len(array))
    if trained_rows is not None:
        counts, weights = counts[trained_rows], weights[trained_rows]
    trained_words = np.flatnonzero(model.word_counts_ > 0)
    if len(trained_words) < counts.shape[1]:
        counts = counts[:, trained_words]
    dataset = CountDataset(array, counts, weights, rows=trained_rows, group=join_processes())
    if not dataset.row_weight.any():
        raise ValueError("Y has no counts of the model's words in any row with weight > 0.")
    A = model.word_embeddings_[trained_words]
    features = None
    if hasattr(model, "word_map_"):
        features = features_of_model(model)
    return raw_kkt_residual(
        dataset,
        InitialPoint(
            A=A.toarray() if sp.issparse(A) else A,
            B=model.projection_,
            b=model.bias_[trained_words],
            mean=model.embedding_mean_,
        ),
        resolve_compute(model.device, model.precision),
        l1=check_number("l1_strength", model.l1_strength, 0, MAX_STRENGTH),
        l2=resolve_l2(model, uses_features=features is not None),
        word_features=None if features is None else features.of_words(trained_words),
        ridge=getattr(model, "word_map_ridge_", 0.0),
    )


def _rows_of_the_fit(model: FLiPExtractor, n: int) -> np.ndarray | None:
    """The rows that ``fit`` trained on; None for all."""
    held_out = getattr(model, "_held_out", None)
    if held_out is None:
        return None
    if held_out.max(initial=-1) >= n:
        raise ValueError(
            f"X has {n} rows, but fit held out row {held_out.max()}; pass X and Y as they were passed to fit."
        )
    return np.setdiff1d(np.arange(n), held_out)


def _check_strengths(value: Any) -> int | np.ndarray:
    """The number of strengths, or the strengths from strong to weak."""
    allowed = "use their number, an integer >= 1, or a sequence of finite numbers >= 0 in any order."
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
            "l1_max_ is 0: X carries no information about the words of Y (X is constant, or there is one "
            "word), so there is no range of strengths to choose from; pass l1_strengths."
        )
    return np.geomspace(l1_max, eps * l1_max, n)


@dataclass(frozen=True)
class _PathRows:
    """Rows to train on, rows to measure on, and the weighted count of every word in both (V,)."""

    train: CountDataset
    held_out: CountDataset
    word_counts: np.ndarray
    validation_rows: np.ndarray | None  # the held-out rows of X; None if ``validation`` was passed


def _split_rows(inputs: FitInputs, validation: Any) -> _PathRows:
    data, group = inputs.data, inputs.group
    if validation is not None:
        return _separate_rows(inputs, validation)
    if data.n_rows_with_words < 2:
        raise ValueError(
            f"X and Y have {data.n_rows_with_words} row with words, and a path needs one to train on "
            "and one to measure on; pass more rows, or validation=(X, Y)."
        )
    fraction = inputs.validation_fraction
    validation_rows = draw_validation_rows(data, fraction, inputs.options.seed)
    trained_words = np.flatnonzero(data.word_counts > 0)
    train, held_out = make_datasets(data, trained_words, group, validation_rows)
    return _PathRows(train, cast(CountDataset, held_out), data.word_counts, validation_rows)


def _separate_rows(inputs: FitInputs, validation: Any) -> _PathRows:
    """Train on all rows of the fit and measure on those of ``validation``."""
    data, group = inputs.data, inputs.group
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise ValueError(
            f"validation={type(validation).__name__} is not allowed; pass a tuple (X, Y) of rows to "
            "measure on, or None to hold out a part of X and Y."
        )
    limits = magnitude_limits(data.feature_info.precision)
    X_other, _ = check_embeddings(data.feature_info, validation[0], reset=False, limits=limits)
    counts_other, names = check_counts(validation[1], len(X_other))
    if counts_other.shape[1] != data.counts.shape[1]:
        raise ValueError(
            f"the Y of validation has {counts_other.shape[1]} columns that are not the "
            f"{data.counts.shape[1]} of Y; count both with the same vocabulary."
        )
    renamed = data.feature_info.vocabulary is not None
    check_columns(names, data.vocabulary, renamed=renamed, source="the Y of validation")
    if counts_other.nnz == 0:
        raise ValueError("the Y of validation has no counts; at least one row needs a word.")
    other = replace(data, X=X_other, counts=counts_other, weights=np.ones(len(X_other)))
    word_counts = data.word_counts + other.word_counts
    trained_words = np.flatnonzero(word_counts > 0)
    train, _ = make_datasets(data, trained_words, group)
    held_out, _ = make_datasets(other, trained_words, group)
    return _PathRows(train, held_out, word_counts, None)


def _in_smaller_format(model: FLiPExtractor) -> FLiPExtractor:
    """The model with A as a csr_array if that takes less memory."""
    A = model.word_embeddings_
    sparse_bytes = np.count_nonzero(A) * (A.itemsize + 4) + 4 * len(A)  # values, columns, row starts
    return model.to_sparse() if sparse_bytes < A.nbytes else model


@contextmanager
def _progress(inputs: FitInputs, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over the rows of all passes; yields the function that takes the rows done in a pass."""
    rows_before = 0
    with show_progress(
        total=total, unit="row", unit_scale=True, desc="FLiP path", disable=not inputs.show_progress
    ) as bar:

        def after_step(rows_done: int) -> None:
            nonlocal rows_before
            is_new_pass = rows_done <= rows_before
            bar.update(rows_done if is_new_pass else rows_done - rows_before)
            rows_before = rows_done

        yield after_step

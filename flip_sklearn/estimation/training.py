"""From arguments to fitted attributes: what fit and partial_fit of FLiPExtractor share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

from flip_sklearn import io
from flip_sklearn.backend.device import without_autocast
from flip_sklearn.backend.fit.checkpoint import Checkpoint
from flip_sklearn.backend.fit.initialization import InitialPoint
from flip_sklearn.backend.fit.session import EarlierFit
from flip_sklearn.backend.fit.solver import PassHooks, Solution, solve
from flip_sklearn.backend.fit.state import PassRecord
from flip_sklearn.backend.scoring.scorer import UNSEEN_SCORE
from flip_sklearn.estimation.callbacks import PassCallbacks
from flip_sklearn.estimation.inputs import FitInputs, prepare
from flip_sklearn.estimation.presence import fit_presence, held_out_rows
from flip_sklearn.estimation.presence_ranking import rank_by_presence
from flip_sklearn.estimation.resume import open_checkpoint
from flip_sklearn.estimation.scoring import ranking_offset
from flip_sklearn.estimation.split import draw_validation_rows, make_datasets
from flip_sklearn.estimation.word_features import lift_offset, word_map_attributes
from flip_sklearn.parameters import warn_caller


def fit(estimator: Any, X: Any, Y: Any, sample_weight: Any = None, groups: Any = None) -> dict[str, Any]:
    """Run the solver and return the fitted attributes; the estimator itself is only read."""
    inputs = prepare(estimator, X, Y, sample_weight, groups)
    checkpoint = None
    if inputs.checkpoint_dir is not None:
        checkpoint, options = open_checkpoint(inputs.checkpoint_dir, estimator, inputs)
        inputs = replace(inputs, options=options)
    word_counts = inputs.data.word_counts
    earlier = None
    if estimator.warm_start and _same_shape(estimator, inputs):
        earlier = EarlierFit(_fitted_point(estimator, np.flatnonzero(word_counts > 0)))
    validation_rows = None
    if inputs.options.stop_on is not None:
        validation_rows = draw_validation_rows(inputs.data, inputs.validation_fraction, inputs.options.seed)
    solution, attributes = _train(estimator, inputs, word_counts, earlier, validation_rows, checkpoint)
    _warn_of_unfinished(solution, inputs.options.max_iter, has_checkpoint=checkpoint is not None)
    if inputs.data.word_features is not None and solution.word_map is None:
        warn_caller(
            "word_features do not predict the word embeddings of this fit, so they are not used: the model "
            "is the one of word_features=None. Check that row j belongs to word j of the vocabulary."
        )
    held_out = held_out_rows(inputs.data.X, inputs.data.counts, inputs.data.weights, validation_rows)
    attributes |= fit_presence(attributes, held_out, inputs.compute, inputs.group)
    if solution.word_map is not None:
        attributes["ranking_offset_"] = rank_by_presence(attributes, held_out, inputs.compute, inputs.group)
    return attributes


def partial_fit(estimator: Any, X: Any, Y: Any, sample_weight: Any = None) -> dict[str, Any]:
    """Make one pass over a chunk and return the fitted attributes; the estimator itself is only read."""
    inputs = prepare(estimator, X, Y, sample_weight, streaming=True)
    if inputs.data.n_rows_with_words == 0:
        return {}  # rows without words are ignored, also in the mean and the covariance
    word_counts, earlier = inputs.data.word_counts, None
    is_first_chunk = not hasattr(estimator, "bias_")
    if not is_first_chunk:
        past_counts = estimator.word_counts_
        word_counts = word_counts + past_counts
        trained_words = np.flatnonzero(word_counts > 0)
        point = _fitted_point(estimator, trained_words)
        earlier = EarlierFit(point, estimator._moments, past_counts[trained_words])
    solution, attributes = _train(estimator, inputs, word_counts, earlier)
    _warn_of_unfinished(solution, max_iter=None, has_checkpoint=False)
    if not is_first_chunk:  # the history of a stream has one entry per chunk
        unknown = [math.nan] * estimator.n_iter_  # of a column that an earlier version did not have
        attributes["n_iter_"] += estimator.n_iter_
        attributes["best_iter_"] = attributes["n_iter_"]
        attributes["history_"] = {
            key: estimator.history_.get(key, unknown) + values
            for key, values in attributes["history_"].items()
        }
        attributes["ranking_offset_"] = ranking_offset(estimator)
    return attributes


def _train(
    estimator: Any,
    inputs: FitInputs,
    word_counts: np.ndarray,
    earlier: EarlierFit | None = None,
    validation_rows: np.ndarray | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Solution, dict[str, Any]]:
    """Solve, reporting each pass to callbacks and to the progress bar."""
    data = inputs.data
    trained_words = np.flatnonzero(word_counts > 0)
    train, validation = make_datasets(data, trained_words, inputs.group, validation_rows)
    features = None if data.word_features is None else data.word_features.of_words(trained_words)

    def attributes(solution: Solution) -> dict[str, Any]:
        return fitted_attributes(inputs, solution, word_counts, validation_rows)

    callbacks = PassCallbacks(estimator, data.X, data.counts, data.sample_weight, inputs.options.max_iter)
    with closing(PassProgress(len(train), inputs.options.max_iter, inputs.show_progress)) as bar:

        def after_pass(record: PassRecord, current_solution: Callable[[], Solution]) -> bool:
            bar.after_pass(record)
            return callbacks.after_pass(lambda: attributes(current_solution()))

        with without_autocast():
            solution = solve(
                train,
                validation,
                inputs.options,
                inputs.compute,
                PassHooks(callbacks.before_pass, bar.after_step, after_pass),
                earlier=earlier,
                checkpoint=checkpoint,
                word_features=features,
            )
    callbacks.done(lambda: attributes(solution))
    return solution, attributes(solution)


def _warn_of_unfinished(solution: Solution, max_iter: int | None, *, has_checkpoint: bool) -> None:
    """Warn if the fit was interrupted, or ended while it still made progress (``max_iter`` given)."""
    n_passes = len(solution.history)
    if solution.interrupted:
        remedy = "Set checkpoint_dir to be able to continue."
        if has_checkpoint:
            remedy = "The same call continues from the last checkpoint."
        warn_caller(
            f"the fit was interrupted in pass {n_passes + 1}; the model is the best of "
            f"the passes before. {remedy}",
            ConvergenceWarning,
        )
    elif solution.solver == "lbfgs" and not solution.converged:
        remedy = "raise max_iter, or loosen tol"
        if n_passes < (max_iter or 0):  # no step lowers J any more
            remedy = "use precision='float64', or loosen tol"
        warn_caller(
            f"the conditions of the optimum are violated by more than tol after {n_passes} iterations of "
            f"L-BFGS (kkt_residual_ is {solution.kkt_residual:.1e}); {remedy}.",
            ConvergenceWarning,
        )
    elif n_passes == max_iter and not solution.converged:
        warn_caller(
            f"the fit still made progress in its last pass, max_iter={max_iter}; "
            "raise max_iter, or loosen tol.",
            ConvergenceWarning,
        )


def _same_shape(estimator: Any, inputs: FitInputs) -> bool:
    """Whether the estimator is fitted, with the vocabulary and the dimensions of this fit."""
    if not hasattr(estimator, "bias_"):
        return False
    d = inputs.data.X.shape[1]
    return (
        np.array_equal(estimator.vocabulary_, inputs.data.vocabulary)
        and estimator.n_features_in_ == d
        and estimator.rank_ == (inputs.options.rank or d)
    )


def _fitted_point(estimator: Any, trained_words: np.ndarray) -> InitialPoint:
    """The fitted parameters as a point to continue from."""
    A = estimator.word_embeddings_[trained_words]
    is_known = estimator.word_counts_[trained_words] > 0
    return InitialPoint(
        A.toarray() if sp.issparse(A) else A,
        estimator.projection_,
        np.where(is_known, estimator.bias_[trained_words], np.nan),
        estimator.embedding_mean_,
    )


def fitted_attributes(
    inputs: FitInputs, solution: Solution, word_counts: np.ndarray, validation_rows: np.ndarray | None
) -> dict[str, Any]:
    """Fitted attributes over the whole vocabulary; the words with counts are those of the solution."""
    n_words, trained_words = len(word_counts), np.flatnonzero(word_counts > 0)
    A, b, offset = solution.A, solution.b, solution.ranking_offset
    if len(trained_words) < n_words:
        A = np.zeros((n_words, solution.A.shape[1]), dtype=solution.A.dtype)
        A[trained_words] = solution.A
        b = np.full(n_words, UNSEEN_SCORE, dtype=solution.b.dtype)
        b[trained_words] = solution.b
        offset = np.zeros_like(b)
        offset[trained_words] = solution.ranking_offset
    history = {
        field.name: [float(getattr(record, field.name)) for record in solution.history]
        for field in fields(PassRecord)
    }
    fitted = {
        "word_embeddings_": A,
        "projection_": solution.B,
        "bias_": b,
        "ranking_offset_": offset,
        "embedding_mean_": solution.mean,
        "vocabulary_": inputs.data.vocabulary,
        "word_counts_": word_counts,
        "rank_": solution.B.shape[0],
        "n_iter_": len(solution.history),
        "best_iter_": solution.best_pass,
        "history_": history,
        "l1_max_": solution.l1_max,
        "solver_": solution.solver,
        "kkt_residual_": solution.kkt_residual,
        "interrupted_": solution.interrupted,
        "device_": str(inputs.compute.device),
        "n_features_in_": inputs.data.feature_info.n_features_in_,
        "_moments": solution.moments,
        "_held_out": validation_rows,  # rows of X that were not trained on
    }
    if inputs.data.word_features is not None and solution.word_map is not None:
        fitted |= word_map_attributes(inputs.data.word_features, solution.word_map, solution.word_map_ridge)
        fitted["lift_offset_"] = lift_offset(word_counts, solution.A)
    if hasattr(inputs.data.feature_info, "feature_names_in_"):
        fitted["feature_names_in_"] = inputs.data.feature_info.feature_names_in_
    return fitted


class PassProgress:
    """A bar over the rows of each pass, with the loss and the held-out accuracy of the last one.

    It appears after ``io.PROGRESS_DELAY`` seconds; the delay of tqdm starts again in every pass.
    """

    def __init__(self, n_rows: int, max_iter: int, is_shown: bool) -> None:
        self._n_rows, self._max_iter, self._is_shown = n_rows, max_iter, is_shown
        self._pass, self._results = 1, ""
        self._appears_at = time.monotonic() + io.PROGRESS_DELAY
        self._bar: Any = None

    @property
    def _description(self) -> str:
        return f"FLiP pass {self._pass}/{self._max_iter}"

    def after_step(self, rows_done: int) -> None:
        """Show the rows done in this pass."""
        if self._bar is None:
            if not self._is_shown or time.monotonic() < self._appears_at:
                return
            self._bar = io.show_progress(
                total=self._n_rows, unit="row", delay=0, desc=self._description, initial=rows_done
            )
            self._bar.set_postfix_str(self._results)
        if rows_done < self._bar.n:  # a new pass
            self._bar.reset()
        self._bar.update(rows_done - self._bar.n)

    def after_pass(self, record: PassRecord) -> None:
        """Show the results of a pass."""
        self._results = f"loss={record.loss:.3f}"
        if not math.isnan(record.validation_accuracy):
            self._results += f", held-out accuracy={record.validation_accuracy:.3f}"
        if self._bar is not None:
            self._bar.set_postfix_str(self._results)
        if self._pass < self._max_iter:
            self._pass += 1
            if self._bar is not None:
                self._bar.set_description(self._description, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

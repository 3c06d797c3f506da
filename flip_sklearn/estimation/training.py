"""From validated input to fitted attributes: what fit and partial_fit of FLiPExtractor share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from tqdm.auto import tqdm

from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit.checkpoint import Checkpoint
from flip_sklearn.backend.fit.data import CountDataset, count_words
from flip_sklearn.backend.fit.initialization import InitialPoint
from flip_sklearn.backend.fit.session import PassRecord
from flip_sklearn.backend.fit.solver import Options, Solution, solve
from flip_sklearn.estimation.callbacks import PassCallbacks
from flip_sklearn.estimation.resume import check_same_call, join_processes, open_checkpoint
from flip_sklearn.estimation.validation import (
    check_counts,
    check_embeddings,
    check_groups,
    check_same_columns,
    check_vocabulary,
    check_weights,
    resolve_rank,
)
from flip_sklearn.parameters import (
    check_bool,
    check_choice,
    check_folder,
    check_integer,
    check_number,
)

# The score of a word that training never saw: finite, and below every score of a word that it did.
UNSEEN_SCORE = -1e4
EARLY_STOPPING_ROWS = 1000
MAX_VALIDATION_ROWS = 10_000
STEPS_PER_PASS, AUTO_BATCH_RANGE = 50, (32, 500)


@dataclass(frozen=True)
class FitInputs:
    """Everything fit needs, checked before the first number is computed."""

    X: np.ndarray
    Y: sp.csr_array
    weights: np.ndarray
    sample_weight: np.ndarray | None  # as given; None means ones
    groups: np.ndarray | None  # rows to be held out together
    vocabulary: np.ndarray
    carrier: Any  # carries n_features_in_ and feature_names_in_
    options: Options
    compute: Compute
    early_stopping: str | None
    validation_fraction: float
    group: ProcessGroup
    checkpoint: Checkpoint | None
    verbose: bool

    @property
    def random(self) -> np.random.RandomState:
        """The stream that draws the held-out rows; the same whenever it is asked for."""
        return np.random.RandomState(self.options.seed)


def prepare(
    estimator: Any, X: Any, Y: Any, sample_weight: Any, groups: Any = None, *, streaming: bool
) -> FitInputs:
    """Check parameters and data; raises before anything of the estimator is changed."""
    max_iter = check_integer("max_iter", estimator.max_iter, 1)
    fraction = check_number(
        "validation_fraction", estimator.validation_fraction, 0, 1, open_low=True, open_high=True
    )
    early_stopping = check_choice(
        "early_stopping", estimator.early_stopping, ("auto", True, False, "accuracy", "likelihood")
    )
    solver = check_choice("solver", estimator.solver, ("auto", "exact", "sampled"))
    check_integer("top_k", estimator.top_k, 1)
    for name in ("use_bias", "warm_start", "sparse_output"):
        check_bool(name, getattr(estimator, name))
    compute = resolve_compute(estimator.device, estimator.precision)
    folder = check_folder("checkpoint_dir", estimator.checkpoint_dir)
    group = join_processes()
    random = check_random_state(estimator.random_state)
    if not (isinstance(estimator.batch_size, str) and estimator.batch_size == "auto"):
        check_integer("batch_size", estimator.batch_size, 1, or_else="'auto'")
    settings: dict[str, Any] = dict(
        l1=check_number("l1_strength", estimator.l1_strength, 0),
        l2=check_number("l2_strength", estimator.l2_strength, 0),
        tol=check_number("tol", estimator.tol, 0),
        learning_rate=check_number("learning_rate", estimator.learning_rate, 0, open_low=True),
        n_iter_no_change=check_integer("n_iter_no_change", estimator.n_iter_no_change, 1),
    )
    continued = streaming and hasattr(estimator, "bias_")
    array, carrier = check_embeddings(estimator, X, reset=not continued)
    counts, names = check_counts(Y, array.shape[0])
    weights = check_weights(sample_weight, array)
    groups = check_groups(groups, array.shape[0])
    rank = resolve_rank(estimator.rank, array.shape[1])
    if continued:
        if getattr(estimator, "_moments", None) is None:
            raise ValueError(
                "partial_fit cannot go on from a model that was read with from_pretrained: the moments of "
                "its rows are not stored. Use fit with warm_start=True, or pickle the model in between."
            )
        if counts.shape[1] != len(estimator.vocabulary_):
            raise ValueError(
                f"Y has {counts.shape[1]} columns, the chunks before had "
                f"{len(estimator.vocabulary_)}; count every chunk with the same vocabulary."
            )
        if (rank or array.shape[1]) != estimator.rank_:
            raise ValueError(
                f"rank={estimator.rank!r} differs from the rank {estimator.rank_} of the chunks "
                "before; keep it, or start over with fit."
            )
        if names is not None and estimator.vocabulary is None:
            check_same_columns(names, estimator.vocabulary_)
        vocabulary = estimator.vocabulary_
    else:
        vocabulary = check_vocabulary(estimator.vocabulary, names, counts.shape[1])
    informative = (np.diff(counts.indptr) > 0) & (weights > 0)
    with_words = int(informative.sum())
    if with_words == 0:
        raise ValueError(
            f"Y has no counts in any of its {counts.shape[0]} rows (with weight > 0); at least one "
            "row needs a word. Check that the vectorizer's vocabulary fits the texts."
        )
    stop_on = None
    if not streaming and early_stopping is not False:
        if early_stopping == "auto":
            stop_on = "accuracy" if with_words >= EARLY_STOPPING_ROWS else None
        else:
            stop_on = "accuracy" if early_stopping is True else early_stopping
        if stop_on is not None and with_words < 2:
            raise ValueError(
                f"early_stopping={early_stopping!r} needs at least 2 rows with words, X and Y have "
                f"{with_words}; use early_stopping=False."
            )
        if stop_on is not None and groups is not None and np.ptp(groups[informative]) == 0:
            raise ValueError(
                f"early_stopping={early_stopping!r} holds out whole groups, and all {with_words} rows with "
                "words are of one group; use early_stopping=False, or finer groups."
            )
    options = Options(
        rank=rank,
        batch_size=_batch_size(estimator.batch_size, with_words),
        max_iter=1 if streaming else max_iter,
        stop_on=stop_on,
        solver=solver,
        seed=group.broadcast_int(int(random.randint(np.iinfo(np.int32).max)), compute.device),
        **settings,
    )
    data = (array, counts, weights, groups)
    check_same_call(group, options, compute, estimator, data)
    checkpoint = None
    if folder is not None and not streaming:
        checkpoint, options = open_checkpoint(
            folder, group, options, compute, estimator, data, fraction
        )
    return FitInputs(
        array, counts, weights, None if sample_weight is None else weights, groups, vocabulary,
        carrier, options, compute, stop_on, fraction, group, checkpoint,
        bool(estimator.verbose) and group.rank == 0,
    )  # fmt: skip


def _batch_size(batch_size: Any, n: int) -> int:
    """``"auto"``: some 50 steps a pass at least, so that a pass means as much on small data."""
    if batch_size == "auto":
        return int(np.clip(n // STEPS_PER_PASS, *AUTO_BATCH_RANGE))
    return int(batch_size)


def train(estimator: Any, prepared: FitInputs, *, streaming: bool) -> dict[str, Any]:
    """Run the solver and return the fitted attributes; the estimator itself is only read."""
    continued = streaming and hasattr(estimator, "bias_")
    Y = prepared.Y
    counts = count_words(Y.indptr, Y.indices, Y.data, prepared.weights, Y.shape[1])
    past = estimator.word_counts_ if continued else np.zeros_like(counts)
    seen = np.flatnonzero(counts + past > 0)
    train_rows, held_out = _split(prepared, seen)
    start = _start(estimator, prepared, seen, continued=continued)

    def attributes(solution: Solution) -> dict[str, Any]:
        return _attributes(prepared, solution, seen, counts + past, held_out)

    callbacks = PassCallbacks(
        estimator, prepared.X, prepared.Y, prepared.sample_weight, prepared.options.max_iter
    )
    with _progress(prepared, len(train_rows)) as (after_step, show):

        def after_pass(record: PassRecord, so_far: Callable[[], Solution]) -> bool:
            show(record)
            return callbacks.after_pass(lambda: attributes(so_far()))

        solution = solve(
            train_rows,
            held_out,
            prepared.options,
            prepared.compute,
            start=start,
            past_moments=estimator._moments if continued else None,
            past_counts=past[seen] if continued else None,
            checkpoint=prepared.checkpoint,
            before_pass=callbacks.before_pass,
            after_step=after_step,
            after_pass=after_pass,
            report_kkt=not streaming,
        )
    callbacks.done(lambda: attributes(solution))
    if solution.interrupted:
        remedy = "Set checkpoint_dir to be able to go on."
        if prepared.checkpoint is not None:
            remedy = "The same call goes on from the last checkpoint."
        warnings.warn(
            f"the fit was interrupted in pass {len(solution.history) + 1}; the model is the best of "
            f"the passes before. {remedy}",
            ConvergenceWarning,
            stacklevel=5,
        )
    elif (
        not streaming
        and not solution.converged
        and len(solution.history) == prepared.options.max_iter
    ):
        warnings.warn(
            f"the fit still made progress in its last pass, max_iter={prepared.options.max_iter}; "
            "raise max_iter, or loosen tol.",
            ConvergenceWarning,
            stacklevel=5,
        )
    result = attributes(solution)
    if continued:  # history of a stream: one entry per chunk
        result["n_iter_"] += estimator.n_iter_
        result["best_iter_"] = result["n_iter_"]
        result["history_"] = {
            key: estimator.history_[key] + values for key, values in result["history_"].items()
        }
    return result


def _split(prepared: FitInputs, seen: np.ndarray) -> tuple[CountDataset, CountDataset | None]:
    """Training and held-out rows over the columns that have any count."""
    Y = prepared.Y
    silent = np.repeat(prepared.weights == 0, np.diff(Y.indptr))
    if silent.any():  # rows of no weight say nothing: their words may be in no other row
        Y = Y.copy()
        Y.data[silent] = 0
        Y.eliminate_zeros()
    if len(seen) < Y.shape[1]:
        column = np.full(Y.shape[1], -1, dtype=Y.indices.dtype)
        column[seen] = np.arange(len(seen))
        Y = sp.csr_array((Y.data, column[Y.indices], Y.indptr), shape=(Y.shape[0], len(seen)))

    def rows(picked: np.ndarray | slice) -> CountDataset:
        y = Y if isinstance(picked, slice) else Y[picked]
        weights = prepared.weights[picked]
        take = None if isinstance(picked, slice) else picked
        return CountDataset(
            prepared.X, y.indptr, y.indices, y.data, weights, len(seen),
            take=take, group=prepared.group,
        )  # fmt: skip

    weighed = prepared.weights > 0  # the others are not even read
    if prepared.early_stopping is None:
        return rows(slice(None) if weighed.all() else np.flatnonzero(weighed)), None
    informative = np.flatnonzero((np.diff(Y.indptr) > 0) & weighed)
    size = math.ceil(prepared.validation_fraction * len(informative))
    size = min(size, MAX_VALIDATION_ROWS, len(informative) - 1)
    chosen = np.zeros(Y.shape[0], dtype=bool)
    chosen[_draw(informative, size, prepared.groups, prepared.random)] = True
    return rows(np.flatnonzero(weighed & ~chosen)), rows(np.flatnonzero(chosen))


def _draw(
    rows: np.ndarray, size: int, groups: np.ndarray | None, random: np.random.RandomState
) -> np.ndarray:
    """``size`` of the rows with words, or as many whole groups as have no more of them, one at least."""
    if groups is None:
        return random.permutation(rows)[:size]
    label, count = np.unique(groups[rows], return_counts=True)
    order = random.permutation(len(label))
    n_groups = max(1, int(np.searchsorted(np.cumsum(count[order]), size, side="right")))
    return np.flatnonzero(np.isin(groups, label[order[:n_groups]]))


def _start(
    estimator: Any, prepared: FitInputs, seen: np.ndarray, *, continued: bool
) -> InitialPoint | None:
    """Parameters to continue from: the chunks before, or with warm_start a fit of the same shape."""
    if not (continued or (estimator.warm_start and hasattr(estimator, "bias_"))):
        return None
    d = prepared.X.shape[1]
    same = (
        np.array_equal(estimator.vocabulary_, prepared.vocabulary)
        and estimator.n_features_in_ == d
        and estimator.rank_ == (prepared.options.rank or d)
    )
    if not same:
        return None
    A = estimator.word_embeddings_[seen]
    return InitialPoint(
        A.toarray() if sp.issparse(A) else A,
        estimator.projection_,
        estimator.bias_[seen],
        estimator.embedding_mean_,
    )


def _attributes(
    prepared: FitInputs,
    solution: Solution,
    seen: np.ndarray,
    counts: np.ndarray,
    held_out: CountDataset | None,
) -> dict[str, Any]:
    """Fitted attributes over the whole vocabulary."""
    n_words = len(prepared.vocabulary)
    A, b = solution.A, solution.b
    if len(seen) < n_words:
        A = np.zeros((n_words, solution.A.shape[1]), dtype=solution.A.dtype)
        A[seen] = solution.A
        b = np.full(n_words, UNSEEN_SCORE, dtype=solution.b.dtype)
        b[seen] = solution.b
    fitted = {
        "word_embeddings_": A,
        "projection_": solution.B,
        "bias_": b,
        "embedding_mean_": solution.mean,
        "vocabulary_": prepared.vocabulary,
        "word_counts_": counts,
        "rank_": solution.B.shape[0],
        "n_iter_": len(solution.history),
        "best_iter_": solution.best_pass,
        "history_": {
            f.name: [float(getattr(record, f.name)) for record in solution.history]
            for f in fields(PassRecord)
        },
        "l1_max_": solution.l1_max,
        "solver_": solution.solver,
        "kkt_residual_": solution.kkt_residual,
        "device_": str(prepared.compute.device),
        "n_features_in_": prepared.carrier.n_features_in_,
        "_moments": solution.moments,
        "_held_out": None if held_out is None else held_out.take,  # rows of X not trained on
    }
    if hasattr(prepared.carrier, "feature_names_in_"):
        fitted["feature_names_in_"] = prepared.carrier.feature_names_in_
    return fitted


@contextmanager
def _progress(
    prepared: FitInputs, n: int
) -> Iterator[tuple[Callable[[int], None], Callable[[PassRecord], None]]]:
    """A bar over the rows of each pass, with the held-out accuracy so far."""
    options = prepared.options
    bar = tqdm(
        total=n,
        unit="row",
        disable=not prepared.verbose,
        desc=f"FLiP pass 1/{options.max_iter}",
    )
    passes = 1

    def after_step(rows_done: int) -> None:
        bar.update(rows_done - bar.n)

    def after_pass(record: PassRecord) -> None:
        nonlocal passes
        passes += 1
        shown = {"loss": f"{record.loss:.3f}"}
        if not math.isnan(record.validation_accuracy):
            shown["held-out accuracy"] = f"{record.validation_accuracy:.3f}"
        bar.set_postfix(shown, refresh=True)
        if passes <= options.max_iter:
            bar.set_description(f"FLiP pass {passes}/{options.max_iter}", refresh=False)

    def step_and_restart(rows_done: int) -> None:
        if rows_done < bar.n:
            bar.reset()
        after_step(rows_done)

    try:
        yield step_and_restart, after_pass
    finally:
        bar.close()

"""Arguments of fit -> checked rows and solver settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.backend.device import Compute, Embeddings, resolve_compute
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit.data import count_words
from flip_sklearn.backend.fit.state import SolverOptions
from flip_sklearn.estimation.processes import check_same_call, join_processes
from flip_sklearn.estimation.validation import (
    check_counts,
    check_embeddings,
    check_groups,
    check_vocabulary,
    check_weights,
    magnitude_limits,
    refuse_labels,
    resolve_rank,
)
from flip_sklearn.estimation.word_features import WordFeatures, resolve_word_features
from flip_sklearn.metrics.counts import check_columns, warn_of_capitals
from flip_sklearn.parameters import (
    MAX_STRENGTH,
    check_bool,
    check_choice,
    check_folder,
    check_integer,
    check_number,
    check_random_state,
)

SOLVERS = ("auto", "exact", "sampled", "lbfgs")
# `max_iter="auto"`: passes of the stochastic solvers, iterations of L-BFGS.
AUTO_MAX_ITER = (20, 1000)
# `l2_strength="auto"`: without and with features of the words, which explain a part of A's variance.
AUTO_L2 = (20.0, 50.0)
# `early_stopping="auto"` holds rows out from this many rows with words on.
EARLY_STOPPING_ROWS = 1000
# `batch_size="auto"`: at least this many steps a pass, so that a pass means as much on small data.
STEPS_PER_PASS, AUTO_BATCH_RANGE = 50, (32, 500)


@dataclass(frozen=True)
class FitData:
    """Checked rows: embeddings, counts, weights, groups, and the vocabulary of the counts."""

    X: Embeddings
    counts: sp.csr_array
    weights: np.ndarray
    sample_weight: np.ndarray | None  # the weights, or None if none were passed
    groups: np.ndarray | None  # rows of one group are held out together
    vocabulary: np.ndarray
    feature_info: Any  # has n_features_in_ and feature_names_in_
    word_features: WordFeatures | None = None

    @cached_property
    def word_counts(self) -> np.ndarray:
        """Weighted count of every word, float64 (V,)."""
        return count_words(self.counts, self.weights)

    @cached_property
    def has_words(self) -> np.ndarray:
        """Rows with at least one word and a positive weight, bool (n,)."""
        mask: np.ndarray = (np.diff(self.counts.indptr) > 0) & (self.weights > 0)
        return mask

    @property
    def other_arrays(self) -> list[np.ndarray]:
        """The arrays of the rows besides X."""
        arrays = [self.counts.indptr, self.counts.indices, self.counts.data, self.weights]
        if self.groups is not None:
            arrays.append(self.groups)
        if self.word_features is not None:
            arrays.append(self.word_features.values)
        return arrays

    @property
    def n_rows_with_words(self) -> int:
        """Number of rows that training can learn from."""
        return int(self.has_words.sum())


@dataclass(frozen=True)
class FitInputs:
    """A fit that is ready to run: all arguments are checked, "auto" is resolved, the seed is drawn."""

    data: FitData
    options: SolverOptions
    compute: Compute
    group: ProcessGroup
    validation_fraction: float
    checkpoint_dir: Path | None
    show_progress: bool


def prepare(
    estimator: Any, X: Any, Y: Any, sample_weight: Any = None, groups: Any = None, *, streaming: bool = False
) -> FitInputs:
    """Check the arguments of ``fit`` or, with ``streaming``, ``partial_fit``."""
    check_integer("top_k", estimator.top_k, 1)
    for name in ("use_bias", "warm_start", "sparse_output"):
        check_bool(name, getattr(estimator, name))
    fraction = estimator.validation_fraction
    check_number("validation_fraction", fraction, 0, 1, open_low=True, open_high=True)
    checkpoint_dir = check_folder("checkpoint_dir", estimator.checkpoint_dir)
    compute = resolve_compute(estimator.device, _resolve_precision(estimator, streaming=streaming))
    group = join_processes()
    random = check_random_state(estimator.random_state)
    is_fitted = hasattr(estimator, "bias_")
    next_chunk = streaming and is_fitted
    data = check_data(estimator, X, Y, sample_weight, groups, next_chunk=next_chunk)
    seed = int(random.randint(np.iinfo(np.int32).max))
    seed = group.broadcast_int(seed, compute.device)  # all processes draw the same rows
    options = resolve_options(estimator, data, seed, streaming=streaming)
    # Last, because a transformer may take minutes.
    if estimator.word_features is not None:
        features = resolve_word_features(estimator.word_features, data.vocabulary)
        data = replace(data, word_features=features)
    settings = f"{data.counts.shape}{options}{compute.dtype}{is_fitted}"
    check_same_call(group, compute, settings, data.X, data.other_arrays)
    show_progress = bool(estimator.verbose) and group.rank == 0
    return FitInputs(data, options, compute, group, fraction, checkpoint_dir, show_progress)


def _resolve_precision(estimator: Any, *, streaming: bool) -> Any:
    """Check that the solver fits the call and the precision; "auto" is float32 for L-BFGS."""
    if check_choice("solver", estimator.solver, SOLVERS) != "lbfgs":
        return estimator.precision
    if streaming:
        raise ValueError(
            "solver='lbfgs' needs all rows at once; for partial_fit use solver='auto', 'exact' or 'sampled'."
        )
    if estimator.precision == "bfloat16":
        raise ValueError(
            "precision='bfloat16' is too coarse for solver='lbfgs'; use 'auto', 'float32' or 'float64'."
        )
    return "float32" if estimator.precision == "auto" else estimator.precision


def check_data(
    estimator: Any, X: Any, Y: Any, sample_weight: Any, groups: Any, *, next_chunk: bool
) -> FitData:
    """Check the rows of a fit, or of the next chunk of a stream."""
    limits = magnitude_limits(estimator.precision)
    embeddings, feature_info = check_embeddings(estimator, X, reset=not next_chunk, limits=limits)
    refuse_labels(Y, estimator.vocabulary)
    counts, names = check_counts(Y, embeddings.shape[0])
    weights = check_weights(sample_weight, embeddings)
    if next_chunk:
        _check_next_chunk(estimator, embeddings, counts)
        vocabulary = estimator.vocabulary_
    else:
        vocabulary = check_vocabulary(estimator.vocabulary, names, counts.shape[1])
    check_columns(names, vocabulary, renamed=estimator.vocabulary is not None)
    if not next_chunk:
        warn_of_capitals(vocabulary, counts)
    data = FitData(
        X=embeddings,
        counts=counts,
        weights=weights,
        sample_weight=None if sample_weight is None else weights,
        groups=check_groups(groups, embeddings.shape[0]),
        vocabulary=vocabulary,
        feature_info=feature_info,
    )
    if data.n_rows_with_words == 0 and not (next_chunk and counts.nnz == 0):
        raise ValueError(
            f"Y has no counts in any of its {counts.shape[0]} rows (with weight > 0); at least one "
            "row needs a word. Check that the vectorizer's vocabulary fits the texts."
        )
    return data


def _check_next_chunk(estimator: Any, embeddings: Embeddings, counts: sp.csr_array) -> None:
    """Check that a chunk continues the chunks before."""
    if getattr(estimator, "_moments", None) is None:
        raise ValueError(
            "partial_fit cannot continue a model that was read with from_pretrained, which does not "
            "store the moments of its rows. Use fit with warm_start=True, or pickle the model."
        )
    if counts.shape[1] != len(estimator.vocabulary_):
        raise ValueError(
            f"Y has {counts.shape[1]} columns, the earlier chunks had "
            f"{len(estimator.vocabulary_)}; count every chunk with the same vocabulary."
        )
    d = embeddings.shape[1]
    if (resolve_rank(estimator.rank, d) or d) != estimator.rank_:
        raise ValueError(
            f"rank={estimator.rank!r} differs from the rank {estimator.rank_} of the chunks "
            "before; keep it, or start over with fit."
        )


def resolve_options(estimator: Any, data: FitData, seed: int, *, streaming: bool) -> SolverOptions:
    """Check the parameters of the solver, and resolve "auto" by the data.

    A chunk of a stream is one pass, with no rows held out.
    """
    batch_size = estimator.batch_size
    if isinstance(batch_size, str) and batch_size == "auto":
        batch_size = int(np.clip(data.n_rows_with_words // STEPS_PER_PASS, *AUTO_BATCH_RANGE))
    max_iter = resolve_max_iter(estimator)
    solver = check_choice("solver", estimator.solver, SOLVERS)
    stop_on = _resolve_early_stopping(estimator, data, streaming=streaming)
    return SolverOptions(
        rank=resolve_rank(estimator.rank, data.X.shape[1]),
        l1=check_number("l1_strength", estimator.l1_strength, 0, MAX_STRENGTH),
        l2=resolve_l2(estimator),
        l2_without_features=resolve_l2(estimator, uses_features=False),
        max_iter=1 if streaming else max_iter,
        tol=check_number("tol", estimator.tol, 0),
        batch_size=check_integer("batch_size", batch_size, 1, or_else="'auto'"),
        learning_rate=check_number("learning_rate", estimator.learning_rate, 0, open_low=True),
        stop_on=stop_on,
        n_iter_no_change=check_integer("n_iter_no_change", estimator.n_iter_no_change, 1),
        seed=seed,
        solver=solver,
        report_kkt=not streaming,
        # At the optimum over the rows, b needs no refit.
        refit_bias=not streaming and (solver != "lbfgs" or stop_on is not None),
    )


def resolve_l2(estimator: Any, *, uses_features: bool | None = None) -> float:
    """Check ``l2_strength``; features of the words act through it, and "auto" depends on them."""
    if uses_features is None:
        uses_features = estimator.word_features is not None
    if isinstance(estimator.l2_strength, str) and estimator.l2_strength == "auto":
        return AUTO_L2[uses_features]
    l2 = check_number("l2_strength", estimator.l2_strength, 0, MAX_STRENGTH, or_else="'auto'")
    if l2 == 0 and estimator.word_features is not None:
        raise ValueError(
            "l2_strength=0 leaves word_features without effect: they are the mean of the prior that "
            "l2_strength weighs; use l2_strength > 0, or word_features=None."
        )
    return l2


def resolve_max_iter(estimator: Any) -> int:
    """Check the maximum number of passes; "auto" depends on the solver."""
    if isinstance(estimator.max_iter, str) and estimator.max_iter == "auto":
        return AUTO_MAX_ITER[estimator.solver == "lbfgs"]
    return check_integer("max_iter", estimator.max_iter, 1, or_else="'auto'")


def _resolve_early_stopping(estimator: Any, data: FitData, *, streaming: bool) -> str | None:
    """The criterion on held-out rows, "accuracy" or "likelihood"; None if no rows are held out."""
    choices = ("auto", True, False, "accuracy", "likelihood")
    early_stopping = check_choice("early_stopping", estimator.early_stopping, choices)
    n_rows = data.n_rows_with_words
    # "lbfgs" is for the optimum over all rows.
    is_off = early_stopping == "auto" and (n_rows < EARLY_STOPPING_ROWS or estimator.solver == "lbfgs")
    if streaming or early_stopping is False or is_off:
        return None
    if n_rows < 2:
        raise ValueError(
            f"early_stopping={early_stopping!r} needs at least 2 rows with words, X and Y have "
            f"{n_rows}; use early_stopping=False."
        )
    if data.groups is not None and np.ptp(data.groups[data.has_words]) == 0:
        raise ValueError(
            f"early_stopping={early_stopping!r} holds out whole groups, and all {n_rows} rows with "
            "words are of one group; use early_stopping=False, or finer groups."
        )
    return "likelihood" if early_stopping == "likelihood" else "accuracy"

"""Arguments of fit -> checked parameters and arrays. Raises before anything of the estimator is changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.fit.data import count_words
from flip_sklearn.backend.fit.session import SolverOptions
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

# `early_stopping="auto"` holds rows out from this many rows with words on.
EARLY_STOPPING_ROWS = 1000
# `batch_size="auto"`: at least this many steps a pass, so that a pass means as much on small data.
STEPS_PER_PASS, AUTO_BATCH_RANGE = 50, (32, 500)


@dataclass(frozen=True)
class FitParameters:
    """Checked parameters of the estimator that do not depend on the data."""

    max_iter: int
    l1: float
    l2: float
    tol: float
    learning_rate: float
    n_iter_no_change: int
    batch_size: int | None  # None for "auto"
    solver: str
    early_stopping: bool | str
    validation_fraction: float
    compute: Compute
    checkpoint_dir: Path | None


@dataclass(frozen=True)
class FitData:
    """Checked rows: embeddings, counts, weights, groups, and the vocabulary of the counts."""

    X: np.ndarray
    counts: sp.csr_array
    weights: np.ndarray
    sample_weight: np.ndarray | None  # the weights, or None if none were passed
    groups: np.ndarray | None  # rows of one group are held out together
    vocabulary: np.ndarray
    feature_info: Any  # has n_features_in_ and feature_names_in_

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
    def n_rows_with_words(self) -> int:
        """Number of rows that training can learn from."""
        return int(self.has_words.sum())


def check_parameters(estimator: Any) -> FitParameters:
    """Check the parameters of an estimator."""
    check_integer("top_k", estimator.top_k, 1)
    for name in ("use_bias", "warm_start", "sparse_output"):
        check_bool(name, getattr(estimator, name))
    batch_size = None
    if not (isinstance(estimator.batch_size, str) and estimator.batch_size == "auto"):
        batch_size = check_integer("batch_size", estimator.batch_size, 1, or_else="'auto'")
    return FitParameters(
        max_iter=check_integer("max_iter", estimator.max_iter, 1),
        l1=check_number("l1_strength", estimator.l1_strength, 0),
        l2=check_number("l2_strength", estimator.l2_strength, 0),
        tol=check_number("tol", estimator.tol, 0),
        learning_rate=check_number("learning_rate", estimator.learning_rate, 0, open_low=True),
        n_iter_no_change=check_integer("n_iter_no_change", estimator.n_iter_no_change, 1),
        batch_size=batch_size,
        solver=check_choice("solver", estimator.solver, ("auto", "exact", "sampled")),
        early_stopping=check_choice(
            "early_stopping",
            estimator.early_stopping,
            ("auto", True, False, "accuracy", "likelihood"),
        ),
        validation_fraction=check_number(
            "validation_fraction",
            estimator.validation_fraction,
            0,
            1,
            open_low=True,
            open_high=True,
        ),
        compute=resolve_compute(estimator.device, estimator.precision),
        checkpoint_dir=check_folder("checkpoint_dir", estimator.checkpoint_dir),
    )


def check_data(
    estimator: Any, X: Any, Y: Any, sample_weight: Any, groups: Any, *, next_chunk: bool
) -> FitData:
    """Check the rows of a fit, or of the next chunk of a stream."""
    embeddings, feature_info = check_embeddings(estimator, X, reset=not next_chunk)
    counts, names = check_counts(Y, embeddings.shape[0])
    weights = check_weights(sample_weight, embeddings)
    if next_chunk:
        _check_next_chunk(estimator, embeddings, counts, names)
        vocabulary = estimator.vocabulary_
    else:
        vocabulary = check_vocabulary(estimator.vocabulary, names, counts.shape[1])
    data = FitData(
        X=embeddings,
        counts=counts,
        weights=weights,
        sample_weight=None if sample_weight is None else weights,
        groups=check_groups(groups, embeddings.shape[0]),
        vocabulary=vocabulary,
        feature_info=feature_info,
    )
    if data.n_rows_with_words == 0:
        raise ValueError(
            f"Y has no counts in any of its {counts.shape[0]} rows (with weight > 0); at least one "
            "row needs a word. Check that the vectorizer's vocabulary fits the texts."
        )
    return data


def _check_next_chunk(
    estimator: Any, embeddings: np.ndarray, counts: sp.csr_array, names: list[str] | None
) -> None:
    """Check that a chunk continues the chunks before."""
    if getattr(estimator, "_moments", None) is None:
        raise ValueError(
            "partial_fit cannot continue a model that was read with from_pretrained, which does not "
            "store the moments of its rows. Use fit with warm_start=True, or pickle the model."
        )
    if counts.shape[1] != len(estimator.vocabulary_):
        raise ValueError(
            f"Y has {counts.shape[1]} columns, the chunks before had "
            f"{len(estimator.vocabulary_)}; count every chunk with the same vocabulary."
        )
    d = embeddings.shape[1]
    if (resolve_rank(estimator.rank, d) or d) != estimator.rank_:
        raise ValueError(
            f"rank={estimator.rank!r} differs from the rank {estimator.rank_} of the chunks "
            "before; keep it, or start over with fit."
        )
    if names is not None and estimator.vocabulary is None:
        check_same_columns(names, estimator.vocabulary_)


def resolve_early_stopping(early_stopping: bool | str, data: FitData) -> str | None:
    """The criterion on held-out rows, "accuracy" or "likelihood"; None for no held-out rows."""
    n_rows = data.n_rows_with_words
    if early_stopping is False or (early_stopping == "auto" and n_rows < EARLY_STOPPING_ROWS):
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


def resolve_options(
    estimator: Any,
    parameters: FitParameters,
    data: FitData,
    *,
    stop_on: str | None,
    seed: int,
    single_pass: bool,
) -> SolverOptions:
    """Solver settings with every "auto" resolved."""
    batch_size = parameters.batch_size
    if batch_size is None:
        batch_size = int(np.clip(data.n_rows_with_words // STEPS_PER_PASS, *AUTO_BATCH_RANGE))
    return SolverOptions(
        rank=resolve_rank(estimator.rank, data.X.shape[1]),
        l1=parameters.l1,
        l2=parameters.l2,
        max_iter=1 if single_pass else parameters.max_iter,
        tol=parameters.tol,
        batch_size=batch_size,
        learning_rate=parameters.learning_rate,
        stop_on=stop_on,
        n_iter_no_change=parameters.n_iter_no_change,
        seed=seed,
        solver=parameters.solver,
        report_kkt=not single_pass,
    )

"""From fitted attributes to scores, top words and sparse results: what FLiPExtractor's verbs share."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.scoring.scorer import Scorer
from flip_sklearn.estimation.validation import check_embeddings
from flip_sklearn.parameters import check_bool, check_integer


def fitted_input(estimator: Any, X: Any) -> np.ndarray:
    """X checked against the fit."""
    check_is_fitted(estimator)
    return check_embeddings(estimator, X, reset=False)[0]


def output_dtype(X: np.ndarray) -> np.dtype:
    """float64 for float64 embeddings, float32 for all others."""
    return np.dtype(np.float64 if X.dtype == np.float64 else np.float32)


def scoring_compute(estimator: Any, precision: str) -> Compute:
    """Where a fitted estimator computes: on its device, or on the CPU where its GPU is not there."""
    try:
        return resolve_compute(estimator.device, precision)
    except ValueError:
        # A model fitted on a GPU opens and scores anywhere.
        asked, ran = str(estimator.device), estimator.device_
        if not (asked.startswith("cuda") and ran.startswith("cuda")):
            raise
        warnings.warn(
            f"device={asked!r} is not available here; scoring on the CPU. Silence this with "
            "set_params(device='auto').",
            stacklevel=5,
        )
        return resolve_compute("cpu", precision)


def make_scorer(estimator: Any, use_bias: bool | None = None) -> Scorer:
    """The fitted factors on the estimator's device; scores with b or without, None as the estimator."""
    compute = scoring_compute(estimator, estimator.precision)
    if use_bias is None:
        use_bias = check_bool("use_bias", estimator.use_bias)
    return Scorer(
        estimator.word_embeddings_,
        estimator.projection_,
        estimator.bias_ if use_bias else np.zeros_like(estimator.bias_),
        estimator.embedding_mean_,
        compute,
        unseen=estimator.word_counts_ <= 0,
    )


def top_words(
    estimator: Any,
    X: np.ndarray,
    k: Any,
    *,
    use_bias: bool | None = None,
    probabilities: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Best words and scores of each row, best first; never words that training did not see."""
    k = most_words(estimator, k)
    with progress(estimator, len(X)) as bar:
        scorer = make_scorer(estimator, use_bias)
        return scorer.top(X, k, probabilities=probabilities, after_block=bar.update)


def keywords(
    estimator: Any, X: np.ndarray, k: Any, return_scores: bool, *, use_bias: bool | None = None
) -> list[list[Any]]:
    """The words of each row, best first, or (word, score) pairs.

    Word by word as the rows come: next to the lists there is only one block of rows.
    """
    k = most_words(estimator, k)
    found: list[list[Any]] = []
    with progress(estimator, len(X)) as bar:
        for indices, scores in make_scorer(estimator, use_bias).top_blocks(X, k):
            words = estimator.vocabulary_[indices].tolist()
            found += with_scores(words, scores.tolist()) if return_scores else words
            bar.update(len(indices))
    return found


def with_scores(words: list[list[str]], scores: list[list[float]]) -> list[list[tuple[str, float]]]:
    """(word, score) pairs of each row."""
    return [
        list(zip(row_words, row_scores, strict=True))
        for row_words, row_scores in zip(words, scores, strict=True)
    ]


def keyword_hits(estimator: Any, X: np.ndarray, counts: sp.csr_array) -> np.ndarray:
    """Per row: how many of its words are among as many extracted ones."""
    with progress(estimator, len(X)) as bar:
        return make_scorer(estimator).hits(X, counts, after_block=bar.update)


def most_words(estimator: Any, k: Any) -> int:
    """``k`` words a row, or as many as training saw."""
    return min(check_integer("top_k", k, 1), int((estimator.word_counts_ > 0).sum()))


def progress(estimator: Any, n: int) -> Any:
    """A bar for scoring that lasts, when the estimator is verbose."""
    return tqdm(total=n, unit="row", desc="FLiP scoring", delay=2, disable=not estimator.verbose)


def rows_to_csr(indices: np.ndarray, values: np.ndarray, n_words: int) -> sp.csr_array:
    """(n, k) words and their values as a canonical csr_array (n, V)."""
    n, k = indices.shape
    order = np.argsort(indices, axis=1)
    columns = np.take_along_axis(indices, order, axis=1).ravel()
    data = np.take_along_axis(values, order, axis=1).ravel()
    return sp.csr_array((data, columns, np.arange(0, n * k + 1, k)), shape=(n, n_words))


def dense(estimator: Any, X: Any, what: str) -> np.ndarray:
    """ "scores", "softmax" or "log_softmax" of all words (n, V)."""
    X = fitted_input(estimator, X)
    dtype = output_dtype(X)
    refuse_too_large(X.shape[0], len(estimator.vocabulary_), dtype)
    return make_scorer(estimator).dense(X, what).astype(dtype, copy=False)


def refuse_too_large(n: int, n_words: int, dtype: np.dtype) -> None:
    """Raise where a dense (n, V) array would not fit."""
    need, free = n * n_words * dtype.itemsize, free_memory()
    if need > free:
        raise ValueError(
            f"a dense ({n}, {n_words}) array takes {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB "
            "are free; pass fewer rows at a time, or use extract_keywords, predict or transform "
            "(sparse), which need no such array."
        )


def free_memory() -> int:
    """Bytes that a new array may take: what Linux calls available, else half of the memory."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 8 * 2**30

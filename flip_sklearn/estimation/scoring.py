"""From fitted attributes to scores, top words and sparse results: the shared part of scoring methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.backend.device import Compute, Embeddings, resolve_compute, without_autocast
from flip_sklearn.backend.scoring.scorer import Scorer
from flip_sklearn.estimation.array_api import like
from flip_sklearn.estimation.memory import free_memory
from flip_sklearn.estimation.validation import check_embeddings
from flip_sklearn.io import show_progress
from flip_sklearn.parameters import check_bool, check_integer, warn_caller


def snapshot(estimator: Any) -> Any:
    """A fitted estimator as it is now; a refit in another thread does not change the copy."""
    check_is_fitted(estimator)
    copy = object.__new__(type(estimator))
    copy.__dict__.update(estimator.__dict__)
    return copy


def fitted_input(estimator: Any, X: Any) -> Embeddings:
    """Check that the estimator is fitted and that X fits it; return X as ``check_embeddings`` does."""
    check_is_fitted(estimator)
    return check_embeddings(estimator, X, reset=False)[0]


def output_dtype(X: Embeddings) -> np.dtype:
    """float64 for float64 embeddings, float32 for all others."""
    return np.dtype(np.float64 if str(X.dtype).endswith("float64") else np.float32)


def scoring_compute(estimator: Any, precision: str) -> Compute:
    """The device of a fitted estimator, or the CPU if it was fitted on a GPU that does not exist here."""
    try:
        return resolve_compute(estimator.device, precision)
    except ValueError:
        requested, fitted_on = str(estimator.device), estimator.device_
        if not (requested.startswith("cuda") and fitted_on.startswith("cuda")):
            raise
        warn_caller(
            f"device={requested!r} is not available here; scoring on the CPU. Silence this with "
            "set_params(device='auto')."
        )
        return resolve_compute("cpu", precision)


def make_scorer(estimator: Any, use_bias: bool | None = None) -> Scorer:
    """The fitted factors on the estimator's device; ``use_bias=None`` is the estimator's setting.

    With bias, words are ranked with ``ranking_offset_``, without it with ``lift_offset_`` if there is one.
    """
    compute = scoring_compute(estimator, estimator.precision)
    if use_bias is None:
        use_bias = check_bool("use_bias", estimator.use_bias)
    offset = ranking_offset(estimator) if use_bias else getattr(estimator, "lift_offset_", None)
    return Scorer(
        estimator.word_embeddings_,
        estimator.projection_,
        estimator.bias_ if use_bias else np.zeros_like(estimator.bias_),
        estimator.embedding_mean_,
        compute,
        unseen=estimator.word_counts_ <= 0,
        ranking_offset=offset if offset is not None and offset.any() else None,
    )


def ranking_offset(estimator: Any) -> np.ndarray:
    """``ranking_offset_`` (V,); zeros for a model that an earlier version has pickled."""
    offset = getattr(estimator, "ranking_offset_", None)
    return np.zeros_like(estimator.bias_) if offset is None else np.asarray(offset)


@without_autocast()
def top_words(
    estimator: Any, X: Embeddings, k: Any, *, use_bias: bool | None = None, probabilities: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k best words of each row and their scores, best first; unseen words are never among them."""
    k = resolve_top_k(estimator, k)
    with progress(estimator, len(X)) as bar:
        scorer = make_scorer(estimator, use_bias)
        return scorer.top(X, k, probabilities=probabilities, after_block=bar.update)


@without_autocast()
def keywords(
    estimator: Any, X: Embeddings, k: Any, return_scores: bool, *, use_bias: bool | None = None
) -> list[list[Any]]:
    """The words of each row, best first, or (word, score) pairs.

    Indices and scores exist for one block of rows at a time, which is less memory than for all rows.
    """
    k = resolve_top_k(estimator, k)
    result: list[list[Any]] = []
    with progress(estimator, len(X)) as bar:
        for indices, scores in make_scorer(estimator, use_bias).top_blocks(X, k):
            words = estimator.vocabulary_[indices].tolist()
            result += with_scores(words, scores.tolist()) if return_scores else words
            bar.update(len(indices))
    return result


def with_scores(words: list[list[str]], scores: list[list[float]]) -> list[list[tuple[str, float]]]:
    """(word, score) pairs of each row."""
    return [
        list(zip(row_words, row_scores, strict=True))
        for row_words, row_scores in zip(words, scores, strict=True)
    ]


@without_autocast()
def keyword_hits(
    estimator: Any, X: Embeddings, counts: sp.csr_array, use_bias: bool | None = None
) -> np.ndarray:
    """Number of the words of each row that are among its best words, as many as it has words."""
    if use_bias is not None:
        use_bias = check_bool("use_bias", use_bias)
    with progress(estimator, len(X)) as bar:
        return make_scorer(estimator, use_bias).hits(X, counts, after_block=bar.update)


def resolve_top_k(estimator: Any, k: Any) -> int:
    """The checked number of words per row, at most the number of words that training saw."""
    return min(check_integer("top_k", k, 1), int((estimator.word_counts_ > 0).sum()))


def progress(estimator: Any, n: int) -> Any:
    """A progress bar, shown after two seconds if the estimator is verbose."""
    return show_progress(total=n, unit="row", desc="FLiP scoring", disable=not estimator.verbose)


def top_to_csr(indices: np.ndarray, values: np.ndarray, n_words: int) -> sp.csr_array:
    """Word indices (n, k), padded with -1, and their values as a canonical csr_array (n, V)."""
    is_word = indices >= 0
    order = np.argsort(np.where(is_word, indices, n_words), axis=1, kind="stable")
    is_word = np.take_along_axis(is_word, order, axis=1)
    columns = np.take_along_axis(indices, order, axis=1)[is_word]
    data = np.take_along_axis(values, order, axis=1)[is_word]
    row_start = np.r_[0, np.cumsum(is_word.sum(axis=1))]
    return sp.csr_array((data, columns, row_start), shape=(len(indices), n_words))


@without_autocast()
def dense(estimator: Any, X: Any, transform: str) -> Any:
    """Scores of all words (n, V), or their "softmax" or "log_softmax"."""
    estimator = snapshot(estimator)
    embeddings = fitted_input(estimator, X)
    n_words = len(estimator.vocabulary_)
    refuse_too_large(embeddings, n_words)
    with translate_memory_errors(embeddings, n_words):
        result = make_scorer(estimator).dense(embeddings, transform)
        return like(X, result, output_dtype(embeddings))


def refuse_too_large(X: Embeddings, n_words: int) -> None:
    """Raise if a dense array (n, V) of results would not fit in memory.

    On a device torch itself refuses to allocate it; the operating system would end the process later.
    """
    if not isinstance(X, np.ndarray) and X.device.type != "cpu":
        return
    size, free = X.shape[0] * n_words * output_dtype(X).itemsize, free_memory()
    if size > free:
        raise _too_large(X, n_words, f"{free / 2**30:.1f} GiB are free")


@contextmanager
def translate_memory_errors(X: Embeddings, n_words: int) -> Iterator[None]:
    """Raise the error of ``refuse_too_large`` if memory for the dense array (n, V) cannot be allocated.

    Limits that ``free_memory`` does not know, and other threads, leave less than it returns.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch raises a plain RuntimeError on the host.
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise _too_large(X, n_words, "which cannot be allocated") from error
        raise


def _too_large(X: Embeddings, n_words: int, reason: str) -> ValueError:
    size = X.shape[0] * n_words * output_dtype(X).itemsize
    return ValueError(
        f"a dense ({X.shape[0]}, {n_words}) array takes {size / 2**30:.1f} GiB, {reason}; pass fewer rows at "
        "a time, or use extract_keywords, predict or transform (sparse), which need no such array."
    )

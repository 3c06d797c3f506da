"""Perplexity and log-likelihood per word of predicted word distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing

from flip_sklearn.io import as_numpy
from flip_sklearn.metrics.counts import check_columns_of, count_matrix
from flip_sklearn.metrics.ranking import check_n_rows, check_same_columns, row_blocks, snapshot_with
from flip_sklearn.metrics.summary import RowMean, RowStatistic, check_weights, divide, rescale_weights

# Tolerance for rounding: logarithms of probabilities near one may be slightly above zero.
_ROUNDING = 1e-5


@dataclass(frozen=True, repr=False)
class Perplexity(RowStatistic):
    """Result of :func:`perplexity`; ``float(result)`` is the perplexity.

    Attributes
    ----------
    value : float
        The perplexity, >= 1: the exponential of the mean of ``per_row``, weighted by the words of the rows.
        Infinite if a word that occurs has probability zero, nan if no row has words.
    standard_error : float
        Standard error of ``value``; nan for fewer than two rows.
    n_rows, n_skipped : int
        Number of rows with words, and of rows without words.
    per_row : ndarray of shape (n,)
        Negative log-likelihood per word of each row, in nats; nan for rows without words.
    """


def perplexity(Y: Any, log_proba: Any, *, sample_weight: Any = None) -> Perplexity:
    """Perplexity per word: the number of equally likely words that would be as hard to predict.

    With counts Y, probabilities theta and weights w::

        perplexity = exp(nll),    nll = - sum_nj w_n Y_nj log theta_nj / sum_nj w_n Y_nj.

    Its standard error follows from that of the nll by the delta method, rows being independent: with N_n =
    sum_j Y_nj, W = sum_n w_n N_n, nll_n the nll of row n alone and m rows with w_n N_n > 0::

        standard_error = perplexity sqrt(m / (m - 1)  sum_n (w_n N_n (nll_n - nll) / W)^2).

    Every occurrence of a word counts, unlike in the other metrics: nll is the data term of the objective
    of FLiP (Kesiraju et al. 2026, arXiv 2604.18109). It evaluates probabilities, accuracy only ranks.

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts, >= 0.
    log_proba : array-like of shape (n, V)
        Natural logarithms of each row's word distribution, as ``predict_log_proba`` returns them.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    Perplexity
        ``value`` is the perplexity, ``per_row`` holds nll_n in nats per word; rows without words are
        skipped.

    Raises
    ------
    ValueError
        If shapes do not match, or the logarithm for a word that occurs is NaN or above zero.

    See Also
    --------
    log_likelihood_scorer : -nll of a fitted estimator, without an (n, V) array.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.metrics import perplexity
    >>> theta = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
    >>> perplexity([[2, 0, 0], [1, 1, 0]], np.log(theta))  # 2 words at 1/2, 2 words at 1/8
    Perplexity(4.0000 +- 2.7726, n_rows=2, n_skipped=0)
    """
    counts = count_matrix(Y)
    check_same_columns(Y, log_proba, counts)
    log_proba = np.asarray(as_numpy(log_proba))
    if log_proba.shape != counts.shape:
        raise ValueError(
            f"log_proba has shape {log_proba.shape}, Y has {counts.shape}; pass the logarithm of the "
            "probability of every word in every row."
        )
    nll = _negative_log_likelihood(counts, _select_logs(log_proba, counts), sample_weight)
    with np.errstate(over="ignore"):
        value = float(np.exp(nll.value))
    return Perplexity(value, value * nll.standard_error, nll.n_rows, nll.n_skipped, nll.per_row)


def log_likelihood_scorer(estimator: Any, X: Any, Y: Any, sample_weight: Any = None) -> float:
    """Mean log-likelihood per word as a scorer: ``GridSearchCV(..., scoring=log_likelihood_scorer)``.

    ::

        sum_nj w_n Y_nj log theta_nj / sum_nj w_n Y_nj

    in nats, <= 0, greater is better; ``exp`` of its negative is the :func:`perplexity`. Distributions are
    computed for a bounded number of rows at a time, never as one (n, V) array.

    Parameters
    ----------
    estimator : fitted estimator
        With ``predict_log_proba`` or ``predict_proba``: one distribution over the columns of Y for each row.
    X : array-like of shape (n, d)
        Embeddings, as the estimator takes them.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts, >= 0.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    float
        The value in nats, at most 0: nan if no row has words, minus infinity if a word that occurs has
        probability zero.

    Raises
    ------
    ValueError
        If shapes do not match, or the logarithm for a word that occurs is NaN or above zero.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.metrics import log_likelihood_scorer, perplexity
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.5, size=(60, 4))
    >>> X = Y @ rng.normal(size=(4, 6))
    >>> flip = FLiPExtractor(random_state=0).fit(X, Y)
    >>> score = log_likelihood_scorer(flip, X, Y)
    >>> bool(np.isclose(np.exp(-score), perplexity(Y, flip.predict_log_proba(X)).value))
    True
    """
    counts = count_matrix(Y)
    check_n_rows(X, counts.shape[0])
    check_columns_of(estimator, Y, counts)
    estimator = snapshot_with(estimator, "predict_log_proba", "predict_proba")
    logs = [np.empty(0)]
    for rows in row_blocks(*counts.shape):
        block = counts[rows]
        log_proba = _predict_log_proba(estimator, _safe_indexing(X, rows), block.shape)
        logs.append(_select_logs(log_proba, block))
    return -_negative_log_likelihood(counts, np.concatenate(logs), sample_weight).value


def _predict_log_proba(estimator: Any, X: Any, shape: tuple[int, int]) -> np.ndarray:
    has_logs = hasattr(estimator, "predict_log_proba")
    proba = estimator.predict_log_proba(X) if has_logs else estimator.predict_proba(X)
    if isinstance(proba, list) or np.shape(proba) != shape:
        actual = "a list" if isinstance(proba, list) else f"of shape {np.shape(proba)}"
        raise ValueError(
            f"the estimator's probabilities are {actual}; a likelihood needs one distribution over the "
            f"{shape[1]} columns of Y for each row, here {shape}."
        )
    with np.errstate(divide="ignore"):  # log(0) is minus infinity
        return np.asarray(proba if has_logs else np.log(proba))


def _select_logs(log_proba: np.ndarray, counts: sp.csr_array) -> np.ndarray:
    """Return the logarithm for each stored count, in their order."""
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    return np.asarray(log_proba[row, counts.indices])


def _negative_log_likelihood(counts: sp.csr_array, logs: np.ndarray, sample_weight: Any) -> RowMean:
    """Compute the mean negative log-likelihood per word; ``logs`` has one entry per stored count."""
    logs = logs.astype(float)
    if np.isnan(logs).any():
        raise ValueError("log_proba holds NaN for a word that occurs; pass logarithms <= 0.")
    if (logs > _ROUNDING).any():
        raise ValueError(
            f"log_proba holds {logs.max():.4g} for a word that occurs; logarithms of probabilities "
            "are <= 0. Pass predict_log_proba or np.log(theta), not scores or probabilities."
        )
    n = counts.shape[0]
    row = np.repeat(np.arange(n), np.diff(counts.indptr))
    total_count = np.bincount(row, weights=counts.data.astype(float), minlength=n)
    nats = -np.bincount(row, weights=counts.data * logs, minlength=n)
    weights = rescale_weights(check_weights(sample_weight, n)) * total_count
    return RowMean.of(divide(nats, total_count, np.nan), weights)

"""Perplexity and log-likelihood per word: how well a distribution over words predicts the counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from flip_sklearn.metrics.ranking import counts_csr, row_blocks
from flip_sklearn.metrics.summary import RowMean, check_weights

# Logarithms of probabilities near one may come out above zero by rounding.
_ROUNDING = 1e-5


def perplexity(Y: Any, log_proba: Any, *, sample_weight: Any = None) -> RowMean:
    """Perplexity per word: how many equally likely words the model chooses among.

    With counts Y, probabilities theta and weights w:

        perplexity = exp(nll),    nll = - sum_nj w_n Y_nj log theta_nj / sum_nj w_n Y_nj.

    Its standard error is that of the nll by the delta method, with the sentence as the unit: with N_n =
    sum_j Y_nj, W = sum_n w_n N_n, row n's own nll_n and m rows that count,

        standard_error = perplexity sqrt(m / (m - 1)  sum_n (w_n N_n (nll_n - nll) / W)^2).

    Every occurrence of a word counts, unlike in the other metrics: nll is the data term of the objective
    that FLiP is trained for (Kesiraju et al. 2026, arXiv 2604.18109), so it judges probabilities where
    accuracy judges ranks.

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        True word counts, >= 0.
    log_proba : array-like of shape (n, V)
        Natural logarithms of each row's word distribution, such as ``predict_log_proba`` gives.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    RowMean
        ``value`` is the perplexity, >= 1, and infinite if a word that occurs has probability zero;
        ``per_row`` holds nll_n in nats per word, nan for rows without words, which are skipped.

    Raises
    ------
    ValueError
        If shapes do not match, or the logarithm for a word that occurs is NaN or above zero.

    See Also
    --------
    log_likelihood_scorer : -nll of a fitted estimator, with no (n, V) array.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.metrics import perplexity
    >>> theta = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
    >>> perplexity([[2, 0, 0], [1, 1, 0]], np.log(theta))  # 2 words at 1/2, 2 words at 1/8
    RowMean(4.0000 +- 2.7726, n_rows=2, n_skipped=0)
    """
    counts = counts_csr(Y)
    log_proba = np.asarray(log_proba)
    if log_proba.shape != counts.shape:
        raise ValueError(
            f"log_proba has shape {log_proba.shape}, Y has {counts.shape}; pass the logarithm of the "
            "probability of every word in every row."
        )
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    nll = RowMean.of(*_nats_and_weights(counts, log_proba[rows, counts.indices], sample_weight))
    with np.errstate(over="ignore"):
        value = float(np.exp(nll.value))
        error = float(value * nll.standard_error)
    return RowMean(value, error, nll.n_rows, nll.n_skipped, nll.per_row)


def log_likelihood_scorer(estimator: Any, X: Any, Y: Any, sample_weight: Any = None) -> float:
    """Mean log-likelihood per word as a scorer: ``GridSearchCV(..., scoring=log_likelihood_scorer)``.

        sum_nj w_n Y_nj log theta_nj / sum_nj w_n Y_nj

    in nats, <= 0, greater is better; ``exp`` of its negative is the :func:`perplexity`. It asks for the
    distributions of a bounded number of rows at a time, so no (n, V) array is made.

    Parameters
    ----------
    estimator : fitted estimator
        With ``predict_log_proba`` or ``predict_proba`` that give one distribution over Y's columns a row.
    X : array-like of shape (n, d)
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts, >= 0.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    float
        nan when no row has words; minus infinity if a word that occurs has probability zero.

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
    counts = counts_csr(Y)
    n, n_words = counts.shape
    if _num_samples(X) != n:
        raise ValueError(
            f"X has {_num_samples(X)} rows, Y has {n}; pass one row of counts per row."
        )
    logs = np.empty(counts.nnz)
    for rows in row_blocks(n, n_words):
        block = _log_distributions(estimator, _safe_indexing(X, rows), (len(rows), n_words))
        start, end = counts.indptr[rows[0]], counts.indptr[rows[-1] + 1]
        row = np.repeat(rows - rows[0], np.diff(counts.indptr[rows[0] : rows[-1] + 2]))
        logs[start:end] = block[row, counts.indices[start:end]]
    return -float(RowMean.of(*_nats_and_weights(counts, logs, sample_weight)))


def _log_distributions(estimator: Any, X: Any, shape: tuple[int, int]) -> np.ndarray:
    give_logs = getattr(estimator, "predict_log_proba", None)
    block = give_logs(X) if give_logs is not None else estimator.predict_proba(X)
    if isinstance(block, list) or np.shape(block) != shape:
        got = "a list" if isinstance(block, list) else f"shape {np.shape(block)}"
        raise ValueError(
            f"the estimator's probabilities are {got}; a likelihood needs one distribution over the "
            f"{shape[1]} columns of Y per row, here {shape}."
        )
    block = np.asarray(block)
    if give_logs is not None:
        return block
    with np.errstate(divide="ignore"):  # a probability of zero is minus infinity
        logs: np.ndarray = np.log(block)
    return logs


def _nats_and_weights(
    counts: sp.csr_array, logs: np.ndarray, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Nats per word of each row, nan for rows without words, and the rows' weights w_n N_n.

    ``logs`` holds the logarithm for each stored count, in their order.
    """
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
    n_words = np.bincount(row, weights=counts.data.astype(float), minlength=n)
    nats = -np.bincount(row, weights=counts.data * logs, minlength=n)
    weights = check_weights(sample_weight, n) * n_words
    per_row = np.divide(nats, n_words, out=np.full(n, np.nan), where=n_words > 0)
    return per_row, weights

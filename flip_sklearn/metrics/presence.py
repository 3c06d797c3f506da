"""How good probabilities are that words occur in texts: Brier score, calibration, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.metrics.counts import count_matrix
from flip_sklearn.metrics.ranking import check_same_columns
from flip_sklearn.metrics.summary import RowMean, check_weights, divide, rescale_weights
from flip_sklearn.parameters import check_integer, check_number

# Pairs of a row and a word below this probability are not in the bins: there are so many of them, all close
# to zero, that they would hide the errors of the others.
MIN_BINNED = 0.01
# Half of the width of the window around a threshold in which ``share_at`` is counted.
WINDOW = 0.05


@dataclass(frozen=True)
class PresenceCalibration:
    """Result of :func:`presence_calibration`.

    Attributes
    ----------
    brier_score : RowMean
        Sum over the words of (probability - occurs)^2, mean over the rows; >= 0, smaller is better.
    calibration_error : float
        Mean over the binned pairs of \\|predicted - observed\\| of their bin, in [0, 1].
    predicted, observed : ndarray of shape (n_bins,)
        Mean probability of the pairs in each bin, and the share of them that occur; nan for an empty bin.
    n_pairs : ndarray of shape (n_bins,)
        Pairs of a row and a word in each bin.
    thresholds : ndarray of shape (t,)
        The probabilities that the next attributes are about.
    share_at : ndarray of shape (t,)
        Share that occurs among the words whose probability is within 0.05 of the threshold; of calibrated
        probabilities it is about the threshold.
    precision, predicted_precision : ndarray of shape (t,)
        Share that occurs among the words with at least this probability, and the mean of their probabilities;
        of calibrated probabilities they agree, and both are above the threshold.
    recall : ndarray of shape (t,)
        Share of the words of the rows that have at least this probability.
    words_per_row : ndarray of shape (t,)
        Mean number of words with at least this probability.
    """

    brier_score: RowMean
    calibration_error: float
    predicted: np.ndarray
    observed: np.ndarray
    n_pairs: np.ndarray
    thresholds: np.ndarray
    share_at: np.ndarray
    precision: np.ndarray
    predicted_precision: np.ndarray
    recall: np.ndarray
    words_per_row: np.ndarray


def presence_calibration(
    Y: Any,
    presence: Any,
    *,
    thresholds: Sequence[float] = (0.5, 0.7, 0.9),
    n_bins: int = 10,
    sample_weight: Any = None,
) -> PresenceCalibration:
    """Compare probabilities that words occur with the words that do.

    A word occurs in a row if its count is above zero. With p_nj the probabilities and o_nj in {0, 1}::

        Brier score        mean over n of sum_j (p_nj - o_nj)^2
        calibration error  sum_b (m_b / m) |mean of p in bin b - mean of o in bin b|

    over bins of equal width, m_b of the m pairs (n, j) with p_nj >= 0.01. Less probable pairs are left out:
    their number would hide all other errors.

    Parameters
    ----------
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts, >= 0.
    presence : {array-like, sparse matrix} of shape (n, V)
        Probabilities in [0, 1], as ``predict_presence`` returns them; those that are not stored are zero.
        ``predict_presence(X, top_k=50)`` holds all words that matter of a sentence.
    thresholds : sequence of float, default=(0.5, 0.7, 0.9)
        Probabilities in (0, 1] for precision and recall.
    n_bins : int, default=10
        Number of bins, >= 1.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows, >= 0.

    Returns
    -------
    PresenceCalibration
        The scores and the calibration curve.

    Raises
    ------
    ValueError
        If shapes do not match, or a probability is not in [0, 1].

    References
    ----------
    Brier (1950), Monthly Weather Review 78; Naeini et al. (2015), "Obtaining well calibrated probabilities
    using Bayesian binning", AAAI.

    Examples
    --------
    >>> from flip_sklearn.metrics import presence_calibration
    >>> result = presence_calibration([[1, 0], [0, 0]], [[0.5, 0.25], [0.5, 0.25]], thresholds=[0.5])
    >>> float(result.brier_score), result.calibration_error, result.precision
    (0.3125, 0.125, array([0.5]))
    """
    counts = count_matrix(Y)
    check_same_columns(Y, presence, counts)
    probabilities = _check_probabilities(presence, counts.shape)
    weights = rescale_weights(check_weights(sample_weight, counts.shape[0]))
    levels = np.array([check_number("thresholds", t, 0, 1, open_low=True) for t in thresholds])
    n_bins = check_integer("n_bins", n_bins, 1)

    occurs = counts.copy()
    occurs.data = np.ones(counts.nnz)
    squares = (probabilities - occurs).power(2).sum(axis=1)
    row = np.repeat(np.arange(counts.shape[0]), np.diff(probabilities.indptr))
    hit = _lookup(occurs, row, probabilities.indices)
    p, w = probabilities.data, weights[row]
    binned = p >= MIN_BINNED
    place = np.minimum((p[binned] * n_bins).astype(int), n_bins - 1)
    mass, predicted_sum, observed_sum = (
        np.bincount(place, values[binned], n_bins) for values in (w, w * p, w * hit)
    )
    error = float(np.abs(predicted_sum - observed_sum).sum() / max(mass.sum(), np.finfo(float).tiny))
    n_words = float(weights @ np.diff(counts.indptr))
    columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    for level in levels:
        near, above = np.abs(p - level) <= WINDOW, p >= level
        columns["share_at"].append(_share(w[near], hit[near]))
        columns["precision"].append(_share(w[above], hit[above]))
        columns["predicted_precision"].append(_share(w[above], p[above]))
        columns["recall"].append(float(w[above] @ hit[above]) / n_words if n_words else np.nan)
        columns["words_per_row"].append(_share(weights, np.bincount(row[above], minlength=len(weights))))
    return PresenceCalibration(
        brier_score=RowMean.of(np.asarray(squares).ravel(), sample_weight),
        calibration_error=error,
        predicted=divide(predicted_sum, mass, np.nan),
        observed=divide(observed_sum, mass, np.nan),
        n_pairs=np.bincount(place, minlength=n_bins),
        thresholds=levels,
        **{name: np.array(values) for name, values in columns.items()},
    )


_COLUMNS = ("share_at", "precision", "predicted_precision", "recall", "words_per_row")


def _check_probabilities(presence: Any, shape: tuple[int, ...]) -> sp.csr_array:
    """Probabilities as a csr_array in float64."""
    try:
        probabilities = count_matrix(presence)
    except ValueError as error:
        raise ValueError(f"presence is not a matrix of probabilities in [0, 1]: {error}") from error
    if probabilities.shape != shape:
        raise ValueError(
            f"presence has shape {probabilities.shape}, Y has {shape}; pass one row of probabilities for "
            "each row of Y, with a column for every word."
        )
    if probabilities.nnz and probabilities.data.max() > 1:
        raise ValueError(
            f"presence holds {probabilities.data.max():.4g}; probabilities are in [0, 1]: pass the result of "
            "predict_presence."
        )
    return probabilities.astype(np.float64)


def _lookup(occurs: sp.csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The entries of a canonical csr_array at some places."""
    n_words = occurs.shape[1]
    entries = np.repeat(np.arange(occurs.shape[0]), np.diff(occurs.indptr)) * n_words + occurs.indices
    wanted = row * n_words + column
    found: np.ndarray = np.append(entries, -1)[np.searchsorted(entries, wanted)] == wanted
    return found.astype(float)


def _share(weights: np.ndarray, values: np.ndarray) -> float:
    """Weighted mean; nan if there is no weight."""
    total = float(weights.sum())
    return float(weights @ values) / total if total else np.nan

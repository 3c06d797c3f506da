"""A ranking offset from the presence probabilities, for models with features of the words.

The ranking that finds most words is the one by the probability that a word occurs in the text. Its log-odds
are a_j + s_j u_j with u_j = log(T theta_j), up to effects of the row (``backend/scoring/presence.py``). Words
are ranked by z_j + o_j in one product, so o_j is chosen to make both agree where it matters, around the last
word that is extracted: the u_j at which the word has a given probability p is the same for all words.

    o_j = -(log-odds of p - a_j) / s_j

Features of the words give rare words scores that are right more often, and how much more only held-out rows
can tell: the offset by frequency of ``backend/fit/ranking_offset.py`` has two parameters for this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logit

from flip_sklearn.backend.device import Compute, product_precision, without_autocast
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.scoring.presence import MIN_SLOPE, mean_row_features
from flip_sklearn.backend.scoring.scorer import Scorer
from flip_sklearn.estimation.presence import ATTRIBUTES, HeldOutRows

# The probability of the last extracted word, about.
PROBABILITY = 0.3
MEAN_ROWS = 500


@without_autocast()
def rank_by_presence(
    attributes: dict[str, Any], rows: HeldOutRows | None, compute: Compute, group: ProcessGroup
) -> np.ndarray:
    """The offset above or the fitted one, whichever has the higher accuracy on the held-out rows."""
    fitted: np.ndarray = attributes["ranking_offset_"]
    if rows is None or not all(name in attributes for name in ATTRIBUTES):
        return fitted
    with product_precision(compute):
        intercept, slope = _at_mean_row(attributes, rows, _scorer(attributes, compute, None))
        offsets = [fitted, _offset(intercept, slope, attributes).astype(fitted.dtype)]
        accuracies = [_accuracy(_scorer(attributes, compute, offset), rows) for offset in offsets]
    accuracies = group.broadcast_floats(accuracies, compute.device)
    best = offsets[int(np.argmax(accuracies))]
    if not group.is_single_process:  # the same bits on all processes
        best = np.array(group.broadcast_floats(best.tolist(), compute.device), dtype=best.dtype)
    return best


def _scorer(attributes: dict[str, Any], compute: Compute, offset: np.ndarray | None) -> Scorer:
    return Scorer(
        attributes["word_embeddings_"],
        attributes["projection_"],
        attributes["bias_"],
        attributes["embedding_mean_"],
        compute,
        unseen=attributes["word_counts_"] <= 0,
        ranking_offset=offset,
    )


def _at_mean_row(
    attributes: dict[str, Any], rows: HeldOutRows, scorer: Scorer
) -> tuple[np.ndarray, np.ndarray]:
    """a_j and s_j at the mean of log T and H over some rows."""
    length, intercept, slope, row_coef = (attributes[name] for name in ATTRIBUTES)
    by_row = row_coef @ mean_row_features(scorer, rows.X[:MEAN_ROWS], length)
    return intercept + by_row[0], np.maximum(slope + by_row[1], MIN_SLOPE)


def _offset(intercept: np.ndarray, slope: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """o_j, with mean zero over the words of the text; zero for unseen words."""
    offset: np.ndarray = (intercept - logit(PROBABILITY)) / slope
    counts = np.maximum(attributes["word_counts_"], 0)
    offset -= np.average(offset, weights=counts)
    offset[counts == 0] = 0.0
    return offset


def _accuracy(scorer: Scorer, rows: HeldOutRows) -> float:
    """Mean share of a row's words among as many extracted ones."""
    words = rows.counts.copy()
    words.sort_indices()
    n_words = np.diff(words.indptr)
    has_words = n_words > 0
    shares = scorer.hits(rows.X, words)[has_words] / n_words[has_words]
    return float(np.average(shares, weights=rows.weights[has_words]))

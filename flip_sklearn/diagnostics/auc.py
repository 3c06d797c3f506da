"""The area under the ROC curve over folds, with confidence intervals that respect groups."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from flip_sklearn.diagnostics.bootstrap import Interval

# Halvings of the bracket of an end: 2**-50 is below the rounding of a share.
_STEPS = 50


def stratified_auc(
    scores: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    confidence: float,
    *,
    is_trained: bool = False,
) -> Interval:
    """AUC of scores (n,) for bool labels (n,), compared within folds, with its interval; nan without pairs.

    Scores of different folds come from different readers and are not compared. With n_1f and n_0f the rows of
    fold f with and without the label, and A_f its AUC::

        A = sum_f w_f A_f,    w_f proportional to n_1f n_0f / (n_1f + n_0f)    (van Elteren 1960).

    Its variance v is that of the placement values (DeLong et al. 1988), summed within groups (Obuchowski
    1997). The interval has the ends a with::

        (A - a)^2 = c t^2 max(1, v / V(A)) V(a),

    V(a) the variance that Hanley and McNeil (1982) give for n_1f and n_0f rows: it is valid for few rows and
    for an A of 0 or 1, too (Newcombe 2006, method 5). t is the quantile of Student's t for the number of
    groups with the label, or without it if that is smaller. Where no variance is seen although groups have
    several rows, n_1f and n_0f are numbers of groups.

    c = 1 for a reader that is given, and 2 for readers that are trained on the other folds (``is_trained``).
    If there is nothing to find, a linear reader finds in a fold what this fold and the others have in common
    by chance; of two folds each finds the same in the other, which doubles the variance of the mean.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver
    operating characteristic curves, Biometrics 44.
    Hanley and McNeil (1982), The meaning and use of the area under a receiver operating characteristic curve,
    Radiology 143.
    Newcombe (2006), Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part
    2, Statistics in Medicine 25.
    Obuchowski (1997), Nonparametric analysis of clustered ROC curve data, Biometrics 53.
    van Elteren (1960), On the combination of independent two sample tests of Wilcoxon, Bulletin of the
    International Statistical Institute 37.
    """
    parts = [np.flatnonzero(folds == f) for f in np.unique(folds)]
    parts = [rows for rows in parts if 0 < labels[rows].sum() < len(rows)]
    if not parts:
        nan = np.array(np.nan)
        return Interval(nan, nan, nan)
    sizes = np.array([(labels[rows].sum(), (~labels[rows]).sum()) for rows in parts], dtype=float)
    fold_weights = sizes.prod(axis=1) / sizes.sum(axis=1)
    fold_weights /= fold_weights.sum()
    value, influence = 0.0, np.zeros(len(scores))
    for rows, weight, (n_with, n_without) in zip(parts, fold_weights, sizes, strict=True):
        placement = _placements(scores[rows], labels[rows])
        auc = placement[labels[rows]].mean()
        value += weight * auc
        size = np.where(labels[rows], n_with, n_without)
        influence[rows] = weight * (placement - auc) / size
    number = np.unique(groups, return_inverse=True)[1]
    by_group = np.bincount(number, influence)
    used = np.concatenate(parts)
    n_groups = min(len(np.unique(number[used][labels[used] == side])) for side in (True, False))
    # As many degrees of freedom are lost as means are subtracted, one a fold.
    variance = (by_group**2).sum() * n_groups / max(n_groups - len(parts), 1)
    if variance < 1e-20:  # all groups agree
        sizes = np.array([[len(np.unique(number[r][labels[r] == s])) for s in (True, False)] for r in parts])
    quantile = stdtrit(max(n_groups - 1, 1), 0.5 + confidence / 2)
    excess = variance / _variance(value, sizes, fold_weights) if 0 < value < 1 else 1.0
    factor = (2 if is_trained else 1) * quantile**2 * max(excess, 1.0)
    low, high = (_end(value, side, factor, sizes, fold_weights) for side in (0.0, 1.0))
    return Interval(np.array(value), np.array(low), np.array(high))


def _placements(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each row the share of the rows of the other side that it is ordered right with, ties half."""
    ranks, placement = rankdata(scores), np.empty(len(scores))
    for side in (True, False):
        rows = labels == side
        below = (ranks[rows] - rankdata(scores[rows])) / (~rows).sum()
        placement[rows] = below if side else 1 - below
    return placement


def _variance(auc: float, sizes: np.ndarray, weights: np.ndarray) -> float:
    """Variance of the mean over folds, if the scores of both sides were exponentially distributed."""
    n_with, n_without = sizes.T
    with_two, without_two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (n_with - 1) * (with_two - auc**2) + (n_without - 1) * (without_two - auc**2)
    ) / (n_with * n_without)
    return float((weights**2 * variance).sum())


def _end(value: float, bound: float, factor: float, sizes: np.ndarray, weights: np.ndarray) -> float:
    """The end of the interval between the value and 0 or 1, by bisection."""
    inside, outside = value, bound
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        is_inside = (value - middle) ** 2 <= factor * _variance(middle, sizes, weights)
        inside, outside = (middle, outside) if is_inside else (inside, middle)
    return outside

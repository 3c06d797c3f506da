"""Non-negative least squares over many words, row by row: the sparse codes for l1 = 0.

Without a penalty a code has up to d words, where the batched working sets of ``lasso.py`` take several times
longer than SciPy's solver for one row (Lawson and Hanson 1974, "Solving Least Squares Problems", chapter 23).
That solver looks at all its words in every step, so it gets a working set of some multiples of d, too:

1. Start with the words of largest D_j . v.
2. Solve over the set. With the residual r, the minimum over all words has D_j . r <= 0 for each of them.
3. Otherwise keep the words with a weight, add the words that violate it most, and repeat.

The objective falls in every round, so no set occurs twice. Everything is in float64.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

# Words of a set, in multiples of d. If v is in the cone of 3 d words with D_j . v > 0, as it nearly always is
# when there are many more, the first round ends with a residual of zero.
START, ADDED = 3, 1
# Largest D_j . r, relative to |D_j| |v|, that counts as rounding.
ROUNDING = 1e-14
MAX_ROUNDS = 1000


def nonnegative_projection(
    dictionary: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimize |D^T w - v|^2 over w >= 0 for every row v of the targets (n, d).

    ``dictionary`` (V, d) has one word per row, of any norm; words of norm zero get no weight. Returns indices
    (n, m), largest weight first, padded with -1, weights (n, m), and the duality gap (n,) relative to |v|^2
    by equation (3) of ``lasso.py``, all in float64.
    """
    dictionary = dictionary.astype(np.float64)
    norms = np.linalg.norm(dictionary, axis=1)
    words = np.flatnonzero(norms > 0)
    directions = dictionary[words] / norms[words, None]
    rows = [_project(directions, target) for target in targets.astype(np.float64)]
    width = max((len(columns) for columns, _, _ in rows), default=0)
    indices, weights = np.full((len(rows), width), -1), np.zeros((len(rows), width))
    for i, (columns, values, _) in enumerate(rows):
        values = values / norms[words[columns]]
        order = np.lexsort((words[columns], -values))
        indices[i, : len(order)], weights[i, : len(order)] = words[columns[order]], values[order]
    return indices, weights, np.array([gap for _, _, gap in rows])


def _project(directions: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the columns of positive weight, their weights, and the gap of one row."""
    none = np.empty(0, dtype=np.int64), np.empty(0), 0.0
    size = float(np.linalg.norm(target))
    if not size or not len(directions):
        return none
    v, d = target / size, directions.shape[1]
    correlations = directions @ v
    is_small = len(directions) <= START * d
    candidates = np.arange(len(directions)) if is_small else _largest(correlations, START * d)
    if not len(candidates):  # every word points away from v
        return none
    columns, weights, residual, value = *none[:2], v, np.inf
    for _ in range(MAX_ROUNDS):
        try:
            solution, _ = nnls(directions[candidates].T, v, maxiter=30 * len(candidates))
        except RuntimeError:  # too many steps; the gap shows what is missing
            break
        new_residual = v - solution @ directions[candidates]
        new_value = float(new_residual @ new_residual)
        if new_value >= value:  # only rounding errors were left
            break
        used = solution > 0
        columns, weights, residual, value = candidates[used], solution[used], new_residual, new_value
        correlations = directions @ residual
        new = _largest(np.where(np.isin(np.arange(len(directions)), columns), 0, correlations), ADDED * d)
        new = new[correlations[new] > ROUNDING]
        if not len(new) or value <= ROUNDING**2:
            break
        candidates = np.concatenate([columns, new])
    kappa = 1 + 2 * weights.sum()
    half_slope = max(0.0, float(residual @ v) - kappa * max(0.0, float(correlations.max())))
    gap = max(0.0, value - half_slope**2 / value) if value > 0 else 0.0
    return columns, weights * size, gap


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the k largest values, in ascending order, among those above zero."""
    top = np.argpartition(-values, min(k, len(values)) - 1)[:k]
    return np.sort(top[values[top] > 0])

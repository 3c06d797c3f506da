"""Edits of embeddings in words: the smallest change after which words are there, and others are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
from scipy.special import expit, logit

from flip_sklearn.backend.device import without_autocast
from flip_sklearn.backend.scoring.presence import PresenceParameters, changed_words, word_log_odds
from flip_sklearn.diagnostics.editing_result import EditedWords
from flip_sklearn.diagnostics.erasure import erase_words
from flip_sklearn.diagnostics.inputs import check_model, check_words
from flip_sklearn.diagnostics.minimal_change import MinimalChange, covariance_root, dense_rows, whitened_root
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.presence import ATTRIBUTES, check_has_presence
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import check_choice, check_number, warn_caller

METRICS = ("auto", "whitened", "euclidean")
N_MOVED = 10
# Rounds in which the thresholds of added words are adjusted, and the tolerance of their log-odds.
MAX_ROUNDS, TOLERANCE = 20, 1e-3
# A row is given up after this many rounds that close less than this share of the gap that is left.
MAX_STALLS, MIN_PROGRESS = 3, 0.1
# The slope between two rounds is used if the lift changed by this much, in nats; at least this share of the
# slope in u at a fixed normalizer.
MIN_RISE, MIN_SECANT = 1e-3, 0.2
# Probability that may be missing without a warning.
SHORTFALL = 0.01
# Elements of a block of rows: 2**22 float64 are 32 MiB.
_BLOCK_ELEMENTS = 2**22


@without_autocast()
def edit_words(
    model: FLiPExtractor,
    X: Any,
    add: Any = (),
    remove: Any = (),
    *,
    probability: float = 0.9995,
    metric: str = "auto",
) -> EditedWords:
    """Add words to embeddings and remove words from them by the smallest change.

    With g_j = B^T a_j the direction of word j, the lift of the word in an embedding x is its score without
    bias, g_j . (x - mu). Each row becomes::

        x' = argmin_y |y - x|_H^2   subject to   g_j . (y - mu) >= t_j for every word j to add,
                                                 g_k . (y - mu) <= 0   for every word k to remove,

    where t_j is the lift at which the word occurs in y with the given probability
    (:meth:`FLiPExtractor.predict_presence`), and 0 is the lift in the average sentence. With the covariance S
    of the training embeddings, the distance is::

        |delta|_H^2 = delta^T S^-1 delta + c delta^T F delta,   c = d / tr(S F),

    the whitened distance and, to second order, 2 c times the Kullback-Leibler divergence between the word
    distributions theta before and after, at the mean embedding: other words move as little as possible. c
    makes both parts equal on average over pairs of training embeddings.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted model.
    X : array-like of shape (n, d)
        Embeddings, as ``model.transform`` takes them.
    add, remove : str or sequence of str, default=()
        Words of the model's vocabulary, at least one. "dog" does not include "dogs": list all forms of a
        word to remove.
    probability : float, default=0.9995
        Probability of each added word after the edit, in (0, 1). Words that have it already are not raised.
        The default is higher than that of most words of a text, since the smallest change falls short of the
        real one. With 0.9 to 0.99, other words keep more of their probability (docs/edit.md).
    metric : {"auto", "whitened", "euclidean"}, default="auto"
        Distance that is minimized: the one above, or ``|y - x|``. ``"auto"`` is ``"euclidean"`` if no word
        is added: the result is that of :func:`erase_words`. Otherwise it is ``"whitened"``, which finds the
        edited text far more often, also where words are only removed (docs/edit.md).

    Returns
    -------
    EditedWords
        The new embeddings, float64 for float64 input and float32 otherwise, and what changed: the edited
        words, the other words whose probability moved most, and distances.

    Raises
    ------
    ValueError
        If no word is given, a word is both added and removed, is not in the vocabulary or in no training
        sentence; if words are added that the model cannot tell from removed ones, or that have no direction;
        if the model is not a FLiPExtractor or X does not match it; if words are added and the model has no
        ``presence_`` attributes, or the metric is whitened and it has no ``embedding_covariance_``.

    Warns
    -----
    UserWarning
        If the probability of an added word is lower by more than 0.01 in some rows: the expected counts of
        the words of a text add up to its length, so it has room for few words.

    See Also
    --------
    erase_words : Removal of words, also against newly trained linear models.

    Notes
    -----
    The thresholds t_j depend on y through the expected length of the text and the entropy and normalizer of
    theta. They are adjusted until the probability is reached, which takes a few rounds; given the thresholds,
    the problem is convex and is solved exactly. The change of a row is a combination of the vectors H^-1 g_j;
    without F they are S g_j, the patterns of Haufe et al. (2014), doi:10.1016/j.neuroimage.2013.10.067.

    Rows do not keep their length; normalize them if your index does. A new model that is trained on the
    edited embeddings may find traces of removed words.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import edit_words
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.4, size=(1200, 5)).clip(max=1)
    >>> X = Y @ rng.normal(size=(5, 12)) + 0.1 * rng.normal(size=(1200, 12))
    >>> flip = FLiPExtractor(vocabulary=["red", "green", "blue", "dog", "cat"],
    ...                      max_iter=30, random_state=0).fit(X, Y)
    >>> sentence = np.array([[0, 1, 0, 1, 0]]) @ np.linalg.lstsq(Y, X)[0]
    >>> edited = edit_words(flip, sentence, add="cat", remove="dog", probability=0.9)
    >>> [sorted(flip.extract_keywords(x, min_probability=0.5)[0]) for x in (sentence, edited.X)]
    [['dog', 'green'], ['cat', 'green']]
    >>> bool(edited.presence_after[0, 0] >= 0.9), bool(edited.score_after[0, 1] < 1e-9)
    (True, True)
    """
    owner = check_model(model)
    model = scoring.snapshot(owner)
    added, removed, columns = _check_edit(model, add, remove)
    probability = check_number("probability", probability, 0, 1, open_low=True, open_high=True)
    if check_choice("metric", metric, METRICS) == "auto":
        metric = "whitened" if added else "euclidean"
    if added:
        check_has_presence(model)
    has_covariance = hasattr(model, "embedding_covariance_")
    if metric == "whitened" and not has_covariance:
        raise ValueError(
            "the model has no embedding_covariance_, from which the whitened distance is computed: it was "
            "trained by other code or stored by an earlier version. Fit it again, or use metric='euclidean'."
        )
    X = as_numpy(scoring.fitted_input(model, X))
    edit = _Edit(model, columns, len(added), float(logit(probability)))
    if not added and metric == "euclidean":
        edited = erase_words(model, X, removed).X
    else:
        change = MinimalChange(edit.directions, whitened_root(model, owner) if metric == "whitened" else None)
        _check_feasible(change, edit, added, removed)
        edited = _edit_rows(edit, X, change)
    result = _compare(edit, X, edited, added, removed)
    _warn_of_shortfall(result, len(added), probability)
    return result


class _Edit:
    """The words of an edit, those to add first, in a form in which every score is to rise."""

    def __init__(self, model: FLiPExtractor, columns: np.ndarray, n_added: int, log_odds: float) -> None:
        self.model, self.columns, self.n_added = model, columns, n_added
        self.log_odds = log_odds  # of added words after the edit
        self.sign = np.where(np.arange(len(columns)) < n_added, 1.0, -1.0)
        directions = dense_rows(model, columns) @ np.asarray(model.projection_, dtype=np.float64)
        self.directions = directions * self.sign[:, None]
        self.mean = np.asarray(model.embedding_mean_, dtype=np.float64)
        self.scorer = scoring.make_scorer(model, use_bias=True)
        self.has_presence = all(hasattr(model, name) for name in ATTRIBUTES)

    @property
    def presence(self) -> PresenceParameters:
        """The parameters of presence, of models that have them."""
        return PresenceParameters(*(getattr(self.model, name) for name in ATTRIBUTES))

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Lifts (n, m), those of removed words with the opposite sign."""
        return np.asarray((X - self.mean) @ self.directions.T)


def _check_edit(model: FLiPExtractor, add: Any, remove: Any) -> tuple[tuple[str, ...], tuple[str, ...], Any]:
    """The added and the removed words, and the columns of both."""
    parts = []
    for name, words in (("add", add), ("remove", remove)):
        is_sequence = isinstance(words, Iterable) and not isinstance(words, str)
        listed = list(words) if is_sequence else words
        is_empty = isinstance(listed, list) and not listed
        parts.append(((), np.empty(0, dtype=np.int64)) if is_empty else check_words(model, listed, name))
    (added, first), (removed, last) = parts
    if not added and not removed:
        raise ValueError("add and remove are empty; pass at least one word of the vocabulary.")
    both = [word for word in added if word in removed]
    if both:
        raise ValueError(f"{both[0]!r} is both in add and in remove; leave it out of one of them.")
    return added, removed, np.concatenate([first, last])


def _check_feasible(
    change: MinimalChange, edit: _Edit, added: tuple[str, ...], removed: tuple[str, ...]
) -> None:
    """Raise if no embedding has the added words without the removed ones."""
    for word, direction in zip(added, edit.directions, strict=False):
        if not direction.any():
            raise ValueError(
                f"add has {word!r}, of which the model has learned nothing: its row of word_embeddings_ is "
                "zero. Leave it out, or fit the model on more texts with the word."
            )
    if added and not change.is_feasible(edit.sign > 0):
        raise ValueError(
            f"no embedding has {', '.join(map(repr, added))}"
            + (f" without {', '.join(map(repr, removed))}" if removed else " together")
            + ": the model has the same direction, or opposite ones, for these words. Leave some of them out."
        )


def _edit_rows(edit: _Edit, X: np.ndarray, change: MinimalChange) -> np.ndarray:
    """The edited embeddings."""
    edited = np.empty(X.shape, dtype=scoring.output_dtype(X))
    with scoring.progress(edit.model, len(X)) as bar:
        for rows in _blocks(X):
            edited[rows] = _edit_block(edit, X[rows].astype(np.float64), change)
            bar.update(len(edited[rows]))
    return edited


def _blocks(X: np.ndarray) -> Iterator[slice]:
    """Consecutive rows of which float64 copies are made at one time."""
    step = max(1, _BLOCK_ELEMENTS // X.shape[1])
    return (slice(first, min(first + step, len(X))) for first in range(0, len(X), step))


def _edit_block(edit: _Edit, x: np.ndarray, change: MinimalChange) -> np.ndarray:
    """Edited rows (n, d); thresholds of added words are adjusted until the probability is reached."""
    scores, n_added = edit.scores(x), edit.n_added
    thresholds = np.where(edit.sign > 0, -np.inf, np.zeros_like(scores))
    y = x + change.solve(thresholds - scores)
    rows = np.arange(len(x)) if n_added else np.empty(0, dtype=np.int64)
    best, smallest_gap, n_stalls = y.copy(), np.full(len(x), np.inf), np.zeros(len(x), dtype=int)
    last = np.full((2, len(x), n_added), np.nan)
    for _ in range(MAX_ROUNDS):
        if not len(rows):
            break
        log_odds, slopes = word_log_odds(edit.scorer, y[rows], edit.presence, edit.columns[:n_added])
        missing = edit.log_odds + TOLERANCE / 2 - log_odds
        lift, bound = edit.scores(y[rows])[:, :n_added], thresholds[rows, :n_added]
        rise = lift - last[0, rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            secant = np.clip((log_odds - last[1, rows]) / rise, MIN_SECANT * slopes, slopes)
        slopes = np.where(np.abs(rise) > MIN_RISE, secant, slopes)
        last[:, rows] = lift, log_odds
        is_tight = lift - bound <= 1e-9 * (1 + np.abs(lift))
        is_off = (missing > TOLERANCE / 2) | (is_tight & (missing < -TOLERANCE / 2))
        gap = np.abs(missing * is_off).max(axis=1)
        n_stalls[rows] += gap > (1 - MIN_PROGRESS) * smallest_gap[rows]
        better = rows[gap < smallest_gap[rows]]
        best[better] = y[better]
        smallest_gap[rows] = np.minimum(gap, smallest_gap[rows])
        goes_on = (gap > 0) & (n_stalls[rows] < MAX_STALLS)
        thresholds[rows, :n_added] = np.where(is_off & goes_on[:, None], lift + missing / slopes, bound)
        rows = rows[goes_on]
        y[rows] = x[rows] + change.solve(thresholds[rows] - scores[rows])
    return np.asarray(best)


def _compare(
    edit: _Edit, X: np.ndarray, edited: np.ndarray, added: tuple[str, ...], removed: tuple[str, ...]
) -> EditedWords:
    """What an edit changed in the embeddings as returned."""
    model, n, m = edit.model, len(X), len(edit.columns)
    presence, moved = np.full((2, n, m), np.nan), [np.empty((n, 0), dtype=np.int64), *np.empty((2, n, 0))]
    if edit.has_presence:
        for values, embeddings in zip(presence, (X, edited), strict=True):
            values[:] = expit(word_log_odds(edit.scorer, embeddings, edit.presence, edit.columns)[0])
    k = min(N_MOVED, int((model.word_counts_ > 0).sum()) - m)
    if edit.has_presence and k > 0:
        with scoring.progress(model, n) as bar:
            parts = []
            for part in changed_words(edit.scorer, (X, edited), edit.presence, k, edit.columns):
                parts.append(part)
                bar.update(len(part[0]))
        moved = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    has_covariance = hasattr(model, "embedding_covariance_")
    root = covariance_root(model) if has_covariance else None
    scores = np.empty((2, n, m))
    distance, whitened, cosine = np.empty(n), np.full(n, np.nan), np.empty(n)
    for rows in _blocks(X):
        before, after = X[rows].astype(np.float64), edited[rows].astype(np.float64)
        delta = after - before
        scores[:, rows] = edit.scores(before) * edit.sign, edit.scores(after) * edit.sign
        distance[rows] = np.linalg.norm(delta, axis=1)
        if root is not None:
            whitened[rows] = np.linalg.norm(scipy.linalg.solve_triangular(root, delta.T, lower=True), axis=0)
        with np.errstate(invalid="ignore"):
            lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
            cosine[rows] = (before * after).sum(axis=1) / lengths
    return EditedWords(
        X=edited,
        added=added,
        removed=removed,
        presence_before=presence[0],
        presence_after=presence[1],
        score_before=scores[0],
        score_after=scores[1],
        moved_words=model.vocabulary_[moved[0]],
        moved_before=moved[1],
        moved_after=moved[2],
        distance=distance,
        whitened_distance=whitened,
        cosine=cosine,
    )


def _warn_of_shortfall(result: EditedWords, n_added: int, probability: float) -> None:
    """Warn if the probability of added words is lower by more than ``SHORTFALL``."""
    reached = result.presence_after[:, :n_added]
    is_short = reached < probability - SHORTFALL
    if is_short.any():
        j = int(is_short.sum(axis=0).argmax())
        warn_caller(
            f"{int(is_short.any(axis=1).sum())} of {len(reached)} rows do not reach probability="
            f"{probability:g}: {result.added[j]!r} has {reached[:, j].min():.3g} in one of them. A text has "
            "room for few words: add fewer, or use a lower probability."
        )

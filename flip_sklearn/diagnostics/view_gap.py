"""What separates two views: the loss of a model on another view, split into four parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.diagnostics import evaluation, inputs
from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.evaluation import FittedModels
from flip_sklearn.diagnostics.frames import difference_columns, grid, interval_columns
from flip_sklearn.diagnostics.inputs import EvaluationSettings
from flip_sklearn.diagnostics.split import SentenceSplit
from flip_sklearn.diagnostics.view_gap_maps import PairMaps
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.io import show_progress
from flip_sklearn.parameters import check_choice

# How the target is read, in the order of a result, and by which model the last two read what.
READINGS = ("raw", "centered", "rotated", "linear", "own", "source")
# Each part of the loss is the difference of these two readings.
PARTS = {
    "shift": ("centered", "raw"),
    "rotation": ("rotated", "centered"),
    "shear": ("linear", "rotated"),
    "content": ("source", "linear"),
}


@dataclass(frozen=True, eq=False)
class ViewGap:
    """Result of :func:`view_gap`, for p pairs of views.

    Attributes
    ----------
    pairs : tuple of p (str, str)
        The source, whose model reads, and the target, which is read.
    readings : tuple of str
        "raw", "centered", "rotated", "linear", "own", "source".
    accuracy : Interval of shape (p, 6)
        Keyword accuracy of each reading.
    parts : tuple of str
        "shift", "rotation", "shear", "content".
    difference : Difference of shape (p, 4)
        The parts of the loss; a negative part is a gain.
    loss : Difference of shape (p,)
        ``source`` minus ``raw``, which is the sum of the parts.
    retraining : Difference of shape (p,)
        ``own`` minus ``linear``: what a model that is trained on the target finds, and a map does not
        recover. It is included in the content.
    baseline : Interval of shape ()
        Keyword accuracy of the baseline, which always extracts the most frequent training words.
    ridge : ndarray of shape (p,)
        Ridge of the linear map, relative to the mean variance of the target.
    n_train, n_test, n_skipped : int
        Number of training sentences, of test sentences, and of test sentences without words, which are left
        out.
    confidence : float
        Level of all intervals.
    """

    pairs: tuple[tuple[str, str], ...]
    readings: tuple[str, ...]
    accuracy: Interval
    parts: tuple[str, ...]
    difference: Difference
    loss: Difference
    retraining: Difference
    baseline: Interval
    ridge: np.ndarray
    n_train: int
    n_test: int
    n_skipped: int
    confidence: float

    def to_frame(self) -> Any:
        """One row for each pair and part of the loss, then one for its loss and one for retraining.

        Returns
        -------
        pandas.DataFrame
            Columns ``source``, ``target``, ``part`` (a part, "loss" or "retraining"), ``minuend`` and
            ``subtrahend`` (the readings whose accuracies are subtracted), ``accuracy`` of the first of these
            with ``low`` and ``high``, the ``difference`` with its interval, and ``significant``.
        """
        steps = {**PARTS, "loss": ("source", "raw"), "retraining": ("own", "linear")}
        table = grid(pair=range(len(self.pairs)), part=tuple(steps))
        pair = table.pop("pair")
        names = np.array(self.pairs, dtype=object).reshape(-1, 2)
        minuend = [self.readings.index(first) for first, _ in steps.values()]
        table = {"source": names[pair, 0], "target": names[pair, 1], **table}
        for i, name in enumerate(("minuend", "subtrahend")):
            table[name] = np.array([steps[part][i] for part in table["part"]], dtype=object)
        table |= interval_columns("accuracy", _columns(self.accuracy, minuend))
        parts = {
            field: np.column_stack(
                [getattr(result, field) for result in (self.difference, self.loss, self.retraining)]
            )
            for field in ("value", "low", "high", "significant")
        }
        return data_frame(table | difference_columns(Difference(**parts)))

    def __repr__(self) -> str:
        texts = []
        for p, (source, target) in enumerate(self.pairs):
            values = zip(self.parts, self.difference.value[p], strict=True)
            steps = " + ".join(f"{part} {value + 0.0:.3f}" for part, value in values)
            texts.append(f"{source} on {target}: loss {self.loss.value[p]:.3f} = {steps}")
        return f"ViewGap({'; '.join(texts)})"


def view_gap(
    views: Mapping[str, Any],
    Y: Any,
    *,
    source: str | None = None,
    estimator: Any = None,
    split: SentenceSplit | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> ViewGap:
    """Split the loss of a model on another view into shift, rotation, shear and content.

    Let f be the model of the source view s, g that of the target view t, m_s and m_t the means of the
    training rows, Xs and Xt the training rows minus these means, and acc the keyword accuracy on the test
    sentences::

        source   = acc of f(x_s)                               the model on its own view
        raw      = acc of f(x_t)                               the model on the target, as it is
        centered = acc of f(m_s + (x_t - m_t))
        rotated  = acc of f(m_s + R^T (x_t - m_t))             R = argmin |Xt R - Xs|^2, orthogonal
        linear   = acc of f(m_s + W^T (x_t - m_t))             W = argmin |Xt W - Xs|^2 + ridge |W - R|^2
        own      = acc of g(x_t)                               the target's own model

        source - raw = (centered - raw) + (rotated - centered) + (linear - rotated) + (source - linear)
        loss         =      shift       +      rotation        +       shear        +     content

    The shift is removed by subtracting means, for which any sentences of both views will do; rotation and
    shear by a map, which needs pairs of sentences; the content by no linear map to the source: the target
    holds less of the words, or in another form. The attribute ``retraining`` is ``own - linear``, the part of
    the content that a model trained on the target finds.

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d)
        Two or more row-aligned views of the same sentences, in one embedding space.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the sentences.
    source : str, default=None
        The view whose model reads the others; None for every pair of views, in both directions.
    estimator : estimator, default=None
        Estimator to fit, with ``decision_function`` or ``predict_proba`` over the columns of Y;
        ``FLiPExtractor()`` when None. One fit for each view, all with the same seed.
    split : SentenceSplit, default=None
        Result of :func:`split_sentences`; when None, a fifth of the groups of sentences with equal embeddings
        is the test part. Models and maps are fitted to the training part.
    n_bootstrap : int, default=1000
        Number of resamples of the test sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1). There is no correction for multiple comparisons. The intervals are
        for new test sentences, with the same models and maps.
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the fits, the choice of the ridge and the resamples.
    verbose : int, default=1
        If above zero, show a progress bar for computations of more than two seconds.

    Returns
    -------
    ViewGap
        Accuracies and parts of the loss, with paired intervals.

    Raises
    ------
    ValueError
        Before any training, if the views or Y are not aligned, ``source`` is not one of the views, or another
        argument is not allowed.

    See Also
    --------
    flip_sklearn.ViewCenterer : Removes the shift.
    view_alignment : Accuracy of every model on every view, and the words that they find alike.

    Notes
    -----
    A shift of the embeddings by c adds the same vector A B c to the scores of all sentences, so some words
    are found everywhere. It costs much where the source varies little in the direction of c, because the
    model then has large coefficients in this direction.

    The rotation includes reflections, the shear every other linear change, such as scale. R minimizes the
    squared error of embeddings, not of words, so a part can be negative: the map then removes more than it
    recovers. Use several times d training sentences. The ridge (relative to the mean variance of the target,
    1e-6 to 100) is the one with the smallest squared error on a fifth of the groups of training sentences,
    for maps fitted to the others. The parts say little if ``source`` is hardly above the baseline.

    References
    ----------
    Schönemann (1966), A generalized solution of the orthogonal Procrustes problem, Psychometrika 31. Mikolov,
    Le and Sutskever (2013), Exploiting similarities among languages for machine translation, arXiv 1309.4168:
    linear maps between embeddings of two languages.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import view_gap
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.2, size=(600, 20))
    >>> text = Y @ rng.normal(size=(20, 16))
    >>> speech = text + 3 * rng.normal(size=16)  # the same, shifted
    >>> result = view_gap({"text": text, "speech": speech}, Y, source="text", random_state=0)
    >>> bool(result.loss.value[0] > 0.1), (result.difference.value[0, 1:].round(3) + 0.0).tolist()
    (True, [0.0, 0.0, 0.0])
    """
    settings = inputs.check_settings(n_bootstrap, confidence, random_state, verbose)
    sentences = inputs.check_sentences(views, split, settings.random_state, min_views=2)
    if source is not None:
        source = check_choice("source", source, sentences.names)
    counts = inputs.check_targets(Y, sentences)
    model = inputs.check_estimator(estimator, settings.random_state)
    return compute_view_gap(FittedModels(sentences), model, counts, settings, source)


def compute_view_gap(
    models: FittedModels,
    estimator: Any,
    counts: sp.csr_array,
    settings: EvaluationSettings,
    source: str | None = None,
) -> ViewGap:
    """Compute :func:`view_gap` from checked inputs."""
    sentences = models.sentences
    names, truth = sentences.names, counts[sentences.split.test]
    maps = PairMaps(sentences, settings.random_state)
    pairs = [(s, t) for s in names for t in names if s != t and source in (None, s)]
    own_view: dict[str, np.ndarray] = {}
    mapped: dict[tuple[str, str], list[np.ndarray]] = {}
    ridges: dict[tuple[str, str], float] = {}
    for name in show_progress(names, desc="view gap", unit="fit", disable=not settings.verbose):
        fitted = models.fit(estimator, (name,), counts)

        def read(X: np.ndarray, fitted: Any = fitted) -> np.ndarray:
            return evaluation.row_accuracy(evaluation.find_words(fitted, X, truth), truth)

        own_view[name] = read(sentences.test(name))
        for pair in pairs:
            if pair[0] == name:
                X = sentences.test(pair[1])
                linear, ridges[pair] = maps.linear(*pair)
                steps = (maps.shift(*pair), maps.rotation(*pair), linear)
                mapped[pair] = [read(X), *(read(step(X)) for step in steps)]
    baseline = evaluation.baseline_accuracy(sentences, counts)
    per_row = [row for pair in pairs for row in (*mapped[pair], own_view[pair[1]], own_view[pair[0]])]
    bootstrap = PairedBootstrap(np.column_stack([*per_row, baseline]), sentences.test_groups, settings)
    column = np.arange(len(per_row)).reshape(-1, len(READINGS))
    of = {reading: column[:, i] for i, reading in enumerate(READINGS)}
    minuends, subtrahends = (
        np.column_stack([of[readings[i]] for readings in PARTS.values()]) for i in (0, 1)
    )
    return ViewGap(
        pairs=tuple(pairs),
        readings=READINGS,
        accuracy=bootstrap.means(column),
        parts=tuple(PARTS),
        difference=bootstrap.differences(minuends, subtrahends),
        loss=bootstrap.differences(of["source"], of["raw"]),
        retraining=bootstrap.differences(of["own"], of["linear"]),
        baseline=bootstrap.means(np.array(len(per_row))),
        ridge=np.array([ridges[pair] for pair in pairs]),
        n_train=len(sentences.split.train),
        n_test=len(sentences.split.test),
        n_skipped=int(np.isnan(baseline).sum()),
        confidence=settings.confidence,
    )


def _columns(interval: Interval, columns: list[int]) -> Interval:
    """Some columns of an array of intervals."""
    return Interval(*(ends[:, columns] for ends in (interval.value, interval.low, interval.high)))

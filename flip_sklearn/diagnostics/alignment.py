"""View alignment: keyword accuracy of a model trained on one view and tested on another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.diagnostics import evaluation, inputs
from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.evaluation import FittedModels
from flip_sklearn.diagnostics.frames import accuracy_columns, grid, matrix_text
from flip_sklearn.diagnostics.inputs import EvaluationSettings
from flip_sklearn.diagnostics.split import SentenceSplit
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.io import show_progress
from flip_sklearn.metrics.ranking import jaccard_per_row


@dataclass(frozen=True, eq=False)
class ViewAlignment:
    """Result of :func:`view_alignment`; arrays are (trained on, read from).

    Attributes
    ----------
    views : tuple of str
        Names of the v views.
    accuracy : Interval of shape (v, v)
        Keyword accuracy of the model trained on one view and tested on another.
    difference : Difference of shape (v, v)
        ``accuracy`` minus that of the same model on the view it was trained on.
    jaccard : Interval of shape (v, v)
        Jaccard index of the words that one model finds in the view it was trained on and in another.
    jaccard_of_models : Interval of shape (v, v)
        Jaccard index of the words that two models find in one view: the model trained on another view,
        and the model trained on this view.
    baseline : Interval of shape ()
        Keyword accuracy of the baseline, which always extracts the most frequent training words.
    n_train, n_test, n_skipped : int
        Number of training sentences, of test sentences, and of test sentences without words, which are
        left out.
    confidence : float
        Level of all intervals.
    own_view_difference : Difference of shape (v, v) or None
        Of two models, each tested on the view that it was trained on: ``accuracy[j, j]`` minus
        ``accuracy[i, i]``. None in results that were stored by versions without it.
    """

    views: tuple[str, ...]
    accuracy: Interval
    difference: Difference
    jaccard: Interval
    jaccard_of_models: Interval
    baseline: Interval
    n_train: int
    n_test: int
    n_skipped: int
    confidence: float
    own_view_difference: Difference | None = None

    def to_frame(self) -> Any:
        """One row for each pair of views.

        Returns
        -------
        pandas.DataFrame
            Columns ``trained_on``, ``read_from``, the accuracy and the difference with their intervals,
            ``significant``, and the two Jaccard indices.
        """
        table = grid(trained_on=self.views, read_from=self.views)
        table |= accuracy_columns(self.accuracy, self.difference)
        for name in ("jaccard", "jaccard_of_models"):
            table[name] = getattr(self, name).value.ravel()
        return data_frame(table)

    def __repr__(self) -> str:
        return f"ViewAlignment({matrix_text(self.views, self.views, self.accuracy.value)})"


def view_alignment(
    views: Mapping[str, Any],
    Y: Any,
    *,
    estimator: Any = None,
    split: SentenceSplit | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> ViewAlignment:
    """Train a model on each view and test it on every view, to see whether they encode words alike.

    Let f_i be the model trained on view i, k_n the number of distinct words of test sentence n, H_ij(n) the
    words of the sentence among the k_n best words of f_i in view j, and S the test sentences with words::

        accuracy[i, j]          = mean over S of |H_ij(n)| / k_n
        difference[i, j]        = accuracy[i, j] - accuracy[i, i]
        jaccard[i, j]           = mean of |H_ii & H_ij| / |H_ii | H_ij|       one model, two views
        jaccard_of_models[i, j] = mean of |H_jj & H_ij| / |H_jj | H_ij|       two models, one view

    The means of Jaccard indices leave out sentences in which both sets are empty. These are the modality
    and language alignment, tables 2 and 3, of Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d)
        Two or more row-aligned views of the same sentences, in one embedding space.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the sentences.
    estimator : estimator, default=None
        Estimator to fit, with ``decision_function`` or ``predict_proba`` over the columns of Y;
        ``FLiPExtractor()`` when None. All fits use the same seed.
    split : SentenceSplit, default=None
        Result of :func:`split_sentences`; when None, a fifth of the groups of sentences with equal
        embeddings is the test part.
    n_bootstrap : int, default=1000
        Number of resamples of the test sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1). There is no correction for multiple comparisons: at .95, one
        of twenty differences between equal quantities is expected to be significant.
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the fits and the resamples.
    verbose : int, default=1
        If above zero, show a progress bar for computations of more than two seconds.

    Returns
    -------
    ViewAlignment
        The matrices, with intervals.

    Raises
    ------
    ValueError
        Before any training, if the views or Y are not aligned or another argument is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import view_alignment
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.2, size=(600, 20))
    >>> text = Y @ rng.normal(size=(20, 16))
    >>> speech = text + 3 * rng.normal(size=text.shape)  # the same with noise
    >>> result = view_alignment({"text": text, "speech": speech}, Y, random_state=0)
    >>> bool(result.difference.value[0, 1] < -0.2), bool(result.difference.significant[0, 1])
    (True, True)
    """
    settings = inputs.check_settings(n_bootstrap, confidence, random_state, verbose)
    sentences = inputs.check_sentences(views, split, settings.random_state, min_views=2)
    counts = inputs.check_targets(Y, sentences)
    model = inputs.check_estimator(estimator, settings.random_state)
    return compute_alignment(FittedModels(sentences), model, counts, settings)


def compute_alignment(
    models: FittedModels, estimator: Any, counts: sp.csr_array, settings: EvaluationSettings
) -> ViewAlignment:
    """Compute :func:`view_alignment` from checked inputs."""
    sentences = models.sentences
    names, truth = sentences.names, counts[sentences.split.test]
    hits = {}
    for trained_on in show_progress(names, desc="view alignment", unit="fit", disable=not settings.verbose):
        fitted = models.fit(estimator, (trained_on,), counts)
        for read_from in names:
            hits[trained_on, read_from] = evaluation.find_words(fitted, sentences.test(read_from), truth)
    pairs = [(i, j) for i in names for j in names]
    baseline = evaluation.baseline_accuracy(sentences, counts)
    per_row = [evaluation.row_accuracy(hits[pair], truth) for pair in pairs]
    per_row += [jaccard_per_row(hits[i, i], hits[i, j]) for i, j in pairs]
    per_row += [jaccard_per_row(hits[j, j], hits[i, j]) for i, j in pairs]
    bootstrap = PairedBootstrap(np.column_stack([*per_row, baseline]), sentences.test_groups, settings)
    v = len(names)
    column = np.arange(v * v).reshape(v, v)
    own_view = np.repeat(np.diag(column), v).reshape(v, v)
    return ViewAlignment(
        views=names,
        accuracy=bootstrap.means(column),
        difference=bootstrap.differences(column, own_view),
        jaccard=bootstrap.means(column + v * v),
        jaccard_of_models=bootstrap.means(column + 2 * v * v),
        baseline=bootstrap.means(np.array(3 * v * v)),
        n_train=len(sentences.split.train),
        n_test=len(sentences.split.test),
        n_skipped=int(np.isnan(baseline).sum()),
        confidence=settings.confidence,
        own_view_difference=bootstrap.differences(own_view.T, own_view),
    )

"""Do the views agree? A model trained on one view reads another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from flip_sklearn.diagnostics.bootstrap import (
    Difference,
    Interval,
    PairedBootstrap,
    check_resampling,
)
from flip_sklearn.diagnostics.evaluation import (
    as_seed,
    check_estimator,
    check_sentences,
    check_targets,
    find_words,
    fit_on,
    most_frequent,
    row_accuracy,
    row_jaccard,
)
from flip_sklearn.diagnostics.frames import cells, columns, grid
from flip_sklearn.diagnostics.split import SentenceSplit
from flip_sklearn.estimation.frames import data_frame


@dataclass(frozen=True, eq=False)
class ViewAlignment:
    """Result of :func:`view_alignment`; arrays are (trained on, read from).

    Attributes
    ----------
    views : tuple of str
        Names of the v views.
    accuracy : Interval of shape (v, v)
        Keyword accuracy of the model trained on one view, reading another.
    difference : Difference of shape (v, v)
        ``accuracy`` less that of the same model on its own view.
    jaccard : Interval of shape (v, v)
        Jaccard index between the words that one model rightly finds in its own view and in another.
    jaccard_of_models : Interval of shape (v, v)
        The same between the model trained on a view and the one at home in the view that both read.
    baseline : Interval of shape ()
        Keyword accuracy of always guessing the most frequent words.
    n_train, n_test, n_skipped : int
        Sentences trained on, tested on, and test sentences left out since they have no word.
    confidence : float
        Level of all intervals.
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

    def to_frame(self) -> Any:
        """One row for each pair of views.

        Returns
        -------
        pandas.DataFrame
            Columns ``trained_on``, ``read_from``, the accuracy and the difference with their intervals,
            ``significant``, and the two Jaccard indices.
        """
        return data_frame(
            grid(trained_on=self.views, read_from=self.views)
            | columns(self.accuracy, self.difference)
            | {
                "jaccard": self.jaccard.value.ravel(),
                "jaccard_of_models": self.jaccard_of_models.value.ravel(),
            }
        )

    def __repr__(self) -> str:
        return f"ViewAlignment({cells(self.views, self.views, self.accuracy.value)})"


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
    """Train on each view, read every view: how far they share one linear code for words.

    With f_i the model trained on view i, H_ij(n) the words of test sentence n that f_i finds among its
    k_n best in view j (k_n: distinct words of the sentence), and S the test sentences with words,

        accuracy[i, j]          = mean over S of |H_ij(n)| / k_n
        difference[i, j]        = accuracy[i, j] - accuracy[i, i]
        jaccard[i, j]           = mean of |H_ii & H_ij| / |H_ii | H_ij|       one model, two views
        jaccard_of_models[i, j] = mean of |H_jj & H_ij| / |H_jj | H_ij|       two models, one view

    where the means of Jaccard indices leave out sentences in which neither found a word. Modality and
    language alignment, tables 2 and 3 of Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d)
        Two or more row-aligned views of the same sentences, in one embedding space.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the sentences.
    estimator : estimator, default=None
        What to fit, ``FLiPExtractor()`` when None: anything with ``decision_function`` or
        ``predict_proba`` over the columns of Y. All fits start from the same seed.
    split : SentenceSplit, default=None
        Of :func:`split_sentences`; when None a fifth of the sentences, whole groups of equal ones, is
        the test part.
    n_bootstrap : int, default=1000
        Resamples of the test sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1). Each interval stands for itself: among twenty comparisons of
        things that are equal, one is expected to be called significant at .95.
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the fits and the resamples.
    verbose : int, default=1
        Above zero, a progress bar where it takes over two seconds.

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
    >>> speech = text + 3 * rng.normal(size=text.shape)  # the same, heard through noise
    >>> result = view_alignment({"text": text, "speech": speech}, Y, random_state=0)
    >>> bool(result.difference.value[0, 1] < -0.2), bool(result.difference.significant[0, 1])
    (True, True)
    """
    check_resampling(n_bootstrap, confidence)
    seed = as_seed(random_state)
    sentences = check_sentences(views, split, seed, at_least=2)
    counts = check_targets(Y, sentences)
    model = check_estimator(estimator, seed)
    names, truth = sentences.names, counts[sentences.split.test]
    hits = {}
    for trained_on in tqdm(names, desc="view alignment", unit="fit", delay=2, disable=not verbose):
        fitted = fit_on(model, sentences, (trained_on,), counts)
        for read_from in names:
            hits[trained_on, read_from] = find_words(fitted, sentences.test(read_from), truth)
    pairs = [(i, j) for i in names for j in names]
    v, n = len(names), truth.shape[0]
    guess = row_accuracy(most_frequent(counts[sentences.split.train], truth), truth)
    bootstrap = PairedBootstrap(
        np.column_stack(
            [row_accuracy(hits[pair], truth) for pair in pairs]
            + [row_jaccard(hits[i, i], hits[i, j]) for i, j in pairs]
            + [row_jaccard(hits[j, j], hits[i, j]) for i, j in pairs]
            + [guess]
        ),
        sentences.split.groups[sentences.split.test], n_bootstrap, confidence, seed,
    )  # fmt: skip
    cell = np.arange(v * v).reshape(v, v)
    return ViewAlignment(
        views=names,
        accuracy=bootstrap.means(cell),
        difference=bootstrap.differences(cell, np.repeat(np.diag(cell), v).reshape(v, v)),
        jaccard=bootstrap.means(cell + v * v),
        jaccard_of_models=bootstrap.means(cell + 2 * v * v),
        baseline=bootstrap.means(np.array(3 * v * v)),
        n_train=len(sentences.split.train),
        n_test=n,
        n_skipped=int(np.isnan(guess).sum()),
        confidence=confidence,
    )

"""Does the bias hide the names? Named entities among the k best words, with and without it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from flip_sklearn.diagnostics.bootstrap import (
    Difference,
    Interval,
    PairedBootstrap,
    check_resampling,
)
from flip_sklearn.diagnostics.evaluation import as_seed
from flip_sklearn.diagnostics.frames import cells, grid
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import check_embeddings
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics import entity_curve
from flip_sklearn.parameters import check_integer
from flip_sklearn.views import check_views


@dataclass(frozen=True, eq=False)
class EntityRecallCurve:
    """Result of :func:`entity_recall_curve`; arrays are (with bias, without), view, k.

    Attributes
    ----------
    ks : ndarray of shape (K,)
        Numbers of words looked at, ascending.
    views : tuple of str
        Names of the v views.
    recall_strict, recall_partial, precision : Interval of shape (2, v, K)
        Means over the sentences with names: of names found whole, of words of names found, and of words
        looked at that belong to a name.
    difference : Difference of shape (v, K)
        Strict recall without bias less that with it.
    ceiling : float
        Strict recall if every word that the model can give were looked at. Names with a word that
        training never saw count as not found, and keep the recall below 1.
    n_sentences, n_skipped : int
        Sentences given, and those of them left out since they have no name.
    n_names, n_out_of_vocabulary : int
        Names in all sentences, and those of them with a word that the model cannot give.
    confidence : float
        Level of all intervals.
    """

    ks: np.ndarray
    views: tuple[str, ...]
    recall_strict: Interval
    recall_partial: Interval
    precision: Interval
    difference: Difference
    ceiling: float
    n_sentences: int
    n_skipped: int
    n_names: int
    n_out_of_vocabulary: int
    confidence: float

    def to_frame(self) -> Any:
        """One row for each way of scoring, view and k.

        Returns
        -------
        pandas.DataFrame
            Columns ``bias`` (bool), ``view``, ``k``; ``recall_strict`` with its interval ``low`` and
            ``high``; the same for ``recall_partial`` and ``precision``, whose ends have the name in front
            of them; ``difference`` of the strict recall to that with bias, its interval, and
            ``significant``.
        """
        table = grid(bias=(True, False), view=self.views, k=self.ks)
        table["bias"] = table["bias"].astype(bool)
        for name, prefix in (
            ("recall_strict", ""), ("recall_partial", "recall_partial_"), ("precision", "precision_"),
        ):  # fmt: skip
            mean = getattr(self, name)
            table[name] = mean.value.ravel()
            table[prefix + "low"], table[prefix + "high"] = mean.low.ravel(), mean.high.ravel()
        for column, values in (
            ("difference", self.difference.value),
            ("difference_low", self.difference.low),
            ("difference_high", self.difference.high),
            ("significant", self.difference.significant),
        ):
            table[column] = np.stack([np.zeros_like(values), values]).ravel()
        return data_frame(table)

    def __repr__(self) -> str:
        names = [
            f"{bias}, {view}" if len(self.views) > 1 else bias
            for bias in ("with bias", "without")
            for view in self.views
        ]
        values = self.recall_strict.value.reshape(len(names), -1)
        return f"EntityRecallCurve({cells(names, [f'at {k}' for k in self.ks], values)})"


def entity_recall_curve(
    model: FLiPExtractor,
    X: Any,
    entities: Any,
    *,
    ks: Iterable[int] = (1, 2, 5, 10, 20, 50, 100),
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> EntityRecallCurve:
    """How many of a sentence's names are among its k best words, ranked with the bias and without.

    With m_n names in sentence n, K_n(k) its k best words by the scores z = beta b + A B (x - mu), beta = 1
    with the bias and 0 without, and S the sentences with names,

        recall_strict(k)  = mean over S of |{names whose words are all in K_n(k)}| / m_n
        recall_partial(k) = mean over S of the mean share of a name's words in K_n(k)
        precision(k)      = mean over S of |{words of names in K_n(k)}| / |K_n(k)|
        difference(k)     = recall_strict(k) without bias - recall_strict(k) with bias,

    in the corners as :func:`flip_sklearn.metrics.entity_recall`. The bias is the log-frequency of words,
    so that with it names, which are rare, stand behind frequent words. Section 4.6 and figure 1 of
    Kesiraju et al. (2026, arXiv 2604.18109).

    Parameters
    ----------
    model : FLiPExtractor
        A fitted one, whose vocabulary has single words. It is not changed: both curves are of the same
        fit, whatever its ``use_bias`` is.
    X : array-like of shape (n, d), or mapping of str to such arrays
        Embeddings of sentences that the model was not trained on, or several row-aligned views of them.
    entities : sequence of n lists of str
        The names in each sentence; an empty list where there is none.
    ks : iterable of int, default=(1, 2, 5, 10, 20, 50, 100)
        Numbers of words to look at, >= 1, in any order. All of them cost little more than the largest.
    n_bootstrap : int, default=1000
        Resamples of the sentences with names, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1). Each interval stands for itself.
    random_state : int, RandomState instance or None, default=None
        Seed of the resamples.
    verbose : int, default=1
        Above zero, a progress bar where it takes over two seconds.

    Returns
    -------
    EntityRecallCurve
        The curves, with intervals.

    Raises
    ------
    ValueError
        Before any scoring, if the model is not fitted, views are not aligned, entities are of another
        length, a name is empty or blank, no sentence has a name, or another argument is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import entity_recall_curve
    >>> rng = np.random.default_rng(0)
    >>> words = ["the", "of", "is", "alice", "berlin", "nile"]  # the names are the rare ones
    >>> Y = rng.poisson([2, 2, 2, 0.1, 0.1, 0.1], size=(900, 6))
    >>> X = Y @ rng.normal(size=(6, 8)) + 0.3 * rng.normal(size=(900, 8))
    >>> flip = FLiPExtractor(vocabulary=words, random_state=0).fit(X[:600], Y[:600])
    >>> names = [[words[j] for j in (3, 4, 5) if row[j]] for row in Y[600:]]
    >>> curve = entity_recall_curve(flip, X[600:], names, ks=[1, 2, 3], random_state=0)
    >>> bool(curve.difference.value[0, 0] > 0.3), bool(curve.difference.significant[0, 0])
    (True, True)
    """
    check_resampling(n_bootstrap, confidence)
    at = _check_ks(ks)
    views = _check_views(model, X)
    n = len(next(iter(views.values())))
    rows = _check_entities(entities, n)
    named = np.flatnonzero([len(row) > 0 for row in rows])
    names = [rows[i] for i in named]
    ceiling, n_unknown = _reachable(model, names)
    scorers = [_scorer(model, use_bias) for use_bias in (True, False)]
    curves = []
    with tqdm(total=2 * len(views), desc="entities", delay=2, disable=not verbose) as bar:
        for scorer in scorers:
            for view in views.values():
                keywords = scorer.extract_keywords(view[named], top_k=max(at))
                curves.append(entity_curve(names, keywords, at))
                bar.update()
    metrics = ("recall_strict", "recall_partial", "precision")
    bootstrap = PairedBootstrap(
        np.column_stack(
            [getattr(found, metric).per_row for metric in metrics for row in curves for found in row]
        ),
        np.arange(len(names)), n_bootstrap, confidence, as_seed(random_state),
    )  # fmt: skip
    cell = np.arange(3 * 2 * len(views) * len(at)).reshape(3, 2, len(views), len(at))
    return EntityRecallCurve(
        ks=np.array(at),
        views=tuple(views),
        recall_strict=bootstrap.means(cell[0]),
        recall_partial=bootstrap.means(cell[1]),
        precision=bootstrap.means(cell[2]),
        difference=bootstrap.differences(cell[0, 1], cell[0, 0]),
        ceiling=ceiling,
        n_sentences=n,
        n_skipped=n - len(names),
        n_names=sum(map(len, names)),
        n_out_of_vocabulary=n_unknown,
        confidence=confidence,
    )


def _check_ks(ks: Any) -> list[int]:
    """Numbers of words, ascending, once each."""
    if not isinstance(ks, Iterable) or isinstance(ks, (str, bytes)):
        raise ValueError(f"ks is {ks!r}; pass a list of numbers of words, such as [1, 10, 100].")
    at = sorted({check_integer("ks", k, 1) for k in ks})
    if not at:
        raise ValueError("ks is empty; pass at least one number of words, such as [1, 10, 100].")
    return at


def _check_views(model: Any, X: Any) -> dict[str, np.ndarray]:
    """The views as arrays that the model can score, all of them checked before the first is scored."""
    if not isinstance(model, FLiPExtractor):
        raise ValueError(
            f"model is {model!r:.60}; pass a fitted FLiPExtractor, the model that can be scored with and "
            "without its bias (of a pipeline the last step, and X as the steps before give it)."
        )
    check_is_fitted(model)
    given = X if isinstance(X, Mapping) else {"embeddings": X}
    check_views(given)
    arrays = {}
    for name, view in given.items():
        try:
            arrays[name] = check_embeddings(model, view, reset=False)[0]
        except ValueError as error:
            raise ValueError(f"view {name!r}: {error}") from error
    return arrays


def _check_entities(entities: Any, n: int) -> list[Any]:
    """One list of names per sentence, with at least one name in all."""
    given = entities
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping)):
        given = list(given)
    n_rows = len(given) if hasattr(given, "__len__") else 0
    entity_curve(given, [[]] * n_rows, [1])  # complains of what is no list of lists of names
    if n_rows != n:
        raise ValueError(
            f"entities has {n_rows} rows, X has {n}; pass one list of names per sentence, [] for none."
        )
    if not any(map(len, given)):
        raise ValueError(
            f"none of the {n} sentences has a name in entities; recall needs at least one name."
        )
    return list(given)


def _reachable(model: FLiPExtractor, names: list[Any]) -> tuple[float, int]:
    """Strict recall with every word that the model can give, and the number of names beyond it."""
    seen = {word.casefold() for word in model.vocabulary_[model.word_counts_ > 0]}
    within = [[name for name in row if seen.issuperset(name.casefold().split())] for row in names]
    words = [" ".join(row).split() for row in within]
    recall = entity_curve(names, words, [None])[0].recall_strict
    return recall.value, sum(map(len, names)) - sum(map(len, within))


def _scorer(model: FLiPExtractor, use_bias: bool) -> FLiPExtractor:
    """The same fit with or without bias; it shares the arrays of the caller's model."""
    scorer = copy.copy(model)
    scorer.set_params(use_bias=use_bias, verbose=0)
    # Names of columns were checked; arrays have none, and would be warned about.
    scorer.__dict__.pop("feature_names_in_", None)
    return scorer

"""Entity recall: named entities among the k best words, with and without the bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.frames import difference_columns, grid, interval_columns, matrix_text
from flip_sklearn.diagnostics.inputs import check_model, check_settings
from flip_sklearn.diagnostics.split import group_sentences, merge_groups, named_views
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import check_embeddings
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import as_numpy, show_progress
from flip_sklearn.metrics import entity_curve
from flip_sklearn.metrics.entities import KeywordSpans
from flip_sklearn.parameters import check_integer
from flip_sklearn.views import check_views
from flip_sklearn.vocabulary.normalization import word_reader


@dataclass(frozen=True, eq=False)
class EntityRecallCurve:
    """Result of :func:`entity_recall_curve`; arrays are (with bias, without), view, k.

    Attributes
    ----------
    ks : ndarray of shape (K,)
        Numbers of best words, ascending.
    views : tuple of str
        Names of the v views.
    recall_strict, recall_partial, precision : Interval of shape (2, v, K)
        Means over the sentences with names: share of names of which all words are found, mean share of
        the words of a name that are found, and share of the k best words that belong to a name.
    difference : Difference of shape (v, K)
        Strict recall without bias minus that with bias.
    ceiling : float
        Strict recall if all words of the training text are among the best words. It is below 1 if a
        name has a word that is neither in the training text nor part of a pair there.
    n_sentences, n_skipped : int
        Number of sentences, and of sentences without names, which are left out.
    n_names, n_out_of_vocabulary : int
        Number of names in all sentences, and of names with a word that is not in the training text.
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
            ``high``; ``recall_partial`` and ``precision`` with intervals such as ``precision_low``;
            ``difference`` of the strict recall to that with bias, its interval, and ``significant``.
        """
        table = grid(bias=(True, False), view=self.views, k=self.ks)
        table |= interval_columns("recall_strict", self.recall_strict)
        table |= interval_columns("recall_partial", self.recall_partial, "recall_partial_")
        table |= interval_columns("precision", self.precision, "precision_")
        for name, without_bias in difference_columns(self.difference).items():
            table[name] = np.concatenate([np.zeros_like(without_bias), without_bias])
        return data_frame(table)

    def __repr__(self) -> str:
        names = [
            f"{bias}, {view}" if len(self.views) > 1 else bias
            for bias in ("with bias", "without")
            for view in self.views
        ]
        values = self.recall_strict.value.reshape(len(names), -1)
        return f"EntityRecallCurve({matrix_text(names, [f'at {k}' for k in self.ks], values)})"


def entity_recall_curve(
    model: FLiPExtractor,
    X: Any,
    entities: Any,
    *,
    ks: Iterable[int] = (1, 2, 5, 10, 20, 50, 100),
    groups: Any = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
    vectorizer: Any = None,
) -> EntityRecallCurve:
    """Measure how many of a sentence's names are among its k best words, with and without the bias.

    With m_n names in sentence n, K_n(k) its k best words by the scores z = beta b + A B (x - mu), beta = 1
    with the bias and 0 without, and S the sentences with names::

        recall_strict(k)  = mean over S of |{names whose words are all in K_n(k)}| / m_n
        recall_partial(k) = mean over S of the mean share of a name's words in K_n(k)
        precision(k)      = mean over S of |{words of names in K_n(k)}| / |K_n(k)|
        difference(k)     = recall_strict(k) without bias - recall_strict(k) with bias,

    with the conventions of :func:`flip_sklearn.metrics.entity_recall`. The bias is close to the
    log-frequency of words, so it ranks names, which are rare, behind frequent words. Section 4.6 and
    figure 1 of Kesiraju et al. (2026, arXiv 2604.18109). Intervals are as in :func:`word_recoverability`;
    those of differences, where less than 30 groups differ, follow from the gains and the losses.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted model. It is not changed, and its ``use_bias`` is not
        used.
    X : array-like of shape (n, d), or mapping of str to such arrays
        Embeddings of sentences that the model was not trained on, or several row-aligned views of them.
    entities : sequence of n lists of str
        The names in each sentence; an empty list where there is none.
    ks : iterable of int, default=(1, 2, 5, 10, 20, 50, 100)
        Numbers of best words, >= 1, in any order.
    groups : array-like of shape (n,), default=None
        Labels of sentences that belong together, such as speaker, document or source sentence. Intervals
        take groups for independent, not sentences. Sentences with equal embeddings in any view, bit for bit,
        are always in one group.
    n_bootstrap : int, default=1000
        Number of resamples of the groups of sentences with names, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1), without correction for multiple comparisons.
    random_state : int, RandomState instance or None, default=None
        Seed of the resamples.
    verbose : int, default=1
        If above zero, show a progress bar for scoring of more than two seconds.
    vectorizer : ConceptVectorizer or CountVectorizer, default=None
        The vectorizer of the model's vocabulary, if its parameters are not the defaults: names are split
        into words as it splits texts.

    Returns
    -------
    EntityRecallCurve
        The curves, with intervals.

    Raises
    ------
    ValueError
        Before any scoring, if the model is not fitted, views are not aligned, entities are of another
        length, a name is empty or blank, no sentence has a name, groups has another length or a missing
        label, or another argument is not allowed.

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
    settings = check_settings(n_bootstrap, confidence, random_state, verbose)
    sorted_ks = _check_ks(ks)
    views = _check_views(model, X)
    n = len(next(iter(views.values())))
    all_names = check_entities(entities, n, "X has")
    read = word_reader(vectorizer)
    group = group_sentences(merge_groups([groups], n), views.values(), n)
    rows = np.flatnonzero([len(row_names) > 0 for row_names in all_names])
    if not len(rows):
        raise ValueError(f"none of the {n} sentences has a name in entities; recall needs at least one name.")
    names = [all_names[i] for i in rows]
    trained_words = model.vocabulary_[model.word_counts_ > 0]
    ceiling, n_unknown = reachable_names(trained_words, names, read)
    k = min(sorted_ks[-1], len(trained_words))
    curves = []
    total = 2 * len(views) * len(rows)
    with show_progress(total=total, desc="entities", unit="row", disable=not verbose) as bar:
        for use_bias in (True, False):
            scorer = scoring.make_scorer(model, use_bias)
            for view in views.values():
                columns, _ = scorer.top(view[rows], k, after_block=bar.update)
                keywords = model.vocabulary_[columns].tolist()
                curves.append(entity_curve(names, keywords, sorted_ks, vectorizer=vectorizer))
    metrics = ("recall_strict", "recall_partial", "precision")
    per_row = [getattr(point, metric).per_row for metric in metrics for curve in curves for point in curve]
    bootstrap = PairedBootstrap(np.column_stack(per_row), group[rows], settings)
    column = np.arange(len(per_row)).reshape(3, 2, len(views), len(sorted_ks))
    return EntityRecallCurve(
        ks=np.array(sorted_ks),
        views=tuple(views),
        recall_strict=bootstrap.means(column[0]),
        recall_partial=bootstrap.means(column[1]),
        precision=bootstrap.means(column[2]),
        difference=bootstrap.differences(column[0, 1], column[0, 0]),
        ceiling=ceiling,
        n_sentences=n,
        n_skipped=n - len(names),
        n_names=sum(map(len, names)),
        n_out_of_vocabulary=n_unknown,
        confidence=settings.confidence,
    )


def _check_ks(ks: Any) -> list[int]:
    """Distinct numbers of words, ascending."""
    is_sequence = isinstance(ks, Iterable) and not isinstance(ks, (str, bytes))
    sorted_ks = sorted({check_integer("ks", k, 1) for k in ks}) if is_sequence else []
    if not sorted_ks:
        raise ValueError(f"ks is {ks!r}; pass a list of at least one number of words, such as [1, 10, 100].")
    return sorted_ks


def _check_views(model: Any, X: Any) -> dict[str, np.ndarray]:
    """Check all views against the model before any of them is scored."""
    check_model(model)
    views = named_views(X)
    check_views(views)
    arrays = {}
    for name, view in views.items():
        try:
            arrays[name] = as_numpy(check_embeddings(model, view, reset=False)[0])
        except ValueError as error:
            raise ValueError(f"view {name!r}: {error}") from error
    return arrays


def check_entities(entities: Any, n: int, embeddings_have: str) -> list[Any]:
    """One list of names for each of the n sentences; ``embeddings_have`` begins the count in the error."""
    if isinstance(entities, Iterable) and not isinstance(entities, (str, bytes, Mapping)):
        entities = list(entities)
    n_rows = len(entities) if hasattr(entities, "__len__") else 0
    entity_curve(entities, [[]] * n_rows, [1])  # raises unless these are lists of names
    if n_rows != n:
        raise ValueError(
            f"entities has {n_rows} rows, {embeddings_have} {n}; pass one list of names per sentence, [] "
            "for none."
        )
    return list(entities)


def reachable_names(
    trained_words: Iterable[str], names: list[list[str]], read: Callable[[str], list[str]]
) -> tuple[float, int]:
    """Strict recall with all words of the training text, and the number of names with other words."""
    spans = KeywordSpans(read)
    keys = set(map(spans.key, trained_words))
    is_reachable: dict[str, bool] = {}
    for name in dict.fromkeys(chain.from_iterable(names)):
        is_reachable[name] = all(not keys.isdisjoint(found) for found in spans.keywords_at(name))
    # A name that is listed twice is found once but counts twice, as in entity_recall.
    found = [len({name.casefold() for name in row if is_reachable[name]}) / len(row) for row in names]
    return float(np.mean(found)) if names else math.nan, sum(
        not is_reachable[name] for row in names for name in row
    )

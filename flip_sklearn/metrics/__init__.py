"""Metrics of word extraction, in NumPy and SciPy: they judge any scores, not only this package's.

Each gives a :class:`RowMean`: the mean over rows, its standard error, how many rows count and how many
are skipped, and the value of each row.
"""

from flip_sklearn.metrics.entities import EntityRecall, entity_curve, entity_recall
from flip_sklearn.metrics.keywords import (
    PrecisionRecall,
    hit_jaccard,
    hit_sets,
    keyword_accuracy,
    keyword_accuracy_scorer,
    precision_recall,
    span_accuracy,
)
from flip_sklearn.metrics.likelihood import log_likelihood_scorer, perplexity
from flip_sklearn.metrics.summary import RowMean

__all__ = [
    "EntityRecall",
    "PrecisionRecall",
    "RowMean",
    "entity_curve",
    "entity_recall",
    "hit_jaccard",
    "hit_sets",
    "keyword_accuracy",
    "keyword_accuracy_scorer",
    "log_likelihood_scorer",
    "perplexity",
    "precision_recall",
    "span_accuracy",
]

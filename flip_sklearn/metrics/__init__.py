"""Metrics of word extraction in NumPy and SciPy, for scores of any model.

Results have a value with its standard error, the numbers of used and skipped rows, and the value of each
row. Most are a :class:`RowMean`, the mean of a metric over rows.
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
from flip_sklearn.metrics.likelihood import Perplexity, log_likelihood_scorer, perplexity
from flip_sklearn.metrics.presence import PresenceCalibration, presence_calibration
from flip_sklearn.metrics.summary import RowMean

__all__ = [
    "EntityRecall",
    "Perplexity",
    "PrecisionRecall",
    "PresenceCalibration",
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
    "presence_calibration",
    "span_accuracy",
]

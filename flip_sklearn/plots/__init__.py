"""Plots of results. A Display stores the arrays of a result and draws them with `plot`."""

from flip_sklearn.plots.alignment import AlignmentDisplay
from flip_sklearn.plots.curves import EntityCurveDisplay, RankCurveDisplay
from flip_sklearn.plots.directions import DirectionDisplay
from flip_sklearn.plots.extractors import ExtractorDisplay
from flip_sklearn.plots.keywords import KeywordDisplay
from flip_sklearn.plots.leakage import LeakageDisplay
from flip_sklearn.plots.presence import PresenceCalibrationDisplay
from flip_sklearn.plots.rare_words import RareWordDisplay
from flip_sklearn.plots.selectivity import SelectivityDisplay
from flip_sklearn.plots.sets import SetComparisonDisplay
from flip_sklearn.plots.similarity import SimilarityDisplay
from flip_sklearn.plots.sparsity import SparsityDisplay
from flip_sklearn.plots.view_gap import ViewGapDisplay
from flip_sklearn.plots.words import RecoverabilityDisplay

__all__ = [
    "AlignmentDisplay",
    "DirectionDisplay",
    "EntityCurveDisplay",
    "ExtractorDisplay",
    "KeywordDisplay",
    "LeakageDisplay",
    "PresenceCalibrationDisplay",
    "RankCurveDisplay",
    "RareWordDisplay",
    "RecoverabilityDisplay",
    "SelectivityDisplay",
    "SetComparisonDisplay",
    "SimilarityDisplay",
    "SparsityDisplay",
    "ViewGapDisplay",
]

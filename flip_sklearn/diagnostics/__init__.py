"""Diagnoses of an encoder: which words can be extracted from its embeddings, view by view."""

from flip_sklearn.diagnostics.alignment import ViewAlignment, view_alignment
from flip_sklearn.diagnostics.audit import Leakage, leakage
from flip_sklearn.diagnostics.bootstrap import Difference, Interval
from flip_sklearn.diagnostics.comparison import (
    ExtractorComparison,
    RankAnalysis,
    compare_extractors,
    rank_analysis,
)
from flip_sklearn.diagnostics.editing import edit_words
from flip_sklearn.diagnostics.editing_result import EditedWords
from flip_sklearn.diagnostics.entities import EntityRecallCurve, entity_recall_curve
from flip_sklearn.diagnostics.erasure import ErasedWords, erase_words
from flip_sklearn.diagnostics.estimators import EstimatorExplanation, explain_estimator
from flip_sklearn.diagnostics.guessing import selectivity
from flip_sklearn.diagnostics.guessing_result import Selectivity
from flip_sklearn.diagnostics.preference import (
    EncoderComparison,
    VocabularyPreference,
    compare_encoders,
    vocabulary_preference,
)
from flip_sklearn.diagnostics.rare_words import RareWordRecall, rare_word_recall
from flip_sklearn.diagnostics.sets import SetComparison, compare_sets
from flip_sklearn.diagnostics.similarity import SimilarityExplanation, SimilarityWithout, explain_similarity
from flip_sklearn.diagnostics.split import SentenceSplit, split_sentences
from flip_sklearn.diagnostics.view_gap import ViewGap, view_gap
from flip_sklearn.diagnostics.words import WordRecoverability, word_recoverability

__all__ = [
    "Difference",
    "EditedWords",
    "EncoderComparison",
    "EntityRecallCurve",
    "ErasedWords",
    "EstimatorExplanation",
    "ExtractorComparison",
    "Interval",
    "Leakage",
    "RankAnalysis",
    "RareWordRecall",
    "Selectivity",
    "SentenceSplit",
    "SetComparison",
    "SimilarityExplanation",
    "SimilarityWithout",
    "ViewAlignment",
    "ViewGap",
    "VocabularyPreference",
    "WordRecoverability",
    "compare_encoders",
    "compare_extractors",
    "compare_sets",
    "edit_words",
    "entity_recall_curve",
    "erase_words",
    "explain_estimator",
    "explain_similarity",
    "leakage",
    "rank_analysis",
    "rare_word_recall",
    "selectivity",
    "split_sentences",
    "view_alignment",
    "view_gap",
    "vocabulary_preference",
    "word_recoverability",
]

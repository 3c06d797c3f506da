"""Read words off sentence embeddings: FLiP, factorized linear projection, for scikit-learn."""

from flip_sklearn.bulk import KeywordMapper
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics import keyword_accuracy, keyword_accuracy_scorer
from flip_sklearn.path import kkt_residual, regularization_path
from flip_sklearn.splice import SpLiCEExtractor
from flip_sklearn.views import stack_views
from flip_sklearn.vocabulary import ConceptVectorizer

__version__ = "0.1.0"

__all__ = [
    "ConceptVectorizer",
    "FLiPExtractor",
    "KeywordMapper",
    "SpLiCEExtractor",
    "keyword_accuracy",
    "keyword_accuracy_scorer",
    "kkt_residual",
    "regularization_path",
    "stack_views",
]

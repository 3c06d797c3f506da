"""SpLiCE: embeddings as sparse non-negative combinations of concept embeddings."""

from flip_sklearn.splice.extractor import SpLiCEExtractor
from flip_sklearn.splice.results import ConceptMeans, DecompositionQuality

__all__ = ["ConceptMeans", "DecompositionQuality", "SpLiCEExtractor"]

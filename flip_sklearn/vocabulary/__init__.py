"""Text -> counts of words and of pairs that belong together ("new york"), a span counted as one unit."""

from flip_sklearn.vocabulary.vectorizer import ConceptVectorizer
from flip_sklearn.vocabulary.vectorizer import _concepts as _concepts  # named by pickles of 0.1.0

__all__ = ["ConceptVectorizer"]

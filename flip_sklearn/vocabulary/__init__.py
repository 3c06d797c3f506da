"""Texts to counts of concepts: words, and pairs of associated words, such as "new york"."""

from flip_sklearn.vocabulary.vectorizer import ConceptVectorizer
from flip_sklearn.vocabulary.vectorizer import _concepts as _concepts  # named by pickles of 0.1.0

__all__ = ["ConceptVectorizer"]

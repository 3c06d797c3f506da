"""Texts or audio files -> embeddings."""

from flip_sklearn.encoders.base import EncodingError
from flip_sklearn.encoders.encoder import SentenceEncoder

__all__ = ["EncodingError", "SentenceEncoder"]

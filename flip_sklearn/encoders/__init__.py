"""Texts or speech -> embeddings."""

from flip_sklearn.encoders.base import EncodingError
from flip_sklearn.encoders.encoder import SentenceEncoder
from flip_sklearn.encoders.speech import SpeechEncoder

__all__ = ["EncodingError", "SentenceEncoder", "SpeechEncoder"]

"""Data sets: sentences of installed packages, and the published pairs of text and speech embeddings."""

from flip_sklearn.datasets.docstrings import DEFAULT_PACKAGES, load_docstrings
from flip_sklearn.datasets.paired import PairedEmbeddings, load_paired_embeddings
from flip_sklearn.datasets.translations import Translations, load_translations

__all__ = [
    "DEFAULT_PACKAGES",
    "PairedEmbeddings",
    "Translations",
    "load_docstrings",
    "load_paired_embeddings",
    "load_translations",
]

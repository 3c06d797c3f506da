"""Data sets: sentences of installed packages, and the published pairs of text and speech embeddings."""

from flip_sklearn.datasets import docstrings
from flip_sklearn.datasets.docstrings import load_docstrings
from flip_sklearn.datasets.paired import PairedEmbeddings, load_paired_embeddings
from flip_sklearn.datasets.translations import Translations, load_translations

#: What :func:`load_docstrings` reads by default: the standard library and packages that this one needs.
DEFAULT_PACKAGES = docstrings.DEFAULT_PACKAGES

__all__ = [
    "DEFAULT_PACKAGES",
    "PairedEmbeddings",
    "Translations",
    "load_docstrings",
    "load_paired_embeddings",
    "load_translations",
]

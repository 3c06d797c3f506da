"""Data sets: sentences of installed docstrings, and the published pairs of text and speech embeddings."""

from flip_sklearn.datasets.docstrings import DEFAULT_PACKAGES, load_docstrings
from flip_sklearn.datasets.paired import PairedEmbeddings, load_paired_embeddings

__all__ = ["DEFAULT_PACKAGES", "PairedEmbeddings", "load_docstrings", "load_paired_embeddings"]

"""What the encoders of texts and of speech share: a transformer without fit whose weights are not copied."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from flip_sklearn.encoders.base import EncoderBackend
from flip_sklearn.encoders.batching import encode
from flip_sklearn.parameters import DocumentationLink, check_bool, check_folder, check_integer, refusal


@dataclass
class Loaded:
    """A backend, the parameters that it was made from, and the dimensions of its last result."""

    parameters: tuple[Any, ...]
    backend: EncoderBackend
    n_dimensions: int | None = None


# Weights are stored outside the estimators, so that no pickle, clone or copy contains them.
LOADED: weakref.WeakKeyDictionary[EmbeddingEncoder, Loaded] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


class EmbeddingEncoder(DocumentationLink, TransformerMixin, BaseEstimator):
    """Base class of the encoders."""

    batch_size: int | str
    device: str
    normalize: bool
    revision: str | None
    cache_dir: Any
    verbose: int

    def fit(self, X: Any = None, y: Any = None) -> Any:
        """Check the parameters; there is nothing to learn.

        Parameters
        ----------
        X, y : ignored
            Exist for pipelines.

        Returns
        -------
        self : object
            This encoder.

        Raises
        ------
        ValueError
            If a parameter is not allowed.
        """
        self._check_parameters()
        return self

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the dimensions, such as ``sentenceencoder0``: the class and a number.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of shape (d,) of str objects
            Names of the columns.

        Raises
        ------
        ValueError
            If nothing has been encoded yet, so that d is not known.
        """
        loaded = LOADED.get(self)
        if loaded is None or loaded.n_dimensions is None:
            raise ValueError(
                "The number of dimensions is not known before anything is encoded; call transform first."
            )
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(loaded.n_dimensions)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _check_parameters(self) -> str:
        """Check all parameters and return the name of the backend."""
        raise NotImplementedError

    def _check_common(self, max_batch_size: int | None = None) -> None:
        """Check the parameters that all encoders have."""
        if self.batch_size != "auto":
            check_integer("batch_size", self.batch_size, 1, max_batch_size, or_else="'auto'")
        check_bool("normalize", self.normalize)
        if not isinstance(self.device, str) or not self.device:
            raise refusal("device", self.device, "'auto', or a device of torch such as 'cuda:0'")
        check_folder("cache_dir", self.cache_dir)

    def _get_loaded(self, parameters: tuple[Any, ...], make: Callable[[], EncoderBackend]) -> Loaded:
        """Return the backend for these parameters, that of the last call if they are the same."""
        # A model that was loaded without a cache has no version yet, and its folder may have changed.
        parameters = (*parameters, self.cache_dir is not None)
        with _LOCK:
            loaded = LOADED.get(self)
            if loaded is None or loaded.parameters != parameters:
                loaded = LOADED[self] = Loaded(parameters, make())
            return loaded

    def _encode(
        self, items: list[Any], loaded: Loaded, truncate_dim: int | None = None, chunk: str | None = None
    ) -> np.ndarray:
        """Return the vectors of checked items, truncated and normalized."""
        cache = None if self.cache_dir is None else Path(self.cache_dir).expanduser()
        backend = loaded.backend
        batch_size: Any = backend.batch_size if self.batch_size == "auto" else self.batch_size
        vectors = encode(items, backend, batch_size, cache, truncate_dim, bool(self.verbose), chunk)
        if truncate_dim is not None:
            vectors = np.ascontiguousarray(vectors[:, :truncate_dim])
        if self.normalize:
            # In float64, because squares of large or small float32 numbers overflow or underflow.
            norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
            np.divide(vectors, norms, out=vectors, where=norms > 0, casting="same_kind")
        loaded.n_dimensions = vectors.shape[1]
        return vectors

"""Encode texts in batches: each distinct text once, from the cache if possible; order is kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from flip_sklearn.encoders.base import EncoderBackend, EncodingError
from flip_sklearn.encoders.cache import VectorCache, compute_keys
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import short_repr

_DELAY = 2.0  # seconds before a progress bar is shown


class _Encoding:
    """Distinct texts and their vectors, an array (n, d); d is 0 until the first vectors are known."""

    def __init__(self, texts: list[str], backend: EncoderBackend, truncate_dim: int | None) -> None:
        self.texts = texts
        self.backend = backend
        self.min_dimensions = truncate_dim or 1
        self.vectors = np.empty((len(texts), 0), np.float32)
        self.cache: VectorCache | None = None
        self.keys: list[bytes] = []

    def put(self, rows: Any, vectors: np.ndarray) -> None:
        d = vectors.shape[-1]
        if d < self.min_dimensions:
            raise ValueError(
                f"truncate_dim={self.min_dimensions} is not allowed; the model has {d} dimensions, use at "
                "most that or None."
            )
        if self.vectors.shape[1] == 0:
            self.vectors = np.empty((len(self.texts), d), np.float32)
        self.vectors[rows] = vectors

    def read(self, cache: VectorCache, keys: list[bytes]) -> list[int]:
        """Read the vectors that are in the cache; return the indices of the other texts."""
        self.cache, self.keys = cache, keys
        missing = np.ones(len(keys), bool)
        for i, vector in cache.get(keys):
            if self.vectors.shape[1] not in (0, len(vector)):
                raise EncodingError(
                    f"{cache.path} has vectors of different lengths for the same model and options; use "
                    "another cache_dir, or change revision."
                )
            self.put(i, vector)
            missing[i] = False
        return np.flatnonzero(missing).tolist()

    def compute(self, missing: Sequence[int], batch_size: int, verbose: bool) -> None:
        """Encode the texts with these indices, batch by batch, and store each batch in the cache."""
        if not missing:
            return  # without loading weights or opening a connection
        texts, backend = self.texts, self.backend
        if backend.sort_by_length:
            # The longest texts come first, so that a batch that does not fit in memory fails at once.
            missing = sorted(missing, key=lambda i: -len(texts[i]))
        bar = tqdm(
            total=len(texts),
            initial=len(texts) - len(missing),
            desc=backend.name,
            unit="text",
            delay=_DELAY,
            disable=not verbose,
        )
        with backend.session() as encode_batch, bar:
            for number, start in enumerate(range(0, len(missing), batch_size)):
                batch = missing[start : start + batch_size]
                output = encode_batch([texts[i] for i in batch])
                try:
                    vectors = _check_vectors(output, len(batch), self.vectors.shape[1])
                except ValueError as error:
                    first = short_repr(texts[batch[0]], 40)
                    raise EncodingError(
                        f"The {backend.name} backend {error}, in batch {number} of {len(batch)} texts, "
                        f"beginning with {first}; no vector of this batch is stored."
                    ) from error
                self.put(batch, vectors)
                if self.cache is not None:
                    self.cache.put([self.keys[i] for i in batch], vectors)
                bar.update(len(batch))


def encode(
    texts: list[str],
    backend: EncoderBackend,
    batch_size: int,
    cache_dir: Path | None,
    truncate_dim: int | None,
    verbose: bool,
) -> np.ndarray:
    """Return the vectors of texts, float32 (n, d), not yet truncated; row i is the vector of text i.

    The first batch raises ValueError if the model has fewer than ``truncate_dim`` dimensions.
    """
    index_of: dict[str, int] = {}
    index = np.empty(len(texts), np.intp)
    for row, text in enumerate(texts):
        index[row] = index_of.setdefault(text, len(index_of))
    encoding = _Encoding(list(index_of), backend, truncate_dim)
    if cache_dir is None:
        encoding.compute(range(len(index_of)), batch_size, verbose)
    else:
        settings = {"backend": backend.name, **backend.identity()}
        keys = compute_keys(settings, map(backend.content, encoding.texts))
        with closing(VectorCache(cache_dir)) as cache:
            missing = encoding.read(cache, keys)
            encoding.compute(missing, batch_size, verbose)
    return encoding.vectors if len(index_of) == len(texts) else encoding.vectors[index]


def _check_vectors(vectors: Any, n: int, d: int) -> np.ndarray:
    """Return n finite float32 vectors of d dimensions, or any number of them if d is 0.

    The message of the ValueError is the predicate of a sentence about the backend.
    """
    vectors = as_numpy(vectors)
    if sp.issparse(vectors):
        raise ValueError("returned a sparse matrix instead of a dense array (toarray)")
    try:
        array = np.asarray(vectors)
        if array.dtype.kind in "USOMmc":
            raise TypeError(f"dtype {array.dtype}")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must return equally long vectors of numbers, and did not ({error})") from error
    n_vectors = len(array) if array.ndim else 0
    if n_vectors != n:  # all later rows would be shifted
        raise ValueError(f"returned {n_vectors} vectors for {n} texts")
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"returned an array of shape {array.shape}, not ({n}, d)")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise ValueError(
            f"returned NaN, infinity or a number beyond float32 in {len(bad)} of {n} vectors (the first is "
            f"number {bad[0]})"
        )
    if d not in (0, array.shape[1]):
        raise ValueError(f"returned {array.shape[1]} dimensions, and {d} before (or in the cache)")
    return array

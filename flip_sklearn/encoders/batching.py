"""Encode texts in batches: each distinct text once, from the cache if possible; order is kept."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
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
_NOT_STORED = "no vector of this batch is stored"


class _VectorArray:
    """An (n, d) array that is allocated with the first vectors, when d becomes known."""

    def __init__(self, n: int, truncate_dim: int | None) -> None:
        self.n = n
        self.min_dimensions = truncate_dim or 1
        self.array: np.ndarray | None = None

    def put(self, rows: Any, vectors: np.ndarray, d: int) -> bool:
        """Store vectors of d dimensions; return False if the array has another number of dimensions."""
        if d < self.min_dimensions:
            raise ValueError(
                f"truncate_dim={self.min_dimensions} is not allowed; the model has {d} dimensions, use at "
                "most that or None."
            )
        if self.array is None:
            self.array = np.empty((self.n, d), np.float32)
        if self.array.shape[1] != d:
            return False
        self.array[rows] = vectors
        return True


@dataclass(frozen=True)
class _Job:
    """Distinct texts, where their vectors go, and how they are encoded."""

    texts: list[str]
    vectors: _VectorArray
    backend: EncoderBackend
    batch_size: int
    verbose: bool


def encode(
    texts: list[str],
    backend: EncoderBackend,
    batch_size: int,
    cache_dir: Path | None,
    truncate_dim: int | None,
    verbose: bool,
) -> np.ndarray:
    """Return the vectors of texts, float32 (n, d), not yet truncated; row i is the vector of text i.

    A model of fewer than ``truncate_dim`` dimensions raises ValueError with the first batch.
    """
    index_of: dict[str, int] = {}
    index = np.empty(len(texts), np.intp)
    for row, text in enumerate(texts):
        index[row] = index_of.setdefault(text, len(index_of))
    unique = list(index_of)
    vectors = _VectorArray(len(unique), truncate_dim)
    job = _Job(unique, vectors, backend, batch_size, verbose)
    if cache_dir is None:
        _encode_missing(job, list(range(len(unique))))
    else:
        _encode_with_cache(job, cache_dir)
    assert vectors.array is not None  # there is at least one text
    return vectors.array if len(unique) == len(texts) else vectors.array[index]


def _encode_with_cache(job: _Job, cache_dir: Path) -> None:
    settings = {"backend": job.backend.name, **job.backend.identity()}
    keys = compute_keys(settings, map(job.backend.content, job.texts))
    with closing(VectorCache(cache_dir)) as cache:
        missing = np.ones(len(keys), bool)
        for i, vector in cache.get(keys):
            if not job.vectors.put(i, vector, len(vector)):
                raise EncodingError(
                    f"{cache.path} has vectors of different lengths for the same model and options; use "
                    "another cache_dir, or change revision."
                )
            missing[i] = False
        _encode_missing(job, np.flatnonzero(missing).tolist(), cache, keys)


def _encode_missing(
    job: _Job, missing: list[int], cache: VectorCache | None = None, keys: list[bytes] | None = None
) -> None:
    """Encode the texts with these indices, batch by batch, and store each batch in the cache."""
    if not missing:
        return  # without loading weights or opening a connection
    texts, backend = job.texts, job.backend
    if backend.sort_by_length:
        # The longest texts come first, so that a batch that does not fit in memory fails at once.
        missing = sorted(missing, key=lambda i: -len(texts[i]))
    bar = tqdm(
        total=len(texts),
        initial=len(texts) - len(missing),
        desc=backend.name,
        unit="text",
        delay=_DELAY,
        disable=not job.verbose,
    )
    with backend.session() as encode_batch, bar:
        for number, start in enumerate(range(0, len(missing), job.batch_size)):
            batch = missing[start : start + job.batch_size]
            first = short_repr(texts[batch[0]], 40)
            description = f"batch {number} of {len(batch)} texts, beginning with {first}"
            output = encode_batch([texts[i] for i in batch])
            vectors = _check_vectors(output, len(batch), backend.name, description)
            if not job.vectors.put(batch, vectors, vectors.shape[1]):
                assert job.vectors.array is not None
                raise EncodingError(
                    f"The {backend.name} backend returned {vectors.shape[1]} dimensions in {description}, "
                    f"and {job.vectors.array.shape[1]} before (or in the cache); {_NOT_STORED}."
                )
            if cache is not None and keys is not None:
                cache.put([keys[i] for i in batch], vectors)
            bar.update(len(batch))


def _check_vectors(vectors: Any, n: int, backend: str, batch: str) -> np.ndarray:
    """Return one finite float32 vector per text; a wrong number of vectors would shift all later rows."""
    vectors = as_numpy(vectors)
    if sp.issparse(vectors):
        raise EncodingError(
            f"The {backend} backend returned a sparse matrix in {batch}; return a dense array (toarray)."
        )
    try:
        array = np.asarray(vectors)
        if array.dtype.kind in "USOMmc":
            raise TypeError(f"dtype {array.dtype}")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise EncodingError(
            f"The {backend} backend must return equally long vectors of numbers, and did not in {batch}: "
            f"{error}; {_NOT_STORED}."
        ) from error
    if array.ndim == 0 or len(array) != n:
        count = 0 if array.ndim == 0 else len(array)
        raise EncodingError(
            f"The {backend} backend returned {count} vectors for {n} texts in {batch}; {_NOT_STORED}."
        )
    if array.ndim != 2 or array.shape[1] == 0:
        raise EncodingError(
            f"The {backend} backend returned an array of shape {array.shape} in {batch}, not ({n}, d); "
            f"{_NOT_STORED}."
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise EncodingError(
            f"The {backend} backend returned NaN, infinity or a number beyond float32 in {len(bad)} of {n} "
            f"vectors (the first is number {bad[0]}) in {batch}; {_NOT_STORED}."
        )
    return array

"""Encode texts or sounds in batches: equal ones once, from the cache if possible; order is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from flip_sklearn.encoders.base import Encode, EncoderBackend, EncodingError
from flip_sklearn.encoders.cache import VectorCache, compute_keys
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import short_repr

_DELAY = 2.0  # seconds before a progress bar is shown


class _Encoding:
    """Distinct items and their vectors, an array (n, d); d is 0 until the first vectors are known."""

    def __init__(
        self, items: list[Any], n_rows: np.ndarray, backend: EncoderBackend, truncate_dim: int | None
    ) -> None:
        self.items = items
        self.n_rows = n_rows  # rows with each item
        self.backend = backend
        self.min_dimensions = truncate_dim or 1
        self.vectors = np.empty((len(items), 0), np.float32)
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
            self.vectors = np.empty((len(self.items), d), np.float32)
        self.vectors[rows] = vectors

    def read(self, cache: VectorCache, keys: list[bytes]) -> list[int]:
        """Read the vectors that are in the cache; return the indices of the other items."""
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

    def compute(self, missing: Sequence[int], batch_size: int, verbose: bool, chunk: str | None) -> None:
        """Encode the items with these indices, batch by batch, and store each batch in the cache."""
        if not missing:
            return  # without loading weights or opening a connection
        items, backend = self.items, self.backend
        is_long = {missing[i] for i in backend.find_long([items[i] for i in missing])}
        if is_long and chunk is None:
            backend.warn_of_long(int(self.n_rows[sorted(is_long)].sum()), int(self.n_rows.sum()))
            if not backend.reads_windows:
                is_long = set()
        long = sorted(is_long)
        missing = [i for i in missing if i not in is_long]
        if backend.sort_by_length:
            # The longest items come first, so that a batch that does not fit in memory fails at once.
            missing = sorted(missing, key=lambda i: -backend.length(items[i]))
        bar = tqdm(
            total=len(items),
            initial=len(items) - len(missing) - len(long),
            desc=backend.name,
            unit=backend.unit,
            delay=_DELAY,
            disable=not verbose,
        )
        with backend.session() as encode_batch, bar:
            for number, start in enumerate(range(0, len(missing), batch_size)):
                batch = missing[start : start + batch_size]
                vectors = self._encode_batch(encode_batch, [items[i] for i in batch], number)
                self._store(batch, vectors)
                bar.update(len(batch))
            for i in long:
                self._store([i], self._encode_windows(encode_batch, items[i], batch_size)[None])
                bar.update(1)

    def _encode_windows(self, encode_batch: Encode, item: Any, batch_size: int) -> np.ndarray:
        """Return the weighted mean of the vectors of an item's windows."""
        windows, weights = self.backend.windows(item)
        starts = range(0, len(windows), batch_size)
        parts = [self._encode_batch(encode_batch, windows[i : i + batch_size], 0) for i in starts]
        mean = np.average(np.concatenate(parts).astype(np.float64), axis=0, weights=weights)
        return np.asarray(mean, dtype=np.float32)

    def _encode_batch(self, encode_batch: Encode, items: list[Any], number: int) -> np.ndarray:
        output = encode_batch(items)
        unit = self.backend.unit
        try:
            return _check_vectors(output, len(items), self.vectors.shape[1], unit)
        except ValueError as error:
            raise EncodingError(
                f"The {self.backend.name} backend {error}, in batch {number} of {len(items)} {unit}s, "
                f"beginning with {short_repr(items[0], 40)}; no vector of this batch is stored."
            ) from error

    def _store(self, indices: list[int], vectors: np.ndarray) -> None:
        self.put(indices, vectors)
        if self.cache is not None:
            self.cache.put([self.keys[i] for i in indices], vectors)


def encode(
    items: list[Any],
    backend: EncoderBackend,
    batch_size: int,
    cache_dir: Path | None,
    truncate_dim: int | None,
    verbose: bool,
    chunk: str | None,
) -> np.ndarray:
    """Return the vectors of items, float32 (n, d), not yet truncated; row i is the vector of item i.

    The first batch raises ValueError if the model has fewer than ``truncate_dim`` dimensions.
    """
    index_of: dict[Any, int] = {}
    index = np.empty(len(items), np.intp)
    for row, item in enumerate(items):
        index[row] = index_of.setdefault(item, len(index_of))
    encoding = _Encoding(list(index_of), np.bincount(index), backend, truncate_dim)
    if cache_dir is None:
        encoding.compute(range(len(index_of)), batch_size, verbose, chunk)
    else:
        settings = {"backend": backend.name, **backend.identity()}
        if chunk is not None:
            settings["chunk"] = chunk
        keys = compute_keys(settings, map(backend.content, encoding.items))
        with closing(VectorCache(cache_dir)) as cache:
            missing = encoding.read(cache, keys)
            if missing and cache.is_read_only:
                raise EncodingError(
                    f"The cache {cache.path} cannot be written, and lacks {len(missing)} of "
                    f"{len(keys)} {backend.unit}s. Set cache_dir to a writable folder, or None."
                )
            encoding.compute(missing, batch_size, verbose, chunk)
    return encoding.vectors if len(index_of) == len(items) else encoding.vectors[index]


def _check_vectors(vectors: Any, n: int, d: int, unit: str) -> np.ndarray:
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
        raise ValueError(f"returned {n_vectors} vectors for {n} {unit}s")
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


def check_texts(X: Any) -> list[str]:
    """Return texts as a list of str; a ValueError names the first row that is not a text."""
    if isinstance(X, (str, bytes, os.PathLike)):
        raise ValueError(f"X is a single {type(X).__name__}; pass a list of texts, such as [text].")
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) != 1:
        raise ValueError(f"X has shape {shape}; pass one column of texts, such as table['text'].")
    if isinstance(X, (dict, set, frozenset)) or not hasattr(X, "__iter__"):
        raise ValueError(f"X is a {type(X).__name__}; pass a list, array or Series of texts.")
    texts = list(X)
    if not texts:
        raise ValueError("X has no texts; at least one is needed for the number of dimensions.")
    for row, text in enumerate(texts):
        if type(text) is not str:
            if isinstance(text, str):
                texts[row] = str(text)  # a NumPy string
            elif isinstance(text, os.PathLike) and isinstance(os.fspath(text), str):
                texts[row] = os.fspath(text)
            else:
                is_missing = str(text) in ("None", "nan", "<NA>", "NaT")
                remedy = "leave such rows out or fill them" if is_missing else "pass str"
                raise ValueError(
                    f"Row {row} is {short_repr(text)} ({type(text).__name__}), not a text; {remedy}."
                )
        try:
            texts[row].encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Row {row} is not valid Unicode ({error.reason}); clean it with "
                "text.encode('utf8', 'replace').decode()."
            ) from None
    return texts

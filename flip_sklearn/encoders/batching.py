"""Texts to vectors: each text once, out of the cache where it is, else in batches; order kept."""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from flip_sklearn.encoders.base import Backend
from flip_sklearn.encoders.cache import VectorCache, keys_of
from flip_sklearn.io import as_numpy

_DELAY = 2.0  # seconds: what is done sooner needs no progress bar


class _Rows:
    """An (n, d) array whose d is known from its first rows on."""

    def __init__(self, n: int, at_least: int | None) -> None:
        self.n = n
        self.at_least = at_least or 1
        self.array: np.ndarray | None = None

    def put(self, places: Any, vectors: np.ndarray, d: int) -> bool:
        """Place vectors of d dims; False, and nothing placed, where the other rows have others."""
        if d < self.at_least:
            raise ValueError(
                f"truncate_dim={self.at_least} is not allowed; the model gives {d} dims, use at most that "
                "or None."
            )
        if self.array is None:
            self.array = np.empty((self.n, d), np.float32)
        if self.array.shape[1] != d:
            return False
        self.array[places] = vectors
        return True


def encode(
    texts: list[str],
    backend: Backend,
    batch_size: int,
    cache_dir: Path | None,
    at_least: int | None,
    verbose: bool,
) -> np.ndarray:
    """Vectors of texts, float32 (n, d), row i that of text i; fewer dims than wanted end it at once."""
    places: dict[str, int] = {}
    order = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.intp)
    unique = list(places)
    rows = _Rows(len(unique), at_least)
    if cache_dir is None:
        _encode_missing(unique, list(range(len(unique))), backend, batch_size, rows, None, verbose)
    else:
        keys = keys_of(
            {"backend": backend.name, **backend.identity()}, map(backend.content, unique)
        )
        with closing(VectorCache(cache_dir)) as cache:
            missing = np.ones(len(unique), bool)
            for place, vector in cache.get(keys):
                if not rows.put(place, vector, len(vector)):
                    raise RuntimeError(
                        f"{cache.path} holds vectors of several sizes for one model with the same options; "
                        "use another cache_dir, or change revision."
                    )
                missing[place] = False
            todo = np.flatnonzero(missing).tolist()
            _encode_missing(unique, todo, backend, batch_size, rows, (cache, keys), verbose)
    assert rows.array is not None  # there is at least one text
    return rows.array if len(unique) == len(texts) else rows.array[order]


def _encode_missing(
    unique: list[str],
    todo: list[int],
    backend: Backend,
    batch_size: int,
    rows: _Rows,
    cached: tuple[VectorCache, list[bytes]] | None,
    verbose: bool,
) -> None:
    if not todo:
        return  # and no weights are loaded, no connection is made
    if backend.by_length:
        # The longest first: what does not fit in memory fails at once.
        todo = sorted(todo, key=lambda i: -len(unique[i]))
    done = len(unique) - len(todo)
    with (
        backend.session() as encode_batch,
        _bar(backend.name, len(unique), done) if verbose else nullcontext() as bar,
    ):
        for number, start in enumerate(range(0, len(todo), batch_size)):
            batch = todo[start : start + batch_size]
            where = (
                f"batch {number} of {len(batch)} texts, beginning with {_short(unique[batch[0]])}"
            )
            vectors = _checked(
                encode_batch([unique[i] for i in batch]), len(batch), backend.name, where
            )
            if not rows.put(batch, vectors, vectors.shape[1]):
                assert rows.array is not None
                raise RuntimeError(
                    f"The {backend.name} backend gave {vectors.shape[1]} dims in {where}, and "
                    f"{rows.array.shape[1]} before (or in the cache); nothing of this batch is kept."
                )
            if cached is not None:
                cache, keys = cached
                cache.put([keys[i] for i in batch], vectors)
            if bar is not None:
                bar.update(len(batch))


def _bar(name: str, total: int, done: int) -> Any:
    return tqdm(total=total, initial=done, desc=name, unit="text", delay=_DELAY)


def _checked(vectors: Any, n: int, name: str, where: str) -> np.ndarray:
    """One finite vector a text as float32, or an error: a count that is off would shift all rows after it."""
    kept = "nothing of this batch is kept"
    vectors = as_numpy(vectors)
    if sp.issparse(vectors):
        raise RuntimeError(
            f"The {name} backend gave a sparse matrix in {where}; give a dense array (toarray)."
        )
    try:
        array = np.asarray(vectors)
        if array.dtype.kind in "USOMmc":
            raise TypeError(f"dtype {array.dtype}")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise RuntimeError(
            f"The {name} backend gave something else than equally long vectors of numbers in {where}: "
            f"{error}; {kept}."
        ) from error
    if array.ndim == 0 or len(array) != n:
        count = 0 if array.ndim == 0 else len(array)
        raise RuntimeError(
            f"The {name} backend gave {count} vectors for {n} texts in {where}; {kept}."
        )
    if array.ndim != 2 or array.shape[1] == 0:
        raise RuntimeError(
            f"The {name} backend gave an array of shape {array.shape} in {where}, not ({n}, d); {kept}."
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise RuntimeError(
            f"The {name} backend gave NaN, infinity or a number beyond float32 in {len(bad)} of {n} vectors "
            f"(the first is number {bad[0]}) in {where}; {kept}."
        )
    return array


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

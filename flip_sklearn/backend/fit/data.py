"""The data of one fit as the solver reads it: embeddings, sparse counts, weights, in row batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, as_shared_tensor, fits_on_device
from flip_sklearn.backend.distributed import ProcessGroup

UPLOAD_ROWS = 65_536
ENTRIES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Targets:
    """Weighted counts of the words of a batch as coordinates: entry i says word ``col`` in row ``row``.

    ``count`` holds w_n Y_nj and ``total`` holds w_n T_n, so every loss below is a plain sum over them.
    Coordinates are unique, so scattering into them needs no atomic additions.
    """

    row: torch.Tensor  # (nnz,) int64, position in the batch, ascending
    col: torch.Tensor  # (nnz,) int64
    count: torch.Tensor  # (nnz,)
    total: torch.Tensor  # (m,)
    start: np.ndarray  # (m + 1,) int64, entries of row i are start[i]:start[i+1]

    def block(self, first: int, last: int) -> Targets:
        """Rows first..last-1 as their own targets."""
        a, b = int(self.start[first]), int(self.start[last])
        return Targets(
            self.row[a:b] - first,
            self.col[a:b],
            self.count[a:b],
            self.total[first:last],
            self.start[first : last + 1] - a,
        )


class CountDataset:
    """n rows of (x, counts, weight), served in batches on a device.

    X keeps its own float format and place (a float16 memmap stays one); only the rows of a batch are
    converted. On an accelerator the rows that this process computes are moved there once if they
    fit, else batch by batch.
    """

    def __init__(
        self,
        X: np.ndarray,
        indptr: np.ndarray,
        indices: np.ndarray,
        counts: np.ndarray,
        weights: np.ndarray,
        n_words: int,
        *,
        take: np.ndarray | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        self.X = X
        self.take = take  # rows of X that are ours, all when None: X itself is never copied
        self.group = ProcessGroup() if group is None else group
        self.indptr = np.asarray(indptr, dtype=np.int64)
        self.indices = indices
        self.counts = counts
        self.n_words = n_words
        totals = np.zeros(len(self.indptr) - 1)
        for rows in _parts(self.indptr):
            start = self.indptr[rows.start : rows.stop + 1]
            some = np.flatnonzero(np.diff(start))
            part = counts[start[0] : start[-1]].astype(np.float64)
            if len(some):
                totals[rows.start + some] = np.add.reduceat(part, start[some] - start[0])
        # A row without words carries no information about A, B, b: it weighs nothing anywhere.
        self.weights = np.where(totals > 0, weights, 0.0)
        self.row_weight = self.weights * totals  # w_n T_n
        self._tensors: tuple[torch.Tensor, ...] | None = None
        self._resident_x = False  # x holds this process's rows only, by their own numbers
        self._where: torch.device | None = None

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def d(self) -> int:
        """Embedding dimensions."""
        return int(self.X.shape[1])

    def word_counts(self) -> np.ndarray:
        """Weighted count of every word, float64 (V,)."""
        return count_words(self.indptr, self.indices, self.counts, self.weights, self.n_words)

    def document_frequency(self) -> np.ndarray:
        """Number of rows that have each word, (V,)."""
        document_frequency = np.zeros(self.n_words, dtype=np.int64)
        for first in range(0, len(self.indices), ENTRIES_AT_ONCE):
            part = self.indices[first : first + ENTRIES_AT_ONCE]
            document_frequency += np.bincount(part, minlength=self.n_words)
        return document_frequency

    def _in_X(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.take is None else self.take[rows]

    def _on(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """x, indices, counts, weights: resident on the device when they fit, else on the host."""
        if self._tensors is None or self._where != device:
            x = as_shared_tensor(self.X)
            rest = tuple(as_shared_tensor(a) for a in (self.indices, self.counts, self.weights))
            if device.type != "cpu":
                own = self.group.local_rows(np.arange(len(self)))
                n_bytes = len(own) * self.d * x.element_size()
                n_bytes += sum(t.numel() * t.element_size() for t in rest)
                if fits_on_device(n_bytes, device):
                    rest = tuple(t.to(device) for t in rest)
                    x = self._upload(own, x.dtype, device)
                    self._resident_x = True
            self._tensors, self._where = (x, *rest), device
        return self._tensors

    def _upload(self, own: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Rows of X on the device, moved in parts: the host never holds a second copy."""
        x = torch.empty(len(own), self.d, dtype=dtype, device=device)
        for first in range(0, len(own), UPLOAD_ROWS):
            part = own[first : first + UPLOAD_ROWS]
            x[first : first + len(part)] = as_shared_tensor(self.X[self._in_X(part)]).to(device)
        return x

    def _embeddings(self, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        """Embeddings of rows in X's own format, on the device."""
        x_all = self._on(device)[0]
        if self._resident_x and not (rows % self.group.size == self.group.rank).all():
            x_all, index = as_shared_tensor(self.X), self._in_X(rows)  # another process's rows
        else:
            index = rows // self.group.size if self._resident_x else self._in_X(rows)
        return _pick(x_all, index, device)

    def _entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(start of each row among the entries, row of each entry, its place in ``indices``)."""
        start = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(self.indptr[rows + 1] - self.indptr[rows], out=start[1:])
        row = np.repeat(np.arange(len(rows)), np.diff(start))
        return start, row, np.arange(start[-1]) + (self.indptr[rows] - start[:-1])[row]

    def words(self, rows: np.ndarray) -> torch.Tensor:
        """The words of some rows, on the host, as often as they occur there."""
        return torch.from_numpy(self.indices[self._entries(rows)[2]]).to(torch.int64)

    def batch(self, rows: np.ndarray, compute: Compute) -> tuple[torch.Tensor, Targets]:
        """Embeddings (m, d) and targets of the given rows."""
        _, indices, counts, weights = self._on(compute.device)
        start, row, entry = self._entries(rows)
        row_device = torch.from_numpy(row).to(compute.device)
        w = _pick(weights, rows, compute.device)
        count = _pick(counts, entry, compute.device).to(w.dtype) * w.index_select(0, row_device)
        total = torch.from_numpy(self.row_weight[rows]).to(compute.device, compute.dtype)
        col = _pick(indices, entry, compute.device).to(torch.int64)
        x = self._embeddings(rows, compute.device).to(compute.dtype)
        return x, Targets(row_device, col, count.to(compute.dtype), total, start)

    def chunks(self, size: int, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(x, weights) of this process's rows in order: what the streaming moments read."""
        weights = self._on(compute.device)[3]
        for first in range(0, len(self), size):
            rows = self.group.local_rows(np.arange(first, min(first + size, len(self))))
            x = self._embeddings(rows, compute.device)
            yield x, _pick(weights, rows, compute.device)


def count_words(
    indptr: np.ndarray, indices: np.ndarray, counts: np.ndarray, weights: np.ndarray, n_words: int
) -> np.ndarray:
    """Weighted count of every word, float64 (V,)."""
    total = np.zeros(n_words)
    for rows in _parts(indptr):
        start = indptr[rows.start : rows.stop + 1]
        entries = slice(int(start[0]), int(start[-1]))
        mass = np.repeat(weights[rows], np.diff(start)) * counts[entries]
        total += np.bincount(indices[entries], weights=mass, minlength=n_words)
    return total


def _parts(indptr: np.ndarray) -> Iterator[slice]:
    """All rows in order, in parts of about as many entries: float64 copies of all would outweigh Y."""
    n = len(indptr) - 1
    cuts = np.searchsorted(indptr, np.arange(ENTRIES_AT_ONCE, int(indptr[-1]), ENTRIES_AT_ONCE))
    edges = np.unique(np.concatenate([[0], cuts.clip(max=n), [n]])).tolist()
    return (slice(first, last) for first, last in pairwise(edges))


def _pick(source: torch.Tensor, index: np.ndarray, device: torch.device) -> torch.Tensor:
    picked = source.index_select(0, torch.from_numpy(index).to(source.device))
    return picked.to(device, non_blocking=True)


@dataclass(frozen=True)
class WhitenedRows:
    """Batches of rows in whitened coordinates: x~ = (x - mu) Q."""

    rows: CountDataset
    mean: torch.Tensor
    Q: torch.Tensor
    compute: Compute

    @property
    def group(self) -> ProcessGroup:
        """The processes that share these rows."""
        return self.rows.group

    def batch(self, picked: np.ndarray) -> tuple[torch.Tensor, Targets]:
        """Whitened embeddings (m, d) and targets."""
        x, targets = self.rows.batch(picked, self.compute)
        return (x - self.mean) @ self.Q, targets

    def centred_blocks(self, size: int) -> Iterator[tuple[torch.Tensor, Targets]]:
        """This process's rows in order, not yet whitened: (x - mu, targets)."""
        for first in range(0, len(self.rows), size):
            picked = self.group.local_rows(np.arange(first, min(first + size, len(self.rows))))
            if len(picked):
                x, targets = self.rows.batch(picked, self.compute)
                yield x.sub_(self.mean), targets

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor, Targets]]:
        """This process's rows in order: (row numbers, x~, targets)."""
        for first in range(0, len(self.rows), size):
            picked = self.group.local_rows(np.arange(first, min(first + size, len(self.rows))))
            if len(picked):
                yield picked, *self.batch(picked)

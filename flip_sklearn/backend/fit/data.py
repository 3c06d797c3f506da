"""The data of a fit: embeddings, sparse counts, weights, in row batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch

from flip_sklearn.backend.device import Compute, as_shared_tensor, fits_on_device, slices
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

    X keeps its own number format and memory (a float16 memmap stays one); only the rows of a batch are
    converted. On an accelerator the rows that this process computes are moved there once if they fit, and
    batch by batch otherwise. A tensor X on an accelerator stays there, without a copy.

    Row i of the dataset is ``counts[i]`` (V,), ``weights[i]`` and the embedding ``X[rows[i]]`` (d,), or
    ``X[i]`` without ``rows``. The processes of ``group`` share the rows.
    """

    def __init__(
        self,
        X: np.ndarray | torch.Tensor,
        counts: sp.csr_array,
        weights: np.ndarray,
        *,
        rows: np.ndarray | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        self.X = X
        self.rows = rows
        self.group = ProcessGroup() if group is None else group
        self.indptr = np.asarray(counts.indptr, dtype=np.int64)
        self.counts, self.indices, self.values = counts, counts.indices, counts.data
        self.n_words = counts.shape[1]
        n_tokens = self._tokens_per_row()
        # Rows without words carry no information about A, B and b.
        self.weights = np.where(n_tokens > 0, weights, 0.0)
        self.row_weight = self.weights * n_tokens  # w_n T_n
        self._tensors: tuple[torch.Tensor, ...] | None = None
        self._tensors_device: torch.device | None = None
        self._x_is_local = False  # x holds the rows of this process only

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def d(self) -> int:
        """Embedding dimensions."""
        return int(self.X.shape[1])

    def _tokens_per_row(self) -> np.ndarray:
        """T_n, float64 (n,)."""
        n_tokens = np.zeros(len(self.indptr) - 1)
        for rows in _row_slices(self.indptr):
            start = self.indptr[rows.start : rows.stop + 1]
            filled = np.flatnonzero(np.diff(start))
            values = self.values[start[0] : start[-1]].astype(np.float64)
            if len(filled):
                n_tokens[rows.start + filled] = np.add.reduceat(values, start[filled] - start[0])
        return n_tokens

    def word_counts(self) -> np.ndarray:
        """Weighted count of every word, float64 (V,)."""
        return count_words(self.counts, self.weights)

    def document_frequency(self) -> np.ndarray:
        """Number of rows that have each word, (V,)."""
        frequency = np.zeros(self.n_words, dtype=np.int64)
        for entries in slices(len(self.indices), ENTRIES_AT_ONCE):
            frequency += np.bincount(self.indices[entries], minlength=self.n_words)
        return frequency

    def _rows_of_X(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.rows is None else self.rows[rows]

    def _on(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """x, indices, values, weights: on the device if they fit there, otherwise on the host."""
        if self._tensors is None or self._tensors_device != device:
            x = as_shared_tensor(self.X)
            arrays = (self.indices, self.values, self.weights)
            sparse = tuple(as_shared_tensor(array) for array in arrays)
            if device.type != "cpu":
                local = self.group.local_rows(np.arange(len(self)))
                on_host = x.device.type == "cpu"
                n_bytes = len(local) * self.d * x.element_size() if on_host else 0
                n_bytes += sum(t.numel() * t.element_size() for t in sparse)
                if fits_on_device(n_bytes, device):
                    sparse = tuple(t.to(device) for t in sparse)
                    if on_host:
                        x = self._upload(local, x.dtype, device)
                        self._x_is_local = True
            self._tensors, self._tensors_device = (x, *sparse), device
        return self._tensors

    def _upload(self, rows: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Rows of X on the device, moved in chunks, so that the host needs no second copy."""
        x = torch.empty(len(rows), self.d, dtype=dtype, device=device)
        for chunk in slices(len(rows), UPLOAD_ROWS):
            x[chunk] = as_shared_tensor(self.X[self._rows_of_X(rows[chunk])]).to(device)
        return x

    def _embeddings(self, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        """Embeddings of rows in X's own format, on the device."""
        x = self._on(device)[0]
        if not self._x_is_local:
            index = self._rows_of_X(rows)
        elif (rows % self.group.size == self.group.rank).all():
            index = rows // self.group.size
        else:  # rows of another process
            x, index = as_shared_tensor(self.X), self._rows_of_X(rows)
        return _select(x, index, device)

    def _entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each row starts among the entries, the row of each entry, its place in ``indices``."""
        start = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(self.indptr[rows + 1] - self.indptr[rows], out=start[1:])
        row = np.repeat(np.arange(len(rows)), np.diff(start))
        return start, row, np.arange(start[-1]) + (self.indptr[rows] - start[:-1])[row]

    def words(self, rows: np.ndarray) -> torch.Tensor:
        """The words of some rows, on the host; a word of several rows is repeated."""
        return torch.from_numpy(self.indices[self._entries(rows)[2]]).to(torch.int64)

    def batch(self, rows: np.ndarray, compute: Compute) -> tuple[torch.Tensor, Targets]:
        """Embeddings (m, d) and targets of the given rows."""
        _, indices, values, weights = self._on(compute.device)
        start, row, entry = self._entries(rows)
        row_on_device = torch.from_numpy(row).to(compute.device)
        w = _select(weights, rows, compute.device)
        count = _select(values, entry, compute.device).to(w.dtype)
        count = count * w.index_select(0, row_on_device)
        total = torch.from_numpy(self.row_weight[rows]).to(compute.device, compute.dtype)
        col = _select(indices, entry, compute.device).to(torch.int64)
        x = self._embeddings(rows, compute.device).to(compute.dtype)
        return x, Targets(row_on_device, col, count.to(compute.dtype), total, start)

    def chunks(self, size: int, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(x, weights) of this process's rows in order, for the streaming moments."""
        weights = self._on(compute.device)[3]
        for rows in self.local_blocks(size):
            x = self._embeddings(rows, compute.device)
            yield x, _select(weights, rows, compute.device)

    def local_blocks(self, size: int) -> Iterator[np.ndarray]:
        """This process's rows, from blocks of ``size`` rows of all processes."""
        for block in slices(len(self), size):
            rows = self.group.local_rows(np.arange(block.start, block.stop))
            if len(rows):
                yield rows


def count_words(counts: sp.csr_array, weights: np.ndarray) -> np.ndarray:
    """Weighted count of every word, float64 (V,)."""
    total = np.zeros(counts.shape[1])
    for rows in _row_slices(counts.indptr):
        start = counts.indptr[rows.start : rows.stop + 1]
        entries = slice(int(start[0]), int(start[-1]))
        weighted = np.repeat(weights[rows], np.diff(start)) * counts.data[entries]
        total += np.bincount(counts.indices[entries], weights=weighted, minlength=len(total))
    return total


def _row_slices(indptr: np.ndarray) -> Iterator[slice]:
    """Slices of about as many entries that cover all rows: float64 copies of all would outweigh Y."""
    n = len(indptr) - 1
    cuts = np.searchsorted(indptr, np.arange(ENTRIES_AT_ONCE, int(indptr[-1]), ENTRIES_AT_ONCE))
    edges = np.unique(np.concatenate([[0], cuts.clip(max=n), [n]])).tolist()
    for first, last in pairwise(edges):
        yield slice(first, last)


def _select(source: torch.Tensor, index: np.ndarray, device: torch.device) -> torch.Tensor:
    selected = source.index_select(0, torch.from_numpy(index).to(source.device))
    return selected.to(device, non_blocking=device.type != "cpu")  # the host would not wait for its copy


@dataclass(frozen=True)
class WhitenedDataset:
    """Batches of a dataset in whitened coordinates: x~ = (x - mu) Q."""

    dataset: CountDataset
    mean: torch.Tensor
    Q: torch.Tensor
    compute: Compute

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def group(self) -> ProcessGroup:
        """The processes that share the rows."""
        return self.dataset.group

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, Targets]:
        """Whitened embeddings (m, d) and targets."""
        x, targets = self.dataset.batch(rows, self.compute)
        return (x - self.mean) @ self.Q, targets

    def centred_blocks(self, size: int) -> Iterator[tuple[torch.Tensor, Targets]]:
        """This process's rows in order, not yet whitened: (x - mu, targets)."""
        for rows in self.dataset.local_blocks(size):
            x, targets = self.dataset.batch(rows, self.compute)
            yield x.sub_(self.mean), targets

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor, Targets]]:
        """This process's rows in order: (row numbers, x~, targets)."""
        for rows in self.dataset.local_blocks(size):
            yield rows, *self.batch(rows)

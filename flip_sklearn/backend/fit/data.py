"""The data of a fit: embeddings, sparse counts, weights, in row batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch

from flip_sklearn.backend.device import Compute, Embeddings, as_shared_tensor, fits_on_device, slices, upload
from flip_sklearn.backend.distributed import ProcessGroup

UPLOAD_ROWS = 65_536
ENTRIES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Targets:
    """Weighted counts of the words of a batch as coordinates: entry i says word ``col`` in row ``row``.

    ``count`` holds w_n Y_nj and ``total`` holds w_n T_n, so every loss below is a plain sum over them. They
    are made on the host, where the counts are; coordinates are unique.
    """

    row: torch.Tensor  # (nnz,) int64, position in the batch, ascending
    col: torch.Tensor  # (nnz,) int64
    count: torch.Tensor  # (nnz,)
    total: torch.Tensor  # (m,)
    start: np.ndarray  # (m + 1,) int64, entries of row i are start[i]:start[i+1]

    def to(self, device: torch.device) -> Targets:
        """Return the targets on the device."""
        row, col, count, total = (upload(t, device) for t in (self.row, self.col, self.count, self.total))
        return Targets(row, col, count, total, self.start)

    def flat(self, n_classes: int) -> FlatTargets:
        """Return the targets as positions in the flattened (m, n_classes) scores of the batch."""
        row, count, total = self.row.numpy(), self.count.numpy(), self.total.numpy()
        share = count / np.maximum(total, np.finfo(total.dtype).tiny)[row]
        position = row * n_classes + self.col.numpy()
        return FlatTargets(
            torch.from_numpy(position), self.count, torch.from_numpy(share), self.total, self.start
        )


@dataclass(frozen=True)
class FlatTargets:
    """Targets as the likelihood reads them, on the device of the scores.

    Positions are unique, so scattering into them needs no atomic additions.
    """

    position: torch.Tensor  # (nnz,) int64, row * n_classes + column, ascending
    count: torch.Tensor  # (nnz,), w_n Y_nj
    share: torch.Tensor  # (nnz,), Y_nj / T_n
    total: torch.Tensor  # (m,), w_n T_n
    start: np.ndarray  # (m + 1,) int64

    def block(self, rows: slice, n_classes: int) -> FlatTargets:
        """Return the targets of some rows, with positions in the scores of these rows."""
        if rows == slice(0, len(self.total)):
            return self
        first, last = int(self.start[rows.start]), int(self.start[rows.stop])
        return FlatTargets(
            self.position[first:last] - rows.start * n_classes,
            self.count[first:last],
            self.share[first:last],
            self.total[rows],
            self.start[rows.start : rows.stop + 1] - first,
        )

    def to(self, device: torch.device) -> FlatTargets:
        """Return the targets on the device."""
        tensors = self.position, self.count, self.share, self.total
        position, count, share, total = (upload(tensor, device) for tensor in tensors)
        return FlatTargets(position, count, share, total, self.start)


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
        X: Embeddings,
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
        self._x: torch.Tensor | None = None
        self._x_device: torch.device | None = None
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

    def _source(self, device: torch.device) -> torch.Tensor:
        """X as a tensor: on the device if it lies or fits there, otherwise on the host."""
        if self._x is None or self._x_device != device:
            x = as_shared_tensor(self.X)
            if x.device.type != "cpu":
                x = x.to(device)  # copies nothing if it lies there
            elif device.type != "cpu":
                local = self.group.local_rows(np.arange(len(self)))
                if fits_on_device(len(local) * self.d * x.element_size(), device):
                    x = self._upload(local, x.dtype, device)
                    self._x_is_local = True
            self._x, self._x_device = x, device
        return self._x

    def _upload(self, rows: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Rows of X on the device, moved in chunks, so that the host needs no second copy."""
        x = torch.empty(len(rows), self.d, dtype=dtype, device=device)
        for chunk in slices(len(rows), UPLOAD_ROWS):
            x[chunk] = as_shared_tensor(self.X[self._rows_of_X(rows[chunk])]).to(device)
        return x

    def stored(self, rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tensor with embeddings, and where in it those of ``rows`` are (on the host)."""
        x = self._source(device)
        if not self._x_is_local:
            index = self._rows_of_X(rows)
        elif (rows % self.group.size == self.group.rank).all():
            index = rows // self.group.size
        else:  # rows of another process
            x, index = as_shared_tensor(self.X), self._rows_of_X(rows)
        return x, torch.from_numpy(index)

    def embeddings(self, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        """Embeddings (m, d) of rows in X's own format, on the device."""
        x, index = self.stored(rows, device)
        return upload(x.index_select(0, upload(index, x.device)), device)

    def _entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each row starts among the entries, the row of each entry, its place in ``indices``."""
        start = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(self.indptr[rows + 1] - self.indptr[rows], out=start[1:])
        row = np.repeat(np.arange(len(rows)), np.diff(start))
        return start, row, np.arange(start[-1]) + (self.indptr[rows] - start[:-1])[row]

    def entry_numbers(self, rows: np.ndarray) -> np.ndarray:
        """Where the counts of some rows are stored, in the order of ``targets``."""
        return self._entries(rows)[2]

    def words(self, rows: np.ndarray) -> torch.Tensor:
        """The words of some rows, on the host; a word of several rows is repeated."""
        return torch.from_numpy(self.indices[self._entries(rows)[2]]).to(torch.int64)

    def targets(self, rows: np.ndarray, dtype: torch.dtype) -> Targets:
        """Targets of the given rows.

        NumPy gathers the few thousand entries, because torch would wake its threads for them.
        """
        start, row, entry = self._entries(rows)
        count = self.values[entry].astype(np.float64) * self.weights[rows][row]
        numpy_dtype = np.float64 if dtype == torch.float64 else np.float32
        return Targets(
            torch.from_numpy(row),
            torch.from_numpy(self.indices[entry].astype(np.int64)),
            torch.from_numpy(count.astype(numpy_dtype)),
            torch.from_numpy(self.row_weight[rows].astype(numpy_dtype)),
            start,
        )

    def batch(self, rows: np.ndarray, compute: Compute) -> tuple[torch.Tensor, Targets]:
        """Embeddings (m, d) on the device and targets of the given rows."""
        return self.embeddings(rows, compute.device).to(compute.dtype), self.targets(rows, compute.dtype)

    def chunks(self, size: int, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(x, weights) of this process's rows in order, for the streaming moments."""
        for rows in self.local_blocks(size):
            yield (
                self.embeddings(rows, compute.device),
                upload(torch.from_numpy(self.weights[rows]), compute.device),
            )

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
        return self.whitened(x), targets

    def whitened(self, x: torch.Tensor) -> torch.Tensor:
        """Whiten embeddings on the device."""
        return (x.to(self.compute.dtype) - self.mean) @ self.Q

    def centred_blocks(self, size: int) -> Iterator[tuple[torch.Tensor, Targets]]:
        """This process's rows in order, not yet whitened: (x - mu, targets)."""
        for rows in self.dataset.local_blocks(size):
            x, targets = self.dataset.batch(rows, self.compute)
            yield x.sub_(self.mean), targets

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor, Targets]]:
        """This process's rows in order: (row numbers, x~, targets)."""
        for rows in self.dataset.local_blocks(size):
            yield rows, *self.batch(rows)

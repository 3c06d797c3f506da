"""The data of one fit as the solver reads it: embeddings, sparse counts, weights, in row batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, as_shared_tensor, fits_on_device


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


class Rows:
    """n rows of (x, counts, weight), served in batches on a device.

    X keeps its own float format and place (a float16 memmap stays one); only the rows of a batch are
    converted. On an accelerator everything is moved there once if it fits, else batch by batch.
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
    ) -> None:
        self.X = X
        self.take = take  # rows of X that are ours, all when None: X itself is never copied
        self.indptr = np.asarray(indptr, dtype=np.int64)
        self.indices = indices
        self.counts = counts
        self.n_words = n_words
        totals = np.add.reduceat(
            np.append(counts, 0.0).astype(np.float64), self.indptr[:-1].clip(max=len(counts))
        )
        totals[np.diff(self.indptr) == 0] = 0.0
        # A row without words carries no information about A, B, b: it weighs nothing anywhere.
        self.weights = np.where(totals > 0, weights, 0.0)
        self.word_mass = self.weights * totals  # w_n T_n
        self._tensors: tuple[torch.Tensor, ...] | None = None
        self._where: torch.device | None = None

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def d(self) -> int:
        """Embedding dimensions."""
        return int(self.X.shape[1])

    def word_counts(self) -> np.ndarray:
        """Weighted count of every word, float64 (V,)."""
        mass = np.repeat(self.weights, np.diff(self.indptr)) * self.counts
        return np.bincount(self.indices, weights=mass, minlength=self.n_words)

    def _on(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """x, indices, counts, weights: resident on the device when they fit, else on the host."""
        if self._tensors is None or self._where != device:
            tensors = tuple(
                as_shared_tensor(a) for a in (self.X, self.indices, self.counts, self.weights)
            )
            n_bytes = sum(t.numel() * t.element_size() for t in tensors)
            if fits_on_device(n_bytes, device):
                tensors = tuple(t.to(device) for t in tensors)
            self._tensors, self._where = tensors, device
        return self._tensors

    def batch(self, rows: np.ndarray, compute: Compute) -> tuple[torch.Tensor, Targets]:
        """Embeddings (m, d) and targets of the given rows."""
        x_all, indices, counts, weights = self._on(compute.device)
        start = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(self.indptr[rows + 1] - self.indptr[rows], out=start[1:])
        row = np.repeat(np.arange(len(rows)), np.diff(start))
        entry = np.arange(start[-1]) + (self.indptr[rows] - start[:-1])[row]

        def pick(source: torch.Tensor, index: np.ndarray) -> torch.Tensor:
            picked = source.index_select(0, torch.from_numpy(index).to(source.device))
            return picked.to(compute.device, non_blocking=True)

        x = pick(x_all, rows if self.take is None else self.take[rows]).to(compute.dtype)
        row_device = torch.from_numpy(row).to(compute.device)
        w = pick(weights, rows)
        count = pick(counts, entry).to(w.dtype) * w.index_select(0, row_device)
        total = torch.from_numpy(self.word_mass[rows]).to(compute.device, compute.dtype)
        col = pick(indices, entry).to(torch.int64)
        return x, Targets(row_device, col, count.to(compute.dtype), total, start)

    def chunks(self, size: int, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(x, weights) in row order: what the streaming moments read."""
        x_all, _, _, weights = self._on(compute.device)
        for first in range(0, len(self), size):
            last = min(first + size, len(self))
            if self.take is None:
                x = x_all[first:last]
            else:
                index = torch.from_numpy(self.take[first:last]).to(x_all.device)
                x = x_all.index_select(0, index)
            yield x.to(compute.device), weights[first:last].to(compute.device)

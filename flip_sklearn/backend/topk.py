"""Scoring and top-k, fused block by block: no (n, V) array exists at any time.

Scores z = offset + A B (x - mean), where the offset is b with bias and 0 without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, as_shared_tensor, rows_per_block
from flip_sklearn.backend.problem import Targets


@dataclass(frozen=True)
class Scorer:
    """Factors on a device, ready to score raw embeddings."""

    A: torch.Tensor  # (V, r)
    B: torch.Tensor  # (r, d)
    offset: torch.Tensor  # (V,)
    mean: torch.Tensor  # (d,)
    compute: Compute
    unseen: torch.Tensor | None = None  # columns that must stay below all others

    @classmethod
    def from_arrays(
        cls,
        A: np.ndarray,
        B: np.ndarray,
        offset: np.ndarray,
        mean: np.ndarray,
        compute: Compute,
        unseen: np.ndarray | None = None,
    ) -> Scorer:
        """NumPy factors -> device (shared memory on a CPU)."""

        def place(array: np.ndarray) -> torch.Tensor:
            return as_shared_tensor(array).to(compute.device, compute.dtype)

        columns = (
            None
            if unseen is None or not len(unseen)
            else torch.from_numpy(unseen).to(compute.device)
        )
        return cls(place(A), place(B), place(offset), place(mean), compute, columns)

    def blocks(self, X: np.ndarray) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, scores (m, V)) for consecutive blocks; the scores' memory is reused."""
        n, n_words = X.shape[0], self.A.shape[0]
        step = rows_per_block(n_words, n, self.compute.device)
        buffer = torch.empty(step, n_words, dtype=self.compute.dtype, device=self.compute.device)
        with torch.inference_mode():
            for first in range(0, n, step):
                x = as_shared_tensor(X[first : first + step])
                x = x.to(self.compute.device, self.compute.dtype)
                scores = buffer[: len(x)]
                torch.mm((x - self.mean) @ self.B.T, self.A.T, out=scores)
                scores += self.offset
                if self.unseen is not None:
                    # Far from the data seen words fall below any fixed score: stay under them.
                    lowest = scores.amin(dim=1, keepdim=True)
                    under = torch.where(
                        lowest < self.offset.min(), 1.01 * lowest, self.offset.min()
                    )
                    scores[:, self.unseen] = under
                yield first, scores

    def top(
        self,
        X: np.ndarray,
        k: int,
        *,
        probabilities: bool = False,
        after_block: Callable[[int], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best words per row, best first: indices (n, k) and their scores, or theta."""
        indices = np.empty((X.shape[0], k), dtype=np.int64)
        values = np.empty((X.shape[0], k), dtype=np.float64 if self._double else np.float32)
        for first, scores in self.blocks(X):
            best = scores.topk(k, dim=1)
            chosen = best.values
            if probabilities:
                chosen = (chosen - scores.logsumexp(dim=1, keepdim=True)).exp()
            last = first + len(scores)
            indices[first:last] = best.indices.cpu().numpy()
            values[first:last] = chosen.cpu().numpy()
            if after_block is not None:
                after_block(len(scores))
        return indices, values

    def dense(self, X: np.ndarray, transform: str) -> np.ndarray:
        """All scores (n, V), or their "softmax" or "log_softmax". The caller has checked the size."""
        out = np.empty(
            (X.shape[0], self.A.shape[0]), dtype=np.float64 if self._double else np.float32
        )
        for first, scores in self.blocks(X):
            if transform == "softmax":
                scores = torch.softmax(scores, dim=1)
            elif transform == "log_softmax":
                scores = torch.log_softmax(scores, dim=1)
            out[first : first + len(scores)] = scores.cpu().numpy()
        return out

    @property
    def _double(self) -> bool:
        return self.compute.dtype == torch.float64


def hits_at_k(scores: torch.Tensor, targets: Targets) -> np.ndarray:
    """Per row: share of its k best-scored words that are in the row, k = its number of words.

    Rows without words give 0 (their weight is zero).
    """
    k = np.diff(targets.start)
    widest = int(k.max(initial=0))
    if widest == 0:
        return np.zeros(len(k))
    n_words = scores.shape[1]
    best = scores.topk(widest, dim=1).indices
    offset = torch.arange(len(k), device=scores.device)[:, None] * n_words
    present = torch.isin(best + offset, targets.row * n_words + targets.col)
    k_device = torch.from_numpy(k).to(scores.device)
    counted = torch.arange(widest, device=scores.device) < k_device[:, None]
    hits = (present & counted).sum(dim=1).cpu().numpy()
    return hits / np.maximum(k, 1)

"""Sums of the probabilities that words occur, over rows and over groups of rows, without an (n, V) array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import Embeddings, slices, upload
from flip_sklearn.backend.scoring.presence import PresenceParameters, log_odds_blocks
from flip_sklearn.backend.scoring.scorer import Scorer

# Rows that are gathered at a time where groups are not contiguous.
_GATHERED_ROWS = 2**13


@dataclass(frozen=True)
class GroupSums:
    """Sums over the rows, and over groups with the sums R_g of their K_g rows, float64 (V,).

    Without groups every row is one, R is the value of the row, and K = 1.
    """

    total: np.ndarray  # sum of the rows
    squares: np.ndarray  # sum of the squares of the rows
    cubes: np.ndarray  # sum of the cubes of the rows
    group_squares: np.ndarray  # sum_g R_g^2
    group_products: np.ndarray  # sum_g K_g R_g


class _Accumulator:
    """Sums of blocks of rows (m, V), the groups of which are consecutive integers in ascending order."""

    def __init__(self, n_words: int, groups: np.ndarray | None, device: torch.device) -> None:
        self._sums = torch.zeros(5, n_words, dtype=torch.float64, device=device)
        self._groups = groups
        if groups is not None:
            self._sizes = np.bincount(groups)
            # The last group of the rows so far, which may have more rows.
            self._open_group = 0
            self._open_sum = torch.zeros(n_words, dtype=torch.float64, device=device)

    def add(self, values: torch.Tensor, rows: slice) -> None:
        self._sums[0] += values.sum(dim=0)
        powers = values * values
        self._sums[1] += powers.sum(dim=0)
        self._sums[2] += powers.mul_(values).sum(dim=0)
        if self._groups is None:
            return
        index = self._groups[rows] - self._open_group
        sums = torch.zeros(index[-1] + 1, values.shape[1], dtype=values.dtype, device=values.device)
        sums.index_add_(0, upload(torch.from_numpy(index), values.device), values)
        if index[-1] == 0:
            self._open_sum += sums[0]
            return
        self._close((self._open_sum + sums[0])[None])
        self._close(sums[1:-1])
        self._open_sum = sums[-1].double()

    def _close(self, sums: torch.Tensor) -> None:
        """Add the next complete groups."""
        last = self._open_group + len(sums)
        sizes = torch.from_numpy(self._sizes[self._open_group : last])
        self._sums[3] += torch.linalg.vector_norm(sums, dim=0).double() ** 2
        self._sums[4] += upload(sizes, sums.device).to(sums.dtype) @ sums
        self._open_group = last

    def result(self) -> GroupSums:
        if self._groups is not None:
            self._close(self._open_sum[None])
        else:
            self._sums[3], self._sums[4] = self._sums[1], self._sums[0]
        return GroupSums(*self._sums.cpu().numpy())


@torch.inference_mode()
def presence_sums(
    scorer: Scorer,
    X: Embeddings,
    parameters: PresenceParameters,
    groups: np.ndarray | None,
    after_block: Callable[[int], object],
) -> tuple[GroupSums, GroupSums]:
    """Return the sums of the probabilities of words, and those of their fourth roots.

    ``groups`` (n,) are integers from 0 without gaps; None if every row is one.
    """
    order = None
    if groups is not None and (np.diff(groups) < 0).any():
        order = np.argsort(groups, kind="stable")
        groups = groups[order]
    device = scorer.compute.device
    presence_total, root_total = (_Accumulator(len(parameters.intercept), groups, device) for _ in range(2))
    first = 0
    for X_part in _gather(X, order):
        for log_odds in log_odds_blocks(scorer, X_part, parameters):
            rows = slice(first, first + len(log_odds))
            presence = log_odds.sigmoid_()
            presence_total.add(presence, rows)
            root_total.add(presence.sqrt_().sqrt_(), rows)
            first = rows.stop
            after_block(len(log_odds))
    return presence_total.result(), root_total.result()


def _gather(X: Embeddings, order: np.ndarray | None) -> Iterator[Embeddings]:
    """Yield X, or its rows in this order, some at a time."""
    if order is None:
        yield X
        return
    for rows in slices(len(order), _GATHERED_ROWS):
        yield X[order[rows]]

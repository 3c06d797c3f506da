"""The k best scores of each row of a block, in a defined order: equal scores go to the lower column.

A row is cut into blocks of 64 columns. Its k + 1 largest values lie in the k + 1 blocks with the largest
maxima, so one pass finds the maxima and only k + 1 blocks are read again. If the values at positions k
and k + 1 are equal, the choice of columns was arbitrary; such rows are ranked again over all columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch

from flip_sklearn.metrics.ranking import count_hits

BLOCK = 64

# Selection by blocks is faster while the blocks to read hold less than a fourth of a row.
_MIN_BLOCKS_PER_READ = 4

# Number of scores copied at a time to break ties.
_TIE_ELEMENTS = 2**22


def uses_blocks(k: int, n_words: int) -> bool:
    """Whether the k largest of ``n_words`` columns are selected with the help of ``block_maxima``."""
    return _MIN_BLOCKS_PER_READ * k <= n_words // BLOCK


def block_maxima(scores: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the largest score of every full block of 64 columns, (m, V // 64)."""
    n_blocks = scores.shape[1] // BLOCK
    blocks = scores[:, : n_blocks * BLOCK].view(len(scores), n_blocks, BLOCK)
    return torch.amax(blocks, dim=2, out=out)


def top_k(
    scores: torch.Tensor, k: int, maxima: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k best scores of each row, best first, and their columns; ties go to the lower column.

    ``maxima`` is ``block_maxima(scores)`` if the caller has computed it.
    """
    values, columns = largest(scores, min(k + 1, scores.shape[1]), maxima)
    equal = values[:, 1:] == values[:, :-1]
    tied = equal.any(dim=1).nonzero().view(-1)
    tied_at_k = equal[:, k - 1] if values.shape[1] > k else equal.new_zeros(len(equal))
    values, columns = values[:, :k], columns[:, :k]
    if len(tied):
        values[tied], columns[tied] = _order_ties(values[tied], columns[tied])
        ambiguous = tied_at_k.nonzero().view(-1)
        for rows in torch.split(ambiguous, max(1, _TIE_ELEMENTS // scores.shape[1])):
            values[rows], columns[rows] = _break_ties(scores[rows], values[rows, -1:], k)
    return values, columns


def largest(
    scores: torch.Tensor, k: int, maxima: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest values of each row, largest first, and their columns.

    Among equal values the choice and the order of columns are arbitrary.
    """
    n_words = scores.shape[1]
    n_blocks = n_words // BLOCK
    if not uses_blocks(k, n_words):
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    if maxima is None:
        maxima = block_maxima(scores)
    blocks = maxima.topk(k, dim=1, sorted=False).indices
    if scores.is_contiguous() and n_blocks * BLOCK == n_words:  # copying whole blocks is faster
        first_block = torch.arange(len(scores), device=scores.device)[:, None] * n_blocks
        candidates = scores.view(-1, BLOCK).index_select(0, (blocks + first_block).view(-1))
        best = candidates.view(len(scores), -1).topk(k, dim=1)
        block = blocks.gather(1, best.indices.div(BLOCK, rounding_mode="floor"))
        return best.values, block * BLOCK + best.indices % BLOCK
    within_block = torch.arange(BLOCK, device=scores.device)
    columns = (blocks[:, :, None] * BLOCK + within_block).flatten(1)
    if n_blocks * BLOCK < n_words:  # the columns after the last full block are always candidates
        remainder = torch.arange(n_blocks * BLOCK, n_words, device=scores.device)
        columns = torch.cat([columns, remainder.expand(len(scores), -1)], dim=1)
    best = scores.gather(1, columns).topk(k, dim=1)
    return best.values, columns.gather(1, best.indices)


def _order_ties(values: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort by value, best first; among equal values the lower column comes first."""
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _break_ties(scores: torch.Tensor, kth_value: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the top k of rows in which more columns equal the k-th best value than fit in."""
    above = ~(scores <= kth_value)  # NaN counts as large, as in torch.topk
    equal = scores == kth_value
    n_free = k - above.sum(dim=1, keepdim=True)
    selected = above | (equal & (equal.cumsum(dim=1) <= n_free))
    columns = selected.nonzero()[:, 1].view(-1, k)  # ascending within a row
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def keyword_accuracy_per_row(scores: torch.Tensor, indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the share (m,) of each row's words that are among its k best-scored words, k their number.

    The words of row i are ``indices[indptr[i]:indptr[i + 1]]``, ascending. A row without words gets 0.
    """
    present = np.ones(len(indices), dtype=bool)
    words = sp.csr_array((present, indices, indptr), shape=tuple(scores.shape))
    k = np.diff(indptr)
    n_hits = np.zeros(len(k), dtype=np.int64)
    groups = sorted(groups_by_size(k), key=len, reverse=True)
    for number, group in enumerate(groups):
        rows = torch.from_numpy(group).to(scores.device)
        widest = int(k[group].max())
        if number == 0:  # rank all rows: this costs less than copying the rows of the largest group
            top = top_k(scores, widest)[1][rows]
        else:
            top = top_k(scores[rows], widest)[1]
        n_hits[group] = count_hits(words[group], top.cpu().numpy())
    return n_hits / np.maximum(k, 1)


def groups_by_size(k: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions with k in 1..16, in 17..32, in 33..64 and so on, without empty groups."""
    low, high = 0, 16
    while (k > low).any():
        group = np.flatnonzero((k > low) & (k <= high))
        if len(group):
            yield group
        low, high = high, 2 * high

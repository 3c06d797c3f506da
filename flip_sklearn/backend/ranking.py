"""The k best scores of each row of a block, in an order that is always the same: equal scores go to the
lower column.

Most columns need not be looked at twice. Cut a row into blocks of 64 columns: its k + 1 largest values
lie in the k + 1 blocks with the largest maxima. One pass finds the maxima, the rest reads k + 1 blocks.
The values at places k and k + 1 then tell whether the choice of columns was free, that is, whether a
tie crosses the border. Only such rows are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

BLOCK = 64

# The detour over blocks pays while the blocks to read hold less than a fourth of a row.
_LEAST_BLOCKS_PER_READ = 4


def by_blocks(k: int, n_words: int) -> bool:
    """Whether the k largest of so many columns are found by way of ``block_maxima``."""
    return _LEAST_BLOCKS_PER_READ * k <= n_words // BLOCK


def block_maxima(scores: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Largest score of every full block of 64 columns, (m, V // 64)."""
    full = scores.shape[1] // BLOCK
    blocks = scores[:, : full * BLOCK].view(len(scores), full, BLOCK)
    return torch.amax(blocks, dim=2) if out is None else torch.amax(blocks, dim=2, out=out)


def top_k(
    scores: torch.Tensor, k: int, maxima: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best scores of each row, best first, and their columns; ties go to the lower column.

    Parameters
    ----------
    scores : (m, V), only read
    k : 1 <= k <= V
    maxima : ``block_maxima(scores)``, where the caller has them already
    """
    values, columns = largest(scores, min(k + 1, scores.shape[1]), maxima)
    equal = values[:, 1:] == values[:, :-1]
    tied = equal.any(dim=1).nonzero().view(-1)
    crossing = equal[:, k - 1] if values.shape[1] > k else equal.new_zeros(len(equal))
    values, columns = values[:, :k], columns[:, :k]
    if len(tied):
        values[tied], columns[tied] = _by_column(values[tied], columns[tied])
        open_ended = crossing.nonzero().view(-1)
        for rows in torch.split(open_ended, max(1, 2**22 // scores.shape[1])):
            values[rows], columns[rows] = _settle(scores[rows], values[rows, -1:], k)
    return values, columns


def largest(
    scores: torch.Tensor, k: int, maxima: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest values of each row, largest first, and columns that have them: any, where tied."""
    n_words = scores.shape[1]
    full = n_words // BLOCK
    if not by_blocks(k, n_words):
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    if maxima is None:
        maxima = block_maxima(scores)
    blocks = maxima.topk(k, dim=1, sorted=False).indices
    if scores.is_contiguous() and full * BLOCK == n_words:  # blocks lie in one piece: copy them so
        before = torch.arange(len(scores), device=scores.device)[:, None] * full
        read = scores.view(-1, BLOCK).index_select(0, (blocks + before).view(-1))
        best = read.view(len(scores), -1).topk(k, dim=1)
        block = blocks.gather(1, best.indices.div(BLOCK, rounding_mode="floor"))
        return best.values, block * BLOCK + best.indices % BLOCK
    places = torch.arange(BLOCK, device=scores.device)
    columns = (blocks[:, :, None] * BLOCK + places).flatten(1)
    if full * BLOCK < n_words:  # the ragged end, always looked at
        end = torch.arange(full * BLOCK, n_words, device=scores.device)
        columns = torch.cat([columns, end.expand(len(scores), -1)], dim=1)
    best = scores.gather(1, columns).topk(k, dim=1)
    return best.values, columns.gather(1, best.indices)


def _by_column(values: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best first; among equal values the lower column first."""
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _settle(
    scores: torch.Tensor, lowest: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The top k of rows whose k-th best value, ``lowest``, stands in columns that did not all fit in."""
    above = ~(scores <= lowest)  # nan counts as large, as topk has it
    equal = scores == lowest
    room = k - above.sum(dim=1, keepdim=True)
    kept = above | (equal & (equal.cumsum(dim=1) <= room))
    columns = kept.nonzero()[:, 1].view(-1, k)  # ascending
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def hits_of(top: np.ndarray, k: np.ndarray, start: np.ndarray, words: np.ndarray) -> np.ndarray:
    """How many of the first k[i] columns of row i of ``top`` are among its words.

    Parameters
    ----------
    top : (m, K) columns, best first; k : (m,)
    start, words : the words of row i are ``words[start[i]:start[i + 1]]``
    """
    if not len(words) or not top.size:
        return np.zeros(len(top), dtype=np.int64)
    width = 1 + max(int(top.max()), int(words.max()))
    present = np.sort(np.repeat(np.arange(len(top)), np.diff(start)) * width + words)
    asked = np.arange(len(top))[:, None] * width + top
    at = np.searchsorted(present, asked).clip(max=len(present) - 1)
    counted = np.arange(top.shape[1]) < k[:, None]
    hits: np.ndarray = ((present[at] == asked) & counted).sum(axis=1)
    return hits


def keyword_accuracy_per_row(
    scores: torch.Tensor, start: np.ndarray, words: np.ndarray
) -> np.ndarray:
    """Per row: share of its k best-scored words that are in the row, k = its number of words.

    The words of row i are ``words[start[i]:start[i + 1]]``. Rows without words give 0.
    """
    k = np.diff(start)
    hits = np.zeros(len(k), dtype=np.int64)
    groups = sorted(by_size(k), key=len, reverse=True)
    for number, group in enumerate(groups):
        # For the largest group all rows are ranked: dearer than nothing, cheaper than a copy of most.
        rows = torch.from_numpy(group).to(scores.device)
        widest = int(k[group].max())
        _, top = top_k(scores if number == 0 else scores[rows], widest)
        own, entries = row_entries(start, group)
        chosen = top[rows] if number == 0 else top
        hits[group] = hits_of(chosen.cpu().numpy(), k[group], own, words[entries])
    return hits / np.maximum(k, 1)


def by_size(k: np.ndarray) -> Iterator[np.ndarray]:
    """Positions with k from 1 to 16, from 17 to 32, from 33 to 64 and so on, where there are any."""
    low, high = 0, 16
    while (k > low).any():
        group = np.flatnonzero((k > low) & (k <= high))
        if len(group):
            yield group
        low, high = high, 2 * high


def row_entries(start: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the given rows of a CSR pattern: where each starts, and the positions of their entries."""
    lengths = start[rows + 1] - start[rows]
    own = np.r_[0, np.cumsum(lengths)]
    return own, np.arange(own[-1]) + np.repeat(start[rows] - own[:-1], lengths)

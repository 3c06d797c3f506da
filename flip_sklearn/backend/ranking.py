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

from flip_sklearn.backend.device import upload
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


def top_k_without_waiting(
    scores: torch.Tensor, k: int, maxima: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the result of ``top_k``, and which rows (m,) of it are right.

    On an accelerator the host does not wait for any of it. A row is not right if more columns equal the
    k-th best score than fit in: finding the lowest of them takes an array whose size the host must know.
    """
    if scores.device.type == "cpu":
        values, columns = top_k(scores, k, maxima)
        return values, columns, torch.ones(len(values), dtype=torch.bool, device="cpu")
    values, columns = largest(scores, min(k + 1, scores.shape[1]), maxima)
    is_right = (values[:, k - 1 : -1] != values[:, k:]).all(dim=1)  # without a column k all rows are
    return *_order_ties(values[:, :k], columns[:, :k]), is_right


def read_top(
    values: torch.Tensor, columns: torch.Tensor, is_right: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the result of ``top_k_without_waiting`` as arrays; the host waits once for the device."""
    if values.device.type == "cpu":
        return values.numpy(), columns.numpy(), is_right.numpy()
    integers = torch.int64 if values.dtype == torch.float64 else torch.int32
    parts = [values.view(integers), columns.to(integers), is_right[:, None].to(integers)]
    packed = torch.cat(parts, dim=1).cpu().numpy()
    k = values.shape[1]
    floats = np.float64 if values.dtype == torch.float64 else np.float32
    return packed[:, :k].view(floats), packed[:, k:-1].astype(np.int64), packed[:, -1] > 0


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

    The words of row i are ``indices[indptr[i]:indptr[i + 1]]``, ascending. A row without words gets 0. The
    host waits once for the device, unless there are ties.
    """
    present = np.ones(len(indices), dtype=bool)
    words = sp.csr_array((present, indices, indptr), shape=tuple(scores.shape))
    k = np.diff(indptr)
    n_hits = np.zeros(len(k), dtype=np.int64)
    groups = sorted(groups_by_size(k), key=len, reverse=True)
    tops = []
    for number, group in enumerate(groups):
        rows = upload(torch.from_numpy(group), scores.device)
        widest = int(k[group].max())
        if number == 0:  # rank all rows: this costs less than copying the rows of the largest group
            _, columns, is_right = top_k_without_waiting(scores, widest)
            columns, is_right = columns[rows], is_right[rows]
        else:
            _, columns, is_right = top_k_without_waiting(scores[rows], widest)
        tops.append(torch.cat([columns, is_right[:, None]], dim=1))
    for group, top in zip(groups, _read_all(tops), strict=True):
        best, wrong = top[:, :-1], np.flatnonzero(top[:, -1] == 0)
        if len(wrong):
            rows = torch.from_numpy(group[wrong]).to(scores.device)
            best[wrong] = top_k(scores[rows], best.shape[1])[1].cpu().numpy()
        n_hits[group] = count_hits(words[group], best)
    return n_hits / np.maximum(k, 1)


def _read_all(tensors: list[torch.Tensor]) -> list[np.ndarray]:
    """Return tensors of one device and format as arrays; the host waits once for the device."""
    if not tensors or tensors[0].device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    packed = torch.cat([tensor.view(-1) for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    parts = np.split(packed, ends[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def groups_by_size(k: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions with k in 1..16, in 17..32, in 33..64 and so on, without empty groups."""
    low, high = 0, 16
    while (k > low).any():
        group = np.flatnonzero((k > low) & (k <= high))
        if len(group):
            yield group
        low, high = high, 2 * high

"""Where training starts: one proximal Newton step from A = 0 with the Fisher diagonal, or an earlier fit.

At A = 0, b = log p (p_j the share of word j) the likelihood part of J has the gradient g_j (d,) of word j,
and since x~ has unit covariance the diagonal of its Hessian is p_j for every entry of a_j (up to p_j^2). So

    a_j = soft(-s g_j, s l1 / V) / (p_j + (DAMPING + l2) / W),

in words: the mean of x~ over the sentences with word j, shrunk where the word is rare. Words of one sentence
share its embedding, so the full step is too long; s is found by a search for the least loss on some rows,
with b_j = log p_j - |a_j|^2 / 2 to keep the mean score of a word at its frequency. With r < d the rows of B~
are the leading directions of the words' shrunk gradients, g_j p_j / (p_j + DAMPING / W).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.fit.data import WhitenedRows
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.penalty import soft_threshold_
from flip_sklearn.backend.fit.whitening import Whitening

# Rows at one time, fewer of long ones: a word takes some 400 bytes to sort, an element of x takes 8.
GRADIENT_CHUNK_ROWS, CHUNK_WORDS, CHUNK_ELEMENTS = 8192, 2**17, 2**23
DAMPING = 100.0  # counts of a word at which its mean is trusted by half
STEP_LENGTHS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
SEARCH_ROWS = 128


@dataclass(frozen=True)
class InitialPoint:
    """Raw-space parameters to continue from, with the mean of the rows they were trained on."""

    A: np.ndarray
    B: np.ndarray
    b: np.ndarray
    mean: np.ndarray


def log_frequencies(counts: np.ndarray) -> np.ndarray:
    """Log shares of the words; those that only held-out rows have count as half of the rarest one."""
    known: np.ndarray = np.maximum(counts, 0.5 * counts[counts > 0].min())
    logarithms: np.ndarray = np.log(known / counts.sum())
    return logarithms


def gradient_at_zero(data: WhitenedRows, counts: np.ndarray) -> torch.Tensor:
    """Gradient (V, d) of the likelihood part of J at A = 0, b = log frequencies.

    Summed over the rows as they come, x - mu, and whitened once at the end: V rows instead of n.
    """
    compute, total = data.compute, counts.sum()
    shape = data.rows.n_words, data.rows.d
    of_words = torch.zeros(shape, device=compute.device, dtype=compute.dtype)
    expected = torch.zeros(shape[1], device=compute.device, dtype=compute.dtype)
    n, entries = len(data.rows), max(1, len(data.rows.indices))
    size = min(GRADIENT_CHUNK_ROWS, CHUNK_WORDS * n // entries, CHUNK_ELEMENTS // shape[1])
    for x, targets in data.centred_blocks(max(1, size)):
        expected += targets.total @ x
        by_word = torch.argsort(targets.col, stable=True)
        words, sizes = torch.unique_consecutive(
            targets.col.index_select(0, by_word), return_counts=True
        )
        sums = torch.nn.functional.embedding_bag(
            targets.row.index_select(0, by_word), x, torch.cumsum(sizes, 0) - sizes,
            mode="sum", per_sample_weights=targets.count.index_select(0, by_word),
        )  # fmt: skip
        of_words.index_add_(0, words, sums)
    data.group.sum_(of_words, expected)
    theta = torch.from_numpy(counts / total).to(compute.device, compute.dtype)
    of_words.addr_(theta, expected, alpha=-1)
    return torch.mm(of_words, data.Q).div_(-total)


def newton_start(
    data: WhitenedRows,
    gradient: torch.Tensor,
    counts: np.ndarray,
    *,
    rank: int | None,
    l1: float,
    l2: float,
    work: Workspace,
) -> Parameters:
    """The step of the module docstring."""
    compute = data.compute
    n_words = gradient.shape[0]
    b = torch.from_numpy(log_frequencies(counts)).to(compute.device, compute.dtype)
    share = torch.from_numpy(counts / counts.sum()).to(compute.device, compute.dtype)
    damped = share + DAMPING / counts.sum()
    B = None if rank is None else _principal_directions(gradient * (share / damped)[:, None], rank)
    A = gradient.neg() if B is None else torch.mm(gradient, B.T).neg_()
    soft_threshold_(A, l1 / n_words)
    A.div_((damped + l2 / n_words)[:, None])
    half_norms = torch.linalg.vector_norm(A, dim=1).square_().div_(2)

    # The same few rows at every length: evenly spaced, so that any order of the data is covered.
    n = len(data.rows)
    some = np.unique(np.linspace(0, n - 1, min(n, SEARCH_ROWS)).astype(np.int64))
    latent, targets = data.batch(some)
    h = latent if B is None else latent @ B.T
    losses = np.zeros(len(STEP_LENGTHS))
    step = work.block_rows(n_words, len(some))
    for first in range(0, len(some), step):
        part = targets.block(first, min(first + step, len(some)))
        index = part.row * n_words + part.col
        scores, at_length = work.pair(len(part.total), n_words)
        torch.mm(h[first : first + step], A.T, out=scores)
        for i, length in enumerate(STEP_LENGTHS):
            torch.mul(scores, length, out=at_length).add_(b - length**2 * half_norms)
            hit = at_length.view(-1).index_select(0, index)
            lse = at_length.logsumexp(dim=1)
            losses[i] += float(part.total.double() @ lse.double())
            losses[i] -= float(part.count.double() @ hit.double())
    length = STEP_LENGTHS[int(losses.argmin())]
    return Parameters(A.mul_(length), B, b - length**2 * half_norms)


def _principal_directions(words: torch.Tensor, rank: int) -> torch.Tensor:
    """The ``rank`` leading right singular vectors of (V, d) rows, as rows; signs fixed."""
    second_moment = torch.mm(words.T, words).double().cpu().numpy()
    vectors = np.linalg.eigh(second_moment)[1][:, ::-1][:, :rank].T
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    fixed = np.ascontiguousarray(vectors * np.where(largest < 0, -1.0, 1.0))
    return torch.from_numpy(fixed).to(words.device, words.dtype)


def continued(
    start: InitialPoint,
    counts: np.ndarray,
    whitening: Whitening,
    data: WhitenedRows,
    *,
    factorized: bool,
) -> Parameters:
    """An earlier fit in today's whitened coordinates."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(
            data.compute.device, data.compute.dtype, copy=True
        )

    A, B_raw = start.A, start.B.astype(np.float64)  # A is too large for a float64 copy
    # z = b + A B (x - old) = [b + A B (new - old)] + A B (x - new), and x - new = x~ Q^-1.
    b = start.b + A @ (B_raw @ (whitening.mean - start.mean)).astype(A.dtype)
    b = np.where(A.any(axis=1), b, log_frequencies(counts))  # words not seen before
    B = B_raw @ whitening.inverse.T
    if not factorized:
        return Parameters(tensor(A @ B.astype(A.dtype)), None, tensor(b))
    norms = np.linalg.norm(B, axis=1)
    unit = B / np.where(norms > 0, norms, 1.0)[:, None]
    return Parameters(tensor(A).mul_(tensor(norms)), tensor(unit), tensor(b))

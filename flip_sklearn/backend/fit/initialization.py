"""The initial point: one proximal Newton step from A = 0 with the Fisher diagonal, or an earlier fit.

At A = 0, b = log p (p_j the share of word j) the likelihood part of J has the gradient g_j (d,) with respect
to a_j. Since x~ has unit covariance (up to the ridge), the diagonal of its Hessian is p_j for every entry of
a_j (up to p_j^2):

    a_j = soft(-s g_j, s l1 / V) / (p_j + (DAMPING + l2) / W),

that is, the mean of x~ over the sentences with word j, shrunk if the word is rare. The words of a sentence
share its embedding, which makes the full step too long; s is the step length with the least loss on some of
the rows, and b_j = log p_j - |a_j|^2 / 2 keeps the mean score of a word at its frequency. With r < d, the
rows of B~ are the leading directions of the shrunk gradients of the words, g_j p_j / (p_j + DAMPING / W).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import slices, to_device
from flip_sklearn.backend.fit.data import WhitenedDataset
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.penalty import soft_threshold_
from flip_sklearn.backend.fit.whitening import Whitening
from flip_sklearn.backend.fit.word_prior import WordPrior

# Limits of a chunk: its rows, their counts (about 400 bytes each to sort), its elements of x (8 bytes each).
GRADIENT_CHUNK_ROWS, CHUNK_COUNTS, CHUNK_ELEMENTS = 8192, 2**17, 2**23
DAMPING = 100.0  # a word with this many occurrences is shrunk by half
STEP_LENGTHS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
SEARCH_ROWS = 128


@dataclass(frozen=True)
class InitialPoint:
    """Parameters that read raw embeddings, z = b + A B (x - mean), as NumPy arrays."""

    A: np.ndarray
    B: np.ndarray
    b: np.ndarray  # nan for words that the fit has not seen
    mean: np.ndarray


def log_frequencies(counts: np.ndarray) -> np.ndarray:
    """Compute the log shares of the words; a word without counts gets half the count of the rarest one."""
    known: np.ndarray = np.maximum(counts, 0.5 * counts[counts > 0].min())
    logarithms: np.ndarray = np.log(known / counts.sum())
    return logarithms


def gradient_at_zero(data: WhitenedDataset, counts: np.ndarray) -> torch.Tensor:
    """Compute the gradient (V, d) of the likelihood part of J at A = 0, b = log frequencies.

    It is summed over centred rows x - mu and whitened at the end: V rows instead of n.
    """
    compute, total = data.compute, counts.sum()
    n_words, d = data.dataset.n_words, data.dataset.d
    sum_per_word = torch.zeros(n_words, d, device=compute.device, dtype=compute.dtype)
    weighted_sum = torch.zeros(d, device=compute.device, dtype=compute.dtype)
    n, n_counts = len(data.dataset), max(1, len(data.dataset.indices))
    chunk_rows = min(GRADIENT_CHUNK_ROWS, CHUNK_COUNTS * n // n_counts, CHUNK_ELEMENTS // d)
    for x, targets_on_host in data.centred_blocks(max(1, chunk_rows)):
        targets = targets_on_host.to(compute.device)
        weighted_sum += targets.total @ x
        by_word = torch.argsort(targets.col, stable=True)
        columns = targets.col.index_select(0, by_word)
        words, sizes = torch.unique_consecutive(columns, return_counts=True)
        rows, counts_by_word = (t.index_select(0, by_word) for t in (targets.row, targets.count))
        sums = torch.nn.functional.embedding_bag(
            rows, x, torch.cumsum(sizes, 0) - sizes, mode="sum", per_sample_weights=counts_by_word
        )
        sum_per_word.index_add_(0, words, sums)
    data.group.sum_(sum_per_word, weighted_sum)
    theta = to_device(counts / total, compute)
    sum_per_word.addr_(theta, weighted_sum, alpha=-1)
    return torch.mm(sum_per_word, data.Q).div_(-total)


def newton_start(
    data: WhitenedDataset,
    gradient: torch.Tensor,
    counts: np.ndarray,
    *,
    rank: int | None,
    l1: float,
    l2: float,
    work: Workspace,
) -> Parameters:
    """Take the proximal Newton step of the module docstring from the ``gradient`` at A = 0."""
    compute = data.compute
    n_words = gradient.shape[0]
    log_p = to_device(log_frequencies(counts), compute)
    p = to_device(counts / counts.sum(), compute)
    damped = p + DAMPING / counts.sum()
    B = None if rank is None else _principal_directions(gradient * (p / damped)[:, None], rank)
    A = gradient.neg() if B is None else torch.mm(gradient, B.T).neg_()
    soft_threshold_(A, l1 / n_words)
    A.div_((damped + l2 / n_words)[:, None])
    full_step = Parameters(A, B, log_p)
    half_norms = torch.linalg.vector_norm(A, dim=1).square_().div_(2)
    length = _best_step_length(data, full_step, half_norms, work)
    return Parameters(A.mul_(length), B, log_p - length**2 * half_norms)


def _best_step_length(
    data: WhitenedDataset, full_step: Parameters, half_norms: torch.Tensor, work: Workspace
) -> float:
    """The step length with the least loss on SEARCH_ROWS rows; ``half_norms`` are |a_j|^2 / 2."""
    A, B, log_p = full_step
    n, n_words = len(data.dataset), len(A)
    # Evenly spaced, so that they cover data in any order.
    search_rows = np.unique(np.linspace(0, n - 1, min(n, SEARCH_ROWS)).astype(np.int64))
    latent, targets_on_host = data.batch(search_rows)
    targets = targets_on_host.flat(n_words).to(data.compute.device)
    h = latent if B is None else latent @ B.T
    losses = np.zeros(len(STEP_LENGTHS))
    for rows in slices(len(h), work.block_rows(n_words, len(h))):
        block = targets.block(rows, n_words)
        full_scores = torch.mm(h[rows], A.T, out=work.scores(len(block.total), n_words))
        scores = torch.empty_like(full_scores)
        for i, length in enumerate(STEP_LENGTHS):
            torch.mul(full_scores, length, out=scores).add_(log_p - length**2 * half_norms)
            target_scores = scores.view(-1).index_select(0, block.position)
            logsumexp = scores.logsumexp(dim=1)
            losses[i] += float(block.total.double() @ logsumexp.double())
            losses[i] -= float(block.count.double() @ target_scores.double())
    return STEP_LENGTHS[int(losses.argmin())]


def _principal_directions(rows: torch.Tensor, rank: int) -> torch.Tensor:
    """The ``rank`` leading right singular vectors of (V, d) rows, as rows, with fixed signs."""
    second_moment = torch.mm(rows.T, rows).double().cpu().numpy()
    vectors = np.linalg.eigh(second_moment)[1][:, ::-1][:, :rank].T
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    signed = np.ascontiguousarray(vectors * np.where(largest < 0, -1.0, 1.0))
    return torch.from_numpy(signed).to(rows.device, rows.dtype)


def add_prior(
    start: Parameters, prior: WordPrior, counts: np.ndarray, l2: float, *, is_closed_form: bool
) -> Parameters | None:
    """Begin the prior at the rows of the start; those of a closed form are completed by its mean.

    The closed form shrinks row j to a share s_j of itself, the more the rarer the word. What is missing, a
    share 1 - s_j of the mean E G, is added, and b_j lowered by what |a_j|^2 / 2 has grown. Returns None if
    the features say nothing about the rows.
    """
    A, B, b = start
    c = torch.from_numpy(counts).to(A)
    if not is_closed_form:
        if not prior.choose_ridge(A, c / (c + l2)):
            return None
        prior.update(A)
        return start
    share = c / (c + DAMPING + l2)
    full_rows = A / share.clamp_min(1e-6)[:, None]
    if not prior.choose_ridge(full_rows, share):
        return None
    prior.set_map(prior.weighted_map(full_rows, share))
    completed = torch.addcmul(A, prior.mean, 1 - share[:, None])
    growth = completed.square().sum(dim=1) - A.square().sum(dim=1)
    return Parameters(completed, B, b - growth / 2)


def warm_start(
    start: InitialPoint, counts: np.ndarray, whitening: Whitening, data: WhitenedDataset, *, factorized: bool
) -> Parameters:
    """Convert an earlier fit to the whitened coordinates of the current rows.

    Words that the earlier fit has not seen get their log frequency as b_j.
    """

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(
            data.compute.device, data.compute.dtype, copy=True
        )

    A, B_raw = start.A, start.B.astype(np.float64)  # A is too large for a float64 copy
    # z = b + A B (x - old) = [b + A B (new - old)] + A B (x - new), and x - new = x~ Q^-1.
    b = start.b + A @ (B_raw @ (whitening.mean - start.mean)).astype(A.dtype)
    b = np.where(np.isnan(b), log_frequencies(counts), b)
    B = B_raw @ whitening.inverse.T
    if not factorized:
        return Parameters(tensor(A @ B.astype(A.dtype)), None, tensor(b))
    norms = np.linalg.norm(B, axis=1)
    unit = B / np.where(norms > 0, norms, 1.0)[:, None]
    return Parameters(tensor(A).mul_(tensor(norms)), tensor(unit), tensor(b))

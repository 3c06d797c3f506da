"""solve(train, validation, options) -> Solution: Adam with a proximal L1 step, in whitened space.

    J(A, B, b) = (1/W) sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj]
                 + (1/V) sum_j [ l1 |a_j|_1 + (l2/2) |a_j|_2^2 ],        z_n = b + A B~ x~_n

over A (V, r), b (V,) and B~ (r, d) with rows of unit norm (oblique manifold). The pin matters: A c, B~ / c
give the same scores for every c, so without it a penalty on A alone could be driven to zero for nothing.
Since x~ has unit covariance, every latent B~_k x~ has unit variance, and A_jk reads: nats that word j gains
per standard deviation of latent k. LiP (rank None) is the same with r = d and B~ = I fixed; J is then convex.

The step: gradients of a batch, B~'s projected on the tangent space of its rows; Adam; soft-threshold A in
Adam's metric; renormalize B~'s rows. The rate is constant and the answer is an exponential average of the
iterates, of which the pass with the best held-out score is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, to_numpy
from flip_sklearn.backend.likelihood import Workspace, loss_and_gradients, loss_only
from flip_sklearn.backend.optimizer import Optimizer, Parameters
from flip_sklearn.backend.problem import Rows, Targets
from flip_sklearn.backend.proximal import l1_max
from flip_sklearn.backend.topk import hits_at_k
from flip_sklearn.backend.whitening import Moments, Whitening, streaming_moments

MOMENT_CHUNK_ROWS, GRADIENT_CHUNK_ROWS = 8192, 1024


@dataclass(frozen=True)
class Options:
    """Solver settings; ``rank=None`` is LiP. ``stop_on`` is None, "accuracy" or "likelihood"."""

    rank: int | None
    l1: float
    l2: float
    max_iter: int
    tol: float
    batch_size: int
    learning_rate: float
    stop_on: str | None
    n_iter_no_change: int
    seed: int


@dataclass(frozen=True)
class Start:
    """Raw-space parameters to continue from, with the moments of the rows they were trained on."""

    A: np.ndarray
    B: np.ndarray
    b: np.ndarray
    mean: np.ndarray


@dataclass(frozen=True)
class PassRecord:
    """What is known after one pass over the training rows."""

    loss: float  # J, its likelihood part averaged over the pass as it went
    validation_nll: float  # nats per word on the held-out rows; nan without any
    validation_accuracy: float  # keyword accuracy on the held-out rows; nan without any
    sparsity: float  # share of exact zeros in A
    seconds: float


@dataclass(frozen=True)
class Solution:
    """Factors that read raw embeddings: z = b + A B (x - mean), as NumPy arrays."""

    A: np.ndarray  # (V, r)
    B: np.ndarray  # (r, d); for LiP the whitening map (d, d)
    b: np.ndarray  # (V,), log theta at the mean embedding: logsumexp(b) = 0
    mean: np.ndarray  # (d,)
    moments: Moments
    l1_max: float
    history: tuple[PassRecord, ...]
    best_pass: int
    converged: bool  # whether the last pass brought no progress any more


def _initial(
    rows: Rows,
    counts: np.ndarray,
    whitening: Whitening,
    options: Options,
    start: Start | None,
    generator: torch.Generator,
    compute: Compute,
) -> Parameters:
    """A = 0, B~ orthonormal at random, b = log word frequencies; or the start, in whitened coordinates."""
    d, n_words = rows.d, rows.n_words
    # Words that only held-out rows have count as half of the rarest one.
    log_frequency = np.log(np.maximum(counts, 0.5 * counts[counts > 0].min()) / counts.sum())

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(
            compute.device, compute.dtype, copy=True
        )

    if start is None:
        rank = d if options.rank is None else options.rank
        A = torch.zeros(n_words, rank, device=compute.device, dtype=compute.dtype)
        if options.rank is None:
            return Parameters(A, None, tensor(log_frequency))
        gauss = torch.randn(d, rank, generator=generator, dtype=torch.float64, device="cpu")
        orthonormal = torch.linalg.qr(gauss)[0].T.numpy()
        return Parameters(A, tensor(orthonormal), tensor(log_frequency))
    A_raw, B_raw = start.A.astype(np.float64), start.B.astype(np.float64)
    # z = b + A B (x - old) = [b + A B (new - old)] + A B (x - new), and x - new = x~ Q^-1.
    b = start.b + A_raw @ (B_raw @ (whitening.mean - start.mean))
    b = np.where((A_raw == 0).all(axis=1), log_frequency, b)  # words that were not seen before
    B = B_raw @ whitening.inverse.T
    if options.rank is None:
        return Parameters(tensor(A_raw @ B), None, tensor(b))
    norms = np.linalg.norm(B, axis=1)
    unit = B / np.where(norms > 0, norms, 1.0)[:, None]
    return Parameters(tensor(A_raw * norms), tensor(unit), tensor(b))


@dataclass(frozen=True)
class WhitenedRows:
    """Batches of rows in whitened coordinates: x~ = (x - mu) Q."""

    rows: Rows
    mean: torch.Tensor
    Q: torch.Tensor
    compute: Compute

    def batch(self, picked: np.ndarray) -> tuple[torch.Tensor, Targets]:
        """Whitened embeddings (m, d) and targets."""
        x, targets = self.rows.batch(picked, self.compute)
        return (x - self.mean) @ self.Q, targets

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor, Targets]]:
        """All rows in order: (row numbers, x~, targets)."""
        for first in range(0, len(self.rows), size):
            picked = np.arange(first, min(first + size, len(self.rows)))
            yield picked, *self.batch(picked)


def _gradient_at_zero(data: WhitenedRows, counts: np.ndarray) -> torch.Tensor:
    """Gradient (V, d) of the likelihood part of J at A = 0, b = log frequencies."""
    compute, total = data.compute, counts.sum()
    shape = data.rows.n_words, data.rows.d
    gradient = torch.zeros(shape, device=compute.device, dtype=compute.dtype)
    expected = torch.zeros(shape[1], device=compute.device, dtype=compute.dtype)
    for _, latent, targets in data.blocks(GRADIENT_CHUNK_ROWS):
        expected += targets.total @ latent
        of_words = latent.index_select(0, targets.row).mul_(targets.count[:, None])
        gradient.index_add_(0, targets.col, of_words, alpha=-1)
    theta = torch.from_numpy(counts / total).to(compute.device, compute.dtype)
    gradient += theta[:, None] * expected
    return gradient.div_(total)


@torch.no_grad()
def solve(
    train: Rows,
    validation: Rows | None,
    options: Options,
    compute: Compute,
    *,
    start: Start | None = None,
    past_moments: Moments | None = None,
    past_counts: np.ndarray | None = None,
    before_pass: Callable[[], None] | None = None,
    after_step: Callable[[int], None] | None = None,
    after_pass: Callable[[PassRecord, Callable[[], Solution]], bool] | None = None,
) -> Solution:
    """Minimize J over the training rows.

    ``past_moments`` and ``past_counts`` describe rows of earlier calls (streaming). ``after_step``
    gets the rows done so far in this pass; ``after_pass`` the record and a function that makes the
    solution as of now, and returns True to stop.
    """
    generator = torch.Generator(device="cpu").manual_seed(options.seed)
    moments = streaming_moments(train.chunks(MOMENT_CHUNK_ROWS, compute), train.d)
    if past_moments is not None:
        moments = past_moments.merge(moments)
    whitening = Whitening.from_moments(moments)
    mean = torch.from_numpy(whitening.mean).to(compute.device, compute.dtype)
    Q = torch.from_numpy(whitening.forward).to(compute.device, compute.dtype)
    data = WhitenedRows(train, mean, Q, compute)

    counts = train.word_counts()
    # pen(A) is a mean over the vocabulary: V times the strength that one entry feels.
    strongest_l1 = train.n_words * l1_max(_gradient_at_zero(data, counts), options.rank is not None)
    all_counts = counts if past_counts is None else counts + past_counts
    optimizer = Optimizer(
        _initial(train, all_counts, whitening, options, start, generator, compute),
        l1=options.l1,
        l2=options.l2,
        learning_rate=options.learning_rate,
    )
    work = Workspace(train.n_words, options.batch_size, compute)
    history: list[PassRecord] = []

    def solution(parameters: Parameters, at: int) -> Solution:
        raw_B = Q.T if parameters.B is None else parameters.B @ Q.T
        return Solution(
            A=to_numpy(parameters.A),
            B=np.ascontiguousarray(to_numpy(raw_B)),
            b=to_numpy(torch.log_softmax(parameters.b, dim=0)),
            mean=to_numpy(mean),
            moments=moments,
            l1_max=strongest_l1,
            history=tuple(history),
            best_pass=at,
            converged=without_progress > 0,
        )

    best, lowest_nll = -math.inf, math.inf
    kept = optimizer.averaged(), 0
    without_progress = 0
    for number in range(1, options.max_iter + 1):
        if before_pass is not None:
            before_pass()
        began = time.perf_counter()
        nll = _one_pass(
            data, optimizer, options.batch_size, counts.sum(), work, generator, after_step
        )
        if not math.isfinite(nll):
            raise FloatingPointError(
                f"the training loss became {nll} in pass {number}; lower learning_rate "
                f"(now {options.learning_rate}), or use precision='float32' or 'float64'."
            )
        current = optimizer.averaged()
        if not all(bool(torch.isfinite(p).all()) for p in current if p is not None):
            raise FloatingPointError(
                f"parameters became nan or infinite in pass {number}; lower learning_rate "
                f"(now {options.learning_rate}), or use precision='float32' or 'float64'."
            )
        held_out = math.nan, math.nan
        if validation is not None:
            held_out = evaluate(WhitenedRows(validation, mean, Q, compute), current, work)
        record = PassRecord(
            loss=nll + optimizer.penalty(current.A),
            validation_nll=held_out[0],
            validation_accuracy=held_out[1],
            sparsity=float((current.A == 0).double().mean()),
            seconds=time.perf_counter() - began,
        )
        history.append(record)
        criterion = {
            None: -record.loss,
            "accuracy": record.validation_accuracy,
            "likelihood": -record.validation_nll,
        }[options.stop_on]
        # A falling held-out loss is progress too: early on it falls while the ranking still stands.
        progress = criterion > best + options.tol or held_out[0] < lowest_nll - options.tol
        without_progress = 0 if progress else without_progress + 1
        # Without a held-out part the last parameters are kept: the loss of a pass lags behind them.
        if criterion > best or options.stop_on is None:
            kept = current, number
        best, lowest_nll = max(best, criterion), min(lowest_nll, held_out[0])
        stop = without_progress >= options.n_iter_no_change
        if after_pass is not None:
            stop |= after_pass(record, partial(solution, current, number))
        if stop:
            break
    return solution(*kept)


def _one_pass(
    data: WhitenedRows,
    optimizer: Optimizer,
    batch_size: int,
    words: float,
    work: Workspace,
    generator: torch.Generator,
    after_step: Callable[[int], None] | None,
) -> float:
    """One shuffled pass of steps; the mean negative log-likelihood per word on the way."""
    n, A, B = len(data.rows), optimizer.A, optimizer.B
    order = torch.randperm(n, generator=generator, device="cpu").numpy()
    total = torch.zeros((), dtype=torch.float64, device=data.compute.device)
    for first in range(0, n, batch_size):
        picked = order[first : first + batch_size]
        latent, targets = data.batch(picked)
        h = latent if B is None else latent @ B.T
        grad_h = None if B is None else torch.empty_like(h)
        total += loss_and_gradients(
            h,
            A,
            optimizer.b,
            targets,
            data.compute,
            work,
            grad_A=optimizer.grad_A,
            grad_b=optimizer.grad_b,
            grad_h=grad_h,
        )
        # n / m / W times the sum over a batch has the gradient of J as its mean over batches.
        scale = n / len(picked) / words
        optimizer.grad_A.mul_(scale)
        optimizer.grad_b.mul_(scale)
        if grad_h is not None and optimizer.grad_B is not None:
            torch.mm(grad_h.T, latent, out=optimizer.grad_B).mul_(scale)
        optimizer.step()
        if after_step is not None:
            after_step(first + len(picked))
    return float(total) / words


def evaluate(data: WhitenedRows, parameters: Parameters, work: Workspace) -> tuple[float, float]:
    """Negative log-likelihood per word and keyword accuracy (both weighted) of held-out rows."""
    A, B, b = parameters
    rows = data.rows
    loss, hits = 0.0, 0.0
    for picked, latent, targets in data.blocks(work.block_rows):
        h = latent if B is None else latent @ B.T
        block_loss, scores = loss_only(h, A, b, targets, data.compute, work)
        loss += block_loss
        hits += float(rows.weights[picked] @ hits_at_k(scores, targets))
    return loss / float(rows.word_mass.sum()), hits / float(rows.weights.sum())

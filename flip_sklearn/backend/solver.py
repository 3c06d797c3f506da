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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, to_numpy
from flip_sklearn.backend.likelihood import Workspace, loss_and_gradients, loss_only
from flip_sklearn.backend.problem import Rows
from flip_sklearn.backend.proximal import adam_threshold, l1_max, soft_threshold_
from flip_sklearn.backend.topk import hits_at_k
from flip_sklearn.backend.whitening import Moments, Whitening, streaming_moments

BETA1, BETA2, EPS = 0.9, 0.999, 1e-10
AVERAGE_DECAY = 0.99
WARM_UP_STEPS = 20
# Step sizes relative to `learning_rate`: a step on all entries of a row of A moves its scores by about
# sqrt(r) times the entry step, hence A's 1 / sqrt(r) (and B~'s 1 / sqrt(d), its entries' own size). B~
# and b were best when slower: docs/solver.md has the table.
B_RATE, BIAS_RATE = 0.2, 0.02
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


class _State:
    """Parameters, gradients, optimizer and running average of one fit."""

    def __init__(
        self, A: torch.Tensor, B: torch.Tensor | None, b: torch.Tensor, options: Options, d: int
    ) -> None:
        self.A, self.B, self.b, self.options = A, B, b, options
        self.parameters = [A, b] if B is None else [A, b, B]
        rates = [
            options.learning_rate / math.sqrt(A.shape[1]),
            options.learning_rate * BIAS_RATE,
            options.learning_rate * B_RATE / math.sqrt(d),
        ]
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        groups = [
            {"params": [p], "lr": rate, "base": rate}
            for p, rate in zip(self.parameters, rates, strict=False)
        ]
        self.adam = torch.optim.Adam(groups, betas=(BETA1, BETA2), eps=EPS, fused=True)
        self.average = [p.clone() for p in self.parameters]
        self.threshold = torch.empty_like(A) if options.l1 else None
        self.step_count = 0

    @torch.no_grad()
    def step(self) -> None:
        """One Adam step on the gradients in place, proximal step, pin, average."""
        self.step_count += 1
        options, n_words = self.options, self.A.shape[0]
        warm = min(1.0, self.step_count / WARM_UP_STEPS)
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * warm
        if options.l2:
            self.A.grad.add_(self.A, alpha=options.l2 / n_words)
        if self.B is not None:
            self.B.grad.sub_((self.B.grad * self.B).sum(dim=1, keepdim=True) * self.B)
        self.adam.step()
        if self.threshold is not None:
            adam_threshold(
                self.adam.state[self.A]["exp_avg_sq"],
                l1=options.l1 / n_words,
                learning_rate=self.adam.param_groups[0]["lr"],
                beta2=BETA2,
                eps=EPS,
                step=self.step_count,
                out=self.threshold,
            )
            soft_threshold_(self.A, self.threshold)
        if self.B is not None:
            normalize_rows_(self.B)
        decay = min(AVERAGE_DECAY, (1 + self.step_count) / (10 + self.step_count))
        for mean, p in zip(self.average, self.parameters, strict=True):
            mean.lerp_(p, 1 - decay)

    def averaged(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """A, B~, b averaged, pinned, with the exact zeros of the last iterate's A.

        An average of iterates that are zero now and then is never zero; the support is the proximal
        iterate's, the values are the average's.
        """
        A, b = self.average[0].clone(), self.average[1].clone()
        if self.threshold is not None:
            A.masked_fill_(self.A == 0, 0.0)
        if self.B is None:
            return A, None, b
        B = self.average[2].clone()
        A *= normalize_rows_(B).T
        return A, B, b


def normalize_rows_(B: torch.Tensor) -> torch.Tensor:
    """Scale rows to unit norm in place; returns the former norms (r, 1). A zero row stays zero."""
    norms = torch.linalg.vector_norm(B, dim=1, keepdim=True)
    B.div_(norms.clamp_min(torch.finfo(B.dtype).tiny))
    return norms


def _initial(
    rows: Rows,
    counts: np.ndarray,
    whitening: Whitening,
    options: Options,
    start: Start | None,
    generator: torch.Generator,
    compute: Compute,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """A = 0, B~ orthonormal at random, b = log word frequencies; or the start, in whitened coordinates."""
    d, n_words = rows.d, rows.n_words
    log_frequency = np.log(np.maximum(counts, 0.5) / max(counts.sum(), 0.5))

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(compute.device, compute.dtype, copy=True)

    if start is None:
        rank = d if options.rank is None else options.rank
        A = torch.zeros(n_words, rank, device=compute.device, dtype=compute.dtype)
        if options.rank is None:
            return A, None, tensor(log_frequency)
        gauss = torch.randn(d, rank, generator=generator, dtype=torch.float64)
        return A, tensor(torch.linalg.qr(gauss)[0].T.numpy()), tensor(log_frequency)
    A_raw, B_raw = start.A.astype(np.float64), start.B.astype(np.float64)
    # z = b + A B (x - old) = [b + A B (new - old)] + A B (x - new), and x - new = x~ Q^-1.
    b = start.b + A_raw @ (B_raw @ (whitening.mean - start.mean))
    b = np.where((A_raw == 0).all(axis=1), log_frequency, b)  # words that were not seen before
    B = B_raw @ whitening.inverse.T
    if options.rank is None:
        return tensor(A_raw @ B), None, tensor(b)
    norms = np.linalg.norm(B, axis=1)
    return tensor(A_raw * norms), tensor(B / np.where(norms > 0, norms, 1.0)[:, None]), tensor(b)


def _gradient_at_zero(
    rows: Rows, counts: np.ndarray, mean: torch.Tensor, Q: torch.Tensor, compute: Compute
) -> torch.Tensor:
    """Gradient (V, d) of the likelihood part of J at A = 0, b = log frequencies: what `l1_max` needs."""
    total = counts.sum()
    gradient = torch.zeros(rows.n_words, rows.d, device=compute.device, dtype=compute.dtype)
    expected = torch.zeros(rows.d, device=compute.device, dtype=compute.dtype)
    for first in range(0, len(rows), GRADIENT_CHUNK_ROWS):
        x, targets = rows.batch(np.arange(first, min(first + GRADIENT_CHUNK_ROWS, len(rows))), compute)
        latent = (x - mean) @ Q
        expected += targets.total @ latent
        gradient.index_add_(
            0, targets.col, latent.index_select(0, targets.row).mul_(-targets.count[:, None])
        )
    theta = torch.from_numpy(counts / max(total, 0.5)).to(compute.device, compute.dtype)
    gradient += theta[:, None] * expected
    return gradient.div_(max(total, 0.5))


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
    generator = torch.Generator().manual_seed(options.seed)
    moments = streaming_moments(train.chunks(MOMENT_CHUNK_ROWS, compute), train.d)
    if past_moments is not None:
        moments = past_moments.merge(moments)
    whitening = Whitening.from_moments(moments)
    mean = torch.from_numpy(whitening.mean).to(compute.device, compute.dtype)
    Q = torch.from_numpy(whitening.forward).to(compute.device, compute.dtype)

    counts = train.word_counts()
    words_in_pass = max(counts.sum(), 0.5)  # W
    strongest_l1 = (
        l1_max(_gradient_at_zero(train, counts, mean, Q, compute), options.rank is not None)
        * train.n_words
    )
    all_counts = counts if past_counts is None else counts + past_counts
    A, B, b = _initial(train, all_counts, whitening, options, start, generator, compute)
    state = _State(A, B, b, options, train.d)
    work = Workspace(train.n_words, options.batch_size, compute)
    history: list[PassRecord] = []
    best: tuple[float, int, tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]] | None = None
    without_progress = 0

    def solution(parameters: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor], at: int) -> Solution:
        A, B, b = parameters
        raw_B = Q.T if B is None else B @ Q.T
        return Solution(
            A=to_numpy(A),
            B=np.ascontiguousarray(to_numpy(raw_B)),
            b=to_numpy(torch.log_softmax(b, dim=0)),
            mean=to_numpy(mean),
            moments=moments,
            l1_max=strongest_l1,
            history=tuple(history),
            best_pass=at,
        )

    for number in range(1, options.max_iter + 1):
        if before_pass is not None:
            before_pass()
        began = time.perf_counter()
        nll = _one_pass(train, state, mean, Q, words_in_pass, compute, work, generator, after_step)
        current = state.averaged()
        penalty = _penalty(current[0], options)
        held_out = (math.nan, math.nan)
        if validation is not None:
            held_out = evaluate(validation, mean, Q, current, compute, work)
        seconds = time.perf_counter() - began
        history.append(
            PassRecord(
                loss=nll + penalty,
                validation_nll=held_out[0],
                validation_accuracy=held_out[1],
                sparsity=float((current[0] == 0).double().mean()),
                seconds=seconds,
            )
        )
        if not math.isfinite(nll):
            raise FloatingPointError(
                f"the training loss became {nll} in pass {number}; lower learning_rate "
                f"(now {options.learning_rate}), or use precision='float32' or 'float64'."
            )
        criterion = {
            None: -history[-1].loss,
            "accuracy": history[-1].validation_accuracy,
            "likelihood": -history[-1].validation_nll,
        }[options.stop_on]
        enough = best is None or criterion > best[0] + options.tol
        without_progress = 0 if enough else without_progress + 1
        if best is None or criterion > best[0] or options.stop_on is None:
            best = (criterion if best is None else max(best[0], criterion), number, current)
        stop = without_progress >= options.n_iter_no_change
        if after_pass is not None:
            stop |= after_pass(history[-1], lambda p=current, n=number: solution(p, n))  # type: ignore[misc]
        if stop:
            break
    if best is None:
        raise ValueError(f"max_iter={options.max_iter} allows no pass; use max_iter >= 1.")
    return solution(best[2], best[1])


def _one_pass(
    train: Rows,
    state: _State,
    mean: torch.Tensor,
    Q: torch.Tensor,
    words_in_pass: float,
    compute: Compute,
    work: Workspace,
    generator: torch.Generator,
    after_step: Callable[[int], None] | None,
) -> float:
    """One shuffled pass of steps; the mean negative log-likelihood per word on the way."""
    n, size = len(train), state.options.batch_size
    order = torch.randperm(n, generator=generator).numpy()
    total = torch.zeros((), dtype=torch.float64, device=compute.device)
    for first in range(0, n, size):
        rows = order[first : first + size]
        x, targets = train.batch(rows, compute)
        latent = (x - mean) @ Q
        h = latent if state.B is None else latent @ state.B.T
        grad_h = None if state.B is None else torch.empty_like(h)
        total += loss_and_gradients(
            h, state.A, state.b, targets, compute, work,
            grad_A=state.A.grad, grad_b=state.b.grad, grad_h=grad_h,
        )  # fmt: skip
        # n / m / W times the batch's sum has J's gradient as its mean over batches.
        scale = n / len(rows) / words_in_pass
        if state.B is not None:
            torch.mm(grad_h.T, latent, out=state.B.grad)
        for p in state.parameters:
            p.grad.mul_(scale)
        state.step()
        if after_step is not None:
            after_step(first + len(rows))
    return float(total) / words_in_pass


def _penalty(A: torch.Tensor, options: Options) -> float:
    """The penalty terms of J."""
    value = 0.0
    if options.l1:
        value += options.l1 * float(A.abs().sum(dtype=torch.float64)) / A.shape[0]
    if options.l2:
        value += 0.5 * options.l2 * float(A.square().sum(dtype=torch.float64)) / A.shape[0]
    return value


def evaluate(
    rows: Rows,
    mean: torch.Tensor,
    Q: torch.Tensor,
    parameters: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor],
    compute: Compute,
    work: Workspace,
) -> tuple[float, float]:
    """Negative log-likelihood per word and keyword accuracy (both weighted) of held-out rows."""
    A, B, b = parameters
    loss, hits, mass = 0.0, 0.0, 0.0
    for first in range(0, len(rows), work.block_rows):
        picked = np.arange(first, min(first + work.block_rows, len(rows)))
        x, targets = rows.batch(picked, compute)
        h = (x - mean) @ Q
        h = h if B is None else h @ B.T
        block_loss, scores = loss_only(h, A, b, targets, compute, work)
        loss += block_loss
        weights = rows.weights[picked]
        hits += float(weights @ hits_at_k(scores, targets))
        mass += float(weights.sum())
    words = float(rows.word_mass.sum())
    return loss / max(words, 0.5), hits / max(mass, np.finfo(float).tiny)

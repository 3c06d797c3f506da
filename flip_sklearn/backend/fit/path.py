"""A path of L1 strengths: one session, from strong to weak, each strength going on where the last ended.

At l1_max and above the solution is known: A = 0. Just below it a few words have a row, and the cheapest
row is one entry on a latent of the word's own, B~_k along its gradient: that costs |e_j|_2 for the word's
direction e_j = a_j B~, and latents at an angle to it cost more. So the path starts with rows of B~ along
the gradients of single words, taken by QR with pivoting: the largest first, and none twice.

Going down, A has to grow, and what a strength inherits is short of its optimum. A part of its passes is
therefore made at a higher rate, which closes the gap; those after it, at the rate of a fit, take the noise
away. docs/regularization.md has the measurements.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch

from flip_sklearn.backend.fit.data import WhitenedRows
from flip_sklearn.backend.fit.initialization import gradient_at_zero, log_frequencies
from flip_sklearn.backend.fit.likelihood import Workspace, loss_only
from flip_sklearn.backend.fit.optimality import kkt_residual
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.session import PassRecord, Run
from flip_sklearn.backend.fit.solver import Session, Solution
from flip_sklearn.backend.ranking import keyword_accuracy_per_row

FAST_RATE, FAST_SHARE = 2.0, (3, 5)
# A path that begins below this share of l1_max starts as a fit does: many words have rows there.
ZERO_START_SHARE = 0.01
# Words to choose from, per latent; of those that are nearly sums of others no direction is taken.
WORDS_PER_LATENT, INDEPENDENT = 4, 1e-3


@dataclass(frozen=True)
class PathPoint:
    """What is known of the solution at one strength."""

    l1: float
    nll: float  # nats per word
    hits: np.ndarray  # per held-out row: share of its words found, with bias
    hits_without_bias: np.ndarray
    sparsity: float  # share of exact zeros in A
    n_words_left: int  # rows of A that are not all zero
    seconds: float  # of the passes


@torch.no_grad()
def follow(
    session: Session,
    strengths: np.ndarray,
    held_out: WhitenedRows,
    *,
    max_iter: int,
    kkt: bool,
    after_step: Callable[[int], None] | None = None,
) -> Iterator[tuple[Solution, PathPoint]]:
    """Solutions at strengths that fall, ``max_iter`` passes each; none where A = 0 is the solution."""
    rate = session.options.learning_rate
    if strengths[0] >= ZERO_START_SHARE * session.l1_max:
        start = zero_start(session)
        session.run = Run(start, float(strengths[0]), session.l2, rate, session.run.generator)
    run = session.run
    optimizer = run.optimizer
    fast = max_iter * FAST_SHARE[0] // FAST_SHARE[1]
    for l1 in map(float, strengths):
        run.history.clear()
        current = Parameters(optimizer.A, optimizer.B, optimizer.b)
        began = time.perf_counter()
        for factor, passes in ((FAST_RATE, fast), (1.0, max_iter - fast)):
            if l1 >= session.l1_max:
                break
            optimizer.change(l1=l1, learning_rate=factor * rate)
            for _ in range(passes):
                pass_began = time.perf_counter()
                nll, current = session.one_pass(after_step)
                run.history.append(
                    PassRecord(
                        loss=nll + optimizer.penalty(current.A),
                        validation_nll=math.nan,
                        validation_accuracy=math.nan,
                        sparsity=_share_of_zeros(current.A),
                        seconds=time.perf_counter() - pass_began,
                    )
                )
        seconds = time.perf_counter() - began
        nll, hits, lift_hits = measure(held_out, current, session.work)
        if run.history:
            weights = held_out.rows.weights
            accuracy = float(weights @ hits) / float(weights.sum())
            run.history[-1] = replace(
                run.history[-1], validation_nll=nll, validation_accuracy=accuracy
            )
        solution = session.solution(current, len(run.history))
        if kkt:
            residual = kkt_residual(
                session.data, current, l1=l1, l2=session.options.l2, work=session.work
            )
            solution = replace(solution, kkt_residual=residual)
        n_words_left = int(torch.count_nonzero(torch.linalg.vector_norm(current.A, dim=1)))
        yield (
            solution,
            PathPoint(l1, nll, hits, lift_hits, _share_of_zeros(current.A), n_words_left, seconds),
        )


def zero_start(session: Session) -> Parameters:
    """A = 0, b the log frequencies, and rows of B~ along the gradients of single words."""
    optimizer, compute = session.run.optimizer, session.compute
    b = torch.from_numpy(log_frequencies(session.counts)).to(compute.device, compute.dtype)
    A, B = torch.zeros_like(optimizer.A), optimizer.B
    if B is not None:
        B = B.clone()
        directions = word_directions(gradient_at_zero(session.data, session.counts), len(B))
        B[: len(directions)] = directions
        session.data.group.broadcast_(B)
    return Parameters(A, B, b)


def word_directions(gradient: torch.Tensor, rank: int) -> torch.Tensor:
    """At most ``rank`` unit vectors -g_j / |g_j| of words with large and independent gradients (V, d)."""
    norms = torch.linalg.vector_norm(gradient, dim=1)
    largest = norms.topk(min(len(norms), WORDS_PER_LATENT * rank)).indices
    some = gradient.index_select(0, largest)
    triangle, order = scipy.linalg.qr(some.double().cpu().numpy().T, mode="r", pivoting=True)
    left = np.abs(np.diagonal(triangle))[:rank]
    chosen = order[: len(left)][left > INDEPENDENT * left.max(initial=0.0)]
    directions = some.index_select(0, torch.from_numpy(chosen.astype(np.int64)).to(some.device))
    return directions.div_(-torch.linalg.vector_norm(directions, dim=1, keepdim=True))


def measure(
    data: WhitenedRows, parameters: Parameters, work: Workspace
) -> tuple[float, np.ndarray, np.ndarray]:
    """Held-out nats per word, and per row the share of its words found with and without bias."""
    A, B, b = parameters
    rows = data.rows
    hits = np.zeros((2, len(rows)))
    loss = 0.0
    for picked, latent, targets in data.blocks(work.block_rows(len(b), len(rows))):
        h = latent if B is None else latent @ B.T
        block_loss, scores = loss_only(h, A, b, targets, data.compute, work)
        loss += block_loss
        hits[0, picked] = keyword_accuracy_per_row(scores, targets.start, targets.col.cpu().numpy())
        hits[1, picked] = keyword_accuracy_per_row(
            scores.sub_(b), targets.start, targets.col.cpu().numpy()
        )
    sums = torch.from_numpy(np.append(loss, hits)).to(data.compute.device)
    data.group.sum_(sums)
    found = sums.cpu().numpy()
    with_bias, without = found[1:].reshape(2, len(rows))
    return float(found[0]) / float(rows.row_weight.sum()), with_bias, without


def _share_of_zeros(A: torch.Tensor) -> float:
    return 1.0 - int(torch.count_nonzero(A)) / max(1, A.numel())

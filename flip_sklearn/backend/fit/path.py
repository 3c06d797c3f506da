"""A path of L1 strengths in one session, from strong to weak; each continues from the solution before.

At l1_max and above the solution is known: A = 0. Just below it a few words have non-zero rows. The
cheapest non-zero row is one entry on a latent along the word's own gradient, which costs |e_j|_2 for the
word's direction e_j = a_j B~; latents at an angle to it cost more. The path therefore starts with rows of B~
along the gradients of single words, which QR with pivoting chooses: the largest first, no direction twice.

As the strength falls, A has to grow, and the solution of the strength before is too small. Some of the
passes are therefore made at a higher rate, which closes the gap; the others, at the rate of a fit, remove
the noise. docs/regularization.md has the measurements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch

from flip_sklearn.backend.fit.data import WhitenedDataset
from flip_sklearn.backend.fit.initialization import log_frequencies
from flip_sklearn.backend.fit.optimality import kkt_residual
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.solver import Solution, make_solution
from flip_sklearn.backend.ranking import keyword_accuracy_per_row

# Three in five passes are made at twice the rate.
FAST_RATE, FAST_SHARE = 2.0, (3, 5)
# A path that begins below this share of l1_max starts as a fit does: many words have rows there.
ZERO_START_SHARE = 0.01
# Words to choose from, per latent. Directions that are nearly sums of others are left out.
WORDS_PER_LATENT, INDEPENDENT = 4, 1e-3


@dataclass(frozen=True)
class HeldOutScores:
    """Measurements on held-out rows; accuracies have one value per row."""

    nll: float  # nats per word
    accuracy: np.ndarray  # share of the words of the row that are found, with bias
    accuracy_without_bias: np.ndarray


@dataclass(frozen=True)
class PathPoint:
    """Measurements at one strength."""

    l1: float
    held_out: HeldOutScores
    sparsity: float  # share of exact zeros in A
    n_words_left: int  # rows of A that are not all zero
    seconds: float  # of the passes


@torch.no_grad()
def solve_path(
    session: Session,
    strengths: np.ndarray,
    held_out: WhitenedDataset,
    *,
    max_iter: int,
    kkt: bool,
    after_step: Callable[[int], None] | None = None,
) -> Iterator[tuple[Solution, PathPoint]]:
    """Yield the solution at each strength, strongest first, after ``max_iter`` passes each.

    No pass is made where A = 0 is the solution.
    """
    if strengths[0] >= ZERO_START_SHARE * session.l1_max:
        session.restart(zero_start(session), float(strengths[0]))
    for l1 in map(float, strengths):
        began = time.perf_counter()
        session.state.history.clear()
        parameters = session.parameters
        if l1 < session.l1_max:
            parameters = _train_at(session, l1, max_iter, after_step)
        seconds = time.perf_counter() - began
        scores = measure(session, held_out, parameters)
        history = session.state.history
        if history:  # only the last pass of a strength is measured
            weights = held_out.dataset.weights
            accuracy = float(weights @ scores.accuracy) / float(weights.sum())
            history[-1] = replace(history[-1], validation_nll=scores.nll, validation_accuracy=accuracy)
        solution = make_solution(session, parameters, len(history))
        if kkt:
            l2, work = session.options.l2, session.work
            residual = kkt_residual(session.data, parameters, l1=l1, l2=l2, work=work, prior=session.prior)
            solution = replace(solution, kkt_residual=residual)
        row_norms = torch.linalg.vector_norm(parameters.A, dim=1)
        point = PathPoint(
            l1=l1,
            held_out=scores,
            sparsity=share_of_zeros(parameters.A),
            n_words_left=int(torch.count_nonzero(row_norms)),
            seconds=seconds,
        )
        yield solution, point


def _train_at(
    session: Session, l1: float, max_iter: int, after_step: Callable[[int], None] | None
) -> Parameters:
    """Make the passes at one strength, fast ones first; return the averaged parameters."""
    n_fast = max_iter * FAST_SHARE[0] // FAST_SHARE[1]
    parameters = session.parameters
    for rate_factor, n_passes in ((FAST_RATE, n_fast), (1.0, max_iter - n_fast)):
        rate = rate_factor * session.options.learning_rate
        session.state.optimizer.set_strength_and_rate(l1=l1, learning_rate=rate)
        for _ in range(n_passes):
            record, parameters = session.run_pass(after_step)
            session.state.history.append(record)
    return parameters


def share_of_zeros(A: torch.Tensor) -> float:
    """Share of exact zeros in A."""
    return 1.0 - int(torch.count_nonzero(A)) / max(1, A.numel())


def zero_start(session: Session) -> Parameters:
    """A = 0, b the log frequencies, and rows of B~ along the gradients of single words."""
    A, B, _ = session.parameters
    log_frequency = log_frequencies(session.word_counts)
    b = torch.from_numpy(log_frequency).to(session.compute.device, session.compute.dtype)
    if B is not None:
        B = B.clone()
        directions = word_directions(session.gradient_at_zero(), len(B))
        B[: len(directions)] = directions
        session.data.group.broadcast_(B)
    return Parameters(torch.zeros_like(A), B, b)


def word_directions(gradient: torch.Tensor, rank: int) -> torch.Tensor:
    """At most ``rank`` unit vectors -g_j / |g_j| of words with large and independent gradients (V, d)."""
    norms = torch.linalg.vector_norm(gradient, dim=1)
    largest = norms.topk(min(len(norms), WORDS_PER_LATENT * rank)).indices
    candidates = gradient.index_select(0, largest)
    triangle, order = scipy.linalg.qr(candidates.double().cpu().numpy().T, mode="r", pivoting=True)
    remaining_norms = np.abs(np.diagonal(triangle))[:rank]
    independent = remaining_norms > INDEPENDENT * remaining_norms.max(initial=0.0)
    chosen = torch.from_numpy(order[: len(independent)][independent].astype(np.int64))
    directions = candidates.index_select(0, chosen.to(candidates.device))
    return directions.div_(-torch.linalg.vector_norm(directions, dim=1, keepdim=True))


def measure(session: Session, held_out: WhitenedDataset, parameters: Parameters) -> HeldOutScores:
    """Negative log-likelihood, and the accuracy of each held-out row with and without bias."""
    dataset = held_out.dataset
    accuracy = np.zeros((2, len(dataset)))
    loss = torch.zeros((), dtype=torch.float64, device=session.compute.device)
    for rows, block_loss, scores, targets in session.score_blocks(held_out, parameters):
        loss = loss + block_loss
        words = targets.col.numpy()
        accuracy[0, rows] = keyword_accuracy_per_row(scores, targets.start, words)
        scores.sub_(parameters.b)
        accuracy[1, rows] = keyword_accuracy_per_row(scores, targets.start, words)
    sums = torch.from_numpy(np.append(float(loss), accuracy)).to(session.compute.device)
    held_out.group.sum_(sums)
    total = sums.cpu().numpy()
    with_bias, without_bias = total[1:].reshape(2, len(dataset))
    return HeldOutScores(float(total[0]) / float(dataset.row_weight.sum()), with_bias, without_bias)

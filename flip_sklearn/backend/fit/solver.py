"""solve(train, validation, options) -> Solution: stochastic proximal steps in whitened space.

    J(A, B, b) = (1/W) sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj]
                 + (l1 / V) sum_j |a_j|_1 + (l2 / 2W) sum_j |a_j|_2^2,        z_n = b + A B~ x~_n

over A (V, r), b (V,) and B~ (r, d) with rows of unit norm (oblique manifold). The pin matters: A c, B~ / c
give the same scores for every c, so without it a penalty on A alone could be driven to zero for nothing.
Since x~ has unit covariance, every latent B~_k x~ has unit variance, and A_jk reads: nats that word j gains
per standard deviation of latent k. The squared penalty is a Gaussian prior that does not grow with the
data: l2 says how many occurrences of a word outweigh it. LiP (rank None) is the same with r = d and
B~ = I fixed; J is then convex.

The start is a closed form (``start.py``). A step takes the gradients of a batch, over all words or over
candidates (``sampling.py``), and moves the words it saw (``optimizer.py``). The rate is constant and the
answer is a running average of the iterates, of which the pass with the best held-out score is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, to_numpy
from flip_sklearn.backend.fit.candidates import CandidateSampler
from flip_sklearn.backend.fit.checkpoint import Checkpoint
from flip_sklearn.backend.fit.data import CountDataset, WhitenedRows
from flip_sklearn.backend.fit.initialization import (
    InitialPoint,
    continued,
    gradient_at_zero,
    newton_start,
)
from flip_sklearn.backend.fit.likelihood import Workspace, loss_only
from flip_sklearn.backend.fit.optimality import kkt_residual
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.penalty import l1_max
from flip_sklearn.backend.fit.session import PassRecord, Run, one_pass
from flip_sklearn.backend.fit.whitening import Moments, Whitening, shared_moments, streaming_moments
from flip_sklearn.backend.ranking import keyword_accuracy_per_row

# Embeddings whose float64 copies are in memory at one time: as many numbers, within these rows.
MOMENT_ELEMENTS, MOMENT_CHUNK_ROWS = 2**20, (256, 4096)


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
    solver: str = "auto"  # "exact", "sampled", or the cheaper one


@dataclass(frozen=True)
class Solution:
    """Factors that read raw embeddings: z = b + A B (x - mean), as NumPy arrays."""

    A: np.ndarray  # (V, r)
    B: np.ndarray  # (r, d); for LiP the whitening map (d, d)
    b: np.ndarray  # (V,), log theta at the mean embedding: logsumexp(b) = 0
    mean: np.ndarray  # (d,)
    moments: Moments
    l1_max: float
    solver: str  # "exact" or "sampled"
    history: tuple[PassRecord, ...]
    best_pass: int
    converged: bool  # whether the last pass brought no progress any more
    interrupted: bool = False  # by KeyboardInterrupt, after at least one pass
    kkt_residual: float = math.nan  # where it was asked for


class Session:
    """One problem set up for training: whitened rows, candidates, the closed-form start."""

    def __init__(
        self,
        train: CountDataset,
        options: Options,
        compute: Compute,
        *,
        start: InitialPoint | None = None,
        past_moments: Moments | None = None,
        past_counts: np.ndarray | None = None,
    ) -> None:
        self.options, self.compute = options, compute
        rows = max(MOMENT_CHUNK_ROWS[0], min(MOMENT_CHUNK_ROWS[1], MOMENT_ELEMENTS // train.d))
        moments = streaming_moments(train.chunks(rows, compute), train.d)
        moments = shared_moments(moments, train.group, compute.device)
        if past_moments is not None:
            moments = past_moments.merge(moments)
        self.moments = moments
        whitening = Whitening.from_moments(moments)
        self.mean = torch.from_numpy(whitening.mean).to(compute.device, compute.dtype)
        self.Q = torch.from_numpy(whitening.forward).to(compute.device, compute.dtype)
        # Eigenvectors are free to turn where eigenvalues are equal, and other chips turn them otherwise.
        train.group.broadcast_(self.Q)
        self.data = WhitenedRows(train, self.mean, self.Q, compute)

        self.counts = train.word_counts()
        all_counts = self.counts if past_counts is None else self.counts + past_counts
        self.sampler: CandidateSampler | None = None
        if options.solver != "exact":
            sampler = CandidateSampler(
                self.counts, train.document_frequency(), len(train), options.batch_size
            )
            if options.solver == "sampled" or sampler.is_cheaper():
                self.sampler = sampler
        # The optimizer's strengths are per mean over the vocabulary, the prior's is per word of text.
        self.l2 = options.l2 * train.n_words / float(all_counts.sum())
        self.work = Workspace(compute)
        gradient = gradient_at_zero(self.data, self.counts)
        # pen(A) is a mean over the vocabulary: V times the strength that one entry feels.
        self.l1_max = train.n_words * l1_max(gradient, options.rank is not None)
        generator = torch.Generator(device="cpu").manual_seed(options.seed)
        if start is None:
            first = newton_start(
                self.data, gradient, all_counts, rank=options.rank, l1=options.l1, l2=self.l2,
                work=self.work,
            )  # fmt: skip
        else:
            first = continued(
                start, all_counts, whitening, self.data, factorized=options.rank is not None
            )
        train.group.broadcast_(*first)
        del gradient
        self.run = Run(first, options.l1, self.l2, options.learning_rate, generator)

    def one_pass(
        self,
        after_step: Callable[[int], None] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> tuple[float, Parameters]:
        """Mean loss per word during one more pass, and the averaged parameters after it."""
        nll = one_pass(
            self.run, self.data, self.options.batch_size, self.counts.sum(), self.work,
            self.sampler, after_step, checkpoint,
        )  # fmt: skip
        current = self.run.optimizer.averaged()
        # The largest absolute value is nan if one is; no mask of A's size is made.
        largest = [float(torch.linalg.vector_norm(p, math.inf)) for p in current if p is not None]
        if not all(map(math.isfinite, [*largest, nll])):
            raise FloatingPointError(
                f"the training loss or a parameter became nan or infinite in pass "
                f"{len(self.run.history) + 1}; lower learning_rate (now "
                f"{self.options.learning_rate}), or use precision='float32' or 'float64'."
            )
        return nll, current

    def solution(self, parameters: Parameters, at: int, interrupted: bool = False) -> Solution:
        """Parameters for raw embeddings."""
        raw_B = self.Q.T if parameters.B is None else parameters.B @ self.Q.T
        return Solution(
            A=to_numpy(parameters.A),
            B=np.ascontiguousarray(to_numpy(raw_B)),
            b=to_numpy(torch.log_softmax(parameters.b, dim=0)),
            mean=to_numpy(self.mean),
            moments=self.moments,
            l1_max=self.l1_max,
            solver="exact" if self.sampler is None else "sampled",
            history=tuple(self.run.history),
            best_pass=at,
            converged=self.run.without_progress > 0,
            interrupted=interrupted,
        )


@torch.no_grad()
def solve(
    train: CountDataset,
    validation: CountDataset | None,
    options: Options,
    compute: Compute,
    *,
    start: InitialPoint | None = None,
    past_moments: Moments | None = None,
    past_counts: np.ndarray | None = None,
    checkpoint: Checkpoint | None = None,
    before_pass: Callable[[], None] | None = None,
    after_step: Callable[[int], None] | None = None,
    after_pass: Callable[[PassRecord, Callable[[], Solution]], bool] | None = None,
    report_kkt: bool = False,
) -> Solution:
    """Minimize J over the training rows.

    ``past_moments`` and ``past_counts`` describe rows of earlier calls (streaming). ``checkpoint`` is
    continued from if it holds a state, and written to. ``after_step`` gets the rows done so far in
    this pass; ``after_pass`` the record and a function that makes the solution as of now, and
    returns True to stop. ``report_kkt`` asks for the exact solver's KKT residual, two thirds of a pass.
    """
    session = Session(
        train, options, compute, start=start, past_moments=past_moments, past_counts=past_counts
    )
    run = session.run
    held_out = None
    if validation is not None:
        held_out = WhitenedRows(validation, session.mean, session.Q, compute)
    if checkpoint is not None and not _resume(run, checkpoint, options.max_iter):
        checkpoint = None
    mark = torch.tensor([len(run.history), run.position], device=compute.device)
    if any(not torch.equal(mark, other) for other in train.group.gather(mark)):
        raise ValueError(
            "the processes of the group read different checkpoints; checkpoint_dir must be one folder "
            "that all of them see."
        )
    try:
        while len(run.history) < options.max_iter and not run.stopped:
            number = len(run.history) + 1
            if before_pass is not None:
                before_pass()
            began, earlier = time.perf_counter(), run.seconds
            nll, current = session.one_pass(after_step, checkpoint)
            scores = (math.nan, math.nan)
            if held_out is not None:
                scores = evaluate(held_out, current, session.work)
            record = PassRecord(
                loss=nll + run.optimizer.penalty(current.A),
                validation_nll=scores[0],
                validation_accuracy=scores[1],
                sparsity=1.0 - int(torch.count_nonzero(current.A)) / max(1, current.A.numel()),
                seconds=earlier + time.perf_counter() - began,
            )
            # What is kept and when to stop is decided from the same numbers everywhere.
            shared = train.group.broadcast_floats(astuple(record), compute.device)
            record = PassRecord(*shared)
            run.record_pass(record, current, options.stop_on, options.tol)
            stop = run.without_progress >= options.n_iter_no_change
            if after_pass is not None:
                stop |= after_pass(record, partial(session.solution, current, number))
            del current  # else it would stand beside the best one for another pass
            run.stopped = bool(train.group.broadcast_int(int(stop), compute.device))
            if checkpoint is not None:
                ended = run.stopped or number == options.max_iter
                checkpoint.save_if_due(run.state, now=ended)
        kkt = math.nan
        if report_kkt and session.sampler is None and run.kept is not None:
            kkt = kkt_residual(
                session.data, run.kept[0], l1=options.l1, l2=options.l2, work=session.work
            )
    except KeyboardInterrupt:
        # The processes of a group are interrupted at different points: no model is theirs in common.
        if run.kept is None or not train.group.is_single_process:
            raise
        return session.solution(*run.kept, interrupted=True)
    if run.kept is None:  # a checkpoint never holds fewer passes than were asked for
        raise RuntimeError("no pass was made")
    return replace(session.solution(*run.kept), kkt_residual=kkt)


def _resume(run: Run, checkpoint: Checkpoint, max_iter: int) -> bool:
    """Go on from a checkpoint, if there is one; False if it is of no use and should be left alone."""
    saved = checkpoint.load()
    if saved is None:
        return True
    with checkpoint.reading():
        # More passes than are asked for: they cannot be undone, and are worth more than these.
        if len(saved[1]["history"]) > max_iter:
            return False
        run.load(*saved)
    return True


def evaluate(data: WhitenedRows, parameters: Parameters, work: Workspace) -> tuple[float, float]:
    """Negative log-likelihood per word and keyword accuracy (both weighted) of held-out rows."""
    A, B, b = parameters
    rows = data.rows
    sums = torch.zeros(2, dtype=torch.float64, device=data.compute.device)
    for picked, latent, targets in data.blocks(work.block_rows(len(b), len(rows))):
        h = latent if B is None else latent @ B.T
        block_loss, scores = loss_only(h, A, b, targets, data.compute, work)
        hits = float(
            rows.weights[picked]
            @ keyword_accuracy_per_row(scores, targets.start, targets.col.cpu().numpy())
        )
        sums += torch.tensor([block_loss, hits], dtype=torch.float64, device=sums.device)
    data.group.sum_(sums)
    loss, hits = sums.tolist()
    return loss / float(rows.row_weight.sum()), hits / float(rows.weights.sum())

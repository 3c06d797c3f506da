"""solve(train, validation, options, compute) -> Solution: stochastic proximal steps in whitened space.

    J(A, B, b) = (1/W) sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj]
                 + (l1 / V) sum_j |a_j|_1 + (l2 / 2W) sum_j |a_j|_2^2,        z_n = b + A B~ x~_n

(with features of the words, |a_j|^2 is the squared distance to a mean: ``word_prior.py``)
over A (V, r), b (V,) and B~ (r, d) with rows of unit norm (oblique manifold). The norm has to be fixed:
A c, B~ / c give the same scores for every c, so the penalty on A could be made as small as one likes
without changing the model. Since x~ has unit covariance (up to the ridge of ``whitening.py``), every latent
B~_k x~ has unit variance, and A_jk is the number of nats that word j gains per standard deviation of latent
k. The squared penalty is a Gaussian prior whose weight does not grow with the data: l2 is the number of
occurrences of a word that outweigh it.
LiP (rank None) is the same with r = d and B~ = I fixed; J is then convex.

Training starts from a closed form (``initialization.py``). A step computes the gradients of a batch, over
all words or over sampled classes (``candidates.py``), and moves the words that it computed
(``optimizer.py``). The rate is constant, the result is a running average of the iterates, and the pass with
the best held-out score is kept. Then b is refitted to the counts (``bias.py``), and an offset for ranking is
learned on the held-out rows (``ranking_offset.py``). With ``solver="lbfgs"`` a pass is an iteration of L-BFGS
instead (``full_batch.py``).
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
from flip_sklearn.backend.fit.checkpoint import Checkpoint
from flip_sklearn.backend.fit.data import CountDataset, WhitenedDataset
from flip_sklearn.backend.fit.full_batch import FullBatchTraining
from flip_sklearn.backend.fit.optimality import kkt_residual
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.ranking_offset import fit_ranking_offset
from flip_sklearn.backend.fit.session import EarlierFit, Session
from flip_sklearn.backend.fit.state import PassRecord, SolverOptions
from flip_sklearn.backend.fit.whitening import Moments
from flip_sklearn.backend.ranking import keyword_accuracy_per_row


@dataclass(frozen=True)
class Solution:
    """Factors that read raw embeddings, z = b + A B (x - mean), as NumPy arrays."""

    A: np.ndarray  # (V, r)
    B: np.ndarray  # (r, d); for LiP the whitening map (d, d)
    b: np.ndarray  # (V,), log theta at the mean embedding: logsumexp(b) = 0
    ranking_offset: np.ndarray  # (V,), added to the scores when words are ranked with bias
    mean: np.ndarray  # (d,)
    moments: Moments
    l1_max: float
    solver: str  # "exact", "sampled" or "lbfgs"
    history: tuple[PassRecord, ...]
    best_pass: int
    converged: bool  # whether the last pass made no more progress
    interrupted: bool = False  # by KeyboardInterrupt, after at least one pass
    kkt_residual: float = math.nan  # if it was asked for
    word_map: np.ndarray | None = None  # (p, r), G of the prior, if the words have features
    word_map_ridge: float = math.nan  # its kappa


@dataclass(frozen=True)
class PassHooks:
    """Functions that ``solve`` calls: before a pass, after each step and after a pass.

    ``after_step`` gets the number of rows done in the pass. ``after_pass`` gets the record of the pass and a
    function that returns the solution as of now; it returns True to stop.
    """

    before_pass: Callable[[], None]
    after_step: Callable[[int], None]
    after_pass: Callable[[PassRecord, Callable[[], Solution]], bool]


@torch.no_grad()
def solve(
    train: CountDataset,
    validation: CountDataset | None,
    options: SolverOptions,
    compute: Compute,
    hooks: PassHooks,
    *,
    earlier: EarlierFit | None = None,
    checkpoint: Checkpoint | None = None,
    word_features: np.ndarray | None = None,
) -> Solution:
    """Minimize J over the training rows.

    ``earlier`` is a fit to continue from. If ``checkpoint`` holds a state, training continues from it; states
    are written to it. ``word_features`` (V, p) are those of ``word_prior.py``.
    """
    session = Session(train, options, compute, earlier, word_features)
    options, state = session.options, session.state
    training: Session | FullBatchTraining = session
    if options.solver == "lbfgs":
        training = FullBatchTraining(session, is_continued=earlier is not None)
    held_out = None if validation is None else session.whiten(validation)
    if checkpoint is not None and not _resume(session, checkpoint):
        checkpoint = None
    if not train.group.agrees([len(state.history), state.rows_done], compute.device):
        raise ValueError(
            "the processes of the group read different checkpoints; checkpoint_dir must be one folder "
            "that all of them see."
        )
    interrupted = False
    try:
        while len(state.history) < options.max_iter and not state.stopped:
            hooks.before_pass()
            parameters = _make_pass(session, training, held_out, hooks, checkpoint)
            stop = training.should_stop
            number = len(state.history)
            # Refitting b sums over the processes, and perhaps not all of them ask for the solution.
            now = (session, held_out, parameters, number)
            current_solution = partial(refitted_solution, *now, refits_bias=train.group.is_single_process)
            stop |= hooks.after_pass(state.history[-1], current_solution)
            # Freed now: otherwise they stay in memory beside the best ones during the next pass.
            del parameters, current_solution, now
            state.stopped = bool(train.group.broadcast_int(int(stop), compute.device))
            if checkpoint is not None:
                ended = state.stopped or number == options.max_iter
                checkpoint.save_if_due(state.to_checkpoint, now=ended)
    except KeyboardInterrupt:
        # Processes of a group are interrupted at different passes, so they have no model in common.
        if state.best is None or not train.group.is_single_process:
            raise
        interrupted = True
    if state.best is None:  # a checkpoint never holds fewer passes than were asked for
        raise RuntimeError("no pass was made")
    # With the sampled solver the residual would cost more than the fit.
    reports_kkt = options.report_kkt and session.solver != "sampled" and not interrupted
    solution = refitted_solution(session, held_out, *state.best, reports_kkt=reports_kkt)
    return replace(solution, interrupted=interrupted, converged=training.has_converged)


def _make_pass(
    session: Session,
    training: Session | FullBatchTraining,
    held_out: WhitenedDataset | None,
    hooks: PassHooks,
    checkpoint: Checkpoint | None,
) -> Parameters:
    """Make one pass, measure it and record it; return its averaged parameters."""
    state, group = session.state, session.data.group
    record, parameters = training.run_pass(hooks.after_step, checkpoint)
    if held_out is not None:
        nll, accuracy = evaluate(session, held_out, parameters)
        seconds = time.perf_counter() - state.began
        record = replace(record, validation_nll=nll, validation_accuracy=accuracy, seconds=seconds)
    if session.is_small and session.options.refit_bias:
        refitted = session.refit_bias(held_out, parameters)
        record = replace(record, loss=record.loss + refitted.loss - refitted.loss_before)
        parameters = refitted.parameters
    # All processes of a group decide what to keep and when to stop from the same numbers.
    record = PassRecord(*group.broadcast_floats(astuple(record), session.compute.device))
    state.record_pass(record, parameters)
    return parameters


def _resume(session: Session, checkpoint: Checkpoint) -> bool:
    """Continue from the state in a checkpoint, if there is one.

    False if the checkpoint holds more passes than ``max_iter``: they cannot be undone, and the file is worth
    more than the passes of this fit, so it is left as it is.
    """
    saved = checkpoint.load()
    if saved is None:
        return True
    with checkpoint.translate_read_errors():
        if len(saved[1]["history"]) > session.options.max_iter:
            return False
        session.state.load(*saved)
    return True


def refitted_solution(
    session: Session,
    held_out: WhitenedDataset | None,
    parameters: Parameters,
    pass_number: int,
    *,
    refits_bias: bool = True,
    reports_kkt: bool = False,
) -> Solution:
    """The solution of a pass, with b refitted, a ranking offset, and J measured on all rows."""
    history, options = list(session.state.history), session.options
    offset = None
    if options.refit_bias and refits_bias:
        if not session.is_small:  # otherwise b is refitted after every pass
            refitted = session.refit_bias(held_out, parameters)
            parameters = refitted.parameters
            # Some rows measure the differences between passes well, and their sum less so.
            penalty = float(session.state.optimizer.penalty(parameters.A))
            correction = refitted.loss + penalty - history[pass_number - 1].loss
            history = [replace(record, loss=record.loss + correction) for record in history]
        if held_out is not None:
            offset = fit_ranking_offset(held_out, parameters, session.occurrences, session.work)
    residual = math.nan
    if reports_kkt:
        residual = kkt_residual(
            session.data, parameters, l1=options.l1, l2=options.l2, work=session.work, prior=session.prior
        )
    solution = make_solution(session, parameters, pass_number)
    if offset is not None:
        solution = replace(solution, ranking_offset=to_numpy(offset))
    return replace(solution, history=tuple(history), kkt_residual=residual)


def make_solution(session: Session, parameters: Parameters, pass_number: int) -> Solution:
    """The whitening folded into the parameters of a pass."""
    Q = session.Q
    raw_B = Q.T if parameters.B is None else parameters.B @ Q.T
    prior = session.prior
    return Solution(
        A=to_numpy(parameters.A),
        B=np.ascontiguousarray(to_numpy(raw_B)),
        b=to_numpy(torch.log_softmax(parameters.b, dim=0)),
        ranking_offset=to_numpy(torch.zeros_like(parameters.b)),
        mean=to_numpy(session.mean),
        moments=session.moments,
        l1_max=session.l1_max,
        solver=session.solver,
        history=tuple(session.state.history),
        best_pass=pass_number,
        converged=session.state.early_stopping.passes_without_progress > 0,
        word_map=None if prior is None else to_numpy(prior.map_of(parameters.A)),
        word_map_ridge=math.nan if prior is None else prior.ridge,
    )


def evaluate(session: Session, held_out: WhitenedDataset, parameters: Parameters) -> tuple[float, float]:
    """Negative log-likelihood per word and keyword accuracy of held-out rows, both weighted."""
    dataset, device = held_out.dataset, session.compute.device
    loss, accuracy = torch.zeros((), dtype=torch.float64, device=device), 0.0
    for rows, block_loss, scores, targets in session.score_blocks(held_out, parameters):
        per_row = keyword_accuracy_per_row(scores, targets.start, targets.col.numpy())
        loss, accuracy = loss + block_loss, accuracy + float(dataset.weights[rows] @ per_row)
    sums = torch.stack([loss, torch.full_like(loss, accuracy)])
    held_out.group.sum_(sums)
    total_loss, total_accuracy = sums.tolist()
    return total_loss / float(dataset.row_weight.sum()), total_accuracy / float(dataset.weights.sum())

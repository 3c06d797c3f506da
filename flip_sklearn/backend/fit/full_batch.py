"""Iterations of L-BFGS as the passes of a fit: ``solver="lbfgs"``.

It has the interface of ``Session`` for ``solver.py``. The first pass begins with stochastic ones, unless the
fit continues an earlier one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from flip_sklearn.backend.fit.checkpoint import Checkpoint
from flip_sklearn.backend.fit.lbfgs import LBFGS
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.state import PassRecord

# Stochastic passes before the first iteration; with sampled classes a pass costs a part of an iteration.
EXACT_PASSES, SAMPLED_PASSES = 5, 20


class FullBatchTraining:
    """Passes over all rows of a session, each an iteration of L-BFGS."""

    def __init__(self, session: Session, *, is_continued: bool) -> None:
        self._session, self._is_continued = session, is_continued
        options = session.options
        self._lbfgs = LBFGS(
            session.data, session.work, session.parameters, l1=options.l1, l2=options.l2, prior=session.prior
        )
        session.state.lbfgs = self._lbfgs

    def run_pass(
        self, after_step: Callable[[int], None] | None = None, checkpoint: Checkpoint | None = None
    ) -> tuple[PassRecord, Parameters]:
        """Take one step of L-BFGS; return its record, without held-out rows, and the parameters.

        Raises
        ------
        FloatingPointError
            If J is not finite at the start.
        """
        state, lbfgs = self._session.state, self._lbfgs
        state.began = time.perf_counter()
        if not state.history and not self._is_continued:
            n_passes = EXACT_PASSES if self._session.sampler is None else SAMPLED_PASSES
            _, averaged = self._session.run_pass(after_step)
            for _ in range(n_passes - 1):
                _, averaged = self._session.run_pass(after_step)
            lbfgs.start_at(self._session.refit_bias(None, averaged).parameters)
        lbfgs.step(after_step)
        point = lbfgs.point
        if not math.isfinite(point.value):
            raise FloatingPointError(
                f"J is {point.value} where L-BFGS starts; scale X, for example to rows of unit norm, or use "
                "precision='float64'."
            )
        parameters = lbfgs.parameters(point.x)
        n_nonzero = int(torch.count_nonzero(parameters.A))
        record = PassRecord(
            loss=point.value,
            training_loss=point.value,
            validation_nll=math.nan,
            validation_accuracy=math.nan,
            sparsity=1.0 - n_nonzero / max(1, parameters.A.numel()),
            seconds=time.perf_counter() - state.began,
        )
        return record, parameters

    @property
    def should_stop(self) -> bool:
        """Whether the conditions of the optimum hold to ``tol``, or no step lowers J any more."""
        options, state = self._session.options, self._session.state
        is_stopped_early = options.stop_on is not None and state.early_stopping.should_stop
        return self._is_optimal or self._lbfgs.is_stuck or is_stopped_early

    @property
    def has_converged(self) -> bool:
        """Whether the conditions of the optimum hold to ``tol``, or held-out rows ended the fit."""
        options, state = self._session.options, self._session.state
        return self._is_optimal or (options.stop_on is not None and state.early_stopping.should_stop)

    @property
    def _is_optimal(self) -> bool:
        return self._lbfgs.point.residual <= self._session.options.tol

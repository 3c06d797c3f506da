"""Early stopping: the score of a pass, whether it is the best so far, and whether it made progress.

The score is the held-out keyword accuracy or log-likelihood per word, or without held-out rows -J of the
parameters after the pass, on the same rows after every pass. The parameters with the best score are kept. A
pass makes progress if its score exceeds the best one by more than ``tol``, or if the held-out loss falls
fast. Training stops after ``n_iter_no_change`` passes in a row without progress.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flip_sklearn.backend.fit.state import PassRecord, SolverOptions

# The held-out loss falls fast if it falls by more than this many times `tol` (nats per word) in a pass.
FAST_FALL = 10.0


class EarlyStopping:
    """The criterion of one fit, and what it has seen so far."""

    def __init__(self, options: SolverOptions) -> None:
        self.stop_on, self.tol = options.stop_on, options.tol
        self.n_iter_no_change = options.n_iter_no_change
        self.best_score, self.lowest_nll = -math.inf, math.inf
        self.passes_without_progress = 0

    def update(self, record: PassRecord) -> bool:
        """Judge a finished pass; return whether its parameters are the ones to keep."""
        score = {
            None: -record.loss,
            "accuracy": record.validation_accuracy,
            "likelihood": -record.validation_nll,
        }[self.stop_on]
        # In early passes the held-out loss can fall fast while the ranking does not change yet.
        falling = record.validation_nll < self.lowest_nll - FAST_FALL * self.tol
        progress = score > self.best_score + self.tol or falling
        self.passes_without_progress = 0 if progress else self.passes_without_progress + 1
        keep = score > self.best_score
        self.best_score = max(self.best_score, score)
        self.lowest_nll = min(self.lowest_nll, record.validation_nll)
        return keep

    @property
    def should_stop(self) -> bool:
        """Whether the last passes made no progress."""
        return self.passes_without_progress >= self.n_iter_no_change

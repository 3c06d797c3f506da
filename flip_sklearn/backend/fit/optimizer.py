"""One step on A, b and B~, the pin of B~'s rows, and the running average of the iterates.

A row of A is one word, and words differ in frequency by orders of magnitude, so each row has its own
step size from the running mean square of its gradient g_j (V numbers where Adam keeps V r):

    v_j <- beta2 v_j + (1 - beta2) |g_j|^2 / r,         s_j = rate / (sqrt(v_j / (1 - beta2^t)) + eps),
    a_j <- prox of the penalty in the metric s_j of  a_j - s_j g_j.

There is no momentum: averaging the iterates does its work, and a word without a gradient then does not
move, so that a step need only touch the words it saw. What a row misses meanwhile (the decay of v_j, the
shrinkage of the penalty, its share of the average) is a closed form of the number of steps missed,
and is made up when the row is touched next, or by ``settle``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.optim.adam import adam

from flip_sklearn.backend.fit.penalty import penalty_step_

BETA1, BETA2, EPS = 0.9, 0.999, 1e-10
AVERAGE_DECAY = 0.99
WARM_UP_STEPS = 20
# Step sizes relative to `learning_rate`: a step on all entries of a row of A moves its scores by about
# sqrt(r) times the entry step, hence the 1 / sqrt(r). B~ and b were best when slower; B~ matters more, and
# may move faster, the fewer its rows: docs/solver.md has the table.
B_RATE, BIAS_RATE = 0.2, 0.02
# A rate beyond this diverges at once; float32 could not even hold it as a factor.
LARGEST_RATE = 1e30
# Elements of one stretch of rows: on a CPU the elementwise operations of a step then work in cache
# instead of passing over all of A each.
TILE_ELEMENTS = {"cpu": 2**18, "cuda": 2**25}


class Parameters(NamedTuple):
    """A (V, r), B~ (r, d) with rows of unit norm (None for LiP, where it is the identity), b (V,)."""

    A: torch.Tensor
    B: torch.Tensor | None
    b: torch.Tensor


class Optimizer:
    """Parameters, step sizes and running averages of one fit.

    The caller computes J's likelihood gradients at ``A``, ``b``, ``B`` (or at the rows that ``take``
    returns) and hands them to ``step``. The penalties are added here.
    """

    def __init__(
        self, parameters: Parameters, *, l1: float, l2: float, learning_rate: float
    ) -> None:
        A, B, b = self.A, self.B, self.b = parameters
        n_words, self._rank = A.shape
        self.l1, self.l2 = l1 / n_words, l2 / n_words
        self._rate = min(learning_rate, LARGEST_RATE)
        self.steps = 0
        self._log_decay = 0.0  # sum over the steps of log(decay of the average)
        self._averaged_since = 0  # the averages are those of the steps after this one

        def zeros(like: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(like)

        self._state = {
            "A": A, "b": b, "average_A": A.clone(), "average_b": b.clone(),
            "square_A": zeros(b), "square_b": zeros(b),
            # Per word: the step that touched it last, and log_decay as it was then.
            "touched": torch.zeros(n_words, dtype=torch.int64, device=A.device),
            "averaged": torch.zeros(n_words, dtype=torch.float64, device=A.device),
        }  # fmt: skip
        if B is not None:
            self._state |= {
                "B": B, "average_B": B.clone(), "first_B": zeros(B), "second_B": zeros(B),
                "adam_step": torch.zeros((), dtype=torch.float32, device=A.device),
            }  # fmt: skip
        self._tile_rows = max(1, TILE_ELEMENTS[A.device.type] // max(1, self._rank))
        size = min(self._tile_rows, n_words), self._rank
        self._scratch, self._rows_of_average = (A.new_empty(size) for _ in range(2))
        self._taken = A.new_empty(0, self._rank)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Everything that the next step depends on: tensors (not copied) and numbers."""
        return dict(self._state), {"steps": self.steps, "log_decay": self._log_decay}

    def load(self, tensors: dict[str, torch.Tensor], numbers: dict[str, float]) -> None:
        """Continue from a ``state`` of an optimizer of the same shapes."""
        for name, tensor in self._state.items():
            tensor.copy_(tensors[name])
        self.steps, self._log_decay = int(numbers["steps"]), float(numbers["log_decay"])

    def change(self, *, l1: float, learning_rate: float) -> None:
        """Go on with another L1 strength and rate, and average anew; settle first."""
        self.l1 = l1 / len(self.A)
        self._rate = min(learning_rate, LARGEST_RATE)
        self._averaged_since = self.steps
        for name in ("A", "b", "B"):
            if name in self._state:
                self._state[f"average_{name}"].copy_(self._state[name])

    def take(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of A and entries of b of some words, in memory that the next call reuses."""
        if len(self._taken) < len(words):
            self._taken = self.A.new_empty(len(words) * 5 // 4, self._rank)
        A = self._taken[: len(words)]
        torch.index_select(self.A, 0, words, out=A)
        return A, self.b.index_select(0, words)

    @torch.no_grad()
    def step(
        self,
        grad_A: torch.Tensor,
        grad_b: torch.Tensor,
        grad_B: torch.Tensor | None,
        words: torch.Tensor | None = None,
    ) -> None:
        """One step on all words, or on ``words``, whose rows the last ``take`` gave."""
        self.steps += 1
        warm = min(1.0, self.steps / WARM_UP_STEPS)
        averaged = self.steps - self._averaged_since
        decay = min(AVERAGE_DECAY, (1 + averaged) / (10 + averaged))
        before, self._log_decay = self._log_decay, self._log_decay + math.log(decay)
        correction = 1.0 - BETA2**self.steps
        state = self._state
        missed = None if words is None else self.steps - state["touched"].index_select(0, words) - 1
        elapsed: torch.Tensor | float
        for rows in self._tiles(len(grad_A)):
            gradient = grad_A[rows]
            mean_square = torch.linalg.vector_norm(gradient, dim=1).square_().div_(self._rank)
            if words is None or missed is None:
                a, average = self.A[rows], state["average_A"][rows]
                square, elapsed = state["square_A"][rows], 1.0
                square.lerp_(mean_square, 1 - BETA2)
            else:
                picked, lag = words[rows], missed[rows].to(grad_A.dtype)
                a, elapsed = self._taken[rows], lag[:, None] + 1
                square = state["square_A"].index_select(0, picked)
                square.mul_(BETA2 ** (lag + 1)).add_(mean_square, alpha=1 - BETA2)
                average = self._rows_of_average[: len(picked)]
                torch.index_select(state["average_A"], 0, picked, out=average)
                average.lerp_(a, self._catch_up_weight(picked, before)[:, None])
            metric = self._metric(square, warm, correction)
            a.addcmul_(gradient, metric, value=-1)
            penalty_step_(a, metric * elapsed, l1=self.l1, l2=self.l2, work=self._scratch[: len(a)])
            average.lerp_(a, 1 - decay)
            if words is not None:
                self.A.index_copy_(0, picked, a)
                state["square_A"].index_copy_(0, picked, square)
                state["average_A"].index_copy_(0, picked, average)
        self._step_bias(grad_b, words, missed, before, decay, warm, correction)
        if grad_B is not None:
            self._step_projection(grad_B, decay, warm)
        if words is None:
            state["touched"].fill_(self.steps)
            state["averaged"].fill_(self._log_decay)
        else:
            state["touched"].index_fill_(0, words, self.steps)
            state["averaged"].index_fill_(0, words, self._log_decay)

    def _tiles(self, n: int) -> Iterator[slice]:
        for first in range(0, n, self._tile_rows):
            yield slice(first, min(first + self._tile_rows, n))

    def _metric(self, square: torch.Tensor, warm: float, correction: float) -> torch.Tensor:
        """Step sizes (rows, 1) of rows of A.

        A word that no gradient has reached has no scale yet: its step is 0, not rate / eps, at which a
        penalty would wipe out what an earlier fit or the closed form knows of it.
        """
        scale = square.div(correction).sqrt_().add_(EPS)
        metric = (self._rate * warm / math.sqrt(self._rank)) / scale
        return metric.masked_fill_(square == 0, 0.0)[:, None]

    def _catch_up_weight(self, words: torch.Tensor | slice, until: float) -> torch.Tensor:
        """Weight with which a value enters its average after standing still until ``until``."""
        averaged = self._state["averaged"][words]
        return (1 - (until - averaged).exp()).to(self.A.dtype)

    def _step_bias(
        self,
        gradient: torch.Tensor,
        words: torch.Tensor | None,
        missed: torch.Tensor | None,
        before: float,
        decay: float,
        warm: float,
        correction: float,
    ) -> None:
        state = self._state
        b, average, square = state["b"], state["average_b"], state["square_b"]
        if words is not None and missed is not None:
            b, average, square = (t.index_select(0, words) for t in (b, average, square))
            average.lerp_(b, self._catch_up_weight(words, before))
            square.mul_(BETA2 ** missed.to(square.dtype))
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        rate = self._rate * BIAS_RATE * warm
        b.addcdiv_(gradient, square.div(correction).sqrt_().add_(EPS), value=-rate)
        average.lerp_(b, 1 - decay)
        if words is not None:
            for name, part in (("b", b), ("average_b", average), ("square_b", square)):
                state[name].index_copy_(0, words, part)

    def _step_projection(self, gradient: torch.Tensor, decay: float, warm: float) -> None:
        """Adam (Kingma and Ba 2015) along the spheres of B~'s rows.

        The function, not the class: constructing ``torch.optim.Adam`` imports torch's compiler, which
        takes every new process seconds.
        """
        state = self._state
        B = state["B"]
        # Only the part of the gradient along the sphere counts.
        gradient.sub_((gradient * B).sum(dim=1, keepdim=True) * B)
        adam(
            [B], [gradient], [state["first_B"]], [state["second_B"]], [], [state["adam_step"]],
            fused=True, amsgrad=False, beta1=BETA1, beta2=BETA2,
            lr=self._rate * B_RATE * warm / math.sqrt(B.shape[0]),
            weight_decay=0.0, eps=EPS, maximize=False,
        )  # fmt: skip
        normalize_rows_(B)
        state["average_B"].lerp_(B, 1 - decay)

    @torch.no_grad()
    def settle(self) -> None:
        """Make up, for every word, what it missed since its last step."""
        state = self._state
        correction = 1.0 - BETA2 ** max(1, self.steps)
        for rows in self._tiles(len(self.A)):
            a, lag = self.A[rows], (self.steps - state["touched"][rows]).to(self.A.dtype)
            weight = self._catch_up_weight(rows, self._log_decay)
            state["average_A"][rows].lerp_(a, weight[:, None])
            state["average_b"][rows].lerp_(self.b[rows], weight)
            for name in ("square_A", "square_b"):
                state[name][rows].mul_(BETA2**lag)
            metric = self._metric(state["square_A"][rows], 1.0, correction).mul_(lag[:, None])
            penalty_step_(a, metric, l1=self.l1, l2=self.l2, work=self._scratch[: len(a)])
        state["touched"].fill_(self.steps)
        state["averaged"].fill_(self._log_decay)

    def averaged(self) -> Parameters:
        """The averages, pinned, with the exact zeros of the last iterate's A; settle first.

        An average of iterates that are zero now and then is never zero; the support is the proximal
        iterate's, the values are the average's.
        """
        state = self._state
        A, b = state["average_A"].clone(), state["average_b"].clone()
        if self.l1:
            A.masked_fill_(self.A == 0, 0.0)
        if self.B is None:
            return Parameters(A, None, b)
        B = state["average_B"].clone()
        A *= normalize_rows_(B).T
        return Parameters(A, B, b)

    def penalty(self, A: torch.Tensor) -> float:
        """The penalty terms of J at A."""
        value = 0.0
        for rows in self._tiles(len(A)):
            if self.l1:
                value += self.l1 * float(A[rows].abs().sum(dtype=torch.float64))
            if self.l2:
                value += 0.5 * self.l2 * float(A[rows].square().sum(dtype=torch.float64))
        return value


def normalize_rows_(B: torch.Tensor) -> torch.Tensor:
    """Scale rows to unit norm in place; returns the former norms (r, 1). A zero row stays zero."""
    norms: torch.Tensor = torch.linalg.vector_norm(B, dim=1, keepdim=True)
    B.div_(norms.clamp_min(torch.finfo(B.dtype).tiny))
    return norms

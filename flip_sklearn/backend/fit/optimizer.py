"""The optimizer: one step on A, b and B~, the unit norm of B~'s rows, and the average of the iterates.

A row a_j of A belongs to one word, and word frequencies differ by orders of magnitude, so each row has its
own step size s_j, from the running mean square v_j of its gradient g_j (V numbers; Adam keeps V r):

    v_j <- beta2 v_j + (1 - beta2) |g_j|^2 / r,         s_j = rate / (sqrt(v_j / (1 - beta2^t)) + eps),
    a_j <- prox of the penalty in the metric s_j of  a_j - s_j g_j.

With features of the words (``word_prior.py``), the squared penalty is (l2/2) |a_j - m_j|^2 with the mean
m_j = E_j G: its step is that of (l2/2) |a_j|^2 after  a_j - s_j (g_j - l2 m_j).

There is no momentum; averaging the iterates takes its place. A word without a gradient therefore does not
move, and a step need only touch the words of its batch. What a word misses in the meantime (the decay of
v_j, the shrinkage by the penalty, its share of the average) has a closed form in the number of missed steps.
It is applied when the word is touched next, or by ``flush_lazy_updates``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.optim.adam import adam

from flip_sklearn.backend.device import rows_of, slices
from flip_sklearn.backend.fit.fused import FusedUpdates, fused_updates
from flip_sklearn.backend.fit.penalty import penalty_step_
from flip_sklearn.backend.fit.word_prior import WordPrior

BETA1, BETA2, EPS = 0.9, 0.999, 1e-10
AVERAGE_DECAY = 0.99
WARM_UP_STEPS = 20
# Rates of B~ and b relative to `learning_rate`. The rates of A and B~ are also divided by sqrt(r): a
# step on all entries of a row of A changes its scores by about sqrt(r) times the step of one entry.
# The smaller r is, the more B~'s rate matters: docs/solver.md has measurements.
B_RATE, BIAS_RATE = 0.2, 0.02
# Training diverges at once beyond this rate, and float32 could not represent much larger factors.
MAX_RATE = 1e30
# Elements in one tile of rows: on a CPU, the elementwise operations on a tile stay in cache.
TILE_ELEMENTS = {"cpu": 2**18, "cuda": 2**27}


class Parameters(NamedTuple):
    """A (V, r), B~ (r, d) with rows of unit norm (None for LiP, where it is the identity), b (V,)."""

    A: torch.Tensor
    B: torch.Tensor | None
    b: torch.Tensor


@dataclass(frozen=True)
class GatheredRows:
    """Copies of the rows of A of distinct words, and of the numbers that the optimizer keeps for each."""

    words: torch.Tensor  # (S,) int64
    A: torch.Tensor  # (S, r)
    numbers: torch.Tensor  # (4, S): b, the average of b, v of A, v of b
    unbound: tuple[torch.Tensor, ...]  # the four rows of ``numbers``, as views

    @property
    def b(self) -> torch.Tensor:
        """Entries of b, (S,)."""
        return self.unbound[0]


class Optimizer:
    """Parameters, step sizes and running averages of one fit.

    The caller computes the gradients of the likelihood part of J at ``A``, ``b``, ``B`` (or at the rows that
    ``gather`` returns) and passes them to ``step``, which adds the penalties. With a ``prior``, the squared
    one is that of A - E G, with G as it is during a pass.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        l1: float,
        l2: float,
        learning_rate: float,
        prior: WordPrior | None = None,
    ) -> None:
        self.A, self.B, b = A, B, _ = parameters
        n_words, self._rank = A.shape
        self.l1, self.l2 = l1 / n_words, l2 / n_words
        self.prior = prior
        self._rate = min(learning_rate, MAX_RATE)
        self.steps = 0
        self._log_decay = 0.0  # sum of log(decay of the averages) over the steps
        self._average_start = 0  # the averages are over the steps after this one
        self._all_touched = False  # by the last step; "touched" and "averaged" are then written when needed
        # One matrix, so that the numbers of some words are gathered and scattered at once.
        self._numbers = torch.stack([b, b, torch.zeros_like(b), torch.zeros_like(b)])
        self.b, average_b, square_A, square_b = self._numbers.unbind()
        self._state = {
            "A": A,
            "b": self.b,
            "average_A": A.clone(),
            "average_b": average_b,
            "square_A": square_A,
            "square_b": square_b,
            # Per word: the step that touched it last, and _log_decay after that step.
            "touched": torch.zeros(n_words, dtype=torch.int64, device=A.device),
            "averaged": torch.zeros(n_words, dtype=torch.float64, device=A.device),
        }
        if B is not None:
            self._state |= {
                "B": B,
                "average_B": B.clone(),
                "first_B": torch.zeros_like(B),
                "second_B": torch.zeros_like(B),
                "adam_step": torch.zeros((), dtype=torch.float32, device=A.device),
            }
        self._fused = fused_updates(A.device)
        self._nothing = torch.zeros(1, dtype=A.dtype, device=A.device)
        self._tile_rows = max(1, TILE_ELEMENTS[A.device.type] // max(1, self._rank))
        size = min(self._tile_rows, n_words) if A.device.type == "cpu" else 0, self._rank
        self._scratch, self._average_buffer = A.new_empty(size), A.new_empty(size)
        self._gather_buffer = A.new_empty(0, self._rank)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Return everything that the next step depends on: tensors (not copied) and numbers."""
        self._write_touched()
        tensors = dict(self._state)
        if self.prior is not None:
            tensors["word_map"] = self.prior.G
        return tensors, {"steps": self.steps, "log_decay": self._log_decay}

    def load(self, tensors: dict[str, torch.Tensor], numbers: dict[str, float]) -> None:
        """Continue from the ``state`` of an optimizer of the same shapes."""
        for name, tensor in self._state.items():
            tensor.copy_(tensors[name])
        self.steps, self._log_decay = int(numbers["steps"]), float(numbers["log_decay"])
        self._all_touched = False
        if self.prior is not None:
            self.prior.set_map(tensors["word_map"].to(self.prior.G, copy=True))

    def set_strength_and_rate(self, *, l1: float, learning_rate: float) -> None:
        """Set the L1 strength and the learning rate, and restart the averages.

        Call ``flush_lazy_updates`` first.
        """
        self.l1 = l1 / len(self.A)
        self._rate = min(learning_rate, MAX_RATE)
        self._average_start = self.steps
        for name in ("A", "b", "B"):
            if name in self._state:
                self._state[f"average_{name}"].copy_(self._state[name])

    def gather(self, words: torch.Tensor) -> GatheredRows:
        """Copy the rows of A and the entries of b of distinct words.

        The next call reuses the memory of the rows of A.
        """
        if self.A.device.type == "cpu":
            if len(self._gather_buffer) < len(words):
                self._gather_buffer = self.A.new_empty(len(words) * 5 // 4, self._rank)
            A = torch.index_select(self.A, 0, words, out=self._gather_buffer[: len(words)])
        else:  # whose allocator reuses memory without a call of the system
            A = self.A.index_select(0, words)
        numbers = self._numbers.index_select(1, words)
        return GatheredRows(words, A, numbers, numbers.unbind())

    @torch.no_grad()
    def step(
        self,
        grad_A: torch.Tensor,
        grad_b: torch.Tensor,
        grad_B: torch.Tensor | None,
        rows: GatheredRows | None = None,
    ) -> None:
        """Take one step on all words, or on the words of ``rows``, which are overwritten."""
        if rows is not None:
            self._write_touched()
        self.steps += 1
        n_averaged = self.steps - self._average_start
        decay = min(AVERAGE_DECAY, (1 + n_averaged) / (10 + n_averaged))
        warm_up = min(1.0, self.steps / WARM_UP_STEPS)
        if self._fused is not None:
            self._fused_step(self._fused, rows, grad_A, grad_b, warm_up, decay)
        elif rows is None:
            self._step_all_words(grad_A, grad_b, warm_up, decay)
        else:
            self._step_gathered_words(rows, grad_A, grad_b, warm_up, decay)
        if grad_B is not None:
            self._step_projection(grad_B, warm_up, decay)
        self._log_decay += math.log(decay)

    def _step_all_words(
        self, grad_A: torch.Tensor, grad_b: torch.Tensor, warm_up: float, decay: float
    ) -> None:
        state = self._state
        for tile in self._tiles(len(grad_A)):
            a, gradient = rows_of(self.A, tile), rows_of(grad_A, tile)
            square = rows_of(state["square_A"], tile)
            square.lerp_(self._mean_square(gradient), 1 - BETA2)
            metric = self._metric(square, warm_up)
            if self.prior is not None:
                gradient.sub_(rows_of(self.prior.mean, tile), alpha=self.l2)
            a.addcmul_(gradient, metric, value=-1)
            self._penalty_step(a, metric)
            rows_of(state["average_A"], tile).lerp_(a, 1 - decay)
        self._step_bias(self.b, state["average_b"], state["square_b"], grad_b, warm_up, decay)
        self._all_touched = True

    def _step_gathered_words(
        self, rows: GatheredRows, grad_A: torch.Tensor, grad_b: torch.Tensor, warm_up: float, decay: float
    ) -> None:
        """Apply to each word what it missed since it was touched last, then the step."""
        state = self._state
        b, average_b, square_A, square_b = rows.unbound
        lags = (self.steps - 1 - state["touched"].index_select(0, rows.words)).to(grad_A.dtype)
        catch_up = self._catch_up_weight(state["averaged"].index_select(0, rows.words))
        due = lags + 1
        square_A.mul_(BETA2**due)
        square_b.mul_(BETA2**lags)
        for tile in self._tiles(len(grad_A)):
            words, a, gradient = rows_of(rows.words, tile), rows_of(rows.A, tile), rows_of(grad_A, tile)
            square = rows_of(square_A, tile).add_(self._mean_square(gradient), alpha=1 - BETA2)
            average = self._gathered_average(words)
            average.lerp_(a, rows_of(catch_up, tile)[:, None])
            metric = self._metric(square, warm_up)
            if self.prior is not None:
                mean = self.prior.mean.index_select(0, words)
                gradient.addcmul_(mean, rows_of(due, tile)[:, None], value=-self.l2)
            a.addcmul_(gradient, metric, value=-1)
            self._penalty_step(a, metric * rows_of(due, tile)[:, None])
            average.lerp_(a, 1 - decay)
            self.A.index_copy_(0, words, a)
            state["average_A"].index_copy_(0, words, average)
        average_b.lerp_(b, catch_up)
        self._step_bias(b, average_b, square_b, grad_b, warm_up, decay)
        self._scatter_numbers(rows.words, rows.numbers, decay)

    def _fused_step(
        self,
        fused: FusedUpdates,
        rows: GatheredRows | None,
        grad_A: torch.Tensor,
        grad_b: torch.Tensor,
        warm_up: float,
        decay: float,
    ) -> None:
        """The step on all words or on gathered words in three kernels; a kernel cannot write in place."""
        state, a = self._state, self.A
        skipped, catch_up, average_A = self._nothing, self._nothing, state["average_A"]
        if rows is not None:
            a = rows.A
            skipped = (self.steps - 1 - state["touched"].index_select(0, rows.words)).to(grad_A.dtype)
            catch_up = self._catch_up_weight(state["averaged"].index_select(0, rows.words))
            average_A = average_A.index_select(0, rows.words)
        numbers = self._numbers if rows is None else rows.numbers
        b, average_b, square_A, square_b = numbers.unbind()
        square = {
            "keep": BETA2, "add": 1.0 - BETA2, "correction": 1.0 - BETA2**self.steps, "eps": EPS,
        }  # fmt: skip
        norms, rate = torch.linalg.vector_norm(grad_A, dim=1), self._rate * warm_up
        square_A, sizes, penalty_sizes = fused.step_sizes(
            square_A, norms, skipped, scale=1.0 / self._rank, rate=rate / math.sqrt(self._rank), **square
        )
        if self.prior is not None:
            mean = self.prior.mean if rows is None else self.prior.mean.index_select(0, rows.words)
            grad_A.addcmul_(mean, (skipped + 1)[:, None], value=-self.l2)
        columns = (numbers_of_row[:, None] for numbers_of_row in (sizes, penalty_sizes, catch_up))
        a, average_A = fused.update_rows(
            a, grad_A, average_A, *columns, l1=self.l1, l2=self.l2, weight=1.0 - decay
        )
        b, average_b, square_b = fused.update_bias(
            b, grad_b, average_b, square_b, skipped, catch_up,
            rate=rate * BIAS_RATE, weight=1.0 - decay, **square,
        )  # fmt: skip
        numbers = torch.stack([b, average_b, square_A, square_b], out=numbers)
        if rows is None:
            self.A = state["A"] = a
            state["average_A"] = average_A
            self._all_touched = True
        else:
            self.A.index_copy_(0, rows.words, a)
            state["average_A"].index_copy_(0, rows.words, average_A)
            self._scatter_numbers(rows.words, numbers, decay)

    def _scatter_numbers(self, words: torch.Tensor, numbers: torch.Tensor, decay: float) -> None:
        """Write back the numbers of words after a step on them."""
        self._numbers.index_copy_(1, words, numbers)
        self._state["touched"].index_fill_(0, words, self.steps)
        self._state["averaged"].index_fill_(0, words, self._log_decay + math.log(decay))

    def _gathered_average(self, words: torch.Tensor) -> torch.Tensor:
        """Copy the averages of rows of A; the next call reuses the memory."""
        if self.A.device.type != "cpu":
            return self._state["average_A"].index_select(0, words)
        buffer = self._average_buffer[: len(words)]
        return torch.index_select(self._state["average_A"], 0, words, out=buffer)

    def _write_touched(self) -> None:
        """Record the last step for every word, if that step was on all words."""
        if self._all_touched:
            self._state["touched"].fill_(self.steps)
            self._state["averaged"].fill_(self._log_decay)
            self._all_touched = False

    def _tiles(self, n_rows: int) -> Iterator[slice]:
        return slices(n_rows, self._tile_rows)

    def _mean_square(self, gradient: torch.Tensor) -> torch.Tensor:
        """|g_j|^2 / r of each row."""
        norms: torch.Tensor = torch.linalg.vector_norm(gradient, dim=1)
        return norms.square_().div_(self._rank)

    def _unbiased_root(self, square: torch.Tensor) -> torch.Tensor:
        """sqrt(v / (1 - beta2^t)) + eps for each v of ``square``."""
        return square.div(1.0 - BETA2 ** max(1, self.steps)).sqrt_().add_(EPS)

    def _metric(self, square: torch.Tensor, warm_up: float) -> torch.Tensor:
        """Step sizes s_j (rows, 1) of rows of A, from their v_j.

        A word that has had no gradient yet has no scale, so its step size is 0. With rate / eps, the penalty
        would erase the row that an earlier fit or the closed form has given it.
        """
        metric = (self._rate * warm_up / math.sqrt(self._rank)) / self._unbiased_root(square)
        return metric.masked_fill_(square == 0, 0.0)[:, None]

    def _catch_up_weight(self, averaged: torch.Tensor) -> torch.Tensor:
        """Return the weight of the current value in its average after the steps that skipped some words.

        ``averaged`` is _log_decay after the last step on each of them.
        """
        return (1 - (self._log_decay - averaged).exp()).to(self.A.dtype)

    def _penalty_step(self, a: torch.Tensor, metric: torch.Tensor) -> None:
        """Take the proximal step of the penalty on one tile of rows of A, in place."""
        scratch = self._scratch[: len(a)] if self.A.device.type == "cpu" else None
        penalty_step_(a, metric, l1=self.l1, l2=self.l2, scratch=scratch)

    def _step_bias(
        self,
        b: torch.Tensor,
        average: torch.Tensor,
        square: torch.Tensor,
        gradient: torch.Tensor,
        warm_up: float,
        decay: float,
    ) -> None:
        """Step on entries of b, in place, with one step size for each."""
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        b.addcdiv_(gradient, self._unbiased_root(square), value=-(self._rate * BIAS_RATE * warm_up))
        average.lerp_(b, 1 - decay)

    def _step_projection(self, gradient: torch.Tensor, warm_up: float, decay: float) -> None:
        """Step on B~ by Adam (Kingma and Ba 2015) along the unit spheres of its rows.

        It calls the function ``adam``: constructing ``torch.optim.Adam`` imports torch's compiler, which
        costs seconds in every new process.
        """
        state = self._state
        B = state["B"]
        # Only the part of the gradient along the sphere counts.
        gradient.sub_((gradient * B).sum(dim=1, keepdim=True) * B)
        adam(
            [B],
            [gradient],
            [state["first_B"]],
            [state["second_B"]],
            [],
            [state["adam_step"]],
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=self._rate * B_RATE * warm_up / math.sqrt(B.shape[0]),
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )
        normalize_rows_(B)
        state["average_B"].lerp_(B, 1 - decay)

    @torch.no_grad()
    def flush_lazy_updates(self) -> None:
        """Apply to every word what it missed since it was touched last."""
        state = self._state
        if self._all_touched:  # in every step, so no word has missed anything
            self._write_touched()
            return
        for tile in self._tiles(len(self.A)):
            a, missed = self.A[tile], (self.steps - state["touched"][tile]).to(self.A.dtype)
            weight = self._catch_up_weight(state["averaged"][tile])
            state["average_A"][tile].lerp_(a, weight[:, None])
            state["average_b"][tile].lerp_(self.b[tile], weight)
            for name in ("square_A", "square_b"):
                state[name][tile].mul_(BETA2**missed)
            metric = self._metric(state["square_A"][tile], 1.0).mul_(missed[:, None])
            if self.prior is not None:
                a.addcmul_(self.prior.mean[tile], metric, value=self.l2)
            self._penalty_step(a, metric)
        state["touched"].fill_(self.steps)
        state["averaged"].fill_(self._log_decay)

    def averaged(self) -> Parameters:
        """Return the averages, with B~'s rows of unit norm and the exact zeros of the last iterate's A.

        An average of iterates that are zero only now and then is never zero, so the support is taken from the
        last iterate. Call ``flush_lazy_updates`` first.
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

    def penalty(self, A: torch.Tensor) -> torch.Tensor:
        """Compute the penalty terms of J at A, as a float64 scalar tensor."""
        value = torch.zeros((), dtype=torch.float64, device=A.device)
        for tile in self._tiles(len(A)):
            if self.l1:
                value += self.l1 * A[tile].abs().sum(dtype=torch.float64)
            if self.l2 and self.prior is None:
                value += 0.5 * self.l2 * A[tile].square().sum(dtype=torch.float64)
        if self.prior is not None:
            value += 0.5 * self.l2 * self.prior.penalty(A)
        return value


def normalize_rows_(B: torch.Tensor) -> torch.Tensor:
    """Scale rows to unit norm in place and return their former norms (r, 1). Zero rows stay zero."""
    norms: torch.Tensor = torch.linalg.vector_norm(B, dim=1, keepdim=True)
    B.div_(norms.clamp_min(torch.finfo(B.dtype).tiny))
    return norms

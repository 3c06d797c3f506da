"""One step: Adam, the proximal L1 step in Adam's metric, the pin of B~'s rows, the running average."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.optim.adam import adam

from flip_sklearn.backend.proximal import AdamProximalStep

BETA1, BETA2, EPS = 0.9, 0.999, 1e-10
AVERAGE_DECAY = 0.99
WARM_UP_STEPS = 20
# Step sizes relative to `learning_rate`: a step on all entries of a row of A moves its scores by about
# sqrt(r) times the entry step, hence A's 1 / sqrt(r) (and B~'s 1 / sqrt(d), its entries' own size). B~
# and b were best when slower: docs/solver.md has the table.
B_RATE, BIAS_RATE = 0.2, 0.02


class Parameters(NamedTuple):
    """A (V, r), B~ (r, d) with rows of unit norm (None for LiP, where it is the identity), b (V,)."""

    A: torch.Tensor
    B: torch.Tensor | None
    b: torch.Tensor


class _Slot:
    """One parameter with its gradient, step size, Adam moments and running average."""

    def __init__(self, value: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
        self.value, self.gradient, self.rate = value, gradient, rate
        self.first_moment, self.second_moment = torch.zeros_like(value), torch.zeros_like(value)
        self.average = value.clone()
        self._step = torch.zeros((), dtype=torch.float32, device=value.device)

    def adam_step(self, factor: float) -> None:
        """Adam (Kingma and Ba 2015) in one fused kernel, at ``factor`` times the rate.

        The function, not the class: constructing ``torch.optim.Adam`` imports torch's compiler, which
        takes every new process seconds.
        """
        adam(
            [self.value],
            [self.gradient],
            [self.first_moment],
            [self.second_moment],
            [],
            [self._step],
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=self.rate * factor,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )


class Optimizer:
    """Parameters, their gradients, Adam's moments and the running average of one fit.

    The caller writes J's likelihood gradients into ``grad_A``, ``grad_b`` and ``grad_B`` and calls
    ``step``. Penalties are added here: L2 to the gradient, L1 as a proximal step.
    """

    def __init__(
        self, parameters: Parameters, *, l1: float, l2: float, learning_rate: float
    ) -> None:
        A, B, b = self.A, self.B, self.b = parameters
        n_words, rank = A.shape
        self.l1, self.l2 = l1 / n_words, l2 / n_words
        self.grad_A, self.grad_b = torch.zeros_like(A), torch.zeros_like(b)
        self.grad_B = None if B is None else torch.zeros_like(B)
        self._slots = [
            _Slot(A, self.grad_A, learning_rate / math.sqrt(rank)),
            _Slot(b, self.grad_b, learning_rate * BIAS_RATE),
        ]
        if B is not None and self.grad_B is not None:
            self._slots.append(
                _Slot(B, self.grad_B, learning_rate * B_RATE / math.sqrt(B.shape[1]))
            )
        self._shrink = AdamProximalStep(A, l1=self.l1, beta2=BETA2, eps=EPS) if l1 else None
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """One Adam step on the gradients in place, proximal step, pin, average."""
        self._steps += 1
        warm = min(1.0, self._steps / WARM_UP_STEPS)
        if self.l2:
            self.grad_A.add_(self.A, alpha=self.l2)
        if self.B is not None and self.grad_B is not None:
            # B~ lives on spheres: only the part of the gradient along them counts.
            radial = (self.grad_B * self.B).sum(dim=1, keepdim=True)
            self.grad_B.sub_(radial * self.B)
        for slot in self._slots:
            slot.adam_step(warm)
        if self._shrink is not None:
            self._shrink(self._slots[0].second_moment, self._slots[0].rate * warm, self._steps)
        if self.B is not None:
            normalize_rows_(self.B)
        decay = min(AVERAGE_DECAY, (1 + self._steps) / (10 + self._steps))
        for slot in self._slots:
            slot.average.lerp_(slot.value, 1 - decay)

    def averaged(self) -> Parameters:
        """The averages, pinned, with the exact zeros of the last iterate's A.

        An average of iterates that are zero now and then is never zero; the support is the proximal
        iterate's, the values are the average's.
        """
        A, b = self._slots[0].average.clone(), self._slots[1].average.clone()
        if self._shrink is not None:
            A.masked_fill_(self.A == 0, 0.0)
        if self.B is None:
            return Parameters(A, None, b)
        B = self._slots[2].average.clone()
        A *= normalize_rows_(B).T
        return Parameters(A, B, b)

    def penalty(self, A: torch.Tensor) -> float:
        """The penalty terms of J at A."""
        value = 0.0
        if self.l1:
            value += self.l1 * float(A.abs().sum(dtype=torch.float64))
        if self.l2:
            value += 0.5 * self.l2 * float(A.square().sum(dtype=torch.float64))
        return value


def normalize_rows_(B: torch.Tensor) -> torch.Tensor:
    """Scale rows to unit norm in place; returns the former norms (r, 1). A zero row stays zero."""
    norms: torch.Tensor = torch.linalg.vector_norm(B, dim=1, keepdim=True)
    B.div_(norms.clamp_min(torch.finfo(B.dtype).tiny))
    return norms

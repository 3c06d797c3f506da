"""L-BFGS on J, exactly: for fits that shall reach the optimum.

The variables are A, b and C, whose rows scaled to unit norm are those of B~, so that the norm needs no
constraint. A step goes along d = -M g with the gradient g and the matrix M of the limited-memory BFGS update
(Nocedal and Wright 2006, algorithm 7.4) of the last PAIRS steps, which begins with the inverse Hessian of
``preconditioner.py``. With an L1 penalty it is the orthant-wise method (Andrew and Gao 2007): g is the
pseudo-gradient of J, directions and steps stay in the orthant of A in which J is differentiable, and
entries of A that would cross zero become exactly zero.

The start is a few stochastic passes, after which b is refitted: they are the fastest way to about a percent
of J. A step is taken if J falls (Armijo), or near the optimum, where J changes by less than its rounding, if
the slope says so (Hager and Zhang 2005).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from flip_sklearn.backend.fit.data import WhitenedDataset
from flip_sklearn.backend.fit.likelihood import Workspace
from flip_sklearn.backend.fit.objective import evaluate_smooth, sum_of_magnitudes
from flip_sklearn.backend.fit.optimality import largest_violation
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.preconditioner import Preconditioner
from flip_sklearn.backend.fit.word_prior import WordPrior

PAIRS = 10
# Iterations before which the preconditioner is computed at the current point.
REFRESH = (0, 3, 10, 30, 100, 300)
# Sufficient decrease, slope condition, and rounding of J in units of the format's epsilon.
ARMIJO, SLOPE, ROUNDING = 1e-4, 0.8, 10.0
MAX_TRIALS, BACKTRACK = 20, (0.1, 0.5)


@dataclass(frozen=True)
class Point:
    """The variables in one vector, J there, and the gradient of J without its L1 term."""

    x: torch.Tensor  # A, b and C
    value: float
    gradient: torch.Tensor
    residual: float  # the largest violation of the optimality conditions


class LBFGS:
    """Iterates of L-BFGS for the rows of ``data``; ``l1`` and ``l2`` are the strengths of J."""

    def __init__(
        self,
        data: WhitenedDataset,
        work: Workspace,
        start: Parameters,
        *,
        l1: float,
        l2: float,
        prior: WordPrior | None = None,
    ) -> None:
        self._data, self._work, self._l1, self._l2, self._prior = data, work, l1, l2, prior
        self._shapes = [tuple(p.shape) for p in (start.A, start.b, start.B) if p is not None]
        self._pairs: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=PAIRS)
        self._preconditioner: Preconditioner | None = None
        self._point: Point | None = None
        self.is_stuck = False  # no step lowers J any more
        self.start_at(start)

    @property
    def point(self) -> Point:
        """The current point."""
        if self._point is None:
            self._point = self._evaluate(self.x)
        return self._point

    def start_at(self, start: Parameters) -> None:
        """Forget all steps, and start at other parameters."""
        self.iterations, self.is_stuck = 0, False
        self._pairs.clear()
        self._point, self._preconditioner = None, None
        self.x = torch.cat([p.reshape(-1) for p in (start.A, start.b, start.B) if p is not None])
        self._x_of_preconditioner = self.x

    def parameters(self, x: torch.Tensor) -> Parameters:
        """A, B~ and b of a vector of variables; A and b are views."""
        A, b, C = self._split(x)
        return Parameters(A, None if C is None else C / torch.linalg.vector_norm(C, dim=1, keepdim=True), b)

    def step(self, after_rows: Callable[[int], None] | None = None) -> None:
        """Take one step; without one that lowers J, forget the pairs, and then set ``is_stuck``."""
        point = self.point
        if self.iterations in REFRESH:
            self._x_of_preconditioner, self._preconditioner = point.x, None
        gradient = self._pseudo_gradient(point)
        direction = self._direction(gradient)
        self._data.group.broadcast_(direction)  # another processor may round otherwise
        new = self._search(point, gradient, direction, after_rows)
        self.iterations += 1
        if new is None:
            self.is_stuck = not self._pairs
            self._pairs.clear()
            return
        s, y = new.x - point.x, new.gradient - point.gradient
        if float(torch.dot(s, y)) > 0:
            self._pairs.append((s, y))
        self._point, self.x = new, new.x

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Return everything that the next step depends on: tensors and numbers."""
        point = self.point
        # Copies, because tensors in one file must not share memory.
        tensors = {"x": point.x.clone(), "x_of_preconditioner": self._x_of_preconditioner.clone()}
        tensors["gradient"] = point.gradient
        for i, (s, y) in enumerate(self._pairs):
            tensors |= {f"s{i}": s, f"y{i}": y}
        numbers = {"iterations": self.iterations, "pairs": len(self._pairs), "is_stuck": int(self.is_stuck)}
        return tensors, {**numbers, "value": point.value, "residual": point.residual}

    def load(self, tensors: dict[str, torch.Tensor], numbers: dict[str, float]) -> None:
        """Continue from the ``state`` of the same fit; tensors are copied."""

        def copy(name: str) -> torch.Tensor:
            return tensors[name].to(self.x.device, self.x.dtype, copy=True)

        self.x, self._x_of_preconditioner = copy("x"), copy("x_of_preconditioner")
        self._point = Point(self.x, numbers["value"], copy("gradient"), numbers["residual"])
        self._preconditioner = None
        self.iterations, self.is_stuck = int(numbers["iterations"]), bool(numbers["is_stuck"])
        self._pairs.clear()
        self._pairs.extend((copy(f"s{i}"), copy(f"y{i}")) for i in range(int(numbers["pairs"])))

    def _split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """A, b and C as views of a vector."""
        parts = torch.split(x, [math.prod(shape) for shape in self._shapes])
        A, b, *C = (part.view(shape) for part, shape in zip(parts, self._shapes, strict=True))
        return A, b, C[0] if C else None

    def _evaluate(self, x: torch.Tensor, after_rows: Callable[[int], None] | None = None) -> Point:
        """J and its gradient: one pass over all rows."""
        parameters = self.parameters(x)
        exact = evaluate_smooth(
            self._data,
            parameters,
            self._l2,
            self._work,
            prior=self._prior,
            with_projection=True,
            after_rows=after_rows,
        )
        A, B, _ = parameters
        value = exact.smooth + self._l1 / len(A) * float(sum_of_magnitudes(A))
        residual = largest_violation(A, exact.grad_A, exact.grad_b, self._l1)
        parts = [exact.grad_A.reshape(-1), exact.grad_b]
        if B is not None and exact.grad_B is not None:
            _, _, C = self._split(x)
            norms = torch.linalg.vector_norm(C, dim=1, keepdim=True)
            grad_C = exact.grad_B - (exact.grad_B * B).sum(dim=1, keepdim=True) * B
            residual = max(residual, len(B) * float(grad_C.abs().amax()))
            parts.append((grad_C / norms).reshape(-1))
        return Point(x, value, torch.cat(parts), residual)

    def _pseudo_gradient(self, point: Point) -> torch.Tensor:
        """The gradient of J; where A_jk = 0, its one-sided derivative of least size."""
        gradient = point.gradient.clone()
        if self._l1:
            A, grad_A = self._split(point.x)[0], self._split(gradient)[0]
            bound = self._l1 / len(A)
            at_zero = grad_A - grad_A.clamp(-bound, bound)
            grad_A.copy_(torch.where(A == 0, at_zero, grad_A + bound * A.sign()))
        return gradient

    def _direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """-M g by the two-loop recursion; with L1, without the entries of A along which J does not fall."""
        if self._preconditioner is None:
            at = self.parameters(self._x_of_preconditioner)
            self._preconditioner = Preconditioner(self._data, at, self._l2, self._work)
        direction = gradient.neg()
        steps = []
        for s, y in reversed(self._pairs):
            curvature = torch.dot(s, y)
            coefficient = torch.dot(s, direction) / curvature
            direction.sub_(coefficient * y)
            steps.append((s, y, curvature, coefficient))
        self._preconditioner.apply(*self._split(direction))
        if self._pairs:
            s, y = self._pairs[-1]
            scaled = y.clone()
            self._preconditioner.apply(*self._split(scaled))
            direction.mul_(torch.dot(s, y) / torch.dot(y, scaled))
        for s, y, curvature, coefficient in reversed(steps):
            direction.add_((coefficient - torch.dot(y, direction) / curvature) * s)
        if self._l1:
            A, grad_A = self._split(direction)[0], self._split(gradient)[0]
            A.masked_fill_(A * grad_A >= 0, 0.0)
        return direction

    def _search(
        self,
        point: Point,
        gradient: torch.Tensor,
        direction: torch.Tensor,
        after_rows: Callable[[int], None] | None,
    ) -> Point | None:
        """A point along the direction with a lower J; None if there is none."""
        orthant = None
        if self._l1:
            A, grad_A = self._split(point.x)[0], self._split(gradient)[0]
            orthant = torch.where(A == 0, -grad_A.sign(), A.sign())
        noise = ROUNDING * torch.finfo(point.x.dtype).eps * abs(point.value)
        length = 1.0
        for _ in range(MAX_TRIALS):
            x = torch.add(point.x, direction, alpha=length)
            if orthant is not None:
                A = self._split(x)[0]
                A.masked_fill_(A * orthant <= 0, 0.0)
            step = x - point.x
            slope = float(torch.dot(gradient, step))
            if not slope < 0:
                return None
            new = self._evaluate(x, after_rows)
            change = new.value - point.value
            if change <= ARMIJO * slope:
                return new
            if change <= noise and self._slope(new, step, orthant) <= -SLOPE * slope:
                return new
            shrunk = BACKTRACK[0]
            if math.isfinite(change):
                shrunk = min(max(-slope / (2 * (change - slope)), BACKTRACK[0]), BACKTRACK[1])
            length *= shrunk
        return None

    def _slope(self, point: Point, step: torch.Tensor, orthant: torch.Tensor | None) -> float:
        """The derivative of J at a point along the step to it, within the orthant."""
        slope = float(torch.dot(point.gradient, step))
        if orthant is not None:
            slope += self._l1 / len(orthant) * float((self._split(step)[0] * orthant).sum())
        return slope

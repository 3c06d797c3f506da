"""The state of a running fit, and one pass over the rows that moves it on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from flip_sklearn.backend.fit.candidates import CandidateSampler
from flip_sklearn.backend.fit.checkpoint import Checkpoint, State
from flip_sklearn.backend.fit.data import WhitenedRows
from flip_sklearn.backend.fit.likelihood import Workspace, loss_and_gradients
from flip_sklearn.backend.fit.optimizer import Optimizer, Parameters

# The held-out loss falls fast when it falls by this many times `tol` (nats per word) in a pass.
FAST_FALL = 10.0


@dataclass(frozen=True)
class PassRecord:
    """What is known after one pass over the training rows."""

    loss: float  # J, its likelihood part averaged over the pass as it went
    validation_nll: float  # nats per word on the held-out rows; nan without any
    validation_accuracy: float  # keyword accuracy on the held-out rows; nan without any
    sparsity: float  # share of exact zeros in A
    seconds: float


class Run:
    """Everything that changes while training: what a checkpoint holds."""

    def __init__(
        self,
        parameters: Parameters,
        l1: float,
        l2: float,
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        self.optimizer = Optimizer(parameters, l1=l1, l2=l2, learning_rate=learning_rate)
        self.generator = generator
        self.history: list[PassRecord] = []
        self.kept: tuple[Parameters, int] | None = None  # the best average and its pass
        self.best, self.lowest_nll = -math.inf, math.inf
        self.without_progress = 0  # passes
        self.stopped = False
        # Within a pass: rows done, loss so far, seconds of earlier processes, the generator at its begin.
        self.position, self.loss, self.seconds = 0, 0.0, 0.0
        self.order_seed = generator.get_state()

    def record_pass(
        self, record: PassRecord, current: Parameters, stop_on: str | None, tol: float
    ) -> None:
        """A pass is done: keep its parameters if they are the best."""
        self.history.append(record)
        self.seconds = 0.0
        criterion = {
            None: -record.loss,
            "accuracy": record.validation_accuracy,
            "likelihood": -record.validation_nll,
        }[stop_on]
        # A held-out loss that falls fast is progress too: early on it does while the ranking stands.
        falling = record.validation_nll < self.lowest_nll - FAST_FALL * tol
        progress = criterion > self.best + tol or falling
        self.without_progress = 0 if progress else self.without_progress + 1
        # Without a held-out part the last parameters are kept: the loss of a pass lags behind them.
        if criterion > self.best or stop_on is None:
            self.kept = current, len(self.history)
        self.best = max(self.best, criterion)
        self.lowest_nll = min(self.lowest_nll, record.validation_nll)

    def state(self) -> State:
        """Tensors and numbers from which ``load`` goes on to the same result."""
        tensors, numbers = self.optimizer.state()
        tensors = {
            **tensors, "generator": self.generator.get_state(), "order_seed": self.order_seed,
        }  # fmt: skip
        if self.kept is not None:
            names = zip(("kept_A", "kept_B", "kept_b"), self.kept[0], strict=True)
            tensors |= {name: tensor for name, tensor in names if tensor is not None}
        about: dict[str, Any] = {
            "optimizer": numbers,
            "history": [asdict(record) for record in self.history],
            "kept_pass": 0 if self.kept is None else self.kept[1],
            "best": self.best,
            "lowest_nll": self.lowest_nll,
            "without_progress": self.without_progress,
            "stopped": self.stopped,
            "position": self.position,
            "loss": self.loss,
            "seconds": self.seconds,
        }
        return tensors, about

    def load(self, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        """Continue from a ``state`` of the same fit, whose tensors are copied."""
        self.optimizer.load(tensors, about["optimizer"])
        self.generator.set_state(tensors["generator"])
        self.order_seed = tensors["order_seed"].clone()
        self.history = [PassRecord(**record) for record in about["history"]]
        if about["kept_pass"]:
            like = self.optimizer.A
            kept = (tensors.get(name) for name in ("kept_A", "kept_B", "kept_b"))
            A, B, b = (None if t is None else t.to(like.device, copy=True) for t in kept)
            if A is not None and b is not None:
                self.kept = Parameters(A, B, b), int(about["kept_pass"])
        for name in ("best", "lowest_nll", "without_progress", "stopped", "position"):
            setattr(self, name, about[name])
        self.loss, self.seconds = about["loss"], about["seconds"]


def one_pass(
    run: Run,
    data: WhitenedRows,
    batch_size: int,
    words: float,
    work: Workspace,
    sampler: CandidateSampler | None,
    after_step: Callable[[int], None] | None,
    checkpoint: Checkpoint | None,
) -> float:
    """One shuffled pass of steps, from where the run stands; the mean loss per word on the way."""
    n, optimizer, group = len(data.rows), run.optimizer, data.group
    if run.position == 0:
        run.order_seed = run.generator.get_state()
        order = torch.randperm(n, generator=run.generator, device="cpu").numpy()
    else:
        again = torch.Generator(device="cpu")
        again.set_state(run.order_seed)
        order = torch.randperm(n, generator=again, device="cpu").numpy()
    total = torch.tensor(run.loss, dtype=torch.float64, device=data.compute.device)
    grad_A = torch.empty_like(optimizer.A) if sampler is None else optimizer.A.new_empty(0)
    began = time.perf_counter()
    while run.position < n:
        batch = order[run.position : run.position + batch_size]
        mine = group.local_rows(batch)
        latent, targets = data.batch(mine)
        h = latent if optimizer.B is None else latent @ optimizer.B.T
        grad_h = None if optimizer.B is None else torch.empty_like(h)
        A, b, chosen, own_offset = optimizer.A, optimizer.b, None, None
        if sampler is not None:
            on_host = group.is_single_process and data.compute.device.type == "cpu"
            of_batch = targets.col if on_host else data.rows.words(batch)
            candidates = sampler.draw(len(batch), of_batch, targets, run.generator)
            chosen, targets = candidates.words, candidates.targets
            A, b = optimizer.take(chosen)
            b -= candidates.log_inclusion
            own_offset = candidates.own_log_inclusion
            if len(grad_A) < len(A):
                grad_A = torch.empty(len(A) * 5 // 4, A.shape[1], dtype=A.dtype, device=A.device)
        step_A, step_b = grad_A[: len(A)], torch.empty_like(b)
        loss = loss_and_gradients(
            h, A, b, targets, data.compute, work,
            grad_A=step_A, grad_b=step_b, grad_h=grad_h,
            # n / m / W times the sum over a batch has the gradient of J as its mean over batches.
            scale=n / len(batch) / words,
            own_offset=own_offset,
        )  # fmt: skip
        step_B = None if grad_h is None else torch.mm(grad_h.T, latent)
        group.sum_(step_A, step_b, step_B, loss)
        total += loss
        optimizer.step(step_A, step_b, step_B, chosen)
        run.position += len(batch)
        if after_step is not None:
            after_step(run.position)
        if checkpoint is not None and run.position < n:
            checkpoint.save_if_due(partial(_mid_pass, run, total, began))
    optimizer.settle()
    run.position, run.loss = 0, 0.0
    return float(total) / words


def _mid_pass(run: Run, total: torch.Tensor, began: float) -> State:
    tensors, about = run.state()
    seconds = run.seconds + time.perf_counter() - began
    return tensors, {**about, "loss": float(total), "seconds": seconds}

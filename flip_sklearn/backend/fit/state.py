"""The state of a running fit, which is what a checkpoint holds: optimizer, history, best parameters."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from flip_sklearn.backend.fit.checkpoint import State
from flip_sklearn.backend.fit.early_stopping import EarlyStopping
from flip_sklearn.backend.fit.lbfgs import LBFGS
from flip_sklearn.backend.fit.optimizer import Optimizer, Parameters
from flip_sklearn.backend.fit.word_prior import WordPrior


@dataclass(frozen=True)
class SolverOptions:
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
    solver: str = "auto"  # "exact", "sampled", or the cheaper one; "lbfgs"
    report_kkt: bool = False  # whether to compute the KKT residual of the solution
    l2_without_features: float = math.nan  # in place of l2, if the features of the words are not used
    refit_bias: bool = False  # whether b is refitted to the counts, and a ranking offset is learned


@dataclass(frozen=True)
class PassRecord:
    """Measurements of one pass over the training rows."""

    loss: float  # J of the parameters after the pass; on many rows estimated on some of them
    training_loss: float  # its likelihood part is the mean over the steps of the pass
    validation_nll: float  # nats per word on the held-out rows; nan without held-out rows
    validation_accuracy: float  # keyword accuracy on the held-out rows; nan without held-out rows
    sparsity: float  # share of exact zeros in A
    seconds: float


class TrainingState:
    """Everything that changes during training: the content of a checkpoint."""

    def __init__(
        self,
        parameters: Parameters,
        options: SolverOptions,
        l1: float,
        l2: float,
        generator: torch.Generator,
        prior: WordPrior | None = None,
    ) -> None:
        self.optimizer = Optimizer(parameters, l1=l1, l2=l2, learning_rate=options.learning_rate, prior=prior)
        self.lbfgs: LBFGS | None = None  # takes the place of the optimizer after the first passes
        self.generator = generator
        self.history: list[PassRecord] = []
        self.best: tuple[Parameters, int] | None = None  # averaged parameters and their pass
        self.early_stopping = EarlyStopping(options)
        self.stopped = False
        # Within a pass: rows done, loss so far, time when it began, generator state at its start.
        self.rows_done, self.began = 0, time.perf_counter()
        self.loss = torch.zeros((), dtype=torch.float64, device=parameters.A.device)
        self.order_state = generator.get_state()

    def begin_pass(self, n: int) -> np.ndarray:
        """Begin or resume a pass over n rows; return their order."""
        generator = self.generator
        if self.rows_done == 0:
            self.began = time.perf_counter()
            self.loss.zero_()
            self.order_state = generator.get_state()
        else:
            generator = torch.Generator(device="cpu")
            generator.set_state(self.order_state)
        return torch.randperm(n, generator=generator, device="cpu").numpy()

    def record_pass(self, record: PassRecord, parameters: Parameters) -> None:
        """Add a finished pass to the history, and keep its parameters if they are the best so far."""
        self.history.append(record)
        is_best = self.early_stopping.update(record)
        # Near the optimum J rises and falls by its rounding, and the last iterate is the best.
        is_last = self.lbfgs is not None and self.early_stopping.stop_on is None
        if is_best or is_last:
            self.best = parameters, len(self.history)

    def to_checkpoint(self) -> State:
        """Tensors and numbers from which ``load`` continues to the same result."""
        tensors, numbers = self.optimizer.state() if self.lbfgs is None else self.lbfgs.state()
        tensors = {**tensors, "generator": self.generator.get_state(), "order_seed": self.order_state}
        if self.best is not None:
            names = zip(("kept_A", "kept_B", "kept_b"), self.best[0], strict=True)
            # Those of L-BFGS are views of one vector, and tensors in one file must not share memory.
            tensors |= {name: tensor.clone() for name, tensor in names if tensor is not None}
        metadata: dict[str, Any] = {
            "optimizer": numbers,
            "history": [asdict(record) for record in self.history],
            "kept_pass": 0 if self.best is None else self.best[1],
            "best": self.early_stopping.best_score,
            "lowest_nll": self.early_stopping.lowest_nll,
            "without_progress": self.early_stopping.passes_without_progress,
            "stopped": self.stopped,
            "position": self.rows_done,
            "loss": float(self.loss),
            "seconds": time.perf_counter() - self.began,
        }
        return tensors, metadata

    def load(self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        """Continue from ``to_checkpoint`` of the same fit; tensors are copied."""
        optimizer = self.optimizer if self.lbfgs is None else self.lbfgs
        optimizer.load(tensors, metadata["optimizer"])
        self.generator.set_state(tensors["generator"])
        self.order_state = tensors["order_seed"].clone()
        self.history = [PassRecord(**record) for record in metadata["history"]]
        if metadata["kept_pass"]:
            device = self.optimizer.A.device
            names = ("kept_A", "kept_B", "kept_b")
            kept = {name: tensors[name].to(device, copy=True) for name in names if name in tensors}
            best = Parameters(kept["kept_A"], kept.get("kept_B"), kept["kept_b"])
            self.best = best, int(metadata["kept_pass"])
        self.early_stopping.best_score = metadata["best"]
        self.early_stopping.lowest_nll = metadata["lowest_nll"]
        self.early_stopping.passes_without_progress = metadata["without_progress"]
        self.stopped = metadata["stopped"]
        self.rows_done = metadata["position"]
        self.loss.fill_(metadata["loss"])
        self.began = time.perf_counter() - metadata["seconds"]

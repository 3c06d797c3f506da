"""Components of the solver and their alternatives: accuracy and loss after each pass.

    python -m benchmarks.bench_variants                    # captions, 20,000 rows, rank 384
    python -m benchmarks.bench_variants --rank 128 --only "default" "Muon for B"

The training loop is written for readability, so no seconds are printed. Whitening, initialization, sampling,
gradients and scoring are those of the package; the step is written out here, as described by ``Variant``. The
row "default" does the same as ``FLiPExtractor``, which also checks this loop. Accuracy, accuracy without bias
and loss (nats per token) are those of the dev captions.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.data import DEFAULT_DATA, load_captions
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit.candidates import ClassSampler
from flip_sklearn.backend.fit.data import CountDataset
from flip_sklearn.backend.fit.initialization import log_frequencies
from flip_sklearn.backend.fit.likelihood import Gradients, SoftmaxLayer, loss_and_gradients
from flip_sklearn.backend.fit.optimizer import (
    AVERAGE_DECAY,
    B_RATE,
    BETA2,
    BIAS_RATE,
    EPS,
    Parameters,
    normalize_rows_,
)
from flip_sklearn.backend.fit.session import Session
from flip_sklearn.backend.fit.solver import evaluate
from flip_sklearn.backend.fit.state import SolverOptions

LEARNING_RATE = 0.05
BETA1_B = 0.9
WARM_UP_STEPS = 20


@dataclass(frozen=True)
class Variant:
    """A training method. The defaults are those of the package."""

    softmax: str = "sampled"  # "exact", "sampled", "usual" (targets are corrected as well)
    n_drawn: float | None = None
    steps: str = "row"  # step sizes of A: "row", "entry" (as in Adam), "fisher"
    momentum: float = 0.0  # of A
    rate: float = 1.0  # of A, times the default
    zero_start: bool = False
    decay: float = AVERAGE_DECAY
    b_step: str = "adam"  # "adam", "muon", "fixed"
    batches: tuple[int, ...] = (500,)  # rows per batch in each pass; the last one is used for further passes
    l1: float = 1e-2
    l2: float = 20.0


VARIANTS = {
    "default": Variant(),
    "exact softmax": Variant(softmax="exact"),
    "correction of targets too (usual)": Variant(softmax="usual"),
    "250 words sampled": Variant(n_drawn=250),
    "4,000 words sampled": Variant(n_drawn=4000),
    "start at A = 0": Variant(zero_start=True),
    "a step size for each entry": Variant(steps="entry"),
    "the same with momentum (Adam)": Variant(steps="entry", momentum=0.9),
    "Adam, exact, A = 0": Variant("exact", steps="entry", momentum=0.9, zero_start=True),
    "row steps with momentum": Variant(momentum=0.9),
    "Fisher-diagonal steps": Variant(steps="fisher"),
    "Fisher-diagonal steps x 1/3": Variant(steps="fisher", rate=1 / 3),
    "Fisher-diagonal steps x 3": Variant(steps="fisher", rate=3.0),
    "no averaging": Variant(decay=0.0),
    "Muon for B": Variant(b_step="muon"),
    "B fixed": Variant(b_step="fixed"),
    "batches of 250": Variant(batches=(250,)),
    "batches of 1,000": Variant(batches=(1000,)),
    "250, then 1,000": Variant(batches=(250, 1000)),
    "rate x 1/2": Variant(rate=0.5),
    "rate x 2": Variant(rate=2.0),
    "l2 = 0": Variant(l2=0.0),
    "l2 = 5": Variant(l2=5.0),
    "l2 = 80": Variant(l2=80.0),
    "l1 = 0": Variant(l1=0.0),
    "l1 = 0.1": Variant(l1=0.1),
}


@dataclass(frozen=True)
class Result:
    """Measurements on the dev rows after a pass."""

    accuracy: float
    accuracy_without_bias: float
    loss: float


def newton_schulz(G: torch.Tensor) -> torch.Tensor:
    """Return a nearly orthogonal factor of G by five iterations (Jordan et al. 2024, Muon)."""
    X = G / (G.norm() + 1e-12)
    is_tall = X.shape[0] > X.shape[1]
    X = X.T if is_tall else X
    for _ in range(5):
        S = X @ X.T
        X = 3.4445 * X + (-4.7750 * S + 2.0315 * S @ S) @ X
    return X.T if is_tall else X


class Trainer:
    """Parameters and moments of one training run."""

    def __init__(self, variant: Variant, session: Session) -> None:
        self.variant, self.session = variant, session
        self.A, self.B, self.b = session.parameters
        self.n_words, self.rank = self.A.shape
        self.total_count = float(session.word_counts.sum())
        self.probability = torch.from_numpy(session.word_counts / self.total_count).float()
        if variant.zero_start:
            self.A.zero_()
            self.b.copy_(torch.from_numpy(log_frequencies(session.word_counts)))
        self.l1, self.l2 = variant.l1 / self.n_words, session.l2 / self.n_words
        self.t = 0
        self.last_step = torch.zeros(self.n_words)  # step of the last update of each word
        self.first_A, self.square_A = torch.zeros_like(self.A), torch.zeros_like(self.A)
        self.square_b = torch.zeros_like(self.b)
        self.first_B, self.square_B = torch.zeros_like(self.B), torch.zeros_like(self.B)
        self.averages = [self.A.clone(), self.B.clone(), self.b.clone()]
        self.generator = torch.Generator().manual_seed(0)

    def run_pass(self, batch_size: int) -> None:
        """Make one pass over the training rows."""
        dataset = self.session.data.dataset
        n = len(dataset)
        sampler = ClassSampler(
            self.session.word_counts, dataset.document_frequency(), n, batch_size, self.variant.n_drawn
        )
        order = torch.randperm(n, generator=self.generator).numpy()
        for first in range(0, n, batch_size):
            self.take_step(order[first : first + batch_size], sampler)

    def take_step(self, batch: np.ndarray, sampler: ClassSampler) -> None:
        """Compute the gradients of a batch and update A, b, B and the averages."""
        self.t += 1
        latent, targets = self.session.data.batch(batch)
        h = latent @ self.B.T
        words, target_offset = torch.arange(self.n_words), None
        log_inclusion = torch.zeros(self.n_words)
        if self.variant.softmax != "exact":
            sampled = sampler.draw(len(batch), targets.col, targets, self.generator)
            words, targets = sampled.words, sampled.targets
            log_inclusion = sampled.log_inclusion
            if self.variant.softmax == "sampled":
                target_offset = sampled.target_log_inclusion
        a = self.A[words]
        gradients = Gradients(torch.empty_like(a), torch.empty(len(words)), torch.empty_like(h))
        loss_and_gradients(
            h,
            SoftmaxLayer(a, self.b[words] - log_inclusion, target_offset),
            targets.flat(len(words)),
            self.session.work,
            gradients,
            scale=len(self.session.data.dataset) / len(batch) / self.total_count,
        )
        self.step_A(words, gradients.A)
        self.step_bias(words, gradients.b)
        if self.variant.b_step != "fixed":
            self.step_projection(gradients.h.T @ latent)
        decay = 0.0
        if self.variant.decay:
            decay = min(self.variant.decay, (1 + self.t) / (10 + self.t))
        for average, value in zip(self.averages, (self.A, self.B, self.b), strict=True):
            average.lerp_(value, 1 - decay)

    @property
    def warm_up(self) -> float:
        """Factor of the learning rates, which increases during the first steps."""
        return min(1.0, self.t / WARM_UP_STEPS)

    def root_mean_square(self, square: torch.Tensor) -> torch.Tensor:
        """Return the root of a running mean square, without its bias toward zero."""
        return (square / (1 - BETA2**self.t)).sqrt() + EPS

    def step_A(self, words: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take a proximal step on rows of A, including the penalty of steps without these words."""
        variant = self.variant
        missed = (self.t - self.last_step[words])[:, None]
        if variant.steps == "fisher":
            # A tenth of the Newton step with the diagonal of the Hessian, damped as in the initialization.
            curvature = self.probability[words][:, None] + 100 / self.total_count
            metric = 0.1 * variant.rate * self.warm_up / curvature
        else:
            square = gradient.square()
            if variant.steps == "row":
                square = square.mean(dim=1, keepdim=True).expand_as(square)
            square = self.square_A[words] * BETA2**missed + (1 - BETA2) * square
            self.square_A[words] = square
            rate = LEARNING_RATE * variant.rate * self.warm_up / math.sqrt(self.rank)
            metric = rate / self.root_mean_square(square)
        direction = gradient
        if variant.momentum:
            direction = self.first_A[words] * variant.momentum**missed
            direction += (1 - variant.momentum) * gradient
            self.first_A[words] = direction
            direction = direction / (1 - variant.momentum**self.t)
        a = self.A[words] - metric * direction
        threshold = self.l1 * metric * missed
        a = a - torch.maximum(torch.minimum(a, threshold), -threshold)
        self.A[words] = a / (1 + self.l2 * metric * missed)
        self.last_step[words] = self.t

    def step_bias(self, words: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take a step on entries of b."""
        self.square_b.mul_(BETA2)
        self.square_b[words] += (1 - BETA2) * gradient.square()
        rate = LEARNING_RATE * BIAS_RATE * self.warm_up
        self.b[words] -= rate * gradient / self.root_mean_square(self.square_b[words])

    def step_projection(self, gradient: torch.Tensor) -> None:
        """Take a step on B and normalize its rows."""
        gradient -= (gradient * self.B).sum(dim=1, keepdim=True) * self.B
        self.first_B.lerp_(gradient, 1 - BETA1_B)
        self.square_B.lerp_(gradient.square(), 1 - BETA2)
        rate = LEARNING_RATE * B_RATE * self.warm_up
        if self.variant.b_step == "muon":
            self.B -= rate * newton_schulz(self.first_B)
        else:
            first = self.first_B / (1 - BETA1_B**self.t)
            self.B -= rate / math.sqrt(self.rank) * first / self.root_mean_square(self.square_B)
        normalize_rows_(self.B)

    def averaged(self) -> Parameters:
        """Return the averaged parameters, with the zeros of the last iterate."""
        A, B, b = self.averages
        A = torch.where(self.A == 0, 0.0, A)
        B = B.clone()
        return Parameters(A * normalize_rows_(B).T, B, b)


def train(variant: Variant, rows: CountDataset, dev: CountDataset, rank: int, passes: int) -> list[Result]:
    """Return the measurements on the dev rows after every pass."""
    options = SolverOptions(
        rank=rank,
        l1=variant.l1,
        l2=variant.l2,
        max_iter=1,
        tol=0.0,
        batch_size=500,
        learning_rate=LEARNING_RATE,
        stop_on=None,
        n_iter_no_change=1,
        seed=0,
        solver="exact",
    )
    session = Session(rows, options, resolve_compute("cpu", "float32"))
    trainer, held_out = Trainer(variant, session), session.whiten(dev)
    results = []
    for number in range(passes):
        trainer.run_pass(variant.batches[min(number, len(variant.batches) - 1)])
        averaged = trainer.averaged()
        loss, accuracy = evaluate(session, held_out, averaged)
        without_bias = averaged._replace(b=torch.zeros_like(averaged.b))
        results.append(Result(accuracy, evaluate(session, held_out, without_bias)[1], loss))
    return results


def main() -> None:
    """Train with every variant and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=int, default=20_000, help="number of training rows")
    parser.add_argument("--rank", type=int, default=384)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    data = load_captions(args.data, args.rows)

    def make_dataset(X: np.ndarray, Y: sp.csr_array) -> CountDataset:
        return CountDataset(X, Y, np.ones(len(X)))

    passes = " | ".join(f"pass {i + 1}" for i in range(args.passes))
    print(f"{len(data.X)} rows, V = {data.Y.shape[1]}, rank {args.rank}\n")
    print(f"| variant | {passes} | without bias | loss |")
    print("|---|" + "---|" * (args.passes + 2))
    for name in args.only:
        results = train(
            VARIANTS[name],
            make_dataset(data.X, data.Y),
            make_dataset(data.X_dev, data.Y_dev),
            args.rank,
            args.passes,
        )
        accuracies = " | ".join(f"{result.accuracy:.4f}" for result in results)
        last = results[-1]
        print(f"| {name} | {accuracies} | {last.accuracy_without_bias:.4f} | {last.loss:.3f} |", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()

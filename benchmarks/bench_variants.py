"""The solver's ideas against their alternatives, one at a time: accuracy and loss after each pass.

    python -m benchmarks.bench_variants                    # captions, 20,000 rows, rank 384
    python -m benchmarks.bench_variants --rank 128 --only "as it is" "Muon for B"

A plain loop, written for reading, not for speed: no seconds are printed. It shares the package's
whitening, start, candidates, gradients and scoring; what differs is the step, and that is
spelled out in ``Variant``. The row "as it is" does what ``FLiPExtractor`` does, so it also checks this loop.
Accuracy, the same without bias, and loss (nats per word) are those of the dev captions.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.bench_fit import DEFAULT_DATA, load_captions
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit.candidates import CandidateSampler
from flip_sklearn.backend.fit.data import CountDataset, WhitenedRows
from flip_sklearn.backend.fit.initialization import log_frequencies
from flip_sklearn.backend.fit.likelihood import loss_and_gradients
from flip_sklearn.backend.fit.optimizer import (
    AVERAGE_DECAY,
    B_RATE,
    BETA2,
    BIAS_RATE,
    EPS,
    Parameters,
    normalize_rows_,
)  # fmt: skip
from flip_sklearn.backend.fit.solver import Options, Session, evaluate


@dataclass(frozen=True)
class Variant:
    """One way to train. The defaults are the package's."""

    softmax: str = "sampled"  # "exact", "sampled", "usual" (own words divided by their chance too)
    drawn: float | None = None
    steps: str = "row"  # "row", "entry" (a mean square for each entry), "fisher"
    momentum: float = 0.0  # of A
    rate: float = 1.0  # of A, times the default
    zero_start: bool = False
    decay: float = AVERAGE_DECAY
    b_step: str = "adam"  # "adam", "muon", "fixed"
    batches: tuple[int, ...] = (500,)  # rows per batch, pass by pass; the last one stays
    l1: float = 1e-2
    l2: float = 20.0


VARIANTS = {
    "as it is": Variant(),
    "exact softmax": Variant(softmax="exact"),
    "own words corrected too (usual)": Variant(softmax="usual"),
    "250 words drawn": Variant(drawn=250),
    "4,000 words drawn": Variant(drawn=4000),
    "start at A = 0": Variant(zero_start=True),
    "a step size for each entry": Variant(steps="entry"),
    "and momentum (Adam)": Variant(steps="entry", momentum=0.9),
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


def newton_schulz(G: torch.Tensor) -> torch.Tensor:
    """Nearly orthogonal factor of G by five iterations (Jordan et al. 2024, Muon)."""
    X = G / (G.norm() + 1e-12)
    tall = X.shape[0] > X.shape[1]
    X = X.T if tall else X
    for _ in range(5):
        S = X @ X.T
        X = 3.4445 * X + (-4.7750 * S + 2.0315 * S @ S) @ X
    return X.T if tall else X


def train(
    variant: Variant, rows: CountDataset, dev: CountDataset, rank: int | None, passes: int
) -> list[tuple[float, float, float]]:
    """(accuracy, accuracy without bias, loss) on the dev rows after every pass."""
    options = Options(
        rank=rank, l1=variant.l1, l2=variant.l2, max_iter=1, tol=0.0, batch_size=500,
        learning_rate=0.05, stop_on=None, n_iter_no_change=1, seed=0, solver="exact",
    )  # fmt: skip
    session = Session(rows, options, resolve_compute("cpu", "float32"))
    start = session.run.optimizer
    A, B, b = start.A, start.B, start.b
    n, (n_words, rank) = len(rows), A.shape
    share = torch.from_numpy(session.counts / session.counts.sum()).float()
    if variant.zero_start:
        A.zero_()
        b.copy_(torch.from_numpy(log_frequencies(session.counts)))
    l1, l2 = variant.l1 / n_words, session.l2 / n_words
    moments = {name: torch.zeros_like(A) for name in ("first", "square")}
    square_b, since = torch.zeros_like(b), torch.zeros(n_words)
    first_B, square_B = torch.zeros_like(B), torch.zeros_like(B)
    averages = [A.clone(), B.clone(), b.clone()]
    generator = torch.Generator().manual_seed(0)
    held_out = WhitenedRows(dev, session.mean, session.Q, session.compute)
    results, t = [], 0
    for number in range(passes):
        size = variant.batches[min(number, len(variant.batches) - 1)]
        sampler = CandidateSampler(
            session.counts, rows.document_frequency(), n, size, variant.drawn
        )
        order = torch.randperm(n, generator=generator).numpy()
        for first in range(0, n, size):
            t += 1
            batch = order[first : first + size]
            latent, targets = session.data.batch(batch)
            h = latent @ B.T
            words, own, shift = torch.arange(n_words), None, torch.zeros(n_words)
            if variant.softmax != "exact":
                drawn = sampler.draw(len(batch), targets.col, targets, generator)
                words, targets, shift = drawn.words, drawn.targets, drawn.log_inclusion
                own = None if variant.softmax == "usual" else drawn.own_log_inclusion
            a = A[words]
            grad_A, grad_b, grad_h = (
                torch.empty_like(a),
                torch.empty(len(words)),
                torch.empty_like(h),
            )
            loss_and_gradients(
                h, a, b[words] - shift, targets, session.compute, session.work,
                grad_A=grad_A, grad_b=grad_b, grad_h=grad_h,
                scale=n / len(batch) / session.counts.sum(), own_offset=own,
            )  # fmt: skip
            warm, correction = min(1.0, t / 20), 1 - BETA2**t
            passed = (t - since[words])[:, None]
            rate = 0.05 * variant.rate * warm / math.sqrt(rank)
            if variant.steps == "fisher":
                # A tenth of the Newton step with the Hessian's diagonal, p_j, damped as in the start.
                metric = (
                    0.1 * variant.rate * warm / (share[words][:, None] + 100 / session.counts.sum())
                )
            else:
                g2 = grad_A.square()
                g2 = g2.mean(dim=1, keepdim=True).expand_as(g2) if variant.steps == "row" else g2
                square = moments["square"][words] * BETA2**passed + (1 - BETA2) * g2
                moments["square"][words] = square
                metric = rate / ((square / correction).sqrt() + EPS)
            step = grad_A
            if variant.momentum:
                step = moments["first"][words] * variant.momentum**passed
                step += (1 - variant.momentum) * grad_A
                moments["first"][words] = step
                step = step / (1 - variant.momentum**t)
            a = a - metric * step
            threshold = l1 * metric * passed
            a = a - torch.maximum(torch.minimum(a, threshold), -threshold)
            A[words] = a / (1 + l2 * metric * passed)
            since[words] = t
            square_b.mul_(BETA2)
            square_b[words] += (1 - BETA2) * grad_b.square()
            b[words] -= (
                0.05 * BIAS_RATE * warm * grad_b / ((square_b[words] / correction).sqrt() + EPS)
            )
            if variant.b_step != "fixed":
                grad_B = grad_h.T @ latent
                grad_B -= (grad_B * B).sum(dim=1, keepdim=True) * B
                first_B.lerp_(grad_B, 0.1)
                square_B.lerp_(grad_B.square(), 1 - BETA2)
                if variant.b_step == "muon":
                    B -= 0.05 * B_RATE * warm * newton_schulz(first_B)
                else:
                    scaled = (first_B / (1 - 0.9**t)) / ((square_B / correction).sqrt() + EPS)
                    B -= 0.05 * B_RATE * warm / math.sqrt(rank) * scaled
                normalize_rows_(B)
            decay = min(variant.decay, (1 + t) / (10 + t)) if variant.decay else 0.0
            for average, value in zip(averages, (A, B, b), strict=True):
                average.lerp_(value, 1 - decay)
        mean_A = torch.where(A == 0, 0.0, averages[0])
        mean_B = averages[1].clone()
        mean_A = mean_A * normalize_rows_(mean_B).T
        scored = [
            evaluate(held_out, Parameters(mean_A, mean_B, bias), session.work)
            for bias in (averages[2], torch.zeros_like(b))
        ]
        results.append((scored[0][1], scored[1][1], scored[0][0]))
    return results


def main() -> None:
    """Train with every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rank", type=int, default=384)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    data = load_captions(args.data, args.rows)

    def rows(X: np.ndarray, Y: sp.csr_array) -> CountDataset:
        return CountDataset(X, Y.indptr, Y.indices, Y.data, np.ones(len(X)), Y.shape[1])

    passes = " | ".join(f"pass {i + 1}" for i in range(args.passes))
    print(f"{len(data.X)} rows, V = {data.Y.shape[1]}, rank {args.rank}\n")
    print(f"| variant | {passes} | without bias | loss |")
    print("|---|" + "---|" * (args.passes + 2))
    for name in args.only:
        found = train(
            VARIANTS[name],
            rows(data.X, data.Y),
            rows(data.X_dev, data.Y_dev),
            args.rank,
            args.passes,
        )
        accuracies = " | ".join(f"{accuracy:.4f}" for accuracy, _, _ in found)
        print(f"| {name} | {accuracies} | {found[-1][1]:.4f} | {found[-1][2]:.3f} |", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()

"""Bytes and operations of a training step, and the seconds they take at the rates of a data sheet.

The terms follow ``flip_sklearn/backend/fit``: ``likelihood.py`` works on the scores (m, V) of m rows,
``optimizer.py`` on arrays of A's shape (V, r). In a sampled step V is the number of sampled classes. Every
operator reads its operands from memory and writes its result to memory once; what a kernel reads again, and
what stays in the second-level cache, is not counted. Vectors and arrays of (m, d) or (r, d) are left out: at
the paper's size they are less than two percent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flip_sklearn.backend.fit.candidates import ClassSampler

TOKENS_PER_ROW, BATCH_ROWS = 10, 500


@dataclass(frozen=True)
class Card:
    """Peak rates in NVIDIA's data sheet of the SXM card, for dense products."""

    name: str
    bandwidth: float  # bytes a second
    rates: dict[str, float]  # operations a second of products, by precision


RATES = {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}
CARDS = (Card("H100", 3.35e12, RATES), Card("H200", 4.8e12, RATES))
SHAPES = {
    "captions": {"n": 36_000, "d": 384, "V": 12_000, "r": 384},
    "paper": {"n": 3_400_000, "d": 1024, "V": 100_000, "r": 512},
}


@dataclass(frozen=True)
class Term:
    """Bytes per element of the scores (m, V) and of A (V, r) that some operators read and write."""

    operators: str
    scores: int = 0
    A: int = 0


# With bfloat16 factors, A is converted once a step, and the residual G is written in bfloat16.
LIKELIHOOD = {
    True: (
        Term("convert A", A=4 + 2),
        Term("scores = h A^T", scores=4, A=2),
        Term("scores + b", scores=8),
        Term("log softmax, in place", scores=8),
        Term("G = theta - Y / T", scores=4 + 2),
        Term("dL/db = G^T w", scores=2),
        Term("dL/dA = G^T h", scores=2, A=4),
        Term("dL/dh = G A", scores=2, A=2),
    ),
    False: (
        Term("scores = h A^T", scores=4, A=4),
        Term("scores + b", scores=8),
        Term("log softmax, in place", scores=8),
        Term("G = theta - Y / T, in place", scores=8),
        Term("dL/db = G^T w", scores=4),
        Term("dL/dA = G^T h", scores=4, A=4),
        Term("dL/dh = G A", scores=4, A=4),
    ),
}
# On a CUDA device, the update of A is one kernel, which reads A, its gradient and its average once.
FUSED_STEP = (Term("row norms of the gradient", A=4), Term("step, L1, L2 and average in one kernel", A=20))
FUSED_GATHERED = (
    Term("gather rows of A and of its average", A=16),
    Term("scatter rows of A and of its average", A=16),
)
# As separate operators, where torch cannot compile the kernel.
STEP = (
    Term("row norms of the gradient", A=4),
    Term("A - metric * gradient", A=12),
    Term("L1: clamp, subtraction", A=8 + 12),
    Term("L2: division", A=8),
    Term("average towards A", A=12),
)
GATHERED = (*FUSED_GATHERED, Term("average: the steps that were skipped", A=12))


def step_terms(solver: str, *, bfloat16: bool, fused: bool = True) -> tuple[Term, ...]:
    """Return the terms of an "exact" or "sampled" step."""
    step, gathered = (FUSED_STEP, FUSED_GATHERED) if fused else (STEP, GATHERED)
    terms = LIKELIHOOD[bfloat16] + step
    return terms if solver == "exact" else terms + gathered


def step_bytes(solver: str, m: int, n_classes: int, rank: int, *, bfloat16: bool, fused: bool = True) -> int:
    """Return the bytes that a step of m rows reads and writes."""
    terms = step_terms(solver, bfloat16=bfloat16, fused=fused)
    return n_classes * sum(m * term.scores + rank * term.A for term in terms)


def step_operations(m: int, n_classes: int, rank: int, d: int) -> float:
    """Return the operations of a step: three products of 2 m V r, the whitening, and those of B."""
    return 6.0 * m * n_classes * rank + 2.0 * m * d * d + 4.0 * m * rank * d


def sampled_classes(n: int, n_words: int, m: int) -> float:
    """Return the expected number of sampled classes of a batch with Zipf frequencies."""
    share = 1.0 / (np.arange(n_words) + 10.0)
    rows_with_word = n * np.minimum(1.0, TOKENS_PER_ROW * share / share.sum())
    return ClassSampler(rows_with_word, rows_with_word, n, m).expected


def print_model() -> None:
    """Print the terms, and the predicted seconds of a pass."""
    print(f"{'bytes an element of':40} {'(m, V)':>7} {'(V, r)':>7}")
    for solver, bfloat16 in (("exact", True), ("exact", False), ("sampled", True)):
        print(f"{solver}, factors in {'bfloat16' if bfloat16 else 'float32'}")
        terms = step_terms(solver, bfloat16=bfloat16)
        for term in (*terms, Term("sum", sum(t.scores for t in terms), sum(t.A for t in terms))):
            print(f"  {term.operators:38} {term.scores or '':>7} {term.A or '':>7}")
    print("\nmilliseconds of a step, seconds of a pass")
    print(
        f"{'problem':9} {'solver':8} {'batch':>5} {'classes':>7} {'card':8} {'factors':8} "
        f"{'(m, V)':>7} {'(V, r)':>7} {'products':>8} {'step':>6} {'pass':>6}"
    )
    for problem in SHAPES:
        for solver in ("exact", "sampled"):
            for card in CARDS:
                for precision in card.rates:
                    print_line(problem, solver, BATCH_ROWS, card, precision)
    for m in (1000, 2000, 4000):
        for card in CARDS:
            print_line("paper", "exact", m, card, "bfloat16")


def print_line(problem: str, solver: str, m: int, card: Card, precision: str) -> None:
    """Print the predicted cost of a step of m rows; operators do not overlap."""
    shape = SHAPES[problem]
    n_classes = shape["V"] if solver == "exact" else round(sampled_classes(shape["n"], shape["V"], m))
    terms = step_terms(solver, bfloat16=precision == "bfloat16")
    scores = 1e3 * n_classes * m * sum(term.scores for term in terms) / card.bandwidth
    A = 1e3 * n_classes * shape["r"] * sum(term.A for term in terms) / card.bandwidth
    products = 1e3 * step_operations(m, n_classes, shape["r"], shape["d"]) / card.rates[precision]
    step = scores + A + products
    print(
        f"{problem:9} {solver:8} {m:5} {n_classes:7} {card.name:8} {precision:8} "
        f"{scores:7.3f} {A:7.3f} {products:8.3f} {step:6.3f} {1e-3 * step * shape['n'] / m:6.2f}"
    )

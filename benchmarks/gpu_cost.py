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
    """Peak rates of a data sheet, dense products."""

    name: str
    bandwidth: float  # bytes a second
    rates: dict[str, float]  # operations a second of products, by precision


RATES = {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}
CARDS = (Card("H100 SXM", 3.35e12, RATES), Card("H200 SXM", 4.8e12, RATES))
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


# A product with bfloat16 factors first converts them: 4 bytes are read and 2 written for an element.
PRODUCTS = {
    True: (
        Term("convert A, scores = h A^T", scores=4, A=4 + 2 + 2),
        Term("convert G, dL/dA = G^T h", scores=4 + 2 + 2, A=4),
        Term("convert G and A, dL/dh = G A", scores=4 + 2 + 2, A=4 + 2 + 2),
    ),
    False: (
        Term("scores = h A^T", scores=4, A=4),
        Term("dL/dA = G^T h", scores=4, A=4),
        Term("dL/dh = G A", scores=4, A=4),
    ),
}
SOFTMAX = (
    Term("scores + b", scores=8),
    Term("theta = softmax(scores)", scores=8),
    Term("row maxima of scores and theta", scores=8),
    Term("dL/db = G^T 1", scores=4),
)
STEP = (
    Term("row norms of the gradient", A=4),
    Term("A - metric * gradient", A=12),
    Term("L1: minimum, maximum, subtraction", A=8 + 8 + 12),
    Term("L2: division", A=8),
    Term("average towards A", A=12),
)
GATHERED = (
    Term("gather rows of A and of its average", A=16),
    Term("average: the steps that were skipped", A=12),
    Term("scatter rows of A and of its average", A=16),
)


def step_terms(solver: str, *, bfloat16: bool) -> tuple[Term, ...]:
    """Return the terms of an "exact" or "sampled" step."""
    terms = PRODUCTS[bfloat16] + SOFTMAX + STEP
    return terms if solver == "exact" else terms + GATHERED


def step_bytes(solver: str, m: int, n_classes: int, rank: int, *, bfloat16: bool) -> float:
    """Return the bytes that a step of m rows reads and writes."""
    terms = step_terms(solver, bfloat16=bfloat16)
    return float(n_classes * sum(m * term.scores + rank * term.A for term in terms))


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
    print(f"{'operators':40} {'bytes, (m, V)':>14} {'bytes, (V, r)':>14}")
    for solver, bfloat16 in (("exact", True), ("exact", False), ("sampled", True)):
        print(f"{solver}, factors in {'bfloat16' if bfloat16 else 'float32'}")
        terms = step_terms(solver, bfloat16=bfloat16)
        for term in (*terms, Term("sum", sum(t.scores for t in terms), sum(t.A for t in terms))):
            print(f"  {term.operators:38} {term.scores:14} {term.A:14}")
    print()
    print(
        f"{'problem':9} {'solver':8} {'card':9} {'products':9} {'V':>7} {'GB':>6} {'TFLOP':>6} "
        f"{'bytes ms':>9} {'products ms':>11} {'step ms':>8} {'pass s':>7}"
    )
    for name, shape in SHAPES.items():
        for solver in ("exact", "sampled"):
            n, n_words, rank = shape["n"], shape["V"], shape["r"]
            n_classes = n_words if solver == "exact" else round(sampled_classes(n, n_words, BATCH_ROWS))
            operations = step_operations(BATCH_ROWS, n_classes, rank, shape["d"])
            for card in CARDS:
                for precision, rate in card.rates.items():
                    bfloat16 = precision == "bfloat16"
                    n_bytes = step_bytes(solver, BATCH_ROWS, n_classes, rank, bfloat16=bfloat16)
                    memory, products = 1e3 * n_bytes / card.bandwidth, 1e3 * operations / rate
                    # Products and elementwise operators do not overlap.
                    step = memory + products
                    print(
                        f"{name:9} {solver:8} {card.name:9} {precision:9} {n_classes:7} {n_bytes / 1e9:6.2f} "
                        f"{operations / 1e12:6.3f} {memory:9.3f} {products:11.3f} {step:8.3f} "
                        f"{step * n / BATCH_ROWS / 1e3:7.2f}"
                    )

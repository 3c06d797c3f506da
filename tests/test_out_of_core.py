"""Memory: what a fit takes beside X is a formula (docs/memory.md), and X may be larger than memory.

``python tests/test_out_of_core.py`` prints the table of docs/memory.md.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from processes import in_process

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend import device, sampling, solver
from flip_sklearn.backend.device import rows_per_block

MIB = 2**20
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="measures with Linux's /proc"
)


@dataclass(frozen=True)
class Fit:
    """The sizes of a fit, in the letters of the formula."""

    n: int
    V: int
    r: int
    d: int
    words: int = 8  # different ones a row
    solver: str = "exact"
    batch: int = 500
    early_stopping: bool = False
    x_bytes: int = 4
    rest: dict[str, Any] = field(default_factory=dict)

    def model(self, **changed: Any) -> FLiPExtractor:
        settings = dict(
            rank=self.r, solver=self.solver, batch_size=self.batch, random_state=0, device="cpu",
            early_stopping=self.early_stopping, precision="float32", max_iter=2, tol=0.0,
        )  # fmt: skip
        return FLiPExtractor(**{**settings, **self.rest, **changed})


def predicted(fit: Fit, index_bytes: int = 4) -> float:
    """Bytes that a fit takes at most, beside X and Y as they were given: the formula of docs/memory.md."""
    n, V, r, d, m = fit.n, fit.V, fit.r, fit.d, min(fit.batch, fit.n)
    nnz = n * fit.words
    held_out = min(10_000, math.ceil(0.1 * n)) if fit.early_stopping else 0
    most_rows = max(m, held_out, min(256, n))
    block = 4 * V * rows_per_block(V, most_rows, device.torch.device("cpu"))
    rows = 80 * n + (4 + index_bytes) * nnz * (2 if fit.early_stopping else 1) + index_bytes * nnz
    chunk = min(n, max(256, min(4096, solver.MOMENT_ELEMENTS // d)))
    moments = chunk * d * (fit.x_bytes + 2 * 8)
    batch = m * (d * (fit.x_bytes + 3 * 4) + 4 * 4 * r) + 40 * m * fit.words
    start = 4 * 2 * V * d + max(1024, m) * d * 12
    parameters = 4 * 4.25 * V * r
    if fit.solver == "sampled":
        S = min(V, max(sampling.DRAWN_WORDS, sampling.DRAWN_SHARE * V) + m * fit.words)
        parameters = max(parameters, 4 * (3 + 2.5 * S / V) * V * r)
    squares = 8 * 8 * d**2
    vectors = 100 * V
    return rows + squares + vectors + 2 * block + max(moments, start, parameters + batch)


# Beside it: buffers of the libraries, pages of the allocator.
CONSTANT = 12 * MIB


def status(key: str) -> int:
    """Bytes of one line of /proc/self/status."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", text)[1])  # type: ignore[index]


def counts(n: int, V: int, words: int) -> sp.csr_array:
    """Frequent and rare words, each of them somewhere."""
    rng = np.random.default_rng(1)
    indices = (rng.random(n * words) ** 2 * V).astype(np.int32)
    indices[: min(V, n * words)] = np.arange(min(V, n * words))
    Y = sp.csr_array((n, V), dtype=np.float32)
    Y.data = np.ones(n * words, dtype=np.float32)
    Y.indices, Y.indptr = indices, np.arange(0, n * words + 1, words, dtype=np.int32)
    Y.sum_duplicates()
    return Y


def warm_up() -> None:
    """What the libraries set up once does not count."""
    rng = np.random.default_rng(0)
    for name in ("exact", "sampled"):
        small = FLiPExtractor(4, solver=name, max_iter=1)
        small.fit(rng.normal(size=(64, 8)), counts(64, 30, 3)).extract_keywords(np.ones((2, 8)))


def peak_of(fit: Fit) -> int:
    """Bytes at the peak of a real fit, in a process of its own."""
    warm_up()
    X = np.empty((fit.n, fit.d), dtype=np.float32)
    rng = np.random.default_rng(0)
    for first in range(0, fit.n, 4096):
        X[first : first + 4096] = rng.standard_normal((len(X[first : first + 4096]), fit.d))
    Y = counts(fit.n, fit.V, fit.words)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    fit.model().fit(X, Y)
    return status("VmHWM") - before


FITS = {
    "A, exact": Fit(3000, 12_000, 256, 256),
    "A, sampled": Fit(3000, 12_000, 256, 256, solver="sampled", early_stopping=True),
    "LiP": Fit(2000, 8000, 384, 384, rest={"rank": None}),
    "low rank": Fit(3000, 10_000, 8, 512, solver="sampled"),
    "blocks": Fit(600, 40_000, 4, 16, words=70, early_stopping=True),
    "many rows": Fit(400_000, 50, 4, 4, batch=20_000),
    "many rows, some held out": Fit(300_000, 50, 4, 4, batch=20_000, early_stopping=True),
    "long texts": Fit(8_000, 5_000, 4, 8, words=300),
    "many dimensions": Fit(3000, 100, 8, 1024),
}


@pytest.mark.parametrize("name", FITS)
def test_the_peak_is_the_formula(name: str) -> None:
    """Never more, and not much less: the formula is no empty bound."""
    fit = FITS[name]
    peak = in_process(peak_of, fit)
    bound = predicted(fit) + CONSTANT
    assert bound / 3 < peak <= bound, f"{peak / MIB:.1f} MiB, formula {bound / MIB:.1f} MiB"


def main() -> None:
    """The table of docs/memory.md."""
    sys.stdout.write("| fit | n | V | r | d | words | formula, MiB | measured |\n")
    for name, fit in FITS.items():
        bound, peak = predicted(fit) + CONSTANT, in_process(peak_of, fit)
        sizes = f"{fit.n} | {fit.V} | {fit.r} | {fit.d} | {fit.words}"
        sys.stdout.write(f"| {name} | {sizes} | {bound / MIB:.0f} | {peak / MIB:.0f} |\n")


if __name__ == "__main__":
    main()

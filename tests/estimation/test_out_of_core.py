"""Memory: what a fit takes beside X is a formula (docs/memory.md), and X may be larger than memory.

``python -m tests.estimation.test_out_of_core`` prints the table of docs/memory.md.
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
import torch

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend import device
from flip_sklearn.backend.fit import bias, row_softmax, session
from flip_sklearn.backend.fit import candidates as sampling
from flip_sklearn.backend.fit import initialization as start
from tests.helpers.processes import in_process

MIB = 2**20
pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures with Linux's /proc"),
    pytest.mark.cpu_only(reason="memory of the host"),
]


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


def predicted(fit: Fit) -> float:
    """Maximum memory of a fit besides X and Y in bytes: the formula of docs/memory.md."""
    n, V, r, d, m = fit.n, fit.V, fit.r, fit.d, min(fit.batch, fit.n)
    nnz, index = n * fit.words, 4
    held_out = min(10_000, math.ceil(0.1 * n)) if fit.early_stopping else 0
    rows = 80 * n + (4 + index) * nnz * (2 if fit.early_stopping else 1) + index * nnz
    squares = 7 * 8 * d**2
    vectors = 100 * V

    def chunk(*bounds: int) -> int:
        return max(1, min(n, *bounds))

    def block(rows: int) -> int:
        return 4 * V * min(rows, max(device.MIN_BLOCK_ROWS, device.BLOCK_ELEMENTS["cpu"] // V))

    moments = max(256, chunk(4096, session.MOMENT_ELEMENTS["cpu"] // d)) * d * (fit.x_bytes + 16)
    some = chunk(start.GRADIENT_CHUNK_ROWS, start.CHUNK_ELEMENTS // d, start.CHUNK_COUNTS // fit.words)
    words_of_some = some * fit.words
    gradient = 4 * 2 * V * d + some * d * (fit.x_bytes + 4) + words_of_some * 400
    gradient += 4 * min(V, words_of_some) * d
    newton = 4 * V * (d + r) + 3 * block(start.SEARCH_ROWS)
    S = min(V, max(sampling.DRAWN_WORDS, sampling.DRAWN_SHARE * V) + m * fit.words)
    parameters = 4 * max(4.25, 3 + 2.5 * S / V if fit.solver == "sampled" else 0) * V * r
    earlier = 4 * V * r if "warm_start" in fit.rest else 0
    batch = m * (d * (fit.x_bytes + 12) + 16 * r + 40 * fit.words)
    training = parameters + batch + 2 * block(max(m, held_out))
    entries = 12 * min(bias.MAX_ENTRIES, n * min(V, int(1 / bias.MIN_THETA)))
    refit = parameters / 2 + entries + 2 * block(row_softmax.MAX_BLOCK_ROWS) + 100 * bias.CHUNK_ENTRIES
    return rows + squares + vectors + earlier + max(moments, gradient, newton, training, refit)


# Beside it: buffers of the libraries, pages of the allocator.
CONSTANT = 16 * MIB


def status(key: str) -> int:
    """Bytes of one line of /proc/self/status."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", text)[1])  # type: ignore[index]


def counts(n: int, V: int, words: int) -> sp.csr_array:
    """Counts of frequent and rare words; every word occurs."""
    rng = np.random.default_rng(1)
    indices = (rng.random(n * words) ** 2 * V).astype(np.int32)
    indices[: min(V, n * words)] = np.arange(min(V, n * words))
    Y = sp.csr_array((n, V), dtype=np.float32)
    Y.data = np.ones(n * words, dtype=np.float32)
    Y.indices, Y.indptr = indices, np.arange(0, n * words + 1, words, dtype=np.int32)
    Y.sum_duplicates()
    return Y


def warm_up() -> None:
    """Let the libraries allocate what they need once."""
    torch.set_num_threads(1)  # every thread more takes buffers of its own, which the formula leaves out
    rng = np.random.default_rng(0)
    for name in ("exact", "sampled"):
        small = FLiPExtractor(4, solver=name, max_iter=1)
        small.fit(rng.normal(size=(64, 8)), counts(64, 30, 3)).extract_keywords(np.ones((2, 8)))


def peak_of(fit: Fit) -> int:
    """Peak memory of a real fit in a child process, in bytes."""
    warm_up()
    X = np.empty((fit.n, fit.d), dtype=np.float32)
    rng = np.random.default_rng(0)
    for first in range(0, fit.n, 4096):
        X[first : first + 4096] = rng.standard_normal((len(X[first : first + 4096]), fit.d))
    Y = counts(fit.n, fit.V, fit.words)
    model = fit.model()
    if model.warm_start:
        model.fit(X, Y)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    model.fit(X, Y)
    return status("VmHWM") - before


FITS = {
    "A, exact": Fit(1000, 8000, 256, 256),
    "A, sampled": Fit(1500, 8000, 256, 256, solver="sampled", early_stopping=True),
    "warm start": Fit(1000, 8000, 256, 256, solver="sampled", rest={"warm_start": True}),
    "LiP": Fit(1000, 5000, 384, 384, rest={"rank": None}),
    "low rank": Fit(1000, 8000, 4, 512, solver="sampled"),
    "large vocabulary": Fit(600, 40_000, 4, 16, words=70, early_stopping=True),
    "many rows": Fit(300_000, 50, 4, 4, batch=20_000),
    "many rows, some held out": Fit(200_000, 50, 4, 4, batch=20_000, early_stopping=True),
    "long texts": Fit(5_000, 5_000, 4, 8, words=400),
    "many dimensions": Fit(2000, 100, 8, 1024),
}


@pytest.mark.parametrize("name", FITS)
def test_peak_memory_matches_the_formula(name: str) -> None:
    """The peak is at most the formula and not much less, so the bound is tight."""
    fit = FITS[name]
    peak = in_process(peak_of, fit)
    bound = predicted(fit) + CONSTANT
    assert bound / 3 < peak <= bound, f"{peak / MIB:.1f} MiB, formula {bound / MIB:.1f} MiB"


# --- X on disk ---------------------------------------------------------------------------------

DISK = Fit(200_000, 100, 32, 768, words=1, x_bytes=2, batch=1000, rest={"max_iter": 1})


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float16 embeddings (307 MB) that have to do with their words."""
    path = tmp_path_factory.mktemp("disk") / "X.npy"
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(DISK.n, DISK.d))
    Y = counts(DISK.n, DISK.V, DISK.words)
    rng = np.random.default_rng(0)
    of_words = rng.standard_normal((DISK.V, DISK.d), dtype=np.float32)
    noise = rng.standard_normal((4096, DISK.d), dtype=np.float32)
    for first in range(0, DISK.n, 4096):
        rows = Y.indices[first : first + 4096]
        X[first : first + 4096] = of_words[rows] + noise[: len(rows)]
    X.flush()
    return path


def under_limit(path: Path, what: str) -> Any:
    """Fit and score a memory-mapped X in a process that may use the formula's memory, less than half of X."""
    import resource

    warm_up()
    X, Y = np.load(path, mmap_mode="r"), counts(DISK.n, DISK.V, DISK.words)
    allowed = int(predicted(DISK)) + CONSTANT
    assert X.nbytes > 2 * allowed
    # VmData: private and writable; pages of a file that is only read do not count.
    limit = status("VmData") + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if what == "copies":
        return np.array(X).sum()
    model = DISK.model(solver="exact" if what == "chunks" else what)
    if what == "chunks":
        for first in range(0, 80_000, 20_000):
            model.partial_fit(X[first : first + 20_000], Y[first : first + 20_000])
    else:
        model.fit(X, Y)
    words = model.extract_keywords(X[-40_000:], top_k=1)
    found = np.array([int(line[0].removeprefix("word")) for line in words])
    score = model.score(X, Y) if what == "exact" else None
    return score, (found == Y.indices[-40_000:]).mean()


@pytest.mark.parametrize("what", ["exact", "sampled", "chunks"])
def test_larger_than_memory(mapped: Path, what: str) -> None:
    """The limited process fits and scores all rows of X."""
    score, right = in_process(under_limit, mapped, what)
    assert right > 0.9
    assert score is None or score > 0.9


def test_limit_is_effective(mapped: Path) -> None:
    """Negative control: a copy of X exceeds the limit."""
    with pytest.raises(AssertionError, match=r"MemoryError|can't allocate memory"):
        in_process(under_limit, mapped, "copies")


# --- Chunks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver_", ["exact", "sampled"])
def test_moments_of_chunks_equal_those_of_all_rows(solver_: str) -> None:
    """Mean, covariance and counts, with weights, rows without words, and words of later chunks."""
    rng = np.random.default_rng(0)
    n, V = 300, 40
    X = rng.normal(size=(n, 6)) @ rng.normal(size=(6, 6)) + 3
    Y = counts(n, V, 3).toarray()
    Y[:90, 30:] = 0  # ten words are not in the first chunk
    Y[120:130] = 0
    w = rng.integers(0, 3, size=n).astype(float)
    model = FLiPExtractor(4, solver=solver_, random_state=0, precision="float64", batch_size=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "DRAWN_WORDS", 10)
        for rows in np.array_split(np.arange(n), [90, 91, 200]):  # a chunk of one row, too
            model.partial_fit(X[rows], Y[rows], w[rows])
            assert model.solver_ == solver_
    informative = w * (Y.sum(axis=1) > 0)
    mean = informative @ X / informative.sum()
    scatter = (X - mean).T @ ((X - mean) * informative[:, None])
    np.testing.assert_allclose(model.embedding_mean_, mean, rtol=1e-10)
    np.testing.assert_allclose(model._moments.scatter, scatter, rtol=1e-9)
    np.testing.assert_allclose(model._moments.weight, informative.sum())
    np.testing.assert_array_equal(model.word_counts_, w @ Y)
    # Negative control: the last chunk alone is something else.
    assert not np.allclose(np.cov(X[200:].T, aweights=w[200:] + 1e-9), scatter / w.sum(), rtol=0.02)
    assert set(np.flatnonzero(w @ Y == 0)) == set(np.flatnonzero(model.bias_ <= -1e4))


EXAMPLES = {
    "50,000 captions": Fit(50_000, 12_000, 384, 384, 10, "sampled", early_stopping=True, x_bytes=2),
    "a million sentences": Fit(1_000_000, 100_000, 512, 1024, 15, "sampled", early_stopping=True, x_bytes=2),
    "a hundred million": Fit(100_000_000, 250_000, 512, 1024, 15, "sampled", early_stopping=True, x_bytes=2),
    "the same, in chunks of a million": Fit(
        1_000_000, 250_000, 512, 1024, 15, "sampled", x_bytes=2, rest={"warm_start": True}
    ),
}


def main() -> None:
    """Print the tables of docs/memory.md."""
    write = sys.stdout.write
    write("| fit | n | V | r | d | words | formula, MiB | measured, MiB |\n")
    for name, fit in FITS.items():
        bound, peak = predicted(fit) + CONSTANT, in_process(peak_of, fit)
        sizes = f"{fit.n:,} | {fit.V:,} | {fit.r} | {fit.d} | {fit.words}"
        write(f"| {name} | {sizes} | {bound / MIB:.0f} | {peak / MIB:.0f} |\n")
    write("\n| fit | n | V | r | d | words | X on disk, GiB | formula, GiB |\n")
    for name, fit in EXAMPLES.items():
        bound, x = predicted(fit) + CONSTANT, fit.n * fit.d * fit.x_bytes
        sizes = f"{fit.n:,} | {fit.V:,} | {fit.r} | {fit.d} | {fit.words}"
        write(f"| {name} | {sizes} | {x / 2**30:.2f} | {bound / 2**30:.2f} |\n")


if __name__ == "__main__":
    main()

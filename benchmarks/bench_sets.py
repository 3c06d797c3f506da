"""Two sets of vectors compared in words: clusters of captions against the rest, random splits, coverage.

The texts are known, so that the words of `compare_sets` can be compared with those of the texts, and with two
other tests: Welch's t test on the same probabilities, and Fisher's exact test on the texts themselves.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import false_discovery_control, hypergeom, norm, spearmanr
from sklearn.cluster import KMeans
from tqdm.auto import tqdm

from benchmarks.data import DEFAULT_DATA, load_captions, positive_int
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import SetComparison, compare_sets
from flip_sklearn.plots import SetComparisonDisplay

N_CLUSTERS, FDR = 12, 0.05
SHARES = (0.5, 0.08)
BANDS = ((1, 20), (20, 100), (100, 500), (500, 10**9))
WORDS_OF_SELECTION, LEAST_TEXTS = 40, 100
# Rows of a random split, and of one whose rows have three copies, as parts of the dev captions.
PART, PART_WITH_COPIES, COPIES = 2, 6, 3
# Rows drawn from a cluster and from the rest, with replacement.
SAMPLE_SIZES = (200, 600)


@dataclass(frozen=True)
class Corpus:
    """Dev captions, which word occurs in which, and a model of other captions."""

    flip: FLiPExtractor
    X: np.ndarray  # (n, d)
    occurs: np.ndarray  # (n, V) bool
    presence: np.ndarray  # (n, V) float32, for Welch's test

    @property
    def frequent(self) -> np.ndarray:
        """Words in at least 20 captions."""
        return self.occurs.sum(axis=0) >= 20

    def compare(self, a: np.ndarray, b: np.ndarray, **groups: Any) -> SetComparison:
        """Compare rows with other rows."""
        return compare_sets(self.flip, self.X[a], self.X[b], fdr=FDR, **groups)

    def true_difference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the difference of the shares of the texts with each word, (V,)."""
        return self.occurs[a].mean(axis=0) - self.occurs[b].mean(axis=0)


def clusters(corpus: Corpus) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of each cluster, and all other rows."""
    label = KMeans(N_CLUSTERS, n_init=1, random_state=0).fit_predict(corpus.X.astype(np.float32))
    return [(np.flatnonzero(label == c), np.flatnonzero(label != c)) for c in range(N_CLUSTERS)]


def welch(corpus: Corpus, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """p-values (V,) of Welch's test of the mean probabilities."""
    parts = [corpus.presence[rows] for rows in (a, b)]
    difference = parts[0].mean(axis=0) - parts[1].mean(axis=0)
    variance = sum(part.var(axis=0, ddof=1) / len(part) for part in parts)
    with np.errstate(invalid="ignore"):
        return 2 * norm.sf(np.abs(np.nan_to_num(difference / np.sqrt(variance))))


def fisher(corpus: Corpus, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two-sided p-values (V,) of Fisher's exact test on the texts, twice the smaller tail."""
    in_a, in_b = (corpus.occurs[rows].sum(axis=0) for rows in (a, b))
    tails = [
        function(count, len(a) + len(b), in_a + in_b, len(a))
        for function, count in ((hypergeom.cdf, in_a), (hypergeom.sf, in_a - 1))
    ]
    return np.minimum(2 * np.minimum(*tails), 1)


def discoveries(p: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return the words (V,) that Benjamini and Hochberg's procedure discovers."""
    found = np.zeros(len(p), dtype=bool)
    found[tested] = false_discovery_control(p[tested]) <= FDR
    return found


def print_clusters(corpus: Corpus, n_draws: int) -> None:
    """Print the agreement with the texts, discoveries of three tests, and coverage."""
    frequent, n_texts = corpus.frequent, corpus.occurs.sum(axis=0)
    rows: dict[str, list[tuple[float, ...]]] = {}
    correlations, covered, sampled = [], [], []
    rng = np.random.default_rng(0)
    for a, b in tqdm(clusters(corpus), desc="clusters", leave=False):
        result, truth = corpus.compare(a, b), corpus.true_difference(a, b)
        counts = corpus.occurs[a].sum(axis=0), corpus.occurs[b].sum(axis=0)
        log_ratio = np.log((counts[0] + 0.5) / (len(a) + 1)) - np.log((counts[1] + 0.5) / (len(b) + 1))
        correlations.append(spearmanr(result.log_ratio[frequent], log_ratio[frequent])[0])
        up = result.difference.value
        found = {
            "compare_sets": result.discovered,
            "Welch's test of the probabilities": discoveries(welch(corpus, a, b), result.tested),
            "Fisher's test of the texts": discoveries(fisher(corpus, a, b), result.tested),
        }
        for name, flags in found.items():
            sign = truth if name.startswith("Fisher") else up
            for words in (frequent, np.ones_like(frequent)):
                chosen = flags & words
                right = np.mean(np.sign(sign[chosen]) == np.sign(truth[chosen]))
                rows.setdefault(name, []).append((chosen.sum(), right))
        inside = (result.difference.low <= truth) & (truth <= result.difference.high)
        covered.append(
            [inside[(n_texts >= low) & (n_texts < high) & result.tested].mean() for low, high in BANDS]
        )
        for _ in range(n_draws // N_CLUSTERS):
            part = corpus.compare(
                *(rng.choice(rows, n) for rows, n in zip((a, b), SAMPLE_SIZES, strict=True))
            )
            ends = part.difference
            words = part.tested & frequent
            for value in (up, truth):
                sampled.append(((ends.low <= value) & (value <= ends.high))[words].mean())
    print(f"rank correlation of log ratios, {frequent.sum()} words: {np.mean(correlations):.3f}\n")
    print(f"| test | discoveries of {frequent.sum()} words | true sign | of all tested words | true sign |")
    print("|---|---|---|---|---|")
    for name, values in rows.items():
        n, right, n_all, right_all = np.nanmean(np.array(values).reshape(N_CLUSTERS, 4), axis=0)
        print(f"| {name} | {n:.0f} | {right:.1%} | {n_all:.0f} | {right_all:.1%} |")
    print("\n| captions with the word | intervals that contain the difference in these texts |\n|---|---|")
    for (low, high), share in zip(BANDS, np.nanmean(covered, axis=0), strict=True):
        print(
            f"| {low} to {high - 1} | {share:.3f} |" if high < 10**9 else f"| {low} or more | {share:.3f} |"
        )
    expected, true = np.array(sampled).reshape(-1, 2).mean(axis=0)
    sizes = " and ".join(map(str, SAMPLE_SIZES))
    print(f"\nsamples of {sizes} rows, {len(sampled) // 2} draws: intervals that")
    print(f"contain the expected difference of all rows {expected:.3f}, the true one {true:.3f}\n")


def print_splits(corpus: Corpus, n_draws: int) -> None:
    """Print how often random splits discover a word."""
    n = len(corpus.X)
    print(
        "| random splits, rows of the first set | draws with a discovery | with copies, in groups | Welch |"
    )
    print("|---|---|---|---|")
    for share in SHARES:
        rng = np.random.default_rng(1)
        found = np.zeros((n_draws, 3))
        for draw in tqdm(range(n_draws), desc=f"splits of {share:.0%}", leave=False):
            order = rng.permutation(n)[: n // PART]
            a, b = np.split(order, [round(share * len(order))])
            result = corpus.compare(a, b)
            found[draw, 0] = result.discovered.any()
            found[draw, 2] = discoveries(welch(corpus, a, b), result.tested).any()
            part = order[: n // PART_WITH_COPIES]
            copies = [np.repeat(rows, COPIES) for rows in np.split(part, [round(share * len(part))])]
            result = corpus.compare(*copies, groups_a=copies[0], groups_b=copies[1])
            found[draw, 1] = result.discovered.any()
        cells = " | ".join(f"{count:.0f} of {n_draws}" for count in found.sum(axis=0))
        print(f"| {share:.0%} | {cells} |")
    print()


def print_selection(corpus: Corpus) -> None:
    """Print the predicted share of the true difference if sets are selected by a word of their texts."""
    n_texts = corpus.occurs.sum(axis=0)
    words = np.flatnonzero((n_texts >= LEAST_TEXTS) & (n_texts <= len(corpus.X) // 2))
    words = words[np.argsort(-n_texts[words])][:: max(1, len(words) // WORDS_OF_SELECTION)]
    own, others = [], []
    for word in tqdm(words, desc="selections", leave=False):
        a, b = np.flatnonzero(corpus.occurs[:, word]), np.flatnonzero(~corpus.occurs[:, word])
        value, truth = corpus.compare(a, b).difference.value, corpus.true_difference(a, b)
        own.append(value[word] / truth[word])
        other = corpus.frequent & (np.arange(len(truth)) != word)
        others.append((value[other] @ truth[other]) / (truth[other] @ truth[other]))
    low, middle, high = np.quantile(own, [0.1, 0.5, 0.9])
    print(
        f"sets of captions with a word and without it, {len(words)} words: predicted difference of the word"
    )
    print(f"{middle:.2f} of the true one (median; {low:.2f} to {high:.2f} for 80 % of the words), of other")
    print(f"words {np.median(others):.2f}")


def draw(corpus: Corpus, path: Path) -> None:
    """Draw the words of the first cluster and of the other captions."""
    result = corpus.compare(*clusters(corpus)[0])
    figure = Figure(figsize=(6.0, 5.6), dpi=80, layout="constrained")
    SetComparisonDisplay.from_result(result, ax=figure.subplots(), names=("the cluster", "other captions"))
    figure.savefig(path)


def main() -> None:
    """Print the tables of docs/compare.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=None, help="training rows; all by default")
    parser.add_argument("--draws", type=positive_int, default=100, help="random splits of each kind")
    parser.add_argument("--picture", type=Path, default=None, help="only draw the first cluster")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = load_captions(args.data, args.rows)
    flip = FLiPExtractor(random_state=0).fit(data.X, data.Y)
    presence = flip.predict_presence(data.X_dev, top_k=data.Y.shape[1]).toarray()
    corpus = Corpus(flip, data.X_dev, data.Y_dev.toarray() > 0, presence)
    if args.picture is not None:
        draw(corpus, args.picture)
        return
    print(f"{data.Y.shape[0]} captions, {data.Y.shape[1]} words, {len(data.X_dev)} dev captions\n")
    print_clusters(corpus, args.draws)
    print_splits(corpus, args.draws)
    print_selection(corpus)


if __name__ == "__main__":
    main()

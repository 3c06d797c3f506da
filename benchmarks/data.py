"""Captions with their embeddings, and synthetic data, for several benchmarks."""

from __future__ import annotations

import argparse
import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer

DEFAULT_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SYNTHETIC_ROWS, SYNTHETIC_DEV_ROWS, SYNTHETIC_TOKENS_PER_ROW = 20_000, 2_000, 10


@dataclass(frozen=True)
class Data:
    """Embeddings and word counts of the training and dev rows."""

    name: str
    X: np.ndarray  # (n, d)
    Y: sp.csr_array  # (n, V)
    X_dev: np.ndarray
    Y_dev: sp.csr_array


def read_lines(path: Path) -> list[str]:
    """Return the lines of a gzipped text file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def read_captions(folder: Path, part: str) -> tuple[np.ndarray, list[str]]:
    """Return the embeddings and the sentences of captions.{part}.en.{npy,txt.gz}."""
    X = np.load(folder / f"captions.{part}.en.npy")
    texts = read_lines(folder / f"captions.{part}.en.txt.gz")
    if len(texts) != len(X):
        raise ValueError(f"captions.{part}.en has {len(texts)} texts and {len(X)} embeddings.")
    return X, texts


def load_captions(folder: Path, rows: int | None) -> Data:
    """Return the captions; the vocabulary is that of the training rows used."""
    X, texts = read_captions(folder, "train")
    X_dev, dev_texts = read_captions(folder, "dev")
    X, texts = X[:rows], texts[:rows]
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    Y = sp.csr_array(vectorizer.fit_transform(texts))
    return Data("captions", X, Y, X_dev, sp.csr_array(vectorizer.transform(dev_texts)))


def make_synthetic(
    n: int, n_words: int, d: int, seed: int, *, exponent: float = 1.0, dev_rows: int = SYNTHETIC_DEV_ROWS
) -> Data:
    """Return Zipf counts, and embeddings linear in them, anisotropic and not centered as real ones.

    The larger ``exponent`` of the word frequencies is, the easier are the words to recover.
    """
    rng = np.random.default_rng(seed)
    frequency = (np.arange(n_words) + 10.0) ** -exponent
    frequency /= frequency.sum()
    total = n + dev_rows
    lengths = 1 + rng.poisson(SYNTHETIC_TOKENS_PER_ROW - 1, size=total)
    columns = rng.choice(n_words, size=lengths.sum(), p=frequency)
    rows = np.repeat(np.arange(total), lengths)
    Y = sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(total, n_words))
    scale = np.arange(1, d + 1) ** -0.25
    words = rng.normal(size=(n_words, d)) * scale
    rarity_weight = np.sqrt(frequency.max() / frequency).clip(max=4.0)
    X = np.asarray(Y @ (words * rarity_weight[:, None]))
    X += rng.normal(size=X.shape) * scale + 2.0 * scale * rng.normal(size=d)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X = X.astype(np.float32)
    trained_words = np.flatnonzero(Y[:n].sum(axis=0) > 0)
    Y = sp.csr_array(Y[:, trained_words])
    return Data("synthetic", X[:n], Y[:n], X[n:], Y[n:])


def positive_int(text: str) -> int:
    """Parse a whole number >= 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 1")
    return value


def positive_float(text: str) -> float:
    """Parse a number > 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number > 0")
    return value

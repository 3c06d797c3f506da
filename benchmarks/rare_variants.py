"""Other ways to use features of the words, on the captions: the table of docs/solver.md.

python -m benchmarks.rare_variants [--rows 50000 --only NAME ...]

Each line changes one thing of ``FLiPExtractor(word_features=...)``. All rank words with the offsets of models
with features, so that lines differ by A and b alone; "no bias" is the plain lift, without an offset.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem

from benchmarks.data import DEFAULT_DATA, positive_int
from benchmarks.rare_captions import (
    BIN_STARTS,
    Captions,
    describe,
    embed_words,
    fit,
    load,
    print_head,
    with_offsets_of_features,
)
from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit.word_prior import WordPrior
from flip_sklearn.estimation.word_features import standardize

POST_HOC_COUNT, LOW_RANK, KERNEL_COMPONENTS = 5.0, 64, 1200
# Tuning of two factors for each bin of counts on held-out rows.
TUNING_ROWS, TUNING_STEPS, TUNING_RATE = 1500, 60, 0.05


@contextmanager
def fixed_map() -> Iterator[None]:
    """Keep G as the closed-form start gives it."""
    with mock.patch.object(WordPrior, "update", return_value=None):
        yield


@contextmanager
def weighted_map(counts: np.ndarray) -> Iterator[None]:
    """Weigh the regression of A on E by the counts of the words."""
    weights = torch.from_numpy(counts / (counts + 20.0)).float()
    with mock.patch.object(WordPrior, "map_of", lambda self, A: self.weighted_map(A, weights)):
        yield


@contextmanager
def low_rank_map() -> Iterator[None]:
    """Keep the largest singular values of G."""
    full = WordPrior.map_of

    def truncated(self: WordPrior, A: torch.Tensor) -> torch.Tensor:
        U, s, Vh = torch.linalg.svd(full(self, A).double(), full_matrices=False)
        return ((U[:, :LOW_RANK] * s[:LOW_RANK]) @ Vh[:LOW_RANK]).to(A)

    with mock.patch.object(WordPrior, "map_of", truncated):
        yield


def predicted_rows(model: FLiPExtractor, data: Captions) -> np.ndarray:
    """Rows of A that the features predict; of a model without features, by a regression on its rows."""
    if hasattr(model, "word_map_"):
        return (data.features - model.word_feature_mean_) @ model.word_map_
    E = standardize(data.features).values
    weighted = E * (data.counts / (data.counts + 20.0))[:, None]
    G = np.linalg.solve(weighted.T @ E + 0.1 * np.eye(E.shape[1]), weighted.T @ model.word_embeddings_)
    rows: np.ndarray = (E @ G).astype(model.word_embeddings_.dtype)
    return rows


def post_hoc(model: FLiPExtractor, data: Captions) -> FLiPExtractor:
    """Add the predicted rows to those of a model without features, with weight 5 / (count + 5)."""
    weight = POST_HOC_COUNT / (data.counts + POST_HOC_COUNT)
    rows = weight[:, None] * predicted_rows(model, data)
    model.word_embeddings_ = model.word_embeddings_ + rows.astype(np.float32)
    return model


def tuned_by_bin(model: FLiPExtractor, data: Captions) -> FLiPExtractor:
    """A = s M + t (A - M) with the predicted rows M, and b + u, chosen for each bin on held-out rows."""
    M = torch.from_numpy(np.ascontiguousarray(predicted_rows(model, data), dtype=np.float32))
    D = torch.from_numpy(model.word_embeddings_) - M
    held_out = model._held_out[:TUNING_ROWS]
    H = torch.from_numpy(
        ((data.X[held_out] - model.embedding_mean_) @ model.projection_.T).astype(np.float32)
    )
    Y = data.Y[held_out].tocoo()
    row, word, count = (torch.from_numpy(a.astype(np.int64)) for a in (Y.row, Y.col, Y.data))
    total = torch.zeros(len(H)).index_add_(0, row, count.float())
    by_map, by_rest, b = H @ M.T, H @ D.T, torch.from_numpy(model.bias_)
    place = torch.from_numpy(np.searchsorted(BIN_STARTS, data.counts, side="right") - 1)
    factors = torch.tensor([[1.0], [1.0], [0.0]]).repeat(1, len(BIN_STARTS)).requires_grad_()
    optimizer = torch.optim.Adam([factors], lr=TUNING_RATE)
    for _ in range(TUNING_STEPS):
        s, t, u = factors[:, place]
        z = b + u + s * by_map + t * by_rest
        loss = (total @ z.logsumexp(dim=1) - (count * z[row, word]).sum()) / count.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    s, t, u = factors.detach()[:, place]
    print("factors of M, of A - M, and u:", factors.detach().numpy().round(2).tolist())
    model.word_embeddings_ = (s[:, None] * M + t[:, None] * D).numpy()
    model.bias_ = torch.log_softmax(b + u, dim=0).numpy()
    return model


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=positive_int, default=50_000)
    parser.add_argument("--only", nargs="*", default=[], help="names of variants; all if none is given")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    data = load(options.data, options.rows)
    E, counts = data.features, data.counts

    def kernel() -> np.ndarray:
        map_ = Nystroem(kernel="rbf", gamma=1.0, n_components=KERNEL_COMPONENTS, random_state=0)
        features: np.ndarray = map_.fit_transform(E).astype(np.float32)
        return features

    def template() -> np.ndarray:
        return np.hstack([E, embed_words([f"A picture of {word}." for word in data.words])])

    def train(features: Any = None, **params: Any) -> FLiPExtractor:
        return fit(data, E if features is None else features, **params)

    def within(context: Any) -> FLiPExtractor:
        with context:
            return train()

    def plain(**params: Any) -> FLiPExtractor:
        return fit(data, None, **params)

    variants: dict[str, Callable[[], FLiPExtractor]] = {
        "no features": plain,
        "no features, l2 = 50": lambda: plain(l2_strength=50.0),
        "no features, l2 = 150": lambda: plain(l2_strength=150.0),
        "no features, predicted rows added": lambda: post_hoc(plain(), data),
        "no features, tuned by count": lambda: tuned_by_bin(plain(), data),
        "default": train,
        "l2 = 20": lambda: train(l2_strength=20.0),
        "l2 = 35": lambda: train(l2_strength=35.0),
        "l2 = 70": lambda: train(l2_strength=70.0),
        "l2 = 150": lambda: train(l2_strength=150.0),
        "tuned by count": lambda: tuned_by_bin(train(), data),
        "G as at the start": lambda: within(fixed_map()),
        "G weighted by counts": lambda: within(weighted_map(counts)),
        "G of rank 64": lambda: within(low_rank_map()),
        "Nystroem kernel features": lambda: train(kernel()),
        "words in a sentence beside": lambda: train(template()),
        "exact softmax": lambda: train(solver="exact"),
        "rate 0.03": lambda: train(learning_rate=0.03),
        "l1 = 0": lambda: train(l1_strength=0.0),
        "LiP": lambda: train(rank=None),
    }
    print_head(data)
    for name in options.only or variants:
        began = time.process_time()
        model = with_offsets_of_features(variants[name](), data)
        del model.lift_offset_
        describe(name, model, data, time.process_time() - began)


if __name__ == "__main__":
    main()

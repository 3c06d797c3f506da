"""Methods that rank words by an embedding alone, for ``bench_alternatives``: FLiP and what else there is.

Each reader has ``fit``, ``top`` (the best words of rows, as columns) and ``n_bytes``, the size of what it
keeps. The sparse autoencoder and the baselines are written here, in few lines; they are not published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch

from flip_sklearn import FLiPExtractor
from flip_sklearn.splice import SpLiCEExtractor

BLOCK_ROWS = 512
SAE_BATCH_ROWS = 512


@dataclass(frozen=True)
class Training:
    """Training rows, and the embeddings of the words by the same encoder."""

    X: np.ndarray  # (n, d)
    Y: sp.csr_array  # counts (n, V)
    words: np.ndarray  # (V,)
    word_vectors: np.ndarray  # (V, d)

    def rows(self, rows: slice) -> Training:
        """Return some of the rows."""
        return Training(self.X[rows], self.Y[rows], self.words, self.word_vectors)

    @property
    def has_word(self) -> sp.csr_array:
        """1 where a row has a word, float32 (n, V)."""
        return sp.csr_array((self.Y > 0).astype(np.float32))


class Reader:
    """Ranks the V words by scores."""

    def fit(self, data: Training) -> Self:
        """Learn from the training rows."""
        raise NotImplementedError

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the scores (m, V) of a block of rows."""
        raise NotImplementedError

    def arrays(self) -> list[Any]:
        """Return what is needed to read a row."""
        raise NotImplementedError

    def top(self, X: np.ndarray, k: int) -> np.ndarray:
        """Return the columns (n, k) of the best words, best first; -1 if a row has fewer."""
        blocks = [X[first : first + BLOCK_ROWS] for first in range(0, len(X), BLOCK_ROWS)]
        return np.concatenate([torch.from_numpy(self.scores(block)).topk(k).indices for block in blocks])

    def n_bytes(self) -> int:
        """Return the size of the arrays, with the indices of sparse ones."""
        parts: list[np.ndarray] = []
        for array in self.arrays():
            parts += [array.data, array.indices, array.indptr] if sp.issparse(array) else [array]
        return sum(part.nbytes for part in parts)


class MostFrequent(Reader):
    """The most frequent words of training, for all rows."""

    def fit(self, data: Training) -> Self:
        """Count."""
        self.counts = data.has_word.sum(axis=0)
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the counts."""
        return np.tile(self.counts, (len(X), 1))

    def arrays(self) -> list[Any]:
        """Return the counts."""
        return [self.counts]


class NearestWords(Reader):
    """Words whose own embedding has the largest cosine: the ranking of KeyBERT, over all words."""

    def __init__(self, centred: bool = False) -> None:
        self.centred = centred

    def fit(self, data: Training) -> Self:
        """Normalize the embeddings of the words."""
        D = data.word_vectors
        self.mean = data.X.mean(axis=0) if self.centred else np.zeros(D.shape[1], np.float32)
        D = D - D.mean(axis=0) if self.centred else D
        self.directions = D / np.linalg.norm(D, axis=1, keepdims=True)
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return cosines, times the length of the row, which does not change its ranking."""
        scores: np.ndarray = (X - self.mean) @ self.directions.T
        return scores

    def arrays(self) -> list[Any]:
        """Return the embeddings of the words."""
        return [self.mean, self.directions]


class NearestTexts(Reader):
    """Words of the training texts whose embeddings have the largest cosines, weighted by exp(cosine / t)."""

    def __init__(self, n_neighbors: int = 50, temperature: float = 0.05) -> None:
        self.n_neighbors = n_neighbors
        self.temperature = temperature

    def fit(self, data: Training) -> Self:
        """Keep the rows."""
        self.X = data.X / np.linalg.norm(data.X, axis=1, keepdims=True)
        self.has_word = data.has_word
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the weighted share of the neighbors that have each word."""
        cosines = torch.from_numpy(X / np.linalg.norm(X, axis=1, keepdims=True)) @ torch.from_numpy(self.X).T
        best = cosines.topk(self.n_neighbors)
        weights = torch.softmax(best.values / self.temperature, dim=1)
        starts = np.arange(0, weights.numel() + 1, self.n_neighbors)
        shape = (len(X), len(self.X))
        neighbors = sp.csr_array((weights.numpy().ravel(), best.indices.numpy().ravel(), starts), shape=shape)
        scores: np.ndarray = (neighbors @ self.has_word).toarray()
        return scores

    def arrays(self) -> list[Any]:
        """Return all training rows."""
        return [self.X, self.has_word]


class RidgeReader(Reader):
    """Ridge regression of "the text has the word" on the embedding, for all words at once.

    The coefficients are those of ``sklearn.linear_model.Ridge`` with alpha times the mean eigenvalue of the
    scatter matrix of X. Ridge needs Y as a dense array; the normal equations need X^T Y only.
    """

    def __init__(self, alpha: float = 0.1, use_intercept: bool = True) -> None:
        self.alpha = alpha
        self.use_intercept = use_intercept

    def fit(self, data: Training) -> Self:
        """Solve the normal equations."""
        X = data.X.astype(np.float64)
        self.mean = X.mean(axis=0)
        X -= self.mean
        has_word = data.has_word
        scatter = X.T @ X
        penalty = self.alpha * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
        self.coefficients = np.linalg.solve(scatter + penalty, (has_word.T @ X).T).astype(np.float32)
        self.mean = self.mean.astype(np.float32)
        self.intercept = has_word.mean(axis=0, dtype=np.float32)
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the predictions, with the intercept or without."""
        scores: np.ndarray = (X - self.mean) @ self.coefficients
        return scores + self.intercept if self.use_intercept else scores

    def arrays(self) -> list[Any]:
        """Return the coefficients (d, V), the intercept and the mean."""
        return [self.coefficients, self.intercept, self.mean]


class SparseAutoencoder(Reader):
    """Words of the features of a k-sparse autoencoder of the embeddings (Gao et al. 2024).

    The code z of a row has the k largest of W (x - mu) + c, if positive, for F features. D^T z + mu is
    trained to be the row; W and D start from the same random rows. Training sees no text. Then each feature
    f has the shares m_fj = sum_n z_nf [text n has word j] / sum_n z_nf. The score of a word is

        sum_f z_f m_fj                                   with ``n_names=None``
        sum_f z_f (m_fj - p_j) / sqrt(p_j)               otherwise,

    p_j being the share of all texts. The second sum is over features that have the word among their
    ``n_names`` words of largest (m_fj - p_j) / sqrt(p_j), which are their names.
    """

    def __init__(
        self, n_features: int = 2048, k: int = 32, n_names: int | None = None, n_steps: int = 1500
    ) -> None:
        self.n_features = n_features
        self.k = k
        self.n_names = n_names
        self.n_steps = n_steps

    def fit(self, data: Training) -> Self:
        """Train the autoencoder, then find the words of its features."""
        self._train(data.X)
        codes = [self.codes(data.X[i : i + BLOCK_ROWS]) for i in range(0, len(data.X), BLOCK_ROWS)]
        Z = sp.csr_array(sp.vstack(codes))
        activity = Z.sum(axis=0)
        self.share_dead = float((activity == 0).mean())
        shares = (Z.T @ data.has_word).toarray() / np.maximum(activity, 1e-12)[:, None]
        if self.n_names is not None:
            expected = data.has_word.mean(axis=0)
            names = np.maximum(shares - expected, 0) / np.sqrt(np.maximum(expected, 1e-12))
            smallest = -np.partition(-names, self.n_names - 1, axis=1)[:, self.n_names - 1 :][:, :1]
            shares = np.where(names >= smallest, names, 0)
        self.features = sp.csr_array(shares.astype(np.float32))
        return self

    def _train(self, X: np.ndarray) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.from_numpy(X)
        self.mean = rows.mean(dim=0)
        self.scale = (rows - self.mean).norm(dim=1).mean()
        rows = (rows - self.mean) / self.scale
        start = rows[torch.randint(len(rows), (self.n_features,), generator=generator)]
        start = start / start.norm(dim=1, keepdim=True).clamp_min(1e-12)
        self.encoder, decoder = (start.clone().requires_grad_() for _ in range(2))
        self.threshold = torch.zeros(self.n_features, requires_grad=True)
        optimizer = torch.optim.Adam([self.encoder, decoder, self.threshold], lr=1e-3)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, self.n_steps)
        for _ in range(self.n_steps):
            batch = rows[torch.randint(len(rows), (SAE_BATCH_ROWS,), generator=generator)]
            best = self._activations(batch)
            z = torch.zeros(len(batch), self.n_features).scatter(1, best.indices, best.values.relu())
            loss = (z @ decoder - batch).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                decoder /= decoder.norm(dim=1, keepdim=True)
        self.unexplained = loss.item()
        self.encoder.requires_grad_(False)
        self.threshold.requires_grad_(False)

    def _activations(self, rows: torch.Tensor) -> Any:
        return (rows @ self.encoder.T + self.threshold).topk(self.k)

    def codes(self, X: np.ndarray) -> sp.csr_array:
        """Return the codes (m, F) of a block of rows."""
        best = self._activations((torch.from_numpy(X) - self.mean) / self.scale)
        starts = np.arange(0, best.indices.numel() + 1, self.k)
        parts = (best.values.relu().numpy().ravel(), best.indices.numpy().ravel(), starts)
        return sp.csr_array(parts, shape=(len(X), self.n_features))

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return the words of the active features, weighted by the code."""
        scores: np.ndarray = (self.codes(X) @ self.features).toarray()
        return scores

    def arrays(self) -> list[Any]:
        """Return the encoder and the words of the features."""
        return [self.encoder.numpy(), self.threshold.numpy(), self.features]


class NamedReader(Reader):
    """A model of the package, which names its words."""

    model: Any

    def top(self, X: np.ndarray, k: int) -> np.ndarray:
        """Return the columns of ``extract_keywords``."""
        column_of = {word: j for j, word in enumerate(self.model.vocabulary_)}
        top = np.full((len(X), k), -1)
        for row, keywords in zip(top, self.model.extract_keywords(X, top_k=k), strict=True):
            row[: len(keywords)] = [column_of[word] for word in keywords]
        return top


class SpLiCE(NamedReader):
    """Words of the sparse nonnegative combination of word embeddings that approximates the row."""

    def __init__(self, l1_strength: float = 0.25) -> None:
        self.l1_strength = l1_strength

    def fit(self, data: Training) -> Self:
        """Compute the mean."""
        model = SpLiCEExtractor(data.word_vectors, vocabulary=data.words, l1_strength=self.l1_strength)
        self.model = model.fit(data.X)
        return self

    def arrays(self) -> list[Any]:
        """Return the embeddings of the words and two means."""
        return [self.model.concepts_, self.model.concept_mean_, self.model.embedding_mean_]


class FLiP(NamedReader):
    """FLiPExtractor with its defaults; LiP is ``rank=None``."""

    def __init__(
        self, rank: int | str | None = "auto", use_bias: bool = True, use_word_vectors: bool = False
    ) -> None:
        self.rank = rank
        self.use_bias = use_bias
        self.use_word_vectors = use_word_vectors

    def fit(self, data: Training) -> Self:
        """Fit the model."""
        model = FLiPExtractor(
            self.rank,
            use_bias=self.use_bias,
            vocabulary=data.words,
            word_features=data.word_vectors if self.use_word_vectors else None,
            random_state=0,
        )
        self.model = model.fit(data.X, data.Y)
        return self

    def arrays(self) -> list[Any]:
        """Return A, B, b, mu and the offset for ranking."""
        names = ("word_embeddings_", "projection_", "bias_", "embedding_mean_", "ranking_offset_")
        return [array for name in names if (array := getattr(self.model, name)) is not None]

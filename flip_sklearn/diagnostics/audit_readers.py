"""The readers that :func:`leakage` trains: a linear model for each word, and one neural network for all."""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np
from scipy.special import logit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from flip_sklearn.backend.fit.whitening import Moments
from flip_sklearn.eraser import pseudo_whitening

# Passes of the network over its training rows. Held-out rows would stop it too early: for many passes the
# best guess is that no word occurs.
_N_PASSES = 30


class Reader(Protocol):
    """A model that scores embeddings (n, d) for words (n, m)."""

    def fit(self, X: np.ndarray, labels: np.ndarray) -> Reader:
        """Train on embeddings and bool labels (n, m)."""

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return scores (n, m), larger where a word is more likely."""


class LinearReader:
    """Logistic regression on whitened embeddings, one for each word.

    In whitened coordinates a strong penalty shrinks towards the linear discriminant, which finds more of rare
    words than a weak one. The solver starts at the best constant, where it stays if the embeddings have no
    covariance with the word: from another start, coefficients of the size of its tolerance would order the
    rows.
    """

    def fit(self, X: np.ndarray, labels: np.ndarray) -> LinearReader:
        """Train on embeddings and bool labels (n, m)."""
        self._mean = X.mean(axis=0, dtype=np.float64)
        centred = X - self._mean
        moments = Moments(float(len(X)), self._mean, centred.T @ centred)
        self._whitening = pseudo_whitening(moments)[0]
        whitened = centred @ self._whitening
        self._models = []
        for has_word in labels.T:
            model = LogisticRegression(C=1e-3, tol=1e-6, max_iter=300, warm_start=True)
            model.coef_ = np.zeros((1, whitened.shape[1]))
            model.intercept_ = logit(has_word.mean(keepdims=True))
            self._models.append(model.fit(whitened, has_word))
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return log-odds (n, m)."""
        whitened = (X - self._mean) @ self._whitening
        return np.stack([model.decision_function(whitened) for model in self._models], axis=1)


class NetworkReader:
    """A neural network of one hidden layer on standardized embeddings, one for all words."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, X: np.ndarray, labels: np.ndarray) -> NetworkReader:
        """Train on embeddings and bool labels (n, m)."""
        self._mean, deviation = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
        # Columns that vary by rounding only are left out.
        self._scale = np.where(deviation > 1e-6 * deviation.max(), 1 / np.maximum(deviation, 1e-300), 0.0)
        self._is_multilabel = labels.shape[1] > 1
        # Smaller batches of few rows, for enough steps. The penalty is relative to their size.
        size = int(np.clip(len(X) // 20, 16, 200))
        self._network = MLPClassifier(
            (256,),
            alpha=size / 200,
            batch_size=size,
            max_iter=_N_PASSES,
            n_iter_no_change=_N_PASSES,
            random_state=self._seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._network.fit(self._prepare(X), labels if self._is_multilabel else labels[:, 0])
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities (n, m)."""
        probabilities = np.asarray(self._network.predict_proba(self._prepare(X)))
        return probabilities if self._is_multilabel else probabilities[:, 1:]

    def _prepare(self, X: np.ndarray) -> np.ndarray:
        prepared: np.ndarray = ((X - self._mean) * self._scale).astype(np.float32)
        return prepared

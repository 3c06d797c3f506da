"""Controls of a word probe: models that see only the context of a word, or learn labels without meaning."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import show_progress
from flip_sklearn.metrics import ranking
from flip_sklearn.parameters import check_random_state, is_integer

# Number of models of the context. With more, less of the context is left out, and more fits are made.
_N_FOLDS = 5


@dataclass(frozen=True)
class Occurrences:
    """P pairs of a row and one of its words: the words whose recall is measured.

    ``truth`` (n, V) has the distinct words of all rows.
    """

    truth: sp.csr_array
    rows: np.ndarray
    words: np.ndarray

    @property
    def n_row_words(self) -> np.ndarray:
        """Number of distinct words in the row of each pair."""
        n_words: np.ndarray = np.diff(self.truth.indptr)[self.rows]
        return n_words

    def take(self, chosen: np.ndarray) -> Occurrences:
        """Some of the pairs."""
        return Occurrences(self.truth, self.rows[chosen], self.words[chosen])


def find_each(
    model: FLiPExtractor, X: np.ndarray, words: np.ndarray, k: np.ndarray, bias: bool
) -> np.ndarray:
    """Return, for each row of X, whether its word is among its k best words; words and k have one a row."""
    found = np.zeros(len(words), dtype=bool)
    for rows in ranking.row_blocks(len(words), int(k.max(initial=1))):
        top = model._top_words(X[rows], int(k[rows].max()), bias)
        is_near = np.arange(top.shape[1]) < k[rows, None]
        found[rows] = ((top == words[rows, None]) & is_near).any(axis=1)
    return found


class ContextModels:
    """Models of the same class and parameters whose inputs lack the words that they are to name.

    The measured words are divided into folds. The input of the model of a fold is the sum of the vectors of
    a row's words, in as many dimensions as an embedding has, without the words of the fold; its target is
    all words of the row.
    """

    def __init__(
        self, model: FLiPExtractor, counts: sp.csr_array, measured: np.ndarray, seed: int, verbose: int
    ) -> None:
        words = ranking.binary_csr(counts).astype(np.float32)
        self.vectors = _word_vectors(words.shape[1], min(model.n_features_in_, words.shape[1]), seed)
        self.fold_of = np.full(words.shape[1], -1)
        self.fold_of[measured] = _make_folds(words, measured)
        folds = range(int(self.fold_of.max()) + 1)
        bar = show_progress(folds, desc="models of the context", unit="fit", disable=not verbose)
        self.models = [
            make_control(model, self.vectors.shape[1], seed).fit(
                self._inputs(words, self.fold_of == fold), counts
            )
            for fold in bar
        ]

    def find(self, pairs: Occurrences, n_guesses: np.ndarray, bias: bool) -> np.ndarray:
        """Whether each word is among the ``n_guesses`` best words that are not other words of its row."""
        found = np.zeros(len(pairs.rows), dtype=bool)
        for fold, model in enumerate(self.models):
            chosen = np.flatnonzero(self.fold_of[pairs.words] == fold)
            found[chosen] = self._find_in_fold(model, fold, pairs.take(chosen), n_guesses[chosen], bias)
        return found

    def _find_in_fold(
        self, model: FLiPExtractor, fold: int, pairs: Occurrences, n_guesses: np.ndarray, bias: bool
    ) -> np.ndarray:
        found = np.zeros(len(pairs.rows), dtype=bool)
        width = n_guesses + pairs.n_row_words
        for block in ranking.row_blocks(len(found), max(int(width.max(initial=1)), self.vectors.shape[1])):
            part = pairs.take(block)
            rows = part.truth[part.rows]
            X = self._inputs(rows.astype(np.float32), self.fold_of == fold)
            top = model._top_words(X, int(width[block].max()), bias)
            is_word = top == part.words[:, None]
            is_other = ranking.find_words(rows, top)[1] & ~is_word
            n_before = np.cumsum(~is_other, axis=1)
            found[block] = (is_word & (n_before <= n_guesses[block, None])).any(axis=1)
        return found

    def _inputs(self, words: sp.csr_array, is_left_out: np.ndarray) -> np.ndarray:
        inputs: np.ndarray = words @ np.where(is_left_out[:, None], np.float32(0), self.vectors)
        return inputs


def _word_vectors(n_words: int, n_dimensions: int, seed: int) -> np.ndarray:
    """Random vectors of the words, (V, d), which hold them equally well; unit vectors if d is V."""
    if n_dimensions == n_words:
        return np.eye(n_dimensions, dtype=np.float32)
    vectors = check_random_state(seed).standard_normal((n_words, n_dimensions))
    return np.asarray(vectors / np.sqrt(n_dimensions), dtype=np.float32)


def _make_folds(words: sp.csr_array, measured: np.ndarray) -> np.ndarray:
    """The fold of each measured word, such that words of one fold share few rows: each is context of others.

    The most frequent word is placed first, each in the fold whose words share the fewest rows with it.
    """
    n_folds = min(_N_FOLDS, len(measured))
    columns = sp.csc_array(words)[:, measured]
    order = np.argsort(-np.diff(columns.indptr), kind="stable")
    folds = np.zeros(len(measured), dtype=np.int64)
    n_in_row = np.zeros((n_folds, words.shape[0]), dtype=np.float32)
    n_words = np.zeros(n_folds)
    for j in order:
        rows = columns.indices[columns.indptr[j] : columns.indptr[j + 1]]
        shared = n_in_row[:, rows].sum(axis=1)
        folds[j] = np.lexsort((n_words, shared))[0]
        n_in_row[folds[j], rows] += 1
        n_words[folds[j]] += 1
    return folds


def fit_labels(
    model: FLiPExtractor, X: Any, counts: sp.csr_array, label_of: np.ndarray, seed: int, verbose: int
) -> FLiPExtractor:
    """Fit a model to the control task of Hewitt and Liang (2019); ``label_of`` (V,) are columns."""
    fitted: FLiPExtractor = make_control(model, model.n_features_in_, seed, verbose).fit(
        X, to_labels(counts, label_of)
    )
    return fitted


def to_labels(counts: sp.csr_array, label_of: np.ndarray) -> sp.csr_array:
    """Counts (n, V) of labels, from counts of words."""
    n_words = len(label_of)
    ones = np.ones(n_words, dtype=np.float32)
    membership = sp.csr_array((ones, (np.arange(n_words), label_of)), shape=(n_words, n_words))
    return sp.csr_array(counts.astype(np.float32) @ membership)


def find_words_of_rows(model: FLiPExtractor, X: np.ndarray, truth: sp.csr_array, bias: bool) -> sp.csr_array:
    """The words of each row that are among its best words, as many as the row has."""
    return ranking.stream_hits(truth, lambda rows, n_top: model._top_words(X[rows], n_top, bias))


def make_control(model: FLiPExtractor, n_dimensions: int, seed: int, verbose: int = 0) -> FLiPExtractor:
    """An unfitted copy of a model for inputs of ``n_dimensions``, without checkpoints of the model's fit."""
    control: FLiPExtractor = clone(model).set_params(checkpoint_dir=None, warm_start=False, verbose=verbose)
    rank: Any = control.rank
    if is_integer(rank):
        control.set_params(rank=min(int(rank), n_dimensions))
    if control.random_state is None:
        control.set_params(random_state=seed)
    return control


def quiet(model: FLiPExtractor) -> FLiPExtractor:
    """A copy of a fitted model without progress bars, for arrays without feature names."""
    copied: FLiPExtractor = copy.copy(model).set_params(verbose=0)
    copied.__dict__.pop("feature_names_in_", None)
    return copied

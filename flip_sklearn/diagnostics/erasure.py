"""Word erasure: minimal-change removal of words from embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.backend.device import as_shared_tensor
from flip_sklearn.backend.scoring.scorer import Scorer
from flip_sklearn.backend.sparse_coding.lasso import nonnegative_lasso
from flip_sklearn.diagnostics.frames import grid
from flip_sklearn.diagnostics.inputs import check_model, check_words
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import as_numpy

# Elements of a block of rows, or of their scores over the vocabulary: 2**22 float64 are 32 MiB.
_BLOCK_ELEMENTS = 2**22


@dataclass(frozen=True, eq=False)
class ErasedWords:
    """Result of :func:`erase_words`, for n embeddings and m words.

    Attributes
    ----------
    X : ndarray of shape (n, d)
        The embeddings without the words; rows with none of the words are unchanged, bit for bit.
    words : tuple of str
        The erased words, each once.
    score_before, score_after : ndarray of shape (n, m)
        Lift of each word, its score without bias, in nats; ``score_after`` is at most 0, up to rounding.
    rank_before, rank_after : ndarray of shape (n, m) of int
        Rank of the word among all words, 1 for the best, with or without bias as the model's ``use_bias``.
    distance : ndarray of shape (n,)
        Euclidean distance between a row before and after.
    cosine : ndarray of shape (n,)
        Cosine between a row before and after; nan for zero vectors.
    """

    X: np.ndarray
    words: tuple[str, ...]
    score_before: np.ndarray
    score_after: np.ndarray
    rank_before: np.ndarray
    rank_after: np.ndarray
    distance: np.ndarray
    cosine: np.ndarray

    def to_frame(self) -> Any:
        """One row for each embedding and word.

        Returns
        -------
        pandas.DataFrame
            Columns ``row``, ``word``, ``score_before``, ``score_after``, ``rank_before``,
            ``rank_after``, and the ``distance`` and ``cosine`` of the embedding.
        """
        table = grid(row=range(len(self.X)), word=self.words)
        for name in ("score_before", "score_after", "rank_before", "rank_after"):
            table[name] = getattr(self, name).ravel()
        for name in ("distance", "cosine"):
            table[name] = np.repeat(getattr(self, name), len(self.words))
        return data_frame(table)

    def __repr__(self) -> str:
        moved = int((self.distance > 0).sum())
        parts = []
        for j, word in enumerate(self.words):
            has_word = self.score_before[:, j] > 0
            if not has_word.any():
                parts.append(f"{word} in none")
                continue
            before, after = (s[has_word, j].mean() for s in (self.score_before, self.score_after))
            lifts = f"lift {before:.2f} -> {min(after, 0):.2f}"  # rounding may leave it slightly above 0
            before, after = (np.median(r[has_word, j]) for r in (self.rank_before, self.rank_after))
            parts.append(f"{word} in {has_word.sum()}, {lifts}, rank {before:.0f} -> {after:.0f}")
        return f"ErasedWords({moved} of {len(self.X)} embeddings moved: {'; '.join(parts)})"


def erase_words(model: FLiPExtractor, X: Any, words: Any) -> ErasedWords:
    """Remove words from embeddings by the smallest change that leaves the model no lift for them.

    With g_j = B^T a_j the direction of word j, the lift of the word in an embedding x is its score without
    bias, g_j . (x - mu). Each row becomes the nearest embedding with no lift for any of the words S:

        x' = argmin_y |y - x|^2   subject to   g_j . (y - mu) <= 0 for every j in S.

    That is mu plus the projection of x - mu on the polar cone of the directions, so by Moreau's theorem

        x' = x - sum_j w_j g_j,   w = argmin_{w >= 0} |x - mu - sum_j w_j g_j|^2,

    a small non-negative least-squares problem for each row, solved exactly.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted model. Its ``use_bias`` applies to the ranks in the result; the lift does not depend on it.
    X : array-like of shape (n, d)
        Embeddings, as ``model.transform`` takes them.
    words : str or sequence of str
        Words of the model's vocabulary. "dog" does not include "dogs": list all forms of a word.

    Returns
    -------
    ErasedWords
        The new embeddings, float64 for float64 input and float32 otherwise, with scores and ranks before
        and after.

    Raises
    ------
    ValueError
        If ``words`` is empty, or has a word that is not in the vocabulary or in no training sentence; if
        the model is not a FLiPExtractor, or X does not match it.

    Notes
    -----
    With bias, a frequent word keeps its b_j, which is part of the model and not of the embedding. Rows do
    not keep their length, since mu is not zero; embeddings of unit length get a little shorter, and
    normalizing them again changes the lift by (1 / \\|x'\\| - 1) g_j . mu.

    The words are removed for this model only: a new model trained on the erased embeddings finds most of
    them again (docs/diagnostics.md). Erasure against newly trained linear models needs labels and a much
    larger change: Belrose et al. (2023), LEACE, arXiv 2306.03819.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import erase_words
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 5))
    >>> X = Y @ rng.normal(size=(5, 12))
    >>> flip = FLiPExtractor(rank=5, vocabulary=["red", "green", "blue", "dog", "cat"],
    ...                      max_iter=200, random_state=0).fit(X, Y)
    >>> sentence = np.array([[0, 1, 0, 1, 0]]) @ np.linalg.lstsq(Y, X)[0]
    >>> erased = erase_words(flip, sentence, "dog")
    >>> sorted(flip.extract_keywords(sentence, top_k=2)[0]), flip.extract_keywords(erased.X, top_k=1)
    (['dog', 'green'], [['green']])
    >>> bool(erased.score_after[0, 0] < 1e-9 < erased.score_before[0, 0])
    True
    """
    model = check_model(model)
    X = as_numpy(scoring.fitted_input(model, X))
    names, columns = check_words(model, words)
    scorer = scoring.make_scorer(model)  # one for all ranks, which prepares A once
    A = model.word_embeddings_[columns]
    if not isinstance(A, np.ndarray):
        A = A.toarray()
    directions = A.astype(np.float64) @ model.projection_.astype(np.float64)  # the g_j, (m, d)
    mean = model.embedding_mean_.astype(np.float64)
    n, m = len(X), len(names)
    erased = np.empty(X.shape, dtype=scoring.output_dtype(X))
    before, after = np.empty((n, m)), np.empty((n, m))
    distance, cosine = np.empty(n), np.empty(n)
    step = max(1, _BLOCK_ELEMENTS // X.shape[1])
    for first in range(0, n, step):
        rows = slice(first, first + step)
        x = X[rows].astype(np.float64)
        before[rows] = (x - mean) @ directions.T
        y = x.copy()
        changed = np.flatnonzero((before[rows] > 0).any(axis=1))
        y[changed] -= _project_on_cone(directions, x[changed] - mean)
        erased[rows] = y
        y = erased[rows].astype(np.float64)  # the results are of the embeddings as returned
        after[rows] = (y - mean) @ directions.T
        distance[rows] = np.linalg.norm(y - x, axis=1)
        with np.errstate(invalid="ignore"):
            cosine[rows] = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return ErasedWords(
        X=erased,
        words=names,
        score_before=before,
        score_after=after,
        rank_before=_ranks(model, scorer, X, columns),
        rank_after=_ranks(model, scorer, erased, columns),
        distance=distance,
        cosine=cosine,
    )


def _project_on_cone(directions: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """Project each row on the cone of the directions."""
    if not len(centred):
        return centred
    # The error may be as large as the square root of the duality gap, so tol=0: iterate up to rounding.
    lasso = nonnegative_lasso(as_shared_tensor(directions), as_shared_tensor(centred), 0.0, tol=0.0)
    weights = np.zeros((len(centred), len(directions) + 1))  # the last column is for padding, -1
    np.put_along_axis(weights, lasso.indices.numpy(), lasso.weights.numpy(), axis=1)
    return np.asarray(weights[:, :-1] @ directions)


def _ranks(model: FLiPExtractor, scorer: Scorer, X: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Rank of each word among all words; ties are ranked by column, as in extraction."""
    ranks = np.empty((len(X), len(columns)), dtype=np.int64)
    step = max(1, _BLOCK_ELEMENTS // len(model.vocabulary_))
    with scoring.progress(model, len(X)) as bar:
        for first in range(0, len(X), step):
            scores = as_numpy(scorer.dense(X[first : first + step], "scores"))
            for i, column in enumerate(columns):
                score = scores[:, column, None]
                n_better = (scores > score).sum(axis=1)
                n_tied_before = (scores[:, :column] == score).sum(axis=1)
                ranks[first : first + step, i] = n_better + n_tied_before + 1
            bar.update(len(scores))
    return ranks

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
from flip_sklearn.eraser import WordEraser
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import check_counts_of
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import check_choice

# Elements of a block of rows, or of their scores over the vocabulary: 2**22 float64 are 32 MiB.
_BLOCK_ELEMENTS = 2**22
GUARDS = ("model", "linear")


@dataclass(frozen=True, eq=False)
class ErasedWords:
    """Result of :func:`erase_words`, for n embeddings and m words.

    Attributes
    ----------
    X : ndarray of shape (n, d)
        The embeddings without the words. With ``guard="model"``, rows in which the model reads none of the
        words are unchanged, bit for bit.
    words : tuple of str
        The erased words, each once.
    score_before, score_after : ndarray of shape (n, m)
        Lift of each word, its score without bias, in nats. With ``guard="model"``, ``score_after`` is at most
        0, up to rounding.
    rank_before, rank_after : ndarray of shape (n, m) of int
        Rank of the word among all words, 1 for the best, with or without bias as the model's ``use_bias``.
    distance : ndarray of shape (n,)
        Euclidean distance between a row before and after.
    cosine : ndarray of shape (n,)
        Cosine between a row before and after; nan for zero vectors.
    eraser : WordEraser or None
        With ``guard="linear"``, the fitted transformer, which erases the words from new embeddings.
    """

    X: np.ndarray
    words: tuple[str, ...]
    score_before: np.ndarray
    score_after: np.ndarray
    rank_before: np.ndarray
    rank_after: np.ndarray
    distance: np.ndarray
    cosine: np.ndarray
    eraser: WordEraser | None = None

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
            if self.eraser is None:
                after = min(after, 0)  # rounding may leave it slightly above 0
            lifts = f"lift {before:.2f} -> {after:.2f}"
            before, after = (np.median(r[has_word, j]) for r in (self.rank_before, self.rank_after))
            parts.append(f"{word} in {has_word.sum()}, {lifts}, rank {before:.0f} -> {after:.0f}")
        return f"ErasedWords({moved} of {len(self.X)} embeddings moved: {'; '.join(parts)})"


def erase_words(
    model: FLiPExtractor,
    X: Any,
    words: Any,
    *,
    guard: str = "model",
    X_train: Any = None,
    Y_train: Any = None,
) -> ErasedWords:
    """Remove words from embeddings by the smallest change that hides them from one model or all linear ones.

    ``guard="model"`` hides them from this model. With g_j = B^T a_j the direction of word j, the lift of the
    word in an embedding x is its score without bias, g_j . (x - mu). Each row becomes the nearest embedding
    with no lift for any of the words S::

        x' = argmin_y |y - x|^2   subject to   g_j . (y - mu) <= 0 for every j in S.

    That is mu plus the projection of x - mu on the polar cone of the directions, so by Moreau's theorem::

        x' = x - sum_j w_j g_j,   w = argmin_{w >= 0} |x - mu - sum_j w_j g_j|^2,

    a small non-negative least-squares problem for each row, solved exactly.

    ``guard="linear"`` hides them from every linear reader: :class:`~flip_sklearn.WordEraser` is fitted to
    training rows, whose erased embeddings have no covariance with the words (Belrose et al. 2023), and is
    applied to X. All rows change, and by more.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted model. Its ``use_bias`` applies to the ranks in the result; the lift does not depend on it.
    X : array-like of shape (n, d)
        Embeddings, as ``model.transform`` takes them.
    words : str or sequence of str
        Words of the model's vocabulary. "dog" does not include "dogs": list all forms of a word.
    guard : {"model", "linear"}, default="model"
        Readers from which the words are hidden.
    X_train : array-like of shape (n_train, d), default=None
        With ``guard="linear"``, embeddings of the same encoder to which the eraser is fitted. Use at least
        10 d rows with each word.
    Y_train : {array-like, sparse matrix} of shape (n_train, V), default=None
        With ``guard="linear"``, the word counts of these rows over the vocabulary of the model.

    Returns
    -------
    ErasedWords
        The new embeddings, float64 for float64 input and float32 otherwise, with scores and ranks before
        and after; with ``guard="linear"`` also the fitted eraser.

    Raises
    ------
    ValueError
        If ``words`` is empty, or has a word that is not in the vocabulary or in no training sentence; if
        the model is not a FLiPExtractor, or X does not match it; if the training rows are missing, do not
        match the model, or are too few for the erasure of that many words.

    Notes
    -----
    With bias, a frequent word keeps its b_j, which is part of the model and not of the embedding. Rows do
    not keep their length, since mu is not zero; embeddings of unit length get a little shorter, and
    normalizing them again changes the lift by (1 / \\|x'\\| - 1) g_j . mu.

    With ``guard="model"`` the words are removed for this model only: a new model trained on the erased
    embeddings finds most of them again. With ``guard="linear"`` a new linear model does not, but a neural
    network still does: neither protects private information. :func:`leakage` measures what is found.

    References
    ----------
    Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff and Biderman (2023), LEACE: Perfect linear concept
    erasure in closed form, arXiv 2306.03819.

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
    >>> linear = erase_words(flip, X, "dog", guard="linear", X_train=X, Y_train=Y)
    >>> linear.eraser
    WordEraser(words=['dog'])
    >>> bool(abs(np.cov(linear.X.T, Y[:, 3] > 0)[-1, :-1]).max() < 1e-12)
    True
    """
    model = check_model(model)
    given, X = X, as_numpy(scoring.fitted_input(model, X))
    names, columns = check_words(model, words)
    eraser = _fit_eraser(model, names, columns, guard, X_train, Y_train)
    scorer = scoring.make_scorer(model)  # one for all ranks, which prepares A once
    A = model.word_embeddings_[columns]
    if not isinstance(A, np.ndarray):
        A = A.toarray()
    directions = A.astype(np.float64) @ model.projection_.astype(np.float64)  # the g_j, (m, d)
    mean = model.embedding_mean_.astype(np.float64)
    n, m = len(X), len(names)
    if eraser is None:
        erased = np.empty(X.shape, dtype=scoring.output_dtype(X))
    else:
        erased = np.asarray(as_numpy(eraser.transform(given)))  # set_output may make it a frame
    before, after = np.empty((n, m)), np.empty((n, m))
    distance, cosine = np.empty(n), np.empty(n)
    step = max(1, _BLOCK_ELEMENTS // X.shape[1])
    for first in range(0, n, step):
        rows = slice(first, first + step)
        x = X[rows].astype(np.float64)
        before[rows] = (x - mean) @ directions.T
        if eraser is None:
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
        eraser=eraser,
        distance=distance,
        cosine=cosine,
    )


def _fit_eraser(
    model: FLiPExtractor, words: tuple[str, ...], columns: np.ndarray, guard: str, X_train: Any, Y_train: Any
) -> WordEraser | None:
    """The fitted eraser of ``guard="linear"``; None for ``guard="model"``."""
    given = [name for name, rows in (("X_train", X_train), ("Y_train", Y_train)) if rows is not None]
    if check_choice("guard", guard, GUARDS) == "model":
        if given:
            raise ValueError(
                f"{' and '.join(given)} passed with guard='model', which needs no training rows; use "
                "guard='linear', or leave them out."
            )
        return None
    if len(given) < 2:
        raise ValueError(
            f"guard='linear' needs X_train and Y_train; {''.join(given) or 'neither'} was passed. Pass the "
            "embeddings and word counts of training rows, to which the eraser is fitted."
        )
    n = scoring.fitted_input(model, X_train).shape[0]
    counts = check_counts_of(model, Y_train, n)
    return WordEraser(list(words)).fit(X_train, counts[:, columns])


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

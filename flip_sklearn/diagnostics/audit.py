"""What readers still find of words in embeddings from which the words were erased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from flip_sklearn.diagnostics.auc import stratified_auc
from flip_sklearn.diagnostics.audit_readers import LinearReader, NetworkReader, Reader
from flip_sklearn.diagnostics.bootstrap import Interval
from flip_sklearn.diagnostics.frames import grid, interval_columns
from flip_sklearn.diagnostics.inputs import check_model, check_words
from flip_sklearn.diagnostics.split import group_sentences
from flip_sklearn.eraser import WordEraser, find_columns
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.validation import check_counts, check_counts_of, check_embeddings
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import as_numpy, show_progress
from flip_sklearn.parameters import check_integer, check_number, check_random_state, short_repr

# Names of the readers in sentences.
_NAMES = {"model": "The model", "linear": "A new linear reader", "network": "A new neural network"}
_N_LISTED = 8  # words in a sentence


@dataclass(frozen=True, eq=False)
class Leakage:
    """Result of :func:`leakage`, for r readers and m words.

    Attributes
    ----------
    words : tuple of m str
        The words.
    readers : tuple of r str
        "model" if a model was given, "linear" and "network".
    before, after : Interval of shape (r, m)
        Area under the ROC curve of each reader for each word, in the embeddings before and after the erasure:
        the probability that a sentence with the word is scored above one without it. 0.5 is chance.
    n_with : ndarray of shape (m,) of int
        Number of sentences with each word.
    n_sentences, n_groups : int
        Number of sentences, and of groups of them.
    cosine, distance : float
        Mean cosine and Euclidean distance between an embedding before and after.
    confidence : float
        Level of all intervals.
    is_found : ndarray of shape (r, m), bool
        Whether the interval after the erasure lies above 0.5.
    """

    words: tuple[str, ...]
    readers: tuple[str, ...]
    before: Interval
    after: Interval
    n_with: np.ndarray
    n_sentences: int
    n_groups: int
    cosine: float
    distance: float
    confidence: float

    @property
    def is_found(self) -> np.ndarray:
        """Whether the interval after the erasure lies above 0.5.

        Returns
        -------
        ndarray of shape (r, m), bool
        """
        return np.asarray(self.after.low > 0.5)

    def summary(self) -> str:
        """Say in sentences what each reader still finds.

        Returns
        -------
        str
            One or more sentences.
        """
        sentences = []
        for i, reader in enumerate(self.readers):
            auc, found = self.after.value[i], np.flatnonzero(self.is_found[i])
            if len(found):
                order = found[np.argsort(-auc[found], kind="stable")]
                listed = ", ".join(f"{self.words[j]} ({auc[j]:.3f})" for j in order[:_N_LISTED])
                more = f" and {len(order) - _N_LISTED} more words" if len(order) > _N_LISTED else ""
                sentences.append(f"{_NAMES[reader]} still finds {listed}{more}.")
            else:
                which = "the word" if len(self.words) == 1 else f"none of the {len(self.words)} words"
                verb = "does not find" if len(self.words) == 1 else "finds"
                sentences.append(f"{_NAMES[reader]} {verb} {which} (AUC at most {np.nanmax(auc):.3f}).")
            below = np.flatnonzero(self.after.high[i] < 0.5)
            if reader != "model" and len(below):
                listed = ", ".join(self.words[j] for j in below[:_N_LISTED])
                sentences.append(
                    f"Its AUC is below 0.5 for {listed}: the erasure probably used the words of the test "
                    "sentences."
                )
        if self.is_found.any():
            sentences.append("What a reader finds here, others can find: the words are hidden, not removed.")
        return " ".join(sentences)

    def to_frame(self) -> Any:
        """One row for each reader and word.

        Returns
        -------
        pandas.DataFrame
            Columns ``reader``, ``word``, ``n_with``, ``auc_before`` with its interval ``before_low`` and
            ``before_high``, ``auc_after`` with ``after_low`` and ``after_high``, and ``is_found``.
        """
        table = grid(reader=self.readers, word=self.words)
        table["n_with"] = np.tile(self.n_with, len(self.readers))
        table |= interval_columns("auc_before", self.before, "before_")
        table |= interval_columns("auc_after", self.after, "after_")
        table["is_found"] = self.is_found.ravel()
        return data_frame(table)

    def __repr__(self) -> str:
        parts = [
            f"{reader}: AUC {np.nanmean(self.before.value[i]):.3f} -> {np.nanmean(self.after.value[i]):.3f}"
            for i, reader in enumerate(self.readers)
        ]
        return (
            f"Leakage({len(self.words)} words in {self.n_sentences} sentences; {'; '.join(parts)}; "
            f"cosine {self.cosine:.3f}. {self.summary()})"
        )


def leakage(
    X: Any,
    Y: Any,
    words: Any,
    groups: Any = None,
    *,
    model: FLiPExtractor | None = None,
    vocabulary: Any = None,
    eraser: Any = None,
    X_after: Any = None,
    cv: int = 5,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> Leakage:
    """Measure what readers find of words in embeddings, before and after an erasure.

    The sentences are split into folds. Each fold is the test set once: the eraser and the readers are trained
    on the others, and a reader's AUC for a word is the probability that it scores a test sentence with the
    word above one without it (ties count half)::

        AUC = P(s(x) > s(x') | word in x, not in x').

    Readers are the model, if one is given, as it is; logistic regression on whitened embeddings ("linear");
    and a neural network with one hidden layer of 256 units ("network"). The last two are trained on the
    embeddings before and on those after the erasure.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings before the erasure. If ``model`` is given, of sentences that it was not trained on. About
        10,000 sentences are enough; time and memory grow with their number.
    Y : {array-like, sparse matrix} of shape (n, V)
        Word counts of the sentences, or the columns of ``words`` alone; a word is in a sentence if its count
        is positive.
    words : str or sequence of str
        Words to look for, which the default eraser erases. Each must be in at least 2 ``cv`` groups, and
        absent from as many.
    groups : array-like of shape (n,), default=None
        Labels of sentences that belong together, such as the captions of an image, documents or speakers. A
        group is in one fold, and intervals take groups for independent. Sentences with equal embeddings, bit
        for bit, are always in one group. Without groups, a reader can recognize a test sentence by its twin
        in the training set.
    model : FLiPExtractor, default=None
        Fitted model whose scores are to be measured, too.
    vocabulary : sequence of str, dict, fitted vectorizer or fitted model, default=None
        Words of the columns of Y. If None, those of ``model``, or the column names of Y; without these, Y
        must have one column for each of ``words``.
    eraser : transformer, default=None
        Erasure to audit: cloned, fitted to the training folds of X and Y, and applied to all. Wrapped in
        :class:`sklearn.frozen.FrozenEstimator`, it is used as it is. ``WordEraser(words)`` if None, unless
        ``X_after`` is given.
    X_after : array-like of shape (n, d), default=None
        Embeddings after an erasure of any kind. It must not have used the words of these sentences: otherwise
        AUC are too low, even below 0.5.
    cv : int, default=5
        Number of folds, >= 2.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1), without correction for multiple comparisons.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds and of the network.
    verbose : int, default=1
        If above zero, show a progress bar after two seconds.

    Returns
    -------
    Leakage
        AUC before and after with intervals; ``summary()`` says what is still found.

    Raises
    ------
    ValueError
        Before any training, if an argument is not allowed, arrays are not aligned, or a word is unknown or in
        too few groups of sentences. If the eraser refuses the training folds, or returns embeddings of
        another shape or that are not finite.

    Notes
    -----
    An AUC near 0.5 says that these readers, trained on this many sentences, do not find the word; others may.
    The readers are trained on the sentences to which the eraser was fitted, in which linear erasure leaves
    nothing to learn. Readers of other sentences find a little more (docs/leakage.md): to measure this, fit an
    eraser to other sentences and pass ``X_after=eraser.transform(X)``.

    The folds share training sentences, so that their results are not independent. The variances of new
    readers are doubled for it, which is right where there is nothing to find, and too much where an AUC is
    high.

    References
    ----------
    Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff and Biderman (2023), LEACE: Perfect linear concept
    erasure in closed form, arXiv 2306.03819.
    DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver
    operating characteristic curves, Biometrics 44.
    Newcombe (2006), Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part
    2, Statistics in Medicine 25.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.diagnostics import leakage
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 3))
    >>> X = Y @ rng.normal(size=(3, 8)) + 0.5 * rng.normal(size=(400, 8))
    >>> result = leakage(X, Y, "dog", vocabulary=["red", "dog", "cat"], random_state=0)
    >>> result.readers, bool(result.before.low[0, 0] > 0.9), bool(result.is_found[0, 0])
    (('linear', 'network'), True, False)
    """
    cv = check_integer("cv", cv, 2)
    confidence = check_number("confidence", confidence, 0, 1, open_low=True, open_high=True)
    rng = check_random_state(random_state)
    rows = as_numpy(check_embeddings(WordEraser(), X, reset=True)[0])
    n = len(rows)
    names, columns, counts, vocabulary = _check_words(rows, Y, words, model, vocabulary)
    labels = counts[:, columns].toarray() > 0
    after = _check_after(X_after, eraser, rows)
    group = group_sentences(groups, [rows], n)
    _check_frequencies(names, labels, group, cv)
    folds = _assign_folds(labels, group, cv, rng)
    if after is None:
        eraser = WordEraser(list(names)) if eraser is None else clone(eraser)
        if isinstance(eraser, WordEraser) and eraser.vocabulary is None:
            eraser.set_params(vocabulary=vocabulary)
    readers: dict[str, Reader] = {
        **({} if model is None else {"model": _ModelReader(model, columns)}),
        "linear": LinearReader(),
        "network": NetworkReader(rng.randint(np.iinfo(np.int32).max)),
    }
    scores = np.empty((len(readers), 2, n, len(names)))
    cosine, distance = np.empty(n), np.empty(n)
    with show_progress(total=2 * cv * len(readers), unit="fit", desc="leakage", disable=not verbose) as bar:
        for fold in range(cv):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if after is None:
                erased = _erase(eraser, rows, counts, train, test)
            else:
                erased = after[train], after[test]
            cosine[test], distance[test] = _changes(rows[test], erased[1])
            for side, (X_train, X_test) in enumerate(((rows[train], rows[test]), erased)):
                for i, reader in enumerate(readers.values()):
                    scores[i, side, test] = reader.fit(X_train, labels[train]).scores(X_test)
                    bar.update(1)
    ends = np.empty((3, len(readers), 2, len(names)))
    for i, name in enumerate(readers):
        for side, j in np.ndindex(ends.shape[2:]):
            auc = stratified_auc(
                scores[i, side, :, j], labels[:, j], folds, group, confidence, is_trained=name != "model"
            )
            ends[:, i, side, j] = auc.value, auc.low, auc.high
    return Leakage(
        words=names,
        readers=tuple(readers),
        before=Interval(*ends[:, :, 0]),
        after=Interval(*ends[:, :, 1]),
        n_with=labels.sum(axis=0),
        n_sentences=n,
        n_groups=int(group.max()) + 1,
        cosine=float(np.nanmean(cosine)),
        distance=float(distance.mean()),
        confidence=confidence,
    )


class _ModelReader:
    """The lift of each word in a fitted model, its score without bias."""

    def __init__(self, model: FLiPExtractor, columns: np.ndarray) -> None:
        A = model.word_embeddings_[columns]
        A = A if isinstance(A, np.ndarray) else A.toarray()
        self._directions = A.astype(np.float64) @ model.projection_.astype(np.float64)
        self._mean = model.embedding_mean_.astype(np.float64)

    def fit(self, X: np.ndarray, labels: np.ndarray) -> _ModelReader:
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        return np.asarray((X - self._mean) @ self._directions.T)


def _check_words(
    X: np.ndarray, Y: Any, words: Any, model: Any, vocabulary: Any
) -> tuple[tuple[str, ...], np.ndarray, sp.csr_array, list[str]]:
    """The words, their columns, the counts of all words, and the names of all columns."""
    if Y is None:
        raise ValueError("Y is None; pass the (n, V) word counts of the sentences.")
    if model is not None:
        model = check_model(model)
        if vocabulary is not None:
            raise ValueError(
                "model and vocabulary were both passed; leave vocabulary out, since the columns of Y are the "
                "words of the model."
            )
        scoring.fitted_input(model, X)
        counts = check_counts_of(model, Y, len(X))
        return *check_words(model, words), counts, model.vocabulary_.tolist()
    counts, column_names = check_counts(Y, len(X))
    names, columns = find_columns(words, vocabulary, column_names, counts.shape[1])
    if vocabulary is None and column_names is None:
        return names, columns, counts, list(names)
    return names, columns, counts, list(find_columns(None, vocabulary, column_names, counts.shape[1])[0])


def _check_after(X_after: Any, eraser: Any, X: np.ndarray) -> np.ndarray | None:
    """Embeddings after the erasure, or None if an eraser is to be fitted."""
    if X_after is None:
        if eraser is not None and not (hasattr(eraser, "fit") and hasattr(eraser, "transform")):
            raise ValueError(
                f"eraser is {short_repr(eraser)}; pass a transformer with fit and transform, such as "
                "WordEraser(words), or the erased embeddings as X_after."
            )
        return None
    if eraser is not None:
        raise ValueError("eraser and X_after were both passed; pass one of them.")
    return _same_shape(X_after, X, "X_after")


def _same_shape(erased: Any, X: np.ndarray, name: str) -> np.ndarray:
    """Checked embeddings of the same sentences and dimensions."""
    rows = np.asarray(as_numpy(check_embeddings(WordEraser(), erased, reset=True)[0]))
    if rows.shape != X.shape:
        raise ValueError(
            f"{name} has the shape {rows.shape} and X has {X.shape}; pass the same sentences, row-aligned, "
            "before and after the erasure."
        )
    return rows


def _check_frequencies(names: tuple[str, ...], labels: np.ndarray, group: np.ndarray, cv: int) -> None:
    """Refuse words that too few groups have, or lack."""
    for name, has_word in zip(names, labels.T, strict=True):
        n_with, n_without = (len(np.unique(group[has_word == side])) for side in (True, False))
        if min(n_with, n_without) < 2 * cv:
            raise ValueError(
                f"{name!r} is in {n_with} groups of sentences and absent from {n_without}; with cv={cv} each "
                f"word must be in at least {2 * cv} groups and absent from {2 * cv}. Pass more sentences, "
                "fewer folds (cv >= 2), or leave the word out."
            )


def _assign_folds(labels: np.ndarray, group: np.ndarray, cv: int, rng: np.random.RandomState) -> np.ndarray:
    """The fold of each sentence (n,), whole groups, with about equal shares of each word.

    Groups are dealt out in random order, those with the same rarest word one after the other.
    """
    has_word = np.zeros((int(group.max()) + 1, labels.shape[1]), dtype=bool)
    np.logical_or.at(has_word, group, labels)
    by_rarity = np.argsort(has_word.sum(axis=0), kind="stable")
    ordered = np.column_stack([has_word[:, by_rarity], np.ones(len(has_word), dtype=bool)])
    rarest = ordered.argmax(axis=1)
    shuffled = rng.permutation(len(has_word))
    dealt = shuffled[np.argsort(rarest[shuffled], kind="stable")]
    fold: np.ndarray = np.empty(len(has_word), dtype=np.int64)
    fold[dealt] = np.arange(len(has_word)) % cv
    return np.asarray(fold[group])


def _erase(
    eraser: Any, X: np.ndarray, counts: sp.csr_array, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows after an erasure that is fitted to the training rows."""
    eraser = clone(eraser).fit(X[train], counts[train])
    name = f"the result of {type(eraser).__name__}"
    X_train, X_test = (_same_shape(eraser.transform(X[rows]), X[rows], name) for rows in (train, test))
    return X_train, X_test


def _changes(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and distance of each row; the cosine of zero vectors is nan."""
    x, y = before.astype(np.float64), after.astype(np.float64)
    with np.errstate(invalid="ignore"):
        cosine = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return cosine, np.linalg.norm(y - x, axis=1)

"""WordEraser: least-squares erasure of words from embeddings, for every linear reader."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.backend.device import Embeddings, as_shared_tensor
from flip_sklearn.backend.fit.whitening import Moments, streaming_moments
from flip_sklearn.estimation.array_api import like
from flip_sklearn.estimation.scoring import fitted_input, output_dtype
from flip_sklearn.estimation.validation import (
    check_counts,
    check_embeddings,
    check_vocabulary,
    check_weights,
    one_target,
    refuse_labels,
)
from flip_sklearn.estimation.words import check_words
from flip_sklearn.io import as_numpy
from flip_sklearn.metrics.counts import check_columns
from flip_sklearn.parameters import DocumentationLink, VocabularyRepr, check_folder, refusal, warn_caller
from flip_sklearn.persistence.erasers import read_eraser, write_eraser

# Elements of a block of rows: 2**22 float64 are 32 MiB.
_BLOCK_ELEMENTS = 2**22
# Rows with a word that its mean difference needs at least.
_MIN_ROWS = 2
# With fewer rows than this many a dimension, the covariance gets a ridge, relative to its mean eigenvalue. It
# does not affect what is guarded. Without it, new rows would move far where n is about d.
_ROWS_PER_DIMENSION, _RIDGE = 4, 0.1
# Deviations of a column below this share of its mean are rounding of the sums.
_ROUNDING = 1e-13
# Correlations of words with the embeddings below this are rounding.
_MIN_CORRELATION = 1e-10


class WordEraser(VocabularyRepr, DocumentationLink, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Erase words from embeddings such that no linear reader can find them.

    With z the indicators of the m words in a sentence, S the covariance of the embeddings, C = Cov(x, z), and
    Q an orthonormal basis of the columns of S^{-1/2} C (pseudo-inverse), each embedding becomes::

        r(x) = x - S^{1/2} Q Q^T S^{-1/2} (x - mu).

    On the training rows, Cov(r(x), z) = 0: no linear model has a smaller loss than a constant, for any convex
    loss and each of the words. Of all affine maps with this property, r moves the rows least, in the mean
    square of every norm of an inner product: least-squares concept erasure, LEACE, of Belrose et al. (2023).
    Models that are not linear can still find the words, so this does not protect private information; measure
    what they find by :func:`~flip_sklearn.diagnostics.leakage`.

    Parameters
    ----------
    words : str or sequence of str, default=None
        Words to erase; every column of Y if None. "dog" does not include "dogs": list all forms of a word.
    vocabulary : sequence of str, dict, fitted vectorizer or fitted model, default=None
        Words of the columns of Y. If None, the column names of Y; without names, Y must have one column for
        each of ``words``.

    Attributes
    ----------
    words_ : ndarray of shape (m,) of str
        The erased words.
    mean_ : ndarray of shape (d,)
        mu, the (weighted) mean of the training rows, which does not change.
    proj_left_ : ndarray of shape (d, k)
        S^{1/2} Q, what is subtracted: ``r(x) = x - proj_left_ @ proj_right_ @ (x - mean_)``. k <= m is the
        number of erased dimensions.
    proj_right_ : ndarray of shape (k, d)
        Q^T S^{-1/2}, what is read.
    word_counts_ : ndarray of shape (m,)
        Sum of the weights of the training rows with each word.
    n_features_in_ : int
        Number of dimensions d.
    feature_names_in_ : ndarray of shape (d,)
        Column names of X in ``fit``, if it had any.

    See Also
    --------
    flip_sklearn.diagnostics.erase_words : Erases words from embeddings and measures what changed.
    flip_sklearn.diagnostics.leakage : Measures what readers still find.

    Notes
    -----
    Zero covariance is guaranteed for the training rows. In new rows a difference of the means is left, as
    large as the sampling error of the difference in the training rows: a reader that is trained on many new
    labelled rows finds more of a word, the fewer training rows have it (docs/leakage.md). Use at least 10 d
    rows with each word.

    With a sum of weights below 4 d, the covariance gets a ridge of 0.1 of its mean eigenvalue. The covariance
    with the words is zero then, too, but the change is no longer the smallest.

    References
    ----------
    Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff and Biderman (2023), LEACE: Perfect linear concept
    erasure in closed form, arXiv 2306.03819.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from flip_sklearn import WordEraser
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 3))
    >>> X = Y @ rng.normal(size=(3, 8)) + rng.normal(size=(400, 8))
    >>> eraser = WordEraser("dog", vocabulary=["red", "dog", "cat"]).fit(X, Y)
    >>> has_dog = Y[:, 1] > 0
    >>> for rows in (X, eraser.transform(X)):
    ...     reader = LogisticRegression().fit(rows - rows.mean(axis=0), has_dog)
    ...     print(bool(np.abs(reader.coef_).max() > 1e-6))
    True
    False
    """

    def __init__(self, words: Any = None, *, vocabulary: Any = None) -> None:
        self.words = words
        self.vocabulary = vocabulary

    def fit(self, X: Any, Y: Any = None, sample_weight: Any = None, *, y: Any = None) -> Self:
        """Fit the eraser to embeddings and the words of their sentences.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :class:`~flip_sklearn.FLiPExtractor` takes them.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts or indicators, integers >= 0; a word is in a sentence if its count is positive.
            Without a vocabulary, Y may have the columns of ``words`` alone. A 1-D array is refused as class
            labels, unless ``words`` or ``vocabulary`` is one word.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0. A row of weight 2 is the same as two rows, so the weights should be
            around 1: whether there is a ridge depends on their sum.
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y, under the name that scikit-learn uses as a keyword.

        Returns
        -------
        self : WordEraser
            The fitted estimator.

        Raises
        ------
        ValueError
            If X, Y, a weight or a word is not allowed; if a word is in fewer than two rows; or if nothing
            would be left, because the rows or dimensions are too few for that many words. The estimator is
            then unchanged.
        """
        Y = one_target(Y, y)
        embeddings, feature_info = check_embeddings(self, X, reset=True)
        n = embeddings.shape[0]
        weights = check_weights(sample_weight, embeddings)
        if Y is None:
            raise ValueError(
                "WordEraser requires y to be passed, but the target y is None. Pass Y, the (n, V) word "
                "counts, for example from CountVectorizer."
            )
        is_word = self.vocabulary is None and isinstance(self.words, str)
        refuse_labels(Y, [self.words] if is_word else self.vocabulary or self.words)
        counts, names = check_counts(Y, n)
        words, columns = find_columns(self.words, self.vocabulary, names, counts.shape[1])
        labels = sp.csr_array(counts[:, columns] > 0, dtype=np.float64)
        is_constant = _check_rows(words, labels, weights)
        moments, cross = _moments(embeddings, labels, weights)
        share = weights @ labels / weights.sum()
        deviation = np.where(is_constant, np.inf, np.sqrt(share * (1 - share)))
        left, right = _projections(moments, cross / deviation, words, n)
        fitted = {
            "words_": np.array(words, dtype=object),
            "mean_": moments.mean,
            "proj_left_": left,
            "proj_right_": right,
            "word_counts_": weights @ labels,
            "n_features_in_": embeddings.shape[1],
        }
        if hasattr(feature_info, "feature_names_in_"):
            fitted["feature_names_in_"] = feature_info.feature_names_in_
        kept = {name: value for name, value in vars(self).items() if name != "feature_names_in_"}
        self.__dict__ = {**kept, **fitted}
        return self

    def transform(self, X: Any) -> Any:
        """Erase the words from embeddings.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings of the same encoder.

        Returns
        -------
        ndarray of shape (n, d)
            The embeddings without the words: float64 for float64 input and float32 otherwise. Under
            scikit-learn's array API, an array of the library of X on its device.

        Raises
        ------
        ValueError
            If X has another dimension or values that are not finite.
        """
        embeddings = fitted_input(self, X)
        dtype = output_dtype(embeddings)
        is_array = isinstance(embeddings, np.ndarray)
        erased = np.empty(embeddings.shape, dtype) if is_array else _empty_beside(embeddings, dtype)
        target = as_shared_tensor(erased)
        for rows, x in _blocks(embeddings):
            target[rows] = self._erase(x)
        return like(X, erased, dtype)

    def _erase(self, x: Any) -> Any:
        """The erased rows of a float64 tensor."""
        mean, left, right = (
            as_shared_tensor(array).to(x.device) for array in (self.mean_, self.proj_left_, self.proj_right_)
        )
        # The second step removes what rounding of the first has left: readers that rescale the embeddings
        # would find a word in it.
        for _ in range(2):
            x = x - (x - mean) @ right.T @ left.T
        return x

    def save_pretrained(self, folder: str | PathLike[str]) -> Path:
        """Write the fitted eraser into a folder, which may be that of a model.

        Parameters
        ----------
        folder : path-like
            Created if it does not exist. The file word_eraser.safetensors in it is replaced.

        Returns
        -------
        folder : Path
            The folder.

        Raises
        ------
        NotFittedError
            If the eraser is not fitted.
        ValueError
            If ``folder`` is not the path of a folder.
        OSError
            If the file cannot be written; an existing one is left unchanged.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from flip_sklearn import WordEraser
        >>> X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
        >>> eraser = WordEraser("dog").fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = WordEraser.from_pretrained(eraser.save_pretrained(folder))
        >>> bool((again.transform(X) == eraser.transform(X)).all())
        True
        """
        path = check_folder("folder", folder)
        if path is None:
            raise refusal("folder", folder, "the path of a folder")
        check_is_fitted(self)
        write_eraser(self, path)
        return path

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str]) -> Self:
        """Read an eraser from a folder of :meth:`save_pretrained`.

        The file is checked before it is used; nothing in it is executed.

        Parameters
        ----------
        folder : path-like
            A folder of :meth:`save_pretrained`.

        Returns
        -------
        eraser : WordEraser
            Fitted; its parameter ``words`` are the erased words.

        Raises
        ------
        ValueError
            If there is no such file, or it is damaged or in another format.
        """
        path = check_folder("folder", folder)
        if path is None:
            raise refusal("folder", folder, "the path of a folder")
        fitted = read_eraser(path)
        eraser = cls(fitted["words_"].tolist())
        eraser.__dict__.update(fitted)
        return eraser

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False  # a 1-D target is class labels
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def find_columns(
    words: Any, vocabulary: Any, names: list[str] | None, n_columns: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct words, and their columns in counts; every column if ``words`` is None.

    ``names`` are the column names of the counts, if they have any.
    """
    if vocabulary is None and names is None:
        n_words = 1 if isinstance(words, str) else len(words) if isinstance(words, Sized) else None
        if words is None:
            vocabulary = [f"word{j}" for j in range(n_columns)]
        elif n_words == n_columns:
            vocabulary = [words] if isinstance(words, str) else words
        else:
            raise ValueError(
                f"Y has {n_columns} columns without names, and vocabulary is None; pass vocabulary=, the "
                "words of the columns, or counts of the words alone, one column for each."
            )
    known = check_vocabulary(vocabulary, names, n_columns)
    check_columns(names, known, renamed=True)
    return check_words(SimpleNamespace(vocabulary_=known), known if words is None else words)


def _torch_dtype(dtype: Any) -> Any:
    return as_shared_tensor(np.empty(0, dtype=dtype)).dtype


def _empty_beside(X: Any, dtype: np.dtype) -> Any:
    """A tensor of the shape of a tensor X, on its device."""
    return X.new_empty(X.shape, dtype=_torch_dtype(dtype))


def _blocks(X: Embeddings) -> Iterator[tuple[slice, Any]]:
    """Blocks of rows as float64 tensors on the device of X."""
    step = max(1, _BLOCK_ELEMENTS // X.shape[1])
    for first in range(0, X.shape[0], step):
        rows = slice(first, first + step)
        yield rows, as_shared_tensor(X[rows]).to(_torch_dtype(np.float64))


def _check_rows(words: tuple[str, ...], labels: sp.csr_array, weights: np.ndarray) -> np.ndarray:
    """Refuse rows that are too few for the erasure of that many words; whether a word is in all rows (m,)."""
    used = weights > 0
    n, m = int(used.sum()), len(words)
    if n < m + 2:
        raise ValueError(
            f"X has n_samples={n} rows of weight > 0; the erasure of {m} words needs at least {m + 2}. Pass "
            "more rows, or fewer words."
        )
    n_with = used.astype(np.float64) @ labels
    for word, n_rows in zip(words, n_with.astype(int), strict=True):
        if n_rows < _MIN_ROWS:
            raise ValueError(
                f"{word!r} is in {n_rows} of the {n} rows of Y (of weight > 0); an erasure needs at least "
                f"{_MIN_ROWS} rows with each word. Pass more rows, or leave the word out."
            )
        if n_rows == n:
            warn_caller(
                f"{word!r} is in all {n} rows of Y, so that nothing tells what it changes, and nothing is "
                "erased for it; pass rows without the word, too."
            )
    return np.asarray(n_with == n)


def _moments(X: Embeddings, labels: sp.csr_array, weights: np.ndarray) -> tuple[Moments, np.ndarray]:
    """Moments of the rows, and Cov(x, z) (d, m)."""
    weight = as_shared_tensor(weights)
    total = streaming_moments(((x, weight[rows].to(x.device)) for rows, x in _blocks(X)), X.shape[1])
    cross = np.zeros((X.shape[1], labels.shape[1]))
    weighted = sp.csr_array(labels * weights[:, None])
    for rows, x in _blocks(X):
        z = as_shared_tensor(weighted[rows].toarray()).to(x.device)
        cross += as_numpy((x - as_shared_tensor(total.mean).to(x.device)).T @ z)
    return total, cross / total.weight


def _projections(
    moments: Moments, cross: np.ndarray, words: tuple[str, ...], n: int
) -> tuple[np.ndarray, np.ndarray]:
    """S^{1/2} Q (d, k) and Q^T S^{-1/2} (k, d), from Cov(x, z) with the words scaled to unit variance."""
    d, m = cross.shape
    ridge = _RIDGE if moments.weight < _ROWS_PER_DIMENSION * d else 0.0
    whiten, color = pseudo_whitening(moments, ridge)
    n_directions = pseudo_whitening(moments)[0].shape[1] if ridge else whiten.shape[1]
    basis, correlation, _ = np.linalg.svd(whiten.T @ cross, full_matrices=False)
    basis = basis[:, correlation > _MIN_CORRELATION]
    k = basis.shape[1]
    if 0 < n_directions <= k:
        raise ValueError(
            f"the erasure of {m} words takes {k} dimensions, and the {n} rows of X (n_samples={n}, "
            f"n_features={d}) vary in {n_directions}: nothing but the mean would be left. Pass more rows, "
            "embeddings of more dimensions, or fewer words."
        )
    if moments.weight <= d:
        warn_caller(
            f"the weights of the {n} rows sum up to {moments.weight:g}, for {d} dimensions: these rows are "
            f"guarded, but readers will find the words in new rows. Fit on {10 * d} rows with each word or "
            "more, and measure what is found by flip_sklearn.diagnostics.leakage."
        )
    left, right = color.T @ basis, basis.T @ whiten.T
    return left @ np.linalg.inv(right @ left), right


def pseudo_whitening(moments: Moments, ridge: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Whitening (d, r) and its inverse (r, d), for the r directions in which the rows vary.

    They are computed after all columns have been scaled to unit variance, so that columns of a small scale
    are not taken for rounding. The ridge is relative to this variance.
    """
    covariance = moments.scatter / moments.weight
    if not np.isfinite(covariance).all():
        raise ValueError(
            "the covariance of X overflows float64: the values of X are finite, but their squares are not; "
            "scale X, for example to rows of unit norm."
        )
    deviation = np.sqrt(covariance.diagonal())
    varies = deviation > _ROUNDING * np.abs(moments.mean)
    scale = np.where(varies, deviation, 1.0)
    correlation = np.where(varies & varies[:, None], covariance / scale / scale[:, None], 0.0)
    values, vectors = np.linalg.eigh(correlation)
    is_large = values + ridge > 10 * len(values) * np.finfo(float).eps * values[-1]
    root = np.sqrt(values[is_large] + ridge)
    vectors = vectors[:, is_large] * varies[:, None]
    return vectors / root / scale[:, None], (vectors * root * scale[:, None]).T

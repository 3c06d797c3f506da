"""SpLiCEExtractor: embeddings as sparse non-negative combinations of concept embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils._array_api import get_namespace
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.backend.device import Embeddings, as_shared_tensor, resolve_device, without_autocast
from flip_sklearn.backend.scoring.search import Query
from flip_sklearn.backend.sparse_coding.lasso import SparseCoder
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.array_api import beside, like, namespace_of, to_dense
from flip_sklearn.estimation.directions import DirectionWords, displacements
from flip_sklearn.estimation.search import RowScorer, RowSearchMixin
from flip_sklearn.estimation.validation import check_counts_of, check_embeddings, one_target
from flip_sklearn.io import as_numpy, show_progress
from flip_sklearn.metrics import keyword_accuracy
from flip_sklearn.metrics.counts import checked_sparse
from flip_sklearn.parameters import (
    DocumentationLink,
    check_bool,
    check_choice,
    check_integer,
    check_number,
    number_groups,
    warn_caller,
)
from flip_sklearn.splice.concepts import (
    Block,
    centred,
    check_dictionary,
    check_names,
    keep_largest,
    query_weights,
    recompose,
    unit,
)
from flip_sklearn.splice.results import ConceptMeans, DecompositionQuality

CHUNK_ROWS = 4096
# Duality gap, where |v|^2 = 1, above which a solution is reported as not converged.
MAX_GAP = 1e-5


class SpLiCEExtractor(DocumentationLink, RowSearchMixin, TransformerMixin, BaseEstimator):
    """Extract words from embeddings by sparse coding over the embeddings of the words themselves.

    Decomposes every embedding x into weights w >= 0 of the V concepts, which minimize::

        |C^T w - v|^2 + l1_strength sum_j w_j,

        v = unit(unit(x) - m),   C_j = unit(unit(c_j) - mean of all unit(c)),

    where ``unit(a) = a / |a|``, c_j is the embedding of concept j and m the mean of unit(x) over the rows of
    ``fit``. This is SpLiCE, Sparse Linear Concept Embeddings (Bhalla et al. 2024). Only the mean m is
    learned; the directions of the words are their own embeddings. Each row is solved until its duality gap
    is small (docs/splice.md).

    Parameters
    ----------
    dictionary : array-like of shape (V, d)
        Embeddings of the concepts by the encoder of X, usually of each word as a text of its own. At least
        one row; a row that is zero, or equals the mean of all, is never used.
    vocabulary : sequence of str or dict of str to int, default=None
        Names of the V concepts in the order of ``dictionary``, or name -> row. When None, the column names
        of Y if ``fit`` is given a DataFrame, else ``word0``, ``word1`` and so on.
    l1_strength : float, default=0.25
        Penalty on the sum of the weights, >= 0. A concept gets a weight only if its product with the
        residual v - C^T w of the other concepts is above l1_strength / 2. A row therefore has no words if
        l1_strength >= 2 max_j C_j . v, which is at most 2. With 0 the problem is non-negative least
        squares, whose weights are not unique if there are more concepts than dimensions (a warning says
        so). It is the ``l1_penalty`` of the published code, 2 lambda of the paper and, in
        scikit-learn's terms, ``Lasso(alpha=l1_strength / (2 * d), positive=True, fit_intercept=False)``.
    top_k : int, default=10
        Words per row in ``predict`` and ``extract_keywords``, >= 1; a row may have fewer.
    device : str, default="auto"
        ``"auto"`` (CUDA when there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
    precision : {"auto", "float32", "float64"}, default="auto"
        Format of the products with the dictionary. ``"auto"`` is float64 for float64 embeddings and
        float32 for all others.
    sparse_output : bool, default=True
        Whether ``transform`` returns a csr_array, or a dense array, which ``set_output`` needs.
    verbose : int, default=0
        If above zero, show a progress bar for decompositions that take more than two seconds.

    Attributes
    ----------
    embedding_mean_ : ndarray of shape (d,)
        The mean m of the unit-length rows of ``fit``.
    concepts_ : ndarray of shape (V, d)
        C, with rows of unit length or zero.
    concept_mean_ : ndarray of shape (d,)
        Mean of the normalized concept embeddings.
    vocabulary_ : ndarray of shape (V,) of str
        The names of the concepts.
    device_ : str
        The resolved device.
    n_features_in_ : int
        Number of dimensions d.
    feature_names_in_ : ndarray of shape (d,)
        Column names of X; only if all of them are strings.

    See Also
    --------
    FLiPExtractor : Learns the directions of the words from texts.

    References
    ----------
    Bhalla et al. (2024), "Interpreting CLIP with Sparse Linear Concept Embeddings (SpLiCE)",
    arXiv 2402.10376.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.splice import SpLiCEExtractor
    >>> rng = np.random.default_rng(0)
    >>> words = ["red", "green", "blue", "dog", "cat", "tree"]
    >>> concepts = rng.normal(size=(6, 32))
    >>> X = rng.poisson(0.5, size=(200, 6)) @ concepts + 0.1 * rng.normal(size=(200, 32))
    >>> splice = SpLiCEExtractor(concepts, vocabulary=words).fit(X)
    >>> splice.extract_keywords(2 * concepts[[3]] + concepts[[1]], top_k=2)
    [['dog', 'green']]
    """

    def __init__(
        self,
        dictionary: Any = None,
        *,
        vocabulary: Any = None,
        l1_strength: float = 0.25,
        top_k: int = 10,
        device: str = "auto",
        precision: str = "auto",
        sparse_output: bool = True,
        verbose: int = 0,
    ) -> None:
        self.dictionary = dictionary
        self.vocabulary = vocabulary
        self.l1_strength = l1_strength
        self.top_k = top_k
        self.device = device
        self.precision = precision
        self.sparse_output = sparse_output
        self.verbose = verbose

    def fit(self, X: Any, Y: Any = None, *, y: Any = None) -> SpLiCEExtractor:
        """Learn the mean embedding and prepare the concepts.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings: NumPy (float16, float32, float64, memory-mapped), DataFrame or torch tensor. Rows
            that are zero have no direction and are left out of the mean.
        Y : {array-like, sparse matrix} of shape (n, V), default=None
            Ignored, except for the column names of a DataFrame if ``vocabulary`` is None.
        y : {array-like, sparse matrix} of shape (n, V), default=None
            The same as Y, under scikit-learn's name.

        Returns
        -------
        self : SpLiCEExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or X is not allowed; the estimator is not changed then.
        """
        Y = one_target(Y, y)
        self._check_parameters()
        X, feature_info = check_embeddings(self, X, reset=True)
        dictionary = check_dictionary(self.dictionary, X.shape[1])
        vocabulary = check_names(self.vocabulary, Y, len(dictionary))
        device = resolve_device(self.device)
        directions = unit(dictionary)
        concept_mean = directions.mean(axis=0)
        concepts = centred(directions, concept_mean)
        total, n_directions = np.zeros(X.shape[1]), 0
        for start in range(0, len(X), CHUNK_ROWS):
            rows = unit(X[start : start + CHUNK_ROWS])
            total += as_numpy(rows.sum(axis=0))
            n_directions += int((rows != 0).any(axis=1).sum())
        fitted = {
            "n_features_in_": X.shape[1],
            "embedding_mean_": total / max(n_directions, 1),
            "concept_mean_": concept_mean,
            "concepts_": concepts.astype(scoring.output_dtype(dictionary), copy=False),
            "vocabulary_": vocabulary,
            "device_": str(device),
        }
        if hasattr(feature_info, "feature_names_in_"):
            fitted["feature_names_in_"] = feature_info.feature_names_in_
        # The estimator is changed only now that nothing can fail, and at once, for threads that use it.
        kept = {name: value for name, value in vars(self).items() if name != "feature_names_in_"}
        self.__dict__ = {**kept, **fitted}
        return self

    def _check_parameters(self) -> float:
        check_integer("top_k", self.top_k, 1)
        check_choice("precision", self.precision, ("auto", "float32", "float64"))
        check_bool("sparse_output", self.sparse_output)
        return check_number("l1_strength", self.l1_strength, 0)

    def transform(self, X: Any) -> Any:
        """Compute the weights w of the decomposition of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        weights : csr_array of shape (n, V), or a dense array with ``sparse_output=False``
            Weights of the concepts, >= 0: float64 for float64 input, float32 otherwise. Rows of X that are
            zero or equal the mean have no weights.
        """
        self = scoring.snapshot(self)
        sparse_output = check_bool("sparse_output", self.sparse_output)
        embeddings = scoring.fitted_input(self, X)
        if not sparse_output:
            scoring.refuse_too_large(embeddings, len(self.vocabulary_))
        weights = self._weights(embeddings)
        if sparse_output:
            return weights
        with scoring.translate_memory_errors(embeddings, len(self.vocabulary_)):
            return like(X, to_dense(weights, embeddings), weights.dtype)

    def predict(self, X: Any) -> sp.csr_array:
        """Return the words of largest weight of each row, at most ``top_k``, as indicators.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        words : csr_array of shape (n, V), int64
            1 for each extracted word; its weight is above zero.
        """
        self = scoring.snapshot(self)
        k = check_integer("top_k", self.top_k, 1)
        parts = []
        for block in self._decompose(scoring.fitted_input(self, X)):
            top = block.indices[:, :k]
            parts.append(scoring.top_to_csr(top, np.ones(top.shape, np.int64), len(self.vocabulary_)))
        return sp.csr_array(sp.vstack(parts, format="csr"))

    def extract_keywords(self, X: Any, top_k: int | None = None, return_scores: bool = False) -> Any:
        """Return the words of largest weight of each row; fewer than ``top_k`` if fewer have a weight.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        top_k : int, default=None
            Maximum number of words per row, >= 1; the estimator's ``top_k`` when None.
        return_scores : bool, default=False
            Whether to return each word's weight, too.

        Returns
        -------
        keywords : list of n lists of str
            Largest weight first; with ``return_scores`` the lists contain (word, weight) pairs.
        """
        self = scoring.snapshot(self)
        k = check_integer("top_k", self.top_k if top_k is None else top_k, 1)
        keywords: list[list[Any]] = []
        for block in self._decompose(scoring.fitted_input(self, X)):
            indices = block.indices[:, :k]
            rows = self.vocabulary_[indices].tolist()
            if return_scores:
                rows = scoring.with_scores(rows, block.weights[:, :k].tolist())
            n_words = (indices >= 0).sum(axis=1).tolist()
            keywords += [row[:n] for row, n in zip(rows, n_words, strict=True)]
        return keywords

    def read_directions(
        self,
        directions: Any,
        *,
        kind: str = "difference",
        covariance: Any = None,
        top_k: int = 10,
        return_scores: bool = False,
    ) -> list[DirectionWords]:
        """Read the words that directions of the embedding space raise and lower.

        A difference delta is decomposed as rows of X are, without the mean, which differences do not have:
        v = unit(delta) has the weights of the words that it raises, v = -unit(delta) those of the words that
        it lowers. Coefficients w of a linear model are read as delta = S w / sqrt(w^T S w) with S the
        covariance of the embeddings, as by :meth:`FLiPExtractor.read_directions`.

        Parameters
        ----------
        directions : array-like of shape (m, d) or (d,)
            Directions that are not zero, in the coordinates of the embeddings.
        kind : {"difference", "coefficients"}, default="difference"
            Whether the directions are added to embeddings, such as differences of means, or are
            coefficients, which embeddings are multiplied with.
        covariance : array-like of shape (d, d), default=None
            S, which coefficients need: ``np.cov(X, rowvar=False)``.
        top_k : int, default=10
            Maximum number of words on each side, >= 1.
        return_scores : bool, default=False
            Whether to return (word, score) pairs.

        Returns
        -------
        list of m DirectionWords
            For each direction a named tuple ``(raised, lowered)`` of lists of words, best first. The score
            of a raised word is its weight times ``|delta|``, that of a lowered word is this below zero.

        Raises
        ------
        ValueError
            As for :meth:`FLiPExtractor.read_directions`.
        """
        model = scoring.snapshot(self)
        k = check_integer("top_k", top_k, 1)
        return_scores = check_bool("return_scores", return_scores)
        rows = displacements(model, directions, kind, covariance)
        model.embedding_mean_ = np.zeros(rows.shape[1])
        model.__dict__.pop("feature_names_in_", None)  # the rows are an array now
        sides = []
        for sign in (1, -1):
            words = model.extract_keywords(sign * rows, k, return_scores=True)
            scales = (sign * np.linalg.norm(rows, axis=1)).tolist()
            sides.append(
                [
                    [(word, scale * weight) if return_scores else word for word, weight in row]
                    for row, scale in zip(words, scales, strict=True)
                ]
            )
        return [DirectionWords(*side_words) for side_words in zip(*sides, strict=True)]

    def _row_scorer(self, query: Query) -> RowScorer:
        """Return how this model scores rows for a query: by the weights of the words."""
        self._check_parameters()
        model = scoring.snapshot(self)
        model.verbose = 0  # the search has a progress bar of its own

        def score(X: Embeddings) -> np.ndarray:
            return np.concatenate([query_weights(block, query) for block in model._decompose(X)])

        return RowScorer(score, scoring.scoring_compute(self, self.precision), np.array)

    def score(self, X: Any, Y: Any = None, sample_weight: Any = None, *, y: Any = None) -> float:
        """Return the keyword accuracy: the share of a row's words among as many extracted ones.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts, with a column for each concept.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0.
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y.

        Returns
        -------
        float
            See :func:`flip_sklearn.metrics.keyword_accuracy`. Words of weight zero are not extracted.
        """
        self = scoring.snapshot(self)
        X = scoring.fitted_input(self, X)
        counts = check_counts_of(self, one_target(Y, y), len(X))
        return float(keyword_accuracy(counts, self._weights(X), sample_weight=sample_weight))

    def decomposition_quality(self, X: Any) -> DecompositionQuality:
        """Compute the sparsity and accuracy of the decomposition of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        DecompositionQuality
            L0, cosine of v and C^T w, and duality gap of each row.
        """
        self = scoring.snapshot(self)
        X = scoring.fitted_input(self, X)
        concepts = beside(X, self.concepts_)
        l0, cosine, gap = np.zeros(len(X), dtype=np.int64), np.zeros(len(X)), np.zeros(len(X))
        for block in self._decompose(X):
            rows = block.rows
            l0[rows] = (block.indices >= 0).sum(axis=1)
            recomposed = recompose(self._to_csr(block), concepts)
            cosine[rows] = as_numpy((recomposed * block.targets).sum(axis=1))
            gap[rows] = block.gap
        return DecompositionQuality(l0, cosine, gap)

    def mean_concepts(self, X: Any, groups: Any = None, *, top_k: int | None = None) -> ConceptMeans:
        """Compute the mean weights over a data set, or over each group of its rows.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        groups : array-like of shape (n,), default=None
            Label of each row, such as its class; all rows are one group when None.
        top_k : int, default=None
            Number of concepts to keep in each group, >= 1; all that have a weight when None.

        Returns
        -------
        ConceptMeans
            Mean weights, with a method ``to_frame``.
        """
        self = scoring.snapshot(self)
        k = None if top_k is None else check_integer("top_k", top_k, 1)
        X = scoring.fitted_input(self, X)
        labels = np.array(["all"], dtype=object)
        group = np.zeros(len(X), dtype=np.int64)
        if groups is not None:
            labels, group = number_groups(groups, len(X))
        n_rows = np.bincount(group, minlength=len(labels))
        averaging = sp.csr_array((1 / n_rows[group], (group, np.arange(len(X)))), shape=(len(labels), len(X)))
        means = sp.csr_array(averaging @ self._weights(X).astype(np.float64))
        means.eliminate_zeros()
        means.sort_indices()
        if k is not None:
            means = keep_largest(means, k)
        return ConceptMeans(labels, n_rows, means, self.vocabulary_)

    def inverse_transform(self, W: Any) -> Any:
        """Compute embeddings from weights: unit(unit(C^T w) + m), as in the published code.

        The lengths of the original embeddings are lost. A row without weights becomes unit(m).

        Parameters
        ----------
        W : {array-like, sparse matrix} of shape (n, V)
            Weights, such as those of ``transform``.

        Returns
        -------
        embeddings : ndarray of shape (n, d), or an array like W under scikit-learn's array API
            Of unit length; float64 for float64 weights, float32 otherwise.
        """
        self = scoring.snapshot(self)
        xp = namespace_of(W)
        if sp.issparse(W):
            W = checked_sparse(W, "W").tocsr()
        if xp is None:
            weights: Any = check_array(as_numpy(W), accept_sparse="csr", dtype=[np.float64, np.float32])
        else:
            weights = as_shared_tensor(check_array(W, dtype=[xp.float64, xp.float32]))
        if weights.shape[1] != len(self.vocabulary_):
            raise ValueError(
                f"W has {weights.shape[1]} columns, the dictionary {len(self.vocabulary_)} concepts; pass "
                "weights of transform."
            )
        kind = self.embedding_mean_ if sp.issparse(weights) else weights
        dtype = scoring.output_dtype(weights)
        return like(W, self._embeddings(weights, kind, dtype), dtype)

    @without_autocast()
    def _embeddings(self, weights: Any, kind: Embeddings, dtype: np.dtype) -> Any:
        """Compute unit(unit(C^T w) + m), as an array of this kind and on its device."""
        concepts, mean = beside(kind, self.concepts_), beside(kind, self.embedding_mean_)
        xp, _ = get_namespace(mean)
        rows = []
        for start in range(0, weights.shape[0], CHUNK_ROWS):
            recomposed = recompose(weights[start : start + CHUNK_ROWS], concepts)
            rows.append(xp.astype(unit(recomposed + mean), getattr(xp, dtype.name)))
        return xp.concat(rows)

    def intervene(self, X: Any, remove: Any) -> Any:
        """Compute embeddings from the weights of X with those of some concepts set to zero.

        The residual of the decomposition is lost, too: compare the result with ``intervene(X, [])``.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        remove : str or sequence of str
            Names of the concepts to remove.

        Returns
        -------
        embeddings : ndarray of shape (n, d), or an array like X under scikit-learn's array API
            As of ``inverse_transform``.

        Raises
        ------
        ValueError
            If a name is not in the vocabulary.
        """
        self = scoring.snapshot(self)
        embeddings = scoring.fitted_input(self, X)
        names = [remove] if isinstance(remove, str) else remove
        if not isinstance(names, Iterable):
            raise ValueError(f"remove={names!r} is not allowed; use a list of concept names.")
        column = {name: j for j, name in enumerate(self.vocabulary_)}
        columns = []
        for name in names:
            if name not in column:
                raise ValueError(f"{name!r} is not a concept; use names from get_feature_names_out().")
            columns.append(column[name])
        weights = self._weights(embeddings)
        weights.data[np.isin(weights.indices, columns)] = 0
        dtype = scoring.output_dtype(embeddings)
        return like(X, self._embeddings(weights, embeddings, dtype), dtype)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the concepts in the order of the dictionary.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of shape (V,) of str objects
            The words, in the order of the columns.
        """
        check_is_fitted(self)
        names: np.ndarray = self.vocabulary_.copy()
        return names

    def _decompose(self, X: Embeddings) -> Iterator[Block]:
        """Yield the decompositions of blocks of rows."""
        l1 = self._check_parameters()
        precision = self.precision
        if precision == "auto":
            precision = str(scoring.output_dtype(X))
        compute = scoring.scoring_compute(self, precision)
        coder = SparseCoder(self.concepts_, compute.device, compute.dtype)
        mean, largest_gap = beside(X, self.embedding_mean_), 0.0
        n_concepts, d = int(self.concepts_.any(axis=1).sum()), self.concepts_.shape[1]
        if l1 == 0 and n_concepts > d and len(X):
            warn_caller(
                f"l1_strength=0 with {n_concepts} concepts in {d} dimensions: the weights are not unique, so "
                "they do not tell which concepts are in an embedding. Use l1_strength > 0, or at most as "
                "many concepts as dimensions."
            )
        with show_progress(total=len(X), unit="row", desc="SpLiCE", disable=not self.verbose) as bar:
            for start in range(0, len(X), CHUNK_ROWS):
                targets = centred(unit(X[start : start + CHUNK_ROWS]), mean)
                with without_autocast():
                    indices, weights, gap = coder.decompose(targets, l1)
                largest_gap = max(largest_gap, float(gap.max(initial=0)))
                rows = slice(start, start + len(targets))
                yield Block(rows, targets, indices, weights, gap)
                bar.update(len(targets))
        if largest_gap > MAX_GAP:
            warn_caller(
                f"the largest duality gap of a row is {largest_gap:.1g} of its squared length; use a larger "
                "l1_strength or precision='float64'.",
                ConvergenceWarning,
            )

    def _to_csr(self, block: Block) -> sp.csr_array:
        return scoring.top_to_csr(block.indices, block.weights, len(self.vocabulary_))

    def _weights(self, X: Embeddings) -> sp.csr_array:
        """Compute the weights (n, V) of rows that have been checked."""
        parts = [self._to_csr(block) for block in self._decompose(X)]
        return sp.csr_array(sp.vstack(parts, format="csr"), dtype=scoring.output_dtype(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

"""FLiPExtractor: validates, calls the backend, holds the fitted NumPy arrays, scores words."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.estimation import scoring, training
from flip_sklearn.estimation.callbacks import CallbackSupportMixin, with_callbacks
from flip_sklearn.estimation.validation import check_counts, one_target
from flip_sklearn.metrics import RowMean
from flip_sklearn.parameters import check_bool
from flip_sklearn.persistence import PretrainedMixin


class FLiPExtractor(PretrainedMixin, CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Read words off embeddings with a factorized log-linear model.

    Fits, over word embeddings A (V, r), a projection B (r, d) and a bias b (V,), the minimum of

        J = (1/W) sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj]
            + (l1_strength / V) sum_j |a_j|_1 + (l2_strength / 2W) sum_j |a_j|_2^2,

        z_n = b + A B (x_n - mu),   T_n = sum_j Y_nj,   W = sum_n w_n T_n,

    where mu is the mean embedding and every latent B_k (x - mu) is held at unit variance over the
    training rows (up to a small ridge), so that A_jk is in nats per standard deviation and the penalty
    cannot be escaped by shrinking A and growing B. The first term is the mean negative log-likelihood
    per word of theta = softmax(z).

    Parameters
    ----------
    rank : int, "auto" or None, default="auto"
        Rank r of A B, from 1 to d. ``"auto"`` is min(512, d). ``None`` trains the (V, d) matrix without
        factorization: the paper's LiP baseline, a convex problem.
    l1_strength : float, default=1e-2
        Strength of the L1 penalty, >= 0, in nats per word of text for each unit of the mean over the
        vocabulary of |a_j|_1. At ``l1_max_`` and above, A = 0 is stationary.
    l2_strength : float, default=20.0
        Strength of the squared L2 penalty on A, >= 0, in occurrences of a word: a word that occurs this
        often keeps about half of what the data say of it, rarer words less. It is a Gaussian prior whose
        weight does not grow with the data. More of it raises the accuracy without bias, and lowers the
        one with bias at small ranks (docs/performance.md).
    use_bias : bool, default=True
        Score words with b (log-probability: reads like the sentence) or without (lift over the average
        sentence: stop words drop out and names rise). b is always trained; this may be changed at any
        time after ``fit``, with no refit.
    top_k : int, default=10
        Words per row in ``predict``, ``transform`` and ``extract_keywords``, >= 1; fewer where training
        saw fewer words.
    vocabulary : sequence of str or dict of str to int, default=None
        The V words in column order, or word -> column as in ``CountVectorizer.vocabulary_``. When None,
        the column names of Y if it is a DataFrame, else ``word0``, ``word1`` and so on.
    solver : {"auto", "exact", "sampled"}, default="auto"
        ``"exact"`` computes the softmax over all words, ``"sampled"`` over the words of the batch and a
        random part of the others, corrected for their chances: the same model within noise, at a cost
        that hardly grows with V. ``"auto"`` is ``"sampled"`` when a batch then has at most half of the
        words, a rule that looks at the counts alone, never at a clock (docs/performance.md).
    max_iter : int, default=20
        Most passes over the training rows, >= 1.
    tol : float, default=1e-3
        A pass counts as progress when it improves the held-out score (or, without early stopping, J) by
        more than this, >= 0.
    batch_size : int or "auto", default="auto"
        Rows per step, >= 1. ``"auto"`` is a fiftieth of the rows, from 32 to 500.
    learning_rate : float, default=0.05
        Step size, > 0. Entries of A move by about ``learning_rate / sqrt(r)`` a step.
    early_stopping : {"auto", True, False, "accuracy", "likelihood"}, default="auto"
        Hold out a part of the rows and keep the parameters of the pass that is best on it, by keyword
        accuracy (True) or by likelihood. ``"auto"`` is True from 1,000 rows with words on.
    validation_fraction : float, default=0.1
        Share of the rows with words to hold out, in (0, 1), at most 10,000 rows.
    n_iter_no_change : int, default=2
        Stop after this many passes without progress, >= 1.
    warm_start : bool, default=False
        Continue from the previous fit when it had the same vocabulary and dimensions.
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the order of rows and the candidates. The same int on the same CPU gives the
        same bits.
    checkpoint_dir : path-like or None, default=None
        Folder for checkpoints of ``fit`` (not of ``partial_fit``), written atomically every half minute or
        less often, so that they take at most a twentieth of the time. The same call (settings, data)
        with the same folder goes on where the last one was cut off, to the same bits on one CPU, and
        returns at once if it was finished. Any number of fits may share a folder. Delete it when done.
    verbose : int, default=0
        Above zero, a progress bar for ``fit`` and for scoring that lasts over two seconds.
    device : str, default="auto"
        ``"auto"`` (CUDA when there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
    precision : {"auto", "float32", "bfloat16", "float64"}, default="auto"
        Of training. ``"bfloat16"`` lets the large products run in bfloat16 where the chip does so (sums
        and storage stay float32); ``"auto"`` picks it where it is faster, float32 elsewhere. Scoring
        uses float32, or float64 with ``"float64"``.
    sparse_output : bool, default=True
        Whether ``transform`` gives a csr_array, or a dense array as ``set_output`` needs.

    Attributes
    ----------
    word_embeddings_ : ndarray of shape (V, r), csr_array after ``to_sparse``
        A. Rows of words that training never saw are zero.
    projection_ : ndarray of shape (r, d)
        B. For ``rank=None`` the fixed whitening map (d, d): LiP's matrix is A B.
    bias_ : ndarray of shape (V,)
        b, normalized so that exp(b) is the word distribution at the mean embedding; -1e4 for words that
        training never saw, which are therefore never extracted, with or without bias.
    embedding_mean_ : ndarray of shape (d,)
        mu.
    vocabulary_ : ndarray of shape (V,) of str
    word_counts_ : ndarray of shape (V,)
        Weighted count of every word in Y.
    rank_ : int
        r (d for LiP).
    n_iter_ : int
        Passes done.
    best_iter_ : int
        The pass whose parameters were kept.
    history_ : dict of str to list of float
        Per pass: ``loss`` (J), ``validation_nll``, ``validation_accuracy`` (nan without a held-out part),
        ``sparsity`` (share of exact zeros in A), ``seconds``.
    l1_max_ : float
        The smallest ``l1_strength`` at which A = 0 is stationary, whatever B is.
    solver_ : {"exact", "sampled"}
        What ``solver`` came to.
    kkt_residual_ : float
        How far A and b are from J's optimality conditions over the training rows, given B, in the units
        of ``l1_strength``: 0 at the optimum, and comparable with ``l1_max_``. It takes two thirds of a
        pass. nan with the sampled solver, where it would cost more than the fit, and after
        ``partial_fit``: see :func:`flip_sklearn.kkt_residual`.
    device_ : str
        Where the fit ran.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,), only if X had string column names.

    References
    ----------
    Kesiraju et al. (2026), "FLiP", arXiv 2604.18109.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> rng = np.random.default_rng(0)
    >>> Y = rng.poisson(0.3, size=(400, 5))  # counts of five words in 400 sentences
    >>> X = Y @ rng.normal(size=(5, 12))  # embeddings that are linear in the words
    >>> flip = FLiPExtractor(rank=5, vocabulary=["red", "green", "blue", "dog", "cat"],
    ...                      max_iter=200, random_state=0).fit(X, Y)
    >>> sentence = np.array([[0, 1, 0, 1, 0]]) @ np.linalg.lstsq(Y, X)[0]
    >>> sorted(flip.extract_keywords(sentence, top_k=2)[0])
    ['dog', 'green']
    """

    def __init__(
        self,
        rank: int | str | None = "auto",
        *,
        l1_strength: float = 1e-2,
        l2_strength: float = 20.0,
        use_bias: bool = True,
        top_k: int = 10,
        vocabulary: Any = None,
        solver: str = "auto",
        max_iter: int = 20,
        tol: float = 1e-3,
        batch_size: int | str = "auto",
        learning_rate: float = 0.05,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        warm_start: bool = False,
        checkpoint_dir: Any = None,
        random_state: Any = None,
        verbose: int = 0,
        device: str = "auto",
        precision: str = "auto",
        sparse_output: bool = True,
    ) -> None:
        self.rank = rank
        self.l1_strength = l1_strength
        self.l2_strength = l2_strength
        self.use_bias = use_bias
        self.top_k = top_k
        self.vocabulary = vocabulary
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.precision = precision
        self.sparse_output = sparse_output

    # ------------------------------------------------------------------ fitting

    @with_callbacks
    def fit(
        self, X: Any, Y: Any = None, sample_weight: Any = None, *, groups: Any = None, y: Any = None
    ) -> FLiPExtractor:
        """Fit A, B and b to embeddings and word counts.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings: NumPy (float16, float32, float64, memory-mapped), DataFrame or torch tensor.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts, whole numbers >= 0; never densified. 1-D means one column. Rows without words
            have no weight; columns without words get a score that is never extracted.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0. Weight 2 is the same as the row twice, so weights count as rows
            (the ridge of the whitening looks at their sum): keep them around 1.
        groups : array-like of shape (n,), default=None
            Rows that belong together, such as the views of one sentence (:func:`stack_views` gives them).
            Early stopping holds out whole groups; without them it would judge by sentences that it has
            trained on in another view, and stop too late.
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y, for callers that use scikit-learn's name as a keyword.

        Returns
        -------
        self : FLiPExtractor

        Raises
        ------
        ValueError
            If a parameter, X, Y or a weight is not allowed; nothing is changed then.
        FloatingPointError
            If the loss stops being finite.

        Notes
        -----
        After KeyboardInterrupt the model is the best of the passes done, with a ConvergenceWarning; before
        the end of the first pass, and always in a process group (whose processes may have done different
        passes), the interrupt goes through and nothing is changed.

        In a process group of ``torch.distributed`` every process calls ``fit`` with the same arguments
        and gets the same model; each computes its part of the rows (docs/scaling.md).
        """
        fitted = training.fit(self, X, one_target(Y, y), sample_weight, groups)
        return self._set_fitted(fitted)

    @with_callbacks
    def partial_fit(
        self, X: Any, Y: Any = None, sample_weight: Any = None, *, y: Any = None
    ) -> FLiPExtractor:
        """One pass over a chunk of rows, continuing from the chunks before.

        Mean, covariance and word counts are updated exactly, as if all chunks had come at once. The
        vocabulary is fixed by the first chunk's columns; words it lacks may appear later.

        Parameters
        ----------
        X : array-like of shape (n, d)
        Y : {array-like, sparse matrix} of shape (n, V)
        sample_weight : array-like of shape (n,), default=None
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y.

        Returns
        -------
        self : FLiPExtractor

        Raises
        ------
        ValueError
            As ``fit``; also if the chunk's dimensions differ from the first chunk's.
        """
        return self._set_fitted(training.partial_fit(self, X, one_target(Y, y), sample_weight))

    def _set_fitted(self, attributes: dict[str, Any]) -> FLiPExtractor:
        """Set the fitted attributes: the last step of a fit, so that a failure changes nothing."""
        for name in ("feature_names_in_", "pretrained_info_"):  # of an earlier fit or file
            self.__dict__.pop(name, None)
        self.__dict__.update(attributes)
        return self

    def to_sparse(self) -> FLiPExtractor:
        """Store A as a csr_array: less memory and smaller files where L1 made most of it zero.

        Scores do not change. Like scikit-learn's linear models, it pays when fewer than half of the entries
        are left; scoring is sparse where that is faster, whichever way A is stored.

        Returns
        -------
        self : FLiPExtractor
        """
        check_is_fitted(self)
        self.word_embeddings_: Any = sp.csr_array(self.word_embeddings_)
        return self

    def to_dense(self) -> FLiPExtractor:
        """Store A as an ndarray again.

        Returns
        -------
        self : FLiPExtractor
        """
        check_is_fitted(self)
        if sp.issparse(self.word_embeddings_):
            self.word_embeddings_ = self.word_embeddings_.toarray()
        return self

    # ------------------------------------------------------------------ scoring

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores z of all words: b + A B (x - mu), or without b for ``use_bias=False``.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        z : ndarray of shape (n, V)
            In nats; -1e4 for words that training never saw.

        Raises
        ------
        ValueError
            If the result would not fit in memory; ``extract_keywords``, ``predict`` and ``transform``
            need no such array.
        """
        return scoring.dense(self, X, "scores")

    def predict_proba(self, X: Any) -> np.ndarray:
        """Word distributions theta = softmax(z).

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        theta : ndarray of shape (n, V)
            Rows sum to 1.

        Raises
        ------
        ValueError
            If the result would not fit in memory.
        """
        return scoring.dense(self, X, "softmax")

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the word distributions, without underflow.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        log_theta : ndarray of shape (n, V)

        Raises
        ------
        ValueError
            If the result would not fit in memory.
        """
        return scoring.dense(self, X, "log_softmax")

    def predict(self, X: Any) -> sp.csr_array:
        """The ``top_k`` words of each row as indicators.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        words : csr_array of shape (n, V), int64
            1 for an extracted word.
        """
        indices, _ = scoring.top_words(self, scoring.fitted_input(self, X), self.top_k)
        return scoring.top_to_csr(indices, np.ones_like(indices), len(self.vocabulary_))

    def transform(self, X: Any) -> Any:
        """Probabilities theta of the ``top_k`` words of each row, zero elsewhere.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        activations : csr_array of shape (n, V), or ndarray with ``sparse_output=False``
            float64 for float64 input, float32 otherwise.
        """
        sparse_output = check_bool("sparse_output", self.sparse_output)
        X = scoring.fitted_input(self, X)
        n_words, dtype = len(self.vocabulary_), scoring.output_dtype(X)
        if not sparse_output:
            scoring.refuse_too_large(X.shape[0], n_words, dtype)
        indices, theta = scoring.top_words(self, X, self.top_k, probabilities=True)
        result = scoring.top_to_csr(indices, theta.astype(dtype, copy=False), n_words)
        return result if sparse_output else result.toarray()

    def extract_keywords(
        self, X: Any, top_k: int | None = None, return_scores: bool = False
    ) -> Any:
        """Words per row, best first.

        Parameters
        ----------
        X : array-like of shape (n, d)
        top_k : int, default=None
            Words per row, >= 1; the estimator's ``top_k`` when None.
        return_scores : bool, default=False
            Also give each word's score z.

        Returns
        -------
        keywords : list of n lists of str
            Or, with ``return_scores``, of (word, score) pairs.
        """
        k = self.top_k if top_k is None else top_k
        return scoring.keywords(self, scoring.fitted_input(self, X), k, return_scores)

    def score(self, X: Any, Y: Any = None, sample_weight: Any = None, *, y: Any = None) -> float:
        """Keyword accuracy: share of a row's words among as many extracted ones.

        Parameters
        ----------
        X : array-like of shape (n, d)
        Y : {array-like, sparse matrix} of shape (n, V)
        sample_weight : array-like of shape (n,), default=None
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y.

        Returns
        -------
        float
            See :func:`flip_sklearn.metrics.keyword_accuracy`, which also gives the standard error.
        """
        X = scoring.fitted_input(self, X)
        counts, _ = check_counts(one_target(Y, y), X.shape[0], len(self.vocabulary_))
        hits, k = scoring.keyword_hits(self, X, counts), np.diff(counts.indptr)
        per_row = np.where(k > 0, hits / np.maximum(k, 1), np.nan)
        return float(RowMean.of(per_row, sample_weight))

    def _top_words(self, X: Any, k: int, use_bias: bool | None = None) -> np.ndarray:
        """The k best words of each row as indices, best first, with ``use_bias`` or as the estimator."""
        return scoring.top_words(self, scoring.fitted_input(self, X), k, use_bias=use_bias)[0]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The vocabulary, in column order.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of shape (V,) of str objects
        """
        check_is_fitted(self)
        names: np.ndarray = self.vocabulary_.copy()
        return names

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

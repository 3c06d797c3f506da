"""FLiPExtractor: parameters, methods and their documentation; the work is done in `estimation`."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.estimation import presence, scoring, training, word_features
from flip_sklearn.estimation.array_api import like, to_dense
from flip_sklearn.estimation.callbacks import CallbackSupportMixin, with_callbacks
from flip_sklearn.estimation.directions import DirectionsMixin
from flip_sklearn.estimation.open_vocabulary import OpenVocabularyMixin
from flip_sklearn.estimation.search import RowSearchMixin
from flip_sklearn.estimation.validation import check_counts_of, one_target
from flip_sklearn.metrics import RowMean
from flip_sklearn.parameters import DocumentationLink, VocabularyRepr, check_bool
from flip_sklearn.persistence import PretrainedMixin


class FLiPExtractor(
    VocabularyRepr,
    DocumentationLink,
    PretrainedMixin,
    DirectionsMixin,
    OpenVocabularyMixin,
    RowSearchMixin,
    CallbackSupportMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Read words off embeddings with a factorized log-linear model.

    Fits, over word embeddings A (V, r), a projection B (r, d) and a bias b (V,), the minimum of::

        J = (1/W) sum_n w_n [T_n logsumexp(z_n) - sum_j Y_nj z_nj]
            + (l1_strength / V) sum_j |a_j|_1 + (l2_strength / 2W) sum_j |a_j|_2^2,

        z_n = b + A B (x_n - mu),   T_n = sum_j Y_nj,   W = sum_n w_n T_n,

    where mu is the mean embedding. The scale of B is fixed by whitening: a latent B_k (x - mu) along a
    principal axis of variance v has variance v / (v + ridge) over the training rows, where the ridge is
    0.2 d / n (from 1e-4 to 0.3) of the mean v. This is one for n much larger than d, so A_jk is in nats per
    standard deviation; with few rows, latents along axes of small variance have less (docs/solver.md). The
    penalty cannot be avoided by scaling A down and B up. The first term is the mean negative log-likelihood
    per word of theta = softmax(z).

    Parameters
    ----------
    rank : int, "auto" or None, default="auto"
        Rank r of A B, from 1 to d. ``"auto"`` is min(512, d). ``None`` trains the (V, d) matrix without
        factorization: the paper's LiP baseline, a convex problem.
    l1_strength : float, default=1e-2
        Strength of the L1 penalty, >= 0, in nats per word of text for each unit of the mean over the
        vocabulary of ``|a_j|_1``. At ``l1_max_`` and above, A = 0 is stationary.
    l2_strength : float or "auto", default="auto"
        Strength of the squared L2 penalty on A, >= 0, in occurrences of a word: the row of a word with
        this many occurrences is shrunk by about half, the rows of rarer words by more. It is a Gaussian
        prior whose weight does not grow with the data. A larger value raises the accuracy without bias,
        and lowers the accuracy with bias at small ranks (docs/performance.md). ``"auto"`` is 20, and 50
        with ``word_features``.
    use_bias : bool, default=True
        Whether scores include b. With b they are log-probabilities: the words that the sentence is likely
        to contain. Without b they are the lift over the average sentence: stop words drop out and names
        rise. b is always trained, so this may be changed after ``fit`` without a refit.
    top_k : int, default=10
        Number of words per row in ``predict``, ``transform`` and ``extract_keywords``, >= 1; fewer if
        training saw fewer words.
    vocabulary : sequence of str, dict of str to int or fitted vectorizer, default=None
        The V words in column order, or word -> column as in ``CountVectorizer.vocabulary_``, or a vectorizer
        that has them (``clone`` undoes its fit). When None, the column names of Y if it is a DataFrame
        (pandas, polars or pyarrow), else ``word0``, ``word1`` and so on, with a warning.
    word_features : array-like of shape (V, p), DataFrame, transformer or None, default=None
        Features of the words, such as the embedding of each word by the same encoder: they tell what words
        mean that training has seen rarely or never (docs/rare-words.md). The rows of A are then shrunk
        towards E G instead of zero, with E the standardized features and G learned: in J, ``|A|_2^2`` is
        replaced by ``min_G |A - E G|_2^2 + kappa |G|_2^2``. A DataFrame has the words as its index. A
        transformer, such as ``SentenceEncoder``, is cloned, fitted to the list of words, and applied to it
        once for each vocabulary. Features that do not predict the rows of A are not used, with a warning.
    solver : {"auto", "exact", "sampled", "lbfgs"}, default="auto"
        ``"exact"`` computes the softmax over all words. ``"sampled"`` computes it over the words of the
        batch and a random sample of the others, corrected for their inclusion probabilities: the same
        model within noise, at a cost that hardly grows with V. ``"auto"`` is ``"sampled"`` if a batch is
        then expected to have at most half of the words; the choice is deterministic, since it depends on
        the counts and not on timing (docs/performance.md). ``"lbfgs"`` takes steps on all rows until the
        conditions of the optimum hold to ``tol``: for comparisons of converged models, above all of
        ``rank=None``, whose optimum is global. The other solvers stop early, which is faster and reads
        unseen sentences better (docs/solver.md).
    max_iter : int or "auto", default="auto"
        Maximum number of passes over the training rows, or of iterations of ``"lbfgs"``, >= 1. ``"auto"``
        is 20, and 1,000 for ``"lbfgs"``.
    tol : float, default=1e-3
        A pass counts as progress when it improves the held-out score (or, without early stopping, J) by
        more than this, >= 0. ``"lbfgs"`` stops when ``kkt_residual_`` is at most ``tol``.
    batch_size : int or "auto", default="auto"
        Rows per step, >= 1. ``"auto"`` is a fiftieth of the rows, from 32 to 500. Larger batches, such as
        2,000 rows, make better use of a GPU.
    learning_rate : float, default=0.05
        Step size, > 0. Entries of A move by about ``learning_rate / sqrt(r)`` a step.
    early_stopping : {"auto", True, False, "accuracy", "likelihood"}, default="auto"
        Hold out a part of the rows and keep the parameters of the pass that is best on them, by keyword
        accuracy (True or ``"accuracy"``) or by likelihood. ``"auto"`` is True for 1,000 and more rows with
        words, and False for ``solver="lbfgs"``.
    validation_fraction : float, default=0.1
        Share of the rows with words that are held out, in (0, 1); at most 10,000 rows are.
    n_iter_no_change : int, default=2
        Stop after this many passes without progress, >= 1.
    warm_start : bool, default=False
        Continue from the previous fit if it had the same vocabulary and dimensions.
    checkpoint_dir : path-like or None, default=None
        Folder for checkpoints of ``fit`` (not of ``partial_fit``). They are written atomically, at most
        every half minute, and take at most a twentieth of the time. If a fit was cut off, the same call
        with the same settings, data and folder continues from the last checkpoint to the same bits; if it
        was finished, the call returns at once. Any number of fits may share a folder. It can be deleted
        when no fit is to be continued.
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the order of the rows and the sampled words. The same int gives the same bits on
        the same machine with the same number of threads.
    verbose : int, default=0
        If above zero, show a progress bar during ``fit``, and during scoring after two seconds.
    device : str, default="auto"
        ``"auto"`` (CUDA if available), ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
    precision : {"auto", "float32", "bfloat16", "float64"}, default="auto"
        Number format of training. ``"bfloat16"`` computes the large products in bfloat16 on processors
        that support it, with sums and storage in float32. ``"auto"`` is ``"bfloat16"`` on processors where
        it is faster, and ``"float32"`` otherwise. Scoring uses float32, or float64 with ``"float64"``.
    sparse_output : bool, default=True
        Whether ``transform`` returns a csr_array; ``set_output`` needs False, a dense array.

    Attributes
    ----------
    word_embeddings_ : ndarray of shape (V, r), csr_array after ``to_sparse``
        The matrix A. The rows of words that training never saw are zero.
    projection_ : ndarray of shape (r, d)
        The matrix B. For ``rank=None`` the fixed whitening map (d, d): LiP's matrix is A B.
    bias_ : ndarray of shape (V,)
        b, normalized so that exp(b) is the word distribution at the mean embedding. After ``fit`` it is
        refitted with A and B as they are, so that the sum over the rows of T_n theta_nj, with the weights of
        the rows, is the count of word j (docs/solver.md): over all rows given to ``fit``, the held-out ones
        included. ``partial_fit`` leaves b as the solver returns it. It is -1e4 for words that training never
        saw, which are never extracted, with or without bias.
    ranking_offset_ : ndarray of shape (V,)
        Added to the scores when words are ranked with bias: the bias of the best likelihood is not the one
        of the best ranking. It depends on the frequency of a word, is chosen by the accuracy on the held-out
        rows, and is not part of theta. Zero without held-out rows, or if the gain may be chance. With
        ``word_features`` it may depend on all that held-out rows say about a word.
    lift_offset_ : ndarray of shape (V,)
        Only with ``word_features``: added to the scores without bias, half of the standard error of the
        word's lift below zero. Otherwise the many rare words whose lift is a
        guess from their features would come before words whose lift is known.
    word_map_, word_feature_mean_ : ndarray of shape (p, r) and (p,)
        Only with ``word_features``: the row of A that the features e of a word predict is
        (e - ``word_feature_mean_``) ``word_map_``.
    word_map_ridge_ : float
        kappa, chosen by leave-one-out prediction of the rows of A at the start of the fit.
    word_transformer_ : transformer
        The fitted transformer, if ``word_features`` is one.
    extended_words_ : ndarray of int
        Columns of the words that :meth:`extend_vocabulary` added; only in models that it returns.
    embedding_mean_ : ndarray of shape (d,)
        The mean embedding mu.
    embedding_covariance_ : ndarray of shape (d, d)
        Weighted covariance of the training rows, for ``read_directions``. Models that other code trained,
        or that earlier versions stored in a folder, have none.
    vocabulary_ : ndarray of shape (V,) of str
        The words, in the order of the columns of Y.
    word_counts_ : ndarray of shape (V,)
        Weighted count of every word in Y.
    rank_ : int
        The rank r (d for LiP).
    n_iter_ : int
        Number of passes.
    best_iter_ : int
        The pass whose parameters were kept.
    history_ : dict of str to list of float
        One value per pass of ``loss``, ``training_loss``, ``validation_nll``, ``validation_accuracy`` (both
        nan without held-out rows), ``sparsity`` (share of exact zeros in A) and ``seconds``. ``loss`` is J on
        the training rows of the model that would be returned after the pass. On more than 2^18 scores
        (rows times words), and with sampled classes, the differences between passes are estimated on 500
        rows, and only that of ``best_iter_`` is computed on all rows. ``training_loss`` is J with the mean
        loss of the steps of the pass. The held-out values are those before the refit of b.
    presence_length_, presence_intercept_, presence_slope_, presence_row_coef_ : ndarray
        What ``predict_presence`` computes with, of shapes (1 + r,), (V,), (V,) and (2, 2), learned from the
        held-out rows (docs/presence.md). None of them exists without held-out rows or after ``partial_fit``.
    l1_max_ : float
        The smallest ``l1_strength`` at which A = 0 is stationary, whatever B is.
    solver_ : {"exact", "sampled", "lbfgs"}
        The resolved solver.
    kkt_residual_ : float
        Largest violation of J's optimality conditions in A and b over the training rows, given B, in the
        units of ``l1_strength``: 0 at the optimum, and comparable with ``l1_max_``. Computing it takes two
        thirds of a pass. It is nan with the sampled solver, where it would take longer than the fit, and
        after ``partial_fit``: see :func:`flip_sklearn.kkt_residual`.
    interrupted_ : bool
        Whether the fit was ended by KeyboardInterrupt.
    device_ : str
        The device of the fit.
    n_features_in_ : int
        Number of dimensions d.
    feature_names_in_ : ndarray of shape (d,)
        Column names of X; only if all of them are strings.

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
        l2_strength: float | str = "auto",
        use_bias: bool = True,
        top_k: int = 10,
        vocabulary: Any = None,
        word_features: Any = None,
        solver: str = "auto",
        max_iter: int | str = "auto",
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
        self.word_features = word_features
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
            Embeddings: NumPy (float16, float32, float64, memory-mapped), DataFrame, a column or list of
            vectors, or torch tensor. Under scikit-learn's array API, arrays stay on their device
            (docs/estimator.md).
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts, integers >= 0; never densified. A 1-D array is refused as class labels, unless
            ``vocabulary`` is one word. Rows without counts are ignored; words without counts are never
            extracted. The column names of a DataFrame must be the words of the model in their order.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0. A row of weight 2 is the same as two rows, so the weights should be
            around 1: the ridge of the whitening depends on their sum.
        groups : array-like of shape (n,), default=None
            Labels of rows that belong together, such as the views of one sentence (:func:`stack_views`
            returns them). Early stopping holds out whole groups. Otherwise it would hold out sentences that
            are trained on in another view, and stop too late.
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y, under the name that scikit-learn uses as a keyword.

        Returns
        -------
        self : FLiPExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, X, Y or a weight is not allowed. The estimator is then unchanged.
        FloatingPointError
            If the loss is not finite. The estimator is then unchanged.

        Notes
        -----
        After KeyboardInterrupt the model is the best of the finished passes, ``interrupted_`` is True, and
        there is a ConvergenceWarning. During the first pass, and always in a process group (whose processes
        may have finished different passes), the interrupt is raised and the estimator is unchanged.

        In a process group of ``torch.distributed`` every process calls ``fit`` with the same arguments
        and gets the same model; each computes its part of the rows (docs/scaling.md).
        """
        fitted = training.fit(self, X, one_target(Y, y), sample_weight, groups)
        return self._set_fitted(fitted)

    @with_callbacks
    def partial_fit(
        self, X: Any, Y: Any = None, sample_weight: Any = None, *, y: Any = None
    ) -> FLiPExtractor:
        """Make one pass over a chunk of rows, continuing from the chunks before.

        Mean, covariance and word counts are updated exactly, as if all chunks were one. The columns of the
        first chunk are the vocabulary; a word may have its first count in a later chunk. As in ``fit``, rows
        without words are ignored, so that a later chunk without any changes nothing.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts, as :meth:`fit` takes them.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0.
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y.

        Returns
        -------
        self : FLiPExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            As ``fit``; also if the chunk's dimensions differ from the first chunk's.
        """
        return self._set_fitted(training.partial_fit(self, X, one_target(Y, y), sample_weight))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"word_features": None} | state)  # pickles of 0.1.0 have none

    def _set_fitted(self, attributes: dict[str, Any]) -> FLiPExtractor:
        """Set the fitted attributes: the last step of a fit, so that a failure changes nothing."""
        if attributes:
            of_earlier_fit = {"feature_names_in_", "pretrained_info_", "_covariance"}
            of_earlier_fit |= {*presence.ATTRIBUTES, *word_features.ATTRIBUTES}
            kept = {name: value for name, value in vars(self).items() if name not in of_earlier_fit}
            self.__dict__ = {**kept, **attributes}  # at once, for threads that score meanwhile
        return self

    def to_sparse(self) -> FLiPExtractor:
        """Store A as a csr_array, which takes less memory if most entries are zero.

        Scores do not change. As for scikit-learn's linear models, a csr_array is smaller if fewer than half
        of the entries are non-zero. Scoring uses a sparse product where that is faster, in both formats.

        Returns
        -------
        self : FLiPExtractor
            This estimator, changed in place.
        """
        check_is_fitted(self)
        self.word_embeddings_: Any = sp.csr_array(self.word_embeddings_)
        return self

    def to_dense(self) -> FLiPExtractor:
        """Store A as an ndarray again.

        Returns
        -------
        self : FLiPExtractor
            This estimator, changed in place.
        """
        check_is_fitted(self)
        if sp.issparse(self.word_embeddings_):
            self.word_embeddings_ = self.word_embeddings_.toarray()
        return self

    # ------------------------------------------------------------------ scoring

    def decision_function(self, X: Any) -> Any:
        """Compute the scores by which words are ranked: b + A B (x - mu) + ``ranking_offset_``.

        Without b if ``use_bias=False``, and then with ``lift_offset_``, if there is one, as the offset.
        Probabilities do not have the offset: where it is not zero, softmax(z) differs from ``predict_proba``,
        and ``predict_log_proba`` has the log-probabilities.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        z : ndarray of shape (n, V), or an array like X under scikit-learn's array API
            In nats. Words that training never saw score -1e4, or lower in rows where a seen word scores
            -1e4 or less, so they are finite and below all seen words.

        Raises
        ------
        ValueError
            If the result would not fit in memory. ``extract_keywords``, ``predict`` and ``transform`` need
            no dense array.
        """
        return scoring.dense(self, X, "scores")

    def predict_proba(self, X: Any) -> Any:
        """Compute the word distributions theta = softmax(b + A B (x - mu)), without b if ``use_bias=False``.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        theta : ndarray of shape (n, V), or an array like X under scikit-learn's array API
            Rows sum to 1; words that training never saw have probability 0.

        Raises
        ------
        ValueError
            If the result would not fit in memory.
        """
        return scoring.dense(self, X, "softmax")

    def predict_log_proba(self, X: Any) -> Any:
        """Compute the logarithms of the word distributions, without underflow.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        log_theta : ndarray of shape (n, V), or an array like X under scikit-learn's array API
            Finite, also for words that training never saw.

        Raises
        ------
        ValueError
            If the result would not fit in memory.
        """
        return scoring.dense(self, X, "log_softmax")

    def predict(self, X: Any) -> sp.csr_array:
        """Mark the ``top_k`` words of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        words : csr_array of shape (n, V), int64
            1 for an extracted word.
        """
        model = scoring.snapshot(self)
        indices, _ = scoring.top_words(model, scoring.fitted_input(model, X), model.top_k)
        return scoring.top_to_csr(indices, np.ones_like(indices), len(model.vocabulary_))

    def transform(self, X: Any) -> Any:
        """Compute the probabilities theta of the ``top_k`` words of each row; all others are zero.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.

        Returns
        -------
        activations : csr_array of shape (n, V), or a dense array with ``sparse_output=False``
            Probabilities of the ``top_k`` words of each row: float64 for float64 input, float32 otherwise.
        """
        model = scoring.snapshot(self)
        sparse_output = check_bool("sparse_output", model.sparse_output)
        embeddings = scoring.fitted_input(model, X)
        n_words, dtype = len(model.vocabulary_), scoring.output_dtype(embeddings)
        if not sparse_output:
            scoring.refuse_too_large(embeddings, n_words)
        indices, theta = scoring.top_words(model, embeddings, model.top_k, probabilities=True)
        result = scoring.top_to_csr(indices, theta.astype(dtype, copy=False), n_words)
        if sparse_output:
            return result
        with scoring.translate_memory_errors(embeddings, n_words):
            return like(X, to_dense(result, embeddings), dtype)

    def predict_presence(self, X: Any, top_k: int | None = None) -> sp.csr_array:
        """Compute the probability that a word occurs in the text, for the likeliest words of each row.

        With T(x) the expected number of words of the text and H(x) the entropy of theta, u_j = log(T theta_j)
        and::

            log-odds of word j = a_j + s_j u_j + q (log T, H) + u_j r (log T, H),

        where T is a Poisson regression on B (x - mu). All parameters are fitted to rows that ``fit`` holds
        out for early stopping, so the probabilities are calibrated for rows like these: of the words with
        probability p, a share of p occurs. For a given T and H, the probability rises with theta.
        Neither ``use_bias`` nor ``ranking_offset_`` changes it.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        top_k : int, default=None
            Number of words per row, those with the highest probability, >= 1; the estimator's ``top_k`` if
            None.

        Returns
        -------
        presence : csr_array of shape (n, V)
            Probabilities in [0, 1]; words that are not stored are less likely than the stored ones of the
            row. Rows do not sum to 1: their sum over all words is the expected number of distinct words.
            float64 for float64 input, float32 otherwise.

        Raises
        ------
        ValueError
            If the model has no ``presence_`` attributes, because no rows were held out.
        FloatingPointError
            If X is far larger than the training embeddings.
        """
        model = scoring.snapshot(self)
        presence.check_has_presence(model)
        k = scoring.resolve_top_k(model, model.top_k if top_k is None else top_k)
        return presence.likeliest_to_csr(model, scoring.fitted_input(model, X), k)

    def extract_keywords(
        self,
        X: Any,
        top_k: int | None = None,
        return_scores: bool = False,
        *,
        min_probability: float | None = None,
    ) -> Any:
        """Extract the best words of each row, best first.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        top_k : int, default=None
            Number of words per row, >= 1. If None, the estimator's ``top_k``, or with ``min_probability`` no
            limit.
        return_scores : bool, default=False
            Whether to return (word, score) pairs, with the score z, or with ``min_probability`` the
            probability.
        min_probability : float, default=None
            Return the words that occur in the text with at least this probability (see
            :meth:`predict_presence`), in (0, 1], likeliest first: as many as the row has, perhaps none.

        Returns
        -------
        keywords : list of n lists of str
            With ``return_scores`` lists of (word, score) pairs.

        Raises
        ------
        ValueError
            If a parameter is not allowed, or ``min_probability`` is given and the model has no ``presence_``
            attributes, because no rows were held out.
        """
        model = scoring.snapshot(self)
        if min_probability is not None:
            probability = presence.check_min_probability(model, min_probability)
            k = scoring.resolve_top_k(model, len(model.vocabulary_) if top_k is None else top_k)
            embeddings = scoring.fitted_input(model, X)
            return presence.keywords_by_presence(
                model, embeddings, k, probability, check_bool("return_scores", return_scores)
            )
        k = model.top_k if top_k is None else top_k
        return scoring.keywords(model, scoring.fitted_input(model, X), k, return_scores)

    def score(
        self, X: Any, Y: Any = None, sample_weight: Any = None, *, y: Any = None, use_bias: bool | None = None
    ) -> float:
        """Compute the keyword accuracy: the share of a row's words among as many extracted words.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, as :meth:`fit` takes them.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts, as :meth:`fit` takes them.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, >= 0.
        y : {array-like, sparse matrix} of shape (n, V)
            The same as Y.
        use_bias : bool, default=None
            Whether the words are ranked with the bias; the estimator's ``use_bias`` if None.

        Returns
        -------
        float
            See :func:`flip_sklearn.metrics.keyword_accuracy`, which also returns the standard error.
        """
        model = scoring.snapshot(self)
        X = scoring.fitted_input(model, X)
        counts = check_counts_of(model, one_target(Y, y), X.shape[0])
        hits, k = scoring.keyword_hits(model, X, counts, use_bias), np.diff(counts.indptr)
        per_row = np.where(k > 0, hits / np.maximum(k, 1), np.nan)
        return float(RowMean.of(per_row, sample_weight))

    def _top_words(self, X: Any, k: int, use_bias: bool | None = None) -> np.ndarray:
        """Return the indices of the k best words of each row; ``use_bias=None`` is the estimator's."""
        model = scoring.snapshot(self)
        return scoring.top_words(model, scoring.fitted_input(model, X), k, use_bias=use_bias)[0]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the vocabulary, in column order.

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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False  # a 1-D target is class labels
        tags.target_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

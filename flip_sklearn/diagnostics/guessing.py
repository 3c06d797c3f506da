"""Read or guessed: recall of words in the text, and after their deletion or from their context alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.diagnostics.bootstrap import Difference, Interval, PairedBootstrap
from flip_sklearn.diagnostics.controls import ContextModels, find_words_of_rows, fit_labels, to_labels
from flip_sklearn.diagnostics.deletion import EditedRecall, Edits, recall_after_edits
from flip_sklearn.diagnostics.guessing_inputs import Arguments, GuessingInputs, check_arguments
from flip_sklearn.diagnostics.guessing_result import BIAS, Selectivity
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics.ranking import binary_csr


def selectivity(
    model: Any,
    X: Any = None,
    Y: Any = None,
    *,
    texts: Sequence[str] | None = None,
    encoder: Any = None,
    vectorizer: Any = None,
    X_train: Any = None,
    Y_train: Any = None,
    words: Any = None,
    by: str | Sequence[Any] | Mapping[str, Any] | Callable[[str], Any] = "frequency",
    n_bands: int = 5,
    max_words: int | None = 5000,
    groups: Any = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> Selectivity:
    """Measure whether words are read off an embedding or guessed from the other words that it holds.

    A model may name a word because the vector holds it, or because the rest of the sentence makes it likely.
    With S_n the words of sentence n, ``k_n = |S_n|``, top_k(x) the k best words of an embedding x, e(t)
    the embedding of a text t, and t_n - j the text t_n without all occurrences of word j, over the pairs
    (n, j) of a sentence and one of its words, j in band g::

        recall[g]         = mean of [j in top_{k_n}(x_n)]
        recall_deleted[g] = mean of [j in top_{k_n}(e(t_n - j))]
        held[g]           = recall[g] - recall_deleted[g]
        guessed[g]        = mean of [j in top_{k_n}(e(t_n - j))] over the pairs with j in top_{k_n}(x_n)

    The model names k_n words in both cases: k_n - 1 places for the words that are left, and one for the word
    that was deleted. Over all words, ``recall`` is the keyword accuracy of Kesiraju et al. (2026, arXiv
    2604.18109) with every sentence weighted by k_n. ``encoder`` and ``texts`` are needed for it, and for

    - minimal pairs: t' is t_n with j replaced by a random word i of its band and power of ten of the training
      count. ``pair_accuracy`` is the share of z_j(x_n) - z_i(x_n) > z_j(e(t')) - z_i(e(t')). The bias
      cancels. One word of each band is replaced in each sentence.

    Two controls need training data, but no encoder:

    - context (``Y_train``): the measured words are divided into five folds whose words share few sentences.
      For each fold, a model of the same class and parameters is trained on the counts of ``Y_train``, from
      sums of random word vectors in d dimensions, without the words of the fold. ``recall_context`` is its
      recall of these words with as many guesses as the model has: k_n minus the other words of S_n that the
      model finds, where words of S_n besides j are no guesses. It bounds what an embedding without the word
      allows.
    - random labels (``X_train`` and ``Y_train``): each word gets the label of a random word of its band and
      power of ten of the training count; several words may share one. A model of the same class is trained
      to name the labels. ``control_difference`` is the selectivity of Hewitt and Liang (2019, Designing and
      interpreting probes with control tasks, EMNLP): small if the model learns any labels of words as well
      as the words. A permutation of the vocabulary would be no control, since the model is the same up to
      the order of its columns.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted model. It is not changed, and its ``use_bias`` is not used.
    X : array-like of shape (n, d), or mapping of str to such arrays, default=None
        Embeddings of sentences that the model was not trained on, or several row-aligned views of them.
        None to encode the texts.
    Y : {array-like, sparse matrix} of shape (n, V), default=None
        Word counts of these sentences, over the vocabulary of the model; None to count the words of texts.
    texts : sequence of n str, default=None
        The sentences.
    encoder : SentenceEncoder, callable, or mapping of views to these, default=None
        Computes the embeddings of edited texts, as those of X and of the training rows were computed: a
        function from a list of str to an array (n, d), or an object with ``transform`` or ``encode``. Texts
        are encoded in batches, each once. With ``SentenceEncoder(cache_dir=...)``, a repeated call continues
        where an interrupted one ended. With several views, a mapping; views without an encoder are left out
        of it.
    vectorizer : ConceptVectorizer, CountVectorizer or TfidfVectorizer, default=None
        The fitted vectorizer that counted the words of training, by which words are found in the texts.
        Concepts of several words are deleted whole. None is a ``ConceptVectorizer`` of the model's
        vocabulary with default parameters.
    X_train : array-like of shape (m, d), default=None
        Embeddings that the model was trained on, for the control task.
    Y_train : {array-like, sparse matrix} of shape (m, V), default=None
        Their word counts, for the control task and the context model. Without an encoder they are required.
    words : str or sequence of str, default=None
        The words to measure; None for all words of the vocabulary.
    by, n_bands : default="frequency" and 5
        How words are grouped into bands, as in :func:`word_recoverability`.
    max_words : int or None, default=5000
        Maximum number of words that are measured, >= 1, each in its sentence: sentences are drawn at random,
        and at least one is used. None for all. Each word takes one encoding, and each sentence one more for
        each of its bands.
    groups : array-like of shape (n,), default=None
        Labels of sentences that belong together. Intervals take groups for independent, not sentences.
        Sentences with equal texts (except for case and white space) or embeddings are always in one group.
    n_bootstrap : int, default=1000
        Number of resamples of the groups, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1), without correction for multiple comparisons.
    random_state : int, RandomState instance or None, default=None
        Seed of the sentences, replacements, labels and resamples, and of the fits if the model has none.
    verbose : int, default=1
        If above zero, show progress bars for computations of more than two seconds.

    Returns
    -------
    Selectivity
        Recall and its controls, by band and view, with intervals.

    Raises
    ------
    ValueError
        Before any fit, and before more than four texts are encoded, if the model is not a fitted
        FLiPExtractor, X, Y, texts and groups have different lengths, there is neither an encoder nor
        ``Y_train``, the encoder has another dimension, the vectorizer or the counts have other words, a word
        is not in the vocabulary (the message names the nearest spellings), no word can be deleted, or
        another argument is not allowed.

    Warns
    -----
    UserWarning
        If X is not what the encoder returns for the texts, found on four rows.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import ConceptVectorizer, FLiPExtractor
    >>> from flip_sklearn.diagnostics import selectivity
    >>> rng = np.random.default_rng(0)
    >>> names = "sun rain wind snow cloud storm frost heat river lake".split()
    >>> texts = [" ".join(rng.choice(names, size=3, replace=False)) for _ in range(500)]
    >>> vectorizer = ConceptVectorizer(vocabulary=names).fit(texts)
    >>> code = rng.normal(size=(10, 8))
    >>> def encode(texts):
    ...     return vectorizer.transform(texts) @ code
    >>> X, Y = encode(texts), vectorizer.transform(texts)
    >>> flip = FLiPExtractor(vocabulary=names, random_state=0).fit(X[:400], Y[:400])
    >>> result = selectivity(flip, texts=texts[400:], encoder=encode, vectorizer=vectorizer, random_state=0)
    >>> bool(result.held.low[0, 0, -1] > 0.4)
    True
    """
    arguments = Arguments(
        model, X, Y, texts, encoder, vectorizer, X_train, Y_train, words, by, n_bands, max_words, groups
    )
    inputs = check_arguments(arguments, n_bootstrap, confidence, random_state, verbose)
    edited = _recall_after_edits(inputs)
    hits = _find(inputs, inputs.model, inputs.pairs.truth)
    found = {"recall": _at_pairs(hits, inputs.pairs.rows, inputs.pairs.words)}
    if edited:
        missing = np.full((len(BIAS), len(inputs.pairs.rows)), np.nan)
        by_view = [edited[view].found if view in edited else missing for view in inputs.views]
        found["deleted"] = np.stack(by_view, axis=1)
    if inputs.train_counts is not None:
        found["context"] = _find_from_context(inputs, inputs.train_counts, hits, found["recall"])
        if inputs.X_train is not None:
            found["control"] = _find_labels(inputs, inputs.train_counts)
    return _summarize(inputs, found, edited)


def _find(inputs: GuessingInputs, model: FLiPExtractor, truth: sp.csr_array) -> list[list[sp.csr_array]]:
    """The words that a model finds in each row, with bias and without, view by view."""
    views = inputs.views.values()
    return [[find_words_of_rows(model, X, truth, bias) for X in views] for bias in BIAS]


def _at_pairs(hits: list[list[sp.csr_array]], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whether each column of each row is found, (2, v, P)."""
    return np.array([[part[rows, columns] for part in by_view] for by_view in hits], dtype=bool)


def _recall_after_edits(inputs: GuessingInputs) -> dict[str, EditedRecall]:
    """Encode the edited texts with the encoder of each view that has one."""
    return {
        view: recall_after_edits(
            inputs.model,
            view,
            encoder,
            inputs.edits,
            inputs.pairs,
            inputs.views[view],
            inputs.settings.verbose,
        )
        for view, encoder in inputs.encoders.items()
        if inputs.edits is not None
    }


def _find_from_context(
    inputs: GuessingInputs, train_counts: sp.csr_array, hits: list[list[sp.csr_array]], found: np.ndarray
) -> np.ndarray:
    """Whether the context model names each word, with as many guesses as the model has, (2, v, P)."""
    settings, pairs = inputs.settings, inputs.pairs
    measured = np.unique(pairs.words)
    context = ContextModels(inputs.model, train_counts, measured, settings.random_state, settings.verbose)
    result = np.zeros(found.shape, dtype=bool)
    for i, bias in enumerate(BIAS):
        for v, part in enumerate(hits[i]):
            n_others_found = np.diff(part.indptr)[pairs.rows] - found[i, v]
            result[i, v] = context.find(pairs, pairs.n_row_words - n_others_found, bias)
    return result


def _find_labels(inputs: GuessingInputs, train_counts: sp.csr_array) -> np.ndarray:
    """Whether the model of the control task finds the label of each word, (2, v, P)."""
    settings, pairs, labels = inputs.settings, inputs.pairs, inputs.draw_labels()
    control = fit_labels(
        inputs.model, inputs.X_train, train_counts, labels, settings.random_state, settings.verbose
    )
    truth = binary_csr(to_labels(pairs.truth, labels))
    return _at_pairs(_find(inputs, control, truth), pairs.rows, labels[pairs.words])


def _summarize(
    inputs: GuessingInputs, found: dict[str, np.ndarray], edited: dict[str, EditedRecall]
) -> Selectivity:
    """Means by band with intervals, and counts by word."""
    hits = {name: inputs.sum_by_band(values) for name, values in found.items()}
    chances = {name: inputs.sum_by_band(~np.isnan(values)) for name, values in found.items()}
    shape = hits["recall"].shape[1:]
    bootstrap = _bootstrap(inputs, list(hits.values()), list(chances.values()))
    columns = {
        name: i * int(np.prod(shape)) + np.arange(np.prod(shape)).reshape(shape)
        for i, name in enumerate(hits)
    }

    def means(name: str) -> Interval | None:
        return bootstrap.means(columns[name]) if name in columns else None

    def difference(name: str) -> Difference | None:
        return bootstrap.differences(columns["recall"], columns[name]) if name in columns else None

    guessed = pair_accuracy = n_swaps = None
    word_hits_deleted = None
    if "deleted" in found:
        is_known = ~np.isnan(found["deleted"])
        both = inputs.sum_by_band(found["recall"] * np.nan_to_num(found["deleted"]))
        first = inputs.sum_by_band(found["recall"] & is_known)
        guessed = _bootstrap(inputs, [both], [first]).means(columns["recall"])
        pair_accuracy, n_swaps = _pair_accuracy(inputs, edited)
        word_hits_deleted = inputs.sum_by_word(np.nan_to_num(found["deleted"]))
    return Selectivity(
        views=tuple(inputs.views),
        bands=inputs.bands,
        occurrences=inputs.sum_by_band(np.ones(len(inputs.pairs.rows))).sum(axis=0).astype(np.int64),
        recall=bootstrap.means(columns["recall"]),
        recall_deleted=means("deleted"),
        held=difference("deleted"),
        guessed=guessed,
        pair_accuracy=pair_accuracy,
        pairs=n_swaps,
        recall_context=means("context"),
        context_difference=difference("context"),
        recall_control=means("control"),
        control_difference=difference("control"),
        words=inputs.words,
        train_count=inputs.train_count,
        band=inputs.band,
        word_occurrences=inputs.sum_by_word(np.ones(len(inputs.pairs.rows))),
        word_hits=inputs.sum_by_word(found["recall"]),
        word_hits_deleted=word_hits_deleted,
        rows=inputs.rows,
        n_sentences=inputs.n_sentences,
        n_skipped=inputs.n_skipped,
        n_not_deleted=inputs.n_not_deleted,
        confidence=inputs.settings.confidence,
    )


def _pair_accuracy(inputs: GuessingInputs, edited: dict[str, EditedRecall]) -> tuple[Interval, np.ndarray]:
    """Share of minimal pairs with the right sign, (v, b + 1), and the number of pairs (b + 1,)."""
    assert isinstance(inputs.edits, Edits)
    swapped = inputs.edits.swap_pairs
    missing = np.full(len(swapped), np.nan)
    is_right = np.stack([edited[view].is_right if view in edited else missing for view in inputs.views])
    values = inputs.sum_by_band(is_right, swapped)
    chances = inputs.sum_by_band(~np.isnan(is_right), swapped)
    columns = np.arange(values[0].size).reshape(values.shape[1:])
    n_swaps = inputs.sum_by_band(np.ones(len(swapped)), swapped).sum(axis=0).astype(np.int64)
    return _bootstrap(inputs, [values], [chances]).means(columns), n_swaps


def _bootstrap(inputs: GuessingInputs, sums: list[np.ndarray], chances: list[np.ndarray]) -> PairedBootstrap:
    """Bootstrap of the sentences with measured words; each array (n, ...) is one column a cell."""
    rows = inputs.rows_with_pairs
    columns = [
        np.concatenate([array[rows].reshape(len(rows), -1) for array in part], axis=1)
        for part in (sums, chances)
    ]
    return PairedBootstrap(columns[0], inputs.groups[rows], inputs.settings, columns[1])

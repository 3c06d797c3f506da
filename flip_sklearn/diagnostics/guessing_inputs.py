"""Checked arguments of `selectivity`: sentences, the words that are measured, and their edited texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import _num_samples

from flip_sklearn.diagnostics.bins import bin_words
from flip_sklearn.diagnostics.controls import Occurrences, quiet
from flip_sklearn.diagnostics.deletion import Edits, TextEdits, check_encoder, check_encoders
from flip_sklearn.diagnostics.inputs import (
    EvaluationSettings,
    check_model,
    check_settings,
    check_vocabulary,
    check_words,
)
from flip_sklearn.diagnostics.split import group_sentences, merge_groups, named_views
from flip_sklearn.diagnostics.words import MAX_BINS
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.estimation.validation import check_counts_of, check_embeddings
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics.ranking import binary_csr
from flip_sklearn.parameters import check_integer, check_random_state, short_repr
from flip_sklearn.views import check_views
from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.defaults import normalized_texts
from flip_sklearn.vocabulary.editing import ConceptEditor


@dataclass(frozen=True)
class Arguments:
    """Arguments of :func:`selectivity` about the data, as the caller passed them."""

    model: Any
    X: Any
    Y: Any
    texts: Any
    encoder: Any
    vectorizer: Any
    X_train: Any
    Y_train: Any
    words: Any
    by: Any
    n_bands: Any
    max_words: Any
    groups: Any


@dataclass(frozen=True, eq=False)
class GuessingInputs:
    """The sentences that are used (n rows), and the P words in them whose recall is measured.

    ``rows`` are their row numbers among all sentences; ``pairs`` has rows from 0 to n - 1. ``bins`` (P,) is
    the band of each word, ``cells`` (V,) are words of one band and one power of ten of the training count,
    -1 for words that training did not see or that have no band.
    """

    model: FLiPExtractor
    views: dict[str, np.ndarray]
    encoders: dict[str, SentenceEncoder]
    edits: Edits | None
    X_train: Any
    train_counts: sp.csr_array | None
    pairs: Occurrences
    bins: np.ndarray
    bands: tuple[Any, ...]
    cells: np.ndarray
    words: np.ndarray
    train_count: np.ndarray
    band: np.ndarray
    rows: np.ndarray
    groups: np.ndarray
    n_sentences: int
    n_skipped: int
    n_not_deleted: int
    settings: EvaluationSettings

    @property
    def rows_with_pairs(self) -> np.ndarray:
        """The rows, from 0 to n - 1, that have a measured word."""
        return np.unique(self.pairs.rows)

    def sum_by_band(self, values: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """Sum values (..., P) of pairs by row and band, nan as 0: (n, ..., b + 1), the last one is all."""
        rows, bins = self.pairs.rows, self.bins
        if chosen is not None:
            rows, bins = rows[chosen], bins[chosen]
        n, n_bins = len(self.rows), len(self.bands)
        n_cells = int(np.prod(values.shape[:-1]))
        flat = np.nan_to_num(values.astype(float)).reshape(n_cells, len(rows))
        sums = np.array([np.bincount(rows * n_bins + bins, part, n * n_bins) for part in flat])
        by_band = sums.reshape(*values.shape[:-1], n, n_bins)
        return np.moveaxis(np.concatenate([by_band, by_band.sum(axis=-1, keepdims=True)], axis=-1), -2, 0)

    def sum_by_word(self, values: np.ndarray) -> np.ndarray:
        """Sum values (..., P) of the pairs by word: (..., V), int."""
        flat = values.astype(float).reshape(-1, len(self.pairs.rows))
        sums = np.array([np.bincount(self.pairs.words, part, len(self.words)) for part in flat])
        return sums.reshape(*values.shape[:-1], len(self.words)).astype(np.int64)

    def draw_labels(self) -> np.ndarray:
        """The label of each word, (V,): a random word of its cell; words without a cell keep themselves."""
        labels = np.arange(len(self.words))
        rng = check_random_state(self.settings.random_state)
        for cell in range(int(self.cells.max(initial=-1)) + 1):
            members = np.flatnonzero(self.cells == cell)
            labels[members] = rng.choice(members, len(members))
        return labels


def check_arguments(
    arguments: Arguments, n_bootstrap: Any, confidence: Any, random_state: Any, verbose: int
) -> GuessingInputs:
    """Check all arguments, draw the sentences and edit their texts; nothing is fitted.

    A few texts are encoded, which shows whether the encoder is the one of X.
    """
    settings = check_settings(n_bootstrap, confidence, random_state, verbose)
    n_bands = check_integer("n_bands", arguments.n_bands, 1)
    limit = arguments.max_words
    if limit is not None:
        check_integer("max_words", limit, 1, or_else="None for all words")
    model = check_model(arguments.model)
    words, train_count = check_vocabulary(model)
    X_train, train_counts = _check_training(model, arguments)
    views = None if arguments.X is None else _check_views(model, arguments.X)
    model = quiet(model)
    encoders = check_encoders(arguments.encoder, None if views is None else tuple(views))
    texts = None if arguments.texts is None else _check_texts(arguments.texts)
    _check_is_complete(arguments, views, encoders)
    n = _check_lengths(arguments, views, texts)
    editor = None
    if texts is not None:
        editor = _make_editor(arguments.vectorizer, words)
    truth = _count_words(model, arguments, texts, n)
    labels, label_order = bin_words(arguments.by, n_bands, words, train_count)
    is_measured = np.array([label is not None for label in labels], dtype=bool)
    if arguments.words is not None:
        is_measured &= np.isin(np.arange(len(words)), check_words(model, arguments.words)[1])
    texts_groups = None if texts is None else normalized_texts(texts)
    group = group_sentences(
        merge_groups([arguments.groups, texts_groups], n), [] if views is None else views.values(), n
    )
    n_measured = truth.astype(np.int64) @ is_measured
    eligible = np.flatnonzero(n_measured)
    if not len(eligible):
        raise ValueError(
            f"none of the {n} sentences has a word to measure; pass sentences with words of the vocabulary, "
            f"and words that have a band in by={short_repr(arguments.by)}."
        )
    rows = _draw_rows(eligible, n_measured[eligible], limit, settings.random_state)
    used = sp.csr_array(truth[rows])
    pairs = Occurrences(used, np.repeat(np.arange(len(rows)), np.diff(used.indptr)), used.indices)
    pairs = pairs.take(np.flatnonzero(is_measured[pairs.words]))
    n_all = len(pairs.rows)
    edited, kept = None, np.arange(n_all)
    used_texts = None if texts is None else [texts[i] for i in rows]
    if encoders and editor is not None and used_texts is not None:
        edited = TextEdits(editor, used_texts, pairs)
        kept = np.flatnonzero(edited.is_deletable)
        if not len(kept):
            raise ValueError(
                f"none of the {n_all} words to measure can be deleted from its text; pass sentences of "
                "several words, and a vectorizer whose words are written in the texts."
            )
    bands, bins, cells = _number_bins(labels, label_order, pairs.words[kept], train_count)
    edits = None if edited is None else edited.make(pairs, kept, bins, cells, settings.random_state)
    pairs = pairs.take(kept)
    used_views = None if views is None else {name: view[rows] for name, view in views.items()}
    for name, encoder in encoders.items():
        assert used_texts is not None
        X = None if used_views is None else used_views[name]
        check_encoder(name, encoder, used_texts, X, model.n_features_in_)
    if used_views is None:
        assert used_texts is not None
        used_views = {name: encoder.transform(used_texts) for name, encoder in encoders.items()}
    return GuessingInputs(
        model=model,
        views=used_views,
        encoders=encoders,
        edits=edits,
        X_train=X_train,
        train_counts=train_counts,
        pairs=pairs,
        bins=bins,
        bands=bands,
        cells=cells,
        words=words,
        train_count=train_count,
        band=np.fromiter(labels, dtype=object, count=len(labels)),
        rows=rows,
        groups=group[rows],
        n_sentences=n,
        n_skipped=n - len(eligible),
        n_not_deleted=n_all - len(pairs.rows),
        settings=settings,
    )


def _draw_rows(rows: np.ndarray, n_words: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Draw rows with at most ``limit`` words together, or a single row; all rows for None."""
    if limit is None or n_words.sum() <= limit:
        return rows
    order = check_random_state(seed).permutation(len(rows))
    n_drawn = int(np.searchsorted(np.cumsum(n_words[order]), limit, side="right"))
    return np.sort(rows[order[: max(n_drawn, 1)]])


def _check_training(model: FLiPExtractor, arguments: Arguments) -> tuple[Any, sp.csr_array | None]:
    """Check the training rows of the controls."""
    if arguments.Y_train is None:
        if arguments.X_train is not None:
            raise ValueError("X_train is passed without Y_train; pass the (m, V) word counts of its rows.")
        return None, None
    X_train = (
        None if arguments.X_train is None else check_embeddings(model, arguments.X_train, reset=False)[0]
    )
    counts = check_counts_of(model, arguments.Y_train, _num_samples(arguments.Y_train))
    if X_train is not None and len(X_train) != counts.shape[0]:
        raise ValueError(
            f"X_train has {len(X_train)} rows and Y_train {counts.shape[0]}; pass one row of counts for each "
            "embedding."
        )
    if counts.nnz == 0:
        raise ValueError(f"Y_train has no word in any of its {counts.shape[0]} rows; pass word counts.")
    return X_train, counts


def _check_views(model: FLiPExtractor, X: Any) -> dict[str, np.ndarray]:
    """Check the views as embeddings of the model."""
    views = named_views(X)
    arrays = check_views(views)
    for view in views.values():  # with its feature names, if it has some
        check_embeddings(model, view, reset=False)
    return arrays


def _check_texts(texts: Any) -> list[str]:
    if isinstance(texts, (str, bytes)) or not hasattr(texts, "__iter__"):
        raise ValueError(f"texts is {short_repr(texts)}; pass a list of texts, one for each sentence.")
    rows = list(texts)
    for i, text in enumerate(rows):
        if not isinstance(text, str):
            raise ValueError(
                f"texts has {short_repr(text)} of type {type(text).__name__} in row {i}; pass str, and '' "
                "for a missing text."
            )
    return [str(text) for text in rows]


def _check_is_complete(arguments: Arguments, views: Any, encoders: Any) -> None:
    """Check that there are sentences, their words, and something that recall is compared with."""
    if not encoders and arguments.Y_train is None:
        raise ValueError(
            "selectivity compares recall with that of deleted words, or with that from the context alone; "
            "pass texts and an encoder, or Y_train, the word counts of the training rows."
        )
    if encoders and arguments.texts is None:
        raise ValueError("encoder is passed without texts; pass the sentences, whose words are deleted.")
    if views is None and not encoders:
        raise ValueError("X is None; pass the embeddings of the sentences, or texts and an encoder.")
    if arguments.Y is None and arguments.texts is None:
        raise ValueError("Y is None; pass the (n, V) word counts of the sentences, or their texts.")


def _check_lengths(arguments: Arguments, views: Any, texts: list[str] | None) -> int:
    """Check that X, Y and texts have the same number of rows, and return it."""
    lengths = {"texts": len(texts)} if texts is not None else {}
    if views is not None:
        lengths["X"] = len(next(iter(views.values())))
    if arguments.Y is not None:
        lengths["Y"] = _num_samples(arguments.Y)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"numbers of rows differ: {listed}; row i of each must be sentence i.")
    return next(iter(lengths.values()))


def _make_editor(vectorizer: Any, words: np.ndarray) -> ConceptEditor:
    """The editor of texts, whose columns are the words of the model."""
    if vectorizer is None:
        vectorizer = ConceptVectorizer(vocabulary=[str(word) for word in words])
    editor = ConceptEditor(vectorizer)
    names = [str(word) for word in words]
    if editor.names != names:
        unequal = next(
            (i for i, (a, b) in enumerate(zip(editor.names, names, strict=False)) if a != b),
            min(len(editor.names), len(names)),
        )
        here = [part[unequal] if unequal < len(part) else None for part in (editor.names, names)]
        raise ValueError(
            f"the vectorizer has {len(editor.names)} words and the model {len(names)}; the first difference "
            f"is in column {unequal}: {here[0]!r} and {here[1]!r}. Pass the vectorizer that counted the "
            "words of training, and fit the model with vocabulary=vectorizer.get_feature_names_out()."
        )
    return editor


def _count_words(model: FLiPExtractor, arguments: Arguments, texts: list[str] | None, n: int) -> sp.csr_array:
    """The distinct words of each sentence, (n, V) of bool."""
    Y = arguments.Y
    if Y is None:
        vectorizer = arguments.vectorizer
        if vectorizer is None:
            vectorizer = ConceptVectorizer(vocabulary=[str(word) for word in model.vocabulary_])
        Y = vectorizer.transform(texts)
    return binary_csr(check_counts_of(model, Y, n))


def _number_bins(
    labels: list[Any], label_order: list[Any], words: np.ndarray, train_count: np.ndarray
) -> tuple[tuple[Any, ...], np.ndarray, np.ndarray]:
    """Labels that occur, the number of the label of each measured word, and the cell of each word (V,)."""
    occurring = {labels[word] for word in np.unique(words)}
    bands = tuple(label for label in label_order if label in occurring)
    if len(bands) > MAX_BINS:
        raise ValueError(
            f"by makes {len(bands)} bands; group words into at most {MAX_BINS:,} (single words are in "
            "words_to_frame())."
        )
    number = {label: i for i, label in enumerate(bands)}
    band_of = np.array([number.get(label, -1) for label in labels])
    power = np.floor(np.log10(np.maximum(train_count, 1))).astype(np.int64)
    has_cell = (band_of >= 0) & (train_count > 0)
    cells = np.full(len(labels), -1)
    cells[has_cell] = np.unique(band_of[has_cell] * (power.max() + 1) + power[has_cell], return_inverse=True)[
        1
    ]
    return bands, band_of[words], cells

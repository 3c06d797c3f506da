"""What ``evaluate`` and ``fit`` measure: which words of sentences a model finds in their embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from flip_sklearn import metrics
from flip_sklearn.cli import files
from flip_sklearn.cli.inputs import check_dimensions, read_sentences
from flip_sklearn.cli.options import InputFiles
from flip_sklearn.cli.output import PERPLEXITY, Figures
from flip_sklearn.diagnostics.entities import reachable_names
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics import ranking
from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.normalization import word_reader


def evaluate(
    flip: FLiPExtractor,
    vectorizer: ConceptVectorizer,
    encoder: SentenceEncoder | None,
    inputs: InputFiles,
    entities: str | None,
    top_k: int,
) -> dict[tuple[str, bool], Figures]:
    """Return metrics over the sentences of a file by name and use of the bias."""
    sentences = read_sentences(inputs)
    names = None
    if entities is not None:
        all_names = files.read_names(entities, sentences.n_lines)
        names = [all_names[i] for i in sentences.line_indices]
        _warn_of_unknown_names(flip, vectorizer, names)
    if sentences.X is not None and inputs.embeddings is not None:
        check_dimensions(inputs.embeddings, sentences.X, flip.n_features_in_)
    X = sentences.embed(encoder)
    Y = vectorizer.transform(sentences.texts)
    if Y.nnz == 0:
        raise ValueError(
            f"none of the {sentences.n_lines} lines contains a word of the model; the text must be in the "
            "model's language, with one sentence per line."
        )
    truth = _Truth(Y, _count_distinct_words(sentences.texts, Y, vectorizer), names)
    results = {}
    for use_bias in (True, False):
        for name, mean in _ranking_metrics(flip, vectorizer, X, truth, top_k, use_bias).items():
            results[name, use_bias] = _figures(mean)
    nll = -metrics.log_likelihood_scorer(flip, X, Y)
    n_rows = int(np.count_nonzero(np.diff(Y.indptr)))
    perplexity = float(np.exp(nll)) if nll < 700 else None
    results[PERPLEXITY, True] = Figures(perplexity, None, n_rows, Y.shape[0] - n_rows)
    return results


def _warn_of_unknown_names(
    flip: FLiPExtractor, vectorizer: ConceptVectorizer, names: list[list[str]]
) -> None:
    trained_words = flip.vocabulary_[flip.word_counts_ > 0]
    with_names = [row for row in names if row]
    _, n_unknown = reachable_names(trained_words, with_names, word_reader(vectorizer))
    if n_unknown:
        warnings.warn(
            f"{n_unknown} of {sum(map(len, names))} names have a word that the model was not trained on; "
            "they cannot be found whole.",
            stacklevel=2,
        )


@dataclass(frozen=True)
class _Truth:
    """What is in the sentences of an evaluation."""

    Y: sp.csr_array
    n_words: np.ndarray  # distinct words of each sentence, whether in the vocabulary or not
    names: list[list[str]] | None


def _count_distinct_words(texts: list[str], Y: sp.csr_array, vectorizer: ConceptVectorizer) -> np.ndarray:
    """Return the number of distinct words of each text, whether in the vocabulary or not.

    As published, texts are split at white space; a phrase of the vocabulary is one word.
    """
    clean = vectorizer._make_tokenizer().clean
    parts = [clean(concept).split() for concept in vectorizer.get_feature_names_out()]
    n_words: np.ndarray = np.diff(Y.indptr)
    for i, text in enumerate(texts):
        concepts = Y.indices[Y.indptr[i] : Y.indptr[i + 1]]
        n_words[i] += len(set(clean(text).split()).difference(*(parts[j] for j in concepts)))
    return n_words


def _ranking_metrics(
    flip: FLiPExtractor, vectorizer: ConceptVectorizer, X: np.ndarray, truth: _Truth, k: int, use_bias: bool
) -> dict[str, metrics.RowMean]:
    """Return the metrics of the k best words of each row, and the keyword accuracy.

    Precision, recall and F1 are the published ones: words outside the vocabulary count as missed.
    """
    top = np.empty((X.shape[0], k), dtype=np.int64)

    def top_of(rows: slice, n_top: int) -> np.ndarray:
        block = _top_words(flip, X[rows], max(k, n_top), use_bias)
        top[rows] = block[:, :k]
        return block

    accuracy = _accuracy(truth.Y, top_of)
    at_k = metrics.precision_recall(truth.Y, top, k, n_reference=truth.n_words)

    def without_blank(mean: metrics.RowMean) -> metrics.RowMean:
        return metrics.RowMean.of(np.where(truth.n_words > 0, mean.per_row, np.nan))

    means = {
        "keyword accuracy": accuracy,
        f"precision at {k}": without_blank(at_k.precision),
        f"recall at {k}": without_blank(at_k.recall),
        f"F1 at {k}": without_blank(at_k.f1),
    }
    if truth.names is not None:
        extracted = [[flip.vocabulary_[j] for j in row if j >= 0] for row in top]
        recall = metrics.entity_recall(truth.names, extracted, vectorizer=vectorizer)
        means[f"names found whole at {k}"] = recall.recall_strict
        means[f"words of names found at {k}"] = recall.recall_partial
    return means


def held_out_accuracies(flip: FLiPExtractor, X: np.ndarray, Y: sp.csr_array) -> dict[str, Figures]:
    """Return keyword accuracy with bias, without bias, and of the most frequent words."""
    most_frequent = np.argsort(-flip.word_counts_, kind="stable")
    rankings: dict[str, Callable[[slice, int], np.ndarray]] = {
        "with_bias": lambda rows, k: _top_words(flip, X[rows], k, use_bias=True),
        "without_bias": lambda rows, k: _top_words(flip, X[rows], k, use_bias=False),
        "most_frequent_words": lambda rows, k: np.tile(most_frequent[:k], (rows.stop - rows.start, 1)),
    }
    return {name: _figures(_accuracy(Y, top_of)) for name, top_of in rankings.items()}


def _accuracy(Y: sp.csr_array, top_of: Callable[[slice, int], np.ndarray]) -> metrics.RowMean:
    """Return the keyword accuracy of rankings that exist for one block of rows at a time."""
    words = ranking.binary_csr(Y)
    return metrics.RowMean.of(ranking.accuracy_per_row(words, ranking.stream_hits(words, top_of)))


def _top_words(flip: FLiPExtractor, X: np.ndarray, k: int, use_bias: bool) -> np.ndarray:
    """Return the k best words of each row as indices, padded with -1 if training saw fewer words."""
    top = flip._top_words(X, k, use_bias)
    return np.pad(top, ((0, 0), (0, k - top.shape[1])), constant_values=-1)


def _figures(mean: metrics.RowMean) -> Figures:
    """Convert a mean; JSON has no NaN."""
    value = None if np.isnan(mean.value) else mean.value
    error = None if np.isnan(mean.standard_error) else mean.standard_error
    return Figures(value, error, mean.n_rows, mean.n_skipped)

"""What the commands compute. Results are returned; nothing is printed except progress bars."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.model_selection import GroupShuffleSplit
from tqdm import tqdm

from flip_sklearn import metrics
from flip_sklearn.bulk import KeywordMapper
from flip_sklearn.cli import files
from flip_sklearn.cli.encoding import EncodingConfig, describe_model
from flip_sklearn.cli.options import EncoderOptions, FitOptions, InputFiles, ModelSource, ReportOptions
from flip_sklearn.cli.output import Figures, FitSummary, Metric
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.persistence.hub import locate
from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.defaults import default_vectorizer, normalized_texts

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
LINES_PER_BLOCK = 1024  # lines that are read, encoded and written at a time


# ---------------------------------------------------------------------- inputs of all commands


@dataclass(frozen=True)
class Sentences:
    """The sentences of a text file, and their embeddings if they are in a file.

    Blank lines are left out if the sentences are to be encoded.
    """

    texts: list[str]
    line_indices: np.ndarray
    n_lines: int
    X: np.ndarray | None

    def embed(self, encoder: SentenceEncoder | None) -> np.ndarray:
        """Return the embeddings, from their file or computed by the encoder."""
        if self.X is not None:
            return self.X
        assert encoder is not None
        return encoder.transform(self.texts)


def read_sentences(inputs: InputFiles) -> Sentences:
    """Read texts, and open their embeddings."""
    assert inputs.text is not None
    lines = files.read_all_lines(inputs.text)
    if inputs.embeddings is not None:
        X = files.open_embeddings(inputs.embeddings)
        _check_n_rows(X, lines, inputs.embeddings)
        return Sentences(lines, np.arange(len(lines)), len(lines), X)
    indices = np.array([i for i, line in enumerate(lines) if line.strip()], dtype=np.intp)
    if not len(indices):
        raise ValueError(f"{inputs.text!r} has only blank lines; it needs one sentence per line.")
    return Sentences([lines[i] for i in indices], indices, len(lines), None)


def _check_n_rows(X: np.ndarray, texts: Sequence[str], path: str) -> None:
    if len(X) != len(texts):
        raise ValueError(
            f"{path!r} has {len(X)} embeddings, and there are {len(texts)} lines of text; row i must "
            "belong to line i."
        )


def make_encoder(
    options: EncoderOptions | None, settings: dict[str, Any] | None = None
) -> SentenceEncoder | None:
    """Return an encoder with checked parameters, or None if embeddings are read from a file.

    ``settings`` are the parameters for an encoder of a stored model; the default encoder when None.
    """
    if options is None:
        return None
    if settings is None:
        settings = {"model": options.model or DEFAULT_ENCODER}
    encoder = SentenceEncoder(
        **{**settings, **options.settings},
        device=options.device,
        cache_dir=options.cache_dir,
        verbose=int(options.verbose),
    )
    return encoder.fit()


def open_model(
    source: ModelSource, options: EncoderOptions | None
) -> tuple[FLiPExtractor, EncodingConfig, SentenceEncoder | None]:
    """Return a stored model, its text settings, and the encoder for its texts."""
    folder = locate(source.folder_or_id, source.subfolder, source.revision)
    config = EncodingConfig.read(folder)
    flip = FLiPExtractor.from_pretrained(folder).set_params(device=source.device)
    settings = None
    if options is not None:
        note = getattr(flip, "pretrained_info_", {}).get("encoder")
        settings = config.encoder_settings(options.model, note)
    return flip, config, make_encoder(options, settings)


# ---------------------------------------------------------------------- fit


def check_output_folder(out: Path, force: bool) -> None:
    """Raise ValueError for a folder in which the model cannot be saved, before it is trained."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{str(out)!r} is a file; pass the folder to write the model to.")
    if not force and out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"the folder {str(out)!r} is not empty; pass another one, or --force to replace its model."
        )
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"the folder {str(out)!r} cannot be written; pass another one with --out.")


def fit(
    inputs: InputFiles, out: Path, encoder_options: EncoderOptions | None, options: FitOptions
) -> tuple[FitSummary, bool]:
    """Train on a text file and save the model; return the summary and whether fit was interrupted."""
    encoder = make_encoder(encoder_options)
    sentences = read_sentences(inputs)
    texts = sentences.texts
    labels = np.unique(normalized_texts(texts), return_inverse=True)[1]
    test = draw_test_rows(labels, options.test_share, options.seed)
    train = np.setdiff1d(np.arange(len(texts)), test, assume_unique=True)
    # The vocabulary is learned first: a corpus without words fails before minutes of encoding.
    vectorizer = _fit_vectorizer(texts, train, options)
    Y = vectorizer.transform(texts)
    X = sentences.embed(encoder)
    # Held-out rows have weight 0 instead of being left out, so that a memory-mapped X is not copied.
    weight = np.zeros(len(texts))
    weight[train] = 1
    flip = FLiPExtractor(
        rank=options.rank,
        l1_strength=options.l1_strength,
        max_iter=options.max_iter,
        vocabulary=vectorizer.get_feature_names_out().tolist(),
        random_state=options.seed,
        device=options.device,
        verbose=int(options.verbose),
    )
    flip.fit(X, Y, sample_weight=weight, groups=labels)
    note = None if encoder is None else describe_model(encoder)
    flip.save_pretrained(out, trained_on=f"{len(train):,} sentences.", encoder=note)
    EncodingConfig.from_fit(encoder, vectorizer).write(out)
    summary = FitSummary(
        out=str(out),
        words=len(flip.vocabulary_),
        rank=int(flip.rank_),
        dimensions=int(flip.n_features_in_),
        sentences_trained_on=len(train),
        sentences_held_out=len(test),
        blank_lines=sentences.n_lines - len(texts),
        passes=flip.n_iter_,
        keyword_accuracy=_accuracies(flip, X[test], Y[test], Y[train]) if len(test) else None,
    )
    return summary, flip.interrupted_


def _fit_vectorizer(texts: Sequence[str], train: np.ndarray, options: FitOptions) -> ConceptVectorizer:
    vectorizer = default_vectorizer(
        texts,
        len(train),
        bigrams=options.pairs,
        min_count=options.min_count,
        max_words=options.max_words,
        token_pattern=options.token_pattern,
        verbose=options.verbose,
    )
    return vectorizer.fit([texts[i] for i in train])


def draw_test_rows(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw a share of the distinct texts; rows with the same label are all drawn or none."""
    if share == 0:
        return np.array([], dtype=np.intp)
    try:
        split = GroupShuffleSplit(1, test_size=share, random_state=seed)
        return np.sort(next(split.split(labels, groups=labels))[1])
    except ValueError as error:
        raise ValueError(
            f"{labels.max() + 1} different sentences cannot be split with --test-share {share} ({error}); "
            "pass more sentences, another share, or --test-share 0."
        ) from None


def _accuracies(
    flip: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, Y_train: sp.csr_array
) -> dict[str, Figures]:
    """Return keyword accuracy with bias, without bias, and of the most frequent words."""
    k = _max_words_per_row(Y)
    most_frequent = np.argsort(-Y_train.sum(axis=0), kind="stable")[:k]
    rankings = {
        "with_bias": _top_words(flip, X, k, use_bias=True),
        "without_bias": _top_words(flip, X, k, use_bias=False),
        "most_frequent_words": np.tile(most_frequent, (X.shape[0], 1)),
    }
    return {name: _figures(metrics.keyword_accuracy(Y, top)) for name, top in rankings.items()}


def _max_words_per_row(Y: sp.csr_array) -> int:
    """Return the maximum number of distinct words in a row, at least 1."""
    return int(np.diff((Y > 0).tocsr().indptr).max(initial=1))


def _top_words(flip: FLiPExtractor, X: np.ndarray, k: int, use_bias: bool) -> np.ndarray:
    """Return the k best words of each row as indices, padded with -1 if training saw fewer words."""
    top = flip._top_words(X, k, use_bias)
    return np.pad(top, ((0, 0), (0, k - top.shape[1])), constant_values=-1)


def _figures(mean: metrics.RowMean) -> Figures:
    """Convert a mean; JSON has no NaN."""
    value = None if np.isnan(mean.value) else mean.value
    error = None if np.isnan(mean.standard_error) else mean.standard_error
    return Figures(value, error, mean.n_rows, mean.n_skipped)


# ---------------------------------------------------------------------- keywords


def keywords(
    source: ModelSource,
    inputs: InputFiles,
    encoder_options: EncoderOptions | None,
    *,
    top_k: int,
    use_bias: bool,
    verbose: bool,
) -> Iterator[list[list[tuple[str, float]]]]:
    """Yield (word, score) pairs of each row, block by block; an empty list for a blank line."""
    flip, _, encoder = open_model(source, encoder_options)
    mapper = KeywordMapper(flip, top_k=top_k, use_bias=use_bias, return_scores=True)
    if inputs.embeddings is not None:
        total, unit = files.count_embeddings(inputs.embeddings), "row"
    else:
        total, unit = None, "line"
    with tqdm(total=total, unit=unit, desc="keywords", delay=2, disable=not verbose) as bar:
        for block in _keyword_blocks(mapper, inputs, encoder):
            yield block
            bar.update(len(block))


def _keyword_blocks(
    mapper: KeywordMapper, inputs: InputFiles, encoder: SentenceEncoder | None
) -> Iterator[list[list[tuple[str, float]]]]:
    n_rows = 0
    if inputs.embeddings is not None:
        for X in files.read_embedding_blocks(inputs.embeddings):
            yield _extract(mapper, X, n_rows)
            n_rows += len(X)
        return
    assert inputs.text is not None
    assert encoder is not None
    for lines in files.read_line_blocks(inputs.text, LINES_PER_BLOCK):
        pairs: list[list[tuple[str, float]]] = [[] for _ in lines]
        rows = [i for i, line in enumerate(lines) if line.strip()]
        if rows:
            X = encoder.transform([lines[i] for i in rows])
            for i, row in zip(rows, _extract(mapper, X, n_rows), strict=True):
                pairs[i] = row
        yield pairs
        n_rows += len(lines)


def _extract(mapper: KeywordMapper, X: np.ndarray, start: int) -> list[list[tuple[str, float]]]:
    """Extract the keywords of a block whose first row has the number ``start``."""
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        raise ValueError(
            f"row {start + bad[0]} of the embeddings (counted from 0) has NaN or infinity; leave such rows "
            "out or encode them again."
        )
    return list(mapper(X))


# ---------------------------------------------------------------------- evaluate


def evaluate(
    source: ModelSource,
    inputs: InputFiles,
    encoder_options: EncoderOptions | None,
    *,
    top_k: int,
    verbose: bool,
) -> list[Metric]:
    """Return each metric with and without bias over the sentences of a file."""
    flip, config, encoder = open_model(source, encoder_options)
    flip.set_params(use_bias=True, verbose=int(verbose))
    sentences = read_sentences(inputs)
    names = None
    if inputs.entities is not None:
        all_names = files.read_names(inputs.entities, sentences.n_lines)
        names = [all_names[i] for i in sentences.line_indices]
    X = sentences.embed(encoder)
    vectorizer = ConceptVectorizer(vocabulary=flip.vocabulary_.tolist(), **config.words)
    Y = vectorizer.transform(sentences.texts)
    if Y.nnz == 0:
        raise ValueError(
            f"none of the {sentences.n_lines} lines contains a word of the model; the text must be in the "
            "model's language, with one sentence per line."
        )
    results = []
    for use_bias in (True, False):
        top = _top_words(flip, X, max(top_k, _max_words_per_row(Y)), use_bias)
        for name, mean in _ranking_metrics(flip, Y, top, top_k, names).items():
            results.append(Metric(name, use_bias, _figures(mean)))
    nll = -metrics.log_likelihood_scorer(flip, X, Y)
    perplexity = float(np.exp(nll)) if nll < 700 else None
    n_rows = int(np.count_nonzero(np.diff(Y.indptr)))
    figures = Figures(perplexity, None, n_rows, Y.shape[0] - n_rows)
    results.append(Metric("perplexity per word", True, figures, is_share=False))
    return results


def _ranking_metrics(
    flip: FLiPExtractor, Y: sp.csr_array, top: np.ndarray, k: int, names: list[list[str]] | None
) -> dict[str, metrics.RowMean]:
    """Return the metrics of rankings (n, m) of words as indices; m is at least k."""
    at_k = metrics.precision_recall(Y, top, k)
    means = {
        "keyword accuracy": metrics.keyword_accuracy(Y, top),
        f"precision at {k}": at_k.precision,
        f"recall at {k}": at_k.recall,
        f"F1 at {k}": at_k.f1,
    }
    if names is not None:
        extracted = [[flip.vocabulary_[j] for j in row if j >= 0] for row in top[:, :k]]
        recall = metrics.entity_recall(names, extracted)
        means[f"names found whole at {k}"] = recall.recall_strict
        means[f"words of names found at {k}"] = recall.recall_partial
    return means


# ---------------------------------------------------------------------- report


def report(
    text_files: dict[str, str],
    embedding_files: dict[str, str],
    out: Path,
    encoder_options: EncoderOptions | None,
    options: ReportOptions,
) -> list[str]:
    """Write the page and return its main findings."""
    from flip_sklearn.report import diagnose
    from flip_sklearn.report.inputs import check_out

    check_out(out)
    encoder = make_encoder(encoder_options)
    texts = {name: files.read_all_lines(path) for name, path in text_files.items()}
    first = next(iter(texts.values()))
    for name, lines in texts.items():
        if len(lines) != len(first):
            raise ValueError(
                f"the text {name!r} has {len(lines)} lines, and the first one {len(first)}; line i must be "
                "the same sentence in all of them."
            )
    names = None
    if options.entities is not None:
        names = files.read_names(options.entities, len(first))
    if encoder is not None:
        views = {name: encoder.transform(lines) for name, lines in texts.items()}
    else:
        views = {name: files.open_embeddings(path) for name, path in embedding_files.items()}
        for name, path in embedding_files.items():
            _check_n_rows(views[name], first, path)
    diagnosis = diagnose(
        views,
        first if len(texts) == 1 else texts,
        out=out,
        title=options.title,
        entities=names,
        dictionary=None if encoder is None else encoder.transform,
        ranks=None if options.ranks else False,
        random_state=options.seed,
        verbose=int(options.verbose),
    )
    return [finding.text for finding in diagnosis.findings if finding.main]

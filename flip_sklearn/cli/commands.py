"""What the commands compute. Results are returned; nothing is printed except progress bars."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from flip_sklearn.bulk import KeywordMapper
from flip_sklearn.cli import files, vectors
from flip_sklearn.cli.evaluation import held_out_accuracies
from flip_sklearn.cli.inputs import (
    Blocks,
    check_dimensions,
    check_finite,
    check_row_count,
    open_embeddings,
    read_sentences,
)
from flip_sklearn.cli.options import STANDARD_INPUT, InputFiles
from flip_sklearn.cli.output import ComparedWord, write_message
from flip_sklearn.diagnostics import SetComparison, compare_sets
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import number_groups
from flip_sklearn.persistence.encoding import EncodingConfig, Remedies, read_with_encoding
from flip_sklearn.persistence.hub import locate
from flip_sklearn.persistence.ownership import check_replaceable
from flip_sklearn.text import DEFAULT_ENCODER, TextKeywordExtractor
from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.defaults import default_vectorizer, normalized_texts

_REMEDIES = Remedies(
    encoder="name it with --encoder",
    embeddings="pass --embeddings",
    trust="pass --trust-encoder, or name it with --encoder",
    other_encoder="add --force",
)
# A fifth of the different sentences of a report are for the test.
_MIN_SENTENCES = 5


def make_encoder(params: dict[str, Any] | None) -> SentenceEncoder | None:
    """Return an encoder with checked parameters, or None if embeddings are read from a file."""
    return None if params is None else SentenceEncoder(**{"model": DEFAULT_ENCODER, **params}).fit()


def open_model(
    folder_or_id: str,
    subfolder: str | None,
    revision: str | None,
    encoder_params: dict[str, Any] | None,
    *,
    trust_encoder: bool = False,
    force: bool = False,
    **flip_params: Any,
) -> tuple[FLiPExtractor, ConceptVectorizer, SentenceEncoder | None]:
    """Return a stored model with changed parameters, and the vectorizer and the encoder of its texts.

    An encoder that the model names, not the user, is named on standard error.
    """
    flip, config = read_with_encoding(FLiPExtractor, locate(folder_or_id, subfolder, revision))
    flip.set_params(**flip_params)
    if "checkpoint" in flip.pretrained_info_:
        write_message(f"the model is {flip.pretrained_info_['checkpoint']} of its folder")
    if encoder_params is not None:
        is_named = "model" in encoder_params
        encoder_params = config.encoder_settings(
            encoder_params,
            flip.pretrained_info_["encoder"],
            trusted=trust_encoder,
            forced=force,
            remedies=_REMEDIES,
        )
        if not is_named:
            write_message(f"the text is encoded by {encoder_params['model']!r}, which the model names")
    return flip, config.vectorizer(flip.vocabulary_), make_encoder(encoder_params)


def add_words(
    flip: FLiPExtractor, vectorizer: ConceptVectorizer, encoder: SentenceEncoder | None, path: str
) -> FLiPExtractor:
    """Return the model with those words of a file, one per line, that it does not know."""
    assert encoder is not None
    clean = vectorizer._make_tokenizer().clean
    words = dict.fromkeys(word for line in files.read_lines(path) if (word := clean(line).strip()))
    known = set(flip.vocabulary_[flip.word_counts_ > 0])
    new = [word for word in words if word not in known]
    if not words:
        raise ValueError(f"{path!r} has no words; it needs one word per line.")
    if len(new) < len(words):
        write_message(f"the model knows {len(words) - len(new)} of the {len(words)} words already")
    if not new:
        return flip
    # Whether the encoder is that of the model was checked when the model was opened.
    features = encoder.transform(new) if hasattr(flip, "word_map_") else make_pipeline(encoder)
    extended: FLiPExtractor = flip.extend_vocabulary(new, features)
    return extended


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
    check_replaceable(out, writes_text=True)


def fit(
    inputs: InputFiles,
    out: Path,
    encoder_params: dict[str, Any] | None,
    flip_params: dict[str, Any],
    vectorizer_params: dict[str, Any],
    test_share: float,
    *,
    word_features: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Train on a text file and save the model; return the summary and whether fit was interrupted.

    ``flip_params`` are parameters of FLiPExtractor, ``vectorizer_params`` those of default_vectorizer.
    """
    encoder = make_encoder(encoder_params)
    sentences = read_sentences(inputs)
    texts = sentences.texts
    labels = number_groups(normalized_texts(texts), len(texts))[1]
    test = draw_test_rows(labels, test_share, flip_params["random_state"])
    train = np.setdiff1d(np.arange(len(texts)), test, assume_unique=True)
    # Held-out rows have weight 0 instead of being left out, so that a memory-mapped X is not copied.
    weight = np.zeros(len(texts))
    weight[train] = 1
    model = TextKeywordExtractor(
        encoder,
        default_vectorizer(texts, len(train), **vectorizer_params),
        FLiPExtractor(word_features=encoder if word_features else None, **flip_params),
    ).fit(texts, embeddings=sentences.X, sample_weight=weight)
    model.save_pretrained(out, trained_on=f"{len(train):,} sentences.")
    flip = model.extractor_
    accuracy = None
    if len(test):
        held_out = sentences.take(test)
        Y_test = model.vectorizer_.transform(held_out.texts)
        accuracy = held_out_accuracies(flip, held_out.embed(encoder), Y_test)
    summary = {
        "out": str(out),
        "words": len(flip.vocabulary_),
        "rank": int(flip.rank_),
        "dimensions": int(flip.n_features_in_),
        "sentences_trained_on": len(train),
        "sentences_held_out": len(test),
        "blank_lines": sentences.n_lines - len(texts),
        "passes": flip.n_iter_,
        "keyword_accuracy": accuracy,
    }
    return summary, flip.interrupted_


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


def make_mapper(
    flip: FLiPExtractor, top_k: int | None, use_bias: bool, min_probability: float | None
) -> KeywordMapper:
    """Return the mapper of ``keywords``; ValueError if the model cannot give probabilities."""
    return KeywordMapper(
        flip, top_k=top_k, use_bias=use_bias, return_scores=True, min_probability=min_probability
    )


def keywords(
    mapper: KeywordMapper, encoder: SentenceEncoder | None, inputs: InputFiles, verbose: bool
) -> Iterator[list[list[tuple[str, float]]]]:
    """Yield (word, score) pairs of each row, block by block; an empty list for a blank line."""
    total = None if inputs.embeddings is None else vectors.count_embeddings(inputs.embeddings)
    unit = "line" if inputs.embeddings is None else "row"
    with tqdm(total=total, unit=unit, desc="keywords", delay=2, disable=not verbose) as bar:
        for block in _keyword_blocks(mapper, encoder, inputs):
            yield block
            bar.update(len(block))


def _keyword_blocks(
    mapper: KeywordMapper, encoder: SentenceEncoder | None, inputs: InputFiles
) -> Iterator[list[list[tuple[str, float]]]]:
    if inputs.embeddings is not None:
        for X in Blocks(inputs.embeddings, mapper._model.n_features_in_):
            yield list(mapper(X))
        return
    assert inputs.text is not None
    assert encoder is not None
    n_rows = 0
    for lines in files.read_text_blocks(inputs.text, inputs.column):
        pairs: list[list[tuple[str, float]]] = [[] for _ in lines]
        rows = [i for i, line in enumerate(lines) if line.strip()]
        if rows:
            X = encoder.transform([lines[i] for i in rows])
            check_finite(X, n_rows)
            for i, row in zip(rows, mapper(X), strict=True):
                pairs[i] = row
        yield pairs
        n_rows += len(lines)


def find(
    flip: FLiPExtractor,
    vectorizer: ConceptVectorizer,
    inputs: InputFiles,
    query: tuple[list[str], list[str]],
    mode: str,
    top_k: int,
) -> list[tuple[int, float, str | None]]:
    """Return the rows whose texts have the words of a query: number, probability and, if given, text."""
    assert inputs.embeddings is not None
    clean, known = vectorizer._make_tokenizer().clean, set(flip.vocabulary_)
    include, exclude = ([word if word in known else clean(word) or word for word in words] for words in query)
    texts = None if inputs.text is None else files.read_texts(inputs.text, inputs.column)
    n_rows = vectors.count_embeddings(inputs.embeddings)  # None for a pipe
    if texts is not None and n_rows is not None:
        check_row_count(inputs.embeddings, n_rows, len(texts))
    blocks = Blocks(inputs.embeddings, flip.n_features_in_)
    rows, scores = flip.find_rows(blocks, include, exclude, mode=mode, top_k=top_k, return_scores=True)
    if texts is not None:
        check_row_count(inputs.embeddings, blocks.n_rows, len(texts))
    return [
        (row, score, None if texts is None else texts[row])
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def compare(
    flip: FLiPExtractor, embeddings: tuple[str, str], groups: tuple[str, str] | None, fdr: float
) -> SetComparison:
    """Compare the embeddings of two files, with the labels of their rows in two others."""
    X_a, X_b = map(vectors.open_embeddings, embeddings)
    for path, X in zip(embeddings, (X_a, X_b), strict=True):
        check_dimensions(path, X, flip.n_features_in_)
    groups_a, groups_b = (None, None) if groups is None else map(files.read_texts, groups)
    return compare_sets(flip, X_a, X_b, groups_a=groups_a, groups_b=groups_b, fdr=fdr)


def compared_words(result: SetComparison, top_k: int) -> list[ComparedWord]:
    """Return the words that each set has more often, those of the first set first."""
    columns = [(name, j) for name, side in zip("AB", result.order(top_k), strict=True) for j in side]
    difference = result.difference
    return [
        ComparedWord(
            word=str(result.words[j]),
            more_in=name,
            share_a=float(result.share_a[j]),
            share_b=float(result.share_b[j]),
            difference=float(difference.value[j]),
            difference_low=float(difference.low[j]),
            difference_high=float(difference.high[j]),
            log_ratio=float(result.log_ratio[j]),
            q_value=float(result.q_value[j]),
        )
        for name, j in columns
    ]


@dataclass(frozen=True)
class ReportFiles:
    """The files of a report: texts and embeddings by name, the column of the texts, and names."""

    texts: dict[str, str]
    embeddings: dict[str, str]
    column: str | None
    entities: str | None


def report(
    inputs: ReportFiles,
    out: Path,
    encoder_params: dict[str, Any] | None,
    min_count: int | None,
    flip_params: dict[str, Any],
    diagnose_params: dict[str, Any],
) -> list[str]:
    """Write the page and return its main findings."""
    from flip_sklearn.report import diagnose
    from flip_sklearn.report.inputs import check_out

    check_out(out)
    encoder = make_encoder(encoder_params)
    texts = {name: files.read_texts(path, inputs.column) for name, path in inputs.texts.items()}
    first = next(iter(texts.values()))
    for name, lines in texts.items():
        if len(lines) != len(first):
            raise ValueError(
                f"the text {name!r} has {len(lines)} lines, and the first one {len(first)}; line i must be "
                "the same sentence in all of them."
            )
    n_different = min(len(set(normalized_texts(lines))) for lines in texts.values())
    if n_different < _MIN_SENTENCES:
        raise ValueError(
            f"the text has {n_different} different sentences; a report needs at least {_MIN_SENTENCES}, for "
            "training and for the test."
        )
    names = None if inputs.entities is None else files.read_names(inputs.entities, len(first))
    all_texts = [text for lines in texts.values() for text in lines]
    n_train = len(first) - len(first) // 5
    vectorizer = None if min_count is None else default_vectorizer(all_texts, n_train, min_count=min_count)
    if encoder is not None:
        views = {name: encoder.transform(lines) for name, lines in texts.items()}
    else:
        views = {name: open_embeddings(path, len(first)) for name, path in inputs.embeddings.items()}
    sources = (
        "standard input" if path == STANDARD_INPUT else Path(path).name for path in inputs.texts.values()
    )
    diagnosis = diagnose(
        views,
        first if len(texts) == 1 else texts,
        out=out,
        entities=names,
        vectorizer=vectorizer,
        dictionary=None if encoder is None else encoder.transform,
        estimator=FLiPExtractor(**flip_params),
        encoder=EncodingConfig.from_fit(encoder, ConceptVectorizer()).encoder_name,
        source=", ".join(sources),
        encode=None if encoder is None else {next(iter(texts)): encoder},
        **diagnose_params,
    )
    return [finding.text for finding in diagnosis.findings if finding.main]

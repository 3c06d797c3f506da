"""What the commands do: the library's functions between files. Results are returned; nothing is printed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupShuffleSplit
from tqdm import tqdm

from flip_sklearn import metrics
from flip_sklearn.bulk import KeywordMapper
from flip_sklearn.cli import files as reading
from flip_sklearn.cli.encoding import EncodingConfig, model_name
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.persistence.hub import locate
from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.defaults import default_vectorizer, normalized_texts

BLOCK = 1024  # lines that are encoded, read and written in one go


def make_encoder(
    options: dict[str, Any] | None, flip: FLiPExtractor | None = None, **here: Any
) -> SentenceEncoder:
    """An encoder of a recipe's or a caller's options, on this machine's device and cache."""
    if options is None:
        # What its author wrote is for people: it has no options, so it is not taken for a recipe.
        said = getattr(flip, "pretrained_info_", {}).get("encoder")
        hint = f", only of what: {said}" if said else ""
        raise ValueError(
            f"this model does not say how its embeddings were made{hint}; name the encoder with --encoder, "
            "or pass --embeddings."
        )
    unknown = sorted(set(options) - set(SentenceEncoder().get_params()))
    if unknown:
        allowed = "backend, normalize, truncate_dim, prompt_name, language, revision, api_key_env"
        raise ValueError(f"encoder option {unknown[0]!r} is not known; use one of {allowed}.")
    encoder: SentenceEncoder = SentenceEncoder(**{**options, **here}).fit()
    return encoder


def open_model(
    model: str, subfolder: str | None, revision: str | None, device: str
) -> tuple[FLiPExtractor, EncodingConfig]:
    """A model of a folder or of the hub, and how text becomes what it reads."""
    folder = locate(model, subfolder, revision)
    flip = FLiPExtractor.from_pretrained(folder).set_params(device=device)
    return flip, EncodingConfig.read(folder)


# ---------------------------------------------------------------------- fit


def check_out(out: Path, force: bool) -> None:
    """Before minutes of training, not after."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{str(out)!r} is a file; pass the folder to write the model to.")
    if not force and out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"the folder {str(out)!r} is not empty; pass another one, or --force to replace its model."
        )
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"the folder {str(out)!r} cannot be written; pass another one with --out.")


def fit(
    text: str,
    out: Path,
    *,
    embeddings: str | None,
    encoder: SentenceEncoder | None,
    words: dict[str, Any],
    estimator: FLiPExtractor,
    test_share: float,
    seed: int,
) -> tuple[dict[str, Any], bool]:
    """Train on a text file and save the model; the summary, and whether training was interrupted."""
    texts = reading.all_lines(text)
    blank = 0
    if embeddings is None:
        sentences = [line for line in texts if line.strip()]
        texts, blank = sentences, len(texts) - len(sentences)
        if not texts:
            raise ValueError(f"{text!r} has blank lines only; it needs one sentence per line.")
    else:
        X = reading.embeddings(embeddings)
        _check_rows(X, texts, embeddings)
    labels = np.unique(normalized_texts(texts), return_inverse=True)[1]
    test = _test_rows(labels, test_share, seed)
    train = np.setdiff1d(np.arange(len(texts)), test, assume_unique=True)
    # The words before the vectors: a corpus without any is told before minutes of encoding.
    vectorizer = default_vectorizer(texts, len(train), **words).fit([texts[i] for i in train])
    Y = vectorizer.transform(texts)
    if encoder is not None:
        X = encoder.transform(texts)
    # Rows that are not trained on weigh nothing, so that a memory-mapped X is never copied.
    weight = np.zeros(len(texts))
    weight[train] = 1
    vocabulary = vectorizer.get_feature_names_out()
    flip = estimator.set_params(vocabulary=vocabulary.tolist(), random_state=seed)
    interrupted = _fit_once(flip, X, Y, weight, labels)
    made_by = None if encoder is None else model_name(encoder)
    flip.save_pretrained(out, trained_on=f"{len(train):,} sentences.", encoder=made_by)
    EncodingConfig.of(encoder, vectorizer).write(out)
    summary = {
        "out": str(out),
        "words": len(vocabulary),
        "rank": int(flip.rank_),
        "dimensions": int(flip.n_features_in_),
        "sentences_trained_on": len(train),
        "sentences_held_out": len(test),
        "blank_lines": blank,
        "passes": flip.n_iter_,
        "keyword_accuracy": _held_out(flip, X[test], Y[test], Y[train]) if len(test) else None,
    }
    return summary, interrupted


def _fit_once(flip: FLiPExtractor, X: Any, Y: Any, weight: Any, groups: Any) -> bool:
    """Fit; whether Ctrl-C ended it. Warnings go where they go."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flip.fit(X, Y, sample_weight=weight, groups=groups)
    for warning in caught:
        warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    return any(
        issubclass(w.category, ConvergenceWarning) and "interrupted" in str(w.message)
        for w in caught
    )


def _test_rows(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the distinct texts, so that none is on both sides."""
    if share == 0:
        return np.array([], dtype=np.intp)
    try:
        split = GroupShuffleSplit(1, test_size=share, random_state=seed)
        return np.sort(next(split.split(labels, groups=labels))[1])
    except ValueError as error:
        raise ValueError(
            f"{labels.max() + 1} different sentences cannot be split with --test-share {share} ({error}); "
            "pass more, another share, or --test-share 0."
        ) from None


def _held_out(
    flip: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, trained_on: sp.csr_array
) -> dict[str, Any]:
    """Keyword accuracy with bias, without, and of always guessing the most frequent words."""
    widest = max(1, int(np.diff((Y > 0).tocsr().indptr).max(initial=1)))
    frequent = np.argsort(-trained_on.sum(axis=0), kind="stable")[:widest]
    tops = {
        "with_bias": _top_words(flip, X, widest, True),
        "without_bias": _top_words(flip, X, widest, False),
        "most_frequent_words": np.tile(frequent, (X.shape[0], 1)),
    }
    flip.set_params(use_bias=True)
    return {name: _figures(metrics.keyword_accuracy(Y, top)) for name, top in tops.items()}


def _top_words(flip: FLiPExtractor, X: np.ndarray, k: int, use_bias: bool) -> np.ndarray:
    """The k best words a row as indices, padded with -1 where training saw fewer."""
    top = flip.set_params(use_bias=use_bias)._top_words(X, k)
    return np.pad(top, ((0, 0), (0, k - top.shape[1])), constant_values=-1)


def _figures(mean: metrics.RowMean) -> dict[str, Any]:
    """A mean for JSON, which has no NaN."""
    figures = {"value": mean.value, "standard_error": mean.standard_error}
    return {
        **{name: None if np.isnan(value) else value for name, value in figures.items()},
        "n_rows": mean.n_rows,
        "n_skipped": mean.n_skipped,
    }


def _check_rows(X: np.ndarray, texts: Sequence[str], path: str) -> None:
    if len(X) != len(texts):
        raise ValueError(
            f"{path!r} has {len(X)} embeddings, and there are {len(texts)} lines of text; row i must "
            "belong to line i."
        )


# ---------------------------------------------------------------------- keywords


def keywords(
    flip: FLiPExtractor,
    *,
    text: str | None,
    embeddings: str | None,
    encoder: SentenceEncoder | None,
    top_k: int,
    use_bias: bool,
    quiet: bool,
) -> Iterator[list[list[tuple[str, float]]]]:
    """(word, score) pairs of each row, block by block; an empty list for a blank line."""
    mapper = KeywordMapper(flip, top_k=top_k, use_bias=use_bias, return_scores=True)
    total = None if embeddings is None else reading.count_embeddings(embeddings)
    unit = "line" if embeddings is None else "row"
    with tqdm(total=total, unit=unit, desc="keywords", delay=2, disable=quiet) as bar:
        if embeddings is not None:
            for X in reading.embedding_blocks(embeddings):
                yield _read(mapper, X, bar.n)
                bar.update(len(X))
        else:
            assert text is not None
            assert encoder is not None
            for block in reading.text_blocks(text, BLOCK):
                there = [i for i, line in enumerate(block) if line.strip()]
                found: list[list[tuple[str, float]]] = [[] for _ in block]
                if there:
                    X = encoder.transform([block[i] for i in there])
                    for i, row in zip(there, _read(mapper, X, bar.n), strict=True):
                        found[i] = row
                yield found
                bar.update(len(block))


def _read(mapper: KeywordMapper, X: np.ndarray, first: int) -> list[list[tuple[str, float]]]:
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        raise ValueError(
            f"row {first + bad[0]} of the embeddings (counted from 0) has NaN or infinity; leave such rows "
            "out or encode them again."
        )
    return list(mapper(X))


# ---------------------------------------------------------------------- evaluate


def evaluate(
    flip: FLiPExtractor,
    recipe: EncodingConfig,
    *,
    text: str,
    embeddings: str | None,
    encoder: SentenceEncoder | None,
    entities: str | None,
    top_k: int,
) -> list[dict[str, Any]]:
    """Each metric with and without bias, over the lines of a file."""
    texts = reading.all_lines(text)
    names = None if entities is None else reading.names(entities, len(texts))
    if embeddings is not None:
        X, kept = reading.embeddings(embeddings), np.arange(len(texts))
        _check_rows(X, texts, embeddings)
    else:
        assert encoder is not None
        kept = np.array([i for i, line in enumerate(texts) if line.strip()], dtype=np.intp)
        if not len(kept):
            raise ValueError(f"{text!r} has blank lines only; it needs one sentence per line.")
        X = encoder.transform([texts[i] for i in kept])
    Y = ConceptVectorizer(vocabulary=flip.vocabulary_.tolist(), **recipe.words).transform(
        [texts[i] for i in kept]
    )
    if Y.nnz == 0:
        raise ValueError(
            f"none of the {len(texts)} lines has a word of the model; is the text of its language, "
            "and one sentence per line?"
        )
    rows = []
    widest = max(top_k, int(np.diff((Y > 0).tocsr().indptr).max(initial=1)))
    for use_bias in (True, False):
        top = _top_words(flip, X, widest, use_bias)
        found = metrics.precision_recall(Y, top, top_k)
        figures = {
            "keyword accuracy": metrics.keyword_accuracy(Y, top),
            f"precision at {top_k}": found.precision,
            f"recall at {top_k}": found.recall,
            f"F1 at {top_k}": found.f1,
        }
        if names is not None:
            words = _named(flip.vocabulary_, top[:, :top_k])
            of_names = metrics.entity_recall([names[i] for i in kept], words)
            figures |= {
                f"names found whole at {top_k}": of_names.recall_strict,
                f"words of names found at {top_k}": of_names.recall_partial,
            }
        rows += [
            {"metric": metric, "use_bias": use_bias, **_figures(mean)}
            for metric, mean in figures.items()
        ]
    nll = -metrics.log_likelihood_scorer(flip.set_params(use_bias=True), X, Y)
    n_rows = int(np.count_nonzero(np.diff(Y.indptr)))
    rows.append(
        {
            "metric": "perplexity per word",
            "use_bias": True,
            "value": float(np.exp(nll)) if nll < 700 else None,
            "standard_error": None,
            "n_rows": n_rows,
            "n_skipped": Y.shape[0] - n_rows,
        }
    )
    return rows


def _named(vocabulary: np.ndarray, top: np.ndarray) -> list[list[str]]:
    return [[vocabulary[j] for j in row if j >= 0] for row in top]


# ---------------------------------------------------------------------- report


def check_page(out: Path) -> None:
    """Before minutes of training, not after."""
    from flip_sklearn.report.request import check_out as check_file

    check_file(out)


def report(
    texts: dict[str, str],
    out: Path,
    *,
    embeddings: dict[str, str],
    encoder: SentenceEncoder | None,
    entities: str | None,
    title: str | None,
    ranks: bool,
    seed: int,
    quiet: bool,
) -> list[str]:
    """Write the page; its main findings."""
    from flip_sklearn.report import diagnose

    by_language = {name: reading.all_lines(path) for name, path in texts.items()}
    first = next(iter(by_language.values()))
    for name, rows in by_language.items():
        if len(rows) != len(first):
            raise ValueError(
                f"the text {name!r} has {len(rows)} lines, and the first one {len(first)}; line i must be "
                "the same sentence in all."
            )
    names = None if entities is None else reading.names(entities, len(first))
    if encoder is not None:
        views = {name: encoder.transform(rows) for name, rows in by_language.items()}
        dictionary = encoder.transform
    else:
        views = {name: reading.embeddings(path) for name, path in embeddings.items()}
        for name, path in embeddings.items():
            _check_rows(views[name], first, path)
        dictionary = None
    diagnosis = diagnose(
        views,
        first if len(by_language) == 1 else by_language,
        out=out,
        title=title,
        entities=names,
        dictionary=dictionary,
        ranks=None if ranks else False,
        random_state=seed,
        verbose=0 if quiet else 1,
    )
    return [finding.text for finding in diagnosis.findings if finding.main]

"""Arguments of a report, checked before the first model is trained."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from flip_sklearn.diagnostics import inputs as checks
from flip_sklearn.diagnostics import split_sentences
from flip_sklearn.diagnostics.deletion import check_encoder, check_encoders
from flip_sklearn.diagnostics.entities import check_entities
from flip_sklearn.diagnostics.split import merge_groups, named_views
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import check_integer, install_command, refusal, short_repr
from flip_sklearn.report.sets import SetLabels, check_sets
from flip_sklearn.views import check_views
from flip_sklearn.vocabulary.defaults import default_vectorizer, normalized_texts


@dataclass(frozen=True)
class ReportArguments:
    """Arguments of :func:`diagnose` as the caller passed them, except ``out``; the defaults are equal."""

    views: Any
    texts: Any
    title: Any = None
    vectorizer: Any = None
    view_texts: Any = None
    entities: Any = None
    dictionary: Any = None
    ranks: Any = None
    groups: Any = None
    test: Any = None
    estimator: Any = None
    encoder: Any = None
    source: Any = None
    encode: Any = None
    sets: Any = None
    n_examples: Any = 20
    n_bootstrap: Any = 1000
    confidence: Any = 0.95
    random_state: Any = None
    verbose: int = 1


@dataclass(frozen=True)
class ReportInputs:
    """Checked views, texts and settings.

    ``texts``, ``vectorizers`` and ``counts`` have one entry per language, in order. All diagnoses except
    the vocabulary preference use the words of the first language.
    """

    arguments: ReportArguments
    title: str
    sentences: checks.Sentences
    texts: dict[str, list[str]]
    vectorizers: dict[str, Any]
    counts: dict[str, sp.csr_array]
    view_texts: dict[str, list[str]]
    entities: list[Any] | None
    dictionary: np.ndarray | None
    ranks: tuple[int | None, ...] | None
    estimators: dict[str, FLiPExtractor]
    encoder: str | None
    source: str | None
    encoders: dict[str, SentenceEncoder]
    sets: SetLabels | None
    n_examples: int
    settings: checks.EvaluationSettings

    @property
    def is_multilingual(self) -> bool:
        """Whether the texts were passed as a mapping of languages."""
        return isinstance(self.arguments.texts, Mapping)

    @property
    def first_language(self) -> str:
        """Name of the first language."""
        return next(iter(self.texts))

    @property
    def vocabulary(self) -> np.ndarray:
        """Words of the first language, in column order."""
        return np.asarray(self.vectorizers[self.first_language].get_feature_names_out())


def check_inputs(arguments: ReportArguments) -> ReportInputs:
    """Check all arguments of a report; raise a ValueError that names the first one that is not allowed."""
    title = _check_line("title", arguments.title) or "What can be read from these embeddings?"
    encoder = _check_line("encoder", arguments.encoder)
    source = _check_line("source", arguments.source)
    settings = checks.check_settings(
        arguments.n_bootstrap, arguments.confidence, arguments.random_state, arguments.verbose
    )
    n_examples = check_integer("n_examples", arguments.n_examples, 0)
    estimator = arguments.estimator
    if estimator is not None and not isinstance(estimator, FLiPExtractor):
        raise ValueError(f"estimator is {short_repr(estimator)}; pass a FLiPExtractor, or None.")
    arrays = check_views(named_views(arguments.views))
    for name in arrays:
        if not isinstance(name, str):
            raise ValueError(f"the name of view {name!r} is of type {type(name).__name__}; use a str.")
    n, d = next(iter(arrays.values())).shape
    texts = _check_texts(arguments.texts, n)
    view_texts = _check_view_texts(arguments.view_texts, arrays, n)
    entities = arguments.entities
    if entities is not None:
        entities = check_entities(entities, n, "the views have")
    ranks = None if arguments.ranks is False else checks.check_ranks(arguments.ranks, d)
    sentences = _split(arguments, arrays, texts, settings.random_state)
    encoders = check_encoders(arguments.encode, tuple(arrays), "encode")
    first_texts = next(iter(texts.values()))
    for view, view_encoder in encoders.items():
        check_encoder(view, view_encoder, [first_texts[i] for i in sentences.split.test], None, d)
    if entities is not None and not any(len(entities[i]) for i in sentences.split.test):
        raise ValueError(
            f"entities has no name in any of the {len(sentences.split.test)} test sentences; pass more "
            "sentences with names, or entities=None."
        )
    sets = arguments.sets
    if sets is not None:
        sets = check_sets(sets, sentences, FLiPExtractor() if estimator is None else estimator)
    vectorizers, counts, estimators = {}, {}, {}
    for language, rows in texts.items():
        vectorizer = _fit_vectorizer(arguments.vectorizer, rows, sentences.split.train)
        vectorizers[language] = vectorizer
        name = f"the vocabulary of {language!r}"
        counts[language] = checks.check_targets(vectorizer.transform(rows), sentences, name)
        words = list(vectorizer.get_feature_names_out())
        estimators[language] = checks.check_estimator(estimator, settings.random_state).set_params(
            vocabulary=words
        )
    vocabulary = next(iter(vectorizers.values())).get_feature_names_out()
    return ReportInputs(
        arguments=arguments,
        title=title,
        sentences=sentences,
        texts=texts,
        vectorizers=vectorizers,
        counts=counts,
        view_texts={name: rows for name, rows in texts.items() if name in arrays} | view_texts,
        entities=entities,
        dictionary=_check_dictionary(arguments.dictionary, vocabulary, d),
        ranks=ranks,
        estimators=estimators,
        encoder=encoder,
        source=source,
        encoders=encoders,
        sets=sets,
        n_examples=n_examples,
        settings=settings,
    )


def _check_line(name: str, value: Any) -> str | None:
    """Check a text that is shown on the page; None if it was not passed."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise refusal(name, value, "a text, or None")
    return value.strip()


def _split(
    arguments: ReportArguments, arrays: dict[str, np.ndarray], texts: dict[str, list[str]], seed: int
) -> checks.Sentences:
    """Split the sentences; sentences with equal texts are in one group, whatever their embeddings."""
    text_groups = [normalized_texts(rows) for rows in texts.values()]
    n = len(next(iter(arrays.values())))
    groups = merge_groups([arguments.groups, *text_groups], n)
    split = split_sentences(arrays, groups=groups, test=arguments.test, random_state=seed)
    return checks.check_sentences(arrays, split, seed)


def check_extras() -> None:
    """Check, before any training, that the packages that only reports need are installed."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"a report needs {' and '.join(missing)}: {install_command('report')}")


def check_out(out: Any) -> Path:
    """Check the path of an HTML file that can be written."""
    if not isinstance(out, (str, os.PathLike)) or not str(out):
        raise refusal("out", out, "the path of an .html file, or None")
    path = Path(out).expanduser()
    if path.suffix.lower() not in {".html", ".htm"}:
        raise ValueError(f"out={str(out)!r} does not end in .html; name it {path.name}.html.")
    if path.is_dir():
        raise ValueError(f"out={str(out)!r} is a folder; use the path of a file in it.")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(
            f"out={str(out)!r} cannot be written: {folder} is not a writable folder. Choose another one."
        )
    return path


def _check_texts(texts: Any, n: int) -> dict[str, list[str]]:
    """Check the texts of each language; a single list is that of the language "texts"."""
    if isinstance(texts, Mapping):
        if not texts:
            raise ValueError("texts is empty; pass n texts, or a mapping of languages to n texts.")
        return {str(name): _check_rows(f"texts[{name!r}]", row, n) for name, row in texts.items()}
    return {"texts": _check_rows("texts", texts, n)}


def _check_rows(name: str, rows: Any, n: int) -> list[str]:
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
        raise ValueError(f"{name} is {short_repr(rows)}; pass a list of {n} texts, one per sentence.")
    texts = list(rows)
    if len(texts) != n:
        raise ValueError(f"{name} has {len(texts)} rows, the views have {n}; they must be row-aligned.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"{name} holds {text!r:.40} of type {type(text).__name__} in row {i}; every text is a str."
            )
    return [str(text) for text in texts]


def _check_view_texts(view_texts: Any, arrays: Mapping[str, Any], n: int) -> dict[str, list[str]]:
    if view_texts is None:
        return {}
    if not isinstance(view_texts, Mapping):
        raise ValueError(f"view_texts is {short_repr(view_texts)}; pass a mapping of views to n texts.")
    for view in view_texts:
        if view not in arrays:
            raise ValueError(f"view_texts has {view!r}; the views are {', '.join(map(repr, arrays))}.")
    return {view: _check_rows(f"view_texts[{view!r}]", t, n) for view, t in view_texts.items()}


def _fit_vectorizer(vectorizer: Any, texts: list[str], train: np.ndarray) -> Any:
    """A clone of the vectorizer, fitted to the training texts."""
    if vectorizer is None:
        # Single words: in small corpora many pairs are due to chance, and names such as "new york" are
        # looked up word by word.
        vectorizer = default_vectorizer(texts, len(train))
    for method in ("fit", "transform", "get_feature_names_out"):
        if not hasattr(vectorizer, method):
            raise ValueError(
                f"vectorizer is {short_repr(vectorizer)}, which has no {method}; pass a vectorizer such as "
                "ConceptVectorizer() or CountVectorizer(), or None."
            )
    return clone(vectorizer).fit([texts[i] for i in train])


def _check_dictionary(
    dictionary: np.ndarray | Callable[[list[str]], Any] | None, vocabulary: np.ndarray, d: int
) -> np.ndarray | None:
    """Embeddings of the words for SpLiCE, (V, d)."""
    if dictionary is None:
        return None
    if callable(dictionary):
        source, embeddings = "the dictionary function returned", dictionary(list(vocabulary))
    else:
        source, embeddings = "dictionary is", dictionary
    embeddings = np.asarray(embeddings)
    if embeddings.shape != (len(vocabulary), d) or embeddings.dtype.kind not in "fiu":
        raise ValueError(
            f"{source} an array of shape {embeddings.shape} and type {embeddings.dtype}; pass a function "
            f"from words to embeddings, or one embedding of {d} dimensions for each of the "
            f"{len(vocabulary)} words."
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("dictionary has NaN or infinite values; every word needs an embedding.")
    return embeddings

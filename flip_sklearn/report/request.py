"""What a report is asked of, checked in full before the first model is trained."""

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

from flip_sklearn.diagnostics import split_sentences
from flip_sklearn.diagnostics.bootstrap import check_resampling
from flip_sklearn.diagnostics.comparison import _check_ranks
from flip_sklearn.diagnostics.evaluation import (
    Sentences,
    as_seed,
    check_estimator,
    check_sentences,
    check_targets,
)
from flip_sklearn.diagnostics.split import _labels, _merge
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.metrics import entity_curve
from flip_sklearn.parameters import check_integer
from flip_sklearn.views import check_views
from flip_sklearn.vocabulary.defaults import default_vectorizer, normalized_texts


@dataclass(frozen=True)
class Request:
    """Checked views, texts and settings.

    ``texts``, ``vectorizers`` and ``counts`` have one entry per language, in order; ``counts_of`` is that
    of the first, whose words all diagnoses but the preference read.
    """

    sentences: Sentences
    texts: dict[str, list[str]]
    several_texts: bool
    vectorizers: dict[str, Any]
    counts: dict[str, sp.csr_array]
    view_texts: dict[str, list[str]]
    entities: list[Any] | None
    dictionary: np.ndarray | None
    ranks: tuple[int | None, ...] | None
    model: FLiPExtractor
    settings: str
    n_examples: int
    resampling: dict[str, Any]
    seed: int

    @property
    def text(self) -> list[str]:
        """The texts whose words are read."""
        return next(iter(self.texts.values()))

    @property
    def words(self) -> sp.csr_array:
        """The counts of these words."""
        return next(iter(self.counts.values()))

    @property
    def vocabulary(self) -> np.ndarray:
        """The words, in the order of columns."""
        names: np.ndarray = next(iter(self.vectorizers.values())).get_feature_names_out()
        return names


def check_request(
    views: Any,
    texts: Any,
    *,
    vectorizer: Any,
    view_texts: Any,
    entities: Any,
    dictionary: Any,
    ranks: Any,
    groups: Any,
    test: Any,
    estimator: Any,
    n_examples: Any,
    n_bootstrap: Any,
    confidence: Any,
    random_state: Any,
    verbose: int,
) -> Request:
    """Everything of a request, or a ValueError that names what is wrong with it."""
    check_resampling(n_bootstrap, confidence)
    n_examples = check_integer("n_examples", n_examples, 0)
    if estimator is not None and not isinstance(estimator, FLiPExtractor):
        raise ValueError(f"estimator is {estimator!r:.60}; pass a FLiPExtractor, or None.")
    seed = as_seed(random_state)
    arrays = check_views(views if isinstance(views, Mapping) else {"embeddings": views})
    for name in arrays:
        if not isinstance(name, str):
            raise ValueError(f"the view {name!r} is named by a {type(name).__name__}; use a str.")
    n, d = next(iter(arrays.values())).shape
    by_language = _check_texts(texts, n)
    shown = _check_view_texts(view_texts, arrays, n)
    names = _check_entities(entities, n)
    tried = None if ranks is False else _check_ranks(ranks, d)
    # A sentence that is there twice must not be on both sides, however differently it is embedded.
    same = [_labels(normalized_texts(row), n) for row in by_language.values()]
    together = _merge([_labels(groups, n), *same], n)
    split = split_sentences(arrays, groups=together, test=test, random_state=seed)
    sentences = check_sentences(arrays, split, seed)
    if names is not None and not any(map(len, (names[i] for i in split.test))):
        raise ValueError(
            f"entities has no name in any of the {len(split.test)} test sentences; pass more sentences with "
            "names, or entities=None."
        )
    vectorizers = {
        language: _fit_vectorizer(vectorizer, row, split.train)
        for language, row in by_language.items()
    }
    counts = {
        language: check_targets(
            vectorizers[language].transform(row), sentences, f"the vocabulary of {language!r}"
        )
        for language, row in by_language.items()
    }
    vocabulary = next(iter(vectorizers.values())).get_feature_names_out()
    model = check_estimator(estimator, seed).set_params(vocabulary=list(vocabulary))
    return Request(
        sentences=sentences,
        texts=by_language,
        several_texts=isinstance(texts, Mapping),
        vectorizers=vectorizers,
        counts=counts,
        view_texts={v: row for v, row in by_language.items() if v in arrays} | shown,
        entities=names,
        dictionary=_check_dictionary(dictionary, vocabulary, d),
        ranks=tried,
        model=model,
        settings=f"{FLiPExtractor() if estimator is None else estimator!r}",
        n_examples=n_examples,
        resampling={
            "split": split,
            "n_bootstrap": n_bootstrap,
            "confidence": confidence,
            "random_state": seed,
            "verbose": verbose,
        },
        seed=seed,
    )


def check_extras() -> None:
    """The packages that only reports need: told before minutes of training, not after."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"a report needs {' and '.join(missing)}: pip install 'flip-sklearn[report]'"
        )


def check_out(out: Any) -> Path:
    """The path of an HTML file that can be written."""
    if not isinstance(out, (str, os.PathLike)) or not str(out):
        raise ValueError(f"out={out!r} is not allowed; use the path of an .html file, or None.")
    path = Path(out)
    if path.suffix.lower() not in {".html", ".htm"}:
        raise ValueError(f"out={str(out)!r} does not end in .html; name it {path.name}.html.")
    if path.is_dir():
        raise ValueError(f"out={str(out)!r} is a folder; use the path of a file in it.")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(
            f"out={str(out)!r} cannot be written: {folder} is no folder that may be written to. Choose "
            "another one."
        )
    return path


def check_title(title: Any) -> str:
    """The title, or one that fits every report."""
    if title is None:
        return "What can be read from these embeddings?"
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"title={title!r} is not allowed; use a text, or None.")
    return title.strip()


def _check_texts(texts: Any, n: int) -> dict[str, list[str]]:
    """The texts of each language."""
    if isinstance(texts, Mapping):
        if not texts:
            raise ValueError("texts is empty; pass n texts, or a mapping of languages to n texts.")
        return {str(name): _check_rows(f"texts[{name!r}]", row, n) for name, row in texts.items()}
    return {"texts": _check_rows("texts", texts, n)}


def _check_rows(name: str, rows: Any, n: int) -> list[str]:
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
        raise ValueError(f"{name} is {rows!r:.60}; pass a list of {n} texts, one per sentence.")
    given = list(rows)
    if len(given) != n:
        raise ValueError(
            f"{name} has {len(given)} rows, the views have {n}; they must be row-aligned."
        )
    for i, text in enumerate(given):
        if not isinstance(text, str):
            raise ValueError(
                f"{name} holds {text!r:.40} of type {type(text).__name__} in row {i}; every text is a str."
            )
    return [str(text) for text in given]


def _check_view_texts(view_texts: Any, arrays: Mapping[str, Any], n: int) -> dict[str, list[str]]:
    if view_texts is None:
        return {}
    if not isinstance(view_texts, Mapping):
        raise ValueError(f"view_texts is {view_texts!r:.60}; pass a mapping of views to n texts.")
    for view in view_texts:
        if view not in arrays:
            raise ValueError(
                f"view_texts names {view!r}; the views are {', '.join(map(repr, arrays))}."
            )
    return {view: _check_rows(f"view_texts[{view!r}]", t, n) for view, t in view_texts.items()}


def _check_entities(entities: Any, n: int) -> list[Any] | None:
    if entities is None:
        return None
    rows = list(entities) if isinstance(entities, Iterable) else entities
    if isinstance(rows, list) and len(rows) != n:
        raise ValueError(
            f"entities has {len(rows)} rows, the views have {n}; pass one list of names per sentence."
        )
    entity_curve(entities if isinstance(entities, (str, Mapping)) else rows, [[]] * n, [1])
    return list(rows)


def _fit_vectorizer(vectorizer: Any, texts: list[str], train: np.ndarray) -> Any:
    """A vectorizer that has seen the training texts and no others."""
    if vectorizer is None:
        # Single words are what readers look for; in small corpora many pairs are chance, and pairs such
        # as "new york" would hide the names, which are looked up word by word.
        vectorizer = default_vectorizer(texts, len(train))
    for verb in ("fit", "transform", "get_feature_names_out"):
        if not hasattr(vectorizer, verb):
            raise ValueError(
                f"vectorizer is {vectorizer!r:.60}, which has no {verb}; pass a vectorizer such as "
                "ConceptVectorizer() or CountVectorizer(), or None."
            )
    return clone(vectorizer).fit([texts[i] for i in train])


def _check_dictionary(
    dictionary: np.ndarray | Callable[[list[str]], Any] | None, vocabulary: np.ndarray, d: int
) -> np.ndarray | None:
    """Embeddings of the words, for SpLiCE."""
    if dictionary is None:
        return None
    called = callable(dictionary)
    given = np.asarray(dictionary(list(vocabulary)) if callable(dictionary) else dictionary)
    if given.shape != (len(vocabulary), d) or given.dtype.kind not in "fiu":
        what = "the dictionary function gave" if called else "dictionary is"
        raise ValueError(
            f"{what} an array of shape {given.shape} and type {given.dtype}; pass a function from words to "
            f"their embeddings, or one embedding of {d} numbers for each of the {len(vocabulary)} words."
        )
    if not np.isfinite(given).all():
        raise ValueError("dictionary has NaN or infinite values; every word needs an embedding.")
    return given

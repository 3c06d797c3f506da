"""Checks of the arguments of the diagnoses: views, counts, estimators and fitted models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.utils.validation import _num_samples, check_is_fitted

from flip_sklearn.diagnostics.split import SentenceSplit, named_views, split_sentences
from flip_sklearn.estimation.validation import check_counts, resolve_rank
from flip_sklearn.estimation.words import check_words as check_words
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import check_integer, check_number, check_random_state, is_integer, short_repr
from flip_sklearn.views import check_views


@dataclass(frozen=True)
class EvaluationSettings:
    """Keyword arguments that all diagnoses of sentences share; the random state is an integer seed."""

    n_bootstrap: int
    confidence: float
    random_state: int
    verbose: int = 0


def check_settings(n_bootstrap: Any, confidence: Any, random_state: Any, verbose: int) -> EvaluationSettings:
    """Check the settings; draw a seed unless ``random_state`` is one, so that it can be used repeatedly."""
    n_bootstrap = check_integer("n_bootstrap", n_bootstrap, 10)
    confidence = check_number("confidence", confidence, 0, 1, open_low=True, open_high=True)
    if not is_integer(random_state):
        random_state = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    return EvaluationSettings(n_bootstrap, confidence, int(random_state), verbose)


@dataclass(frozen=True)
class Sentences:
    """Checked views of the same sentences, and the split of the sentences."""

    views: dict[str, np.ndarray]
    split: SentenceSplit

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views."""
        return tuple(self.views)

    @property
    def test_groups(self) -> np.ndarray:
        """Group of each test sentence."""
        return np.asarray(self.split.groups[self.split.test])

    @property
    def n_dimensions(self) -> int:
        """Dimension of the embeddings."""
        return int(next(iter(self.views.values())).shape[1])

    def train(self, view: str) -> np.ndarray:
        """Embeddings of the training sentences in one view."""
        return np.asarray(self.views[view][self.split.train])

    def test(self, view: str) -> np.ndarray:
        """Embeddings of the test sentences in one view."""
        return np.asarray(self.views[view][self.split.test])


def check_sentences(views: Any, split: Any, seed: int, min_views: int = 1) -> Sentences:
    """Check views and the split of their sentences; ``split=None`` draws a new split."""
    arrays = check_views(named_views(views))
    if len(arrays) < min_views:
        raise ValueError(
            f"views has {len(arrays)} view ({', '.join(map(repr, arrays))}); pass at least {min_views}, "
            "row-aligned, to compare them."
        )
    for name, X in arrays.items():
        bad_rows = np.flatnonzero(~np.isfinite(X).all(axis=1))
        if len(bad_rows):
            raise ValueError(
                f"view {name!r} has NaN or infinite values in {len(bad_rows)} rows, the first is "
                f"{bad_rows[0]}; leave these sentences out of every view."
            )
    n = len(next(iter(arrays.values())))
    if split is None:
        split = split_sentences(arrays, random_state=seed)
    if not isinstance(split, SentenceSplit):
        raise ValueError(f"split is a {type(split).__name__}; pass the result of split_sentences, or None.")
    if len(split.groups) != n:
        raise ValueError(f"split is of {len(split.groups)} sentences; the views have {n}.")
    return Sentences(arrays, split)


def check_targets(Y: Any, sentences: Sentences, name: str = "Y") -> sp.csr_array:
    """Check the word counts of the sentences; both parts of the split must have words."""
    if Y is None:
        raise ValueError(f"{name} is None; pass the (n, V) counts of the sentences' words.")
    n = len(sentences.split.groups)
    if _num_samples(Y) != n:
        raise ValueError(f"{name} has {_num_samples(Y)} rows, the views have {n}; they must be row-aligned.")
    counts = check_counts(Y, n)[0]
    for part, rows in (("training", sentences.split.train), ("test", sentences.split.test)):
        if counts[rows].nnz == 0:
            raise ValueError(
                f"{name} has no word in any of the {len(rows)} {part} sentences ({counts.shape[1]} "
                "columns); count words with a vocabulary of this language."
            )
    return counts


def check_estimator(estimator: Any, seed: int) -> Any:
    """A clone of the estimator, ``FLiPExtractor()`` when None, with ``seed`` unless it has a seed."""
    model = FLiPExtractor() if estimator is None else estimator
    if not hasattr(model, "fit") or not hasattr(model, "get_params"):
        raise ValueError(f"estimator is {model!r}; pass an estimator with fit, such as FLiPExtractor().")
    model = clone(model)
    if model.get_params(deep=False).get("random_state", 0) is None:
        model.set_params(random_state=seed)
    return model


def check_ranks(ranks: Any, d: int) -> tuple[int | None, ...]:
    """Ranks in ascending order, None (LiP) last; ``ranks=None`` gives the default ranks."""
    if ranks is None:
        powers = [2**p for p in range(4, d.bit_length()) if 2**p < d]
        full_rank = [d] if d <= 512 else []
        return (*powers, *full_rank, None)
    is_sequence = isinstance(ranks, Iterable) and not isinstance(ranks, (str, bytes))
    resolved = {resolve_rank(rank, d) for rank in ranks} if is_sequence else set()
    if not resolved:
        raise ValueError(f"ranks={ranks!r} is not allowed; use a sequence of ranks from 1 to {d}.")
    ascending = sorted(rank for rank in resolved if rank is not None)
    return (*ascending, None) if None in resolved else tuple(ascending)


def check_mapping(name: str, value: Any, content: str) -> None:
    """Check that an argument is a mapping with at least one entry."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is a {type(value).__name__}; pass a mapping of {content}.")
    if not value:
        raise ValueError(f"{name} is empty; pass a mapping of {content}.")


def check_model(model: Any) -> FLiPExtractor:
    """Check that a model is a fitted FLiPExtractor."""
    if not isinstance(model, FLiPExtractor):
        raise ValueError(
            f"model is a {type(model).__name__}; pass a fitted FLiPExtractor (of a Pipeline its last "
            "step, with embeddings as the steps before it return them; of a TextKeywordExtractor its "
            "extractor_)."
        )
    check_is_fitted(model)
    return model


def check_vocabulary(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """The words of a fitted model and their training counts, nan where the model has no counts."""
    if not hasattr(model, "vocabulary_"):
        raise ValueError(
            f"model is {short_repr(model)} and has no vocabulary_; pass a fitted FLiPExtractor, or "
            "another fitted estimator with a vocabulary_ and decision_function or predict_proba."
        )
    words = np.array(model.vocabulary_, dtype=object)
    counts = getattr(model, "word_counts_", np.full(len(words), np.nan))
    return words, np.array(counts, dtype=float)

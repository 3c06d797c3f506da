"""What the page shows of texts and vectors, as numbers: nothing here knows of the page."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.cli import vectors
from flip_sklearn.diagnostics import SimilarityExplanation, edit_words, explain_similarity
from flip_sklearn.diagnostics.editing_result import EditedWords
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.vocabulary import ConceptVectorizer

MAX_CHARACTERS = 10_000
MAX_FILE_BYTES = 50_000_000
MAX_FILE_ROWS = 10_000
MAX_EDITS = 20
N_WORDS = 10
N_NEIGHBOURS = 5
# Words that match the text in a neighbour, and the smallest contribution to the cosine that is shown.
N_MATCHES, MIN_MATCH = 5, 0.005
_BLOCK_ROWS = 4096
# One number of a vector is at most this long when it is pasted.
_NUMBER_CHARACTERS = 40


@dataclass(frozen=True)
class Keyword:
    """A word, its score in nats, and its probability, of the kind that the model has."""

    word: str
    score: float
    probability: float


@dataclass(frozen=True)
class Neighbour:
    """A sentence of the corpus, its cosine with a vector, and what the words that match contribute to it."""

    row: int
    text: str
    cosine: float
    words: list[tuple[str, float]]


class Corpus:
    """Sentences and their embeddings (n, d), which may be memory-mapped.

    Raises
    ------
    ValueError
        If an embedding has NaN or infinity.
    """

    def __init__(self, texts: list[str], X: np.ndarray) -> None:
        self.texts, self.X = texts, X
        lengths = []
        for start in range(0, len(X), _BLOCK_ROWS):
            block = np.asarray(X[start : start + _BLOCK_ROWS], dtype=np.float32)
            lengths.append(np.linalg.norm(block, axis=1))
            bad = np.flatnonzero(~np.isfinite(lengths[-1]))
            if len(bad):
                raise ValueError(
                    f"row {start + bad[0]} of the embeddings of the sentences (counted from 0) has NaN or "
                    "infinity, or is too large; leave such rows out or encode them again."
                )
        self._lengths = np.concatenate(lengths)

    def nearest(self, x: np.ndarray, k: int) -> list[tuple[int, float]]:
        """Return the rows with the highest cosine, and the cosines; zero rows have none."""
        length = float(np.linalg.norm(x))
        if not length:
            return []
        direction = (x / length).astype(np.float32)
        cosines = np.full(len(self.texts), -np.inf, dtype=np.float32)
        for start in range(0, len(cosines), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            block = np.asarray(self.X[rows], dtype=np.float32)
            np.divide(
                block @ direction, self._lengths[rows], out=cosines[rows], where=self._lengths[rows] > 0
            )
        order = np.argsort(-cosines, kind="stable")[:k]
        return [(int(row), float(cosines[row])) for row in order if np.isfinite(cosines[row])]


class Explorer:
    """A model, and what it reads from texts and vectors.

    Parameters
    ----------
    flip : FLiPExtractor
        Fitted model.
    vectorizer : ConceptVectorizer
        How the model's words are written.
    encoder : SentenceEncoder or None
        Without one only vectors can be read.
    corpus : Corpus, default=None
        Sentences to find.
    """

    def __init__(
        self,
        flip: FLiPExtractor,
        vectorizer: ConceptVectorizer,
        encoder: SentenceEncoder | None,
        corpus: Corpus | None = None,
    ) -> None:
        self.flip, self.encoder, self.corpus = flip, encoder, corpus
        self.n_dimensions = int(flip.n_features_in_)
        self.has_presence = hasattr(flip, "presence_intercept_")
        self._clean: Callable[[str], str] = vectorizer._make_tokenizer().clean
        self._known = set(flip.vocabulary_.tolist())
        self._column = {word: j for j, word in enumerate(flip.vocabulary_.tolist())}
        self._models = {bias: copy.copy(flip).set_params(use_bias=bias) for bias in (False, True)}

    def encode(self, text: str) -> np.ndarray:
        """Return the embedding (d,) of a text.

        Raises
        ------
        ValueError
            If the text is blank, too long or not valid Unicode, or the encoder is not that of the model.
        """
        assert self.encoder is not None
        check_text(text)
        x = self.encoder.transform([text])[0]
        self.check_length(len(x), "the encoder gives vectors")
        return self._check_finite(np.asarray(x, dtype=np.float32))

    def parse_vector(self, text: str) -> np.ndarray:
        """Return a vector (d,) that is written as numbers or as a JSON array.

        Raises
        ------
        ValueError
            If it has something else than finite numbers, or not as many as the model reads.
        """
        limit = _NUMBER_CHARACTERS * self.n_dimensions
        if len(text) > limit:
            raise ValueError(
                f"the vector has {len(text):,} characters, and at most {limit:,} are allowed for "
                f"{self.n_dimensions} numbers; paste one vector."
            )
        parts = [
            part for part in re.split(r"[\s,;]+", text.strip().removeprefix("[").removesuffix("]")) if part
        ]
        if not parts:
            raise ValueError(
                f"the vector is empty; paste {self.n_dimensions} numbers, such as [0.12, -0.05, ...]."
            )
        numbers = np.empty(len(parts))
        for i, part in enumerate(parts):
            try:
                numbers[i] = float(part)
            except ValueError:
                raise ValueError(
                    f"entry {i} of the vector (counted from 0) is {part[:40]!r}, not a number; paste "
                    "numbers between commas, blanks or line ends, or one JSON array."
                ) from None
        self.check_length(len(numbers), "the text has one vector")
        return self._check_finite(numbers)

    def read_file(self, path: str) -> np.ndarray:
        """Return the vectors (n, d) of an uploaded file, of which the name alone is shown in messages.

        Raises
        ------
        ValueError
            If it is too large, has too many rows, or holds no vectors of the model's encoder.
        """
        name = Path(path).name
        try:
            n_bytes = Path(path).stat().st_size
            if n_bytes > MAX_FILE_BYTES:
                raise ValueError(
                    f"{name!r} has {n_bytes:,} bytes, and at most {MAX_FILE_BYTES:,} are allowed; save fewer "
                    "rows."
                )
            n, d = vectors.embeddings_shape(path)
            if not 0 < n <= MAX_FILE_ROWS:
                raise ValueError(
                    f"{name!r} has {n:,} rows, and 1 to {MAX_FILE_ROWS:,} are allowed; save the rows that "
                    "you want to read."
                )
            self.check_length(d, f"{name!r} holds vectors")
            blocks = [np.asarray(block) for block in vectors.read_embedding_blocks(path)]
            return np.concatenate(blocks)
        except ValueError as error:
            raise ValueError(str(error).replace(repr(path), repr(name))) from None

    def keywords(self, x: np.ndarray, *, use_bias: bool) -> list[Keyword]:
        """Return the best words of a vector with or without bias."""
        pairs = self._models[use_bias].extract_keywords(x[None], top_k=N_WORDS, return_scores=True)[0]
        probability = self._probabilities(x, [word for word, _ in pairs])
        return [
            Keyword(word, float(score), value)
            for (word, score), value in zip(pairs, probability, strict=True)
        ]

    def _probabilities(self, x: np.ndarray, words: list[str]) -> list[float]:
        """Return the probabilities that words occur, or theta of a model that has no such."""
        if self.has_presence:
            values = self.flip.predict_presence(x[None], top_k=len(self._column)).toarray()[0]
        else:
            values = self._models[True].predict_proba(x[None])[0]
        return [float(values[self._column[word]]) for word in words]

    def explain(self, x1: np.ndarray, x2: np.ndarray) -> SimilarityExplanation:
        """Return what words contribute to the cosine of two vectors."""
        return explain_similarity(self.flip, x1, x2)

    def neighbours(self, x: np.ndarray) -> list[Neighbour]:
        """Return the nearest sentences of the corpus, best first."""
        if self.corpus is None:
            return []
        found = []
        for row, cosine in self.corpus.nearest(x, N_NEIGHBOURS):
            result = self.explain(x, np.asarray(self.corpus.X[row], dtype=x.dtype))
            pairs = zip(result.words.tolist(), result.contribution.tolist(), strict=True)
            words = [(word, value) for word, value in pairs if value >= MIN_MATCH][:N_MATCHES]
            found.append(Neighbour(row, self.corpus.texts[row], cosine, words))
        return found

    def edit(self, x: np.ndarray, add: str, remove: str) -> EditedWords:
        """Return a vector to which words have been added, and from which others have been removed.

        Raises
        ------
        ValueError
            If there are no words or too many, or the model cannot edit them.
        """
        added, removed = self._words(add), self._words(remove)
        if not added and not removed:
            raise ValueError("there is no word to add or to remove; write at least one, such as dog, cat.")
        if len(added) + len(removed) > MAX_EDITS:
            raise ValueError(
                f"there are {len(added) + len(removed)} words to add or to remove, and at most {MAX_EDITS} "
                "are allowed; leave some out."
            )
        # Models of other code have no covariance; words can be removed without.
        metric = "whitened" if hasattr(self.flip, "embedding_covariance_") else "auto"
        try:
            return edit_words(self.flip, x[None], add=added, remove=removed, metric=metric)
        except ValueError as error:  # its remedy is for Python
            raise ValueError(str(error).removesuffix(" Pass words of model.vocabulary_.")) from None

    def _words(self, text: str) -> list[str]:
        """Return the words between commas, written as the model writes them."""
        if text.strip():
            check_text(text)
        words = [word for part in text.split(",") if (word := part.strip())]
        spelled = [word if word in self._known else self._clean(word).strip() or word for word in words]
        return list(dict.fromkeys(spelled))

    def check_length(self, n: int, what: str) -> None:
        """Raise ValueError unless the model reads vectors of n numbers."""
        if n != self.n_dimensions:
            raise ValueError(
                f"{what} of {n:,} numbers, and the model reads vectors of {self.n_dimensions:,}; use the "
                "encoder that the model was trained with."
            )

    @staticmethod
    def _check_finite(x: np.ndarray) -> np.ndarray:
        bad = np.flatnonzero(~np.isfinite(x))
        if len(bad):
            raise ValueError(
                f"entry {bad[0]} of the vector (counted from 0) is {x[bad[0]]}; all numbers must be finite."
            )
        return x


def check_text(text: str) -> None:
    """Raise ValueError for a text that is blank, too long, or not valid Unicode."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"the text has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are allowed; shorten it."
        )
    if not text.replace("\0", "").strip():
        raise ValueError("the text is empty; type some words.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start + 1} of the text is half of a pair of surrogates, not valid Unicode; "
            "delete it."
        ) from None


def write_vector(x: Any) -> str:
    """Return a vector as a JSON array with as few digits as tell its numbers apart."""
    return json.dumps([float(str(value)) for value in np.asarray(x)])

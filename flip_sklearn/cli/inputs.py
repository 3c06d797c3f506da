"""Texts and embeddings as the commands read them, checked: whole, or block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flip_sklearn.cli import files, vectors
from flip_sklearn.cli.options import InputFiles
from flip_sklearn.encoders import SentenceEncoder


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

    def take(self, rows: np.ndarray) -> Sentences:
        """Return some of the sentences."""
        X = None if self.X is None else self.X[rows]
        return Sentences([self.texts[i] for i in rows], self.line_indices[rows], self.n_lines, X)


def read_sentences(inputs: InputFiles) -> Sentences:
    """Read texts, and open their embeddings."""
    assert inputs.text is not None
    lines = files.read_texts(inputs.text, inputs.column)
    if inputs.embeddings is not None:
        X = open_embeddings(inputs.embeddings, len(lines))
        return Sentences(lines, np.arange(len(lines)), len(lines), X)
    indices = np.array([i for i, line in enumerate(lines) if line.strip()], dtype=np.intp)
    if not len(indices):
        raise ValueError(f"{inputs.text!r} has only blank lines; it needs one sentence per line.")
    return Sentences([lines[i] for i in indices], indices, len(lines), None)


def open_embeddings(path: str, n_lines: int) -> np.ndarray:
    """Return the embeddings of a file, one per line of text."""
    X = vectors.open_embeddings(path)
    check_row_count(path, len(X), n_lines)
    return X


class Blocks:
    """The blocks of an embeddings file, checked, and the number of rows that have been read."""

    def __init__(self, path: str, n_dimensions: int) -> None:
        self._path = path
        self._n_dimensions = n_dimensions
        self.n_rows = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for X in vectors.read_embedding_blocks(self._path):
            check_dimensions(self._path, X, self._n_dimensions)
            check_finite(X, self.n_rows)
            self.n_rows += len(X)
            yield X


def check_row_count(path: str, n_rows: int, n_lines: int) -> None:
    """Raise ValueError unless there is one embedding per line of text."""
    if n_rows != n_lines:
        raise ValueError(
            f"{path!r} has {n_rows} embeddings, and there are {n_lines} lines of text; row i must "
            "belong to line i."
        )


def check_finite(X: np.ndarray, start: int) -> None:
    """Raise ValueError for NaN and infinity in a block whose first row has the number ``start``."""
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        raise ValueError(
            f"row {start + bad[0]} of the embeddings (counted from 0) has NaN or infinity; leave such rows "
            "out or encode them again."
        )


def check_dimensions(path: str, X: np.ndarray, n_dimensions: int) -> None:
    """Raise ValueError unless a model can read vectors of this length."""
    if X.shape[1] != n_dimensions:
        raise ValueError(
            f"{files.describe(path)} holds vectors of {X.shape[1]} numbers, and the model reads vectors of "
            f"{n_dimensions}; pass embeddings of the encoder that the model was trained with."
        )

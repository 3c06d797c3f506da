"""Words deleted from texts or replaced in them, the new embeddings, and which words these still name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.diagnostics.controls import Occurrences, find_each
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.io import show_progress
from flip_sklearn.metrics import ranking
from flip_sklearn.parameters import check_random_state, short_repr, warn_caller
from flip_sklearn.vocabulary.editing import ConceptEditor

# Number of texts that are encoded, and whose words are ranked, at a time.
_BLOCK = 1024
# Number of rows that are encoded to compare them with X, and the limits of what is rounding to float16.
_N_COMPARED = 4
_MIN_COSINE, _MAX_NORM_RATIO = 0.99, 1.05
# Share of the words that may be missing in the texts before these are taken for other texts.
_MAX_MISSING = 0.1
# Number of replacements that are tried for a word.
_N_TRIES = 5


@dataclass(frozen=True)
class Edits:
    """Edited texts, without repetitions.

    ``deleted`` (P,) is the text without the word of each pair. Swap i replaces the word of pair
    ``swap_pairs[i]`` by the word ``replacements[i]``, in the text ``swapped[i]``.
    """

    texts: list[str]
    deleted: np.ndarray
    swap_pairs: np.ndarray
    replacements: np.ndarray
    swapped: np.ndarray


class TextEdits:
    """Deletion and replacement of the words of pairs in their texts, one text a row.

    ``is_deletable`` (P,) says of which pairs the word can be deleted.
    """

    def __init__(self, editor: ConceptEditor, texts: list[str], pairs: Occurrences) -> None:
        self._editor, self._texts = editor, texts
        found = [editor.find(text) for text in texts]
        keys = list(zip(pairs.rows.tolist(), pairs.words.tolist(), strict=True))
        self._spans = [(found[row] or {}).get(word, []) for row, word in keys]
        self._without = [
            editor.edit(texts[row], spans, word) if spans else None
            for (row, word), spans in zip(keys, self._spans, strict=True)
        ]
        self.is_deletable = np.array([text is not None for text in self._without], dtype=bool)
        self._check_has_words(pairs, [spans is not None for spans in found])

    def _check_has_words(self, pairs: Occurrences, is_located: list[bool]) -> None:
        """Raise if words of the counts are missing in the texts, unless they are few."""
        missing = [i for i, spans in enumerate(self._spans) if not spans and is_located[pairs.rows[i]]]
        if len(missing) > _MAX_MISSING * len(self._spans):
            row, word = pairs.rows[missing[0]], self._editor.names[pairs.words[missing[0]]]
            raise ValueError(
                f"{len(missing)} of {len(self._spans)} words that Y counts are not in their texts, such as "
                f"{word!r} in {short_repr(self._texts[row])}; pass the texts that Y counts, in the same "
                "order, and the vectorizer that counted them."
            )

    def make(
        self, pairs: Occurrences, chosen: np.ndarray, bins: np.ndarray, cells: np.ndarray, seed: int
    ) -> Edits:
        """Edit the texts of the chosen pairs, which are those of the result; ``bins`` is theirs.

        One word of each row and bin is replaced by another word of its cell (V,), -1 for words that are not
        replaced.
        """
        index: dict[str, int] = {}
        deleted = [index.setdefault(str(self._without[i]), len(index)) for i in chosen]
        rng = check_random_state(seed)
        rows = pairs.rows[chosen]
        order = rng.permutation(len(chosen))
        keys = rows * (int(bins.max(initial=0)) + 1) + bins
        swaps = []
        for i in np.sort(order[np.unique(keys[order], return_index=True)[1]]):
            drawn = self._replace(pairs, int(chosen[i]), cells, rng)
            if drawn is not None:
                swaps.append((i, drawn[0], index.setdefault(drawn[1], len(index))))
        return Edits(list(index), np.array(deleted), *np.array(swaps, dtype=np.int64).reshape(-1, 3).T)

    def _replace(
        self, pairs: Occurrences, i: int, cells: np.ndarray, rng: np.random.RandomState
    ) -> tuple[int, str] | None:
        """Replace the word of a pair by a random word of its cell that is not in the row."""
        row, word = int(pairs.rows[i]), int(pairs.words[i])
        if cells[word] < 0:
            return None
        others = np.setdiff1d(np.flatnonzero(cells == cells[word]), pairs.truth[[row]].indices)
        for other in rng.permutation(others)[:_N_TRIES].tolist():
            text = self._editor.edit(self._texts[row], self._spans[i], word, other)
            if text is not None:
                return other, text
        return None


def check_encoders(
    encoder: Any, names: tuple[str, ...] | None, argument: str = "encoder"
) -> dict[str, SentenceEncoder]:
    """The encoder of each view that has one; ``names`` are those of the views, None if X is None."""
    if encoder is None:
        return {}
    if not isinstance(encoder, Mapping):
        if names is not None and len(names) > 1:
            raise ValueError(
                f"{argument} is {short_repr(encoder)}, and there are {len(names)} views; pass a mapping of "
                "views to encoders. A view without an encoder may be left out."
            )
        encoder = {"embeddings" if names is None else names[0]: encoder}
    if not encoder:
        raise ValueError(f"{argument} is an empty mapping; pass an encoder for at least one view, or None.")
    for name in encoder:
        if names is not None and name not in names:
            raise ValueError(
                f"{argument} has the view {name!r}; the views are {', '.join(map(repr, names))}."
            )
    return {name: _as_encoder(given, argument) for name, given in encoder.items()}


def _as_encoder(encoder: Any, argument: str) -> SentenceEncoder:
    """A SentenceEncoder, which checks the vectors that a method or a function returns."""
    if isinstance(encoder, SentenceEncoder):
        return encoder
    if not isinstance(encoder, (str, type)):
        for method in ("transform", "encode"):
            if hasattr(encoder, method):
                return SentenceEncoder(getattr(encoder, method))
        if callable(encoder):
            return SentenceEncoder(encoder)
    raise ValueError(
        f"{argument} is {short_repr(encoder)}; pass a SentenceEncoder, another object with transform or "
        "encode, or a function from a list of texts to an array (n, d)."
    )


def check_encoder(view: str, encoder: SentenceEncoder, texts: list[str], X: Any, n_dimensions: int) -> None:
    """Encode a few texts; raise for another dimension, warn for other vectors than the rows of X."""
    chosen = list({text: i for i, text in reversed(list(enumerate(texts)))}.values())[-_N_COMPARED:]
    vectors = encoder.transform([texts[i] for i in chosen]).astype(np.float64)
    if vectors.shape[1] != n_dimensions:
        raise ValueError(
            f"the encoder of view {view!r} returns {vectors.shape[1]} dimensions, the model reads "
            f"{n_dimensions}; pass the encoder of the embeddings that the model was trained on."
        )
    if X is None:
        return
    rows = np.asarray(X[chosen], dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1), np.linalg.norm(vectors, axis=1)
    tiny = np.finfo(float).tiny
    cosine = (rows * vectors).sum(axis=1) / np.maximum(norms[0] * norms[1], tiny)
    ratio = np.maximum(*norms) / np.maximum(np.minimum(*norms), tiny)
    worst = int(np.argmin(cosine - ratio))
    if cosine[worst] < _MIN_COSINE or ratio[worst] > _MAX_NORM_RATIO:
        warn_caller(
            f"X of view {view!r} is not what the encoder returns for the texts: cosine {cosine[worst]:.3f}, "
            f"norms {norms[0][worst]:.3g} and {norms[1][worst]:.3g}, for {short_repr(texts[chosen[worst]])}. "
            "Recall with the word and after its deletion are then not comparable; pass X=None to encode the "
            "texts, or the same normalization and prompt."
        )


def encode_blocks(
    view: str, encoder: SentenceEncoder, texts: list[str], verbose: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the embeddings of texts, block by block, and the number of the first text of a block."""
    bar = show_progress(total=len(texts), desc=f"selectivity, {view}", unit="text", disable=not verbose)
    with bar:
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            yield start, encoder.transform(block)
            bar.update(len(block))


@dataclass(frozen=True)
class EditedRecall:
    """What a model reads from the embeddings of edited texts of one view.

    ``found`` (2, P): whether a deleted word is among the k best words, with bias and without, k as before
    the deletion. ``is_right`` (S,): whether the score of a word over its replacement falls with the swap, .5
    for no change.
    """

    found: np.ndarray
    is_right: np.ndarray


def recall_after_edits(
    model: FLiPExtractor,
    view: str,
    encoder: SentenceEncoder,
    edits: Edits,
    pairs: Occurrences,
    X: np.ndarray,
    verbose: int,
) -> EditedRecall:
    """Encode the edited texts and rank their words. X (n, d) has the embeddings before the edits."""
    found = np.zeros((2, len(edits.deleted)), dtype=bool)
    before = pairs.take(edits.swap_pairs)
    change = score_gap(model, X[before.rows], before.words, edits.replacements)
    for start, vectors in encode_blocks(view, encoder, edits.texts, verbose):
        stop = start + len(vectors)
        chosen = np.flatnonzero((edits.deleted >= start) & (edits.deleted < stop))
        part, E = pairs.take(chosen), vectors[edits.deleted[chosen] - start]
        for i, bias in enumerate((True, False)):
            found[i, chosen] = find_each(model, E, part.words, part.n_row_words, bias)
        swaps = np.flatnonzero((edits.swapped >= start) & (edits.swapped < stop))
        E = vectors[edits.swapped[swaps] - start]
        change[swaps] -= score_gap(model, E, before.words[swaps], edits.replacements[swaps])
    return EditedRecall(found, np.heaviside(change, 0.5))


def score_gap(model: FLiPExtractor, X: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Score of a first word minus that of a second one, which differ from row to row, in nats."""
    gap = np.zeros(len(X))
    if len(X):
        for rows, scores in ranking.score_blocks(model, X, len(model.vocabulary_)):
            i = np.arange(len(rows))
            gap[rows] = scores[i, first[rows]].astype(np.float64) - scores[i, second[rows]]
    return gap

"""Sentences of the report on words that are read and words that are guessed."""

from __future__ import annotations

import numpy as np

from flip_sklearn.diagnostics import Selectivity
from flip_sklearn.report.wording import listed, number, percent, quoted, share, spelled_bands, times

# Index of scores with the bias, and of all words together.
_WITH_BIAS, _WITHOUT, _ALL = 0, 1, -1


def guessing_texts(result: Selectivity) -> list[tuple[str, bool]]:
    """Sentences about each view, and whether they belong to the summary."""
    texts: list[tuple[str, bool]] = []
    for v, view in enumerate(result.views):
        texts.append((_overall_text(result, v, f"Tested on {quoted(view)},"), True))
        by_count = _by_count(result, v)
        if by_count:
            start = (
                f"Tested on {quoted(view)}, words found without being in the sentence, of the words found:"
            )
            texts.append((f"{start} {by_count} in the training sentences.", True))
        texts.append((_without_bias_text(result, v, view), False))
        texts.append((_pairs_text(result, v, view), False))
    return texts


def _overall_text(result: Selectivity, v: int, start: str) -> str:
    assert result.recall_deleted is not None
    assert result.held is not None
    assert result.guessed is not None
    index = _WITH_BIAS, v, _ALL
    before, after = share(result.recall, *index), share(result.recall_deleted, *index)
    text = (
        f"{start} {before} of the words of a sentence are found, and {after} after the word was deleted from "
        "the sentence and this was embedded again"
    )
    if not result.held.significant[index] or result.held.value[index] < 0:
        return (
            f"{text}. That is not significantly less, so it does not show that words are read, not guessed."
        )
    return (
        f"{text}. Of the words found, {share(result.guessed, *index)} are found without being in the "
        "sentence, so they may be guessed from its other words; the rest is read off the embedding."
    )


def _by_count(result: Selectivity, v: int) -> str:
    """The share of the words found that is guessed, by count in training."""
    assert result.guessed is not None
    parts = []
    for b, (band, counts) in enumerate(zip(result.bands, spelled_bands(result), strict=True)):
        index = _WITH_BIAS, v, b
        if str(band) != "0" and np.isfinite(result.guessed.value[index]):
            parts.append(f"{share(result.guessed, *index)} of words that occur {times(counts)}")
    return listed(parts) if len(parts) > 1 else ""


def _without_bias_text(result: Selectivity, v: int, view: str) -> str:
    assert result.recall_deleted is not None
    index = _WITHOUT, v, _ALL
    return (
        f"Tested on {quoted(view)} without the bias, {share(result.recall, *index)} of the words are found, "
        f"and {share(result.recall_deleted, *index)} after their deletion."
    )


def _pairs_text(result: Selectivity, v: int, view: str) -> str:
    assert result.pair_accuracy is not None
    assert result.pairs is not None
    accuracy = share(result.pair_accuracy, v, _ALL)
    return (
        f"Of {number(result.pairs[_ALL])} pairs of sentences that differ in one word of about the same "
        f"frequency, the embedding of {quoted(view)} tells which one has which word in {accuracy}; "
        f"{percent(0.5)} is chance."
    )

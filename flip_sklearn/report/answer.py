"""The sentence that opens the page: what the encoder keeps and loses, with numbers of the page."""

from __future__ import annotations

import numpy as np

from flip_sklearn.diagnostics import WordRecoverability
from flip_sklearn.report.findings import WEAK, views_at_baseline
from flip_sklearn.report.results import Results
from flip_sklearn.report.wording import listed, percent, quoted, spelled_bands, times

# With more views, only the best and the worst are named.
_MAX_VIEWS = 3


def make_answer(results: Results, encoder: str | None) -> str:
    """Answer the question of the page: what does the encoder keep, what does it lose?

    The numbers have no intervals, which are in the tables, so that the sentence stays short.
    """
    name = "the encoder" if encoder is None else encoder
    accuracy, at_baseline = results.extractors.accuracy.value, views_at_baseline(results.extractors)
    order = np.argsort(-accuracy[0], kind="stable")
    kept = [int(v) for v in order if results.extractors.views[v] not in at_baseline]
    baseline = percent(accuracy[-1, 0])
    if not kept:
        return (
            f"This page does not show that {name} keeps words: a model finds {percent(accuracy[0].max())} of "
            f"a sentence's words at best, and always naming the most frequent words finds {baseline}."
        )
    has_names = len(results.extractors.views) > 1
    ends = [kept[0], kept[-1]] if len(kept) > _MAX_VIEWS else kept
    where = {v: f" in {quoted(results.extractors.views[v])}" if has_names else "" for v in ends}
    found = listed((percent(accuracy[0, v]) + where[v] for v in ends), "and" if ends is kept else "down to")
    # The best view is named first: if it is weak, all are.
    is_weak = accuracy[0, kept[0]] - accuracy[-1, 0] < WEAK
    alone = f"hardly less, {baseline}" if is_weak else baseline
    no_more = f", and no more is found in {listed(map(quoted, at_baseline))}" if at_baseline else ""
    best = results.recoverability[results.extractors.views[kept[0]]]
    return (
        f"Of a sentence's words, {name} keeps {found} (always naming the most frequent words finds {alone}"
        f"{no_more}); the others are lost{_lost_most(best, where[kept[0]])}."
    )


def _lost_most(result: WordRecoverability, where: str) -> str:
    """The band with the lowest recall, and the one with the highest, if they differ from all words."""
    recall, difference = result.band_recall, result.band_difference
    differs = difference.significant & (np.array(result.bands, dtype=object) != "0")
    lower = np.flatnonzero(differs & (difference.value < 0))
    higher = np.flatnonzero(differs & (difference.value > 0))
    if not len(lower):
        return ""
    counts = spelled_bands(result)
    lowest = int(lower[recall.value[lower].argmin()])
    text = (
        f", most often words that occur {times(counts[lowest])} in the training sentences "
        f"({percent(recall.value[lowest])} found{where})"
    )
    if len(higher):
        highest = int(higher[recall.value[higher].argmax()])
        text += f", least often words that occur {times(counts[highest])} ({percent(recall.value[highest])})"
    return text

"""What the figures say, in plain words: every sentence follows from a result by a rule.

A difference is called one only where its interval leaves out 0, and is always given with the interval.
Where a reading cannot be told from always guessing the most frequent words, nothing else is said of it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.report.wording import (
    change,
    listed,
    number,
    percent,
    points,
    quoted,
    share,
    size,
    spelled,
)

# A reading that beats guessing by less than this share of a sentence's words is called a weak one.
WEAK = 0.05
# Views whose pairs are told one by one; of more, a sentence sums them up.
_TOLD_SINGLY = 3
# Of the numbers of words at which names are looked for, the one nearest to this is told.
_NAMES_AT = 10


@dataclass(frozen=True)
class Finding:
    """One sentence of the report.

    Attributes
    ----------
    about : str
        The result that it follows from: the name of a field of :class:`Diagnosis`.
    text : str
        The sentence, in plain words.
    main : bool
        Whether it stands at the top of the page, too.
    """

    about: str
    text: str
    main: bool = True


def alignment_findings(result: Any) -> list[Finding]:
    """Of a ViewAlignment: what each model finds at home, and what it loses in the other views."""
    found = []
    home = [
        _against_guessing(result.accuracy, result.baseline, i, i) for i in range(len(result.views))
    ]
    for i, view in enumerate(result.views):
        start = f"Trained on {quoted(view)} and reading it, the model finds"
        found.append(_reading(start, home[i], result.accuracy, result.baseline, (i, i)))
    told = [i for i, standing in enumerate(home) if standing != "guess"]
    pairs = [(i, j) for i in told for j in range(len(result.views)) if i != j]
    if len(result.views) <= _TOLD_SINGLY:
        found += [_pair(result, i, j) for i, j in pairs]
        found += [_same_words(result, i, j) for i, j in pairs]
    elif pairs:
        found.insert(0, _all_pairs(result, pairs))
    return [Finding("alignment", text, "in both" not in text) for text in found]


def _pair(result: Any, i: int, j: int) -> str:
    model, view = quoted(result.views[i]), quoted(result.views[j])
    if result.difference.significant[i, j]:
        instead = f"{percent(result.accuracy.value[i, j])} of the words instead of " + percent(
            result.accuracy.value[i, i]
        )
        amount = size(result.difference, i, j)
        if result.difference.value[i, j] < 0:
            text = f"The model trained on {model} loses {amount} when it reads {view}: {instead}."
        else:
            text = (
                f"The model trained on {model} even gains {amount} when it reads {view}: {instead}."
            )
    else:
        text = (
            f"The model trained on {model} reads {view} with no difference that can be told: "
            f"{change(result.difference, i, j)}."
        )
    if _against_guessing(result.accuracy, result.baseline, i, j) == "guess":
        text += f" That {_not_above(result.accuracy, result.baseline, i, j)}."
    return text


def _same_words(result: Any, i: int, j: int) -> str:
    return (
        f"Of the words of a sentence that the model trained on {quoted(result.views[i])} finds there or in "
        f"{quoted(result.views[j])}, it finds {share(result.jaccard, i, j)} in both."
    )


def _all_pairs(result: Any, pairs: list[tuple[int, int]]) -> str:
    sure = [p for p in pairs if result.difference.significant[p]]
    losses = [p for p in sure if result.difference.value[p] < 0]
    text = (
        f"Of {number(len(pairs))} readings of a view by a model that was trained on another one, "
        f"{number(len(losses))} find less than the model finds at home and "
        f"{number(len(sure) - len(losses))} more; for {number(len(pairs) - len(sure))} no difference can "
        "be told."
    )
    if losses:
        i, j = min(losses, key=lambda p: float(result.difference.value[p]))
        text += (
            f" The largest loss is that of the model trained on {quoted(result.views[i])} when it reads "
            f"{quoted(result.views[j])}: {size(result.difference, i, j)}."
        )
    return text


def preference_findings(result: Any) -> list[Finding]:
    """Of a VocabularyPreference: from which view the words of each language are read best."""
    found = []
    for row, language in enumerate(result.languages):
        best = int(np.argmax(result.accuracy.value[row]))
        own = result.views.index(result.reference[row])
        floor = _row(result.baseline, row)
        start = f"Reading {quoted(result.views[own])}, one model of all views finds"
        standing = _against_guessing(result.accuracy, floor, row, own)
        what = f"a sentence's words of {quoted(language)}"
        found.append(_reading(start, standing, result.accuracy, floor, (row, own), what))
        if _against_guessing(result.accuracy, floor, row, best) == "guess":
            continue
        others = [j for j in range(len(result.views)) if j != own]
        for sign, verb in ((1, "more"), (-1, "less")):
            sure = [
                f"{size(result.difference, row, j)} {verb} from {quoted(result.views[j])}"
                for j in others
                if result.difference.significant[row, j]
                and sign * result.difference.value[row, j] > 0
            ]
            if sure:
                found.append(f"Of the words of {quoted(language)}, it finds {listed(sure)}.")
        open_ = [
            f"{quoted(result.views[j])} ({change(result.difference, row, j, bare=True)})"
            for j in others
            if not result.difference.significant[row, j]
        ]
        if open_:
            found.append(
                f"For words of {quoted(language)}, no difference to {quoted(result.views[own])} can be "
                f"told when they are read from {listed(open_)}."
            )
    return [Finding("preference", text) for text in found]


def recoverability_findings(view: str, result: Any, *, blind: bool) -> list[Finding]:
    """Of a WordRecoverability by frequency: which words are found more often than all together.

    ``blind`` says that the view cannot be told from guessing; it then tells nothing of words, either.
    """
    found = [
        f"Read from {quoted(view)}, {share(result.overall)} of the occurrences of words are found, all "
        "words together."
    ]
    if blind:
        found[0] += " Guessing does as well, so which words they are tells nothing of the view."
        return [Finding("recoverability", found[0])]
    groups: dict[str, list[str]] = {"more often": [], "less often": [], "open": [], "guessed": []}
    for b, band in enumerate(result.bands):
        if str(band) == "0":
            continue  # that words which training never saw are not found is no finding
        if not np.isfinite(result.band_difference.low[b] + result.band_difference.high[b]):
            continue  # too rare for an interval
        which = "open"
        if result.band_difference.significant[b]:
            which = "more often" if result.band_difference.value[b] > 0 else "less often"
        amount = size if which != "open" else change
        times = f"{spelled(band)} times"
        groups[which].append(f"{times} ({amount(result.band_difference, b, bare=True)})")
        guess = result.band_baseline
        if guess is not None and not result.band_recall.low[b] > guess.high[b]:
            read = share(result.band_recall, b, bare=True)
            groups["guessed"].append(f"{times} ({read}; guessed {share(guess, b, bare=True)})")
    if len(result.bands) > 1:
        start = f"Read from {quoted(view)}, words that are so often in the training text"
        for which in ("less often", "more often"):
            if groups[which]:
                found.append(f"{start} are found {which} than all words: {listed(groups[which])}.")
        if groups["open"]:
            found.append(
                f"Read from {quoted(view)}, no difference to all words can be told for words that are so "
                f"often in the training text: {listed(groups['open'])}."
            )
    if groups["guessed"]:
        found.append(
            f"Read from {quoted(view)}, no gain over guessing the most frequent words shows for words that "
            f"are so often in the training text: {listed(groups['guessed'])}."
        )
    return [Finding("recoverability", text, main="less often" in text) for text in found]


def entity_findings(result: Any, *, blind: Collection[str]) -> list[Finding]:
    """Of an EntityRecallCurve: what leaving out the bias does for names.

    ``blind`` names the views that cannot be told from guessing; of their names nothing is said.
    """
    at = int(np.argmin(np.abs(np.log(np.asarray(result.ks) / _NAMES_AT))))
    k, found = int(result.ks[at]), []
    words = "best word" if k == 1 else f"{k} best words"
    for v, view in enumerate(result.views):
        if view in blind:
            continue
        start = (
            f"Read from {quoted(view)}, {share(result.recall_strict, 1, v, at)} of a sentence's names are "
            f"among the {words} without the bias"
        )
        if not result.difference.significant[v, at]:
            end = f"no difference to the words with it can be told: {change(result.difference, v, at)}"
        else:
            more = "more" if result.difference.value[v, at] > 0 else "less"
            end = f"{size(result.difference, v, at)} {more} than with it"
        found.append(f"{start}; {end}.")
    if result.n_out_of_vocabulary:
        found.append(
            f"{number(result.n_out_of_vocabulary)} of {number(result.n_names)} names have a word that the "
            "models do not know, so that they can never be found."
        )
    return [Finding("entities", text) for text in found]


def rank_findings(result: Any) -> list[Finding]:
    """Of a RankAnalysis: the lowest rank from which on no loss can be told."""
    found, last = [], len(result.ranks) - 1
    for v, view in enumerate(result.views):
        start = f"Read from {quoted(view)},"
        if _against_guessing(result.accuracy, result.baseline, last, v) == "guess":
            found.append(
                _reading(
                    f"{start} {result.labels[last]} finds", "guess", result.accuracy, result.baseline,
                    (last, v),
                )
            )  # fmt: skip
            continue
        difference = result.difference
        loses = difference.significant[:last, v] & (difference.value[:last, v] < 0)
        gains = np.flatnonzero(difference.significant[:last, v] & (difference.value[:last, v] > 0))
        enough = int(np.flatnonzero(loses)[-1]) + 1 if loses.any() else 0
        target = result.labels[last]
        if last == 0:
            found.append(f"{start} {target} finds {share(result.accuracy, 0, v)} of the words.")
        elif enough == last:
            least = int(np.argmax(difference.value[:last, v]))
            found.append(
                f"{start} every rank tried finds less than {target}; the one with the smallest loss is "
                f"{result.labels[least]}, with {size(difference, least, v)}."
            )
        else:
            found.append(
                f"{start} {result.labels[enough]} is the lowest from which on no loss against {target} "
                f"can be told ({change(difference, enough, v, bare=True)}); it has "
                f"{number(result.n_parameters[enough])} numbers, {target} has "
                f"{number(result.n_parameters[last])}."
            )
        if len(gains):
            best = int(gains[np.argmax(difference.value[gains, v])])
            found.append(
                f"{start} {result.labels[best]} finds {size(difference, best, v)} more than {target}."
            )
    return [Finding("ranks", text) for text in found]


def extractor_findings(result: Any) -> list[Finding]:
    """Of an ExtractorComparison: the first method beside each other one, and beside guessing."""
    found, first, last = [], result.extractors[0], len(result.extractors) - 1
    blind = blind_views(result)
    for v, view in enumerate(result.views):
        start = f"Read from {quoted(view)}, {first} finds"
        if view in blind:
            verdict = (
                "is less than" if result.difference.significant[last, v] else "cannot be told from"
            )
            found.append(
                f"{start} {share(result.accuracy, 0, v)} of a sentence's words. That {verdict} always "
                f"guessing the most frequent words ({share(result.accuracy, last, v, bare=True)})."
            )
            continue
        parts = []
        for e in range(1, last):
            if not result.difference.significant[e, v]:
                amount = change(result.difference, e, v, bare=True)
                parts.append(f"for {result.extractors[e]} no difference can be told ({amount})")
            else:
                more = "more" if result.difference.value[e, v] > 0 else "less"
                parts.append(f"{result.extractors[e]} finds {size(result.difference, e, v)} {more}")
        parts.append(
            f"guessing the most frequent words finds {size(result.difference, last, v)} less"
        )
        found.append(
            f"{start} {share(result.accuracy, 0, v)} of a sentence's words; {'; '.join(parts)}."
        )
    return [Finding("extractors", text) for text in found]


def blind_views(result: Any) -> tuple[str, ...]:
    """Of an ExtractorComparison: the views off which the first method reads no more than guessing finds."""
    floor = result.difference
    sees = floor.significant[-1] & (floor.value[-1] < 0)
    return tuple(view for view, seen in zip(result.views, sees, strict=True) if not seen)


def _against_guessing(accuracy: Any, floor: Any, *at: int) -> str:
    """ "guess" where the intervals meet or the reading lies below, "weak" a little above, else "clear"."""
    if not accuracy.low[at] > floor.high:
        return "guess"
    return "weak" if accuracy.value[at] - floor.value < WEAK else "clear"


def _reading(
    start: str,
    standing: str,
    accuracy: Any,
    floor: Any,
    at: tuple[int, ...],
    what: str = "a sentence's words",
) -> str:
    """The accuracy of one reading, beside guessing."""
    reading = f"{start} {share(accuracy, *at)} of {what}"
    if standing == "clear":
        return f"{reading}; always guessing the most frequent words finds {share(floor)}."
    if standing == "weak":
        above = points(accuracy.value[at] - floor.value)
        return (
            f"{reading}, only {above} above always guessing the most frequent words "
            f"({share(floor, bare=True)}): little can be read here."
        )
    return f"{reading}. That {_not_above(accuracy, floor, *at)}: that it reads the view at all does not show."


def _not_above(accuracy: Any, floor: Any, *at: int) -> str:
    """What is to be said of a reading that does not beat guessing."""
    verdict = "is less than" if accuracy.high[at] < floor.low else "cannot be told from"
    return f"{verdict} always guessing the most frequent words ({share(floor, bare=True)})"


def _row(mean: Any, row: int) -> Any:
    """One entry of an interval, as an interval without axes."""
    return type(mean)(mean.value[row], mean.low[row], mean.high[row])

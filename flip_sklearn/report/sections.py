"""What stands under each heading of the page: findings, pictures and tables of one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.report.findings import Finding
from flip_sklearn.report.pictures import Picture, picture
from flip_sklearn.report.wording import NOT_KNOWN, change, number, percent, quoted, share, spelled

# Words of each kind in the lists of words kept and lost.
_LISTED = 15
# Width and height of a picture with lines, in inches.
_CURVE = (6.4, 4.2)
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table as texts; the first ``n_heads`` cells of a row name it, the others are figures or prose."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_heads: int = 1
    figures: bool = True


@dataclass(frozen=True)
class WordList:
    """Words with the sentences in which each was found."""

    title: str
    words: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Block:
    """A picture with the table of its figures, and lists of words; with a heading where there are several."""

    picture: Picture
    table: Table
    title: str | None = None
    lists: tuple[WordList, ...] = ()


@dataclass(frozen=True)
class Section:
    """One heading with all that stands under it."""

    id: str
    title: str
    lead: str
    findings: tuple[str, ...]
    blocks: tuple[Block, ...]


def sections(results: Mapping[str, Any], findings: Sequence[Finding]) -> list[Section]:
    """The sections of the results there are, in the order of the page."""
    makers = {
        "alignment": _alignment,
        "preference": _preference,
        "recoverability": _recoverability,
        "entities": _entities,
        "ranks": _ranks,
        "extractors": _extractors,
    }
    made = []
    for name, maker in makers.items():
        if results[name] is not None:
            told = tuple(finding.text for finding in findings if finding.about == name)
            made.append(maker(results[name], told))
    return made


def _alignment(result: Any, findings: tuple[str, ...]) -> Section:
    columns = (
        "Trained on", "Read from", "Words found", "Difference to its own view", "Told apart",
        "Same words found",
    )  # fmt: skip
    rows = tuple(
        (
            trained_on,
            read_from,
            share(result.accuracy, i, j),
            *_difference(result.difference, (i, j), i == j),
            share(result.jaccard, i, j) if i != j else NOTHING,
        )
        for i, trained_on in enumerate(result.views)
        for j, read_from in enumerate(result.views)
    )
    drawn = picture(
        "AlignmentDisplay",
        result,
        alt="Heat map: share of a sentence's words found, one row for each view that a model was trained "
        "on, one column for each view that it reads. The table below has the same figures.",
        caption="Share of a sentence's words found, by the view trained on and the view read.",
        size=_heat_map(len(result.views), len(result.views)),
    )
    return Section(
        "alignment",
        "Do the views agree?",
        "One model was trained on each view and then read every view. A model that reads another view as "
        "well as its own shows that both keep words in the same way.",
        findings,
        (Block(drawn, Table("Words found by each model in each view", columns, rows, n_heads=2)),),
    )


def _preference(result: Any, findings: tuple[str, ...]) -> Section:
    columns = ("Words of", "Read from", "Words found", "Difference", "Told apart", "Compared with")
    rows = tuple(
        (
            language,
            view,
            share(result.accuracy, i, j),
            *_difference(result.difference, (i, j), view == result.reference[i]),
            result.reference[i],
        )
        for i, language in enumerate(result.languages)
        for j, view in enumerate(result.views)
    )
    drawn = picture(
        "AlignmentDisplay",
        result,
        alt="Heat map: share of a sentence's words found, one row for each language of the words, one "
        "column for each view that is read. The table below has the same figures.",
        caption="Share of a sentence's words found, by the language of the words and the view read.",
        size=_heat_map(len(result.languages), len(result.views)),
    )
    return Section(
        "preference",
        "Whose words does each view give away?",
        "For each language one model was trained on all views at once to read the words of that language. "
        "Where a language's words are read best from the view of another one, the encoder prefers that.",
        findings,
        (
            Block(
                drawn, Table("Words of each language found in each view", columns, rows, n_heads=2)
            ),
        ),
    )


def _recoverability(results: Mapping[str, Any], findings: tuple[str, ...]) -> Section:
    return Section(
        "recoverability",
        "Which words are kept, which are lost?",
        "How often a word is found in the test sentences that have it, by a model that was trained on all "
        "views. Frequent words are found more easily: the model may guess them. The lists name words that "
        "are in at least 5 test sentences, with how often they were found; their order allows for chance.",
        findings,
        tuple(_words_of(view, result, len(results) > 1) for view, result in results.items()),
    )


def _words_of(view: str, result: Any, several: bool) -> Block:
    """The words kept and lost by one view."""
    columns = (
        "Times in training", "Words", "Occurrences", "Found", "Found by guessing", "Difference to all",
        "Told apart",
    )  # fmt: skip
    guess = result.band_baseline
    bands = tuple(
        (
            spelled(band),
            number(result.band_words[b]),
            number(result.band_occurrences[b]),
            share(result.band_recall, b),
            NOTHING if guess is None else share(guess, b),
            *_difference(result.band_difference, (b,), len(result.bands) == 1),
        )
        for b, band in enumerate(result.bands)
    )
    sums = (number(result.band_words.sum()), number(result.band_occurrences.sum()))
    total = ("all", *sums, share(result.overall), NOTHING, NOTHING, NOTHING)
    column = {word: j for j, word in enumerate(result.words)}
    hits, count = result.test_hits, result.test_count
    lists = tuple(
        WordList(
            f"Read {kind} from {quoted(view)}",
            tuple((word, f"{hits[column[word]]} of {count[column[word]]}") for word in words),
        )
        for kind, words in (("best", result.kept(_LISTED)), ("worst", result.lost(_LISTED)))
    )
    what = f"Read from {quoted(view)}: words found, by how often they were in training"
    drawn = picture(
        "RecoverabilityDisplay",
        result,
        alt=f"Read from {view}: share of a word's occurrences that are found against how often the word "
        "was in training. The table below has the same figures for groups of words.",
        caption=what + ".",
        size=_CURVE,
    )
    title = f"Read from {quoted(view)}" if several else None
    return Block(drawn, Table(what, columns, (*bands, total)), title, lists)


def _entities(result: Any, findings: tuple[str, ...]) -> Section:
    columns = (
        "Read from", "Words looked at", "With bias", "Without bias", "Difference", "Told apart",
    )  # fmt: skip
    rows = tuple(
        (
            view,
            number(k),
            share(result.recall_strict, 0, v, i),
            share(result.recall_strict, 1, v, i),
            *_difference(result.difference, (v, i), False),
        )
        for v, view in enumerate(result.views)
        for i, k in enumerate(result.ks)
    )
    drawn = picture(
        "EntityCurveDisplay",
        result,
        alt="Lines: share of a sentence's names found against the number of words looked at, with the bias "
        "and without. The table below has the same figures.",
        caption="Share of a sentence's names found, by the number of words looked at.",
        size=_CURVE,
    )
    named = result.n_sentences - result.n_skipped
    return Section(
        "entities",
        "Are names found?",
        "Names are rare, and a model that knows how frequent words are ranks them behind frequent words. "
        "Without this knowledge (the bias), they rise. A name counts as found when all of its words are "
        f"among the words read. Of {number(result.n_sentences)} test sentences, {number(named)} have "
        f"names; with all the words that the models know, {percent(result.ceiling)} of a sentence's names "
        "could be found.",
        findings,
        (Block(drawn, Table("Names found among the best words", columns, rows, n_heads=2)),),
    )


def _ranks(result: Any, findings: tuple[str, ...]) -> Section:
    last = len(result.ranks) - 1
    sizes = tuple(map(number, result.n_parameters))
    return Section(
        "ranks",
        "How many dimensions do the words need?",
        "The model, trained on all views, reads words through a bottleneck of a number of dimensions, its "
        f"rank. LiP is the same model without the bottleneck. Differences are to {result.labels[last]}.",
        findings,
        (
            Block(
                picture(
                    "RankCurveDisplay",
                    result,
                    alt="Lines: share of a sentence's words found against the rank, one line for each view. "
                    "The table below has the same figures.",
                    caption="Share of a sentence's words found, by the rank of the model.",
                    size=_CURVE,
                ),
                _models("Words found at each rank", "Model", result.labels, result, last, sizes),
            ),
        ),
    )


def _extractors(result: Any, findings: tuple[str, ...]) -> Section:
    bars = len(result.extractors) * len(result.views)
    return Section(
        "extractors",
        "Would another method read more?",
        "Every method was trained on all views and read the same test sentences with the same vocabulary. "
        f"Always guessing the most frequent words is the floor. Differences are to {result.extractors[0]}.",
        findings,
        (
            Block(
                picture(
                    "ExtractorDisplay",
                    result,
                    alt="Bars: share of a sentence's words found by each method in each view. The table "
                    "below has the same figures.",
                    caption="Share of a sentence's words found, by method.",
                    size=(6.4, 1.0 + 0.28 * bars + 0.15 * len(result.extractors)),
                ),
                _models("Words found by each method", "Method", result.extractors, result, 0),
            ),
        ),
    )


def _models(
    caption: str,
    what: str,
    names: Sequence[str],
    result: Any,
    reference: int,
    sizes: Sequence[str] | None = None,
) -> Table:
    """Accuracies of models on views, one row for each pair."""
    extra = () if sizes is None else ("Numbers in it",)
    rows = tuple(
        (
            name,
            view,
            *(() if sizes is None else (sizes[m],)),
            share(result.accuracy, m, v),
            *_difference(result.difference, (m, v), m == reference),
        )
        for m, name in enumerate(names)
        for v, view in enumerate(result.views)
    )
    columns = (what, "Read from", *extra, "Words found", "Difference", "Told apart")
    return Table(caption, columns, rows, n_heads=2)


def _difference(difference: Any, at: tuple[int, ...], reference: bool) -> tuple[str, str]:
    """A difference with its interval, and whether the two can be told apart."""
    if reference:
        return NOTHING, NOTHING
    if not np.isfinite(difference.low[at] + difference.high[at]):
        return change(difference, *at), NOT_KNOWN
    if not difference.significant[at]:
        return change(difference, *at), "no"
    return change(difference, *at), "yes, more" if difference.value[at] > 0 else "yes, less"


def _heat_map(n_rows: int, n_columns: int) -> tuple[float, float]:
    """Width and height of a heat map, in inches."""
    return min(3.0 + 1.1 * n_columns, 8.5), min(1.2 + 0.8 * n_rows, 8.0)

"""Sections of the page: findings, pictures and tables of each result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn import diagnostics, plots
from flip_sklearn.diagnostics.bootstrap import Difference
from flip_sklearn.diagnostics.comparison import BASELINE
from flip_sklearn.estimation.directions import DirectionWords
from flip_sklearn.io import show_progress
from flip_sklearn.report.directions import ViewChange, ViewDirections
from flip_sklearn.report.pictures import Picture, draw_picture
from flip_sklearn.report.results import Results
from flip_sklearn.report.sets import ComparedSentences
from flip_sklearn.report.wording import NOT_KNOWN, change, number, percent, quoted, share, spelled_bands

# Number of words in the lists of words with the highest and the lowest recall.
_N_LISTED = 15
# Width and height of line plots, in inches.
_LINE_PLOT = (6.4, 4.2)
NO_VALUE = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """Cells of a table as text; the first ``n_heads`` cells of a row are its header.

    ``is_numeric`` says whether the other cells are numbers, which are not wrapped.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_heads: int = 1
    is_numeric: bool = True


@dataclass(frozen=True)
class WordList:
    """Words, each with the number of sentences in which it was found."""

    title: str
    words: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Block:
    """A picture, the table of its values, other tables, and lists of words.

    It has a title if the section has several blocks.
    """

    picture: Picture
    table: Table
    more_tables: tuple[Table, ...] = ()
    title: str | None = None
    lists: tuple[WordList, ...] = ()


@dataclass(frozen=True)
class Section:
    """A section of the page; ``id`` is the field of the results that it is about."""

    id: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


def make_sections(results: Results, verbose: int = 0) -> list[Section]:
    """The sections of all results that exist, in the order of the page; a bar shows the drawing."""
    makers: list[tuple[Any, Callable[[Any], Section]]] = [
        (results.alignment, _alignment),
        (results.view_gap, _view_gap),
        (results.preference, _preference),
        (results.recoverability, _recoverability),
        (results.selectivity, _selectivity),
        (results.rare_words, _rare_words),
        (results.sets, _sets),
        (results.entities, _entities),
        (results.ranks, _ranks),
        (results.directions, _directions),
        (results.extractors, _extractors),
    ]
    existing = [(result, make_section) for result, make_section in makers if result is not None]
    bar = show_progress(existing, desc="page", unit="section", disable=not verbose)
    return [make_section(result) for result, make_section in bar]


def _alignment(result: diagnostics.ViewAlignment) -> Section:
    columns = (
        "Trained on",
        "Tested on",
        "Words found",
        "Difference to its own view",
        "Significant",
        "Same words found",
    )
    rows = tuple(
        (
            trained_on,
            read_from,
            share(result.accuracy, i, j),
            *_difference(result.difference, (i, j), i == j),
            share(result.jaccard, i, j) if i != j else NO_VALUE,
        )
        for i, trained_on in enumerate(result.views)
        for j, read_from in enumerate(result.views)
    )
    caption = "Share of a sentence's words found, by the view trained on and the view tested on."
    picture = _heat_map(result, len(result.views), caption)
    return Section(
        "alignment",
        "Do the views agree?",
        "One model was trained on each view and tested on every view. If a model finds as many words in "
        "another view as in its own, the two views encode words in the same way.",
        (
            Block(
                picture,
                Table("Words found by each model in each view", columns, rows, n_heads=2),
                more_tables=_own_views(result),
            ),
        ),
    )


def _view_gap(result: diagnostics.ViewGap) -> Section:
    columns = ("Model of", "Tested on", "Words found", "All that is lost", *map(str.capitalize, result.parts))
    rows = tuple(
        (
            *result.pairs[p],
            share(result.accuracy, p, result.readings.index("raw")),
            change(result.loss, p),
            *(change(result.difference, p, i) for i in range(len(result.parts))),
        )
        for p in range(len(result.pairs))
    )
    picture = draw_picture(
        plots.ViewGapDisplay,
        result,
        kind="Bars in steps",
        caption="Share of a sentence's words found in another view, and the parts of what is lost there.",
        size=(7.2, min(1.9 + 0.8 * len(result.pairs), 16.0)),
    )
    return Section(
        "view_gap",
        "What separates the views?",
        f"The model trained on {quoted(result.pairs[0][0])} reads the embeddings of another view as they "
        "are, with the mean of the view moved to its own (this removes a shift), after a rotation, and after "
        "any linear map. Means and maps are those of the training sentences. What a step gains is a part of "
        "the loss; what no step gains is lost in the other view, or encoded in another form.",
        (Block(picture, Table("Parts of what the model loses on another view", columns, rows, n_heads=2)),),
    )


def _own_views(result: diagnostics.ViewAlignment) -> tuple[Table, ...]:
    """Accuracy of each model on its own view, and its difference to the first one."""
    if result.own_view_difference is None:
        return ()
    first = quoted(result.views[0])
    rows = tuple(
        (view, share(result.accuracy, j, j), *_difference(result.own_view_difference, (0, j), j == 0))
        for j, view in enumerate(result.views)
    )
    columns = ("Trained and tested on", "Words found", f"Difference to {first}", "Significant")
    return (Table("Words found in each view by its own model", columns, rows),)


def _preference(result: diagnostics.VocabularyPreference) -> Section:
    columns = ("Words of", "Tested on", "Words found", "Difference", "Significant", "Compared with")
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
    caption = "Share of a sentence's words found, by the language of the words and the view."
    picture = _heat_map(result, len(result.languages), caption)
    return Section(
        "preference",
        "Which language does each view prefer?",
        "For each language one model of the words of that language was trained on all views at once. If the "
        "words of a language are found best in the view of another language, the encoder prefers that one.",
        (Block(picture, Table("Words of each language by view", columns, rows, n_heads=2)),),
    )


def _recoverability(results: Mapping[str, diagnostics.WordRecoverability]) -> Section:
    return Section(
        "recoverability",
        "Which words are kept, which are lost?",
        "How often a word is found in the test sentences that have it, by a model that was trained on all "
        "views. Frequent words are also found by the baseline. The lists have words that are in at least 5 "
        "test sentences, with the number of sentences in which they were found; they are ordered by the "
        "end of an interval, so that words with few sentences do not come first by chance.",
        tuple(_recoverability_block(view, result, len(results) > 1) for view, result in results.items()),
    )


def _recoverability_block(view: str, result: diagnostics.WordRecoverability, has_title: bool) -> Block:
    """Recall of bands of words in one view, and the words with the highest and the lowest recall."""
    columns = (
        "Times in training",
        "Words",
        "Occurrences",
        "Found",
        "Found by the baseline",
        "Difference to all",
        "Significant",
    )
    baseline = result.band_baseline
    bands = tuple(
        (
            counts,
            number(result.band_words[b]),
            number(result.band_occurrences[b]),
            share(result.band_recall, b),
            NO_VALUE if baseline is None else share(baseline, b),
            *_difference(result.band_difference, (b,), len(result.bands) == 1),
        )
        for b, counts in enumerate(spelled_bands(result))
    )
    sums = (number(result.band_words.sum()), number(result.band_occurrences.sum()))
    total = ("all", *sums, share(result.overall), NO_VALUE, NO_VALUE, NO_VALUE)
    counts = dict(zip(result.words, zip(result.test_hits, result.test_count, strict=True), strict=True))
    lists = tuple(
        WordList(
            f"{kind} recall in {quoted(view)}",
            tuple((word, "{} of {}".format(*counts[word])) for word in words),
        )
        for kind, words in (("Highest", result.kept(_N_LISTED)), ("Lowest", result.lost(_N_LISTED)))
    )
    caption = f"Words found in {quoted(view)}, by their count in training"
    picture = draw_picture(
        plots.RecoverabilityDisplay, result, kind="Points and lines", caption=f"{caption}.", size=_LINE_PLOT
    )
    title = f"Tested on {quoted(view)}" if has_title else None
    return Block(picture, Table(caption, columns, (*bands, total)), title=title, lists=lists)


def _selectivity(result: diagnostics.Selectivity) -> Section:
    return Section(
        "selectivity",
        "Are words read or guessed?",
        "A word may be found because the embedding holds it, or because the other words of the sentence "
        "make it likely. Each word was deleted from its sentence, and the sentence was embedded again: a "
        f"word that is found nevertheless is guessed. {number(len(result.rows))} test sentences were used, "
        "and the scores have the bias.",
        tuple(_selectivity_block(result, v, len(result.views) > 1) for v in range(len(result.views))),
    )


def _selectivity_block(result: diagnostics.Selectivity, v: int, has_title: bool) -> Block:
    """Recall of words in the sentence and after their deletion in one view, by count in training."""
    assert result.recall_deleted is not None
    assert result.held is not None
    assert result.guessed is not None
    columns = ("Times in training", "Words", "Found", "Found after deletion", "Difference", "Significant")
    rows = tuple(
        (
            counts,
            number(result.occurrences[b]),
            share(result.recall, 0, v, b),
            share(result.recall_deleted, 0, v, b),
            *_difference(result.held, (0, v, b), False),
            share(result.guessed, 0, v, b),
        )
        for b, counts in enumerate([*spelled_bands(result), "all"])
    )
    view = result.views[v]
    caption = f"Words found in {quoted(view)} before and after their deletion, by their count in training"
    picture = draw_picture(
        plots.SelectivityDisplay,
        result,
        kind="Points and lines",
        caption=f"{caption}.",
        size=(6.4, 1.4 + 0.45 * len(rows)),
        view=view,
    )
    title = f"Tested on {quoted(view)}" if has_title else None
    return Block(picture, Table(caption, (*columns, "Guessed, of those found"), rows), title=title)


def _rare_words(result: diagnostics.RareWordRecall) -> Section:
    columns = (
        "Times in training",
        "Words",
        "Occurrences",
        "Found",
        "Found with features",
        "Difference",
        "Significant",
    )
    captions = [
        f"Words found with features of the words and without, by their count in training, {bias} the bias"
        for bias in ("with", "without")
    ]
    tables = []
    for i, caption in enumerate(captions):
        rows = tuple(
            (
                counts,
                number(result.band_words[b]),
                number(result.occurrences[b]),
                share(result.recall, i, 0, b),
                share(result.recall, i, 1, b),
                *_difference(result.difference, (i, b), False),
            )
            for b, counts in enumerate([*spelled_bands(result), "all"])
        )
        tables.append(Table(caption, columns, rows))
    picture = draw_picture(
        plots.RareWordDisplay,
        result,
        kind="Points and lines",
        caption=f"{captions[0]}.",
        size=(6.4, 1.4 + 0.45 * len(tables[0].rows)),
    )
    return Section(
        "rare_words",
        "Are rare words and new words read?",
        "A model may use features of the words, such as the embedding of each word by the same encoder: they "
        "tell what a word means that training sees rarely. It also reads words that training never sees. To "
        f"test this, {number(len(result.held_out))} words were drawn at random and removed from the training "
        "sentences. Two models were trained, with features and without, and the first one got these words "
        "back by their features.",
        (Block(picture, tables[0], more_tables=(tables[1],)),),
    )


def _entities(result: diagnostics.EntityRecallCurve) -> Section:
    columns = ("Tested on", "Best words", "With bias", "Without bias", "Difference", "Significant")
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
    picture = draw_picture(
        plots.EntityCurveDisplay,
        result,
        kind="Lines with the bias and without",
        caption="Share of a sentence's names found, by the number of best words.",
        size=_LINE_PLOT,
    )
    n_with_names = result.n_sentences - result.n_skipped
    return Section(
        "entities",
        "Are names found?",
        "Names are rare, so the bias of a model, which follows the frequency of words, ranks them behind "
        "frequent words. The most likely words are the best ones with the bias, the most distinctive words "
        "those without it. A name is found if all of its words are among the best words. Of "
        f"{number(result.n_sentences)} test sentences, {number(n_with_names)} have names; with all words of "
        f"the training text, {percent(result.ceiling)} of a sentence's names could be found.",
        (Block(picture, Table("Names found among the best words", columns, rows, n_heads=2)),),
    )


def _sets(compared: ComparedSentences) -> Section:
    result, names = compared.words, compared.names
    columns = np.concatenate(result.order(_N_LISTED))
    rows = tuple(
        (
            str(result.words[j]),
            names[0] if result.statistic[j] > 0 else names[1],
            percent(result.share_a[j]),
            percent(result.share_b[j]),
            change(result.difference, j),
            f"{result.q_value[j]:.2g}",
        )
        for j in columns
    )
    first, second = map(quoted, names)
    picture = draw_picture(
        plots.SetComparisonDisplay,
        result,
        kind="Bars to both sides",
        caption=f"Words that sentences of {first} and of {second} have more often.",
        size=(6.4, 1.6 + 0.25 * sum(map(len, result.order(10)))),
        names=names,
    )
    heads = ("Word", "More in", f"Sentences of {first}", f"Sentences of {second}", "Difference", "Adjusted p")
    return Section(
        "sets",
        "Which words does one set of sentences have more often?",
        f"The test sentences of {first} and of {second} are compared by their embeddings in "
        f"{quoted(compared.view)}. The shares of sentences with a word are read off the embeddings by the "
        "model of all views, and not counted. A word is listed if it differs at a false discovery rate of "
        f"{percent(result.fdr)}.",
        (Block(picture, Table(f"Words that differ between {first} and {second}", heads, rows)),),
    )


def _ranks(result: diagnostics.RankAnalysis) -> Section:
    last = len(result.ranks) - 1
    picture = draw_picture(
        plots.RankCurveDisplay,
        result,
        kind="One line for each view",
        caption="Share of a sentence's words found, by the rank of the model.",
        size=_LINE_PLOT,
    )
    table = _model_table("Words found at each rank", result.labels, result, last, result.n_parameters)
    return Section(
        "ranks",
        "How many dimensions do the words need?",
        "The model, trained on all views, projects an embedding to a smaller number of dimensions, its "
        f"rank. LiP is the same model without the projection. Differences are to {result.labels[last]}.",
        (Block(picture, table),),
    )


def _directions(result: ViewDirections) -> Section:
    blocks = [_change_block(change) for change in result.changes if change.words != ([], [])]
    if result.axes:
        blocks.append(_axes_block(result))
    return Section(
        "directions",
        "In which directions do embeddings differ?",
        "A direction of the space makes some words more likely and others less likely. The directions here "
        "are the difference between the mean embeddings of two views of the same sentences, which is what a "
        "view adds and loses in every sentence, and the axes along which the embeddings of one view differ "
        "most. All are read by the model of all views, without the bias.",
        tuple(blocks),
    )


def _change_block(change: ViewChange) -> Block:
    """Words that a view adds and loses, and in how many test sentences it does."""
    rows = tuple(
        (word, "more" if score > 0 else "less", f"{abs(score):.2f}", share(change.agreement, i), significant)
        for i, ((word, score), significant) in enumerate(
            zip(
                [*change.words.raised, *change.words.lowered],
                ["yes" if flag else "no" for flag in change.significant],
                strict=True,
            )
        )
    )
    title = f"{quoted(change.view)} instead of {quoted(change.reference)}"
    caption = f"Words that are more and less likely in {title}."
    columns = ("Word", "Likely", "Change (nats)", "Share of the test sentences where it is so", "Significant")
    return Block(_direction_picture(change.words, caption), Table(caption[:-1], columns, rows), title=title)


def _axes_block(result: ViewDirections) -> Block:
    """Words at both ends of the principal axes."""
    rows = tuple(
        (str(i + 1), percent(variance), *(" ".join(word for word, _ in side) for side in axis))
        for i, (axis, variance) in enumerate(zip(result.axes, result.variance, strict=True))
    )
    view = quoted(result.view)
    caption = f"Words at both ends of the first principal axis of {view}."
    table = Table(
        f"Principal axes of {view}",
        ("Axis", "Share of the variance", "Words at one end", "Words at the other end"),
        rows,
        is_numeric=False,
    )
    return Block(_direction_picture(result.axes[0], caption), table, title=f"Principal axes of {view}")


def _direction_picture(words: DirectionWords, caption: str) -> Picture:
    size = (6.4, 1.0 + 0.27 * max(1, sum(map(len, words))))
    label = "change of the score (nats)"
    return draw_picture(
        plots.DirectionDisplay, words, kind="Bars to both sides", caption=caption, size=size, label=label
    )


def _extractors(result: diagnostics.ExtractorComparison) -> Section:
    bars = len(result.extractors) * len(result.views)
    picture = draw_picture(
        plots.ExtractorDisplay,
        result,
        kind="Bars for each view",
        caption="Share of a sentence's words found, by method.",
        size=(6.4, 1.0 + 0.28 * bars + 0.15 * len(result.extractors)),
    )
    return Section(
        "extractors",
        "Do other methods find more words?",
        "Every method was trained on all views and tested on the same sentences with the same vocabulary. "
        f"“{BASELINE}” is the baseline. Differences are to {result.extractors[0]}.",
        (Block(picture, _model_table("Words found by each method", result.extractors, result, 0)),),
    )


def _model_table(
    caption: str,
    names: Sequence[str],
    result: diagnostics.RankAnalysis | diagnostics.ExtractorComparison,
    reference: int,
    n_parameters: np.ndarray | None = None,
) -> Table:
    """Accuracy of each model in each view."""
    rows = []
    for m, name in enumerate(names):
        for v, view in enumerate(result.views):
            row = [name, view]
            if n_parameters is not None:
                row.append(number(n_parameters[m]))
            row.append(share(result.accuracy, m, v))
            row += _difference(result.difference, (m, v), m == reference)
            rows.append(tuple(row))
    parameters = () if n_parameters is None else ("Parameters",)
    columns = ("Model", "Tested on", *parameters, "Words found", "Difference", "Significant")
    return Table(caption, columns, tuple(rows), n_heads=2)


def _difference(difference: Difference, index: tuple[int, ...], is_reference: bool) -> tuple[str, str]:
    """A difference with its interval, and whether it is significant."""
    if is_reference:
        return NO_VALUE, NO_VALUE
    text = change(difference, *index)
    if not np.isfinite(difference.low[index] + difference.high[index]):
        return text, NOT_KNOWN
    if not difference.significant[index]:
        return text, "no"
    return text, "yes, more" if difference.value[index] > 0 else "yes, less"


def _heat_map(
    result: diagnostics.ViewAlignment | diagnostics.VocabularyPreference, n_rows: int, caption: str
) -> Picture:
    """Draw an accuracy with one column for each view."""
    size = (min(3.0 + 1.1 * len(result.views), 8.5), min(1.2 + 0.8 * n_rows, 8.0))
    return draw_picture(plots.AlignmentDisplay, result, kind="Heat map", caption=caption, size=size)

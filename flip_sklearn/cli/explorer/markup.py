"""Readings as HTML: tables whose bars are also numbers. All that comes from texts and models is escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence

from flip_sklearn.cli.explorer.readings import Keyword, Neighbour
from flip_sklearn.diagnostics import SimilarityExplanation
from flip_sklearn.diagnostics.editing_result import EditedWords

# Words of an explanation with rows of their own, and pairs of words.
N_TERMS, N_PAIRS = 10, 5
# Of an error's message, which may quote a text.
MAX_MESSAGE = 600
# Beside the characters of HTML, those of JavaScript's and Handlebars' templates, through which Gradio
# passes the content of a component.
_TEMPLATE_CHARACTERS = {ord(c): f"&#{ord(c)};" for c in "{}$`\\"}


def escape(text: str) -> str:
    """Return a text as HTML in which no character has a meaning; control characters are shown as boxes."""
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in text
    )
    return html.escape(shown).translate(_TEMPLATE_CHARACTERS)


def word(text: str) -> str:
    """Return a word or sentence whose direction of writing does not change that of what surrounds it."""
    return f"<bdi>{escape(text)}</bdi>"


def message(text: str) -> str:
    """Return an error's message, which a screen reader reads at once."""
    shown = text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 3]}..."
    shown = f"{shown[:1].upper()}{shown[1:]}"
    return f'<p class="flip-error" role="alert">{escape(shown)}</p>'


def note(text: str) -> str:
    """Return a plain remark."""
    return f'<p class="flip-note">{escape(text)}</p>'


def heading(text: str) -> str:
    """Return the heading of a part of the page."""
    return f"<h2>{escape(text)}</h2>"


def keyword_section(
    titles: Sequence[str], readings: Sequence[tuple[list[Keyword], list[Keyword]]], has_presence: bool
) -> str:
    """Return the words of each input, without and with bias."""
    meaning = (
        "how likely the word occurs in the text"
        if has_presence
        else "the word's share of the words of a text"
    )
    parts = [
        heading("Words"),
        note(
            "Without bias: words that are special to the text. The score says how much more the vector "
            "calls for the word than the average vector does, in nats (+1 is a factor of 2.7). With bias: "
            "the words that are most likely, also if they are in every text. The probability says "
            f"{meaning}."
        ),
    ]
    for title, (specific, likely) in zip(titles, readings, strict=True):
        parts.append(f"<h3>{escape(title)}</h3>")
        best = max([1e-9, *(k.score for k in specific)])
        tables = [
            table(
                "Without bias",
                ["Word", "Score", "Probability"],
                [
                    _row(
                        word(k.word),
                        [bar_cell(k.score / best, f"{k.score:+.1f}"), f"<td>{percent(k.probability)}</td>"],
                    )
                    for k in specific
                ],
            ),
            table(
                "With bias",
                ["Word", "Probability"],
                [_row(word(k.word), [probability_cell(k.probability)]) for k in likely],
            ),
        ]
        parts.append(f'<div class="flip-pair">{"".join(tables)}</div>')
    return "".join(parts)


def similarity_section(result: SimilarityExplanation) -> str:
    """Return what the words of two vectors contribute to their cosine."""
    terms = list(zip(result.words.tolist(), result.contribution.tolist(), strict=True))[:N_TERMS]
    where = [
        "both" if s1 and s2 else "first" if s1 else "second"
        for s1, s2 in zip(result.strength1[:N_TERMS], result.strength2[:N_TERMS], strict=True)
    ]
    others = float(result.contribution[N_TERMS:].sum())
    scale = max([abs(value) for _, value in terms] + [abs(result.common), abs(result.residual)] or [1.0])
    rows = [
        _row(word(name), [signed_cell(value, scale), f"<td>{side}</td>"])
        for (name, value), side in zip(terms, where, strict=True)
    ]
    for name, value in (
        (f"{max(0, len(result.words) - N_TERMS)} more words", others),
        ("what all texts have in common", result.common),
        ("not explained by words", result.residual),
    ):
        if value or not name.startswith("0 "):
            rows.append(_row(f"<em>{escape(name)}</em>", [signed_cell(value, scale), "<td></td>"]))
    pairs = [(a, b, value) for a, b, value in result.pairs(N_PAIRS + N_TERMS) if a != b and value > 0]
    met = "".join(
        f"<li>{word(a)} and {word(b)} <span>{value:+.3f}</span></li>" for a, b, value in pairs[:N_PAIRS]
    )
    return "".join(
        [
            heading("What both share"),
            f'<p class="flip-cosine">Cosine <strong>{result.cosine:.3f}</strong></p>',
            note(
                "The cosine is the sum of these parts. A word counts if it is in one vector and meets the "
                "same or a similar word in the other; a negative part makes the vectors less similar."
            ),
            table("Parts of the cosine", ["Word", "Contribution", "In"], rows),
            f'<p class="flip-caption">Different words that meet</p><ul class="flip-words">{met}</ul>'
            if met
            else "",
        ]
    )


def neighbour_section(neighbours: list[Neighbour], n_sentences: int) -> str:
    """Return the nearest sentences of the corpus."""
    return "".join(
        [
            heading("Nearest sentences"),
            note(
                f"The nearest of {n_sentences:,} sentences to the first vector by their cosine, each with "
                "the words that match and what they contribute to the cosine."
            ),
            neighbour_list(neighbours),
        ]
    )


def neighbour_list(neighbours: list[Neighbour], before: Iterable[int] | None = None) -> str:
    """Return sentences with their cosines and words; those whose row is not in ``before`` are marked."""
    if not neighbours:
        return note("A vector of zeros has no nearest sentence.")
    known = None if before is None else set(before)
    items = []
    for found in neighbours:
        mark = "" if known is None or found.row in known else ' <strong class="flip-new">new</strong>'
        words = "".join(f"<li>{word(name)} <span>{value:+.2f}</span></li>" for name, value in found.words)
        matching = f'<ul class="flip-words" aria-label="Words that match">{words}</ul>' if words else ""
        items.append(
            f'<li>{word(found.text)} <span class="flip-number">cosine {found.cosine:.3f}</span>{mark}'
            f"{matching}</li>"
        )
    return f'<ol class="flip-sentences">{"".join(items)}</ol>'


def edit_section(result: EditedWords, before: list[Neighbour], after: list[Neighbour]) -> str:
    """Return what an edit changed: probabilities of words, and the nearest sentences."""
    edits = ["added"] * len(result.added) + ["removed"] * len(result.removed)
    rows = [
        _row(f"{word(name)} <em>{edit}</em>", [probability_cell(p), probability_cell(q)])
        for name, edit, p, q in zip(
            *((*result.added, *result.removed), edits, result.presence_before[0], result.presence_after[0]),
            strict=True,
        )
    ]
    rows += [
        _row(word(name), [probability_cell(p), probability_cell(q)])
        for name, p, q in zip(
            *(result.moved_words[0], result.moved_before[0], result.moved_after[0]), strict=True
        )
    ]
    parts = [
        note(
            f"The vector changed as little as possible: the cosine with the one before is "
            f"{result.cosine[0]:.3f}. Below the edited words stand the others whose probability moved most."
        ),
        table("Probability that the word occurs", ["Word", "Before", "After"], rows),
    ]
    if before or after:
        lists = [
            f"<div><h3>{title}</h3>{content}</div>"
            for title, content in (
                ("Nearest before", neighbour_list(before)),
                ("Nearest after", neighbour_list(after, [found.row for found in before])),
            )
        ]
        parts.append(f'<div class="flip-pair">{"".join(lists)}</div>')
    return "".join(parts)


def table(caption: str, columns: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table of rows that are HTML already; it scrolls by itself where the page is narrow."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    return (
        f'<div class="flip-scroll" tabindex="0" role="group" aria-label="{escape(caption)}">'
        f'<table class="flip-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def bar_cell(share: float, number: str) -> str:
    """Return a cell with a number and a bar of a share of the width; none of a share below 0."""
    share = max(0.0, share)
    return (
        f'<td class="flip-bar"><span class="flip-value">{number}</span><span class="flip-track" '
        f'aria-hidden="true"><span class="flip-fill" style="width:{100 * share:.1f}%"></span></span></td>'
    )


def signed_cell(value: float, scale: float) -> str:
    """Return a cell with a number and a bar that starts in the middle."""
    width = 50 * abs(value) / scale if scale else 0.0
    start, kind = (50.0, "flip-fill") if value >= 0 else (50 - width, "flip-fill flip-negative")
    return (
        f'<td class="flip-bar"><span class="flip-value">{value:+.3f}</span><span class="flip-track" '
        f'aria-hidden="true"><span class="{kind}" style="margin-left:{start:.1f}%;width:{width:.1f}%">'
        "</span></span></td>"
    )


def probability_cell(value: float) -> str:
    """Return a cell with a bar of a probability; nan of models that have none is a dash."""
    if value != value:
        return "<td>-</td>"
    return bar_cell(float(value), percent(float(value)))


def percent(value: float) -> str:
    """Return a probability for readers: whole percents, without rounding to 0 or 100."""
    if 0 < value < 0.005:
        return "&lt; 1 %"
    if 0.995 <= value < 1:
        return "&gt; 99 %"
    return f"{100 * value:.0f} %"

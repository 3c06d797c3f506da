"""Findings: sentences that follow from the results by fixed rules.

A difference counts as significant if its interval excludes 0, and is given with the interval. Where the
accuracy is not above the baseline, which always extracts the most frequent words, nothing else is said.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn import diagnostics
from flip_sklearn.diagnostics.bootstrap import Interval
from flip_sklearn.report.directions import direction_texts
from flip_sklearn.report.guessing import guessing_texts
from flip_sklearn.report.rare_words import rare_word_texts
from flip_sklearn.report.results import Results
from flip_sklearn.report.sets import set_texts
from flip_sklearn.report.view_gap import view_gap_texts
from flip_sklearn.report.wording import (
    change,
    listed,
    number,
    percent,
    quoted,
    share,
    size,
    spelled_bands,
    times,
)

# An accuracy less than this above the baseline is called weak.
WEAK = 0.05
# With more views, one sentence sums up all pairs of views.
_MAX_VIEWS_IN_PAIRS = 3
# Entity recall is given at the number of words nearest to this.
_ENTITY_K = 10
# Description of the bands that are named in the summary.
_LESS = "found less often than all words together"
# What the methods are, for readers who do not know their names.
_METHODS = {
    "FLiP": "FLiP, the model of this page,",
    "LiP": "LiP, which keeps all dimensions,",
    "SpLiCE": "SpLiCE, which is not trained,",
}


@dataclass(frozen=True)
class Finding:
    """One sentence of the report.

    Attributes
    ----------
    about : str
        The result that it follows from: the name of a field of :class:`Diagnosis`.
    text : str
        The sentence.
    main : bool
        Whether it is also in the summary at the top of the page.
    """

    about: str
    text: str
    main: bool = True


def make_findings(results: Results) -> tuple[Finding, ...]:
    """The findings of all results, in the order of the page."""
    findings: list[Finding] = []
    at_baseline = views_at_baseline(results.extractors)
    if results.alignment is not None:
        findings += alignment_findings(results.alignment)
    if results.view_gap is not None:
        findings += [Finding("view_gap", *text) for text in view_gap_texts(results.view_gap)]
    if results.preference is not None:
        findings += preference_findings(results.preference)
    for view, result in results.recoverability.items():
        findings += recoverability_findings(view, result, is_at_baseline=view in at_baseline)
    if results.selectivity is not None:
        findings += [Finding("selectivity", *text) for text in guessing_texts(results.selectivity)]
    if results.sets is not None:
        findings += [Finding("sets", *text) for text in set_texts(results.sets)]
    if results.rare_words is not None:
        findings += [Finding("rare_words", *text) for text in rare_word_texts(results.rare_words)]
    if results.entities is not None:
        findings += entity_findings(results.entities, at_baseline=at_baseline)
    if results.ranks is not None:
        findings += rank_findings(results.ranks)
    findings += [Finding("directions", *text) for text in direction_texts(results.directions)]
    return (*findings, *extractor_findings(results.extractors))


def alignment_findings(result: diagnostics.ViewAlignment) -> list[Finding]:
    """The accuracy of each model on its own view, and its loss on the other views."""
    n_views = len(result.views)
    own_view, readable = [], []
    for i, view in enumerate(result.views):
        start = f"Trained and tested on {quoted(view)}, the model finds"
        text = _accuracy_text(start, result.accuracy, result.baseline, (i, i))
        own_view.append(Finding("alignment", text))
        if _is_above(result.accuracy, result.baseline, (i, i)):
            readable.append(i)
    own_view += [Finding("alignment", text) for text in _own_view_texts(result, readable)]
    pairs = [(i, j) for i in readable for j in range(n_views) if i != j]
    if not pairs:
        return own_view
    if n_views > _MAX_VIEWS_IN_PAIRS:
        return [Finding("alignment", _all_pairs_text(result, pairs)), *own_view]
    differences = [Finding("alignment", _pair_text(result, i, j)) for i, j in pairs]
    overlaps = [Finding("alignment", _overlap_text(result, i, j), main=False) for i, j in pairs]
    return own_view + differences + overlaps


def _own_view_texts(result: diagnostics.ViewAlignment, readable: list[int]) -> list[str]:
    """Differences between models that are each tested on their own view: all pairs, or the largest."""
    difference, n_views = result.own_view_difference, len(result.views)
    pairs = [(i, j) for i in range(n_views) for j in range(i + 1, n_views) if i in readable or j in readable]
    if difference is None or not pairs:
        return []
    if n_views > _MAX_VIEWS_IN_PAIRS:
        pairs = [max(pairs, key=lambda pair: abs(float(difference.value[pair])))]
    texts = []
    for i, j in pairs:
        start = f"Each view read by its own model, {quoted(result.views[j])} gives"
        other = quoted(result.views[i])
        if difference.significant[i, j]:
            more = "more" if difference.value[i, j] > 0 else "less"
            texts.append(f"{start} {size(difference, i, j)} {more} than {other}.")
        else:
            amount = change(difference, i, j)
            texts.append(f"{start} neither significantly more nor less than {other}: {amount}.")
    return texts


def _pair_text(result: diagnostics.ViewAlignment, i: int, j: int) -> str:
    model, view = quoted(result.views[i]), quoted(result.views[j])
    if result.difference.significant[i, j]:
        verb = "loses" if result.difference.value[i, j] < 0 else "gains"
        accuracy, own = result.accuracy.value[i, j], result.accuracy.value[i, i]
        text = (
            f"The model trained on {model} {verb} {size(result.difference, i, j)} when it is tested on "
            f"{view}: {percent(accuracy)} of the words instead of {percent(own)}."
        )
    else:
        text = (
            f"The model trained on {model} shows no significant difference when it is tested on {view}: "
            f"{change(result.difference, i, j)}."
        )
    if not _is_above(result.accuracy, result.baseline, (i, j)):
        text += f" That {_baseline_text(result.accuracy, result.baseline, (i, j))}."
    return text


def _overlap_text(result: diagnostics.ViewAlignment, i: int, j: int) -> str:
    model, view = quoted(result.views[i]), quoted(result.views[j])
    return (
        f"Of all the right words that the model trained on {model} finds in {model}, in {view} or in both, "
        f"{share(result.jaccard, i, j)} are found in both; the others are found in only one of the two views."
    )


def _all_pairs_text(result: diagnostics.ViewAlignment, pairs: list[tuple[int, int]]) -> str:
    significant = [pair for pair in pairs if result.difference.significant[pair]]
    losses = [pair for pair in significant if result.difference.value[pair] < 0]
    text = (
        f"Of {number(len(pairs))} tests of a model on a view that it was not trained on, "
        f"{number(len(losses))} find fewer words than on its own view and "
        f"{number(len(significant) - len(losses))} more; {number(len(pairs) - len(significant))} have no "
        "significant difference."
    )
    if losses:
        i, j = min(losses, key=lambda pair: float(result.difference.value[pair]))
        text += (
            f" The largest loss is that of the model trained on {quoted(result.views[i])} when it is "
            f"tested on {quoted(result.views[j])}: {size(result.difference, i, j)}."
        )
    return text


def preference_findings(result: diagnostics.VocabularyPreference) -> list[Finding]:
    """The accuracy for the words of each language in its reference view, and differences to it."""
    texts = []
    for row, language in enumerate(result.languages):
        reference = result.views.index(result.reference[row])
        baseline = _element(result.baseline, row)
        start = f"Tested on {quoted(result.views[reference])}, the model of all views finds"
        words = f"a sentence's words of {quoted(language)}"
        texts.append(_accuracy_text(start, result.accuracy, baseline, (row, reference), words))
        best = int(np.argmax(result.accuracy.value[row]))
        if _is_above(result.accuracy, baseline, (row, best)):
            texts += _preference_differences(result, row, reference)
    return [Finding("preference", text) for text in texts]


def _preference_differences(result: diagnostics.VocabularyPreference, row: int, reference: int) -> list[str]:
    """Significant gains, significant losses, and other differences to the reference view."""
    language = quoted(result.languages[row])
    more, less, not_significant = [], [], []
    for j, view in enumerate(result.views):
        if j == reference:
            continue
        if not result.difference.significant[row, j]:
            amount = change(result.difference, row, j, in_brackets=True)
            not_significant.append(f"{quoted(view)} ({amount})")
        elif result.difference.value[row, j] > 0:
            more.append(f"{size(result.difference, row, j)} more on {quoted(view)}")
        else:
            less.append(f"{size(result.difference, row, j)} less on {quoted(view)}")
    texts = [
        f"Of the words of {language}, it finds {listed(amounts)}." for amounts in (more, less) if amounts
    ]
    if not_significant:
        texts.append(
            f"For words of {language}, there is no significant difference between "
            f"{quoted(result.views[reference])} and {listed(not_significant)}."
        )
    return texts


def recoverability_findings(
    view: str, result: diagnostics.WordRecoverability, *, is_at_baseline: bool
) -> list[Finding]:
    """Which words are found more or less often than all words, by their count in training.

    If the view is at the baseline, the counts of words found say nothing about the view.
    """
    start = f"Tested on {quoted(view)},"
    overall = f"{start} {share(result.overall)} of all occurrences of words are found."
    if is_at_baseline:
        overall += " The baseline finds as many, so this says nothing about single words."
        return [Finding("recoverability", overall)]
    findings = [Finding("recoverability", overall, main=False)]
    for description, bands in _compare_bands(result).items():
        if bands:
            words = listed(bands, "or")
            text = f"{start} words that occur {words} in the training sentences are {description}."
            findings.append(Finding("recoverability", text, main=description == _LESS))
    return findings


def _compare_bands(result: diagnostics.WordRecoverability) -> dict[str, list[str]]:
    """Bands by their recall, compared with that of all words and with that of the baseline."""
    more = "found more often than all words together"
    not_significant = "found neither significantly more nor less often than all words together"
    like_baseline = "not found significantly more often than by the baseline"
    bands: dict[str, list[str]] = {_LESS: [], more: [], not_significant: [], like_baseline: []}
    difference, baseline = result.band_difference, result.band_baseline
    for b, (band, counts) in enumerate(zip(result.bands, spelled_bands(result), strict=True)):
        if str(band) == "0":  # words that are not in training are never found
            continue
        often = times(counts)
        if difference.significant[b]:
            amount = size(difference, b, in_brackets=True)
            bands[more if difference.value[b] > 0 else _LESS].append(f"{often} ({amount})")
        elif len(result.bands) > 1:  # a single band is all words
            bands[not_significant].append(f"{often} ({change(difference, b, in_brackets=True)})")
        if baseline is not None and not result.band_recall.low[b] > baseline.high[b]:
            recall = share(result.band_recall, b, in_brackets=True)
            baseline_recall = share(baseline, b, in_brackets=True)
            bands[like_baseline].append(f"{often} ({recall}; baseline {baseline_recall})")
    return bands


def entity_findings(result: diagnostics.EntityRecallCurve, *, at_baseline: Collection[str]) -> list[Finding]:
    """Entity recall without the bias and its difference to that with the bias, by view.

    Views at the baseline are left out.
    """
    position = int(np.argmin(np.abs(np.log(np.asarray(result.ks) / _ENTITY_K))))
    k = int(result.ks[position])
    distinctive = "most distinctive word" if k == 1 else f"{k} most distinctive words"
    likely = "most likely word" if k == 1 else f"{k} most likely words"
    texts = []
    for v, view in enumerate(result.views):
        if view in at_baseline:
            continue
        amount = change(result.difference, v, position)
        end = f"the difference to the {likely} is not significant: {amount}"
        if result.difference.significant[v, position]:
            more = "more" if result.difference.value[v, position] > 0 else "less"
            end = f"{size(result.difference, v, position)} {more} than among the {likely}"
        texts.append(
            f"Tested on {quoted(view)}, {share(result.recall_strict, 1, v, position)} of a sentence's names "
            f"are among the {distinctive}; {end}."
        )
    if result.n_out_of_vocabulary:
        texts.append(
            f"{number(result.n_out_of_vocabulary)} of {number(result.n_names)} names have a word that is "
            "not in the training text, so they cannot be found."
        )
    return [Finding("entities", text) for text in texts]


def rank_findings(result: diagnostics.RankAnalysis) -> list[Finding]:
    """The lowest rank from which no rank is significantly worse than the last model, by view."""
    texts, last = [], len(result.ranks) - 1
    for v, view in enumerate(result.views):
        start = f"Tested on {quoted(view)},"
        if not _is_above(result.accuracy, result.baseline, (last, v)):
            start = f"{start} {_model_name(result, last)} finds"
            texts.append(_accuracy_text(start, result.accuracy, result.baseline, (last, v)))
        elif last == 0:
            accuracy = share(result.accuracy, 0, v)
            texts.append(f"{start} {_model_name(result, 0)} finds {accuracy} of the words.")
        else:
            texts += _rank_texts(start, result, v)
    return [Finding("ranks", text) for text in texts]


def _rank_texts(start: str, result: diagnostics.RankAnalysis, v: int) -> list[str]:
    last = len(result.ranks) - 1
    target, difference = _model_name(result, last), result.difference
    is_significant, value = difference.significant[:last, v], difference.value[:last, v]
    worse = np.flatnonzero(is_significant & (value < 0))
    better = np.flatnonzero(is_significant & (value > 0))
    sufficient = int(worse[-1]) + 1 if len(worse) else 0
    if sufficient == last:
        text = (
            f"{start} no smaller number of dimensions that was tried is enough: "
            f"{_model_name(result, last - 1)} finds {size(difference, last - 1, v)} less than {target}."
        )
    else:
        text = (
            f"{start} {_model_name(result, sufficient)} is enough: neither it nor a larger one finds "
            f"significantly less than {target}. The difference is {change(difference, sufficient, v)}, with "
            f"{number(result.n_parameters[sufficient])} parameters instead of "
            f"{number(result.n_parameters[last])}."
        )
    texts = [text]
    if len(better):
        best = int(better[np.argmax(value[better])])
        amount = size(difference, best, v)
        texts.append(f"{start} {_model_name(result, best)} finds {amount} more than {target}.")
    return texts


def _model_name(result: diagnostics.RankAnalysis, m: int) -> str:
    rank = result.ranks[m]
    if rank is None:
        return "the model that keeps all dimensions (LiP)"
    return f"the model of {number(rank)} dimension{'' if rank == 1 else 's'}"


def extractor_findings(result: diagnostics.ExtractorComparison) -> list[Finding]:
    """The accuracy of the first extractor, and the differences of the others to it, by view."""
    texts, first, last = [], result.extractors[0], len(result.extractors) - 1
    difference, at_baseline = result.difference, views_at_baseline(result)
    for v, view in enumerate(result.views):
        accuracy = share(result.accuracy, 0, v)
        start = (
            f"Tested on {quoted(view)}, {_METHODS.get(first, first)} finds {accuracy} of a sentence's words"
        )
        if view in at_baseline:
            is_less = difference.significant[last, v]
            verdict = "is below" if is_less else "is not significantly different from"
            baseline = share(result.accuracy, last, v, in_brackets=True)
            texts.append(f"{start}. That {verdict} the baseline ({baseline}).")
            continue
        parts = []
        for e in range(1, last):
            name = _METHODS.get(result.extractors[e], result.extractors[e])
            if not difference.significant[e, v]:
                amount = change(difference, e, v, in_brackets=True)
                parts.append(f"{name} finds neither significantly more nor less ({amount})")
            else:
                more = "more" if difference.value[e, v] > 0 else "less"
                parts.append(f"{name} finds {size(difference, e, v)} {more}")
        less = size(difference, last, v)
        parts.append(f"the baseline, which always names the most frequent words, finds {less} less")
        texts.append(f"{start}; {'; '.join(parts)}.")
    return [Finding("extractors", text) for text in texts]


def views_at_baseline(result: diagnostics.ExtractorComparison) -> tuple[str, ...]:
    """The views in which the first extractor is not significantly better than the baseline."""
    baseline = result.difference
    is_better = baseline.significant[-1] & (baseline.value[-1] < 0)
    return tuple(view for view, better in zip(result.views, is_better, strict=True) if not better)


def _is_above(accuracy: Interval, baseline: Interval, index: tuple[int, ...]) -> bool:
    """Whether the interval of an accuracy is above that of the baseline."""
    return bool(accuracy.low[index] > baseline.high)


def _accuracy_text(
    start: str,
    accuracy: Interval,
    baseline: Interval,
    index: tuple[int, ...],
    words: str = "a sentence's words",
) -> str:
    """A sentence about one accuracy and the baseline."""
    text = f"{start} {share(accuracy, *index)} of {words}"
    if not _is_above(accuracy, baseline, index):
        verdict = _baseline_text(accuracy, baseline, index)
        return f"{text}. That {verdict}, so it does not show that words can be found in this view."
    if accuracy.value[index] - baseline.value < WEAK:
        end = f"above the baseline ({share(baseline, in_brackets=True)}): little can be found in this view."
        return f"{text}, only a little {end}"
    return f"{text}; the baseline finds {share(baseline)}."


def _baseline_text(accuracy: Interval, baseline: Interval, index: tuple[int, ...]) -> str:
    """The end of a sentence about an accuracy that is not above the baseline."""
    verdict = "is below" if accuracy.high[index] < baseline.low else "is not clearly above"
    return f"{verdict} the baseline ({share(baseline, in_brackets=True)})"


def _element(interval: Any, row: int) -> Interval:
    """One element of an interval, as an interval of shape ()."""
    return Interval(interval.value[row], interval.low[row], interval.high[row])

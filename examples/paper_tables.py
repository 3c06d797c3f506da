"""Tables 1, 2 and 6 and figure 1 of the FLiP paper as Markdown, for reproduce_paper.py."""

from __future__ import annotations

from flip_sklearn.diagnostics import EntityRecallCurve, ExtractorComparison, RankAnalysis, ViewAlignment

UNKNOWN = "—"
# Keyword accuracy in percent on Mozilla Common Voice v15, English, SONAR, from the README of the authors'
# code, https://github.com/BUTSpeechFIT/FLiP, which has no figures for table 2.
PAPER_RANKS = {
    "LiP": {"text": 59.45, "speech": 57.27},
    "rank 512": {"text": 76.77, "speech": 73.62},
    "rank 1024": {"text": 77.29, "speech": 74.09},
}
PAPER_EXTRACTORS = {"SpLiCE": {"text": 29.58, "speech": 28.21}, "FLiP": {"text": 61.45, "speech": 58.83}}


def percent(interval, cell: tuple[int, ...]) -> str:
    """Format a share in percent with its interval."""
    value, low, high = (100 * a[cell] for a in (interval.value, interval.low, interval.high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def points(difference, cell: tuple[int, ...]) -> str:
    """Format a difference in percentage points, with a star if its interval excludes 0."""
    arrays = (difference.value, difference.low, difference.high)
    value, low, high = (100 * a[cell] for a in arrays)
    star = " *" if difference.significant[cell] else ""
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f}){star}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def compare_with_paper(
    result: RankAnalysis | ExtractorComparison, names: tuple[str, ...], paper: dict, reference: str
) -> str:
    """Format a row per model, with our accuracy, the paper's and the difference to a reference model."""
    header, rows = ["model"], []
    for view in result.views:
        header += [f"{view}, ours", f"{view}, paper", f"{view}, ours minus {reference}"]
    for i, name in enumerate(names):
        row = [name]
        for j, view in enumerate(result.views):
            published = paper.get(name, {}).get(view)
            row += [
                percent(result.accuracy, (i, j)),
                UNKNOWN if published is None else f"{published:.2f}",
                points(result.difference, (i, j)) if name != reference else "",
            ]
        rows.append(row)
    return markdown(header, rows)


def table_1(result: RankAnalysis) -> str:
    """Format the rank analysis."""
    table = compare_with_paper(result, result.labels, PAPER_RANKS, "LiP")
    baseline = percent(result.baseline, ())
    return f"## Table 1: rank\n\n{table}\n\nAlways predicting the most frequent words: {baseline}."


def table_2(result: ViewAlignment) -> str:
    """Format the modality alignment."""
    header = ["trained on", "read from", "accuracy, ours", "paper", "minus own view", "Jaccard"]
    rows = [
        [
            trained_on,
            read_from,
            percent(result.accuracy, (i, j)),
            UNKNOWN,
            points(result.difference, (i, j)) if i != j else "",
            percent(result.jaccard, (i, j)),
        ]
        for i, trained_on in enumerate(result.views)
        for j, read_from in enumerate(result.views)
    ]
    return (
        f"## Table 2: modality alignment\n\n{markdown(header, rows)}\n\nWe do not have the figures "
        "of the paper for this table. Jaccard (in %): words of a sentence found in both views, relative to "
        "those found in at least one."
    )


def table_6(result: ExtractorComparison, splice_note: str) -> str:
    """Format the comparison of FLiP with other methods."""
    table = compare_with_paper(result, result.extractors, PAPER_EXTRACTORS, "FLiP")
    return f"## Table 6: span-aware accuracy over concepts\n\n{table}\n\n{splice_note}"


def figure_1(curve: EntityRecallCurve) -> str:
    """Format the strict recall of names at each k."""
    header = ["names among the k best words"]
    for view in curve.views:
        header += [f"{view}, with bias", f"{view}, without", "without minus with"]
    rows = []
    for i, k in enumerate(curve.ks):
        row = [f"k = {k}"]
        for j in range(len(curve.views)):
            recall = curve.recall_strict
            row += [percent(recall, (0, j, i)), percent(recall, (1, j, i)), points(curve.difference, (j, i))]
        rows.append(row)
    return (
        f"## Figure 1: recall of names\n\n{markdown(header, rows)}\n\n{curve.n_names:,} names in "
        f"{curve.n_sentences:,} test sentences; {curve.n_out_of_vocabulary:,} names have a word that is not "
        "in the vocabulary, so they cannot be found. We do not have the figures of the paper for this curve."
    )

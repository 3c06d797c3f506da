"""Results of the commands, and how they are printed; loads neither torch nor NumPy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer


@dataclass(frozen=True)
class Figures:
    """The mean of a metric over sentences; None if it is not defined."""

    value: float | None
    standard_error: float | None
    n_rows: int
    n_skipped: int

    def __str__(self) -> str:
        """Return the value as a percentage, with its standard error."""
        if self.value is None:
            return "-"
        error = self.standard_error
        return f"{100 * self.value:.1f} %" + ("" if error is None else f" ± {100 * error:.1f}")


@dataclass(frozen=True)
class Metric:
    """A metric of a model, with bias or without."""

    metric: str
    use_bias: bool
    figures: Figures
    is_share: bool = True  # printed as a percentage

    def __str__(self) -> str:
        value = self.figures.value
        return str(self.figures) if self.is_share or value is None else f"{value:,.1f}"


@dataclass(frozen=True)
class FitSummary:
    """The result of the command ``fit``, in the order in which it is printed as JSON."""

    out: str
    words: int
    rank: int
    dimensions: int
    sentences_trained_on: int
    sentences_held_out: int
    blank_lines: int
    passes: int
    keyword_accuracy: dict[str, Figures] | None


def format_summary(summary: FitSummary, as_json: bool) -> str:
    """Return the text that ``fit`` prints."""
    if as_json:
        return json.dumps(asdict(summary), ensure_ascii=False) + "\n"
    rows = [
        ("words", f"{summary.words:,}"),
        ("rank", f"{summary.rank:,} of {summary.dimensions:,} dimensions"),
        ("trained on", f"{summary.sentences_trained_on:,} sentences, {summary.passes} passes"),
    ]
    if summary.blank_lines:
        rows.append(("left out", f"{summary.blank_lines:,} blank lines"))
    if summary.keyword_accuracy is not None:
        rows.append(("held out", f"{summary.sentences_held_out:,} sentences for evaluation"))
        title = "keyword accuracy"
        for name, figures in summary.keyword_accuracy.items():
            rows.append((title, f"{figures!s:13}  {name.replace('_', ' ')}"))
            title = ""
    rows.append(("saved in", summary.out))
    return "".join(f"{name:18} {value}\n" for name, value in rows)


def format_keywords(
    rows: Sequence[Sequence[tuple[str, float]]], first_line: int, scores: bool, as_json: bool
) -> str:
    """Return one line per row of (word, score) pairs; ``first_line`` is the number of the first row."""
    if as_json:
        lines = [_keywords_as_json(row, first_line + i, scores) for i, row in enumerate(rows)]
    else:
        lines = ["\t".join(keyword_fields(row, scores)) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _keywords_as_json(row: Sequence[tuple[str, float]], line: int, scores: bool) -> str:
    content: dict[str, Any] = {"line": line, "keywords": [word for word, _ in row]}
    if scores:
        content["scores"] = [round(float(score), 4) for _, score in row]
    return json.dumps(content, ensure_ascii=False)


def keyword_fields(row: Sequence[tuple[str, float]], scores: bool) -> list[str]:
    """Return the fields of a row. Tabs and line ends in a word, which would split it, become blanks."""
    return [" ".join(word.split()) + (f" {score:.4f}" if scores else "") for word, score in row]


def format_metrics(metrics: Sequence[Metric], as_json: bool) -> str:
    """Return the text that ``evaluate`` prints: a table with one line per metric."""
    if as_json:
        rows = [
            {"metric": metric.metric, "use_bias": metric.use_bias, **asdict(metric.figures)}
            for metric in metrics
        ]
        return json.dumps(rows, indent=2) + "\n"
    by_bias = {(metric.metric, metric.use_bias): metric for metric in metrics}
    lines = [f"{'':28}{'with bias':>17}{'without bias':>17}{'sentences':>11}{'skipped':>9}"]
    for name in dict.fromkeys(metric.metric for metric in metrics):
        with_bias, without_bias = by_bias[name, True], by_bias.get((name, False), "")
        counts = with_bias.figures
        lines.append(
            f"{name:28}{with_bias!s:>17}{without_bias!s:>17}{counts.n_rows:>11,}{counts.n_skipped:>9,}"
        )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def write(text: str) -> None:
    """Write to standard output; exit with code 141 if its reader has closed it."""
    if sys.stdout is None:
        raise ValueError("standard output is closed; send it to a file or a pipe.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes standard output at exit, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None

"""Results on standard output; errors and warnings on standard error. Loads neither torch nor NumPy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer

PERPLEXITY = "perplexity per word"  # the only metric that is not a share


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


def format_summary(summary: dict[str, Any], as_json: bool) -> str:
    """Return the text that ``fit`` prints; the keys of the summary are those of the JSON object."""
    if as_json:
        return json.dumps(summary, default=asdict, ensure_ascii=False) + "\n"
    rows = [
        ("words", f"{summary['words']:,}"),
        ("rank", f"{summary['rank']:,} of {summary['dimensions']:,} dimensions"),
        ("trained on", f"{summary['sentences_trained_on']:,} sentences, {summary['passes']} passes"),
    ]
    if summary["blank_lines"]:
        rows.append(("left out", f"{summary['blank_lines']:,} blank lines"))
    if summary["keyword_accuracy"] is not None:
        rows.append(("held out", f"{summary['sentences_held_out']:,} sentences for evaluation"))
        title = "keyword accuracy"
        for name, figures in summary["keyword_accuracy"].items():
            rows.append((title, f"{figures!s:13}  {name.replace('_', ' ')}"))
            title = ""
    rows.append(("saved in", summary["out"]))
    return "".join(f"{name:18} {value}\n" for name, value in rows)


def format_keywords(
    rows: Sequence[Sequence[tuple[str, float]]], first_line: int, scores: bool, as_json: bool
) -> str:
    """Return one line per row of (word, score) pairs; ``first_line`` is the number of the first row."""
    lines = []
    for number, row in enumerate(rows, start=first_line):
        if as_json:
            content: dict[str, Any] = {"line": number, "keywords": [word for word, _ in row]}
            if scores:
                content["scores"] = [round(float(score), 4) for _, score in row]
            lines.append(json.dumps(content, ensure_ascii=False))
        else:
            # Tabs and line ends in a word, which would split its field, become blanks.
            fields = [" ".join(word.split()) + (f" {score:.4f}" if scores else "") for word, score in row]
            lines.append("\t".join(fields))
    return "".join(f"{line}\n" for line in lines)


def format_metrics(metrics: Mapping[tuple[str, bool], Figures], as_json: bool) -> str:
    """Return the text that ``evaluate`` prints: a table with one line per metric."""
    if as_json:
        rows = [
            {"metric": name, "use_bias": use_bias, **asdict(figures)}
            for (name, use_bias), figures in metrics.items()
        ]
        return json.dumps(rows, indent=2) + "\n"
    lines = [f"{'':28}{'with bias':>17}{'without bias':>17}{'sentences':>11}{'skipped':>9}"]
    for name in dict.fromkeys(name for name, _ in metrics):
        figures = metrics[name, True]
        with_bias = str(figures)
        if name == PERPLEXITY and figures.value is not None:
            with_bias = f"{figures.value:,.1f}"
        without_bias = str(metrics.get((name, False), ""))
        lines.append(
            f"{name:28}{with_bias:>17}{without_bias:>17}{figures.n_rows:>11,}{figures.n_skipped:>9,}"
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


def is_user_error(error: Exception) -> bool:
    """Whether an error is one that the user can correct, not a fault of this package."""
    if isinstance(error, ImportError):
        return error.name is None  # the message of a missing extra; Python's own errors have a name
    if isinstance(error, RuntimeError):
        import torch

        from flip_sklearn.encoders import EncodingError

        return isinstance(error, (EncodingError, torch.OutOfMemoryError))
    return isinstance(error, (ValueError, OSError, MemoryError, FloatingPointError))


def write_message(text: str) -> None:
    """Write a message to standard error, if it is open."""
    if sys.stderr is not None:
        sys.stderr.write(f"flip-sklearn: {text}\n")


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Write a warning to standard error; replaces ``warnings.showwarning``."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):  # clears the progress bars and draws them again
        write_message(f"warning: {message}")

"""Results on standard output; errors and warnings on standard error. Loads neither torch nor NumPy."""

from __future__ import annotations

import io
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


@dataclass(frozen=True)
class ComparedWord:
    """A word that set A or B has more often, its shares of texts, and their difference with its interval."""

    word: str
    more_in: str
    share_a: float
    share_b: float
    difference: float
    difference_low: float
    difference_high: float
    log_ratio: float
    q_value: float


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
    return _table(rows)


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


def format_rows(rows: Sequence[tuple[int, float, str | None]], scores: bool, as_json: bool) -> str:
    """Return one line for each (row, score, text); the text is None if it is not known."""
    lines = []
    for row, score, text in rows:
        if as_json:
            content = {"row": row, "score": round(score, 4), "text": text}
            lines.append(json.dumps({k: v for k, v in content.items() if v is not None}, ensure_ascii=False))
        else:
            fields = [str(row), *([f"{score:.4f}"] if scores else [])]
            lines.append("\t".join(fields if text is None else [*fields, " ".join(text.split())]))
    return "".join(f"{line}\n" for line in lines)


def format_comparison(words: Sequence[ComparedWord], as_json: bool) -> str:
    """Return the text that ``compare`` prints: a table with one line per word."""
    if as_json:
        return json.dumps([asdict(word) for word in words], indent=2, ensure_ascii=False) + "\n"
    rows = [
        (
            " ".join(word.word.split()),
            word.more_in,
            f"{100 * word.share_a:.2f} %",
            f"{100 * word.share_b:.2f} %",
            f"{100 * word.difference:+.2f}",
            f"{100 * word.difference_low:+.2f} to {100 * word.difference_high:+.2f}",
            f"{word.q_value:.2g}",
        )
        for word in words
    ]
    return _table(rows, ("", "more in", "texts of A", "texts of B", "difference", "interval", "q"))


def format_metrics(metrics: Mapping[tuple[str, bool], Figures], as_json: bool) -> str:
    """Return the text that ``evaluate`` prints: a table with one line per metric."""
    if as_json:
        records = [
            {"metric": name, "use_bias": use_bias, **asdict(figures)}
            for (name, use_bias), figures in metrics.items()
        ]
        return json.dumps(records, indent=2) + "\n"
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(name for name, _ in metrics):
        figures = metrics[name, True]
        with_bias = str(figures)
        if name == PERPLEXITY and figures.value is not None:
            with_bias = f"{figures.value:,.1f}"
        without_bias = str(metrics.get((name, False), ""))
        rows.append((name, with_bias, without_bias, f"{figures.n_rows:,}", f"{figures.n_skipped:,}"))
    return _table(rows, ("", "with bias", "without bias", "sentences", "skipped"))


def _table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> str:
    """Return a table as text; with a header, all columns but the first have numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=header is not None, pad_edge=False, padding=(0, 3, 0, 0))
    for number, name in enumerate(header or rows[0]):
        table.add_column(Text(name), justify="right" if header and number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    # As wide as the text needs: a path must not be wrapped.
    width = 20 + 4 * len(rows[0]) + sum(max(map(len, cells)) for cells in zip(*rows, strict=True))
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=max(width, 100))
    console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def write(text: str) -> None:
    """Write to standard output; exit with code 141 if its reader has closed it."""
    if sys.stdout is None:
        raise ValueError("standard output is closed; send it to a file or a pipe.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_output()
        raise typer.Exit(141) from None
    except OSError as error:
        abandon_output()
        raise OSError(error.errno, error.strerror, "standard output") from None


def abandon_output() -> None:
    """Discard the rest of the output; the interpreter flushes it at exit, which would fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(null, stream.fileno())


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

"""Numbers as text: shares, differences and their intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from flip_sklearn.diagnostics import RareWordRecall, Selectivity, WordRecoverability
from flip_sklearn.diagnostics.bins import NEVER_SEEN

MINUS = "\N{MINUS SIGN}"
NOT_KNOWN = "not known"


def quoted(name: Any) -> str:
    """The name of a view or a language in quotation marks."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}"


def spelled_bands(result: WordRecoverability | Selectivity | RareWordRecall) -> list[str]:
    """The bands of counts in training as text, by what they hold.

    "1-9", which could be read as a difference, is "1 to 9", or "4 to 9" if all words of the vocabulary occur
    at least four times.
    """
    counts = result.train_count[result.train_count > 0]
    rarest = round(float(counts.min())) if len(counts) else 0
    texts = []
    for band in map(str, result.bands):
        if band == NEVER_SEEN:
            texts.append(band)
            continue
        is_open = band.endswith("+")
        low, _, high = band.removesuffix("+").partition("-")
        least, most = (int((end or low).replace(",", "")) for end in (low, high))
        if least < rarest and (is_open or rarest <= most):
            low = number(rarest)
        texts.append(f"{low} or more" if is_open else low if low == (high or low) else f"{low} to {high}")
    return texts


def number(value: Any) -> str:
    """An integer with thousands separators; "not known" for nan."""
    return f"{int(value):,}" if np.isfinite(value) else NOT_KNOWN


def percent(value: Any) -> str:
    """A share in percent with one decimal."""
    return f"{_hundredths(value)}%" if np.isfinite(value) else NOT_KNOWN


def points(value: Any) -> str:
    """A difference of shares in percentage points, without its sign."""
    return f"{_hundredths(abs(value))} points"


def share(mean: Any, *index: int, in_brackets: bool = False) -> str:
    """A share with its interval: 68.4% (67.1% to 69.7%), or 68.4%, 67.1% to 69.7% in brackets."""
    value, low, high = mean.value[index], mean.low[index], mean.high[index]
    interval = f"{percent(low)} to {percent(high)}" if np.isfinite(low + high) else None
    return _with_interval(percent(value), interval, in_brackets)


def change(difference: Any, *index: int, in_brackets: bool = False) -> str:
    """A difference with its sign and its interval: -12.3 points (-13.6 to -10.9)."""
    value, low, high = difference.value[index], difference.low[index], difference.high[index]
    if not np.isfinite(value):
        return NOT_KNOWN
    interval = f"{_signed(low)} to {_signed(high)}" if np.isfinite(low + high) else None
    return _with_interval(f"{_signed(value)} points", interval, in_brackets)


def size(difference: Any, *index: int, in_brackets: bool = False) -> str:
    """A significant difference without its sign: 12.3 points (10.9 to 13.6)."""
    low, high = sorted([abs(difference.low[index]), abs(difference.high[index])])
    interval = f"{_hundredths(low)} to {_hundredths(high)}"
    return _with_interval(points(difference.value[index]), interval, in_brackets)


def times(counts: str) -> str:
    """A spelled band as a number of times: "4 to 9 times", "once"."""
    return "once" if counts == "1" else f"{counts} times"


def listed(names: Iterable[Any], word: str = "and") -> str:
    """Join names: A, B and C."""
    *rest, last = map(str, names)
    return f"{', '.join(rest)} {word} {last}" if rest else last


def _with_interval(value: str, interval: str | None, in_brackets: bool) -> str:
    if interval is None:
        return value
    return f"{value}, {interval}" if in_brackets else f"{value} ({interval})"


def _hundredths(value: Any) -> str:
    return f"{100 * float(value) + 0.0:.1f}".replace("-0.0", "0.0").replace("-", MINUS)


def _signed(value: Any) -> str:
    text = _hundredths(value)
    return text if text.startswith(MINUS) or text == "0.0" else f"+{text}"

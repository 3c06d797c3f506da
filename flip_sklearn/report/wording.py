"""Figures as words: one way to write a share, a difference and their intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

MINUS = "\N{MINUS SIGN}"
NOT_KNOWN = "not known"


def quoted(name: Any) -> str:
    """A view's or a word's name in quotation marks."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}"


def spelled(band: Any) -> str:
    """A band of counts as words: "1-9" is 1 to 9, which no line break can make 1 less 9."""
    return str(band).replace("-", " to ")


def number(value: Any) -> str:
    """A whole number, thousands parted; as the rules of figures, "not known" for nan."""
    return f"{int(value):,}" if np.isfinite(value) else NOT_KNOWN


def percent(value: Any) -> str:
    """A share as per cent with one decimal."""
    return f"{_hundredths(value)}%" if np.isfinite(value) else NOT_KNOWN


def points(value: Any) -> str:
    """A difference of shares in percentage points, without its sign."""
    return f"{_hundredths(abs(value))} points"


def share(mean: Any, *at: int, bare: bool = False) -> str:
    """A share with its interval: 68.4% (67.1% to 69.7%), or bare, to stand in brackets itself."""
    value, low, high = (ends[at] for ends in (mean.value, mean.low, mean.high))
    interval = f"{percent(low)} to {percent(high)}" if np.isfinite(low + high) else None
    return _joined(percent(value), interval, bare)


def change(difference: Any, *at: int, bare: bool = False) -> str:
    """A difference with its sign and its interval: -12.3 points (-13.6 to -10.9)."""
    value, low, high = (ends[at] for ends in (difference.value, difference.low, difference.high))
    if not np.isfinite(value):
        return NOT_KNOWN
    interval = f"{_signed(low)} to {_signed(high)}" if np.isfinite(low + high) else None
    return _joined(f"{_signed(value)} points", interval, bare)


def size(difference: Any, *at: int, bare: bool = False) -> str:
    """A difference without its sign, the ends of its interval from small to large.

    For differences whose interval lies on one side of 0: 12.3 points (10.9 to 13.6).
    """
    low, high = sorted(abs(ends[at]) for ends in (difference.low, difference.high))
    return _joined(points(difference.value[at]), f"{_hundredths(low)} to {_hundredths(high)}", bare)


def listed(names: Iterable[Any]) -> str:
    """A, B and C."""
    *rest, last = map(str, names)
    return f"{', '.join(rest)} and {last}" if rest else last


def _joined(value: str, interval: str | None, bare: bool) -> str:
    if interval is None:
        return value
    return f"{value}, {interval}" if bare else f"{value} ({interval})"


def _hundredths(value: Any) -> str:
    return f"{100 * float(value) + 0.0:.1f}".replace("-0.0", "0.0").replace("-", MINUS)


def _signed(value: Any) -> str:
    text = _hundredths(value)
    return text if text.startswith(MINUS) or text == "0.0" else f"+{text}"

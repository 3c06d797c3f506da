"""What the pictures share: axes, lines that differ without colour, and text that any word may be in."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

BLUE, PALE = "#1f5a8a", "#bbbbbb"

# Neighbours differ in lightness, too: L* is 36, 63, 5, 51, 73.
_COLORS = (BLUE, "#d08a2e", "#111111", "#7a7a7a", "#8fb8d9")
_MARKERS = "os^DvPX<>*"
_DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oo", "----", "**", "||||")
_BOX = "\N{WHITE SQUARE}"
_MORE = "\N{HORIZONTAL ELLIPSIS}"
NOTHING = "\N{EN DASH}"  # in place of a number that there is none of


def series(i: int) -> dict[str, Any]:
    """How line i is drawn; ten lines differ in their markers, five also in colour and dashes."""
    return {
        "color": _COLORS[i % len(_COLORS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": _DASHES[(i + i // len(_DASHES)) % len(_DASHES)],
        "markersize": 5,
        "linewidth": 1.5,
    }


def axes(ax: Any, size: tuple[float, float]) -> Any:
    """The given axes, or those of a new figure of this size in inches."""
    if ax is not None:
        if not hasattr(ax, "get_xlim"):
            raise ValueError(
                f"ax is a {type(ax).__name__}; pass one matplotlib Axes, such as axes[0] of several."
            )
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'flip-sklearn[plots]'") from error
    return plt.subplots(figsize=size, layout="constrained")[1]


def finish(ax: Any, name: Any) -> None:
    """The title, and no frame where there is no axis."""
    if name is not None:
        # Long labels at the side will take of the width when the layout is made, at drawing.
        lines = [line for tick in ax.get_yticklabels() for line in tick.get_text().split("\n")]
        beside = 5 * max(map(len, lines), default=0) - 36
        points = ax.get_window_extent().width / ax.figure.dpi * 72 - max(beside, 0)
        ax.set_title(wrap([name], int(points / 5.5), lines=4)[0], fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def legend(
    ax: Any, handles: Sequence[Any], labels: Iterable[Any], *, beside: bool = False, **kwargs: Any
) -> Any:
    """A legend of these labels, inside the axes or beside them."""
    # Some versions of matplotlib leave out labels that start with an underscore.
    texts = [f" {text}" if text.startswith("_") else text for text in wrap(labels, 38)]
    if beside:
        kwargs |= {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    return ax.legend(handles, texts, frameon=False, fontsize=8, **kwargs)


def percent(axis: Any) -> None:
    """Shares from 0 to 1 as percent on an axis."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:.6g}%")
    axis.set_tick_params(labelsize=9)


def shares(ax: Any, label: str) -> None:
    """Shares on the vertical axis, from 0, with lines to read them by."""
    percent(ax.yaxis)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(label, fontsize=9)
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.set_axisbelow(True)


def round_numbers(low: float, high: float) -> np.ndarray:
    """1, 2, 5, 10, 20, 50, ... as far as they lie in the range."""
    powers = 10.0 ** np.arange(int(np.log10(high)) + 1)
    numbers = np.outer(powers, [1, 2, 5]).ravel().astype(int)
    return numbers[(numbers >= low) & (numbers <= high)]


def spread(at: np.ndarray, labels: Iterable[Any]) -> tuple[list[float], list[str]]:
    """Ticks that lie apart: those that would run into the one before are left out."""
    texts, width = [str(label) for label in labels], float(np.ptp(at)) or 1.0
    kept: list[int] = []
    for i, place in enumerate(at):
        if not kept or abs(place - at[kept[-1]]) / width > 0.016 * (len(texts[i]) + 1):
            kept.append(i)
    return [float(at[i]) for i in kept], [texts[i] for i in kept]


def band(ax: Any, x: Any, low: np.ndarray, high: np.ndarray, color: Any) -> Any:
    """Intervals along a line."""
    return ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def fill(i: int) -> dict[str, Any]:
    """How bar i of a group is filled; ten bars differ in their hatches."""
    inside = BLUE if i == 0 else "white"
    return {"facecolor": inside, "edgecolor": BLUE, "hatch": _HATCHES[i % len(_HATCHES)]}


def bars(ax: Any, lengths: np.ndarray, filled: np.ndarray, **kwargs: Any) -> Any:
    """Bars across, one below the other, filled or hatched."""
    looks = [fill(0 if one else 1) for one in filled]
    settings = {"color": [look["facecolor"] for look in looks], "edgecolor": BLUE} | kwargs
    drawn = ax.barh(np.arange(len(lengths)), lengths, **settings)
    for bar, look in zip(drawn, looks, strict=True):
        bar.set_hatch(look["hatch"])
    return drawn


def number(value: float, form: str) -> str:
    """A number with a proper minus sign."""
    return format(value, form).replace("-", "\N{MINUS SIGN}")


def value(ax: Any, share: float, high: float, at: float, star: bool) -> Any:
    """A share in percent, behind the bar and its whisker."""
    text = NOTHING if np.isnan(share) else f"{share:.1%}" + (" *" if star else "")
    behind = np.nanmax([share, high, 0.0])
    return ax.annotate(
        text, (behind, at), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def whiskers(
    ax: Any, at: Any, low: Any, high: Any, *, across: bool = False, color: Any = "#111111"
) -> Any:
    """Intervals as error bars, which end where the intervals end even if the value is not inside."""
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    middle, half = (low + high) / 2, (high - low) / 2
    style = {"fmt": "none", "ecolor": color, "elinewidth": 1.2, "capsize": 3}
    if across:
        return ax.errorbar(middle, at, xerr=half, **style)
    return ax.errorbar(at, middle, yerr=half, **style)


def same_shape(shape: tuple[int, ...], **arrays: Any) -> list[np.ndarray]:
    """Arrays of float of the shape that the names along their axes ask for."""
    given = {name: np.asarray(values, dtype=float) for name, values in arrays.items()}
    for name, values in given.items():
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}; what it is over asks for {shape}.")
    return list(given.values())


def check_result(result: Any, kinds: type | tuple[type, ...], source: str) -> None:
    """Raise a ValueError unless the result is of one of these kinds."""
    if not isinstance(result, kinds):
        raise ValueError(f"result is a {type(result).__name__}; pass what {source} gives.")


def words(texts: Iterable[Any]) -> list[str]:
    """Words as they are: a dollar sign starts no formula, a character without a glyph is a box.

    matplotlib would warn of each such character, at every drawing; here it is one warning in all.
    """
    given = [str(text) for text in texts]
    rare = {c for text in given for c in text if ord(c) > 0x24F and not c.isspace()}
    missing = rare and _without_glyph(rare)
    if missing:
        lost = [text for text in given if missing & set(text)]
        warnings.warn(
            f"{len(lost)} words have characters that the font lacks, drawn as {_BOX}, such as "
            f"{lost[0]!r}; set matplotlib.rcParams['font.family'] to a list of installed fonts that have "
            "them, such as ['DejaVu Sans', 'Noto Sans Devanagari'].",
            stacklevel=4,
        )
    box = dict.fromkeys(map(ord, missing), _BOX)
    return [text.translate(box).replace("$", r"\$") for text in given]


def wrap(texts: Iterable[Any], width: int, lines: int = 3) -> list[str]:
    """Words as they are in lines of at most this many characters; the rest is left out."""
    width, fitted = max(width, 8), []
    for text in texts:
        parts = textwrap.wrap(str(text), width) or [" "]
        if len(parts) > lines:
            parts = [*parts[: lines - 1], parts[lines - 1][: width - 1] + _MORE]
        fitted.append("\n".join(parts))
    return words(fitted)


def _without_glyph(characters: set[str]) -> set[str]:
    """Those of the characters that no font of rcParams["font.family"] has."""
    from matplotlib import font_manager, rcParams

    fonts = []
    for family in rcParams["font.family"]:
        for member in rcParams.get(f"font.{family}", [family]):
            wanted = font_manager.FontProperties(family=[member])
            try:
                path = font_manager.findfont(
                    wanted, fallback_to_default=False, rebuild_if_missing=False
                )
            except ValueError:  # not installed
                continue
            fonts.append(font_manager.get_font(path))
    return {c for c in characters if not any(font.get_char_index(ord(c)) for font in fonts)}

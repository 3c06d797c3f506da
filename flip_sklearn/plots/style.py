"""Code shared by the displays: checks, line and bar styles, labels, intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from flip_sklearn.parameters import warn_caller

BLUE, LIGHT_GRAY = "#1f5a8a", "#bbbbbb"

# Each has a contrast of at least 3 to white (WCAG 2.1, graphics). Neighbours also differ in lightness, for
# printing in grayscale: L* is 36, 53, 5, 51, 19.
_COLORS = (BLUE, "#bf6c12", "#111111", "#7a7a7a", "#5e0a1e")
GRAY = "#767676"
_MARKERS = "os^DvPX<>*"
_DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oo", "----", "**", "||||")
_MISSING_GLYPH = "\N{WHITE SQUARE}"
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
NO_VALUE = "\N{EN DASH}"  # drawn instead of nan


def check_shapes(shape: tuple[int, ...], **arrays: Any) -> list[np.ndarray]:
    """Convert arrays to float and check that each has the given shape."""
    converted = []
    for name, values in arrays.items():
        array = np.asarray(values, dtype=float)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; the given names require {shape}.")
        converted.append(array)
    return converted


def check_flags(name: str, flags: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Convert flags to bool and check their shape; None is all False."""
    if flags is None:
        return np.zeros(shape, dtype=bool)
    return check_shapes(shape, **{name: flags})[0] > 0


def check_result(result: Any, kinds: type | tuple[type, ...], source: str) -> None:
    """Raise a ValueError unless the result is an instance of one of these classes."""
    if not isinstance(result, kinds):
        raise ValueError(f"result is a {type(result).__name__}; pass the result of {source}.")


def add_legend(
    ax: Any, handles: Sequence[Any], labels: Sequence[str], *, where: str = "inside", width: int = 38
) -> None:
    """Add a legend inside, above or to the right of the axes, without the handles that are None.

    A legend above the axes covers no bar or word; the title is drawn above it.
    """
    drawn = [i for i, handle in enumerate(handles) if handle is not None]
    if not drawn:
        return
    texts = wrap_labels([labels[i] for i in drawn], width)
    # Some versions of matplotlib leave out labels that start with an underscore.
    texts = [f" {text}" if text.startswith("_") else text for text in texts]
    places: dict[str, dict[str, Any]] = {
        "inside": {},
        "above": {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2},
        "right": {"loc": "upper left", "bbox_to_anchor": (1, 1)},
    }
    ax.legend([handles[i] for i in drawn], texts, frameon=False, fontsize=8, **places[where])


def title_pad(ax: Any) -> float:
    """Return the distance in points from the axes to a title that is above the legend."""
    legend = ax.get_legend()
    if legend is None or legend.get_bbox_to_anchor().y0 < ax.bbox.y1:
        return 6.0
    above = float(legend.get_window_extent().y1 - ax.bbox.y1)
    return max(6.0, above / float(ax.figure.dpi) * 72 + 4)


def format_percent(axis: Any) -> None:
    """Format the tick labels of an axis of shares as percentages."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:.6g}%")
    axis.set_tick_params(labelsize=9)


def set_share_axis(ax: Any, label: str) -> None:
    """Format the vertical axis in percent, starting at 0, with grid lines."""
    format_percent(ax.yaxis)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(label, fontsize=9)
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.set_axisbelow(True)


def round_numbers(low: float, high: float) -> np.ndarray:
    """Return the numbers among 1, 2, 5, 10, 20, 50, ... from low to high."""
    powers = 10.0 ** np.arange(int(np.log10(high)) + 1)
    numbers = np.outer(powers, [1, 2, 5]).ravel().astype(int)
    return numbers[(numbers >= low) & (numbers <= high)]


def spaced_ticks(positions: np.ndarray, labels: Iterable[Any]) -> tuple[list[float], list[str]]:
    """Drop ticks whose labels would overlap the previous one."""
    texts = [str(label) for label in labels]
    width = float(np.ptp(positions)) or 1.0
    selected: list[int] = []
    for i, position in enumerate(positions):
        min_gap = 0.016 * (len(texts[i]) + 1)
        if not selected or abs(position - positions[selected[-1]]) / width > min_gap:
            selected.append(i)
    return [float(positions[i]) for i in selected], [texts[i] for i in selected]


def line_style(i: int) -> dict[str, Any]:
    """Return the style of line i. Ten lines differ in markers, five also in color and dashes."""
    return {
        "color": _COLORS[i % len(_COLORS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": _DASHES[(i + i // len(_DASHES)) % len(_DASHES)],
        "markersize": 5,
        "linewidth": 1.5,
    }


def bar_style(i: int) -> dict[str, Any]:
    """Return the fill of bar i of a group. Ten bars differ in their hatches."""
    color = BLUE if i == 0 else "white"
    return {"facecolor": color, "edgecolor": BLUE, "hatch": _HATCHES[i % len(_HATCHES)]}


def draw_bars(ax: Any, lengths: np.ndarray, is_filled: Any = True, **kwargs: Any) -> Any:
    """Draw horizontal bars, the first at the top, each filled or hatched."""
    styles = [bar_style(0 if filled else 1) for filled in np.broadcast_to(is_filled, len(lengths))]
    settings = {"color": [style["facecolor"] for style in styles], "edgecolor": BLUE} | kwargs
    container = ax.barh(np.arange(len(lengths)), lengths, **settings)
    for bar, style in zip(container, styles, strict=True):
        bar.set_hatch(style["hatch"])
    return container


def label_bars(ax: Any, labels: Sequence[str], margin: float) -> None:
    """Label bars at 0, 1, ..., the first at the top; the margin is the distance to the ends of the axis."""
    ax.set_yticks(range(len(labels)), labels, fontsize=9)
    ax.set_ylim(len(labels) - 1 + margin, -margin)


def draw_line(ax: Any, x: Any, y: Any, low: Any, high: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Draw a line, and its intervals as a shaded band; return both."""
    (line,) = ax.plot(x, y, **kwargs)
    return line, ax.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)


def draw_reference(ax: Any, share: float | None) -> Any:
    """Draw a dotted horizontal line, unless the share is None."""
    if share is None:
        return None
    return ax.axhline(share, color="black", linewidth=1, linestyle=":")


def draw_whiskers(
    ax: Any, position: Any, low: Any, high: Any, *, horizontal: bool = False, color: Any = "#111111"
) -> Any:
    """Draw intervals as error bars from low to high, which need not contain the value."""
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    middle, half = (low + high) / 2, (high - low) / 2
    style = {"fmt": "none", "ecolor": color, "elinewidth": 1.2, "capsize": 3}
    if horizontal:
        return ax.errorbar(middle, position, xerr=half, **style)
    return ax.errorbar(position, middle, yerr=half, **style)


def annotate_share(ax: Any, share: float, high: float, y: float, has_star: bool) -> Any:
    """Write a share in percent to the right of its bar and error bar."""
    text = NO_VALUE if np.isnan(share) else f"{share:.1%}" + (" *" if has_star else "")
    return ax.annotate(
        text,
        (np.nanmax([share, high, 0.0]), y),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def legend_marker(marker: str, significant: np.ndarray) -> Any:
    """Return a legend handle for signs that are written as text; None if no flag is set."""
    from matplotlib.lines import Line2D

    if not significant.any():
        return None
    return Line2D([], [], linestyle="", marker=marker, color="black", markeredgewidth=0.2)


def format_number(value: float, form: str) -> str:
    """Format a number with a typographic minus sign."""
    return format(value, form).replace("-", "\N{MINUS SIGN}")


def escape_labels(labels: Iterable[Any]) -> list[str]:
    """Escape dollar signs, and replace characters that the font lacks by boxes.

    The replacement gives one warning; matplotlib would warn of each character at every drawing.
    """
    texts = [str(label) for label in labels]
    non_latin = {c for text in texts for c in text if ord(c) > 0x24F and not c.isspace()}
    missing = _without_glyph(non_latin) if non_latin else set()
    affected = [text for text in texts if not missing.isdisjoint(text)]
    if affected:
        warn_caller(
            f"{len(affected)} words have characters that the font lacks, drawn as {_MISSING_GLYPH}, "
            f"such as {affected[0]!r}; set matplotlib.rcParams['font.family'] to a list of installed "
            "fonts that have them, such as ['DejaVu Sans', 'Noto Sans Devanagari']."
        )
    boxes = {ord(character): _MISSING_GLYPH for character in missing}
    return [text.translate(boxes).replace("$", r"\$") for text in texts]


def wrap_labels(labels: Iterable[Any], width: int, lines: int = 3) -> list[str]:
    """Escape labels and break them into lines of at most ``width`` characters, with an ellipsis."""
    width = max(width, 8)
    wrapped = []
    for label in labels:
        parts = textwrap.wrap(str(label), width) or [" "]
        if len(parts) > lines:
            parts = [*parts[: lines - 1], parts[lines - 1][: width - 1] + _ELLIPSIS]
        wrapped.append("\n".join(parts))
    return escape_labels(wrapped)


def _without_glyph(characters: set[str]) -> set[str]:
    """Return the characters that no font of rcParams["font.family"] has."""
    from matplotlib import font_manager, rcParams

    fonts = []
    for family in rcParams["font.family"]:
        for member in rcParams.get(f"font.{family}", [family]):
            properties = font_manager.FontProperties(family=[member])
            try:
                path = font_manager.findfont(properties, fallback_to_default=False, rebuild_if_missing=False)
            except ValueError:  # not installed
                continue
            fonts.append(font_manager.get_font(path))
    return {c for c in characters if not any(font.get_char_index(ord(c)) for font in fonts)}

"""Recalls of bands of words side by side, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display

_MARKERS = "osD^vP"


class BandDisplay(Display):
    """Base class: each band of words is a row with a point and an interval for each recall.

    A line connects the first two recalls.
    """

    def __init__(self, *, bands: Any, recalls: Mapping[str, Any]) -> None:
        self.bands = tuple(bands)
        if not isinstance(recalls, Mapping) or not recalls:
            raise ValueError(
                f"recalls is {recalls!r}; pass a mapping of at least one name to (3, b) numbers."
            )
        shape = (3, len(self.bands))
        names = {str(name): values for name, values in recalls.items()}
        self.recalls = dict(zip(names, style.check_shapes(shape, **names), strict=True))

    def _figure_size(self) -> tuple[float, float]:
        return 6.4, min(1.4 + 0.45 * len(self.bands), 12.0)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        y = np.arange(len(self.bands))
        points = list(self.recalls.values())
        self.connection_: list[Any] = []
        if len(points) > 1:
            settings = {"color": style.LIGHT_GRAY, "linewidth": 3, "zorder": 0} | kwargs
            self.connection_ = [ax.plot([points[0][0, i], points[1][0, i]], [i, i], **settings)[0] for i in y]
        self.line_, self.errorbar_ = [], []
        for i, (value, low, high) in enumerate(points):
            # Side by side, so that no interval covers another.
            position = y + 0.1 * (i - (len(points) - 1) / 2)
            line = style.line_style(i) | {"linestyle": "", "marker": _MARKERS[i % len(_MARKERS)]}
            if i:
                line["markerfacecolor"] = "white"
            self.line_ += ax.plot(value, position, **line)
            whiskers = style.draw_whiskers(ax, position, low, high, horizontal=True, color=line["color"])
            self.errorbar_.append(whiskers)
        style.label_bars(ax, style.wrap_labels(self.bands, 26, lines=2), 0.6)
        style.format_percent(ax.xaxis)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("share of words found", fontsize=9)
        ax.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        ax.set_axisbelow(True)
        style.add_legend(ax, self.line_, list(self.recalls), where="above")

"""What readers find of each word before and after an erasure, as points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.audit import Leakage
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display

# The names of readers in the legend.
_NAMES = {"model": "model", "linear": "linear reader", "network": "neural network"}


class LeakageDisplay(Display):
    """Area under the ROC curve of each reader for each word, before an erasure and after it.

    Each word is a row. A line connects the hollow point before the erasure with the filled one after it,
    which has a confidence interval. The dotted line at 0.5 is chance: a word whose interval lies to the right
    of it is still found.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.leakage`. Further arguments of
    :meth:`plot` are those of ``Axes.plot`` for the connecting lines, such as ``linewidth``.

    Parameters
    ----------
    words : sequence of m str
        From the top to the bottom.
    readers : sequence of r str
        Names in the legend.
    before : array-like of shape (r, m)
        Area under the curve before the erasure, in [0, 1]; nan is not drawn.
    after : array-like of shape (3, r, m)
        After the erasure: the area, and the lower and the upper end of its interval.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    before_, after_ : list of r matplotlib Line2D
        The points of each reader.
    errorbar_ : list of r matplotlib ErrorbarContainer
        The intervals of each reader after the erasure.
    connection_ : list of matplotlib Line2D
        The lines between the points, r for each word.
    chance_ : matplotlib Line2D
        The line at 0.5.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import LeakageDisplay
    >>> display = LeakageDisplay(words=["dog", "cat"], readers=["linear reader"], before=[[0.99, 0.97]],
    ...                          after=[[[0.5, 0.51]], [[0.48, 0.47]], [[0.52, 0.55]]])
    >>> len(display.plot(Figure().subplots()).connection_)
    2
    """

    def __init__(self, *, words: Sequence[str], readers: Sequence[str], before: Any, after: Any) -> None:
        self.words, self.readers = tuple(words), tuple(readers)
        shape = (len(self.readers), len(self.words))
        (self.before,) = style.check_shapes(shape, before=before)
        (self.after,) = style.check_shapes((3, *shape), after=after)

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, Leakage, "leakage")
        after = np.stack([result.after.value, result.after.low, result.after.high])
        names = [_NAMES[reader] for reader in result.readers]
        return cls(words=result.words, readers=names, before=result.before.value, after=after)

    def _figure_size(self) -> tuple[float, float]:
        return 6.4, min(1.4 + 0.45 * len(self.words), 12.0)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        y = np.arange(len(self.words))
        self.before_, self.after_, self.errorbar_, self.connection_ = [], [], [], []
        self.chance_ = ax.axvline(0.5, color="black", linewidth=1, linestyle=":")
        for i in range(len(self.readers)):
            # Side by side, so that no interval covers another.
            position = y + 0.2 * (i - (len(self.readers) - 1) / 2)
            value, low, high = self.after[:, i]
            settings = {"color": style.LIGHT_GRAY, "linewidth": 2, "zorder": 0} | kwargs
            for start, end, height in zip(self.before[i], value, position, strict=True):
                self.connection_ += ax.plot([start, end], [height, height], **settings)
            line = style.line_style(i) | {"linestyle": ""}
            self.before_ += ax.plot(self.before[i], position, **(line | {"markerfacecolor": "white"}))
            self.after_ += ax.plot(value, position, **line)
            self.errorbar_.append(
                style.draw_whiskers(ax, position, low, high, horizontal=True, color=line["color"])
            )
        style.label_bars(ax, style.wrap_labels(self.words, 26, lines=2), 0.6)
        lowest = np.nanmin(np.append(self.after, self.before), initial=0.5)
        ax.set_xlim(max(min(lowest, 0.45) - 0.03, -0.02), 1.02)
        ax.tick_params(axis="x", labelsize=9)
        ax.set_xlabel("area under the ROC curve", fontsize=9)
        ax.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        ax.set_axisbelow(True)
        labels = [*self.readers, "before the erasure"]
        style.add_legend(ax, [*self.after_, *self.before_[:1]], labels, where="above")

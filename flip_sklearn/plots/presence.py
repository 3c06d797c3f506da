"""Reliability of the probabilities that words occur."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.metrics.presence import PresenceCalibration
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class PresenceCalibrationDisplay(Display):
    """Share of words that occur against their predicted probability, a reliability diagram.

    Points on the dotted diagonal are calibrated; below it the probabilities are too high. The area of a point
    grows with the number of its words.

    :meth:`from_result` draws a result of :func:`flip_sklearn.metrics.presence_calibration`. Further arguments
    of :meth:`plot` are those of ``Axes.plot`` for the line, such as ``linewidth``.

    Parameters
    ----------
    predicted, observed : array-like of shape (b,)
        Mean probability of the words in each bin, and the share of them that occur, in [0, 1]; nan for an
        empty bin, which is not drawn.
    n_pairs : array-like of shape (b,)
        Number of words in each bin.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    line_ : matplotlib Line2D
        The calibration curve.
    points_ : matplotlib PathCollection
        The bins on the curve.
    diagonal_ : matplotlib Line2D
        Perfect calibration.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.metrics import presence_calibration
    >>> from flip_sklearn.plots import PresenceCalibrationDisplay
    >>> result = presence_calibration([[1, 0], [0, 0]], [[0.5, 0.25], [0.5, 0.25]])
    >>> display = PresenceCalibrationDisplay.from_result(result, ax=Figure().subplots())
    >>> display.line_.get_xydata().tolist()
    [[0.25, 0.0], [0.5, 0.5]]
    """

    def __init__(self, *, predicted: Any, observed: Any, n_pairs: Any) -> None:
        shape = np.shape(predicted)
        self.predicted, self.observed, self.n_pairs = style.check_shapes(
            shape, predicted=predicted, observed=observed, n_pairs=n_pairs
        )

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, PresenceCalibration, "presence_calibration")
        return cls(predicted=result.predicted, observed=result.observed, n_pairs=result.n_pairs)

    def _figure_size(self) -> tuple[float, float]:
        return 4.6, 4.4

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        drawn = ~np.isnan(self.predicted + self.observed)
        x, y, n = self.predicted[drawn], self.observed[drawn], self.n_pairs[drawn]
        (self.diagonal_,) = ax.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle=":")
        (self.line_,) = ax.plot(x, y, **({"color": style.BLUE, "linewidth": 1.5} | kwargs))
        sizes = 20 + 160 * np.sqrt(n / max(n.max(initial=1.0), 1.0))
        self.points_ = ax.scatter(x, y, s=sizes, color=self.line_.get_color(), alpha=0.6, linewidth=0)
        for axis in (ax.xaxis, ax.yaxis):
            style.format_percent(axis)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set_xlabel("predicted probability that the word occurs", fontsize=9)
        ax.set_ylabel("share of these words that occur", fontsize=9)
        ax.grid(color="#e5e5e5", linewidth=0.8)
        ax.set_axisbelow(True)

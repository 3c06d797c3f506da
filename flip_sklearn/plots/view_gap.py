"""Accuracy of a model on another view, and the parts of what it loses there, as steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.view_gap import ViewGap
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display

_LABELS = {
    "shift": "shift: removed by means",
    "rotation": "rotation: by an orthogonal map",
    "shear": "shear: by a linear map",
    "content": "content: by no map",
}
# Each part, in the order of a result, as a fill that differs in grayscale from its neighbors.
_FILLS = (
    {"facecolor": style.BLUE},
    {"facecolor": "#7fa8c9"},
    {"facecolor": "#cfdfec"},
    {"facecolor": "white", "hatch": "////"},
)
_HEIGHT = 0.84
# Parts of at least this share have their label inside the bar.
_MIN_INSIDE = 0.055


class ViewGapDisplay(Display):
    """Accuracy of a model on another view, and the parts of what it loses there, as steps.

    Each pair of views is a row, "source on target". The gray bar is the accuracy on the raw target. The parts
    of the loss lead from there, step by step, to the accuracy of the model on its own view, and show their
    size in percentage points, with a star if the interval excludes 0; a negative part leads back to the left.
    The whiskers are the intervals of the accuracies at both ends. The diamond is the accuracy of the target's
    own model, the dotted line that of the baseline.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.view_gap`. Further arguments of
    :meth:`plot` are those of ``Axes.barh``, such as ``linewidth``.

    Parameters
    ----------
    pairs : sequence of p (str, str)
        Source and target of each row, from the top to the bottom.
    parts : sequence of q str
        Names of the parts.
    raw : array-like of shape (3, p)
        Accuracy on the raw target, in [0, 1], and the ends of its interval.
    source : array-like of shape (3, p)
        Accuracy of the model on its own view, and the ends of its interval.
    own : array-like of shape (p,)
        Accuracy of the target's own model.
    difference : array-like of shape (p, q)
        The parts of the loss.
    significant : array-like of bool of shape (p, q), default=None
        Which parts have a star.
    baseline : float, default=None
        Accuracy of the baseline.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    raw_ : matplotlib BarContainer
        The accuracies on the raw target.
    bars_ : list of q matplotlib BarContainer
        The bars of each part.
    text_ : list of matplotlib Text
        The sizes of the parts, row by row.
    errorbar_ : list of two matplotlib ErrorbarContainer
        The intervals at both ends.
    own_ : matplotlib Line2D
        The target's own models.
    baseline_ : matplotlib Line2D or None
        The line of the baseline.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import ViewGapDisplay
    >>> display = ViewGapDisplay(pairs=[("en", "de")], parts=["shift", "content"], raw=[[0.2], [0.1], [0.3]],
    ...                          source=[[0.8], [0.7], [0.9]], own=[0.6], difference=[[0.4, 0.2]])
    >>> [text.get_text() for text in display.plot(Figure().subplots()).text_]
    ['40.0', '20.0']
    """

    def __init__(
        self,
        *,
        pairs: Sequence[tuple[str, str]],
        parts: Sequence[str],
        raw: Any,
        source: Any,
        own: Any,
        difference: Any,
        significant: Any = None,
        baseline: float | None = None,
    ) -> None:
        self.pairs, self.parts = tuple(pairs), tuple(parts)
        n, shape = len(self.pairs), (len(self.pairs), len(self.parts))
        self.raw, self.source = style.check_shapes((3, n), raw=raw, source=source)
        (self.own,) = style.check_shapes((n,), own=own)
        (self.difference,) = style.check_shapes(shape, difference=difference)
        self.significant = style.check_flags("significant", significant, shape)
        self.baseline = baseline

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, ViewGap, "view_gap")
        ends = np.stack([result.accuracy.value, result.accuracy.low, result.accuracy.high])
        reading = {name: ends[:, :, i] for i, name in enumerate(result.readings)}
        return cls(
            pairs=result.pairs,
            parts=result.parts,
            raw=reading["raw"],
            source=reading["source"],
            own=reading["own"][0],
            difference=result.difference.value,
            significant=result.difference.significant,
            baseline=float(result.baseline.value),
        )

    def _figure_size(self) -> tuple[float, float]:
        return 7.2, min(1.9 + 0.8 * len(self.pairs), 16.0)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        y = np.arange(len(self.pairs))
        settings = {"edgecolor": "#333333", "linewidth": 0.6} | kwargs
        self.raw_ = ax.barh(y, self.raw[0], **({"height": _HEIGHT, "facecolor": style.LIGHT_GRAY} | settings))
        ends = self.raw[0][:, None] + np.cumsum(self.difference, axis=1)
        starts = ends - self.difference
        n_parts = len(self.parts)
        height = _HEIGHT / max(n_parts, 1)
        offsets = height * (np.arange(n_parts) - (n_parts - 1) / 2)
        self.bars_ = []
        for i in range(n_parts):
            fill = {"height": height} | _FILLS[i % len(_FILLS)]
            left = starts[:, i]
            self.bars_.append(ax.barh(y + offsets[i], self.difference[:, i], left=left, **(fill | settings)))
        self.text_ = [
            self._write_size(ax, row, i, starts[row, i], row + offsets[i])
            for row in range(len(self.pairs))
            for i in range(n_parts)
        ]
        self.errorbar_ = [
            style.draw_whiskers(ax, y + offset, low, high, horizontal=True)
            for (_, low, high), offset in ((self.raw, -_HEIGHT / 2), (self.source, _HEIGHT / 2))
        ]
        (self.own_,) = ax.plot(
            self.own, y, linestyle="", marker="D", markersize=6, color="#bf6c12", markeredgecolor="white"
        )
        self.baseline_ = None
        if self.baseline is not None:
            self.baseline_ = ax.axvline(self.baseline, color="black", linewidth=1, linestyle=":")
        labels = [f"{source} on {target}" for source, target in self.pairs]
        style.label_bars(ax, style.wrap_labels(labels, 26, lines=2), 0.6)
        highest = np.nanmax([*self.source[2], *self.own, *ends.max(axis=1), 0.01])
        ax.set_xlim(0, min(1.02, highest * 1.05))
        style.format_percent(ax.xaxis)
        ax.set_xlabel("keyword accuracy, and parts of the loss in points", fontsize=9)
        ax.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        ax.set_axisbelow(True)
        star = style.legend_marker("$*$", self.significant)
        handles = [self.raw_, *self.bars_, self.own_, self.baseline_, star]
        names = [_LABELS.get(part, part) for part in self.parts]
        legend = [
            "the target as it is",
            *names,
            "the target's own model",
            "most frequent words",
            "interval excludes 0",
        ]
        style.add_legend(ax, handles, legend, where="above", width=60)

    def _write_size(self, ax: Any, row: int, i: int, start: float, height: float) -> Any:
        """Write the size of a part into its bar, or to the right of it."""
        part = self.difference[row, i]
        text = style.format_number(100 * part + 0.0, ".1f") + ("*" if self.significant[row, i] else "")
        if part >= _MIN_INSIDE:
            # Black on white, since the darkest fill and the hatches would hide it.
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            return ax.text(start + part / 2, height, text, ha="center", va="center", fontsize=8, bbox=box)
        return ax.annotate(
            text,
            (max(start, start + part), height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )

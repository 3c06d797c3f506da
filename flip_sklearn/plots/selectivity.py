"""Recall of words in the text, after their deletion and from their context, as points for each band."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.guessing import selectivity
from flip_sklearn.diagnostics.guessing_result import ALL, BIAS, Selectivity
from flip_sklearn.parameters import check_bool, check_choice
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display

# The fields of a result that are drawn, and their names in the legend.
_NAMES = {
    "recall": "word in the sentence",
    "recall_deleted": "word deleted",
    "recall_context": "from the context alone",
    "recall_control": "random labels",
}
_MARKERS = "osD^vP"


class SelectivityDisplay(Display):
    """Recall of words with the word in the sentence, and of its controls, for each band of words.

    Each band is a row with one point for each recall and its confidence interval; a line connects the
    recall with the word and after its deletion, so that its length is what the embedding holds.

    :meth:`from_result` draws one view of a result of :func:`~flip_sklearn.diagnostics.selectivity`. Further
    arguments of :meth:`plot` are those of ``Axes.plot`` for the connecting lines, such as ``linewidth``.

    Parameters
    ----------
    bands : sequence of b labels
        Names of the bands, the first at the top.
    recalls : mapping of str to array-like of shape (3, b)
        For each name in the legend: recall, and the lower and the upper end of its interval, in [0, 1]; nan
        is not drawn. The first two are connected.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    line_ : list of matplotlib Line2D
        The points of each recall.
    connection_ : list of b matplotlib Line2D
        The lines between the first two recalls; empty with one recall.
    errorbar_ : list of matplotlib ErrorbarContainer
        The intervals of each recall.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import SelectivityDisplay
    >>> recalls = {"word in the sentence": [[0.8, 0.6]] * 3, "word deleted": [[0.3, 0.1]] * 3}
    >>> display = SelectivityDisplay(bands=["verb", "noun"], recalls=recalls).plot(Figure().subplots())
    >>> len(display.line_), len(display.connection_)
    (2, 2)
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

    @classmethod
    def from_result(
        cls,
        result: Any,
        *,
        ax: Any = None,
        name: str | None = None,
        view: str | None = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw one view of a result.

        Parameters
        ----------
        result : Selectivity
            The result of :func:`~flip_sklearn.diagnostics.selectivity`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        view : str, default=None
            Name of the view; the first one if None.
        use_bias : bool, default=True
            Whether to draw the recall with the bias or without.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        SelectivityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another type, or has no such view.
        """
        style.check_result(result, Selectivity, "selectivity")
        view = result.views[0] if view is None else check_choice("view", view, result.views)
        index = BIAS.index(check_bool("use_bias", use_bias)), result.views.index(view)
        recalls = {}
        for field, label in _NAMES.items():
            interval = getattr(result, field)
            if interval is not None:
                recalls[label] = np.stack(
                    [part[index] for part in (interval.value, interval.low, interval.high)]
                )
        return cls(bands=(*result.bands, ALL), recalls=recalls).plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        Y: Any = None,
        *,
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Compute the recall of words and its controls with a fitted model, and draw the first view.

        Parameters
        ----------
        estimator : FLiPExtractor
            A fitted model.
        X, Y : array-like, default=None
            As in :func:`~flip_sklearn.diagnostics.selectivity`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.selectivity`, such as ``encoder``.

        Returns
        -------
        SelectivityDisplay
            The display, drawn.
        """
        return cls.from_result(selectivity(estimator, X, Y, **options), ax=ax, name=name)

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

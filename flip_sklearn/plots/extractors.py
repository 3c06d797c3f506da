"""Keyword accuracy of several methods, as bars with intervals."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.comparison import ExtractorComparison
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class ExtractorDisplay(Display):
    """Keyword accuracy of several methods as bars with confidence intervals.

    A star marks a method whose difference to the first method has an interval that excludes 0. With several
    views, each method has one bar per view; the views differ in their hatches.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.compare_extractors`. Further
    arguments of :meth:`plot` are those of ``Axes.barh`` for all bars, such as ``edgecolor``.

    Parameters
    ----------
    extractors : sequence of e str
        Names of the methods, the first at the top.
    accuracy, low, high : array-like of shape (e, v)
        Keyword accuracy with its interval, in [0, 1].
    views : sequence of v str
        Names of the views.
    significant : array-like of bool of shape (e, v), default=None
        Whether each bar is marked with a star.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    bars_ : list of v matplotlib BarContainer
        The bars of each view, method by method.
    errorbar_ : list of v matplotlib ErrorbarContainer
        The intervals.
    text_ : ndarray of shape (e, v)
        The matplotlib Text to the right of each bar.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import ExtractorDisplay
    >>> display = ExtractorDisplay(extractors=["FLiP", "guessing"], accuracy=[[0.5], [0.2]],
    ...                            low=[[0.45], [0.18]], high=[[0.55], [0.22]], views=["text"],
    ...                            significant=[[False], [True]]).plot(Figure().subplots())
    >>> [text.get_text() for text in display.text_[:, 0]]
    ['50.0%', '20.0% *']
    """

    def __init__(
        self, *, extractors: Any, accuracy: Any, low: Any, high: Any, views: Any, significant: Any = None
    ) -> None:
        self.extractors = tuple(extractors)
        self.views = tuple(views)
        shape = (len(self.extractors), len(self.views))
        self.accuracy, self.low, self.high = style.check_shapes(shape, accuracy=accuracy, low=low, high=high)
        self.significant = style.check_flags("significant", significant, shape)

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, ExtractorComparison, "compare_extractors")
        return cls(
            extractors=result.extractors,
            accuracy=result.accuracy.value,
            low=result.accuracy.low,
            high=result.accuracy.high,
            views=result.views,
            significant=result.difference.significant,
        )

    def _figure_size(self) -> tuple[float, float]:
        n_extractors, n_views = self.accuracy.shape
        return 6.4 if n_views == 1 else 8.0, 1.2 + n_extractors * (0.2 + 0.25 * n_views)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        n_extractors, n_views = self.accuracy.shape
        spacing = 0.8 / n_views
        self.bars_, self.errorbar_ = [], []
        self.text_ = np.empty((n_extractors, n_views), dtype=object)
        for j in range(n_views):
            y = np.arange(n_extractors) + spacing * (j - (n_views - 1) / 2)
            bar_style = style.bar_style(j) | {"height": 0.92 * spacing} | kwargs
            self.bars_.append(ax.barh(y, self.accuracy[:, j], **bar_style))
            whiskers = style.draw_whiskers(ax, y, self.low[:, j], self.high[:, j], horizontal=True)
            self.errorbar_.append(whiskers)
            for i in range(n_extractors):
                self.text_[i, j] = style.annotate_share(
                    ax, self.accuracy[i, j], self.high[i, j], y[i], self.significant[i, j]
                )
        style.label_bars(ax, style.wrap_labels(self.extractors, 26), 0.55)
        style.format_percent(ax.xaxis)
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of a sentence's words found", fontsize=9)
        star = style.legend_marker("$*$", self.significant)
        note = f"interval of the difference to {self.extractors[0]} excludes 0"
        if n_views > 1:
            style.add_legend(ax, [*self.bars_, star], [*self.views, note], where="right")
        else:
            style.add_legend(ax, [star], [note], where="above", width=60)

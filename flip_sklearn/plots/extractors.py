"""Methods side by side, as bars with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from flip_sklearn.diagnostics.comparison import ExtractorComparison
from flip_sklearn.plots import style


class ExtractorDisplay:
    """Keyword accuracy of several methods as bars with confidence intervals.

    A star stands where the interval of the difference to the first method leaves out 0. With several
    views every method has a bar for each, told apart by their hatches.

    Parameters
    ----------
    extractors : sequence of e str
        Names of the methods, the first on top.
    accuracy, low, high : array-like of shape (e, v)
        Keyword accuracy with its interval, in [0, 1].
    views : sequence of v str
    significant : array-like of bool of shape (e, v), default=None
        Where to put a star.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.
    bars_ : list of v matplotlib BarContainer
        The bars of each view, method by method.
    errorbar_ : list of v matplotlib ErrorbarContainer
        The intervals.
    text_ : ndarray of shape (e, v)
        The matplotlib Text beside each bar.

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
        self,
        *,
        extractors: Any,
        accuracy: Any,
        low: Any,
        high: Any,
        views: Any,
        significant: Any = None,
    ) -> None:
        self.extractors = tuple(extractors)
        self.views = tuple(views)
        shape = (len(self.extractors), len(self.views))
        self.accuracy, self.low, self.high, stars = style.same_shape(
            shape,
            accuracy=accuracy,
            low=low,
            high=high,
            significant=np.zeros(shape) if significant is None else significant,
        )
        self.significant = stars > 0

    @classmethod
    def from_result(
        cls, result: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> ExtractorDisplay:
        """Draw a result.

        Parameters
        ----------
        result : ExtractorComparison
            Of :func:`~flip_sklearn.diagnostics.compare_extractors`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        ExtractorDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another kind.
        """
        style.check_result(result, ExtractorComparison, "compare_extractors")
        found = result.accuracy
        display = cls(
            extractors=result.extractors, accuracy=found.value, low=found.low, high=found.high,
            views=result.views, significant=result.difference.significant,
        )  # fmt: skip
        return display.plot(ax, name=name, **kwargs)

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> ExtractorDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure when None.
        name : str, default=None
            Title.
        **kwargs : dict
            For ``Axes.barh``, of all bars, such as ``edgecolor``.

        Returns
        -------
        ExtractorDisplay
            The display itself.
        """
        e, v = self.accuracy.shape
        ax = style.axes(ax, (6.4 if v == 1 else 8.0, 1.2 + e * (0.2 + 0.25 * v)))
        thick = 0.8 / v
        self.bars_, self.errorbar_ = [], []
        self.text_ = np.empty((e, v), dtype=object)
        for j in range(v):
            at = np.arange(e) + thick * (j - (v - 1) / 2)
            look = style.fill(j) | {"height": 0.92 * thick} | kwargs
            self.bars_.append(ax.barh(at, self.accuracy[:, j], **look))
            self.errorbar_.append(
                style.whiskers(ax, at, self.low[:, j], self.high[:, j], across=True)
            )
            for i in range(e):
                self.text_[i, j] = style.value(
                    ax, self.accuracy[i, j], self.high[i, j], at[i], self.significant[i, j]
                )
        ax.set_yticks(range(e), style.wrap(self.extractors, 26), fontsize=9)
        ax.set_ylim(e - 0.45, -0.55)
        style.percent(ax.xaxis)
        ax.set_xlim(0, 1)
        label = "share of a sentence's words found"
        if self.significant.any():
            label += f"\n* the interval of the difference to {self.extractors[0]} leaves out 0"
        ax.set_xlabel(style.words([label])[0], fontsize=9)
        if v > 1:
            style.legend(ax, self.bars_, self.views, beside=True)
        style.finish(ax, name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

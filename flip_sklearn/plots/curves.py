"""Accuracy against rank, and names found against the number of words looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from flip_sklearn.diagnostics.comparison import RankAnalysis, rank_analysis
from flip_sklearn.diagnostics.entities import EntityRecallCurve, entity_recall_curve
from flip_sklearn.plots import style


class RankCurveDisplay:
    """Keyword accuracy against rank: a line for each view, LiP at the end, guessing as the floor.

    The rank axis is logarithmic to base 2. LiP, the model without factorization, has no rank: it stands
    apart, to the right of the last one. The dotted line is the accuracy of always guessing the words that
    are most frequent. Bands and whiskers are confidence intervals.

    Parameters
    ----------
    ranks : sequence of int or None, of length R
        Ranks from low to high; None is LiP.
    accuracy, low, high : array-like of shape (R, v)
        Keyword accuracy with its interval, in [0, 1].
    views : sequence of v str
    floor : float, default=None
        Accuracy of guessing.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.
    line_ : list of v matplotlib Line2D
        Accuracy against rank.
    lip_ : list of matplotlib Line2D
        The mark of LiP of each view; empty without LiP.
    errorbar_ : list of matplotlib ErrorbarContainer
        The intervals of LiP of each view; empty without LiP.
    fill_between_ : list of v matplotlib FillBetweenPolyCollection
        The intervals along the ranks.
    floor_ : matplotlib Line2D or None

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import RankCurveDisplay
    >>> accuracy = [[0.4], [0.5], [0.52]]
    >>> display = RankCurveDisplay(ranks=[16, 64, None], accuracy=accuracy, low=accuracy,
    ...                            high=accuracy, views=["text"], floor=0.2).plot(Figure().subplots())
    >>> [label.get_text() for label in display.ax_.get_xticklabels()]
    ['16', '64', 'LiP']
    """

    def __init__(
        self, *, ranks: Any, accuracy: Any, low: Any, high: Any, views: Any, floor: Any = None
    ) -> None:
        self.ranks = tuple(ranks)
        self.views = tuple(views)
        self.accuracy, self.low, self.high = style.same_shape(
            (len(self.ranks), len(self.views)), accuracy=accuracy, low=low, high=high
        )
        self.floor = None if floor is None else float(floor)

    @classmethod
    def from_result(
        cls, result: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> RankCurveDisplay:
        """Draw a result.

        Parameters
        ----------
        result : RankAnalysis
            Of :func:`~flip_sklearn.diagnostics.rank_analysis`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        RankCurveDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another kind.
        """
        style.check_result(result, RankAnalysis, "rank_analysis")
        found = result.accuracy
        display = cls(
            ranks=result.ranks, accuracy=found.value, low=found.low, high=found.high,
            views=result.views, floor=result.baseline.value,
        )  # fmt: skip
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        views: Any,
        Y: Any,
        ranks: Any = None,
        *,
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> RankCurveDisplay:
        """Train a model at every rank, and draw the result.

        Parameters
        ----------
        estimator : FLiPExtractor
            All settings but ``rank``; it is not changed.
        views : mapping of str to array-like of shape (n, d), or one such array
            Row-aligned views of the same sentences.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts of the sentences.
        ranks : sequence of int or None, default=None
            As in :func:`~flip_sklearn.diagnostics.rank_analysis`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.rank_analysis`, such as ``random_state``.

        Returns
        -------
        RankCurveDisplay
            The display, drawn.
        """
        result = rank_analysis(views, Y, ranks, estimator=estimator, **options)
        return cls.from_result(result, ax=ax, name=name)

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> RankCurveDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure when None.
        name : str, default=None
            Title.
        **kwargs : dict
            For ``Axes.plot``, of all lines, such as ``linewidth``.

        Returns
        -------
        RankCurveDisplay
            The display itself.
        """
        many = len(self.views) > 5
        ax = style.axes(ax, (8.4 if many else 6.4, 4.0))
        factored = np.array([r is not None for r in self.ranks], dtype=bool)
        x = np.log2([r for r in self.ranks if r is not None])
        labels = [str(r) for r in self.ranks if r is not None]
        step = (
            0.12  # side by side: the intervals of several views in one place would hide each other
        )
        apart = x[-1] + 1.0 + step * (len(self.views) - 1) / 2 if len(x) else 0.0
        self.line_, self.lip_, self.errorbar_, self.fill_between_ = [], [], [], []
        for j in range(len(self.views)):
            look = style.series(j) | kwargs
            self.line_ += ax.plot(x, self.accuracy[factored, j], **look)
            color = self.line_[-1].get_color()
            self.fill_between_.append(
                style.band(ax, x, self.low[factored, j], self.high[factored, j], color)
            )
            for i in np.flatnonzero(~factored):
                at = apart + step * (j - (len(self.views) - 1) / 2)
                self.lip_ += ax.plot([at], self.accuracy[i, j], **(look | {"linestyle": ""}))
                self.errorbar_.append(
                    style.whiskers(ax, [at], self.low[i, [j]], self.high[i, [j]], color=color)
                )
        if not factored.all():
            labels.append("LiP")
            x = np.append(x, apart)
            if len(x) > 1:
                ax.axvline((2 * x[-2] + 1.0) / 2, color=style.PALE, linewidth=0.8)
        handles, names = list(self.line_), list(self.views)
        self.floor_ = None
        if self.floor is not None:
            self.floor_ = ax.axhline(self.floor, color="black", linewidth=1, linestyle=":")
            handles.append(self.floor_)
            names.append("guessing the most frequent words")
        if len(x) == 1:
            ax.set_xlim(x[0] - 1, x[0] + 1)
        ax.set_xticks(*style.spread(x, labels), fontsize=9)
        ax.set_xlabel("rank (dimensions kept for the words)", fontsize=9)
        style.shares(ax, "share of a sentence's words found")
        style.legend(ax, handles, names, beside=many)
        style.finish(ax, name)
        self.ax_, self.figure_ = ax, ax.figure
        return self


class EntityCurveDisplay:
    """Names found against the number of words looked at, with the bias and without.

    A name is found when all its words are among the k best. Lines with the bias are solid with filled
    marks, lines without it dashed with hollow ones; the k axis is logarithmic. Bands are confidence
    intervals; the dotted line is the most that can be found, since the vocabulary lacks some names.

    Parameters
    ----------
    ks : array-like of shape (K,)
        Numbers of words, ascending.
    recall, low, high : array-like of shape (2, v, K)
        Share of names found with its interval, in [0, 1]; with the bias first, then without.
    views : sequence of v str
    ceiling : float, default=None
        Share of names whose words the model can give at all.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.
    line_ : list of 2 v matplotlib Line2D
        View by view: with the bias, then without.
    fill_between_ : list of 2 v matplotlib FillBetweenPolyCollection
        The intervals, in the same order.
    ceiling_ : matplotlib Line2D or None

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import EntityCurveDisplay
    >>> recall = [[[0.1, 0.3]], [[0.4, 0.6]]]
    >>> display = EntityCurveDisplay(ks=[1, 10], recall=recall, low=recall, high=recall,
    ...                              views=["embeddings"]).plot(Figure().subplots())
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['with the bias', 'without the bias']
    """

    def __init__(
        self, *, ks: Any, recall: Any, low: Any, high: Any, views: Any, ceiling: Any = None
    ) -> None:
        self.ks = np.asarray(ks)
        self.views = tuple(views)
        self.recall, self.low, self.high = style.same_shape(
            (2, len(self.views), len(self.ks)), recall=recall, low=low, high=high
        )
        self.ceiling = None if ceiling is None else float(ceiling)

    @classmethod
    def from_result(
        cls, result: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> EntityCurveDisplay:
        """Draw a result.

        Parameters
        ----------
        result : EntityRecallCurve
            Of :func:`~flip_sklearn.diagnostics.entity_recall_curve`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        EntityCurveDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another kind.
        """
        style.check_result(result, EntityRecallCurve, "entity_recall_curve")
        found = result.recall_strict
        display = cls(
            ks=result.ks, recall=found.value, low=found.low, high=found.high,
            views=result.views, ceiling=result.ceiling,
        )  # fmt: skip
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        entities: Any,
        *,
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> EntityCurveDisplay:
        """Look for the names with a fitted model, and draw the result.

        Parameters
        ----------
        estimator : FLiPExtractor
            Fitted.
        X : array-like of shape (n, d), or mapping of str to such arrays
            Embeddings that the model was not trained on, or views of them.
        entities : sequence of n lists of str
            The names in each sentence.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.entity_recall_curve`, such as ``ks``.

        Returns
        -------
        EntityCurveDisplay
            The display, drawn.
        """
        result = entity_recall_curve(estimator, X, entities, **options)
        return cls.from_result(result, ax=ax, name=name)

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> EntityCurveDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure when None.
        name : str, default=None
            Title.
        **kwargs : dict
            For ``Axes.plot``, of all lines, such as ``linewidth``.

        Returns
        -------
        EntityCurveDisplay
            The display itself.
        """
        many = len(self.views) > 2
        ax = style.axes(ax, (8.4 if many else 6.4, max(4.0, 0.32 * (len(self.views) + 3))))
        x = np.log10(self.ks)
        # Marks at every one of many k would run into each other: one in each tenth of the line.
        dots = {"markevery": 0.1} if len(x) > 15 else {}
        self.line_, self.fill_between_ = [], []
        for j in range(len(self.views)):
            for without in range(2):
                look = style.series(j) | {"linestyle": "--" if without else "-"}
                if without:
                    look["markerfacecolor"] = "white"
                line = ax.plot(x, self.recall[without, j], **(look | dots | kwargs))[0]
                ends = self.low[without, j], self.high[without, j]
                self.fill_between_.append(style.band(ax, x, *ends, line.get_color()))
                self.line_.append(line)
        handles, names = self._keys()
        self.ceiling_ = None
        if self.ceiling is not None:
            self.ceiling_ = ax.axhline(self.ceiling, color="black", linewidth=1, linestyle=":")
            handles.append(self.ceiling_)
            names.append("names that the vocabulary has")
        at = self.ks if len(x) <= 15 else style.round_numbers(self.ks[0], self.ks[-1])
        ax.set_xticks(*style.spread(np.log10(at), at), fontsize=9)
        ax.set_xlabel("words looked at, the best first", fontsize=9)
        style.shares(ax, "share of names found whole")
        style.legend(ax, handles, names, beside=many)
        style.finish(ax, name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _keys(self) -> tuple[list[Any], list[str]]:
        """What the legend says: of several views their names, and once what is with the bias."""
        from matplotlib.lines import Line2D

        how = ["with the bias", "without the bias"]
        if len(self.views) == 1:
            return list(self.line_), how
        plain = [
            Line2D([], [], color="black", marker="o", markersize=5, linestyle="-"),
            Line2D([], [], color="black", marker="o", markersize=5, linestyle="--", mfc="white"),
        ]
        return [*self.line_[::2], *plain], [*self.views, *how]

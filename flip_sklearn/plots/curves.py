"""Accuracy against rank, and recall of names against the number of extracted words."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.comparison import RankAnalysis, rank_analysis
from flip_sklearn.diagnostics.entities import EntityRecallCurve, entity_recall_curve
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class RankCurveDisplay(Display):
    """Keyword accuracy against rank, with one line per view.

    The rank axis is logarithmic with base 2. LiP, the model without factorization, has no rank and is drawn
    to the right of the last one. The dotted line is the accuracy of always predicting the most frequent
    words. Shaded bands and error bars are confidence intervals.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.rank_analysis`. Further arguments
    of :meth:`plot` are those of ``Axes.plot`` for all lines, such as ``linewidth``.

    Parameters
    ----------
    ranks : sequence of int or None, of length R
        Ranks in ascending order; None is LiP.
    accuracy, low, high : array-like of shape (R, v)
        Keyword accuracy with its interval, in [0, 1].
    views : sequence of v str
        Names of the views.
    floor : float, default=None
        Accuracy of always predicting the most frequent words.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    line_ : list of v matplotlib Line2D
        Accuracy against rank.
    lip_ : list of matplotlib Line2D
        The marker of LiP for each view; empty without LiP.
    errorbar_ : list of matplotlib ErrorbarContainer
        The interval of LiP for each view; empty without LiP.
    fill_between_ : list of v matplotlib FillBetweenPolyCollection
        The intervals along the ranks.
    floor_ : matplotlib Line2D or None
        The dotted line.

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
        self.accuracy, self.low, self.high = style.check_shapes(
            (len(self.ranks), len(self.views)), accuracy=accuracy, low=low, high=high
        )
        self.floor = None if floor is None else float(floor)

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, RankAnalysis, "rank_analysis")
        return cls(
            ranks=result.ranks,
            accuracy=result.accuracy.value,
            low=result.accuracy.low,
            high=result.accuracy.high,
            views=result.views,
            floor=result.baseline.value,
        )

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
    ) -> Self:
        """Train a model at every rank and draw the result.

        Parameters
        ----------
        estimator : FLiPExtractor
            Provides all parameters except ``rank``; it is not modified.
        views : mapping of str to array-like of shape (n, d), or one such array
            Row-aligned views of the same sentences.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts of the sentences.
        ranks : sequence of int or None, default=None
            As in :func:`~flip_sklearn.diagnostics.rank_analysis`.
        ax, name : matplotlib Axes and str, default=None
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

    def _legend_place(self) -> str:
        return "right" if len(self.views) > 5 else "inside"

    def _figure_size(self) -> tuple[float, float]:
        return 8.4 if self._legend_place() == "right" else 6.4, 4.0

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        rows = [i for i, rank in enumerate(self.ranks) if rank is not None]
        lip_rows = [i for i, rank in enumerate(self.ranks) if rank is None]
        labels = [str(self.ranks[i]) for i in rows]
        x = np.log2([self.ranks[i] for i in rows])
        # The points of LiP are side by side, because their intervals would cover each other.
        offsets = 0.12 * (np.arange(len(self.views)) - (len(self.views) - 1) / 2)
        x_lip = x[-1] + 1.0 + offsets.max(initial=0.0) if rows else 0.0
        self.line_, self.lip_, self.errorbar_, self.fill_between_ = [], [], [], []
        for j, offset in enumerate(offsets):
            settings = style.line_style(j) | kwargs
            values, low, high = self.accuracy[:, j], self.low[:, j], self.high[:, j]
            line, band = style.draw_line(ax, x, values[rows], low[rows], high[rows], **settings)
            self.line_.append(line)
            self.fill_between_.append(band)
            settings["linestyle"] = ""
            for i in lip_rows:
                self.lip_ += ax.plot([x_lip + offset], values[i], **settings)
                whiskers = style.draw_whiskers(
                    ax, [x_lip + offset], low[[i]], high[[i]], color=line.get_color()
                )
                self.errorbar_.append(whiskers)
        if lip_rows:
            labels.append("LiP")
            x = np.append(x, x_lip)
            if rows:
                ax.axvline(x[-2] + 0.5, color=style.LIGHT_GRAY, linewidth=0.8)
        self.floor_ = style.draw_reference(ax, self.floor)
        if len(x) == 1:
            ax.set_xlim(x[0] - 1, x[0] + 1)
        ax.set_xticks(*style.spaced_ticks(x, labels), fontsize=9)
        ax.set_xlabel("rank (number of latent dimensions)", fontsize=9)
        style.set_share_axis(ax, "share of a sentence's words found")
        handles, names = [*self.line_, self.floor_], [*self.views, "most frequent words"]
        style.add_legend(ax, handles, names, where=self._legend_place())


class EntityCurveDisplay(Display):
    """Recall of names against the number of extracted words, with and without the bias.

    A name is found if all its words are among the k best ones. Lines with the bias are solid with filled
    markers, lines without it are dashed with hollow markers. The k axis is logarithmic. Shaded bands are
    confidence intervals. The dotted line is the largest possible recall, because the vocabulary lacks some
    names.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.entity_recall_curve`. Further
    arguments of :meth:`plot` are those of ``Axes.plot`` for all lines, such as ``linewidth``.

    Parameters
    ----------
    ks : array-like of shape (K,)
        Numbers of words, ascending.
    recall, low, high : array-like of shape (2, v, K)
        Share of names found with its interval, in [0, 1]; index 0 is with the bias, 1 without.
    views : sequence of v str
        Names of the views.
    ceiling : float, default=None
        Share of names whose words are all in the vocabulary.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    line_ : list of 2 v matplotlib Line2D
        For each view, with and then without the bias.
    fill_between_ : list of 2 v matplotlib FillBetweenPolyCollection
        The intervals, in the same order.
    ceiling_ : matplotlib Line2D or None
        The dotted line.

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

    def __init__(self, *, ks: Any, recall: Any, low: Any, high: Any, views: Any, ceiling: Any = None) -> None:
        self.ks = np.asarray(ks)
        self.views = tuple(views)
        self.recall, self.low, self.high = style.check_shapes(
            (2, len(self.views), len(self.ks)), recall=recall, low=low, high=high
        )
        self.ceiling = None if ceiling is None else float(ceiling)

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, EntityRecallCurve, "entity_recall_curve")
        return cls(
            ks=result.ks,
            recall=result.recall_strict.value,
            low=result.recall_strict.low,
            high=result.recall_strict.high,
            views=result.views,
            ceiling=result.ceiling,
        )

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, entities: Any, *, ax: Any = None, name: str | None = None, **options: Any
    ) -> Self:
        """Compute the recall of names with a fitted model and draw the result.

        Parameters
        ----------
        estimator : FLiPExtractor
            A fitted estimator.
        X : array-like of shape (n, d), or mapping of str to such arrays
            Embeddings of sentences that the model was not trained on, or views of them.
        entities : sequence of n lists of str
            The names in each sentence.
        ax, name : matplotlib Axes and str, default=None
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

    def _legend_place(self) -> str:
        return "right" if len(self.views) > 2 else "inside"

    def _figure_size(self) -> tuple[float, float]:
        return 8.4 if self._legend_place() == "right" else 6.4, max(4.0, 0.32 * (len(self.views) + 3))

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        x = np.log10(self.ks)
        # With many values of k, a marker at each one would overlap the next.
        marker_spacing = {"markevery": 0.1} if len(x) > 15 else {}
        self.line_, self.fill_between_ = [], []
        for j in range(len(self.views)):
            with_bias = style.line_style(j) | {"linestyle": "-"}
            without_bias = with_bias | {"linestyle": "--", "markerfacecolor": "white"}
            for i, line_style in enumerate((with_bias, without_bias)):
                settings = line_style | marker_spacing | kwargs
                line, band = style.draw_line(
                    ax, x, self.recall[i, j], self.low[i, j], self.high[i, j], **settings
                )
                self.line_.append(line)
                self.fill_between_.append(band)
        self.ceiling_ = style.draw_reference(ax, self.ceiling)
        ticks = self.ks if len(x) <= 15 else style.round_numbers(self.ks[0], self.ks[-1])
        ax.set_xticks(*style.spaced_ticks(np.log10(ticks), ticks), fontsize=9)
        ax.set_xlabel("number of extracted words k", fontsize=9)
        style.set_share_axis(ax, "share of names found (all words)")
        handles, names = self._legend_entries()
        handles, names = [*handles, self.ceiling_], [*names, "names in the vocabulary"]
        style.add_legend(ax, handles, names, where=self._legend_place())

    def _legend_entries(self) -> tuple[list[Any], list[str]]:
        """Return handles and labels: with several views, one per view and one per line style."""
        from matplotlib.lines import Line2D

        bias_labels = ["with the bias", "without the bias"]
        if len(self.views) == 1:
            return list(self.line_), bias_labels
        marker: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 5}
        bias_handles = [
            Line2D([], [], linestyle="-", **marker),
            Line2D([], [], linestyle="--", markerfacecolor="white", **marker),
        ]
        return [*self.line_[::2], *bias_handles], [*self.views, *bias_labels]

"""Words that one of two sets of embeddings has more often, as bars to both sides."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.sets import SetComparison, compare_sets
from flip_sklearn.parameters import check_integer
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class SetComparisonDisplay(Display):
    """Bars of the words that the first set has more often, to the right, and the second, to the left.

    The length of a bar is the difference of the expected shares of texts with the word, the error bar its
    interval. Bars of words that the second set has more often are hatched. Further arguments of
    :meth:`plot` are those of ``Axes.barh``, such as ``height``.

    Parameters
    ----------
    words : sequence of k str
        From the top to the bottom.
    difference, low, high : array-like of shape (k,)
        Lengths of the bars, and the ends of their intervals, in [-1, 1].
    names : tuple of two str, default=("the first set", "the second set")
        What the sets are called in the legend.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    bars_ : matplotlib BarContainer
        One bar for each word.
    errorbar_ : matplotlib ErrorbarContainer
        The intervals.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import SetComparisonDisplay
    >>> display = SetComparisonDisplay(words=["refund", "hello"], difference=[0.06, -0.02], low=[0.04, -0.03],
    ...                                high=[0.08, -0.01], names=("May", "April")).plot(Figure().subplots())
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['more in May', 'more in April']
    """

    def __init__(
        self,
        *,
        words: Any,
        difference: Any,
        low: Any,
        high: Any,
        names: Any = ("the first set", "the second set"),
    ) -> None:
        self.words = tuple(words)
        self.difference, self.low, self.high = style.check_shapes(
            (len(self.words),), difference=difference, low=low, high=high
        )
        is_text = isinstance(names, (str, bytes))
        self.names = () if is_text else tuple(map(str, names))
        if len(self.names) != 2:
            raise ValueError(f"names={names!r} is not allowed; pass the names of the two sets, ('a', 'b').")

    @classmethod
    def from_result(
        cls,
        result: Any,
        *,
        top_k: int = 10,
        names: Any = ("the first set", "the second set"),
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the discovered words with the clearest evidence.

        Parameters
        ----------
        result : SetComparison
            The result of :func:`~flip_sklearn.diagnostics.compare_sets`.
        top_k : int, default=10
            The largest number of words to each side, >= 1.
        names : tuple of two str, default=("the first set", "the second set")
            What the sets are called in the legend.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        SetComparisonDisplay
            The display, drawn; without bars if no word was discovered.

        Raises
        ------
        ValueError
            If the result is of another type, or an argument is not allowed.
        """
        style.check_result(result, SetComparison, "compare_sets")
        more, less = result.order(check_integer("top_k", top_k, 1))
        columns = np.concatenate([more, less])
        columns = columns[np.argsort(-result.difference.value[columns], kind="stable")]
        display = cls(
            words=result.words[columns],
            difference=result.difference.value[columns],
            low=result.difference.low[columns],
            high=result.difference.high[columns],
            names=names,
        )
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X_a: Any,
        X_b: Any,
        *,
        top_k: int = 10,
        names: Any = ("the first set", "the second set"),
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Compare two sets of embeddings, and draw the result.

        Parameters
        ----------
        estimator : FLiPExtractor
            A fitted model.
        X_a, X_b : array-like of shape (n_a, d) and (n_b, d)
            As in :func:`~flip_sklearn.diagnostics.compare_sets`.
        top_k, names : int and tuple of two str
            As in :meth:`from_result`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.compare_sets`, such as ``groups_a``.

        Returns
        -------
        SetComparisonDisplay
            The display, drawn.
        """
        result = compare_sets(estimator, X_a, X_b, **options)
        return cls.from_result(result, top_k=top_k, names=names, ax=ax, name=name)

    def _figure_size(self) -> tuple[float, float]:
        return 6.0, min(1.2 + 0.25 * max(len(self.words), 2), 12.0)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        self.bars_ = style.draw_bars(ax, self.difference, self.difference > 0, **kwargs)
        self.errorbar_ = style.draw_whiskers(
            ax, np.arange(len(self.words)), self.low, self.high, horizontal=True, color="black"
        )
        style.label_bars(ax, style.wrap_labels(self.words, 26, lines=1), 0.6)
        ax.axvline(0, color="black", linewidth=0.8)
        style.format_percent(ax.xaxis)
        ax.set_xlabel("difference of the shares of texts with the word", fontsize=9)
        ax.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        ax.set_axisbelow(True)
        sides = (np.flatnonzero(self.difference > 0), np.flatnonzero(self.difference <= 0))
        handles = [self.bars_[side[0]] if len(side) else None for side in sides]
        style.add_legend(ax, handles, [f"more in {name}" for name in self.names], where="above")

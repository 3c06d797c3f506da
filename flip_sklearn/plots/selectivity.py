"""Recall of words in the text, after their deletion and from their context, as points for each band."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.guessing import selectivity
from flip_sklearn.diagnostics.guessing_result import ALL, BIAS, Selectivity
from flip_sklearn.parameters import check_bool, check_choice
from flip_sklearn.plots import style
from flip_sklearn.plots.bands import BandDisplay

# The fields of a result that are drawn, and their names in the legend.
_NAMES = {
    "recall": "word in the sentence",
    "recall_deleted": "word deleted",
    "recall_context": "from the context alone",
    "recall_control": "random labels",
}


class SelectivityDisplay(BandDisplay):
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

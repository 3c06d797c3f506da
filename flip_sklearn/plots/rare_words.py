"""Recall of words by their count in training, with features of the words and without."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.rare_words import ALL, BIAS, RareWordRecall, rare_word_recall
from flip_sklearn.parameters import check_bool
from flip_sklearn.plots import style
from flip_sklearn.plots.bands import BandDisplay

_NAMES = ("no features of the words", "features of the words")


class RareWordDisplay(BandDisplay):
    """Recall of words by their count in training, with features of the words and without.

    Each band is a row with one point for each model and its confidence interval; a line connects the two, so
    that its length is what the features change. Words that training never saw are a band of their own.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.rare_word_recall`. Further
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
    >>> from flip_sklearn.plots import RareWordDisplay
    >>> recalls = {"no features": [[0.0, 0.3]] * 3, "features": [[0.4, 0.5]] * 3}
    >>> display = RareWordDisplay(bands=["never seen", "1-2"], recalls=recalls).plot(Figure().subplots())
    >>> [tick.get_text() for tick in display.ax_.get_yticklabels()]
    ['never seen', '1-2']
    """

    @classmethod
    def from_result(
        cls, result: Any, *, ax: Any = None, name: str | None = None, use_bias: bool = True, **kwargs: Any
    ) -> Self:
        """Draw a result.

        Parameters
        ----------
        result : RareWordRecall
            The result of :func:`~flip_sklearn.diagnostics.rare_word_recall`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        use_bias : bool, default=True
            Whether to draw the recall with the bias or without.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        RareWordDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another type.
        """
        style.check_result(result, RareWordRecall, "rare_word_recall")
        index = BIAS.index(check_bool("use_bias", use_bias))
        ends = np.stack([result.recall.value, result.recall.low, result.recall.high])
        recalls = {label: ends[:, index, f] for f, label in enumerate(_NAMES)}
        return cls(bands=(*result.bands, ALL), recalls=recalls).plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, Y: Any, *, ax: Any = None, name: str | None = None, **options: Any
    ) -> Self:
        """Train models with features and without, and draw their recall with the bias.

        Parameters
        ----------
        estimator : FLiPExtractor
            An estimator with ``word_features``; clones of it are fitted.
        X : array-like of shape (n, d)
            Embeddings.
        Y : {array-like, sparse matrix} of shape (n, V)
            Their word counts.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.rare_word_recall`, such as ``n_held_out``.

        Returns
        -------
        RareWordDisplay
            The display, drawn.
        """
        return cls.from_result(rare_word_recall(estimator, X, Y, **options), ax=ax, name=name)

"""The words of one direction as bars to both sides."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class DirectionDisplay(Display):
    """Bars of the words that a direction raises, to the right, and lowers, to the left.

    The word that is raised most is at the top, the one that is lowered most at the bottom. Bars of lowered
    words are hatched. Further arguments of :meth:`plot` are those of ``Axes.barh``, such as ``height``.

    Parameters
    ----------
    words : sequence of k str
        From the top to the bottom.
    scores : array-like of shape (k,)
        Lengths of the bars.
    label : str, default="change of the score"
        Label of the score axis, with the unit.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    bars_ : matplotlib BarContainer
        One bar for each word.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import DirectionDisplay
    >>> display = DirectionDisplay(["woman", "her", "man"], [3.1, 2.2, -1.5]).plot(Figure().subplots())
    >>> [bar.get_hatch() for bar in display.bars_]
    ['', '', '////']
    """

    def __init__(self, words: Any, scores: Any, *, label: str = "change of the score") -> None:
        self.words = tuple(words)
        (self.scores,) = style.check_shapes((len(self.words),), scores=scores)
        self.label = label

    @classmethod
    def from_result(
        cls,
        result: Any,
        *,
        label: str = "change of the score",
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the words of one direction.

        Parameters
        ----------
        result : DirectionWords
            An element of ``read_directions(directions, return_scores=True)``, or of the ``words`` of an
            :class:`~flip_sklearn.diagnostics.EstimatorExplanation`.
        label : str, default="change of the score"
            Label of the score axis, with the unit.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        DirectionDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is not a pair of lists of (word, score) pairs.
        """
        sides = [list(side) for side in result] if isinstance(result, tuple) else []
        is_pair = len(sides) == 2 and all(
            isinstance(pair, tuple) and len(pair) == 2 for side in sides for pair in side
        )
        if not is_pair:
            raise ValueError(
                f"result is {result!r:.60}; pass the words of one direction with their scores, such as "
                "read_directions(directions, return_scores=True)[0]."
            )
        pairs = [*sides[0], *reversed(sides[1])]
        display = cls([word for word, _ in pairs], [score for _, score in pairs], label=label)
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        direction: Any,
        *,
        kind: str = "difference",
        covariance: Any = None,
        top_k: int = 10,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Read a direction and draw its words.

        Parameters
        ----------
        estimator : FLiPExtractor or SpLiCEExtractor
            A fitted estimator.
        direction : array-like of shape (d,) or (1, d)
            The direction.
        kind, covariance, top_k : str, array-like of shape (d, d) and int
            As in :meth:`FLiPExtractor.read_directions`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        DirectionDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is more than one direction, or the estimator does not accept it.
        """
        read = estimator.read_directions(
            direction, kind=kind, covariance=covariance, top_k=top_k, return_scores=True
        )
        if len(read) != 1:
            raise ValueError(f"direction has {len(read)} rows; pass one, such as directions[0].")
        # The weights of SpLiCE have no unit.
        quantity = "change of the score (nats)" if hasattr(estimator, "use_bias") else "weight"
        per = " for one standard deviation" if kind == "coefficients" else ""
        return cls.from_result(read[0], label=quantity + per, ax=ax, name=name, **kwargs)

    def _figure_size(self) -> tuple[float, float]:
        return 4.8, 1.0 + 0.27 * max(1, len(self.words))

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        self.bars_ = style.draw_bars(ax, self.scores, np.asarray(self.scores >= 0), **kwargs)
        style.label_bars(ax, style.wrap_labels(self.words, 28, lines=1), 0.6)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel(style.escape_labels([self.label])[0], fontsize=9)
        ax.tick_params(axis="x", labelsize=9)

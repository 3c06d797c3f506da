"""Contributions of words to the cosine of two embeddings."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.similarity import SimilarityExplanation, explain_similarity
from flip_sklearn.parameters import check_integer
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class SimilarityDisplay(Display):
    """Waterfall chart of the contributions to a cosine: each bar starts where the one above it ends.

    From the top, the bars are the part that all sentences share, the words with the largest contributions,
    all other words together, and the part that no word explains. The grey bar at the bottom is their sum,
    the cosine. Bars of negative contributions are hatched. Further arguments of :meth:`plot` are those of
    ``Axes.barh`` for the contributions, such as ``height``.

    Parameters
    ----------
    labels : sequence of p str
        Names of the contributions.
    parts : array-like of shape (p,)
        The contributions.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    bars_ : matplotlib BarContainer
        One bar for each contribution.
    total_ : matplotlib BarContainer
        The bar of the sum.
    text_ : list of p + 1 matplotlib Text
        The numbers to the right of the bars.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import SimilarityDisplay
    >>> display = SimilarityDisplay(["what all share", "dog", "rest"],
    ...                             [0.2, 0.5, -0.1]).plot(Figure().subplots())
    >>> [text.get_text() for text in display.text_]
    ['+0.20', '+0.50', '−0.10', '0.60']
    """

    def __init__(self, labels: Any, parts: Any) -> None:
        self.labels = tuple(labels)
        (self.parts,) = style.check_shapes((len(self.labels),), parts=parts)

    @classmethod
    def from_result(
        cls, result: Any, *, top_k: int = 10, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw a result.

        Parameters
        ----------
        result : SimilarityExplanation
            The result of :func:`~flip_sklearn.diagnostics.explain_similarity`.
        top_k : int, default=10
            Number of words with their own bar, >= 0: those with the largest absolute contributions. All
            other words share one bar.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        SimilarityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is not a SimilarityExplanation, or ``top_k`` is negative.
        """
        style.check_result(result, SimilarityExplanation, "explain_similarity")
        top_k = check_integer("top_k", top_k, 0)
        contribution = np.asarray(result.contribution, dtype=float)
        order = np.argsort(-np.abs(contribution), kind="stable")
        top, rest = order[:top_k], order[top_k:]
        labels = ["what all sentences share", *(str(result.words[j]) for j in top)]
        parts = [float(result.common), *contribution[top]]
        if len(rest):
            labels.append(f"{len(rest)} other words")
            parts.append(contribution[rest].sum())
        display = cls([*labels, "not explained by words"], [*parts, float(result.residual)])
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        x1: Any,
        x2: Any,
        *,
        top_k: int = 10,
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Explain the cosine of two embeddings, and draw the result.

        Parameters
        ----------
        estimator : FLiPExtractor
            A fitted estimator.
        x1, x2 : array-like of shape (d,) or (1, d)
            The embeddings.
        top_k : int, default=10
            As in :meth:`from_result`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.explain_similarity`.

        Returns
        -------
        SimilarityDisplay
            The display, drawn.
        """
        result = explain_similarity(estimator, x1, x2, **options)
        return cls.from_result(result, top_k=top_k, ax=ax, name=name)

    def _figure_size(self) -> tuple[float, float]:
        return 5.6, 1.2 + 0.27 * (len(self.parts) + 1)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        n = len(self.parts)
        ends = np.cumsum(self.parts)
        starts = ends - self.parts
        total = float(ends[-1]) if n else 0.0
        self.bars_ = style.draw_bars(ax, self.parts, self.parts >= 0, left=starts, **kwargs)
        self.total_ = ax.barh([n], [total], color=style.LIGHT_GRAY, edgecolor="black")
        for i, end in enumerate(ends):  # a vertical line to the next bar
            ax.plot([end, end], [i, i + 1], color="black", linewidth=0.6, zorder=0)
        numbers = [style.format_number(part, "+.2f") for part in self.parts]
        numbers.append(style.format_number(total, ".2f"))
        right_ends = [*np.maximum(starts, ends), max(total, 0.0)]
        span = max(right_ends) - min([*starts, *ends, 0.0]) or 1.0
        self.text_ = [
            ax.text(x + 0.015 * span, i, number, va="center", fontsize=8)
            for i, (x, number) in enumerate(zip(right_ends, numbers, strict=True))
        ]
        style.label_bars(ax, [*style.wrap_labels(self.labels, 28, lines=1), "cosine"], 0.6)
        ax.margins(x=0.12)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("part of the cosine", fontsize=9)
        ax.tick_params(axis="x", labelsize=9)

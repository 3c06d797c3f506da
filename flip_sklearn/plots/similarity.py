"""What the cosine of two embeddings is made of, word by word."""

from __future__ import annotations

from typing import Any

import numpy as np

from flip_sklearn.diagnostics.similarity import SimilarityExplanation, explain_similarity
from flip_sklearn.parameters import check_integer
from flip_sklearn.plots import style


class SimilarityDisplay:
    """A waterfall of what a cosine is made of: each bar starts where the one above it ends.

    From the top: what all sentences share, the words that carry most, all other words together, and what
    no word explains; the grey bar at the end is their sum, the cosine. Bars that take away are hatched.

    Parameters
    ----------
    labels : sequence of p str
        Names of the parts.
    parts : array-like of shape (p,)
        Their sizes.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.
    bars_ : matplotlib BarContainer
        One bar for each part.
    total_ : matplotlib BarContainer
        The bar of the sum.
    text_ : list of p + 1 matplotlib Text
        The sizes, written beside the bars.

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
        (self.parts,) = style.same_shape((len(self.labels),), parts=parts)

    @classmethod
    def from_result(
        cls,
        result: Any,
        *,
        top_k: int = 10,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> SimilarityDisplay:
        """Draw a result.

        Parameters
        ----------
        result : SimilarityExplanation
            Of :func:`~flip_sklearn.diagnostics.explain_similarity`.
        top_k : int, default=10
            Words with a bar of their own, >= 0: those that carry most; the others share one.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
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
            If the result is of another kind, or ``top_k`` is not allowed.
        """
        style.check_result(result, SimilarityExplanation, "explain_similarity")
        top_k = check_integer("top_k", top_k, 0)
        sizes = np.asarray(result.contribution, dtype=float)
        order = np.argsort(-np.abs(sizes), kind="stable")
        shown, rest = order[:top_k], order[top_k:]
        labels = ["what all sentences share", *(str(result.words[j]) for j in shown)]
        parts = [float(result.common), *sizes[shown]]
        if len(rest):
            labels.append(f"{len(rest)} other words")
            parts.append(sizes[rest].sum())
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
    ) -> SimilarityDisplay:
        """Explain the cosine of two embeddings, and draw the result.

        Parameters
        ----------
        estimator : FLiPExtractor
            Fitted.
        x1, x2 : array-like of shape (d,) or (1, d)
            The embeddings.
        top_k : int, default=10
            As in :meth:`from_result`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
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

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> SimilarityDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure when None.
        name : str, default=None
            Title.
        **kwargs : dict
            For ``Axes.barh``, of the parts, such as ``height``.

        Returns
        -------
        SimilarityDisplay
            The display itself.
        """
        n = len(self.parts)
        ax = style.axes(ax, (5.6, 1.2 + 0.27 * (n + 1)))
        ends = np.cumsum(self.parts)
        starts = ends - self.parts
        total = float(ends[-1]) if n else 0.0
        self.bars_ = style.bars(ax, self.parts, self.parts >= 0, left=starts, **kwargs)
        self.total_ = ax.barh([n], [total], color=style.PALE, edgecolor="black")
        for i, end in enumerate(ends):  # the step down to the next bar
            ax.plot([end, end], [i, i + 1], color="black", linewidth=0.6, zorder=0)
        sizes = [*(style.number(part, "+.2f") for part in self.parts), style.number(total, ".2f")]
        tips = [*np.maximum(starts, ends), max(total, 0.0)]
        span = max(tips) - min([*starts, *ends, 0.0]) or 1.0
        self.text_ = [
            ax.text(tip + 0.015 * span, i, size, va="center", fontsize=8)
            for i, (tip, size) in enumerate(zip(tips, sizes, strict=True))
        ]
        ax.set_yticks(range(n + 1), [*style.wrap(self.labels, 28, lines=1), "cosine"], fontsize=9)
        ax.set_ylim(n + 0.6, -0.6)
        ax.margins(x=0.12)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("part of the cosine", fontsize=9)
        ax.tick_params(axis="x", labelsize=9)
        style.finish(ax, name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

"""Accuracy against the share of zeros in A."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.path import RegularizationPath, regularization_path
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class SparsityDisplay(Display):
    """Keyword accuracy along a path of L1 strengths, against the share of zeros in A.

    The axis is logarithmic in the share of nonzero entries: 90, 99 and 99.9 % zeros are equally far apart,
    because accuracy falls where few entries are nonzero. Error bars are one standard error. The ring marks
    the sparsest model within one standard error of the best.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.regularization_path`. Further arguments of
    :meth:`plot` are those of ``Axes.plot`` for both lines, such as ``linewidth``.

    Parameters
    ----------
    sparsity : array-like of shape (s,)
        Share of zeros in A, in [0, 1].
    accuracy, standard_error : array-like of shape (s,)
        Keyword accuracy with bias and its standard error, in [0, 1].
    accuracy_without_bias : array-like of shape (s,)
        Keyword accuracy without bias, in [0, 1].
    chosen : int, default=None
        Index of the model to mark.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    line_ : list of 2 matplotlib Line2D
        Accuracy with and without the bias.
    errorbar_ : matplotlib ErrorbarContainer
        The standard errors.
    chosen_ : matplotlib Line2D or None
        The ring.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import SparsityDisplay
    >>> display = SparsityDisplay(sparsity=[1.0, 0.9, 0.2], accuracy=[0.2, 0.5, 0.51],
    ...                           standard_error=[0.01, 0.01, 0.01], chosen=1,
    ...                           accuracy_without_bias=[0.0, 0.4, 0.3]).plot(Figure().subplots())
    >>> [label.get_text() for label in display.ax_.get_xticklabels()]
    ['0%', '50%', '90%', '100%']
    """

    def __init__(
        self,
        *,
        sparsity: Any,
        accuracy: Any,
        standard_error: Any,
        accuracy_without_bias: Any,
        chosen: int | None = None,
    ) -> None:
        self.sparsity, self.accuracy, self.standard_error, self.accuracy_without_bias = style.check_shapes(
            (len(sparsity),),
            sparsity=sparsity,
            accuracy=accuracy,
            standard_error=standard_error,
            accuracy_without_bias=accuracy_without_bias,
        )
        self.chosen = chosen

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, RegularizationPath, "regularization_path")
        best = result.best()
        return cls(
            sparsity=result.sparsity,
            accuracy=result.accuracy,
            standard_error=result.standard_error,
            accuracy_without_bias=result.accuracy_without_bias,
            chosen=next(i for i, model in enumerate(result.models) if model is best),
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        l1_strengths: Any = 10,
        *,
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Train a model at each L1 strength and draw the path.

        Parameters
        ----------
        estimator : FLiPExtractor
            Provides all parameters except ``l1_strength``; it is not modified.
        X : array-like of shape (n, d)
            Embeddings.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts.
        l1_strengths : int or array-like of shape (n_strengths,), default=10
            As in :func:`~flip_sklearn.regularization_path`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.regularization_path`, such as ``validation``.

        Returns
        -------
        SparsityDisplay
            The display, drawn.
        """
        result = regularization_path(X, Y, l1_strengths, estimator=estimator, **options)
        return cls.from_result(result, ax=ax, name=name)

    def _figure_size(self) -> tuple[float, float]:
        return 6.4, 4.0

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        x, ticks = self._positions()
        error = np.nan_to_num(self.standard_error)
        self.line_ = []
        for i, values in enumerate((self.accuracy, self.accuracy_without_bias)):
            self.line_ += ax.plot(x, values, **(style.line_style(i) | kwargs))
        self.errorbar_ = style.draw_whiskers(
            ax, x, self.accuracy - error, self.accuracy + error, color=self.line_[0].get_color()
        )
        self.chosen_ = None
        if self.chosen is not None:
            ring = {"markersize": 13, "markerfacecolor": "none", "markeredgecolor": "black"}
            self.chosen_ = ax.plot(x[self.chosen], self.accuracy[self.chosen], "o", clip_on=False, **ring)[0]
        ax.set_xticks(list(ticks), list(ticks.values()), fontsize=9)
        ax.set_xlabel("zeros in A, as a share of its entries", fontsize=9)
        style.set_share_axis(ax, "share of a sentence's words found")
        names = ["with the bias", "without the bias", "the sparsest within one standard error"]
        style.add_legend(ax, [*self.line_, self.chosen_], names)

    def _positions(self) -> tuple[np.ndarray, dict[float, str]]:
        """Return the position of each model, -log10 of the share of nonzeros, and the ticks."""
        nonzero = 1 - self.sparsity
        is_finite = nonzero > 0
        x_max = -np.log10(nonzero[is_finite].min()) if is_finite.any() else 0.0
        # A model of zeros only has no logarithm and is drawn to the right of the others.
        x_all_zero = x_max + max(0.5, 0.12 * x_max)
        x = np.full(len(nonzero), x_all_zero)
        x[is_finite] = -np.log10(nonzero[is_finite])
        ticks = {}
        for zeros in [0.0, 0.5] + [1 - 10.0**-p for p in range(1, int(np.ceil(x_max)) + 1)]:
            position = -np.log10(1 - zeros) + 0.0
            if position <= x_max + 0.05:
                ticks[position] = f"{100 * zeros:.10g}%"
        if not is_finite.all():
            ticks[x_all_zero] = "100%"
        return x, ticks

"""Accuracy against the share of zeros in A."""

from __future__ import annotations

from typing import Any

import numpy as np

from flip_sklearn.path import RegularizationPath, regularization_path
from flip_sklearn.plots import style


class SparsityDisplay:
    """Keyword accuracy along a path of L1 strengths, against the share of zeros in A.

    The axis is logarithmic in the share of entries that are left, so that 90, 99 and 99.9 % of zeros are
    equally far apart: accuracy falls where few are left. Whiskers are one standard error each way; the
    ring is the sparsest model within one standard error of the best.

    Parameters
    ----------
    sparsity : array-like of shape (s,)
        Share of zeros in A, in [0, 1].
    accuracy, standard_error : array-like of shape (s,)
        Keyword accuracy with bias and its standard error, in [0, 1].
    accuracy_without_bias : array-like of shape (s,)
    chosen : int, default=None
        Number of the model to mark.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.
    line_ : list of 2 matplotlib Line2D
        Accuracy with the bias, and without.
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
        self.sparsity, self.accuracy, self.standard_error, self.accuracy_without_bias = (
            style.same_shape(
                (len(sparsity),),
                sparsity=sparsity,
                accuracy=accuracy,
                standard_error=standard_error,
                accuracy_without_bias=accuracy_without_bias,
            )
        )
        self.chosen = chosen

    @classmethod
    def from_result(
        cls, result: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> SparsityDisplay:
        """Draw a path.

        Parameters
        ----------
        result : RegularizationPath
            Of :func:`~flip_sklearn.regularization_path`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        SparsityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another kind.
        """
        style.check_result(result, RegularizationPath, "regularization_path")
        best = result.best()
        display = cls(
            sparsity=result.sparsity,
            accuracy=result.accuracy,
            standard_error=result.standard_error,
            accuracy_without_bias=result.accuracy_without_bias,
            chosen=next(i for i, model in enumerate(result.models) if model is best),
        )
        return display.plot(ax, name=name, **kwargs)

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
    ) -> SparsityDisplay:
        """Train a model at each strength, and draw the path.

        Parameters
        ----------
        estimator : FLiPExtractor
            All settings but ``l1_strength``; it is not changed.
        X : array-like of shape (n, d)
            Embeddings.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts.
        l1_strengths : int or array-like of shape (n_strengths,), default=10
            As in :func:`~flip_sklearn.regularization_path`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
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

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> SparsityDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure when None.
        name : str, default=None
            Title.
        **kwargs : dict
            For ``Axes.plot``, of both lines, such as ``linewidth``.

        Returns
        -------
        SparsityDisplay
            The display itself.
        """
        ax = style.axes(ax, (6.4, 4.0))
        x, ticks = self._places()
        error = np.nan_to_num(self.standard_error)
        self.line_, names = [], ["with the bias", "without the bias"]
        for i, values in enumerate((self.accuracy, self.accuracy_without_bias)):
            self.line_ += ax.plot(x, values, **(style.series(i) | kwargs))
        self.errorbar_ = style.whiskers(
            ax, x, self.accuracy - error, self.accuracy + error, color=self.line_[0].get_color()
        )
        handles = list(self.line_)
        self.chosen_ = None
        if self.chosen is not None:
            self.chosen_ = ax.plot(
                x[self.chosen], self.accuracy[self.chosen], "o", markersize=13,
                markerfacecolor="none", markeredgecolor="black", clip_on=False,
            )[0]  # fmt: skip
            handles.append(self.chosen_)
            names.append("the sparsest within one standard error")
        ax.set_xticks(list(ticks), list(ticks.values()), fontsize=9)
        ax.set_xlabel("zeros in A, as a share of its entries", fontsize=9)
        style.shares(ax, "share of a sentence's words found")
        style.legend(ax, handles, names)
        style.finish(ax, name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _places(self) -> tuple[np.ndarray, dict[float, str]]:
        """Where each model stands, in powers of ten of what is left; and the ticks."""
        left = 1 - self.sparsity
        some = left[left > 0]
        end = -np.log10(some.min()) if len(some) else 0.0
        beyond = end + max(0.5, 0.12 * end)  # where nothing is left, which has no logarithm
        x = np.full(len(left), beyond)
        x[left > 0] = -np.log10(some)
        zeros = [0.0, 0.5] + [1 - 10.0**-p for p in range(1, int(np.ceil(end)) + 1)]
        ticks = {-np.log10(1 - z) + 0.0: f"{100 * z:.10g}%" for z in zeros}
        ticks = {at: label for at, label in ticks.items() if at <= end + 0.05}
        if len(some) < len(left):
            ticks[beyond] = "100%"
        return x, ticks

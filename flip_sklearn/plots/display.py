"""Base class of the displays."""

from __future__ import annotations

from typing import Any, Self

from flip_sklearn.parameters import install_command
from flip_sklearn.plots import style


class Display:
    """Arrays of a result that can be drawn.

    A subclass defines ``_from_result``, ``_figure_size`` and ``_draw``.
    """

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any) -> Self:
        """Draw a result.

        Parameters
        ----------
        result : object
            The result of a function named in the description of the class.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        Display
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another type.
        """
        return cls._from_result(result).plot(ax, name=name, **kwargs)

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the stored arrays.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; those of a new figure if None.
        name : str, default=None
            Title.
        **kwargs : dict
            Arguments of the matplotlib method named in the description of the class.

        Returns
        -------
        Display
            The display itself.
        """
        if ax is None:
            try:
                import matplotlib.pyplot as plt
            except ImportError as error:
                raise ImportError(f"plots need matplotlib: {install_command('plots')}") from error
            ax = plt.subplots(figsize=self._figure_size(), layout="constrained")[1]
        elif not hasattr(ax, "get_xlim"):
            raise ValueError(
                f"ax is a {type(ax).__name__}; pass one matplotlib Axes, such as axes[0] of several."
            )
        self._draw(ax, kwargs)
        self._finish(ax, name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        """Check a result and store its arrays."""
        raise NotImplementedError

    def _figure_size(self) -> tuple[float, float]:
        """Return the width and height of a new figure, in inches."""
        raise NotImplementedError

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        """Draw everything but the title."""
        raise NotImplementedError

    def _finish(self, ax: Any, title: str | None) -> None:
        """Draw the title and remove the frame at the top and at the right."""
        if title is not None:
            # Wide tick labels reduce the width of the axes when the layout is computed, after this call.
            lines = [line for tick in ax.get_yticklabels() for line in tick.get_text().split("\n")]
            label_points = 5 * max(map(len, lines), default=0) - 36
            points = ax.get_window_extent().width / ax.figure.dpi * 72 - max(label_points, 0)
            title = style.wrap_labels([title], int(points / 5.5), lines=4)[0]
            ax.set_title(title, fontsize=10, loc="left", pad=style.title_pad(ax))
        ax.spines[["top", "right"]].set_visible(False)

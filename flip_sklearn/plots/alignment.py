"""Heat map of keyword accuracy: training views, or languages, against views."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.alignment import ViewAlignment, view_alignment
from flip_sklearn.diagnostics.preference import VocabularyPreference
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class AlignmentDisplay(Display):
    """Heat map of keyword accuracy of each model on each view.

    Each cell shows the accuracy in percent and, below it, the difference to the reference of the row in
    percentage points, with a star if the interval of the difference excludes 0. Darker cells have a higher
    accuracy; white is 0.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.view_alignment` or
    :func:`~flip_sklearn.diagnostics.vocabulary_preference`. Further arguments of :meth:`plot` are those of
    ``Axes.imshow``, such as ``cmap`` or ``vmax``.

    Parameters
    ----------
    accuracy : array-like of shape (r, c)
        Keyword accuracy, in [0, 1]; cells of nan are hatched.
    rows, columns : sequence of str
        Names of the r rows and c columns.
    difference : array-like of shape (r, c), default=None
        Difference to the reference of the row; nan in cells that show no difference.
    significant : array-like of bool of shape (r, c), default=None
        Which cells have a star.
    row_label, column_label : str
        Axis labels.
    note : str
        Description of the reference of the differences.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    image_ : matplotlib AxesImage
        The cells.
    text_ : ndarray of shape (r, c)
        The matplotlib Text of each cell.
    colorbar_ : matplotlib Colorbar
        The color scale.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import AlignmentDisplay
    >>> display = AlignmentDisplay([[0.52, 0.31], [0.33, 0.47]], rows=["text", "speech"],
    ...                            columns=["text", "speech"]).plot(Figure().subplots())
    >>> display.text_[0, 1].get_text()
    '31.0'
    """

    def __init__(
        self,
        accuracy: Any,
        *,
        rows: Any,
        columns: Any,
        difference: Any = None,
        significant: Any = None,
        row_label: str = "trained on",
        column_label: str = "read from",
        note: str = "the model's own view",
    ) -> None:
        self.rows = tuple(rows)
        self.columns = tuple(columns)
        shape = (len(self.rows), len(self.columns))
        if difference is None:
            difference = np.full(shape, np.nan)
        self.accuracy, self.difference = style.check_shapes(shape, accuracy=accuracy, difference=difference)
        self.significant = style.check_flags("significant", significant, shape)
        self.row_label = row_label
        self.column_label = column_label
        self.note = note

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(
            result, (ViewAlignment, VocabularyPreference), "view_alignment or vocabulary_preference"
        )
        if isinstance(result, ViewAlignment):
            rows, row_label, references = result.views, "trained on", result.views
            note = "the model's own view"
        else:
            rows, row_label, references = result.languages, "words of", result.reference
            if references == rows:
                note = "the language's own view"
            elif len(set(references)) == 1:
                note = f'"{references[0]}"'
            else:
                note = "the cell of the row without a difference"
        is_reference = np.array([[view == name for view in result.views] for name in references])
        return cls(
            result.accuracy.value,
            rows=rows,
            columns=result.views,
            difference=np.where(is_reference, np.nan, result.difference.value),
            significant=result.difference.significant,
            row_label=row_label,
            note=note,
        )

    @classmethod
    def from_estimator(
        cls, estimator: Any, views: Any, Y: Any, *, ax: Any = None, name: str | None = None, **options: Any
    ) -> Self:
        """Train a model on each view, evaluate it on every view, and draw the result.

        Parameters
        ----------
        estimator : estimator
            The estimator to fit, as in :func:`~flip_sklearn.diagnostics.view_alignment`; it is not modified.
        views : mapping of str to array-like of shape (n, d)
            Row-aligned views of the same sentences.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts of the sentences.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.view_alignment`, such as ``random_state``.

        Returns
        -------
        AlignmentDisplay
            The display, drawn.
        """
        return cls.from_result(view_alignment(views, Y, estimator=estimator, **options), ax=ax, name=name)

    def _figure_size(self) -> tuple[float, float]:
        return max(2.6 + 0.75 * len(self.columns), 4.8), max(1.6 + 0.5 * len(self.rows), 3.0)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        from matplotlib.patches import Rectangle
        from matplotlib.patheffects import withStroke

        finite = self.accuracy[np.isfinite(self.accuracy)]
        # The scale ends at the next multiple of ten percent, so that its dark end is used.
        v_max = np.ceil(10 * finite.max(initial=0.0)) / 10 or 1.0
        limits = {} if "norm" in kwargs else {"vmin": 0.0, "vmax": v_max}
        settings = {"cmap": "Blues", "aspect": "auto"} | limits | kwargs
        self.image_ = ax.imshow(np.ma.masked_invalid(self.accuracy), **settings)
        self.text_ = np.empty(self.accuracy.shape, dtype=object)
        font = {"ha": "center", "va": "center", "fontsize": 9 if len(self.columns) <= 6 else 7}
        hatches: dict[str, Any] = {"facecolor": "none", "edgecolor": style.GRAY, "hatch": "////", "lw": 0}
        for i, j in np.ndindex(*self.accuracy.shape):
            if np.isnan(self.accuracy[i, j]):
                text, color = style.NO_VALUE, "black"
                ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **hatches))
            else:
                text, color = self._cell_text(i, j), self._text_color(i, j)
            # With a halo, the text stays readable if a page inverts the picture for its dark mode.
            halo = withStroke(linewidth=1.5, foreground="black" if color == "white" else "white")
            self.text_[i, j] = ax.text(j, i, text, color=color, path_effects=[halo], **font)
        self._label_axes(ax)

    def _finish(self, ax: Any, title: str | None) -> None:
        super()._finish(ax, title)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        self.colorbar_ = ax.figure.colorbar(self.image_, ax=ax)
        self.colorbar_.set_label("share of words found", fontsize=9)
        self.colorbar_.outline.set_visible(False)
        style.format_percent(self.colorbar_.ax.yaxis)

    def _label_axes(self, ax: Any) -> None:
        """Label the ticks and the axes; long column names are rotated."""
        n_rows, n_columns = self.accuracy.shape
        max_length = max((len(str(column)) for column in self.columns), default=0)
        if n_columns > 3 and max_length * n_columns > 60:
            columns = style.wrap_labels(self.columns, 30, lines=1)
            rotation = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        else:
            columns = style.wrap_labels(self.columns, 13)
            rotation = {}
        ax.set_xticks(range(n_columns), columns, fontsize=9, **rotation)
        ax.set_yticks(range(n_rows), style.wrap_labels(self.rows, 30, lines=2), fontsize=9)
        ax.set_xlabel(style.escape_labels([self.column_label])[0], fontsize=9)
        ax.set_ylabel(self.row_label, fontsize=9)
        drawn = np.isfinite(self.difference)
        handles = [
            style.legend_marker(r"$\pm$", drawn),
            style.legend_marker("$*$", np.asarray(self.significant) & drawn),
        ]
        labels = [f"difference to {self.note}, in points", "interval of the difference excludes 0"]
        style.add_legend(ax, handles, labels, where="above", width=60)

    def _cell_text(self, i: int, j: int) -> str:
        """Return the accuracy of a cell and its difference to the reference, if it has one."""
        text = f"{100 * self.accuracy[i, j]:.1f}"
        if np.isfinite(self.difference[i, j]):
            star = "*" if self.significant[i, j] else ""
            text += f"\n{style.format_number(100 * self.difference[i, j], '+.1f')}{star}"
        return text

    def _text_color(self, i: int, j: int) -> str:
        """Return black or white, whichever has more contrast with the cell (WCAG 2.1)."""
        rgb = np.array(self.image_.cmap(self.image_.norm(self.accuracy[i, j]))[:3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"

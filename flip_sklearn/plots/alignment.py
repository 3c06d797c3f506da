"""A heat map of who reads whom: views against views, or languages against views."""

from __future__ import annotations

from typing import Any

import numpy as np

from flip_sklearn.diagnostics.alignment import ViewAlignment, view_alignment
from flip_sklearn.diagnostics.preference import VocabularyPreference
from flip_sklearn.plots import style


class AlignmentDisplay:
    """Heat map of keyword accuracy: the darker a cell, the more of a sentence's words are found.

    Each cell shows the accuracy in percent and, below it, by how many points it differs from the row's
    reference, with a star where the interval of the difference leaves out 0. White stands for 0.

    Parameters
    ----------
    accuracy : array-like of shape (r, c)
        Keyword accuracy, in [0, 1]; a nan cell is hatched.
    rows, columns : sequence of str
        The r and c names.
    difference : array-like of shape (r, c), default=None
        To the row's reference; nan where there is none to show.
    significant : array-like of bool of shape (r, c), default=None
        Where to put a star.
    row_label, column_label, note : str
        What rows and columns are, and what the difference is to.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.
    image_ : matplotlib AxesImage
        The cells.
    text_ : ndarray of shape (r, c)
        The matplotlib Text of each cell.
    colorbar_ : matplotlib Colorbar
        The scale.

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
        self.accuracy, self.difference, stars = style.same_shape(
            shape,
            accuracy=accuracy,
            difference=np.full(shape, np.nan) if difference is None else difference,
            significant=np.zeros(shape) if significant is None else significant,
        )
        self.significant = stars > 0
        self.row_label = row_label
        self.column_label = column_label
        self.note = note

    @classmethod
    def from_result(
        cls, result: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> AlignmentDisplay:
        """Draw a result.

        Parameters
        ----------
        result : ViewAlignment or VocabularyPreference
            Of :func:`~flip_sklearn.diagnostics.view_alignment` or
            :func:`~flip_sklearn.diagnostics.vocabulary_preference`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        AlignmentDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another kind.
        """
        style.check_result(
            result, (ViewAlignment, VocabularyPreference), "view_alignment or vocabulary_preference"
        )
        if isinstance(result, ViewAlignment):
            rows, row_label, note = result.views, "trained on", "the model's own view"
            reference = np.eye(len(rows), dtype=bool)
        else:
            rows, row_label, note = result.languages, "words of", "the language's own view"
            if result.reference != rows:
                same = len(set(result.reference)) == 1
                note = f'"{result.reference[0]}"' if same else "where the row has one number"
            reference = np.array([[v == own for v in result.views] for own in result.reference])
        display = cls(
            result.accuracy.value,
            rows=rows,
            columns=result.views,
            difference=np.where(reference, np.nan, result.difference.value),
            significant=result.difference.significant,
            row_label=row_label,
            note=note,
        )
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        views: Any,
        Y: Any,
        *,
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> AlignmentDisplay:
        """Train a model on each view, read every view, and draw the result.

        Parameters
        ----------
        estimator : estimator
            What to fit, as in :func:`~flip_sklearn.diagnostics.view_alignment`; it is not changed.
        views : mapping of str to array-like of shape (n, d)
            Row-aligned views of the same sentences.
        Y : {array-like, sparse matrix} of shape (n, V)
            Word counts of the sentences.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.view_alignment`, such as ``random_state``.

        Returns
        -------
        AlignmentDisplay
            The display, drawn.
        """
        return cls.from_result(
            view_alignment(views, Y, estimator=estimator, **options), ax=ax, name=name
        )

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> AlignmentDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure when None.
        name : str, default=None
            Title.
        **kwargs : dict
            For ``Axes.imshow``, such as ``cmap`` or ``vmax``.

        Returns
        -------
        AlignmentDisplay
            The display itself.
        """
        n_rows, n_columns = self.accuracy.shape
        ax = style.axes(ax, (max(2.6 + 0.75 * n_columns, 4.8), max(1.6 + 0.5 * n_rows, 3.0)))
        finite = self.accuracy[np.isfinite(self.accuracy)]
        # Up to the next ten percent: a scale that starts at 0 and makes use of its dark end.
        top = np.ceil(10 * finite.max(initial=0.0)) / 10 or 1.0
        limits = {} if "norm" in kwargs else {"vmin": 0.0, "vmax": top}
        settings = {"cmap": "Blues", "aspect": "auto"} | limits | kwargs
        self.image_ = ax.imshow(np.ma.masked_invalid(self.accuracy), **settings)
        self.text_ = np.empty(self.accuracy.shape, dtype=object)
        size = 9 if n_columns <= 6 else 7
        for i, j in np.ndindex(*self.accuracy.shape):
            self.text_[i, j] = ax.text(
                j,
                i,
                self._words(i, j),
                color=self._ink(i, j),
                ha="center",
                va="center",
                fontsize=size,
            )
            if np.isnan(self.accuracy[i, j]):
                self._hatch(ax, i, j)
        columns = style.wrap(self.columns, 13)
        turned = n_columns > 3 and max(map(len, map(str, self.columns))) * n_columns > 60
        if turned:
            columns = style.wrap(self.columns, 30, lines=1)
        ax.set_xticks(
            range(n_columns), columns, fontsize=9, rotation=45 if turned else 0,
            ha="right" if turned else "center", rotation_mode="anchor" if turned else None,
        )  # fmt: skip
        ax.set_yticks(range(n_rows), style.wrap(self.rows, 30, lines=2), fontsize=9)
        label = self.column_label
        if np.isfinite(self.difference).any():
            label += f"\nbelow: points more than from {self.note};\n* the interval leaves out 0"
        ax.set_xlabel(style.words([label])[0], fontsize=9)
        ax.set_ylabel(self.row_label, fontsize=9)
        style.finish(ax, name)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        self.colorbar_ = ax.figure.colorbar(self.image_, ax=ax)
        self.colorbar_.set_label("share of words found", fontsize=9)
        self.colorbar_.outline.set_visible(False)
        style.percent(self.colorbar_.ax.yaxis)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _words(self, i: int, j: int) -> str:
        """What a cell says."""
        if np.isnan(self.accuracy[i, j]):
            return style.NOTHING
        text = f"{100 * self.accuracy[i, j]:.1f}"
        if np.isfinite(self.difference[i, j]):
            star = "*" if self.significant[i, j] else ""
            text += f"\n{style.number(100 * self.difference[i, j], '+.1f')}{star}"
        return text

    def _ink(self, i: int, j: int) -> str:
        """Black or white, whichever has more contrast on the cell (WCAG 2.1)."""
        if np.isnan(self.accuracy[i, j]):
            return "black"
        rgb = np.array(self.image_.cmap(self.image_.norm(self.accuracy[i, j]))[:3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"

    def _hatch(self, ax: Any, i: int, j: int) -> None:
        from matplotlib.patches import Rectangle

        ax.add_patch(
            Rectangle(
                (j - 0.5, i - 0.5), 1, 1, facecolor="none", edgecolor="#999999", hatch="////", lw=0
            )
        )

"""The keywords of one embedding as bars."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

import numpy as np

from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display


class KeywordDisplay(Display):
    """Bars of the keywords of one embedding, the best at the top.

    The bars of words that are in the sentence are filled, the others are hatched. If the words of the
    sentence are not known, all bars are filled. Further arguments of :meth:`plot` are those of
    ``Axes.barh``, such as ``height``.

    Parameters
    ----------
    words : sequence of k str
        Best first.
    scores : array-like of shape (k,)
        Lengths of the bars.
    present : array-like of bool of shape (k,), default=None
        Whether each word is in the sentence.
    text : str, default=None
        The sentence, shown as the title of plots without a ``name``.
    label : str, default="score"
        Label of the score axis, with the unit.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    bars_ : matplotlib BarContainer
        One bar for each word, best first.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import KeywordDisplay
    >>> display = KeywordDisplay(["dog", "cat"], [4.2, 1.5], present=[True, False],
    ...                          text="A dog runs.").plot(Figure().subplots())
    >>> [bar.get_hatch() for bar in display.bars_]
    ['', '////']
    """

    def __init__(
        self, words: Any, scores: Any, *, present: Any = None, text: str | None = None, label: str = "score"
    ) -> None:
        self.words = tuple(words)
        shape = (len(self.words),)
        (self.scores,) = style.check_shapes(shape, scores=scores)
        self.present = None if present is None else style.check_flags("present", present, shape)
        self.text = text
        self.label = label

    @classmethod
    def from_result(
        cls,
        result: Any,
        *,
        words_present: Collection[str] | None = None,
        text: str | None = None,
        label: str = "score",
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the keywords of one embedding.

        Parameters
        ----------
        result : sequence of (str, float)
            Words with scores, best first: an element of ``extract_keywords(X, return_scores=True)``.
        words_present : collection of str, default=None
            The words of the sentence, spelled as in the vocabulary.
        text : str, default=None
            The sentence, shown as the title.
        label : str, default="score"
            Label of the score axis, with the unit.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        KeywordDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is not a sequence of pairs, or ``words_present`` is a string.
        """
        pairs = list(result)
        if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
            raise ValueError(
                f"result is {result!r:.60}; pass the (word, score) pairs of one embedding, such as "
                "extract_keywords(X, return_scores=True)[0]."
            )
        if isinstance(words_present, (str, bytes)):
            raise ValueError(
                f"words_present={words_present!r:.60} is one string; pass the words, such as a set."
            )
        words = [word for word, _ in pairs]
        present = None
        if words_present is not None:
            words_present = set(words_present)
            present = [word in words_present for word in words]
        display = cls(words, [score for _, score in pairs], present=present, text=text, label=label)
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        x: Any,
        *,
        top_k: int | None = None,
        words_present: Collection[str] | None = None,
        text: str | None = None,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Extract the keywords of an embedding and draw them.

        Parameters
        ----------
        estimator : FLiPExtractor
            A fitted estimator. With ``use_bias=False`` the bars are lifts over the average sentence; with
            ``use_bias=True`` they are scores, which are high for frequent words in every sentence.
        x : array-like of shape (d,) or (1, d)
            The embedding.
        top_k : int, default=None
            Number of words, >= 1; the ``top_k`` of the estimator if None.
        words_present, text : collection of str and str, default=None
            As in :meth:`from_result`.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        KeywordDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If x is not one embedding, or the estimator does not accept it.
        """
        shape = np.shape(x)
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 1):
            raise ValueError(f"x has shape {shape}; pass one embedding, such as X[0] or X[:1].")
        keywords = estimator.extract_keywords(
            np.asarray(x)[None] if len(shape) == 1 else x, top_k=top_k, return_scores=True
        )
        if not hasattr(estimator, "use_bias"):
            label = "score"
        elif estimator.use_bias:
            label = "score with the bias (nats)"
        else:
            label = "lift over the average sentence (nats)"
        return cls.from_result(
            keywords[0], words_present=words_present, text=text, label=label, ax=ax, name=name, **kwargs
        )

    def _figure_size(self) -> tuple[float, float]:
        return 4.8, (1.0 if self.present is None else 1.4) + 0.27 * len(self.words)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        is_filled = True if self.present is None else self.present
        self.bars_ = style.draw_bars(ax, self.scores, is_filled, **kwargs)
        style.label_bars(ax, style.wrap_labels(self.words, 28, lines=1), 0.6)
        ax.set_xlabel(style.escape_labels([self.label])[0], fontsize=9)
        ax.tick_params(axis="x", labelsize=9)
        if self.present is not None:
            from matplotlib.patches import Patch

            boxes = [Patch(**style.bar_style(i)) for i in range(2)]
            style.add_legend(ax, boxes, ["in the sentence", "not in the sentence"], where="above")

    def _finish(self, ax: Any, title: str | None) -> None:
        if title is None and self.text is not None:
            title = f'"{self.text}"'
        super()._finish(ax, title)

"""Which words are found: recall against frequency, or by group."""

from __future__ import annotations

from typing import Any

import numpy as np

from flip_sklearn.diagnostics.words import WordRecoverability, word_recoverability
from flip_sklearn.plots import style

_LABELLED = 5


class RecoverabilityDisplay:
    """Recall of words against their frequency in training, or of groups of words as bars.

    Bands of frequency: a faint dot for each word, larger where the test has it more often; a thick line
    over the counts of each band at the recall of its words together, with its interval; and the names of
    some words at both ends. Any other grouping, which has no place on the axis of frequency: a bar for
    each group. The dashed line is the recall of all words together, and a star stands where the interval
    of the difference to it leaves out 0. Diamonds are what always guessing the most frequent words finds.

    Parameters
    ----------
    bands : sequence of b labels
    recall, low, high : array-like of shape (b,)
        Recall of each band with its interval, in [0, 1].
    overall : float
        Recall of all words together.
    significant : array-like of bool of shape (b,), default=None
        Where to put a star.
    floor : array-like of shape (b,), default=None
        Recall of guessing, of each band.
    counts : array-like of shape (b, 2), default=None
        Least and largest training count in each band; None for bars.
    words : sequence of str, default=None
        Names of the words drawn as dots.
    word_count, word_recall, word_test_count : array-like, default=None
        Training count, recall and test sentences of each word.
    kept, lost : sequence of str
        The words to name at the upper and the lower end.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.
    line_ : list of b matplotlib Line2D
        The recall of each band; empty for bars.
    bars_ : matplotlib BarContainer or None
        The bars, if it is bars.
    errorbar_ : matplotlib ErrorbarContainer
        The intervals.
    scatter_ : matplotlib PathCollection or None
        The words.
    text_ : list of matplotlib Annotation
        The shares of the bars, or the names of words.
    overall_ : matplotlib Line2D
    floor_ : matplotlib Line2D or None
        The diamonds.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flip_sklearn.plots import RecoverabilityDisplay
    >>> display = RecoverabilityDisplay(bands=["noun", "verb"], recall=[0.7, 0.4], low=[0.65, 0.3],
    ...                                 high=[0.75, 0.5], overall=0.6,
    ...                                 significant=[True, True]).plot(Figure().subplots())
    >>> [text.get_text() for text in display.text_]
    ['70.0% *', '40.0% *']
    """

    def __init__(
        self,
        *,
        bands: Any,
        recall: Any,
        low: Any,
        high: Any,
        overall: Any,
        significant: Any = None,
        floor: Any = None,
        counts: Any = None,
        words: Any = None,
        word_count: Any = None,
        word_recall: Any = None,
        word_test_count: Any = None,
        kept: Any = (),
        lost: Any = (),
    ) -> None:
        self.bands = tuple(bands)
        b = len(self.bands)
        self.recall, self.low, self.high, stars = style.same_shape(
            (b,),
            recall=recall,
            low=low,
            high=high,
            significant=np.zeros(b) if significant is None else significant,
        )
        self.significant = stars > 0
        self.overall = float(overall)
        self.floor = None if floor is None else style.same_shape((b,), floor=floor)[0]
        self.counts = None if counts is None else style.same_shape((b, 2), counts=counts)[0]
        self.words = () if words is None else tuple(words)
        none = np.zeros(0)
        self.word_count, self.word_recall, self.word_test_count = style.same_shape(
            (len(self.words),),
            word_count=none if word_count is None else word_count,
            word_recall=none if word_recall is None else word_recall,
            word_test_count=none if word_test_count is None else word_test_count,
        )
        self.kept = tuple(kept)
        self.lost = tuple(lost)

    @classmethod
    def from_result(
        cls, result: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> RecoverabilityDisplay:
        """Draw a result.

        Parameters
        ----------
        result : WordRecoverability
            Of :func:`~flip_sklearn.diagnostics.word_recoverability`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **kwargs : dict
            As in :meth:`plot`.

        Returns
        -------
        RecoverabilityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the result is of another kind.
        """
        style.check_result(result, WordRecoverability, "word_recoverability")
        found = result.band_recall
        counts, floor = _ranges(result), result.band_baseline
        words: dict[str, Any] = {}
        if counts is not None:
            shown = np.flatnonzero((result.test_count > 0) & (result.band != None))  # noqa: E711
            words = {
                "words": result.words[shown],
                "word_count": result.train_count[shown],
                "word_recall": result.recall[shown],
                "word_test_count": result.test_count[shown],
                "kept": result.kept(_LABELLED),
                "lost": result.lost(_LABELLED),
            }
        display = cls(
            bands=result.bands, recall=found.value, low=found.low, high=found.high,
            overall=result.overall.value, significant=result.band_difference.significant,
            floor=None if floor is None else floor.value, counts=counts, **words,
        )  # fmt: skip
        return display.plot(ax, name=name, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        ax: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> RecoverabilityDisplay:
        """Read test sentences with a fitted model, and draw the result.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        X : array-like of shape (n, d)
            Embeddings that the model was not trained on.
        Y : {array-like, sparse matrix} of shape (n, V)
            Their word counts.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        name : str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.word_recoverability`, such as ``by``.

        Returns
        -------
        RecoverabilityDisplay
            The display, drawn.
        """
        return cls.from_result(word_recoverability(estimator, X, Y, **options), ax=ax, name=name)

    def plot(
        self, ax: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> RecoverabilityDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure when None.
        name : str, default=None
            Title.
        **kwargs : dict
            For the bands: ``Axes.plot``, or ``Axes.barh`` where they are bars.

        Returns
        -------
        RecoverabilityDisplay
            The display itself.
        """
        self.line_: list[Any] = []
        self.text_: list[Any] = []
        self.bars_ = self.scatter_ = self.floor_ = None
        if self.counts is None:
            ax = style.axes(ax, (6.4, min(1.3 + 0.3 * len(self.bands), 12.0)))
            self._plot_groups(ax, kwargs)
        else:
            ax = style.axes(ax, (6.4, 4.6))
            self._plot_frequency(ax, self.counts, kwargs)
        style.finish(ax, name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_groups(self, ax: Any, kwargs: dict[str, Any]) -> None:
        at = np.arange(len(self.bands))
        self.bars_ = style.bars(ax, self.recall, np.ones(len(at), bool), **kwargs)
        self.errorbar_ = style.whiskers(ax, at, self.low, self.high, across=True)
        self.text_ = [
            style.value(ax, self.recall[i], self.high[i], i, self.significant[i])
            for i in range(len(at))
        ]
        if self.floor is not None:
            self.floor_ = self._diamonds(ax, self.floor, at)
        self.overall_ = ax.axvline(
            self.overall, color="black", linestyle="--", linewidth=1, zorder=0
        )
        ax.set_yticks(at, style.wrap(self.bands, 26, lines=2), fontsize=9)
        ax.set_ylim(len(at) - 0.45, -0.55)
        style.percent(ax.xaxis)
        ax.set_xlim(0, 1.05)
        ax.set_xlabel(self._found() + self._star(), fontsize=9)

    def _plot_frequency(self, ax: Any, counts: np.ndarray, kwargs: dict[str, Any]) -> None:
        ends = _place(counts)
        if len(self.words):
            x, size = _place(self.word_count), 5 + 4 * np.log2(np.maximum(self.word_test_count, 1))
            self.scatter_ = ax.scatter(
                x,
                self.word_recall,
                s=size,
                color="#777777",
                alpha=0.25,
                linewidth=0,
                rasterized=True,
            )
        look = {"color": style.BLUE, "linewidth": 4, "solid_capstyle": "butt"} | kwargs
        for (first, last), recall in zip(ends, self.recall, strict=True):
            wide = max(last - first, 0.1) / 2  # a band of one count has a line, too
            middle = (first + last) / 2
            self.line_ += ax.plot([middle - wide, middle + wide], [recall, recall], **look)
        self.errorbar_ = style.whiskers(ax, ends.mean(axis=1), self.low, self.high)
        for star, at, high in zip(self.significant, ends.mean(axis=1), self.high, strict=True):
            if star:
                ax.annotate(
                    "*",
                    (at, high),
                    xytext=(0, -1),
                    textcoords="offset points",
                    ha="center",
                    fontsize=11,
                )
        if self.floor is not None:
            self.floor_ = self._diamonds(ax, ends.mean(axis=1), self.floor)
        self.overall_ = ax.axhline(self.overall, color="black", linestyle="--", linewidth=1)
        most = int(np.ceil(max(ends.max(initial=1.0), 1.0)))
        ticks = {float(p): f"{10**p:,}" for p in range(most + 1)}
        if (counts[:, 0] <= 0).any():
            ticks[_NEVER] = "0"
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.set_xlabel("times in the training text" + self._star(), fontsize=9)
        style.shares(ax, self._found())
        ax.set_yticks(np.linspace(0, 1, 6))
        ax.set_ylim(-0.05, 1.05)
        ax.set_xlim(min(ticks) - 0.15, ends.max(initial=1.0) + 0.25)
        self._name_words(ax)

    def _found(self) -> str:
        if self.floor is None:
            return "share of occurrences found (dashed: all words)"
        return "share of occurrences found (dashed: all words;\ndiamonds: guessing frequent words)"

    def _diamonds(self, ax: Any, x: Any, y: Any) -> Any:
        look = {"markersize": 6, "markerfacecolor": "white", "markeredgecolor": "black"}
        return ax.plot(x, y, "D", clip_on=False, **look)[0]

    def _star(self) -> str:
        star = "\n* the interval of the difference to all words leaves out 0"
        return star if self.significant.any() else ""

    def _name_words(self, ax: Any) -> None:
        """Names of some words in a row above and one below, with a line to the dot of each."""
        place = {word: i for i, word in reversed(list(enumerate(self.words)))}
        left, right = ax.get_xlim()
        inches = ax.get_window_extent().width / ax.figure.dpi
        per_letter = (right - left) / (inches * 72) * 8 * 0.65  # at 8 points
        for names, y in ((self.kept, 1.15), (self.lost, -0.15)):
            known = [place[word] for word in names if word in place]
            known.sort(key=lambda i: (self.word_count[i], self.word_recall[i]))
            texts = style.wrap([self.words[i] for i in known], 16, 1)
            x = _place(self.word_count[known])
            middles = _side_by_side(x, [per_letter * (len(t) + 1) for t in texts], right)
            for i, text, at, middle in zip(known, texts, x, middles, strict=True):
                self.text_.append(
                    ax.annotate(
                        text, (at, self.word_recall[i]), xytext=(middle, y), fontsize=8,
                        ha="center", va="bottom" if y > 0 else "top",
                        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkB": 0},
                    )
                )  # fmt: skip
        if self.text_:
            ax.set_ylim(-0.25, 1.25)


def _side_by_side(x: np.ndarray, widths: list[float], right: float) -> np.ndarray:
    """Middles of labels in a row in the order of x, none covering another, none beyond the right end."""
    middles, half = np.array(x, dtype=float), np.array(widths) / 2
    for i in range(1, len(middles)):
        middles[i] = max(middles[i], middles[i - 1] + half[i - 1] + half[i])
    for i in reversed(range(len(middles))):
        end = right if i + 1 == len(middles) else middles[i + 1] - half[i + 1]
        middles[i] = min(middles[i], end - half[i])
    return middles


_NEVER = -0.6  # where words that training never saw stand, which have no logarithm


def _place(count: Any) -> np.ndarray:
    """Training counts on the axis: in powers of ten."""
    count = np.asarray(count, dtype=float)
    return np.where(count > 0, np.log10(np.maximum(count, 1e-3)), _NEVER)


def _ranges(result: WordRecoverability) -> np.ndarray | None:
    """Least and largest training count of each band; None where bands overlap, which are not of counts."""
    used = result.test_count > 0
    counts = [result.train_count[used & (result.band == band)] for band in result.bands]
    if any(len(c) == 0 or np.isnan(c).any() for c in counts):
        return None
    ranges = np.array([[c.min(), c.max()] for c in counts])
    return ranges if (ranges[1:, 0] > ranges[:-1, 1]).all() else None

"""Recall of words against their frequency, or by group."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flip_sklearn.diagnostics.words import WordRecoverability, word_recoverability
from flip_sklearn.plots import style
from flip_sklearn.plots.display import Display

_N_LABELLED = 5  # words labelled above and below the dots
_SHARE_LABEL = "share of occurrences found"
_X_UNSEEN = -0.6  # position of words that do not occur in training, whose count has no logarithm


class RecoverabilityDisplay(Display):
    """Recall of words against their frequency in training, or of groups of words as bars.

    For frequency bins, each word is a dot, whose size grows with the number of test sentences that contain
    the word. A thick line over the counts of a bin shows the pooled recall of its words, with its interval,
    and some words with high and low recall are labelled. For other groups, each group is a bar. The dashed
    line is the pooled recall of all words, and a star marks groups whose difference to it has an interval
    that excludes 0. Diamonds are the recall of always predicting the most frequent words.

    :meth:`from_result` draws a result of :func:`~flip_sklearn.diagnostics.word_recoverability`. Further
    arguments of :meth:`plot` are those of ``Axes.plot`` for the bins, or of ``Axes.barh`` for bars.

    Parameters
    ----------
    bands : sequence of b labels
        Names of the bins or groups.
    recall, low, high : array-like of shape (b,)
        Recall of each bin with its interval, in [0, 1].
    overall : float
        Pooled recall of all words.
    significant : array-like of bool of shape (b,), default=None
        Which bins have a star.
    floor : array-like of shape (b,), default=None
        Recall of always predicting the most frequent words, for each bin.
    counts : array-like of shape (b, 2), default=None
        Smallest and largest training count in each bin; None to draw bars.
    words : sequence of str, default=None
        The words drawn as dots.
    word_count, word_recall, word_test_count : array-like, default=None
        Training count, recall and number of test sentences of each word.
    kept, lost : sequence of str
        The words to label above and below the dots.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and the figure of the last drawing.
    line_ : list of b matplotlib Line2D
        The recall of each bin; empty if bars are drawn.
    bars_ : matplotlib BarContainer or None
        The bars, if bars are drawn.
    errorbar_ : matplotlib ErrorbarContainer
        The intervals.
    scatter_ : matplotlib PathCollection or None
        The dots.
    text_ : list of matplotlib Annotation
        The percentages of the bars, or the labels of words.
    overall_ : matplotlib Line2D
        The dashed line.
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
        self.recall, self.low, self.high = style.check_shapes((b,), recall=recall, low=low, high=high)
        self.significant = style.check_flags("significant", significant, (b,))
        self.overall = float(overall)
        self.floor = None if floor is None else style.check_shapes((b,), floor=floor)[0]
        self.counts = None if counts is None else style.check_shapes((b, 2), counts=counts)[0]
        self.words = () if words is None else tuple(words)
        self.word_count, self.word_recall, self.word_test_count = style.check_shapes(
            (len(self.words),),
            word_count=() if word_count is None else word_count,
            word_recall=() if word_recall is None else word_recall,
            word_test_count=() if word_test_count is None else word_test_count,
        )
        self.kept = tuple(kept)
        self.lost = tuple(lost)

    @classmethod
    def _from_result(cls, result: Any) -> Self:
        style.check_result(result, WordRecoverability, "word_recoverability")
        counts, baseline = _count_ranges(result), result.band_baseline
        words: dict[str, Any] = {}
        if counts is not None:
            in_bin = np.array([band is not None for band in result.band], dtype=bool)
            rows = np.flatnonzero((result.test_count > 0) & in_bin)
            words = {
                "words": result.words[rows],
                "word_count": result.train_count[rows],
                "word_recall": result.recall[rows],
                "word_test_count": result.test_count[rows],
                "kept": result.kept(_N_LABELLED),
                "lost": result.lost(_N_LABELLED),
            }
        return cls(
            bands=result.bands,
            recall=result.band_recall.value,
            low=result.band_recall.low,
            high=result.band_recall.high,
            overall=result.overall.value,
            significant=result.band_difference.significant,
            floor=None if baseline is None else baseline.value,
            counts=counts,
            **words,
        )

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, Y: Any, *, ax: Any = None, name: str | None = None, **options: Any
    ) -> Self:
        """Compute the recall of each word with a fitted model, and draw the result.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator.
        X : array-like of shape (n, d)
            Embeddings that the model was not trained on.
        Y : {array-like, sparse matrix} of shape (n, V)
            Their word counts.
        ax, name : matplotlib Axes and str, default=None
            As in :meth:`plot`.
        **options : dict
            More arguments of :func:`~flip_sklearn.diagnostics.word_recoverability`, such as ``by``.

        Returns
        -------
        RecoverabilityDisplay
            The display, drawn.
        """
        return cls.from_result(word_recoverability(estimator, X, Y, **options), ax=ax, name=name)

    def _figure_size(self) -> tuple[float, float]:
        return 6.4, 4.9 if self.counts is not None else min(1.6 + 0.3 * len(self.bands), 12.0)

    def _draw(self, ax: Any, kwargs: dict[str, Any]) -> None:
        self.line_: list[Any] = []
        self.text_: list[Any] = []
        self.bars_ = self.scatter_ = self.floor_ = None
        if self.counts is None:
            self._plot_groups(ax, kwargs)
        else:
            self._plot_frequency(ax, self.counts, kwargs)

    def _plot_groups(self, ax: Any, kwargs: dict[str, Any]) -> None:
        """Draw a bar for each group."""
        y = np.arange(len(self.bands))
        self.bars_ = style.draw_bars(ax, self.recall, **kwargs)
        self.errorbar_ = style.draw_whiskers(ax, y, self.low, self.high, horizontal=True)
        self.text_ = [
            style.annotate_share(ax, self.recall[i], self.high[i], i, self.significant[i])
            for i in range(len(y))
        ]
        if self.floor is not None:
            self.floor_ = self._draw_diamonds(ax, self.floor, y)
        self.overall_ = ax.axvline(self.overall, color="black", linestyle="--", linewidth=1, zorder=0)
        style.label_bars(ax, style.wrap_labels(self.bands, 26, lines=2), 0.55)
        style.format_percent(ax.xaxis)
        ax.set_xlim(0, 1.05)
        ax.set_xlabel(_SHARE_LABEL, fontsize=9)
        self._add_key(ax)

    def _plot_frequency(self, ax: Any, counts: np.ndarray, kwargs: dict[str, Any]) -> None:
        """Draw a dot for each word and a line for each bin of training counts."""
        if len(self.words):
            self.scatter_ = ax.scatter(
                _count_position(self.word_count),
                self.word_recall,
                s=5 + 4 * np.log2(np.maximum(self.word_test_count, 1)),
                color="black",
                alpha=0.45,  # of one dot: a contrast of 3 to white
                linewidth=0,
                rasterized=True,
            )
        ends = _count_position(counts)
        middles = ends.mean(axis=1)
        self._draw_bins(ax, ends, kwargs)
        self.errorbar_ = style.draw_whiskers(ax, middles, self.low, self.high)
        for i in np.flatnonzero(self.significant):
            ax.annotate(
                "*",
                (middles[i], self.high[i]),
                xytext=(0, -1),
                textcoords="offset points",
                ha="center",
                fontsize=11,
            )
        if self.floor is not None:
            self.floor_ = self._draw_diamonds(ax, middles, self.floor)
        self.overall_ = ax.axhline(self.overall, color="black", linestyle="--", linewidth=1)
        max_power = int(np.ceil(max(ends.max(initial=1.0), 1.0)))
        ticks = {float(power): f"{10**power:,}" for power in range(max_power + 1)}
        if (counts[:, 0] <= 0).any():
            ticks[_X_UNSEEN] = "0"
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.set_xlabel("count in the training text", fontsize=9)
        style.set_share_axis(ax, _SHARE_LABEL)
        ax.set_yticks(np.linspace(0, 1, 6))
        ax.set_ylim(-0.05, 1.05)
        ax.set_xlim(min(ticks) - 0.15, ends.max(initial=1.0) + 0.25)
        self._add_key(ax)
        self._label_words(ax)

    def _draw_bins(self, ax: Any, ends: np.ndarray, kwargs: dict[str, Any]) -> None:
        """Draw a horizontal line for each bin, from its smallest to its largest count."""
        settings = {"color": style.BLUE, "linewidth": 4, "solid_capstyle": "butt"} | kwargs
        for (first, last), recall in zip(ends, self.recall, strict=True):
            half = max(last - first, 0.1) / 2  # at least 0.1 long, also for a bin of one count
            middle = (first + last) / 2
            self.line_ += ax.plot([middle - half, middle + half], [recall, recall], **settings)

    def _draw_diamonds(self, ax: Any, x: Any, y: Any) -> Any:
        settings = {"markersize": 6, "markerfacecolor": "white", "markeredgecolor": "black"}
        return ax.plot(x, y, "D", clip_on=False, **settings)[0]

    def _add_key(self, ax: Any) -> None:
        star = style.legend_marker("$*$", self.significant)
        handles = [self.overall_, self.floor_, star]
        labels = ["all words", "most frequent words", "interval of the difference to all words excludes 0"]
        style.add_legend(ax, handles, labels, where="above", width=60)

    def _label_words(self, ax: Any) -> None:
        """Label some words in a row above the dots and in one below, each with a line to its dot."""
        row_of_word = {word: i for i, word in enumerate(self.words)}
        left, right = ax.get_xlim()
        width_in_points = ax.get_window_extent().width / ax.figure.dpi * 72
        letter_width = (right - left) / width_in_points * 8 * 0.65  # at a font size of 8 points
        for words, y in ((self.kept, 1.15), (self.lost, -0.15)):
            rows = [row_of_word[word] for word in words if word in row_of_word]
            rows.sort(key=lambda i: (self.word_count[i], self.word_recall[i]))
            texts = style.wrap_labels([self.words[i] for i in rows], 16, 1)
            x = _count_position(self.word_count[rows])
            x_text = _without_overlap(x, [letter_width * (len(text) + 1) for text in texts], right)
            for i, row in enumerate(rows):
                annotation = ax.annotate(
                    texts[i],
                    (x[i], self.word_recall[row]),
                    xytext=(x_text[i], y),
                    fontsize=8,
                    ha="center",
                    va="bottom" if y > 0 else "top",
                    arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkB": 0},
                )
                self.text_.append(annotation)
        if self.text_:
            ax.set_ylim(-0.25, 1.25)


def _without_overlap(x: np.ndarray, widths: list[float], right: float) -> np.ndarray:
    """Return centers of labels near ascending x that neither overlap nor exceed the right end."""
    centers, half = np.array(x, dtype=float), np.array(widths) / 2
    for i in range(1, len(centers)):
        centers[i] = max(centers[i], centers[i - 1] + half[i - 1] + half[i])
    for i in reversed(range(len(centers))):
        end = right if i + 1 == len(centers) else centers[i + 1] - half[i + 1]
        centers[i] = min(centers[i], end - half[i])
    return centers


def _count_position(count: Any) -> np.ndarray:
    """Return the position of training counts on the axis, log10 of the count."""
    count = np.asarray(count, dtype=float)
    return np.where(count > 0, np.log10(np.maximum(count, 1e-3)), _X_UNSEEN)


def _count_ranges(result: WordRecoverability) -> np.ndarray | None:
    """Return the range of training counts of each bin, or None if the bins are not count ranges."""
    in_test = result.test_count > 0
    counts = [result.train_count[in_test & (result.band == band)] for band in result.bands]
    if any(len(c) == 0 or np.isnan(c).any() for c in counts):
        return None
    ranges = np.array([[c.min(), c.max()] for c in counts])
    return ranges if (ranges[1:, 0] > ranges[:-1, 1]).all() else None

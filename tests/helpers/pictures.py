"""A small result of each kind with made-up values, and helpers to inspect plots."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flip_sklearn import FLiPExtractor, plots
from flip_sklearn.diagnostics import (
    EntityRecallCurve,
    ExtractorComparison,
    Leakage,
    RankAnalysis,
    ViewAlignment,
    ViewGap,
    VocabularyPreference,
    WordRecoverability,
)
from flip_sklearn.diagnostics.bootstrap import Difference, Interval
from flip_sklearn.diagnostics.similarity import SimilarityExplanation
from flip_sklearn.estimation.directions import DirectionWords
from flip_sklearn.path import RegularizationPath

matplotlib.use("Agg")


def interval(value: Any, below: float = 0.02, above: float = 0.03) -> Interval:
    value = np.asarray(value, dtype=float)
    return Interval(value, value - below, value + above)


def difference(value: Any, width: float = 0.05) -> Difference:
    value = np.asarray(value, dtype=float)
    return Difference(value, value - width, value + width, np.abs(value) > width)


def alignment(views: Any = ("text", "speech"), seed: int = 0) -> ViewAlignment:
    accuracy = np.random.default_rng(seed).uniform(0.2, 0.8, size=(len(views), len(views)))
    return ViewAlignment(
        tuple(views), interval(accuracy), difference(accuracy - np.diag(accuracy)[:, None]),
        interval(accuracy), interval(accuracy), interval(0.2), 900, 100, 0, 0.95,
    )  # fmt: skip


def preference(reference: Any = ("en", "de")) -> VocabularyPreference:
    return VocabularyPreference(
        ("en", "de"), ("en", "de", "fr"), reference, interval([[0.6, 0.5, 0.4], [0.3, 0.5, np.nan]]),
        difference([[0, -0.1, -0.2], [-0.2, 0, np.nan]]), interval([0.2, 0.2]), 9, 9, (0, 0), 0.95,
    )  # fmt: skip


def ranks(views: Any = ("text", "speech"), tried: Any = (16, 64, 384, None)) -> RankAnalysis:
    accuracy = 0.3 + 0.1 * np.arange(len(tried))[:, None] - 0.02 * np.arange(len(views))
    return RankAnalysis(
        tuple(tried), tuple(views), interval(accuracy), difference(accuracy - accuracy[-1]),
        np.ones(len(tried)), interval(0.22), 900, 100, 0, 0.95,
    )  # fmt: skip


def entities(views: Any = ("text", "speech"), ks: Any = (1, 10, 100)) -> EntityRecallCurve:
    recall = np.stack([0.1 + 0.2 * np.log10(ks), 0.3 + 0.3 * np.log10(ks)])[:, None]
    recall = recall * (1 - 0.05 * np.arange(len(views)))[:, None]
    return EntityRecallCurve(
        np.array(ks), tuple(views), interval(recall), interval(recall), interval(recall),
        difference(recall[1] - recall[0]), 0.93, 100, 10, 200, 7, 0.95,
    )  # fmt: skip


def path(accuracy: Any = (0.24, 0.6, 0.71, 0.712)) -> RegularizationPath:
    n, unused = len(accuracy), np.zeros(len(accuracy))
    return RegularizationPath(
        l1_strengths=np.geomspace(300, 0.1, n),
        accuracy=np.array(accuracy),
        standard_error=np.full(n, 0.004),
        accuracy_without_bias=np.array(accuracy) - 0.1,
        nll=unused,
        sparsity=1 - np.array([0.0, 0.01, 0.5, 0.8]),
        n_words_left=unused,
        seconds=unused,
        kkt_residual=unused,
        models=tuple(FLiPExtractor() for _ in range(n)),
        held_out=None,
    )


def extractors(views: Any = ("text", "speech")) -> ExtractorComparison:
    accuracy = np.array([0.5, 0.48, 0.2])[:, None] + 0.01 * np.arange(len(views))
    return ExtractorComparison(
        ("FLiP", "LiP", "most frequent words"), tuple(views), interval(accuracy),
        difference(accuracy - accuracy[0]), 900, 100, 0, 0.95,
    )  # fmt: skip


def recoverability(
    n_words: int = 300, by: str = "frequency", with_baseline: bool = True
) -> WordRecoverability:
    """Return a result with recall that increases with frequency, in frequency bins or two groups."""
    rng = np.random.default_rng(0)
    train = np.concatenate([[0, 0], rng.integers(1, 1000, size=n_words - 2)]).astype(float)
    test = np.maximum(rng.poisson(train / 20), 1)
    hits = rng.binomial(test, np.clip(0.2 + 0.25 * np.log10(train + 1), 0, 1))
    if by == "frequency":
        bins = ("0", "1-9", "10-99", "100+")
        bin_of_word = np.searchsorted([1, 10, 100], train, "right")
    else:
        bins, bin_of_word = ("noun", "verb"), np.arange(n_words) % 2
    bin_hits, occurrences = np.bincount(bin_of_word, hits), np.bincount(bin_of_word, test)
    overall = bin_hits.sum() / occurrences.sum()
    return WordRecoverability(
        words=np.array([f"word{j}" for j in range(n_words)], dtype=object),
        train_count=train,
        test_count=test,
        test_hits=hits,
        recall=hits / test,
        band=np.array(bins, dtype=object)[bin_of_word],
        bands=bins,
        band_recall=interval(bin_hits / occurrences),
        band_difference=difference(bin_hits / occurrences - overall),
        band_words=np.bincount(bin_of_word),
        band_occurrences=occurrences,
        overall=interval(overall),
        n_sentences=100,
        n_skipped=0,
        confidence=0.95,
        band_baseline=interval(np.linspace(0.05, 0.3, len(bins))) if with_baseline else None,
    )


def similarity() -> SimilarityExplanation:
    """Return a result with common 0.3, residual 0.05, and words of 0.5, -0.1 and twelve times 0.01."""
    contribution = np.array([0.5, -0.1, *[0.01] * 12])
    m = len(contribution)
    return SimilarityExplanation(
        0.3 + contribution.sum() + 0.05, 0.3, 0.05,
        np.array(["dog", "cat", *[f"word{j}" for j in range(12)]], dtype=object), contribution,
        np.ones(m), np.ones(m), np.diag(contribution),
    )  # fmt: skip


KEYWORDS = [("dog", 4.2), ("runs", 3.0), ("cat", -0.5)]
DIRECTION = DirectionWords([("woman", 3.1), ("her", 2.0)], [("man", -1.5), ("his", -1.0), ("he", -0.2)])
BANDS = ("1-9", "10-99", "all")
RECALLS = {
    "word in the sentence": [[0.5, 0.8, 0.75], [0.4, 0.75, 0.7], [0.6, 0.85, 0.8]],
    "word deleted": [[0.0, 0.2, 0.15], [0.0, 0.15, 0.1], [0.05, 0.25, 0.2]],
    "random labels": [[0.5, 0.7, 0.65], [0.4, 0.6, 0.6], [0.6, 0.8, 0.7]],
}


def leakage_result() -> Leakage:
    """Three readers of two words."""
    before = Interval(*np.tile([[[0.99], [0.98], [1.0]]], (1, 3, 2)).reshape(3, 3, 2))
    auc = np.array([[0.55, 0.6], [0.5, 0.5], [0.95, 0.53]])
    after = Interval(auc, auc - 0.04, auc + 0.04)
    readers = ("model", "linear", "network")
    return Leakage(("man", "snow"), readers, before, after, np.array([90, 20]), 400, 400, 0.95, 0.3, 0.95)


def view_gap_result() -> ViewGap:
    """Two languages read by the model of a third, with one negative part."""
    steps = np.array([[0.2, 0.45, 0.53, 0.53, 0.62, 0.78], [0.26, 0.43, 0.41, 0.5, 0.67, 0.78]])
    parts = np.array([[0.25, 0.08, 0.0, 0.25], [0.17, -0.02, 0.09, 0.28]])
    return ViewGap(
        (("en", "de"), ("en", "fr")),
        ("raw", "centered", "rotated", "linear", "own", "source"), interval(steps),
        ("shift", "rotation", "shear", "content"), difference(parts, 0.03), difference(parts.sum(axis=1)),
        difference([0.09, 0.17]), interval(0.24), np.array([0.1, 0.01]), 900, 100, 0, 0.95,
    )  # fmt: skip


SETS: dict[str, Any] = {
    "words": ["refund", "order", "hello"],
    "difference": [0.06, 0.04, -0.02],
    "low": [0.04, 0.01, -0.03],
    "high": [0.08, 0.07, -0.01],
    "names": ("May", "April"),
}
DISPLAYS: dict[str, Callable[..., Any]] = {
    "alignment": lambda **kw: plots.AlignmentDisplay.from_result(alignment(), **kw),
    "preference": lambda **kw: plots.AlignmentDisplay.from_result(preference(), **kw),
    "ranks": lambda **kw: plots.RankCurveDisplay.from_result(ranks(), **kw),
    "entities": lambda **kw: plots.EntityCurveDisplay.from_result(entities(), **kw),
    "sparsity": lambda **kw: plots.SparsityDisplay.from_result(path(), **kw),
    "extractors": lambda **kw: plots.ExtractorDisplay.from_result(extractors(), **kw),
    "words": lambda **kw: plots.RecoverabilityDisplay.from_result(recoverability(), **kw),
    "groups": lambda **kw: plots.RecoverabilityDisplay.from_result(recoverability(by="kind"), **kw),
    "keywords": lambda **kw: plots.KeywordDisplay.from_result(KEYWORDS, words_present={"dog"}, **kw),
    "directions": lambda **kw: plots.DirectionDisplay.from_result(DIRECTION, **kw),
    "selectivity": lambda **kw: plots.SelectivityDisplay(bands=BANDS, recalls=RECALLS).plot(**kw),
    "sets": lambda **kw: plots.SetComparisonDisplay(**SETS).plot(**kw),
    "leakage": lambda **kw: plots.LeakageDisplay.from_result(leakage_result(), **kw),
    "view_gap": lambda **kw: plots.ViewGapDisplay.from_result(view_gap_result(), **kw),
    "similarity": lambda **kw: plots.SimilarityDisplay.from_result(similarity(), **kw),
}
each_display = pytest.mark.parametrize("name", DISPLAYS)


def new_axes(width: float = 6.4, height: float = 4.8) -> Any:
    """Return axes of a figure that is not registered with pyplot."""
    return FigureCanvasAgg(Figure((width, height))).figure.subplots()


def pixels(figure: Any, dpi: int = 50) -> np.ndarray:
    """Return the figure in grayscale, (height, width), from 0 to 1."""
    from matplotlib.image import imread

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    file.seek(0)
    grey: np.ndarray = imread(file)[..., :3] @ np.array([0.299, 0.587, 0.114])
    return grey


def texts(figure: Any) -> list[str]:
    """Return all texts of a figure that are not empty."""
    figure.draw_without_rendering()
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip()]


def nothing_is_cut_off(figure: Any) -> bool:
    """Return whether everything drawn lies inside the figure, to a hundredth of an inch."""
    figure.draw_without_rendering()
    inside = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    return bool(min(inside.x0, inside.y0, width - inside.x1, height - inside.y1) >= -0.01)


def ends(errorbar: Any, axis: int = 1) -> np.ndarray:
    """Return the ends of n error bars along an axis, of shape (n, 2)."""
    return np.array([segment[:, axis] for segment in errorbar.lines[2][0].get_segments()])

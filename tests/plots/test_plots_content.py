"""Each display draws the numbers of its result."""

from __future__ import annotations

import warnings
from typing import Any

import matplotlib
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from flip_sklearn import FLiPExtractor, plots
from flip_sklearn.diagnostics import word_recoverability
from tests.helpers.pictures import (
    DIRECTION,
    KEYWORDS,
    alignment,
    ends,
    entities,
    extractors,
    new_axes,
    path,
    pixels,
    preference,
    ranks,
    recoverability,
    similarity,
)

pytestmark = pytest.mark.filterwarnings("error")


WORDS = [f"word{i}" for i in range(12)]


def legend_texts(display: Any) -> list[str]:
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_alignment_cells_show_accuracy_and_difference() -> None:
    result = alignment()
    display = plots.AlignmentDisplay.from_result(result, ax=new_axes())
    accuracy, differences = 100 * result.accuracy.value, 100 * result.difference.value
    assert display.text_[0, 0].get_text() == f"{accuracy[0, 0]:.1f}"  # the reference
    star = "*" if result.difference.significant[0, 1] else ""
    expected = f"{accuracy[0, 1]:.1f}\n{differences[0, 1]:+.1f}{star}".replace("-", "\N{MINUS SIGN}")
    assert display.text_[0, 1].get_text() == expected
    assert display.ax_.get_ylabel() == "trained on"
    assert display.ax_.get_xlabel() == "read from"
    assert legend_texts(display)[0] == "difference to the model's own view, in points"
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["text", "speech"]
    assert display.image_.get_clim() == (0.0, np.ceil(10 * result.accuracy.value.max()) / 10)


def test_alignment_of_languages_and_empty_cells() -> None:
    display = plots.AlignmentDisplay.from_result(preference(), ax=new_axes())
    assert display.ax_.get_ylabel() == "words of"
    assert display.text_[1, 2].get_text() == "\N{EN DASH}"
    hatched = [patch for patch in display.ax_.patches if patch.get_hatch()]
    assert [patch.get_xy() for patch in hatched] == [(1.5, 0.5)]
    assert "*" in display.text_[0, 1].get_text()
    assert "language's own view" in legend_texts(display)[0]
    other = plots.AlignmentDisplay.from_result(preference(("en", "en")), ax=new_axes())
    assert other.text_[1, 0].get_text() == "30.0"
    assert 'difference to "en",' in legend_texts(other)[0]
    mixed = plots.AlignmentDisplay.from_result(preference(("en", "fr")), ax=new_axes())
    assert "the cell of the row without a difference" in legend_texts(mixed)[0]


def test_heat_maps_of_nan_or_zero_are_drawn() -> None:
    for value in (np.nan, 0.0):
        display = plots.AlignmentDisplay([[value]], rows=["a"], columns=["b"]).plot(new_axes())
        assert display.image_.get_clim() == (0.0, 1.0)
        pixels(display.figure_)


def test_keyword_arguments_reach_the_main_artist() -> None:
    display = plots.AlignmentDisplay.from_result(alignment(), ax=new_axes(), vmax=1.0, cmap="Greys")
    assert display.image_.get_clim() == (0.0, 1.0)
    assert display.image_.get_cmap().name == "Greys"
    lines = plots.RankCurveDisplay.from_result(ranks(), ax=new_axes(), linewidth=3).line_
    assert {line.get_linewidth() for line in lines} == {3}


def test_rank_axis_is_logarithmic_and_lip_is_separate() -> None:
    result = ranks()
    display = plots.RankCurveDisplay.from_result(result, ax=new_axes())
    for j, line in enumerate(display.line_):
        assert np.array_equal(line.get_xdata(), np.log2([16, 64, 384]))
        assert np.array_equal(line.get_ydata(), result.accuracy.value[:3, j])
        assert display.lip_[j].get_ydata() == result.accuracy.value[3, j]
        whiskers = ends(display.errorbar_[j])
        assert np.allclose(whiskers, [[result.accuracy.low[3, j], result.accuracy.high[3, j]]])
        corners = display.fill_between_[j].get_paths()[0].vertices
        assert np.isclose(corners[:, 1].min(), result.accuracy.low[:3, j].min())
        assert np.isclose(corners[:, 1].max(), result.accuracy.high[:3, j].max())
    assert min(mark.get_xdata()[0] for mark in display.lip_) > np.log2(384) + 0.5
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["16", "64", "384", "LiP"]
    assert display.floor_.get_ydata()[0] == 0.22
    legend = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert legend == ["text", "speech", "most frequent words"]


@pytest.mark.parametrize("tried", [(None,), (8,), (8, None)])
def test_one_or_two_ranks_are_drawn(tried: Any) -> None:
    display = plots.RankCurveDisplay.from_result(ranks(tried=tried), ax=new_axes())
    labels = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert labels == ["LiP" if rank is None else str(rank) for rank in tried]
    pixels(display.figure_)


def test_entities_with_the_bias_and_without() -> None:
    result = entities()
    display = plots.EntityCurveDisplay.from_result(result, ax=new_axes())
    assert len(display.line_) == 4
    for number, line in enumerate(display.line_):
        view, without = divmod(number, 2)
        assert np.array_equal(line.get_xdata(), [0, 1, 2])
        assert np.array_equal(line.get_ydata(), result.recall_strict.value[without, view])
        assert line.get_linestyle() == ("--" if without else "-")
        assert (line.get_markerfacecolor() == "white") == bool(without)
        corners = display.fill_between_[number].get_paths()[0].vertices[:, 1]
        assert np.isclose(corners.max(), result.recall_strict.high[without, view].max())
    legend = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert legend == ["text", "speech", "with the bias", "without the bias", "names in the vocabulary"]
    assert display.ceiling_.get_ydata()[0] == 0.93


def test_ticks_of_many_k_do_not_overlap() -> None:
    display = plots.EntityCurveDisplay.from_result(entities(ks=range(1, 101)), ax=new_axes())
    labels = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert labels == ["1", "2", "5", "10", "20", "50", "100"]


def test_sparsity_marks_the_chosen_and_the_zero_model() -> None:
    result = path()
    display = plots.SparsityDisplay.from_result(result, ax=new_axes())
    x = display.line_[0].get_xdata()
    assert np.allclose(x[1:], -np.log10([0.01, 0.5, 0.8]))
    assert x[0] > x[1] + 0.4  # A = 0 has no logarithm
    assert np.array_equal(display.line_[0].get_ydata(), result.accuracy)
    assert np.array_equal(display.line_[1].get_ydata(), result.accuracy_without_bias)
    assert np.allclose(ends(display.errorbar_), result.accuracy[:, None] + [[-0.004, 0.004]])
    assert result.models[2] is result.best()
    assert display.chosen_.get_xydata().tolist() == [[x[2], 0.71]]
    ticks = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert ticks == ["0%", "50%", "90%", "99%", "100%"]


def test_extractors_with_intervals_and_stars() -> None:
    result = extractors()
    display = plots.ExtractorDisplay.from_result(result, ax=new_axes())
    for j, bars in enumerate(display.bars_):
        assert [bar.get_width() for bar in bars] == result.accuracy.value[:, j].tolist()
        expected = np.column_stack([result.accuracy.low[:, j], result.accuracy.high[:, j]])
        assert np.allclose(ends(display.errorbar_[j], axis=0), expected)
    labels = [text.get_text() for text in display.text_[:, 0]]
    assert labels == ["50.0%", "48.0%", "20.0% *"]
    note = "interval of the difference to FLiP\nexcludes 0"
    assert legend_texts(display) == [*result.views, note]
    assert len({bars[0].get_hatch() for bars in display.bars_}) == 2


def test_recoverability_by_frequency() -> None:
    result = recoverability()
    display = plots.RecoverabilityDisplay.from_result(result, ax=new_axes())
    assert display.bars_ is None
    assert len(display.line_) == 4
    assert [line.get_ydata()[0] for line in display.line_] == result.band_recall.value.tolist()
    expected = np.column_stack([result.band_recall.low, result.band_recall.high])
    assert np.allclose(ends(display.errorbar_), expected)
    dots = display.scatter_.get_offsets()
    assert len(dots) == 300
    assert np.allclose(dots[2:, 0], np.log10(result.train_count[2:]))
    assert (dots[:2, 0] < -0.3).all()  # never seen in training
    labels = {text.get_text() for text in display.text_ if text.get_text() != "*"}
    assert labels == {*result.kept(5), *result.lost(5)}
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["1", "10", "100", "1,000", "0"]
    assert np.array_equal(display.floor_.get_ydata(), result.band_baseline.value)
    note = "interval of the difference to all words excludes 0"
    assert legend_texts(display) == ["all words", "most frequent words", note]
    assert display.overall_.get_ydata()[0] == result.overall.value


def test_word_labels_do_not_overlap() -> None:
    display = plots.RecoverabilityDisplay.from_result(recoverability(), ax=new_axes())
    display.figure_.draw_without_rendering()
    # The extent of an annotation includes its arrow, so ask for that of the text.
    renderer = display.figure_.canvas.get_renderer()
    boxes = [matplotlib.text.Text.get_window_extent(text, renderer) for text in display.text_]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_recoverability_of_groups_has_bars() -> None:
    result = recoverability(by="kind")
    display = plots.RecoverabilityDisplay.from_result(result, ax=new_axes())
    assert display.scatter_ is None
    assert [bar.get_width() for bar in display.bars_] == result.band_recall.value.tolist()
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["noun", "verb"]
    expected = np.column_stack([result.band_recall.low, result.band_recall.high])
    assert np.allclose(ends(display.errorbar_, axis=0), expected)
    assert np.array_equal(display.floor_.get_xdata(), result.band_baseline.value)
    without = recoverability(by="kind", with_baseline=False)
    display = plots.RecoverabilityDisplay.from_result(without, ax=new_axes())
    assert display.floor_ is None
    assert "most frequent words" not in legend_texts(display)


def test_a_huge_vocabulary_is_drawn() -> None:
    display = plots.RecoverabilityDisplay.from_result(recoverability(50_000), ax=new_axes())
    assert len(display.scatter_.get_offsets()) == 50_000
    pixels(display.figure_)


def test_keywords_in_the_sentence_are_filled() -> None:
    display = plots.KeywordDisplay.from_result(
        KEYWORDS, words_present={"dog", "cat"}, text="A dog and a cat.", ax=new_axes()
    )
    assert [bar.get_width() for bar in display.bars_] == [4.2, 3.0, -0.5]
    assert [bool(bar.get_hatch()) for bar in display.bars_] == [False, True, False]
    assert display.ax_.get_title(loc="left") == '"A dog and a cat."'
    assert legend_texts(display) == ["in the sentence", "not in the sentence"]
    assert [bool(box.get_hatch()) for box in display.ax_.get_legend().get_patches()] == [False, True]
    top, bottom = display.ax_.transData.transform([(0, 0), (0, 2)])[:, 1]
    assert top > bottom  # the best word is at the top
    unknown = plots.KeywordDisplay.from_result(KEYWORDS, ax=new_axes())
    assert unknown.ax_.get_legend() is None
    assert not any(bar.get_hatch() for bar in unknown.bars_)


def test_keywords_of_an_estimator(small: Any) -> None:
    flip = FLiPExtractor(vocabulary=WORDS, rank=3, random_state=0).fit(small.X, small.Y)
    for x in (small.X[0], small.X[:1]):
        display = plots.KeywordDisplay.from_estimator(flip, x, top_k=4, ax=new_axes())
        (expected,) = flip.extract_keywords(small.X[:1], top_k=4, return_scores=True)
        assert list(zip(display.words, display.scores, strict=True)) == expected
        assert "with the bias" in display.ax_.get_xlabel()
    flip.set_params(use_bias=False)
    display = plots.KeywordDisplay.from_estimator(flip, small.X[0], ax=new_axes())
    assert "lift" in display.ax_.get_xlabel()
    for x in (small.X, small.X[None], 1.0):
        with pytest.raises(ValueError, match="pass one embedding"):
            plots.KeywordDisplay.from_estimator(flip, x)


@pytest.mark.parametrize(
    ("result", "present", "message"),
    [
        (["dog", "cat"], None, "pairs of one embedding"),
        ([KEYWORDS], None, "pairs of one embedding"),
        (KEYWORDS, "a dog", "one string"),
    ],
)
def test_invalid_keywords_raise(result: Any, present: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.KeywordDisplay.from_result(result, words_present=present)


def test_the_sides_of_a_direction() -> None:
    """From the word that is raised most, at the top, to the one that is lowered most."""
    display = plots.DirectionDisplay.from_result(DIRECTION, ax=new_axes(), height=0.5)
    assert display.words == ("woman", "her", "he", "his", "man")
    assert [bar.get_width() for bar in display.bars_] == [3.1, 2.0, -0.2, -1.0, -1.5]
    assert [bool(bar.get_hatch()) for bar in display.bars_] == [False, False, True, True, True]
    assert {round(bar.get_height(), 6) for bar in display.bars_} == {0.5}
    without_words = plots.DirectionDisplay.from_result(type(DIRECTION)([], []), ax=new_axes())
    assert len(without_words.bars_) == 0


def test_directions_of_an_estimator(small: Any) -> None:
    flip = FLiPExtractor(vocabulary=WORDS, rank=3, random_state=0).fit(small.X, small.Y)
    for kind, unit in (("difference", "(nats)"), ("coefficients", "for one standard deviation")):
        for x in (small.X[0], small.X[:1]):
            display = plots.DirectionDisplay.from_estimator(flip, x, kind=kind, top_k=4, ax=new_axes())
            expected = flip.read_directions(x, kind=kind, top_k=4, return_scores=True)[0]
            pairs = [*expected.raised, *reversed(expected.lowered)]
            assert list(zip(display.words, display.scores, strict=True)) == pairs
            assert display.ax_.get_xlabel().endswith(unit)
    with pytest.raises(ValueError, match="direction has 2 rows; pass one"):
        plots.DirectionDisplay.from_estimator(flip, small.X[:2])
    for result in (flip.read_directions(small.X[0])[0], KEYWORDS, None, ("a", "b")):
        with pytest.raises(ValueError, match="pass the words of one direction with their scores"):
            plots.DirectionDisplay.from_result(result)


def test_a_waterfall_ends_at_its_sum() -> None:
    parts = [0.3, 0.5, -0.1, 0.05]
    display = plots.SimilarityDisplay([*"abcd"], parts).plot(new_axes())
    left = [bar.get_x() for bar in display.bars_]
    assert np.allclose([bar.get_width() for bar in display.bars_], parts)
    assert np.allclose(left, np.cumsum([0.0, *parts[:-1]]))
    assert np.isclose(display.total_[0].get_width(), sum(parts))
    assert [bool(bar.get_hatch()) for bar in display.bars_] == [False, False, True, False]
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == [*"abcd", "cosine"]


def test_other_words_share_one_bar_and_the_sum_is_the_cosine() -> None:
    result = similarity()
    display = plots.SimilarityDisplay.from_result(result, top_k=3, ax=new_axes())
    assert display.labels == (
        "what all sentences share",
        "dog",
        "cat",
        "word0",
        "11 other words",
        "not explained by words",
    )
    assert np.isclose(display.total_[0].get_width(), result.cosine)
    assert display.text_[-1].get_text() == "0.87"
    every = plots.SimilarityDisplay.from_result(result, top_k=14, ax=new_axes())
    assert not any("other" in label for label in every.labels)
    none = plots.SimilarityDisplay.from_result(result, top_k=0, ax=new_axes())
    assert np.isclose(none.parts.sum(), result.cosine)
    with pytest.raises(ValueError, match="top_k=-1"):
        plots.SimilarityDisplay.from_result(result, top_k=-1)


def test_from_estimator_draws_the_result(small: Any) -> None:
    flip = FLiPExtractor(vocabulary=WORDS, rank=3, random_state=0).fit(small.X[:300], small.Y[:300])
    X, Y = small.X[300:], small.Y[300:]
    result = word_recoverability(flip, X, Y, random_state=0)
    one = plots.RecoverabilityDisplay.from_result(result, ax=new_axes())
    two = plots.RecoverabilityDisplay.from_estimator(flip, X, Y, random_state=0, ax=new_axes())
    assert np.array_equal(pixels(one.figure_), pixels(two.figure_))
    names = [["word1"]] * len(X)
    curve = plots.EntityCurveDisplay.from_estimator(flip, X, names, ks=[1, 12], ax=new_axes())
    assert curve.line_[0].get_ydata()[-1] == 1.0  # all twelve words are extracted
    # Training on so few rows does not converge in a few passes.
    warnings.simplefilter("ignore", ConvergenceWarning)
    rank = plots.RankCurveDisplay.from_estimator(
        FLiPExtractor(vocabulary=WORDS, max_iter=2, random_state=0),
        small.X,
        small.Y,
        [2, None],
        ax=new_axes(),
    )
    assert rank.ranks == (2, None)
    views = {"one": small.X, "two": small.X[:, ::-1]}
    aligned = plots.AlignmentDisplay.from_estimator(
        FLiPExtractor(vocabulary=WORDS, max_iter=2, random_state=0),
        views,
        small.Y,
        random_state=0,
        ax=new_axes(),
    )
    assert aligned.rows == ("one", "two")
    sparse = plots.SparsityDisplay.from_estimator(
        FLiPExtractor(vocabulary=WORDS, rank=3, random_state=0),
        small.X,
        small.Y,
        3,
        max_iter=1,
        ax=new_axes(),
    )
    assert len(sparse.accuracy) == 3
    shared = plots.SimilarityDisplay.from_estimator(flip, X[0], X[1], ax=new_axes())
    cosine = X[0] @ X[1] / np.linalg.norm(X[0]) / np.linalg.norm(X[1])
    assert np.isclose(shared.parts.sum(), cosine)

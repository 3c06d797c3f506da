"""Pictures can be read in grey, with any words, and on any axes."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import flip_sklearn
from flip_sklearn import plots
from tests.helpers.paths import ROOT
from tests.helpers.pictures import (
    PICTURES,
    alignment,
    each_picture,
    entities,
    extractors,
    new_axes,
    nothing_is_cut_off,
    pixels,
    ranks,
    texts,
)

pytestmark = pytest.mark.filterwarnings("error")


# --- Of every picture ------------------------------------------------------------------------


@each_picture
def test_it_draws_on_given_axes_and_nowhere_else(name: str, tmp_path: Any) -> None:
    import matplotlib.pyplot as plt

    before, settings = plt.get_fignums(), dict(matplotlib.rcParams)
    figure = Figure((10, 4))
    left, right = figure.subplots(1, 2)
    display = PICTURES[name](ax=right, name="Title")
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()
    assert left.get_title() == ""
    assert right.get_title(loc="left") == "Title"
    assert plt.get_fignums() == before
    assert dict(matplotlib.rcParams) == settings
    figure.savefig(tmp_path / "picture.png", dpi=50)
    assert (tmp_path / "picture.png").stat().st_size > 2000


@each_picture
def test_it_makes_one_figure_where_none_is_given(name: str) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    display = PICTURES[name](ax=None)
    new = [n for n in plt.get_fignums() if n not in before]
    assert [plt.figure(n) for n in new] == [display.figure_]
    assert nothing_is_cut_off(display.figure_)
    plt.close(display.figure_)


@each_picture
def test_it_can_be_drawn_again_elsewhere(name: str) -> None:
    display = PICTURES[name](ax=new_axes())
    first, again = display.ax_, new_axes()
    assert display.plot(again) is display
    assert display.ax_ is again is not first
    assert np.array_equal(pixels(first.figure, 30), pixels(again.figure, 30))


@each_picture
def test_several_axes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="one matplotlib Axes"):
        PICTURES[name](ax=Figure().subplots(1, 2))


def test_other_results_are_refused() -> None:
    for display, source in (
        (plots.AlignmentDisplay, "view_alignment or vocabulary_preference"),
        (plots.RankCurveDisplay, "rank_analysis"),
        (plots.EntityCurveDisplay, "entity_recall_curve"),
        (plots.SparsityDisplay, "regularization_path"),
        (plots.ExtractorDisplay, "compare_extractors"),
        (plots.RecoverabilityDisplay, "word_recoverability"),
        (plots.SimilarityDisplay, "explain_similarity"),
    ):
        with pytest.raises(ValueError, match=f"result is a dict; pass what {source} gives"):
            display.from_result({})


def test_arrays_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"accuracy has shape \(1, 2\)"):
        plots.AlignmentDisplay([[0.1, 0.2]], rows=["a", "b"], columns=["a", "b"])
    with pytest.raises(ValueError, match=r"low has shape"):
        plots.RankCurveDisplay(ranks=[1], accuracy=[[0.1]], low=[0.1], high=[[0.1]], views=["a"])


def test_import_needs_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [name for name in sys.modules if name.startswith("flip_sklearn.plots")]
    assert len(ours) > 5
    monkeypatch.setattr(
        flip_sklearn, "plots", plots
    )  # which is put back at the end, like the modules
    for name in ours:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    again = importlib.import_module("flip_sklearn.plots")
    assert again is not plots
    assert again.__all__ == plots.__all__ == sorted(plots.__all__)
    with pytest.raises(ImportError):  # negative control
        importlib.import_module("matplotlib")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[plots\]'"):
        plots.KeywordDisplay(["dog"], [1.0]).plot()


def test_a_result_without_numbers_is_drawn() -> None:
    """Where all intervals are nan, such as those of a band that is too rare."""
    nan = np.full((2, 1), np.nan)
    for display in (
        plots.RankCurveDisplay(ranks=[1, None], accuracy=nan, low=nan, high=nan, views=["a"]),
        plots.EntityCurveDisplay(
            ks=[1], recall=nan[:, None], low=nan[:, None], high=nan[:, None], views=["a"]
        ),
        plots.ExtractorDisplay(extractors="ab", accuracy=nan, low=nan, high=nan, views=["a"]),
        plots.SparsityDisplay(
            sparsity=[1.0, 1.0], accuracy=nan[:, 0], standard_error=nan[:, 0],
            accuracy_without_bias=nan[:, 0],
        ),
        plots.RecoverabilityDisplay(
            bands="ab", recall=nan[:, 0], low=nan[:, 0], high=nan[:, 0], overall=0.5,
        ),
        plots.RecoverabilityDisplay(
            bands="ab", recall=nan[:, 0], low=nan[:, 0], high=nan[:, 0], overall=0.5,
            counts=[[0, 0], [1, 9]],
        ),
        plots.KeywordDisplay([], []),
        plots.SimilarityDisplay([], []),
    ):  # fmt: skip
        pixels(display.plot(new_axes()).figure_)


def test_the_gallery_shows_every_display() -> None:
    page = ROOT / "docs" / "pictures.md"
    text = page.read_text(encoding="utf8")
    assert set(re.findall(r"\w+Display\b", text)) == set(plots.__all__)
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) >= len(plots.__all__)
    for picture in pictures:
        assert 2_000 < (page.parent / picture).stat().st_size < 60_000


# --- In grey ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "result"),
    [(plots.RankCurveDisplay, ranks), (plots.EntityCurveDisplay, entities)],
    ids=["ranks", "entities"],
)
def test_ten_lines_differ_without_colour(draw: Any, result: Any) -> None:
    display = draw.from_result(result([f"view {i}" for i in range(10)]), ax=new_axes())
    looks = {(line.get_marker(), line.get_markerfacecolor() == "white") for line in display.line_}
    assert len(looks) == len(display.line_) >= 10


def test_in_grey_it_can_be_seen_which_line_is_which() -> None:
    """Swapping the values of any two of five views changes the picture, not only its colours."""
    result, look = ranks([f"view {i}" for i in range(5)]), {}
    for order in (
        [0, 1, 2, 3, 4],
        [1, 0, 2, 3, 4],
        [0, 2, 1, 3, 4],
        [0, 1, 3, 2, 4],
        [0, 1, 2, 4, 3],
    ):
        display = plots.RankCurveDisplay(
            ranks=result.ranks, views=result.views, accuracy=result.accuracy.value[:, order],
            low=result.accuracy.value[:, order], high=result.accuracy.value[:, order],
        )  # fmt: skip
        look[tuple(order)] = pixels(display.plot(new_axes()).figure_)
    first, *others = look.values()
    for other in others:
        assert np.count_nonzero(np.abs(first - other) > 0.2) > 50


def test_neighbouring_lines_differ_in_lightness() -> None:
    display = plots.RankCurveDisplay.from_result(ranks([*"abcdef"]), ax=new_axes())
    grey = [np.dot(to_rgb(line.get_color()), [0.299, 0.587, 0.114]) for line in display.line_]
    assert np.abs(np.diff(grey)).min() > 0.15


def test_the_map_is_darker_the_higher_and_its_text_can_be_read() -> None:
    values = np.linspace(0, 1, 12)[None]
    display = plots.AlignmentDisplay(values, rows=["all"], columns=range(12)).plot(new_axes())
    rgb = display.image_.cmap(display.image_.norm(values[0]))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    ink = np.array([to_rgb(text.get_color())[0] for text in display.text_[0]])
    lighter, darker = np.maximum(ink, luminance), np.minimum(ink, luminance)
    assert ((lighter + 0.05) / (darker + 0.05) >= 4.5).all()  # WCAG 2.1, level AA


def test_words_in_the_sentence_and_others_differ_in_grey() -> None:
    flags = ([True, False, True], [False, True, True])
    first, second = (
        pixels(plots.KeywordDisplay(["a", "b", "c"], [3, 2, 1], present=p).plot(new_axes()).figure_)
        for p in flags
    )
    assert np.count_nonzero(np.abs(first - second) > 0.2) > 500


# --- Any words -------------------------------------------------------------------------------

STRANGE = ["a$b$c", "$x_1$", "snake_case", "_under", "50%", "back\\slash", "{curly}", "<&>", ""]


@pytest.mark.parametrize("result", [alignment, ranks, entities, extractors])
def test_strange_names_are_written_as_they_are(result: Any) -> None:
    display = {
        alignment: plots.AlignmentDisplay, ranks: plots.RankCurveDisplay,
        entities: plots.EntityCurveDisplay, extractors: plots.ExtractorDisplay,
    }[result]  # fmt: skip
    figure = display.from_result(result(STRANGE), ax=new_axes(), name="$ name _ $").figure_
    written = texts(figure)
    assert not any(is_math_text(text) for text in written)
    shown = " | ".join(text.replace(r"\$", "$") for text in written)
    assert all(name in shown for name in [*STRANGE, "$ name _ $"])


def test_a_word_with_dollars_is_no_formula() -> None:
    words = ["$a^2$", r"\$", "$"]
    display = plots.KeywordDisplay(words, [3, 2, 1], text="costs $5 or $6").plot(new_axes())
    written = texts(display.figure_)
    assert not any(is_math_text(text) for text in written)
    assert is_math_text("$a^2$")  # negative control
    pixels(display.figure_)


def test_words_without_a_glyph_give_one_warning_and_boxes() -> None:
    words = ["dog", "हिन्दी", "猫", "собака", "Größe"]
    with pytest.warns(UserWarning, match="2 words have characters that the font lacks") as caught:
        display = plots.KeywordDisplay(words, np.arange(5)).plot(new_axes())
    assert len(caught) == 1
    assert "font.family" in str(caught[0].message)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["dog", "\N{WHITE SQUARE}" * 6, "\N{WHITE SQUARE}", "собака", "Größe"]
    pixels(display.figure_)  # warnings are errors: none is left for the drawing


def test_without_the_boxes_matplotlib_would_warn() -> None:
    """Negative control."""
    ax = new_axes()
    ax.set_title("猫")
    with pytest.warns(UserWarning, match="missing from font"):
        pixels(ax.figure)


@pytest.mark.parametrize("n", [1, 10])
@pytest.mark.parametrize("result", [alignment, ranks, entities, extractors])
def test_one_view_or_ten_with_long_names_stay_in_the_figure(result: Any, n: int) -> None:
    import matplotlib.pyplot as plt

    display = {
        alignment: plots.AlignmentDisplay, ranks: plots.RankCurveDisplay,
        entities: plots.EntityCurveDisplay, extractors: plots.ExtractorDisplay,
    }[result]  # fmt: skip
    views = [f"sentence-transformers/paraphrase-multilingual-{i} of text" for i in range(n)]
    with warnings.catch_warnings():
        # matplotlib says so where labels leave no room for the axes.
        warnings.simplefilter("error")
        figure = display.from_result(result(views)).figure_
        assert nothing_is_cut_off(figure)
    plt.close(figure)

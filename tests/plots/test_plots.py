"""Plots are readable in grayscale, with any text, and on any axes."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import flip_sklearn
from flip_sklearn import plots
from flip_sklearn.plots.display import Display
from flip_sklearn.plots.style import bar_style
from tests.helpers.paths import ROOT
from tests.helpers.pictures import (
    DISPLAYS,
    alignment,
    each_display,
    entities,
    extractors,
    new_axes,
    nothing_is_cut_off,
    pixels,
    ranks,
    texts,
)

pytestmark = pytest.mark.filterwarnings("error")


# --- Every display ---------------------------------------------------------------------------


@each_display
def test_only_the_given_axes_are_changed(name: str, tmp_path: Any) -> None:
    import matplotlib.pyplot as plt

    before, settings = plt.get_fignums(), dict(matplotlib.rcParams)
    figure = Figure((10, 4))
    left, right = figure.subplots(1, 2)
    display = DISPLAYS[name](ax=right, name="Title")
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()
    assert left.get_title() == ""
    assert right.get_title(loc="left") == "Title"
    assert plt.get_fignums() == before
    assert dict(matplotlib.rcParams) == settings
    figure.savefig(tmp_path / "picture.png", dpi=50)
    assert (tmp_path / "picture.png").stat().st_size > 2000


@each_display
def test_without_axes_one_figure_is_created(name: str) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    display = DISPLAYS[name](ax=None)
    new = [n for n in plt.get_fignums() if n not in before]
    assert [plt.figure(n) for n in new] == [display.figure_]
    assert nothing_is_cut_off(display.figure_)
    plt.close(display.figure_)


@each_display
def test_plot_again_on_other_axes_draws_the_same(name: str) -> None:
    display = DISPLAYS[name](ax=new_axes())
    first, again = display.ax_, new_axes()
    assert display.plot(again) is display
    assert display.ax_ is again is not first
    assert np.array_equal(pixels(first.figure, 30), pixels(again.figure, 30))


@each_display
def test_an_array_of_axes_raises(name: str) -> None:
    with pytest.raises(ValueError, match="one matplotlib Axes"):
        DISPLAYS[name](ax=Figure().subplots(1, 2))


def test_other_results_raise() -> None:
    for display, source in (
        (plots.AlignmentDisplay, "view_alignment or vocabulary_preference"),
        (plots.RankCurveDisplay, "rank_analysis"),
        (plots.EntityCurveDisplay, "entity_recall_curve"),
        (plots.SparsityDisplay, "regularization_path"),
        (plots.ExtractorDisplay, "compare_extractors"),
        (plots.RecoverabilityDisplay, "word_recoverability"),
        (plots.SimilarityDisplay, "explain_similarity"),
    ):
        with pytest.raises(ValueError, match=f"result is a dict; pass the result of {source}"):
            display.from_result({})


def test_arrays_of_another_shape_raise() -> None:
    with pytest.raises(ValueError, match=r"accuracy has shape \(1, 2\)"):
        plots.AlignmentDisplay([[0.1, 0.2]], rows=["a", "b"], columns=["a", "b"])
    with pytest.raises(ValueError, match=r"low has shape"):
        plots.RankCurveDisplay(ranks=[1], accuracy=[[0.1]], low=[0.1], high=[[0.1]], views=["a"])


def test_import_needs_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = [name for name in sys.modules if name.startswith("flip_sklearn.plots")]
    assert len(loaded) > 5
    monkeypatch.setattr(flip_sklearn, "plots", plots)  # restored at the end, like the modules
    for name in loaded:
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
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[plots\]"):
        plots.KeywordDisplay(["dog"], [1.0]).plot()


def test_results_of_nan_are_drawn() -> None:
    """Intervals are nan for bins with too few words."""
    nan = np.full((2, 1), np.nan)
    for display in (
        plots.RankCurveDisplay(ranks=[1, None], accuracy=nan, low=nan, high=nan, views=["a"]),
        plots.EntityCurveDisplay(
            ks=[1], recall=nan[:, None], low=nan[:, None], high=nan[:, None], views=["a"]
        ),
        plots.ExtractorDisplay(extractors="ab", accuracy=nan, low=nan, high=nan, views=["a"]),
        plots.SparsityDisplay(
            sparsity=[1.0, 1.0], accuracy=nan[:, 0], standard_error=nan[:, 0], accuracy_without_bias=nan[:, 0]
        ),
        plots.RecoverabilityDisplay(bands="ab", recall=nan[:, 0], low=nan[:, 0], high=nan[:, 0], overall=0.5),
        plots.RecoverabilityDisplay(
            bands="ab", recall=nan[:, 0], low=nan[:, 0], high=nan[:, 0], overall=0.5, counts=[[0, 0], [1, 9]]
        ),
        plots.KeywordDisplay([], []),
        plots.DirectionDisplay([], []),
        plots.SimilarityDisplay([], []),
    ):
        pixels(display.plot(new_axes()).figure_)


def test_docs_show_every_display() -> None:
    page = ROOT / "docs" / "pictures.md"
    text = page.read_text(encoding="utf8")
    assert set(re.findall(r"\w+Display\b", text)) == set(plots.__all__)
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) >= len(plots.__all__)
    for picture in pictures:
        assert 2_000 < (page.parent / picture).stat().st_size < 60_000


def test_methods_of_matplotlib_are_named() -> None:
    """The class descriptions name the matplotlib method that takes the arguments of `plot`."""
    for name in plots.__all__:
        display = getattr(plots, name)
        assert issubclass(display, Display)
        description = display.__doc__.split("Parameters\n")[0]
        assert re.search(r"arguments\s+of\s+:meth:`plot` are those of\s+``Axes\.\w+``", description)
        if "from_result" not in vars(display):
            assert re.search(r":meth:`from_result` draws a result of :func:`", description)


@each_display
def test_axis_labels_have_no_key(name: str) -> None:
    """Signs, hatches and dashes are explained in a legend, and axis labels are one line."""
    display = DISPLAYS[name](ax=new_axes())
    for label in (display.ax_.get_xlabel(), display.ax_.get_ylabel()):
        assert not re.search(r"\n|[*:;]", label)


@each_display
def test_title_legend_and_axes_do_not_overlap(name: str) -> None:
    display = DISPLAYS[name](ax=None, name="A title of many words that takes the whole width, and more")
    figure, ax, legend = display.figure_, display.ax_, display.ax_.get_legend()
    figure.draw_without_rendering()
    title = ax._left_title.get_window_extent()
    assert title.y1 <= figure.bbox.y1
    if legend is not None and legend.get_window_extent().y0 >= ax.bbox.y1:  # above the axes
        assert not legend.get_window_extent().overlaps(title)
    import matplotlib.pyplot as plt

    plt.close(figure)


# --- Contrast --------------------------------------------------------------------------------


def contrast(one: Any, other: Any) -> float:
    """Contrast of two colors (WCAG 2.1)."""
    rgb = np.array([to_rgb(one), to_rgb(other)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    darker, lighter = np.sort(linear @ [0.2126, 0.7152, 0.0722])
    return float((lighter + 0.05) / (darker + 0.05))


def test_marks_have_contrast() -> None:
    assert round(contrast("#d08a2e", "white"), 2) == 2.85  # negative control
    many = ranks([f"view {i}" for i in range(10)])
    for line in plots.RankCurveDisplay.from_result(many, ax=new_axes()).line_:
        assert contrast(line.get_color(), "white") >= 3
    for i in range(10):
        assert contrast(bar_style(i)["edgecolor"], "white") >= 3
    empty = plots.AlignmentDisplay([[np.nan]], rows=["a"], columns=["b"]).plot(new_axes())
    assert contrast(empty.ax_.patches[0].get_edgecolor()[:3], "white") >= 3
    dots = DISPLAYS["words"](ax=new_axes()).scatter_
    *rgb, alpha = dots.get_facecolor()[0]
    assert contrast(alpha * np.array(rgb) + 1 - alpha, "white") >= 3


@each_display
def test_text_has_contrast_to_the_page(name: str) -> None:
    display = DISPLAYS[name](ax=new_axes())
    cells = display.text_.ravel().tolist() if isinstance(display, plots.AlignmentDisplay) else []
    for text in display.figure_.findobj(matplotlib.text.Text):
        if text not in cells:  # tested with the heat map
            assert contrast(text.get_color(), "white") >= 4.5


# --- Grayscale -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "result"),
    [(plots.RankCurveDisplay, ranks), (plots.EntityCurveDisplay, entities)],
    ids=["ranks", "entities"],
)
def test_ten_lines_differ_without_color(draw: Any, result: Any) -> None:
    display = draw.from_result(result([f"view {i}" for i in range(10)]), ax=new_axes())
    styles = {(line.get_marker(), line.get_markerfacecolor() == "white") for line in display.line_}
    assert len(styles) == len(display.line_) >= 10


def test_lines_are_identifiable_in_grayscale() -> None:
    """Swapping the values of any two of five views changes the plot also in grayscale."""
    result, images = ranks([f"view {i}" for i in range(5)]), []
    for order in ([0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 3, 2, 4], [0, 1, 2, 4, 3]):
        display = plots.RankCurveDisplay(
            ranks=result.ranks,
            views=result.views,
            accuracy=result.accuracy.value[:, order],
            low=result.accuracy.value[:, order],
            high=result.accuracy.value[:, order],
        )
        images.append(pixels(display.plot(new_axes()).figure_))
    first, *others = images
    for other in others:
        assert np.count_nonzero(np.abs(first - other) > 0.2) > 50


def test_neighbouring_lines_differ_in_lightness() -> None:
    display = plots.RankCurveDisplay.from_result(ranks([*"abcdef"]), ax=new_axes())
    grey = [np.dot(to_rgb(line.get_color()), [0.299, 0.587, 0.114]) for line in display.line_]
    assert np.abs(np.diff(grey)).min() > 0.15


def test_heat_map_lightness_is_monotonic_and_text_has_contrast() -> None:
    values = np.linspace(0, 1, 12)[None]
    display = plots.AlignmentDisplay(values, rows=["all"], columns=range(12)).plot(new_axes())
    rgb = display.image_.cmap(display.image_.norm(values[0]))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    for text, color in zip(display.text_[0], rgb, strict=True):
        assert contrast(text.get_color(), color) >= 4.5  # level AA


def test_words_in_the_sentence_differ_from_others_in_grayscale() -> None:
    flags = ([True, False, True], [False, True, True])
    first, second = (
        pixels(plots.KeywordDisplay(["a", "b", "c"], [3, 2, 1], present=p).plot(new_axes()).figure_)
        for p in flags
    )
    assert np.count_nonzero(np.abs(first - second) > 0.2) > 500


# --- Any text --------------------------------------------------------------------------------

SPECIAL = ["a$b$c", "$x_1$", "snake_case", "_under", "50%", "back\\slash", "{curly}", "<&>", ""]


each_display_with_views = pytest.mark.parametrize(
    ("display", "result"),
    [
        (plots.AlignmentDisplay, alignment),
        (plots.RankCurveDisplay, ranks),
        (plots.EntityCurveDisplay, entities),
        (plots.ExtractorDisplay, extractors),
    ],
)


@each_display_with_views
def test_special_characters_are_drawn_literally(display: Any, result: Any) -> None:
    figure = display.from_result(result(SPECIAL), ax=new_axes(), name="$ name _ $").figure_
    written = texts(figure)
    assert not any(is_math_text(text) for text in written)
    joined = " | ".join(text.replace(r"\$", "$") for text in written)
    assert all(name in joined for name in [*SPECIAL, "$ name _ $"])


def test_dollar_signs_do_not_start_a_formula() -> None:
    words = ["$a^2$", r"\$", "$"]
    display = plots.KeywordDisplay(words, [3, 2, 1], text="costs $5 or $6").plot(new_axes())
    written = texts(display.figure_)
    assert not any(is_math_text(text) for text in written)
    assert is_math_text("$a^2$")  # negative control
    pixels(display.figure_)


def test_missing_glyphs_give_one_warning_and_boxes() -> None:
    words = ["dog", "हिन्दी", "猫", "собака", "Größe"]
    with pytest.warns(UserWarning, match="2 words have characters that the font lacks") as caught:
        display = plots.KeywordDisplay(words, np.arange(5)).plot(new_axes())
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "font.family" in str(caught[0].message)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["dog", "\N{WHITE SQUARE}" * 6, "\N{WHITE SQUARE}", "собака", "Größe"]
    pixels(display.figure_)  # warnings are errors: drawing gives none


def test_matplotlib_warns_of_missing_glyphs() -> None:
    """Negative control."""
    ax = new_axes()
    ax.set_title("猫")
    with pytest.warns(UserWarning, match="missing from"):
        pixels(ax.figure)


@pytest.mark.parametrize("n", [1, 10])
@each_display_with_views
def test_long_names_stay_in_the_figure(display: Any, result: Any, n: int) -> None:
    import matplotlib.pyplot as plt

    views = [f"sentence-transformers/paraphrase-multilingual-{i} of text" for i in range(n)]
    # Warnings are errors: matplotlib warns if labels leave no space for the axes.
    figure = display.from_result(result(views)).figure_
    assert nothing_is_cut_off(figure)
    plt.close(figure)

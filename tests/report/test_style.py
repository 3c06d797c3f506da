"""Colors, scrolling and printing of the page, also in a browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from flip_sklearn import plots
from flip_sklearn.plots.style import line_style
from flip_sklearn.report.pictures import draw_picture
from tests.helpers.pictures import alignment, extractors, new_axes, recoverability
from tests.plots.test_plots import contrast

STYLE = re.findall(
    r"<style>(.*?)</style>",
    files("flip_sklearn.report").joinpath("page.html.j2").read_text("utf8"),
    re.DOTALL,
)[0]
LIGHT, DARK = (
    dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)
CHROMIUM, PDFTOTEXT = shutil.which("chromium"), shutil.which("pdftotext")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def darkened(color: Any) -> np.ndarray:
    """A color after the CSS filter of pictures in dark mode."""
    (amount,) = re.findall(r"figure img \{ filter: invert\((\.\d+)\) hue-rotate\(180deg\); \}", STYLE)
    inverted = np.array(matplotlib.colors.to_rgb(color)) * (1 - 2 * float(amount)) + float(amount)
    luminance = np.array([0.213, 0.715, 0.072])  # of the filter: 180 degrees mirror a color at its gray
    return np.clip(2 * inverted @ luminance - inverted, 0, 1)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_of_the_page_have_contrast(colors: dict[str, str]) -> None:
    assert set(colors) == set(LIGHT)
    for background in (colors["paper"], colors["panel"]):
        for text in ("ink", "quiet", "faint", "link"):
            assert contrast(colors[text], background) >= 4.5
        for mark in ("edge", "accent"):
            assert contrast(colors[mark], background) >= 3


def test_every_color_has_a_dark_variant() -> None:
    rest = re.sub(r":root \{.*?\}", "", STYLE, flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{3,6}\b|: (white|black)\b|rgba?\(", rest)
    assert set(re.findall(r"var\(--(\w+)\)", rest)) == set(LIGHT)


def test_pictures_in_dark_mode_have_the_background_of_the_page_and_contrast() -> None:
    paper = np.array(matplotlib.colors.to_rgb(DARK["paper"]))
    assert np.abs(darkened("white") - paper).max() < 1.5 / 255
    for color in [*(line_style(i)["color"] for i in range(5)), "black"]:
        assert contrast(darkened(color), paper) >= 3
    for text in plots.AlignmentDisplay.from_result(alignment(), ax=new_axes()).text_.ravel():
        (halo,) = text.get_path_effects()
        assert contrast(darkened(text.get_color()), darkened(halo._gc["foreground"])) >= 4.5


def browse(path: Path, *arguments: str) -> None:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += [f"--user-data-dir={path.parent / 'profile'}", "--hide-scrollbars", *arguments, path.as_uri()]
    subprocess.run(command, capture_output=True, timeout=60, check=True)  # type: ignore[arg-type]


def screenshot(folder: Path, body: str, *, width: int = 700, dark: bool = False) -> np.ndarray:
    """Pixels (h, w) of a page with the style of the report, as the lightness in [0, 1]."""
    path = folder / "page.html"
    path.write_text(f'<!DOCTYPE html><meta charset="utf8"><style>{STYLE}</style>{body}', encoding="utf8")
    dark_mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(path, f"--window-size={width},900", f"--screenshot={folder / 'page.png'}", *dark_mode)
    return matplotlib.image.imread(folder / "page.png")[..., :3].mean(axis=2)


def table(n_rows: int, n_columns: int, caption: str = "Caption") -> str:
    heads = "".join(f'<th scope="col">head{i}</th>' for i in range(n_columns))
    row = "".join("<td>value</td>" for _ in range(n_columns))
    return (
        f'<div class="wide" tabindex="0"><table class="numeric"><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{f'<tr>{row}</tr>' * n_rows}</tbody></table></div>"
    )


@in_browser
def test_dark_mode_has_no_white_areas(tmp_path: Path) -> None:
    body = table(2, 2) + "<pre>code</pre><section class='findings'>text</section>"
    for display, result in (
        (plots.ExtractorDisplay, extractors()),
        (plots.RecoverabilityDisplay, recoverability(50_000)),  # a PNG
        (plots.AlignmentDisplay, alignment()),
    ):
        picture = draw_picture(display, result, kind="Plot", caption="Caption.", size=(6.4, 2.0))
        body += f'<figure><img src="{picture.uri}" width="640"></figure>'
    light = screenshot(tmp_path, body)
    dark = screenshot(tmp_path, body, dark=True)
    assert (light > 0.9).mean() > 0.7  # negative control
    assert (dark > 0.9).mean() < 0.02
    assert (dark < 0.2).mean() > 0.7


@in_browser
@pytest.mark.parametrize("dark", [False, True])
def test_only_wide_tables_have_a_shadow_where_they_scroll(dark: bool, tmp_path: Path) -> None:
    def edges(n_columns: int) -> tuple[float, float]:
        """Contrast in lightness of the left and right edges of the table to the page."""
        pixels = screenshot(tmp_path, table(5, n_columns, "&nbsp;"), width=500, dark=dark)
        column = np.median(np.abs(pixels[60:180] - pixels[0, 0]), axis=0)
        return float(column[16:19].max()), float(column[-19:-16].max())

    left, right = edges(20)
    assert right > 0.3
    assert left < 0.1  # nothing is hidden there before scrolling
    assert max(edges(2)) < 0.1


def test_print_rules() -> None:
    rules = STYLE.split("@media print {")[1]
    assert "thead { display: table-header-group; }" in rules
    assert ".wide { overflow: visible; background: none; }" in rules


@in_browser
@pytest.mark.skipif(PDFTOTEXT is None, reason="no pdftotext on this machine")
def test_no_table_head_is_alone_at_the_foot_of_a_printed_page(tmp_path: Path) -> None:
    """A sheet per distance to the foot of the page: the head must move to the next page with its rows."""
    sheets = "".join(
        f'<div style="break-before: page; height: {230 + 2 * i}mm"></div>{table(6, 3)}' for i in range(20)
    )
    long = f'<div style="break-before: page"></div>{table(100, 3, "Long")}'
    path = tmp_path / "page.html"
    path.write_text(f'<meta charset="utf8"><style>{STYLE}</style>{sheets}{long}', encoding="utf8")
    browse(path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    command = [PDFTOTEXT, "-layout", str(tmp_path / "page.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout  # type: ignore[arg-type]
    pages = [page.split() for page in text.split("\f") if page.strip()]
    assert len(pages) > 21
    for words in pages:
        assert words[-1] == "value"
        assert "head0" in words  # the head is repeated where a table continues
        assert words.count("value") >= 3 * 2

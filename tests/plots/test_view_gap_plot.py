"""ViewGapDisplay draws the numbers of its result."""

from __future__ import annotations

import numpy as np
import pytest

from flip_sklearn.plots import ViewGapDisplay
from tests.helpers.pictures import ends, new_axes, texts, view_gap_result


def test_bars_are_the_parts_of_the_loss() -> None:
    result = view_gap_result()
    display = ViewGapDisplay.from_result(result, ax=new_axes(), name="Languages")
    reading = dict(zip(result.readings, result.accuracy.value.T, strict=True))
    assert [bar.get_width() for bar in display.raw_] == reading["raw"].tolist()
    right = reading["raw"].copy()
    for bars, part in zip(display.bars_, result.difference.value.T, strict=True):
        # Each part begins where the one before ended; a negative one leads back.
        np.testing.assert_allclose([bar.get_x() for bar in bars], right)
        np.testing.assert_allclose([bar.get_width() for bar in bars], part)
        right += part
    np.testing.assert_allclose(right, reading["source"])
    assert display.own_.get_xdata().tolist() == reading["own"].tolist()
    for errorbar, name in zip(display.errorbar_, ("raw", "source"), strict=True):
        i = result.readings.index(name)
        expected = np.stack([result.accuracy.low[:, i], result.accuracy.high[:, i]], axis=1)
        np.testing.assert_allclose(ends(errorbar, axis=0), expected)
    assert display.baseline_.get_xdata() == [0.24, 0.24]
    sizes = ["25.0*", "8.0*", "0.0", "25.0*", "17.0*", "\N{MINUS SIGN}2.0", "9.0*", "28.0*"]
    assert [text.get_text() for text in display.text_] == sizes
    # The steps of a row lie below each other.
    heights = [bars[0].get_y() for bars in display.bars_]
    assert heights == sorted(heights)
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["en on de", "en on fr"]
    for label in ("the target as it is", "shift: removed by means", "the target's own model"):
        assert label in texts(display.figure_)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="result is a dict; pass the result of view_gap"):
        ViewGapDisplay.from_result({})
    with pytest.raises(ValueError, match=r"difference has shape \(1, 1\)"):
        ViewGapDisplay(pairs=[("a", "b")], parts=["x", "y"], raw=[[0.1]] * 3, source=[[0.2]] * 3,
                       own=[0.1], difference=[[0.1]])  # fmt: skip

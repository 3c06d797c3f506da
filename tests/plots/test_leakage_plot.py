"""LeakageDisplay draws the numbers of its result."""

from __future__ import annotations

import numpy as np
import pytest

from flip_sklearn.plots import LeakageDisplay
from tests.helpers.pictures import ends, leakage_result, new_axes, texts


def test_points_and_intervals_are_those_of_the_result() -> None:
    result = leakage_result()
    display = LeakageDisplay.from_result(result, ax=new_axes())
    for i in range(3):
        assert display.before_[i].get_xdata().tolist() == result.before.value[i].tolist()
        assert display.after_[i].get_xdata().tolist() == result.after.value[i].tolist()
        expected = np.stack([result.after.low[i], result.after.high[i]], axis=1)
        np.testing.assert_allclose(ends(display.errorbar_[i], axis=0), expected)
        assert display.before_[i].get_markerfacecolor() == "white"
    assert len(display.connection_) == 6
    assert display.connection_[1].get_xdata().tolist() == [
        result.before.value[0, 1],
        result.after.value[0, 1],
    ]
    assert display.chance_.get_xdata() == [0.5, 0.5]
    assert display.ax_.get_xlim()[0] < result.after.low.min()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["man", "snow"]
    for label in ("model", "linear reader", "neural network", "before the erasure"):
        assert label in texts(display.figure_)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="result is a dict; pass the result of leakage"):
        LeakageDisplay.from_result({})
    with pytest.raises(ValueError, match=r"after has shape \(1, 2\)"):
        LeakageDisplay(words="ab", readers=["x"], before=[[0.5, 0.5]], after=[[0.5, 0.5]])

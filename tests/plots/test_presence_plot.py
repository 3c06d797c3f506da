"""PresenceCalibrationDisplay draws the arrays of its result."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from flip_sklearn.metrics import presence_calibration
from flip_sklearn.plots import PresenceCalibrationDisplay


def test_draws_the_bins_that_have_words() -> None:
    result = presence_calibration([[1, 0, 1]], [[0.95, 0.15, 0.9]])
    display = PresenceCalibrationDisplay.from_result(
        result, ax=Figure().subplots(), name="title", linewidth=3
    )
    drawn = ~np.isnan(result.predicted)
    np.testing.assert_allclose(
        display.line_.get_xydata(), np.column_stack([result.predicted, result.observed])[drawn]
    )
    assert display.line_.get_linewidth() == 3
    sizes = display.points_.get_sizes()
    assert sizes[-1] > sizes[0]
    assert display.ax_.get_title(loc="left") == "title"


def test_wrong_result_and_shapes() -> None:
    with pytest.raises(ValueError, match="pass the result of presence_calibration"):
        PresenceCalibrationDisplay.from_result(3)
    with pytest.raises(ValueError, match="observed has shape"):
        PresenceCalibrationDisplay(predicted=[0.1, 0.2], observed=[0.1], n_pairs=[1, 2])

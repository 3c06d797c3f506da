"""Settings and fixtures of all tests."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.planted import Planted, planted

collect_ignore = ["data"]  # stored files and the scripts that made them

# The problems here are tiny: a second thread would only wait at barriers, long when cores are shared.
torch.set_num_threads(1)


@pytest.fixture
def small() -> Planted:
    """400 rows, 6 dimensions, 12 words, rank 3."""
    return planted()

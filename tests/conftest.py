"""Settings and fixtures of all tests."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.planted import Planted, planted
from tests.helpers.processes import N_THREADS

collect_ignore = ["data"]  # stored files and the scripts that made them

# One unless FLIP_TEST_THREADS says otherwise: on problems this small a second thread only waits.
torch.set_num_threads(N_THREADS)


@pytest.fixture
def small() -> Planted:
    """400 rows, 6 dimensions, 12 words, rank 3."""
    return planted()

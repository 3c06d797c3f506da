"""Settings and fixtures of all tests."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from hypothesis import settings

from tests.helpers.planted import Planted, planted
from tests.helpers.processes import N_THREADS
from tests.helpers.standin_gpu import standin_gpu

EXAMPLES_ON_A_DEVICE = 5
collect_ignore = ["data"]  # stored files and the scripts that made them

# One unless FLIP_TEST_THREADS says otherwise: on problems this small a second thread only waits.
torch.set_num_threads(N_THREADS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--standin-gpu",
        action="store_true",
        help="Run the tests on a stand-in for a CUDA device, without those marked cpu_only.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--standin-gpu"):
        stack = ExitStack()
        stack.enter_context(standin_gpu())
        config.add_cleanup(stack.close)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what makes no sense on the device that there is, real or stand-in, or on none."""
    if torch.cuda.is_available():
        on_cpu = [item for item in items if item.get_closest_marker("cpu_only")]
        config.hook.pytest_deselected(items=on_cpu)
        items[:] = [item for item in items if item not in on_cpu]
        for item in items:
            _limit_examples(item)
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, or --standin-gpu"))


def _limit_examples(item: pytest.Item) -> None:
    """Draw few examples, since a device is slow on small data. A profile would yield to a test's settings."""
    function = getattr(item, "function", None)
    chosen = getattr(function, "_hypothesis_internal_use_settings", None)
    if chosen is not None:
        few = settings(chosen, max_examples=min(chosen.max_examples, EXAMPLES_ON_A_DEVICE))
        function._hypothesis_internal_use_settings = few


@pytest.fixture
def small() -> Planted:
    """400 rows, 6 dimensions, 12 words, rank 3."""
    return planted()

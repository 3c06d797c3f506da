"""Fixtures of the tests of stored models."""

from __future__ import annotations

from pathlib import Path

import pytest

from flip_sklearn import FLiPExtractor
from tests.helpers.stores import fit


@pytest.fixture(scope="package")
def fitted() -> FLiPExtractor:
    """A model with held-out rows; not to be changed."""
    return fit(early_stopping=True)


@pytest.fixture(scope="package")
def saved(fitted: FLiPExtractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the fitted model; not to be changed."""
    return fitted.save_pretrained(tmp_path_factory.mktemp("saved") / "m")

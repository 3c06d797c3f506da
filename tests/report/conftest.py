"""Pictures that are made but not drawn, which is most of the time of a report on little data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save figures as empty pictures during a test."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", _save_blank)


@pytest.fixture(scope="module")
def only_blank_pictures() -> Iterator[None]:
    """Save figures as empty pictures during the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", _save_blank)
        yield


def _save_blank(figure: Any, file: Any, **options: Any) -> None:
    file.write(b'<svg xmlns="http://www.w3.org/2000/svg"/>')

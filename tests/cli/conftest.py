"""The corpus of the command line's tests."""

from __future__ import annotations

import pytest

from tests.helpers.command_line import Corpus, make_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("cli"))

"""The check of a built site, which `make docs` runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def check_site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_site", ROOT / "docs" / "check_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = """
<h1 id="top">A</h1> <a href="#top">up</a> <a href="part/b.html#b">b</a> <a href="https://example.org">out</a>
<img src="a.png" alt="A picture"> <a href="a.png">the file</a> <a name="old"></a> <a href="#old">old</a>
"""


@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        ("", None),
        ('<a href="c.html">c</a>', "index.html: c.html leads nowhere"),
        ('<a href="#middle">c</a>', "index.html: #middle names no part of its page"),
        ('<a href="part/b.html#c">c</a>', "index.html: part/b.html#c names no part of its page"),
        ('<img src="a.png">', "index.html: the picture a.png has no text"),
        ('<img src="a.png" alt=" ">', "index.html: the picture a.png has no text"),
        ('<img src="z.png" alt="Z">', "index.html: z.png leads nowhere"),
    ],
)
def test_what_is_wrong_is_found(
    added: str, complaint: str | None, check_site: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "part" / "b.html").write_text('<h1 id="b">B</h1><a href="../index.html#top">a</a>')
    (tmp_path / "index.html").write_text(GOOD + added)
    assert check_site.complaints(tmp_path) == ([] if complaint is None else [complaint])


def test_a_site_without_pages_is_a_complaint(check_site: ModuleType, tmp_path: Path) -> None:
    assert check_site.complaints(tmp_path) == [f"{tmp_path} has no pages"]

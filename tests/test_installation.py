"""Commands that install the package, and what a source distribution contains."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import time
import tomllib
from typing import Any

import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.parameters import install_command
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.paths import ROOT

GIT = {"url": "https://example.org/flip.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (json.dumps(GIT), "pip install 'flip-sklearn[plots] @ git+https://example.org/flip.git'"),
        (
            '{"url": "file:///home/me/flip", "dir_info": {}}',
            "pip install 'flip-sklearn[plots] @ file:///home/me/flip'",
        ),
        (None, "pip install 'flip-sklearn[plots]'"),
        ("not JSON", "pip install 'flip-sklearn[plots]'"),
    ],
)
def test_command_installs_from_where_the_package_came(
    record: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return record

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert install_command("plots") == expected


def test_command_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert install_command("hub") == "pip install 'flip-sklearn[hub]'"


def test_no_other_place_names_an_extra_on_an_index() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py")]
    for path in [*pages, *ROOT.glob("flip_sklearn/**/*.py")]:
        if path.name != "parameters.py":
            assert not re.search(r"install[^\n]*\s'?flip-sklearn\[", path.read_text()), path


def test_source_distribution_has_the_files_of_its_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = {*project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "pyproject.toml"}
    tests = "\n".join(path.read_text() for path in ROOT.glob("tests/**/*.py"))
    wanted = set(re.findall(r'ROOT / "([\w.]+)', tests))
    assert {"Makefile", "CONTRIBUTING.md", "constraints.txt", "benchmarks"} <= wanted | {
        "CONTRIBUTING.md",
        "benchmarks",
    }
    assert {name for name in wanted if (ROOT / name).exists()} <= included
    assert {"CONTRIBUTING.md", "benchmarks"} <= included


def test_makefile_asks_for_the_build_without_cuda_first() -> None:
    script = subprocess.run(
        ["make", "--dry-run", "--always-make", "VENV=new", "new/.torch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    first, _, rest = next(line for line in script.splitlines() if "+cpu" in line).partition("||")
    pin = next(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    shell = re.search(r'"(\$\(grep.*?\)\+cpu)"', first)
    assert shell is not None
    echoed = subprocess.run(
        ["sh", "-c", f'echo "{shell[1]}"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert echoed.stdout.strip() == f"{pin}+cpu"
    assert rest.strip().endswith("torch")


@pytest.mark.parametrize("estimator", [FLiPExtractor, ConceptVectorizer])
def test_repr_of_a_large_vocabulary(estimator: Any) -> None:
    """Formatting all 100,000 words took seconds; only a part is shown."""
    small = {f"word{i:06}": i for i in range(2000)}
    large = {f"word{i:06}": i for i in range(100_000)}
    start = time.perf_counter()
    text = repr(estimator(vocabulary=large))
    seconds = time.perf_counter() - start
    assert text == repr(estimator(vocabulary=small))
    assert "word000000" in text
    start = time.perf_counter()
    repr(estimator(vocabulary={word: i for word, i in list(large.items())[:500]}))
    assert seconds < 1 + 20 * (time.perf_counter() - start)
    assert repr(estimator(vocabulary={"a": 0})) == f"{estimator.__name__}(vocabulary={{'a': 0}})"

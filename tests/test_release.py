"""Distributions as they would be uploaded; versions and addresses are the same everywhere."""

from __future__ import annotations

import email
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

import flip_sklearn
from flip_sklearn import encoders
from flip_sklearn.parameters import DOCUMENTATION
from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
URLS = PROJECT["urls"]
RECIPE = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text("utf8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf8"))


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and a source distribution."""
    build = pytest.importorskip("hatchling.build")
    pytest.importorskip("hatch_fancy_pypi_readme")
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return folder / build.build_wheel(str(folder)), folder / build.build_sdist(str(folder))


def files_of(folder: str) -> set[str]:
    """The files of a folder of the repository, without caches and what the site's build writes."""
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
    names = (path.relative_to(ROOT).as_posix() for path in paths)
    return {name for name in names if not name.startswith(("docs/gallery/", "docs/generated/"))}


def test_wheel_has_the_package_its_templates_and_its_type_marker(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        others = {name.split(".dist-info/")[1] for name in wheel.namelist() if ".dist-info/" in name}
    assert names == files_of("flip_sklearn")
    assert {Path(name).suffix for name in names} == {".py", ".j2", ".typed"}
    assert "flip_sklearn/py.typed" in names
    assert others == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_source_distribution_has_what_its_tests_read(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("flip_sklearn", "tests", "examples", "benchmarks", "docs", "conda", ".github"):
        assert files_of(folder) <= names
    assert {"pyproject.toml", "Makefile", "CITATION.cff", "constraints-lowest.txt"} <= names
    assert not [name for name in names if name.endswith((".pyc", ".safetensors.tmp"))]


def test_page_on_a_package_index(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        page = email.message_from_bytes(wheel.read(name))
    text = page.get_payload(decode=True).decode("utf8")  # type: ignore[union-attr]
    assert page["Version"] == flip_sklearn.__version__
    assert page["Author"] == CITATION["authors"][0]["name"]
    assert page["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert all(re.match(r"https?://|#", target) for target in targets)
    # Each one is a file of the tag of this version.
    tag = f"v{flip_sklearn.__version__}/"
    owned = [target for target in targets if "flip-sklearn/flip-sklearn" in target]
    assert len(owned) == len(relative_links((ROOT / "README.md").read_text("utf8")))
    for target in owned:
        assert (ROOT / target.split(tag)[1].split("#")[0]).exists(), target
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures
    assert all("raw.githubusercontent.com" in picture or picture in BADGES for picture in pictures)


# What the badges say, from what decides it.
BADGES = [
    f"https://img.shields.io/badge/python-{PROJECT['requires-python'].removeprefix('>=')}%2B-blue",
    f"https://img.shields.io/badge/licence-{PROJECT['license']}-blue",
]


def test_badges_are_true() -> None:
    readme = (ROOT / "README.md").read_text("utf8")
    assert re.findall(r"https://img\.shields\.io/[^)]+", readme) == BADGES
    assert (ROOT / "LICENSE").read_text("utf8").startswith(f"{PROJECT['license']} License")


def relative_links(text: str) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)]+)\)", text) if not re.match("https?:|#", target)]


def test_versions_agree() -> None:
    assert CITATION["version"] == RECIPE["context"]["version"] == flip_sklearn.__version__
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", heading) for heading in headings[1:])
    released = [Version(heading.split()[0]) for heading in headings[1:]]
    assert released == sorted(released, reverse=True)
    if Version(flip_sklearn.__version__).is_devrelease:
        assert Version(flip_sklearn.__version__) > released[0]
    else:
        assert Version(flip_sklearn.__version__) == released[0]


def test_addresses_agree() -> None:
    assert URLS["Documentation"] == DOCUMENTATION == CITATION["url"] == RECIPE["about"]["documentation"]
    source = URLS["Source"]
    assert source == CITATION["repository-code"] == RECIPE["about"]["repository"]
    assert all(url.startswith((source, DOCUMENTATION)) for url in URLS.values())
    for name in ("SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"):
        assert f"{source}/security/advisories/new" in (ROOT / name).read_text("utf8")
    pages = [ROOT / "pyproject.toml", ROOT / "SECURITY.md", ROOT / "conda" / "recipe.yaml"]
    owners = {m for page in pages for m in re.findall(r"com/([\w-]+/[\w-]+)", page.read_text("utf8"))}
    assert owners == {source.removeprefix("https://github.com/")}


def test_conda_recipe_is_that_of_the_project() -> None:
    def named(requirements: list[str]) -> dict[str, str]:
        parsed = [Requirement(text.replace(" ", "", 1)) for text in requirements]
        return {
            requirement.name.replace("pytorch", "torch"): str(requirement.specifier) for requirement in parsed
        }

    run = [text for text in RECIPE["requirements"]["run"] if not text.startswith("python ")]
    assert named(run) == named(PROJECT["dependencies"])
    host = [text for text in RECIPE["requirements"]["host"] if text.startswith("hatch")]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["build-system"]["requires"]
    assert named(host) == named(build)
    assert PROJECT["requires-python"] == f">={RECIPE['context']['python_min']}"
    script = f"flip-sklearn = {PROJECT['scripts']['flip-sklearn']}"
    assert RECIPE["build"]["python"]["entry_points"] == [script]
    assert RECIPE["about"]["summary"] == PROJECT["description"]
    assert RECIPE["about"]["license"] == PROJECT["license"] == CITATION["license"]


def requirements() -> Iterator[Requirement]:
    """The requirements of the package and of its extra `test`, whose parts are other extras."""
    extras, seen, waiting = (
        PROJECT["optional-dependencies"],
        set(),
        [*PROJECT["dependencies"], "flip-sklearn[test]"],
    )
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name != "flip-sklearn":
            yield requirement
            continue
        for extra in requirement.extras - seen:
            seen.add(extra)
            waiting += extras[extra]


def test_lowest_versions_are_those_that_are_promised() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text("utf8").splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines if line and line[0] != "#")
    for requirement in requirements():
        lower = [part.version for part in requirement.specifier if part.operator in (">=", "==")]
        assert len(lower) == 1, requirement
        assert Version(pins[requirement.name.lower().replace("_", "-")]) == Version(lower[0]), requirement


def test_workflow_runs_what_the_makefile_has_on_the_supported_versions() -> None:
    steps = [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    makefile = (ROOT / "Makefile").read_text("utf8")
    targets = [step.removeprefix("make ") for step in steps if step.startswith("make ")]
    assert {"style", "unit-tests", "test-lowest", "release-check"} <= {*targets}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    versions = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["python-version"]
    classifier = "Programming Language :: Python :: "
    named = [
        text.removeprefix(classifier) for text in PROJECT["classifiers"] if text.startswith(f"{classifier}3.")
    ]
    assert versions == named
    assert PROJECT["requires-python"] == f">={versions[0]}"


def estimators() -> list[type[BaseEstimator]]:
    public = [getattr(flip_sklearn, name) for name in flip_sklearn.__all__]
    public += [getattr(encoders, name) for name in encoders.__all__]
    return [item for item in public if isinstance(item, type) and issubclass(item, BaseEstimator)]


@pytest.mark.parametrize("estimator", estimators(), ids=lambda estimator: estimator.__name__)
def test_html_representation_links_to_the_documentation(estimator: Any) -> None:
    name = estimator.__name__
    place = "flip_sklearn" if name in flip_sklearn.__all__ else "flip_sklearn.encoders"
    link = f'href="{DOCUMENTATION}/generated/{place}.{name}.html"'
    assert link in estimator_html_repr(estimator())
    assert link in estimator_html_repr(make_pipeline(estimator()))


def test_subclasses_of_others_have_no_link() -> None:
    """Negative control: the page of a class is not that of its subclass."""
    mine = type("Mine", (flip_sklearn.FLiPExtractor,), {"__module__": "mine"})
    assert DOCUMENTATION not in estimator_html_repr(mine())

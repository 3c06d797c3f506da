"""Files written by version 0.1.0, before its modules were renamed, still load and give the same results."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io

from flip_sklearn import FLiPExtractor
from flip_sklearn.persistence.encoding import EncodingConfig
from tests.helpers.paths import DATA, ROOT

FOLDER = DATA / "objects-v0.1.0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
X, Y = np.load(FOLDER / "X.npy"), np.load(FOLDER / "Y.npy")
SKOPS = sorted(FOLDER.glob("*.skops"))
READS_NUMPY_2 = hasattr(np, "_core")
REASON = "NumPy 1 does not read pickles of NumPy 2"


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    if not READS_NUMPY_2:
        pytest.skip(REASON)
    with open(FOLDER / "objects.pkl", "rb") as file:
        return pickle.load(file)


def check(name: str, estimator: Any) -> None:
    """Check that a loaded estimator gives the results of the fit and can be used further."""
    if name in EXPECTED["keywords"]:
        words = [list(row) for row in estimator.extract_keywords(X[:20], top_k=3)]
        assert words == EXPECTED["keywords"][name]
    if name in EXPECTED["bias"]:
        np.testing.assert_array_equal(estimator.bias_.astype(float), EXPECTED["bias"][name])
    if name == "pipeline":
        assert estimator.predict(X[:20]).toarray().tolist() == EXPECTED["pipeline"]
    if name == "vectorizer":
        assert estimator.get_feature_names_out().tolist() == EXPECTED["vectorizer"]
    if name.endswith(("vectorizer", "vocabulary")):
        assert estimator.transform(["a red dog and a new york cat"]).sum() >= 2
    if name == "stream":
        estimator.partial_fit(X, Y)  # its moments are in the file
    assert pickle.dumps(estimator)


@pytest.mark.parametrize("name", [*EXPECTED["keywords"], "pipeline", "vectorizer"])
def test_pickled_estimators(objects: dict[str, Any], name: str) -> None:
    check(name, objects[name])


@pytest.mark.skipif(not READS_NUMPY_2, reason=REASON)
def test_joblib_file() -> None:
    for name, estimator in joblib.load(FOLDER / "estimators.joblib").items():
        check(name, estimator)


@pytest.mark.parametrize("path", SKOPS, ids=lambda path: path.stem)
def test_skops_files(path: Path) -> None:
    trusted = skops.io.get_untrusted_types(file=path)
    check(path.stem.replace("-", " "), skops.io.load(path, trusted=trusted))


@pytest.mark.parametrize("name", list(EXPECTED["repr"]))
def test_pickled_results(objects: dict[str, Any], name: str) -> None:
    # scikit-learn breaks the lines of a nested estimator only if that has no repr of its own.
    # The default of l2_strength was 20.0, and repr shows what is not the default.
    shown = [word for word in repr(objects[name]).split() if word != "l2_strength=20.0,"]
    assert shown == EXPECTED["repr"][name].split()
    if hasattr(objects[name], "to_frame"):
        assert len(objects[name].to_frame())


def test_pickled_mapper_and_analyzer(objects: dict[str, Any]) -> None:
    assert objects["mapper"](X[:5]).tolist() == EXPECTED["mapper"]
    assert objects["analyzer"]("a red dog and a tree") == ["red dog", "tree"]


def test_former_name_of_a_class_is_the_class() -> None:
    """In a new process, before anything else of the package is imported."""
    code = (
        "from flip_sklearn._means import RowMean as former\n"
        "from flip_sklearn.metrics import RowMean\n"
        "assert former is RowMean\n"
        "import sys; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_folder_of_the_command_line(tmp_path: Path) -> None:
    model = FLiPExtractor.from_pretrained(FOLDER / "command-line-model")
    assert model.pretrained_info_["encoder"] == "a/b"
    config = EncodingConfig.read(FOLDER / "command-line-model")
    assert config.encoder is not None
    assert config.encoder["model"] == "a/b"
    assert config.encoder["normalize"] is True
    assert config.words["token_pattern"] == "indic"


def test_checkpoint_of_an_earlier_format_is_left_alone(tmp_path: Path) -> None:
    """It was made when the same settings gave another loss and another b, so the fit begins again."""
    shutil.copytree(FOLDER / "checkpoints", tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.iterdir()
    settings = {"random_state": 0, "device": "cpu", "precision": "float32"}
    before = path.read_bytes()
    model = FLiPExtractor(rank=4, max_iter=3, checkpoint_dir=tmp_path, **settings).fit(X, Y)
    assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == before
    without = FLiPExtractor(rank=4, max_iter=3, **settings).fit(X, Y)
    np.testing.assert_array_equal(model.bias_, without.bias_)

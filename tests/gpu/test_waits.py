"""What only a real card shows: waits as torch reports them, and scikit-learn's array API on its memory.

The stand-in counts waits in tests/backend/scoring/test_waits.py, and copies in tests/test_array_api.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.scoring import products
from flip_sklearn.backend.scoring.scorer import Scorer
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.version.cuda is None, reason="needs a real card")]


@pytest.mark.parametrize("k", [10, 300])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_extraction_waits_once_a_block(
    monkeypatch: pytest.MonkeyPatch, precision: str, probabilities: bool, k: int
) -> None:
    monkeypatch.setitem(products.BLOCK_ROWS, "cuda", (1, 1000))
    rng = np.random.default_rng(0)
    scorer = Scorer(
        A=rng.normal(size=(20_000, 32)).astype(np.float32),
        B=rng.normal(size=(32, 48)).astype(np.float32),
        offset=rng.normal(size=20_000).astype(np.float32),
        mean=np.zeros(48, dtype=np.float32),
        compute=resolve_compute("cuda", precision),
        unseen=np.zeros(20_000, dtype=bool),
    )
    X = rng.normal(size=(5000, 48)).astype(np.float32)
    scorer.top(X, k, probabilities=probabilities)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            n_blocks = sum(1 for _ in scorer.top_blocks(X, k, probabilities=probabilities))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "called a synchronizing CUDA operation" in str(w.message)]
    assert n_blocks == 5
    # Ties and rows without a certificate are looked at again; these scores have few of them.
    assert n_blocks <= len(waits) <= n_blocks + 3, [f"{w.filename}:{w.lineno}" for w in waits]


PIPELINE = """
import json
import numpy as np, sklearn, torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from flip_sklearn import FLiPExtractor
from tests.helpers.planted import planted
truth = planted(n=2000, d=24, n_words=300, rank=6, length=6)
X, Y = truth.X.astype(np.float32), truth.Y
def pipeline(device):
    flip = FLiPExtractor(6, max_iter=2, random_state=0, device=device, precision="float32")
    return make_pipeline(StandardScaler(), PCA(20), flip.set_params(sparse_output=False))
expected = pipeline("cpu").fit(X, Y)
with sklearn.config_context(array_api_dispatch=True):
    there = torch.from_numpy(X).to("cuda")
    model = pipeline("cuda").fit(there, Y)
    names = ("decision_function", "predict_proba", "transform")
    results = {name: getattr(model, name)(there) for name in names}
    score = model.score(there, Y)
print(json.dumps({
    "devices": sorted({str(result.device) for result in results.values()}),
    "difference": float((results["predict_proba"].cpu() - expected.predict_proba(X)).abs().max()),
    "scores": [score, expected.score(X, Y)],
}))
"""


def test_pipeline_on_the_card() -> None:
    """In a process of its own, because SciPy must be told of the array API before it is imported."""
    pytest.importorskip("sklearn", minversion="1.8", reason="older versions need array-api-compat")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PIPELINE],
        env={**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["devices"] == ["cuda:0"]
    assert result["difference"] < 1e-2
    assert result["scores"][0] == pytest.approx(result["scores"][1], abs=0.02)

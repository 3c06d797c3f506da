"""Processes that are forked after torch has computed in several threads do not wait for threads they lack.

The tests run scripts in new processes with two threads of torch, because a process that was once forked,
or that computes in one thread, shows nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PATIENCE = 30  # seconds in which a forked process ends, on a busy machine
PREPARE = f"""
import os, signal, sys, tempfile, warnings
import numpy as np, torch
warnings.simplefilter("ignore")
torch.set_num_threads(2)

rng = np.random.default_rng(0)
Y = rng.poisson(0.1, size=(2000, 400))
code = rng.normal(size=(400, 64))
X = (Y @ code).astype(np.float32)

def use_threads():
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)

def in_fork(function, patience={PATIENCE}):
    process_id = os.fork()
    if process_id == 0:
        signal.alarm(patience)
        function()
        os._exit(0)
    return os.waitpid(process_id, 0)[1] == 0
"""
IMPORT = """
import joblib, multiprocessing
from flip_sklearn import FLiPExtractor, KeywordMapper, SpLiCEExtractor, regularization_path
flip = FLiPExtractor(max_iter=2, random_state=0, device="cpu")
"""


def run(script: str) -> None:
    """Run a script that must end well, and end the processes that it leaves behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE + script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=4 * PATIENCE)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors


def test_forked_processes_compute() -> None:
    """One script, since importing takes longer than the rest; only a process that was forked changes."""
    run(
        IMPORT
        + """
# Before this process has computed: the forked one and its parent can both fit.
folder = tempfile.mkdtemp()
assert in_fork(lambda: flip.fit(X, Y).save_pretrained(folder))

# A model that was loaded before the fork
loaded = FLiPExtractor.from_pretrained(folder)
use_threads()
assert in_fork(lambda: loaded.extract_keywords(X))

# After a fit
flip.fit(X, Y)
expected = flip.score(X, Y)

def score():
    assert abs(flip.score(X, Y) - expected) < 1e-3

def other_verbs():
    flip.transform(X), flip.predict_proba(X), flip.extract_keywords(X)
    SpLiCEExtractor(code).fit(X).transform(X[:50])

assert in_fork(score)
assert in_fork(lambda: (flip.fit(X, Y), score()))
assert in_fork(lambda: flip.partial_fit(X, Y))
assert in_fork(lambda: regularization_path(X, Y, 2, estimator=flip, max_iter=1))
assert in_fork(other_verbs)
assert in_fork(lambda: in_fork(score) or os._exit(1))  # a fork of a fork
score()  # the parent keeps its threads
assert torch.get_num_threads() == 2
assert in_fork(score)
# Negative control: with two threads, which the forked process may choose, it would wait forever.
assert not in_fork(lambda: (torch.set_num_threads(2), score()), patience=2)

# A KeywordMapper in a pool of forked processes
mapper = KeywordMapper(flip)
keywords = list(mapper(X))
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = pool.map_async(mapper, [X[:1000], X[1000:]]).get(timeout=30)
assert [*results[0], *results[1]] == keywords

# joblib with forked processes
with joblib.parallel_config("multiprocessing", n_jobs=2):
    signal.alarm(30)
    scores = joblib.Parallel()(joblib.delayed(flip.score)(X, Y) for _ in range(3))
assert max(scores) - min(scores) == 0
"""
    )


def test_a_fork_after_an_encoder_has_computed() -> None:
    """The encoders do not import the rest of the package, so it is imported by the forked process."""
    run("""
from flip_sklearn.encoders.base import resolve_device
resolve_device("cpu")
use_threads()
def fit():
    from flip_sklearn import FLiPExtractor
    FLiPExtractor(max_iter=2, random_state=0, device="cpu").fit(X, Y)
assert in_fork(fit)
""")

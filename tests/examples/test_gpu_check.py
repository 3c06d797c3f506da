"""benchmarks/gpu_check.sh runs without a GPU, and its figures in small on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bench_scaling import make_session
from benchmarks.gpu_measuring import normal_rows, time_pass, zipf_rows
from tests.helpers.paths import ROOT
from tests.helpers.processes import run_python

CPU = torch.device("cpu")
PARTS = ["environment", "quality", "pass_floor", "paper", "extract", "profile"]
# Stands in for Python: `-m benchmarks.bench_gpu quality` fails, and `extract` needs too long.
SCRIPTED_PYTHON = """#!/bin/sh
echo "$@" >> "$OUT/calls"
case "$3" in
quality) exit 3 ;;
extract) exit 124 ;;
esac
echo "$3.figure 1 s"
"""


def gpu_check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with this Python, without a GPU."""
    settings = {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu_check.sh"), *arguments],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_without_a_gpu_it_says_so_and_succeeds(tmp_path: Path) -> None:
    done = gpu_check(OUT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "There is no GPU" in done.stdout
    assert "--device cpu --small" in done.stdout
    assert "=== " not in done.stdout  # no part has run
    assert (tmp_path / "summary.log").read_text() == done.stdout


@pytest.mark.parametrize("arguments", [[], ["--device", "cpu", "--small"]])
def test_a_part_that_fails_does_not_stop_the_others(arguments: list[str], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(SCRIPTED_PYTHON)
    python.chmod(0o755)
    done = gpu_check(*arguments, PYTHON=str(python), OUT=str(tmp_path))
    assert done.returncode == 1
    figures, parts = done.stdout.split("=== figures\n")[1].split("=== parts\n")
    reached = [name for name in PARTS if name not in ("quality", "extract")]
    assert figures.splitlines() == [f"{name}.figure 1 s" for name in reached]
    results = dict(line.split(" s  ") for line in parts.splitlines())
    results = {key.split()[0]: value for key, value in results.items()}
    expected = dict.fromkeys(PARTS, "passed") | {"quality": "failed, status 3", "extract": "timed out"}
    assert results == expected | ({} if arguments else {"tests": "passed"})
    # The tests marked `gpu` run on a GPU only.
    calls = (tmp_path / "calls").read_text()
    assert ("-m pytest -q -m gpu tests/gpu" in calls) is (not arguments)
    assert f"benchmarks.bench_gpu paper {' '.join(arguments)}".strip() in calls


# Runs all parts in one process, since importing takes most of the time, and keeps what each prints.
RUN_PARTS = """
import contextlib, pathlib, sys
from benchmarks import bench_gpu
for part in sys.argv[2:]:
    sys.argv[1:] = [part, "--device", "cpu", "--small"]
    with open(part, "w") as log, contextlib.redirect_stdout(log):
        bench_gpu.main()
"""


def test_all_figures_in_small_on_a_cpu(tmp_path: Path) -> None:
    parts = run_python(
        "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}){RUN_PARTS}", "", *PARTS,
        cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": "", "OUT": str(tmp_path)},
    )  # fmt: skip
    assert parts.returncode == 0, parts.stderr
    lines = (tmp_path / "figures.jsonl").read_text().splitlines()
    figures = {figure["name"]: figure["value"] for figure in map(json.loads, lines)}
    assert all(np.isfinite(value) and value > 0 for value in figures.values())
    assert {name.split(".")[0] for name in figures} == set(PARTS)
    for run, steps in (("exact.m500", 80), ("exact.m2000", 20), ("sampled.m500", 80)):
        assert figures[f"paper.{run}.steps_timed"] == figures[f"paper.{run}.steps"] == steps
    for solver in ("exact", "sampled"):
        assert figures[f"quality.{solver}.accuracy"] > 0.8
        assert figures[f"quality.{solver}.seconds_to_0.80"] <= figures[f"quality.{solver}.whole_fit"]
        assert f"profile.{solver}.kernels" in figures
    # The output of the script ends with all figures, and is not cut where it is shown.
    printing = tmp_path / "python"
    printing.write_text(f'#!/bin/sh\ncat "{tmp_path}/$3"\n')
    printing.chmod(0o755)
    done = gpu_check("--device", "cpu", "--small", PYTHON=str(printing), OUT=str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"\n{name} " in done.stdout.split("=== figures")[1] for name in figures)
    assert len((tmp_path / "out/summary.log").read_text()) < 12_000


def test_a_pass_beyond_its_budget_is_extrapolated() -> None:
    X, Y = normal_rows(40_000, 4, CPU), zipf_rows(40_000, 300, CPU)
    whole = time_pass(make_session(X, Y, 2, "exact", "cpu"), 1e9)
    part = time_pass(make_session(X, Y, 2, "exact", "cpu"), 1e-9)
    assert whole.steps == whole.total == part.total == 80
    assert part.steps == 51
    assert part.seconds == pytest.approx(part.step * 80)


def test_rows_have_ten_distinct_words_with_zipf_frequencies() -> None:
    Y = zipf_rows(20_000, 500, CPU)
    words = Y.indices.reshape(20_000, 10)
    assert (np.diff(words, axis=1) > 0).all()
    share = 1.0 / (np.arange(500) + 10.0)
    expected = 10 * share / share.sum()
    error = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(np.bincount(Y.indices, minlength=500) / 20_000 - expected) < 5 * error).all()

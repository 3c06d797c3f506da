"""Operators and waits of a step on a device: the host must not be slower than the device that it feeds.

The counts are those of the stand-in, so they do not depend on the machine; views and copies are operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit import candidates, session
from flip_sklearn.backend.fit.session import Session
from tests.helpers.planted import planted
from tests.helpers.standin_gpu import standin_gpu
from tests.helpers.standin_streams import Counts

TRUTH = planted(n=1000, d=12, n_words=120, rank=4, length=6)
X = TRUTH.X.astype(np.float32)
BATCH_SIZE = 50
MOST_OPERATORS = {"exact": 90, "sampled": 120}
MOST_WAITS = 0.5
CASES: dict[str, dict[str, Any]] = {
    "bfloat16": {"precision": "bfloat16"},
    "float32": {"precision": "float32"},
    "float64": {"precision": "float64"},
    "L1": {"precision": "bfloat16", "l1_strength": 0.1},
    "LiP": {"rank": None, "l1_strength": 0.1},
    "LiP without L2": {"rank": None, "l2_strength": 0.0},
    "early stopping": {"early_stopping": True, "l1_strength": 0.1},
    "by likelihood": {"early_stopping": "likelihood"},
    "small batches": {"batch_size": 7},
    "progress bar": {"verbose": 1},
}


def counted_fit(
    monkeypatch: pytest.MonkeyPatch, free_bytes: int, **settings: Any
) -> tuple[float, float, float]:
    """Operators and waits of a step in the middle of a pass, and waits of a whole pass, by its steps."""
    after_steps: list[tuple[int, int]] = []
    after_passes: list[tuple[int, int]] = []  # waits, steps
    take_step, run_pass = Session._take_step, Session.run_pass

    def total(counts: Counts) -> tuple[int, int]:
        return sum(counts.operators.values()), sum(counts.waits.values())

    with standin_gpu(free_bytes) as counts, monkeypatch.context() as patch:

        def counted_step(self: Session, batch: Any) -> Any:
            after_steps.append(total(counts))
            return take_step(self, batch)

        def counted_pass(self: Session, *args: Any, **kwargs: Any) -> Any:
            result = run_pass(self, *args, **kwargs)
            after_passes.append((total(counts)[1], len(after_steps)))
            return result

        patch.setattr(Session, "_take_step", counted_step)
        patch.setattr(Session, "run_pass", counted_pass)
        weights = np.linspace(0, 2, len(X))
        FLiPExtractor(**settings).fit(X, TRUTH.Y, sample_weight=weights)
    first_steps = after_steps[: after_passes[0][1]]  # of the first pass
    operators, waits = np.subtract(first_steps[-1], first_steps[0]) / (len(first_steps) - 1)
    (waits_before, steps_before), (waits_after, steps_after) = after_passes[:2]
    return operators, waits, (waits_after - waits_before) / (steps_after - steps_before)


@pytest.mark.parametrize("free_bytes", [1 << 30, 0], ids=["X on the device", "X on the host"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("solver", ["exact", "sampled"])
def test_step_needs_few_operators_and_does_not_wait(monkeypatch, solver, case, free_bytes) -> None:
    monkeypatch.setattr(candidates, "DRAWN_WORDS", 30)
    monkeypatch.setattr(session, "SMALL_SCORES", 0)  # small data wait for the refit of b after every pass
    settings: dict[str, Any] = dict(
        rank=4, batch_size=BATCH_SIZE, max_iter=2, early_stopping=False, solver=solver, device="cuda",
        random_state=0,
    )  # fmt: skip
    operators, waits, waits_of_pass = counted_fit(monkeypatch, free_bytes, **(settings | CASES[case]))
    assert 30 < operators <= MOST_OPERATORS[solver]
    assert waits == 0
    assert 0 < waits_of_pass <= MOST_WAITS


def test_waits_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a step that reads its loss waits once more."""
    take_step = Session._take_step

    def reading(self: Session, batch: Any) -> Any:
        loss = take_step(self, batch)
        assert float(loss) > 0
        return loss

    monkeypatch.setattr(Session, "_take_step", reading)
    _, waits, _ = counted_fit(
        monkeypatch, 1 << 30, rank=4, batch_size=BATCH_SIZE, max_iter=2, device="cuda", random_state=0
    )
    assert waits == 1

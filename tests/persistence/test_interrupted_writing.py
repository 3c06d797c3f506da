"""Interrupted and simultaneous writing: a folder holds the old model, the new model, or none."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import threading
from pathlib import Path

import pytest

from flip_sklearn import FLiPExtractor
from tests.helpers.processes import in_process
from tests.helpers.stores import (
    FILES,
    FactLoLM,
    fit,
    fitted_state,
    load_state,
    save_with_file_size_limits,
    states_after_kill_at_every_step,
    states_after_random_kills,
    write_foreign,
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and fork")


@posix_only
def test_kill_at_a_random_time_leaves_no_mixture(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    models = [fit(random_state=random_state) for random_state in (0, 1)]
    saved_states = [fitted_state(model) for model in models]
    assert saved_states[0] != saved_states[1]
    folder = tmp_path / "m"
    content = [pickle.dumps(model) for model in models]
    states = in_process(states_after_random_kills, folder, content, 12, seed)
    assert all(state is None or state in saved_states for state in states), f"seed {seed}"
    assert any(states)
    models[0].save_pretrained(folder)
    assert load_state(folder) == saved_states[0]
    assert sorted(path.name for path in folder.iterdir()) == FILES


@posix_only
@pytest.mark.parametrize("before", ["nothing", "this package", "other code"])
def test_kill_at_every_step_leaves_old_model_new_model_or_none(
    tmp_path: Path, before: str, fitted: FLiPExtractor
) -> None:
    prepared = None if before == "nothing" else tmp_path / "prepared"
    if before == "this package":
        fit(random_state=7).save_pretrained(prepared)
    elif prepared is not None:
        write_foreign(prepared, FactLoLM(15, 8, 3))
    folder = tmp_path / "m"
    old, *states = in_process(states_after_kill_at_every_step, folder, pickle.dumps(fitted), prepared)
    new = fitted_state(fitted)
    assert states[-1] == new != old
    names = []
    for state in states:
        if state == new:
            names.append("new")
        elif state == old:
            names.append("old")
        else:
            assert state is None
            names.append("none")
    # In this order; the folder is without a model only during a few renames.
    stages = [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    assert stages == (["old", "new"] if before == "nothing" else ["old", "none", "new"])
    assert names.count("old") >= 10
    fitted.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES


@posix_only
def test_full_disk_leaves_the_old_model(tmp_path: Path, fitted: FLiPExtractor) -> None:
    fitted.save_pretrained(tmp_path / "m")
    assert in_process(save_with_file_size_limits, tmp_path / "m", 600) == [True] * 6
    assert load_state(tmp_path / "m") == fitted_state(fitted)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_folder_keeps_the_old_model(tmp_path: Path, fitted: FLiPExtractor) -> None:
    folder = fitted.save_pretrained(tmp_path / "m")
    folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            fit(random_state=7).save_pretrained(folder)
        assert load_state(folder) == fitted_state(fitted)
    finally:
        folder.chmod(0o700)


def test_simultaneous_writers_leave_no_mixture(tmp_path: Path) -> None:
    models = [fit(random_state=seed) for seed in (0, 1)]
    saved_states = [fitted_state(model) for model in models]
    errors: list[BaseException] = []

    def save(model: FLiPExtractor) -> None:
        try:
            for _ in range(10):
                model.save_pretrained(tmp_path / "m")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(ValueError):  # while files are being replaced
            assert fitted_state(FLiPExtractor.from_pretrained(tmp_path / "m")) in saved_states
    assert errors == []
    models[1].save_pretrained(tmp_path / "m")
    assert load_state(tmp_path / "m") == saved_states[1]

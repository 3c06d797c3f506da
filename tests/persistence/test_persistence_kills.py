"""Models whose writing was cut off, or that two write at once: the old one, the new one, or none."""

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
    facts,
    fit,
    killed_at_every_step,
    killed_at_random,
    loaded,
    saved_on_a_full_disk,
    write_foreign,
)


@pytest.fixture(scope="module")
def fitted() -> FLiPExtractor:
    return fit(early_stopping=True)


posix_only = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are POSIX's")


@posix_only
def test_killed_at_any_moment_no_mixture_is_loaded(tmp_path: Path) -> None:
    number = random.SystemRandom().randrange(10**6)
    models = [fit(random_state=seed) for seed in (0, 1)]
    whole = [facts(model) for model in models]
    assert whole[0] != whole[1]
    folder = tmp_path / "m"
    content = [pickle.dumps(model) for model in models]
    found = in_process(killed_at_random, folder, content, 12, number)
    assert all(one is None or one in whole for one in found), f"chance {number}"
    assert any(found)
    models[0].save_pretrained(folder)
    assert loaded(folder) == whole[0]
    assert sorted(path.name for path in folder.iterdir()) == FILES


@posix_only
@pytest.mark.parametrize("before", ["nothing", "ours", "other code's"])
def test_killed_at_every_step_it_is_the_old_model_or_the_new_or_none(
    tmp_path: Path, before: str, fitted: FLiPExtractor
) -> None:
    prepared = None if before == "nothing" else tmp_path / "prepared"
    if before == "ours":
        fit(random_state=7).save_pretrained(prepared)
    elif prepared is not None:
        write_foreign(prepared, FactLoLM(15, 8, 3))
    folder = tmp_path / "m"
    old, *found = in_process(killed_at_every_step, folder, pickle.dumps(fitted), prepared)
    new = facts(fitted)
    assert found[-1] == new != old
    names = ["new" if one == new else "old" if one == old else "none" for one in found]
    assert all(one is None for one, name in zip(found, names, strict=True) if name == "none")
    # In this order; the moment without a model is a few renames long.
    stages = [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    assert stages == (["old", "new"] if before == "nothing" else ["old", "none", "new"])
    assert names.count("old") >= 10
    fitted.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES


@posix_only
def test_on_a_full_disk_the_old_model_stays(tmp_path: Path, fitted: FLiPExtractor) -> None:
    fitted.save_pretrained(tmp_path / "m")
    assert in_process(saved_on_a_full_disk, tmp_path / "m", 600) == [True] * 6
    assert loaded(tmp_path / "m") == facts(fitted)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_where_nothing_may_be_written_the_old_model_stays(
    tmp_path: Path, fitted: FLiPExtractor
) -> None:
    folder = fitted.save_pretrained(tmp_path / "m")
    folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            fit(random_state=7).save_pretrained(folder)
        assert loaded(folder) == facts(fitted)
    finally:
        folder.chmod(0o700)


def test_writers_at_the_same_time_leave_no_mixture(tmp_path: Path) -> None:
    models = [fit(random_state=seed) for seed in (0, 1)]
    whole = [facts(model) for model in models]
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
        with contextlib.suppress(ValueError):  # in between, said clearly
            assert facts(FLiPExtractor.from_pretrained(tmp_path / "m")) in whole
    assert errors == []
    models[1].save_pretrained(tmp_path / "m")
    assert loaded(tmp_path / "m") == whole[1]

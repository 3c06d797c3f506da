"""Interrupted and simultaneous writing: a folder holds the old model or the new model, never none."""

from __future__ import annotations

import os
import pickle
import random
import threading
from pathlib import Path

import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.persistence.encoding import EncodingConfig, read_with_encoding
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
    texts_after_kill_at_every_step,
    write_foreign,
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and fork")


@posix_only
def test_kill_at_a_random_time_leaves_the_old_or_the_new_model(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    models = [fit(random_state=random_state) for random_state in (0, 1)]
    saved_states = [fitted_state(model) for model in models]
    assert saved_states[0] != saved_states[1]
    folder = tmp_path / "m"
    content = [pickle.dumps(model) for model in models]
    states = in_process(states_after_random_kills, folder, content, 12, seed)
    assert all(state in saved_states for state in states), f"seed {seed}"
    models[0].save_pretrained(folder)
    assert load_state(folder) == saved_states[0]
    assert sorted(path.name for path in folder.iterdir()) == FILES


@posix_only
@pytest.mark.parametrize("before", ["nothing", "this package", "other code"])
def test_kill_at_every_step_leaves_the_old_or_the_new_model(
    tmp_path: Path, before: str, fitted: FLiPExtractor
) -> None:
    prepared = None if before == "nothing" else tmp_path / "prepared"
    if before == "this package":
        fit(random_state=7).save_pretrained(prepared)
    elif prepared is not None:
        write_foreign(prepared, FactLoLM(15, 8, 3))
    folder = tmp_path / "m"
    states, pairs = in_process(states_after_kill_at_every_step, folder, pickle.dumps(fitted), prepared)
    old, new = states.pop(0), fitted_state(fitted)
    assert states[-1] == new != old
    names = []
    for state in states:
        if state == new:
            names.append("new")
        elif state == old:
            names.append("old")
        else:
            raise AssertionError("a mixture, or none")
    assert names == sorted(names, reverse=True)
    assert min(names.count("old"), names.count("new")) >= 5
    # Other code, which opens two files by name, finds two of one model, or misses one during a few renames.
    old_pair, new_pair = pairs[0], pairs[-1]
    assert set(pairs) <= {old_pair, new_pair, None}
    if before == "this package":  # with the same words
        assert None not in pairs
    elif before == "other code":
        assert pairs.count(None) <= 4
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


def test_readers_always_find_a_model_of_simultaneous_writers(tmp_path: Path) -> None:
    models = [fit(random_state=seed) for seed in (0, 1)]
    saved_states = [fitted_state(model) for model in models]
    errors: list[BaseException] = []
    models[0].save_pretrained(tmp_path / "m")

    def save(model: FLiPExtractor) -> None:
        try:
            for _ in range(10):
                model.save_pretrained(tmp_path / "m")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):  # a reader finds one of the models each time
        assert fitted_state(FLiPExtractor.from_pretrained(tmp_path / "m")) in saved_states
    assert errors == []
    models[1].save_pretrained(tmp_path / "m")
    assert load_state(tmp_path / "m") == saved_states[1]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES


@posix_only
def test_text_json_is_switched_with_the_model(tmp_path: Path, fitted: FLiPExtractor) -> None:
    folder = tmp_path / "m"
    configs = {name: EncodingConfig({"model": f"team/{name}"}, {}) for name in ("old", "new")}
    models = {"old": fit(random_state=7), "new": fitted}
    states = {name: fitted_state(model) for name, model in models.items()}
    info = dict.fromkeys(("encoder", "trained_on", "license"))
    models["old"]._write(folder, info, configs["old"].content())
    found = in_process(
        texts_after_kill_at_every_step, folder, pickle.dumps(models["new"]), configs["new"].content()
    )
    names = []
    for state, encoder in found:
        name = "new" if state == states["new"] else "old"
        assert (state, encoder) == (states[name], configs[name].encoder)
        names.append(name)
    assert set(names) == {"old", "new"}
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "text.json"])
    # A model without such a file does not inherit it.
    models["old"].save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_readers_find_the_text_json_of_the_model_while_both_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    models = [fit(random_state=seed) for seed in (0, 1)]
    info = dict.fromkeys(("encoder", "trained_on", "license"))

    def save(number: int) -> None:
        text = EncodingConfig({"model": f"team/{number}"}, {}).content()
        models[number]._write(folder, info, text)

    def save_in_turn() -> None:
        for number in range(60):
            save(number % 2)

    save(0)
    expected = {pickle.dumps(fitted_state(model)): f"team/{number}" for number, model in enumerate(models)}
    writer = threading.Thread(target=save_in_turn)
    writer.start()
    while writer.is_alive():
        model, config = read_with_encoding(FLiPExtractor, folder)
        assert config.encoder == {"model": expected[pickle.dumps(fitted_state(model))]}
    writer.join()


@posix_only
def test_a_killed_writer_does_not_lock_the_folder(tmp_path: Path, fitted: FLiPExtractor) -> None:
    fitted.save_pretrained(tmp_path / "m")
    states = in_process(states_after_random_kills, tmp_path / "m", [pickle.dumps(fitted)], 3, 0)
    assert states == [fitted_state(fitted)] * 3
    fitted.save_pretrained(tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES

"""Files and paths of strangers: a clear error at once, nothing executed, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from flip_sklearn import FLiPExtractor
from flip_sklearn.persistence import folder as _layout
from flip_sklearn.persistence import hub as _hub
from tests.helpers.stores import (
    FILES,
    WORDS,
    FactLoLM,
    X,
    fit,
    write_foreign,
)


@pytest.fixture(scope="module")
def fitted() -> FLiPExtractor:
    return fit(early_stopping=True)


@pytest.fixture(scope="module")
def saved(fitted: FLiPExtractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted.save_pretrained(tmp_path_factory.mktemp("saved") / "m")


# --- Strangers -------------------------------------------------------------------------------


def rewrite(folder: Path, **tensors: Any) -> None:
    """Other tensors in model.safetensors; None takes one away."""
    old = {**load_file(folder / "model.safetensors"), **tensors}
    kept = {name: value for name, value in old.items() if value is not None}
    save_file(kept, folder / "model.safetensors")


def vocabulary(text: str | bytes) -> Callable[[Path], Any]:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / "vocab.json").write_bytes(content)


def header(length: int, content: bytes = b"") -> Callable[[Path], Any]:
    content = struct.pack("<Q", length) + content
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


class Bomb:
    """What a pickle may do to whom opens it."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


def pickled(folder: Path) -> None:
    for name in ("model.safetensors", "vocab.json"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))


def as_pipe(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    os.mkfifo(folder / "vocab.json")


def replace_by_torch(folder: Path) -> None:
    torch.save({"E1": torch.ones(4, 2)}, folder / "model.safetensors")


FOUR = '"a": 0, "b": 1, "c": 2'
STRANGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "random bytes": (lambda f: (f / "model.safetensors").write_bytes(os.urandom(5000)), "cannot be read"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "0 bytes"),
    "a pickle": (pickled, "cannot be read"),
    "torch.save": (replace_by_torch, "cannot be read"),
    "cut off": (lambda f: os.truncate(f / "model.safetensors", 200), "cut off"),
    "longer": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes() + b"x"),
        "cannot be read",
    ),
    "10 GB header": (header(10 * 2**30, b"{}"), "a header of 10737418240 bytes"),
    "2^64 header": (header(2**64 - 1, b"{}"), "at most 1048576"),
    "header of blanks": (header(2**21, b" " * 2**21), "at most 1048576"),
    "header is no JSON": (header(4, b"nope"), "not in safetensors format"),
    "tensors of 10 GB": (
        header(
            len(claim := b'{"b":{"dtype":"F32","shape":[2684354560,1],"data_offsets":[0,10737418240]}}'),
            claim,
        ),
        "cut off",
    ),
    "overflowing shape": (
        header(
            len(claim := b'{"b":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}'),
            claim,
        ),
        "not in safetensors format",
    ),
    "no E1": (lambda f: rewrite(f, E1=None), r"must hold E1, E2 and b.*it holds E2, b"),
    "no b": (lambda f: rewrite(f, b=None), "must hold E1, E2 and b"),
    "nothing": (lambda f: save_file({}, f / "model.safetensors"), "it holds nothing"),
    "E and E1": (lambda f: rewrite(f, E=torch.ones(4, 3)), "must hold"),
    "both names": (lambda f: rewrite(f, **{"_orig_mod.b": torch.ones(4, 1)}), "holds b twice"),
    "wide b": (lambda f: rewrite(f, b=torch.ones(4, 2)), r"b \(V, 1\), they are E1 \(4, 2\), .* b \(4, 2\)"),
    "b of a number": (lambda f: rewrite(f, b=torch.tensor(1.0)), "the shapes must be"),
    "flat short b": (lambda f: rewrite(f, b=torch.ones(3)), "the shapes must be"),
    "no rows": (lambda f: rewrite(f, E1=torch.ones(0, 2), b=torch.ones(0, 1)), "the shapes must be"),
    "half a character": (vocabulary(f'{{{FOUR}, "\\ud800": 3}}'), "half a character"),
    "a row of 10^5 lists": (vocabulary(f'{{{FOUR}, "d": {"[" * 10**5}'), "cannot be read"),
    "billions of laughs": (
        lambda f: os.truncate(f / "vocab.json", 2**25), "longer than the 8096 bytes"
    ),
    "overlapping tensors": (
        header(
            len(claim := b'{"E":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},'
            b'"b":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]}}'),
            claim + bytes(16),
        ),
        "not in safetensors format",
    ),
    "a folder for tensors": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
        "is not a file",
    ),
    "a link to itself": (
        lambda f: ((f / "vocab.json").unlink(), (f / "vocab.json").symlink_to("vocab.json")),
        "vocab.json",
    ),
    "a link to a device": (
        lambda f: ((f / "vocab.json").unlink(), (f / "vocab.json").symlink_to("/dev/zero")),
        "leads out",
    ),
    "a link out": (
        lambda f: os.rename(f / "vocab.json", f.parent / "v")
        or (f / "vocab.json").symlink_to("../v"),
        "leads out",
    ),
    "short b": (lambda f: rewrite(f, b=torch.ones(3, 1)), "the shapes must be"),
    "E2 of another rank": (lambda f: rewrite(f, E2=torch.ones(3, 3)), "the shapes must be"),
    "rank 0": (lambda f: rewrite(f, E1=torch.ones(4, 0), E2=torch.ones(0, 3)), "the shapes must be"),
    "E1 of 3 dimensions": (lambda f: rewrite(f, E1=torch.ones(4, 2, 1)), "the shapes must be"),
    "whole numbers": (lambda f: rewrite(f, E1=torch.ones(4, 2).long()), "E1 is I64"),
    "NaN": (lambda f: rewrite(f, E2=torch.full((2, 3), np.nan)), "E2 holds numbers that are not finite"),
    "infinity": (lambda f: rewrite(f, b=torch.full((4, 1), np.inf)), "b holds numbers that are not"),
    "fewer words": (vocabulary(f"{{{FOUR}}}"), "3 words, the model has 4 rows"),
    "a word twice": (vocabulary(f'{{{FOUR}, "d": 3, "a": 0}}'), "'a' more than once"),
    "a row twice": (vocabulary(f'{{{FOUR}, "d": 2}}'), "'c' and 'd' are both of row 2"),
    "a gap": (vocabulary(f'{{{FOUR}, "d": 4}}'), "'d' is of row 4; use whole numbers from 0 to 3"),
    "a negative row": (vocabulary(f'{{{FOUR}, "d": -1}}'), "whole numbers from 0 to 3"),
    "a huge row": (vocabulary(f'{{{FOUR}, "d": 1{"0" * 400}}}'), "whole numbers"),
    "too many digits": (vocabulary(f'{{{FOUR}, "d": 1{"0" * 4400}}}'), "cannot be read"),
    "a fraction": (vocabulary(f'{{{FOUR}, "d": 3.0}}'), "whole numbers"),
    "true": (vocabulary('{"x": 0, "a": true, "b": 2, "c": 3}'), "whole numbers"),
    "text": (vocabulary(f'{{{FOUR}, "d": "3"}}'), "whole numbers"),
    "a list": (vocabulary('["a", "b", "c", "d"]'), "a list, not an object"),
    "no JSON": (vocabulary("words"), "cannot be read"),
    "no UTF-8": (vocabulary(b'{"\xff": 0}'), "cannot be read"),
    "nested": (vocabulary("[" * 5000), "nested too deeply|cannot be read"),
    "long words": (vocabulary(f'{{"{"a" * 9000}": 0}}'), "longer than the 8096 bytes"),
    "a pipe": (as_pipe, "is not a file"),
    "a folder": (lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()), "is not a file"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "not an object"),
    "config is long": (lambda f: (f / "config.json").write_text(" " * 2**23), "longer than"),
    "config is nested": (lambda f: (f / "config.json").write_text('{"a":' * 10**5), "cannot be read"),
    "our section is not ours": (
        lambda f: (f / "config.json").write_text('{"flip_sklearn": "0.1"}'),
        "says no format",
    ),
    "our section vouches for nothing": (
        lambda f: (f / "config.json").write_text('{"flip_sklearn": {"format": 1}}'),
        "does not say what",
    ),
}  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize("case", STRANGE)
def test_files_of_a_stranger(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = STRANGE[case]
    folder = tmp_path / "m"
    write_foreign(folder, FactLoLM(4, 3, 2))
    FLiPExtractor.from_pretrained(folder)  # it was good before
    change(folder)
    monkeypatch.chdir(tmp_path)
    before, began = content(tmp_path), time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        FLiPExtractor.from_pretrained(folder)
    assert time.monotonic() - began < 1
    assert len(str(caught.value)) < 700
    assert content(tmp_path) == before  # nothing exploded, nothing written


def about(**changed: Any) -> Callable[[Path], Any]:
    """Our section of config.json edited; ``...`` takes an entry away."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        section = {**config["flip_sklearn"], **changed}
        config["flip_sklearn"] = {k: v for k, v in section.items() if v is not ...}
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def vouched(folder: Path) -> None:
    """config.json made to agree with the files that are there."""
    files = {name: _layout._fingerprint(folder / name) for name in _layout.HASHED_FILES}
    about(files=files)(folder)


def own(**changed: Any) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = folder / "flip_sklearn.safetensors"
        tensors = {**load_file(path), **changed}
        save_file({name: value for name, value in tensors.items() if value is not None}, path)
        vouched(folder)

    return edit


def swapped(name: str) -> Callable[[Path], Any]:
    """One file of another model with the same shapes."""

    def swap(folder: Path) -> None:
        other = fit(random_state=3, vocabulary=WORDS[::-1]).save_pretrained(folder / "other")
        os.replace(other / name, folder / name)
        shutil.rmtree(other)

    return swap


OURS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another model's vocabulary": (swapped("vocab.json"), "vocab.json .* is not the file"),
    "another model's tensors": (swapped("model.safetensors"), "model.safetensors .* is not the file"),
    "another model's mean": (swapped("flip_sklearn.safetensors"), "flip_sklearn.safetensors .* is not"),
    "another model's config": (swapped("config.json"), "is not the file that config.json was written"),
    "b edited by hand": (lambda f: rewrite(f, b=torch.ones(15, 1)), "edited, or is of another model"),
    "cut off": (lambda f: os.truncate(f / "model.safetensors", 300), "cut off"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no own file": (lambda f: (f / "flip_sklearn.safetensors").unlink(), "is missing"),
    "a later format": (about(format=2, version="1.2.0"), r"format 2, .* 'flip-sklearn>=1\.2\.0'"),
    "a strange version": (about(format=2, version="$(rm)"), "'flip-sklearn'"),
    "format 0": (about(format=0), "says no format"),
    "format true": (about(format=True), "says no format"),
    "no settings": (about(settings=...), "KeyError: 'settings'"),
    "settings are a list": (about(settings=[1]), "AttributeError"),
    "a setting is a list": (about(settings={"rank": [3]}), "setting 'rank' is a list"),
    "a device": (about(settings={"device": "cuda:9"}), "device='cuda:9' is none of"),
    "history is text": (about(history={"loss": "x"}), "'x' is no number"),
    "history is short": (about(history={}), "KeyError"),
    "passes": (about(n_iter=-1), "n_iter is -1"),
    "names": (about(feature_names_in=["x"]), "must be 8 names"),
    "one name of 8 letters": (about(feature_names_in="abcdefgh"), "must be 8 names"),
    "an encoder": (about(encoder=["x"]), "encoder is .* must be text"),
    "best pass": (about(best_iter=9), "best_iter is 9, more than"),
    "solver": (about(solver=3), "solver is 3"),
    "own shapes": (own(bias=torch.ones(14)), r"bias is F32 \(14,\); it must be F32 or F64 \(15,\)"),
    "own formats": (own(word_counts=torch.ones(15).long()), "word_counts is I64"),
    "own NaN": (own(embedding_mean=torch.full((8,), np.nan)), "not finite"),
    "own names": (own(bias=None), "must hold bias, embedding_mean"),
    "more of its own": (own(code=torch.ones(1)), "must hold bias, embedding_mean"),
}  # fmt: skip


@pytest.mark.parametrize("case", OURS)
def test_our_files_in_a_strangers_hands(tmp_path: Path, case: str, fitted: FLiPExtractor) -> None:
    change, message = OURS[case]
    fitted.save_pretrained(tmp_path)
    change(tmp_path)
    before, began = content(tmp_path), time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        FLiPExtractor.from_pretrained(tmp_path)
    assert time.monotonic() - began < 1
    assert len(str(caught.value)) < 700
    assert content(tmp_path) == before


@pytest.mark.filterwarnings("ignore:the model was written by")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_is_noticed(saved: Path, fitted: FLiPExtractor, data: st.DataObject) -> None:
    """One byte changed, or cut off anywhere, in any file."""
    folder = saved.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    path = folder / data.draw(st.sampled_from([name for name in FILES if name != "README.md"]))
    old = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(old) - 1))
    if data.draw(st.booleans()):
        new = old[:at]
    else:
        new = bytearray(old)
        new[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(new)
    try:
        model = FLiPExtractor.from_pretrained(folder)
    except ValueError:
        return
    # config.json is for people to edit: another setting or figure, but never other parameters.
    assert path.name == "config.json"
    if "E1" in load_file(folder / "model.safetensors") and model.history_["loss"]:
        assert model.word_embeddings_.tobytes() == fitted.word_embeddings_.tobytes()


def test_settings_can_be_edited_and_later_ones_are_left_out(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    about(settings={"rank": 3, "top_k": 2, "taste": "sweet"})(tmp_path)
    with pytest.warns(UserWarning, match=r"\['taste'\], which this version does not know"):
        model = FLiPExtractor.from_pretrained(tmp_path)
    assert model.top_k == 2
    assert {len(words) for words in model.extract_keywords(X[:3])} == {2}


def test_a_history_of_ragged_columns_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    history = config["flip_sklearn"]["history"]
    about(history={**history, "loss": [*history["loss"], 1.0]})(tmp_path)
    with pytest.raises(ValueError, match="not of one length"):
        FLiPExtractor.from_pretrained(tmp_path)


# --- Where a model is ------------------------------------------------------------------------


def test_a_subfolder_stays_inside(tmp_path: Path, saved: Path) -> None:
    shutil.copytree(saved, tmp_path / "root" / "in" / "side")
    shutil.copytree(saved, tmp_path / "out")
    root = tmp_path / "root"
    FLiPExtractor.from_pretrained(root, "in/side")
    FLiPExtractor.from_pretrained(root / "in", Path("side"))  # a path will do
    for bad in ("..", "../out", "in/../../out", str(tmp_path / "out"), "", ".", "in\\side", "C:x",
                "in\0", "\n", 3):  # fmt: skip
        with pytest.raises(ValueError, match=r"subfolder=.* is not allowed"):
            FLiPExtractor.from_pretrained(root, subfolder=bad)
    (root / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ValueError, match="a link that leads out"):
        FLiPExtractor.from_pretrained(root, subfolder="link")
    (root / "fine").symlink_to(root / "in")
    FLiPExtractor.from_pretrained(root, subfolder="fine/side")
    with pytest.raises(ValueError, match="has no folder 'other'"):
        FLiPExtractor.from_pretrained(root, subfolder="other")


def test_links_to_files_stay_inside_or_in_the_hubs_cache(tmp_path: Path, saved: Path) -> None:
    """Two subfolders may share a file, and the cache of the hub's client is made of links."""
    below = tmp_path / "models--us--flip" / "snapshots" / "0a" / "rank-3"
    shutil.copytree(saved, below)
    blobs = tmp_path / "models--us--flip" / "blobs"
    blobs.mkdir()
    for name in FILES:
        os.replace(below / name, blobs / name)
        (below / name).symlink_to(blobs / name)
    FLiPExtractor.from_pretrained(below)
    FLiPExtractor.from_pretrained(below.parent, "rank-3")
    shutil.copytree(saved, tmp_path / "shared" / "a")
    os.replace(tmp_path / "shared" / "a" / "vocab.json", tmp_path / "shared" / "vocab.json")
    (tmp_path / "shared" / "a" / "vocab.json").symlink_to("../vocab.json")
    FLiPExtractor.from_pretrained(tmp_path / "shared", "a")
    with pytest.raises(ValueError, match=r"vocab\.json .* leads out"):
        FLiPExtractor.from_pretrained(tmp_path / "shared" / "a")


def test_what_is_no_place_of_a_model(tmp_path: Path, saved: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(_hub, "_client", lambda: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    for bad in (None, "", 3, b"x/y"):
        with pytest.raises(ValueError, match="is no model"):
            FLiPExtractor.from_pretrained(bad)
    for bad in (
        "nowhere",
        "../x",
        "./a",
        "~/m",
        "a/b/c",
        str(tmp_path / "no"),
        Path("own/er"),
        "a b/c",
    ):
        with pytest.raises(ValueError, match="there is no folder"):
            FLiPExtractor.from_pretrained(bad)
    with pytest.raises(ValueError, match="a file; name its folder"):
        FLiPExtractor.from_pretrained(saved / "model.safetensors")
    with pytest.raises(ValueError, match="revision='main' is for repositories"):
        FLiPExtractor.from_pretrained(saved, revision="main")
    shutil.copytree(saved, tmp_path / "owner" / "name")  # a folder that is there comes first
    FLiPExtractor.from_pretrained("owner/name", token="for the hub")


def test_without_the_hubs_client_the_extra_is_named(monkeypatch: Any, fitted: Any) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[hub\]'"):
        FLiPExtractor.from_pretrained("no/where")
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[hub\]'"):
        fitted.push_to_hub("no/where")
    for bad in ("nowhere", "a/b/c", "../x", None):
        with pytest.raises(ValueError, match="use 'owner/name'"):
            fitted.push_to_hub(bad)

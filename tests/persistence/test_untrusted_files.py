"""Damaged and malicious files and paths: a clear error at once, nothing executed, nothing written."""

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
from flip_sklearn.persistence import hub
from flip_sklearn.persistence.folder import compute_digest
from flip_sklearn.persistence.format import HASHED_FILES, digest_name
from tests.helpers.stores import FILES, WORDS, FactLoLM, X, fit, write_foreign

# --- Files in the published layout -----------------------------------------------------------


def rewrite(folder: Path, **tensors: Any) -> None:
    """Replace tensors in model.safetensors; None removes one."""
    changed = {**load_file(folder / "model.safetensors"), **tensors}
    remaining = {name: value for name, value in changed.items() if value is not None}
    save_file(remaining, folder / "model.safetensors")


def vocabulary(text: str | bytes) -> Callable[[Path], Any]:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / "vocab.json").write_bytes(content)


def header(content: bytes, data: bytes = b"", n_bytes: int | None = None) -> Callable[[Path], Any]:
    """Write model.safetensors with a header, its size (``n_bytes`` if given) before it and data after it."""
    size = struct.pack("<Q", len(content) if n_bytes is None else n_bytes)
    return lambda folder: (folder / "model.safetensors").write_bytes(size + content + data)


class Bomb:
    """An object whose unpickling makes a folder."""

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


def claim_a_terabyte(folder: Path) -> None:
    """A file without content may claim any size."""
    n = 2**36
    header(
        b'{"E":{"dtype":"F32","shape":[4,%d],"data_offsets":[0,%d]},' % (n, 16 * n)
        + b'"b":{"dtype":"F32","shape":[4,1],"data_offsets":[%d,%d]}}' % (16 * n, 16 * n + 16)
    )(folder)
    size = (folder / "model.safetensors").stat().st_size
    os.truncate(folder / "model.safetensors", size + 16 * n + 16)


def terabyte_of_this_package(folder: Path) -> None:
    claim_a_terabyte(folder)
    digest = {"bytes": (folder / "model.safetensors").stat().st_size, "sha256": "0" * 64}
    files = {name: compute_digest(folder / name) for name in HASHED_FILES if name != "model.safetensors"}
    edit_metadata(files={**files, "model.safetensors": digest})(folder)


THREE_WORDS = '"a": 0, "b": 1, "c": 2'
BAD_PUBLISHED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "random bytes": (lambda f: (f / "model.safetensors").write_bytes(os.urandom(5000)), "cannot be read"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "0 bytes"),
    "a pickle": (pickled, "cannot be read"),
    "torch.save": (replace_by_torch, "cannot be read"),
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 200), "truncated"),
    "longer": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes() + b"x"),
        "cannot be read",
    ),
    "10 GB header": (header(b"{}", n_bytes=10 * 2**30), "a header of 10737418240 bytes"),
    "2^64 header": (header(b"{}", n_bytes=2**64 - 1), "at most 1048576"),
    "header of blanks": (header(b" " * 2**21), "at most 1048576"),
    "header is no JSON": (header(b"nope"), "not in safetensors format"),
    "tensors of 10 GB": (
        header(b'{"b":{"dtype":"F32","shape":[2684354560,1],"data_offsets":[0,10737418240]}}'),
        "truncated",
    ),
    "overflowing shape": (
        header(b'{"b":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}'),
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
    "half of a surrogate pair": (vocabulary(f'{{{THREE_WORDS}, "\\ud800": 3}}'), "half of a surrogate pair"),
    "a row of 10^5 lists": (vocabulary(f'{{{THREE_WORDS}, "d": {"[" * 10**5}'), "cannot be read"),
    "a terabyte": (claim_a_terabyte, "1024.0 GiB, and .* of memory are free"),
    "a large vocabulary": (lambda f: os.truncate(f / "vocab.json", 2**25), "longer than the 8096 bytes"),
    "overlapping tensors": (
        header(
            b'{"E":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},'
            b'"b":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]}}',
            bytes(16),
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
        "outside of",
    ),
    "a link out": (
        lambda f: os.rename(f / "vocab.json", f.parent / "v") or (f / "vocab.json").symlink_to("../v"),
        "outside of",
    ),
    "short b": (lambda f: rewrite(f, b=torch.ones(3, 1)), "the shapes must be"),
    "E2 of another rank": (lambda f: rewrite(f, E2=torch.ones(3, 3)), "the shapes must be"),
    "rank 0": (lambda f: rewrite(f, E1=torch.ones(4, 0), E2=torch.ones(0, 3)), "the shapes must be"),
    "E1 of 3 dimensions": (lambda f: rewrite(f, E1=torch.ones(4, 2, 1)), "the shapes must be"),
    "integers": (lambda f: rewrite(f, E1=torch.ones(4, 2).long()), "E1 is I64"),
    "NaN": (lambda f: rewrite(f, E2=torch.full((2, 3), np.nan)), "E2 holds numbers that are not finite"),
    "infinity": (lambda f: rewrite(f, b=torch.full((4, 1), np.inf)), "b holds numbers that are not"),
    "fewer words": (vocabulary(f"{{{THREE_WORDS}}}"), "3 words, the model has 4 rows"),
    "a word twice": (vocabulary(f'{{{THREE_WORDS}, "d": 3, "a": 0}}'), "'a' more than once"),
    "a row twice": (vocabulary(f'{{{THREE_WORDS}, "d": 2}}'), "'c' and 'd' both have row 2"),
    "a gap": (vocabulary(f'{{{THREE_WORDS}, "d": 4}}'), "'d' has row 4; use integers from 0 to 3"),
    "a negative row": (vocabulary(f'{{{THREE_WORDS}, "d": -1}}'), "integers from 0 to 3"),
    "a huge row": (vocabulary(f'{{{THREE_WORDS}, "d": 1{"0" * 400}}}'), "use integers"),
    "too many digits": (vocabulary(f'{{{THREE_WORDS}, "d": 1{"0" * 4400}}}'), "cannot be read"),
    "a fraction": (vocabulary(f'{{{THREE_WORDS}, "d": 3.0}}'), "use integers"),
    "true": (vocabulary('{"x": 0, "a": true, "b": 2, "c": 3}'), "use integers"),
    "text": (vocabulary(f'{{{THREE_WORDS}, "d": "3"}}'), "use integers"),
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
    "section is not an object": (
        lambda f: (f / "config.json").write_text('{"flip_sklearn": "0.1"}'),
        "has no format number",
    ),
    "section without digests": (
        lambda f: (f / "config.json").write_text('{"flip_sklearn": {"format": 1}}'),
        "lacks the digests",
    ),
}


def content(folder: Path) -> dict[str, bytes]:
    paths = list(folder.rglob("*"))
    readable = [path for path in paths if path.is_file() and path.stat().st_size < 2**30]
    return {str(path): path.read_bytes() if path in readable else b"" for path in paths}


def check_refused(folder: Path, message: str) -> None:
    """Loading fails within a second and with a message of moderate length."""
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        FLiPExtractor.from_pretrained(folder)
    assert time.monotonic() - start < 1
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("case", BAD_PUBLISHED)
def test_bad_published_model_is_refused(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = BAD_PUBLISHED[case]
    folder = tmp_path / "m"
    write_foreign(folder, FactLoLM(4, 3, 2))
    FLiPExtractor.from_pretrained(folder)  # is valid before the change
    change(folder)
    monkeypatch.chdir(tmp_path)
    before = content(tmp_path)
    check_refused(folder, message)
    assert content(tmp_path) == before  # nothing was executed or written


# --- Files of this package -------------------------------------------------------------------


def edit_metadata(**changed: Any) -> Callable[[Path], Any]:
    """Edit the package's section of config.json; ``...`` removes an entry."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        section = {**config["flip_sklearn"], **changed}
        config["flip_sklearn"] = {k: v for k, v in section.items() if v is not ...}
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def update_digests(folder: Path) -> None:
    """Make config.json agree with the files."""
    edit_metadata(files={name: compute_digest(folder / name) for name in HASHED_FILES})(folder)


def edit_extra_arrays(**changed: Any) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = folder / "flip_sklearn.safetensors"
        tensors = {**load_file(path), **changed}
        save_file({name: value for name, value in tensors.items() if value is not None}, path)
        update_digests(folder)

    return edit


def swap_file(name: str) -> Callable[[Path], Any]:
    """Replace one file by that of another model with the same shapes."""

    def swap(folder: Path) -> None:
        other = fit(random_state=3, vocabulary=WORDS[::-1]).save_pretrained(folder / "other")
        os.replace(other / name, folder / name)
        shutil.rmtree(other)

    return swap


def pipe_with_a_digest(folder: Path) -> None:
    digest = json.loads((folder / "config.json").read_text())["flip_sklearn"]["files"]["vocab.json"]
    (folder / "vocab.json").unlink()
    os.mkfifo(folder / digest_name("vocab.json", digest["sha256"]))


BAD_OWN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another model's vocabulary": (swap_file("vocab.json"), "vocab.json .* does not match its digest"),
    "another model's tensors": (swap_file("model.safetensors"), "model.safetensors .* does not match"),
    "another model's mean": (swap_file("flip_sklearn.safetensors"), "flip_sklearn.safetensors .* does not"),
    "another model's config": (swap_file("config.json"), "does not match its digest in config.json"),
    "b edited by hand": (lambda f: rewrite(f, b=torch.ones(15, 1)), "edited, or belongs to another model"),
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 300), "truncated"),
    "a terabyte": (terabyte_of_this_package, "1024.0 GiB, and .* of memory are free"),
    "no digest": (
        edit_metadata(files={name: {"bytes": 1, "sha256": "../../x"} for name in HASHED_FILES}),
        "not a size and a SHA-256",
    ),
    "a pipe under a name with a digest": (pipe_with_a_digest, "does not match its digest|is not a file"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no extra arrays": (lambda f: (f / "flip_sklearn.safetensors").unlink(), "is missing"),
    "a later format": (edit_metadata(format=2, version="1.2.0"), r"format 2, .* to version 1\.2\.0 or later"),
    "a strange version": (edit_metadata(format=2, version="$(rm)"), "update flip-sklearn[.] Down"),
    "format 0": (edit_metadata(format=0), "has no format number"),
    "format true": (edit_metadata(format=True), "has no format number"),
    "no settings": (edit_metadata(settings=...), "KeyError: 'settings'"),
    "settings are a list": (edit_metadata(settings=[1]), "AttributeError"),
    "a setting is a list": (edit_metadata(settings={"rank": [3]}), "setting 'rank' is a list"),
    "a device": (edit_metadata(settings={"device": "cuda:9"}), "device='cuda:9' is not one of"),
    "history is text": (edit_metadata(history={"loss": "x"}), "'x' is not a number"),
    "history is short": (edit_metadata(history={}), "KeyError"),
    "passes": (edit_metadata(n_iter=-1), "n_iter is -1"),
    "names": (edit_metadata(feature_names_in=["x"]), "must be a list of 8 names"),
    "one name of 8 letters": (edit_metadata(feature_names_in="abcdefgh"), "must be a list of 8 names"),
    "an encoder": (edit_metadata(encoder=["x"]), "encoder is .* must be text"),
    "best pass": (edit_metadata(best_iter=9), "best_iter is 9; it must be at most"),
    "solver": (edit_metadata(solver=3), "solver is 3"),
    "shapes of extra arrays": (
        edit_extra_arrays(bias=torch.ones(14)),
        r"bias is F32 \(14,\); it must be F32 or F64 \(15,\)",
    ),
    "formats of extra arrays": (edit_extra_arrays(word_counts=torch.ones(15).long()), "word_counts is I64"),
    "NaN in extra arrays": (edit_extra_arrays(embedding_mean=torch.full((8,), np.nan)), "not finite"),
    "a missing extra array": (
        edit_extra_arrays(bias=None),
        "must hold bias, embedding_covariance, embedding_mean",
    ),
    "an unknown extra array": (
        edit_extra_arrays(code=torch.ones(1)),
        "must hold bias, embedding_covariance, embedding_mean",
    ),
}


@pytest.mark.parametrize("case", BAD_OWN)
def test_bad_model_of_this_package_is_refused(tmp_path: Path, case: str, fitted: FLiPExtractor) -> None:
    change, message = BAD_OWN[case]
    fitted.save_pretrained(tmp_path)
    change(tmp_path)
    before = content(tmp_path)
    check_refused(tmp_path, message)
    assert content(tmp_path) == before


@pytest.mark.filterwarnings("ignore:the model was written by")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_detected(saved: Path, fitted: FLiPExtractor, data: st.DataObject) -> None:
    """One byte is changed, or a file truncated, at any position of any file."""
    folder = saved.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    path = folder / data.draw(st.sampled_from([name for name in FILES if name != "README.md"]))
    old = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(old) - 1))
    if data.draw(st.booleans()):
        new = old[:position]
    else:
        new = bytearray(old)
        new[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(new)
    try:
        model = FLiPExtractor.from_pretrained(folder)
    except ValueError:
        return
    # config.json may be edited by hand: it can change settings and figures, but never the parameters.
    assert path.name == "config.json"
    if "E1" in load_file(folder / "model.safetensors") and model.history_["loss"]:
        assert model.word_embeddings_.tobytes() == fitted.word_embeddings_.tobytes()


def test_settings_can_be_edited_and_unknown_ones_are_ignored(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    edit_metadata(settings={"rank": 3, "top_k": 2, "taste": "sweet"})(tmp_path)
    with pytest.warns(UserWarning, match=r"\['taste'\], which this version does not know") as record:
        model = FLiPExtractor.from_pretrained(tmp_path)
    assert record[0].filename == __file__
    assert model.top_k == 2
    assert {len(words) for words in model.extract_keywords(X[:3])} == {2}


def test_history_with_columns_of_different_lengths_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    history = config["flip_sklearn"]["history"]
    edit_metadata(history={**history, "loss": [*history["loss"], 1.0]})(tmp_path)
    with pytest.raises(ValueError, match="different lengths"):
        FLiPExtractor.from_pretrained(tmp_path)


# --- Paths -----------------------------------------------------------------------------------


def test_subfolder_must_be_inside(tmp_path: Path, saved: Path) -> None:
    shutil.copytree(saved, tmp_path / "root" / "in" / "side")
    shutil.copytree(saved, tmp_path / "out")
    root = tmp_path / "root"
    FLiPExtractor.from_pretrained(root, "in/side")
    FLiPExtractor.from_pretrained(root / "in", Path("side"))
    outside = ("..", "../out", "in/../../out", str(tmp_path / "out"), "in\\side", "C:x")
    for bad in (*outside, "", ".", "in\0", "\n", 3):
        with pytest.raises(ValueError, match=r"subfolder=.* is not allowed"):
            FLiPExtractor.from_pretrained(root, subfolder=bad)
    (root / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ValueError, match="a link to a place outside of"):
        FLiPExtractor.from_pretrained(root, subfolder="link")
    (root / "fine").symlink_to(root / "in")
    FLiPExtractor.from_pretrained(root, subfolder="fine/side")
    with pytest.raises(ValueError, match="has no folder 'other'"):
        FLiPExtractor.from_pretrained(root, subfolder="other")


def test_links_to_files_must_be_inside_or_in_the_cache_of_the_hub(tmp_path: Path, saved: Path) -> None:
    """Two subfolders may share a file; the cache of the hub's client consists of links."""
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
    with pytest.raises(ValueError, match=r"vocab\.json .* outside of"):
        FLiPExtractor.from_pretrained(tmp_path / "shared" / "a")


def test_places_that_hold_no_model(tmp_path: Path, saved: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub, "_client", lambda: pytest.fail("used the hub"))
    monkeypatch.chdir(tmp_path)
    for bad in (None, "", 3, b"x/y"):
        with pytest.raises(ValueError, match="is not a model"):
            FLiPExtractor.from_pretrained(bad)
    for bad in (
        "nowhere",
        "../x",
        "./a",
        "~/m",
        "~nobody/m",
        "a/b/c",
        "x" * 5000,
        tmp_path / "no",
        Path("own/er"),
        "a b/c",
    ):
        with pytest.raises(ValueError, match="there is no folder"):
            FLiPExtractor.from_pretrained(bad)
    with pytest.raises(ValueError, match="a file; pass its folder"):
        FLiPExtractor.from_pretrained(saved / "model.safetensors")
    with pytest.raises(ValueError, match="revision='main' is for repositories"):
        FLiPExtractor.from_pretrained(saved, revision="main")
    shutil.copytree(saved, tmp_path / "owner" / "name")  # an existing folder comes first
    FLiPExtractor.from_pretrained("owner/name", token="for the hub")


def test_missing_client_of_the_hub_names_the_extra(monkeypatch: Any, fitted: Any) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[hub\]"):
        FLiPExtractor.from_pretrained("no/where")
    with pytest.raises(ImportError, match=r"pip install 'flip-sklearn\[hub\]"):
        fitted.push_to_hub("no/where")
    for bad in ("nowhere", "a/b/c", "../x", None):
        with pytest.raises(ValueError, match="use 'owner/name'"):
            fitted.push_to_hub(bad)

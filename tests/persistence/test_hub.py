"""To the hub and back, with the hub's real client and a hub in this process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.persistence.folder import ENCODING_FILE
from tests.helpers.hub_server import TOKEN, Hub
from tests.helpers.processes import in_process
from tests.helpers.stores import (
    FILES,
    FactLoLM,
    facts,
    fit,
    with_hub,
    write_foreign,
)


@pytest.fixture(scope="module")
def fitted() -> FLiPExtractor:
    return fit(early_stopping=True)


@pytest.fixture(scope="module")
def saved(fitted: FLiPExtractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted.save_pretrained(tmp_path_factory.mktemp("saved") / "m")


def test_to_the_hub_and_back(tmp_path: Path, fitted: FLiPExtractor) -> None:
    second = fit(random_state=5)
    with Hub() as hub:
        there = {"model": pickle.dumps(fitted), "repo_id": "us/flip", "token": TOKEN}
        one = {"folder_or_id": "us/flip"}
        calls = [
            ("push", {**there, "trained_on": "Captions.", "encoder": "an/encoder"}),
            ("pull", one),
            ("push", {**there, "subfolder": "a[1]*/b", "license": "mit"}),
            ("pull", {**one, "subfolder": "a[1]*/b"}),
            ("push", {**there, "model": pickle.dumps(second)}),
            ("pull", one),
            ("pull", {**one, "revision": "first"}),
            ("pull", {**one, "subfolder": "not/there"}),
            ("pull", {**one, "revision": "no-such"}),
            ("pull", {"folder_or_id": "us/nothing"}),
            ("_down", {}),
            ("pull", one),
            ("pull", {"folder_or_id": "us/nothing"}),
        ]
        done = in_process(with_hub, hub.url, tmp_path / "home", calls)
        commits = hub.repositories["us/flip"]
    url, first, _, below, _, last, older, missing, revision, nothing, _, cached, offline = done
    assert url == f"{hub.url}/us/flip/commit/{1:040x}"
    assert first == below == older == facts(fitted)
    assert last == cached == facts(second)
    assert missing == ("ValueError", "'us/flip' has no folder 'not/there' with a model.")
    assert revision[0] == nothing[0] == "ValueError"
    assert "no such revision" in revision[1]
    assert "is not on the hub, or is private or gated" in nothing[1]
    assert offline[0] == "OSError"
    assert "cannot be reached" in offline[1]
    assert "download the folder elsewhere" in offline[1]
    # One commit each, with these files, and the first card stayed.
    assert len(commits) == 4
    assert sorted(commits[1]) == FILES
    assert sorted(commits[2]) == sorted([*FILES, *(f"a[1]*/b/{name}" for name in FILES)])
    card = commits[3]["README.md"].decode()
    assert commits[1]["README.md"].decode() == card
    assert 'FLiPExtractor.from_pretrained("us/flip")' in card
    assert "Captions." in card
    assert "an/encoder" in card
    assert (
        'from_pretrained("us/flip", subfolder="a[1]*/b")'
        in commits[2]["a[1]*/b/README.md"].decode()
    )
    assert "license: mit" in commits[2]["a[1]*/b/README.md"].decode()


def test_only_the_files_of_a_model_are_fetched_and_the_token_goes_no_further(
    tmp_path: Path, saved: Path, fitted: FLiPExtractor
) -> None:
    files = {path.name: path.read_bytes() for path in saved.iterdir()} | {ENCODING_FILE: b"{}"}
    other = {"code.py": b"raise SystemExit", "pytorch_model.bin": b"\x80", "sub/vocab.json": b"{}"}
    with Hub() as hub:
        hub.repositories["us/private"] = [{**files, **other}]
        hub.private.add("us/private")
        one = {"folder_or_id": "us/private"}
        hub.repositories["us/foreign"] = [
            {name: files[name] for name in ("model.safetensors", "vocab.json")}
        ]
        calls = [
            ("pull", one),
            ("pull", {**one, "token": "wrong"}),
            ("pull", {**one, "token": TOKEN}),
            ("pull", {"folder_or_id": "us/foreign"}),
            ("push", {"model": pickle.dumps(fitted), "repo_id": "us/private", "token": "wrong"}),
        ]
        done = in_process(with_hub, hub.url, tmp_path / "home", calls)
        without, wrong, right, no_config, not_ours = done
        fetched = {
            path.rsplit("/", 1)[1]
            for method, path, _ in hub.requests
            if method == "GET" and "/resolve/" in path
        }
    assert without[0] == wrong[0] == "ValueError"
    assert "pass a token" in without[1]
    assert "wrong" not in wrong[1]
    assert not_ours[0] == "ValueError"
    assert "cannot be written" in not_ours[1]
    assert len(hub.repositories["us/private"]) == 1
    assert right == facts(FLiPExtractor.from_pretrained(saved))
    assert fetched == {ENCODING_FILE, *FILES} - {"README.md"}
    assert no_config["solver_"] == "unknown"
    # Of all that the client left behind, nothing has the token.
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) > 4
    assert not any(TOKEN.encode() in path.read_bytes() for path in left)


def test_the_published_repository_by_its_name(tmp_path: Path) -> None:
    write_foreign(tmp_path / "m", FactLoLM(30, 6, 4), "_orig_mod.")
    model = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    with Hub() as hub:
        hub.repositories["BUT-FIT/FLiP-en-sonar"] = [
            {f"mcv15/{rank}/{name}": content for rank in ("rank-512", "rank-1024") for name, content
             in {**model, "train.py": b"raise SystemExit", "README.md": b""}.items()}
        ]  # fmt: skip
        one = {"folder_or_id": "BUT-FIT/FLiP-en-sonar", "subfolder": "mcv15/rank-512"}
        (found,) = in_process(with_hub, hub.url, tmp_path / "home", [("pull", one)])
        fetched = [
            path.split("/resolve/")[1].split("/", 1)[1]
            for method, path, _ in hub.requests
            if method == "GET" and "/resolve/" in path
        ]
    assert found == facts(FLiPExtractor.from_pretrained(tmp_path / "m"))
    wanted = ("config.json", "model.safetensors", "vocab.json")
    assert sorted(fetched) == [f"mcv15/rank-512/{name}" for name in wanted]

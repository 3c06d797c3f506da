"""Upload to and download from a hub in this process, with the real client."""

from __future__ import annotations

import pickle
from pathlib import Path

from flip_sklearn import FLiPExtractor
from flip_sklearn.persistence.format import ENCODING_FILE
from tests.helpers.hub_server import TOKEN, Hub
from tests.helpers.processes import in_process
from tests.helpers.stores import FILES, FactLoLM, fit, fitted_state, with_hub, write_foreign


def test_push_to_hub_and_from_pretrained(tmp_path: Path, fitted: FLiPExtractor) -> None:
    second = fit(random_state=5)
    with Hub() as hub:
        target = {"model": pickle.dumps(fitted), "repo_id": "us/flip", "token": TOKEN}
        source = {"folder_or_id": "us/flip"}
        calls = [
            ("push", {**target, "trained_on": "Captions.", "encoder": "an/encoder"}),
            ("pull", source),
            ("push", {**target, "subfolder": "a[1]*/b", "license": "mit"}),
            ("pull", {**source, "subfolder": "a[1]*/b"}),
            ("push", {**target, "model": pickle.dumps(second)}),
            ("pull", source),
            ("pull", {**source, "revision": "first"}),
            ("pull", {**source, "subfolder": "not/there"}),
            ("pull", {**source, "revision": "no-such"}),
            ("pull", {"folder_or_id": "us/nothing"}),
            ("_down", {}),
            ("pull", source),
            ("pull", {"folder_or_id": "us/nothing"}),
        ]
        results = in_process(with_hub, hub.url, tmp_path / "home", calls)
        commits = hub.repositories["us/flip"]
    url, first, _, in_subfolder, _, last, older, missing, revision, nothing, _, cached, offline = results
    assert url == f"{hub.url}/us/flip/commit/{1:040x}"
    assert first == in_subfolder == older == fitted_state(fitted)
    assert last == cached == fitted_state(second)
    assert missing == ("ValueError", "'us/flip' has no folder 'not/there' with a model.")
    assert revision[0] == nothing[0] == "ValueError"
    assert "no such revision" in revision[1]
    assert "is not on the hub, or is private or gated" in nothing[1]
    assert offline[0] == "OSError"
    assert "cannot be reached" in offline[1]
    assert "download the folder elsewhere" in offline[1]
    # Each push is one commit with these files; a card that nobody has edited is replaced.
    assert len(commits) == 4
    assert sorted(commits[1]) == FILES
    assert sorted(commits[2]) == sorted([*FILES, *(f"a[1]*/b/{name}" for name in FILES)])
    assert b"Captions." not in commits[3]["README.md"]
    card = commits[1]["README.md"].decode()
    assert 'FLiPExtractor.from_pretrained("us/flip")' in card
    assert "Captions." in card
    assert "an/encoder" in card
    assert 'from_pretrained("us/flip", subfolder="a[1]*/b")' in commits[2]["a[1]*/b/README.md"].decode()
    assert "license: mit" in commits[2]["a[1]*/b/README.md"].decode()


def test_push_keeps_an_edited_card_and_refuses_files_of_others(
    tmp_path: Path, saved: Path, fitted: FLiPExtractor
) -> None:
    model = {path.name: path.read_bytes() for path in saved.iterdir()}
    edited = {**model, "README.md": model["README.md"].replace(b"## Model", b"## Our model")}
    encoder = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"", "vocab.json": b"{}"}
    with Hub() as hub:
        hub.repositories["us/edited"] = [edited]
        hub.repositories["us/encoder"] = [encoder]
        hub.repositories["us/tokenizer"] = [{"sub/vocab.json": b"{}"}]
        push = {"model": pickle.dumps(fitted), "token": TOKEN}
        calls = [
            ("push", {**push, "repo_id": "us/edited", "license": "mit"}),
            ("push", {**push, "repo_id": "us/encoder"}),
            ("push", {**push, "repo_id": "us/tokenizer", "subfolder": "sub"}),
            ("push", {**push, "repo_id": "us/encoder", "subfolder": "flip"}),
        ]
        results = in_process(with_hub, hub.url, tmp_path / "home", calls)
    assert hub.repositories["us/edited"][-1]["README.md"] == edited["README.md"]
    assert hub.repositories["us/edited"][-1]["config.json"] != model["config.json"]
    assert results[1][0] == results[2][0] == "ValueError"
    for name in encoder:
        assert name in results[1][1]
    assert "vocab.json" in results[2][1]
    assert len(hub.repositories["us/tokenizer"]) == 1
    # A folder beside the encoder is free.
    assert len(hub.repositories["us/encoder"]) == 2
    assert hub.repositories["us/encoder"][-1]["config.json"] == encoder["config.json"]


def test_download_is_limited_to_model_files_and_token_is_not_stored(
    tmp_path: Path, saved: Path, fitted: FLiPExtractor
) -> None:
    files = {path.name: path.read_bytes() for path in saved.iterdir()} | {ENCODING_FILE: b"{}"}
    other = {"code.py": b"raise SystemExit", "pytorch_model.bin": b"\x80", "sub/vocab.json": b"{}"}
    with Hub() as hub:
        hub.repositories["us/private"] = [{**files, **other}]
        hub.private.add("us/private")
        source = {"folder_or_id": "us/private"}
        hub.repositories["us/foreign"] = [{name: files[name] for name in ("model.safetensors", "vocab.json")}]
        calls = [
            ("pull", source),
            ("pull", {**source, "token": "wrong"}),
            ("pull", {**source, "token": TOKEN}),
            ("pull", {"folder_or_id": "us/foreign"}),
            ("push", {"model": pickle.dumps(fitted), "repo_id": "us/private", "token": "wrong"}),
        ]
        results = in_process(with_hub, hub.url, tmp_path / "home", calls)
        no_token, wrong_token, right_token, no_config, push_refused = results
        fetched = {
            path.rsplit("/", 1)[1]
            for method, path, _ in hub.requests
            if method == "GET" and "/resolve/" in path
        }
    assert no_token[0] == wrong_token[0] == "ValueError"
    assert "pass a token" in no_token[1]
    assert "wrong" not in wrong_token[1]
    assert push_refused[0] == "ValueError"
    assert "cannot be written" in push_refused[1]
    assert len(hub.repositories["us/private"]) == 1
    assert right_token == fitted_state(FLiPExtractor.from_pretrained(saved))
    assert fetched == {ENCODING_FILE, *FILES} - {"README.md"}
    assert no_config["solver_"] == "unknown"
    # No file that the client has written contains the token.
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)


def test_repository_of_the_published_code(tmp_path: Path) -> None:
    write_foreign(tmp_path / "m", FactLoLM(30, 6, 4), "_orig_mod.")
    model = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    with Hub() as hub:
        files = {**model, "train.py": b"raise SystemExit", "README.md": b""}
        hub.repositories["BUT-FIT/FLiP-en-sonar"] = [
            {
                f"mcv15/{rank}/{name}": content
                for rank in ("rank-512", "rank-1024")
                for name, content in files.items()
            }
        ]
        source = {"folder_or_id": "BUT-FIT/FLiP-en-sonar", "subfolder": "mcv15/rank-512"}
        (state,) = in_process(with_hub, hub.url, tmp_path / "home", [("pull", source)])
        fetched = [
            path.split("/resolve/")[1].split("/", 1)[1]
            for method, path, _ in hub.requests
            if method == "GET" and "/resolve/" in path
        ]
    assert state == fitted_state(FLiPExtractor.from_pretrained(tmp_path / "m"))
    expected = ("config.json", "model.safetensors", "vocab.json")
    assert sorted(fetched) == [f"mcv15/rank-512/{name}" for name in expected]

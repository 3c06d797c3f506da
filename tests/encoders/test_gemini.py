"""Gemini with its real client and a local server that has the wire format of the API."""

from __future__ import annotations

import logging
import pickle
import re
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flip_sklearn.encoders import EncodingError, SentenceEncoder, gemini
from tests.helpers.gemini_server import KEY, Server, vector

TEXTS = [f"text {i}" for i in range(7)]


def unit(texts: list[str], dims: int = 768) -> np.ndarray:
    X = np.array([vector(text, dims) for text in texts])
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setattr(gemini, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(gemini, "_MAX_WAIT", 0.002)
    yield server
    server.shutdown()
    server.server_close()


def make(**parameters: Any) -> SentenceEncoder:
    return SentenceEncoder("gemini-embedding-001", **parameters)


# --- Requests --------------------------------------------------------------------------------


def test_batches_of_at_most_100_in_order(server: Server) -> None:
    texts = [f"text {i}" for i in range(230)]
    X = make().transform([*texts, "text 3"])
    assert [len(batch) for batch in server.batches] == [100, 100, 30]
    assert [text for batch in server.batches for text in batch] == texts
    np.testing.assert_allclose(X, unit([*texts, "text 3"]), atol=1e-7)
    one = server.requests[0]["requests"][0]
    assert one["outputDimensionality"] == 768
    assert "taskType" not in one
    assert server.paths[0].endswith("/models/gemini-embedding-001:batchEmbedContents")
    assert server.keys == {KEY}


def test_larger_batches_are_refused() -> None:
    """By the check of batch_size here, and by the API."""
    with pytest.raises(ValueError, match="batch_size=101"):
        make(batch_size=101).fit()


@pytest.mark.parametrize(
    "model", ["gemini-embedding-001", "models/gemini-embedding-001", "gemini-embedding-2"]
)
def test_one_content_per_text_for_every_model(server: Server, model: str) -> None:
    """For gemini-embedding-2 the client makes one content, and so one vector, of a list of str."""
    X = SentenceEncoder(model).transform(TEXTS)
    np.testing.assert_allclose(X, unit(TEXTS), atol=1e-7)


@pytest.mark.parametrize("dims", [5, 768, 3072])
def test_dimensions_and_length(server: Server, dims: int) -> None:
    X = make(truncate_dim=dims).transform(TEXTS)
    assert X.shape == (7, dims)
    assert X.dtype == np.float32
    whole = np.array([vector(text, dims) for text in TEXTS], np.float32)
    np.testing.assert_allclose(X, unit(TEXTS, dims) if dims < 3072 else whole, rtol=1e-6)


def test_task_type_is_sent_and_part_of_the_cache_key(server: Server, tmp_path: Path) -> None:
    for task in ("SEMANTIC_SIMILARITY", "CLUSTERING", None, "CLUSTERING"):
        make(prompt_name=task, cache_dir=tmp_path).transform(TEXTS)
    sent = [request["requests"][0].get("taskType") for request in server.requests]
    assert sent == ["SEMANTIC_SIMILARITY", "CLUSTERING", None]


# --- Errors and retries ----------------------------------------------------------------------


def test_rate_limits_and_server_errors_are_retried(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.plan = [429, 500, "answer", 503, "drop", 408, "answer"]
    X = make(batch_size=4).transform(TEXTS)
    np.testing.assert_allclose(X, unit(TEXTS), atol=1e-7)
    assert [len(batch) for batch in server.batches] == [4] * 3 + [3] * 4
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith("flip_sklearn")]
    assert len(warnings) == 5
    assert "429 RESOURCE_EXHAUSTED" in warnings[0]


def test_waits_increase(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import tenacity

    monkeypatch.setattr(gemini, "_FIRST_WAIT", 1.0)
    monkeypatch.setattr(gemini, "_MAX_WAIT", 60.0)
    waits: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", waits.append)
    server.plan = [429] * 8
    with pytest.raises(EncodingError, match="429 RESOURCE_EXHAUSTED"):
        make().transform(TEXTS)
    assert len(server.requests) == 8
    assert [round(wait) >= 2**i for i, wait in enumerate(waits[:6])] == [True] * 6
    assert max(waits) <= 60
    assert sum(waits) > 90


@pytest.mark.parametrize(
    ("header", "info", "wait"),
    [
        ("7", "", 7),
        ("", "39s", 39),
        ("3", "39.5s", 39.5),
        ("299", "", 299),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None, 0),
    ],
)
def test_requested_wait_is_respected(
    server: Server, monkeypatch: pytest.MonkeyPatch, header: str, info: Any, wait: float
) -> None:
    import tenacity

    waits: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", waits.append)
    server.plan = [{"header": header, "info": info}]
    np.testing.assert_allclose(make().transform(TEXTS), unit(TEXTS), atol=1e-7)
    assert len(waits) == 1
    assert wait <= waits[0] <= wait + 0.01


@pytest.mark.parametrize(("header", "info"), [("3600", ""), ("", "40000s")])
def test_requested_wait_of_hours_is_an_error(server: Server, header: str, info: str) -> None:
    server.plan = [{"header": header, "info": info}]
    with pytest.raises(EncodingError, match="429 RESOURCE_EXHAUSTED: slower"):
        make().transform(TEXTS)
    assert len(server.requests) == 1


def test_timeout_is_retried(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemini, "_TIMEOUT", 100)
    server.plan = ["slow"]
    np.testing.assert_allclose(make().transform(TEXTS), unit(TEXTS), atol=1e-7)
    assert len(server.requests) == 2


def test_error_names_the_variable_of_a_refused_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.plan = [403]
    with pytest.raises(EncodingError, match=r"403 .*environment variable MY_KEY"):
        make(api_key_env="MY_KEY").transform(TEXTS)
    assert len(server.requests) == 1


def test_permanent_errors_are_not_retried(server: Server) -> None:
    server.plan = [400]
    with pytest.raises(EncodingError, match=r"batch of 7 texts: 400 INVALID_ARGUMENT: at most 100"):
        make().transform(TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("plan", "message_pattern"),
    [
        ("short", "gemini backend returned 6 vectors for 7 texts, in batch 0"),
        ("empty", "returned 0 vectors for 7 texts"),
        ("dims", "a vector of 767 dimensions instead of 768"),
        ("hole", "a vector of 0 dimensions instead of 768"),
        (
            "nonsense",
            r"cannot be read \(ValidationError\)|a vector of 0 dimensions",
        ),  # by the client's version
        ("no json", "cannot be read"),
    ],
)
def test_invalid_answers_are_errors_and_not_stored(
    server: Server, plan: str, message_pattern: str, tmp_path: Path
) -> None:
    encoder = make(cache_dir=tmp_path)
    server.plan = [plan]
    with pytest.raises(EncodingError, match=message_pattern):
        encoder.transform(TEXTS)
    np.testing.assert_allclose(encoder.transform(TEXTS), unit(TEXTS), atol=1e-7)
    assert len(server.requests) == 2


def test_stored_batches_are_not_requested_again(server: Server, tmp_path: Path) -> None:
    encoder = make(batch_size=2, cache_dir=tmp_path)
    server.plan = ["answer", "answer", 403]
    with pytest.raises(EncodingError, match=r"403 .*cache_dir"):
        encoder.transform(TEXTS)
    server.requests.clear()
    X = encoder.set_params(batch_size=3).transform(["new", *reversed(TEXTS)])
    assert server.batches == [["new", "text 6", "text 5"], ["text 4"]]
    np.testing.assert_allclose(X, unit(["new", *reversed(TEXTS)]), atol=1e-7)
    server.requests.clear()
    encoder.transform(TEXTS)
    assert not server.requests


def test_empty_texts_are_refused_before_any_request(server: Server) -> None:
    for blank in ("", " \n"):
        with pytest.raises(ValueError, match=r"Row 7 is .*not encode empty texts"):
            make(batch_size=2).transform([*TEXTS, blank])
    assert not server.requests


# --- The key ---------------------------------------------------------------------------------


def test_key_is_read_from_the_named_variable(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(ValueError, match="variable GEMINI_API_KEY is not set"):
        make().transform(TEXTS)
    monkeypatch.setenv("GEMINI_API_KEY", "not this one")
    monkeypatch.setenv("GOOGLE_API_KEY", "nor this one")
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with caplog.at_level(logging.DEBUG):
        make(api_key_env="MY_KEY").transform(TEXTS)
    assert server.keys == {KEY}
    assert not server.plan
    assert "GOOGLE_API_KEY" not in caplog.text  # the client says that it uses that one


def test_variables_of_other_google_services_are_ignored(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By themselves these variables make the client use another service."""
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_USE_ENTERPRISE", "true")
    make().transform(TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("plan", [[], [429, 429], [400], ["nonsense"], ["no json"], [500] * 8])
def test_key_is_stored_and_shown_nowhere(
    server: Server, plan: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even if the server repeats it, as this one does in every error message."""
    encoder = make(cache_dir=tmp_path, verbose=1)
    server.plan = list(plan)
    seen = []
    with caplog.at_level(logging.DEBUG):
        if plan in ([], [429, 429]):
            encoder.transform(TEXTS)
        else:
            with pytest.raises(EncodingError) as caught:
                encoder.transform(TEXTS)
            # The error of the client, which has the key, is not chained to ours.
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
            seen += [repr(caught.value), repr(vars(caught.value))]
            # Error reporters print the local variables of a traceback, which must not contain the key.
            report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            variables = "".join(report.format())
            assert "encode_batch = " in variables
            seen += [variables]
            expected = "cannot be read|0 dimensions" if isinstance(plan[0], str) else r"you, \*\*\*, sent"
            assert re.search(expected, seen[0])
    seen += [caplog.text, repr(encoder), str(vars(encoder)), repr(encoder.get_params())]
    seen += [pickle.dumps(encoder).decode("latin1")]
    seen += [path.read_bytes().decode("latin1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in seen if KEY in text]
    assert "text 3" not in seen[-1]  # the cache does not contain the texts


def test_error_does_not_contain_an_invalid_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("secret key", "secr\u00e9t", "secret\nother"):
        monkeypatch.setenv("GEMINI_API_KEY", wrong)
        with pytest.raises(ValueError, match="GEMINI_API_KEY contains characters") as caught:
            make().transform(TEXTS)
        assert "secr" not in str(caught.value)
    assert not server.requests


def test_long_texts_are_warned_of_and_read_in_windows(server: Server) -> None:
    long = "word " * 3000
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 2048 tokens.*gemini"):
        make().transform([long, "short"])
    windows = make(chunk="mean").transform([long, "short"])
    np.testing.assert_allclose(windows[1], unit(["short"])[0], rtol=1e-6)
    sent = [text for batch in server.batches for text in batch][2:]
    assert max(map(len, sent)) <= 3 * 2048
    assert "".join(sent).replace("short", "").split() == long.split()


@pytest.mark.parametrize(
    "repeat",
    [
        lambda key: key,
        lambda key: f"{key[:5]}\n{key[5:]}",
        lambda key: f"{key[:5]}\r\n\t {key[5:]}",
        lambda key: " ".join(key),
        lambda key: key.lower(),
        lambda key: "".join(f"%{ord(c):02X}" for c in key),
        lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
        lambda key: "".join(f"&#{ord(c)};" for c in key),
        lambda key: f"{key[:5]}\\n{key[5:]}",
        lambda key: f"{key[:5]}%0A{key[5:]}",
    ],
)
def test_key_is_redacted_however_a_server_repeats_it(
    server: Server, repeat: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in a header, which the HTTP client logs at the level DEBUG."""
    server.plan = [(repeat(KEY),)]
    factory = logging.getLogRecordFactory()
    with caplog.at_level(logging.DEBUG), pytest.raises(EncodingError) as caught:
        make().transform(TEXTS)
    assert "x-your-key" in caplog.text.lower()  # the header is logged, without its value
    for text in (caplog.text, str(caught.value)):
        packed = re.sub(r"\s|\\\\?n", "", text).lower()
        assert KEY.lower() not in packed
        assert repeat(KEY) not in text
    assert "Your key *** is bad" in str(caught.value)
    assert logging.getLogRecordFactory() is factory


def test_other_log_records_stay_as_they_are_during_a_session(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    key = gemini._Key(KEY)
    with caplog.at_level(logging.DEBUG), key.kept_out_of_logs():
        logging.getLogger("other").info("%d of %s", 3, "texts")
        try:
            raise RuntimeError(f"with {KEY}")
        except RuntimeError:
            logging.getLogger("other").exception("failed")
    assert "3 of texts" in caplog.text
    assert "RuntimeError: with ***" in caplog.text

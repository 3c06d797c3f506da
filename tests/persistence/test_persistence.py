"""Stored models: restored exactly, and in the published layout for other code."""

from __future__ import annotations

import json
import pickle
import shlex
import stat
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import skops.io
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import FLiPExtractor, KeywordMapper
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.path import kkt_residual
from tests.helpers.paths import DATA, ROOT
from tests.helpers.stores import (
    FILES,
    SETTINGS,
    WORDS,
    FactLoLM,
    X,
    Y,
    fit,
    fitted_state,
    parameters,
    write_foreign,
)

FIXTURE = DATA / "pretrained-v1"


# --- Other code's models ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("rank", [4, 12, None])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_published_model_gives_the_words_of_the_published_formula(
    tmp_path: Path, rank: int | None, prefix: str, dtype: Any
) -> None:
    published = FactLoLM(300, 12, rank).to(dtype)
    words = write_foreign(tmp_path, published, prefix)
    model = FLiPExtractor.from_pretrained(tmp_path)
    s = torch.randn(40, 12, generator=torch.Generator().manual_seed(1))
    precise = published.to(torch.float64)
    for use_bias in (True, False):
        scores = precise.scores(s.double(), use_bias)
        best = scores.topk(10, dim=1).indices.tolist()
        model.set_params(use_bias=use_bias)
        assert model.extract_keywords(s.numpy()) == [[words[j] for j in row] for row in best]
        assert np.allclose(model.decision_function(s), scores, rtol=1e-5, atol=5e-5)
    assert model.word_embeddings_.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert model.get_params()["rank"] == rank
    assert model.rank_ == (rank or 12)
    assert model.interrupted_ is False
    assert clone(model).get_params()["vocabulary"] == words
    model.set_params(use_bias=True, top_k=3)
    assert KeywordMapper(model)(s.numpy()).tolist() == model.extract_keywords(s)
    model.set_params(use_bias=True, top_k=10)
    (tmp_path / "config.json").unlink()  # the published code does not read it
    assert fitted_state(FLiPExtractor.from_pretrained(tmp_path)) == fitted_state(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rank", [4, None])
def test_published_model_round_trip_is_exact(tmp_path: Path, rank: int | None, dtype: Any) -> None:
    write_foreign(tmp_path / "a", FactLoLM(30, 6, rank), "_orig_mod.", dtype)
    first = FLiPExtractor.from_pretrained(tmp_path / "a")
    second = FLiPExtractor.from_pretrained(first.save_pretrained(tmp_path / "b"))
    assert fitted_state(second) == fitted_state(first)
    assert parameters(second) == parameters(first)
    published = load_file(tmp_path / "a" / "model.safetensors")
    exported = load_file(tmp_path / "b" / "model.safetensors")
    assert sorted(exported) == sorted(name.removeprefix("_orig_mod.") for name in published)
    for name, tensor in published.items():
        other = exported[name.removeprefix("_orig_mod.")]
        assert torch.equal(other, tensor.to(other.dtype))
    # The same model if read as other code reads the export.
    (tmp_path / "b" / "config.json").write_text("{}")
    assert fitted_state(FLiPExtractor.from_pretrained(tmp_path / "b")) == fitted_state(first)


@pytest.mark.parametrize("rank", [4, None])
def test_published_model_with_one_dimensional_bias(tmp_path: Path, rank: int | None) -> None:
    write_foreign(tmp_path, FactLoLM(30, 6, rank))
    model = FLiPExtractor.from_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "b": tensors["b"].reshape(-1)}, tmp_path / "model.safetensors")
    assert fitted_state(FLiPExtractor.from_pretrained(tmp_path)) == fitted_state(model)


def test_published_model_can_be_trained_further(tmp_path: Path) -> None:
    published = FactLoLM(15, 8, 3)
    write_foreign(tmp_path, published)
    model = FLiPExtractor.from_pretrained(tmp_path).set_params(max_iter=1, random_state=0)
    before = fitted_state(model)
    with pytest.raises(ValueError, match=r"cannot continue .* warm_start"):
        model.partial_fit(X, Y)
    assert fitted_state(model) == before
    model.set_params(warm_start=True, learning_rate=1e-6).fit(X, Y)
    # With a tiny learning rate the words of Y keep the embeddings that the fit started from.
    seen = model.word_counts_ > 0
    product = model.word_embeddings_ @ model.projection_
    assert np.allclose(product[seen], (published.E1 @ published.E2)[seen], atol=1e-4)
    assert model.partial_fit(X, Y).n_iter_ == 2


# --- Models of this package ------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "FLiP": {},
    "LiP": {"rank": None},
    "held-out rows": {"early_stopping": True},
    "float64": {"precision": "float64"},
    "LiP in float64": {"rank": None, "precision": "float64"},
    "other settings": {"use_bias": False, "top_k": 3, "l1_strength": 0.3, "solver": "sampled"},
    "no seed": {"random_state": None, "vocabulary": None},
    "NumPy's numbers": {"l2_strength": np.float64(1 / 3), "rank": np.int64(2)},
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip_is_exact(tmp_path: Path, case: str) -> None:
    model = fit(**CASES[case])
    assert model.save_pretrained(tmp_path / "new" / "er") == tmp_path / "new" / "er"
    again = FLiPExtractor.from_pretrained(str(tmp_path), subfolder="new/er")
    assert fitted_state(again) == fitted_state(model)
    assert again.interrupted_ is False
    assert parameters(again) == parameters(model)
    assert again.extract_keywords(X, return_scores=True) == model.extract_keywords(X, return_scores=True)
    # The held-out rows are stored: the residual is computed over the same training rows.
    assert kkt_residual(again, X, Y) == kkt_residual(model, X, Y)


def test_round_trip_of_sparse_factors_feature_names_and_unseen_words(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    counts = Y.toarray()
    counts[:, [2, 9]] = 0
    seen = counts.sum(axis=0) > 0
    for rank in (3, None):
        model = FLiPExtractor(**{**SETTINGS, "rank": rank, "l1_strength": 1.0}).fit(frame, counts)
        model.to_sparse()
        again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path))
        assert fitted_state(again) == fitted_state(model)
        assert again.feature_names_in_.tolist() == list(frame.columns)
        keywords = again.set_params(use_bias=False).extract_keywords(frame, top_k=15)
        assert {len(words) for words in keywords} == {seen.sum()}
        # Without the package's own section, unseen words are recognized by their score.
        (tmp_path / "config.json").write_text("{}")
        stripped = FLiPExtractor.from_pretrained(tmp_path).set_params(use_bias=False)
        assert np.array_equal(stripped.word_counts_, seen)
        assert {len(words) for words in stripped.extract_keywords(X, top_k=15)} == {seen.sum()}


def test_local_settings_and_moments_are_not_stored(tmp_path: Path) -> None:
    model = fit(random_state=np.random.RandomState(0), checkpoint_dir=tmp_path / "secret place")
    model.set_params(device="cuda:1")
    model.save_pretrained(tmp_path / "m")
    assert not any(b"secret place" in path.read_bytes() for path in (tmp_path / "m").iterdir())
    again = FLiPExtractor.from_pretrained(tmp_path / "m")
    assert (again.random_state, again.checkpoint_dir, again.device) == (None, None, "auto")
    assert again._moments is None
    with pytest.raises(ValueError, match="does not store the moments of its rows"):
        again.partial_fit(X, Y)


def test_round_trip_after_set_params(tmp_path: Path) -> None:
    for rank, new_rank in ((3, None), (8, None), (None, 5)):
        model = fit(rank=rank).set_params(rank=new_rank)
        again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path))
        assert fitted_state(again) == fitted_state(model)
        assert again.rank == new_rank


def test_round_trip_of_pretrained_info(tmp_path: Path) -> None:
    model = fit()
    assert not hasattr(model, "pretrained_info_")
    info = {"encoder": "an/encoder", "trained_on": "*200* texts", "license": "mit"}
    again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path / "a", **info))
    assert again.pretrained_info_ == info
    # Stored again, the model keeps its info, also in the card; new arguments replace it.
    third = again.save_pretrained(tmp_path / "b", trained_on="more")
    assert FLiPExtractor.from_pretrained(third).pretrained_info_ == {**info, "trained_on": "more"}
    assert "license: mit" in (third / "README.md").read_text("utf8")
    # The next fit removes it. Folders of older versions and of other code have none.
    assert not hasattr(again.fit(X, Y), "pretrained_info_")
    write_foreign(tmp_path / "c", FactLoLM(4, 3, 2))
    for folder in (FIXTURE / "flip", tmp_path / "c"):
        unknown = FLiPExtractor.from_pretrained(folder).pretrained_info_
        assert unknown == dict.fromkeys(info)


def test_content_above_the_limits_of_reading_is_not_written(tmp_path: Path, fitted: FLiPExtractor) -> None:
    with pytest.raises(ValueError, match="shorter words"):
        fit(vocabulary=["x" * 20_000, *WORDS[1:]]).save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    before = fitted_state(FLiPExtractor.from_pretrained(fitted.save_pretrained(tmp_path / "m")))
    with pytest.raises(ValueError, match="shorter trained_on"):
        fitted.save_pretrained(tmp_path / "m", trained_on="x" * 2**22)
    assert fitted_state(FLiPExtractor.from_pretrained(tmp_path / "m")) == before
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES


@pytest.mark.parametrize("rank", [3, 1, None])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_exported_bias_contains_the_term_of_a_large_mean(tmp_path: Path, dtype: Any, rank: Any) -> None:
    shifted = (X + 100).astype(dtype)
    model = FLiPExtractor(**{**SETTINGS, "rank": rank}).fit(shifted, Y)
    model.save_pretrained(tmp_path)
    tensors = {n: t.double().numpy() for n, t in load_file(tmp_path / "model.safetensors").items()}
    E = tensors["E"] if rank is None else tensors["E1"] @ tensors["E2"]
    scores = shifted.astype(np.float64) @ E.T + tensors["b"][:, 0]
    assert np.abs(scores - model.decision_function(shifted)).max() < 1e-5


@pytest.mark.parametrize("rank", [3, None])
def test_other_code_reads_models_of_this_package(tmp_path: Path, rank: int | None) -> None:
    """A strict load_state_dict accepts the file; with bias the published formula gives the same scores."""
    shift = 5.0  # embeddings far from zero, so that their mean matters
    model = FLiPExtractor(**{**SETTINGS, "rank": rank}).fit(X + shift, Y)
    model.save_pretrained(tmp_path)
    other = FactLoLM(15, 8, rank)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert json.loads((tmp_path / "vocab.json").read_text("utf8")) == {
        word: row for row, word in enumerate(WORDS)
    }
    s = torch.from_numpy(X + shift)
    scores = model.decision_function(X + shift)
    # In float64 and as an absolute difference: a word that training never saw has the score -1e4.
    precise = other.to(torch.float64).scores(s.double(), True).numpy()
    assert np.abs(precise - scores).max() < 1e-5
    other.to(torch.float32)
    # Negative control: with bias_, which lacks the term of the mean, the scores differ.
    difference = other.scores(s, False).numpy() + model.bias_ - scores
    assert np.abs(difference).max() > 0.1
    # Without bias the scores differ by one vector, the same for all sentences.
    offset = other.scores(s, False).numpy() - model.set_params(use_bias=False).decision_function(s)
    assert np.ptp(offset, axis=0).max() < 1e-4
    assert np.ptp(offset, axis=1).max() > 0.1


def test_invalid_models_and_folders_are_not_written(tmp_path: Path, fitted: Any) -> None:
    with pytest.raises(NotFittedError):
        FLiPExtractor().save_pretrained(tmp_path / "m")
    for name in ("word_embeddings_", "bias_", "embedding_mean_"):
        broken = pickle.loads(pickle.dumps(fitted))
        getattr(broken, name)[-1] = np.nan
        with pytest.raises(ValueError, match="not finite"):
            broken.save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="not valid text"):
        fit(vocabulary=[*WORDS[:-1], "\ud800"]).save_pretrained(tmp_path / "m")
    for folder in (None, "", 3):
        with pytest.raises(ValueError, match="path of a folder"):
            fitted.save_pretrained(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        fitted.save_pretrained(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_have_the_usual_permissions(tmp_path: Path, fitted: Any) -> None:
    fitted.save_pretrained(tmp_path / "m")
    (tmp_path / "other").write_text("")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m").iterdir()}
    assert modes == {stat.S_IMODE((tmp_path / "other").stat().st_mode)}


# --- Format 1 --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flip", "lip"])
def test_folders_of_version_0_1_0_are_read(kind: str) -> None:
    """These folders are never written again: every later version must read them."""
    folder = FIXTURE / kind
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000
    expected = json.loads((folder / "expected.json").read_text("utf8"))
    model = FLiPExtractor.from_pretrained(folder)
    E = np.array(expected["embeddings"], dtype=np.float32)
    for use_bias in (True, False):
        expected_rows = expected["with bias" if use_bias else "without bias"]
        rows = model.set_params(use_bias=use_bias).extract_keywords(E, top_k=4, return_scores=True)
        for row, expected_row in zip(rows, expected_rows, strict=True):
            assert [word for word, _ in row] == [word for word, _ in expected_row]
            scores = [score for _, score in row]
            assert np.allclose(scores, [score for _, score in expected_row], atol=1e-5)
    assert model.word_counts_.tolist() == expected["word counts"]
    assert model.history_["loss"] == expected["loss"]
    assert (model.rank is None) == (kind == "lip")
    assert model.l2_strength == 1.5


# --- The card --------------------------------------------------------------------------------


def test_model_card(tmp_path: Path, fitted: FLiPExtractor) -> None:
    fitted.save_pretrained(
        tmp_path / "a",
        trained_on="*200* sentences {as} drawn",
        encoder="my | encoder\nof words",
        license="cc-by-4.0",
    )
    card = (tmp_path / "a" / "README.md").read_text("utf8")
    front_matter = card.split("---\n")[1]
    assert front_matter.splitlines()[:2] == ["library_name: flip-sklearn", "license: cc-by-4.0"]
    accuracy = fitted.history_["validation_accuracy"][fitted.best_iter_ - 1]
    for text in (
        "*200* sentences {as} drawn",
        "my \\| encoder of words",
        "| words | 15 |",
        "| training rows | 180 |",
        f"{accuracy:.1%} with bias",
        "E1 E2 s + b",
        "2604.18109",
        "author        = {Kesiraju, Santosh",
    ):
        assert text in card
    assert FLiPExtractor.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    lip = fit(rank=None).save_pretrained(tmp_path / "c")
    assert "`E s + b`" in (lip / "README.md").read_text("utf8")
    assert "license: unknown" in (lip / "README.md").read_text("utf8")
    assert "held-out" not in (lip / "README.md").read_text("utf8")
    for bad in ({"license": "mit\ntags: x"}, {"license": 3}, {"trained_on": 3}, {"encoder": b"x"}):
        with pytest.raises(ValueError, match="is not allowed"):
            fitted.save_pretrained(tmp_path / "d", **bad)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("rank", [3, None])
def test_front_matter_of_the_card_is_valid_and_its_code_runs(tmp_path: Path, rank: int | None) -> None:
    model = fit(rank=rank, early_stopping=True)
    hostile = {"trained_on": "a\n---\nlicense: evil", "encoder": "an/encoder"}
    folder = model.save_pretrained(tmp_path / "m", **hostile)
    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict() == {
        "library_name": "flip-sklearn",
        "license": "unknown",
        "base_model": "an/encoder",
        "tags": ["flip", "interpretability", "keyword-extraction", "sentence-embeddings"],
    }
    code = card.content.split("```python\n")[1].split("```")[0]
    assert "the/path/of/this/folder" in code
    names: dict[str, Any] = {"embeddings": X[:2]}
    exec(code.replace("the/path/of/this/folder", folder.as_posix()), names)
    assert names["flip"].extract_keywords(X[:2]) == model.extract_keywords(X[:2])


@pytest.mark.parametrize("license", ["no", "NO", "off", "1.0", "null", "1e3", "mit", "cc-by-4.0"])
def test_license_in_the_front_matter_is_text(tmp_path: Path, fitted: FLiPExtractor, license: str) -> None:
    folder = fitted.save_pretrained(tmp_path, license=license, encoder="team/1.0")
    data = ModelCard.load(folder / "README.md").data
    assert (data.license, data.base_model) == (license, "team/1.0")


@pytest.mark.parametrize(
    ("encoder", "cell"),
    [
        ("a | b\nc", r"a \| b c"),
        ("ends with \\", "ends with \\\\"),
        ("a\\|b", r"a\\\|b"),
        ("<!-- hidden", r"\<!-- hidden"),
        ("`code", r"\`code"),
        ("word " * 2000 + "end", "word " * 2000 + "end"),
        ("[link](http://x)", r"\[link\](http://x)"),
    ],
)
def test_cells_of_the_card_are_escaped(
    tmp_path: Path, fitted: FLiPExtractor, encoder: str, cell: str
) -> None:
    card = (fitted.save_pretrained(tmp_path, encoder=encoder) / "README.md").read_text("utf8")
    assert f"| encoder | {cell} |\n" in card


@pytest.mark.parametrize(
    "path",
    [
        *("/srv/secret/LaBSE", "~/secret/LaBSE/", "./secret/LaBSE", "..\\secret\\LaBSE"),
        *("C:\\secret\\LaBSE", "file:///srv/secret/LaBSE", "secret/LaBSE"),
    ],
)
def test_no_path_of_an_encoder_is_stored(
    tmp_path: Path, fitted: FLiPExtractor, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret" / "LaBSE").mkdir(parents=True)
    folder = fitted.save_pretrained(tmp_path / "m", encoder=path)
    assert not any(b"secret" in file.read_bytes() for file in folder.iterdir())
    info = FLiPExtractor.from_pretrained(folder).pretrained_info_
    assert info["encoder"] == "LaBSE (a local folder)"
    card = ModelCard.load(folder / "README.md")
    assert "base_model" not in card.data.to_dict()
    assert "--embeddings embeddings.npy" in card.content


def test_command_line_example_of_the_card(tmp_path: Path, fitted: FLiPExtractor) -> None:
    card = (fitted.save_pretrained(tmp_path, encoder="team/LaBSE") / "README.md").read_text("utf8")
    code = card.split("```bash\n")[1].split("```")[0]
    assert shlex.split(code) == [
        *("flip-sklearn", "keywords", "--model", "the/path/of/this/folder"),
        *("--encoder", "team/LaBSE", "--text", "sentences.txt"),
    ]


def test_card_is_replaced_until_it_is_edited(tmp_path: Path, fitted: FLiPExtractor) -> None:
    card = tmp_path / "README.md"
    fitted.save_pretrained(tmp_path, license="mit", encoder="an/encoder")
    again = FLiPExtractor.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path, license="apache-2.0", trained_on="News.")
    text = card.read_text("utf8")
    assert "license: apache-2.0" in text
    assert "an/encoder" in text
    assert "News." in text
    card.write_bytes(text.replace("\n", "\r\n").encode())  # as git may write it
    fitted.save_pretrained(tmp_path, license="mit")
    assert "license: mit" in card.read_text("utf8")
    for edited in (card.read_text("utf8") + "More.\n", card.read_text("utf8").replace("FLiP", "Our"), ""):
        card.write_text(edited, "utf8")
        fitted.save_pretrained(tmp_path, license="apache-2.0")
        assert card.read_text("utf8") == edited


def test_existing_card_and_other_files_are_kept(tmp_path: Path, fitted: FLiPExtractor) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes").write_text("mine")
    fitted.save_pretrained(tmp_path)
    fitted.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == (tmp_path / "notes").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [*FILES[:4], "notes", FILES[4]]


# --- joblib and skops ------------------------------------------------------------------------


def round_trip(value: Any, library: str, path: Path) -> tuple[Any, set[str]]:
    """Write and load an object; return it and the types that skops does not trust by default."""
    if library == "joblib":
        joblib.dump(value, path)
        return joblib.load(path), set()
    skops.io.dump(value, path)
    untrusted = skops.io.get_untrusted_types(file=path)
    return skops.io.load(path, trusted=untrusted), set(untrusted)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("library", ["joblib", "skops"])
def test_pipelines_in_joblib_and_skops(tmp_path: Path, library: str, sparse: bool) -> None:
    labels = (Y.toarray()[:, 0] > 0).astype(int)
    # A pipeline passes one target to all of its steps, so the extractor is fitted separately.
    flip = fit(early_stopping=True)
    pipeline = make_pipeline(StandardScaler(), FLiPExtractor(**SETTINGS), LogisticRegression())
    scaler = pipeline[0].fit(X)
    pipeline[1].fit(scaler.transform(X), Y)
    if sparse:
        pipeline[1].to_sparse()
        flip.to_sparse()
    pipeline[2].fit(pipeline[:2].transform(X), labels)
    for model, method in ((pipeline, "predict_proba"), (flip, "predict")):
        again, untrusted = round_trip(model, library, tmp_path / "m")
        assert untrusted <= {
            "flip_sklearn.extractor.FLiPExtractor",
            "flip_sklearn.backend.fit.whitening.Moments",
            "scipy.sparse._csr.csr_array",
        }
        before, after = getattr(model, method)(X), getattr(again, method)(X)
        assert np.array_equal(*(a.toarray() if sp.issparse(a) else a for a in (before, after)))
    assert fitted_state(again) == fitted_state(flip)
    assert pickle.dumps(again)
    again.partial_fit(X, Y)  # unlike save_pretrained, these files keep the moments


@pytest.mark.parametrize("library", ["joblib", "skops"])
def test_pipelines_of_texts_in_joblib_and_skops(library: str, tmp_path: Path) -> None:
    """The models page names all types that skops has to trust."""
    page = (ROOT / "docs" / "models.md").read_text("utf8")
    flip = fit(vocabulary=None)
    classifier = LogisticRegression().fit(flip.transform(X), np.arange(len(X)) % 2)
    pipeline = Pipeline([("encode", SentenceEncoder(model="a/b")), ("flip", flip), ("classify", classifier)])
    texts = ["a red dog", "a green cat"]
    stored_objects = {"model": pipeline, "vectorizer": CountVectorizer().fit(texts)}
    again, untrusted = round_trip(stored_objects, library, tmp_path / "m")
    assert len(untrusted) == (3 if library == "skops" else 0)
    assert all(f'"{name}"' in page for name in untrusted)
    assert again["model"][0].get_params() == pipeline[0].get_params()
    assert np.array_equal(again["model"][1:].predict_proba(X), pipeline[1:].predict_proba(X))
    counts = again["vectorizer"].transform(texts).toarray()
    assert np.array_equal(counts, stored_objects["vectorizer"].transform(texts).toarray())

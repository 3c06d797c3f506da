"""Stored models: exact for us, the published layout for others."""

from __future__ import annotations

import doctest
import json
import pickle
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
    facts,
    fit,
    parameters,
    write_foreign,
)

FIXTURE = DATA / "pretrained-v1"


@pytest.fixture(scope="module")
def fitted() -> FLiPExtractor:
    return fit(early_stopping=True)


# --- Other code's models ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("rank", [4, 12, None])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_published_model_gives_the_words_of_the_plain_formula(
    tmp_path: Path, rank: int | None, prefix: str, dtype: Any
) -> None:
    plain = FactLoLM(300, 12, rank).to(dtype)
    words = write_foreign(tmp_path, plain, prefix)
    model = FLiPExtractor.from_pretrained(tmp_path)
    s = torch.randn(40, 12, generator=torch.Generator().manual_seed(1))
    precise = plain.to(torch.float64)
    for use_bias in (True, False):
        scores = precise.scores(s.double(), use_bias)
        best = scores.topk(10, dim=1).indices.tolist()
        model.set_params(use_bias=use_bias)
        assert model.extract_keywords(s.numpy()) == [[words[j] for j in row] for row in best]
        assert np.allclose(model.decision_function(s), scores, rtol=1e-5, atol=5e-5)
    assert model.word_embeddings_.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert model.get_params()["rank"] == rank
    assert model.rank_ == (rank or 12)
    assert clone(model).get_params()["vocabulary"] == words
    model.set_params(use_bias=True, top_k=3)
    assert KeywordMapper(model)(s.numpy()).tolist() == model.extract_keywords(s)
    model.set_params(use_bias=True, top_k=10)
    (tmp_path / "config.json").unlink()  # which the published code does not read either
    assert facts(FLiPExtractor.from_pretrained(tmp_path)) == facts(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rank", [4, None])
def test_imported_exported_imported_it_is_equal_to_the_bit(
    tmp_path: Path, rank: int | None, dtype: Any
) -> None:
    write_foreign(tmp_path / "a", FactLoLM(30, 6, rank), "_orig_mod.", dtype)
    first = FLiPExtractor.from_pretrained(tmp_path / "a")
    second = FLiPExtractor.from_pretrained(first.save_pretrained(tmp_path / "b"))
    assert facts(second) == facts(first)
    assert parameters(second) == parameters(first)
    published = load_file(tmp_path / "a" / "model.safetensors")
    exported = load_file(tmp_path / "b" / "model.safetensors")
    assert sorted(exported) == sorted(name.removeprefix("_orig_mod.") for name in published)
    for name, tensor in published.items():
        other = exported[name.removeprefix("_orig_mod.")]
        assert torch.equal(other, tensor.to(other.dtype))
    # And as other code reads our export.
    (tmp_path / "b" / "config.json").write_text("{}")
    assert facts(FLiPExtractor.from_pretrained(tmp_path / "b")) == facts(first)


@pytest.mark.parametrize("rank", [4, None])
def test_a_flat_bias_is_taken_too(tmp_path: Path, rank: int | None) -> None:
    write_foreign(tmp_path, FactLoLM(30, 6, rank))
    model = FLiPExtractor.from_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "b": tensors["b"].reshape(-1)}, tmp_path / "model.safetensors")
    assert facts(FLiPExtractor.from_pretrained(tmp_path)) == facts(model)


def test_a_published_model_can_be_trained_on(tmp_path: Path) -> None:
    plain = FactLoLM(15, 8, 3)
    write_foreign(tmp_path, plain)
    model = FLiPExtractor.from_pretrained(tmp_path).set_params(max_iter=1, random_state=0)
    before = facts(model)
    with pytest.raises(ValueError, match=r"cannot go on .* warm_start"):
        model.partial_fit(X, Y)
    assert facts(model) == before
    model.set_params(warm_start=True, learning_rate=1e-6).fit(X, Y)
    # Steps of next to nothing: what it went on from is still there, for words that Y has.
    seen = model.word_counts_ > 0
    now = model.word_embeddings_ @ model.projection_
    assert np.allclose(now[seen], (plain.E1 @ plain.E2)[seen], atol=1e-4)
    assert model.partial_fit(X, Y).n_iter_ == 2


# --- Ours ------------------------------------------------------------------------------------

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
def test_it_comes_back_to_the_bit(tmp_path: Path, case: str) -> None:
    model = fit(**CASES[case])
    assert model.save_pretrained(tmp_path / "new" / "er") == tmp_path / "new" / "er"
    again = FLiPExtractor.from_pretrained(str(tmp_path), subfolder="new/er")
    assert facts(again) == facts(model)
    assert parameters(again) == parameters(model)
    assert again.extract_keywords(X, return_scores=True) == model.extract_keywords(
        X, return_scores=True
    )
    # What early stopping held out is known: the residual is over the same rows.
    assert kkt_residual(again, X, Y) == kkt_residual(model, X, Y)


def test_sparse_names_and_unseen_words_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    counts = Y.toarray()
    counts[:, [2, 9]] = 0
    seen = counts.sum(axis=0) > 0
    for rank in (3, None):
        model = FLiPExtractor(**{**SETTINGS, "rank": rank, "l1_strength": 1.0}).fit(frame, counts)
        model.to_sparse()
        again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path))
        assert facts(again) == facts(model)
        assert again.feature_names_in_.tolist() == list(frame.columns)
        everything = again.set_params(use_bias=False).extract_keywords(frame, top_k=15)
        assert {len(words) for words in everything} == {seen.sum()}
        # Without our part, too: by their score, and without the bias.
        (tmp_path / "config.json").write_text("{}")
        stripped = FLiPExtractor.from_pretrained(tmp_path).set_params(use_bias=False)
        assert np.array_equal(stripped.word_counts_, seen)
        assert {len(words) for words in stripped.extract_keywords(X, top_k=15)} == {seen.sum()}


def test_what_belongs_to_one_machine_or_moment_is_not_stored(tmp_path: Path) -> None:
    model = fit(random_state=np.random.RandomState(0), checkpoint_dir=tmp_path / "secret place")
    model.set_params(device="cuda:1")
    model.save_pretrained(tmp_path / "m")
    assert not any(b"secret place" in path.read_bytes() for path in (tmp_path / "m").iterdir())
    again = FLiPExtractor.from_pretrained(tmp_path / "m")
    assert (again.random_state, again.checkpoint_dir, again.device) == (None, None, "auto")
    assert again._moments is None
    with pytest.raises(ValueError, match="moments of its rows are not stored"):
        again.partial_fit(X, Y)


def test_set_params_after_the_fit_loses_nothing(tmp_path: Path) -> None:
    for rank, later in ((3, None), (8, None), (None, 5)):
        model = fit(rank=rank).set_params(rank=later)
        again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path))
        assert facts(again) == facts(model)
        assert again.rank == later


def test_what_was_said_of_a_model_comes_back(tmp_path: Path) -> None:
    model = fit()
    assert not hasattr(model, "pretrained_info_")
    info = {"encoder": "an/encoder", "trained_on": "*200* texts", "license": "mit"}
    again = FLiPExtractor.from_pretrained(model.save_pretrained(tmp_path / "a", **info))
    assert again.pretrained_info_ == info
    # Stored again it is still known, in the card too; what is said anew counts.
    third = again.save_pretrained(tmp_path / "b", trained_on="more")
    assert FLiPExtractor.from_pretrained(third).pretrained_info_ == {**info, "trained_on": "more"}
    assert "license: mit" in (third / "README.md").read_text("utf8")
    # A fit of other rows ends it. Nobody said anything of older folders and other code's.
    assert not hasattr(again.fit(X, Y), "pretrained_info_")
    write_foreign(tmp_path / "c", FactLoLM(4, 3, 2))
    for folder in (FIXTURE / "flip", tmp_path / "c"):
        unknown = FLiPExtractor.from_pretrained(folder).pretrained_info_
        assert unknown == dict.fromkeys(info)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, fitted: FLiPExtractor) -> None:
    with pytest.raises(ValueError, match="shorter words"):
        fit(vocabulary=["x" * 20_000, *WORDS[1:]]).save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    before = facts(FLiPExtractor.from_pretrained(fitted.save_pretrained(tmp_path / "m")))
    with pytest.raises(ValueError, match="shorter trained_on"):
        fitted.save_pretrained(tmp_path / "m", trained_on="x" * 2**22)
    assert facts(FLiPExtractor.from_pretrained(tmp_path / "m")) == before
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES


@pytest.mark.parametrize("rank", [3, 1, None])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_exported_bias_has_absorbed_a_large_mean(tmp_path: Path, dtype: Any, rank: Any) -> None:
    far = (X + 100).astype(dtype)
    model = FLiPExtractor(**{**SETTINGS, "rank": rank}).fit(far, Y)
    model.save_pretrained(tmp_path)
    tensors = {n: t.double().numpy() for n, t in load_file(tmp_path / "model.safetensors").items()}
    E = tensors["E"] if rank is None else tensors["E1"] @ tensors["E2"]
    theirs = far.astype(np.float64) @ E.T + tensors["b"][:, 0]
    assert np.abs(theirs - model.decision_function(far)).max() < 1e-5


@pytest.mark.parametrize("rank", [3, None])
def test_other_code_reads_ours(tmp_path: Path, rank: int | None) -> None:
    """A strict load_state_dict takes the file, and the plain formula gives our scores with bias."""
    shift = 5.0  # embeddings far from zero: the mean matters
    model = FLiPExtractor(**{**SETTINGS, "rank": rank}).fit(X + shift, Y)
    model.save_pretrained(tmp_path)
    other = FactLoLM(15, 8, rank)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert json.loads((tmp_path / "vocab.json").read_text("utf8")) == {
        word: row for row, word in enumerate(WORDS)
    }
    s = torch.from_numpy(X + shift)
    ours = model.decision_function(X + shift)
    # In float64, and not relative: a word that training never saw has the score -1e4.
    precise = other.to(torch.float64).scores(s.double(), True).numpy()
    assert np.abs(precise - ours).max() < 1e-5
    other.to(torch.float32)
    # Negative control: with our b in place of the one that has absorbed the mean they differ.
    difference = other.scores(s, False).numpy() + model.bias_ - ours
    assert np.abs(difference).max() > 0.1
    # Without bias the two differ by one vector, the same for all sentences.
    apart = other.scores(s, False).numpy() - model.set_params(use_bias=False).decision_function(s)
    assert np.ptp(apart, axis=0).max() < 1e-4
    assert np.ptp(apart, axis=1).max() > 0.1


def test_a_model_that_others_could_not_read_is_not_written(tmp_path: Path, fitted: Any) -> None:
    with pytest.raises(NotFittedError):
        FLiPExtractor().save_pretrained(tmp_path / "m")
    for name in ("word_embeddings_", "bias_", "embedding_mean_"):
        broken = pickle.loads(pickle.dumps(fitted))
        getattr(broken, name)[-1] = np.nan
        with pytest.raises(ValueError, match="not finite"):
            broken.save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="no text"):
        fit(vocabulary=[*WORDS[:-1], "\ud800"]).save_pretrained(tmp_path / "m")
    for folder in (None, "", 3):
        with pytest.raises(ValueError, match="path of a folder"):
            fitted.save_pretrained(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        fitted.save_pretrained(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_are_readable_as_any_other(tmp_path: Path, fitted: Any) -> None:
    fitted.save_pretrained(tmp_path / "m")
    (tmp_path / "usual").write_text("")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m").iterdir()}
    assert modes == {stat.S_IMODE((tmp_path / "usual").stat().st_mode)}


# --- Today's format, for good ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flip", "lip"])
def test_the_first_format_still_opens(kind: str) -> None:
    """The folders are of version 0.1.0 and never written again: this must hold for all later ones."""
    folder = FIXTURE / kind
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000
    expected = json.loads((folder / "expected.json").read_text("utf8"))
    model = FLiPExtractor.from_pretrained(folder)
    E = np.array(expected["embeddings"], dtype=np.float32)
    for use_bias in (True, False):
        right = expected["with bias" if use_bias else "without bias"]
        found = model.set_params(use_bias=use_bias).extract_keywords(E, top_k=4, return_scores=True)
        for row, right_row in zip(found, right, strict=True):
            assert [word for word, _ in row] == [word for word, _ in right_row]
            scores = [score for _, score in row]
            assert np.allclose(scores, [score for _, score in right_row], atol=1e-5)
    assert model.word_counts_.tolist() == expected["word counts"]
    assert model.history_["loss"] == expected["loss"]
    assert (model.rank is None) == (kind == "lip")
    assert model.l2_strength == 1.5


# --- The card --------------------------------------------------------------------------------


def test_the_card_says_what_is_known(tmp_path: Path, fitted: FLiPExtractor) -> None:
    fitted.save_pretrained(
        tmp_path / "a",
        trained_on="*200* sentences {as} drawn",
        encoder="my | encoder\nof words",
        license="cc-by-4.0",
    )
    card = (tmp_path / "a" / "README.md").read_text("utf8")
    matter = card.split("---\n")[1]
    assert matter.splitlines()[:2] == ["library_name: flip-sklearn", "license: cc-by-4.0"]
    at = fitted.best_iter_ - 1
    for said in (
        "*200* sentences {as} drawn", "my \\| encoder of words", "| words | 15 |", "| training rows | 180 |",
        f"{fitted.history_['validation_accuracy'][at]:.1%} with bias", "E1 E2 s + b", "2604.18109",
        "author        = {Kesiraju, Santosh",
    ):  # fmt: skip
        assert said in card
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
def test_the_cards_matter_is_valid_and_its_code_runs(tmp_path: Path, rank: int | None) -> None:
    model = fit(rank=rank, early_stopping=True)
    hostile = {"trained_on": "a\n---\nlicense: evil", "encoder": "an/encoder"}
    folder = model.save_pretrained(tmp_path / "m", **hostile)
    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict() == {
        "library_name": "flip-sklearn", "license": "unknown",
        "tags": ["flip", "interpretability", "keyword-extraction", "sentence-embeddings"],
    }  # fmt: skip
    code = card.content.split("```python\n")[1].split("```")[0]
    assert "the/path/of/this/folder" in code
    names: dict[str, Any] = {"embeddings": X[:2]}
    exec(code.replace("the/path/of/this/folder", folder.as_posix()), names)
    assert names["flip"].extract_keywords(X[:2]) == model.extract_keywords(X[:2])


def test_a_persons_card_stays(tmp_path: Path, fitted: FLiPExtractor) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes").write_text("mine")
    fitted.save_pretrained(tmp_path)
    fitted.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == (tmp_path / "notes").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [*FILES[:4], "notes", FILES[4]]


def test_the_page_about_models_tells_the_truth() -> None:
    page = ROOT / "docs" / "models.md"
    assert doctest.testfile(str(page), module_relative=False) == (0, 11)


# --- Pipelines in other files ----------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("how", ["joblib", "skops"])
def test_whole_pipelines_in_joblib_and_skops(tmp_path: Path, how: str, sparse: bool) -> None:
    labels = (Y.toarray()[:, 0] > 0).astype(int)
    # A pipeline hands one target to all of its steps, so the words are fitted before.
    flip = fit(early_stopping=True)
    pipeline = make_pipeline(StandardScaler(), FLiPExtractor(**SETTINGS), LogisticRegression())
    scaler = pipeline[0].fit(X)
    pipeline[1].fit(scaler.transform(X), Y)
    if sparse:
        pipeline[1].to_sparse()
        flip.to_sparse()
    pipeline[2].fit(pipeline[:2].transform(X), labels)
    for model, verb in ((pipeline, "predict_proba"), (flip, "predict")):
        if how == "joblib":
            joblib.dump(model, tmp_path / "m")
            again = joblib.load(tmp_path / "m")
        else:
            stored = skops.io.dumps(model)
            unknown = skops.io.get_untrusted_types(data=stored)
            assert set(unknown) <= {
                "flip_sklearn.extractor.FLiPExtractor", "flip_sklearn.backend.fit.whitening.Moments",
                "scipy.sparse._csr.csr_array",
            }  # fmt: skip
            again = skops.io.loads(stored, trusted=unknown)
        before, after = getattr(model, verb)(X), getattr(again, verb)(X)
        assert np.array_equal(*(a.toarray() if sp.issparse(a) else a for a in (before, after)))
    assert facts(again) == facts(flip)
    assert pickle.dumps(again)
    again.partial_fit(X, Y)  # unlike the published layout these keep the moments


@pytest.mark.parametrize("how", ["joblib", "skops"])
def test_pipelines_that_begin_with_text(how: str, tmp_path: Path) -> None:
    """With the words' vectorizer beside them; of skops' types the page on models names all."""
    page = (ROOT / "docs" / "models.md").read_text("utf8")
    flip = fit(vocabulary=None)
    judge = LogisticRegression().fit(flip.transform(X), np.arange(len(X)) % 2)
    whole = Pipeline([("encode", SentenceEncoder(model="a/b")), ("flip", flip), ("judge", judge)])
    texts = ["a red dog", "a green cat"]
    both = {"model": whole, "words": CountVectorizer().fit(texts)}
    if how == "joblib":
        joblib.dump(both, tmp_path / "m")
        again = joblib.load(tmp_path / "m")
    else:
        stored = skops.io.dumps(both)
        unknown = skops.io.get_untrusted_types(data=stored)
        assert len(unknown) == 3
        assert all(f'"{name}"' in page for name in unknown)
        again = skops.io.loads(stored, trusted=unknown)
    assert again["model"][0].get_params() == whole[0].get_params()
    assert np.array_equal(again["model"][1:].predict_proba(X), whole[1:].predict_proba(X))
    found, right = (one["words"].transform(texts).toarray() for one in (again, both))
    assert np.array_equal(found, right)

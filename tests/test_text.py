"""TextKeywordExtractor: the same as its parts by hand, in every way that scikit-learn calls an estimator."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from packaging.version import Version
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, estimator_html_repr

from flip_sklearn import ConceptVectorizer, FLiPExtractor, SpLiCEExtractor, TextKeywordExtractor
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.parameters import number_groups
from flip_sklearn.vocabulary.defaults import normalized_texts
from tests.helpers.command_line import Corpus, make_corpus, run

WORDS = ["red", "green", "blue", "dog", "cat", "bird", "runs", "sings", "sleeps", "hill"]
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 8))
SETTINGS: dict[str, Any] = {"max_iter": 10, "random_state": 0}


def draw_texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=3, replace=False)) for _ in range(n)]


TEXTS = draw_texts(120)


def encode(texts: list[str]) -> np.ndarray:
    """The sum of the vectors of the known words."""
    return np.array(
        [sum((VECTORS[WORDS.index(w)] for w in t.split() if w in WORDS), np.zeros(8)) for t in texts]
    )


def new(**params: Any) -> TextKeywordExtractor:
    return TextKeywordExtractor(**{"encoder": encode, "extractor": FLiPExtractor(**SETTINGS), **params})


@pytest.fixture(scope="module")
def model() -> TextKeywordExtractor:
    return new().fit(TEXTS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


class Counting:
    """An encoder that counts the texts that it encodes."""

    n_encoded = 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        Counting.n_encoded += len(texts)
        return encode(texts)


# --- The same as the parts by hand -----------------------------------------------------------


def test_it_is_what_its_parts_give_by_hand(model: TextKeywordExtractor) -> None:
    vectorizer = ConceptVectorizer(bigrams=False, min_count=2, max_unigrams=6500)
    Y = vectorizer.fit_transform(TEXTS)
    X = SentenceEncoder(encode).transform(TEXTS)
    groups = number_groups(normalized_texts(TEXTS), len(TEXTS))[1]
    flip = FLiPExtractor(vocabulary=vectorizer.get_feature_names_out().tolist(), **SETTINGS)
    flip.fit(X, Y, groups=groups)
    np.testing.assert_array_equal(model.extractor_.word_embeddings_, flip.word_embeddings_)
    assert model.get_feature_names_out().tolist() == sorted(WORDS)
    assert model.score(TEXTS) == flip.score(X, Y)
    np.testing.assert_array_equal(model.transform(TEXTS).toarray(), flip.transform(X).toarray())
    assert model.extract_keywords(TEXTS, use_bias=True) == flip.extract_keywords(X)
    lift = flip.set_params(use_bias=False).extract_keywords(X, 3, return_scores=True)
    assert model.extract_keywords(TEXTS, top_k=3, return_scores=True) == lift
    assert model.score(TEXTS, use_bias=False) == flip.score(X, Y)
    assert model.extractor_.use_bias  # as it was


def test_planted_words_are_read(model: TextKeywordExtractor) -> None:
    """The vector is the sum of the words, so that the best words are those of the text; shuffled, not."""
    new_texts = draw_texts(50, seed=1)
    read = model.extract_keywords(new_texts, top_k=3)
    share = np.mean(
        [len({*words} & {*text.split()}) / 3 for words, text in zip(read, new_texts, strict=True)]
    )
    assert share > 0.9
    assert model.score(new_texts) > 0.9
    assert model.score(new_texts, embeddings=encode(new_texts[::-1])) < 0.6


def test_embeddings_in_place_of_the_encoder(model: TextKeywordExtractor) -> None:
    X = SentenceEncoder(encode).transform(TEXTS)
    given = new(encoder=None).fit(TEXTS, embeddings=X)
    np.testing.assert_array_equal(given.extractor_.word_embeddings_, model.extractor_.word_embeddings_)
    assert given.extract_keywords(embeddings=X) == model.extract_keywords(TEXTS)
    assert model.extract_keywords(TEXTS, embeddings=X) == model.extract_keywords(TEXTS)
    assert given.score(TEXTS, embeddings=X) == model.score(TEXTS)
    assert given.fit_transform(TEXTS, embeddings=X).shape == (len(TEXTS), len(WORDS))
    with pytest.raises(ValueError, match=r"has no encoder; pass the embeddings"):
        given.extract_keywords(TEXTS)


@pytest.mark.parametrize("beside", [False, True], ids=["encoded", "given"])
def test_blank_texts_and_those_of_zero_weight_are_ignored(beside: bool) -> None:
    texts = [*TEXTS, " \n", "", "zebra zebra zebra"]
    weight = np.array([1.0] * (len(texts) - 1) + [0])
    X = np.vstack([encode(TEXTS), np.full((3, 8), 1e3)])
    fitted = new().fit(texts, sample_weight=weight, embeddings=X if beside else None)
    assert "zebra" not in fitted.get_feature_names_out()
    expected = new().fit(TEXTS, embeddings=encode(TEXTS) if beside else None)
    np.testing.assert_array_equal(fitted.extractor_.word_embeddings_, expected.extractor_.word_embeddings_)
    assert len(fitted.extract_keywords(["", "red dog"])) == 2  # rows stay aligned


def test_an_encoder_with_a_state_is_fitted() -> None:
    lsa = make_pipeline(TfidfVectorizer(), TruncatedSVD(6, random_state=0))
    fitted = new(encoder=lsa).fit(TEXTS)
    assert fitted.score(TEXTS) > 0.8
    with pytest.raises(NotFittedError):
        lsa.transform(TEXTS)


def test_an_encoder_needs_no_more_than_transform(model: TextKeywordExtractor) -> None:
    assert new(encoder=SimpleNamespace(transform=encode)).fit(TEXTS).score(TEXTS) == model.score(TEXTS)


def test_words_are_encoded_by_the_encoder_of_the_texts() -> None:
    encoder = SentenceEncoder(Counting())
    extractor = FLiPExtractor(word_features=encoder, **SETTINGS)
    fitted = new(encoder=encoder, extractor=extractor).fit(TEXTS)
    np.testing.assert_array_equal(fitted.extractor_.word_features, encode(sorted(WORDS)).astype(np.float32))
    other = FLiPExtractor(word_features=SentenceEncoder(encode, normalize=True), **SETTINGS)
    assert isinstance(
        new(encoder=encoder, extractor=other).fit(TEXTS).extractor_.word_features, SentenceEncoder
    )


def test_by_probability(model: TextKeywordExtractor) -> None:
    many = draw_texts(1500, seed=2)
    calibrated = new(extractor=FLiPExtractor(**SETTINGS)).fit(many)
    rows = calibrated.extract_keywords(many[:5], min_probability=0.5, return_scores=True)
    assert all(0.5 <= p <= 1 for row in rows for _, p in row)
    assert all({word for word, _ in row} == {*text.split()} for row, text in zip(rows, many, strict=False))


# --- As scikit-learn calls it ----------------------------------------------------------------


@pytest.mark.parametrize("form", [tuple, np.array, pd.Series, pl.Series], ids=lambda form: form.__name__)
def test_forms_of_texts(model: TextKeywordExtractor, form: Any) -> None:
    assert model.extract_keywords(form(TEXTS[:9])) == model.extract_keywords(TEXTS[:9])
    assert new().fit(form(TEXTS)).score(form(TEXTS)) == model.score(TEXTS)


@pytest.mark.parametrize("form", [list, pd.Series])
def test_grid_search_over_the_rank(form: Any) -> None:
    search = GridSearchCV(new(extractor=None), {"extractor__rank": [2, 8], "extractor__max_iter": [5]}, cv=2)
    assert search.fit(form(TEXTS)).best_params_["extractor__rank"] == 8
    assert search.best_estimator_.extractor_.rank_ == 8
    assert search.score(form(TEXTS)) > 0.8


def test_parameters_of_the_default_extractor() -> None:
    estimator = TextKeywordExtractor().set_params(extractor__rank=3)
    assert estimator.extractor.rank == 3
    assert TextKeywordExtractor().extractor is None
    assert clone(estimator).extractor.rank == 3
    assert estimator.set_params(extractor=None, extractor__top_k=4).extractor.rank == "auto"
    with pytest.raises(ValueError, match="Invalid parameter 'ranks'"):
        estimator.set_params(extractor__ranks=3)


def test_a_search_encodes_each_text_once_with_a_cache(tmp_path: Path) -> None:
    encoder = SentenceEncoder(Counting(), revision="1", cache_dir=tmp_path)
    Counting.n_encoded = 0
    GridSearchCV(new(encoder=encoder), {"extractor__rank": [2, 4]}, cv=3).fit(TEXTS)
    assert Counting.n_encoded == len(set(TEXTS))


def test_a_search_with_embeddings_encodes_nothing() -> None:
    Counting.n_encoded = 0
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = new(encoder=Counting())
        estimator.set_fit_request(embeddings=True, sample_weight=True)
        estimator.set_score_request(embeddings=True, sample_weight=True)
        search = GridSearchCV(estimator, {"extractor__rank": [2, 8]}, cv=2)
        search.fit(TEXTS, embeddings=encode(TEXTS), sample_weight=np.ones(len(TEXTS)))
        assert search.score(TEXTS, embeddings=encode(TEXTS)) > 0.8
    assert Counting.n_encoded == 0
    assert search.best_estimator_.extractor_.rank_ == 8


def test_pipeline(model: TextKeywordExtractor) -> None:
    pipeline = make_pipeline(FunctionTransformer(lambda texts: [text.lower() for text in texts]), new())
    shouted = [text.upper() for text in TEXTS]
    assert pipeline.fit(shouted).score(shouted) == model.score(TEXTS)


@pytest.mark.parametrize("everywhere", [False, True])
def test_set_output_keeps_the_index(everywhere: bool) -> None:
    extractor = FLiPExtractor(sparse_output=False, **SETTINGS)
    fitted = new(extractor=extractor).fit(TEXTS)
    series = pd.Series(TEXTS[:4], index=list("abcd"))
    if everywhere:
        with sklearn.config_context(transform_output="pandas"):
            frame = fitted.transform(series)
    else:
        frame = fitted.set_output(transform="pandas").transform(series)
    if Version(sklearn.__version__) >= Version("1.8"):  # before, it took no index of a Series
        assert frame.index.tolist() == list("abcd")
    assert frame.columns.tolist() == sorted(WORDS)


def test_copies(model: TextKeywordExtractor) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert again.extract_keywords(TEXTS[:9]) == model.extract_keywords(TEXTS[:9])
    assert not hasattr(clone(model), "extractor_")
    assert "generated/flip_sklearn.TextKeywordExtractor.html" in estimator_html_repr(model)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_check(check: Any) -> None:
    check("TextKeywordExtractor", TextKeywordExtractor())


def test_a_failed_fit_changes_nothing() -> None:
    fitted = new().fit(TEXTS)
    state = dict(fitted.__dict__)
    for bad in (["", " "], ["red", None], []):
        with pytest.raises(ValueError, match=r"blank|not a text|no texts"):
            fitted.fit(bad)
    with pytest.raises(ValueError, match="max_iter"):
        fitted.set_params(extractor__max_iter=-1).fit(TEXTS)
    assert {name: value for name, value in fitted.__dict__.items() if name.endswith("_")} == {
        name: value for name, value in state.items() if name.endswith("_")
    }


# --- What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "texts", "fit_params", "message"),
    [
        ({}, "red dog", {}, r"single str; pass a list of texts"),
        ({}, pd.DataFrame({"text": TEXTS}), {}, r"pass one column of texts"),
        ({}, TEXTS, {"embeddings": np.ones((3, 8))}, r"120 texts and 3 embeddings"),
        ({}, TEXTS, {"sample_weight": np.ones(3)}, r"sample_weight"),
        ({}, TEXTS, {"sample_weight": -np.ones(120)}, r"negative; weights must be >= 0"),
        ({"encoder": None}, TEXTS, {}, r"encoder is None, so that fit needs the embeddings"),
        ({"encoder": 3}, TEXTS, {}, r"model"),
        ({"extractor": SpLiCEExtractor(np.eye(8))}, TEXTS, {}, r"(?s)extractor.*FLiPExtractor or None"),
        ({"extractor": FLiPExtractor}, TEXTS, {}, r"(?s)extractor.*FLiPExtractor or None"),
        ({"vectorizer": "count"}, TEXTS, {}, r"vectorizer.*ConceptVectorizer"),
        ({"vectorizer": CountVectorizer}, TEXTS, {}, r"vectorizer.*ConceptVectorizer"),
        ({"vectorizer": TfidfVectorizer()}, TEXTS, {}, r"not an integer; word counts"),
        ({}, TEXTS, {"embeddings": csr_array(encode(TEXTS))}, r"sparse"),
        ({}, TEXTS, {"embeddings": 3}, r"2D array"),
    ],
)
def test_bad_arguments_of_fit(
    params: dict[str, Any], texts: Any, fit_params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        new(**params).fit(texts, **fit_params)


def test_bad_arguments_of_a_fitted_model(model: TextKeywordExtractor) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "neither texts nor embeddings"),
        ({"X": "red"}, "single str"),
        ({"X": TEXTS[:2], "embeddings": np.ones((3, 8))}, "2 texts and 3 embeddings"),
        ({"X": iter(TEXTS[:2]), "embeddings": [[0.0] * 8] * 3}, "2 texts and 3 embeddings"),
        ({"X": "red dog", "embeddings": np.ones((7, 8))}, "single str"),
        ({"embeddings": np.ones((2, 5))}, "5 features"),
        ({"X": np.ones((2, 8))}, r"X holds numbers, \(2, 8\), not texts; pass embeddings by name"),
        ({"X": TEXTS[:2], "use_bias": "no"}, "use_bias"),
        ({"X": TEXTS[:2], "top_k": 0}, "top_k"),
        ({"X": TEXTS[:2], "min_probability": 2.0}, "min_probability"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            model.extract_keywords(**arguments)
    with pytest.raises(NotFittedError):
        TextKeywordExtractor().extract_keywords(["red"])


# --- Saved models, the same folder as that of the command line --------------------------------


def test_a_folder_of_the_command_line(corpus: Corpus, tmp_path: Path) -> None:
    model = TextKeywordExtractor.from_pretrained(corpus.model, encoder=False)
    _, out, _ = run("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings, "-q")
    expected = [line.split("\t") for line in out.splitlines()]
    assert model.extract_keywords(embeddings=corpus.X) == expected
    assert model.get_params()["extractor__rank"] == model.extractor_.rank
    # Words are counted as in training, and a refit keeps them.
    assert model.score(corpus.lines, embeddings=corpus.X) == pytest.approx(
        model.extractor_.score(
            corpus.X, ConceptVectorizer(vocabulary=model.get_feature_names_out()).fit_transform(corpus.lines)
        )
    )
    assert clone(model).fit(corpus.lines, embeddings=corpus.X).get_feature_names_out().tolist() == (
        model.get_feature_names_out().tolist()
    )


def test_the_command_line_reads_a_folder_of_python(corpus: Corpus, tmp_path: Path) -> None:
    model = TextKeywordExtractor(str(corpus.encoder), extractor=FLiPExtractor(**SETTINGS)).fit(corpus.lines)
    folder = model.save_pretrained(tmp_path / "m", trained_on="Animals.")
    code, out, err = run("keywords", "-m", folder, "-t", corpus.text, "-e", corpus.encoder, "-q")
    assert code == 0, err
    assert [line.split("\t") for line in out.splitlines()] == model.extract_keywords(corpus.lines)
    assert "Animals." in (folder / "README.md").read_text()
    # The path of a local encoder is not stored.
    with pytest.raises(
        ValueError, match=r"local folder 'encoder', whose path is not stored; pass it as encoder="
    ):
        TextKeywordExtractor.from_pretrained(folder)
    again = TextKeywordExtractor.from_pretrained(folder, encoder=corpus.encoder)
    assert again.extract_keywords(corpus.lines) == model.extract_keywords(corpus.lines)


def test_settings_of_the_encoder_and_of_the_vectorizer_are_stored(corpus: Corpus, tmp_path: Path) -> None:
    encoder = SentenceEncoder(str(corpus.encoder), normalize=True, truncate_dim=12)
    vectorizer = ConceptVectorizer(min_count=1, bigrams=False, token_pattern="whitespace")
    model = TextKeywordExtractor(encoder, vectorizer, FLiPExtractor(**SETTINGS)).fit(corpus.lines)
    again = TextKeywordExtractor.from_pretrained(
        model.save_pretrained(tmp_path / "m"), encoder=corpus.encoder
    )
    assert (again.encoder_.normalize, again.encoder_.truncate_dim) == (True, 12)
    assert again.vectorizer_.token_pattern == "whitespace"
    assert again.score(corpus.lines) == model.score(corpus.lines)


def test_the_card_shows_how_texts_are_read(tmp_path: Path) -> None:
    """The name of an encoder is stored in full; a folder without an encoder reads no texts."""
    fitted = new(encoder="all-MiniLM-L6-v2").fit(TEXTS, embeddings=encode(TEXTS))
    folder = fitted.save_pretrained(tmp_path / "m")
    card = (folder / "README.md").read_text("utf8")
    assert 'TextKeywordExtractor.from_pretrained("the/path/of/this/folder")' in card
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2\n" in card
    assert '"sentence-transformers/all-MiniLM-L6-v2"' in (folder / "text.json").read_text("utf8")
    given = new(encoder=None).fit(TEXTS, embeddings=encode(TEXTS))
    folder = given.save_pretrained(tmp_path / "given")
    assert "TextKeywordExtractor" not in (folder / "README.md").read_text("utf8")


def test_an_encoder_that_only_the_model_names_is_not_used(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TextKeywordExtractor(str(corpus.encoder), extractor=FLiPExtractor(**SETTINGS)).fit(corpus.lines)
    folder = model.save_pretrained(tmp_path / "m")
    content = json.loads((folder / "text.json").read_text())
    content |= {"encoder": {"model": "gemini-embedding-001"}, "encoder_is_local": False}
    (folder / "text.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"service.*trust_encoder=True.*encoder=False"):
        TextKeywordExtractor.from_pretrained(folder)
    trusted = TextKeywordExtractor.from_pretrained(folder, trust_encoder=True)
    assert trusted.encoder_.model == "gemini-embedding-001"
    assert TextKeywordExtractor.from_pretrained(folder, encoder=encode).encoder_.model is encode
    with pytest.raises(ValueError, match=r"cannot read words off.*SentenceEncoder"):
        TextKeywordExtractor.from_pretrained(folder, encoder="sentence-transformers/LaBSE")


def test_a_folder_of_the_extractor_alone(model: TextKeywordExtractor, tmp_path: Path) -> None:
    folder = model.extractor_.save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match=r"not stored with it; pass it as encoder=, or encoder=False"):
        TextKeywordExtractor.from_pretrained(folder)
    again = TextKeywordExtractor.from_pretrained(folder, encoder=encode)
    assert again.extract_keywords(TEXTS) == model.extract_keywords(TEXTS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"SentenceEncoder without a name.*extractor_\.save_pretrained"),
        ({"encoder": make_pipeline(TfidfVectorizer(), TruncatedSVD(6))}, r"Pipeline without a name"),
        ({"encoder": None, "vectorizer": CountVectorizer()}, r"CountVectorizer.*ConceptVectorizer"),
        (
            {"encoder": None, "vectorizer": ConceptVectorizer(token_pattern="[a-z]+", min_count=1)},
            r"token_pattern",
        ),
    ],
)
def test_what_a_folder_cannot_hold(params: dict[str, Any], message: str, tmp_path: Path) -> None:
    fitted = new(**params).fit(TEXTS, embeddings=encode(TEXTS))
    with pytest.raises(ValueError, match=message):
        fitted.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()

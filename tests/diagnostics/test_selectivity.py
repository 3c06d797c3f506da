"""Words that an embedding holds, and words that only their context gives away, are told apart."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from flip_sklearn import ConceptVectorizer, FLiPExtractor
from flip_sklearn.diagnostics import Selectivity, selectivity
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import SelectivityDisplay

pytestmark = pytest.mark.filterwarnings("ignore:the fit still made progress")

N_TOPICS, N_TRAIN, N_TEST, D = 4, 450, 120, 12


@dataclass
class World:
    """Sentences of three words of a topic and another word. Words named "lost..." have a code of zero."""

    texts: list[str]
    vectorizer: ConceptVectorizer
    encode: Callable[[list[str]], np.ndarray]
    X: np.ndarray
    Y: Any
    model: FLiPExtractor

    def measure(self, **options: Any) -> Selectivity:
        """Result for the test sentences, by kind of word."""
        defaults: dict[str, Any] = {
            "texts": self.texts[N_TRAIN:],
            "encoder": self.encode,
            "vectorizer": self.vectorizer,
            "by": lambda word: word[:4],
            "n_bootstrap": 200,
            "random_state": 0,
            "verbose": 0,
        }
        return selectivity(self.model, **{"X": self.X[N_TRAIN:]} | defaults | options)


def make_world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    letters = "abcdefgh"
    kinds = ("lost", "kept", "kept", "kept", "kept")
    names = [f"{kind}{letters[t]}{letters[i]}" for t in range(N_TOPICS) for i, kind in enumerate(kinds)]
    texts = []
    for _ in range(N_TRAIN + N_TEST):
        words = [*(5 * rng.integers(N_TOPICS) + rng.choice(5, 3, replace=False)), rng.integers(len(names))]
        texts.append(" ".join(names[word] for word in rng.permutation(words)).capitalize() + ".")
    vectorizer = ConceptVectorizer(vocabulary=names).fit(texts)
    code = rng.normal(size=(len(names), D)) * [[not name.startswith("lost")] for name in names]

    def encode(texts: list[str]) -> np.ndarray:
        vectors: np.ndarray = vectorizer.transform(texts) @ code
        return vectors

    X, Y = encode(texts), vectorizer.transform(texts)
    model = FLiPExtractor(vocabulary=names, random_state=0).fit(X[:N_TRAIN], Y[:N_TRAIN])
    return World(texts, vectorizer, encode, X, Y, model)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="module")
def result(world: World) -> Selectivity:
    return world.measure(X_train=world.X[:N_TRAIN], Y_train=world.Y[:N_TRAIN])


@pytest.mark.parametrize("seed", range(3))
def test_deletion_tells_held_words_from_guessed_ones(seed: int) -> None:
    """benchmarks/bench_selectivity.py does the same for 20 seeds, with the models of the context."""
    measured = make_world(seed).measure()
    kept, lost = (measured.bands.index(kind) for kind in ("kept", "lost"))
    assert measured.held is not None
    assert measured.guessed is not None
    assert measured.pair_accuracy is not None
    assert (measured.held.low[..., kept] > 0.5).all()
    # The embedding does not change when a lost word is deleted, though it is often found.
    assert (measured.recall.value[..., lost] > 0.5).all()
    np.testing.assert_array_equal(measured.held.value[..., lost], 0)
    assert not measured.held.significant[..., lost].any()
    np.testing.assert_array_equal(measured.guessed.value[..., lost], 1)
    np.testing.assert_allclose(measured.pair_accuracy.value[0, [kept, lost]], [1, 0.5], atol=0.02)


def test_context_alone_tells_them_apart_without_an_encoder(result: Selectivity) -> None:
    kept, lost = (result.bands.index(kind) for kind in ("kept", "lost"))
    assert result.context_difference is not None
    assert (result.context_difference.low[..., kept] > 0).all()
    assert (result.context_difference.low[..., lost] < 0.05).all()
    difference = result.context_difference.value
    assert (difference[..., kept] > difference[..., lost] + 0.1).all()


def test_context_of_one_word_is_that_of_an_embedding_without_it(world: World) -> None:
    """For a single word, the control is a model of embeddings that hold all words but this one."""
    word = "keptab"
    column = list(world.model.vocabulary_).index(word)
    counts = world.Y.toarray().astype(float)
    others = np.where(np.arange(counts.shape[1]) == column, 0, counts > 0) @ np.random.default_rng(1).normal(
        size=(counts.shape[1], counts.shape[1])
    )
    model = FLiPExtractor(vocabulary=list(world.model.vocabulary_), random_state=0)
    model.fit(others[:N_TRAIN], world.Y[:N_TRAIN])
    measured = selectivity(
        model, others[N_TRAIN:], world.Y[N_TRAIN:], Y_train=world.Y[:N_TRAIN], words=word, n_bootstrap=200,
        random_state=0, verbose=0,
    )  # fmt: skip
    assert measured.context_difference is not None
    assert not measured.context_difference.significant.any()
    assert measured.occurrences[-1] == np.count_nonzero(counts[N_TRAIN:, column])


def test_embeddings_of_other_texts_hold_nothing(world: World) -> None:
    """Negative control: the encoder returns the embedding of a random other text."""

    def encode_another(texts: list[str]) -> np.ndarray:
        rows = [int(hashlib.md5(text.encode()).hexdigest(), 16) % N_TRAIN for text in texts]
        return world.X[rows]

    X = encode_another(world.texts)
    shuffled = copy.copy(world)
    shuffled.model = FLiPExtractor(vocabulary=list(world.model.vocabulary_), random_state=0)
    shuffled.model.fit(X[:N_TRAIN], world.Y[:N_TRAIN])
    measured = shuffled.measure(X=X[N_TRAIN:], encoder=encode_another, confidence=0.99)
    assert measured.held is not None
    assert measured.pair_accuracy is not None
    # The intervals are those of other sentences; that of another fit on a few planted words is wider.
    assert (np.abs(measured.held.value[..., -1]) < 0.1).all()
    assert measured.pair_accuracy.low[0, -1] < 0.5 < measured.pair_accuracy.high[0, -1]


def test_recall_equals_a_loop_over_the_words(world: World, result: Selectivity) -> None:
    """Deletion, new embedding, ranking: word by word, in float64."""
    names = list(world.model.vocabulary_)
    hits = np.zeros((2, 2))
    n_words = 0
    for text in world.texts[N_TRAIN:]:
        words = sorted(set(text.lower().strip(".").split()))
        for word in words:
            without = " ".join(token for token in text.lower().strip(".").split() if token != word)
            n_words += 1
            for i, bias in enumerate((0, 1)):
                for j, edited in enumerate((text, without)):
                    x = world.encode([edited])[0] - world.model.embedding_mean_
                    z = bias * world.model.bias_ + world.model.word_embeddings_ @ (
                        world.model.projection_ @ x
                    )
                    best = np.argsort(-z, kind="stable")[: len(words)]
                    hits[1 - i, j] += names.index(word) in best
    assert result.occurrences[-1] == n_words
    assert result.recall_deleted is not None
    # Near-ties of single words may be ranked differently.
    np.testing.assert_allclose(result.recall.value[:, 0, -1], hits[:, 0] / n_words, atol=2 / n_words)
    np.testing.assert_allclose(result.recall_deleted.value[:, 0, -1], hits[:, 1] / n_words, atol=2 / n_words)


def test_recall_with_the_word_is_that_of_the_model(world: World, result: Selectivity) -> None:
    k = np.diff((world.Y[N_TRAIN:] > 0).indptr)
    weighted = world.model.score(world.X[N_TRAIN:], world.Y[N_TRAIN:], sample_weight=k)
    assert result.recall.value[0, 0, -1] == pytest.approx(weighted, abs=1e-12)


def test_bands_add_up(result: Selectivity) -> None:
    assert result.occurrences[:-1].sum() == result.occurrences[-1] == result.word_occurrences.sum()
    recall = result.recall.value
    np.testing.assert_allclose(
        (recall[..., :-1] * result.occurrences[:-1]).sum(-1), result.word_hits[:, 0].sum(-1)[:, None]
    )
    assert result.pairs is not None
    assert result.pairs[:-1].sum() == result.pairs[-1] <= 2 * N_TEST


def test_control_task(result: Selectivity) -> None:
    assert result.control_difference is not None
    assert result.recall_control is not None
    np.testing.assert_allclose(
        result.control_difference.value, result.recall.value - result.recall_control.value, atol=1e-12
    )
    # Labels of words that the embedding holds are about as easy to learn as the words.
    assert (np.abs(result.control_difference.value[..., -1]) < 0.25).all()


def test_seed_and_kind_of_input_do_not_matter(world: World, result: Selectivity) -> None:
    pandas = pytest.importorskip("pandas")
    first = world.measure()
    other = world.measure(
        X=torch.from_numpy(world.X[N_TRAIN:]),
        Y=world.Y[N_TRAIN:].toarray(),
        texts=pandas.Series(world.texts[N_TRAIN:], index=range(5, 5 + N_TEST)),
        encoder={"embeddings": SentenceEncoder(world.encode)},
    )
    third = world.measure(X=None, vectorizer=None, max_words=None)
    for measured in (other, third):
        for name in ("recall", "recall_deleted", "pair_accuracy"):
            np.testing.assert_allclose(getattr(measured, name).value, getattr(first, name).value, atol=0.02)
    np.testing.assert_array_equal(first.recall.value, result.recall.value)
    assert repr(pickle.loads(pickle.dumps(first))) == repr(first)


def test_sample_of_sentences_and_of_words(world: World) -> None:
    sample = world.measure(max_words=100)
    assert 96 < sample.occurrences[-1] <= 100
    assert (np.diff(sample.rows) > 0).all()
    np.testing.assert_array_equal(sample.rows, world.measure(max_words=100).rows)
    one = world.measure(words="keptab")
    assert one.bands == ("kept",)
    assert one.n_skipped == N_TEST - len(one.rows)
    assert one.occurrences[-1] == len(one.rows) == one.word_occurrences.sum()


def test_data_frames_and_single_words(world: World, recwarn: pytest.WarningsRecorder) -> None:
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(world.X, columns=[f"x{i}" for i in range(D)])
    names = list(world.model.vocabulary_)
    model = FLiPExtractor(vocabulary=names, random_state=0).fit(X[:N_TRAIN], world.Y[:N_TRAIN])
    named = copy.copy(world)
    named.model = model
    counts = pandas.DataFrame(world.Y[:N_TRAIN].toarray(), columns=names)
    measured = named.measure(X=X[N_TRAIN:], X_train=X[:N_TRAIN], Y_train=counts)
    np.testing.assert_array_equal(measured.recall.value, world.measure().recall.value)
    named.model = FLiPExtractor(vocabulary=names[:1], random_state=0).fit(world.X, world.Y[:, [0]])
    single = named.measure(vectorizer=ConceptVectorizer(vocabulary=names[:1]))
    assert single.pairs is not None  # no other word can replace it
    assert single.pairs[-1] == 0
    assert not [w for w in recwarn if "feature names" in str(w.message)]


def test_each_text_is_encoded_once_and_the_cache_resumes(world: World, tmp_path: Any) -> None:
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        if len(seen) > 300:
            raise RuntimeError("interrupted")
        seen.extend(texts)
        return world.encode(texts)

    encoder = SentenceEncoder(encode, cache_dir=tmp_path, revision="1", batch_size=50)
    with pytest.raises(RuntimeError, match="interrupted"):
        world.measure(encoder=encoder, max_words=300)
    first, seen[:] = list(seen), []
    repeated = SentenceEncoder(
        lambda texts: (seen.extend(texts), world.encode(texts))[1],
        cache_dir=tmp_path,
        revision="1",
        batch_size=50,
    )
    world.measure(encoder=repeated, max_words=300)
    assert len(set(first)) == len(first)
    assert len(set(seen)) == len(seen)
    assert not set(first) & set(seen)


def test_views_with_and_without_an_encoder(world: World) -> None:
    X = world.X[N_TRAIN:]
    views = {"text": X, "speech": X[::-1].copy()}
    measured = world.measure(X=views, encoder={"text": world.encode})
    assert measured.views == ("text", "speech")
    assert measured.recall_deleted is not None
    assert np.isnan(measured.recall_deleted.value[:, 1]).all()
    assert np.isfinite(measured.recall.value).all()
    assert (measured.recall.value[:, 0, -1] > measured.recall.value[:, 1, -1]).all()
    with pytest.raises(ValueError, match="mapping of views to encoders"):
        world.measure(X=views)
    with pytest.raises(ValueError, match="'other'"):
        world.measure(X=views, encoder={"other": world.encode})


def test_repeated_texts_are_one_cluster(world: World) -> None:
    """Intervals do not shrink when each sentence is passed three times."""
    once = world.measure(max_words=None)
    X, texts = np.repeat(world.X[N_TRAIN:], 3, axis=0), list(np.repeat(world.texts[N_TRAIN:], 3))
    thrice = world.measure(X=X, texts=texts, max_words=None)
    widths = [m.recall.high[0, 0, -1] - m.recall.low[0, 0, -1] for m in (once, thrice)]
    assert widths[1] > 0.8 * widths[0]


def test_tables(result: Selectivity, world: World) -> None:
    pytest.importorskip("pandas")
    frame = result.to_frame()
    assert len(frame) == 2 * (len(result.bands) + 1)
    assert frame["held"].to_numpy() == pytest.approx((frame["recall"] - frame["recall_deleted"]).to_numpy())
    assert list(frame["band"][:3]) == ["kept", "lost", "all"]
    words = result.words_to_frame()
    assert words["occurrences"].sum() == 2 * result.occurrences[-1]
    assert (words["hits"] <= words["occurrences"]).all()
    only_context = selectivity(
        world.model, world.X[N_TRAIN:], world.Y[N_TRAIN:], Y_train=world.Y[:60], words=["keptab", "lostaa"],
        n_bootstrap=20, verbose=0,
    )  # fmt: skip
    assert "recall_deleted" not in only_context.to_frame()
    assert "from context" in repr(only_context)


def test_display(result: Selectivity) -> None:
    display = SelectivityDisplay.from_result(result, ax=Figure().subplots(), use_bias=False)
    assert [len(line.get_xdata()) for line in display.line_] == [3] * 4
    for line, field in zip(
        display.line_, ("recall", "recall_deleted", "recall_context", "recall_control"), strict=True
    ):
        np.testing.assert_array_equal(line.get_xdata(), getattr(result, field).value[1, 0])
    with pytest.raises(ValueError, match="view='nothing'"):
        SelectivityDisplay.from_result(result, view="nothing")
    with pytest.raises(ValueError, match="result of selectivity"):
        SelectivityDisplay.from_result(3)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"encoder": None}, "pass texts and an encoder, or Y_train"),
    ({"encoder": 3}, "encoder is 3"),
    ({"encoder": "model"}, "pass a SentenceEncoder"),
    ({"encoder": {}}, "empty mapping"),
    ({"texts": None}, "without texts"),
    ({"texts": "a text"}, "pass a list of texts"),
    ({"texts": ["keptab"] * 7}, "numbers of rows differ: texts 7, X 120"),
    ({"texts": [None] * N_TEST}, "row 0"),
    ({"words": "kept"}, "similar words"),
    ({"words": ["keptab", "keptax"]}, "'keptax', which the model does not know; similar words: 'kept"),
    ({"by": ["noun"]}, "20 words"),
    ({"by": lambda word: None}, "none of the 120 sentences has a word to measure"),
    ({"max_words": 0}, "max_words=0"),
    ({"n_bands": 0}, "n_bands=0"),
    ({"confidence": 1}, "confidence=1"),
    ({"vectorizer": ConceptVectorizer(vocabulary=["a", "b"])}, "the vectorizer has 2 words and the model 20"),
    ({"encoder": lambda texts: np.ones((len(texts), 3))}, "returns 3 dimensions, the model reads 12"),
    ({"X": np.ones((N_TEST, 3))}, "features"),
    ({"X": np.full((N_TEST, D), np.nan)}, "NaN"),
    ({"X_train": np.ones((4, D))}, "without Y_train"),
    ({"X_train": np.ones((4, D)), "Y_train": np.ones((3, 20))}, "X_train has 4 rows and Y_train 3"),
    ({"Y_train": np.ones((3, 2))}, "column"),
    ({"Y_train": np.zeros((3, 20))}, "no word"),
    ({"groups": [1]}, "groups"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_are_named_before_the_work(world: World, options: dict[str, Any], message: str) -> None:
    n_encoded = 0

    def encode(texts: list[str]) -> np.ndarray:
        nonlocal n_encoded
        n_encoded += len(texts)
        return world.encode(texts)

    with pytest.raises(ValueError, match=message):
        world.measure(**{"encoder": encode} | options)
    assert n_encoded <= 4


def test_wrong_model_texts_and_counts(world: World) -> None:
    with pytest.raises(ValueError, match="fitted FLiPExtractor"):
        selectivity("model", world.X, world.Y, Y_train=world.Y)
    with pytest.raises(ValueError, match="Y is None"):
        selectivity(world.model, world.X, Y_train=world.Y)
    with pytest.raises(ValueError, match="X is None"):
        selectivity(world.model, None, world.Y, Y_train=world.Y)
    with pytest.raises(ValueError, match="not in their texts"):
        world.measure(Y=world.Y[:N_TEST])
    with pytest.raises(ValueError, match="can be deleted"):
        world.measure(texts=["keptab"] * N_TEST)


def test_other_embeddings_are_a_warning_with_the_cosine(world: World) -> None:
    with pytest.warns(UserWarning, match="cosine"):
        world.measure(X=world.X[:N_TEST], max_words=80)
    with pytest.warns(UserWarning, match="norms"):
        world.measure(X=3 * world.X[N_TRAIN:], max_words=80)

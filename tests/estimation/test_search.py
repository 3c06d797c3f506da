"""find_rows: float64 reference, planted truth, invariances, forms of input, process groups, bad input."""

from __future__ import annotations

import os
import pickle
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from scipy.special import expit, log_expit, logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.scoring.search import MIN_COLLECTED, BestRows, log_probability
from flip_sklearn.splice import SpLiCEExtractor
from tests.helpers.processes import Child

N_WORDS, DIM, NEVER_SEEN = 24, 10, 3
WORDS = [f"w{j}" for j in range(N_WORDS)]
DIRECTIONS = np.random.default_rng(99).normal(size=(N_WORDS, DIM))
Rows = tuple[np.ndarray, np.ndarray]


def make_rows(n: int, seed: int) -> Rows:
    """Embeddings that are linear in which words occur, with noise, and counts; word 3 never occurs."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.linspace(0.03, 0.3, N_WORDS), (n, N_WORDS))
    counts[:, NEVER_SEEN] = 0
    counts[counts.sum(axis=1) == 0, 0] = 1
    X = (counts > 0) @ DIRECTIONS + 0.2 * rng.normal(size=(n, DIM))
    return X.astype(np.float32), counts


def make_flip(**parameters: Any) -> FLiPExtractor:
    settings = dict(vocabulary=WORDS, max_iter=4, early_stopping=True, random_state=0)
    return FLiPExtractor(**{**settings, **parameters})


@pytest.fixture(scope="module")
def flip() -> FLiPExtractor:
    return make_flip().fit(*make_rows(1000, 0))


@pytest.fixture(scope="module")
def splice() -> SpLiCEExtractor:
    return SpLiCEExtractor(DIRECTIONS, vocabulary=WORDS, l1_strength=0.1).fit(make_rows(300, 0)[0])


@pytest.fixture(scope="module", params=["FLiP", "SpLiCE"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue({"FLiP": "flip", "SpLiCE": "splice"}[request.param])


@pytest.fixture(scope="module")
def test_rows() -> Rows:
    return make_rows(700, 1)


def naive_log_odds(flip: FLiPExtractor, X: np.ndarray) -> np.ndarray:
    """The formula of predict_presence, for all words at once, -inf for words that were never seen."""
    A = flip.word_embeddings_.astype(np.float64)
    h = (X.astype(np.float64) - flip.embedding_mean_) @ flip.projection_.T.astype(np.float64)
    z = np.where(flip.word_counts_ > 0, flip.bias_ + h @ A.T, -np.inf)
    log_theta = z - logsumexp(z, axis=1, keepdims=True)
    seen = flip.word_counts_ > 0
    log_length = flip.presence_length_[0] + h @ flip.presence_length_[1:]
    entropy = -(np.exp(log_theta[:, seen]) * log_theta[:, seen]).sum(axis=1)
    row = np.column_stack([log_length, entropy]) @ flip.presence_row_coef_.T
    slope = np.maximum(flip.presence_slope_ + row[:, 1:], 0.1)
    return np.asarray(flip.presence_intercept_ + slope * (log_theta + log_length[:, None]) + row[:, :1])


def naive_probability(p: np.ndarray, include: list[int], exclude: list[int], mode: str) -> np.ndarray:
    included = p[:, include].prod(axis=1) if mode == "all" else 1 - (1 - p[:, include]).prod(axis=1)
    return np.asarray(included * (1 - p[:, exclude]).prod(axis=1))


def named(columns: list[int]) -> list[str]:
    return [WORDS[j] for j in columns]


# --- What the scores are -----------------------------------------------------------------------

QUERIES = [([7], []), ([20, 11], []), ([23, 22, 5], [21]), ([9], [23, 18])]


@pytest.mark.parametrize("mode", ["all", "any"])
@pytest.mark.parametrize(("include", "exclude"), QUERIES)
def test_reference_in_float64(
    flip: FLiPExtractor, test_rows: Rows, include: list[int], exclude: list[int], mode: str
) -> None:
    X = test_rows[0].astype(np.float64)
    exact = pickle.loads(pickle.dumps(flip)).set_params(precision="float64")
    expected = naive_probability(expit(naive_log_odds(flip, X)), include, exclude, mode)
    arguments = named(include), named(exclude)
    rows, scores = exact.find_rows(X, *arguments, mode=mode, top_k=len(X), return_scores=True)
    np.testing.assert_allclose(scores, expected[rows], rtol=1e-6)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float64
    assert sorted(rows) == list(range(len(X)))
    assert (np.diff(scores) <= 0).all()
    few, few_scores = flip.find_rows(X, *arguments, mode=mode, top_k=30, return_scores=True)
    np.testing.assert_allclose(few_scores, np.sort(expected)[::-1][:30], rtol=1e-3)
    np.testing.assert_allclose(few_scores, expected[few], rtol=1e-3)


def test_one_word_is_ranked_by_predict_presence(flip: FLiPExtractor, test_rows: Rows) -> None:
    presence = flip.predict_presence(test_rows[0], top_k=N_WORDS).toarray()[:, 12]
    rows, scores = flip.find_rows(test_rows[0], "w12", top_k=50, return_scores=True)
    np.testing.assert_allclose(scores, presence[rows], rtol=1e-4)
    assert presence[rows].min() >= np.partition(presence, -50)[-50] * (1 - 1e-4)


def test_log_probability_neither_underflows_nor_saturates() -> None:
    odds = np.array([[-900.0, -901.0, 3.0], [800.0, 700.0, -800.0], [-3.0, 0.5, 900.0]])
    every = log_probability(torch.from_numpy(odds), 2, True).numpy()
    np.testing.assert_allclose(every, log_expit(odds[:, :2]).sum(1) + log_expit(-odds[:, 2]), rtol=1e-12)
    some = log_probability(torch.from_numpy(odds), 2, False).numpy()
    p = expit(odds[2, :2])
    expected = [np.logaddexp(-900, -901) - np.logaddexp(0, 3), 0.0, np.log(1 - np.prod(1 - p)) - 900]
    np.testing.assert_allclose(some, expected, rtol=1e-12, atol=1e-300)
    # One word is no different in the two modes, and order is kept where probabilities round to 1.
    np.testing.assert_array_equal(*(log_probability(torch.from_numpy(odds), 1, m) for m in (True, False)))
    assert every[1] < 0


@pytest.mark.parametrize(("include", "exclude"), QUERIES)
def test_weights_of_splice(
    splice: SpLiCEExtractor, test_rows: Rows, include: list[int], exclude: list[int]
) -> None:
    X = test_rows[0]
    w = splice.transform(X).toarray().astype(np.float64)
    absent = w[:, exclude].sum(axis=1)
    expected = {
        "all": 0.99 * w[:, include].min(axis=1) + 0.01 * w[:, include].mean(axis=1) - absent,
        "any": w[:, include].sum(axis=1) - absent,
    }
    for mode, values in expected.items():
        rows, scores = splice.find_rows(
            X, named(include), named(exclude), mode=mode, top_k=len(X), return_scores=True
        )
        np.testing.assert_allclose(scores, values[rows], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(scores, np.sort(values)[::-1], rtol=1e-6, atol=1e-9)


# --- What is found -----------------------------------------------------------------------------


def precision_of(model: Any, X: np.ndarray, occurs: np.ndarray, *query: Any, **options: Any) -> float:
    """Average precision of the ranking of all rows."""
    rows = model.find_rows(X, *query, top_k=len(X), **options)
    return float(average_precision_score(occurs[rows], -np.arange(len(rows))))


def test_planted_words_are_found(model: Any, test_rows: Rows) -> None:
    X, Y = test_rows
    has = Y > 0
    noise = np.random.default_rng(3).permutation(X)  # a negative control: rows of other texts
    a, b = 20, 23
    cases = [
        (("w20",), {}, has[:, a]),
        ((["w20", "w23"],), {}, has[:, a] & has[:, b]),
        (("w20", "w23"), {}, has[:, a] & ~has[:, b]),
        ((["w20", "w23"],), {"mode": "any"}, has[:, a] | has[:, b]),
    ]
    for query, options, occurs in cases:
        assert precision_of(model, X, occurs, *query, **options) > occurs.mean() + 0.3
        assert precision_of(model, noise, occurs, *query, **options) < occurs.mean() + 0.15


def test_excluded_word_leaves_out_its_rows(flip: FLiPExtractor, test_rows: Rows) -> None:
    X, has = test_rows[0], test_rows[1] > 0
    occurs = has[:, 20] & ~has[:, 23]
    assert precision_of(flip, X, occurs, "w20", "w23") > precision_of(flip, X, occurs, "w20") + 0.03


def test_modes_bound_the_words(flip: FLiPExtractor, test_rows: Rows) -> None:
    X = test_rows[0]

    def scores(*query: Any, **options: Any) -> np.ndarray:
        rows, values = flip.find_rows(X, *query, top_k=len(X), return_scores=True, **options)
        return np.asarray(values[np.argsort(rows)])

    one, other = scores("w20"), scores("w23")
    every, some = scores(["w20", "w23"]), scores(["w20", "w23"], mode="any")
    slack = 1 + 1e-6
    assert (every <= np.minimum(one, other) * slack).all()
    assert (some * slack >= np.maximum(one, other)).all()
    np.testing.assert_allclose(every + some, one + other, rtol=1e-5)
    np.testing.assert_allclose(scores("w20", "w23") + every, one, rtol=1e-5)
    np.testing.assert_allclose(scores(["w23", "w20", "w23"]), every, rtol=1e-6)  # a word counts once


# --- Invariances -------------------------------------------------------------------------------


def test_equal_rows_are_neighbours(model: Any, test_rows: Rows) -> None:
    X = np.repeat(test_rows[0][:40], 3, axis=0)
    rows, scores = model.find_rows(X, ["w20", "w11"], top_k=len(X), return_scores=True)
    by_row = scores[np.argsort(rows)].reshape(40, 3)
    np.testing.assert_allclose(by_row, by_row[:, [1, 2, 0]], rtol=1e-4, atol=1e-6)
    # Rounding may tell equal rows apart; where it does not, the first one comes first.
    assert (np.diff(rows)[np.diff(scores) == 0] > 0).all()


@pytest.mark.parametrize("k", [1, 7, 300, 5 * MIN_COLLECTED])
def test_best_of_a_stream(k: int) -> None:
    rng = np.random.default_rng(k)
    scores = rng.integers(0, 50, 3 * MIN_COLLECTED).astype(float)
    scores[::100] = -np.inf
    cuts = np.sort(rng.integers(0, len(scores), 20))
    best = BestRows(k)
    for first, block in zip([0, *cuts], np.split(scores, cuts), strict=True):
        best.add(int(first), block)
    rows, values = best.best()
    np.testing.assert_array_equal(rows, np.argsort(-scores, kind="stable")[:k])
    np.testing.assert_array_equal(values, scores[rows])


def test_rows_may_come_in_any_order(model: Any, test_rows: Rows) -> None:
    X = test_rows[0]
    order = np.random.default_rng(0).permutation(len(X))
    rows, scores = model.find_rows(X, "w15", top_k=20, return_scores=True)
    permuted, same = model.find_rows(X[order], "w15", top_k=20, return_scores=True)
    np.testing.assert_allclose(scores, same, rtol=1e-4)
    clear = np.flatnonzero(np.diff(scores) < -1e-3 * scores[:-1])  # what is before these is the same set
    last = clear[-1] + 1
    assert set(order[permuted[:last]]) == set(rows[:last])


def test_forms_of_input(model: Any, test_rows: Rows, tmp_path: Path) -> None:
    X = test_rows[0].astype(np.float16)
    np.save(tmp_path / "X.npy", X)
    query: dict[str, Any] = dict(include=np.array(["w20", "w22"]), exclude="w23", top_k=40)
    expected, expected_scores = model.find_rows(X, **query, return_scores=True)
    forms = {
        "memory map": np.load(tmp_path / "X.npy", mmap_mode="r"),
        "Fortran order": np.asfortranarray(X),
        "list": X.tolist(),
        "frame": pd.DataFrame(X, columns=range(DIM)),
        "column of vectors": pd.DataFrame({"id": 1, "embedding": list(X)}),
        "dict": {"embedding": X, "id": range(len(X))},
        "tensor": torch.from_numpy(X),
        "generator": (chunk for chunk in np.array_split(X, 9)),
        "data loader": torch.utils.data.DataLoader(torch.from_numpy(X), batch_size=64),
        "tables": (pd.DataFrame({"embedding": list(chunk)}) for chunk in np.array_split(X, 3)),
        "with empty chunks": iter([X[:0], X[:5], X[5:5], X[5:]]),
        "one row, and the rest": iter([X[0:1], X[1:]]),
    }
    for name, form in forms.items():
        rows, scores = model.find_rows(form, **query, return_scores=True)
        np.testing.assert_allclose(scores, expected_scores, rtol=2e-3, atol=1e-5, err_msg=name)
        assert len(set(rows) & set(expected)) >= 38, name
    assert len(model.find_rows(X[:1], "w20")) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(model.find_rows(X, **query), expected)


def test_arrow(flip: FLiPExtractor, test_rows: Rows) -> None:
    pa = pytest.importorskip("pyarrow")
    X = test_rows[0]
    table = pa.table({"id": range(len(X)), "embedding": X.tolist()})
    expected = flip.find_rows(X, "w20", top_k=5)
    np.testing.assert_array_equal(flip.find_rows(table, "w20", top_k=5), expected)
    batches = iter(table.to_batches(max_chunksize=100))
    np.testing.assert_array_equal(flip.find_rows(batches, "w20", top_k=5), expected)


def test_one_chunk_of_a_stream_is_held_at_a_time(model: Any) -> None:
    n_alive = []

    def chunks() -> Iterator[np.ndarray]:
        references: list[Any] = []
        for seed in range(6):
            chunk = make_rows(50, seed)[0]
            references.append(weakref.ref(chunk))
            yield chunk
            del chunk
            n_alive.append(sum(reference() is not None for reference in references))

    model.find_rows(chunks(), "w20")
    assert max(n_alive) <= 2


def test_copies_of_a_model_find_the_same(flip: FLiPExtractor, test_rows: Rows, tmp_path: Path) -> None:
    X = test_rows[0]
    expected = flip.find_rows(X, ["w20", "w21"], "w22")
    flip.save_pretrained(tmp_path / "model")
    copies = {
        "pickle": pickle.loads(pickle.dumps(flip)),
        "folder": FLiPExtractor.from_pretrained(tmp_path / "model"),
        "sparse": pickle.loads(pickle.dumps(flip)).to_sparse(),
        "without bias": pickle.loads(pickle.dumps(flip)).set_params(use_bias=False),
        "verbose": pickle.loads(pickle.dumps(flip)).set_params(verbose=1),
    }
    for name, copy in copies.items():
        np.testing.assert_array_equal(copy.find_rows(X, ["w20", "w21"], "w22"), expected, err_msg=name)
    with pytest.raises(NotFittedError):
        clone(flip).find_rows(X, "w20")


# --- Several processes -------------------------------------------------------------------------

# More than the rows that one process scores at a time, and few enough for a test.
MANY = make_rows(9000, 4)[0]


def search_in_a_group(rank: int, folder: str, model: Any) -> list[Any]:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        results = [
            *model.find_rows(MANY, ["w20", "w5"], return_scores=True, top_k=25),
            *model.find_rows(iter(np.array_split(MANY, 5)), "w11", "w23", return_scores=True),
            *model.find_rows(MANY[:30], "w11", top_k=100, return_scores=True),
        ]
        try:
            model.find_rows(MANY, "w20", top_k=rank + 1)
        except ValueError as error:
            results.append(str(error))
        return results
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(os.name != "posix" or not dist.is_available(), reason="no gloo")
@pytest.mark.cpu_only(reason="bits of several processes")
def test_two_processes_find_what_one_finds(tmp_path: Path, flip: FLiPExtractor) -> None:
    arguments = str(tmp_path), flip
    with Child(search_in_a_group, 0, *arguments) as first, Child(search_in_a_group, 1, *arguments) as second:
        results = first.result(), second.result()
    alone = [
        *flip.find_rows(MANY, ["w20", "w5"], return_scores=True, top_k=25),
        *flip.find_rows(iter(np.array_split(MANY, 5)), "w11", "w23", return_scores=True),
        *flip.find_rows(MANY[:30], "w11", top_k=100, return_scores=True),
    ]
    for one, other, expected in zip(*(result[:-1] for result in results), alone, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, expected, rtol=1e-6)
    for result in results:
        assert "called find_rows with different data or parameters" in result[-1]


# --- Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include": "w200"}, "include has 'w200', which the model does not know; similar words: 'w20'"),
        ({"include": "w20 w21"}, r"pass several words as a list, include=['w20', 'w21']"),
        ({"include": []}, "include=[] is empty"),
        ({"include": 3}, "include=3 is not allowed"),
        ({"include": ["w20", 3]}, "include has 3, which is not a str"),
        ({"exclude": None}, "exclude=None is not allowed"),
        ({"exclude": ["W20"]}, "exclude has 'W20', which the model does not know; similar words: 'w20'"),
        ({"exclude": ["w1", "w20"]}, "'w20' is in include and in exclude"),
        ({"mode": "some"}, "mode='some' is not allowed; use one of 'all', 'any'"),
        ({"mode": True}, "mode=True is not allowed"),
        ({"top_k": 0}, "top_k=0 is not allowed; use an integer >= 1"),
        ({"top_k": 2.0}, "top_k=2.0 is not allowed"),
        ({"return_scores": "yes"}, "return_scores='yes' is not allowed"),
        ({"X": np.zeros((3, DIM + 1))}, f"X has {DIM + 1} features"),
        ({"X": np.full((3, DIM), np.nan)}, "NaN"),
        ({"X": np.zeros((0, DIM))}, "0 sample"),
        ({"X": np.zeros(DIM)}, "1D array"),
        ({"X": iter([])}, "X has no rows"),
        ({"X": {"vectors": np.zeros((3, DIM))}}, "X is a dict with the keys ['vectors']"),
    ],
)
def test_bad_input(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model.find_rows(**{"X": make_rows(5, 0)[0], "include": "w20", **arguments})


def test_bad_chunk_is_named(model: Any) -> None:
    X = make_rows(20, 0)[0]
    with pytest.raises(ValueError, match=r"chunk 1 of X, from row 20 on: .*NaN"):
        model.find_rows(iter([X, np.full_like(X, np.nan)]), "w20")


def test_words_are_checked_before_a_stream_is_read(model: Any) -> None:
    def chunks() -> Iterator[np.ndarray]:
        raise AssertionError("a chunk was read")
        yield

    with pytest.raises(ValueError, match="does not know"):
        model.find_rows(chunks(), "unknown")


def test_words_that_were_never_seen_are_refused(flip: FLiPExtractor, test_rows: Rows) -> None:
    for query in (["w3"], ["w20", "w3"]):
        with pytest.raises(ValueError, match="'w3', which is in no training sentence"):
            flip.find_rows(test_rows[0], *query)


def test_models_without_presence_are_refused() -> None:
    X, Y = make_rows(100, 0)
    for flip in (make_flip(early_stopping=False).fit(X, Y), make_flip().partial_fit(X, Y)):
        with pytest.raises(ValueError, match=r"has no presence_ attributes.*early_stopping=True"):
            flip.find_rows(X, "w20")

"""KeywordMapper: every type of batch gives the words of extract_keywords, and pickles are small."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import pickletools
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import FLiPExtractor, KeywordMapper
from flip_sklearn.estimation import scoring
from tests.helpers.paths import ROOT
from tests.helpers.planted import planted
from tests.helpers.processes import run_python

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

D, WORDS = 6, [f"word-{j}" for j in range(12)]


def make_model(**params: Any) -> FLiPExtractor:
    problem = planted()
    defaults = {"rank": 3, "max_iter": 3, "top_k": 4, "vocabulary": WORDS, "random_state": 0}
    model = FLiPExtractor(**{**defaults, **params})
    return model.fit(problem.X.astype(np.float32), problem.Y)


@pytest.fixture(scope="module")
def model() -> FLiPExtractor:
    return make_model()


@pytest.fixture(scope="module")
def mapper(model: FLiPExtractor) -> KeywordMapper:
    return KeywordMapper(model)


def rows(n: int = 7, seed: int = 5) -> np.ndarray:
    return planted(n=n + 1, seed=seed).X[:n].astype(np.float32)


def frame(vectors: Any, **columns: Any) -> pd.DataFrame:
    data = {"id": np.arange(len(vectors)), **columns}
    return pd.DataFrame({**data, "embedding": pd.Series(list(vectors), dtype=object)})


def arrow(X: np.ndarray, kind: Any = None) -> pa.Array:
    return pa.array(list(X), type=kind or pa.list_(pa.float32()))


def arrow_frame(X: np.ndarray, kind: Any) -> pd.DataFrame:
    column = pd.Series(pd.arrays.ArrowExtensionArray(arrow(X, kind)))
    return pd.DataFrame({"id": np.arange(len(X)), "embedding": column})


def table(X: np.ndarray, kind: Any = None) -> pa.Table:
    return pa.table({"id": np.arange(len(X)), "embedding": arrow(X, kind)})


def tensor_table(X: np.ndarray) -> pa.Table:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), D)
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [D]), flat)
    return pa.table({"embedding": tensors})


def sliced(X: np.ndarray) -> pa.Table:
    """A table of several chunks that does not begin at the start of its buffers."""
    longer = np.concatenate([X[:1] + 1, X, X[:1] - 1]) if len(X) else X
    whole = table(longer).slice(1, len(X))
    return pa.concat_tables([whole.slice(0, len(X) // 2), whole.slice(len(X) // 2)])


# Every type of batch that engines pass, made from X (n, D).
BATCHES: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda X: X,
    "float64 array": lambda X: X.astype(np.float64),
    "tensor": torch.from_numpy,
    "array of arrays": lambda X: frame(X)["embedding"].to_numpy(),
    "dict": lambda X: {"id": np.arange(len(X)), "embedding": X},
    "dict of lists": lambda X: {"id": list(range(len(X))), "embedding": X.tolist()},
    "dict of objects": lambda X: {"embedding": frame(X)["embedding"].to_numpy()},
    "frame of arrays": frame,
    "frame of lists": lambda X: frame(X.tolist()),
    "frame of arrow lists": lambda X: arrow_frame(X, pa.list_(pa.float32())),
    "frame of arrow vectors": lambda X: arrow_frame(X, pa.list_(pa.float32(), D)),
    "table": table,
    "table of large lists": lambda X: table(X, pa.large_list(pa.float64())),
    "table of vectors": lambda X: table(X, pa.list_(pa.float32(), D)),
    "table of tensors": tensor_table,
    "sliced table": sliced,
    "record batch": lambda X: pa.RecordBatch.from_pydict({"embedding": arrow(X)}),
}


def column(batch: Any, name: str = "keywords") -> list[Any]:
    """A column of the result of a mapper as a list."""
    if isinstance(batch, np.ndarray):
        return batch.tolist()
    values = batch[name]
    return values.to_pylist() if hasattr(values, "to_pylist") else list(values)


# --- The words -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize("kind", BATCHES)
def test_every_batch_gives_the_words_of_the_model(
    model: FLiPExtractor, mapper: KeywordMapper, kind: str, n: int
) -> None:
    X = rows(n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = mapper(BATCHES[kind](X))
    assert column(result) == model.extract_keywords(X)


@pytest.mark.parametrize("kind", BATCHES)
def test_scores_are_those_of_the_model(model: FLiPExtractor, kind: str) -> None:
    X = rows()
    result = KeywordMapper(model, return_scores=True)(BATCHES[kind](X))
    expected = model.extract_keywords(X, return_scores=True)
    if isinstance(result, np.ndarray):
        pairs = result.tolist()
    else:
        both = zip(column(result), column(result, "keywords_scores"), strict=True)
        pairs = [list(zip(words, scores, strict=True)) for words, scores in both]
    assert [[w for w, _ in row] for row in pairs] == [[w for w, _ in row] for row in expected]
    np.testing.assert_allclose(
        [[z for _, z in row] for row in pairs], [[z for _, z in row] for row in expected], rtol=1e-6
    )


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=6),
    k=st.integers(1, 14),
    use_bias=st.booleans(),
    kind=st.sampled_from(["dict", "frame of arrays", "table", "array"]),
)
def test_split_into_batches_does_not_change_the_words(
    model: FLiPExtractor, cuts: list[int], k: int, use_bias: bool, kind: str
) -> None:
    X = rows(40)
    mapper = KeywordMapper(model, top_k=k, use_bias=use_bias)
    parts = [mapper(BATCHES[kind](part)) for part in np.split(X, sorted(cuts))]
    words = [row for part in parts for row in column(part)]
    whole = copy.copy(model).set_params(use_bias=use_bias).extract_keywords(X, top_k=k)
    assert words == whole
    assert {len(row) for row in words} == {min(k, len(WORDS))}


def test_later_changes_of_the_model_do_not_change_the_mapper(model: FLiPExtractor) -> None:
    """Negative control: each setting of a new mapper changes its words."""
    X = rows(30)
    changed = copy.deepcopy(model)
    mapper = KeywordMapper(changed)
    before = mapper(X).tolist()
    changed.set_params(top_k=2, use_bias=False)
    changed.fit(rows(60, seed=9), np.eye(12, dtype=int)[np.arange(60) % 12])
    assert mapper(X).tolist() == before == model.extract_keywords(X)
    assert KeywordMapper(changed)(X).tolist() == changed.extract_keywords(X) != before
    assert KeywordMapper(model, use_bias=False)(X).tolist() != before
    assert KeywordMapper(model, top_k=2)(X).tolist() == [words[:2] for words in before]


@pytest.mark.parametrize("rank", [3, None])
def test_float64_and_lip_models_with_column_names_and_unseen_words(rank: int | None) -> None:
    problem = planted()
    names = [f"dim{i}" for i in range(D)]
    Y = problem.Y.toarray()
    Y[:, 5] = 0
    model = FLiPExtractor(rank, max_iter=3, vocabulary=WORDS, precision="float64", top_k=50)
    model.fit(pd.DataFrame(problem.X, columns=names), Y)
    X = pd.DataFrame(rows().astype(np.float64), columns=names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # batches have no names for the columns of X
        words = KeywordMapper(model)(X.to_numpy()).tolist()
    assert words == model.extract_keywords(X)
    assert {len(row) for row in words} == {11}
    assert not any("word-5" in row for row in words)


def test_half_precision_embeddings(model: FLiPExtractor, mapper: KeywordMapper) -> None:
    X = rows().astype(np.float16)
    expected = model.extract_keywords(X)
    halves = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), D)
    for batch in (X, frame(X), {"embedding": X}, pa.table({"embedding": halves})):
        assert column(mapper(batch)) == expected


# --- Other columns, empty batches and missing vectors ----------------------------------------


@pytest.mark.parametrize(
    "index",
    [
        [3, 3, 1],
        pd.Index(["a", "b", "b"], name="key"),
        pd.MultiIndex.from_tuples([(0, "x"), (0, "y"), (1, "x")], names=["n", "part"]),
        pd.date_range("2026-01-01", periods=3),
    ],
    ids=["numbers twice", "text", "two levels", "dates"],
)
def test_frame_is_copied_and_keeps_its_index(mapper: KeywordMapper, index: Any) -> None:
    batch = frame(rows(3), text=["one", "two", "three"]).set_axis(index)
    before = batch.copy(deep=True)
    result = mapper(batch)
    pd.testing.assert_index_equal(result.index, batch.index)
    assert list(result.columns) == ["id", "text", "embedding", "keywords"]
    pd.testing.assert_frame_equal(result.drop(columns="keywords"), before)
    pd.testing.assert_frame_equal(batch, before)
    assert list(result["keywords"]) == mapper(np.stack(list(batch["embedding"]))).tolist()


def test_dicts_and_tables_are_not_changed(mapper: KeywordMapper) -> None:
    X = rows(3)
    X.flags.writeable = False  # as in the batches of Ray
    batch = {"embedding": X, "id": np.arange(3)}
    result = mapper(batch)
    assert list(batch) == ["embedding", "id"]
    assert list(result) == ["embedding", "id", "keywords"]
    assert result["embedding"] is X
    assert result["keywords"].shape == (3,)
    arrow_batch = table(X)
    result = mapper(arrow_batch)
    assert result.schema.names == ["id", "embedding", "keywords"]
    assert result.schema.field("keywords").type == pa.list_(pa.string())
    assert arrow_batch.schema.names == ["id", "embedding"]
    assert result.drop_columns("keywords").equals(arrow_batch)


@pytest.mark.parametrize("kind", ["dict", "frame of arrays", "table", "record batch"])
def test_other_column_names(model: FLiPExtractor, kind: str) -> None:
    """An existing output column is replaced and keeps its position."""
    X = rows(3)
    batch = BATCHES[kind](X)
    if isinstance(batch, dict):
        batch = {"vector": batch["embedding"], "words": np.zeros(3), "words_scores": np.zeros(3)}
    elif isinstance(batch, pd.DataFrame):
        batch = frame(X, words=0, words_scores=0).rename(columns={"embedding": "vector"})
        batch = batch[["vector", "words", "words_scores"]]
    else:
        columns = {"vector": arrow(X), "words": [0, 0, 0], "words_scores": [0, 0, 0]}
        batch = type(batch).from_pydict(columns)
    result = KeywordMapper(model, column="vector", output="words", return_scores=True)(batch)
    names = getattr(result, "column_names", None) or list(result)
    assert names == ["vector", "words", "words_scores"]
    assert column(result, "words") == model.extract_keywords(X)
    assert np.shape(column(result, "words_scores")) == (3, 4)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("return_scores", [False, True])
def test_empty_batches_give_the_same_types(model: FLiPExtractor, kind: str, return_scores: bool) -> None:
    mapper = KeywordMapper(model, return_scores=return_scores)
    full, empty = mapper(BATCHES[kind](rows())), mapper(BATCHES[kind](rows()[:0]))
    assert type(empty) is type(full)
    assert column(empty) == []
    if isinstance(full, np.ndarray):
        assert empty.dtype == full.dtype == object
        assert empty.shape == (0,)
    elif isinstance(full, pd.DataFrame):
        pd.testing.assert_series_equal(empty.dtypes, full.dtypes)
    elif isinstance(full, dict):
        assert empty.keys() == full.keys()
    else:
        assert empty.schema == full.schema


def test_placeholder_array_of_dask(mapper: KeywordMapper) -> None:
    """Dask calls a function with an array of shape (0, 0) to infer the type of the result."""
    assert mapper(np.empty((0, 0))).shape == (0,)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=str)
def test_rows_without_a_vector_get_none(mapper: KeywordMapper, missing: Any) -> None:
    X = rows(5)
    cells: list[Any] = list(X)
    cells[1] = cells[4] = missing
    expected = [None if i in (1, 4) else words for i, words in enumerate(mapper(X).tolist())]
    assert column(mapper(frame(cells))) == expected
    assert column(mapper({"embedding": cells})) == expected
    assert column(mapper({"embedding": frame(cells)["embedding"].to_numpy()})) == expected
    as_lists = [None if i in (1, 4) else x.tolist() for i, x in enumerate(X)]
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), D)):
        batch = pa.table({"embedding": pa.array(as_lists, type=kind)})
        assert column(mapper(batch)) == expected
        assert column(mapper(batch.to_pandas(types_mapper=pd.ArrowDtype))) == expected
    assert column(mapper(frame([missing] * 3))) == [None] * 3


def test_placeholder_rows_of_dask_get_none(model: FLiPExtractor) -> None:
    """Dask infers the type of an object column with rows of bare objects or NA."""
    mapper = KeywordMapper(model, return_scores=True)
    lists = pd.Series([pd.NA, pd.NA], dtype=pd.ArrowDtype(pa.list_(pa.float32())))
    for batch in (frame([object(), object()]), pd.DataFrame({"embedding": lists})):
        result = mapper(batch)
        assert column(result) == column(result, "keywords_scores") == [None, None]
        assert result["keywords"].dtype == object


def test_batches_of_an_iterator(mapper: KeywordMapper) -> None:
    """Spark's mapInPandas passes an iterator of batches; none is read before it is needed."""
    read = []

    def batches() -> Any:
        for part in np.split(rows(6), 3):
            read.append(len(part))
            yield frame(part)

    result = (mapper(batch) for batch in batches())
    assert read == []
    first = next(result)
    assert read == [2]
    words = [*first["keywords"], *(w for batch in result for w in batch["keywords"])]
    assert words == mapper(rows(6)).tolist()


# --- Errors ----------------------------------------------------------------------------------

X3 = rows(3)
RAGGED: list[Any] = [X3[0], X3[1], X3[2, :4]]
BAD_BATCHES: dict[str, tuple[Any, list[str]]] = {
    "missing key": ({"vector": X3, "id": [1, 2, 3]}, ["'embedding'", "'vector', 'id'", "column="]),
    "missing column": (frame(X3).rename(columns={"embedding": "e"}), ["'id', 'e'", "column="]),
    "missing arrow column": (table(X3).drop_columns("embedding"), ["'embedding'", "'id'"]),
    "no column at all": ({}, ["none", "column="]),
    "column twice": (pd.concat([frame(X3), frame(X3)], axis=1), ["2 columns", "'embedding'"]),
    "ragged objects": (frame(RAGGED), ["'embedding'", "6 numbers in row 0", "4 in row 2"]),
    "ragged lists": ({"embedding": [list(x) for x in RAGGED]}, ["6 numbers in row 0", "4 in row 2"]),
    "ragged after a missing vector": (frame([None, *RAGGED]), ["6 numbers in row 1", "4 in row 3"]),
    "ragged arrow": (table(np.array(RAGGED, dtype=object)), ["6 numbers in row 0", "4 in row 2"]),
    "ragged arrow after a missing vector": (
        pa.table({"embedding": [None, *(x.tolist() for x in RAGGED)]}),
        ["6 numbers in row 1", "4 in row 3"],
    ),
    "too few dimensions": (frame(X3[:, :5]), ["'embedding'", "(5,)", "(6,)", "encoder"]),
    "too many in an array": (np.zeros((2, 7)), ["the batch", "(7,)", "(6,)", "encoder"]),
    "too many in a table": (table(np.zeros((2, 7))), ["(7,)", "(6,)"]),
    "matrices": ({"embedding": np.zeros((2, 1, 6))}, ["(1, 6)", "(6,)"]),
    "one number per row": ({"embedding": np.zeros(3)}, ["()", "(6,)"]),
    "one vector": (np.zeros(6), ["()", "(6,)"]),
    "numbers in arrow": (table(X3).rename_columns(["embedding", "e"]), ["int64", "list of numbers"]),
    "text": (frame([str(x) for x in X3]), ["text", "convert-string", "False"]),
    "text in arrow": (pa.table({"embedding": ["[1 2]"]}), ["string", "list of numbers"]),
    "text of pandas": (
        pd.DataFrame({"embedding": pd.Series(["a", None], dtype="string")}),
        ["text", "convert-string"],
    ),
    "words in the vectors": (frame([["a"] * 6]), ["'embedding'", "vector of numbers"]),
    "other objects": (frame([{"x": 1}, {"x": 2}]), ["'embedding'", "vector"]),
    "NaN": (frame(X3 * [1, 1, 1, 1, 1, np.nan]), ["NaN", "finite"]),
    "infinity": ({"embedding": np.full((3, 6), -np.inf)}, ["infinity", "finite"]),
    "missing number in an arrow vector": (
        pa.table({"embedding": [[1.0, None, 0.0, 0.0, 0.0, 0.0]]}),
        ["NaN", "finite"],
    ),
    "series": (frame(X3)["embedding"], ["Series", "DataFrame"]),
    "list": (X3.tolist(), ["list", "array (n, d)"]),
    "nothing": (None, ["NoneType", "array (n, d)"]),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_bad_batches(mapper: KeywordMapper, case: str) -> None:
    batch, parts = BAD_BATCHES[case]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is checked below)
        mapper(batch)
    for part in parts:
        assert part in str(error.value)


def test_bad_parameters(model: FLiPExtractor) -> None:
    with pytest.raises(NotFittedError):  # a ValueError
        KeywordMapper(FLiPExtractor())
    for wrong in (FLiPExtractor, None, "model.pkl", make_pipeline(StandardScaler(), model)):
        with pytest.raises(TypeError, match="fitted FLiPExtractor"):
            KeywordMapper(wrong)
    for params, message in [
        ({"top_k": 0}, "top_k=0 .*>= 1"),
        ({"top_k": True}, "top_k=True .*>= 1"),
        ({"use_bias": 1}, "use_bias=1 .*True or False"),
        ({"return_scores": "yes"}, "return_scores='yes' .*True or False"),
        ({"output": "embedding"}, "'embedding'.*another name"),
        ({"column": "a_scores", "output": "a", "return_scores": True}, "another name"),
    ]:
        with pytest.raises(ValueError, match=message):
            KeywordMapper(model, **params)
    KeywordMapper(model, column="a_scores", output="a")


# --- Pickles and devices ---------------------------------------------------------------------


def strings_in(blob: bytes) -> list[str]:
    return [argument for _, argument, _ in pickletools.genops(blob) if isinstance(argument, str)]


@pytest.mark.parametrize("used", [False, True])
def test_pickle_is_small_and_holds_no_device(model: FLiPExtractor, used: bool) -> None:
    mapper = KeywordMapper(model)
    if used:
        mapper(rows())
    blob = pickle.dumps(mapper)
    strings = strings_in(blob)
    assert not [s for s in strings if s == "torch" or s.startswith(("torch.", "torch "))]
    assert not [s for s in strings if s in ("_moments", "history_") or "andomState" in s]
    # Negative control: the pickle of the model contains them.
    assert {"_moments", "history_"} <= set(strings_in(pickle.dumps(model)))
    numbers = 12 * 3 + 3 * D + 12 + D
    text = sum(len(word) + 8 for word in WORDS)
    assert len(blob) < 4 * numbers + text + 2500
    assert mapper(rows()).tolist() == pickle.loads(blob)(rows()).tolist()


def test_pickle_holds_the_factors_alone() -> None:
    """Of a model with 300 dimensions and rank 2, no moments (d, d) and no float64 are pickled."""
    rng = np.random.default_rng(0)
    Y = np.eye(20, dtype=int)[np.arange(200) % 20]
    X = np.concatenate([Y, rng.normal(size=(200, 280))], axis=1)
    model = FLiPExtractor(2, max_iter=2, precision="float64", random_state=np.random.RandomState(0)).fit(X, Y)
    factors = 4 * (20 * 2 + 2 * 300 + 20 + 300)
    assert len(pickle.dumps(KeywordMapper(model))) < factors + 3000
    assert len(pickle.dumps(model)) > 8 * 300 * 300


@pytest.mark.parametrize(
    "make_copy", [copy.copy, copy.deepcopy, lambda m: cloudpickle.loads(cloudpickle.dumps(m))]
)
def test_copies_give_the_same_words(mapper: KeywordMapper, make_copy: Any) -> None:
    mapper(rows())
    other = make_copy(mapper)
    assert other._scorer is None
    assert other(rows()).tolist() == mapper(rows()).tolist()
    assert repr(other) == repr(mapper)
    assert repr(mapper) == (
        "KeywordMapper(12 words from 6 numbers, column='embedding', output='keywords', top_k=4, "
        "use_bias=True)"
    )


def test_device_is_resolved_once_per_process(model: FLiPExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not resolved for every batch; an unpickled mapper resolves it again."""
    make_scorer = mock.Mock(wraps=scoring.make_scorer)
    monkeypatch.setattr(scoring, "make_scorer", make_scorer)
    mapper = KeywordMapper(model)
    for _ in range(3):
        mapper(rows())
    assert make_scorer.call_count == 1
    pickle.loads(pickle.dumps(mapper))(rows())
    assert make_scorer.call_count == 2


def test_mapper_starts_no_thread_and_no_process(model: FLiPExtractor) -> None:
    def running() -> tuple[int, int, int]:
        children = multiprocessing.active_children()
        return threading.active_count(), len(children), torch.get_num_threads()

    before = running()
    KeywordMapper(model)(frame(rows(50)))
    assert running() == before


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_model_fitted_on_a_gpu_scores_on_a_worker_without_one(
    model: FLiPExtractor, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """There is one warning per worker, not one per batch."""
    fitted_on_gpu = copy.copy(model).set_params(device=device)
    fitted_on_gpu.device_ = "cuda:0"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    mapper = pickle.loads(pickle.dumps(KeywordMapper(fitted_on_gpu)))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for kind in ("frame of arrays", "dict", "table"):
            assert column(mapper(BATCHES[kind](rows()))) == model.extract_keywords(rows())
    assert len(record) == (device != "auto")
    for warning in record:
        assert "scoring on the CPU" in str(warning.message)
        assert warning.filename == __file__


@pytest.fixture
def failing_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of CUDA raises an error, as after a fork."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA was used")

    for name in (
        "is_available",
        "device_count",
        "current_device",
        "init",
        "_lazy_init",
        "mem_get_info",
        "get_device_capability",
        "synchronize",
        "empty_cache",
    ):
        monkeypatch.setattr(torch.cuda, name, refuse)


@pytest.mark.usefixtures("failing_cuda")
def test_making_and_pickling_a_mapper_does_not_use_cuda(model: FLiPExtractor) -> None:
    blob = pickle.dumps(KeywordMapper(copy.copy(model).set_params(device="cuda:3")))
    mapper = pickle.loads(blob)
    assert "12 words" in repr(mapper)
    with pytest.raises(RuntimeError, match="CUDA was used"):  # negative control
        mapper(rows())


def test_mapper_in_another_process(model: FLiPExtractor, tmp_path: Path) -> None:
    """Ray's actors call the class with ``fn_constructor_args``; other workers unpickle an instance."""
    ways = {
        "instance": KeywordMapper(model, use_bias=False),
        "class": (KeywordMapper, (model,), {"use_bias": False}),
    }
    (tmp_path / "ways").write_bytes(pickle.dumps((ways, {"embedding": rows()})))
    code = """
import pickle, sys
ways, batch = pickle.load(open(sys.argv[1] + "/ways", "rb"))
make, args, kwargs = ways["class"]
words = [m(batch)["keywords"].tolist() for m in (ways["instance"], make(*args, **kwargs))]
assert not {"dask", "distributed", "ray"} & set(sys.modules)
pickle.dump(words, open(sys.argv[1] + "/words", "wb"))
"""
    done = run_python("-c", code, tmp_path, cwd=ROOT, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    expected = copy.copy(model).set_params(use_bias=False).extract_keywords(rows())
    assert pickle.loads((tmp_path / "words").read_bytes()) == [expected, expected]

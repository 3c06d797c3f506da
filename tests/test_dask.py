"""Dask: keywords of partitioned tables and arrays, and model selection on a real cluster.

All tests share one cluster of two processes, since each takes seconds to load torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV, KFold

from flip_sklearn import FLiPExtractor, KeywordMapper
from flip_sklearn.backend.device import resolve_device
from tests.helpers.paths import ROOT
from tests.helpers.planted import Planted, planted

WORDS = [f"word-{j}" for j in range(12)]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make_model(**params: Any) -> FLiPExtractor:
    defaults = {"rank": 3, "max_iter": 3, "top_k": 4, "vocabulary": WORDS, "random_state": 0}
    return FLiPExtractor(**{**defaults, **params})


@pytest.fixture(scope="module")
def problem() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def model(problem: Planted) -> FLiPExtractor:
    return make_model().fit(problem.X.astype(np.float32), problem.Y)


@pytest.fixture(scope="module")
def mapper(model: FLiPExtractor) -> KeywordMapper:
    return KeywordMapper(model)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A cluster of two worker processes that see no GPU, even if there is one."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            memory_limit="1GiB",
            dashboard_address=None,
            env={"CUDA_VISIBLE_DEVICES": ""},
        ) as cluster,
        Client(cluster, timeout=60) as client,
    ):
        yield client


def frame(X: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"id": np.arange(len(X)), "embedding": list(X)})


@pytest.fixture
def table(model: FLiPExtractor) -> dd.DataFrame:
    """A table of 90 rows in three partitions, of which the second is empty."""
    with dask.config.set({"dataframe.convert-string": False}):
        table = dd.from_pandas(frame(rows()).set_index("id", drop=False), npartitions=2)
        empty = dd.from_pandas(frame(rows())[:0], npartitions=1)
        return dd.concat([table.partitions[0], empty, table.partitions[1]])


def rows() -> np.ndarray:
    return planted(n=90, seed=5).X.astype(np.float32)


# --- Tables and arrays, in this process ------------------------------------------------------


@pytest.mark.parametrize("meta", ["inferred", "given"])
@pytest.mark.parametrize("return_scores", [False, True])
def test_dataframe(model: FLiPExtractor, table: dd.DataFrame, meta: str, return_scores: bool) -> None:
    mapper = KeywordMapper(model, return_scores=return_scores)
    options = {} if meta == "inferred" else {"meta": mapper(table._meta)}
    result = table.map_partitions(mapper, **options)
    outputs = ["keywords", "keywords_scores"] if return_scores else ["keywords"]
    assert list(result.columns) == ["id", "embedding", *outputs]
    assert set(result.dtypes[outputs]) == {np.dtype(object)}
    assert result.npartitions == 3
    with dask.config.set(scheduler="sync"):
        computed = result.compute()
    assert computed["keywords"].tolist() == model.extract_keywords(rows())
    np.testing.assert_array_equal(computed.index, computed["id"])
    if return_scores:
        assert {len(scores) for scores in computed["keywords_scores"]} == {4}


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # in Dask, of pandas 3.1
@pytest.mark.parametrize("backend", [None, "pyarrow"])
def test_from_parquet_to_parquet(
    model: FLiPExtractor, mapper: KeywordMapper, tmp_path: Path, backend: str | None
) -> None:
    """Embeddings are read from a list column, and words written to one."""
    X = rows()
    (tmp_path / "in").mkdir()
    for part, start in enumerate(range(0, 90, 45)):
        columns = {"id": np.arange(start, start + 45), "embedding": list(X[start : start + 45])}
        pq.write_table(pa.table(columns), tmp_path / f"in/{part}.parquet")
    options = {} if backend is None else {"dtype_backend": backend}
    with dask.config.set(scheduler="sync"):
        table = dd.read_parquet(tmp_path / "in", **options)
        words = table.map_partitions(mapper)[["id", "keywords"]]
        schema = pa.schema({"id": pa.int64(), "keywords": pa.list_(pa.string())})
        words.to_parquet(tmp_path / "out", write_index=False, schema=schema)
    written = pq.read_table(tmp_path / "out").sort_by("id")
    assert written.schema.field("keywords").type == pa.list_(pa.string())
    assert written["keywords"].to_pylist() == model.extract_keywords(X)


def test_vectors_that_dask_converted_to_text_are_refused(mapper: KeywordMapper) -> None:
    """By default Dask converts object columns to text, which shortens the vectors."""
    with dask.config.set({"dataframe.convert-string": True}):
        table = dd.from_pandas(frame(rows()), npartitions=2)
        with pytest.raises(ValueError, match="convert-string"):
            table.map_partitions(mapper)


@pytest.mark.parametrize("chunks", [(40, -1), (90, -1), (7, 2)])
def test_array(model: FLiPExtractor, mapper: KeywordMapper, chunks: tuple[int, int]) -> None:
    X = da.from_array(rows(), chunks=chunks)
    words = X.map_blocks(mapper, dtype=object, drop_axis=1)
    assert words.shape == (90,)
    with dask.config.set(scheduler="sync"):
        assert words.compute().tolist() == model.extract_keywords(rows())


def test_token_depends_on_the_content(model: FLiPExtractor) -> None:
    """Dask computes tasks of equal tokens once: equal mappers have equal tokens, others do not."""
    token = dask.base.tokenize(KeywordMapper(model))
    used = KeywordMapper(model)
    used(rows())
    assert dask.base.tokenize(used) == token
    assert dask.base.tokenize(KeywordMapper(model, top_k=2)) != token
    assert dask.base.tokenize(KeywordMapper(model, use_bias=False)) != token


# --- On a cluster ----------------------------------------------------------------------------


def test_workers_extract_the_same_words(
    model: FLiPExtractor, mapper: KeywordMapper, table: dd.DataFrame, client: Client
) -> None:
    expected = model.extract_keywords(rows())
    result = table.map_partitions(mapper).compute()
    assert result["keywords"].tolist() == expected
    X = da.from_array(rows(), chunks=(20, -1))
    words = X.map_blocks(mapper, dtype=object, drop_axis=1).compute()
    assert words.tolist() == expected


def test_scattered_mapper_is_unpickled_once_per_worker(
    model: FLiPExtractor, table: dd.DataFrame, client: Client
) -> None:
    """A mapper is sent with every task unless it is scattered, which sends it once to every worker."""

    class Counted(KeywordMapper):
        def __call__(self, batch: Any) -> Any:
            first = self._scorer is None and len(batch) > 0
            return super().__call__(batch).assign(first_call=int(first))

    # A nested function is pickled by value: workers cannot import this file.
    def call_mapper(batch: Any, mapper: KeywordMapper) -> Any:
        return mapper(batch)

    mapper = Counted(model)
    X = rows()
    with dask.config.set({"dataframe.convert-string": False}):
        table = dd.from_pandas(frame(X), npartitions=9)
    scattered = client.scatter(mapper, broadcast=True)
    result = table.map_partitions(call_mapper, scattered, meta=mapper(table._meta)).compute()
    assert result["keywords"].tolist() == model.extract_keywords(X)
    assert 1 <= result["first_call"].sum() / 10 <= 2  # partitions of 10 rows, two workers
    with_tasks = table.map_partitions(mapper, meta=mapper(table._meta)).compute()
    assert with_tasks["first_call"].sum() == len(X)  # negative control
    blocks = da.from_array(X, chunks=(20, -1))
    scattered = client.scatter(KeywordMapper(model), broadcast=True)
    words = blocks.map_blocks(call_mapper, mapper=scattered, dtype=object, drop_axis=1).compute()
    assert words.tolist() == model.extract_keywords(X)


def test_device_is_resolved_in_the_worker(model: FLiPExtractor, problem: Planted, client: Client) -> None:
    """The name of the device is sent, and each worker resolves it among the devices that it sees."""
    seen = client.run(lambda: (os.environ["CUDA_VISIBLE_DEVICES"], str(resolve_device("auto"))))
    assert set(seen.values()) == {("", "cpu")}

    def fit(device: str) -> str:
        return make_model(device=device).fit(problem.X, problem.Y).device_

    assert client.submit(fit, "auto").result(60) == "cpu"
    with pytest.raises(ValueError, match=r"device='cuda:1'.*0 visible.*device='auto' or 'cpu'"):
        client.submit(fit, "cuda:1").result(60)
    # By default worker processes of Dask run one thread of torch each.
    assert set(client.run(torch.get_num_threads).values()) == {1}


GRID = {"rank": [2, 6], "l1_strength": [1e-3, 1.0], "use_bias": [True, False]}


def make_search(**options: Any) -> GridSearchCV:
    # In float64, so that the order of summation in the workers cannot exchange two words.
    model = make_model(device="cpu", precision="float64")
    return GridSearchCV(model, GRID, cv=KFold(2), error_score="raise", **options)


@pytest.fixture(scope="module")
def serial(problem: Planted) -> GridSearchCV:
    return make_search().fit(problem.X, problem.Y)


def test_grid_search_on_a_cluster_gives_the_results_of_one_process(
    problem: Planted, serial: GridSearchCV, client: Client
) -> None:
    def score_and_pid(model: FLiPExtractor, X: Any, Y: Any) -> dict[str, float]:
        return {"score": model.score(X, Y), "pid": os.getpid()}

    with joblib.parallel_config("dask"):
        search = make_search(scoring=score_and_pid, refit="score").fit(problem.X, problem.Y)
    for name, values in serial.cv_results_.items():
        if "time" not in name:
            np.testing.assert_array_equal(search.cv_results_[name], values, err_msg=name)
    assert search.best_params_ == serial.best_params_
    # Negative controls: the settings change the scores, and the fits ran in the workers.
    assert len(set(serial.cv_results_["mean_test_score"])) > 4
    pids = {*search.cv_results_["split0_test_pid"], *search.cv_results_["split1_test_pid"]}
    assert pids <= set(client.run(os.getpid).values())


def test_scorer_of_the_scaling_page(problem: Planted, serial: GridSearchCV) -> None:
    """It scores one fit with and without bias."""
    page = (ROOT / "docs/scaling.md").read_text(encoding="utf8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = next(block for block in blocks if "def score_both" in block)
    namespace: dict[str, Any] = {"GridSearchCV": GridSearchCV, "FLiPExtractor": FLiPExtractor}
    exec(compile(code, "docs/scaling.md", "exec"), namespace)
    grid = {name: values for name, values in GRID.items() if name != "use_bias"}
    search = make_search(scoring=namespace["score_both"], refit="with_bias").set_params(param_grid=grid)
    search.fit(problem.X, problem.Y)
    bias = serial.cv_results_["param_use_bias"].astype(bool)
    for name, rows in (("with_bias", bias), ("without_bias", ~bias)):
        np.testing.assert_array_equal(
            search.cv_results_[f"mean_test_{name}"], serial.cv_results_["mean_test_score"][rows]
        )
    search.score(problem.X, problem.Y)
    assert search.best_estimator_.use_bias  # as before the call


def test_search_does_not_use_cuda_in_the_parent(
    problem: Planted, serial: GridSearchCV, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes get settings and arrays, and the parent does not resolve the device."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA was used")

    for name in ("is_available", "device_count", "current_device", "init", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    search = make_search(n_jobs=2, refit=False)
    search.estimator.set_params(device="auto")
    search.fit(problem.X, problem.Y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"]
    )
    with pytest.raises(RuntimeError, match="CUDA was used"):  # negative control
        make_model().fit(problem.X, problem.Y)


def test_fitted_attributes_contain_no_tensors(model: FLiPExtractor) -> None:
    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for item in value.values():
                yield from leaves(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from leaves(item)
        elif hasattr(value, "__dict__") and type(value).__module__.startswith("flip_sklearn"):
            yield from leaves(vars(value))
        else:
            yield value

    types = {type(leaf) for leaf in leaves(vars(model))}
    assert np.ndarray in types
    assert not [leaf_type for leaf_type in types if leaf_type.__module__.startswith("torch")]
    nested = {"a": [torch.ones(1)]}
    assert {type(leaf) for leaf in leaves(nested)} == {torch.Tensor}  # negative control


# --- The example -----------------------------------------------------------------------------


def test_example_runs(tmp_path: Path) -> None:
    script = str(ROOT / "examples/bulk_dask.py")
    result = subprocess.run(
        [sys.executable, script, "--workers", "1", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "FLIP_SKLEARN_CACHE": str(tmp_path),
        },
    )
    assert result.returncode == 0, result.stderr
    written = pq.read_table(tmp_path / "keywords")
    assert written.schema.field("keywords").type == pa.list_(pa.string())
    assert written.num_rows > 100
    # Most of the best words are words of the text.
    hits = []
    for row in written.to_pylist():
        hits += [word in row["text"].lower() for word in row["keywords"][:2]]
    assert np.mean(hits) > 0.6

"""The functions of examples/stores.py on the real stores, and the script that uses them."""

from __future__ import annotations

import importlib
import importlib.util
import re
import resource
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor, KeywordMapper
from tests.examples.test_examples import EXAMPLES, encoder, run, sentences  # noqa: F401
from tests.helpers.processes import in_process

pytest.importorskip("pyarrow")
MODULES = {
    "parquet": "pyarrow",
    "datasets": "datasets",
    "lancedb": "lancedb",
    "chroma": "chromadb",
    "faiss": "faiss",
}
N, D, BATCH = 230, 16, 50
IDS = np.random.default_rng(1).permutation(10 * N)[:N]  # neither 0, 1, ... nor sorted


def skip_without(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install '.[stores]'")


@pytest.fixture(params=MODULES)
def name(request: pytest.FixtureRequest) -> str:
    skip_without(MODULES[request.param])
    return str(request.param)


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The functions, with small batches."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module("stores")
    monkeypatch.setattr(module, "BATCH_ROWS", BATCH)
    return module


@pytest.fixture(scope="module")
def flip() -> FLiPExtractor:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.3, size=(200, 12))
    X = Y @ rng.normal(size=(12, D)) + 0.1 * rng.normal(size=(200, D))
    words = [f"word {j}" for j in range(12)]
    return FLiPExtractor(vocabulary=words, top_k=3, max_iter=3, random_state=0).fit(X.astype(np.float32), Y)


def unit_rows(n: int = N, d: int = D, seed: int = 2) -> np.ndarray:
    X = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def batches(X: np.ndarray, ids: np.ndarray = IDS) -> Any:
    for start in range(0, len(X), 90):
        yield ids[start : start + 90], X[start : start + 90]


def made(stores: ModuleType, name: str, folder: Path, X: np.ndarray) -> tuple[Any, Any]:
    """The functions of a store, and one with these vectors."""
    functions = stores.STORES[name]
    functions.create(folder, batches(X))
    return functions, functions.open(folder)


def test_vectors_are_read_in_batches(name: str, stores: ModuleType, tmp_path: Path) -> None:
    X = unit_rows()
    functions, store = made(stores, name, tmp_path, X)
    ids, read = zip(*functions.read(store), strict=True)
    assert max(map(len, ids)) <= BATCH
    order = np.argsort(np.concatenate(ids))
    np.testing.assert_array_equal(np.concatenate(ids)[order], np.sort(IDS))
    assert read[0].dtype == np.float32
    np.testing.assert_allclose(np.concatenate(read)[order], X[np.argsort(IDS)], atol=1e-6)  # Chroma rounds


def test_words_are_those_of_extract_keywords(
    name: str, stores: ModuleType, flip: FLiPExtractor, tmp_path: Path
) -> None:
    """Also a second time, by another model; ids and vectors remain."""
    X = unit_rows()
    functions, store = made(stores, name, tmp_path, X)
    for top_k in (3, 2):
        store = functions.add_words(store, KeywordMapper(flip, top_k=top_k))
        if name != "datasets":  # a dataset is not changed
            store = functions.open(tmp_path)
        words = functions.words(store, N)
        expected = flip.extract_keywords(X, top_k=top_k)
        assert words == dict(zip(IDS.tolist(), expected, strict=True))
        read = {
            i: x for ids, batch in functions.read(store) for i, x in zip(ids.tolist(), batch, strict=True)
        }
        np.testing.assert_allclose([read[i] for i in IDS.tolist()], X, atol=1e-6)
    assert len(functions.words(store, 7)) == 7


def test_other_columns_remain(name: str, stores: ModuleType, flip: FLiPExtractor, tmp_path: Path) -> None:
    """What an application has written beside the vectors."""
    X = unit_rows()
    functions, store = made(stores, name, tmp_path, X)
    texts = {i: f"text {i}" for i in IDS.tolist()}
    if name == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(store)
        pq.write_table(table.append_column("text", [[texts[i] for i in table["id"].to_pylist()]]), store)
        functions.add_words(store, KeywordMapper(flip))
        after = pq.read_table(store).to_pylist()
    elif name == "datasets":
        store = store.map(lambda row: {"text": texts[row["id"]]})
        after = functions.add_words(store, KeywordMapper(flip)).to_list()
    elif name == "lancedb":
        store.table.add_columns({"text": "concat('text ', cast(id as string))"})
        after = functions.add_words(store, KeywordMapper(flip)).table.to_arrow().to_pylist()
    elif name == "chroma":
        store.update(ids=list(map(str, texts)), metadatas=[{"text": text} for text in texts.values()])
        found = functions.add_words(store, KeywordMapper(flip)).get()
        after = [{"id": int(i), **data} for i, data in zip(found["ids"], found["metadatas"], strict=True)]
        word = after[0]["keywords"][0]
        having = store.get(where={"keywords": {"$contains": word}})["ids"]
        assert sorted(map(int, having)) == sorted(row["id"] for row in after if word in row["keywords"])
    else:
        pytest.skip("FAISS holds vectors only")
    assert {row["id"]: row["text"] for row in after} == texts
    expected = dict(zip(IDS.tolist(), flip.extract_keywords(X), strict=True))
    assert {row["id"]: row["keywords"] for row in after} == expected


def test_vectors_of_another_length(
    name: str, stores: ModuleType, flip: FLiPExtractor, tmp_path: Path
) -> None:
    """The error names both lengths and the remedy, and nothing is written."""
    functions, store = made(stores, name, tmp_path, unit_rows(d=5))
    before = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".part")
    with pytest.raises(
        ValueError, match=r"vectors of shape \(5,\), the model reads \(16,\); use the encoder"
    ):
        functions.add_words(store, KeywordMapper(flip))
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".part") == before
    if name == "lancedb":
        assert functions.open(tmp_path).table.schema.names == ["id", "embedding"]
    assert sum(len(ids) for ids, _ in functions.read(functions.open(tmp_path))) == N


def test_nearest_vectors(name: str, stores: ModuleType, tmp_path: Path) -> None:
    """Those of the largest cosines: the stores search all cells, or a graph that is exact at this size."""
    X, queries = unit_rows(), unit_rows(20, seed=3)
    functions, store = made(stores, name, tmp_path, X)
    for x in queries:
        ids, hits = functions.nearest(store, x, 2)
        best = np.argsort(-(X @ x))[:2]
        np.testing.assert_array_equal(ids, IDS[best])
        np.testing.assert_allclose(hits, X[best], atol=1e-6)


KINDS = ["Flat", "HNSW8", "IVF4,Flat", "IDMap,Flat", "IDMap2,Flat", "IDMap,IVF4,Flat", "IDMap,HNSW8", "SQ8"]


@pytest.mark.parametrize("kind", [*KINDS, "IVF4,SQ8"])
@pytest.mark.parametrize("own_ids", [False, True])
def test_kinds_of_faiss_indexes(kind: str, own_ids: bool, stores: ModuleType, tmp_path: Path) -> None:
    skip_without("faiss")
    import faiss

    X = unit_rows()
    index = faiss.index_factory(D, kind)
    index.train(X)
    has_ids = kind.startswith(("IVF", "IDMap"))
    if own_ids and not has_ids:
        pytest.skip("the index has no ids of its own")
    ids = IDS if own_ids else np.arange(N)
    if has_ids:
        index.add_with_ids(X, ids)
    else:
        index.add(X)
    faiss.write_index(index, str(tmp_path / "vectors.faiss"))
    parts = list(stores.read_faiss(stores.open_faiss(tmp_path)))
    read_ids, read = (np.concatenate(part) for part in zip(*parts, strict=True))
    order, expected = np.argsort(read_ids), np.argsort(ids)
    np.testing.assert_array_equal(read_ids[order], ids[expected])
    np.testing.assert_allclose(read[order], X[expected], atol=0.02 if "SQ8" in kind else 0)


def test_faiss_indexes_that_are_not_read(stores: ModuleType, tmp_path: Path) -> None:
    skip_without("faiss")
    import faiss

    store = stores.FaissStore(faiss.index_factory(D, "PCA4,Flat"), tmp_path / "words.parquet")
    with pytest.raises(ValueError, match="IndexPreTransform are not read here; use an index"):
        next(stores.read_faiss(store))
    assert list(stores.read_faiss(stores.FaissStore(faiss.index_factory(D, "Flat"), tmp_path))) == []


def test_names_of_clusters(name: str, stores: ModuleType, tmp_path: Path) -> None:
    """Planted clusters, one for each word: the first word of a cluster is its own."""
    rng = np.random.default_rng(0)
    n_words = 5
    Y = rng.multinomial(4, np.full(n_words, 1 / n_words), size=400)
    patterns = unit_rows(n_words)
    words = ["dog", "cat", "tree", "house", "road"]
    model = FLiPExtractor(vocabulary=words, rank=n_words, max_iter=30, random_state=0).fit(Y @ patterns, Y)
    of = np.arange(N) % n_words
    X = patterns[of] + 0.01 * rng.normal(size=(N, D)).astype(np.float32)
    functions, store = made(stores, name, tmp_path, X)
    vector_store = importlib.import_module("vector_store")
    if name == "faiss":
        centroids, sizes = stores.cells_of(store)
        centroids, sizes = centroids[sizes > 0], sizes[sizes > 0]
    else:
        centroids, sizes = vector_store.clusters_of(lambda: functions.read(store), n_words, 0)
    found = model.read_directions(centroids - model.embedding_mean_, top_k=1)
    assert {read.raised[0] for read in found} == set(words)
    assert sizes.sum() == N


def growth_of_reading(folder: Path, name: str, keep: bool) -> float:
    """MB by which the peak of the memory grows after the first batch; ``keep`` holds all vectors."""
    sys.path.insert(0, str(EXAMPLES))
    functions = importlib.import_module("stores").STORES[name]
    read = functions.read(functions.open(folder))
    next(read)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = [batch if keep else len(batch[0]) for batch in read]
    assert len(kept) > 10
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


@pytest.mark.parametrize("name", ["parquet", "lancedb", "faiss"])
def test_memory_of_reading_is_bounded(name: str, stores: ModuleType, tmp_path: Path) -> None:
    """100,000 vectors, 51 MB, beside the index of FAISS; benchmarks/bench_stores.py has all stores."""
    skip_without(MODULES[name])
    functions = stores.STORES[name]
    X = unit_rows(2500, 128)
    functions.create(tmp_path, ((np.arange(i, i + 2500), X) for i in range(0, 100_000, 2500)))
    assert in_process(growth_of_reading, tmp_path, name, False) < 20
    if name == "parquet":  # negative control
        assert in_process(growth_of_reading, tmp_path, name, True) > 40


@pytest.mark.parametrize("name", ["parquet", "faiss"])
def test_script(name: str, encoder: Path, sentences: list[tuple[str, str]], tmp_path: Path) -> None:  # noqa: F811
    skip_without(MODULES[name])
    texts = tmp_path / "texts.txt"
    # The queries, at the end, are of all three kinds.
    lines = [text for _, text in sentences[::2] + sentences[1::2]]
    texts.write_text("".join(f"{line}\n" for line in lines))
    output = run(
        *("vector_store.py", "--store", name, "--texts", texts, "--encoder", encoder, "--out", tmp_path)
    )
    first, clusters, hit = re.split(r"\n[123]\. ", output)[1:]
    found = re.findall(r"^ +(\d+)  (.*)\n +its text: (.*)$", first, re.MULTILINE)
    assert len(found) == 5
    for row, words, text in found:
        assert text == lines[int(row)]
        assert len(set(words.split()) & set(text.lower().strip(".").split())) >= 3
    sizes = [int(n) for n in re.findall(r"^ +(\d+) vectors: \w+", clusters, re.MULTILINE)]
    assert sum(sizes) == 360 - 180 - 36
    assert "the cosine is" in hit or "none: every query" in hit


def test_store_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    script = importlib.import_module("vector_store")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["vector_store.py", "--store", "chroma", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        script.main()
    assert "--store chroma needs chromadb: pip install chromadb" in capsys.readouterr().err

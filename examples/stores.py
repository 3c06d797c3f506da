"""The vectors of a store, read in batches, and their words, written beside them: functions to copy.

For each store there are create_*, open_*, read_*, add_words_*, words_* and nearest_*; vector_store.py runs
them. Ids are whole numbers, and every row has a vector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise SystemExit("this example needs pyarrow: pip install pyarrow") from error

from flip_sklearn import KeywordMapper

BATCH_ROWS = 4096
# Otherwise pyarrow reads row groups as a whole, and keeps all that it has read.
STREAMED = {"pre_buffer": False, "buffer_size": 2**20}
N_CELLS = 10  # of a FAISS index
WORDS = pa.schema({"id": pa.int64(), "keywords": pa.list_(pa.string())})
# The ids (m,) and the vectors (m, d) of some rows of a store.
Batches = Iterator[tuple[np.ndarray, np.ndarray]]
# The words of some rows by their ids.
Words = dict[int, list[str]]


def table_of(ids: np.ndarray, X: np.ndarray) -> pa.RecordBatch:
    """Return rows with the columns id and embedding."""
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(X)), X.shape[1])
    return pa.record_batch({"id": pa.array(ids), "embedding": embedding})


def arrays_of(table: pa.RecordBatch | pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and the vectors of rows, each of which has a vector."""
    numbers = pc.list_flatten(table["embedding"]).to_numpy()
    return table["id"].to_numpy(), numbers.reshape(len(table), -1)


def nearest_of_all(batches: Batches, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and vectors of the k rows nearest to x by cosine, for stores without an index."""
    ids, X, cosines = np.empty(0, np.int64), np.empty((0, len(x)), x.dtype), np.empty(0)
    for batch_ids, batch in batches:
        ids, X = np.append(ids, batch_ids), np.vstack([X, batch])
        cosines = np.append(cosines, batch @ x / (np.linalg.norm(batch, axis=1) * np.linalg.norm(x)))
        best = np.argsort(-cosines, kind="stable")[:k]
        ids, X, cosines = ids[best], X[best], cosines[best]
    return ids, X


# Parquet. A file is not changed in place: a new one replaces it.


def create_parquet(folder: Path, batches: Batches) -> None:
    """Write a file with one list per row."""
    tables = starmap(table_of, batches)
    first = next(tables)
    with pq.ParquetWriter(folder / "vectors.parquet", first.schema) as writer:
        for table in chain([first], tables):
            writer.write_batch(table)


def open_parquet(folder: Path) -> Path:
    """Return the path of the file."""
    return folder / "vectors.parquet"


def read_parquet(path: Path) -> Batches:
    """Yield ids and vectors."""
    with pq.ParquetFile(path, **STREAMED) as file:
        yield from map(arrays_of, file.iter_batches(BATCH_ROWS, columns=["id", "embedding"]))


def add_words_parquet(path: Path, mapper: KeywordMapper) -> Path:
    """Add a column to the file."""
    part = path.with_suffix(".part")
    with pq.ParquetFile(path, **STREAMED) as file:
        schema = mapper(file.schema_arrow.empty_table()).schema
        with pq.ParquetWriter(part, schema) as writer:
            for batch in file.iter_batches(BATCH_ROWS):
                writer.write_batch(mapper(batch))
    os.replace(part, path)
    return path


def words_parquet(path: Path, n: int) -> Words:
    """Return the words of the first rows."""
    with pq.ParquetFile(path) as file:
        head = next(file.iter_batches(n, columns=["id", "keywords"]))
    return dict(zip(head["id"].to_pylist(), head["keywords"].to_pylist(), strict=True))


def nearest_parquet(path: Path, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and vectors of the nearest rows."""
    return nearest_of_all(read_parquet(path), x, k)


# Hugging Face datasets, which map tables into memory.


def create_datasets(folder: Path, batches: Batches) -> None:
    """Save a dataset that is made of a Parquet file, so that it does not have to fit in memory."""
    from datasets import Dataset

    create_parquet(folder, batches)
    dataset = Dataset.from_parquet(str(folder / "vectors.parquet"), cache_dir=str(folder / "cache"))
    dataset.save_to_disk(folder / "dataset")


def open_datasets(folder: Path) -> Any:
    """Return the dataset."""
    from datasets import load_from_disk

    return load_from_disk(folder / "dataset")


def read_datasets(dataset: Any) -> Batches:
    """Yield ids and vectors."""
    return map(arrays_of, dataset.with_format("arrow", columns=["id", "embedding"]).iter(BATCH_ROWS))


def add_words_datasets(dataset: Any, mapper: KeywordMapper) -> Any:
    """Return the dataset with one more column, which save_to_disk writes to another folder."""
    return dataset.with_format("arrow").map(mapper, batched=True, batch_size=BATCH_ROWS).with_format(None)


def words_datasets(dataset: Any, n: int) -> Words:
    """Return the words of the first rows."""
    return dict(zip(dataset[:n]["id"], dataset[:n]["keywords"], strict=True))


def nearest_datasets(dataset: Any, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and vectors of the nearest rows; with faiss, `add_faiss_index` is faster."""
    return nearest_of_all(read_datasets(dataset), x, k)


# LanceDB


def create_lancedb(folder: Path, batches: Batches) -> None:
    """Make a table."""
    tables = starmap(table_of, batches)
    first = next(tables)
    reader = pa.RecordBatchReader.from_batches(first.schema, chain([first], tables))
    _lancedb(folder).create_table("vectors", reader)


def _lancedb(folder: Path) -> Any:
    """Return a database. LanceDB reads ahead by up to 2 GB, if it is not told otherwise before it starts."""
    os.environ.setdefault("LANCE_DEFAULT_IO_BUFFER_SIZE", str(2**25))
    import lancedb

    return lancedb.connect(folder)


class LanceStore(NamedTuple):
    """A database, and its table of vectors."""

    db: Any
    table: Any


def open_lancedb(folder: Path) -> LanceStore:
    """Open the table."""
    db = _lancedb(folder)
    return LanceStore(db, db.open_table("vectors"))


def read_lancedb(store: LanceStore) -> Batches:
    """Yield ids and vectors."""
    return map(arrays_of, store.table.search().select(["id", "embedding"]).to_batches(BATCH_ROWS))


def add_words_lancedb(store: LanceStore, mapper: KeywordMapper) -> LanceStore:
    """Write a new version of the table; an error leaves the old one. Its indexes have to be made again."""
    schema = mapper(store.table.schema.empty_table()).schema
    batches = map(mapper, store.table.search().to_batches(BATCH_ROWS))
    first = list(islice(batches, 1))  # a ValueError of the mapper, before LanceDB makes another error of it
    reader = pa.RecordBatchReader.from_batches(schema, chain(first, batches))
    return LanceStore(store.db, store.db.create_table("vectors", reader, mode="overwrite"))


def words_lancedb(store: LanceStore, n: int) -> Words:
    """Return the words of some rows."""
    return {row["id"]: row["keywords"] for row in store.table.search().select(WORDS.names).limit(n).to_list()}


def nearest_lancedb(store: LanceStore, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and vectors of the nearest rows."""
    query = store.table.search(x).distance_type("cosine").select(["id", "embedding", "_distance"])
    return arrays_of(query.limit(k).to_arrow())


# Chroma


def _chroma(folder: Path) -> Any:
    """Return a client that sends nothing."""
    import chromadb

    return chromadb.PersistentClient(folder, settings=chromadb.Settings(anonymized_telemetry=False))


def create_chroma(folder: Path, batches: Batches) -> None:
    """Make a collection; it needs no embedding function, since there are vectors."""
    collection = _chroma(folder).create_collection(
        "vectors", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    for ids, X in batches:
        collection.add(ids=[str(i) for i in ids], embeddings=X)


def open_chroma(folder: Path) -> Any:
    """Return the collection."""
    return _chroma(folder).get_collection("vectors", embedding_function=None)


def read_chroma(collection: Any) -> Batches:
    """Yield ids and vectors."""
    for offset in range(0, collection.count(), BATCH_ROWS):
        page = collection.get(limit=BATCH_ROWS, offset=offset, include=["embeddings"])
        yield np.array(page["ids"], dtype=np.int64), page["embeddings"].astype(np.float32)


def add_words_chroma(collection: Any, mapper: KeywordMapper) -> Any:
    """Add a list to the metadata: `where={"keywords": {"$contains": "dog"}}` then finds records."""
    for ids, X in read_chroma(collection):
        metadata = [{"keywords": words} for words in mapper(X)]
        collection.update(ids=[str(i) for i in ids], metadatas=metadata)
    return collection


def words_chroma(collection: Any, n: int) -> Words:
    """Return the words of the first records."""
    page = collection.get(limit=n, include=["metadatas"])
    return {int(i): data["keywords"] for i, data in zip(page["ids"], page["metadatas"], strict=True)}


def nearest_chroma(collection: Any, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and vectors of the nearest records."""
    found = collection.query(query_embeddings=[x], n_results=k, include=["embeddings"])
    return np.array(found["ids"][0], dtype=np.int64), found["embeddings"][0].astype(np.float32)


# FAISS, which holds vectors and their numbers, and nothing else.


class FaissStore(NamedTuple):
    """An index, and the file of the words of its vectors."""

    index: Any
    words: Path


def create_faiss(folder: Path, batches: Batches) -> None:
    """Write an index of exact vectors in cells, which are learned from the first batch."""
    import faiss

    first = next(batches)
    n, d = first[1].shape
    index = faiss.index_factory(d, f"IVF{min(N_CELLS, n)},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(first[1])
    for ids, X in chain([first], batches):
        index.add_with_ids(X, ids)
    index.nprobe = index.nlist  # search all cells
    faiss.write_index(index, str(folder / "vectors.faiss"))


def open_faiss(folder: Path) -> FaissStore:
    """Read the index."""
    import faiss

    return FaissStore(faiss.read_index(str(folder / "vectors.faiss")), folder / "words.parquet")


def read_faiss(store: FaissStore) -> Batches:
    """Yield ids and vectors of an index that is flat, HNSW or has cells, with ids of its own or without.

    Vectors that the index has compressed are approximations.
    """
    import faiss

    index, outer_ids = store.index, None
    if isinstance(index, faiss.IndexIDMap):
        outer_ids, index = faiss.vector_to_array(index.id_map), faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexIVF):
        # Cell by cell: reconstruct_n returns other memory if the ids are not 0, 1, ..., n - 1.
        batches = _read_cells(index)
    elif isinstance(index, (faiss.IndexFlatCodes, faiss.IndexHNSW)):
        starts = range(0, index.ntotal, BATCH_ROWS)
        sizes = (min(BATCH_ROWS, index.ntotal - start) for start in starts)
        batches = (
            (np.arange(start, start + size), index.reconstruct_n(start, size))
            for start, size in zip(starts, sizes, strict=True)
        )
    else:
        raise ValueError(
            f"vectors of a {type(index).__name__} are not read here; use an index that is flat, HNSW or IVF, "
            "or read the vectors that it was made of."
        )
    for ids, X in batches:
        yield (ids if outer_ids is None else outer_ids[ids]), X


def _read_cells(index: Any) -> Batches:
    import faiss

    for cell in range(index.nlist):
        n = index.invlists.list_size(cell)
        if n:
            ids = faiss.rev_swig_ptr(index.invlists.get_ids(cell), n).copy()
            for start in range(0, n, BATCH_ROWS):
                X = np.empty((min(BATCH_ROWS, n - start), index.d), dtype=np.float32)
                for i, row in enumerate(X, start):
                    index.reconstruct_from_offset(cell, i, faiss.swig_ptr(row))
                yield ids[start : start + len(X)], X


def add_words_faiss(store: FaissStore, mapper: KeywordMapper) -> FaissStore:
    """Write a table of words by id."""
    part = store.words.with_suffix(".part")
    with pq.ParquetWriter(part, WORDS) as writer:
        for ids, X in read_faiss(store):
            words = pa.array(mapper(X), WORDS.field("keywords").type)
            writer.write_batch(pa.record_batch([pa.array(ids), words], schema=WORDS))
    os.replace(part, store.words)
    return store


def words_faiss(store: FaissStore, n: int) -> Words:
    """Return the words of the first rows of the table."""
    return words_parquet(store.words, n)


def nearest_faiss(store: FaissStore, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and vectors of the nearest vectors."""
    _, ids, X = store.index.search_and_reconstruct(x[None], k)
    return ids[0], X[0]


def cells_of(store: FaissStore) -> tuple[np.ndarray, np.ndarray]:
    """Return the centroids (c, d) of the cells of an index, and the numbers of vectors in them."""
    index = store.index
    sizes = np.array([index.invlists.list_size(cell) for cell in range(index.nlist)])
    return index.quantizer.reconstruct_n(0, index.nlist), sizes


class Store(NamedTuple):
    """The package of a store, the module in it, and the functions above."""

    package: str
    module: str
    create: Callable[[Path, Batches], None]
    open: Callable[[Path], Any]
    read: Callable[[Any], Batches]
    add_words: Callable[[Any, KeywordMapper], Any]
    words: Callable[[Any, int], Words]
    nearest: Callable[[Any, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


PACKAGES = {
    "parquet": ("pyarrow", "pyarrow"),
    "datasets": ("datasets", "datasets"),
    "lancedb": ("lancedb", "lancedb"),
    "chroma": ("chromadb", "chromadb"),
    "faiss": ("faiss-cpu", "faiss"),
}
STEPS = ("create", "open", "read", "add_words", "words", "nearest")
STORES = {
    name: Store(*packages, *(globals()[f"{step}_{name}"] for step in STEPS))
    for name, packages in PACKAGES.items()
}

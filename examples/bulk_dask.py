"""Keywords for a table in many files, extracted by several processes with Dask.

Run it with ``python examples/bulk_dask.py`` after ``pip install '.[dask]'``. It

1. collects sentences from the docstrings of NumPy (no download) and embeds them with tf-idf and a
   singular value decomposition, which needs no model; use your own encoder instead;
2. trains FLiP on some of the sentences and writes the embeddings of the others to Parquet files, one list of
   numbers per row, as an embedding job would;
3. starts two worker processes, sends them the model once, and lets each of them read partitions and write
   the keywords to other files;
4. prints some of the keywords.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
import time
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from distributed import Client, LocalCluster
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from flip_sklearn import FLiPExtractor, KeywordMapper
from flip_sklearn.datasets import load_docstrings

N_TRAINING, N_FILES, N_PRINTED = 2000, 6, 5


def extract(batch: pd.DataFrame, mapper: KeywordMapper) -> pd.DataFrame:
    """Add the keywords to a partition and drop the embeddings."""
    return mapper(batch).drop(columns="embedding")


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--out", type=Path, default=Path("outputs/bulk"), help="folder to write to")
    args = parser.parse_args()

    print("1. Sentences and their embeddings", flush=True)
    texts = load_docstrings(packages=["numpy"], random_state=0)
    encoder = TfidfVectorizer(min_df=2, stop_words="english").fit(texts)
    X = TruncatedSVD(128, random_state=0).fit_transform(encoder.transform(texts))
    X = X.astype(np.float32)

    print(f"2. Training on {N_TRAINING:,} of {len(texts):,}; the others go to {N_FILES} files", flush=True)
    words = CountVectorizer(min_df=2, stop_words="english")
    Y = words.fit_transform(texts[:N_TRAINING])
    flip = FLiPExtractor(vocabulary=words.vocabulary_, top_k=6, max_iter=8, tol=0.02, random_state=0).fit(
        X[:N_TRAINING], Y
    )
    shutil.rmtree(args.out, ignore_errors=True)
    (args.out / "embeddings").mkdir(parents=True)
    rest = pd.DataFrame({"text": texts[N_TRAINING:], "embedding": list(X[N_TRAINING:])})
    rest.insert(0, "id", np.arange(len(rest)))
    for file, rows in enumerate(np.array_split(np.arange(len(rest)), N_FILES)):
        rest.iloc[rows].to_parquet(args.out / f"embeddings/{file}.parquet", index=False)

    mapper = KeywordMapper(flip)
    print(f"3. {mapper}\n   on {args.workers} workers", flush=True)
    with (
        LocalCluster(n_workers=args.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        start = time.perf_counter()
        table = dd.read_parquet(args.out / "embeddings")
        remote_mapper = client.scatter(mapper, broadcast=True)
        meta = extract(table._meta, mapper)
        result = table.map_partitions(extract, remote_mapper, meta=meta)
        schema = pa.schema({"id": pa.int64(), "text": pa.string(), "keywords": pa.list_(pa.string())})
        result.to_parquet(args.out / "keywords", write_index=False, schema=schema)
        seconds = time.perf_counter() - start

    print(f"4. {len(rest):,} rows in {seconds:.1f} s, in {args.out / 'keywords'}\n")
    sample = pd.read_parquet(args.out / "keywords").sample(N_PRINTED, random_state=1)
    for row in sample.itertuples():
        print(textwrap.shorten(row.text, 96))
        print("   ", *row.keywords)


if __name__ == "__main__":
    main()

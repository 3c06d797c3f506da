"""Names: recall of named entities among the ten best words, with and without features of the words.

python -m benchmarks.rare_entities [--seed 0]

Models are trained on the words of the training sentences, split at white space as the names are. The last
model also has all words of the dev sentences that training never saw, added by ``extend_vocabulary``.
Differences are to the model without features, with paired intervals over the sentences.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, read_lines
from benchmarks.rare_captions import embed_words
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics.bootstrap import PairedBootstrap
from flip_sklearn.diagnostics.inputs import check_settings
from flip_sklearn.metrics import entity_curve

K = 10
METRICS = ("recall_strict", "recall_partial")


def read_part(folder: Path, part: str) -> tuple[list[str], list[list[str]]]:
    """The sentences, and the names in each."""
    sentences = [json.loads(line) for line in read_lines(folder / f"entities.{part}.jsonl.gz")]
    return [row["text"] for row in sentences], [row["entity_names"] for row in sentences]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    options = parser.parse_args(arguments)
    texts, _ = read_part(options.data, "train")
    dev_texts, names = read_part(options.data, "dev")
    vectorizer = CountVectorizer(token_pattern=r"\S+", dtype=np.float32)
    words = vectorizer.fit(texts).get_feature_names_out().tolist()
    new_words = sorted(set(CountVectorizer(token_pattern=r"\S+").fit(dev_texts).vocabulary_) - set(words))
    X, X_dev, features, new_features = map(embed_words, (texts, dev_texts, words, new_words))

    def fit(word_features: np.ndarray | None) -> FLiPExtractor:
        flip = FLiPExtractor(vocabulary=words, word_features=word_features, random_state=options.seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the fit still made progress")
            flip.fit(X, vectorizer.transform(texts))
        return flip

    with_features = fit(features)
    models = {
        "no features": fit(None),
        "word_features": with_features,
        "word_features, new words added": with_features.extend_vocabulary(new_words, new_features),
    }
    rows = np.flatnonzero([len(row) > 0 for row in names])
    names = [names[i] for i in rows]
    columns = []
    for use_bias in (True, False):
        for model in models.values():
            keywords = model.set_params(use_bias=use_bias).extract_keywords(X_dev[rows], top_k=K)
            (point,) = entity_curve(names, keywords, [K], vectorizer=vectorizer)
            columns += [getattr(point, metric).per_row for metric in METRICS]
    settings = check_settings(2000, 0.95, options.seed, 0)
    bootstrap = PairedBootstrap(np.column_stack(columns), np.arange(len(rows)), settings)
    column = np.arange(len(columns)).reshape(2, len(models), len(METRICS))
    print(
        f"{len(texts)} training sentences, {len(words)} words; {len(rows)} dev sentences with "
        f"{sum(map(len, names))} names; {len(new_words)} new words; the {K} best words of a sentence"
    )
    print("| bias | model | strict | partial | strict, difference | partial, difference |")
    print("|---|---|---|---|---|---|")
    for b, bias in enumerate(("with", "without")):
        recall = bootstrap.means(column[b])
        difference = bootstrap.differences(column[b], np.broadcast_to(column[b, :1], column[b].shape))
        for m, name in enumerate(models):
            shares = [
                f"{recall.value[m, i]:.3f} ({recall.low[m, i]:.3f} to {recall.high[m, i]:.3f})"
                for i in range(len(METRICS))
            ]
            changes = [
                f"{difference.value[m, i]:+.3f} ({difference.low[m, i]:+.3f} to {difference.high[m, i]:+.3f})"
                for i in range(len(METRICS))
            ]
            print(f"| {bias} | {name} | {' | '.join([*shares, *(changes if m else ['', ''])])} |")


if __name__ == "__main__":
    main()

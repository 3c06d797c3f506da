"""Figure 1 of the FLiP paper for reproduce_paper.py: names found with and without the bias."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor, stack_views
from flip_sklearn.datasets import PairedEmbeddings
from flip_sklearn.datasets.paired import delete_punctuation
from flip_sklearn.diagnostics import EntityRecallCurve, SentenceSplit, entity_recall_curve


def load_entities(folder: Path, part: str, data: PairedEmbeddings) -> list[list[str]] | None:
    """Return the names in each sentence of a part, from its file of entities; None if there is no file.

    A line of ``{part}_entities*.jsonl`` has the keys "entity_names", "text" and perhaps "line_number" (of
    the transcript, from 1). As in the authors' code, a sentence is looked up by its text, then by its line.
    """
    paths = sorted(folder.glob(f"{part}_entities*.jsonl"))
    if not paths:
        return None
    if len(paths) > 1:
        raise ValueError(f"{folder} has {' and '.join(path.name for path in paths)}; keep one of them.")
    of_text: dict[str, list[str]] = {}
    of_line: dict[int, list[str]] = {}
    for number, line in enumerate(paths[0].read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            names = [delete_punctuation(name) for name in record["entity_names"]]
            text = delete_punctuation(record["text"]).casefold()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"line {number} of {paths[0]} is not an object with text and entity_names: {error!r}"
            ) from error
        of_text[text] = of_line[record.get("line_number")] = [name for name in names if name]
    rows = data.rows.tolist()
    return [
        of_text.get(text.casefold(), of_line.get(row + 1, []))
        for text, row in zip(data.texts, rows, strict=True)
    ]


def compute_curve(
    views: dict[str, np.ndarray],
    texts: list[str],
    words: CountVectorizer,
    names: list[list[str]],
    split: SentenceSplit,
    seed: int,
) -> EntityRecallCurve:
    """Train FLiP on both views of the training sentences; ``names`` are those of all test sentences."""
    counts = words.transform([texts[i] for i in split.train])
    stacked = stack_views({name: view[split.train] for name, view in views.items()}, counts)
    flip = FLiPExtractor(vocabulary=words.vocabulary_, random_state=seed)
    flip.fit(stacked.X, stacked.Y, stacked.sample_weight, groups=stacked.groups)
    X = {name: view[split.test] for name, view in views.items()}
    return entity_recall_curve(flip, X, names, vectorizer=words, random_state=seed)

"""Draw every plot of the package from real sentences: those in docs/pictures.md.

    python examples/pictures.py --out docs/images

The sentences are docstrings of the installed packages, embedded with all-MiniLM-L6-v2 as in ``make demo``.
Run ``make demo`` first to reuse its embeddings, which are stored on disk.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from quickstart import embed
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from flip_sklearn import FLiPExtractor, plots, regularization_path
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import (
    compare_extractors,
    entity_recall_curve,
    explain_similarity,
    rank_analysis,
    view_alignment,
    vocabulary_preference,
    word_recoverability,
)

matplotlib.use("Agg")


def shuffle_words(text: str, rng: np.random.Generator) -> str:
    """Return the words in random order."""
    return " ".join(rng.permutation(text.split()))


def misspell(text: str, rng: np.random.Generator) -> str:
    """Swap two adjacent letters inside each word of four or more letters."""
    words = text.split()
    for i, word in enumerate(words):
        if len(word) > 3:
            k = rng.integers(1, len(word) - 2)
            words[i] = word[:k] + word[k + 1] + word[k] + word[k + 2 :]
    return " ".join(words)


def save(display: Any, folder: Path, name: str) -> None:
    """Save the figure of a display as a small PNG file."""
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    display.figure_.savefig(buffer, dpi=100)
    Image.open(buffer).convert("RGB").quantize(256).save(folder / f"{name}.png", optimize=True)
    plt.close(display.figure_)
    print(f"{folder / name}.png", flush=True)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/pictures"), help="folder to write to")
    parser.add_argument(
        "--cache", type=Path, default=Path("outputs/cache"), help="folder of stored embeddings"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    # The same sentences and the same split as in quickstart.py.
    texts = load_docstrings(max_sentences=9000, random_state=0, verbose=True)
    train, test = train_test_split(texts, test_size=1000, random_state=0)
    texts = train + test
    X = embed(texts, None, args.cache)
    counter = CountVectorizer(strip_accents="ascii")
    Y = counter.fit_transform(texts)
    tokenize = counter.build_analyzer()
    n = 7000
    X_test, Y_test, test = X[n:], Y[n:], texts[n:]
    flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X[:n], Y[:n])

    flip.set_params(use_bias=False)
    # A sentence of medium length that is easy to understand.
    tokens = [tokenize(text) for text in test]
    i = next(i for i, words in enumerate(tokens) if 9 <= len(words) <= 12 and "list" in words)
    keywords = plots.KeywordDisplay.from_estimator(
        flip, X_test[i], top_k=10, words_present=tokens[i], text=test[i]
    )
    save(keywords, args.out, "keywords")

    similarity = X_test @ X_test[i]
    j = int(np.argsort(-similarity)[1])
    explanation = explain_similarity(flip, X_test[i], X_test[j])
    title = f'"{test[i]}" and "{test[j]}"'
    save(plots.SimilarityDisplay.from_result(explanation, name=title), args.out, "similarity")

    has_matrix = Y[:n, [counter.vocabulary_["matrix"]]].toarray().ravel() > 0
    classifier = LogisticRegression(max_iter=1000).fit(X[:n], has_matrix)
    direction = plots.DirectionDisplay.from_estimator(flip, classifier.coef_, kind="coefficients", top_k=8)
    save(direction, args.out, "directions")

    flip.set_params(use_bias=True)
    recall = word_recoverability(flip, X_test, Y_test, random_state=0)
    save(plots.RecoverabilityDisplay.from_result(recall), args.out, "recoverability")
    recall = word_recoverability(flip, X_test, Y_test, by="length", random_state=0)
    save(plots.RecoverabilityDisplay.from_result(recall), args.out, "recoverability-length")

    names = [re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z0-9]*)+\b", text) for text in test]
    entities = entity_recall_curve(flip, X_test, names, random_state=0)
    save(plots.EntityCurveDisplay.from_result(entities), args.out, "entities")

    ranks = rank_analysis(X, Y, random_state=0)
    save(plots.RankCurveDisplay.from_result(ranks), args.out, "ranks")

    path = regularization_path(X, Y, 10, estimator=FLiPExtractor(rank=64, random_state=0))
    save(plots.SparsityDisplay.from_result(path), args.out, "sparsity")

    frequent = CountVectorizer(strip_accents="ascii", max_features=1500)
    counts = frequent.fit_transform(texts)
    words = frequent.get_feature_names_out().tolist()
    dictionary = embed(words, None, args.cache)
    methods = compare_extractors(X, counts, dictionary=dictionary, random_state=0)
    save(plots.ExtractorDisplay.from_result(methods), args.out, "extractors")

    rng, m = np.random.default_rng(0), 1250
    views = {
        "as written": X[:m],
        "words mixed up": embed([shuffle_words(text, rng) for text in texts[:m]], None, args.cache),
        "misspelt": embed([misspell(text, rng) for text in texts[:m]], None, args.cache),
    }
    alignment = view_alignment(views, counts[:m], random_state=0)
    save(plots.AlignmentDisplay.from_result(alignment), args.out, "alignment")
    kinds = {
        "short words": counts[:m][:, [len(word) < 6 for word in words]],
        "long words": counts[:m][:, [len(word) >= 6 for word in words]],
    }
    preference = vocabulary_preference(views, kinds, random_state=0)
    save(plots.AlignmentDisplay.from_result(preference), args.out, "preference")


if __name__ == "__main__":
    main()

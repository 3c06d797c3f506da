"""Writes the stored objects of this folder; runs with the package at commit f2c9d34 only.

Every object goes into one pickle file, by name; the estimators also into joblib and skops files. The
expected results are in ``expected.json``, so that a later version can be held to them.
"""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import skops.io
from flip_sklearn._cli.recipe import Recipe
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import (
    ConceptVectorizer,
    FLiPExtractor,
    KeywordMapper,
    SpLiCEExtractor,
    diagnostics,
    metrics,
    regularization_path,
    stack_views,
)
from flip_sklearn.encoders import SentenceEncoder

FOLDER = Path(__file__).parent
WORDS = ["red", "green", "blue", "dog", "cat", "tree", "house", "new york"]
FLIP = {
    "max_iter": 3,
    "random_state": 0,
    "vocabulary": WORDS,
    "device": "cpu",
    "precision": "float32",
}


def main() -> None:
    rng = np.random.default_rng(0)
    Y = rng.poisson(0.4, size=(120, len(WORDS)))
    X = (Y @ rng.normal(size=(len(WORDS), 6)) + 0.1 * rng.normal(size=(120, 6))).astype(np.float32)
    other = (X + 0.3 * rng.normal(size=X.shape)).astype(np.float32)
    views = {"text": X, "speech": other}
    texts = [" ".join(np.repeat(WORDS, row)) or "nothing" for row in Y]

    flip = FLiPExtractor(rank=4, **FLIP).fit(X, Y)
    stream = FLiPExtractor(rank=4, **FLIP).partial_fit(X[:60], Y[:60]).partial_fit(X[60:], Y[60:])
    estimators = {
        "flip": flip,
        "held out": FLiPExtractor(rank=4, early_stopping=True, **FLIP).fit(X, Y),
        "lip": FLiPExtractor(rank=None, **FLIP).fit(X, Y),
        "sparse": FLiPExtractor(rank=4, l1_strength=0.5, **FLIP).fit(X, Y).to_sparse(),
        "stream": stream,
        "pipeline": make_pipeline(StandardScaler(), FLiPExtractor(rank=2, **FLIP)).fit(X, Y),
        "splice": SpLiCEExtractor(rng.normal(size=(len(WORDS), 6)), vocabulary=WORDS).fit(X),
        "vectorizer": ConceptVectorizer(min_count=2, min_pmi=0.5).fit(texts),
        "given vocabulary": ConceptVectorizer(vocabulary=WORDS).fit([]),
    }
    splice = estimators["splice"]
    path = regularization_path(X, Y, 3, estimator=flip, max_iter=2, kkt=True)
    settings = {
        "estimator": FLiPExtractor(rank=4, **FLIP),
        "n_bootstrap": 20,
        "random_state": 0,
        "verbose": 0,
    }
    names = [[WORDS[j] for j in np.flatnonzero(row)] for row in Y]
    curve = diagnostics.entity_recall_curve(
        flip, views, names, ks=[1, 3], n_bootstrap=20, random_state=0, verbose=0
    )
    alignment = diagnostics.view_alignment(views, Y, **settings)
    objects = {
        **estimators,
        "search": GridSearchCV(FLiPExtractor(**FLIP), {"rank": [2, 4]}, cv=2).fit(X, Y),
        "analyzer": estimators["vectorizer"].build_analyzer(),
        "encoder": SentenceEncoder("sentence-transformers/all-MiniLM-L6-v2", normalize=True),
        "mapper": KeywordMapper(flip, top_k=3),
        "path": path,
        "stacked": stack_views(views, Y),
        "quality": splice.decomposition_quality(X),
        "means": splice.mean_concepts(X, np.arange(120) % 2),
        "accuracy": metrics.keyword_accuracy(Y, flip.decision_function(X)),
        "precision": metrics.precision_recall(Y, flip.decision_function(X), 2),
        "entity recall": metrics.entity_recall(names, flip.extract_keywords(X)),
        "split": diagnostics.split_sentences(views, random_state=0),
        "alignment": alignment,
        "preference": diagnostics.vocabulary_preference(
            views, {"text": Y, "speech": Y}, **settings
        ),
        "encoders": diagnostics.compare_encoders(
            {"a": views, "b": views}, {"text": Y, "speech": Y}, **settings
        ),
        "ranks": diagnostics.rank_analysis(views, Y, [2, None], **settings),
        "extractors": diagnostics.compare_extractors(
            views, Y, n_bootstrap=20, random_state=0, verbose=0
        ),
        "entity curve": curve,
        "recoverability": diagnostics.word_recoverability(
            flip, X, Y, n_bootstrap=20, random_state=0, verbose=0
        ),
        "similarity": diagnostics.explain_similarity(flip, X[0], X[1]),
        "erased": diagnostics.erase_words(flip, X[:4], "dog"),
    }
    with open(FOLDER / "objects.pkl", "wb") as file:
        pickle.dump(objects, file, protocol=4)
    joblib.dump(estimators, FOLDER / "estimators.joblib", compress=3)
    for name, estimator in estimators.items():
        data = skops.io.dumps(estimator)
        (FOLDER / f"{name.replace(' ', '-')}.skops").write_bytes(data)
    np.save(FOLDER / "X.npy", X)
    np.save(FOLDER / "Y.npy", Y)
    # A fit that was cut off after its first pass.
    short = {**FLIP, "vocabulary": None, "max_iter": 1}
    FLiPExtractor(rank=4, **short, checkpoint_dir=FOLDER / "checkpoints").fit(X, Y)
    # As the command line leaves it.
    FLiPExtractor(rank=4, **FLIP).fit(X, Y).save_pretrained(
        FOLDER / "command-line-model", encoder="a/b", trained_on="120 sentences."
    )
    indic = ConceptVectorizer(vocabulary=WORDS, token_pattern="indic")
    Recipe.of(SentenceEncoder("a/b", normalize=True), indic).write(FOLDER / "command-line-model")
    expected = {
        "repr": {
            name: repr(value)
            for name, value in objects.items()
            if name not in estimators and name != "analyzer" and name != "stacked"
        },
        "keywords": {
            name: estimators[name].extract_keywords(X[:20], top_k=3)
            for name in ("flip", "held out", "lip", "sparse", "stream", "splice")
        },
        "pipeline": estimators["pipeline"].predict(X[:20]).toarray().tolist(),
        "bias": {n: estimators[n].bias_.astype(float).tolist() for n in ("flip", "lip", "stream")},
        "vectorizer": estimators["vectorizer"].get_feature_names_out().tolist(),
        "mapper": objects["mapper"](X[:5]).tolist(),
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()

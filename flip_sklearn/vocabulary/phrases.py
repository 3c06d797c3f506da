"""Phrases in token ids: choice of the concepts of a corpus, and greedy matching of concepts in texts.

Texts come in blocks ``(ids, row_ends)``: the tokens of row i are ``ids[row_ends[i - 1]:row_ends[i]]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

Block = tuple[np.ndarray, np.ndarray]
MAX_PENDING_PAIRS = 2**22


@dataclass(frozen=True)
class PhraseMatcher:
    """Greedy left-to-right longest match, by a trie that is walked from all positions at once.

    ``words`` gives each word of the concepts an id; ``first[word]`` is the trie node after a first word;
    edge ``node * len(words) + word`` leads to ``child``; ``column[node]`` is the concept that ends there,
    or -1. Fitted vectorizers are pickled with these attributes.
    """

    words: dict[str, int]
    first: np.ndarray
    edges: np.ndarray
    child: np.ndarray
    column: np.ndarray
    n_columns: int

    @classmethod
    def from_concepts(cls, concepts: Sequence[tuple[str, ...]]) -> PhraseMatcher:
        """Build the trie; column j counts ``concepts[j]``. A concept without words never matches."""
        words = {word: i for i, word in enumerate(dict.fromkeys(itertools.chain(*concepts)))}
        child_of: dict[tuple[int, int], int] = {}  # keys are (node, word id); the root is node -1
        column: list[int] = []  # by node
        for j, concept in enumerate(concepts):
            node = -1
            for word in concept:
                edge = (node, words[word])
                if edge not in child_of:
                    child_of[edge] = len(column)
                    column.append(-1)
                node = child_of[edge]
            if concept:
                column[node] = j
        first = np.full(len(words), -1, dtype=np.int64)
        edges, children = [], []
        for (node, word_id), child in sorted(child_of.items()):
            if node < 0:
                first[word_id] = child
            else:
                edges.append(node * len(words) + word_id)
                children.append(child)
        edge_array, child_array, column_array = (np.array(v, np.int64) for v in (edges, children, column))
        return cls(words, first, edge_array, child_array, column_array, len(concepts))

    def rename(self, clean: Callable[[str], str]) -> PhraseMatcher:
        """Return this matcher with other spellings of its words; of equal ones, the first counts."""
        if all(map(str.isascii, self.words)):
            return self
        words: dict[str, int] = {}
        for word, i in self.words.items():
            cleaned = clean(word)
            words[word if cleaned in words else cleaned] = i
        return replace(self, words=words)

    def word_ids(self, tokens: Sequence[str]) -> np.ndarray:
        """Return the id of each token, -1 for one that is in no concept."""
        return np.array([self.words.get(token, -1) for token in tokens], dtype=np.int64)

    def find(self, ids: np.ndarray, row_ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the position and the column of each match, in order of the text."""
        row_end = np.repeat(row_ends, np.diff(row_ends, prepend=0))
        # The longest concept at each position, whether or not an earlier match covers it.
        length = np.ones(ids.size, dtype=np.int64)
        column = np.full(ids.size, -1, dtype=np.int64)
        position = np.flatnonzero(ids >= 0)
        node = self.first[ids[position]]
        position, node = position[node >= 0], node[node >= 0]
        for depth in itertools.count(1):
            is_end = self.column[node] >= 0
            column[position[is_end]] = self.column[node[is_end]]
            length[position[is_end]] = depth
            in_row = position + depth < row_end[position]
            position, node = position[in_row], node[in_row]
            word = ids[position + depth]
            position, node, word = position[word >= 0], node[word >= 0], word[word >= 0]
            if not position.size or not self.edges.size:
                break
            edge = node * len(self.words) + word
            index = np.minimum(np.searchsorted(self.edges, edge), self.edges.size - 1)
            exists = self.edges[index] == edge
            position, node = position[exists], self.child[index[exists]]
        matches = np.flatnonzero(_greedy_starts(length) & (column >= 0))
        return matches, column[matches]

    def count(self, ids: np.ndarray, row_ends: np.ndarray) -> sp.csr_array:
        """Count the concepts of n texts: CSR (n, V)."""
        position, column = self.find(ids, row_ends)
        row = np.searchsorted(row_ends, position, side="right")
        ones = np.ones(column.size, dtype=np.int32)
        return sp.csr_array((ones, (row, column)), shape=(row_ends.size, self.n_columns))


def _greedy_starts(length: np.ndarray) -> np.ndarray:
    """Mark the positions that a scan visits which starts at 0 and moves from i to ``i + length[i]``.

    A position that no earlier match covers is visited in any case. The others are reached from these by
    jumps of 1, 2, 4, ... steps (pointer doubling).
    """
    next_position = np.arange(length.size) + length
    starts = np.ones(length.size + 1, dtype=bool)  # the last entry is the end of the text
    starts[1:-1] = np.maximum.accumulate(next_position)[:-1] <= np.arange(1, length.size)
    jump = np.append(next_position, length.size)
    while not starts[jump[starts]].all():
        starts[jump[starts]] = True
        jump = jump[jump]
    return starts[:-1]


def choose_words(
    words: list[str], counts: np.ndarray, min_count: int, limit: int | None
) -> dict[tuple[str, ...], tuple[int, float]]:
    """Return the count, and NaN as PMI, of each word that becomes a concept."""
    frequent = np.flatnonzero(counts >= min_count)
    top = _most_frequent(counts[frequent], limit, lambda i: words[frequent[i]])
    return {(words[i],): (int(counts[i]), math.nan) for i in frequent[top]}


def choose_pairs(
    words: list[str],
    counts: np.ndarray,
    blocks: Iterable[Block],
    min_count: int,
    min_pmi: float,
    limit: int | None,
) -> dict[tuple[str, ...], tuple[int, float]]:
    """Return the count and the PMI of each pair of words that becomes a concept.

    Token id i of the blocks is ``words[i]``, which occurs ``counts[i]`` times.
    """
    # A pair is no more frequent than its words, so that only pairs of frequent words are counted.
    keys, pair_counts, n_pairs = _count_pairs(blocks, counts >= min_count)
    is_frequent = pair_counts >= min_count
    keys, pair_counts = keys[is_frequent], pair_counts[is_frequent]
    first, second = np.divmod(keys, counts.size)
    by_chance = counts[first].astype(np.float64) * counts[second] * n_pairs
    pmi = np.log(pair_counts * float(counts.sum()) ** 2 / by_chance)
    associated = np.flatnonzero(pmi >= min_pmi)
    pairs = {i: (words[first[i]], words[second[i]]) for i in associated}
    top = associated[_most_frequent(pair_counts[associated], limit, lambda i: " ".join(pairs[associated[i]]))]
    return {pairs[i]: (int(pair_counts[i]), float(pmi[i])) for i in top}


def _most_frequent(counts: np.ndarray, limit: int | None, name_of: Callable[[int], str]) -> np.ndarray:
    """Return the indices of the ``limit`` largest counts; equal counts in the order of names."""
    if limit is None or counts.size <= limit:
        return np.arange(counts.size)
    lowest = np.partition(counts, -limit)[-limit]
    above = np.flatnonzero(counts > lowest)
    tied = sorted(np.flatnonzero(counts == lowest).tolist(), key=name_of)
    return np.concatenate([above, np.array(tied[: limit - above.size], dtype=above.dtype)])


def _count_pairs(blocks: Iterable[Block], counted: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Count pairs of neighbors in a row, of which both words are ``counted`` (bool, by id).

    Returns the keys ``first * counted.size + second`` of the pairs, their counts, and the number of all
    neighbors, counted or not.
    """
    keys, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    pending: list[np.ndarray] = []
    n_pairs = n_pending = 0
    for ids, row_ends in blocks:
        in_row = np.ones(max(ids.size - 1, 0), dtype=bool)
        in_row[row_ends[(row_ends > 0) & (row_ends < ids.size)] - 1] = False
        n_pairs += int(in_row.sum())
        is_counted = counted[ids]
        use = in_row & is_counted[:-1] & is_counted[1:]
        pending.append(ids[:-1][use].astype(np.int64) * counted.size + ids[1:][use])
        n_pending += pending[-1].size
        if n_pending >= max(MAX_PENDING_PAIRS, keys.size):
            keys, counts = _merge_keys(keys, counts, pending)
            pending, n_pending = [], 0
    return *_merge_keys(keys, counts, pending), n_pairs


def _merge_keys(
    keys: np.ndarray, counts: np.ndarray, pending: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Add each occurrence of a key in ``pending`` to the counts; keys stay sorted and distinct."""
    new_keys, new_counts = np.unique(np.concatenate([keys[:0], *pending]), return_counts=True)
    merged, index = np.unique(np.concatenate([keys, new_keys]), return_inverse=True)
    weights = np.concatenate([counts, new_counts])
    return merged, np.bincount(index, weights=weights).astype(np.int64)

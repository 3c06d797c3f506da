"""Hits of a ranking."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from flip_sklearn.metrics.ranking import count_hits, find_words, hits


def words_of_rows(rows: list[list[int]], n_words: int) -> sp.csr_array:
    words = sp.lil_array((len(rows), n_words), dtype=bool)
    for row, indices in enumerate(rows):
        words[row, indices] = True
    return sp.csr_array(words)


def test_hits_are_words_among_as_many_best() -> None:
    words = words_of_rows([[0, 3], [1], [], [2, 3, 4]], 5)
    top = np.array([[3, 1, 0], [0, 1, 2], [0, 1, 2], [4, 0, 2]])
    assert find_words(words, top)[1].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert [hits(words, top)[[row]].indices.tolist() for row in range(4)] == [[3], [], [], [2, 4]]
    assert count_hits(words, top).tolist() == [1, 0, 0, 2]


def test_padding_is_never_a_hit() -> None:
    """Its key, -1, would be that of the last word of the row before."""
    words = words_of_rows([[4], [0, 4]], 5)
    assert count_hits(words, np.array([[4, 3], [-1, -1]])).tolist() == [1, 0]


def test_fewer_columns_than_words_are_allowed() -> None:
    words = words_of_rows([[0, 1, 2], [2]], 3)
    assert count_hits(words, np.array([[2], [2]])).tolist() == [1, 1]
    assert count_hits(words, np.zeros((2, 0), dtype=np.int64)).tolist() == [0, 0]


def test_rows_without_words_have_no_hits() -> None:
    words = words_of_rows([[], []], 3)
    top = np.array([[0, 1], [2, 0]])
    assert hits(words, top).nnz == 0
    assert count_hits(words, top).tolist() == [0, 0]

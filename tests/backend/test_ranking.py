"""Top-k of a block of scores, and keyword accuracy of its rows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.backend.ranking import block_maxima, keyword_accuracy_per_row, top_k
from flip_sklearn.metrics import keyword_accuracy
from tests.helpers.ranking import sorted_top


@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(1, 7),
    n_words=st.sampled_from([1, 2, 63, 64, 65, 700, 1500, 2048]),
    k=st.integers(1, 40),
    levels=st.sampled_from([1, 2, 5, 50, 10**6]),
    transposed=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_top_k_is_a_stable_sort(
    m: int, n_words: int, k: int, levels: int, transposed: bool, seed: int
) -> None:
    """With few distinct scores there are ties among the k, at position k and between blocks."""
    z = np.random.default_rng(seed).integers(-levels, levels, size=(m, n_words)) / 4
    scores = torch.from_numpy(np.ascontiguousarray(z.T)).T if transposed else torch.from_numpy(z)
    k = min(k, n_words)
    expected = sorted_top(z, k)
    for maxima in (None, block_maxima(scores)):
        values, columns = top_k(scores, k, maxima)
        np.testing.assert_array_equal(columns, expected)
        np.testing.assert_array_equal(values, np.take_along_axis(z, expected, axis=1))


@pytest.mark.parametrize("k", [1, 3, 64, 1999, 2000])
@pytest.mark.parametrize("value", [0.0, -np.inf, np.inf])
def test_equal_scores_give_the_first_columns(k: int, value: float) -> None:
    scores = torch.full((3, 2000), value)
    scores[:, 1::2] *= 1.0 if value else -1.0  # -0 equals 0
    _, columns = top_k(scores, k)
    np.testing.assert_array_equal(columns, np.arange(k)[None].repeat(3, 0))


@pytest.mark.parametrize("n_words", [40, 2000])
def test_nan_ranks_above_all_numbers(n_words: int) -> None:
    scores = torch.zeros(2, n_words)
    scores[0, [5, 30]] = float("nan")
    scores[1, 7] = 1
    values, columns = top_k(scores, 4)
    assert set(columns[0].tolist()) == {5, 30, 0, 1}
    assert values[0].isnan().sum() == 2
    assert columns[1].tolist() == [7, 0, 1, 2]


def test_only_candidate_blocks_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides the maxima, selection reads k + 1 blocks and not the whole row."""
    widths = []
    torch_topk = torch.Tensor.topk

    def recording_topk(self: torch.Tensor, *args: object, **kwargs: object) -> object:
        widths.append(self.shape[1])
        return torch_topk(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "topk", recording_topk)
    top_k(torch.randn(2, 64 * 100), 10)
    assert widths == [100, 11 * 64]


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 12), n_words=st.sampled_from([3, 30, 700]), seed=st.integers(0, 10**6))
def test_keyword_accuracy_per_row_equals_the_metric(m: int, n_words: int, seed: int) -> None:
    """Rows have very unequal lengths, with ties and rows without words."""
    rng = np.random.default_rng(seed)
    Y = sp.csr_array(rng.random((m, n_words)) < rng.choice([0, 0.02, 0.1, 0.9], size=(m, 1)))
    z = rng.integers(0, 6, size=(m, n_words)).astype(np.float32)
    accuracy = keyword_accuracy_per_row(
        torch.from_numpy(z), Y.indptr.astype(np.int64), Y.indices.astype(np.int64)
    )
    np.testing.assert_array_equal(accuracy, np.nan_to_num(keyword_accuracy(Y, z).per_row))


def test_rows_without_words_have_no_accuracy() -> None:
    indptr, indices = np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64)
    assert keyword_accuracy_per_row(torch.ones(2, 4), indptr, indices).tolist() == [0, 0]

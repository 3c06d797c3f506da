"""Shortlists by bfloat16 products: bounds hold, and the words are those of float32 scores."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.backend.device import Compute, resolve_compute
from flip_sklearn.backend.ranking import top_k
from flip_sklearn.backend.scoring import bfloat16, scorer
from flip_sklearn.backend.scoring.bfloat16 import Shortlist
from flip_sklearn.backend.scoring.products import DenseProduct
from flip_sklearn.backend.scoring.scorer import Scorer
from tests.helpers.ranking import sorted_top

SINGLE = resolve_compute("cpu", "float32")


def bfloat16_multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """Compute as the hardware does: bfloat16 factors, float32 sums."""
    torch.mm(a.to(torch.bfloat16).float(), b.to(torch.bfloat16).float(), out=out)


def make_shortlist(A: np.ndarray, offset: np.ndarray) -> Shortlist:
    exact = DenseProduct(*(torch.from_numpy(a.astype(np.float32)) for a in (A, offset)))
    return Shortlist(exact, SINGLE, bfloat16_multiply)


def near_ties(n: int, n_words: int, rank: int, seed: int, spread: float) -> tuple[np.ndarray, ...]:
    """Copies of a few words, whose differences are far below the precision of bfloat16."""
    rng = np.random.default_rng(seed)
    distinct = rng.normal(size=(max(1, n_words // 40), rank))
    A = distinct[rng.integers(len(distinct), size=n_words)]
    A = A + spread * rng.normal(size=A.shape)
    return A, rng.normal(size=n_words) * spread - 3, rng.normal(size=(n, rank))


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 40),
    spread=st.sampled_from([0.0, 1e-6, 1e-4, 1e-2, 1.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    masked=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_no_score_exceeds_its_bound(rank: int, spread: float, scale: float, masked: bool, seed: int) -> None:
    """The inequality of the module's docstring, for float64 and float32 scores of every word."""
    A, offset, h = near_ties(20, 150, rank, seed, spread)
    h = h * scale
    if masked:
        offset[::7] = -np.inf
    shortlist = make_shortlist(A, offset)
    rows = torch.from_numpy(h.astype(np.float32))
    bounds = shortlist._bounds.scores(shortlist._augment(rows))[0][:, :150].numpy()
    single = shortlist.exact.scores(rows)[0][:, :150].numpy()
    A32, h32 = shortlist.exact.A.double().numpy(), rows.double().numpy()
    double = offset.astype(np.float32).astype(np.float64) + h32 @ A32.T
    assert (bounds >= np.maximum(double, single)).all()
    # The bound is also tight: not much above the worst case of rounding.
    size = np.linalg.norm(h32, axis=1)[:, None] * np.linalg.norm(A32, axis=1)
    finite = np.isfinite(offset)
    excess = (bounds - double)[:, finite]
    assert (excess <= (2.2 * 2.0**-7 * size + 2.0**-12 * (1 - offset))[:, finite]).all()


@settings(max_examples=40, deadline=None)
@given(
    n_words=st.sampled_from([700, 2500]),
    k=st.integers(1, 20),
    spread=st.sampled_from([0.0, 1e-5, 1e-3, 1e-1, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_shortlists_give_the_words_of_float32(n_words: int, k: int, spread: float, seed: int) -> None:
    """Scores differ by less than bfloat16 resolves, and are equal only where they are in float32.

    This holds for certified rows.
    """
    A, offset, h = near_ties(30, n_words, 16, seed, spread)
    shortlist = make_shortlist(A, offset)
    rows = torch.from_numpy(h.astype(np.float32))
    exact = shortlist.exact.scores(rows)[0].numpy().astype(np.float64)
    values, columns, is_certified = shortlist.top(rows, k)
    values, columns = values[is_certified], columns[is_certified]
    h, exact = h[is_certified.numpy()], exact[is_certified.numpy()]
    np.testing.assert_allclose(
        values, np.take_along_axis(exact, columns.numpy(), axis=1), rtol=1e-5, atol=1e-5
    )
    for row in range(len(h)):
        selected = set(columns[row].tolist())
        expected = set(sorted_top(exact[row : row + 1], k)[0].tolist())
        assert len(selected) == k
        kth_score = exact[row, sorted(expected)].min()
        # Words may differ only within the rounding of a float32 sum around the k-th score.
        size = 1 + np.linalg.norm(h[row]) * np.linalg.norm(A, axis=1).max()
        for word in selected ^ expected:
            assert abs(exact[row, word] - kth_score) <= 18 * 2.0**-23 * size


def test_almost_equal_words_are_not_certified() -> None:
    A, offset, h = near_ties(30, 3000, 16, 0, 1e-5)
    rows = torch.from_numpy(h.astype(np.float32))
    crowded = make_shortlist(A, offset)  # groups of about 40 almost equal words, for a shortlist of 20
    assert not crowded.top(rows, 10)[2].any()
    spread_out = make_shortlist(np.random.default_rng(0).normal(size=A.shape), offset)
    assert spread_out.top(rows, 10)[2].all()


def test_near_ties_need_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: by plain bfloat16 scores, rows are certified whose words are wrong."""
    A, offset, h = near_ties(50, 3000, 16, 0, 1e-3)
    rows = torch.from_numpy(h.astype(np.float32))
    expected, _ = top_k(make_shortlist(A, offset).exact.scores(rows)[0], 10)
    values, _, is_certified = make_shortlist(A, offset).top(rows, 10)
    torch.testing.assert_close(values[is_certified], expected[is_certified])
    monkeypatch.setattr(bfloat16, "_round_up", torch.zeros_like)
    values, _, is_certified = make_shortlist(A, offset).top(rows, 10)
    assert (values < expected - 1e-5)[is_certified].any()


def test_uncertified_rows_are_ranked_by_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    A, offset, h = near_ties(40, 3000, 16, 0, 1e-5)
    A[:2000] = np.random.default_rng(1).normal(size=(2000, 16))  # some rows are certified, others are not
    monkeypatch.setattr(scorer, "bfloat16_is_fast", lambda device: True)
    monkeypatch.setattr(scorer, "MANY_ROWS", 1)
    monkeypatch.setattr(
        scorer, "Shortlist", lambda exact, compute: Shortlist(exact, compute, bfloat16_multiply)
    )
    factors = (A.astype(np.float32), np.eye(16, dtype=np.float32), offset.astype(np.float32), np.zeros(16))
    rows, unseen = h.astype(np.float32), np.zeros(3000, dtype=bool)
    shortlist = make_shortlist(A, offset)
    is_certified = shortlist.top(torch.from_numpy(rows), 10)[2]
    assert 0 < is_certified.sum() < 40
    fast = Scorer(*factors, Compute(torch.device("cpu"), torch.float32, torch.bfloat16), unseen)
    indices, values = fast.top(rows, 10)
    expected = Scorer(*factors, SINGLE, unseen).top(rows, 10)
    np.testing.assert_allclose(values, expected[1], rtol=1e-5, atol=1e-5)
    uncertified = ~is_certified.numpy()
    # Rows are scored again in a product of other shape, whose rounding may exchange words as good as equal.
    exact = rows.astype(np.float64) @ factors[0].astype(np.float64).T + factors[2]
    found, best = (np.take_along_axis(exact, words, axis=1)[uncertified] for words in (indices, expected[0]))
    np.testing.assert_allclose(found, best, rtol=0, atol=3e-6)


@pytest.mark.parametrize("as_stored", [np.asarray, sp.csr_array])
def test_scorer_uses_shortlists_where_bfloat16_is_fast(
    monkeypatch: pytest.MonkeyPatch, as_stored: type
) -> None:
    """The scores are those of float32."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3000, 16)).astype(np.float32), rng.normal(size=(16, 8))
    offset, X = rng.normal(size=3000), rng.normal(size=(100, 8))
    unseen = np.arange(3000) % 9 == 0
    A[unseen] = 0
    factors = (as_stored(A), B.astype(np.float32), offset.astype(np.float32), np.zeros(8, np.float32))
    exact = Scorer(*factors, SINGLE, unseen)
    expected = exact.top(X, 10)
    compute = Compute(torch.device("cpu"), torch.float32, torch.bfloat16)
    shortlists: list[Shortlist] = []

    class RecordingShortlist(Shortlist):
        def __init__(self, exact: DenseProduct, compute: Compute) -> None:
            super().__init__(exact, compute, bfloat16_multiply)
            shortlists.append(self)

    monkeypatch.setattr(scorer, "Shortlist", RecordingShortlist)
    monkeypatch.setattr(scorer, "bfloat16_is_fast", lambda device: True)
    monkeypatch.setattr(scorer, "MANY_ROWS", 100)
    fast = Scorer(*factors, compute, unseen)
    indices, values = fast.top(X, 10)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_allclose(values, expected[1], rtol=1e-5, atol=1e-5)
    assert len(shortlists) == 1
    # Probabilities need all scores, so they are not computed by shortlists.
    _, theta = fast.top(X, 10, probabilities=True)
    np.testing.assert_allclose(theta, exact.top(X, 10, probabilities=True)[1], rtol=1e-5)
    monkeypatch.setattr(scorer, "bfloat16_is_fast", lambda device: False)
    shortlists.clear()
    Scorer(*factors, compute, unseen).top(X, 10)
    assert shortlists == []

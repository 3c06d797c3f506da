"""Selection of the words to score, and products by dense and sparse word embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.ranking import block_maxima
from flip_sklearn.backend.scoring.products import DenseProduct, SparseProduct, ranking_problem
from tests.helpers.ranking import integer_model

DOUBLE, SINGLE = resolve_compute("cpu", "float64"), resolve_compute("cpu", "float32")


def test_words_and_latents_without_effect_are_left_out() -> None:
    """Of words with a zero row in A only the k likeliest are scored, of latents only those in use."""
    A, _, offset, _, _ = integer_model(1, 400, 9, 4, 0.3, seed=0)
    A[:, 2] = 0
    unseen = np.arange(400) >= 380
    A[unseen] = 0
    nonzero = np.flatnonzero(A.any(axis=1))
    problem = ranking_problem(sp.csr_array(A), offset, unseen, 5, DOUBLE, find_zeros=False)
    assert problem.latents is not None
    assert problem.columns is not None
    assert problem.latents.tolist() == np.flatnonzero(A.any(axis=0)).tolist()
    assert 2 not in problem.latents
    constant = np.setdiff1d(np.arange(380), nonzero)
    constant = constant[np.argsort(-offset[constant], kind="stable")]
    assert problem.columns.tolist() == sorted([*nonzero, *constant[:5]])
    assert problem.omitted == pytest.approx(np.logaddexp.reduce(offset[constant[5:]]))
    # Negative control: without zero rows all seen words stay.
    full = ranking_problem(np.ones_like(A), offset, unseen, 5, DOUBLE, find_zeros=True)
    assert full.columns is None
    assert full.product.offset is not None
    assert (full.product.offset.numpy() == -np.inf).tolist() == unseen.tolist()


def test_product_depends_on_the_density() -> None:
    rng = np.random.default_rng(0)
    offset, unseen = np.zeros(200), np.zeros(200, dtype=bool)
    for density, expected in ((0.02, SparseProduct), (0.4, DenseProduct)):
        A = rng.normal(size=(200, 50)) * (rng.random((200, 50)) < density)
        for stored in (A, sp.csr_array(A)):
            problem = ranking_problem(stored, offset, unseen, 3, SINGLE, find_zeros=True)
            assert isinstance(problem.product, expected)
    # Looking for zeros is not worth its time for few rows.
    problem = ranking_problem(A * (A > 2), offset, unseen, 3, SINGLE, find_zeros=False)
    assert isinstance(problem.product, DenseProduct)
    assert problem.columns is None


@pytest.mark.parametrize("kind", [DenseProduct, SparseProduct])
def test_reused_memory_does_not_affect_scores(kind: type) -> None:
    A, _, offset, _, h = integer_model(5, 200, 4, 4, 0.3, seed=0)
    if kind is SparseProduct:
        product = SparseProduct(sp.csr_array(A), offset)
    else:
        product = DenseProduct(torch.from_numpy(A), torch.from_numpy(offset))
    rows = torch.from_numpy(h)
    for _ in range(2):
        scores, maxima = product.scores(rows)
        np.testing.assert_array_equal(scores[:, :200], offset + h @ A.T)
        assert (scores[:, 200:] == -np.inf).all()
        torch.testing.assert_close(maxima, block_maxima(scores))
        scores.fill_(float("nan"))
        maxima.fill_(float("nan"))


def test_explicit_zeros_are_treated_as_zeros() -> None:
    A = sp.csr_array(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    A.data[1] = 0
    before = A.copy()
    problem = ranking_problem(A, np.zeros(3), np.zeros(3, dtype=bool), 1, DOUBLE, find_zeros=False)
    assert problem.latents is not None
    assert problem.latents.tolist() == [0]
    assert A.nnz == before.nnz  # the model itself is not modified

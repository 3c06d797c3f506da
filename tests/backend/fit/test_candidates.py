"""Candidate sampling: chances as stated, no bias, the exact softmax in the limit, models as good as its."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend import device
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit import candidates as sampling
from flip_sklearn.backend.fit.candidates import ALPHA, Candidates, CandidateSampler, _inclusion
from flip_sklearn.backend.fit.data import CountDataset, Targets
from flip_sklearn.backend.fit.likelihood import Workspace, loss_and_gradients

CPU64 = resolve_compute("cpu", "float64")


def zipf_rows(n: int, n_words: int, d: int = 4, length: int = 4, seed: int = 0) -> CountDataset:
    """Rows whose words have frequencies as in text; some words occur in one row, some in none."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, n_words + 1)
    counts = np.stack([rng.multinomial(length, p / p.sum()) for _ in range(n)]).astype(np.float64)
    Y = sp.csr_array(counts)
    return CountDataset(rng.normal(size=(n, d)), Y.indptr, Y.indices, Y.data, np.ones(n), n_words)


def sampler_of(rows: CountDataset, m: int, drawn: float) -> CandidateSampler:
    return CandidateSampler(rows.word_counts(), rows.document_frequency(), len(rows), m, drawn)


# --- The chances to be drawn ---------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    counts=st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**7)), min_size=1, max_size=60),
    drawn=st.one_of(st.integers(1, 80), st.floats(0.01, 80)),
)
@example(counts=[3], drawn=1)
@example(counts=[7, 7, 7, 7], drawn=2.5)
@example(counts=[0, 0, 1], drawn=3)
@example(counts=[10**7, 1, 1, 0], drawn=1)
def test_chances_of_being_drawn(counts: list[int], drawn: float) -> None:
    """They sum to ``drawn``, lie in (0, 1], follow the counts, and are kappa p^ALPHA below 1."""
    counts = np.array(counts, dtype=np.float64)
    if not counts.any():
        counts[0] = 1.0
    P = _inclusion(counts, drawn)
    assert P.shape == counts.shape
    assert P.sum() == pytest.approx(min(drawn, len(counts)), rel=1e-9)
    assert (P > 0).all()
    assert (P <= 1).all()
    order = np.argsort(counts)
    assert (np.diff(P[order]) >= 0).all()
    mass = np.maximum(counts, 0.5 * counts[counts > 0].min()) ** ALPHA  # a word not seen is rare
    kappa = (P / mass)[P < 1]
    if len(kappa):
        np.testing.assert_allclose(kappa, kappa[0], rtol=1e-9)
        assert (kappa[0] * mass[P == 1] >= 1 - 1e-9).all()


# --- The chances to be a candidate ---------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """Many batches that hold row 0, each with candidates: seen from row 0."""

    rows: CountDataset
    sampler: CandidateSampler
    m: int
    chosen: np.ndarray  # (draws, V) bool
    z: torch.Tensor  # (V,), scores of row 0
    partition: np.ndarray  # (draws,), estimates of sum exp(z)
    usual: np.ndarray  # (draws,), the same with the chance divided out of row 0's own words too


def corrected_scores(z: torch.Tensor, drawn: Candidates, own: Targets) -> torch.Tensor:
    """What ``loss_and_gradients`` makes of a row's scores."""
    scores = z[drawn.words] - drawn.log_inclusion
    scores[own.col] += drawn.own_log_inclusion[: len(own.col)]
    return scores


@cache
def draw_many(m: int, drawn: float) -> Draws:
    n, n_words, n_draws = 40, 30, 3000
    rows = zipf_rows(n, n_words, seed=2)
    sampler = sampler_of(rows, m, drawn)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(1)
    z = torch.from_numpy(rng.normal(size=n_words))
    chosen = np.zeros((n_draws, n_words), dtype=bool)
    partition, usual = np.empty(n_draws), np.empty(n_draws)
    for i in range(n_draws):
        batch = np.append(0, 1 + rng.permutation(n - 1)[: m - 1])
        _, targets = rows.batch(batch, CPU64)
        candidates = sampler.draw(m, targets.col, targets, generator)
        scores = corrected_scores(z, candidates, candidates.targets.block(0, 1))
        chosen[i, candidates.words.numpy()] = True
        partition[i] = float(scores.exp().sum())
        usual[i] = float((z[candidates.words] - candidates.log_inclusion).exp().sum())
    return Draws(rows, sampler, m, chosen, z, partition, usual)


@pytest.fixture(scope="module", params=[(1, 6.0), (6, 6.0), (20, 3.0), (40, 3.0)], ids=str)
def draws(request: pytest.FixtureRequest) -> Draws:
    """From a batch of one row to one of all 40."""
    return draw_many(*request.param)


def test_a_word_is_a_candidate_as_often_as_stated(draws: Draws) -> None:
    """pi_j is the frequency within the noise of a binomial; own words are candidates always."""
    pi = draws.sampler.log_inclusion(draws.m).exp().numpy()
    own = draws.rows.words(np.array([0])).numpy()
    assert draws.chosen[:, own].all()
    frequency, n_draws = draws.chosen.mean(axis=0), len(draws.chosen)
    sure = pi > 1 - 1e-12
    others = np.setdiff1d(np.arange(len(pi)), own)
    assert draws.chosen[:, np.intersect1d(others, np.flatnonzero(sure))].all()
    unsure = np.setdiff1d(others, np.flatnonzero(sure))
    error = np.sqrt(pi * (1 - pi) / n_draws)[unsure]
    assert (np.abs(frequency - pi)[unsure] <= 4.5 * error).all()


@pytest.mark.parametrize("m", [1, 7, 40])
def test_chances_are_hypergeometric(m: int) -> None:
    rows = zipf_rows(40, 30)
    sampler = sampler_of(rows, m, 5.0)
    P = _inclusion(rows.word_counts(), 5.0)
    k = rows.document_frequency()
    possible = k < 40  # a word of every row is nobody's other word
    none = scipy.stats.hypergeom.pmf(0, 39, np.minimum(k, 39), m - 1)
    pi = sampler.log_inclusion(m).exp().numpy()
    np.testing.assert_allclose(pi[possible], (1 - (1 - P) * none)[possible], rtol=1e-12)
    none = scipy.stats.hypergeom.pmf(0, 40, k, m)
    assert sampler.expected == pytest.approx((1 - (1 - P) * none).sum())


def test_the_partition_function_is_without_bias(draws: Draws) -> None:
    """Mean over batches that hold the row, and over draws, of Z's estimate: the true Z of the row."""
    truth = float(draws.z.exp().sum())
    error = draws.partition.std() / math.sqrt(len(draws.partition))
    assert abs(draws.partition.mean() - truth) <= 4 * error + 1e-9
    if draws.m < len(draws.rows):  # else every word is a candidate, or as good as
        assert error > 0


def test_the_usual_correction_is_biased() -> None:
    """Negative control: divided by its chance too, a row's own word counts many times over."""
    many = draw_many(6, 6.0)
    truth = float(many.z.exp().sum())
    error = many.usual.std() / math.sqrt(len(many.usual))
    assert many.usual.mean() - truth > 10 * error


def test_chances_with_replacement_would_be_biased() -> None:
    """Negative control: (1 - n_j / n)^(m - 1) misses that a batch never has a row twice."""
    many = draw_many(20, 3.0)
    P, share = (
        _inclusion(many.rows.word_counts(), 3.0),
        many.rows.document_frequency() / len(many.rows),
    )
    pi = 1 - (1 - P) * (1 - share) ** (many.m - 1)
    own = np.zeros(len(pi), dtype=bool)
    own[many.rows.words(np.array([0])).numpy()] = True
    each = np.where(own, 1.0, many.chosen / pi) * many.z.exp().numpy()
    estimate = each.sum(axis=1)
    error = estimate.std() / math.sqrt(len(estimate))
    assert estimate.mean() - float(many.z.exp().sum()) > 4 * error


def test_every_device_and_process_draws_the_same() -> None:
    """Candidates follow the words of the whole batch and the generator, not whose rows are asked for."""
    rows = zipf_rows(30, 25)
    sampler = sampler_of(rows, 10, 5.0)
    batch = np.arange(10)
    of_batch = rows.words(batch)
    drawn = []
    for mine in (batch, batch[::2], batch[:0]):
        _, targets = rows.batch(mine, CPU64)
        drawn.append(sampler.draw(10, of_batch, targets, torch.Generator().manual_seed(3)))
        np.testing.assert_array_equal(drawn[-1].words[drawn[-1].targets.col], targets.col)
    for other in drawn[1:]:
        np.testing.assert_array_equal(drawn[0].words, other.words)
        np.testing.assert_array_equal(drawn[0].log_inclusion, other.log_inclusion)


# --- Gradients -----------------------------------------------------------------------------------


def gradients(
    rows: CountDataset, sampler: CandidateSampler | None, generator: torch.Generator | None
):
    """(loss, dA, db, dh) of the first 12 rows at fixed random parameters, scattered to all words."""
    rng = np.random.default_rng(5)
    A, b = (torch.from_numpy(rng.normal(size=s)) for s in ((rows.n_words, 3), (rows.n_words,)))
    B = torch.from_numpy(rng.normal(size=(3, rows.d)))
    batch = np.arange(12)
    x, targets = rows.batch(batch, CPU64)
    h = x @ B.T
    words, offset, own_offset = torch.arange(rows.n_words), 0.0, None
    if sampler is not None:
        candidates = sampler.draw(len(batch), targets.col, targets, generator)
        words, targets = candidates.words, candidates.targets
        offset, own_offset = candidates.log_inclusion, candidates.own_log_inclusion
    parts = torch.empty(len(words), 3).double(), torch.empty(len(words)).double()
    grad_h = torch.empty_like(h)
    loss = loss_and_gradients(
        h, A[words], b[words] - offset, targets, CPU64, Workspace(CPU64),
        grad_A=parts[0], grad_b=parts[1], grad_h=grad_h, own_offset=own_offset,
    )  # fmt: skip
    grad_A, grad_b = torch.zeros_like(A), torch.zeros_like(b)
    grad_A[words], grad_b[words] = parts
    return loss, grad_A, grad_b, grad_h


def test_with_every_word_drawn_loss_and_gradients_are_exact() -> None:
    rows = zipf_rows(40, 30)
    sampled = gradients(rows, sampler_of(rows, 12, 30), torch.Generator().manual_seed(0))
    for a, b in zip(sampled, gradients(rows, None, None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_mean_gradient_approaches_the_exact_one_as_more_is_drawn() -> None:
    """Of a fixed batch: it is over the batches too that Z has no bias."""
    rows = zipf_rows(40, 200)
    exact = torch.cat([g.ravel() for g in gradients(rows, None, None)[1:]])
    errors = []
    for drawn in (5, 20, 80, 190, 200):
        sampler, generator = sampler_of(rows, 12, drawn), torch.Generator().manual_seed(0)
        total = torch.zeros_like(exact)
        for _ in range(150):
            total += torch.cat([g.ravel() for g in gradients(rows, sampler, generator)[1:]])
        errors.append(float(torch.linalg.vector_norm(total / 150 - exact) / exact.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 5 * errors[3]
    assert errors[-1] < 1e-12


# --- Fits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"rank": 3}, {"rank": None, "l1_strength": 0.05}], ids=str)
def test_a_fit_with_every_word_drawn_is_the_exact_fit(small, monkeypatch, settings) -> None:
    """The same rows in the same order: only the order of float additions differs."""
    real, orders = torch.randperm, torch.Generator()
    monkeypatch.setattr(
        torch, "randperm", lambda n, **how: real(n, **{**how, "generator": orders})
    )  # else the draws would move the order of the rows
    monkeypatch.setattr(sampling, "DRAWN_WORDS", 10**6)
    fits = []
    for solver in ("exact", "sampled"):
        orders.manual_seed(0)
        fits.append(
            FLiPExtractor(
                solver=solver, precision="float64", random_state=0, max_iter=6, batch_size=30,
                early_stopping=True, **settings,
            ).fit(small.X, small.Y)
        )  # fmt: skip
        assert fits[-1].solver_ == solver
    for name in ("word_embeddings_", "projection_", "bias_"):
        exact, sampled = (getattr(fit, name) for fit in fits)
        np.testing.assert_allclose(sampled, exact, rtol=1e-8, atol=1e-10)
    assert fits[0].history_["validation_accuracy"] == fits[1].history_["validation_accuracy"]
    np.testing.assert_allclose(fits[0].history_["loss"], fits[1].history_["loss"], rtol=1e-10)


def zipf_text(n: int, n_words: int, d: int, seed: int = 0) -> tuple[np.ndarray, sp.csr_array]:
    """Eight words a row from softmax(log Zipf + A x): text as the model sees it."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    z = X @ rng.normal(size=(d, n_words)).astype(np.float32) * (1.5 / math.sqrt(d))
    z -= np.log(np.arange(n_words) + 5.0, dtype=np.float32)
    columns = [(row + rng.gumbel(size=(8, n_words)).astype(np.float32)).argmax(axis=1) for row in z]
    ones = np.ones(8 * n)
    Y = sp.csr_array((ones, (np.repeat(np.arange(n), 8), np.ravel(columns))), shape=(n, n_words))
    Y.sum_duplicates()
    return X, Y


def test_auto_looks_at_the_counts_and_at_nothing_else(small, monkeypatch) -> None:
    rows = zipf_rows(500, 3000, length=8)
    few = sampler_of(rows, 10, 200)
    assert few.expected < 0.5 * 3000
    assert few.is_cheaper()
    assert not sampler_of(rows, 10, 2000).is_cheaper()  # too many drawn
    assert not sampler_of(zipf_rows(500, 20), 10, 200).is_cheaper()  # a small vocabulary
    monkeypatch.setattr(sampling, "DRAWN_WORDS", 100)
    X, Y = zipf_text(300, 1500, 6)
    threads = torch.get_num_threads()
    try:
        for n_threads, fast in ((1, False), (2, True)):
            torch.set_num_threads(n_threads)
            monkeypatch.setattr(device, "bfloat16_is_fast", lambda _, fast=fast: fast)
            for data, expected in (((X, Y), "sampled"), ((small.X, small.Y), "exact")):
                fit = FLiPExtractor(max_iter=1, random_state=0).fit(*data)
                assert fit.solver_ == expected
    finally:
        torch.set_num_threads(threads)


FIT = """
import hashlib
import torch
from tests.helpers.planted import planted
from tests.helpers.processes import N_THREADS
from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.fit import candidates as sampling

torch.set_num_threads(1)  # bits are promised for one number of threads

def fingerprint(seed):
    truth, sampling.DRAWN_WORDS = planted(n=1500, d=30, n_words=60), 10
    flip = FLiPExtractor(solver="sampled", rank=8, max_iter=3, random_state=seed)
    flip.fit(truth.X.astype("f4"), truth.Y)
    parts = (flip.word_embeddings_, flip.projection_, flip.bias_)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
"""


def test_same_seed_same_bits_in_two_processes(monkeypatch) -> None:
    monkeypatch.setattr(sampling, "DRAWN_WORDS", sampling.DRAWN_WORDS)  # put back afterwards
    child = subprocess.run(
        [sys.executable, "-c", FIT + "print(fingerprint(0))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here: dict[str, Any] = {}
    exec(FIT, here)
    assert child.stdout.strip() == here["fingerprint"](0)
    assert child.stdout.strip() != here["fingerprint"](1)


def test_sampled_and_exact_models_are_equally_good(monkeypatch) -> None:
    """Held-out likelihood and accuracy on a planted Zipf problem, row by row, within the noise."""
    monkeypatch.setattr(sampling, "DRAWN_WORDS", 200)
    X, Y = zipf_text(4000, 3000, 32)
    train, test = slice(0, 3000), slice(3000, None)
    seen = np.flatnonzero(Y[train].sum(axis=0))
    X_test, Y_test = X[test], Y[test][:, seen]

    def held_out(solver: str) -> tuple[float, np.ndarray]:
        flip = FLiPExtractor(
            solver=solver, rank=16, max_iter=4, early_stopping="likelihood", random_state=0
        ).fit(X[train], Y[train][:, seen])
        assert flip.solver_ == solver
        hit = Y_test.multiply(flip.predict_log_proba(X_test))
        return flip.score(X_test, Y_test), -np.asarray(hit.sum(axis=1)).ravel()

    def difference(nll: np.ndarray, of: np.ndarray) -> tuple[float, float]:
        """Mean difference in nats per word, and its standard error."""
        paired = (nll - of) / (Y_test.sum() / len(X_test))
        return paired.mean(), paired.std() / math.sqrt(len(paired))

    accuracy, nll = held_out("exact")
    sampled_accuracy, sampled_nll = held_out("sampled")
    mean, error = difference(sampled_nll, nll)
    assert error < 0.004
    assert abs(mean) < 4 * error
    assert abs(sampled_accuracy - accuracy) < 0.01
    # Negative control: candidates as if they were the vocabulary are far worse.
    draw = CandidateSampler.draw

    def uncorrected(self: CandidateSampler, *batch: Any) -> Candidates:
        drawn = draw(self, *batch)
        zeros = torch.zeros_like(drawn.log_inclusion), torch.zeros_like(drawn.own_log_inclusion)
        return replace(drawn, log_inclusion=zeros[0], own_log_inclusion=zeros[1])

    monkeypatch.setattr(CandidateSampler, "draw", uncorrected)
    mean, error = difference(held_out("sampled")[1], nll)
    assert mean > 8 * error

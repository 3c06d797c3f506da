"""Sampled classes: inclusion probabilities, no bias, exact softmax in the limit, equally good models."""

from __future__ import annotations

import hashlib
import math
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
from threadpoolctl import threadpool_limits

from flip_sklearn import FLiPExtractor
from flip_sklearn.backend import device
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.fit import candidates
from flip_sklearn.backend.fit.candidates import ALPHA, ClassSampler, SampledClasses, _draw_probabilities
from flip_sklearn.backend.fit.data import CountDataset, Targets
from flip_sklearn.backend.fit.likelihood import Gradients, SoftmaxLayer, Workspace, loss_and_gradients
from tests.helpers.planted import planted
from tests.helpers.processes import N_THREADS, in_process

CPU64 = resolve_compute("cpu", "float64")


def zipf_rows(n: int, n_words: int, d: int = 4, length: int = 4, seed: int = 0) -> CountDataset:
    """Rows with Zipf-distributed words; some words occur in one row, some in none."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, n_words + 1)
    counts = np.stack([rng.multinomial(length, p / p.sum()) for _ in range(n)]).astype(np.float64)
    Y = sp.csr_array(counts)
    return CountDataset(rng.normal(size=(n, d)), Y, np.ones(n))


def make_sampler(rows: CountDataset, m: int, n_drawn: float) -> ClassSampler:
    return ClassSampler(rows.word_counts(), rows.document_frequency(), len(rows), m, n_drawn)


# --- Draw probabilities P_j ------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    counts=st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**7)), min_size=1, max_size=60),
    n_drawn=st.one_of(st.integers(1, 80), st.floats(0.01, 80)),
)
@example(counts=[3], n_drawn=1)
@example(counts=[7, 7, 7, 7], n_drawn=2.5)
@example(counts=[0, 0, 1], n_drawn=3)
@example(counts=[10**7, 1, 1, 0], n_drawn=1)
def test_draw_probabilities(counts: list[int], n_drawn: float) -> None:
    """They sum to ``n_drawn``, lie in (0, 1], increase with the counts, and are kappa p^ALPHA below 1."""
    counts = np.array(counts, dtype=np.float64)
    if not counts.any():
        counts[0] = 1.0
    P = _draw_probabilities(counts, n_drawn)
    assert P.shape == counts.shape
    assert P.sum() == pytest.approx(min(n_drawn, len(counts)), rel=1e-9)
    assert (P > 0).all()
    assert (P <= 1).all()
    order = np.argsort(counts)
    assert (np.diff(P[order]) >= 0).all()
    # A word without counts is treated as if it had half the count of the rarest one.
    mass = np.maximum(counts, 0.5 * counts[counts > 0].min()) ** ALPHA
    kappa = (P / mass)[P < 1]
    if len(kappa):
        np.testing.assert_allclose(kappa, kappa[0], rtol=1e-9)
        assert (kappa[0] * mass[P == 1] >= 1 - 1e-9).all()


# --- Inclusion probabilities pi_j ------------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """The sampled classes of many batches with row 0, and estimates of the partition function of row 0."""

    rows: CountDataset
    sampler: ClassSampler
    m: int
    is_class: np.ndarray  # (draws, V) bool
    z: torch.Tensor  # (V,), scores of row 0
    partition: np.ndarray  # (draws,), estimates of sum exp(z)
    usual: np.ndarray  # (draws,), the same if the words of row 0 are divided by pi_j too


def corrected_scores(z: torch.Tensor, sampled: SampledClasses, targets: Targets) -> torch.Tensor:
    """The scores of a row as ``loss_and_gradients`` corrects them; its targets are those of row 0."""
    scores = z[sampled.words] - sampled.log_inclusion
    scores[targets.col[targets.row == 0]] += sampled.target_log_inclusion[targets.row == 0]
    return scores


@cache
def draw_many(m: int, n_drawn: float) -> Draws:
    n, n_words, n_draws = 40, 30, 3000
    rows = zipf_rows(n, n_words, seed=2)
    sampler = make_sampler(rows, m, n_drawn)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(1)
    z = torch.from_numpy(rng.normal(size=n_words))
    is_class = np.zeros((n_draws, n_words), dtype=bool)
    partition, usual = np.empty(n_draws), np.empty(n_draws)
    for i in range(n_draws):
        batch = np.append(0, 1 + rng.permutation(n - 1)[: m - 1])
        _, targets = rows.batch(batch, CPU64)
        sampled = sampler.draw(m, targets.col, targets, generator)
        scores = corrected_scores(z, sampled, sampled.targets)
        is_class[i, sampled.words.numpy()] = True
        partition[i] = float(scores.exp().sum())
        usual[i] = float((z[sampled.words] - sampled.log_inclusion).exp().sum())
    return Draws(rows, sampler, m, is_class, z, partition, usual)


@pytest.fixture(scope="module", params=[(1, 6.0), (6, 6.0), (20, 3.0), (40, 3.0)], ids=str)
def draws(request: pytest.FixtureRequest) -> Draws:
    """Batches of 1, 6, 20 and all 40 rows."""
    return draw_many(*request.param)


def test_inclusion_frequency_is_the_stated_probability(draws: Draws) -> None:
    """It is pi_j up to binomial noise for other words, and 1 for the words of the row."""
    pi = draws.sampler.log_inclusion(draws.m).exp().numpy()
    row_words = draws.rows.words(np.array([0])).numpy()
    assert draws.is_class[:, row_words].all()
    frequency, n_draws = draws.is_class.mean(axis=0), len(draws.is_class)
    certain = np.flatnonzero(pi > 1 - 1e-12)
    others = np.setdiff1d(np.arange(len(pi)), row_words)
    assert draws.is_class[:, np.intersect1d(others, certain)].all()
    uncertain = np.setdiff1d(others, certain)
    error = np.sqrt(pi * (1 - pi) / n_draws)[uncertain]
    assert (np.abs(frequency - pi)[uncertain] <= 4.5 * error).all()


@pytest.mark.parametrize("m", [1, 7, 40])
def test_inclusion_probability_is_hypergeometric(m: int) -> None:
    rows = zipf_rows(40, 30)
    sampler = make_sampler(rows, m, 5.0)
    P = _draw_probabilities(rows.word_counts(), 5.0)
    k = rows.document_frequency()
    possible = k < 40  # pi_j is defined for a row without the word, which exists only then
    absent = scipy.stats.hypergeom.pmf(0, 39, np.minimum(k, 39), m - 1)
    pi = sampler.log_inclusion(m).exp().numpy()
    np.testing.assert_allclose(pi[possible], (1 - (1 - P) * absent)[possible], rtol=1e-12)
    absent = scipy.stats.hypergeom.pmf(0, 40, k, m)
    assert sampler.expected == pytest.approx((1 - (1 - P) * absent).sum())


def test_partition_function_is_unbiased(draws: Draws) -> None:
    """Over batches with the row and over draws, the mean of the estimates is the true Z of the row."""
    truth = float(draws.z.exp().sum())
    error = draws.partition.std() / math.sqrt(len(draws.partition))
    assert abs(draws.partition.mean() - truth) <= 4 * error + 1e-9
    if draws.m < len(draws.rows):  # otherwise nearly every word is included
        assert error > 0


def test_usual_correction_is_biased() -> None:
    """Negative control: if the words of the row are divided by pi_j too, they count many times over."""
    many = draw_many(6, 6.0)
    truth = float(many.z.exp().sum())
    error = many.usual.std() / math.sqrt(len(many.usual))
    assert many.usual.mean() - truth > 10 * error


def test_probabilities_with_replacement_are_biased() -> None:
    """Negative control: (1 - n_j / n)^(m - 1) ignores that a batch has no row twice."""
    many = draw_many(20, 3.0)
    P = _draw_probabilities(many.rows.word_counts(), 3.0)
    share = many.rows.document_frequency() / len(many.rows)
    pi = 1 - (1 - P) * (1 - share) ** (many.m - 1)
    in_row = np.zeros(len(pi), dtype=bool)
    in_row[many.rows.words(np.array([0])).numpy()] = True
    terms = np.where(in_row, 1.0, many.is_class / pi) * many.z.exp().numpy()
    estimate = terms.sum(axis=1)
    error = estimate.std() / math.sqrt(len(estimate))
    assert estimate.mean() - float(many.z.exp().sum()) > 4 * error


def test_every_device_and_process_draws_the_same_classes() -> None:
    """The classes depend on the words of the whole batch and the generator, not on the local rows."""
    rows = zipf_rows(30, 25)
    sampler = make_sampler(rows, 10, 5.0)
    batch = np.arange(10)
    batch_words = rows.words(batch)
    results = []
    for local_rows in (batch, batch[::2], batch[:0]):
        _, targets = rows.batch(local_rows, CPU64)
        sampled = sampler.draw(10, batch_words, targets, torch.Generator().manual_seed(3))
        np.testing.assert_array_equal(sampled.words[sampled.targets.col], targets.col)
        results.append(sampled)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].words, other.words)
        np.testing.assert_array_equal(results[0].log_inclusion, other.log_inclusion)


# --- Gradients -----------------------------------------------------------------------------------


def compute_gradients(
    rows: CountDataset, sampler: ClassSampler | None, generator: torch.Generator | None
) -> tuple[torch.Tensor, ...]:
    """(loss, dA, db, dh) of the first 12 rows at fixed random parameters, with zeros for other words."""
    rng = np.random.default_rng(5)
    A = torch.from_numpy(rng.normal(size=(rows.n_words, 3)))
    b = torch.from_numpy(rng.normal(size=rows.n_words))
    B = torch.from_numpy(rng.normal(size=(3, rows.d)))
    batch = np.arange(12)
    x, targets = rows.batch(batch, CPU64)
    h = x @ B.T
    words, layer = torch.arange(rows.n_words), SoftmaxLayer(A, b)
    if sampler is not None:
        sampled = sampler.draw(len(batch), targets.col, targets, generator)
        words, targets = sampled.words, sampled.targets
        offset = sampled.target_log_inclusion
        layer = SoftmaxLayer(A[words], b[words] - sampled.log_inclusion, offset)
    gradients = Gradients(torch.empty_like(layer.A), torch.empty_like(layer.b), torch.empty_like(h))
    flat = targets.flat(len(layer.A))
    loss = loss_and_gradients(h, layer, flat, Workspace(CPU64), gradients)
    grad_A, grad_b = torch.zeros_like(A), torch.zeros_like(b)
    grad_A[words], grad_b[words] = gradients.A, gradients.b
    return loss, grad_A, grad_b, gradients.h


def test_loss_and_gradients_are_exact_if_every_word_is_drawn() -> None:
    rows = zipf_rows(40, 30)
    generator = torch.Generator().manual_seed(0)
    sampled = compute_gradients(rows, make_sampler(rows, 12, 30), generator)
    for a, b in zip(sampled, compute_gradients(rows, None, None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_mean_gradient_approaches_the_exact_one_as_more_words_are_drawn() -> None:
    """For a fixed batch; Z is unbiased only over the batches, too."""
    rows = zipf_rows(40, 200)
    exact = torch.cat([g.ravel() for g in compute_gradients(rows, None, None)[1:]])
    errors = []
    for n_drawn in (5, 20, 80, 190, 200):
        sampler, generator = make_sampler(rows, 12, n_drawn), torch.Generator().manual_seed(0)
        total = torch.zeros_like(exact)
        for _ in range(150):
            total += torch.cat([g.ravel() for g in compute_gradients(rows, sampler, generator)[1:]])
        errors.append(float(torch.linalg.vector_norm(total / 150 - exact) / exact.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 5 * errors[3]
    assert errors[-1] < 1e-12


# --- Fits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"rank": 3}, {"rank": None, "l1_strength": 0.05}], ids=str)
def test_fit_with_every_word_drawn_equals_the_exact_fit(small, monkeypatch, settings) -> None:
    """The rows come in the same order, so only the order of float additions differs."""
    # A generator of its own for the order of the rows, which the draws of classes would change.
    randperm, orders = torch.randperm, torch.Generator()
    monkeypatch.setattr(torch, "randperm", lambda n, **kwargs: randperm(n, **{**kwargs, "generator": orders}))
    monkeypatch.setattr(candidates, "DRAWN_WORDS", 10**6)
    fits = []
    for solver in ("exact", "sampled"):
        orders.manual_seed(0)
        fits.append(
            FLiPExtractor(
                solver=solver,
                precision="float64",
                random_state=0,
                max_iter=6,
                batch_size=30,
                early_stopping=True,
                **settings,
            ).fit(small.X, small.Y)
        )
        assert fits[-1].solver_ == solver
    for name in ("word_embeddings_", "projection_"):
        exact, sampled = (getattr(fit, name) for fit in fits)
        np.testing.assert_allclose(sampled, exact, rtol=1e-8, atol=1e-10)
    # The refit makes one pass with sampled classes, and on small data as many as are needed without.
    np.testing.assert_allclose(fits[1].bias_, fits[0].bias_, atol=0.03)
    assert fits[0].history_["validation_accuracy"] == fits[1].history_["validation_accuracy"]
    np.testing.assert_allclose(
        fits[0].history_["training_loss"], fits[1].history_["training_loss"], rtol=1e-10
    )


def zipf_text(n: int, n_words: int, d: int, seed: int = 0) -> tuple[np.ndarray, sp.csr_array]:
    """Eight words per row, drawn from softmax(log Zipf + A x), the model of the package."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    z = X @ rng.normal(size=(d, n_words)).astype(np.float32) * (1.5 / math.sqrt(d))
    z -= np.log(np.arange(n_words) + 5.0, dtype=np.float32)
    columns = [(row + rng.gumbel(size=(8, n_words)).astype(np.float32)).argmax(axis=1) for row in z]
    ones = np.ones(8 * n)
    Y = sp.csr_array((ones, (np.repeat(np.arange(n), 8), np.ravel(columns))), shape=(n, n_words))
    Y.sum_duplicates()
    return X, Y


def test_solver_auto_depends_on_the_counts_alone(small, monkeypatch) -> None:
    """The number of threads and fast bfloat16 do not change the choice."""
    rows = zipf_rows(500, 3000, length=8)
    few = make_sampler(rows, 10, 200)
    assert few.expected < 0.5 * 3000
    assert few.is_cheaper()
    assert not make_sampler(rows, 10, 2000).is_cheaper()  # too many drawn
    assert not make_sampler(zipf_rows(500, 20), 10, 200).is_cheaper()  # a small vocabulary
    monkeypatch.setattr(candidates, "DRAWN_WORDS", 100)
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


def fingerprint(X: np.ndarray, Y: Any, seed: int) -> str:
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(N_THREADS):
        patch.setattr(candidates, "DRAWN_WORDS", 10)
        flip = FLiPExtractor(solver="sampled", rank=8, max_iter=3, random_state=seed).fit(X, Y)
    parts = (flip.word_embeddings_, flip.projection_, flip.bias_)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@pytest.mark.cpu_only(reason="bits of another process")
def test_same_seed_gives_the_same_bits_in_two_processes() -> None:
    truth = planted(n=1500, d=30, n_words=60)
    X = truth.X.astype(np.float32)
    first = fingerprint(X, truth.Y, 0)
    assert first == in_process(fingerprint, X, truth.Y, 0)
    assert first != fingerprint(X, truth.Y, 1)


def test_sampled_and_exact_models_are_equally_good(monkeypatch) -> None:
    """Held-out likelihood and accuracy on a planted Zipf problem agree up to noise, paired by row."""
    monkeypatch.setattr(candidates, "DRAWN_WORDS", 200)
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

    def difference(nll: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
        """Mean difference in nats per word, and its standard error."""
        paired = (nll - baseline) / (Y_test.sum() / len(X_test))
        return paired.mean(), paired.std() / math.sqrt(len(paired))

    accuracy, nll = held_out("exact")
    sampled_accuracy, sampled_nll = held_out("sampled")
    mean, error = difference(sampled_nll, nll)
    assert error < 0.004
    assert abs(mean) < 4 * error
    assert abs(sampled_accuracy - accuracy) < 0.01
    # Negative control: without corrections, as if the classes were the vocabulary, it is far worse.
    draw = ClassSampler.draw

    def draw_uncorrected(self: ClassSampler, *batch: Any) -> SampledClasses:
        sampled = draw(self, *batch)
        return replace(
            sampled,
            log_inclusion=torch.zeros_like(sampled.log_inclusion),
            target_log_inclusion=torch.zeros_like(sampled.target_log_inclusion),
        )

    monkeypatch.setattr(ClassSampler, "draw", draw_uncorrected)
    mean, error = difference(held_out("sampled")[1], nll)
    assert mean > 8 * error

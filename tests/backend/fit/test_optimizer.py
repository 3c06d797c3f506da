"""Optimizer: lazy steps equal steps on all words; step sizes, unit norms, average, state."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.backend.fit import optimizer
from flip_sklearn.backend.fit.optimizer import AVERAGE_DECAY, BETA2, GatheredRows, Optimizer, Parameters
from flip_sklearn.backend.fit.penalty import soft_threshold_

F64 = torch.float64


@dataclass(frozen=True)
class Step:
    """Gradients of one step, zero outside ``words``."""

    words: torch.Tensor
    A: torch.Tensor  # (V, r)
    b: torch.Tensor  # (V,)
    B: torch.Tensor | None  # (r, d)


def random_parameters(n_words: int, rank: int, d: int | None, seed: int = 0) -> Parameters:
    """Random parameters; ``d=None`` is LiP."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(n_words, rank, dtype=F64, generator=g)
    b = torch.randn(n_words, dtype=F64, generator=g)
    if d is None:
        return Parameters(A, None, b)
    B = torch.randn(rank, d, dtype=F64, generator=g)
    return Parameters(A, B / torch.linalg.vector_norm(B, dim=1, keepdim=True), b)


def random_steps(
    n_steps: int, like: Parameters, *, share: float = 0.3, seed: int = 1, scale: float = 1.0
) -> list[Step]:
    """Steps with word j with probability sqrt(share / j): many words are missing in most steps."""
    g = torch.Generator().manual_seed(seed)
    n_words = len(like.A)
    probability = (share / torch.arange(1, n_words + 1, dtype=F64)).sqrt()
    steps = []
    for _ in range(n_steps):
        touched = torch.rand(n_words, dtype=F64, generator=g) < probability
        A = torch.randn(like.A.shape, dtype=F64, generator=g) * touched[:, None] * scale
        b = torch.randn(n_words, dtype=F64, generator=g) * touched * scale
        B = None if like.B is None else torch.randn(like.B.shape, dtype=F64, generator=g) * scale
        steps.append(Step(touched.nonzero().squeeze(1), A, b, B))
    return steps


def make_optimizer(p: Parameters, **options: float) -> Optimizer:
    copy = Parameters(*(None if t is None else t.clone() for t in p))
    return Optimizer(copy, **{"l1": 0.0, "l2": 0.0, "learning_rate": 0.1, **options})


def run_dense(opt: Optimizer, steps: list[Step]) -> Optimizer:
    for s in steps:
        opt.step(s.A.clone(), s.b.clone(), None if s.B is None else s.B.clone())
    return opt


def run_lazily(opt: Optimizer, steps: list[Step]) -> Optimizer:
    for s in steps:
        grad_B = None if s.B is None else s.B.clone()
        opt.step(s.A[s.words], s.b[s.words], grad_B, opt.gather(s.words))
    return opt


def flushed_state(opt: Optimizer) -> dict[str, torch.Tensor]:
    opt.flush_lazy_updates()
    return {name: tensor.clone() for name, tensor in opt.state()[0].items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=lambda m, n=name: f"{n}: {m}", **tolerance)


# --- Lazy steps equal steps on all words ----------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n_words=st.integers(1, 12),
    rank=st.integers(1, 4),
    d=st.one_of(st.none(), st.integers(1, 5)),
    n_steps=st.integers(0, 60),
    flush_at=st.integers(0, 60),
    tile=st.sampled_from([1, 7, 2**18]),
    seed=st.integers(0, 10**6),
)
def test_lazy_steps_equal_steps_on_all_words(n_words, rank, d, n_steps, flush_at, tile, seed) -> None:
    """Without penalties: A, b, B~, averages and mean squares agree."""
    p = random_parameters(n_words, rank, d, seed)
    steps = random_steps(n_steps, p, seed=seed + 1)
    with pytest.MonkeyPatch().context() as m:
        m.setattr(optimizer, "TILE_ELEMENTS", {"cpu": tile})
        lazy = run_lazily(make_optimizer(p), steps[:flush_at])
        lazy.flush_lazy_updates()  # as after a pass; later steps are not affected
        run_lazily(lazy, steps[flush_at:])
        assert_same(
            flushed_state(lazy), flushed_state(run_dense(make_optimizer(p), steps)), rtol=1e-10, atol=1e-10
        )


def test_lazy_average_is_behind_before_the_flush() -> None:
    """Negative control: a word has not had its missed updates."""
    p = random_parameters(12, 3, 4)
    steps = random_steps(40, p)
    lazy, dense = run_lazily(make_optimizer(p), steps), run_dense(make_optimizer(p), steps)
    before = lazy.state()[0]["average_A"] - dense.state()[0]["average_A"]
    assert before.abs().max() > 1e-2
    torch.testing.assert_close(lazy.A, dense.A)  # A itself does not move without a gradient


def test_average_is_over_all_iterates() -> None:
    """The lazy average equals its definition, computed from the iterates one by one."""
    p = random_parameters(6, 2, 3)
    steps = random_steps(150, p)
    one_by_one, average = make_optimizer(p), p.A.clone()
    for k, s in enumerate(steps, start=1):
        run_dense(one_by_one, [s])
        decay = min(AVERAGE_DECAY, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * one_by_one.A
    lazy = flushed_state(run_lazily(make_optimizer(p), steps))
    torch.testing.assert_close(lazy["average_A"], average, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [3, 70])
def test_size_of_tiles_does_not_matter(monkeypatch, rank: int) -> None:
    p = random_parameters(50, rank, 4)
    steps = random_steps(10, p)
    results = []
    for elements in (1, 100, 2**18):
        monkeypatch.setattr(optimizer, "TILE_ELEMENTS", {"cpu": elements})
        for run in (run_lazily, run_dense):
            results.append((run, flushed_state(run(make_optimizer(p, l1=0.5, l2=0.5), steps))))
    for run, result in results[2:]:
        assert_same(result, dict(results)[run], rtol=1e-14, atol=1e-14)


# --- Lazy steps with penalties --------------------------------------------------------------------


def test_penalty_is_the_same_for_words_in_every_step() -> None:
    p = random_parameters(8, 3, 4)
    steps = [Step(torch.arange(8), s.A + 0.1, s.b + 0.1, s.B) for s in random_steps(30, p, share=1.0)]
    penalties = dict(l1=0.3, l2=0.4)
    lazy = flushed_state(run_lazily(make_optimizer(p, **penalties), steps))
    assert_same(lazy, flushed_state(run_dense(make_optimizer(p, **penalties), steps)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("penalties", [{"l1": 2.0}, {"l2": 2.0}, {"l1": 1.0, "l2": 1.0}], ids=str)
def test_penalty_of_missed_steps_is_applied_later(penalties) -> None:
    """One shrinkage by the sum of the missed ones is close to the shrinkages one by one.

    They are not equal, because the metric changes in the meantime. Zeros stay exactly zero.
    """
    p = random_parameters(12, 3, 4)
    p.A[2], p.A[5] = 0.0, 0.0
    steps = random_steps(200, p, share=0.6)
    for s in steps:
        s.A[5] = 0.0
    free, dense, lazy = (
        flushed_state(run(make_optimizer(p, learning_rate=2e-3, **options), steps))["A"]
        for run, options in ((run_dense, {}), (run_dense, penalties), (run_lazily, penalties))
    )
    effect = torch.linalg.vector_norm(free - dense)
    assert effect > 0.1
    assert torch.linalg.vector_norm(lazy - dense) < 0.05 * effect
    assert (lazy[5] == 0).all()
    assert (dense[5] == 0).all()


@pytest.mark.parametrize("run", [run_lazily, run_dense])
@pytest.mark.parametrize("penalties", [{}, {"l1": 0.5}, {"l2": 0.5}], ids=str)
def test_words_without_any_gradient_do_not_change(run, penalties) -> None:
    """They have no scale yet, and a step size of rate / eps would erase their initial rows."""
    p = random_parameters(6, 3, 4)
    steps = random_steps(30, p, share=1.0)
    for i, s in enumerate(steps):
        s.A[4], s.b[4] = 0.0, 0.0
        steps[i] = Step(s.words[s.words != 4], s.A, s.b, s.B)
    after = flushed_state(run(make_optimizer(p, **penalties), steps))
    torch.testing.assert_close(after["A"][4], p.A[4], rtol=0, atol=0)
    torch.testing.assert_close(after["average_A"][4], p.A[4], rtol=1e-14, atol=0)
    assert not torch.equal(after["A"][0], p.A[0])


# --- One step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazily", [False, True])
def test_gradient_and_penalty_steps_use_the_same_metric(lazily: bool) -> None:
    """D follows from a step without penalty; a step with penalty is the prox in D of that step."""
    p = random_parameters(7, 3, None)
    steps = [Step(torch.arange(7), s.A + 0.01, s.b, s.B) for s in random_steps(25, p, share=1.0)]
    run = run_lazily if lazily else run_dense
    opt = run(make_optimizer(p), steps[:-1])
    state, numbers = opt.state()
    state = {name: tensor.clone() for name, tensor in state.items()}
    before, g, n_words = state["A"], steps[-1].A, 7
    after = run(opt, steps[-1:]).A
    D = (before - after) / g
    torch.testing.assert_close(D, D[:, :1].expand_as(D))  # one step size per word
    for l1, l2 in ((0.7, 0.0), (0.0, 0.7), (1.0, 2.0)):
        penalized = make_optimizer(p, l1=l1, l2=l2)
        penalized.load(state, numbers)
        expected = soft_threshold_(after.clone(), l1 / n_words * D) / (1 + l2 / n_words * D)
        torch.testing.assert_close(run(penalized, steps[-1:]).A, expected)
    # Negative control: the threshold l1 / V itself is not the proximal step.
    wrong = soft_threshold_(after.clone(), 0.7 / n_words)
    penalized = make_optimizer(p, l1=0.7)
    penalized.load(state, numbers)
    assert not torch.allclose(run(penalized, steps[-1:]).A, wrong, rtol=1e-3)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
@pytest.mark.parametrize("run", [run_lazily, run_dense])
def test_units_of_the_objective_do_not_matter(run, factor: float) -> None:
    """The iterates are the same for c J, that is with gradients, l1 and l2 times c."""
    p = random_parameters(10, 3, 4)
    plain = flushed_state(run(make_optimizer(p, l1=0.3, l2=0.2), random_steps(40, p)))
    scaled = run(make_optimizer(p, l1=0.3 * factor, l2=0.2 * factor), random_steps(40, p, scale=factor))
    for name in ("A", "b", "B", "average_A", "average_b", "average_B"):
        torch.testing.assert_close(flushed_state(scaled)[name], plain[name], rtol=1e-5, atol=1e-6)
    # Negative control: gradients times c, but not the penalties.
    other = run(make_optimizer(p, l1=0.3, l2=0.2), random_steps(40, p, scale=factor))
    assert not torch.allclose(flushed_state(other)["A"], plain["A"], rtol=1e-3)


def test_rows_of_B_have_unit_norm_and_ignore_radial_gradients() -> None:
    p = random_parameters(5, 3, 6)
    steps = random_steps(40, p)
    plain, pulled = make_optimizer(p, learning_rate=1.0), make_optimizer(p, learning_rate=1.0)
    for s in steps:
        run_dense(plain, [s])
        run_dense(pulled, [Step(s.words, s.A, s.b, s.B + 5.0 * pulled.B)])
        norms = torch.linalg.vector_norm(plain.B, dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-14, atol=0)
    torch.testing.assert_close(plain.B, pulled.B, rtol=1e-8, atol=1e-8)
    assert (plain.B - p.B).abs().max() > 0.05
    A, B, _ = plain.averaged()
    torch.testing.assert_close(torch.linalg.vector_norm(B, dim=1), torch.ones(3, dtype=F64))
    state = plain.state()[0]  # the norm of the averaged rows of B~ moves into A
    torch.testing.assert_close(A @ B, state["average_A"] @ state["average_B"])


def test_average_has_the_zeros_of_the_last_iterate() -> None:
    p = random_parameters(30, 4, 5)
    opt = run_lazily(make_optimizer(p, l1=20.0), random_steps(60, p))
    opt.flush_lazy_updates()
    zeros = opt.A == 0
    assert 0 < int(zeros.sum()) < zeros.numel()
    assert torch.equal(opt.averaged().A == 0, zeros)
    assert (opt.state()[0]["average_A"] != 0).all()


def test_mean_squares_decay_with_beta2() -> None:
    p = random_parameters(2, 3, None)
    g = torch.full((2, 3), 2.0, dtype=F64)
    opt = make_optimizer(p)
    opt.step(g, g[:, 0].clone(), None)
    for _ in range(9):
        opt.step(g[1:], g[1:, 0].clone(), None, opt.gather(torch.tensor([1])))
    square = flushed_state(opt)["square_A"]
    assert float(square[0]) == pytest.approx(4 * (1 - BETA2) * BETA2**9)
    assert float(square[1]) == pytest.approx(4 * (1 - BETA2**10))


# --- State ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [4, None])
@pytest.mark.parametrize("run", [run_lazily, run_dense])
def test_loaded_state_continues_to_the_same_bits(run, d) -> None:
    p, penalties = random_parameters(9, 3, d), dict(l1=0.2, l2=0.1)
    steps = random_steps(40, p)
    first = run(make_optimizer(p, **penalties), steps[:17])
    tensors, numbers = first.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    second = make_optimizer(random_parameters(9, 3, d, seed=99), **penalties)
    second.load(saved, numbers)
    finals = [flushed_state(run(opt, steps[17:])) for opt in (first, second)]
    for name, tensor in finals[0].items():
        assert torch.equal(tensor, finals[1][name]), name
    assert first.state()[1] == second.state()[1]
    for a, b in zip(first.averaged(), second.averaged(), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_gathered_rows_are_copies() -> None:
    p = random_parameters(6, 2, 3)
    opt = make_optimizer(p)
    rows = opt.gather(torch.tensor([1, 4]))
    torch.testing.assert_close(rows.A, p.A[[1, 4]])
    torch.testing.assert_close(rows.b, p.b[[1, 4]])
    rows.b.sub_(1.0)
    rows.A.add_(1.0)
    torch.testing.assert_close(opt.b, p.b)
    torch.testing.assert_close(opt.A, p.A)


def test_step_uses_the_rows_it_is_given() -> None:
    """A step on explicit rows equals one on gathered rows, whatever was gathered since."""
    p = random_parameters(9, 3, 4)
    steps = random_steps(20, p)
    expected = flushed_state(run_lazily(make_optimizer(p), steps))
    opt = make_optimizer(p)
    for s in steps:
        rows = opt.gather(s.words)
        numbers = rows.numbers.clone()
        rows = GatheredRows(rows.words, rows.A.clone(), numbers, numbers.unbind())
        opt.gather(torch.arange(9))
        opt.step(s.A[s.words], s.b[s.words], s.B.clone(), rows)
    assert_same(flushed_state(opt), expected, rtol=0, atol=0)


def test_new_strength_and_rate_restart_the_averages() -> None:
    p = random_parameters(9, 3, 4)
    opt = run_lazily(make_optimizer(p, l1=0.2), random_steps(20, p))
    opt.flush_lazy_updates()
    opt.set_strength_and_rate(l1=0.05, learning_rate=0.02)
    state = opt.state()[0]
    for name in ("A", "b", "B"):
        assert torch.equal(state[f"average_{name}"], state[name])
    before = opt.A.clone()
    run_dense(opt, random_steps(1, p, seed=5))
    decay = (1 + 1) / (10 + 1)  # that of a first step
    torch.testing.assert_close(state["average_A"], decay * before + (1 - decay) * opt.A)

"""The stand-in device: the values of the CPU, what CUDA refuses, counts of operators and waits, copies."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.standin_gpu import Counts, StandInTensor, standin_gpu
from tests.helpers.standin_streams import _pinned

pytestmark = pytest.mark.skipif(
    torch.version.cuda is not None and torch.cuda.is_available(), reason="there is a CUDA device"
)


@pytest.fixture(params=["main thread", "second thread", "inference mode"])
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    with standin_gpu() as counted:
        yield counted


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Call a function in the place that the parameter of ``counts`` names."""
    where = request.node.callspec.params["counts"]

    def call(function: Callable[[], Any]) -> Any:
        if where == "second thread":
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(function).result()
        with torch.inference_mode(where == "inference mode"):
            return function()

    return call


def host(*shape: int) -> torch.Tensor:
    return torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float32).reshape(shape)


def device(*shape: int) -> torch.Tensor:
    return host(*shape).to("cuda")


# --- Values -----------------------------------------------------------------------------------


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[1:].mul_(3)
    y.T[0] += 5
    y[y > 20] = 0
    y[torch.tensor([0], device=x.device)] = 7
    y.unsqueeze_(0).squeeze_(0).t_()
    return y


COMPUTATIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "in place and views": in_place,
    "products": lambda x: (x @ x.T + (x[0] @ x.T)).softmax(dim=1),
    "out": lambda x: torch.addmm(x @ x.T, x, x.T, out=torch.empty(3, 3, device=x.device)),
    "sort": lambda x: torch.cat([*x.sort(dim=1, descending=True)], dim=1),
    "mask": lambda x: x[x > 4],
    "index": lambda x: x[torch.tensor([2, 0], device=x.device)][:, 1],
    "index on the host": lambda x: x[torch.tensor([2, 0])],
    "scalar on the host": lambda x: x * torch.tensor(3.0),
    "new": lambda x: torch.tensor([[1.0, 2]], device=x.device) + torch.zeros(3, 2, device=x.device),
    "arange": lambda x: x + torch.arange(1, 9, 2, device=x.device) + torch.eye(3, 4, device=x.device),
    "from NumPy": lambda x: torch.as_tensor(np.ones(4), device=x.device) + x,
    "repeat": lambda x: torch.repeat_interleave(x, torch.tensor([2, 0, 1], device=x.device), dim=0),
    "unique": lambda x: torch.unique(x.long() % 5, return_counts=True)[1],
    "eigenvectors": lambda x: torch.linalg.eigh(x.T @ x).eigenvalues,
    "list": lambda x: torch.stack(torch.split(x, 2, dim=1)),
    "formats": lambda x: x.double() + x.bfloat16().to(torch.float64),
}


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_values_equal_those_of_the_cpu(name: str, counts: Counts, run: Any) -> None:
    def both() -> None:
        result = COMPUTATIONS[name](device(3, 4))
        assert isinstance(result, StandInTensor)
        assert result.device == torch.device("cuda:0")
        expected = COMPUTATIONS[name](host(3, 4))
        assert result.shape == expected.shape
        assert result.stride() == expected.stride()
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=0)

    run(both)
    assert counts.operators


def test_product_with_out_dtype_sums_in_float32(counts: Counts, run: Any) -> None:
    def product() -> None:
        a, b = host(5, 7) / 3, host(7, 2) / 7
        rounded = a.bfloat16().double() @ b.bfloat16().double()
        factors = a.to("cuda", torch.bfloat16), b.to("cuda", torch.bfloat16)
        result = torch.mm(*factors, out_dtype=torch.float32)
        torch.testing.assert_close(result.cpu().double(), rounded, rtol=1e-6, atol=0)
        out = torch.ones(5, 2, device="cuda")
        torch.addmm(out, *factors, out_dtype=torch.float32, out=out)
        torch.testing.assert_close(out.cpu().double(), rounded + 1, rtol=1e-6, atol=0)

    run(product)


def test_copies_share_nothing_and_views_share_all(counts: Counts, run: Any) -> None:
    def check() -> None:
        x = host(3, 4)
        on_device = x.to("cuda")
        view, back = on_device[0], on_device.cpu()
        x.zero_()
        assert view.cpu().tolist() == [1, 2, 3, 4]
        on_device.zero_()
        assert not view.any()
        assert back.sum() == 78
        for copied in (copy.deepcopy(on_device), pickle.loads(pickle.dumps(on_device)), on_device.clone()):
            copied += 1
            assert copied.is_cuda
            assert not on_device.any()

    run(check)


# --- Refusals ---------------------------------------------------------------------------------


REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "sum of both devices": (RuntimeError, "same device", lambda: device(3, 4) + host(3, 4)),
    "sum in place": (RuntimeError, "same device", lambda: device(4).add_(host(4))),
    "sum on the host": (RuntimeError, "same device", lambda: host(4).add_(device(4))),
    "scalar of the host that is written": (
        RuntimeError, "same device", lambda: torch.tensor(1.0).add_(device(1)[0]),
    ),
    "scalar of the device": (RuntimeError, "same device", lambda: host(4) * device(1)[0]),
    "product": (RuntimeError, "same device", lambda: host(3, 4) @ device(4, 3)),
    "out": (RuntimeError, "same device", lambda: torch.exp(device(4), out=torch.empty(4))),
    "concatenation": (RuntimeError, "same device", lambda: torch.cat([host(4), device(4)])),
    "gather": (RuntimeError, "same device", lambda: device(3).gather(0, torch.tensor([0]))),
    "selection": (RuntimeError, "same device", lambda: device(3).index_select(0, torch.tensor([0]))),
    "values of the host": (
        RuntimeError, "same device",
        lambda: device(3).index_put_([torch.tensor([0, 1], device="cuda")], host(2)),
    ),
    "index of the device": (
        RuntimeError, "indices should be", lambda: host(3)[torch.tensor([0], device="cuda")],
    ),
    "mask of the device": (RuntimeError, "indices should be", lambda: host(3)[device(3) > 1]),
    "numpy": (TypeError, "Tensor.cpu", lambda: device(3).numpy()),
    "asarray": (TypeError, "Tensor.cpu", lambda: np.asarray(device(3))),
    "ufunc": (TypeError, "Tensor.cpu", lambda: np.ones(3) + device(3).detach().__array__()),
    "dlpack": (BufferError, "cannot be shared", lambda: np.from_dlpack(device(3))),
    "float64 with out_dtype": (
        RuntimeError, "out_dtype",
        lambda: torch.mm(device(2, 2).double(), device(2, 2).double(), out_dtype=torch.float32),
    ),
    "bfloat16 to float64": (
        RuntimeError, "out_dtype",
        lambda: torch.mm(device(2, 2).bfloat16(), device(2, 2).bfloat16(), out_dtype=torch.float64),
    ),
    "factors of two formats": (
        RuntimeError, "same dtype",
        lambda: torch.mm(device(2, 2).bfloat16(), device(2, 2), out_dtype=torch.float32),
    ),
    "out of another format": (
        RuntimeError, "out has dtype",
        lambda: torch.mm(
            *[device(2, 2).bfloat16()] * 2, out_dtype=torch.float32, out=device(2, 2).bfloat16()
        ),
    ),
    "another device": (RuntimeError, "device ordinal", lambda: host(3).to("cuda:1")),
    "pinning": (RuntimeError, "pin", lambda: device(3).pin_memory()),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(name: str, counts: Counts, run: Any) -> None:
    error, message, function = REFUSED[name]
    with pytest.raises(error, match=message):
        run(function)


def test_tensors_are_of_no_use_outside() -> None:
    if torch.cuda.is_available():
        pytest.skip("a stand-in for the whole run is on")
    with standin_gpu():
        x = device(3)
    assert not torch.cuda.is_available()
    for function in (lambda: x + 1, lambda: torch.ones(3, device="cuda"), lambda: host(3).to("cuda")):
        with pytest.raises((RuntimeError, AssertionError)):
            function()


# --- Counts -----------------------------------------------------------------------------------

# Waits of the host for the device; what does not wait is a negative control.
WAITS: dict[str, tuple[Callable[[torch.Tensor], Any], int]] = {
    "item": (lambda x: x[0, 0].item(), 1),
    "float": (lambda x: float(x.sum()), 1),
    "bool": (lambda x: bool(x[0, 0] > 0), 1),
    "tolist": (lambda x: x.tolist(), 1),
    "nonzero": (lambda x: x.nonzero(), 1),
    "mask": (lambda x: x[x > 2], 1),
    "assignment to a mask": (lambda x: x.__setitem__(x > 2, x[0, 0]), 1),
    "masked_select": (lambda x: x.masked_select(x > 2), 1),
    "unique": (lambda x: torch.unique(x), 1),
    "unique_consecutive": (lambda x: torch.unique_consecutive(x), 1),
    "equal": (lambda x: torch.equal(x, x), 1),
    "repeat": (lambda x: x[0].repeat_interleave(x[0].long()), 1),
    "cpu": (lambda x: x.cpu(), 1),
    "numpy": (lambda x: x.numpy(force=True), 1),
    "copy to the host": (lambda x: torch.empty(3, 4).copy_(x), 1),
    "copy to pageable memory": (lambda x: torch.empty(3, 4).copy_(x, non_blocking=True), 1),
    "copy to the device": (lambda x: torch.ones(3).to(x.device), 1),
    "copy from pageable memory": (lambda x: torch.ones(3).to(x.device, non_blocking=True), 1),
    "tensor": (lambda x: torch.tensor([1.0], device=x.device), 1),
    "index on the host": (lambda x: x[torch.tensor([0])], 1),
    "synchronize": (lambda x: torch.cuda.synchronize(), 1),
    "of a stream": (lambda x: torch.cuda.current_stream().synchronize(), 1),
    "of an event": (lambda x: torch.cuda.current_stream().record_event().synchronize(), 1),
    "eigenvectors": (lambda x: torch.linalg.eigh(x.T @ x), 1),
    "no wait: operators": (lambda x: (x @ x.T).softmax(dim=1).sort().values[:, 1:].sum(), 0),
    "no wait: number in place of a mask": (lambda x: x.__setitem__(x > 2, 0.0), 0),
    "no wait: masked_fill": (lambda x: x.masked_fill(x > 2, 0.0), 0),
    "no wait: index": (lambda x: x[x[0].argsort() % 3], 0),
    "no wait: repeat of a known size": (
        lambda x: torch.repeat_interleave(x, x[:, 0].long(), dim=0, output_size=15), 0,
    ),
    "no wait: new": (lambda x: torch.zeros(3, device=x.device) + torch.arange(3, device=x.device), 0),
    "no wait: copies with pinned memory": (
        lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True).to("cpu", non_blocking=True), 0,
    ),
    "no wait: streams": (
        lambda x: torch.cuda.current_stream().wait_event(torch.cuda.Stream().record_event()), 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WAITS)
def test_waits_are_counted(name: str, counts: Counts, run: Any) -> None:
    function, expected = WAITS[name]
    x = device(3, 4)
    counts.waits.clear()
    run(lambda: function(x))
    assert counts.waits.total() == expected, counts.waits


def test_operators_are_counted_with_their_views(counts: Counts, run: Any) -> None:
    x = device(3, 4)
    counts.operators.clear()
    run(lambda: x[1:].mul_(2).T @ x[1:])
    assert counts.operators == {"aten::slice": 2, "aten::mul_": 1, "aten::permute": 1, "aten::mm": 1}


def test_operators_on_the_host_are_not_counted() -> None:
    with standin_gpu() as counts:
        (host(3, 4) @ host(4, 3)).sum().item()
        assert not counts.operators
        assert not counts.waits


def test_inner_counts_are_their_own() -> None:
    with standin_gpu() as outer:
        x = device(3)
        before = outer.operators.copy()
        with standin_gpu() as inner:
            x += 1
        assert inner.operators == {"aten::add_": 1}
        assert outer.operators == before


def test_threads_share_the_counts() -> None:
    with standin_gpu() as counts:
        x = device(3)
        counts.operators.clear()

        def add_many() -> None:
            for _ in range(500):
                x.add(1)

        threads = [threading.Thread(target=add_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts.operators == {"aten::add": 2000}


# --- Copies in progress -----------------------------------------------------------------------


@pytest.fixture
def gpu() -> Iterator[Counts]:
    with standin_gpu() as counted:
        yield counted


def test_a_copy_to_the_host_is_there_after_a_wait(gpu: Counts) -> None:
    x = device(3)
    result = x.to("cpu", non_blocking=True)
    assert result.isnan().all()
    x.sum().item()
    assert result.tolist() == [1, 2, 3]
    result.zero_()  # a second wait writes nothing
    torch.cuda.synchronize()
    assert not result.any()


def test_an_event_covers_the_copies_before_it(gpu: Counts) -> None:
    x = device(3)
    before = x.to("cpu", non_blocking=True)
    event = torch.cuda.current_stream().record_event()
    after = x.to("cpu", non_blocking=True)
    event.synchronize()
    assert before.tolist() == [1, 2, 3]
    assert after.isnan().all()
    torch.cuda.synchronize()
    assert after.tolist() == [1, 2, 3]


def test_a_wait_covers_its_own_stream(gpu: Counts) -> None:
    stream, x = torch.cuda.Stream(), device(3)
    with torch.cuda.stream(stream):
        result = x.to("cpu", non_blocking=True)
    x.sum().item()
    assert result.isnan().all()
    torch.cuda.current_stream().wait_stream(stream)
    x.sum().item()
    assert result.tolist() == [1, 2, 3]


@pytest.mark.parametrize("is_view", [False, True])
def test_pinned_memory_must_not_change_while_it_is_copied(gpu: Counts, is_view: bool) -> None:
    memory = torch.empty(4, pin_memory=True)
    source = memory[:3] if is_view else memory
    source.fill_(1)
    source.to("cuda", non_blocking=True)
    source.numpy()[0] = 2
    with pytest.raises(RuntimeError, match="pinned memory was changed"):
        torch.cuda.synchronize()
    source.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    source.zero_()  # now it may
    torch.cuda.synchronize()


def test_pinned_memory_is_known(gpu: Counts) -> None:
    plain, pinned = torch.ones(4), torch.ones(4).pin_memory()
    assert not plain.is_pinned()
    assert pinned.is_pinned()
    assert pinned[2:].is_pinned()
    assert torch.from_numpy(pinned.numpy()).is_pinned()
    assert pinned.pin_memory() is pinned
    assert not pinned.clone().is_pinned()
    del pinned
    torch.ones(1).pin_memory()
    assert len([1 for _, s in _pinned.values() if not s.expired()]) <= 1


def test_torch_is_as_before_afterwards() -> None:
    def state() -> list[Any]:
        owners = ((torch.cuda, "Stream"), (torch.cuda, "mem_get_info"), (torch, "empty"), (torch, "tensor"))
        in_class = [vars(torch.Tensor).get(name) for name in ("pin_memory", "is_pinned")]
        return [getattr(owner, name) for owner, name in owners] + in_class

    before = state()
    with standin_gpu():
        assert state() != before
    assert state() == before

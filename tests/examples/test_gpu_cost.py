"""The cost model of the GPU benchmark counts the bytes that the operators of a step read and write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import bench_scaling
from benchmarks.gpu_cost import step_bytes, step_terms
from benchmarks.gpu_measuring import normal_rows, zipf_rows
from flip_sklearn.backend.fit.optimizer import GatheredRows
from flip_sklearn.backend.fit.session import Session
from tests.helpers.standin_gpu import standin_gpu

# No two arrays have the same number of elements, so that sizes tell them apart.
ROWS, WORDS, RANK, DIMS = 70, 900, 48, 50
ALLOCATE = ("empty", "empty_like", "new_empty", "empty_strided")
OVERWRITE = ("copy_", "fill_", "zero_")
SELECT, SCATTER = ("index", "index_select"), ("index_copy_", "index_add_", "index_put_")


class ByteCounter(TorchDispatchMode):
    """Sums the bytes that operators read and write in tensors of at least ``smallest`` elements, by size."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for tensor in _read_and_written(func, args, kwargs, result):
            n_bytes = tensor.numel() * tensor.element_size()
            self.bytes[tensor.numel()] = self.bytes.get(tensor.numel(), 0) + n_bytes
        return result


def _read_and_written(func: Any, args: Any, kwargs: Any, result: Any) -> Iterator[torch.Tensor]:
    """Yield a tensor for each time that an operator reads or writes it; parts count with their size."""
    name = func._schema.name.removeprefix("aten::")
    if func.is_view or name in ALLOCATE:
        return
    values = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    results = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
    for argument in func._schema.arguments:
        is_overwritten = argument.is_out or (name in OVERWRITE and argument.name == "self")
        # These read and write only the entries that they select.
        is_partial = name in SELECT + SCATTER and argument.name == "self"
        if not is_overwritten and not is_partial:
            yield from (t for t in tree_leaves(values.get(argument.name)) if isinstance(t, torch.Tensor))
    if name in SCATTER:
        yield values["values" if name == "index_put_" else "source"]
    else:
        yield from results
        yield from results if name in SELECT else ()


def count_step(solver: str, precision: str) -> tuple[int, dict[int, int]]:
    """Return the number of classes of one step on the stand-in, and its bytes by size of the tensor."""
    n_classes, counter = WORDS, ByteCounter()
    device = torch.device("cuda")
    with standin_gpu(), mock.patch.object(bench_scaling, "BATCH_ROWS", ROWS):
        X, Y = normal_rows(ROWS, DIMS, device), zipf_rows(ROWS, WORDS, device)
        session = bench_scaling.make_session(X, Y, RANK, solver, "cuda", precision)
        optimizer = session.state.optimizer
        gather, take_step = optimizer.gather, session._take_step

        def record_classes(words: torch.Tensor) -> GatheredRows:
            nonlocal n_classes
            n_classes = len(words)
            return gather(words)

        def count(*arguments: Any) -> torch.Tensor:
            with counter:
                return take_step(*arguments)

        with (
            mock.patch.object(optimizer, "gather", record_classes),
            mock.patch.object(session, "_take_step", count),
            torch.no_grad(),
        ):
            Session.run_pass(session)
    return n_classes, counter.bytes


@pytest.mark.skipif(torch.cuda.is_available(), reason="the stand-in is for machines without a GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("solver", ["exact", "sampled"])
def test_the_model_counts_the_bytes_of_the_operators(solver: str, precision: str) -> None:
    n_classes, counted = count_step(solver, precision)
    assert n_classes == WORDS or solver == "sampled"
    # The stand-in has no compiled kernels.
    terms = step_terms(solver, bfloat16=precision == "bfloat16", fused=False)
    scores, A = ROWS * n_classes, RANK * n_classes
    assert counted[scores] / scores == sum(term.scores for term in terms)
    assert counted[A] / A == sum(term.A for term in terms)
    n_bytes = step_bytes(solver, ROWS, n_classes, RANK, bfloat16=precision == "bfloat16", fused=False)
    assert n_bytes == counted[scores] + counted[A]

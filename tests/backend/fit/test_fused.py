"""The CUDA kernels of a step, compiled for the CPU: their formulas are those of the optimizer."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.cuda.jiterator import _CodeParser

from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.fit import fused, optimizer
from flip_sklearn.backend.fit.optimizer import Optimizer, Parameters
from flip_sklearn.backend.fit.word_prior import WordPrior

COMPILER = shutil.which("c++") or shutil.which("g++")
# Tensors, numbers and results of each kernel, in the order of its parameters.
KERNELS = {
    "step_sizes": (fused.STEP_SIZES, 3, ("scale", "keep", "add", "rate", "correction", "eps"), 3),
    "update_rows": (fused.ROWS, 6, ("l1", "l2", "weight"), 2),
    "update_bias": (fused.BIAS, 6, ("keep", "add", "rate", "correction", "eps", "weight"), 3),
}


class OnCPU:
    """``FusedUpdates`` on float64 CPU tensors."""

    def __init__(self, folder: Path) -> None:
        source = ["#include <cmath>", "using std::pow; using std::sqrt;"]
        for name, (code, n_tensors, numbers, n_results) in KERNELS.items():
            n = n_tensors + len(numbers)
            arguments = [f"in[{i}][k]" for i in range(n_tensors)]
            arguments += [f"numbers[{i}]" for i in range(len(numbers))]
            arguments += [f"out[{i}][k]" for i in range(n_results)]
            source += [
                code,
                f'extern "C" void run_{name}(long n, double** in, double* numbers, double** out) {{',
                f"for (long k = 0; k < n; ++k) {name}<double>({', '.join(arguments)}); }}",
            ]
            assert n <= 12
        path = folder / "kernels.cpp"
        path.write_text("\n".join(source), encoding="utf-8")
        library = folder / "kernels.so"
        command = [str(COMPILER), "-O1", "-shared", "-fPIC", str(path), "-o", str(library)]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))

    def __getattr__(self, name: str) -> Any:
        _, n_tensors, names, n_results = KERNELS[name]
        run = getattr(self._library, f"run_{name}")

        def kernel(*tensors: torch.Tensor, **numbers: float) -> tuple[torch.Tensor, ...]:
            assert len(tensors) == n_tensors
            assert set(numbers) == set(names)
            inputs = [t.contiguous() for t in torch.broadcast_tensors(*tensors)]
            results = [torch.empty_like(inputs[0]) for _ in range(n_results)]
            values = (ctypes.c_double * len(names))(*(numbers[n] for n in names))
            pointers = [(ctypes.c_void_p * len(ts))(*(t.data_ptr() for t in ts)) for ts in (inputs, results)]
            run(ctypes.c_long(inputs[0].numel()), pointers[0], values, pointers[1])
            return tuple(results)

        return kernel


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> OnCPU:
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    return OnCPU(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("name", KERNELS)
def test_torch_finds_the_name_of_the_kernel(name: str) -> None:
    assert _CodeParser(KERNELS[name][0]).function_name == name


@pytest.mark.parametrize("lazy", [False, True], ids=["all words", "gathered words"])
@pytest.mark.parametrize("has_prior", [False, True], ids=["", "with a prior"])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.7, 0.0), (0.0, 3.0), (0.7, 3.0)])
def test_kernels_equal_the_separate_operators(kernels, monkeypatch, l1, l2, has_prior, lazy) -> None:
    n_words, rank = 12, 5
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    A, b = normal(n_words, rank), normal(n_words)
    optimizers = []
    for updates in (None, kernels):
        monkeypatch.setattr(optimizer, "fused_updates", lambda device, updates=updates: updates)
        prior = None
        if has_prior:
            prior = WordPrior(A[:, :3].clone(), ProcessGroup())
            prior.update(A)
        start = Parameters(A.clone(), None, b.clone())
        optimizers.append(Optimizer(start, l1=l1, l2=l2, learning_rate=0.3, prior=prior))
    seen_zero = False
    for step in range(60):
        words = torch.from_numpy(np.flatnonzero(np.random.default_rng(step).random(n_words) < 0.4))
        grad_A, grad_b = normal(n_words, rank), normal(n_words)
        grad_A[0], grad_b[0] = 0, 0  # a word without a gradient does not move
        for opt in optimizers:
            if lazy:
                opt.step(grad_A[words], grad_b[words], None, opt.gather(words))
            else:
                opt.step(grad_A.clone(), grad_b.clone(), None)
        seen_zero |= bool((optimizers[0].A == 0).any())
    for opt in optimizers:
        opt.flush_lazy_updates()
    plain, in_kernels = (opt.state() for opt in optimizers)
    assert plain[1] == in_kernels[1]
    for name, tensor in plain[0].items():
        torch.testing.assert_close(in_kernels[0][name], tensor, rtol=1e-11, atol=1e-13, msg=name)
    assert torch.equal(optimizers[0].A == 0, optimizers[1].A == 0)
    assert seen_zero == (l1 > 0)
    assert torch.equal(optimizers[1].A[0], A[0])


def test_there_are_no_kernels_without_cuda() -> None:
    assert fused.fused_updates(torch.device("cpu")) is None

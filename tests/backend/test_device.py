"""Choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from flip_sklearn.backend import device
from flip_sklearn.backend.device import Compute, product_precision, resolve_compute, resolve_device


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "", "cpu:x", 3, None])
def test_unknown_devices_are_refused(name) -> None:
    """The message contains the value and the allowed ones."""
    with pytest.raises(ValueError, match=r"(?i)cuda") as error:
        resolve_device(name)
    assert repr(name) in str(error.value)
    assert "'cpu'" in str(error.value)


def test_precisions() -> None:
    assert resolve_compute("cpu", "float64").dtype == torch.float64
    assert resolve_compute("cpu", "float32").product_dtype == torch.float32
    compute = resolve_compute("cpu", "bfloat16")
    assert (compute.dtype, compute.product_dtype) == (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="'half' is unknown; use one of 'auto', 'float32'"):
        resolve_compute("cpu", "half")


@pytest.mark.parametrize("has_amx", [True, False])
def test_auto_precision_depends_on_the_cpu_only(monkeypatch, has_amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx, raising=False)
    expected = torch.bfloat16 if has_amx else torch.float32
    assert resolve_compute("cpu", "auto").product_dtype == expected


def test_bfloat16_products_are_allowed_inside_the_block_only() -> None:
    onednn = getattr(torch.backends.mkldnn, "matmul", None)
    if onednn is None:
        pytest.skip(f"torch {torch.__version__} has no setting of products in bfloat16")
    before = onednn.fp32_precision
    compute = Compute(torch.device("cpu"), torch.float32, torch.bfloat16)
    with product_precision(compute):
        assert onednn.fp32_precision == "bf16"
        with pytest.raises(RuntimeError), product_precision(compute):
            torch.mm(torch.ones(2, 3), torch.ones(2, 3))  # fails inside the inner block
        assert onednn.fp32_precision == "bf16"
    assert onednn.fp32_precision == before
    with product_precision(resolve_compute("cpu", "float32")):
        assert onednn.fp32_precision == before


def test_data_stay_on_the_host_if_the_gpu_is_small(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    gpu = torch.device("cuda")
    assert device.fits_on_device(500, gpu)
    assert not device.fits_on_device(501, gpu)
    assert device.fits_on_device(10**15, torch.device("cpu"))

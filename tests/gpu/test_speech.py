"""Speech models of transformers on a CUDA device give the vectors of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile", reason="SpeechEncoder needs the extra speech")
pytest.importorskip("soxr", reason="SpeechEncoder needs the extra speech")
pytest.importorskip("transformers", reason="the models are those of transformers")

from flip_sklearn.encoders import SpeechEncoder
from tests.helpers.tiny_models import speech_model

pytestmark = pytest.mark.gpu


@pytest.fixture
def new_parameters() -> Iterator[None]:
    """Modules get new parameters when they move: the stand-in cannot change the device of one in place."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(before)


@pytest.mark.parametrize(
    ("kind", "norm"), [("wav2vec2", "layer"), ("wav2vec2", "group"), ("hubert", "layer")]
)
def test_vectors_equal_those_of_the_cpu(kind: str, norm: str, tmp_path: Path, new_parameters: None) -> None:
    folder = speech_model(tmp_path / "model", kind, norm)
    sounds = [np.random.default_rng(n).normal(scale=0.1, size=n) for n in (4000, 9001, 1)]
    encoders = [SpeechEncoder(folder, sampling_rate=16_000, device=device) for device in ("cpu", "cuda")]
    expected, actual = (encoder.transform(sounds) for encoder in encoders)
    np.testing.assert_allclose(actual, expected, atol=2e-4)

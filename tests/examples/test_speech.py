"""The study of spoken sentences: on planted sounds, with a tone for each word, and with espeak-ng."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flip_sklearn.parameters import install_command
from tests.examples.test_examples import EXAMPLES, WORDS, run
from tests.helpers.tiny_models import bag_of_words_model

pytest.importorskip("soundfile", reason="soundfile is not installed")
pytest.importorskip("soxr", reason="soxr is not installed")

RATE = 16_000
ROW = r"^ +{} +([\d.]+) \(([\d.]+) to ([\d.]+)\)(.*)$"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag-of-words encoder of texts."""
    return bag_of_words_model(tmp_path_factory.mktemp("encoder"), WORDS, 24)[0]


@pytest.fixture(scope="module")
def speech_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speech model with random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        **{"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48},
        **{"conv_dim": (32, 48), "conv_kernel": (64, 4), "conv_stride": (40, 4)},
        **{"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer"},
    )
    folder = tmp_path_factory.mktemp("speech_encoder")
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Sentences of words drawn at random."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 5, replace=False)) for _ in range(340)]


@pytest.fixture
def speech(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, which speaks each word as a tone."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module("speech")
    time = np.arange(RATE // 20) / RATE

    def synthesize(text: str, voice: str, speed: int) -> tuple[np.ndarray, int]:
        tones = [200 + 170 * WORDS.index(word) if word in WORDS else 100 for word in text.split()]
        loudness = 0.3 + 0.01 * [*module.VOICES, module.TEST_VOICE].index(voice)
        return np.concatenate([loudness * np.sin(2 * np.pi * tone * time) for tone in tones]), RATE

    monkeypatch.setattr(module, "synthesize", synthesize)
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    return module


@pytest.fixture
def call(speech: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the example in this process."""

    def main(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["speech.py", *map(str, arguments)])
        speech.main()

    return main


def read_row(name: str, output: str) -> tuple[float, float, float, str]:
    value, low, high, rest = re.findall(ROW.format(name), output, re.MULTILINE)[0]
    return float(value), float(low), float(high), rest


def test_words_are_read_off_sounds(
    call: Callable[..., None],
    speech: ModuleType,
    texts: list[str],
    encoder: Path,
    speech_encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted tones are read and shuffled pairs are not; a second run speaks and encodes nothing again."""
    data = tmp_path / "texts.txt"
    data.write_text("\n".join(texts), encoding="utf-8")
    arguments = ("--data", data, "--encoder", encoder, "--speech-encoder", speech_encoder, "--out", tmp_path)
    call(*arguments)
    output = capsys.readouterr().out
    assert "0 of 340 utterances are in" in output

    baseline = read_row("most frequent words", output)
    shuffled = read_row("shuffled pairs", output)
    assert read_row("speech", output)[1] > baseline[2] + 20
    assert read_row("text", output)[1] > baseline[2] + 20
    assert abs(shuffled[0] - baseline[0]) < 6
    assert len(re.findall(r"\[\w+\]", output)) >= 15  # of five sentences of five words
    assert float(re.findall(r"([\d.]+)% \+- .* find their text first", output)[0]) > 25

    own = read_row("speech +speech", output)
    assert read_row("speech +speech, a copy", output)[:3] == own[:3]
    assert "+0.00" in read_row("speech +speech, a copy", output)[3]
    assert "*" not in read_row("speech +speech, a copy", output)[3]
    assert read_row("text +text", output)[1] > baseline[2]
    assert read_row("text +speech", output)[1] > baseline[2]
    assert (tmp_path / "speech.png").stat().st_size > 5_000

    done = []
    synthesize = speech.synthesize
    monkeypatch.setattr(speech, "synthesize", lambda *args: (done.append("sound"), synthesize(*args))[1])
    backend = importlib.import_module("flip_sklearn.encoders.speech_models").TransformersSpeech
    encode = backend.vectors
    monkeypatch.setattr(
        backend, "vectors", lambda self, *args: (done.append("vectors"), encode(self, *args))[1]
    )
    monkeypatch.setattr(speech, "compare", lambda *args: sys.exit("after the sounds"))
    with pytest.raises(SystemExit, match="after the sounds"):
        call(*arguments)
    assert "340 of 340 utterances are in" in capsys.readouterr().out
    assert done == ["vectors", *["sound"] * 9]  # which test the installation


def test_synthesis_continues_where_it_was_stopped(
    speech: ModuleType, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken: list[str] = []
    whole = speech.synthesize

    def stop_after_ten(text: str, voice: str, speed: int) -> tuple[np.ndarray, int]:
        if len(spoken) >= 10:
            raise KeyboardInterrupt
        spoken.append(text)
        return whole(text, voice, speed)

    def count(text: str, voice: str, speed: int) -> tuple[np.ndarray, int]:
        spoken.append(text)
        return whole(text, voice, speed)

    monkeypatch.setattr(speech, "synthesize", stop_after_ten)
    is_test = np.arange(40) < 10
    with pytest.raises(KeyboardInterrupt):
        speech.speak(texts[:40], is_test, 0, tmp_path)
    assert 0 < len(list(tmp_path.glob("*.flac"))) < 40
    monkeypatch.setattr(speech, "synthesize", count)
    paths = speech.speak(texts[:40], is_test, 0, tmp_path)
    assert sorted(spoken) == sorted(texts[:40])
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}


def test_only_test_sentences_have_the_test_voice(
    speech: ModuleType, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = {}

    def note(text: str, voice: str, speed: int) -> tuple[np.ndarray, int]:
        heard[text] = voice, speed
        return np.ones(100), RATE

    monkeypatch.setattr(speech, "synthesize", note)
    is_test = np.arange(200) % 4 == 0
    speech.speak(texts[:200], is_test, 0, tmp_path)
    assert {heard[text][0] for text, flag in zip(texts, is_test, strict=False) if flag} == {speech.TEST_VOICE}
    assert {heard[text][0] for text, flag in zip(texts, is_test, strict=False) if not flag} == set(
        speech.VOICES
    )
    assert speech.TEST_VOICE not in speech.VOICES
    assert {speech.SPEEDS[0] <= speed <= speech.SPEEDS[1] for _, speed in heard.values()} == {True}


@pytest.mark.parametrize("n_groups", [400, 80])
def test_split_keeps_groups_whole(speech: ModuleType, n_groups: int) -> None:
    groups = np.random.default_rng(0).integers(n_groups, size=400).astype(str)
    is_student, is_test = speech.split(groups, 0)
    parts = [is_student, is_test, ~is_student & ~is_test]
    assert not (is_student & is_test).any()
    for i, part in enumerate(parts):
        assert part.sum() == pytest.approx((170, 60, 170)[i], abs=15)
        for other in parts[:i]:
            assert not set(groups[part]) & set(groups[other])


def test_docstrings_that_read_aloud(speech: ModuleType) -> None:
    args = speech.argparse.Namespace(data=None, groups=None, seed=0, utterances=50)
    texts, _ = speech.load(args)
    assert len(set(texts)) == 50
    for text in texts:
        assert not re.search(r"[^A-Za-z',.?! ]", text)


def test_sentences_and_groups(
    speech: ModuleType,
    call: Callable[..., None],
    tmp_path: Path,
    speech_encoder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Empty and repeated lines are left out, with their labels; what does not fit is refused."""
    data, groups = tmp_path / "texts.txt", tmp_path / "groups.txt"
    data.write_text("a lion\n\nold rope\na lion\n...\ntwo pans\n", encoding="utf-8")
    groups.write_text("1\n2\n3\n4\n5\n6\n", encoding="utf-8")
    arguments = ("--data", data, "--speech-encoder", speech_encoder, "--out", tmp_path)
    with pytest.raises(SystemExit):
        call(*arguments)
    assert "there are 3 different sentences; at least 100" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(*arguments, "--utterances", 0)
    assert "--utterances is 0; at least 100" in capsys.readouterr().err
    args = speech.argparse.Namespace(data=data, groups=groups, seed=0, utterances=10)
    assert dict(zip(*speech.load(args), strict=True)) == {"a lion": "1", "old rope": "3", "two pans": "6"}
    groups.write_text("1\n2\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"has 2 lines and .* 6; it needs one group per sentence"):
        speech.load(args)


def test_missing_programs_are_named(
    speech: ModuleType,
    call: Callable[..., None],
    speech_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install espeak-ng"):
        call("--out", tmp_path)
    monkeypatch.setattr(speech.shutil, "which", lambda name: name)
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "soundfile", None)
        with pytest.raises(SystemExit, match=re.escape(install_command("demo,speech"))):
            call("--out", tmp_path)
    monkeypatch.setattr(speech, "synthesize", lambda *args: (np.ones(100), RATE))
    models = ("--speech-encoder", speech_encoder)
    with pytest.raises(SystemExit, match="speaks en-gb like en-us"):
        call(*models, "--out", tmp_path)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak(texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each voice speaks; slower speech is longer, and no text is read as an option or as phonemes."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module("speech")
    text = "The old lion sees two ships and a crane near the harbour."
    for voice in (module.TEST_VOICE, *module.VOICES):
        samples, rate = module.synthesize(text, voice, 160)
        assert 2 < len(samples) / rate < 8
        assert 0.05 < np.abs(samples).max() <= 1
    slow, fast = (len(module.synthesize(text, "en-us", speed)[0]) for speed in module.SPEEDS)
    assert slow > 1.1 * fast
    for odd in ("--version", "[[h@loU]]", "naïve <b>café</b>"):
        assert len(module.synthesize(odd, "en-us", 160)[0]) > 3000
    with pytest.raises(SystemExit, match="with the voice zz"):
        module.synthesize(text, "zz", 160)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_script(texts: list[str], encoder: Path, speech_encoder: Path, tmp_path: Path) -> None:
    """The script as it is called, with a group of two sentences each."""
    for name, lines in (("texts", texts[:100]), ("groups", [str(i // 2) for i in range(100)])):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    files = ("--data", tmp_path / "texts", "--groups", tmp_path / "groups", "--out", tmp_path)
    output = run("speech.py", *files, "--encoder", encoder, "--speech-encoder", speech_encoder)
    assert len(list((tmp_path / "speech").glob("*.flac"))) == 100
    assert "5. Plot saved" in output

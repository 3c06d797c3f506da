"""Audio files and arrays: what is read, and what is refused before anything is encoded."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

sf = pytest.importorskip("soundfile", reason="audio files are read by soundfile")
pytest.importorskip("soxr", reason="sounds are resampled by soxr")

from flip_sklearn.encoders import EncodingError, audio  # noqa: E402
from flip_sklearn.encoders.audio import Sound, check_sounds  # noqa: E402

RATE = 16_000


def noise(n: int = 4000, seed: int = 0) -> np.ndarray:
    """Noise whose samples 16-bit integers represent exactly."""
    samples = np.random.default_rng(seed).normal(scale=0.1, size=n).clip(-1, 1)
    return np.round(samples * 32767) / 32768


def read(X: Any, rate: int | None = None, to: int = RATE) -> list[np.ndarray]:
    return [sound.read(to) for sound in check_sounds(X, rate, False)]


def write(path: Path, samples: np.ndarray | None = None, rate: int = RATE, **options: Any) -> str:
    sf.write(path, noise() if samples is None else samples, rate, **options)
    return str(path)


# --- What is read ----------------------------------------------------------------------------


def test_files_and_arrays_of_one_sound_are_equal(tmp_path: Path) -> None:
    x = noise()
    stereo = np.stack([x, x], axis=1)
    files = [
        write(tmp_path / "a.wav", x),
        write(tmp_path / "a.flac", x),
        write(tmp_path / "24.wav", x, subtype="PCM_24"),
        write(tmp_path / "32.flac", stereo, subtype="PCM_24"),
        write(tmp_path / "float.wav", x, subtype="FLOAT"),
        write(tmp_path / "double.aiff", stereo, subtype="DOUBLE"),
    ]
    arrays = [
        x, x.astype(np.float32), list(x), stereo, x[:, None], torch.tensor(x, requires_grad=True),
        (x * 2**15).astype(np.int16), torch.tensor(x * 2**15).to(torch.int16), (x * 2**31).astype(np.int32),
        (x * 2**63).astype(np.int64), (x * 2**15 + 2**15).astype(np.uint16), x.astype(">f4"),
    ]  # fmt: skip
    sounds = check_sounds(files, None, False) + check_sounds(arrays, RATE, False)
    assert len(set(sounds)) == 1
    for sound in sounds:
        np.testing.assert_array_equal(sound.read(RATE), x.astype(np.float32))
    others = check_sounds([x[:-1], -x, x[::-1]], RATE, False) + check_sounds([x], 8000, False)
    assert len({*sounds, *others}) == 5


@pytest.mark.parametrize(("bits", "dtype"), [(8, "int8"), (8, "uint8"), (11, "float16")])
def test_narrow_samples_are_rounded(bits: int, dtype: str) -> None:
    x = noise()
    scale = 2 ** (bits - 1)
    narrow = (
        x.astype(dtype) if dtype == "float16" else np.round(x * scale + (scale if dtype[0] == "u" else 0))
    )
    [actual] = read([narrow.astype(dtype)], RATE)
    assert np.abs(actual - x).max() <= 0.51 / scale


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.mp3"])
def test_lossy_files_are_similar(name: str, tmp_path: Path) -> None:
    t = np.arange(RATE) / RATE
    x = np.sin(2 * np.pi * 440 * t) / 4
    [actual] = read([write(tmp_path / name, x, subtype="ULAW" if name == "a.wav" else None)])
    spectrum = np.abs(np.fft.rfft(actual))
    assert len(actual) == RATE
    assert spectrum.argmax() == 440
    assert spectrum[440] > 20 * np.delete(spectrum, range(430, 450)).max()


def test_channels_are_averaged(tmp_path: Path) -> None:
    x, y = noise(seed=0), noise(seed=1)
    mean = ((x + y) / 2).astype(np.float32)
    stereo = np.stack([x, y], axis=1)
    for sound in (*read([write(tmp_path / "a.wav", stereo)]), *read([stereo], RATE)):
        np.testing.assert_allclose(sound, mean, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000])
def test_sounds_are_resampled(rate: int) -> None:
    x, expected = (np.sin(2 * np.pi * 440 * np.arange(r // 2) / r) for r in (rate, RATE))
    [actual] = read([x], rate)
    assert len(actual) == RATE // 2
    middle = slice(200, -200)
    np.testing.assert_allclose(actual[middle], expected[middle], atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("rate", [1000, 44_100])
def test_a_sound_of_some_samples_has_a_length(n: int, rate: int) -> None:
    [sound] = check_sounds([np.ones(n)], rate, False)
    assert len(sound.read(RATE)) == sound.n_samples(RATE) == max(1, round(n * RATE / rate))


def test_blocks_do_not_change_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stereo = np.stack([noise(seed=0), noise(seed=1)], axis=1)
    path = write(tmp_path / "a.flac", stereo)
    whole = check_sounds([path], None, False) + check_sounds([stereo], RATE, False)
    monkeypatch.setattr(audio, "_BLOCK", 33)
    blocks = check_sounds([path], None, False) + check_sounds([stereo], RATE, False)
    assert len({*whole, *blocks}) == 1
    for sound in blocks:
        np.testing.assert_array_equal(sound.read(RATE), whole[0].read(RATE))


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.25, 1.0])
def test_parts_hold_the_whole_sound(seconds: float, tmp_path: Path) -> None:
    for sound in check_sounds([write(tmp_path / "a.wav")], None, False) + check_sounds(
        [noise()], RATE, False
    ):
        parts = sound.split(seconds)
        assert all(part.seconds <= seconds for part in parts)
        assert len(set(parts)) == len(parts)
        np.testing.assert_array_equal(np.concatenate([part.read(RATE) for part in parts]), sound.read(RATE))


@pytest.mark.parametrize(
    "wrap", [list, tuple, pd.Series, np.array, lambda x: np.array(x, object), lambda x: list(map(Path, x))]
)
def test_lists_of_paths(wrap: Any, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.wav", noise(seed=i)) for i in (0, 1, 0)]
    sounds = check_sounds(wrap(paths), None, False)
    assert [repr(path) for path in paths] == [sound.name for sound in sounds]
    np.testing.assert_array_equal(sounds[1].read(RATE), noise(seed=1).astype(np.float32))


@pytest.mark.parametrize("wrap", [list, np.array, torch.tensor, lambda x: pd.Series(list(x))])
def test_lists_of_arrays(wrap: Any) -> None:
    X = np.stack([noise(seed=i) for i in range(3)])
    np.testing.assert_array_equal(read(wrap(X), RATE), X.astype(np.float32))


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.wav")
    assert len(read(["~/a.wav"])) == 1


def test_a_stream_of_unknown_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # what a program writes to a pipe
    path.write_bytes(content)
    np.testing.assert_array_equal(read([str(path)])[0], noise().astype(np.float32))


# --- What is refused -------------------------------------------------------------------------


def cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


def damage(path: Path, kind: str) -> None:
    """Write a file that cannot be encoded."""
    x = noise()
    if kind == "text":
        path.write_text("This is a text.")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        write(path)
        os.truncate(path, 3 * 2**30)  # no block of the disk is used
    elif kind == "no samples":
        write(path, x[:0])
    elif kind in ("cut", "cut flac"):
        write(path, x, format="FLAC" if kind == "cut flac" else "WAV")
        cut(path, 0.5)
    elif kind == "slow":
        write(path, x, 500)
    elif kind in ("nan", "infinity"):
        x[7] = float(kind)
        write(path, x, subtype="FLOAT")
    elif kind == "loud":
        write(path, x * 2**15, subtype="FLOAT")
    elif kind == "rate 0":
        write(path)
        content = bytearray(path.read_bytes())
        content[24:28] = bytes(4)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "does not exist"),
        ("text", "cannot be read .*complete"),
        ("empty", "has 0 bytes; use audio files of 1 to 2147483648 bytes"),
        ("folder", "is a folder, pipe or device"),
        ("pipe", "is a folder, pipe or device"),
        ("huge", "has 3221225472 bytes; use audio files of"),
        ("no samples", "has no samples"),
        ("cut", r"has \d+ of the 8000 bytes that its header announces"),
        ("cut flac", "cannot be read"),
        ("slow", "has 500 samples per second; use a file with 1000 to 384000"),
        ("nan", "has NaN or infinity in frame 7"),
        ("infinity", "has NaN or infinity in frame 7"),
        ("loud", "has samples up to .* full scale is 1"),
        ("rate 0", "cannot be read"),
    ],
)
def test_unusable_files_are_refused_with_row_and_name(kind: str, message: str, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.wav"), tmp_path / "bad.wav"
    damage(bad, kind)
    with pytest.raises(ValueError, match=f"^Row 2 is '{bad}', which {message}"):
        check_sounds([good, good, str(bad)], None, False)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read all files"
)
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path)
    path.chmod(0)
    with pytest.raises(ValueError, match=r"Row 0 is .* cannot be read .Permission denied"):
        check_sounds([path], None, False)


def test_a_long_sound_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MAX_SECONDS", 1)
    monkeypatch.setattr(audio, "_digest", None)  # no sample is read
    path = write(tmp_path / "a.wav", np.zeros(RATE + 1))
    for X, rate in (([path], None), ([np.zeros(RATE + 1)], RATE)):
        with pytest.raises(ValueError, match=r"Row 0 .*use sounds of at most 1 seconds"):
            check_sounds(X, rate, False)


X = noise()


@pytest.mark.parametrize(
    ("sounds", "rate", "message"),
    [
        ([], None, "X has no sounds"),
        (None, None, "X is a NoneType"),
        ("a.wav", None, r"X is a single str; pass a list .*\[path\]"),
        (b"a.wav", None, "X is a single bytes"),
        ({"a": X}, RATE, "X is a dict"),
        (X, RATE, r"X has shape \(4000,\), as a single sound has; pass a list"),
        (np.stack([X, X], axis=1), RATE, r"X has shape \(4000, 2\), as a single sound has"),
        (pd.DataFrame({"path": ["a.wav"]}), None, r"pass one column of paths, such as table\['path'\]"),
        ([X, "a.wav"], RATE, r"Row 0 is no path and row 1 is 'a\.wav' \(str\); pass either"),
        (["a.wav", X], None, "Row 0 is a path and row 1 is .*ndarray"),
        ([None], None, r"Row 0 is None \(NoneType\), not a sound"),
        ([X, float("nan")], RATE, r"Row 1 is nan \(float\), not a sound"),
        ([b"a.wav"], None, r"Row 0 is .*pass os\.fsdecode\(path\)"),
        ([{"array": X}], RATE, r"Row 0 is .*\(dict\), not a sound"),
        ([X], None, r"X has arrays and sampling_rate is None; .*SpeechEncoder\(sampling_rate=16000\)"),
        (["a.wav"], RATE, "sampling_rate=16000 is for arrays; audio files contain their rate, so use None"),
        ([X], 0, "sampling_rate=0 is not allowed; use an integer from 1000 to 384000"),
        ([X], -16000, "sampling_rate=-16000"),
        ([X], True, "sampling_rate=True"),
        ([X], 16000.5, "sampling_rate=16000.5"),
        ([X], "16000", "sampling_rate='16000'"),
        ([X, X[:0]], RATE, "Row 1 has no samples"),
        ([X, np.append(X, np.nan)], RATE, "Row 1 has NaN or infinity in frame 4000"),
        ([np.append(X, -np.inf)], RATE, "Row 0 has NaN or infinity in frame 4000"),
        ([X.astype(complex)], RATE, "Row 0 has dtype complex128"),
        ([X > 0], RATE, "Row 0 has dtype bool"),
        ([["a", "b"]], RATE, "Row 0 has dtype <U1"),
        ([[[0.1], [0.1, 0.2]]], RATE, "Row 0 is not an array of samples"),
        ([np.float32(1)], RATE, r"Row 0 has shape \(\)"),
        ([np.stack([X, X])], RATE, r"Row 0 has shape \(2, 4000\); .*here x\.T"),
        ([np.zeros((2, 2, 2))], RATE, r"Row 0 has shape \(2, 2, 2\)"),
        ([X * 2**15], RATE, "Row 0 has samples up to .*divide by the full scale, such as 32768"),
        ([(X * 2**15).astype(int)], RATE, r"Row 0 has dtype int64, .*such as x\.astype\('int16'\)"),
    ],
)
def test_unusable_input_is_refused(sounds: Any, rate: Any, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            check_sounds(sounds, rate, False)


@pytest.mark.parametrize("change", ["content", "removed"])
def test_a_file_that_changes_after_the_check_is_an_error(change: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    [sound] = check_sounds([write(path)], None, False)
    if change == "removed":
        path.unlink()
    else:
        write(path, noise(5000))
    with pytest.raises(EncodingError, match=r"a\.wav' (has changed since|can no longer be read)"):
        sound.read(RATE)


def test_reading_needs_memory_for_blocks(tmp_path: Path) -> None:
    import tracemalloc

    path = write(tmp_path / "a.flac", np.zeros((600 * 8000, 2), np.int16), 8000)  # 37 MiB as float32
    check_sounds([path], None, False)
    tracemalloc.start()
    [sound] = check_sounds([path], None, False)
    sound.split(30)[3].read(RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20
    assert isinstance(sound, Sound)

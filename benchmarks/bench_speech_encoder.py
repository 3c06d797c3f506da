"""SpeechEncoder: utterances per second, and words read, with Whisper's padding and with a short one.

    python -m benchmarks.bench_speech_encoder                     # the table of docs/encoders.md
    python -m benchmarks.bench_speech_encoder --utterances 1400

Needs espeak-ng and ``pip install "flip-sklearn[speech]"``. Captions of captions.train.en.txt.gz are spoken
by three voices, those of captions.dev.en.txt.gz, two of seven utterances, by a fourth one. The model is the
default one, Whisper tiny.en. The accuracy is the mean of three fits with different seeds; the cosine compares
the vectors of the two paddings.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks.data import DEFAULT_DATA, positive_int, read_lines
from flip_sklearn import FLiPExtractor
from flip_sklearn.encoders import SpeechEncoder

VOICES = ("en-us", "en-gb", "en-gb-scotland")
TEST_VOICE = "en-us+f3"


def speak(text: str, voice: str, words_per_minute: int) -> tuple[np.ndarray, int]:
    """Return the samples of a spoken text, and their number per second."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "--stdout"]
    wav = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
    return sf.read(io.BytesIO(wav), dtype="float32")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--utterances", type=positive_int, default=490)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    n_test = 2 * args.utterances // 7
    texts, sounds, rate = [], [], 0
    for part, n in (("train", args.utterances - n_test), ("dev", n_test)):
        lines = read_lines(args.data / f"captions.{part}.en.txt.gz")
        for i, row in enumerate(rng.choice(len(lines), n, replace=False)):
            voice = VOICES[i % 3] if part == "train" else TEST_VOICE
            sound, rate = speak(lines[row], voice, int(rng.integers(140, 191)))
            texts.append(lines[row])
            sounds.append(sound)
    train, test = slice(0, args.utterances - n_test), slice(args.utterances - n_test, None)
    vectorizer = CountVectorizer(strip_accents="ascii").fit(texts[train])
    Y, words = vectorizer.transform(texts), vectorizer.get_feature_names_out()
    seconds = np.mean([len(sound) / rate for sound in sounds])
    print(
        f"{len(sounds)} utterances of {seconds:.1f} s, {len(words)} words, {n_test} utterances for the test"
    )
    print(
        f"{'padding':<9}{'pooling':<10}{'d':>4}{'utterances a CPU second':>25}{'words read':>12}{'cosine':>8}"
    )
    full = None
    for padding in ("full", "short"):
        start = time.process_time()
        X = SpeechEncoder(padding=padding, sampling_rate=rate, device="cpu", verbose=1).transform(sounds)
        speed = len(sounds) / (time.process_time() - start)
        full = X if full is None else full
        cosine = np.mean((X * full).sum(1) / np.linalg.norm(X, axis=1) / np.linalg.norm(full, axis=1))
        for pooling, d in (("mean_std", X.shape[1]), ("mean", X.shape[1] // 2)):  # the mean comes first
            scores = []
            for seed in range(3):
                model = FLiPExtractor(vocabulary=words, max_iter=200, random_state=seed).fit(
                    X[train, :d], Y[train]
                )
                scores.append(float(model.score(X[test, :d], Y[test])))
            print(
                f"{padding:<9}{pooling:<10}{d:>4}{speed:>25.1f}{np.mean(scores):>12.1%}{cosine:>8.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

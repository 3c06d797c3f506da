"""Make examples/data/speech.npz, the spoken sentences that plot_speech.py reads.

    python examples/speech_data.py

Needs espeak-ng and two extras: ``pip install '.[demo,speech]'`` in a clone. espeak-ng speaks sentences of
NumPy's docstrings in eight voices, those of the test in a ninth, and Whisper's encoder turns each sound into
768 numbers (see speech.py). They are stored as integers of 8 bits with a mean and a step per dimension, in 1
MB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from speech import SPEAKABLE, check_installed, speak

from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SpeechEncoder

N_SENTENCES, N_TEST = 1300, 200
FOLDER = Path("outputs")
STEPS = 30  # per standard deviation; values beyond 127 of them are cut off


def main() -> None:
    """Run the example."""
    encoder = SpeechEncoder(padding="short", cache_dir=FOLDER / "cache", verbose=1)
    check_installed(encoder)
    sentences = load_docstrings(packages=["numpy"], random_state=0)
    texts = list(dict.fromkeys(text for text in sentences if SPEAKABLE.fullmatch(text)))[:N_SENTENCES]
    is_test = np.arange(len(texts)) >= len(texts) - N_TEST
    X = encoder.transform(speak(texts, is_test, 0, FOLDER / "speech"))
    mean, step = X.mean(axis=0), X.std(axis=0) / STEPS
    codes = np.clip(np.rint((X - mean) / step), -127, 127).astype(np.int8)
    path = Path(__file__).parent / "data" / "speech.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        texts=np.array(texts),
        is_test=is_test,
        codes=codes,
        mean=mean.astype(np.float32),
        step=step.astype(np.float32),
    )
    error = np.abs(codes * step + mean - X).max(axis=0) / X.std(axis=0)
    print(f"{path}: {path.stat().st_size:,} bytes, largest error {error.max():.2f} standard deviations")


if __name__ == "__main__":
    main()

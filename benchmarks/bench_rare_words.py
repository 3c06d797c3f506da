"""Features of the words: what they change for rare words, for words never seen, and what they cost.

Run from the root of the repository; each part is a module with options of its own. The words are encoded by
all-MiniLM-L6-v2 (the extra ``demo``), the encoder of the captions.

    python -m benchmarks.bench_rare_words                      # all parts
    python -m benchmarks.bench_rare_words captions zero_shot   # some of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys

PARTS = {
    "captions": "accuracy, and recall by training count, with and without features; negative controls",
    "variants": "other estimators of the prior, on the same captions",
    "zero_shot": "words held out of training and added by extend_vocabulary, beside SpLiCE",
    "recall": "recall by training count, and of words held out of training, with intervals",
    "entities": "recall of names with and without features",
    "cost": "seconds of a pass with and without features",
}


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all if none is named: {', '.join(PARTS)}")
    parts = parser.parse_args().parts or list(PARTS)
    unknown = [name for name in parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; use {', '.join(PARTS)}")
    for name in parts:
        print(f"\n## {name}: {PARTS[name]}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.rare_{name}"], check=True)


if __name__ == "__main__":
    main()

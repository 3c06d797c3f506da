"""Whether results are true: optima, predicted totals and confidence intervals, from public functions alone.

Run from the root of the repository; each part is a module with options of its own:

    python -m benchmarks.bench_truth                     # all parts, about half an hour on two cores
    python -m benchmarks.bench_truth optimum coverage    # some of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys

PARTS = {
    "optimum": "J, KKT residual and gap to the optimum by solver and pass; accuracy of the optimum",
    "totals": "predicted over observed totals by count; accuracy and likelihood before and after the refit",
    "coverage": "how often each confidence interval contains the truth, with and without clusters",
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
        subprocess.run([sys.executable, "-m", f"benchmarks.truth_{name}"], check=True)


if __name__ == "__main__":
    main()

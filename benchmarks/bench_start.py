"""CPU seconds of imports and of the command line, each in a new process, relative to `import sklearn`.

Run from the root of the repository:

    python -m benchmarks.bench_start
    python -m benchmarks.bench_start --repeats 10

The figure of a case is the median over the repeats of the user and system CPU seconds of its process. The
cases are run in turn in every repeat, so that a change in the load of the machine affects all of them. The
first repeat writes the byte code and is not counted. The target is a ratio of at most 1.5.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

TARGET = 1.5
STATEMENTS = (
    "import sklearn",
    "import flip_sklearn",
    "import flip_sklearn.metrics",
    "from flip_sklearn import ConceptVectorizer",
    "from flip_sklearn.datasets import load_docstrings",
)
COMMAND_LINES = ("--help", "fit --help", "fit --no-such-option")


def cases() -> dict[str, list[str]]:
    """Name and arguments of each process; the first one is the base of the ratios."""
    python = {statement: [sys.executable, "-c", statement] for statement in STATEMENTS}
    command = [sys.executable, "-m", "flip_sklearn"]
    shell = {f"flip-sklearn {line}": [*command, *line.split()] for line in COMMAND_LINES}
    return python | shell


def cpu_seconds(arguments: list[str]) -> float:
    """User and system CPU seconds of a process and of those it started."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    is_usage_error = arguments[-1] == "--no-such-option"
    if process.returncode != (2 if is_usage_error else 0):
        raise RuntimeError(f"{' '.join(arguments)} exited with {process.returncode}.")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="counted runs of each case")
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats} is not allowed; use a number >= 1.")
    seconds: dict[str, list[float]] = {name: [] for name in cases()}
    for repeat in range(args.repeats + 1):
        for name, arguments in cases().items():
            value = cpu_seconds(arguments)
            if repeat > 0:
                seconds[name].append(value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    base = medians[STATEMENTS[0]]
    print(f"median of {args.repeats} runs; target: a ratio of at most {TARGET}\n")
    print("| process | CPU seconds | ratio |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| `{name}` | {value:.2f} | {value / base:.2f} |")


if __name__ == "__main__":
    main()
